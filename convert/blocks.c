/* blocks.c - encoders of the block types that export writes.
 *
 * All of them store codes of a grid and a scale in half precision: value = scale * grid[code].  For
 * a given scale the nearest grid values are best, for given codes the least-squares scale is; so
 * some scales around the one that lays the largest value on an end of the grid are tried, each
 * improved once by least squares, and the one with the smallest error wins.  Codes are made again
 * under the scale as it was rounded.  Only + - * / in float occur, in a fixed order. */
#include "convert/blocks.h"

#include "quant/quant.h"

#include <assert.h>
#include <math.h>
#include <string.h>

typedef struct grid {
    int lo, hi;             /* ends; codes of a uniform grid start at lo */
    const int8_t *value;    /* (16) rising; NULL: uniform */
} grid;

static const grid grid_q4_0 = { -8, 7, NULL }, grid_iq4 = { -127, 113, cv_iq4_table },
                  grid_q6 = { -32, 31, NULL };

/* Round to nearest even, |x| < 2^22: no call, and the same with every compiler. */
static inline float nearest_int(float x) { return (x + 0x1.8p23f) - 0x1.8p23f; }

static inline float clamped(const grid *g, float x)
{
    const float lo = (float)g->lo, hi = (float)g->hi;
    x = x > lo ? x : lo;
    return x < hi ? x : hi;
}

/* The code nearest to each whole number: x is rounded to one first, which costs nothing that could
 * be measured and saves a search for every candidate. */
enum { CELLS = 256, CELL0 = 128 };
typedef struct cells { uint8_t code[CELLS]; } cells;

static void make_cells(cells *o, const grid *g)
{
    int c = 0;
    for (int i = 0; i < CELLS; i++) {
        while (c < 15 && 2 * (i - CELL0) > g->value[c] + g->value[c + 1]) c++;
        o->code[i] = (uint8_t)c;
    }
}

/* Values and codes of n <= 32 numbers x / scale, inv = 1 / scale. */
static void quantise(const grid *g, const cells *o, const float *x, float inv, int n, float *v,
                     uint8_t *code)
{
    for (int i = 0; i < n; i++) v[i] = nearest_int(clamped(g, x[i] * inv));
    for (int i = 0; i < n; i++) code[i] = (uint8_t)((int)v[i] - g->lo);
    for (int i = 0; g->value && i < n; i++) {
        code[i] = o->code[(int)v[i] + CELL0];
        v[i] = (float)g->value[code[i]];
    }
}

/* The scale that leaves the smallest error over n values, before rounding; 0: all are zero. */
static float best_scale(const grid *g, const cells *o, const float *x, int n)
{
    enum { STEPS = 7 };
    float top = 0, best = 0, gain = 0;
    for (int i = 0; i < n; i++) {
        if (fabsf(x[i]) > fabsf(top)) top = x[i];
    }
    if (top == 0) return 0;
    for (int k = 0; k < 2 * STEPS; k++) {
        /* The largest value on, a little within or beyond the lower end, then the upper one. */
        const float end = (float)(k < STEPS ? g->lo : g->hi) * (0.88f + 0.04f * (float)(k % STEPS));
        const float inv = end / top;
        float xv = 0, vv = 0, v[32];
        uint8_t code[32];
        quantise(g, o, x, inv, n, v, code);
        for (int i = 0; i < n; i++) {
            xv += x[i] * v[i];
            vv += v[i] * v[i];
        }
        /* With d = xv / vv the error is |x|^2 - xv^2 / vv. */
        if (vv > 0 && xv * xv > gain * vv) {
            gain = xv * xv / vv;
            best = xv / vv;
        }
    }
    return best;
}

/* A scale as the file holds it.  False: too large. */
static bool put_half(uint8_t *out, float d, float *as_read)
{
    const uint16_t h = q_f32_to_f16(d);
    memcpy(out, &h, sizeof h);
    *as_read = q_f16_to_f32(h);
    return isfinite(*as_read);
}

