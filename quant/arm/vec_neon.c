/* vec_neon.c - vectors on AArch64: quantisation, norms, activations, rope, sampling.
 *
 * Baseline ARMv8-A.  Lanes are either outputs (no order to keep) or the 16 lanes of exact.md 1.4,
 * which are four q registers here.  A short end of a vector goes through a zero-padded copy or the
 * same arithmetic on single values: nothing is read or written past n. */
#include "quant/table.h"

#if defined(__aarch64__) && defined(__ARM_NEON)

#include "quant/arm/neon.h"

#include <math.h>

/* A copy of the last n < len values of a vector, zeros after them. */
static const float *padded(float *buf, int len, const float *x, int n)
{
    memset(buf, 0, (size_t)len * sizeof *buf);
    if (n > 0) memcpy(buf, x, (size_t)n * sizeof *buf);
    return buf;
}

/* ---- quantisation ---- */

static int32_t minus_sum(int8x16_t q)
{
    return -(int32_t)vaddlvq_s8(q);
}

static int quant_a64_neon(q_acts *a, int m, int t0, int nt, const float *x, int n)
{
    int bad = 0;
    for (int t = 0; t < nt; t++) {
        float buf[Q_TILE];
        const int left = n - t * Q_TILE;
        const float *p = left >= Q_TILE ? x + t * Q_TILE
                                        : padded(buf, Q_TILE, left > 0 ? x + t * Q_TILE : x, left);
        const size_t at = (size_t)(t0 + t) * (size_t)a->M + (size_t)m;
        const uint32_t mb = max_abs_bits(p, Q_TILE);
        bad |= mb > NEON_FINITE_MAX;
        const bool zero = mb < NEON_TINY || mb > NEON_FINITE_MAX;
        const float mx = f32_of_bits(mb), inv = 127.0f / mx;
        a->d[at] = zero ? 0.0f : mx / 127.0f;
        for (int s = 0; s < 4; s++) {
            const int8x16_t q = zero ? vdupq_n_s8(0) : quant16_a8(p + 16 * s, inv);
            vst1q_s8(a->q + at * Q_TILE + 16 * s, q);
            a->nsum[4 * at + (size_t)s] = minus_sum(q);
        }
    }
    return bad;
}

static int quant_a16_neon(q_acts *a, int m, const float *x, int n)
{
    int bad = 0;
    for (int t = 0; t < a->kt; t++) {
        float buf[Q_TILE];
        const int left = n - t * Q_TILE;
        const float *p = left >= Q_TILE ? x + t * Q_TILE
                                        : padded(buf, Q_TILE, left > 0 ? x + t * Q_TILE : x, left);
        const size_t at = (size_t)t * (size_t)a->M + 2 * (size_t)m;
        int8_t *q = a->q + at * Q_TILE; /* token 2m = hi, token 2m + 1 = lo */
        const float d = quant64_a16(q, q + Q_TILE, p, &bad);
        a->d[at] = 254.0f * d;
        a->d[at + 1] = d;
        for (int s = 0; s < 8; s++) a->nsum[4 * at + (size_t)s] = minus_sum(vld1q_s8(q + 16 * s));
    }
    return bad;
}

/* ---- norms and element-wise ---- */

static int rmsnorm_neon(float *y, const float *x, const float *w, int n, float eps)
{
    float32x4_t s[4];
    for (int j = 0; j < 4; j++) s[j] = vdupq_n_f32(0.0f);
    int i = 0;
    for (; i + 16 <= n; i += 16) {
        UNROLL
        for (int j = 0; j < 4; j++) {
            const float32x4_t v = vld1q_f32(x + i + 4 * j);
            s[j] = vfmaq_f32(s[j], v, v);
        }
    }
    if (i < n) {
        float buf[16];
        padded(buf, 16, x + i, n - i);
        UNROLL
        for (int j = 0; j < 4; j++) {
            const float32x4_t v = vld1q_f32(buf + 4 * j);
            s[j] = vfmaq_f32(s[j], v, v);
        }
    }
    const float sum = sum16_f32(s);
    const float r = 1.0f / sqrtf(sum / (float)n + eps);
    for (i = 0; i + 4 <= n; i += 4)
        vst1q_f32(y + i, vmulq_f32(vmulq_n_f32(vld1q_f32(x + i), r), vld1q_f32(w + i)));
    for (; i < n; i++) y[i] = (x[i] * r) * w[i];
    return f32_bits(sum) > NEON_FINITE_MAX; /* a sum of squares has no sign */
}

