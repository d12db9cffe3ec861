/* bench.c - prefill and decode of one model, as shares of what the machine can do.
 *
 * Protocol: every repetition is bracketed by a measurement of the limit it is compared with (a read
 * of at least 1 GiB for decode, the int8 loop for prefill), because the limits of shared machines
 * wander; a share is the median of the ratios, never a ratio of medians.
 *   prefill: share = tokens/s * multiply-adds per token / int8 peak.  Attention's own products are
 *            not counted, so long prompts show what attention costs.
 *   decode:  share = bytes that one step must read (weights once, KV of every sequence) / time /
 *            read rate.  Of experts, those of one token are counted: of a batch that is too few. */
#include "bench/bench.h"

#include "bench/roofline.h"
#include "bench/shape.h"
#include "core/base/json.h"
#include "core/base/mem.h"
#include "core/base/os.h"
#include "core/file/check.h"
#include "core/engine/engine.h"
#include "core/vaquita.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LIST_MAX = 16, POSITIONS_MAX = 1 << 20 };

static const char csv_header[] =
    "level,threads,model,type,what,tokens,batch,reps,tps,share,limit,unit\n";

typedef struct list {
    int v[LIST_MAX];
    int n;
} list;

typedef struct row {
    int tokens, batch;        /* of a prefill, 1; of a decode: positions before it, sequences */
    double tps, gbs;          /* gbs: of a decode */
    double share, limit;      /* limit: GMAC/s or GB/s beside these runs */
} row;

static const char what[2][8] = { "prefill", "decode" };

typedef struct bench {
    const bn_opts *o;
    int reps, gen;
    list prompt, depth, batch;
    q_kern kern;
    vq_engine *eng;
    bn_roof *roof;
    uint64_t weight_bytes; /* read by one decode step: every matrix but a separate embedding */
    uint64_t macs;         /* per token of a prefill: every matrix but embedding and head */
    uint64_t kv_bytes;     /* per position */
    double load_ms, read_gbs, int8_gmacs;
    uint64_t private_bytes;
    row pre[LIST_MAX];
    int n_pre;
    row dec[LIST_MAX * LIST_MAX];
    int n_dec;
    double reads[BN_REPS_MAX], peaks[BN_REPS_MAX]; /* limits measured by the latest row */
} bench;

static void say(const bench *b, const char *fmt, ...) VQ_PRINTF(2, 3);
static void say(const bench *b, const char *fmt, ...)
{
    if (!b->o->say) return;
    char line[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    b->o->say(b->o->ctx, line);
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, ascending);
    return n % 2 ? v[n / 2] : 0.5 * (v[n / 2 - 1] + v[n / 2]);
}

static vq_status parse_list(list *l, const char *s, int fallback, int least, int most,
                            const char *opt, vq_err *e)
{
    vq_ids ids = { 0 };
    vq_status st = VQ_OK;
    l->n = 0;
    if (!s) {
        l->v[l->n++] = fallback;
        return VQ_OK;
    }
    if (!vq_parse_ids(s, &ids) || ids.n == 0 || ids.n > LIST_MAX)
        st = vq_fail(e, VQ_EUSAGE, "%s: expected up to %d numbers like 32,512, found '%s'", opt,
                     LIST_MAX, s);
    for (size_t i = 0; !st && i < ids.n; i++) {
        if (ids.v[i] < least || ids.v[i] > most)
            st = vq_fail(e, VQ_EUSAGE, "%s: %d is out of range (%d to %d)", opt, (int)ids.v[i],
                         least, most);
        else
            l->v[l->n++] = (int)ids.v[i];
    }
    vq_ids_clear(&ids);
    return st;
}

static int largest(const list *l)
{
    int m = 0;
    for (int i = 0; i < l->n; i++) m = l->v[i] > m ? l->v[i] : m;
    return m;
}

