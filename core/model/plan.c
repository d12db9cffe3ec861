/* plan.c - every byte a run needs, before the first token.
 *
 * The working memory of a pass is one slab cut by carve(), which is also how its size is found: the
 * same code with no memory behind it, so size and cut cannot disagree.  The cache is the pool of
 * kv.c.  What does not fit is refused here, with the cheapest ways out; later nothing can fail. */
#include "core/base/mem.h"
#include "core/model/work.h"

#include <stdio.h>
#include <string.h>

enum {
    CTX_DEFAULT = 36864, /* a long answer of an R1 (32768) and its prompt */
    CTX_LEAST = 256,     /* below one block no default makes sense */
    SPLIT_ROWS = 8,      /* rows whose pieces may be split at full depth: drafts, small batches */
    DRAFT_TABLE = 1 << 18 /* bytes of a drafter beside 4 per position (engine/draft_ngram.c) */
};
static const size_t SPLIT_BYTES = 16u << 20; /* beyond one row: what split attention may take */

typedef struct carver { uint8_t *base; size_t off; } carver;

static void *cut(carver *c, size_t bytes)
{
    const size_t at = c->off;
    c->off = at + (bytes + 127) / 128 * 128; /* two lines: prefetchers share neighbours */
    return c->base ? c->base + at : NULL;
}

static float *cut_f(carver *c, size_t n) { return cut(c, n * sizeof(float)); }
static size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }
static int gcd(int a, int b) { return b ? gcd(b, a % b) : a; }

static int form_of(const vq_matrix *w) { return w->gemm.a8 ? VQ_FORM_Q : VQ_FORM_F; }

static void cut_in(carver *c, vq_in *in, int forms, int rows, int k)
{
    in->k = k;
    in->ldf = round_up((size_t)k, Q_TILE);
    in->mem = forms & VQ_FORM_Q ? cut(c, q_acts_bytes(rows, k)) : NULL;
    in->f = forms & VQ_FORM_F ? cut_f(c, (size_t)rows * in->ldf) : NULL;
    in->ordered = NULL;
}

/* One that a matrix reads in several jobs, up to `rows` rows. */
static void cut_shared(carver *c, const vq_fw *fw, vq_in *in, int forms, int rows, int k)
{
    cut_in(c, in, forms, rows, k);
    if (fw->plan.order && forms & VQ_FORM_Q) in->ordered = cut(c, q_order_bytes(rows, k));
}

static void cut_thread(carver *c, const vq_fw *fw, vq_thread *t)
{
    const vq_model *m = fw->m;
    int longest = m->hidden > Q_TILE ? m->hidden : Q_TILE;
    if (longest < m->hd) longest = m->hd;
    if (fw->plan.mtp && longest < 2 * m->hidden) longest = 2 * m->hidden;
    t->tmp = cut(c, Q_TMP);
    t->y = cut_f(c, VQ_TB * fw->y_cols);
    t->y2 = cut_f(c, VQ_TB * fw->y2_cols);
    t->vec = cut_f(c, round_up((size_t)longest, Q_TILE));
    cut_in(c, &t->small_h, fw->forms_h, VQ_SMALL, m->hidden);
    cut_in(c, &t->small_o, VQ_FORM_Q, VQ_SMALL, m->n_head * m->od);
    if (m->lora) {
        cut_in(c, &t->nope, fw->forms_nope, VQ_TB, (int)m->cfg->nope_dim);
        t->vblk = cut(c, q_kv_v_bytes(Q_KV_8, m->lora));
    }
    const size_t q = (size_t)fw->attn_q;
    t->s = cut_f(c, q * Q_PIECE);
    t->o = cut_f(c, q * fw->vdp);
    t->o2 = cut_f(c, q * fw->vdp);
    t->m = cut_f(c, q);
    t->l = cut_f(c, q);
    t->m2 = cut_f(c, q);
    t->l2 = cut_f(c, q);
    t->nvis = cut(c, q * sizeof *t->nvis);
}

