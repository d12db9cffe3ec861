/* t_feedback.c - enc 2 and the budget: codes that make up for each other, types that money buys.
 *
 * Errors are weighed here by the plain sum e' H e in double, which the encoder never computes. */
#include "convert/budget.h"
#include "core/file/check.h"
#include "tests/test.h"

#include <math.h>

static q_kern kern;
static uint64_t state = 1;

static uint32_t next(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33);
}

/* Bell-shaped by integers: the same on every machine. */
static float bell(void)
{
    int32_t s = 0;
    for (int i = 0; i < 4; i++) s += (int32_t)(next() & 0xffff);
    return (float)(s - 131070) * 0x1p-16f;
}

static void *aligned(size_t n)
{
    void *p = aligned_alloc(64, (n + 63) / 64 * 64);
    if (!p) exit(1);
    memset(p, 0, (n + 63) / 64 * 64);
    return p;
}

/* ---- moments ---- */

enum { K = 300, BLOCK = 256, ROWS = 16, INPUTS = 700 };

/* H of inputs of which neighbours have much in common. */
static void make_h(double *h, float *x)
{
    for (int t = 0; t < INPUTS; t++)
        for (int k = 0; k < K; k++)
            x[t * K + k] = (k ? 0.8f * x[t * K + k - 1] : 0.0f) + bell() * (k % 7 ? 1.0f : 3.0f);
    for (int i = 0; i < K; i++)
        for (int j = 0; j < K; j++) {
            double s = 0;
            for (int t = 0; t < INPUTS; t++) s += (double)x[t * K + i] * (double)x[t * K + j];
            h[i * K + j] = s;
        }
}

static q_moments moments_of(const double *h, int block)
{
    q_moments m = { .k = K, .block = block, .h = aligned((size_t)K * (size_t)block * sizeof(float)),
                    .d = aligned(K * sizeof(float)) };
    for (int i = 0; i < K; i++)
        for (int j = i; j < (i / block + 1) * block && j < K; j++)
            m.h[i * block + (j - i / block * block)] = (float)h[i * K + j];
    return m;
}

static void factors(const double *h)
{
    q_moments m = moments_of(h, BLOCK);
    void *tmp = aligned(q_moments_tmp(BLOCK));
    double worst = 0;
    for (int b = 0; b < 2; b++) {
        const int k0 = b * BLOCK, n = b ? K - BLOCK : BLOCK;
        double mean = 0;
        for (int i = 0; i < n; i++) mean += h[(k0 + i) * K + k0 + i];
        q_moments_factor(&m, b, tmp);
        for (int i = 0; i < n; i++)
            for (int j = i; j < n; j++) {
                double s = 0; /* (U D U')[i][j] */
                for (int k = j; k < n; k++) {
                    const double ui = k == i ? 1 : (double)m.h[(k0 + i) * BLOCK + k];
                    const double uj = k == j ? 1 : (double)m.h[(k0 + j) * BLOCK + k];
                    s += ui * (double)m.d[k0 + k] * uj;
                }
                const double want = h[(k0 + i) * K + k0 + j] + (i == j ? 0.01 * mean / n : 0);
                const double d = fabs(s - want) / (mean / n);
                if (d > worst) worst = d;
            }
    }
    T_OK(worst < 1e-5, "U D U' is H, within %g of its diagonal", worst);
    free(m.h);
    free(m.d);
    free(tmp);
}

/* ---- codes ---- */

static double weighed(int type, const void *out, const float *w, const double *h)
{
    double sum = 0, e[K];
    float v[K];
    for (int r = 0; r < ROWS; r++) {
        q_decode_row(type, v, out, r, K);
        for (int k = 0; k < K; k++) e[k] = (double)w[r * K + k] - (double)v[k];
        for (int i = 0; i < K; i++)
            for (int j = 0; j < K; j++) sum += e[i] * h[i * K + j] * e[j];
    }
    return sum;
}

