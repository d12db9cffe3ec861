/* tok.c - a tokenizer is a checked view of its section; encoding and detokenising over it.
 *
 * Opening walks every table once and proves what makes the answers right: offsets rise, ids exist,
 * each hash table has an empty slot, the list of added tokens is sorted.  What is mapped can be cut
 * or overwritten afterwards; then the answers are wrong, but every look-up still stays inside the
 * tables, whose sizes are kept in a copy of the header.  Nothing else is built but 256 bits of
 * first bytes.
 *
 * Encoding: repair the UTF-8; with `special` find added tokens in what is left; normalize, find the
 * added tokens that want normalized text, split, and merge bytes (split.c, bpe.c). */
#include "core/text/tok.h"

#include "core/base/mem.h"
#include "core/text/bpe.h"
#include "core/text/split.h"
#include "core/text/tok_section.h"
#include "core/text/unicode.h"

#include <string.h>

struct vq_tok {
    vaq_tok_header own;
    const vaq_tok_header *h;    /* = &own */
    vq_bpe bpe;
    const int32_t *added;       /* (h->n_added) ids by their bytes, ascending */
    uint64_t first[4];          /* bit c: some added token begins with byte c */
};

/* ---- opening ---- */

bool vq_tok_layout(const vaq_tok_header *h, vq_tok_parts *out)
{
    const uint64_t size[VQ_TOK_PARTS] = {
        256 * sizeof(int32_t),
        ((uint64_t)h->n_ids + 1) * sizeof(uint32_t),
        (uint64_t)h->n_slot * sizeof(int32_t),
        (uint64_t)h->n_pair_slot * sizeof(vaq_tok_pair),
        (uint64_t)h->n_added * sizeof(int32_t),
        h->n_ids,
        h->text_size
    };
    uint64_t at = sizeof *h;
    for (int i = 0; i < VQ_TOK_PARTS; i++) {
        out->off[i] = at;
        at += (size[i] + 7) & ~(uint64_t)7;
    }
    out->total = at;
    return at <= UINT32_MAX;
}

static bool is_pow2(uint32_t n) { return n != 0 && (n & (n - 1)) == 0; }

static const char *check_header(const vaq_tok_header *h)
{
    if (h->splitter < VAQ_SPLIT_DEEPSEEK || h->splitter > VAQ_SPLIT_SMOLLM)
        return "an unknown splitter";
    if (h->flags & ~(uint32_t)(VAQ_TOK_NFC | VAQ_TOK_IGNORE_MERGES | VAQ_TOK_PAIRS))
        return "unknown flags";
    if (h->n_ids == 0 || h->n_ids > VAQ_TOK_MAX_IDS) return "an impossible number of ids";
    if (!is_pow2(h->n_slot) || h->n_slot > 4u * VAQ_TOK_MAX_IDS) return "a hash of impossible size";
    if (h->flags & VAQ_TOK_PAIRS
            ? !is_pow2(h->n_pair_slot) || h->n_pair_slot > 16u * VAQ_TOK_MAX_IDS
            : h->n_pair_slot != 0) {
        return "a merge table of impossible size";
    }
    if (h->n_added > h->n_ids || h->text_size > VAQ_TOK_MAX_TEXT) return "impossible counts";
    int32_t n = (int32_t)h->n_ids;
    if (h->bos < -1 || h->bos >= n || h->eos < -1 || h->eos >= n)
        return "a BOS or EOS that is no id";
    for (int i = 0; i < 5; i++) {
        if (h->pad[i]) return "padding that is not zero";
    }
    return NULL;
}

/* Tokens: offsets, kinds, added ones valid UTF-8 (detok copies those without looking). */
static const char *check_tokens(const vaq_tok_header *h, const vq_bpe *b)
{
    uint32_t n_added = 0;
    if (b->start[0] != 0 || b->start[h->n_ids] != h->text_size)
        return "token offsets that do not span the text";
    for (uint32_t i = 0; i < h->n_ids; i++) {
        if (b->start[i] > b->start[i + 1] || b->start[i + 1] > h->text_size) {
            return "token offsets that do not rise within the text";
        }
        uint32_t len = b->start[i + 1] - b->start[i];
        uint8_t kind = b->kind[i];
        if (kind == VAQ_TOK_UNUSED) {
            if (len) return "an unused id with bytes";
        } else if (kind == VAQ_TOK_ADDED || kind == VAQ_TOK_ADDED_NORM) {
            n_added++;
            if (len == 0 || !vq_utf8_valid((const char *)b->text + b->start[i], len))
                return "an added token that is no text";
        } else if ((kind & ~VAQ_TOK_WHOLE) == VAQ_TOK_PLAIN) {
            if (len == 0 || len > h->max_len) return "a token of impossible length";
        } else {
            return "an unknown kind of token";
        }
    }
    return n_added == h->n_added ? NULL : "a wrong number of added tokens";
}

