/* v16.h - sixteen 32-bit lanes as one value, on AVX-512 (one register) and AVX2 (a pair).
 *
 * exact.md sums vectors in 16 lanes, rows come in groups of 16 and sub-blocks are 16 k long: with a
 * type of 16 lanes the vector and attention bodies (vec_body.h, attn_body.h) are written once and
 * compiled per ISA, each file with its own flags.  Nothing here rounds except the IEEE operation it
 * is named after; v16_exp is the one of exact.md 2.
 *
 * _n loads and stores touch only the first n lanes (0..16); lanes not loaded are +0. */
#ifndef QUANT_X86_V16_H
#define QUANT_X86_V16_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#define Q_INLINE static inline __attribute__((always_inline))

/* Unroll the next loop wholly, so that arrays indexed by it become registers. */
#if defined(__clang__)
#define Q_UNROLL _Pragma("clang loop unroll(full)")
#else
#define Q_UNROLL _Pragma("GCC unroll 16")
#endif

/* Asks for the line that a stream of weights reaches soon, for loops whose speed is memory's.  The
 * hardware prefetcher stops at page borders, so each line is called to the second level two pages
 * ahead; called to the first level from there it would hold one of few fill buffers all the way
 * from memory, so that follows half a page ahead.  N4 on Emerald Rapids, share of a bare read on
 * one core and on two: 60 and 56 % without, 85 and 85 % straight to the first level, 98 and 97 %
 * so.  (Zen 5 was measured with the first level alone: 34 GB/s without, 41 from one page ahead, 45
 * from two.) */
Q_INLINE void ask_ahead(const void *p)
{
    _mm_prefetch((const char *)p + 8192, _MM_HINT_T1);
    _mm_prefetch((const char *)p + 2048, _MM_HINT_T0);
}

/* Of `left` tokens, how many share the unpacking of weights next: 1, 2, 3, 4 or 8.  Code for 5 to 7
 * would be half of all code of the products; 4 and the rest unpack once more from the cache. */
Q_INLINE int share_of(int left) { return left >= 8 ? 8 : left > 4 ? 4 : left; }

/* n, but unknown to the compiler: a loop to opaque(2) stays a loop and its code is there once. */
Q_INLINE int opaque(int n)
{
    __asm__("" : "+r"(n));
    return n;
}

#if defined(__AVX512F__)

typedef struct v16f { __m512 v; } v16f;
typedef struct v16i { __m512i v; } v16i;

Q_INLINE __mmask16 v16_first(int n) { return (__mmask16)((1u << n) - 1u); }

Q_INLINE v16f v16_load(const float *p) { return (v16f){ _mm512_loadu_ps(p) }; }
Q_INLINE v16f v16_load_n(const float *p, int n)
{
    return (v16f){ _mm512_maskz_loadu_ps(v16_first(n), p) };
}
Q_INLINE void v16_store(float *p, v16f x) { _mm512_storeu_ps(p, x.v); }
Q_INLINE void v16_store_n(float *p, v16f x, int n) { _mm512_mask_storeu_ps(p, v16_first(n), x.v); }
Q_INLINE v16f v16_set1(float x) { return (v16f){ _mm512_set1_ps(x) }; }
Q_INLINE v16f v16_zero(void) { return (v16f){ _mm512_setzero_ps() }; }
/* Lanes 0..n-1 of x, +0 behind them. */
Q_INLINE v16f v16_keep(v16f x, int n) { return (v16f){ _mm512_maskz_mov_ps(v16_first(n), x.v) }; }
/* Lanes 0..n-1 of x, y behind them. */
Q_INLINE v16f v16_first_of(v16f x, v16f y, int n)
{
    return (v16f){ _mm512_mask_mov_ps(y.v, v16_first(n), x.v) };
}

