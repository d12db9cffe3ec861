/* compare.c - two JSON results of bench side by side, B / A (bench.h).
 *
 * Everything that will be shown is proved first: a result with one odd number is refused as a whole
 * and nothing of it is printed. */
#include "bench/bench.h"

#include "core/base/json.h"
#include "core/base/os.h"

#include <math.h>
#include <stdio.h>

typedef struct side {
    const char *path;
    vq_buf text;
    vq_json j;
} side;

/* The lists of a result: rows are the same when the fields key[] are. */
static const struct {
    char name[8], key[2][8]; /* key[1] "": none */
} lists[] = { { "prefill", { "tokens", "" } }, { "decode", { "depth", "batch" } } };
static const char rate[2][6] = { "tps", "share" }, unit[2][9] = { "tokens/s", "share" };
enum { N_LISTS = sizeof lists / sizeof lists[0] };

static const uint64_t MAX_RESULT = 16u << 20;

/* A string or the spelling of a number; "" for what is neither. */
static vq_str text(const vq_json *j, uint32_t obj, const char *key)
{
    const uint32_t n = vq_json_get(j, obj, key);
    return n && j->node[n].s.p ? j->node[n].s : vq_str_c("");
}

static double number(const vq_json *j, uint32_t obj, const char *key)
{
    double v = NAN;
    const uint32_t n = vq_json_get(j, obj, key);
    return n && vq_json_f64(j, n, &v) ? v : NAN;
}

/* Is obj[key] a number above 0, or 0 where that is `zero`?  What the reader takes is finite. */
static vq_status prove(const side *s, const char *where, uint32_t obj, const char *key, bool zero,
                       vq_err *e)
{
    const double v = number(&s->j, obj, key);
    if (v > 0 || (zero && v == 0)) return VQ_OK;
    const vq_str found = text(&s->j, obj, key);
    return vq_fail(e, VQ_EFORMAT, "%s: %s.%s: expected a positive finite number, found '%.*s'",
                   s->path, where, key, found.n < 40 ? (int)found.n : 40, found.p);
}

static vq_status prove_list(const side *s, int which, vq_err *e)
{
    const char *name = lists[which].name;
    const uint32_t list = vq_json_get(&s->j, 0, name);
    if (!list) return VQ_OK;
    if (!vq_json_is(&s->j, list, VQ_JARR))
        return vq_fail(e, VQ_EFORMAT, "%s: %s: expected a list of rows", s->path, name);
    vq_status st = VQ_OK;
    int row = 0;
    for (uint32_t i = vq_json_first(&s->j, list); !st && i; i = vq_json_next(&s->j, list, i)) {
        char where[64];
        snprintf(where, sizeof where, "%s[%d]", name, row++);
        for (int k = 0; !st && k < 4; k++) {
            const char *key = k < 2 ? lists[which].key[k] : rate[k - 2];
            if (*key) st = prove(s, where, i, key, k < 2, e);
        }
    }
    return st;
}

static vq_status load(side *s, const char *path, vq_err *e)
{
    s->path = path;
    vq_status st = vq_file_read(path, MAX_RESULT, &s->text, e);
    if (!st) st = vq_json_parse(&s->j, s->text.p, s->text.n, path, e);
    const uint32_t roof = st ? 0 : vq_json_get(&s->j, 0, "roofline");
    if (!st && !roof)
        st = vq_fail(e, VQ_EFORMAT,
                     "%s: expected the output of 'vaquita bench --json', found other JSON", path);
    if (!st) st = prove(s, "roofline", roof, "read_gbs", false, e);
    if (!st) st = prove(s, "roofline", roof, "int8_gmacs", false, e);
    for (int i = 0; !st && i < N_LISTS; i++) st = prove_list(s, i, e);
    return st;
}

typedef struct output {
    const side *a, *b;
    vq_buf *out;
    vq_jw w;
    bool json;
} output;

/* What makes the two no runs of the same thing, so that a ratio says little of the machine. */
static void differences(output *o)
{
    static const char fields[][8] = { "model", "type", "cpu", "threads", "n" };
    if (o->json) vq_jw_open(&o->w, "differs", '[');
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        const vq_str a = text(&o->a->j, 0, fields[i]), b = text(&o->b->j, 0, fields[i]);
        if (!vq_str_cmp(a, b)) continue;
        if (!o->json) {
            vq_buf_printf(o->out, "not the same %s: A '%.*s', B '%.*s'\n", fields[i], (int)a.n, a.p,
                          (int)b.n, b.p);
            continue;
        }
        vq_jw_open(&o->w, NULL, '{');
        vq_jw_cstr(&o->w, "field", fields[i]);
        vq_jw_str(&o->w, "a", a.p, a.n);
        vq_jw_str(&o->w, "b", b.p, b.n);
        vq_jw_close(&o->w, '}');
    }
    if (o->json) vq_jw_close(&o->w, ']');
}

