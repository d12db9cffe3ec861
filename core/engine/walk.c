/* walk.c - walk.h: the states of all positions between two layers.
 *
 * A layer sees of a chunk only what it wrote into the cache itself, so all chunks and layers use
 * the same positions of one session, one after the other. */
#include "core/engine/walk.h"

#include "core/base/mem.h"
#include "core/engine/private.h"

#include <assert.h>
#include <string.h>

enum { HEAD_ROWS = 32 }; /* logits made at once */

struct vq_walk {
    vq_engine *eng;
    vq_session *s;
    int32_t *ids;           /* (n_chunk, len) */
    size_t n_chunk, len;
    int layer;              /* that comes next */
    float *x;               /* (n_chunk, len, hidden) */
    float *copy;            /* (len, hidden) */
    float *logits;          /* (HEAD_ROWS, n_vocab) */
    float *routed;          /* (n_chunk, len, hidden) what experts were given; NULL: never summed */
    int32_t *pick;          /* (n_chunk, len, n_expert_used) which ones took it */
    vq_sums sums;
    vq_row *row;            /* (len) */
};

static_assert((int)VQ_WALK_INPUTS == (int)VQ_N_IN && (int)VQ_WALK_ATTN == (int)VQ_IN_ATTN
              && (int)VQ_WALK_Q_B == (int)VQ_IN_Q_B && (int)VQ_WALK_K_UP == (int)VQ_IN_K_UP
              && (int)VQ_WALK_V_UP == (int)VQ_IN_V_UP && (int)VQ_WALK_O == (int)VQ_IN_O
              && (int)VQ_WALK_FFN == (int)VQ_IN_FFN && (int)VQ_WALK_DOWN == (int)VQ_IN_DOWN
              && (int)VQ_WALK_EXPERTS == (int)VQ_IN_EXPERTS, "two names for the same inputs");

static size_t up64(size_t n) { return (n + 63) / 64 * 64; }

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

static vq_status no_memory(const vq_walk *w, vq_err *e)
{
    return vq_fail(e, VQ_ENOMEM, "out of memory for %zu tokens of text", w->n_chunk * w->len);
}

static vq_status allocate(vq_walk *w, const int32_t *ids, vq_err *e)
{
    const vq_model *m = &w->eng->model;
    const vaq_config *c = m->cfg;
    const size_t hidden = (size_t)m->hidden, n = w->n_chunk * w->len;
    const size_t pad = up64(w->len), heads = (size_t)m->n_head;
    const size_t entries = up64(w->len * c->n_expert_used), inter = c->moe_inter;
    size_t k = larger(larger(hidden, (size_t)m->inter), heads * (size_t)m->od);
    k = larger(larger(k, c->q_lora), larger(c->kv_lora, inter * c->n_expert_shared));
    const size_t xt = larger(up64(k) * pad, up64(inter) * entries);
    w->ids = vq_calloc(n, sizeof *w->ids);
    w->x = vq_calloc(n, hidden * sizeof *w->x);
    w->copy = vq_calloc(w->len, hidden * sizeof *w->copy);
    w->logits = vq_calloc(HEAD_ROWS, (size_t)m->n_vocab * sizeof *w->logits);
    w->row = vq_calloc(w->len, sizeof *w->row);
    w->sums.xt = vq_aligned(64, xt * sizeof(float));
    w->sums.tile = vq_aligned(64, (size_t)w->eng->plan.threads * larger(pad, entries) * Q_ROWS
                                      * sizeof(float));
    w->sums.nope = vq_calloc(w->len * heads * c->nope_dim + Q_ROWS, sizeof(float));
    if (!w->ids || !w->x || !w->copy || !w->logits || !w->row || !w->sums.xt || !w->sums.tile
        || !w->sums.nope)
        return no_memory(w, e);
    memcpy(w->ids, ids, n * sizeof *ids);
    return VQ_OK;
}

