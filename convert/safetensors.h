/* safetensors.h - one .safetensors file: its header proven, its bytes read on demand.
 *
 * Accepts and refuses what the reference implementation does (safetensors/src/tensor.rs): header of
 * at most 100 MB of strict JSON, tensors that fill the data area without overlap, hole or rest. */
#ifndef CONVERT_SAFETENSORS_H
#define CONVERT_SAFETENSORS_H

#include "core/base/os.h"
#include "core/file/file.h"

typedef enum cv_dtype { /* those we can decode, then all others */
    CV_F32, CV_F16, CV_BF16, CV_F8_E4M3, CV_OTHER
} cv_dtype;

typedef struct cv_tensor {
    vq_str name;            /* lives in the cv_st */
    const char *dtype_name; /* "BF16" */
    cv_dtype dtype;
    int n_dim;
    uint64_t dim[2];        /* the first two */
    uint64_t n;             /* elements */
    uint64_t off, size;     /* bytes, off from the file's start */
    const struct cv_st *file;
} cv_tensor;

typedef struct cv_pair { vq_str key, value; } cv_pair;

typedef struct cv_st {
    char *path;             /* owned, as all below */
    vq_fd fd;
    uint64_t size;          /* of the file */
    cv_tensor *tensor;      /* (n_tensor) in file order; they point back: do not move a cv_st */
    size_t n_tensor;
    cv_pair *meta;          /* (n_meta): __metadata__ */
    size_t n_meta;
    char *text;             /* names and metadata */
} cv_st;

/* sha, if not NULL, receives the length field and the header.  On failure *s is cleared.
 * VQ_EFORMAT: not such a file, damaged, cut short, or a Git LFS pointer in its place. */
vq_status cv_st_open(cv_st *s, const char *path, vq_sha256 *sha, vq_err *e);
void cv_st_close(cv_st *s);

/* Bytes [at, at + n) of a tensor. */
vq_status cv_st_read(const cv_tensor *t, uint64_t at, void *p, size_t n, vq_err *e);

size_t cv_dtype_size(cv_dtype d);   /* 0 for CV_OTHER */
/* n values at p as floats; d is not CV_OTHER. */
void cv_decode(float *out, cv_dtype d, const void *p, size_t n);

/* Do these first bytes of a file say that Git LFS has not brought the file itself? */
bool cv_is_lfs_pointer(const void *p, size_t n);
vq_status cv_lfs_fail(const char *path, vq_err *e);

#endif
