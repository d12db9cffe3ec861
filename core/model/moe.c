/* moe.c - the feed-forward half of a layer with experts (exact.md 3, models.md 5.5).
 *
 *   D  norm; router | choice per row | entries sorted by expert, inputs side by side |
 *      gate and up of the shared and of all chosen experts as one job list
 *   E  down: a job owns some outputs of all its rows.  It starts from the shared expert and adds
 *      the others in ascending order, so no sum depends on who computes or who is beside whom
 *
 * Experts that are streamed (experts.h) may not all fit at once.  Then D's last part and E go over
 * them in waves, still ascending, and the sums are carried on: the same chain of additions. */
#include "core/base/os.h"
#include "core/model/work.h"

#include <string.h>

/* Do the layer's experts come from a cache? */
static bool cached(const vq_fw *fw, int layer)
{
    return fw->experts && !fw->m->layer[layer].moe.lent;
}

static int used_of(const vq_fw *fw) { return (int)fw->m->cfg->n_expert_used; }

/* ---- the choice ---- */

/* Is the next layer's choice foreseen?  One row at a time: many rows want most experts anyway. */
static bool guesses(const vq_fw *fw, int layer)
{
    return fw->experts && fw->n == 1 && layer + 1 < fw->m->n_layer
           && fw->m->layer[layer + 1].moe.router.gemm.f;
}

/* Row group g of the next layer's router for this layer's input. */
static void foresee(vq_fw *fw, int layer, int thread, int g)
{
    const vq_layer *y = &fw->m->layer[layer + 1];
    const vq_matrix *w = &y->moe.router;
    vq_thread *th = &fw->th[thread];
    q_gemm_f_fn *gemm = w->gemm.f;
    const int hidden = fw->m->hidden, k = vq_ceil_div(hidden, Q_TILE) * Q_TILE;
    if (!gemm) return; /* guesses() has asked */
    fw->k->rmsnorm(th->vec, fw->x, y->norm_ffn, hidden, fw->m->cfg->eps);
    memset(th->vec + hidden, 0, (size_t)(k - hidden) * sizeof *th->vec);
    const int n = w->rows - Q_ROWS * g < Q_ROWS ? w->rows - Q_ROWS * g : Q_ROWS;
    gemm(fw->guess + Q_ROWS * g, (size_t)n, w->w + (size_t)g * w->group, n, k, th->vec, (size_t)k,
         1, th->tmp);
}

static void phase_scores(vq_fw *fw, int layer, int thread, const vq_in *in)
{
    const vq_matrix *w = &fw->m->layer[layer].moe.router;
    const size_t ld = (size_t)w->rows;
    const int groups = vq_ceil_div(w->rows, Q_ROWS), jobs = groups * vq_ceil_div(fw->n, VQ_TB);
    const int ahead = guesses(fw, layer) ? groups : 0;
    for (int j; (j = vq_job(fw->pool, thread, jobs + ahead)) >= 0;) {
        if (j >= jobs) {
            foresee(fw, layer, thread, j - jobs);
            continue;
        }
        const int r0 = j % groups * Q_ROWS, m0 = j / groups * VQ_TB;
        const int n = w->rows - r0 < Q_ROWS ? w->rows - r0 : Q_ROWS;
        const int m = fw->n - m0 < VQ_TB ? fw->n - m0 : VQ_TB;
        vq_mul(fw, thread, w, r0, n, in, m0, m, fw->score + (size_t)m0 * ld + r0, ld);
    }
    vq_barrier(fw->pool, thread);
}

static void choose(vq_fw *fw, int layer, int row)
{
    const vaq_config *c = fw->m->cfg;
    const size_t at = (size_t)row * c->n_expert_used;
    if (q_route(fw->pick.idx + at, fw->pick.w + at, fw->score + (size_t)row * c->n_expert,
                fw->m->layer[layer].moe.bias, (int)c->n_expert, (int)c->n_group,
                (int)c->n_group_used, used_of(fw), c->flags & VAQ_F_NORM_TOPK, c->routed_scale))
        vq_mark_bad(fw, row, layer, VQ_AT_ROUTER);
}

