/* score.h - a text in chunks through models: how well they foresee it, how far two are apart.
 *
 * Scored as llama-perplexity does, so that figures compare: the ids of the whole text (BOS in front
 * where the model has one) are cut into chunks of `ctx` ids, what is left over is dropped; the
 * first id of each chunk is replaced by BOS; every chunk starts with an empty cache; of each chunk
 * the logits of positions ctx/2 .. ctx-2 are scored against the id that follows.
 *
 * The figures are the same to the last bit wherever the logits are: exponentials are the kernels',
 * the rest is sums in double, in the order of the text; nothing is the libc's. */
#ifndef CORE_ENGINE_SCORE_H
#define CORE_ENGINE_SCORE_H

#include "core/vaquita.h"

/* The ids of a text, as chunks. */
typedef struct vq_score_text {
    vq_ids ids;             /* of the whole text, behind BOS where there is one */
    size_t ctx, n_chunk;    /* ids of a chunk; chunks that are scored */
    int32_t bos;            /* -1: none */
    char sha256[65];        /* of the ids: which text this is */
} vq_score_text;

/* ids, ctx and bos are there: sets the rest, n_chunk to all there are. */
void vq_score_text_cut(vq_score_text *t);
void vq_score_text_clear(vq_score_text *t);
/* The ids of chunk i, (t->ctx), to out. */
void vq_score_chunk(const vq_score_text *t, size_t i, int32_t *out);
static inline size_t vq_score_first(size_t ctx) { return ctx / 2; }
static inline size_t vq_score_per_chunk(size_t ctx) { return ctx - 1 - ctx / 2; }

/* Asked between steps and rows, n of which were computed since; true: stop (VQ_EINTR). */
typedef bool vq_score_stop_fn(void *ctx, size_t n);

/* Computes the positions in front of the scored ones, from an empty sequence. */
vq_status vq_score_enter(vq_engine *eng, vq_session *s, const int32_t *ids, size_t n,
                         vq_score_stop_fn *stop, void *ctx, vq_err *e);

/* log(sum(exp(row))) of a line of logits.  tmp: (info.vocab). */
double vq_score_lse(const vq_engine *eng, float *tmp, const float *row);
/* sum(p * log(p / q)), p of the reference's logits, q of the others.  *same: 1 when both put the
 * same token first, else 0. */
double vq_score_divergence(const vq_engine *eng, float *tmp, const float *ref, const float *logits,
                           double *same);

/* ---- two models side by side ---- */
typedef struct vq_score_pair vq_score_pair;
/* Each engine needs room for a session of ctx.  VQ_EUSAGE: they do not speak the same ids. */
vq_status vq_score_pair_open(vq_score_pair **out, vq_engine *ref, vq_engine *model, size_t ctx,
                             vq_score_stop_fn *stop, void *stop_ctx, vq_err *e);
void vq_score_pair_close(vq_score_pair *p);
/* value (2 * per_chunk): the divergence of each scored position, then `same` of each. */
vq_status vq_score_pair_chunk(vq_score_pair *p, const int32_t *ids, double *value, vq_err *e);

typedef struct vq_score_sum {
    double mean, p99, most; /* divergence per position, in nats */
    double top1;            /* share of the positions where both put the same token first */
    size_t n;               /* positions */
} vq_score_sum;
/* Over such values of n_chunk chunks. */
vq_status vq_score_sum_up(vq_score_sum *out, const double *value, size_t n_chunk, size_t ctx,
                          vq_err *e);

#endif
