/* tok_list.c - words and merges of a section again.
 *
 * Where the section keeps no merges (a merge's rank is its result's id), those listed are the last
 * merge of each token that BPE makes of its own bytes, in the order of ids: tok_build.c explains
 * why these suffice, whatever else the original file listed. */
#include "core/text/tok_list.h"

#include "core/base/mem.h"
#include "core/text/tok_section.h"

#include <stdlib.h>
#include <string.h>

static int by_rank(const void *a, const void *b)
{
    const vaq_tok_pair *x = a, *y = b;
    return (x->rank > y->rank) - (x->rank < y->rank);
}

static bool listed_merges(vq_ids *out, const vq_bpe *b)
{
    const size_t slots = (size_t)b->pair_mask + 1;
    vaq_tok_pair *all = vq_malloc(slots * sizeof *all);
    size_t n = 0;
    if (!all) return false;
    for (size_t i = 0; i < slots; i++) {
        if (b->pair[i].a >= 0) all[n++] = b->pair[i];
    }
    qsort(all, n, sizeof *all, by_rank);
    bool ok = true;
    for (size_t i = 0; ok && i < n; i++) {
        ok = vq_ids_add(out, all[i].a) && vq_ids_add(out, all[i].b);
    }
    vq_free(all);
    return ok;
}

static bool last_merges(vq_ids *out, const vq_bpe *b)
{
    vq_bpe_work w = { 0 };
    vq_ids ids = { 0 };
    bool ok = true;
    for (uint32_t id = 0; ok && id < b->n_ids; id++) {
        const vq_str s = vq_bpe_bytes(b, (int32_t)id);
        if (b->kind[id] != (VAQ_TOK_PLAIN | VAQ_TOK_WHOLE) || s.n < 2) continue;
        ids.n = 0;
        ok = vq_bpe_encode(b, &w, s.p, s.n, true, &ids) && vq_ids_add(out, w.last_a) &&
             vq_ids_add(out, w.last_b);
    }
    vq_bpe_work_clear(&w);
    vq_ids_clear(&ids);
    return ok;
}

vq_status vq_tok_list_make(vq_tok_list *out, const vq_tok *t, const void *sec, vq_err *e)
{
    const vaq_tok_header *h = sec;
    const vq_bpe *b = vq_tok_bpe(t);
    *out = (vq_tok_list){ .kind = b->kind };
    out->family = (vq_tok_family){ (vaq_splitter)h->splitter, h->flags & VAQ_TOK_NFC,
                                   h->flags & VAQ_TOK_IGNORE_MERGES };
    if (b->pair ? listed_merges(&out->merge, b) : last_merges(&out->merge, b)) return VQ_OK;
    vq_tok_list_clear(out);
    return vq_fail(e, VQ_ENOMEM, "out of memory for the merges of a tokenizer");
}

void vq_tok_list_clear(vq_tok_list *l)
{
    vq_ids_clear(&l->merge);
    *l = (vq_tok_list){ .kind = NULL };
}

/* GPT-2's: what is printable in Latin-1 is itself, the other 68 are U+0100 and on. */
static uint32_t letter_of(uint8_t c)
{
    if (c < 33) return 256u + c;
    if (c >= 127 && c <= 160) return 256u + 33 + c - 127;
    return c == 173 ? 256 + 67 : c;
}

void vq_tok_spell(vq_buf *out, const vq_tok *t, const vq_tok_list *l, int32_t id)
{
    const vq_str s = vq_tok_bytes(t, id);
    if (!(l->kind[id] & VAQ_TOK_PLAIN)) {
        vq_buf_add(out, s.p, s.n);
        return;
    }
    for (size_t i = 0; i < s.n; i++) {
        char utf8[4];
        vq_buf_add(out, utf8, (size_t)vq_utf8_put(utf8, letter_of((uint8_t)s.p[i])));
    }
}
