/* model.h - a transformer bound to its container: configuration and pointers into the map.
 *
 * Binding copies no weight and parses nothing; the file must outlive the model.  A layer carries
 * the two functions that compute its halves (attention, feed-forward): another architecture is
 * another pair of functions, the loop over layers never asks what kind a layer is. */
#ifndef CORE_MODEL_MODEL_H
#define CORE_MODEL_MODEL_H

#include "core/file/file.h"

/* A matrix in T16 order.  y = W x. */
typedef struct vq_matrix {
    const uint8_t *w;       /* row groups, 64-aligned */
    int rows, cols;         /* outputs, inputs; gate_up: 2 * round16(inter) outputs */
    int type;               /* q_type */
    size_t group;           /* bytes of a row group of 16 rows */
    q_gemm gemm;
} vq_matrix;

/* Forms in which the readers of a vector want it. */
enum { VQ_FORM_Q = 1, VQ_FORM_F = 2 }; /* A64 codes; f32 padded to 64 */

struct vq_fw;
typedef void vq_branch_fn(struct vq_fw *fw, int layer, int thread); /* ends with a barrier */

/* The feed-forward half of a layer with experts. */
typedef struct vq_moe {
    vq_matrix router;       /* n_expert rows */
    const float *bias;      /* (n_expert) added for the choice, not for the weights */
    vq_matrix shared_gate_up, shared_down;    /* rows 0: the model has no shared expert */
    vq_matrix *gate_up, *down;                /* (n_expert), owned */
    int in_forms, down_forms;                 /* VQ_FORM_* of the experts' gate/up and down */
    bool lent;              /* some are not the file's own: used where they lie, never cached */
} vq_moe;

typedef struct vq_layer {
    const float *norm_attn, *norm_ffn;        /* (hidden) */
    vq_matrix q, k, v, o, gate_up, down;      /* MLA: q from q_a's output if there is a q_a */
    const float *q_bias, *k_bias, *v_bias;    /* (rows of q, k, v) or NULL */
    const float *q_norm, *k_norm;             /* (head_dim) or NULL */
    float k_bias_max;                         /* largest |k bias| */
    /* MLA: latents of queries and of keys with values; per head key^T and value matrices */
    vq_matrix q_a, kv_a, k_up, v_up;
    const float *q_a_norm, *kv_a_norm;        /* (q_lora), (kv_lora) */
    vq_moe moe;             /* router.rows 0: a dense layer */
    int qkv_forms, ffn_forms; /* VQ_FORM_* of what reads the two norms */
    vq_branch_fn *attn, *ffn;
} vq_layer;

/* The draft head: one more layer (number n_layer) that guesses the id after next. */
typedef struct vq_mtp {
    const float *norm_embed, *norm_hidden, *norm_out; /* (hidden) */
    vq_matrix join;         /* hidden x 2 hidden: the embedding's half first */
    vq_matrix embed, head;  /* often the model's own */
} vq_mtp;

typedef struct vq_model {
    const vq_file *file;
    const vaq_config *cfg;
    const double *rope;     /* (rope_dim / 2) */
    vq_layer *layer;        /* (n_layer + n_mtp), owned */
    int n_layer, n_mtp, hidden, n_head, inter, n_vocab, n_ids;
    /* Attention.  Query heads go in groups of `group` to the kernels, n_kv groups in all: those of
     * one k/v head, or with MLA, where all heads read one latent, as many as make a good job. */
    int n_kv, group;
    int hd, vd;             /* dims of a score and of a value as the cache has them */
    int qd, od;             /* dims of a head in q's output and in o's input; without MLA hd, vd */
    int lora, lora_pad;     /* MLA: dims of the latent, padded to 64; 0 without */
    vq_matrix embed, head;  /* the same when tied */
    const float *norm_out;  /* (hidden) */
    vq_mtp mtp;             /* when n_mtp */
    uint64_t params;        /* of the checkpoint */
    bool all_float;         /* every matrix is F32, F16 or BF16 */
} vq_model;

/* VQ_EFORMAT naming the tensor when something the architecture needs is missing or misshapen. */
vq_status vq_model_bind(vq_model *m, const vq_file *f, const q_kern *kern, vq_err *e);
void vq_model_clear(vq_model *m);

#endif
