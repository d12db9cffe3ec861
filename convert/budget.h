/* budget.h - types for all matrices that make the most of so many bytes. */
#ifndef CONVERT_BUDGET_H
#define CONVERT_BUDGET_H

#include "convert/calib.h"
#include "convert/plan.h"

/* Measurements, kept in a file so that a run that is stopped loses few of them. */
typedef struct cv_tries {
    cv_calib *calib;
    const q_kern *kern;
    const char *path;       /* of what is kept; NULL: nothing is */
    uint8_t key[32];        /* hash of all they depend on: others are not taken for ours */
    size_t done;            /* the first so many tensors are measured */
    double saved;           /* when the file was written, vq_now */
    bool (*progress)(void *ctx, uint64_t done, uint64_t all);   /* as in cv_opts; matrices */
    void *ctx;
} cv_tries;

/* Sets t->done, and so many of kl[n], by what an earlier run kept: what cv_budget_costs wants to
 * find in `cost`. */
void cv_tries_recall(cv_tries *t, double *kl, size_t n);

/* cost (plan->n): KL divergence to expect when this matrix alone is N4s; 0: its type is no choice.
 * With tries measured (of all experts of a layer together, divided among them), from tries->done
 * on, else a guess by role (only ratios are worth something); MTP layers change no prediction, so
 * theirs is always a guess, on the scale of what was measured. */
vq_status cv_budget_costs(double *cost, const cv_plan *p, const vaq_config *c, cv_tries *tries,
                          vq_err *e);
/* What of a matrix's cost a type leaves. */
double cv_budget_left(int type);
/* Gives every matrix that has a cost the type with which the sum of what is expected is smallest
 * while all tensors have at most `limit` bytes; the experts of a layer get the same.  VQ_EUSAGE:
 * even the smallest types have more. */
vq_status cv_budget_spend(cv_plan *p, const double *cost, uint64_t limit, vq_err *e);
/* "n4s 12, n4 8": how many matrices got which type. */
void cv_budget_text(vq_buf *out, const cv_plan *p);

#endif
