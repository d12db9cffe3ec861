/* gguf.c - reads the header of a .gguf file and believes none of it.
 *
 *   "GGUF" | u32 version | u64 tensors | u64 keys | keys | tensor infos | padding | data
 *
 * The header does not say how long it is, so it is read on demand into one growing buffer: what a
 * count or a length claims is never allocated, only what the file really holds.  Everything is
 * noted by its offset until the end, when the buffer no longer moves.
 * After cv_gguf_open every tensor lies inside the file, whole blocks to a row, none over another,
 * and the values of the keys we know are of the kind and range that their users expect. */
#include "convert/gguf.h"

#include "core/base/mem.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_HEADER = 512 << 20, /* a vocabulary with its merges is some 10 MB */
    MAX_KEYS = 1 << 16,
    MAX_TENSORS = 1 << 20,
    MAX_KEY = 65535,        /* bytes, as specified */
    MAX_NAME = 63,          /* ggml keeps names in 64 bytes */
    MAX_ALIGN = 1 << 20,
    STEP = 1 << 20          /* the header is read in pieces of at least this */
};

typedef struct reader {
    cv_st *s;
    cv_gguf *g;
    char *text;             /* the header as far as it was read */
    uint64_t n, at;         /* its bytes; the next of them */
    uint64_t align;
    vq_err *e;
} reader;

static vq_status no_memory(const reader *r)
{
    return vq_fail(r->e, VQ_ENOMEM, "%s: out of memory", r->s->path);
}

static vq_status bad(const reader *r, const char *what)
{
    return vq_fail(r->e, VQ_EFORMAT, "%s: damaged at byte %llu: %s", r->s->path,
                   (unsigned long long)r->at, what);
}

static int shown(vq_str s) { return s.n > 80 ? 80 : (int)s.n; }

static vq_status bad_key(const reader *r, vq_str key, const char *what)
{
    return vq_fail(r->e, VQ_EFORMAT, "%s: damaged, key \"%.*s\": %s", r->s->path, shown(key),
                   key.p, what);
}

static vq_status bad_tensor(const reader *r, vq_str name, const char *what)
{
    return vq_fail(r->e, VQ_EFORMAT, "%s: damaged, tensor \"%.*s\": %s", r->s->path, shown(name),
                   name.p, what);
}

/* ---- bytes ---- */

/* Makes n bytes from r->at on available in r->text. */
static vq_status need(reader *r, uint64_t n)
{
    const uint64_t size = r->s->size;
    if (n <= r->n - r->at) return VQ_OK;
    if (n > size - r->at) {
        return vq_fail(r->e, VQ_EFORMAT, "%s: is cut short or damaged: its header needs %llu bytes "
                       "at byte %llu, the file has %llu",
                       r->s->path, (unsigned long long)n, (unsigned long long)r->at,
                       (unsigned long long)size);
    }
    if (n > MAX_HEADER - r->at) return bad(r, "a header of more than 512 MB");
    uint64_t more = r->at + n - r->n;
    if (more < STEP) more = STEP;
    if (more < r->n / 2) more = r->n / 2;
    if (more > size - r->n) more = size - r->n;
    char *p = vq_realloc(r->text, (size_t)(r->n + more));
    if (!p) return no_memory(r);
    r->text = p;
    const vq_status st = vq_fd_pread(r->s->fd, p + r->n, (size_t)more, r->n, r->s->path, r->e);
    if (!st) r->n += more;
    return st;
}

static uint64_t le(const char *p, size_t n)
{
    uint64_t v = 0;
    while (n--) v = v << 8 | (uint8_t)p[n];
    return v;
}

static vq_status get(reader *r, size_t n, uint64_t *v)
{
    const vq_status st = need(r, n);
    if (st) return st;
    *v = le(r->text + r->at, n);
    r->at += n;
    return VQ_OK;
}

/* A string of 1 to max bytes; *off is its offset in the header. */
static vq_status get_name(reader *r, uint64_t max, const char *what, uint64_t *off, uint64_t *n)
{
    vq_status st = get(r, 8, n);
    if (st) return st;
    if (!*n || *n > max) return bad(r, what);
    st = need(r, *n);
    if (st) return st;
    *off = r->at;
    r->at += *n;
    return VQ_OK;
}

/* ---- keys ---- */

/* Bytes of a value of this type; 0 for strings, arrays and what is no type. */
static size_t type_size(uint64_t type)
{
    static const uint8_t size[] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };
    return type < sizeof size ? size[type] : 0;
}

