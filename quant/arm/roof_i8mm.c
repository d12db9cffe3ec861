/* roof_i8mm.c - the int8 limit of cores with smmla (roof.h). */
#include "quant/roof.h"

#if defined(__aarch64__) && defined(__ARM_FEATURE_MATMUL_INT8)

#include <arm_neon.h>

static uint64_t int8_i8mm(uint64_t rounds, uint32_t *sink)
{
    enum { CHAINS = 16 };
    int32x4_t acc[CHAINS];
    volatile int seed = (int)*sink;
    const int8x16_t a = vdupq_n_s8((int8_t)seed), b = vdupq_n_s8((int8_t)(seed + 1));
    for (int j = 0; j < CHAINS; j++) acc[j] = vdupq_n_s32(seed + j);
    for (uint64_t r = 0; r < rounds; r++) {
#pragma GCC unroll 16
        for (int j = 0; j < CHAINS; j++) acc[j] = vmmlaq_s32(acc[j], a, b);
    }
    int32x4_t t = acc[0];
    for (int j = 1; j < CHAINS; j++) t = veorq_s32(t, acc[j]);
    *sink ^= (uint32_t)vgetq_lane_s32(t, 0);
    return rounds * CHAINS * 32;
}

bool q_roof_i8mm(q_roof *r)
{
    r->int8 = int8_i8mm;
    return true;
}

#else
bool q_roof_i8mm(q_roof *r)
{
    (void)r;
    return false;
}
#endif
