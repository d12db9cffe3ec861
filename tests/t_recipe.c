/* t_recipe.c - recipes: what a rule means, what is wrong with a text, and that any choice of types
 * is the same after writing and reading. */
#define _GNU_SOURCE 1

#include "convert/convert.h"

#include "convert/plan.h"
#include "core/file/check.h"
#include "tests/conv.h"
#include "tests/test.h"

#include <sys/stat.h>
#include <unistd.h>

static cv_rules *read_ok(const char *text)
{
    cv_rules *r;
    vq_err e = { 0 };
    T_OK(!cv_rules_read(&r, text, strlen(text), "r.txt", &e), "%s: %s", text, e.msg);
    return r;
}

static vaq_tensor matrix(vaq_role role, int layer, int expert)
{
    return (vaq_tensor){ .role = (uint16_t)role, .layer = (uint16_t)layer, .expert = expert,
                         .layout = VAQ_T16 };
}

/* ---- what rules mean ---- */

static void test_meaning(void)
{
    static const struct { const char *text; vaq_role role; int layer, expert, type; } cases[] = {
        { "", VAQ_Q, 3, -1, Q_F16 },                    /* Q_F16: what stands without rules */
        { "# * l8", VAQ_Q, 3, -1, Q_F16 },
        { "* l8", VAQ_Q, 3, -1, Q_L8 },
        { "* l8", VAQ_HEAD, VAQ_NO_LAYER, -1, Q_L8 },
        { "* l8", VAQ_EXPERT_DOWN, 3, 7, Q_L8 },
        { "* l8", VAQ_ROUTER, 3, -1, Q_F16 },           /* never */
        { "*.gate.* l8\n* l6", VAQ_ROUTER, 3, -1, Q_F16 },
        { "* l8", VAQ_NORM_FFN, 3, -1, Q_F16 },
        { "* l8\nq l6", VAQ_Q, 3, -1, Q_L6 },           /* the last decides */
        { "q l6\n* l8", VAQ_Q, 3, -1, Q_L8 },
        { "* l8\nq,k l6", VAQ_V, 3, -1, Q_L8 },
        { "q,k,v l6", VAQ_V, 3, -1, Q_L6 },
        { "q 3 l6", VAQ_Q, 3, -1, Q_L6 },
        { "q 4 l6", VAQ_Q, 3, -1, Q_F16 },
        { "q 0-2,3 l6", VAQ_Q, 3, -1, Q_L6 },
        { "q 0-2,4-1023 l6", VAQ_Q, 3, -1, Q_F16 },
        { "q 4-1023 l6", VAQ_Q, 1023, -1, Q_L6 },
        { "* 0-1023 l6", VAQ_EMBED, VAQ_NO_LAYER, -1, Q_F16 }, /* it is in no layer */
        { "* l8\r\n\tq\t3  auto \r\n", VAQ_Q, 3, -1, Q_F16 },  /* as without */
        { "*.3.self_attn.* n4", VAQ_Q, 3, -1, Q_N4 },
        { "*.3.self_attn.* n4", VAQ_Q, 13, -1, Q_F16 },
        { "*.3.*q*.weight n4", VAQ_Q, 3, -1, Q_N4 },
        { "model.layers.3.self_attn.q_proj.weight n4", VAQ_Q, 3, -1, Q_N4 },
        { "model.layers.3.self_attn.q_proj.weigh n4", VAQ_Q, 3, -1, Q_F16 },
        { "model.layers.3.self_attn.q_proj.weights n4", VAQ_Q, 3, -1, Q_F16 },
        { "*.experts.7.* 3-4 n5", VAQ_EXPERT_DOWN, 3, 7, Q_N5 },
        { "*.experts.7.* 3-4 n5", VAQ_EXPERT_DOWN, 3, 17, Q_F16 },
        { "*.experts.7.* 3-4 n5", VAQ_EXPERT_DOWN, 5, 7, Q_F16 },
        { "lm_head.* bf16", VAQ_HEAD, VAQ_NO_LAYER, -1, Q_BF16 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cv_rules *r = read_ok(cases[i].text);
        if (!r) continue;
        const vaq_tensor t = matrix(cases[i].role, cases[i].layer, cases[i].expert);
        const int type = cv_rules_type(r, &t, Q_F16);
        T_OK(type == cases[i].type, "%s: role %d, layer %d: %d", cases[i].text, t.role, t.layer,
             type);
        cv_rules_free(r);
    }
    cv_rules *r = read_ok("* l8\n\nq l6\nk 9 n4\n# end\nv n5");
    const vaq_tensor q = matrix(VAQ_Q, 1, -1), v = matrix(VAQ_V, 1, -1);
    int line = 1;
    cv_rules_type(r, &q, 0);
    cv_rules_type(r, &v, 0);
    T_OK(cv_rules_idle(r, &line) && line == 1, "all but the last two are special: %d", line);
    line = 2;
    T_OK(cv_rules_idle(r, &line) && line == 4, "k 9: %d", line);
    line = 5;
    T_OK(!cv_rules_idle(r, &line), "v was met: %d", line);
    cv_rules_free(r);
}

static void test_refusals(void)
{
    static const struct { const char *text, *says; } cases[] = {
        { "* l8\n\nq", "r.txt:3: 'q' stands alone" },
        { "# x\nq l6 # x\nq 1 l6 please", "r.txt:3: 'please' is a word too many" },
        { "dwon l6", "r.txt:1: 'dwon' is no kind of matrix; there are *, a name with a dot, and "
          "embed head q k v o gate_up down q_a" },
        { "q,,k l6", "r.txt:1: '' is no kind" },
        { "gate l6", "'gate' is no kind" },
        { "q l7", "r.txt:1: 'l7' is no type" },
        { "q n3", "'n3' is no type" }, /* reserved */
        { "q longertype", "is no type" },
        { "q 1024 l6", "'1024' are no layers" },
        { "q 99999999999 l6", "are no layers" },
        { "q 3-1 l6", "'3-1' are no layers" },
        { "q 3- l6", "are no layers" },
        { "q -3 l6", "are no layers" },
        { "q x l6", "are no layers" },
        { "q 1-2x l6", "are no layers" },
        { "q 1,,2 l6", "are no layers" },
        { "* \xff", "UTF-8" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cv_rules *r;
        vq_err e = { 0 };
        const vq_status st = cv_rules_read(&r, cases[i].text, strlen(cases[i].text), "r.txt", &e);
        T_OK(st == VQ_EUSAGE && !r && strstr(e.msg, cases[i].says), "%s: %d %s", cases[i].text, st,
             e.msg);
    }
    cv_rules *r;
    vq_err e = { 0 };
    char name[200] = "q.";
    memset(name + 2, 'x', 110);
    strcat(name, " l6");
    T_OK(cv_rules_read(&r, name, strlen(name), "r.txt", &e) == VQ_EUSAGE, "a long name");
    T_OK(cv_rules_read(&r, "q l6\n\0", 6, "r.txt", &e) == VQ_EUSAGE, "a zero byte");
    char *big = vq_calloc(1, 1000001);
    memset(big, '\n', 1000001);
    T_OK(cv_rules_read(&r, big, 1000001, "r.txt", &e) == VQ_EUSAGE, "too long");
    T_OK(!cv_rules_read(&r, big, 1000000, "r.txt", &e), "%s", e.msg);
    cv_rules_free(r);
    vq_free(big);
}

/* ---- written and read ---- */

static void same_again(const vaq_tensor *t, size_t n, const char *what)
{
    vq_buf b = { 0 };
    cv_rules_write(&b, t, n);
    cv_rules *r = read_ok(b.p);
    for (size_t i = 0; r && i < n; i++) {
        if (t[i].layout == VAQ_VECTOR || t[i].role == VAQ_ROUTER) continue;
        const int type = cv_rules_type(r, &t[i], Q_F16);
        T_OK(type == t[i].type, "%s: tensor %zu (role %d, layer %d, expert %d): %d, not %d\n%s",
             what, i, t[i].role, t[i].layer, t[i].expert, type, t[i].type, b.p);
    }
    int line = 1;
    T_OK(!r || !cv_rules_idle(r, &line), "%s: line %d says nothing:\n%s", what, line, b.p);
    cv_rules_free(r);
    vq_buf_clear(&b);
}

/* Every role in 5 layers with 3 experts; types drawn from `types`, layer by layer or each alone. */
static void test_round_trip(void)
{
    static const int types[] = { Q_N4, Q_L6, Q_N5, Q_L8, Q_BF16, Q_F32 };
    vaq_tensor t[500];
    uint32_t seed = 1;
    for (int round = 0; round < 40; round++) {
        const uint32_t few = (uint32_t)round % 6 + 1;
        const bool alone = round % 4 == 3;
        size_t n = 0;
        for (int role = 1; role < 60; role++) {
            const bool once = role == VAQ_EMBED || role == VAQ_HEAD;
            const bool expert = role == VAQ_EXPERT_GATE_UP || role == VAQ_EXPERT_DOWN;
            for (int l = 0; l < (once ? 1 : 5); l++) {
                for (int x = expert ? 0 : -1; x < (expert ? 3 : 0); x++) {
                    t[n] = matrix((vaq_role)role, once ? VAQ_NO_LAYER : l, x);
                    t[n].params = 1;
                    seed = seed * 1664525u + 1013904223u;
                    t[n].type = x > 0 && !alone ? t[n - 1].type
                                                : (uint16_t)types[(seed >> 16) % few];
                    if (role == VAQ_ROUTER) t[n].type = Q_F32;
                    n++;
                }
            }
        }
        T_OK(n > 250 && n <= 500, "%zu", n);
        /* roles without a name in recipes are vectors */
        for (size_t i = 0; i < n; i++) {
            cv_rules *r = read_ok("* l8");
            if (cv_rules_type(r, &t[i], Q_F16) == Q_F16) t[i].layout = VAQ_VECTOR;
            cv_rules_free(r);
        }
        same_again(t, n, "random");
    }
    vq_buf b = { 0 };
    const vaq_tensor small[] = {
        { .role = VAQ_EMBED, .layer = VAQ_NO_LAYER, .type = Q_L8, .params = 5, .expert = -1 },
        { .role = VAQ_V, .layer = 0, .type = Q_L6, .params = 5, .expert = -1 },
        { .role = VAQ_O, .layer = 0, .type = Q_L6, .params = 5, .expert = -1 },
        { .role = VAQ_V, .layer = 1, .type = Q_N4, .params = 5, .expert = -1 },
        { .role = VAQ_O, .layer = 1, .type = Q_N4, .params = 5, .expert = -1 },
        { .role = VAQ_V, .layer = 2, .type = Q_N4, .params = 5, .expert = -1 },
        { .role = VAQ_O, .layer = 2, .type = Q_N4, .params = 5, .expert = -1 },
    };
    cv_rules_write(&b, small, sizeof small / sizeof small[0]);
    T_OK(!strcmp(b.p, "*                               n4\n"
                      "embed                           l8\n"
                      "v,o             0               l6\n"), "%s", b.p);
    vq_buf_clear(&b);
}

/* ---- conversions ---- */

static char told[400];

static void notice(void *ctx, const char *line)
{
    (void)ctx;
    strncat(told, line, sizeof told - strlen(told) - 1);
}

static void test_convert(void)
{
    static const char rules[] = "*  l8\nq,k 1 n4\nlm_head.* f32\nq 2 l6 # no such layer\n";
    ck k;
    cv_report r, again;
    vq_err e;
    ck_make(&k);
    ck_empty(src);
    T_OK(!ck_write(&k, src), "write");
    const cv_opts o = { .type = -1, .rules = vq_str_c(rules), .rules_name = "mine",
                        .notice = notice };
    T_OK(!convert(&o, &r, &e), "%s", e.msg);
    T_OK(strstr(told, "mine:4: means no matrix"), "%s", told);
    vq_file *f;
    T_OK(!vq_file_open(&f, out, NULL, &e), "%s", e.msg);
    if (!f) return;
    T_OK(vq_file_find(f, VAQ_Q, 0, -1)->type == Q_L8, "q 0");
    T_OK(vq_file_find(f, VAQ_Q, 1, -1)->type == Q_N4, "q 1");
    T_OK(vq_file_find(f, VAQ_V, 1, -1)->type == Q_L8, "v 1");
    T_OK(vq_file_find(f, VAQ_HEAD, -1, -1)->type == Q_F32, "head");
    T_OK(vq_file_find(f, VAQ_Q_BIAS, 1, -1)->type == Q_F32, "bias");
    T_OK(vq_str_eq(vq_file_meta(f, "rules"), rules), "the text is in the file");
    T_OK(vq_str_has(vq_file_meta(f, "recipe"), "rules; else auto: n4"), "recipe");
    vq_file_close(f);
    char hex[65], hex2[65];
    hash_container(hex, out);
    const cv_opts o2 = { .type = Q_F16, .rules = vq_str_c(r.rules), .rules_name = "said",
                         .notice = notice };
    told[0] = 0;
    T_OK(!convert(&o2, &again, &e), "%s", e.msg);
    hash_container(hex2, out);
    T_OK(!strcmp(hex, hex2), "what a report says makes the same again");
    T_OK(!strstr(told, "means no matrix"), "%s", told);
    cv_report_clear(&again);
    const cv_opts dry = { .type = -1, .rules = vq_str_c(rules), .rules_name = "mine",
                          .dry_run = true };
    T_OK(!convert(&dry, &again, &e), "%s", e.msg);
    T_OK(r.rules && again.rules && !strcmp(r.rules, again.rules), "a dry run says the same");
    cv_report_clear(&again);
    cv_report_clear(&r);
    const cv_opts wrong = { .type = -1, .rules = vq_str_c("*"), .rules_name = "mine" };
    T_OK(convert(&wrong, &r, &e) == VQ_EUSAGE && strstr(e.msg, "mine:1"), "%s", e.msg);
    ck_free(&k);
}

/* What auto does, written out, makes the same file. */
static void test_models(void)
{
    static const char *const models[] = { "tiny-r1-qwen", "tiny-r1-fp8", "tiny-r1-qwen3" };
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        char dir[100], hex[65], hex2[65];
        cv_report r;
        vq_err e;
        snprintf(dir, sizeof dir, "tests/data/models/%s", models[i]);
        hash_of(hex, NULL, dir, -1);
        T_OK(!convert(&(cv_opts){ .src = dir, .type = -1, .dry_run = true }, &r, &e), "%s", e.msg);
        const cv_opts o = { .src = dir, .type = Q_F32, .rules = vq_str_c(r.rules),
                            .rules_name = "auto" };
        cv_report again;
        T_OK(!convert(&o, &again, &e), "%s", e.msg);
        hash_container(hex2, out);
        T_OK(!strcmp(hex, hex2), "%s: auto, written out\n%s", models[i], r.rules);
        cv_report_clear(&again);
        cv_report_clear(&r);
    }
}

int main(void)
{
    conv_begin();
    test_meaning();
    test_refusals();
    test_round_trip();
    test_convert();
    test_models();
    conv_end();
    return t_done("t_recipe");
}