static vq_status skip_strings(reader *r, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        uint64_t len;
        vq_status st = get(r, 8, &len);
        if (!st) st = need(r, len);
        if (st) return st;
        r->at += len;
    }
    return VQ_OK;
}

/* Offsets stand where pointers will be. */
static char *mark(uint64_t off) { return (char *)(uintptr_t)off; }

static vq_status read_key(reader *r, cv_gkey *k)
{
    uint64_t off = 0, len = 0, type = 0;
    *k = (cv_gkey){ .n = 1 };
    vq_status st = get_name(r, MAX_KEY, "a key of no or more than 65535 bytes", &off, &len);
    if (!st) st = get(r, 4, &type);
    if (st) return st;
    k->key = (vq_str){ mark(off), (size_t)len };
    k->array = type == CV_GARR;
    if (k->array) {
        st = get(r, 4, &type);
        if (!st) st = get(r, 8, &k->n);
        if (st) return st;
        if (type == CV_GARR) return bad(r, "an array of arrays");
    }
    const size_t size = type_size(type);
    if (!size && type != CV_GSTR) return bad(r, "a value of unknown type");
    k->type = (uint8_t)type;
    const uint64_t start = r->at;
    if (type == CV_GSTR) {
        st = skip_strings(r, k->n);
    } else {
        st = k->n > UINT64_MAX / size ? bad(r, "an array larger than 64 bits")
                                      : need(r, k->n * size);
        if (!st) r->at += k->n * size;
    }
    if (st) return st;
    k->value = (vq_str){ mark(start), (size_t)(r->at - start) };
    for (uint64_t i = 0; type == CV_GBOOL && i < k->n; i++) {
        if ((uint8_t)r->text[start + i] > 1) return bad(r, "a truth value beyond 0 and 1");
    }
    return VQ_OK;
}

static vq_status read_keys(reader *r, uint64_t n)
{
    cv_gguf *g = r->g;
    size_t cap = 0;
    if (n > MAX_KEYS) return bad(r, "more than 65536 keys");
    for (uint64_t i = 0; i < n; i++) {
        if (vq_grow(&g->key, &cap, g->n_key + 1, sizeof *g->key)) return no_memory(r);
        const vq_status st = read_key(r, &g->key[g->n_key]);
        if (st) return st;
        g->n_key++;
    }
    return VQ_OK;
}

/* general.alignment is wanted before the keys are sorted. */
static vq_status read_align(reader *r)
{
    static const char name[] = "general.alignment";
    r->align = 32;
    for (size_t i = 0; i < r->g->n_key; i++) {
        const cv_gkey *k = &r->g->key[i];
        const char *key = r->text + (uintptr_t)k->key.p;
        if (!vq_str_eq((vq_str){ key, k->key.n }, name)) continue;
        if (k->type != CV_GU32 || k->array) return bad(r, "general.alignment is not a u32");
        r->align = le(r->text + (uintptr_t)k->value.p, 4);
        if (!r->align || r->align > MAX_ALIGN || (r->align & (r->align - 1))) {
            return bad(r, "general.alignment is not a power of two up to 1048576");
        }
    }
    return VQ_OK;
}

/* ---- tensors ---- */

static bool mul_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    if (b && a > UINT64_MAX / b) return false;
    *out = a * b;
    return true;
}

static vq_status read_tensor(reader *r, cv_tensor *t)
{
    uint64_t off = 0, len = 0, n_dim = 0, ne[4] = { 1, 1, 1, 1 }, type = 0;
    *t = (cv_tensor){ .file = r->s, .n = 1 };
    vq_status st = get_name(r, MAX_NAME, "a tensor name of no or more than 63 bytes", &off, &len);
    if (!st) st = get(r, 4, &n_dim);
    if (st) return st;
    t->name = (vq_str){ mark(off), (size_t)len };
    if (n_dim < 1 || n_dim > 4) return bad(r, "a tensor of no or more than 4 dimensions");
    for (uint64_t i = 0; i < n_dim; i++) {
        st = get(r, 8, &ne[i]);
        if (st) return st;
        /* ggml counts in int64; with this bound sizes in bits fit as well as in bytes */
        if (!ne[i] || !mul_u64(t->n, ne[i], &t->n) || t->n > INT64_MAX / 32) {
            return bad(r, "a tensor with a dimension of 0, or too large for 64 bits");
        }
    }
    st = get(r, 4, &type);
    if (!st) st = get(r, 8, &t->off);
    if (st) return st;
    const cv_gtype_info *g = cv_gtype_find(type);
    if (!g) return bad(r, "a tensor of unknown type");
    if (ne[0] % g->block) return bad(r, "a tensor whose rows are no whole blocks of its type");
    t->dtype = g->dtype;
    t->dtype_name = g->name;
    t->size = t->n / g->block * g->bytes;
    t->n_dim = (int)n_dim;
    for (uint64_t i = 0; i < n_dim; i++) t->dim[i] = ne[n_dim - 1 - i];
    return VQ_OK;
}

