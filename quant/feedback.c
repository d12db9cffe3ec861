/* feedback.c - enc 2: codes that make up for each other's errors.
 *
 * enc 1 brings every weight as near as its grid allows.  What counts is the output, and its mean
 * squared error over inputs x is e' H e, e being the errors of a row and H = mean x x'.  Written as
 * H = U D U' with a unit upper triangle U, that is the sum over k of d[k] * r[k]^2 with
 *
 *   r[k] = e[k] + sum over j < k of e[j] * U[j][k]
 *
 * so, going through k in order, what the errors so far do to r[k] is known when k gets its code,
 * and the code is chosen that takes it back.  H is known in blocks along the diagonal (q_moments);
 * what lies outside is taken for 0.
 *
 * A sub-block is chosen whole: sub-scales around the best fit to w plus what was fed back, of both
 * signs, each try coding the sub-block with feedback inside; the smallest sum of d * r^2 wins.  The
 * row scale is fitted to the codes (in the same measure), then all is done once more under it.
 * Lanes are rows, every sum runs over k ascending, only + - * / occur: the bytes depend on weights
 * and moments alone. */
#include "quant/encode.h"

#include "quant/scalar.h"
#include "quant/t16.h"

enum { LANES = Q_ROWS, SUB = Q_ENC_SUB, CELLS = 256, FOUR = 4 };

/* ---- moments ---- */

/* One block in double: right-looking, from the last column to the first. */
static void factor_block(float *h, size_t ld, float *d, int n, double damp, double *a)
{
    double *u = a + (size_t)n * (size_t)n; /* (n) column of U */
    for (int i = 0; i < n; i++) {
        double *row = a + (size_t)i * (size_t)n;
        for (int j = i; j < n; j++) row[j] = (double)h[(size_t)i * ld + (size_t)j];
        row[i] += damp;
    }
    for (int k = n - 1; k >= 0; k--) {
        const double dk = a[(size_t)k * (size_t)n + (size_t)k];
        d[k] = (float)dk;
        for (int i = 0; i < k; i++) {
            u[i] = a[(size_t)i * (size_t)n + (size_t)k] / dk;
            h[(size_t)i * ld + (size_t)k] = (float)u[i];
        }
        for (int i = 0; i < k; i++) {
            double *row = a + (size_t)i * (size_t)n;
            const double c = u[i] * dk;
            for (int j = i; j < k; j++) row[j] -= c * u[j];
        }
    }
}

size_t q_moments_tmp(int block)
{
    return ((size_t)block * (size_t)block + (size_t)block) * sizeof(double);
}

/* Inputs that calibration never saw, or that always come together, leave H singular: a hundredth
 * of the mean square on its diagonal makes it positive, and says how far the text is trusted. */
void q_moments_factor(q_moments *m, int b, void *tmp)
{
    const int k0 = b * m->block, n = m->k - k0 < m->block ? m->k - k0 : m->block;
    float *h = m->h + (size_t)k0 * (size_t)m->block;
    double mean = 0.0;
    for (int i = 0; i < n; i++) mean += (double)h[(size_t)i * (size_t)m->block + (size_t)i];
    mean /= (double)n;
    factor_block(h, (size_t)m->block, m->d + k0, n, mean > 0.0 ? 0.01 * mean : 1.0, tmp);
}

/* ---- the rows ---- */

typedef float lane[LANES];

typedef struct work {
    q_enc in;
    const q_moments *m;
    float g[CELLS];         /* as in ref_encode.c */
    uint8_t cell_code[CELLS];
    lane *w, *e;            /* (k padded) normalised weights; their errors so far */
    lane *full;             /* (k) sum over j <= k of w[j] * U[j][k]: r if all codes were 0 */
    uint8_t (*code)[LANES]; /* (k padded) */
    lane scale;             /* row scales of normalised weights */
} work;

size_t q_feedback_tmp(int type, int k)
{
    const size_t kp = (size_t)q_pad_k(type, k);
    return sizeof(work) + kp * (3 * sizeof(lane) + LANES) + 64;
}

