/* part.h - the rows of a container's matrix in terms of a checkpoint's tensors.
 *
 * Most matrices are one tensor, row by row.  FP8 weights have their scales in a second one; k_up
 * and v_up are a part of every head's rows of kv_b_proj, k_up's transposed; a pair of gate and up
 * is two parts; an expert may lie behind others in one tensor.  A part says which rows of its
 * tensor a run of the matrix's rows is made of, brings them and makes floats of them. */
#ifndef CONVERT_PART_H
#define CONVERT_PART_H

#include "convert/safetensors.h"

enum { CV_BLOCK = 128 };    /* rows and columns of FP8 weights that share a scale */

typedef struct cv_part {
    const cv_tensor *t;     /* a vector is one row */
    const cv_tensor *scale; /* of F8_E4M3: F32, one per block; NULL: none */
    uint32_t rows;          /* of the matrix, of a pair those of one half */
    /* A part of each head of t; head_rows = 0: one run of rows. */
    uint32_t head_rows;     /* rows of the matrix per head, a multiple of 16 */
    uint32_t stride, first; /* rows of t from head to head, first of ours in a head, or in t */
    uint32_t turned;        /* how many rows of t are the columns of our head; 0: rows are rows */
} cv_part;

typedef struct cv_span { uint64_t row, n; } cv_span; /* whole rows of t */

/* What rows [row, row + n) of the matrix are made of; with heads: all rows of one head. */
cv_span cv_part_span(const cv_part *p, uint32_t row, uint32_t n);
size_t cv_part_row_bytes(const cv_part *p);             /* of one row of t */
size_t cv_part_raw_bytes(const cv_part *p, cv_span s);  /* memory for cv_part_read */
/* Brings a span with its scales; raw: 64-aligned. */
vq_status cv_part_read(const cv_part *p, cv_span s, void *raw, vq_err *e);
/* Of whole spans as they were read, n % 64 == 0: against accidents, not against enemies. */
uint64_t cv_part_hash(const void *raw, size_t n);
void cv_part_want(const cv_part *p, cv_span s);         /* hint: will be read soon */
/* Rows [row, row + n), n <= 16, of the span's matrix rows, ld floats apart. */
void cv_part_floats(const cv_part *p, cv_span s, const void *raw, float *out, size_t ld,
                    uint32_t row, uint32_t n);
/* Where the weight at (row, col) of the matrix stands in t. */
void cv_part_origin(const cv_part *p, uint64_t *row, uint64_t *col);

#endif
