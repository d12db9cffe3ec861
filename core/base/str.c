/* str.c - byte buffers, numbers and UTF-8.
 *
 * Nothing here asks the locale: digits and blanks are ASCII, and strtod, which would, only sees
 * spellings that were checked first (vaquita never calls setlocale, so its point is '.').
 * A buffer is always terminated behind its n bytes; after `oom` it stays as it was. */
#include "core/base/str.h"

#include "core/base/mem.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- buffers ---- */

void vq_buf_clear(vq_buf *b)
{
    vq_free(b->p);
    *b = (vq_buf){ 0 };
}

void vq_buf_reset(vq_buf *b)
{
    b->n = 0;
    b->oom = false;
    if (b->p) b->p[0] = 0;
}

/* Room for n more bytes and the terminator. */
static bool reserve(vq_buf *b, size_t n)
{
    if (b->oom) return false;
    if (n >= SIZE_MAX - b->n || vq_grow(&b->p, &b->cap, b->n + n + 1, 1)) b->oom = true;
    return !b->oom;
}

void vq_buf_add(vq_buf *b, const void *p, size_t n)
{
    if (!reserve(b, n)) return;
    if (n) memcpy(b->p + b->n, p, n);
    b->n += n;
    b->p[b->n] = 0;
}

void vq_buf_str(vq_buf *b, const char *s)
{
    vq_buf_add(b, s, strlen(s));
}

void vq_buf_char(vq_buf *b, char c)
{
    vq_buf_add(b, &c, 1);
}

void vq_buf_printf(vq_buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0 || !reserve(b, (size_t)n)) return;
    va_start(ap, fmt);
    vsnprintf(b->p + b->n, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->n += (size_t)n;
}

void vq_buf_json(vq_buf *b, const char *p, size_t n)
{
    static const char hex[] = "0123456789abcdef";
    vq_buf_char(b, '"');
    for (size_t i = 0; i < n;) {
        size_t run = i; /* plain bytes go over in one piece */
        while (run < n && p[run] != '"' && p[run] != '\\' && (unsigned char)p[run] >= 0x20 &&
               (unsigned char)p[run] < 0x7f) {
            run++;
        }
        vq_buf_add(b, p + i, run - i);
        i = run;
        if (i == n) break;
        unsigned char c = (unsigned char)p[i];
        if (c < 0x80) {
            switch (c) {
            case '"': vq_buf_str(b, "\\\""); break;
            case '\\': vq_buf_str(b, "\\\\"); break;
            case '\b': vq_buf_str(b, "\\b"); break;
            case '\f': vq_buf_str(b, "\\f"); break;
            case '\n': vq_buf_str(b, "\\n"); break;
            case '\r': vq_buf_str(b, "\\r"); break;
            case '\t': vq_buf_str(b, "\\t"); break;
            default: vq_buf_add(b, (char[]){ '\\', 'u', '0', '0', hex[c >> 4], hex[c & 15] }, 6);
            }
            i++;
            continue;
        }
        uint32_t cp;
        int len = vq_utf8_get(p + i, n - i, &cp);
        if (len) {
            vq_buf_add(b, p + i, (size_t)len);
        } else {
            bool incomplete;
            len = vq_utf8_bad(p + i, n - i, &incomplete);
            vq_buf_str(b, "\xef\xbf\xbd");
        }
        i += (size_t)len;
    }
    vq_buf_char(b, '"');
}

/* ---- strings ---- */

vq_str vq_str_c(const char *s)
{
    return (vq_str){ s, s ? strlen(s) : 0 };
}

bool vq_str_eq(vq_str a, const char *b)
{
    return a.p && strlen(b) == a.n && memcmp(a.p, b, a.n) == 0;
}

bool vq_str_has(vq_str hay, const char *needle)
{
    size_t n = strlen(needle);
    if (!hay.p) return false;
    for (size_t i = 0; n <= hay.n && i <= hay.n - n; i++) {
        if (memcmp(hay.p + i, needle, n) == 0) return true;
    }
    return false;
}