/* acc[i] += sum over j in [j0, j1) of x[j] * U[j][k0 + i], i < 4. */
static inline void feed(const q_moments *m, lane *restrict acc, const lane *restrict x, int j0,
                        int j1, int k0)
{
    const float *u = m->h + (size_t)j0 * (size_t)m->block + (size_t)(k0 % m->block);
    lane a[FOUR];
    memcpy(a, acc, sizeof a);
    for (int j = j0; j < j1; j++, u += m->block)
        for (int i = 0; i < FOUR; i++)
            for (int r = 0; r < LANES; r++) a[i][r] += x[j][r] * u[i];
    memcpy(acc, a, sizeof a);
}

/* acc (n) = w plus what x of the earlier sub-blocks feeds to the columns from k0. */
static void before(const work *o, lane acc[SUB], const lane *w, const lane *x, int k0, int n)
{
    memset(acc, 0, SUB * sizeof(lane));
    memcpy(acc, w + k0, (size_t)n * sizeof(lane));
    for (int i = 0; i < n; i += FOUR)
        feed(o->m, acc + i, x, k0 - k0 % o->m->block, k0, k0 + i);
}

/* ---- one sub-block ---- */

typedef struct attempt {
    lane e[SUB], sum;       /* errors; sum of d * r^2 */
    uint8_t code[SUB][LANES];
} attempt;

static inline void nearest(const work *o, float *restrict g, uint8_t *restrict code,
                           const float *restrict x, const float *restrict inv)
{
    if (o->in.grid) {
        for (int r = 0; r < LANES; r++) {
            float c = x[r] * inv[r] * 2.0f + 128.0f;
            c = c > 0.0f ? c : 0.0f;
            c = c < 255.0f ? c : 255.0f;
            const int cell = (int)c;
            g[r] = o->g[cell];
            code[r] = o->cell_code[cell];
        }
        return;
    }
    const float lo = o->in.lo, hi = o->in.hi;
    const int zero = o->in.type == Q_L6 ? 32 : 0;
    for (int r = 0; r < LANES; r++) {
        float c = x[r] * inv[r];
        c = c > lo ? c : lo;
        c = c < hi ? c : hi;
        g[r] = q_rne(c);
        code[r] = (uint8_t)((int)g[r] + zero);
    }
}

/* Pairs: points that the table has for (x, y) * inv, as enc 1 looks them up. */
static inline void table_points(const work *o, float *restrict g, float *restrict h,
                                const float *restrict x, const float *restrict y,
                                const float *restrict inv)
{
    const float lo = -Q_ENC_CELL, hi = Q_ENC_CELL - 1;
    const int16_t *middle = q_enc_middle(&o->in);
    for (int r = 0; r < LANES; r++) {
        float a = x[r] * inv[r], b = y[r] * inv[r];
        a = a > lo ? a : lo;
        a = a < hi ? a : hi;
        b = b > lo ? b : lo;
        b = b < hi ? b : hi;
        const int e = middle[q_enc_cell(q_rnei(a), q_rnei(b))];
        g[r] = (float)(int8_t)(e & 255);
        h[r] = (float)(e >> 8);
    }
}

/* Column i of a sub-block: `to` and what the errors of the first `n` columns feed to it. */
static inline void feed_inside(const work *o, float *restrict x, const attempt *a, const lane *to,
                               const float *u, int i, int n)
{
    const size_t ld = (size_t)o->m->block;
    memcpy(x, to[i], sizeof(lane));
    for (int j = 0; j < n; j++)
        for (int r = 0; r < LANES; r++) x[r] += a->e[j][r] * u[(size_t)j * ld + (size_t)i];
}

/* The point of a pair is the one of all that leaves the least of both columns, the second having
 * what the first feeds to it.  A column behind the last counts nothing. */
