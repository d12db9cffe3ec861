/* sample.c - greedy and nucleus sampling, reproducible to the id.
 *
 * The rule is a walk over all ids by falling probability, but a nucleus seldom has more than a few
 * ids of 150,000, so the order is made in bands: first the ids with p >= 2^-10 are collected and
 * sorted, and only when the walk runs past them the next band follows.  Bands are cut by value and
 * collected in rising id, and the sort is stable, so the concatenation is exactly the full order
 * (p descending, id ascending), and the sums are those of the plain walk. */
#include "core/engine/sample.h"

#include "core/base/mem.h"

#include <math.h>
#include <string.h>

vq_status vq_sampler_init(vq_sampler *s, int n_ids, vq_err *e)
{
    const size_t n = (size_t)n_ids;
    *s = (vq_sampler){ .n_ids = n_ids,
                       .p = vq_calloc(n, sizeof *s->p),
                       .cand = vq_calloc(n, sizeof *s->cand),
                       .spare = vq_calloc(n, sizeof *s->spare),
                       .at = vq_calloc(n, sizeof *s->at) };
    if (s->p && s->cand && s->spare && s->at) return VQ_OK;
    vq_sampler_clear(s);
    return vq_fail(e, VQ_ENOMEM, "out of memory");
}

void vq_sampler_clear(vq_sampler *s)
{
    vq_free(s->p);
    vq_free(s->cand);
    vq_free(s->spare);
    vq_free(s->at);
    *s = (vq_sampler){ 0 };
}

vq_status vq_sampling_check(const vq_sampling *o, vq_err *e)
{
    if (!(o->temperature >= 0) || isinf(o->temperature))
        return vq_fail(e, VQ_EUSAGE, "temperature %g: must be finite and not negative",
                       o->temperature);
    if (!(o->top_p >= 0) || isinf(o->top_p))
        return vq_fail(e, VQ_EUSAGE, "top-p %g: must be finite and not negative", o->top_p);
    return VQ_OK;
}

void vq_philox(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0],
             k1 = key[1];
    for (int i = 0; i < 10; i++) {
        const uint64_t a = (uint64_t)0xd2511f53u * c0, b = (uint64_t)0xcd9e8d57u * c2;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)b;
        c3 = (uint32_t)a;
        k0 += 0x9e3779b9u; /* golden ratio and sqrt(3) - 1: the constants of the paper */
        k1 += 0xbb67ae85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

static float value(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Descending by bits (positive floats order as their bits), stable: least significant byte first.
 */
static void sort(vq_cand *v, vq_cand *tmp, int n)
{
    if (n <= 32) {
        for (int i = 1; i < n; i++) {
            const vq_cand x = v[i];
            int j = i;
            for (; j > 0 && v[j - 1].bits < x.bits; j--) v[j] = v[j - 1];
            v[j] = x;
        }
        return;
    }
    for (int shift = 0; shift < 32; shift += 8) {
        int at[257] = { 0 };
        for (int i = 0; i < n; i++) at[256 - (v[i].bits >> shift & 255)]++; /* high bytes first */
        for (int b = 1; b < 257; b++) at[b] += at[b - 1];
        for (int i = 0; i < n; i++) tmp[at[255 - (v[i].bits >> shift & 255)]++] = v[i];
        vq_cand *t = v;
        v = tmp;
        tmp = t;
    } /* four passes: the result is back in the caller's v */
}

/* Appends the ids with lo <= p < hi, in order, behind the n there are. */
static int collect(vq_sampler *s, const q_kern *k, int n, float lo, float hi)
{
    int32_t *id = s->at;
    const int found = k->band(id, s->p, s->n_ids, lo, hi);
    for (int i = 0; i < found; i++) {
        vq_cand *c = &s->cand[n + i];
        memcpy(&c->bits, &s->p[id[i]], sizeof c->bits);
        c->id = id[i];
    }
    sort(s->cand + n, s->spare, found);
    return n + found;
}

static int32_t draw(vq_sampler *s, const q_kern *k, float sum, double top_p, double u)
{
    /* The largest p is exp(0) = 1.  Denormal p count too, 0 cannot be drawn: it never raises C. */
    static const float band[] = { 2.0f, 0x1p-10f, 0x1p-16f, 0x1p-24f, 0x1p-149f };
    const double limit = top_p * (double)sum;
    double c = 0, kept = 0;
    int have = 0, n = 0;
    bool open = true;
    for (int b = 1; open && b < (int)(sizeof band / sizeof band[0]); b++) {
        have = collect(s, k, have, band[b], band[b - 1]);
        while (open && n < have) {
            open = n == 0 || c < limit;
            if (open) c += (double)value(s->cand[n++].bits);
        }
    }
    kept = c;
    c = 0;
    for (int i = 0; i < n; i++) {
        c += (double)value(s->cand[i].bits);
        if (c > u * kept) return s->cand[i].id;
    }
    return s->cand[n - 1].id; /* u < 1, so c = kept > u * kept ended the loop */
}

int32_t vq_sample(vq_sampler *s, const q_kern *k, const float *logits, const vq_sampling *o,
                  uint32_t position)
{
    const float t = (float)o->temperature; /* beyond FLT_MAX: inf, every p is 1 */
    const int best = k->argmax(logits, s->n_ids);
    if (t == 0) return best;
    const float sum = k->softmax(s->p, logits, s->n_ids, logits[best], t);
    const uint32_t counter[4] = { position, o->stream, 0, 0 };
    const uint32_t key[2] = { (uint32_t)o->seed, (uint32_t)(o->seed >> 32) };
    uint32_t r[4];
    vq_philox(r, counter, key);
    return draw(s, k, sum, o->top_p, (double)r[0] * 0x1p-32);
}
