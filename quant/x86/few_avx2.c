/* few_avx2.c - matrix times a few tokens on AVX2: decoding of several sequences, drafts.
 *
 * The loop of tile_avx2.h broadcasts activations where it multiplies, an instruction for every
 * product of 32 bytes.  Here each 4 k of a token lie in memory as often as a register has rows, so
 * that maddubs reads them itself, and products of 16 k are summed in 16 bits modulo 2^16, from a
 * start of -32 * (sum of the lane's 8 activations), which takes the bias of the codes back.  What
 * they add up to, the sum of code * a, is at most 8 * 32 * 127 = 32512, so it is exact whatever
 * wrapped on the way (one maddubs cannot saturate: 2 * 63 * 127).  Per 16 k, 8 rows and token: four
 * maddubs, four additions, one madd by the sub-scales, one addition.
 *
 * Spread so, 8 tokens of 4 tiles are 20 KB.  They stay in L1 while all row groups of the call pass
 * by, so K blocks are the outer loop and f waits in scratch in between.  Spreading takes as long as
 * half a row group.  A group's share of a K block is 2 KB, too short a run for the prefetcher: that
 * of the next group is asked for line by line, without which a fifth of the speed was lost (Zen 3,
 * weights from memory). */
#include "quant/x86/few_avx2.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include <assert.h>
#include <string.h>

#include "quant/x86/tile_avx2.h"

enum {
    FEW_T = 4,     /* tiles of a K block: even, for N4s has tiles of 128 k */
    FEW_PASS = 32  /* row groups whose f wait at once */
};

/* 16 k of one token. */
typedef struct spread {
    int8_t a[4][32];   /* 4 k, eight times */
    int16_t start[16]; /* of a pair of lanes, eight times */
} spread;

typedef struct few {
    spread act[FEW_T][4 * FEW_M]; /* (tile, 16 k, token), as many tokens as are multiplied */
    float d[FEW_T][FEW_M];
    float f[FEW_PASS][2][FEW_M][8]; /* by halves of 8 rows */
} few;
static_assert(sizeof(few) <= Q_TMP, "the sums must fit the scratch of a gemm");

/* One tile of m tokens from those at q, M apart. */
static void spread_tile(spread *o, int M, const int8_t *q, int m)
{
    const __m256i bias = _mm256_set1_epi8(32), zero = _mm256_setzero_si256();
    for (int i = 0; i < m; i++, o++) {
        for (int h = 0; h < 2; h++, q += 32) {
            spread *a = o + 2 * h * M, *b = a + M;
            __m256i x = _mm256_maddubs_epi16(bias, _mm256_load_si256((const __m256i *)q));
            x = _mm256_add_epi16(x, _mm256_shuffle_epi32(x, 0xb1)); /* of two chunks, */
            x = _mm256_add_epi16(x, _mm256_shuffle_epi32(x, 0x4e)); /* of all four */
            x = _mm256_sub_epi16(zero, x);
            _mm256_store_si256((__m256i *)a->start, _mm256_permute2x128_si256(x, x, 0x00));
            _mm256_store_si256((__m256i *)b->start, _mm256_permute2x128_si256(x, x, 0x11));
            Q_UNROLL
            for (int c = 0; c < 4; c++) {
                _mm256_store_si256((__m256i *)a->a[c], broadcast4(q + 4 * c));
                _mm256_store_si256((__m256i *)b->a[c], broadcast4(q + 16 + 4 * c));
            }
        }
    }
}

/* Adds one token's 16 k times 8 rows, times their sub-scales e, to z.  Written out: 15 registers
 * are in use, and gcc would load what maddubs reads first and spill. */
Q_INLINE void add_16(__m256i *z, const __m256i w[4], __m256i e, const spread *a)
{
    __m256i v, u;
    __asm__("vpmaddubsw %[a0], %[w0], %[v]\n\t"
            "vpmaddubsw %[a1], %[w1], %[u]\n\t"
            "vpaddw %[start], %[v], %[v]\n\t"
            "vpaddw %[u], %[v], %[v]\n\t"
            "vpmaddubsw %[a2], %[w2], %[u]\n\t"
            "vpaddw %[u], %[v], %[v]\n\t"
            "vpmaddubsw %[a3], %[w3], %[u]\n\t"
            "vpaddw %[u], %[v], %[v]\n\t"
            "vpmaddwd %[e], %[v], %[v]\n\t"
            "vpaddd %[v], %[z], %[z]"
            : [z] "+x"(*z), [v] "=&x"(v), [u] "=&x"(u)
            : [w0] "x"(w[0]), [w1] "x"(w[1]), [w2] "x"(w[2]), [w3] "x"(w[3]), [e] "x"(e),
              [a0] "m"(*(const __m256i *)a->a[0]), [a1] "m"(*(const __m256i *)a->a[1]),
              [a2] "m"(*(const __m256i *)a->a[2]), [a3] "m"(*(const __m256i *)a->a[3]),
              [start] "m"(*(const __m256i *)a->start));
}