static vq_status read_tensors(reader *r, uint64_t n)
{
    cv_st *s = r->s;
    size_t cap = 0;
    if (n > MAX_TENSORS) return bad(r, "more than 1048576 tensors");
    for (uint64_t i = 0; i < n; i++) {
        if (vq_grow(&s->tensor, &cap, s->n_tensor + 1, sizeof *s->tensor)) return no_memory(r);
        const vq_status st = read_tensor(r, &s->tensor[s->n_tensor]);
        if (st) return st;
        s->n_tensor++;
    }
    return VQ_OK;
}

static uint64_t padded(uint64_t n, uint64_t align) { return (n + align - 1) / align * align; }

/* The data area follows the header; tensors fill it one behind the other, each from a multiple of
 * the alignment: so ggml writes, and demands. */
static vq_status place_tensors(const reader *r)
{
    cv_st *s = r->s;
    uint64_t at = padded(r->at, r->align); /* within 2 MB of MAX_HEADER */
    const uint64_t data = at;
    for (size_t i = 0; i < s->n_tensor; i++) {
        cv_tensor *t = &s->tensor[i];
        if (t->off % r->align) return bad_tensor(r, t->name, "its offset is not aligned");
        if (t->off != at - data) {
            return bad_tensor(r, t->name, "it does not begin where the one before it ends");
        }
        if (at > s->size || t->size > s->size - at) {
            return vq_fail(r->e, VQ_EFORMAT, "%s: is cut short: tensor \"%.*s\" needs %llu bytes "
                           "at byte %llu, the file has %llu; download it again",
                           s->path, shown(t->name), t->name.p, (unsigned long long)t->size,
                           (unsigned long long)at, (unsigned long long)s->size);
        }
        t->off = at;
        at = padded(at + t->size, r->align); /* both below the file's size */
    }
    return VQ_OK;
}

static int by_name(const void *a, const void *b)
{
    return vq_str_cmp(*(const vq_str *)a, *(const vq_str *)b);
}

static vq_status check_names(const reader *r)
{
    const cv_st *s = r->s;
    vq_str *name = vq_malloc((s->n_tensor + 1) * sizeof *name);
    if (!name) return no_memory(r);
    for (size_t i = 0; i < s->n_tensor; i++) name[i] = s->tensor[i].name;
    qsort(name, s->n_tensor, sizeof *name, by_name);
    vq_status st = VQ_OK;
    for (size_t i = 1; i < s->n_tensor && !st; i++) {
        if (!vq_str_cmp(name[i - 1], name[i])) st = bad_tensor(r, name[i], "is there twice");
    }
    vq_free(name);
    return st;
}

/* ---- values ---- */

static int by_key(const void *a, const void *b)
{
    return vq_str_cmp(((const cv_gkey *)a)->key, ((const cv_gkey *)b)->key);
}

const cv_gkey *cv_gguf_find(const cv_gguf *g, const char *key)
{
    const cv_gkey want = { .key = vq_str_c(key) };
    return g->n_key ? bsearch(&want, g->key, g->n_key, sizeof want, by_key) : NULL;
}

static uint64_t bits_at(const cv_gkey *k, uint64_t i)
{
    const size_t size = type_size(k->type);
    assert(i < k->n && size);
    return le(k->value.p + i * size, size);
}

/* Integers widened to 64 bits. */
static bool integer_at(const cv_gkey *k, uint64_t i, int64_t *out, bool *is_unsigned)
{
    const uint64_t v = bits_at(k, i);
    *is_unsigned = false;
    switch (k->type) {
    case CV_GU64: *is_unsigned = true; *out = (int64_t)v; return true;
    case CV_GU8:
    case CV_GU16:
    case CV_GU32:
    case CV_GI64: *out = (int64_t)v; return true;
    case CV_GI8: *out = (int8_t)v; return true;
    case CV_GI16: *out = (int16_t)v; return true;
    case CV_GI32: *out = (int32_t)v; return true;
    default: return false;
    }
}

bool cv_gkey_u64(const cv_gkey *k, uint64_t i, uint64_t *out)
{
    int64_t v;
    bool is_unsigned;
    if (!k || i >= k->n || k->type == CV_GSTR || !integer_at(k, i, &v, &is_unsigned)) return false;
    if (v < 0 && !is_unsigned) return false;
    *out = (uint64_t)v;
    return true;
}

