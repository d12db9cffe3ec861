/* encode.c - enc 1: how weights become codes, the same bytes on every machine.
 *
 * One sub-block (16 k; N4s 32) of a row is w ~ sigma * g[code], sigma = row_scale * s with s an
 * int8 of either sign: the grid of N4 is lopsided, and the sign picks its orientation.  Three
 * passes over the 16 rows of a group, each an op (ref_encode.c says what they compute): fit finds
 * the best real sigma of each sub-block; row_scale = largest |sigma| / 127; round finds s and fits
 * row_scale once more to all codes of the row; pack writes the codes nearest under the final
 * row_scale * s.
 *
 * Rows are first brought to a largest magnitude in [1, 2) by a power of two, so squares neither
 * overflow nor vanish whatever the weights' own size is.  Between passes the sigmas live in the
 * planes of the output, which have room for twice as much: no limit on k, no memory of our own.
 *
 * Pairs (P6, P5) differ in what is nearest.  The search looks the point up in a table of unit cells
 * made once per group, which finds the nearest but for borders of cells; only the codes that are
 * written are compared with all points, by the pair's own two importances.  Exact distances in the
 * search too would gain 0.008 dB (P5) and 0.02 (P6) and cost ten times as much; cells of 1/2 gain
 * nothing there; the table for the codes as well would cost 0.02 and 0.06. */
#include "quant/encode.h"

#include "quant/scalar.h"
#include "quant/t16.h"

enum { LANES = Q_ROWS };

static void add_places(q_enc *o, float from, float to, float step)
{
    const int n = (int)((to - from) / step) + 1;
    for (int i = 0; i < n; i++) o->place[o->n_place++] = from + (float)i * step;
}

/* xy: the x of all points, then y.  Of cells as near to two points the first has them: squared
 * distances, without what all points share, are integers with the code below. */
static void points_init(q_enc *o, const int8_t *xy)
{
    const int n = o->n_point;
    for (int i = 0; i < n; i++) {
        const int x = xy[i], y = xy[n + i];
        o->px[i] = (float)x;
        o->py[i] = (float)y;
        o->point[i] = (int16_t)(y * 256 + (x & 255));
    }
    o->point[n] = 0;
    o->cell[Q_ENC_CELLS * Q_ENC_CELLS] = 0;
    for (int a = 0; a < Q_ENC_CELLS; a++) {
        int32_t best[Q_ENC_CELLS];
        for (int b = 0; b < Q_ENC_CELLS; b++) best[b] = INT32_MAX;
        for (int i = 0; i < n; i++) {
            const int dx = xy[i] - (a - Q_ENC_CELL), y = xy[n + i];
            const int32_t at0 = (dx * dx + y * y + 2 * Q_ENC_CELL * y) * 64 + i, step = -2 * 64 * y;
            for (int b = 0; b < Q_ENC_CELLS; b++) {
                const int32_t d = at0 + step * b;
                best[b] = d < best[b] ? d : best[b];
            }
        }
        for (int b = 0; b < Q_ENC_CELLS; b++)
            o->cell[q_enc_cell(a, b)] = o->point[best[b] & 63];
    }
}

void q_enc_put_point(int type, uint8_t *tile, int k, int row, int code)
{
    uint8_t *p = tile + 64 + q_half_bytes(type) * (k / Q_TILE) + q_point_byte(k, row);
    const int j = q_point_k(k % Q_TILE);
    p[q_nibble_at(j, 0)] |= (uint8_t)((code & 15) << 4 * q_nibble_high(j));
    p += Q_POINT_LOW;
    if (type == Q_P5) p[q_bit_at(j, 0)] |= (uint8_t)(code >> 4 << q_bit_shift(j));
    else p[q_pair_at(j, 0)] |= (uint8_t)(code >> 4 << q_pair_shift(j));
}

/* Places beyond an end of the grid clip the largest weight, which pays when the rest of the block
 * is small; places short of it leave the end unused.  Measured on Gaussian rows: half steps or a
 * wider range give N4 less than 0.002 dB; whole steps and a reach of 1 cost L6 0.07 and L8 0.3 dB;
 * every second place alone would cost N4 0.012 dB and make it 1.6 times as fast; N5 gains 0.003 dB
 * from whole steps; steps of 1 give pairs 0.002 dB, a wider range nothing. */
