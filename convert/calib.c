/* calib.c - calib.h: two walks through the model, one for moments, one for tries.
 *
 * Moments are sums over all tokens; tries need logits of every try, so they go over a few chunks,
 * as many as have room for their logits.  Memory: states of all tokens, moments of a layer (inputs
 * longer than BLOCK are cut into equal blocks), and two copies of the matrix that is tried.
 * All experts of a layer would be too much: what they were given is kept, as large as the states,
 * and goes through some of them once more when their turn comes. */
#include "convert/calib.h"

#include "core/base/mem.h"
#include "core/base/os.h"
#include "core/base/pool.h"
#include "core/engine/score.h"
#include "core/engine/walk.h"
#include "core/file/file.h"

#include <string.h>

enum {
    CHUNK = CV_CALIB_CTX,
    STATES = 256 << 20,         /* bytes of states at most: that many tokens are used */
    TRY_LOGITS = 64 << 20,      /* floats of reference logits at most */
    TRY_CHUNKS = 16,
    TRY_EXPERTS = 512 << 20,    /* bytes of the experts' matrices that are tried at once */
    BLOCK = 2048,               /* columns whose products are known, at most: their factor costs
                                 * the cube of it */
    WAVE = 256 << 20,           /* bytes of the moments of experts that are held at once */
    PRIOR = 64                  /* tokens that the mean of all experts counts in one's moments */
};

/* Moments of inputs side by side, each of `cols` columns. */
typedef struct held {
    q_moments m;                /* h NULL: none */
    int cols;
} held;

struct cv_calib {
    vq_engine *eng;
    vq_pool *pool;
    q_kern kern;
    int threads;
    uint32_t n_layer, n_head, n_expert, n_used;
    size_t n_chunk, n_try;
    vq_ids ids;                 /* (n_chunk, CHUNK) */
    char hash[65];
    vq_walk *walk;              /* for moments; NULL: not begun */
    int layer;                  /* whose moments are held; -1 none */
    held m[VQ_WALK_INPUTS];     /* of a layer with experts EXPERTS is as summed, not factored ... */
    q_moments all;              /* ... and this is what m[FFN] was then */
    held *expert;               /* (n_wave, 2) inputs of gate and up, and of down */
    int wave, n_wave;           /* experts that are held: n_wave from this one on */
    size_t idle, experts;
    void **tmp;                 /* (threads) for factors and encoding */
    size_t tmp_size;
    /* tries */
    vq_walk *sample;
    int at;                     /* layers that sample has passed */
    size_t n_row, vocab;
    float *ref;                 /* (n_row, vocab) logits */
    float *row;                 /* (vocab) */
    double kl;                  /* sum of the try that runs */
};

static vq_status no_memory(vq_err *e) { return vq_fail(e, VQ_ENOMEM, "out of memory"); }

/* ---- the text ---- */

/* Chunks begin with BOS where the model has one, as in scoring. */
static vq_status read_text(cv_calib *c, const char *path, vq_err *e)
{
    const vq_info *info = vq_engine_info(c->eng);
    vq_buf text = { 0 };
    vq_status st = vq_file_read(path, UINT64_C(1) << 30, &text, e);
    if (!st && info->bos >= 0 && !vq_ids_add(&c->ids, info->bos)) st = no_memory(e);
    if (!st && text.n) {
        vq_ids more = { 0 };
        st = vq_engine_tokenize(c->eng, text.p, text.n, false, &more, e);
        if (!st && !vq_ids_add_n(&c->ids, more.v, more.n)) st = no_memory(e);
        vq_ids_clear(&more);
    }
    vq_buf_clear(&text);
    if (st) return st;
    c->n_chunk = c->ids.n / CHUNK;
    const size_t most = STATES / (CHUNK * (size_t)info->hidden * sizeof(float));
    if (c->n_chunk > most) c->n_chunk = most > 1 ? most : 1;
    if (!c->ids.n || c->ids.n < CHUNK) {
        return vq_fail(e, VQ_EUSAGE, "%s: %zu tokens, at least %d are wanted (some 50,000 are "
                       "good)",
                       path, c->ids.n, CHUNK);
    }
    for (size_t i = 0; info->bos >= 0 && i < c->n_chunk; i++) c->ids.v[i * CHUNK] = info->bos;
    vq_sha256 s;
    uint8_t sum[32];
    vq_sha256_init(&s, &c->kern);
    vq_sha256_add(&s, c->ids.v, c->n_chunk * CHUNK * sizeof *c->ids.v);
    vq_sha256_end(&s, sum);
    vq_hex32(c->hash, sum);
    return VQ_OK;
}

