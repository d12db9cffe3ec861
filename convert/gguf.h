/* gguf.h - one .gguf file: its header proven, its tensors listed as those of a .safetensors file.
 *
 * Versions 2 and 3, little-endian.  Accepts and refuses what ggml's own reader does, and besides
 * refuses metadata whose kind or range no reader of models could use (a vocabulary's scores that
 * are no floats, a token id beyond the vocabulary, a count of heads that is 0). */
#ifndef CONVERT_GGUF_H
#define CONVERT_GGUF_H

#include "convert/safetensors.h"

typedef enum cv_gtype { /* as in files */
    CV_GU8, CV_GI8, CV_GU16, CV_GI16, CV_GU32, CV_GI32, CV_GF32, CV_GBOOL, CV_GSTR, CV_GARR,
    CV_GU64, CV_GI64, CV_GF64
} cv_gtype;

typedef struct cv_gkey {
    vq_str key;             /* lives in the cv_st, as the value */
    uint8_t type;           /* cv_gtype; of an array: of its elements, never CV_GARR */
    bool array;
    uint64_t n;             /* elements; 1 when it is no array */
    vq_str value;           /* its bytes: numbers little-endian, strings with their u64 lengths */
} cv_gkey;

typedef struct cv_gguf {
    cv_gkey *key;           /* (n_key) sorted by key, unique */
    size_t n_key;
} cv_gguf;

/* Fills *s (path, file, tensors under their own names, first dim = rows) and *g, which borrows from
 * it: close g first.  sha, if not NULL, receives the header.  On failure both are cleared.
 * VQ_EFORMAT: not such a file, damaged or cut short; the message gives key or tensor. */
vq_status cv_gguf_open(cv_gguf *g, cv_st *s, const char *path, vq_sha256 *sha, vq_err *e);
void cv_gguf_close(cv_gguf *g);

/* NULL: there is no such key. */
const cv_gkey *cv_gguf_find(const cv_gguf *g, const char *key);
/* A value that is a number, of any kind; element i of an array.  False: it is none. */
bool cv_gkey_u64(const cv_gkey *k, uint64_t i, uint64_t *out);  /* false: negative or a float */
bool cv_gkey_f64(const cv_gkey *k, uint64_t i, double *out);
bool cv_gkey_bool(const cv_gkey *k, bool *out);
vq_str cv_gkey_str(const cv_gkey *k);                           /* absent when it is no string */
/* Walks an array of strings: *at starts at 0; false at the end. */
bool cv_gkey_next(const cv_gkey *k, size_t *at, vq_str *out);

#endif
