/* kv.h - the memory of keys and values: a pool of blocks of 256 positions that sequences share. */
#ifndef CORE_MODEL_KV_H
#define CORE_MODEL_KV_H

#include "core/model/model.h"

/* Where one layer lies in a block: n_kv times (K part, V part).  MLA: once, whatever n_kv; an int8
 * latent has no V part, it is both. */
typedef struct vq_kv_layer {
    q_kv k, v;              /* types; K and V may differ, layers too */
    size_t off;             /* of kv head 0 from the block's start */
    size_t k_bytes, head_bytes; /* V follows K after k_bytes, the next head after head_bytes; with
                                 * MLA that is 0 */
} vq_kv_layer;

typedef struct vq_kv {
    uint8_t *mem;           /* (n_block, block_bytes) */
    size_t mem_bytes, block_bytes;
    vq_kv_layer *layer;     /* (n_layer + n_mtp) */
    uint32_t *ref;          /* (n_block) sequences that hold it */
    int32_t *spare;         /* (n_spare) free blocks */
    int n_block, n_spare;
} vq_kv;

/* The block table of one sequence.  {0} until vq_seq_init. */
typedef struct vq_seq {
    int32_t *block;         /* (n) block of positions 256 i .. 256 i + 255 */
    int n, cap;
} vq_seq;

/* Lays a block out; n_block and memory are still 0. */
vq_status vq_kv_layout(vq_kv *kv, const vq_model *m, q_kv type, vq_err *e);
/* Bytes that one position adds in attention: what a decode step reads per cached position. */
uint64_t vq_kv_position_bytes(const vq_kv *kv);
vq_status vq_kv_alloc(vq_kv *kv, int n_block, vq_err *e);
void vq_kv_clear(vq_kv *kv);

/* The table of a whole context: it never grows. */
vq_status vq_seq_init(vq_seq *s, uint32_t ctx, vq_err *e);
void vq_seq_clear(vq_kv *kv, vq_seq *s);
/* Makes positions from..to-1 writable by this sequence alone: takes new blocks, copies shared ones.
 * false: the pool is empty (then what was done so far stays, harmlessly). */
bool vq_seq_reserve(vq_kv *kv, vq_seq *s, uint32_t from, uint32_t to);
/* Gives back the blocks behind position n. */
void vq_seq_truncate(vq_kv *kv, vq_seq *s, uint32_t n);
/* *to (initialised, empty) shares the first n positions of *from. */
void vq_seq_share(vq_kv *kv, vq_seq *to, const vq_seq *from, uint32_t n);

static inline uint8_t *vq_kv_k(const vq_kv *kv, const vq_seq *s, int layer, int head, uint32_t pos)
{
    const vq_kv_layer *y = &kv->layer[layer];
    return kv->mem + (size_t)s->block[pos / Q_PIECE] * kv->block_bytes + y->off
           + (size_t)head * y->head_bytes;
}
static inline uint8_t *vq_kv_v(const vq_kv *kv, const vq_seq *s, int layer, int head, uint32_t pos)
{
    return vq_kv_k(kv, s, layer, head, pos) + kv->layer[layer].k_bytes;
}

#endif
