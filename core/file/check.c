/* check.c - proves the content of a container: config ranges and the tensor table.
 *
 * Hashes show that a file is what its writer wrote, not that the writer was sane or friendly.  So
 * every number that later code multiplies, indexes or loops with is bounded here, once, and the
 * bounds are chosen so that the products later code forms (rows * columns, heads * head_dim,
 * positions) fit their types.  After this pass the table holds exactly the tensors the config asks
 * for, each of the right shape, in its own bytes. */
#include "core/file/check.h"

#include "core/base/mem.h"
#include "core/file/file.h"
#include "quant/quant.h"

#include <math.h>
#include <string.h>

/* ---- config ---- */

enum {
    MAX_DIM = 1 << 20,      /* hidden, inter: today's largest is 53,248 */
    MAX_HEADS = 1024,       /* times VAQ_MAX_HEAD_DIM = MAX_DIM */
    MAX_VOCAB = 1 << 24,
    MAX_CTX = 1 << 24,
    MAX_LATENT = 4096       /* kv_lora: times MAX_HEADS, rows of k_up */
};

typedef struct range {
    const char *name;
    size_t at;              /* of a uint32_t in vaq_config */
    uint32_t lo, hi;
} range;

#define FIELD(f) #f, offsetof(vaq_config, f)
static const range ranges[] = {
    { FIELD(n_layer), 1, VAQ_MAX_LAYERS },
    { FIELD(hidden), 1, MAX_DIM },
    { FIELD(n_head), 1, MAX_HEADS },
    { FIELD(n_head_kv), 1, MAX_HEADS },
    { FIELD(head_dim), 2, VAQ_MAX_HEAD_DIM },
    { FIELD(v_dim), 1, VAQ_MAX_HEAD_DIM },
    { FIELD(inter), 1, MAX_DIM },
    { FIELD(n_vocab), 1, MAX_VOCAB },
    { FIELD(n_ids), 1, MAX_VOCAB },
    { FIELD(ctx), 1, MAX_CTX },
    { FIELD(rope_dim), 2, VAQ_MAX_HEAD_DIM },
};
/* Dense models have neither latents nor experts. */
static const range ranges_gqa[] = {
    { FIELD(q_lora), 0, 0 }, { FIELD(kv_lora), 0, 0 }, { FIELD(nope_dim), 0, 0 },
    { FIELD(n_expert), 0, 0 }, { FIELD(n_expert_used), 0, 0 }, { FIELD(n_expert_shared), 0, 0 },
    { FIELD(n_group), 0, 0 }, { FIELD(n_group_used), 0, 0 }, { FIELD(n_dense_layer), 0, 0 },
    { FIELD(moe_inter), 0, 0 }, { FIELD(n_mtp), 0, 0 },
};
static const range ranges_mla[] = {
    { FIELD(n_head_kv), 1, 1 },
    { FIELD(q_lora), 0, MAX_DIM },
    { FIELD(kv_lora), Q_ROWS, MAX_LATENT },
    { FIELD(nope_dim), 1, VAQ_MAX_HEAD_DIM },
    { FIELD(n_expert), 1, VAQ_MAX_EXPERTS },
    { FIELD(n_expert_used), 1, VAQ_MAX_EXPERTS },
    { FIELD(n_expert_shared), 0, VAQ_MAX_EXPERTS },
    { FIELD(n_group), 1, VAQ_MAX_EXPERTS },
    { FIELD(n_group_used), 1, VAQ_MAX_EXPERTS },
    { FIELD(n_dense_layer), 0, VAQ_MAX_LAYERS },
    { FIELD(moe_inter), 1, MAX_DIM },
    { FIELD(n_mtp), 0, VAQ_MAX_MTP },
};
#undef FIELD
#define COUNT(a) (sizeof(a) / sizeof(a)[0])

static vq_status bad_config(vq_err *e, const char *name, const char *what)
{
    return vq_fail(e, VQ_EFORMAT, "%s: its config makes no sense: %s", name, what);
}

static bool positive(double v)
{
    return isfinite(v) && v > 0;
}

static vq_status check_ranges(const vaq_config *c, const range *r, size_t n, const char *name,
                              vq_err *e)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t v;
        memcpy(&v, (const char *)c + r[i].at, sizeof v);
        if (v < r[i].lo || v > r[i].hi) {
            return vq_fail(e, VQ_EFORMAT, "%s: its config makes no sense: %s is %u, not %u to %u",
                           name, r[i].name, v, r[i].lo, r[i].hi);
        }
    }
    return VQ_OK;
}