static void count_weights(bench *b, const vq_file *f)
{
    const bool tied = f->config->flags & VAQ_F_TIED;
    for (uint32_t i = 0; i < f->n_tensor; i++) {
        const vaq_tensor *t = &f->tensor[i];
        if (t->layout == 0) continue;
        const bool head = t->role == VAQ_HEAD || (t->role == VAQ_EMBED && tied);
        if (t->role == VAQ_EMBED && !tied) continue;
        if (t->layer != VAQ_NO_LAYER && t->layer >= f->config->n_layer) continue; /* drafts */
        uint64_t bytes = t->size, macs = (uint64_t)t->rows * t->cols;
        if (t->expert >= 0) { /* of all experts, what one token chooses */
            bytes = bytes * f->config->n_expert_used / f->config->n_expert;
            macs = macs * f->config->n_expert_used / f->config->n_expert;
        }
        b->weight_bytes += bytes;
        if (!head) b->macs += macs;
    }
}

/* Ids spread over the vocabulary, the same in every run. */
static int32_t some_id(uint32_t *state, int n_ids)
{
    *state = *state * 1664525u + 1013904223u;
    return (int32_t)((*state >> 8) % (uint32_t)n_ids);
}

static vq_status add_ids(bench *b, vq_session *s, int n, uint32_t *state, vq_err *e)
{
    const int n_ids = vq_engine_info(b->eng)->n_ids;
    for (int i = 0; i < n; i++) {
        const int32_t id = some_id(state, n_ids);
        const vq_status st = vq_session_add(s, &id, 1, e);
        if (st) return st;
    }
    return VQ_OK;
}

static vq_status compute(bench *b, vq_session **s, int n, vq_err *e)
{
    for (size_t left = 1; left;) {
        const vq_status st = vq_step(b->eng, s, n, 0, &left, e);
        if (st) return st;
    }
    return VQ_OK;
}

/* How long to look at a limit after t seconds of work: with the look before, half as long. */
static double beside(double t) { return t < 4 ? t / 4 : 1; }

static vq_status measure_prefill(bench *b, int tokens, vq_err *e)
{
    const vq_session_opts so = { .ignore_eos = true };
    double tps[BN_REPS_MAX], share[BN_REPS_MAX];
    vq_session *s;
    vq_status st = vq_session_open(&s, b->eng, &so, e);
    if (st) return st;
    double before = bn_roof_int8(b->roof, 0);
    for (int i = -1; !st && i < b->reps; i++) { /* -1: a first run warms pages and clocks */
        uint32_t state = 1;
        st = vq_session_truncate(s, 0, e);
        if (!st) st = add_ids(b, s, tokens, &state, e);
        const double t0 = vq_now();
        if (!st) st = compute(b, &s, 1, e);
        const double t = vq_now() - t0, after = bn_roof_int8(b->roof, beside(t));
        if (i >= 0) {
            tps[i] = tokens / t;
            share[i] = tps[i] * (double)b->macs / 1e9 / (0.5 * (before + after));
            b->peaks[i] = after;
        }
        before = after;
    }
    vq_session_close(s);
    if (st) return st;
    b->int8_gmacs = median(b->peaks, b->reps);
    b->pre[b->n_pre++] = (row){ tokens, 1, median(tps, b->reps), 0, median(share, b->reps),
                                 b->int8_gmacs };
    say(b, "prefill %5d tokens   %9.1f tokens/s   %5.1f %% of the int8 peak", tokens,
        b->pre[b->n_pre - 1].tps, 100 * b->pre[b->n_pre - 1].share);
    return VQ_OK;
}

