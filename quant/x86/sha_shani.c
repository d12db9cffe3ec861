/* sha_shani.c - SHA-256 with the SHA extensions of x86.
 *
 * sha256rnds2 does two rounds and wants the state as (a b e f) and (c d g h); so the eight words
 * are shuffled on the way in and on the way out.  The schedule runs four words at a time. */
#include "quant/table.h"

#if defined(__SHA__) && defined(__SSE4_1__)

#include "quant/sha256.h"

#include <immintrin.h>

static __m128i load(const void *p) { return _mm_loadu_si128((const __m128i *)p); }
static void store(void *p, __m128i v) { _mm_storeu_si128((__m128i *)p, v); }

static void sha256_shani(uint32_t h[8], const uint8_t *p, size_t nblk)
{
    const __m128i bytes = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    const __m128i abcd = _mm_shuffle_epi32(load(h), 0x1b);     /* a b c d, a highest */
    const __m128i efgh = _mm_shuffle_epi32(load(h + 4), 0x1b);
    __m128i abef = _mm_unpackhi_epi64(efgh, abcd), cdgh = _mm_unpacklo_epi64(efgh, abcd);

    for (; nblk; nblk--, p += 64) {
        const __m128i abef0 = abef, cdgh0 = cdgh;
        __m128i w[4];
        for (int i = 0; i < 4; i++) w[i] = _mm_shuffle_epi8(load(p + 16 * i), bytes);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            const __m128i kw = _mm_add_epi32(w[i & 3], load(q_sha256_k + 4 * i));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, kw);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(kw, 0x0e));
            if (i < 12) { /* words 16 + 4i ..: s0 of the next, w[-7], then s1 of the last two */
                const __m128i c = w[(i + 2) & 3], d = w[(i + 3) & 3];
                const __m128i s0 = _mm_sha256msg1_epu32(w[i & 3], w[(i + 1) & 3]);
                const __m128i t = _mm_add_epi32(s0, _mm_alignr_epi8(d, c, 4));
                w[i & 3] = _mm_sha256msg2_epu32(t, d);
            }
        }
        abef = _mm_add_epi32(abef, abef0);
        cdgh = _mm_add_epi32(cdgh, cdgh0);
    }
    store(h, _mm_shuffle_epi32(_mm_unpackhi_epi64(cdgh, abef), 0x1b));
    store(h + 4, _mm_shuffle_epi32(_mm_unpacklo_epi64(cdgh, abef), 0x1b));
}

bool q_fill_sha_shani(q_kern *t)
{
    t->sha256 = sha256_shani;
    return true;
}

#else
bool q_fill_sha_shani(q_kern *t)
{
    (void)t;
    return false;
}
#endif
