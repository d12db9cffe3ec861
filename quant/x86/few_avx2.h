/* few_avx2.h - a few tokens times many rows: see few_avx2.c. */
#ifndef QUANT_X86_FEW_AVX2_H
#define QUANT_X86_FEW_AVX2_H

#include "quant/quant.h"

enum {
    FEW_MIN = 6, FEW_M = 8, /* tokens; with fewer memory is the limit */
    FEW_ROWS = 49           /* fewer do not pay for spreading the activations */
};

/* As q_gemm_a8_fn for N4 and N4s, FEW_MIN <= m <= FEW_M tokens and any n; tmp: Q_TMP bytes,
 * 64-aligned. */
void q_few_avx2(int type, float *y, size_t ldy, const void *w, int n, const q_acts *x, int m0,
                int m, void *tmp);

#endif
