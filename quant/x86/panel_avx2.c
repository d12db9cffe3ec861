/* panel_avx2.c - matrix times many tokens on AVX2.
 *
 * One row group by 12 tiles is unpacked once (codes, int16 sub-scale pairs: exact, 16 KB) and stays
 * in L1 while the activations of all tokens stream past in blocks of 8, for each half of 8 rows; f
 * waits in y between K blocks.  With many tokens K blocks are the outer loop, so the activations of
 * one (768 B per token) stay in L2 for all row groups of the call.  Where those of all k fit there,
 * row groups are the outer loop and the matrix is read strictly forward, asked for ahead.
 *
 * Activations are copied once per K block into the order in which they are read, and made unsigned:
 * a + 128 lies in 1..255.  Then the codes need no bias: two maddubs of codes in -32..31 add up in
 * 16 bits, |2 * 2 * 32 * 255| = 32640.  What the 128 adds to z depends on the weights alone: it is
 * summed once when they are unpacked, and z starts from its negative.  Per 8 k, 8 rows and token:
 * two maddubs, one madd by the sub-scales, two additions; the multiplications are what limits.  N5
 * has 7 bits, so each maddubs has its own madd.
 *
 * Pairs come here with few tokens too: their unpacking is most of the work, so the way through L1
 * costs little. */
#include "quant/x86/panel_avx2.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include <assert.h>
#include <string.h>

#include "quant/x86/tile_avx2.h"

enum {
    PANEL_T = 12,    /* tiles */
    PANEL_M = 8,     /* most tokens of a block */
    PANEL_MAX = 256  /* tokens of one pass: their activations (200 KB) and y stay in L2 */
};

typedef struct half_tile { /* 8 rows x 64 k */
    int8_t code[16][32];   /* line = chunk */
    int16_t scale[4][16];  /* sub-scale of each 16 k, twice per row */
    int32_t start[8];      /* -128 * sum of sub-scale * code */
} half_tile;

typedef struct panel {
    half_tile at[2][PANEL_T];
    uint8_t act[PANEL_T * PANEL_MAX * Q_TILE]; /* + 128, block after block (12, M, 64) */
    float edge[PANEL_MAX][8]; /* y of the last 8 rows where not all exist */
} panel;
static_assert(sizeof(panel) <= Q_TMP, "the panel must fit the scratch of a gemm");

/* Where one call writes and reads. */
typedef struct block {
    float *y;               /* token 0 of the block, first of the 8 rows */
    size_t ldy;
    const float *row_scale; /* of these rows */
    bool first, last;       /* K block of the row */
    const uint8_t *act;     /* (nt, M, 64) */
    const float *d;         /* of tile 0 */
    size_t stride;          /* tokens in a tile of the activations */
} block;

/* Tokens of the next block when so many are left: eights, the last 9..15 in two. */
Q_INLINE int block_of(int left)
{
    return left >= 16 || left == 8 ? 8 : left > 8 ? (left + 1) / 2 : left;
}

Q_INLINE void unpack_half(const int type, half_tile *o, const int8_t *s8, const uint8_t *p)
{
    const bool wide = halves_of(type) == 2;
    if (has_pairs(type)) unpack_points(type, o->code, p);
    const luts g = luts_of(type, false);
    const int chunks = has_pairs(type) ? 0 : 16;
    Q_UNROLL
    for (int c = 0; c < chunks; c++) {
        const uint8_t *p2 = p + 512 + (type == Q_N5 ? 64 : 128) * (c / 8);
        __m256i v = chunk_8(type, p + 256 * (c / 8), p2, c % 8, &g);
        if (type == Q_L6) v = _mm256_sub_epi8(v, _mm256_set1_epi8(32));
        _mm256_store_si256((__m256i *)o->code[c], v);
    }
    const __m256i one = _mm256_set1_epi8(1);
    __m256i sum = _mm256_setzero_si256();
    Q_UNROLL
    for (int s = 0; s < 4; s++) {
        const __m256i e = scale_pairs(s8 + 16 * (wide ? s / 2 : s));
        _mm256_store_si256((__m256i *)o->scale[s], e);
        __m256i v = _mm256_setzero_si256();
        Q_UNROLL
        for (int c = 4 * s; c < 4 * s + 4; c++) {
            const __m256i w = _mm256_load_si256((const __m256i *)o->code[c]);
            v = _mm256_add_epi16(v, _mm256_maddubs_epi16(one, w));
        }
        sum = _mm256_sub_epi32(sum, _mm256_madd_epi16(v, e));
    }
    _mm256_store_si256((__m256i *)o->start, _mm256_slli_epi32(sum, 7));
}