static void cut_latents(carver *c, vq_fw *fw)
{
    const vq_model *m = fw->m;
    const int rows = fw->plan.max_rows;
    fw->lat = cut_f(c, (size_t)rows * fw->ld_lat);
    if (m->cfg->q_lora) cut_shared(c, fw, &fw->in_q, fw->forms_q, rows, (int)m->cfg->q_lora);
    cut_in(c, &fw->in_u, fw->forms_u, rows * m->n_head, m->lora);
}

static void cut_experts(carver *c, vq_fw *fw)
{
    const vaq_config *g = fw->m->cfg;
    const int rows = fw->plan.max_rows, entries = rows * (int)g->n_expert_used;
    const int inter = (int)g->moe_inter, shared = (int)g->n_expert_shared * inter;
    const size_t n = (size_t)entries, experts = (size_t)g->n_expert + 1;
    vq_pick *p = &fw->pick;
    fw->score = cut_f(c, (size_t)rows * g->n_expert);
    if (fw->plan.expert_bytes) {
        fw->guess = cut_f(c, g->n_expert);
        fw->sum = cut_f(c, (size_t)rows * fw->ldx);
    }
    p->idx = cut(c, n * sizeof *p->idx);
    p->w = cut_f(c, n);
    p->row = cut(c, n * sizeof *p->row);
    p->weight = cut_f(c, n);
    p->first = cut(c, experts * sizeof *p->first);
    p->active = cut(c, experts * sizeof *p->active);
    p->job0 = cut(c, experts * sizeof *p->job0);
    cut_in(c, &fw->in_e, fw->forms_e, entries, fw->m->hidden);
    if (shared) cut_shared(c, fw, &fw->in_ds, fw->forms_shared, rows, shared);
    cut_in(c, &fw->in_de, fw->forms_expert, entries, inter);
}

/* Cuts the slab at fw->mem, or only measures when that is NULL. */
static size_t carve(vq_fw *fw)
{
    const vq_model *m = fw->m;
    const size_t rows = (size_t)fw->plan.max_rows;
    const int max_rows = fw->plan.max_rows;
    carver c = { fw->mem, 0 };
    fw->th = cut(&c, (size_t)fw->plan.threads * sizeof *fw->th);
    fw->bad = cut(&c, rows * sizeof *fw->bad);
    fw->out = cut(&c, rows * sizeof *fw->out);
    fw->rb = cut(&c, rows * sizeof *fw->rb);
    fw->x = cut_f(&c, rows * fw->ldx);
    fw->cs = cut_f(&c, rows * m->cfg->rope_dim);
    cut_shared(&c, fw, &fw->in_h, fw->forms_h, max_rows, m->hidden);
    cut_shared(&c, fw, &fw->in_o, VQ_FORM_Q | VQ_FORM_F, max_rows, m->n_head * m->od);
    cut_shared(&c, fw, &fw->in_d, fw->forms_down, max_rows, m->inter);
    if (m->lora) cut_latents(&c, fw);
    if (m->cfg->n_expert) cut_experts(&c, fw);
    if (fw->plan.mtp) {
        fw->state = cut_f(&c, rows * fw->ldx);
        cut_in(&c, &fw->in_join, form_of(&m->mtp.join), max_rows, 2 * m->hidden);
        fw->mtp_row = cut(&c, rows * sizeof *fw->mtp_row);
    }
    if (fw->k_types & 1 << Q_KV_8)
        fw->q2_mem = cut(&c, q_acts_bytes(2 * max_rows * m->n_head, m->hd));
    if (fw->k_types & ~(1 << Q_KV_8)) fw->qf = cut_f(&c, rows * (size_t)m->n_head * fw->hdp);
    fw->part_o = cut_f(&c, fw->plan.part_slots * fw->vdp);
    fw->part_m = cut_f(&c, fw->plan.part_slots);
    fw->part_l = cut_f(&c, fw->plan.part_slots);
    for (int i = 0; i < fw->plan.threads; i++) {
        vq_thread none = { 0 };
        cut_thread(&c, fw, fw->mem ? &fw->th[i] : &none);
    }
    return c.off;
}

