/* linear.c - matrix products over rows: inputs in their forms, outputs cut into jobs.
 *
 * A job owns a run of outputs for a block of rows, so no sum is ever split and whoever takes the
 * job writes the same bits (exact.md 1.5).  Quantised weights read A64 codes, float weights read
 * f32; matrices of both kinds may read one input, so it is made in both forms where a layer needs
 * them. */
#include "core/model/work.h"

#include <string.h>

void vq_in_start(vq_in *in, int n)
{
    if (!in->mem) return;
    q_acts_init(&in->a, in->mem, n, in->k);
    if (n >= Q_ORDER) in->a.u = in->ordered;
}

void vq_in_order(const vq_fw *fw, const vq_in *in, int m0, int m, int t0, int nt)
{
    if (in->a.u) fw->k->order(&in->a, m0, m, t0, nt);
}

int vq_in_put(const vq_fw *fw, vq_in *in, int forms, int m, const float *x)
{
    if (forms & VQ_FORM_F) {
        float *f = in->f + (size_t)m * in->ldf;
        if (f != x) memcpy(f, x, (size_t)in->k * sizeof *f);
        memset(f + in->k, 0, (in->ldf - (size_t)in->k) * sizeof *f);
    }
    if (!(forms & VQ_FORM_Q)) return 0;
    const int bad = fw->k->quant_a64(&in->a, m, 0, in->a.kt, x, in->k);
    vq_in_order(fw, in, m, 1, 0, in->a.kt);
    return bad;
}

void vq_in_copy(const vq_in *to, int j, const vq_in *from, int m)
{
    if (to->f && from->f)
        memcpy(to->f + (size_t)j * to->ldf, from->f + (size_t)m * from->ldf,
               to->ldf * sizeof *to->f);
    if (!to->mem || !from->mem) return;
    for (int t = 0; t < to->a.kt; t++) {
        const size_t a = (size_t)t * (size_t)to->a.M + (size_t)j;
        const size_t b = (size_t)t * (size_t)from->a.M + (size_t)m;
        memcpy(to->a.q + a * Q_TILE, from->a.q + b * Q_TILE, Q_TILE);
        to->a.d[a] = from->a.d[b];
        memcpy(to->a.nsum + 4 * a, from->a.nsum + 4 * b, 4 * sizeof *to->a.nsum);
    }
}

static void norm_row(vq_fw *fw, vq_thread *th, vq_in *in, int forms, int m, int row, const float *w,
                     int layer, int at)
{
    float *y = forms & VQ_FORM_F ? in->f + (size_t)m * in->ldf : th->vec;
    const int hidden = fw->m->hidden;
    if (fw->k->rmsnorm(y, fw->x + (size_t)row * fw->ldx, w, hidden, fw->m->cfg->eps))
        vq_mark_bad(fw, row, layer, at);
    if (vq_is_bad(fw, row)) memset(y, 0, (size_t)hidden * sizeof *y); /* the rest stays finite */
    if (vq_in_put(fw, in, forms, m, y)) vq_mark_bad(fw, row, layer, at);
}

/* rows == NULL: all rows of the pass in order. */
static const vq_in *norm_list(vq_fw *fw, int thread, const int *rows, int n, const float *w,
                              int forms, int layer, int at)
{
    vq_thread *th = &fw->th[thread];
    if (n == 1 || (n <= VQ_SMALL && n * fw->m->hidden <= VQ_SMALL_WORK)) {
        vq_in_start(&th->small_h, n);
        for (int i = 0; i < n; i++)
            norm_row(fw, th, &th->small_h, forms, i, rows ? rows[i] : i, w, layer, at);
        return &th->small_h;
    }
    const int step = vq_ceil_div(n, 4 * fw->plan.threads);
    for (int j; (j = vq_job(fw->pool, thread, vq_ceil_div(n, step))) >= 0;)
        for (int i = j * step; i < n && i < (j + 1) * step; i++)
            norm_row(fw, th, &fw->in_h, forms, i, rows ? rows[i] : i, w, layer, at);
    vq_barrier(fw->pool, thread);
    return &fw->in_h;
}

