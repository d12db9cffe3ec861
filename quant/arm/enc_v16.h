/* enc_v16.h - what the encoder (enc_body.h) wants of NEON: sixteen 32-bit lanes as four registers,
 * and the nearest point of a grid.
 *
 * A lane is a row.  Codes are looked up as bytes, the 16 rows of one k in a register.  Minima and
 * maxima are those that prefer a number to what is none. */
#ifndef QUANT_ARM_ENC_V16_H
#define QUANT_ARM_ENC_V16_H

#include "quant/arm/neon.h"
#include "quant/encode.h"

/* As enc_body.h calls them. */
#define Q_INLINE INLINE
#define Q_UNROLL UNROLL

/* k that the search looks up together.  Two want more registers than there are. */
enum { ENC_K = 1 };

typedef struct v16f { float32x4_t v[4]; } v16f;
typedef struct v16i { int32x4_t v[4]; } v16i;
typedef struct v16d { float64x2_t v[8]; } v16d;

/* ---- floats ---- */

INLINE v16f v16_load(const float *p)
{
    return (v16f){ { vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12) } };
}
/* The first n lanes, +0 behind them. */
INLINE v16f v16_load_n(const float *p, int n)
{
    float buf[16] = { 0 };
    memcpy(buf, p, (size_t)n * sizeof *p);
    return v16_load(buf);
}
INLINE void v16_store(float *p, v16f x)
{
    UNROLL
    for (int i = 0; i < 4; i++) vst1q_f32(p + 4 * i, x.v[i]);
}
INLINE v16f v16_set1(float x)
{
    const float32x4_t v = vdupq_n_f32(x);
    return (v16f){ { v, v, v, v } };
}
INLINE v16f v16_zero(void) { return v16_set1(0.0f); }
INLINE v16f v16_add(v16f a, v16f b)
{
    UNROLL
    for (int i = 0; i < 4; i++) a.v[i] = vaddq_f32(a.v[i], b.v[i]);
    return a;
}
INLINE v16f v16_sub(v16f a, v16f b)
{
    UNROLL
    for (int i = 0; i < 4; i++) a.v[i] = vsubq_f32(a.v[i], b.v[i]);
    return a;
}
INLINE v16f v16_mul(v16f a, v16f b)
{
    UNROLL
    for (int i = 0; i < 4; i++) a.v[i] = vmulq_f32(a.v[i], b.v[i]);
    return a;
}
INLINE v16f v16_div(v16f a, v16f b)
{
    UNROLL
    for (int i = 0; i < 4; i++) a.v[i] = vdivq_f32(a.v[i], b.v[i]);
    return a;
}
/* a * b + c, rounded once. */
INLINE v16f v16_fma(v16f a, v16f b, v16f c)
{
    UNROLL
    for (int i = 0; i < 4; i++) c.v[i] = vfmaq_f32(c.v[i], a.v[i], b.v[i]);
    return c;
}
INLINE v16f v16_max(v16f a, v16f b)
{
    UNROLL
    for (int i = 0; i < 4; i++) a.v[i] = vmaxnmq_f32(a.v[i], b.v[i]);
    return a;
}
INLINE v16f v16_min(v16f a, v16f b)
{
    UNROLL
    for (int i = 0; i < 4; i++) a.v[i] = vminnmq_f32(a.v[i], b.v[i]);
    return a;
}
INLINE v16f v16_abs(v16f a)
{
    UNROLL
    for (int i = 0; i < 4; i++) a.v[i] = vabsq_f32(a.v[i]);
    return a;
}
/* To the nearest whole number; of small negative ones that is -0, which no sum shows. */
INLINE v16f v16_round(v16f a)
{
    UNROLL
    for (int i = 0; i < 4; i++) a.v[i] = vrndnq_f32(a.v[i]);
    return a;
}
/* Lanes where a > b take x, else y. */
INLINE v16f v16f_where_gt(v16f a, v16f b, v16f x, v16f y)
{
    UNROLL
    for (int i = 0; i < 4; i++) y.v[i] = vbslq_f32(vcgtq_f32(a.v[i], b.v[i]), x.v[i], y.v[i]);
    return y;
}

INLINE void transpose4(float32x4_t r[4])
{
    const float64x2_t a = vreinterpretq_f64_f32(vtrn1q_f32(r[0], r[1])),
                      b = vreinterpretq_f64_f32(vtrn2q_f32(r[0], r[1])),
                      c = vreinterpretq_f64_f32(vtrn1q_f32(r[2], r[3])),
                      d = vreinterpretq_f64_f32(vtrn2q_f32(r[2], r[3]));
    r[0] = vreinterpretq_f32_f64(vtrn1q_f64(a, c));
    r[1] = vreinterpretq_f32_f64(vtrn1q_f64(b, d));
    r[2] = vreinterpretq_f32_f64(vtrn2q_f64(a, c));
    r[3] = vreinterpretq_f32_f64(vtrn2q_f64(b, d));
}

