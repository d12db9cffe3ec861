/* ref.c - vectors of arith 1 in plain C, and the reference table.
 *
 * This and ref_gemm.c, ref_attn.c are the definition that every kernel must match bit for bit: they
 * are written to be read beside exact.md, in its order of operations, and only then for speed. */
#include "quant/ref.h"

#include "quant/scalar.h"
#include "quant/sha256.h"
#include "quant/table.h"

/* ---- quantisation ---- */

/* The 64 values of tile t, zeros behind n. */
static const float *tile_of(float *buf, const float *x, int n, int t)
{
    const int from = t * Q_TILE, have = n - from;
    if (have >= Q_TILE) return x + from;
    memset(buf, 0, Q_TILE * sizeof *buf);
    if (have > 0) memcpy(buf, x + from, (size_t)have * sizeof *buf);
    return buf;
}

static void put_nsum(q_acts *a, size_t at)
{
    for (int i = 0; i < 4; i++) {
        int32_t s = 0;
        for (int k = 0; k < 16; k++) s -= a->q[at * Q_TILE + (size_t)(16 * i + k)];
        a->nsum[4 * at + (size_t)i] = s;
    }
}

static int quant_a64_ref(q_acts *a, int m, int t0, int nt, const float *x, int n)
{
    int bad = 0;
    for (int t = 0; t < nt; t++) {
        float buf[Q_TILE];
        const float *p = tile_of(buf, x, n, t);
        const size_t at = (size_t)(t0 + t) * (size_t)a->M + (size_t)m;
        int8_t *q = a->q + at * Q_TILE;
        const uint32_t bits = q_max_bits(p, Q_TILE);
        const float max = q_float(bits);
        if (bits > Q_BITS_FINITE || max < Q_TINY) {
            bad |= bits > Q_BITS_FINITE;
            memset(q, 0, Q_TILE);
            a->d[at] = 0.0f;
        } else {
            const float inv = 127.0f / max;
            for (int k = 0; k < Q_TILE; k++) q[k] = (int8_t)q_rnei(p[k] * inv);
            a->d[at] = max / 127.0f;
        }
        put_nsum(a, at);
    }
    return bad;
}

float q_ref_two_bytes(int16_t q[Q_TILE], const float *x, int *bad)
{
    const uint32_t bits = q_max_bits(x, Q_TILE);
    const float max = q_float(bits);
    if (bits > Q_BITS_FINITE || max < Q_TINY) {
        if (bits > Q_BITS_FINITE) *bad = 1;
        memset(q, 0, Q_TILE * sizeof *q);
        return 0.0f;
    }
    const float inv = 32384.0f / max;
    for (int k = 0; k < Q_TILE; k++) q[k] = (int16_t)q_rnei(x[k] * inv);
    return max / 32384.0f;
}

static int quant_a16_ref(q_acts *a, int m, const float *x, int n)
{
    int bad = 0;
    for (int t = 0; t < a->kt; t++) {
        float buf[Q_TILE];
        int16_t q[Q_TILE];
        const float d = q_ref_two_bytes(q, tile_of(buf, x, n, t), &bad);
        const size_t at = (size_t)t * (size_t)a->M + 2 * (size_t)m;
        int8_t *hi = a->q + at * Q_TILE, *lo = hi + Q_TILE;
        for (int k = 0; k < Q_TILE; k++) {
            hi[k] = (int8_t)q_high_byte(q[k]);
            lo[k] = (int8_t)(q[k] - 254 * hi[k]);
        }
        a->d[at] = 254.0f * d;
        a->d[at + 1] = d;
        put_nsum(a, at);
        put_nsum(a, at + 1);
    }
    return bad;
}

/* ---- norms and element-wise ---- */

static int rmsnorm_ref(float *y, const float *x, const float *w, int n, float eps)
{
    float lane[16] = { 0 };
    for (int i = 0; i < n; i++) lane[i % 16] = fmaf(x[i], x[i], lane[i % 16]);
    const float s = q_sum16(lane);
    const float r = 1.0f / sqrtf(s / (float)n + eps);
    for (int i = 0; i < n; i++) y[i] = (x[i] * r) * w[i];
    return q_max_bits(&s, 1) > Q_BITS_FINITE;
}

