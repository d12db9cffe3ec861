/* attn_i8mm.c - the integer products of attention on cores with smmla, four queries at a time.
 *
 * A two-byte query is two int8 tokens, hi and lo: the two columns that smmla multiplies 2 rows by.
 * Hi and lo are put side by side once per block, two lines of the cache by a zip when they are
 * loaded, which four queries share.  A register of sums holds (row, hi), (row, lo), (row + 1, hi),
 * (row + 1, lo).  What is left of the queries, as in decoding, is sdot's (attn_dotprod.c). */
#include "quant/table.h"

#if defined(__aarch64__) && defined(__ARM_NEON) && defined(__ARM_FEATURE_DOTPROD) && \
    defined(__ARM_FEATURE_MATMUL_INT8)

#include "quant/arm/attn_a8.h"
#include "quant/arm/attn_dotprod.h"
#include "quant/arm/mm.h"

#include <assert.h>

enum {
    MM_QUERIES = 4, /* as many as 32 registers hold: 8 sums, 4 of lines, 2 of scales */
    MM_TILES = 32   /* latents of 1024 and 1024 dims; of four queries that is 16 KB of stack */
};

typedef struct mm_tile {
    int8_t q[MM_QUERIES][8][16]; /* (query, 8 k, hi x 8 k then lo x 8 k) */
} mm_tile;

/* One tile of one query: 64 bytes hi, 64 lo. */
INLINE void mm_pack(int8_t to[8][16], const int8_t *q)
{
    UNROLL
    for (int s = 0; s < 4; s++) {
        const int64x2_t hi = vreinterpretq_s64_s8(vld1q_s8(q + 16 * s)),
                        lo = vreinterpretq_s64_s8(vld1q_s8(q + Q_TILE + 16 * s));
        vst1q_s8(to[2 * s], vreinterpretq_s8_s64(vzip1q_s64(hi, lo)));
        vst1q_s8(to[2 * s + 1], vreinterpretq_s8_s64(vzip2q_s64(hi, lo)));
    }
}

static void mm_pack_all(mm_tile *to, const q_acts *x, int m0)
{
    assert(x->kt <= MM_TILES);
    for (int t = 0; t < x->kt; t++)
        for (int j = 0; j < MM_QUERIES; j++)
            mm_pack(to[t].q[j], x->q + ((size_t)t * (size_t)x->M + 2 * (size_t)(m0 + j)) * Q_TILE);
}

/* hi[j], lo[j] of 4 rows: sums over the 64 k of 16 lines, times the scales of each 16 k if there
 * are such.  Sums run on from one 16 k to the next, which saves starts at zero: of scales a, b, c
 * and d the factors are a - b, b - c, c - d, d; all stays below 4 * 254 * 64 * 127 * 127 < 2^30. */
INLINE void lines_mm(int32x4_t hi[MM_QUERIES], int32x4_t lo[MM_QUERIES], const uint8_t *lines,
                     const int8_t *scales, int quad, const mm_tile *q)
{
    int32x4_t sum[2 * MM_QUERIES], z[2 * MM_QUERIES]; /* (half, query) */
    UNROLL
    for (int i = 0; i < 2 * MM_QUERIES; i++) sum[i] = vdupq_n_s32(0);
    __asm__("" : "+r"(q)); /* else gcc loads 32 registers of q before the four quads, and spills */
    UNROLL
    for (int s = 0; s < 4; s++) {
        int8x16_t w[4];
        UNROLL
        for (int c = 0; c < 4; c++)
            w[c] = vreinterpretq_s8_u8(vld1q_u8(lines + 64 * (4 * s + c) + 16 * quad));
        const rows2 r = pair_rows(w);
        int32x4_t e[2] = { vdupq_n_s32(0), vdupq_n_s32(0) };
        if (scales) {
            const int8_t *p = scales + 16 * s + 4 * quad;
            int32x4_t four = tile_scale(p, 0, 1);
            if (s < 3) four = vsubq_s32(four, tile_scale(p + 16, 0, 1));
            e[0] = vzip1q_s32(four, four);
            e[1] = vzip2q_s32(four, four);
        }
        UNROLL
        for (int j = 0; j < MM_QUERIES; j++) {
            const int8x16_t a0 = vld1q_s8(q->q[j][2 * s]), a1 = vld1q_s8(q->q[j][2 * s + 1]);
            UNROLL
            for (int h = 0; h < 2; h++) {
                const int i = MM_QUERIES * h + j;
                sum[i] = vmmlaq_s32(vmmlaq_s32(sum[i], r.k0[h], a0), r.k8[h], a1);
                if (!scales) continue;
                z[i] = s == 0 ? vmulq_s32(sum[i], e[h]) : vmlaq_s32(z[i], sum[i], e[h]);
                keep_apart(&z[i], &sum[i]);
            }
        }
    }
    UNROLL
    for (int j = 0; j < MM_QUERIES; j++) {
        const int32x4_t a = scales ? z[j] : sum[j],
                        b = scales ? z[MM_QUERIES + j] : sum[MM_QUERIES + j];
        hi[j] = vuzp1q_s32(a, b);
        lo[j] = vuzp2q_s32(a, b);
    }
}

