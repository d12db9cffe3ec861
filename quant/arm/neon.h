/* neon.h - what every AArch64 kernel shares: forced inlining, exp, 16-lane sums, byte quantisers.
 *
 * Bodies here are inlined into files built with different flags, so all of it is static.  Each
 * helper states the float operations it does; none is an estimate (no vrecpe, no vrsqrte), and fma
 * appears only where arith 1 has one. */
#ifndef QUANT_ARM_NEON_H
#define QUANT_ARM_NEON_H

#include "quant/quant.h"

/* GCC's scheduler before register allocation hoists the loads of a whole unrolled tile and then
 * spills them: the N4 GEMV of gcc 12 is 325 instructions per tile with it and 307 without, L6 580
 * and 396.  The pass after allocation, which in-order cores need, stays. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-schedule-insns")
#endif

#include <arm_neon.h>
#include <string.h>

/* Bodies take the format and the number of tokens as constants; only inlining makes them so. */
#define INLINE static inline __attribute__((always_inline, unused))

/* Register arrays need constant indices: loops over them are unrolled whole (up to 8 rounds). */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

/* Changes nothing.  Without it gcc goes on summing in a copy of a sum that was just multiplied into
 * z, an instruction more for each. */
INLINE void keep_apart(int32x4_t *z, int32x4_t *sum)
{
    __asm__("" : "+w"(*z), "+w"(*sum));
}

#define NEON_FINITE_MAX 0x7f7fffffu /* bits of the largest finite f32 */
#define NEON_TINY 0x0d800000u       /* bits of 2^-100: a block below it quantises to zeros */

INLINE uint32_t f32_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

INLINE float f32_of_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* exp of exact.md 2.  Both ends are chosen after the polynomial, which must not trap or loop on
 * anything: the conversion saturates, so n is defined for every x. */
INLINE float32x4_t exp_f32x4(float32x4_t x)
{
    const float32x4_t t = vmulq_n_f32(x, 0x1.715476p+0f);
    const float32x4_t n = vrndnq_f32(t);
    float32x4_t r = vfmaq_f32(x, n, vdupq_n_f32(-0x1.62e43p-1f));
    r = vfmaq_f32(r, n, vdupq_n_f32(0x1.05c610p-29f));
    float32x4_t p = vdupq_n_f32(0x1.6a243ap-10f);
    p = vfmaq_f32(vdupq_n_f32(0x1.1239ep-7f), p, r);
    p = vfmaq_f32(vdupq_n_f32(0x1.5558f2p-5f), p, r);
    p = vfmaq_f32(vdupq_n_f32(0x1.555492p-3f), p, r);
    p = vfmaq_f32(vdupq_n_f32(0x1.fffffcp-2f), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f), p, r);
    const int32x4_t e = vshlq_n_s32(vcvtnq_s32_f32(t), 23);
    p = vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(p), e));
    p = vbslq_f32(vcgtq_f32(x, vdupq_n_f32(88.7f)), vdupq_n_f32(f32_of_bits(0x7f800000u)), p);
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(p),
                                           vcltq_f32(x, vdupq_n_f32(-87.0f))));
}

INLINE float exp_f32(float x)
{
    return vgetq_lane_f32(exp_f32x4(vdupq_n_f32(x)), 0);
}

/* The 16-lane order: v[i / 4] lane i % 4; then +8, +4, +2, +1. */
INLINE float sum16_f32(const float32x4_t v[4])
{
    const float32x4_t a = vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]));
    const float32x2_t b = vadd_f32(vget_low_f32(a), vget_high_f32(a));
    return vget_lane_f32(b, 0) + vget_lane_f32(b, 1);
}

INLINE uint32x4_t abs_bits(float32x4_t x)
{
    return vandq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(0x7fffffffu));
}

