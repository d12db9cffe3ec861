/* gemm_amx.c - matrix times many tokens on AMX int8 (tile_amx.h says how the integers work).
 *
 * As the other panels: one row group by 12 tiles is unpacked once (24 KB) and stays in L1 while the
 * activations of all tokens stream past in blocks of 16; f waits in y between K blocks, which are
 * the outer loop, so their slice of activations stays in L2.  Within a block the 16 f are registers
 * and each tile's results are added while the next tile is multiplied.  Few tokens stay with
 * gemm_avx512vnni.c, which need not unpack, and gemm_avx512vbmi.c. */
#include "quant/table.h"

#if defined(__AMX_TILE__) && defined(__AMX_INT8__) && defined(__AVX512VNNI__)

#include <assert.h>

#include "quant/x86/gemm_avx512vbmi.h"
#include "quant/x86/gemm_avx512vnni.h"
#include "quant/x86/tile_amx.h"

enum {
    AMX_T = 12,   /* tiles of a K block */
    AMX_M = 16,   /* tokens of a block */
    AMX_MIN = 24  /* unpacking costs what 50 tokens do; at 16 AVX-512 is still ahead */
};

typedef struct panel {
    amx_planes at[AMX_T];
    uint8_t code[AMX_T][16 * 64]; /* of pairs, biased, line = chunk */
    amx_results z[2]; /* of even and odd tiles */
} panel;
static_assert(sizeof(panel) <= Q_TMP, "the panel must fit the scratch of a gemm");

/* Where one call writes and reads. */
typedef struct block {
    float *y;               /* token 0 of the block, row 0 of the group */
    size_t ldy;
    const float *row_scale;
    __mmask16 rows;         /* of the group that exist */
    bool first, last;       /* K block of the row */
    const int8_t *q;        /* tile 0 of the K block, token 0 */
    const float *d;
    size_t stride;          /* tokens in a tile of the activations */
} block;

/* f of tokens m0 .. m0+3 += d * z. */
Q_INLINE void add_four(const int m0, __m512 f[AMX_M], const amx_results *z, const float *d)
{
    Q_UNROLL
    for (int m = m0; m < m0 + 4; m++)
        f[m] = _mm512_fmadd_ps(_mm512_set1_ps(d[m]), amx_z(z, m), f[m]);
}

Q_INLINE void add_results(__m512 f[AMX_M], const amx_results *z, const float *d)
{
    add_four(0, f, z, d);
    add_four(4, f, z, d);
    add_four(8, f, z, d);
    add_four(12, f, z, d);
}

/* One step of the pipeline, finely mixed for the sake of the ports: multiplies tile t (q, b) into
 * registers HI, LO; stores t - 1 from HI1, LO1 to z1; adds t - 2 from z2. */
#define STEP(HI, LO, q, b, HI1, LO1, z1, z2, d) \
    do { \
        add_four(0, f, z2, d); \
        _tile_zero(HI); \
        _tile_loadd(AMX_A, q, 64); \
        _tile_loadd(AMX_BH, (b)->hi, 64); \
        _tile_dpbssd(HI, AMX_A, AMX_BH); \
        add_four(4, f, z2, d); \
        _tile_stored(HI1, (z1)->hi, 64); \
        add_four(8, f, z2, d); \
        _tile_zero(LO); \
        _tile_loadd(AMX_BL, (b)->lo, 64); \
        _tile_dpbssd(LO, AMX_A, AMX_BL); \
        add_four(12, f, z2, d); \
        _tile_stored(LO1, (z1)->lo, 64); \
    } while (0)

/* 16 rows x 16 tokens over nt tiles; the f of tokens before `from` are neither loaded nor stored:
 * another block has them, and computing them again harms nobody. */