/* Every form that some layer wants. */
static void forms_of(vq_fw *fw, const vq_model *m)
{
    for (int l = 0; l < m->n_layer + m->n_mtp; l++) {
        const vq_layer *y = &m->layer[l];
        fw->forms_h |= y->qkv_forms | y->ffn_forms;
        if (y->down.rows) fw->forms_down |= form_of(&y->down);
        if (y->moe.router.rows) {
            fw->forms_e |= y->moe.in_forms;
            fw->forms_expert |= y->moe.down_forms;
            if (y->moe.shared_down.rows) fw->forms_shared |= form_of(&y->moe.shared_down);
        }
        if (m->lora) {
            fw->forms_q |= form_of(&y->q);
            fw->forms_nope |= form_of(&y->k_up);
            fw->forms_u |= form_of(&y->v_up);
        }
    }
    fw->forms_h |= form_of(&m->head);
    if (m->n_mtp) fw->forms_h |= form_of(&m->mtp.head);
}

static size_t most(size_t a, size_t b) { return a > b ? a : b; }

static void shape(vq_fw *fw, const vq_model *m, const vq_plan *p)
{
    fw->m = m;
    fw->plan = *p;
    forms_of(fw, m);
    fw->ldx = round_up((size_t)m->hidden, Q_ROWS);
    fw->hdp = round_up((size_t)m->hd, Q_TILE);
    fw->vdp = round_up((size_t)m->vd, Q_ROWS);
    fw->unit_q = Q_ROWS / gcd(m->qd, Q_ROWS);
    fw->unit_v = Q_ROWS / gcd(m->od, Q_ROWS);
    const size_t heads_q = (size_t)fw->unit_q * (size_t)m->qd;
    const size_t heads_v = (size_t)fw->unit_v * (size_t)m->od;
    fw->y_cols = most(VQ_JOB_ROWS, most(heads_q, heads_v));
    if (m->cfg->n_expert) fw->y2_cols = VQ_JOB_ROWS;
    if (m->lora) {
        fw->y2_cols = most(fw->y2_cols, (size_t)m->lora);
        fw->ld_lat = round_up(m->cfg->q_lora, Q_ROWS)
                   + round_up((size_t)m->lora + m->cfg->rope_dim, Q_ROWS);
    }
    fw->attn_rows = VQ_ATTN_Q / m->group > 1 ? VQ_ATTN_Q / m->group : 1;
    fw->attn_q = fw->attn_rows * m->group;
}

static int k_types_of(const vq_model *m, const vq_kv *kv)
{
    int types = 0;
    for (int l = 0; l < m->n_layer + m->n_mtp; l++) types |= 1 << kv->layer[l].k;
    return types;
}

uint64_t vq_fw_bytes(const vq_model *m, const vq_plan *p)
{
    vq_fw fw = { 0 };
    shape(&fw, m, p);
    fw.k_types = 1 << p->kv_type; /* at most: layers with large key biases keep K as bf16 */
    if (p->kv_type == Q_KV_8) fw.k_types |= 1 << Q_KV_BF16;
    return carve(&fw);
}