/* nt tiles of a row group from that at w, M tokens.  wide: N4s.  `ask`: what is wanted next. */
Q_INLINE void run_tiles(const int M, const few *p, float (*f)[FEW_M][8], const uint8_t *w, int nt,
                        bool wide, const uint8_t *ask)
{
    const luts g = luts_of(Q_N4, true);
    const int next = wide ? 0 : 16; /* from the sub-scales of 16 k to the others of these 32 k */
    const int8_t *s8 = NULL;
    for (int t = 0; t < nt; t++) {
        if (wide && t % 2) s8 += 32;
        else s8 = (const int8_t *)w, w += 64;
        _mm_prefetch((const char *)ask, _MM_HINT_T0);
        const uint8_t *soon = ask + 64;
        ask += wide ? 544 : 576;
        for (int half = 0, nh = opaque(2); half < nh; half++) {
            const int8_t *s = s8 + 8 * half;
            const uint8_t *q = w + 32 * half;
            const spread *a = p->act[t];
            __m256i z[FEW_M];
            Q_UNROLL
            for (int m = 0; m < M; m++) z[m] = _mm256_setzero_si256();
            for (int b = 0, nb = opaque(2); b < nb; b++, soon += 128) {
                Q_UNROLL
                for (int c = 0; c < 8; c += 4) {
                    _mm_prefetch((const char *)soon + 16 * c, _MM_HINT_T0);
                    const __m256i e = scale_pairs(s);
                    const __m256i v[4] = {
                        chunk_8(Q_N4, q, NULL, c, &g), chunk_8(Q_N4, q, NULL, c + 1, &g),
                        chunk_8(Q_N4, q, NULL, c + 2, &g), chunk_8(Q_N4, q, NULL, c + 3, &g)
                    };
                    Q_UNROLL
                    for (int m = 0; m < M; m++) add_16(&z[m], v, e, a + m);
                    a += M;
                    s += c ? 16 : next;
                }
                q += 256;
            }
            Q_UNROLL
            for (int m = 0; m < M; m++) {
                float *to = f[half][m];
                const __m256 d = _mm256_set1_ps(p->d[t][m]), x = _mm256_cvtepi32_ps(z[m]);
                _mm256_store_ps(to, _mm256_fmadd_ps(d, x, _mm256_load_ps(to)));
            }
        }
        w += 512;
    }
}

typedef void run_fn(const few *p, float (*f)[FEW_M][8], const uint8_t *w, int nt, bool wide,
                    const uint8_t *ask);

static void run_6(const few *p, float (*f)[FEW_M][8], const uint8_t *w, int nt, bool wide,
                  const uint8_t *ask)
{
    run_tiles(6, p, f, w, nt, wide, ask);
}

static void run_8(const few *p, float (*f)[FEW_M][8], const uint8_t *w, int nt, bool wide,
                  const uint8_t *ask)
{
    run_tiles(8, p, f, w, nt, wide, ask);
}

/* ng row groups with n rows; `more` of them follow. */
static void pass(int type, float *y, size_t ldy, const uint8_t *w, int n, int ng, bool more,
                 const q_acts *x, int m0, int m, few *p)
{
    const size_t bytes = q_group_bytes(type, Q_TILE * x->kt), stride = (size_t)x->M;
    const int kt = tiles_of(type, x);
    const bool six = m <= 6;
    run_fn *const run = six ? run_6 : run_8;
    memset(p->f, 0, (size_t)ng * sizeof *p->f);
    for (int t0 = 0; t0 < kt; t0 += FEW_T) {
        const int nt = kt - t0 < FEW_T ? kt - t0 : FEW_T;
        const bool last = t0 + nt == kt;
        for (int t = 0; t < nt; t++) {
            const size_t at = (size_t)(t0 + t) * stride + (size_t)m0;
            spread_tile(p->act[t], six ? 6 : 8, x->q + Q_TILE * at, m);
            memcpy(p->d[t], x->d + at, (size_t)m * sizeof *p->d[t]);
        }
        const uint8_t *tile = w + 64 + tile_at(type, t0), *at = tile;
        for (int g = 0; g < ng; g++, at += bytes) {
            const uint8_t *ask = at + bytes;
            if (g + 1 == ng && !last) ask = tile + tile_at(type, nt);
            else if (g + 1 == ng) ask = more ? w + bytes * (size_t)ng : at; /* at: asks nothing */
            run(p, p->f[g], at, nt, type == Q_N4S, ask);
        }
    }
    for (int g = 0; g < ng; g++, w += bytes, n -= Q_ROWS, y += Q_ROWS) {
        const float *scale = (const float *)w;
        const __m256 r0 = _mm256_load_ps(scale), r1 = _mm256_load_ps(scale + 8);
        for (int i = 0; i < m; i++) {
            const v16f v = { _mm256_mul_ps(r0, _mm256_load_ps(p->f[g][0][i])),
                             _mm256_mul_ps(r1, _mm256_load_ps(p->f[g][1][i])) };
            v16_store_n(y + (size_t)i * ldy, v, n < Q_ROWS ? n : Q_ROWS);
        }
    }
}

void q_few_avx2(int type, float *y, size_t ldy, const void *w, int n, const q_acts *x, int m0,
                int m, void *tmp)
{
    few *p = tmp;
    const size_t bytes = q_group_bytes(type, Q_TILE * x->kt);
    const int rows = Q_ROWS * FEW_PASS;
    if (m % 2) { /* a token of zeros makes it 6 or 8 */
        memset(p->act, 0, sizeof p->act);
        memset(p->d, 0, sizeof p->d);
    }
    for (int r = 0; r < n; r += rows) {
        const int here = n - r < rows ? n - r : rows;
        pass(type, y + r, ldy, (const uint8_t *)w + bytes * (size_t)(r / Q_ROWS), here,
             (here + Q_ROWS - 1) / Q_ROWS, r + here < n, x, m0, m, p);
    }
}

#else
typedef int few_needs_avx2; /* ISO C wants something in every file */
#endif
