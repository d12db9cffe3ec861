/* check_vec.c - cases of the vector operations (qc.h). */
#include "quant/check/qc.h"

#include "quant/scalar.h"

static const int lens[] = { 1, 3, 4, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 100, 127, 576, 1537 };
enum { N_LENS = 17 };
static const float not_finite[] = { INFINITY, -INFINITY, NAN, -NAN };

/* ---- quantisation: all planes are outputs, with other tokens and tiles ---- */

static void acts_out(qc *c, q_acts *a, int M, int k)
{
    q_acts_init(a, qc_out(c, q_acts_bytes(M, k)), M, k);
}

void qc_quant_a64(qc *c)
{
    for (int i = 0; i < N_LENS; i++) {
        for (int fill = 0; fill < QC_FILLS + 2; fill++) {
            const int n = lens[i], M = 1 + fill % 3, m = fill % M, t0 = fill % 2 * 2, extra = i % 2;
            const int nt = (n + 63) / 64 + extra;
            qc_case(c, "n=%d nt=%d t0=%d m=%d/%d x=%s", n, nt, t0, m, M,
                    fill < QC_FILLS ? qc_fill_name[fill] : "largest");
            q_acts a;
            float *x = qc_floats(c, n, fill < QC_FILLS ? fill : QC_NORMAL);
            if (fill >= QC_FILLS) x[qc_below(c, n)] = fill & 1 ? 0x1.fffffep+127f : -0x1p-100f;
            int *ret = qc_out(c, sizeof *ret);
            acts_out(c, &a, M, (t0 + nt) * Q_TILE);
            QC_EACH(c, t) *ret = t->quant_a64(&a, m, t0, nt, x, n) != 0;
        }
    }
    for (int i = 0; i < 4 * N_LENS; i++) {
        const int n = lens[i / 4];
        qc_case(c, "n=%d not finite", n);
        q_acts a;
        float *x = qc_floats(c, n, QC_NORMAL);
        x[qc_below(c, n)] = not_finite[i % 4];
        int *ret = qc_out(c, sizeof *ret);
        q_acts_init(&a, qc_mem(c, q_acts_bytes(1, n)), 1, n);
        QC_EACH(c, t) *ret = t->quant_a64(&a, 0, 0, a.kt, x, n) != 0;
    }
    qc_case(c, "bench");
    if (!qc_bench(c, 0, 1536 * 4.0, 0)) return;
    q_acts a;
    const float *x = qc_floats(c, 1536, QC_NORMAL);
    q_acts_init(&a, qc_mem(c, q_acts_bytes(1, 1536)), 1, 1536);
    QC_EACH(c, t) t->quant_a64(&a, 0, 0, a.kt, x, 1536);
}

void qc_quant_a16(qc *c)
{
    for (int i = 0; i < N_LENS; i++) {
        for (int fill = 0; fill < QC_FILLS + 2; fill++) {
            const int n = lens[i], q = 1 + fill % 3, m = fill % q;
            qc_case(c, "n=%d m=%d x=%s", n, m, fill < QC_FILLS ? qc_fill_name[fill] : "largest");
            q_acts a;
            float *x = qc_floats(c, n, fill < QC_FILLS ? fill : QC_NORMAL);
            if (fill >= QC_FILLS) x[qc_below(c, n)] = fill & 1 ? 0x1.fffffep+127f : -0x1p-100f;
            int *ret = qc_out(c, sizeof *ret);
            acts_out(c, &a, 2 * q, n);
            QC_EACH(c, t) *ret = t->quant_a16(&a, m, x, n) != 0;
        }
    }
    for (int i = 0; i < 4 * N_LENS; i++) {
        const int n = lens[i / 4];
        qc_case(c, "n=%d not finite", n);
        q_acts a;
        float *x = qc_floats(c, n, QC_NORMAL);
        x[qc_below(c, n)] = not_finite[i % 4];
        int *ret = qc_out(c, sizeof *ret);
        q_acts_init(&a, qc_mem(c, q_acts_bytes(2, n)), 2, n);
        QC_EACH(c, t) *ret = t->quant_a16(&a, 0, x, n) != 0;
    }
    /* Every value of q: 32384 fixes the scale at 1, the rest of the block walks through -32384.. */
    for (int from = -32384; from <= 32384; from += 63) {
        qc_case(c, "codes from %d", from);
        q_acts a;
        float *x = qc_floats(c, Q_TILE, QC_ZERO);
        x[0] = 32384.0f;
        for (int k = 1; k < Q_TILE; k++) x[k] = (float)(from + k - 1 <= 32384 ? from + k - 1 : 0);
        acts_out(c, &a, 2, Q_TILE);
        QC_EACH(c, t) t->quant_a16(&a, 0, x, Q_TILE);
    }
    qc_case(c, "bench");
    if (!qc_bench(c, 0, 128 * 4.0, 0)) return;
    q_acts a;
    const float *x = qc_floats(c, 128, QC_NORMAL);
    q_acts_init(&a, qc_mem(c, q_acts_bytes(2, 128)), 2, 128);
    QC_EACH(c, t) t->quant_a16(&a, 0, x, 128);
}

