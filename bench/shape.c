/* shape.c - containers of random weights in memory (shape.h).
 *
 * The bytes are valid for their type (no code or sub-scale of -128) and the row scales are such
 * that activations stay near 1, so the kernels do what they do with real weights.  One random group
 * is made per matrix and copied: the memory traffic is what counts, not the values; only routers
 * differ from row to row, so that tokens choose different experts. */
#include "bench/shape.h"

#include "core/base/mem.h"
#include "core/file/check.h"
#include "core/file/shapes.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct maker {
    vaq_tensor *t; /* (n) */
    size_t n, cap;
    int type;
    bool oom;
} maker;

/* By layer, what belongs to none around them; the two matrices of an expert stay together. */
static int by_use(const void *a, const void *b)
{
    const vaq_tensor *x = a, *y = b;
    const int lx = x->role == VAQ_EMBED ? -1 : x->layer, ly = y->role == VAQ_EMBED ? -1 : y->layer;
    if (lx != ly) return lx - ly;
    if (x->expert != y->expert) return x->expert - y->expert;
    return x->role - y->role;
}

static void list_tensors(maker *m, const vaq_config *c)
{
    const vq_role_row *r;
    for (int i = 0; !m->oom && (r = vq_role_at(i)) != NULL; i++) {
        if (!vq_role_used(r, c)) continue;
        const uint32_t times = r->scope == VAQ_EXPERT ? c->n_expert : 1;
        const int type = r->layout == VAQ_VECTOR || r->role == VAQ_ROUTER ? Q_F32 : m->type;
        uint32_t layer, end;
        vq_role_layers(r, c, &layer, &end);
        for (; layer < end; layer++) {
            if (vq_grow(&m->t, &m->cap, m->n + times, sizeof *m->t)) {
                m->oom = true;
                break;
            }
            vaq_tensor t = { .role = r->role, .layer = (uint16_t)layer, .layout = r->layout,
                             .type = (uint16_t)type, .rows = vq_role_rows(r, c),
                             .cols = vq_dim_of(c, r->cols), .expert = -1 };
            t.params = (uint64_t)t.rows * t.cols;
            for (uint32_t e = 0; e < times; e++) {
                if (r->scope == VAQ_EXPERT) t.expert = (int32_t)e;
                m->t[m->n++] = t;
            }
        }
    }
    if (!m->oom) qsort(m->t, m->n, sizeof *m->t, by_use);
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
        const bool bias = t->role == VAQ_Q_BIAS || t->role == VAQ_K_BIAS ||
                          t->role == VAQ_V_BIAS || t->role == VAQ_ROUTER_BIAS;
        const float v = bias ? 0.01f : 1.0f;
        for (uint32_t i = 0; i < t->cols; i++) memcpy(p + 4 * (size_t)i, &v, 4);
        return VQ_OK;
    }
    const size_t group = q_group_bytes(t->type, (int)t->cols);
    uint8_t *g = vq_aligned(64, group);
    if (!g) return vq_fail(e, VQ_ENOMEM, "out of memory");
    make_group(g, t->type, (int)t->cols, seed);
    for (uint64_t i = 0; i < t->size / group; i++) {
        if (t->role == VAQ_ROUTER && i > 0) make_group(g, t->type, (int)t->cols, seed);
        memcpy(p + i * group, g, group);
    }
    vq_aligned_free(g);
    return VQ_OK;
}

/* "r1" or "r1:5", the first 5 layers of it.  Draft layers take no part in plain decoding. */
static vq_status shape_of(vaq_config *c, double *rope, const char *name, vq_err *e)
{
    const size_t len = strcspn(name, ":");
    char base[32];
    snprintf(base, sizeof base, "%.*s", (int)(len < 31 ? len : 31), name);
    if (!vq_shape_config(c, rope, base))
        return vq_fail(e, VQ_EUSAGE, "--shape %s: unknown; one of %s, or NAME:LAYERS", name,
                       VQ_SHAPE_NAMES);
    if (name[len]) {
        uint64_t layers;
        if (!vq_parse_u64(name + len + 1, &layers) || layers < 1 || layers > c->n_layer)
            return vq_fail(e, VQ_EUSAGE, "--shape %s: expected 1 to %u layers behind the colon",
                           name, c->n_layer);
        c->n_layer = (uint32_t)layers;
        if (c->n_dense_layer > c->n_layer) c->n_dense_layer = c->n_layer;
    }
    c->n_mtp = 0;
    c->flags &= ~(uint32_t)(VAQ_F_MTP_EMBED | VAQ_F_MTP_HEAD);
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
    vq_status st = shape_of(&config, rope, name, e);
    if (st) return st;
    const q_typeinfo *ti = q_type_by_name(type ? type : "n4");
    if (!ti || !ti->known) return vq_fail(e, VQ_EUSAGE, "--type %s: no such weight type", type);

    maker m = { .type = ti->id };
    list_tensors(&m, &config);
    vq_buf front = { 0 };
    uint64_t total = 0;
    st = m.oom ? vq_fail(e, VQ_ENOMEM, "out of memory") : VQ_OK;
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
    if (!st && (total > room / 10 * 9 || !(*mem = vq_pages_alloc((size_t)total))))
        st = vq_fail(
            e, VQ_ENOFIT,
            "--shape %s --type %s needs %.1f GB of memory and %.1f GB are available: take a "
            "smaller type or shape, or fewer layers (NAME:LAYERS)",
            name, ti->name, (double)total / 1e9, (double)room / 1e9);
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
