/* export.c - writes a container as a GGUF file, tensor by tensor.
 *
 * The plan first: every tensor's name, shape and type, hence the size and place of each and the
 * whole header.  Then the data in file order, in steps of some mebibytes of rows: all threads take
 * rows from the map, decode and encode them, one writes.  What is written follows from the
 * container and the types alone.  The file has its name when it is whole: it grows under a
 * temporary one.
 *
 * The layout is llama.cpp's (models.md 9): columns first, experts of a layer in one tensor, rows of
 * q and k in llama's files as pairs for its rotary code, everything that is no matrix in F32. */
#include "convert/export.h"

#include "convert/blocks.h"
#include "convert/gguf_model.h"
#include "convert/plan.h"
#include "core/base/mem.h"
#include "core/base/os.h"
#include "core/base/pool.h"
#include "core/file/check.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { ALIGN = 32, STEP = 8 << 20 /* bytes written at a time */, MIN_STEP = Q_ROWS };

typedef struct job {
    const cv_export_opts *o;
    cv_export_report *r;
    vq_file *f;
    vq_pool *pool;
    size_t cap;             /* of r->tensor */
    float freqs[VAQ_MAX_HEAD_DIM / 2];
    bool has_freqs;
    vq_buf head;            /* the file up to the data */
    uint64_t bytes;         /* of the whole file */
    char *tmp;
    vq_fd fd;               /* of tmp; -1: not made */
    uint64_t at;            /* next byte of the file */
    /* the step in hand */
    const cv_export_tensor *t;
    uint64_t row;
    int n_row;
    uint8_t *out;           /* (n_row) rows as in the file */
    double *err2;           /* (n_row, 2): sums of (w - q)^2, w^2; of a row that is too large -1 */
    float **scratch;        /* (threads): two rows */
    vq_err *e;
} job;

static vq_status no_memory(const job *b)
{
    return vq_fail(b->e, VQ_ENOMEM, "%s: out of memory", b->o->src);
}

static void notice(const job *b, const char *fmt, ...) VQ_PRINTF(2, 3);
static void notice(const job *b, const char *fmt, ...)
{
    char line[300];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    if (b->o->notice) b->o->notice(b->o->ctx, line);
}

/* ---- types ---- */

/* Re-encoding adds (tiny trained models, mean relative error over their matrices): l8 as Q8_0
 * .004, l6 as Q6_K .01, n4s as IQ4_NL .02, n4 .03: its grid is IQ4's, a quarter as large. */
static cv_dtype nearest_to(int type)
{
    switch (type) {
    case Q_F32: return CV_F32;
    case Q_F16: return CV_F16;
    case Q_BF16: return CV_BF16;
    case Q_L8: return CV_Q8_0;
    case Q_L6:
    case Q_N5: return CV_Q6_K;
    default: return CV_IQ4_NL;
    }
}

/* A row is whole blocks, or another type steps in. */
static cv_dtype fitting(cv_dtype d, uint64_t cols)
{
    if (cols % cv_dtype_block(d) == 0) return d;
    if (d == CV_Q6_K && cols % 32 == 0) return CV_Q8_0;
    return CV_F16;
}

static cv_dtype type_for(const job *b, const cv_export_tensor *x)
{
    cv_dtype d = CV_F32;
    if (x->t->layout == VAQ_VECTOR || x->t->role == VAQ_ROUTER) return d;
    for (uint32_t i = 0; i < x->n_part; i++) { /* experts may differ: what the finest asks for */
        const cv_dtype own = nearest_to(x->t[i].type);
        if (!i || cv_row_bytes(own, 256) > cv_row_bytes(d, 256)) d = own;
    }
    if (b->o->type >= 0) d = (cv_dtype)b->o->type;
    return fitting(d, x->ne[0]);
}

/* ---- the plan ---- */

static vq_status gguf_name(const job *b, char out[64], char *name)
{
    vq_buf theirs = { 0 };
    vq_status st = VQ_OK;
    cv_drop_expert(name);
    const bool known = cv_gguf_name(&theirs, vq_str_c(name)) && theirs.n < 64;
    if (theirs.oom) {
        st = no_memory(b);
    } else if (known) {
        memcpy(out, theirs.p, theirs.n + 1);
    } else {
        st = vq_fail(b->e, VQ_EFORMAT, "%s: GGUF has no name for its tensor %s", b->o->src, name);
    }
    vq_buf_clear(&theirs);
    return st;
}

