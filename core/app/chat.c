/* chat.c - `vaquita chat`: a conversation, turn by turn.
 *
 * Every turn renders the whole conversation, so what the model sees is always what the template
 * prints (thoughts of earlier turns are not repeated); the session keeps the longest common prefix
 * of ids and computes the rest.  A turn that fails or is stopped leaves the conversation usable. */
#include "core/app/gen.h"
#include "core/app/lineedit.h"
#include "core/app/term.h"
#include "core/base/mem.h"
#include "core/base/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct chat_opts {
    gen_opts gen;
} chat_opts;

static const args_opt options[] = {
    GEN_OPTIONS(chat_opts, gen),
    { .kind = ARGS_END },
};

typedef struct turn {
    vq_role role;
    vq_buf text;            /* owned */
} turn;

typedef struct chat {
    app *a;
    const chat_opts *o;
    vq_engine *eng;
    vq_session *s;
    turn *turn;             /* (n_turn) of the conversation, system message first if any */
    size_t n_turn, cap_turn;
    gen_think think;
    /* typing */
    lineedit *le;           /* NULL: lines are read plainly */
    bool raw;               /* stdin and stdout are a terminal */
    unsigned char key[256]; /* read but not used yet: key_at .. n_key */
    int key_at, n_key;
    char history[512];      /* file, "" none */
} chat;

/* ---- the conversation ---- */

static vq_status push(chat *c, vq_role role, const char *p, size_t n, vq_err *e)
{
    if (vq_grow(&c->turn, &c->cap_turn, c->n_turn + 1, sizeof *c->turn)) {
        return vq_fail(e, VQ_ENOMEM, "out of memory for the conversation");
    }
    turn *t = &c->turn[c->n_turn];
    *t = (turn){ .role = role };
    vq_buf_add(&t->text, p, n);
    if (t->text.oom) {
        vq_buf_clear(&t->text);
        return vq_fail(e, VQ_ENOMEM, "out of memory for the conversation");
    }
    c->n_turn++;
    return VQ_OK;
}

static void pop(chat *c, size_t keep)
{
    while (c->n_turn > keep) vq_buf_clear(&c->turn[--c->n_turn].text);
}

static vq_status render(const chat *c, vq_ids *ids, vq_err *e)
{
    vq_message *m = vq_calloc(c->n_turn, sizeof *m);
    if (!m) return vq_fail(e, VQ_ENOMEM, "out of memory for the conversation");
    for (size_t i = 0; i < c->n_turn; i++) {
        const vq_buf *t = &c->turn[i].text;
        m[i] = (vq_message){ .role = c->turn[i].role, .content = { t->p ? t->p : "", t->n } };
    }
    const vq_render_opts r = { .no_force_think = true };
    const vq_status st = vq_engine_render(c->eng, m, c->n_turn, &r, ids, NULL, e);
    vq_free(m);
    return st;
}

/* Brings the session to exactly these ids, of which at least the last is computed anew. */
static vq_status queue(chat *c, const vq_ids *ids, vq_err *e)
{
    const int32_t *have = vq_session_ids(c->s);
    const size_t len = vq_session_len(c->s);
    size_t same = 0;
    while (same < len && same + 1 < ids->n && have[same] == ids->v[same]) same++;
    const vq_status st = vq_session_truncate(c->s, same, e);
    return st ? st : vq_session_add(c->s, ids->v + same, ids->n - same, e);
}

/* One question and its answer.  On failure the question is forgotten. */
static vq_status ask(chat *c, const char *p, size_t n, vq_err *e)
{
    const size_t before = c->n_turn;
    const gen_show show = { .think = c->think };
    vq_ids ids = { 0 };
    gen_result r = { 0 };
    vq_status st = push(c, VQ_USER, p, n, e);
    if (!st) st = render(c, &ids, e);
    if (!st) st = queue(c, &ids, e);
    if (!st) {
        const vq_info *info = vq_engine_info(c->eng);
        st = gen_answer(c->a, c->eng, c->s, gen_in_think(info, ids.v, ids.n), (size_t)c->o->gen.n,
                        &show, &r, e);
    }
    if (st == VQ_EINTR) {
        vq_engine_resume(c->eng);
        term_clear_interrupt();
        app_note(c->a, "[stopped]");
        st = VQ_OK;
    } else if (!st && r.length) {
        app_note(c->a, vq_session_finished(c->s) && ids.n + r.ids.n >= vq_engine_info(c->eng)->ctx
                           ? "[the context is full: /clear starts anew]"
                           : "[cut off by -n]");
    }
    if (!st && r.content.n) st = push(c, VQ_ASSISTANT, r.content.p, r.content.n, e);
    if (st || !r.content.n) pop(c, before);
    gen_clear(&r);
    vq_ids_clear(&ids);
    return st;
}

