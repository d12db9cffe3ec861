/* ffn.c - the gated feed-forward half of a dense layer: down(silu(gate x) * (up x)).
 *
 *   D  norm; gate and up by jobs of 64 inner values (128 for a few rows): their row groups lie
 *      interleaved in the file, so a job reads one run, and its owner makes swiglu and quantises
 *      whole tiles of 64
 *   E  down and residual */
#include "core/model/work.h"

#include <string.h>

void vq_inner_tiles(vq_fw *fw, int thread, int layer, const vq_inner *p, int tile, int tiles,
                    int m0, int m, int out0, const int *rows)
{
    const vq_matrix *w = p->w;
    const bool codes = p->down->gemm.a8 != NULL;
    vq_thread *th = &fw->th[thread];
    const int row0 = 2 * Q_TILE * tile, most = 2 * Q_TILE * tiles;
    const int n = w->rows - row0 < most ? w->rows - row0 : most;
    vq_mul(fw, thread, w, row0, n, p->in, m0, m, th->y, (size_t)n);
    for (int at = 0; at < n; at += 2 * Q_TILE, tile++) {
        const int left = p->inter - Q_TILE * tile, valid = left < Q_TILE ? left : Q_TILE;
        for (int i = 0; i < m; i++) {
            const float *gu = th->y + (size_t)i * n + at;
            if (codes) {
                fw->k->swiglu(th->vec, gu, valid);
                if (fw->k->quant_a64(&p->out->a, out0 + i, tile, 1, th->vec, valid))
                    vq_mark_bad(fw, rows ? rows[i] : m0 + i, layer, VQ_AT_DOWN);
            } else {
                float *f = p->out->f + (size_t)(out0 + i) * p->out->ldf + (size_t)(Q_TILE * tile);
                fw->k->swiglu(f, gu, valid);
                memset(f + valid, 0, (size_t)(Q_TILE - valid) * sizeof *f);
            }
        }
        if (codes) vq_in_order(fw, p->out, out0, m, tile, 1);
    }
}

void vq_ffn_dense(vq_fw *fw, int layer, int thread)
{
    const vq_layer *y = &fw->m->layer[layer];
    const vq_in *in = vq_norm_rows(fw, thread, y->norm_ffn, y->ffn_forms, layer, VQ_AT_NORM_FFN);
    const vq_inner inner = { &y->gate_up, &y->down, fw->m->inter, in, &fw->in_d };
    vq_sum_input(fw, thread, VQ_IN_FFN, in, fw->n);
    const int tiles = vq_ceil_div(fw->m->inter, Q_TILE), wide = VQ_FEW_GROUPS * Q_ROWS / 2 / Q_TILE;
    const int step = vq_job_groups(fw, &y->gate_up, fw->n) == VQ_FEW_GROUPS ? wide : 1;
    const int cuts = vq_ceil_div(tiles, step), jobs = cuts * vq_ceil_div(fw->n, VQ_TB);
    for (int j; (j = vq_job(fw->pool, thread, jobs)) >= 0;) {
        const int m0 = j / cuts * VQ_TB, m = fw->n - m0 < VQ_TB ? fw->n - m0 : VQ_TB;
        vq_inner_tiles(fw, thread, layer, &inner, j % cuts * step, step, m0, m, m0, NULL);
    }
    vq_barrier(fw->pool, thread);
    vq_sum_input(fw, thread, VQ_IN_DOWN, &fw->in_d, fw->n);
    vq_mul_residual(fw, thread, &y->down, &fw->in_d);
}
