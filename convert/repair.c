/* repair.c - makes a damaged container whole, from a second copy or from its checkpoint.
 *
 * The hashes in the front say of every MiB what it must be, so a chunk is written only when it is
 * that: nothing wrong can be written, and a repair that is killed has only done less.  A damaged
 * front has no such judge at first.  From a second container it is taken when that one's root is
 * the file's or its hashes fit the body.  From a checkpoint it is made again: with the options
 * under which it resembles what is left, with the hashes and error figures that are left; and it is
 * believed when root or directory agree, which hold hashes of all of it.  If those are gone too,
 * all is converted again beside the file, and takes its place when most of the body is the same;
 * but not with a quality card, whose figures are copied: those must agree with root or directory.
 * A section of the file that fits its own hash and not the new front speaks against all of that. */
#include "convert/repair.h"

#include "convert/quality.h"
#include "core/base/mem.h"
#include "core/base/pool.h"
#include "core/file/check.h"

#include <string.h>

static vq_status no_memory(const char *path, vq_err *e)
{
    return vq_fail(e, VQ_ENOMEM, "%s: out of memory", path);
}

static bool is_container(const char *path)
{
    vq_fd f;
    uint64_t size;
    char magic[8];
    if (vq_fd_open_read(&f, path, &size, NULL)) return false;
    const bool is = size > sizeof magic &&
                    !vq_fd_pread(f, magic, sizeof magic, 0, path, NULL) &&
                    !memcmp(magic, VAQ_MAGIC, sizeof magic);
    vq_fd_close(&f);
    return is;
}

static vq_status open_locked(vq_fd *fd, const char *path, vq_err *e)
{
    vq_status s = vq_fd_open_write(fd, path, false, e);
    if (!s && !vq_fd_lock(*fd)) {
        vq_fd_close(fd);
        s = vq_fail(e, VQ_EFAIL, "%s: another process works on it", path);
    }
    return s;
}

static cv_opts opts_of(const cv_repair *o)
{
    return (cv_opts){ .src = o->src, .type = -1, .cpu = o->cpu, .threads = o->threads,
                      .progress = o->progress, .ctx = o->ctx };
}

/* ---- the body ---- */

typedef struct mender {
    const cv_repair *o;
    const vq_file *f;
    vq_verify *v;
    vq_fd fd;
    uint8_t *chunk;         /* (VAQ_CHUNK) bad chunk `at` as far as it has been made */
    size_t at;              /* in v->bad; those before are done */
} mender;

/* Chunk m->at is made: right, or not from the same weights. */
static vq_status finish_chunk(mender *m, const void *p, vq_err *e)
{
    vq_bad *b = &m->v->bad[m->at];
    const uint64_t i = (b->off - m->f->header->body_off) / VAQ_CHUNK;
    uint8_t hash[32];
    vq_sha256 sha;
    vq_sha256_init(&sha, m->o->kern);
    vq_sha256_add(&sha, p, (size_t)b->len);
    vq_sha256_end(&sha, hash);
    if (memcmp(hash, m->f->chunks + 32 * i, sizeof hash) != 0) {
        const unsigned long long from = b->off, end = b->off + b->len;
        return vq_fail(e, VQ_EFAIL, "%s: its bytes %llu to %llu cannot be had from %s, whose "
                       "content is another there",
                       m->o->path, from, end, m->o->src);
    }
    const vq_status s = vq_fd_pwrite(m->fd, p, (size_t)b->len, b->off, m->o->path, e);
    if (s) return s;
    b->mended = true;
    m->at++;
    memset(m->chunk, 0, VAQ_CHUNK); /* what no tensor covers is zero */
    return VQ_OK;
}

