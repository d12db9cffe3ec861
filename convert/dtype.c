/* dtype.c - makes floats of a checkpoint's bytes.
 *
 * ggml's block types are given by formulas (models.md 9.4); every value is formed in float with the
 * products in the order of ggml's own code, so that what we read is to the bit what llama.cpp
 * multiplies with.  Notation: lo and hi are the halves of a byte; d and m are f16 scales. */
#include "convert/dtype.h"

#include "quant/quant.h"

#include <assert.h>
#include <math.h>
#include <string.h>

static const cv_gtype_info gtypes[] = {
    { "F32", 0, 1, 4, CV_F32 }, { "F16", 1, 1, 2, CV_F16 }, { "BF16", 30, 1, 2, CV_BF16 },
    { "Q4_0", 2, 32, 18, CV_Q4_0 }, { "Q4_1", 3, 32, 20, CV_Q4_1 },
    { "Q5_0", 6, 32, 22, CV_Q5_0 }, { "Q5_1", 7, 32, 24, CV_Q5_1 },
    { "Q8_0", 8, 32, 34, CV_Q8_0 },
    { "Q2_K", 10, 256, 84, CV_Q2_K }, { "Q3_K", 11, 256, 110, CV_Q3_K },
    { "Q4_K", 12, 256, 144, CV_Q4_K }, { "Q5_K", 13, 256, 176, CV_Q5_K },
    { "Q6_K", 14, 256, 210, CV_Q6_K },
    { "IQ4_NL", 20, 32, 18, CV_IQ4_NL }, { "IQ4_XS", 23, 256, 136, CV_IQ4_XS },
    { "MXFP4", 39, 32, 17, CV_MXFP4 },
    /* Sizes only: activations, codebooks, integers, ternary. */
    { "Q8_1", 9, 32, 36, CV_OTHER }, { "Q8_K", 15, 256, 292, CV_OTHER },
    { "IQ2_XXS", 16, 256, 66, CV_OTHER }, { "IQ2_XS", 17, 256, 74, CV_OTHER },
    { "IQ3_XXS", 18, 256, 98, CV_OTHER }, { "IQ1_S", 19, 256, 50, CV_OTHER },
    { "IQ3_S", 21, 256, 110, CV_OTHER }, { "IQ2_S", 22, 256, 82, CV_OTHER },
    { "IQ1_M", 29, 256, 56, CV_OTHER },
    { "I8", 24, 1, 1, CV_OTHER }, { "I16", 25, 1, 2, CV_OTHER }, { "I32", 26, 1, 4, CV_OTHER },
    { "I64", 27, 1, 8, CV_OTHER }, { "F64", 28, 1, 8, CV_OTHER },
    { "TQ1_0", 34, 256, 54, CV_OTHER }, { "TQ2_0", 35, 256, 66, CV_OTHER },
    { "NVFP4", 40, 64, 36, CV_OTHER }, { "Q1_0", 41, 128, 18, CV_OTHER },
    { "Q2_0", 42, 64, 18, CV_OTHER },
};
enum { N_GTYPES = sizeof gtypes / sizeof gtypes[0] };

const cv_gtype_info *cv_gtype_find(uint64_t id)
{
    for (int i = 0; i < N_GTYPES; i++) {
        if (gtypes[i].id == id) return &gtypes[i];
    }
    return NULL;
}

const cv_gtype_info *cv_gtype_of(cv_dtype d)
{
    for (int i = 0; d != CV_OTHER && i < N_GTYPES; i++) {
        if (gtypes[i].dtype == d) return &gtypes[i];
    }
    return NULL;
}

size_t cv_dtype_block(cv_dtype d)
{
    const cv_gtype_info *t = cv_gtype_of(d);
    return t ? t->block : 1;
}

size_t cv_row_bytes(cv_dtype d, size_t n)
{
    const cv_gtype_info *t = cv_gtype_of(d);
    if (!t) return d == CV_F8_E4M3 ? n : 0;
    return n / t->block * t->bytes;
}

/* ---- blocks ---- */

static float f16_at(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return q_f16_to_f32(h);
}

