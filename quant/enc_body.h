/* enc_body.h - the passes of the encoder (ref_encode.c) in 16 lanes, a lane per row; each
 * enc_<isa>.c compiles it once, behind the enc_v16.h of its architecture.
 *
 * The bits are the reference's because each lane does the reference's operations in its order.
 * Where it differs: w * inv * 2 is w * (inv * 2), as doubling is exact; sums of g * g without
 * importance are integers below 2^24, where fma and * + agree; without importance the factor 1 is
 * left out.  Nearest codes are looked up ENC_K k at a time, in whichever way an ISA is good at. */
#ifndef QUANT_ENC_BODY_H
#define QUANT_ENC_BODY_H

#include "quant/encode.h"

#include <string.h>

/* ---- one sub-block ---- */

typedef struct enc_block {
    v16f w[Q_ENC_SUB];      /* normalised, k-major */
    float imp[Q_ENC_SUB];
    bool plain;             /* all of imp is 1 */
} enc_block;

/* Kinds of formats, by the points of their grid.  The search, where the time goes, has its own code
 * for each; everything else asks as it goes (ANY), which keeps the program small. */
enum { ANY = -1, LINEAR = 0, PAIRS = 2, GRID16 = 16, GRID32 = 32 };

typedef struct enc_pass {
    const q_enc *in;
    enc_grid table;
    v16f mul, mul2;
} enc_pass;

static void pass_init(enc_pass *o, const q_enc *in)
{
    o->in = in;
    if (in->grid) enc_grid_init(&o->table, in, in->n_grid == GRID32);
    o->mul = v16_load(in->mul);
    o->mul2 = v16_load(in->mul2);
}

/* Source weights of 16 k from k0, k-major; zeros where there are none. */
static void __attribute__((noinline)) load16(v16f w[16], const q_enc *in, int k0)
{
    const int left = in->k - k0 < 16 ? (in->k > k0 ? in->k - k0 : 0) : 16;
    const float *p = in->src + k0;
    if (left == 16 && in->n == Q_ROWS) {
        for (int r = 0; r < Q_ROWS; r++) w[r] = v16_load(p + (size_t)r * in->ld);
    } else {
        for (int r = 0; r < Q_ROWS; r++) {
            w[r] = v16_zero();
            if (r < in->n && left) w[r] = v16_load_n(p + (size_t)r * in->ld, left);
        }
    }
    v16_transpose(w);
}

static void __attribute__((noinline)) load_block(enc_block *b, const enc_pass *o, int k0)
{
    const q_enc *in = o->in;
    const int sub = in->sub;
    for (int i = 0; i < sub; i += 16) load16(b->w + i, in, k0 + i);
    for (int i = 0; i < sub; i++) b->w[i] = v16_mul(v16_mul(b->w[i], o->mul), o->mul2);
    b->plain = !in->imp && k0 + sub <= in->k;
    v16_store(b->imp, v16_set1(1.0f));
    v16_store(b->imp + 16, v16_set1(1.0f));
    for (int i = 0; !b->plain && i < sub; i++) b->imp[i] = q_enc_imp(in, k0 + i);
}

/* x, y held within lo..hi; what is not a number becomes lo. */
Q_INLINE v16f within(v16f x, float lo, float hi)
{
    return v16_min(v16_max(x, v16_set1(lo)), v16_set1(hi));
}

/* x and y of the points that the table has for the pair (w[0], w[1]) * inv; far: the pair may lie
 * outside of it. */
Q_INLINE void table_point(v16f g[2], const enc_pass *o, const v16f w[2], v16f inv, bool far)
{
    const float lo = -Q_ENC_CELL, hi = Q_ENC_CELL - 1;
    v16f x = v16_mul(w[0], inv), y = v16_mul(w[1], inv);
    if (far) {
        x = within(x, lo, hi);
        y = within(y, lo, hi);
    }
    const v16i at = v16i_add(v16i_mul16(v16_rne(x), q_enc_cell(1, 0)), v16_rne(y));
    const v16i e = v16i_gather(q_enc_middle(o->in), at);
    g[0] = v16_float(v16i_byte(e, 0));
    g[1] = v16_float(v16i_byte(e, 1));
}

