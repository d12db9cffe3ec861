/* reader.c - opens a container: hashes its front, proves it, hands out pointers into the map.
 *
 * Order matters.  First the few fields that say what the file is, so that a newer version, a text
 * file or a cut download is told by name; then the root, and from there on a flipped byte of the
 * front is caught by a hash before anything is believed; then the meaning of what was hashed.
 * The body is not touched: `verify` hashes it, and a flipped weight changes results, never
 * memory accesses. */
#include "core/base/mem.h"
#include "core/file/check.h"
#include "core/file/file.h"

#include <assert.h>
#include <limits.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "containers are used in place: vaquita needs a little-endian machine"
#endif

typedef struct opened { /* what vq_file_close needs to know besides */
    vq_file f;          /* first: a vq_file * is an opened * */
    bool mapped;        /* the map is ours */
} opened;

typedef unsigned long long ull;

static bool all_zero(const uint8_t *p, uint64_t n)
{
    return n == 0 || (p[0] == 0 && memcmp(p, p + 1, (size_t)n - 1) == 0);
}

static bool starts(const vq_file *f, const char *s)
{
    size_t n = strlen(s);
    return f->map.size >= n && memcmp(f->map.p, s, n) == 0;
}

static vq_status damaged(const vq_file *f, vq_err *e, uint64_t off, const char *what)
{
    return vq_fail(e, VQ_EFORMAT, "%s: damaged at byte %llu: %s; copy or convert it again", f->path,
                   (ull)off, what);
}

/* ---- header ---- */

/* Not ours: say what it is when that is easy. */
static vq_status foreign(const vq_file *f, vq_err *e)
{
    const char *what = "not a .vaq container";
    if (starts(f, "version https://git-lfs")) {
        what = "a Git LFS pointer, not the file itself; fetch it with `git lfs pull`";
    } else if (starts(f, "GGUF")) {
        what = "a GGUF file, not a .vaq container; see `vaquita help convert`";
    } else if (starts(f, "\x89VAQ") || starts(f, "\tVAQ")) {
        what = "damaged by a transfer in text mode; copy it again as binary";
    } else if (f->map.size == 0) {
        what = "empty";
    }
    return vq_fail(e, VQ_EFORMAT, "%s: %s", f->path, what);
}

static vq_status check_header(vq_file *f, const q_kern *kern, vq_err *e)
{
    const vaq_header *h = (const vaq_header *)(const void *)f->map.p;
    const uint64_t size = f->map.size;
    const size_t len = sizeof h->magic < size ? sizeof h->magic : (size_t)size;
    if (!len || memcmp(f->map.p, VAQ_MAGIC, len) != 0) return foreign(f, e);
    if (size < sizeof *h) return damaged(f, e, size, "the file is cut inside its header");
    if (h->version > VAQ_VERSION) {
        return vq_fail(e, VQ_EFORMAT,
                       "%s: made by a newer vaquita (format %u, we read %d); update vaquita",
                       f->path, h->version, VAQ_VERSION);
    }
    if (h->version != VAQ_VERSION) return damaged(f, e, 8, "no such format version");

    const uint64_t dir = (uint64_t)h->n_sections * sizeof(vaq_section);
    if (h->n_sections > VAQ_MAX_SECTIONS) return damaged(f, e, 40, "too many sections");
    if (dir > size - sizeof *h) return damaged(f, e, size, "the file is cut inside its directory");
    vaq_header clean = *h;
    uint8_t root[32];
    vq_sha256 sha;
    memset(clean.root, 0, sizeof clean.root);
    vq_sha256_init(&sha, kern);
    vq_sha256_add(&sha, &clean, sizeof clean);
    vq_sha256_add(&sha, f->map.p + sizeof *h, (size_t)dir);
    vq_sha256_end(&sha, root);
    if (memcmp(root, h->root, sizeof root) != 0) {
        return damaged(f, e, 0, "header or directory do not match their hash");
    }

    if (h->arith != VAQ_ARITH) {
        return vq_fail(e, VQ_EFORMAT, "%s: made for arith %u, this build computes arith %d; %s",
                       f->path, h->arith, VAQ_ARITH,
                       h->arith > VAQ_ARITH ? "update vaquita" : "convert the checkpoint again");
    }
    if (h->file_size != size) {
        return vq_fail(e, VQ_EFORMAT,
                       "%s: damaged: has %llu bytes, its header says %llu; copy it again", f->path,
                       (ull)size, (ull)h->file_size);
    }
    if (h->body_off % VAQ_PAGE || h->body_off < sizeof *h + dir || h->body_off > size) {
        return damaged(f, e, 24, "the body begins at an impossible place");
    }
    if (h->body_size != size - h->body_off || h->body_size % VAQ_PAGE) {
        return damaged(f, e, 32, "the body has an impossible size");
    }
    if (!all_zero(h->pad, sizeof h->pad)) return damaged(f, e, 80, "a reserved byte is not zero");
    f->own_header = *h;
    f->header = &f->own_header;
    f->section = (const vaq_section *)(const void *)(f->map.p + sizeof *h);
    return VQ_OK;
}