static uint32_t u32_at(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* 32 values: codes of 4 bits, the first half of them in lo, and a fifth bit each from `high`. */
static void codes_32(int q[32], const uint8_t *qs, uint32_t high)
{
    for (int j = 0; j < 16; j++) {
        q[j] = (qs[j] & 15) | (int)(high >> j & 1) << 4;
        q[j + 16] = qs[j] >> 4 | (int)(high >> (j + 16) & 1) << 4;
    }
}

static void block_q4_0(float *y, const uint8_t *b)
{
    const float d = f16_at(b);
    int q[32];
    codes_32(q, b + 2, 0);
    for (int j = 0; j < 32; j++) y[j] = (float)(q[j] - 8) * d;
}

static void block_q4_1(float *y, const uint8_t *b)
{
    const float d = f16_at(b), m = f16_at(b + 2);
    int q[32];
    codes_32(q, b + 4, 0);
    for (int j = 0; j < 32; j++) y[j] = (float)q[j] * d + m;
}

static void block_q5_0(float *y, const uint8_t *b)
{
    const float d = f16_at(b);
    int q[32];
    codes_32(q, b + 6, u32_at(b + 2));
    for (int j = 0; j < 32; j++) y[j] = (float)(q[j] - 16) * d;
}

static void block_q5_1(float *y, const uint8_t *b)
{
    const float d = f16_at(b), m = f16_at(b + 2);
    int q[32];
    codes_32(q, b + 8, u32_at(b + 4));
    for (int j = 0; j < 32; j++) y[j] = (float)q[j] * d + m;
}

static void block_q8_0(float *y, const uint8_t *b)
{
    const float d = f16_at(b);
    for (int j = 0; j < 32; j++) y[j] = (float)(int8_t)b[2 + j] * d;
}

/* 16 groups of 16; scale and minimum in 4 bits each. */
static void block_q2_k(float *y, const uint8_t *b)
{
    const uint8_t *scale = b, *qs = b + 16;
    const float d = f16_at(b + 80), dmin = f16_at(b + 82);
    for (int g = 0; g < 16; g++) {
        const uint8_t *q = qs + 32 * (g / 8) + 16 * (g % 2);
        const int shift = 2 * (g % 8 / 2);
        const float s = d * (float)(scale[g] & 15), m = dmin * (float)(scale[g] >> 4);
        for (int l = 0; l < 16; l++) y[16 * g + l] = s * (float)(q[l] >> shift & 3) - m;
    }
}

/* 16 groups of 16; scales of 6 bits: low 4 in the first 8 bytes, high 2 in the last 4. */
static void block_q3_k(float *y, const uint8_t *b)
{
    const uint8_t *mask = b, *qs = b + 32, *scale = b + 96;
    const float d = f16_at(b + 108);
    for (int g = 0; g < 16; g++) {
        const uint8_t *q = qs + 32 * (g / 8) + 16 * (g % 2), *h = mask + 16 * (g % 2);
        const int shift = 2 * (g % 8 / 2), bit = g / 2;
        const int low = g < 8 ? scale[g] & 15 : scale[g - 8] >> 4;
        const int high = scale[8 + g % 4] >> 2 * (g / 4) & 3;
        const float s = d * (float)((low | high << 4) - 32);
        for (int l = 0; l < 16; l++) {
            y[16 * g + l] = s * (float)((q[l] >> shift & 3) - (h[l] >> bit & 1 ? 0 : 4));
        }
    }
}

/* Scale and minimum k of the 8 pairs of 6 bits that Q4_K and Q5_K keep in 12 bytes. */
static void scale_min(const uint8_t *p, int k, float d, float dmin, float *s, float *m)
{
    const int a = k < 4 ? p[k] & 63 : (p[k + 4] & 15) | p[k - 4] >> 6 << 4;
    const int c = k < 4 ? p[k + 4] & 63 : p[k + 4] >> 4 | p[k] >> 6 << 4;
    *s = d * (float)a;
    *m = dmin * (float)c;
}

static void block_q4_k(float *y, const uint8_t *b)
{
    const uint8_t *qs = b + 16;
    for (int k = 0; k < 8; k++) { /* 32 values each: lo, then hi of 32 bytes */
        float s, m;
        scale_min(b + 4, k, f16_at(b), f16_at(b + 2), &s, &m);
        for (int l = 0; l < 32; l++) {
            y[32 * k + l] = s * (float)(qs[32 * (k / 2) + l] >> 4 * (k % 2) & 15) - m;
        }
    }
}

static void block_q5_k(float *y, const uint8_t *b)
{
    const uint8_t *qh = b + 16, *qs = b + 48;
    for (int k = 0; k < 8; k++) {
        float s, m;
        scale_min(b + 4, k, f16_at(b), f16_at(b + 2), &s, &m);
        for (int l = 0; l < 32; l++) {
            const int low = qs[32 * (k / 2) + l] >> 4 * (k % 2) & 15;
            y[32 * k + l] = s * (float)(low + (qh[l] >> k & 1 ? 16 : 0)) - m;
        }
    }
}

/* Two halves of 128, each four runs of 32: the low 4 bits in lo and hi of 64 bytes, the high 2 in
 * the four pairs of bits of 32 bytes. */
static void block_q6_k(float *y, const uint8_t *b)
{
    const float d = f16_at(b + 208);
    for (int i = 0; i < 256; i++) {
        const int half = i / 128, run = i % 128 / 32, l = i % 32;
        const uint8_t *ql = b + 64 * half + 32 * (run % 2), *qh = b + 128 + 32 * half;
        const int q = (ql[l] >> 4 * (run / 2) & 15) | (qh[l] >> 2 * run & 3) << 4;
        const int8_t s = (int8_t)b[192 + 8 * half + 2 * run + l / 16];
        y[i] = d * (float)s * (float)(q - 32);
    }
}

const int8_t cv_iq4_table[16] = { -127, -104, -83, -65, -49, -35, -22, -10,
                                  1, 13, 25, 38, 53, 69, 89, 113 };

static void block_iq4_nl(float *y, const uint8_t *b)
{
    const float d = f16_at(b);
    int q[32];
    codes_32(q, b + 2, 0);
    for (int j = 0; j < 32; j++) y[j] = d * (float)cv_iq4_table[q[j]];
}

static void block_iq4_xs(float *y, const uint8_t *b)
{
    const int high = b[2] | b[3] << 8;
    for (int i = 0; i < 8; i++) {
        int q[32];
        const int s = (b[4 + i / 2] >> 4 * (i % 2) & 15) | (high >> 2 * i & 3) << 4;
        const float d = f16_at(b) * (float)(s - 32);
        codes_32(q, b + 8 + 16 * i, 0);
        for (int j = 0; j < 32; j++) y[32 * i + j] = d * (float)cv_iq4_table[q[j]];
    }
}

/* OCP microscaling: FP4 times a power of two, whose largest exponent stands for NaN. */
static void block_mxfp4(float *y, const uint8_t *b)
{
    static const float fp4[16] = { 0, .5f, 1, 1.5f, 2, 3, 4, 6, 0, -.5f, -1, -1.5f, -2, -3, -4,
                                   -6 };
    int q[32];
    codes_32(q, b + 1, 0);
    for (int j = 0; j < 32; j++) y[j] = b[0] == 255 ? NAN : ldexpf(fp4[q[j]], b[0] - 127);
}

/* ---- all types ---- */

static void decode_blocks(float *out, cv_dtype d, const uint8_t *p, size_t n)
{
    static void (*const of[])(float *, const uint8_t *) = {
        [CV_Q4_0] = block_q4_0, [CV_Q4_1] = block_q4_1, [CV_Q5_0] = block_q5_0,
        [CV_Q5_1] = block_q5_1, [CV_Q8_0] = block_q8_0, [CV_Q2_K] = block_q2_k,
        [CV_Q3_K] = block_q3_k, [CV_Q4_K] = block_q4_k, [CV_Q5_K] = block_q5_k,
        [CV_Q6_K] = block_q6_k, [CV_IQ4_NL] = block_iq4_nl, [CV_IQ4_XS] = block_iq4_xs,
        [CV_MXFP4] = block_mxfp4,
    };
    const cv_gtype_info *t = cv_gtype_of(d);
    assert(t && n % t->block == 0);
    for (size_t i = 0; i < n; i += t->block, p += t->bytes) of[d](out + i, p);
}

/* Most checkpoints are BF16: runs of a known length become vector code with any compiler. */
enum { RUN = 64 };

static inline void decode_bf16(float *restrict out, const uint8_t *restrict p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, p + 2 * i, 2);
        out[i] = q_bf16_to_f32(h);
    }
}

void cv_decode(float *out, cv_dtype d, const void *p, size_t n)
{
    const uint8_t *b = p;
    assert(d != CV_OTHER);
    switch (d) {
    case CV_F32:
        if (n) memcpy(out, p, n * sizeof *out);
        return;
    case CV_BF16:
        for (; n >= RUN; n -= RUN, b += 2 * RUN, out += RUN) decode_bf16(out, b, RUN);
        decode_bf16(out, b, n);
        return;
    case CV_F16:
        for (size_t i = 0; i < n; i++) out[i] = f16_at(b + 2 * i);
        return;
    case CV_F8_E4M3:
        for (size_t i = 0; i < n; i++) out[i] = q_f8e4m3_to_f32(b[i]);
        return;
    case CV_OTHER: return;
    default: decode_blocks(out, d, b, n);
    }
}