static bool is_plain(const vaq_tok_header *h, const vq_bpe *b, int32_t id)
{
    return id >= 0 && (uint32_t)id < h->n_ids && b->kind[id] & VAQ_TOK_PLAIN;
}

static const char *check_tables(const vaq_tok_header *h, const vq_bpe *b)
{
    uint32_t empty = 0;
    for (uint32_t i = 0; i < h->n_slot; i++) {
        if (b->slot[i] == -1) empty++;
        else if (!is_plain(h, b, b->slot[i])) return "a hash entry that is no token";
    }
    if (!empty) return "a hash without an empty slot";
    for (int c = 0; c < 256; c++) {
        if (b->byte_id[c] != -1 && !is_plain(h, b, b->byte_id[c])) return "a byte that is no token";
    }
    empty = 0;
    for (uint32_t i = 0; i < h->n_pair_slot; i++) {
        const vaq_tok_pair *p = &b->pair[i];
        if (p->a == -1) empty++;
        else if (!is_plain(h, b, p->a) || !is_plain(h, b, p->b) || !is_plain(h, b, p->id) ||
                 p->rank < 0) {
            return "a merge of what are no tokens";
        }
    }
    return h->n_pair_slot && !empty ? "a merge table without an empty slot" : NULL;
}

static const char *check_added(const vq_tok *t)
{
    vq_str prev = { NULL, 0 };
    for (uint32_t i = 0; i < t->h->n_added; i++) {
        if (!vq_tok_is_added(t, t->added[i])) return "an added token that is none";
        vq_str s = vq_tok_bytes(t, t->added[i]);
        if (i && vq_str_cmp(prev, s) >= 0) return "added tokens out of order";
        prev = s;
    }
    return NULL;
}

vq_status vq_tok_open(vq_tok **out, const void *sec, size_t n, const char *name, vq_err *e)
{
    *out = NULL;
    vaq_tok_header own;
    const vaq_tok_header *h = &own;
    vq_tok_parts parts;
    if (n < sizeof *h)
        return vq_fail(e, VQ_EFORMAT, "%s: the tokenizer section is damaged: it has only %zu bytes",
                       name, n);
    memcpy(&own, sec, sizeof own);
    if (h->version != VAQ_TOK_VERSION) {
        return vq_fail(e, VQ_EFORMAT,
                       "%s: the tokenizer section has version %lu, this vaquita reads %d", name,
                       (unsigned long)h->version, VAQ_TOK_VERSION);
    }
    const char *why = check_header(h);
    if (!why && (!vq_tok_layout(h, &parts) || parts.total != n))
        why = "a size that does not fit its counts";
    if (why) return vq_fail(e, VQ_EFORMAT, "%s: the tokenizer section is damaged: %s", name, why);

    vq_tok *t = vq_calloc(1, sizeof *t);
    if (!t) return vq_fail(e, VQ_ENOMEM, "%s: out of memory", name);
    const uint8_t *base = sec;
    t->own = own;
    t->h = &t->own;
    t->added = (const int32_t *)(base + parts.off[VQ_TOK_ADDED_IDS]);
    t->bpe = (vq_bpe){
        .byte_id = (const int32_t *)(base + parts.off[VQ_TOK_BYTE_ID]),
        .start = (const uint32_t *)(base + parts.off[VQ_TOK_START]),
        .slot = (const int32_t *)(base + parts.off[VQ_TOK_SLOT]),
        .pair = h->n_pair_slot ? (const vaq_tok_pair *)(base + parts.off[VQ_TOK_PAIR]) : NULL,
        .kind = base + parts.off[VQ_TOK_KIND],
        .text = base + parts.off[VQ_TOK_TEXT],
        .n_ids = h->n_ids,
        .text_size = h->text_size,
        .slot_mask = h->n_slot - 1,
        .pair_mask = h->n_pair_slot - 1,
        .max_len = h->max_len,
        .ignore_merges = h->flags & VAQ_TOK_IGNORE_MERGES
    };
    why = check_tokens(h, &t->bpe);
    if (!why) why = check_tables(h, &t->bpe);
    if (!why) why = check_added(t);
    if (why) {
        vq_tok_close(t);
        return vq_fail(e, VQ_EFORMAT, "%s: the tokenizer section is damaged: %s", name, why);
    }
    for (int c = 0; c < 256; c++) t->bpe.lacks_bytes |= t->bpe.byte_id[c] < 0;
    for (uint32_t i = 0; i < h->n_added; i++) {
        vq_str s = vq_tok_bytes(t, t->added[i]);
        if (!s.n) continue;
        uint8_t c = (uint8_t)*s.p;
        t->first[c >> 6] |= (uint64_t)1 << (c & 63);
    }
    *out = t;
    return VQ_OK;
}

