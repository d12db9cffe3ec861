/* plan.c - maps a checkpoint onto the container before a single weight is read.
 *
 * Everything that can be wrong with names, shapes and dtypes is found here, in seconds and with the
 * tensor's name, not after an hour of encoding.  The order of the list is the order of the file:
 * the order in which a token meets the tensors (FORMAT.md). */
#include "convert/plan.h"

#include "convert/gguf_model.h"
#include "core/base/mem.h"
#include "core/file/check.h"

#include <stdio.h>
#include <string.h>

typedef struct builder {
    cv_plan *p;
    const cv_ckpt *ckpt;
    vaq_config *c;
    const cv_plan_opts *o;
    bool *used;             /* (ckpt->n_tensor) */
    size_t cap;             /* of p's arrays */
    vq_err *e;
} builder;

static vq_status no_memory(const builder *b)
{
    return vq_fail(b->e, VQ_ENOMEM, "%s: out of memory", b->ckpt->dir);
}

/* ---- one tensor of the checkpoint ---- */

/* GGUF counts dimensions the other way round, and tools print them so. */
static void shape_text(char out[120], const builder *b, int n_dim, const uint64_t *dim)
{
    const bool ne = b->ckpt->is_gguf;
    size_t n = (size_t)snprintf(out, 120, "%s", n_dim ? ne ? "ne [" : "" : "a single number");
    for (int i = 0; i < n_dim && i < 4; i++) {
        n += (size_t)snprintf(out + n, 120 - n, "%s%llu", i ? ne ? ", " : " x " : "",
                              (unsigned long long)dim[ne ? n_dim - 1 - i : i]);
    }
    strcpy(out + n, n_dim > 4 ? " x ..." : n_dim && ne ? "]" : "");
}

/* How a tensor must look. */
typedef struct shape {
    uint64_t stack;         /* so many matrices behind each other; 0: it is one alone */
    uint64_t rows, cols;    /* rows 0: a vector */
} shape;

static vq_status check_shape(const builder *b, const cv_tensor *t, const shape *s, const char *who)
{
    const uint64_t all = s->stack ? s->stack * s->rows : s->rows;
    /* Stacked matrices are also written as one, and one alone always is. */
    const bool ok = t->n_dim == 1   ? !s->rows && t->dim[0] == s->cols
                    : t->n_dim == 2 ? s->rows && t->dim[0] == all && t->dim[1] == s->cols
                    : t->n_dim == 3 && s->stack && t->dim[0] == s->stack && t->dim[1] == s->rows &&
                          t->dim[2] == s->cols;
    if (ok) return VQ_OK;
    char is[120], want[120];
    const uint64_t dim[] = { s->stack, s->rows, s->cols };
    const int n_dim = !s->rows ? 1 : s->stack > 1 ? 3 : 2;
    shape_text(is, b, t->n_dim, t->dim);
    shape_text(want, b, n_dim, dim + 3 - n_dim);
    return vq_fail(b->e, VQ_EFORMAT, "%s: tensor %.*s is %s, %s %s", t->file->path, (int)t->own.n,
                   t->own.p, is, who, want);
}

/* Looks a tensor up and notes that it has its place. */
static const cv_tensor *use(builder *b, const char *canonical)
{
    const cv_tensor *t = cv_ckpt_find(b->ckpt, canonical);
    if (t) b->used[t - b->ckpt->tensor] = true;
    return t;
}

/* FP8 weights are nothing without their scales: guessing them once shipped a model whose weights
 * were 3361 times too large. */
static vq_status find_scale(builder *b, cv_part *p)
{
    const cv_tensor *t = p->t;
    const vq_str own = cv_canonical(t->name);
    const shape s = { .rows = (t->dim[0] + CV_BLOCK - 1) / CV_BLOCK,
                      .cols = (t->dim[1] + CV_BLOCK - 1) / CV_BLOCK };
    char name[128];
    snprintf(name, sizeof name, "%.*s_scale_inv", own.n > 100 ? 100 : (int)own.n, own.p);
    p->scale = use(b, name);
    if (!p->scale) {
        return vq_fail(b->e, VQ_EFORMAT, "%s: tensor %.*s is F8_E4M3 and its scales, "
                       "%.*s_scale_inv, are in no file; download the checkpoint again, or take a "
                       "BF16 one",
                       t->file->path, (int)t->name.n, t->name.p, (int)t->name.n, t->name.p);
    }
    if (p->scale->dtype != CV_F32) {
        return vq_fail(b->e, VQ_EFORMAT, "%s: tensor %.*s is %s; scales of FP8 weights must be F32",
                       p->scale->file->path, (int)p->scale->name.n, p->scale->name.p,
                       p->scale->dtype_name);
    }
    return check_shape(b, p->scale, &s, "one scale per 128 x 128 weights is");
}

