/* tile.h - what the x86 tiles know about a weight type, as constants after inlining.
 *
 * Codes enter every product unsigned, biased: g + 32 of N4 and N4s, the code of L6, g + 64 of N5,
 * g + 128 of L8. */
#ifndef QUANT_X86_TILE_H
#define QUANT_X86_TILE_H

#include "quant/quant.h"
#include "quant/x86/v16.h"

/* The bias is 1 << this. */
Q_INLINE int bias_shift(const int type) { return type == Q_L8 ? 7 : type == Q_N5 ? 6 : 5; }

/* Bytes of the planes of 64 k. */
Q_INLINE int plane_bytes(const int type)
{
    return type == Q_L8 ? 1024 : type == Q_L6 ? 768 : type == Q_N5 ? 640 : 512;
}

/* Sums of 16 k times sub-scales are exact in float, even two of them: |2 * 16 * 32 * 127 * 127| <
 * 2^24.  Larger codes need integers. */
Q_INLINE bool float_scales(const int type) { return type != Q_L8 && type != Q_N5; }

#endif
