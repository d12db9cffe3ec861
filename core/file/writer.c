/* writer.c - writes a container in one pass over its body.
 *
 * All sizes are known before the first byte (a tensor's bytes follow from type and shape), so the
 * whole file is laid out at begin and the front is one buffer, filled as we go: the table, the
 * hash of each chunk as its last byte passes.  Memory is the front, whatever the model's size.
 * The file grows as PATH.unfinished and gets its own name by a rename after fsync: under the final
 * name there is a whole container or nothing.  PATH.journal says how much of the unfinished file is
 * durable (journal.h), so whatever ends this process, the next one goes on from there.  It believes
 * no more than it can prove: the body so far is hashed again, and from the first chunk that is not
 * what the journal says everything is made anew.
 * What the reader would refuse is refused here first, by the same functions. */
#include "core/base/mem.h"
#include "core/file/check.h"
#include "core/file/journal.h"

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
    char *path, *part;      /* final name, and while it is unfinished */
    vq_fd fd;               /* of part; -1 before it is ours */
    vq_journal journal;
    vq_journal_head head;   /* borrows the metadata from front */
    vq_mark found;          /* where an earlier writer left the file; pos = 0: nowhere */
    bool touched, renamed;  /* source has another stamp; the file has its final name already */
    const q_kern *kern;
    uint8_t *front;         /* (body_off) header, directory, sections */
    uint64_t body_off, file_size;
    uint64_t off[VAQ_SEC_TOKENIZER + 1];    /* place of each section in the front, by id */
    uint64_t size[VAQ_SEC_TOKENIZER + 1];
    uint32_t n_sections;
    size_t late;            /* last bytes of the metadata: not known at begin */
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

static uint8_t *hashes(const vq_writer *w)
{
    return w->front + w->off[VAQ_SEC_CHUNKS];
}

/* Closes and frees; `clean`: leaves no files.  The journal goes last: an unfinished file without
 * one is nobody's. */
