/* ref_encode.c - the three passes of the encoder, scalar: the definition of enc 1.
 *
 *   fit    per sub-block, the best real sigma: the weight of largest magnitude is laid on some tens
 *          of places around both ends of the grid, codes are the nearest, and of all candidates the
 *          one wins whose least-squares sigma leaves the smallest error
 *   round  s is the best of a few integers around sigma / row_scale; sums fit row_scale once more
 *   pack   codes are the nearest under the final row_scale * s; the error of what was written
 * Pairs: fit and round take the point that a table has for the cell of the pair, pack the one of
 * least weighted distance (encode.c says why).
 * Every sum runs over k ascending for one row; rows are lanes, so a compiler may vectorise over
 * them and no thread or vector width can change a byte.  Only + - * / in float and double occur. */
#include "quant/encode.h"
#include "quant/ref.h"
#include "quant/scalar.h"
#include "quant/t16.h"

enum { LANES = Q_ROWS, CELLS = 256 };

typedef struct grid {
    float g[CELLS];      /* N formats: value of a cell */
    uint8_t code[CELLS]; /* N formats: its code */
    const q_enc *in;
} grid;

static void grid_init(grid *o, const q_enc *in)
{
    o->in = in;
    for (int i = 0; in->grid && i < CELLS; i++) {
        o->code[i] = (uint8_t)q_enc_code(in, i);
        o->g[i] = (float)in->grid[o->code[i]];
    }
}

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
    if (o->in->grid) {
        int32_t cell[LANES];
        cells(cell, w, inv);
        for (int r = 0; r < LANES; r++) g[r] = o->g[cell[r]];
    } else {
        const float lo = o->in->lo, hi = o->in->hi;
        for (int r = 0; r < LANES; r++) {
            float x = w[r] * inv[r];
            x = x > lo ? x : lo;
            x = x < hi ? x : hi;
            g[r] = q_rne(x);
        }
    }
}

/* g and h of the points that the table has for the pairs (w, v) * inv of 16 rows. */
static inline void table_points(const q_enc *in, float *restrict g, float *restrict h,
                                const float *restrict w, const float *restrict v,
                                const float *restrict inv)
{
    const float lo = -Q_ENC_CELL, hi = Q_ENC_CELL - 1;
    const int16_t *middle = q_enc_middle(in);
    for (int r = 0; r < LANES; r++) {
        float x = w[r] * inv[r], y = v[r] * inv[r];
        x = x > lo ? x : lo;
        x = x < hi ? x : hi;
        y = y > lo ? y : lo;
        y = y < hi ? y : hi;
        const int e = middle[q_enc_cell(q_rnei(x), q_rnei(y))];
        g[r] = (float)(int8_t)(e & 255);
        h[r] = (float)(e >> 8);
    }
}

/* Codes of the pairs (w, v) * inv of 16 rows: of all points p the first for which
 * imp_x * x * p.x + imp_y * y * p.y - (imp_x * p.x^2 + imp_y * p.y^2) / 2 is largest. */
static void nearest_points(const q_enc *in, int32_t code[LANES], const float *w, const float *v,
                           const float *inv, float imp_x, float imp_y)
{
    float a[LANES], b[LANES], best[LANES];
    for (int r = 0; r < LANES; r++) {
        float x = w[r] * inv[r], y = v[r] * inv[r];
        x = x > -Q_ENC_FAR ? x : -Q_ENC_FAR;
        x = x < Q_ENC_FAR ? x : Q_ENC_FAR;
        y = y > -Q_ENC_FAR ? y : -Q_ENC_FAR;
        y = y < Q_ENC_FAR ? y : Q_ENC_FAR;
        a[r] = imp_x * x;
        b[r] = imp_y * y;
        best[r] = -Q_ENC_FAR * Q_ENC_FAR;
        code[r] = 0;
    }
    for (int i = 0; i < in->n_point; i++) {
        const float x = in->px[i], y = in->py[i];
        const float own = x * x * 0.5f * imp_x + y * y * 0.5f * imp_y;
        for (int r = 0; r < LANES; r++) {
            const float s = a[r] * x + b[r] * y - own;
            code[r] = s > best[r] ? i : code[r];
            best[r] = s > best[r] ? s : best[r];
        }
    }
}

