/* attn_a8.h - the integer products of attention over one KV block of 256 positions.
 *
 * Included by one file per instruction set (tile.h picks the product).  A two-byte vector is two
 * int8 tokens, hi and lo, so K is read as an L8 matrix for 2 tokens per query and V, whose lines
 * hold 16 dims x 4 positions, likewise without sub-scales; so are latents, whose lines hold 16
 * positions x 4 dims.  Queries share the loads of a block by 4, 2 or 1: the heads of one group.
 * Registers as in gemm_a8.h. */
#ifndef QUANT_ARM_ATTN_A8_H
#define QUANT_ARM_ATTN_A8_H

#include "quant/arm/tile.h"

/* ---- scores ---- */

/* 16 positions x J queries; R quads at a time, R * 2J <= 8. */
INLINE void group_qk8(int R, int J, float *s, size_t lds, const uint8_t *group, const q_acts *x,
                      int m0, float scale)
{
    const int M = 2 * J;
    float32x4_t f[4 * 4]; /* (quad, J) */
    UNROLL
    for (int i = 0; i < J; i++) {
        UNROLL
        for (int r = 0; r < 4; r++) f[r * J + i] = vdupq_n_f32(0.0f);
    }
    const size_t step = (size_t)x->M;
    const int8_t *q = x->q + 2 * (size_t)m0 * Q_TILE;
    const float *d = x->d + 2 * m0;
    const int32_t *ns = x->nsum + 8 * (size_t)m0;
    const int kt = x->kt;
    for (int t = 0; t < kt; t++, q += step * Q_TILE, d += step, ns += 4 * step) {
        const uint8_t *planes = tile_planes(Q_L8, group + 64, t);
        const int8_t *scales = tile_scales(Q_L8, group + 64, t);
        for (int quad = 0; quad < 4; quad += R) {
            int32x4_t z[8];
            tile_z(Q_L8, R, M, z, planes, scales, quad, q, ns);
            UNROLL
            for (int j = 0; j < J; j++) {
                const float32x4_t dh = vld1q_dup_f32(d + 2 * j), dl = vld1q_dup_f32(d + 2 * j + 1);
                UNROLL
                for (int r = 0; r < R; r++) {
                    float32x4_t *p = &f[(quad + r) * J + j];
                    const float32x4_t h = vfmaq_f32(*p, dh, vcvtq_f32_s32(z[r * M + 2 * j]));
                    *p = vfmaq_f32(h, dl, vcvtq_f32_s32(z[r * M + 2 * j + 1]));
                }
            }
        }
    }
    const float *rs = (const float *)(const void *)group;
    UNROLL
    for (int j = 0; j < J; j++) {
        UNROLL
        for (int i = 0; i < 4; i++) {
            const float32x4_t v = vmulq_f32(vld1q_f32(rs + 4 * i), f[i * J + j]);
            vst1q_f32(s + (size_t)j * lds + 4 * i, vmulq_n_f32(v, scale));
        }
    }
}

INLINE void attn_qk8(float *s, size_t lds, const void *kblk, int ng, const q_acts *q2, int m0,
                     int m, float scale)
{
    const size_t bytes = q_group_bytes(Q_L8, q2->kt * Q_TILE);
    const uint8_t *group = kblk;
    for (int g = 0; g < ng; g++, group += bytes, s += Q_ROWS) {
        int j = 0;
        for (; j + 4 <= m; j += 4)
            group_qk8(1, 4, s + (size_t)j * lds, lds, group, q2, m0 + j, scale);
        if (m - j >= 2) {
            group_qk8(2, 2, s + (size_t)j * lds, lds, group, q2, m0 + j, scale);
            j += 2;
        }
        if (m - j >= 1) group_qk8(4, 1, s + (size_t)j * lds, lds, group, q2, m0 + j, scale);
    }
}

/* ---- 16 lines without sub-scales ---- */

/* z[r * J + j] = sum of (254 hi + lo) * code of quads quad .. quad+R-1 over the 64 k of 16 lines:
 * |z| <= 64 * 32384 * 127 = 263,217,152.  q: hi, then lo of query 0, hi of query 1, ... */
