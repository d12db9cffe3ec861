/* check_attn.c - cases of the KV block and of both products of attention (qc.h). */
#include "quant/check/qc.h"

#include "quant/scalar.h"

/* One tile, less than one, odd counts of tiles; V blocks of 128 whole, partial and several. */
static const int dims[] = { 8, 16, 24, 32, 48, 64, 80, 96, 100, 128, 132, 192, 256, 512 };
enum { N_DIMS = 14 };
/* One by one where kernels have code for each, then what they take at once, less and more. */
static const int queries[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 17, 25, 33, 64, 70 };
enum { N_QUERIES = 17, MOST_QUERIES = 70 };

/* ---- appending ---- */

typedef q_kv_put_fn *put_of(const q_kern *t);

static void check_put(qc *c, put_of *put, q_kv kv, bool key)
{
    static const int at[] = { 0, 1, 15, 16, 18, 63, 64, 255 };
    for (int i = 0; i < N_DIMS; i++) {
        for (int fill = 0; fill < QC_FILLS + 2; fill++) {
            const int hd = dims[i], p = at[(i + fill) % 8];
            const bool finite = fill < QC_FILLS;
            qc_case(c, "hd=%d p=%d x=%s", hd, p, finite ? qc_fill_name[fill] : "not finite");
            float *x = qc_floats(c, hd, finite ? fill : QC_NORMAL);
            const size_t n = key ? q_kv_k_bytes(kv, hd) : q_kv_v_bytes(kv, hd);
            int *ret = qc_out(c, sizeof *ret);
            if (finite) {
                if (fill == QC_WIDE) x[qc_below(c, hd)] = 0x1.fep+127f;
                void *blk = qc_out(c, n);
                QC_EACH(c, t) *ret = put(t)(blk, p, x, hd) != 0;
            } else { /* what the block then holds at p is nobody's business */
                x[qc_below(c, hd)] = q_float(fill & 1 ? 0xff800000u : 0x7fc00001u);
                void *blk = qc_mem(c, n);
                QC_EACH(c, t) *ret = put(t)(blk, p, x, hd) != 0;
            }
        }
    }
    qc_case(c, "bench");
    if (!qc_bench(c, 0, 16 * 128 * 4.0, 0)) return;
    const float *x = qc_floats(c, 128, QC_NORMAL);
    void *blk = qc_mem(c, key ? q_kv_k_bytes(kv, 128) : q_kv_v_bytes(kv, 128));
    QC_EACH(c, t)
        for (int p = 0; p < 16; p++) put(t)(blk, p, x, 128);
}

#define CHECK_PUT(name, kv, key) \
    static q_kv_put_fn *name##_of(const q_kern *t) { return t->name; } \
    void qc_##name(qc *c) { check_put(c, name##_of, kv, key); }
CHECK_PUT(put_k8, Q_KV_8, true)
CHECK_PUT(put_v8, Q_KV_8, false)
CHECK_PUT(put_kf32, Q_KV_F32, true)
CHECK_PUT(put_vf32, Q_KV_F32, false)
CHECK_PUT(put_kbf16, Q_KV_BF16, true)
CHECK_PUT(put_vbf16, Q_KV_BF16, false)

/* ---- scores ---- */

static void one_qk(qc *c, int hd, int ng, int m, int m0, int wfill, int afill)
{
    qc_case(c, "hd=%d ng=%d m=%d m0=%d k=%s q=%s", hd, ng, m, m0, qc_wfill_name[wfill],
            qc_afill_name[afill]);
    void *k = qc_mem(c, q_kv_k_bytes(Q_KV_8, hd));
    qc_weights(c, Q_L8, k, Q_PIECE, hd, wfill, true);
    q_acts q;
    qc_acts(c, &q, 2 * (m0 + m), hd, afill);
    const size_t lds = (size_t)ng * Q_ROWS + 4;
    float *s = qc_out(c, (size_t)m * lds * sizeof *s);
    QC_EACH(c, t) t->attn_qk8(s, lds, k, ng, &q, m0, m, 0x1.6a09e6p-4f);
}

void qc_attn_qk8(qc *c)
{
    static const int groups[] = { 1, 2, 3, 4, 9, 15, 16 };
    int turn = 0;
    for (int i = 0; i < N_DIMS; i++)
        for (int j = 0; j < N_QUERIES; j++, turn++)
            one_qk(c, dims[i], groups[turn % 7], queries[j], turn % 2, turn % QC_W_FILLS,
                   turn / 2 % QC_A_FILLS);

    qc_case(c, "bench");
    if (!qc_bench(c, 0, (double)q_kv_k_bytes(Q_KV_8, 128), 256 * 128 * 6.0)) return;
    void *k = qc_mem(c, q_kv_k_bytes(Q_KV_8, 128));
    qc_weights(c, Q_L8, k, Q_PIECE, 128, QC_W_RANDOM, true);
    q_acts q;
    qc_acts(c, &q, 12, 128, QC_A_RANDOM);
    float *s = qc_mem(c, 6 * 256 * sizeof *s);
    QC_EACH(c, t) t->attn_qk8(s, 256, k, 16, &q, 0, 6, 0.088f);
}

