/* bpe.h - byte pair encoding of one piece, over the tables of a tokenizer section. */
#ifndef CORE_TEXT_BPE_H
#define CORE_TEXT_BPE_H

#include "core/base/str.h"
#include "core/text/tok_format.h"

/* The tables, borrowed from a mapped file.  Whoever fills this has proved: start rises within text,
 * slots and byte_id hold plain ids or -1, each hash has an empty slot.  The file can still be cut
 * or overwritten later, so look-ups give wrong answers then, but never leave the tables and always
 * end; counts and sizes are copies. */
typedef struct vq_bpe {
    const int32_t *byte_id;         /* (256) */
    const uint32_t *start;          /* (n_ids + 1) into text */
    const int32_t *slot;            /* (slot_mask + 1) */
    const vaq_tok_pair *pair;       /* (pair_mask + 1); NULL: a merge's rank is its result's id */
    const uint8_t *kind;            /* (n_ids) */
    const uint8_t *text;
    uint32_t n_ids, text_size, slot_mask, pair_mask, max_len;
    bool ignore_merges;
    bool lacks_bytes;               /* some byte has no token; such bytes are dropped */
} vq_bpe;

/* Scratch of one encode call; {0} is fresh. */
typedef struct vq_bpe_work {
    struct vq_bpe_node *node;       /* (cap_node) */
    uint64_t *heap;                 /* (cap_heap) */
    char *bytes;                    /* (cap_bytes) a piece without its unknown bytes */
    size_t cap_node, cap_heap, cap_bytes;
    int32_t last_a, last_b;         /* the pair merged last; -1 when nothing was */
} vq_bpe_work;
void vq_bpe_work_clear(vq_bpe_work *w);

/* The bytes of an id; {NULL, 0} for what is no id, and where the table was overwritten. */
static inline vq_str vq_bpe_bytes(const vq_bpe *b, int32_t id)
{
    if (id < 0 || (uint32_t)id >= b->n_ids) return (vq_str){ NULL, 0 };
    const uint32_t at = b->start[id], end = b->start[id + 1];
    if (at > end || end > b->text_size) return (vq_str){ NULL, 0 };
    return (vq_str){ (const char *)b->text + at, end - at };
}

/* The plain token of exactly these bytes, -1 when there is none. */
int32_t vq_bpe_find(const vq_bpe *b, const char *s, size_t n);

/* Appends the ids of a piece.  merge_only: do not look the whole piece up first.
 * False: out of memory. */
bool vq_bpe_encode(const vq_bpe *b, vq_bpe_work *w, const char *s, size_t n, bool merge_only,
                   vq_ids *out);

#endif
