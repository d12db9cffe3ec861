/* work.h - what the threads of one forward pass share; private to core/model.
 *
 * All memory is cut from one slab at start (plan.c); a pass only fills it.  Shared arrays are
 * written by the owner of a job and read after the next barrier.  When a call has few rows every
 * thread makes norms and quantised inputs for itself (th->small_*), which costs less than a
 * barrier; with many rows they are split and one more barrier follows.  The values are the same. */
#ifndef CORE_MODEL_WORK_H
#define CORE_MODEL_WORK_H

#include "core/model/experts.h"
#include "core/model/forward.h"

enum {
    VQ_SMALL = 4,             /* rows up to which every thread prepares inputs for itself ... */
    VQ_SMALL_WORK = 32768,    /* ... and rows x hidden: some 2 us, a barrier's price */
    VQ_TB = 256,              /* rows per matrix job: a K block of their codes (200 KB) stays in L2,
                               * and unpacking a panel is shared by that many */
    VQ_JOB_ROWS = 128,        /* outputs of the widest job that is not bound to heads */
    VQ_JOB_BYTES = 48 * 1024, /* weights of a decode job: 16-64 KB (kernels.md 7.3) */
    VQ_FEW_MIN = 6,           /* from so many rows on products take longer than reading weights, */
    VQ_FEW_MAX = 11,          /* up to so many kernels of AVX2 spread inputs over registers for each
                               * job, */
    VQ_FEW_GROUPS = 16,       /* which costs 3 % of its time when it has so many row groups */
    VQ_ATTN_Q = 64            /* query heads that one attention job takes together */
};
static_assert(VQ_FEW_MAX * VQ_FEW_GROUPS * Q_ROWS <= VQ_TB * VQ_JOB_ROWS, "y holds their results");
static inline bool vq_is_few(int n) { return n >= VQ_FEW_MIN && n <= VQ_FEW_MAX; }

/* The input of a matrix: M rows in the forms its readers want. */
typedef struct vq_in {
    q_acts a;           /* A64 codes */
    void *mem;          /* of a */
    uint8_t *ordered;   /* of a.u when it has one; NULL: never */
    float *f; /* (M, ldf) f32, zeros from k to a multiple of 64; NULL when no reader is float */
    size_t ldf;
    int k;
} vq_in;

typedef struct vq_thread {
    void *tmp;          /* Q_TMP: for the gemms */
    float *y;           /* (VQ_TB, y_cols): result of a matrix job */
    float *y2;          /* (VQ_TB, y2_cols): MLA: absorbed queries; experts: their sum */
    float *vec;         /* one vector of the longest kind, padded to 64 */
    vq_in small_h, small_o; /* (VQ_SMALL rows) inputs of hidden and of n_head * od */
    vq_in nope;         /* MLA: (VQ_TB rows) the unrotated dims of one query head */
    void *vblk;         /* MLA, int8 cache: a block turned for the second product */
    float *s;           /* (attn_q, 256): scores, then e */
    float *o, *o2;      /* (attn_q, vdp): merged so far, and of one piece */
    float *m, *l, *m2, *l2; /* (attn_q) */
    int *nvis;          /* (attn_q) positions of the piece that each query sees */
} vq_thread;

/* Rows of one sequence at consecutive positions that attention takes together. */
typedef struct vq_rowblock {
    int row0, n;        /* rows of the list */
    uint32_t pos0;
    int pieces;         /* that its last row sees */
    int job0;           /* split attention: its first job */
    size_t part0;       /* split attention: its first slot */
} vq_rowblock;

/* Which experts compute which rows in this layer.  An entry is (row, expert); entries are sorted by
 * expert, then by row, so each expert's inputs are consecutive tokens of one matrix call. */
