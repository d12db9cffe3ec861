/* private.h - the engine and its sessions from inside. */
#ifndef CORE_ENGINE_PRIVATE_H
#define CORE_ENGINE_PRIVATE_H

#include "core/engine/draft.h"
#include "core/engine/engine.h"
#include "core/engine/sample.h"
#include "core/model/forward.h"
#include "core/text/chat.h"
#include "core/text/tok.h"

struct vq_engine {
    vq_file *file;
    q_kern kern;
    vq_model model;
    vq_pool *pool;
    vq_kv kv;
    vq_plan plan;
    vq_fw *fw;
    vq_tok *tok;            /* NULL without tokenizer */
    vq_sampler sampler;
    vq_row *row;            /* (plan.max_rows) of the pass being made */
    float *logits;          /* (max_sessions, 1 + max_draft, n_vocab): lines per session slot */
    vq_session **slot;      /* (max_sessions) open sessions, NULL where free */
    vq_info info;
    char *name;             /* of the metadata, owned */
    atomic_int stop;
};

struct vq_session {
    vq_engine *eng;
    int slot;
    vq_seq seq;
    int32_t *ids;           /* (ctx) */
    size_t n, done;         /* ids; of them computed: ids[done..n) are queued */
    float *line;            /* (1 + max_draft, n_vocab) where passes write */
    float *logits;          /* (n_vocab) after ids[done - 1]: one of the lines */
    bool has_logits;
    vq_session_opts o;
    size_t n_new;           /* drawn by next since the last add from outside */
    vq_finish finish;
    int bad;                /* not 0: a value was not finite (vq_bad_text); the session is ended */
    size_t bad_pos;
    int rows;               /* queued ids in the pass being made ... */
    int drafts;             /* ... and drafts behind them */
    vq_drafter *drafter;    /* NULL: does not draft */
    vq_pace pace;
    vq_draft_stats stats;
    /* ahead[i] for i in [met, n_ahead) follow ids[0..done): computed at positions done, done + 1,
     * ..., their logits in the lines after s->logits.  Void once anything else is computed */
    int32_t ahead[VQ_DRAFT_MOST];
    int met, n_ahead;
    vq_prefill_fn *prefill;
    void *prefill_ctx;
};

#endif
