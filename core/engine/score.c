/* score.c - score.h: chunks, the divergence of two lines of logits, and what it comes to.
 *
 * Two models go through a chunk side by side, BLOCK positions at a time: the reference's logits of
 * a block are all that is held. */
#include "core/engine/score.h"

#include "core/base/mem.h"
#include "core/engine/private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLOCK = 32,
    STEP = 64               /* rows between two looks at whether to stop */
};

/* ---- the text ---- */

void vq_score_text_cut(vq_score_text *t)
{
    vq_sha256 s;
    uint8_t h[32];
    vq_sha256_init(&s, NULL);
    if (t->ids.n) vq_sha256_add(&s, t->ids.v, t->ids.n * sizeof *t->ids.v);
    vq_sha256_end(&s, h);
    vq_hex32(t->sha256, h);
    t->n_chunk = t->ids.n / t->ctx;
}

void vq_score_text_clear(vq_score_text *t) { vq_ids_clear(&t->ids); }

void vq_score_chunk(const vq_score_text *t, size_t i, int32_t *out)
{
    memcpy(out, t->ids.v + i * t->ctx, t->ctx * sizeof *out);
    if (t->bos >= 0) out[0] = t->bos;
}

static vq_status interrupted(vq_err *e) { return vq_fail(e, VQ_EINTR, "interrupted"); }

vq_status vq_score_enter(vq_engine *eng, vq_session *s, const int32_t *ids, size_t n,
                         vq_score_stop_fn *stop, void *ctx, vq_err *e)
{
    size_t left = n;
    vq_status st = vq_session_truncate(s, 0, e);
    if (!st) st = vq_session_add(s, ids, n, e);
    while (!st && left) {
        const size_t before = left;
        st = vq_step(eng, &s, 1, STEP, &left, e);
        if (!st && stop(ctx, before - left)) st = interrupted(e);
    }
    return st ? st : vq_session_check(s, e);
}

/* ---- a line of logits ---- */

/* ln x for x >= 1, good to 50 bits: m in sqrt(1/2) .. sqrt(2), ln m = 2 atanh t, t^2 <= 0.0295. */
static double ln(double x)
{
    int e;
    double m = frexp(x, &e);
    if (m < 0x1.6a09e667f3bcdp-1) {
        m *= 2;
        e--;
    }
    const double t = (m - 1) / (m + 1), z = t * t;
    double s = 0;
    for (int k = 21; k >= 1; k -= 2) s = s * z + 1.0 / k;
    return e * 0x1.62e42fefa39efp-1 + 2 * t * s;
}

/* p[i] = exp(row[i] - the largest), whose index is returned; *sum over them. */
static int exps(const vq_engine *eng, float *p, const float *row, double *sum)
{
    const int n = eng->model.n_vocab, top = eng->kern.argmax(row, n);
    eng->kern.softmax(p, row, n, row[top], 1);
    *sum = 0;
    for (int i = 0; i < n; i++) *sum += (double)p[i];
    return top;
}

double vq_score_lse(const vq_engine *eng, float *tmp, const float *row)
{
    double sum;
    const int top = exps(eng, tmp, row, &sum);
    return (double)row[top] + ln(sum);
}

double vq_score_divergence(const vq_engine *eng, float *tmp, const float *ref, const float *logits,
                           double *same)
{
    double sum_q, sum_p, kl = 0;
    const int top_q = exps(eng, tmp, logits, &sum_q), top_p = exps(eng, tmp, ref, &sum_p);
    const double lq = (double)logits[top_q] + ln(sum_q), lp = (double)ref[top_p] + ln(sum_p);
    for (int i = 0; i < eng->model.n_vocab; i++) {
        kl += (double)tmp[i] * (((double)ref[i] - lp) - ((double)logits[i] - lq));
    }
    *same = top_p == top_q;
    return kl > 0 ? kl / sum_p : 0; /* below 0 only by rounding */
}

/* ---- two models ---- */

struct vq_score_pair {
    vq_engine *eng[2];      /* reference, model */
    vq_session *s[2];
    size_t vocab, ctx;
    float *ref;             /* (BLOCK, vocab) logits of the reference */
    float *tmp;             /* (vocab) */
    size_t from;            /* position of its first row */
    double *value;          /* the caller's, of the chunk at hand */
    vq_score_stop_fn *stop;
    void *stop_ctx;
};

