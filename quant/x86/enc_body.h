/* enc_body.h - the passes of the encoder (ref_encode.c) in 16 lanes, a lane per row; each
 * enc_<isa>.c compiles it once.
 *
 * The bits are the reference's because each lane does the reference's operations in its order.
 * Where it differs: w * inv * 2 is w * (inv * 2), as doubling is exact; sums of g * g without
 * importance are integers below 2^24, where fma and * + agree; without importance the factor 1 is
 * left out.  Nearest codes are looked up four k at a time, in whichever way an ISA is good at. */
#ifndef QUANT_X86_ENC_BODY_H
#define QUANT_X86_ENC_BODY_H

#include "quant/encode.h"
#include "quant/x86/v16.h"

#include <string.h>

/* ---- what differs by ISA: operations v16.h lacks, and the nearest point of a grid ---- */

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
Q_INLINE void enc_grid4(v16f g[4], const v16f w[4], v16f inv, const enc_grid *o, bool wide,
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
Q_INLINE void enc_grid4(v16f g[4], const v16f w[4], v16f inv, const enc_grid *o, bool wide,
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

/* ---- one sub-block ---- */

typedef struct enc_block {
    v16f w[Q_ENC_SUB];      /* normalised, k-major */
    float imp[Q_ENC_SUB];
    bool plain;             /* all of imp is 1 */
} enc_block;

/* Kinds of formats, by the points of their grid.  The search, where the time goes, has its own code
 * for each; everything else asks as it goes (ANY), which keeps the program small. */
enum { ANY = -1, LINEAR = 0, PAIRS = 2, GRID16 = 16, GRID32 = 32 };

typedef struct enc_pass {
    const q_enc *in;
    enc_grid table;
    v16f mul, mul2, lo, hi;
} enc_pass;

static void pass_init(enc_pass *o, const q_enc *in)
{
    o->in = in;
    if (in->grid) enc_grid_init(&o->table, in, in->n_grid == GRID32);
    o->mul = v16_load(in->mul);
    o->mul2 = v16_load(in->mul2);
    o->lo = v16_set1(in->lo);
    o->hi = v16_set1(in->hi);
}

/* Source weights of 16 k from k0, k-major; zeros where there are none. */
static void __attribute__((noinline)) load16(v16f w[16], const q_enc *in, int k0)
{
    const int left = in->k - k0 < 16 ? (in->k > k0 ? in->k - k0 : 0) : 16;
    const float *p = in->src + k0;
    if (left == 16 && in->n == Q_ROWS) {
        for (int r = 0; r < Q_ROWS; r++) w[r] = v16_load(p + (size_t)r * in->ld);
    } else {
        for (int r = 0; r < Q_ROWS; r++) {
            w[r] = v16_zero();
            if (r < in->n && left) w[r] = v16_load_n(p + (size_t)r * in->ld, left);
        }
    }
    v16_transpose(w);
}

static void __attribute__((noinline)) load_block(enc_block *b, const enc_pass *o, int k0)
{
    const q_enc *in = o->in;
    const int sub = in->sub;
    for (int i = 0; i < sub; i += 16) load16(b->w + i, in, k0 + i);
    for (int i = 0; i < sub; i++) b->w[i] = v16_mul(v16_mul(b->w[i], o->mul), o->mul2);
    b->plain = !in->imp && k0 + sub <= in->k;
    v16_store(b->imp, v16_set1(1.0f));
    v16_store(b->imp + 16, v16_set1(1.0f));
    for (int i = 0; !b->plain && i < sub; i++) b->imp[i] = q_enc_imp(in, k0 + i);
}

/* x, y held within lo..hi; what is not a number becomes lo. */
Q_INLINE v16f within(v16f x, float lo, float hi)
{
    return v16_min(v16_max(x, v16_set1(lo)), v16_set1(hi));
}

/* x and y of the points that the table has for the pair (w[0], w[1]) * inv; far: the pair may lie
 * outside of it. */
Q_INLINE void table_point(v16f g[2], const enc_pass *o, const v16f w[2], v16f inv, bool far)
{
    const float lo = -Q_ENC_CELL, hi = Q_ENC_CELL - 1;
    v16f x = v16_mul(w[0], inv), y = v16_mul(w[1], inv);
    if (far) {
        x = within(x, lo, hi);
        y = within(y, lo, hi);
    }
    const v16i at = v16i_add(v16i_mul16(v16_rne(x), q_enc_cell(1, 0)), v16_rne(y));
    const v16i e = v16i_gather(q_enc_middle(o->in), at);
    g[0] = v16_float(v16i_byte(e, 0));
    g[1] = v16_float(v16i_byte(e, 1));
}

/* Grid values nearest to w * inv for 4 k. */
Q_INLINE void nearest4(v16f g[4], const enc_pass *o, const v16f w[4], v16f inv, int kind, bool far)
{
    if (kind == PAIRS) {
        table_point(g, o, w, inv, far);
        table_point(g + 2, o, w + 2, inv, far);
        return;
    }
    if (kind != LINEAR) {
        enc_grid4(g, w, inv, &o->table, kind == GRID32, far);
        return;
    }
    const v16f magic = v16_set1(12582912.f); /* q_rne */
    Q_UNROLL
    for (int i = 0; i < 4; i++) {
        const v16f x = v16_min(v16_max(v16_mul(w[i], inv), o->lo), o->hi);
        g[i] = v16_sub(v16_add(x, magic), magic);
    }
}

static void __attribute__((noinline)) nearest_any(v16f g[4], const enc_pass *o, const v16f w[4],
                                                  v16f inv)
{
    if (o->in->n_point) nearest4(g, o, w, inv, PAIRS, true);
    else if (!o->in->grid) nearest4(g, o, w, inv, LINEAR, true);
    else if (o->in->n_grid == GRID16) nearest4(g, o, w, inv, GRID16, true);
    else nearest4(g, o, w, inv, GRID32, true);
}

/* For codes nearest under 1 / inv: wg = sum imp * w * g, gg = sum imp * g * g. */
static void __attribute__((noinline)) products_any(v16f *wg, v16f *gg, const enc_pass *o,
                                                   const enc_block *b, v16f inv)
{
    v16f p = v16_zero(), q = v16_zero(), g[4];
    for (int k = 0; k < o->in->sub; k++) {
        if (k % 4 == 0) nearest_any(g, o, b->w + k, inv);
        const v16f ig = v16_mul(v16_set1(b->imp[k]), g[k % 4]);
        p = v16_add(p, v16_mul(b->w[k], ig));
        q = v16_add(q, v16_mul(g[k % 4], ig));
    }
    *wg = p;
    *gg = q;
}

/* The same where imp is 1; far as in enc_grid4: in the search the weights of a row are within reach
 * of the grid. */
Q_INLINE void products(v16f *wg, v16f *gg, const enc_pass *o, const enc_block *b, v16f inv,
                       int kind, bool far)
{
    v16f p = v16_zero(), q = v16_zero();
    for (int k = 0; k < o->in->sub; k += 4) {
        v16f g[4];
        nearest4(g, o, b->w + k, inv, kind, far);
        Q_UNROLL
        for (int i = 0; i < 4; i++) {
            p = v16_add(p, v16_mul(b->w[k + i], g[i]));
            q = v16_fma(g[i], g[i], q);
        }
    }
    *wg = p;
    *gg = q;
}

Q_INLINE v16f fit_block(const enc_pass *o, const enc_block *b, int kind)
{
    const v16f zero = v16_zero(), one = v16_set1(1.0f);
    v16f top = zero, mag = zero, sigma = zero, best = zero;
    for (int k = 0; k < o->in->sub; k++) {
        const v16f a = v16_abs(b->w[k]);
        top = v16f_where_gt(a, mag, b->w[k], top);
        mag = v16_max(a, mag);
    }
    /* a >= VANISHING is not (VANISHING > a) */
    const v16f rcp = v16f_where_gt(v16_set1(Q_ENC_VANISHING), mag, zero, v16_div(one, top));
    for (int i = 0; i < o->in->n_place; i++) {
        v16f wg, gg;
        const v16f inv = v16_mul(v16_set1(o->in->place[i]), rcp);
        if (kind == ANY) products_any(&wg, &gg, o, b, inv);
        else products(&wg, &gg, o, b, inv, kind, false);
        const v16f s = v16_div(wg, v16f_where_gt(gg, zero, gg, one)), gain = v16_mul(wg, s);
        sigma = v16f_where_gt(gain, best, s, sigma);
        best = v16f_where_gt(gain, best, gain, best);
    }
    return sigma;
}

/* 1 / x, but 0 for 0. */
Q_INLINE v16f reciprocal(v16f x)
{
    const v16f zero = v16_zero();
    return v16f_where_gt(v16_abs(x), zero, v16_div(v16_set1(1.0f), x), zero);
}

static void round_block(const enc_pass *o, const enc_block *b, v16f scale, v16f sigma,
                          int8_t *s8, v16d *num, v16d *den)
{
    const v16f zero = v16_zero(), magic = v16_set1(12582912.f);
    const v16f ratio = v16_sub(v16_add(v16_div(sigma, scale), magic), magic);
    const v16f mid = v16f_where_gt(scale, zero, ratio, zero);
    const bool n4 = b->plain && o->in->n_grid == GRID16; /* most of what is encoded */
    v16f s = zero, best = zero, bwg = zero, bgg = zero;
    for (int i = -o->in->reach; i <= o->in->reach; i++) {
        v16f wg, gg, t = v16_add(mid, v16_set1((float)i));
        t = v16_min(v16_max(t, v16_set1(-127.0f)), v16_set1(127.0f));
        const v16f sg = v16_mul(scale, t);
        if (n4) products(&wg, &gg, o, b, reciprocal(sg), GRID16, true);
        else products_any(&wg, &gg, o, b, reciprocal(sg));
        const v16f gain = v16_mul(sg, v16_sub(v16_add(wg, wg), v16_mul(sg, gg)));
        s = v16f_where_gt(gain, best, t, s); /* s = 0 gains 0 */
        bwg = v16f_where_gt(gain, best, wg, bwg);
        bgg = v16f_where_gt(gain, best, gg, bgg);
        best = v16f_where_gt(gain, best, gain, best);
    }
    _mm_storeu_si128((__m128i *)s8, v16i_bytes(v16_rne(s)));
    *num = v16d_add(*num, v16_double(v16_mul(s, bwg)));
    *den = v16d_add(*den, v16_double(v16_mul(v16_mul(s, s), bgg)));
}

/* ---- packing ---- */

/* Codes nearest to w * inv of 4 k, k = byte of a lane; g: their values in the grid. */
static v16i codes4(const enc_pass *o, v16f g[4], const v16f w[4], v16f inv)
{
    if (o->in->grid) {
        return o->in->n_grid == GRID16 ? enc_codes4(g, w, inv, &o->table, false)
                                       : enc_codes4(g, w, inv, &o->table, true);
    }
    nearest4(g, o, w, inv, LINEAR, true);
    v16i line = v16i_set1(0);
    const v16i first = v16i_set1(o->in->type == Q_L6 ? 32 : 0), byte = v16i_set1(255);
    Q_UNROLL
    for (int i = 0; i < 4; i++) {
        const v16i c = v16i_and(v16i_add(v16_rne(g[i]), first), byte);
        line = v16i_or(line, v16i_shl(c, 8 * i));
    }
    return line;
}

/* Puts the codes of chunk c (4 k) of half a tile into its planes, which were zero (t16.h). */
static void put_chunk(int type, uint8_t *planes, int c, v16i codes)
{
    if (type == Q_L8) {
        v16i_store(planes + 64 * c, codes);
        return;
    }
    const v16i low = v16i_and(codes, v16i_set1(0x0f0f0f0f));
    uint8_t *line = planes + 64 * (c / 8 * 4 + c % 4);
    v16i_store(line, v16i_or(v16i_load(line), c % 8 < 4 ? low : v16i_shl(low, 4)));
    if (type != Q_L6 && type != Q_N5) return;
    const v16i high = v16i_and(v16i_shr(codes, 4), v16i_set1(0x03030303));
    line = planes + 512 + 64 * (type == Q_L6 ? c / 8 * 2 + c % 2 : c / 8);
    const int bit = type == Q_L6 ? c % 8 / 2 * 2 : c % 8;
    v16i_store(line, v16i_or(v16i_load(line), v16i_shl(high, bit)));
}

/* Adds the error of weights w, written as stored * s * g, and their squares. */
Q_INLINE void add_error(v16d *err, v16d *sum, v16f w, v16f stored, v16f s, v16f g)
{
    /* s * g is exact; in a missing row all is 0 */
    const v16d v = v16_double(v16_mul(stored, v16_mul(s, g)));
    const v16d x = v16_double(w), d = v16d_sub(x, v);
    *err = v16d_add(*err, v16d_mul(d, d));
    *sum = v16d_add(*sum, v16d_mul(x, x));
}

/* Codes of the pair (w[0], w[1]) * inv: see nearest_points in ref_encode.c. */
static v16i __attribute__((noinline)) nearest_points(const q_enc *in, const v16f w[2], v16f inv,
                                                     const float imp[2])
{
    const v16f x = within(v16_mul(w[0], inv), -Q_ENC_FAR, Q_ENC_FAR);
    const v16f y = within(v16_mul(w[1], inv), -Q_ENC_FAR, Q_ENC_FAR);
    const v16f a = v16_mul(v16_set1(imp[0]), x), b = v16_mul(v16_set1(imp[1]), y);
    v16f best = v16_set1(-Q_ENC_FAR * Q_ENC_FAR);
    v16i code = v16i_set1(0);
    for (int i = 0; i < in->n_point; i++) {
        const float px = in->px[i], py = in->py[i];
        const float own = px * px * 0.5f * imp[0] + py * py * 0.5f * imp[1];
        const v16f s = v16_sub(v16_add(v16_mul(a, v16_set1(px)), v16_mul(b, v16_set1(py))),
                               v16_set1(own));
        code = v16i_where_gt(s, best, v16i_set1(i), code);
        best = v16f_where_gt(s, best, s, best);
    }
    return code;
}

/* As pack_block, for pairs. */
static void pack_points(const enc_pass *o, uint8_t *tile, int t, int i, v16f scale, v16f stored,
                        v16d *err, v16d *sum)
{
    const q_enc *in = o->in;
    const int k0 = (t * Q_ENC_SUBS + i) * in->sub;
    const v16i s8 = v16i_load_s8((const int8_t *)tile + Q_ROWS * i), some = v16i_nonzero(s8);
    const v16f s = v16_float(s8), inv = reciprocal(v16_mul(scale, s));
    for (int j = 0; j < in->sub; j += 16) {
        v16f w[16], n[2];
        load16(w, in, k0 + j);
        for (int k = 0; k < 16; k += 2) {
            const int at = k0 + j + k;
            const float imp[2] = { q_enc_imp(in, at), q_enc_imp(in, at + 1) };
            for (int l = 0; l < 2; l++) n[l] = v16_mul(v16_mul(w[k + l], o->mul), o->mul2);
            const v16i code = v16i_and(nearest_points(in, n, inv, imp), some);
            const v16i point = v16i_gather(in->point, code);
            int32_t c[Q_ROWS];
            v16i_store(c, code);
            for (int r = 0; r < Q_ROWS; r++)
                q_enc_put_point(in->type, tile, i * in->sub + j + k, r, c[r]);
            if (at < in->k) add_error(err, sum, w[k], stored, s, v16_float(v16i_byte(point, 0)));
            if (at + 1 < in->k)
                add_error(err, sum, w[k + 1], stored, s, v16_float(v16i_byte(point, 1)));
        }
    }
}

static void pack_block(const enc_pass *o, uint8_t *tile, int t, int i, v16f scale, v16f stored,
                         v16d *err, v16d *sum)
{
    const q_enc *in = o->in;
    const int sub = in->sub, k0 = (t * Q_ENC_SUBS + i) * sub;
    const v16i s8 = v16i_load_s8((const int8_t *)tile + Q_ROWS * i), some = v16i_nonzero(s8);
    const v16f s = v16_float(s8), inv = reciprocal(v16_mul(scale, s));
    for (int j = 0; j < sub; j += 16) {
        v16f w[16], n[4], g[4];
        load16(w, in, k0 + j);
        for (int k = 0; k < 16; k += 4) {
            Q_UNROLL
            for (int l = 0; l < 4; l++) n[l] = v16_mul(v16_mul(w[k + l], o->mul), o->mul2);
            const v16i codes = codes4(o, g, n, inv);
            const int at = i * sub + j + k; /* in the tile */
            put_chunk(in->type, tile + 64 + 512 * (at / Q_TILE), at % Q_TILE / 4,
                      v16i_and(codes, some));
            for (int l = 0; l < 4 && k0 + j + k + l < in->k; l++)
                add_error(err, sum, w[k + l], stored, s, g[l]);
        }
    }
}

/* ---- the passes ---- */

static v16f fit_any(const enc_pass *o, const enc_block *b) { return fit_block(o, b, ANY); }

static void enc_fit_v16(const q_enc *in, uint8_t *tiles, float top[16])
{
    enc_pass o;
    enc_block b;
    pass_init(&o, in);
    v16f most = v16_zero();
    for (int t = 0; t < in->n_tile; t++) {
        for (int i = 0; i < Q_ENC_SUBS; i++) {
            load_block(&b, &o, (t * Q_ENC_SUBS + i) * in->sub);
            const v16f sigma = !b.plain                ? fit_any(&o, &b)
                               : in->n_point           ? fit_block(&o, &b, PAIRS)
                               : !in->grid             ? fit_block(&o, &b, LINEAR)
                               : in->n_grid == GRID16  ? fit_block(&o, &b, GRID16)
                                                       : fit_block(&o, &b, GRID32);
            most = v16_max(v16_abs(sigma), most);
            v16_store((float *)(void *)(tiles + (size_t)t * in->tile_bytes + 64 + 64 * i), sigma);
        }
    }
    v16_store(top, most);
}

static void enc_round_v16(const q_enc *in, uint8_t *tiles, const float scale[16], double num[16],
                          double den[16])
{
    enc_pass o;
    enc_block b;
    pass_init(&o, in);
    v16d n = v16d_zero(), d = v16d_zero();
    for (int t = 0; t < in->n_tile; t++) {
        uint8_t *tile = tiles + (size_t)t * in->tile_bytes;
        for (int i = 0; i < Q_ENC_SUBS; i++) {
            const v16f sigma = v16_load((const float *)(const void *)(tile + 64 + 64 * i));
            load_block(&b, &o, (t * Q_ENC_SUBS + i) * in->sub);
            round_block(&o, &b, v16_load(scale), sigma, (int8_t *)tile + Q_ROWS * i, &n, &d);
        }
    }
    v16d_store(num, n);
    v16d_store(den, d);
}

static void enc_pack_v16(const q_enc *in, uint8_t *tiles, const float scale[16],
                         const float stored[16], double err[16], double sum[16])
{
    enc_pass o;
    pass_init(&o, in);
    v16d e = v16d_zero(), s = v16d_zero();
    for (int t = 0; t < in->n_tile; t++) {
        uint8_t *tile = tiles + (size_t)t * in->tile_bytes;
        memset(tile + 64, 0, in->tile_bytes - 64);
        for (int i = 0; i < Q_ENC_SUBS; i++) {
            if (in->n_point) pack_points(&o, tile, t, i, v16_load(scale), v16_load(stored), &e, &s);
            else pack_block(&o, tile, t, i, v16_load(scale), v16_load(stored), &e, &s);
        }
    }
    v16d_store(err, e);
    v16d_store(sum, s);
}

static void enc_max_v16(uint32_t max_bits[16], const float *src, size_t ld, int nrows, int k)
{
    for (int r = 0; r < Q_ROWS; r++) {
        const float *p = src + (size_t)r * ld;
        v16i m = v16i_set1(0);
        int i = r < nrows ? 0 : k;
        for (; i + 16 <= k; i += 16) m = v16i_maxu(m, v16_abs_bits(v16_load(p + i)));
        if (i < k) m = v16i_maxu(m, v16_abs_bits(v16_load_n(p + i, k - i)));
        max_bits[r] = v16i_hmaxu(m);
    }
}

Q_INLINE void fill_enc(q_kern *t)
{
    t->enc_max = enc_max_v16;
    t->enc_fit = enc_fit_v16;
    t->enc_round = enc_round_v16;
    t->enc_pack = enc_pack_v16;
}

#endif
