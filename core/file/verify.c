/* verify.c - hashes every chunk of the body, all threads at it.
 *
 * Chunks are independent, so threads take the next one from a counter; a byte per chunk keeps the
 * verdicts, and what is wrong is listed in file order whoever found it. */
#include "core/base/mem.h"
#include "core/base/pool.h"
#include "core/file/check.h"
#include "core/file/file.h"

#include <stdatomic.h>
#include <string.h>

enum { AHEAD = 8 }; /* chunks asked for before they are needed: 8 MiB hides a disk's latency */

typedef unsigned long long ull;

typedef struct job {
    const vq_file *f;
    const q_kern *kern;
    uint8_t *is_bad;            /* (n_chunk), each written by the thread that hashed the chunk */
    vq_progress_fn *progress;
    void *ctx;
    atomic_ullong next;         /* chunk to be taken */
    atomic_ullong done;         /* bytes */
    atomic_bool stop;
} job;

static uint64_t chunk_len(const vq_file *f, uint64_t i)
{
    uint64_t left = f->header->body_size - i * VAQ_CHUNK;
    return left < VAQ_CHUNK ? left : VAQ_CHUNK;
}

static void hash_chunks(void *ctx, int thread)
{
    job *j = ctx;
    const vq_file *f = j->f;
    const uint64_t body = f->header->body_off;
    for (uint64_t i; !atomic_load(&j->stop) && (i = atomic_fetch_add(&j->next, 1)) < f->n_chunk;) {
        uint8_t hash[32];
        vq_sha256 sha;
        vq_map_advise_willneed(&f->map, body + (i + AHEAD) * VAQ_CHUNK, VAQ_CHUNK);
        vq_sha256_init(&sha, j->kern);
        vq_sha256_add(&sha, f->map.p + body + i * VAQ_CHUNK, (size_t)chunk_len(f, i));
        vq_sha256_end(&sha, hash);
        j->is_bad[i] = memcmp(hash, f->chunks + 32 * i, 32) != 0;
        uint64_t done = atomic_fetch_add(&j->done, chunk_len(f, i)) + chunk_len(f, i);
        if (thread == 0 && j->progress && j->progress(j->ctx, done, f->header->body_size)) {
            atomic_store(&j->stop, true);
        }
    }
}

/* One entry per bad chunk, with the first tensor it touches: both lists rise, so one walk does. */
static vq_status list_bad(const job *j, vq_verify *out, vq_err *e)
{
    const vq_file *f = j->f;
    size_t cap = 0;
    uint32_t k = 0;
    uint32_t *order = vq_tensor_order(f->tensor, f->n_tensor);
    if (!order) return vq_fail(e, VQ_ENOMEM, "%s: out of memory", f->path);
    for (uint64_t i = 0; i < f->n_chunk; i++) {
        if (!j->is_bad[i]) continue;
        vq_bad b = { .off = f->header->body_off + i * VAQ_CHUNK, .len = chunk_len(f, i) };
        const vaq_tensor *t = NULL; /* the first that ends behind the chunk's start */
        for (; k < f->n_tensor; k++) {
            t = &f->tensor[order[k]];
            if (t->off + t->size > b.off) break;
        }
        if (k < f->n_tensor && t->off < b.off + b.len) b.tensor = t;
        if (vq_grow(&out->bad, &cap, out->n_bad + 1, sizeof *out->bad)) {
            vq_free(order);
            return vq_fail(e, VQ_ENOMEM, "%s: out of memory", f->path);
        }
        out->bad[out->n_bad++] = b;
    }
    vq_free(order);
    return VQ_OK;
}

vq_status vq_file_verify(const vq_file *f, const q_kern *kern, struct vq_pool *pool,
                         vq_progress_fn *progress, void *ctx, vq_verify *out, vq_err *e)
{
    *out = (vq_verify){ 0 };
    q_kern ref;
    if (!kern) {
        q_kern_make(&ref, "ref");
        kern = &ref;
    }
    job j = { .f = f, .kern = kern, .progress = progress, .ctx = ctx };
    j.is_bad = vq_calloc((size_t)f->n_chunk, 1);
    if (!j.is_bad) return vq_fail(e, VQ_ENOMEM, "%s: out of memory", f->path);
    if (pool) vq_pool_run(pool, hash_chunks, &j);
    else hash_chunks(&j, 0);

    vq_status s;
    out->bytes = f->header->body_off + atomic_load(&j.done); /* the front was hashed at open */
    if (atomic_load(&j.stop)) {
        s = vq_fail(e, VQ_EINTR, "%s: stopped after %llu bytes", f->path, (ull)out->bytes);
    } else {
        s = list_bad(&j, out, e);
    }
    if (!s && progress) progress(ctx, f->header->body_size, f->header->body_size);
    if (!s && out->n_bad) {
        char name[96] = "padding";
        if (out->bad[0].tensor) vq_tensor_name(name, out->bad[0].tensor);
        s = vq_fail(e, VQ_EFORMAT,
                    "%s: damaged: %zu of %llu MiB do not match their hash, first at byte %llu (%s)",
                    f->path, out->n_bad, (ull)f->n_chunk, (ull)out->bad[0].off, name);
    }
    vq_free(j.is_bad);
    return s;
}

void vq_verify_clear(vq_verify *v)
{
    vq_free(v->bad);
    *v = (vq_verify){ 0 };
}
