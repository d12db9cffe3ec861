/* str.h - growing byte buffers, number parsing and UTF-8, none of it dependent on the locale. */
#ifndef CORE_BASE_STR_H
#define CORE_BASE_STR_H

#include "core/base/err.h"
#include "core/base/types.h"

#include <stdbool.h>

/* A byte buffer that always keeps a terminator behind its n bytes (so .p is a C string as long as
 * the content has no NUL).  When memory runs out `oom` is set, further appends do nothing, and the
 * caller checks once at the end.  {0} is an empty one; vq_buf_clear frees. */
typedef struct vq_buf {
    char *p;
    size_t n, cap;
    bool oom;
} vq_buf;

void vq_buf_clear(vq_buf *b);
void vq_buf_reset(vq_buf *b);                            /* n = 0, keeps the memory */
void vq_buf_add(vq_buf *b, const void *p, size_t n);
void vq_buf_str(vq_buf *b, const char *s);
void vq_buf_char(vq_buf *b, char c);
void vq_buf_printf(vq_buf *b, const char *fmt, ...) VQ_PRINTF(2, 3);
/* "escaped"; invalid UTF-8 becomes U+FFFD */
void vq_buf_json(vq_buf *b, const char *p, size_t n);

vq_str vq_str_c(const char *s);                          /* NULL stays absent */
bool vq_str_eq(vq_str a, const char *b);
bool vq_str_has(vq_str hay, const char *needle);
int vq_str_cmp(vq_str a, vq_str b);                      /* bytewise */

/* Whole-string parsers: true only when all of s was a number in range. */
bool vq_parse_i64(const char *s, int64_t *out);
bool vq_parse_u64(const char *s, uint64_t *out);
/* Decimal, "." only, finite; correctly rounded */
bool vq_parse_f64(const char *s, double *out);
bool vq_parse_size(const char *s, uint64_t *out);        /* 5G, 512M, 4096: binary K M G T */
/* "1,2,3" or blanks between; may leave *out half filled on false */
bool vq_parse_ids(const char *s, vq_ids *out);
void vq_fmt_size(char out[16], uint64_t bytes);          /* "3.6 GB" style, decimal units */
void vq_hex32(char out[65], const uint8_t hash[32]);     /* lower case */

bool vq_ids_add(vq_ids *v, int32_t id);                  /* false: out of memory */
bool vq_ids_add_n(vq_ids *v, const int32_t *id, size_t n);
void vq_ids_clear(vq_ids *v);

/* Decodes one code point at p (n >= 1 bytes left).  Returns its length 1..4 and the value in *cp;
 * 0 when the bytes are not UTF-8 (overlong, surrogate, > U+10FFFF, cut). */
int vq_utf8_get(const char *p, size_t n, uint32_t *cp);
int vq_utf8_put(char out[4], uint32_t cp);               /* length; cp must be a scalar value */
/* How many bytes at the start of p form the maximal subpart of an ill-formed sequence (Unicode
 * 15 section 3.9, table 3-8): 1..3.  *incomplete is set when more bytes could complete it. */
int vq_utf8_bad(const char *p, size_t n, bool *incomplete);

#endif