static void format_init(q_enc *o, int type, int k)
{
    const q_typeinfo *info = q_type_info(type);
    o->type = type;
    o->sub = info->tile_k / Q_ENC_SUBS;
    o->n_tile = q_pad_k(type, k) / info->tile_k;
    o->tile_bytes = (size_t)info->tile_bytes;
    o->reach = type == Q_L8 || type == Q_L6 ? 3 : 1;
    o->n_point = type == Q_P6 ? 64 : type == Q_P5 ? 32 : 0;
    o->lo = type == Q_L8 ? -127.0f : type == Q_N5 ? -64.0f : o->n_point ? -31.0f : -32.0f;
    o->hi = type == Q_L8 ? 127.0f : type == Q_N5 ? 63.0f : 31.0f;
    o->grid = type == Q_N5 ? q_grid_n5 : type == Q_N4 || type == Q_N4S ? q_grid_n4 : NULL;
    o->n_grid = type == Q_N5 ? 32 : o->grid ? 16 : 0;
    o->n_place = 0;
    if (o->n_point) {
        points_init(o, type == Q_P6 ? q_points_p6[0] : q_points_p5[0]);
        add_places(o, -38.0f, -15.5f, 2.0f);
        add_places(o, 16.0f, 38.5f, 2.0f);
    } else if (type == Q_L8) { /* symmetric: one sign is enough */
        add_places(o, 116.0f, 127.5f, 0.5f);
    } else if (type == Q_L6) {
        add_places(o, -36.0f, -24.5f, 0.5f);
        add_places(o, 23.5f, 35.0f, 0.5f);
    } else if (type == Q_N5) {
        add_places(o, -72.0f, -44.0f, 2.0f);
        add_places(o, 42.0f, 70.0f, 2.0f);
    } else {
        add_places(o, -39.0f, -21.0f, 1.0f);
        add_places(o, 19.0f, 34.0f, 1.0f);
    }
}

static double power2(int e) /* -1022 <= e <= 1023 */
{
    const uint64_t u = (uint64_t)(e + 1023) << 52;
    double d;
    memcpy(&d, &u, sizeof d);
    return d;
}

/* Exponent of the largest magnitude; denormals by their value times 2^64. */
static int exponent(uint32_t bits)
{
    if (bits >> 23) return (int)(bits >> 23) - 127;
    if (!bits) return 0;
    return (int)(q_bits(q_float(bits) * 0x1p64f) >> 23) - 127 - 64;
}

static void rows_init(q_enc *o, const uint32_t *max_bits)
{
    for (int r = 0; r < LANES; r++) {
        const int e = r < o->n ? exponent(max_bits[r]) : 0;
        o->unit[r] = power2(e);
        o->mul[r] = (float)power2(-e / 2);
        o->mul2[r] = (float)power2(-e + e / 2);
    }
    o->imp_mul = 1.0f;
    if (o->imp) {
        const int e = exponent(q_max_bits(o->imp, o->k));
        o->imp_mul = (float)power2(e < -100 ? 100 : e > 126 ? -126 : -e);
    }
}

void q_enc_init(q_enc *o, int type, const float *src, size_t ld, int nrows, int k,
                const float *imp, const uint32_t *max_bits)
{
    format_init(o, type, k);
    o->src = src;
    o->ld = ld;
    o->n = nrows;
    o->k = k;
    o->imp = imp;
    rows_init(o, max_bits);
}

/* Row scale as stored for a normalised one: rounded to float, never so large that a decoded weight
 * is infinite, and not 0, so that rows of the smallest denormals keep what a float can hold. */
float q_enc_stored(const q_enc *o, double scale, double unit)
{
    const float most = 0x1.fffffep+127f / (127.0f * -o->lo) * 0x1.fffffep-1f;
    const float f = (float)(scale * unit);
    return f > most ? most : f < 0x1p-149f ? 0x1p-149f : f;
}

void q_enc_put(int type, uint8_t *tile, int k, int r, int code)
{
    uint8_t *planes = tile + 64 + 512 * (k / Q_TILE);
    k %= Q_TILE;
    if (type == Q_L8) {
        planes[q_byte_at(k, r)] = (uint8_t)code;
        return;
    }
    planes[q_nibble_at(k, r)] |= (uint8_t)((code & 15) << 4 * q_nibble_high(k));
    if (type == Q_L6) planes[512 + q_pair_at(k, r)] |= (uint8_t)(code >> 4 << q_pair_shift(k));
    if (type == Q_N5) planes[512 + q_bit_at(k, r)] |= (uint8_t)(code >> 4 << q_bit_shift(k));
}

/* Squared error of one row as it was written, and the square of its source. */
static void measure(const q_enc *in, const uint8_t *tiles, float scale, int r, double *err,
                    double *sum)
{
    enum { PART = 512 }; /* a multiple of every tile */
    const size_t part = (size_t)(PART / q_type_info(in->type)->tile_k) * in->tile_bytes;
    float head[LANES];
    head[r] = scale;
    *err = *sum = 0.0;
    for (int k0 = 0; k0 < in->k; k0 += PART, tiles += part) {
        float v[PART];
        const int n = in->k - k0 < PART ? in->k - k0 : PART;
        q_decode_tiles(in->type, v, head, tiles, r, n);
        const float *w = in->src + (size_t)r * in->ld + k0;
        for (int k = 0; k < n; k++) {
            const double d = (double)w[k] - (double)v[k];
            *err += d * d;
            *sum += (double)w[k] * (double)w[k];
        }
    }
}

