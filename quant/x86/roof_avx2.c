/* roof_avx2.c - limit loops of AVX2 (roof.h). */
#include "quant/roof.h"

#if defined(__AVX2__)

#include "quant/x86/v16.h"

/* Asks ahead as the kernels do: a bound they could beat would be none. */
static uint32_t read_avx2(const void *p, size_t n)
{
    const uint8_t *b = p;
    __m256i s[4];
    for (int j = 0; j < 4; j++) s[j] = _mm256_setzero_si256();
    for (size_t i = 0; i + 512 <= n; i += 512) {
#pragma GCC unroll 16
        for (int j = 0; j < 16; j++) {
            const uint8_t *q = b + i + 32 * (size_t)j;
            if (!(j & 1)) ask_ahead(q);
            s[j & 3] = _mm256_xor_si256(s[j & 3], _mm256_load_si256((const __m256i *)q));
        }
    }
    const __m256i t = _mm256_xor_si256(_mm256_xor_si256(s[0], s[1]), _mm256_xor_si256(s[2], s[3]));
    const __m128i u = _mm_xor_si128(_mm256_castsi256_si128(t), _mm256_extracti128_si256(t, 1));
    return (uint32_t)_mm_cvtsi128_si32(u);
}

/* Four maddubs share one madd (panel_avx2.c): 128 multiply-adds in ten instructions, the best that
 * exact products of 6 by 8 bits can do here.  The empty asm hides the operand from the optimizer,
 * which would otherwise multiply once. */
static uint64_t int8_avx2(uint64_t rounds, uint32_t *sink)
{
    enum { CHAINS = 6 };
    __m256i acc[CHAINS];
    volatile int seed = (int)*sink;
    const __m256i a = _mm256_set1_epi32(seed), b = _mm256_set1_epi32(seed + 1);
    const __m256i one = _mm256_set1_epi16(1);
    __m256i u = _mm256_set1_epi32(seed & 0x1f1f1f1f);
    for (int j = 0; j < CHAINS; j++) acc[j] = _mm256_set1_epi32(seed + j);
    for (uint64_t r = 0; r < rounds; r++) {
#pragma GCC unroll 6
        for (int j = 0; j < CHAINS; j++) {
            __m256i v = one;
#pragma GCC unroll 2
            for (int i = 0; i < 2; i++) {
                __asm__ volatile("" : "+x"(u));
                v = _mm256_add_epi16(v, _mm256_maddubs_epi16(u, a));
                v = _mm256_add_epi16(v, _mm256_maddubs_epi16(u, b));
            }
            acc[j] = _mm256_add_epi32(acc[j], _mm256_madd_epi16(v, one));
        }
    }
    __m256i t = acc[0];
    for (int j = 1; j < CHAINS; j++) t = _mm256_xor_si256(t, acc[j]);
    *sink ^= (uint32_t)_mm256_extract_epi32(t, 0);
    return rounds * CHAINS * 128;
}

bool q_roof_avx2(q_roof *r)
{
    r->read = read_avx2;
    r->int8 = int8_avx2;
    return true;
}

#else
bool q_roof_avx2(q_roof *r)
{
    (void)r;
    return false;
}
#endif
