/* vec_body.h - the vector operations of quant.h in 16 lanes; each vec_<isa>.c compiles it once.
 *
 * Sixteen lanes are the summation order of exact.md, so the sums here are one register (or pair)
 * per vector, reduced by v16_sum.  Tails are masked loads and stores: no scalar loop, and lanes
 * that do not exist count +0. */
#ifndef QUANT_X86_VEC_BODY_H
#define QUANT_X86_VEC_BODY_H

#include "quant/quant.h"
#include "quant/x86/v16.h"

enum {
    FINITE_MAX = 0x7f7fffff, /* bits of the largest finite magnitude */
    TINY = 0x0d800000        /* bits of 2^-100 */
};

/* Blocks of this largest magnitude become zeros: tiny ones, and those that end in an error. */
Q_INLINE bool drops(uint32_t bits) { return bits < TINY || bits > FINITE_MAX; }

Q_INLINE int lanes_at(int i, int n) { return n - i < 16 ? n - i : 16; }

Q_INLINE float f32_of_bits(uint32_t u)
{
    float f;
    __builtin_memcpy(&f, &u, sizeof f);
    return f;
}

Q_INLINE uint32_t bits_of_f32(float f)
{
    uint32_t u;
    __builtin_memcpy(&u, &f, sizeof u);
    return u;
}

/* Sixty-four floats from x, +0 beyond the first n (which may be <= 0 or > 64). */
Q_INLINE void load_tile(v16f v[4], const float *x, int n)
{
    Q_UNROLL
    for (int i = 0; i < 4; i++) {
        const int left = n - 16 * i;
        if (left >= 16) v[i] = v16_load(x + 16 * i);
        else v[i] = left > 0 ? v16_load_n(x + 16 * i, left) : v16_zero();
    }
}

/* Unsigned maximum of the bits of |v|. */
Q_INLINE uint32_t max_bits(const v16f v[4])
{
    return v16i_hmaxu(v16i_maxu(v16i_maxu(v16_abs_bits(v[0]), v16_abs_bits(v[1])),
                                v16i_maxu(v16_abs_bits(v[2]), v16_abs_bits(v[3]))));
}

/* ---- quantisation ---- */

static int quant_a64_v16(q_acts *a, int m, int t0, int nt, const float *x, int n)
{
    int bad = 0;
    for (int t = 0; t < nt; t++) {
        v16f v[4];
        load_tile(v, x + Q_TILE * t, n - Q_TILE * t);
        const uint32_t bits = max_bits(v);
        const bool zero = drops(bits);
        const float max = f32_of_bits(bits);
        const v16f inv = v16_set1(zero ? 0.0f : 127.0f / max);
        const size_t at = (size_t)(t0 + t) * (size_t)a->M + (size_t)m;
        v16i q[4];
        Q_UNROLL
        for (int i = 0; i < 4; i++) q[i] = v16_rne(v16_mul(v[i], inv));
        v16i_store_tile(a->q + Q_TILE * at, a->nsum + 4 * at, q);
        a->d[at] = zero ? 0.0f : max / 127.0f;
        bad |= bits > FINITE_MAX;
    }
    return bad;
}

/* v to q in -32384..32384; returns d, sets *bad when v is not finite. */
Q_INLINE float whole_tile(v16i q[4], const v16f v[4], int *bad)
{
    const uint32_t bits = max_bits(v);
    const bool zero = drops(bits);
    const float max = f32_of_bits(bits);
    const v16f inv = v16_set1(zero ? 0.0f : 32384.0f / max);
    Q_UNROLL
    for (int i = 0; i < 4; i++) q[i] = v16_rne(v16_mul(v[i], inv));
    *bad |= bits > FINITE_MAX;
    return zero ? 0.0f : max / 32384.0f;
}

/* q to two bytes, q = 254 * hi + lo with both in -127..127.  hi = (q + 32639) / 254 - 128, and
 * n / 254 = n * 66053 >> 24 for every n in 0..65023 (tried), the product below 2^32. */
Q_INLINE void split_bytes(v16i hi[4], v16i lo[4], const v16i q[4])
{
    Q_UNROLL
    for (int i = 0; i < 4; i++) {
        const v16i u = v16i_mul(v16i_add(q[i], v16i_set1(32639)), v16i_set1(66053));
        hi[i] = v16i_sub(v16i_shr24(u), v16i_set1(128));
        lo[i] = v16i_sub(q[i], v16i_mul(hi[i], v16i_set1(254)));
    }
}

