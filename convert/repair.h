/* repair.h - what repair.c wants of a conversion. */
#ifndef CONVERT_REPAIR_H
#define CONVERT_REPAIR_H

#include "convert/convert.h"
#include "convert/pipeline.h"

/* Makes the bands of f that touch the ranges again, from the checkpoint o->src: put gets them as in
 * cv_run.  VQ_EFAIL: f was not made from it. */
vq_status cv_remake(const cv_opts *o, const vq_file *f, const cv_range *range, size_t n,
                    cv_put_fn *put, void *to, vq_err *e);

#endif
