/* attn_body.h - the parts of attention that are plain 16-lane float work: softmax of a piece, float
 * values, merging, output, and the writing of the caches.  The two integer products are in
 * attn_<isa>.c, which compile this once each.
 *
 * Lanes are dims or positions; no sum is split, so the order is that of quant.h on every ISA. */
#ifndef QUANT_X86_ATTN_BODY_H
#define QUANT_X86_ATTN_BODY_H

#include "quant/quant.h"
#include "quant/x86/v16.h"
#include "quant/x86/vec_body.h"

/* Bytes of the dv scales in front of the codes of an int8 V block. */
Q_INLINE size_t v8_codes(int hd) { return (size_t)(hd + 127) / 128 * Q_PIECE * sizeof(float); }

/* ---- appending to the int8 cache ---- */

static int put_k8_v16(void *blk, int p, const float *x, int hd)
{
    uint8_t *tile = (uint8_t *)blk + (size_t)(p / Q_ROWS) * q_group_bytes(Q_L8, hd);
    const int row = p % Q_ROWS;
    v16i top = v16i_set1(0);
    for (int i = 0; i < hd; i += 16)
        top = v16i_maxu(top, v16_abs_bits(v16_load_n(x + i, lanes_at(i, hd))));
    const uint32_t bits = v16i_hmaxu(top);
    if (bits > FINITE_MAX) return 1;
    const float max = f32_of_bits(bits);
    const float rs = drops(bits) ? 0.0f : max / 16129.0f, inv = drops(bits) ? 0.0f : 127.0f / max;
    __builtin_memcpy(tile + 4 * row, &rs, sizeof rs);
    tile += 64;
    for (int t = 0; t < hd; t += Q_TILE, tile += 64 + 16 * Q_TILE) {
        v16f v[4];
        load_tile(v, x + t, hd - t);
        for (int i = 0; i < 4; i++) {
            const float a = f32_of_bits(v16i_hmaxu(v16_abs_bits(v[i]))) * inv;
            const int n = _mm_cvtss_si32(_mm_set_ss(a)), up = n + ((float)n < a);
            const int s = up < 127 ? up : 127;
            v16i q = v16i_set1(0);
            if (s) {
                q = v16_rne(v16_div(v[i], v16_set1(rs * (float)s)));
                q = v16i_clamp(q, v16i_set1(-127), v16i_set1(127));
            }
            int8_t code[16];
            _mm_storeu_si128((__m128i *)code, v16i_bytes(q));
            tile[16 * i + row] = (uint8_t)s;
            for (int c = 0; c < 4; c++)
                __builtin_memcpy(tile + 64 + 64 * (4 * i + c) + 4 * row, code + 4 * c, 4);
        }
    }
    return 0;
}

static int put_v8_v16(void *blk, int p, const float *x, int hd)
{
    float *dv = blk;
    const size_t hdp = ((size_t)hd + 15) / 16 * 16;
    int8_t *line = (int8_t *)blk + v8_codes(hd) + (size_t)(p / 64) * 64 * hdp + 64 * (p % 64 / 4);
    for (int b = 0; b < hd; b += 128) {
        const int end = hd < b + 128 ? hd : b + 128;
        v16i top = v16i_set1(0);
        for (int i = b; i < end; i += 16)
            top = v16i_maxu(top, v16_abs_bits(v16_load_n(x + i, lanes_at(i, end))));
        const uint32_t bits = v16i_hmaxu(top);
        if (bits > FINITE_MAX) return 1;
        const float max = f32_of_bits(bits);
        const v16f inv = v16_set1(drops(bits) ? 0.0f : 127.0f / max);
        dv[b / 128 * Q_PIECE + p] = drops(bits) ? 0.0f : max / 127.0f;
        for (int i = b; i < end; i += 16, line += 1024) { /* 16 dims x 64 positions */
            const v16f v = v16_load_n(x + i, lanes_at(i, end));
            v16i_store_byte(line, p % 4, v16_rne(v16_mul(v, inv)));
        }
    }
    return 0;
}

/* ---- appending to the float cache ---- */

/* Sixteen floats as bf16, round to nearest even; what is not finite ends in an error anyway. */
Q_INLINE v16i bf16_bits(v16f x)
{
    const v16i b = v16_bits(x), odd = v16i_and(v16i_shr16(b), v16i_set1(1));
    return v16i_shr16(v16i_add(v16i_add(b, v16i_set1(0x7fff)), odd));
}