vq_status cv_calib_open(cv_calib **out, const cv_calib_opts *o, vq_err *e)
{
    cv_calib *c = vq_calloc(1, sizeof *c);
    *out = NULL;
    if (!c) return no_memory(e);
    c->eng = o->engine;
    c->threads = o->threads;
    c->layer = -1;
    c->n_layer = o->config->n_layer;
    c->n_head = o->config->n_head;
    c->n_expert = o->config->n_expert;
    c->n_used = o->config->n_expert_used;
    q_kern_make(&c->kern, o->cpu);
    c->tmp = vq_calloc((size_t)c->threads, sizeof *c->tmp);
    vq_status st = c->tmp ? vq_pool_new(&c->pool, c->threads, e) : no_memory(e);
    if (!st) st = read_text(c, o->text, e);
    if (st) {
        cv_calib_close(c);
        return st;
    }
    *out = c;
    return VQ_OK;
}

static void drop(q_moments *m)
{
    vq_aligned_free(m->h);
    vq_free(m->d);
    *m = (q_moments){ 0 };
}

static void drop_wave(cv_calib *c)
{
    for (int i = 0; c->expert && i < 2 * c->n_wave; i++) drop(&c->expert[i].m);
    vq_free(c->expert);
    c->expert = NULL;
    c->n_wave = 0;
}

static void drop_moments(cv_calib *c)
{
    for (int i = 0; i < VQ_WALK_INPUTS; i++) drop(&c->m[i].m);
    drop(&c->all);
    drop_wave(c);
    c->layer = -1;
}

void cv_calib_close(cv_calib *c)
{
    if (!c) return;
    drop_moments(c);
    vq_walk_close(c->walk);
    vq_walk_close(c->sample);
    vq_pool_free(c->pool);
    vq_ids_clear(&c->ids);
    for (int i = 0; c->tmp && i < c->threads; i++) vq_aligned_free(c->tmp[i]);
    vq_free(c->tmp);
    vq_free(c->ref);
    vq_free(c->row);
    vq_free(c);
}

size_t cv_calib_tokens(const cv_calib *c) { return c->n_chunk * CHUNK; }
const char *cv_calib_hash(const cv_calib *c) { return c->hash; }

/* ---- moments ---- */

static int input_of(const vaq_tensor *t)
{
    switch (t->role) {
    case VAQ_Q: /* of MLA without a latent for queries too */
    case VAQ_K:
    case VAQ_V:
    case VAQ_Q_A:
    case VAQ_KV_A:
    case VAQ_HEAD: return VQ_WALK_ATTN;
    case VAQ_Q_B: return VQ_WALK_Q_B;
    case VAQ_K_UP: return VQ_WALK_K_UP;
    case VAQ_V_UP: return VQ_WALK_V_UP;
    case VAQ_O: return VQ_WALK_O;
    case VAQ_GATE_UP:
    case VAQ_SHARED_GATE_UP:
    case VAQ_EXPERT_GATE_UP: return VQ_WALK_FFN;
    case VAQ_DOWN:
    case VAQ_SHARED_DOWN: return VQ_WALK_DOWN;
    case VAQ_EXPERT_DOWN: return VQ_WALK_EXPERTS;
    default: return -1;
    }
}

static int layer_of(const cv_calib *c, const vaq_tensor *t)
{
    return t->role == VAQ_HEAD ? (int)c->n_layer : (int)t->layer;
}

bool cv_calib_knows(const cv_calib *c, const vaq_tensor *t)
{
    return input_of(t) >= 0 && (t->role == VAQ_HEAD || t->layer < c->n_layer)
        && !q_type_info(t->type)->is_float;
}

static bool is_expert(const vaq_tensor *t) { return t->expert >= 0; }

