/* forward.c - the loop over layers, run by every thread of the pool together.
 *
 * A layer is its attention half and its feed-forward half (vq_branch_fn); both end with a barrier
 * and leave the residual stream x complete.  All decisions (split attention, who prepares inputs,
 * stopping) depend on the list of rows alone or are taken by thread 0 before a barrier, so the
 * threads always agree.
 * A row that stops being finite is marked with the earliest place where that was seen; it goes on
 * as zeros, because the barriers do not know about rows, and touches no other sequence. */
#include "core/model/work.h"

#include "core/base/mem.h"

#include <stdio.h>
#include <string.h>

void vq_mark_bad(vq_fw *fw, int row, int layer, int at)
{
    const int code = (layer + 1) << 8 | at;
    int old = atomic_load_explicit(&fw->bad[row], memory_order_relaxed);
    while ((old == 0 || code < old)
           && !atomic_compare_exchange_weak_explicit(&fw->bad[row], &old, code,
                                                     memory_order_relaxed, memory_order_relaxed))
        ;
}

void vq_bad_text(char out[64], int bad)
{
    static const char *const at[] = {
        "", "attention norm", "queries", "keys", "values", "attention", "attention output",
        "feed-forward norm", "router", "feed-forward", "final norm", "logits"
    };
    const int i = bad & 0xff, layer = (bad >> 8) - 1;
    if (i >= VQ_AT_NORM_OUT) snprintf(out, 64, "%s", at[i]);
    else snprintf(out, 64, "layer %d, %s", layer, at[i]);
}

static void embed_rows(vq_fw *fw, int thread)
{
    const vq_model *m = fw->m;
    const vaq_config *c = m->cfg;
    const int half = (int)c->rope_dim / 2, step = vq_ceil_div(fw->n, 4 * fw->plan.threads);
    for (int j; (j = vq_job(fw->pool, thread, vq_ceil_div(fw->n, step))) >= 0;)
        for (int i = j * step; i < fw->n && i < (j + 1) * step; i++) {
            const vq_row *r = &fw->row[i];
            float *cs = fw->cs + (size_t)i * c->rope_dim;
            float *x = fw->x + (size_t)i * fw->ldx;
            if (fw->given)
                memcpy(x, fw->given + (size_t)i * (size_t)m->hidden, (size_t)m->hidden * sizeof *x);
            else
                q_decode_row(m->embed.type, x,
                             m->embed.w + (size_t)(r->token / Q_ROWS) * m->embed.group,
                             r->token % Q_ROWS, m->hidden);
            q_rope_angles(cs, cs + half, m->rope, c->rope_mult, half, r->pos);
        }
    vq_barrier(fw->pool, thread);
}

/* What the draft head reads later: x itself is gone by then.  No barrier: the caller reads. */
static void keep_states(vq_fw *fw, int thread)
{
    for (int i; (i = vq_job(fw->pool, thread, fw->n)) >= 0;)
        fw->k->rmsnorm(fw->state + (size_t)i * fw->ldx, fw->x + (size_t)i * fw->ldx,
                       fw->m->norm_out, fw->m->hidden, fw->m->cfg->eps);
    if (fw->n_out) vq_barrier(fw->pool, thread); /* jobs are counted from 0 again */
}

static void run_layers(void *ctx, int thread)
{
    vq_fw *fw = ctx;
    const vq_model *m = fw->m;
    vq_noalloc_enter();
    embed_rows(fw, thread);
    for (int l = fw->layer0; l < fw->layer1 && l < m->n_layer && !fw->halt; l++) {
        m->layer[l].attn(fw, l, thread);
        /* Not read until the barrier at the end of ffn, not written until the last one of attn. */
        if (thread == 0)
            fw->halt = atomic_load_explicit(fw->stop, memory_order_relaxed) != 0
                    || atomic_load_explicit(&fw->lost, memory_order_relaxed);
        m->layer[l].ffn(fw, l, thread);
    }
    if (!fw->halt && fw->sums && fw->layer1 > m->n_layer) vq_sum_head(fw, thread);
    if (!fw->halt && fw->state) keep_states(fw, thread);
    if (!fw->halt && fw->n_out) vq_head_rows(fw, thread);
    vq_noalloc_leave();
}

