/* enc_v16.h - what the encoder (enc_body.h) wants of AVX-512 and AVX2: operations that v16.h lacks,
 * and the nearest point of a grid, which each finds in the way that it is good at. */
#ifndef QUANT_X86_ENC_V16_H
#define QUANT_X86_ENC_V16_H

#include "quant/encode.h"
#include "quant/x86/v16.h"

#include <string.h>

enum { ENC_K = 4 }; /* k that the search looks up together */

#if defined(__AVX512F__)

typedef struct v16d { __m512d a, b; } v16d; /* sixteen doubles */

Q_INLINE v16d v16d_zero(void) { return (v16d){ _mm512_setzero_pd(), _mm512_setzero_pd() }; }
Q_INLINE void v16d_store(double *p, v16d x)
{
    _mm512_storeu_pd(p, x.a);
    _mm512_storeu_pd(p + 8, x.b);
}
Q_INLINE v16d v16_double(v16f x)
{
    return (v16d){ _mm512_cvtps_pd(v16_low(x)), _mm512_cvtps_pd(v16_high(x)) };
}
Q_INLINE v16d v16d_add(v16d x, v16d y)
{
    return (v16d){ _mm512_add_pd(x.a, y.a), _mm512_add_pd(x.b, y.b) };
}
Q_INLINE v16d v16d_sub(v16d x, v16d y)
{
    return (v16d){ _mm512_sub_pd(x.a, y.a), _mm512_sub_pd(x.b, y.b) };
}
Q_INLINE v16d v16d_mul(v16d x, v16d y)
{
    return (v16d){ _mm512_mul_pd(x.a, y.a), _mm512_mul_pd(x.b, y.b) };
}

Q_INLINE v16f v16_min(v16f a, v16f b) { return (v16f){ _mm512_min_ps(a.v, b.v) }; }
/* Lanes where a > b take x, else y. */
Q_INLINE v16f v16f_where_gt(v16f a, v16f b, v16f x, v16f y)
{
    return (v16f){ _mm512_mask_mov_ps(y.v, _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ), x.v) };
}
Q_INLINE v16f v16_abs(v16f x) { return (v16f){ _mm512_abs_ps(x.v) }; }
Q_INLINE v16i v16i_or(v16i a, v16i b) { return (v16i){ _mm512_or_si512(a.v, b.v) }; }
Q_INLINE v16i v16i_shl(v16i a, int n) { return (v16i){ _mm512_slli_epi32(a.v, (unsigned)n) }; }
Q_INLINE v16i v16i_shr(v16i a, int n) { return (v16i){ _mm512_srli_epi32(a.v, (unsigned)n) }; }
Q_INLINE void v16i_store(void *p, v16i x) { _mm512_storeu_si512(p, x.v); }
/* Sixteen signed bytes; a lane is all ones where its byte is not 0. */
Q_INLINE v16i v16i_load_s8(const int8_t *p)
{
    return (v16i){ _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)) };
}
/* The 32 bits at each p + i. */
Q_INLINE v16i v16i_gather(const int16_t *p, v16i i)
{
    return (v16i){ _mm512_i32gather_epi32(i.v, p, 2) };
}
/* a * n, both within 16 bits. */
Q_INLINE v16i v16i_mul16(v16i a, int n)
{
    return (v16i){ _mm512_madd_epi16(a.v, _mm512_set1_epi32(n)) };
}
/* Signed byte b of each lane. */
Q_INLINE v16i v16i_byte(v16i a, const int b)
{
    return (v16i){ _mm512_srai_epi32(_mm512_slli_epi32(a.v, (unsigned)(24 - 8 * b)), 24) };
}
/* Lanes where a > b take x, else y. */
Q_INLINE v16i v16i_where_gt(v16f a, v16f b, v16i x, v16i y)
{
    return (v16i){ _mm512_mask_mov_epi32(y.v, _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ), x.v) };
}
Q_INLINE v16i v16i_nonzero(v16i x)
{
    return (v16i){ _mm512_movm_epi32(_mm512_test_epi32_mask(x.v, x.v)) };
}

