/* forward.h - one pass of a list of rows through the model.
 *
 * A row is (sequence, position, token, where its logits go).  Many sequences may be in one list and
 * several rows of one sequence (a piece of a prompt, drafts); a row sees the positions of its
 * sequence up to its own, those in the same list included.  Who is beside whom, and how many
 * threads compute, changes no bit of any row. */
#ifndef CORE_MODEL_FORWARD_H
#define CORE_MODEL_FORWARD_H

#include "core/base/pool.h"
#include "core/model/experts.h"
#include "core/model/kv.h"

#include <stdatomic.h>

typedef struct vq_row {
    const vq_seq *seq;      /* positions up to pos reserved for it */
    uint32_t pos;           /* unique within the sequence and the list */
    int32_t token;          /* < n_vocab */
    float *logits;          /* (n_vocab) where they go; NULL: not wanted */
    int bad; /* out: 0, or the place (vq_bad_text) where it stopped being finite.  Then its
                logits and the cache from its position on are unspecified; rows of other sequences
                and earlier rows of its own are intact */
} vq_row;

/* States that a drafter with the draft head keeps of a session (engine/draft_mtp.c). */
enum { VQ_MTP_STATES = 96 };

typedef struct vq_plan {    /* memory, decided before the first token */
    int threads, max_sessions, n_block;
    int max_draft;          /* rows of drafts of a session in one pass, 0: it cannot draft */
    bool mtp;               /* the draft head may run */
    bool order;             /* the kernels order inputs (q_acts.u) */
    uint64_t expert_bytes;  /* of a cache of routed experts; 0: they are mapped as all else */
    int rows_wanted, max_rows; /* of one pass; not more than all contexts together have positions */
    uint32_t ctx;           /* positions per sequence */
    q_kv kv_type;
    size_t part_slots;      /* pieces x heads of split attention that fit, see attn.c */
    uint64_t kv_bytes, scratch_bytes;
    uint64_t session_bytes; /* logits, ids, drafts and sampling of all sessions */
} vq_plan;

typedef struct vq_plan_want {
    int threads, max_rows, max_sessions, max_draft;
    bool mtp, order;
    uint64_t expert_bytes;  /* a cache of so much at most; 0: the plan's choice, see vq_plan_make */
    uint32_t ctx;           /* 0: choose */
    q_kv kv_type;
    uint64_t available;     /* bytes */
    const char *shorter;    /* as of vq_engine_opts, or NULL */
} vq_plan_want;

/* Chooses ctx when it is open and proves that everything fits.  VQ_ENOFIT lists the ways out.
 * Routed experts get a cache when they were given one, or when the file is larger than what is
 * available: then of three quarters of that, less all the rest. */
vq_status vq_plan_make(vq_plan *p, const vq_model *m, const vq_plan_want *w, vq_err *e);

typedef struct vq_fw vq_fw;

/* Bytes of working memory for such a plan. */
uint64_t vq_fw_bytes(const vq_model *m, const vq_plan *p);
/* All arguments are borrowed.  stop: nonzero makes a running pass end at the next layer. */
vq_status vq_fw_new(vq_fw **out, const vq_model *m, const q_kern *kern, vq_pool *pool,
                    const vq_kv *kv, const vq_plan *p, const atomic_int *stop, vq_err *e);
/* NULL: experts are mapped. */
const vq_experts *vq_fw_experts(const vq_fw *fw);
void vq_fw_free(vq_fw *fw);

/* Computes 1..max_rows rows.  Never allocates.  VQ_EINTR when stopped (the cache behind the rows'
 * first positions is then unspecified).  Rows with bad values are marked, that is not an error
 * here. */
vq_status vq_fw_run(vq_fw *fw, vq_row *rows, int n, vq_err *e);
/* Logits of rows first..first+n-1 of the latest run, to out (n, ld); updates bad of those rows. */
void vq_fw_head(vq_fw *fw, int first, int n, float *out, size_t ld);

/* ---- the draft head (models with n_mtp, plans with mtp) ----
 * Row i of it stands for position i of a sequence: from the id at i + 1 and what the model knew at
 * i (its state after the final norm) it guesses the id at i + 2.  Its own keys and values lie in
 * the blocks of the sequence as one more layer, so every position wants its row, in any order of
 * calls but each after the ones before it. */
typedef struct vq_mtp_row {
    const vq_seq *seq;      /* positions up to pos reserved for it */
    uint32_t pos;
    int32_t token;          /* at pos + 1 */
    const float *state;     /* (hidden) of pos; may not be state_out of a row of this call */
    float *state_out;       /* (hidden) for a further step, or NULL */
    float *logits;          /* (n_vocab) or NULL */
} vq_mtp_row;
/* 1..max_rows rows.  VQ_EINTR when stopped, VQ_EFAIL when a value was not finite: the positions'
 * draft cache is then unspecified. */
vq_status vq_fw_mtp(vq_fw *fw, const vq_mtp_row *rows, int n, vq_err *e);
/* State of row i of the latest vq_fw_run, (hidden); stays until the next. */
const float *vq_fw_state(const vq_fw *fw, int i);

/* ---- layer by layer (calibration) ---- */
/* What the matrices of a layer read, each with its sum over rows of x x' in the blocks that it has
 * (quant.h: only its h, to which is added; the order of additions is that of the rows).  NULL: not
 * wanted.  Every head has an input of its own for k_up and for v_up (q_moments_part); of a layer
 * with experts DOWN is the shared one's, EXPERTS that of all routed ones together.  The head is
 * layer n_layer and reads VQ_IN_ATTN.  Float models only. */
enum {
    VQ_IN_ATTN, VQ_IN_Q_B, VQ_IN_K_UP, VQ_IN_V_UP, VQ_IN_O, VQ_IN_FFN, VQ_IN_DOWN, VQ_IN_EXPERTS,
    VQ_N_IN
};
typedef struct vq_sums {
    q_moments *m[VQ_N_IN];
    float *xt;              /* (largest k of m padded to 64, rows padded to 64): inputs turned */
    float *tile;            /* (threads, rows padded to 64, 16) */
    float *nope;            /* (rows, n_head * nope_dim), and 16 more: the queries k_up reads */
    float *routed;          /* (rows, hidden) out: what the experts were given; NULL: not wanted */
    int32_t *pick;          /* (rows, n_expert_used) out: which ones took it */
} vq_sums;
/* Layers [from, to) over n rows with the states x (n, hidden), in place; from 0 they start from the
 * rows' tokens.  Layer n_layer changes no state: it only is the head's input, for `sums` and for
 * vq_fw_head.  Errors as of vq_fw_run; a bad row is VQ_EFAIL. */
vq_status vq_fw_layers(vq_fw *fw, vq_row *rows, int n, int from, int to, float *x,
                       const vq_sums *sums, vq_err *e);

/* Rows x (n, hidden), n <= max_rows, through one expert alone, for sums over FFN and EXPERTS. */
void vq_fw_expert(vq_fw *fw, int layer, int expert, const float *x, int n, const vq_sums *sums);

/* "layer 3: keys". */
void vq_bad_text(char out[64], int bad);

#endif
