/* t16.h - where a weight lies in a T16 tile (quant.h), for the codecs and the reference.
 *
 * Works on half tiles of 64 k: the whole tile of L8, L6, N5 and N4, one of two halves of the types
 * whose tiles are 128 k (N4s, P6, P5).
 * Codes in between are g values: the integer that stands beside the sub-scale in
 * row_scale * (s * g). */
#ifndef QUANT_T16_H
#define QUANT_T16_H

#include "quant/quant.h"

/* 64 k of one row group, unpacked: k-major, so that loops over rows are loops over lanes. */
typedef struct q_half {
    int8_t g[Q_TILE][Q_ROWS];  /* grid values */
    int8_t s[4][Q_ROWS];       /* sub-scale of each 16 k; of 32: two equal neighbours */
} q_half;

/* Codes of these types stand for pairs of weights. */
static inline bool q_has_pairs(int type) { return type == Q_P6 || type == Q_P5; }

/* Sub-scale of 16-k block i (0..3) of half `h`: index of its line in the tile's sub-scale line. */
static inline int q_scale_line(int type, int h, int i)
{
    return type == Q_N4S || q_has_pairs(type) ? 2 * h + i / 2 : i;
}

/* Bytes of the planes of 64 k, in types that have two halves in a tile. */
static inline int q_half_bytes(int type) { return type == Q_P6 ? 384 : type == Q_P5 ? 320 : 512; }

/* The 4-bit plane of one half: byte of (k, row), and whether its code is the high nibble. */
static inline int q_nibble_at(int k, int row)
{
    return 64 * (4 * (k / 32) + k % 16 / 4) + 4 * row + k % 4;
}
static inline int q_nibble_high(int k) { return k % 32 / 16; }

/* The 2-bit plane: chunk j of a block of 8 sits in line j % 2 at bits 2 * (j / 2). */
static inline int q_pair_at(int k, int row)
{
    return 64 * (2 * (k / 32) + k / 4 % 2) + 4 * row + k % 4;
}
static inline int q_pair_shift(int k) { return 2 * (k % 32 / 8); }

/* The 1-bit plane: chunk j of a block sits in its line at bit j. */
static inline int q_bit_at(int k, int row) { return 64 * (k / 32) + 4 * row + k % 4; }
static inline int q_bit_shift(int k) { return k % 32 / 4; }

/* Byte of (k, row) in an 8-bit plane. */
static inline int q_byte_at(int k, int row) { return 64 * (k / 4) + 4 * row + k % 4; }

/* Pair codes (quant.h), k of the half: their planes are those above with the pairs of 8 k, 64 bytes
 * of 16 rows, in place of a chunk.  q_point_k is the k where the functions above, for row 0, find
 * these; q_point_byte says which of the 64 bytes. */
static inline int q_point_k(int k) { return k / 8 * 4; }
static inline int q_point_byte(int k, int row)
{
    return row / 4 * 16 + k % 8 / 4 * 8 + row % 4 * 2 + k % 4 / 2;
}
enum { Q_POINT_LOW = 256 }; /* bytes of the 4-bit plane of 64 k; the other plane follows */

/* n values of a row from consecutive tiles; the row scale comes from the head of the group. */
void q_decode_tiles(int type, float *out, const void *group, const void *tiles, int row, int n);

/* Half `h` (0, or 1 where a tile is 128 k) of a tile. */
void q_half_load(q_half *o, int type, const uint8_t *tile, int h);

#endif