/* ---- norms and element-wise ---- */

void qc_rmsnorm(qc *c)
{
    for (int i = 0; i < N_LENS; i++) {
        for (int fill = 0; fill < 2 * QC_FILLS; fill++) {
            const int n = lens[i], in_place = fill >= QC_FILLS;
            qc_case(c, "n=%d x=%s%s", n, qc_fill_name[fill % QC_FILLS],
                    in_place ? " in place" : "");
            float *y = qc_out(c, (size_t)n * sizeof *y), *x = y;
            if (in_place) qc_fill(c, x, n, fill % QC_FILLS);
            else x = qc_floats(c, n, fill % QC_FILLS);
            const float *w = qc_floats(c, n, QC_NORMAL);
            int *ret = qc_out(c, sizeof *ret);
            QC_EACH(c, t) *ret = t->rmsnorm(y, x, w, n, 1e-6f) != 0;
        }
    }
    for (int i = 0; i < 4 * N_LENS; i++) {
        const int n = lens[i / 4];
        qc_case(c, "n=%d not finite", n);
        float *x = qc_floats(c, n, QC_NORMAL), *y = qc_mem(c, (size_t)n * sizeof *y);
        x[qc_below(c, n)] = i % 4 == 3 ? 0x1p+100f : not_finite[i % 4]; /* its square is inf */
        int *ret = qc_out(c, sizeof *ret);
        QC_EACH(c, t) *ret = t->rmsnorm(y, x, x, n, 1e-6f) != 0;
    }
    qc_case(c, "bench");
    if (!qc_bench(c, 0, 3 * 1536 * 4.0, 0)) return;
    const float *x = qc_floats(c, 1536, QC_NORMAL);
    float *y = qc_mem(c, 1536 * sizeof *y);
    QC_EACH(c, t) t->rmsnorm(y, x, x, 1536, 1e-6f);
}

void qc_add(qc *c)
{
    for (int i = 0; i < N_LENS; i++) {
        for (int fill = 0; fill < QC_FILLS; fill++) {
            const int n = lens[i];
            qc_case(c, "n=%d x=%s", n, qc_fill_name[fill]);
            const float *x = qc_floats(c, n, fill);
            float *y = qc_out(c, (size_t)n * sizeof *y);
            qc_fill(c, y, n, (fill + i) % QC_FILLS);
            QC_EACH(c, t) t->add(y, x, n);
        }
    }
    qc_case(c, "bench");
    if (!qc_bench(c, 0, 3 * 1536 * 4.0, 0)) return;
    const float *x = qc_floats(c, 1536, QC_NORMAL);
    float *y = qc_mem(c, 1536 * sizeof *y);
    qc_fill(c, y, 1536, QC_NORMAL);
    QC_EACH(c, t) t->add(y, x, 1536);
}

