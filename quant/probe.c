/* probe.c - which of two tables multiplies many tokens faster on the core that asks.
 *
 * Having an instruction does not mean that it is fast: smmla does twice the work of sdot, at less
 * than half its rate on Apple's cores and Oryon, at the same rate on Cortex-A710 and Neoverse N2.
 * No flag tells, so the kernels themselves are timed: N4, 64 rows x 512 k x 32 tokens, a million
 * multiply-adds, 10 to 80 us a call.  The two take turns and the best of each counts, so a clock
 * that rises or another process falls on both. */
#include "quant/table.h"

#include <stdlib.h>
#include <time.h>

#if defined(__aarch64__)

enum { ROWS = 64, WIDTH = 512, TOKENS = 32, TURNS = 6 };

static double seconds(const q_kern *t, float *y, const void *w, const q_acts *x, void *tmp)
{
    struct timespec a, b;
    timespec_get(&a, TIME_UTC);
    t->gemm_n4(y, ROWS, w, ROWS, x, 0, TOKENS, tmp);
    timespec_get(&b, TIME_UTC);
    return (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
}

float q_probe_gain(const q_kern *base, const q_kern *fast)
{
    const size_t weights = ROWS / Q_ROWS * q_group_bytes(Q_N4, WIDTH);
    const size_t acts = (q_acts_bytes(TOKENS, WIDTH) + 63) / 64 * 64;
    const size_t out = sizeof(float) * ROWS * TOKENS;
    uint8_t *mem = calloc(1, Q_TMP + weights + acts + out + 64); /* zeros do as well as any */
    if (!mem) return 0;
    uint8_t *tmp = mem + (64 - (uintptr_t)mem % 64) % 64, *w = tmp + Q_TMP, *a = w + weights;
    float *y = (float *)(void *)(a + acts);
    q_acts x;
    q_acts_init(&x, a, TOKENS, WIDTH);
    double best[2] = { 1, 1 };
    for (int i = 0; i <= TURNS; i++) {
        const double t0 = seconds(base, y, w, &x, tmp), t1 = seconds(fast, y, w, &x, tmp);
        if (i == 0) continue; /* the first call pays for its pages */
        if (t0 < best[0]) best[0] = t0;
        if (t1 < best[1]) best[1] = t1;
    }
    free(mem);
    return best[0] > 0 && best[1] > 0 ? (float)(best[0] / best[1]) : 0;
}

#else

float q_probe_gain(const q_kern *base, const q_kern *fast) /* no two levels here need it */
{
    (void)base;
    (void)fast;
    return 0;
}

#endif