bool cv_gkey_f64(const cv_gkey *k, uint64_t i, double *out)
{
    int64_t v;
    bool is_unsigned;
    if (!k || i >= k->n || k->type == CV_GSTR || k->type == CV_GBOOL) return false;
    const uint64_t bits = bits_at(k, i);
    if (k->type == CV_GF32) {
        const uint32_t low = (uint32_t)bits;
        float f;
        memcpy(&f, &low, sizeof f);
        *out = (double)f;
    } else if (k->type == CV_GF64) {
        memcpy(out, &bits, sizeof *out);
    } else if (integer_at(k, i, &v, &is_unsigned)) {
        *out = is_unsigned ? (double)bits : (double)v;
    }
    return true;
}

bool cv_gkey_bool(const cv_gkey *k, bool *out)
{
    if (!k || k->array || k->type != CV_GBOOL) return false;
    *out = k->value.p[0] != 0;
    return true;
}

bool cv_gkey_next(const cv_gkey *k, size_t *at, vq_str *out)
{
    if (!k || k->type != CV_GSTR || *at >= k->value.n) return false;
    const size_t n = (size_t)le(k->value.p + *at, 8);
    *out = (vq_str){ k->value.p + *at + 8, n };
    *at += 8 + n;
    return true;
}

vq_str cv_gkey_str(const cv_gkey *k)
{
    vq_str s = { NULL, 0 };
    size_t at = 0;
    if (k && !k->array) cv_gkey_next(k, &at, &s);
    return s;
}

/* ---- what known keys must be ---- */

typedef enum kind {
    TEXT, TEXTS,            /* string, array of strings */
    FLAG,                   /* truth value */
    COUNT,                  /* integer, at least 1 */
    REAL,                   /* finite number */
    ID,                     /* integer; of a token, where there is a vocabulary */
    FLOATS, INTS            /* arrays of f32 and i32, one for each token */
} kind;

/* ".name": behind the architecture. */
static const struct { const char *key; kind kind; } known[] = {
    { "general.architecture", TEXT },
    { "general.name", TEXT },
    { "tokenizer.ggml.model", TEXT },
    { "tokenizer.ggml.pre", TEXT },
    { "tokenizer.ggml.tokens", TEXTS },
    { "tokenizer.ggml.merges", TEXTS },
    { "tokenizer.ggml.scores", FLOATS },
    { "tokenizer.ggml.token_type", INTS },
    { "tokenizer.ggml.bos_token_id", ID },
    { "tokenizer.ggml.eos_token_id", ID },
    { "tokenizer.ggml.padding_token_id", ID },
    { "tokenizer.ggml.unknown_token_id", ID },
    { "tokenizer.ggml.add_bos_token", FLAG },
    { "tokenizer.ggml.add_eos_token", FLAG },
    { "tokenizer.chat_template", TEXT },
    { ".block_count", COUNT },
    { ".context_length", COUNT },
    { ".embedding_length", COUNT },
    { ".vocab_size", COUNT },
    { ".attention.layer_norm_rms_epsilon", REAL },
    { ".rope.freq_base", REAL },
    { ".rope.dimension_count", COUNT },
    { ".rope.scaling.type", TEXT },
    { ".rope.scaling.factor", REAL },
    { ".rope.scaling.yarn_log_multiplier", REAL },
    { ".expert_weights_scale", REAL },
    { ".expert_weights_norm", FLAG },
    { ".attention.head_count", COUNT },     /* of some architectures: arrays, a value per layer */
    { ".attention.head_count_kv", COUNT },
    { ".feed_forward_length", COUNT },
};

static bool of_kind(const cv_gkey *k, kind want, uint64_t n_tokens)
{
    uint64_t u;
    double d;
    switch (want) {
    case TEXT: return k->type == CV_GSTR && !k->array;
    case TEXTS: return k->type == CV_GSTR && k->array;
    case FLAG: return k->type == CV_GBOOL && !k->array;
    case COUNT: return k->array || (cv_gkey_u64(k, 0, &u) && u > 0);
    case REAL: return !k->array && cv_gkey_f64(k, 0, &d) && d - d == 0;
    /* All ones stand for no token. */
    case ID:
        return !k->array && cv_gkey_u64(k, 0, &u) &&
               (!n_tokens || u < n_tokens || u == UINT32_MAX);
    case FLOATS: return k->type == CV_GF32 && k->array && k->n == n_tokens;
    case INTS: return k->type == CV_GI32 && k->array && k->n == n_tokens;
    }
    return false;
}

