/* pipeline.c - streams a checkpoint through the encoder in bounded memory.
 *
 * The tensors of the plan are cut into bands: runs of whole row groups of one tensor, about a
 * mebibyte of the checkpoint each.  A band passes through one slot of a ring:
 *
 *   free --reader--> read --an encoder--> taken, coded --writer--> free
 *
 * One thread reads ahead in file order, all encoders take bands in that order and finish them in
 * any, one thread (the caller's, which also reports progress) writes in order.  The ring bounds the
 * memory and keeps a fast disk from running away from slow encoders, or the reverse.
 * Where bands are cut follows from the tensor alone, and sums over a band are added up by the
 * writer: so bytes and error figures do not depend on the number of threads.  The first error in
 * file order is the one reported, for the same reason. */
#include "convert/pipeline.h"

#include "core/base/mem.h"
#include "core/base/pool.h"
#include "core/file/check.h"

#include <assert.h>
#include <math.h>
#include <string.h>

enum {
    BAND = 1 << 20,             /* bytes of the checkpoint; a single row group may be larger */
    BUDGET = 160 << 20,         /* of ring and scratch: the process is to stay below 256 MB */
    MIN_SLOTS = 3,              /* beside those in an encoder: one being read, one ready, one
                                 * being written */
    RSS_EVERY = 32              /* bands between two looks at our own memory */
};

typedef enum state { FREE, READ, TAKEN, CODED } state;

typedef struct band {
    size_t tensor;              /* in the plan */
    uint32_t group, n_group;    /* row groups of the container's tensor; a vector is one */
} band;

typedef struct slot {
    state state;
    band b;
    uint8_t *raw;               /* rows as in the checkpoint; of a pair gate rows, then up rows */
    uint8_t *out;               /* row groups as in the container */
    double err2[2];             /* sum of (w - q)^2, of w^2 */
    vq_status st;               /* of whoever filled it */
    vq_err err;
} slot;

typedef struct pipe {
    const cv_run *run;
    vq_pool *pool;
    slot *slot;                 /* (n_slots); slot i holds bands i, i + n_slots, ... */
    size_t n_slots, n_bands;
    size_t raw_max, out_max, k_max; /* bytes, bytes, columns */
    size_t next_coded;          /* band the next free encoder takes */
    bool stop;
    float **rows;               /* (threads): (16, k) of each encoder */
    double *err2;               /* (plan->n, 2) */
    uint64_t done;              /* bytes of the checkpoint behind us */
    vq_status st;               /* of the writer: the outcome */
    vq_err *e;
} pipe;

/* ---- cutting ---- */

static bool is_vector(const vaq_tensor *t)
{
    return t->layout == VAQ_VECTOR;
}

static uint32_t groups_of(const vaq_tensor *t)
{
    return (t->rows + Q_ROWS - 1) / Q_ROWS;
}

/* Row groups of a band.  A pair is cut between its pairs of groups, heads apart from each other. */
static uint32_t groups_per_band(const cv_source *src)
{
    const cv_part *p = &src->part[0];
    if (p->head_rows) return p->head_rows / Q_ROWS;
    const uint32_t unit = (uint32_t)src->n;
    const size_t bytes = unit * Q_ROWS * cv_part_row_bytes(p);
    assert(bytes);
    const size_t n = bytes < BAND ? BAND / bytes : 1;
    return unit * (uint32_t)n;
}

/* The band behind *b; starts with n_group = 0.  false: there is none. */
static bool next_band(const cv_plan *p, band *b)
{
    b->group += b->n_group;
    if (b->n_group && b->group >= groups_of(&p->tensor[b->tensor])) {
        b->tensor++;
        b->group = 0;
    }
    if (b->tensor >= p->n) return false;
    const uint32_t left = groups_of(&p->tensor[b->tensor]) - b->group;
    const uint32_t n = groups_per_band(&p->src[b->tensor]);
    b->n_group = n < left ? n : left;
    return true;
}

static size_t out_group(const vaq_tensor *t)
{
    return is_vector(t) ? t->cols * sizeof(float) : q_group_bytes(t->type, (int)t->cols);
}

