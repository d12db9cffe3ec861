/* panel_avxvnni.h - many tokens at once: see panel_avxvnni.c. */
#ifndef QUANT_X86_PANEL_AVXVNNI_H
#define QUANT_X86_PANEL_AVXVNNI_H

#include "quant/quant.h"

enum { PANEL_MIN = 12 }; /* fewer tokens do not pay for the unpacking */

/* As q_gemm_a8_fn for any quantised type and m >= PANEL_MIN tokens, of pairs for any number; tmp:
 * Q_TMP bytes, 64-aligned. */
void q_panel_avxvnni(int type, float *y, size_t ldy, const void *w, int n, const q_acts *x, int m0,
                     int m, void *tmp);

#endif
