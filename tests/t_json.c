/* t_json.c - the JSON reader against JSONTestSuite, and its promises one by one; the writer by
 * reading back what it wrote. */
#include "core/base/json.h"
#include "core/base/mem.h"
#include "core/base/os.h"
#include "tests/test.h"

#include <math.h>

static vq_status parse(vq_json *j, const char *text, vq_err *e)
{
    return vq_json_parse(j, text, strlen(text), "test", e);
}

/* ---- the suite: y_ must be accepted, n_ refused, i_ is free but may not crash ---- */

static void test_suite(void)
{
    char folder[1000], path[1300];
    snprintf(folder, sizeof folder, "%s/data/robustness/JSONTestSuite/test_parsing", t_shared());
    char **names;
    size_t n, y = 0, no = 0;
    if (vq_dir_list(folder, &names, &n, NULL)) {
        T_SKIP("JSONTestSuite: not found in %s", folder);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        vq_buf b = { 0 };
        vq_json j;
        vq_err e = { 0 };
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        T_OK(vq_file_read(path, 1 << 26, &b, &e) == VQ_OK, "%s", e.msg);
        /* An exact copy: sanitizers see a read behind the text. */
        char *copy = malloc(b.n ? b.n : 1);
        memcpy(copy, b.p, b.n);
        vq_status s = vq_json_parse(&j, copy, b.n, names[i], &e);
        T_OK(s == VQ_OK || (s == VQ_EFORMAT && e.msg[0] && !j.node), "%s: %d", names[i], s);
        y += names[i][0] == 'y';
        no += names[i][0] == 'n';
        T_OK(names[i][0] != 'y' || s == VQ_OK, "%s refused: %s", names[i], e.msg);
        T_OK(names[i][0] != 'n' || s != VQ_OK, "%s accepted", names[i]);
        vq_json_clear(&j);
        free(copy);
        vq_buf_clear(&b);
        vq_free(names[i]);
    }
    vq_free(names);
    T_OK(y >= 90 && no >= 180, "%zu to accept, %zu to refuse", y, no);
}

/* ---- navigation ---- */

static void test_navigation(void)
{
    static const char text[] = "{\"a\": [1, [], {\"x\": null}, \"s\"], \"b\": {}, \"a2\": -0.5e1, "
                               "\"dup\": 1, \"dup\": 2, \"t\": true, \"f\": false}";
    vq_json j;
    vq_err e;
    T_OK(parse(&j, text, &e) == VQ_OK, "%s", e.msg);
    uint32_t a = vq_json_get(&j, 0, "a"), v, n = 0;
    int64_t i;
    double d;
    bool b;
    T_OK(vq_json_type(&j, a) == VQ_JARR && j.node[a].count == 4, "array");
    for (v = vq_json_first(&j, a); v; v = vq_json_next(&j, a, v)) n++;
    T_OK(n == 4, "elements %u", n);
    v = vq_json_first(&j, a);
    T_OK(vq_json_i64(&j, v, &i) && i == 1, "number");
    v = vq_json_next(&j, a, v);
    T_OK(vq_json_is(&j, v, VQ_JARR) && vq_json_first(&j, v) == 0, "empty array");
    v = vq_json_next(&j, a, v);
    T_OK(vq_json_is(&j, vq_json_get(&j, v, "x"), VQ_JNULL), "null member");
    v = vq_json_next(&j, a, v);
    T_OK(vq_str_eq(vq_json_str(&j, v), "s") && vq_json_next(&j, a, v) == 0, "last element");
    T_OK(vq_json_first(&j, vq_json_get(&j, 0, "b")) == 0, "empty object");
    T_OK(vq_json_f64(&j, vq_json_get(&j, 0, "a2"), &d) && d == -5, "double");
    T_OK(!vq_json_i64(&j, vq_json_get(&j, 0, "a2"), &i), "not an integer");
    T_OK(vq_json_i64(&j, vq_json_get(&j, 0, "dup"), &i) && i == 2, "the last of two keys");
    T_OK(vq_json_bool(&j, vq_json_get(&j, 0, "t"), &b) && b, "true");
    T_OK(vq_json_bool(&j, vq_json_get(&j, 0, "f"), &b) && !b, "false");
    T_OK(!vq_json_bool(&j, a, &b) && !vq_json_f64(&j, a, &d) && !vq_json_str(&j, a).p, "kinds");
    T_OK(vq_json_get(&j, 0, "nope") == 0 && vq_json_get(&j, a, "a") == 0, "absent");
    T_OK(vq_json_get(&j, 999, "a") == 0 && vq_json_first(&j, 999) == 0, "no such node");
    n = 0;
    for (v = vq_json_first(&j, 0); v; v = vq_json_next(&j, 0, v)) n++;
    T_OK(n == 14 && j.node[0].count == 7, "keys and values: %u", n);
    vq_json_clear(&j);
}

