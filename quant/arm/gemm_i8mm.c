/* gemm_i8mm.c - integer matrices on cores with smmla: two tokens at a time.
 *
 * smmla multiplies 2 rows x 8 k by 8 k x 2 tokens.  Two T16 lines zipped by 32-bit lanes are
 * exactly 2 rows x 8 k, so the file layout serves it with one zip per 16 bytes.  A register of sums
 * holds (row, token), (row, token + 1), (row + 1, token), (row + 1, token + 1); scales and d are
 * spread likewise and the tokens parted only at the store.  The chains are those of arith 1.
 *
 * One token alone gains nothing from it: that is sdot's (gemm_a8.h), as is the last odd one. */
#include "quant/table.h"

#if defined(__aarch64__) && defined(__ARM_NEON) && defined(__ARM_FEATURE_DOTPROD) && \
    defined(__ARM_FEATURE_MATMUL_INT8)

#include "quant/arm/gemm_a8.h"
#include "quant/arm/mm.h"

/* 16 k of two rows (half h of the quad) and two tokens, whose codes are 64 bytes apart. */
INLINE int32x4_t smmla16(int32x4_t z, const rows2 *w, int h, const int8_t *q)
{
    const int64x2_t a = vreinterpretq_s64_s8(vld1q_s8(q)),
                    b = vreinterpretq_s64_s8(vld1q_s8(q + 64));
    z = vmmlaq_s32(z, w->k0[h], vreinterpretq_s8_s64(vzip1q_s64(a, b)));
    return vmmlaq_s32(z, w->k8[h], vreinterpretq_s8_s64(vzip2q_s64(a, b)));
}

/* z[(r * 2 + h) * P + p]: quads quad .. quad+R-1, their row pairs h, token pairs p. */
INLINE void tile_mm(int type, int R, int P, int32x4_t *z, const uint8_t *planes,
                    const int8_t *scales, int quad, const int8_t *q)
{
    UNROLL
    for (int i = 0; i < 2 * R * P; i++) z[i] = vdupq_n_s32(0);
    UNROLL
    for (int b = 0; b < 2; b++) {
        const int8_t *s = scales + (wide(type) ? 16 : 32) * b + 4 * quad;
        UNROLL
        for (int r = 0; r < R; r++) {
            const tile_block w = tile_signed(type, tile_unpack(type, planes, b, quad + r));
            const rows2 lo = pair_rows(w.lo), hi = pair_rows(w.hi);
            const int32x4_t s0 = tile_scale(s, r, R);
            const int32x4_t s1 = wide(type) ? s0 : tile_scale(s + 16, r, R);
            UNROLL
            for (int p = 0; p < P; p++) {
                const int8_t *a = q + 128 * p + 32 * b;
                UNROLL
                for (int h = 0; h < 2; h++) {
                    int32x4_t *sum = &z[(2 * r + h) * P + p];
                    const int32x4_t e0 = h ? vzip2q_s32(s0, s0) : vzip1q_s32(s0, s0);
                    const int32x4_t e1 = h ? vzip2q_s32(s1, s1) : vzip1q_s32(s1, s1);
                    int32x4_t d = smmla16(vdupq_n_s32(0), &lo, h, a);
                    if (!wide(type)) {
                        *sum = vmlaq_s32(*sum, d, e0);
                        d = vdupq_n_s32(0);
                    }
                    d = smmla16(d, &hi, h, a + 16);
                    *sum = vmlaq_s32(*sum, d, e1);
                }
            }
        }
    }
}

