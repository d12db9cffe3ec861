/* tile.h - from the planes of a T16 tile to exact int32 sums: unpacking and the integer product.
 *
 * Everything works on a quad: 4 rows, one q register per line, and on a block: 32 k, so 4 lines of
 * lo (first 16 k) and 4 lines of hi.  The instruction set of the including file picks the product:
 *   dotprod  sdot by lane: line c of a sub-block meets lane c of the 16 activations, no reduction;
 *   NEON     smull/smlal in int16 (smlal has the same rate for 8 products as an int32 mla for 4),
 *            joined to rows once per sub-block; what an int16 holds decides how (smlal16 ...).
 * All sums are exact, so both give the same z. */
#ifndef QUANT_ARM_TILE_H
#define QUANT_ARM_TILE_H

#include "quant/arm/neon.h"

#if defined(__ARM_FEATURE_DOTPROD)
#define TILE_SDOT 1
#else
#define TILE_SDOT 0
#endif

typedef struct tile_block { int8x16_t lo[4], hi[4]; } tile_block; /* 4 rows x 32 k, one line each */

/* L6 codes are 0..63 for 32 more than the weight.  With sdot they stay unsigned and the accumulator
 * starts at -32 * sum(a) (nsum has minus the sum); in int16 the unsigned products would wrap. */
#define TILE_L6_OFFSET 32

/* One sub-scale per 32 k, two tiles of 64 k on disk in one.  Unpacked, all of these are N4s. */
INLINE bool wide(int type) { return type == Q_N4S || type == Q_P6 || type == Q_P5; }

/* x or y of 16 points: t is where theirs begin. */
INLINE int8x16_t tile_points(int type, const int8_t *t, uint8x16_t code)
{
    if (type == Q_P5) {
        const int8x16x2_t two = { { vld1q_s8(t), vld1q_s8(t + 16) } };
        return vqtbl2q_s8(two, code);
    }
    const int8x16x4_t four = { { vld1q_s8(t), vld1q_s8(t + 16), vld1q_s8(t + 32),
                                 vld1q_s8(t + 48) } };
    return vqtbl4q_s8(four, code);
}

/* The same for pairs: p at the planes of 64 k and the first of 4 rows.  Run j = 0..3 of the block
 * is line j, low nibbles in block 0, and gives chunks 2j and 2j + 1. */
INLINE tile_block tile_unpack_pairs(int type, const uint8_t *p, int b)
{
    const int8_t *x = type == Q_P6 ? q_points_p6[0] : q_points_p5[0];
    const int8_t *y = type == Q_P6 ? q_points_p6[1] : q_points_p5[1];
    const uint8x16_t low = vdupq_n_u8(0x0f);
    tile_block w;
    UNROLL
    for (int j = 0; j < 4; j++) {
        const int run = 4 * b + j, at = type == Q_P6 ? run & 6 : run; /* of the high bits */
        const uint8x16_t l = vld1q_u8(p + 64 * j);
        uint8x16_t h = vld1q_u8(p + 256 + (type == Q_P6 ? 64 * (j & 1) : 0));
        h = vshlq_u8(h, vdupq_n_s8((int8_t)(4 - at)));
        h = vandq_u8(h, vdupq_n_u8(type == Q_P6 ? 0x30 : 0x10));
        const uint8x16_t code = b ? vsriq_n_u8(h, l, 4) : vbslq_u8(low, l, h);
        const int8x16_t u = tile_points(type, x, code), v = tile_points(type, y, code);
        int8x16_t *o = j < 2 ? w.lo : w.hi;
        o[2 * (j & 1)] = vzip1q_s8(u, v);
        o[2 * (j & 1) + 1] = vzip2q_s8(u, v);
    }
    return w;
}