/* ---- sections ---- */

static bool known_section(uint32_t id)
{
    return id >= VAQ_SEC_META && id <= VAQ_SEC_TOKENIZER;
}

static vq_status check_section(const vq_file *f, uint32_t i, const q_kern *kern, vq_err *e)
{
    const vaq_section *s = &f->section[i];
    const uint64_t at = sizeof(vaq_header) + i * sizeof *s, limit = f->header->body_off;
    if (!known_section(s->id) && !(s->id >> 31)) {
        return vq_fail(e, VQ_EFORMAT, "%s: section %u is unknown to this build; update vaquita",
                       f->path, s->id);
    }
    for (uint32_t k = 0; k < i; k++) {
        if (f->section[k].id == s->id) return damaged(f, e, at, "a section stands there twice");
    }
    if (s->pad || s->pad2) return damaged(f, e, at, "a reserved byte is not zero");
    if (s->off % 64 || s->off > limit || s->size > limit - s->off) {
        return damaged(f, e, at, "a section lies at an impossible place");
    }
    uint8_t hash[32];
    vq_sha256 sha;
    vq_sha256_init(&sha, kern);
    vq_sha256_add(&sha, f->map.p + s->off, (size_t)s->size);
    vq_sha256_end(&sha, hash);
    if (memcmp(hash, s->sha256, sizeof hash) != 0) {
        return damaged(f, e, s->off, "a section does not match its hash");
    }
    return VQ_OK;
}

/* No overlaps, and nothing but zeros between the sections: hashes do not cover the gaps. */
static vq_status check_gaps(const vq_file *f, vq_err *e)
{
    const uint32_t n = f->header->n_sections;
    uint8_t order[VAQ_MAX_SECTIONS];
    for (uint32_t i = 0; i < n; i++) { /* insertion sort by (off, size): empty ones come first */
        uint32_t k = i;
        for (; k; k--) {
            const vaq_section *a = &f->section[order[k - 1]], *b = &f->section[i];
            if (a->off < b->off || (a->off == b->off && a->size <= b->size)) break;
            order[k] = order[k - 1];
        }
        order[k] = (uint8_t)i;
    }
    uint64_t end = sizeof(vaq_header) + n * sizeof(vaq_section);
    for (uint32_t i = 0; i <= n; i++) {
        const uint64_t next = i < n ? f->section[order[i]].off : f->header->body_off;
        if (next < end) return damaged(f, e, next, "sections overlap");
        if (!all_zero(f->map.p + end, next - end)) {
            return damaged(f, e, end, "the padding behind a section is not zero");
        }
        if (i < n) end = next + f->section[order[i]].size;
    }
    return VQ_OK;
}

/* The section `id`; NULL when the container has none. */
static const vaq_section *section(const vq_file *f, vaq_section_id id)
{
    for (uint32_t i = 0; i < f->header->n_sections; i++) {
        if (f->section[i].id == (uint32_t)id) return &f->section[i];
    }
    return NULL;
}

static vq_status need_section(const vq_file *f, vaq_section_id id, const char *what,
                              const vaq_section **out, vq_err *e)
{
    *out = section(f, id);
    return *out ? VQ_OK : vq_fail(e, VQ_EFORMAT, "%s: has no %s section", f->path, what);
}

static vq_status bind_sections(vq_file *f, vq_err *e)
{
    const vaq_section *meta, *config, *rope, *tensors, *chunks;
    const vaq_section *tok = section(f, VAQ_SEC_TOKENIZER);
    vq_status s;
    if ((s = need_section(f, VAQ_SEC_META, "metadata", &meta, e)) != VQ_OK ||
        (s = need_section(f, VAQ_SEC_CONFIG, "config", &config, e)) != VQ_OK ||
        (s = need_section(f, VAQ_SEC_ROPE, "rope", &rope, e)) != VQ_OK ||
        (s = need_section(f, VAQ_SEC_TENSORS, "tensor", &tensors, e)) != VQ_OK ||
        (s = need_section(f, VAQ_SEC_CHUNKS, "chunk hash", &chunks, e)) != VQ_OK) {
        return s;
    }
    const uint8_t *p = f->map.p;
    const uint64_t n_chunk = (f->header->body_size + VAQ_CHUNK - 1) / VAQ_CHUNK;
    if (config->size != sizeof(vaq_config)) {
        return damaged(f, e, config->off, "a config of another size");
    }
    if (tensors->size % sizeof(vaq_tensor) || tensors->size / sizeof(vaq_tensor) > UINT32_MAX) {
        return damaged(f, e, tensors->off, "a tensor table of an impossible size");
    }
    if (n_chunk > INT_MAX || chunks->size != n_chunk * 32) {
        return damaged(f, e, chunks->off, "not one hash for each MiB of the body");
    }
    f->meta = p + meta->off;
    f->meta_size = (size_t)meta->size;
    memcpy(&f->own_config, p + config->off, sizeof f->own_config);
    f->config = &f->own_config;
    const uint64_t most = sizeof f->own_rope; /* check_config refuses any size but its own */
    memcpy(f->own_rope, p + rope->off, (size_t)(rope->size < most ? rope->size : most));
    f->rope = f->own_rope;
    f->tensor = (const vaq_tensor *)(const void *)(p + tensors->off);
    f->n_tensor = (uint32_t)(tensors->size / sizeof(vaq_tensor));
    f->chunks = p + chunks->off;
    f->n_chunk = n_chunk;
    f->tokenizer = tok ? p + tok->off : NULL;
    f->tokenizer_size = tok ? (size_t)tok->size : 0;

    s = vq_check_meta(f->meta, f->meta_size, f->path, e);
    if (!s) s = vq_check_config(f->config, f->rope, rope->size, f->path, e);
    if (!s) {
        s = vq_check_tensors(f->config, f->tensor, f->n_tensor, f->header->body_off,
                             f->header->body_size, f->path, e);
    }
    return s;
}