const vq_in *vq_norm_rows(vq_fw *fw, int thread, const float *w, int forms, int layer, int at)
{
    return norm_list(fw, thread, NULL, fw->n, w, forms, layer, at);
}

void vq_mul(const vq_fw *fw, int thread, const vq_matrix *w, int row0, int n, const vq_in *in,
            int m0, int m, float *y, size_t ldy)
{
    const uint8_t *groups = w->w + (size_t)(row0 / Q_ROWS) * w->group;
    void *tmp = fw->th[thread].tmp;
    if (w->gemm.a8) w->gemm.a8(y, ldy, groups, n, &in->a, m0, m, tmp);
    else w->gemm.f(y, ldy, groups, n, (int)in->ldf, in->f + (size_t)m0 * in->ldf, in->ldf, m, tmp);
}

int vq_job_groups(const vq_fw *fw, const vq_matrix *w, int n)
{
    const int groups = vq_ceil_div(w->rows, Q_ROWS);
    if (n > 16) return 4; /* a panel of 64 outputs (kernels.md 5.4) */
    int g = VQ_JOB_BYTES / w->group < VQ_JOB_ROWS / Q_ROWS ? (int)(VQ_JOB_BYTES / w->group)
                                                           : VQ_JOB_ROWS / Q_ROWS;
    if (vq_is_few(n)) g = VQ_FEW_GROUPS;
    if (g > groups / (4 * fw->plan.threads)) g = groups / (4 * fw->plan.threads);
    return g < 1 ? 1 : g;
}

void vq_mul_residual(vq_fw *fw, int thread, const vq_matrix *w, const vq_in *in)
{
    float *y = fw->th[thread].y;
    const int step = Q_ROWS * vq_job_groups(fw, w, fw->n), cuts = vq_ceil_div(w->rows, step);
    const int jobs = cuts * vq_ceil_div(fw->n, VQ_TB);
    for (int j; (j = vq_job(fw->pool, thread, jobs)) >= 0;) {
        const int r0 = j % cuts * step, m0 = j / cuts * VQ_TB;
        const int n = w->rows - r0 < step ? w->rows - r0 : step;
        const int m = fw->n - m0 < VQ_TB ? fw->n - m0 : VQ_TB;
        vq_mul(fw, thread, w, r0, n, in, m0, m, y, (size_t)n);
        for (int i = 0; i < m; i++)
            fw->k->add(fw->x + (size_t)(m0 + i) * fw->ldx + r0, y + (size_t)i * n, n);
    }
    vq_barrier(fw->pool, thread);
}

/* The head: only for rows that want logits.  Logits go where each row says, through the job's own
 * buffer, because the rows of a list need not lie at one distance from each other. */
void vq_head_rows(vq_fw *fw, int thread)
{
    const vq_matrix *w = fw->head;
    const int layer = fw->m->n_layer;
    float *y = fw->th[thread].y;
    const vq_in *in = norm_list(fw, thread, fw->out, fw->n_out, fw->head_norm,
                                w->gemm.a8 ? VQ_FORM_Q : VQ_FORM_F, layer, VQ_AT_NORM_OUT);
    const int step = Q_ROWS * vq_job_groups(fw, w, fw->n_out), cuts = vq_ceil_div(w->rows, step);
    const int jobs = cuts * vq_ceil_div(fw->n_out, VQ_TB);
    for (int j; (j = vq_job(fw->pool, thread, jobs)) >= 0;) {
        const int r0 = j % cuts * step, m0 = j / cuts * VQ_TB;
        const int n = w->rows - r0 < step ? w->rows - r0 : step;
        const int m = fw->n_out - m0 < VQ_TB ? fw->n_out - m0 : VQ_TB;
        vq_mul(fw, thread, w, r0, n, in, m0, m, y, (size_t)n);
        for (int i = 0; i < m; i++) {
            const int row = fw->out[m0 + i];
            float *to = fw->out_p ? fw->out_p + (size_t)(m0 + i) * fw->out_ld : fw->row[row].logits;
            const float *from = y + (size_t)i * n;
            if (fw->k->nonfinite(from, n)) vq_mark_bad(fw, row, layer, VQ_AT_LOGITS);
            memcpy(to + r0, from, (size_t)n * sizeof *to);
        }
    }
}