INLINE void lines_z(int R, int J, int32x4_t *z, const uint8_t *lines, int quad, const int8_t *q)
{
    const int M = 2 * J;
    int32x4_t s[8];
    UNROLL
    for (int i = 0; i < R * M; i++) s[i] = vdupq_n_s32(0);
    UNROLL
    for (int b = 0; b < 2; b++) {
        UNROLL
        for (int r = 0; r < R; r++) {
            const tile_block w = tile_unpack(Q_L8, lines, b, quad + r);
            UNROLL
            for (int m = 0; m < M; m++) {
                const int8_t *p = q + 64 * m + 32 * b;
                s[r * M + m] = tile_add16(s[r * M + m], w.lo, tile_act_load(p));
                s[r * M + m] = tile_add16(s[r * M + m], w.hi, tile_act_load(p + 16));
            }
        }
    }
    UNROLL
    for (int i = 0; i < R * J; i++) z[i] = vmlaq_n_s32(s[2 * i + 1], s[2 * i], 254);
}

/* ---- scores of latents ---- */

/* 16 positions x J queries; R quads at a time, R * 2J <= 8.  dc: scales of these positions, nl: the
 * tiles of the latent, behind which the blocks of 128 dims begin anew. */
INLINE void group_qkl8(int R, int J, float *s, size_t lds, const uint8_t *lines, const float *dc,
                       int nl, const q_acts *x, int m0, float scale)
{
    float32x4_t f[4 * 4]; /* (quad, J) */
    UNROLL
    for (int i = 0; i < J; i++) {
        UNROLL
        for (int r = 0; r < 4; r++) f[r * J + i] = vdupq_n_f32(0.0f);
    }
    const size_t step = (size_t)x->M;
    const int8_t *q = x->q + 2 * (size_t)m0 * Q_TILE;
    const float *d = x->d + 2 * m0;
    for (int t = 0; t < x->kt; t++, lines += 1024, q += step * Q_TILE, d += step) {
        const int block = t < nl ? t / 2 : (nl + 1) / 2 + (t - nl) / 2;
        for (int quad = 0; quad < 4; quad += R) {
            int32x4_t z[8];
            lines_z(R, J, z, lines, quad, q);
            UNROLL
            for (int r = 0; r < R; r++) {
                const float32x4_t c = vld1q_f32(dc + block * Q_PIECE + 4 * (quad + r));
                UNROLL
                for (int j = 0; j < J; j++) {
                    float32x4_t *p = &f[(quad + r) * J + j];
                    *p = vfmaq_f32(*p, vmulq_n_f32(c, d[2 * j + 1]), vcvtq_f32_s32(z[r * J + j]));
                }
            }
        }
    }
    UNROLL
    for (int j = 0; j < J; j++) {
        UNROLL
        for (int i = 0; i < 4; i++)
            vst1q_f32(s + (size_t)j * lds + 4 * i, vmulq_n_f32(f[i * J + j], scale));
    }
}

INLINE void attn_qkl8(float *s, size_t lds, const void *blk, int lora, int rope, int ng,
                      const q_acts *q2, int m0, int m, float scale)
{
    const int nl = (lora + Q_TILE - 1) / Q_TILE;
    const size_t bytes = (size_t)q2->kt * 1024;
    const uint8_t *lines = (const uint8_t *)blk + q_lat_codes(lora, rope);
    const float *dc = blk;
    for (int g = 0; g < ng; g++, lines += bytes, dc += Q_ROWS, s += Q_ROWS) {
        int j = 0;
        for (; j + 4 <= m; j += 4)
            group_qkl8(1, 4, s + (size_t)j * lds, lds, lines, dc, nl, q2, m0 + j, scale);
        if (m - j >= 2) {
            group_qkl8(2, 2, s + (size_t)j * lds, lds, lines, dc, nl, q2, m0 + j, scale);
            j += 2;
        }
        if (m - j >= 1)
            group_qkl8(4, 1, s + (size_t)j * lds, lds, lines, dc, nl, q2, m0 + j, scale);
    }
}

/* ---- values ---- */

typedef struct pv_bytes {            /* u of up to 4 queries over a piece, as two bytes */
    int8_t q[4][8][Q_TILE];          /* (tile, query: hi then lo, position) */
    float d[4][4];                   /* (tile, query), of lo and of 254 * hi + lo */
} pv_bytes;