/* Bands come in file order: a chunk is made when one comes that begins behind it. */
static vq_status take_band(void *to, uint64_t at, const void *p, size_t n, vq_err *e)
{
    mender *m = to;
    const uint8_t *from = p;
    vq_status s = VQ_OK;
    while (!s && n && m->at < m->v->n_bad) {
        const vq_bad *b = &m->v->bad[m->at];
        if (at >= b->off + b->len) {
            s = finish_chunk(m, m->chunk, e);
            continue;
        }
        const uint64_t skip = at < b->off ? b->off - at : 0;
        if (skip >= n) break;
        at += skip;
        from += skip;
        n -= (size_t)skip;
        const uint64_t room = b->off + b->len - at;
        const size_t take = n < room ? n : (size_t)room;
        memcpy(m->chunk + (at - b->off), from, take);
        at += take;
        from += take;
        n -= take;
    }
    return s;
}

static vq_status from_checkpoint(mender *m, vq_err *e)
{
    cv_range *range = vq_calloc(m->v->n_bad, sizeof *range);
    if (!range) return no_memory(m->o->path, e);
    for (size_t i = 0; i < m->v->n_bad; i++) {
        range[i] = (cv_range){ m->v->bad[i].off, m->v->bad[i].off + m->v->bad[i].len };
    }
    const cv_opts o = opts_of(m->o);
    vq_status s = cv_remake(&o, m->f, range, m->v->n_bad, take_band, m, e);
    while (!s && m->at < m->v->n_bad) s = finish_chunk(m, m->chunk, e);
    vq_free(range);
    return s;
}

/* A copy may be damaged too, elsewhere: what it has is taken. */
static vq_status from_container(mender *m, vq_err *e)
{
    vq_file *d;
    vq_status s = vq_file_open(&d, m->o->src, m->o->kern, e), bad = VQ_OK;
    if (s) return s;
    if (memcmp(d->header->root, m->f->header->root, sizeof d->header->root) != 0) {
        s = vq_fail(e, VQ_EFAIL, "%s: is another model than %s, or of other types", m->o->src,
                    m->o->path);
    }
    while (!s && m->at < m->v->n_bad) {
        const vq_bad *b = &m->v->bad[m->at];
        s = finish_chunk(m, d->map.p + b->off, e);
        if (s != VQ_EFAIL) continue;
        bad = s;
        s = VQ_OK;
        m->at++;
    }
    vq_file_close(d);
    return s ? s : bad;
}

vq_status cv_repair_body(const cv_repair *o, const vq_file *f, vq_verify *v, vq_err *e)
{
    mender m = { .o = o, .f = f, .v = v, .chunk = vq_calloc(VAQ_CHUNK, 1) };
    if (!m.chunk) return no_memory(o->path, e);
    vq_status s = open_locked(&m.fd, o->path, e);
    if (!s) {
        s = is_container(o->src) ? from_container(&m, e) : from_checkpoint(&m, e);
        const vq_status synced = vq_fd_sync(m.fd, o->path, s ? NULL : e);
        if (!s) s = synced;
        vq_fd_close(&m.fd);
    }
    vq_free(m.chunk);
    return s;
}

/* ---- the front ---- */

typedef struct wreck {
    const cv_repair *o;
    vq_fd fd;
    vq_map map;             /* the damaged file */
} wreck;

/* The right front, proved: in place, and the file as long as it says. */
static vq_status put_front(const wreck *x, const void *p, vq_err *e)
{
    const vaq_header *h = p;
    vq_status s = VQ_OK;
    if (x->map.size != h->file_size) s = vq_fd_truncate(x->fd, h->file_size, x->o->path, e);
    if (!s) s = vq_fd_pwrite(x->fd, p, (size_t)h->body_off, 0, x->o->path, e);
    return s ? s : vq_fd_sync(x->fd, x->o->path, e);
}

static bool same_root(const wreck *x, const vaq_header *h)
{
    return x->map.size >= sizeof *h &&
           !memcmp(x->map.p + offsetof(vaq_header, root), h->root, sizeof h->root);
}