/* One row group x P pairs of tokens from token m0 on; 2 * R * P <= 8. */
INLINE void group_mm(int type, int R, int P, float *y, size_t ldy, int rows, const uint8_t *group,
                     const q_acts *x, int m0)
{
    float32x4_t f[8 * 4]; /* (quad, half, P) */
    UNROLL
    for (int i = 0; i < P; i++) {
        UNROLL
        for (int r = 0; r < 8; r++) f[r * P + i] = vdupq_n_f32(0.0f);
    }
    const size_t step = (size_t)x->M;
    const int8_t *q = x->q + (size_t)m0 * Q_TILE;
    const float *d = x->d + m0;
    const int kt = x->kt;
    for (int t = 0; t < kt; t++, q += step * Q_TILE, d += step) {
        const uint8_t *planes = tile_planes(type, group + 64, t);
        const int8_t *scales = tile_scales(type, group + 64, t);
        for (int quad = 0; quad < 4; quad += R) {
            int32x4_t z[8];
            tile_mm(type, R, P, z, planes, scales, quad, q);
            UNROLL
            for (int p = 0; p < P; p++) {
                const float32x2_t two = vld1_f32(d + 2 * p);
                const float32x4_t dd = vcombine_f32(two, two);
                UNROLL
                for (int h = 0; h < 2 * R; h++) {
                    float32x4_t *c = &f[(2 * quad + h) * P + p];
                    *c = vfmaq_f32(*c, dd, vcvtq_f32_s32(z[h * P + p]));
                }
            }
        }
    }

    const float *rs = (const float *)(const void *)group;
    UNROLL
    for (int p = 0; p < P; p++) {
        float32x4_t even[4], odd[4];
        UNROLL
        for (int i = 0; i < 4; i++) {
            const float32x4_t a = f[2 * i * P + p], b = f[(2 * i + 1) * P + p],
                              s = vld1q_f32(rs + 4 * i);
            even[i] = vmulq_f32(s, vuzp1q_f32(a, b));
            odd[i] = vmulq_f32(s, vuzp2q_f32(a, b));
        }
        store_rows(y + (size_t)(2 * p) * ldy, rows, even);
        store_rows(y + (size_t)(2 * p + 1) * ldy, rows, odd);
    }
}

INLINE void gemm_few_mm(int type, float *y, size_t ldy, const void *w, int n, const q_acts *x,
                        int m0, int m)
{
    const size_t bytes = q_group_bytes(type, x->kt * Q_TILE);
    const uint8_t *group = w;
    for (int r = 0; r < n; r += Q_ROWS, group += bytes) {
        const int rows = n - r;
        float *p = y + r;
        int j = 0;
        for (; j + 8 <= m; j += 8)
            group_mm(type, 1, 4, p + (size_t)j * ldy, ldy, rows, group, x, m0 + j);
        if (m - j >= 4) {
            group_mm(type, 2, 2, p + (size_t)j * ldy, ldy, rows, group, x, m0 + j);
            j += 4;
        }
        if (m - j >= 2) {
            group_mm(type, 4, 1, p + (size_t)j * ldy, ldy, rows, group, x, m0 + j);
            j += 2;
        }
        if (m - j >= 1) group_a8(type, 4, 1, p + (size_t)j * ldy, ldy, rows, group, x, m0 + j);
    }
}

/* ---- many tokens: as the panel of gemm_a8.h, its lines already zipped ---- */

/* 4 rows of a tile; halves are rows 0, 1 and rows 2, 3.  As there, sums run on from the first
 * sub-block of 32 k to the second, which saves a start at zero; over all four they would take 8
 * registers that are not there. */
typedef struct mm_quad {
    int8_t w[4][2][2][16];  /* (sub-block, half, 8 k, row x 8 k), signed */
    int32_t e[4][2][4];     /* (sub-block, half, each row twice): s_0 - s_1, s_1, s_2 - s_3, s_3; of
                             * N4s only 1 and 3, the two sub-scales */
} mm_quad;

/* 8 tokens of one stretch of k: pairs as smmla wants them, zeros behind the last token. */
typedef struct mm_acts {
    int8_t q[PANEL_TILES][4][8][16]; /* (tile, pair, 8 k, token x 8 k) */
    float d[PANEL_TILES][4][4];      /* (tile, pair, the two tokens twice) */
} mm_acts;

typedef struct mm_panel {
    mm_quad q[PANEL_GROUPS * 4][PANEL_TILES];
    float f[PANEL_TOKENS][PANEL_ROWS];
    mm_acts a;
} mm_panel;

_Static_assert(sizeof(mm_panel) <= Q_TMP, "a panel fits the scratch of a gemm");
_Static_assert(PANEL_TOKENS % 8 == 0, "f has rows for the zeros behind the last token");

