/* attn_wide.h - integer products of attention for many queries (prefill, heads that share latents)
 * in ymm registers; part of attn_ymm.h.
 *
 * Codes of 64 lanes (positions of K or of latents, dims of V) x 64 k are widened once to 16-bit
 * pairs, K's times their sub-scales (|s * code| <= 16129), and stay in L1 (8 KB) while all queries
 * pass.  A pair of a query is broadcast once for eight sums and the codes are operands in memory:
 * 17 instructions for 128 products, where few queries take 22 for values, which they widen for four
 * at a time, and 21 for scores, whose signs they move.  Sums of K are those of bytes,
 * |sum| <= 64 * 127 * 16129 = 131,096,512, the others as in attn_ymm.h.
 *
 * What a lane adds up over tiles stays in the output itself, zeroed first. */
#ifndef QUANT_X86_ATTN_WIDE_H
#define QUANT_X86_ATTN_WIDE_H

#include <string.h>

#include "quant/quant.h"
#include "quant/x86/attn_body.h"

/* Widening waits for memory and products do not, so few queries lose with the cache in memory what
 * they win with it in L2: time of both products of 6, 8, 12, 24, 60 queries against the other way
 * (Zen 3) 1.00, 1.06, .98, .90, .80 and .80, .90, .88, .83, .79. */
enum {
    WIDE_FROM = 12,    /* queries */
    WIDE_QUERIES = 64, /* that pass at once: the numbers of a tile (8 KB, scores 16) stay in L1 */
    WIDE_LANES = 64,   /* eight registers */
    WIDE_TILES = 4,    /* of a head's scores: 64 KB of numbers on the stack */
    WIDE_UNROLL = 4    /* pairs; two are 2 % slower */
};

typedef struct wide_tile {
    int16_t at[Q_TILE / 2][WIDE_LANES][2];
} wide_tile;

Q_INLINE __m256i both(__m128i x) { return _mm256_broadcastsi128_si256(x); }

/* p: first line of 16 lanes, the next 16 are `step` bytes on.  scaled: K, with the sub-scales in
 * front of its codes. */
Q_INLINE void widen(const bool scaled, wide_tile *w, const uint8_t *p, size_t step)
{
    /* To the high bytes of words, pairs 0 1 and 2 3 of every lane: x * 256 * y * 256 >> 16. */
    const __m256i first = both(_mm_setr_epi8(-1, 0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1,
                                             13));
    const __m256i second = both(_mm_setr_epi8(-1, 2, -1, 3, -1, 6, -1, 7, -1, 10, -1, 11, -1, 14,
                                              -1, 15));
    const __m256i twice = both(_mm_setr_epi8(-1, 0, -1, 0, -1, 4, -1, 4, -1, 8, -1, 8, -1, 12, -1,
                                             12));
    for (int g = 0; g < WIDE_LANES / Q_ROWS; g++, p += step)
        for (int b = 0; b < 4; b++) {
            __m256i by[2] = { _mm256_set1_epi16(256), _mm256_set1_epi16(256) };
            for (int h = 0; scaled && h < 2; h++) {
                const __m128i s = _mm_loadl_epi64((const void *)(p - 64 + 16 * b + 8 * h));
                by[h] = _mm256_shuffle_epi8(_mm256_cvtepi8_epi32(s), twice);
            }
            for (int c = 4 * b; c < 4 * b + 4; c++) {
                ask_ahead(p + 64 * c);
                Q_UNROLL
                for (int h = 0; h < 2; h++) {
                    const __m256i x = _mm256_load_si256((const __m256i *)(p + 64 * c + 32 * h));
                    const __m256i x0 = _mm256_mulhi_epi16(_mm256_shuffle_epi8(x, first), by[h]);
                    const __m256i x1 = _mm256_mulhi_epi16(_mm256_shuffle_epi8(x, second), by[h]);
                    _mm256_store_si256((__m256i *)w->at[2 * c][16 * g + 8 * h], x0);
                    _mm256_store_si256((__m256i *)w->at[2 * c + 1][16 * g + 8 * h], x1);
                }
            }
        }
}

