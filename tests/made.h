/* made.h - small dense models of random weights, made in memory: any shape, any types, no
 * checkpoint.
 *
 * Every number comes from one integer generator and exact arithmetic, so a made model has the same
 * bytes on every machine and may have golden hashes. */
#ifndef TESTS_MADE_H
#define TESTS_MADE_H

#include "core/base/mem.h"
#include "core/file/file.h"

#include <stdio.h>
#include <string.h>

typedef struct made_spec {
    uint32_t arch, n_layer, hidden, n_head, n_head_kv, head_dim, inter, n_vocab, n_ids, ctx, flags;
    int type;           /* of all matrices */
    int v_type;         /* of v; 0 = as the others (so F32 cannot be asked for alone) */
    float k_bias;       /* layer 0: value of two dims of each key head */
    int bad_token;      /* > 0: this row of the embedding is huge, its squares overflow */
    uint64_t seed;
} made_spec;

typedef struct made {
    vq_file *file;      /* an engine opened on it owns it: set to NULL then */
    void *mem;
    size_t bytes;
} made;

static uint32_t made_rnd(uint64_t *s)
{
    *s = *s * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(*s >> 33);
}

static float made_uniform(uint64_t *s, float scale) /* exact: 24 bits times a power of two */
{
    return ((float)(made_rnd(s) >> 7) * 0x1p-23f - 1.0f) * scale;
}

static void made_add(vaq_tensor *t, size_t *n, vaq_role role, int layer, uint32_t rows,
                     uint32_t cols, int type, int layout)
{
    t[*n] = (vaq_tensor){ .rows = rows, .cols = cols, .role = (uint16_t)role,
                          .type = (uint16_t)(layout ? type : Q_F32), .layout = (uint16_t)layout,
                          .layer = layer < 0 ? (uint16_t)0xffff : (uint16_t)layer, .expert = -1,
                          .params = (uint64_t)rows * cols };
    (*n)++;
}

static size_t made_tensors(vaq_tensor *t, const made_spec *s)
{
    const uint32_t q = s->n_head * s->head_dim, kv = s->n_head_kv * s->head_dim;
    size_t n = 0;
    made_add(t, &n, VAQ_EMBED, -1, s->n_vocab, s->hidden, s->type, 1);
    for (int l = 0; l < (int)s->n_layer; l++) {
        made_add(t, &n, VAQ_NORM_ATTN, l, 1, s->hidden, 0, 0);
        made_add(t, &n, VAQ_Q, l, q, s->hidden, s->type, 1);
        made_add(t, &n, VAQ_K, l, kv, s->hidden, s->type, 1);
        made_add(t, &n, VAQ_V, l, kv, s->hidden, s->v_type ? s->v_type : s->type, 1);
        if (s->flags & VAQ_F_QKV_BIAS) {
            made_add(t, &n, VAQ_Q_BIAS, l, 1, q, 0, 0);
            made_add(t, &n, VAQ_K_BIAS, l, 1, kv, 0, 0);
            made_add(t, &n, VAQ_V_BIAS, l, 1, kv, 0, 0);
        }
        if (s->flags & VAQ_F_QK_NORM) {
            made_add(t, &n, VAQ_Q_NORM, l, 1, s->head_dim, 0, 0);
            made_add(t, &n, VAQ_K_NORM, l, 1, s->head_dim, 0, 0);
        }
        made_add(t, &n, VAQ_O, l, s->hidden, q, s->type, 1);
        made_add(t, &n, VAQ_NORM_FFN, l, 1, s->hidden, 0, 0);
        made_add(t, &n, VAQ_GATE_UP, l, 2 * ((s->inter + 15) / 16 * 16), s->hidden, s->type, 2);
        made_add(t, &n, VAQ_DOWN, l, s->hidden, s->inter, s->type, 1);
    }
    made_add(t, &n, VAQ_NORM_OUT, -1, 1, s->hidden, 0, 0);
    if (!(s->flags & VAQ_F_TIED)) made_add(t, &n, VAQ_HEAD, -1, s->n_vocab, s->hidden, s->type, 1);
    return n;
}

static void made_vector(float *p, const vaq_tensor *t, const made_spec *s, uint64_t *seed)
{
    const bool norm = t->role == VAQ_NORM_ATTN || t->role == VAQ_NORM_FFN || t->role == VAQ_NORM_OUT
                   || t->role == VAQ_Q_NORM || t->role == VAQ_K_NORM;
    for (uint32_t i = 0; i < t->cols; i++) p[i] = (norm ? 1.0f : 0.0f) + made_uniform(seed, 0.25f);
    if (t->role == VAQ_K_BIAS && t->layer == 0 && s->k_bias != 0)
        for (uint32_t h = 0; h < s->n_head_kv; h++) {
            p[h * s->head_dim + s->head_dim / 2 - 1] =
                s->k_bias; /* a pair of slow rotation, as in Qwen2.5 */
            p[h * s->head_dim + s->head_dim - 1] = -s->k_bias;
        }
}