static vq_status add(job *b, const vaq_tensor *t, uint32_t n_part)
{
    const vaq_config *c = b->f->config;
    const vq_role_row *row = vq_role_find(t->role);
    char names[2][96];
    /* k_up and v_up have names of their own here, unlike in checkpoints. */
    const bool ups = t->role == VAQ_K_UP || t->role == VAQ_V_UP;
    const int n = ups ? 1 : cv_source_names(t, names);
    if (ups) {
        char full[96];
        vq_tensor_name(full, t);
        snprintf(names[0], sizeof names[0], "%s", cv_canonical(vq_str_c(full)).p);
    }
    for (int i = 0; i < n; i++) {
        cv_export_report *r = b->r;
        if (vq_grow(&r->tensor, &b->cap, r->n_tensor + 1, sizeof *r->tensor)) return no_memory(b);
        cv_export_tensor *x = &r->tensor[r->n_tensor++];
        *x = (cv_export_tensor){ .ne = { t->cols, 1, 1 }, .t = t, .n_part = n_part, .rows = t->rows,
                                 .half = n > 1 ? i : -1 };
        if (n > 1) x->rows = vq_dim_of(c, row->rows);
        const vq_status st = gguf_name(b, x->name, names[i]);
        if (st) return st;
        x->ne[1] = t->layout == VAQ_VECTOR ? 1 : x->rows;
        x->ne[2] = n_part;
        if (ups) { /* heads are a dimension of their own */
            x->ne[1] = x->rows / c->n_head;
            x->ne[2] = c->n_head;
        }
        if (c->arch == VAQ_LLAMA && (t->role == VAQ_Q || t->role == VAQ_K)) {
            x->pair_rows = c->head_dim;
        }
        x->type = type_for(b, x);
        r->params += x->ne[0] * x->ne[1] * x->ne[2];
        if (t->layout != VAQ_VECTOR) r->pairs[t->type] |= 1u << x->type;
    }
    return VQ_OK;
}

/* Tensors as the container has them, in the order of its file; MTP layers are left out, as
 * llama.cpp's own converter leaves them out. */
static vq_status plan(job *b)
{
    const vq_file *f = b->f;
    const vaq_config *c = f->config;
    uint32_t *order = vq_tensor_order(f->tensor, f->n_tensor);
    if (!order) return no_memory(b);
    vq_status st = VQ_OK;
    for (uint32_t i = 0; !st && i < f->n_tensor; i++) {
        const vaq_tensor *t = &f->tensor[order[i]];
        if (t->layer != VAQ_NO_LAYER && t->layer >= c->n_layer) continue;
        /* the table is sorted: experts of a layer follow each other there */
        if (t->expert <= 0) st = add(b, t, t->expert < 0 ? 1 : c->n_expert);
    }
    vq_free(order);
    if (c->n_mtp) notice(b, "the MTP layer is left out: GGUF readers of this model do not use it");
    b->has_freqs = cv_export_freqs(b->freqs, f);
    return st;
}

static vq_status check_model(const job *b)
{
    const vaq_config *c = b->f->config;
    const char *what = NULL;
    if (c->arch == VAQ_DEEPSEEK3) {
        if (!c->q_lora) what = "without q_lora_rank";
        else if (!(c->flags & VAQ_F_ROPE_PAIRS)) what = "whose rotary pairs are not neighbours";
        else if (!c->n_expert_shared) what = "without shared experts";
    } else if (c->flags & VAQ_F_ROPE_PAIRS) {
        what = "whose rotary pairs are neighbours";
    }
    return !what ? VQ_OK : vq_fail(b->e, VQ_EFORMAT, "%s: a %s model %s has no form in GGUF",
                                   b->o->src, vq_arch_name(c->arch), what);
}

/* ---- the header ---- */

static void le(vq_buf *b, uint64_t v, int n)
{
    for (int i = 0; i < n; i++) vq_buf_char(b, (char)(v >> 8 * i & 255));
}

