/* roof.c - portable limit loops and the choice among levels (roof.h). */
#include "quant/roof.h"

#include "quant/quant.h"

#include <string.h>

static uint32_t read_ref(const void *p, size_t n)
{
    const uint8_t *b = p;
    uint64_t s[8] = { 0 };
    for (size_t i = 0; i + 64 <= n; i += 64) {
        uint64_t v[8];
        memcpy(v, b + i, sizeof v);
        for (int j = 0; j < 8; j++) s[j] ^= v[j];
    }
    uint64_t t = s[0] ^ s[1] ^ s[2] ^ s[3] ^ s[4] ^ s[5] ^ s[6] ^ s[7];
    return (uint32_t)(t ^ t >> 32);
}

/* Dot products of 64 small numbers in the form that compilers know as one: widened to 16 bits, most
 * have an instruction that adds two products, and the reference's loops are made of it as well. */
static uint64_t int8_ref(uint64_t rounds, uint32_t *sink)
{
    enum { N = 64 };
    volatile int16_t seed = 3;
    int16_t a[N], w[N];
    for (int i = 0; i < N; i++) {
        a[i] = (int16_t)(seed + i);
        w[i] = (int16_t)(seed - i);
    }
    uint32_t s = 0;
    for (uint64_t r = 0; r < rounds; r++) {
        int32_t sum = 0;
        for (int i = 0; i < N; i++) sum += a[i] * w[i];
        s += (uint32_t)sum;
        w[r % N] ^= 1; /* or the compiler multiplies by `rounds` once */
    }
    *sink ^= s;
    return rounds * N;
}

void q_roof_make(q_roof *r, const char *level)
{
    const char *names[8];
    const int n = q_cpu_levels(names);
    r->read = read_ref;
    r->int8 = int8_ref;
    for (int i = 0; i < n; i++) {
        if (!strcmp(names[i], "avx2")) q_roof_avx2(r);
        if (!strcmp(names[i], "avxvnni")) q_roof_avxvnni(r);
        if (!strcmp(names[i], "avx512vnni")) q_roof_avx512vnni(r);
        if (!strcmp(names[i], "amx")) q_roof_amx(r);
        if (!strcmp(names[i], "neon")) q_roof_neon(r);
        if (!strcmp(names[i], "dotprod")) q_roof_dotprod(r);
        if (!strcmp(names[i], "i8mm")) q_roof_i8mm(r);
        if (level && !strcmp(names[i], level)) break;
    }
}
