/* attn_dotprod.c - the integer products of attention on cores with sdot.
 *
 * The loops are those of attn_a8.h; this file's compiler flags choose the product (tile.h). */
#include "quant/table.h"

#if defined(__aarch64__) && defined(__ARM_NEON) && defined(__ARM_FEATURE_DOTPROD)

#include "quant/arm/attn_a8.h"
#include "quant/arm/attn_dotprod.h"

static void attn_qk8_dotprod(float *s, size_t lds, const void *kblk, int ng, const q_acts *q2,
                             int m0, int m, float scale)
{
    attn_qk8(s, lds, kblk, ng, q2, m0, m, scale);
}

static int attn_pv8_dotprod(float *o, size_t ldo, const void *vblk, int hd, const float *e,
                            size_t lde, const int *nvis, int m)
{
    return attn_pv8(o, ldo, vblk, hd, e, lde, nvis, m);
}

static void attn_qkl8_dotprod(float *s, size_t lds, const void *blk, int lora, int rope, int ng,
                              const q_acts *q2, int m0, int m, float scale)
{
    attn_qkl8(s, lds, blk, lora, rope, ng, q2, m0, m, scale);
}

void q_attn_qk8_dotprod(float *s, size_t lds, const void *kblk, int ng, const q_acts *q2, int m0,
                        int m, float scale)
{
    attn_qk8_dotprod(s, lds, kblk, ng, q2, m0, m, scale);
}

int q_attn_pv8_dotprod(float *o, size_t ldo, const void *vblk, int hd, const float *e, size_t lde,
                       const int *nvis, int m)
{
    return attn_pv8_dotprod(o, ldo, vblk, hd, e, lde, nvis, m);
}

void q_attn_qkl8_dotprod(float *s, size_t lds, const void *blk, int lora, int rope, int ng,
                         const q_acts *q2, int m0, int m, float scale)
{
    attn_qkl8_dotprod(s, lds, blk, lora, rope, ng, q2, m0, m, scale);
}

bool q_fill_attn_dotprod(q_kern *t)
{
    t->attn_qkl8 = attn_qkl8_dotprod;
    t->attn_qk8 = attn_qk8_dotprod;
    t->attn_pv8 = attn_pv8_dotprod;
    return true;
}

#else
bool q_fill_attn_dotprod(q_kern *t)
{
    (void)t;
    return false;
}
#endif
