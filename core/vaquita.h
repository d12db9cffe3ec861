/* vaquita.h - run DeepSeek-R1 and its distills from a .vaq file: the public interface.
 *
 *     vq_engine *eng;
 *     vq_session *s;
 *     vq_ids ids = { 0 };
 *     vq_err e;
 *     if (vq_engine_open(&eng, "model.vaq", NULL, &e)) return puts(e.msg), 1;
 *     vq_message m = { .role = VQ_USER, .content = vq_str_c("What is 2 + 3?") };
 *     vq_engine_render(eng, &m, 1, NULL, &ids, NULL, &e);
 *     vq_session_open(&s, eng, NULL, &e);
 *     vq_session_add(s, ids.v, ids.n, &e);
 *     for (int32_t id; !vq_session_finished(s);) {
 *         if (vq_session_next(s, &id, &e)) break;
 *         vq_str p = vq_engine_piece(eng, id);
 *         fwrite(p.p, 1, p.n, stdout);
 *     }
 *     vq_session_close(s);
 *     vq_engine_close(eng);
 *
 * One engine maps one model and owns threads and the memory of all sessions' caches, planned before
 * the first token and fixed.  A session is one sequence.  For a given file, ids, seed and
 * parameters a session's logits and ids are equal to the last bit on every CPU, for every number of
 * threads, whatever other sessions are computed beside it, however its ids were cut into calls, and
 * with drafts or without.
 *
 * Threads: an engine and its sessions belong to one caller at a time, except vq_engine_stop, which
 * may be called from anywhere, a signal handler included.
 * Errors: every vq_status function leaves one line in *e (may be NULL); see core/base/err.h. */
#ifndef CORE_VAQUITA_H
#define CORE_VAQUITA_H

#include "core/base/err.h"
#include "core/base/str.h"
#include "core/base/types.h"

