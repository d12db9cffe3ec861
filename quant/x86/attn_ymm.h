/* attn_ymm.h - both integer products of attention in ymm registers; attn_avx2.c and
 * attn_avxvnni.c compile it once each.  This is how few queries go; for many: attn_wide.h.
 *
 * Scores are the L8 weight product with positions as rows and each query as two tokens (high and
 * low byte).  For values 16-bit products are cheaper than two bytes: codes widen once for all
 * queries, and one instruction does 2 positions of 8 lanes at full weight.
 * |sum| <= 64 * 127 * 32384 = 263,217,152.
 *
 * The file that includes this brings
 *   score_tile(Q, v, tile, q, nsum)  v[2Q] = (float)z of 8 rows of an L8 tile, two tokens per query
 *   add_products(&acc, v, q)         adds the products of int16 pairs, in place
 *   SCORES_Q                         queries that share a line of K
 *   WIDE                             many queries go by attn_wide.h */
#ifndef QUANT_X86_ATTN_YMM_H
#define QUANT_X86_ATTN_YMM_H

#include "quant/x86/attn_body.h"
#include "quant/x86/attn_wide.h"
#include "quant/x86/lat_body.h"

/* Eight positions (group, w at their half), Q queries from m0. */
Q_INLINE void scores(const int Q, float *s, size_t lds, const uint8_t *group, int half,
                     const q_acts *q2, int m0, float scale)
{
    const size_t stride = (size_t)q2->M;
    const int8_t *q = q2->q + 128 * (size_t)m0;
    const float *d = q2->d + 2 * (size_t)m0;
    const int32_t *nsum = q2->nsum + 8 * (size_t)m0;
    const uint8_t *w = group + 64;
    __m256 f[SCORES_Q];
    Q_UNROLL
    for (int j = 0; j < Q; j++) f[j] = _mm256_setzero_ps();
    for (int t = 0; t < q2->kt; t++) {
        __m256 v[2 * SCORES_Q];
        score_tile(Q, v, (const int8_t *)w + 8 * half, w + 64 + 32 * half, q, nsum);
        Q_UNROLL
        for (int j = 0; j < Q; j++) {
            f[j] = _mm256_fmadd_ps(_mm256_set1_ps(d[2 * j]), v[2 * j], f[j]);
            f[j] = _mm256_fmadd_ps(_mm256_set1_ps(d[2 * j + 1]), v[2 * j + 1], f[j]);
        }
        w += 64 + plane_bytes(Q_L8);
        q += 64 * stride;
        nsum += 4 * stride;
        d += stride;
    }
    const __m256 rs = _mm256_load_ps((const float *)group + 8 * half);
    Q_UNROLL
    for (int j = 0; j < Q; j++)
        _mm256_storeu_ps(s + (size_t)j * lds + 8 * half,
                         _mm256_mul_ps(_mm256_mul_ps(rs, f[j]), _mm256_set1_ps(scale)));
}

static void attn_qk8_ymm(float *s, size_t lds, const void *kblk, int ng, const q_acts *q2, int m0,
                         int m, float scale)
{
    const size_t bytes = q_group_bytes(Q_L8, Q_TILE * q2->kt);
    const int nb = WIDE && m >= WIDE_FROM && q2->kt <= WIDE_TILES ? ng / 4 : 0; /* 64 positions */
    for (int j = 0; nb && j < m; j += WIDE_QUERIES)
        wide_scores(s + (size_t)j * lds, lds, kblk, nb, q2, m0 + j,
                    m - j < WIDE_QUERIES ? m - j : WIDE_QUERIES, scale);
    for (int g = 8 * nb; g < 2 * ng; g++) {
        const uint8_t *group = (const uint8_t *)kblk + bytes * (size_t)(g / 2);
        for (size_t i = bytes / 2 * (size_t)(g % 2); i < bytes / 2 * (size_t)(g % 2 + 1); i += 64)
            ask_ahead(group + i);
        for (int j = 0; j < m; j += SCORES_Q) {
            float *sj = s + (size_t)j * lds + 16 * (g / 2);
            const int Q = m - j < SCORES_Q ? m - j : SCORES_Q;
            switch (Q) { /* 3 and 4 only where blocks are that long */
            case 1: scores(1, sj, lds, group, g % 2, q2, m0 + j, scale); break;
            case 2: scores(2, sj, lds, group, g % 2, q2, m0 + j, scale); break;
            case 3: scores(SCORES_Q - 1, sj, lds, group, g % 2, q2, m0 + j, scale); break;
            default: scores(SCORES_Q, sj, lds, group, g % 2, q2, m0 + j, scale); break;
            }
        }
    }
}

