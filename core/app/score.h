/* score.h - what perplexity and kl share: the text, and a log of what was scored.
 *
 * How is said in core/engine/score.h.  What was scored is kept, chunk by chunk, in a file of JSON
 * lines when the caller names one: the same command goes on behind the last complete line.  Figures
 * are summed in the order of the text, from values that the file holds with all their digits, so a
 * resumed run ends with the figures of an undisturbed one. */
#ifndef CORE_APP_SCORE_H
#define CORE_APP_SCORE_H

#include "core/app/app.h"
#include "core/engine/score.h"

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

/* The ids of the text. */
vq_status score_text_read(vq_score_text *t, const score_opts *o, const vq_engine *eng, vq_err *e);

/* A vq_score_stop_fn: has the user asked? */
bool score_stop(void *ctx, size_t n);

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
