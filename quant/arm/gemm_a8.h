/* gemm_a8.h - integer matrices times int8 activations, the loops around tile_z.
 *
 * Included by one file per instruction set (tile.h picks the product).  One row group is read
 * strictly forward for a block of 8, 4, 2 or 1 tokens; an unpacked quad serves all tokens of the
 * block before the next is touched.  Lanes are rows, so each output is the one chain over tiles
 * that arith 1 wants, whatever the block.
 *
 * Prompts: from PANEL_MIN tokens on, 64 rows x 1024 k are unpacked once into scratch (exact codes,
 * sub-scales as int32) and used by up to 512 tokens, f carried from one stretch of k to the next.
 * Unpacking is then some percent, and activations are read once per 64 rows, not per 16.
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

/* Few tokens: straight from the file layout. */
INLINE void gemm_few(int type, float *y, size_t ldy, const void *w, int n, const q_acts *x, int m0,
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

/* ---- many tokens: an unpacked panel ---- */

enum {
    PANEL_MIN = 24,     /* tokens; below, unpacking costs more than it saves */
    PANEL_TILES = 16,   /* 1024 k: with 64 rows 80 KB, in L2 beside the activations of a block */
    PANEL_GROUPS = 4,
    PANEL_ROWS = PANEL_GROUPS * Q_ROWS,
    PANEL_TOKENS = 512  /* their f: 128 KB */
};

/* 4 rows of a tile.  With sdot the sums S of its sub-blocks are not begun anew each time: T_i =
 * S_0 + ... + S_i runs on; z = sum of s_i * S_i = sum of T_i * e_i with e_i = s_i - s_(i+1), the
 * last e = s: one start at zero per tile, not four.  Of L8, |T_i| <= (i + 1) * 16 * 127 * 127 and
 * |e| <= 254, so no partial sum exceeds 6 * 65.6e6 + 131.1e6 < 2^30. */
typedef struct panel_quad {
    int8_t w[4][4][16];     /* (sub-block, line, row x 4 k), signed */
    int32_t e[4][4];        /* (sub-block, row): with sdot differences, else the sub-scales */
} panel_quad;

typedef struct panel {
    panel_quad q[PANEL_GROUPS * 4][PANEL_TILES];
    float f[PANEL_TOKENS][PANEL_ROWS];
} panel;

_Static_assert(sizeof(panel) <= Q_TMP, "a panel fits the scratch of a gemm");

/* Tiles t0 .. t0+nt-1 of one row group into its four rows of the panel. */
INLINE void panel_unpack(int type, panel_quad (*q)[PANEL_TILES], const uint8_t *group, int t0,
                         int nt)
{
    for (int t = 0; t < nt; t++) {
        const uint8_t *planes = tile_planes(type, group + 64, t0 + t);
        const int8_t *scales = tile_scales(type, group + 64, t0 + t);
        UNROLL
        for (int quad = 0; quad < 4; quad++) {
            panel_quad *p = &q[quad][t];
            UNROLL
            for (int b = 0; b < 2; b++) {
                const tile_block w = tile_signed(type, tile_unpack(type, planes, b, quad));
                UNROLL
                for (int j = 0; j < 4; j++) {
                    vst1q_s8(p->w[2 * b][j], w.lo[j]);
                    vst1q_s8(p->w[2 * b + 1][j], w.hi[j]);
                }
            }
            const int step = wide(type) ? 2 : 1; /* sub-blocks of a sub-scale */
            UNROLL
            for (int i = 0; i < 4; i += step) {
                int32x4_t e = tile_scale(scales + 16 * (i / step), quad, 4);
                if (TILE_SDOT && i + step < 4)
                    e = vsubq_s32(e, tile_scale(scales + 16 * (i / step + 1), quad, 4));
                vst1q_s32(p->e[i], e);
            }
        }
    }
}

/* z of 4 rows x 1 token: a tile of signed codes. */
INLINE int32x4_t panel_z(int type, const panel_quad *p, const int8_t *q)
{
    int32x4_t z = vdupq_n_s32(0);
#if TILE_SDOT
    int32x4_t sum = z;
    UNROLL
    for (int s = 0; s < 4; s++) {
        int8x16_t w[4];
        UNROLL
        for (int j = 0; j < 4; j++) w[j] = vld1q_s8(p->w[s][j]);
        sum = sdot16(sum, w, tile_act_load(q + 16 * s));
        if (wide(type) && s % 2 == 0) continue;
        const int32x4_t e = vld1q_s32(p->e[wide(type) ? s - 1 : s]);
        const bool first = s == 0 || (s == 1 && wide(type));
        z = first ? vmulq_s32(sum, e) : vmlaq_s32(z, sum, e);
        keep_apart(&z, &sum);
    }
#else
    const int kind = type == Q_L6 ? Q_N4 : type; /* signed here: like N4, |w| <= 32 */
    UNROLL
    for (int b = 0; b < 2; b++) {
        tile_block w;
        UNROLL
        for (int j = 0; j < 4; j++) {
            w.lo[j] = vld1q_s8(p->w[2 * b][j]);
            w.hi[j] = vld1q_s8(p->w[2 * b + 1][j]);
        }
        const int32x4_t s0 = vld1q_s32(p->e[2 * b]);
        const int32x4_t s1 = wide(type) ? s0 : vld1q_s32(p->e[2 * b + 1]);
        z = tile_dot(kind, z, &w, tile_act_load(q + 32 * b), tile_act_load(q + 32 * b + 16), s0, s1,
                     NULL);
    }
#endif
    return z;
}

/* 4 rows x M tokens over nt tiles: carries f on. */
INLINE void panel_run(int type, int M, float *f, const panel_quad *p, int nt, const int8_t *q,
                      const float *d, size_t step)
{
    float32x4_t c[8];
    UNROLL
    for (int m = 0; m < M; m++) c[m] = vld1q_f32(f + m * PANEL_ROWS);
    for (int t = 0; t < nt; t++, p++, q += step * Q_TILE, d += step) {
        UNROLL
        for (int m = 0; m < M; m++) {
            const int32x4_t z = panel_z(type, p, q + 64 * m);
            c[m] = vfmaq_f32(c[m], vld1q_dup_f32(d + m), vcvtq_f32_s32(z));
        }
    }
    UNROLL
    for (int m = 0; m < M; m++) vst1q_f32(f + m * PANEL_ROWS, c[m]);
}

/* All tokens x one stretch of k: 8 tokens stay in L1 while the rows of the panel pass. */
INLINE void panel_tokens(int type, panel *p, int quads, int nt, const q_acts *x, int t0, int m0,
                         int m)
{
    for (int j = 0; j < m;) {
        const size_t step = (size_t)x->M, at = (size_t)t0 * step + (size_t)(m0 + j);
        const int8_t *q = x->q + at * Q_TILE;
        const float *d = x->d + at;
        const int left = m - j;
        for (int i = 0; i < quads; i++) {
            float *f = &p->f[j][4 * i];
            if (left >= 8) panel_run(type, 8, f, p->q[i], nt, q, d, step);
            else if (left >= 4) panel_run(type, 4, f, p->q[i], nt, q, d, step);
            else if (left >= 2) panel_run(type, 2, f, p->q[i], nt, q, d, step);
            else panel_run(type, 1, f, p->q[i], nt, q, d, step);
        }
        j += left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
    }
}

/* y = row_scale * f of up to 64 rows and m tokens. */
INLINE void panel_store(float (*f)[PANEL_ROWS], float *y, size_t ldy, int rows, const uint8_t *w,
                        size_t bytes, int m)
{
    for (int r = 0; r < rows; r += Q_ROWS, w += bytes) {
        const float *rs = (const float *)(const void *)w;
        for (int j = 0; j < m; j++) {
            float32x4_t v[4];
            UNROLL
            for (int i = 0; i < 4; i++)
                v[i] = vmulq_f32(vld1q_f32(rs + 4 * i), vld1q_f32(&f[j][r + 4 * i]));
            store_rows(y + (size_t)j * ldy + r, rows - r, v);
        }
    }
}

/* Up to 64 rows x up to PANEL_TOKENS tokens. */
INLINE void panel_block(int type, panel *p, float *y, size_t ldy, int rows, const uint8_t *w,
                        size_t bytes, const q_acts *x, int m0, int m)
{
    const int groups = (rows + Q_ROWS - 1) / Q_ROWS;
    memset(p->f, 0, (size_t)m * sizeof p->f[0]);
    for (int t = 0; t < x->kt; t += PANEL_TILES) {
        const int nt = x->kt - t < PANEL_TILES ? x->kt - t : PANEL_TILES;
        for (int g = 0; g < groups; g++)
            panel_unpack(type, &p->q[4 * g], w + (size_t)g * bytes, t, nt);
        panel_tokens(type, p, 4 * groups, nt, x, t, m0, m);
    }
    panel_store(p->f, y, ldy, rows, w, bytes, m);
}

INLINE void gemm_a8(int type, float *y, size_t ldy, const void *w, int n, const q_acts *x, int m0,
                    int m, void *tmp)
{
    if (m < PANEL_MIN) {
        gemm_few(type, y, ldy, w, n, x, m0, m);
        return;
    }
    const size_t bytes = q_group_bytes(type, x->kt * Q_TILE);
    const uint8_t *group = w;
    for (int r = 0; r < n; r += PANEL_ROWS, group += PANEL_GROUPS * bytes) {
        const int rows = n - r < PANEL_ROWS ? n - r : PANEL_ROWS;
        for (int j = 0; j < m; j += PANEL_TOKENS) {
            const int part = m - j < PANEL_TOKENS ? m - j : PANEL_TOKENS;
            float *p = y + (size_t)j * ldy + r;
            panel_block(type, tmp, p, ldy, rows, group, bytes, x, m0 + j, part);
        }
    }
}

#endif