bool cv_calib_holds(const cv_calib *c, const vaq_tensor *t)
{
    return c->layer == layer_of(c, t)
        && (!is_expert(t) || (t->expert >= c->wave && t->expert < c->wave + c->n_wave));
}

size_t cv_calib_idle(const cv_calib *c, size_t *all)
{
    *all = c->experts;
    return c->idle;
}

static size_t h_size(const q_moments *m)
{
    return (size_t)m->k * (size_t)m->block * sizeof(float);
}

/* `parts` inputs of so many columns, nothing summed yet. */
static vq_status new_held(held *to, int cols, int parts, vq_err *e)
{
    const int n = (cols + BLOCK - 1) / BLOCK; /* blocks of an input */
    const int block = ((cols + n - 1) / n + 127) / 128 * 128;
    q_moments *m = &to->m;
    to->cols = cols;
    *m = (q_moments){ .k = cols * parts, .block = block,
                      .d = vq_calloc((size_t)cols * (size_t)parts, sizeof(float)) };
    m->h = vq_aligned(Q_ALIGN, h_size(m));
    if (!m->h || !m->d) return no_memory(e);
    memset(m->h, 0, h_size(m));
    return VQ_OK;
}

/* Memory for the inputs of the next layer: those of the matrices that it has. */
static vq_status new_moments(cv_calib *c, int layer, vq_err *e)
{
    static const uint8_t role[VQ_WALK_INPUTS][2] = { /* one that reads it, or the other */
        { VAQ_Q, VAQ_KV_A }, { VAQ_Q_B }, { VAQ_K_UP }, { VAQ_V_UP }, { VAQ_O },
        { VAQ_GATE_UP, VAQ_EXPERT_GATE_UP }, { VAQ_DOWN, VAQ_SHARED_DOWN }, { VAQ_EXPERT_DOWN }
    };
    const bool head = layer == (int)c->n_layer;
    vq_status st = VQ_OK;
    drop_moments(c);
    for (int i = 0; !st && i < VQ_WALK_INPUTS && (!head || i == VQ_WALK_ATTN); i++) {
        const bool by_head = i == VQ_WALK_K_UP || i == VQ_WALK_V_UP;
        vq_walk_matrix w = vq_walk_get(c->walk, head ? VAQ_HEAD : role[i][0], layer, 0);
        if (!w.rows && role[i][1]) w = vq_walk_get(c->walk, role[i][1], layer, 0);
        if (w.rows) st = new_held(&c->m[i], w.cols, by_head ? (int)c->n_head : 1, e);
    }
    return st;
}

static vq_status want_tmp(cv_calib *c, size_t size, vq_err *e)
{
    if (size <= c->tmp_size) return VQ_OK;
    c->tmp_size = 0;
    for (int i = 0; i < c->threads; i++) {
        vq_aligned_free(c->tmp[i]);
        if (!(c->tmp[i] = vq_aligned(Q_ALIGN, size))) return no_memory(e);
    }
    c->tmp_size = size;
    return VQ_OK;
}

/* ---- factors ---- */

typedef struct factoring {
    cv_calib *c;
    held *list[VQ_WALK_INPUTS];
    int n;
} factoring;

static int blocks_of(const held *x) { return (x->cols + x->m.block - 1) / x->m.block; }

static int blocks_of_all(const held *x) { return x->m.k / x->cols * blocks_of(x); }

static void factor(void *ctx, int thread)
{
    factoring *f = ctx;
    int all = 0;
    for (int i = 0; i < f->n; i++) all += blocks_of_all(f->list[i]);
    for (int j; (j = vq_job(f->c->pool, thread, all)) >= 0;) {
        int i = 0, b = j;
        for (; b >= blocks_of_all(f->list[i]); i++) b -= blocks_of_all(f->list[i]);
        const held *x = f->list[i];
        q_moments part = q_moments_part(&x->m, x->cols, b / blocks_of(x));
        q_moments_factor(&part, b % blocks_of(x), f->c->tmp[thread]);
    }
    vq_barrier(f->c->pool, thread);
}

static vq_status factor_all(cv_calib *c, factoring *f, vq_err *e)
{
    size_t tmp = 0;
    for (int i = 0; i < f->n; i++) {
        const size_t size = q_moments_tmp(f->list[i]->m.block);
        if (size > tmp) tmp = size;
    }
    const vq_status st = want_tmp(c, tmp, e);
    if (!st) vq_pool_run(c->pool, factor, f);
    return st;
}

