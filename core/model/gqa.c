/* gqa.c - grouped-query attention: projections into queries and cache (Qwen2, Llama, Qwen3).
 *
 * Norm; then q, k and v by head-aligned jobs whose owner adds the bias, norms (Qwen3), rotates, and
 * quantises the query or appends to the cache: nothing of a head is touched by two threads. */
#include "core/model/work.h"

#include <string.h>

/* th->y (m, n) = rows r0.. of w times the input, plus bias. */
static float *project(vq_fw *fw, int thread, const vq_matrix *w, const float *bias, int r0, int n,
                      const vq_in *in, int m0, int m)
{
    float *y = fw->th[thread].y;
    vq_mul(fw, thread, w, r0, n, in, m0, m, y, (size_t)n);
    for (int i = 0; bias && i < m; i++) fw->k->add(y + (size_t)i * n, bias + r0, n);
    return y;
}

static int norm_and_rotate(const vq_fw *fw, float *x, const float *w, int row)
{
    const vaq_config *c = fw->m->cfg;
    const float *cs = fw->cs + (size_t)row * c->rope_dim;
    const int bad = w ? fw->k->rmsnorm(x, x, w, fw->m->hd, c->eps) : 0;
    q_rope_fn *rope = c->flags & VAQ_F_ROPE_PAIRS ? fw->k->rope_pair : fw->k->rope_half;
    rope(x, (size_t)fw->m->hd, 1, (int)c->rope_dim, cs, cs + c->rope_dim / 2);
    return bad;
}

static void make_q(vq_fw *fw, int thread, int layer, int h0, const vq_in *in, int m0)
{
    const vq_model *md = fw->m;
    const vq_layer *y = &md->layer[layer];
    const int heads = md->n_head - h0 < fw->unit_q ? md->n_head - h0 : fw->unit_q;
    const int n = heads * md->hd;
    const int m = fw->n - m0 < VQ_TB ? fw->n - m0 : VQ_TB;
    float *q = project(fw, thread, &y->q, y->q_bias, h0 * md->hd, n, in, m0, m);
    for (int i = 0; i < m; i++) {
        const int row = m0 + i;
        for (int h = 0; h < heads; h++) {
            float *x = q + (size_t)i * n + (size_t)h * md->hd;
            /* The heads of a kv group lie side by side. */
            const int at = (h0 + h) / md->group * fw->n + row;
            const size_t token = (size_t)at * (size_t)md->group + (size_t)((h0 + h) % md->group);
            int bad = norm_and_rotate(fw, x, y->q_norm, row);
            if (fw->kv->layer[layer].k == Q_KV_8) {
                bad |= fw->k->quant_a16(&fw->q2, (int)token, x, md->hd);
            } else { /* padding stays 0 */
                bad |= fw->k->nonfinite(x, md->hd); /* exp need not keep a NaN of odd payload */
                memcpy(fw->qf + token * fw->hdp, x, (size_t)md->hd * sizeof *x);
            }
            if (bad) vq_mark_bad(fw, row, layer, VQ_AT_Q);
        }
    }
}

/* All rows of the heads by one owner: two appends to one group of positions share cache lines. */
static void make_k(vq_fw *fw, int thread, int layer, int h0, const vq_in *in)
{
    const vq_model *md = fw->m;
    const vq_layer *y = &md->layer[layer];
    const q_kv type = fw->kv->layer[layer].k;
    q_kv_put_fn *put = type == Q_KV_8      ? fw->k->put_k8
                       : type == Q_KV_BF16 ? fw->k->put_kbf16
                                           : fw->k->put_kf32;
    const int heads = md->n_kv - h0 < fw->unit_q ? md->n_kv - h0 : fw->unit_q, n = heads * md->hd;
    for (int m0 = 0; m0 < fw->n; m0 += VQ_TB) {
        const int m = fw->n - m0 < VQ_TB ? fw->n - m0 : VQ_TB;
        float *k = project(fw, thread, &y->k, y->k_bias, h0 * md->hd, n, in, m0, m);
        for (int i = 0; i < m; i++) {
            const vq_row *r = &fw->row[m0 + i];
            for (int h = 0; h < heads; h++) {
                float *x = k + (size_t)i * n + (size_t)h * md->hd;
                int bad = norm_and_rotate(fw, x, y->k_norm, m0 + i);
                bad |= put(vq_kv_k(fw->kv, r->seq, layer, h0 + h, r->pos), (int)(r->pos % Q_PIECE),
                           x, md->hd);
                if (bad) vq_mark_bad(fw, m0 + i, layer, VQ_AT_K);
            }
        }
    }
}

static void make_v(vq_fw *fw, int thread, int layer, int h0, const vq_in *in)
{
    const vq_model *md = fw->m;
    const vq_layer *y = &md->layer[layer];
    const q_kv type = fw->kv->layer[layer].v;
    q_kv_put_fn *put = type == Q_KV_8      ? fw->k->put_v8
                       : type == Q_KV_BF16 ? fw->k->put_vbf16
                                           : fw->k->put_vf32;
    const int heads = md->n_kv - h0 < fw->unit_v ? md->n_kv - h0 : fw->unit_v, n = heads * md->vd;
    for (int m0 = 0; m0 < fw->n; m0 += VQ_TB) {
        const int m = fw->n - m0 < VQ_TB ? fw->n - m0 : VQ_TB;
        float *v = project(fw, thread, &y->v, y->v_bias, h0 * md->vd, n, in, m0, m);
        for (int i = 0; i < m; i++) {
            const vq_row *r = &fw->row[m0 + i];
            for (int h = 0; h < heads; h++)
                if (put(vq_kv_v(fw->kv, r->seq, layer, h0 + h, r->pos), (int)(r->pos % Q_PIECE),
                        v + (size_t)i * n + (size_t)h * md->vd, md->vd))
                    vq_mark_bad(fw, m0 + i, layer, VQ_AT_V);
        }
    }
}

static void phase_qkv(vq_fw *fw, int layer, int thread)
{
    const vq_model *m = fw->m;
    const vq_layer *y = &m->layer[layer];
    const vq_in *in = vq_norm_rows(fw, thread, y->norm_attn, y->qkv_forms, layer, VQ_AT_NORM_ATTN);
    vq_sum_input(fw, thread, VQ_IN_ATTN, in, fw->n);
    const int nk = vq_ceil_div(m->n_kv, fw->unit_q), nv = vq_ceil_div(m->n_kv, fw->unit_v);
    const int nq = vq_ceil_div(m->n_head, fw->unit_q);
    const int jobs = nk + nv + nq * vq_ceil_div(fw->n, VQ_TB);
    for (int j; (j = vq_job(fw->pool, thread, jobs)) >= 0;) { /* the long ones first */
        if (j < nk) make_k(fw, thread, layer, j * fw->unit_q, in);
        else if (j < nk + nv) make_v(fw, thread, layer, (j - nk) * fw->unit_v, in);
        else
            make_q(fw, thread, layer, (j - nk - nv) % nq * fw->unit_q, in,
                   (j - nk - nv) / nq * VQ_TB);
    }
    vq_barrier(fw->pool, thread);
}

void vq_attn_gqa(vq_fw *fw, int layer, int thread)
{
    phase_qkv(fw, layer, thread);
    vq_attn_pieces(fw, layer, thread);
    vq_attn_output(fw, layer, thread);
}