int vq_str_cmp(vq_str a, vq_str b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    int c = n ? memcmp(a.p, b.p, n) : 0;
    return c ? c : (a.n > b.n) - (a.n < b.n);
}

/* ---- numbers ---- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Decimal digits at *s, at least one; moves *s behind them. */
static bool get_digits(const char **s, uint64_t *out)
{
    uint64_t v = 0;
    if (!is_digit(**s)) return false;
    for (; is_digit(**s); ++*s) {
        uint64_t d = (uint64_t)(**s - '0');
        if (v > (UINT64_MAX - d) / 10) return false;
        v = v * 10 + d;
    }
    *out = v;
    return true;
}

bool vq_parse_u64(const char *s, uint64_t *out)
{
    uint64_t v;
    if (!get_digits(&s, &v) || *s) return false;
    *out = v;
    return true;
}

bool vq_parse_i64(const char *s, int64_t *out)
{
    bool minus = *s == '-';
    uint64_t v;
    if (!vq_parse_u64(s + minus, &v)) return false;
    if (v > (uint64_t)INT64_MAX + minus) return false;
    *out = minus ? (int64_t)(0 - v) : (int64_t)v;
    return true;
}

bool vq_parse_f64(const char *s, double *out)
{
    const char *p = s + (*s == '-' || *s == '+');
    int digits = 0;
    for (; is_digit(*p); p++) digits = 1;
    if (*p == '.') {
        for (p++; is_digit(*p); p++) digits = 1;
    }
    if (!digits) return false;
    if (*p == 'e' || *p == 'E') {
        p++;
        if (*p == '-' || *p == '+') p++;
        if (!is_digit(*p)) return false;
        while (is_digit(*p)) p++;
    }
    if (*p) return false;
    char *end;
    double v = strtod(s, &end);
    if (end != p || !isfinite(v)) return false;
    *out = v;
    return true;
}

bool vq_parse_size(const char *s, uint64_t *out)
{
    uint64_t v, part = 0, whole = 1;
    int shift = 0;
    if (!get_digits(&s, &v)) return false;
    if (*s == '.') { /* 1.5G; without a letter there are no parts */
        if (s[1] < '0' || s[1] > '9') return false;
        for (s++; *s >= '0' && *s <= '9'; s++) {
            if (whole >= 1000) continue;
            part = part * 10 + (uint64_t)(*s - '0');
            whole *= 10;
        }
    }
    switch (*s) {
    case 'K': case 'k': shift = 10; break;
    case 'M': case 'm': shift = 20; break;
    case 'G': case 'g': shift = 30; break;
    case 'T': case 't': shift = 40; break;
    default: break;
    }
    if (shift) s++;
    if (*s || v > UINT64_MAX >> shift) return false;
    if (!shift && whole > 1) return false;
    *out = v << shift;
    part = (part << shift) / whole;
    if (part > UINT64_MAX - *out) return false;
    *out += part;
    return true;
}

static const char *skip_blanks(const char *s)
{
    while (*s == ' ' || *s == '\t' || *s == '\n' || *s == '\r') s++;
    return s;
}

bool vq_parse_ids(const char *s, vq_ids *out)
{
    for (s = skip_blanks(s);;) {
        uint64_t v;
        if (!get_digits(&s, &v) || v > INT32_MAX || !vq_ids_add(out, (int32_t)v)) return false;
        const char *behind = s;
        s = skip_blanks(s);
        if (!*s) return true;
        if (*s == ',') s = skip_blanks(s + 1);
        else if (s == behind) return false; /* "12x" */
    }
}

