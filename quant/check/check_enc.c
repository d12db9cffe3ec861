/* check_enc.c - the passes of the encoder: each starts from the reference's result so far. */
#include "quant/check/qc.h"
#include "quant/encode.h"
#include "quant/scalar.h"

enum { N_TYPES = 7 };
static const int types[N_TYPES] = { Q_L8, Q_L6, Q_N5, Q_N4, Q_N4S, Q_P6, Q_P5 };

/* Rows of very different sizes, none beyond what a float can hold. */
static float *rows(qc *c, int nrows, int k, size_t ld, int fill)
{
    float *w = qc_mem(c, (size_t)nrows * ld * sizeof *w);
    for (int r = 0; r < nrows; r++) {
        float *p = w + (size_t)r * ld;
        qc_fill(c, p, k, fill);
        const float unit = r % 5 == 3 ? 0x1p+60f : r % 5 == 4 ? 0x1p-60f : 1.0f;
        for (int i = 0; i < k; i++) p[i] *= unit;
        if (r % 4 == 2) p[qc_below(c, k)] *= 9.0f;
        if (r % 7 == 6) memset(p, 0, (size_t)k / 2 * sizeof *p);
    }
    return w;
}

static const float *importance(qc *c, int k, int kind)
{
    if (kind == 0) return NULL;
    float *imp = qc_mem(c, (size_t)k * sizeof *imp);
    for (int i = 0; i < k; i++) imp[i] = fabsf(qc_float(c, kind == 1 ? -4 : -60, 3));
    if (kind == 2) imp[qc_below(c, k)] = 0.0f;
    return imp;
}

typedef void pass(qc *c, const q_enc *in);

static void fit(qc *c, const q_enc *in)
{
    uint8_t *tiles = qc_out(c, (size_t)in->n_tile * in->tile_bytes);
    float *top = qc_out(c, Q_ROWS * sizeof *top);
    QC_EACH(c, t) t->enc_fit(in, tiles, top);
}

/* Tiles after the first pass, and the row scales that follow. */
static uint8_t *fitted(qc *c, const q_enc *in, float scale[Q_ROWS])
{
    uint8_t *tiles = qc_out(c, (size_t)in->n_tile * in->tile_bytes);
    c->level[0].kern.enc_fit(in, tiles, scale);
    for (int r = 0; r < Q_ROWS; r++) scale[r] /= 127.0f;
    return tiles;
}

static void round_(qc *c, const q_enc *in)
{
    float scale[Q_ROWS];
    uint8_t *tiles = fitted(c, in, scale);
    double *num = qc_out(c, Q_ROWS * sizeof *num), *den = qc_out(c, Q_ROWS * sizeof *den);
    QC_EACH(c, t) t->enc_round(in, tiles, scale, num, den);
}

static void pack(qc *c, const q_enc *in)
{
    float scale[Q_ROWS], stored[Q_ROWS];
    double num[Q_ROWS], den[Q_ROWS];
    uint8_t *tiles = fitted(c, in, scale);
    c->level[0].kern.enc_round(in, tiles, scale, num, den);
    for (int r = 0; r < Q_ROWS; r++) {
        /* A scale that is off makes weights lie far outside of the grid. */
        if (r % 6 == 5) scale[r] *= 0.01f;
        stored[r] = (float)((double)scale[r] * in->unit[r]);
    }
    double *err = qc_out(c, Q_ROWS * sizeof *err), *sum = qc_out(c, Q_ROWS * sizeof *sum);
    QC_EACH(c, t) t->enc_pack(in, tiles, scale, stored, err, sum);
}

static void one(qc *c, pass *run, int type, int nrows, int k, int fill, int kind)
{
    const size_t ld = (size_t)k + 3;
    const float *w = rows(c, nrows, k, ld, fill), *imp = importance(c, k, kind);
    uint32_t max_bits[Q_ROWS];
    q_enc in;
    c->level[0].kern.enc_max(max_bits, w, ld, nrows, k);
    q_enc_init(&in, type, w, ld, nrows, k, imp, max_bits);
    run(c, &in);
}