/* Both must speak the same ids, else the figures say nothing. */
static vq_status comparable(const vq_engine *ref, const vq_engine *model, vq_err *e)
{
    const vq_info *r = vq_engine_info(ref), *m = vq_engine_info(model);
    if (r->vocab == m->vocab && r->n_ids == m->n_ids && r->bos == m->bos) return VQ_OK;
    return vq_fail(e, VQ_EUSAGE, "%s has %d rows of vocabulary, %d ids and BOS %d, %s has %d, %d "
                   "and %d: only models of one vocabulary compare", r->path, r->vocab, r->n_ids,
                   (int)r->bos, m->path, m->vocab, m->n_ids, (int)m->bos);
}

vq_status vq_score_pair_open(vq_score_pair **out, vq_engine *ref, vq_engine *model, size_t ctx,
                             vq_score_stop_fn *stop, void *stop_ctx, vq_err *e)
{
    *out = NULL;
    vq_status st = comparable(ref, model, e);
    if (st) return st;
    vq_score_pair *p = vq_calloc(1, sizeof *p);
    if (!p) return vq_fail(e, VQ_ENOMEM, "out of memory");
    *p = (vq_score_pair){ .eng = { ref, model }, .ctx = ctx, .stop = stop, .stop_ctx = stop_ctx,
                          .vocab = (size_t)vq_engine_info(ref)->vocab };
    p->ref = vq_malloc(BLOCK * p->vocab * sizeof *p->ref);
    p->tmp = vq_malloc(p->vocab * sizeof *p->tmp);
    if (!p->ref || !p->tmp) st = vq_fail(e, VQ_ENOMEM, "out of memory");
    for (int i = 0; i < 2 && !st; i++) st = vq_session_open(&p->s[i], p->eng[i], NULL, e);
    if (st) vq_score_pair_close(p);
    else *out = p;
    return st;
}

void vq_score_pair_close(vq_score_pair *p)
{
    if (!p) return;
    for (int i = 0; i < 2; i++) vq_session_close(p->s[i]);
    vq_free(p->ref);
    vq_free(p->tmp);
    vq_free(p);
}

static vq_status keep_ref(void *ctx, size_t pos, const float *logits, vq_err *e)
{
    vq_score_pair *p = ctx;
    memcpy(p->ref + (pos - p->from) * p->vocab, logits, p->vocab * sizeof *logits);
    return p->stop(p->stop_ctx, 1) ? interrupted(e) : VQ_OK;
}

static vq_status compare(void *ctx, size_t pos, const float *logits, vq_err *e)
{
    vq_score_pair *p = ctx;
    const size_t i = pos - vq_score_first(p->ctx);
    p->value[i] = vq_score_divergence(p->eng[0], p->tmp, p->ref + (pos - p->from) * p->vocab,
                                      logits, &p->value[vq_score_per_chunk(p->ctx) + i]);
    return p->stop(p->stop_ctx, 1) ? interrupted(e) : VQ_OK;
}

vq_status vq_score_pair_chunk(vq_score_pair *p, const int32_t *ids, double *value, vq_err *e)
{
    const size_t first = vq_score_first(p->ctx), per = vq_score_per_chunk(p->ctx);
    vq_status st = VQ_OK;
    p->value = value;
    for (int i = 0; i < 2 && !st; i++) {
        st = vq_score_enter(p->eng[i], p->s[i], ids, first, p->stop, p->stop_ctx, e);
    }
    for (size_t at = 0; at < per && !st; at += BLOCK) {
        const size_t n = per - at < BLOCK ? per - at : BLOCK;
        p->from = first + at;
        st = vq_session_logits_all(p->s[0], ids + p->from, n, 0, false, keep_ref, p, e);
        if (!st) st = vq_session_logits_all(p->s[1], ids + p->from, n, 0, false, compare, p, e);
    }
    return st;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

vq_status vq_score_sum_up(vq_score_sum *out, const double *value, size_t n_chunk, size_t ctx,
                          vq_err *e)
{
    const size_t per = vq_score_per_chunk(ctx), n = n_chunk * per;
    double *all = vq_calloc(n, sizeof *all), sum = 0, same = 0;
    if (!all) return vq_fail(e, VQ_ENOMEM, "out of memory");
    for (size_t i = 0; i < n; i++) {
        const double *chunk = value + i / per * 2 * per;
        all[i] = chunk[i % per];
        sum += all[i];
        same += chunk[per + i % per];
    }
    qsort(all, n, sizeof *all, by_value);
    *out = (vq_score_sum){ .mean = sum / (double)n, .top1 = same / (double)n, .n = n,
                           .p99 = all[(size_t)(0.99 * (double)(n - 1) + 0.5)],
                           .most = all[n - 1] };
    vq_free(all);
    return VQ_OK;
}