static bool put_q8_0(uint8_t *b, const float *x)
{
    float top = 0, d;
    for (int i = 0; i < 32; i++) top = fabsf(x[i]) > top ? fabsf(x[i]) : top;
    if (!put_half(b, top / 127, &d)) return false;
    for (int i = 0; i < 32; i++) {
        float q = d > 0 ? nearest_int(x[i] / d) : 0;
        q = q > -127 ? q : -127; /* d may have been rounded down */
        b[2 + i] = (uint8_t)(int8_t)(q < 127 ? q : 127);
    }
    return true;
}

/* 32 values, a scale, 16 bytes: the first half of the codes in the low nibbles. */
static bool put_4bit(uint8_t *b, const float *x, const grid *g, const cells *o)
{
    float d, v[32];
    uint8_t code[32];
    if (!put_half(b, best_scale(g, o, x, 32), &d)) return false;
    quantise(g, o, x, d != 0 ? 1 / d : 0, 32, v, code);
    for (int i = 0; i < 16; i++) b[2 + i] = (uint8_t)(code[i] | code[i + 16] << 4);
    return true;
}

/* 16 runs of 16 with scales of 8 bits under one of 16; cv_decode's block_q6_k says where codes lie.
 */
static bool put_q6_k(uint8_t *b, const float *x)
{
    float scale[16], top = 0, d;
    for (int g = 0; g < 16; g++) {
        scale[g] = best_scale(&grid_q6, NULL, x + 16 * g, 16);
        if (fabsf(scale[g]) > top) top = fabsf(scale[g]);
    }
    memset(b, 0, 192);
    if (!put_half(b + 208, top / 127, &d)) return false;
    for (int g = 0; g < 16; g++) {
        float s = d > 0 ? nearest_int(scale[g] / d) : 0;
        s = s > -127 ? s : -127;
        s = s < 127 ? s : 127;
        b[192 + g] = (uint8_t)(int8_t)s;
        const float step = d * s;
        float v[16];
        uint8_t code[16];
        quantise(&grid_q6, NULL, x + 16 * g, step != 0 ? 1 / step : 0, 16, v, code);
        for (int i = 16 * g; i < 16 * g + 16; i++) {
            const int half = i / 128, run = i % 128 / 32, l = i % 32, c = code[i % 16];
            b[64 * half + 32 * (run % 2) + l] |= (uint8_t)((c & 15) << 4 * (run / 2));
            b[128 + 32 * half + l] |= (uint8_t)(c >> 4 << 2 * run);
        }
    }
    return true;
}

bool cv_encodes(cv_dtype d)
{
    return d == CV_F32 || d == CV_F16 || d == CV_BF16 || d == CV_Q8_0 || d == CV_Q4_0 ||
           d == CV_IQ4_NL || d == CV_Q6_K;
}

bool cv_encode(void *out, cv_dtype d, const float *x, size_t n)
{
    const size_t block = cv_dtype_block(d), bytes = cv_row_bytes(d, block);
    cells iq4;
    uint8_t *b = out;
    bool ok = true;
    assert(cv_encodes(d) && n % block == 0);
    if (d == CV_F32) {
        memcpy(out, x, n * sizeof *x);
        return true;
    }
    if (d == CV_IQ4_NL) make_cells(&iq4, &grid_iq4);
    for (size_t i = 0; i < n; i += block, b += bytes) {
        float as_read;
        switch (d) {
        case CV_F16: ok &= put_half(b, x[i], &as_read); break;
        case CV_BF16: {
            const uint16_t h = q_f32_to_bf16(x[i]);
            memcpy(b, &h, sizeof h);
            ok &= isfinite(q_bf16_to_f32(h));
            break;
        }
        case CV_Q8_0: ok &= put_q8_0(b, x + i); break;
        case CV_Q4_0: ok &= put_4bit(b, x + i, &grid_q4_0, NULL); break;
        case CV_IQ4_NL: ok &= put_4bit(b, x + i, &grid_iq4, &iq4); break;
        default: ok &= put_q6_k(b, x + i); break;
        }
    }
    return ok;
}
