/* kv.c - blocks of 256 positions with reference counts.
 *
 * A block holds K and V of all layers and heads for 256 positions, so a sequence is a short table
 * of block numbers and sharing a prefix is copying numbers.  256 is the piece of exact.md:
 * attention over a piece reads one contiguous run and never crosses a block.
 * Invariant: a block that two sequences hold is never written.  Before rows are appended,
 * vq_seq_reserve gives the sequence a copy of its own wherever that would happen; this is also the
 * case of a sharer that was cut back into the middle of a block.
 * The pool has one table's worth of blocks per session, so it cannot run dry: distinct blocks are
 * never more than the entries of all tables. */
#include "core/model/kv.h"

#include "core/base/mem.h"

#include <string.h>

/* Qwen2.5 has key biases of 600 to 900 in a few dims (models.md 6, trap 4): one such value shares
 * its L8 sub-block with 15 others and takes all their precision.  exact.md 4 sets the threshold. */
static const float K_BIAS_MAX_INT8 = 64;

vq_status vq_kv_layout(vq_kv *kv, const vq_model *m, q_kv type, vq_err *e)
{
    *kv = (vq_kv){ 0 };
    const int layers = m->n_layer + m->n_mtp;
    kv->layer = vq_calloc((size_t)layers, sizeof *kv->layer);
    if (!kv->layer) return vq_fail(e, VQ_ENOMEM, "out of memory");
    size_t off = 0;
    for (int l = 0; l < layers; l++) {
        vq_kv_layer *y = &kv->layer[l];
        y->k = y->v = type;
        y->off = off;
        if (m->lora) {
            const bool one = type == Q_KV_8; /* copy for both products */
            const int rope = (int)m->cfg->rope_dim;
            y->k_bytes = one ? q_lat_bytes(m->lora, rope) : q_kv_k_bytes(type, m->hd);
            off += y->k_bytes + (one ? 0 : q_kv_v_bytes(type, m->vd));
            continue;
        }
        if (type == Q_KV_8 && m->layer[l].k_bias_max > K_BIAS_MAX_INT8) y->k = Q_KV_BF16;
        y->k_bytes = q_kv_k_bytes(y->k, m->hd);
        y->head_bytes = y->k_bytes + q_kv_v_bytes(y->v, m->vd);
        off += (size_t)m->n_kv * y->head_bytes;
    }
    kv->block_bytes = off;
    return VQ_OK;
}

uint64_t vq_kv_position_bytes(const vq_kv *kv)
{
    return kv->block_bytes / Q_PIECE;
}

vq_status vq_kv_alloc(vq_kv *kv, int n_block, vq_err *e)
{
    kv->mem_bytes = (size_t)n_block * kv->block_bytes;
    kv->mem = vq_pages_alloc(kv->mem_bytes);
    kv->ref = vq_calloc((size_t)n_block, sizeof *kv->ref);
    kv->spare = vq_calloc((size_t)n_block, sizeof *kv->spare);
    if (!kv->mem || !kv->ref || !kv->spare)
        return vq_fail(e, VQ_ENOMEM, "out of memory for the cache");
    kv->n_block = kv->n_spare = n_block;
    for (int i = 0; i < n_block; i++) kv->spare[i] = n_block - 1 - i; /* the lowest goes first */
    return VQ_OK;
}

void vq_kv_clear(vq_kv *kv)
{
    if (kv->mem) vq_pages_free(kv->mem, kv->mem_bytes);
    vq_free(kv->layer);
    vq_free(kv->ref);
    vq_free(kv->spare);
    *kv = (vq_kv){ 0 };
}

static int32_t take(vq_kv *kv)
{
    if (!kv->n_spare) return -1;
    const int32_t b = kv->spare[--kv->n_spare];
    kv->ref[b] = 1;
    return b;
}

static void drop(vq_kv *kv, int32_t b)
{
    if (--kv->ref[b] == 0) kv->spare[kv->n_spare++] = b;
}

static int blocks_of(uint32_t n)
{
    return (int)(n / Q_PIECE + (n % Q_PIECE != 0));
}

vq_status vq_seq_init(vq_seq *s, uint32_t ctx, vq_err *e)
{
    *s = (vq_seq){ .cap = blocks_of(ctx) };
    s->block = vq_calloc((size_t)s->cap, sizeof *s->block);
    return s->block ? VQ_OK : vq_fail(e, VQ_ENOMEM, "out of memory");
}

void vq_seq_clear(vq_kv *kv, vq_seq *s)
{
    vq_seq_truncate(kv, s, 0);
    vq_free(s->block);
    *s = (vq_seq){ 0 };
}

bool vq_seq_reserve(vq_kv *kv, vq_seq *s, uint32_t from, uint32_t to)
{
    for (int i = (int)(from / Q_PIECE); i < blocks_of(to); i++) {
        if (i < s->n && kv->ref[s->block[i]] == 1) continue;
        const int32_t b = take(kv);
        if (b < 0) return false;
        if (i < s->n) {
            const int32_t old = s->block[i];
            memcpy(kv->mem + (size_t)b * kv->block_bytes, kv->mem + (size_t)old * kv->block_bytes,
                   kv->block_bytes);
            drop(kv, old);
            s->block[i] = b;
        } else {
            s->block[s->n++] = b;
        }
    }
    return true;
}

void vq_seq_truncate(vq_kv *kv, vq_seq *s, uint32_t n)
{
    while (s->n > blocks_of(n)) drop(kv, s->block[--s->n]);
}

void vq_seq_share(vq_kv *kv, vq_seq *to, const vq_seq *from, uint32_t n)
{
    to->n = blocks_of(n);
    for (int i = 0; i < to->n; i++) {
        to->block[i] = from->block[i];
        kv->ref[to->block[i]]++;
    }
}