typedef struct vq_pick {
    int32_t *idx;       /* (n, n_expert_used) of each row, ascending */
    float *w;           /* (n, n_expert_used) their weights */
    int *row;           /* (entries) */
    float *weight;      /* (entries) */
    int *first;         /* (n_expert + 1) first entry of an expert */
    int *active;        /* (n_active) experts with entries, ascending */
    int *job0;          /* (n_active + 1) first job of gate and up */
    int n_active;
    int wave0, wave1;   /* active experts that are computed now: all, or what fits the cache */
} vq_pick;

struct vq_fw {
    const vq_model *m;
    const q_kern *k;
    const vq_kv *kv;
    vq_pool *pool;
    const atomic_int *stop;
    vq_experts *experts; /* NULL: all are mapped */
    atomic_bool lost;    /* one of them could not be read */
    vq_plan plan;
    void *mem;
    size_t mem_bytes;
    /* forms and K types (bits) that occur in this model */
    int forms_h, forms_down, forms_shared, forms_e, forms_expert, forms_q, forms_nope, forms_u;
    int k_types;

    /* geometry */
    size_t ldx;         /* floats per row of x */
    size_t hdp, vdp;    /* head dims padded to 64, and to 16 */
    size_t y_cols, y2_cols;
    int unit_q, unit_v; /* heads per job of q, k and of v: a whole number of row groups */
    int attn_rows, attn_q; /* rows and query heads of an attention job at most */

    /* one pass */
    vq_row *row;        /* (n) the caller's */
    int n;
    bool small;
    bool halt;          /* thread 0's decision, read by all after the next barrier */
    bool split;         /* attention pieces are jobs of their own */
    int n_rb, attn_jobs, max_pieces;
    const vq_matrix *head; /* what makes logits of the rows below, behind this norm */
    const float *head_norm;
    int *out;           /* (n_out) rows that want logits */
    int n_out;
    float *out_p;       /* logits of row out[j] go to out_p + j * out_ld; NULL: to row[].logits */
    size_t out_ld;

    /* memory */
    atomic_int *bad;    /* (max_rows) */
    float *x;           /* (n, ldx) the residual stream */
    float *cs;          /* (n, rope_dim): cos, then sin, of the row's position */
    vq_in in_h, in_o, in_d; /* inputs of hidden, of o (its f is attention's output), of down */
    /* MLA */
    float *lat;         /* (n, ld_lat) latents of the query, then of key and value, as projected */
    size_t ld_lat;
    vq_in in_q;         /* (n) normed latents of queries */
    vq_in in_u;         /* (head * n + row) sums of latents, input of v_up */
    /* experts */
    float *score;       /* (n, n_expert) router logits */
    float *guess;       /* (n_expert) of the next layer for this one's input; streaming only */
    float *sum;         /* (n, ldx) of the waves so far; streaming only */
    vq_pick pick;
    vq_in in_e;         /* (entry) the rows of each expert, side by side */
    vq_in in_ds, in_de; /* inputs of down: (n) shared experts, (entry) routed */
    /* draft head */
    int layer0, layer1; /* the layers of a pass */
    const float *given; /* (n, hidden) states that a pass starts from; NULL: from tokens */
    const vq_sums *sums; /* NULL: none */
    float *state;       /* (n, ldx) after the final norm of the latest pass; NULL: not kept */
    vq_in in_join;      /* (n) embedding and state, normed */
    vq_row *mtp_row;    /* (n) as vq_row, for attention */
    const vq_mtp_row *mtp;
    q_acts q2;          /* two-byte queries: token 2 * ((kv head * n + row) * group + g) */
    void *q2_mem;
    float *qf;          /* f32 queries for float K: ((kv head * n + row) * group + g, hdp) */
    float *part_o, *part_m, *part_l; /* (part_slots, vdp), (part_slots): split attention */
    vq_rowblock *rb;    /* (n_rb) */
    vq_thread *th;      /* (threads) */
};