/* Unsigned maximum of the magnitudes' bits of n floats, n a multiple of 16: it sees NaN and inf. */
INLINE uint32_t max_abs_bits(const float *x, int n)
{
    uint32x4_t a = vdupq_n_u32(0), b = a;
    for (int i = 0; i < n; i += 16) {
        a = vmaxq_u32(a, abs_bits(vld1q_f32(x + i)));
        b = vmaxq_u32(b, abs_bits(vld1q_f32(x + i + 4)));
        a = vmaxq_u32(a, abs_bits(vld1q_f32(x + i + 8)));
        b = vmaxq_u32(b, abs_bits(vld1q_f32(x + i + 12)));
    }
    return vmaxvq_u32(vmaxq_u32(a, b));
}

INLINE int8x16_t narrow_s32(int32x4_t a, int32x4_t b, int32x4_t c, int32x4_t d)
{
    const int16x8_t lo = vcombine_s16(vmovn_s32(a), vmovn_s32(b));
    const int16x8_t hi = vcombine_s16(vmovn_s32(c), vmovn_s32(d));
    return vcombine_s8(vmovn_s16(lo), vmovn_s16(hi));
}

/* rne(x * inv) of 16 values known to stay in -127..127. */
INLINE int8x16_t quant16_a8(const float *x, float inv)
{
    return narrow_s32(vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x), inv)),
                      vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 4), inv)),
                      vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 8), inv)),
                      vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 12), inv)));
}

/* hi = (q + 32639) / 254 - 128 for |q| <= 32384.  The dividend, 255..65023, halves to v <= 32511
 * and v / 127 = v * 33027 >> 22 exactly: 33027 * 127 = 2^22 + 125, and v * 125 < 2^22. */
INLINE int32x4_t high_byte(int32x4_t q)
{
    const int32x4_t v = vshrq_n_s32(vaddq_s32(q, vdupq_n_s32(32639)), 1);
    return vsubq_s32(vshrq_n_s32(vmulq_n_s32(v, 33027), 22), vdupq_n_s32(128));
}

/* Two bytes of 16 values known to stay in -32384..32384: q = rne(x * inv) = 254 * hi + lo. */
INLINE void quant16_a16(int8_t *hi, int8_t *lo, const float *x, float inv)
{
    int32x4_t h[4], l[4];
    UNROLL
    for (int i = 0; i < 4; i++) {
        const int32x4_t q = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 4 * i), inv));
        h[i] = high_byte(q);
        l[i] = vmlsq_n_s32(q, h[i], 254);
    }
    vst1q_s8(hi, narrow_s32(h[0], h[1], h[2], h[3]));
    vst1q_s8(lo, narrow_s32(l[0], l[1], l[2], l[3]));
}

/* Two-byte quantisation of one block of 64 (exact.md 2): returns d, the scale of lo (hi: 254 * d).
 * *bad is set when a value is not finite; the block is then zero. */
INLINE float quant64_a16(int8_t *hi, int8_t *lo, const float *x, int *bad)
{
    const uint32_t mb = max_abs_bits(x, 64);
    *bad |= mb > NEON_FINITE_MAX;
    if (mb < NEON_TINY || mb > NEON_FINITE_MAX) {
        memset(hi, 0, 64);
        memset(lo, 0, 64);
        return 0.0f;
    }
    const float m = f32_of_bits(mb), inv = 32384.0f / m;
    for (int i = 0; i < 64; i += 16) quant16_a16(hi + i, lo + i, x + i, inv);
    return m / 32384.0f;
}

/* 16 outputs, the first `rows` of them stored: the last group of a matrix may be clipped. */
INLINE void store_rows(float *y, int rows, const float32x4_t v[4])
{
    if (rows >= Q_ROWS) {
        UNROLL
        for (int i = 0; i < 4; i++) vst1q_f32(y + 4 * i, v[i]);
    } else {
        float buf[Q_ROWS];
        UNROLL
        for (int i = 0; i < 4; i++) vst1q_f32(buf + 4 * i, v[i]);
        memcpy(y, buf, (size_t)rows * sizeof *y);
    }
}

#endif
