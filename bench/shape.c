/* shape.c - containers of random weights in memory (shape.h).
 *
 * The bytes are valid for their type (no code or sub-scale of -128) and the row scales are such
 * that activations stay near 1, so the kernels do what they do with real weights.  One random group
 * is made per matrix and copied: the memory traffic is what counts, not the values. */
#include "bench/shape.h"

#include "core/base/mem.h"
#include "core/file/shapes.h"

#include <math.h>
#include <string.h>

typedef struct maker {
    vaq_tensor *t; /* (n) */
    size_t n, cap;
    int type;
    bool oom;
} maker;

static void add(maker *m, vaq_role role, int layer, uint32_t rows, uint32_t cols, int layout)
{
    if (vq_grow(&m->t, &m->cap, m->n + 1, sizeof *m->t)) {
        m->oom = true;
        return;
    }
    vaq_tensor *t = &m->t[m->n++];
    memset(t, 0, sizeof *t);
    t->rows = rows;
    t->cols = cols;
    t->role = (uint16_t)role;
    t->type = (uint16_t)(layout ? m->type : Q_F32);
    t->layout = (uint16_t)layout;
    t->layer = layer < 0 ? 0xffff : (uint16_t)layer;
    t->expert = -1;
    t->params = (uint64_t)rows * cols;
}

static void list_tensors(maker *m, const vaq_config *c)
{
    const uint32_t q = c->n_head * c->head_dim, kv = c->n_head_kv * c->head_dim;
    const uint32_t inter16 = (c->inter + 15) / 16 * 16;
    add(m, VAQ_EMBED, -1, c->n_vocab, c->hidden, 1);
    for (int l = 0; l < (int)c->n_layer; l++) {
        add(m, VAQ_NORM_ATTN, l, 1, c->hidden, 0);
        add(m, VAQ_Q, l, q, c->hidden, 1);
        add(m, VAQ_K, l, kv, c->hidden, 1);
        add(m, VAQ_V, l, kv, c->hidden, 1);
        if (c->flags & VAQ_F_QKV_BIAS) {
            add(m, VAQ_Q_BIAS, l, 1, q, 0);
            add(m, VAQ_K_BIAS, l, 1, kv, 0);
            add(m, VAQ_V_BIAS, l, 1, kv, 0);
        }
        if (c->flags & VAQ_F_QK_NORM) {
            add(m, VAQ_Q_NORM, l, 1, c->head_dim, 0);
            add(m, VAQ_K_NORM, l, 1, c->head_dim, 0);
        }
        add(m, VAQ_O, l, c->hidden, q, 1);
        add(m, VAQ_NORM_FFN, l, 1, c->hidden, 0);
        add(m, VAQ_GATE_UP, l, 2 * inter16, c->hidden, 2);
        add(m, VAQ_DOWN, l, c->hidden, c->inter, 1);
    }
    add(m, VAQ_NORM_OUT, -1, 1, c->hidden, 0);
    add(m, VAQ_HEAD, -1, c->n_vocab, c->hidden, 1);
}

static uint32_t rnd(uint64_t *s)
{
    *s = *s * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(*s >> 33);
}

/* One row group whose products with activations of size 1 are of size 1. */
static void make_group(uint8_t *g, int type, int k, uint64_t *seed)
{
    const q_typeinfo *ti = q_type_info(type);
    const size_t n = q_group_bytes(type, k);
    const double per_row = 1 / sqrt((double)k);
    if (ti->is_float) {
        for (size_t i = 0; i < n / (ti->tile_bytes == 4096 ? 4 : 2); i++) {
            const float v = (float)(per_row * ((double)rnd(seed) / (1u << 30) - 1));
            if (type == Q_F32)
                memcpy(g + 4 * i, &v, 4);
            else {
                const uint16_t h = type == Q_F16 ? q_f32_to_f16(v) : q_f32_to_bf16(v);
                memcpy(g + 2 * i, &h, 2);
            }
        }
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const uint8_t b = (uint8_t)(rnd(seed) >> 8);
        g[i] = b == 0x80 ? 0x81
                         : b; /* sub-scales and L8 codes stop at -127; harmless in other planes */
    }
    const double code = type == Q_L8 ? 73 : 17; /* root mean square of random codes, about */
    for (int r = 0; r < Q_ROWS; r++) {
        const float v = (float)(per_row / (73 * code));
        memcpy(g + 4 * r, &v, 4);
    }
}