/* Rows to columns: lane r of row[k] becomes lane k of row[r]. */
Q_INLINE void v16_transpose(v16f row[16])
{
    __m512 a[16], b[16];
    Q_UNROLL
    for (int i = 0; i < 16; i += 2) {
        a[i] = _mm512_unpacklo_ps(row[i].v, row[i + 1].v);
        a[i + 1] = _mm512_unpackhi_ps(row[i].v, row[i + 1].v);
    }
    Q_UNROLL
    for (int i = 0; i < 16; i += 4) { /* b[i + c]: column c of each 128 bits, rows i .. i + 3 */
        const __m512d l0 = _mm512_castps_pd(a[i]), h0 = _mm512_castps_pd(a[i + 1]);
        const __m512d l1 = _mm512_castps_pd(a[i + 2]), h1 = _mm512_castps_pd(a[i + 3]);
        b[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(l0, l1));
        b[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(l0, l1));
        b[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(h0, h1));
        b[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(h0, h1));
    }
    Q_UNROLL
    for (int c = 0; c < 4; c++) {
        const __m512 lo01 = _mm512_shuffle_f32x4(b[c], b[c + 4], 0x88); /* quarters 0 2 of both */
        const __m512 lo23 = _mm512_shuffle_f32x4(b[c + 8], b[c + 12], 0x88);
        const __m512 hi01 = _mm512_shuffle_f32x4(b[c], b[c + 4], 0xdd);
        const __m512 hi23 = _mm512_shuffle_f32x4(b[c + 8], b[c + 12], 0xdd);
        row[c].v = _mm512_shuffle_f32x4(lo01, lo23, 0x88);
        row[c + 8].v = _mm512_shuffle_f32x4(lo01, lo23, 0xdd);
        row[c + 4].v = _mm512_shuffle_f32x4(hi01, hi23, 0x88);
        row[c + 12].v = _mm512_shuffle_f32x4(hi01, hi23, 0xdd);
    }
}

/* The grid in 32 bins of y = 2 * w / sigma: at most one border between two codes lies in a bin, and
 * none nearer to the bin's ends than 0.09 (tried), so bins may be found by inexact means while the
 * border is compared exactly.  The code above the border of bin b is the one below that of bin
 * b + 1.  The bins of N4 reach to 78.4, as far as the search lays a largest weight; those of N5
 * fit its codes so well that bin b has codes b and b + 1. */
typedef struct enc_grid {
    __m512 border[2];   /* least y of the next code, infinite if there is none */
    __m512 value[2];    /* below the border */
    __m512i code[2];
    __m512 per, zero;   /* bin = rne(y * per + zero) */
} enc_grid;

#define ENC_MAGIC 12582912.f /* 1.5 * 2^23: x + it has rne(x) in its low bits */

Q_INLINE void enc_grid_init(enc_grid *o, const q_enc *in, bool wide)
{
    const float width = wide ? 7.94f : 5.0625f, zero = wide ? 121.0f / 7.94f : 16.0f;
    float border[32], value[32];
    int32_t code[32];
    for (int b = 0, c = 0; b < 32; b++) {
        value[b] = (float)in->grid[c];
        code[b] = c;
        border[b] = __builtin_inff();
        const float next = c < in->n_grid - 1 ? (float)(in->grid[c] + in->grid[c + 1]) : 1e9f;
        if (next < width * ((float)b - zero + 0.5f)) {
            /* The reference rounds y + 128 before it cuts: half a unit in the last place below the
             * border is a tie that goes up to it.  Below -64 the sum is exact. */
            border[b] = next - (next > 0.0f ? 0x1p-17f : next > -64.0f ? 0x1p-18f : 0.0f);
            c++;
        }
    }
    for (int i = 0; i < 2; i++) {
        o->border[i] = _mm512_loadu_ps(border + 16 * i);
        o->value[i] = _mm512_loadu_ps(value + 16 * i);
        o->code[i] = _mm512_loadu_si512(code + 16 * i);
    }
    o->per = _mm512_set1_ps(1.0f / width);
    o->zero = _mm512_set1_ps(wide ? zero : zero + ENC_MAGIC);
}

/* Index of the code nearest to w * inv: its bin, plus 1 above the border.  far: |w * inv| may be
 * above 39. */