/* NAN: that side has no such row. */
static void line(output *o, const char *what, double a, double b)
{
    if (o->json) {
        vq_jw_open(&o->w, NULL, '{');
        vq_jw_cstr(&o->w, "what", what);
        vq_jw_f64(&o->w, "a", a);
        vq_jw_f64(&o->w, "b", b);
        vq_jw_f64(&o->w, "ratio", b / a);
        vq_jw_close(&o->w, '}');
        return;
    }
    char of_a[16] = "-", of_b[16] = "-", ratio[16];
    if (!isnan(a)) snprintf(of_a, sizeof of_a, "%.4g", a);
    if (!isnan(b)) snprintf(of_b, sizeof of_b, "%.4g", b);
    snprintf(ratio, sizeof ratio, "%6.3f", b / a);
    vq_buf_printf(o->out, "%-32s %11s %11s   %s\n", what, of_a, of_b,
                  isnan(a) ? "only B" : isnan(b) ? "only A" : ratio);
}

static bool same_row(int which, const side *a, uint32_t i, const side *b, uint32_t k)
{
    const char(*key)[8] = lists[which].key;
    return number(&a->j, i, key[0]) == number(&b->j, k, key[0]) &&
           (!*key[1] || number(&a->j, i, key[1]) == number(&b->j, k, key[1]));
}

/* The first row of `b` like row i of `a`, 0: none. */
static uint32_t partner(int which, const side *a, uint32_t i, const side *b)
{
    const uint32_t list = vq_json_get(&b->j, 0, lists[which].name);
    uint32_t k = list ? vq_json_first(&b->j, list) : 0;
    while (k && !same_row(which, a, i, b, k)) k = vq_json_next(&b->j, list, k);
    return k;
}

/* Row i of A beside row k of B; 0: not there. */
static void row(output *o, int which, uint32_t i, uint32_t k)
{
    const char(*key)[8] = lists[which].key;
    const vq_json *j = i ? &o->a->j : &o->b->j;
    const uint32_t at = i ? i : k;
    char name[80], what[100];
    const int n = snprintf(name, sizeof name, "%s %s%.15g", lists[which].name, *key[1] ? "@" : "",
                           number(j, at, key[0]));
    if (*key[1]) snprintf(name + n, sizeof name - (size_t)n, " x %.15g", number(j, at, key[1]));
    for (int f = 0; f < 2; f++) {
        snprintf(what, sizeof what, "%s %s", name, unit[f]);
        line(o, what, number(&o->a->j, i, rate[f]), number(&o->b->j, k, rate[f]));
    }
}

static void rows(output *o, int which)
{
    const side *a = o->a, *b = o->b;
    const uint32_t la = vq_json_get(&a->j, 0, lists[which].name);
    const uint32_t lb = vq_json_get(&b->j, 0, lists[which].name);
    for (uint32_t i = la ? vq_json_first(&a->j, la) : 0; i; i = vq_json_next(&a->j, la, i))
        row(o, which, i, partner(which, a, i, b));
    for (uint32_t k = lb ? vq_json_first(&b->j, lb) : 0; k; k = vq_json_next(&b->j, lb, k))
        if (!partner(which, b, k, a)) row(o, which, 0, k);
}

vq_status bn_compare(const char *pa, const char *pb, bool json, vq_buf *out, vq_err *e)
{
    side a = { 0 }, b = { 0 };
    vq_status s = load(&a, pa, e);
    if (!s) s = load(&b, pb, e);
    if (!s) {
        output o = { .a = &a, .b = &b, .out = out, .w = { .b = out }, .json = json };
        if (json) {
            vq_jw_open(&o.w, NULL, '{');
            vq_jw_cstr(&o.w, "a", pa);
            vq_jw_cstr(&o.w, "b", pb);
        } else {
            vq_buf_printf(out, "A = %s\nB = %s\n", pa, pb);
        }
        differences(&o);
        if (json)
            vq_jw_open(&o.w, "rows", '[');
        else
            vq_buf_printf(out, "%-32s %11s %11s   %6s\n", "", "A", "B", "B / A");
        const uint32_t ra = vq_json_get(&a.j, 0, "roofline"), rb = vq_json_get(&b.j, 0, "roofline");
        line(&o, "read GB/s", number(&a.j, ra, "read_gbs"), number(&b.j, rb, "read_gbs"));
        line(&o, "int8 GMAC/s", number(&a.j, ra, "int8_gmacs"), number(&b.j, rb, "int8_gmacs"));
        for (int i = 0; i < N_LISTS; i++) rows(&o, i);
        if (json) {
            vq_jw_close(&o.w, ']');
            vq_jw_close(&o.w, '}');
            vq_buf_char(out, '\n');
        }
        if (out->oom) s = vq_fail(e, VQ_ENOMEM, "out of memory");
    }
    vq_json_clear(&a.j);
    vq_json_clear(&b.j);
    vq_buf_clear(&a.text);
    vq_buf_clear(&b.text);
    return s;
}
