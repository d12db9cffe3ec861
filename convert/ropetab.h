/* ropetab.h - the rope table of a container: frequencies after scaling, and the multiplier.
 *
 * These doubles go into the file and the runtime never recomputes them, so they are formed here by
 * one scalar routine that gives the same bits on every machine: + - * / and fma only, no libm. */
#ifndef CONVERT_ROPETAB_H
#define CONVERT_ROPETAB_H

typedef enum cv_rope_kind { CV_ROPE_PLAIN, CV_ROPE_LLAMA3, CV_ROPE_YARN } cv_rope_kind;

typedef struct cv_rope {
    cv_rope_kind kind;
    double theta;               /* > 1 */
    double factor;              /* >= 1: how many times longer the context was made */
    double orig;                /* positions of the model before that, >= 1 */
    double low_freq, high_freq; /* llama3: full turns within orig, 0 < low < high */
    double beta_fast, beta_slow;/* yarn: likewise, fast > slow > 0 */
} cv_rope;

/* f[i], i < dim / 2: radians per position of pair i. */
void cv_rope_table(double *f, const cv_rope *r, int dim);

/* 0.1 * k * ln(s) + 1 for s > 1, else 1: YaRN's attention magnitude. */
double cv_yarn_magnitude(double s, double k);

/* Natural logarithm, x > 0, and base^e, base > 0: within one unit in the last place. */
double cv_ln(double x);
double cv_pow(double base, double e);

#endif