Q_INLINE v16f v16_add(v16f a, v16f b) { return (v16f){ _mm512_add_ps(a.v, b.v) }; }
Q_INLINE v16f v16_sub(v16f a, v16f b) { return (v16f){ _mm512_sub_ps(a.v, b.v) }; }
Q_INLINE v16f v16_mul(v16f a, v16f b) { return (v16f){ _mm512_mul_ps(a.v, b.v) }; }
Q_INLINE v16f v16_div(v16f a, v16f b) { return (v16f){ _mm512_div_ps(a.v, b.v) }; }
Q_INLINE v16f v16_fma(v16f a, v16f b, v16f c) { return (v16f){ _mm512_fmadd_ps(a.v, b.v, c.v) }; }
Q_INLINE v16f v16_max(v16f a, v16f b) { return (v16f){ _mm512_max_ps(a.v, b.v) }; }
/* The sign of each lane turned where sign has its top bit. */
Q_INLINE v16f v16_flip(v16f x, v16f sign) { return (v16f){ _mm512_xor_ps(x.v, sign.v) }; }
/* The two neighbours of each pair exchanged. */
Q_INLINE v16f v16_swap_pairs(v16f x) { return (v16f){ _mm512_permute_ps(x.v, 0xB1) }; }

Q_INLINE v16f v16_load_bf16(const uint16_t *p)
{
    const __m512i x = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return (v16f){ _mm512_castsi512_ps(_mm512_slli_epi32(x, 16)) };
}

Q_INLINE v16i v16i_load(const void *p) { return (v16i){ _mm512_loadu_si512(p) }; }
Q_INLINE v16i v16i_set1(int32_t x) { return (v16i){ _mm512_set1_epi32(x) }; }
Q_INLINE v16i v16i_add(v16i a, v16i b) { return (v16i){ _mm512_add_epi32(a.v, b.v) }; }
Q_INLINE v16i v16i_sub(v16i a, v16i b) { return (v16i){ _mm512_sub_epi32(a.v, b.v) }; }
Q_INLINE v16i v16i_mul(v16i a, v16i b) { return (v16i){ _mm512_mullo_epi32(a.v, b.v) }; }
Q_INLINE v16i v16i_shr24(v16i a) { return (v16i){ _mm512_srli_epi32(a.v, 24) }; }
Q_INLINE v16i v16i_shr16(v16i a) { return (v16i){ _mm512_srli_epi32(a.v, 16) }; }
Q_INLINE v16i v16i_and(v16i a, v16i b) { return (v16i){ _mm512_and_si512(a.v, b.v) }; }
Q_INLINE v16i v16_bits(v16f x) { return (v16i){ _mm512_castps_si512(x.v) }; }
Q_INLINE v16i v16i_maxu(v16i a, v16i b) { return (v16i){ _mm512_max_epu32(a.v, b.v) }; }
Q_INLINE v16i v16i_clamp(v16i a, v16i lo, v16i hi)
{
    return (v16i){ _mm512_min_epi32(_mm512_max_epi32(a.v, lo.v), hi.v) };
}
Q_INLINE v16i v16_abs_bits(v16f x)
{
    return (v16i){ _mm512_and_si512(_mm512_castps_si512(x.v), _mm512_set1_epi32(0x7fffffff)) };
}
Q_INLINE v16i v16_rne(v16f x) { return (v16i){ _mm512_cvtps_epi32(x.v) }; }
Q_INLINE v16f v16_float(v16i x) { return (v16f){ _mm512_cvtepi32_ps(x.v) }; }
/* x's bits + n * 2^23: x times 2^n while the result is normal. */
Q_INLINE v16f v16_scale(v16f x, v16i n)
{
    return (v16f){ _mm512_castsi512_ps(
        _mm512_add_epi32(_mm512_castps_si512(x.v), _mm512_slli_epi32(n.v, 23))) };
}
/* y where x < lo, z where x > hi, else p. */
Q_INLINE v16f v16_outside(v16f p, v16f x, float lo, float y, float hi, float z)
{
    const __mmask16 below = _mm512_cmp_ps_mask(x.v, _mm512_set1_ps(lo), _CMP_LT_OQ);
    const __mmask16 above = _mm512_cmp_ps_mask(x.v, _mm512_set1_ps(hi), _CMP_GT_OQ);
    p.v = _mm512_mask_mov_ps(p.v, below, _mm512_set1_ps(y));
    return (v16f){ _mm512_mask_mov_ps(p.v, above, _mm512_set1_ps(z)) };
}
/* Lanes where a > b take x, else y; the same for integers chosen by the float comparison. */
Q_INLINE v16i v16_where_gt(v16f a, v16f b, v16i x, v16i y)
{
    return (v16i){ _mm512_mask_mov_epi32(y.v, _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ), x.v) };
}

