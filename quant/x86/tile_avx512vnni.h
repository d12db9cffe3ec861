/* tile_avx512vnni.h - one tile (16 rows x 64 k) times M tokens, exact, in zmm registers.
 *
 * Shared by the matrix and the attention kernels.  A line of T16 is one register: 16 rows of 4 k;
 * vpdpbusd multiplies it by 4 activations broadcast from memory.  Its weight operand is unsigned,
 * so codes are taken with a bias (tile.h) and each accumulator starts at -bias * sum of its
 * activations, which q_acts carries as nsum: the result is the signed sum.
 * Bounds: |16 * 255 * 127| per accumulator, |z| as in quant.h: int32 never wraps. */
#ifndef QUANT_X86_TILE_AVX512VNNI_H
#define QUANT_X86_TILE_AVX512VNNI_H

#include "quant/x86/tile.h"

enum { TILE_M = 8 }; /* most tokens that share one unpacking: 3 registers each */

typedef struct luts { __m512i t[2]; } luts; /* of 16 codes each */

/* 16 values of a grid, biased. */
Q_INLINE __m512i lut(const int8_t *g, int bias)
{
    const __m128i v = _mm_add_epi8(_mm_loadu_si128((const __m128i *)g), _mm_set1_epi8((char)bias));
    return _mm512_broadcast_i32x4(v);
}

/* Grid of an N format with its bias: 0..60, or 0..127. */
Q_INLINE luts luts_of(const int type)
{
    if (type == Q_N5) return (luts){ { lut(q_grid_n5, 64), lut(q_grid_n5 + 16, 64) } };
    return (luts){ { lut(q_grid_n4, 32) } };
}

/* Line y of a plane of 1 or 2 bits, those of chunk c (0..7) moved to bit 4 of each byte. */
Q_INLINE __m512i to_bit4(const int bits, __m512i y, const int c)
{
    const int at = bits == 2 ? c & 6 : c;
    switch (at) { /* a shift wants a literal */
    case 0: return _mm512_slli_epi16(y, 4);
    case 1: return _mm512_slli_epi16(y, 3);
    case 2: return _mm512_slli_epi16(y, 2);
    case 3: return _mm512_slli_epi16(y, 1);
    case 5: return _mm512_srli_epi16(y, 1);
    case 6: return _mm512_srli_epi16(y, 2);
    case 7: return _mm512_srli_epi16(y, 3);
    default: return y;
    }
}

/* Biased codes of chunk j (4 k) of sub-block s (16 k); p: the planes of these 64 k. */
Q_INLINE __m512i chunk_u8(const int type, const uint8_t *p, const int s, const int j,
                           const luts *g)
{
    if (type == Q_L8)
        return _mm512_xor_si512(_mm512_load_si512(p + 64 * (4 * s + j)), _mm512_set1_epi8(-128));
    const int b = s >> 1, high = s & 1;
    __m512i x = _mm512_load_si512(p + 64 * (4 * b + j));
    if (high) x = _mm512_srli_epi16(x, 4);
    const __m512i low4 = _mm512_set1_epi8(15);
    const int c = j + 4 * high; /* chunk of the block */
    if (type == Q_N5) {
        const __mmask64 top = _mm512_test_epi8_mask(_mm512_load_si512(p + 512 + 64 * b),
                                                    _mm512_set1_epi8((char)(1 << c)));
        x = _mm512_and_si512(x, low4);
        return _mm512_mask_shuffle_epi8(_mm512_shuffle_epi8(g->t[0], x), top, g->t[1], x);
    }
    if (type != Q_L6) return _mm512_shuffle_epi8(g->t[0], _mm512_and_si512(x, low4));
    __m512i y = to_bit4(2, _mm512_load_si512(p + 512 + 64 * (2 * b + (c & 1))), c);
    y = _mm512_and_si512(y, _mm512_set1_epi8(0x30));
    return _mm512_ternarylogic_epi32(x, low4, y, 0xEA); /* (x & low4) | y */
}

/* Point numbers of chunks 2j and 2j + 1 of 64 k of pairs; bits above the number are not cleared.
 * p: the planes of these 64 k. */
Q_INLINE __m512i point_index(const int type, const uint8_t *p, const int j)
{
    __m512i x = _mm512_load_si512(p + 64 * (j & 3));
    if (j >= 4) x = _mm512_srli_epi16(x, 4);
    const int bits = type == Q_P6 ? 2 : 1;
    const __m512i y = to_bit4(bits, _mm512_load_si512(p + 256 + (bits == 2 ? 64 * (j & 1) : 0)), j);
    return _mm512_ternarylogic_epi32(_mm512_set1_epi8(15), x, y, 0xCA); /* low4 ? x : y */
}

/* Codes of these two chunks from the coordinates of their points. */
Q_INLINE void store_points(uint8_t *code, const int j, __m512i x, __m512i y)
{
    _mm512_store_si512(code + 128 * j, _mm512_unpacklo_epi8(x, y));
    _mm512_store_si512(code + 128 * j + 64, _mm512_unpackhi_epi8(x, y));
}

/* z[0..M) of one tile.  s8: its four sub-scale lines of 16 (two for N4s, one per 32 k); q, nsum:
 * the tile of the first token.  ahead: the planes are read from memory, as one stream.
 * The empty asm keeps compilers from what costs registers here: carrying a line from its low
 * nibbles to its high ones instead of loading it again, and summing in a tree. */
Q_INLINE void tile_z(const int type, const int M, __m512i z[TILE_M], const int8_t *s8,
                     const uint8_t *p, const int8_t *q, const int32_t *nsum, const luts *g,
                     const bool ahead)
{
    const bool wide = type == Q_N4S; /* two sub-blocks of 16 k share a sub-scale */
    __m512i acc[TILE_M];
    Q_UNROLL
    for (int s = 0; s < 4; s++) {
        __asm__("" : "+r"(p));
        if (!wide || !(s & 1)) {
            Q_UNROLL
            for (int m = 0; m < M; m++) {
                const int32_t *ns = nsum + 4 * m + s;
                acc[m] = _mm512_slli_epi32(_mm512_set1_epi32(wide ? ns[0] + ns[1] : ns[0]),
                                           (unsigned)bias_shift(type));
            }
        }
        Q_UNROLL
        for (int j = 0; j < 4; j++) {
            const int step = 4 * s + j;
            if (ahead && 64 * step < plane_bytes(type) + 64) ask_ahead(p + 64 * step);
            const __m512i w = chunk_u8(type, p, s, j, g);
            Q_UNROLL
            for (int m = 0; m < M; m++) {
                int32_t a;
                __builtin_memcpy(&a, q + 64 * m + 16 * s + 4 * j, sizeof a);
                acc[m] = _mm512_dpbusd_epi32(acc[m], w, _mm512_set1_epi32(a));
            }
        }
        if (wide && !(s & 1)) continue;
        const int line = wide ? s >> 1 : s;
        const __m512i e = _mm512_cvtepi8_epi32(_mm_load_si128((const __m128i *)(s8 + 16 * line)));
        Q_UNROLL
        for (int m = 0; m < M; m++) {
            const __m512i v = _mm512_mullo_epi32(acc[m], e);
            z[m] = line ? _mm512_add_epi32(z[m], v) : v;
            __asm__("" : "+v"(z[m]));
        }
    }
}

#endif