void q_enc_measure(const q_enc *in, const uint8_t *tiles, const float stored[LANES],
                   double err[LANES], double sum[LANES])
{
    for (int r = 0; r < LANES; r++) {
        err[r] = sum[r] = 0.0;
        if (r < in->n) measure(in, tiles, stored[r], r, &err[r], &sum[r]);
    }
}

static void encode_codes(const q_kern *kern, uint8_t *out, const q_enc *in, double err2[2])
{
    uint8_t *tiles = out + 64;
    float top[LANES], stored[LANES], scale[LANES];
    double num[LANES], den[LANES]; /* then: error and square of the rows */
    kern->enc_fit(in, tiles, top);
    for (int r = 0; r < LANES; r++) {
        stored[r] = top[r] > 0.0f ? q_enc_stored(in, (double)top[r] / 127.0, in->unit[r]) : 0.0f;
        scale[r] = (float)((double)stored[r] / in->unit[r]);
    }
    kern->enc_round(in, tiles, scale, num, den);
    for (int r = 0; r < LANES; r++) {
        const bool any = den[r] > 0.0 && num[r] > 0.0;
        stored[r] = any ? q_enc_stored(in, num[r] / den[r], in->unit[r]) : 0.0f;
        scale[r] = (float)((double)stored[r] / in->unit[r]);
    }
    memcpy(out, stored, sizeof stored);
    kern->enc_pack(in, tiles, scale, stored, num, den);
    for (int r = 0; r < in->n; r++) {
        err2[0] += num[r];
        err2[1] += den[r];
    }
}

/* ---- float types: values moved into T16 order ---- */

/* How q_encode_group names a weight it refuses. */
static uint64_t place_of(int row, int k, int col)
{
    return 1 + (uint64_t)row * (uint64_t)k + (uint64_t)col;
}

static uint64_t encode_float(int type, uint8_t *out, const float *src, size_t ld, int nrows, int k,
                             double err2[2])
{
    memset(out, 0, q_group_bytes(type, k));
    for (int r = 0; r < nrows; r++) {
        const float *p = src + (size_t)r * ld;
        double e = 0.0, s = 0.0;
        for (int i = 0; i < k; i++) {
            s += (double)p[i] * (double)p[i];
            if (type == Q_F32) {
                memcpy(out + 64 * (size_t)i + 4 * (size_t)r, p + i, 4);
                continue;
            }
            const uint16_t h = type == Q_F16 ? q_f32_to_f16(p[i]) : q_f32_to_bf16(p[i]);
            const uint16_t inf = type == Q_F16 ? 0x7c00 : 0x7f80;
            if ((h & inf) == inf) return place_of(r, k, i); /* does not fit */
            memcpy(out + 64 * (size_t)(i / 2) + 4 * (size_t)r + 2 * (size_t)(i % 2), &h, 2);
            const float v = type == Q_F16 ? q_f16_to_f32(h) : q_bf16_to_f32(h);
            const double d = (double)p[i] - (double)v;
            e += d * d;
        }
        err2[0] += e;
        err2[1] += s;
    }
    return 0;
}

/* What both encoders refuse, and the float types, which leave nothing to choose.  true: *bad is
 * the result. */
static bool plain_cases(const q_kern *t, int type, void *out, const float *src, size_t ld,
                        int nrows, int k, double err2[2], uint32_t *max_bits, uint64_t *bad)
{
    err2[0] = err2[1] = 0.0;
    *bad = 0;
    t->enc_max(max_bits, src, ld, nrows, k);
    for (int r = 0; r < nrows; r++) {
        const float *p = src + (size_t)r * ld;
        for (int i = 0; max_bits[r] > Q_BITS_FINITE; i++)
            if ((q_bits(p[i]) & 0x7fffffffu) > Q_BITS_FINITE) {
                *bad = place_of(r, k, i);
                return true;
            }
    }
    if (!q_type_info(type)->is_float) return false;
    *bad = encode_float(type, out, src, ld, nrows, k, err2);
    return true;
}

uint64_t q_encode_group(const q_kern *t, int type, void *out, const float *src, size_t ld,
                        int nrows, int k, const float *imp, double err2[2])
{
    uint32_t max_bits[LANES];
    double unused[2];
    uint64_t bad;
    if (!err2) err2 = unused;
    if (plain_cases(t, type, out, src, ld, nrows, k, err2, max_bits, &bad)) return bad;
    q_enc in;
    q_enc_init(&in, type, src, ld, nrows, k, imp, max_bits);
    encode_codes(t, out, &in, err2);
    return 0;
}

uint64_t q_encode_feedback(const q_kern *t, int type, void *out, const float *src, size_t ld,
                           int nrows, int k, const q_moments *m, double err2[2], void *tmp)
{
    uint32_t max_bits[LANES];
    uint64_t bad;
    if (plain_cases(t, type, out, src, ld, nrows, k, err2, max_bits, &bad)) return bad;
    q_enc in;
    q_enc_init(&in, type, src, ld, nrows, k, m->d, max_bits);
    q_feedback_codes(t, out, &in, m, err2, tmp);
    return 0;
}
