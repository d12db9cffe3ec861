/* attn.c - what all attention shares: pieces of the cache, merge, output.
 *
 *   A  queries into fw->q2 or fw->qf, keys and values into the cache: gqa.c, mla.c
 *   B  attention of (rows, kv head): the query heads of a group are the tokens of one kernel call
 *   C  o_proj and residual
 *
 * A piece is 256 positions from a multiple of 256 and pieces merge in ascending order (exact.md 4),
 * so the result does not depend on how B is cut.  Usually one job walks all pieces of its rows and
 * merges as it goes.  When there are too few such jobs for the threads (one sequence deep in its
 * context, 2 kv heads) each piece is a job and the merge follows behind a barrier. */
#include "core/model/work.h"

/* Splits the list into blocks of rows at consecutive positions of one sequence, and B into jobs. */
void vq_attn_prepare(vq_fw *fw)
{
    const vq_model *m = fw->m;
    int jobs = 0;
    size_t slots = 0;
    fw->n_rb = 0;
    fw->max_pieces = 1;
    for (int i = 0; i < fw->n;) {
        int n = 1;
        while (n < fw->attn_rows && i + n < fw->n && fw->row[i + n].seq == fw->row[i].seq
               && fw->row[i + n].pos == fw->row[i].pos + (uint32_t)n)
            n++;
        vq_rowblock *b = &fw->rb[fw->n_rb++];
        *b = (vq_rowblock){
            .row0 = i, .n = n, .pos0 = fw->row[i].pos, .job0 = jobs, .part0 = slots
        };
        b->pieces = (int)((b->pos0 + (uint32_t)n - 1) / Q_PIECE) + 1;
        if (b->pieces > fw->max_pieces) fw->max_pieces = b->pieces;
        jobs += m->n_kv * b->pieces;
        slots += (size_t)n * (size_t)m->n_head * (size_t)b->pieces;
        i += n;
    }
    const int whole = fw->n_rb * m->n_kv;
    fw->split = fw->plan.threads > 1 && fw->max_pieces > 1 && whole < 4 * fw->plan.threads
             && slots <= fw->plan.part_slots;
    fw->attn_jobs = fw->split ? jobs : whole;
}

/* ---- B ---- */

/* First row of the block that sees the piece; the rows behind it do too. */
static int first_row(const vq_rowblock *b, int piece)
{
    const uint32_t p = (uint32_t)piece * Q_PIECE;
    return p > b->pos0 ? (int)(p - b->pos0) : 0;
}

/* One piece of one kv head for the rows of the block that see it: query j of them gets o + j * ldo,
 * m[j * ldm] and l[j * ldm]. */