/* Block b (0, 1) of rows 4*quad..4*quad+3 of a 64-k tile. */
INLINE tile_block tile_unpack(int type, const uint8_t *planes, int b, int quad)
{
    const uint8_t *p = planes + 16 * quad;
    tile_block w;
    if (type == Q_P6 || type == Q_P5) return tile_unpack_pairs(type, p, b);
    if (type == Q_L8) {
        UNROLL
        for (int j = 0; j < 4; j++) {
            w.lo[j] = vreinterpretq_s8_u8(vld1q_u8(p + 64 * (8 * b + j)));
            w.hi[j] = vreinterpretq_s8_u8(vld1q_u8(p + 64 * (8 * b + 4 + j)));
        }
    } else if (type == Q_L6) {
        /* Chunk c of the block has its high bits in line c & 1, bits 2 * (c >> 1). */
        const uint8x16_t low = vdupq_n_u8(0x0f), two = vdupq_n_u8(0x30);
        uint8x16_t h[2], u;
        h[0] = vld1q_u8(p + 512 + 64 * (2 * b));
        h[1] = vld1q_u8(p + 512 + 64 * (2 * b + 1));
        UNROLL
        for (int j = 0; j < 4; j++) {
            const uint8x16_t x = vld1q_u8(p + 64 * (4 * b + j)), t = h[j & 1];
            const uint8x16_t tl = j < 2 ? vshlq_n_u8(t, 4) : vshlq_n_u8(t, 2);
            u = vbslq_u8(low, x, vandq_u8(tl, two));
            w.lo[j] = vreinterpretq_s8_u8(u);
            u = vsriq_n_u8(vandq_u8(j < 2 ? t : vshrq_n_u8(t, 2), two), x, 4);
            w.hi[j] = vreinterpretq_s8_u8(u);
        }
    } else if (type == Q_N5) {
        /* Chunk c of the block has its high bit in bit c of line b. */
        const int8x16x2_t grid = { { vld1q_s8(q_grid_n5), vld1q_s8(q_grid_n5 + 16) } };
        const uint8x16_t low = vdupq_n_u8(0x0f), one = vdupq_n_u8(0x10);
        const uint8x16_t h = vld1q_u8(p + 512 + 64 * b);
        UNROLL
        for (int j = 0; j < 4; j++) {
            const uint8x16_t x = vld1q_u8(p + 64 * (4 * b + j));
            const uint8x16_t hl = j == 0   ? vshlq_n_u8(h, 4)
                                  : j == 1 ? vshlq_n_u8(h, 3)
                                  : j == 2 ? vshlq_n_u8(h, 2)
                                           : vshlq_n_u8(h, 1);
            const uint8x16_t hh = j == 0   ? h
                                  : j == 1 ? vshrq_n_u8(h, 1)
                                  : j == 2 ? vshrq_n_u8(h, 2)
                                           : vshrq_n_u8(h, 3);
            w.lo[j] = vqtbl2q_s8(grid, vbslq_u8(low, x, vandq_u8(hl, one)));
            w.hi[j] = vqtbl2q_s8(grid, vsriq_n_u8(vandq_u8(hh, one), x, 4));
        }
    } else {
        const int8x16_t grid = vld1q_s8(q_grid_n4);
        const uint8x16_t low = vdupq_n_u8(0x0f);
        UNROLL
        for (int j = 0; j < 4; j++) {
            const uint8x16_t x = vld1q_u8(p + 64 * (4 * b + j));
            w.lo[j] = vqtbl1q_s8(grid, vandq_u8(x, low));
            w.hi[j] = vqtbl1q_s8(grid, vshrq_n_u8(x, 4));
        }
    }
    return w;
}

/* Codes as signed weights where the product needs them so. */
INLINE tile_block tile_signed(int type, tile_block w)
{
    if (type == Q_L6) {
        UNROLL
        for (int j = 0; j < 4; j++) {
            w.lo[j] = vsubq_s8(w.lo[j], vdupq_n_s8(TILE_L6_OFFSET));
            w.hi[j] = vsubq_s8(w.hi[j], vdupq_n_s8(TILE_L6_OFFSET));
        }
    }
    return w;
}

/* The sub-scales of quad r out of `quads` whose 4 * quads bytes start at s. */
INLINE int32x4_t tile_scale(const int8_t *s, int r, int quads)
{
    if (quads == 1) {
        int32_t four;
        memcpy(&four, s, sizeof four);
        const int8x8_t v = vreinterpret_s8_s32(vdup_n_s32(four));
        return vmovl_s16(vget_low_s16(vmovl_s8(v)));
    }
    const int16x8_t v = vmovl_s8(vld1_s8(s + 8 * (r / 2)));
    return r & 1 ? vmovl_high_s16(v) : vmovl_s16(vget_low_s16(v));
}

#if TILE_SDOT

typedef int8x16_t tile_act; /* 16 activations */

INLINE tile_act tile_act_load(const int8_t *q)
{
    return vld1q_s8(q);
}

INLINE int32x4_t sdot16(int32x4_t z, const int8x16_t w[4], int8x16_t a)
{
    z = vdotq_laneq_s32(z, w[0], a, 0);
    z = vdotq_laneq_s32(z, w[1], a, 1);
    z = vdotq_laneq_s32(z, w[2], a, 2);
    return vdotq_laneq_s32(z, w[3], a, 3);
}

