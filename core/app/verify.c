/* verify.c - `vaquita verify`: every byte of a container against its hashes.
 *
 * Opening proves header, tables, config and tokenizer; then every chunk of the body is hashed by
 * all threads.  The result names the byte range and the tensor, so a download can be mended. */
#include "core/app/app.h"
#include "core/app/term.h"
#include "core/base/os.h"
#include "core/base/pool.h"
#include "core/file/file.h"

static const args_opt options[] = { { .kind = ARGS_END } };

static void print_bad(vq_jw *w, const vq_bad *bad)
{
    char name[96];
    vq_jw_open(w, NULL, '{');
    vq_jw_u64(w, "offset", bad->off);
    vq_jw_u64(w, "length", bad->len);
    if (bad->tensor) vq_tensor_name(name, bad->tensor);
    vq_jw_cstr(w, "tensor", bad->tensor ? name : NULL);
    vq_jw_close(w, '}');
}

static vq_status print_json(app *a, const vq_verify *v, const vq_err *why, vq_err *e)
{
    vq_buf b = { 0 };
    vq_jw w = { .b = &b };
    vq_jw_open(&w, NULL, '{');
    vq_jw_bool(&w, "ok", !why);
    vq_jw_open(&w, "bad", '[');
    for (size_t i = 0; i < v->n_bad; i++) print_bad(&w, &v->bad[i]);
    vq_jw_close(&w, ']');
    vq_jw_u64(&w, "bytes", v->bytes);
    if (why) vq_jw_cstr(&w, "error", why->msg);
    vq_jw_cstr(&w, "cpu", a->level);
    vq_jw_close(&w, '}');
    const vq_status st = app_put_json(a, &b, e);
    vq_buf_clear(&b);
    return st;
}

static vq_status print_text(app *a, const char *path, const vq_verify *v, vq_status found,
                            double seconds, vq_err *e)
{
    vq_buf b = { 0 };
    for (size_t i = 0; i < v->n_bad;) { /* neighbours of one tensor are one line */
        const vq_bad *first = &v->bad[i];
        uint64_t end = first->off + first->len;
        for (i++; i < v->n_bad && v->bad[i].off == end && v->bad[i].tensor == first->tensor; i++) {
            end += v->bad[i].len;
        }
        char name[96] = "padding";
        if (first->tensor) vq_tensor_name(name, first->tensor);
        vq_buf_printf(&b, "bad: bytes %llu to %llu, %s\n", (unsigned long long)first->off,
                      (unsigned long long)end, name);
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
static vq_status report(app *a, const char *path, const vq_verify *v, vq_status found, bool opened,
                        double seconds, vq_err *e)
{
    vq_err other = { 0 };
    vq_status st = VQ_OK;
    if (a->json) st = print_json(a, v, found ? e : NULL, &other);
    else if (opened) st = print_text(a, path, v, found, seconds, &other);
    if (!found && st && e) *e = other;
    return found ? found : st;
}

static vq_status verify(app *a, const void *opts, char **arg, int n_arg, vq_err *e)
{
    (void)opts;
    (void)n_arg;
    q_kern kern;
    vq_file *f = NULL;
    vq_pool *pool = NULL;
    vq_verify v = { 0 };
    q_kern_make(&kern, a->cpu);
    const double start = vq_now();
    vq_status st = app_model_path(arg[0], e);
    if (!st) st = vq_file_open(&f, arg[0], &kern, e);
    if (!st) st = vq_pool_new(&pool, a->threads ? (int)a->threads : vq_cpu_fast_count(), e);
    if (!st) {
        app_progress p;
        app_progress_begin(&p, a, "verify", NULL, 0.5);
        term_polite(true);
        st = vq_file_verify(f, &kern, pool, app_progress_step, &p, &v, e);
        term_polite(false);
        app_progress_end(&p);
    }
    if (!st || st == VQ_EFORMAT) st = report(a, arg[0], &v, st, f != NULL, vq_now() - start, e);
    vq_verify_clear(&v);
    vq_pool_free(pool);
    vq_file_close(f);
    return st;
}

const app_verb app_verb_verify = {
    "verify", "FILE", "every byte of a container against its hashes",
    "Exit 0: as it was written.  Exit 3: damaged, with the byte ranges and tensors.\n"
    "Example:\n"
    "  vaquita verify model.vaq\n",
    options, NULL, 0, 1, 1, verify,
};