/* f[lane] = fma(d, sum of q * w, f[lane]), d times dp[lane] if there is one. */
Q_INLINE void add_wide(float *f, const wide_tile *w, const int16_t q[Q_TILE], float d,
                       const float *dp)
{
    __m256i z[8];
    Q_UNROLL
    for (int v = 0; v < 8; v++) z[v] = _mm256_setzero_si256();
    for (int i = 0; i < Q_TILE / 2; i += WIDE_UNROLL) {
        Q_UNROLL
        for (int k = i; k < i + WIDE_UNROLL; k++) {
            const __m256i two = _mm256_castps_si256(_mm256_broadcast_ss((const void *)(q + 2 * k)));
            Q_UNROLL
            for (int v = 0; v < 8; v++)
                add_products(&z[v], two, *(const __m256i *)w->at[k][8 * v]);
        }
    }
    const __m256 dv = _mm256_set1_ps(d);
    Q_UNROLL
    for (int v = 0; v < 8; v++) {
        const __m256 g = dp ? _mm256_mul_ps(dv, _mm256_loadu_ps(dp + 8 * v)) : dv;
        const __m256 old = _mm256_loadu_ps(f + 8 * v);
        _mm256_storeu_ps(f + 8 * v, _mm256_fmadd_ps(g, _mm256_cvtepi32_ps(z[v]), old));
    }
}

static void __attribute__((noinline)) add_lanes(float *f, const wide_tile *w,
                                                const int16_t q[Q_TILE], float d)
{
    add_wide(f, w, q, d, NULL);
}

/* ---- the numbers of a query ---- */

/* u = e * dv of a tile, n of it visible, as words; returns d.  Not inlined: 1.5 KB. */
static float __attribute__((noinline)) word_weights(int16_t u[Q_TILE], const float *e,
                                                    const float *dv, int n, int *bad)
{
    v16i q[4];
    const float d = whole_weights(q, e, dv, n, bad);
    for (int i = 0; i < 4; i++) v16i_store_words(u + 16 * i, q[i]);
    return d;
}

Q_INLINE __m256i load_words(const int8_t *q)
{
    return _mm256_cvtepi8_epi16(_mm_load_si128((const __m128i *)q));
}

/* Tile t of query m as words: 254 * hi + lo. */
Q_INLINE void word_query(int16_t q[Q_TILE], const q_acts *q2, int t, int m)
{
    const size_t at = (size_t)t * (size_t)q2->M + 2 * (size_t)m;
    const int8_t *hi = q2->q + at * Q_TILE, *lo = hi + Q_TILE;
    for (int i = 0; i < Q_TILE; i += 16) {
        const __m256i w = _mm256_mullo_epi16(load_words(hi + i), _mm256_set1_epi16(254));
        _mm256_storeu_si256((__m256i *)(q + i), _mm256_add_epi16(w, load_words(lo + i)));
    }
}

/* ---- up to WIDE_QUERIES queries; not inlined, or gcc takes the loops of few for rare ones and
 * leaves them unaligned ---- */

Q_INLINE void clear(float *f, size_t ldf, int n, int m)
{
    for (int j = 0; j < m; j++) memset(f + (size_t)j * ldf, 0, (size_t)n * sizeof *f);
}