vq_status vq_fw_new(vq_fw **out, const vq_model *m, const q_kern *kern, vq_pool *pool,
                    const vq_kv *kv, const vq_plan *p, const atomic_int *stop, vq_err *e)
{
    vq_fw *fw = *out = vq_calloc(1, sizeof *fw);
    if (!fw) return vq_fail(e, VQ_ENOMEM, "out of memory");
    shape(fw, m, p);
    fw->k_types = k_types_of(m, kv);
    fw->k = kern;
    fw->kv = kv;
    fw->pool = pool;
    fw->stop = stop;
    fw->mem_bytes = carve(fw);
    fw->mem = vq_pages_alloc(fw->mem_bytes);
    if (!fw->mem) {
        vq_free(fw);
        *out = NULL;
        return vq_fail(e, VQ_ENOMEM, "out of memory for the working buffers");
    }
    carve(fw);
    if (p->expert_bytes) {
        const vq_status st = vq_experts_new(&fw->experts, m, p->expert_bytes, e);
        if (!st) return VQ_OK;
        vq_fw_free(fw);
        *out = NULL;
        return st;
    }
    return VQ_OK;
}

const vq_experts *vq_fw_experts(const vq_fw *fw) { return fw->experts; }

void vq_fw_free(vq_fw *fw)
{
    if (!fw) return;
    vq_experts_free(fw->experts);
    vq_pages_free(fw->mem, fw->mem_bytes);
    vq_free(fw);
}

/* ---- choosing ---- */

/* Fills the sizes for p->ctx. */
static void size_up(vq_plan *p, const vq_model *m, size_t block_bytes)
{
    const uint32_t pieces = p->ctx / Q_PIECE + (p->ctx % Q_PIECE != 0);
    const uint64_t positions = (uint64_t)p->ctx * (uint64_t)p->max_sessions;
    p->max_rows = positions < (uint64_t)p->rows_wanted ? (int)positions : p->rows_wanted;
    const size_t row_slots = (size_t)pieces * (size_t)m->n_head;
    const size_t slot_bytes = (round_up((size_t)m->vd, Q_ROWS) + 2) * sizeof(float);
    size_t rows = SPLIT_BYTES / (row_slots * slot_bytes);
    rows = rows < 1 ? 1 : rows > SPLIT_ROWS ? SPLIT_ROWS : rows;
    p->part_slots = rows * row_slots;
    p->n_block = (int)pieces * p->max_sessions;
    p->kv_bytes = (uint64_t)p->n_block * block_bytes;
    p->scratch_bytes = vq_fw_bytes(m, p);
    /* Per session logits and ids, for drafts a line of logits each and what their maker remembers;
     * once the sampler's probabilities, ids and two sort buffers. */
    uint64_t session = (uint64_t)m->n_vocab * 4 * (uint64_t)(1 + p->max_draft)
                     + (uint64_t)p->ctx * 4;
    if (p->max_draft) session += (uint64_t)p->ctx * 4 + DRAFT_TABLE;
    if (p->mtp) session += VQ_MTP_STATES * (uint64_t)m->hidden * 4 + (uint64_t)m->n_vocab * 4;
    p->session_bytes = (uint64_t)p->max_sessions * session + (uint64_t)m->n_ids * 24;
}

static uint64_t total_bytes(const vq_plan *p)
{
    return p->kv_bytes + p->scratch_bytes + p->session_bytes;
}

/* A cache of experts: asked for, or because the file is larger than what is available. */
static void choose_experts(vq_plan *p, const vq_model *m, const vq_plan_want *w)
{
    uint64_t largest;
    const uint64_t all = vq_experts_bytes(m, &largest), file = m->file->header->file_size;
    p->expert_bytes = w->expert_bytes;
    if (!all || p->expert_bytes || m->file->in_memory || file <= w->available) return;
    const uint64_t room = w->available / 4 * 3, rest = file - all + total_bytes(p);
    p->expert_bytes = room > rest + largest ? room - rest : largest;
}

/* The largest multiple of 256 up to `most` that fits, 0 if none does. */
static uint32_t largest_ctx(vq_plan p, const vq_model *m, size_t block_bytes, uint32_t most,
                            uint64_t room)
{
    uint32_t lo = 0, hi = most / CTX_LEAST;
    while (lo < hi) {
        const uint32_t mid = lo + (hi - lo + 1) / 2;
        p.ctx = mid * CTX_LEAST;
        size_up(&p, m, block_bytes);
        if (total_bytes(&p) <= room) lo = mid;
        else hi = mid - 1;
    }
    return lo * CTX_LEAST;
}