/* Where a value stopped being finite, in the order in which a layer meets them. */
enum {
    VQ_AT_NORM_ATTN = 1, VQ_AT_Q, VQ_AT_K, VQ_AT_V, VQ_AT_ATTN, VQ_AT_O, VQ_AT_NORM_FFN,
    VQ_AT_ROUTER, VQ_AT_DOWN, VQ_AT_NORM_OUT, VQ_AT_LOGITS
};
void vq_mark_bad(vq_fw *fw, int row, int layer, int at); /* keeps the earliest place */
static inline bool vq_is_bad(const vq_fw *fw, int row)
{
    return atomic_load_explicit(&fw->bad[row], memory_order_relaxed) != 0;
}

/* linear.c */
void vq_in_start(vq_in *in, int n);
/* Tiles t0 .. of rows m0 .. of *in are complete: copied where many-row products read them. */
void vq_in_order(const vq_fw *fw, const vq_in *in, int m0, int m, int t0, int nt);
/* Row m of *in = x[0..k), in these forms; nonzero when not finite (the row is then zeros). */
int vq_in_put(const vq_fw *fw, vq_in *in, int forms, int m, const float *x);
/* RMSNorm of all rows of x as a matrix input, ready for this thread when it returns. */
const vq_in *vq_norm_rows(vq_fw *fw, int thread, const float *w, int forms, int layer, int at);
/* th->y (m, ldy) = rows row0..row0+n-1 of w times rows m0..m0+m-1 of in; row0 a multiple of 16. */
void vq_mul(const vq_fw *fw, int thread, const vq_matrix *w, int row0, int n, const vq_in *in,
            int m0, int m, float *y, size_t ldy);
/* x += w * in over all rows, as one job list; ends with a barrier. */
void vq_mul_residual(vq_fw *fw, int thread, const vq_matrix *w, const vq_in *in);
int vq_job_groups(const vq_fw *fw, const vq_matrix *w, int n); /* row groups per job */
/* Final norm and head for the rows in fw->out. */
void vq_head_rows(vq_fw *fw, int thread);
/* Starts a pass over these rows: what is known of all of them before any thread computes. */
void vq_fw_begin(vq_fw *fw, vq_row *rows, int n);
static inline int vq_ceil_div(int a, int b) { return (a + b - 1) / b; }

/* Token j of *to = token m of *from; the same k, forms of both. */
void vq_in_copy(const vq_in *to, int j, const vq_in *from, int m);

/* moments.c: adds n rows of an input that is ready to its sum, if that is wanted; the phase of its
 * own begins and ends with no list of jobs open. */
void vq_sum_input(vq_fw *fw, int thread, int which, const vq_in *in, int n);
/* The same of all heads: x (n, ld), that of the next head `step` floats further. */
void vq_sum_heads(vq_fw *fw, int thread, int which, const float *x, size_t ld, size_t step);
/* The head's input for all rows. */
void vq_sum_head(vq_fw *fw, int thread);

/* attn.c */
void vq_attn_prepare(vq_fw *fw); /* once per pass, on one thread */
/* Where the output of a head goes: (od) floats of o's input. */
float *vq_attn_head(const vq_fw *fw, int row, int head);
void vq_attn_pieces(vq_fw *fw, int layer, int thread); /* ends with a barrier, as does the next */
void vq_attn_output(vq_fw *fw, int layer, int thread);

/* ffn.c: `tiles` times 64 inner values of w from tile `tile` on for inputs m0 .. m0+m-1: swiglu,
 * then as inputs out0 .. of the matrix `down` into *out.  rows: whose inputs these are (NULL:
 * m0 ..). */
typedef struct vq_inner {
    const vq_matrix *w, *down;
    int inter;
    const vq_in *in;
    vq_in *out;
} vq_inner;
void vq_inner_tiles(vq_fw *fw, int thread, int layer, const vq_inner *p, int tile, int tiles,
                    int m0, int m, int out0, const int *rows);

/* The two halves of a layer. */
vq_branch_fn vq_attn_gqa, vq_attn_mla, vq_ffn_dense, vq_ffn_moe;

#endif
