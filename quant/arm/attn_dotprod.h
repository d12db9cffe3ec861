/* attn_dotprod.h - the integer products of attention, for the level above: see attn_dotprod.c. */
#ifndef QUANT_ARM_ATTN_DOTPROD_H
#define QUANT_ARM_ATTN_DOTPROD_H

#include "quant/quant.h"

q_attn_qk8_fn q_attn_qk8_dotprod;
q_attn_qkl8_fn q_attn_qkl8_dotprod;
q_attn_pv8_fn q_attn_pv8_dotprod;

#endif