static vq_status check_gqa(const vaq_config *c, const char *name, vq_err *e)
{
    const uint32_t flags = VAQ_F_TIED | VAQ_F_QK_NORM | VAQ_F_ROPE_PAIRS | VAQ_F_QKV_BIAS;
    const vq_status s = check_ranges(c, ranges_gqa, COUNT(ranges_gqa), name, e);
    if (s) return s;
    if (c->flags & ~flags) return bad_config(e, name, "unknown flags");
    if (c->n_head % c->n_head_kv) return bad_config(e, name, "n_head is no multiple of n_head_kv");
    if (c->v_dim != c->head_dim) return bad_config(e, name, "v_dim differs from head_dim");
    if (c->routed_scale != 0) return bad_config(e, name, "routed_scale without experts");
    return VQ_OK;
}

/* Latent attention and experts.  Heads of k_up and v_up must begin at row groups; the router picks
 * groups by their best two, so a group that competes has two. */
static vq_status check_mla(const vaq_config *c, const char *name, vq_err *e)
{
    const uint32_t mtp = VAQ_F_MTP_EMBED | VAQ_F_MTP_HEAD;
    const uint32_t flags = VAQ_F_TIED | VAQ_F_ROPE_PAIRS | VAQ_F_NORM_TOPK | mtp;
    const vq_status s = check_ranges(c, ranges_mla, COUNT(ranges_mla), name, e);
    if (s) return s;
    if (c->flags & ~flags) return bad_config(e, name, "unknown flags");
    if (!c->n_mtp && (c->flags & mtp)) return bad_config(e, name, "MTP flags without MTP layers");
    if (c->head_dim != c->nope_dim + c->rope_dim) {
        return bad_config(e, name, "head_dim is not nope_dim + rope_dim");
    }
    if (c->kv_lora % Q_ROWS || c->v_dim % Q_ROWS) {
        return bad_config(e, name, "kv_lora or v_dim is no multiple of 16");
    }
    if (c->n_layer + c->n_mtp > VAQ_MAX_LAYERS || c->n_dense_layer > c->n_layer) {
        return bad_config(e, name, "more dense or MTP layers than there can be");
    }
    if (c->n_expert % c->n_group) {
        return bad_config(e, name, "n_group does not divide n_expert");
    }
    const uint32_t of_group = c->n_expert / c->n_group;
    if ((c->n_group > 1 && of_group < 2) || c->n_group_used > c->n_group ||
        c->n_expert_used > c->n_group_used * of_group) {
        return bad_config(e, name, "the router is to choose from more experts than there are");
    }
    if ((uint64_t)c->n_expert_shared * c->moe_inter > MAX_DIM) {
        return bad_config(e, name, "the shared experts are too large");
    }
    if (!positive(c->routed_scale)) {
        return bad_config(e, name, "routed_scale is not a positive number");
    }
    return VQ_OK;
}

vq_status vq_check_config(const vaq_config *c, const double *rope, uint64_t rope_size,
                          const char *name, vq_err *e)
{
    if (c->arch < VAQ_QWEN2 || c->arch > VAQ_DEEPSEEK3) {
        return vq_fail(e, VQ_EFORMAT, "%s: architecture %u is unknown; update vaquita", name,
                       c->arch);
    }
    vq_status s = check_ranges(c, ranges, COUNT(ranges), name, e);
    if (!s) s = c->arch == VAQ_DEEPSEEK3 ? check_mla(c, name, e) : check_gqa(c, name, e);
    if (s) return s;
    if (c->n_ids > c->n_vocab) return bad_config(e, name, "more ids than rows in the vocabulary");
    if (c->rope_dim % 2 || c->rope_dim > c->head_dim) {
        return bad_config(e, name, "rope_dim is odd or larger than head_dim");
    }
    if (rope_size != c->rope_dim / 2 * sizeof(double)) {
        return bad_config(e, name, "the rope table has another size than rope_dim");
    }
    for (uint32_t i = 0; i < c->rope_dim / 2; i++) {
        /* Radians per position: theta^0 = 1 is the fastest.  The bound keeps the range reduction of
         * q_rope_angles exact for every position. */
        if (!(rope[i] >= 0 && rope[i] <= 2)) {
            return bad_config(e, name, "a rope frequency is not in 0..2");
        }
    }
    if (!positive(c->eps) || !positive(c->attn_scale) || !positive(c->rope_mult)) {
        return bad_config(e, name, "eps, attn_scale or rope_mult is not a positive number");
    }
    if (!(isfinite(c->temperature) && c->temperature >= 0 && isfinite(c->top_p) && c->top_p >= 0)) {
        return bad_config(e, name, "temperature or top_p is not a number >= 0");
    }
    const int32_t n_vocab = (int32_t)c->n_vocab;
    if (c->bos < -1 || c->bos >= n_vocab || c->eos < -1 || c->eos >= n_vocab) {
        return bad_config(e, name, "bos or eos lies outside of the vocabulary");
    }
    if (c->template_id > VAQ_TPL_DISTILL_2501) {
        return vq_fail(e, VQ_EFORMAT, "%s: chat template %u is unknown; update vaquita", name,
                       c->template_id);
    }
    for (size_t i = 0; i < sizeof c->pad / sizeof c->pad[0]; i++) {
        if (c->pad[i]) return bad_config(e, name, "bytes that must be zero are not");
    }
    return VQ_OK;
}