/* Rows of part `i` in a band, and the first of them: rows of the container's matrix, of a pair
 * those of one half. */
static uint32_t rows_in(const cv_plan *p, const band *b, int i, uint32_t *first)
{
    const cv_source *src = &p->src[b->tensor];
    const uint32_t share = (uint32_t)src->n;
    uint64_t total = p->tensor[b->tensor].rows;
    if (share > 1) total = src->part[i].t->dim[0]; /* without padding */
    const uint32_t last = (b->group + b->n_group) / share * Q_ROWS;
    *first = b->group / share * Q_ROWS;
    return (uint32_t)(last < total ? last : total) - *first;
}

static cv_span span_in(const cv_plan *p, const band *b, int i)
{
    uint32_t first;
    const uint32_t n = rows_in(p, b, i, &first);
    return cv_part_span(&p->src[b->tensor].part[i], first, n);
}

/* ---- reading ---- */

static void want_band(const pipe *x, const band *b)
{
    const cv_plan *p = x->run->plan;
    const cv_source *src = &p->src[b->tensor];
    for (int i = 0; i < src->n; i++) cv_part_want(&src->part[i], span_in(p, b, i));
}

static vq_status read_band(const pipe *x, slot *s)
{
    const cv_plan *p = x->run->plan;
    const cv_source *src = &p->src[s->b.tensor];
    uint8_t *to = s->raw;
    vq_status st = VQ_OK;
    for (int i = 0; !st && i < src->n; i++) {
        const cv_span span = span_in(p, &s->b, i);
        st = cv_part_read(&src->part[i], span, to, &s->err);
        to += cv_part_raw_bytes(&src->part[i], span);
    }
    return st;
}

static void reader(pipe *x)
{
    const cv_plan *p = x->run->plan;
    band b = { 0 }, ahead = { 0 };
    bool more = next_band(p, &ahead);
    for (size_t k = 0; k < x->n_bands; k++) {
        next_band(p, &b);
        /* gate and up are two streams through one file, too much for the system's own read-ahead */
        if (more) more = next_band(p, &ahead);
        if (more) want_band(x, &ahead);
        slot *s = &x->slot[k % x->n_slots];
        vq_pool_enter(x->pool);
        while (s->state != FREE && !x->stop) vq_pool_wait(x->pool);
        const bool stop = x->stop;
        vq_pool_leave(x->pool);
        if (stop) return;
        s->b = b;
        s->st = read_band(x, s);
        const bool failed = s->st != VQ_OK;
        vq_pool_enter(x->pool);
        s->state = READ;
        vq_pool_wake(x->pool);
        vq_pool_leave(x->pool);
        if (failed) return;
    }
}

/* ---- encoding ---- */

/* row, col: of the container's matrix, of a pair of one half. */
static vq_status bad_weight(slot *s, const cv_part *p, uint64_t row, uint64_t col, float v)
{
    const cv_tensor *t = p->t;
    cv_part_origin(p, &row, &col);
    const unsigned long long r = row, c = col;
    if (isfinite(v)) { /* 65504 is the largest of f16 */
        return vq_fail(&s->err, VQ_EFORMAT, "%s: tensor %.*s: the weight at row %llu, column %llu "
                       "is %g, too large for this type; choose another --type",
                       t->file->path, (int)t->name.n, t->name.p, r, c, (double)v);
    }
    return vq_fail(&s->err, VQ_EFORMAT, "%s: tensor %.*s: the weight at row %llu, column %llu is "
                   "%s; the file is damaged, download it again",
                   t->file->path, (int)t->name.n, t->name.p, r, c,
                   isnan(v) ? "not a number" : "infinite");
}

static vq_status copy_vector(const pipe *x, slot *s)
{
    const cv_part *p = &x->run->plan->src[s->b.tensor].part[0];
    float *out = (float *)(void *)s->out;
    cv_part_floats(p, (cv_span){ 0, 1 }, s->raw, out, 0, 0, 1);
    for (uint64_t i = 0; i < p->t->n; i++) {
        if (!isfinite(out[i])) return bad_weight(s, p, 0, i, out[i]);
    }
    return VQ_OK;
}

