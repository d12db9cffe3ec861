/* t_sample.c - drawing ids: Philox against its paper, the banded walk against a full sort, edge
 * cases. */
#include "core/engine/sample.h"
#include "core/base/mem.h"
#include "tests/test.h"

#include <math.h>

static uint32_t rnd(uint64_t *s)
{
    *s = *s * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(*s >> 33);
}

static void philox(void)
{
    /* Known answers of the Random123 distribution, philox4x32-10. */
    static const struct { uint32_t c[4], k[2], out[4];
    } kat[] = {
        { { 0, 0, 0, 0 }, { 0, 0 }, { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
        { { ~0u, ~0u, ~0u, ~0u },
          { ~0u, ~0u },
          { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } },
        { { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 },
          { 0xa4093822, 0x299f31d0 },
          { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } },
    };
    for (size_t i = 0; i < sizeof kat / sizeof kat[0]; i++) {
        uint32_t out[4];
        vq_philox(out, kat[i].c, kat[i].k);
        T_OK(!memcmp(out, kat[i].out, sizeof out), "case %zu: %08x", i, out[0]);
    }
}

typedef struct pair { float p; int32_t id; } pair;
static int by_rule(const void *a, const void *b)
{
    const pair *x = a, *y = b;
    return x->p != y->p ? (x->p < y->p) - (x->p > y->p) : (x->id > y->id) - (x->id < y->id);
}

/* exact.md 5, word for word, over a full sort. */
static int32_t plain(const q_kern *k, const float *x, int n, const vq_sampling *o,
                     uint32_t position)
{
    const int best = k->argmax(x, n);
    const float t = (float)o->temperature;
    if (t == 0) return best;
    float *p = malloc((size_t)n * sizeof *p);
    pair *v = malloc((size_t)n * sizeof *v);
    const double sum = k->softmax(p, x, n, x[best], t);
    for (int i = 0; i < n; i++) v[i] = (pair){ p[i], i };
    qsort(v, (size_t)n, sizeof *v, by_rule);
    const uint32_t c4[4] = { position, o->stream, 0, 0 },
                   k2[2] = { (uint32_t)o->seed, (uint32_t)(o->seed >> 32) };
    uint32_t r[4];
    vq_philox(r, c4, k2);
    const double u = r[0] * 0x1p-32;
    double c = 0;
    int kept = 0;
    while (kept < n && (kept == 0 || c < o->top_p * sum)) c += v[kept++].p;
    const double all = c;
    int32_t id = -1;
    c = 0;
    for (int i = 0; i < kept && id < 0; i++) {
        c += v[i].p;
        if (c > u * all) id = v[i].id;
    }
    free(p);
    free(v);
    return id;
}

static void against_plain(const q_kern *k)
{
    enum { N = 3000 };
    static const double temps[] = { 0, 0.6, 1, 3.7, 0.01, 1e-30, 1e300 },
                        tops[] = { 0, 0.1, 0.95, 0.999999, 1, 2 };
    static float x[N];
    uint64_t seed = 5;
    vq_sampler s;
    int wrong = 0, cases = 0;
    T_OK(vq_sampler_init(&s, N, NULL) == VQ_OK, "init");
    for (int shape = 0; shape < 5; shape++) {
        for (int i = 0; i < N; i++) {
            const float r = (float)(rnd(&seed) & 0xffff) / 65536.0f;
            x[i] = shape == 0      ? 20 * r /* spread */
                   : shape == 1    ? 1.5f   /* all equal: only the order of ids decides */
                   : shape == 2    ? (float)(int)(8 * r) /* many ties */
                   : shape == 3    ? -100 * r            /* tails that underflow */
                   : i % 1000 == 7 ? 30
                                   : r; /* a few peaks of equal height */
        }
        for (size_t t = 0; t < sizeof temps / sizeof temps[0]; t++)
            for (size_t p = 0; p < sizeof tops / sizeof tops[0]; p++)
                for (uint32_t pos = 0; pos < 6; pos++) {
                    const vq_sampling o = { temps[t], tops[p], 0x123456789abcull + pos, pos % 3 };
                    const int32_t a = vq_sample(&s, k, x, &o, pos), b = plain(k, x, N, &o, pos);
                    wrong += a != b;
                    cases++;
                }
    }
    T_OK(!wrong, "%d of %d draws differ", wrong, cases);
    vq_sampler_clear(&s);
}

static void rules(const q_kern *k)
{
    float x[100] = { 0 };
    vq_sampler s;
    vq_err e;
    T_OK(vq_sampler_init(&s, 90, NULL) == VQ_OK, "init");
    x[40] = x[50] = 3;
    x[95] = 10; /* not in use */
    vq_sampling o = { 0, 0.95, 1, 0 };
    T_OK(vq_sample(&s, k, x, &o, 0) == 40, "greedy: lowest of the highest in use");
    o.temperature = 1e-50; /* rounds to 0 in f32 */
    T_OK(vq_sample(&s, k, x, &o, 0) == 40, "T that rounds to zero is greedy");
    o.temperature = 1;
    o.top_p = 0;
    T_OK(vq_sample(&s, k, x, &o, 3) == 40, "top-p 0 keeps the first");
    o.temperature = 1e300; /* finite, but inf in f32: every id is as likely as any other */
    T_OK(vq_sampling_check(&o, &e) == VQ_OK && vq_sample(&s, k, x, &o, 3) == 0, "T of inf");
    o.temperature = 1;
    o.top_p = 1;
    int seen[90] = { 0 }, kinds = 0, differ = 0;
    for (uint32_t pos = 0; pos < 2000; pos++) {
        const int32_t id = vq_sample(&s, k, x, &o, pos);
        T_OK(id >= 0 && id < 90, "id %d", (int)id);
        kinds += !seen[id];
        seen[id]++;
        vq_sampling other = o;
        other.stream = 1;
        differ += vq_sample(&s, k, x, &other, pos) != id;
    }
    T_OK(kinds > 80, "all ids have a chance: %d", kinds);
    T_OK(seen[40] > 200 && seen[50] > 200, "the likely ones: %d %d", seen[40], seen[50]);
    T_OK(differ > 500, "streams are independent: %d", differ);

    const double bad[] = { -1, NAN, INFINITY };
    for (int i = 0; i < 3; i++) {
        const vq_sampling t = { bad[i], 1, 0, 0 }, p = { 1, bad[i], 0, 0 };
        T_OK(vq_sampling_check(&t, &e) == VQ_EUSAGE, "temperature %g", bad[i]);
        T_OK(vq_sampling_check(&p, &e) == VQ_EUSAGE, "top-p %g", bad[i]);
    }
    vq_sampler_clear(&s);
}

int main(void)
{
    const char *names[8];
    const int n = q_cpu_levels(names);
    philox();
    for (int i = 0; i < n; i++) {
        q_kern k;
        T_OK(q_kern_make(&k, names[i]), "%s", names[i]);
        against_plain(&k);
        rules(&k);
    }
    return t_done("t_sample");
}
