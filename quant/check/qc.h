/* qc.h - the harness of the kernel checks; private to quant/check/.
 *
 * A check is a function qc_<op> that lists cases.  Each case makes its inputs and outputs in the
 * harness's memory and then runs the op under every table by one loop:
 *
 *     qc_case(c, "n=%d", n);
 *     const float *x = qc_floats(c, n, fill);
 *     float *y = qc_out(c, n * sizeof *y);
 *     QC_EACH(c, t) t->add(y, x, n);
 *
 * The first round is the reference; it is remembered, and every later one starts from the same
 * bytes and must leave the same bytes, guards on both sides and gaps between rows included.  The
 * same loop is the benchmark when qc_bench came before it. */
#ifndef QUANT_CHECK_QC_H
#define QUANT_CHECK_QC_H

#include "quant/quant.h"

enum { QC_LEVELS = 8, QC_OUTS = 4, QC_RATES = 2 };

typedef struct qc_level {
    q_kern kern;
    bool run;                   /* this op's kernel differs from the levels before */
    int cases, failed;          /* of this op */
    double gb[QC_RATES], gmac[QC_RATES]; /* bench: best rate per second, 0 = not measured */
    double read[QC_RATES], int8[QC_RATES]; /* limits of one core beside them; 0 = says nothing */
} qc_level;

typedef struct qc_outbuf {
    uint8_t *p;                 /* the bytes kernels see, guards around */
    uint8_t *start, *want;      /* what it held before the first run; what the reference left */
    size_t n;                   /* bytes of all three */
} qc_outbuf;

typedef struct qc {
    const char *op;
    uint64_t seed, rng;
    qc_level level[QC_LEVELS];  /* level[0] is ref */
    int n_level, at;            /* at: the table in this round of QC_EACH */
    char what[160];             /* the case */
    int n_case;
    uint8_t *mem;               /* arena of one case */
    size_t used;
    qc_outbuf out[QC_OUTS];
    int n_out;
    /* bench */
    bool bench, timing;
    int rate;                   /* index of the rate that is measured */
    int round, batch;           /* calls done and wanted between two looks at the clock */
    double bytes, macs;         /* work of one call */
    bool int8;                  /* macs are of bytes by bytes: the level's int8 loop limits them */
    double t0, best, spent;     /* seconds; best: of one call */
    void (*say)(void *ctx, const char *line);
    void *ctx;
} qc;

/* ---- a case ---- */
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
void qc_case(qc *c, const char *fmt, ...);
/* The next QC_EACH measures: bytes moved and multiply-adds of one call, 0 = that rate says nothing
 * here.  False: not benchmarking; then the case should be skipped. */
bool qc_bench(qc *c, int rate, double bytes, double macs);

const q_kern *qc_begin(qc *c);
const q_kern *qc_next(qc *c);
#define QC_EACH(c, t) for (const q_kern *t = qc_begin(c); t; t = qc_next(c))

/* ---- memory of a case: 64-aligned, poisoned behind its end ---- */
void *qc_mem(qc *c, size_t n);
void *qc_out(qc *c, size_t n);                    /* compared; starts as noise or as filled */
void *qc_tmp(qc *c);                              /* Q_TMP bytes */

/* ---- numbers ---- */
uint64_t qc_rand(qc *c);
int qc_below(qc *c, int n);                       /* 0 .. n-1 */
float qc_float(qc *c, int lo, int hi);            /* either sign, exponent in lo..hi */

/* Fills of vectors.  All stay far enough from overflow for every op to remain finite. */
enum { QC_NORMAL, QC_WIDE, QC_EQUAL, QC_ZERO, QC_HOT, QC_TINY, QC_HUGE, QC_TIES, QC_FILLS };
extern const char *const qc_fill_name[QC_FILLS];
void qc_fill(qc *c, float *x, int n, int fill);
/* n floats at an odd address (4 mod 64), so that nobody relies on alignment. */
float *qc_floats(qc *c, int n, int fill);

/* Fills of quantised matrices: bytes, not encodings, so that every legal extreme occurs. */
enum {
    QC_W_RANDOM, QC_W_LOW, QC_W_HIGH, QC_W_ENDS, QC_W_ZERO, QC_W_HOT, QC_W_DENORMAL, QC_W_LARGE,
    QC_W_FILLS
};
extern const char *const qc_wfill_name[QC_W_FILLS];
void qc_weights(qc *c, int type, void *w, int rows, int k, int fill, bool positive);

/* Fills of activations (codes and scales). */
enum { QC_A_RANDOM, QC_A_PLUS, QC_A_MINUS, QC_A_ENDS, QC_A_ZERO, QC_A_HOT, QC_A_FILLS };
extern const char *const qc_afill_name[QC_A_FILLS];
void qc_acts(qc *c, q_acts *a, int M, int k, int fill);

/* ---- one check per op: a missing one does not link ---- */
#define Q_OP(name) void qc_##name(qc *c);
#include "quant/ops.def"
#undef Q_OP

#endif
