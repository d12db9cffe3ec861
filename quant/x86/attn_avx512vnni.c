/* attn_avx512vnni.c - both integer products of attention on AVX-512 VNNI.
 *
 * Scores are the L8 weight product with positions as rows and each query as two tokens (high and
 * low byte): tile_z does it.  Values have 16 dims as the rows of a line and 4 positions in a lane,
 * so the same instruction serves; their weights are made here, per query and 64 positions. */
#include "quant/table.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && \
    defined(__AVX512DQ__) && defined(__AVX512VNNI__)

#include "quant/x86/attn_avx512vnni.h"
#include "quant/x86/attn_body.h"
#include "quant/x86/lat_body.h"
#include "quant/x86/tile_avx512vnni.h"

/* Sixteen positions, Q queries from m0. */
Q_INLINE void scores(const int Q, float *s, size_t lds, const uint8_t *group, const q_acts *q2,
                     int m0, float scale)
{
    const size_t stride = (size_t)q2->M;
    const int8_t *q = q2->q + 128 * (size_t)m0;
    const int32_t *nsum = q2->nsum + 8 * (size_t)m0;
    const float *d = q2->d + 2 * (size_t)m0;
    const uint8_t *w = group + 64;
    __m512 f[TILE_M / 2];
    Q_UNROLL
    for (int j = 0; j < Q; j++) f[j] = _mm512_setzero_ps();
    for (int t = 0; t < q2->kt; t++) {
        __m512i z[TILE_M];
        tile_z(Q_L8, 2 * Q, z, (const int8_t *)w, w + 64, q, nsum, NULL, false);
        Q_UNROLL
        for (int j = 0; j < Q; j++) {
            f[j] = _mm512_fmadd_ps(_mm512_set1_ps(d[2 * j]), _mm512_cvtepi32_ps(z[2 * j]), f[j]);
            f[j] = _mm512_fmadd_ps(_mm512_set1_ps(d[2 * j + 1]), _mm512_cvtepi32_ps(z[2 * j + 1]),
                                   f[j]);
        }
        w += 64 + plane_bytes(Q_L8);
        q += 64 * stride;
        nsum += 4 * stride;
        d += stride;
    }
    const __m512 rs = _mm512_load_ps((const float *)group);
    Q_UNROLL
    for (int j = 0; j < Q; j++)
        _mm512_storeu_ps(s + (size_t)j * lds,
                         _mm512_mul_ps(_mm512_mul_ps(rs, f[j]), _mm512_set1_ps(scale)));
}

static void attn_qk8_avx512vnni(float *s, size_t lds, const void *kblk, int ng, const q_acts *q2,
                                int m0, int m, float scale)
{
    const size_t bytes = q_group_bytes(Q_L8, Q_TILE * q2->kt);
    for (int g = 0; g < ng; g++) {
        const uint8_t *group = (const uint8_t *)kblk + bytes * (size_t)g;
        for (int j = 0; j < m; j += TILE_M / 2) {
            float *sj = s + (size_t)j * lds + 16 * g;
            switch (m - j) {
            case 1: scores(1, sj, lds, group, q2, m0 + j, scale); break;
            case 2: scores(2, sj, lds, group, q2, m0 + j, scale); break;
            case 3: scores(3, sj, lds, group, q2, m0 + j, scale); break;
            default: scores(4, sj, lds, group, q2, m0 + j, scale); break;
            }
        }
    }
}

/* ---- scores of latents ---- */

enum { LAT_Q = 8 }; /* queries that share a line: 16 accumulators */