#ifdef __cplusplus
extern "C" {
#endif

#define VQ_VERSION "0.1.0"

typedef struct vq_engine vq_engine;
typedef struct vq_session vq_session;

/* ---- engine ---- */
typedef enum vq_kv_type { VQ_KV_AUTO = 0, VQ_KV_INT8, VQ_KV_BF16, VQ_KV_F32 } vq_kv_type;

typedef struct vq_engine_opts { /* {0} = all defaults; so is NULL */
    const char *cpu;    /* "ref", "avx2", ...: exactly that level or VQ_EUSAGE; NULL: the best */
    int threads;        /* 0: one per performance core; at most 1024.  Where each has such a core
                         * the engine's own threads keep to those; the caller's is never bound */
    uint32_t ctx;       /* positions of one session; 0: the smallest of the model's limit, 36864
                         * and what fits 3/4 of the available memory.  Larger than the model's
                         * limit or than memory: VQ_ENOFIT with the ways out */
    int max_sessions;   /* sequences alive at once; 0: 1.  The KV pool is max_sessions * ctx */
    int max_rows;       /* rows of one forward call (prefill chunk); 0: 512 */
    int max_draft;      /* ids a session may draft at once (vq_draft), at most 31.  Each costs
                         * every session a line of logits; 0: sessions cannot draft */
    vq_kv_type kv;      /* AUTO: f32 when the matrices are float, else int8 */
    uint64_t experts_ram; /* bytes for a cache of routed experts, which are then read from the file
                         * as they are wanted; 0: mapped as all else, unless the file is larger
                         * than the available memory.  Models without experts ignore it */
    const char *shorter; /* for the message when ctx is too large, what a user does about it: "take
                         * a smaller --depth"; NULL: the message names --ctx and --kv */
} vq_engine_opts;

vq_status vq_engine_open(vq_engine **out, const char *path, const vq_engine_opts *o, vq_err *e);
void vq_engine_close(vq_engine *eng); /* closes its sessions too */

typedef struct vq_info {          /* borrowed from the engine */
    const char *path, *arch, *name, *template_name; /* name: NULL when the file has none */
    const char *cpu;              /* the level in use */
    int threads;
    uint64_t params, bytes;
    int layers, hidden, heads, kv_heads, vocab, n_ids;
    uint32_t ctx_model, ctx;      /* the model's limit; a session's */
    uint32_t max_rows;
    vq_kv_type kv;                /* never AUTO */
    bool has_tokenizer, has_template;
    bool opens_think;             /* prompts of this template end inside the thoughts */
    int32_t bos, eos, think, end_think; /* ids, -1 none */
    float temperature, top_p;     /* the checkpoint's advice */
    uint64_t kv_bytes, scratch_bytes;   /* planned memory */
    int arith;
    char sha256[65];              /* identity of the file: the root of its container, hex */
} vq_info;
const vq_info *vq_engine_info(const vq_engine *eng);

/* The cache of experts so far; slots 0: there is none. */
typedef struct vq_expert_stats {
    int slots;
    uint64_t bytes;               /* of memory */
    uint64_t hits, misses;        /* experts wanted that were in memory or on their way; that were
                                   * not */
    uint64_t guessed, right;      /* read ahead of being wanted; of them wanted in time */
    uint64_t read_bytes;
    double read_s, stall_s;       /* seconds inside reads, over all readers; computing waited */
    bool direct;                  /* reads go past the page cache: that was faster */
} vq_expert_stats;
vq_expert_stats vq_engine_experts(const vq_engine *eng);

/* Asks a running prefill or decode to stop at the next layer: the call returns VQ_EINTR, and the
 * session stays as it was before it.  Async-signal-safe; vq_engine_resume clears it. */
void vq_engine_stop(vq_engine *eng);
void vq_engine_resume(vq_engine *eng);

/* ---- text ---- */
/* Ids of a text.  special: let marks in the text act (never for user text).  VQ_EUSAGE without
 * tokenizer. */
vq_status vq_engine_tokenize(const vq_engine *eng, const char *s, size_t n, bool special,
                             vq_ids *out, vq_err *e);
/* Bytes of an id; absent for ids that are not in use. */
vq_str vq_engine_piece(const vq_engine *eng, int32_t id);

typedef struct vq_render_opts {
    bool no_generation;           /* do not open the assistant's turn */
    bool no_force_think;          /* leave the opening to the template: do not force <think>\n */
} vq_render_opts;
/* A conversation as ids and, if text is not NULL, as the text of the template. */
vq_status vq_engine_render(const vq_engine *eng, const vq_message *m, size_t n,
                           const vq_render_opts *o, vq_ids *ids, vq_buf *text, vq_err *e);
/* Does such a prompt end inside the thoughts? */
bool vq_engine_render_opens_think(const vq_engine *eng, const vq_render_opts *o);

/* Text of generated ids as it streams: complete UTF-8 only, thoughts and answer told apart. */
typedef struct vq_stream vq_stream;
typedef enum vq_part { VQ_PART_THINK, VQ_PART_ANSWER } vq_part;
vq_status vq_stream_open(vq_stream **out, const vq_engine *eng, bool in_think, vq_err *e);
/* Gives id in, appends its text to *out (empty while bytes are held back); the marks <think> and
 * </think> are not printed and, with the newlines that follow them, belong to neither part.  EOS
 * prints nothing. Returns the part the appended text belongs to.  One id never yields text of both
 * parts. */
vq_part vq_stream_put(vq_stream *st, int32_t id, vq_buf *out);
vq_part vq_stream_end(vq_stream *st, vq_buf *out);
void vq_stream_close(vq_stream *st);

/* ---- sessions ---- */
typedef struct vq_sampling {
    double temperature;           /* >= 0, finite; 0 = greedy: highest logit, lowest id on ties */
    double top_p;                 /* >= 0, finite; 1 or more keeps all */
    uint64_t seed;
    uint32_t stream;              /* 0 for a plain run; answer i of a vote is stream i */
} vq_sampling;

/* Speculation: ids that are likely to come are computed in the same pass as the last known one, and
 * if they do come, they need no pass of their own.  What is drawn, in which order and from which
 * logits stays the same; only the time changes.  Callers see nothing of it: a draft that waits is
 * not part of the session's ids, and whatever they do to the session drops it if it must. */
typedef enum vq_draft {
    VQ_DRAFT_OFF = 0,
    VQ_DRAFT_NGRAM,         /* wherever the latest 2 or more ids came before in the session: what
                             * followed them then */
    VQ_DRAFT_MTP,           /* by the model's own draft head; VQ_EUSAGE if it has none */
    VQ_DRAFT_AUTO           /* the best kind the model has, as many ids as pay for themselves by the
                             * clock, none where they do not; only in passes of one session */
} vq_draft;

typedef struct vq_session_opts {
    vq_sampling sampling;
    uint32_t max_new;             /* generated ids at most; 0: until the context is full */
    bool ignore_eos;              /* go on behind EOS (benchmarks, tests) */
    vq_draft draft;               /* not OFF: VQ_EUSAGE unless the engine has a max_draft */
} vq_session_opts;

vq_status vq_session_open(vq_session **out, vq_engine *eng, const vq_session_opts *o, vq_err *e);
void vq_session_close(vq_session *s);
/* A new session with the same ids, sharing the cache blocks; they are copied when one of the two
 * writes. */
vq_status vq_session_fork(vq_session **out, vq_session *s, const vq_session_opts *o, vq_err *e);

/* Queues ids behind the session's; nothing is computed yet.  Ids must be < info.vocab.  VQ_ENOFIT:
 * longer than ctx.  A finished session goes on (the next turn of a chat), max_new counts anew. */
vq_status vq_session_add(vq_session *s, const int32_t *ids, size_t n, vq_err *e);
/* Cuts the session back to its first n ids (n <= length); the next add goes on there.  A draw
 * without one computes the last id again, with the same bits. */
vq_status vq_session_truncate(vq_session *s, size_t n, vq_err *e);
/* VQ_OK, or VQ_EFAIL and why this sequence was ended (see vq_step): then it can only be closed. */
vq_status vq_session_check(const vq_session *s, vq_err *e);

/* One forward call over the queued ids of several sessions together, at most max_rows rows in
 * all, sessions served in order.  *left = queued ids that remain over all of them.  On an error of
 * one sequence (a value not finite) that sequence is named and ended, the others are intact.
 * `chunk` 0: no smaller limit of rows. */
vq_status vq_step(vq_engine *eng, vq_session *const *s, int n, int chunk, size_t *left, vq_err *e);

/* Computes what is queued, draws the next id from the logits, queues it, and returns it.  At EOS,
 * at max_new or when the context is full the session is finished: EOS itself is returned (and
 * finish is "stop"); a call on a finished session is VQ_EUSAGE. */
vq_status vq_session_next(vq_session *s, int32_t *id, vq_err *e);
/* Drafts so far.  verifications + accepted ids came of passes that computed drafts: the target's
 * own draw counts as one of each such pass. */
typedef struct vq_draft_stats {
    uint64_t drafted;       /* ids computed ahead */
    uint64_t accepted;      /* of them became part of the session's ids */
    uint64_t verifications; /* passes with drafted ids of this session */
} vq_draft_stats;
vq_draft_stats vq_session_draft_stats(const vq_session *s);

typedef enum vq_finish { VQ_RUNNING = 0, VQ_FINISH_STOP, VQ_FINISH_LENGTH } vq_finish;
vq_finish vq_session_finished(const vq_session *s);

/* Draws from the current logits (nothing may be queued) without queueing: for callers that batch
 * with vq_step. */
vq_status vq_session_sample(vq_session *s, int32_t *id, vq_err *e);

/* Logits after the last computed id: (info.vocab) floats, borrowed until the next call that
 * computes; NULL when something is queued. */
const float *vq_session_logits(const vq_session *s);
size_t vq_session_len(const vq_session *s);       /* ids, queued ones included */
const int32_t *vq_session_ids(const vq_session *s);

/* All logits rows of a stretch of ids (fidelity, perplexity): computes ids and calls row(ctx, pos,
 * logits) for each position in order. chunk 0 = max_rows.  The session must have nothing queued. */
typedef vq_status vq_logits_fn(void *ctx, size_t pos, const float *logits, vq_err *e);
vq_status vq_session_logits_all(vq_session *s, const int32_t *ids, size_t n, int chunk,
                                bool last_only, vq_logits_fn *row, void *ctx, vq_err *e);

/* Progress of long prefills: called from vq_session_next between forward calls; true = stop
 * (VQ_EINTR). */
typedef bool vq_prefill_fn(void *ctx, size_t done, size_t total);
void vq_session_on_prefill(vq_session *s, vq_prefill_fn *fn, void *ctx);

#ifdef __cplusplus
}
#endif
#endif
