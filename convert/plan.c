/* plan.c - maps a checkpoint onto the container before a single weight is read.
 *
 * Everything that can be wrong with names, shapes and dtypes is found here, in seconds and with the
 * tensor's name, not after an hour of encoding.  The order of the list is the order of the file:
 * the order in which a token meets the tensors (FORMAT.md). */
#include "convert/plan.h"

#include "core/base/mem.h"
#include "core/file/check.h"

#include <stdio.h>
#include <string.h>

typedef struct builder {
    cv_plan *p;
    const cv_ckpt *ckpt;
    vaq_config *c;
    int type;
    bool *used;             /* (ckpt->n_tensor) */
    size_t cap;             /* of p's arrays */
    vq_err *e;
} builder;

static vq_status no_memory(const builder *b)
{
    return vq_fail(b->e, VQ_ENOMEM, "%s: out of memory", b->ckpt->dir);
}

/* ---- shapes in terms of the config ---- */

/* Rows and columns of one part; rows 0: a vector. */
static void shape_of(const vaq_config *c, uint32_t role, uint64_t *rows, uint64_t *cols)
{
    const uint32_t q = c->n_head * c->head_dim, k = c->n_head_kv * c->head_dim;
    const uint32_t v = c->n_head_kv * c->v_dim, o = c->n_head * c->v_dim;
    *rows = 0;
    *cols = c->hidden;
    switch ((vaq_role)role) {
    case VAQ_EMBED:
    case VAQ_HEAD: *rows = c->n_vocab; break;
    case VAQ_NORM_OUT:
    case VAQ_NORM_ATTN:
    case VAQ_NORM_FFN: break;
    case VAQ_Q: *rows = q; break;
    case VAQ_K: *rows = k; break;
    case VAQ_V: *rows = v; break;
    case VAQ_O: *rows = c->hidden; *cols = o; break;
    case VAQ_Q_BIAS: *cols = q; break;
    case VAQ_K_BIAS: *cols = k; break;
    case VAQ_V_BIAS: *cols = v; break;
    case VAQ_Q_NORM:
    case VAQ_K_NORM: *cols = c->head_dim; break;
    case VAQ_GATE_UP: *rows = c->inter; break;
    case VAQ_DOWN: *rows = c->hidden; *cols = c->inter; break;
    }
}

static void shape_text(char out[64], int n_dim, uint64_t a, uint64_t b)
{
    const unsigned long long x = a, y = b;
    if (n_dim == 0) snprintf(out, 64, "a single number");
    else if (n_dim == 1) snprintf(out, 64, "%llu", x);
    else snprintf(out, 64, "%llu x %llu%s", x, y, n_dim > 2 ? " x ..." : "");
}

static vq_status check_part(const builder *b, const cv_tensor *t, uint64_t rows, uint64_t cols)
{
    const char *path = t->file->path;
    const int len = (int)t->name.n;
    if (t->dtype == CV_F8_E4M3) {
        return vq_fail(b->e, VQ_EFORMAT, "%s: tensor %.*s is F8_E4M3; converting FP8 weights comes "
                       "with a later version, take a BF16 checkpoint",
                       path, len, t->name.p);
    }
    if (t->dtype == CV_OTHER) {
        return vq_fail(b->e, VQ_EFORMAT, "%s: tensor %.*s is %s; only BF16, F16 and F32 convert",
                       path, len, t->name.p, t->dtype_name);
    }
    const bool ok = rows ? t->n_dim == 2 && t->dim[0] == rows && t->dim[1] == cols
                         : t->n_dim == 1 && t->dim[0] == cols;
    if (ok) return VQ_OK;
    char is[64], want[64];
    shape_text(is, t->n_dim, t->dim[0], t->dim[1]);
    if (rows) shape_text(want, 2, rows, cols);
    else shape_text(want, 1, cols, 0);
    return vq_fail(b->e, VQ_EFORMAT, "%s: tensor %.*s is %s, config.json asks for %s", path, len,
                   t->name.p, is, want);
}

/* ---- the list ---- */

/* Looks a tensor up and notes that it has its place. */
static const cv_tensor *use(builder *b, const char *canonical)
{
    const cv_tensor *t = cv_ckpt_find(b->ckpt, canonical);
    if (t) b->used[t - b->ckpt->tensor] = true;
    return t;
}