static void add_neon(float *y, const float *x, int n)
{
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        vst1q_f32(y + i, vaddq_f32(vld1q_f32(y + i), vld1q_f32(x + i)));
        vst1q_f32(y + i + 4, vaddq_f32(vld1q_f32(y + i + 4), vld1q_f32(x + i + 4)));
    }
    for (; i < n; i++) y[i] += x[i];
}

static void axpy_neon(float *y, float a, const float *x, int n)
{
    const float32x4_t av = vdupq_n_f32(a);
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        vst1q_f32(y + i, vfmaq_f32(vld1q_f32(y + i), av, vld1q_f32(x + i)));
        vst1q_f32(y + i + 4, vfmaq_f32(vld1q_f32(y + i + 4), av, vld1q_f32(x + i + 4)));
    }
    for (; i < n; i++) y[i] = fmaf(a, x[i], y[i]);
}

static float32x4_t swiglu_f32x4(float32x4_t g, float32x4_t u)
{
    const float32x4_t e = exp_f32x4(vnegq_f32(g));
    return vmulq_f32(vdivq_f32(g, vaddq_f32(vdupq_n_f32(1.0f), e)), u);
}

static void swiglu_neon(float *y, const float *gu, int n)
{
    int i = 0;
    for (; i + 16 <= n; i += 16) {
        const float *g = gu + 2 * (size_t)i, *u = g + 16;
        UNROLL
        for (int j = 0; j < 16; j += 4)
            vst1q_f32(y + i + j, swiglu_f32x4(vld1q_f32(g + j), vld1q_f32(u + j)));
    }
    for (const float *g = gu + 2 * (size_t)i; i < n; i++, g++)
        y[i] = vgetq_lane_f32(swiglu_f32x4(vdupq_n_f32(g[0]), vdupq_n_f32(g[16])), 0);
}

/* ---- rope ---- */

static void rope_half_neon(float *x, size_t ld, int n, int hd, const float *c, const float *s)
{
    const int half = hd / 2;
    for (int h = 0; h < n; h++) {
        float *lo = x + (size_t)h * ld, *hi = lo + half;
        int i = 0;
        for (; i + 4 <= half; i += 4) {
            const float32x4_t a = vld1q_f32(lo + i), b = vld1q_f32(hi + i);
            const float32x4_t cv = vld1q_f32(c + i), sv = vld1q_f32(s + i);
            vst1q_f32(lo + i, vfmaq_f32(vnegq_f32(vmulq_f32(b, sv)), a, cv));
            vst1q_f32(hi + i, vfmaq_f32(vmulq_f32(a, sv), b, cv));
        }
        for (; i < half; i++) {
            const float a = lo[i], b = hi[i];
            lo[i] = fmaf(a, c[i], -(b * s[i]));
            hi[i] = fmaf(b, c[i], a * s[i]);
        }
    }
}

static void rope_pair_neon(float *x, size_t ld, int n, int hd, const float *c, const float *s)
{
    const int half = hd / 2;
    for (int h = 0; h < n; h++) {
        float *p = x + (size_t)h * ld;
        int i = 0;
        for (; i + 4 <= half; i += 4) {
            const float32x4x2_t v = vld2q_f32(p + 2 * i);
            const float32x4_t a = v.val[0], b = v.val[1];
            const float32x4_t cv = vld1q_f32(c + i), sv = vld1q_f32(s + i);
            float32x4x2_t o;
            o.val[0] = vfmaq_f32(vnegq_f32(vmulq_f32(b, sv)), a, cv);
            o.val[1] = vfmaq_f32(vmulq_f32(a, sv), b, cv);
            vst2q_f32(p + 2 * i, o);
        }
        for (; i < half; i++) {
            const float a = p[2 * i], b = p[2 * i + 1];
            p[2 * i] = fmaf(a, c[i], -(b * s[i]));
            p[2 * i + 1] = fmaf(b, c[i], a * s[i]);
        }
    }
}

/* ---- sampling ---- */

