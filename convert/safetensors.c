/* safetensors.c - reads the header of a .safetensors file and believes none of it.
 *
 *   u64 length of the header | header: JSON { name: { dtype, shape, data_offsets } } | data
 *
 * The verdicts are those of the reference implementation, which refuses more than the written
 * format asks for (aliases, holes, bytes behind the last tensor): a file it refuses was not made by
 * the tools of these checkpoints, and a lenient reader would turn damage into a bad model.
 * After cv_st_open every tensor lies inside the file and its size agrees with dtype and shape.
 * Reads go through pread, never a map: pages of a map would count as our memory, and a file that
 * shrinks under a map kills the process. */
#include "convert/safetensors.h"

#include "core/base/json.h"
#include "core/base/mem.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_HEADER = 100000000 }; /* the reference's limit */

static const struct {
    const char *name;
    unsigned bits;
    cv_dtype id;
} dtypes[] = {
    { "F32", 32, CV_F32 }, { "F16", 16, CV_F16 }, { "BF16", 16, CV_BF16 },
    { "F8_E4M3", 8, CV_F8_E4M3 }, { "BOOL", 8, CV_OTHER }, { "F4", 4, CV_OTHER },
    { "F6_E2M3", 6, CV_OTHER }, { "F6_E3M2", 6, CV_OTHER }, { "U8", 8, CV_OTHER },
    { "I8", 8, CV_OTHER }, { "F8_E5M2", 8, CV_OTHER }, { "F8_E8M0", 8, CV_OTHER },
    { "F8_E4M3FNUZ", 8, CV_OTHER }, { "F8_E5M2FNUZ", 8, CV_OTHER }, { "I16", 16, CV_OTHER },
    { "U16", 16, CV_OTHER }, { "I32", 32, CV_OTHER }, { "U32", 32, CV_OTHER },
    { "I64", 64, CV_OTHER }, { "U64", 64, CV_OTHER }, { "F64", 64, CV_OTHER },
    { "C64", 64, CV_OTHER },
};
enum { N_DTYPES = sizeof dtypes / sizeof dtypes[0] };

typedef struct header { /* while it is being read */
    const vq_json *j;
    cv_st *s;
    char *text_at;          /* next free byte of s->text */
    uint64_t data;          /* the data area's start in the file */
    vq_err *e;
} header;

static vq_status no_memory(const char *path, vq_err *e)
{
    return vq_fail(e, VQ_ENOMEM, "%s: out of memory", path);
}

static vq_status bad(const header *h, vq_str name, const char *what)
{
    return vq_fail(h->e, VQ_EFORMAT, "%s: damaged, tensor \"%.*s\": %s", h->s->path,
                   name.n > 80 ? 80 : (int)name.n, name.p ? name.p : "", what);
}

static vq_status bad_file(const header *h, const char *what)
{
    return vq_fail(h->e, VQ_EFORMAT, "%s: damaged: %s", h->s->path, what);
}

bool cv_is_lfs_pointer(const void *p, size_t n)
{
    static const char start[] = "version https://git-lfs";
    return n >= sizeof start - 1 && !memcmp(p, start, sizeof start - 1);
}

vq_status cv_lfs_fail(const char *path, vq_err *e)
{
    return vq_fail(e, VQ_EFORMAT, "%s: is a Git LFS pointer, not the file itself; run "
                   "`git lfs pull` in its folder, or download the file",
                   path);
}

/* ---- the JSON, beyond what the parser checks ---- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    return (c | 32) - 'a' + 10;
}

/* The parser turns lone surrogates into U+FFFD; here a name is an identity, so they are damage.
 * The text is valid JSON already: every backslash starts an escape. */
static bool has_lone_surrogate(const char *p, size_t n)
{
    const char *end = p + n;
    unsigned before = 0; /* a high surrogate waits for its other half */
    for (; p < end; p++) {
        if (*p != '\\') {
            if (before) return true;
            continue;
        }
        unsigned u = 0;
        if (p[1] == 'u') {
            for (int i = 2; i < 6; i++) u = u << 4 | (unsigned)hex_digit(p[i]);
            p += 4;
        }
        p++;
        const bool low = u >= 0xdc00 && u < 0xe000;
        if (low != (before != 0)) return true;
        before = u >= 0xd800 && u < 0xdc00 ? u : 0;
    }
    return false;
}

