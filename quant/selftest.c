/* selftest.c - does this build compute as arith 1 demands?
 *
 * Operands pass through volatiles, so the compiler computes nothing at build time and contracts
 * here what it would contract elsewhere: this file is built with the flags of every other file. */
#include "quant/scalar.h"

#include "quant/quant.h"

const char *q_selftest(void)
{
    /* (1 + 2^-12)^2 = 1 + 2^-11 + 2^-24.  A float product loses the last term (a tie, to even); it
     * is all that an fma leaves. */
    volatile float a = 1.0f + 0x1p-12f, ac = -(1.0f + 0x1p-11f);
    if (a * a + ac != 0.0f) return "the compiler contracts a * b + c: build with -ffp-contract=off";
    if (fmaf(a, a, ac) != 0x1p-24f) return "fmaf of this C library rounds the product";
    volatile double b = 1.0 + 0x1p-27, bc = -(1.0 + 0x1p-26);
    if (b * b + bc != 0.0) return "the compiler contracts a * b + c: build with -ffp-contract=off";
    if (fma(b, b, bc) != 0x1p-54) return "fma of this C library rounds the product";

    /* The exact sum lies 2^-56 below the middle of 1 + 2^-23 and 1 + 2^-22.  Rounded to double
     * first it is the middle, and the tie goes up. */
    volatile float p = 1.0f + 0x1p-16f, q = 0x1p-24f * (1.0f - 0x1p-16f), odd = 1.0f + 0x1p-23f;
    if (fmaf(p, q, odd) != odd) return "fmaf of this C library rounds twice";

    volatile float small = 0x1p-126f, half = 0.5f, denormal = 0x1p-140f, large = 0x1p20f;
    if (small * half != 0x1p-127f || denormal * large != 0x1p-120f)
        return "denormal numbers are flushed to zero: build without -ffast-math";
    volatile float one = 1.0f, tie = 0x1p-24f;
    if (one + tie != 1.0f || -one - tie != -1.0f || odd + tie != 1.0f + 0x1p-22f)
        return "floats are not rounded to nearest even";
    volatile float two = 2.0f, three = 3.0f;
    if (sqrtf(two) != 0x1.6a09e6p+0f || one / three != 0x1.555556p-2f)
        return "sqrt or division is not exactly rounded";
    return NULL;
}
