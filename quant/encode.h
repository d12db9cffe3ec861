/* encode.h - what the passes of the encoder share (encode.c drives them, ref_encode.c defines
 * them); private to quant/.
 *
 * The rows of a group are lanes: every sum runs over k ascending for one row alone, so vectors over
 * rows give the bits of the scalar code, whatever their width. */
#ifndef QUANT_ENCODE_H
#define QUANT_ENCODE_H

#include "quant/quant.h"

enum {
    Q_ENC_SUB = 32,     /* k of the longest sub-block (N4s and pairs; 16 in the others) */
    Q_ENC_SUBS = 4,     /* sub-blocks of a tile, in every format */
    Q_ENC_PLACES = 48,
    Q_ENC_CELL = 40,    /* pairs: the table of the search has a cell for -40 .. 39, in both axes */
    Q_ENC_CELLS = 2 * Q_ENC_CELL
};

/* A pair farther out than this, in grid units, is not told from one that far. */
#define Q_ENC_FAR 1024.0f

/* A block whose largest weight is below this share of the row's rounds to s = 0 in any case. */
#define Q_ENC_VANISHING 0x1p-60f

struct q_enc {
    /* the format */
    int type, sub;              /* sub: k of a sub-block */
    int n_tile;
    size_t tile_bytes;
    int reach;                  /* s is sought so far to both sides of sigma / row_scale */
    int n_place;
    float place[Q_ENC_PLACES];  /* where the largest weight is tried, in grid units */
    float lo, hi;               /* ends of the grid */
    const int8_t *grid;         /* (n_grid) N formats: 16 or 32 values; NULL: linear */
    int n_grid;
    int n_point;                /* pairs: 32 or 64 points, else 0 */
    float px[64], py[64];       /* (n_point) */
    int16_t point[64 + 1];      /* (n_point) x + 256 y; one more, as vectors load 32 bits */
    int16_t cell[Q_ENC_CELLS * Q_ENC_CELLS + 1]; /* (x, y): the point nearest to its middle */
    /* the rows: a normalised weight is src * mul * mul2, of largest magnitude 1..2 in its row */
    const float *src;           /* (n, k) with stride ld */
    size_t ld;
    int n, k;
    const float *imp;           /* (k) or NULL; q_enc_imp normalises it */
    float imp_mul;
    double unit[Q_ROWS];        /* 2^e: weight = normalised * unit */
    float mul[Q_ROWS], mul2[Q_ROWS]; /* their product is 2^-e, which alone may not be a float */
};

/* All midpoints of a grid are multiples of 1/2, so the half-unit cell of x decides its code:
 * cell i = (int)(2 * x + 128), 0..255 by clamping, and a tie goes up. */
static inline int q_enc_code(const q_enc *o, int cell)
{
    int c = 0;
    while (c < o->n_grid - 1 && cell - 128 >= o->grid[c] + o->grid[c + 1]) c++;
    return c;
}

/* Importance of the k-th column from k0, above 0 and at most 2; 0 behind the last column. */
static inline float q_enc_imp(const q_enc *o, int k)
{
    if (k >= o->k) return 0.0f;
    /* Columns that calibration never saw still get codes: the least is 2^-40 of the largest. */
    const float v = o->imp ? o->imp[k] * o->imp_mul : 1.0f;
    return v > 0x1p-40f ? v < 2.0f ? v : 2.0f : 0x1p-40f;
}

/* Where the point nearest to (x, y) in grid units is looked for, from the middle of the table. */
static inline int q_enc_cell(int x, int y) { return x * Q_ENC_CELLS + y; }
static inline const int16_t *q_enc_middle(const q_enc *o)
{
    return o->cell + q_enc_cell(Q_ENC_CELL, Q_ENC_CELL);
}

/* Puts the code of the pair (k, k + 1), k in 0..127, into planes that were zero. */
void q_enc_put_point(int type, uint8_t *tile, int k, int row, int code);

/* Fills *o for nrows rows, 1..16; max_bits: q_max_bits of each. */
void q_enc_init(q_enc *o, int type, const float *src, size_t ld, int nrows, int k,
                const float *imp, const uint32_t *max_bits);

/* Row scale as stored for a normalised one. */
float q_enc_stored(const q_enc *o, double scale, double unit);
/* Sets the code of (k, row) of a tile whose planes were zero. */
void q_enc_put(int type, uint8_t *tile, int k, int r, int code);
/* Per row the squared error of what was written, and the square of its source. */
void q_enc_measure(const q_enc *in, const uint8_t *tiles, const float stored[Q_ROWS],
                   double err[Q_ROWS], double sum[Q_ROWS]);
/* feedback.c: a code type's row group under moments; err2 is added to. */
void q_feedback_codes(const q_kern *t, uint8_t *out, const q_enc *in, const q_moments *m,
                      double err2[2], void *tmp);

#endif
