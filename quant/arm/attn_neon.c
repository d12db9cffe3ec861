/* attn_neon.c - attention on baseline AArch64: appending to the cache, softmax of a piece, values,
 * merge; and the integer products with smlal (attn_a8.h) for cores without sdot.
 *
 * A position belongs to one writer, its neighbours in the same 64-byte line may belong to another:
 * appending stores single lanes and bytes, it never reads a line, changes and writes it. */
#include "quant/table.h"

#if defined(__aarch64__) && defined(__ARM_NEON)

#include "quant/arm/attn_a8.h"

#include <math.h>

/* ---- append to the int8 cache ---- */

/* Smallest sub-scale whose 127 steps reach the largest value: t = max / step, rounded up. */
static int sub_scale(float t)
{
    const int n = vcvtns_s32_f32(t), s = n + ((float)n < t);
    return s < 127 ? s : 127;
}

/* The four words of q into lane `row` of four lines: k 4c..4c+3 of int8 go to line c. */
static void put_lanes(uint8_t *lines, int row, int8x16_t q)
{
    int32_t *p = (int32_t *)(void *)(lines + 4 * row);
    const int32x4_t v = vreinterpretq_s32_s8(q);
    vst1q_lane_s32(p, v, 0);
    vst1q_lane_s32(p + 16, v, 1);
    vst1q_lane_s32(p + 32, v, 2);
    vst1q_lane_s32(p + 48, v, 3);
}

static int put_k8_neon(void *blk, int p, const float *x, int hd)
{
    const int nt = (hd + Q_TILE - 1) / Q_TILE, row = p % Q_ROWS;
    uint8_t *group = (uint8_t *)blk + (size_t)(p / Q_ROWS) * q_group_bytes(Q_L8, nt * Q_TILE);
    const int n16 = hd & ~15;
    float end[16] = { 0 };
    memcpy(end, x + n16, (size_t)(hd - n16) * sizeof *x);
    uint32_t mb = max_abs_bits(x, n16);
    const uint32_t me = max_abs_bits(end, 16);
    mb = mb > me ? mb : me;
    if (mb > NEON_FINITE_MAX) return 1;

    const bool tiny = mb < NEON_TINY;
    const float big = f32_of_bits(mb), rs = tiny ? 0.0f : big / 16129.0f,
                inv = tiny ? 0.0f : 127.0f / big;
    memcpy(group + 4 * row, &rs, sizeof rs);
    uint8_t *tile = group + 64;
    for (int k = 0; k < nt * Q_TILE; k += 16) {
        uint8_t *scales = tile + (size_t)(k / Q_TILE) * 1088;
        const int sub = k % Q_TILE / 16;
        int8x16_t q = vdupq_n_s8(0);
        int s = 0;
        if (k < hd) {
            const float *v = k < n16 ? x + k : end;
            s = sub_scale(f32_of_bits(max_abs_bits(v, 16)) * inv);
            if (s > 0) {
                const float32x4_t step = vdupq_n_f32(rs * (float)s);
                int32x4_t c[4];
                UNROLL
                for (int i = 0; i < 4; i++) {
                    c[i] = vcvtnq_s32_f32(vdivq_f32(vld1q_f32(v + 4 * i), step));
                    c[i] = vmaxq_s32(vminq_s32(c[i], vdupq_n_s32(127)), vdupq_n_s32(-127));
                }
                q = narrow_s32(c[0], c[1], c[2], c[3]);
            }
        }
        scales[16 * sub + row] = (uint8_t)s;
        put_lanes(scales + 64 + 256 * sub, row, q);
    }
    return 0;
}