void qc_axpy(qc *c)
{
    static const float factors[] = { 0.0f, -1.0f, 0x1.8p-3f, 0x1.fffffep+0f };
    for (int i = 0; i < N_LENS; i++) {
        for (int fill = 0; fill < QC_FILLS; fill++) {
            const int n = lens[i];
            const float a = factors[(i + fill) % 4];
            qc_case(c, "n=%d a=%g x=%s", n, (double)a, qc_fill_name[fill]);
            const float *x = qc_floats(c, n, fill);
            float *y = qc_out(c, (size_t)n * sizeof *y);
            qc_fill(c, y, n, (fill + i) % QC_FILLS);
            QC_EACH(c, t) t->axpy(y, a, x, n);
        }
    }
    qc_case(c, "bench");
    if (!qc_bench(c, 0, 3 * 1536 * 4.0, 0)) return;
    const float *x = qc_floats(c, 1536, QC_NORMAL);
    float *y = qc_mem(c, 1536 * sizeof *y);
    qc_fill(c, y, 1536, QC_NORMAL);
    QC_EACH(c, t) t->axpy(y, 0x1.8p-2f, x, 1536);
}

/* Where exp changes its case, and around: x of exp(-x). */
static const float edges[] = { 0.0f,           -0.0f,           87.0f, -87.0f,
                               0x1.5c0002p+6f, -0x1.5c0002p+6f, 88.7f, -88.7f,
                               88.75f,         -88.75f,         1e30f, -1e30f,
                               0x1p-149f,      -0x1p-130f,      0.5f,  -86.99f };

void qc_swiglu(qc *c)
{
    for (int i = 0; i < N_LENS; i++) {
        for (int fill = 0; fill < QC_FILLS; fill++) {
            const int n = lens[i], all = (n + 15) / 16 * 32;
            qc_case(c, "n=%d x=%s", n, qc_fill_name[fill]);
            float *gu = qc_floats(c, all, fill), *y = qc_out(c, (size_t)n * sizeof *y);
            if (fill == QC_NORMAL)
                for (int k = 0; k < 16 && k < n; k++) gu[k] = edges[(k + i) % 16];
            QC_EACH(c, t) t->swiglu(y, gu, n);
        }
    }
    /* The whole range of exp in steps of a few hundred ulps. */
    for (int from = 0; from < 180; from += 4) {
        qc_case(c, "g from %d", from - 90);
        enum { N = 4096 };
        float *gu = qc_floats(c, 2 * N, QC_EQUAL), *y = qc_out(c, N * sizeof *y);
        for (int k = 0; k < N; k++)
            gu[k / 16 * 32 + k % 16] = (float)(from - 90) + (float)k * 0x1.0008p-10f;
        QC_EACH(c, t) t->swiglu(y, gu, N);
    }
    qc_case(c, "bench");
    if (!qc_bench(c, 0, 3 * 8960 * 4.0, 0)) return;
    const float *gu = qc_floats(c, 2 * 8960, QC_NORMAL);
    float *y = qc_mem(c, 8960 * sizeof *y);
    QC_EACH(c, t) t->swiglu(y, gu, 8960);
}

/* ---- rope ---- */

typedef q_rope_fn *rope_of(const q_kern *t);

