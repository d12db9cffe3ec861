/* bind.c - finds the tensors of an architecture in a container and checks that they fit together.
 *
 * The reader has proved that every tensor lies inside the file with the size of its type and shape;
 * here the shapes are held against the configuration, so that the forward pass needs no checks. */
#include "core/base/mem.h"
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

static const vaq_tensor *find(binder *b, vaq_role role, int layer, uint64_t rows, uint64_t cols,
                              int layout)
{
    if (b->s) return NULL;
    const vaq_tensor *t = vq_file_find(b->f, role, layer, -1);
    if (!t) {
        const vaq_tensor want = { .role = (uint16_t)role,
                                  .layer = layer < 0 ? (uint16_t)0xffff : (uint16_t)layer,
                                  .expert = -1, .layout = (uint16_t)layout };
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
    const vaq_tensor *t = find(b, role, layer, 1, n, 0);
    return t ? (const float *)vq_file_data(b->f, t) : NULL;
}

static void matrix(binder *b, vq_matrix *out, vaq_role role, int layer, uint64_t rows,
                   uint64_t cols)
{
    const vaq_tensor *t = find(b, role, layer, rows, cols, role == VAQ_GATE_UP ? 2 : 1);
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

static int form_of(const vq_matrix *w) { return w->gemm.a8 ? VQ_FORM_Q : VQ_FORM_F; }

static float largest(const float *x, size_t n)
{
    float m = 0;
    for (size_t i = 0; x && i < n; i++) m = fabsf(x[i]) > m ? fabsf(x[i]) : m;
    return m;
}

static void bind_dense_layer(binder *b, vq_layer *y, int l)
{
    const vaq_config *c = b->m->cfg;
    const uint64_t h = c->hidden, q = (uint64_t)c->n_head * c->head_dim, kv = c->n_head_kv;
    y->norm_attn = vector(b, VAQ_NORM_ATTN, l, h);
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
    matrix(b, &y->o, VAQ_O, l, h, (uint64_t)c->n_head * c->v_dim);
    y->norm_ffn = vector(b, VAQ_NORM_FFN, l, h);
    matrix(b, &y->gate_up, VAQ_GATE_UP, l, 2 * (((uint64_t)c->inter + 15) / 16 * 16), h);
    matrix(b, &y->down, VAQ_DOWN, l, h, c->inter);
    if (b->s) return;
    y->qkv_forms = form_of(&y->q) | form_of(&y->k) | form_of(&y->v);
    y->ffn_forms = form_of(&y->gate_up);
    y->attn = vq_attn_gqa;
    y->ffn = vq_ffn_dense;
}

static vq_status check_config(const vq_file *f, const vaq_config *c, vq_err *e)
{
    if (c->arch != VAQ_QWEN2 && c->arch != VAQ_LLAMA && c->arch != VAQ_QWEN3)
        return vq_fail(e, VQ_EFORMAT,
                       "%s: architecture %s cannot be run by this version of vaquita", f->path,
                       vq_arch_name(c->arch));
    const uint32_t lim = 1 << 20;
    if (!c->n_layer || c->n_layer > VAQ_MAX_LAYERS || !c->hidden || c->hidden > lim || !c->inter
        || c->inter > lim || !c->n_head || c->n_head > 4096 || !c->n_head_kv
        || c->n_head % c->n_head_kv || !c->head_dim || c->head_dim > 1024 || !c->v_dim
        || c->v_dim > 1024 || !c->n_vocab || c->n_vocab > 1 << 24 || !c->n_ids
        || c->n_ids > c->n_vocab || !c->ctx || c->ctx > 1 << 28 || c->rope_dim > c->head_dim
        || c->rope_dim % 2 || !(c->eps >= 0) || !(c->eps < 1))
        return vq_fail(e, VQ_EFORMAT, "%s: the configuration makes no sense (%u layers, hidden %u, "
                                      "%u/%u heads of %u)", f->path, c->n_layer, c->hidden,
                       c->n_head, c->n_head_kv, c->head_dim);
    return VQ_OK;
}

vq_status vq_model_bind(vq_model *m, const vq_file *f, const q_kern *kern, vq_err *e)
{
    const vaq_config *c = f->config;
    *m = (vq_model){ .file = f, .cfg = c, .rope = f->rope, .all_float = true };
    vq_status s = check_config(f, c, e);
    if (s) return s;
    m->n_layer = (int)c->n_layer;
    m->hidden = (int)c->hidden;
    m->n_head = (int)c->n_head;
    m->n_kv = (int)c->n_head_kv;
    m->group = m->n_head / m->n_kv;
    m->hd = (int)c->head_dim;
    m->vd = (int)c->v_dim;
    m->inter = (int)c->inter;
    m->n_vocab = (int)c->n_vocab;
    m->n_ids = (int)c->n_ids;
    for (uint32_t i = 0; i < f->n_tensor; i++) m->params += f->tensor[i].params;

    m->layer = vq_calloc((size_t)m->n_layer, sizeof *m->layer);
    if (!m->layer) return vq_fail(e, VQ_ENOMEM, "%s: out of memory", f->path);
    binder b = { m, f, kern, e, VQ_OK };
    matrix(&b, &m->embed, VAQ_EMBED, -1, c->n_vocab, c->hidden);
    if (c->flags & VAQ_F_TIED) m->head = m->embed;
    else matrix(&b, &m->head, VAQ_HEAD, -1, c->n_vocab, c->hidden);
    m->norm_out = vector(&b, VAQ_NORM_OUT, -1, c->hidden);
    for (int l = 0; l < m->n_layer; l++) bind_dense_layer(&b, &m->layer[l], l);
    if (b.s) vq_model_clear(m);
    return b.s;
}

void vq_model_clear(vq_model *m)
{
    vq_free(m->layer);
    m->layer = NULL;
}
