/* t_route.c - the choice of experts: known cases, ties, limits of groups, scores that are no
 * numbers. */
#include "core/base/json.h"
#include "core/base/os.h"
#include "quant/quant.h"
#include "tests/test.h"

#include <math.h>

enum { N = 256, K = 8 };

static void numbers(const vq_json *j, uint32_t obj, const char *key, double *out, int n)
{
    const uint32_t a = vq_json_get(j, obj, key);
    uint32_t v = vq_json_first(j, a);
    for (int i = 0; i < n; i++, v = vq_json_next(j, a, v)) {
        out[i] = NAN;
        T_OK(v && vq_json_f64(j, v, &out[i]), "%s[%d]", key, i);
    }
}

/* Cases list experts by falling weight, we give them by rising index. */
static void known_case(const vq_json *j, uint32_t c)
{
    double logits[N], bias[N], experts[K], weights[K];
    float l[N], b[N], w[K];
    int32_t idx[K];
    numbers(j, c, "logits", logits, N);
    numbers(j, c, "bias", bias, N);
    numbers(j, c, "experts", experts, K);
    numbers(j, c, "weights", weights, K);
    for (int i = 0; i < N; i++) {
        l[i] = (float)logits[i];
        b[i] = (float)bias[i];
    }
    T_OK(!q_route(idx, w, l, b, N, 8, 4, K, true, 2.5f), "all scores are numbers");
    for (int i = 0; i < K; i++) {
        T_OK(i == 0 || idx[i] > idx[i - 1], "ascending");
        int at = 0;
        while (at < K && (int)experts[at] != idx[i]) at++;
        T_OK(at < K, "expert %d is not among those wanted", (int)idx[i]);
        if (at < K)
            T_OK(fabs((double)w[i] - weights[at]) <= 1e-6, "weight of %d: %.9g, wanted %.9g",
                 (int)idx[i], (double)w[i], weights[at]);
    }
}

static void known_cases(void)
{
    vq_buf b = { 0 };
    vq_json j = { 0 };
    vq_err e = { 0 };
    const char *path = "tests/data/golden/router_cases.json";
    if (vq_file_read(path, 1 << 20, &b, &e) || vq_json_parse(&j, b.p, b.n, path, &e)) {
        T_OK(false, "%s", e.msg);
    } else {
        const uint32_t cases = vq_json_get(&j, 0, "cases");
        int n = 0;
        for (uint32_t c = vq_json_first(&j, cases); c; c = vq_json_next(&j, cases, c), n++)
            known_case(&j, c);
        T_OK(n > 0, "no cases in %s", path);
    }
    vq_json_clear(&j);
    vq_buf_clear(&b);
}

static void expect(const char *what, const float *logits, const float *bias, int n, int groups,
                   int used, int k, const int *want)
{
    float w[K];
    int32_t idx[K];
    q_route(idx, w, logits, bias, n, groups, used, k, true, 1.0f);
    for (int i = 0; i < k; i++)
        T_OK(idx[i] == want[i], "%s: choice %d is %d, wanted %d", what, i, (int)idx[i], want[i]);
}

static void ties(void)
{
    static const float zero[16];
    float l[16] = { 0 }, b[16] = { 0 }, w[4];
    int32_t idx[4];
    /* All equal: the lowest groups, in them the lowest experts. */
    expect("all equal", zero, zero, 16, 4, 2, 4, (const int[]){ 0, 1, 2, 3 });
    expect("no groups", zero, zero, 16, 1, 1, 4, (const int[]){ 0, 1, 2, 3 });
    /* Equal experts across two groups that both count. */
    b[5] = b[9] = b[10] = b[14] = 1;
    expect("of two equal groups the lower counts", zero, b, 16, 4, 2, 2, (const int[]){ 5, 9 });
    expect("... and the next by index", zero, b, 16, 4, 2, 4, (const int[]){ 4, 5, 9, 10 });
    /* A group is as good as its two best: 2 + 2 beats 3 + 0, whose expert is then out of reach. */
    for (int i = 0; i < 16; i++) b[i] = 0;
    b[0] = 3;
    b[4] = b[5] = 2;
    expect("two good ones beat one better", zero, b, 16, 4, 1, 2, (const int[]){ 4, 5 });
    /* The bias chooses, the score weighs. */
    for (int i = 0; i < 16; i++) b[i] = 0;
    b[15] = 5;
    l[15] = -2;
    l[1] = 2;
    expect("bias", l, b, 16, 1, 1, 2, (const int[]){ 1, 15 });
    q_route(idx, w, l, b, 16, 1, 1, 2, true, 1.0f);
    const double hi = 1 / (1 + exp(-2.0)), lo = 1 / (1 + exp(2.0));
    T_OK(fabs((double)w[0] - hi / (hi + lo)) < 1e-6 && fabs((double)w[1] - lo / (hi + lo)) < 1e-6,
         "%g %g", (double)w[0], (double)w[1]);
    q_route(idx, w, l, b, 16, 1, 1, 2, false, 2.5f);
    T_OK(fabs((double)w[0] - 2.5 * hi) < 1e-6, "without the division: %g", (double)w[0]);
    /* Negative biases must not make excluded groups attractive: -inf, not 0, stands for them. */
    for (int i = 0; i < 16; i++) b[i] = -3;
    expect("negative biases", zero, b, 16, 4, 2, 4, (const int[]){ 0, 1, 2, 3 });
}

static void no_numbers(void)
{
    static const float bad[] = { NAN, INFINITY, -INFINITY };
    float l[16] = { 0 }, b[16] = { 0 }, w[4];
    int32_t idx[4];
    for (int i = 0; i < 3; i++)
        for (int at = 0; at < 16; at += 5) {
            l[at] = bad[i];
            T_OK(q_route(idx, w, l, b, 16, 4, 2, 4, true, 1.0f) != 0, "logit %d", at);
            for (int k = 0; k < 4; k++) T_OK(idx[k] >= 0 && idx[k] < 16, "index %d", (int)idx[k]);
            l[at] = 0;
        }
}

int main(void)
{
    known_cases();
    ties();
    no_numbers();
    return t_done("t_route");
}