/* Entries by expert: counting sort, rows stay ascending within an expert. */
static void sort_entries(vq_fw *fw)
{
    vq_pick *p = &fw->pick;
    const int n_expert = (int)fw->m->cfg->n_expert, entries = fw->n * used_of(fw);
    const int tiles = vq_ceil_div((int)fw->m->cfg->moe_inter, Q_TILE);
    memset(p->first, 0, (size_t)(n_expert + 1) * sizeof *p->first);
    for (int i = 0; i < entries; i++) p->first[p->idx[i] + 1]++;
    int jobs = 0;
    p->n_active = 0;
    for (int e = 0; e < n_expert; e++) {
        const int n = p->first[e + 1];
        p->first[e + 1] += p->first[e];
        if (!n) continue;
        p->active[p->n_active] = e;
        p->job0[p->n_active++] = jobs;
        jobs += tiles * vq_ceil_div(n, VQ_TB);
    }
    p->job0[p->n_active] = jobs;
    for (int i = 0; i < entries; i++) {
        const int at = p->first[p->idx[i]]++; /* put back below */
        p->row[at] = i / used_of(fw);
        p->weight[at] = p->w[i];
    }
    for (int e = n_expert; e > 0; e--) p->first[e] = p->first[e - 1];
    p->first[0] = 0;
}

/* Which of the active experts are computed next: all, or as many as the cache holds at once. */
static void start_wave(vq_fw *fw, int layer, int from)
{
    vq_pick *p = &fw->pick;
    p->wave0 = from;
    p->wave1 = p->n_active;
    if (cached(fw, layer))
        p->wave1 = vq_experts_begin(fw->experts, layer, p->active, from, p->n_active);
}

/* Experts that the next layer would choose if it had this one's input: half of its misses, read
 * while this layer is computed. */
static void guess_next(vq_fw *fw, int layer)
{
    const vaq_config *c = fw->m->cfg;
    int32_t idx[Q_MAX_EXPERTS];
    float w[Q_MAX_EXPERTS];
    if (!q_route(idx, w, fw->guess, fw->m->layer[layer].moe.bias, (int)c->n_expert,
                 (int)c->n_group, (int)c->n_group_used, used_of(fw), true, 1.0f))
        vq_experts_guess(fw->experts, layer, idx, used_of(fw));
}

static void phase_choose(vq_fw *fw, int layer, int thread)
{
    if (!fw->small) {
        const int step = vq_ceil_div(fw->n, 4 * fw->plan.threads);
        for (int j; (j = vq_job(fw->pool, thread, vq_ceil_div(fw->n, step))) >= 0;)
            for (int i = j * step; i < fw->n && i < (j + 1) * step; i++) choose(fw, layer, i);
        vq_barrier(fw->pool, thread);
    }
    if (thread == 0) {
        for (int i = 0; fw->small && i < fw->n; i++) choose(fw, layer, i);
        sort_entries(fw);
        start_wave(fw, layer, 0);
        if (guesses(fw, layer)) guess_next(fw, layer + 1);
    }
    vq_barrier(fw->pool, thread);
}

/* The inputs of the experts; a single row serves all of them as it is. */
static const vq_in *gather(vq_fw *fw, int thread, const vq_in *in)
{
    if (fw->n == 1) return in;
    const int entries = fw->n * used_of(fw), step = vq_ceil_div(entries, 4 * fw->plan.threads);
    for (int j; (j = vq_job(fw->pool, thread, vq_ceil_div(entries, step))) >= 0;)
        for (int i = j * step; i < entries && i < (j + 1) * step; i++)
            vq_in_copy(&fw->in_e, i, in, fw->pick.row[i]);
    vq_barrier(fw->pool, thread);
    return &fw->in_e;
}

/* ---- gate, up, down ---- */

