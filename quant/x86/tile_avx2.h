/* tile_avx2.h - one tile (8 rows x 64 k) times M tokens, exact, in ymm registers.
 *
 * Half a T16 line is one register: 8 rows of 4 k.  maddubs multiplies unsigned weights by signed
 * activations into int16 pairs.  Codes biased to 0..63 let two of them add up in 16 bits,
 * |2 * 2 * 63 * 127| = 32004, and the madd that widens to 32 bits multiplies by the int16 sub-scale
 * instead of by one: scales are free.  The bias is taken back once per tile from nsum:
 *   z = sum s * (biased sum) + sum (2 s) * (16 nsum),   |16 * nsum| <= 16 * 2032 fits int16.
 * N5 is biased to 0..127, so each maddubs has its own madd; its bias of 64 makes the second sum
 * that of (4 s) * (16 nsum).  L8 has no room for a bias: |w| and the activation with w's sign,
 * 2 * 127 * 127 per pair. */
#ifndef QUANT_X86_TILE_AVX2_H
#define QUANT_X86_TILE_AVX2_H

#include "quant/x86/tile.h"

enum { TILE_M = 8 }; /* most tokens that share one unpacking */

typedef struct luts { __m256i t[2]; } luts; /* of 16 codes each */

/* 16 values of a grid, plus a bias. */
Q_INLINE __m256i lut(const int8_t *g, int bias)
{
    const __m128i v = _mm_add_epi8(_mm_loadu_si128((const __m128i *)g), _mm_set1_epi8((char)bias));
    return _mm256_broadcastsi128_si256(v);
}

/* Grid of an N format, biased to 0..60 or 0..127, or as it is. */
Q_INLINE luts luts_of(const int type, const bool biased)
{
    const int bias = biased ? 1 << bias_shift(type) : 0;
    if (type == Q_N5) return (luts){ { lut(q_grid_n5, bias), lut(q_grid_n5 + 16, bias) } };
    return (luts){ { lut(q_grid_n4, bias) } };
}

Q_INLINE __m256i load_line(const uint8_t *p, int line)
{
    return _mm256_load_si256((const __m256i *)(p + 64 * line));
}

/* Codes of chunk c (4 k) of a 32 k block for 8 rows: as in the luts, biased for L6, signed for L8.
 * p: the block in the low (or only) plane, p2: in the high plane, both at these 8 rows. */
Q_INLINE __m256i chunk_8(const int type, const uint8_t *p, const uint8_t *p2, const int c,
                         const luts *g)
{
    if (type == Q_L8) return load_line(p, c);
    __m256i x = load_line(p, c & 3);
    if (c >= 4) x = _mm256_srli_epi16(x, 4);
    x = _mm256_and_si256(x, _mm256_set1_epi8(15));
    if (type == Q_N5) { /* bit c, moved to where blendv looks */
        const __m256i y = _mm256_slli_epi16(load_line(p2, 0), 7 - c);
        return _mm256_blendv_epi8(_mm256_shuffle_epi8(g->t[0], x), _mm256_shuffle_epi8(g->t[1], x),
                                  y);
    }
    if (type != Q_L6) return _mm256_shuffle_epi8(g->t[0], x);
    __m256i y = load_line(p2, c & 1); /* bits 2(c/2).. of line c & 1 */
    if (c < 4) y = _mm256_slli_epi16(y, c < 2 ? 4 : 2);
    else if (c >= 6) y = _mm256_srli_epi16(y, 2);
    return _mm256_or_si256(x, _mm256_and_si256(y, _mm256_set1_epi8(0x30)));
}

/* The points of a type of pairs in tables of 16. */
typedef struct point_luts { __m256i x[4], y[4]; } point_luts;

Q_INLINE point_luts point_luts_of(const int type)
{
    const int n = type == Q_P6 ? 64 : 32;
    const int8_t *p = type == Q_P6 ? q_points_p6[0] : q_points_p5[0];
    point_luts g;
    Q_UNROLL
    for (int i = 0; i < n / 16; i++) {
        g.x[i] = lut(p + 16 * i, 0);
        g.y[i] = lut(p + n + 16 * i, 0);
    }
    return g;
}

