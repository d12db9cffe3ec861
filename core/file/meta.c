/* meta.c - metadata records: checked once at open, then read by walking.
 *
 * There are some tens of records at most, so a key is found by comparing, and nothing is built. */
#include "core/file/check.h"
#include "core/file/file.h"

#include <assert.h>
#include <string.h>

typedef struct record { /* what precedes key and value */
    uint32_t key_len;
    uint32_t type;
    uint64_t value_len;
} record;
static_assert(sizeof(record) == 16, "record");

static bool is_utf8(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int len = vq_utf8_get((const char *)p + i, n - i, &cp);
        if (!len) return false;
        i += (size_t)len;
    }
    return true;
}

static size_t round8(size_t n)
{
    return (n + 7) & ~(size_t)7;
}

/* Length of the record at p, 0 when it is not one. */
static size_t record_size(const uint8_t *p, size_t left)
{
    record r;
    if (left < sizeof r) return 0;
    memcpy(&r, p, sizeof r);
    left -= sizeof r;
    if (r.key_len == 0 || r.key_len > left || r.value_len > left - r.key_len) return 0;
    if (r.type < VAQ_META_TEXT || r.type > VAQ_META_F64) return 0;
    if (r.type != VAQ_META_TEXT && r.value_len != 8) return 0;
    size_t n = r.key_len + (size_t)r.value_len, padded = round8(n);
    const uint8_t *q = p + sizeof r;
    if (padded > left) return 0;
    for (size_t i = n; i < padded; i++) {
        if (q[i]) return 0;
    }
    if (!is_utf8(q, r.key_len)) return 0;
    if (r.type == VAQ_META_TEXT && !is_utf8(q + r.key_len, (size_t)r.value_len)) return 0;
    return sizeof r + padded;
}

vq_status vq_check_meta(const uint8_t *p, size_t n, const char *name, vq_err *e)
{
    for (size_t at = 0; at < n;) {
        record r = { 0 };
        if (n - at >= sizeof r) memcpy(&r, p + at, sizeof r);
        if (r.type > VAQ_META_F64) {
            return vq_fail(e, VQ_EFORMAT, "%s: metadata of the unknown kind %u; update vaquita",
                           name, r.type);
        }
        size_t size = r.type ? record_size(p + at, n - at) : 0;
        if (!size) {
            return vq_fail(e, VQ_EFORMAT, "%s: damaged metadata, at byte %zu of them", name, at);
        }
        at += size;
    }
    return VQ_OK;
}

size_t vq_meta_extent(const uint8_t *p, size_t n)
{
    size_t at = 0, size;
    while ((size = record_size(p + at, n - at)) != 0) at += size;
    return at;
}

bool vq_file_meta_next(const vq_file *f, size_t *pos, vq_meta *out)
{
    if (*pos >= f->meta_size) return false;
    record r;
    const uint8_t *p = f->meta + *pos;
    memcpy(&r, p, sizeof r);
    const uint8_t *value = p + sizeof r + r.key_len;
    *out = (vq_meta){ .key = { (const char *)p + sizeof r, r.key_len }, .type = r.type };
    switch (r.type) {
    case VAQ_META_U64: memcpy(&out->u64, value, sizeof out->u64); break;
    case VAQ_META_F64: memcpy(&out->f64, value, sizeof out->f64); break;
    default: out->text = (vq_str){ (const char *)value, (size_t)r.value_len };
    }
    *pos += sizeof r + round8(r.key_len + (size_t)r.value_len);
    return true;
}

vq_str vq_file_meta(const vq_file *f, const char *key)
{
    vq_meta m;
    for (size_t pos = 0; vq_file_meta_next(f, &pos, &m);) {
        if (m.type == VAQ_META_TEXT && vq_str_eq(m.key, key)) return m.text;
    }
    return (vq_str){ NULL, 0 };
}

static void add(vq_buf *b, const char *key, uint32_t type, const void *p, size_t n)
{
    size_t len = strlen(key);
    record r = { .key_len = (uint32_t)len, .type = type, .value_len = n };
    vq_buf_add(b, &r, sizeof r);
    vq_buf_add(b, key, len);
    vq_buf_add(b, p, n);
    vq_buf_add(b, "\0\0\0\0\0\0\0", round8(len + n) - (len + n));
}

/* A checkpoint's name may hold any bytes; the format promises UTF-8. */
void vq_meta_add_text(vq_buf *b, const char *key, const char *p, size_t n)
{
    vq_buf clean = { 0 };
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        bool incomplete;
        int len = vq_utf8_get(p + i, n - i, &cp);
        if (len) {
            vq_buf_add(&clean, p + i, (size_t)len);
        } else {
            len = vq_utf8_bad(p + i, n - i, &incomplete);
            vq_buf_str(&clean, "\xef\xbf\xbd");
        }
        i += (size_t)len;
    }
    if (clean.oom) b->oom = true;
    else add(b, key, VAQ_META_TEXT, clean.p ? clean.p : "", clean.n);
    vq_buf_clear(&clean);
}

void vq_meta_add_u64(vq_buf *b, const char *key, uint64_t v)
{
    add(b, key, VAQ_META_U64, &v, sizeof v);
}

void vq_meta_add_f64(vq_buf *b, const char *key, double v)
{
    add(b, key, VAQ_META_F64, &v, sizeof v);
}
