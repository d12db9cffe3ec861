/* check_mla.c - cases of the cache of latents (qc.h). */
#include "quant/check/qc.h"

#include "quant/scalar.h"

/* Latents of whole and of partial tiles and blocks, one and several; the last is R1's. */
static const struct { int lora, rope; } shapes[] = {
    { 16, 2 }, { 64, 16 }, { 96, 16 }, { 128, 64 }, { 192, 66 }, { 272, 128 }, { 512, 64 }
};
enum { N_SHAPES = 7 };

static int tiles_of(int n) { return (n + 63) / 64; }

/* A block as one in use: every code legal, scales of positions from `len` on NaN. */
static void latents(qc *c, uint8_t *blk, int lora, int rope, int len, int fill)
{
    float *d = (float *)(void *)blk;
    const size_t head = q_lat_codes(lora, rope), n = q_lat_bytes(lora, rope);
    for (size_t i = 0; i < head / sizeof *d; i++)
        d[i] = (int)(i % Q_PIECE) >= len ? NAN : fill == 1 ? 0.5f : fabsf(qc_float(c, -9, 2));
    for (size_t i = head; i < n; i++)
        blk[i] = (uint8_t)(fill == 1 ? 127 : fill == 2 ? 129 : qc_below(c, 255) - 127);
}

void qc_put_lat8(qc *c)
{
    static const int at[] = { 0, 1, 15, 16, 18, 63, 64, 255 };
    for (int i = 0; i < N_SHAPES; i++) {
        for (int fill = 0; fill < QC_FILLS + 2; fill++) {
            const int lora = shapes[i].lora, rope = shapes[i].rope, p = at[(i + fill) % 8];
            const bool finite = fill < QC_FILLS;
            qc_case(c, "%d+%d p=%d x=%s", lora, rope, p,
                    finite ? qc_fill_name[fill] : "not finite");
            const int pe = tiles_of(lora) * Q_TILE; /* where the rotated dims start */
            float *x = qc_floats(c, pe + rope, finite ? fill : QC_NORMAL);
            int *ret = qc_out(c, sizeof *ret);
            if (!finite)
                x[fill & 1 ? qc_below(c, lora) : pe + qc_below(c, rope)] =
                    q_float(fill & 1 ? 0xff800000u : 0x7fc00001u);
            const size_t n = q_lat_bytes(lora, rope);
            void *blk = finite ? qc_out(c, n) : qc_mem(c, n);
            QC_EACH(c, t) *ret = t->put_lat8(blk, p, x, lora, rope) != 0;
        }
    }
    qc_case(c, "bench");
    if (!qc_bench(c, 0, 16 * 576 * 4.0, 0)) return;
    const float *x = qc_floats(c, 576, QC_NORMAL);
    void *blk = qc_mem(c, q_lat_bytes(512, 64));
    QC_EACH(c, t)
        for (int p = 0; p < 16; p++) t->put_lat8(blk, p, x, 512, 64);
}

static void one_qk(qc *c, int lora, int rope, int ng, int m, int m0, int fill, int afill)
{
    qc_case(c, "%d+%d ng=%d m=%d m0=%d k=%d q=%s", lora, rope, ng, m, m0, fill,
            qc_afill_name[afill]);
    uint8_t *blk = qc_mem(c, q_lat_bytes(lora, rope));
    latents(c, blk, lora, rope, Q_ROWS * ng, fill);
    q_acts q;
    qc_acts(c, &q, 2 * (m0 + m), (tiles_of(lora) + tiles_of(rope)) * Q_TILE, afill);
    const size_t lds = (size_t)ng * Q_ROWS + 4;
    float *s = qc_out(c, (size_t)m * lds * sizeof *s);
    QC_EACH(c, t) t->attn_qkl8(s, lds, blk, lora, rope, ng, &q, m0, m, 0x1.6a09e6p-4f);
}

void qc_attn_qkl8(qc *c)
{
    static const int groups[] = { 1, 2, 3, 4, 9, 15, 16 };
    static const int queries[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 17, 33, 64, 70 };
    int turn = 0;
    for (int i = 0; i < N_SHAPES; i++)
        for (int j = 0; j < 16; j++, turn++)
            one_qk(c, shapes[i].lora, shapes[i].rope, groups[turn % 7], queries[j], turn % 2,
                   turn % 3, turn / 2 % QC_A_FILLS);

    qc_case(c, "bench");
    if (!qc_bench(c, 0, (double)q_lat_bytes(512, 64), 256 * 576 * 32.0)) return;
    uint8_t *blk = qc_mem(c, q_lat_bytes(512, 64));
    latents(c, blk, 512, 64, Q_PIECE, 0);
    q_acts q;
    qc_acts(c, &q, 32, 576, QC_A_RANDOM);
    float *s = qc_mem(c, 16 * 256 * sizeof *s);
    QC_EACH(c, t) t->attn_qkl8(s, 256, blk, 512, 64, 16, &q, 0, 16, 0.088f);
}

void qc_lat_v8(qc *c)
{
    static const int lens[] = { 1, 16, 63, 64, 65, 129, 200, 256 };
    for (int i = 0; i < N_SHAPES; i++) {
        for (int j = 0; j < 8; j++) {
            const int lora = shapes[i].lora, rope = shapes[i].rope;
            qc_case(c, "%d+%d n=%d", lora, rope, lens[j]);
            uint8_t *blk = qc_mem(c, q_lat_bytes(lora, rope));
            latents(c, blk, lora, rope, Q_PIECE, 0);
            void *v = qc_out(c, q_kv_v_bytes(Q_KV_8, lora));
            QC_EACH(c, t) t->lat_v8(v, blk, lora, rope, lens[j]);
        }
    }
    qc_case(c, "bench");
    if (!qc_bench(c, 0, 256 * 512.0, 0)) return;
    uint8_t *blk = qc_mem(c, q_lat_bytes(512, 64));
    latents(c, blk, 512, 64, Q_PIECE, 0);
    void *v = qc_mem(c, q_kv_v_bytes(Q_KV_8, 512));
    QC_EACH(c, t) t->lat_v8(v, blk, 512, 64, 256);
}