/* nt tiles of a group from its tile at w.  ask: they come from memory. */
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
    case Q_L6: unpack_group(Q_L6, p, w, nt, ask); break;
    case Q_N5: unpack_group(Q_N5, p, w, nt, ask); break;
    case Q_N4: unpack_group(Q_N4, p, w, nt, ask); break;
    case Q_N4S: unpack_group(Q_N4S, p, w, nt, ask); break;
    case Q_P6: unpack_group(Q_P6, p, w, nt, ask); break;
    default: unpack_group(Q_P5, p, w, nt, ask); break;
    }
}

/* The tiles at q of m tokens, `stride` of them in a tile. */
static void pack_acts(uint8_t *to, const int8_t *q, size_t stride, int nt, int m)
{
    const __m256i high = _mm256_set1_epi8(-128);
    for (int M; m > 0; m -= M, q += Q_TILE * (size_t)M) {
        M = block_of(m);
        for (int t = 0; t < nt; t++) {
            const __m256i *from = (const __m256i *)(q + Q_TILE * stride * (size_t)t);
            for (int i = 0; i < 2 * M; i++, to += 32) {
                const __m256i a = _mm256_xor_si256(high, _mm256_load_si256(from + i));
                _mm256_store_si256((__m256i *)to, a);
            }
        }
    }
}

/* 8 rows x M tokens over nt tiles.  kind: N5, or N4 for all whose codes have 6 bits. */
Q_INLINE void run_block(const int kind, const int M, const half_tile *p, int nt, const block *b)
{
    const uint8_t *a = b->act;
    const float *d = b->d;
    __m256 f[PANEL_M];
    Q_UNROLL
    for (int m = 0; m < M; m++)
        f[m] = b->first ? _mm256_setzero_ps() : _mm256_loadu_ps(b->y + (size_t)m * b->ldy);
    for (int t = 0; t < nt; t++, p++) {
        __m256i z[PANEL_M];
        Q_UNROLL
        for (int m = 0; m < M; m++) z[m] = _mm256_load_si256((const __m256i *)p->start);
        Q_UNROLL
        for (int c = 0; c < 16; c += 2) {
            const __m256i w0 = _mm256_load_si256((const __m256i *)p->code[c]);
            const __m256i w1 = _mm256_load_si256((const __m256i *)p->code[c + 1]);
            const __m256i e = _mm256_load_si256((const __m256i *)p->scale[c / 4]);
            Q_UNROLL
            for (int m = 0; m < M; m++) {
                const uint8_t *am = a + 64 * m + 4 * c;
                const __m256i v0 = _mm256_maddubs_epi16(broadcast4(am), w0);
                const __m256i v1 = _mm256_maddubs_epi16(broadcast4(am + 4), w1);
                if (kind == Q_N5) {
                    z[m] = _mm256_add_epi32(z[m], _mm256_madd_epi16(v0, e));
                    z[m] = _mm256_add_epi32(z[m], _mm256_madd_epi16(v1, e));
                } else {
                    z[m] = _mm256_add_epi32(z[m], _mm256_madd_epi16(_mm256_add_epi16(v0, v1), e));
                }
                __asm__("" : "+x"(z[m])); /* keep the order: gcc would sum in a tree and spill */
            }
        }
        Q_UNROLL
        for (int m = 0; m < M; m++)
            f[m] = _mm256_fmadd_ps(_mm256_set1_ps(d[m]), _mm256_cvtepi32_ps(z[m]), f[m]);
        a += 64 * M;
        d += b->stride;
    }
    const __m256 scale = b->last ? _mm256_load_ps(b->row_scale) : _mm256_set1_ps(1.0f);
    Q_UNROLL
    for (int m = 0; m < M; m++)
        _mm256_storeu_ps(b->y + (size_t)m * b->ldy, _mm256_mul_ps(scale, f[m]));
}

