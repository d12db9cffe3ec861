/* bpe.c - byte pair encoding: merge the adjacent pair of lowest rank, leftmost first, until none.
 *
 * The symbols of a piece are a linked list inside an array with one node per byte: a symbol lives
 * at its first byte, its length leads to the next one.  Mergeable pairs wait in a binary heap
 * ordered by (rank, position); an entry whose symbol has since changed is recognised when it comes
 * up and dropped.  Each merge adds at most two entries: n bytes take n log n, however long.
 *
 * Most pieces of real text are one token.  Which tokens BPE really makes of their own bytes was
 * found out when the section was built (VAQ_TOK_WHOLE), so those need one look-up, no merging. */
#include "core/text/bpe.h"

#include "core/base/mem.h"

#include <string.h>

enum { NO_MERGE = -1 };

typedef struct vq_bpe_node {
    uint32_t len;  /* bytes; 0: not the start of a symbol (any more) */
    uint32_t prev; /* start of the symbol before; meaningless for the first */
    int32_t id;
    int32_t rank;  /* of merging with the next symbol; NO_MERGE */
    int32_t to;    /* the id that merge makes */
} node;

void vq_bpe_work_clear(vq_bpe_work *w)
{
    vq_free(w->node);
    vq_free(w->heap);
    vq_free(w->bytes);
    *w = (vq_bpe_work){ 0 };
}

int32_t vq_bpe_find(const vq_bpe *b, const char *s, size_t n)
{
    if (n == 0 || n > b->max_len) return -1;
    if (n == 1) {
        int32_t id = b->byte_id[(uint8_t)*s];
        return id >= 0 && (uint32_t)id < b->n_ids ? id : -1;
    }
    uint32_t i = vaq_tok_hash((const uint8_t *)s, n) & b->slot_mask;
    for (uint32_t left = b->slot_mask;; left--, i = (i + 1) & b->slot_mask) {
        int32_t id = b->slot[i];
        if (id < 0) return -1;
        vq_str t = vq_bpe_bytes(b, id);
        if (t.n == n && memcmp(t.p, s, n) == 0) return id;
        if (!left) return -1;
    }
}

static const vaq_tok_pair *find_pair(const vq_bpe *b, int32_t x, int32_t y)
{
    uint32_t i = vaq_tok_hash_pair(x, y) & b->pair_mask;
    for (uint32_t left = b->pair_mask;; left--, i = (i + 1) & b->pair_mask) {
        const vaq_tok_pair *p = &b->pair[i];
        if (p->a < 0) return NULL;
        if (p->a == x && p->b == y) return p;
        if (!left) return NULL;
    }
}

/* Sets what merging the symbol at `at` with the next one would be. */
static void look(const vq_bpe *b, node *v, const char *s, size_t n, uint32_t at)
{
    node *x = &v[at];
    uint32_t next = at + x->len;
    x->rank = NO_MERGE;
    if (next >= n) return;
    if (b->pair) {
        const vaq_tok_pair *p = find_pair(b, x->id, v[next].id);
        if (!p) return;
        x->rank = p->rank;
        x->to = p->id;
    } else {
        x->rank = x->to = vq_bpe_find(b, s + at, x->len + v[next].len);
    }
}

static inline uint64_t entry(int32_t rank, uint32_t at)
{
    return (uint64_t)(uint32_t)rank << 32 | at;
}

static void sift_down(uint64_t *h, size_t n, size_t i)
{
    uint64_t x = h[i];
    for (size_t k; (k = 2 * i + 1) < n; i = k) {
        if (k + 1 < n && h[k + 1] < h[k]) k++;
        if (h[k] >= x) break;
        h[i] = h[k];
    }
    h[i] = x;
}

static void heap_push(uint64_t *h, size_t *n, uint64_t x)
{
    size_t i = (*n)++;
    for (; i > 0 && h[(i - 1) / 2] > x; i = (i - 1) / 2) h[i] = h[(i - 1) / 2];
    h[i] = x;
}

static bool merge(const vq_bpe *b, vq_bpe_work *w, const char *s, size_t n, vq_ids *out)
{
    /* One entry per byte at first, and a merge takes one out before it puts at most two in: with
     * fewer than n merges there are never more than 2n. */
    if (vq_grow(&w->node, &w->cap_node, n, sizeof *w->node)) return false;
    if (vq_grow(&w->heap, &w->cap_heap, 2 * n, sizeof *w->heap)) return false;
    node *v = w->node;
    uint64_t *h = w->heap;
    size_t n_heap = 0;

    for (size_t i = 0; i < n; i++) {
        v[i] = (node){ .len = 1, .prev = (uint32_t)i - 1, .id = b->byte_id[(uint8_t)s[i]] };
    }
    for (size_t i = 0; i < n; i++) {
        look(b, v, s, n, (uint32_t)i);
        if (v[i].rank != NO_MERGE) h[n_heap++] = entry(v[i].rank, (uint32_t)i);
    }
    for (size_t i = n_heap / 2; i-- > 0;) sift_down(h, n_heap, i);

    while (n_heap > 0) {
        uint64_t top = h[0];
        h[0] = h[--n_heap];
        if (n_heap) sift_down(h, n_heap, 0);
        uint32_t at = (uint32_t)top;
        node *x = &v[at];
        if (x->len == 0 || x->rank != (int32_t)(top >> 32)) continue; /* changed since */

        uint32_t next = at + x->len;
        w->last_a = x->id;
        w->last_b = v[next].id;
        x->id = x->to;
        x->len += v[next].len;
        v[next].len = 0;
        if (at + x->len < n) v[at + x->len].prev = at;
        look(b, v, s, n, at);
        if (x->rank != NO_MERGE) heap_push(h, &n_heap, entry(x->rank, at));
        if (at > 0) {
            look(b, v, s, n, x->prev);
            if (v[x->prev].rank != NO_MERGE) heap_push(h, &n_heap, entry(v[x->prev].rank, x->prev));
        }
    }
    for (size_t i = 0; i < n; i += v[i].len) {
        if (!vq_ids_add(out, v[i].id)) return false;
    }
    return true;
}

bool vq_bpe_encode(const vq_bpe *b, vq_bpe_work *w, const char *s, size_t n, bool merge_only,
                   vq_ids *out)
{
    w->last_a = w->last_b = -1;
    if (n == 0) return true;
    int32_t whole = merge_only ? -1 : vq_bpe_find(b, s, n);
    if (whole >= 0 && (b->ignore_merges || b->kind[whole] & VAQ_TOK_WHOLE))
        return vq_ids_add(out, whole);

    if (b->lacks_bytes) { /* dropped as Hugging Face does: the neighbours then touch */
        if (vq_grow(&w->bytes, &w->cap_bytes, n, 1)) return false;
        size_t k = 0;
        for (size_t i = 0; i < n; i++) {
            if (b->byte_id[(uint8_t)s[i]] >= 0) w->bytes[k++] = s[i];
        }
        s = w->bytes;
        n = k;
    }
    return n == 0 || merge(b, w, s, n, out);
}
