/* logits.c - `vaquita logits`: the raw output of the model, to compare builds, machines and types.
 *
 * Rows are little-endian f32, one per position, all rows of the head, unmasked.  They are hashed
 * and written as they come, so memory does not grow with the prompt.  A file gets its name when all
 * rows are in it: some of them would be taken for all. */
#include "core/app/gen.h"
#include "core/app/term.h"
#include "core/base/mem.h"
#include "core/base/os.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

typedef struct logits_opts {
    const char *ids, *prompt, *out;
    bool last;
    int64_t chunk;
    uint64_t ctx;
    int kv;
} logits_opts;

static const args_opt options[] = {
    { ARGS_TEXT, "--ids", "IDS", offsetof(logits_opts, ids), 0, 0, NULL,
      "the prompt as token ids 1,2,3" },
    { ARGS_TEXT, "-p", "TEXT", offsetof(logits_opts, prompt), 0, 0, NULL,
      "the prompt as text: no template, marks in it act" },
    { ARGS_TEXT, "-o", "FILE", offsetof(logits_opts, out), 0, 0, NULL,
      "write the rows there; - is stdout (summary on stderr)" },
    { ARGS_FLAG, "--last", NULL, offsetof(logits_opts, last), 0, 0, NULL,
      "only the last position" },
    { ARGS_INT, "--chunk", "N", offsetof(logits_opts, chunk), 1, 1e6, NULL,
      "prefill in steps of N (any N gives the same bits)" },
    { ARGS_SIZE, "--ctx", "N", offsetof(logits_opts, ctx), 1, 4294967295.0, NULL,
      "positions of the context (those of the prompt)" },
    { ARGS_CHOICE, "--kv", "TYPE", offsetof(logits_opts, kv), 0, 0, GEN_KV,
      "cache type: 8, bf16 or f32 (8; f32 for float containers)" },
    { .kind = ARGS_END },
};

typedef struct sink {
    app *a;
    FILE *f;                /* NULL: hashed only, or stdout */
    bool to_stdout;
    const char *path;       /* for messages */
    char *target, *tmp;     /* a file: its name, links resolved, and that of the rows so far */
    app_sha256 *sha;
    size_t rows, vocab;
} sink;

static vq_status put_row(void *ctx, size_t pos, const float *logits, vq_err *e)
{
    sink *s = ctx;
    const size_t bytes = s->vocab * sizeof *logits; /* hosts are little-endian */
    (void)pos;
    app_sha256_add(s->sha, logits, bytes);
    s->rows++;
    if (s->to_stdout && !app_put(s->a, logits, bytes)) {
        return vq_fail(e, VQ_EFAIL, "standard output: %s", strerror(s->a->out_errno));
    }
    if (s->f && fwrite(logits, 1, bytes, s->f) != bytes) {
        return vq_fail_errno(e, errno, "%s: cannot write the logits", s->path);
    }
    if (term_interrupted()) return vq_fail(e, VQ_EINTR, "interrupted");
    return VQ_OK;
}

/* Links are resolved; for a file that is not there, the path as given.  NULL: out of memory. */
static char *real_name(const char *path)
{
    char *full = vq_full_path(path);
    return full ? full : vq_strndup(path, strlen(path));
}

/* A device, a pipe or a link to nowhere is written as it is, a file beside its final name. */
static vq_status open_rows(sink *k, const char *model, vq_err *e)
{
    if (vq_file_exists(k->path) && !vq_is_regular(k->path)) {
        k->f = fopen(k->path, "wb");
        return k->f ? VQ_OK : vq_fail_errno(e, errno, "%s", k->path);
    }
    vq_buf tmp = { 0 };
    char *of_model = real_name(model);
    k->target = real_name(k->path);
    if (k->target)
        vq_buf_printf(&tmp, "%s.tmp-%08x", k->target, (unsigned)(vq_random64() & 0xffffffff));
    vq_status st = VQ_OK;
    if (!of_model || !k->target || tmp.oom) {
        st = vq_fail(e, VQ_ENOMEM, "out of memory");
    } else if (!strcmp(of_model, k->target)) {
        st = vq_fail(e, VQ_EUSAGE, "%s is the model itself: the logits need another -o", k->path);
    } else if (!(k->f = fopen(tmp.p, "wb"))) {
        st = vq_fail_errno(e, errno, "%s", k->path);
    } else {
        k->tmp = tmp.p;
        tmp.p = NULL;
        vq_cleanup_on_signal(k->tmp);
    }
    vq_buf_clear(&tmp);
    vq_free(of_model);
    return st;
}