/* ---- values ---- */

enum { PV8_Q = 4 }; /* queries that share a line of V: two accumulators each */

typedef struct pv_weights {
    int16_t q[PV8_Q][Q_TILE]; /* 254 * hi + lo */
    float d[PV8_Q];
} pv_weights;

/* Eight lanes of 16 lines, four codes each, times the 64 numbers of each query: exact sums. */
Q_INLINE void products(const int Q, __m256i z[PV8_Q], const uint8_t *line,
                       const int16_t q[PV8_Q][Q_TILE])
{
    __m256i lo[PV8_Q], hi[PV8_Q]; /* two sums for each of lanes 0..3, 4..7 */
    Q_UNROLL
    for (int j = 0; j < Q; j++) lo[j] = hi[j] = _mm256_setzero_si256();
    for (int c = 0; c < 16; c++) {
        const __m128i *p = (const __m128i *)(line + 64 * c);
        const __m256i v0 = _mm256_cvtepi8_epi16(_mm_load_si128(p));
        const __m256i v1 = _mm256_cvtepi8_epi16(_mm_load_si128(p + 1));
        Q_UNROLL
        for (int j = 0; j < Q; j++) {
            const __m256d four = _mm256_broadcast_sd((const void *)(q[j] + 4 * c));
            add_products(&lo[j], v0, _mm256_castpd_si256(four));
            add_products(&hi[j], v1, _mm256_castpd_si256(four));
        }
    }
    Q_UNROLL
    for (int j = 0; j < Q; j++) /* hadd works per 128 bits: lanes 0 1 4 5 | 2 3 6 7 */
        z[j] = _mm256_permute4x64_epi64(_mm256_hadd_epi32(lo[j], hi[j]), 0xD8);
}

/* Eight dims x 64 positions: adds to o (first: sets).  line: at these dims. */
Q_INLINE void values(const int Q, float *o, size_t ldo, const uint8_t *line, const pv_weights *w,
                     bool first, int dims)
{
    __m256i z[PV8_Q];
    products(Q, z, line, w->q);
    const __m256i some = v8_first(dims);
    Q_UNROLL
    for (int j = 0; j < Q; j++) {
        float *p = o + (size_t)j * ldo;
        const __m256 zj = _mm256_cvtepi32_ps(z[j]), d = _mm256_set1_ps(w->d[j]);
        if (dims >= 8) { /* masked stores are slow on Zen */
            const __m256 old = first ? _mm256_setzero_ps() : _mm256_loadu_ps(p);
            _mm256_storeu_ps(p, _mm256_fmadd_ps(d, zj, old));
        } else {
            const __m256 old = first ? _mm256_setzero_ps() : _mm256_maskload_ps(p, some);
            _mm256_maskstore_ps(p, some, _mm256_fmadd_ps(d, zj, old));
        }
    }
}

/* Q queries over the piece, up to the last position any of them sees. */
Q_INLINE int piece(const int Q, float *o, size_t ldo, const void *vblk, int hd, const float *e,
                   size_t lde, const int *nvis)
{
    const float *dv = vblk;
    const uint8_t *codes = (const uint8_t *)vblk + v8_codes(hd);
    const size_t tile = (size_t)(hd + 15) / 16 * 1024;
    int end = 1, bad = 0;
    for (int j = 0; j < Q; j++) end = nvis[j] > end ? nvis[j] : end;
    for (int t0 = 0; t0 < end; t0 += Q_TILE, codes += tile) {
        for (int b = 0; b < hd; b += 128) {
            pv_weights w;
            for (int j = 0; j < Q; j++)
                w.d[j] = word_weights(w.q[j], e + (size_t)j * lde + t0,
                                      dv + b / 128 * Q_PIECE + t0, nvis[j] - t0, &bad);
            for (int i = b; i < hd && i < b + 128; i += 8) {
                const uint8_t *line = codes + 1024 * (size_t)(i / 16) + 32 * (size_t)(i / 8 % 2);
                for (int c = 0; c < 8; c++) ask_ahead(line + 512 * (i / 8 % 2) + 64 * c);
                values(Q, o + i, ldo, line, &w, t0 == 0, hd - i);
            }
        }
    }
    return bad;
}

