/* moments.c - sums of x x' over the inputs of matrices: what calibration knows of a model.
 *
 * The product of an input's columns with each other is a matrix product whose k are the rows of the
 * pass, so the f32 kernel makes it: 16 columns, as they lie, are a row group of a T16 F32 matrix,
 * and the columns turned into rows are its inputs.  An element of a sum is then one chain of fma
 * over the rows of a pass in order, and passes are added one after the other: the same bits for any
 * threads and CPU. */
#include "core/model/work.h"

#include <string.h>

static size_t row_pad(const vq_fw *fw)
{
    return (size_t)vq_ceil_div(fw->n, Q_TILE) * Q_TILE;
}

/* xt[c][t] = x[t][c] for 16 columns from c0. */
static void turn(const vq_fw *fw, const vq_in *in, int c0)
{
    const size_t ld = row_pad(fw);
    for (int c = c0; c < c0 + Q_ROWS; c++) {
        float *to = fw->sums->xt + (size_t)c * ld;
        for (int t = 0; t < fw->n; t++) to[t] = in->f[(size_t)t * in->ldf + (size_t)c];
        memset(to + fw->n, 0, (ld - (size_t)fw->n) * sizeof *to);
    }
}

/* The 16 columns from c0 against all columns of their block up to themselves. */
static void multiply(vq_fw *fw, int thread, const vq_in *in, const q_moments *m, int c0)
{
    const size_t ld = row_pad(fw);
    const int b0 = c0 / m->block * m->block, n = m->k - c0 < Q_ROWS ? m->k - c0 : Q_ROWS;
    float *tile = fw->sums->tile + (size_t)thread * ld * Q_ROWS, *y = fw->th[thread].y;
    for (int t = 0; t < fw->n; t++)
        memcpy(tile + t * Q_ROWS, in->f + (size_t)t * in->ldf + c0, Q_ROWS * sizeof *tile);
    memset(tile + (size_t)fw->n * Q_ROWS, 0, (ld - (size_t)fw->n) * Q_ROWS * sizeof *tile);
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

void vq_sum_input(vq_fw *fw, int thread, int which, const vq_in *in)
{
    const q_moments *m = fw->sums ? fw->sums->m[which] : NULL;
    if (!m) return;
    const int groups = vq_ceil_div(m->k, Q_ROWS);
    for (int j; (j = vq_job(fw->pool, thread, groups)) >= 0;) turn(fw, in, j * Q_ROWS);
    vq_barrier(fw->pool, thread);
    for (int j; (j = vq_job(fw->pool, thread, groups)) >= 0;) {
        multiply(fw, thread, in, m, j * Q_ROWS);
    }
    vq_barrier(fw->pool, thread);
}

void vq_sum_head(vq_fw *fw, int thread)
{
    const vq_in *in = vq_norm_rows(fw, thread, fw->head_norm, VQ_FORM_F, fw->m->n_layer,
                                   VQ_AT_NORM_OUT);
    vq_sum_input(fw, thread, VQ_IN_ATTN, in);
}
