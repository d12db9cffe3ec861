/* gemm_avx512vnni.c - matrices on AVX-512 VNNI: a few tokens; from PANEL_MIN on, panels.
 *
 * A row group is one stream of 64 B lines.  Each line is unpacked once per block of up to 8 tokens
 * and stays in registers while the tokens use it; one token reads memory at its speed and does a
 * third of what the core could.  Chains: f of (row, token) lives in one lane from the first tile to
 * the last, so neither blocks nor threads can change a bit. */
#include "quant/table.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && \
    defined(__AVX512DQ__) && defined(__AVX512VNNI__)

#include "quant/x86/gemm_avx512vnni.h"
#include "quant/x86/panel_avx512vnni.h"
#include "quant/x86/tile_avx512vnni.h"

/* Rows of group g that exist. */
Q_INLINE __mmask16 rows_of(int n, int g)
{
    return n - 16 * g >= 16 ? (__mmask16)0xffff : v16_first(n - 16 * g);
}

/* One row group, M tokens from m0. */
Q_INLINE void group_a8(const int type, const int M, float *y, size_t ldy, const uint8_t *w,
                       const q_acts *x, int m0, __mmask16 rows)
{
    const luts g = luts_of(type);
    const __m512 scale = _mm512_load_ps((const float *)w);
    const size_t stride = (size_t)x->M;
    const int8_t *q = x->q + 64 * (size_t)m0;
    const int32_t *nsum = x->nsum + 4 * (size_t)m0;
    const float *d = x->d + m0;
    const int halves = type == Q_N4S ? 2 : 1; /* tiles of 64 k in one tile of the format */
    __m512 f[TILE_M];
    Q_UNROLL
    for (int m = 0; m < M; m++) f[m] = _mm512_setzero_ps();
    w += 64;
    for (int t = 0; t < x->kt; t += halves) {
        const int8_t *s8 = (const int8_t *)w;
        w += 64;
        Q_UNROLL
        for (int h = 0; h < halves; h++) {
            __m512i z[TILE_M];
            tile_z(type, M, z, s8 + 32 * h, w, q, nsum, &g, M == 1);
            Q_UNROLL
            for (int m = 0; m < M; m++)
                f[m] = _mm512_fmadd_ps(_mm512_set1_ps(d[m]), _mm512_cvtepi32_ps(z[m]), f[m]);
            w += plane_bytes(type);
            q += 64 * stride;
            nsum += 4 * stride;
            d += stride;
        }
    }
    Q_UNROLL
    for (int m = 0; m < M; m++)
        _mm512_mask_storeu_ps(y + (size_t)m * ldy, rows, _mm512_mul_ps(scale, f[m]));
}

Q_INLINE void gemm_a8(const int type, float *y, size_t ldy, const void *w, int n, const q_acts *x,
                      int m0, int m)
{
    const size_t bytes = q_group_bytes(type, Q_TILE * x->kt);
    for (int g = 0; 16 * g < n; g++) {
        const uint8_t *wg = (const uint8_t *)w + bytes * (size_t)g;
        const __mmask16 rows = rows_of(n, g);
        for (int j = 0, M; j < m; j += M) {
            float *yg = y + (size_t)j * ldy + 16 * g;
            const int at = m0 + j;
            M = share_of(m - j);
            switch (M) {
            case 1: group_a8(type, 1, yg, ldy, wg, x, at, rows); break;
            case 2: group_a8(type, 2, yg, ldy, wg, x, at, rows); break;
            case 3: group_a8(type, 3, yg, ldy, wg, x, at, rows); break;
            case 4: group_a8(type, 4, yg, ldy, wg, x, at, rows); break;
            default: group_a8(type, 8, yg, ldy, wg, x, at, rows); break;
            }
        }
    }
}

Q_INLINE void gemm_any(const int type, float *y, size_t ldy, const void *w, int n, const q_acts *x,
                       int m0, int m, void *tmp)
{
    if (m >= PANEL_MIN) q_panel_avx512vnni(type, y, ldy, w, n, x, m0, m, tmp);
    else gemm_a8(type, y, ldy, w, n, x, m0, m);
}