void vq_tok_close(vq_tok *t)
{
    vq_free(t);
}

/* ---- facts ---- */

int32_t vq_tok_count(const vq_tok *t) { return (int32_t)t->h->n_ids; }
int32_t vq_tok_bos(const vq_tok *t) { return t->h->bos; }
int32_t vq_tok_eos(const vq_tok *t) { return t->h->eos; }
const vq_bpe *vq_tok_bpe(const vq_tok *t) { return &t->bpe; }

vq_str vq_tok_bytes(const vq_tok *t, int32_t id)
{
    vq_str s = vq_bpe_bytes(&t->bpe, id);
    return s.p && t->bpe.kind[id] != VAQ_TOK_UNUSED ? s : (vq_str){ NULL, 0 };
}

bool vq_tok_is_added(const vq_tok *t, int32_t id)
{
    return id >= 0 && (uint32_t)id < t->h->n_ids &&
           (t->bpe.kind[id] == VAQ_TOK_ADDED || t->bpe.kind[id] == VAQ_TOK_ADDED_NORM);
}

int32_t vq_tok_added(const vq_tok *t, const char *s, size_t n)
{
    uint32_t lo = 0, hi = t->h->n_added;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        int c = vq_str_cmp(vq_tok_bytes(t, t->added[mid]), (vq_str){ s, n });
        if (c == 0) return t->added[mid];
        if (c < 0) lo = mid + 1;
        else hi = mid;
    }
    return -1;
}

/* ---- encoding ---- */

typedef struct encoder {
    const vq_tok *t;
    vq_bpe_work work;
    vq_buf nfc;
    bool special;
    vq_ids *out;
} encoder;

/* Byte d of the i-th added token in the sorted list, which has that many. */
static uint8_t added_byte(const vq_tok *t, uint32_t i, size_t d)
{
    vq_str s = vq_tok_bytes(t, t->added[i]);
    return d < s.n ? (uint8_t)s.p[d] : 0;
}

/* The longest added token of this kind at the start of s, -1: none.  The sorted list is narrowed
 * byte by byte: among the entries that share the first d bytes the one of length d, if any, comes
 * first. */
static int32_t added_at(const vq_tok *t, const char *s, size_t n, uint8_t kind)
{
    int32_t best = -1;
    uint32_t lo = 0, hi = t->h->n_added;
    for (size_t d = 0; lo < hi; d++) {
        int32_t id = t->added[lo];
        vq_str whole = vq_tok_bytes(t, id);
        if (whole.n == d) {
            if (d && t->bpe.kind[id] == kind) best = id;
            if (++lo == hi) break;
        }
        if (d == n) break;
        uint8_t c = (uint8_t)s[d];
        uint32_t a = lo, b = hi; /* first entry with byte d >= c */
        while (a < b) {
            uint32_t mid = a + (b - a) / 2;
            if (added_byte(t, mid, d) < c) a = mid + 1;
            else b = mid;
        }
        lo = a;
        for (b = hi; a < b;) { /* first with byte d > c */
            uint32_t mid = a + (b - a) / 2;
            if (added_byte(t, mid, d) <= c) a = mid + 1;
            else b = mid;
        }
        hi = a;
    }
    return best;
}

/* Finds the next added token of this kind at or behind s[from]; false: none. */
static bool next_added(const vq_tok *t, const char *s, size_t n, size_t from, uint8_t kind,
                       size_t *at, int32_t *id)
{
    for (size_t i = from; i < n; i++) {
        uint8_t c = (uint8_t)s[i];
        if (!(t->first[c >> 6] >> (c & 63) & 1)) continue;
        *id = added_at(t, s + i, n - i, kind);
        if (*id >= 0) {
            *at = i;
            return true;
        }
    }
    return false;
}

static bool encode_plain(encoder *x, const char *s, size_t n)
{
    vq_split w;
    vq_str piece;
    vq_split_init(&w, (vaq_splitter)x->t->h->splitter, s, n);
    while (vq_split_next(&w, &piece)) {
        if (!vq_bpe_encode(&x->t->bpe, &x->work, piece.p, piece.n, false, x->out)) return false;
    }
    return true;
}

