/* tokenize.c - `vaquita tokenize` and `vaquita detokenize`: texts and ids of a model.
 *
 * Plain text is tokenised exactly as given (the last newline of a file included, no BOS); --chat
 * and --messages print what the model's template prints. */
#include "core/app/gen.h"
#include "core/app/term.h"
#include "core/base/os.h"

#include <stdio.h>
#include <string.h>

typedef struct tok_opts {
    const char *file, *messages;
    bool chat, special;
} tok_opts;

static const args_opt options[] = {
    { ARGS_TEXT, "-f", "FILE", offsetof(tok_opts, file), 0, 0, NULL,
      "the text from a file; - or nothing: stdin" },
    { ARGS_FLAG, "--chat", NULL, offsetof(tok_opts, chat), 0, 0, NULL,
      "render the text as a user turn first" },
    { ARGS_TEXT, "--messages", "FILE", offsetof(tok_opts, messages), 0, 0, NULL,
      "render a conversation: JSON of {role, content}" },
    { ARGS_FLAG, "--special", NULL, offsetof(tok_opts, special), 0, 0, NULL,
      "let marks in the text act" },
    { .kind = ARGS_END },
};

/* One position: a tokenizer needs no cache. */
static vq_status open_small(const app *a, vq_engine **eng, const char *path, vq_err *e)
{
    return gen_open(a, eng, path, 1, -1, e);
}

static vq_status render_messages(const vq_engine *eng, const char *path, vq_ids *ids, vq_buf *shown,
                                 vq_err *e)
{
    vq_buf json = { 0 };
    app_messages m = { 0 };
    vq_status st = app_read(path, &json, e);
    if (!st) st = app_messages_parse(&m, json.p ? json.p : "", json.n, path, e);
    if (!st) {
        const vq_render_opts r = { .no_force_think = true, .no_generation = !m.add_generation };
        st = vq_engine_render(eng, m.m, m.n, &r, ids, shown, e);
        app_messages_clear(&m);
    }
    vq_buf_clear(&json);
    return st;
}

static vq_status text_ids(const tok_opts *o, const char *arg, const vq_engine *eng, vq_ids *ids,
                          vq_buf *shown, vq_err *e)
{
    vq_buf text = { 0 };
    vq_status st = VQ_OK;
    if (arg) vq_buf_str(&text, arg);
    else if (!o->file && vq_isatty(0))
        st = vq_fail(e, VQ_EUSAGE, "no text: give TEXT, -f FILE, or pipe one in");
    else st = app_read(o->file ? o->file : "-", &text, e);
    if (!st && text.oom) st = vq_fail(e, VQ_ENOMEM, "out of memory for the text");
    const char *p = text.p ? text.p : "";
    if (!st && o->chat) {
        const vq_message m = { .role = VQ_USER, .content = { p, text.n } };
        const vq_render_opts r = { .no_force_think = true };
        st = vq_engine_render(eng, &m, 1, &r, ids, shown, e);
    } else if (!st) {
        st = vq_engine_tokenize(eng, p, text.n, o->special, ids, e);
        vq_buf_add(shown, p, text.n);
    }
    vq_buf_clear(&text);
    return st;
}

static vq_status print_ids(app *a, const vq_engine *eng, const vq_ids *ids, const vq_buf *shown,
                           vq_err *e)
{
    vq_buf b = { 0 };
    vq_status st = VQ_OK;
    if (a->json) {
        vq_jw w = { .b = &b };
        vq_jw_open(&w, NULL, '{');
        vq_jw_open(&w, "ids", '[');
        for (size_t i = 0; i < ids->n; i++) vq_jw_i64(&w, NULL, ids->v[i]);
        vq_jw_close(&w, ']');
        vq_jw_open(&w, "pieces", '[');
        for (size_t i = 0; i < ids->n; i++) {
            const vq_str p = vq_engine_piece(eng, ids->v[i]);
            vq_jw_str(&w, NULL, p.p ? p.p : "", p.n);
        }
        vq_jw_close(&w, ']');
        vq_jw_str(&w, "text", shown->p ? shown->p : "", shown->n);
        vq_jw_cstr(&w, "cpu", a->level);
        vq_jw_close(&w, '}');
        st = app_put_json(a, &b, e);
    } else {
        for (size_t i = 0; i < ids->n; i++) vq_buf_printf(&b, "%s%d", i ? " " : "", ids->v[i]);
        vq_buf_char(&b, '\n');
        if (b.oom) st = vq_fail(e, VQ_ENOMEM, "out of memory for the output");
        else app_put(a, b.p, b.n);
    }
    vq_buf_clear(&b);
    return st;
}

