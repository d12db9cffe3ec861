/* enc_avx512vnni.c - the encoder (enc_body.h) on AVX-512: 16 lanes are one register. */
#include "quant/table.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && \
    defined(__AVX512DQ__) && defined(__AVX512VNNI__)

#include "quant/x86/enc_v16.h"
#include "quant/enc_body.h"

bool q_fill_enc_avx512vnni(q_kern *t)
{
    fill_enc(t);
    return true;
}

#else
bool q_fill_enc_avx512vnni(q_kern *t)
{
    (void)t;
    return false;
}
#endif