static int put_v8_neon(void *blk, int p, const float *x, int hd)
{
    const int groups = (hd + 15) / 16, nb = (hd + 127) / 128;
    float *dv = blk;
    uint8_t *codes = (uint8_t *)blk + v8_codes(hd);
    codes += p / Q_TILE * groups * 1024 + 64 * (p % Q_TILE / 4) + p % 4;
    for (int b = 0; b < nb; b++) {
        float v[128] = { 0 };
        const int n = hd - 128 * b < 128 ? hd - 128 * b : 128;
        memcpy(v, x + 128 * b, (size_t)n * sizeof *v);
        const uint32_t mb = max_abs_bits(v, 128);
        if (mb > NEON_FINITE_MAX) return 1;
        const bool tiny = mb < NEON_TINY;
        const float big = f32_of_bits(mb), inv = tiny ? 0.0f : 127.0f / big;
        dv[b * Q_PIECE + p] = tiny ? 0.0f : big / 127.0f;
        for (int i = 0; i < n; i += 16, codes += 1024) {
            int8_t q[16];
            vst1q_s8(q, quant16_a8(v + i, inv));
            for (int j = 0; j < 16; j++) codes[4 * j] = (uint8_t)q[j];
        }
    }
    return 0;
}

/* ---- append to the float cache ---- */

/* Round to nearest even; what is not finite ends in an error anyway. */
INLINE uint16x4_t bf16_bits(float32x4_t x)
{
    const uint32x4_t b = vreinterpretq_u32_f32(x);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(b, 16), vdupq_n_u32(1));
    return vshrn_n_u32(vaddq_u32(vaddq_u32(b, vdupq_n_u32(0x7fff)), odd), 16);
}

/* Values i .. i+15 of a head, zeros from hd on; returns the unsigned maximum of their bits. */
INLINE uint32x4_t load16(float32x4_t v[4], const float *x, int i, int hd)
{
    float end[16] = { 0 };
    const float *p = x + i;
    if (i + 16 > hd) {
        if (i < hd) memcpy(end, x + i, (size_t)(hd - i) * sizeof *x);
        p = end;
    }
    UNROLL
    for (int j = 0; j < 4; j++) v[j] = vld1q_f32(p + 4 * j);
    return vmaxq_u32(vmaxq_u32(abs_bits(v[0]), abs_bits(v[1])),
                     vmaxq_u32(abs_bits(v[2]), abs_bits(v[3])));
}

/* K: a position is one lane of every line, so its values go to lines 64 bytes apart. */
INLINE int put_k_float(int type, void *blk, int p, const float *x, int hd)
{
    uint8_t *line = (uint8_t *)blk + (size_t)(p / Q_ROWS) * q_group_bytes(type, hd);
    uint32x4_t top = vdupq_n_u32(0);
    for (int i = 0; i < q_pad_k(type, hd); i += 16) {
        float32x4_t v[4];
        top = vmaxq_u32(top, load16(v, x, i, hd));
        if (type == Q_F32) {
            UNROLL
            for (int j = 0; j < 4; j++, line += 256)
                put_lanes(line, p % Q_ROWS, vreinterpretq_s8_f32(v[j]));
        } else {
            UNROLL
            for (int j = 0; j < 4; j += 2, line += 256) {
                const uint16x8_t h = vcombine_u16(bf16_bits(v[j]), bf16_bits(v[j + 1]));
                put_lanes(line, p % Q_ROWS, vreinterpretq_s8_u16(h));
            }
        }
    }
    return vmaxvq_u32(top) > NEON_FINITE_MAX;
}

/* V: rows of whole sixteens. */
INLINE int put_v_float(int type, void *blk, int p, const float *x, int hd)
{
    const size_t row = (size_t)p * (size_t)((hd + 15) & ~15);
    uint32x4_t top = vdupq_n_u32(0);
    for (int i = 0; i < hd; i += 16) {
        float32x4_t v[4];
        top = vmaxq_u32(top, load16(v, x, i, hd));
        UNROLL
        for (int j = 0; j < 4; j++) {
            const size_t at = row + (size_t)(i + 4 * j);
            if (type == Q_F32) vst1q_f32((float *)blk + at, v[j]);
            else vst1_u16((uint16_t *)blk + at, bf16_bits(v[j]));
        }
    }
    return vmaxvq_u32(top) > NEON_FINITE_MAX;
}

static int put_kf32_neon(void *blk, int p, const float *x, int hd)
{
    return put_k_float(Q_F32, blk, p, x, hd);
}

static int put_kbf16_neon(void *blk, int p, const float *x, int hd)
{
    return put_k_float(Q_BF16, blk, p, x, hd);
}