/* ---- tensors ---- */

int vq_tensor_cmp(const vaq_tensor *a, const vaq_tensor *b)
{
    if (a->role != b->role) return a->role < b->role ? -1 : 1;
    if (a->layer != b->layer) return a->layer < b->layer ? -1 : 1;
    return (a->expert > b->expert) - (a->expert < b->expert);
}

/* Radix sort by page, 11 bits at a time: a table of 100,000 entries takes about a millisecond. */
uint32_t *vq_tensor_order(const vaq_tensor *t, uint32_t n)
{
    enum { BITS = 11, SLOTS = 1 << BITS };
    uint32_t *a = vq_malloc((size_t)n * sizeof *a), *b = vq_malloc((size_t)n * sizeof *b);
    uint64_t all = 0;
    if (!a || !b) {
        vq_free(a);
        vq_free(b);
        return NULL;
    }
    for (uint32_t i = 0; i < n; i++) {
        a[i] = i;
        all |= t[i].off / VAQ_PAGE;
    }
    for (int shift = 0; shift < 64 && all >> shift; shift += BITS) {
        uint32_t start[SLOTS] = { 0 }, sum = 0;
        for (uint32_t i = 0; i < n; i++) start[t[i].off / VAQ_PAGE >> shift & (SLOTS - 1)]++;
        for (int s = 0; s < SLOTS; s++) {
            uint32_t count = start[s];
            start[s] = sum;
            sum += count;
        }
        for (uint32_t i = 0; i < n; i++) {
            b[start[t[a[i]].off / VAQ_PAGE >> shift & (SLOTS - 1)]++] = a[i];
        }
        uint32_t *swap = a;
        a = b;
        b = swap;
    }
    vq_free(b);
    return a;
}

static vq_status bad_tensor(vq_err *e, const char *name, const vaq_tensor *t, const char *what)
{
    char tensor[96];
    vq_tensor_name(tensor, t);
    return vq_fail(e, VQ_EFORMAT, "%s: tensor %s: %s", name, tensor, what);
}

/* Role, layer and expert: is there such a tensor in this model? */
static vq_status check_place(const vaq_config *c, const vaq_tensor *t, const vq_role_row *r,
                             const char *name, vq_err *e)
{
    uint32_t first, end;
    if (!r) {
        return vq_fail(e, VQ_EFORMAT, "%s: a tensor has the unknown role %u; update vaquita", name,
                       (unsigned)t->role);
    }
    if (!vq_role_used(r, c)) return bad_tensor(e, name, t, "does not belong to this model");
    vq_role_layers(r, c, &first, &end);
    if (t->layer < first || t->layer >= end) {
        return bad_tensor(e, name, t, "belongs to a layer that does not exist or lacks it");
    }
    if (r->scope == VAQ_EXPERT ? t->expert < 0 || (uint32_t)t->expert >= c->n_expert
                               : t->expert != -1) {
        return bad_tensor(e, name, t, "belongs to an expert that does not exist");
    }
    return VQ_OK;
}

