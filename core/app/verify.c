/* verify.c - `vaquita verify`: every byte of a container against its hashes.
 *
 * Opening proves header, tables, config and tokenizer; then every chunk of the body is hashed by
 * all threads.  The result names the byte range and the tensor.  With --repair what is damaged is
 * made again from the checkpoint or copied from another container: first the front, without which
 * nothing can be judged, then the chunks. */
#include "convert/convert.h"
#include "core/app/app.h"
#include "core/app/term.h"
#include "core/base/os.h"
#include "core/base/pool.h"

#include <stdio.h>

typedef struct verify_opts {
    const char *repair;     /* NULL: only look */
} verify_opts;

static const args_opt options[] = {
    { ARGS_TEXT, "--repair", "SRC", offsetof(verify_opts, repair), 0, 0, NULL,
      "mend it from its checkpoint or another copy" },
    { .kind = ARGS_END },
};

/* What was found and done. */
typedef struct outcome {
    vq_verify v;
    uint64_t front;         /* bytes of a front that was mended; 0: it was whole */
} outcome;

static void print_bad(vq_jw *w, const vq_bad *bad)
{
    char name[96];
    vq_jw_open(w, NULL, '{');
    vq_jw_u64(w, "offset", bad->off);
    vq_jw_u64(w, "length", bad->len);
    if (bad->tensor) vq_tensor_name(name, bad->tensor);
    vq_jw_cstr(w, "tensor", bad->tensor ? name : NULL);
    vq_jw_bool(w, "repaired", bad->mended);
    vq_jw_close(w, '}');
}

static vq_status print_json(app *a, const outcome *o, const vq_err *why, vq_err *e)
{
    const vq_verify *v = &o->v;
    uint64_t bytes = o->front;
    vq_buf b = { 0 };
    vq_jw w = { .b = &b };
    vq_jw_open(&w, NULL, '{');
    vq_jw_bool(&w, "ok", !why);
    vq_jw_open(&w, "bad", '[');
    if (o->front) print_bad(&w, &(vq_bad){ .len = o->front, .mended = true });
    for (size_t i = 0; i < v->n_bad; i++) {
        print_bad(&w, &v->bad[i]);
        if (v->bad[i].mended) bytes += v->bad[i].len;
    }
    vq_jw_close(&w, ']');
    vq_jw_u64(&w, "bytes", v->bytes);
    vq_jw_u64(&w, "repaired_bytes", bytes);
    if (why) vq_jw_cstr(&w, "error", why->msg);
    vq_jw_cstr(&w, "cpu", a->level);
    vq_jw_close(&w, '}');
    const vq_status st = app_put_json(a, &b, e);
    vq_buf_clear(&b);
    return st;
}

static vq_status print_text(app *a, const char *path, const outcome *o, vq_status found,
                            double seconds, vq_err *e)
{
    const vq_verify *v = &o->v;
    vq_buf b = { 0 };
    if (o->front) {
        vq_buf_printf(&b, "repaired: bytes 0 to %llu, the front\n", (unsigned long long)o->front);
    }
    for (size_t i = 0; i < v->n_bad;) { /* neighbours of one tensor are one line */
        const vq_bad *first = &v->bad[i];
        uint64_t end = first->off + first->len;
        for (i++; i < v->n_bad && v->bad[i].off == end && v->bad[i].tensor == first->tensor; i++) {
            end += v->bad[i].len;
        }
        char name[96] = "padding";
        if (first->tensor) vq_tensor_name(name, first->tensor);
        vq_buf_printf(&b, "%s: bytes %llu to %llu, %s\n", found ? "bad" : "repaired",
                      (unsigned long long)first->off, (unsigned long long)end, name);
    }
    if (!found) {
        char size[16];
        vq_fmt_size(size, vq_file_size(path)); /* opening has proved the front */
        vq_buf_printf(&b, "%s: ok, %s in %.1f s\n", path, size, seconds);
    }
    if (b.oom) {
        vq_buf_clear(&b);
        return vq_fail(e, VQ_ENOMEM, "out of memory for the output");
    }
    app_put(a, b.p ? b.p : "", b.n);
    vq_buf_clear(&b);
    return VQ_OK;
}

/* Names of damaged tensors are borrowed from the file, so the report is made before it closes. */
static vq_status report(app *a, const char *path, const outcome *o, vq_status found, bool opened,
                        double seconds, vq_err *e)
{
    vq_err other = { 0 };
    vq_status st = VQ_OK;
    if (a->json) st = print_json(a, o, found ? e : NULL, &other);
    else if (opened) st = print_text(a, path, o, found, seconds, &other);
    if (!found && st && e) *e = other;
    return found ? found : st;
}

/* Opening, with a front that may have to be mended first. */
static vq_status open_file(vq_file **f, const cv_repair *r, outcome *o, vq_err *e)
{
    const vq_status st = vq_file_open(f, r->path, r->kern, e);
    if (st != VQ_EFORMAT || !r->src) return st;
    const vq_status mended = cv_repair_front(r, &o->front, e);
    if (mended) o->front = 0;
    return mended ? mended : vq_file_open(f, r->path, r->kern, e);
}

static vq_status verify(app *a, const void *opts, char **arg, int n_arg, vq_err *e)
{
    const verify_opts *vo = opts;
    (void)n_arg;
    q_kern kern;
    vq_file *f = NULL;
    vq_pool *pool = NULL;
    outcome o = { 0 };
    app_progress p;
    q_kern_make(&kern, a->cpu);
    const cv_repair r = { .path = arg[0], .src = vo->repair, .cpu = a->cpu, .kern = &kern,
                          .threads = (int)a->threads, .progress = app_progress_step, .ctx = &p };
    const double start = vq_now();
    app_progress_begin(&p, a, "verify", NULL, 0.5);
    term_polite(true);
    vq_status st = app_model_path(arg[0], e);
    if (!st) st = open_file(&f, &r, &o, e);
    if (!st) st = vq_pool_new(&pool, a->threads ? (int)a->threads : vq_cpu_fast_count(), e);
    if (!st) st = vq_file_verify(f, &kern, pool, app_progress_step, &p, &o.v, e);
    if (st == VQ_EFORMAT && f && vo->repair) {
        p.what = "repair";
        st = cv_repair_body(&r, f, &o.v, e);
    }
    term_polite(false);
    app_progress_end(&p);
    if (!st || st == VQ_EFORMAT || (f && a->json && st != VQ_EINTR)) {
        st = report(a, arg[0], &o, st, f != NULL, vq_now() - start, e);
    }
    vq_verify_clear(&o.v);
    vq_pool_free(pool);
    vq_file_close(f);
    return st;
}

static const verify_opts defaults = { 0 };

const app_verb app_verb_verify = {
    "verify", "FILE", "every byte of a container against its hashes",
    "Exit 0: as it was written.  Exit 3: damaged, with the byte ranges and tensors.\n"
    "--repair SRC writes what is damaged anew, in place, and nothing else: from the\n"
    "checkpoint the file was made from, or from another .vaq of the same content.  A\n"
    "MiB is written when it fits its hash; stopped, it goes on when called again.\n"
    "Example:\n"
    "  vaquita verify model.vaq --repair DeepSeek-R1-Distill-Qwen-1.5B\n",
    options, &defaults, sizeof defaults, 1, 1, verify,
};