static void run_block(panel *p, int nt, const block *b, int from)
{
    const int8_t *q = b->q;
    const float *d = b->d;
    const size_t step = 64 * b->stride;
    amx_results *even = &p->z[0], *odd = &p->z[1];
    const amx_planes *w = p->at;
    __m512 f[AMX_M];
    Q_UNROLL
    for (int m = 0; m < AMX_M; m++) {
        f[m] = _mm512_setzero_ps();
        if (!b->first && m >= from)
            f[m] = _mm512_maskz_loadu_ps(b->rows, b->y + (size_t)m * b->ldy);
    }
    AMX_MULTIPLY(AMX_HI0, AMX_LO0, q, w);
    if (nt > 1) {
        AMX_MULTIPLY(AMX_HI1, AMX_LO1, q + step, w + 1);
        AMX_STORE(even, AMX_HI0, AMX_LO0);
    }
    int t = 2; /* t - 1 is in registers, t - 2 in `even` */
    for (; t + 1 < nt; t += 2) {
        q += 2 * step;
        STEP(AMX_HI0, AMX_LO0, q, w + t, AMX_HI1, AMX_LO1, odd, even, d);
        d += b->stride;
        STEP(AMX_HI1, AMX_LO1, q + step, w + t + 1, AMX_HI0, AMX_LO0, even, odd, d);
        d += b->stride;
    }
    if (t < nt) { /* an odd number of tiles */
        STEP(AMX_HI0, AMX_LO0, q + 2 * step, w + t, AMX_HI1, AMX_LO1, odd, even, d);
        AMX_STORE(even, AMX_HI0, AMX_LO0);
        add_results(f, odd, d + b->stride);
        add_results(f, even, d + 2 * b->stride);
    } else if (nt > 1) {
        AMX_STORE(odd, AMX_HI1, AMX_LO1);
        add_results(f, even, d);
        add_results(f, odd, d + b->stride);
    } else {
        AMX_STORE(even, AMX_HI0, AMX_LO0);
        add_results(f, even, d);
    }
    const __m512 scale = b->last ? _mm512_load_ps(b->row_scale) : _mm512_set1_ps(1.0f);
    Q_UNROLL
    for (int m = 0; m < AMX_M; m++)
        if (m >= from)
            _mm512_mask_storeu_ps(b->y + (size_t)m * b->ldy, b->rows,
                                  _mm512_mul_ps(scale, f[m]));
}

/* Moves the block to token m. */
Q_INLINE block at_token(block b, int m)
{
    b.y += (size_t)m * b.ldy;
    b.q += Q_TILE * (size_t)m;
    b.d += m;
    return b;
}

/* nt tiles of a group from its tile at w. */
Q_INLINE void unpack_group(const int type, panel *p, const uint8_t *w, int nt)
{
    const luts lut = luts_of(type);
    if (has_pairs(type)) q_points_avx512vbmi(type, p->code[0], sizeof p->code[0], w, nt);
    for (int t = 0; t < nt; t++) {
        const int odd = t % halves_of(type); /* second 64 k of the tile */
        const uint8_t *tile = w + tile_at(type, t), *planes = tile + 64 + plane_bytes(type) * odd;
        amx_unpack(type, &p->at[t], (const int8_t *)tile + 32 * odd,
                   has_pairs(type) ? p->code[t] : planes, &lut);
    }
}

static void __attribute__((noinline)) unpack(int type, panel *p, const uint8_t *w, int nt)
{
    switch (type) {
    case Q_L8: unpack_group(Q_L8, p, w, nt); break;
    case Q_L6: unpack_group(Q_L6, p, w, nt); break;
    case Q_N5: unpack_group(Q_N5, p, w, nt); break;
    case Q_N4: unpack_group(Q_N4, p, w, nt); break;
    case Q_N4S: unpack_group(Q_N4S, p, w, nt); break;
    case Q_P6: unpack_group(Q_P6, p, w, nt); break;
    default: unpack_group(Q_P5, p, w, nt); break;
    }
}

