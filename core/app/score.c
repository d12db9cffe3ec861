/* score.c - the ids of a text, the log of a run. */
#include "core/app/score.h"

#include "core/app/term.h"
#include "core/base/mem.h"
#include "core/base/os.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ---- the text ---- */

static vq_status check_ids(const vq_score_text *t, const vq_engine *eng, const char *file,
                           vq_err *e)
{
    const int vocab = vq_engine_info(eng)->vocab;
    for (size_t i = 0; i < t->ids.n; i++)
        if (t->ids.v[i] < 0 || t->ids.v[i] >= vocab)
            return vq_fail(e, VQ_EUSAGE, "%s: id %d is not in the vocabulary (0 to %d)", file,
                           (int)t->ids.v[i], vocab - 1);
    return VQ_OK;
}

vq_status score_text_read(vq_score_text *t, const score_opts *o, const vq_engine *eng, vq_err *e)
{
    const vq_info *info = vq_engine_info(eng);
    *t = (vq_score_text){ .ctx = (size_t)o->ctx, .bos = o->no_bos ? -1 : info->bos };
    vq_buf text = { 0 };
    vq_status st = app_read(o->file, &text, e);
    if (!st && t->bos >= 0 && !vq_ids_add(&t->ids, t->bos))
        st = vq_fail(e, VQ_ENOMEM, "out of memory");
    if (!st && o->ids && !vq_parse_ids(text.p ? text.p : "", &t->ids))
        st = vq_fail(e, VQ_EUSAGE, "%s: not a list of token ids", o->file);
    if (!st && !o->ids && text.n) {
        vq_ids more = { 0 };
        st = vq_engine_tokenize(eng, text.p, text.n, false, &more, e);
        if (!st && !vq_ids_add_n(&t->ids, more.v, more.n))
            st = vq_fail(e, VQ_ENOMEM, "out of memory");
        vq_ids_clear(&more);
    }
    vq_buf_clear(&text);
    if (!st) st = check_ids(t, eng, o->file, e);
    vq_score_text_cut(t);
    if (!st && !t->n_chunk)
        st = vq_fail(e, VQ_EUSAGE,
                     "%s: %zu tokens are less than one chunk of %zu; give more text or a smaller "
                     "--ctx", o->file, t->ids.n, t->ctx);
    if (st) {
        vq_score_text_clear(t);
        return st;
    }
    if (o->limit && (size_t)o->limit < t->n_chunk) t->n_chunk = (size_t)o->limit;
    return VQ_OK;
}

bool score_stop(void *ctx, size_t n)
{
    (void)ctx;
    (void)n;
    return term_interrupted();
}

/* ---- the log ---- */

static vq_status no_memory(vq_err *e) { return vq_fail(e, VQ_ENOMEM, "out of memory"); }

static vq_status keep(score_log *l, const double *value, vq_err *e)
{
    if (vq_grow(&l->value, &l->cap, (l->n_chunk + 1) * l->n_value, sizeof *l->value))
        return no_memory(e);
    memcpy(l->value + l->n_chunk * l->n_value, value, l->n_value * sizeof *value);
    l->n_chunk++;
    return VQ_OK;
}

/* One line "[v, v, ...]" without its newline. */
static bool parse_line(const char *p, size_t n, double *value, size_t n_value)
{
    vq_json j;
    if (vq_json_parse(&j, p, n, "line", NULL)) return false;
    size_t got = 0;
    bool ok = vq_json_type(&j, 0) == VQ_JARR;
    for (uint32_t v = ok ? vq_json_first(&j, 0) : 0; v && ok; v = vq_json_next(&j, 0, v))
        ok = got < n_value && vq_json_f64(&j, v, &value[got++]);
    vq_json_clear(&j);
    return ok && got == n_value;
}

/* Takes the complete lines of an earlier run; *good = bytes up to and with the last of them. */
static vq_status take(score_log *l, const vq_buf *b, size_t max_chunk, const char *key,
                      size_t *good, vq_err *e)
{
    const size_t n_key = strlen(key);
    *good = 0;
    if (b->n <= n_key && !memcmp(b->p, key, b->n)) return VQ_OK; /* died in its first line */
    if (b->n <= n_key || memcmp(b->p, key, n_key) != 0 || b->p[n_key] != '\n')
        return vq_fail(e, VQ_EUSAGE, "%s belongs to another run (model, text or options differ); "
                       "take another --out or remove it", l->path);
    double *value = vq_calloc(l->n_value, sizeof *value);
    if (!value) return no_memory(e);
    vq_status st = VQ_OK;
    *good = n_key + 1;
    while (!st && l->n_chunk < max_chunk) {
        const char *p = b->p + *good, *end = memchr(p, '\n', b->n - *good);
        if (!end || !parse_line(p, (size_t)(end - p), value, l->n_value)) break;
        st = keep(l, value, e);
        *good += (size_t)(end - p) + 1;
    }
    vq_free(value);
    return st;
}

vq_status score_log_open(score_log *l, const char *path, size_t n_value, size_t max_chunk,
                         const char *key, vq_err *e)
{
    *l = (score_log){ .path = path, .n_value = n_value };
    if (!path) return VQ_OK;
    vq_buf b = { 0 };
    size_t good = 0;
    vq_status st = VQ_OK;
    if (vq_file_exists(path) && !vq_is_regular(path)) {
        st = vq_fail(e, VQ_EFAIL, "%s: exists and is not a regular file", path);
    } else if (vq_file_exists(path)) {
        st = vq_file_read(path, UINT64_C(4) << 30, &b, e);
        if (!st && b.n) st = take(l, &b, max_chunk, key, &good, e);
    }
    if (!st) { /* rewritten whole: a last line that is cut goes */
        vq_buf keepers = { 0 };
        if (good) vq_buf_add(&keepers, b.p, good);
        else vq_buf_printf(&keepers, "%s\n", key);
        st = keepers.oom ? no_memory(e) : vq_file_write_atomic(path, keepers.p, keepers.n, e);
        vq_buf_clear(&keepers);
    }
    vq_buf_clear(&b);
    if (!st && !(l->f = fopen(path, "ab"))) st = vq_fail_errno(e, errno, "%s", path);
    if (st) score_log_close(l);
    return st;
}

vq_status score_log_put(score_log *l, const double *value, vq_err *e)
{
    vq_status st = keep(l, value, e);
    if (st || !l->f) return st;
    vq_buf b = { 0 };
    for (size_t i = 0; i < l->n_value; i++)
        vq_buf_printf(&b, "%s%.17g", i ? "," : "[", value[i]);
    vq_buf_str(&b, "]\n");
    if (b.oom) st = no_memory(e);
    else if (fwrite(b.p, 1, b.n, l->f) != b.n || fflush(l->f))
        st = vq_fail_errno(e, errno, "%s: cannot write", l->path);
    vq_buf_clear(&b);
    return st;
}

void score_log_close(score_log *l)
{
    if (l->f) fclose(l->f);
    vq_free(l->value);
    *l = (score_log){ 0 };
}
