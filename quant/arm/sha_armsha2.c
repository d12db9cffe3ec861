/* sha_armsha2.c - SHA-256 with the cryptographic extension of Armv8. */
#include "quant/table.h"

#if defined(__aarch64__) && (defined(__ARM_FEATURE_SHA2) || defined(__ARM_FEATURE_CRYPTO))

#include "quant/sha256.h"

#include <arm_neon.h>

static void sha256_armsha2(uint32_t h[8], const uint8_t *p, size_t nblk)
{
    uint32x4_t abcd = vld1q_u32(h), efgh = vld1q_u32(h + 4);
    for (; nblk; nblk--, p += 64) {
        const uint32x4_t abcd0 = abcd, efgh0 = efgh;
        uint32x4_t w[4];
        for (int i = 0; i < 4; i++) w[i] = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(p + 16 * i)));
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            const uint32x4_t kw = vaddq_u32(w[i & 3], vld1q_u32(q_sha256_k + 4 * i));
            const uint32x4_t old = abcd;
            abcd = vsha256hq_u32(abcd, efgh, kw);
            efgh = vsha256h2q_u32(efgh, old, kw);
            if (i < 12) { /* the slot just used takes words 16 + 4i .. */
                const uint32x4_t t = vsha256su0q_u32(w[i & 3], w[(i + 1) & 3]);
                w[i & 3] = vsha256su1q_u32(t, w[(i + 2) & 3], w[(i + 3) & 3]);
            }
        }
        abcd = vaddq_u32(abcd, abcd0);
        efgh = vaddq_u32(efgh, efgh0);
    }
    vst1q_u32(h, abcd);
    vst1q_u32(h + 4, efgh);
}

bool q_fill_sha_armsha2(q_kern *t)
{
    t->sha256 = sha256_armsha2;
    return true;
}

#else
bool q_fill_sha_armsha2(q_kern *t)
{
    (void)t;
    return false;
}
#endif