static int put_vf32_neon(void *blk, int p, const float *x, int hd)
{
    return put_v_float(Q_F32, blk, p, x, hd);
}

static int put_vbf16_neon(void *blk, int p, const float *x, int hd)
{
    return put_v_float(Q_BF16, blk, p, x, hd);
}

/* ---- append to the cache of latents, and its turn into values ---- */

/* A128 of x[0..n) into lane `row` of whole tiles of lines. */
INLINE int put_lat_part(float *d, uint8_t *lines, int row, const float *x, int n)
{
    const int whole = (n + Q_TILE - 1) / Q_TILE * Q_TILE;
    for (int b = 0; b < whole; b += 128, d += Q_PIECE) {
        const int end = whole < b + 128 ? whole : b + 128;
        uint32x4_t top = vdupq_n_u32(0);
        float32x4_t v[4];
        for (int i = b; i < end; i += 16) top = vmaxq_u32(top, load16(v, x, i, n));
        const uint32_t mb = vmaxvq_u32(top);
        if (mb > NEON_FINITE_MAX) return 1;
        const bool tiny = mb < NEON_TINY;
        const float big = f32_of_bits(mb), inv = tiny ? 0.0f : 127.0f / big;
        *d = tiny ? 0.0f : big / 127.0f;
        for (int i = b; i < end; i += 16, lines += 256) {
            int32x4_t c[4];
            load16(v, x, i, n);
            UNROLL
            for (int j = 0; j < 4; j++) c[j] = vcvtnq_s32_f32(vmulq_n_f32(v[j], inv));
            put_lanes(lines, row, narrow_s32(c[0], c[1], c[2], c[3]));
        }
    }
    return 0;
}

static int put_lat8_neon(void *blk, int p, const float *x, int lora, int rope)
{
    const int nl = (lora + Q_TILE - 1) / Q_TILE, nr = (rope + Q_TILE - 1) / Q_TILE;
    float *d = (float *)blk + p;
    uint8_t *lines = (uint8_t *)blk + q_lat_codes(lora, rope) +
                     (size_t)(p / Q_ROWS) * (size_t)(nl + nr) * 1024;
    return put_lat_part(d, lines, p % Q_ROWS, x, lora) |
           put_lat_part(d + (nl + 1) / 2 * Q_PIECE, lines + (size_t)nl * 1024, p % Q_ROWS,
                        x + nl * Q_TILE, rope);
}

/* Lines of latents have 16 positions x 4 dims, those of values 16 dims x 4 positions: sixteen bytes
 * of either are a 4 x 4 transpose of the other. */
static void lat_v8_neon(void *vblk, const void *blk, int lora, int rope, int n)
{
    static const uint8_t transpose[16] = { 0, 4, 8,  12, 1, 5, 9,  13,
                                           2, 6, 10, 14, 3, 7, 11, 15 };
    const uint8x16_t turn = vld1q_u8(transpose);
    const int nl = (lora + Q_TILE - 1) / Q_TILE, nr = (rope + Q_TILE - 1) / Q_TILE;
    const int groups = (lora + 15) / 16;
    const size_t scales = v8_codes(lora);
    const uint8_t *from = (const uint8_t *)blk + q_lat_codes(lora, rope);
    memcpy(vblk, blk, scales);
    for (int p = 0; p < (n + 63) / 64 * 64; p += 16, from += (size_t)(nl + nr) * 1024) {
        uint8_t *to = (uint8_t *)vblk + scales + (size_t)(p / 64 * groups) * 1024 +
                      16 * (p % 64);
        for (int i = 0; i < groups; i++, to += 1024) {
            UNROLL
            for (int c = 0; c < 4; c++) {
                UNROLL
                for (int r = 0; r < 4; r++) /* dims 4c.. of positions 4r.. */
                    vst1q_u8(to + 64 * r + 16 * c,
                             vqtbl1q_u8(vld1q_u8(from + 256 * i + 64 * c + 16 * r), turn));
            }
        }
    }
}

/* ---- softmax of a piece, merge ---- */