static void add_ref(float *y, const float *x, int n)
{
    for (int i = 0; i < n; i++) y[i] += x[i];
}

static void axpy_ref(float *y, float a, const float *x, int n)
{
    for (int i = 0; i < n; i++) y[i] = fmaf(a, x[i], y[i]);
}

static void swiglu_ref(float *y, const float *gu, int n)
{
    for (int i = 0; i < n; i++) {
        const float *p = gu + (size_t)(i / 16) * 32 + (size_t)(i % 16);
        y[i] = p[0] / (1.0f + q_exp(-p[0])) * p[16];
    }
}

/* Pair i of a head is (x[i * step], x[i * step + gap]). */
static void rotate(float *x, size_t ld, int n, int hd, const float *c, const float *s, int step,
                   int gap)
{
    for (int h = 0; h < n; h++, x += ld) {
        for (int i = 0; i < hd / 2; i++) {
            float *p = x + i * step;
            const float a = p[0], b = p[gap];
            p[0] = fmaf(a, c[i], -(b * s[i]));
            p[gap] = fmaf(b, c[i], a * s[i]);
        }
    }
}

static void rope_half_ref(float *x, size_t ld, int n, int hd, const float *c, const float *s)
{
    rotate(x, ld, n, hd, c, s, 1, hd / 2);
}

static void rope_pair_ref(float *x, size_t ld, int n, int hd, const float *c, const float *s)
{
    rotate(x, ld, n, hd, c, s, 2, 1);
}

/* ---- logits ---- */

static int argmax_ref(const float *x, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

static float softmax_ref(float *p, const float *x, int n, float max, float T)
{
    float lane[16] = { 0 };
    for (int i = 0; i < n; i++) {
        p[i] = q_exp((x[i] - max) / T);
        lane[i % 16] += p[i];
    }
    return q_sum16(lane);
}

static int band_ref(int32_t *at, const float *x, int n, float lo, float hi)
{
    int found = 0;
    for (int i = 0; i < n; i++)
        if (x[i] >= lo && x[i] < hi) at[found++] = i;
    return found;
}

static int nonfinite_ref(const float *x, int n) { return q_max_bits(x, n) > Q_BITS_FINITE; }

/* ---- SHA-256 (FIPS 180-4) ---- */

static uint32_t ror(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void sha256_ref(uint32_t h[8], const uint8_t *p, size_t nblk)
{
    for (; nblk; nblk--, p += 64) {
        uint32_t w[64], v[8];
        for (int i = 0; i < 16; i++)
            w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 |
                   (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
        for (int i = 16; i < 64; i++) {
            const uint32_t a = w[i - 15], b = w[i - 2];
            w[i] = w[i - 16] + (ror(a, 7) ^ ror(a, 18) ^ a >> 3) + w[i - 7] +
                   (ror(b, 17) ^ ror(b, 19) ^ b >> 10);
        }
        memcpy(v, h, sizeof v);
        for (int i = 0; i < 64; i++) {
            const uint32_t e = v[4], a = v[0];
            const uint32_t t = v[7] + (ror(e, 6) ^ ror(e, 11) ^ ror(e, 25)) +
                               ((e & v[5]) ^ (~e & v[6])) + q_sha256_k[i] + w[i];
            const uint32_t u = (ror(a, 2) ^ ror(a, 13) ^ ror(a, 22)) +
                               ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));
            memmove(v + 1, v, 7 * sizeof *v);
            v[4] += t;
            v[0] = t + u;
        }
        for (int i = 0; i < 8; i++) h[i] += v[i];
    }
}

bool q_fill_ref(q_kern *t)
{
    t->quant_a64 = quant_a64_ref;
    t->quant_a16 = quant_a16_ref;
    t->rmsnorm = rmsnorm_ref;
    t->add = add_ref;
    t->axpy = axpy_ref;
    t->swiglu = swiglu_ref;
    t->rope_half = rope_half_ref;
    t->rope_pair = rope_pair_ref;
    t->argmax = argmax_ref;
    t->softmax = softmax_ref;
    t->band = band_ref;
    t->nonfinite = nonfinite_ref;
    t->sha256 = sha256_ref;
    q_ref_gemm(t);
    q_ref_attn(t);
    q_ref_mla(t);
    q_ref_encode(t);
    return true;
}