/* Digits only: "-0", "4.0" and "4e0" are no sizes. */
static bool get_u64(const vq_json *j, uint32_t v, uint64_t *out)
{
    if (!vq_json_is(j, v, VQ_JNUM)) return false;
    const vq_str s = j->node[v].s;
    uint64_t u = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9') return false;
        const uint64_t d = (uint64_t)(s.p[i] - '0');
        if (u > (UINT64_MAX - d) / 10) return false;
        u = 10 * u + d;
    }
    *out = u;
    return true;
}

/* The one member of that name; a second one is damage. */
static vq_status member(const header *h, uint32_t obj, vq_str tensor, const char *key,
                        vq_jtype type, uint32_t *out)
{
    *out = 0;
    for (uint32_t k = vq_json_first(h->j, obj); k; k = vq_json_next(h->j, obj, k + 1)) {
        if (!vq_str_eq(vq_json_str(h->j, k), key)) continue;
        if (*out) return bad(h, tensor, "has a field twice");
        *out = k + 1;
    }
    if (!vq_json_is(h->j, *out, type)) {
        return bad(h, tensor, "its dtype, shape or data_offsets is missing or of the wrong kind");
    }
    return VQ_OK;
}

static vq_str keep(header *h, vq_str s)
{
    char *at = h->text_at;
    memcpy(at, s.p, s.n);
    h->text_at += s.n;
    return (vq_str){ at, s.n };
}

static bool mul_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    if (b && a > UINT64_MAX / b) return false;
    *out = a * b;
    return true;
}

static vq_status read_shape(const header *h, uint32_t shape, cv_tensor *t)
{
    t->n = 1;
    for (uint32_t k = vq_json_first(h->j, shape); k; k = vq_json_next(h->j, shape, k)) {
        uint64_t d;
        if (!get_u64(h->j, k, &d)) return bad(h, t->name, "its shape is not a list of sizes");
        if (!mul_u64(t->n, d, &t->n)) return bad(h, t->name, "its shape is larger than 64 bits");
        if (t->n_dim < 4) t->dim[t->n_dim] = d;
        t->n_dim++;
    }
    return VQ_OK;
}

static vq_status read_tensor(header *h, uint32_t key, cv_tensor *t)
{
    const vq_json *j = h->j;
    const uint32_t obj = key + 1;
    uint32_t dtype, shape, offsets, first, second;
    *t = (cv_tensor){ .name = vq_json_str(j, key), .file = h->s };
    vq_status st = VQ_OK;
    if (!vq_json_is(j, obj, VQ_JOBJ)) st = bad(h, t->name, "is not described by an object");
    if (!st) st = member(h, obj, t->name, "dtype", VQ_JSTR, &dtype);
    if (!st) st = member(h, obj, t->name, "shape", VQ_JARR, &shape);
    if (!st) st = member(h, obj, t->name, "data_offsets", VQ_JARR, &offsets);
    if (st) return st;

    int d = 0;
    while (d < N_DTYPES && !vq_str_eq(vq_json_str(j, dtype), dtypes[d].name)) d++;
    if (d == N_DTYPES) return bad(h, t->name, "its dtype is unknown");
    t->dtype = dtypes[d].id;
    t->dtype_name = dtypes[d].name;

    st = read_shape(h, shape, t);
    if (st) return st;
    uint64_t begin, end, bits;
    first = vq_json_first(j, offsets);
    second = first ? vq_json_next(j, offsets, first) : 0;
    if (j->node[offsets].count != 2 || !get_u64(j, first, &begin) || !get_u64(j, second, &end) ||
        begin > end) {
        return bad(h, t->name, "its data_offsets are not two rising numbers");
    }
    if (!mul_u64(t->n, dtypes[d].bits, &bits) || bits % 8 || bits / 8 != end - begin) {
        return bad(h, t->name, "its bytes do not agree with its shape and dtype");
    }
    const unsigned long long last = h->data + end, size = h->s->size;
    if (end > size - h->data) {
        return vq_fail(h->e, VQ_EFORMAT,
                       "%s: is cut short: tensor \"%.*s\" ends at byte %llu, the file at %llu; "
                       "download it again",
                       h->s->path, t->name.n > 80 ? 80 : (int)t->name.n, t->name.p, last, size);
    }
    t->off = h->data + begin;
    t->size = end - begin;
    t->name = t->own = keep(h, t->name);
    return VQ_OK;
}

