/* bench.h - how fast this machine is, and how near to its limits the model runs. */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include "core/base/err.h"
#include "core/base/str.h"

enum { BN_REPS_MAX = 1000 };

typedef struct bn_opts {
    const char *model; /* a .vaq, or NULL */
    const char *shape; /* "qwen-1.5b", ...: random weights made in memory, or NULL */
    const char *type;  /* of the shape's matrices: "n4", ...; NULL: n4 */
    const char *cpu;   /* level, NULL: best */
    int threads;       /* 0: performance cores */
    const char *prompt; /* -p: tokens of a prefill or a list "32,512"; NULL: 512; "0": none */
    int gen;            /* -n: tokens decoded per repetition; 0: 128 */
    const char *depth; /* --depth: positions already in the cache, a list; NULL: 0 */
    const char *batch; /* --batch: sequences decoded together, a list; NULL: 1 */
    int reps;          /* 0: 9; at most BN_REPS_MAX */
    const char *save;  /* --save: the shape's container as a new file too, or NULL */
    const char *csv;   /* --csv: rows are added to this file; "-": rows to *out and nothing else */
    bool json;
    void (*say)(void *ctx, const char *line); /* progress for people; NULL: quiet */
    void *ctx;
} bn_opts;

/* With neither model nor shape only the limits are measured.  *out: the table or JSON, whole or
 * empty.  What --csv and --save name is tried before anything is measured; when rows cannot be
 * added in the end all the same, that is the status returned, and *out has the results.
 * VQ_EFORMAT: the file of --csv begins with another header.  VQ_ENOFIT: the shape is larger than
 * memory, or the model and its cache are. */
vq_status bn_run(const bn_opts *o, vq_buf *out, vq_err *e);

/* How fast memory is read here, in GB/s of 10^9 bytes: the median of three passes of the roofline,
 * some seconds.  threads 0: the performance cores. */
vq_status bn_read_speed(double *gbs, int threads, const char *cpu, vq_err *e);

/* --compare A.json B.json: the two runs side by side, B / A, with what makes them different runs
 * (model, type, level, threads, n) and the rows that one of them lacks.  JSON: `a`, `b` (paths),
 * `differs` [{field, a, b}], texts that are empty where a side says nothing, `rows` [{what, a, b,
 * ratio}], null where it has none.
 * VQ_EFORMAT: a file is no result of bench, or a rate in it is no positive number. */
vq_status bn_compare(const char *a, const char *b, bool json, vq_buf *out, vq_err *e);

#endif
