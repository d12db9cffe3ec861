/* ref_attn.c - the KV block and both products of attention in plain C (quant.h, exact.md 4).
 *
 * K lies in T16 order (16 positions are the rows of a group), so scores are the weight product
 * again.  V lies by 16 dims x 4 positions per line: there the dims are the lanes. */
#include "quant/ref.h"

#include "quant/scalar.h"
#include "quant/t16.h"

static int pad16(int hd) { return (hd + 15) / 16 * 16; }

/* ---- appending ---- */

static int put_k8_ref(void *blk, int p, const float *x, int hd)
{
    uint8_t *group = (uint8_t *)blk + (size_t)(p / Q_ROWS) * q_group_bytes(Q_L8, hd);
    const int row = p % Q_ROWS;
    const uint32_t bits = q_max_bits(x, hd);
    const float max = q_float(bits);
    if (bits > Q_BITS_FINITE) return 1;
    const bool zero = max < Q_TINY;
    const float rs = zero ? 0.0f : max / 16129.0f, inv = zero ? 0.0f : 127.0f / max;
    memcpy(group + 4 * row, &rs, 4);

    uint8_t *tile = group + 64;
    for (int t = 0; t < hd; t += Q_TILE, tile += 64 + 16 * Q_TILE) {
        for (int i = 0; i < 4; i++) {
            float v[16] = { 0 };
            for (int k = 0; k < 16 && t + 16 * i + k < hd; k++) v[k] = x[t + 16 * i + k];
            const float top = q_float(q_max_bits(v, 16)) * inv;
            const int n = q_rnei(top), up = n + ((float)n < top);
            const int s = up < 127 ? up : 127;
            const float step = rs * (float)s;
            tile[16 * i + row] = (uint8_t)s;
            for (int k = 0; k < 16; k++) {
                int q = 0;
                if (s) {
                    q = q_rnei(v[k] / step);
                    q = q < -127 ? -127 : q > 127 ? 127 : q;
                }
                tile[64 + q_byte_at(16 * i + k, row)] = (uint8_t)q;
            }
        }
    }
    return 0;
}

/* The scales come first, then four tiles of 64 positions. */
static size_t v8_codes(int hd) { return (size_t)(hd + 127) / 128 * Q_PIECE * sizeof(float); }

static size_t v8_at(int p, int dim, int hdp)
{
    return (size_t)(p / 64) * 64 * (size_t)hdp + (size_t)(dim / 16) * 1024 +
           (size_t)(p % 64 / 4) * 64 + (size_t)(dim % 16) * 4 + (size_t)(p % 4);
}

static int put_v8_ref(void *blk, int p, const float *x, int hd)
{
    float *dv = blk;
    uint8_t *codes = (uint8_t *)blk + v8_codes(hd);
    const int hdp = pad16(hd);
    for (int b = 0; b < hd; b += 128) {
        const int n = hd - b < 128 ? hd - b : 128;
        const uint32_t bits = q_max_bits(x + b, n);
        const float max = q_float(bits);
        if (bits > Q_BITS_FINITE) return 1;
        const bool zero = max < Q_TINY;
        const float inv = zero ? 0.0f : 127.0f / max;
        dv[b / 128 * Q_PIECE + p] = zero ? 0.0f : max / 127.0f;
        for (int i = b; i < b + n; i++)
            codes[v8_at(p, i, hdp)] = (uint8_t)(zero ? 0 : q_rnei(x[i] * inv));
    }
    for (int i = hd; i < hdp; i++) codes[v8_at(p, i, hdp)] = 0;
    return 0;
}

static int put_kf32_ref(void *blk, int p, const float *x, int hd)
{
    uint8_t *group = (uint8_t *)blk + (size_t)(p / Q_ROWS) * q_group_bytes(Q_F32, hd);
    for (int i = 0; i < q_pad_k(Q_F32, hd); i++) {
        const float v = i < hd ? x[i] : 0.0f;
        memcpy(group + 64 * (size_t)i + 4 * (size_t)(p % Q_ROWS), &v, 4);
    }
    return q_max_bits(x, hd) > Q_BITS_FINITE;
}