/* A bit per lane with lo <= x < hi. */
Q_INLINE uint32_t v16_within(v16f x, v16f lo, v16f hi)
{
    return _mm512_cmp_ps_mask(x.v, lo.v, _CMP_GE_OQ) & _mm512_cmp_ps_mask(x.v, hi.v, _CMP_LT_OQ);
}

Q_INLINE __m256 v16_low(v16f x) { return _mm512_castps512_ps256(x.v); }
Q_INLINE __m256 v16_high(v16f x) { return _mm512_extractf32x8_ps(x.v, 1); }
Q_INLINE uint32_t v16i_hmaxu(v16i x) { return _mm512_reduce_max_epu32(x.v); }

/* Sixteen numbers of 0..65535 as 16-bit words. */
Q_INLINE void v16i_store_u16(uint16_t *p, v16i x)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(x.v));
}
/* Sixteen codes of -128..127 as bytes. */
Q_INLINE __m128i v16i_bytes(v16i x) { return _mm512_cvtepi32_epi8(x.v); }
/* One tile of codes: 64 bytes to q, minus the sum of each sixteen to nsum. */
Q_INLINE void v16i_store_tile(int8_t *q, int32_t nsum[4], const v16i c[4])
{
    __m512i b = _mm512_castsi128_si512(v16i_bytes(c[0]));
    b = _mm512_inserti32x4(b, v16i_bytes(c[1]), 1);
    b = _mm512_inserti32x4(b, v16i_bytes(c[2]), 2);
    b = _mm512_inserti32x4(b, v16i_bytes(c[3]), 3);
    _mm512_storeu_si512(q, b);
    const __m512i zero = _mm512_setzero_si512();
    __m512i s = _mm512_dpbusd_epi32(zero, _mm512_set1_epi8(1), b);
    s = _mm512_add_epi32(s, _mm512_shuffle_epi32(s, _MM_PERM_BADC));
    s = _mm512_add_epi32(s, _mm512_shuffle_epi32(s, _MM_PERM_CDAB));
    s = _mm512_maskz_compress_epi32(0x1111, _mm512_sub_epi32(zero, s));
    _mm_storeu_si128((__m128i *)nsum, _mm512_castsi512_si128(s));
}
/* Byte `at` of each of 16 dwords at line becomes a code; the other bytes stay. */
Q_INLINE void v16i_store_byte(int8_t *line, int at, v16i codes)
{
    const __m512i x = _mm512_sllv_epi32(codes.v, _mm512_set1_epi32(8 * at));
    _mm512_mask_storeu_epi8(line, (__mmask64)(0x1111111111111111ull << at), x);
}

#else /* AVX2 */

typedef struct v16f { __m256 a, b; } v16f; /* lanes 0..7, 8..15 */
typedef struct v16i { __m256i a, b; } v16i;