static int quant_a16_v16(q_acts *a, int m, const float *x, int n)
{
    int bad = 0;
    for (int t = 0; t < a->kt; t++) {
        v16f v[4];
        v16i q[4], hi[4], lo[4];
        load_tile(v, x + Q_TILE * t, n - Q_TILE * t);
        const float d = whole_tile(q, v, &bad);
        split_bytes(hi, lo, q);
        const size_t at = (size_t)t * (size_t)a->M + 2 * (size_t)m;
        v16i_store_tile(a->q + Q_TILE * at, a->nsum + 4 * at, hi);
        v16i_store_tile(a->q + Q_TILE * (at + 1), a->nsum + 4 * (at + 1), lo);
        a->d[at] = 254.0f * d;
        a->d[at + 1] = d;
    }
    return bad;
}

/* ---- norms and element-wise ---- */

static int rmsnorm_v16(float *y, const float *x, const float *w, int n, float eps)
{
    v16f acc = v16_zero();
    int i = 0;
    for (; i + 16 <= n; i += 16) {
        const v16f v = v16_load(x + i);
        acc = v16_fma(v, v, acc);
    }
    if (i < n) {
        const v16f v = v16_load_n(x + i, n - i);
        acc = v16_fma(v, v, acc);
    }
    const float s = v16_sum(acc);
    const float root = _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(s / (float)n + eps)));
    const v16f r = v16_set1(1.0f / root);
    for (i = 0; i + 16 <= n; i += 16)
        v16_store(y + i, v16_mul(v16_mul(v16_load(x + i), r), v16_load(w + i)));
    if (i < n) {
        const v16f v = v16_mul(v16_mul(v16_load_n(x + i, n - i), r), v16_load_n(w + i, n - i));
        v16_store_n(y + i, v, n - i);
    }
    return (bits_of_f32(s) & 0x7fffffff) > FINITE_MAX;
}

static void add_v16(float *y, const float *x, int n)
{
    int i = 0;
    for (; i + 16 <= n; i += 16) v16_store(y + i, v16_add(v16_load(y + i), v16_load(x + i)));
    if (i < n) {
        const v16f v = v16_add(v16_load_n(y + i, n - i), v16_load_n(x + i, n - i));
        v16_store_n(y + i, v, n - i);
    }
}

static void axpy_v16(float *y, float a, const float *x, int n)
{
    const v16f av = v16_set1(a);
    for (int i = 0; i < n; i += 16) {
        const int left = lanes_at(i, n);
        v16_store_n(y + i, v16_fma(av, v16_load_n(x + i, left), v16_load_n(y + i, left)), left);
    }
}

static void swiglu_v16(float *y, const float *gu, int n)
{
    const v16f one = v16_set1(1.0f), minus = v16_set1(-0.0f);
    for (int i = 0; i < n; i += 16) {
        const int left = lanes_at(i, n);
        const float *g = gu + 2 * (size_t)i;
        const v16f x = v16_load_n(g, left), u = v16_load_n(g + 16, left);
        const v16f silu = v16_div(x, v16_add(one, v16_exp(v16_flip(x, minus))));
        v16_store_n(y + i, v16_mul(silu, u), left);
    }
}

/* ---- rope ---- */

static void rope_half_v16(float *x, size_t ld, int n, int hd, const float *c, const float *s)
{
    const int half = hd / 2;
    const v16f minus = v16_set1(-0.0f);
    for (int i = 0; i < half; i += 16) {
        const int left = lanes_at(i, half);
        const v16f cv = v16_load_n(c + i, left), sv = v16_load_n(s + i, left);
        for (int h = 0; h < n; h++) {
            float *lo = x + (size_t)h * ld + i, *hi = lo + half;
            const v16f a = v16_load_n(lo, left), b = v16_load_n(hi, left);
            v16_store_n(lo, v16_fma(a, cv, v16_flip(v16_mul(b, sv), minus)), left);
            v16_store_n(hi, v16_fma(b, cv, v16_mul(a, sv)), left);
        }
    }
}

/* Neighbours: with c and s doubled and the partner at one's side, both outputs of a pair are
 * fma(x, c, +-(partner * s)), minus in the even lanes. */