/* Rows to columns: lane r of row[k] becomes lane k of row[r]. */
INLINE void v16_transpose(v16f row[16])
{
    for (int i = 0; i < 4; i++) {
        for (int j = i; j < 4; j++) { /* the squares (i, j) and (j, i) */
            float32x4_t a[4], b[4];
            UNROLL
            for (int r = 0; r < 4; r++) {
                a[r] = row[4 * i + r].v[j];
                b[r] = row[4 * j + r].v[i];
            }
            transpose4(a);
            transpose4(b);
            UNROLL
            for (int r = 0; r < 4; r++) {
                row[4 * i + r].v[j] = b[r];
                row[4 * j + r].v[i] = a[r];
            }
        }
    }
}

/* ---- integers ---- */

INLINE v16i v16i_load(const void *p)
{
    const int32_t *q = p;
    return (v16i){ { vld1q_s32(q), vld1q_s32(q + 4), vld1q_s32(q + 8), vld1q_s32(q + 12) } };
}
INLINE void v16i_store(void *p, v16i x)
{
    UNROLL
    for (int i = 0; i < 4; i++) vst1q_s32((int32_t *)p + 4 * i, x.v[i]);
}
INLINE void v16i_store_bytes(int8_t *p, v16i x) /* of -128..127 */
{
    vst1q_s8(p, narrow_s32(x.v[0], x.v[1], x.v[2], x.v[3]));
}
INLINE v16i v16i_load_s8(const int8_t *p)
{
    const int8x16_t b = vld1q_s8(p);
    const int16x8_t lo = vmovl_s8(vget_low_s8(b)), hi = vmovl_high_s8(b);
    return (v16i){ { vmovl_s16(vget_low_s16(lo)), vmovl_high_s16(lo),
                     vmovl_s16(vget_low_s16(hi)), vmovl_high_s16(hi) } };
}
INLINE v16i v16i_set1(int32_t x)
{
    const int32x4_t v = vdupq_n_s32(x);
    return (v16i){ { v, v, v, v } };
}
INLINE v16i v16i_add(v16i a, v16i b)
{
    UNROLL
    for (int i = 0; i < 4; i++) a.v[i] = vaddq_s32(a.v[i], b.v[i]);
    return a;
}
INLINE v16i v16i_and(v16i a, v16i b)
{
    UNROLL
    for (int i = 0; i < 4; i++) a.v[i] = vandq_s32(a.v[i], b.v[i]);
    return a;
}
INLINE v16i v16i_or(v16i a, v16i b)
{
    UNROLL
    for (int i = 0; i < 4; i++) a.v[i] = vorrq_s32(a.v[i], b.v[i]);
    return a;
}
INLINE v16i v16i_shl(v16i a, int n)
{
    UNROLL
    for (int i = 0; i < 4; i++) a.v[i] = vshlq_s32(a.v[i], vdupq_n_s32(n));
    return a;
}
INLINE v16i v16i_shr(v16i a, int n)
{
    UNROLL
    for (int i = 0; i < 4; i++)
        a.v[i] = vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a.v[i]), vdupq_n_s32(-n)));
    return a;
}
INLINE v16i v16i_mul16(v16i a, int n)
{
    UNROLL
    for (int i = 0; i < 4; i++) a.v[i] = vmulq_n_s32(a.v[i], n);
    return a;
}
INLINE v16i v16i_maxu(v16i a, v16i b)
{
    UNROLL
    for (int i = 0; i < 4; i++)
        a.v[i] = vreinterpretq_s32_u32(vmaxq_u32(vreinterpretq_u32_s32(a.v[i]),
                                                 vreinterpretq_u32_s32(b.v[i])));
    return a;
}
INLINE uint32_t v16i_hmaxu(v16i a)
{
    const uint32x4_t x = vmaxq_u32(vreinterpretq_u32_s32(a.v[0]), vreinterpretq_u32_s32(a.v[1])),
                     y = vmaxq_u32(vreinterpretq_u32_s32(a.v[2]), vreinterpretq_u32_s32(a.v[3]));
    return vmaxvq_u32(vmaxq_u32(x, y));
}
/* Signed byte b of each lane. */
INLINE v16i v16i_byte(v16i a, const int b)
{
    UNROLL
    for (int i = 0; i < 4; i++)
        a.v[i] = vshrq_n_s32(vshlq_s32(a.v[i], vdupq_n_s32(24 - 8 * b)), 24);
    return a;
}
INLINE v16i v16i_where_gt(v16f a, v16f b, v16i x, v16i y)
{
    UNROLL
    for (int i = 0; i < 4; i++) y.v[i] = vbslq_s32(vcgtq_f32(a.v[i], b.v[i]), x.v[i], y.v[i]);
    return y;
}
/* A lane is all ones where it was not 0. */
INLINE v16i v16i_nonzero(v16i a)
{
    UNROLL
    for (int i = 0; i < 4; i++) a.v[i] = vreinterpretq_s32_u32(vtstq_s32(a.v[i], a.v[i]));
    return a;
}
/* The number at each p + i. */
INLINE v16i v16i_gather(const int16_t *p, v16i i)
{
    int32_t at[16];
    int16x4_t x[4];
    v16i r;
    v16i_store(at, i);
    UNROLL
    for (int q = 0; q < 4; q++) {
        x[q] = vld1_dup_s16(p + at[4 * q]);
        x[q] = vld1_lane_s16(p + at[4 * q + 1], x[q], 1);
        x[q] = vld1_lane_s16(p + at[4 * q + 2], x[q], 2);
        x[q] = vld1_lane_s16(p + at[4 * q + 3], x[q], 3);
        r.v[q] = vmovl_s16(x[q]);
    }
    return r;
}

