/* compare.c - two JSON results of bench side by side, B / A (bench.h). */
#include "bench/bench.h"

#include "core/base/json.h"
#include "core/base/os.h"

#include <stdio.h>

typedef struct side {
    const char *path;
    vq_buf text;
    vq_json j;
} side;

static const uint64_t MAX_RESULT = 16u << 20;

static vq_status load(side *s, const char *path, vq_err *e)
{
    s->path = path;
    vq_status st = vq_file_read(path, MAX_RESULT, &s->text, e);
    if (!st) st = vq_json_parse(&s->j, s->text.p, s->text.n, path, e);
    if (!st && !vq_json_get(&s->j, 0, "roofline"))
        st = vq_fail(e, VQ_EFORMAT,
                     "%s: expected the output of 'vaquita bench --json', found other JSON", path);
    return st;
}

static double number(const vq_json *j, uint32_t obj, const char *key)
{
    double v = 0;
    const uint32_t n = vq_json_get(j, obj, key);
    return n && vq_json_f64(j, n, &v) ? v : 0;
}

typedef struct output {
    vq_buf *out;
    vq_jw w;
    bool json;
} output;

static void line(output *o, const char *what, double a, double b)
{
    const double ratio = a > 0 ? b / a : 0;
    if (!o->json) {
        vq_buf_printf(o->out, "%-28s %11.4g %11.4g   %6.3f\n", what, a, b, ratio);
        return;
    }
    vq_jw_open(&o->w, NULL, '{');
    vq_jw_cstr(&o->w, "what", what);
    vq_jw_f64(&o->w, "a", a);
    vq_jw_f64(&o->w, "b", b);
    vq_jw_f64(&o->w, "ratio", ratio);
    vq_jw_close(&o->w, '}');
}

/* Rows of the array `key` whose fields k1 (and k2, may be NULL) are equal in both results. */
static void rows(output *o, const side *a, const side *b, const char *key, const char *k1,
                 const char *k2)
{
    const uint32_t la = vq_json_get(&a->j, 0, key), lb = vq_json_get(&b->j, 0, key);
    if (!la || !lb) return;
    for (uint32_t i = vq_json_first(&a->j, la); i; i = vq_json_next(&a->j, la, i)) {
        for (uint32_t k = vq_json_first(&b->j, lb); k; k = vq_json_next(&b->j, lb, k)) {
            const double n1 = number(&a->j, i, k1), n2 = k2 ? number(&a->j, i, k2) : 0;
            if (n1 != number(&b->j, k, k1) || (k2 && n2 != number(&b->j, k, k2))) continue;
            char what[64];
            if (k2)
                snprintf(what, sizeof what, "%s @%.0f x %.0f tokens/s", key, n1, n2);
            else
                snprintf(what, sizeof what, "%s %.0f tokens/s", key, n1);
            line(o, what, number(&a->j, i, "tps"), number(&b->j, k, "tps"));
            line(o, "  share of the limit", number(&a->j, i, "share"), number(&b->j, k, "share"));
        }
    }
}

vq_status bn_compare(const char *pa, const char *pb, bool json, vq_buf *out, vq_err *e)
{
    side a = { 0 }, b = { 0 };
    vq_status s = load(&a, pa, e);
    if (!s) s = load(&b, pb, e);
    if (!s) {
        output o = { .out = out, .w = { .b = out }, .json = json };
        if (json) {
            vq_jw_open(&o.w, NULL, '{');
            vq_jw_cstr(&o.w, "a", pa);
            vq_jw_cstr(&o.w, "b", pb);
            vq_jw_open(&o.w, "rows", '[');
        } else {
            vq_buf_printf(out, "A = %s\nB = %s\n%-28s %11s %11s   %6s\n", pa, pb, "", "A", "B",
                          "B / A");
        }
        const uint32_t ra = vq_json_get(&a.j, 0, "roofline"), rb = vq_json_get(&b.j, 0, "roofline");
        line(&o, "read GB/s", number(&a.j, ra, "read_gbs"), number(&b.j, rb, "read_gbs"));
        line(&o, "int8 GMAC/s", number(&a.j, ra, "int8_gmacs"), number(&b.j, rb, "int8_gmacs"));
        rows(&o, &a, &b, "prefill", "tokens", NULL);
        rows(&o, &a, &b, "decode", "depth", "batch");
        if (json) {
            vq_jw_close(&o.w, ']');
            vq_jw_close(&o.w, '}');
            vq_buf_char(out, '\n');
        }
        if (out->oom) s = vq_fail(e, VQ_ENOMEM, "bench: out of memory");
    }
    vq_json_clear(&a.j);
    vq_json_clear(&b.j);
    vq_buf_clear(&a.text);
    vq_buf_clear(&b.text);
    return s;
}