static void attempt_points(const work *o, attempt *a, const lane *to, const float *sigma, int k0,
                           int n, const float *u)
{
    for (int i = 0; i < n; i += 2) {
        lane x, y, least;
        const float *w = o->w[k0 + i], *v = o->w[k0 + i + 1];
        const float d = o->m->d[k0 + i], d2 = i + 1 < n ? o->m->d[k0 + i + 1] : 0.0f;
        const float up = i + 1 < n ? u[(size_t)i * (size_t)o->m->block + (size_t)i + 1] : 0.0f;
        feed_inside(o, x, a, to, u, i, i);
        feed_inside(o, y, a, to, u, i + 1, i);
        for (int r = 0; r < LANES; r++) {
            least[r] = 0x1p120f;
            a->code[i][r] = 0;
        }
        for (int p = 0; p < o->in.n_point; p++) {
            const float px = o->in.px[p], py = o->in.py[p];
            for (int r = 0; r < LANES; r++) {
                const float q = px * sigma[r], left = x[r] - q;
                const float left2 = y[r] + (w[r] - q) * up - py * sigma[r];
                const float sum = d * left * left + d2 * left2 * left2;
                const int better = sum < least[r];
                least[r] = better ? sum : least[r];
                a->code[i][r] = better ? (uint8_t)p : a->code[i][r];
            }
        }
        for (int r = 0; r < LANES; r++) {
            const int p = a->code[i][r];
            a->e[i][r] = w[r] - o->in.px[p] * sigma[r];
            a->e[i + 1][r] = v[r] - o->in.py[p] * sigma[r];
            a->sum[r] += least[r];
        }
    }
}

/* Codes n columns from k0 under sigma; to: w plus what was fed back from before. */
static void attempt_codes(const work *o, attempt *a, const lane *to, const float *sigma, int k0,
                          int n)
{
    const size_t ld = (size_t)o->m->block;
    const float *u = o->m->h + (size_t)k0 * ld + (size_t)(k0 % o->m->block);
    lane inv;
    for (int r = 0; r < LANES; r++) {
        inv[r] = sigma[r] != 0.0f ? 1.0f / sigma[r] : 0.0f;
        a->sum[r] = 0.0f;
    }
    if (o->in.n_point) {
        attempt_points(o, a, to, sigma, k0, n, u);
        return;
    }
    for (int i = 0; i < n; i++) {
        lane x, g;
        feed_inside(o, x, a, to, u, i, i);
        nearest(o, g, a->code[i], x, inv);
        const float d = o->m->d[k0 + i];
        for (int r = 0; r < LANES; r++) {
            const float q = g[r] * sigma[r], left = x[r] - q;
            a->e[i][r] = o->w[k0 + i][r] - q;
            a->sum[r] += d * left * left;
        }
    }
}

/* Of places on one side of the grid the best real sigma for `to`, as enc 1 finds it. */
static void fit(const work *o, float *sigma, const lane *to, int k0, int n, bool negative)
{
    lane top, mag, best;
    for (int r = 0; r < LANES; r++) top[r] = mag[r] = best[r] = sigma[r] = 0.0f;
    for (int i = 0; i < n; i++)
        for (int r = 0; r < LANES; r++) {
            const float a = fabsf(to[i][r]);
            top[r] = a > mag[r] ? to[i][r] : top[r];
            mag[r] = a > mag[r] ? a : mag[r];
        }
    for (int r = 0; r < LANES; r++) top[r] = mag[r] >= Q_ENC_VANISHING ? 1.0f / top[r] : 0.0f;
    for (int p = 0; p < o->in.n_place; p++) {
        lane inv, wg, gg, g[2];
        if ((o->in.place[p] < 0.0f) != negative) continue;
        for (int r = 0; r < LANES; r++) {
            inv[r] = o->in.place[p] * top[r];
            wg[r] = gg[r] = 0.0f;
        }
        for (int i = 0; i < n; i++) {
            uint8_t code[LANES];
            if (!o->in.n_point) nearest(o, g[i % 2], code, to[i], inv);
            else if (i % 2 == 0) table_points(o, g[0], g[1], to[i], to[i + 1], inv);
            const float d = o->m->d[k0 + i];
            for (int r = 0; r < LANES; r++) {
                const float dg = d * g[i % 2][r];
                wg[r] += to[i][r] * dg;
                gg[r] += g[i % 2][r] * dg;
            }
        }
        for (int r = 0; r < LANES; r++) {
            const float s = wg[r] / (gg[r] > 0.0f ? gg[r] : 1.0f), gain = wg[r] * s;
            sigma[r] = gain > best[r] ? s : sigma[r];
            best[r] = gain > best[r] ? gain : best[r];
        }
    }
}

