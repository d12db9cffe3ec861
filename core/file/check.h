/* check.h - what a container must satisfy beyond its hashes.  Used by the reader on every file and
 * by the writer on what it is about to write: nothing can be written that would not open. */
#ifndef CORE_FILE_CHECK_H
#define CORE_FILE_CHECK_H

#include "core/base/err.h"
#include "core/file/vaq.h"

#include <stdbool.h>
#include <stddef.h>

enum { VAQ_NO_LAYER = 0xffff };

/* One role as a row: which models have it, where, and in which shape. */
typedef enum vaq_dim {      /* in terms of vaq_config */
    VAQ_D_ONE, VAQ_D_HIDDEN, VAQ_D_VOCAB, VAQ_D_INTER, VAQ_D_HEAD_DIM,
    VAQ_D_Q,                /* n_head * head_dim */
    VAQ_D_K,                /* n_head_kv * head_dim */
    VAQ_D_V,                /* n_head_kv * v_dim */
    VAQ_D_O,                /* n_head * v_dim */
    VAQ_D_Q_LORA, VAQ_D_KV_LORA, VAQ_D_NOPE,
    VAQ_D_KV_A,             /* kv_lora + rope_dim */
    VAQ_D_K_UP,             /* n_head * kv_lora */
    VAQ_D_EXPERTS,          /* n_expert */
    VAQ_D_MOE,              /* moe_inter */
    VAQ_D_SHARED,           /* n_expert_shared * moe_inter */
    VAQ_D_EH                /* 2 * hidden */
} vaq_dim;

typedef enum vaq_scope {    /* how often a role stands in the table */
    VAQ_ONCE,               /* belongs to no layer */
    VAQ_LAYER,              /* per layer, MTP layers included */
    VAQ_DENSE,              /* per layer without experts */
    VAQ_MOE,                /* per layer with experts, MTP layers included */
    VAQ_EXPERT,             /* per such layer and expert */
    VAQ_MTP                 /* per MTP layer */
} vaq_scope;

/* Conditions beside vaq_config's flags, in bits that no flag has. */
enum { VAQ_IF_Q_LORA = 1 << 29, VAQ_IF_SHARED = 1 << 30 };

typedef enum vaq_layout { VAQ_VECTOR = 0, VAQ_T16 = 1, VAQ_T16_PAIR = 2 } vaq_layout;

typedef struct vq_role_row {
    uint16_t role;          /* vaq_role */
    uint16_t layout;        /* vaq_layout */
    vaq_scope scope;
    uint32_t archs;         /* bit 1 << vaq_arch: the models that have it ... */
    uint32_t need, unless;  /* ... when all flags of `need` and none of `unless` are set */
    vaq_dim rows, cols;     /* rows of a pair: of gate and of up, each without padding */
    const char *name;       /* as in checkpoints, without "model.layers.N." */
} vq_role_row;

const vq_role_row *vq_role_at(int i);               /* in rising order of role; NULL: no more */
const vq_role_row *vq_role_find(uint32_t role);     /* NULL: no such role */
bool vq_role_used(const vq_role_row *r, const vaq_config *c);
/* The layers [*first, *end) that have it; of VAQ_ONCE: VAQ_NO_LAYER alone. */
void vq_role_layers(const vq_role_row *r, const vaq_config *c, uint32_t *first, uint32_t *end);
uint32_t vq_dim_of(const vaq_config *c, vaq_dim d);
uint32_t vq_role_rows(const vq_role_row *r, const vaq_config *c); /* as stored */

/* Ranges of all fields; rope: rope_size bytes.  `name` is the file in messages. */
vq_status vq_check_config(const vaq_config *c, const double *rope, uint64_t rope_size,
                          const char *name, vq_err *e);
/* A sorted table: order, roles, shapes, types, sizes, places, completeness.  c was checked. */
vq_status vq_check_tensors(const vaq_config *c, const vaq_tensor *t, uint32_t n, uint64_t body_off,
                           uint64_t body_size, const char *name, vq_err *e);
vq_status vq_check_meta(const uint8_t *p, size_t n, const char *name, vq_err *e);

/* <0, 0, >0 by (role, layer, expert): the order of the table. */
int vq_tensor_cmp(const vaq_tensor *a, const vaq_tensor *b);
/* Indices of t in rising order of off; free with vq_free; NULL: out of memory. */
uint32_t *vq_tensor_order(const vaq_tensor *t, uint32_t n);

#endif
