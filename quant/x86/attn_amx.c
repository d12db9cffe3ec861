/* attn_amx.c - both integer products of attention on AMX int8, for many queries at once.
 *
 * Scores: 16 positions of K are a tile of 16 rows, unpacked as weights are (tile_amx.h); 8 queries
 * are its 16 tokens, high and low bytes.  Values: 16 dims x 64 positions of V are a B operand as
 * they lie in the cache, and the weights of 16 queries are made here as two A operands with
 * q = 256 * hi + lo.  Few queries, as in decoding, stay with attn_avx512vnni.c. */
#include "quant/table.h"

#if defined(__AMX_TILE__) && defined(__AMX_INT8__) && defined(__AVX512VNNI__)

#include "quant/x86/attn_avx512vnni.h"
#include "quant/x86/attn_body.h"
#include "quant/x86/tile_amx.h"

enum {
    SCORES_Q = 8,      /* queries of a block */
    SCORES_MIN = 16,   /* fewer do not pay for unpacking K */
    SCORES_T = 4,      /* tiles of 64 dims of a head at most, else AVX-512 */
    VALUES_Q = 16,
    VALUES_MIN = 8     /* fewer leave too much of A empty */
};

/* Scores of 8 queries from the results of all tiles of their heads. */
Q_INLINE void finish_scores(float *s, size_t lds, const amx_results *z, int kt, const float *d,
                            size_t stride, __m512 rs, __m512 scale)
{
    __m512 f[SCORES_Q];
    Q_UNROLL
    for (int j = 0; j < SCORES_Q; j++) f[j] = _mm512_setzero_ps();
    for (int t = 0; t < kt; t++, z++, d += stride) {
        Q_UNROLL
        for (int j = 0; j < SCORES_Q; j++) {
            f[j] = _mm512_fmadd_ps(_mm512_set1_ps(d[2 * j]), amx_z(z, 2 * j), f[j]);
            f[j] = _mm512_fmadd_ps(_mm512_set1_ps(d[2 * j + 1]), amx_z(z, 2 * j + 1), f[j]);
        }
    }
    Q_UNROLL
    for (int j = 0; j < SCORES_Q; j++)
        _mm512_storeu_ps(s + (size_t)j * lds, _mm512_mul_ps(_mm512_mul_ps(rs, f[j]), scale));
}

/* All tiles of one block of 8 queries. */
Q_INLINE void multiply_scores(amx_results *z, const amx_planes *k, int kt, const int8_t *q,
                              size_t step)
{
    for (int t = 0; t < kt; t += 2, q += 2 * step) {
        AMX_MULTIPLY(AMX_HI0, AMX_LO0, q, k + t);
        if (t + 1 < kt) AMX_MULTIPLY(AMX_HI1, AMX_LO1, q + step, k + t + 1);
        AMX_STORE(z + t, AMX_HI0, AMX_LO0);
        if (t + 1 < kt) AMX_STORE(z + t + 1, AMX_HI1, AMX_LO1);
    }
}

static void attn_qk8_amx(float *s, size_t lds, const void *kblk, int ng, const q_acts *q2, int m0,
                         int m, float scale)
{
    const int kt = q2->kt;
    if (m < SCORES_MIN || kt > SCORES_T) {
        q_attn_qk8_avx512vnni(s, lds, kblk, ng, q2, m0, m, scale);
        return;
    }
    _Alignas(64) amx_planes k[SCORES_T];
    _Alignas(64) amx_results z[2][SCORES_T]; /* of this block and the one before */
    const size_t bytes = q_group_bytes(Q_L8, Q_TILE * kt), stride = (size_t)q2->M;
    const __m512 scales = _mm512_set1_ps(scale);
    amx_begin();
    for (int g = 0; g < ng; g++) {
        const uint8_t *group = (const uint8_t *)kblk + bytes * (size_t)g;
        const __m512 rs = _mm512_load_ps((const float *)group);
        for (int t = 0; t < kt; t++) {
            const uint8_t *w = group + 64 + (64 + 1024) * (size_t)t;
            amx_unpack(Q_L8, &k[t], (const int8_t *)w, w + 64, NULL);
        }
        amx_fence();
        const int blocks = (m + SCORES_Q - 1) / SCORES_Q;
        int before = 0;
        for (int b = 0; b <= blocks; b++) {
            /* The last block is the last 8, some of them twice. */
            const int j = b * SCORES_Q < m - SCORES_Q ? b * SCORES_Q : m - SCORES_Q;
            if (b < blocks)
                multiply_scores(z[b & 1], k, kt, q2->q + 128 * (size_t)(m0 + j), 64 * stride);
            if (b)
                finish_scores(s + (size_t)before * lds + 16 * g, lds, z[(b - 1) & 1], kt,
                              q2->d + 2 * (size_t)(m0 + before), stride, rs, scales);
            before = j;
        }
    }
    amx_end();
}

/* ---- values ---- */

typedef struct pv_weights {
    int8_t hi[VALUES_Q][Q_TILE], lo[VALUES_Q][Q_TILE]; /* q = 256 * hi + lo */
    float d[VALUES_Q];
} pv_weights;