static int put_kbf16_ref(void *blk, int p, const float *x, int hd)
{
    uint8_t *group = (uint8_t *)blk + (size_t)(p / Q_ROWS) * q_group_bytes(Q_BF16, hd);
    for (int i = 0; i < q_pad_k(Q_BF16, hd); i++) {
        const uint16_t v = i < hd ? q_f32_to_bf16(x[i]) : 0;
        uint8_t *pair = group + 64 * (size_t)(i / 2) + 4 * (size_t)(p % Q_ROWS);
        memcpy(pair + 2 * (i % 2), &v, 2);
    }
    return q_max_bits(x, hd) > Q_BITS_FINITE;
}

static int put_vf32_ref(void *blk, int p, const float *x, int hd)
{
    const int hdp = pad16(hd);
    float *row = (float *)blk + (size_t)p * (size_t)hdp;
    for (int i = 0; i < hdp; i++) row[i] = i < hd ? x[i] : 0.0f;
    return q_max_bits(x, hd) > Q_BITS_FINITE;
}

static int put_vbf16_ref(void *blk, int p, const float *x, int hd)
{
    const int hdp = pad16(hd);
    uint16_t *row = (uint16_t *)blk + (size_t)p * (size_t)hdp;
    for (int i = 0; i < hdp; i++) row[i] = i < hd ? q_f32_to_bf16(x[i]) : 0;
    return q_max_bits(x, hd) > Q_BITS_FINITE;
}

/* ---- scores ---- */

static void attn_qk8_ref(float *s, size_t lds, const void *kblk, int ng, const q_acts *q2, int m0,
                         int m, float scale)
{
    const size_t bytes = q_group_bytes(Q_L8, q2->kt * Q_TILE);
    for (int g = 0; g < ng; g++) {
        const uint8_t *group = (const uint8_t *)kblk + (size_t)g * bytes;
        float row_scale[Q_ROWS];
        memcpy(row_scale, group, sizeof row_scale);
        for (int j = 0; j < m; j++) {
            float f[Q_ROWS] = { 0 };
            for (int t = 0; t < q2->kt; t++) {
                const uint8_t *tile = group + 64 + (size_t)t * (64 + 16 * Q_TILE);
                const size_t at = (size_t)t * (size_t)q2->M + 2 * (size_t)(m0 + j);
                const int8_t *hi = q2->q + at * Q_TILE, *lo = hi + Q_TILE;
                int32_t zh[Q_ROWS] = { 0 }, zl[Q_ROWS] = { 0 };
                for (int k = 0; k < Q_TILE; k++) {
                    for (int r = 0; r < Q_ROWS; r++) {
                        const int s8 = (int8_t)tile[16 * (k / 16) + r];
                        const int w = s8 * (int8_t)tile[64 + q_byte_at(k, r)];
                        zh[r] += w * hi[k];
                        zl[r] += w * lo[k];
                    }
                }
                for (int r = 0; r < Q_ROWS; r++)
                    f[r] = fmaf(q2->d[at + 1], (float)zl[r], fmaf(q2->d[at], (float)zh[r], f[r]));
            }
            for (int r = 0; r < Q_ROWS; r++)
                s[(size_t)j * lds + (size_t)(Q_ROWS * g + r)] = (row_scale[r] * f[r]) * scale;
        }
    }
}

static void attn_soft_ref(float *s, int nvis, int n, float *m, float *l)
{
    float max = s[0], lane[16] = { 0 };
    for (int t = 1; t < nvis; t++) max = s[t] > max ? s[t] : max;
    for (int t = 0; t < nvis; t++) {
        s[t] = q_exp(s[t] - max);
        lane[t % 16] += s[t];
    }
    for (int t = nvis; t < n; t++) s[t] = 0.0f;
    *m = max;
    *l = q_sum16(lane);
}