static int up64(int n) { return (n + 63) / 64 * 64; }

void qc_attn_soft(qc *c)
{
    static const int lens[] = { 1, 2, 7, 8, 15, 16, 17, 31, 63, 64, 65, 100, 192, 193, 255, 256 };
    static const int fills[] = { QC_NORMAL, QC_WIDE, QC_EQUAL, QC_ZERO, QC_HOT, QC_TIES };
    for (int i = 0; i < 16; i++) {
        for (int f = 0; f < 6; f++) {
            const int nvis = lens[i], n = f % 2 ? Q_PIECE : up64(nvis);
            qc_case(c, "nvis=%d n=%d s=%s", nvis, n, qc_fill_name[fills[f]]);
            float *s = qc_out(c, (size_t)n * sizeof *s), *ml = qc_out(c, 2 * sizeof *ml);
            qc_fill(c, s, nvis, fills[f]);
            for (int t = nvis; t < n; t++) s[t] = 1e30f; /* scores of masked positions */
            QC_EACH(c, t) {
                t->attn_soft(s, nvis, n, &ml[0], &ml[1]);
                ml[0] += 0.0f; /* which of two zeros is the largest does not matter */
            }
        }
    }
    for (int i = 0; i < 400; i++) { /* the whole range of exp */
        qc_case(c, "sweep %d", i);
        float *s = qc_out(c, Q_PIECE * sizeof *s), *ml = qc_out(c, 2 * sizeof *ml);
        for (int t = 1; t < Q_PIECE; t++) s[t] = (float)(t * 400 + i) * -0x1.cdp-11f;
        s[0] = 0.0f; /* the maximum: what is left are the arguments of exp */
        QC_EACH(c, t) t->attn_soft(s, Q_PIECE, Q_PIECE, &ml[0], &ml[1]);
    }
    qc_case(c, "bench");
    if (!qc_bench(c, 0, 256 * 4.0, 0)) return;
    float *s = qc_mem(c, 256 * sizeof *s), m, l;
    qc_fill(c, s, 256, QC_NORMAL);
    QC_EACH(c, t) t->attn_soft(s, 256, 256, &m, &l);
}

/* ---- values ---- */

typedef q_attn_pv8_fn *pv_of(const q_kern *t);

/* Weights e of m queries, zeros from nvis up to a multiple of 64. */
static float *probs(qc *c, int m, size_t lde, const int *nvis, int fill)
{
    float *e = qc_mem(c, (size_t)m * lde * sizeof *e);
    for (int j = 0; j < m; j++) {
        float *row = e + (size_t)j * lde;
        qc_fill(c, row, nvis[j], fill);
        for (int t = 0; t < up64(nvis[j]); t++) row[t] = t < nvis[j] ? fabsf(row[t]) : 0.0f;
    }
    return e;
}

/* A V block: codes and values are legal everywhere, as in a block that was used before; int8 scales
 * behind `len` are NaN, because nothing may depend on them. */
static void *values(qc *c, q_kv kv, int hd, int len, int fill)
{
    const size_t n = q_kv_v_bytes(kv, hd);
    uint8_t *v = qc_mem(c, n);
    if (kv != Q_KV_8) {
        float *f = (float *)(void *)v;
        const size_t count = n / (kv == Q_KV_F32 ? 4 : 2);
        for (size_t i = 0; i < count; i++) {
            const float x = fill == QC_ZERO ? 0.0f : qc_float(c, fill == QC_WIDE ? -20 : -3, 3);
            if (kv == Q_KV_F32) f[i] = x;
            else ((uint16_t *)(void *)v)[i] = q_f32_to_bf16(x);
        }
        return v;
    }
    float *dv = (float *)(void *)v;
    const int nb = (hd + 127) / 128;
    for (int i = 0; i < nb * Q_PIECE; i++)
        dv[i] = i % Q_PIECE >= len ? NAN : fill == QC_EQUAL ? 0.5f : fabsf(qc_float(c, -9, -2));
    for (size_t i = (size_t)nb * Q_PIECE * 4; i < n; i++)
        v[i] = (uint8_t)(fill == QC_EQUAL ? 127 : fill == QC_ZERO ? 0 : qc_below(c, 255) - 127);
    return v;
}