/* Scores against 64 * nb positions of a K block; up to WIDE_TILES tiles. */
static void __attribute__((noinline)) wide_scores(float *s, size_t lds, const uint8_t *kblk, int nb,
                                                  const q_acts *q2, int m0, int m, float scale)
{
    wide_tile w __attribute__((aligned(32)));
    int16_t q[WIDE_TILES][2 * WIDE_QUERIES][Q_TILE]; /* high and low bytes by turns */
    const size_t bytes = q_group_bytes(Q_L8, Q_TILE * q2->kt), tile = 64 + Q_ROWS * Q_TILE;
    for (int t = 0; t < q2->kt; t++) {
        const int8_t *from = q2->q + ((size_t)t * (size_t)q2->M + 2 * (size_t)m0) * Q_TILE;
        for (int i = 0; i < 2 * m * Q_TILE; i += 16)
            _mm256_storeu_si256((__m256i *)(q[t][0] + i), load_words(from + i));
    }
    clear(s, lds, WIDE_LANES * nb, m);
    for (int b = 0; b < nb; b++, kblk += 4 * bytes, s += WIDE_LANES) {
        for (int t = 0; t < q2->kt; t++) {
            const float *d = q2->d + (size_t)t * (size_t)q2->M + 2 * (size_t)m0;
            widen(true, &w, kblk + 64 + tile * (size_t)t + 64, bytes);
            for (int j = 0; j < m; j++) {
                add_lanes(s + (size_t)j * lds, &w, q[t][2 * j], d[2 * j]);
                add_lanes(s + (size_t)j * lds, &w, q[t][2 * j + 1], d[2 * j + 1]);
            }
        }
        for (int g = 0; g < 4; g++) {
            const v16f rs = v16_load((const float *)(kblk + bytes * (size_t)g));
            for (int j = 0; j < m; j++) {
                float *f = s + (size_t)j * lds + Q_ROWS * g;
                v16_store(f, v16_mul(v16_mul(rs, v16_load(f)), v16_set1(scale)));
            }
        }
    }
}

/* Scores against 64 * nb positions of latents, nl tiles of them before the rotated dims. */
static void __attribute__((noinline)) wide_latents(float *s, size_t lds, const float *dc,
                                                   const uint8_t *codes, size_t nl, int nb,
                                                   const q_acts *q2, int m0, int m, float scale)
{
    wide_tile w __attribute__((aligned(32)));
    int16_t q[WIDE_QUERIES][Q_TILE];
    const size_t bytes = (size_t)q2->kt * Q_ROWS * Q_TILE;
    clear(s, lds, WIDE_LANES * nb, m);
    for (size_t t = 0; t < (size_t)q2->kt; t++) {
        const float *d = q2->d + t * (size_t)q2->M + 2 * (size_t)m0;
        const float *dp = dc + Q_PIECE * (t < nl ? t / 2 : (nl + 1) / 2 + (t - nl) / 2);
        for (int j = 0; j < m; j++) word_query(q[j], q2, (int)t, m0 + j);
        for (int b = 0; b < nb; b++) {
            widen(false, &w, codes + 4 * bytes * (size_t)b + Q_ROWS * Q_TILE * t, bytes);
            for (int j = 0; j < m; j++)
                add_wide(s + (size_t)j * lds + WIDE_LANES * b, &w, q[j], d[2 * j + 1],
                         dp + WIDE_LANES * b);
        }
    }
    for (int j = 0; j < m; j++)
        for (int i = 0; i < WIDE_LANES * nb; i += 16) {
            float *f = s + (size_t)j * lds + i;
            v16_store(f, v16_mul(v16_load(f), v16_set1(scale)));
        }
}

/* A piece; hd is a multiple of WIDE_LANES. */
static int __attribute__((noinline)) wide_values(float *o, size_t ldo, const void *vblk, int hd,
                                                 const float *e, size_t lde, const int *nvis, int m)
{
    wide_tile w __attribute__((aligned(32)));
    int16_t u[WIDE_QUERIES][Q_TILE];
    float d[WIDE_QUERIES];
    const uint8_t *codes = (const uint8_t *)vblk + v8_codes(hd);
    int end = 1, bad = 0;
    for (int j = 0; j < m; j++) end = nvis[j] > end ? nvis[j] : end;
    clear(o, ldo, hd, m);
    for (int t0 = 0; t0 < end; t0 += Q_TILE)
        for (int i = 0; i < hd; i += WIDE_LANES, codes += WIDE_LANES * Q_TILE) {
            const float *dv = (const float *)vblk + i / 128 * Q_PIECE + t0;
            for (int j = 0; i % 128 == 0 && j < m; j++)
                if (nvis[j] > t0)
                    d[j] = word_weights(u[j], e + (size_t)j * lde + t0, dv, nvis[j] - t0, &bad);
            widen(false, &w, codes, Q_ROWS * Q_TILE);
            for (int j = 0; j < m; j++)
                if (nvis[j] > t0) add_lanes(o + (size_t)j * ldo + i, &w, u[j], d[j]);
        }
    return bad;
}

#endif