static void attend(vq_fw *fw, int thread, int layer, const vq_rowblock *b, int head, int piece,
                   float *o, size_t ldo, float *m, float *l, size_t ldm)
{
    const vq_model *md = fw->m;
    const vq_kv_layer *y = &fw->kv->layer[layer];
    const q_kern *k = fw->k;
    vq_thread *th = &fw->th[thread];
    const int r0 = first_row(b, piece), g = md->group, mq = (b->n - r0) * g;
    const uint32_t p0 = (uint32_t)piece * Q_PIECE;
    const vq_seq *seq = fw->row[b->row0].seq;
    for (int j = 0; j < mq; j++) {
        const uint32_t see = b->pos0 + (uint32_t)(r0 + j / g) + 1 - p0;
        th->nvis[j] = see < Q_PIECE ? (int)see : Q_PIECE;
    }
    const int most = th->nvis[mq - 1], ng = vq_ceil_div(most, Q_ROWS);
    const int wide = vq_ceil_div(most, 64) * 64;
    const size_t token = ((size_t)head * (size_t)fw->n + (size_t)(b->row0 + r0)) * (size_t)g;
    const uint8_t *kb = vq_kv_k(fw->kv, seq, layer, head, p0);
    const uint8_t *vb = vq_kv_v(fw->kv, seq, layer, head, p0);
    const float scale = md->cfg->attn_scale;
    if (y->k == Q_KV_8 && md->lora) {
        const int rope = (int)md->cfg->rope_dim;
        k->attn_qkl8(th->s, Q_PIECE, kb, md->lora, rope, ng, &fw->q2, (int)token, mq, scale);
        k->lat_v8(th->vblk, kb, md->lora, rope, most);
        vb = th->vblk;
    } else if (y->k == Q_KV_8) {
        k->attn_qk8(th->s, Q_PIECE, kb, ng, &fw->q2, (int)token, mq, scale);
    } else {
        q_gemm_f_fn *gemm = y->k == Q_KV_BF16 ? k->gemm_bf16 : k->gemm_f32;
        gemm(th->s, Q_PIECE, kb, Q_ROWS * ng, (int)fw->hdp, fw->qf + token * fw->hdp, fw->hdp, mq,
             th->tmp);
        for (int j = 0; j < mq; j++)
            for (int t = 0; t < th->nvis[j]; t++) th->s[j * Q_PIECE + t] *= scale;
    }
    for (int j = 0; j < mq; j++)
        k->attn_soft(th->s + j * Q_PIECE, th->nvis[j], wide, &m[(size_t)j * ldm],
                     &l[(size_t)j * ldm]);
    q_attn_pv8_fn *pv = y->v == Q_KV_8      ? k->attn_pv8
                        : y->v == Q_KV_BF16 ? k->attn_pvbf16
                                            : k->attn_pvf32;
    if (pv(o, ldo, vb, md->vd, th->s, Q_PIECE, th->nvis, mq))
        for (int j = 0; j < mq; j++) /* rare: find out whose */
            if (pv(o + (size_t)j * ldo, ldo, vb, md->vd, th->s + j * Q_PIECE, Q_PIECE,
                   th->nvis + j, 1))
                vq_mark_bad(fw, b->row0 + r0 + j / g, layer, VQ_AT_ATTN);
}

float *vq_attn_head(const vq_fw *fw, int row, int head)
{
    return fw->in_o.f + (size_t)row * fw->in_o.ldf + (size_t)head * (size_t)fw->m->od;
}

/* A head is done: part of o's input, or with MLA the input of its value matrix. */
static void finish(vq_fw *fw, int thread, int layer, int row, int head, const float *o, float l)
{
    const vq_model *md = fw->m;
    if (!md->lora) {
        fw->k->attn_out(vq_attn_head(fw, row, head), o, l, md->vd);
        return;
    }
    float *u = fw->th[thread].vec;
    fw->k->attn_out(u, o, l, md->vd);
    const int forms = md->layer[layer].v_up.gemm.a8 ? VQ_FORM_Q : VQ_FORM_F;
    if (vq_in_put(fw, &fw->in_u, forms, head * fw->n + row, u))
        vq_mark_bad(fw, row, layer, VQ_AT_ATTN);
}

static void attend_all_pieces(vq_fw *fw, int thread, int layer, const vq_rowblock *b, int head)
{
    vq_thread *th = &fw->th[thread];
    const int g = fw->m->group, vd = fw->m->vd;
    attend(fw, thread, layer, b, head, 0, th->o, fw->vdp, th->m, th->l, 1);
    for (int p = 1; p < b->pieces; p++) {
        attend(fw, thread, layer, b, head, p, th->o2, fw->vdp, th->m2, th->l2, 1);
        const int j0 = first_row(b, p) * g;
        for (int j = j0; j < b->n * g; j++)
            fw->k->attn_merge(th->o + (size_t)j * fw->vdp, &th->m[j], &th->l[j],
                              th->o2 + (size_t)(j - j0) * fw->vdp, th->m2[j - j0], th->l2[j - j0],
                              vd);
    }
    for (int j = 0; j < b->n * g; j++)
        finish(fw, thread, layer, b->row0 + j / g, head * g + j % g, th->o + (size_t)j * fw->vdp,
               th->l[j]);
}

