/* encode.c - enc 1: how weights become codes, the same bytes on every machine.
 *
 * One sub-block (16 k; N4s 32) of a row is w ~ sigma * g[code], sigma = row_scale * s with s an
 * int8 of either sign: the grid of N4 is lopsided, and the sign picks its orientation.  Three
 * passes over the 16 rows of a group:
 *   fit    per sub-block, the best real sigma: the weight of largest magnitude is laid on some tens
 *          of places around both ends of the grid, codes are the nearest, and of all candidates the
 *          one wins whose least-squares sigma leaves the smallest error
 *   round  row_scale = largest |sigma| / 127; s is the best of a few integers around
 *          sigma / row_scale; then row_scale is fitted once more to all codes of the row
 *   pack   codes are the nearest under the final row_scale * s
 * Every sum runs over k ascending for one row; rows are lanes, so a compiler may vectorise over
 * them and no thread or vector width can change a byte.  Only + - * / in float and double occur.
 *
 * Rows are first brought to a largest magnitude in [1, 2) by a power of two, so squares neither
 * overflow nor vanish whatever the weights' own size is.  Between passes the sigmas live in the
 * planes of the output, which have room for twice as much: no limit on k, no memory of our own. */
#include "quant/scalar.h"
#include "quant/t16.h"

enum { LANES = Q_ROWS, SUB_MAX = 32, SUBS = 4 /* sub-blocks of a tile, in every format */ };

/* A block whose largest weight is below this share of the row's rounds to s = 0 in any case. */
#define VANISHING 0x1p-60f

/* Least importance beside a largest of 1..2: columns that calibration never saw still get codes. */
#define IMP_MIN 0x1p-40f

/* ---- nearest codes ----
 * All midpoints of a grid are multiples of 1/2, so the half-unit cell of x decides its code;
 * cell i holds x in [i / 2 - 64, i / 2 - 63.5).  A tie goes up. */

enum { CELLS = 256, PLACES = 48 };

typedef struct grid {
    int type, sub;       /* sub: k of a sub-block */
    int reach;           /* s is sought so far to both sides of sigma / row_scale */
    int n_place;
    float place[PLACES]; /* where the largest weight is tried, in grid units */
    float lo, hi;        /* ends of the grid */
    float g[CELLS];      /* N formats: value of a cell */
    uint8_t code[CELLS]; /* N formats: its code */
} grid;

static void add_places(grid *o, float from, float to, float step)
{
    const int n = (int)((to - from) / step) + 1;
    for (int i = 0; i < n; i++) o->place[o->n_place++] = from + (float)i * step;
}

/* Places beyond an end of the grid clip the largest weight, which pays when the rest of the block
 * is small; places short of it leave the end unused.  Measured on Gaussian rows: half steps or a
 * wider range give N4 less than 0.002 dB; whole steps and a reach of 1 cost L6 0.07 and L8 0.3 dB;
 * every second place alone would cost N4 0.012 dB and make it 1.6 times as fast; N5 gains 0.003 dB
 * from whole steps. */
