/* gemm_dotprod.c - integer matrices on cores with sdot (Cortex-A76, Apple A11 and later).
 *
 * The loops are those of gemm_a8.h; this file's compiler flags choose the product (tile.h). */
#include "quant/table.h"

#if defined(__aarch64__) && defined(__ARM_NEON) && defined(__ARM_FEATURE_DOTPROD)

#include "quant/arm/gemm_a8.h"

static void gemm_l8_a8_16x8_dotprod(float *y, size_t ldy, const void *w, int n, const q_acts *x,
                                    int m0, int m, void *tmp)
{
    gemm_a8(Q_L8, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_l6_a8_16x8_dotprod(float *y, size_t ldy, const void *w, int n, const q_acts *x,
                                    int m0, int m, void *tmp)
{
    gemm_a8(Q_L6, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_n5_a8_16x8_dotprod(float *y, size_t ldy, const void *w, int n, const q_acts *x,
                                    int m0, int m, void *tmp)
{
    gemm_a8(Q_N5, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_n4_a8_16x8_dotprod(float *y, size_t ldy, const void *w, int n, const q_acts *x,
                                    int m0, int m, void *tmp)
{
    gemm_a8(Q_N4, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_n4s_a8_16x8_dotprod(float *y, size_t ldy, const void *w, int n, const q_acts *x,
                                     int m0, int m, void *tmp)
{
    gemm_a8(Q_N4S, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_p6_a8_16x8_dotprod(float *y, size_t ldy, const void *w, int n, const q_acts *x,
                                    int m0, int m, void *tmp)
{
    gemm_a8(Q_P6, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_p5_a8_16x8_dotprod(float *y, size_t ldy, const void *w, int n, const q_acts *x,
                                    int m0, int m, void *tmp)
{
    gemm_a8(Q_P5, y, ldy, w, n, x, m0, m, tmp);
}

bool q_fill_gemm_dotprod(q_kern *t)
{
    t->gemm_l8 = gemm_l8_a8_16x8_dotprod;
    t->gemm_l6 = gemm_l6_a8_16x8_dotprod;
    t->gemm_n5 = gemm_n5_a8_16x8_dotprod;
    t->gemm_n4 = gemm_n4_a8_16x8_dotprod;
    t->gemm_n4s = gemm_n4s_a8_16x8_dotprod;
    t->gemm_p6 = gemm_p6_a8_16x8_dotprod;
    t->gemm_p5 = gemm_p5_a8_16x8_dotprod;
    return true;
}

#else
bool q_fill_gemm_dotprod(q_kern *t)
{
    (void)t;
    return false;
}
#endif