static void rope_pair_v16(float *x, size_t ld, int n, int hd, const float *c, const float *s)
{
    static const float sign[16] = { -0.0f, 0, -0.0f, 0, -0.0f, 0, -0.0f, 0,
                                    -0.0f, 0, -0.0f, 0, -0.0f, 0, -0.0f, 0 };
    const v16f minus = v16_load(sign);
    for (int i = 0; i < hd; i += 16) {
        const int left = lanes_at(i, hd);
        float cc[16], ss[16];
        for (int j = 0; j < left; j++) {
            cc[j] = c[(i + j) / 2];
            ss[j] = s[(i + j) / 2];
        }
        const v16f cv = v16_load_n(cc, left), sv = v16_load_n(ss, left);
        for (int h = 0; h < n; h++) {
            float *p = x + (size_t)h * ld + i;
            const v16f v = v16_load_n(p, left);
            v16_store_n(p, v16_fma(v, cv, v16_flip(v16_mul(v16_swap_pairs(v), sv), minus)), left);
        }
    }
}

/* ---- over the vocabulary ---- */

static int argmax_v16(const float *x, int n)
{
    static const int32_t count[16] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
    if (n < 16) {
        int best = 0;
        for (int i = 1; i < n; i++)
            if (x[i] > x[best]) best = i;
        return best;
    }
    /* Each lane keeps its own first best.  The last vector may overlap the one before: an equal
     * value never replaces an earlier index. */
    v16i at = v16i_load(count), best_at = at;
    v16f best = v16_load(x);
    for (int i = 16; i < n; i += 16) {
        const int from = i + 16 <= n ? i : n - 16;
        at = v16i_add(v16i_load(count), v16i_set1(from));
        const v16f v = v16_load(x + from);
        best_at = v16_where_gt(v, best, at, best_at);
        best = v16_max(v, best);
    }
    float value[16];
    int32_t index[16];
    v16_store(value, best);
    __builtin_memcpy(index, &best_at, sizeof index);
    int lane = 0;
    for (int i = 1; i < 16; i++)
        if (value[i] > value[lane] || (value[i] == value[lane] && index[i] < index[lane])) lane = i;
    return index[lane];
}

static float softmax_v16(float *p, const float *x, int n, float max, float T)
{
    const v16f mv = v16_set1(max), tv = v16_set1(T);
    v16f sum = v16_zero();
    int i = 0;
    for (; i + 16 <= n; i += 16) {
        const v16f e = v16_exp(v16_div(v16_sub(v16_load(x + i), mv), tv));
        v16_store(p + i, e);
        sum = v16_add(sum, e);
    }
    if (i < n) {
        const v16f e = v16_exp(v16_div(v16_sub(v16_load_n(x + i, n - i), mv), tv));
        v16_store_n(p + i, e, n - i);
        sum = v16_add(sum, v16_keep(e, n - i));
    }
    return v16_sum(sum);
}

/* Few are ever found, so the usual step is one comparison of sixteen. */
static int band_v16(int32_t *at, const float *x, int n, float lo, float hi)
{
    const v16f l = v16_set1(lo), h = v16_set1(hi);
    int found = 0;
    for (int i = 0; i < n; i += 16) {
        const int left = lanes_at(i, n);
        uint32_t some = v16_within(v16_load_n(x + i, left), l, h) & ((1u << left) - 1u);
        for (; some; some &= some - 1) at[found++] = i + __builtin_ctz(some);
    }
    return found;
}

static int nonfinite_v16(const float *x, int n)
{
    v16i max = v16i_set1(0);
    int i = 0;
    for (; i + 16 <= n; i += 16) max = v16i_maxu(max, v16_abs_bits(v16_load(x + i)));
    if (i < n) max = v16i_maxu(max, v16_abs_bits(v16_load_n(x + i, n - i)));
    return v16i_hmaxu(max) > FINITE_MAX;
}

Q_INLINE void fill_vec(q_kern *t)
{
    t->quant_a64 = quant_a64_v16;
    t->quant_a16 = quant_a16_v16;
    t->rmsnorm = rmsnorm_v16;
    t->add = add_v16;
    t->axpy = axpy_v16;
    t->swiglu = swiglu_v16;
    t->rope_half = rope_half_v16;
    t->rope_pair = rope_pair_v16;
    t->argmax = argmax_v16;
    t->softmax = softmax_v16;
    t->band = band_v16;
    t->nonfinite = nonfinite_v16;
}

#endif