/* Gate and up, and down, of an active expert, where they lie.  false: it could not be read. */
static bool weights_of(vq_fw *fw, int layer, int thread, int e, vq_matrix *gate_up, vq_matrix *down)
{
    const vq_moe *o = &fw->m->layer[layer].moe;
    *gate_up = o->gate_up[e];
    *down = o->down[e];
    if (!cached(fw, layer)) return true;
    const double t = thread == 0 ? vq_now() : 0;
    gate_up->w = vq_experts_wait(fw->experts, layer, e, &down->w);
    if (thread == 0) vq_experts_stalled(fw->experts, vq_now() - t);
    if (!gate_up->w) atomic_store_explicit(&fw->lost, true, memory_order_relaxed);
    return gate_up->w != NULL;
}

static void phase_inner(vq_fw *fw, int layer, int thread, const vq_in *in, const vq_in *in_e)
{
    const vq_moe *o = &fw->m->layer[layer].moe;
    const vaq_config *c = fw->m->cfg;
    const vq_pick *p = &fw->pick;
    const int inter = (int)c->moe_inter, shared = (int)c->n_expert_shared * inter;
    const int tiles = vq_ceil_div(inter, Q_TILE), s_tiles = vq_ceil_div(shared, Q_TILE);
    const int s_jobs = p->wave0 ? 0 : s_tiles * vq_ceil_div(fw->n, VQ_TB);
    const int jobs = p->job0[p->wave1] - p->job0[p->wave0];
    int a = p->wave0; /* jobs come in ascending order, so the expert is found by walking on */
    for (int j; (j = vq_job(fw->pool, thread, s_jobs + jobs)) >= 0;) {
        if (j < s_jobs) { /* the shared expert needs no reading: it goes first */
            const vq_inner inner = { &o->shared_gate_up, &o->shared_down, shared, in, &fw->in_ds };
            const int m0 = j / s_tiles * VQ_TB, m = fw->n - m0 < VQ_TB ? fw->n - m0 : VQ_TB;
            vq_inner_tiles(fw, thread, layer, &inner, j % s_tiles, 1, m0, m, m0, NULL);
            continue;
        }
        const int k = p->job0[p->wave0] + j - s_jobs;
        while (k >= p->job0[a + 1]) a++;
        const int e = p->active[a], tile = (k - p->job0[a]) % tiles;
        const int i0 = p->first[e] + (k - p->job0[a]) / tiles * VQ_TB, left = p->first[e + 1] - i0;
        vq_matrix gate_up, down;
        if (!weights_of(fw, layer, thread, e, &gate_up, &down)) continue;
        const vq_inner inner = { &gate_up, &down, inter, in_e, &fw->in_de };
        vq_inner_tiles(fw, thread, layer, &inner, tile, 1, fw->n == 1 ? 0 : i0,
                       left < VQ_TB ? left : VQ_TB, i0, p->row + i0);
    }
    vq_barrier(fw->pool, thread);
}

/* First entry of an expert, from i on, whose row is at least `row`. */
static int entry_from(const vq_pick *p, int i, int end, int row)
{
    while (i < end) {
        const int mid = i + (end - i) / 2;
        if (p->row[mid] < row) i = mid + 1;
        else end = mid;
    }
    return i;
}

/* What the sums of rows m0.. start from: the shared expert, or the waves before. */
static void start_sums(vq_fw *fw, int layer, int thread, float *sum, int r0, int n, int m0, int m)
{
    const vq_matrix *w = &fw->m->layer[layer].moe.shared_down;
    if (fw->pick.wave0)
        for (int i = 0; i < m; i++)
            memcpy(sum + (size_t)i * (size_t)n, fw->sum + (size_t)(m0 + i) * fw->ldx + r0,
                   (size_t)n * sizeof *sum);
    else if (w->rows) vq_mul(fw, thread, w, r0, n, &fw->in_ds, m0, m, sum, (size_t)n);
    else memset(sum, 0, (size_t)(m * n) * sizeof *sum);
}

