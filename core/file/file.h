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

typedef bool vq_progress_fn(void *ctx, uint64_t done, uint64_t total);

typedef struct vq_file {
    vq_map map;
    char *path;                 /* owned */
    bool in_memory;             /* the caller's bytes: there is no file to read parts of again */
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
typedef struct vq_bad {
    uint64_t off, len;
    const vaq_tensor *tensor;   /* NULL: padding */
    bool mended;                /* by a repair, since */
} vq_bad;
typedef struct vq_verify {
    vq_bad *bad;                /* (n_bad), owned */
    size_t n_bad;
    uint64_t bytes;             /* hashed, by opening the file too: its size when all went well */
} vq_verify;
/* Hashes every chunk with all threads of the pool.  progress(ctx, done, total) is called from the
 * caller's thread and may return true to stop (VQ_EINTR).  VQ_EFORMAT when some chunk is bad. */
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
 * writer), checks it all as the reader would, checks free disk space, takes PATH.journal for this
 * process alone and creates PATH.unfinished, or finds both as an earlier writer of the same file
 * left them and goes on where that one was last seen.  put: each byte of every tensor behind that
 * mark exactly once, in file order.  commit, now and then: what was put will survive a crash.
 * end: pads, writes the front, fsync, rename; nothing stays beside the file. */
typedef struct vq_mark {
    uint64_t pos;               /* in the file: everything before is written */
    uint64_t source, source_hash; /* the caller's: bytes of its source behind pos, what was read */
    double err2[2];             /* the caller's: sums of the tensor that pos is in */
    uint32_t n_hash;            /* chunks of the body that end at or before pos */
    uint32_t n_rmse;            /* tensors in file order that do */
    uint8_t tail[32];           /* hash of what there is of the next chunk */
} vq_mark;

enum { VQ_LATE_MOST = 256 };
/* May a file be made under that name?  VQ_EFAIL: what is there is no file, or not to be lost. */
vq_status vq_check_name(const char *path, bool force, vq_err *e);
/* Is there a journal beside it: something that a writer of that path may go on with?  Without
 * memory to ask: true, begin decides. */
bool vq_writer_begun(const char *path);

typedef struct vq_writer vq_writer;
typedef struct vq_writer_spec {
    const char *path;           /* final name */
    bool force;                 /* overwrite an existing file, an unfinished one of another kind */
    const vaq_config *config;
    const double *rope;         /* (config->rope_dim / 2) */
    vaq_tensor *tensor;         /* (n_tensor), off and size are filled in by begin, of an unfinished
                                 * file also the error figures it has */
    size_t n_tensor;
    const void *tokenizer;      /* NULL: none */
    size_t tokenizer_size;
    const void *meta;           /* metadata records, see vq_meta_add_* */
    size_t meta_size;
    size_t late;                /* of them the last so many bytes, VQ_LATE_MOST at most, are not
                                 * known before the tensors are written: vq_writer_late */
    const q_kern *kern;
    uint8_t stamp[32];          /* whatever changes when the source may have changed */
    vq_progress_fn *progress;   /* over the bytes of an unfinished file that are read again; NULL */
    void *ctx;
} vq_writer_spec;
/* VQ_EFAIL: the name is taken, or an unfinished file is another's or of another content. */
vq_status vq_writer_begin(vq_writer **out, const vq_writer_spec *spec, vq_err *e);
/* Where begin found the file; pos = 0: at its start. */
const vq_mark *vq_writer_found(const vq_writer *w);
/* Has the source another stamp than when the file was begun?  Then the caller must prove that what
 * it read so far is what it would read now. */
bool vq_writer_touched(const vq_writer *w);
/* ... and if it is not, or for another reason, forgets what begin found. */
vq_status vq_writer_restart(vq_writer *w, vq_err *e);
/* Writes n bytes of tensor i (index in spec->tensor) at byte `at` of it.  Calls must come in file
 * order (one writer thread, or the caller serialises): the chunk hashes are made on the way. */
vq_status vq_writer_put(vq_writer *w, size_t i, uint64_t at, const void *p, size_t n, vq_err *e);
/* The rel_rmse of tensor i, when all of it was put. */
void vq_writer_rmse(vq_writer *w, size_t i, float rel_rmse);
/* Where the file stands between two puts; the caller adds what is its own. */
void vq_writer_mark(const vq_writer *w, vq_mark *m);
/* Makes that mark the one to go on from.  May run in another thread while this one puts. */
vq_status vq_writer_commit(vq_writer *w, const vq_mark *m, vq_err *e);
/* For metadata that depends on the tensors.  m: the mark behind the last put.  PATH.unfinished is
 * then a container that opens, with the late bytes as begin got them; *part is its name, the
 * writer's.  NULL: begin found it finished, with all it needs. */
vq_status vq_writer_whole(vq_writer *w, const vq_mark *m, const char **part, vq_err *e);
void vq_writer_late(vq_writer *w, const void *p);   /* the late bytes as they should be */
/* m: the mark behind the last put (the journal's last).  Frees w; on failure it is still there, for
 * abort. */
vq_status vq_writer_end(vq_writer *w, const vq_mark *m, uint8_t root[32], uint64_t *bytes,
                        vq_err *e);
/* Frees w, which may be NULL.  keep: what was committed stays, and the source's bytes in it are
 * returned; if that is nothing, or not wanted, no file stays. */
uint64_t vq_writer_abort(vq_writer *w, bool keep);

/* The front alone of such a file (its first body_off bytes, the hashes of the chunks all zero) and
 * the whole file's size: for containers made in memory, whose weights nobody will verify. */
vq_status vq_front_make(vq_buf *front, uint64_t *file_size, const vq_writer_spec *spec, vq_err *e);

/* Hashes its sections into the directory, and both into the root, after a change of its content. */
void vq_front_seal(void *front, const q_kern *kern);

/* How many of n bytes are whole records, from the start: of metadata whose size is lost. */
size_t vq_meta_extent(const uint8_t *p, size_t n);
void vq_meta_add_text(vq_buf *b, const char *key, const char *p, size_t n);
void vq_meta_add_u64(vq_buf *b, const char *key, uint64_t v);
void vq_meta_add_f64(vq_buf *b, const char *key, double v);

#endif