static void codes(const double *h)
{
    static const int all[] = { Q_P5, Q_P6, Q_N4S, Q_N4, Q_N5, Q_L6, Q_L8 };
    float *w = aligned(ROWS * K * sizeof *w);
    for (int i = 0; i < ROWS * K; i++) w[i] = bell();
    q_moments whole = moments_of(h, 384), cut = moments_of(h, 128);
    void *tmp = aligned(q_moments_tmp(384));
    q_moments_factor(&whole, 0, tmp);
    for (int b = 0; b < 3; b++) q_moments_factor(&cut, b, tmp);
    free(tmp);
    for (size_t t = 0; t < sizeof all / sizeof all[0]; t++) {
        const q_typeinfo *info = q_type_info(all[t]);
        if (!info->known) continue;
        const size_t bytes = q_group_bytes(all[t], K);
        uint8_t *plain = aligned(bytes), *fed = aligned(bytes), *other = aligned(bytes);
        tmp = aligned(q_feedback_tmp(all[t], K));
        double err2[2], own = 0;
        float v[K];
        q_encode_group(&kern, all[t], plain, w, K, ROWS, K, NULL, NULL);
        T_OK(!q_encode_feedback(&kern, all[t], fed, w, K, ROWS, K, &whole, err2, tmp), "encodes");
        for (int r = 0; r < ROWS; r++) {
            q_decode_row(all[t], v, fed, r, K);
            for (int k = 0; k < K; k++)
                own += pow((double)w[r * K + k] - (double)v[k], 2);
        }
        T_OK(fabs(own - err2[0]) <= 1e-9 * own, "%s: err2 is of what was written", info->name);
        memset(other, 0xa5, bytes);
        q_encode_feedback(&kern, all[t], other, w, K, ROWS, K, &whole, err2, tmp);
        T_OK(!memcmp(fed, other, bytes), "%s: nothing is left of what memory held", info->name);
        const double a = weighed(all[t], plain, w, h), b = weighed(all[t], fed, w, h);
        q_encode_feedback(&kern, all[t], other, w, K, ROWS, K, &cut, err2, tmp);
        const double c = weighed(all[t], other, w, h);
        printf("%s: weighed error %.3f of enc 1's; knowing blocks of 128 alone %.3f\n", info->name,
               b / a, c / a);
        T_OK(b < 0.7 * a && b < c && c < 0.8 * a, "%s: feedback pays", info->name);
        /* A group of 5 rows is those rows. */
        q_encode_feedback(&kern, all[t], other, w, K, 5, K, &whole, err2, tmp);
        for (int r = 0; r < 5; r++) {
            float u[K];
            q_decode_row(all[t], v, fed, r, K);
            q_decode_row(all[t], u, other, r, K);
            T_OK(!memcmp(u, v, sizeof u), "%s: row %d alone", info->name, r);
        }
        free(plain);
        free(fed);
        free(other);
        free(tmp);
    }
    uint8_t f32[64 * 320];
    double err2[2];
    T_OK(!q_encode_feedback(&kern, Q_F32, f32, w, K, ROWS, K, &whole, err2, NULL) && err2[0] == 0,
         "float types lose nothing");
    w[3 * K + 5] = INFINITY;
    T_OK(q_encode_feedback(&kern, Q_N4, f32, w, K, ROWS, K, &whole, err2, NULL) == 3 * K + 6,
         "a weight that is not finite is named");
    free(whole.h);
    free(whole.d);
    free(cut.h);
    free(cut.d);
    free(w);
}