vq_status vq_walk_open(vq_walk **out, vq_engine *eng, const int32_t *ids, size_t n_chunk,
                       size_t len, vq_err *e)
{
    assert(eng->model.all_float && len <= (size_t)eng->plan.max_rows && len <= eng->plan.ctx);
    vq_walk *w = vq_calloc(1, sizeof *w);
    *out = NULL;
    if (!w) return vq_fail(e, VQ_ENOMEM, "out of memory");
    w->eng = eng;
    w->n_chunk = n_chunk;
    w->len = len;
    vq_status st = allocate(w, ids, e);
    if (!st) st = vq_session_open(&w->s, eng, NULL, e);
    if (!st && !vq_seq_reserve(&eng->kv, &w->s->seq, 0, (uint32_t)len))
        st = vq_fail(e, VQ_ENOMEM, "no room in the cache for %zu positions", len);
    if (st) {
        vq_walk_close(w);
        return st;
    }
    *out = w;
    return VQ_OK;
}

void vq_walk_close(vq_walk *w)
{
    if (!w) return;
    vq_session_close(w->s);
    vq_free(w->ids);
    vq_free(w->x);
    vq_free(w->copy);
    vq_free(w->logits);
    vq_free(w->row);
    vq_free(w->routed);
    vq_free(w->pick);
    vq_free(w->sums.nope);
    vq_aligned_free(w->sums.xt);
    vq_aligned_free(w->sums.tile);
    vq_free(w);
}

static vq_status run(vq_walk *w, size_t chunk, int to, float *x, const vq_sums *sums, vq_err *e)
{
    for (size_t i = 0; i < w->len; i++)
        w->row[i] = (vq_row){ .seq = &w->s->seq, .pos = (uint32_t)i,
                              .token = w->ids[chunk * w->len + i] };
    return vq_fw_layers(w->eng->fw, w->row, (int)w->len, w->layer, to, x, sums, e);
}

vq_status vq_walk_step(vq_walk *w, q_moments *const m[VQ_WALK_INPUTS], vq_err *e)
{
    const size_t size = w->len * (size_t)w->eng->model.hidden;
    const size_t used = w->len * w->eng->model.cfg->n_expert_used;
    vq_status st = VQ_OK;
    memset(w->sums.m, 0, sizeof w->sums.m);
    if (m) memcpy(w->sums.m, m, sizeof w->sums.m);
    const bool keep = w->sums.m[VQ_IN_EXPERTS] != NULL;
    if (keep && !w->routed) {
        w->routed = vq_calloc(w->n_chunk, size * sizeof *w->routed);
        w->pick = vq_calloc(w->n_chunk, used * sizeof *w->pick);
        if (!w->routed || !w->pick) return no_memory(w, e);
    }
    for (size_t i = 0; i < w->n_chunk && !st; i++) {
        w->sums.routed = keep ? w->routed + i * size : NULL;
        w->sums.pick = keep ? w->pick + i * used : NULL;
        st = run(w, i, w->layer + 1, w->x + i * size, &w->sums, e);
    }
    if (!st) w->layer++;
    return st;
}

/* The next position from *at on that an expert got; false: there is none. */
static bool next_routed(const vq_walk *w, int expert, size_t *at)
{
    const size_t used = w->eng->model.cfg->n_expert_used;
    for (; *at < w->n_chunk * w->len; ++*at)
        for (size_t i = 0; i < used; i++)
            if (w->pick[*at * used + i] == expert) return true;
    return false;
}

size_t vq_walk_routed(const vq_walk *w, int expert)
{
    size_t n = 0;
    for (size_t at = 0; next_routed(w, expert, &at); at++) n++;
    return n;
}

void vq_walk_expert(vq_walk *w, int expert, q_moments *in, q_moments *down)
{
    const size_t hidden = (size_t)w->eng->model.hidden;
    size_t n = 0;
    memset(w->sums.m, 0, sizeof w->sums.m);
    w->sums.m[VQ_IN_FFN] = in;
    w->sums.m[VQ_IN_EXPERTS] = down;
    for (size_t at = 0; next_routed(w, expert, &at); at++) {
        memcpy(w->copy + n++ * hidden, w->routed + at * hidden, hidden * sizeof *w->copy);
        if (n < w->len) continue;
        vq_fw_expert(w->eng->fw, w->layer - 1, expert, w->copy, (int)n, &w->sums);
        n = 0;
    }
    if (n) vq_fw_expert(w->eng->fw, w->layer - 1, expert, w->copy, (int)n, &w->sums);
}