static vq_status missing(const builder *b, const vaq_tensor *t, const char *name)
{
    vq_buf theirs = { 0 };
    vq_status st;
    if (b->ckpt->is_gguf && cv_gguf_name(&theirs, vq_str_c(name)) && !theirs.oom) {
        st = vq_fail(b->e, VQ_EFORMAT, "%s: tensor %s is missing, which a model with these keys "
                     "has; download it again, of a split one all parts",
                     b->ckpt->dir, theirs.p);
    } else {
        st = vq_fail(b->e, VQ_EFORMAT, "%s: tensor %s%s is missing%s", b->ckpt->dir,
                     t->role == VAQ_HEAD ? "" : "model.", name,
                     b->ckpt->n_shard == 1 ? "; if this is one of several shards, give the "
                                             "folder with all of them and their index"
                                           : "");
    }
    vq_buf_clear(&theirs);
    return st;
}

static vq_status find_part(builder *b, cv_part *p, const vaq_tensor *t, const char *name,
                           const shape *s)
{
    p->t = use(b, name);
    if (!p->t && t->role == VAQ_EMBED) p->t = use(b, "lm_head.weight"); /* see tie() */
    if (!p->t) return missing(b, t, name);
    if (p->t->dtype == CV_OTHER || (p->t->dtype == CV_F8_E4M3 && !s->rows)) {
        return vq_fail(b->e, VQ_EFORMAT, "%s: tensor %.*s is %s; only BF16, F16, F32 and, of "
                       "matrices, F8_E4M3 convert, and of GGUF's types Q4_0 to Q8_0, Q2_K to Q6_K, "
                       "IQ4_NL, IQ4_XS and MXFP4",
                       p->t->file->path, (int)p->t->own.n, p->t->own.p, p->t->dtype_name);
    }
    const vq_status st = check_shape(b, p->t, s, b->ckpt->is_gguf ? "its keys ask for"
                                                                  : "config.json asks for");
    return !st && p->t->dtype == CV_F8_E4M3 ? find_scale(b, p) : st;
}

/* ---- the list ---- */

/* k_up and v_up: which rows of every head of kv_b_proj they take, and its whole shape. */
static shape by_heads(cv_part *p, const vaq_config *c, bool k)
{
    p->stride = c->nope_dim + c->v_dim;
    p->first = k ? 0 : c->nope_dim;
    p->head_rows = k ? c->kv_lora : c->v_dim;
    p->turned = k ? c->nope_dim : 0;
    return (shape){ .rows = (uint64_t)c->n_head * p->stride, .cols = c->kv_lora };
}

static bool is_up(const vaq_tensor *t) { return t->role == VAQ_K_UP || t->role == VAQ_V_UP; }

/* Of k_up or v_up: newer GGUF files have it for itself, some of them beside kv_b_proj: then the one
 * that was rounded less counts. */
static void choose_up(builder *b, const vaq_tensor *t, char name[96])
{
    char full[96];
    vq_tensor_name(full, t);
    const char *own = cv_canonical(vq_str_c(full)).p;
    const cv_tensor *alone = use(b, own), *both = use(b, name);
    if (!both || (alone && cv_row_bytes(alone->dtype, CV_BLOCK_MAX) >
                               cv_row_bytes(both->dtype, CV_BLOCK_MAX))) {
        strcpy(name, own);
    }
}

/* Where a tensor is in this checkpoint: GGUF has all experts of a layer in one. */
static int names_of(builder *b, const vaq_tensor *t, char name[2][96])
{
    const int n = cv_source_names(t, name);
    for (int i = 0; b->ckpt->is_gguf && i < n; i++) {
        if (is_up(t)) choose_up(b, t, name[i]);
        cv_drop_expert(name[i]);
    }
    return n;
}

/* What the tensor of this name must look like, and which of its rows are ours. */
static shape place_part(const builder *b, cv_part *p, const vaq_tensor *t, const char *name)
{
    const vaq_config *c = b->c;
    const bool vector = t->layout == VAQ_VECTOR;
    shape s = { .rows = vector ? 0 : p->rows, .cols = t->cols };
    if (is_up(t) && strstr(name, ".kv_b_proj.")) return by_heads(p, c, t->role == VAQ_K_UP);
    if (is_up(t)) {
        s.stack = c->n_head;
        s.rows /= c->n_head;
    } else if (t->expert >= 0 && b->ckpt->is_gguf) {
        s.stack = c->n_expert;
        p->first = (uint32_t)t->expert * p->rows;
    }
    return s;
}

