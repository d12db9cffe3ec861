/* pool.c - the thread pool: one barrier, one job counter.
 *
 * A step of a token has some tens of phases of a few hundred microseconds each, so a barrier must
 * cost about what a cache line costs to travel: arrivals are counted in one atomic, and the last to
 * arrive raises the epoch on which the others wait.  They spin while that pays, then sleep on a
 * condition variable.  How long it pays is learned: the length of a spin that ended well sets the
 * thread's next budget, one in vain halves it.  On an idle machine threads so meet without a system
 * call; when other processes eat the cores, a thread whose partner was preempted gives its core
 * away at once, and a scheduler prefers those who slept.  (Yielding instead loses a time slice
 * whenever somebody else wants the core: 3.3 ms per phase of 85 us, beside one busy process per
 * core on 2 cores of a Zen 5, where sleeping takes 230 us.)
 *
 * A run is nothing more than two barriers: workers wait at the first for work, the caller's arrival
 * lets everybody go, the second ends the run.  The invariant behind all plain fields (fn, ctx,
 * next of a thread): they are written before an arrival and read behind it, and every arrival
 * happens before every departure.  For the same reason the job counter needs no rotation: at the
 * moment the last thread arrives nobody is inside vq_job, so that thread may reset it.
 *
 * Jobs go out in runs of neighbours, each a share of what is left, down to single ones: a thread
 * that streams weights then has few ends where what it asked memory for ahead of time was in vain
 * (N4 on two cores of an Emerald Rapids: 23 GB/s by single jobs of 56 KB, 25 by runs of 16), and
 * the last to finish still holds up the others for one job only. */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE 1
#endif

#include "core/base/pool.h"

#include "core/base/mem.h"
#include "core/base/os.h"

#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

enum {
    LINE = 64,
    SPINS_MIN = 50,         /* pauses: 2-7 thousand cycles on x86, some trips of a cache line ... */
    SPINS_MAX = 1600,       /* ... and some 20-60 us, about what falling asleep and waking costs */
    PROBE = 32,             /* waits in vain until the longest is tried again */
    STACK = 1 << 20,        /* musl's default of 128 KiB is tight for sanitizers */
    SHARE = 4,              /* a run of jobs: this part of a thread's part of what is left */
    MAX_THREADS = 1024
};

/* What one thread knows; a line of its own, since `next` changes with every phase. */
typedef struct worker {
    alignas(LINE) vq_pool *pool;
    pthread_t id;
    int index;
    int next, end;          /* jobs that are this thread's; next is -1 until it has taken any, in
                             * a pool of one it is the job counter itself */
    int spins;              /* budget of the next wait, SPINS_MIN to SPINS_MAX */
    int in_vain;            /* spins since the last that ended well */
} worker;

struct vq_pool {
    int n;                  /* threads, the caller included */
    bool spin;              /* false when threads outnumber cores: who spins holds up another */
    bool keep;              /* the workers stay on the cores of `fast` */
    bool stop;
    vq_fast fast;
    vq_pool_fn *fn;
    void *ctx;
    worker *worker;         /* (n) */
    pthread_mutex_t lock;   /* of the condition; held while the pool is built */
    pthread_cond_t raised;
    pthread_mutex_t monitor;
    pthread_cond_t changed;

    alignas(LINE) atomic_int arrived;
    alignas(LINE) atomic_uint epoch;    /* barriers passed, modulo 2^32 */
    atomic_int sleeping;                /* threads that sleep, or are about to */
    alignas(LINE) atomic_int job;       /* jobs handed out beyond each thread's first */
};

/* ---- floating point modes: round to nearest, denormals kept, all exceptions masked ---- */

#if defined(__x86_64__)
typedef unsigned fp_mode;
static fp_mode fp_get(void) { return _mm_getcsr(); }
static void fp_put(fp_mode m) { _mm_setcsr(m); }
static const fp_mode FP_EXACT = 0x1f80;
#elif defined(__aarch64__)
typedef uint64_t fp_mode;
static fp_mode fp_get(void)
{
    fp_mode m;
    __asm__ volatile("mrs %0, fpcr" : "=r"(m));
    return m;
}
static void fp_put(fp_mode m) { __asm__ volatile("msr fpcr, %0" : : "r"(m)); }
static const fp_mode FP_EXACT = 0;
#else
typedef int fp_mode; /* C starts every program and thread in this mode */
static fp_mode fp_get(void) { return 0; }
static void fp_put(fp_mode m) { (void)m; }
static const fp_mode FP_EXACT = 0;
#endif

