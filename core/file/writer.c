/* writer.c - writes a container in one pass over its body.
 *
 * All sizes are known before the first byte (a tensor's bytes follow from type and shape), so the
 * whole file is laid out at begin and the front is one buffer, filled as we go: the table, the
 * hash of each chunk as its last byte passes.  Memory is the front, whatever the model's size.
 * The file grows under a temporary name beside the target and gets its own by a rename after
 * fsync: under the final name there is a whole container or nothing.
 * What the reader would refuse is refused here first, by the same functions. */
#include "core/base/mem.h"
#include "core/file/check.h"
#include "core/file/file.h"

#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum {
    HINT = 8 << 20      /* bytes written before the kernel is asked to start on them: the disk works
                         * while we encode, and dirty pages never pile up */
};

/* The tokenizer, which may be absent, is last. */
static const vaq_section_id section_order[] = {
    VAQ_SEC_CONFIG, VAQ_SEC_META, VAQ_SEC_ROPE, VAQ_SEC_TENSORS, VAQ_SEC_CHUNKS, VAQ_SEC_TOKENIZER
};
enum { N_SECTIONS = sizeof section_order / sizeof section_order[0] };

struct vq_writer {
    char *path, *tmp;       /* final and temporary name */
    vq_fd fd;               /* of tmp; -1 before it exists */
    const q_kern *kern;
    uint8_t *front;         /* (body_off) header, directory, sections */
    uint64_t body_off, file_size;
    uint64_t off[VAQ_SEC_TOKENIZER + 1];    /* place of each section in the front, by id */
    uint64_t size[VAQ_SEC_TOKENIZER + 1];
    uint32_t n_sections;
    vaq_tensor *tensor;     /* (n_tensor) in file order, the caller's */
    uint32_t n_tensor;

    uint64_t pos;           /* next byte of the file's body */
    uint32_t at;            /* tensor being written ... */
    uint64_t at_done;       /* ... and its bytes so far */
    vq_sha256 chunk;        /* of the current chunk */
    uint64_t hinted;        /* bytes before this were handed to the disk */
};

static uint64_t round_up(uint64_t v, uint64_t to)
{
    return (v + to - 1) / to * to;
}

static int cmp_tensor(const void *a, const void *b)
{
    return vq_tensor_cmp(a, b);
}

static vq_status no_memory(const char *path, vq_err *e)
{
    return vq_fail(e, VQ_ENOMEM, "%s: out of memory", path);
}

/* Closes, removes the temporary if it is still there, frees. */
static void discard(vq_writer *w)
{
    if (w->fd.fd >= 0) {
        vq_fd_close(&w->fd);
        vq_unlink(w->tmp);
        vq_cleanup_cancel();
    }
    vq_free(w->path);
    vq_free(w->tmp);
    vq_aligned_free(w->front);
    vq_free(w->tensor);
    vq_free(w);
}

/* ---- begin ---- */

/* Sizes and places of everything. */
static vq_status lay_out(vq_writer *w, const vq_writer_spec *spec, vq_err *e)
{
    uint64_t body = 0;
    for (uint32_t i = 0; i < w->n_tensor; i++) {
        vaq_tensor *t = &w->tensor[i];
        const q_typeinfo *type = q_type_info(t->type);
        /* Nonsense gets size 0 here and its message from vq_check_tensors. */
        if (t->layout == VAQ_VECTOR) t->size = (uint64_t)t->cols * sizeof(float);
        else if (!type || !type->known || t->cols > INT_MAX / 2) t->size = 0;
        else t->size = q_matrix_bytes(t->type, t->rows, (int)t->cols);
        t->off = body;
        if (t->size > INT64_MAX / 2 - body) {
            return vq_fail(e, VQ_ENOFIT, "%s: would be larger than any file can be", w->path);
        }
        body = round_up(body + t->size, VAQ_PAGE);
    }
    w->size[VAQ_SEC_META] = spec->meta_size;
    w->size[VAQ_SEC_CONFIG] = sizeof(vaq_config);
    w->size[VAQ_SEC_ROPE] = (uint64_t)(spec->config->rope_dim / 2) * sizeof(double);
    w->size[VAQ_SEC_TENSORS] = (uint64_t)w->n_tensor * sizeof(vaq_tensor);
    w->size[VAQ_SEC_CHUNKS] = (body + VAQ_CHUNK - 1) / VAQ_CHUNK * 32;
    w->size[VAQ_SEC_TOKENIZER] = spec->tokenizer_size;
    w->n_sections = spec->tokenizer ? N_SECTIONS : N_SECTIONS - 1;

    uint64_t at = sizeof(vaq_header) + w->n_sections * sizeof(vaq_section);
    for (uint32_t i = 0; i < w->n_sections; i++) {
        w->off[section_order[i]] = at;
        at = round_up(at + w->size[section_order[i]], 64);
    }
    w->body_off = round_up(at, VAQ_PAGE);
    w->file_size = w->body_off + body;
    for (uint32_t i = 0; i < w->n_tensor; i++) {
        w->tensor[i].off += w->body_off;
        spec->tensor[i].off = w->tensor[i].off;
        spec->tensor[i].size = w->tensor[i].size;
    }
    return VQ_OK;
}