/* Sixteen positions from p, Q queries from m0.  dc: scales at p, one row of 256 per block. */
Q_INLINE void lat_scores(const int Q, float *s, size_t lds, const float *dc, const uint8_t *line,
                         size_t nl, const q_acts *q2, int m0, __m512 scale)
{
    const size_t stride = (size_t)q2->M;
    const __m512i to_u8 = _mm512_set1_epi8(-128);
    const int8_t *q = q2->q + 128 * (size_t)m0;
    const int32_t *nsum = q2->nsum + 8 * (size_t)m0;
    const float *d = q2->d + 2 * (size_t)m0;
    __m512 f[LAT_Q];
    Q_UNROLL
    for (int j = 0; j < Q; j++) f[j] = _mm512_setzero_ps();
    for (size_t t = 0; t < (size_t)q2->kt; t++, line += 1024) {
        __m512i acc[2 * LAT_Q];
        Q_UNROLL
        for (int j = 0; j < 2 * Q; j++) { /* codes enter with + 128 */
            const int32_t *n = nsum + 4 * j;
            acc[j] = _mm512_set1_epi32(128 * (n[0] + n[1] + n[2] + n[3]));
        }
        for (int c = 0; c < 16; c++) {
            const __m512i v = _mm512_xor_si512(_mm512_load_si512(line + 64 * c), to_u8);
            Q_UNROLL
            for (int j = 0; j < 2 * Q; j++) {
                int32_t a;
                __builtin_memcpy(&a, q + 64 * j + 4 * c, sizeof a);
                acc[j] = _mm512_dpbusd_epi32(acc[j], v, _mm512_set1_epi32(a));
            }
        }
        const size_t block = t < nl ? t / 2 : (nl + 1) / 2 + (t - nl) / 2;
        const __m512 dp = _mm512_load_ps(dc + block * Q_PIECE);
        Q_UNROLL
        for (int j = 0; j < Q; j++) {
            const __m512i hi = _mm512_mullo_epi32(acc[2 * j], _mm512_set1_epi32(254));
            const __m512i z = _mm512_add_epi32(hi, acc[2 * j + 1]);
            const __m512 g = _mm512_mul_ps(_mm512_set1_ps(d[2 * j + 1]), dp);
            f[j] = _mm512_fmadd_ps(g, _mm512_cvtepi32_ps(z), f[j]);
        }
        q += 64 * stride;
        nsum += 4 * stride;
        d += stride;
    }
    Q_UNROLL
    for (int j = 0; j < Q; j++)
        _mm512_storeu_ps(s + (size_t)j * lds, _mm512_mul_ps(f[j], scale));
}

static void attn_qkl8_avx512vnni(float *s, size_t lds, const void *blk, int lora, int rope, int ng,
                                 const q_acts *q2, int m0, int m, float scale)
{
    const __m512 sc = _mm512_set1_ps(scale);
    const size_t nl = lat_tiles(lora);
    for (int g = 0; g < ng; g++) {
        const float *dc = (const float *)blk + Q_ROWS * g;
        const uint8_t *line = (const uint8_t *)blk + lat_codes(lora, rope)
                              + (size_t)g * (size_t)q2->kt * Q_ROWS * Q_TILE;
        for (int j = 0; j < m;) {
            float *sj = s + (size_t)j * lds + Q_ROWS * g;
            const int left = m - j;
            if (left >= 8) lat_scores(8, sj, lds, dc, line, nl, q2, m0 + j, sc), j += 8;
            else if (left >= 4) lat_scores(4, sj, lds, dc, line, nl, q2, m0 + j, sc), j += 4;
            else if (left >= 2) lat_scores(2, sj, lds, dc, line, nl, q2, m0 + j, sc), j += 2;
            else lat_scores(1, sj, lds, dc, line, nl, q2, m0 + j, sc), j += 1;
        }
    }
}

/* ---- values ---- */

enum { PV8_Q = 8 }; /* queries that share a line of V: 16 accumulators */

typedef struct pv_weights {
    int8_t q[2 * PV8_Q][Q_TILE];   /* high and low bytes of each query */
    int32_t start[2 * PV8_Q];      /* -128 * sum of q: codes enter with + 128 */
    float d[PV8_Q];
} pv_weights;