static vq_status measure_decode(bench *b, int depth, int batch, vq_err *e)
{
    const vq_session_opts so = { .ignore_eos = true };
    double tps[BN_REPS_MAX], gbs[BN_REPS_MAX], share[BN_REPS_MAX];
    vq_session **s = vq_calloc((size_t)batch, sizeof *s);
    if (!s) return vq_fail(e, VQ_ENOMEM, "out of memory for the %d of --batch", batch);
    vq_status st = VQ_OK;
    uint32_t state = 7;
    for (int i = 0; !st && i < batch; i++) {
        st = vq_session_open(&s[i], b->eng, &so, e);
        if (!st && depth > 0) st = vq_session_pad(s[i], (size_t)depth, e);
    }
    double before = bn_roof_read(b->roof, 0);
    for (int r = -1; !st && r < b->reps; r++) {
        for (int i = 0; !st && i < batch; i++) st = vq_session_truncate(s[i], (size_t)depth, e);
        double t = 0;
        for (int k = 0; !st && k < b->gen; k++) {
            for (int i = 0; !st && i < batch; i++) st = add_ids(b, s[i], 1, &state, e);
            const double t0 = vq_now();
            if (!st) st = compute(b, s, batch, e);
            t += vq_now() - t0;
        }
        const double after = bn_roof_read(b->roof, beside(t));
        if (r >= 0) {
            const double bytes = (double)b->weight_bytes +
                                 (double)b->kv_bytes * batch * (depth + 0.5 * (b->gen + 1));
            tps[r] = batch * b->gen / t;
            gbs[r] = bytes * b->gen / t / 1e9;
            share[r] = gbs[r] / (0.5 * (before + after));
            b->reads[r] = after;
        }
        before = after;
    }
    for (int i = 0; i < batch; i++) vq_session_close(s[i]);
    vq_free(s);
    if (st) return st;
    b->read_gbs = median(b->reads, b->reps);
    b->dec[b->n_dec++] = (row){ depth, batch, median(tps, b->reps), median(gbs, b->reps),
                                median(share, b->reps), b->read_gbs };
    const row *d = &b->dec[b->n_dec - 1];
    say(b, "decode at %5d x %2d     %9.2f tokens/s   %5.1f GB/s   %5.1f %% of the read rate", depth,
        batch, d->tps, d->gbs, 100 * d->share);
    return VQ_OK;
}

static void write_json(const bench *b, vq_buf *out)
{
    const vq_info *in = b->eng ? vq_engine_info(b->eng) : NULL;
    vq_jw w = { .b = out };
    vq_jw_open(&w, NULL, '{');
    vq_jw_cstr(&w, "version", VQ_VERSION);
    vq_jw_cstr(&w, "cpu", b->kern.level);
    if (in) {
        vq_jw_cstr(&w, "model", b->o->model ? b->o->model : b->o->shape);
        if (b->o->shape) vq_jw_cstr(&w, "type", b->o->type ? b->o->type : "n4");
        vq_jw_i64(&w, "threads", in->threads);
        vq_jw_i64(&w, "reps", b->reps);
        vq_jw_i64(&w, "n", b->gen);
        vq_jw_u64(&w, "weight_bytes", b->weight_bytes);
        vq_jw_u64(&w, "kv_bytes_per_position", b->kv_bytes);
        vq_jw_u64(&w, "macs_per_token", b->macs);
    }
    vq_jw_open(&w, "roofline", '{');
    vq_jw_f64(&w, "read_gbs", b->read_gbs);
    vq_jw_f64(&w, "int8_gmacs", b->int8_gmacs);
    vq_jw_close(&w, '}');
    for (int i = 0; i < 2; i++) {
        const row *r = i ? b->dec : b->pre;
        vq_jw_open(&w, what[i], '[');
        for (const row *end = r + (i ? b->n_dec : b->n_pre); r < end; r++) {
            vq_jw_open(&w, NULL, '{');
            vq_jw_i64(&w, i ? "depth" : "tokens", r->tokens);
            if (i) vq_jw_i64(&w, "batch", r->batch);
            vq_jw_f64(&w, "tps", r->tps);
            if (i) vq_jw_f64(&w, "gbs", r->gbs);
            vq_jw_f64(&w, "share", r->share);
            vq_jw_f64(&w, "limit", r->limit);
            vq_jw_close(&w, '}');
        }
        vq_jw_close(&w, ']');
    }
    if (in) {
        vq_jw_f64(&w, "load_ms", b->load_ms);
        vq_jw_f64(&w, "private_mb", (double)b->private_bytes / 1e6);
    }
    vq_jw_close(&w, '}');
    vq_buf_char(out, '\n');
}

