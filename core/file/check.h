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
    VAQ_D_GATE_UP           /* 2 * inter rounded up to 16: both halves fill whole row groups */
} vaq_dim;

typedef enum vaq_layout { VAQ_VECTOR = 0, VAQ_T16 = 1, VAQ_T16_PAIR = 2 } vaq_layout;

typedef struct vq_role_row {
    uint16_t role;          /* vaq_role */
    uint16_t layout;        /* vaq_layout */
    bool per_layer;
    uint32_t archs;         /* bit 1 << vaq_arch: the models that have it ... */
    uint32_t need, unless;  /* ... when all flags of `need` and none of `unless` are set */
    vaq_dim rows, cols;
    const char *name;       /* as in checkpoints, without "model.layers.N." */
} vq_role_row;

const vq_role_row *vq_role_at(int i);               /* in rising order of role; NULL: no more */
const vq_role_row *vq_role_find(uint32_t role);     /* NULL: no such role */
bool vq_role_used(const vq_role_row *r, const vaq_config *c);

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
