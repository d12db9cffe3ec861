/* gemm_neon.c - integer matrices on baseline AArch64 (Cortex-A53, A72: Pi 3, Pi 4).
 *
 * The loops are those of gemm_a8.h; this file's compiler flags choose the product (tile.h). */
#include "quant/table.h"

#if defined(__aarch64__) && defined(__ARM_NEON)

#include "quant/arm/gemm_a8.h"

static void gemm_l8_a8_16x8_neon(float *y, size_t ldy, const void *w, int n, const q_acts *x,
                                 int m0, int m, void *tmp)
{
    gemm_a8(Q_L8, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_l6_a8_16x8_neon(float *y, size_t ldy, const void *w, int n, const q_acts *x,
                                 int m0, int m, void *tmp)
{
    gemm_a8(Q_L6, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_n5_a8_16x8_neon(float *y, size_t ldy, const void *w, int n, const q_acts *x,
                                 int m0, int m, void *tmp)
{
    gemm_a8(Q_N5, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_n4_a8_16x8_neon(float *y, size_t ldy, const void *w, int n, const q_acts *x,
                                 int m0, int m, void *tmp)
{
    gemm_a8(Q_N4, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_n4s_a8_16x8_neon(float *y, size_t ldy, const void *w, int n, const q_acts *x,
                                  int m0, int m, void *tmp)
{
    gemm_a8(Q_N4S, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_p6_a8_16x8_neon(float *y, size_t ldy, const void *w, int n, const q_acts *x,
                                 int m0, int m, void *tmp)
{
    gemm_a8(Q_P6, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_p5_a8_16x8_neon(float *y, size_t ldy, const void *w, int n, const q_acts *x,
                                 int m0, int m, void *tmp)
{
    gemm_a8(Q_P5, y, ldy, w, n, x, m0, m, tmp);
}

bool q_fill_gemm_neon(q_kern *t)
{
    t->gemm_l8 = gemm_l8_a8_16x8_neon;
    t->gemm_l6 = gemm_l6_a8_16x8_neon;
    t->gemm_n5 = gemm_n5_a8_16x8_neon;
    t->gemm_n4 = gemm_n4_a8_16x8_neon;
    t->gemm_n4s = gemm_n4s_a8_16x8_neon;
    t->gemm_p6 = gemm_p6_a8_16x8_neon;
    t->gemm_p5 = gemm_p5_a8_16x8_neon;
    return true;
}

#else
bool q_fill_gemm_neon(q_kern *t)
{
    (void)t;
    return false;
}
#endif
