/* attn_avx2.c - both integer products of attention (attn_ymm.h) on AVX2. */
#include "quant/table.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include "quant/x86/tile_avx2.h"

enum {
    SCORES_Q = 4, /* queries that share a line of K: two tokens each */
    WIDE = 1      /* many queries: attn_wide.h */
};

Q_INLINE void score_tile(const int Q, __m256 v[2 * SCORES_Q], const int8_t *s8, const uint8_t *p,
                         const int8_t *q, const int32_t *nsum)
{
    __m256i z[TILE_M];
    (void)nsum;
    tile_z8(Q_L8, 2 * Q, z, s8, p, q, NULL, NULL);
    Q_UNROLL
    for (int j = 0; j < 2 * Q; j++) v[j] = _mm256_cvtepi32_ps(z[j]);
}

/* Written out: in a loop gcc copies every sum to another register and back, and spills one. */
Q_INLINE void add_products(__m256i *acc, __m256i v, __m256i q)
{
    __asm__("vpaddd %1, %0, %0" : "+x"(*acc) : "x"(_mm256_madd_epi16(v, q)));
}

#include "quant/x86/attn_ymm.h"

bool q_fill_attn_avx2(q_kern *t)
{
    fill_attn(t);
    fill_attn_ymm(t);
    return true;
}

#else
bool q_fill_attn_avx2(q_kern *t)
{
    (void)t;
    return false;
}
#endif
