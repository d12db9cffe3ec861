/* kl.c - `vaquita kl`: how far a model's predictions are from a reference's.
 *
 * For each scored position the divergence sum(p * log(p / q)) of the model's distribution q from
 * the reference's p, and whether both put the same token first. */
#include "core/app/gen.h"
#include "core/app/score.h"
#include "core/app/term.h"
#include "core/base/mem.h"

#include <stdio.h>
#include <string.h>

static const args_opt options[] = {
    SCORE_OPTIONS(score_opts),
    { .kind = ARGS_END },
};

static vq_status run_chunks(app *a, vq_score_pair *p, const vq_score_text *t, score_log *log,
                            vq_err *e)
{
    const size_t done = log->n_chunk;
    app_progress pr;
    int32_t *ids = vq_calloc(t->ctx, sizeof *ids);
    double *value = vq_calloc(log->n_value, sizeof *value);
    vq_status st = ids && value ? VQ_OK : vq_fail(e, VQ_ENOMEM, "out of memory");
    app_progress_begin(&pr, a, "kl", "chunks", 2);
    for (size_t i = done; !st && i < t->n_chunk; i++) {
        vq_score_chunk(t, i, ids);
        st = vq_score_pair_chunk(p, ids, value, e);
        if (!st) st = score_log_put(log, value, e);
        if (!st && app_progress_step(&pr, i + 1 - done, t->n_chunk - done))
            st = vq_fail(e, VQ_EINTR, "interrupted");
    }
    app_progress_end(&pr);
    vq_free(value);
    vq_free(ids);
    return st;
}

static vq_status report(app *a, const vq_score_text *t, score_log *log, vq_err *e)
{
    vq_score_sum sum;
    vq_status st = vq_score_sum_up(&sum, log->value, log->n_chunk, t->ctx, e);
    if (st) return st;
    vq_buf b = { 0 };
    if (a->json) {
        vq_jw w = { .b = &b };
        vq_jw_open(&w, NULL, '{');
        vq_jw_f64(&w, "kl_mean", sum.mean);
        vq_jw_f64(&w, "kl_p99", sum.p99);
        vq_jw_f64(&w, "kl_max", sum.most);
        vq_jw_f64(&w, "top1", sum.top1);
        vq_jw_u64(&w, "tokens", sum.n);
        vq_jw_u64(&w, "chunks", log->n_chunk);
        vq_jw_u64(&w, "ctx", t->ctx);
        vq_jw_cstr(&w, "text_sha256", t->sha256);
        vq_jw_cstr(&w, "cpu", a->level);
        vq_jw_close(&w, '}');
        st = app_put_json(a, &b, e);
    } else {
        vq_buf_printf(&b, "kl mean %.6f, p99 %.6f, max %.4f; same first token %.2f %%; %zu tokens "
                          "(%zu chunks of %zu)\n",
                      sum.mean, sum.p99, sum.most, 100 * sum.top1, sum.n, log->n_chunk, t->ctx);
        if (b.p) app_puts(a, b.p);
    }
    vq_buf_clear(&b);
    return st;
}

static vq_status kl(app *a, const void *opts, char **arg, int n_arg, vq_err *e)
{
    const score_opts *o = opts;
    (void)n_arg;
    if (!o->file) return vq_fail(e, VQ_EUSAGE, "which text? give " SCORE_TEXT_ARG);
    vq_engine *eng[2] = { NULL };
    vq_score_pair *p = NULL;
    vq_score_text t = { 0 };
    score_log log = { 0 };
    vq_status st = VQ_OK;
    for (int i = 0; i < 2 && !st; i++) st = gen_open(a, &eng[i], arg[i], o->ctx, o->kv, e);
    if (!st) st = vq_score_pair_open(&p, eng[0], eng[1], (size_t)o->ctx, score_stop, NULL, e);
    if (!st) st = score_text_read(&t, o, eng[0], e);
    if (!st) {
        const vq_info *r = vq_engine_info(eng[0]), *m = vq_engine_info(eng[1]);
        char key[500];
        snprintf(key, sizeof key,
                 "{\"kl\":[\"%s\",\"%s\"],\"text\":\"%s\",\"ctx\":%zu,\"bos\":%d,\"kv\":[%d,%d]}",
                 r->sha256, m->sha256, t.sha256, t.ctx, (int)t.bos, (int)r->kv, (int)m->kv);
        st = score_log_open(&log, o->out, 2 * vq_score_per_chunk(t.ctx), t.n_chunk, key, e);
    }
    if (!st) st = run_chunks(a, p, &t, &log, e);
    if (!st) st = report(a, &t, &log, e);
    score_log_close(&log);
    vq_score_text_clear(&t);
    term_watch(NULL);
    vq_score_pair_close(p);
    for (int i = 0; i < 2; i++) vq_engine_close(eng[i]);
    return st;
}

static const score_opts defaults = SCORE_DEFAULTS;

const app_verb app_verb_kl = {
    "kl", "REF.vaq MODEL.vaq " SCORE_TEXT_ARG, "how far a model is from a reference",
    "Positions scored as by perplexity.  What a smaller type costs:\n"
    "  vaquita kl model-bf16.vaq model-n4.vaq -f text.txt\n",
    options, &defaults, sizeof defaults, 2, 2, kl,
};
