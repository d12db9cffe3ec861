/* panel_avx2.h - many tokens at once: see panel_avx2.c. */
#ifndef QUANT_X86_PANEL_AVX2_H
#define QUANT_X86_PANEL_AVX2_H

#include "quant/quant.h"

enum { PANEL_MIN = 12 }; /* fewer tokens do not pay for the unpacking */

/* As q_gemm_a8_fn for any quantised type but L8 and m >= PANEL_MIN tokens, of pairs for any number;
 * tmp: Q_TMP bytes, 64-aligned. */
void q_panel_avx2(int type, float *y, size_t ldy, const void *w, int n, const q_acts *x, int m0,
                  int m, void *tmp);

/* The q_order_fn of these panels. */
void q_panel_order_avx2(const q_acts *x, int m0, int m, int t0, int nt);

#endif
