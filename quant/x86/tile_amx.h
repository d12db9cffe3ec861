/* tile_amx.h - tiles of 64 k on AMX int8: unpacking and the product of 16 tokens by 16 rows.
 *
 * TDPBSSD multiplies 16 tokens x 64 k by 64 k x 16 rows of signed bytes in 16 cycles, eight times
 * what vpdpbusd does, but knows no sub-scales.  So the panel holds the exact 16-bit products
 * p = s * g, |p| <= 127 * 127, as two planes of bytes, p = 128 * hi + lo with hi = floor(p / 128)
 * in -127..126 and lo in 0..127, and z = 128 * z_hi + z_lo: |z_hi|, |z_lo| <= 64 * 127 * 127, exact
 * in int32.  A T16 line is a row of the B operand as it is, and a tile of q_acts the A operand.
 *
 * Every z is needed for itself (each 64 k have their own d), so results leave through memory: per
 * 16 x 16 of them 2 products, 32 stores, 96 loads and 64 vector operations.  Measured on Emerald
 * Rapids (2.6 GHz): products 12 ns, with loads and stores 17, vector part 13, all of it 30: the
 * vector units and the tile unit overlap only in part.  That is a quarter of what TDPBSSD does in
 * registers, and 1.6 times what vpdpbusd does there.
 * Tried and slower: storing a tile's results right behind its products (38 ns: the store waits for
 * them, and what follows for the store), reading results four or more tiles later (34 ns). */
#ifndef QUANT_X86_TILE_AMX_H
#define QUANT_X86_TILE_AMX_H

#include "quant/x86/tile_avx512vnni.h"

/* Tile registers: even and odd tiles of 64 k alternate, so that one is multiplied while the other
 * is stored.  Literals, because the intrinsics paste them into instructions. */
#define AMX_HI0 0
#define AMX_LO0 1
#define AMX_HI1 2
#define AMX_LO1 3
#define AMX_A 4
#define AMX_BH 5
#define AMX_BL 6

typedef struct amx_config { /* what LDTILECFG reads */
    uint8_t palette, start_row, zero[14];
    uint16_t bytes[16]; /* of a row */
    uint8_t rows[16];
} amx_config;

/* An unpacked tile of 16 rows: line = chunk of 4 k, as in T16. */
typedef struct amx_planes {
    int8_t hi[16 * 64], lo[16 * 64];
} amx_planes;

/* All tiles full. */
Q_INLINE void amx_begin(void)
{
    amx_config c = { .palette = 1 };
    for (int i = 0; i < 8; i++) {
        c.bytes[i] = 64;
        c.rows[i] = 16;
    }
    __asm__ volatile("" ::"r"(&c) : "memory"); /* gcc thinks that 8 bytes of it are read */
    _tile_loadconfig(&c);
}

Q_INLINE void amx_end(void) { _tile_release(); }

/* Stores before are seen by tile loads after, which compilers do not know to read memory. */
Q_INLINE void amx_fence(void) { __asm__ volatile("" ::: "memory"); }

/* The products of one line: biased codes u, s and -bias * s of their rows in every byte pair. */
Q_INLINE void amx_line(int8_t *hi, int8_t *lo, __m512i u, __m512i even, __m512i odd, __m512i back)
{
    const __m512i low = _mm512_set1_epi16(0xff), low7 = _mm512_set1_epi8(127);
    const __m512i e = _mm512_add_epi16(_mm512_maddubs_epi16(u, even), back);
    const __m512i o = _mm512_add_epi16(_mm512_maddubs_epi16(u, odd), back);
    /* 0xCA: the first where the mask has ones, else the second. */
    const __m512i l = _mm512_ternarylogic_epi32(low, e, _mm512_slli_epi16(o, 8), 0xCA);
    const __m512i h = _mm512_ternarylogic_epi32(low, _mm512_srai_epi16(e, 7),
                                                _mm512_slli_epi16(o, 1), 0xCA);
    _mm512_store_si512(hi, h);
    _mm512_store_si512(lo, _mm512_and_si512(l, low7));
}

/* One tile of 64 k.  s8: its sub-scale lines of 16; planes: of these 64 k, of pairs their biased
 * codes in lines. */
Q_INLINE void amx_unpack(const int type, amx_planes *o, const int8_t *s8, const uint8_t *planes,
                         const luts *g)
{
    const bool wide = halves_of(type) == 2;
    const __m512i bias = _mm512_set1_epi16((int16_t)-(1 << bias_shift(type)));
    Q_UNROLL
    for (int s = 0; s < 4; s++) {
        const int line = wide ? s >> 1 : s;
        const __m512i e = _mm512_cvtepi8_epi32(_mm_load_si128((const __m128i *)(s8 + 16 * line)));
        const __m512i words = _mm512_or_si512(_mm512_slli_epi32(e, 16),
                                              _mm512_and_si512(e, _mm512_set1_epi32(0xffff)));
        const __m512i even = _mm512_and_si512(words, _mm512_set1_epi16(0xff));
        const __m512i odd = _mm512_slli_epi16(words, 8);
        const __m512i back = _mm512_mullo_epi16(words, bias);
        Q_UNROLL
        for (int j = 0; j < 4; j++) {
            const int c = 4 * s + j;
            const __m512i u = has_pairs(type) ? _mm512_load_si512(planes + 64 * c)
                                              : chunk_u8(type, planes, s, j, g);
            amx_line(o->hi + 64 * c, o->lo + 64 * c, u, even, odd, back);
        }
    }
}

/* Results of one tile of 64 k in memory. */
typedef struct amx_results {
    int32_t hi[16][16], lo[16][16]; /* [token][row] */
} amx_results;

/* (float)z of all rows for token m. */
Q_INLINE __m512 amx_z(const amx_results *r, const int m)
{
    const __m512i hi = _mm512_slli_epi32(_mm512_load_si512(r->hi[m]), 7);
    return _mm512_cvtepi32_ps(_mm512_add_epi32(hi, _mm512_load_si512(r->lo[m])));
}

/* Products of the tokens at q, 64 bytes each, with the planes b, into registers HI and LO. */
#define AMX_MULTIPLY(HI, LO, q, b) \
    do { \
        _tile_zero(HI); \
        _tile_loadd(AMX_A, q, 64); \
        _tile_loadd(AMX_BH, (b)->hi, 64); \
        _tile_dpbssd(HI, AMX_A, AMX_BH); \
        _tile_zero(LO); \
        _tile_loadd(AMX_BL, (b)->lo, 64); \
        _tile_dpbssd(LO, AMX_A, AMX_BL); \
    } while (0)

#define AMX_STORE(r, HI, LO) \
    do { \
        _tile_stored(HI, (r)->hi, 64); \
        _tile_stored(LO, (r)->lo, 64); \
    } while (0)

#endif
