/* gen.c - runs a session to the end of its answer and shows it (gen.h).
 *
 * Text on a terminal differs from text in a pipe in two ways only: thoughts are dimmed, and control
 * characters are replaced, since a model must not be able to steer the terminal.  Thoughts and
 * answer are separated by exactly one blank line however many newlines the model wrote. */
#include "core/app/gen.h"

#include "core/app/term.h"
#include "core/base/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One pass reads the weights once, for 16 rows nearly as fast as for 8 (two cores, 1.5B); what more
 * drafts could win is less than the memory their logits take. */
enum { MAX_DRAFT = 15 };

static vq_status open_engine(const app *a, vq_engine **out, const char *path, uint64_t ctx, int kv,
                             int max_draft, uint64_t experts_ram, vq_err *e)
{
    static const vq_kv_type kvs[] = { VQ_KV_INT8, VQ_KV_BF16, VQ_KV_F32 }; /* GEN_KV's order */
    *out = NULL;
    vq_status st = app_model_path(path, e);
    if (st) return st;
    const vq_engine_opts o = {
        .cpu = a->cpu, .threads = (int)a->threads, .ctx = (uint32_t)ctx,
        .kv = kv < 0 ? VQ_KV_AUTO : kvs[kv], .max_draft = max_draft,
        .experts_ram = experts_ram,
    };
    st = vq_engine_open(out, path, &o, e);
    if (st) return st;
    term_watch(*out);
    const vq_info *i = vq_engine_info(*out);
    const vq_expert_stats x = vq_engine_experts(*out);
    if (x.slots && !experts_ram) {
        char room[16];
        vq_fmt_size(room, x.bytes);
        app_note(a, "%s: larger than the available memory: %d experts (%s) at a time are kept, the "
                    "others are read from disk as they are wanted", path, x.slots, room);
    }
    const uint32_t usual = i->ctx_model < 36864 ? i->ctx_model : 36864;
    if (!ctx && i->ctx < usual) {
        app_note(a,
                 "%s: context of %u positions: what fits the available memory (the model takes %u)",
                 path, i->ctx, i->ctx_model);
    }
    return VQ_OK;
}

vq_status gen_open(const app *a, vq_engine **out, const char *path, uint64_t ctx, int kv, vq_err *e)
{
    return open_engine(a, out, path, ctx, kv, 0, 0, e);
}

vq_status gen_open_drafting(const app *a, vq_engine **out, const char *path, const gen_opts *o,
                            vq_err *e)
{
    return open_engine(a, out, path, o->ctx, o->kv, o->draft == VQ_DRAFT_OFF ? 0 : MAX_DRAFT,
                       o->experts_ram, e);
}

vq_sampling gen_sampling(const gen_opts *o, const vq_info *info, uint64_t random_seed)
{
    return (vq_sampling){
        .temperature = o->temp < 0 ? (double)info->temperature : o->temp,
        .top_p = o->top_p < 0 ? (double)info->top_p : o->top_p,
        .seed = o->seed.set ? o->seed.v : random_seed,
    };
}

bool gen_in_think(const vq_info *info, const int32_t *ids, size_t n)
{
    while (n-- > 0) {
        if (info->end_think >= 0 && ids[n] == info->end_think) return false;
        if (info->think >= 0 && ids[n] == info->think) return true;
    }
    return false;
}

void gen_clear(gen_result *r)
{
    vq_buf_clear(&r->reasoning);
    vq_buf_clear(&r->content);
    vq_ids_clear(&r->ids);
    *r = (gen_result){ 0 };
}

/* ---- the screen ---- */

typedef struct screen {
    app *a;
    const gen_show *show;
    bool dim_works;         /* stdout is a terminal that knows attributes */
    bool dim;               /* switched on now */
    bool any_think;         /* a thought has been printed */
    bool any_answer;
    int newlines;           /* newlines at the end of what was printed, at most 2 */
    bool any;               /* anything was printed */
    bool waiting;           /* a "thinking" line stands on stderr */
    double waited;          /* when it was last drawn */
} screen;

static void set_dim(screen *c, bool on)
{
    if (!c->dim_works || c->dim == on) return;
    c->dim = on;
    term_styled(on);
    app_puts(c->a, on ? "\033[2m" : "\033[0m");
}

/* Valid UTF-8 in, no control characters out. */
static void put_clean(app *a, const char *p, size_t n)
{
    size_t from = 0;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int len = vq_utf8_get(p + i, n - i, &cp);
        if (len == 0) { len = 1; cp = 0; }
        const bool control = (cp < 32 && cp != '\n' && cp != '\t') || (cp >= 0x7f && cp < 0xa0);
        if (control) {
            app_put(a, p + from, i - from);
            app_puts(a, "\xEF\xBF\xBD");
            from = i + (size_t)len;
        }
        i += (size_t)len;
    }
    app_put(a, p + from, n - from);
}

