/* part.c - where the rows of a matrix come from, and FP8 with its scales.
 *
 * Of a span the scales lie first in memory, whole rows of the scale tensor, then the rows
 * themselves.  An FP8 weight is byte times scale in float, one rounding: exactly what the
 * checkpoint says, without the detour over BF16 that DeepSeek's own script takes. */
#include "convert/part.h"

#include "quant/quant.h"

#include <assert.h>
#include <string.h>

static size_t row_len(const cv_tensor *t)
{
    return (size_t)t->dim[t->n_dim - 1];
}

size_t cv_part_row_bytes(const cv_part *p)
{
    return cv_row_bytes(p->t->dtype, row_len(p->t));
}

/* Rows of the scale tensor that a span needs. */
static cv_span scales_of(cv_span s)
{
    const uint64_t first = s.row / CV_BLOCK;
    return (cv_span){ first, (s.row + s.n - 1) / CV_BLOCK - first + 1 };
}

static size_t scale_bytes(const cv_part *p, cv_span s)
{
    return p->scale ? (size_t)scales_of(s).n * row_len(p->scale) * sizeof(float) : 0;
}

/* Where in memory the rows of a span begin. */
static size_t rows_at(const cv_part *p, cv_span s)
{
    return (scale_bytes(p, s) + 63) / 64 * 64;
}

cv_span cv_part_span(const cv_part *p, uint32_t row, uint32_t n)
{
    if (!p->head_rows) return (cv_span){ p->first + (uint64_t)row, n };
    const uint64_t start = (uint64_t)(row / p->head_rows) * p->stride + p->first;
    assert(row % p->head_rows == 0 && n == p->head_rows);
    return (cv_span){ start, p->turned ? p->turned : n };
}

size_t cv_part_raw_bytes(const cv_part *p, cv_span s)
{
    return (rows_at(p, s) + (size_t)s.n * cv_part_row_bytes(p) + 63) / 64 * 64;
}

vq_status cv_part_read(const cv_part *p, cv_span s, void *raw, vq_err *e)
{
    const size_t row = cv_part_row_bytes(p), end = rows_at(p, s) + (size_t)s.n * row;
    uint8_t *to = raw;
    vq_status st = VQ_OK;
    if (p->scale) {
        const uint64_t at = scales_of(s).row * row_len(p->scale) * sizeof(float);
        st = cv_st_read(p->scale, at, raw, scale_bytes(p, s), e);
    }
    if (st) return st;
    /* Whoever hashes what was read shall find nothing else there. */
    memset(to + scale_bytes(p, s), 0, rows_at(p, s) - scale_bytes(p, s));
    memset(to + end, 0, cv_part_raw_bytes(p, s) - end);
    return cv_st_rows(p->t, s.row, (size_t)s.n, row, to + rows_at(p, s), e);
}

uint64_t cv_part_hash(const void *raw, size_t n)
{
    const uint8_t *p = raw;
    uint64_t h[4] = { n, 1, 2, 3 }, w[4];
    assert(n % 64 == 0);
    for (size_t i = 0; i < n; i += sizeof w) { /* four lanes keep up with memory */
        memcpy(w, p + i, sizeof w);
        for (int k = 0; k < 4; k++) {
            const uint64_t v = (h[k] ^ w[k]) * 0x9e3779b97f4a7c15u; /* odd: no bit is lost */
            h[k] = v << 29 | v >> 35;
        }
    }
    return ((h[0] * 3 ^ h[1]) * 3 ^ h[2]) * 3 ^ h[3];
}

void cv_part_want(const cv_part *p, cv_span s)
{
    const size_t row = cv_part_row_bytes(p);
    vq_fd_want(p->t->file->fd, p->t->off + s.row * row, s.n * row);
}

/* n values of row `row` of t, from column col on. */
static void decode(const cv_part *p, cv_span s, const uint8_t *raw, float *out, uint64_t row,
                   size_t col, size_t n)
{
    const cv_dtype type = p->t->dtype;
    const size_t block = cv_dtype_block(type), in = col % block;
    const uint8_t *at = raw + rows_at(p, s) + (size_t)(row - s.row) * cv_part_row_bytes(p) +
                        cv_row_bytes(type, col - in);
    if (n % block == 0 && !in) {
        cv_decode(out, type, at, n);
    } else { /* up to 16 values, of one block: see cv_part_floats */
        float all[CV_BLOCK_MAX];
        assert(in + n <= block);
        cv_decode(all, type, at, block);
        memcpy(out, all + in, n * sizeof *out);
    }
    if (!p->scale) return;
    const float *scale = (const float *)(const void *)raw +
                         (size_t)(row / CV_BLOCK - scales_of(s).row) * row_len(p->scale);
    for (size_t i = 0; i < n;) {
        const float d = scale[(col + i) / CV_BLOCK];
        const size_t in_block = CV_BLOCK - (col + i) % CV_BLOCK;
        const size_t end = in_block < n - i ? i + in_block : n;
        for (; i < end; i++) out[i] *= d;
    }
}

void cv_part_floats(const cv_part *p, cv_span s, const void *raw, float *out, size_t ld,
                    uint32_t row, uint32_t n)
{
    assert(n <= Q_ROWS);
    if (!p->turned) {
        uint64_t from = row, col = 0;
        cv_part_origin(p, &from, &col);
        for (uint32_t r = 0; r < n; r++) {
            decode(p, s, raw, out + r * ld, from + r, 0, row_len(p->t));
        }
        return;
    }
    for (uint32_t i = 0; i < p->turned; i++) {
        float v[Q_ROWS];
        decode(p, s, raw, v, s.row + i, row % p->head_rows, n);
        for (uint32_t r = 0; r < n; r++) out[r * ld + i] = v[r];
    }
}

void cv_part_origin(const cv_part *p, uint64_t *row, uint64_t *col)
{
    if (!p->head_rows) {
        *row += p->first;
        return;
    }
    const uint64_t start = *row / p->head_rows * p->stride + p->first, in = *row % p->head_rows;
    if (p->turned) {
        *row = start + *col;
        *col = in;
    } else {
        *row = start + in;
    }
}