/* One coordinate of points: four low bits of the index in x, the higher ones where blendv looks. */
Q_INLINE __m256i look_up(const int type, const __m256i *t, __m256i x, __m256i bit4, __m256i bit5)
{
    const __m256i a = _mm256_blendv_epi8(_mm256_shuffle_epi8(t[0], x), _mm256_shuffle_epi8(t[1], x),
                                         bit4);
    if (type == Q_P5) return a;
    const __m256i b = _mm256_blendv_epi8(_mm256_shuffle_epi8(t[2], x), _mm256_shuffle_epi8(t[3], x),
                                         bit4);
    return _mm256_blendv_epi8(a, b, bit5);
}

/* Codes of chunks 2j and 2j + 1 of 64 k for 8 rows.  p: the planes of these 64 k at these
 * rows. */
Q_INLINE void points_8(const int type, __m256i w[2], const uint8_t *p, const int j,
                       const point_luts *g)
{
    __m256i x = load_line(p, j & 3), bit4, bit5 = _mm256_setzero_si256();
    if (j >= 4) x = _mm256_srli_epi16(x, 4);
    x = _mm256_and_si256(x, _mm256_set1_epi8(15));
    if (type == Q_P5) {
        bit4 = _mm256_slli_epi16(load_line(p + 256, 0), 7 - j);
    } else {
        const __m256i y = load_line(p + 256, j & 1);
        bit4 = _mm256_slli_epi16(y, 7 - (j & 6));
        bit5 = _mm256_slli_epi16(y, 6 - (j & 6));
    }
    const __m256i u = look_up(type, g->x, x, bit4, bit5), v = look_up(type, g->y, x, bit4, bit5);
    w[0] = _mm256_unpacklo_epi8(u, v);
    w[1] = _mm256_unpackhi_epi8(u, v);
}

/* All 16 chunks, `step` bytes from each other. */
Q_INLINE void unpack_points(const int type, int8_t *code, size_t step, const uint8_t *p)
{
    const point_luts g = point_luts_of(type);
    Q_UNROLL
    for (int j = 0; j < 8; j++) {
        __m256i w[2];
        points_8(type, w, p, j, &g);
        _mm256_store_si256((__m256i *)(code + step * (size_t)(2 * j)), w[0]);
        _mm256_store_si256((__m256i *)(code + step * (size_t)(2 * j + 1)), w[1]);
    }
}

/* Sub-scales of 8 rows, each as an equal pair of int16. */
Q_INLINE __m256i scale_pairs(const int8_t *s8)
{
    const __m256i twice = _mm256_setr_epi8(0, 1, 0, 1, 4, 5, 4, 5, 8, 9, 8, 9, 12, 13, 12, 13,
                                           0, 1, 0, 1, 4, 5, 4, 5, 8, 9, 8, 9, 12, 13, 12, 13);
    return _mm256_shuffle_epi8(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)s8)), twice);
}

/* What takes the bias back: bias / 16 times the sub-scales of two sub-blocks, rows as int16 pairs
 * (first, second). */
Q_INLINE __m256i scale_back(const int type, const int8_t *first, const int8_t *second)
{
    const __m128i x = _mm_unpacklo_epi8(_mm_loadl_epi64((const __m128i *)first),
                                        _mm_loadl_epi64((const __m128i *)second));
    return _mm256_slli_epi16(_mm256_cvtepi8_epi16(x), bias_shift(type) - 4);
}

/* Four bytes in every lane.  As a float broadcast: it is one load, where gcc takes an integer
 * through a general register and runs out of those. */
Q_INLINE __m256i broadcast4(const void *p)
{
    return _mm256_castps_si256(_mm256_broadcast_ss(p));
}

/* 16 nsum of one token's tile as two int16 pairs: what tile_z8 wants as `off`. */
Q_INLINE void pack_off(int32_t off[2], const int32_t nsum[4])
{
    const __m128i x = _mm_slli_epi32(_mm_loadu_si128((const __m128i *)nsum), 4);
    _mm_storel_epi64((__m128i *)off, _mm_packs_epi32(x, x));
}