static vq_status read_metadata(header *h, uint32_t obj)
{
    const vq_json *j = h->j;
    cv_st *s = h->s;
    if (s->meta) return bad_file(h, "its __metadata__ is there twice");
    if (vq_json_is(j, obj, VQ_JNULL)) return VQ_OK;
    if (!vq_json_is(j, obj, VQ_JOBJ)) return bad_file(h, "its __metadata__ is not an object");
    s->meta = vq_calloc((size_t)j->node[obj].count + 1, sizeof *s->meta);
    if (!s->meta) return no_memory(s->path, h->e);
    for (uint32_t k = vq_json_first(j, obj); k; k = vq_json_next(j, obj, k + 1)) {
        if (!vq_json_is(j, k + 1, VQ_JSTR)) {
            return bad_file(h, "a value of its __metadata__ is not a string");
        }
        s->meta[s->n_meta].key = keep(h, vq_json_str(j, k));
        s->meta[s->n_meta++].value = keep(h, vq_json_str(j, k + 1));
    }
    return VQ_OK;
}

static int by_name(const void *a, const void *b)
{
    return vq_str_cmp(((const cv_tensor *)a)->name, ((const cv_tensor *)b)->name);
}

/* An empty tensor comes before the one that starts at the same place. */
static int by_place(const void *a, const void *b)
{
    const cv_tensor *x = a, *y = b;
    if (x->off != y->off) return x->off < y->off ? -1 : 1;
    return (x->size > y->size) - (x->size < y->size);
}

/* Names are unique and the tensors fill the data area. */
static vq_status check_table(const header *h)
{
    cv_st *s = h->s;
    qsort(s->tensor, s->n_tensor, sizeof *s->tensor, by_name);
    for (size_t i = 1; i < s->n_tensor; i++) {
        if (!by_name(&s->tensor[i - 1], &s->tensor[i])) {
            return bad(h, s->tensor[i].name, "is there twice");
        }
    }
    qsort(s->tensor, s->n_tensor, sizeof *s->tensor, by_place);
    uint64_t at = h->data;
    for (size_t i = 0; i < s->n_tensor; i++) {
        const cv_tensor *t = &s->tensor[i];
        if (t->off < at) return bad(h, t->name, "shares bytes with another");
        if (t->off > at) return bad(h, t->name, "there is a hole before it");
        at = t->off + t->size;
    }
    if (at != s->size) return bad_file(h, "there are bytes behind its last tensor");
    return VQ_OK;
}

static vq_status read_header(header *h, size_t text_size)
{
    const vq_json *j = h->j;
    cv_st *s = h->s;
    if (vq_json_type(j, 0) != VQ_JOBJ) return bad_file(h, "its header is not an object");
    /* Every name and string is spelled at least as long as it is. */
    s->text = h->text_at = vq_malloc(text_size + 1);
    s->tensor = vq_calloc((size_t)j->node[0].count + 1, sizeof *s->tensor);
    if (!s->text || !s->tensor) return no_memory(s->path, h->e);
    for (uint32_t k = vq_json_first(j, 0); k; k = vq_json_next(j, 0, k + 1)) {
        vq_status st;
        if (vq_str_eq(vq_json_str(j, k), "__metadata__")) st = read_metadata(h, k + 1);
        else st = read_tensor(h, k, &s->tensor[s->n_tensor++]);
        if (st) return st;
    }
    return check_table(h);
}