/* ---- one sub-block of 16 rows ---- */

typedef struct block {
    float w[Q_ENC_SUB][LANES]; /* normalised weights, k-major; zeros where there are none */
    float imp[Q_ENC_SUB];      /* above 0, at most 2; 0 behind k */
} block;

/* For codes nearest under 1 / inv: wg = sum imp * w * g, gg = sum imp * g * g. */
static inline void products(const grid *o, const block *b, const float *inv, float *restrict wg,
                            float *restrict gg)
{
    float g[2][LANES];
    for (int r = 0; r < LANES; r++) wg[r] = gg[r] = 0.0f;
    for (int k = 0; k < o->in->sub; k++) {
        if (!o->in->n_point) nearest(o, g[k % 2], b->w[k], inv);
        else if (k % 2 == 0) table_points(o->in, g[0], g[1], b->w[k], b->w[k + 1], inv);
        const float imp = b->imp[k];
        for (int r = 0; r < LANES; r++) {
            const float ig = imp * g[k % 2][r];
            wg[r] += b->w[k][r] * ig;
            gg[r] += g[k % 2][r] * ig;
        }
    }
}

/* The weight of largest magnitude of each row, with its sign; 1 / it, or 0 if it vanishes. */
static void largest(const grid *o, const block *b, float *restrict rcp)
{
    float top[LANES], mag[LANES];
    for (int r = 0; r < LANES; r++) top[r] = mag[r] = 0.0f;
    for (int k = 0; k < o->in->sub; k++) {
        for (int r = 0; r < LANES; r++) {
            const float a = fabsf(b->w[k][r]);
            top[r] = a > mag[r] ? b->w[k][r] : top[r];
            mag[r] = a > mag[r] ? a : mag[r];
        }
    }
    for (int r = 0; r < LANES; r++) rcp[r] = mag[r] >= Q_ENC_VANISHING ? 1.0f / top[r] : 0.0f;
}