/* Adds chunks c, c + 1 (one sub-block) of M tokens, times the sub-scales e, to z. */
Q_INLINE void add_chunks(const int type, const int M, __m256i z[TILE_M], __m256i w0, __m256i w1,
                         const int8_t *q, __m256i e)
{
    const __m256i u0 = _mm256_abs_epi8(w0), u1 = _mm256_abs_epi8(w1); /* L8 only */
    Q_UNROLL
    for (int m = 0; m < M; m++) {
        const __m256i a0 = broadcast4(q + 64 * m), a1 = broadcast4(q + 64 * m + 4);
        if (type == Q_L8) {
            const __m256i v0 = _mm256_maddubs_epi16(u0, _mm256_sign_epi8(a0, w0));
            const __m256i v1 = _mm256_maddubs_epi16(u1, _mm256_sign_epi8(a1, w1));
            z[m] = _mm256_add_epi32(z[m], _mm256_madd_epi16(v0, e));
            z[m] = _mm256_add_epi32(z[m], _mm256_madd_epi16(v1, e));
        } else if (type == Q_N5) {
            const __m256i v0 = _mm256_maddubs_epi16(w0, a0), v1 = _mm256_maddubs_epi16(w1, a1);
            z[m] = _mm256_add_epi32(z[m], _mm256_madd_epi16(v0, e));
            z[m] = _mm256_add_epi32(z[m], _mm256_madd_epi16(v1, e));
        } else {
            const __m256i v = _mm256_add_epi16(_mm256_maddubs_epi16(w0, a0),
                                               _mm256_maddubs_epi16(w1, a1));
            z[m] = _mm256_add_epi32(z[m], _mm256_madd_epi16(v, e));
        }
        __asm__("" : "+x"(z[m])); /* keep the order: gcc would sum in a tree and spill */
    }
}

/* z[0..M) of 8 rows of one tile.  s8: their sub-scales in its lines of 16 (four; two for N4s, one
 * per 32 k); p: the planes of these 64 k at these rows; q, off (2 per token): the tile of the first
 * token.  Both nibbles of a line are used before the next line: few registers are live. */
Q_INLINE void tile_z8(const int type, const int M, __m256i z[TILE_M], const int8_t *s8,
                      const uint8_t *p, const int8_t *q, const int32_t *off, const luts *g)
{
    const bool wide = type == Q_N4S; /* two sub-blocks of 16 k share a sub-scale */
    if (type == Q_L8) {
        Q_UNROLL
        for (int m = 0; m < M; m++) z[m] = _mm256_setzero_si256();
    } else {
        const __m256i e01 = scale_back(type, s8, wide ? s8 : s8 + 16);
        const __m256i e23 = wide ? scale_back(type, s8 + 16, s8 + 16)
                                 : scale_back(type, s8 + 32, s8 + 48);
        Q_UNROLL
        for (int m = 0; m < M; m++)
            z[m] = _mm256_add_epi32(_mm256_madd_epi16(e01, broadcast4(off + 2 * m)),
                                    _mm256_madd_epi16(e23, broadcast4(off + 2 * m + 1)));
    }
    const uint8_t *p2 = p + 512;
    for (int b = 0, nb = opaque(2); b < nb; b++) {
        const __m256i e0 = scale_pairs(s8), e1 = wide ? e0 : scale_pairs(s8 + 16);
        Q_UNROLL
        for (int c = 0; c < 4; c += 2) {
            add_chunks(type, M, z, chunk_8(type, p, p2, c, g), chunk_8(type, p, p2, c + 1, g),
                       q + 4 * c, e0);
            add_chunks(type, M, z, chunk_8(type, p, p2, c + 4, g),
                       chunk_8(type, p, p2, c + 5, g), q + 4 * c + 16, e1);
        }
        s8 += wide ? 16 : 32;
        p += type == Q_L8 ? 512 : 256;
        p2 += type == Q_N5 ? 64 : 128;
        q += 32;
    }
}

#endif