static uint64_t padded(uint64_t n) { return (n + ALIGN - 1) / ALIGN * ALIGN; }

static uint64_t size_of(const cv_export_tensor *x)
{
    return cv_row_bytes(x->type, (size_t)x->ne[0]) * x->ne[1] * x->ne[2];
}

static void put_info(vq_buf *h, const char *name, const uint64_t ne[3], cv_dtype type, uint64_t off)
{
    const int dims = ne[2] > 1 ? 3 : ne[1] > 1 ? 2 : 1;
    le(h, strlen(name), 8);
    vq_buf_str(h, name);
    le(h, (uint64_t)dims, 4);
    for (int i = 0; i < dims; i++) le(h, ne[i], 8);
    le(h, cv_gtype_of(type)->id, 4);
    le(h, off, 8);
}

static cv_dtype most_of(const cv_export_report *r)
{
    uint64_t n[CV_OTHER] = { 0 };
    cv_dtype best = CV_F32;
    for (size_t i = 0; i < r->n_tensor; i++) {
        const cv_export_tensor *x = &r->tensor[i];
        n[x->type] += x->ne[0] * x->ne[1] * x->ne[2];
        if (n[x->type] > n[best]) best = x->type;
    }
    return best;
}

static vq_status make_header(job *b)
{
    const cv_export_report *r = b->r;
    const uint64_t freqs[3] = { b->f->config->rope_dim / 2, 1, 1 };
    vq_buf *h = &b->head, keys = { 0 };
    uint64_t n_key, off = 0;
    vq_status st = cv_export_keys(&keys, &n_key, b->f, most_of(r), b->e);
    if (!st) {
        vq_buf_str(h, "GGUF");
        le(h, 3, 4);
        le(h, r->n_tensor + b->has_freqs, 8);
        le(h, n_key, 8);
        vq_buf_add(h, keys.p, keys.n);
        if (b->has_freqs) {
            put_info(h, "rope_freqs.weight", freqs, CV_F32, off);
            off += padded(freqs[0] * sizeof(float));
        }
        for (size_t i = 0; i < r->n_tensor; i++) {
            put_info(h, r->tensor[i].name, r->tensor[i].ne, r->tensor[i].type, off);
            off += padded(size_of(&r->tensor[i]));
        }
        while (h->n % ALIGN && !h->oom) vq_buf_char(h, 0);
        if (h->oom) st = no_memory(b);
    }
    b->bytes = h->n + off;
    vq_buf_clear(&keys);
    return st;
}

/* ---- the file ---- */

static vq_status check_target(const job *b)
{
    const char *path = b->o->out;
    uint64_t left;
    const vq_status st = vq_check_name(path, b->o->force, b->e);
    if (st) return st;
    if (vq_disk_free(path, &left) && left < b->bytes) {
        char need[16], have[16];
        vq_fmt_size(need, b->bytes);
        vq_fmt_size(have, left);
        return vq_fail(b->e, VQ_ENOFIT, "%s: needs %s of disk space, %s are free; free some, "
                       "choose another place with -o, or a smaller --type",
                       path, need, have);
    }
    return VQ_OK;
}

static vq_status create_tmp(job *b)
{
    vq_buf name = { 0 };
    vq_buf_printf(&name, "%s.tmp-%08x", b->o->out, (unsigned)(vq_random64() & 0xffffffff));
    if (name.oom) {
        vq_buf_clear(&name);
        return no_memory(b);
    }
    b->tmp = name.p;
    const vq_status st = vq_fd_create(&b->fd, b->tmp, b->e);
    if (st) b->fd.fd = -1;
    else vq_cleanup_on_signal(b->tmp);
    return st;
}

/* n bytes and the padding behind them. */
static vq_status append(job *b, const void *p, size_t n, bool pad)
{
    static const uint8_t zeros[ALIGN];
    vq_status st = vq_fd_pwrite(b->fd, p, n, b->at, b->o->out, b->e);
    if (st) return st;
    vq_fd_start_write(b->fd, b->at, n);
    b->at += n;
    if (pad && b->at % ALIGN) {
        const size_t more = ALIGN - (size_t)(b->at % ALIGN);
        st = vq_fd_pwrite(b->fd, zeros, more, b->at, b->o->out, b->e);
        b->at += more;
    }
    if (!st && b->o->progress && b->o->progress(b->o->ctx, b->at, b->bytes)) {
        st = vq_fail(b->e, VQ_EINTR, "interrupted; nothing was kept");
    }
    return st;
}