/* k that the search looks up together. */
Q_INLINE int at_once(int kind) { return kind == PAIRS && ENC_K < 2 ? 2 : ENC_K; }

/* Grid values nearest to w * inv for at_once k. */
Q_INLINE void nearest(v16f g[4], const enc_pass *o, const v16f w[4], v16f inv, int kind, bool far)
{
    if (kind == PAIRS) {
        Q_UNROLL
        for (int i = 0; i < at_once(kind); i += 2) table_point(g + i, o, w + i, inv, far);
        return;
    }
    if (kind != LINEAR) {
        enc_values(g, w, inv, &o->table, kind == GRID32, far);
        return;
    }
    Q_UNROLL
    for (int i = 0; i < ENC_K; i++)
        g[i] = v16_round(within(v16_mul(w[i], inv), o->in->lo, o->in->hi));
}

/* The same for 4 k. */
Q_INLINE void nearest4(v16f g[4], const enc_pass *o, const v16f w[4], v16f inv, int kind)
{
    for (int i = 0; i < 4; i += at_once(kind)) nearest(g + i, o, w + i, inv, kind, true);
}

static void __attribute__((noinline)) nearest_any(v16f g[4], const enc_pass *o, const v16f w[4],
                                                  v16f inv)
{
    if (o->in->n_point) nearest4(g, o, w, inv, PAIRS);
    else if (!o->in->grid) nearest4(g, o, w, inv, LINEAR);
    else if (o->in->n_grid == GRID16) nearest4(g, o, w, inv, GRID16);
    else nearest4(g, o, w, inv, GRID32);
}

/* For codes nearest under 1 / inv: wg = sum imp * w * g, gg = sum imp * g * g. */
static void __attribute__((noinline)) products_any(v16f *wg, v16f *gg, const enc_pass *o,
                                                   const enc_block *b, v16f inv)
{
    v16f p = v16_zero(), q = v16_zero(), g[4];
    for (int k = 0; k < o->in->sub; k++) {
        if (k % 4 == 0) nearest_any(g, o, b->w + k, inv);
        const v16f ig = v16_mul(v16_set1(b->imp[k]), g[k % 4]);
        p = v16_add(p, v16_mul(b->w[k], ig));
        q = v16_add(q, v16_mul(g[k % 4], ig));
    }
    *wg = p;
    *gg = q;
}

/* The same where imp is 1; far as in enc_values: in the search the weights of a row are within
 * reach of the grid. */
Q_INLINE void products(v16f *wg, v16f *gg, const enc_pass *o, const enc_block *b, v16f inv,
                       int kind, bool far)
{
    v16f p = v16_zero(), q = v16_zero();
    for (int k = 0; k < o->in->sub; k += at_once(kind)) {
        v16f g[4];
        nearest(g, o, b->w + k, inv, kind, far);
        Q_UNROLL
        for (int i = 0; i < at_once(kind); i++) {
            p = v16_add(p, v16_mul(b->w[k + i], g[i]));
            q = v16_fma(g[i], g[i], q);
        }
    }
    *wg = p;
    *gg = q;
}

/* 1 / the weight of largest magnitude of each row, 0 if it vanishes. */
static v16f __attribute__((noinline)) largest(const enc_pass *o, const enc_block *b)
{
    const v16f zero = v16_zero();
    v16f top = zero, mag = zero;
    for (int k = 0; k < o->in->sub; k++) {
        const v16f a = v16_abs(b->w[k]);
        top = v16f_where_gt(a, mag, b->w[k], top);
        mag = v16_max(a, mag);
    }
    /* a >= VANISHING is not (VANISHING > a) */
    return v16f_where_gt(v16_set1(Q_ENC_VANISHING), mag, zero, v16_div(v16_set1(1.0f), top));
}

Q_INLINE v16f fit_block(const enc_pass *o, const enc_block *b, int kind)
{
    const v16f zero = v16_zero(), one = v16_set1(1.0f), rcp = largest(o, b);
    v16f sigma = zero, best = zero;
    for (int i = 0; i < o->in->n_place; i++) {
        v16f wg, gg;
        const v16f inv = v16_mul(v16_set1(o->in->place[i]), rcp);
        if (kind == ANY) products_any(&wg, &gg, o, b, inv);
        else products(&wg, &gg, o, b, inv, kind, false);
        const v16f s = v16_div(wg, v16f_where_gt(gg, zero, gg, one)), gain = v16_mul(wg, s);
        sigma = v16f_where_gt(gain, best, s, sigma);
        best = v16f_where_gt(gain, best, gain, best);
    }
    return sigma;
}