static void write_table(const bench *b, vq_buf *out)
{
    const vq_info *in = b->eng ? vq_engine_info(b->eng) : NULL;
    vq_buf_printf(out, "limits here (%s): read %.1f GB/s, int8 %.0f GMAC/s\n", b->kern.level,
                  b->read_gbs, b->int8_gmacs);
    if (!in) return;
    vq_buf_printf(
        out, "model: %s, %d threads, %.2f GB read per token, loaded in %.1f ms, %.0f MB private\n",
        b->o->model ? b->o->model : b->o->shape, in->threads, (double)b->weight_bytes / 1e9,
        b->load_ms, (double)b->private_bytes / 1e6);
    vq_buf_str(out, "\n               tokens/s     GB/s   share of the limit\n");
    for (int i = 0; i < b->n_pre; i++)
        vq_buf_printf(out, "prefill %5d  %9.1f        -   %5.1f %% of int8\n", b->pre[i].tokens,
                      b->pre[i].tps, 100 * b->pre[i].share);
    for (int i = 0; i < b->n_dec; i++) {
        vq_buf_printf(out, "decode @%-5d  %9.2f  %7.1f   %5.1f %% of read", b->dec[i].tokens,
                      b->dec[i].tps, b->dec[i].gbs, 100 * b->dec[i].share);
        if (b->dec[i].batch > 1) vq_buf_printf(out, "   (%d sequences together)", b->dec[i].batch);
        vq_buf_char(out, '\n');
    }
}

/* A field of a CSV file as RFC 4180 quotes it. */
static void csv_text(vq_buf *out, const char *s)
{
    if (!s[strcspn(s, ",\"\r\n")]) {
        vq_buf_str(out, s);
        return;
    }
    vq_buf_char(out, '"');
    for (; *s; s++) {
        if (*s == '"') vq_buf_char(out, '"');
        vq_buf_char(out, *s);
    }
    vq_buf_char(out, '"');
}

static void write_csv(const bench *b, vq_buf *out)
{
    for (int i = 0; i < 2; i++) {
        const row *r = i ? b->dec : b->pre;
        for (const row *end = r + (i ? b->n_dec : b->n_pre); r < end; r++) {
            vq_buf_printf(out, "%s,%d,", b->kern.level, vq_engine_info(b->eng)->threads);
            csv_text(out, b->o->model ? b->o->model : b->o->shape);
            vq_buf_printf(out, ",%s,%s,%d,%d,%d,%.2f,%.4f,%.1f,%s\n",
                          b->o->model ? "" : b->o->type ? b->o->type : "n4", what[i], r->tokens,
                          r->batch, b->reps, r->tps, r->share, r->limit, i ? "GB/s" : "GMAC/s");
        }
    }
}

/* Opens a file that rows can be added to: a new or empty one, or one that begins with our header.
 * *missing: what must be written before the first row. */
static vq_status csv_open(vq_fd *f, const char *path, uint64_t *size, const char **missing,
                          vq_err *e)
{
    char head[sizeof csv_header] = "";
    const size_t len = sizeof csv_header - 2; /* without the end of the line: \n, \r\n or none */
    vq_status s = vq_fd_open_write(f, path, true, e);
    if (s) return s;
    *size = vq_fd_stamp(*f).size;
    *missing = *size ? "" : csv_header;
    const size_t n = *size < len + 1 ? (size_t)*size : len + 1;
    s = vq_fd_pread(*f, head, n, 0, path, e);
    const bool ours = !memcmp(head, csv_header, len) && (!head[len] || strchr("\r\n", head[len]));
    if (!s && n && !ours)
        s = vq_fail(e, VQ_EFORMAT,
                    "%s: expected the header line of 'vaquita bench --csv', found '%.*s'; choose "
                    "another file",
                    path, (int)strcspn(head, "\r\n"), head);
    char last = '\n';
    if (!s && n) s = vq_fd_pread(*f, &last, 1, *size - 1, path, e);
    if (last != '\n') *missing = "\n";
    if (s) vq_fd_close(f);
    return s;
}

/* Can rows be added?  A file made for that is removed: a run may fail before it has any. */
static vq_status try_csv(const char *path, vq_err *e)
{
    const bool there = vq_file_exists(path);
    const char *missing;
    uint64_t size;
    vq_fd f;
    const vq_status s = csv_open(&f, path, &size, &missing, e);
    if (s) return s;
    vq_fd_close(&f);
    if (!there) vq_unlink(path);
    return VQ_OK;
}

