/* roof_avx512vnni.c - limit loops of AVX-512 VNNI (roof.h). */
#include "quant/roof.h"

#if defined(__AVX512F__) && defined(__AVX512VNNI__)

#include "quant/x86/v16.h"

/* Asks ahead as the kernels do: a bound they could beat would be none. */
static uint32_t read_avx512(const void *p, size_t n)
{
    const uint8_t *b = p;
    __m512i s[4];
    for (int j = 0; j < 4; j++) s[j] = _mm512_setzero_si512();
    for (size_t i = 0; i + 512 <= n; i += 512) {
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) {
            const uint8_t *q = b + i + 64 * (size_t)j;
            ask_ahead(q);
            s[j & 3] = _mm512_xor_si512(s[j & 3], _mm512_load_si512(q));
        }
    }
    const __m512i t = _mm512_xor_si512(_mm512_xor_si512(s[0], s[1]), _mm512_xor_si512(s[2], s[3]));
    return (uint32_t)_mm512_reduce_add_epi32(t);
}

/* Sixteen chains of vpdpbusd between registers: five cycles of latency times two per cycle need
 * ten. */
static uint64_t int8_vnni(uint64_t rounds, uint32_t *sink)
{
    enum { CHAINS = 16 };
    __m512i acc[CHAINS];
    volatile int seed = (int)*sink;
    const __m512i a = _mm512_set1_epi32(seed), b = _mm512_set1_epi32(seed + 0x01020304);
#pragma GCC unroll 16
    for (int j = 0; j < CHAINS; j++) acc[j] = _mm512_set1_epi32(seed + j);
    for (uint64_t r = 0; r < rounds; r++) {
#pragma GCC unroll 16
        for (int j = 0; j < CHAINS; j++) acc[j] = _mm512_dpbusd_epi32(acc[j], a, b);
    }
    __m512i t = acc[0];
#pragma GCC unroll 16
    for (int j = 1; j < CHAINS; j++) t = _mm512_xor_si512(t, acc[j]);
    *sink ^= (uint32_t)_mm512_reduce_add_epi32(t);
    return rounds * CHAINS * 64;
}

bool q_roof_avx512vnni(q_roof *r)
{
    r->read = read_avx512;
    r->int8 = int8_vnni;
    return true;
}

#else
bool q_roof_avx512vnni(q_roof *r)
{
    (void)r;
    return false;
}
#endif