/* 1 / x, but 0 for 0. */
Q_INLINE v16f reciprocal(v16f x)
{
    const v16f zero = v16_zero();
    return v16f_where_gt(v16_abs(x), zero, v16_div(v16_set1(1.0f), x), zero);
}

static void round_block(const enc_pass *o, const enc_block *b, v16f scale, v16f sigma,
                          int8_t *s8, v16d *num, v16d *den)
{
    const v16f zero = v16_zero();
    const v16f mid = v16f_where_gt(scale, zero, v16_round(v16_div(sigma, scale)), zero);
    const bool n4 = b->plain && o->in->n_grid == GRID16; /* most of what is encoded */
    v16f s = zero, best = zero, bwg = zero, bgg = zero;
    for (int i = -o->in->reach; i <= o->in->reach; i++) {
        v16f wg, gg, t = v16_add(mid, v16_set1((float)i));
        t = v16_min(v16_max(t, v16_set1(-127.0f)), v16_set1(127.0f));
        const v16f sg = v16_mul(scale, t);
        if (n4) products(&wg, &gg, o, b, reciprocal(sg), GRID16, true);
        else products_any(&wg, &gg, o, b, reciprocal(sg));
        const v16f gain = v16_mul(sg, v16_sub(v16_add(wg, wg), v16_mul(sg, gg)));
        s = v16f_where_gt(gain, best, t, s); /* s = 0 gains 0 */
        bwg = v16f_where_gt(gain, best, wg, bwg);
        bgg = v16f_where_gt(gain, best, gg, bgg);
        best = v16f_where_gt(gain, best, gain, best);
    }
    v16i_store_bytes(s8, v16_rne(s));
    *num = v16d_add(*num, v16_double(v16_mul(s, bwg)));
    *den = v16d_add(*den, v16_double(v16_mul(v16_mul(s, s), bgg)));
}

/* ---- packing ---- */

/* Codes nearest to w * inv of 4 k, k = byte of a lane; g: their values in the grid. */
static v16i codes4(const enc_pass *o, v16f g[4], const v16f w[4], v16f inv)
{
    if (o->in->grid) {
        return o->in->n_grid == GRID16 ? enc_codes4(g, w, inv, &o->table, false)
                                       : enc_codes4(g, w, inv, &o->table, true);
    }
    nearest4(g, o, w, inv, LINEAR);
    v16i line = v16i_set1(0);
    const v16i first = v16i_set1(o->in->type == Q_L6 ? 32 : 0), byte = v16i_set1(255);
    Q_UNROLL
    for (int i = 0; i < 4; i++) {
        const v16i c = v16i_and(v16i_add(v16_rne(g[i]), first), byte);
        line = v16i_or(line, v16i_shl(c, 8 * i));
    }
    return line;
}

/* Puts the codes of chunk c (4 k) of half a tile into its planes, which were zero (t16.h). */
static void put_chunk(int type, uint8_t *planes, int c, v16i codes)
{
    if (type == Q_L8) {
        v16i_store(planes + 64 * c, codes);
        return;
    }
    const v16i low = v16i_and(codes, v16i_set1(0x0f0f0f0f));
    uint8_t *line = planes + 64 * (c / 8 * 4 + c % 4);
    v16i_store(line, v16i_or(v16i_load(line), c % 8 < 4 ? low : v16i_shl(low, 4)));
    if (type != Q_L6 && type != Q_N5) return;
    const v16i high = v16i_and(v16i_shr(codes, 4), v16i_set1(0x03030303));
    line = planes + 512 + 64 * (type == Q_L6 ? c / 8 * 2 + c % 2 : c / 8);
    const int bit = type == Q_L6 ? c % 8 / 2 * 2 : c % 8;
    v16i_store(line, v16i_or(v16i_load(line), v16i_shl(high, bit)));
}