INLINE void mm_unpack(int type, mm_quad (*q)[PANEL_TILES], const uint8_t *group, int t0, int nt)
{
    for (int t = 0; t < nt; t++) {
        const uint8_t *planes = tile_planes(type, group + 64, t0 + t);
        const int8_t *scales = tile_scales(type, group + 64, t0 + t);
        UNROLL
        for (int quad = 0; quad < 4; quad++) {
            mm_quad *p = &q[quad][t];
            UNROLL
            for (int b = 0; b < 2; b++) {
                const tile_block w = tile_signed(type, tile_unpack(type, planes, b, quad));
                const rows2 lo = pair_rows(w.lo), hi = pair_rows(w.hi);
                const int8_t *s = scales + (wide(type) ? 16 : 32) * b;
                int32x4_t e1 = tile_scale(s, quad, 4), e0 = e1;
                if (!wide(type)) {
                    e1 = tile_scale(s + 16, quad, 4);
                    e0 = vsubq_s32(e0, e1);
                }
                UNROLL
                for (int h = 0; h < 2; h++) {
                    vst1q_s8(p->w[2 * b][h][0], lo.k0[h]);
                    vst1q_s8(p->w[2 * b][h][1], lo.k8[h]);
                    vst1q_s8(p->w[2 * b + 1][h][0], hi.k0[h]);
                    vst1q_s8(p->w[2 * b + 1][h][1], hi.k8[h]);
                    if (!wide(type))
                        vst1q_s32(p->e[2 * b][h], h ? vzip2q_s32(e0, e0) : vzip1q_s32(e0, e0));
                    vst1q_s32(p->e[2 * b + 1][h], h ? vzip2q_s32(e1, e1) : vzip1q_s32(e1, e1));
                }
            }
        }
    }
}

static void mm_pack(mm_acts *a, const int8_t *q, const float *d, size_t step, int nt, int tokens)
{
    static const int8_t zero[Q_TILE] = { 0 };
    for (int t = 0; t < nt; t++, q += step * Q_TILE, d += step) {
        UNROLL
        for (int p = 0; p < 4; p++) {
            const int left = tokens - 2 * p;
            const int8_t *even = left > 0 ? q + 2 * p * Q_TILE : zero;
            const int8_t *odd = left > 1 ? q + (2 * p + 1) * Q_TILE : zero;
            UNROLL
            for (int s = 0; s < 4; s++) {
                const int64x2_t u = vreinterpretq_s64_s8(vld1q_s8(even + 16 * s));
                const int64x2_t v = vreinterpretq_s64_s8(vld1q_s8(odd + 16 * s));
                vst1q_s8(a->q[t][p][2 * s], vreinterpretq_s8_s64(vzip1q_s64(u, v)));
                vst1q_s8(a->q[t][p][2 * s + 1], vreinterpretq_s8_s64(vzip2q_s64(u, v)));
            }
            float *to = a->d[t][p];
            to[0] = to[2] = left > 0 ? d[2 * p] : 0.0f;
            to[1] = to[3] = left > 1 ? d[2 * p + 1] : 0.0f;
        }
    }
}

/* 4 rows x 8 tokens over nt tiles: carries f on. */
INLINE void mm_run(int type, float *f, const mm_quad *w, int nt, const mm_acts *a)
{
    float32x4_t c[8]; /* (half, pair) */
    UNROLL
    for (int p = 0; p < 4; p++) {
        const float *g = f + 2 * p * PANEL_ROWS;
        const float32x4_t even = vld1q_f32(g), odd = vld1q_f32(g + PANEL_ROWS);
        c[p] = vzip1q_f32(even, odd);
        c[4 + p] = vzip2q_f32(even, odd);
    }
    for (int t = 0; t < nt; t++, w++) {
        int32x4_t z[8];
        UNROLL
        for (int b = 0; b < 2; b++) {
            UNROLL
            for (int p = 0; p < 4; p++) {
                const int8_t(*q)[16] = &a->q[t][p][4 * b];
                UNROLL
                for (int h = 0; h < 2; h++) {
                    int32x4_t *to = &z[4 * h + p], sum = vdupq_n_s32(0);
                    UNROLL
                    for (int s = 0; s < 2; s++) {
                        const int8_t(*line)[16] = w->w[2 * b + s][h];
                        sum = vmmlaq_s32(sum, vld1q_s8(line[0]), vld1q_s8(q[2 * s]));
                        sum = vmmlaq_s32(sum, vld1q_s8(line[1]), vld1q_s8(q[2 * s + 1]));
                        if (wide(type) && s == 0) continue;
                        const int32x4_t e = vld1q_s32(w->e[2 * b + s][h]);
                        const bool first = b == 0 && (s == 0 || wide(type));
                        *to = first ? vmulq_s32(sum, e) : vmlaq_s32(*to, sum, e);
                        keep_apart(to, &sum);
                    }
                }
            }
        }
        UNROLL
        for (int p = 0; p < 4; p++) {
            const float32x4_t d = vld1q_f32(a->d[t][p]);
            c[p] = vfmaq_f32(c[p], d, vcvtq_f32_s32(z[p]));
            c[4 + p] = vfmaq_f32(c[4 + p], d, vcvtq_f32_s32(z[4 + p]));
        }
    }
    UNROLL
    for (int p = 0; p < 4; p++) {
        float *g = f + 2 * p * PANEL_ROWS;
        vst1q_f32(g, vuzp1q_f32(c[p], c[4 + p]));
        vst1q_f32(g + PANEL_ROWS, vuzp2q_f32(c[p], c[4 + p]));
    }
}

