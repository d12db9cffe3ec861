/* panel_avx2.c - matrix times many tokens on AVX2.
 *
 * One row group by 12 tiles is unpacked once (codes, int16 sub-scale pairs: exact, 18 KB) and stays
 * in L1 while the activations of all tokens stream past in blocks of 4; f waits in y between K
 * blocks.  With many tokens K blocks are the outer loop, so the activations of one (768 B a token)
 * stay in L2 for all row groups of the call.  Where those of all k fit there, row groups are the
 * outer loop and the matrix is read strictly forward.
 *
 * Activations are read from a copy in the order in which this happens (q_acts.u, or one that a call
 * makes for itself, once per K block), and in it they are unsigned: a + 128 lies in 1..255, as
 * maddubs wants it, and codes are signed.  Products of 16 k are summed
 * in 16 bits modulo 2^16, from a start of -128 * sum of codes.  What they add up to, the sum of
 * code * a, is at most 8 * 32 * 127 = 32512 per lane, so it is exact whatever wrapped on the way
 * (one maddubs cannot saturate: 2 * 32 * 255).  Per 16 k, 16 rows and token: four loads of
 * activations, eight maddubs and as many additions, two madd by the sub-scales, two additions.
 * N5 has 7 bits, so its sums are of 8 k.
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
    PANEL_M = 4,     /* most tokens of a block */
    PANEL_MAX = 256  /* tokens of one pass: their activations (200 KB) and y stay in L2 */
};

typedef struct group_tile { /* 16 rows x 64 k, by halves of 8 rows */
    int8_t code[16][2][32];    /* line = chunk */
    int16_t scale[4][2][16];   /* sub-scale of each 16 k, twice per row */
    int16_t start[8][2][16];   /* -128 * sum of codes of 16 k (N5: of 8), mod 2^16 */
} group_tile;

typedef struct panel {
    group_tile at[PANEL_T];
    uint8_t act[PANEL_T * PANEL_MAX * Q_TILE]; /* + 128, of what is not ordered yet */
    float edge[PANEL_MAX][16]; /* y of the last rows where not all exist */
} panel;
static_assert(sizeof(panel) <= Q_TMP, "the panel must fit the scratch of a gemm");

/* Where one call writes and reads. */
typedef struct block {
    float *y;               /* token 0 of the block, first of the 16 rows */
    size_t ldy;
    const float *row_scale; /* of these rows */
    bool first, last;       /* K block of the row */
    const uint8_t *act;     /* (tiles, 4, 64) of 4 tokens */
    size_t act_step;        /* bytes to those of the next 4 */
    const float *d;         /* of tile 0 */
    size_t stride;          /* tokens in a tile of the activations */
    const uint8_t *ask, *ask_end; /* weights that are unpacked next: see ask_next */
} block;

Q_INLINE int block_of(int left) { return left < PANEL_M ? left : PANEL_M; }

