/* gemm_avx512vbmi.c - matrices of pairs (P6, P5) where AVX-512 has VBMI: Ice Lake, Zen 4 and later.
 *
 * vpermb looks a table of 64 bytes up at once: one per coordinate, where tables of 16 take four
 * lookups and three joins.  With that, unpacking is no longer most of the work.  One token unpacks
 * and multiplies in registers; more go through the panel of panel_avx512vnni.c. */
#include "quant/table.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && \
    defined(__AVX512DQ__) && defined(__AVX512VNNI__) && defined(__AVX512VBMI__)

#include "quant/x86/gemm_avx512vbmi.h"
#include "quant/x86/tile_avx512vnni.h"

/* Coordinates of the points, biased.  P5 has its 32 twice: bits above a number do not matter. */
typedef struct points { __m512i x, y; } points;

Q_INLINE points points_of(const int type)
{
    const __m512i bias = _mm512_set1_epi8(32);
    if (type == Q_P6)
        return (points){ _mm512_add_epi8(_mm512_loadu_si512(q_points_p6[0]), bias),
                         _mm512_add_epi8(_mm512_loadu_si512(q_points_p6[1]), bias) };
    const __m256i x = _mm256_loadu_si256((const __m256i *)q_points_p5[0]);
    const __m256i y = _mm256_loadu_si256((const __m256i *)q_points_p5[1]);
    return (points){ _mm512_add_epi8(_mm512_broadcast_i64x4(x), bias),
                     _mm512_add_epi8(_mm512_broadcast_i64x4(y), bias) };
}

Q_INLINE void unpack_points(const int type, uint8_t *code, size_t step, const uint8_t *w, int nt)
{
    const points g = points_of(type);
    for (int t = 0; t < nt; t++, code += step) {
        const uint8_t *planes = w + tile_at(type, t) + 64 + plane_bytes(type) * (t & 1);
        ask_tile(type, planes);
        Q_UNROLL
        for (int j = 0; j < 8; j++) {
            const __m512i at = point_index(type, planes, j);
            store_points(code, j, _mm512_permutexvar_epi8(at, g.x),
                         _mm512_permutexvar_epi8(at, g.y));
        }
    }
}

void q_points_avx512vbmi(int type, uint8_t *code, size_t step, const uint8_t *w, int nt)
{
    if (type == Q_P6) unpack_points(Q_P6, code, step, w, nt);
    else unpack_points(Q_P5, code, step, w, nt);
}

/* acc += 4 k of 16 rows times a token's. */
Q_INLINE __m512i dot(__m512i acc, __m512i w, const int8_t *q)
{
    int32_t a;
    __builtin_memcpy(&a, q, sizeof a);
    return _mm512_dpbusd_epi32(acc, w, _mm512_set1_epi32(a));
}

/* One row group, token m0. */
Q_INLINE void group_1(const int type, float *y, const uint8_t *w, const q_acts *x, int m0,
                      __mmask16 rows)
{
    const points g = points_of(type);
    const size_t stride = (size_t)x->M;
    const int8_t *q = x->q + 64 * (size_t)m0;
    const int32_t *nsum = x->nsum + 4 * (size_t)m0;
    const float *d = x->d + m0;
    const __m512 scale = _mm512_load_ps((const float *)w);
    __m512 f = _mm512_setzero_ps();
    w += 64;
    for (int t = 0; t < x->kt; t += 2) {
        const int8_t *s8 = (const int8_t *)w;
        w += 64;
        for (int h = 0, nh = opaque(2); h < nh; h++) {
            __m512i z = _mm512_setzero_si512();
            ask_tile(type, w);
            Q_UNROLL
            for (int b = 0; b < 2; b++) { /* sub-blocks of 32 k */
                __m512i acc = _mm512_set1_epi32((nsum[2 * b] + nsum[2 * b + 1]) * 32);
                Q_UNROLL
                for (int j = 4 * b; j < 4 * b + 4; j++) {
                    const __m512i at = point_index(type, w, j);
                    const __m512i u = _mm512_permutexvar_epi8(at, g.x);
                    const __m512i v = _mm512_permutexvar_epi8(at, g.y);
                    acc = dot(acc, _mm512_unpacklo_epi8(u, v), q + 8 * j);
                    acc = dot(acc, _mm512_unpackhi_epi8(u, v), q + 8 * j + 4);
                }
                const __m128i *e = (const __m128i *)(s8 + 16 * b);
                const __m512i scales = _mm512_cvtepi8_epi32(_mm_load_si128(e));
                z = _mm512_add_epi32(z, _mm512_mullo_epi32(acc, scales));
            }
            f = _mm512_fmadd_ps(_mm512_set1_ps(*d), _mm512_cvtepi32_ps(z), f);
            s8 += 32;
            w += plane_bytes(type);
            q += 64 * stride;
            nsum += 4 * stride;
            d += stride;
        }
    }
    _mm512_mask_storeu_ps(y, rows, _mm512_mul_ps(scale, f));
}

Q_INLINE void gemm_1(const int type, float *y, const void *w, int n, const q_acts *x, int m0)
{
    const size_t bytes = q_group_bytes(type, Q_TILE * x->kt);
    for (int g = 0; 16 * g < n; g++)
        group_1(type, y + 16 * g, (const uint8_t *)w + bytes * (size_t)g, x, m0,
                n - 16 * g >= 16 ? (__mmask16)0xffff : v16_first(n - 16 * g));
}

void q_gemm_avx512vbmi(int type, float *y, size_t ldy, const void *w, int n, const q_acts *x,
                       int m0, int m, void *tmp)
{
    if (m != 1) q_pairs_avx512vnni(type, q_points_avx512vbmi, y, ldy, w, n, x, m0, m, tmp);
    else if (type == Q_P6) gemm_1(Q_P6, y, w, n, x, m0);
    else gemm_1(Q_P5, y, w, n, x, m0);
}

static void gemm_p6_avx512vbmi(float *y, size_t ldy, const void *w, int n, const q_acts *x,
                               int m0, int m, void *tmp)
{
    q_gemm_avx512vbmi(Q_P6, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_p5_avx512vbmi(float *y, size_t ldy, const void *w, int n, const q_acts *x,
                               int m0, int m, void *tmp)
{
    q_gemm_avx512vbmi(Q_P5, y, ldy, w, n, x, m0, m, tmp);
}

bool q_fill_gemm_avx512vbmi(q_kern *t)
{
    t->gemm_p6 = gemm_p6_avx512vbmi;
    t->gemm_p5 = gemm_p5_avx512vbmi;
    return true;
}

#else
bool q_fill_gemm_avx512vbmi(q_kern *t)
{
    (void)t;
    return false;
}
#endif