/* Rows for a spreadsheet behind those that the file already has; all of them or none. */
static vq_status add_csv(const bench *b, const char *path, vq_err *e)
{
    vq_buf t = { 0 };
    const char *missing;
    uint64_t size;
    vq_fd f;
    vq_status s = csv_open(&f, path, &size, &missing, e);
    if (s) return s;
    vq_buf_str(&t, missing);
    write_csv(b, &t);
    if (t.oom) s = vq_fail(e, VQ_ENOMEM, "out of memory");
    if (!s) s = vq_fd_pwrite(f, t.p, t.n, size, path, e);
    if (!s) s = vq_fd_sync(f, path, e);
    if (s) vq_fd_truncate(f, size, path, NULL);
    vq_fd_close(&f);
    vq_buf_clear(&t);
    return s;
}

static vq_status try_save(const char *path, vq_err *e)
{
    if (!strcmp(path, "-")) return vq_fail(e, VQ_EUSAGE, "--save writes to a file, not to stdout");
    if (vq_file_exists(path))
        return vq_fail(e, VQ_EFAIL, "%s: exists; remove it or --save under another name", path);
    vq_fd f;
    const vq_status s = vq_fd_create(&f, path, e);
    if (s) return s;
    vq_fd_close(&f);
    vq_unlink(path);
    return VQ_OK;
}

/* The container of random weights as a file, for measurements that start a process. */
static vq_status save(const void *mem, size_t bytes, const char *path, vq_err *e)
{
    vq_fd f;
    vq_status s = vq_fd_create(&f, path, e);
    if (s) return s;
    vq_cleanup_on_signal(path);
    s = vq_fd_pwrite(f, mem, bytes, 0, path, e);
    vq_fd_close(&f);
    vq_cleanup_cancel();
    if (s) vq_unlink(path);
    return s;
}

static vq_status open_engine(bench *b, void **mem, size_t *mem_size, vq_err *e)
{
    vq_file *f = NULL;
    vq_status s;
    const double t0 = vq_now();
    double made = 0;
    if (b->o->model) {
        s = vq_file_open(&f, b->o->model, &b->kern, e);
    } else {
        say(b, "making %s weights in memory", b->o->shape);
        s = bn_shape_open(&f, mem, mem_size, b->o->shape, b->o->type, &b->kern, e);
        if (!s && b->o->save) s = save(*mem, *mem_size, b->o->save, e);
        if (s) vq_file_close(f);
        made = vq_now() - t0;
    }
    if (s) return s;
    count_weights(b, f);
    const int deepest = largest(&b->depth) + b->gen, longest = largest(&b->prompt);
    const vq_engine_opts eo = {
        .cpu = b->o->cpu,
        .threads = b->o->threads,
        .ctx = (uint32_t)(deepest > longest ? deepest : longest),
        .max_sessions = largest(&b->batch),
        .shorter = "take a smaller --depth, -n, -p or --batch",
    };
    s = vq_engine_open_file(&b->eng, f, &eo, e); /* takes f over, also when it fails */
    if (s) return s;
    b->load_ms = 1e3 * (vq_now() - t0 - made);
    const vq_info *in = vq_engine_info(b->eng);
    b->kv_bytes = vq_engine_kv_bytes(b->eng);
    say(b, "%s: %d threads, %s", b->o->model ? b->o->model : b->o->shape, in->threads, in->cpu);
    return VQ_OK;
}

static vq_status run_all(bench *b, vq_err *e)
{
    vq_status s = VQ_OK;
    for (int i = 0; !s && i < b->prompt.n; i++)
        if (b->prompt.v[i] > 0) s = measure_prefill(b, b->prompt.v[i], e);
    for (int j = 0; !s && j < b->batch.n; j++)
        for (int i = 0; !s && i < b->depth.n; i++)
            s = measure_decode(b, b->depth.v[i], b->batch.v[j], e);
    b->private_bytes = vq_rss_anon() - bn_roof_bytes(b->roof);
    return s;
}

