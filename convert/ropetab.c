/* ropetab.c - frequencies of the rotary embedding, in double, with logarithm and power of our own.
 *
 * pow and log of C libraries differ in their last bits, and those bits would be in the file.  So
 * both are made here from pairs of doubles (a value and what its rounding lost, some 100 bits in
 * all), by series whose every step is exactly rounded: slow, short, and the same everywhere.  A
 * table has at most 512 entries, so nobody waits.  frexp, floor and ceil are exact in any library.
 * The formulas are those of models.md 5.3 and 5.4, evaluated in the order written there. */
#include "convert/ropetab.h"

#include <assert.h>
#include <math.h>

/* ---- pairs of doubles: hi + lo, |lo| <= half a unit in the last place of hi ---- */

typedef struct pair { double hi, lo; } pair;

static pair sum2(double a, double b) /* exact */
{
    const double s = a + b, t = s - a;
    return (pair){ s, (a - (s - t)) + (b - t) };
}

static pair prod2(double a, double b) /* exact */
{
    const double p = a * b;
    return (pair){ p, fma(a, b, -p) };
}

static pair add(pair a, pair b)
{
    pair s = sum2(a.hi, b.hi);
    return sum2(s.hi, s.lo + (a.lo + b.lo));
}

static pair mul(pair a, pair b)
{
    pair p = prod2(a.hi, b.hi);
    return sum2(p.hi, p.lo + (a.hi * b.lo + a.lo * b.hi));
}

static pair div_by(pair a, double d)
{
    const double q = a.hi / d;
    const double rest = fma(-q, d, a.hi) + a.lo; /* the first term is exact */
    return sum2(q, rest / d);
}

/* 2^n, -1022 <= n <= 1023, by its bits in the end: exact products only. */
static double two_to(int n)
{
    double v = 1, step = n < 0 ? 0.5 : 2;
    for (int k = n < 0 ? -n : n; k; k--) v *= step;
    return v;
}

static const pair LN2 = { 0x1.62e42fefa39efp-1, 0x1.abc9e3b39803fp-56 };

/* e^x, |x| <= 700.  x = n ln 2 + r; e^r = (e^(r/512))^512, the small one by its Taylor series: nine
 * squarings cost nine bits of the hundred. */
static pair exp2p(pair x)
{
    const double n = (x.hi * 0x1.71547652b82fep+0 + 0x1.8p52) - 0x1.8p52;
    pair r = add(x, mul((pair){ -n, 0 }, LN2));
    r = (pair){ r.hi / 512, r.lo / 512 };
    pair e = { 1, 0 };
    for (int k = 10; k; k--) e = add((pair){ 1, 0 }, div_by(mul(r, e), k));
    for (int k = 0; k < 9; k++) e = mul(e, e);
    const double scale = two_to((int)n);
    return (pair){ e.hi * scale, e.lo * scale };
}

/* ln x for x > 0: a first value y good to 50 bits, then one step of Newton's, y + (x e^-y - 1),
 * whose error is the square of y's. */
static pair ln2p(double x)
{
    int e;
    double m = frexp(x, &e);
    if (m < 0x1.6a09e667f3bcdp-1) { /* sqrt(1/2): m in sqrt(1/2) .. sqrt(2) */
        m *= 2;
        e--;
    }
    const double t = (m - 1) / (m + 1), z = t * t; /* ln m = 2 atanh t, z <= 0.0295 */
    double s = 0;
    for (int k = 21; k >= 1; k -= 2) s = s * z + 1.0 / k;
    const pair y = { 2 * t * s, 0 };
    pair c = add(mul((pair){ m, 0 }, exp2p((pair){ -y.hi, 0 })), (pair){ -1, 0 });
    return add(mul((pair){ e, 0 }, LN2), add(y, c));
}

double cv_ln(double x)
{
    const pair v = ln2p(x);
    return v.hi + v.lo;
}

double cv_pow(double base, double e)
{
    const pair v = exp2p(mul(ln2p(base), (pair){ e, 0 }));
    return v.hi + v.lo;
}

/* theta^(-2i/d): the exponent as a pair too, for d that are no powers of two. */
static double frequency(pair ln_theta, int i, int dim)
{
    const pair v = exp2p(mul(ln_theta, div_by((pair){ -2.0 * i, 0 }, dim)));
    return v.hi + v.lo;
}

static const double TWO_PI = 0x1.921fb54442d18p+2;

/* Slow pairs, those that did not turn fully within the old context, are slowed by `factor`. */
static double llama3(double f, const cv_rope *r)
{
    const double len = TWO_PI / f; /* positions of one turn */
    if (len < r->orig / r->high_freq) return f;
    if (len > r->orig / r->low_freq) return f / r->factor;
    const double s = (r->orig / len - r->low_freq) / (r->high_freq - r->low_freq);
    return (1 - s) * f / r->factor + s * f;
}

/* The pair (not whole) that turns `turns` times within the old context. */
static double yarn_pair(const cv_rope *r, double turns, int dim)
{
    return dim * cv_ln(r->orig / (turns * TWO_PI)) / (2 * cv_ln(r->theta));
}

static double yarn(double f, const cv_rope *r, int i, double low, double high)
{
    double ramp = (i - low) / (high - low);
    if (ramp < 0) ramp = 0;
    if (ramp > 1) ramp = 1;
    return f / r->factor * ramp + f * (1 - ramp);
}

void cv_rope_table(double *f, const cv_rope *r, int dim)
{
    assert(dim > 0 && dim % 2 == 0 && r->theta > 1);
    const pair ln_theta = ln2p(r->theta);
    double low = 0, high = 0;
    if (r->kind == CV_ROPE_YARN) {
        low = floor(yarn_pair(r, r->beta_fast, dim));
        high = ceil(yarn_pair(r, r->beta_slow, dim));
        if (low < 0) low = 0;
        if (high > dim - 1) high = dim - 1;
        if (high == low) high += 0.001; /* no division by zero, as in the authors' code */
    }
    for (int i = 0; i < dim / 2; i++) {
        f[i] = frequency(ln_theta, i, dim);
        if (r->kind == CV_ROPE_LLAMA3) f[i] = llama3(f[i], r);
        if (r->kind == CV_ROPE_YARN) f[i] = yarn(f[i], r, i, low, high);
    }
}

double cv_yarn_magnitude(double s, double k)
{
    return s > 1 ? 0.1 * k * cv_ln(s) + 1 : 1;
}
