/* bench.h - how fast this machine is, and how near to its limits the model runs. */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include "core/base/err.h"
#include "core/base/str.h"

typedef struct bn_opts {
    const char *model;     /* a .vaq, or NULL */
    const char *shape;     /* "qwen-1.5b", ...: random weights made in memory, or NULL */
    int type;              /* q_type for shape */
    const char *cpu;
    int threads;
    int prompt;            /* -p, default 512 */
    int gen;               /* -n, default 128 */
    int depth;             /* --depth, default 0 */
    int batch;             /* --batch, default 1 */
    int reps;              /* default 5 */
    bool json;
    void (*say)(void *ctx, const char *line); /* progress for people; NULL: quiet */
    void *ctx;
} bn_opts;

vq_status bn_run(const bn_opts *o, vq_buf *out, vq_err *e);   /* *out: the table or the JSON */

#endif