/* Brings the header's text; its length has been proven. */
static vq_status parse_header(cv_st *s, size_t n, vq_sha256 *sha, vq_err *e)
{
    char *text = vq_malloc(n + 1);
    vq_json j = { 0 };
    if (!text) return no_memory(s->path, e);
    vq_status st = vq_fd_pread(s->fd, text, n, 8, s->path, e);
    if (!st && sha) vq_sha256_add(sha, text, n);
    if (!st) st = vq_json_parse(&j, text, n, s->path, e);
    header h = { .j = &j, .s = s, .data = 8 + n, .e = e };
    if (!st && has_lone_surrogate(text, n)) st = bad_file(&h, "a name with half a character");
    if (!st) st = read_header(&h, n);
    vq_json_clear(&j);
    vq_free(text);
    return st;
}

static vq_status open_file(cv_st *s, vq_sha256 *sha, vq_err *e)
{
    vq_status st = vq_fd_open_read(&s->fd, s->path, &s->size, e);
    if (st) {
        s->fd.fd = -1;
        return st;
    }
    uint8_t start[64] = { 0 };
    const size_t n = s->size < sizeof start ? (size_t)s->size : sizeof start;
    st = vq_fd_pread(s->fd, start, n, 0, s->path, e);
    if (st) return st;
    if (cv_is_lfs_pointer(start, n)) return cv_lfs_fail(s->path, e);
    if (n < 8) {
        return vq_fail(e, VQ_EFORMAT, "%s: has %zu bytes, too few for a safetensors file; download "
                       "it again",
                       s->path, n);
    }
    uint64_t len = 0;
    for (int i = 8; i--;) len = len << 8 | start[i];
    if (len > MAX_HEADER) {
        return vq_fail(e, VQ_EFORMAT, "%s: not a safetensors file, or damaged: its header would "
                       "have %llu bytes, at most %d are allowed",
                       s->path, (unsigned long long)len, MAX_HEADER);
    }
    if (len > s->size - 8) {
        return vq_fail(e, VQ_EFORMAT, "%s: is cut short: its header has %llu bytes, the file %llu; "
                       "download it again",
                       s->path, (unsigned long long)len, (unsigned long long)s->size);
    }
    if (sha) vq_sha256_add(sha, start, 8);
    return parse_header(s, (size_t)len, sha, e);
}

vq_status cv_st_open(cv_st *s, const char *path, vq_sha256 *sha, vq_err *e)
{
    *s = (cv_st){ .fd = { -1 }, .path = vq_strndup(path, strlen(path)) };
    vq_status st = s->path ? open_file(s, sha, e) : no_memory(path, e);
    if (st) cv_st_close(s);
    return st;
}

void cv_st_close(cv_st *s)
{
    if (s->path) vq_fd_close(&s->fd);
    vq_free(s->path);
    vq_free(s->tensor);
    vq_free(s->meta);
    vq_free(s->text);
    vq_free(s->names);
    *s = (cv_st){ .fd = { -1 } };
}

vq_status cv_st_read(const cv_tensor *t, uint64_t at, void *p, size_t n, vq_err *e)
{
    assert(at <= t->size && n <= t->size - at);
    return vq_fd_pread(t->file->fd, p, n, t->off + at, t->file->path, e);
}

vq_status cv_st_rows(const cv_tensor *t, uint64_t row, size_t n, size_t bytes, void *p, vq_err *e)
{
    if (!t->pair_rows) return cv_st_read(t, row * bytes, p, n * bytes, e);
    vq_status st = VQ_OK;
    for (size_t i = 0; i < n && !st; i++) {
        const uint64_t at = (row + i) % t->pair_rows, half = t->pair_rows / 2;
        const uint64_t from = row + i - at + (at < half ? 2 * at : 2 * (at - half) + 1);
        st = cv_st_read(t, from * bytes, (uint8_t *)p + i * bytes, bytes, e);
    }
    return st;
}
