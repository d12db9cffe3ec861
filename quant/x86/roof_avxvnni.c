/* roof_avxvnni.c - limit loop of AVX-VNNI (roof.h); reading is AVX2's. */
#include "quant/roof.h"

#if defined(__AVX2__) && defined(__AVXVNNI__)

#include <immintrin.h>

/* Twelve chains of vpdpbusd between registers: five cycles of latency times two per cycle need
 * ten, and sixteen registers hold no more than these and two operands. */
static uint64_t int8_avxvnni(uint64_t rounds, uint32_t *sink)
{
    enum { CHAINS = 12 };
    __m256i acc[CHAINS];
    volatile int seed = (int)*sink;
    const __m256i a = _mm256_set1_epi32(seed), b = _mm256_set1_epi32(seed + 0x01020304);
#pragma GCC unroll 12
    for (int j = 0; j < CHAINS; j++) acc[j] = _mm256_set1_epi32(seed + j);
    for (uint64_t r = 0; r < rounds; r++) {
#pragma GCC unroll 12
        for (int j = 0; j < CHAINS; j++) acc[j] = _mm256_dpbusd_avx_epi32(acc[j], a, b);
    }
    __m256i t = acc[0];
#pragma GCC unroll 12
    for (int j = 1; j < CHAINS; j++) t = _mm256_xor_si256(t, acc[j]);
    *sink ^= (uint32_t)_mm256_extract_epi32(t, 0);
    return rounds * CHAINS * 32;
}

bool q_roof_avxvnni(q_roof *r)
{
    r->int8 = int8_avxvnni;
    return true;
}

#else
bool q_roof_avxvnni(q_roof *r)
{
    (void)r;
    return false;
}
#endif