/* ---- weights ---- */

/* Row `row` of the file's tensor. */
static void read_row(const job *b, const cv_export_tensor *x, uint64_t row, float *out)
{
    const vaq_tensor *t = &x->t[row / x->rows];
    const uint8_t *data = vq_file_data(b->f, t);
    uint32_t r = (uint32_t)(row % x->rows);
    if (t->layout == VAQ_VECTOR) {
        memcpy(out, data, t->cols * sizeof *out);
        return;
    }
    if (x->pair_rows) {
        const uint32_t in = r % x->pair_rows;
        r = r - in + in / 2 + in % 2 * (x->pair_rows / 2);
    }
    uint32_t group = r / Q_ROWS;
    if (x->half >= 0) group = 2 * group + (uint32_t)x->half;
    q_decode_row(t->type, out, data + group * q_group_bytes(t->type, (int)t->cols),
                 (int)(r % Q_ROWS), (int)t->cols);
}

static void encode_row(const job *b, int i, float *w)
{
    const cv_export_tensor *x = b->t;
    const size_t n = (size_t)x->ne[0];
    uint8_t *out = b->out + (size_t)i * cv_row_bytes(x->type, n);
    float *back = w + n;
    double *err2 = &b->err2[2 * i];
    read_row(b, x, b->row + (uint64_t)i, w);
    err2[0] = err2[1] = 0;
    if (!cv_encode(out, x->type, w, n)) {
        err2[0] = -1;
        return;
    }
    cv_decode(back, x->type, out, n);
    for (size_t k = 0; k < n; k++) {
        const double d = (double)w[k] - (double)back[k];
        err2[0] += d * d;
        err2[1] += (double)w[k] * (double)w[k];
    }
}

static void encode_step(void *ctx, int thread)
{
    const job *b = ctx;
    for (int i; (i = vq_job(b->pool, thread, b->n_row)) >= 0;) {
        encode_row(b, i, b->scratch[thread]);
    }
    vq_barrier(b->pool, thread);
}

static vq_status write_tensor(job *b, cv_export_tensor *x)
{
    const uint64_t rows = x->ne[1] * x->ne[2];
    const size_t bytes = cv_row_bytes(x->type, (size_t)x->ne[0]);
    const uint64_t most = STEP / bytes > MIN_STEP ? STEP / bytes : MIN_STEP;
    double sum[2] = { 0 };
    vq_status st = VQ_OK;
    b->t = x;
    for (b->row = 0; !st && b->row < rows; b->row += (uint64_t)b->n_row) {
        b->n_row = (int)(rows - b->row < most ? rows - b->row : most);
        vq_pool_run(b->pool, encode_step, b);
        for (int i = 0; !st && i < b->n_row; i++) {
            sum[0] += b->err2[2 * i];
            sum[1] += b->err2[2 * i + 1];
            if (b->err2[2 * i] >= 0) continue;
            st = vq_fail(b->e, VQ_EFAIL, "%s: tensor %s: a weight in row %llu is too large for %s; "
                         "choose another --type",
                         b->o->src, x->name, (unsigned long long)b->row + (unsigned)i,
                         cv_gtype_of(x->type)->name);
        }
        if (!st && vq_map_hurt(&b->f->map)) {
            st = vq_fail(b->e, VQ_EFORMAT, "%s: could not be read to its end: the file was cut or "
                         "the disk failed", b->o->src);
        }
        const bool last = b->row + (uint64_t)b->n_row == rows;
        if (!st) st = append(b, b->out, (size_t)b->n_row * bytes, last);
        vq_rss_anon(); /* keeps the peak it remembers true */
    }
    x->rel_rmse = sum[1] > 0 ? (float)sqrt(sum[0] / sum[1]) : 0;
    for (uint32_t i = 0; i < x->n_part; i++) vq_map_drop(&b->f->map, x->t[i].off, x->t[i].size);
    return st;
}