/* Random rows, group by group; the groups of gate and up alternate and share their missing rows. */
static int made_matrix(uint8_t *p, const vaq_tensor *t, const made_spec *s, uint64_t *seed)
{
    const size_t group = q_group_bytes(t->type, (int)t->cols);
    float scale = 1.0f, *rows = vq_calloc((size_t)Q_ROWS * t->cols, sizeof *rows);
    q_kern kern;
    const uint32_t per = t->layout == 2 ? s->inter : t->rows;
    for (uint32_t k = 1; k < t->cols; k *= 4) scale *= 0.5f;
    if (t->role == VAQ_EMBED) scale = 1.0f;
    int bad = !rows || !q_kern_make(&kern, NULL);
    for (uint64_t g = 0; !bad && g < t->size / group; g++) {
        const uint32_t r0 = (uint32_t)(t->layout == 2 ? g / 2 : g) * Q_ROWS;
        const int n = per - r0 < Q_ROWS ? (int)(per - r0) : Q_ROWS;
        for (size_t i = 0; i < (size_t)n * t->cols; i++) rows[i] = made_uniform(seed, 2 * scale);
        if (t->role == VAQ_EMBED && s->bad_token > 0
            && (uint32_t)s->bad_token / Q_ROWS * Q_ROWS == r0)
            for (uint32_t k = 0; k < t->cols; k++)
                rows[(uint32_t)s->bad_token % Q_ROWS * t->cols + k] = 1e30f;
        bad = q_encode_group(&kern, t->type, p + g * group, rows, t->cols, n, (int)t->cols, NULL,
                             NULL)
              != 0;
    }
    vq_free(rows);
    return bad;
}

static int made_open(made *out, const made_spec *s)
{
    vaq_config c = { .arch = s->arch,
                     .flags = s->flags,
                     .n_layer = s->n_layer,
                     .hidden = s->hidden,
                     .n_head = s->n_head,
                     .n_head_kv = s->n_head_kv,
                     .head_dim = s->head_dim,
                     .v_dim = s->head_dim,
                     .inter = s->inter,
                     .n_vocab = s->n_vocab,
                     .n_ids = s->n_ids,
                     .ctx = s->ctx,
                     .eps = 1e-6f,
                     .rope_dim = s->head_dim,
                     .rope_mult = 1,
                     .bos = 0,
                     .eos = 1,
                     .temperature = 0.6f,
                     .top_p = 0.95f };
    c.attn_scale = 1.0f; /* the power of two next to 1 / sqrt(head_dim) */
    for (uint32_t d = 1; d < s->head_dim; d *= 4) c.attn_scale *= 0.5f;
    double rope[512];
    for (uint32_t i = 0; i < s->head_dim / 2; i++)
        rope[i] = 1.0 / (1.0 + i * i); /* falling, exactly rounded */
    const size_t most = 3 + 16 * (size_t)s->n_layer;
    vaq_tensor *t = vq_calloc(most, sizeof *t);
    *out = (made){ 0 };
    if (!t) return 1;
    vq_buf front = { 0 };
    uint64_t total = 0, seed = s->seed;
    vq_err e = { 0 };
    const vq_writer_spec spec = { .path = "made", .config = &c, .rope = rope, .tensor = t,
                                  .n_tensor = made_tensors(t, s) };
    int bad = vq_front_make(&front, &total, &spec, &e) != VQ_OK;
    out->bytes = (size_t)total;
    if (!bad) bad = !(out->mem = vq_pages_alloc(out->bytes));
    if (!bad) memcpy(out->mem, front.p, front.n);
    for (size_t i = 0; !bad && i < spec.n_tensor; i++) {
        uint8_t *p = (uint8_t *)out->mem + t[i].off;
        if (t[i].layout) bad = made_matrix(p, &t[i], s, &seed);
        else made_vector((float *)(void *)p, &t[i], s, &seed);
    }
    if (!bad) bad = vq_file_open_mem(&out->file, out->mem, out->bytes, "made", NULL, &e) != VQ_OK;
    if (bad) printf("made model: %s\n", e.msg);
    vq_buf_clear(&front);
    vq_free(t);
    return bad;
}

static void made_close(made *m) /* after the engine */
{
    vq_file_close(m->file);
    vq_pages_free(m->mem, m->bytes);
    *m = (made){ 0 };
}

#endif