/* Everything about one entry that needs no other entry. */
static vq_status check_tensor(const vaq_config *c, const vaq_tensor *t, uint64_t body_off,
                              uint64_t body_size, const char *name, vq_err *e)
{
    const vq_role_row *r = vq_role_find(t->role);
    const vq_status s = check_place(c, t, r, name, e);
    if (s) return s;
    if (t->layout != r->layout) return bad_tensor(e, name, t, "has the wrong layout");

    const uint32_t rows = vq_role_rows(r, c), cols = vq_dim_of(c, r->cols);
    char tensor[96];
    if (t->rows != rows || t->cols != cols) {
        vq_tensor_name(tensor, t);
        return vq_fail(e, VQ_EFORMAT, "%s: tensor %s: is %u x %u, the config asks for %u x %u",
                       name, tensor, t->rows, t->cols, rows, cols);
    }
    const q_typeinfo *type = q_type_info(t->type);
    if (!type || !type->known) {
        vq_tensor_name(tensor, t);
        return vq_fail(e, VQ_EFORMAT, "%s: tensor %s: type %u (%s) unknown here; update vaquita",
                       name, tensor, (unsigned)t->type, type ? type->name : "new");
    }
    uint64_t size;
    if (t->layout == VAQ_VECTOR) {
        if (t->type != Q_F32) return bad_tensor(e, name, t, "is a vector of another type than f32");
        size = (uint64_t)cols * sizeof(float);
    } else {
        size = q_matrix_bytes(t->type, rows, (int)cols);
    }
    if (t->role == VAQ_ROUTER && t->type != Q_F32) {
        return bad_tensor(e, name, t, "is a router of another type than f32");
    }
    if (t->size != size) {
        vq_tensor_name(tensor, t);
        return vq_fail(e, VQ_EFORMAT, "%s: tensor %s: has %llu bytes, its shape and type take %llu",
                       name, tensor, (unsigned long long)t->size, (unsigned long long)size);
    }
    if (t->off % VAQ_PAGE) return bad_tensor(e, name, t, "is not aligned to 4096");
    const uint64_t at = t->off - body_off;
    if (t->off < body_off || at > body_size || size > body_size - at) {
        return bad_tensor(e, name, t, "lies outside of the file's body");
    }
    if (t->params > (uint64_t)rows * cols) {
        return bad_tensor(e, name, t, "has more weights than places");
    }
    if (!(isfinite(t->rel_rmse) && t->rel_rmse >= 0)) {
        return bad_tensor(e, name, t, "has an error figure that is not a number");
    }
    if (t->pad[0] | t->pad[1]) return bad_tensor(e, name, t, "has bytes set that must be zero");
    return VQ_OK;
}

/* The table is sorted and every entry belongs to the model, so counting would do; comparing each
 * with what is expected lets the message name what is missing. */
static vq_status check_complete(const vaq_config *c, const vaq_tensor *t, uint32_t n,
                                const char *name, vq_err *e)
{
    uint32_t i = 0;
    const vq_role_row *r;
    for (int row = 0; (r = vq_role_at(row)) != NULL; row++) {
        if (!vq_role_used(r, c)) continue;
        uint32_t layer, end;
        const int32_t experts = r->scope == VAQ_EXPERT ? (int32_t)c->n_expert : 0;
        vq_role_layers(r, c, &layer, &end);
        for (; layer < end; layer++) {
            for (int32_t x = experts ? 0 : -1; x < experts; x++, i++) {
                vaq_tensor want = { .role = r->role, .layer = (uint16_t)layer, .expert = x };
                if (i >= n || vq_tensor_cmp(&t[i], &want) != 0) {
                    return bad_tensor(e, name, &want, "is missing");
                }
            }
        }
    }
    return VQ_OK;
}

vq_status vq_check_tensors(const vaq_config *c, const vaq_tensor *t, uint32_t n, uint64_t body_off,
                           uint64_t body_size, const char *name, vq_err *e)
{
    for (uint32_t i = 0; i < n; i++) {
        vq_status s = check_tensor(c, &t[i], body_off, body_size, name, e);
        if (s) return s;
        if (i && vq_tensor_cmp(&t[i - 1], &t[i]) >= 0) {
            return bad_tensor(e, name, &t[i], "is out of order or twice in the table");
        }
    }
    vq_status s = check_complete(c, t, n, name, e);
    if (s) return s;

    uint32_t *order = vq_tensor_order(t, n);
    if (!order) return vq_fail(e, VQ_ENOMEM, "%s: out of memory", name);
    for (uint32_t i = 1; !s && i < n; i++) {
        const vaq_tensor *a = &t[order[i - 1]], *b = &t[order[i]];
        if (b->off - a->off < a->size) s = bad_tensor(e, name, b, "overlaps another");
    }
    vq_free(order);
    return s;
}