static void attn_soft_neon(float *s, int nvis, int n, float *m, float *l)
{
    int i = 0;
    float best = s[0];
    if (nvis >= 4) {
        float32x4_t v = vld1q_f32(s);
        for (i = 4; i + 4 <= nvis; i += 4) v = vmaxq_f32(v, vld1q_f32(s + i));
        best = vmaxvq_f32(v);
    }
    for (; i < nvis; i++) best = s[i] > best ? s[i] : best;
    if (best == 0.0f) { /* +0 and -0 tie, but not in vmax: the first of them is the maximum */
        for (i = 0; s[i] != 0.0f;) i++;
        best = s[i];
    }

    memset(s + nvis, 0, (size_t)(n - nvis) * sizeof *s);
    const float32x4_t mv = vdupq_n_f32(best);
    float32x4_t sum[4];
    for (int j = 0; j < 4; j++) sum[j] = vdupq_n_f32(0.0f);
    for (i = 0; i < nvis; i += 16) { /* n is a multiple of 64: whole 16s are there */
        float32x4_t e[4];
        UNROLL
        for (int j = 0; j < 4; j++) {
            e[j] = exp_f32x4(vsubq_f32(vld1q_f32(s + i + 4 * j), mv));
            vst1q_f32(s + i + 4 * j, e[j]);
        }
        if (i + 16 > nvis) {
            memset(s + nvis, 0, (size_t)(i + 16 - nvis) * sizeof *s);
            UNROLL
            for (int j = 0; j < 4; j++) e[j] = vld1q_f32(s + i + 4 * j);
        }
        UNROLL
        for (int j = 0; j < 4; j++) sum[j] = vaddq_f32(sum[j], e[j]);
    }
    *m = best;
    *l = sum16_f32(sum);
}

static void attn_merge_neon(float *o, float *m, float *l, const float *o2, float m2, float l2,
                            int hd)
{
    const float top = m2 > *m ? m2 : *m;
    const float a = exp_f32(*m - top), b = exp_f32(m2 - top);
    const float32x4_t av = vdupq_n_f32(a), bv = vdupq_n_f32(b);
    *m = top;
    *l = fmaf(*l, a, l2 * b);
    int i = 0;
    for (; i + 4 <= hd; i += 4) {
        const float32x4_t v = vmulq_f32(vld1q_f32(o2 + i), bv);
        vst1q_f32(o + i, vfmaq_f32(v, vld1q_f32(o + i), av));
    }
    for (; i < hd; i++) o[i] = fmaf(o[i], a, o2[i] * b);
}

static void attn_out_neon(float *y, const float *o, float l, int hd)
{
    const float32x4_t lv = vdupq_n_f32(l), zero = vdupq_n_f32(0.0f);
    int i = 0;
    for (; i + 4 <= hd; i += 4)
        vst1q_f32(y + i, vaddq_f32(vdivq_f32(vld1q_f32(o + i), lv), zero));
    for (; i < hd; i++) y[i] = o[i] / l + 0.0f;
}

/* ---- values of a float cache ---- */

INLINE float32x4_t load_v(int type, const void *row, int i)
{
    if (type == Q_F32) return vld1q_f32((const float *)row + i);
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16((const uint16_t *)row + i), 16));
}

/* D quads of dims x J queries.  Positions all queries see share the loads of V; the rest of each
 * query follows alone: what it must not see may never have been written. */
INLINE void dims_pvf(int type, int D, int J, float *o, size_t ldo, int dims, const uint8_t *v,
                     size_t row, const float *e, size_t lde, const int *nvis)
{
    float32x4_t f[16]; /* (J, D) */
    UNROLL
    for (int j = 0; j < J; j++) {
        UNROLL
        for (int i = 0; i < D; i++) f[j * D + i] = vdupq_n_f32(0.0f);
    }
    int all = nvis[0];
    for (int j = 1; j < J; j++) all = nvis[j] < all ? nvis[j] : all;
    for (int t = 0; t < all; t++) {
        UNROLL
        for (int i = 0; i < D; i++) {
            const float32x4_t w = load_v(type, v + (size_t)t * row, 4 * i);
            UNROLL
            for (int j = 0; j < J; j++)
                f[j * D + i] = vfmaq_f32(f[j * D + i], vld1q_dup_f32(e + (size_t)j * lde + t), w);
        }
    }
    UNROLL
    for (int j = 0; j < J; j++) {
        for (int t = all; t < nvis[j]; t++) {
            UNROLL
            for (int i = 0; i < D; i++) {
                const float32x4_t w = load_v(type, v + (size_t)t * row, 4 * i);
                f[j * D + i] = vfmaq_f32(f[j * D + i], vld1q_dup_f32(e + (size_t)j * lde + t), w);
            }
        }
        UNROLL
        for (int i = 0; i < D; i += 4)
            store_rows(o + (size_t)j * ldo + 4 * i, dims - 4 * i, f + j * D + i);
    }
}