static vq_status fill(uint8_t *p, const vaq_tensor *t, uint64_t *seed, vq_err *e)
{
    if (t->layout == 0) {
        const float v = t->role == VAQ_NORM_ATTN || t->role == VAQ_NORM_FFN ||
                                t->role == VAQ_NORM_OUT || t->role == VAQ_Q_NORM ||
                                t->role == VAQ_K_NORM
                            ? 1.0f
                            : 0.01f;
        for (uint32_t i = 0; i < t->cols; i++) memcpy(p + 4 * (size_t)i, &v, 4);
        return VQ_OK;
    }
    const size_t group = q_group_bytes(t->type, (int)t->cols);
    uint8_t *g = vq_aligned(64, group);
    if (!g) return vq_fail(e, VQ_ENOMEM, "bench: out of memory");
    make_group(g, t->type, (int)t->cols, seed);
    for (uint64_t i = 0; i < t->size / group; i++) memcpy(p + i * group, g, group);
    vq_aligned_free(g);
    return VQ_OK;
}

vq_status bn_shape_open(vq_file **out, void **mem, size_t *bytes, const char *name,
                        const char *type, const q_kern *kern, vq_err *e)
{
    *out = NULL;
    *mem = NULL;
    *bytes = 0;
    vaq_config config;
    double rope[VAQ_MAX_HEAD_DIM / 2];
    if (!vq_shape_config(&config, rope, name) || config.arch == VAQ_DEEPSEEK3)
        return vq_fail(e, VQ_EUSAGE,
                       "--shape %s: unknown; one of qwen-1.5b qwen-7b qwen-14b qwen-32b llama-8b "
                       "llama-70b qwen3-8b",
                       name);
    const q_typeinfo *ti = q_type_by_name(type ? type : "n4");
    if (!ti || !ti->known) return vq_fail(e, VQ_EUSAGE, "--type %s: no such weight type", type);

    maker m = { .type = ti->id };
    list_tensors(&m, &config);
    vq_buf front = { 0 };
    uint64_t total = 0;
    vq_status st = m.oom ? vq_fail(e, VQ_ENOMEM, "bench: out of memory") : VQ_OK;
    if (!st) {
        const vq_writer_spec spec = { .path = name,
                                      .config = &config,
                                      .rope = rope,
                                      .tensor = m.t,
                                      .n_tensor = m.n,
                                      .kern = kern };
        st = vq_front_make(&front, &total, &spec, e);
    }
    const uint64_t room = vq_mem_available();
    if (!st && total > room / 10 * 9)
        st = vq_fail(
            e, VQ_ENOFIT,
            "--shape %s --type %s needs %.1f GB of memory and %.1f GB are available: take a "
            "smaller type or shape",
            name, ti->name, (double)total / 1e9, (double)room / 1e9);
    if (!st && !(*mem = vq_pages_alloc((size_t)total)))
        st = vq_fail(e, VQ_ENOMEM, "bench: out of memory");
    if (!st) {
        *bytes = (size_t)total;
        memcpy(*mem, front.p, front.n);
        uint64_t seed = 1;
        for (size_t i = 0; !st && i < m.n; i++)
            st = fill((uint8_t *)*mem + m.t[i].off, &m.t[i], &seed, e);
    }
    if (!st) st = vq_file_open_mem(out, *mem, *bytes, name, kern, e);
    if (st) {
        vq_pages_free(*mem, *bytes);
        *mem = NULL;
        *bytes = 0;
    }
    vq_buf_clear(&front);
    vq_free(m.t);
    return st;
}