/* u = e * dv of query j in tile t, positions from nvis on masked (their dv was never written). */
INLINE int pv_quant(pv_bytes *u, int t, int j, const float *e, const float *dv, int nvis)
{
    const int left = nvis - t * Q_TILE;
    if (left <= 0) {
        memset(u->q[t][2 * j], 0, 2 * Q_TILE);
        u->d[t][j] = 0.0f;
        return 0;
    }
    static const int32_t iota[4] = { 0, 1, 2, 3 };
    const int32x4_t at = vld1q_s32(iota);
    float v[Q_TILE];
    for (int i = 0; i < Q_TILE; i += 4) {
        const float32x4_t p = vmulq_f32(vld1q_f32(e + t * Q_TILE + i),
                                        vld1q_f32(dv + t * Q_TILE + i));
        const uint32x4_t seen = vcltq_s32(at, vdupq_n_s32(left - i));
        vst1q_f32(v + i, vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(p), seen)));
    }
    int bad = 0;
    u->d[t][j] = quant64_a16(u->q[t][2 * j], u->q[t][2 * j + 1], v, &bad);
    return bad;
}

/* 16 dims x J queries over nt tiles; lines of one tile are `step` bytes after those of the last. */
INLINE void group_pv8(int R, int J, float *o, size_t ldo, int dims, const uint8_t *lines,
                      size_t step, int nt, const pv_bytes *u)
{
    float32x4_t f[4 * 4]; /* (J, quad) */
    UNROLL
    for (int i = 0; i < J; i++) {
        UNROLL
        for (int r = 0; r < 4; r++) f[4 * i + r] = vdupq_n_f32(0.0f);
    }
    for (int t = 0; t < nt; t++, lines += step) {
        for (int quad = 0; quad < 4; quad += R) {
            int32x4_t z[8];
            lines_z(R, J, z, lines, quad, u->q[t][0]);
            UNROLL
            for (int j = 0; j < J; j++) {
                const float32x4_t d = vld1q_dup_f32(&u->d[t][j]);
                UNROLL
                for (int r = 0; r < R; r++) {
                    float32x4_t *p = &f[4 * j + quad + r];
                    *p = vfmaq_f32(*p, d, vcvtq_f32_s32(z[r * J + j]));
                }
            }
        }
    }
    UNROLL
    for (int j = 0; j < J; j++) store_rows(o + (size_t)j * ldo, dims, f + 4 * j);
}

/* Bytes of the dv scales in front of the codes of an int8 V block. */
INLINE size_t v8_codes(int hd) { return (size_t)(hd + 127) / 128 * Q_PIECE * sizeof(float); }

/* Tiles of positions that any of J queries sees. */
INLINE int tiles_seen(const int *nvis, int J)
{
    int last = 0;
    for (int j = 0; j < J; j++) last = nvis[j] > last ? nvis[j] : last;
    return (last + Q_TILE - 1) / Q_TILE;
}

INLINE int block_pv8(int R, int J, float *o, size_t ldo, const uint8_t *vblk, int hd,
                     const float *e, size_t lde, const int *nvis)
{
    const int groups = (hd + 15) / 16, nt = tiles_seen(nvis, J);
    const uint8_t *codes = vblk + v8_codes(hd);
    const size_t step = (size_t)groups * 1024;
    int bad = 0;
    pv_bytes u;
    for (int g = 0; g < groups; g++) {
        if (g % 8 == 0) { /* the next 128 dims have their own dv */
            const float *dv = (const float *)(const void *)vblk + (g / 8) * Q_PIECE;
            for (int t = 0; t < nt; t++)
                for (int j = 0; j < J; j++)
                    bad |= pv_quant(&u, t, j, e + (size_t)j * lde, dv, nvis[j]);
        }
        group_pv8(R, J, o + 16 * g, ldo, hd - 16 * g, codes + (size_t)g * 1024, step, nt, &u);
    }
    return bad;
}

INLINE int attn_pv8(float *o, size_t ldo, const void *vblk, int hd, const float *e, size_t lde,
                    const int *nvis, int m)
{
    int j = 0, bad = 0;
    for (; j + 4 <= m; j += 4)
        bad |= block_pv8(1, 4, o + (size_t)j * ldo, ldo, vblk, hd, e + (size_t)j * lde, lde,
                         nvis + j);
    if (m - j >= 2) {
        bad |= block_pv8(2, 2, o + (size_t)j * ldo, ldo, vblk, hd, e + (size_t)j * lde, lde,
                         nvis + j);
        j += 2;
    }
    if (m - j >= 1)
        bad |= block_pv8(4, 1, o + (size_t)j * ldo, ldo, vblk, hd, e + (size_t)j * lde, lde,
                         nvis + j);
    return bad;
}

#endif
