/* pipeline.h - reads, encodes and writes the tensors of a plan, all three at once. */
#ifndef CONVERT_PIPELINE_H
#define CONVERT_PIPELINE_H

#include "convert/plan.h"

typedef struct cv_run {
    const cv_plan *plan;
    vq_writer *writer;
    const q_kern *kern;
    int threads;            /* that encode; reading and writing have one more each */
    bool (*progress)(void *ctx, uint64_t done, uint64_t total); /* true: stop; may be NULL */
    void *ctx;
    float *rel_rmse;        /* out: (plan->n) */
} cv_run;

/* The bytes written depend on the plan and the weights alone.  VQ_EFORMAT names the tensor, row and
 * column of a weight that is not a number. */
vq_status cv_pipeline(const cv_run *run, vq_err *e);

#endif