static void check_rope(qc *c, rope_of *rope)
{
    static const int dims[] = { 2, 8, 16, 24, 32, 48, 64, 80, 96, 128, 192 };
    for (int i = 0; i < 11; i++) {
        for (int fill = 0; fill < QC_FILLS; fill++) {
            const int hd = dims[i], n = 1 + fill % 4;
            const size_t ld = (size_t)hd + (size_t)(fill % 2 * 7);
            qc_case(c, "hd=%d n=%d x=%s", hd, n, qc_fill_name[fill]);
            float *x = qc_out(c, (size_t)n * ld * sizeof *x);
            qc_fill(c, x, (int)((size_t)n * ld), fill);
            float *cs = qc_floats(c, hd / 2, QC_ZERO), *sn = qc_floats(c, hd / 2, QC_ZERO);
            double f[96];
            for (int k = 0; k < hd / 2; k++) f[k] = 1.0 / (1 + 3 * k);
            q_rope_angles(cs, sn, f, 1.0, hd / 2, 1 + qc_below(c, 100000));
            QC_EACH(c, t) rope(t)(x, ld, n, hd, cs, sn);
        }
    }
    qc_case(c, "bench");
    if (!qc_bench(c, 0, 2 * 12 * 128 * 4.0, 0)) return;
    float *x = qc_floats(c, 12 * 128, QC_NORMAL);
    const float *cs = qc_floats(c, 64, QC_ZERO), *sn = qc_floats(c, 64, QC_ZERO);
    QC_EACH(c, t) rope(t)(x, 128, 12, 128, cs, sn);
}

static q_rope_fn *half_of(const q_kern *t) { return t->rope_half; }
static q_rope_fn *pair_of(const q_kern *t) { return t->rope_pair; }
void qc_rope_half(qc *c) { check_rope(c, half_of); }
void qc_rope_pair(qc *c) { check_rope(c, pair_of); }

/* ---- logits ---- */

void qc_argmax(qc *c)
{
    for (int i = 0; i < N_LENS; i++) {
        for (int fill = 0; fill < 3 * QC_FILLS; fill++) {
            const int n = lens[i], twin = fill >= QC_FILLS;
            qc_case(c, "n=%d x=%s%s", n, qc_fill_name[fill % QC_FILLS], twin ? " twice" : "");
            float *x = qc_floats(c, n, fill % QC_FILLS);
            if (twin) x[qc_below(c, n)] = x[qc_below(c, n)] = 0x1p+60f; /* the lower index wins */
            int *at = qc_out(c, sizeof *at);
            QC_EACH(c, t) *at = t->argmax(x, n);
        }
        qc_case(c, "n=%d zeros of both signs", lens[i]);
        float *x = qc_floats(c, lens[i], QC_ZERO);
        for (int k = 0; k < lens[i]; k++)
            x[k] = qc_below(c, 2) ? -0.0f : qc_below(c, 3) ? -1.0f : 0.0f;
        int *at = qc_out(c, sizeof *at);
        QC_EACH(c, t) *at = t->argmax(x, lens[i]);
    }
    qc_case(c, "bench");
    if (!qc_bench(c, 0, 151936 * 4.0, 0)) return;
    const float *x = qc_floats(c, 151936, QC_NORMAL);
    volatile int at = 0;
    QC_EACH(c, t) at = t->argmax(x, 151936);
    (void)at;
}

void qc_band(qc *c)
{
    static const float lo[] = { 0x1p-10f, 0x1p-149f, -1.0f }, hi[] = { 2.0f, 0x1p-10f, 0x1p-20f };
    for (int i = 0; i < N_LENS; i++)
        for (int fill = 0; fill < QC_FILLS; fill++)
            for (int b = 0; b < 3; b++) {
                const int n = lens[i];
                qc_case(c, "n=%d x=%s %a..%a", n, qc_fill_name[fill], (double)lo[b], (double)hi[b]);
                float *x = qc_floats(c, n, fill);
                x[qc_below(c, n)] = lo[b]; /* is in */
                x[qc_below(c, n)] = hi[b]; /* is not */
                int32_t *at = qc_out(c, (size_t)n * sizeof *at);
                int *found = qc_out(c, sizeof *found);
                QC_EACH(c, t) *found = t->band(at, x, n, lo[b], hi[b]);
            }
    qc_case(c, "bench");
    if (!qc_bench(c, 0, 151936 * 4.0, 0)) return;
    const float *x = qc_floats(c, 151936, QC_HOT);
    int32_t *at = qc_mem(c, 151936 * sizeof *at);
    QC_EACH(c, t) t->band(at, x, 151936, 0x1p-10f, 2.0f);
}

