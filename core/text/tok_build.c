/* tok_build.c - words and merges into a tokenizer section.
 *
 * What a file lists is hostile until proved otherwise: ids are bounded before anything is sized by
 * them, every token is unique, every merge joins two tokens into a third.  The section that comes
 * out is opened like any other before it is used further.
 *
 * Merges.  Where the rank of a merge is the id of its result, a table bytes -> id is all that BPE
 * needs, in a third of the space.  When is that the same?  Run BPE by ids over the bytes of each
 * token t.  If it ends in t, its last step joined some (a, b); the same happens wherever t arises
 * in a text, since until then no merge crossed t's borders and merges outside do not matter.  So if
 * the results of the listed merges never fall and each such (a, b) is listed, both ways always do
 * the same steps.  We check exactly that, and keep the list of merges otherwise. */
#include "core/text/tok_build.h"

#include "core/base/mem.h"
#include "core/text/tok_recognise.h"
#include "core/text/tok_section.h"
#include "core/text/unicode.h"

#include <stdlib.h>
#include <string.h>

typedef struct builder {
    const vq_tok_source *src;
    const char *name;
    vq_err *e;
    uint32_t n_ids;
    vq_str *spelled;        /* (n_ids) as in the source: byte alphabet, or text of added tokens */
    uint8_t *kind;          /* (n_ids) */
    uint32_t *start;        /* (n_ids + 1) */
    vq_buf text;
    int32_t byte_id[256];
    int32_t *slot;          /* (n_slot) */
    uint32_t n_slot, n_plain, max_len;
    vaq_tok_pair *pair;     /* (n_pair_slot) all merges */
    uint32_t n_pair_slot;
    int32_t *added;         /* (n_added) */
    uint32_t n_added;
    bool ranks_are_ids;     /* no merge's result is smaller than the one before */
} builder;

static vq_status no_memory(const builder *b)
{
    return vq_fail(b->e, VQ_ENOMEM, "%s: out of memory", b->name);
}

static vq_status bad(const builder *b, const char *what, vq_str s)
{
    int n = s.n > 60 ? 60 : (int)s.n;
    return vq_fail(
        b->e, VQ_EFORMAT,
        "%s: the tokenizer is damaged: %s: \"%.*s\" (--no-tokenizer converts for ids only)",
        b->name, what, n, s.p ? s.p : "");
}

/* ---- the byte alphabet: GPT-2's spelling of bytes as printable characters ---- */

/* The byte a character stands for, -1 for one outside the alphabet.  33..126, 161..172, 174..255
 * are themselves; the other 68 bytes are, ascending, U+0100 and on. */
static int byte_of(uint32_t cp)
{
    if ((cp >= 33 && cp <= 126) || (cp >= 161 && cp <= 172) || (cp >= 174 && cp <= 255))
        return (int)cp;
    if (cp < 256 || cp >= 256 + 68) return -1;
    int k = (int)cp - 256;
    if (k < 33) return k;               /* 0..32 */
    if (k < 33 + 34) return k - 33 + 127; /* 127..160 */
    return 173;
}

/* Appends the bytes that s spells; false when a character is outside the alphabet. */
static bool unspell(vq_str s, vq_buf *out)
{
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        i += (size_t)vq_u_get(s.p + i, &cp);
        int c = byte_of(cp);
        if (c < 0) return false;
        vq_buf_char(out, (char)c);
    }
    return true;
}

/* ---- tokens ---- */

static bool is_added(const vq_tok_word *w) { return w->kind != VAQ_TOK_PLAIN; }

/* Also proves that all strings are UTF-8, which everything below takes for granted. */
static vq_status count_ids(builder *b)
{
    int32_t top = -1;
    for (size_t i = 0; i < b->src->n_word; i++) {
        const vq_tok_word *w = &b->src->word[i];
        if (w->id < 0 || w->id >= VAQ_TOK_MAX_IDS) {
            return bad(b, is_added(w) ? "an added token whose id is not a number from 0 to 4194303"
                                      : "a vocabulary entry whose id is not a number from 0 to "
                                        "4194303", w->s);
        }
        if (!vq_utf8_valid(w->s.p, w->s.n))
            return bad(b, "a word that is no UTF-8", (vq_str){ NULL, 0 });
        if (w->id > top) top = w->id;
    }
    for (size_t i = 0; i < b->src->n_merge; i++) {
        const vq_tok_merge *m = &b->src->merge[i];
        if (!vq_utf8_valid(m->a.p, m->a.n) || !vq_utf8_valid(m->b.p, m->b.n))
            return bad(b, "a merge that is no UTF-8", (vq_str){ NULL, 0 });
    }
    if (top < 0) return bad(b, "an empty vocabulary", (vq_str){ NULL, 0 });
    b->n_ids = (uint32_t)top + 1;
    b->spelled = vq_calloc(b->n_ids, sizeof *b->spelled);
    b->kind = vq_calloc(b->n_ids, 1);
    b->start = vq_calloc((size_t)b->n_ids + 1, sizeof *b->start);
    return b->spelled && b->kind && b->start ? VQ_OK : no_memory(b);
}