/* K: a position is one lane of every line, so its values go to lines 64 bytes apart. */
Q_INLINE int put_k_float(const q_kv type, void *blk, int p, const float *x, int hd)
{
    const int id = type == Q_KV_F32 ? Q_F32 : Q_BF16, end = (hd + 63) / 64 * 64;
    uint8_t *lane = (uint8_t *)blk + (size_t)(p / Q_ROWS) * q_group_bytes(id, hd)
                    + 4 * (size_t)(p % Q_ROWS);
    v16i top = v16i_set1(0);
    for (int i = 0; i < end; i += 16) {
        const v16f v = i < hd ? v16_load_n(x + i, lanes_at(i, hd)) : v16_zero();
        top = v16i_maxu(top, v16_abs_bits(v));
        uint32_t four[16];
        const int lines = type == Q_KV_F32 ? 16 : 8;
        if (type == Q_KV_F32) v16_store((float *)(void *)four, v);
        else v16i_store_u16((uint16_t *)(void *)four, bf16_bits(v));
        for (int j = 0; j < lines; j++, lane += 64) __builtin_memcpy(lane, &four[j], 4);
    }
    return v16i_hmaxu(top) > FINITE_MAX;
}

/* V: rows of whole sixteens. */
Q_INLINE int put_v_float(const q_kv type, void *blk, int p, const float *x, int hd)
{
    const size_t row = (size_t)p * (((size_t)hd + 15) / 16 * 16);
    v16i top = v16i_set1(0);
    for (int i = 0; i < hd; i += 16) {
        const v16f v = v16_load_n(x + i, lanes_at(i, hd));
        top = v16i_maxu(top, v16_abs_bits(v));
        if (type == Q_KV_F32) v16_store((float *)blk + row + i, v);
        else v16i_store_u16((uint16_t *)blk + row + i, bf16_bits(v));
    }
    return v16i_hmaxu(top) > FINITE_MAX;
}

static int put_kf32_v16(void *blk, int p, const float *x, int hd)
{
    return put_k_float(Q_KV_F32, blk, p, x, hd);
}

static int put_kbf16_v16(void *blk, int p, const float *x, int hd)
{
    return put_k_float(Q_KV_BF16, blk, p, x, hd);
}

static int put_vf32_v16(void *blk, int p, const float *x, int hd)
{
    return put_v_float(Q_KV_F32, blk, p, x, hd);
}

static int put_vbf16_v16(void *blk, int p, const float *x, int hd)
{
    return put_v_float(Q_KV_BF16, blk, p, x, hd);
}

/* ---- softmax of a piece ---- */

static void attn_soft_v16(float *s, int nvis, int n, float *m, float *l)
{
    v16f top = v16_set1(s[0]);
    for (int t = 0; t < nvis; t += 16) {
        const int left = lanes_at(t, nvis);
        top = v16_max(top, v16_first_of(v16_load_n(s + t, left), top, left));
    }
    float max = v16_hmax(top);
    /* Of zeros of both signs the first is the maximum. */
    for (int t = 0; max == 0.0f && t < nvis; t++) {
        if (s[t] != 0.0f) continue;
        max = s[t];
        break;
    }
    const v16f mv = v16_set1(max);
    v16f sum = v16_zero();
    int t = 0;
    for (; t + 16 <= nvis; t += 16) {
        const v16f e = v16_exp(v16_sub(v16_load(s + t), mv));
        v16_store(s + t, e);
        sum = v16_add(sum, e);
    }
    if (t < nvis) {
        const int left = nvis - t;
        const v16f e = v16_keep(v16_exp(v16_sub(v16_load_n(s + t, left), mv)), left);
        v16_store(s + t, e);
        sum = v16_add(sum, e);
        t += 16;
    }
    for (; t < n; t += 16) v16_store(s + t, v16_zero());
    *m = max;
    *l = v16_sum(sum);
}

/* ---- float values ---- */

Q_INLINE v16f load_v(const q_kv type, const void *row, int dim)
{
    return type == Q_KV_F32 ? v16_load((const float *)row + dim)
                            : v16_load_bf16((const uint16_t *)row + dim);
}

enum { PV_Q = 4 }; /* queries that share a row of V */

/* Positions t0 .. t1-1 for `cols` vectors of dims from dim, Q queries. */
Q_INLINE void pv_float(const q_kv type, const int Q, const int cols, float *o, size_t ldo,
                       const uint8_t *v, size_t row, int dim, int hd, const float *e, size_t lde,
                       int t0, int t1)
{
    v16f acc[PV_Q][2];
    Q_UNROLL
    for (int j = 0; j < Q; j++) {
        Q_UNROLL
        for (int c = 0; c < cols; c++) {
            const int at = dim + 16 * c;
            acc[j][c] = t0 ? v16_load_n(o + (size_t)j * ldo + at, lanes_at(at, hd)) : v16_zero();
        }
    }
    for (int t = t0; t < t1; t++) {
        v16f x[2];
        Q_UNROLL
        for (int c = 0; c < cols; c++) x[c] = load_v(type, v + row * (size_t)t, dim + 16 * c);
        Q_UNROLL
        for (int j = 0; j < Q; j++) {
            const v16f w = v16_set1(e[(size_t)j * lde + (size_t)t]);
            Q_UNROLL
            for (int c = 0; c < cols; c++) acc[j][c] = v16_fma(w, x[c], acc[j][c]);
        }
    }
    Q_UNROLL
    for (int j = 0; j < Q; j++) {
        Q_UNROLL
        for (int c = 0; c < cols; c++) {
            const int at = dim + 16 * c;
            v16_store_n(o + (size_t)j * ldo + at, acc[j][c], lanes_at(at, hd));
        }
    }
}