/* ---- scores ---- */

/* 16 positions. */
static void group_qk8_mm(float *s, size_t lds, const uint8_t *group, const mm_tile *q,
                         const q_acts *x, int m0, float scale)
{
    const float *d = x->d + 2 * m0, *rs = (const float *)(const void *)group;
    float32x4_t f[4][MM_QUERIES];
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < MM_QUERIES; j++) f[i][j] = vdupq_n_f32(0.0f);
    for (int t = 0; t < x->kt; t++, d += x->M) {
        const uint8_t *planes = tile_planes(Q_L8, group + 64, t);
        const int8_t *scales = tile_scales(Q_L8, group + 64, t);
        for (int quad = 0; quad < 4; quad++) {
            int32x4_t hi[MM_QUERIES], lo[MM_QUERIES];
            lines_mm(hi, lo, planes, scales, quad, &q[t]);
            UNROLL
            for (int j = 0; j < MM_QUERIES; j++) {
                const float32x4_t h = vfmaq_n_f32(f[quad][j], vcvtq_f32_s32(hi[j]), d[2 * j]);
                f[quad][j] = vfmaq_n_f32(h, vcvtq_f32_s32(lo[j]), d[2 * j + 1]);
            }
        }
    }
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < MM_QUERIES; j++) {
            const float32x4_t v = vmulq_f32(vld1q_f32(rs + 4 * i), f[i][j]);
            vst1q_f32(s + (size_t)j * lds + 4 * i, vmulq_n_f32(v, scale));
        }
    }
}

static void attn_qk8_i8mm(float *s, size_t lds, const void *kblk, int ng, const q_acts *q2, int m0,
                          int m, float scale)
{
    const size_t bytes = q_group_bytes(Q_L8, q2->kt * Q_TILE);
    mm_tile q[MM_TILES];
    int j = 0;
    for (; j + MM_QUERIES <= m; j += MM_QUERIES) {
        const uint8_t *group = kblk;
        mm_pack_all(q, q2, m0 + j);
        for (int g = 0; g < ng; g++, group += bytes)
            group_qk8_mm(s + (size_t)j * lds + Q_ROWS * g, lds, group, q, q2, m0 + j, scale);
    }
    if (j < m) q_attn_qk8_dotprod(s + (size_t)j * lds, lds, kblk, ng, q2, m0 + j, m - j, scale);
}

/* ---- scores of latents ---- */

/* 16 positions; dc and nl as in attn_a8.h. */
static void group_qkl8_mm(float *s, size_t lds, const uint8_t *lines, const float *dc, int nl,
                          const mm_tile *q, const q_acts *x, int m0, float scale)
{
    const float *d = x->d + 2 * m0;
    float32x4_t f[4][MM_QUERIES];
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < MM_QUERIES; j++) f[i][j] = vdupq_n_f32(0.0f);
    for (int t = 0; t < x->kt; t++, lines += 1024, d += x->M) {
        const int block = t < nl ? t / 2 : (nl + 1) / 2 + (t - nl) / 2;
        for (int quad = 0; quad < 4; quad++) {
            const float32x4_t c = vld1q_f32(dc + block * Q_PIECE + 4 * quad);
            int32x4_t hi[MM_QUERIES], lo[MM_QUERIES];
            lines_mm(hi, lo, lines, NULL, quad, &q[t]);
            UNROLL
            for (int j = 0; j < MM_QUERIES; j++) {
                const int32x4_t z = vmlaq_n_s32(lo[j], hi[j], 254);
                f[quad][j] = vfmaq_f32(f[quad][j], vmulq_n_f32(c, d[2 * j + 1]), vcvtq_f32_s32(z));
            }
        }
    }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < MM_QUERIES; j++)
            vst1q_f32(s + (size_t)j * lds + 4 * i, vmulq_n_f32(f[i][j], scale));
}