/* Text with its added tokens of one kind; what lies between goes on to the next pass. */
static bool encode_pass(encoder *x, const char *s, size_t n, uint8_t kind);

static bool encode_stretch(encoder *x, const char *s, size_t n)
{
    if (x->t->h->flags & VAQ_TOK_NFC && vq_nfc_needed(s, n)) {
        vq_buf_reset(&x->nfc);
        if (!vq_nfc(s, n, &x->nfc)) return false;
        s = x->nfc.p;
        n = x->nfc.n;
    }
    return x->special ? encode_pass(x, s, n, VAQ_TOK_ADDED_NORM) : encode_plain(x, s, n);
}

static bool encode_pass(encoder *x, const char *s, size_t n, uint8_t kind)
{
    size_t i = 0, at;
    int32_t id;
    bool more;
    do {
        more = next_added(x->t, s, n, i, kind, &at, &id);
        size_t end = more ? at : n;
        if (end > i && !(kind == VAQ_TOK_ADDED ? encode_stretch : encode_plain)(x, s + i, end - i))
            return false;
        if (more && !vq_ids_add(x->out, id)) return false;
        i = more ? at + vq_tok_bytes(x->t, id).n : n;
    } while (more);
    return true;
}

vq_status vq_tok_encode(const vq_tok *t, const char *s, size_t n, bool special, vq_ids *out,
                        vq_err *e)
{
    if (n == 0) return VQ_OK;
    /* Positions inside a piece are 32 bits wide (bpe.c), and NFC at most triples a text. */
    if (n > INT32_MAX / 2)
        return vq_fail(e, VQ_ENOFIT, "a text of %zu bytes is too long to be tokenized at once", n);
    encoder x = { .t = t, .special = special, .out = out };
    vq_buf clean = { 0 };
    size_t n_before = out->n;
    bool ok = true;
    if (!vq_utf8_valid(s, n)) {
        vq_utf8_clean(s, n, &clean);
        ok = !clean.oom;
        s = clean.p;
        n = clean.n;
    }
    if (ok) ok = special ? encode_pass(&x, s, n, VAQ_TOK_ADDED) : encode_stretch(&x, s, n);
    vq_buf_clear(&clean);
    vq_buf_clear(&x.nfc);
    vq_bpe_work_clear(&x.work);
    if (ok) return VQ_OK;
    out->n = n_before;
    return vq_fail(e, VQ_ENOMEM, "out of memory while tokenizing %zu bytes", n);
}

/* ---- detokenising ---- */

static void put_bad(vq_buf *out) { vq_buf_str(out, "\xef\xbf\xbd"); }

/* Appends the certain part of held + s and holds the rest.  At most 3 bytes are held: the maximal
 * subparts that more bytes could complete are that long. */
static void put_bytes(vq_detok *d, const char *s, size_t n, vq_buf *out)
{
    uint32_t cp;
    bool incomplete;
    while (d->n_held && n) { /* byte by byte until what was held is settled */
        d->held[d->n_held++] = *s++;
        n--;
        while (d->n_held) {
            size_t len = (size_t)vq_utf8_get(d->held, (size_t)d->n_held, &cp);
            if (len) {
                vq_buf_add(out, d->held, len);
            } else {
                len = (size_t)vq_utf8_bad(d->held, (size_t)d->n_held, &incomplete);
                if (incomplete) break;
                put_bad(out);
            }
            d->n_held -= (int)len;
            memmove(d->held, d->held + len, (size_t)d->n_held);
        }
    }
    size_t i = 0, good = 0;
    while (i < n) {
        size_t len = (size_t)vq_utf8_get(s + i, n - i, &cp);
        if (!len) {
            len = (size_t)vq_utf8_bad(s + i, n - i, &incomplete);
            vq_buf_add(out, s + good, i - good);
            good = i + len;
            if (incomplete) {
                memcpy(d->held, s + i, len);
                d->n_held = (int)len;
            } else {
                put_bad(out);
            }
        }
        i += len;
    }
    vq_buf_add(out, s + good, n - good);
}

void vq_detok_put(const vq_tok *t, vq_detok *d, int32_t id, vq_buf *out)
{
    vq_str s = vq_tok_bytes(t, id);
    if (!s.p) return;
    if (vq_tok_is_added(t, id)) {
        vq_detok_end(d, out);
        vq_buf_add(out, s.p, s.n);
    } else {
        put_bytes(d, s.p, s.n, out);
    }
}

void vq_detok_end(vq_detok *d, vq_buf *out)
{
    if (d->n_held) put_bad(out); /* what is held is one maximal subpart */
    d->n_held = 0;
}