static vq_status refuse(const vq_plan *p, const vq_model *m, const vq_plan_want *w,
                        size_t block_bytes, vq_err *e)
{
    char need[16], have[16];
    vq_buf ways = { 0 };
    vq_fmt_size(need, total_bytes(p));
    vq_fmt_size(have, w->available);
    const uint32_t fits = largest_ctx(*p, m, block_bytes, p->ctx, w->available);
    if (fits && w->shorter) vq_buf_printf(&ways, "; %u fit", fits);
    else if (fits) vq_buf_printf(&ways, "; --ctx %u fits", fits);
    if (w->shorter) vq_buf_printf(&ways, ": %s", w->shorter);
    if (p->kv_type != Q_KV_8 && !w->shorter) {
        vq_kv kv;
        vq_plan small = *p;
        small.kv_type = Q_KV_8;
        if (vq_kv_layout(&kv, m, Q_KV_8, NULL) == VQ_OK) {
            char b[16];
            size_up(&small, m, kv.block_bytes);
            vq_fmt_size(b, total_bytes(&small));
            vq_buf_printf(&ways, "; --kv 8 needs %s", b);
            vq_kv_clear(&kv);
        }
    }
    if (p->max_sessions > 1 && !w->shorter)
        vq_buf_printf(&ways, "; fewer than %d sequences at once need less", p->max_sessions);
    const vq_status s = vq_fail(e, VQ_ENOFIT, "%s: a context of %u positions needs %s of memory "
                                              "beside the weights, %s are available%s",
                                m->file->path, p->ctx, need, have, ways.p ? ways.p : "");
    vq_buf_clear(&ways);
    return s;
}

vq_status vq_plan_make(vq_plan *p, const vq_model *m, const vq_plan_want *w, vq_err *e)
{
    const uint32_t limit = m->cfg->ctx;
    *p = (vq_plan){ .threads = w->threads, .order = w->order,
                    .rows_wanted = w->max_rows,
                    .max_sessions = w->max_sessions,
                    .max_draft = w->max_draft,
                    .mtp = w->mtp,
                    .ctx = w->ctx,
                    .kv_type = w->kv_type };
    if (w->ctx > limit) {
        char way[24];
        snprintf(way, sizeof way, "take --ctx %u", limit);
        return vq_fail(e, VQ_ENOFIT, "%s: a context of %u is beyond the %u positions this model "
                                     "was made for; %s", m->file->path, w->ctx, limit,
                       w->shorter ? w->shorter : way);
    }
    vq_kv kv;
    vq_status s = vq_kv_layout(&kv, m, w->kv_type, e);
    if (s) return s;
    const size_t block = kv.block_bytes;
    vq_kv_clear(&kv);

    if (!p->ctx) {
        /* 3/4 of the available memory for weights (they want to stay in the page cache) and the
         * rest; a model larger than that pages anyway, and an eighth for the cache does not change
         * it. */
        const uint64_t room = w->available / 4 * 3, weights = m->file->header->file_size;
        const uint64_t left = room > weights ? room - weights : 0, least = w->available / 8;
        const uint64_t rest = left > least ? left : least;
        const uint32_t most = limit < CTX_DEFAULT ? limit : CTX_DEFAULT;
        p->ctx = most;
        size_up(p, m, block);
        if (total_bytes(p) > rest) p->ctx = largest_ctx(*p, m, block, most, rest);
        if (!p->ctx) p->ctx = most < CTX_LEAST ? most : CTX_LEAST; /* refused below if too much */
    }
    size_up(p, m, block);
    choose_experts(p, m, w);
    size_up(p, m, block);
    if (total_bytes(p) > w->available) return refuse(p, m, w, block, e);
    return VQ_OK;
}