/* Up to 64 rows x up to PANEL_TOKENS tokens. */
INLINE void mm_block(int type, mm_panel *p, float *y, size_t ldy, int rows, const uint8_t *w,
                     size_t bytes, const q_acts *x, int m0, int m)
{
    const int groups = (rows + Q_ROWS - 1) / Q_ROWS;
    memset(p->f, 0, (size_t)((m + 7) & ~7) * sizeof p->f[0]);
    for (int t = 0; t < x->kt; t += PANEL_TILES) {
        const int nt = x->kt - t < PANEL_TILES ? x->kt - t : PANEL_TILES;
        for (int g = 0; g < groups; g++)
            mm_unpack(type, &p->q[4 * g], w + (size_t)g * bytes, t, nt);
        for (int j = 0; j < m; j += 8) {
            const size_t step = (size_t)x->M, at = (size_t)t * step + (size_t)(m0 + j);
            mm_pack(&p->a, x->q + at * Q_TILE, x->d + at, step, nt, m - j < 8 ? m - j : 8);
            for (int i = 0; i < 4 * groups; i++)
                mm_run(type, &p->f[j][4 * i], p->q[i], nt, &p->a);
        }
    }
    panel_store(p->f, y, ldy, rows, w, bytes, m);
}

INLINE void gemm_mm(int type, float *y, size_t ldy, const void *w, int n, const q_acts *x, int m0,
                    int m, void *tmp)
{
    if (m < PANEL_MIN) {
        gemm_few_mm(type, y, ldy, w, n, x, m0, m);
        return;
    }
    const size_t bytes = q_group_bytes(type, x->kt * Q_TILE);
    const uint8_t *group = w;
    for (int r = 0; r < n; r += PANEL_ROWS, group += PANEL_GROUPS * bytes) {
        const int rows = n - r < PANEL_ROWS ? n - r : PANEL_ROWS;
        for (int j = 0; j < m; j += PANEL_TOKENS) {
            const int part = m - j < PANEL_TOKENS ? m - j : PANEL_TOKENS;
            float *p = y + (size_t)j * ldy + r;
            mm_block(type, tmp, p, ldy, rows, group, bytes, x, m0 + j, part);
        }
    }
}

static void gemm_l8_a8_16x8_i8mm(float *y, size_t ldy, const void *w, int n, const q_acts *x,
                                 int m0, int m, void *tmp)
{
    gemm_mm(Q_L8, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_l6_a8_16x8_i8mm(float *y, size_t ldy, const void *w, int n, const q_acts *x,
                                 int m0, int m, void *tmp)
{
    gemm_mm(Q_L6, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_n5_a8_16x8_i8mm(float *y, size_t ldy, const void *w, int n, const q_acts *x,
                                 int m0, int m, void *tmp)
{
    gemm_mm(Q_N5, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_n4_a8_16x8_i8mm(float *y, size_t ldy, const void *w, int n, const q_acts *x,
                                 int m0, int m, void *tmp)
{
    gemm_mm(Q_N4, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_n4s_a8_16x8_i8mm(float *y, size_t ldy, const void *w, int n, const q_acts *x,
                                  int m0, int m, void *tmp)
{
    gemm_mm(Q_N4S, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_p6_a8_16x8_i8mm(float *y, size_t ldy, const void *w, int n, const q_acts *x,
                                 int m0, int m, void *tmp)
{
    gemm_mm(Q_P6, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_p5_a8_16x8_i8mm(float *y, size_t ldy, const void *w, int n, const q_acts *x,
                                 int m0, int m, void *tmp)
{
    gemm_mm(Q_P5, y, ldy, w, n, x, m0, m, tmp);
}

bool q_fill_gemm_i8mm(q_kern *t)
{
    t->gemm_l8 = gemm_l8_a8_16x8_i8mm;
    t->gemm_l6 = gemm_l6_a8_16x8_i8mm;
    t->gemm_n5 = gemm_n5_a8_16x8_i8mm;
    t->gemm_n4 = gemm_n4_a8_16x8_i8mm;
    t->gemm_n4s = gemm_n4s_a8_16x8_i8mm;
    t->gemm_p6 = gemm_p6_a8_16x8_i8mm;
    t->gemm_p5 = gemm_p5_a8_16x8_i8mm;
    return true;
}

#else
bool q_fill_gemm_i8mm(q_kern *t)
{
    (void)t;
    return false;
}
#endif