size_t vq_walk_rows(const vq_walk *w) { return w->n_chunk * (w->len - 1 - w->len / 2); }

vq_status vq_walk_logits(vq_walk *w, vq_walk_fn *row, void *ctx, vq_err *e)
{
    const vq_model *m = &w->eng->model;
    const size_t size = w->len * (size_t)m->hidden, vocab = (size_t)m->n_vocab;
    size_t i = 0;
    vq_status st = VQ_OK;
    for (size_t c = 0; c < w->n_chunk && !st; c++) {
        memcpy(w->copy, w->x + c * size, size * sizeof *w->copy);
        st = run(w, c, m->n_layer + 1, w->copy, NULL, e);
        for (size_t at = w->len / 2; at < w->len - 1 && !st;) {
            const size_t left = w->len - 1 - at, n = left < HEAD_ROWS ? left : HEAD_ROWS;
            vq_fw_head(w->eng->fw, (int)at, (int)n, w->logits, vocab);
            for (size_t k = 0; k < n; k++) row(ctx, i++, w->logits + k * vocab);
            at += n;
        }
    }
    return st;
}

static vq_matrix *matrix_of(vq_model *m, int role, int layer, int expert)
{
    vq_layer *y = layer >= 0 && layer < m->n_layer ? &m->layer[layer] : NULL;
    switch (role) {
    case VAQ_EMBED: return &m->embed;
    case VAQ_HEAD: return &m->head;
    case VAQ_Q: return y && !y->q_a.rows ? &y->q : NULL;
    case VAQ_Q_B: return y && y->q_a.rows ? &y->q : NULL;
    case VAQ_Q_A: return y ? &y->q_a : NULL;
    case VAQ_KV_A: return y ? &y->kv_a : NULL;
    case VAQ_K_UP: return y ? &y->k_up : NULL;
    case VAQ_V_UP: return y ? &y->v_up : NULL;
    case VAQ_K: return y ? &y->k : NULL;
    case VAQ_V: return y ? &y->v : NULL;
    case VAQ_O: return y ? &y->o : NULL;
    case VAQ_GATE_UP: return y ? &y->gate_up : NULL;
    case VAQ_DOWN: return y ? &y->down : NULL;
    case VAQ_SHARED_GATE_UP: return y ? &y->moe.shared_gate_up : NULL;
    case VAQ_SHARED_DOWN: return y ? &y->moe.shared_down : NULL;
    case VAQ_EXPERT_GATE_UP: return y && y->moe.gate_up ? &y->moe.gate_up[expert] : NULL;
    case VAQ_EXPERT_DOWN: return y && y->moe.down ? &y->moe.down[expert] : NULL;
    default: return NULL;
    }
}

vq_walk_matrix vq_walk_get(const vq_walk *w, int role, int layer, int expert)
{
    const vq_matrix *m = matrix_of(&w->eng->model, role, layer, expert);
    if (!m || !m->rows) return (vq_walk_matrix){ 0 };
    return (vq_walk_matrix){ .groups = m->w, .type = m->type, .rows = m->rows, .cols = m->cols };
}

static void set(vq_matrix *to, const vq_walk_matrix *m, const q_kern *kern)
{
    to->w = m->groups;
    to->type = m->type;
    to->group = q_group_bytes(m->type, m->cols);
    to->gemm = q_gemm_for(kern, m->type);
}

void vq_walk_set(vq_walk *w, int role, int layer, int expert, const vq_walk_matrix *m)
{
    vq_model *md = &w->eng->model;
    vq_matrix *to = matrix_of(md, role, layer, expert);
    assert(to && to->rows == m->rows && to->cols == m->cols && q_type_info(m->type)->is_float);
    set(to, m, &w->eng->kern);
    if (expert >= 0) md->layer[layer].moe.lent = m->lent;
    if (role == VAQ_EMBED && md->cfg->flags & VAQ_F_TIED) set(&md->head, m, &w->eng->kern);
}