static vq_status allocate(job *b)
{
    const int threads = b->o->threads > 0 ? b->o->threads : vq_cpu_fast_count();
    size_t out = STEP, rows = MIN_STEP, cols = 0;
    for (size_t i = 0; i < b->r->n_tensor; i++) {
        const cv_export_tensor *x = &b->r->tensor[i];
        const size_t bytes = cv_row_bytes(x->type, (size_t)x->ne[0]);
        if (MIN_STEP * bytes > out) out = MIN_STEP * bytes;
        if (STEP / bytes > rows) rows = STEP / bytes;
        if (x->ne[0] > cols) cols = (size_t)x->ne[0];
    }
    const vq_status st = vq_pool_new(&b->pool, threads, b->e);
    if (st) return st;
    b->out = vq_malloc(out);
    b->err2 = vq_calloc(2 * rows, sizeof *b->err2);
    b->scratch = vq_calloc((size_t)vq_pool_size(b->pool), sizeof *b->scratch);
    bool ok = b->out && b->err2 && b->scratch;
    for (int i = 0; ok && i < vq_pool_size(b->pool); i++) {
        ok = (b->scratch[i] = vq_malloc(2 * cols * sizeof **b->scratch)) != NULL;
    }
    return ok ? VQ_OK : no_memory(b);
}

static vq_status write_file(job *b)
{
    vq_status st = create_tmp(b);
    if (!st) st = append(b, b->head.p, b->head.n, false);
    if (!st && b->has_freqs) {
        st = append(b, b->freqs, b->f->config->rope_dim / 2 * sizeof *b->freqs, true);
    }
    for (size_t i = 0; !st && i < b->r->n_tensor; i++) st = write_tensor(b, &b->r->tensor[i]);
    assert(st || b->at == b->bytes);
    if (!st) st = vq_fd_sync(b->fd, b->o->out, b->e);
    if (!st) st = vq_rename(b->tmp, b->o->out, b->e);
    if (b->fd.fd >= 0) {
        vq_fd_close(&b->fd);
        if (st) vq_unlink(b->tmp);
        vq_cleanup_cancel();
    }
    return st;
}

static vq_status check_opts(const job *b)
{
    const char *dot = strrchr(b->o->out, '.');
    if (!dot || strcmp(dot, ".gguf") != 0) {
        return vq_fail(b->e, VQ_EUSAGE, "%s: a GGUF file is called something.gguf", b->o->out);
    }
    assert(b->o->type < 0 || cv_encodes((cv_dtype)b->o->type));
    return VQ_OK;
}

vq_status cv_export(const cv_export_opts *o, cv_export_report *report, vq_err *e)
{
    job b = { .o = o, .r = report, .fd = { -1 }, .e = e };
    const double start = vq_now();
    q_kern kern;
    *report = (cv_export_report){ 0 };
    vq_status st = check_opts(&b);
    if (!st && !q_kern_make(&kern, o->cpu)) {
        st = vq_fail(e, VQ_EUSAGE, "%s: no such CPU level here", o->cpu);
    }
    if (!st) st = vq_file_open(&b.f, o->src, &kern, e);
    if (!st) st = check_model(&b);
    if (!st) st = plan(&b);
    if (!st) st = make_header(&b);
    if (!st) st = check_target(&b);
    if (!st) st = allocate(&b);
    if (!st) st = write_file(&b);
    report->bytes = b.bytes;
    report->seconds = vq_now() - start;
    report->peak_rss = vq_peak_rss_anon();
    for (int i = 0; b.scratch && i < vq_pool_size(b.pool); i++) vq_free(b.scratch[i]);
    vq_free(b.scratch);
    vq_free(b.out);
    vq_free(b.err2);
    vq_free(b.tmp);
    vq_buf_clear(&b.head);
    vq_pool_free(b.pool);
    vq_file_close(b.f);
    if (st) cv_export_report_clear(report);
    return st;
}

void cv_export_report_clear(cv_export_report *r)
{
    vq_free(r->tensor);
    *r = (cv_export_report){ 0 };
}
