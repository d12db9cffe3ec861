/* gemmf_neon.c - float matrices: F32, F16, BF16 weights times f32 activations.
 *
 * Baseline AArch64; the widening of f16 is exact and part of it.  Each output is one chain of fma
 * over k (arith 1), so speed comes only from independent outputs: a fused multiply-add takes 4
 * cycles on two pipes, hence at least 8 chains = 2 row groups for one token, 4 rows x 4 tokens x 4
 * for more.  The line of 16 rows is loaded (and widened) once for all tokens of a block. */
#include "quant/table.h"

#if defined(__aarch64__) && defined(__ARM_NEON)

#include "quant/arm/neon.h"

INLINE float32x4_t fma_lane(float32x4_t f, float32x4_t w, float32x4_t x, int lane)
{
    switch (lane) { /* a constant after inlining: the lane must be a literal */
    case 0: return vfmaq_laneq_f32(f, w, x, 0);
    case 1: return vfmaq_laneq_f32(f, w, x, 1);
    case 2: return vfmaq_laneq_f32(f, w, x, 2);
    default: return vfmaq_laneq_f32(f, w, x, 3);
    }
}

/* Lines k and k + 1 (k even) of a row group as f32: w[0..3] and w[4..7], 4 rows each. */
INLINE void load_lines(int type, float32x4_t w[8], const uint8_t *group, int k)
{
    if (type == Q_F32) {
        const float *p = (const float *)(const void *)(group + (size_t)k * 64);
        UNROLL
        for (int i = 0; i < 8; i++) w[i] = vld1q_f32(p + 4 * i);
        return;
    }
    const uint16_t *p = (const uint16_t *)(const void *)(group + (size_t)k * 32);
    if (type == Q_BF16) {
        UNROLL
        for (int i = 0; i < 4; i++) {
            const uint32x4_t v = vreinterpretq_u32_u16(vld1q_u16(p + 8 * i));
            w[i] = vreinterpretq_f32_u32(vshlq_n_u32(v, 16));
            w[4 + i] = vreinterpretq_f32_u32(vandq_u32(v, vdupq_n_u32(0xffff0000u)));
        }
    } else {
        UNROLL
        for (int i = 0; i < 2; i++) {
            const uint16x8_t a = vld1q_u16(p + 16 * i), b = vld1q_u16(p + 16 * i + 8);
            const float16x8_t even = vreinterpretq_f16_u16(vuzp1q_u16(a, b));
            const float16x8_t odd = vreinterpretq_f16_u16(vuzp2q_u16(a, b));
            w[2 * i] = vcvt_f32_f16(vget_low_f16(even));
            w[2 * i + 1] = vcvt_high_f32_f16(even);
            w[4 + 2 * i] = vcvt_f32_f16(vget_low_f16(odd));
            w[4 + 2 * i + 1] = vcvt_high_f32_f16(odd);
        }
    }
}

/* G row groups x M tokens; `rows` counts from the first group's first row. */
INLINE void groups_f(int type, int G, int M, float *y, size_t ldy, int rows, const uint8_t *w,
                     size_t bytes, int k, const float *x, size_t ldx)
{
    float32x4_t f[16]; /* (G, M, 4) */
    UNROLL
    for (int i = 0; i < G * M; i++) {
        UNROLL
        for (int r = 0; r < 4; r++) f[4 * i + r] = vdupq_n_f32(0.0f);
    }
    for (int t = 0; t < k; t += 4) {
        float32x4_t a[4];
        UNROLL
        for (int m = 0; m < M; m++) a[m] = vld1q_f32(x + (size_t)m * ldx + t);
        UNROLL
        for (int g = 0; g < G; g++) {
            UNROLL
            for (int h = 0; h < 2; h++) {
                float32x4_t v[8];
                load_lines(type, v, w + (size_t)g * bytes, t + 2 * h);
                UNROLL
                for (int odd = 0; odd < 2; odd++) {
                    UNROLL
                    for (int m = 0; m < M; m++) {
                        float32x4_t *p = f + 4 * (g * M + m);
                        UNROLL
                        for (int r = 0; r < 4; r++)
                            p[r] = fma_lane(p[r], v[4 * odd + r], a[m], 2 * h + odd);
                    }
                }
            }
        }
    }
    UNROLL
    for (int g = 0; g < G; g++) {
        const int left = rows - g * Q_ROWS;
        UNROLL
        for (int m = 0; m < M; m++) {
            float32x4_t v[4];
            UNROLL
            for (int r = 0; r < 4; r++) v[r] = vaddq_f32(f[4 * (g * M + m) + r], vdupq_n_f32(0.0f));
            store_rows(y + (size_t)m * ldy + g * Q_ROWS, left, v);
        }
    }
}

INLINE void gemm_f(int type, float *y, size_t ldy, const void *w, int n, int k, const float *x,
                   size_t ldx, int m)
{
    const size_t bytes = q_group_bytes(type, k);
    const uint8_t *p = w;
    for (int r = 0; r < n; r += Q_ROWS, p += bytes) {
        const int rows = n - r;
        if (m == 1 && rows > Q_ROWS) {
            groups_f(type, 2, 1, y + r, ldy, rows, p, bytes, k, x, ldx);
            r += Q_ROWS;
            p += bytes;
            continue;
        }
        int j = 0;
        for (; j + 4 <= m; j += 4)
            groups_f(type, 1, 4, y + r + (size_t)j * ldy, ldy, rows, p, bytes, k,
                     x + (size_t)j * ldx, ldx);
        if (m - j >= 2) {
            groups_f(type, 1, 2, y + r + (size_t)j * ldy, ldy, rows, p, bytes, k,
                     x + (size_t)j * ldx, ldx);
            j += 2;
        }
        if (m - j >= 1)
            groups_f(type, 1, 1, y + r + (size_t)j * ldy, ldy, rows, p, bytes, k,
                     x + (size_t)j * ldx, ldx);
    }
}

static void gemm_f32_f32_16x4_neon(float *y, size_t ldy, const void *w, int n, int k,
                                   const float *x, size_t ldx, int m, void *tmp)
{
    (void)tmp;
    gemm_f(Q_F32, y, ldy, w, n, k, x, ldx, m);
}

static void gemm_f16_f32_16x4_neon(float *y, size_t ldy, const void *w, int n, int k,
                                   const float *x, size_t ldx, int m, void *tmp)
{
    (void)tmp;
    gemm_f(Q_F16, y, ldy, w, n, k, x, ldx, m);
}

static void gemm_bf16_f32_16x4_neon(float *y, size_t ldy, const void *w, int n, int k,
                                    const float *x, size_t ldx, int m, void *tmp)
{
    (void)tmp;
    gemm_f(Q_BF16, y, ldy, w, n, k, x, ldx, m);
}

bool q_fill_gemmf_neon(q_kern *t)
{
    t->gemm_f32 = gemm_f32_f32_16x4_neon;
    t->gemm_f16 = gemm_f16_f32_16x4_neon;
    t->gemm_bf16 = gemm_bf16_f32_16x4_neon;
    return true;
}

#else
bool q_fill_gemmf_neon(q_kern *t)
{
    (void)t;
    return false;
}
#endif
