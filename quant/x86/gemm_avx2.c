/* gemm_avx2.c - matrices on AVX2 + FMA + F16C: a few tokens (6 to 8 with N4 and N4s in few_avx2.c);
 * from PANEL_MIN on, panels.
 *
 * A row group is one stream of 64 B lines, taken as two halves of 8 rows within each tile, so every
 * line is read from memory once.  Each half line is unpacked once per block of up to 8 tokens.
 * Chains: f of (row, token) lives in one lane from the first tile to the last, so neither blocks
 * nor threads can change a bit. */
#include "quant/table.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include "quant/x86/few_avx2.h"
#include "quant/x86/panel_avx2.h"
#include "quant/x86/tile_avx2.h"

Q_INLINE void store_rows(float *y, __m256 lo, __m256 hi, int rows)
{
    v16_store_n(y, (v16f){ lo, hi }, rows);
}

Q_INLINE int rows_of(int n, int g) { return n - 16 * g < 16 ? n - 16 * g : 16; }

/* z of 16 rows of one L8 tile for one token, in one walk along its lines: of all types it has the
 * most bytes per product, and reading halves of lines twice cost a tenth of memory's speed. */
Q_INLINE void tile_l8(__m256i z[2], const int8_t *s8, const uint8_t *p, const int8_t *q)
{
    z[0] = z[1] = _mm256_setzero_si256();
    for (int s = 0; s < 4; s++) {
        const __m256i e0 = scale_pairs(s8 + 16 * s), e1 = scale_pairs(s8 + 16 * s + 8);
        Q_UNROLL
        for (int c = 0; c < 4; c++, p += 64, q += 4) {
            ask_ahead(p);
            const __m256i a = broadcast4(q), w0 = load_line(p, 0), w1 = load_line(p + 32, 0);
            const __m256i v0 = _mm256_maddubs_epi16(_mm256_abs_epi8(w0), _mm256_sign_epi8(a, w0));
            const __m256i v1 = _mm256_maddubs_epi16(_mm256_abs_epi8(w1), _mm256_sign_epi8(a, w1));
            z[0] = _mm256_add_epi32(z[0], _mm256_madd_epi16(v0, e0));
            z[1] = _mm256_add_epi32(z[1], _mm256_madd_epi16(v1, e1));
        }
    }
}

/* One row group, M tokens from m0.  off: (kt, stride_off, 2), see pack_off. */
Q_INLINE void group_a8(const int type, const int M, float *y, size_t ldy, const uint8_t *w,
                       const q_acts *x, int m0, const int32_t *off, size_t ld_off, int rows)
{
    const luts g = luts_of(type, true);
    const size_t stride = (size_t)x->M;
    const int8_t *q = x->q + 64 * (size_t)m0;
    const float *d = x->d + m0;
    const int halves = halves_of(type);
    const float *scale = (const float *)w;
    __m256 f[2][TILE_M]; /* rows 0..7, 8..15: in memory, one load and store per tile */
    for (int half = 0; half < 2; half++) {
        Q_UNROLL
        for (int m = 0; m < M; m++) f[half][m] = _mm256_setzero_ps();
    }
    w += 64;
    for (int t = 0; t < x->kt; t += halves) {
        const int8_t *s8 = (const int8_t *)w;
        w += 64;
        for (int h = 0; h < halves; h++) {
            ask_ahead(w - 64);
            if (type == Q_L8 && M == 1) {
                __m256i z[2];
                tile_l8(z, s8, w, q);
                const __m256 dm = _mm256_set1_ps(*d);
                f[0][0] = _mm256_fmadd_ps(dm, _mm256_cvtepi32_ps(z[0]), f[0][0]);
                f[1][0] = _mm256_fmadd_ps(dm, _mm256_cvtepi32_ps(z[1]), f[1][0]);
            }
            for (int half = 0, nh = type == Q_L8 && M == 1 ? 0 : opaque(2); half < nh; half++) {
                Q_UNROLL /* not all at once: few fill buffers */
                for (int i = 0; i < plane_bytes(type) / 2; i += 64)
                    ask_ahead(w + plane_bytes(type) / 2 * half + i);
                __m256i z[TILE_M];
                tile_z8(type, M, z, s8 + 32 * h + 8 * half, w + 32 * half, q, off, &g);
                Q_UNROLL
                for (int m = 0; m < M; m++)
                    f[half][m] = _mm256_fmadd_ps(_mm256_set1_ps(d[m]), _mm256_cvtepi32_ps(z[m]),
                                                 f[half][m]);
            }
            w += plane_bytes(type);
            q += 64 * stride;
            off += ld_off;
            d += stride;
        }
    }
    const __m256 r0 = _mm256_load_ps(scale), r1 = _mm256_load_ps(scale + 8);
    Q_UNROLL
    for (int m = 0; m < M; m++)
        store_rows(y + (size_t)m * ldy, _mm256_mul_ps(r0, f[0][m]), _mm256_mul_ps(r1, f[1][m]),
                   rows);
}

