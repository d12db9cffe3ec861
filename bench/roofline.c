/* roofline.c - the limits every speed is divided by (roofline.h).
 *
 * Memory is read the way decode reads it: jobs of one window that moves through the buffer, taken
 * in order by all threads, so that the bound has the same DRAM page locality as the model.  The
 * buffer is far larger than any cache. */
#include "bench/roofline.h"

#include "core/base/mem.h"
#include "core/base/os.h"
#include "core/base/pool.h"
#include "quant/roof.h"

#include <stdatomic.h>

enum { JOB = 64 * 1024 };                /* bytes: the size of the model's own jobs */
static const uint64_t PASS = 1ull << 30; /* bytes of one measurement */

struct bn_roof {
    vq_pool *pool;
    q_roof fn;
    uint8_t *buf;
    size_t size;     /* a multiple of JOB */
    uint64_t rounds; /* of the int8 loop */
    atomic_uint sink;
    atomic_ullong macs;
};

static void fill(void *ctx, int thread)
{
    bn_roof *r = ctx;
    for (int j; (j = vq_job(r->pool, thread, (int)(r->size / JOB))) >= 0;)
        for (size_t i = 0; i < JOB; i += 64) r->buf[(size_t)j * JOB + i] = (uint8_t)(j + 1);
}

static void read_all(void *ctx, int thread)
{
    bn_roof *r = ctx;
    uint32_t s = 0;
    for (int j; (j = vq_job(r->pool, thread, (int)(r->size / JOB))) >= 0;)
        s ^= r->fn.read(r->buf + (size_t)j * JOB, JOB);
    atomic_fetch_xor_explicit(&r->sink, s, memory_order_relaxed);
}

static void multiply(void *ctx, int thread)
{
    bn_roof *r = ctx;
    (void)thread;
    uint32_t s = 1;
    const uint64_t macs = r->fn.int8(r->rounds, &s);
    atomic_fetch_xor_explicit(&r->sink, s, memory_order_relaxed);
    atomic_fetch_add_explicit(&r->macs, macs, memory_order_relaxed);
}

vq_status bn_roof_open(bn_roof **out, int threads, const char *level, vq_err *e)
{
    *out = NULL;
    bn_roof *r = vq_calloc(1, sizeof *r);
    if (!r) return vq_fail(e, VQ_ENOMEM, "bench: out of memory");
    q_roof_make(&r->fn, level);
    uint64_t size = PASS;
    const uint64_t room = vq_mem_available() / 4;
    if (size > room) size = room;
    size -= size % JOB;
    r->size = (size_t)size;
    vq_status s = vq_pool_new(&r->pool, threads, e);
    if (!s && (size < JOB || !(r->buf = vq_pages_alloc(r->size))))
        s = vq_fail(e, VQ_ENOFIT,
                    "bench: no memory for the %llu MB that the read measurement needs",
                    (unsigned long long)(PASS >> 20));
    if (s) {
        bn_roof_close(r);
        return s;
    }
    vq_pool_run(r->pool, fill, r);

    /* Rounds for some 30 ms: double until a run is long enough to be timed, then scale. */
    double t = 0;
    for (r->rounds = 1 << 14; r->rounds < 1ull << 40; r->rounds *= 2) {
        const double t0 = vq_now();
        vq_pool_run(r->pool, multiply, r);
        t = vq_now() - t0;
        if (t > 0.01) break;
    }
    r->rounds = (uint64_t)((double)r->rounds * 0.03 / (t > 1e-9 ? t : 1e-9)) + 1;
    *out = r;
    return VQ_OK;
}

void bn_roof_close(bn_roof *r)
{
    if (!r) return;
    vq_pool_free(r->pool);
    vq_pages_free(r->buf, r->size);
    vq_free(r);
}

uint64_t bn_roof_bytes(const bn_roof *r)
{
    return r->size;
}

double bn_roof_read(bn_roof *r, double seconds)
{
    const double t0 = vq_now();
    double t = 0;
    uint64_t n = 0;
    while (n < PASS || t < seconds) {
        vq_pool_run(r->pool, read_all, r);
        n += r->size;
        t = vq_now() - t0;
    }
    return (double)n / t / 1e9;
}

double bn_roof_int8(bn_roof *r, double seconds)
{
    atomic_store(&r->macs, 0);
    const double t0 = vq_now();
    double t;
    do {
        vq_pool_run(r->pool, multiply, r);
        t = vq_now() - t0;
    } while (t < seconds);
    return (double)atomic_load(&r->macs) / t / 1e9;
}