/* z + one sub-block of 8-bit codes, no scale. */
INLINE int32x4_t tile_add16(int32x4_t z, const int8x16_t w[4], tile_act a)
{
    return sdot16(z, w, a);
}

/* z + s0 * (lo . a0) + s1 * (hi . a1); ns: minus the sums of a0 and a1. */
INLINE int32x4_t tile_dot(int type, int32x4_t z, const tile_block *w, tile_act a0, tile_act a1,
                          int32x4_t s0, int32x4_t s1, const int32_t *ns)
{
    int32x4_t i0 = vdupq_n_s32(0), i1 = i0;
    if (type == Q_L6) {
        i0 = vshlq_n_s32(vld1q_dup_s32(ns), 5); /* * TILE_L6_OFFSET */
        i1 = vshlq_n_s32(vld1q_dup_s32(ns + 1), 5);
    }
    if (wide(type)) return vmlaq_s32(z, sdot16(sdot16(i0, w->lo, a0), w->hi, a1), s0);
    z = vmlaq_s32(z, sdot16(i0, w->lo, a0), s0);
    return vmlaq_s32(z, sdot16(i1, w->hi, a1), s1);
}

#else

typedef struct tile_act { int8x16_t c[4]; } tile_act; /* 16 activations, each chunk in every lane */

INLINE tile_act tile_act_load(const int8_t *q)
{
    tile_act a;
    UNROLL
    for (int j = 0; j < 4; j++) {
        int32_t four;
        memcpy(&four, q + 4 * j, sizeof four);
        a.c[j] = vreinterpretq_s8_s32(vdupq_n_s32(four));
    }
    return a;
}

typedef struct tile_sum { int16x8_t lo, hi; } tile_sum; /* rows 0, 1 and rows 2, 3: 4 lanes each */

INLINE tile_sum smull2(int8x16_t w, int8x16_t a)
{
    tile_sum s;
    s.lo = vmull_s8(vget_low_s8(w), vget_low_s8(a));
    s.hi = vmull_high_s8(w, a);
    return s;
}

INLINE tile_sum smlal2(tile_sum s, int8x16_t w, int8x16_t a)
{
    s.lo = vmlal_s8(s.lo, vget_low_s8(w), vget_low_s8(a));
    s.hi = vmlal_high_s8(s.hi, w, a);
    return s;
}

/* 8-bit codes: two products fill an int16 (2 * 127 * 127 = 32258), then they are added to int32. */
INLINE int32x4_t smlal16_l8(const int8x16_t w[4], tile_act a)
{
    const tile_sum s = smlal2(smull2(w[0], a.c[0]), w[1], a.c[1]);
    const tile_sum t = smlal2(smull2(w[2], a.c[2]), w[3], a.c[3]);
    return vpaddq_s32(vpadalq_s16(vpaddlq_s16(s.lo), t.lo), vpadalq_s16(vpaddlq_s16(s.hi), t.hi));
}

/* z + one sub-block of 8-bit codes, no scale. */
INLINE int32x4_t tile_add16(int32x4_t z, const int8x16_t w[4], tile_act a)
{
    return vaddq_s32(z, smlal16_l8(w, a));
}

/* |w| <= 32: the four products of a sub-block reach 4 * 32 * 127 = 16256, and adding two lanes of
 * them 32512, still an int16. */
INLINE int32x4_t smlal16(const int8x16_t w[4], tile_act a)
{
    tile_sum s = smull2(w[0], a.c[0]);
    s = smlal2(s, w[1], a.c[1]);
    s = smlal2(s, w[2], a.c[2]);
    s = smlal2(s, w[3], a.c[3]);
    return vpaddlq_s16(vpaddq_s16(s.lo, s.hi));
}

/* |w| <= 64 (N5): four products reach 32512, so lanes are joined in int32. */
INLINE int32x4_t smlal16_n5(const int8x16_t w[4], tile_act a)
{
    tile_sum s = smull2(w[0], a.c[0]);
    s = smlal2(s, w[1], a.c[1]);
    s = smlal2(s, w[2], a.c[2]);
    s = smlal2(s, w[3], a.c[3]);
    return vpaddq_s32(vpaddlq_s16(s.lo), vpaddlq_s16(s.hi));
}

