/* rope.c - cosines and sines of one position, in double, the same on every CPU.
 *
 * No libm but fma: sin and cos differ between C libraries.  Accuracy is that of the angle's own
 * rounding; two terms of pi/2 hold for every position a model can have (|n| < 2^31 or so). */
#include "quant/quant.h"

#include <math.h>

void q_rope_angles(float *c, float *s, const double *f, double mult, int n, int64_t pos)
{
    /* Coefficients after the leading terms, highest first; 18! is still an exact double. */
    static const double S[8] = {
        1.0 / 355687428096000.0, -1.0 / 1307674368000.0, 1.0 / 6227020800.0, -1.0 / 39916800.0,
        1.0 / 362880.0, -1.0 / 5040.0, 1.0 / 120.0, -1.0 / 6.0
    };
    static const double C[8] = {
        -1.0 / 6402373705728000.0, 1.0 / 20922789888000.0, -1.0 / 87178291200.0, 1.0 / 479001600.0,
        -1.0 / 3628800.0, 1.0 / 40320.0, -1.0 / 720.0, 1.0 / 24.0
    };
    for (int i = 0; i < n; i++) {
        const double angle = (double)pos * f[i];
        const double q = (angle * 0x1.45f306dc9c883p-1 + 0x1.8p52) - 0x1.8p52;
        double r = fma(q, -0x1.921fb54442d18p+0, angle);
        r = fma(q, -0x1.1a62633145c07p-54, r);
        const double z = r * r;
        double ps = S[0], pc = C[0];
        for (int j = 1; j < 8; j++) {
            ps = fma(ps, z, S[j]);
            pc = fma(pc, z, C[j]);
        }
        const double sn = fma(r * z, ps, r);
        const double cs = fma(z * z, pc, fma(z, -0.5, 1.0));
        double vc = cs, vs = sn;
        switch ((int64_t)q & 3) {
        case 1: vc = -sn; vs = cs; break;
        case 2: vc = -cs; vs = -sn; break;
        case 3: vc = sn; vs = -cs; break;
        default: break;
        }
        c[i] = (float)(vc * mult);
        s[i] = (float)(vs * mult);
    }
}
