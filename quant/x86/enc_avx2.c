/* enc_avx2.c - the encoder (enc_body.h) on AVX2: 16 lanes are two registers. */
#include "quant/table.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include "quant/x86/enc_v16.h"
#include "quant/enc_body.h"

bool q_fill_enc_avx2(q_kern *t)
{
    fill_enc(t);
    return true;
}

#else
bool q_fill_enc_avx2(q_kern *t)
{
    (void)t;
    return false;
}
#endif