static void test_strings(void)
{
    static const struct { const char *text, *want; size_t n; } cases[] = {
        { "\"\"", "", 0 },
        { "\"plain\"", "plain", 5 },
        { "\"a\\n\\\"\\\\\\/\\b\\f\\r\\tz\"", "a\n\"\\/\b\f\r\tz", 10 },
        { "\"\\u0000\"", "\0", 1 },
        { "\"\\u00e9\\u20AC\\uD834\\uDD1E\"", "\xc3\xa9\xe2\x82\xac\xf0\x9d\x84\x9e", 9 },
        { "\"\\uD834x\"", "\xef\xbf\xbdx", 4 },
        { "\"\\uDD1E\\uD834\"", "\xef\xbf\xbd\xef\xbf\xbd", 6 },
        { "\"\\uD834\\uD834\\uDD1E\"", "\xef\xbf\xbd\xf0\x9d\x84\x9e", 7 },
        { "\"\xe4\xbd\xa0\"", "\xe4\xbd\xa0", 3 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        vq_json j;
        vq_err e = { 0 };
        T_OK(parse(&j, cases[i].text, &e) == VQ_OK, "%zu: %s", i, e.msg);
        vq_str s = vq_json_str(&j, 0);
        T_OK(s.n == cases[i].n && memcmp(s.p, cases[i].want, s.n) == 0, "string %zu", i);
        vq_json_clear(&j);
    }
    vq_json j; /* several strings share the arena */
    vq_err e;
    T_OK(parse(&j, "[\"a\\n\", \"b\", \"\\tc\", \"\"]", &e) == VQ_OK, "%s", e.msg);
    T_OK(vq_str_eq(j.node[1].s, "a\n") && vq_str_eq(j.node[2].s, "b") &&
         vq_str_eq(j.node[3].s, "\tc") && vq_str_eq(j.node[4].s, ""), "arena");
    vq_json_clear(&j);
}

static void test_numbers(void)
{
    static const struct { const char *text; double want; bool is_int; } cases[] = {
        { "0", 0, true }, { "-0", 0, true }, { "9007199254740993", 9007199254740992.0, true },
        { "9223372036854775807", 9223372036854775808.0, true }, { "1.0", 1, false },
        { "9223372036854775808", 9223372036854775808.0, false }, { "1e3", 1000, false },
        { "0.1", 0.1, false }, { "2.2250738585072011e-308", 0x0.fffffffffffffp-1022, false },
        { "5e-324", 0x1p-1074, false }, { "2e-324", 0, false },
        { "1.00000000000000011102230246251565404236316680908203125", 1, false }, /* half, to even */
        { "1.00000000000000011102230246251565404236316680908203126", 0x1.0000000000001p0, false },
        { "0.000000000000000000000000000000000000000000000000000000000000000000000000000001", 1e-78,
          false },
        { "1.7976931348623157e308", 0x1.fffffffffffffp1023, false },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        vq_json j;
        double d = -1;
        int64_t v;
        T_OK(parse(&j, cases[i].text, NULL) == VQ_OK, "%s", cases[i].text);
        T_OK(vq_json_f64(&j, 0, &d) && d == cases[i].want, "%s: %a", cases[i].text, d);
        T_OK(vq_json_i64(&j, 0, &v) == cases[i].is_int, "%s", cases[i].text);
        vq_json_clear(&j);
    }
    vq_json j;
    double d;
    T_OK(parse(&j, "1e999", NULL) == VQ_OK && !vq_json_f64(&j, 0, &d), "out of range");
    vq_json_clear(&j);
}

static void test_depth(void)
{
    enum { MANY = 100000 };
    char *text = malloc(2 * MANY);
    vq_json j;
    vq_err e;
    memset(text, '[', MANY);
    memset(text + MANY, ']', MANY);
    T_OK(vq_json_parse(&j, text, 2 * MANY, "deep", &e) == VQ_EFORMAT, "100,000 arrays");
    T_OK(strstr(e.msg, "deep") && strstr(e.msg, "byte 1024"), "%s", e.msg);
    char *at_limit = text + MANY - VQ_JSON_DEPTH;
    T_OK(vq_json_parse(&j, at_limit, 2 * VQ_JSON_DEPTH, "d", &e) == VQ_OK, "%s", e.msg);
    vq_json_clear(&j);
    T_OK(vq_json_parse(&j, text, MANY, "deep", &e) == VQ_EFORMAT, "never closed");
    free(text);
    T_OK(vq_json_parse(&j, NULL, 0, "none", &e) == VQ_EFORMAT, "nothing");
    T_OK(parse(&j, "{\n\"a\": 1,\n\"b\" 2}", &e) == VQ_EFORMAT, "no colon");
    T_OK(strstr(e.msg, "line 3"), "%s", e.msg);
}

/* Every prefix of a text with everything in it is refused, none reads behind its end. */
static void test_prefixes(void)
{
    static const char text[] = "{\"k\\u00e9\": [1.5e+3, -2, true, false, null, "
                               "\"\\uD834\\uDD1E\"], \"m\": {}}";
    for (size_t n = 0; n < sizeof text - 1; n++) {
        char *copy = malloc(n + 1);
        vq_json j;
        memcpy(copy, text, n);
        T_OK(vq_json_parse(&j, copy, n, "cut", NULL) == VQ_EFORMAT, "%zu bytes", n);
        free(copy);
    }
}

static void test_no_memory(void)
{
    if (!vq_mem_fail_at(0)) {
        T_SKIP("failing allocations: needs a build with VQ_DEBUG");
        return;
    }
    vq_status s = VQ_ENOMEM;
    for (long n = 1; s && n < 50; n++) {
        vq_json j;
        vq_mem_fail_at(n);
        s = parse(&j, "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,\"\\n\"]", NULL);
        vq_mem_fail_at(0);
        T_OK(s == VQ_OK || (s == VQ_ENOMEM && !j.node), "failure %ld: %d", n, s);
        vq_json_clear(&j);
    }
    T_OK(s == VQ_OK, "succeeds in the end");
}

/* ---- writer ---- */

static void test_writer(void)
{
    vq_buf b = { 0 };
    vq_jw w = { .b = &b };
    vq_jw_open(&w, NULL, '{');
    vq_jw_cstr(&w, "s", "a\"\n\x01\xff\xe4\xbd\xa0");
    vq_jw_cstr(&w, "none", NULL);
    vq_jw_i64(&w, "i", INT64_MIN);
    vq_jw_u64(&w, "u", UINT64_MAX);
    vq_jw_open(&w, "list", '[');
    vq_jw_f64(&w, NULL, 0.1);
    vq_jw_f64(&w, NULL, 1.0 / 3);
    vq_jw_f64(&w, NULL, NAN);
    vq_jw_open(&w, NULL, '{');
    vq_jw_close(&w, '}');
    vq_jw_open(&w, NULL, '[');
    vq_jw_bool(&w, NULL, true);
    vq_jw_close(&w, ']');
    vq_jw_close(&w, ']');
    vq_jw_bool(&w, "b", false);
    vq_jw_str(&w, "n", "\0", 1);
    vq_jw_close(&w, '}');
    static const char want[] = "{\"s\":\"a\\\"\\n\\u0001\xef\xbf\xbd\xe4\xbd\xa0\",\"none\":null,"
                               "\"i\":-9223372036854775808,\"u\":18446744073709551615,"
                               "\"list\":[0.1,0.3333333333333333,null,{},[true]],\"b\":false,"
                               "\"n\":\"\\u0000\"}";
    T_OK(!b.oom && strcmp(b.p, want) == 0, "%s", b.p);
    vq_json j;
    T_OK(vq_json_parse(&j, b.p, b.n, "own", NULL) == VQ_OK, "reads back");
    vq_json_clear(&j);
    vq_buf_clear(&b);
}

int main(void)
{
    test_suite();
    test_navigation();
    test_strings();
    test_numbers();
    test_depth();
    test_prefixes();
    test_no_memory();
    test_writer();
    return t_done("t_json");
}