INLINE int attn_pvf(int type, float *o, size_t ldo, const void *vblk, int hd, const float *e,
                    size_t lde, const int *nvis, int m)
{
    const size_t size = type == Q_F32 ? 4 : 2, row = (size_t)((hd + 15) & ~15) * size;
    for (int j = 0; j < m;) {
        float *y = o + (size_t)j * ldo;
        const float *p = e + (size_t)j * lde;
        const int left = m - j >= 4 ? 4 : 1;
        for (int i = 0; i < hd;) {
            const uint8_t *v = (const uint8_t *)vblk + (size_t)i * size;
            if (left == 4) { /* 16 chains of fma either way */
                dims_pvf(type, 4, 4, y + i, ldo, hd - i, v, row, p, lde, nvis + j);
                i += 16;
            } else if (hd - i >= 64) {
                dims_pvf(type, 16, 1, y + i, ldo, hd - i, v, row, p, lde, nvis + j);
                i += 64;
            } else {
                dims_pvf(type, 4, 1, y + i, ldo, hd - i, v, row, p, lde, nvis + j);
                i += 16;
            }
        }
        j += left;
    }
    return 0;
}

static int attn_pvf32_neon(float *o, size_t ldo, const void *vblk, int hd, const float *e,
                           size_t lde, const int *nvis, int m)
{
    return attn_pvf(Q_F32, o, ldo, vblk, hd, e, lde, nvis, m);
}

static int attn_pvbf16_neon(float *o, size_t ldo, const void *vblk, int hd, const float *e,
                            size_t lde, const int *nvis, int m)
{
    return attn_pvf(Q_BF16, o, ldo, vblk, hd, e, lde, nvis, m);
}

/* ---- integer products ---- */

static void attn_qk8_neon(float *s, size_t lds, const void *kblk, int ng, const q_acts *q2, int m0,
                          int m, float scale)
{
    attn_qk8(s, lds, kblk, ng, q2, m0, m, scale);
}

static int attn_pv8_neon(float *o, size_t ldo, const void *vblk, int hd, const float *e, size_t lde,
                         const int *nvis, int m)
{
    return attn_pv8(o, ldo, vblk, hd, e, lde, nvis, m);
}

static void attn_qkl8_neon(float *s, size_t lds, const void *blk, int lora, int rope, int ng,
                           const q_acts *q2, int m0, int m, float scale)
{
    attn_qkl8(s, lds, blk, lora, rope, ng, q2, m0, m, scale);
}

bool q_fill_attn_neon(q_kern *t)
{
    t->put_lat8 = put_lat8_neon;
    t->attn_qkl8 = attn_qkl8_neon;
    t->lat_v8 = lat_v8_neon;
    t->put_k8 = put_k8_neon;
    t->put_v8 = put_v8_neon;
    t->put_kf32 = put_kf32_neon;
    t->put_vf32 = put_vf32_neon;
    t->put_kbf16 = put_kbf16_neon;
    t->put_vbf16 = put_vbf16_neon;
    t->attn_soft = attn_soft_neon;
    t->attn_merge = attn_merge_neon;
    t->attn_out = attn_out_neon;
    t->attn_pvf32 = attn_pvf32_neon;
    t->attn_pvbf16 = attn_pvbf16_neon;
    t->attn_qk8 = attn_qk8_neon;
    t->attn_pv8 = attn_pv8_neon;
    return true;
}

#else
bool q_fill_attn_neon(q_kern *t)
{
    (void)t;
    return false;
}
#endif