static void spin_pause(void)
{
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb"); /* "yield" is a nop on most cores; isb waits some tens of cycles */
#endif
}

/* ---- barrier ---- */

/* Spins for the thread's budget; true when the epoch moved on.  Sets the next budget. */
static bool spin(const vq_pool *p, worker *w, unsigned old)
{
    for (int i = 0; i < w->spins; i++) {
        if (atomic_load_explicit(&p->epoch, memory_order_acquire) != old) {
            int next = w->spins - w->spins / 8;
            if (next < 2 * i) next = 2 * i;
            if (next < SPINS_MIN) next = SPINS_MIN;
            w->spins = next < SPINS_MAX ? next : SPINS_MAX;
            w->in_vain = 0;
            return true;
        }
        spin_pause();
    }
    w->spins = w->spins / 2 > SPINS_MIN ? w->spins / 2 : SPINS_MIN;
    if (++w->in_vain % PROBE == 0) w->spins = SPINS_MAX;
    return false;
}

/* Waits until the epoch is no longer `old`. */
static void wait_epoch(vq_pool *p, worker *w, unsigned old)
{
    if (p->spin && spin(p, w, old)) return;
    /* `sleeping` is raised before the epoch is looked at, and the one who raises the epoch looks at
     * `sleeping` afterwards, all in one order of sequentially consistent operations: one of the two
     * must see the other.  The lock closes the gap between the look and the sleep. */
    atomic_fetch_add(&p->sleeping, 1);
    pthread_mutex_lock(&p->lock);
    while (atomic_load(&p->epoch) == old) pthread_cond_wait(&p->raised, &p->lock);
    pthread_mutex_unlock(&p->lock);
    atomic_fetch_sub(&p->sleeping, 1);
}

void vq_barrier(vq_pool *p, int thread)
{
    worker *w = &p->worker[thread];
    if (p->n == 1) {
        w->next = 0;
        return;
    }
    w->next = -1;
    unsigned old = atomic_load_explicit(&p->epoch, memory_order_relaxed);
    int before = atomic_fetch_add_explicit(&p->arrived, 1, memory_order_acq_rel);
    if (before + 1 < p->n) {
        wait_epoch(p, w, old);
        return;
    }
    atomic_store_explicit(&p->arrived, 0, memory_order_relaxed);
    atomic_store_explicit(&p->job, 0, memory_order_relaxed);
    /* Not a plain store: stlr and a later ldar keep their order on AArch64, but emulators on x86
     * are known to translate them without a barrier in between, and then both sides miss each
     * other. */
    atomic_fetch_add(&p->epoch, 1);
    if (atomic_load(&p->sleeping)) {
        /* Whoever looked at the epoch before we raised it is asleep once we have had the lock. */
        pthread_mutex_lock(&p->lock);
        pthread_mutex_unlock(&p->lock);
        pthread_cond_broadcast(&p->raised);
    }
}

static int run_of(const vq_pool *p, int left)
{
    const int run = left / (SHARE * p->n);
    return run > 1 ? run : 1;
}

/* The first run of each thread goes by its number, the others to who comes first: most phases have
 * few runs per thread, and so a good part of them is had without touching a shared line. */
static bool take_run(vq_pool *p, worker *w, int n)
{
    const int first = run_of(p, n), rest = n - p->n * first;
    if (w->next < 0) {
        w->next = w->index < n / first ? w->index * first : n; /* fewer runs than threads */
        w->end = n - w->next < first ? n : w->next + first;
        if (w->next < w->end) return true;
    }
    int given = atomic_load_explicit(&p->job, memory_order_relaxed), run;
    do {
        if (given >= rest) return false;
        run = run_of(p, rest - given);
    } while (!atomic_compare_exchange_weak_explicit(&p->job, &given, given + run,
                                                    memory_order_relaxed, memory_order_relaxed));
    w->next = p->n * first + given;
    w->end = w->next + run;
    return true;
}

int vq_job(vq_pool *p, int thread, int n)
{
    worker *w = &p->worker[thread];
    if (p->n == 1) return w->next < n ? w->next++ : -1;
    if ((w->next < 0 || w->next == w->end) && !take_run(p, w, n)) return -1;
    return w->next++;
}

/* ---- runs ---- */

static void *worker_main(void *arg)
{
    worker *w = arg;
    vq_pool *p = w->pool;
    fp_put(FP_EXACT);
    pthread_mutex_lock(&p->lock); /* until vq_pool_new has settled p->n */
    pthread_mutex_unlock(&p->lock);
    if (p->keep) vq_thread_keep(&p->fast);
    for (;;) {
        vq_barrier(p, w->index);
        if (p->stop) return NULL;
        p->fn(p->ctx, w->index);
        vq_barrier(p, w->index);
    }
}

