/* json.c - JSON in (RFC 8259, strict) and out.
 *
 * The parser is one loop over an explicit stack of open containers: hostile nesting costs a refused
 * file, never the C stack.  Nodes lie in text order, a container before its content, so `next` (the
 * index behind a value) is all that navigation needs.  Numbers keep their spelling: whoever wants
 * an integer gets it exactly, not by way of a double.
 * Unescaping never makes a string longer, so one arena as large as the rest of the text, allocated
 * at the first escape, serves all strings without moving. */
#include "core/base/json.h"

#include "core/base/mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct parser {
    vq_json *j;
    const char *text, *p, *end;
    const char *what;
    vq_err *e;
    char *arena_at; /* next free byte of j->arena */
} parser;

static vq_status bad(parser *s, const char *msg)
{
    size_t line = 1;
    for (const char *q = s->text; q < s->p; q++) line += *q == '\n';
    return vq_fail(s->e, VQ_EFORMAT, "%s: not valid JSON at byte %zu (line %zu): %s", s->what,
                   (size_t)(s->p - s->text), line, msg);
}

static vq_status no_memory(parser *s)
{
    return vq_fail(s->e, VQ_ENOMEM, "%s: out of memory", s->what);
}

static void skip_ws(parser *s)
{
    const char *p = s->p;
    while (p < s->end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) p++;
    s->p = p;
}

/* Appends a node for a value that starts at s->p. */
static vq_status add(parser *s, vq_jtype type, vq_str str)
{
    vq_json *j = s->j;
    if (vq_grow(&j->node, &j->cap, j->n + 1, sizeof *j->node)) return no_memory(s);
    j->node[j->n] = (vq_jnode){ .type = (uint8_t)type,
                                .next = (uint32_t)(j->n + 1),
                                .off_ = (uint32_t)(s->p - s->text),
                                .s = str };
    j->n++;
    return VQ_OK;
}

static int hex4(const char *p, const char *end, uint32_t *out)
{
    uint32_t v = 0;
    if (end - p < 4) return 0;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        uint32_t d;
        if (c >= '0' && c <= '9') d = (uint32_t)(c - '0');
        else if (c >= 'a' && c <= 'f') d = (uint32_t)(c - 'a' + 10);
        else if (c >= 'A' && c <= 'F') d = (uint32_t)(c - 'A' + 10);
        else return 0;
        v = v << 4 | d;
    }
    *out = v;
    return 1;
}

/* The escape behind a backslash at s->p; appends what it means to the arena. */
static vq_status unescape(parser *s)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    s->p++;
    char c = s->p < s->end ? *s->p : 0;
    const char *f = c ? strchr(from, c) : NULL;
    if (f) {
        *s->arena_at++ = to[f - from];
        s->p++;
        return VQ_OK;
    }
    uint32_t cp, low;
    if (c != 'u' || !hex4(s->p + 1, s->end, &cp)) return bad(s, "unknown escape in a string");
    s->p += 5;
    if (cp >= 0xd800 && cp < 0xdc00 && s->end - s->p >= 6 && s->p[0] == '\\' && s->p[1] == 'u' &&
        hex4(s->p + 2, s->end, &low) && low >= 0xdc00 && low < 0xe000) {
        cp = 0x10000 + ((cp - 0xd800) << 10) + (low - 0xdc00);
        s->p += 6;
    } else if (cp >= 0xd800 && cp < 0xe000) {
        cp = 0xfffd; /* half of a pair */
    }
    s->arena_at += vq_utf8_put(s->arena_at, cp);
    return VQ_OK;
}

/* A string at s->p (on its quote) becomes a node. */
static vq_status string(parser *s)
{
    const char *open = s->p++;
    const char *run = s->p; /* first byte not yet in the arena */
    char *own = NULL;       /* start in the arena, once there is an escape */
    for (;;) {
        if (s->p == s->end) return bad(s, "a string without end");
        unsigned char c = (unsigned char)*s->p;
        if (c == '"') break;
        if (c < 0x20) return bad(s, "a control character in a string");
        if (c == '\\') {
            if (!s->j->arena) {
                s->j->arena_n = (size_t)(s->end - run);
                s->j->arena = vq_malloc(s->j->arena_n);
                if (!s->j->arena) return no_memory(s);
                s->arena_at = s->j->arena;
            }
            if (!own) own = s->arena_at;
            memcpy(s->arena_at, run, (size_t)(s->p - run));
            s->arena_at += s->p - run;
            vq_status st = unescape(s);
            if (st) return st;
            run = s->p;
        } else if (c < 0x80) {
            s->p++;
        } else {
            uint32_t cp;
            int len = vq_utf8_get(s->p, (size_t)(s->end - s->p), &cp);
            if (!len) return bad(s, "a string that is not UTF-8");
            s->p += len;
        }
    }
    vq_str str = { run, (size_t)(s->p - run) };
    if (own) {
        memcpy(s->arena_at, run, str.n);
        s->arena_at += str.n;
        str = (vq_str){ own, (size_t)(s->arena_at - own) };
    }
    const char *behind = s->p + 1;
    s->p = open;
    vq_status st = add(s, VQ_JSTR, str);
    s->p = behind;
    return st;
}

