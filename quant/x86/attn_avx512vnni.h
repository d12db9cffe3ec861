/* attn_avx512vnni.h - both integer products of attention, for the level above: see
 * attn_avx512vnni.c. */
#ifndef QUANT_X86_ATTN_AVX512VNNI_H
#define QUANT_X86_ATTN_AVX512VNNI_H

#include "quant/quant.h"

q_attn_qk8_fn q_attn_qk8_avx512vnni;
q_attn_pv8_fn q_attn_pv8_avx512vnni;

#endif
