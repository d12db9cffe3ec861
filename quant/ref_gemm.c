/* ref_gemm.c - matrix times tokens in plain C (quant.h, exact.md 3).
 *
 * Loops run over the 16 rows of a group innermost: rows are outputs, so a compiler may vectorise
 * them without touching the order of any sum. */
#include "quant/ref.h"

#include "quant/scalar.h"
#include "quant/t16.h"

/* z of 16 rows for one half tile: at most 4 * 16 * 127^3 < 2^27. */
static void dot_half(int32_t z[Q_ROWS], const q_half *w, const int8_t *q)
{
    memset(z, 0, Q_ROWS * sizeof *z);
    for (int i = 0; i < 4; i++) {
        int32_t sum[Q_ROWS] = { 0 };
        for (int k = 16 * i; k < 16 * i + 16; k++)
            for (int r = 0; r < Q_ROWS; r++) sum[r] += w->g[k][r] * q[k];
        for (int r = 0; r < Q_ROWS; r++) z[r] += w->s[i][r] * sum[r];
    }
}

static int clip(int n) { return n < Q_ROWS ? n : Q_ROWS; }

enum { CHUNK = 64 }; /* tokens that share one unpacking of a tile */

static void gemm_a8(int type, float *y, size_t ldy, const void *w, int n, const q_acts *x, int m0,
                    int m)
{
    const q_typeinfo *info = q_type_info(type);
    const size_t bytes = q_group_bytes(type, x->kt * Q_TILE);
    for (int r0 = 0; r0 < n; r0 += Q_ROWS, w = (const uint8_t *)w + bytes) {
        for (int j0 = 0; j0 < m; j0 += CHUNK) {
            const int mj = m - j0 < CHUNK ? m - j0 : CHUNK;
            float f[CHUNK][Q_ROWS], scale[Q_ROWS];
            memset(f, 0, sizeof f);
            memcpy(scale, w, sizeof scale);
            for (int t = 0; t < x->kt; t++) {
                const int k = t * Q_TILE;
                const uint8_t *tile = (const uint8_t *)w + info->head_bytes +
                                      (size_t)(k / info->tile_k) * (size_t)info->tile_bytes;
                q_half half;
                q_half_load(&half, type, tile, k % info->tile_k / Q_TILE);
                for (int j = 0; j < mj; j++) {
                    const size_t at = (size_t)t * (size_t)x->M + (size_t)(m0 + j0 + j);
                    int32_t z[Q_ROWS];
                    dot_half(z, &half, x->q + at * Q_TILE);
                    for (int r = 0; r < Q_ROWS; r++) f[j][r] = fmaf(x->d[at], (float)z[r], f[j][r]);
                }
            }
            for (int j = 0; j < mj; j++)
                for (int r = 0; r < clip(n - r0); r++)
                    y[(size_t)(j0 + j) * ldy + (size_t)(r0 + r)] = scale[r] * f[j][r];
        }
    }
}

#define GEMM_A8(name, type) \
    static void gemm_##name##_ref(float *y, size_t ldy, const void *w, int n, const q_acts *x, \
                                  int m0, int m, void *tmp) \
    { \
        (void)tmp; \
        gemm_a8(type, y, ldy, w, n, x, m0, m); \
    }
GEMM_A8(l8, Q_L8)
GEMM_A8(l6, Q_L6)
GEMM_A8(n5, Q_N5)
GEMM_A8(n4, Q_N4)
GEMM_A8(n4s, Q_N4S)
GEMM_A8(p6, Q_P6)
GEMM_A8(p5, Q_P5)

/* Column k of 16 rows of a float tile. */
static void float_column(float out[Q_ROWS], int type, const uint8_t *group, int k)
{
    if (type == Q_F32) {
        memcpy(out, group + 64 * (size_t)k, 64);
        return;
    }
    for (int r = 0; r < Q_ROWS; r++) {
        uint16_t h;
        memcpy(&h, group + 64 * (size_t)(k / 2) + 4 * (size_t)r + 2 * (size_t)(k % 2), 2);
        out[r] = type == Q_F16 ? q_f16_to_f32(h) : q_bf16_to_f32(h);
    }
}

static void gemm_f(int type, float *y, size_t ldy, const void *w, int n, int k, const float *x,
                   size_t ldx, int m)
{
    const size_t bytes = q_group_bytes(type, k);
    for (int r0 = 0; r0 < n; r0 += Q_ROWS, w = (const uint8_t *)w + bytes) {
        for (int j0 = 0; j0 < m; j0 += CHUNK) {
            const int mj = m - j0 < CHUNK ? m - j0 : CHUNK;
            float f[CHUNK][Q_ROWS];
            memset(f, 0, sizeof f);
            for (int i = 0; i < q_pad_k(type, k); i++) {
                float col[Q_ROWS];
                float_column(col, type, w, i);
                for (int j = 0; j < mj; j++) {
                    const float v = x[(size_t)(j0 + j) * ldx + (size_t)i];
                    for (int r = 0; r < Q_ROWS; r++) f[j][r] = fmaf(col[r], v, f[j][r]);
                }
            }
            for (int j = 0; j < mj; j++)
                for (int r = 0; r < clip(n - r0); r++)
                    y[(size_t)(j0 + j) * ldy + (size_t)(r0 + r)] = f[j][r] + 0.0f;
        }
    }
}

#define GEMM_F(name, type) \
    static void gemm_##name##_ref(float *y, size_t ldy, const void *w, int n, int k, \
                                  const float *x, size_t ldx, int m, void *tmp) \
    { \
        (void)tmp; \
        gemm_f(type, y, ldy, w, n, k, x, ldx, m); \
    }
GEMM_F(f32, Q_F32)
GEMM_F(f16, Q_F16)
GEMM_F(bf16, Q_BF16)

void q_ref_gemm(q_kern *t)
{
    t->gemm_f32 = gemm_f32_ref;
    t->gemm_f16 = gemm_f16_ref;
    t->gemm_bf16 = gemm_bf16_ref;
    t->gemm_l8 = gemm_l8_ref;
    t->gemm_l6 = gemm_l6_ref;
    t->gemm_n5 = gemm_n5_ref;
    t->gemm_n4 = gemm_n4_ref;
    t->gemm_n4s = gemm_n4s_ref;
    t->gemm_p6 = gemm_p6_ref;
    t->gemm_p5 = gemm_p5_ref;
}
