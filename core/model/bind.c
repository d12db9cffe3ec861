/* bind.c - finds the tensors of an architecture in a container and checks that they fit together.
 *
 * The reader has proved that every tensor lies inside the file with the size of its type and shape;
 * here the shapes are held against the configuration, so that the forward pass needs no checks. */
#include "core/base/mem.h"
#include "core/file/check.h"
#include "core/model/model.h"
#include "core/model/work.h"

#include <math.h>
#include <stdio.h>

typedef struct binder {
    vq_model *m;
    const vq_file *f;
    const q_kern *kern;
    vq_err *e;
    vq_status s; /* the first failure; later calls do nothing */
} binder;

static void refuse(binder *b, const vaq_tensor *t, const char *why)
{
    char name[96];
    vq_tensor_name(name, t);
    b->s = vq_fail(b->e, VQ_EFORMAT, "%s: tensor %s %s", b->f->path, name, why);
}

static const vaq_tensor *find(binder *b, vaq_role role, int layer, int expert, uint64_t rows,
                              uint64_t cols, int layout)
{
    if (b->s) return NULL;
    const vaq_tensor *t = vq_file_find(b->f, role, layer, expert);
    if (!t) {
        const vaq_tensor want = { .role = (uint16_t)role,
                                  .layer = layer < 0 ? (uint16_t)0xffff : (uint16_t)layer,
                                  .expert = expert, .layout = (uint16_t)layout };
        refuse(b, &want, "is missing");
        return NULL;
    }
    if (t->rows != rows || t->cols != cols || t->layout != layout) {
        char why[120];
        snprintf(why, sizeof why,
                 "is %u x %u in layout %u, the configuration asks for %llu x %llu in layout %d",
                 t->rows, t->cols, t->layout, (unsigned long long)rows, (unsigned long long)cols,
                 layout);
        refuse(b, t, why);
        return NULL;
    }
    return t;
}

static const float *vector(binder *b, vaq_role role, int layer, uint64_t n)
{
    const vaq_tensor *t = find(b, role, layer, -1, 1, n, VAQ_VECTOR);
    return t ? (const float *)vq_file_data(b->f, t) : NULL;
}

static void bind_matrix(binder *b, vq_matrix *out, vaq_role role, int layer, int expert,
                        uint64_t rows, uint64_t cols, int layout)
{
    const vaq_tensor *t = find(b, role, layer, expert, rows, cols, layout);
    if (!t) return;
    const q_gemm g = q_gemm_for(b->kern, t->type);
    if (!g.a8 && !g.f) {
        refuse(b, t, "has a type this version has no kernels for");
        return;
    }
    *out = (vq_matrix){ .w = vq_file_data(b->f, t),
                        .rows = (int)t->rows,
                        .cols = (int)t->cols,
                        .type = t->type,
                        .group = q_group_bytes(t->type, (int)t->cols),
                        .gemm = g };
    if (g.a8) b->m->all_float = false;
}

static void matrix(binder *b, vq_matrix *out, vaq_role role, int layer, uint64_t rows,
                   uint64_t cols)
{
    bind_matrix(b, out, role, layer, -1, rows, cols, VAQ_T16);
}

/* Gate and up in turn, each padded to whole row groups. */
static void gate_up(binder *b, vq_matrix *out, vaq_role role, int layer, int expert, uint64_t inter)
{
    bind_matrix(b, out, role, layer, expert, 2 * ((inter + Q_ROWS - 1) / Q_ROWS * Q_ROWS),
                b->m->cfg->hidden, VAQ_T16_PAIR);
}

static int form_of(const vq_matrix *w) { return w->gemm.a8 ? VQ_FORM_Q : VQ_FORM_F; }

static float largest(const float *x, size_t n)
{
    float m = 0;
    for (size_t i = 0; x && i < n; i++) m = fabsf(x[i]) > m ? fabsf(x[i]) : m;
    return m;
}