static vq_status encode_band(const pipe *x, slot *s, float *rows)
{
    const cv_plan *p = x->run->plan;
    const cv_source *src = &p->src[s->b.tensor];
    const vaq_tensor *t = &p->tensor[s->b.tensor];
    s->err2[0] = s->err2[1] = 0;
    if (is_vector(t)) return copy_vector(x, s);
    const uint32_t k = t->cols;
    uint32_t first[2] = { 0 }, n[2] = { 0 };
    cv_span span[2] = { { 0 } };
    const uint8_t *raw[2] = { s->raw };
    for (int i = 0; i < src->n; i++) {
        n[i] = rows_in(p, &s->b, i, &first[i]);
        span[i] = span_in(p, &s->b, i);
        if (i) raw[i] = raw[0] + cv_part_raw_bytes(&src->part[0], span[0]);
    }
    for (uint32_t g = 0; g < s->b.n_group; g++) {
        const int i = (int)g % src->n;
        const uint32_t at = g / (uint32_t)src->n * Q_ROWS; /* row of the part in this band */
        const uint32_t take = n[i] - at < Q_ROWS ? n[i] - at : Q_ROWS;
        const cv_part *part = &src->part[i];
        double err2[2];
        cv_part_floats(part, span[i], raw[i], rows, k, first[i] + at, take);
        const uint64_t bad = q_encode_group(x->run->kern, t->type, s->out + g * out_group(t), rows,
                                            k, (int)take, (int)k, NULL, err2);
        if (bad) {
            const uint64_t r = (bad - 1) / k, c = (bad - 1) % k;
            return bad_weight(s, part, first[i] + at + r, c, rows[r * k + c]);
        }
        s->err2[0] += err2[0];
        s->err2[1] += err2[1];
    }
    return VQ_OK;
}

static void encoder(pipe *x, int index)
{
    float *rows = x->rows[index];
    vq_pool_enter(x->pool);
    for (;;) {
        slot *s = NULL;
        while (!x->stop && x->next_coded < x->n_bands) {
            s = &x->slot[x->next_coded % x->n_slots];
            if (s->state == READ) break;
            vq_pool_wait(x->pool);
        }
        if (x->stop || x->next_coded >= x->n_bands) break;
        x->next_coded++;
        s->state = TAKEN;
        vq_pool_leave(x->pool);
        if (!s->st) s->st = encode_band(x, s, rows);
        vq_pool_enter(x->pool);
        s->state = CODED;
        vq_pool_wake(x->pool);
    }
    vq_pool_leave(x->pool);
}

/* ---- writing ---- */

static vq_status write_band(pipe *x, const slot *s)
{
    const cv_run *r = x->run;
    const size_t i = s->b.tensor;
    const vaq_tensor *t = &r->plan->tensor[i];
    const size_t size = out_group(t);
    if (s->st) {
        if (x->e) *x->e = s->err;
        return s->st;
    }
    x->err2[2 * i] += s->err2[0];
    x->err2[2 * i + 1] += s->err2[1];
    const vq_status st = vq_writer_put(r->writer, i, (uint64_t)s->b.group * size, s->out,
                                       s->b.n_group * size, x->e);
    if (st) return st;
    for (int k = 0; k < r->plan->src[i].n; k++) {
        x->done += span_in(r->plan, &s->b, k).n * cv_part_row_bytes(&r->plan->src[i].part[k]);
    }
    if (s->b.group + s->b.n_group < groups_of(t)) return VQ_OK;
    const double *sum = &x->err2[2 * i];
    r->rel_rmse[i] = sum[1] > 0 ? (float)sqrt(sum[0] / sum[1]) : 0;
    vq_writer_rmse(r->writer, i, r->rel_rmse[i]);
    return VQ_OK;
}

