/* panel_avxvnni.c - matrix times many tokens on AVX-VNNI.
 *
 * As panel_avx2.c: one row group by 12 tiles is unpacked once (u8 codes, sub-scales as floats:
 * exact, 18 KB) and stays in L1 while the activations of all tokens stream past in blocks of 4, for
 * each half of 8 rows; f waits in y between K blocks, which are the outer loop.  Per 64 k, 8 rows
 * and token 16 dot products, 4 (N4s, P6, P5: 2) products with sub-scales and one fma share two
 * ports.
 *
 * Pairs come here with few tokens too: their unpacking is most of the work, so the way through L1
 * costs little.  Then row groups are the outer loop and the matrix is read strictly forward. */
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
    const uint8_t *ask, *ask_end; /* weights that are unpacked next: see ask_next */
} block;

/* One coordinate of the points numbered at[0], 0..63; at[i] is 16 i less.  t: tables of 16 as in
 * point_luts, but each after the first as the bits in which it differs from the one before.  A
 * lookup gives 0 where bit 7 is set, so where a number lies before its table: no blend, which is
 * three operations here and more on the small cores. */
Q_INLINE __m256i point_8(const int n, const __m256i *t, const __m256i at[4])
{
    __m256i v = _mm256_shuffle_epi8(t[0], at[0]);
    Q_UNROLL
    for (int i = 1; i < n; i++) v = _mm256_xor_si256(v, _mm256_shuffle_epi8(t[i], at[i]));
    return v;
}

/* Biased codes of 64 k of pairs for 8 rows.  p: their planes at these rows. */
Q_INLINE void unpack_pairs(const int type, uint8_t code[16][32], const uint8_t *p)
{
    const int n = type == Q_P6 ? 4 : 2; /* tables */
    const __m256i bias = _mm256_set1_epi8(32);
    point_luts g = point_luts_of(type);
    Q_UNROLL
    for (int i = 0; i < n; i++) {
        g.x[i] = _mm256_add_epi8(g.x[i], bias);
        g.y[i] = _mm256_add_epi8(g.y[i], bias);
    }
    Q_UNROLL
    for (int i = n - 1; i > 0; i--) {
        g.x[i] = _mm256_xor_si256(g.x[i], g.x[i - 1]);
        g.y[i] = _mm256_xor_si256(g.y[i], g.y[i - 1]);
    }
    Q_UNROLL
    for (int j = 0; j < 8; j++) {
        __m256i x = load_line(p, j & 3), y = load_line(p + 256, n == 4 ? j & 1 : 0), at[4];
        const int bit = n == 4 ? j & 6 : j; /* of y, wanted as bit 4 */
        if (j >= 4) x = _mm256_srli_epi16(x, 4);
        if (bit < 4) y = _mm256_slli_epi16(y, 4 - bit);
        else if (bit > 4) y = _mm256_srli_epi16(y, bit - 4);
        x = _mm256_and_si256(x, _mm256_set1_epi8(15));
        y = _mm256_and_si256(y, _mm256_set1_epi8(n == 4 ? 0x30 : 0x10));
        at[0] = _mm256_or_si256(x, y);
        Q_UNROLL
        for (int i = 1; i < n; i++)
            at[i] = _mm256_sub_epi8(at[0], _mm256_set1_epi8((char)(16 * i)));
        const __m256i u = point_8(n, g.x, at), v = point_8(n, g.y, at);
        _mm256_store_si256((__m256i *)code[2 * j], _mm256_unpacklo_epi8(u, v));
        _mm256_store_si256((__m256i *)code[2 * j + 1], _mm256_unpackhi_epi8(u, v));
    }
}

Q_INLINE void unpack_half(const int type, half_tile *o, const int8_t *s8, const uint8_t *p)
{
    if (has_pairs(type)) unpack_pairs(type, o->code, p);
    const luts g = luts_of(type, true);
    const tile_src src = { NULL, s8, p, &g };
    const int lines = halves_of(type) == 2 ? 2 : 4, chunks = has_pairs(type) ? 0 : 16;
    Q_UNROLL
    for (int c = 0; c < chunks; c++)
        _mm256_store_si256((__m256i *)o->code[c], code_at(type, false, &src, c / 4, c % 4));
    Q_UNROLL
    for (int s = 0; s < lines; s++) {
        const __m256i i = scales_i(s8 + 16 * s);
        const __m256 e = _mm256_cvtepi32_ps(i);
        _mm256_store_ps(o->scale[s], float_scales(type) ? e : _mm256_castsi256_ps(i));
        _mm256_store_ps(o->back[s], _mm256_mul_ps(e, _mm256_set1_ps(-12582912.0f)));
    }
}

/* nt tiles of a group from its tile at w.  ask: nobody else does. */
Q_INLINE void unpack_group(const int type, panel *p, const uint8_t *w, int nt, bool ask)
{
    for (int t = 0; t < nt; t++) {
        const int odd = t % halves_of(type); /* second 64 k of the tile */
        const uint8_t *tile = w + tile_at(type, t), *planes = tile + 64 + plane_bytes(type) * odd;
        const int8_t *s8 = (const int8_t *)tile + 32 * odd;
        if (ask) ask_tile(type, planes);
        for (int half = 0, nh = opaque(2); half < nh; half++)
            unpack_half(type, &p->at[half][t], s8 + 8 * half, planes + 32 * half);
    }
}

