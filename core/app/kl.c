/* kl.c - `vaquita kl`: how far a model's predictions are from a reference's.
 *
 * For each scored position the divergence sum(p * log(p / q)) of the model's distribution q from
 * the reference's p, and whether both put the same token first.  Both models go through a chunk
 * side by side, BLOCK positions at a time: the reference's logits of a block are all that is
 * held. */
#include "core/app/gen.h"
#include "core/app/score.h"
#include "core/app/term.h"
#include "core/base/mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 32 };

static const args_opt options[] = {
    SCORE_OPTIONS(score_opts),
    { .kind = ARGS_END },
};

typedef struct pair {
    vq_engine *eng[2];      /* reference, model */
    vq_session *s[2];
    size_t vocab;
    float *ref;             /* (BLOCK, vocab) logits of the reference */
    size_t from;            /* position of its first row */
    double *kl;             /* (per chunk) divergence of each scored position ... */
    double *agree;          /* ... and, behind all of them, 1 where both agree on the first */
    size_t first;           /* first scored position */
} pair;

static vq_status keep_ref(void *ctx, size_t pos, const float *logits, vq_err *e)
{
    pair *p = ctx;
    memcpy(p->ref + (pos - p->from) * p->vocab, logits, p->vocab * sizeof *logits);
    return term_interrupted() ? vq_fail(e, VQ_EINTR, "interrupted") : VQ_OK;
}

static vq_status compare(void *ctx, size_t pos, const float *logits, vq_err *e)
{
    pair *p = ctx;
    const float *ref = p->ref + (pos - p->from) * p->vocab;
    size_t top_p, top_q;
    const double lp = score_lse(ref, p->vocab, &top_p), lq = score_lse(logits, p->vocab, &top_q);
    double kl = 0;
    for (size_t i = 0; i < p->vocab; i++) {
        const double a = (double)ref[i] - lp;
        if (a > -40) kl += exp(a) * (a - ((double)logits[i] - lq)); /* e^-40: nothing is lost */
    }
    p->kl[pos - p->first] = kl > 0 ? kl : 0; /* below 0 only by rounding */
    p->agree[pos - p->first] = top_p == top_q;
    return term_interrupted() ? vq_fail(e, VQ_EINTR, "interrupted") : VQ_OK;
}

static vq_status run_chunk(pair *p, const int32_t *ids, size_t per, vq_err *e)
{
    vq_status st = VQ_OK;
    for (int i = 0; i < 2 && !st; i++) st = score_enter(p->eng[i], p->s[i], ids, p->first, e);
    for (size_t at = 0; at < per && !st; at += BLOCK) {
        const size_t n = per - at < BLOCK ? per - at : BLOCK;
        p->from = p->first + at;
        st = vq_session_logits_all(p->s[0], ids + p->from, n, 0, false, keep_ref, p, e);
        if (!st) st = vq_session_logits_all(p->s[1], ids + p->from, n, 0, false, compare, p, e);
    }
    return st;
}