/* Rows 8 * half on.  s8, p: sub-scales and planes of these 64 k at these rows. */
Q_INLINE void unpack_half(const int type, group_tile *o, int half, const int8_t *s8,
                          const uint8_t *p)
{
    const bool wide = halves_of(type) == 2;
    const int runs = type == Q_N5 ? 8 : 4, per = 16 / runs; /* chunks that share a start */
    const luts g = luts_of(type, false);
    const __m256i c128 = _mm256_set1_epi8(-128); /* unsigned */
    if (has_pairs(type)) unpack_points(type, o->code[0][half], sizeof *o->code, p);
    Q_UNROLL
    for (int s = 0; s < runs; s++) {
        __m256i sum = _mm256_setzero_si256(); /* of 4 codes of 6 bits, 2 of 7: fits 8 */
        Q_UNROLL
        for (int c = per * s; c < per * (s + 1); c++) {
            __m256i *to = (__m256i *)o->code[c][half], v;
            if (has_pairs(type)) {
                v = _mm256_load_si256(to);
            } else {
                const uint8_t *p2 = p + 512 + (type == Q_N5 ? 64 : 128) * (c / 8);
                v = chunk_8(type, p + 256 * (c / 8), p2, c % 8, &g);
                if (type == Q_L6) v = _mm256_sub_epi8(v, _mm256_set1_epi8(32));
                _mm256_store_si256(to, v);
            }
            sum = _mm256_add_epi8(sum, v);
        }
        const __m256i back = _mm256_maddubs_epi16(c128, sum); /* >= -128 * 256: fits 16 */
        _mm256_store_si256((__m256i *)o->start[s][half],
                           _mm256_sub_epi16(_mm256_setzero_si256(), back));
    }
    Q_UNROLL
    for (int s = 0; s < 4; s++)
        _mm256_store_si256((__m256i *)o->scale[s][half],
                           scale_pairs(s8 + 16 * (wide ? s / 2 : s)));
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
            unpack_half(type, &p->at[t], half, s8 + 8 * half, planes + 32 * half);
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

/* The order in which activations are read: K blocks of 12 tiles, in each blocks of 4 tokens, in
 * each (tiles, 4, 64).  Tiles are counted up to an even number, as types with tiles of 128 want. */
Q_INLINE int even_tiles(const q_acts *x) { return (x->kt + 1) / 2 * 2; }

/* Tiles of the K block from t0. */
Q_INLINE int order_tiles(const q_acts *x, int t0)
{
    const int left = even_tiles(x) - t0;
    return left < PANEL_T ? left : PANEL_T;
}

/* nt tiles, all of one K block, from tile t of the input, of m tokens from m0 to the block of 4
 * tokens at `to`, `step` bytes a block; m0 is the j-th of it.  Tile after tile: what is read then
 * lies in a row, and is on its way before it is asked for. */
static void order_block(uint8_t *to, size_t step, int j, const q_acts *x, int t, int nt, int m0,
                        int m)
{
    const __m256i high = _mm256_set1_epi8(-128);
    for (int i = 0; i < nt; i++, to += Q_TILE * PANEL_M) {
        const __m256i *from =
            (const __m256i *)(x->q + Q_TILE * ((size_t)(t + i) * (size_t)x->M + (size_t)m0));
        for (int k = j; k < j + m; k++, from += 2) {
            uint8_t *four = to + step * (size_t)(k / PANEL_M);
            __m256i *at = (__m256i *)(four + Q_TILE * (k % PANEL_M));
            _mm256_store_si256(at, _mm256_xor_si256(high, _mm256_load_si256(from)));
            _mm256_store_si256(at + 1, _mm256_xor_si256(high, _mm256_load_si256(from + 1)));
        }
    }
}

/* Where token m0 (a multiple of 4) of the K block from t0 begins in x->u. */
Q_INLINE uint8_t *ordered(const q_acts *x, int t0, int m0)
{
    const size_t all = ((size_t)x->M + PANEL_M - 1) / PANEL_M * PANEL_M;
    return x->u + Q_TILE * ((size_t)t0 * all + (size_t)order_tiles(x, t0) * (size_t)m0);
}

void q_panel_order_avx2(const q_acts *x, int m0, int m, int t0, int nt)
{
    const int end = t0 + nt == x->kt ? even_tiles(x) : t0 + nt; /* the zeros behind the last */
    for (int t = t0; t < end;) {
        const int first = t / PANEL_T * PANEL_T, in = order_tiles(x, first), j = m0 % PANEL_M;
        const int n = (end < first + in ? end : first + in) - t;
        uint8_t *to = ordered(x, first, m0 - j) + Q_TILE * PANEL_M * (size_t)(t - first);
        order_block(to, (size_t)(Q_TILE * PANEL_M * in), j, x, t, n, m0, m);
        t += n;
    }
}

/* Adds one token's 16 k from a times 16 rows to z, with the codes of chunks 0 and 1 in registers.
 * Written out: all 16 registers are in use, and gcc would spill. */
Q_INLINE void add_16(__m256i *z0, __m256i *z1, const __m256i w[4], const int8_t code[4][2][32],
                     const int16_t scale[2][16], const int16_t start[2][16], const uint8_t *a)
{
    __m256i b, v0, v1, v;
    __asm__("vbroadcastss %[a0], %[b]\n\t"
            "vpmaddubsw %[w0], %[b], %[v0]\n\t"
            "vpmaddubsw %[w1], %[b], %[v1]\n\t"
            "vpaddw %[s0], %[v0], %[v0]\n\t"
            "vpaddw %[s1], %[v1], %[v1]\n\t"
            "vbroadcastss %[a1], %[b]\n\t"
            "vpmaddubsw %[w2], %[b], %[v]\n\t"
            "vpaddw %[v], %[v0], %[v0]\n\t"
            "vpmaddubsw %[w3], %[b], %[v]\n\t"
            "vpaddw %[v], %[v1], %[v1]\n\t"
            "vbroadcastss %[a2], %[b]\n\t"
            "vpmaddubsw %[w4], %[b], %[v]\n\t"
            "vpaddw %[v], %[v0], %[v0]\n\t"
            "vpmaddubsw %[w5], %[b], %[v]\n\t"
            "vpaddw %[v], %[v1], %[v1]\n\t"
            "vbroadcastss %[a3], %[b]\n\t"
            "vpmaddubsw %[w6], %[b], %[v]\n\t"
            "vpaddw %[v], %[v0], %[v0]\n\t"
            "vpmaddubsw %[w7], %[b], %[v]\n\t"
            "vpaddw %[v], %[v1], %[v1]\n\t"
            "vpmaddwd %[e0], %[v0], %[v0]\n\t"
            "vpmaddwd %[e1], %[v1], %[v1]\n\t"
            "vpaddd %[v0], %[z0], %[z0]\n\t"
            "vpaddd %[v1], %[z1], %[z1]"
            : [z0] "+x"(*z0), [z1] "+x"(*z1), [b] "=&x"(b), [v0] "=&x"(v0), [v1] "=&x"(v1),
              [v] "=&x"(v)
            : [w0] "x"(w[0]), [w1] "x"(w[1]), [w2] "x"(w[2]), [w3] "x"(w[3]),
              [w4] "m"(*(const __m256i *)code[2][0]), [w5] "m"(*(const __m256i *)code[2][1]),
              [w6] "m"(*(const __m256i *)code[3][0]), [w7] "m"(*(const __m256i *)code[3][1]),
              [s0] "m"(*(const __m256i *)start[0]), [s1] "m"(*(const __m256i *)start[1]),
              [e0] "m"(*(const __m256i *)scale[0]), [e1] "m"(*(const __m256i *)scale[1]),
              [a0] "m"(*(const uint32_t *)a), [a1] "m"(*(const uint32_t *)(a + 4)),
              [a2] "m"(*(const uint32_t *)(a + 8)), [a3] "m"(*(const uint32_t *)(a + 12)));
}

/* The same of 8 k of N5, all codes in registers. */
Q_INLINE void add_8(__m256i *z0, __m256i *z1, const __m256i w[4], const int16_t scale[2][16],
                    const int16_t start[2][16], const uint8_t *a)
{
    __m256i b, v0, v1, v;
    __asm__("vbroadcastss %[a0], %[b]\n\t"
            "vpmaddubsw %[w0], %[b], %[v0]\n\t"
            "vpmaddubsw %[w1], %[b], %[v1]\n\t"
            "vpaddw %[s0], %[v0], %[v0]\n\t"
            "vpaddw %[s1], %[v1], %[v1]\n\t"
            "vbroadcastss %[a1], %[b]\n\t"
            "vpmaddubsw %[w2], %[b], %[v]\n\t"
            "vpaddw %[v], %[v0], %[v0]\n\t"
            "vpmaddubsw %[w3], %[b], %[v]\n\t"
            "vpaddw %[v], %[v1], %[v1]\n\t"
            "vpmaddwd %[e0], %[v0], %[v0]\n\t"
            "vpmaddwd %[e1], %[v1], %[v1]\n\t"
            "vpaddd %[v0], %[z0], %[z0]\n\t"
            "vpaddd %[v1], %[z1], %[z1]"
            : [z0] "+x"(*z0), [z1] "+x"(*z1), [b] "=&x"(b), [v0] "=&x"(v0), [v1] "=&x"(v1),
              [v] "=&x"(v)
            : [w0] "x"(w[0]), [w1] "x"(w[1]), [w2] "x"(w[2]), [w3] "x"(w[3]),
              [s0] "m"(*(const __m256i *)start[0]), [s1] "m"(*(const __m256i *)start[1]),
              [e0] "m"(*(const __m256i *)scale[0]), [e1] "m"(*(const __m256i *)scale[1]),
              [a0] "m"(*(const uint32_t *)a), [a1] "m"(*(const uint32_t *)(a + 4)));
}

/* 16 rows x M tokens over nt tiles.  kind: N5, or N4 for all whose codes have 6 bits. */
Q_INLINE void run_block(const int kind, const int M, const group_tile *p, int nt, const block *b)
{
    const int step = kind == Q_N5 ? 2 : 4; /* chunks */
    const uint8_t *a = b->act, *ask = b->ask;
    const float *d = b->d;
    __m256 f[PANEL_M][2];
    Q_UNROLL
    for (int m = 0; m < M; m++) {
        const float *y = b->y + (size_t)m * b->ldy;
        f[m][0] = b->first ? _mm256_setzero_ps() : _mm256_loadu_ps(y);
        f[m][1] = b->first ? _mm256_setzero_ps() : _mm256_loadu_ps(y + 8);
    }
    for (int t = 0; t < nt; t++, p++) {
        ask = ask_next(ask, b->ask_end, 0);
        __m256i z[PANEL_M][2];
        Q_UNROLL
        for (int m = 0; m < M; m++) z[m][0] = z[m][1] = _mm256_setzero_si256();
        Q_UNROLL
        for (int c = 0; c < 16; c += step) {
            const __m256i w[4] = { _mm256_load_si256((const __m256i *)p->code[c][0]),
                                   _mm256_load_si256((const __m256i *)p->code[c][1]),
                                   _mm256_load_si256((const __m256i *)p->code[c + 1][0]),
                                   _mm256_load_si256((const __m256i *)p->code[c + 1][1]) };
            Q_UNROLL
            for (int m = 0; m < M; m++) {
                const uint8_t *am = a + 64 * m + 4 * c;
                if (kind == Q_N5)
                    add_8(&z[m][0], &z[m][1], w, p->scale[c / 4], p->start[c / 2], am);
                else
                    add_16(&z[m][0], &z[m][1], w, p->code + c, p->scale[c / 4], p->start[c / 4],
                           am);
            }
        }
        Q_UNROLL
        for (int m = 0; m < M; m++) {
            const __m256 dm = _mm256_set1_ps(d[m]);
            f[m][0] = _mm256_fmadd_ps(dm, _mm256_cvtepi32_ps(z[m][0]), f[m][0]);
            f[m][1] = _mm256_fmadd_ps(dm, _mm256_cvtepi32_ps(z[m][1]), f[m][1]);
        }
        a += Q_TILE * PANEL_M;
        d += b->stride;
    }
    const __m256 one = _mm256_set1_ps(1.0f);
    const __m256 r0 = b->last ? _mm256_load_ps(b->row_scale) : one;
    const __m256 r1 = b->last ? _mm256_load_ps(b->row_scale + 8) : one;
    Q_UNROLL
    for (int m = 0; m < M; m++) {
        float *y = b->y + (size_t)m * b->ldy;
        _mm256_storeu_ps(y, _mm256_mul_ps(r0, f[m][0]));
        _mm256_storeu_ps(y + 8, _mm256_mul_ps(r1, f[m][1]));
    }
}

/* All tokens past 16 unpacked rows; b is at the first. */
Q_INLINE void tokens(const int kind, const group_tile *p, int nt, block b, int m)
{
    for (int left = m, M; left > 0; left -= M) {
        M = block_of(left);
        switch (M) {
        case 1: run_block(kind, 1, p, nt, &b); break;
        case 2: run_block(kind, 2, p, nt, &b); break;
        case 3: run_block(kind, 3, p, nt, &b); break;
        default: run_block(kind, 4, p, nt, &b); break;
        }
        b.y += (size_t)M * b.ldy;
        b.act += b.act_step;
        b.d += M;
        b.ask = asked(b.ask, b.ask_end, nt);
    }
}

static void tokens_n4(const group_tile *p, int nt, block b, int m) { tokens(Q_N4, p, nt, b, m); }
static void tokens_n5(const group_tile *p, int nt, block b, int m) { tokens(Q_N5, p, nt, b, m); }

/* At most PANEL_MAX tokens. */
static void pass(int type, float *y, size_t ldy, const uint8_t *w, int n, const q_acts *x, int m0,
                 int m, panel *p)
{
    const size_t bytes = q_group_bytes(type, Q_TILE * x->kt), stride = (size_t)x->M;
    const int kt = tiles_of(type, x), ng = (n + 15) / 16;
    const int m4 = (m + PANEL_M - 1) / PANEL_M * PANEL_M;
    const bool is_ordered = x->u && m0 % PANEL_M == 0;
    const bool whole = even_tiles(x) * m4 <= PANEL_T * PANEL_MAX; /* activations of all k fit */
    const bool few = m < PANEL_MIN; /* pairs: products too short to ask for all beside them */
    const int step = whole ? 1 : ng;
    for (int g0 = 0; g0 < ng; g0 += step) {
        for (int t0 = 0; t0 < kt; t0 += PANEL_T) {
            const int nt = kt - t0 < PANEL_T ? kt - t0 : PANEL_T;
            const size_t at = (size_t)t0 * stride + (size_t)m0;
            uint8_t *act = is_ordered ? ordered(x, t0, m0)
                                      : p->act + (whole ? Q_TILE * t0 * m4 : 0);
            block b = { .first = t0 == 0, .last = t0 + nt == kt, .act = act, .d = x->d + at,
                        .act_step = (size_t)(Q_TILE * PANEL_M * order_tiles(x, t0)),
                        .stride = stride };
            if (g0 == 0 && !is_ordered) order_block(act, b.act_step, 0, x, t0, nt, m0, m);
            for (int g = g0; g < g0 + step; g++) {
                const uint8_t *wg = w + bytes * (size_t)g;
                const uint8_t *wt = wg + 64 + tile_at(type, t0);
                unpack(type, p, wt, nt, few);
                b.ask = wt + (whole ? tile_at(type, nt) : bytes);
                b.ask_end = b.ask + (few ? 0 : tile_at(type, nt));
                const int rows = n - 16 * g;
                b.y = rows < 16 ? p->edge[0] : y + 16 * g;
                b.ldy = rows < 16 ? 16 : ldy;
                b.row_scale = (const float *)wg;
                if (type == Q_N5) tokens_n5(p->at, nt, b, m);
                else tokens_n4(p->at, nt, b, m);
                for (int j = 0; rows < 16 && b.last && j < m; j++)
                    memcpy(y + 16 * g + (size_t)j * ldy, p->edge[j], (size_t)rows * sizeof *y);
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