/* The error of a candidate is sum imp * w * w - wg * wg / gg: the largest last term wins. */
static inline void fit_block(const grid *o, const block *b, float *restrict sigma)
{
    float rcp[LANES], best[LANES];
    largest(o, b, rcp);
    for (int r = 0; r < LANES; r++) sigma[r] = best[r] = 0.0f;
    for (int i = 0; i < o->in->n_place; i++) {
        float inv[LANES], wg[LANES], gg[LANES];
        for (int r = 0; r < LANES; r++) inv[r] = o->in->place[i] * rcp[r];
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
    for (int i = -o->in->reach; i <= o->in->reach; i++) {
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

/* Weights k0 .. k0 + sub - 1 of all rows. */
static void load_block(block *b, const q_enc *o, int k0)
{
    const int sub = o->sub, n = o->k - k0 < sub ? (o->k - k0 > 0 ? o->k - k0 : 0) : sub;
    if (n < sub || o->n < LANES) memset(b->w, 0, sizeof b->w);
    for (int r = 0; r < o->n; r++) {
        const float *p = o->src + (size_t)r * o->ld + k0;
        const float m = o->mul[r], m2 = o->mul2[r];
        for (int k = 0; k < n; k++) b->w[k][r] = p[k] * m * m2;
    }
    for (int k = 0; k < sub; k++) b->imp[k] = q_enc_imp(o, k0 + k);
}

/* Codes of one sub-block; those of rows with s = 0 stay zero. */
static void pack_block(const grid *o, const block *b, uint8_t *tile, int i, const float *scale)
{
    const int type = o->in->type, k0 = i * o->in->sub;
    const int8_t *s8 = (const int8_t *)tile + LANES * i;
    float inv[LANES];
    for (int r = 0; r < LANES; r++) {
        const float sg = scale[r] * (float)s8[r];
        inv[r] = sg != 0.0f ? 1.0f / sg : 0.0f;
    }
    for (int k = 0; o->in->n_point && k < o->in->sub; k += 2) {
        int32_t code[LANES];
        nearest_points(o->in, code, b->w[k], b->w[k + 1], inv, b->imp[k], b->imp[k + 1]);
        for (int r = 0; r < LANES; r++)
            if (s8[r]) q_enc_put_point(type, tile, k0 + k, r, code[r]);
    }
    for (int k = 0; !o->in->n_point && k < o->in->sub; k++) {
        if (o->in->grid) {
            int32_t cell[LANES];
            cells(cell, b->w[k], inv);
            for (int r = 0; r < LANES; r++)
                if (s8[r]) q_enc_put(type, tile, k0 + k, r, o->code[cell[r]]);
        } else {
            float g[LANES];
            nearest(o, g, b->w[k], inv);
            for (int r = 0; r < LANES; r++)
                if (s8[r])
                    q_enc_put(type, tile, k0 + k, r, (int)g[r] + (type == Q_L6 ? 32 : 0));
        }
    }
}

/* ---- the passes ---- */

static void enc_max_ref(uint32_t max_bits[LANES], const float *src, size_t ld, int nrows, int k)
{
    for (int r = 0; r < LANES; r++)
        max_bits[r] = r < nrows ? q_max_bits(src + (size_t)r * ld, k) : 0;
}

static void enc_fit_ref(const q_enc *in, uint8_t *tiles, float top[LANES])
{
    grid o;
    block b;
    grid_init(&o, in);
    for (int r = 0; r < LANES; r++) top[r] = 0.0f;
    for (int t = 0; t < in->n_tile; t++) {
        for (int i = 0; i < Q_ENC_SUBS; i++) {
            float sigma[LANES];
            load_block(&b, in, (t * Q_ENC_SUBS + i) * in->sub);
            fit_block(&o, &b, sigma);
            for (int r = 0; r < LANES; r++)
                top[r] = fabsf(sigma[r]) > top[r] ? fabsf(sigma[r]) : top[r];
            memcpy(tiles + (size_t)t * in->tile_bytes + 64 + 64 * i, sigma, sizeof sigma);
        }
    }
}

static void enc_round_ref(const q_enc *in, uint8_t *tiles, const float *scale, double *num,
                          double *den)
{
    grid o;
    block b;
    grid_init(&o, in);
    for (int r = 0; r < LANES; r++) num[r] = den[r] = 0.0;
    for (int t = 0; t < in->n_tile; t++) {
        uint8_t *tile = tiles + (size_t)t * in->tile_bytes;
        for (int i = 0; i < Q_ENC_SUBS; i++) {
            float sigma[LANES];
            memcpy(sigma, tile + 64 + 64 * i, sizeof sigma);
            load_block(&b, in, (t * Q_ENC_SUBS + i) * in->sub);
            round_block(&o, &b, scale, sigma, (int8_t *)tile + LANES * i, num, den);
        }
    }
}

static void enc_pack_ref(const q_enc *in, uint8_t *tiles, const float *scale, const float *stored,
                         double *err, double *sum)
{
    grid o;
    block b;
    grid_init(&o, in);
    for (int t = 0; t < in->n_tile; t++) {
        uint8_t *tile = tiles + (size_t)t * in->tile_bytes;
        memset(tile + 64, 0, in->tile_bytes - 64);
        for (int i = 0; i < Q_ENC_SUBS; i++) {
            load_block(&b, in, (t * Q_ENC_SUBS + i) * in->sub);
            pack_block(&o, &b, tile, i, scale);
        }
    }
    q_enc_measure(in, tiles, stored, err, sum);
}

void q_ref_encode(q_kern *t)
{
    t->enc_max = enc_max_ref;
    t->enc_fit = enc_fit_ref;
    t->enc_round = enc_round_ref;
    t->enc_pack = enc_pack_ref;
}
