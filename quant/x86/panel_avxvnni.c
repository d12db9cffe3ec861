/* panel_avxvnni.c - matrix times many tokens on AVX-VNNI.
 *
 * As panel_avx2.c: one row group by 12 tiles is unpacked once (u8 codes, sub-scales as floats:
 * exact, 18 KB) and stays in L1 while the activations of all tokens stream past in blocks of 4, for
 * each half of 8 rows; f waits in y between K blocks, which are the outer loop.  Per 64 k, 8 rows
 * and token 16 dot products, 4 (N4s: 2) products with sub-scales and one fma share two ports. */
#include "quant/x86/panel_avxvnni.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__) && defined(__AVXVNNI__)

#include <assert.h>

#include "quant/x86/tile_avxvnni.h"

enum {
    PANEL_T = 12,    /* tiles */
    PANEL_MAX = 256  /* tokens of one pass: their activations (200 KB) and y stay in L2 */
};

typedef struct panel {
    half_tile at[2][PANEL_T];
    int32_t start[PANEL_T * PANEL_MAX * 4]; /* (12, m, 4) */
} panel;
static_assert(sizeof(panel) <= Q_TMP, "the panel must fit the scratch of a gemm");

/* Where one call writes and reads. */
typedef struct block {
    float *y;               /* token 0 of the block, first of the 8 rows */
    size_t ldy;
    const float *row_scale; /* of these rows */
    int rows;               /* how many of the 8 exist */
    bool first, last;       /* K block of the row */
    const int8_t *q;        /* tile 0 of the K block, token 0 */
    const float *d;
    size_t stride;          /* tokens in a tile of the activations */
    const int32_t *start;   /* as q, in the panel */
    size_t ld_start;        /* from tile to tile */
} block;

Q_INLINE void unpack_half(const int type, half_tile *o, const int8_t *s8, const uint8_t *p)
{
    const luts g = luts_of(type, true);
    const tile_src src = { NULL, s8, p, &g };
    const int lines = type == Q_N4S ? 2 : 4;
    Q_UNROLL
    for (int c = 0; c < 16; c++)
        _mm256_store_si256((__m256i *)o->code[c], code_at(type, false, &src, c / 4, c % 4));
    Q_UNROLL
    for (int s = 0; s < lines; s++) {
        const __m256i i = scales_i(s8 + 16 * s);
        const __m256 e = _mm256_cvtepi32_ps(i);
        _mm256_store_ps(o->scale[s], float_scales(type) ? e : _mm256_castsi256_ps(i));
        _mm256_store_ps(o->back[s], _mm256_mul_ps(e, _mm256_set1_ps(-12582912.0f)));
    }
}

/* nt tiles of a group from its tile at w. */
Q_INLINE void unpack_group(const int type, panel *p, const uint8_t *w, int nt)
{
    for (int t = 0; t < nt; t++) {
        const int odd = type == Q_N4S ? t & 1 : 0; /* second 64 k of the tile */
        const int8_t *s8 = (const int8_t *)w + 32 * odd;
        const uint8_t *planes = w + 64 + 512 * odd;
        for (int half = 0; half < 2; half++)
            unpack_half(type, &p->at[half][t], s8 + 8 * half, planes + 32 * half);
        if (type == Q_N4S) w += odd ? 64 + 2 * 512 : 0;
        else w += 64 + plane_bytes(type);
    }
}

/* 8 rows x M tokens over nt tiles. */
Q_INLINE void run_block(const int type, const int M, const half_tile *p, int nt, const block *b)
{
    const int8_t *q = b->q;
    const int32_t *start = b->start;
    const float *d = b->d;
    const __m256i rows = v8_first(b->rows);
    __m256 f[BLOCK_M]; /* in memory: the sums need the registers */
    Q_UNROLL
    for (int m = 0; m < M; m++)
        f[m] = b->first ? _mm256_setzero_ps() : _mm256_maskload_ps(b->y + (size_t)m * b->ldy, rows);
    for (int t = 0; t < nt; t++) {
        const tile_src src = { p + t, NULL, NULL, NULL };
        __m256 v[BLOCK_M];
        tile_f8(type, true, M, v, &src, q, start);
        Q_UNROLL
        for (int m = 0; m < M; m++) f[m] = _mm256_fmadd_ps(_mm256_set1_ps(d[m]), v[m], f[m]);
        q += 64 * b->stride;
        start += b->ld_start;
        d += b->stride;
    }
    const __m256 scale = b->last ? _mm256_load_ps(b->row_scale) : _mm256_set1_ps(1.0f);
    Q_UNROLL
    for (int m = 0; m < M; m++)
        _mm256_maskstore_ps(b->y + (size_t)m * b->ldy, rows, _mm256_mul_ps(scale, f[m]));
}