/* Sixteen dims x 64 positions: adds to o (first: sets).  |254 z_hi + z_lo| <= 263,217,152. */
Q_INLINE void values(const int Q, float *o, size_t ldo, const uint8_t *line, const pv_weights *w,
                     bool first, __mmask16 dims)
{
    const __m512i to_u8 = _mm512_set1_epi8(-128);
    __m512i acc[2 * PV8_Q];
    Q_UNROLL
    for (int j = 0; j < 2 * Q; j++) acc[j] = _mm512_set1_epi32(w->start[j]);
    for (int c = 0; c < 16; c++) {
        const __m512i v = _mm512_xor_si512(_mm512_load_si512(line + 64 * c), to_u8);
        Q_UNROLL
        for (int j = 0; j < 2 * Q; j++) {
            int32_t a;
            __builtin_memcpy(&a, w->q[j] + 4 * c, sizeof a);
            acc[j] = _mm512_dpbusd_epi32(acc[j], v, _mm512_set1_epi32(a));
        }
    }
    Q_UNROLL
    for (int j = 0; j < Q; j++) {
        const __m512i high = _mm512_mullo_epi32(acc[2 * j], _mm512_set1_epi32(254));
        const __m512i z = _mm512_add_epi32(high, acc[2 * j + 1]);
        float *p = o + (size_t)j * ldo;
        const __m512 old = first ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(dims, p);
        const __m512 sum = _mm512_fmadd_ps(_mm512_set1_ps(w->d[j]), _mm512_cvtepi32_ps(z), old);
        _mm512_mask_storeu_ps(p, dims, sum);
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
            for (int j = 0; j < Q; j++) {
                v16i q[4], hi[4], lo[4];
                int32_t nsum[8];
                w.d[j] = whole_weights(q, e + (size_t)j * lde + t0, dv + b / 128 * Q_PIECE + t0,
                                       nvis[j] - t0, &bad);
                split_bytes(hi, lo, q);
                v16i_store_tile(w.q[2 * j], nsum, hi);
                v16i_store_tile(w.q[2 * j + 1], nsum + 4, lo);
                w.start[2 * j] = 128 * (nsum[0] + nsum[1] + nsum[2] + nsum[3]);
                w.start[2 * j + 1] = 128 * (nsum[4] + nsum[5] + nsum[6] + nsum[7]);
            }
            for (int i = b; i < hd && i < b + 128; i += 16)
                values(Q, o + i, ldo, codes + 64 * (size_t)i, &w, t0 == 0,
                       v16_first(lanes_at(i, hd)));
        }
    }
    return bad;
}

static int attn_pv8_avx512vnni(float *o, size_t ldo, const void *vblk, int hd, const float *e,
                               size_t lde, const int *nvis, int m)
{
    int bad = 0;
    for (int j = 0; j < m;) {
        float *oj = o + (size_t)j * ldo;
        const float *ej = e + (size_t)j * lde;
        switch (m - j) {
        case 1: bad |= piece(1, oj, ldo, vblk, hd, ej, lde, nvis + j); j += 1; break;
        case 2: case 3: bad |= piece(2, oj, ldo, vblk, hd, ej, lde, nvis + j); j += 2; break;
        case 4: bad |= piece(4, oj, ldo, vblk, hd, ej, lde, nvis + j); j += 4; break;
        case 5: bad |= piece(5, oj, ldo, vblk, hd, ej, lde, nvis + j); j += 5; break;
        case 6: bad |= piece(6, oj, ldo, vblk, hd, ej, lde, nvis + j); j += 6; break;
        case 7: bad |= piece(7, oj, ldo, vblk, hd, ej, lde, nvis + j); j += 7; break;
        default: bad |= piece(8, oj, ldo, vblk, hd, ej, lde, nvis + j); j += 8; break;
        }
    }
    return bad;
}

void q_attn_qk8_avx512vnni(float *s, size_t lds, const void *kblk, int ng, const q_acts *q2,
                           int m0, int m, float scale)
{
    attn_qk8_avx512vnni(s, lds, kblk, ng, q2, m0, m, scale);
}

int q_attn_pv8_avx512vnni(float *o, size_t ldo, const void *vblk, int hd, const float *e,
                          size_t lde, const int *nvis, int m)
{
    return attn_pv8_avx512vnni(o, ldo, vblk, hd, e, lde, nvis, m);
}

bool q_fill_attn_avx512vnni(q_kern *t)
{
    fill_attn(t);
    t->attn_qk8 = attn_qk8_avx512vnni;
    t->attn_pv8 = attn_pv8_avx512vnni;
    fill_lat(t);
    t->attn_qkl8 = attn_qkl8_avx512vnni;
    return true;
}

#else
bool q_fill_attn_avx512vnni(q_kern *t)
{
    (void)t;
    return false;
}
#endif