static void count_idle(cv_calib *c)
{
    c->experts += c->n_expert;
    for (int x = 0; x < (int)c->n_expert; x++) c->idle += !vq_walk_routed(c->walk, x);
}

static vq_status step_to(cv_calib *c, int layer, vq_err *e)
{
    q_moments *m[VQ_WALK_INPUTS];
    factoring f = { .c = c };
    vq_status st = VQ_OK;
    if (!c->walk || layer < c->layer) {
        vq_walk_close(c->walk);
        drop_moments(c);
        c->idle = c->experts = 0;
        st = vq_walk_open(&c->walk, c->eng, c->ids.v, c->n_chunk, CHUNK, e);
    }
    for (int l = c->layer + 1; !st && l < layer; l++) st = vq_walk_step(c->walk, NULL, e);
    if (!st) st = new_moments(c, layer, e);
    if (st) return st;
    for (int i = 0; i < VQ_WALK_INPUTS; i++) {
        m[i] = c->m[i].m.h ? &c->m[i].m : NULL;
        if (m[i] && i != VQ_WALK_EXPERTS) f.list[f.n++] = &c->m[i];
    }
    st = vq_walk_step(c->walk, m, e);
    if (!st && m[VQ_WALK_EXPERTS]) {
        const q_moments *x = m[VQ_WALK_FFN];
        c->all = (q_moments){ .k = x->k, .block = x->block, .h = vq_aligned(Q_ALIGN, h_size(x)) };
        if (!c->all.h) return no_memory(e);
        memcpy(c->all.h, x->h, h_size(x));
        count_idle(c);
    }
    if (!st) st = factor_all(c, &f, e);
    if (!st) c->layer = layer;
    return st;
}

/* Adds what PRIOR of n inputs weigh in the sum over all of them. */
static void add_prior(q_moments *to, const q_moments *all, size_t n)
{
    const float f = (float)PRIOR / (float)n;
    const size_t cells = h_size(to) / sizeof(float);
    for (size_t i = 0; i < cells; i++) to->h[i] += f * all->h[i];
}

/* As many experts from this one on as may be held, or `most`. */
static vq_status step_wave(cv_calib *c, int expert, int most, vq_err *e)
{
    const held *in = &c->m[VQ_WALK_FFN], *down = &c->m[VQ_WALK_EXPERTS];
    const size_t fit = WAVE / (h_size(&in->m) + h_size(&down->m));
    const size_t tokens = c->n_chunk * CHUNK;
    int n = (int)c->n_expert - expert < most ? (int)c->n_expert - expert : most;
    if ((size_t)n > fit) n = fit ? (int)fit : 1;
    drop_wave(c);
    c->expert = vq_calloc(2 * (size_t)n, sizeof *c->expert);
    vq_status st = c->expert ? VQ_OK : no_memory(e);
    c->wave = expert;
    c->n_wave = st ? 0 : n;
    for (int i = 0; !st && i < n; i++) {
        held *x = &c->expert[2 * i];
        st = new_held(&x[0], in->cols, 1, e);
        if (!st) st = new_held(&x[1], down->cols, 1, e);
        if (st) break;
        vq_walk_expert(c->walk, expert + i, &x[0].m, &x[1].m);
        add_prior(&x[0].m, &c->all, tokens);
        add_prior(&x[1].m, &down->m, tokens * c->n_used);
        factoring f = { .c = c, .list = { &x[0], &x[1] }, .n = 2 };
        st = factor_all(c, &f, e);
    }
    if (st) drop_wave(c);
    return st;
}

static vq_status moments(cv_calib *c, const vaq_tensor *t, int most, const q_moments **out,
                         vq_err *e)
{
    vq_status st = c->layer == layer_of(c, t) ? VQ_OK : step_to(c, layer_of(c, t), e);
    if (!st && !cv_calib_holds(c, t)) st = step_wave(c, t->expert, most, e);
    *out = NULL;
    if (st) return st;
    const held *x = &c->m[input_of(t)];
    if (is_expert(t))
        x = &c->expert[2 * (t->expert - c->wave) + (t->role == VAQ_EXPERT_DOWN)];
    if (x->m.h) *out = &x->m;
    return VQ_OK;
}