void vq_pool_run(vq_pool *p, vq_pool_fn *fn, void *ctx)
{
    fp_mode mode = fp_get();
    fp_put(FP_EXACT);
    if (p->n == 1) {
        p->worker[0].next = 0;
        fn(ctx, 0);
    } else {
        p->fn = fn;
        p->ctx = ctx;
        vq_barrier(p, 0);
        fn(ctx, 0);
        vq_barrier(p, 0);
    }
    fp_put(mode);
}

/* Signals belong to the caller's threads: a worker that ran a handler would hold up a barrier.
 * Those that a thread raises itself stay open: blocked, they would end the process at once, and
 * SIGBUS has a meaning here (os_posix.c). */
static void block_signals(sigset_t *old)
{
    sigset_t all;
    sigfillset(&all);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGILL);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGABRT);
    sigdelset(&all, SIGTRAP);
    pthread_sigmask(SIG_BLOCK, &all, old);
}

vq_status vq_pool_new_on(vq_pool **out, int n_threads, const vq_fast *fast, vq_err *e)
{
    *out = NULL;
    if (n_threads < 1 || n_threads > MAX_THREADS) {
        return vq_fail(e, VQ_EUSAGE, "%d threads: must be from 1 to %d", n_threads, MAX_THREADS);
    }
    vq_pool *p = vq_aligned(LINE, sizeof *p);
    worker *w = vq_aligned(LINE, (size_t)n_threads * sizeof *w);
    if (!p || !w) {
        vq_aligned_free(p);
        vq_aligned_free(w);
        return vq_fail(e, VQ_ENOMEM, "out of memory for %d threads", n_threads);
    }
    p->n = n_threads;
    p->worker = w;
    p->spin = n_threads <= vq_cpu_count();
    p->keep = fast->part && n_threads <= fast->cores;
    p->fast = *fast;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->raised, NULL);
    pthread_mutex_init(&p->monitor, NULL);
    pthread_cond_init(&p->changed, NULL);
    atomic_init(&p->arrived, 0);
    atomic_init(&p->epoch, 0);
    atomic_init(&p->sleeping, 0);
    atomic_init(&p->job, 0);

    pthread_attr_t attr;
    sigset_t old;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK);
    block_signals(&old); /* inherited by the new threads */
    pthread_mutex_lock(&p->lock);
    int made = 1, err = 0;
    for (int i = 0; i < n_threads; i++) {
        w[i].pool = p;
        w[i].index = i;
        w[i].next = -1;
        w[i].spins = SPINS_MIN;
    }
    for (; made < n_threads; made++) {
        err = pthread_create(&w[made].id, &attr, worker_main, &w[made]);
        if (err) break;
    }
    p->n = made;
    pthread_mutex_unlock(&p->lock);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    if (err) {
        vq_pool_free(p); /* those that were made wait like those of a smaller pool */
        return vq_fail(e, VQ_ENOMEM, "only %d of %d threads could be started; try fewer --threads",
                       made, n_threads);
    }
    *out = p;
    return VQ_OK;
}

vq_status vq_pool_new(vq_pool **out, int n_threads, vq_err *e)
{
    vq_fast fast = { 0 };
    if (n_threads > 1) vq_cpu_fast(&fast); /* one has no workers to keep anywhere */
    return vq_pool_new_on(out, n_threads, &fast, e);
}

void vq_pool_free(vq_pool *p)
{
    if (!p) return;
    p->stop = true;
    vq_barrier(p, 0);
    for (int i = 1; i < p->n; i++) pthread_join(p->worker[i].id, NULL);
    pthread_cond_destroy(&p->changed);
    pthread_mutex_destroy(&p->monitor);
    pthread_cond_destroy(&p->raised);
    pthread_mutex_destroy(&p->lock);
    vq_aligned_free(p->worker);
    vq_aligned_free(p);
}

int vq_pool_size(const vq_pool *p)
{
    return p->n;
}

/* ---- the monitor ---- */

void vq_pool_enter(vq_pool *p)
{
    pthread_mutex_lock(&p->monitor);
}

void vq_pool_leave(vq_pool *p)
{
    pthread_mutex_unlock(&p->monitor);
}

void vq_pool_wait(vq_pool *p)
{
    pthread_cond_wait(&p->changed, &p->monitor);
}

void vq_pool_wake(vq_pool *p)
{
    pthread_cond_broadcast(&p->changed);
}
