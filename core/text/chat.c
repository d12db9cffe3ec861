/* chat.c - the chat templates of the R1 family and ChatML, written out.
 *
 * A prompt is a row of marks (added tokens) and plain text.  Plain text is collected until a mark
 * comes and then encoded in one go, with marks switched off: it is split and merged exactly as in
 * the whole rendered text, and whatever a caller writes stays text.  The one exception are <think>
 * and </think> in the assistant's own messages: they are the model's punctuation, open no turn, and
 * the reference renders them so.  A mark that the tokenizer lacks (the tool marks of the distills)
 * is plain text, as it is there.
 *
 * The templates are kept as they are, odd corners included: the same conversation must give the ids
 * the model was trained on (models.md 6.15, 8).  Variables have the names of the Jinja sources. */
#include "core/text/chat.h"

#include "core/base/mem.h"
#include "core/file/vaq.h"

#include <string.h>

#define BAR "\xef\xbd\x9c"    /* U+FF5C */
#define LOW "\xe2\x96\x81"    /* U+2581 */
#define MARK(words) "<" BAR words BAR ">"

static const char USER[] = MARK("User");
static const char ASSISTANT[] = MARK("Assistant");
static const char EOS[] = MARK("end" LOW "of" LOW "sentence");
static const char CALLS_BEGIN[] = MARK("tool" LOW "calls" LOW "begin");
static const char CALLS_END[] = MARK("tool" LOW "calls" LOW "end");
static const char CALL_BEGIN[] = MARK("tool" LOW "call" LOW "begin");
static const char CALL_END[] = MARK("tool" LOW "call" LOW "end");
static const char SEP[] = MARK("tool" LOW "sep");
static const char OUTPUTS_BEGIN[] = MARK("tool" LOW "outputs" LOW "begin");
static const char OUTPUTS_END[] = MARK("tool" LOW "outputs" LOW "end");
static const char OUTPUT_BEGIN[] = MARK("tool" LOW "output" LOW "begin");
static const char OUTPUT_END[] = MARK("tool" LOW "output" LOW "end");
static const char THINK[] = "<think>";
static const char END_THINK[] = "</think>";
static const char IM_START[] = "<|im_start|>";
static const char IM_END[] = "<|im_end|>";

/* ---- recognising ---- */

int vq_chat_recognise(vq_str t)
{
    if (!t.p) return VAQ_TPL_NONE;
    if (vq_str_has(t, USER) && vq_str_has(t, ASSISTANT)) {
        /* The tail is a Jinja string: '<...Assistant...><think>\n' */
        bool thinks = vq_str_has(t, MARK("Assistant") "<think>");
        if (vq_str_has(t, "is_last_user")) return thinks ? VAQ_TPL_NONE : VAQ_TPL_R1_0528;
        if (vq_str_has(t, "is_first_sp")) return thinks ? VAQ_TPL_R1_2502 : VAQ_TPL_R1_2501;
        if (vq_str_has(t, "ns.system_prompt = message['content']")) {
            return thinks ? VAQ_TPL_DISTILL : VAQ_TPL_DISTILL_2501;
        }
        return VAQ_TPL_NONE;
    }
    /* Jinja takes the newline spelled or as it is; both are met. */
    if (vq_str_has(t, "'<|im_start|>' + message['role'] + '\\n' + message['content'] + "
                      "'<|im_end|>'") ||
        vq_str_has(t, "'<|im_start|>' + message['role'] + '\n' + message['content'] + "
                      "'<|im_end|>'")) {
        if (vq_str_has(t, "named SmolLM, trained by Hugging Face<|im_end|>")) return VAQ_TPL_SMOLLM;
        /* What else ChatML templates do (tools, default system texts, checks) is not generic. */
        static const char *const more[] = { "tool", "You are", "raise_exception", "think",
                                            "system" };
        for (size_t i = 0; i < sizeof more / sizeof *more; i++) {
            if (vq_str_has(t, more[i])) return VAQ_TPL_NONE;
        }
        return VAQ_TPL_CHATML;
    }
    return VAQ_TPL_NONE;
}

static bool is_r1(int template_id)
{
    return template_id == VAQ_TPL_R1_2501 || template_id == VAQ_TPL_R1_2502 ||
           template_id == VAQ_TPL_R1_0528 || template_id == VAQ_TPL_DISTILL ||
           template_id == VAQ_TPL_DISTILL_2501;
}