/* Of a pair whose halves came in different types, what the finer one asks for. */
static int type_of(const builder *b, const cv_source *src, const vaq_tensor *t)
{
    int type = -1;
    for (int i = 0; i < src->n; i++) {
        const int own = cv_nearest_type(src->part[i].t->dtype);
        if (own < 0 || t->role == VAQ_ROUTER) continue;
        b->p->quantised |= 1u << src->part[i].t->dtype;
        if (type < 0 || q_group_bytes(own, Q_TILE) > q_group_bytes(type, Q_TILE)) type = own;
    }
    if (b->o->type >= 0 || type < 0) type = cv_recipe_type(b->o->type, b->c, t->role, t->layer);
    return b->o->rules ? cv_rules_type(b->o->rules, t, type) : type;
}

static vq_status add(builder *b, vaq_role role, uint32_t layer, int32_t expert)
{
    cv_plan *p = b->p;
    const vaq_config *c = b->c;
    const vq_role_row *row = vq_role_find(role);
    uint32_t first, end;
    vq_role_layers(row, c, &first, &end);
    if (!vq_role_used(row, c) || layer < first || layer >= end) return VQ_OK;
    size_t cap = b->cap;
    if (vq_grow(&p->src, &cap, p->n + 1, sizeof *p->src)) return no_memory(b);
    if (vq_grow(&p->tensor, &b->cap, p->n + 1, sizeof *p->tensor)) return no_memory(b);
    vaq_tensor *t = &p->tensor[p->n];
    cv_source *src = &p->src[p->n];
    *t = (vaq_tensor){ .role = (uint16_t)role, .layout = row->layout, .layer = (uint16_t)layer,
                       .expert = expert, .rows = vq_role_rows(row, c),
                       .cols = vq_dim_of(c, row->cols) };
    *src = (cv_source){ .n = 0 };

    char name[2][96];
    const int parts = names_of(b, t, name);
    for (int i = 0; i < parts; i++) {
        cv_part *part = &src->part[i];
        part->rows = vq_dim_of(c, row->rows);
        const shape s = place_part(b, part, t, name[i]);
        const vq_status st = find_part(b, part, t, name[i], &s);
        if (st) return st;
        const uint64_t weights = (uint64_t)part->rows * t->cols;
        t->params += weights;
        p->read_bytes += cv_row_bytes(part->t->dtype, weights);
    }
    src->n = parts;
    p->params += t->params;
    t->type = (uint16_t)(t->layout == VAQ_VECTOR ? Q_F32 : type_of(b, src, t));
    p->n++;
    return VQ_OK;
}

static vq_status add_layer(builder *b, uint32_t l)
{
    /* In the order of use; each kind of model has some of them. */
    static const vaq_role before[] = {
        VAQ_MTP_EMBED, VAQ_MTP_ENORM, VAQ_MTP_HNORM, VAQ_MTP_EH,
        VAQ_NORM_ATTN, VAQ_Q, VAQ_K, VAQ_V, VAQ_Q_BIAS, VAQ_K_BIAS, VAQ_V_BIAS, VAQ_Q_NORM,
        VAQ_K_NORM, VAQ_Q_A, VAQ_Q_A_NORM, VAQ_Q_B, VAQ_KV_A, VAQ_KV_A_NORM, VAQ_K_UP, VAQ_V_UP,
        VAQ_O, VAQ_NORM_FFN, VAQ_GATE_UP, VAQ_DOWN, VAQ_ROUTER, VAQ_ROUTER_BIAS,
        VAQ_SHARED_GATE_UP, VAQ_SHARED_DOWN
    };
    vq_status st = VQ_OK;
    for (size_t i = 0; !st && i < sizeof before / sizeof before[0]; i++) {
        st = add(b, before[i], l, -1);
    }
    for (int32_t x = 0; !st && x < (int32_t)b->c->n_expert; x++) {
        st = add(b, VAQ_EXPERT_GATE_UP, l, x);
        if (!st) st = add(b, VAQ_EXPERT_DOWN, l, x);
    }
    if (!st) st = add(b, VAQ_MTP_NORM, l, -1);
    if (!st) st = add(b, VAQ_MTP_HEAD, l, -1);
    return st;
}