static void phase_down(vq_fw *fw, int layer, int thread)
{
    const vq_pick *p = &fw->pick;
    const vq_matrix *any = &fw->m->layer[layer].moe.down[p->active[0]];
    const int per = vq_is_few(fw->n) ? 1 : fw->n; /* an expert has a few of a few rows: one, two */
    const int step = Q_ROWS * vq_job_groups(fw, any, per), cuts = vq_ceil_div(any->rows, step);
    const bool last = p->wave1 == p->n_active;
    float *y = fw->th[thread].y, *sum = fw->th[thread].y2;
    for (int j; (j = vq_job(fw->pool, thread, cuts * vq_ceil_div(fw->n, VQ_TB))) >= 0;) {
        const int r0 = j % cuts * step, m0 = j / cuts * VQ_TB;
        const int n = any->rows - r0 < step ? any->rows - r0 : step;
        const int m = fw->n - m0 < VQ_TB ? fw->n - m0 : VQ_TB;
        start_sums(fw, layer, thread, sum, r0, n, m0, m);
        for (int a = p->wave0; a < p->wave1; a++) {
            const int e = p->active[a], end = p->first[e + 1];
            const int i0 = entry_from(p, p->first[e], end, m0);
            const int count = entry_from(p, i0, end, m0 + m) - i0;
            vq_matrix gate_up, down;
            if (!count || !weights_of(fw, layer, thread, e, &gate_up, &down)) continue;
            vq_mul(fw, thread, &down, r0, n, &fw->in_de, i0, count, y, (size_t)n);
            for (int i = 0; i < count; i++)
                fw->k->axpy(sum + (p->row[i0 + i] - m0) * n, p->weight[i0 + i], y + i * n, n);
        }
        for (int i = 0; i < m; i++) {
            const float *from = sum + (size_t)i * (size_t)n;
            const size_t to = (size_t)(m0 + i) * fw->ldx + (size_t)r0;
            if (last) fw->k->add(fw->x + to, from, n);
            else memcpy(fw->sum + to, from, (size_t)n * sizeof *from);
        }
    }
    vq_barrier(fw->pool, thread);
}

/* The cache is free for what comes next; false: this layer is done. */
static bool next_wave(vq_fw *fw, int layer, int thread)
{
    const bool more = fw->pick.wave1 < fw->pick.n_active;
    if (!cached(fw, layer)) return false;
    vq_barrier(fw->pool, thread); /* all have read the wave's end */
    if (thread == 0) {
        vq_experts_end(fw->experts);
        if (more) start_wave(fw, layer, fw->pick.wave1);
    }
    vq_barrier(fw->pool, thread);
    return more;
}

/* For vq_fw_expert. */
static void keep_routed(const vq_fw *fw, const vq_in *in)
{
    const size_t hidden = (size_t)fw->m->hidden, n = (size_t)fw->n;
    for (size_t i = 0; i < n; i++)
        memcpy(fw->sums->routed + i * hidden, in->f + i * in->ldf, hidden * sizeof(float));
    memcpy(fw->sums->pick, fw->pick.idx, n * (size_t)used_of(fw) * sizeof(int32_t));
}

void vq_ffn_moe(vq_fw *fw, int layer, int thread)
{
    const vq_layer *y = &fw->m->layer[layer];
    const vq_in *in = vq_norm_rows(fw, thread, y->norm_ffn, y->ffn_forms, layer, VQ_AT_NORM_FFN);
    vq_sum_input(fw, thread, VQ_IN_FFN, in, fw->n);
    phase_scores(fw, layer, thread, in);
    phase_choose(fw, layer, thread);
    if (thread == 0 && fw->sums && fw->sums->routed) keep_routed(fw, in);
    const vq_in *in_e = gather(fw, thread, in);
    do {
        phase_inner(fw, layer, thread, in, in_e);
        phase_down(fw, layer, thread);
    } while (next_wave(fw, layer, thread));
    vq_sum_input(fw, thread, VQ_IN_DOWN, &fw->in_ds, fw->n);
    vq_sum_input(fw, thread, VQ_IN_EXPERTS, &fw->in_de, fw->n * used_of(fw));
}
