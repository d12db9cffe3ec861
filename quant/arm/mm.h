/* mm.h - lines of T16 as smmla wants them: two lines zipped by words are 2 rows x 8 k. */
#ifndef QUANT_ARM_MM_H
#define QUANT_ARM_MM_H

#include "quant/arm/neon.h"

typedef struct rows2 { int8x16_t k0[2], k8[2]; } rows2; /* [rows 0,1 | rows 2,3]: k 0..7, k 8..15 */

INLINE int8x16_t zip_lo(int8x16_t a, int8x16_t b)
{
    return vreinterpretq_s8_s32(vzip1q_s32(vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b)));
}

INLINE int8x16_t zip_hi(int8x16_t a, int8x16_t b)
{
    return vreinterpretq_s8_s32(vzip2q_s32(vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b)));
}

INLINE rows2 pair_rows(const int8x16_t w[4])
{
    rows2 p;
    p.k0[0] = zip_lo(w[0], w[1]);
    p.k0[1] = zip_hi(w[0], w[1]);
    p.k8[0] = zip_lo(w[2], w[3]);
    p.k8[1] = zip_hi(w[2], w[3]);
    return p;
}

#endif