static void __attribute__((noinline)) unpack(int type, panel *p, const uint8_t *w, int nt,
                                             bool ask)
{
    switch (type) {
    case Q_L8: unpack_group(Q_L8, p, w, nt, ask); break;
    case Q_L6: unpack_group(Q_L6, p, w, nt, ask); break;
    case Q_N5: unpack_group(Q_N5, p, w, nt, ask); break;
    case Q_N4: unpack_group(Q_N4, p, w, nt, ask); break;
    case Q_N4S: unpack_group(Q_N4S, p, w, nt, ask); break;
    case Q_P6: unpack_group(Q_P6, p, w, nt, ask); break;
    default: unpack_group(Q_P5, p, w, nt, ask); break;
    }
}

/* 8 rows x M tokens over nt tiles.  kind: N5, N4 or N4s, the type whose products these are. */
Q_INLINE void run_block(const int kind, const int M, const half_tile *p, int nt, const block *b)
{
    const int8_t *q = b->q;
    const int32_t *start = b->start;
    const float *d = b->d;
    const uint8_t *ask = b->ask;
    const __m256i rows = v8_first(b->rows);
    __m256 f[BLOCK_M]; /* in memory: the sums need the registers */
    Q_UNROLL
    for (int m = 0; m < M; m++)
        f[m] = b->first ? _mm256_setzero_ps() : _mm256_maskload_ps(b->y + (size_t)m * b->ldy, rows);
    for (int t = 0; t < nt; t++) {
        const tile_src src = { p + t, NULL, NULL, NULL };
        __m256 v[BLOCK_M];
        ask = ask_next(ask, b->ask_end, 0);
        tile_f8(kind, true, M, v, &src, q, start);
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

/* All tokens past 8 unpacked rows; b is at the first.  Fours and threes: any number from 6 on.
 * Fewer only of pairs. */
Q_INLINE void tokens(const int kind, const half_tile *p, int nt, block b, int m)
{
    for (int left = m, M; left > 0; left -= M) {
        M = kind == Q_N4S && left < 3 ? left : left % 4 ? 3 : 4;
        switch (M) {
        case 1: if (kind == Q_N4S) run_block(kind, 1, p, nt, &b); break;
        case 2: if (kind == Q_N4S) run_block(kind, 2, p, nt, &b); break;
        case 3: run_block(kind, 3, p, nt, &b); break;
        default: run_block(kind, 4, p, nt, &b); break;
        }
        b.y += (size_t)M * b.ldy;
        b.q += Q_TILE * (size_t)M;
        b.d += M;
        b.start += 4 * (size_t)M;
        b.ask = asked(b.ask, b.ask_end, nt);
    }
}

/* L8, N5 */
static void tokens_n5(const half_tile *p, int nt, block b, int m) { tokens(Q_N5, p, nt, b, m); }
/* N4, L6 */
static void tokens_n4(const half_tile *p, int nt, block b, int m) { tokens(Q_N4, p, nt, b, m); }
/* N4s, P6, P5 */
static void tokens_n4s(const half_tile *p, int nt, block b, int m) { tokens(Q_N4S, p, nt, b, m); }

/* At most PANEL_MAX tokens and ng row groups from g0 on. */
static void pass(int type, float *y, size_t ldy, const uint8_t *w, int n, const q_acts *x, int m0,
                 int m, panel *p, int g0, int ng)
{
    const size_t bytes = q_group_bytes(type, Q_TILE * x->kt);
    const int kt = tiles_of(type, x);
    const bool few = m < PANEL_MIN; /* pairs: products too short to ask for all beside them */
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
        for (int g = g0; g < g0 + ng; g++) {
            const uint8_t *wg = w + bytes * (size_t)g, *wt = wg + 64 + tile_at(type, t0);
            unpack(type, p, wt, nt, few);
            b.ask = wt + bytes;
            b.ask_end = b.ask + (few ? 0 : tile_at(type, nt));
            for (int half = 0; half < 2 && 16 * g + 8 * half < n; half++) {
                b.y = y + 16 * g + 8 * half;
                b.row_scale = (const float *)wg + 8 * half;
                b.rows = n - 16 * g - 8 * half;
                if (!float_scales(type)) tokens_n5(p->at[half], nt, b, m);
                else if (halves_of(type) == 2) tokens_n4s(p->at[half], nt, b, m);
                else tokens_n4(p->at[half], nt, b, m);
                b.ask = b.ask_end; /* the first half did */
            }
        }
    }
}

void q_panel_avxvnni(int type, float *y, size_t ldy, const void *w, int n, const q_acts *x, int m0,
                     int m, void *tmp)
{
    const int passes = (m + PANEL_MAX - 1) / PANEL_MAX; /* equal ones: none below PANEL_MIN */
    const int ng = (n + 15) / 16, step = m < PANEL_MIN ? 1 : ng;
    for (int i = 0, j = 0; i < passes; i++) {
        const int end = (int)((long long)m * (i + 1) / passes);
        for (int g = 0; g < ng; g += step)
            pass(type, y + (size_t)j * ldy, ldy, w, n, x, m0 + j, end - j, tmp, g, step);
        j = end;
    }
}

#else
typedef int panel_needs_avxvnni; /* ISO C wants something in every file */
#endif
