/* nfc.c - Unicode normalization form C, and repair of ill-formed UTF-8.
 *
 * Almost all text is in NFC already, so everything here works on runs: a run begins at a code point
 * without VQ_U_NFC (combining class 0, never the second half of a composition) and holds the
 * flagged ones that follow.  Normalization never looks across the start of a run, so text between
 * runs is copied, and a run is decomposed, ordered and composed in a small scratch array. */
#include "core/text/unicode.h"

#include "core/base/mem.h"

#include <string.h>

/* Hangul syllables are arithmetic: S + (l * 21 + v) * 28 + t (Unicode 15, section 3.12). */
enum {
    HANGUL_S = 0xac00, HANGUL_L = 0x1100, HANGUL_V = 0x1161, HANGUL_T = 0x11a7,
    N_L = 19, N_V = 21, N_T = 28, N_S = N_L * N_V * N_T
};

typedef struct mark {
    uint32_t cp;
    uint32_t ccc;
} mark;

typedef struct run {
    mark *v;     /* (n) */
    size_t n, cap;
    mark *tmp;   /* (cap_tmp) of order() */
    size_t cap_tmp;
} run;

bool vq_utf8_valid(const char *s, size_t n)
{
    uint32_t cp;
    for (size_t i = 0; i < n;) {
        int len = vq_utf8_get(s + i, n - i, &cp);
        if (!len) return false;
        i += (size_t)len;
    }
    return true;
}

void vq_utf8_clean(const char *s, size_t n, vq_buf *out)
{
    uint32_t cp;
    bool incomplete;
    size_t good = 0; /* start of the well-formed stretch not yet copied */
    size_t i = 0;
    while (i < n) {
        int len = vq_utf8_get(s + i, n - i, &cp);
        if (!len) {
            vq_buf_add(out, s + good, i - good);
            vq_buf_str(out, "\xef\xbf\xbd");
            len = vq_utf8_bad(s + i, n - i, &incomplete);
            good = i + (size_t)len;
        }
        i += (size_t)len;
    }
    vq_buf_add(out, s + good, n - good);
}

bool vq_nfc_needed(const char *s, size_t n)
{
    uint32_t cp;
    for (size_t i = 0; i < n;) {
        if ((unsigned char)s[i] < 0x80) {
            i++;
            continue;
        }
        i += (size_t)vq_u_get(s + i, &cp);
        if (vq_u_bits(cp) & VQ_U_NFC) return true;
    }
    return false;
}

static uint32_t ccc_of(uint32_t cp)
{
    if (!(vq_u_bits(cp) & VQ_U_NFC)) return 0;
    size_t lo = 0, hi = vq_u_n_ccc;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (vq_u_cccs[mid].last < cp) lo = mid + 1;
        else hi = mid;
    }
    return lo < vq_u_n_ccc && vq_u_cccs[lo].first <= cp ? vq_u_cccs[lo].ccc : 0;
}

static const vq_u_decomp *decomp_of(uint32_t cp)
{
    size_t lo = 0, hi = vq_u_n_decomp;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (vq_u_decomps[mid].cp < cp) lo = mid + 1;
        else hi = mid;
    }
    return lo < vq_u_n_decomp && vq_u_decomps[lo].cp == cp ? &vq_u_decomps[lo] : NULL;
}

/* The primary composite of a and b, 0 when there is none. */
static uint32_t compose(uint32_t a, uint32_t b)
{
    if (a - HANGUL_L < N_L && b - HANGUL_V < N_V) {
        return HANGUL_S + ((a - HANGUL_L) * N_V + (b - HANGUL_V)) * N_T;
    }
    if (a - HANGUL_S < N_S && (a - HANGUL_S) % N_T == 0 && b - HANGUL_T - 1 < N_T - 1) {
        return a + (b - HANGUL_T);
    }
    size_t lo = 0, hi = vq_u_n_pair;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        const vq_u_decomp *d = &vq_u_decomps[vq_u_pairs[mid]];
        if (d->a < a || (d->a == a && d->b < b)) lo = mid + 1;
        else hi = mid;
    }
    if (lo == vq_u_n_pair) return 0;
    const vq_u_decomp *d = &vq_u_decomps[vq_u_pairs[lo]];
    return d->a == a && d->b == b ? d->cp : 0;
}

