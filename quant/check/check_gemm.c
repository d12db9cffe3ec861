/* check_gemm.c - cases of the matrix products (qc.h). */
#include "quant/check/qc.h"

#include "quant/scalar.h"

/* Tokens 1..9 meet every register block of the kernels and its remainder, 16 and more a second; 30
 * and 33 those of panels. */
static const int tokens[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 30, 33 };
static const int rows[] = { 1, 3, 16, 17, 61 };
static const int widths[] = { 64, 128, 192, 320, 704, 1536 };
enum { N_TOKENS = 13, N_ROWS = 5, N_WIDTHS = 6 };

static void one_a8(qc *c, int type, int n, int k, int m, int m0, int wfill, int afill, bool ordered)
{
    qc_case(c, "n=%d k=%d m=%d m0=%d w=%s a=%s%s", n, k, m, m0, qc_wfill_name[wfill],
            qc_afill_name[afill], ordered ? " ordered" : "");
    const size_t ldy = (size_t)n + 3, bytes = q_matrix_bytes(type, (uint64_t)n, k);
    void *w = qc_mem(c, bytes), *tmp = qc_tmp(c);
    float *y = qc_out(c, (size_t)m * ldy * sizeof *y);
    q_acts x;
    qc_weights(c, type, w, n, k, wfill, false);
    qc_acts(c, &x, m0 + m + m0, k, afill);
    uint8_t *u = ordered ? qc_mem(c, q_order_bytes(x.M, k)) : NULL;
    const int most = 1 + qc_below(c, x.M), tiles = 1 + qc_below(c, x.kt);
    QC_EACH(c, t) {
        x.u = t->order ? u : NULL;
        for (int i = 0; x.u && i < x.M; i += most)
            for (int j = 0; j < x.kt; j += tiles)
                t->order(&x, i, x.M - i < most ? x.M - i : most, j,
                         x.kt - j < tiles ? x.kt - j : tiles);
        q_gemm_for(t, type).a8(y, ldy, w, n, &x, m0, m, tmp);
    }
}

/* The fills take turns over the shapes, at different periods, so that pairs meet many shapes. */
static void gemm_a8(qc *c, int type)
{
    int turn = 0;
    for (int i = 0; i < N_WIDTHS; i++)
        for (int j = 0; j < N_ROWS; j++)
            for (int l = 0; l < N_TOKENS; l++, turn++)
                one_a8(c, type, rows[j], widths[i], tokens[l], turn % 3, turn % QC_W_FILLS,
                       turn / 3 % QC_A_FILLS, turn % 2);
    for (int w = 0; w < QC_W_FILLS; w++)
        for (int a = 0; a < QC_A_FILLS; a++) {
            one_a8(c, type, 17, 256, 5, 1, w, a, false);
            one_a8(c, type, 17, 256, 29, 4 * (a % 2), w, a, w % 2); /* panels of every level */
            one_a8(c, type, 50, 320, 6 + (w + a) % 6, 1, w, a, false); /* few tokens, many rows */
        }
    one_a8(c, type, 1030, 320, 8, 1, QC_W_RANDOM, QC_A_RANDOM, false); /* these take 512 at once */
    /* Panels take 256 tokens at once.  Those of AVX2 have k in their outer loop where activations
     * of all k do not fit: 130 tokens of 1600 k, whose last tile is odd. */
    for (int i = 0; i < 4; i++) {
        one_a8(c, type, 33, 192, 270, 1 + i, QC_W_RANDOM, QC_A_RANDOM, i % 2);
        one_a8(c, type, 17, 1600, 29, 4 + i / 2, QC_W_RANDOM, QC_A_RANDOM, i % 2);
        one_a8(c, type, 33, 1600, 130, 4 + i / 2, QC_W_RANDOM, QC_A_RANDOM, i % 2);
    }
}

/* One token: how fast weights stream, rate 0.  Many: how fast products are made, rate 1. */
static bool bench(qc *c, size_t bytes, double macs, int m)
{
    qc_case(c, "bench");
    return m == 1 ? qc_bench(c, 0, (double)bytes, 0) : qc_bench(c, 1, 0, macs);
}

static void bench_a8(qc *c, int type, int n, int k, int m)
{
    const size_t bytes = q_matrix_bytes(type, (uint64_t)n, k);
    if (!bench(c, bytes, (double)n * k * m, m)) return;
    c->int8 = true;
    void *w = qc_mem(c, bytes), *tmp = qc_tmp(c);
    float *y = qc_mem(c, (size_t)n * (size_t)m * sizeof *y);
    q_acts x;
    qc_weights(c, type, w, n, k, QC_W_RANDOM, false);
    qc_acts(c, &x, m, k, QC_A_RANDOM);
    QC_EACH(c, t) q_gemm_for(t, type).a8(y, (size_t)n, w, n, &x, 0, m, tmp);
}