static void panel_a8(int type, float *y, size_t ldy, const uint8_t *w, int n, const q_acts *x,
                     int m0, int m, panel *p)
{
    const size_t bytes = q_group_bytes(type, Q_TILE * x->kt);
    const int kt = tiles_of(type, x);
    amx_begin();
    for (int t0 = 0; t0 < kt; t0 += AMX_T) {
        const int nt = kt - t0 < AMX_T ? kt - t0 : AMX_T;
        const size_t at = (size_t)t0 * (size_t)x->M + (size_t)m0;
        for (int g = 0; 16 * g < n; g++) {
            const uint8_t *wg = w + bytes * (size_t)g;
            const block b = { .y = y + 16 * g, .ldy = ldy, .row_scale = (const float *)wg,
                              .rows = n - 16 * g >= 16 ? (__mmask16)0xffff : v16_first(n - 16 * g),
                              .first = t0 == 0, .last = t0 + nt == kt, .q = x->q + Q_TILE * at,
                              .d = x->d + at, .stride = (size_t)x->M };
            unpack(type, p, wg + 64 + tile_at(type, t0), nt);
            amx_fence();
            int j = 0;
            for (; j + AMX_M <= m; j += AMX_M) {
                const block at_j = at_token(b, j);
                run_block(p, nt, &at_j, 0);
            }
            if (j < m) { /* the last 16, for those not done */
                const block rest = at_token(b, m - AMX_M);
                run_block(p, nt, &rest, j - m + AMX_M);
            }
        }
    }
    amx_end();
}

static void gemm_l8_amx(float *y, size_t ldy, const void *w, int n, const q_acts *x, int m0, int m,
                        void *tmp)
{
    if (m >= AMX_MIN) panel_a8(Q_L8, y, ldy, w, n, x, m0, m, tmp);
    else q_gemm_avx512vnni(Q_L8, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_l6_amx(float *y, size_t ldy, const void *w, int n, const q_acts *x, int m0, int m,
                        void *tmp)
{
    if (m >= AMX_MIN) panel_a8(Q_L6, y, ldy, w, n, x, m0, m, tmp);
    else q_gemm_avx512vnni(Q_L6, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_n5_amx(float *y, size_t ldy, const void *w, int n, const q_acts *x, int m0, int m,
                        void *tmp)
{
    if (m >= AMX_MIN) panel_a8(Q_N5, y, ldy, w, n, x, m0, m, tmp);
    else q_gemm_avx512vnni(Q_N5, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_n4_amx(float *y, size_t ldy, const void *w, int n, const q_acts *x, int m0, int m,
                        void *tmp)
{
    if (m >= AMX_MIN) panel_a8(Q_N4, y, ldy, w, n, x, m0, m, tmp);
    else q_gemm_avx512vnni(Q_N4, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_n4s_amx(float *y, size_t ldy, const void *w, int n, const q_acts *x, int m0, int m,
                         void *tmp)
{
    if (m >= AMX_MIN) panel_a8(Q_N4S, y, ldy, w, n, x, m0, m, tmp);
    else q_gemm_avx512vnni(Q_N4S, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_p6_amx(float *y, size_t ldy, const void *w, int n, const q_acts *x, int m0, int m,
                        void *tmp)
{
    if (m >= AMX_MIN) panel_a8(Q_P6, y, ldy, w, n, x, m0, m, tmp);
    else q_gemm_avx512vbmi(Q_P6, y, ldy, w, n, x, m0, m, tmp);
}

static void gemm_p5_amx(float *y, size_t ldy, const void *w, int n, const q_acts *x, int m0, int m,
                        void *tmp)
{
    if (m >= AMX_MIN) panel_a8(Q_P5, y, ldy, w, n, x, m0, m, tmp);
    else q_gemm_avx512vbmi(Q_P5, y, ldy, w, n, x, m0, m, tmp);
}

bool q_fill_gemm_amx(q_kern *t)
{
    t->gemm_l8 = gemm_l8_amx;
    t->gemm_l6 = gemm_l6_amx;
    t->gemm_n5 = gemm_n5_amx;
    t->gemm_n4 = gemm_n4_amx;
    t->gemm_n4s = gemm_n4s_amx;
    t->gemm_p6 = gemm_p6_amx;
    t->gemm_p5 = gemm_p5_amx;
    return true;
}

#else
bool q_fill_gemm_amx(q_kern *t)
{
    (void)t;
    return false;
}
#endif
