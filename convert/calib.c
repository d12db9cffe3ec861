/* calib.c - calib.h: two walks through the model, one for moments, one for tries.
 *
 * Moments are sums over all tokens; tries need logits of every try, so they go over a few chunks,
 * as many as have room for their logits.  Memory: states of all tokens, moments of a layer (inputs
 * longer than BLOCK are cut into equal blocks), and two copies of the matrix that is tried. */
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
    BLOCK = 2048                /* columns whose products are known, at most: their factor costs
                                 * the cube of it */
};

struct cv_calib {
    vq_engine *eng;
    vq_pool *pool;
    q_kern kern;
    int threads;
    uint32_t arch, n_layer;
    size_t n_chunk, n_try;
    vq_ids ids;                 /* (n_chunk, CHUNK) */
    char hash[65];
    vq_walk *walk;              /* for moments; NULL: not begun */
    int layer;                  /* whose moments are held; -1 none */
    q_moments m[VQ_WALK_INPUTS];
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
    c->arch = o->config->arch;
    c->n_layer = o->config->n_layer;
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

static void drop_moments(cv_calib *c)
{
    for (int i = 0; i < VQ_WALK_INPUTS; i++) {
        vq_aligned_free(c->m[i].h);
        vq_free(c->m[i].d);
        c->m[i] = (q_moments){ 0 };
    }
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

static int input_of(const cv_calib *c, const vaq_tensor *t)
{
    switch (t->role) {
    case VAQ_Q:
    case VAQ_K:
    case VAQ_V: return c->arch == VAQ_DEEPSEEK3 ? -1 : VQ_WALK_ATTN;
    case VAQ_O: return VQ_WALK_O;
    case VAQ_GATE_UP: return VQ_WALK_FFN;
    case VAQ_DOWN: return VQ_WALK_DOWN;
    case VAQ_HEAD: return VQ_WALK_ATTN;
    default: return -1;
    }
}

static int layer_of(const cv_calib *c, const vaq_tensor *t)
{
    return t->role == VAQ_HEAD ? (int)c->n_layer : (int)t->layer;
}

bool cv_calib_knows(const cv_calib *c, const vaq_tensor *t)
{
    return input_of(c, t) >= 0 && layer_of(c, t) <= (int)c->n_layer
        && !q_type_info(t->type)->is_float;
}

bool cv_calib_holds(const cv_calib *c, const vaq_tensor *t)
{
    return c->layer == layer_of(c, t);
}

/* Memory for the inputs of the next layer: those of the matrices that it has. */
static vq_status new_moments(cv_calib *c, int layer, vq_err *e)
{
    static const int role[VQ_WALK_INPUTS] = { VAQ_Q, VAQ_O, VAQ_GATE_UP, VAQ_DOWN };
    const bool head = layer == (int)c->n_layer;
    drop_moments(c);
    for (int i = 0; i < VQ_WALK_INPUTS; i++) {
        const vaq_tensor t = { .role = (uint16_t)(head ? VAQ_HEAD : role[i]) };
        const vq_walk_matrix w = vq_walk_get(c->walk, t.role, layer);
        if (!w.rows || input_of(c, &t) != i) continue;
        const int n = (w.cols + BLOCK - 1) / BLOCK; /* blocks */
        const int block = ((w.cols + n - 1) / n + 127) / 128 * 128;
        const size_t size = (size_t)w.cols * (size_t)block * sizeof(float);
        c->m[i] = (q_moments){ .k = w.cols, .block = block, .h = vq_aligned(Q_ALIGN, size),
                               .d = vq_calloc((size_t)w.cols, sizeof(float)) };
        if (!c->m[i].h || !c->m[i].d) return no_memory(e);
        memset(c->m[i].h, 0, size);
    }
    return VQ_OK;
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

static int blocks_of(const q_moments *m)
{
    return m->h ? (m->k + m->block - 1) / m->block : 0;
}

static void factor(void *ctx, int thread)
{
    cv_calib *c = ctx;
    int all = 0;
    for (int i = 0; i < VQ_WALK_INPUTS; i++) all += blocks_of(&c->m[i]);
    for (int j; (j = vq_job(c->pool, thread, all)) >= 0;) {
        int i = 0, b = j;
        for (; b >= blocks_of(&c->m[i]); i++) b -= blocks_of(&c->m[i]);
        q_moments_factor(&c->m[i], b, c->tmp[thread]);
    }
    vq_barrier(c->pool, thread);
}

static vq_status step_to(cv_calib *c, int layer, vq_err *e)
{
    q_moments *m[VQ_WALK_INPUTS];
    size_t tmp = 0;
    vq_status st = VQ_OK;
    if (!c->walk || layer < c->layer) {
        vq_walk_close(c->walk);
        drop_moments(c);
        st = vq_walk_open(&c->walk, c->eng, c->ids.v, c->n_chunk, CHUNK, e);
    }
    for (int l = c->layer + 1; !st && l < layer; l++) st = vq_walk_step(c->walk, NULL, e);
    if (!st) st = new_moments(c, layer, e);
    if (st) return st;
    for (int i = 0; i < VQ_WALK_INPUTS; i++) {
        m[i] = c->m[i].h ? &c->m[i] : NULL;
        if (m[i] && q_moments_tmp(m[i]->block) > tmp) tmp = q_moments_tmp(m[i]->block);
    }
    st = vq_walk_step(c->walk, m, e);
    if (!st) st = want_tmp(c, tmp, e);
    if (st) return st;
    vq_pool_run(c->pool, factor, c);
    c->layer = layer;
    return VQ_OK;
}

vq_status cv_calib_moments(cv_calib *c, const vaq_tensor *t, const q_moments **out, vq_err *e)
{
    const vq_status st = cv_calib_holds(c, t) ? VQ_OK : step_to(c, layer_of(c, t), e);
    const q_moments *m = &c->m[input_of(c, t)];
    *out = !st && m->h ? m : NULL;
    return st;
}

/* ---- tries ---- */

typedef struct attempt {
    cv_calib *c;
    vq_walk_matrix from;
    const q_moments *m;         /* NULL: enc 1 */
    int type;
    uint8_t *to;                /* as BF16 */
    size_t group, tmp;          /* bytes of a row group of `to`; of q_feedback_tmp */
} attempt;

/* Rows as they are, encoded, decoded, and put into a BF16 matrix. */
static void degrade(void *ctx, int thread)
{
    attempt *a = ctx;
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
        if (a->m)
            q_encode_feedback(&a->c->kern, a->type, coded, rows, (size_t)k, Q_ROWS, k, a->m, err2,
                              tmp);
        else q_encode_group(&a->c->kern, a->type, coded, rows, (size_t)k, Q_ROWS, k, NULL, err2);
        for (int r = 0; r < Q_ROWS; r++)
            q_decode_row(a->type, rows + (size_t)r * (size_t)k, coded, r, k);
        q_encode_group(&a->c->kern, Q_BF16, a->to + (size_t)j * a->group, rows, (size_t)k, Q_ROWS,
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

static vq_status make_attempt(attempt *a, const vaq_tensor *t, vq_err *e)
{
    cv_calib *c = a->c;
    const size_t k = (size_t)a->from.cols, groups = ((size_t)a->from.rows + Q_ROWS - 1) / Q_ROWS;
    vq_status st = cv_calib_knows(c, t) ? cv_calib_moments(c, t, &a->m, e) : VQ_OK;
    if (st) return st;
    a->tmp = (q_feedback_tmp(a->type, a->from.cols) + 63) / 64 * 64;
    a->group = q_group_bytes(Q_BF16, a->from.cols);
    st = want_tmp(c, a->tmp + Q_ROWS * k * sizeof(float) + q_group_bytes(a->type, a->from.cols), e);
    a->to = st ? NULL : vq_aligned(Q_ALIGN, groups * a->group);
    if (!a->to) return st ? st : no_memory(e);
    vq_pool_run(c->pool, degrade, a);
    return VQ_OK;
}

vq_status cv_calib_try(cv_calib *c, const vaq_tensor *t, int type, double *kl, vq_err *e)
{
    vaq_tensor as = *t;
    const int layer = t->role == VAQ_EMBED ? 0 : layer_of(c, t);
    vq_status st = c->sample ? VQ_OK : begin_tries(c, e);
    *kl = -1;
    as.type = (uint16_t)type;
    for (; !st && c->at < layer && c->at < (int)c->n_layer; c->at++)
        st = vq_walk_step(c->sample, NULL, e);
    if (st) return st;
    attempt a = { .c = c, .from = vq_walk_get(c->sample, t->role, layer), .type = type };
    if (!a.from.rows) return VQ_OK;
    st = make_attempt(&a, &as, e);
    if (!st) {
        const vq_walk_matrix other = { a.to, Q_BF16, a.from.rows, a.from.cols };
        vq_walk_set(c->sample, t->role, layer, &other);
        c->kl = 0;
        st = vq_walk_logits(c->sample, compare_row, c, e);
        vq_walk_set(c->sample, t->role, layer, &a.from);
        *kl = c->kl / (double)c->n_row;
    }
    vq_aligned_free(a.to);
    return st;
}