static float max_of(const float *x, int n)
{
    float m = x[0];
    for (int i = 1; i < n; i++) m = x[i] > m ? x[i] : m;
    return m;
}

void qc_softmax(qc *c)
{
    static const float temps[] = { 0.6f, 1.0f, 0.01f, 2.5f, 1e-30f };
    for (int i = 0; i < N_LENS; i++) {
        for (int fill = 0; fill < QC_FILLS; fill++) {
            const int n = lens[i];
            const float T = temps[(i + fill) % 5];
            qc_case(c, "n=%d T=%g x=%s", n, (double)T, qc_fill_name[fill]);
            const float *x = qc_floats(c, n, fill);
            float *p = qc_out(c, (size_t)n * sizeof *p), *sum = qc_out(c, sizeof *sum);
            const float max = max_of(x, n);
            QC_EACH(c, t) *sum = t->softmax(p, x, n, max, T);
        }
    }
    for (int from = -90; from < 0; from += 3) { /* the whole range of exp, as in swiglu */
        enum { N = 3072 };
        qc_case(c, "x from %d", from);
        float *x = qc_floats(c, N, QC_ZERO);
        float *p = qc_out(c, N * sizeof *p), *sum = qc_out(c, sizeof *sum);
        for (int k = 0; k < N; k++) x[k] = (float)from + (float)k * 0x1.0008p-10f;
        QC_EACH(c, t) *sum = t->softmax(p, x, N, 0.0f, 1.0f);
    }
    qc_case(c, "bench");
    if (!qc_bench(c, 0, 2 * 151936 * 4.0, 0)) return;
    const float *x = qc_floats(c, 151936, QC_NORMAL);
    float *p = qc_mem(c, 151936 * sizeof *p);
    QC_EACH(c, t) t->softmax(p, x, 151936, 4.0f, 0.6f);
}

void qc_nonfinite(qc *c)
{
    for (int i = 0; i < N_LENS; i++) {
        for (int k = 0; k < 12; k++) {
            const int n = lens[i];
            qc_case(c, "n=%d", n);
            float *x = qc_floats(c, n, k % QC_FILLS);
            if (k < 8) x[k < 4 ? qc_below(c, n) : n - 1] = not_finite[k % 4];
            else x[qc_below(c, n)] = k & 1 ? 0x1.fffffep+127f : -0x1.fffffep+127f;
            int *ret = qc_out(c, sizeof *ret);
            QC_EACH(c, t) *ret = t->nonfinite(x, n) != 0;
        }
    }
    qc_case(c, "bench");
    if (!qc_bench(c, 0, 151936 * 4.0, 0)) return;
    const float *x = qc_floats(c, 151936, QC_NORMAL);
    volatile int r = 0;
    QC_EACH(c, t) r = t->nonfinite(x, 151936);
    (void)r;
}

void qc_sha256(qc *c)
{
    static const int blocks[] = { 0, 1, 2, 3, 7, 64 };
    for (int i = 0; i < 6; i++) {
        for (int k = 0; k < 4; k++) {
            const size_t n = (size_t)blocks[i] * 64;
            qc_case(c, "%d blocks", blocks[i]);
            uint8_t *p = (uint8_t *)qc_mem(c, n + 1) + 1; /* no alignment */
            for (size_t b = 0; b < n; b++)
                p[b] = (uint8_t)(k == 0 ? 0 : k == 1 ? 0xff : qc_rand(c));
            uint32_t *h = qc_out(c, 8 * sizeof *h);
            for (int b = 0; b < 8; b++) h[b] = (uint32_t)qc_rand(c);
            QC_EACH(c, t) t->sha256(h, p, (size_t)blocks[i]);
        }
    }
    qc_case(c, "bench");
    if (!qc_bench(c, 0, 1 << 20, 0)) return;
    const uint8_t *p = qc_mem(c, 1 << 20);
    uint32_t h[8] = { 0 };
    QC_EACH(c, t) t->sha256(h, p, (1 << 20) / 64);
}
