/* export.h - a container into a .gguf file, for llama.cpp and what else reads those. */
#ifndef CONVERT_EXPORT_H
#define CONVERT_EXPORT_H

#include "convert/dtype.h"
#include "core/base/str.h"
#include "core/file/file.h"

typedef struct cv_export_opts {
    const char *src;        /* MODEL.vaq */
    const char *out;        /* OUT.gguf */
    int type;               /* cv_dtype of all matrices; -1: the nearest to what each has */
    const char *cpu;        /* for the hashes of the front */
    int threads;            /* 0 = performance cores */
    bool force;             /* overwrite */
    bool (*progress)(void *ctx, uint64_t done, uint64_t total); /* bytes written; true = stop */
    void (*notice)(void *ctx, const char *line);                /* things the user should know */
    void *ctx;
} cv_export_opts;

typedef struct cv_export_tensor {
    char name[64];          /* "blk.3.attn_q.weight" */
    uint64_t ne[3];         /* columns, rows, experts or heads; 1: no such dimension */
    cv_dtype type;
    float rel_rmse;         /* against the container's values */
    /* where the values are */
    const vaq_tensor *t;    /* the first expert's */
    uint32_t n_part;        /* experts */
    uint32_t rows;          /* of a part */
    uint32_t pair_rows;     /* rows i and i + half of each so many lie side by side; 0: as they are
                             * in the container */
    int half;               /* 0 gate, 1 up of a pair; -1: all of it */
} cv_export_tensor;

typedef struct cv_export_report {
    uint64_t bytes;         /* of the file */
    uint64_t params;
    double seconds;
    uint64_t peak_rss;      /* anonymous bytes */
    cv_export_tensor *tensor; /* (n_tensor), owned; t is no longer valid */
    size_t n_tensor;
    uint32_t pairs[32];     /* bit cv_dtype at q_type: which types became which */
} cv_export_report;

vq_status cv_export(const cv_export_opts *o, cv_export_report *report, vq_err *e);
void cv_export_report_clear(cv_export_report *r);

/* export_keys.c: the metadata of the file, n_key of them in *out.  most: the type of most weights.
 * VQ_EFORMAT when GGUF has no words for something. */
vq_status cv_export_keys(vq_buf *out, uint64_t *n_key, const vq_file *f, cv_dtype most, vq_err *e);
/* Divisors of the frequencies, for llama: true when they are needed, (rope_dim / 2) then. */
bool cv_export_freqs(float *out, const vq_file *f);

#endif
