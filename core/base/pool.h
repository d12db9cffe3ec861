/* pool.h - threads that work together for one step, with cheap barriers and shared job counters.
 *
 * The caller is thread 0.  vq_pool_run() lets every thread execute fn once; inside, the threads
 * meet at barriers and take jobs.  A job is a piece of the *output* (exact.md: threads split
 * outputs, never a sum), so who takes it cannot be seen in the result.  Waiting spins shortly, then
 * parks; between two runs threads park, so an idle session uses no CPU.
 *
 * Where some cores are much slower than the best and there is a fast one for every thread, the
 * pool's own threads stay on the fast ones, each on whichever is free.  The caller's thread is left
 * alone: to set its mask for a run and put it back would undo what others set meanwhile.  The pool
 * leaves a fast core for it, schedulers move busy threads to such, and until then it takes fewer
 * jobs.  With more threads than fast cores nobody is held anywhere. */
#ifndef CORE_BASE_POOL_H
#define CORE_BASE_POOL_H

#include "core/base/err.h"
#include "core/base/os.h"

typedef struct vq_pool vq_pool;

/* Every thread, the caller's at each run included, computes with round-to-nearest and denormals
 * (MXCSR 0x1F80 / FPCR 0): set when a thread starts, and for the caller saved and restored. */
vq_status vq_pool_new(vq_pool **out, int n_threads, vq_err *e);
/* The same on a machine with these performance cores: for tests */
vq_status vq_pool_new_on(vq_pool **out, int n_threads, const vq_fast *fast, vq_err *e);
void vq_pool_free(vq_pool *p);
int vq_pool_size(const vq_pool *p);

typedef void vq_pool_fn(void *ctx, int thread);
void vq_pool_run(vq_pool *p, vq_pool_fn *fn, void *ctx);

/* Inside fn only.  All threads must reach every barrier, in the same order.  What was written
 * before is visible after. */
void vq_barrier(vq_pool *p, int thread);

/* Jobs 0..n-1 of the current phase (the stretch between two barriers; one job list per phase).
 * Usage: for (int j; (j = vq_job(p, thread, n)) >= 0;) ...   Returns -1 when none is left; a
 * barrier must follow before the next list is opened.  Jobs are handed out in order, in runs of
 * neighbours that get shorter towards the end: long streams for each thread, and nobody waits for
 * more than one job. */
int vq_job(vq_pool *p, int thread, int n);

/* A monitor, for work that is a pipeline and not phases (a reader, many workers, a writer).  Inside
 * fn: between enter and leave a thread is alone with the data they share; wait leaves, sleeps until
 * another thread wakes all, and enters again, so the condition is tested anew in a loop. */
void vq_pool_enter(vq_pool *p);
void vq_pool_leave(vq_pool *p);
void vq_pool_wait(vq_pool *p);
void vq_pool_wake(vq_pool *p);

#endif