static int attn_pv8_ymm(float *o, size_t ldo, const void *vblk, int hd, const float *e, size_t lde,
                        const int *nvis, int m)
{
    int bad = 0;
    if (WIDE && m >= WIDE_FROM && hd % WIDE_LANES == 0) {
        for (int j = 0; j < m; j += WIDE_QUERIES)
            bad |= wide_values(o + (size_t)j * ldo, ldo, vblk, hd, e + (size_t)j * lde, lde,
                               nvis + j, m - j < WIDE_QUERIES ? m - j : WIDE_QUERIES);
        return bad;
    }
    for (int j = 0; j < m; j += PV8_Q) {
        float *oj = o + (size_t)j * ldo;
        const float *ej = e + (size_t)j * lde;
        switch (m - j) {
        case 1: bad |= piece(1, oj, ldo, vblk, hd, ej, lde, nvis + j); break;
        case 2: bad |= piece(2, oj, ldo, vblk, hd, ej, lde, nvis + j); break;
        case 3: bad |= piece(3, oj, ldo, vblk, hd, ej, lde, nvis + j); break;
        default: bad |= piece(4, oj, ldo, vblk, hd, ej, lde, nvis + j); break;
        }
    }
    return bad;
}

/* ---- scores of latents ---- */

enum { LAT_TILES = 32 }; /* of a query: latent and rotated dims have at most 1024 each */

/* Q queries against positions from p0 to 16 * ng. */
Q_INLINE void lat_scores(const int Q, float *s, size_t lds, const float *dc, const uint8_t *codes,
                         size_t nl, int p0, int ng, const q_acts *q2, int m0, float scale)
{
    int16_t q[LAT_TILES][PV8_Q][Q_TILE];
    for (int t = 0; t < q2->kt; t++)
        for (int j = 0; j < Q; j++) word_query(q[t][j], q2, t, m0 + j);
    for (int p = p0; p < Q_ROWS * ng; p += 8) {
        const uint8_t *line = codes + (size_t)(p / Q_ROWS) * (size_t)q2->kt * Q_ROWS * Q_TILE
                              + 4 * (size_t)(p % Q_ROWS);
        __m256 f[PV8_Q];
        Q_UNROLL
        for (int j = 0; j < Q; j++) f[j] = _mm256_setzero_ps();
        for (size_t t = 0; t < (size_t)q2->kt; t++, line += 1024) {
            __m256i z[PV8_Q];
            products(Q, z, line, q[t]);
            const size_t block = t < nl ? t / 2 : (nl + 1) / 2 + (t - nl) / 2;
            const __m256 dp = _mm256_loadu_ps(dc + block * Q_PIECE + p);
            const float *d = q2->d + t * (size_t)q2->M + 2 * (size_t)m0;
            Q_UNROLL
            for (int j = 0; j < Q; j++) {
                const __m256 g = _mm256_mul_ps(_mm256_set1_ps(d[2 * j + 1]), dp);
                f[j] = _mm256_fmadd_ps(g, _mm256_cvtepi32_ps(z[j]), f[j]);
            }
        }
        Q_UNROLL
        for (int j = 0; j < Q; j++)
            _mm256_storeu_ps(s + (size_t)j * lds + p, _mm256_mul_ps(f[j], _mm256_set1_ps(scale)));
    }
}

static void attn_qkl8_ymm(float *s, size_t lds, const void *blk, int lora, int rope, int ng,
                          const q_acts *q2, int m0, int m, float scale)
{
    const size_t nl = lat_tiles(lora);
    const uint8_t *codes = (const uint8_t *)blk + lat_codes(lora, rope);
    const int nb = WIDE && m >= WIDE_FROM ? ng / 4 : 0, p0 = WIDE_LANES * nb;
    for (int j = 0; nb && j < m; j += WIDE_QUERIES)
        wide_latents(s + (size_t)j * lds, lds, blk, codes, nl, nb, q2, m0 + j,
                     m - j < WIDE_QUERIES ? m - j : WIDE_QUERIES, scale);
    for (int j = 0; p0 < Q_ROWS * ng && j < m; j += PV8_Q) {
        float *sj = s + (size_t)j * lds;
        switch (m - j) {
        case 1: lat_scores(1, sj, lds, blk, codes, nl, p0, ng, q2, m0 + j, scale); break;
        case 2: lat_scores(2, sj, lds, blk, codes, nl, p0, ng, q2, m0 + j, scale); break;
        case 3: lat_scores(3, sj, lds, blk, codes, nl, p0, ng, q2, m0 + j, scale); break;
        default: lat_scores(4, sj, lds, blk, codes, nl, p0, ng, q2, m0 + j, scale); break;
        }
    }
}

Q_INLINE void fill_attn_ymm(q_kern *t)
{
    fill_lat(t);
    t->attn_qkl8 = attn_qkl8_ymm;
    t->attn_qk8 = attn_qk8_ymm;
    t->attn_pv8 = attn_pv8_ymm;
}

#endif