static void put_section(vq_writer *w, vaq_section_id id, const void *p)
{
    if (w->size[id]) memcpy(w->front + w->off[id], p, (size_t)w->size[id]);
}

/* The table as it will stand in the file. */
static vaq_tensor *put_table(vq_writer *w)
{
    put_section(w, VAQ_SEC_TENSORS, w->tensor);
    vaq_tensor *t = (vaq_tensor *)(void *)(w->front + w->off[VAQ_SEC_TENSORS]);
    qsort(t, w->n_tensor, sizeof *t, cmp_tensor);
    return t;
}

/* Fills in what is known of the front, and lets the reader's checks judge it. */
static vq_status fill_front(vq_writer *w, const vq_writer_spec *spec, vq_err *e)
{
    w->front = vq_aligned(64, (size_t)w->body_off);
    if (!w->front) return no_memory(w->path, e);
    put_section(w, VAQ_SEC_CONFIG, spec->config);
    put_section(w, VAQ_SEC_META, spec->meta);
    put_section(w, VAQ_SEC_ROPE, spec->rope);
    if (spec->tokenizer) put_section(w, VAQ_SEC_TOKENIZER, spec->tokenizer);

    vq_status s = vq_check_config(spec->config, spec->rope, w->size[VAQ_SEC_ROPE], w->path, e);
    if (!s) s = vq_check_meta(spec->meta, spec->meta_size, w->path, e);
    if (!s) {
        s = vq_check_tensors(spec->config, put_table(w), w->n_tensor, w->body_off,
                             w->file_size - w->body_off, w->path, e);
    }
    return s;
}

/* The target's name is free or may be taken, and its disk has room.  A file to be replaced stays
 * until the new one is whole, so its space does not count. */
static vq_status check_target(const vq_writer *w, bool force, vq_err *e)
{
    if (vq_file_exists(w->path)) {
        if (!vq_is_regular(w->path)) {
            return vq_fail(e, VQ_EFAIL, "%s: exists and is not a regular file", w->path);
        }
        if (!force) return vq_fail(e, VQ_EFAIL, "%s: exists; --force overwrites it", w->path);
    }
    uint64_t left;
    if (vq_disk_free(w->path, &left) && left < w->file_size) {
        char need[16], have[16];
        vq_fmt_size(need, w->file_size);
        vq_fmt_size(have, left);
        return vq_fail(e, VQ_ENOFIT,
                       "%s: needs %s of disk space, %s are free; free some, choose another place "
                       "with -o, or a smaller --type",
                       w->path, need, have);
    }
    return VQ_OK;
}

static vq_status create_tmp(vq_writer *w, vq_err *e)
{
    vq_buf name = { 0 };
    vq_buf_printf(&name, "%s.tmp-%08x", w->path, (unsigned)(vq_random64() & 0xffffffff));
    if (name.oom) {
        vq_buf_clear(&name);
        return no_memory(w->path, e);
    }
    w->tmp = name.p;
    vq_status s = vq_fd_create(&w->fd, w->tmp, e);
    if (s) w->fd.fd = -1;
    else vq_cleanup_on_signal(w->tmp);
    return s;
}

/* Everything but the file: the layout and the front. */
static vq_status prepare(vq_writer **out, const vq_writer_spec *spec, vq_err *e)
{
    *out = NULL;
    vq_writer *w = vq_calloc(1, sizeof *w);
    if (!w) return no_memory(spec->path, e);
    w->fd.fd = -1;
    w->kern = spec->kern;
    w->n_tensor = (uint32_t)spec->n_tensor;
    w->path = vq_strndup(spec->path, strlen(spec->path));
    w->tensor = vq_calloc(spec->n_tensor, sizeof *w->tensor);
    vq_status s = VQ_OK;
    if (!w->path || !w->tensor) s = no_memory(spec->path, e);
    if (!s) {
        assert(spec->n_tensor <= UINT32_MAX);
        memcpy(w->tensor, spec->tensor, spec->n_tensor * sizeof *w->tensor);
        s = lay_out(w, spec, e);
    }
    if (!s) s = fill_front(w, spec, e);
    if (s) discard(w);
    else *out = w;
    return s;
}

vq_status vq_writer_begin(vq_writer **out, const vq_writer_spec *spec, vq_err *e)
{
    *out = NULL;
    vq_writer *w;
    vq_status s = prepare(&w, spec, e);
    if (s) return s;
    s = check_target(w, spec->force, e);
    if (!s) s = create_tmp(w, e);
    if (s) {
        discard(w);
        return s;
    }
    w->pos = w->hinted = w->body_off;
    vq_sha256_init(&w->chunk, w->kern);
    *out = w;
    return VQ_OK;
}

/* ---- body ---- */