static vq_status check_keys(const reader *r)
{
    const cv_gguf *g = r->g;
    for (size_t i = 1; i < g->n_key; i++) {
        if (!by_key(&g->key[i - 1], &g->key[i])) {
            return bad_key(r, g->key[i].key, "is there twice");
        }
    }
    const cv_gkey *tokens = cv_gguf_find(g, "tokenizer.ggml.tokens");
    const vq_str arch = cv_gkey_str(cv_gguf_find(g, "general.architecture"));
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        char key[128];
        const bool own = known[i].key[0] == '.';
        if (own && (!arch.p || arch.n > 64 || memchr(arch.p, 0, arch.n))) continue;
        memcpy(key, own ? arch.p : "", own ? arch.n : 0);
        strcpy(key + (own ? arch.n : 0), known[i].key);
        const cv_gkey *k = cv_gguf_find(g, key);
        if (k && !of_kind(k, known[i].kind, tokens ? tokens->n : 0)) {
            return bad_key(r, k->key, "its value is of the wrong kind or out of range");
        }
    }
    return VQ_OK;
}

/* ---- the whole header ---- */

/* From offsets to pointers, now that the buffer stays where it is. */
static void settle(reader *r)
{
    cv_st *s = r->s;
    cv_gguf *g = r->g;
    s->text = r->text;
    r->text = NULL;
    for (size_t i = 0; i < g->n_key; i++) {
        g->key[i].key.p = s->text + (uintptr_t)g->key[i].key.p;
        g->key[i].value.p = s->text + (uintptr_t)g->key[i].value.p;
    }
    for (size_t i = 0; i < s->n_tensor; i++) {
        s->tensor[i].name.p = s->text + (uintptr_t)s->tensor[i].name.p;
        s->tensor[i].own = s->tensor[i].name;
    }
    if (g->n_key) qsort(g->key, g->n_key, sizeof *g->key, by_key);
}

static vq_status check_start(reader *r, uint64_t *n_tensor, uint64_t *n_key)
{
    uint64_t version;
    vq_status st = need(r, 4);
    if (st) return st;
    if (cv_is_lfs_pointer(r->text, (size_t)r->n)) return cv_lfs_fail(r->s->path, r->e);
    if (memcmp(r->text, "GGUF", 4) != 0) {
        return vq_fail(r->e, VQ_EFORMAT, "%s: is not a GGUF file", r->s->path);
    }
    r->at = 4;
    st = get(r, 4, &version);
    if (st) return st;
    if (version != 2 && version != 3) {
        const bool big = version && !(version & 0xffffff);
        return vq_fail(r->e, VQ_EFORMAT, "%s: %s; versions 2 and 3, little-endian, are read",
                       r->s->path, big ? "is a big-endian GGUF file" :
                       version > 3 ? "is of a version of GGUF newer than 3" :
                       "is of a version of GGUF that is no longer in use");
    }
    st = get(r, 8, n_tensor);
    return st ? st : get(r, 8, n_key);
}

static vq_status read_header(reader *r, vq_sha256 *sha)
{
    uint64_t n_tensor = 0, n_key = 0;
    vq_status st = check_start(r, &n_tensor, &n_key);
    if (!st) st = read_keys(r, n_key);
    if (!st) st = read_align(r);
    if (!st) st = read_tensors(r, n_tensor);
    if (st) return st;
    if (sha) vq_sha256_add(sha, r->text, (size_t)r->at);
    settle(r);
    st = place_tensors(r);
    if (!st) st = check_names(r);
    return st ? st : check_keys(r);
}

vq_status cv_gguf_open(cv_gguf *g, cv_st *s, const char *path, vq_sha256 *sha, vq_err *e)
{
    *g = (cv_gguf){ 0 };
    *s = (cv_st){ .fd = { -1 }, .path = vq_strndup(path, strlen(path)) };
    reader r = { .s = s, .g = g, .e = e };
    vq_status st = s->path ? vq_fd_open_read(&s->fd, path, &s->size, e)
                           : vq_fail(e, VQ_ENOMEM, "%s: out of memory", path);
    if (st) s->fd.fd = -1;
    else st = read_header(&r, sha);
    vq_free(r.text);
    if (st) {
        cv_gguf_close(g);
        cv_st_close(s);
    }
    return st;
}

void cv_gguf_close(cv_gguf *g)
{
    vq_free(g->key);
    *g = (cv_gguf){ 0 };
}
