/* gemm_avxvnni.c - matrices on AVX-VNNI (Alder Lake and its small cores): a few tokens; from
 * PANEL_MIN on, panels.  Float weights stay with gemm_avx2.c, whose instructions they need.
 *
 * A row group is one stream of 64 B lines, taken as two halves of 8 rows within each tile, so every
 * line is read from memory once; blocks of 4 tokens share an unpacked line (tile_avxvnni.h). */
#include "quant/table.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__) && defined(__AVXVNNI__)

#include "quant/x86/panel_avxvnni.h"
#include "quant/x86/tile_avxvnni.h"

/* One row group, M tokens from m0.  start: (kt, ld_start / 4 tokens, 4), see make_start. */
Q_INLINE void group_a8(const int type, const int M, float *y, size_t ldy, const uint8_t *w,
                       const q_acts *x, int m0, const int32_t *start, size_t ld_start, int rows)
{
    const size_t stride = (size_t)x->M;
    const int8_t *q = x->q + 64 * (size_t)m0;
    const float *d = x->d + m0;
    const int halves = type == Q_N4S ? 2 : 1; /* tiles of 64 k in one tile of the format */
    const float *scale = (const float *)w;
    const luts g = luts_of(type, true);
    tile_src src = { NULL, NULL, NULL, &g };
    __m256 f[2][BLOCK_M]; /* rows 0..7, 8..15: in memory, one load and store per tile */
    for (int half = 0; half < 2; half++) {
        Q_UNROLL
        for (int m = 0; m < M; m++) f[half][m] = _mm256_setzero_ps();
    }
    w += 64;
    for (int t = 0; t < x->kt; t += halves) {
        const int8_t *s8 = (const int8_t *)w;
        w += 64;
        for (int h = 0; h < halves; h++) {
            if (M == 1) {
                Q_UNROLL
                for (int i = -64; i < plane_bytes(type); i += 64)
                    ask_ahead(w + i);
            }
            for (int half = 0, nh = opaque(2); half < nh; half++) {
                __m256 v[BLOCK_M];
                src.s8 = s8 + 32 * h + 8 * half;
                src.p = w + 32 * half;
                tile_f8(type, false, M, v, &src, q, start);
                Q_UNROLL
                for (int m = 0; m < M; m++)
                    f[half][m] = _mm256_fmadd_ps(_mm256_set1_ps(d[m]), v[m], f[half][m]);
            }
            w += plane_bytes(type);
            q += 64 * stride;
            start += ld_start;
            d += stride;
        }
    }
    const __m256 r0 = _mm256_load_ps(scale), r1 = _mm256_load_ps(scale + 8);
    Q_UNROLL
    for (int m = 0; m < M; m++)
        v16_store_n(y + (size_t)m * ldy,
                    (v16f){ _mm256_mul_ps(r0, f[0][m]), _mm256_mul_ps(r1, f[1][m]) }, rows);
}

Q_INLINE void gemm_a8(const int type, float *y, size_t ldy, const uint8_t *w, int n,
                      const q_acts *x, int m0, int m, int32_t *start)
{
    const size_t bytes = q_group_bytes(type, Q_TILE * x->kt);
    const int kt = type == Q_N4S ? (x->kt + 1) / 2 * 2 : x->kt;
    /* Starting values of 4 tokens at a time: Q_TMP holds those of 524,288 k. */
    for (int j = 0; j < m; j += BLOCK_M) {
        const int M = m - j < BLOCK_M ? m - j : BLOCK_M, at = m0 + j;
        const size_t ld = 4 * (size_t)M;
        for (int t = 0; t < kt; t++) {
            const int32_t *nsum = x->nsum + 4 * ((size_t)t * (size_t)x->M + (size_t)at);
            for (int i = 0; i < M; i++) make_start(type, start + 4 * (t * M + i), nsum + 4 * i);
        }
        for (int g = 0; 16 * g < n; g++) {
            const uint8_t *wg = w + bytes * (size_t)g;
            const int rows = n - 16 * g < 16 ? n - 16 * g : 16;
            float *yg = y + (size_t)j * ldy + 16 * g;
            switch (M) {
            case 1: group_a8(type, 1, yg, ldy, wg, x, at, start, ld, rows); break;
            case 2: group_a8(type, 2, yg, ldy, wg, x, at, start, ld, rows); break;
            case 3: group_a8(type, 3, yg, ldy, wg, x, at, start, ld, rows); break;
            default: group_a8(type, 4, yg, ldy, wg, x, at, start, ld, rows); break;
            }
        }
    }
}

static void gemm_l8_avxvnni(float *y, size_t ldy, const void *w, int n, const q_acts *x, int m0,
                            int m, void *tmp)
{
    if (m >= PANEL_MIN) q_panel_avxvnni(Q_L8, y, ldy, w, n, x, m0, m, tmp);
    else gemm_a8(Q_L8, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_l6_avxvnni(float *y, size_t ldy, const void *w, int n, const q_acts *x, int m0,
                            int m, void *tmp)
{
    if (m >= PANEL_MIN) q_panel_avxvnni(Q_L6, y, ldy, w, n, x, m0, m, tmp);
    else gemm_a8(Q_L6, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_n5_avxvnni(float *y, size_t ldy, const void *w, int n, const q_acts *x, int m0,
                            int m, void *tmp)
{
    if (m >= PANEL_MIN) q_panel_avxvnni(Q_N5, y, ldy, w, n, x, m0, m, tmp);
    else gemm_a8(Q_N5, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_n4_avxvnni(float *y, size_t ldy, const void *w, int n, const q_acts *x, int m0,
                            int m, void *tmp)
{
    if (m >= PANEL_MIN) q_panel_avxvnni(Q_N4, y, ldy, w, n, x, m0, m, tmp);
    else gemm_a8(Q_N4, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_n4s_avxvnni(float *y, size_t ldy, const void *w, int n, const q_acts *x, int m0,
                             int m, void *tmp)
{
    if (m >= PANEL_MIN) q_panel_avxvnni(Q_N4S, y, ldy, w, n, x, m0, m, tmp);
    else gemm_a8(Q_N4S, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_p6_avxvnni(float *y, size_t ldy, const void *w, int n, const q_acts *x, int m0,
                            int m, void *tmp)
{
    q_panel_avxvnni(Q_P6, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_p5_avxvnni(float *y, size_t ldy, const void *w, int n, const q_acts *x, int m0,
                            int m, void *tmp)
{
    q_panel_avxvnni(Q_P5, y, ldy, w, n, x, m0, m, tmp);
}

bool q_fill_gemm_avxvnni(q_kern *t)
{
    t->order = NULL; /* panels read q */
    t->gemm_l8 = gemm_l8_avxvnni;
    t->gemm_l6 = gemm_l6_avxvnni;
    t->gemm_n5 = gemm_n5_avxvnni;
    t->gemm_n4 = gemm_n4_avxvnni;
    t->gemm_n4s = gemm_n4s_avxvnni;
    t->gemm_p6 = gemm_p6_avxvnni;
    t->gemm_p5 = gemm_p5_avxvnni;
    return true;
}

#else
bool q_fill_gemm_avxvnni(q_kern *t)
{
    (void)t;
    return false;
}
#endif