static vq_status tokenize(app *a, const void *opts, char **arg, int n_arg, vq_err *e)
{
    const tok_opts *o = opts;
    if ((n_arg > 1) + !!o->file + !!o->messages > 1) {
        return vq_fail(e, VQ_EUSAGE, "the text comes from one place: TEXT, -f or --messages");
    }
    if (o->messages && (o->chat || o->special)) {
        return vq_fail(e, VQ_EUSAGE, "--messages goes without --chat and --special");
    }
    if (o->chat && o->special) {
        return vq_fail(e, VQ_EUSAGE,
                       "--special goes without --chat: marks in a user's text never act");
    }
    vq_engine *eng = NULL;
    vq_ids ids = { 0 };
    vq_buf shown = { 0 };
    vq_status st = open_small(a, &eng, arg[0], e);
    if (!st && o->messages) st = render_messages(eng, o->messages, &ids, &shown, e);
    else if (!st) st = text_ids(o, n_arg > 1 ? arg[1] : NULL, eng, &ids, &shown, e);
    if (!st) st = print_ids(a, eng, &ids, &shown, e);
    vq_buf_clear(&shown);
    vq_ids_clear(&ids);
    term_watch(NULL);
    vq_engine_close(eng);
    return st;
}

static vq_status all_ids(char **arg, int n_arg, vq_ids *ids, vq_err *e)
{
    vq_buf in = { 0 };
    vq_status st = VQ_OK;
    for (int i = 1; i < n_arg && !st; i++) {
        if (strcmp(arg[i], "-") != 0) {
            st = app_parse_ids(arg[i], "detokenize", ids, e);
            continue;
        }
        st = app_read("-", &in, e);
        while (in.n && (in.p[in.n - 1] == '\n' || in.p[in.n - 1] == '\r')) in.p[--in.n] = 0;
        if (!st && in.n) st = app_parse_ids(in.p, "stdin", ids, e);
    }
    vq_buf_clear(&in);
    return st;
}

static vq_status detokenize(app *a, const void *opts, char **arg, int n_arg, vq_err *e)
{
    (void)opts;
    vq_engine *eng = NULL;
    vq_ids ids = { 0 };
    vq_buf text = { 0 };
    vq_status st = all_ids(arg, n_arg, &ids, e);
    if (!st) st = open_small(a, &eng, arg[0], e);
    if (!st && !vq_engine_info(eng)->has_tokenizer) {
        st = vq_fail(e, VQ_EUSAGE, "%s: this container has no tokenizer", arg[0]);
    }
    for (size_t i = 0; i < ids.n && !st; i++) {
        const vq_str p = vq_engine_piece(eng, ids.v[i]);
        if (!p.p) st = vq_fail(e, VQ_EUSAGE, "%s: no token has the id %d", arg[0], ids.v[i]);
        else vq_buf_add(&text, p.p, p.n);
    }
    if (!st && text.oom) st = vq_fail(e, VQ_ENOMEM, "out of memory for the output");
    if (!st && a->json) {
        vq_buf b = { 0 };
        vq_jw w = { .b = &b };
        vq_jw_open(&w, NULL, '{');
        vq_jw_str(&w, "text", text.p ? text.p : "", text.n);
        vq_jw_cstr(&w, "cpu", a->level);
        vq_jw_close(&w, '}');
        st = app_put_json(a, &b, e);
        vq_buf_clear(&b);
    } else if (!st) {
        app_put(a, text.p ? text.p : "", text.n);
        if (a->tty_out) app_puts(a, "\n");
    }
    vq_buf_clear(&text);
    vq_ids_clear(&ids);
    term_watch(NULL);
    vq_engine_close(eng);
    return st;
}

static const tok_opts defaults = { 0 };

const app_verb app_verb_tokenize = {
    "tokenize", "MODEL [TEXT]", "token ids of a text, a prompt or a conversation",
    "Example:\n"
    "  vaquita tokenize model.vaq --chat 'What is 2 + 3?'\n",
    options, &defaults, sizeof defaults, 1, 2, tokenize,
};

static const args_opt no_options[] = { { .kind = ARGS_END } };

const app_verb app_verb_detokenize = {
    "detokenize", "MODEL ID...", "the bytes of token ids",
    "IDs may also come as 1,2,3 or, with -, from stdin.\n"
    "Example:\n"
    "  vaquita tokenize model.vaq hello | vaquita detokenize model.vaq -\n",
    no_options, NULL, 0, 2, -1, detokenize,
};
