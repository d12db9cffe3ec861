/* gemm_avx512vnni.h - for the level above it: see gemm_avx512vnni.c. */
#ifndef QUANT_X86_GEMM_AVX512VNNI_H
#define QUANT_X86_GEMM_AVX512VNNI_H

#include "quant/quant.h"

/* As q_gemm_a8_fn for an integer weight type. */
void q_gemm_avx512vnni(int type, float *y, size_t ldy, const void *w, int n, const q_acts *x,
                       int m0, int m, void *tmp);

#endif