static void bind_gqa(binder *b, vq_layer *y, int l)
{
    const vaq_config *c = b->m->cfg;
    const uint64_t h = c->hidden, q = (uint64_t)c->n_head * c->head_dim, kv = c->n_head_kv;
    matrix(b, &y->q, VAQ_Q, l, q, h);
    matrix(b, &y->k, VAQ_K, l, kv * c->head_dim, h);
    matrix(b, &y->v, VAQ_V, l, kv * c->v_dim, h);
    if (c->flags & VAQ_F_QKV_BIAS) {
        y->q_bias = vector(b, VAQ_Q_BIAS, l, q);
        y->k_bias = vector(b, VAQ_K_BIAS, l, kv * c->head_dim);
        y->v_bias = vector(b, VAQ_V_BIAS, l, kv * c->v_dim);
        y->k_bias_max = largest(y->k_bias, (size_t)(kv * c->head_dim));
    }
    if (c->flags & VAQ_F_QK_NORM) {
        y->q_norm = vector(b, VAQ_Q_NORM, l, c->head_dim);
        y->k_norm = vector(b, VAQ_K_NORM, l, c->head_dim);
    }
    if (b->s) return;
    y->qkv_forms = form_of(&y->q) | form_of(&y->k) | form_of(&y->v);
    y->attn = vq_attn_gqa;
}

static void bind_mla(binder *b, vq_layer *y, int l)
{
    const vaq_config *c = b->m->cfg;
    const uint64_t h = c->hidden, q = (uint64_t)c->n_head * c->head_dim;
    if (c->q_lora) {
        matrix(b, &y->q_a, VAQ_Q_A, l, c->q_lora, h);
        y->q_a_norm = vector(b, VAQ_Q_A_NORM, l, c->q_lora);
        matrix(b, &y->q, VAQ_Q_B, l, q, c->q_lora);
    } else {
        matrix(b, &y->q, VAQ_Q, l, q, h);
    }
    matrix(b, &y->kv_a, VAQ_KV_A, l, (uint64_t)c->kv_lora + c->rope_dim, h);
    y->kv_a_norm = vector(b, VAQ_KV_A_NORM, l, c->kv_lora);
    matrix(b, &y->k_up, VAQ_K_UP, l, (uint64_t)c->n_head * c->kv_lora, c->nope_dim);
    matrix(b, &y->v_up, VAQ_V_UP, l, (uint64_t)c->n_head * c->v_dim, c->kv_lora);
    if (b->s) return;
    y->qkv_forms = form_of(&y->kv_a) | form_of(c->q_lora ? &y->q_a : &y->q);
    y->attn = vq_attn_mla;
}

static void bind_dense(binder *b, vq_layer *y, int l)
{
    const vaq_config *c = b->m->cfg;
    gate_up(b, &y->gate_up, VAQ_GATE_UP, l, -1, c->inter);
    matrix(b, &y->down, VAQ_DOWN, l, c->hidden, c->inter);
    if (b->s) return;
    y->ffn_forms = form_of(&y->gate_up);
    y->ffn = vq_ffn_dense;
}

static void bind_moe(binder *b, vq_layer *y, int l)
{
    const vaq_config *c = b->m->cfg;
    const uint64_t h = c->hidden, shared = (uint64_t)c->n_expert_shared * c->moe_inter;
    vq_moe *o = &y->moe;
    if (b->s) return;
    o->gate_up = vq_calloc(c->n_expert, sizeof *o->gate_up);
    o->down = vq_calloc(c->n_expert, sizeof *o->down);
    if (!o->gate_up || !o->down) {
        b->s = vq_fail(b->e, VQ_ENOMEM, "%s: out of memory", b->f->path);
        return;
    }
    matrix(b, &o->router, VAQ_ROUTER, l, c->n_expert, h);
    o->bias = vector(b, VAQ_ROUTER_BIAS, l, c->n_expert);
    if (shared) {
        gate_up(b, &o->shared_gate_up, VAQ_SHARED_GATE_UP, l, -1, shared);
        matrix(b, &o->shared_down, VAQ_SHARED_DOWN, l, h, shared);
    }
    for (int e = 0; e < (int)c->n_expert; e++) {
        gate_up(b, &o->gate_up[e], VAQ_EXPERT_GATE_UP, l, e, c->moe_inter);
        bind_matrix(b, &o->down[e], VAQ_EXPERT_DOWN, l, e, h, c->moe_inter, VAQ_T16);
    }
    if (b->s) return;
    y->ffn_forms = form_of(&o->router);
    if (shared) y->ffn_forms |= form_of(&o->shared_gate_up);
    for (int e = 0; e < (int)c->n_expert; e++) {
        o->in_forms |= form_of(&o->gate_up[e]);
        o->down_forms |= form_of(&o->down[e]);
    }
    y->ffn_forms |= o->in_forms;
    y->ffn = vq_ffn_moe;
}

