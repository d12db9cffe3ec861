/* safetensors.h - one .safetensors file: its header proven, its bytes read on demand.
 *
 * Accepts and refuses what the reference implementation does (safetensors/src/tensor.rs): header of
 * at most 100 MB of strict JSON, tensors that fill the data area without overlap, hole or rest. */
#ifndef CONVERT_SAFETENSORS_H
#define CONVERT_SAFETENSORS_H

#include "convert/dtype.h"
#include "core/base/os.h"
#include "core/file/file.h"

typedef struct cv_tensor {
    vq_str name;            /* lives in the cv_st */
    vq_str own;             /* as its file spells it, for messages: GGUF has names of its own */
    const char *dtype_name; /* "BF16" */
    cv_dtype dtype;
    int n_dim;
    uint64_t dim[4];        /* the first four */
    uint64_t n;             /* elements */
    uint64_t off, size;     /* bytes, off from the file's start */
    uint32_t pair_rows;     /* of heads of so many rows: stored as pairs i, i + pair_rows / 2; 0:
                             * rows are where they are */
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
    char *names;            /* of a GGUF file: those of checkpoints */
} cv_st;

/* sha, if not NULL, receives the length field and the header.  On failure *s is cleared.
 * VQ_EFORMAT: not such a file, damaged, cut short, or a Git LFS pointer in its place. */
vq_status cv_st_open(cv_st *s, const char *path, vq_sha256 *sha, vq_err *e);
void cv_st_close(cv_st *s);

/* Bytes [at, at + n) of a tensor. */
vq_status cv_st_read(const cv_tensor *t, uint64_t at, void *p, size_t n, vq_err *e);

/* Rows [row, row + n) of `bytes` bytes each, in the order a checkpoint has them. */
vq_status cv_st_rows(const cv_tensor *t, uint64_t row, size_t n, size_t bytes, void *p, vq_err *e);

/* Do these first bytes of a file say that Git LFS has not brought the file itself? */
bool cv_is_lfs_pointer(const void *p, size_t n);
vq_status cv_lfs_fail(const char *path, vq_err *e);

#endif
