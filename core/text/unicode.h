/* unicode.h - the few facts of Unicode 15.0 that tokenizers need: five major classes, white space,
 * and NFC as tokenizers of Hugging Face have it (Unicode 9.0: marks that came later stay where they
 * are).  The tables are generated (tests/tools/gen_unicode.py) and read-only. */
#ifndef CORE_TEXT_UNICODE_H
#define CORE_TEXT_UNICODE_H

#include "core/base/str.h"

/* General_Category by its first letter; white space is the property, whatever the category.  No
 * code point of White_Space is a letter, mark, number, punctuation or symbol: one value serves. */
typedef enum vq_uclass {
    VQ_U_OTHER = 0,
    VQ_U_L = 1,
    VQ_U_M = 2,
    VQ_U_N = 3,
    VQ_U_P = 4,
    VQ_U_S = 5,
    VQ_U_SPACE = 6
} vq_uclass;

/* Beside the class: NFC may change this code point or move it.  A code point without the flag has
 * combining class 0, never composes with what precedes it, and stays itself. */
enum { VQ_U_NFC = 8 };

typedef struct vq_u_decomp {
    uint32_t cp, a, b; /* cp = a b, canonically; b = 0: a alone */
} vq_u_decomp;
typedef struct vq_u_ccc {
    uint32_t first, last;
    uint8_t ccc;
} vq_u_ccc;

/* The tables stop behind CJK extension H; above, the variation selectors are marks and the rest is
 * other. */
enum { VQ_U_TABLE_END = 0x32400 };
extern const uint8_t vq_u_index[VQ_U_TABLE_END / 128]; /* block of 128 -> its pattern's number */
extern const uint8_t vq_u_nibbles[];        /* (patterns, 64): class | VQ_U_NFC, low nibble first */
extern const uint32_t vq_u_n_decomp, vq_u_n_pair, vq_u_n_ccc;
extern const vq_u_decomp vq_u_decomps[];    /* (n_decomp), by cp */
extern const uint16_t vq_u_pairs[];         /* (n_pair) indices of primary composites, by (a, b) */
extern const vq_u_ccc vq_u_cccs[];          /* (n_ccc), by first */

/* cp must be <= U+10FFFF. */
static inline unsigned vq_u_bits(uint32_t cp)
{
    if (cp >= VQ_U_TABLE_END) return cp - 0xe0100 < 0xf0 ? VQ_U_M : VQ_U_OTHER;
    return vq_u_nibbles[vq_u_index[cp >> 7] * 64u + (cp >> 1 & 63)] >> (cp & 1) * 4 & 15;
}
static inline vq_uclass vq_u_class(uint32_t cp) { return (vq_uclass)(vq_u_bits(cp) & 7); }

/* Decodes at p, which must hold valid UTF-8 (see vq_utf8_clean); returns the length. */
static inline int vq_u_get(const char *p, uint32_t *cp)
{
    const unsigned char *s = (const unsigned char *)p;
    if (s[0] < 0x80) return *cp = s[0], 1;
    if (s[0] < 0xe0) return *cp = (s[0] & 31u) << 6 | (s[1] & 63u), 2;
    if (s[0] < 0xf0) return *cp = (s[0] & 15u) << 12 | (s[1] & 63u) << 6 | (s[2] & 63u), 3;
    return *cp = (s[0] & 7u) << 18 | (s[1] & 63u) << 12 | (s[2] & 63u) << 6 | (s[3] & 63u), 4;
}

/* Is s already UTF-8?  clean appends it with U+FFFD for every maximal ill-formed subpart. */
bool vq_utf8_valid(const char *s, size_t n);
void vq_utf8_clean(const char *s, size_t n, vq_buf *out);

/* NFC of valid UTF-8.  needed: false when s is known to be in NFC already (true is no promise).
 * nfc appends the normal form; false: out of memory. */
bool vq_nfc_needed(const char *s, size_t n);
bool vq_nfc(const char *s, size_t n, vq_buf *out);

#endif