static void bind_layer(binder *b, int l)
{
    const vaq_config *c = b->m->cfg;
    vq_layer *y = &b->m->layer[l];
    y->norm_attn = vector(b, VAQ_NORM_ATTN, l, c->hidden);
    y->norm_ffn = vector(b, VAQ_NORM_FFN, l, c->hidden);
    if (c->kv_lora) bind_mla(b, y, l);
    else bind_gqa(b, y, l);
    matrix(b, &y->o, VAQ_O, l, c->hidden, (uint64_t)c->n_head * c->v_dim);
    if (c->n_expert && l >= (int)c->n_dense_layer) bind_moe(b, y, l);
    else bind_dense(b, y, l);
}

/* Of several draft layers the first is used. */
static void bind_mtp(binder *b)
{
    const vaq_config *c = b->m->cfg;
    vq_mtp *p = &b->m->mtp;
    const int l = (int)c->n_layer;
    p->norm_embed = vector(b, VAQ_MTP_ENORM, l, c->hidden);
    p->norm_hidden = vector(b, VAQ_MTP_HNORM, l, c->hidden);
    p->norm_out = vector(b, VAQ_MTP_NORM, l, c->hidden);
    matrix(b, &p->join, VAQ_MTP_EH, l, c->hidden, 2 * (uint64_t)c->hidden);
    p->embed = b->m->embed;
    p->head = b->m->head;
    if (!(c->flags & VAQ_F_MTP_EMBED))
        matrix(b, &p->embed, VAQ_MTP_EMBED, l, c->n_vocab, c->hidden);
    if (!(c->flags & VAQ_F_MTP_HEAD)) matrix(b, &p->head, VAQ_MTP_HEAD, l, c->n_vocab, c->hidden);
}

/* Heads that one attention job takes when all read the same latent: enough to make turning a block
 * of the cache worth it, few enough to leave jobs for every thread. */
enum { LATENT_GROUP = 16 };

static void shape_heads(vq_model *m, const vaq_config *c)
{
    m->n_head = (int)c->n_head;
    m->qd = (int)c->head_dim;
    m->od = (int)c->v_dim;
    if (!c->kv_lora) {
        m->n_kv = (int)c->n_head_kv;
        m->hd = m->qd;
        m->vd = m->od;
    } else {
        int group = m->n_head < LATENT_GROUP ? m->n_head : LATENT_GROUP;
        while (m->n_head % group) group--;
        m->n_kv = m->n_head / group;
        m->lora = m->vd = (int)c->kv_lora;
        m->lora_pad = (m->lora + Q_TILE - 1) / Q_TILE * Q_TILE;
        m->hd = m->lora_pad + (int)c->rope_dim;
    }
    m->group = m->n_head / m->n_kv;
}

vq_status vq_model_bind(vq_model *m, const vq_file *f, const q_kern *kern, vq_err *e)
{
    const vaq_config *c = f->config;
    *m = (vq_model){ .file = f, .cfg = c, .rope = f->rope, .all_float = true };
    m->n_layer = (int)c->n_layer;
    m->n_mtp = (int)c->n_mtp;
    m->hidden = (int)c->hidden;
    shape_heads(m, c);
    m->inter = (int)c->inter;
    m->n_vocab = (int)c->n_vocab;
    m->n_ids = (int)c->n_ids;
    for (uint32_t i = 0; i < f->n_tensor; i++) m->params += f->tensor[i].params;

    m->layer = vq_calloc((size_t)m->n_layer + (size_t)m->n_mtp, sizeof *m->layer);
    if (!m->layer) return vq_fail(e, VQ_ENOMEM, "%s: out of memory", f->path);
    binder b = { m, f, kern, e, VQ_OK };
    matrix(&b, &m->embed, VAQ_EMBED, -1, c->n_vocab, c->hidden);
    if (c->flags & VAQ_F_TIED) m->head = m->embed;
    else matrix(&b, &m->head, VAQ_HEAD, -1, c->n_vocab, c->hidden);
    m->norm_out = vector(&b, VAQ_NORM_OUT, -1, c->hidden);
    for (int l = 0; l < m->n_layer + m->n_mtp; l++) bind_layer(&b, l);
    if (m->n_mtp) bind_mtp(&b);
    if (b.s) vq_model_clear(m);
    return b.s;
}

void vq_model_clear(vq_model *m)
{
    for (int l = 0; m->layer && l < m->n_layer + m->n_mtp; l++) {
        vq_free(m->layer[l].moe.gate_up);
        vq_free(m->layer[l].moe.down);
    }
    vq_free(m->layer);
    m->layer = NULL;
}
