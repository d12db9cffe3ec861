/* attn_avxvnni.c - both integer products of attention (attn_ymm.h) on AVX-VNNI. */
#include "quant/table.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__) && defined(__AVXVNNI__)

#include "quant/x86/tile_avxvnni.h"

enum {
    SCORES_Q = BLOCK_M / 2, /* queries that share a line of K: two tokens each */
    WIDE = 0                /* its products wait for their port, not for instructions */
};

Q_INLINE void score_tile(const int Q, __m256 v[2 * SCORES_Q], const int8_t *s8, const uint8_t *p,
                         const int8_t *q, const int32_t *nsum)
{
    const tile_src src = { NULL, s8, p, NULL };
    int32_t start[4 * BLOCK_M] __attribute__((aligned(16)));
    Q_UNROLL
    for (int j = 0; j < 2 * Q; j++) make_start(Q_L8, start + 4 * j, nsum + 4 * j);
    tile_f8(Q_L8, false, 2 * Q, v, &src, q, start);
}

Q_INLINE void add_products(__m256i *acc, __m256i v, __m256i q)
{
    *acc = _mm256_dpwssd_avx_epi32(*acc, v, q);
    __asm__("" : "+x"(*acc)); /* keep the order: gcc would sum in a tree and spill */
}

#include "quant/x86/attn_ymm.h"

bool q_fill_attn_avxvnni(q_kern *t)
{
    fill_attn_ymm(t);
    return true;
}

#else
bool q_fill_attn_avxvnni(q_kern *t)
{
    (void)t;
    return false;
}
#endif
