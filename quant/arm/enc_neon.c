/* enc_neon.c - the encoder (enc_body.h) on AArch64: 16 lanes are four registers. */
#include "quant/table.h"

#if defined(__aarch64__) && defined(__ARM_NEON)

#include "quant/arm/enc_v16.h"
#include "quant/enc_body.h"

bool q_fill_enc_neon(q_kern *t)
{
    fill_enc(t);
    return true;
}

#else
bool q_fill_enc_neon(q_kern *t)
{
    (void)t;
    return false;
}
#endif
