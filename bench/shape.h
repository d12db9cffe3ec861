/* shape.h - a container of random weights made in memory: how fast would this model be here? */
#ifndef BENCH_SHAPE_H
#define BENCH_SHAPE_H

#include "core/file/file.h"

/* Builds it and opens it; *mem (bytes) must live as long as the file and is freed with
 * vq_pages_free. VQ_EUSAGE: unknown shape or a type without kernels.  VQ_ENOFIT: larger than the
 * available memory. */
vq_status bn_shape_open(vq_file **out, void **mem, size_t *bytes, const char *shape,
                        const char *type, const q_kern *kern, vq_err *e);

#endif
