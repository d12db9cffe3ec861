/* mla.c - multi-head latent attention, absorbed (DeepSeek-V3; exact.md 4, models.md 5.5).
 *
 * All heads share one latent per position, and only that is cached.  A key of head h would be
 * WK[h] c, so its score against q is (WK[h]^T q) . c: the matrix moves over to the query, and what
 * attention sums up are latents, which WV[h] turns into the head's output.
 *
 *   A  norm; latents of queries and of keys | per row: their norms, rotation, append to the cache |
 *      per head: query, its rotation, WK^T, quantise
 *   B  attention over latents (attn.c)
 *      WV of each head's sum, then C as everywhere */
#include "core/model/work.h"

#include <string.h>

/* fw->lat = q_a and kv_a times the input, side by side. */
static void phase_latents(vq_fw *fw, int layer, int thread, const vq_in *in)
{
    const vq_layer *y = &fw->m->layer[layer];
    const vq_matrix *w[2] = { &y->kv_a, &y->q_a };
    const size_t at[2] = { fw->ld_lat - (size_t)(y->kv_a.rows + 15) / 16 * 16, 0 };
    int step[2], cuts[2], jobs[2];
    for (int i = 0; i < 2; i++) { /* q_a has no rows when queries have no latent */
        step[i] = w[i]->rows ? Q_ROWS * vq_job_groups(fw, w[i], fw->n) : 1;
        cuts[i] = w[i]->rows ? vq_ceil_div(w[i]->rows, step[i]) : 1;
        jobs[i] = w[i]->rows ? cuts[i] * vq_ceil_div(fw->n, VQ_TB) : 0;
    }
    for (int j; (j = vq_job(fw->pool, thread, jobs[0] + jobs[1])) >= 0;) {
        const int i = j >= jobs[0], k = i ? j - jobs[0] : j;
        const int r0 = k % cuts[i] * step[i], m0 = k / cuts[i] * VQ_TB;
        const int n = w[i]->rows - r0 < step[i] ? w[i]->rows - r0 : step[i];
        const int m = fw->n - m0 < VQ_TB ? fw->n - m0 : VQ_TB;
        float *to = fw->lat + (size_t)m0 * fw->ld_lat + at[i] + (size_t)r0;
        vq_mul(fw, thread, w[i], r0, n, in, m0, m, to, fw->ld_lat);
    }
    vq_barrier(fw->pool, thread);
}

/* Latent and rotated dims of one row into the cache. */
static int append(vq_fw *fw, int thread, int layer, int row, const float *t)
{
    const vq_model *md = fw->m;
    const vaq_config *c = md->cfg;
    const vq_row *r = &fw->row[row];
    const int rope = (int)c->rope_dim, p = (int)(r->pos % Q_PIECE);
    const float *cs = fw->cs + (size_t)row * c->rope_dim;
    float *x = fw->th[thread].vec;
    int bad = fw->k->rmsnorm(x, t, md->layer[layer].kv_a_norm, md->lora, c->eps);
    memset(x + md->lora, 0, (size_t)(md->lora_pad - md->lora) * sizeof *x);
    memcpy(x + md->lora_pad, t + md->lora, (size_t)rope * sizeof *x);
    fw->k->rope_pair(x + md->lora_pad, (size_t)rope, 1, rope, cs, cs + rope / 2);

    uint8_t *k = vq_kv_k(fw->kv, r->seq, layer, 0, r->pos);
    switch (fw->kv->layer[layer].k) {
    case Q_KV_8: return bad | fw->k->put_lat8(k, p, x, md->lora, rope);
    case Q_KV_BF16: bad |= fw->k->put_kbf16(k, p, x, md->hd); break;
    case Q_KV_F32: bad |= fw->k->put_kf32(k, p, x, md->hd); break;
    }
    uint8_t *v = vq_kv_v(fw->kv, r->seq, layer, 0, r->pos);
    return bad | (fw->kv->layer[layer].v == Q_KV_BF16 ? fw->k->put_vbf16 : fw->k->put_vf32)(
                     v, p, x, md->vd);
}

static void phase_append(vq_fw *fw, int layer, int thread)
{
    const vq_layer *y = &fw->m->layer[layer];
    const size_t at = fw->ld_lat - (size_t)(y->kv_a.rows + 15) / 16 * 16;
    const int q_lora = y->q_a.rows, step = vq_ceil_div(fw->n, 4 * fw->plan.threads);
    for (int j; (j = vq_job(fw->pool, thread, vq_ceil_div(fw->n, step))) >= 0;)
        for (int i = j * step; i < fw->n && i < (j + 1) * step; i++) {
            float *lat = fw->lat + (size_t)i * fw->ld_lat;
            if (append(fw, thread, layer, i, lat + at)) vq_mark_bad(fw, i, layer, VQ_AT_K);
            if (!q_lora) continue;
            if (fw->k->rmsnorm(lat, lat, y->q_a_norm, q_lora, fw->m->cfg->eps)
                | vq_in_put(fw, &fw->in_q, y->q.gemm.a8 ? VQ_FORM_Q : VQ_FORM_F, i, lat))
                vq_mark_bad(fw, i, layer, VQ_AT_Q);
        }
    vq_barrier(fw->pool, thread);
}