void vq_fmt_size(char out[16], uint64_t bytes)
{
    static const char units[] = "kMGTPE";
    if (bytes < 1000) {
        snprintf(out, 16, "%u B", (unsigned)bytes % 1000);
        return;
    }
    double v = (double)bytes / 1000;
    size_t u = 0;
    while (v >= 999.95) v /= 1000, u++; /* 2^64 is 18.4 EB: u stops in time */
    unsigned tenths = (unsigned)(v * 10 + 0.5);
    snprintf(out, 16, "%u.%u %cB", tenths / 10 % 1000, tenths % 10, units[u]);
}

void vq_hex32(char out[65], const uint8_t hash[32])
{
    for (int i = 0; i < 32; i++) snprintf(out + 2 * i, 3, "%02x", hash[i]);
}

/* ---- ids ---- */

bool vq_ids_add_n(vq_ids *v, const int32_t *id, size_t n)
{
    if (n > SIZE_MAX - v->n || vq_grow(&v->v, &v->cap, v->n + n, sizeof *v->v)) return false;
    if (n) memcpy(v->v + v->n, id, n * sizeof *id);
    v->n += n;
    return true;
}

bool vq_ids_add(vq_ids *v, int32_t id)
{
    return vq_ids_add_n(v, &id, 1);
}

void vq_ids_clear(vq_ids *v)
{
    vq_free(v->v);
    *v = (vq_ids){ 0 };
}

/* ---- UTF-8 ---- */

/* Length of the sequence a lead byte announces, 0 for bytes that cannot lead, and the range of its
 * second byte: Unicode 15 table 3-7, where overlong forms, surrogates and values above U+10FFFF
 * are already impossible after two bytes. */
static int lead(unsigned char c, unsigned char *lo, unsigned char *hi)
{
    *lo = 0x80;
    *hi = 0xbf;
    if (c < 0x80) return 1;
    if (c < 0xc2) return 0;
    if (c < 0xe0) return 2;
    if (c < 0xf0) {
        if (c == 0xe0) *lo = 0xa0;
        if (c == 0xed) *hi = 0x9f;
        return 3;
    }
    if (c > 0xf4) return 0;
    if (c == 0xf0) *lo = 0x90;
    if (c == 0xf4) *hi = 0x8f;
    return 4;
}

/* How many bytes at p agree with the table, at most the announced length `len`. */
static int agreeing(const unsigned char *p, size_t n, int len, unsigned char lo, unsigned char hi)
{
    int i = 1;
    if (len > 1 && n > 1 && p[1] >= lo && p[1] <= hi) {
        for (i = 2; i < len && (size_t)i < n && (p[i] & 0xc0) == 0x80; i++) {}
    }
    return i;
}

int vq_utf8_get(const char *s, size_t n, uint32_t *cp)
{
    const unsigned char *p = (const unsigned char *)s;
    unsigned char lo, hi;
    int len = lead(p[0], &lo, &hi);
    if (len == 0 || (size_t)len > n || agreeing(p, n, len, lo, hi) < len) return 0;
    switch (len) {
    case 1: *cp = p[0]; break;
    case 2: *cp = (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu); break;
    case 3: *cp = (p[0] & 0x0fu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu); break;
    default:
        *cp = (p[0] & 0x07u) << 18 | (p[1] & 0x3fu) << 12 | (p[2] & 0x3fu) << 6 | (p[3] & 0x3fu);
    }
    return len;
}

int vq_utf8_put(char out[4], uint32_t cp)
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xc0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3f));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char)(0xe0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 0x3f));
        out[2] = (char)(0x80 | (cp & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 0x3f));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3f));
    out[3] = (char)(0x80 | (cp & 0x3f));
    return 4;
}

int vq_utf8_bad(const char *s, size_t n, bool *incomplete)
{
    const unsigned char *p = (const unsigned char *)s;
    unsigned char lo, hi;
    int len = lead(p[0], &lo, &hi);
    *incomplete = false;
    if (len < 2) return 1;
    int ok = agreeing(p, n, len, lo, hi);
    *incomplete = (size_t)ok == n && ok < len;
    return ok < 4 ? ok : 3;
}