static vq_status prove(vq_file *f, const q_kern *kern, vq_err *e)
{
    q_kern ref;
    if (!kern) {
        q_kern_make(&ref, "ref");
        kern = &ref;
    }
    vq_status s = check_header(f, kern, e);
    for (uint32_t i = 0; !s && i < f->header->n_sections; i++) s = check_section(f, i, kern, e);
    if (!s) s = check_gaps(f, e);
    if (!s) s = bind_sections(f, e);
    if (vq_map_hurt(&f->map)) { /* whatever was concluded was concluded from zeros */
        s = vq_fail(e, VQ_EFORMAT, "%s: was cut or became unreadable while being opened", f->path);
    }
    return s;
}

/* ---- open and close ---- */

static opened *new_file(const char *name)
{
    opened *o = vq_calloc(1, sizeof *o);
    if (!o) return NULL;
    o->f.map.slot = -1;
    o->f.path = vq_strndup(name, strlen(name));
    if (o->f.path) return o;
    vq_free(o);
    return NULL;
}

/* A file that cannot be opened, with status s: perhaps a conversion to it was stopped. */
static vq_status missing(const char *path, vq_status s, vq_err *e)
{
    vq_buf b = { 0 };
    vq_buf_printf(&b, "%s.unfinished", path);
    if (!b.oom && !vq_file_exists(path) && vq_file_exists(b.p))
        s = vq_fail(e, VQ_EFAIL, "%s: its conversion is not finished; the same `vaquita convert` "
                    "again goes on with it",
                    path);
    vq_buf_clear(&b);
    return s;
}

vq_status vq_file_open(vq_file **out, const char *path, const q_kern *kern, vq_err *e)
{
    *out = NULL;
    opened *o = new_file(path);
    if (!o) return vq_fail(e, VQ_ENOMEM, "%s: out of memory", path);
    vq_status s = vq_map_open(&o->f.map, path, e);
    o->mapped = !s;
    s = s ? missing(path, s, e) : prove(&o->f, kern, e);
    if (s) {
        vq_file_close(&o->f);
        return s;
    }
    *out = &o->f;
    return VQ_OK;
}

vq_status vq_file_open_mem(vq_file **out, const void *p, size_t n, const char *name,
                           const q_kern *kern, vq_err *e)
{
    *out = NULL;
    assert((uintptr_t)p % 64 == 0);
    opened *o = new_file(name);
    if (!o) return vq_fail(e, VQ_ENOMEM, "%s: out of memory", name);
    o->f.map.p = p;
    o->f.map.size = n;
    o->f.in_memory = true;
    vq_status s = prove(&o->f, kern, e);
    if (s) {
        vq_file_close(&o->f);
        return s;
    }
    *out = &o->f;
    return VQ_OK;
}

void vq_file_close(vq_file *f)
{
    if (!f) return;
    opened *o = (opened *)(void *)f;
    if (o->mapped) vq_map_close(&f->map);
    vq_free(f->path);
    vq_free(o);
}

const vaq_tensor *vq_file_find(const vq_file *f, vaq_role role, int layer, int expert)
{
    const vaq_tensor want = { .role = (uint16_t)role, .expert = expert,
                              .layer = (uint16_t)(layer < 0 ? VAQ_NO_LAYER : layer) };
    uint32_t lo = 0, hi = f->n_tensor;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        int c = vq_tensor_cmp(&f->tensor[mid], &want);
        if (c == 0) return &f->tensor[mid];
        if (c < 0) lo = mid + 1;
        else hi = mid;
    }
    return NULL;
}
