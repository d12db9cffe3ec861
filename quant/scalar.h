/* scalar.h - the scalar arithmetic of arith 1, once for the reference, the codecs and the tests.
 *
 * Everything is static inline and uses only exactly rounded operations; the build has
 * -ffp-contract=off, so an fma exists only where one is written. */
#ifndef QUANT_SCALAR_H
#define QUANT_SCALAR_H

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

static_assert(FLT_EVAL_METHOD == 0, "float expressions must be evaluated as float");
#if defined(__FAST_MATH__)
#error "vaquita computes exactly: build it without -ffast-math"
#endif

#define Q_BITS_FINITE 0x7f7fffffu /* bits of FLT_MAX: above it (sign removed) stand inf and NaN */
#define Q_TINY 0x1p-100f          /* blocks whose largest magnitude is below become zeros */

static inline uint32_t q_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float q_float(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* Nearest integer, ties to even, |x| < 2^22: at 1.5 * 2^23 the spacing of floats is 1. */
static inline float q_rne(float x) { return (x + 12582912.f) - 12582912.f; }

static inline int q_rnei(float x) { return (int)q_rne(x); }

/* Unsigned maximum of the bits of |x[i]|: orders floats as their magnitudes do and puts inf and NaN
 * above Q_BITS_FINITE, which a float comparison would lose. */
static inline uint32_t q_max_bits(const float *x, int n)
{
    uint32_t m = 0;
    for (int i = 0; i < n; i++) {
        const uint32_t b = q_bits(x[i]) & 0x7fffffffu;
        m = b > m ? b : m;
    }
    return m;
}

/* The 16-lane order: lane[i] += lane[i + 8], + 4, + 2, + 1. */
static inline float q_sum16(const float lane[16])
{
    float s[8];
    for (int i = 0; i < 8; i++) s[i] = lane[i] + lane[i + 8];
    for (int i = 0; i < 4; i++) s[i] += s[i + 4];
    s[0] += s[2];
    s[1] += s[3];
    return s[0] + s[1];
}

/* exp, 0.91 ulp.  Below -87: 0; above 88.7: inf; so the exponent added last never leaves its field.
 * n is read from the bits of t + 1.5 * 2^23, which is defined for every x, NaN included. */
static inline float q_exp(float x)
{
    if (x < -87.0f) return 0.0f;
    if (x > 88.7f) return q_float(0x7f800000u);
    const float t = x * 0x1.715476p+0f;
    const float big = t + 12582912.f;
    const float n = big - 12582912.f;
    float r = fmaf(n, -0x1.62e43p-1f, x);
    r = fmaf(n, 0x1.05c610p-29f, r);
    float p = 0x1.6a243ap-10f;
    p = fmaf(p, r, 0x1.1239ep-7f);
    p = fmaf(p, r, 0x1.5558f2p-5f);
    p = fmaf(p, r, 0x1.555492p-3f);
    p = fmaf(p, r, 0x1.fffffcp-2f);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    return q_float(q_bits(p) + ((q_bits(big) - 0x4b400000u) << 23));
}

#endif