static void check_pv(qc *c, pv_of *pv, q_kv kv)
{
    static const int lens[] = { 256, 1, 2, 63, 64, 65, 127, 128, 129, 200, 255 };
    int turn = 0;
    for (int i = 0; i < N_DIMS; i++) {
        for (int k = 0; k < N_QUERIES; k++, turn++) {
            const int hd = dims[i], m = queries[k], fill = turn % QC_FILLS;
            qc_case(c, "hd=%d m=%d e=%s", hd, m, qc_fill_name[fill]);
            int nvis[MOST_QUERIES], max = 0;
            for (int j = 0; j < m; j++) {
                nvis[j] = lens[(turn + j) % 11];
                max = nvis[j] > max ? nvis[j] : max;
            }
            const size_t lde = 256 + 16 * (size_t)(turn % 2), ldo = (size_t)hd + (size_t)(turn % 3);
            const void *v = values(c, kv, hd, max, fill);
            const float *e = probs(c, m, lde, nvis, fill);
            float *o = qc_out(c, (size_t)m * ldo * sizeof *o);
            int *ret = qc_out(c, sizeof *ret);
            QC_EACH(c, t) *ret = pv(t)(o, ldo, v, hd, e, lde, nvis, m) != 0;
        }
    }
    for (int i = 0; kv == Q_KV_8 && i < 12; i++) { /* one query, and one among many */
        const int m = i < 6 ? 1 : 66, bad = i < 6 ? 0 : 11 * (i - 6) + 5, at = 40 * (i % 6);
        qc_case(c, "e[%d][%d] of %d not finite", bad, at, m);
        int nvis[66];
        for (int j = 0; j < m; j++) nvis[j] = j == bad ? at + 1 : 1 + 3 * j;
        const void *v = values(c, kv, 64, 256, QC_NORMAL);
        float *e = probs(c, m, 256, nvis, QC_NORMAL), *o = qc_mem(c, (size_t)m * 64 * sizeof *o);
        e[256 * bad + at] = q_float(i & 1 ? 0x7f800000u : 0x7fc00000u);
        int *ret = qc_out(c, sizeof *ret);
        QC_EACH(c, t) *ret = pv(t)(o, 64, v, 64, e, 256, nvis, m) != 0;
    }
    qc_case(c, "bench");
    if (!qc_bench(c, 0, (double)q_kv_v_bytes(kv, 128), 256 * 128 * 6.0)) return;
    const int nvis[6] = { 256, 256, 256, 256, 256, 256 };
    const void *v = values(c, kv, 128, 256, QC_NORMAL);
    const float *e = probs(c, 6, 256, nvis, QC_NORMAL);
    float *o = qc_mem(c, 6 * 128 * sizeof *o);
    QC_EACH(c, t) pv(t)(o, 128, v, 128, e, 256, nvis, 6);
}

#define CHECK_PV(name, kv) \
    static q_attn_pv8_fn *name##_of(const q_kern *t) { return t->name; } \
    void qc_##name(qc *c) { check_pv(c, name##_of, kv); }
CHECK_PV(attn_pv8, Q_KV_8)
CHECK_PV(attn_pvf32, Q_KV_F32)
CHECK_PV(attn_pvbf16, Q_KV_BF16)

/* ---- pieces ---- */

void qc_attn_merge(qc *c)
{
    static const float gaps[] = { 0.0f, 1.5f, -1.5f, 86.9f, -86.9f, 87.5f, -87.5f, 1e4f, -1e4f };
    for (int i = 0; i < N_DIMS; i++) {
        for (int g = 0; g < 9; g++) {
            const int hd = dims[i] + g % 3;
            qc_case(c, "hd=%d m2-m=%g", hd, (double)gaps[g]);
            float *o = qc_out(c, (size_t)hd * sizeof *o), *ml = qc_out(c, 2 * sizeof *ml);
            const float *o2 = qc_floats(c, hd, g % 2 ? QC_WIDE : QC_NORMAL);
            qc_fill(c, o, hd, QC_NORMAL);
            ml[0] = qc_float(c, -2, 4);
            ml[1] = 17.0f;
            const float m2 = ml[0] + gaps[g];
            QC_EACH(c, t) t->attn_merge(o, &ml[0], &ml[1], o2, m2, 3.25f, hd);
        }
    }
    qc_case(c, "bench");
    if (!qc_bench(c, 0, 3 * 128 * 4.0, 0)) return;
    float *o = qc_mem(c, 128 * sizeof *o), m = 1.0f, l = 2.0f;
    const float *o2 = qc_floats(c, 128, QC_NORMAL);
    qc_fill(c, o, 128, QC_NORMAL);
    QC_EACH(c, t) t->attn_merge(o, &m, &l, o2, 0.5f, 1.0f, 128);
}

void qc_attn_out(qc *c)
{
    for (int i = 0; i < N_DIMS; i++) {
        for (int fill = 0; fill < QC_FILLS; fill++) {
            const int hd = dims[i] + fill % 3;
            qc_case(c, "hd=%d o=%s", hd, qc_fill_name[fill]);
            float *o = qc_floats(c, hd, fill), *y = qc_out(c, (size_t)hd * sizeof *y);
            if (fill == QC_ZERO) o[0] = -0.0f; /* must come out as +0 */
            QC_EACH(c, t) t->attn_out(y, o, 3.0f, hd);
        }
    }
    qc_case(c, "bench");
    if (!qc_bench(c, 0, 2 * 128 * 4.0, 0)) return;
    float *y = qc_mem(c, 128 * sizeof *y);
    const float *o = qc_floats(c, 128, QC_NORMAL);
    QC_EACH(c, t) t->attn_out(y, o, 3.0f, 128);
}
