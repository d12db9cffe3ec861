/* journal.c - the journal of an unfinished container (journal.h).
 *
 * Head and entries have the same frame: { u32 magic, u32 size of what follows }, what follows, 32
 * bytes of SHA-256 over the hash before, the frame and what follows.  A journal is small (32 bytes
 * per MiB of the container), is only ever appended to, and is read with plain reads: nothing here
 * is worth a map.  The name is locked, not only the file: a process that finds the file gone once
 * it has the lock tries again, for the one that held it has finished. */
#include "core/file/journal.h"

#include "core/base/mem.h"

#include <stdio.h>
#include <string.h>

enum {
    MAGIC_HEAD = 0x314a5156, /* "VQJ1" */
    MAGIC_ENTRY = 0x454a5156 /* "VQJE" */
};

typedef struct frame {
    uint32_t magic;
    uint32_t size;          /* of what follows, without the hash */
} frame;

typedef struct head_fixed { /* then the metadata */
    uint8_t key[32], stamp[32];
} head_fixed;

typedef struct entry_fixed { /* then hashes, then figures */
    vq_mark mark;
    uint32_t n_hash, n_rmse; /* in this entry */
} entry_fixed;

static void seal(const vq_journal *j, uint8_t out[32], const void *before, const void *p, size_t n)
{
    vq_sha256 s;
    vq_sha256_init(&s, j->kern);
    vq_sha256_add(&s, before, 32);
    vq_sha256_add(&s, p, n);
    vq_sha256_end(&s, out);
}

static const uint8_t no_hash[32];

/* The frame at `at` with its content in *b (frame first); false: it is not whole. */
static bool get(const vq_journal *j, uint64_t at, uint32_t magic, const uint8_t before[32],
                vq_buf *b, uint8_t hash[32])
{
    const uint64_t end = vq_fd_stamp(j->fd).size;
    frame f;
    uint8_t sum[32];
    vq_buf_reset(b);
    if (end < at || end - at < sizeof f) return false;
    if (vq_fd_pread(j->fd, &f, sizeof f, at, j->path, NULL)) return false;
    if (f.magic != magic || f.size > end - at - sizeof f) return false;
    const size_t n = sizeof f + f.size;
    if (end - at - n < 32) return false;
    for (size_t i = 0; i < n + 32; i += 64) vq_buf_add(b, (const char[64]){ 0 }, 64);
    if (b->oom || vq_fd_pread(j->fd, b->p, n + 32, at, j->path, NULL)) return false;
    seal(j, sum, before, b->p, n);
    b->n = n;
    memcpy(hash, sum, 32);
    return !memcmp(sum, b->p + n, 32);
}

/* Appends a frame that has everything but its size. */
static vq_status put(vq_journal *j, vq_buf *b, vq_err *e)
{
    uint8_t sum[32];
    if (b->oom) return vq_fail(e, VQ_ENOMEM, "%s: out of memory", j->path);
    const uint32_t size = (uint32_t)(b->n - sizeof(frame));
    memcpy(b->p + offsetof(frame, size), &size, sizeof size);
    seal(j, sum, j->chain, b->p, b->n);
    vq_buf_add(b, sum, sizeof sum);
    if (b->oom) return vq_fail(e, VQ_ENOMEM, "%s: out of memory", j->path);
    vq_status s = vq_fd_pwrite(j->fd, b->p, b->n, j->size, j->path, e);
    if (!s) s = vq_fd_sync(j->fd, j->path, e);
    if (s) return s;
    j->size += b->n;
    memcpy(j->chain, sum, sizeof sum);
    return VQ_OK;
}

char *vq_journal_name(const char *path)
{
    vq_buf name = { 0 };
    vq_buf_printf(&name, "%s.journal", path);
    if (!name.oom) return name.p;
    vq_buf_clear(&name);
    return NULL;
}

vq_status vq_journal_open(vq_journal *j, const char *path, const q_kern *kern, bool *made,
                          vq_err *e)
{
    *j = (vq_journal){ .fd = { -1 }, .kern = kern, .path = vq_journal_name(path) };
    if (!j->path) return vq_fail(e, VQ_ENOMEM, "%s: out of memory", path);
    for (;;) {
        *made = !vq_file_exists(j->path);
        vq_status s = vq_fd_open_write(&j->fd, j->path, true, e);
        if (s) return s;
        if (!vq_fd_lock(j->fd)) {
            return vq_fail(e, VQ_EFAIL, "%s: is being converted by another process; let that one "
                           "finish, or choose another place with -o",
                           path);
        }
        if (vq_fd_named(j->fd, j->path)) return VQ_OK;
        vq_fd_close(&j->fd);
    }
}

/* The first thing in which two sets of metadata differ that a user can do something about. */
static void explain(char why[300], const vq_buf *head, const vq_journal_head *now)
{
    static const struct { const char *key, *what; bool show; } all[] = {
        { "source_sha256", "from another checkpoint (its headers or its config are not the same)",
          false },
        { "recipe", "with another recipe", true },
        { "quality.text_sha256", "with another text for its card, or without one", false },
        { "tool", "by another version", true },
        { "name", "under another name", true },
    };
    const size_t at = sizeof(frame) + sizeof(head_fixed);
    const vq_file then = { .meta = (const uint8_t *)head->p + at, .meta_size = head->n - at };
    const vq_file ours = { .meta = now->meta, .meta_size = now->meta_size };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        const vq_str a = vq_file_meta(&then, all[i].key), b = vq_file_meta(&ours, all[i].key);
        if (a.n == b.n && (!a.n || !memcmp(a.p, b.p, a.n))) continue;
        if (!all[i].show) snprintf(why, 300, "%s", all[i].what);
        else snprintf(why, 300, "%s (\"%.*s\", now \"%.*s\")", all[i].what,
                      a.n > 100 ? 100 : (int)a.n, a.n ? a.p : "", b.n > 100 ? 100 : (int)b.n,
                      b.n ? b.p : "");
        return;
    }
    snprintf(why, 300, "with another tokenizer, template or config");
}

