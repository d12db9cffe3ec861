/* fetch.h - a few threads that read ranges of one file into memory, in the background.
 *
 * For data larger than memory: mapping it would leave the order of reading to page faults, one 4
 * KiB at a time (5 times slower than whole reads; kernels.md 8).  Two ways of reading are tried,
 * past the page cache (O_DIRECT) and through it, and the faster one is kept. */
#ifndef CORE_BASE_FETCH_H
#define CORE_BASE_FETCH_H

#include "core/base/err.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { VQ_FETCH_ALIGN = 4096 }; /* of offsets, lengths and memory */

/* One range to read; the caller's memory, which must stay until the state is not QUEUED or
 * READING. */
typedef enum vq_fetch_state {
    VQ_FETCH_IDLE, VQ_FETCH_QUEUED, VQ_FETCH_READING, VQ_FETCH_DONE, VQ_FETCH_FAILED
} vq_fetch_state;

typedef struct vq_read {
    uint64_t off;
    size_t len;
    void *to;
    atomic_int state;       /* vq_fetch_state; DONE is stored after the bytes */
    struct vq_read *next;   /* the queue's */
} vq_read;

typedef struct vq_fetch vq_fetch;

/* path is borrowed. */
vq_status vq_fetch_new(vq_fetch **out, const char *path, int threads, vq_err *e);
void vq_fetch_free(vq_fetch *f);    /* waits for what is being read; takes NULL */

/* Queues a read (IDLE, DONE or FAILED before).  Urgent ones go before the others, in order. */
void vq_fetch_put(vq_fetch *f, vq_read *r, bool urgent);
/* A queued read becomes urgent. */
void vq_fetch_hurry(vq_fetch *f, vq_read *r);
/* Takes a read that nobody has begun out of the queue (IDLE then); false: too late. */
bool vq_fetch_cancel(vq_fetch *f, vq_read *r);
/* Until it is DONE (true) or FAILED.  Any thread, several at once. */
bool vq_fetch_wait(vq_fetch *f, vq_read *r);
/* Why a read failed: the first failure. */
vq_status vq_fetch_error(vq_fetch *f, vq_err *e);

typedef struct vq_fetch_stats {
    uint64_t reads, bytes;
    double seconds;         /* of all threads together, inside reads */
    bool direct;            /* the way in use goes past the page cache */
} vq_fetch_stats;
vq_fetch_stats vq_fetch_get_stats(vq_fetch *f);

#endif