static vq_status add_all(builder *b)
{
    const uint32_t main = b->c->n_layer, all = main + b->c->n_mtp;
    vq_status st = add(b, VAQ_EMBED, VAQ_NO_LAYER, -1);
    for (uint32_t l = 0; !st && l < main; l++) st = add_layer(b, l);
    if (!st) st = add(b, VAQ_NORM_OUT, VAQ_NO_LAYER, -1);
    if (!st) st = add(b, VAQ_HEAD, VAQ_NO_LAYER, -1);
    for (uint32_t l = main; !st && l < all; l++) st = add_layer(b, l);
    return st;
}

/* ---- head and embedding: one or two? ---- */

static vq_status same_bytes(const builder *b, const cv_tensor *x, const cv_tensor *y, bool *same)
{
    enum { PIECE = 1 << 20 };
    *same = false;
    if (x->dtype != y->dtype || x->size != y->size || x->dtype == CV_F8_E4M3) return VQ_OK;
    if (b->o->quick) {
        *same = true;
        return VQ_OK;
    }
    uint8_t *buf = vq_malloc(2 * PIECE);
    if (!buf) return no_memory(b);
    vq_status st = VQ_OK;
    *same = true;
    for (uint64_t at = 0; !st && *same && at < x->size; at += PIECE) {
        const size_t n = x->size - at < PIECE ? (size_t)(x->size - at) : PIECE;
        st = cv_st_read(x, at, buf, n, b->e);
        if (!st) st = cv_st_read(y, at, buf + PIECE, n, b->e);
        *same = !memcmp(buf, buf + PIECE, n);
    }
    vq_free(buf);
    return st;
}

/* Tensors that share memory are saved once; the metadata then maps the name left out to the name
 * kept.  Either of the two may be the one left out, and the config's flag may say nothing of it. */
static bool aliased(const cv_ckpt *ckpt, const char *gone, const char *kept)
{
    static const char *const prefix[] = { "", "model." };
    for (int i = 0; i < 2; i++) {
        char name[64] = "";
        strcat(strcat(name, prefix[i]), gone);
        const vq_str to = cv_ckpt_meta(ckpt, name);
        if (to.p && vq_str_eq(cv_canonical(to), kept)) return true;
    }
    return false;
}

static vq_status tie(builder *b)
{
    static const char embed_name[] = "embed_tokens.weight", head_name[] = "lm_head.weight";
    const cv_tensor *embed = cv_ckpt_find(b->ckpt, embed_name);
    const cv_tensor *head = cv_ckpt_find(b->ckpt, head_name);
    bool tied = b->c->flags & VAQ_F_TIED;
    if (embed && head) {
        vq_status st = VQ_OK;
        /* The flag wins only where it changes nothing: a head of its own was trained. */
        if (tied) st = same_bytes(b, embed, head, &tied);
        if (st) return st;
        if (tied) use(b, head_name);
    } else if (embed) {
        tied = tied || aliased(b->ckpt, head_name, embed_name);
    } else if (head) {
        tied = tied || aliased(b->ckpt, embed_name, head_name);
        if (!tied) return missing(b, &(vaq_tensor){ .role = VAQ_EMBED }, embed_name);
    }
    b->c->flags &= ~(uint32_t)VAQ_F_TIED;
    if (tied) b->c->flags |= VAQ_F_TIED;
    return VQ_OK;
}

/* ---- MTP layers ---- */

/* Notes the first tensor that they want and the checkpoint lacks. */
static bool mtp_whole(builder *b)
{
    const vaq_config *c = b->c;
    const vq_role_row *r;
    for (int i = 0; (r = vq_role_at(i)) != NULL; i++) {
        uint32_t layer, end;
        const int32_t experts = r->scope == VAQ_EXPERT ? (int32_t)c->n_expert : 0;
        vq_role_layers(r, c, &layer, &end);
        if (!vq_role_used(r, c) || r->scope == VAQ_ONCE) continue;
        /* GGUF has them only when they are others than the main model's. */
        if (b->ckpt->is_gguf && (r->role == VAQ_MTP_EMBED || r->role == VAQ_MTP_HEAD)) continue;
        for (layer = layer < c->n_layer ? c->n_layer : layer; layer < end; layer++) {
            for (int32_t x = experts ? 0 : -1; x < experts; x++) {
                const vaq_tensor t = { .role = r->role, .layer = (uint16_t)layer, .expert = x };
                char name[2][96];
                const int n = names_of(b, &t, name);
                for (int k = 0; k < n; k++) {
                    if (cv_ckpt_find(b->ckpt, name[k])) continue;
                    memcpy(b->p->mtp_lacks, name[k], sizeof name[k]);
                    return false;
                }
            }
        }
    }
    return true;
}