/* |w| <= 32, one scale for 32 k: eight products reach 32512, so lanes are joined in int32. */
INLINE int32x4_t smlal32(const tile_block *w, tile_act a0, tile_act a1)
{
    tile_sum s = smull2(w->lo[0], a0.c[0]);
    s = smlal2(s, w->lo[1], a0.c[1]);
    s = smlal2(s, w->lo[2], a0.c[2]);
    s = smlal2(s, w->lo[3], a0.c[3]);
    s = smlal2(s, w->hi[0], a1.c[0]);
    s = smlal2(s, w->hi[1], a1.c[1]);
    s = smlal2(s, w->hi[2], a1.c[2]);
    s = smlal2(s, w->hi[3], a1.c[3]);
    return vpaddq_s32(vpaddlq_s16(s.lo), vpaddlq_s16(s.hi));
}

INLINE int32x4_t tile_dot(int type, int32x4_t z, const tile_block *w, tile_act a0, tile_act a1,
                          int32x4_t s0, int32x4_t s1, const int32_t *ns)
{
    (void)ns; /* the codes are signed */
    if (wide(type)) return vmlaq_s32(z, smlal32(w, a0, a1), s0);
    if (type == Q_L8) {
        z = vmlaq_s32(z, smlal16_l8(w->lo, a0), s0);
        return vmlaq_s32(z, smlal16_l8(w->hi, a1), s1);
    }
    if (type == Q_N5) {
        z = vmlaq_s32(z, smlal16_n5(w->lo, a0), s0);
        return vmlaq_s32(z, smlal16_n5(w->hi, a1), s1);
    }
    z = vmlaq_s32(z, smlal16(w->lo, a0), s0);
    return vmlaq_s32(z, smlal16(w->hi, a1), s1);
}

#endif

/* The 64-k tile t of a row group whose tiles start at p: its planes and its sub-scales. */
INLINE const uint8_t *tile_planes(int type, const uint8_t *p, int t)
{
    switch (type) {
    case Q_L8: return p + (size_t)t * 1088 + 64;
    case Q_L6: return p + (size_t)t * 832 + 64;
    case Q_N5: return p + (size_t)t * 704 + 64;
    case Q_N4: return p + (size_t)t * 576 + 64;
    case Q_P6: return p + (size_t)(t >> 1) * 832 + 64 + 384 * (t & 1); /* two on disk in one */
    case Q_P5: return p + (size_t)(t >> 1) * 704 + 64 + 320 * (t & 1);
    default: return p + (size_t)(t >> 1) * 1088 + 64 + 512 * (t & 1);
    }
}

INLINE const int8_t *tile_scales(int type, const uint8_t *p, int t)
{
    switch (type) {
    case Q_L8: return (const int8_t *)(p + (size_t)t * 1088);
    case Q_L6: return (const int8_t *)(p + (size_t)t * 832);
    case Q_N5: return (const int8_t *)(p + (size_t)t * 704);
    case Q_N4: return (const int8_t *)(p + (size_t)t * 576);
    case Q_P6: return (const int8_t *)(p + (size_t)(t >> 1) * 832 + 32 * (t & 1));
    case Q_P5: return (const int8_t *)(p + (size_t)(t >> 1) * 704 + 32 * (t & 1));
    default: return (const int8_t *)(p + (size_t)(t >> 1) * 1088 + 32 * (t & 1));
    }
}

/* z[r * M + m] of quads quad .. quad+R-1 for M tokens: codes q of the tile 64 apart, sums ns 4.
 * A token's activations are loaded where they are used: the loads are free beside the products. */
INLINE void tile_z(int type, int R, int M, int32x4_t *z, const uint8_t *planes,
                   const int8_t *scales, int quad, const int8_t *q, const int32_t *ns)
{
    UNROLL
    for (int i = 0; i < R * M; i++) z[i] = vdupq_n_s32(0);
    UNROLL
    for (int b = 0; b < 2; b++) {
        /* sub-scale lines: one for each 32 k, or two */
        const int8_t *s = scales + (wide(type) ? 16 : 32) * b + 4 * quad;
        UNROLL
        for (int r = 0; r < R; r++) {
            tile_block w = tile_unpack(type, planes, b, quad + r);
            if (!TILE_SDOT) w = tile_signed(type, w);
            const int32x4_t s0 = tile_scale(s, r, R);
            const int32x4_t s1 = wide(type) ? s0 : tile_scale(s + 16, r, R);
            UNROLL
            for (int m = 0; m < M; m++) {
                const tile_act a0 = tile_act_load(q + 64 * m + 32 * b);
                const tile_act a1 = tile_act_load(q + 64 * m + 32 * b + 16);
                z[r * M + m] = tile_dot(type, z[r * M + m], &w, a0, a1, s0, s1, ns + 4 * m + 2 * b);
            }
        }
    }
}

#endif
