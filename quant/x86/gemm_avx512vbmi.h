/* gemm_avx512vbmi.h - what AMX builds upon: see gemm_avx512vbmi.c. */
#ifndef QUANT_X86_GEMM_AVX512VBMI_H
#define QUANT_X86_GEMM_AVX512VBMI_H

#include "quant/x86/panel_avx512vnni.h"

/* The kernel of a type of pairs: q_gemm_a8_fn. */
void q_gemm_avx512vbmi(int type, float *y, size_t ldy, const void *w, int n, const q_acts *x,
                       int m0, int m, void *tmp);

/* See q_points_avx512. */
void q_points_avx512vbmi(int type, uint8_t *code, size_t step, const uint8_t *w, int nt);

#endif
