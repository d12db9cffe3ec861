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
 * file order is the one reported, for the same reason.
 * Bands may be left out: those that an earlier run has done, or, in a repair, all that are whole.
 * One more thread, the keeper, commits what is written (waiting for a disk must not stop the
 * others): about once a second, so that much is what a crash costs. */
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
    RSS_EVERY = 32,             /* bands between two looks at our own memory */
    COMMIT = 256 << 20          /* bytes written, or a second: the next commit is due */
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
    uint64_t hash;              /* of what was read */
    vq_status st;               /* of whoever filled it */
    bool hopeless;              /* the weights are to blame */
    vq_err err;
} slot;

typedef struct pipe {
    cv_run *run;
    vq_pool *pool;
    slot *slot;                 /* (n_slots); slot i holds bands i, i + n_slots, ... */
    size_t n_slots, n_bands;
    size_t raw_max, out_max, k_max; /* bytes, bytes, columns */
    size_t next_coded;          /* band the next free encoder takes */
    bool stop;
    float **rows;               /* (threads): (16, k) of each encoder */
    void **tmp;                 /* (threads): for q_encode_feedback, when there is calibration */
    size_t tmp_max;             /* bytes */
    int calibrated;             /* encoders that use moments of the layer that calib holds */
    double *err2;               /* (plan->n, 2) */
    uint64_t total;             /* bytes of the checkpoint that will be read */
    vq_status st;               /* of the writer: the outcome */
    vq_err *e;
    /* the keeper's */
    vq_mark want;               /* to be committed */
    bool due, over;             /* there is such a mark; there will be no more */
    vq_status keep_st;
    vq_err keep_err;
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

static size_t out_group(const vaq_tensor *t)
{
    return is_vector(t) ? t->cols * sizeof(float) : q_group_bytes(t->type, (int)t->cols);
}

/* Where in the file a band lies. */
static cv_range place_of(const cv_plan *p, const band *b)
{
    const vaq_tensor *t = &p->tensor[b->tensor];
    const uint64_t off = t->off + (uint64_t)b->group * out_group(t);
    return (cv_range){ off, off + (uint64_t)b->n_group * out_group(t) };
}

/* The band behind *b; starts with n_group = 0.  false: there is none. */
static bool following(const cv_plan *p, band *b)
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

/* The same, of those that this run is about. */
static bool next_band(const cv_run *r, band *b)
{
    while (following(r->plan, b)) {
        const cv_range at = place_of(r->plan, b);
        if (r->writer && at.end > r->from.pos) return true;
        for (size_t i = 0; !r->writer && i < r->n_range; i++) {
            if (at.off < r->range[i].end && at.end > r->range[i].off) return true;
        }
    }
    return false;
}

/* Rows of part `i` in a band, and the first of them: rows of the container's matrix, of a pair
 * those of one half. */
static uint32_t rows_in(const cv_plan *p, const band *b, int i, uint32_t *first)
{
    const cv_source *src = &p->src[b->tensor];
    const uint32_t share = (uint32_t)src->n;
    const uint32_t total = src->part[i].rows;
    const uint32_t last = (b->group + b->n_group) / share * Q_ROWS;
    *first = b->group / share * Q_ROWS;
    return (last < total ? last : total) - *first;
}

static cv_span span_in(const cv_plan *p, const band *b, int i)
{
    uint32_t first;
    const uint32_t n = rows_in(p, b, i, &first);
    return cv_part_span(&p->src[b->tensor].part[i], first, n);
}

/* ---- reading ---- */

static uint64_t chain(uint64_t before, uint64_t hash)
{
    const uint64_t v = (before ^ hash) * 0x9e3779b97f4a7c15u;
    return v ^ v >> 32;
}

/* Bytes of the checkpoint in a band. */
static uint64_t read_bytes(const cv_plan *p, const band *b)
{
    uint64_t n = 0;
    for (int i = 0; i < p->src[b->tensor].n; i++) {
        n += span_in(p, b, i).n * cv_part_row_bytes(&p->src[b->tensor].part[i]);
    }
    return n;
}

static void want_band(const pipe *x, const band *b)
{
    const cv_plan *p = x->run->plan;
    const cv_source *src = &p->src[b->tensor];
    for (int i = 0; i < src->n; i++) cv_part_want(&src->part[i], span_in(p, b, i));
}

static vq_status read_band(const cv_plan *p, slot *s)
{
    const cv_source *src = &p->src[s->b.tensor];
    uint8_t *to = s->raw;
    vq_status st = VQ_OK;
    for (int i = 0; !st && i < src->n; i++) {
        const cv_span span = span_in(p, &s->b, i);
        st = cv_part_read(&src->part[i], span, to, &s->err);
        to += cv_part_raw_bytes(&src->part[i], span);
    }
    if (!st) s->hash = cv_part_hash(s->raw, (size_t)(to - s->raw));
    return st;
}

static void reader(pipe *x)
{
    const cv_run *r = x->run;
    band b = { 0 }, ahead = { 0 };
    bool more = next_band(r, &ahead);
    for (size_t k = 0; k < x->n_bands; k++) {
        next_band(r, &b);
        /* gate and up are two streams through one file, too much for the system's own read-ahead */
        if (more) more = next_band(r, &ahead);
        if (more) want_band(x, &ahead);
        slot *s = &x->slot[k % x->n_slots];
        vq_pool_enter(x->pool);
        while (s->state != FREE && !x->stop) vq_pool_wait(x->pool);
        const bool stop = x->stop;
        vq_pool_leave(x->pool);
        if (stop) return;
        s->b = b;
        s->st = read_band(r->plan, s);
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
    s->hopeless = true;
    if (isfinite(v)) { /* 65504 is the largest of f16 */
        return vq_fail(&s->err, VQ_EFORMAT, "%s: tensor %.*s: the weight at row %llu, column %llu "
                       "is %g, too large for this type; choose another --type",
                       t->file->path, (int)t->own.n, t->own.p, r, c, (double)v);
    }
    return vq_fail(&s->err, VQ_EFORMAT, "%s: tensor %.*s: the weight at row %llu, column %llu is "
                   "%s; the file is damaged, download it again",
                   t->file->path, (int)t->own.n, t->own.p, r, c,
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

static vq_status encode_band(const pipe *x, slot *s, float *rows, const q_moments *m, void *tmp)
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
        uint8_t *out = s->out + g * out_group(t);
        const q_kern *kern = x->run->kern;
        const q_moments own = m ? cv_calib_part(m, t, s->b.group + g) : (q_moments){ 0 };
        const uint64_t bad =
            m ? q_encode_feedback(kern, t->type, out, rows, k, (int)take, (int)k, &own, err2, tmp)
              : q_encode_group(kern, t->type, out, rows, k, (int)take, (int)k, NULL, err2);
        if (bad) {
            const uint64_t r = (bad - 1) / k, c = (bad - 1) % k;
            return bad_weight(s, part, first[i] + at + r, c, rows[r * k + c]);
        }
        s->err2[0] += err2[0];
        s->err2[1] += err2[1];
    }
    return VQ_OK;
}

/* Moments for a band that was taken, in the monitor.  Those of one layer are held at a time and the
 * bands come in order, so who wants the next ones waits until the others are done with theirs, and
 * has them made while all wait. */
static const q_moments *take_moments(pipe *x, slot *s)
{
    const vaq_tensor *t = &x->run->plan->tensor[s->b.tensor];
    const q_moments *m = NULL;
    if (!x->run->calib || s->st || !cv_calib_knows(x->run->calib, t)) return NULL;
    while (x->calibrated && !cv_calib_holds(x->run->calib, t)) vq_pool_wait(x->pool);
    s->st = cv_calib_moments(x->run->calib, t, &m, &s->err);
    if (m) x->calibrated++;
    return m;
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
        const q_moments *m = take_moments(x, s);
        vq_pool_leave(x->pool);
        if (!s->st) s->st = encode_band(x, s, rows, m, x->tmp ? x->tmp[index] : NULL);
        vq_pool_enter(x->pool);
        if (m) x->calibrated--;
        s->state = CODED;
        vq_pool_wake(x->pool);
    }
    vq_pool_leave(x->pool);
}

/* ---- writing ---- */

static vq_status write_band(pipe *x, const slot *s)
{
    cv_run *r = x->run;
    const size_t i = s->b.tensor;
    const vaq_tensor *t = &r->plan->tensor[i];
    const size_t size = out_group(t), n = s->b.n_group * size;
    const uint64_t at = (uint64_t)s->b.group * size;
    if (s->st) {
        if (x->e) *x->e = s->err;
        r->hopeless = s->hopeless;
        return s->st;
    }
    const vq_status st = r->writer ? vq_writer_put(r->writer, i, at, s->out, n, x->e)
                                   : r->put(r->to, t->off + at, s->out, n, x->e);
    if (st) return st;
    double *sum = &x->err2[2 * i];
    sum[0] += s->err2[0];
    sum[1] += s->err2[1];
    const uint64_t source = r->at.source + read_bytes(r->plan, &s->b);
    const uint64_t hash = chain(r->at.source_hash, s->hash);
    if (r->writer && s->b.group + s->b.n_group == groups_of(t)) {
        r->rel_rmse[i] = sum[1] > 0 ? (float)sqrt(sum[0] / sum[1]) : 0;
        vq_writer_rmse(r->writer, i, r->rel_rmse[i]);
    }
    if (r->writer) vq_writer_mark(r->writer, &r->at);
    r->at.source = source;
    r->at.source_hash = hash;
    memcpy(r->at.err2, sum, sizeof r->at.err2);
    return VQ_OK;
}

/* Gives the keeper a mark when it has nothing to do and one is due. */
static void keep(pipe *x, double *last, uint64_t *pos)
{
    const cv_run *r = x->run;
    const uint64_t n = r->at.pos - *pos;
    const double now = vq_now();
    if (!x->due && (r->step ? n >= r->step : n >= COMMIT || (n && now - *last >= 1))) {
        x->want = r->at;
        x->due = true;
        *last = now;
        *pos = r->at.pos;
    }
}

static void writer(pipe *x)
{
    cv_run *r = x->run;
    double last = vq_now();
    uint64_t pos = r->from.pos;
    for (size_t k = 0; k < x->n_bands && !x->st; k++) {
        slot *s = &x->slot[k % x->n_slots];
        vq_pool_enter(x->pool);
        while (s->state != CODED) vq_pool_wait(x->pool);
        vq_pool_leave(x->pool);
        x->st = write_band(x, s);
        if (k % RSS_EVERY == 0) vq_rss_anon(); /* keeps the peak it remembers true */
        if (!x->st && r->progress && r->progress(r->ctx, r->at.source, x->total)) {
            x->st = vq_fail(x->e, VQ_EINTR, "interrupted");
        }
        vq_pool_enter(x->pool);
        s->state = FREE;
        if (!x->st && x->keep_st) {
            x->st = x->keep_st;
            if (x->e) *x->e = x->keep_err;
        }
        x->stop = x->st != VQ_OK;
        if (r->writer && !x->stop) keep(x, &last, &pos);
        vq_pool_wake(x->pool);
        vq_pool_leave(x->pool);
    }
    vq_pool_enter(x->pool);
    while (x->due) vq_pool_wait(x->pool);
    x->over = true;
    vq_pool_wake(x->pool);
    vq_pool_leave(x->pool);
    if (!x->st && x->keep_st) {
        x->st = x->keep_st;
        if (x->e) *x->e = x->keep_err;
    }
    /* What stopped us need not cost what is written. */
    if (x->st && !x->keep_st && r->writer && r->at.pos > pos) {
        vq_writer_commit(r->writer, &r->at, NULL);
    }
}

static void keeper(pipe *x)
{
    vq_pool_enter(x->pool);
    for (;;) {
        while (!x->due && !x->over) vq_pool_wait(x->pool);
        if (!x->due) break;
        vq_pool_leave(x->pool);
        const vq_status st = vq_writer_commit(x->run->writer, &x->want, &x->keep_err);
        vq_pool_enter(x->pool);
        x->keep_st = st;
        x->due = false;
        vq_pool_wake(x->pool);
    }
    vq_pool_leave(x->pool);
}

static void role(void *ctx, int thread)
{
    pipe *x = ctx;
    if (thread == 0) writer(x);
    else if (thread == 1) reader(x);
    else if (thread == 2) keeper(x);
    else encoder(x, thread - 3);
}

/* ---- memory ---- */

static void measure(pipe *x)
{
    const cv_plan *p = x->run->plan;
    x->total = x->run->from.source;
    for (band b = { 0 }; next_band(x->run, &b);) {
        x->total += read_bytes(p, &b);
        const vaq_tensor *t = &p->tensor[b.tensor];
        size_t raw = 0;
        for (int i = 0; i < p->src[b.tensor].n; i++) {
            raw += cv_part_raw_bytes(&p->src[b.tensor].part[i], span_in(p, &b, i));
        }
        const size_t out = b.n_group * out_group(t);
        if (raw > x->raw_max) x->raw_max = raw;
        if (out > x->out_max) x->out_max = out;
        if (t->cols > x->k_max) x->k_max = t->cols;
        if (x->run->calib && cv_calib_knows(x->run->calib, t)) {
            const size_t tmp = q_feedback_tmp(t->type, (int)t->cols);
            if (tmp > x->tmp_max) x->tmp_max = tmp;
        }
        x->n_bands++;
    }
}

/* As many encoders and slots as asked for and the budget allows. */
static vq_status allocate(pipe *x, int *threads)
{
    const size_t floats = Q_ROWS * x->k_max * sizeof(float), rows = floats + x->tmp_max;
    const size_t ring = x->raw_max + x->out_max;
    size_t n = (size_t)*threads;
    while (n > 1 && n * rows + (n + MIN_SLOTS) * ring > BUDGET) n--;
    x->n_slots = 2 * n + MIN_SLOTS; /* bands wait for their turn while the next are encoded */
    while (x->n_slots > n + MIN_SLOTS && n * rows + x->n_slots * ring > BUDGET) x->n_slots--;
    *threads = (int)n;
    x->slot = vq_calloc(x->n_slots, sizeof *x->slot);
    x->rows = vq_calloc(n, sizeof *x->rows);
    x->err2 = vq_calloc(2 * x->run->plan->n, sizeof *x->err2);
    if (x->tmp_max) x->tmp = vq_calloc(n, sizeof *x->tmp);
    bool ok = x->slot && x->rows && x->err2 && (x->tmp || !x->tmp_max);
    for (size_t i = 0; ok && i < n; i++) {
        x->rows[i] = vq_aligned(Q_ALIGN, floats);
        if (x->tmp) x->tmp[i] = vq_aligned(Q_ALIGN, x->tmp_max);
        ok = x->rows[i] && (!x->tmp || x->tmp[i]);
    }
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
    for (int i = 0; x->tmp && i < threads; i++) vq_aligned_free(x->tmp[i]);
    vq_free(x->tmp);
    vq_free(x->slot);
    vq_free(x->rows);
    vq_free(x->err2);
    vq_pool_free(x->pool);
}

vq_status cv_pipeline(cv_run *run, vq_err *e)
{
    assert(run->threads >= 1 && run->plan->n);
    pipe x = { .run = run, .e = e };
    int threads = run->threads;
    run->at = run->from;
    run->hopeless = false;
    measure(&x);
    if (!x.n_bands) return VQ_OK;
    vq_status st = allocate(&x, &threads);
    if (!st) st = vq_pool_new(&x.pool, threads + 3, e);
    if (!st) {
        band first = { 0 };
        next_band(run, &first);
        if (place_of(run->plan, &first).off < run->from.pos) {
            st = vq_fail(e, VQ_EFAIL, "the unfinished file is of another build, which cuts its "
                         "work otherwise; it was removed: run the command again");
            run->hopeless = true;
        }
        memcpy(&x.err2[2 * first.tensor], run->from.err2, sizeof run->from.err2);
        if (!first.group) x.err2[2 * first.tensor] = x.err2[2 * first.tensor + 1] = 0;
        if (!st) vq_pool_run(x.pool, role, &x);
        if (!st) st = x.st;
    }
    release(&x, threads);
    return st;
}

vq_status cv_pipeline_same(const cv_run *run, bool *same, vq_err *e)
{
    const cv_plan *p = run->plan;
    slot s = { 0 };
    uint64_t hash = 0, done = 0;
    size_t most = 0;
    for (band b = { 0 }; following(p, &b) && place_of(p, &b).end <= run->from.pos;) {
        size_t n = 0;
        for (int i = 0; i < p->src[b.tensor].n; i++) {
            n += cv_part_raw_bytes(&p->src[b.tensor].part[i], span_in(p, &b, i));
        }
        if (n > most) most = n;
    }
    s.raw = vq_aligned(Q_ALIGN, most ? most : 1);
    vq_status st = s.raw ? VQ_OK : vq_fail(e, VQ_ENOMEM, "out of memory for %zu bytes", most);
    while (!st && following(p, &s.b) && place_of(p, &s.b).end <= run->from.pos) {
        st = read_band(p, &s);
        if (st && e) *e = s.err;
        hash = chain(hash, s.hash);
        done += read_bytes(p, &s.b);
        if (!st && run->progress && run->progress(run->ctx, done, run->from.source)) {
            st = vq_fail(e, VQ_EINTR, "interrupted");
        }
    }
    vq_aligned_free(s.raw);
    *same = hash == run->from.source_hash;
    return st;
}