/* Head h of rows m0.. from its projection q (m, ldq): as attention reads it. */
static void absorb(vq_fw *fw, int thread, int layer, int h, const float *q, size_t ldq, int m0,
                   int m)
{
    const vq_model *md = fw->m;
    const vaq_config *c = md->cfg;
    const vq_matrix *w = &md->layer[layer].k_up;
    const int nope = (int)c->nope_dim, rope = (int)c->rope_dim;
    vq_thread *th = &fw->th[thread];
    if (fw->sums && fw->sums->m[VQ_IN_K_UP])
        for (int i = 0; i < m; i++)
            memcpy(fw->sums->nope + (size_t)((m0 + i) * md->n_head + h) * c->nope_dim,
                   q + (size_t)i * ldq, c->nope_dim * sizeof *q);
    vq_in_start(&th->nope, m);
    for (int i = 0; i < m; i++)
        if (vq_in_put(fw, &th->nope, w->gemm.a8 ? VQ_FORM_Q : VQ_FORM_F, i, q + (size_t)i * ldq))
            vq_mark_bad(fw, m0 + i, layer, VQ_AT_Q);
    vq_mul(fw, thread, w, h * md->lora, md->lora, &th->nope, 0, m, th->y2, (size_t)md->lora);
    memset(th->vec + md->lora, 0, (size_t)(md->lora_pad - md->lora) * sizeof *th->vec);
    for (int i = 0; i < m; i++) {
        const float *cs = fw->cs + (size_t)(m0 + i) * c->rope_dim;
        const size_t at = (size_t)(h / md->group * fw->n + m0 + i) * (size_t)md->group
                        + (size_t)(h % md->group);
        const bool codes = fw->kv->layer[layer].k == Q_KV_8;
        float *x = codes ? th->vec : fw->qf + at * fw->hdp; /* padding stays 0 */
        memcpy(x, th->y2 + (size_t)i * (size_t)md->lora, (size_t)md->lora * sizeof *x);
        memcpy(x + md->lora_pad, q + (size_t)i * ldq + nope, (size_t)rope * sizeof *x);
        fw->k->rope_pair(x + md->lora_pad, (size_t)rope, 1, rope, cs, cs + rope / 2);
        if (codes ? fw->k->quant_a16(&fw->q2, (int)at, x, md->hd) : fw->k->nonfinite(x, md->hd))
            vq_mark_bad(fw, m0 + i, layer, VQ_AT_Q);
    }
}

static void phase_queries(vq_fw *fw, int layer, int thread, const vq_in *in)
{
    const vq_model *md = fw->m;
    const int units = vq_ceil_div(md->n_head, fw->unit_q);
    float *y = fw->th[thread].y;
    for (int j; (j = vq_job(fw->pool, thread, units * vq_ceil_div(fw->n, VQ_TB))) >= 0;) {
        const int h0 = j % units * fw->unit_q, m0 = j / units * VQ_TB;
        const int heads = md->n_head - h0 < fw->unit_q ? md->n_head - h0 : fw->unit_q;
        const int n = heads * md->qd, m = fw->n - m0 < VQ_TB ? fw->n - m0 : VQ_TB;
        vq_mul(fw, thread, &md->layer[layer].q, h0 * md->qd, n, in, m0, m, y, (size_t)n);
        for (int h = 0; h < heads; h++)
            absorb(fw, thread, layer, h0 + h, y + h * md->qd, (size_t)n, m0, m);
    }
    vq_barrier(fw->pool, thread);
}

static void phase_values(vq_fw *fw, int layer, int thread)
{
    const vq_model *md = fw->m;
    const int jobs = md->n_head * vq_ceil_div(fw->n, VQ_TB);
    for (int j; (j = vq_job(fw->pool, thread, jobs)) >= 0;) {
        const int h = j % md->n_head, m0 = j / md->n_head * VQ_TB;
        const int m = fw->n - m0 < VQ_TB ? fw->n - m0 : VQ_TB;
        vq_mul(fw, thread, &md->layer[layer].v_up, h * md->od, md->od, &fw->in_u, h * fw->n + m0, m,
               vq_attn_head(fw, m0, h), fw->in_o.ldf);
    }
    vq_barrier(fw->pool, thread);
}

void vq_attn_mla(vq_fw *fw, int layer, int thread)
{
    const vq_layer *y = &fw->m->layer[layer];
    const vq_in *in = vq_norm_rows(fw, thread, y->norm_attn, y->qkv_forms, layer, VQ_AT_NORM_ATTN);
    vq_sum_input(fw, thread, VQ_IN_ATTN, in, fw->n);
    phase_latents(fw, layer, thread, in);
    phase_append(fw, layer, thread);
    vq_sum_input(fw, thread, VQ_IN_Q_B, &fw->in_q, fw->n);
    phase_queries(fw, layer, thread, y->q_a.rows ? &fw->in_q : in);
    if (fw->sums) {
        const size_t nope = fw->m->cfg->nope_dim;
        vq_sum_heads(fw, thread, VQ_IN_K_UP, fw->sums->nope, (size_t)fw->m->n_head * nope, nope);
    }
    vq_attn_pieces(fw, layer, thread);
    vq_sum_heads(fw, thread, VQ_IN_V_UP, fw->in_u.f, fw->in_u.ldf, (size_t)fw->n * fw->in_u.ldf);
    phase_values(fw, layer, thread);
    vq_attn_output(fw, layer, thread);
}