static vq_status take_added(builder *b)
{
    for (size_t i = 0; i < b->src->n_word; i++) {
        const vq_tok_word *w = &b->src->word[i];
        if (!is_added(w) || w->s.n == 0) continue; /* Hugging Face ignores empty ones */
        if (w->kind == VAQ_TOK_ADDED_NORM && b->src->family.nfc && vq_nfc_needed(w->s.p, w->s.n))
            return bad(b, "an added token that is perhaps not NFC", w->s);
        if (b->kind[w->id] != VAQ_TOK_UNUSED)
            return bad(b, "two added tokens with one id", w->s);
        b->kind[w->id] = w->kind;
        b->spelled[w->id] = w->s;
        b->n_added++;
    }
    return VQ_OK;
}

static vq_status take_vocab(builder *b)
{
    for (size_t i = 0; i < b->src->n_word; i++) {
        const vq_tok_word *w = &b->src->word[i];
        if (is_added(w)) continue;
        if (w->s.n == 0) return bad(b, "a vocabulary entry without text", w->s);
        const uint8_t kind = b->kind[w->id];
        if (kind == VAQ_TOK_ADDED || kind == VAQ_TOK_ADDED_NORM) {
            if (vq_str_cmp(w->s, b->spelled[w->id]) != 0)
                return bad(b, "an id that an added token has too", w->s);
            continue; /* an added token may be listed twice; text never becomes it by merges */
        }
        if (kind != VAQ_TOK_UNUSED) return bad(b, "an id that another entry has too", w->s);
        b->kind[w->id] = VAQ_TOK_PLAIN;
        b->spelled[w->id] = w->s;
        b->n_plain++;
    }
    return VQ_OK;
}

/* Bytes of all tokens in the order of ids. */
static vq_status lay_text(builder *b)
{
    for (uint32_t i = 0; i < b->n_ids; i++) {
        vq_str s = b->spelled[i];
        b->start[i] = (uint32_t)b->text.n;
        if (b->kind[i] == VAQ_TOK_PLAIN) {
            if (!unspell(s, &b->text))
                return bad(b, "a vocabulary entry that is not of the byte alphabet", s);
            uint32_t len = (uint32_t)b->text.n - b->start[i];
            if (len > b->max_len) b->max_len = len;
        } else {
            vq_buf_add(&b->text, s.p, s.n);
        }
        if (b->text.n > VAQ_TOK_MAX_TEXT) return bad(b, "a vocabulary of more than 256 MB", s);
        if (b->text.oom) return no_memory(b);
    }
    b->start[b->n_ids] = (uint32_t)b->text.n;
    return VQ_OK;
}

/* A power of two of at least twice n: short probes, and always an empty slot. */
static uint32_t slots_for(uint32_t n)
{
    uint32_t size = 8;
    while (size < 2 * n) size *= 2;
    return size;
}

static vq_str bytes_of(const builder *b, int32_t id)
{
    return (vq_str){ b->text.p + b->start[id], b->start[id + 1] - b->start[id] };
}

static int32_t find(const builder *b, const char *s, size_t n)
{
    for (uint32_t i = vaq_tok_hash((const uint8_t *)s, n) & (b->n_slot - 1);;
         i = (i + 1) & (b->n_slot - 1)) {
        if (b->slot[i] < 0) return -1;
        vq_str t = bytes_of(b, b->slot[i]);
        if (t.n == n && memcmp(t.p, s, n) == 0) return b->slot[i];
    }
}

static vq_status hash_tokens(builder *b)
{
    b->n_slot = slots_for(b->n_plain);
    b->slot = vq_malloc(b->n_slot * sizeof *b->slot);
    if (!b->slot) return no_memory(b);
    for (uint32_t i = 0; i < b->n_slot; i++) b->slot[i] = -1;
    for (int c = 0; c < 256; c++) b->byte_id[c] = -1;
    for (uint32_t id = 0; id < b->n_ids; id++) {
        if (b->kind[id] != VAQ_TOK_PLAIN) continue;
        vq_str s = bytes_of(b, (int32_t)id);
        if (find(b, s.p, s.n) >= 0)
            return bad(b, "a vocabulary entry that is there twice", b->spelled[id]);
        uint32_t i = vaq_tok_hash((const uint8_t *)s.p, s.n) & (b->n_slot - 1);
        while (b->slot[i] >= 0) i = (i + 1) & (b->n_slot - 1);
        b->slot[i] = (int32_t)id;
        if (s.n == 1) b->byte_id[(uint8_t)s.p[0]] = (int32_t)id;
    }
    return VQ_OK;
}