Q_INLINE __m512i enc_index(const enc_grid *o, __m512 w, __m512 inv2, bool wide, bool far)
{
    __m512 y = _mm512_mul_ps(w, inv2), big;
    if (wide) {
        big = _mm512_fmadd_ps(y, o->per, o->zero);
        big = _mm512_min_ps(_mm512_max_ps(big, _mm512_setzero_ps()), _mm512_set1_ps(31.0f));
        big = _mm512_add_ps(big, _mm512_set1_ps(ENC_MAGIC));
    } else {
        if (far) {
            y = _mm512_max_ps(y, _mm512_set1_ps(-78.0f));
            y = _mm512_min_ps(y, _mm512_set1_ps(78.0f));
        }
        big = _mm512_fmadd_ps(y, o->per, o->zero);
    }
    const __m512i bin = _mm512_castps_si512(big);
    const __m512 border = _mm512_permutex2var_ps(o->border[0], bin, o->border[1]);
    const __mmask16 above = _mm512_cmp_ps_mask(y, border, _CMP_GE_OQ);
    return _mm512_mask_add_epi32(bin, above, bin, _mm512_set1_epi32(1));
}

/* Grid values nearest to w * inv for 4 k. */
Q_INLINE void enc_values(v16f g[4], const v16f w[4], v16f inv, const enc_grid *o, bool wide,
                         bool far)
{
    const __m512 inv2 = _mm512_add_ps(inv.v, inv.v);
    Q_UNROLL
    for (int i = 0; i < 4; i++) {
        const __m512i at = enc_index(o, w[i].v, inv2, wide, far);
        g[i].v = _mm512_permutex2var_ps(o->value[0], at, o->value[1]);
    }
}

/* The same, and their codes, k = byte of a lane. */
Q_INLINE v16i enc_codes4(v16f g[4], const v16f w[4], v16f inv, const enc_grid *o, bool wide)
{
    const __m512 inv2 = _mm512_add_ps(inv.v, inv.v);
    __m512i line = _mm512_setzero_si512();
    Q_UNROLL
    for (int i = 0; i < 4; i++) {
        const __m512i at = enc_index(o, w[i].v, inv2, wide, true);
        const __m512i c = _mm512_permutex2var_epi32(o->code[0], at, o->code[1]);
        g[i].v = _mm512_permutex2var_ps(o->value[0], at, o->value[1]);
        line = _mm512_or_si512(line, _mm512_slli_epi32(c, 8 * (unsigned)i));
    }
    return (v16i){ line };
}

#else /* AVX2 */

typedef struct v16d { __m256d v[4]; } v16d;

Q_INLINE v16d v16d_zero(void)
{
    const __m256d z = _mm256_setzero_pd();
    return (v16d){ { z, z, z, z } };
}
Q_INLINE void v16d_store(double *p, v16d x)
{
    Q_UNROLL
    for (int i = 0; i < 4; i++) _mm256_storeu_pd(p + 4 * i, x.v[i]);
}
Q_INLINE v16d v16_double(v16f x)
{
    return (v16d){ { _mm256_cvtps_pd(_mm256_castps256_ps128(x.a)),
                     _mm256_cvtps_pd(_mm256_extractf128_ps(x.a, 1)),
                     _mm256_cvtps_pd(_mm256_castps256_ps128(x.b)),
                     _mm256_cvtps_pd(_mm256_extractf128_ps(x.b, 1)) } };
}
Q_INLINE v16d v16d_add(v16d x, v16d y)
{
    Q_UNROLL
    for (int i = 0; i < 4; i++) x.v[i] = _mm256_add_pd(x.v[i], y.v[i]);
    return x;
}
Q_INLINE v16d v16d_sub(v16d x, v16d y)
{
    Q_UNROLL
    for (int i = 0; i < 4; i++) x.v[i] = _mm256_sub_pd(x.v[i], y.v[i]);
    return x;
}
Q_INLINE v16d v16d_mul(v16d x, v16d y)
{
    Q_UNROLL
    for (int i = 0; i < 4; i++) x.v[i] = _mm256_mul_pd(x.v[i], y.v[i]);
    return x;
}

