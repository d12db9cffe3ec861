/* gguf.h - GGUF files written down as text, for tests: right ones, and wrong in one chosen way.
 *
 * A file is a row of words:  TEXT (four letters as they are), 4:3 (a number of 4 bytes; -1 too),
 * s:abc (u64 length and bytes), z:100 (zeros), i:128 (bytes 0, 1, 2, ...), a:32 (zeros up to a
 * multiple of 32). */
#ifndef TESTS_GGUF_H
#define TESTS_GGUF_H

#include "core/base/mem.h"
#include "core/base/os.h"
#include "core/base/str.h"
#include "quant/quant.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline void gg_le(vq_buf *b, uint64_t v, int n)
{
    for (int i = 0; i < n; i++) vq_buf_char(b, (char)(v >> 8 * i));
}

static inline void gg_string(vq_buf *b, const char *p, size_t n)
{
    gg_le(b, n, 8);
    vq_buf_add(b, p, n);
}

static inline void gg_words(vq_buf *b, const char *s)
{
    while (*s) {
        const size_t n = strcspn(s, " ");
        const char *v = s + 2;
        const uint64_t u = s[1] == ':' ? (uint64_t)strtoll(v, NULL, 10) : 0;
        if (s[1] != ':') vq_buf_add(b, s, n);
        else if (s[0] == 's') gg_string(b, v, n - 2);
        else if (s[0] == 'z') for (uint64_t i = 0; i < u; i++) vq_buf_char(b, 0);
        else if (s[0] == 'i') for (uint64_t i = 0; i < u; i++) vq_buf_char(b, (char)i);
        else if (s[0] == 'a') while (b->n % u) vq_buf_char(b, 0);
        else gg_le(b, s[0] == '8' && v[0] != '-' ? strtoull(v, NULL, 10) : u, s[0] - '0');
        s += n;
        while (*s == ' ') s++;
    }
}

/* ---- whole models ---- */

typedef struct gg {
    vq_buf key, info, data;
    uint64_t n_key, n_tensor;
} gg;

static inline void gg_key_str(gg *g, const char *key, const char *value)
{
    gg_string(&g->key, key, strlen(key));
    gg_le(&g->key, 8, 4);
    gg_string(&g->key, value, strlen(value));
    g->n_key++;
}

static inline void gg_key_int(gg *g, const char *key, uint32_t value)
{
    gg_string(&g->key, key, strlen(key));
    gg_le(&g->key, 4, 4);
    gg_le(&g->key, value, 4);
    g->n_key++;
}

static inline void gg_key_real(gg *g, const char *key, float value)
{
    uint32_t u;
    memcpy(&u, &value, 4);
    gg_string(&g->key, key, strlen(key));
    gg_le(&g->key, 6, 4);
    gg_le(&g->key, u, 4);
    g->n_key++;
}

static inline void gg_key_strs(gg *g, const char *key, const char *const *v, size_t n)
{
    gg_string(&g->key, key, strlen(key));
    gg_le(&g->key, 9, 4);
    gg_le(&g->key, 8, 4);
    gg_le(&g->key, n, 8);
    for (size_t i = 0; i < n; i++) gg_string(&g->key, v[i], strlen(v[i]));
    g->n_key++;
}

static inline void gg_key_ints(gg *g, const char *key, const int32_t *v, size_t n)
{
    gg_string(&g->key, key, strlen(key));
    gg_le(&g->key, 9, 4);
    gg_le(&g->key, 5, 4);
    gg_le(&g->key, n, 8);
    for (size_t i = 0; i < n; i++) gg_le(&g->key, (uint32_t)v[i], 4);
    g->n_key++;
}

static inline void gg_key_bool(gg *g, const char *key, bool value)
{
    gg_string(&g->key, key, strlen(key));
    gg_le(&g->key, 7, 4);
    gg_le(&g->key, value, 1);
    g->n_key++;
}

/* ne: columns, rows, matrices; it ends before a 0. */
static inline void gg_tensor_ne(gg *g, const char *name, uint32_t type, const uint64_t ne[3],
                                const void *p, size_t n)
{
    const uint64_t dims = !ne[1] ? 1 : !ne[2] ? 2 : 3;
    gg_string(&g->info, name, strlen(name));
    gg_le(&g->info, dims, 4);
    for (uint64_t i = 0; i < dims; i++) gg_le(&g->info, ne[i], 8);
    gg_le(&g->info, type, 4);
    gg_le(&g->info, g->data.n, 8);
    vq_buf_add(&g->data, p, n);
    while (g->data.n % 32) vq_buf_char(&g->data, 0);
    g->n_tensor++;
}

/* rows 0: a vector. */
static inline void gg_tensor(gg *g, const char *name, uint32_t type, int rows, int cols,
                             const void *p, size_t n)
{
    gg_tensor_ne(g, name, type, (uint64_t[3]){ (uint64_t)cols, (uint64_t)rows, 0 }, p, n);
}

/* The file's bytes; g is empty afterwards. */
static inline void gg_file(vq_buf *out, gg *g)
{
    vq_buf_str(out, "GGUF");
    gg_le(out, 3, 4);
    gg_le(out, g->n_tensor, 8);
    gg_le(out, g->n_key, 8);
    vq_buf_add(out, g->key.p, g->key.n);
    vq_buf_add(out, g->info.p, g->info.n);
    while (out->n % 32) vq_buf_char(out, 0);
    vq_buf_add(out, g->data.p, g->data.n);
    vq_buf_clear(&g->key);
    vq_buf_clear(&g->info);
    vq_buf_clear(&g->data);
    *g = (gg){ .n_key = 0 };
}

#endif
