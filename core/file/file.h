/* file.h - reading and writing .vaq containers (FORMAT.md).
 *
 * Reader: maps the file, checks the hash of header, directory and sections, proves every offset,
 * size, shape and count once; what it hands out needs no further checks.  Nothing is copied or
 * parsed: tensor data, rope table, tokenizer are pointers into the map, borrowed until close. */
#ifndef CORE_FILE_FILE_H
#define CORE_FILE_FILE_H

#include "core/base/os.h"
#include "core/file/vaq.h"
#include "quant/quant.h"

typedef struct vq_file {
    vq_map map;
    char *path;                 /* owned */
    /* Copies, as they were checked: what becomes of the file later changes no size, no offset. */
    vaq_header own_header;
    vaq_config own_config;
    double own_rope[VAQ_MAX_HEAD_DIM / 2];
    const vaq_header *header;   /* = &own_header */
    const vaq_section *section; /* (header->n_sections) */
    const vaq_config *config;   /* = &own_config */
    const double *rope;         /* (config->rope_dim / 2) */
    const vaq_tensor *tensor;   /* (n_tensor), sorted by (role, layer, expert) */
    uint32_t n_tensor;
    const uint8_t *tokenizer;   /* NULL when the container has none */
    size_t tokenizer_size;
    const uint8_t *meta;
    size_t meta_size;
    const uint8_t *chunks;      /* (n_chunk, 32) */
    uint64_t n_chunk;
} vq_file;

/* kern gives sha256; NULL means the reference one.  On failure *out is NULL.
 * VQ_EFORMAT: file, offset and reason, "damaged" or "made by a newer vaquita". */
vq_status vq_file_open(vq_file **out, const char *path, const q_kern *kern, vq_err *e);
void vq_file_close(vq_file *f);
/* The same checks on bytes in memory (p stays the caller's, 64-aligned): for tests and fuzzing. */
vq_status vq_file_open_mem(vq_file **out, const void *p, size_t n, const char *name,
                           const q_kern *kern, vq_err *e);

/* layer, expert -1: none.  NULL: absent. */
const vaq_tensor *vq_file_find(const vq_file *f, vaq_role role, int layer, int expert);
static inline const void *vq_file_data(const vq_file *f, const vaq_tensor *t)
{
    return f->map.p + t->off;
}

/* Metadata: the text of `key`, absent when there is none. */
vq_str vq_file_meta(const vq_file *f, const char *key);
/* Iterates: *pos starts at 0; false at the end. */
typedef struct vq_meta {
    vq_str key;
    uint32_t type;              /* VAQ_META_*: which of the following counts */
    vq_str text;
    uint64_t u64;
    double f64;
} vq_meta;
bool vq_file_meta_next(const vq_file *f, size_t *pos, vq_meta *out);

/* "model.layers.3.mlp.gate_up_proj.weight": for messages, info and JSON. */
void vq_tensor_name(char out[96], const vaq_tensor *t);
const char *vq_arch_name(uint32_t arch);          /* "qwen2"; "unknown" */
const char *vq_template_name(uint32_t template_id);

/* A damaged chunk of the body: its byte range and the tensor it (first) touches. */
typedef struct vq_bad { uint64_t off, len; const vaq_tensor *tensor; /* NULL: padding */ } vq_bad;
typedef struct vq_verify {
    vq_bad *bad;                /* (n_bad), owned */
    size_t n_bad;
    uint64_t bytes;             /* hashed, by opening the file too: its size when all went well */
} vq_verify;
/* Hashes every chunk with all threads of the pool.  progress(ctx, done, total) is called from the
 * caller's thread and may return true to stop (VQ_EINTR).  VQ_EFORMAT when some chunk is bad. */
typedef bool vq_progress_fn(void *ctx, uint64_t done, uint64_t total);
struct vq_pool;
vq_status vq_file_verify(const vq_file *f, const q_kern *kern, struct vq_pool *pool,
                         vq_progress_fn *progress, void *ctx, vq_verify *out, vq_err *e);
void vq_verify_clear(vq_verify *v);

/* ---- SHA-256 as a stream ---- */
typedef struct vq_sha256 {
    uint32_t h[8];
    uint64_t n;                 /* bytes so far */
    uint8_t buf[64];
    q_sha256_fn *blocks;
} vq_sha256;
void vq_sha256_init(vq_sha256 *s, const q_kern *kern);  /* NULL: reference */
void vq_sha256_add(vq_sha256 *s, const void *p, size_t n);
void vq_sha256_end(vq_sha256 *s, uint8_t out[32]);

/* ---- writer ----
 * begin: lays the file out from the table (offsets and sizes of tensors are computed here, in table
 * order as the caller gives it: that is the order on disk; the table section is sorted by the
 * writer), checks it all as the reader would, checks free disk space, creates PATH.tmp-XXXXXXXX,
 * which SIGINT, SIGTERM and SIGHUP remove.  put: each byte of every tensor exactly once, in file
 * order.  end: pads, writes the front, fsync, rename. */
typedef struct vq_writer vq_writer;
typedef struct vq_writer_spec {
    const char *path;           /* final name */
    bool force;                 /* overwrite an existing file */
    const vaq_config *config;
    const double *rope;         /* (config->rope_dim / 2) */
    vaq_tensor *tensor;         /* (n_tensor), off and size are filled in by begin */
    size_t n_tensor;
    const void *tokenizer;      /* NULL: none */
    size_t tokenizer_size;
    const void *meta;           /* metadata records, see vq_meta_add_* */
    size_t meta_size;
    const q_kern *kern;
} vq_writer_spec;
vq_status vq_writer_begin(vq_writer **out, const vq_writer_spec *spec, vq_err *e);
/* Writes n bytes of tensor i (index in spec->tensor) at byte `at` of it.  Calls must come in file
 * order (one writer thread, or the caller serialises): the chunk hashes are made on the way. */
vq_status vq_writer_put(vq_writer *w, size_t i, uint64_t at, const void *p, size_t n, vq_err *e);
/* The rel_rmse of tensor i, to be called before end. */
void vq_writer_rmse(vq_writer *w, size_t i, float rel_rmse);
/* Frees w, also on failure. */
vq_status vq_writer_end(vq_writer *w, uint8_t root[32], uint64_t *bytes, vq_err *e);
void vq_writer_abort(vq_writer *w);     /* removes the temporary; takes NULL */

/* The front alone of such a file (its first body_off bytes, the hashes of the chunks all zero) and
 * the whole file's size: for containers made in memory, whose weights nobody will verify. */
vq_status vq_front_make(vq_buf *front, uint64_t *file_size, const vq_writer_spec *spec, vq_err *e);

void vq_meta_add_text(vq_buf *b, const char *key, const char *p, size_t n);
void vq_meta_add_u64(vq_buf *b, const char *key, uint64_t v);
void vq_meta_add_f64(vq_buf *b, const char *key, double v);

#endif
