/* mtp.c - the draft head of DeepSeek-V3 (multi-token prediction; models.md 5.5).
 *
 * One more layer of the model's own kind, fed with the model's state at a position and the id that
 * came next: state and embedding, each normed, are joined by a matrix, and from there on it is a
 * layer, a norm and a head.  It reads and writes fw->x like the layers before it, so a pass of it
 * comes after a pass of the model has been used up, but for the states that were kept. */
#include "core/model/work.h"

#include "core/base/mem.h"

#include <string.h>

/* Normed embedding and state of row i side by side as join's input. */
static void join_row(vq_fw *fw, int thread, int i)
{
    const vq_model *m = fw->m;
    const vq_mtp *p = &m->mtp;
    const vq_mtp_row *r = &fw->mtp[i];
    const vaq_config *c = m->cfg;
    float *pair = fw->th[thread].vec; /* (2 hidden) */
    float *cs = fw->cs + (size_t)i * c->rope_dim;
    q_decode_row(p->embed.type, pair, p->embed.w + (size_t)(r->token / Q_ROWS) * p->embed.group,
                 r->token % Q_ROWS, m->hidden);
    int bad = fw->k->rmsnorm(pair, pair, p->norm_embed, m->hidden, c->eps);
    bad |= fw->k->rmsnorm(pair + m->hidden, r->state, p->norm_hidden, m->hidden, c->eps);
    if (bad) memset(pair, 0, 2 * (size_t)m->hidden * sizeof *pair);
    bad |= vq_in_put(fw, &fw->in_join, p->join.gemm.a8 ? VQ_FORM_Q : VQ_FORM_F, i, pair);
    if (bad) vq_mark_bad(fw, i, m->n_layer, VQ_AT_NORM_ATTN);
    q_rope_angles(cs, cs + c->rope_dim / 2, m->rope, c->rope_mult, (int)c->rope_dim / 2, r->pos);
}

static void join_rows(vq_fw *fw, int thread)
{
    const vq_matrix *w = &fw->m->mtp.join;
    for (int i; (i = vq_job(fw->pool, thread, fw->n)) >= 0;) join_row(fw, thread, i);
    vq_barrier(fw->pool, thread);
    const int step = Q_ROWS * vq_job_groups(fw, w, fw->n), cuts = vq_ceil_div(w->rows, step);
    for (int j; (j = vq_job(fw->pool, thread, cuts * vq_ceil_div(fw->n, VQ_TB))) >= 0;) {
        const int r0 = j % cuts * step, m0 = j / cuts * VQ_TB;
        const int n = w->rows - r0 < step ? w->rows - r0 : step;
        const int m = fw->n - m0 < VQ_TB ? fw->n - m0 : VQ_TB;
        vq_mul(fw, thread, w, r0, n, &fw->in_join, m0, m, fw->x + (size_t)m0 * fw->ldx + r0,
               fw->ldx);
    }
    vq_barrier(fw->pool, thread);
}

static void run_mtp(void *ctx, int thread)
{
    vq_fw *fw = ctx;
    const vq_model *m = fw->m;
    const int l = m->n_layer;
    vq_noalloc_enter();
    join_rows(fw, thread);
    m->layer[l].attn(fw, l, thread);
    m->layer[l].ffn(fw, l, thread);
    for (int i; (i = vq_job(fw->pool, thread, fw->n)) >= 0;)
        if (fw->mtp[i].state_out)
            fw->k->rmsnorm(fw->mtp[i].state_out, fw->x + (size_t)i * fw->ldx, m->mtp.norm_out,
                           m->hidden, m->cfg->eps);
    if (fw->n_out) {
        vq_barrier(fw->pool, thread);
        vq_head_rows(fw, thread);
    }
    vq_noalloc_leave();
}

vq_status vq_fw_mtp(vq_fw *fw, const vq_mtp_row *rows, int n, vq_err *e)
{
    if (atomic_load_explicit(fw->stop, memory_order_relaxed))
        return vq_fail(e, VQ_EINTR, "interrupted");
    for (int i = 0; i < n; i++)
        fw->mtp_row[i] = (vq_row){ .seq = rows[i].seq, .pos = rows[i].pos, .token = rows[i].token,
                                   .logits = rows[i].logits };
    fw->mtp = rows;
    fw->halt = false;
    fw->head = &fw->m->mtp.head;
    fw->head_norm = fw->m->mtp.norm_out;
    vq_fw_begin(fw, fw->mtp_row, n);
    vq_in_start(&fw->in_join, n);
    vq_pool_run(fw->pool, run_mtp, fw);
    if (atomic_load(&fw->lost)) return vq_experts_error(fw->experts, e);
    for (int i = 0; i < n; i++)
        if (vq_is_bad(fw, i))
            return vq_fail(e, VQ_EFAIL, "%s: a value of the draft head was not finite",
                           fw->m->file->path);
    return VQ_OK;
}

const float *vq_fw_state(const vq_fw *fw, int i) { return fw->state + (size_t)i * fw->ldx; }
