/* ref.h - the parts of the reference table; private to quant/. */
#ifndef QUANT_REF_H
#define QUANT_REF_H

#include "quant/quant.h"

void q_ref_gemm(q_kern *t);
void q_ref_attn(q_kern *t);
void q_ref_mla(q_kern *t);
void q_ref_encode(q_kern *t);

/* Two-byte quantisation of 64 values: returns d (the scale of lo; hi has 254 * d),
 * q = 254 * hi + lo.  *bad is set when a value is not finite. */
float q_ref_two_bytes(int16_t q[Q_TILE], const float *x, int *bad);
/* The high byte of q; lo = q - 254 * hi. */
static inline int q_high_byte(int q) { return (q + 32639) / 254 - 128; }

#endif