static void put_text(screen *c, const char *p, size_t n)
{
    if (n == 0) return;
    if (c->a->tty_out) put_clean(c->a, p, n);
    else app_put(c->a, p, n);
    c->any = true;
    for (size_t i = n > 2 ? n - 2 : 0; i < n; i++) {
        c->newlines = p[i] != '\n' ? 0 : c->newlines < 2 ? c->newlines + 1 : 2;
    }
}

static void wipe_waiting(screen *c)
{
    if (c->waiting) fputs("\r\033[K", stderr);
    c->waiting = false;
}

/* Hidden thoughts can take minutes: say that they go on. */
static void show_waiting(screen *c, size_t n)
{
    if (!c->a->tty_err || c->a->quiet) return;
    const double now = vq_now();
    if (c->waiting && now - c->waited < 0.25) return;
    fprintf(stderr, "\rthinking, %zu token%s\033[K", n, n == 1 ? "" : "s");
    fflush(stderr);
    c->waiting = true;
    c->waited = now;
}

static void show_part(screen *c, vq_part part, const char *p, size_t n)
{
    const gen_think mode = c->show->think;
    if (n == 0) return;
    if (part == VQ_PART_THINK) {
        if (mode == GEN_HIDE) return;
        set_dim(c, mode == GEN_SHOW);
        put_text(c, p, n);
        c->any_think = true;
        return;
    }
    if (mode == GEN_ONLY) return;
    wipe_waiting(c);
    set_dim(c, false);
    while (c->any_think && !c->any_answer && c->newlines < 2) put_text(c, "\n", 1);
    put_text(c, p, n);
    c->any_answer = true;
}

static void show_id(screen *c, int32_t id)
{
    char s[16];
    snprintf(s, sizeof s, "%s%d", c->any ? " " : "", id);
    put_text(c, s, strlen(s));
}

static void show_end(screen *c)
{
    wipe_waiting(c);
    set_dim(c, false);
    if (c->any && c->newlines == 0) put_text(c, "\n", 1);
    app_flush(c->a);
}

/* ---- the loop ---- */

/* One id: into the result, and onto the screen unless silent. */
static vq_status take(screen *c, vq_stream *st, int32_t id, vq_buf *text, gen_result *r, vq_err *e)
{
    vq_buf_reset(text);
    const vq_part part = vq_stream_put(st, id, text);
    vq_buf *to = part == VQ_PART_THINK ? &r->reasoning : &r->content;
    vq_buf_add(to, text->p, text->n);
    if (!vq_ids_add(&r->ids, id) || to->oom || text->oom) {
        return vq_fail(e, VQ_ENOMEM, "out of memory for the answer");
    }
    if (part == VQ_PART_THINK) r->thinking++;
    else r->answer++;
    if (c->show->silent) return VQ_OK;
    if (c->show->ids) {
        show_id(c, id);
    } else {
        if (part == VQ_PART_THINK && c->show->think == GEN_HIDE) show_waiting(c, r->thinking);
        show_part(c, part, text->p, text->n);
    }
    app_flush(c->a);
    return VQ_OK;
}

vq_status gen_answer(app *a, vq_engine *eng, vq_session *s, bool in_think, size_t n_max,
                     const gen_show *show, gen_result *r, vq_err *e)
{
    const char *term = getenv("TERM");
    screen c = { .a = a, .show = show };
    c.dim_works = a->tty_out && term && strcmp(term, "dumb") != 0;
    vq_stream *stream;
    vq_status st = vq_stream_open(&stream, eng, in_think, e);
    if (st) return st;

    app_progress progress;
    app_progress_begin(&progress, a, "prompt", "tokens", 2);
    vq_session_on_prefill(s, app_progress_step, &progress);
    vq_buf text = { 0 };
    double start = vq_now();
    for (size_t n = 0;;) {
        int32_t id;
        st = vq_session_next(s, &id, e);
        if (n++ == 0) {
            app_progress_end(&progress);
            const double now = vq_now();
            r->prefill_s = now - start;
            start = now;
        }
        if (st) break;
        st = take(&c, stream, id, &text, r, e);
        if (st || a->out_errno) break;
        const vq_finish f = vq_session_finished(s);
        r->length = f == VQ_FINISH_LENGTH || (f == VQ_RUNNING && n >= n_max);
        if (f || r->length) break;
    }
    r->decode_s = vq_now() - start;
    vq_session_on_prefill(s, NULL, NULL);

    vq_buf_reset(&text);
    const vq_part part = vq_stream_end(stream, &text);
    vq_buf_add(part == VQ_PART_THINK ? &r->reasoning : &r->content, text.p, text.n);
    if (!show->silent) {
        if (!show->ids) show_part(&c, part, text.p, text.n);
        show_end(&c);
    }
    vq_buf_clear(&text);
    vq_stream_close(stream);
    return st;
}