vq_journal_is vq_journal_head_is(const vq_journal *j, const vq_journal_head *head, bool *touched,
                                 char why[300])
{
    vq_buf b = { 0 };
    uint8_t hash[32];
    vq_journal_is is = VQ_JOURNAL_NONE;
    if (get(j, 0, MAGIC_HEAD, no_hash, &b, hash) && b.n >= sizeof(frame) + sizeof(head_fixed)) {
        head_fixed h;
        memcpy(&h, b.p + sizeof(frame), sizeof h);
        const bool same = !memcmp(h.key, head->key, sizeof h.key);
        is = same ? VQ_JOURNAL_SAME : VQ_JOURNAL_OTHER;
        *touched = memcmp(h.stamp, head->stamp, sizeof h.stamp) != 0;
        if (!same) explain(why, &b, head);
    }
    vq_buf_clear(&b);
    return is;
}

vq_status vq_journal_read(vq_journal *j, uint64_t until, uint8_t *hash, uint64_t n_hash,
                          vaq_tensor *tensor, uint32_t n_tensor, vq_err *e)
{
    vq_buf b = { 0 };
    uint8_t sum[32];
    j->last = (vq_mark){ 0 };
    j->size = 0;
    for (uint32_t magic = MAGIC_HEAD;
         get(j, j->size, magic, magic == MAGIC_HEAD ? no_hash : j->chain, &b, sum);
         magic = MAGIC_ENTRY) {
        entry_fixed x = { 0 };
        const char *p = b.p + sizeof(frame) + sizeof x;
        if (magic == MAGIC_ENTRY) {
            if (b.n < sizeof(frame) + sizeof x) break;
            memcpy(&x, b.p + sizeof(frame), sizeof x);
            if (x.mark.pos > until) break;
            /* What is hashed was written by us: these are for a build that made another layout. */
            if (x.mark.n_hash > n_hash || x.mark.n_rmse > n_tensor || x.n_hash > x.mark.n_hash ||
                x.n_rmse > x.mark.n_rmse ||
                b.n != (size_t)(p - b.p) + 32 * (size_t)x.n_hash + 4 * (size_t)x.n_rmse) {
                break;
            }
            memcpy(hash + 32 * (uint64_t)(x.mark.n_hash - x.n_hash), p, 32 * (size_t)x.n_hash);
            p += 32 * (size_t)x.n_hash;
            for (uint32_t i = 0; i < x.n_rmse; i++, p += 4) {
                memcpy(&tensor[x.mark.n_rmse - x.n_rmse + i].rel_rmse, p, 4);
            }
            j->last = x.mark;
        }
        memcpy(j->chain, sum, sizeof sum);
        j->size += b.n + sizeof sum;
    }
    const vq_status s = b.oom ? vq_fail(e, VQ_ENOMEM, "%s: out of memory", j->path) : VQ_OK;
    vq_buf_clear(&b);
    return s;
}

vq_status vq_journal_start(vq_journal *j, const vq_journal_head *head, vq_err *e)
{
    vq_buf b = { 0 };
    const frame f = { .magic = MAGIC_HEAD };
    head_fixed h;
    memcpy(h.key, head->key, sizeof h.key);
    memcpy(h.stamp, head->stamp, sizeof h.stamp);
    vq_buf_add(&b, &f, sizeof f);
    vq_buf_add(&b, &h, sizeof h);
    if (head->meta_size) vq_buf_add(&b, head->meta, head->meta_size);
    memcpy(j->chain, no_hash, sizeof j->chain);
    j->size = 0;
    j->last = (vq_mark){ 0 };
    vq_status s = vq_fd_truncate(j->fd, 0, j->path, e);
    if (!s) s = put(j, &b, e);
    vq_buf_clear(&b);
    if (!s) vq_folder_sync(j->path);
    return s;
}

vq_status vq_journal_add(vq_journal *j, const vq_mark *m, const uint8_t *hash,
                         const vaq_tensor *tensor, vq_err *e)
{
    vq_buf b = { 0 };
    const frame f = { .magic = MAGIC_ENTRY };
    const entry_fixed x = { .mark = *m, .n_hash = m->n_hash - j->last.n_hash,
                            .n_rmse = m->n_rmse - j->last.n_rmse };
    vq_buf_add(&b, &f, sizeof f);
    vq_buf_add(&b, &x, sizeof x);
    if (x.n_hash) vq_buf_add(&b, hash + 32 * (size_t)j->last.n_hash, 32 * (size_t)x.n_hash);
    for (uint32_t i = j->last.n_rmse; i < m->n_rmse; i++) {
        vq_buf_add(&b, &tensor[i].rel_rmse, sizeof tensor[i].rel_rmse);
    }
    const vq_status s = put(j, &b, e);
    if (!s) j->last = *m;
    vq_buf_clear(&b);
    return s;
}

void vq_journal_close(vq_journal *j, bool remove)
{
    if (remove && j->path) vq_unlink(j->path);
    if (j->path) vq_fd_close(&j->fd);
    vq_free(j->path);
    *j = (vq_journal){ .fd = { -1 } };
}
