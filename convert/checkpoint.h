/* checkpoint.h - a Hugging Face folder: config.json, one file of tensors or shards, and the small
 * texts beside them; or a GGUF model, which has all of that in its own files. */
#ifndef CONVERT_CHECKPOINT_H
#define CONVERT_CHECKPOINT_H

#include "convert/gguf.h"
#include "core/base/json.h"

/* A JSON file of the folder. */
typedef struct cv_json {
    bool there;             /* false: the folder has no such file */
    char *path;             /* for messages */
    vq_buf text;
    vq_json j;
} cv_json;

typedef struct cv_ckpt {
    char *dir;              /* the folder; of a GGUF model: the file, below which nothing lies */
    char *name;             /* its name, without the way there, endings and numbers of parts */
    bool is_gguf;
    cv_gguf gguf;           /* the keys of its first file */
    cv_json config;
    cv_st *shard;           /* (n_shard), by file name */
    size_t n_shard;
    cv_tensor *tensor;      /* (n_tensor), by cv_canonical name */
    size_t n_tensor;
    uint8_t sha256[32];     /* of all headers and config.json: which checkpoint this is */
} cv_ckpt;

/* src: the folder, one .safetensors with config.json beside it, or a .gguf (any of its parts). */
vq_status cv_ckpt_open(cv_ckpt *c, const char *src, vq_err *e);
void cv_ckpt_close(cv_ckpt *c);
/* A hash of the sizes and times of its tensor files: another one when they may have changed. */
void cv_ckpt_stamp(const cv_ckpt *c, uint8_t out[32]);

/* Names are found with and without "model." in front: both are in use. */
vq_str cv_canonical(vq_str name);
const cv_tensor *cv_ckpt_find(const cv_ckpt *c, const char *canonical); /* in c->tensor; NULL */
/* What the __metadata__ of the files says about a key; the last file wins. */
vq_str cv_ckpt_meta(const cv_ckpt *c, const char *key);

/* Optional files of the folder. */
char *cv_ckpt_path(const cv_ckpt *c, const char *file); /* vq_free; NULL: out of memory */
bool cv_ckpt_has(const cv_ckpt *c, const char *file);
vq_status cv_ckpt_text(const cv_ckpt *c, const char *file, vq_buf *text, vq_err *e);
vq_status cv_ckpt_json(const cv_ckpt *c, const char *file, cv_json *out, vq_err *e);
void cv_json_clear(cv_json *j);

#endif