static void attn_qkl8_i8mm(float *s, size_t lds, const void *blk, int lora, int rope, int ng,
                           const q_acts *q2, int m0, int m, float scale)
{
    const int nl = (lora + Q_TILE - 1) / Q_TILE;
    const uint8_t *lines = (const uint8_t *)blk + q_lat_codes(lora, rope);
    mm_tile q[MM_TILES];
    int j = 0;
    for (; j + MM_QUERIES <= m; j += MM_QUERIES) {
        mm_pack_all(q, q2, m0 + j);
        for (int g = 0; g < ng; g++)
            group_qkl8_mm(s + (size_t)j * lds + Q_ROWS * g, lds,
                          lines + (size_t)g * (size_t)q2->kt * 1024,
                          (const float *)blk + Q_ROWS * g, nl, q, q2, m0 + j, scale);
    }
    if (j < m)
        q_attn_qkl8_dotprod(s + (size_t)j * lds, lds, blk, lora, rope, ng, q2, m0 + j, m - j,
                            scale);
}

/* ---- values ---- */

/* 16 dims over nt tiles; lines of one tile are `step` bytes after those of the last. */
static void group_pv8_mm(float *o, size_t ldo, int dims, const uint8_t *lines, size_t step, int nt,
                         const mm_tile *q, const pv_bytes *u)
{
    float32x4_t f[MM_QUERIES][4];
    for (int j = 0; j < MM_QUERIES; j++)
        for (int i = 0; i < 4; i++) f[j][i] = vdupq_n_f32(0.0f);
    for (int t = 0; t < nt; t++, lines += step) {
        for (int quad = 0; quad < 4; quad++) {
            int32x4_t hi[MM_QUERIES], lo[MM_QUERIES];
            lines_mm(hi, lo, lines, NULL, quad, &q[t]);
            UNROLL
            for (int j = 0; j < MM_QUERIES; j++) {
                const int32x4_t z = vmlaq_n_s32(lo[j], hi[j], 254);
                f[j][quad] = vfmaq_n_f32(f[j][quad], vcvtq_f32_s32(z), u->d[t][j]);
            }
        }
    }
    for (int j = 0; j < MM_QUERIES; j++) store_rows(o + (size_t)j * ldo, dims, f[j]);
}

static int block_pv8_mm(float *o, size_t ldo, const uint8_t *vblk, int hd, const float *e,
                        size_t lde, const int *nvis)
{
    const int groups = (hd + 15) / 16, nt = tiles_seen(nvis, MM_QUERIES);
    const uint8_t *codes = vblk + v8_codes(hd);
    const size_t step = (size_t)groups * 1024;
    int bad = 0;
    pv_bytes u;
    mm_tile q[Q_PIECE / Q_TILE];
    for (int g = 0; g < groups; g++) {
        const float *dv = (const float *)(const void *)vblk + (g / 8) * Q_PIECE;
        for (int t = 0; t < nt && g % 8 == 0; t++) { /* the next 128 dims have their own dv */
            for (int j = 0; j < MM_QUERIES; j++) {
                bad |= pv_quant(&u, t, j, e + (size_t)j * lde, dv, nvis[j]);
                mm_pack(q[t].q[j], u.q[t][2 * j]);
            }
        }
        group_pv8_mm(o + 16 * g, ldo, hd - 16 * g, codes + (size_t)g * 1024, step, nt, q, &u);
    }
    return bad;
}

static int attn_pv8_i8mm(float *o, size_t ldo, const void *vblk, int hd, const float *e, size_t lde,
                         const int *nvis, int m)
{
    int j = 0, bad = 0;
    for (; j + MM_QUERIES <= m; j += MM_QUERIES)
        bad |= block_pv8_mm(o + (size_t)j * ldo, ldo, vblk, hd, e + (size_t)j * lde, lde, nvis + j);
    if (j < m)
        bad |= q_attn_pv8_dotprod(o + (size_t)j * ldo, ldo, vblk, hd, e + (size_t)j * lde, lde,
                                  nvis + j, m - j);
    return bad;
}

bool q_fill_attn_i8mm(q_kern *t)
{
    t->attn_qk8 = attn_qk8_i8mm;
    t->attn_qkl8 = attn_qkl8_i8mm;
    t->attn_pv8 = attn_pv8_i8mm;
    return true;
}

#else
bool q_fill_attn_i8mm(q_kern *t)
{
    (void)t;
    return false;
}
#endif
