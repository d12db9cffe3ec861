/* gen.h - one answer: from queued ids to text on the screen; shared by run and chat. */
#ifndef CORE_APP_GEN_H
#define CORE_APP_GEN_H

#include "core/app/app.h"
#include "core/vaquita.h"

#include <float.h>

/* Options that run and chat have in common; GEN_OPTIONS are their rows. */
typedef struct gen_opts {
    int64_t n;              /* generated ids at most */
    double temp, top_p;     /* < 0: the checkpoint's advice */
    args_u64 seed;          /* not set: random */
    uint64_t ctx;           /* 0: the engine's choice */
    int kv;                 /* index into GEN_KV, -1: the engine's choice */
    int think;              /* gen_think */
    int draft;              /* vq_draft: index into GEN_DRAFT */
    uint64_t experts_ram;   /* bytes; 0: the engine's choice */
    const char *system;
} gen_opts;

typedef enum gen_think { GEN_SHOW, GEN_HIDE, GEN_ONLY } gen_think;

#define GEN_KV "8|bf16|f32"
#define GEN_DRAFT "off|ngram|mtp|auto"
#define GEN_DEFAULTS .n = 32768, .temp = -1, .top_p = -1, .kv = -1, .think = GEN_SHOW, \
                     .draft = VQ_DRAFT_OFF
#define GEN_OPTIONS(type, field) \
    { ARGS_INT, "-n", "N", offsetof(type, field.n), 1, 4294967295.0, NULL, \
      "tokens to generate at most, thoughts included (32768)" }, \
    { ARGS_REAL, "--temp", "X", offsetof(type, field.temp), 0, DBL_MAX, NULL, \
      "temperature; 0 = the likeliest (the model's advice, 0.6)" }, \
    { ARGS_REAL, "--top-p", "X", offsetof(type, field.top_p), 0, DBL_MAX, NULL, \
      "nucleus; 1 = all tokens (the model's advice, 0.95)" }, \
    { ARGS_U64, "--seed", "N", offsetof(type, field.seed), 0, 0, NULL, \
      "same seed, same answer on every machine (random)" }, \
    { ARGS_SIZE, "--ctx", "N", offsetof(type, field.ctx), 1, 4294967295.0, NULL, \
      "context (least of the model's, 36864 and what fits)" }, \
    { ARGS_CHOICE, "--kv", "TYPE", offsetof(type, field.kv), 0, 0, GEN_KV, \
      "cache type: 8, bf16 or f32 (8; f32 for float containers)" }, \
    { ARGS_CHOICE, "--think", "MODE", offsetof(type, field.think), 0, 0, "show|hide|only", \
      "show (dimmed on a terminal), hide, or only the thoughts" }, \
    { ARGS_CHOICE, "--draft", "HOW", offsetof(type, field.draft), 0, 0, GEN_DRAFT, \
      "tokens guessed ahead: off, ngram, mtp, auto (off)" }, \
    { ARGS_SIZE, "--experts-ram", "SIZE", offsetof(type, field.experts_ram), 1, 1e15, NULL, \
      "memory for R1's experts, others stay on disk (what fits)" }, \
    { ARGS_TEXT, "--system", "TEXT", offsetof(type, field.system), 0, 0, NULL, \
      "system message (none: DeepSeek advises against one)" }

/* Opens a model with the app's common options.  ctx 0 and kv -1 are the engine's choice. */
vq_status gen_open(const app *a, vq_engine **out, const char *path, uint64_t ctx, int kv,
                   vq_err *e);
/* The same, ready for sessions that draft as o says. */
vq_status gen_open_drafting(const app *a, vq_engine **out, const char *path, const gen_opts *o,
                            vq_err *e);
vq_sampling gen_sampling(const gen_opts *o, const vq_info *info, uint64_t random_seed);

/* Do these ids end inside the thoughts: is the last mark in them <think>? */
bool gen_in_think(const vq_info *info, const int32_t *ids, size_t n);

typedef struct gen_show {
    gen_think think;
    bool ids;               /* print ids instead of text */
    bool silent;            /* print nothing: the caller makes JSON of the result */
} gen_show;

typedef struct gen_result {
    vq_buf reasoning, content;
    vq_ids ids;             /* generated, EOS included */
    size_t thinking, answer;/* ids of each part */
    double prefill_s, decode_s; /* seconds to the first id; of all after it */
    bool length;            /* ended by -n or a full context */
} gen_result;
void gen_clear(gen_result *r);

/* Generates until EOS, n_max ids or a full context, printing as it goes; ends the printed text with
 * a newline.  VQ_EINTR: the user stopped it, and *r holds what was made until then. */
vq_status gen_answer(app *a, vq_engine *eng, vq_session *s, bool in_think, size_t n_max,
                     const gen_show *show, gen_result *r, vq_err *e);

#endif
