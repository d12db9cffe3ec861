/* roof_neon.c - limit loops of plain NEON (roof.h): reads, and smlal for cores without dotprod. */
#include "quant/roof.h"

#if defined(__aarch64__) && defined(__ARM_NEON)

#include <arm_neon.h>

static uint32_t read_neon(const void *p, size_t n)
{
    const uint8_t *b = p;
    uint8x16_t s[8];
    for (int j = 0; j < 8; j++) s[j] = vdupq_n_u8(0);
    for (size_t i = 0; i + 512 <= n; i += 512) {
#pragma GCC unroll 32
        for (int j = 0; j < 32; j++)
            s[j & 7] = veorq_u8(s[j & 7], vld1q_u8(b + i + 16 * (size_t)j));
    }
    uint8x16_t t = s[0];
    for (int j = 1; j < 8; j++) t = veorq_u8(t, s[j]);
    return vgetq_lane_u32(vreinterpretq_u32_u8(t), 0);
}

static uint64_t int8_neon(uint64_t rounds, uint32_t *sink)
{
    enum { CHAINS = 16 };
    int16x8_t acc[CHAINS];
    volatile int seed = (int)*sink;
    const int8x8_t a = vdup_n_s8((int8_t)seed), b = vdup_n_s8((int8_t)(seed + 1));
    for (int j = 0; j < CHAINS; j++) acc[j] = vdupq_n_s16((int16_t)(seed + j));
    for (uint64_t r = 0; r < rounds; r++) {
#pragma GCC unroll 16
        for (int j = 0; j < CHAINS; j++) acc[j] = vmlal_s8(acc[j], a, b);
    }
    int16x8_t t = acc[0];
    for (int j = 1; j < CHAINS; j++) t = veorq_s16(t, acc[j]);
    *sink ^= (uint32_t)vgetq_lane_s32(vreinterpretq_s32_s16(t), 0);
    return rounds * CHAINS * 8;
}

bool q_roof_neon(q_roof *r)
{
    r->read = read_neon;
    r->int8 = int8_neon;
    return true;
}

#else
bool q_roof_neon(q_roof *r)
{
    (void)r;
    return false;
}
#endif