static vq_status add(builder *b, vaq_role role, uint32_t layer)
{
    cv_plan *p = b->p;
    const vq_role_row *row = vq_role_find(role);
    if (!vq_role_used(row, b->c)) return VQ_OK;
    size_t cap = b->cap;
    if (vq_grow(&p->src, &cap, p->n + 1, sizeof *p->src)) return no_memory(b);
    if (vq_grow(&p->tensor, &b->cap, p->n + 1, sizeof *p->tensor)) return no_memory(b);
    vaq_tensor *t = &p->tensor[p->n];
    cv_source *src = &p->src[p->n];
    *t = (vaq_tensor){ .role = (uint16_t)role, .layout = row->layout, .layer = (uint16_t)layer,
                       .expert = -1 };
    *src = (cv_source){ { NULL, NULL } };

    uint64_t rows, cols;
    shape_of(b->c, role, &rows, &cols);
    char name[2][96];
    const int parts = cv_source_names(t, name);
    for (int i = 0; i < parts; i++) {
        const cv_tensor *s = use(b, name[i]);
        if (!s && role == VAQ_EMBED) s = use(b, "lm_head.weight"); /* see tie() */
        if (!s) {
            return vq_fail(b->e, VQ_EFORMAT, "%s: tensor %s%s is missing%s", b->ckpt->dir,
                           role == VAQ_HEAD ? "" : "model.", name[i],
                           b->ckpt->n_shard == 1 ? "; if this is one of several shards, give the "
                                                   "folder with all of them and their index"
                                                 : "");
        }
        const vq_status st = check_part(b, s, rows, cols);
        if (st) return st;
        src->part[i] = s;
        p->read_bytes += s->size;
        t->params += s->n;
    }
    p->params += t->params;
    t->cols = (uint32_t)cols;
    t->rows = rows ? (uint32_t)rows : 1;
    if (parts == 2) t->rows = 2 * ((t->rows + Q_ROWS - 1) / Q_ROWS * Q_ROWS);
    t->type = (uint16_t)(rows ? cv_recipe_type(b->type, b->c, role, layer) : Q_F32);
    p->n++;
    return VQ_OK;
}

static vq_status add_all(builder *b)
{
    static const vaq_role layer[] = { VAQ_NORM_ATTN, VAQ_Q, VAQ_K, VAQ_V, VAQ_Q_BIAS, VAQ_K_BIAS,
                                      VAQ_V_BIAS, VAQ_Q_NORM, VAQ_K_NORM, VAQ_O, VAQ_NORM_FFN,
                                      VAQ_GATE_UP, VAQ_DOWN };
    vq_status st = add(b, VAQ_EMBED, VAQ_NO_LAYER);
    for (uint32_t l = 0; l < b->c->n_layer; l++) {
        for (size_t i = 0; !st && i < sizeof layer / sizeof layer[0]; i++) st = add(b, layer[i], l);
    }
    if (!st) st = add(b, VAQ_NORM_OUT, VAQ_NO_LAYER);
    if (!st) st = add(b, VAQ_HEAD, VAQ_NO_LAYER);
    return st;
}

/* ---- head and embedding: one or two? ---- */

static vq_status same_bytes(const builder *b, const cv_tensor *x, const cv_tensor *y, bool *same)
{
    enum { PIECE = 1 << 20 };
    *same = false;
    if (x->dtype != y->dtype || x->size != y->size) return VQ_OK;
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
        if (!tied) {
            return vq_fail(b->e, VQ_EFORMAT, "%s: tensor model.%s is missing", b->ckpt->dir,
                           embed_name);
        }
    }
    b->c->flags &= ~(uint32_t)VAQ_F_TIED;
    if (tied) b->c->flags |= VAQ_F_TIED;
    return VQ_OK;
}

/* Whatever is left over would have changed the model's answers, or is not this model. */
static vq_status check_unused(const builder *b)
{
    for (size_t i = 0; i < b->ckpt->n_tensor; i++) {
        const cv_tensor *t = &b->ckpt->tensor[i];
        if (b->used[i] || cv_ignorable(cv_canonical(t->name))) continue;
        return vq_fail(b->e, VQ_EFORMAT, "%s: tensor %.*s belongs to nothing in a %s model of %u "
                       "layers as config.json describes it; is it the right config.json?",
                       t->file->path, (int)t->name.n, t->name.p, vq_arch_name(b->c->arch),
                       b->c->n_layer);
    }
    return VQ_OK;
}

vq_status cv_plan_make(cv_plan *p, const cv_ckpt *ckpt, vaq_config *c, int type, vq_err *e)
{
    *p = (cv_plan){ 0 };
    builder b = { .p = p, .ckpt = ckpt, .c = c, .type = type, .e = e };
    b.used = vq_calloc(ckpt->n_tensor + 1, sizeof *b.used);
    vq_status st = b.used ? tie(&b) : no_memory(&b);
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