static vq_status run_chunks(app *a, pair *p, const score_text *t, score_log *log, vq_err *e)
{
    const size_t per = score_per_chunk(t), done = log->n_chunk;
    app_progress pr;
    int32_t *ids = vq_calloc(t->ctx, sizeof *ids);
    p->first = score_first(t);
    p->ref = vq_malloc(BLOCK * p->vocab * sizeof *p->ref);
    p->kl = vq_calloc(2 * per, sizeof *p->kl);
    vq_status st = VQ_OK;
    if (!ids || !p->ref || !p->kl) st = vq_fail(e, VQ_ENOMEM, "out of memory");
    else p->agree = p->kl + per;
    for (int i = 0; i < 2 && !st; i++) st = vq_session_open(&p->s[i], p->eng[i], NULL, e);
    app_progress_begin(&pr, a, "kl", "chunks", 2);
    for (size_t i = done; !st && i < t->n_chunk; i++) {
        score_chunk(t, i, ids);
        st = run_chunk(p, ids, per, e);
        if (!st) st = score_log_put(log, p->kl, e);
        if (!st && app_progress_step(&pr, i + 1 - done, t->n_chunk - done))
            st = vq_fail(e, VQ_EINTR, "interrupted");
    }
    app_progress_end(&pr);
    for (int i = 0; i < 2; i++) vq_session_close(p->s[i]);
    vq_free(p->ref);
    vq_free(p->kl);
    vq_free(ids);
    return st;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static vq_status report(app *a, const score_text *t, score_log *log, vq_err *e)
{
    const size_t per = score_per_chunk(t), n = log->n_chunk * per;
    double *all = vq_calloc(n, sizeof *all);
    if (!all) return vq_fail(e, VQ_ENOMEM, "out of memory");
    double sum = 0, same = 0;
    for (size_t i = 0; i < n; i++) {
        const double *chunk = log->value + i / per * log->n_value;
        all[i] = chunk[i % per];
        sum += all[i];
        same += chunk[per + i % per];
    }
    qsort(all, n, sizeof *all, by_value);
    const double mean = sum / (double)n, top1 = same / (double)n;
    const double p99 = all[(size_t)(0.99 * (double)(n - 1) + 0.5)], most = all[n - 1];
    vq_free(all);
    vq_buf b = { 0 };
    vq_status st = VQ_OK;
    if (a->json) {
        vq_jw w = { .b = &b };
        vq_jw_open(&w, NULL, '{');
        vq_jw_f64(&w, "kl_mean", mean);
        vq_jw_f64(&w, "kl_p99", p99);
        vq_jw_f64(&w, "kl_max", most);
        vq_jw_f64(&w, "top1", top1);
        vq_jw_u64(&w, "tokens", n);
        vq_jw_u64(&w, "chunks", log->n_chunk);
        vq_jw_u64(&w, "ctx", t->ctx);
        vq_jw_cstr(&w, "text_sha256", t->sha256);
        vq_jw_cstr(&w, "cpu", a->level);
        vq_jw_close(&w, '}');
        st = app_put_json(a, &b, e);
    } else {
        vq_buf_printf(&b, "kl mean %.6f, p99 %.6f, max %.4f; same first token %.2f %%; %zu tokens "
                          "(%zu chunks of %zu)\n",
                      mean, p99, most, 100 * top1, n, log->n_chunk, t->ctx);
        if (b.p) app_puts(a, b.p);
    }
    vq_buf_clear(&b);
    return st;
}

/* Both must speak the same ids, else the figures say nothing. */
static vq_status comparable(const pair *p, vq_err *e)
{
    const vq_info *r = vq_engine_info(p->eng[0]), *m = vq_engine_info(p->eng[1]);
    if (r->vocab == m->vocab && r->n_ids == m->n_ids && r->bos == m->bos) return VQ_OK;
    return vq_fail(e, VQ_EUSAGE, "%s has %d rows of vocabulary, %d ids and BOS %d, %s has %d, %d "
                   "and %d: only models of one vocabulary compare", r->path, r->vocab, r->n_ids,
                   (int)r->bos, m->path, m->vocab, m->n_ids, (int)m->bos);
}

static vq_status kl(app *a, const void *opts, char **arg, int n_arg, vq_err *e)
{
    const score_opts *o = opts;
    (void)n_arg;
    if (!o->file) return vq_fail(e, VQ_EUSAGE, "which text? give " SCORE_TEXT_ARG);
    pair p = { 0 };
    score_text t = { 0 };
    score_log log = { 0 };
    vq_status st = VQ_OK;
    for (int i = 0; i < 2 && !st; i++) st = gen_open(a, &p.eng[i], arg[i], o->ctx, o->kv, e);
    if (!st) st = comparable(&p, e);
    if (!st) st = score_text_read(&t, o, p.eng[0], e);
    if (!st) {
        const vq_info *r = vq_engine_info(p.eng[0]), *m = vq_engine_info(p.eng[1]);
        char key[500];
        p.vocab = (size_t)r->vocab;
        snprintf(key, sizeof key,
                 "{\"kl\":[\"%s\",\"%s\"],\"text\":\"%s\",\"ctx\":%zu,\"bos\":%d,\"kv\":[%d,%d]}",
                 r->sha256, m->sha256, t.sha256, t.ctx, (int)t.bos, (int)r->kv, (int)m->kv);
        st = score_log_open(&log, o->out, 2 * score_per_chunk(&t), t.n_chunk, key, e);
    }
    if (!st) st = run_chunks(a, &p, &t, &log, e);
    if (!st) st = report(a, &t, &log, e);
    score_log_close(&log);
    score_text_clear(&t);
    term_watch(NULL);
    for (int i = 0; i < 2; i++) vq_engine_close(p.eng[i]);
    return st;
}

static const score_opts defaults = SCORE_DEFAULTS;

const app_verb app_verb_kl = {
    "kl", "REF.vaq MODEL.vaq " SCORE_TEXT_ARG, "how far a model is from a reference",
    "Positions scored as by perplexity.  What a smaller type costs:\n"
    "  vaquita kl model-bf16.vaq model-n4.vaq -f text.txt\n",
    options, &defaults, sizeof defaults, 2, 2, kl,
};