/* All groups, one block of M tokens from m0. */
Q_INLINE void groups_a8(const int type, const int M, float *y, size_t ldy, const uint8_t *w, int n,
                        const q_acts *x, int m0, const int32_t *off, size_t ld_off)
{
    const size_t bytes = q_group_bytes(type, Q_TILE * x->kt);
    for (int g = 0; 16 * g < n; g++)
        group_a8(type, M, y + 16 * g, ldy, w + bytes * (size_t)g, x, m0, off, ld_off,
                 rows_of(n, g));
}

Q_INLINE void gemm_a8(const int type, float *y, size_t ldy, const uint8_t *w, int n,
                      const q_acts *x, int m0, int m, int32_t *off)
{
    for (int j = 0, M; j < m; j += M) {
        const int at = m0 + j;
        M = share_of(m - j);
        /* L8 needs none; Q_TMP holds 8 tokens of 524,288 k. */
        for (int t = 0; type != Q_L8 && t < tiles_of(type, x); t++) {
            const int32_t *nsum = x->nsum + 4 * ((size_t)t * (size_t)x->M + (size_t)at);
            for (int i = 0; i < M; i++) pack_off(off + 2 * (t * M + i), nsum + 4 * i);
        }
        float *yj = y + (size_t)j * ldy;
        const size_t ld_off = 2 * (size_t)M;
        switch (M) {
        case 1: groups_a8(type, 1, yj, ldy, w, n, x, at, off, ld_off); break;
        case 2: groups_a8(type, 2, yj, ldy, w, n, x, at, off, ld_off); break;
        case 3: groups_a8(type, 3, yj, ldy, w, n, x, at, off, ld_off); break;
        case 4: groups_a8(type, 4, yj, ldy, w, n, x, at, off, ld_off); break;
        default: groups_a8(type, 8, yj, ldy, w, n, x, at, off, ld_off); break;
        }
    }
}