/* Writes the next n bytes of the body; hashes them chunk by chunk. */
static vq_status append(vq_writer *w, const void *data, size_t n, vq_err *e)
{
    const uint8_t *p = data;
    vq_status s = vq_fd_pwrite(w->fd, p, n, w->pos, w->path, e);
    if (s) return s;
    while (n) {
        uint64_t in_body = w->pos - w->body_off;
        size_t room = (size_t)(VAQ_CHUNK - in_body % VAQ_CHUNK), take = n < room ? n : room;
        vq_sha256_add(&w->chunk, p, take);
        w->pos += take;
        p += take;
        n -= take;
        if (take == room || w->pos == w->file_size) {
            vq_sha256_end(&w->chunk, w->front + w->off[VAQ_SEC_CHUNKS] + in_body / VAQ_CHUNK * 32);
            vq_sha256_init(&w->chunk, w->kern);
        }
    }
    if (w->pos - w->hinted >= HINT) {
        vq_fd_start_write(w->fd, w->hinted, w->pos - w->hinted);
        w->hinted = w->pos;
    }
    return VQ_OK;
}

/* Zeros up to `to`, less than a page away. */
static vq_status pad_to(vq_writer *w, uint64_t to, vq_err *e)
{
    static const uint8_t zeros[VAQ_PAGE];
    assert(to >= w->pos && to - w->pos < VAQ_PAGE);
    return to > w->pos ? append(w, zeros, (size_t)(to - w->pos), e) : VQ_OK;
}

vq_status vq_writer_put(vq_writer *w, size_t i, uint64_t at, const void *p, size_t n, vq_err *e)
{
    if (i != w->at) {
        assert(i == (size_t)w->at + 1 && i < w->n_tensor && at == 0);
        assert(w->at_done == w->tensor[w->at].size); /* the one before is complete */
        w->at++;
        w->at_done = 0;
        vq_status s = pad_to(w, w->tensor[i].off, e);
        if (s) return s;
    }
    assert(at == w->at_done && n <= w->tensor[i].size - at);
    w->at_done += n;
    return append(w, p, n, e);
}

void vq_writer_rmse(vq_writer *w, size_t i, float rel_rmse)
{
    assert(i < w->n_tensor && rel_rmse >= 0);
    w->tensor[i].rel_rmse = rel_rmse;
}

/* ---- end ---- */

/* The directory with the hashes of all sections, then the header with the root. */
static void seal(vq_writer *w, uint8_t root[32])
{
    put_table(w); /* with the error figures */
    vaq_section *dir = (vaq_section *)(void *)(w->front + sizeof(vaq_header));
    for (uint32_t i = 0; i < w->n_sections; i++) {
        vaq_section_id id = section_order[i];
        vq_sha256 sha;
        dir[i] = (vaq_section){ .id = (uint32_t)id, .off = w->off[id], .size = w->size[id] };
        vq_sha256_init(&sha, w->kern);
        vq_sha256_add(&sha, w->front + w->off[id], (size_t)w->size[id]);
        vq_sha256_end(&sha, dir[i].sha256);
    }
    vaq_header h = { .version = VAQ_VERSION, .arith = VAQ_ARITH, .enc = VAQ_ENC,
                     .file_size = w->file_size, .body_off = w->body_off,
                     .body_size = w->file_size - w->body_off, .n_sections = w->n_sections };
    memcpy(h.magic, VAQ_MAGIC, sizeof h.magic);
    vq_sha256 sha;
    vq_sha256_init(&sha, w->kern);
    vq_sha256_add(&sha, &h, sizeof h);
    vq_sha256_add(&sha, dir, w->n_sections * sizeof *dir);
    vq_sha256_end(&sha, h.root);
    memcpy(w->front, &h, sizeof h);
    memcpy(root, h.root, sizeof h.root);
}

vq_status vq_writer_end(vq_writer *w, uint8_t root[32], uint64_t *bytes, vq_err *e)
{
    assert(w->at + 1 == w->n_tensor && w->at_done == w->tensor[w->at].size);
    vq_status s = pad_to(w, w->file_size, e);
    if (!s) {
        seal(w, root);
        s = vq_fd_pwrite(w->fd, w->front, (size_t)w->body_off, 0, w->path, e);
    }
    if (!s) s = vq_fd_sync(w->fd, w->path, e);
    if (!s) s = vq_rename(w->tmp, w->path, e);
    if (!s) {
        *bytes = w->file_size;
        vq_fd_close(&w->fd); /* nothing is left for discard to remove */
        vq_cleanup_cancel();
    }
    discard(w);
    return s;
}

void vq_writer_abort(vq_writer *w)
{
    if (w) discard(w);
}

vq_status vq_front_make(vq_buf *front, uint64_t *file_size, const vq_writer_spec *spec, vq_err *e)
{
    vq_writer *w;
    vq_status s = prepare(&w, spec, e);
    if (s) return s;
    uint8_t root[32];
    seal(w, root);
    vq_buf_add(front, w->front, (size_t)w->body_off);
    *file_size = w->file_size;
    if (front->oom) s = no_memory(spec->path, e);
    discard(w);
    return s;
}
