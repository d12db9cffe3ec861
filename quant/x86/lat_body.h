/* lat_body.h - writing and turning the int8 cache of latents; attn_<isa>.c compile it once each.
 *
 * A group of 16 positions has lines of 16 positions x 4 dims; values want 16 dims x 4 positions.
 * Sixteen bytes of either are a 4 x 4 transpose of the other, which is one byte shuffle. */
#ifndef QUANT_X86_LAT_BODY_H
#define QUANT_X86_LAT_BODY_H

#include "quant/quant.h"
#include "quant/x86/vec_body.h"

Q_INLINE size_t lat_tiles(int n) { return (size_t)(n + Q_TILE - 1) / Q_TILE; }
Q_INLINE size_t lat_blocks(int n) { return (size_t)(n + 127) / 128; }
/* Bytes of the scales in front of the codes. */
Q_INLINE size_t lat_codes(int lora, int rope)
{
    return (lat_blocks(lora) + lat_blocks(rope)) * Q_PIECE * sizeof(float);
}

/* A128 of x[0..n) into one lane; lane: of the first line of its tiles. */
Q_INLINE int put_lat_part(float *d, uint8_t *lane, const float *x, int n)
{
    const int whole = (int)lat_tiles(n) * Q_TILE;
    for (int b = 0; b < whole; b += 128, d += Q_PIECE) {
        const int end = whole < b + 128 ? whole : b + 128;
        v16i top = v16i_set1(0);
        for (int i = b; i < end && i < n; i += 16)
            top = v16i_maxu(top, v16_abs_bits(v16_load_n(x + i, lanes_at(i, n))));
        const uint32_t bits = v16i_hmaxu(top);
        if (bits > FINITE_MAX) return 1;
        const float max = f32_of_bits(bits);
        const v16f inv = v16_set1(drops(bits) ? 0.0f : 127.0f / max);
        *d = drops(bits) ? 0.0f : max / 127.0f;
        for (int i = b; i < end; i += 16) {
            const v16f v = i < n ? v16_load_n(x + i, lanes_at(i, n)) : v16_zero();
            int8_t code[16];
            _mm_storeu_si128((__m128i *)code, v16i_bytes(v16_rne(v16_mul(v, inv))));
            for (int c = 0; c < 4; c++, lane += 64) __builtin_memcpy(lane, code + 4 * c, 4);
        }
    }
    return 0;
}

static int put_lat8_v16(void *blk, int p, const float *x, int lora, int rope)
{
    const size_t tile = Q_ROWS * Q_TILE, nl = lat_tiles(lora), nr = lat_tiles(rope);
    float *d = (float *)blk + p;
    uint8_t *lane = (uint8_t *)blk + lat_codes(lora, rope)
                    + (size_t)(p / Q_ROWS) * (nl + nr) * tile + 4 * (size_t)(p % Q_ROWS);
    return put_lat_part(d, lane, x, lora)
           | put_lat_part(d + lat_blocks(lora) * Q_PIECE, lane + nl * tile, x + nl * Q_TILE, rope);
}

/* Sixteen positions x 16 dims: from four lines to the same quarter of four. */
Q_INLINE void turn_16x16(uint8_t *to, const uint8_t *from)
{
    const __m128i turn = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    for (int c = 0; c < 4; c++)
        for (int p = 0; p < 4; p++) {
            const __m128i x = _mm_load_si128((const __m128i *)(from + 64 * c + 16 * p));
            _mm_store_si128((__m128i *)(to + 64 * p + 16 * c), _mm_shuffle_epi8(x, turn));
        }
}

static void lat_v8_v16(void *vblk, const void *blk, int lora, int rope, int n)
{
    const size_t scales = lat_blocks(lora) * Q_PIECE * sizeof(float);
    const size_t group = (lat_tiles(lora) + lat_tiles(rope)) * Q_ROWS * Q_TILE;
    const size_t dims = (size_t)(lora + 15) / 16;
    const uint8_t *from = (const uint8_t *)blk + lat_codes(lora, rope);
    uint8_t *to = (uint8_t *)vblk + scales;
    __builtin_memcpy(vblk, blk, scales);
    for (int p = 0; p < (n + 63) / 64 * 64; p += 16, from += group)
        for (size_t i = 0; i < dims; i++)
            turn_16x16(to + ((size_t)(p / 64) * dims + i) * 1024 + 256 * (size_t)(p % 64 / 16),
                       from + 256 * i);
}

Q_INLINE void fill_lat(q_kern *t)
{
    t->put_lat8 = put_lat8_v16;
    t->lat_v8 = lat_v8_v16;
}

#endif