/* ---- typing ---- */

/* A line by keys; false at the end of input. */
static bool read_keys(chat *c, vq_buf *line)
{
    vq_buf screen = { 0 };
    le_event ev = LE_MORE;
    if (!term_raw_enter()) return false;
    le_begin(c->le, "> ", term_columns());
    while (ev == LE_MORE) {
        vq_buf_reset(&screen);
        le_draw(c->le, &screen);
        term_write(screen.p, screen.n);
        if (c->key_at == c->n_key) {
            c->key_at = 0;
            c->n_key = term_read(c->key, sizeof c->key, le_pending(c->le) ? 50 : -1);
            if (c->n_key < 0) {
                c->n_key = 0;
                break;
            }
            if (c->n_key == 0) { /* a lone Escape, or another window size */
                le_pause(c->le);
                le_resize(c->le, term_columns());
            }
        }
        /* All keys at hand before the next drawing: a paste is drawn once. */
        while (c->key_at < c->n_key && ev == LE_MORE) ev = le_feed(c->le, c->key[c->key_at++]);
        if (ev == LE_INTERRUPT) { /* drops the line */
            const bool empty = le_text(c->le).n == 0;
            vq_buf_reset(&screen);
            le_finish(c->le, &screen);
            if (empty) vq_buf_str(&screen, "(Ctrl-D or /exit leaves)\r\n");
            term_write(screen.p, screen.n);
            le_begin(c->le, "> ", term_columns());
            ev = LE_MORE;
        } else if (ev == LE_SUSPEND) {
            term_suspend();
            ev = LE_MORE;
        }
    }
    vq_buf_reset(&screen);
    le_finish(c->le, &screen);
    term_write(screen.p, screen.n);
    term_raw_leave();
    vq_buf_clear(&screen);
    const vq_str t = le_text(c->le);
    vq_buf_add(line, t.p, t.n);
    return ev == LE_LINE;
}

/* A line of a pipe or file. */
static bool read_plain(vq_buf *line)
{
    char part[4096];
    bool any = false;
    while (fgets(part, sizeof part, stdin)) {
        any = true;
        const size_t n = strlen(part);
        vq_buf_add(line, part, n);
        if (n && part[n - 1] == '\n') break;
    }
    while (line->n && (line->p[line->n - 1] == '\n' || line->p[line->n - 1] == '\r')) {
        line->p[--line->n] = 0;
    }
    return any;
}

static void history_open(chat *c)
{
    const char *home = getenv("HOME");
    if (!home || strlen(home) > sizeof c->history - 32) return;
    snprintf(c->history, sizeof c->history, "%s/.vaquita_history", home);
    vq_buf file = { 0 };
    if (vq_file_exists(c->history) && !vq_file_read(c->history, 16 << 20, &file, NULL)) {
        le_history_load(c->le, file.p, file.n);
    }
    vq_buf_clear(&file);
}

static void remember(chat *c, const vq_buf *line)
{
    if (!c->le || !le_history_add(c->le, line->p, line->n) || !c->history[0]) return;
    vq_buf entry = { 0 };
    le_history_escape(&entry, (vq_str){ line->p, line->n });
    if (!entry.oom) term_append_private(c->history, entry.p, entry.n);
    vq_buf_clear(&entry);
}

/* ---- commands ---- */

static const char help_text[] =
    "/help            this\n"
    "/clear           forget the conversation\n"
    "/think show|hide|only\n"
    "                 what to do with thoughts\n"
    "/exit            leave; so does Ctrl-D\n"
    "Ctrl-C stops an answer (twice: leaves).  Alt-Enter starts a new line; pasted text\n"
    "may have several.  Up and Down bring back earlier lines, which are also kept in\n"
    "~/.vaquita_history (delete the file to forget them).\n";