/* All tokens past 8 unpacked rows; b is at the first. */
Q_INLINE void tokens(const int kind, const half_tile *p, int nt, block b, int m)
{
    for (int left = m, M; left > 0; left -= M) {
        M = block_of(left);
        switch (kind == Q_N5 && M < 4 ? 8 : M) {
        case 1: run_block(kind, 1, p, nt, &b); break;
        case 2: run_block(kind, 2, p, nt, &b); break;
        case 3: run_block(kind, 3, p, nt, &b); break;
        case 4: run_block(kind, 4, p, nt, &b); break;
        case 5: run_block(kind, 5, p, nt, &b); break;
        case 6: run_block(kind, 6, p, nt, &b); break;
        case 7: run_block(kind, 7, p, nt, &b); break;
        default: run_block(kind, 8, p, nt, &b); break;
        }
        b.y += (size_t)M * b.ldy;
        b.act += (size_t)(Q_TILE * nt * M);
        b.d += M;
    }
}

static void tokens_n4(const half_tile *p, int nt, block b, int m) { tokens(Q_N4, p, nt, b, m); }
static void tokens_n5(const half_tile *p, int nt, block b, int m) { tokens(Q_N5, p, nt, b, m); }

/* At most PANEL_MAX tokens. */
static void pass(int type, float *y, size_t ldy, const uint8_t *w, int n, const q_acts *x, int m0,
                 int m, panel *p)
{
    const size_t bytes = q_group_bytes(type, Q_TILE * x->kt), stride = (size_t)x->M;
    const int kt = tiles_of(type, x), ng = (n + 15) / 16;
    const bool whole = kt * m <= PANEL_T * PANEL_MAX; /* the activations of all k fit */
    const int step = whole ? 1 : ng;
    for (int g0 = 0; g0 < ng; g0 += step) {
        for (int t0 = 0; t0 < kt; t0 += PANEL_T) {
            const int nt = kt - t0 < PANEL_T ? kt - t0 : PANEL_T;
            const size_t at = (size_t)t0 * stride + (size_t)m0;
            uint8_t *act = p->act + (whole ? Q_TILE * t0 * m : 0);
            block b = { .first = t0 == 0, .last = t0 + nt == kt, .act = act, .d = x->d + at,
                        .stride = stride };
            if (g0 == 0) pack_acts(act, x->q + Q_TILE * at, stride, nt, m);
            for (int g = g0; g < g0 + step; g++) {
                const uint8_t *wg = w + bytes * (size_t)g;
                unpack(type, p, wg + 64 + tile_at(type, t0), nt, whole);
                for (int half = 0; half < 2 && 16 * g + 8 * half < n; half++) {
                    float *to = y + 16 * g + 8 * half;
                    const int rows = n - 16 * g - 8 * half;
                    b.y = rows < 8 ? p->edge[0] : to;
                    b.ldy = rows < 8 ? 8 : ldy;
                    b.row_scale = (const float *)wg + 8 * half;
                    if (type == Q_N5) tokens_n5(p->at[half], nt, b, m);
                    else tokens_n4(p->at[half], nt, b, m);
                    for (int j = 0; rows < 8 && b.last && j < m; j++)
                        memcpy(to + (size_t)j * ldy, p->edge[j], (size_t)rows * sizeof *to);
                }
            }
        }
    }
}

void q_panel_avx2(int type, float *y, size_t ldy, const void *w, int n, const q_acts *x, int m0,
                  int m, void *tmp)
{
    const int passes = (m + PANEL_MAX - 1) / PANEL_MAX; /* equal ones: none below PANEL_MIN */
    for (int i = 0, j = 0; i < passes; i++) {
        const int end = (int)((long long)m * (i + 1) / passes);
        pass(type, y + (size_t)j * ldy, ldy, w, n, x, m0 + j, end - j, tmp);
        j = end;
    }
}

#else
typedef int panel_needs_avx2; /* ISO C wants something in every file */
#endif
