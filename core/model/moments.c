/* moments.c - sums of x x' over the inputs of matrices: what calibration knows of a model.
 *
 * The product of an input's columns with each other is a matrix product whose k are the rows of the
 * pass, so the f32 kernel makes it: 16 columns, as they lie, are a row group of a T16 F32 matrix,
 * and the columns turned into rows are its inputs.  An element of a sum is then one chain of fma
 * over the rows of a pass in order, and passes are added one after the other: the same bits for any
 * threads and CPU. */
#include "core/model/work.h"

#include <string.h>

/* Rows of an input: (n, ld). */
typedef struct rows {
    const float *x;
    size_t ld, pad;             /* pad: n as the kernel wants it */
    int n;
} rows;

/* xt[c][t] = x[t][c] for 16 columns from c0. */
static void turn(const vq_fw *fw, const rows *in, int c0)
{
    for (int c = c0; c < c0 + Q_ROWS; c++) {
        float *to = fw->sums->xt + (size_t)c * in->pad;
        for (int t = 0; t < in->n; t++) to[t] = in->x[(size_t)t * in->ld + (size_t)c];
        memset(to + in->n, 0, (in->pad - (size_t)in->n) * sizeof *to);
    }
}

/* The 16 columns from c0 against all columns of their block up to themselves. */
static void multiply(vq_fw *fw, int thread, const rows *in, const q_moments *m, int c0)
{
    const size_t ld = in->pad;
    const int b0 = c0 / m->block * m->block, n = m->k - c0 < Q_ROWS ? m->k - c0 : Q_ROWS;
    float *tile = fw->sums->tile + (size_t)thread * ld * Q_ROWS, *y = fw->th[thread].y;
    for (int t = 0; t < in->n; t++)
        memcpy(tile + t * Q_ROWS, in->x + (size_t)t * in->ld + c0, Q_ROWS * sizeof *tile);
    memset(tile + (size_t)in->n * Q_ROWS, 0, (ld - (size_t)in->n) * Q_ROWS * sizeof *tile);
    for (int j0 = b0; j0 < c0 + n; j0 += VQ_TB) {
        const int m_j = c0 + n - j0 < VQ_TB ? c0 + n - j0 : VQ_TB;
        fw->k->gemm_f32(y, (size_t)n, tile, n, (int)ld, fw->sums->xt + (size_t)j0 * ld, ld, m_j,
                        fw->th[thread].tmp);
        for (int j = 0; j < m_j; j++) {
            float *h = m->h + (size_t)(j0 + j) * (size_t)m->block + (c0 - b0);
            for (int r = 0; r < n; r++) h[r] += y[j * n + r];
        }
    }
}

static void add_rows(vq_fw *fw, int thread, const q_moments *m, const float *x, size_t ld, int n)
{
    const rows in = { x, ld, (size_t)vq_ceil_div(n, Q_TILE) * Q_TILE, n };
    const int groups = vq_ceil_div(m->k, Q_ROWS);
    for (int j; (j = vq_job(fw->pool, thread, groups)) >= 0;) turn(fw, &in, j * Q_ROWS);
    vq_barrier(fw->pool, thread);
    for (int j; (j = vq_job(fw->pool, thread, groups)) >= 0;) {
        multiply(fw, thread, &in, m, j * Q_ROWS);
    }
    vq_barrier(fw->pool, thread);
}

void vq_sum_input(vq_fw *fw, int thread, int which, const vq_in *in, int n)
{
    const q_moments *m = fw->sums ? fw->sums->m[which] : NULL;
    if (m) add_rows(fw, thread, m, in->f, in->ldf, n);
}

void vq_sum_heads(vq_fw *fw, int thread, int which, const float *x, size_t ld, size_t step)
{
    const q_moments *m = fw->sums ? fw->sums->m[which] : NULL;
    const int heads = fw->m->n_head;
    for (int h = 0; m && h < heads; h++) {
        const q_moments own = q_moments_part(m, m->k / heads, h);
        add_rows(fw, thread, &own, x + (size_t)h * step, ld, fw->n);
    }
}

void vq_sum_head(vq_fw *fw, int thread)
{
    const vq_in *in = vq_norm_rows(fw, thread, fw->head_norm, VQ_FORM_F, fw->m->n_layer,
                                   VQ_AT_NORM_OUT);
    vq_sum_input(fw, thread, VQ_IN_ATTN, in, fw->n);
}

/* ---- one expert ---- */

typedef struct alone {
    vq_fw *fw;
    int layer, expert, n;
    const float *x;
} alone;

static void run_alone(void *ctx, int thread)
{
    const alone *a = ctx;
    vq_fw *fw = a->fw;
    const vq_moe *o = &fw->m->layer[a->layer].moe;
    const int inter = (int)fw->m->cfg->moe_inter, tiles = vq_ceil_div(inter, Q_TILE);
    const vq_inner inner = { &o->gate_up[a->expert], &o->down[a->expert], inter, &fw->in_h,
                             &fw->in_de };
    for (int j; (j = vq_job(fw->pool, thread, a->n)) >= 0;)
        vq_in_put(fw, &fw->in_h, VQ_FORM_F, j, a->x + (size_t)j * (size_t)fw->m->hidden);
    vq_barrier(fw->pool, thread);
    vq_sum_input(fw, thread, VQ_IN_FFN, &fw->in_h, a->n);
    const int jobs = tiles * vq_ceil_div(a->n, VQ_TB);
    for (int j; (j = vq_job(fw->pool, thread, jobs)) >= 0;) {
        const int m0 = j / tiles * VQ_TB, m = a->n - m0 < VQ_TB ? a->n - m0 : VQ_TB;
        vq_inner_tiles(fw, thread, a->layer, &inner, j % tiles, 1, m0, m, m0, NULL);
    }
    vq_barrier(fw->pool, thread);
    vq_sum_input(fw, thread, VQ_IN_EXPERTS, &fw->in_de, a->n);
}

void vq_fw_expert(vq_fw *fw, int layer, int expert, const float *x, int n, const vq_sums *sums)
{
    alone a = { fw, layer, expert, n, x };
    fw->sums = sums;
    vq_pool_run(fw->pool, run_alone, &a);
    fw->sums = NULL;
}