/* Adds the error of weights w, written as stored * s * g, and their squares. */
static void __attribute__((noinline)) add_error(v16d *err, v16d *sum, v16f w, v16f stored, v16f s,
                                                v16f g)
{
    /* s * g is exact; in a missing row all is 0 */
    const v16d v = v16_double(v16_mul(stored, v16_mul(s, g)));
    const v16d x = v16_double(w), d = v16d_sub(x, v);
    *err = v16d_add(*err, v16d_mul(d, d));
    *sum = v16d_add(*sum, v16d_mul(x, x));
}

/* Codes of the pair (w[0], w[1]) * inv: see nearest_points in ref_encode.c. */
static v16i __attribute__((noinline)) nearest_points(const q_enc *in, const v16f w[2], v16f inv,
                                                     const float imp[2])
{
    const v16f x = within(v16_mul(w[0], inv), -Q_ENC_FAR, Q_ENC_FAR);
    const v16f y = within(v16_mul(w[1], inv), -Q_ENC_FAR, Q_ENC_FAR);
    const v16f a = v16_mul(v16_set1(imp[0]), x), b = v16_mul(v16_set1(imp[1]), y);
    v16f best = v16_set1(-Q_ENC_FAR * Q_ENC_FAR);
    v16i code = v16i_set1(0);
    for (int i = 0; i < in->n_point; i++) {
        const float px = in->px[i], py = in->py[i];
        const float own = px * px * 0.5f * imp[0] + py * py * 0.5f * imp[1];
        const v16f s = v16_sub(v16_add(v16_mul(a, v16_set1(px)), v16_mul(b, v16_set1(py))),
                               v16_set1(own));
        code = v16i_where_gt(s, best, v16i_set1(i), code);
        best = v16f_where_gt(s, best, s, best);
    }
    return code;
}

/* As pack_block, for pairs. */
static void pack_points(const enc_pass *o, uint8_t *tile, int t, int i, v16f scale, v16f stored,
                        v16d *err, v16d *sum)
{
    const q_enc *in = o->in;
    const int k0 = (t * Q_ENC_SUBS + i) * in->sub;
    const v16i s8 = v16i_load_s8((const int8_t *)tile + Q_ROWS * i), some = v16i_nonzero(s8);
    const v16f s = v16_float(s8), inv = reciprocal(v16_mul(scale, s));
    for (int j = 0; j < in->sub; j += 16) {
        v16f w[16], n[2];
        load16(w, in, k0 + j);
        for (int k = 0; k < 16; k += 2) {
            const int at = k0 + j + k;
            const float imp[2] = { q_enc_imp(in, at), q_enc_imp(in, at + 1) };
            for (int l = 0; l < 2; l++) n[l] = v16_mul(v16_mul(w[k + l], o->mul), o->mul2);
            const v16i code = v16i_and(nearest_points(in, n, inv, imp), some);
            const v16i point = v16i_gather(in->point, code);
            int32_t c[Q_ROWS];
            v16i_store(c, code);
            for (int r = 0; r < Q_ROWS; r++)
                q_enc_put_point(in->type, tile, i * in->sub + j + k, r, c[r]);
            if (at < in->k) add_error(err, sum, w[k], stored, s, v16_float(v16i_byte(point, 0)));
            if (at + 1 < in->k)
                add_error(err, sum, w[k + 1], stored, s, v16_float(v16i_byte(point, 1)));
        }
    }
}

static void pack_block(const enc_pass *o, uint8_t *tile, int t, int i, v16f scale, v16f stored,
                         v16d *err, v16d *sum)
{
    const q_enc *in = o->in;
    const int sub = in->sub, k0 = (t * Q_ENC_SUBS + i) * sub;
    const v16i s8 = v16i_load_s8((const int8_t *)tile + Q_ROWS * i), some = v16i_nonzero(s8);
    const v16f s = v16_float(s8), inv = reciprocal(v16_mul(scale, s));
    for (int j = 0; j < sub; j += 16) {
        v16f w[16], n[4], g[4];
        load16(w, in, k0 + j);
        for (int k = 0; k < 16; k += 4) {
            Q_UNROLL
            for (int l = 0; l < 4; l++) n[l] = v16_mul(v16_mul(w[k + l], o->mul), o->mul2);
            const v16i codes = codes4(o, g, n, inv);
            const int at = i * sub + j + k; /* in the tile */
            put_chunk(in->type, tile + 64 + 512 * (at / Q_TILE), at % Q_TILE / 4,
                      v16i_and(codes, some));
            for (int l = 0; l < 4 && k0 + j + k + l < in->k; l++)
                add_error(err, sum, w[k + l], stored, s, g[l]);
        }
    }
}