static bool tail_thinks(const vq_chat_opts *o)
{
    return o->template_id == VAQ_TPL_R1_2502 || o->template_id == VAQ_TPL_DISTILL ||
           (o->force_think && is_r1(o->template_id));
}

bool vq_chat_opens_think(const vq_chat_opts *o)
{
    return o->add_generation && tail_thinks(o);
}

bool vq_chat_ids_open_think(const vq_tok *t, const int32_t *id, size_t n)
{
    int32_t think = vq_tok_added(t, THINK, sizeof THINK - 1);
    int32_t end = vq_tok_added(t, END_THINK, sizeof END_THINK - 1);
    while (n > 0 && think >= 0) {
        n--;
        if (id[n] == think) return true;
        if (id[n] == end) return false;
    }
    return false;
}

/* ---- output ---- */

typedef struct render {
    const vq_tok *t;
    vq_ids *ids;        /* may be NULL */
    vq_buf *text;       /* may be NULL */
    vq_buf plain;       /* text not yet encoded */
    vq_status status;   /* of the first failure; everything after it does nothing */
    vq_err *e;
} render;

static void flush(render *r)
{
    if (r->status || !r->ids || r->plain.n == 0) return;
    if (r->plain.oom)
        r->status = vq_fail(r->e, VQ_ENOMEM, "out of memory while rendering the messages");
    else r->status = vq_tok_encode(r->t, r->plain.p, r->plain.n, false, r->ids, r->e);
    vq_buf_reset(&r->plain);
}

static void plain(render *r, vq_str s)
{
    if (r->text) vq_buf_add(r->text, s.p, s.n);
    if (r->ids) vq_buf_add(&r->plain, s.p, s.n);
}

static void text(render *r, const char *s) { plain(r, vq_str_c(s)); }

static void mark_id(render *r, int32_t id)
{
    vq_str s = vq_tok_bytes(r->t, id);
    if (!s.p) return;
    if (r->text) vq_buf_add(r->text, s.p, s.n);
    flush(r);
    if (!r->status && r->ids && !vq_ids_add(r->ids, id)) {
        r->status = vq_fail(r->e, VQ_ENOMEM, "out of memory while rendering the messages");
    }
}

static void mark(render *r, const char *s)
{
    int32_t id = vq_tok_added(r->t, s, strlen(s));
    if (id >= 0) mark_id(r, id);
    else text(r, s);
}

static bool starts(vq_str s, const char *with)
{
    size_t n = strlen(with);
    return n <= s.n && memcmp(s.p, with, n) == 0;
}

/* The assistant's own words: its think marks are marks. */
static void spoken(render *r, vq_str s)
{
    size_t at = 0; /* s begins with this much plain text */
    while (at < s.n) {
        vq_str rest = { s.p + at, s.n - at };
        const char *which = starts(rest, THINK) ? THINK : NULL;
        if (starts(rest, END_THINK)) which = END_THINK;
        if (!which) {
            at++;
            continue;
        }
        plain(r, (vq_str){ s.p, at });
        mark(r, which);
        at += strlen(which);
        s = (vq_str){ s.p + at, s.n - at };
        at = 0;
    }
    plain(r, s);
}

/* content.split('</think>')[-1] */
static vq_str after_think(vq_str s)
{
    for (size_t at = s.n; at > 0; at--) {
        vq_str rest = { s.p + at - 1, s.n - at + 1 };
        if (!starts(rest, END_THINK)) continue;
        size_t n = sizeof END_THINK - 1;
        return (vq_str){ rest.p + n, rest.n - n };
    }
    return s;
}

static void call(render *r, const vq_tool_call *c)
{
    mark(r, CALL_BEGIN);
    plain(r, c->type);
    mark(r, SEP);
    plain(r, c->name);
    text(r, "\n```json\n");
    plain(r, c->arguments);
    text(r, "\n```");
    mark(r, CALL_END);
}

static void tool_output(render *r, vq_str content, bool *is_output_first, const char *separator)
{
    if (*is_output_first) mark(r, OUTPUTS_BEGIN);
    else text(r, separator);
    mark(r, OUTPUT_BEGIN);
    plain(r, content);
    mark(r, OUTPUT_END);
    *is_output_first = false;
}