/* Weights of one query for 64 positions, the first n of which it sees. */
Q_INLINE void make_weights(pv_weights *w, int j, const float *e, const float *dv, int n, int *bad)
{
    v16i q[4];
    w->d[j] = whole_weights(q, e, dv, n, bad);
    Q_UNROLL
    for (int i = 0; i < 4; i++) {
        /* lo is the low byte as it is; |q| <= 32384, so hi fits one. */
        const __m512i hi = _mm512_srai_epi32(_mm512_add_epi32(q[i].v, _mm512_set1_epi32(128)), 8);
        _mm_store_si128((__m128i *)(w->hi[j] + 16 * i), _mm512_cvtepi32_epi8(hi));
        _mm_store_si128((__m128i *)(w->lo[j] + 16 * i), _mm512_cvtepi32_epi8(q[i].v));
    }
}

/* o of 16 dims += d * z for Q queries. */
Q_INLINE void add_values(float *o, size_t ldo, const amx_results *z, const pv_weights *w, int Q,
                         bool first, __mmask16 dims)
{
    for (int j = 0; j < Q; j++, o += ldo) {
        const __m512i hi = _mm512_slli_epi32(_mm512_load_si512(z->hi[j]), 8);
        const __m512i sum = _mm512_add_epi32(hi, _mm512_load_si512(z->lo[j]));
        const __m512 old = first ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(dims, o);
        const __m512 f = _mm512_fmadd_ps(_mm512_set1_ps(w->d[j]), _mm512_cvtepi32_ps(sum), old);
        _mm512_mask_storeu_ps(o, dims, f);
    }
}

/* The weights are A operands in AMX_A (high) and AMX_BH (low); code: 16 dims x 64 positions. */
#define MULTIPLY_VALUES(HI, LO, code) \
    do { \
        _tile_zero(HI); \
        _tile_zero(LO); \
        _tile_loadd(AMX_BL, code, 64); \
        _tile_dpbssd(HI, AMX_A, AMX_BL); \
        _tile_dpbssd(LO, AMX_BH, AMX_BL); \
    } while (0)

/* Dims b .. end-1 (at most 128) of 64 positions for Q queries; o and codes at dim b. */
Q_INLINE void values(float *o, size_t ldo, const uint8_t *codes, const pv_weights *w, int Q,
                     bool first, int dims, amx_results z[2])
{
    amx_fence();
    _tile_loadd(AMX_A, w->hi, 64);
    _tile_loadd(AMX_BH, w->lo, 64);
    for (int i = 0; i < dims; i += 32) {
        const bool two = i + 16 < dims;
        MULTIPLY_VALUES(AMX_HI0, AMX_LO0, codes + 64 * i);
        if (two) MULTIPLY_VALUES(AMX_HI1, AMX_LO1, codes + 64 * i + 1024);
        AMX_STORE(&z[0], AMX_HI0, AMX_LO0);
        if (two) AMX_STORE(&z[1], AMX_HI1, AMX_LO1);
        add_values(o + i, ldo, &z[0], w, Q, first, v16_first(lanes_at(i, dims)));
        if (two) add_values(o + i + 16, ldo, &z[1], w, Q, first, v16_first(lanes_at(i + 16, dims)));
    }
}

static int attn_pv8_amx(float *o, size_t ldo, const void *vblk, int hd, const float *e, size_t lde,
                        const int *nvis, int m)
{
    if (m < VALUES_MIN) return q_attn_pv8_avx512vnni(o, ldo, vblk, hd, e, lde, nvis, m);
    _Alignas(64) pv_weights w = { .d = { 0 } };
    _Alignas(64) amx_results z[2];
    const float *dv = vblk;
    const size_t tile = (size_t)(hd + 15) / 16 * 1024;
    int bad = 0;
    amx_begin();
    for (int j0 = 0; j0 < m; j0 += VALUES_Q) {
        const int Q = m - j0 < VALUES_Q ? m - j0 : VALUES_Q;
        const uint8_t *codes = (const uint8_t *)vblk + v8_codes(hd);
        int end = 1;
        for (int j = j0; j < j0 + Q; j++) end = nvis[j] > end ? nvis[j] : end;
        for (int t0 = 0; t0 < end; t0 += Q_TILE, codes += tile) {
            for (int b = 0; b < hd; b += 128) {
                for (int j = 0; j < Q; j++)
                    make_weights(&w, j, e + (size_t)(j0 + j) * lde + t0,
                                 dv + b / 128 * Q_PIECE + t0, nvis[j0 + j] - t0, &bad);
                values(o + (size_t)j0 * ldo + b, ldo, codes + 64 * (size_t)b, &w, Q, t0 == 0,
                       hd - b < 128 ? hd - b : 128, z);
            }
        }
    }
    amx_end();
    return bad;
}

bool q_fill_attn_amx(q_kern *t)
{
    t->attn_qk8 = attn_qk8_amx;
    t->attn_pv8 = attn_pv8_amx;
    return true;
}

#else
bool q_fill_attn_amx(q_kern *t)
{
    (void)t;
    return false;
}
#endif
