/* fetch.c - background reads: one queue with two ends, a few threads, one lock.
 *
 * The lock is taken twice per read of megabytes, so it is never in the way.  A read's state is its
 * only link to the caller: READING and later are set by the thread that has it, and whoever sees
 * DONE sees the bytes.
 *
 * Which way of reading is faster depends on disk, file system and what the page cache holds, so the
 * first reads alternate between the two and each thread then takes the one with more bytes per
 * second.  A file system without O_DIRECT leaves one way. */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE 1
#endif

#include "core/base/fetch.h"

#include "core/base/mem.h"
#include "core/base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

enum {
    TRIES = 6,              /* reads each way before one is chosen */
    MAX_THREADS = 64,
    STACK = 256 * 1024
};

typedef struct way {
    int fd;                 /* -1: there is no such way */
    uint64_t reads, bytes;
    double seconds;
} way;

struct vq_fetch {
    const char *path;
    way way[2];             /* through the page cache, past it */
    int chosen;             /* -1: still trying */
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    vq_read *urgent, *later; /* queues */
    bool stop;
    int n_threads;
    pthread_t thread[MAX_THREADS];
    bool failed;
    vq_err err;             /* the first failure */
};

/* All bytes, or errno; -1: the file ends before. */
static int read_all(int fd, uint8_t *to, size_t len, uint64_t off)
{
    while (len) {
        const ssize_t n = pread(fd, to, len, (off_t)off);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno ? errno : EIO;
        if (n == 0) return -1;
        to += n;
        off += (uint64_t)n;
        len -= (size_t)n;
    }
    return 0;
}

/* Under the lock. */
static int choose_way(vq_fetch *f)
{
    way *w = f->way;
    if (w[1].fd < 0) return 0;
    if (f->chosen >= 0) return f->chosen;
    if (w[0].reads < TRIES || w[1].reads < TRIES) return w[1].reads < w[0].reads;
    const double through = (double)w[0].bytes / w[0].seconds;
    const double past = (double)w[1].bytes / w[1].seconds;
    f->chosen = past > through;
    return f->chosen;
}

static vq_read *take(vq_fetch *f)
{
    vq_read **from = f->urgent ? &f->urgent : &f->later, *r = *from;
    if (r) *from = r->next;
    return r;
}

static void keep_error(vq_fetch *f, const vq_read *r, int why)
{
    if (f->failed) return;
    f->failed = true;
    const unsigned long long at = r->off, len = r->len;
    if (why < 0)
        vq_fail(&f->err, VQ_EFORMAT, "%s: the file was cut while in use: nothing at offset %llu "
                                     "(%llu bytes); get it again", f->path, at, len);
    else
        vq_fail(&f->err, VQ_EFAIL, "%s: reading %llu bytes at offset %llu failed: %s; check the "
                                   "disk", f->path, len, at, strerror(why));
}

static void *reader(void *arg)
{
    vq_fetch *f = arg;
    pthread_mutex_lock(&f->lock);
    for (;;) {
        vq_read *r;
        while (!f->stop && !(r = take(f))) pthread_cond_wait(&f->work, &f->lock);
        if (f->stop) break;
        const int k = choose_way(f);
        way *w = &f->way[k];
        w->reads++;
        atomic_store(&r->state, VQ_FETCH_READING);
        pthread_mutex_unlock(&f->lock);

        const double t = vq_now();
        int why = read_all(w->fd, r->to, r->len, r->off);
        /* Some file systems open with O_DIRECT and then refuse to read. */
        const bool refused = k && why == EINVAL;
        if (refused) why = read_all(f->way[0].fd, r->to, r->len, r->off);
        const double s = vq_now() - t;
        if (!k) posix_fadvise(w->fd, (off_t)r->off, (off_t)r->len, POSIX_FADV_DONTNEED);

        pthread_mutex_lock(&f->lock);
        w->bytes += r->len;
        w->seconds += s;
        if (refused) f->chosen = 0;
        if (why) keep_error(f, r, why);
        atomic_store(&r->state, why ? VQ_FETCH_FAILED : VQ_FETCH_DONE);
        pthread_cond_broadcast(&f->done);
    }
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

vq_status vq_fetch_new(vq_fetch **out, const char *path, int threads, vq_err *e)
{
    vq_fetch *f = *out = vq_calloc(1, sizeof *f);
    if (!f) return vq_fail(e, VQ_ENOMEM, "out of memory");
    if (threads < 1) threads = 1;
    if (threads > MAX_THREADS) threads = MAX_THREADS;
    f->path = path;
    f->chosen = -1;
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->work, NULL);
    pthread_cond_init(&f->done, NULL);
    f->way[1].fd = -1;
    f->way[0].fd = open(path, O_RDONLY | O_CLOEXEC);
    if (f->way[0].fd < 0) {
        const vq_status st = vq_fail(e, VQ_EFAIL, "%s: %s", path, strerror(errno));
        vq_fetch_free(f);
        *out = NULL;
        return st;
    }
#if defined(O_DIRECT)
    f->way[1].fd = open(path, O_RDONLY | O_CLOEXEC | O_DIRECT);
#endif
    posix_fadvise(f->way[0].fd, 0, 0, POSIX_FADV_RANDOM); /* whole ranges are asked for anyway */
    pthread_attr_t attr;
    sigset_t all, old;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    while (f->n_threads < threads
           && !pthread_create(&f->thread[f->n_threads], &attr, reader, f))
        f->n_threads++;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    if (f->n_threads) return VQ_OK;
    vq_fetch_free(f);
    *out = NULL;
    return vq_fail(e, VQ_ENOMEM, "no thread for reading could be started");
}

