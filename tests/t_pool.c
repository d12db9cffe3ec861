/* t_pool.c - barriers, jobs, floating point modes and signals of the thread pool, with as many and
 * with more threads than cores. */
#define _GNU_SOURCE 1

#include "core/base/mem.h"
#include "core/base/os.h"
#include "core/base/pool.h"
#include "tests/test.h"

#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>

enum { PHASES = 60, JOBS = 37, MAXT = 40 };

/* Plain ints throughout: only the barrier orders their accesses, which is what TSan proves. */
typedef struct work {
    vq_pool *pool;
    int n;
    int done[PHASES][JOBS];     /* who did a job, plus 1 */
    int sum[MAXT];              /* one per thread, read by the others behind the barrier */
    int wrong;                  /* written by thread 0 only */
    atomic_int doubled;
} work;

static void phases(void *ctx, int t)
{
    work *w = ctx;
    for (int ph = 0; ph < PHASES; ph++) {
        int n = ph % 3 == 0 ? JOBS : ph % 3 == 1 ? 1 : w->n; /* more, fewer, as many as threads */
        if (n > JOBS) n = JOBS;
        for (int j; (j = vq_job(w->pool, t, n)) >= 0;) {
            if (j >= n || w->done[ph][j]) atomic_fetch_add(&w->doubled, 1);
            else w->done[ph][j] = t + 1;
        }
        w->sum[t] = ph + t;
        vq_barrier(w->pool, t);
        if (t == 0) {
            for (int i = 0; i < w->n; i++) w->wrong += w->sum[i] != ph + i;
            for (int j = 0; j < n; j++) w->wrong += w->done[ph][j] == 0;
        }
        vq_barrier(w->pool, t);
    }
}

static void run_phases(int n_threads, int runs)
{
    vq_pool *p;
    vq_err e;
    work *w = vq_calloc(1, sizeof *w);
    T_OK(w && vq_pool_new(&p, n_threads, &e) == VQ_OK, "%d threads", n_threads);
    T_OK(vq_pool_size(p) == n_threads, "size");
    for (int r = 0; r < runs; r++) {
        memset(w, 0, sizeof *w);
        w->pool = p;
        w->n = n_threads;
        vq_pool_run(p, phases, w);
        int twice = atomic_load(&w->doubled);
        T_OK(w->wrong == 0 && twice == 0, "%d threads, run %d: %d wrong, %d twice", n_threads, r,
             w->wrong, twice);
    }
    vq_pool_free(p);
    vq_free(w);
}

/* ---- modes ---- */

typedef struct modes {
    bool nearest[MAXT], denormals[MAXT], blocked[MAXT], fault_open[MAXT];
} modes;

/* By arithmetic: on x86-64 fegetround() reports the old x87 unit. */
static bool rounds_to_nearest(void)
{
    volatile float a = 1, b = 0x1.8p-24f;
    return a + b > 1 && -a - b < -1;
}

static void read_modes(void *ctx, int t)
{
    modes *m = ctx;
    sigset_t s;
    volatile float tiny = 0x1p-140f, half = 0.5f;
    m->nearest[t] = rounds_to_nearest();
    m->denormals[t] = tiny * half > 0;
    pthread_sigmask(SIG_BLOCK, NULL, &s);
    m->blocked[t] = sigismember(&s, SIGINT) == 1;
    m->fault_open[t] = sigismember(&s, SIGBUS) == 0;
}

static void test_modes(void)
{
    enum { N = 3 };
    vq_pool *p;
    modes m;
    T_OK(vq_pool_new(&p, N, NULL) == VQ_OK, "new");
    int old = fegetround();
    fesetround(FE_TOWARDZERO); /* a caller in a foreign mode: right inside, restored behind */
    vq_pool_run(p, read_modes, &m);
    bool kept = !rounds_to_nearest();
    fesetround(old);
    T_OK(kept, "the caller's mode is restored");
    for (int i = 0; i < N; i++) {
        T_OK(m.nearest[i] && m.denormals[i], "thread %d rounds to nearest, has denormals", i);
        T_OK(m.blocked[i] == (i > 0), "thread %d: SIGINT %d", i, m.blocked[i]);
        T_OK(m.fault_open[i], "thread %d can take SIGBUS", i);
    }
    vq_pool_free(p);
}

/* ---- parking ---- */

static void nothing(void *ctx, int t)
{
    (void)ctx, (void)t;
}

static void test_idle(void)
{
    vq_pool *p;
    T_OK(vq_pool_new(&p, 3, NULL) == VQ_OK, "new");
    for (int i = 0; i < 3; i++) {
        vq_pool_run(p, nothing, NULL);
        struct timespec pause = { 0, 30000000 }; /* long enough for everybody to fall asleep */
        nanosleep(&pause, NULL);
    }
    /* CPU time of the process while it idles: a spinning worker would use all of it.  The bound is
     * a tenth, so that a loaded machine cannot fail it: load takes CPU time away, it adds none. */
    clock_t before = clock();
    struct timespec pause = { 0, 200000000 };
    nanosleep(&pause, NULL);
    double used = (double)(clock() - before) / CLOCKS_PER_SEC;
    T_OK(used < 0.02, "%.3f s of CPU time used while idle", used);
    vq_pool_free(p);
    vq_pool_free(NULL);
}

int main(void)
{
    run_phases(1, 2);
    run_phases(2, 20);
    run_phases(3, 20);
    run_phases(5, 5);
    run_phases(MAXT, 2);
    test_modes();
    test_idle();

    vq_pool *p;
    vq_err e;
    T_OK(vq_pool_new(&p, 0, &e) == VQ_EUSAGE && !p, "no threads");
    T_OK(vq_pool_new(&p, 1 << 20, &e) == VQ_EUSAGE && !p, "too many threads");
    for (int i = 0; i < 20; i++) { /* made and freed without a run */
        T_OK(vq_pool_new(&p, 4, NULL) == VQ_OK, "new %d", i);
        vq_pool_free(p);
    }
    return t_done("t_pool");
}