static void writer(pipe *x)
{
    const cv_run *r = x->run;
    for (size_t k = 0; k < x->n_bands && !x->st; k++) {
        slot *s = &x->slot[k % x->n_slots];
        vq_pool_enter(x->pool);
        while (s->state != CODED) vq_pool_wait(x->pool);
        vq_pool_leave(x->pool);
        x->st = write_band(x, s);
        if (k % RSS_EVERY == 0) vq_rss_anon(); /* keeps the peak it remembers true */
        if (!x->st && r->progress && r->progress(r->ctx, x->done, r->plan->read_bytes)) {
            x->st = vq_fail(x->e, VQ_EINTR, "interrupted; nothing was kept");
        }
        vq_pool_enter(x->pool);
        s->state = FREE;
        x->stop = x->st != VQ_OK;
        vq_pool_wake(x->pool);
        vq_pool_leave(x->pool);
    }
}

static void role(void *ctx, int thread)
{
    pipe *x = ctx;
    if (thread == 0) writer(x);
    else if (thread == 1) reader(x);
    else encoder(x, thread - 2);
}

/* ---- memory ---- */

static void measure(pipe *x)
{
    const cv_plan *p = x->run->plan;
    for (band b = { 0 }; next_band(p, &b);) {
        const vaq_tensor *t = &p->tensor[b.tensor];
        size_t raw = 0;
        for (int i = 0; i < p->src[b.tensor].n; i++) {
            raw += cv_part_raw_bytes(&p->src[b.tensor].part[i], span_in(p, &b, i));
        }
        const size_t out = b.n_group * out_group(t);
        if (raw > x->raw_max) x->raw_max = raw;
        if (out > x->out_max) x->out_max = out;
        if (t->cols > x->k_max) x->k_max = t->cols;
        x->n_bands++;
    }
}

/* As many encoders and slots as asked for and the budget allows. */
static vq_status allocate(pipe *x, int *threads)
{
    const size_t rows = Q_ROWS * x->k_max * sizeof(float), ring = x->raw_max + x->out_max;
    size_t n = (size_t)*threads;
    while (n > 1 && n * rows + (n + MIN_SLOTS) * ring > BUDGET) n--;
    x->n_slots = 2 * n + MIN_SLOTS; /* bands wait for their turn while the next are encoded */
    while (x->n_slots > n + MIN_SLOTS && n * rows + x->n_slots * ring > BUDGET) x->n_slots--;
    *threads = (int)n;
    x->slot = vq_calloc(x->n_slots, sizeof *x->slot);
    x->rows = vq_calloc(n, sizeof *x->rows);
    x->err2 = vq_calloc(2 * x->run->plan->n, sizeof *x->err2);
    bool ok = x->slot && x->rows && x->err2;
    for (size_t i = 0; ok && i < n; i++) ok = (x->rows[i] = vq_aligned(Q_ALIGN, rows)) != NULL;
    for (size_t i = 0; ok && i < x->n_slots; i++) {
        x->slot[i].raw = vq_aligned(Q_ALIGN, x->raw_max);
        x->slot[i].out = vq_aligned(Q_ALIGN, x->out_max);
        ok = x->slot[i].raw && x->slot[i].out;
    }
    return ok ? VQ_OK : vq_fail(x->e, VQ_ENOMEM, "out of memory for %zu bands of %zu bytes",
                                x->n_slots, ring);
}

static void release(pipe *x, int threads)
{
    for (size_t i = 0; x->slot && i < x->n_slots; i++) {
        vq_aligned_free(x->slot[i].raw);
        vq_aligned_free(x->slot[i].out);
    }
    for (int i = 0; x->rows && i < threads; i++) vq_aligned_free(x->rows[i]);
    vq_free(x->slot);
    vq_free(x->rows);
    vq_free(x->err2);
    vq_pool_free(x->pool);
}

vq_status cv_pipeline(const cv_run *run, vq_err *e)
{
    assert(run->threads >= 1 && run->plan->n);
    pipe x = { .run = run, .e = e };
    int threads = run->threads;
    measure(&x);
    vq_status st = allocate(&x, &threads);
    if (!st) st = vq_pool_new(&x.pool, threads + 2, e);
    if (!st) {
        vq_pool_run(x.pool, role, &x);
        st = x.st;
    }
    release(&x, threads);
    return st;
}