static void each(qc *c, pass *run)
{
    static const int ks[] = { 1, 16, 77, 128, 195, 400 };
    int turn = 0;
    for (int i = 0; i < N_TYPES; i++) {
        for (int j = 0; j < 6; j++) {
            for (int fill = 0; fill < QC_FILLS; fill++, turn++) {
                const int nrows = turn % 3 ? Q_ROWS : 1 + turn / 3 % Q_ROWS, kind = turn % 4 % 3;
                qc_case(c, "%s rows=%d k=%d fill=%s imp=%d", q_type_info(types[i])->name, nrows,
                        ks[j], qc_fill_name[fill], kind);
                one(c, run, types[i], nrows, ks[j], fill, kind);
            }
        }
    }
    for (int i = 0; i < QC_RATES; i++) { /* L8, N4; GB of the source */
        const int type = i ? Q_N4 : Q_L8, k = 1536;
        qc_case(c, "bench");
        if (!qc_bench(c, i, 4.0 * Q_ROWS * k, 0)) return;
        one(c, run, type, Q_ROWS, k, QC_NORMAL, 0);
    }
}

/* Weights a few units in the last place around every border between codes: scale * s is 1 / 64 and
 * the largest weight 127 / 128, so a weight times 64 is in grid units, and no product rounds. */
static void borders(qc *c, int type)
{
    enum { K = 512 };
    qc_case(c, "%s borders", q_type_info(type)->name);
    float *w = qc_mem(c, Q_ROWS * K * sizeof *w), scale[Q_ROWS];
    for (int i = 0; i < Q_ROWS * K; i++) {
        const float unit = qc_below(c, 2) ? 0x1p-20f : 0x1p-17f;
        const float y = (float)(qc_below(c, 253) - 126) + (float)(qc_below(c, 9) - 4) * unit;
        w[i] = i % K ? y * 0x1p-7f : 0x1.fcp-1f;
    }
    uint32_t max_bits[Q_ROWS];
    q_enc in;
    c->level[0].kern.enc_max(max_bits, w, K, Q_ROWS, K);
    q_enc_init(&in, type, w, K, Q_ROWS, K, NULL, max_bits);
    uint8_t *tiles = qc_out(c, (size_t)in.n_tile * in.tile_bytes);
    for (int t = 0; t < in.n_tile; t++) memset(tiles + (size_t)t * in.tile_bytes, 1, 64);
    for (int r = 0; r < Q_ROWS; r++) scale[r] = (float)(0x1p-6 / in.unit[r]);
    double *err = qc_out(c, Q_ROWS * sizeof *err), *sum = qc_out(c, Q_ROWS * sizeof *sum);
    QC_EACH(c, t) t->enc_pack(&in, tiles, scale, scale, err, sum);
}

void qc_enc_fit(qc *c) { each(c, fit); }
void qc_enc_round(qc *c) { each(c, round_); }
void qc_enc_pack(qc *c)
{
    for (int i = 0; i < N_TYPES; i++)
        for (int n = 0; n < 4; n++) borders(c, types[i]);
    each(c, pack);
}

void qc_enc_max(qc *c)
{
    static const int ks[] = { 1, 15, 16, 17, 100 };
    for (int j = 0; j < 5; j++) {
        for (int fill = 0; fill < QC_FILLS + 2; fill++) {
            const int k = ks[j], nrows = 1 + qc_below(c, Q_ROWS);
            const size_t ld = (size_t)k + 5;
            qc_case(c, "rows=%d k=%d fill=%d", nrows, k, fill);
            float *w = rows(c, nrows, k, ld, fill % QC_FILLS);
            if (fill >= QC_FILLS) /* NaN, infinity */
                w[(size_t)qc_below(c, nrows) * ld + (size_t)qc_below(c, k)] =
                    q_float(fill == QC_FILLS ? 0xff812345u : 0x7f800000u);
            uint32_t *max_bits = qc_out(c, Q_ROWS * sizeof *max_bits);
            QC_EACH(c, t) t->enc_max(max_bits, w, ld, nrows, k);
        }
    }
    qc_case(c, "bench");
    if (!qc_bench(c, 0, 4.0 * Q_ROWS * 1536, 0)) return;
    const float *w = rows(c, Q_ROWS, 1536, 1536, QC_NORMAL);
    uint32_t *max_bits = qc_out(c, Q_ROWS * sizeof *max_bits);
    QC_EACH(c, t) t->enc_max(max_bits, w, 1536, Q_ROWS, 1536);
}