/* All dims of Q queries. */
Q_INLINE void pv_float_dims(const q_kv type, const int Q, float *o, size_t ldo, const uint8_t *v,
                            size_t row, int hd, const float *e, size_t lde, int t0, int t1)
{
    int dim = 0;
    for (; dim + 16 < hd; dim += 32) pv_float(type, Q, 2, o, ldo, v, row, dim, hd, e, lde, t0, t1);
    if (dim < hd) pv_float(type, Q, 1, o, ldo, v, row, dim, hd, e, lde, t0, t1);
}

/* Queries in fours over the positions all four see, then each alone over the rest of its own. */
Q_INLINE int attn_pv_float(const q_kv type, float *o, size_t ldo, const void *vblk, int hd,
                           const float *e, size_t lde, const int *nvis, int m)
{
    const size_t row = (size_t)(hd + 15) / 16 * 16 * (type == Q_KV_F32 ? 4 : 2);
    for (int j = 0; j < m;) {
        float *oj = o + (size_t)j * ldo;
        const float *ej = e + (size_t)j * lde;
        if (m - j < PV_Q) {
            pv_float_dims(type, 1, oj, ldo, vblk, row, hd, ej, lde, 0, nvis[j]);
            j++;
            continue;
        }
        int common = nvis[j];
        for (int i = 1; i < PV_Q; i++) common = nvis[j + i] < common ? nvis[j + i] : common;
        pv_float_dims(type, PV_Q, oj, ldo, vblk, row, hd, ej, lde, 0, common);
        for (int i = 0; i < PV_Q; i++, j++, oj += ldo, ej += lde)
            if (nvis[j] > common)
                pv_float_dims(type, 1, oj, ldo, vblk, row, hd, ej, lde, common, nvis[j]);
    }
    return 0;
}

static int attn_pvf32_v16(float *o, size_t ldo, const void *vblk, int hd, const float *e,
                          size_t lde, const int *nvis, int m)
{
    return attn_pv_float(Q_KV_F32, o, ldo, vblk, hd, e, lde, nvis, m);
}

static int attn_pvbf16_v16(float *o, size_t ldo, const void *vblk, int hd, const float *e,
                           size_t lde, const int *nvis, int m)
{
    return attn_pv_float(Q_KV_BF16, o, ldo, vblk, hd, e, lde, nvis, m);
}

/* ---- pieces ---- */

static void attn_merge_v16(float *o, float *m, float *l, const float *o2, float m2, float l2,
                           int hd)
{
    const float top = m2 > *m ? m2 : *m;
    const float a = v16_exp1(*m - top), b = v16_exp1(m2 - top);
    *m = top;
    *l = __builtin_fmaf(*l, a, l2 * b);
    const v16f av = v16_set1(a), bv = v16_set1(b);
    for (int i = 0; i < hd; i += 16) {
        const int left = lanes_at(i, hd);
        const v16f add = v16_mul(v16_load_n(o2 + i, left), bv);
        v16_store_n(o + i, v16_fma(v16_load_n(o + i, left), av, add), left);
    }
}

static void attn_out_v16(float *y, const float *o, float l, int hd)
{
    const v16f lv = v16_set1(l);
    for (int i = 0; i < hd; i += 16) {
        const int left = lanes_at(i, hd);
        v16_store_n(y + i, v16_add(v16_div(v16_load_n(o + i, left), lv), v16_zero()), left);
    }
}

/* ---- the weights of one tile of positions ---- */

/* u[t] = e[t] * dv[t] for the first n of 64 positions, quantised to q; returns d. */
Q_INLINE float whole_weights(v16i q[4], const float *e, const float *dv, int n, int *bad)
{
    v16f u[4], s[4];
    load_tile(u, e, n);
    load_tile(s, dv, n);
    Q_UNROLL
    for (int i = 0; i < 4; i++) u[i] = v16_mul(u[i], s[i]);
    return whole_tile(q, u, bad);
}

Q_INLINE void fill_attn(q_kern *t)
{
    t->put_k8 = put_k8_v16;
    t->put_v8 = put_v8_v16;
    t->put_kf32 = put_kf32_v16;
    t->put_vf32 = put_vf32_v16;
    t->put_kbf16 = put_kbf16_v16;
    t->put_vbf16 = put_vbf16_v16;
    t->attn_soft = attn_soft_v16;
    t->attn_pvf32 = attn_pvf32_v16;
    t->attn_pvbf16 = attn_pvbf16_v16;
    t->attn_merge = attn_merge_v16;
    t->attn_out = attn_out_v16;
}

#endif