/* Which share of the body is as d's hashes say? */
static vq_status share_of_body(const wreck *x, const vq_file *d, double *share, vq_err *e)
{
    vq_file as = *d; /* its tables, our bytes */
    vq_verify v = { 0 };
    vq_pool *pool;
    *share = 0;
    if (x->map.size != d->map.size) return VQ_OK;
    as.map = x->map;
    as.path = (char *)(uintptr_t)x->o->path;
    vq_status s = vq_pool_new(&pool, x->o->threads > 0 ? x->o->threads : vq_cpu_fast_count(), e);
    if (s) return s;
    s = vq_file_verify(&as, x->o->kern, pool, x->o->progress, x->o->ctx, &v, e);
    vq_pool_free(pool);
    *share = 1 - (double)v.n_bad / (double)d->n_chunk;
    vq_verify_clear(&v);
    return s == VQ_EFORMAT ? VQ_OK : s;
}

static vq_status other_content(const wreck *x, vq_err *e)
{
    return vq_fail(e, VQ_EFAIL, "%s: %s is not what it was before it was damaged, as far as what "
                   "is left can tell; nothing was changed",
                   x->o->path, x->o->src);
}

static const vaq_section *section_of(const void *p, vaq_section_id id)
{
    const vaq_header *h = p;
    const vaq_section *dir = (const vaq_section *)(const void *)(h + 1);
    for (uint32_t i = 0; i < h->n_sections; i++) {
        if (dir[i].id == (uint32_t)id) return &dir[i];
    }
    return NULL;
}

/* Is there a section of the file that is whole, and another than in this front?  skip: an id. */
static bool contradicts(const wreck *x, const void *right, uint32_t skip)
{
    const vaq_header *h = right;
    const vaq_section *dir = (const vaq_section *)(const void *)(h + 1);
    for (uint32_t i = 0; i < h->n_sections; i++) {
        vaq_section s;
        uint8_t hash[32];
        vq_sha256 sha;
        const uint64_t at = sizeof *h + i * sizeof s;
        if (at + sizeof s > x->map.size || dir[i].id == skip) continue;
        memcpy(&s, x->map.p + at, sizeof s);
        if (s.id != dir[i].id || s.off > x->map.size || s.size > x->map.size - s.off ||
            !memcmp(s.sha256, dir[i].sha256, sizeof hash)) {
            continue;
        }
        vq_sha256_init(&sha, x->o->kern);
        vq_sha256_add(&sha, x->map.p + s.off, (size_t)s.size);
        vq_sha256_end(&sha, hash);
        if (!memcmp(hash, s.sha256, sizeof hash)) return true;
    }
    return false;
}

static vq_status front_of_container(const wreck *x, uint64_t *len, vq_err *e)
{
    vq_file *d;
    double share = 0;
    vq_status s = vq_file_open(&d, x->o->src, x->o->kern, e);
    if (s) return s;
    *len = d->header->body_off;
    if (!same_root(x, d->header)) s = share_of_body(x, d, &share, e);
    else share = 1;
    if (!s && (share < 0.5 || contradicts(x, d->map.p, 0))) s = other_content(x, e);
    if (!s) s = put_front(x, d->map.p, e);
    vq_file_close(d);
    return s;
}

/* How much of what can be known beforehand is in the file as in a front made anew, by lines of 64
 * bytes?  The error figures of the tensors do not count. */
static double likeness(const wreck *x, const char *made)
{
    static const vaq_section_id known[] = {
        VAQ_SEC_CONFIG, VAQ_SEC_META, VAQ_SEC_ROPE, VAQ_SEC_TENSORS
    };
    const size_t rmse = offsetof(vaq_tensor, rel_rmse);
    size_t all = 0, same = 0;
    for (size_t k = 0; k < sizeof known / sizeof known[0]; k++) {
        const vaq_section *s = section_of(made, known[k]);
        for (uint64_t at = s->off; at < s->off + s->size; at += 64, all++) {
            char a[64], b[64];
            if (at + 64 > x->map.size) continue;
            memcpy(a, made + at, 64);
            memcpy(b, x->map.p + at, 64);
            if (known[k] == VAQ_SEC_TENSORS) memcpy(b + rmse, a + rmse, sizeof(float));
            same += !memcmp(a, b, 64);
        }
    }
    return (double)same / (double)all;
}

/* The metadata that are left, as far as they can be read; by the directory, or, if that does not
 * lead to any, from where writers put them (behind the config).  false: none. */