void vq_fetch_free(vq_fetch *f)
{
    if (!f) return;
    pthread_mutex_lock(&f->lock);
    f->stop = true;
    pthread_cond_broadcast(&f->work);
    pthread_mutex_unlock(&f->lock);
    for (int i = 0; i < f->n_threads; i++) pthread_join(f->thread[i], NULL);
    for (int i = 0; i < 2; i++)
        if (f->way[i].fd >= 0) close(f->way[i].fd);
    pthread_cond_destroy(&f->done);
    pthread_cond_destroy(&f->work);
    pthread_mutex_destroy(&f->lock);
    vq_free(f);
}

static void append(vq_read **queue, vq_read *r)
{
    r->next = NULL;
    while (*queue) queue = &(*queue)->next;
    *queue = r;
}

static bool unlink_read(vq_read **queue, const vq_read *r)
{
    while (*queue && *queue != r) queue = &(*queue)->next;
    if (!*queue) return false;
    *queue = r->next;
    return true;
}

void vq_fetch_put(vq_fetch *f, vq_read *r, bool urgent)
{
    pthread_mutex_lock(&f->lock);
    atomic_store(&r->state, VQ_FETCH_QUEUED);
    append(urgent ? &f->urgent : &f->later, r);
    pthread_cond_signal(&f->work);
    pthread_mutex_unlock(&f->lock);
}

void vq_fetch_hurry(vq_fetch *f, vq_read *r)
{
    pthread_mutex_lock(&f->lock);
    if (unlink_read(&f->later, r)) append(&f->urgent, r);
    pthread_mutex_unlock(&f->lock);
}

bool vq_fetch_cancel(vq_fetch *f, vq_read *r)
{
    pthread_mutex_lock(&f->lock);
    const bool got = unlink_read(&f->later, r) || unlink_read(&f->urgent, r);
    if (got) atomic_store(&r->state, VQ_FETCH_IDLE);
    pthread_mutex_unlock(&f->lock);
    return got;
}

bool vq_fetch_wait(vq_fetch *f, vq_read *r)
{
    if (atomic_load(&r->state) == VQ_FETCH_DONE) return true;
    pthread_mutex_lock(&f->lock);
    int s;
    while ((s = atomic_load(&r->state)) == VQ_FETCH_QUEUED || s == VQ_FETCH_READING)
        pthread_cond_wait(&f->done, &f->lock);
    pthread_mutex_unlock(&f->lock);
    return s == VQ_FETCH_DONE;
}

vq_status vq_fetch_error(vq_fetch *f, vq_err *e)
{
    pthread_mutex_lock(&f->lock);
    const vq_err err = f->err;
    pthread_mutex_unlock(&f->lock);
    return vq_fail(e, err.code, "%s", err.msg);
}

vq_fetch_stats vq_fetch_get_stats(vq_fetch *f)
{
    pthread_mutex_lock(&f->lock);
    const way *w = f->way;
    const vq_fetch_stats s = { w[0].reads + w[1].reads, w[0].bytes + w[1].bytes,
                               w[0].seconds + w[1].seconds, choose_way(f) == 1 };
    pthread_mutex_unlock(&f->lock);
    return s;
}