static vq_status open_roof(bn_roof **roof, int threads, const char *cpu, vq_err *e)
{
    const vq_status s = bn_roof_open(roof, threads, cpu, e);
    if (s == VQ_ENOFIT || s == VQ_ENOMEM)
        vq_fail(e, s, "no memory for the 1 GiB that the measurement of limits reads: close other "
                      "programs");
    return s;
}

static void measure_limits(bench *b, int threads)
{
    for (int i = 0; i < 3; i++) {
        b->reads[i] = bn_roof_read(b->roof, 0);
        b->peaks[i] = bn_roof_int8(b->roof, 0);
    }
    b->read_gbs = median(b->reads, 3);
    b->int8_gmacs = median(b->peaks, 3);
    say(b, "limits: read %.1f GB/s, int8 %.0f GMAC/s (%d threads, %s)", b->read_gbs, b->int8_gmacs,
        threads, b->kern.level);
}

/* Everything that can be refused before time is spent. */
static vq_status read_opts(bench *b, vq_err *e)
{
    const bn_opts *o = b->o;
    b->reps = o->reps > 0 ? o->reps : 9;
    b->gen = o->gen > 0 ? o->gen : 128;
    vq_status s = parse_list(&b->prompt, o->prompt, 512, 0, POSITIONS_MAX, "-p", e);
    if (!s) s = parse_list(&b->depth, o->depth, 0, 0, POSITIONS_MAX, "--depth", e);
    if (!s) s = parse_list(&b->batch, o->batch, 1, 1, VQ_SESSIONS_MOST, "--batch", e);
    if (!s && !q_kern_make(&b->kern, o->cpu))
        s = vq_fail(e, VQ_EUSAGE, "--cpu %s: this CPU or build has no such level", o->cpu);
    if (!s && o->csv && strcmp(o->csv, "-") != 0) s = try_csv(o->csv, e);
    if (!s && o->save) s = try_save(o->save, e);
    return s;
}

static void write_results(const bench *b, vq_buf *out)
{
    if (b->o->csv && !strcmp(b->o->csv, "-")) {
        vq_buf_str(out, csv_header);
        write_csv(b, out);
    } else if (b->o->json) {
        write_json(b, out);
    } else {
        write_table(b, out);
    }
}

vq_status bn_run(const bn_opts *o, vq_buf *out, vq_err *e)
{
    bench *b = vq_calloc(1, sizeof *b);
    if (!b) return vq_fail(e, VQ_ENOMEM, "out of memory");
    void *mem = NULL;
    size_t mem_size = 0;
    b->o = o;
    vq_status s = read_opts(b, e);
    /* First the limits' buffer, so that what the model needs is counted beside it. */
    const int threads = o->threads > 0 ? o->threads : vq_cpu_fast_count();
    if (!s) s = open_roof(&b->roof, threads, o->cpu, e);
    if (!s && (o->model || o->shape)) s = open_engine(b, &mem, &mem_size, e);
    if (!s) measure_limits(b, threads);
    if (!s && b->eng) s = run_all(b, e);
    if (!s) {
        if (b->eng && b->private_bytes > mem_size) b->private_bytes -= mem_size;
        write_results(b, out);
        if (out->oom) s = vq_fail(e, VQ_ENOMEM, "out of memory");
    }
    if (!s && b->eng && o->csv && strcmp(o->csv, "-") != 0) s = add_csv(b, o->csv, e);
    bn_roof_close(b->roof);
    vq_engine_close(b->eng);
    vq_pages_free(mem, mem_size);
    vq_free(b);
    return s;
}

vq_status bn_read_speed(double *gbs, int threads, const char *cpu, vq_err *e)
{
    bn_roof *roof;
    double v[3];
    const vq_status s = open_roof(&roof, threads > 0 ? threads : vq_cpu_fast_count(), cpu, e);
    if (s) return s;
    for (int i = 0; i < 3; i++) v[i] = bn_roof_read(roof, 0);
    *gbs = median(v, 3);
    bn_roof_close(roof);
    return VQ_OK;
}