Q_INLINE v16f v16_min(v16f a, v16f b)
{
    return (v16f){ _mm256_min_ps(a.a, b.a), _mm256_min_ps(a.b, b.b) };
}
/* Lanes where a > b take x, else y. */
Q_INLINE v16f v16f_where_gt(v16f a, v16f b, v16f x, v16f y)
{
    return (v16f){ _mm256_blendv_ps(y.a, x.a, _mm256_cmp_ps(a.a, b.a, _CMP_GT_OQ)),
                   _mm256_blendv_ps(y.b, x.b, _mm256_cmp_ps(a.b, b.b, _CMP_GT_OQ)) };
}
Q_INLINE v16f v16_abs(v16f x)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return (v16f){ _mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b) };
}
Q_INLINE v16i v16i_or(v16i a, v16i b)
{
    return (v16i){ _mm256_or_si256(a.a, b.a), _mm256_or_si256(a.b, b.b) };
}
Q_INLINE v16i v16i_shl(v16i a, int n)
{
    return (v16i){ _mm256_slli_epi32(a.a, n), _mm256_slli_epi32(a.b, n) };
}
Q_INLINE v16i v16i_shr(v16i a, int n)
{
    return (v16i){ _mm256_srli_epi32(a.a, n), _mm256_srli_epi32(a.b, n) };
}
Q_INLINE void v16i_store(void *p, v16i x)
{
    _mm256_storeu_si256((__m256i *)p, x.a);
    _mm256_storeu_si256((__m256i *)p + 1, x.b);
}
Q_INLINE v16i v16i_load_s8(const int8_t *p)
{
    const __m128i b = _mm_loadu_si128((const __m128i *)p);
    return (v16i){ _mm256_cvtepi8_epi32(b), _mm256_cvtepi8_epi32(_mm_srli_si128(b, 8)) };
}
Q_INLINE v16i v16i_gather(const int16_t *p, v16i i)
{
    return (v16i){ _mm256_i32gather_epi32((const int *)(const void *)p, i.a, 2),
                   _mm256_i32gather_epi32((const int *)(const void *)p, i.b, 2) };
}
Q_INLINE v16i v16i_mul16(v16i a, int n)
{
    const __m256i m = _mm256_set1_epi32(n);
    return (v16i){ _mm256_madd_epi16(a.a, m), _mm256_madd_epi16(a.b, m) };
}
Q_INLINE v16i v16i_byte(v16i a, const int b)
{
    return (v16i){ _mm256_srai_epi32(_mm256_slli_epi32(a.a, 24 - 8 * b), 24),
                   _mm256_srai_epi32(_mm256_slli_epi32(a.b, 24 - 8 * b), 24) };
}
Q_INLINE v16i v16i_where_gt(v16f a, v16f b, v16i x, v16i y)
{
    const v16f r = v16f_where_gt(a, b, (v16f){ _mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b) },
                                 (v16f){ _mm256_castsi256_ps(y.a), _mm256_castsi256_ps(y.b) });
    return (v16i){ _mm256_castps_si256(r.a), _mm256_castps_si256(r.b) };
}
Q_INLINE v16i v16i_nonzero(v16i x)
{
    const __m256i zero = _mm256_setzero_si256(), ones = _mm256_set1_epi32(-1);
    return (v16i){ _mm256_xor_si256(_mm256_cmpeq_epi32(x.a, zero), ones),
                   _mm256_xor_si256(_mm256_cmpeq_epi32(x.b, zero), ones) };
}

