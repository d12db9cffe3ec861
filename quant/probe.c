/* probe.c - which of two tables multiplies many tokens faster on the core that asks.
 *
 * Having an instruction does not mean that it is fast: smmla does twice the work of sdot, at less
 * than half its rate on Apple's cores and Oryon, at the same rate on Cortex-A710 and Neoverse N2.
 * No flag tells, so the kernels themselves are timed: N4, 64 rows x 512 k x 16 tokens, half a
 * million multiply-adds, 10 to 60 us a call.  The two take turns and the best of each counts, so a
 * clock that rises or another process falls on both.  16 tokens are below a panel's: the call needs
 * no scratch, and all it works on fits the stack of any thread. */
#include "quant/table.h"

#include <string.h>
#include <time.h>

#if defined(__aarch64__)

enum { ROWS = 64, WIDTH = 512, TOKENS = 16, TURNS = 8 };

static double seconds(const q_kern *t, float *y, const void *w, const q_acts *x)
{
    struct timespec a, b;
    timespec_get(&a, TIME_UTC);
    t->gemm_n4(y, ROWS, w, ROWS, x, 0, TOKENS, NULL);
    timespec_get(&b, TIME_UTC);
    return (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
}

float q_probe_gain(const q_kern *base, const q_kern *fast)
{
    enum { TILES = WIDTH / Q_TILE, GROUP = 64 + TILES * 576 };
    struct {
        uint8_t w[ROWS / Q_ROWS][GROUP];
        uint8_t acts[TILES * TOKENS * 128]; /* more than q_acts_bytes */
        float y[ROWS * TOKENS];
    } m __attribute__((aligned(64)));
    memset(&m, 0, sizeof m); /* no kernel looks at values */
    q_acts x;
    if (q_group_bytes(Q_N4, WIDTH) != GROUP) return 0;
    if (q_acts_bytes(TOKENS, WIDTH) > sizeof m.acts) return 0;
    q_acts_init(&x, m.acts, TOKENS, WIDTH);
    double best[2] = { 1, 1 };
    for (int i = 0; i <= TURNS; i++) {
        const double t0 = seconds(base, m.y, m.w, &x), t1 = seconds(fast, m.y, m.w, &x);
        if (i == 0) continue; /* the first calls wake the units up */
        if (t0 < best[0]) best[0] = t0;
        if (t1 < best[1]) best[1] = t1;
    }
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