/* Handles a line that starts with '/'.  Returns false to leave. */
static bool command(chat *c, const char *line)
{
    if (!strcmp(line, "/exit") || !strcmp(line, "/quit")) return false;
    if (!strcmp(line, "/help")) {
        app_puts(c->a, help_text);
    } else if (!strcmp(line, "/clear")) {
        pop(c, c->o->gen.system ? 1 : 0);
        app_note(c->a, "[a new conversation]");
    } else if (!strncmp(line, "/think", 6) && (line[6] == ' ' || !line[6])) {
        const int mode = line[6] ? args_choice("show|hide|only", line + 7) : -1;
        if (mode < 0) app_note(c->a, "/think show, /think hide or /think only");
        else c->think = (gen_think)mode;
    } else {
        app_note(c->a, "no such command: %s; /help lists them", line);
    }
    app_flush(c->a);
    return true;
}

static bool is_blank(const vq_buf *b)
{
    size_t i = 0;
    while (i < b->n && strchr(" \t\r\n", b->p[i]) && b->p[i]) i++;
    return i == b->n;
}

/* Errors of one turn that leave the chat able to go on. */
static bool bearable(vq_status st)
{
    return st == VQ_ENOFIT || st == VQ_EUSAGE;
}

static vq_status talk(chat *c, vq_err *e)
{
    vq_status st = VQ_OK;
    vq_buf line = { 0 };
    for (bool first = true; !st && !c->a->out_errno; first = false) {
        vq_buf_reset(&line);
        if (!first && !c->raw) app_puts(c->a, "\n");
        if (!(c->raw ? read_keys(c, &line) : read_plain(&line))) {
            if (term_interrupted()) st = vq_fail(e, VQ_EINTR, "interrupted");
            break;
        }
        if (line.oom) {
            st = vq_fail(e, VQ_ENOMEM, "out of memory for the line");
            break;
        }
        if (is_blank(&line)) continue;
        remember(c, &line);
        if (line.p[0] == '/') {
            if (!command(c, line.p)) break;
            continue;
        }
        st = ask(c, line.p, line.n, e);
        if (bearable(st)) {
            app_note(c->a, "%s%s", e->msg, st == VQ_ENOFIT ? " (/clear starts anew)" : "");
            st = VQ_OK;
        }
    }
    vq_buf_clear(&line);
    return st;
}

static vq_status run(app *a, const void *opts, char **arg, int n_arg, vq_err *e)
{
    (void)n_arg;
    chat c = { .a = a, .o = opts };
    const gen_opts *g = &c.o->gen;
    if (a->json) return vq_fail(e, VQ_EUSAGE, "chat has no --json; run has");
    c.think = (gen_think)g->think;
    c.raw = vq_isatty(0) && a->tty_out;
    vq_status st = gen_open_drafting(a, &c.eng, arg[0], g, e);
    if (!st) {
        const vq_info *info = vq_engine_info(c.eng);
        /* The limit of an answer is gen_answer's: the session lives for the whole conversation. */
        const vq_session_opts so = { .sampling = gen_sampling(g, info, vq_random64() >> 11),
                                     .draft = (vq_draft)g->draft };
        st = vq_session_open(&c.s, c.eng, &so, e);
        if (!st && !info->has_template) {
            st = vq_fail(e, VQ_EUSAGE, "%s: no chat template in this model; use run --raw", arg[0]);
        }
        if (!st && g->system) st = push(&c, VQ_SYSTEM, g->system, strlen(g->system), e);
        if (!st && c.raw) {
            c.le = le_new();
            if (!c.le) st = vq_fail(e, VQ_ENOMEM, "out of memory for the line");
        }
        if (!st && c.raw) {
            history_open(&c);
            app_note(a, "%s, context %u, %s with %d threads; /help for help",
                     info->name ? info->name : info->arch, info->ctx, info->cpu, info->threads);
        }
        if (!st) st = talk(&c, e);
    }
    pop(&c, 0);
    vq_free(c.turn);
    le_free(c.le);
    vq_session_close(c.s);
    term_watch(NULL);
    vq_engine_close(c.eng);
    return st;
}

static const chat_opts defaults = { .gen = { GEN_DEFAULTS } };

const app_verb app_verb_chat = {
    "chat", "MODEL", "a conversation on the terminal, or line by line from a pipe",
    "In the chat: /help.  Ctrl-C stops an answer, Ctrl-D leaves.\n"
    "Example:\n"
    "  vaquita chat model.vaq --think hide\n",
    options, &defaults, sizeof defaults, 1, 1, run,
};