static void open_turn(render *r, const vq_chat_opts *o, bool assistant_mark)
{
    if (assistant_mark) mark(r, ASSISTANT);
    if (!o->add_generation || !tail_thinks(o)) return;
    mark(r, THINK);
    text(r, "\n");
}

/* ---- templates ---- */

/* All system messages, joined. */
static void systems(render *r, const vq_message *m, size_t n)
{
    bool is_first_sp = true;
    for (size_t i = 0; i < n; i++) {
        if (m[i].role != VQ_SYSTEM) continue;
        if (!is_first_sp) text(r, "\n\n");
        plain(r, m[i].content);
        is_first_sp = false;
    }
}

static void r1(render *r, const vq_chat_opts *o, const vq_message *m, size_t n)
{
    bool is_first = false, is_tool = false, is_output_first = true;
    mark_id(r, vq_tok_bos(r->t));
    systems(r, m, n);
    for (size_t i = 0; i < n; i++) {
        vq_str content = m[i].content;
        if (m[i].role == VQ_USER) {
            is_tool = false;
            mark(r, USER);
            plain(r, content);
        } else if (m[i].role == VQ_ASSISTANT && m[i].n_calls > 0) {
            is_tool = false;
            for (int k = 0; k < m[i].n_calls; k++) {
                if (!is_first) { /* set once and for all: a later call gets no Assistant mark */
                    mark(r, ASSISTANT);
                    spoken(r, content);
                    mark(r, CALLS_BEGIN);
                } else {
                    text(r, "\n");
                }
                call(r, &m[i].calls[k]);
                is_first = true;
            }
            mark(r, CALLS_END);
            mark(r, EOS);
        } else if (m[i].role == VQ_ASSISTANT) {
            mark(r, is_tool ? OUTPUTS_END : ASSISTANT);
            spoken(r, is_tool ? content : after_think(content));
            mark(r, EOS);
            is_tool = false;
        } else if (m[i].role == VQ_TOOL) {
            is_tool = true;
            tool_output(r, content, &is_output_first, "");
        }
    }
    if (is_tool) mark(r, OUTPUTS_END);
    else if (o->add_generation) open_turn(r, o, true);
}

static void distill(render *r, const vq_chat_opts *o, const vq_message *m, size_t n)
{
    bool is_first = false, is_tool = false, is_output_first = true;
    vq_str system_prompt = { "", 0 };
    for (size_t i = 0; i < n; i++) {
        if (m[i].role == VQ_SYSTEM) system_prompt = m[i].content;
    }
    mark_id(r, vq_tok_bos(r->t));
    plain(r, system_prompt);
    for (size_t i = 0; i < n; i++) {
        vq_str content = m[i].content;
        if (m[i].role == VQ_USER) {
            is_tool = false;
            mark(r, USER);
            plain(r, content);
        } else if (m[i].role == VQ_ASSISTANT && !content.p) {
            is_tool = false;
            for (int k = 0; k < m[i].n_calls; k++) {
                if (!is_first) {
                    mark(r, ASSISTANT);
                    mark(r, CALLS_BEGIN);
                    call(r, &m[i].calls[k]);
                    is_first = true;
                } else { /* only here the list is closed: a single call leaves it open */
                    text(r, "\n");
                    call(r, &m[i].calls[k]);
                    mark(r, CALLS_END);
                    mark(r, EOS);
                }
            }
        } else if (m[i].role == VQ_ASSISTANT) {
            mark(r, is_tool ? OUTPUTS_END : ASSISTANT);
            spoken(r, is_tool ? content : after_think(content));
            mark(r, EOS);
            is_tool = false;
        } else if (m[i].role == VQ_TOOL) {
            is_tool = true;
            tool_output(r, content, &is_output_first, "\n");
        }
    }
    if (is_tool) mark(r, OUTPUTS_END);
    else if (o->add_generation) open_turn(r, o, true);
}

