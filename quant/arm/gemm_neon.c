/* gemm_neon.c - integer matrices on baseline AArch64 (Cortex-A53, A72: Pi 3, Pi 4).
 *
 * The loops are those of gemm_a8.h; this file's compiler flags choose the product (tile.h). */
#include "quant/table.h"

#if defined(__aarch64__) && defined(__ARM_NEON)

#include "quant/arm/gemm_a8.h"

bool q_fill_gemm_neon(q_kern *t)
{
    t->gemm_l8 = gemm_l8;
    t->gemm_l6 = gemm_l6;
    t->gemm_n4 = gemm_n4;
    t->gemm_n4s = gemm_n4s;
    return true;
}

#else
bool q_fill_gemm_neon(q_kern *t)
{
    (void)t;
    return false;
}
#endif