/* All ones in the first n of eight lanes; n may lie outside 0..8. */
Q_INLINE __m256i v8_first(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

Q_INLINE v16f v16_load(const float *p)
{
    return (v16f){ _mm256_loadu_ps(p), _mm256_loadu_ps(p + 8) };
}
Q_INLINE v16f v16_load_n(const float *p, int n)
{
    if (n == 16) return v16_load(p);
    return (v16f){ _mm256_maskload_ps(p, v8_first(n)), _mm256_maskload_ps(p + 8, v8_first(n - 8)) };
}
Q_INLINE void v16_store(float *p, v16f x)
{
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}
Q_INLINE void v16_store_n(float *p, v16f x, int n)
{
    if (n == 16) {
        v16_store(p, x);
        return;
    }
    _mm256_maskstore_ps(p, v8_first(n), x.a);
    _mm256_maskstore_ps(p + 8, v8_first(n - 8), x.b);
}
Q_INLINE v16f v16_set1(float x) { return (v16f){ _mm256_set1_ps(x), _mm256_set1_ps(x) }; }
Q_INLINE v16f v16_zero(void) { return (v16f){ _mm256_setzero_ps(), _mm256_setzero_ps() }; }
/* Lanes 0..n-1 of x, +0 behind them. */
Q_INLINE v16f v16_keep(v16f x, int n)
{
    return (v16f){ _mm256_and_ps(x.a, _mm256_castsi256_ps(v8_first(n))),
                   _mm256_and_ps(x.b, _mm256_castsi256_ps(v8_first(n - 8))) };
}
/* Lanes 0..n-1 of x, y behind them. */
Q_INLINE v16f v16_first_of(v16f x, v16f y, int n)
{
    return (v16f){ _mm256_blendv_ps(y.a, x.a, _mm256_castsi256_ps(v8_first(n))),
                   _mm256_blendv_ps(y.b, x.b, _mm256_castsi256_ps(v8_first(n - 8))) };
}

Q_INLINE v16f v16_add(v16f a, v16f b)
{
    return (v16f){ _mm256_add_ps(a.a, b.a), _mm256_add_ps(a.b, b.b) };
}
Q_INLINE v16f v16_sub(v16f a, v16f b)
{
    return (v16f){ _mm256_sub_ps(a.a, b.a), _mm256_sub_ps(a.b, b.b) };
}
Q_INLINE v16f v16_mul(v16f a, v16f b)
{
    return (v16f){ _mm256_mul_ps(a.a, b.a), _mm256_mul_ps(a.b, b.b) };
}
Q_INLINE v16f v16_div(v16f a, v16f b)
{
    return (v16f){ _mm256_div_ps(a.a, b.a), _mm256_div_ps(a.b, b.b) };
}
Q_INLINE v16f v16_fma(v16f a, v16f b, v16f c)
{
    return (v16f){ _mm256_fmadd_ps(a.a, b.a, c.a), _mm256_fmadd_ps(a.b, b.b, c.b) };
}
Q_INLINE v16f v16_max(v16f a, v16f b)
{
    return (v16f){ _mm256_max_ps(a.a, b.a), _mm256_max_ps(a.b, b.b) };
}
/* The sign of each lane turned where sign has its top bit. */
Q_INLINE v16f v16_flip(v16f x, v16f sign)
{
    return (v16f){ _mm256_xor_ps(x.a, sign.a), _mm256_xor_ps(x.b, sign.b) };
}
/* The two neighbours of each pair exchanged. */
Q_INLINE v16f v16_swap_pairs(v16f x)
{
    return (v16f){ _mm256_permute_ps(x.a, 0xB1), _mm256_permute_ps(x.b, 0xB1) };
}

Q_INLINE __m256 v8_load_bf16(const uint16_t *p)
{
    const __m256i x = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(x, 16));
}
Q_INLINE v16f v16_load_bf16(const uint16_t *p)
{
    return (v16f){ v8_load_bf16(p), v8_load_bf16(p + 8) };
}