static void run_head(void *ctx, int thread)
{
    vq_noalloc_enter();
    vq_head_rows(ctx, thread);
    vq_noalloc_leave();
}

void vq_fw_begin(vq_fw *fw, vq_row *rows, int n)
{
    const int entries = n * (int)fw->m->cfg->n_expert_used;
    fw->row = rows;
    fw->n = n;
    fw->small = n <= VQ_SMALL;
    fw->n_out = 0;
    fw->out_p = NULL;
    atomic_store(&fw->lost, false);
    for (int i = 0; i < n; i++) {
        atomic_store_explicit(&fw->bad[i], 0, memory_order_relaxed);
        if (rows[i].logits) fw->out[fw->n_out++] = i;
    }
    vq_in_start(&fw->in_h, n);
    vq_in_start(&fw->in_o, n);
    vq_in_start(&fw->in_d, n);
    vq_in_start(&fw->in_q, n);
    vq_in_start(&fw->in_u, n * fw->m->n_head);
    vq_in_start(&fw->in_ds, n);
    vq_in_start(&fw->in_e, entries);
    vq_in_start(&fw->in_de, entries);
    if (fw->q2_mem) q_acts_init(&fw->q2, fw->q2_mem, 2 * n * fw->m->n_head, fw->m->hd);
    vq_attn_prepare(fw);
}

/* Layers [layer0, layer1) for rows that are begun. */
static vq_status run(vq_fw *fw, int n, vq_err *e)
{
    vq_pool_run(fw->pool, run_layers, fw);
    if (atomic_load(&fw->lost)) return vq_experts_error(fw->experts, e);
    if (fw->halt) return vq_fail(e, VQ_EINTR, "interrupted");
    for (int i = 0; i < n; i++)
        fw->row[i].bad = atomic_load_explicit(&fw->bad[i], memory_order_relaxed);
    return VQ_OK;
}

vq_status vq_fw_run(vq_fw *fw, vq_row *rows, int n, vq_err *e)
{
    fw->halt = atomic_load_explicit(fw->stop, memory_order_relaxed) != 0;
    if (fw->halt) return vq_fail(e, VQ_EINTR, "interrupted");
    fw->head = &fw->m->head;
    fw->head_norm = fw->m->norm_out;
    vq_fw_begin(fw, rows, n);
    fw->layer0 = 0;
    fw->layer1 = fw->m->n_layer;
    return run(fw, n, e);
}

vq_status vq_fw_layers(vq_fw *fw, vq_row *rows, int n, int from, int to, float *x,
                       const vq_sums *sums, vq_err *e)
{
    const size_t hidden = (size_t)fw->m->hidden;
    fw->halt = atomic_load_explicit(fw->stop, memory_order_relaxed) != 0;
    if (fw->halt) return vq_fail(e, VQ_EINTR, "interrupted");
    fw->head = &fw->m->head;
    fw->head_norm = fw->m->norm_out;
    vq_fw_begin(fw, rows, n);
    fw->layer0 = from;
    fw->layer1 = to;
    fw->given = from ? x : NULL;
    fw->sums = sums;
    const vq_status st = run(fw, n, e);
    fw->given = NULL;
    fw->sums = NULL;
    for (int i = 0; !st && i < n; i++) {
        if (rows[i].bad) {
            char where[64];
            vq_bad_text(where, rows[i].bad);
            return vq_fail(e, VQ_EFAIL, "a value was not finite (%s)", where);
        }
        memcpy(x + (size_t)i * hidden, fw->x + (size_t)i * fw->ldx, hidden * sizeof *x);
    }
    return st;
}

void vq_fw_head(vq_fw *fw, int first, int n, float *out, size_t ld)
{
    fw->n_out = n;
    fw->out_p = out;
    fw->out_ld = ld;
    for (int i = 0; i < n; i++) fw->out[i] = first + i;
    vq_pool_run(fw->pool, run_head, fw);
    for (int i = first; i < first + n; i++)
        fw->row[i].bad = atomic_load_explicit(&fw->bad[i], memory_order_relaxed);
}