static const char *digits(const char *p, const char *end)
{
    while (p < end && *p >= '0' && *p <= '9') p++;
    return p;
}

static vq_status number(parser *s)
{
    const char *start = s->p, *q = start + (*start == '-'), *d;
    if (q == s->end || *q < '0' || *q > '9') return bad(s, "a number without digits");
    d = digits(q, s->end);
    if (*q == '0' && d - q > 1) return bad(s, "a number with a leading zero");
    if (d < s->end && *d == '.') {
        q = d + 1;
        d = digits(q, s->end);
        if (d == q) return bad(s, "a number without digits behind its point");
    }
    if (d < s->end && (*d == 'e' || *d == 'E')) {
        q = d + 1;
        if (q < s->end && (*q == '+' || *q == '-')) q++;
        d = digits(q, s->end);
        if (d == q) return bad(s, "a number without digits in its exponent");
    }
    vq_status st = add(s, VQ_JNUM, (vq_str){ start, (size_t)(d - start) });
    s->p = d;
    return st;
}

static vq_status word(parser *s, const char *w, vq_jtype type)
{
    size_t n = strlen(w);
    if ((size_t)(s->end - s->p) < n || memcmp(s->p, w, n) != 0) return bad(s, "an unknown word");
    vq_status st = add(s, type, (vq_str){ NULL, 0 });
    s->p += n;
    return st;
}

static vq_status scalar(parser *s)
{
    switch (*s->p) {
    case '"': return string(s);
    case 't': return word(s, "true", VQ_JTRUE);
    case 'f': return word(s, "false", VQ_JFALSE);
    case 'n': return word(s, "null", VQ_JNULL);
    case '-': case '0': case '1': case '2': case '3': case '4':
    case '5': case '6': case '7': case '8': case '9': return number(s);
    default: return bad(s, "expected a value");
    }
}

/* A key and its colon. */
static vq_status key(parser *s)
{
    skip_ws(s);
    if (s->p == s->end || *s->p != '"') return bad(s, "expected a key in quotes");
    vq_status st = string(s);
    if (st) return st;
    skip_ws(s);
    if (s->p == s->end || *s->p != ':') return bad(s, "expected ':'");
    s->p++;
    return VQ_OK;
}

static vq_status parse(parser *s)
{
    uint32_t open[VQ_JSON_DEPTH]; /* nodes of the containers we are in */
    int depth = 0;
    vq_status st;
    for (;;) {
        /* one value, or the opening of a container */
        skip_ws(s);
        if (s->p == s->end) return bad(s, "the text ends where a value is expected");
        bool done = true; /* the value is complete */
        if (*s->p == '{' || *s->p == '[') {
            bool obj = *s->p == '{';
            if (depth == VQ_JSON_DEPTH) return bad(s, "nested too deeply");
            if ((st = add(s, obj ? VQ_JOBJ : VQ_JARR, (vq_str){ NULL, 0 })) != VQ_OK) return st;
            s->p++;
            skip_ws(s);
            done = s->p < s->end && *s->p == (obj ? '}' : ']'); /* empty */
            if (done) {
                s->p++;
            } else {
                open[depth++] = (uint32_t)(s->j->n - 1);
                if (obj && (st = key(s)) != VQ_OK) return st;
            }
        } else if ((st = scalar(s)) != VQ_OK) {
            return st;
        }
        if (!done) continue;

        /* behind a value: a comma, or the end of containers */
        for (;;) {
            skip_ws(s);
            if (depth == 0) return s->p == s->end ? VQ_OK : bad(s, "text behind the value");
            vq_jnode *top = &s->j->node[open[depth - 1]];
            bool obj = top->type == VQ_JOBJ;
            top->count++;
            if (s->p < s->end && *s->p == ',') {
                s->p++;
                if (obj && (st = key(s)) != VQ_OK) return st;
                break;
            }
            if (s->p == s->end || *s->p != (obj ? '}' : ']')) {
                return bad(s, obj ? "expected ',' or '}'" : "expected ',' or ']'");
            }
            s->p++;
            top->next = (uint32_t)s->j->n;
            depth--;
        }
    }
}

vq_status vq_json_parse(vq_json *j, const char *p, size_t n, const char *what, vq_err *e)
{
    *j = (vq_json){ 0 };
    if (n >= UINT32_MAX) return vq_fail(e, VQ_EFORMAT, "%s: larger than 4 GB", what);
    if (!p) p = "";
    parser s = { .j = j, .text = p, .p = p, .end = p + n, .what = what, .e = e };
    vq_status st = parse(&s);
    if (st) vq_json_clear(j);
    return st;
}