/* Every level makes the bytes of the reference. */
static void levels(const double *h)
{
    const char *names[8];
    const int n = q_cpu_levels(names);
    float *w = aligned(ROWS * K * sizeof *w);
    for (int i = 0; i < ROWS * K; i++) w[i] = bell();
    q_moments m = moments_of(h, 384);
    void *tmp = aligned(q_moments_tmp(384) + q_feedback_tmp(Q_L8, K));
    q_moments_factor(&m, 0, tmp);
    const size_t bytes = q_group_bytes(Q_N4, K);
    uint8_t *ref = aligned(bytes), *out = aligned(bytes);
    double err2[2];
    for (int i = 0; i < n; i++) {
        q_kern k;
        q_kern_make(&k, names[i]);
        q_encode_feedback(&k, Q_N4, i ? out : ref, w, K, ROWS, K, &m, err2, tmp);
        T_OK(!i || !memcmp(ref, out, bytes), "%s: the reference's bytes", names[i]);
    }
    free(m.h);
    free(m.d);
    free(w);
    free(tmp);
    free(ref);
    free(out);
}

/* ---- the budget ---- */

static double spent(const cv_plan *p, const double *cost, uint64_t *bytes)
{
    double sum = 0;
    *bytes = 0;
    for (size_t i = 0; i < p->n; i++) {
        *bytes += q_matrix_bytes(p->tensor[i].type, p->tensor[i].rows, (int)p->tensor[i].cols);
        sum += cost[i] * cv_budget_left(p->tensor[i].type);
    }
    return sum;
}

static void budget(void)
{
    enum { N = 5 };
    static const int all[] = { Q_P5, Q_P6, Q_N4S, Q_N4, Q_N5, Q_L6, Q_L8 };
    int types[7], n_type = 0, odd = 0;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (q_type_info(all[i])->known) types[n_type++] = all[i];
    for (int seed = 0; seed < 20; seed++) {
        vaq_tensor t[N] = { 0 };
        double cost[N];
        cv_plan p = { .tensor = t, .n = N };
        uint64_t least = 0, most = 0;
        for (int i = 0; i < N; i++) {
            t[i] = (vaq_tensor){ .role = VAQ_DOWN, .rows = 64 * (1 + next() % 9),
                                 .cols = 128 * (1 + next() % 5) };
            t[i].layout = vq_role_find(VAQ_DOWN)->layout;
            p.params += (uint64_t)t[i].rows * t[i].cols;
            cost[i] = (1 + next() % 1000) * 1e-6;
            least += q_matrix_bytes(types[0], t[i].rows, (int)t[i].cols);
            most += q_matrix_bytes(types[n_type - 1], t[i].rows, (int)t[i].cols);
        }
        const uint64_t limit = least + (most - least) * (1 + (uint64_t)seed) / 24;
        uint64_t bytes;
        vq_err e;
        T_OK(!cv_budget_spend(&p, cost, limit, &e), "spends");
        const double got = spent(&p, cost, &bytes);
        T_OK(bytes <= limit, "within the budget");
        double best = 1e9;
        int at[N] = { 0 };
        for (int i = 0; i < N;) { /* all choices */
            for (int k = 0; k < N; k++) t[k].type = (uint16_t)types[at[k]];
            const double c = spent(&p, cost, &bytes);
            if (bytes <= limit && c < best) best = c;
            for (i = 0; i < N && ++at[i] == n_type; i++) at[i] = 0;
        }
        T_OK(got <= best * 1.05, "case %d: %g, the best is %g", seed, got, best);
        odd += got > best * (1 + 1e-9);
        T_OK(cv_budget_spend(&p, cost, least - 1, &e) == VQ_EUSAGE, "too small a budget is told");
        T_OK(!cv_budget_spend(&p, cost, least, &e), "the smallest types are a choice");
    }
    printf("budget: %d of 20 cases are not the very best choice\n", odd);
    T_OK(odd <= 4, "mostly the best choice");
}

int main(void)
{
    double *h = aligned(K * K * sizeof *h);
    float *x = aligned(INPUTS * K * sizeof *x);
    q_kern_make(&kern, getenv("VQ_CPU"));
    make_h(h, x);
    factors(h);
    codes(h);
    levels(h);
    budget();
    free(h);
    free(x);
    return t_done("t_feedback");
}