static void check_a8(qc *c, int type)
{
    gemm_a8(c, type);
    bench_a8(c, type, 8960, 1536, 1); /* a matrix of the 1.5B, beyond most L2 caches */
    bench_a8(c, type, 512, 1536, 64);
}

void qc_gemm_l8(qc *c) { check_a8(c, Q_L8); }
void qc_gemm_l6(qc *c) { check_a8(c, Q_L6); }
void qc_gemm_n5(qc *c) { check_a8(c, Q_N5); }
void qc_gemm_n4(qc *c) { check_a8(c, Q_N4); }
void qc_gemm_n4s(qc *c) { check_a8(c, Q_N4S); }
void qc_gemm_p6(qc *c) { check_a8(c, Q_P6); }
void qc_gemm_p5(qc *c) { check_a8(c, Q_P5); }

static float *float_acts(qc *c, int m, int k, size_t ldx, int fill)
{
    float *x = qc_mem(c, (size_t)m * ldx * sizeof *x);
    for (int j = 0; j < m; j++) {
        qc_fill(c, x + (size_t)j * ldx, k, fill);
        for (int i = k; i < (k + 63) / 64 * 64; i++) x[(size_t)j * ldx + (size_t)i] = 0.0f;
    }
    return x;
}

static void one_f(qc *c, int type, int n, int k, int m, int wfill, int fill)
{
    qc_case(c, "n=%d k=%d m=%d w=%s x=%s", n, k, m, qc_wfill_name[wfill], qc_fill_name[fill]);
    const size_t ldy = (size_t)n + 5, ldx = (size_t)(k + 63) / 64 * 64 + 16;
    void *w = qc_mem(c, q_matrix_bytes(type, (uint64_t)n, k)), *tmp = qc_tmp(c);
    float *y = qc_out(c, (size_t)m * ldy * sizeof *y);
    qc_weights(c, type, w, n, k, wfill, false);
    const float *x = float_acts(c, m, k, ldx, fill);
    QC_EACH(c, t) q_gemm_for(t, type).f(y, ldy, w, n, k, x, ldx, m, tmp);
}

static void check_f(qc *c, int type)
{
    static const int ks[] = { 64, 100, 192, 576 };
    int turn = 0;
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < N_ROWS; j++)
            for (int l = 0; l < N_TOKENS; l++, turn++)
                one_f(c, type, rows[j], ks[i], tokens[l], turn % QC_W_FILLS, turn / 3 % QC_FILLS);

    /* -2^-20 * 2^-149 underflows to -0, and y must still be +0. */
    static const uint32_t minus[] = {
        [Q_F32] = 0xb5800000, [Q_F16] = 0x80108010, [Q_BF16] = 0xb580b580
    };
    for (int m = 1; m < 10; m++) {
        qc_case(c, "m=%d minus zero", m);
        uint32_t *w = qc_mem(c, q_matrix_bytes(type, 16, 64));
        for (size_t i = 0; i < q_matrix_bytes(type, 16, 64) / 4; i++) w[i] = minus[type];
        float *x = qc_mem(c, (size_t)m * 64 * sizeof *x);
        float *y = qc_out(c, (size_t)m * 16 * sizeof *y);
        for (int i = 0; i < m * 64; i++) x[i] = 0x1p-149f;
        void *tmp = qc_tmp(c);
        QC_EACH(c, t) q_gemm_for(t, type).f(y, 16, w, 16, 64, x, 64, m, tmp);
    }

    static const struct { int n, k, m; } at[] = { { 2048, 1536, 1 }, { 256, 1536, 64 } };
    for (int i = 0; i < 2; i++) {
        const int n = at[i].n, k = at[i].k, m = at[i].m;
        const size_t bytes = q_matrix_bytes(type, (uint64_t)n, k);
        if (!bench(c, bytes, (double)n * k * m, m)) return;
        void *w = qc_mem(c, bytes), *tmp = qc_tmp(c);
        float *y = qc_mem(c, (size_t)n * (size_t)m * sizeof *y);
        qc_weights(c, type, w, n, k, QC_W_RANDOM, false);
        const float *x = float_acts(c, m, k, (size_t)k, QC_NORMAL);
        QC_EACH(c, t) q_gemm_for(t, type).f(y, (size_t)n, w, n, k, x, (size_t)k, m, tmp);
    }
}

void qc_gemm_f32(qc *c) { check_f(c, Q_F32); }
void qc_gemm_f16(qc *c) { check_f(c, Q_F16); }
void qc_gemm_bf16(qc *c) { check_f(c, Q_BF16); }