static void discard(vq_writer *w, bool clean)
{
    if (clean && w->fd.fd >= 0) vq_unlink(w->part);
    vq_fd_close(&w->fd);
    vq_journal_close(&w->journal, clean);
    vq_free(w->path);
    vq_free(w->part);
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

/* Everything but the file: the layout and the front. */
static vq_status prepare(vq_writer **out, const vq_writer_spec *spec, vq_err *e)
{
    *out = NULL;
    vq_writer *w = vq_calloc(1, sizeof *w);
    if (!w) return no_memory(spec->path, e);
    w->fd.fd = -1;
    w->kern = spec->kern;
    w->late = spec->late;
    assert(w->late <= VQ_LATE_MOST && w->late <= spec->meta_size);
    w->n_tensor = (uint32_t)spec->n_tensor;
    w->path = vq_strndup(spec->path, strlen(spec->path));
    vq_buf part = { 0 };
    vq_buf_printf(&part, "%s.unfinished", spec->path);
    w->part = part.p;
    w->tensor = vq_calloc(spec->n_tensor, sizeof *w->tensor);
    vq_status s = VQ_OK;
    if (!w->path || part.oom || !w->tensor) s = no_memory(spec->path, e);
    if (!s) {
        assert(spec->n_tensor <= UINT32_MAX);
        memcpy(w->tensor, spec->tensor, spec->n_tensor * sizeof *w->tensor);
        s = lay_out(w, spec, e);
    }
    if (!s) s = fill_front(w, spec, e);
    if (s) discard(w, false);
    else *out = w;
    return s;
}

/* What the front says now is all that decides the body, but for the weights. */
static void make_key(vq_writer *w, const vq_writer_spec *spec)
{
    vq_sha256 sha;
    vq_sha256_init(&sha, w->kern);
    vq_sha256_add(&sha, &w->file_size, sizeof w->file_size);
    vq_sha256_add(&sha, w->front, (size_t)w->body_off);
    vq_sha256_end(&sha, w->head.key);
    memcpy(w->head.stamp, spec->stamp, sizeof w->head.stamp);
    w->head.meta = w->front + w->off[VAQ_SEC_META];
    w->head.meta_size = spec->meta_size;
}

void vq_front_seal(void *front, const q_kern *kern)
{
    vaq_header *h = front;
    vaq_section *dir = (vaq_section *)(void *)(h + 1);
    vq_sha256 sha;
    for (uint32_t i = 0; i < h->n_sections; i++) {
        vq_sha256_init(&sha, kern);
        vq_sha256_add(&sha, (uint8_t *)front + dir[i].off, (size_t)dir[i].size);
        vq_sha256_end(&sha, dir[i].sha256);
    }
    memset(h->root, 0, sizeof h->root);
    vq_sha256_init(&sha, kern);
    vq_sha256_add(&sha, h, sizeof *h + h->n_sections * sizeof *dir);
    vq_sha256_end(&sha, h->root);
}

/* The directory with the hashes of all sections, then the header with the root. */
static void seal(vq_writer *w, uint8_t root[32])
{
    put_table(w); /* with the error figures */
    vaq_header *h = (vaq_header *)(void *)w->front;
    vaq_section *dir = (vaq_section *)(void *)(h + 1);
    for (uint32_t i = 0; i < w->n_sections; i++) {
        const vaq_section_id id = section_order[i];
        dir[i] = (vaq_section){ .id = (uint32_t)id, .off = w->off[id], .size = w->size[id] };
    }
    *h = (vaq_header){ .version = VAQ_VERSION, .arith = VAQ_ARITH, .enc = VAQ_ENC,
                       .file_size = w->file_size, .body_off = w->body_off,
                       .body_size = w->file_size - w->body_off, .n_sections = w->n_sections };
    memcpy(h->magic, VAQ_MAGIC, sizeof h->magic);
    vq_front_seal(w->front, w->kern);
    memcpy(root, h->root, sizeof h->root);
}

/* ---- an unfinished file ---- */

static uint64_t late_off(const vq_writer *w)
{
    return w->off[VAQ_SEC_META] + w->size[VAQ_SEC_META] - w->late;
}

/* Is the file under the final name what this writer would make?  The journal has all figures but
 * the late ones, which are its own. */
static bool already_done(vq_writer *w)
{
    vaq_header h;
    vq_fd f;
    uint64_t size;
    uint8_t root[32], was[VQ_LATE_MOST];
    if (w->found.n_rmse != w->n_tensor || vq_fd_open_read(&f, w->path, &size, NULL)) return false;
    memcpy(was, w->front + late_off(w), w->late);
    vq_status s = vq_fd_pread(f, &h, sizeof h, 0, w->path, NULL);
    if (!s) s = vq_fd_pread(f, w->front + late_off(w), w->late, late_off(w), w->path, NULL);
    vq_fd_close(&f);
    seal(w, root);
    const bool done = !s && size == w->file_size && !memcmp(h.root, root, sizeof root);
    if (!done) vq_writer_late(w, was);
    return done;
}

/* How much of the body is as the journal says: up to `end`, or the start of the first chunk that
 * is not. */
static vq_status prove_body(vq_writer *w, const vq_writer_spec *spec, uint64_t *end, vq_err *e)
{
    const vq_mark *m = &w->journal.last;
    uint8_t *buf = vq_malloc(VAQ_CHUNK), hash[32];
    vq_status s = buf ? VQ_OK : no_memory(w->path, e);
    const uint64_t all = m->pos - w->body_off, there = vq_fd_stamp(w->fd).size;
    *end = m->pos;
    for (uint64_t i = 0, at = w->body_off; !s && at < m->pos; i++, at += VAQ_CHUNK) {
        const size_t n = m->pos - at < VAQ_CHUNK ? (size_t)(m->pos - at) : VAQ_CHUNK;
        vq_sha256 sha;
        bool good = there >= at + n && !vq_fd_pread(w->fd, buf, n, at, w->part, NULL);
        if (good) {
            vq_fd_want(w->fd, at + n, 8 * (uint64_t)VAQ_CHUNK);
            vq_sha256_init(&sha, w->kern);
            vq_sha256_add(&sha, buf, n);
            vq_sha256_end(&sha, hash);
            good = !memcmp(hash, i < m->n_hash ? hashes(w) + 32 * i : m->tail, sizeof hash);
        }
        if (!good) {
            *end = at;
            break;
        }
        if (spec->progress && spec->progress(spec->ctx, at + n - w->body_off, all)) {
            s = vq_fail(e, VQ_EINTR, "interrupted; what was done is kept");
        }
    }
    vq_free(buf);
    return s;
}

/* The writer's own state behind m; of a begun chunk the bytes are read again. */
static vq_status go_to(vq_writer *w, const vq_mark *m, vq_err *e)
{
    const uint64_t start = w->body_off + (uint64_t)m->n_hash * VAQ_CHUNK;
    uint8_t buf[4096];
    vq_status s = VQ_OK;
    w->pos = w->hinted = m->pos;
    while (w->at + 1 < w->n_tensor && w->tensor[w->at + 1].off < m->pos) w->at++;
    const vaq_tensor *t = &w->tensor[w->at];
    w->at_done = m->pos - t->off < t->size ? m->pos - t->off : t->size; /* padded, at the end */
    for (uint64_t at = start; !s && at < m->pos;) {
        const size_t n = m->pos - at < sizeof buf ? (size_t)(m->pos - at) : sizeof buf;
        s = vq_fd_pread(w->fd, buf, n, at, w->part, e);
        if (!s) vq_sha256_add(&w->chunk, buf, n);
        at += n;
    }
    return s;
}

static vq_status read_journal(vq_writer *w, uint64_t until, vq_err *e)
{
    return vq_journal_read(&w->journal, until, hashes(w), w->size[VAQ_SEC_CHUNKS] / 32, w->tensor,
                           w->n_tensor, e);
}

static void recall_figures(const vq_writer *w, const vq_writer_spec *spec)
{
    for (uint32_t i = 0; i < w->found.n_rmse; i++) {
        spec->tensor[i].rel_rmse = w->tensor[i].rel_rmse;
    }
}

/* The journal is of this file, which is there: goes on as far behind as can be proved. */
static vq_status go_on(vq_writer *w, const vq_writer_spec *spec, vq_err *e)
{
    uint64_t end;
    vq_status s = read_journal(w, UINT64_MAX, e);
    if (!s) s = prove_body(w, spec, &end, e);
    if (!s && end < w->journal.last.pos) s = read_journal(w, end, e);
    const vq_mark *m = &w->journal.last;
    if (s || !m->pos) return s;
    w->found = *m;
    recall_figures(w, spec);
    s = go_to(w, m, e);
    /* What lies behind was never durable, or not what it should be. */
    if (!s) s = vq_fd_truncate(w->fd, m->pos, w->part, e);
    if (!s) s = vq_fd_truncate(w->journal.fd, w->journal.size, w->journal.path, e);
    return s;
}

/* A file to be replaced stays until the new one is whole, so its space does not count; what there
 * is of the new one does. */
static vq_status check_room(const vq_writer *w, vq_err *e)
{
    uint64_t left;
    const uint64_t want = w->file_size - (w->found.pos ? w->found.pos - w->body_off : 0);
    if (!vq_disk_free(w->path, &left) || left >= want) return VQ_OK;
    char need[16], have[16];
    vq_fmt_size(need, want);
    vq_fmt_size(have, left);
    return vq_fail(e, VQ_ENOFIT,
                   "%s: needs %s of disk space, %s are free; free some, choose another place "
                   "with -o, or a smaller --type",
                   w->path, need, have);
}

/* In this order an unfinished file always has a journal, and never that of another. */
vq_status vq_writer_restart(vq_writer *w, vq_err *e)
{
    w->found = (vq_mark){ 0 };
    w->touched = false;
    w->pos = w->hinted = w->body_off;
    w->at = 0;
    w->at_done = 0;
    vq_sha256_init(&w->chunk, w->kern);
    vq_fd_close(&w->fd);
    vq_unlink(w->part);
    vq_status s = vq_journal_start(&w->journal, &w->head, e);
    if (!s) s = vq_fd_open_write(&w->fd, w->part, true, e);
    return s ? s : vq_fd_truncate(w->fd, 0, w->part, e);
}

vq_status vq_check_name(const char *path, bool force, vq_err *e)
{
    if (!vq_file_exists(path)) return VQ_OK;
    if (!vq_is_regular(path)) {
        return vq_fail(e, VQ_EFAIL, "%s: exists and is not a regular file", path);
    }
    return force ? VQ_OK : vq_fail(e, VQ_EFAIL, "%s: exists; --force overwrites it", path);
}

bool vq_writer_begun(const char *path)
{
    char *name = vq_journal_name(path);
    const bool begun = !name || vq_file_exists(name);
    vq_free(name);
    return begun;
}

/* The journal is ours.  Decides whether to go on or to start.  *clean: what there is may be removed
 * should this fail; comes in as whether we made the journal just now. */
static vq_status take_over(vq_writer *w, const vq_writer_spec *spec, bool *clean, vq_err *e)
{
    char why[300];
    const bool exists = vq_file_exists(w->path), part = vq_file_exists(w->part);
    const vq_journal_is is = vq_journal_head_is(&w->journal, &w->head, &w->touched, why);
    const bool same = is == VQ_JOURNAL_SAME;
    vq_status s = VQ_OK;
    *clean |= !part; /* a journal of nothing is worth nothing */
    if (same && !part && exists) { /* it ended between the last two steps */
        s = read_journal(w, UINT64_MAX, e);
        w->found = w->journal.last;
        w->renamed = !s && already_done(w);
        if (w->renamed) recall_figures(w, spec);
        else w->found = (vq_mark){ 0 };
        w->touched &= !w->renamed;
        if (s || w->renamed) return s;
    }
    s = vq_check_name(w->path, spec->force, e);
    if (s) return s;
    if (part && is == VQ_JOURNAL_NONE && !spec->force) {
        return vq_fail(e, VQ_EFAIL, "%s: was begun, but its journal is lost, so nobody knows how "
                       "far it came; start over with --force",
                       w->part);
    }
    if (part && !same && !spec->force) {
        return vq_fail(e, VQ_EFAIL, "%s: was begun %s; convert as then to go on with it, or start "
                       "over with --force",
                       w->part, why);
    }
    if (part && same) {
        s = vq_fd_open_write(&w->fd, w->part, false, e);
        if (!s) s = go_on(w, spec, e);
    }
    *clean |= !same || (!s && !w->found.pos);
    if (!s) s = check_room(w, e);
    return !s && !w->found.pos ? vq_writer_restart(w, e) : s;
}

vq_status vq_writer_begin(vq_writer **out, const vq_writer_spec *spec, vq_err *e)
{
    *out = NULL;
    vq_writer *w;
    bool clean = false;
    vq_status s = prepare(&w, spec, e);
    if (s) return s;
    make_key(w, spec);
    vq_sha256_init(&w->chunk, w->kern);
    s = vq_check_name(w->path, true, e); /* before a journal is made beside what is no file */
    if (!s) s = vq_journal_open(&w->journal, w->path, w->kern, &clean, e);
    if (!s) s = take_over(w, spec, &clean, e);
    else clean = false;
    if (s) {
        discard(w, clean);
        return s;
    }
    *out = w;
    return VQ_OK;
}

const vq_mark *vq_writer_found(const vq_writer *w)
{
    return &w->found;
}

bool vq_writer_touched(const vq_writer *w)
{
    return w->touched;
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
            vq_sha256_end(&w->chunk, hashes(w) + in_body / VAQ_CHUNK * 32);
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

void vq_writer_mark(const vq_writer *w, vq_mark *m)
{
    vq_sha256 sha = w->chunk;
    *m = (vq_mark){ .pos = w->pos };
    m->n_hash = (uint32_t)((w->pos - w->body_off) / VAQ_CHUNK);
    m->n_rmse = w->at + (w->at_done == w->tensor[w->at].size);
    vq_sha256_end(&sha, m->tail);
}

/* Data first, then the entry that speaks of it.  What m covers no put touches any more. */
vq_status vq_writer_commit(vq_writer *w, const vq_mark *m, vq_err *e)
{
    const vq_status s = vq_fd_sync(w->fd, w->part, e);
    return s ? s : vq_journal_add(&w->journal, m, hashes(w), w->tensor, e);
}

/* ---- end ---- */

void vq_writer_late(vq_writer *w, const void *p)
{
    memcpy(w->front + late_off(w), p, w->late);
}

/* Body and front, durable.  The journal must tell of the whole file before the name changes: from
 * it alone the next run knows that all is done. */
static vq_status complete(vq_writer *w, const vq_mark *m, uint8_t root[32], vq_err *e)
{
    assert(w->at + 1 == w->n_tensor && w->at_done == w->tensor[w->at].size);
    vq_status s = pad_to(w, w->file_size, e);
    if (s) return s;
    seal(w, root);
    s = vq_fd_pwrite(w->fd, w->front, (size_t)w->body_off, 0, w->part, e);
    vq_mark all = *m;
    all.pos = w->file_size;
    all.n_hash = (uint32_t)(w->size[VAQ_SEC_CHUNKS] / 32);
    return s ? s : vq_writer_commit(w, &all, e);
}

vq_status vq_writer_whole(vq_writer *w, const vq_mark *m, const char **part, vq_err *e)
{
    uint8_t root[32];
    *part = w->renamed ? NULL : w->part;
    return w->renamed ? VQ_OK : complete(w, m, root, e);
}

vq_status vq_writer_end(vq_writer *w, const vq_mark *m, uint8_t root[32], uint64_t *bytes,
                        vq_err *e)
{
    vq_status s = VQ_OK;
    if (w->renamed) seal(w, root);
    else s = complete(w, m, root, e);
    if (!s && !w->renamed) s = vq_rename(w->part, w->path, e);
    if (s) return s;
    *bytes = w->file_size;
    vq_fd_close(&w->fd); /* it has its name: only the journal is left to remove */
    discard(w, true);
    return VQ_OK;
}

uint64_t vq_writer_abort(vq_writer *w, bool keep)
{
    if (!w) return 0;
    const uint64_t kept = keep ? w->journal.last.source : 0;
    discard(w, !keep || !w->journal.last.pos);
    return kept;
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
    discard(w, false);
    return s;
}