static void r1_0528(render *r, const vq_chat_opts *o, const vq_message *m, size_t n)
{
    bool is_tool = false, is_output_first = true, is_last_user = false;
    mark_id(r, vq_tok_bos(r->t));
    systems(r, m, n);
    for (size_t i = 0; i < n; i++) {
        vq_str content = m[i].content;
        if (m[i].role == VQ_SYSTEM) continue;
        is_last_user = m[i].role == VQ_USER;
        if (m[i].role == VQ_USER) {
            is_tool = false;
            mark(r, USER);
            plain(r, content);
            mark(r, ASSISTANT);
        } else if (m[i].role == VQ_ASSISTANT) {
            if (is_tool) mark(r, OUTPUTS_END);
            is_tool = false;
            spoken(r, after_think(content)); /* null beside tool calls prints as nothing */
            for (int k = 0; k < m[i].n_calls; k++) {
                if (k == 0) mark(r, CALLS_BEGIN);
                else text(r, "\n");
                call(r, &m[i].calls[k]);
            }
            if (m[i].n_calls > 0) {
                mark(r, CALLS_END);
                is_output_first = true;
            }
            mark(r, EOS);
        } else {
            is_tool = true;
            tool_output(r, content, &is_output_first, "\n");
        }
    }
    if (is_tool) mark(r, OUTPUTS_END);
    else if (o->add_generation) open_turn(r, o, !is_last_user);
}

static void chatml(render *r, const vq_chat_opts *o, const vq_message *m, size_t n)
{
    static const char *const roles[] = { "system\n", "user\n", "assistant\n", "tool\n" };
    if (o->template_id == VAQ_TPL_SMOLLM && n > 0 && m[0].role != VQ_SYSTEM) {
        mark(r, IM_START);
        text(r, "system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face");
        mark(r, IM_END);
        text(r, "\n");
    }
    for (size_t i = 0; i < n; i++) {
        mark(r, IM_START);
        text(r, roles[m[i].role]);
        if (m[i].role == VQ_ASSISTANT) spoken(r, m[i].content);
        else plain(r, m[i].content);
        mark(r, IM_END);
        text(r, "\n");
    }
    if (!o->add_generation) return;
    mark(r, IM_START);
    text(r, roles[VQ_ASSISTANT]);
}

/* What no template prints.  Content null is for tool calls, where the template prints those. */
static vq_status check(const vq_chat_opts *o, const vq_message *m, size_t n, vq_err *e)
{
    static const char *const roles[] = { "system", "user", "assistant", "tool" };
    for (size_t i = 0; i < n; i++) {
        if ((unsigned)m[i].role > VQ_TOOL)
            return vq_fail(e, VQ_EUSAGE, "message %zu has no known role", i + 1);
        bool calls = m[i].role == VQ_ASSISTANT && m[i].n_calls > 0 && is_r1(o->template_id);
        if (!m[i].content.p && !calls) {
            return vq_fail(
                e, VQ_EUSAGE,
                "message %zu (%s) has no content; only tool calls of the assistant go without, "
                "and not in every template",
                i + 1, roles[m[i].role]);
        }
        for (int k = 0; k < m[i].n_calls; k++) {
            const vq_tool_call *c = &m[i].calls[k];
            if (!c->type.p || !c->name.p || !c->arguments.p) {
                return vq_fail(e, VQ_EUSAGE,
                               "message %zu (%s): tool call %d lacks type, name or arguments",
                               i + 1, roles[m[i].role], k + 1);
            }
        }
    }
    return VQ_OK;
}

vq_status vq_chat_render(const vq_tok *t, const vq_chat_opts *o, const vq_message *m, size_t n,
                         vq_ids *ids, vq_buf *out, vq_err *e)
{
    render r = { .t = t, .ids = ids, .text = out, .e = e };
    size_t n_before = ids ? ids->n : 0;
    vq_status s = check(o, m, n, e);
    if (s) return s;
    switch (o->template_id) {
    case VAQ_TPL_R1_2501:
    case VAQ_TPL_R1_2502: r1(&r, o, m, n); break;
    case VAQ_TPL_DISTILL:
    case VAQ_TPL_DISTILL_2501: distill(&r, o, m, n); break;
    case VAQ_TPL_R1_0528: r1_0528(&r, o, m, n); break;
    case VAQ_TPL_CHATML:
    case VAQ_TPL_SMOLLM: chatml(&r, o, m, n); break;
    default:
        return vq_fail(e, VQ_EUSAGE,
                       "this model has no chat template that vaquita knows; use a raw prompt");
    }
    flush(&r);
    vq_buf_clear(&r.plain);
    s = r.status;
    if (!s && out && out->oom)
        s = vq_fail(e, VQ_ENOMEM, "out of memory while rendering the messages");
    if (s && ids) ids->n = n_before;
    return s;
}