/* Leaves them out: their tensors are nobody's fault. */
static vq_status drop_mtp(builder *b)
{
    /* GGUF counts them with the others: one of those must not get lost so. */
    char norm[64], eh[64];
    snprintf(norm, sizeof norm, "layers.%u.input_layernorm.weight", b->c->n_layer);
    snprintf(eh, sizeof eh, "layers.%u.eh_proj.weight", b->c->n_layer);
    if (b->ckpt->is_gguf && cv_ckpt_find(b->ckpt, norm) && !cv_ckpt_find(b->ckpt, eh)) {
        return missing(b, &(vaq_tensor){ .role = VAQ_MTP_EH }, eh);
    }
    for (size_t i = 0; i < b->ckpt->n_tensor; i++) {
        const vq_str name = cv_canonical(b->ckpt->tensor[i].name);
        for (uint32_t l = b->c->n_layer; l < b->c->n_layer + b->c->n_mtp; l++) {
            char start[32];
            const size_t n = (size_t)snprintf(start, sizeof start, "layers.%u.", l);
            if (name.n > n && !memcmp(name.p, start, n)) b->used[i] = true;
        }
    }
    b->c->n_mtp = 0;
    return VQ_OK;
}

/* Sets `flag` if what every MTP layer calls `name` is the main model's `main` again. */
static vq_status share(builder *b, uint32_t flag, const cv_tensor *main, const char *name)
{
    const vaq_config *c = b->c;
    bool same = main != NULL;
    char copy[96];
    for (uint32_t l = c->n_layer; same && l < c->n_layer + c->n_mtp; l++) {
        snprintf(copy, sizeof copy, "layers.%u.%s", l, name);
        const cv_tensor *t = cv_ckpt_find(b->ckpt, copy);
        const vq_status st = t ? same_bytes(b, main, t, &same) : VQ_OK;
        if (st) return st;
    }
    for (uint32_t l = c->n_layer; same && l < c->n_layer + c->n_mtp; l++) {
        snprintf(copy, sizeof copy, "layers.%u.%s", l, name);
        use(b, copy);
    }
    if (same) b->c->flags |= flag;
    return VQ_OK;
}

static vq_status plan_mtp(builder *b)
{
    if (!b->c->n_mtp) return VQ_OK;
    if (b->o->drop_mtp || !mtp_whole(b)) return drop_mtp(b);
    const cv_tensor *embed = cv_ckpt_find(b->ckpt, "embed_tokens.weight");
    const cv_tensor *head = cv_ckpt_find(b->ckpt, "lm_head.weight");
    if (b->c->flags & VAQ_F_TIED) embed = head = embed ? embed : head;
    const vq_status st = share(b, VAQ_F_MTP_EMBED, embed, "embed_tokens.weight");
    return st ? st : share(b, VAQ_F_MTP_HEAD, head, "shared_head.head.weight");
}

/* Whatever is left over would have changed the model's answers, or is not this model. */
static vq_status check_unused(const builder *b)
{
    for (size_t i = 0; i < b->ckpt->n_tensor; i++) {
        const cv_tensor *t = &b->ckpt->tensor[i];
        if (b->used[i] || cv_ignorable(cv_canonical(t->name))) continue;
        return vq_fail(b->e, VQ_EFORMAT, "%s: tensor %.*s belongs to nothing in a %s model of %u "
                       "layers as %s",
                       t->file->path, (int)t->own.n, t->own.p, vq_arch_name(b->c->arch),
                       b->c->n_layer,
                       b->ckpt->is_gguf ? "the keys of the file describe it"
                                        : "config.json describes it; is it the right config.json?");
    }
    return VQ_OK;
}

vq_status cv_plan_make(cv_plan *p, const cv_ckpt *ckpt, vaq_config *c, const cv_plan_opts *o,
                       vq_err *e)
{
    *p = (cv_plan){ 0 };
    builder b = { .p = p, .ckpt = ckpt, .c = c, .o = o, .e = e };
    b.used = vq_calloc(ckpt->n_tensor + 1, sizeof *b.used);
    vq_status st = b.used ? tie(&b) : no_memory(&b);
    if (!st) st = plan_mtp(&b);
    if (!st) st = add_all(&b);
    if (!st) st = check_unused(&b);
    vq_free(b.used);
    if (st) cv_plan_clear(p);
    return st;
}

void cv_plan_clear(cv_plan *p)
{
    vq_free(p->tensor);
    vq_free(p->src);
    *p = (cv_plan){ 0 };
}