void q_gemm_avx512vnni(int type, float *y, size_t ldy, const void *w, int n, const q_acts *x,
                       int m0, int m, void *tmp)
{
    switch (type) {
    case Q_L8: gemm_any(Q_L8, y, ldy, w, n, x, m0, m, tmp); break;
    case Q_L6: gemm_any(Q_L6, y, ldy, w, n, x, m0, m, tmp); break;
    case Q_N5: gemm_any(Q_N5, y, ldy, w, n, x, m0, m, tmp); break;
    case Q_N4: gemm_any(Q_N4, y, ldy, w, n, x, m0, m, tmp); break;
    default: gemm_any(Q_N4S, y, ldy, w, n, x, m0, m, tmp); break;
    }
}

static void gemm_l8_avx512vnni(float *y, size_t ldy, const void *w, int n, const q_acts *x,
                               int m0, int m, void *tmp)
{
    q_gemm_avx512vnni(Q_L8, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_l6_avx512vnni(float *y, size_t ldy, const void *w, int n, const q_acts *x,
                               int m0, int m, void *tmp)
{
    q_gemm_avx512vnni(Q_L6, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_n5_avx512vnni(float *y, size_t ldy, const void *w, int n, const q_acts *x,
                               int m0, int m, void *tmp)
{
    q_gemm_avx512vnni(Q_N5, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_n4_avx512vnni(float *y, size_t ldy, const void *w, int n, const q_acts *x,
                               int m0, int m, void *tmp)
{
    q_gemm_avx512vnni(Q_N4, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_n4s_avx512vnni(float *y, size_t ldy, const void *w, int n, const q_acts *x,
                                int m0, int m, void *tmp)
{
    q_gemm_avx512vnni(Q_N4S, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_p6_avx512vnni(float *y, size_t ldy, const void *w, int n, const q_acts *x,
                               int m0, int m, void *tmp)
{
    q_panel_avx512vnni(Q_P6, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_p5_avx512vnni(float *y, size_t ldy, const void *w, int n, const q_acts *x,
                               int m0, int m, void *tmp)
{
    q_panel_avx512vnni(Q_P5, y, ldy, w, n, x, m0, m, tmp);
}

/* ---- float weights ---- */

/* Weights of 16 rows at k and k + 1. */
Q_INLINE void pair_f32(const int type, const uint8_t *p, __m512 *w0, __m512 *w1)
{
    if (type == Q_F32) {
        *w0 = _mm512_load_ps((const float *)p);
        *w1 = _mm512_load_ps((const float *)(p + 64));
        return;
    }
    const __m512i x = _mm512_load_si512(p);
    if (type == Q_F16) {
        *w0 = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(x));
        *w1 = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(x, 16)));
    } else {
        *w0 = _mm512_castsi512_ps(_mm512_slli_epi32(x, 16));
        *w1 = _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(-65536)));
    }
}

/* R row groups at a distance of `bytes`, M tokens.  A chain is one fma of 4 cycles per k, so a
 * single token needs several groups side by side to keep up with memory. */
Q_INLINE void groups_f(const int type, const int R, const int M, float *y, size_t ldy,
                       const uint8_t *w, size_t bytes, int k, const float *x, size_t ldx,
                       __mmask16 last)
{
    const size_t step = type == Q_F32 ? 128 : 64;
    __m512 f[4][8];
    Q_UNROLL
    for (int r = 0; r < R; r++) {
        Q_UNROLL
        for (int m = 0; m < M; m++) f[r][m] = _mm512_setzero_ps();
    }
    for (int i = 0; i < k; i += 2) {
        __m512 w0[4], w1[4];
        Q_UNROLL
        for (int r = 0; r < R; r++) {
            const uint8_t *p = w + bytes * (size_t)r;
            if (M == 1) ask_ahead(p);
            pair_f32(type, p, &w0[r], &w1[r]);
        }
        Q_UNROLL
        for (int m = 0; m < M; m++) {
            const float *xm = x + (size_t)m * ldx + i;
            const __m512 x0 = _mm512_set1_ps(xm[0]), x1 = _mm512_set1_ps(xm[1]);
            Q_UNROLL
            for (int r = 0; r < R; r++) {
                f[r][m] = _mm512_fmadd_ps(w0[r], x0, f[r][m]);
                f[r][m] = _mm512_fmadd_ps(w1[r], x1, f[r][m]);
            }
        }
        w += step;
    }
    const __m512 zero = _mm512_setzero_ps();
    Q_UNROLL
    for (int r = 0; r < R; r++) {
        Q_UNROLL
        for (int m = 0; m < M; m++)
            _mm512_mask_storeu_ps(y + (size_t)m * ldy + 16 * r,
                                  r == R - 1 ? last : (__mmask16)0xffff,
                                  _mm512_add_ps(f[r][m], zero));
    }
}

Q_INLINE void gemm_f(const int type, float *y, size_t ldy, const void *w, int n, int k,
                     const float *x, size_t ldx, int m)
{
    const size_t bytes = q_group_bytes(type, k);
    const int ng = (n + 15) / 16;
    for (int g = 0; g < ng;) {
        const int rest = ng - g, R = m == 1 && rest >= 4 ? 4 : rest >= 2 ? 2 : 1;
        const uint8_t *wg = (const uint8_t *)w + bytes * (size_t)g;
        const __mmask16 last = rows_of(n, g + R - 1);
        for (int j = 0, M; j < m; j += M) {
            float *yj = y + (size_t)j * ldy + 16 * g;
            const float *xj = x + (size_t)j * ldx;
            M = R == 2 && m - j >= 8 ? 8 : m - j >= 4 ? 4 : 1;
            if (R == 4) groups_f(type, 4, 1, yj, ldy, wg, bytes, k, xj, ldx, last);
            else if (R == 2 && M == 8) groups_f(type, 2, 8, yj, ldy, wg, bytes, k, xj, ldx, last);
            else if (R == 2 && M == 4) groups_f(type, 2, 4, yj, ldy, wg, bytes, k, xj, ldx, last);
            else if (R == 2) groups_f(type, 2, 1, yj, ldy, wg, bytes, k, xj, ldx, last);
            else if (M == 4) groups_f(type, 1, 4, yj, ldy, wg, bytes, k, xj, ldx, last);
            else groups_f(type, 1, 1, yj, ldy, wg, bytes, k, xj, ldx, last);
        }
        g += R;
    }
}

static void gemm_f32_avx512vnni(float *y, size_t ldy, const void *w, int n, int k, const float *x,
                                size_t ldx, int m, void *tmp)
{
    (void)tmp;
    gemm_f(Q_F32, y, ldy, w, n, k, x, ldx, m);
}

static void gemm_f16_avx512vnni(float *y, size_t ldy, const void *w, int n, int k, const float *x,
                                size_t ldx, int m, void *tmp)
{
    (void)tmp;
    gemm_f(Q_F16, y, ldy, w, n, k, x, ldx, m);
}

static void gemm_bf16_avx512vnni(float *y, size_t ldy, const void *w, int n, int k, const float *x,
                                 size_t ldx, int m, void *tmp)
{
    (void)tmp;
    gemm_f(Q_BF16, y, ldy, w, n, k, x, ldx, m);
}

bool q_fill_gemm_avx512vnni(q_kern *t)
{
    t->order = NULL; /* panels read q */
    t->gemm_l8 = gemm_l8_avx512vnni;
    t->gemm_l6 = gemm_l6_avx512vnni;
    t->gemm_n5 = gemm_n5_avx512vnni;
    t->gemm_n4 = gemm_n4_avx512vnni;
    t->gemm_n4s = gemm_n4s_avx512vnni;
    t->gemm_p6 = gemm_p6_avx512vnni;
    t->gemm_p5 = gemm_p5_avx512vnni;
    t->gemm_f32 = gemm_f32_avx512vnni;
    t->gemm_f16 = gemm_f16_avx512vnni;
    t->gemm_bf16 = gemm_bf16_avx512vnni;
    return true;
}

#else
bool q_fill_gemm_avx512vnni(q_kern *t)
{
    (void)t;
    return false;
}
#endif