Q_INLINE v16i v16i_load(const void *p)
{
    const __m256i *q = p;
    return (v16i){ _mm256_loadu_si256(q), _mm256_loadu_si256(q + 1) };
}
Q_INLINE v16i v16i_set1(int32_t x) { return (v16i){ _mm256_set1_epi32(x), _mm256_set1_epi32(x) }; }
Q_INLINE v16i v16i_add(v16i a, v16i b)
{
    return (v16i){ _mm256_add_epi32(a.a, b.a), _mm256_add_epi32(a.b, b.b) };
}
Q_INLINE v16i v16i_sub(v16i a, v16i b)
{
    return (v16i){ _mm256_sub_epi32(a.a, b.a), _mm256_sub_epi32(a.b, b.b) };
}
Q_INLINE v16i v16i_mul(v16i a, v16i b)
{
    return (v16i){ _mm256_mullo_epi32(a.a, b.a), _mm256_mullo_epi32(a.b, b.b) };
}
Q_INLINE v16i v16i_shr24(v16i a)
{
    return (v16i){ _mm256_srli_epi32(a.a, 24), _mm256_srli_epi32(a.b, 24) };
}
Q_INLINE v16i v16i_shr16(v16i a)
{
    return (v16i){ _mm256_srli_epi32(a.a, 16), _mm256_srli_epi32(a.b, 16) };
}
Q_INLINE v16i v16i_and(v16i a, v16i b)
{
    return (v16i){ _mm256_and_si256(a.a, b.a), _mm256_and_si256(a.b, b.b) };
}
Q_INLINE v16i v16_bits(v16f x)
{
    return (v16i){ _mm256_castps_si256(x.a), _mm256_castps_si256(x.b) };
}
Q_INLINE v16i v16i_maxu(v16i a, v16i b)
{
    return (v16i){ _mm256_max_epu32(a.a, b.a), _mm256_max_epu32(a.b, b.b) };
}
Q_INLINE v16i v16i_clamp(v16i a, v16i lo, v16i hi)
{
    return (v16i){ _mm256_min_epi32(_mm256_max_epi32(a.a, lo.a), hi.a),
                   _mm256_min_epi32(_mm256_max_epi32(a.b, lo.b), hi.b) };
}
Q_INLINE v16i v16_abs_bits(v16f x)
{
    const __m256i m = _mm256_set1_epi32(0x7fffffff);
    return (v16i){ _mm256_and_si256(_mm256_castps_si256(x.a), m),
                   _mm256_and_si256(_mm256_castps_si256(x.b), m) };
}
Q_INLINE v16i v16_rne(v16f x)
{
    return (v16i){ _mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b) };
}
Q_INLINE v16f v16_float(v16i x)
{
    return (v16f){ _mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b) };
}
/* x's bits + n * 2^23: x times 2^n while the result is normal. */
Q_INLINE v16f v16_scale(v16f x, v16i n)
{
    const __m256i a = _mm256_add_epi32(_mm256_castps_si256(x.a), _mm256_slli_epi32(n.a, 23));
    const __m256i b = _mm256_add_epi32(_mm256_castps_si256(x.b), _mm256_slli_epi32(n.b, 23));
    return (v16f){ _mm256_castsi256_ps(a), _mm256_castsi256_ps(b) };
}
Q_INLINE __m256 v8_outside(__m256 p, __m256 x, float lo, float y, float hi, float z)
{
    p = _mm256_blendv_ps(p, _mm256_set1_ps(y), _mm256_cmp_ps(x, _mm256_set1_ps(lo), _CMP_LT_OQ));
    return _mm256_blendv_ps(p, _mm256_set1_ps(z), _mm256_cmp_ps(x, _mm256_set1_ps(hi), _CMP_GT_OQ));
}
/* y where x < lo, z where x > hi, else p. */
Q_INLINE v16f v16_outside(v16f p, v16f x, float lo, float y, float hi, float z)
{
    return (v16f){ v8_outside(p.a, x.a, lo, y, hi, z), v8_outside(p.b, x.b, lo, y, hi, z) };
}
Q_INLINE __m256i v8_where_gt(__m256 a, __m256 b, __m256i x, __m256i y)
{
    return _mm256_blendv_epi8(y, x, _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_GT_OQ)));
}
/* Lanes where a > b take x, else y. */
Q_INLINE v16i v16_where_gt(v16f a, v16f b, v16i x, v16i y)
{
    return (v16i){ v8_where_gt(a.a, b.a, x.a, y.a), v8_where_gt(a.b, b.b, x.b, y.b) };
}

Q_INLINE uint32_t v8_within(__m256 x, __m256 lo, __m256 hi)
{
    const __m256 above = _mm256_cmp_ps(x, lo, _CMP_GE_OQ), below = _mm256_cmp_ps(x, hi, _CMP_LT_OQ);
    return (uint32_t)_mm256_movemask_ps(_mm256_and_ps(above, below));
}
/* A bit per lane with lo <= x < hi. */
Q_INLINE uint32_t v16_within(v16f x, v16f lo, v16f hi)
{
    return v8_within(x.a, lo.a, hi.a) | v8_within(x.b, lo.b, hi.b) << 8;
}

Q_INLINE __m256 v16_low(v16f x) { return x.a; }
Q_INLINE __m256 v16_high(v16f x) { return x.b; }
Q_INLINE uint32_t v16i_hmaxu(v16i x)
{
    const __m256i h = _mm256_max_epu32(x.a, x.b);
    __m128i m = _mm_max_epu32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4E));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0xB1));
    return (uint32_t)_mm_cvtsi128_si32(m);
}

