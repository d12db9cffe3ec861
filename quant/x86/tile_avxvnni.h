/* tile_avxvnni.h - one tile (8 rows x 64 k) times M tokens, exact, with vpdpbusd on ymm registers.
 *
 * Half a T16 line is one register: 8 rows of 4 k.  Codes enter unsigned with the bias of
 * tile_avx2.h and each accumulator starts at -bias * sum of its activations.
 *
 * Sub-scales are applied in float without converting first: an accumulator that also starts at the
 * bits of 1.5 * 2^23 is, read as a float, 1.5 * 2^23 + i for every |i| < 2^22, and
 *   fma(1.5 * 2^23 + i, s, -1.5 * 2^23 * s) = i * s
 * exactly while |i * s| < 2^24: one operation instead of two.  Bounds: N4 and L6 have
 * |i| <= 16 * 32 * 127 = 65024, two of them times 127 add to 16,516,096 < 2^24, so pairs are exact
 * and the one addition of two pairs rounds the true sum once, as the conversion of an int32 would.
 * N4s: |i| <= 130048, one product each.  Sums of L8 and N5 are too large for that: vpmulld. */
#ifndef QUANT_X86_TILE_AVXVNNI_H
#define QUANT_X86_TILE_AVXVNNI_H

#include "quant/x86/tile_avx2.h"

enum {
    BLOCK_M = 4,             /* tokens of a block: three sums each and operands fill 16 ymm */
    MAGIC_BITS = 0x4B400000  /* of 1.5 * 2^23 */
};

/* An unpacked tile of 8 rows; `back` is -1.5 * 2^23 * scale, unused by L8 and N5, whose scale is
 * int32. */
typedef struct half_tile {
    uint8_t code[16][32]; /* biased, line = chunk */
    float scale[4][8], back[4][8];
} half_tile;

/* From where a tile comes: unpacked, or as it lies in the matrix at these 8 rows. */
typedef struct tile_src {
    const half_tile *ready;
    const int8_t *s8;     /* sub-scale lines of 16 */
    const uint8_t *p;     /* planes of these 64 k */
    const luts *g;
} tile_src;

Q_INLINE __m256i code_at(const int type, const bool ready, const tile_src *t, const int s,
                         const int j)
{
    if (ready) return _mm256_load_si256((const __m256i *)t->ready->code[4 * s + j]);
    const int b = s >> 1;
    if (type == Q_L8)
        return _mm256_xor_si256(load_line(t->p, 4 * s + j), _mm256_set1_epi8(-128));
    return chunk_8(type, t->p + 256 * b, t->p + 512 + (type == Q_N5 ? 64 : 128) * b,
                   j + 4 * (s & 1), t->g);
}

/* Sub-scales of 8 rows as int32. */
Q_INLINE __m256i scales_i(const int8_t *s8)
{
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)s8));
}

/* v = (float)z of one tile for M tokens.  q: the tile of the first token, 64 bytes each; start:
 * (M, 4), see make_start. */
Q_INLINE void tile_f8(const int type, const bool ready, const int M, __m256 v[BLOCK_M],
                      const tile_src *t, const int8_t *q, const int32_t *start)
{
    const bool wide = type == Q_N4S; /* two sub-blocks of 16 k share a sub-scale */
    const __m256 minus = _mm256_set1_ps(-12582912.0f);
    __m256i acc[BLOCK_M], z[BLOCK_M];
    __m256 pair[BLOCK_M];
    Q_UNROLL
    for (int s = 0; s < 4; s++) {
        if (!wide || !(s & 1)) {
            Q_UNROLL
            for (int m = 0; m < M; m++) acc[m] = broadcast4(start + 4 * m + s);
        }
        Q_UNROLL
        for (int j = 0; j < 4; j++) {
            const __m256i w = code_at(type, ready, t, s, j);
            Q_UNROLL
            for (int m = 0; m < M; m++) {
                const __m256i a = broadcast4(q + 64 * m + 16 * s + 4 * j);
                acc[m] = _mm256_dpbusd_avx_epi32(acc[m], w, a);
                __asm__("" : "+x"(acc[m])); /* keep the order: few registers are live */
            }
        }
        if (wide && !(s & 1)) continue;
        const int line = wide ? s >> 1 : s;
        if (!float_scales(type)) {
            const __m256i e = ready ? _mm256_load_si256((const __m256i *)t->ready->scale[line])
                                    : scales_i(t->s8 + 16 * line);
            Q_UNROLL
            for (int m = 0; m < M; m++) {
                const __m256i x = _mm256_mullo_epi32(acc[m], e);
                z[m] = s ? _mm256_add_epi32(z[m], x) : x;
                __asm__("" : "+x"(z[m]));
            }
            continue;
        }
        const __m256 e = ready ? _mm256_load_ps(t->ready->scale[line])
                               : _mm256_cvtepi32_ps(scales_i(t->s8 + 16 * line));
        const __m256 back = ready ? _mm256_load_ps(t->ready->back[line]) : _mm256_mul_ps(e, minus);
        Q_UNROLL
        for (int m = 0; m < M; m++) {
            const __m256 x = _mm256_fmadd_ps(_mm256_castsi256_ps(acc[m]), e, back);
            if (wide) v[m] = s == 1 ? x : _mm256_add_ps(v[m], x);
            else if (!(s & 1)) pair[m] = x;
            else pair[m] = _mm256_add_ps(pair[m], x);
            if (!wide && s == 1) v[m] = pair[m];
            if (!wide && s == 3) v[m] = _mm256_add_ps(v[m], pair[m]);
        }
    }
    if (float_scales(type)) return;
    Q_UNROLL
    for (int m = 0; m < M; m++) v[m] = _mm256_cvtepi32_ps(z[m]);
}

/* Starting values of the accumulators of one token's tile: -bias * sum, with the bits of 1.5 * 2^23
 * where sub-scales are float.  Types with sub-scales of 32 k use the first and third. */
Q_INLINE void make_start(const int type, int32_t *start, const int32_t *nsum)
{
    const __m128i shift = _mm_cvtsi32_si128(bias_shift(type));
    __m128i x = _mm_sll_epi32(_mm_loadu_si128((const __m128i *)nsum), shift);
    if (halves_of(type) == 2) x = _mm_add_epi32(x, _mm_shuffle_epi32(x, 0xB1));
    if (float_scales(type)) x = _mm_add_epi32(x, _mm_set1_epi32(MAGIC_BITS));
    _mm_store_si128((__m128i *)start, x);
}

#endif
