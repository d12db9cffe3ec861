/* pipeline.h - reads, encodes and writes the tensors of a plan, all three at once. */
#ifndef CONVERT_PIPELINE_H
#define CONVERT_PIPELINE_H

#include "convert/calib.h"
#include "convert/plan.h"

typedef struct cv_range { uint64_t off, end; } cv_range; /* bytes of the container's file */

/* Bytes [off, off + n) of the container's file. */
typedef vq_status cv_put_fn(void *to, uint64_t off, const void *p, size_t n, vq_err *e);

typedef struct cv_run {
    const cv_plan *plan;
    /* Where bands go, in file order: a writer, which is committed to now and then and stands behind
     * `from`; or, without one, put, which gets those alone that touch one of the ranges. */
    vq_writer *writer;
    vq_mark from;           /* pos = 0: from the start */
    cv_put_fn *put;
    void *to;
    const cv_range *range;  /* (n_range), rising */
    size_t n_range;
    const q_kern *kern;
    int threads;            /* that encode; reading, writing and committing have one more each */
    uint64_t step;          /* bytes written between two commits; 0: as a user wants it */
    bool (*progress)(void *ctx, uint64_t done, uint64_t total); /* true: stop; may be NULL */
    void *ctx;
    float *rel_rmse;        /* out: (plan->n), of tensors that were finished here */
    vq_mark at;             /* out: the mark behind the last band written */
    bool hopeless;          /* out: it failed for a weight, so it will again */
    cv_calib *calib;        /* NULL: weights count alike (enc 1) */
} cv_run;

/* The bytes written depend on the plan and the weights alone.  VQ_EFORMAT names the tensor, row and
 * column of a weight that is not a number. */
vq_status cv_pipeline(cv_run *run, vq_err *e);

/* Reads again what a run from the start to `from` has read, and tells if it was the same. */
vq_status cv_pipeline_same(const cv_run *run, bool *same, vq_err *e);

#endif
