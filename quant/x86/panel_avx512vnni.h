/* panel_avx512vnni.h - many tokens at once: see panel_avx512vnni.c. */
#ifndef QUANT_X86_PANEL_AVX512VNNI_H
#define QUANT_X86_PANEL_AVX512VNNI_H

#include "quant/quant.h"

enum { PANEL_MIN = 12 }; /* fewer tokens do not pay for the unpacking */

/* As q_gemm_a8_fn for a weight type and m >= PANEL_MIN tokens, of pairs for any number; tmp: Q_TMP
 * bytes, 64-aligned. */
void q_panel_avx512vnni(int type, float *y, size_t ldy, const void *w, int n, const q_acts *x,
                        int m0, int m, void *tmp);

/* Unpacks the biased codes of nt tiles of 64 k of pairs, the first of them the first half of the
 * format's tile at w; each into 1024 bytes, line = chunk, `step` bytes apart. */
typedef void q_points_avx512(int type, uint8_t *code, size_t step, const uint8_t *w, int nt);

/* The same for a type of pairs, unpacked in a given way. */
void q_pairs_avx512vnni(int type, q_points_avx512 *points, float *y, size_t ldy, const void *w,
                        int n, const q_acts *x, int m0, int m, void *tmp);

#endif