static void grid_init(grid *o, int type)
{
    o->type = type;
    o->sub = type == Q_N4S ? 32 : 16;
    o->reach = type == Q_L8 || type == Q_L6 ? 3 : 1;
    o->lo = type == Q_L8 ? -127.0f : type == Q_N5 ? -64.0f : -32.0f;
    o->hi = type == Q_L8 ? 127.0f : type == Q_N5 ? 63.0f : 31.0f;
    o->n_place = 0;
    if (type == Q_L8) { /* symmetric: one sign is enough */
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
    const int8_t *g = type == Q_N5 ? q_grid_n5 : q_grid_n4;
    const int last = type == Q_N5 ? 31 : 15;
    int c = 0;
    for (int i = 0; i < CELLS; i++) {
        while (c < last && i - 128 >= g[c] + g[c + 1]) c++;
        o->g[i] = (float)g[c];
        o->code[i] = (uint8_t)c;
    }
}

static inline int has_grid(int type) { return type == Q_N5 || type == Q_N4 || type == Q_N4S; }

/* Cells of x = w * inv for 16 rows. */
static inline void cells(int32_t *restrict cell, const float *restrict w, const float *restrict inv)
{
    for (int r = 0; r < LANES; r++) {
        float x = w[r] * inv[r] * 2.0f + 128.0f;
        x = x > 0.0f ? x : 0.0f;
        x = x < 255.0f ? x : 255.0f;
        cell[r] = (int32_t)x;
    }
}

/* Grid values nearest to w * inv for 16 rows. */
static inline void nearest(const grid *o, float *restrict g, const float *restrict w,
                           const float *restrict inv)
{
    if (has_grid(o->type)) {
        int32_t cell[LANES];
        cells(cell, w, inv);
        for (int r = 0; r < LANES; r++) g[r] = o->g[cell[r]];
    } else {
        const float lo = o->lo, hi = o->hi;
        for (int r = 0; r < LANES; r++) {
            float x = w[r] * inv[r];
            x = x > lo ? x : lo;
            x = x < hi ? x : hi;
            g[r] = q_rne(x);
        }
    }
}

/* ---- one sub-block of 16 rows ---- */

typedef struct block {
    float w[SUB_MAX][LANES]; /* normalised weights, k-major; zeros where there are none */
    float imp[SUB_MAX];      /* above 0, at most 2; 0 behind k */
} block;

/* For codes nearest under 1 / inv: wg = sum imp * w * g, gg = sum imp * g * g. */
static inline void products(const grid *o, const block *b, const float *inv, float *restrict wg,
                            float *restrict gg)
{
    for (int r = 0; r < LANES; r++) wg[r] = gg[r] = 0.0f;
    for (int k = 0; k < o->sub; k++) {
        float g[LANES];
        nearest(o, g, b->w[k], inv);
        const float imp = b->imp[k];
        for (int r = 0; r < LANES; r++) {
            const float ig = imp * g[r];
            wg[r] += b->w[k][r] * ig;
            gg[r] += g[r] * ig;
        }
    }
}

/* The weight of largest magnitude of each row, with its sign; 1 / it, or 0 if it vanishes. */
static void largest(const grid *o, const block *b, float *restrict rcp)
{
    float top[LANES], mag[LANES];
    for (int r = 0; r < LANES; r++) top[r] = mag[r] = 0.0f;
    for (int k = 0; k < o->sub; k++) {
        for (int r = 0; r < LANES; r++) {
            const float a = fabsf(b->w[k][r]);
            top[r] = a > mag[r] ? b->w[k][r] : top[r];
            mag[r] = a > mag[r] ? a : mag[r];
        }
    }
    for (int r = 0; r < LANES; r++) rcp[r] = mag[r] >= VANISHING ? 1.0f / top[r] : 0.0f;
}

/* The error of a candidate is sum imp * w * w - wg * wg / gg: the largest last term wins. */
static inline void fit_block(const grid *o, const block *b, float *restrict sigma)
{
    float rcp[LANES], best[LANES];
    largest(o, b, rcp);
    for (int r = 0; r < LANES; r++) sigma[r] = best[r] = 0.0f;
    for (int i = 0; i < o->n_place; i++) {
        float inv[LANES], wg[LANES], gg[LANES];
        for (int r = 0; r < LANES; r++) inv[r] = o->place[i] * rcp[r];
        products(o, b, inv, wg, gg);
        for (int r = 0; r < LANES; r++) {
            const float s = wg[r] / (gg[r] > 0.0f ? gg[r] : 1.0f), gain = wg[r] * s;
            sigma[r] = gain > best[r] ? s : sigma[r];
            best[r] = gain > best[r] ? gain : best[r];
        }
    }
}

/* s of each row, the best around sigma / row_scale; adds to num and den what fits row_scale to
 * these codes. */
static inline void round_block(const grid *o, const block *b, const float *scale,
                               const float *sigma, int8_t *s8, double *num, double *den)
{
    float mid[LANES], s[LANES], best[LANES], bwg[LANES], bgg[LANES];
    for (int r = 0; r < LANES; r++) {
        mid[r] = scale[r] > 0.0f ? q_rne(sigma[r] / scale[r]) : 0.0f;
        s[r] = best[r] = bwg[r] = bgg[r] = 0.0f;
    }
    for (int i = -o->reach; i <= o->reach; i++) {
        float t[LANES], inv[LANES], wg[LANES], gg[LANES];
        for (int r = 0; r < LANES; r++) {
            t[r] = mid[r] + (float)i;
            t[r] = t[r] < -127.0f ? -127.0f : t[r] > 127.0f ? 127.0f : t[r];
            const float sg = scale[r] * t[r];
            inv[r] = sg != 0.0f ? 1.0f / sg : 0.0f;
        }
        products(o, b, inv, wg, gg);
        for (int r = 0; r < LANES; r++) {
            const float sg = scale[r] * t[r], gain = sg * (2.0f * wg[r] - sg * gg[r]);
            const int better = gain > best[r]; /* s = 0 gains 0 */
            s[r] = better ? t[r] : s[r];
            bwg[r] = better ? wg[r] : bwg[r];
            bgg[r] = better ? gg[r] : bgg[r];
            best[r] = better ? gain : best[r];
        }
    }
    for (int r = 0; r < LANES; r++) {
        s8[r] = (int8_t)s[r];
        num[r] += (double)(s[r] * bwg[r]);
        den[r] += (double)(s[r] * s[r] * bgg[r]);
    }
}

/* ---- rows of a group ---- */

typedef struct rows {
    const float *src; /* (n, k) with stride ld */
    size_t ld;
    const float *imp; /* (k) or NULL */
    float imp_mul;    /* power of two that brings imp to at most 1 */
    int n, k;
    double unit[LANES];               /* 2^e: weight = normalised * unit */
    float mul[LANES], mul2[LANES];    /* their product is 2^-e, which alone may not be a float */
} rows;

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

static void rows_init(rows *o, const uint32_t *max_bits)
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

/* Weights k0 .. k0 + sub - 1 of all rows. */
static void load_block(block *b, const rows *o, int sub, int k0)
{
    const int n = o->k - k0 < sub ? (o->k - k0 > 0 ? o->k - k0 : 0) : sub;
    if (n < sub || o->n < LANES) memset(b->w, 0, sizeof b->w);
    for (int r = 0; r < o->n; r++) {
        const float *p = o->src + (size_t)r * o->ld + k0;
        const float m = o->mul[r], m2 = o->mul2[r];
        for (int k = 0; k < n; k++) b->w[k][r] = p[k] * m * m2;
    }
    for (int k = 0; k < sub; k++) {
        float v = o->imp && k < n ? o->imp[k0 + k] * o->imp_mul : 1.0f;
        v = v > IMP_MIN ? v : IMP_MIN;
        v = v < 2.0f ? v : 2.0f;
        b->imp[k] = k < n ? v : 0.0f;
    }
}

/* Row scale as stored for a normalised one: rounded to float, never so large that a decoded weight
 * is infinite, and not 0, so that rows of the smallest denormals keep what a float can hold. */
static float stored_scale(const grid *o, double scale, double unit)
{
    const float most = 0x1.fffffep+127f / (127.0f * -o->lo) * 0x1.fffffep-1f;
    const float f = (float)(scale * unit);
    return f > most ? most : f < 0x1p-149f ? 0x1p-149f : f;
}

static void fit_group(const grid *o, const rows *in, uint8_t *tiles, int n_tiles, size_t tile_bytes,
                      float top[LANES])
{
    block b;
    for (int r = 0; r < LANES; r++) top[r] = 0.0f;
    for (int t = 0; t < n_tiles; t++) {
        for (int i = 0; i < SUBS; i++) {
            float sigma[LANES];
            load_block(&b, in, o->sub, (t * SUBS + i) * o->sub);
            fit_block(o, &b, sigma);
            for (int r = 0; r < LANES; r++)
                top[r] = fabsf(sigma[r]) > top[r] ? fabsf(sigma[r]) : top[r];
            memcpy(tiles + (size_t)t * tile_bytes + 64 + 64 * i, sigma, sizeof sigma);
        }
    }
}

static void round_group(const grid *o, const rows *in, uint8_t *tiles, int n_tiles,
                        size_t tile_bytes, const float scale[LANES], double num[LANES],
                        double den[LANES])
{
    block b;
    for (int r = 0; r < LANES; r++) num[r] = den[r] = 0.0;
    for (int t = 0; t < n_tiles; t++) {
        uint8_t *tile = tiles + (size_t)t * tile_bytes;
        for (int i = 0; i < SUBS; i++) {
            float sigma[LANES];
            memcpy(sigma, tile + 64 + 64 * i, sizeof sigma);
            load_block(&b, in, o->sub, (t * SUBS + i) * o->sub);
            round_block(o, &b, scale, sigma, (int8_t *)tile + LANES * i, num, den);
        }
    }
}

/* Sets the code of (k, row) in the planes of half a tile (t16.h), which were zero. */
static inline void put_code(int type, uint8_t *planes, int k, int r, int code)
{
    if (type == Q_L8) {
        planes[q_byte_at(k, r)] = (uint8_t)code;
        return;
    }
    planes[q_nibble_at(k, r)] |= (uint8_t)((code & 15) << 4 * q_nibble_high(k));
    if (type == Q_L6) planes[512 + q_pair_at(k, r)] |= (uint8_t)(code >> 4 << q_pair_shift(k));
    if (type == Q_N5) planes[512 + q_bit_at(k, r)] |= (uint8_t)(code >> 4 << q_bit_shift(k));
}

/* Codes of one sub-block; those of rows with s = 0 stay zero. */
static void pack_block(const grid *o, const block *b, uint8_t *tile, int i, const float *scale)
{
    const int type = o->type, k0 = i * o->sub;
    const int8_t *s8 = (const int8_t *)tile + LANES * i;
    uint8_t *planes = tile + 64 + 512 * (k0 / Q_TILE);
    float inv[LANES];
    for (int r = 0; r < LANES; r++) {
        const float sg = scale[r] * (float)s8[r];
        inv[r] = sg != 0.0f ? 1.0f / sg : 0.0f;
    }
    for (int k = 0; k < o->sub; k++) {
        if (has_grid(type)) {
            int32_t cell[LANES];
            cells(cell, b->w[k], inv);
            for (int r = 0; r < LANES; r++)
                if (s8[r]) put_code(type, planes, k0 % Q_TILE + k, r, o->code[cell[r]]);
        } else {
            float g[LANES];
            nearest(o, g, b->w[k], inv);
            for (int r = 0; r < LANES; r++)
                if (s8[r])
                    put_code(type, planes, k0 % Q_TILE + k, r, (int)g[r] + (type == Q_L6 ? 32 : 0));
        }
    }
}

/* Squared error and square of the source of the rows, from what was written. */
static void measure(int type, const uint8_t *group, const rows *in, double err2[2])
{
    enum { PART = 512 }; /* a multiple of every tile */
    const q_typeinfo *info = q_type_info(type);
    const size_t part_bytes = (size_t)(PART / info->tile_k) * (size_t)info->tile_bytes;
    err2[0] = err2[1] = 0.0;
    for (int r = 0; r < in->n; r++) {
        double e = 0.0, s = 0.0;
        for (int k0 = 0; k0 < in->k; k0 += PART) {
            float v[PART];
            const int n = in->k - k0 < PART ? in->k - k0 : PART;
            q_decode_tiles(type, v, group,
                           group + info->head_bytes + (size_t)(k0 / PART) * part_bytes, r, n);
            const float *w = in->src + (size_t)r * in->ld + k0;
            for (int k = 0; k < n; k++) {
                const double d = (double)w[k] - (double)v[k];
                e += d * d;
                s += (double)w[k] * (double)w[k];
            }
        }
        err2[0] += e;
        err2[1] += s;
    }
}

static void encode_codes(int type, uint8_t *out, rows *in, const uint32_t *max_bits)
{
    const q_typeinfo *info = q_type_info(type);
    const size_t tile_bytes = (size_t)info->tile_bytes;
    const int n_tiles = q_pad_k(type, in->k) / info->tile_k;
    uint8_t *tiles = out + info->head_bytes;
    float top[LANES], stored[LANES], scale[LANES];
    double num[LANES], den[LANES];
    grid o;
    block b;
    grid_init(&o, type);
    rows_init(in, max_bits);

    fit_group(&o, in, tiles, n_tiles, tile_bytes, top);
    for (int r = 0; r < LANES; r++) {
        stored[r] = top[r] > 0.0f ? stored_scale(&o, (double)top[r] / 127.0, in->unit[r]) : 0.0f;
        scale[r] = (float)((double)stored[r] / in->unit[r]);
    }
    round_group(&o, in, tiles, n_tiles, tile_bytes, scale, num, den);
    for (int r = 0; r < LANES; r++) {
        const bool any = den[r] > 0.0 && num[r] > 0.0;
        stored[r] = any ? stored_scale(&o, num[r] / den[r], in->unit[r]) : 0.0f;
        scale[r] = (float)((double)stored[r] / in->unit[r]);
    }
    memcpy(out, stored, sizeof stored);
    for (int t = 0; t < n_tiles; t++) {
        uint8_t *tile = tiles + (size_t)t * tile_bytes;
        memset(tile + 64, 0, tile_bytes - 64);
        for (int i = 0; i < SUBS; i++) {
            load_block(&b, in, o.sub, (t * SUBS + i) * o.sub);
            pack_block(&o, &b, tile, i, scale);
        }
    }
}

/* ---- float types: values moved into T16 order ---- */

/* How q_encode_group names a weight it refuses. */
static uint64_t place_of(int row, int k, int col)
{
    return 1 + (uint64_t)row * (uint64_t)k + (uint64_t)col;
}

static uint64_t encode_float(int type, uint8_t *out, const rows *in)
{
    memset(out, 0, q_group_bytes(type, in->k));
    for (int r = 0; r < in->n; r++) {
        const float *p = in->src + (size_t)r * in->ld;
        for (int k = 0; k < in->k; k++) {
            if (type == Q_F32) {
                memcpy(out + 64 * (size_t)k + 4 * (size_t)r, p + k, 4);
                continue;
            }
            const uint16_t h = type == Q_F16 ? q_f32_to_f16(p[k]) : q_f32_to_bf16(p[k]);
            const uint16_t inf = type == Q_F16 ? 0x7c00 : 0x7f80;
            if ((h & inf) == inf) return place_of(r, in->k, k); /* does not fit */
            memcpy(out + 64 * (size_t)(k / 2) + 4 * (size_t)r + 2 * (size_t)(k % 2), &h, 2);
        }
    }
    return 0;
}

uint64_t q_encode_group(int type, void *out, const float *src, size_t ld, int nrows, int k,
                        const float *imp, void *tmp, double err2[2])
{
    (void)tmp; /* enc 1 needs none; part of the contract for a search that does */
    rows in = { .src = src, .ld = ld, .imp = imp, .n = nrows, .k = k };
    uint32_t max_bits[LANES] = { 0 };
    for (int r = 0; r < nrows; r++) {
        const float *p = src + (size_t)r * ld;
        max_bits[r] = q_max_bits(p, k);
        for (int i = 0; max_bits[r] > Q_BITS_FINITE; i++)
            if ((q_bits(p[i]) & 0x7fffffffu) > Q_BITS_FINITE) return place_of(r, k, i);
    }
    if (q_type_info(type)->is_float) {
        const uint64_t bad = encode_float(type, out, &in);
        if (bad) return bad;
    } else {
        encode_codes(type, out, &in, max_bits);
    }
    if (err2) measure(type, out, &in, err2);
    return 0;
}