static vq_status close_rows(sink *k, vq_status st, vq_err *e)
{
    if (k->f && fclose(k->f) && !st)
        st = vq_fail_errno(e, errno, "%s: cannot write the logits", k->path);
    if (k->tmp) {
        if (!st) st = vq_rename(k->tmp, k->target, e);
        if (st) vq_unlink(k->tmp);
        vq_cleanup_cancel();
    }
    vq_free(k->tmp);
    vq_free(k->target);
    return st;
}

static vq_status compute(app *a, const logits_opts *o, vq_engine *eng, const vq_ids *ids, sink *k,
                         vq_err *e)
{
    vq_session *s;
    vq_status st = vq_session_open(&s, eng, NULL, e);
    if (st) return st;
    app_progress p;
    app_progress_begin(&p, a, "prompt", "tokens", 2);
    vq_session_on_prefill(s, app_progress_step, &p);
    st = vq_session_logits_all(s, ids->v, ids->n, (int)o->chunk, o->last, put_row, k, e);
    app_progress_end(&p);
    vq_session_close(s);
    return st;
}

static vq_status summary(app *a, const sink *k, const char *hex, vq_err *e)
{
    if (a->json) {
        vq_buf b = { 0 };
        vq_jw w = { .b = &b };
        vq_jw_open(&w, NULL, '{');
        vq_jw_u64(&w, "positions", k->rows);
        vq_jw_u64(&w, "vocab", k->vocab);
        vq_jw_cstr(&w, "sha256", hex);
        vq_jw_cstr(&w, "cpu", a->level);
        vq_jw_close(&w, '}');
        const vq_status st = app_put_json(a, &b, e);
        vq_buf_clear(&b);
        return st;
    }
    char line[160];
    snprintf(line, sizeof line, "positions %zu vocab %zu sha256 %s", k->rows, k->vocab, hex);
    if (k->to_stdout) {
        app_note(a, "%s", line);
    } else {
        app_puts(a, line);
        app_puts(a, "\n");
    }
    return VQ_OK;
}

static vq_status logits(app *a, const void *opts, char **arg, int n_arg, vq_err *e)
{
    const logits_opts *o = opts;
    (void)n_arg;
    if (!o->ids == !o->prompt)
        return vq_fail(e, VQ_EUSAGE, "the prompt comes from one place: --ids or -p");
    sink k = { .a = a, .path = o->out, .to_stdout = o->out && !strcmp(o->out, "-") };
    if (k.to_stdout && a->json) return vq_fail(e, VQ_EUSAGE, "-o - and --json both want stdout");

    vq_engine *eng = NULL;
    vq_ids ids = { 0 };
    char hex[65];
    vq_status st = VQ_OK;
    if (o->ids) st = app_parse_ids(o->ids, "--ids", &ids, e);
    if (!st && o->ids && !ids.n) st = vq_fail(e, VQ_EUSAGE, "--ids is empty");
    /* Known ids need just their number of positions; a text's is known only after opening. */
    if (!st) st = gen_open(a, &eng, arg[0], o->ctx ? o->ctx : ids.n, o->kv, e);
    if (!st && o->prompt) st = vq_engine_tokenize(eng, o->prompt, strlen(o->prompt), true, &ids, e);
    if (!st && !ids.n) st = vq_fail(e, VQ_EUSAGE, "the prompt is empty");
    if (!st && o->out && !k.to_stdout) st = open_rows(&k, arg[0], e);
    if (!st && !(k.sha = app_sha256_new())) st = vq_fail(e, VQ_ENOMEM, "out of memory");
    if (!st) {
        k.vocab = (size_t)vq_engine_info(eng)->vocab;
        st = compute(a, o, eng, &ids, &k, e);
    }
    app_sha256_end(k.sha, hex);
    st = close_rows(&k, st, e);
    if (a->out_errno) st = VQ_OK; /* told by main */
    else if (!st) st = summary(a, &k, hex, e);
    vq_ids_clear(&ids);
    term_watch(NULL);
    vq_engine_close(eng);
    return st;
}

static const logits_opts defaults = { .kv = -1 };

const app_verb app_verb_logits = {
    "logits", "MODEL --ids 1,2,3", "raw logits of every position, and their hash",
    "Rows are little-endian f32, (positions, vocab).  The hash is equal on every CPU.\n"
    "Example:\n"
    "  vaquita logits model.vaq --ids 0,15,22 -o rows.f32\n",
    options, &defaults, sizeof defaults, 1, 1, logits,
};