vq_status cv_calib_moments(cv_calib *c, const vaq_tensor *t, const q_moments **out, vq_err *e)
{
    return moments(c, t, (int)c->n_expert, out, e);
}

q_moments cv_calib_part(const q_moments *m, const vaq_tensor *t, uint32_t group)
{
    const uint32_t parts = (uint32_t)m->k / t->cols, groups = (t->rows + Q_ROWS - 1) / Q_ROWS;
    return q_moments_part(m, (int)t->cols, (int)(group / (groups / parts)));
}

/* ---- tries ---- */

typedef struct attempt {
    cv_calib *c;
    vaq_tensor t;               /* of the type that is tried */
    vq_walk_matrix from;
    const q_moments *m;         /* NULL: enc 1 */
    uint8_t *to;                /* as BF16 */
    size_t group, tmp;          /* bytes of a row group of `to`; of q_feedback_tmp */
} attempt;

/* Rows as they are, encoded, decoded, and put into a BF16 matrix. */
static void degrade(void *ctx, int thread)
{
    attempt *a = ctx;
    const q_kern *kern = &a->c->kern;
    const int type = a->t.type;
    const int k = a->from.cols, groups = (a->from.rows + Q_ROWS - 1) / Q_ROWS;
    const size_t own = q_group_bytes(a->from.type, k);
    uint8_t *tmp = a->c->tmp[thread];
    float *rows = (float *)(void *)(tmp + a->tmp);
    uint8_t *coded = tmp + a->tmp + Q_ROWS * (size_t)k * sizeof(float);
    double err2[2];
    for (int j; (j = vq_job(a->c->pool, thread, groups)) >= 0;) {
        const uint8_t *from = (const uint8_t *)a->from.groups + (size_t)j * own;
        for (int r = 0; r < Q_ROWS; r++)
            q_decode_row(a->from.type, rows + (size_t)r * (size_t)k, from, r, k);
        if (a->m) {
            const q_moments m = cv_calib_part(a->m, &a->t, (uint32_t)j);
            q_encode_feedback(kern, type, coded, rows, (size_t)k, Q_ROWS, k, &m, err2, tmp);
        } else {
            q_encode_group(kern, type, coded, rows, (size_t)k, Q_ROWS, k, NULL, err2);
        }
        for (int r = 0; r < Q_ROWS; r++)
            q_decode_row(type, rows + (size_t)r * (size_t)k, coded, r, k);
        q_encode_group(kern, Q_BF16, a->to + (size_t)j * a->group, rows, (size_t)k, Q_ROWS,
                       k, NULL, err2);
    }
    vq_barrier(a->c->pool, thread);
}

static void keep_row(void *ctx, size_t i, const float *logits)
{
    cv_calib *c = ctx;
    memcpy(c->ref + i * c->vocab, logits, c->vocab * sizeof *logits);
}

static void compare_row(void *ctx, size_t i, const float *logits)
{
    cv_calib *c = ctx;
    double same;
    c->kl += vq_score_divergence(c->eng, c->row, c->ref + i * c->vocab, logits, &same);
}

static vq_status begin_tries(cv_calib *c, vq_err *e)
{
    c->vocab = (size_t)vq_engine_info(c->eng)->vocab;
    const size_t most = TRY_LOGITS / (c->vocab * (CHUNK / 2));
    c->n_try = most < 1 ? 1 : most > TRY_CHUNKS ? TRY_CHUNKS : most;
    if (c->n_try > c->n_chunk) c->n_try = c->n_chunk;
    /* From all over the text. */
    vq_ids ids = { 0 };
    vq_status st = VQ_OK;
    for (size_t i = 0; !st && i < c->n_try; i++) {
        const int32_t *from = c->ids.v + i * c->n_chunk / c->n_try * CHUNK;
        if (!vq_ids_add_n(&ids, from, CHUNK)) st = no_memory(e);
    }
    if (!st) st = vq_walk_open(&c->sample, c->eng, ids.v, c->n_try, CHUNK, e);
    vq_ids_clear(&ids);
    if (st) return st;
    c->n_row = vq_walk_rows(c->sample);
    c->ref = vq_calloc(c->n_row, c->vocab * sizeof *c->ref);
    c->row = vq_calloc(c->vocab, sizeof *c->row);
    return c->ref && c->row ? vq_walk_logits(c->sample, keep_row, c, e) : no_memory(e);
}