/* ---- from one to another ---- */

INLINE v16i v16_abs_bits(v16f x)
{
    v16i r;
    UNROLL
    for (int i = 0; i < 4; i++) r.v[i] = vreinterpretq_s32_u32(abs_bits(x.v[i]));
    return r;
}
INLINE v16i v16_rne(v16f x)
{
    v16i r;
    UNROLL
    for (int i = 0; i < 4; i++) r.v[i] = vcvtnq_s32_f32(x.v[i]);
    return r;
}
INLINE v16f v16_float(v16i x)
{
    v16f r;
    UNROLL
    for (int i = 0; i < 4; i++) r.v[i] = vcvtq_f32_s32(x.v[i]);
    return r;
}

/* ---- doubles ---- */

INLINE v16d v16d_zero(void)
{
    v16d r;
    UNROLL
    for (int i = 0; i < 8; i++) r.v[i] = vdupq_n_f64(0.0);
    return r;
}
INLINE void v16d_store(double *p, v16d x)
{
    UNROLL
    for (int i = 0; i < 8; i++) vst1q_f64(p + 2 * i, x.v[i]);
}
INLINE v16d v16_double(v16f x)
{
    v16d r;
    UNROLL
    for (int i = 0; i < 4; i++) {
        r.v[2 * i] = vcvt_f64_f32(vget_low_f32(x.v[i]));
        r.v[2 * i + 1] = vcvt_high_f64_f32(x.v[i]);
    }
    return r;
}
INLINE v16d v16d_add(v16d a, v16d b)
{
    UNROLL
    for (int i = 0; i < 8; i++) a.v[i] = vaddq_f64(a.v[i], b.v[i]);
    return a;
}
INLINE v16d v16d_sub(v16d a, v16d b)
{
    UNROLL
    for (int i = 0; i < 8; i++) a.v[i] = vsubq_f64(a.v[i], b.v[i]);
    return a;
}
INLINE v16d v16d_mul(v16d a, v16d b)
{
    UNROLL
    for (int i = 0; i < 8; i++) a.v[i] = vmulq_f64(a.v[i], b.v[i]);
    return a;
}

/* ---- the nearest point of a grid ---- */

/* The half-unit cell of x is t = 2 * x + 128, cut to 0..255; four neighbours have at most two
 * codes, so cell + step[cell / 4] is 4 * code plus 0..3.
 *
 * N5 takes all 256 cells.  N4 needs those of t in 64..192, what lies outside has the codes of the
 * ends, and these no conversion has to find: the upper half of such a float is 0x4280 for 64, one
 * more for each half up to 128, then for each whole. */
enum { HALF_64 = 0x4280 };

typedef struct enc_grid {
    uint8x16x4_t step;
    uint8x16x2_t low, high; /* of the codes: the third and the top byte of the value as a float,
                             * whose others are zero; N4 has one of each */
    int16x8_t first;        /* HALF_64 */
} enc_grid;