/* Thirty-two codes of -128..127 as bytes in order: the packs work per 128-bit lane. */
Q_INLINE __m256i v16i_bytes2(v16i x, v16i y)
{
    const __m256i px = _mm256_packs_epi32(x.a, x.b), py = _mm256_packs_epi32(y.a, y.b);
    return _mm256_permutevar8x32_epi32(_mm256_packs_epi16(px, py),
                                       _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}
/* Sixteen codes of -128..127 as bytes. */
Q_INLINE __m128i v16i_bytes(v16i x) { return _mm256_castsi256_si128(v16i_bytes2(x, x)); }
/* Sixteen numbers of 0..65535 as 16-bit words. */
Q_INLINE void v16i_store_u16(uint16_t *p, v16i x)
{
    const __m256i w = _mm256_permute4x64_epi64(_mm256_packus_epi32(x.a, x.b), 0xD8);
    _mm256_storeu_si256((__m256i *)p, w);
}
/* Sixteen numbers of -32768..32767 as 16-bit words. */
Q_INLINE void v16i_store_words(int16_t *p, v16i x)
{
    const __m256i w = _mm256_permute4x64_epi64(_mm256_packs_epi32(x.a, x.b), 0xD8);
    _mm256_storeu_si256((__m256i *)p, w);
}
/* One tile of codes: 64 bytes to q, minus the sum of each sixteen to nsum. */
Q_INLINE void v16i_store_tile(int8_t *q, int32_t nsum[4], const v16i c[4])
{
    const __m256i b01 = v16i_bytes2(c[0], c[1]), b23 = v16i_bytes2(c[2], c[3]);
    _mm256_storeu_si256((__m256i *)q, b01);
    _mm256_storeu_si256((__m256i *)(q + 32), b23);
    const __m256i u1 = _mm256_set1_epi8(1), w1 = _mm256_set1_epi16(-1);
    const __m256i s01 = _mm256_madd_epi16(_mm256_maddubs_epi16(u1, b01), w1);
    const __m256i s23 = _mm256_madd_epi16(_mm256_maddubs_epi16(u1, b23), w1);
    __m256i s = _mm256_hadd_epi32(s01, s23); /* two of each: 0 0 2 2 | 1 1 3 3 */
    s = _mm256_hadd_epi32(s, s);             /* 0 2 0 2 | 1 3 1 3 */
    const __m128i even = _mm256_castsi256_si128(s), odd = _mm256_extracti128_si256(s, 1);
    _mm_storeu_si128((__m128i *)nsum, _mm_unpacklo_epi32(even, odd));
}
/* Byte `at` of each of 16 dwords at line becomes a code; the other bytes stay. */
Q_INLINE void v16i_store_byte(int8_t *line, int at, v16i codes)
{
    int8_t b[16];
    _mm_storeu_si128((__m128i *)b, v16i_bytes(codes));
    for (int i = 0; i < 16; i++) line[4 * i + at] = b[i];
}

#endif

/* lane[i] += lane[i + 8], + 4, + 2, + 1: the order of exact.md 1.4. */
Q_INLINE float v16_sum(v16f x)
{
    const __m256 h = _mm256_add_ps(v16_low(x), v16_high(x));
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 0x55)));
}

/* Largest lane; the sign of a zero is unspecified. */
Q_INLINE float v16_hmax(v16f x)
{
    const __m256 h = _mm256_max_ps(v16_low(x), v16_high(x));
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_shuffle_ps(m, m, 0x55)));
}

Q_INLINE v16f v16_exp(v16f x)
{
    const v16i n = v16_rne(v16_mul(x, v16_set1(0x1.715476p+0f)));
    const v16f nf = v16_float(n);
    v16f r = v16_fma(nf, v16_set1(-0x1.62e43p-1f), x);
    r = v16_fma(nf, v16_set1(0x1.05c610p-29f), r);
    v16f p = v16_set1(0x1.6a243ap-10f);
    p = v16_fma(p, r, v16_set1(0x1.1239ep-7f));
    p = v16_fma(p, r, v16_set1(0x1.5558f2p-5f));
    p = v16_fma(p, r, v16_set1(0x1.555492p-3f));
    p = v16_fma(p, r, v16_set1(0x1.fffffcp-2f));
    p = v16_fma(p, r, v16_set1(1.0f));
    p = v16_fma(p, r, v16_set1(1.0f));
    return v16_outside(v16_scale(p, n), x, -87.0f, 0.0f, 88.7f, __builtin_inff());
}

Q_INLINE float v16_exp1(float x)
{
    return _mm_cvtss_f32(_mm256_castps256_ps128(v16_low(v16_exp(v16_set1(x)))));
}

#endif
