/* score.h - a text in chunks through a model, for perplexity and kl.
 *
 * Scored as llama-perplexity does, so that figures compare: the ids of the whole text (BOS in front
 * where the model has one) are cut into chunks of `ctx` ids, what is left over is dropped; the
 * first id of each chunk is replaced by BOS; every chunk starts with an empty cache; of each chunk
 * the logits of positions ctx/2 .. ctx-2 are scored against the id that follows.
 *
 * What was scored is kept, chunk by chunk, in a file of JSON lines when the caller names one: the
 * same command goes on behind the last complete line.  Figures are summed in the order of the text,
 * from values that the file holds with all their digits, so a resumed run ends with the figures of
 * an undisturbed one. */
#ifndef CORE_APP_SCORE_H
#define CORE_APP_SCORE_H

#include "core/app/app.h"
#include "core/vaquita.h"

#define SCORE_TEXT_ARG "-f TEXT"

typedef struct score_opts {
    const char *file, *out; /* the text; the file of lines, NULL: none */
    uint64_t ctx;           /* ids of a chunk */
    int64_t limit;          /* chunks at most, 0: all */
    int kv;                 /* index into GEN_KV, -1: the engine's choice */
    bool ids, no_bos;       /* the text is token ids; do not use BOS */
} score_opts;

#define SCORE_DEFAULTS { .ctx = 512, .kv = -1 }
#define SCORE_OPTIONS(type) \
    { ARGS_TEXT, "-f", "FILE", offsetof(type, file), 0, 0, NULL, "the text; - is stdin" }, \
    { ARGS_SIZE, "--ctx", "N", offsetof(type, ctx), 4, 1048576, NULL, \
      "ids of a chunk, the second half of them scored (512)" }, \
    { ARGS_INT, "--limit", "N", offsetof(type, limit), 1, 1e9, NULL, "chunks at most (all)" }, \
    { ARGS_TEXT, "--out", "FILE", offsetof(type, out), 0, 0, NULL, \
      "a line per chunk; the same command goes on there" }, \
    { ARGS_FLAG, "--ids", NULL, offsetof(type, ids), 0, 0, NULL, \
      "the file holds token ids, not text" }, \
    { ARGS_FLAG, "--no-bos", NULL, offsetof(type, no_bos), 0, 0, NULL, \
      "do not put BOS in front of each chunk" }, \
    { ARGS_CHOICE, "--kv", "TYPE", offsetof(type, kv), 0, 0, "8|bf16|f32", \
      "cache type (8; f32 for float containers)" }

/* The ids of the text, as chunks. */
typedef struct score_text {
    vq_ids ids;
    size_t ctx, n_chunk;
    int32_t bos;            /* -1: none */
    char sha256[65];        /* of the ids: which text this is */
} score_text;

vq_status score_text_read(score_text *t, const score_opts *o, const vq_engine *eng, vq_err *e);
void score_text_clear(score_text *t);
/* The ids of chunk i, (t->ctx), to out. */
void score_chunk(const score_text *t, size_t i, int32_t *out);
static inline size_t score_first(const score_text *t) { return t->ctx / 2; }
static inline size_t score_per_chunk(const score_text *t) { return t->ctx - 1 - t->ctx / 2; }

/* Computes the positions in front of the scored ones, from an empty sequence. */
vq_status score_enter(vq_engine *eng, vq_session *s, const int32_t *ids, size_t n, vq_err *e);

/* log(sum(exp(row))), in double; *top (may be NULL): the index of the largest, lowest on ties. */
double score_lse(const float *row, size_t n, size_t *top);

/* The lines of a run: values of each chunk, n_value doubles, in the order of the text. */
typedef struct score_log {
    const char *path;       /* NULL: kept in memory only */
    void *f;                /* FILE *, for appending */
    size_t n_value, n_chunk;/* doubles per chunk; chunks that are there */
    double *value;          /* (n_chunk, n_value) */
    size_t cap;
} score_log;

/* `key` names everything the values depend on; a file of another key is refused (VQ_EUSAGE). */
vq_status score_log_open(score_log *l, const char *path, size_t n_value, size_t max_chunk,
                         const char *key, vq_err *e);
vq_status score_log_put(score_log *l, const double *value, vq_err *e);
void score_log_close(score_log *l);

#endif