static bool meta_left(const wreck *x, vq_file *f)
{
    const vaq_header *h = (const vaq_header *)(const void *)x->map.p;
    *f = (vq_file){ 0 };
    if (x->map.size < VAQ_PAGE) return false;
    if (h->n_sections <= (VAQ_PAGE - sizeof *h) / sizeof(vaq_section)) {
        const vaq_section *s = section_of(x->map.p, VAQ_SEC_META);
        if (s && s->off <= x->map.size && s->size <= x->map.size - s->off) {
            *f = (vq_file){ .meta = x->map.p + s->off, .meta_size = (size_t)s->size };
            if (!vq_check_meta(f->meta, f->meta_size, x->o->path, NULL)) return f->meta_size != 0;
        }
    }
    for (uint64_t n = VAQ_SEC_TOKENIZER; n >= VAQ_SEC_CHUNKS; n--) { /* with a tokenizer, without */
        const uint64_t end = sizeof *h + n * sizeof(vaq_section) + sizeof(vaq_config);
        const uint64_t off = (end + 63) / 64 * 64;
        *f = (vq_file){ .meta = x->map.p + off };
        f->meta_size = vq_meta_extent(f->meta, (size_t)(x->map.size - off));
        if (f->meta_size) return true;
    }
    return false;
}

/* Tries the options of convert; *best are those whose front the file resembles most. */
static vq_status find_options(const wreck *x, cv_opts *best, vq_buf *made, double *like, vq_err *e)
{
    static const int types[] = { -1,   Q_N4, Q_N4S,  Q_N5,  Q_L6, Q_L8,
                                 Q_P6, Q_P5, Q_BF16, Q_F16, Q_F32 };
    enum { N = sizeof types / sizeof types[0] };
    vq_file left;
    const bool any = meta_left(x, &left);
    const vq_str rules = any ? vq_file_meta(&left, "rules") : (vq_str){ NULL, 0 };
    const vq_str quality = any ? cv_quality_find(&left) : (vq_str){ NULL, 0 };
    vq_status first = VQ_OK;
    *like = 0;
    for (unsigned i = 0; *like < 1 && i < N * 8; i++) {
        cv_opts o = opts_of(x->o);
        cv_report r;
        vq_err why = { 0 };
        vq_buf b = { 0 };
        o.progress = NULL;
        o.dry_run = true;
        o.front = &b;
        o.rules = rules;
        o.rules_name = x->o->path;
        o.quality = quality;
        o.no_tokenizer = i & 1;
        o.drop_mtp = i & 2;
        o.yarn_hf = i & 4;
        o.type = types[i / 8];
        const vq_status s = cv_convert(&o, &r, &why);
        cv_report_clear(&r);
        if (s && !first) { /* of a source that converts in no way the first reason is told */
            first = s;
            if (e) *e = why;
        }
        const double l = s ? 0 : likeness(x, b.p);
        if (l > *like) {
            vq_buf_clear(made);
            *made = b;
            *like = l;
            *best = o;
        } else {
            vq_buf_clear(&b);
        }
    }
    return made->p ? VQ_OK : first ? first : other_content(x, e);
}

/* Is this sealed front that of the file?  Root and directory hold hashes of all of it. */
static bool hashes_agree(const wreck *x, const void *made)
{
    const vaq_header *h = made;
    return same_root(x, h) || !memcmp(x->map.p + sizeof *h, h + 1,
                                      h->n_sections * sizeof(vaq_section));
}

static bool proved(const wreck *x, void *made)
{
    vq_front_seal(made, x->o->kern);
    return hashes_agree(x, made);
}

/* Figures that nothing proves are not passed on. */
static vq_status card_lost(const wreck *x, vq_err *e)
{
    return vq_fail(e, VQ_EFAIL, "%s: its quality card cannot be trusted, and is measured on a text "
                   "that is not here: repair it from a copy, or convert again with --card",
                   x->o->path);
}

/* Gives the front made anew the error figures and hashes that are left in the file; and if that is
 * not it, the hashes that its body has. */