static bool push(run *r, uint32_t cp)
{
    if (vq_grow(&r->v, &r->cap, r->n + 1, sizeof *r->v)) return false;
    r->v[r->n++] = (mark){ cp, ccc_of(cp) };
    return true;
}

/* Appends the full canonical decomposition of cp.  Only the first of a pair decomposes further, at
 * most three times (the generator asserts both), so the tails fit a small stack. */
static bool decompose(run *r, uint32_t cp)
{
    uint32_t s = cp - HANGUL_S;
    if (s < N_S) {
        return push(r, HANGUL_L + s / (N_V * N_T)) && push(r, HANGUL_V + s / N_T % N_V) &&
               (s % N_T == 0 || push(r, HANGUL_T + s % N_T));
    }
    uint32_t tail[4];
    int n = 0;
    for (const vq_u_decomp *d; n < 4 && (d = decomp_of(cp)) != NULL; cp = d->a) {
        if (d->b) tail[n++] = d->b;
    }
    if (!push(r, cp)) return false;
    while (n > 0) {
        if (!push(r, tail[--n])) return false;
    }
    return true;
}

/* Canonical ordering of v[0..n), all with ccc != 0: a stable sort.  Real text has one to three
 * marks in a row; a counting sort keeps a megabyte of them linear. */
static bool order(run *r, mark *v, size_t n)
{
    if (n <= 16) {
        for (size_t i = 1; i < n; i++) {
            mark m = v[i];
            size_t k = i;
            for (; k > 0 && v[k - 1].ccc > m.ccc; k--) v[k] = v[k - 1];
            v[k] = m;
        }
        return true;
    }
    size_t at[257] = { 0 };
    if (vq_grow(&r->tmp, &r->cap_tmp, n, sizeof *r->tmp)) return false;
    for (size_t i = 0; i < n; i++) at[v[i].ccc + 1]++;
    for (int c = 0; c < 256; c++) at[c + 1] += at[c];
    for (size_t i = 0; i < n; i++) r->tmp[at[v[i].ccc]++] = v[i];
    memcpy(v, r->tmp, n * sizeof *v);
    return true;
}

static bool order_all(run *r)
{
    for (size_t i = 0; i < r->n;) {
        size_t k = i;
        while (k < r->n && r->v[k].ccc) k++;
        if (k - i > 1 && !order(r, r->v + i, k - i)) return false;
        i = k + (k == i);
    }
    return true;
}

/* Composition in place (Unicode 15, D117): a code point joins the last starter unless something
 * between them is a starter or has the same or a higher class. */
static void compose_all(run *r)
{
    size_t out = 0, starter = SIZE_MAX;
    for (size_t i = 0; i < r->n; i++) {
        mark m = r->v[i];
        if (starter != SIZE_MAX) {
            bool blocked = out - 1 != starter && r->v[out - 1].ccc >= m.ccc;
            uint32_t c = blocked ? 0 : compose(r->v[starter].cp, m.cp);
            if (c) {
                r->v[starter].cp = c; /* every primary composite has class 0 */
                continue;
            }
        }
        if (m.ccc == 0) starter = out;
        r->v[out++] = m;
    }
    r->n = out;
}

bool vq_nfc(const char *s, size_t n, vq_buf *out)
{
    run r = { 0 };
    bool ok = true;
    size_t done = 0;  /* copied or normalized up to here */
    size_t start = 0; /* of the code point before i: where a run that i makes begins */
    for (size_t i = 0; ok && i < n;) {
        uint32_t cp;
        size_t next = i + (size_t)vq_u_get(s + i, &cp);
        if (!(vq_u_bits(cp) & VQ_U_NFC)) {
            start = i;
            i = next;
            continue;
        }
        vq_buf_add(out, s + done, start - done);
        r.n = 0;
        for (i = start; ok && i < n; i = next) {
            next = i + (size_t)vq_u_get(s + i, &cp);
            if (i != start && !(vq_u_bits(cp) & VQ_U_NFC)) break;
            ok = decompose(&r, cp);
        }
        ok = ok && order_all(&r);
        if (ok) compose_all(&r);
        for (size_t k = 0; ok && k < r.n; k++) {
            char u[4];
            vq_buf_add(out, u, (size_t)vq_utf8_put(u, r.v[k].cp));
        }
        done = start = i;
    }
    vq_buf_add(out, s + done, n - done);
    vq_free(r.v);
    vq_free(r.tmp);
    return ok && !out->oom;
}
