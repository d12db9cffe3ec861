/* messages.c - conversations from JSON, as chat programs write them.
 *
 * Either an array of messages or an object with "messages" (and perhaps "add_generation_prompt").
 * The source is copied first, so that everything handed out lives in the vq_messages itself. */
#include "core/text/chat.h"

#include "core/base/json.h"
#include "core/base/mem.h"

#include <string.h>

typedef struct reader {
    const vq_json *j;
    const char *what;
    size_t at;          /* number of the message, from 1 */
    vq_err *e;
} reader;

static vq_status bad(const reader *r, const char *why)
{
    return vq_fail(r->e, VQ_EFORMAT, "%s: message %zu: %s", r->what, r->at, why);
}

static bool is_null(const vq_json *j, uint32_t v) { return !v || vq_json_is(j, v, VQ_JNULL); }

static vq_status read_role(const reader *r, uint32_t v, vq_role *out)
{
    static const char *const names[] = { "system", "user", "assistant", "tool" };
    vq_str s = v ? vq_json_str(r->j, v) : (vq_str){ NULL, 0 };
    for (int i = 0; i < 4; i++) {
        if (!vq_str_eq(s, names[i])) continue;
        *out = (vq_role)i;
        return VQ_OK;
    }
    return bad(r, "\"role\" must be \"system\", \"user\", \"assistant\" or \"tool\"");
}

static vq_status read_call(const reader *r, uint32_t v, vq_tool_call *out)
{
    if (!vq_json_is(r->j, v, VQ_JOBJ)) return bad(r, "a tool call must be an object");
    uint32_t fn = vq_json_get(r->j, v, "function"), type = vq_json_get(r->j, v, "type");
    if (!vq_json_is(r->j, fn, VQ_JOBJ))
        return bad(r, "a tool call must have an object \"function\"");
    out->type = is_null(r->j, type) ? vq_str_c("function") : vq_json_str(r->j, type);
    out->name = vq_json_str(r->j, vq_json_get(r->j, fn, "name"));
    out->arguments = vq_json_str(r->j, vq_json_get(r->j, fn, "arguments"));
    if (!out->type.p) return bad(r, "the \"type\" of a tool call must be a string");
    if (!out->name.p) return bad(r, "the \"name\" of a tool call's function must be a string");
    if (!out->arguments.p)
        return bad(r, "the \"arguments\" of a tool call's function must be a string (of JSON)");
    return VQ_OK;
}

/* Counts (m NULL) or fills in the tool calls of message v. */
static vq_status read_message(const reader *r, uint32_t v, vq_message *m, vq_tool_call *calls)
{
    if (!vq_json_is(r->j, v, VQ_JOBJ)) return bad(r, "a message must be an object");
    vq_status s = read_role(r, vq_json_get(r->j, v, "role"), &m->role);
    if (s) return s;
    uint32_t content = vq_json_get(r->j, v, "content");
    m->content = is_null(r->j, content) ? (vq_str){ NULL, 0 } : vq_json_str(r->j, content);
    if (!is_null(r->j, content) && !m->content.p)
        return bad(r, "\"content\" must be a string or null");
    uint32_t list = vq_json_get(r->j, v, "tool_calls");
    if (is_null(r->j, list)) return VQ_OK;
    if (!vq_json_is(r->j, list, VQ_JARR)) return bad(r, "\"tool_calls\" must be an array");
    m->calls = calls;
    for (uint32_t k = vq_json_first(r->j, list); k && !s; k = vq_json_next(r->j, list, k)) {
        s = read_call(r, k, &calls[m->n_calls++]);
    }
    return s;
}

/* How many tool calls are there at most, over all messages? */
static size_t count_calls(const vq_json *j, uint32_t list)
{
    size_t n = 0;
    for (uint32_t k = vq_json_first(j, list); k; k = vq_json_next(j, list, k)) {
        uint32_t calls = vq_json_get(j, k, "tool_calls");
        if (vq_json_is(j, calls, VQ_JARR)) n += j->node[calls].count;
    }
    return n;
}

static vq_status read_all(vq_messages *out, reader *r, uint32_t list)
{
    size_t n = r->j->node[list].count;
    out->m = vq_calloc(n + 1, sizeof *out->m);
    out->calls_ = vq_calloc(count_calls(r->j, list) + 1, sizeof *out->calls_);
    if (!out->m || !out->calls_) return vq_fail(r->e, VQ_ENOMEM, "%s: out of memory", r->what);
    vq_tool_call *calls = out->calls_;
    for (uint32_t k = vq_json_first(r->j, list); k; k = vq_json_next(r->j, list, k)) {
        vq_message *m = &out->m[out->n++];
        r->at = out->n;
        vq_status s = read_message(r, k, m, calls);
        if (s) return s;
        calls += m->n_calls;
    }
    return VQ_OK;
}

/* The document is parsed: find the list and read it. */
static vq_status read_document(vq_messages *out, const vq_json *j, const char *what, vq_err *e)
{
    reader r = { .j = j, .what = what, .e = e };
    uint32_t list = 0; /* the root, when it is the array itself */
    if (vq_json_type(j, 0) == VQ_JOBJ) {
        list = vq_json_get(j, 0, "messages");
        uint32_t gen = vq_json_get(j, 0, "add_generation_prompt");
        if (gen && !vq_json_bool(j, gen, &out->add_generation)) {
            return vq_fail(e, VQ_EFORMAT, "%s: \"add_generation_prompt\" must be true or false",
                           what);
        }
    }
    if (vq_json_type(j, list) != VQ_JARR) {
        return vq_fail(e, VQ_EFORMAT,
                       "%s: there must be an array of messages, or an object with \"messages\"",
                       what);
    }
    return read_all(out, &r, list);
}

vq_status vq_messages_parse(vq_messages *out, const char *p, size_t n, const char *what, vq_err *e)
{
    *out = (vq_messages){ .add_generation = true };
    out->text_ = vq_strndup(p, n);
    out->doc_ = vq_calloc(1, sizeof *out->doc_);
    if (!out->text_ || !out->doc_) {
        vq_messages_clear(out);
        return vq_fail(e, VQ_ENOMEM, "%s: out of memory", what);
    }
    vq_status s = vq_json_parse(out->doc_, out->text_, n, what, e);
    if (!s) s = read_document(out, out->doc_, what, e);
    if (s) vq_messages_clear(out);
    return s;
}

void vq_messages_clear(vq_messages *m)
{
    if (m->doc_) vq_json_clear(m->doc_);
    vq_free(m->doc_);
    vq_free(m->m);
    vq_free(m->calls_);
    vq_free(m->text_);
    *m = (vq_messages){ 0 };
}
