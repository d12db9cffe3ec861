/* table.h - the fillers of q_kern, one per CPU level; private to quant/.
 *
 * A filler overwrites the entries it has better kernels for and returns true; built without its
 * ISA it is a stub that returns false.  q_kern_make calls ref, then each allowed level in rising
 * order, so a level inherits what it does not replace. */
#ifndef QUANT_TABLE_H
#define QUANT_TABLE_H

#include "quant/quant.h"

bool q_fill_ref(q_kern *t);
/* x86/ */
bool q_fill_gemm_avx2(q_kern *t);
bool q_fill_attn_avx2(q_kern *t);
bool q_fill_vec_avx2(q_kern *t);
bool q_fill_enc_avx2(q_kern *t);
bool q_fill_gemm_avxvnni(q_kern *t);
bool q_fill_attn_avxvnni(q_kern *t);
bool q_fill_gemm_avx512vnni(q_kern *t);
bool q_fill_attn_avx512vnni(q_kern *t);
bool q_fill_vec_avx512vnni(q_kern *t);
bool q_fill_enc_avx512vnni(q_kern *t);
bool q_fill_gemm_avx512vbmi(q_kern *t);
bool q_fill_gemm_amx(q_kern *t);
bool q_fill_attn_amx(q_kern *t);
bool q_fill_sha_shani(q_kern *t);
/* arm/ */
bool q_fill_vec_neon(q_kern *t);
bool q_fill_gemmf_neon(q_kern *t);
bool q_fill_gemm_neon(q_kern *t);
bool q_fill_attn_neon(q_kern *t);
bool q_fill_enc_neon(q_kern *t);
bool q_fill_gemm_dotprod(q_kern *t);
bool q_fill_attn_dotprod(q_kern *t);
bool q_fill_gemm_i8mm(q_kern *t);
bool q_fill_attn_i8mm(q_kern *t);
bool q_fill_sha_armsha2(q_kern *t);

/* Speed of the many-token products of `fast` over those of `base`; 0 if it cannot be measured.
 * Takes about a millisecond. */
float q_probe_gain(const q_kern *base, const q_kern *fast);

#endif