INLINE void enc_grid_init(enc_grid *o, const q_enc *in, bool wide)
{
    uint8_t step[64], low[32] = { 0 }, high[32] = { 0 };
    for (int i = 0, code = 0; i < 256; i++) {
        const int cell = wide || i >= 128 ? i : 64 + i / 2, first = code;
        while (code < in->n_grid - 1 && cell - 128 >= in->grid[code] + in->grid[code + 1]) code++;
        if (i % 4 == 0) step[i / 4] = (uint8_t)(4 * code - i);
        else if (code != first) step[i / 4] = (uint8_t)(step[i / 4] + 4 - i % 4);
    }
    for (int c = 0; c < in->n_grid; c++) {
        const uint32_t bits = f32_bits((float)in->grid[c]);
        low[c] = (uint8_t)(bits >> 16);
        high[c] = (uint8_t)(bits >> 24);
    }
    o->first = vdupq_n_s16(HALF_64);
    for (int i = 0; i < 4; i++) o->step.val[i] = vld1q_u8(step + 16 * i);
    for (int i = 0; i < 2; i++) {
        o->low.val[i] = vld1q_u8(low + 16 * i);
        o->high.val[i] = vld1q_u8(high + 16 * i);
    }
}

/* Codes nearest to w * inv2 / 2, a byte per row; far: w * inv2 may be no number. */
INLINE uint8x16_t enc_codes(v16f w, v16f inv2, const enc_grid *o, bool wide, bool far)
{
    const v16f t = v16_add(v16_mul(w, inv2), v16_set1(128.0f));
    uint8x16_t cell;
    if (wide) { /* the conversion and what narrows it cut at both ends */
        uint16x4_t c[4];
        UNROLL
        for (int i = 0; i < 4; i++) c[i] = vqmovn_u32(vcvtq_u32_f32(t.v[i]));
        cell = vcombine_u8(vqmovn_u16(vcombine_u16(c[0], c[1])),
                           vqmovn_u16(vcombine_u16(c[2], c[3])));
    } else {
        const v16f x = far ? v16_max(t, v16_zero()) : t;
        int16x8_t h[2];
        UNROLL
        for (int i = 0; i < 2; i++) {
            h[i] = vuzp2q_s16(vreinterpretq_s16_f32(x.v[2 * i]),
                              vreinterpretq_s16_f32(x.v[2 * i + 1]));
            h[i] = vqsubq_s16(h[i], o->first);
        }
        cell = vcombine_u8(vqmovun_s16(h[0]), vqmovun_s16(h[1]));
    }
    const uint8x16_t step = vqtbl4q_u8(o->step, vshrq_n_u8(cell, 2));
    return vshrq_n_u8(vaddq_u8(cell, step), 2);
}

INLINE v16f enc_value(uint8x16_t code, const enc_grid *o, bool wide)
{
    const uint8x16_t low = wide ? vqtbl2q_u8(o->low, code) : vqtbl1q_u8(o->low.val[0], code);
    const uint8x16_t high = wide ? vqtbl2q_u8(o->high, code) : vqtbl1q_u8(o->high.val[0], code);
    const uint16x8_t a = vreinterpretq_u16_u8(vzip1q_u8(low, high)),
                     b = vreinterpretq_u16_u8(vzip2q_u8(low, high));
    return (v16f){ { vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(a), 16)),
                     vreinterpretq_f32_u32(vshll_high_n_u16(a, 16)),
                     vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(b), 16)),
                     vreinterpretq_f32_u32(vshll_high_n_u16(b, 16)) } };
}

/* Grid values nearest to w * inv for ENC_K k; far: |w * inv| may be above 39 (N5: 74). */
INLINE void enc_values(v16f g[ENC_K], const v16f w[ENC_K], v16f inv, const enc_grid *o, bool wide,
                       bool far)
{
    const v16f inv2 = v16_add(inv, inv);
    UNROLL
    for (int i = 0; i < ENC_K; i++)
        g[i] = enc_value(enc_codes(w[i], inv2, o, wide, far), o, wide);
}

/* The same for 4 k, and their codes, k = byte of a lane. */
INLINE v16i enc_codes4(v16f g[4], const v16f w[4], v16f inv, const enc_grid *o, bool wide)
{
    const v16f inv2 = v16_add(inv, inv);
    uint8_t by_k[64], by_row[64];
    for (int i = 0; i < 4; i++) { /* a loop: nobody waits for it */
        const uint8x16_t code = enc_codes(w[i], inv2, o, wide, true);
        vst1q_u8(by_k + 16 * i, code);
        g[i] = enc_value(code, o, wide);
    }
    const uint8x16x4_t c = { { vld1q_u8(by_k), vld1q_u8(by_k + 16), vld1q_u8(by_k + 32),
                               vld1q_u8(by_k + 48) } };
    vst4q_u8(by_row, c);
    return v16i_load(by_row);
}

#endif