/* All tokens past 8 unpacked rows; b is at the first.  Fours and threes: any number from 6 on. */
Q_INLINE void tokens(const int type, const half_tile *p, int nt, block b, int m)
{
    for (int left = m, M; left > 0; left -= M) {
        M = left % 4 ? 3 : 4;
        if (M == 4) run_block(type, 4, p, nt, &b);
        else run_block(type, 3, p, nt, &b);
        b.y += (size_t)M * b.ldy;
        b.q += Q_TILE * (size_t)M;
        b.d += M;
        b.start += 4 * (size_t)M;
    }
}

/* At most PANEL_MAX tokens. */
Q_INLINE void pass(const int type, float *y, size_t ldy, const uint8_t *w, int n, const q_acts *x,
                   int m0, int m, panel *p)
{
    const size_t bytes = q_group_bytes(type, Q_TILE * x->kt);
    const size_t tile = type == Q_N4S ? 64 + 2 * 512 : 64 + (size_t)plane_bytes(type);
    const int kt = type == Q_N4S ? (x->kt + 1) / 2 * 2 : x->kt;
    for (int t0 = 0; t0 < kt; t0 += PANEL_T) {
        const int nt = kt - t0 < PANEL_T ? kt - t0 : PANEL_T;
        const size_t at = (size_t)t0 * (size_t)x->M + (size_t)m0;
        block b = { .ldy = ldy, .first = t0 == 0, .last = t0 + nt == kt, .q = x->q + Q_TILE * at,
                    .d = x->d + at, .stride = (size_t)x->M, .start = p->start,
                    .ld_start = 4 * (size_t)m };
        for (int t = 0; t < nt; t++) {
            const int32_t *nsum = x->nsum + 4 * (at + (size_t)t * (size_t)x->M);
            for (int j = 0; j < m; j++)
                make_start(type, p->start + 4 * (t * m + j), nsum + 4 * j);
        }
        for (int g = 0; 16 * g < n; g++) {
            const uint8_t *wg = w + bytes * (size_t)g;
            unpack_group(type, p, wg + 64 + tile * (size_t)(type == Q_N4S ? t0 / 2 : t0), nt);
            for (int half = 0; half < 2 && 16 * g + 8 * half < n; half++) {
                b.y = y + 16 * g + 8 * half;
                b.row_scale = (const float *)wg + 8 * half;
                b.rows = n - 16 * g - 8 * half;
                tokens(type, p->at[half], nt, b, m);
            }
        }
    }
}

Q_INLINE void panel_a8(const int type, float *y, size_t ldy, const void *w, int n, const q_acts *x,
                       int m0, int m, void *tmp)
{
    const int passes = (m + PANEL_MAX - 1) / PANEL_MAX; /* equal ones: none below PANEL_MIN */
    for (int i = 0, j = 0; i < passes; i++) {
        const int end = (int)((long long)m * (i + 1) / passes);
        pass(type, y + (size_t)j * ldy, ldy, w, n, x, m0 + j, end - j, tmp);
        j = end;
    }
}

void q_panel_avxvnni(int type, float *y, size_t ldy, const void *w, int n, const q_acts *x, int m0,
                     int m, void *tmp)
{
    switch (type) {
    case Q_L8: panel_a8(Q_L8, y, ldy, w, n, x, m0, m, tmp); break;
    case Q_L6: panel_a8(Q_L6, y, ldy, w, n, x, m0, m, tmp); break;
    case Q_N5: panel_a8(Q_N5, y, ldy, w, n, x, m0, m, tmp); break;
    case Q_N4: panel_a8(Q_N4, y, ldy, w, n, x, m0, m, tmp); break;
    default: panel_a8(Q_N4S, y, ldy, w, n, x, m0, m, tmp); break;
    }
}

#else
typedef int panel_needs_avxvnni; /* ISO C wants something in every file */
#endif