/* most: as in step_wave. */
static vq_status make_attempt(attempt *a, int most, vq_err *e)
{
    cv_calib *c = a->c;
    const int type = a->t.type;
    const size_t k = (size_t)a->from.cols, groups = ((size_t)a->from.rows + Q_ROWS - 1) / Q_ROWS;
    vq_status st = cv_calib_knows(c, &a->t) ? moments(c, &a->t, most, &a->m, e) : VQ_OK;
    if (st) return st;
    a->tmp = (q_feedback_tmp(type, a->from.cols) + 63) / 64 * 64;
    a->group = q_group_bytes(Q_BF16, a->from.cols);
    st = want_tmp(c, a->tmp + Q_ROWS * k * sizeof(float) + q_group_bytes(type, a->from.cols), e);
    a->to = st ? NULL : vq_aligned(Q_ALIGN, groups * a->group);
    if (!a->to) return st ? st : no_memory(e);
    vq_pool_run(c->pool, degrade, a);
    return VQ_OK;
}

/* The experts of a layer that are tried for all: as many as have room. */
static int experts_to_try(const cv_calib *c, const vq_walk_matrix *w)
{
    const uint64_t n = TRY_EXPERTS / q_matrix_bytes(Q_BF16, (uint64_t)w->rows, w->cols);
    return n < 1 ? 1 : n < c->n_expert ? (int)n : (int)c->n_expert;
}

/* Sets all of them, or puts back what was there. */
static void put_all(cv_calib *c, const attempt *a, int n, int layer, bool back)
{
    for (int i = 0; i < n; i++) {
        const vq_walk_matrix tried = { a[i].to, Q_BF16, a[i].from.rows, a[i].from.cols, true };
        vq_walk_set(c->sample, a[i].t.role, layer, a[i].t.expert, back ? &a[i].from : &tried);
    }
}

/* Tokens that all experts of the layer got for one that these got; 0: they got none. */
static double share_of(const cv_calib *c, const attempt *a, int n)
{
    size_t got = 0;
    for (int i = 0; i < n; i++) got += vq_walk_routed(c->walk, a[i].t.expert);
    return got ? (double)(c->n_chunk * CHUNK * c->n_used) / (double)got : 0;
}

vq_status cv_calib_try(cv_calib *c, const vaq_tensor *t, int type, double *kl, vq_err *e)
{
    const int layer = t->role == VAQ_EMBED ? 0 : layer_of(c, t);
    vq_status st = c->sample ? VQ_OK : begin_tries(c, e);
    *kl = -1;
    for (; !st && c->at < layer && c->at < (int)c->n_layer; c->at++)
        st = vq_walk_step(c->sample, NULL, e);
    if (st) return st;
    const vq_walk_matrix w = vq_walk_get(c->sample, t->role, layer, t->expert);
    if (!w.rows) return VQ_OK;
    const int experts = (int)c->n_expert, n = is_expert(t) ? experts_to_try(c, &w) : 1;
    attempt *a = vq_calloc((size_t)n, sizeof *a);
    if (!a) return no_memory(e);
    for (int i = 0; !st && i < n; i++) {
        a[i] = (attempt){ .c = c, .t = *t };
        a[i].t.type = (uint16_t)type;
        if (is_expert(t)) a[i].t.expert = i * experts / n; /* from all over the layer */
        a[i].from = vq_walk_get(c->sample, t->role, layer, a[i].t.expert);
        st = make_attempt(&a[i], n < experts ? 1 : n, e);
    }
    if (!st) {
        put_all(c, a, n, layer, false);
        c->kl = 0;
        st = vq_walk_logits(c->sample, compare_row, c, e);
        put_all(c, a, n, layer, true);
        const double share = is_expert(t) ? share_of(c, a, n) : 1;
        if (share > 0) *kl = c->kl / (double)c->n_row * share;
    }
    for (int i = 0; i < n; i++) vq_aligned_free(a[i].to);
    vq_free(a);
    return st;
}
