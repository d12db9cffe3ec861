/* tile.h - what the x86 tiles know about a weight type, as constants after inlining.
 *
 * Codes enter products unsigned, biased: g + 32 of N4, N4s, P6 and P5, the code of L6, g + 64 of
 * N5, g + 128 of L8; in the panels of AVX2 the activations are unsigned instead.  Unpacked, P6 and
 * P5 are N4s: codes of 6 bits, sub-scales of 32 k; so their products are its. */
#ifndef QUANT_X86_TILE_H
#define QUANT_X86_TILE_H

#include "quant/quant.h"
#include "quant/x86/v16.h"

/* The bias is 1 << this. */
Q_INLINE int bias_shift(const int type) { return type == Q_L8 ? 7 : type == Q_N5 ? 6 : 5; }

/* Bytes of the planes of 64 k. */
Q_INLINE int plane_bytes(const int type)
{
    switch (type) {
    case Q_L8: return 1024;
    case Q_L6: return 768;
    case Q_N5: return 640;
    case Q_P6: return 384;
    case Q_P5: return 320;
    default: return 512;
    }
}

/* Codes are points: pairs of weights. */
Q_INLINE bool has_pairs(const int type) { return type == Q_P6 || type == Q_P5; }

/* Tiles of 64 k in one of the format, which then has a sub-scale per 32 k. */
Q_INLINE int halves_of(const int type) { return type == Q_N4S || has_pairs(type) ? 2 : 1; }

/* Tiles of 64 k that a matrix of this type has for these activations: always whole pairs of them
 * where a tile has two. */
Q_INLINE int tiles_of(const int type, const q_acts *x)
{
    const int h = halves_of(type);
    return (x->kt + h - 1) / h * h;
}

/* Bytes from a group's first tile to its 64 k number t, an even number where a tile has two. */
Q_INLINE size_t tile_at(const int type, int t)
{
    const int h = halves_of(type);
    return (size_t)(64 + h * plane_bytes(type)) * (size_t)(t / h);
}

/* Sums of 16 k times sub-scales are exact in float, even two of them: |2 * 16 * 32 * 127 * 127| <
 * 2^24.  Larger codes need integers. */
Q_INLINE bool float_scales(const int type) { return type != Q_L8 && type != Q_N5; }

/* The planes of 64 k that one token will want soon. */
Q_INLINE void ask_tile(const int type, const uint8_t *planes)
{
    Q_UNROLL
    for (int i = -64; i < plane_bytes(type); i += 64) ask_ahead(planes + i);
}

/* Asks for some of the weights from `at` to `end`, which a panel unpacks next, and for as many
 * behind the gap if there is one; gives where to go on.  Done beside the products, tile by tile:
 * when only unpacking asked, memory waited for the products and they for memory, and 16 tokens of
 * the 1.5B took a quarter longer (AVX2, Zen 3).  A tile of 4.5 bits is nine lines, and each block
 * of tokens passes it once: with three a time, three blocks of 4 tokens have asked for all. */
enum { ASK_LINES = 3 };
Q_INLINE const uint8_t *ask_next(const uint8_t *at, const uint8_t *end, size_t gap)
{
    for (int i = 0; i < ASK_LINES && at < end; i++, at += 64) {
        _mm_prefetch((const char *)at, _MM_HINT_T1);
        if (gap) _mm_prefetch((const char *)at + gap, _MM_HINT_T1);
    }
    return at;
}

/* Where a block of nt tiles that began to ask at `at` has come. */
Q_INLINE const uint8_t *asked(const uint8_t *at, const uint8_t *end, int nt)
{
    const ptrdiff_t n = 64 * ASK_LINES * nt;
    return end - at > n ? at + n : end;
}

#endif