/* Slot of piece 0 of a query; its pieces follow one another. */
static size_t slot_of(const vq_fw *fw, const vq_rowblock *b, int head, int row_in_block, int g)
{
    const size_t q = ((size_t)head * (size_t)b->n + (size_t)row_in_block) * (size_t)fw->m->group
                     + (size_t)g;
    return b->part0 + q * (size_t)b->pieces;
}

static void attend_one_piece(vq_fw *fw, int thread, int layer, int job)
{
    const vq_rowblock *b = fw->rb;
    while (job >= b->job0 + fw->m->n_kv * b->pieces) b++;
    const int head = (job - b->job0) / b->pieces, piece = (job - b->job0) % b->pieces;
    const size_t s = slot_of(fw, b, head, first_row(b, piece), 0) + (size_t)piece,
                 step = (size_t)b->pieces;
    attend(fw, thread, layer, b, head, piece, fw->part_o + s * fw->vdp, step * fw->vdp,
           fw->part_m + s, fw->part_l + s, step);
}

/* Block by block, job = (row, query head): ascending pieces into the first. */
static void merge_pieces(vq_fw *fw, int thread, int layer)
{
    const vq_model *md = fw->m;
    for (int j; (j = vq_job(fw->pool, thread, fw->n * md->n_head)) >= 0;) {
        const int row = j / md->n_head, qh = j % md->n_head;
        const vq_rowblock *b = fw->rb;
        while (row >= b->row0 + b->n) b++;
        const size_t s = slot_of(fw, b, qh / md->group, row - b->row0, qh % md->group);
        const int pieces = (int)(fw->row[row].pos / Q_PIECE) + 1;
        float *o = fw->part_o + s * fw->vdp;
        for (int p = 1; p < pieces; p++)
            fw->k->attn_merge(o, &fw->part_m[s], &fw->part_l[s], o + (size_t)p * fw->vdp,
                              fw->part_m[s + (size_t)p], fw->part_l[s + (size_t)p], md->vd);
        finish(fw, thread, layer, row, qh, o, fw->part_l[s]);
    }
    vq_barrier(fw->pool, thread);
}

void vq_attn_pieces(vq_fw *fw, int layer, int thread)
{
    const int n_kv = fw->m->n_kv;
    for (int j; (j = vq_job(fw->pool, thread, fw->attn_jobs)) >= 0;) {
        if (fw->split) attend_one_piece(fw, thread, layer, j);
        else
            attend_all_pieces(fw, thread, layer, &fw->rb[fw->n_rb - 1 - j / n_kv],
                              j % n_kv); /* deepest first */
    }
    vq_barrier(fw->pool, thread);
    if (fw->split) merge_pieces(fw, thread, layer);
}

/* ---- C ---- */

void vq_attn_output(vq_fw *fw, int layer, int thread)
{
    const vq_matrix *w = &fw->m->layer[layer].o;
    vq_thread *th = &fw->th[thread];
    vq_sum_input(fw, thread, VQ_IN_O, &fw->in_o, fw->n);
    if (w->gemm.f) { /* attention wrote the f32 form itself */
        vq_mul_residual(fw, thread, w, &fw->in_o);
        return;
    }
    vq_in *in = &fw->in_o;
    if (fw->small) {
        in = &th->small_o;
        vq_in_start(in, fw->n);
        for (int i = 0; i < fw->n; i++)
            if (vq_in_put(fw, in, VQ_FORM_Q, i, vq_attn_head(fw, i, 0)))
                vq_mark_bad(fw, i, layer, VQ_AT_O);
    } else {
        const int step = vq_ceil_div(fw->n, 4 * fw->plan.threads);
        for (int j; (j = vq_job(fw->pool, thread, vq_ceil_div(fw->n, step))) >= 0;)
            for (int i = j * step; i < fw->n && i < (j + 1) * step; i++)
                if (vq_in_put(fw, in, VQ_FORM_Q, i, vq_attn_head(fw, i, 0)))
                    vq_mark_bad(fw, i, layer, VQ_AT_O);
        vq_barrier(fw->pool, thread);
    }
    vq_mul_residual(fw, thread, w, in);
}