static void gemm_l8_avx2(float *y, size_t ldy, const void *w, int n, const q_acts *x, int m0, int m,
                         void *tmp)
{
    gemm_a8(Q_L8, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_l6_avx2(float *y, size_t ldy, const void *w, int n, const q_acts *x, int m0, int m,
                         void *tmp)
{
    if (m >= PANEL_MIN) q_panel_avx2(Q_L6, y, ldy, w, n, x, m0, m, tmp);
    else gemm_a8(Q_L6, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_n5_avx2(float *y, size_t ldy, const void *w, int n, const q_acts *x, int m0, int m,
                         void *tmp)
{
    if (m >= PANEL_MIN) q_panel_avx2(Q_N5, y, ldy, w, n, x, m0, m, tmp);
    else gemm_a8(Q_N5, y, ldy, w, n, x, m0, m, tmp);
}

/* N4 and N4s below PANEL_MIN. */
Q_INLINE void gemm_n(const int type, float *y, size_t ldy, const uint8_t *w, int n, const q_acts *x,
                     int m0, int m, void *tmp)
{
    if (m >= FEW_MIN && n >= FEW_ROWS) {
        const int few = m < FEW_M ? m : FEW_M;
        q_few_avx2(type, y, ldy, w, n, x, m0, few, tmp);
        if (m == few) return;
        y += (size_t)few * ldy, m0 += few, m -= few;
    }
    gemm_a8(type, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_n4_avx2(float *y, size_t ldy, const void *w, int n, const q_acts *x, int m0, int m,
                         void *tmp)
{
    if (m >= PANEL_MIN) q_panel_avx2(Q_N4, y, ldy, w, n, x, m0, m, tmp);
    else gemm_n(Q_N4, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_n4s_avx2(float *y, size_t ldy, const void *w, int n, const q_acts *x, int m0,
                          int m, void *tmp)
{
    if (m >= PANEL_MIN) q_panel_avx2(Q_N4S, y, ldy, w, n, x, m0, m, tmp);
    else gemm_n(Q_N4S, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_p6_avx2(float *y, size_t ldy, const void *w, int n, const q_acts *x, int m0, int m,
                         void *tmp)
{
    q_panel_avx2(Q_P6, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_p5_avx2(float *y, size_t ldy, const void *w, int n, const q_acts *x, int m0, int m,
                         void *tmp)
{
    q_panel_avx2(Q_P5, y, ldy, w, n, x, m0, m, tmp);
}

static void order_avx2(const q_acts *x, int m0, int m, int t0, int nt)
{
    q_panel_order_avx2(x, m0, m, t0, nt);
}

/* ---- float weights ---- */

/* Eight halves of 16 bits, one per dword in order, as floats. */
Q_INLINE __m256 half_floats(__m256i x)
{
    const __m128i lo = _mm256_castsi256_si128(x), hi = _mm256_extracti128_si256(x, 1);
    return _mm256_cvtph_ps(_mm_packus_epi32(lo, hi));
}

/* Weights of 8 rows at k and k + 1; p at the first of these rows. */
Q_INLINE void pair_f(const int type, const uint8_t *p, __m256 *w0, __m256 *w1)
{
    if (type == Q_F32) {
        *w0 = _mm256_load_ps((const float *)p);
        *w1 = _mm256_load_ps((const float *)(p + 64));
        return;
    }
    const __m256i x = _mm256_load_si256((const __m256i *)p);
    if (type == Q_F16) {
        *w0 = half_floats(_mm256_and_si256(x, _mm256_set1_epi32(0xffff)));
        *w1 = half_floats(_mm256_srli_epi32(x, 16));
    } else {
        *w0 = _mm256_castsi256_ps(_mm256_slli_epi32(x, 16));
        *w1 = _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32(-65536)));
    }
}

/* One token's two k times 16 rows: f0, f1 += w[half][k] * x[k].  Written out: gcc broadcasts the x
 * of all tokens first and spills sums, whose way through memory then is the loop's time. */
Q_INLINE void token_f(__m256 *f0, __m256 *f1, __m256 w[2][2], const float *x)
{
    __m256 b;
    __asm__("vbroadcastss %7, %2\n\t"
            "vfmadd231ps %3, %2, %0\n\t"
            "vfmadd231ps %5, %2, %1\n\t"
            "vbroadcastss %8, %2\n\t"
            "vfmadd231ps %4, %2, %0\n\t"
            "vfmadd231ps %6, %2, %1"
            : "+x"(*f0), "+x"(*f1), "=&x"(b)
            : "x"(w[0][0]), "x"(w[0][1]), "x"(w[1][0]), "x"(w[1][1]), "m"(x[0]), "m"(x[1]));
}

/* R row groups at a distance of `bytes`, M tokens.  A chain is one fma of 4 cycles per k, so a
 * single token needs several groups side by side to keep up with memory. */
Q_INLINE void groups_f(const int type, const int R, const int M, float *y, size_t ldy,
                       const uint8_t *w, size_t bytes, int k, const float *x, size_t ldx, int last)
{
    const size_t step = type == Q_F32 ? 128 : 64;
    __m256 f[8][4]; /* half groups x tokens */
    Q_UNROLL
    for (int r = 0; r < 2 * R; r++) {
        Q_UNROLL
        for (int m = 0; m < M; m++) f[r][m] = _mm256_setzero_ps();
    }
    for (int i = 0; i < k; i += 2) {
        Q_UNROLL
        for (int r = 0; r < R; r++) {
            const uint8_t *p = w + bytes * (size_t)r;
            if (M == 1) ask_ahead(p);
            __m256 v[2][2];
            pair_f(type, p, &v[0][0], &v[0][1]);
            pair_f(type, p + 32, &v[1][0], &v[1][1]);
            Q_UNROLL
            for (int m = 0; m < M; m++)
                token_f(&f[2 * r][m], &f[2 * r + 1][m], v, x + (size_t)m * ldx + i);
        }
        w += step;
    }
    const __m256 zero = _mm256_setzero_ps();
    Q_UNROLL
    for (int r = 0; r < R; r++) {
        Q_UNROLL
        for (int m = 0; m < M; m++)
            store_rows(y + (size_t)m * ldy + 16 * r, _mm256_add_ps(f[2 * r][m], zero),
                       _mm256_add_ps(f[2 * r + 1][m], zero), r == R - 1 ? last : 16);
    }
}

Q_INLINE void gemm_f(const int type, float *y, size_t ldy, const void *w, int n, int k,
                     const float *x, size_t ldx, int m)
{
    const size_t bytes = q_group_bytes(type, k);
    const int ng = (n + 15) / 16;
    for (int g = 0; g < ng;) {
        /* One token: four groups, eight chains.  More: one group, two halves x 4 tokens. */
        const int take = m == 1 && ng - g >= 4 ? 4 : 1;
        const uint8_t *wg = (const uint8_t *)w + bytes * (size_t)g;
        const int last = rows_of(n, g + take - 1);
        for (int j = 0; j < m;) {
            float *yj = y + (size_t)j * ldy + 16 * g;
            const float *xj = x + (size_t)j * ldx;
            if (take == 4) groups_f(type, 4, 1, yj, ldy, wg, bytes, k, xj, ldx, last), j += 1;
            else if (m - j >= 4) groups_f(type, 1, 4, yj, ldy, wg, bytes, k, xj, ldx, last), j += 4;
            else groups_f(type, 1, 1, yj, ldy, wg, bytes, k, xj, ldx, last), j += 1;
        }
        g += take;
    }
}

static void gemm_f32_avx2(float *y, size_t ldy, const void *w, int n, int k, const float *x,
                          size_t ldx, int m, void *tmp)
{
    (void)tmp;
    gemm_f(Q_F32, y, ldy, w, n, k, x, ldx, m);
}

static void gemm_f16_avx2(float *y, size_t ldy, const void *w, int n, int k, const float *x,
                          size_t ldx, int m, void *tmp)
{
    (void)tmp;
    gemm_f(Q_F16, y, ldy, w, n, k, x, ldx, m);
}

static void gemm_bf16_avx2(float *y, size_t ldy, const void *w, int n, int k, const float *x,
                           size_t ldx, int m, void *tmp)
{
    (void)tmp;
    gemm_f(Q_BF16, y, ldy, w, n, k, x, ldx, m);
}

bool q_fill_gemm_avx2(q_kern *t)
{
    t->order = order_avx2;
    t->gemm_l8 = gemm_l8_avx2;
    t->gemm_l6 = gemm_l6_avx2;
    t->gemm_n5 = gemm_n5_avx2;
    t->gemm_n4 = gemm_n4_avx2;
    t->gemm_n4s = gemm_n4s_avx2;
    t->gemm_p6 = gemm_p6_avx2;
    t->gemm_p5 = gemm_p5_avx2;
    t->gemm_f32 = gemm_f32_avx2;
    t->gemm_f16 = gemm_f16_avx2;
    t->gemm_bf16 = gemm_bf16_avx2;
    return true;
}

#else
bool q_fill_gemm_avx2(q_kern *t)
{
    (void)t;
    return false;
}
#endif