static bool complete(const wreck *x, vq_buf *made)
{
    const vaq_header *h = (const vaq_header *)(const void *)made->p;
    const vaq_section *t = section_of(h, VAQ_SEC_TENSORS), *c = section_of(h, VAQ_SEC_CHUNKS);
    if (x->map.size < made->n) return false;
    for (uint64_t at = t->off + offsetof(vaq_tensor, rel_rmse); at < t->off + t->size;
         at += sizeof(vaq_tensor)) {
        memcpy(made->p + at, x->map.p + at, sizeof(float));
    }
    memcpy(made->p + c->off, x->map.p + c->off, (size_t)c->size);
    if (proved(x, made->p)) return true;
    if (x->map.size != h->file_size) return false;
    for (uint64_t i = 0; i < c->size / 32; i++) {
        const uint64_t at = i * VAQ_CHUNK, left = h->body_size - at;
        vq_sha256 sha;
        vq_sha256_init(&sha, x->o->kern);
        vq_sha256_add(&sha, x->map.p + h->body_off + at, left < VAQ_CHUNK ? left : VAQ_CHUNK);
        vq_sha256_end(&sha, (uint8_t *)made->p + c->off + 32 * i);
    }
    return proved(x, made->p);
}

/* Nothing proves the front: all of it anew beside the file. */
static vq_status convert_again(const wreck *x, const cv_opts *found, vq_err *e)
{
    cv_opts o = opts_of(x->o);
    cv_report r;
    vq_file *f = NULL;
    vq_buf name = { 0 };
    double share = 0;
    vq_buf_printf(&name, "%s.repaired", x->o->path);
    if (name.oom) {
        vq_buf_clear(&name);
        return no_memory(x->o->path, e);
    }
    o.out = name.p;
    o.force = true;
    o.type = found->type;
    o.rules = found->rules;
    o.rules_name = found->rules_name;
    o.quality = found->quality;
    o.no_tokenizer = found->no_tokenizer;
    o.drop_mtp = found->drop_mtp;
    o.yarn_hf = found->yarn_hf;
    vq_status s = cv_convert(&o, &r, e);
    if (!s) s = vq_file_open(&f, o.out, x->o->kern, e);
    if (!s) s = share_of_body(x, f, &share, e);
    if (!s && (share < 0.5 || contradicts(x, f->map.p, 0))) s = other_content(x, e);
    if (!s && o.quality.n && !hashes_agree(x, f->map.p)) s = card_lost(x, e);
    vq_file_close(f);
    if (!s) s = vq_rename(o.out, x->o->path, e);
    else if (s == VQ_EFAIL) vq_unlink(o.out);
    cv_report_clear(&r);
    vq_buf_clear(&name);
    return s;
}

static vq_status front_of_checkpoint(const wreck *x, uint64_t *len, vq_err *e)
{
    cv_opts best = { 0 };
    vq_buf made = { 0 };
    double like;
    vq_status s = find_options(x, &best, &made, &like, e);
    *len = made.n;
    if (!s && like < 0.5) s = other_content(x, e);
    else if (!s && complete(x, &made)) s = put_front(x, made.p, e);
    else if (!s && contradicts(x, made.p, VAQ_SEC_CHUNKS)) s = other_content(x, e);
    else if (!s) s = convert_again(x, &best, e);
    vq_buf_clear(&made);
    return s;
}

vq_status cv_repair_front(const cv_repair *o, uint64_t *len, vq_err *e)
{
    wreck x = { .o = o, .map = { .slot = -1 } };
    *len = 0;
    vq_status s = open_locked(&x.fd, o->path, e);
    if (s) return s;
    s = vq_map_open(&x.map, o->path, e);
    if (!s && !x.map.size) s = vq_fail(e, VQ_EFORMAT, "%s: empty; convert it again", o->path);
    if (!s) {
        s = is_container(o->src) ? front_of_container(&x, len, e)
                                 : front_of_checkpoint(&x, len, e);
    }
    vq_map_close(&x.map);
    vq_fd_close(&x.fd);
    return s;
}
