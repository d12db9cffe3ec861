/* perplexity.c - `vaquita perplexity`: how well a model foresees a text; lower is better. */
#include "core/app/gen.h"
#include "core/app/score.h"
#include "core/app/term.h"
#include "core/base/mem.h"

#include <math.h>
#include <stdio.h>

static const args_opt options[] = {
    SCORE_OPTIONS(score_opts),
    { .kind = ARGS_END },
};

typedef struct ppl {
    const int32_t *ids;     /* of the chunk */
    const vq_engine *eng;
    float *tmp;             /* (vocab) */
    double value[2];        /* sums of nll and of nll^2 over the chunk's scored ids */
} ppl;

static vq_status take_row(void *ctx, size_t pos, const float *logits, vq_err *e)
{
    ppl *p = ctx;
    const double nll = vq_score_lse(p->eng, p->tmp, logits) - (double)logits[p->ids[pos + 1]];
    p->value[0] += nll;
    p->value[1] += nll * nll;
    return term_interrupted() ? vq_fail(e, VQ_EINTR, "interrupted") : VQ_OK;
}

static vq_status run_chunks(app *a, vq_engine *eng, const vq_score_text *t, score_log *log,
                            vq_err *e)
{
    vq_session *s = NULL;
    app_progress pr;
    int32_t *ids = vq_calloc(t->ctx, sizeof *ids);
    float *tmp = vq_calloc((size_t)vq_engine_info(eng)->vocab, sizeof *tmp);
    vq_status st = ids && tmp ? vq_session_open(&s, eng, NULL, e)
                              : vq_fail(e, VQ_ENOMEM, "out of memory");
    const size_t first = vq_score_first(t->ctx), per = vq_score_per_chunk(t->ctx);
    const size_t done = log->n_chunk;
    app_progress_begin(&pr, a, "perplexity", "chunks", 2);
    for (size_t i = done; !st && i < t->n_chunk; i++) {
        ppl p = { .ids = ids, .eng = eng, .tmp = tmp };
        vq_score_chunk(t, i, ids);
        st = vq_score_enter(eng, s, ids, first, score_stop, NULL, e);
        if (!st)
            st = vq_session_logits_all(s, ids + first, per, 0, false, take_row, &p, e);
        if (!st) st = score_log_put(log, p.value, e);
        if (!st && app_progress_step(&pr, i + 1 - done, t->n_chunk - done))
            st = vq_fail(e, VQ_EINTR, "interrupted");
    }
    app_progress_end(&pr);
    vq_session_close(s);
    vq_free(tmp);
    vq_free(ids);
    return st;
}

static vq_status report(app *a, const vq_engine *eng, const vq_score_text *t, const score_log *log,
                        vq_err *e)
{
    const double n = (double)(log->n_chunk * vq_score_per_chunk(t->ctx));
    double nll = 0, sq = 0;
    for (size_t i = 0; i < log->n_chunk; i++) {
        nll += log->value[2 * i];
        sq += log->value[2 * i + 1];
    }
    const double mean = nll / n, var = sq / n - mean * mean, value = exp(mean);
    const double err = n > 1 && var > 0 ? value * sqrt(var / (n - 1)) : 0;
    vq_buf b = { 0 };
    if (a->json) {
        vq_jw w = { .b = &b };
        vq_jw_open(&w, NULL, '{');
        vq_jw_f64(&w, "ppl", value);
        vq_jw_f64(&w, "stderr", err);
        vq_jw_f64(&w, "nll", mean);
        vq_jw_u64(&w, "tokens", log->n_chunk * vq_score_per_chunk(t->ctx));
        vq_jw_u64(&w, "chunks", log->n_chunk);
        vq_jw_u64(&w, "ctx", t->ctx);
        vq_jw_cstr(&w, "text_sha256", t->sha256);
        vq_jw_cstr(&w, "cpu", vq_engine_info(eng)->cpu);
        vq_jw_close(&w, '}');
        const vq_status st = app_put_json(a, &b, e);
        vq_buf_clear(&b);
        return st;
    }
    vq_buf_printf(&b, "perplexity %.4f +- %.4f over %zu tokens (%zu chunks of %zu)\n", value, err,
                  log->n_chunk * vq_score_per_chunk(t->ctx), log->n_chunk, t->ctx);
    if (b.p) app_puts(a, b.p);
    vq_buf_clear(&b);
    return VQ_OK;
}

static vq_status perplexity(app *a, const void *opts, char **arg, int n_arg, vq_err *e)
{
    const score_opts *o = opts;
    (void)n_arg;
    if (!o->file) return vq_fail(e, VQ_EUSAGE, "which text? give " SCORE_TEXT_ARG);
    vq_engine *eng = NULL;
    vq_score_text t = { 0 };
    score_log log = { 0 };
    vq_status st = gen_open(a, &eng, arg[0], o->ctx, o->kv, e);
    if (!st) st = score_text_read(&t, o, eng, e);
    if (!st) {
        const vq_info *i = vq_engine_info(eng);
        char key[400];
        snprintf(key, sizeof key,
                 "{\"perplexity\":\"%s\",\"text\":\"%s\",\"ctx\":%zu,\"bos\":%d,\"kv\":%d}",
                 i->sha256, t.sha256, t.ctx, (int)t.bos, (int)i->kv);
        st = score_log_open(&log, o->out, 2, t.n_chunk, key, e);
    }
    if (!st) st = run_chunks(a, eng, &t, &log, e);
    if (!st) st = report(a, eng, &t, &log, e);
    score_log_close(&log);
    vq_score_text_clear(&t);
    term_watch(NULL);
    vq_engine_close(eng);
    return st;
}

static const score_opts defaults = SCORE_DEFAULTS;

const app_verb app_verb_perplexity = {
    "perplexity", "MODEL " SCORE_TEXT_ARG, "how well a model foresees a text",
    "Lower is better.  Chunks of --ctx tokens, the second half of each scored, as\n"
    "llama-perplexity does.\n"
    "Example:\n"
    "  vaquita perplexity model.vaq -f wiki.test.raw --out run.jsonl\n",
    options, &defaults, sizeof defaults, 1, 1, perplexity,
};
