/* gemm_a8.h - integer matrices times int8 activations, the loops around tile_z.
 *
 * Included by one file per instruction set (tile.h picks the product).  One row group is read
 * strictly forward for a block of 8, 4, 2 or 1 tokens; an unpacked quad serves all tokens of the
 * block before the next is touched.  Lanes are rows, so each output is the one chain over tiles
 * that arith 1 wants, whatever the block.
 *
 * Registers: R quads x M tokens of z, R * M <= 8, beside 8 of weights; the running f of the block
 * stays in registers for 1 and 2 tokens and on the stack, once per tile, for more. */
#ifndef QUANT_ARM_GEMM_A8_H
#define QUANT_ARM_GEMM_A8_H

#include "quant/arm/tile.h"

/* One row group x M tokens from token m0 on. */
INLINE void group_a8(int type, int R, int M, float *y, size_t ldy, int rows, const uint8_t *group,
                     const q_acts *x, int m0)
{
    float32x4_t f[4 * 8]; /* (quad, M) */
    UNROLL
    for (int i = 0; i < 4 * M; i++) f[i] = vdupq_n_f32(0.0f);

    const size_t step = (size_t)x->M;
    const int8_t *q = x->q + (size_t)m0 * Q_TILE;
    const float *d = x->d + m0;
    const int32_t *ns = x->nsum + 4 * (size_t)m0;
    const int kt = x->kt;
    for (int t = 0; t < kt; t++, q += step * Q_TILE, d += step, ns += 4 * step) {
        const uint8_t *planes = tile_planes(type, group + 64, t);
        const int8_t *scales = tile_scales(type, group + 64, t);
        for (int quad = 0; quad < 4; quad += R) {
            int32x4_t z[8];
            tile_z(type, R, M, z, planes, scales, quad, q, ns);
            UNROLL
            for (int m = 0; m < M; m++) {
                UNROLL
                for (int r = 0; r < R; r++) {
                    float32x4_t *p = &f[(quad + r) * M + m];
                    *p = vfmaq_f32(*p, vld1q_dup_f32(d + m), vcvtq_f32_s32(z[r * M + m]));
                }
            }
        }
    }

    const float *rs = (const float *)(const void *)group;
    UNROLL
    for (int m = 0; m < M; m++) {
        float32x4_t v[4];
        UNROLL
        for (int i = 0; i < 4; i++) v[i] = vmulq_f32(vld1q_f32(rs + 4 * i), f[i * M + m]);
        store_rows(y + (size_t)m * ldy, rows, v);
    }
}

INLINE void gemm_a8(int type, float *y, size_t ldy, const void *w, int n, const q_acts *x, int m0,
                    int m)
{
    const size_t bytes = q_group_bytes(type, x->kt * Q_TILE);
    const uint8_t *group = w;
    for (int r = 0; r < n; r += Q_ROWS, group += bytes) {
        const int rows = n - r;
        float *p = y + r;
        int j = 0;
        for (; j + 8 <= m; j += 8)
            group_a8(type, 1, 8, p + (size_t)j * ldy, ldy, rows, group, x, m0 + j);
        if (m - j >= 4) {
            group_a8(type, 2, 4, p + (size_t)j * ldy, ldy, rows, group, x, m0 + j);
            j += 4;
        }
        if (m - j >= 2) {
            group_a8(type, 4, 2, p + (size_t)j * ldy, ldy, rows, group, x, m0 + j);
            j += 2;
        }
        if (m - j >= 1) group_a8(type, 4, 1, p + (size_t)j * ldy, ldy, rows, group, x, m0 + j);
    }
}

#endif
