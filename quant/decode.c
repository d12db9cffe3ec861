/* decode.c - values of encoded weights, and the small float formats.
 *
 * Decoding is exact by definition: value = row_scale * (float)(s * g), one rounding; the float
 * types widen without one.  The conversions work on bits and depend on no rounding mode. */
#include "quant/scalar.h"
#include "quant/t16.h"

/* g of (k, row) in the planes of half a tile of pairs. */
static int point_of(int type, const uint8_t *p, int k, int r)
{
    const int j = q_point_k(k), at = q_point_byte(k, r);
    const int lo = p[q_nibble_at(j, 0) + at] >> 4 * q_nibble_high(j) & 15;
    p += Q_POINT_LOW + at;
    if (type == Q_P6)
        return q_points_p6[k % 2][lo | (p[q_pair_at(j, 0)] >> q_pair_shift(j) & 3) << 4];
    return q_points_p5[k % 2][lo | (p[q_bit_at(j, 0)] >> q_bit_shift(j) & 1) << 4];
}

/* Grid value of (k, row) in the planes of a half tile. */
static int code_of(int type, const uint8_t *p, int k, int r)
{
    if (q_has_pairs(type)) return point_of(type, p, k, r);
    if (type == Q_L8) return (int8_t)p[q_byte_at(k, r)];
    const int lo = p[q_nibble_at(k, r)] >> 4 * q_nibble_high(k) & 15;
    if (type == Q_L6) return (lo | (p[512 + q_pair_at(k, r)] >> q_pair_shift(k) & 3) << 4) - 32;
    if (type == Q_N5) return q_grid_n5[lo | (p[512 + q_bit_at(k, r)] >> q_bit_shift(k) & 1) << 4];
    return q_grid_n4[lo];
}

void q_half_load(q_half *o, int type, const uint8_t *tile, int h)
{
    const uint8_t *p = tile + 64 + q_half_bytes(type) * h;
    for (int i = 0; i < 4; i++) memcpy(o->s[i], tile + 16 * q_scale_line(type, h, i), Q_ROWS);
    if (type == Q_L8) {
        for (int k = 0; k < Q_TILE; k++)
            for (int r = 0; r < Q_ROWS; r++) o->g[k][r] = (int8_t)p[q_byte_at(k, r)];
        return;
    }
    if (q_has_pairs(type)) {
        for (int k = 0; k < Q_TILE; k++)
            for (int r = 0; r < Q_ROWS; r++) o->g[k][r] = (int8_t)point_of(type, p, k, r);
        return;
    }
    for (int k = 0; k < Q_TILE; k++) {
        const int shift = 4 * q_nibble_high(k);
        const uint8_t *low = p + q_nibble_at(k, 0);
        if (type == Q_L6) {
            const int top = q_pair_shift(k);
            const uint8_t *high = p + 512 + q_pair_at(k, 0);
            for (int r = 0; r < Q_ROWS; r++) {
                const int code = (low[4 * r] >> shift & 15) | (high[4 * r] >> top & 3) << 4;
                o->g[k][r] = (int8_t)(code - 32);
            }
        } else if (type == Q_N5) {
            const int top = q_bit_shift(k);
            const uint8_t *high = p + 512 + q_bit_at(k, 0);
            for (int r = 0; r < Q_ROWS; r++) {
                const int code = (low[4 * r] >> shift & 15) | (high[4 * r] >> top & 1) << 4;
                o->g[k][r] = q_grid_n5[code];
            }
        } else {
            for (int r = 0; r < Q_ROWS; r++) o->g[k][r] = q_grid_n4[low[4 * r] >> shift & 15];
        }
    }
}

void q_decode_tiles(int type, float *out, const void *group, const void *tiles, int row, int n)
{
    const q_typeinfo *info = q_type_info(type);
    const uint8_t *p = tiles;
    if (type == Q_F32) {
        for (int i = 0; i < n; i++) memcpy(out + i, p + 64 * (size_t)i + 4 * (size_t)row, 4);
        return;
    }
    if (info->is_float) {
        for (int i = 0; i < n; i++) {
            uint16_t h;
            memcpy(&h, p + 64 * (size_t)(i / 2) + 4 * (size_t)row + 2 * (size_t)(i % 2), 2);
            out[i] = type == Q_F16 ? q_f16_to_f32(h) : q_bf16_to_f32(h);
        }
        return;
    }
    float scale;
    memcpy(&scale, (const uint8_t *)group + 4 * (size_t)row, 4);
    for (int t = 0; t < n; t += info->tile_k, p += info->tile_bytes) {
        for (int i = 0; i < info->tile_k && t + i < n; i++) {
            const int h = i / Q_TILE, j = i % Q_TILE;
            const int s = (int8_t)p[16 * q_scale_line(type, h, j / 16) + row];
            const uint8_t *planes = p + 64 + q_half_bytes(type) * h;
            out[t + i] = scale * (float)(s * code_of(type, planes, j, row));
        }
    }
}

void q_decode_row(int type, float *out, const void *group, int row, int k)
{
    const uint8_t *tiles = (const uint8_t *)group + q_type_info(type)->head_bytes;
    q_decode_tiles(type, out, group, tiles, row, k);
}

float q_f16_to_f32(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, e = h >> 10 & 31u, m = h & 0x3ffu;
    if (e == 31) return q_float(sign | 0x7f800000u | m << 13);
    if (e) return q_float(sign | (e + 112) << 23 | m << 13);
    const float f = (float)m * 0x1p-24f; /* exact: denormals are whole multiples of 2^-24 */
    return sign ? -f : f;
}

uint16_t q_f32_to_f16(float f)
{
    const uint32_t b = q_bits(f), sign = b >> 16 & 0x8000u, a = b & 0x7fffffffu;
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (a >= 0x47800000u) return (uint16_t)(sign | 0x7c00u); /* 65536 and above, inf */
    if (a >= 0x38800000u) { /* a normal half; rounding up may carry into the exponent, up to inf */
        const uint32_t r = a - 0x38000000u;
        return (uint16_t)(sign | (r + 0xfffu + (r >> 13 & 1)) >> 13);
    }
    if (a < 0x33000000u) return (uint16_t)sign; /* below 2^-25 */
    const uint32_t m = (a & 0x7fffffu) | 0x800000u, shift = 126 - (a >> 23);
    return (uint16_t)(sign | (m + ((1u << (shift - 1)) - 1) + (m >> shift & 1)) >> shift);
}

uint16_t q_f32_to_bf16(float f)
{
    const uint32_t b = q_bits(f);
    if ((b & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(b >> 16 | 0x40u); /* stays a NaN */
    return (uint16_t)((b + 0x7fffu + (b >> 16 & 1)) >> 16);
}

float q_f8e4m3_to_f32(uint8_t b)
{
    const uint32_t sign = (uint32_t)(b & 0x80u) << 24, e = b >> 3 & 15u, m = b & 7u;
    if ((b & 0x7fu) == 0x7fu) return q_float(sign | 0x7fc00000u);
    if (e) return q_float(sign | (e + 120) << 23 | m << 20);
    const float f = (float)m * 0x1p-9f;
    return sign ? -f : f;
}