static void choose_block(work *o, int8_t *s8, int k0, int n)
{
    lane to[SUB], sigma, s;
    attempt best, a;
    before(o, to, (const lane *)o->w, (const lane *)o->e, k0, n);
    for (int r = 0; r < LANES; r++) s[r] = sigma[r] = 0.0f;
    attempt_codes(o, &best, (const lane *)to, sigma, k0, n); /* all weights 0 */
    memset(s8, 0, LANES);
    for (int side = o->in.type == Q_L8; side < 2; side++) {
        lane mid;
        fit(o, mid, (const lane *)to, k0, n, side == 0);
        for (int r = 0; r < LANES; r++)
            mid[r] = o->scale[r] > 0.0f ? q_rne(mid[r] / o->scale[r]) : 0.0f;
        for (int step = -1; step <= 1; step++) {
            for (int r = 0; r < LANES; r++) {
                s[r] = mid[r] + (float)step;
                s[r] = s[r] < -127.0f ? -127.0f : s[r] > 127.0f ? 127.0f : s[r];
                sigma[r] = o->scale[r] * s[r];
            }
            attempt_codes(o, &a, (const lane *)to, sigma, k0, n);
            for (int r = 0; r < LANES; r++) {
                if (!(a.sum[r] < best.sum[r])) continue;
                best.sum[r] = a.sum[r];
                s8[r] = (int8_t)s[r];
                for (int i = 0; i < n; i++) {
                    best.e[i][r] = a.e[i][r];
                    best.code[i][r] = a.code[i][r];
                }
            }
        }
    }
    memcpy(o->e + k0, best.e, (size_t)n * sizeof(lane));
    memcpy(o->code + k0, best.code, (size_t)n * LANES);
}

/* ---- a row group ---- */

static int8_t *sub_scales(const work *o, uint8_t *tiles, int i)
{
    return (int8_t *)tiles + (size_t)(i / Q_ENC_SUBS) * o->in.tile_bytes + LANES * (i % Q_ENC_SUBS);
}

static int columns(const work *o, int i)
{
    const int left = o->in.k - i * o->in.sub;
    return left < o->in.sub ? left > 0 ? left : 0 : o->in.sub;
}

/* acc (n) = x[k] + sum over j < k of x[j] * U[j][k] of the columns from k0. */
static void through(const work *o, lane acc[SUB], const lane *x, int k0, int n)
{
    const size_t ld = (size_t)o->m->block;
    const float *u = o->m->h + (size_t)k0 * ld + (size_t)(k0 % o->m->block);
    before(o, acc, x, x, k0, n);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++)
            for (int r = 0; r < LANES; r++)
                acc[i][r] += x[k0 + j][r] * u[(size_t)j * ld + (size_t)i];
}

/* What to multiply the row scales by, so that the codes serve best: r without codes is `full`, and
 * what the codes take off it is q = full - r; so sum d * full * q / sum d * q^2. */
static void refit(const work *o, double mul[LANES])
{
    double num[LANES] = { 0 }, den[LANES] = { 0 };
    for (int i = 0, n; (n = columns(o, i)) > 0; i++) {
        const int k0 = i * o->in.sub;
        lane left[SUB];
        through(o, left, (const lane *)o->e, k0, n);
        for (int a = 0; a < n; a++) {
            const double d = (double)o->m->d[k0 + a];
            for (int r = 0; r < LANES; r++) {
                const double f = (double)o->full[k0 + a][r], q = f - (double)left[a][r];
                num[r] += d * f * q;
                den[r] += d * q * q;
            }
        }
    }
    for (int r = 0; r < LANES; r++) mul[r] = den[r] > 0.0 && num[r] > 0.0 ? num[r] / den[r] : 0.0;
}

static void load(work *o)
{
    const q_enc *in = &o->in;
    memset(o->w, 0, (size_t)(in->n_tile * Q_ENC_SUBS * in->sub) * sizeof(lane));
    for (int r = 0; r < in->n; r++) {
        const float *p = in->src + (size_t)r * in->ld;
        for (int k = 0; k < in->k; k++) o->w[k][r] = p[k] * in->mul[r] * in->mul2[r];
    }
}