void vq_json_clear(vq_json *j)
{
    vq_free(j->node);
    vq_free(j->arena);
    *j = (vq_json){ 0 };
}

/* ---- navigation ---- */

uint32_t vq_json_first(const vq_json *j, uint32_t v)
{
    return v < j->n && j->node[v].count ? v + 1 : 0;
}

uint32_t vq_json_next(const vq_json *j, uint32_t parent, uint32_t v)
{
    uint32_t next = j->node[v].next;
    return next < j->node[parent].next ? next : 0;
}

uint32_t vq_json_get(const vq_json *j, uint32_t obj, const char *name)
{
    uint32_t found = 0;
    if (obj >= j->n || j->node[obj].type != VQ_JOBJ) return 0;
    for (uint32_t k = vq_json_first(j, obj); k; k = vq_json_next(j, obj, k + 1)) {
        if (vq_str_eq(j->node[k].s, name)) found = k + 1;
    }
    return found;
}

vq_jtype vq_json_type(const vq_json *j, uint32_t v)
{
    return v < j->n ? (vq_jtype)j->node[v].type : VQ_JNULL;
}

bool vq_json_is(const vq_json *j, uint32_t v, vq_jtype t)
{
    return v && v < j->n && j->node[v].type == t;
}

vq_str vq_json_str(const vq_json *j, uint32_t v)
{
    return v < j->n && j->node[v].type == VQ_JSTR ? j->node[v].s : (vq_str){ NULL, 0 };
}

bool vq_json_i64(const vq_json *j, uint32_t v, int64_t *out)
{
    char buf[32];
    if (v >= j->n || j->node[v].type != VQ_JNUM) return false;
    vq_str s = j->node[v].s;
    if (s.n >= sizeof buf) return false;
    memcpy(buf, s.p, s.n);
    buf[s.n] = 0;
    return vq_parse_i64(buf, out);
}

bool vq_json_f64(const vq_json *j, uint32_t v, double *out)
{
    char small[64];
    if (v >= j->n || j->node[v].type != VQ_JNUM) return false;
    vq_str s = j->node[v].s;
    char *buf = s.n < sizeof small ? small : vq_malloc(s.n + 1);
    if (!buf) return false;
    memcpy(buf, s.p, s.n);
    buf[s.n] = 0;
    bool ok = vq_parse_f64(buf, out);
    if (buf != small) vq_free(buf);
    return ok;
}

bool vq_json_bool(const vq_json *j, uint32_t v, bool *out)
{
    if (v >= j->n || (j->node[v].type != VQ_JTRUE && j->node[v].type != VQ_JFALSE)) return false;
    *out = j->node[v].type == VQ_JTRUE;
    return true;
}

/* ---- writer ---- */

/* What comes before a value: the comma and the key. */
static void lead_in(vq_jw *w, const char *name)
{
    uint64_t bit = (uint64_t)1 << (w->level & 63);
    if (w->has & bit) vq_buf_char(w->b, ',');
    w->has |= bit;
    if (name) {
        vq_buf_json(w->b, name, strlen(name));
        vq_buf_char(w->b, ':');
    }
}

void vq_jw_open(vq_jw *w, const char *name, char c)
{
    lead_in(w, name);
    vq_buf_char(w->b, c);
    w->level++;
    w->has &= ~((uint64_t)1 << (w->level & 63));
}

void vq_jw_close(vq_jw *w, char c)
{
    vq_buf_char(w->b, c);
    w->level--;
}

void vq_jw_str(vq_jw *w, const char *name, const char *p, size_t n)
{
    lead_in(w, name);
    vq_buf_json(w->b, p, n);
}

void vq_jw_cstr(vq_jw *w, const char *name, const char *s)
{
    lead_in(w, name);
    if (s) vq_buf_json(w->b, s, strlen(s));
    else vq_buf_str(w->b, "null");
}

void vq_jw_i64(vq_jw *w, const char *name, int64_t v)
{
    lead_in(w, name);
    vq_buf_printf(w->b, "%lld", (long long)v);
}

void vq_jw_u64(vq_jw *w, const char *name, uint64_t v)
{
    lead_in(w, name);
    vq_buf_printf(w->b, "%llu", (unsigned long long)v);
}

void vq_jw_f64(vq_jw *w, const char *name, double v)
{
    lead_in(w, name);
    if (!isfinite(v)) {
        vq_buf_str(w->b, "null");
        return;
    }
    char s[40];
    for (int digits_n = 6; digits_n <= 17; digits_n++) {
        snprintf(s, sizeof s, "%.*g", digits_n, v);
        if (strtod(s, NULL) == v) break;
    }
    vq_buf_str(w->b, s);
}

void vq_jw_bool(vq_jw *w, const char *name, bool v)
{
    lead_in(w, name);
    vq_buf_str(w->b, v ? "true" : "false");
}