/* ---- merges ---- */

static vaq_tok_pair *pair_slot(const builder *b, int32_t x, int32_t y)
{
    uint32_t i = vaq_tok_hash_pair(x, y) & (b->n_pair_slot - 1);
    while (b->pair[i].a >= 0 && (b->pair[i].a != x || b->pair[i].b != y))
        i = (i + 1) & (b->n_pair_slot - 1);
    return &b->pair[i];
}

static vq_status take_merge(builder *b, vq_str x, vq_str y, int32_t rank, vq_buf *tmp,
                            int32_t *last)
{
    vq_buf_reset(tmp);
    if (!unspell(x, tmp)) return bad(b, "a merge of what is not in the byte alphabet", x);
    size_t cut = tmp->n;
    if (!unspell(y, tmp)) return bad(b, "a merge of what is not in the byte alphabet", y);
    if (tmp->oom) return no_memory(b);
    if (cut == 0 || cut == tmp->n) return bad(b, "a merge with nothing", x);
    int32_t l = find(b, tmp->p, cut), r = find(b, tmp->p + cut, tmp->n - cut);
    int32_t id = find(b, tmp->p, tmp->n);
    if (l < 0) return bad(b, "a merge of what is not in the vocabulary", x);
    if (r < 0) return bad(b, "a merge of what is not in the vocabulary", y);
    if (id < 0) return bad(b, "a merge whose result is not in the vocabulary; its first half", x);
    if (id < *last) b->ranks_are_ids = false;
    *last = id;
    /* A pair listed again: the later rank counts, as in Hugging Face's map. */
    *pair_slot(b, l, r) = (vaq_tok_pair){ l, r, rank, id };
    return VQ_OK;
}

static vq_status take_merges(builder *b)
{
    const size_t n = b->src->n_merge;
    /* Llama 3 lists every way to split every token: there may be several per token, not many. */
    if (n > 4u * VAQ_TOK_MAX_IDS) return bad(b, "too many merges", (vq_str){ NULL, 0 });
    b->n_pair_slot = slots_for((uint32_t)n);
    b->pair = vq_malloc(b->n_pair_slot * sizeof *b->pair);
    if (!b->pair) return no_memory(b);
    for (uint32_t i = 0; i < b->n_pair_slot; i++) b->pair[i] = (vaq_tok_pair){ -1, -1, 0, 0 };

    b->ranks_are_ids = true;
    vq_buf tmp = { 0 };
    vq_status s = VQ_OK;
    int32_t last = -1;
    for (size_t i = 0; i < n && !s; i++) {
        const vq_tok_merge *m = &b->src->merge[i];
        s = take_merge(b, m->a, m->b, (int32_t)i, &tmp, &last);
    }
    vq_buf_clear(&tmp);
    return s;
}

/* ---- added tokens ---- */

static int by_text(const void *x, const void *y)
{
    const vq_str *a = x, *b = y;
    return vq_str_cmp(*a, *b);
}

static vq_status sort_added(builder *b)
{
    struct entry { vq_str s; int32_t id; } *v = vq_malloc((b->n_added + 1) * sizeof *v);
    b->added = vq_malloc((b->n_added + 1) * sizeof *b->added);
    if (!v || !b->added) {
        vq_free(v);
        return no_memory(b);
    }
    uint32_t n = 0;
    for (uint32_t id = 0; id < b->n_ids; id++) {
        if (b->kind[id] == VAQ_TOK_ADDED || b->kind[id] == VAQ_TOK_ADDED_NORM) {
            v[n++] = (struct entry){ b->spelled[id], (int32_t)id };
        }
    }
    qsort(v, n, sizeof *v, by_text); /* the text is the first member */
    vq_status s = VQ_OK;
    for (uint32_t i = 0; i < n && !s; i++) {
        b->added[i] = v[i].id;
        if (i && vq_str_cmp(v[i - 1].s, v[i].s) == 0)
            s = bad(b, "an added token with two ids", v[i].s);
    }
    vq_free(v);
    return s;
}

/* ---- the section ---- */

static void put_part(vq_buf *out, const void *p, size_t n)
{
    static const char zeros[8];
    vq_buf_add(out, p, n);
    vq_buf_add(out, zeros, (8 - n % 8) % 8);
}