static void choose_all(work *o, uint8_t *tiles)
{
    memset(o->e, 0, (size_t)(o->in.n_tile * Q_ENC_SUBS * o->in.sub) * sizeof(lane));
    for (int i = 0; i < o->in.n_tile * Q_ENC_SUBS; i++) {
        const int n = columns(o, i);
        if (n) choose_block(o, sub_scales(o, tiles, i), i * o->in.sub, n);
        else memset(sub_scales(o, tiles, i), 0, LANES); /* padding only */
    }
}

static int nearest_to_none(const work *o)
{
    float least = 0x1p30f;
    int code = 0;
    for (int p = 0; p < o->in.n_point; p++) {
        const float d = o->in.px[p] * o->in.px[p] + o->in.py[p] * o->in.py[p];
        if (d >= least) continue;
        least = d;
        code = p;
    }
    return code;
}

/* Columns behind the last get the code nearest to 0, as in enc 1. */
static void pack(const work *o, uint8_t *tiles)
{
    void (*const put)(int, uint8_t *, int, int, int) =
        o->in.n_point ? q_enc_put_point : q_enc_put;
    static const lane none = { 0 };
    lane g;
    uint8_t zero[LANES];
    const int step = o->in.n_point ? 2 : 1;
    if (o->in.n_point) memset(zero, nearest_to_none(o), sizeof zero);
    else nearest(o, g, zero, none, none);
    for (int t = 0; t < o->in.n_tile; t++)
        memset(tiles + (size_t)t * o->in.tile_bytes + 64, 0, o->in.tile_bytes - 64);
    for (int i = 0; i < o->in.n_tile * Q_ENC_SUBS; i++) {
        uint8_t *tile = tiles + (size_t)(i / Q_ENC_SUBS) * o->in.tile_bytes;
        const int8_t *s8 = sub_scales(o, tiles, i);
        const int n = columns(o, i);
        for (int a = 0; a < o->in.sub; a += step)
            for (int r = 0; r < LANES; r++) {
                const int code = a < n ? o->code[i * o->in.sub + a][r] : zero[r];
                if (s8[r]) put(o->in.type, tile, i % Q_ENC_SUBS * o->in.sub + a, r, code);
            }
    }
}

void q_feedback_codes(const q_kern *t, uint8_t *out, const q_enc *in, const q_moments *m,
                      double err2[2], void *tmp)
{
    work *o = tmp;
    uint8_t *tiles = out + 64;
    const size_t kp = (size_t)in->n_tile * Q_ENC_SUBS * (size_t)in->sub;
    lane stored;
    double num[LANES], den[LANES];
    o->in = *in;
    o->m = m;
    o->w = (lane *)(((uintptr_t)(o + 1) + 63) / 64 * 64);
    o->e = o->w + kp;
    o->full = o->e + kp;
    o->code = (uint8_t (*)[LANES])(o->full + kp);
    for (int i = 0; in->grid && i < CELLS; i++) {
        o->cell_code[i] = (uint8_t)q_enc_code(in, i);
        o->g[i] = (float)in->grid[o->cell_code[i]];
    }
    load(o);
    for (int i = 0, n; (n = columns(o, i)) > 0; i++) {
        lane acc[SUB];
        through(o, acc, (const lane *)o->w, i * in->sub, n);
        memcpy(o->full + i * in->sub, acc, (size_t)n * sizeof(lane));
    }
    t->enc_fit(in, tiles, stored); /* the largest sigma of each row */
    for (int r = 0; r < LANES; r++) {
        stored[r] = stored[r] > 0.0f ? q_enc_stored(in, (double)stored[r] / 127.0, in->unit[r]) : 0;
        o->scale[r] = (float)((double)stored[r] / in->unit[r]);
    }
    for (int pass = 0; pass < 2; pass++) {
        choose_all(o, tiles);
        refit(o, num);
        for (int r = 0; r < LANES; r++) {
            stored[r] = num[r] > 0.0
                ? q_enc_stored(in, (double)o->scale[r] * num[r], in->unit[r]) : 0.0f;
            o->scale[r] = (float)((double)stored[r] / in->unit[r]);
        }
    }
    memcpy(out, stored, sizeof stored);
    pack(o, tiles);
    q_enc_measure(in, tiles, stored, num, den);
    for (int r = 0; r < in->n; r++) {
        err2[0] += num[r];
        err2[1] += den[r];
    }
}