/* ---- values ---- */

static int attn_pv8_ref(float *o, size_t ldo, const void *vblk, int hd, const float *e, size_t lde,
                        const int *nvis, int m)
{
    const float *dv = vblk;
    const int8_t *codes = (const int8_t *)vblk + v8_codes(hd);
    const int hdp = pad16(hd);
    int bad = 0;
    for (int j = 0; j < m; j++, o += ldo, e += lde) {
        for (int i = 0; i < hd; i++) o[i] = 0.0f;
        for (int t0 = 0; t0 < nvis[j]; t0 += 64) {
            for (int b = 0; b < hd; b += 128) {
                float u[Q_TILE];
                int16_t q[Q_TILE];
                for (int t = 0; t < 64; t++)
                    u[t] = t0 + t < nvis[j] ? e[t0 + t] * dv[b / 128 * Q_PIECE + t0 + t] : 0.0f;
                const float d = q_ref_two_bytes(q, u, &bad);
                for (int i = b; i < hd && i < b + 128; i++) {
                    int32_t z = 0;
                    for (int t = 0; t < 64; t++) z += q[t] * codes[v8_at(t0 + t, i, hdp)];
                    o[i] = fmaf(d, (float)z, o[i]);
                }
            }
        }
    }
    return bad;
}

static int attn_pvf32_ref(float *o, size_t ldo, const void *vblk, int hd, const float *e,
                          size_t lde, const int *nvis, int m)
{
    const float *v = vblk;
    const int hdp = pad16(hd);
    for (int j = 0; j < m; j++, o += ldo, e += lde) {
        for (int i = 0; i < hd; i++) o[i] = 0.0f;
        for (int t = 0; t < nvis[j]; t++)
            for (int i = 0; i < hd; i++)
                o[i] = fmaf(e[t], v[(size_t)t * (size_t)hdp + (size_t)i], o[i]);
    }
    return 0;
}

static int attn_pvbf16_ref(float *o, size_t ldo, const void *vblk, int hd, const float *e,
                           size_t lde, const int *nvis, int m)
{
    const uint16_t *v = vblk;
    const int hdp = pad16(hd);
    for (int j = 0; j < m; j++, o += ldo, e += lde) {
        for (int i = 0; i < hd; i++) o[i] = 0.0f;
        for (int t = 0; t < nvis[j]; t++)
            for (int i = 0; i < hd; i++)
                o[i] = fmaf(e[t], q_bf16_to_f32(v[(size_t)t * (size_t)hdp + (size_t)i]), o[i]);
    }
    return 0;
}

/* ---- pieces ---- */

static void attn_merge_ref(float *o, float *m, float *l, const float *o2, float m2, float l2,
                           int hd)
{
    const float top = m2 > *m ? m2 : *m;
    const float a = q_exp(*m - top), b = q_exp(m2 - top);
    *m = top;
    *l = fmaf(*l, a, l2 * b);
    for (int i = 0; i < hd; i++) o[i] = fmaf(o[i], a, o2[i] * b);
}

static void attn_out_ref(float *y, const float *o, float l, int hd)
{
    for (int i = 0; i < hd; i++) y[i] = o[i] / l + 0.0f;
}

void q_ref_attn(q_kern *t)
{
    t->put_k8 = put_k8_ref;
    t->put_v8 = put_v8_ref;
    t->put_kf32 = put_kf32_ref;
    t->put_vf32 = put_vf32_ref;
    t->put_kbf16 = put_kbf16_ref;
    t->put_vbf16 = put_vbf16_ref;
    t->attn_qk8 = attn_qk8_ref;
    t->attn_soft = attn_soft_ref;
    t->attn_pv8 = attn_pv8_ref;
    t->attn_pvf32 = attn_pvf32_ref;
    t->attn_pvbf16 = attn_pvbf16_ref;
    t->attn_merge = attn_merge_ref;
    t->attn_out = attn_out_ref;
}