Q_INLINE void v8_transpose(__m256 r[8])
{
    __m256 a[8];
    Q_UNROLL
    for (int i = 0; i < 8; i += 2) {
        a[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        a[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    Q_UNROLL
    for (int i = 0; i < 8; i += 4) { /* r[i + c]: column c of each half, rows i .. i + 3 */
        r[i] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xee);
    }
    Q_UNROLL
    for (int c = 0; c < 4; c++) {
        const __m256 lo = _mm256_permute2f128_ps(r[c], r[c + 4], 0x20);
        r[c + 4] = _mm256_permute2f128_ps(r[c], r[c + 4], 0x31);
        r[c] = lo;
    }
}

/* Rows to columns: lane r of row[k] becomes lane k of row[r]. */
Q_INLINE void v16_transpose(v16f row[16])
{
    __m256 q[4][8]; /* top left, top right, bottom left, bottom right */
    for (int i = 0; i < 8; i++) {
        q[0][i] = row[i].a;
        q[1][i] = row[i].b;
        q[2][i] = row[i + 8].a;
        q[3][i] = row[i + 8].b;
    }
    for (int i = 0; i < 4; i++) v8_transpose(q[i]);
    for (int i = 0; i < 8; i++) {
        row[i] = (v16f){ q[0][i], q[2][i] };
        row[i + 8] = (v16f){ q[1][i], q[3][i] };
    }
}

/* Half-unit cells i of y, four of them a coarse cell: none of these has two borders between codes,
 * so i + step[i / 4] is 4 * code plus 0..3.  N5 takes all 256 cells; N4 those of -64..63, counted
 * from 0: what lies outside has the codes of the ends. */
typedef struct enc_grid {
    __m256i step[4];  /* 16 coarse cells each, in both halves; N4 has two */
    __m256i low[2], high[2]; /* of 16 codes each: the third and the top byte of the value as a
                              * float, whose others are zero; N4 has one */
} enc_grid;

Q_INLINE __m256i both_halves(const void *p)
{
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(p));
}

Q_INLINE void enc_grid_init(enc_grid *o, const q_enc *in, bool wide)
{
    const int n = wide ? 4 : 2, first = wide ? 0 : 64;
    uint8_t step[64], low[32], high[32];
    for (int c = 0; c < 16 * n; c++) {
        const int code = q_enc_code(in, 4 * c + first);
        int up = 4; /* cells from the coarse cell's first to the next code */
        for (int i = 3; i > 0; i--)
            if (q_enc_code(in, 4 * c + first + i) != code) up = i;
        step[c] = (uint8_t)(4 * code + 4 - up - 4 * c);
    }
    for (int c = 0; c < 8 * n; c++) {
        const float v = (float)in->grid[c];
        uint32_t bits;
        memcpy(&bits, &v, sizeof bits);
        low[c] = (uint8_t)(bits >> 16);
        high[c] = (uint8_t)(bits >> 24);
    }
    for (int i = 0; i < n; i++) o->step[i] = both_halves(step + 16 * i);
    for (int i = 0; i < n / 2; i++) {
        o->low[i] = both_halves(low + 16 * i);
        o->high[i] = both_halves(high + 16 * i);
    }
}

/* Looks each byte of at, below 16 * n, up in n tables of 16.  An index with its top bit set finds
 * 0, so each table answers for its own sixteen: the last one without help, as what lies before it
 * has wrapped around. */
Q_INLINE __m256i look_up(const __m256i *table, int n, __m256i at)
{
    __m256i r = _mm256_setzero_si256();
    for (int i = 0; i < n; i++) {
        __m256i own = _mm256_sub_epi8(at, _mm256_set1_epi8((char)(16 * i)));
        if (i < n - 1) own = _mm256_adds_epu8(own, _mm256_set1_epi8(112));
        r = _mm256_or_si256(r, _mm256_shuffle_epi8(table[i], own));
    }
    return r;
}

/* 16 rows and 4 k as they are computed: [0] the first eight rows, [1] the others.  All steps are
 * taken for both before the next: the way from a weight to its code is so long that one alone would
 * leave the core waiting (Zen 3: a third of the time). */
typedef struct enc_pair { __m256i v[2]; } enc_pair;

/* Codes nearest to w * inv of 4 k: each half of a register has four rows of the first k, four of
 * the second, ... */
Q_INLINE enc_pair enc_codes_pair(const v16f w[4], v16f inv, const enc_grid *o, bool wide, bool far)
{
    const v16f inv2 = v16_add(inv, inv), zero = v16_set1(128.0f);
    __m256i cell[4][2];
    enc_pair r;
    Q_UNROLL
    for (int i = 0; i < 4; i++) {
        v16f x = v16_add(v16_mul(w[i], inv2), zero);
        /* The packs below cut at 0 and 255, but they want numbers that fit 16 bits. */
        if (far) x = v16_min(v16_max(x, v16_zero()), v16_set1(255.0f));
        cell[i][0] = _mm256_cvttps_epi32(x.a);
        cell[i][1] = _mm256_cvttps_epi32(x.b);
    }
    Q_UNROLL
    for (int h = 0; h < 2; h++) {
        r.v[h] = _mm256_packus_epi16(_mm256_packs_epi32(cell[0][h], cell[1][h]),
                                     _mm256_packs_epi32(cell[2][h], cell[3][h]));
        if (!wide) {
            r.v[h] = _mm256_subs_epu8(r.v[h], _mm256_set1_epi8(64));
            r.v[h] = _mm256_min_epu8(r.v[h], _mm256_set1_epi8(127));
        }
    }
    Q_UNROLL
    for (int h = 0; h < 2; h++) {
        const __m256i c = _mm256_and_si256(_mm256_srli_epi16(r.v[h], 2), _mm256_set1_epi8(63));
        r.v[h] = _mm256_add_epi8(r.v[h], look_up(o->step, wide ? 4 : 2, c));
    }
    Q_UNROLL
    for (int h = 0; h < 2; h++) {
        r.v[h] = _mm256_and_si256(_mm256_srli_epi16(r.v[h], 2), _mm256_set1_epi8(wide ? 31 : 15));
    }
    return r;
}

Q_INLINE void enc_values_pair(v16f g[4], enc_pair c, const enc_grid *o, bool wide)
{
    const __m256i zero = _mm256_setzero_si256();
    __m256i k01[2], k23[2]; /* the upper halves of the floats */
    Q_UNROLL
    for (int h = 0; h < 2; h++) {
        const __m256i low = wide ? look_up(o->low, 2, c.v[h])
                                 : _mm256_shuffle_epi8(o->low[0], c.v[h]);
        const __m256i high = wide ? look_up(o->high, 2, c.v[h])
                                  : _mm256_shuffle_epi8(o->high[0], c.v[h]);
        k01[h] = _mm256_unpacklo_epi8(low, high);
        k23[h] = _mm256_unpackhi_epi8(low, high);
    }
    g[0] = (v16f){ _mm256_castsi256_ps(_mm256_unpacklo_epi16(zero, k01[0])),
                   _mm256_castsi256_ps(_mm256_unpacklo_epi16(zero, k01[1])) };
    g[1] = (v16f){ _mm256_castsi256_ps(_mm256_unpackhi_epi16(zero, k01[0])),
                   _mm256_castsi256_ps(_mm256_unpackhi_epi16(zero, k01[1])) };
    g[2] = (v16f){ _mm256_castsi256_ps(_mm256_unpacklo_epi16(zero, k23[0])),
                   _mm256_castsi256_ps(_mm256_unpacklo_epi16(zero, k23[1])) };
    g[3] = (v16f){ _mm256_castsi256_ps(_mm256_unpackhi_epi16(zero, k23[0])),
                   _mm256_castsi256_ps(_mm256_unpackhi_epi16(zero, k23[1])) };
}

/* Grid values nearest to w * inv for 4 k; far: |w * inv| may be above 39 (N5: 74). */
Q_INLINE void enc_values(v16f g[4], const v16f w[4], v16f inv, const enc_grid *o, bool wide,
                         bool far)
{
    enc_values_pair(g, enc_codes_pair(w, inv, o, wide, far), o, wide);
}

/* The same, and their codes, k = byte of a lane. */
Q_INLINE v16i enc_codes4(v16f g[4], const v16f w[4], v16f inv, const enc_grid *o, bool wide)
{
    const __m256i by_row = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const enc_pair c = enc_codes_pair(w, inv, o, wide, true);
    enc_values_pair(g, c, o, wide);
    return (v16i){ _mm256_shuffle_epi8(c.v[0], by_row), _mm256_shuffle_epi8(c.v[1], by_row) };
}

#endif

/* To the nearest whole number, of |x| < 2^22. */
Q_INLINE v16f v16_round(v16f x)
{
    const v16f magic = v16_set1(12582912.f); /* q_rne */
    return v16_sub(v16_add(x, magic), magic);
}

Q_INLINE void v16i_store_bytes(int8_t *p, v16i x) /* of -128..127 */
{
    _mm_storeu_si128((__m128i *)p, v16i_bytes(x));
}

#endif