static vq_status write_section(const builder *b, bool pairs, vq_buf *out)
{
    uint32_t flags = 0;
    if (b->src->family.nfc) flags |= VAQ_TOK_NFC;
    if (b->src->family.ignore_merges) flags |= VAQ_TOK_IGNORE_MERGES;
    if (pairs) flags |= VAQ_TOK_PAIRS;
    vaq_tok_header h = {
        .version = VAQ_TOK_VERSION,
        .splitter = b->src->family.splitter,
        .flags = flags,
        .n_ids = b->n_ids,
        .n_slot = b->n_slot,
        .n_pair_slot = pairs ? b->n_pair_slot : 0,
        .n_added = b->n_added,
        .text_size = (uint32_t)b->text.n,
        .max_len = b->max_len,
        .bos = b->src->bos,
        .eos = b->src->eos
    };
    vq_buf_reset(out);
    vq_buf_add(out, &h, sizeof h);
    put_part(out, b->byte_id, sizeof b->byte_id);
    put_part(out, b->start, ((size_t)b->n_ids + 1) * sizeof *b->start);
    put_part(out, b->slot, b->n_slot * sizeof *b->slot);
    if (pairs) put_part(out, b->pair, b->n_pair_slot * sizeof *b->pair);
    put_part(out, b->added, b->n_added * sizeof *b->added);
    put_part(out, b->kind, b->n_ids);
    put_part(out, b->text.p, b->text.n);
    return out->oom ? no_memory(b) : VQ_OK;
}

/* Runs BPE over the bytes of every plain token, by what the section says, and marks those it makes
 * of themselves.  *listed: the last merge of each of them is in the list of merges. */
static vq_status mark_whole(builder *b, const vq_buf *section, bool *listed)
{
    vq_tok *t;
    vq_status s = vq_tok_open(&t, section->p, section->n, b->name, b->e);
    if (s) return s;
    vq_bpe_work w = { 0 };
    vq_ids ids = { 0 };
    *listed = true;
    for (uint32_t id = 0; id < b->n_ids && !s; id++) {
        if (!(b->kind[id] & VAQ_TOK_PLAIN)) continue;
        vq_str x = bytes_of(b, (int32_t)id);
        ids.n = 0;
        if (!vq_bpe_encode(vq_tok_bpe(t), &w, x.p, x.n, true, &ids)) {
            s = no_memory(b);
            break;
        }
        bool whole = ids.n == 1 && ids.v[0] == (int32_t)id;
        b->kind[id] = (uint8_t)(VAQ_TOK_PLAIN | (whole ? VAQ_TOK_WHOLE : 0));
        if (whole && x.n > 1 && pair_slot(b, w.last_a, w.last_b)->a < 0) *listed = false;
    }
    vq_bpe_work_clear(&w);
    vq_ids_clear(&ids);
    vq_tok_close(t);
    return s;
}

static vq_status build(builder *b, vq_tok_built *out)
{
    vq_status s = count_ids(b);
    if (!s) s = take_added(b);
    if (!s) s = take_vocab(b);
    if (!s) s = lay_text(b);
    if (!s) s = hash_tokens(b);
    if (!s) s = take_merges(b);
    if (!s) s = sort_added(b);
    if (s) return s;

    bool pairs = !b->ranks_are_ids, listed = true;
    s = write_section(b, pairs, &out->section);
    if (!s) s = mark_whole(b, &out->section, &listed);
    if (!s && !pairs && !listed) {
        pairs = true;
        s = write_section(b, pairs, &out->section);
        if (!s) s = mark_whole(b, &out->section, &listed);
    }
    if (!s) s = write_section(b, pairs, &out->section); /* now with the marks */
    if (s) return s;
    out->n_ids = (int32_t)b->n_ids;
    out->bos = b->src->bos;
    out->eos = b->src->eos;
    strcpy(out->splitter, vq_tok_splitter_name(b->src->family.splitter));
    return VQ_OK;
}

vq_status vq_tok_compile(vq_tok_built *out, const vq_tok_source *src, const char *name, vq_err *e)
{
    *out = (vq_tok_built){ .bos = -1, .eos = -1 };
    builder b = { .src = src, .name = name, .e = e };
    vq_status s = build(&b, out);
    vq_free(b.spelled);
    vq_free(b.kind);
    vq_free(b.start);
    vq_buf_clear(&b.text);
    vq_free(b.slot);
    vq_free(b.pair);
    vq_free(b.added);
    if (s) vq_tok_built_clear(out);
    return s;
}

bool vq_tok_halves(vq_str s, vq_tok_merge *m)
{
    const char *gap = s.n ? memchr(s.p, ' ', s.n) : NULL;
    if (!gap) return false;
    m->a = (vq_str){ s.p, (size_t)(gap - s.p) };
    m->b = (vq_str){ gap + 1, s.n - m->a.n - 1 };
    return true;
}

void vq_tok_source_clear(vq_tok_source *s)
{
    vq_free(s->word);
    vq_free(s->merge);
    *s = (vq_tok_source){ .bos = -1, .eos = -1 };
}

void vq_tok_built_clear(vq_tok_built *b)
{
    vq_buf_clear(&b->section);
    *b = (vq_tok_built){ .bos = -1, .eos = -1 };
}
