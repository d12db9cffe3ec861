/* route.c - which experts a token goes to, as DeepSeek-V3 was trained (exact.md 3, models.md 5.5).
 *
 * The correction bias takes part in the choice and never in the weights.  Groups are ranked by the
 * sum of their two best biased scores; what lies outside of the chosen groups cannot be chosen at
 * all, however good.  Sums run in ascending index, so the order of discovery does not show. */
#include "quant/quant.h"

#include "quant/scalar.h"

/* Index of the largest v[i] not yet taken, the lowest on ties. */
static int best(const float *v, const bool *taken, int n)
{
    int at = -1;
    for (int i = 0; i < n; i++)
        if (!taken[i] && (at < 0 || v[i] > v[at])) at = i;
    return at;
}

static float top_two(const float *b, int n)
{
    float first = -INFINITY, second = -INFINITY;
    for (int i = 0; i < n; i++) {
        if (b[i] > first) {
            second = first;
            first = b[i];
        } else if (b[i] > second) {
            second = b[i];
        }
    }
    return n > 1 ? first + second : first;
}

int q_route(int32_t *idx, float *w, const float *logits, const float *bias, int n, int n_group,
            int n_group_used, int k, bool norm, float scale)
{
    float s[Q_MAX_EXPERTS], b[Q_MAX_EXPERTS], rank[Q_MAX_EXPERTS];
    bool taken[Q_MAX_EXPERTS], open[Q_MAX_EXPERTS];
    const int per = n / n_group;
    assert(n <= Q_MAX_EXPERTS && per >= 1 && per * n_group == n); /* the container was checked */
    for (int i = 0; i < n; i++) {
        s[i] = 1.0f / (1.0f + q_exp(-logits[i]));
        b[i] = s[i] + bias[i];
        taken[i] = true;
    }
    for (int g = 0; g < n_group; g++) {
        rank[g] = top_two(b + g * per, per);
        open[g] = false;
    }
    for (int i = 0; i < n_group_used; i++) {
        const int g = best(rank, open, n_group);
        open[g] = true;
        for (int e = g * per; e < (g + 1) * per; e++) taken[e] = false;
    }
    for (int i = 0; i < n; i++) open[i] = false; /* from here on: the experts that are chosen */
    for (int i = 0; i < k; i++) {
        const int e = best(b, taken, n);
        taken[e] = open[e] = true;
    }
    float sum = 0.0f;
    int at = 0;
    for (int e = 0; e < n; e++) {
        if (!open[e]) continue;
        sum += s[e];
        idx[at++] = e;
    }
    for (int i = 0; i < k; i++)
        w[i] = (norm ? s[idx[i]] / (sum + 1e-20f) : s[idx[i]]) * scale;
    return q_max_bits(logits, n) > Q_BITS_FINITE || q_max_bits(b, n) > Q_BITS_FINITE;
}
