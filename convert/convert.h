/* convert.h - a Hugging Face checkpoint folder or a GGUF model into a .vaq container. */
#ifndef CONVERT_CONVERT_H
#define CONVERT_CONVERT_H

#include "core/base/err.h"
#include "core/base/str.h"
#include "core/engine/score.h"
#include "core/file/file.h"

typedef struct cv_opts {
    const char *src;        /* folder, one .safetensors with config.json beside it, or a .gguf */
    const char *out;        /* OUT.vaq */
    int type;               /* q_type of all matrices; -1 = auto */
    vq_str rules;           /* text of a recipe (RECIPE.md), which `type` completes; absent: none */
    const char *rules_name; /* its file, for messages */
    const char *cpu;        /* kernel level; NULL = best, all give the same bytes */
    int threads;            /* 0 = performance cores */
    bool yarn_hf;           /* --yarn-attn hf: ignore the config's attn_factor key */
    bool no_tokenizer, force, dry_run;
    const char *calib;      /* a text to calibrate with; NULL: none */
    const char *card;       /* a text to measure the result with; NULL: not measured */
    vq_str quality;         /* metadata records of a card instead (repair); absent: none */
    uint64_t size;          /* bytes that the container may have; 0: no limit */
    double bpw;             /* bits per weight that it may have; 0: no limit */
    bool drop_mtp;          /* leave out the layers that only draft (R1) */
    vq_buf *front;          /* out, of a dry run: vq_front_make's; NULL: not wanted */
    uint64_t step;          /* bytes of the file between two commits; 0: as a user wants it */
    const char *name;       /* model name in the metadata; NULL: the folder's */
    bool (*progress)(void *ctx, uint64_t done, uint64_t total); /* bytes read; true = stop */
    void (*stage)(void *ctx, const char *what, const char *unit); /* what progress counts from now
                                                                   * on; unit NULL: bytes */
    void (*notice)(void *ctx, const char *line);                /* things the user should know */
    void *ctx;
} cv_opts;

typedef struct cv_tensor_report {
    char name[96];
    int type;
    uint32_t rows, cols;
    float rel_rmse;
    double kl;              /* what a budget expects it to add; 0: no budget */
} cv_tensor_report;

typedef struct cv_report {
    uint64_t bytes;         /* of the container */
    uint64_t params;
    double bpw;             /* bits per weight over all tensors */
    double seconds;
    uint64_t resumed;       /* bytes of the checkpoint that an earlier run had done, of ... */
    uint64_t source;        /* ... so many */
    double read_mbs;        /* checkpoint bytes of this run / seconds / 1e6 */
    uint64_t peak_rss;      /* anonymous bytes */
    uint8_t root[32];
    cv_tensor_report *tensor; /* (n_tensor), owned */
    size_t n_tensor;
    char *rules;            /* the types of all matrices as a recipe, owned */
    vq_score_sum quality;   /* of the card; n = 0: not measured in this run */
} cv_report;

/* Whatever ends it, also kill -9 or a power cut, the same call goes on where it was and gives the
 * same bytes; what it needs for that stands beside o->out as .unfinished and .journal, and only
 * until it is done.  A failure that keeps them says so. */
vq_status cv_convert(const cv_opts *o, cv_report *report, vq_err *e);
void cv_report_clear(cv_report *r);

/* ---- repair (repair.c): a damaged container, from a second one or the checkpoint ----
 * Both write what is proved to be right, in place: killed at any point they leave a file that is
 * judged rightly and can be repaired again. */
typedef struct cv_repair {
    const char *path;       /* the damaged container */
    const char *src;        /* another .vaq of the same content, or what cv_opts.src may be */
    const char *cpu;
    const q_kern *kern;     /* of that level */
    int threads;
    vq_progress_fn *progress;
    void *ctx;
} cv_repair;
/* Header, directory and sections, and the size of the file: vq_file_open refused it.  Afterwards it
 * opens.  *len: how long the front is.  VQ_EFAIL: src is of another content, as far as one can
 * tell. */
vq_status cv_repair_front(const cv_repair *o, uint64_t *len, vq_err *e);
/* The chunks v lists; those that are right now are marked.  VQ_EFAIL: src is of another content, or
 * lacks the rest itself. */
vq_status cv_repair_body(const cv_repair *o, const vq_file *f, vq_verify *v, vq_err *e);

/* What `info` says about a checkpoint folder, a .safetensors or a .gguf file, as JSON fields of
 * cli.md. */
vq_status cv_describe(const char *path, vq_buf *json, vq_err *e);

#endif