/* ---- the passes ---- */

static v16f fit_any(const enc_pass *o, const enc_block *b) { return fit_block(o, b, ANY); }

static void enc_fit_v16(const q_enc *in, uint8_t *tiles, float top[16])
{
    enc_pass o;
    enc_block b;
    pass_init(&o, in);
    v16f most = v16_zero();
    for (int t = 0; t < in->n_tile; t++) {
        for (int i = 0; i < Q_ENC_SUBS; i++) {
            load_block(&b, &o, (t * Q_ENC_SUBS + i) * in->sub);
            const v16f sigma = !b.plain                ? fit_any(&o, &b)
                               : in->n_point           ? fit_block(&o, &b, PAIRS)
                               : !in->grid             ? fit_block(&o, &b, LINEAR)
                               : in->n_grid == GRID16  ? fit_block(&o, &b, GRID16)
                                                       : fit_block(&o, &b, GRID32);
            most = v16_max(v16_abs(sigma), most);
            v16_store((float *)(void *)(tiles + (size_t)t * in->tile_bytes + 64 + 64 * i), sigma);
        }
    }
    v16_store(top, most);
}

static void enc_round_v16(const q_enc *in, uint8_t *tiles, const float scale[16], double num[16],
                          double den[16])
{
    enc_pass o;
    enc_block b;
    pass_init(&o, in);
    v16d n = v16d_zero(), d = v16d_zero();
    for (int t = 0; t < in->n_tile; t++) {
        uint8_t *tile = tiles + (size_t)t * in->tile_bytes;
        for (int i = 0; i < Q_ENC_SUBS; i++) {
            const v16f sigma = v16_load((const float *)(const void *)(tile + 64 + 64 * i));
            load_block(&b, &o, (t * Q_ENC_SUBS + i) * in->sub);
            round_block(&o, &b, v16_load(scale), sigma, (int8_t *)tile + Q_ROWS * i, &n, &d);
        }
    }
    v16d_store(num, n);
    v16d_store(den, d);
}

static void enc_pack_v16(const q_enc *in, uint8_t *tiles, const float scale[16],
                         const float stored[16], double err[16], double sum[16])
{
    enc_pass o;
    pass_init(&o, in);
    v16d e = v16d_zero(), s = v16d_zero();
    for (int t = 0; t < in->n_tile; t++) {
        uint8_t *tile = tiles + (size_t)t * in->tile_bytes;
        memset(tile + 64, 0, in->tile_bytes - 64);
        for (int i = 0; i < Q_ENC_SUBS; i++) {
            if (in->n_point) pack_points(&o, tile, t, i, v16_load(scale), v16_load(stored), &e, &s);
            else pack_block(&o, tile, t, i, v16_load(scale), v16_load(stored), &e, &s);
        }
    }
    v16d_store(err, e);
    v16d_store(sum, s);
}

static void enc_max_v16(uint32_t max_bits[16], const float *src, size_t ld, int nrows, int k)
{
    for (int r = 0; r < Q_ROWS; r++) {
        const float *p = src + (size_t)r * ld;
        v16i m = v16i_set1(0);
        int i = r < nrows ? 0 : k;
        for (; i + 16 <= k; i += 16) m = v16i_maxu(m, v16_abs_bits(v16_load(p + i)));
        if (i < k) m = v16i_maxu(m, v16_abs_bits(v16_load_n(p + i, k - i)));
        max_bits[r] = v16i_hmaxu(m);
    }
}

Q_INLINE void fill_enc(q_kern *t)
{
    t->enc_max = enc_max_v16;
    t->enc_fit = enc_fit_v16;
    t->enc_round = enc_round_v16;
    t->enc_pack = enc_pack_v16;
}

#endif