/* The value first, then its first place: no index vectors, the second pass mostly ends early. */
static int argmax_neon(const float *x, int n)
{
    float32x4_t v[4];
    for (int j = 0; j < 4; j++) v[j] = vdupq_n_f32(x[0]);
    int i = 0;
    for (; i + 16 <= n; i += 16) {
        UNROLL
        for (int j = 0; j < 4; j++) v[j] = vmaxnmq_f32(v[j], vld1q_f32(x + i + 4 * j));
    }
    float best = vmaxnmvq_f32(vmaxnmq_f32(vmaxnmq_f32(v[0], v[1]), vmaxnmq_f32(v[2], v[3])));
    for (; i < n; i++) best = x[i] > best ? x[i] : best;

    const float32x4_t b = vdupq_n_f32(best);
    for (i = 0; i + 16 <= n; i += 16) {
        uint32x4_t hit = vdupq_n_u32(0);
        UNROLL
        for (int j = 0; j < 4; j++) hit = vorrq_u32(hit, vceqq_f32(vld1q_f32(x + i + 4 * j), b));
        if (vmaxvq_u32(hit)) break;
    }
    for (; i < n; i++)
        if (x[i] == best) return i;
    return 0;
}

static float softmax_neon(float *p, const float *x, int n, float max, float T)
{
    const float32x4_t mv = vdupq_n_f32(max), tv = vdupq_n_f32(T);
    float32x4_t s[4];
    for (int j = 0; j < 4; j++) s[j] = vdupq_n_f32(0.0f);
    int i = 0;
    for (; i + 16 <= n; i += 16) {
        UNROLL
        for (int j = 0; j < 4; j++) {
            const float32x4_t v = vld1q_f32(x + i + 4 * j);
            const float32x4_t e = exp_f32x4(vdivq_f32(vsubq_f32(v, mv), tv));
            vst1q_f32(p + i + 4 * j, e);
            s[j] = vaddq_f32(s[j], e);
        }
    }
    if (i < n) {
        float buf[16] = { 0 };
        for (int j = 0; i + j < n; j++) buf[j] = p[i + j] = exp_f32((x[i + j] - max) / T);
        UNROLL
        for (int j = 0; j < 4; j++) s[j] = vaddq_f32(s[j], vld1q_f32(buf + 4 * j));
    }
    return sum16_f32(s);
}

/* All ones where lo <= x < hi. */
INLINE uint32x4_t within(const float *x, float32x4_t lo, float32x4_t hi)
{
    const float32x4_t v = vld1q_f32(x);
    return vandq_u32(vcgeq_f32(v, lo), vcltq_f32(v, hi));
}

/* Hits are rare: 16 values are asked at once, and each hit found in a word of 4 bits per value. */
static int band_neon(int32_t *at, const float *x, int n, float lo, float hi)
{
    const float32x4_t l = vdupq_n_f32(lo), h = vdupq_n_f32(hi);
    int found = 0, i = 0;
    for (; i + 16 <= n; i += 16) {
        const uint16x8_t a = vcombine_u16(vmovn_u32(within(x + i, l, h)),
                                          vmovn_u32(within(x + i + 4, l, h)));
        const uint16x8_t b = vcombine_u16(vmovn_u32(within(x + i + 8, l, h)),
                                          vmovn_u32(within(x + i + 12, l, h)));
        const uint8x16_t hits = vcombine_u8(vmovn_u16(a), vmovn_u16(b));
        const uint8x8_t four = vshrn_n_u16(vreinterpretq_u16_u8(hits), 4);
        uint64_t some = vget_lane_u64(vreinterpret_u64_u8(four), 0) & 0x1111111111111111u;
        for (; some; some &= some - 1) at[found++] = i + __builtin_ctzll(some) / 4;
    }
    for (; i < n; i++)
        if (x[i] >= lo && x[i] < hi) at[found++] = i;
    return found;
}

static int nonfinite_neon(const float *x, int n)
{
    const int n16 = n & ~15;
    if (max_abs_bits(x, n16) > NEON_FINITE_MAX) return 1;
    for (int i = n16; i < n; i++)
        if ((f32_bits(x[i]) & 0x7fffffffu) > NEON_FINITE_MAX) return 1;
    return 0;
}

bool q_fill_vec_neon(q_kern *t)
{
    t->quant_a64 = quant_a64_neon;
    t->quant_a16 = quant_a16_neon;
    t->rmsnorm = rmsnorm_neon;
    t->add = add_neon;
    t->axpy = axpy_neon;
    t->swiglu = swiglu_neon;
    t->rope_half = rope_half_neon;
    t->rope_pair = rope_pair_neon;
    t->argmax = argmax_neon;
    t->softmax = softmax_neon;
    t->band = band_neon;
    t->nonfinite = nonfinite_neon;
    return true;
}

#else
bool q_fill_vec_neon(q_kern *t)
{
    (void)t;
    return false;
}
#endif
