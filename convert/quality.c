/* quality.c - quality.h: which text, and the two models side by side over it. */
#include "convert/quality.h"

#include "core/base/mem.h"
#include "core/text/tok.h"

#include <stdio.h>
#include <string.h>

enum {
    CTX = 512,              /* ids of a chunk, as `kl` cuts them unasked */
    CHUNKS = 16,            /* some 4,000 positions: top-1 within half a percent, minutes at most */
    TEXT = 64 << 20         /* bytes: a thousand times what is used */
};

static const char prefix[] = "quality.";

vq_status cv_quality_read(cv_quality *q, const char *path, const void *tokenizer, size_t n,
                          int32_t bos, uint32_t ctx, vq_err *e)
{
    vq_tok *tok = NULL;
    vq_buf text = { 0 };
    vq_score_text *t = &q->text;
    const char *slash = strrchr(path, '/');
    *q = (cv_quality){ .text = { .ctx = ctx < CTX ? ctx : CTX, .bos = bos } };
    snprintf(q->name, sizeof q->name, "%s", slash ? slash + 1 : path);
    vq_status st = vq_tok_open(&tok, tokenizer, n, path, e);
    if (!st) st = vq_file_read(path, TEXT, &text, e);
    if (!st && bos >= 0 && !vq_ids_add(&t->ids, bos)) st = vq_fail(e, VQ_ENOMEM, "out of memory");
    if (!st && text.n) st = vq_tok_encode(tok, text.p, text.n, false, &t->ids, e);
    vq_buf_clear(&text);
    vq_tok_close(tok);
    if (!st) vq_score_text_cut(t);
    if (!st && !t->n_chunk) {
        st = vq_fail(e, VQ_EUSAGE, "%s: %zu tokens, at least %zu are wanted for a card (%d are "
                     "used)", path, t->ids.n, t->ctx, CTX * CHUNKS);
    }
    if (t->n_chunk > CHUNKS) t->n_chunk = CHUNKS;
    if (st) cv_quality_clear(q);
    return st;
}

void cv_quality_clear(cv_quality *q) { vq_score_text_clear(&q->text); }

typedef struct meter {
    const cv_quality_run *run;
    uint64_t done, total;   /* tokens, of both models */
} meter;

static bool step(void *ctx, size_t n)
{
    meter *m = ctx;
    m->done += n;
    vq_rss_anon(); /* keeps the peak it remembers true */
    return m->run->progress && m->run->progress(m->run->ctx, m->done, m->total);
}

vq_status cv_quality_measure(const cv_quality *q, const cv_quality_run *run, vq_score_sum *out,
                             vq_err *e)
{
    const vq_score_text *t = &q->text;
    const size_t n_value = 2 * vq_score_per_chunk(t->ctx);
    const vq_engine_opts eo = { .cpu = run->cpu, .threads = run->threads, .ctx = (uint32_t)t->ctx,
                                .max_rows = 256 };
    meter m = { .run = run, .total = 2 * t->n_chunk * (t->ctx - 1) };
    vq_engine *eng = NULL;
    vq_score_pair *pair = NULL;
    int32_t *ids = vq_calloc(t->ctx, sizeof *ids);
    double *value = vq_calloc(t->n_chunk * n_value, sizeof *value);
    vq_status st = ids && value ? VQ_OK : vq_fail(e, VQ_ENOMEM, "out of memory");
    if (!st) st = vq_engine_open(&eng, run->path, &eo, e);
    if (!st) st = vq_score_pair_open(&pair, run->source, eng, t->ctx, step, &m, e);
    for (size_t i = 0; !st && i < t->n_chunk; i++) {
        vq_score_chunk(t, i, ids);
        st = vq_score_pair_chunk(pair, ids, value + i * n_value, e);
    }
    if (!st) st = vq_score_sum_up(out, value, t->n_chunk, t->ctx, e);
    vq_score_pair_close(pair);
    vq_engine_close(eng);
    vq_free(value);
    vq_free(ids);
    return st;
}

void cv_quality_add_text(vq_buf *meta, const cv_quality *q)
{
    const vq_score_text *t = &q->text;
    vq_meta_add_text(meta, "quality.text", q->name, strlen(q->name));
    vq_meta_add_text(meta, "quality.text_sha256", t->sha256, strlen(t->sha256));
    vq_meta_add_u64(meta, "quality.ctx", t->ctx);
    vq_meta_add_u64(meta, "quality.chunks", t->n_chunk);
    vq_meta_add_u64(meta, "quality.tokens", t->n_chunk * vq_score_per_chunk(t->ctx));
}

void cv_quality_add_figures(vq_buf *meta, const vq_score_sum *sum)
{
    vq_meta_add_f64(meta, "quality.kl", sum ? sum->mean : 0);
    vq_meta_add_f64(meta, "quality.kl_p99", sum ? sum->p99 : 0);
    vq_meta_add_f64(meta, "quality.top1", sum ? sum->top1 : 0);
}

vq_str cv_quality_find(const vq_file *f)
{
    vq_meta m;
    for (size_t pos = 0, at = 0; vq_file_meta_next(f, &pos, &m); at = pos) {
        if (m.key.n > sizeof prefix && !memcmp(m.key.p, prefix, sizeof prefix - 1)) {
            return (vq_str){ (const char *)f->meta + at, f->meta_size - at };
        }
    }
    return (vq_str){ NULL, 0 };
}
