/* budget.h - types for all matrices that make the most of so many bytes. */
#ifndef CONVERT_BUDGET_H
#define CONVERT_BUDGET_H

#include "convert/calib.h"
#include "convert/plan.h"

/* cost (plan->n): KL divergence to expect when this matrix alone is N4s; 0: its type is no choice.
 * With calib measured (of all experts of a layer together, divided among them), else a guess by
 * role (only ratios are worth something); MTP layers change no prediction, so theirs is always a
 * guess, on the scale of what was measured.
 * progress as in cv_opts, counting matrices. */
vq_status cv_budget_costs(double *cost, const cv_plan *p, const vaq_config *c, cv_calib *calib,
                          bool (*progress)(void *, uint64_t, uint64_t), void *ctx, vq_err *e);
/* What of a matrix's cost a type leaves. */
double cv_budget_left(int type);
/* Gives every matrix that has a cost the type with which the sum of what is expected is smallest
 * while all tensors have at most `limit` bytes; the experts of a layer get the same.  VQ_EUSAGE:
 * even the smallest types have more. */
vq_status cv_budget_spend(cv_plan *p, const double *cost, uint64_t limit, vq_err *e);
/* "n4s 12, n4 8": how many matrices got which type. */
void cv_budget_text(vq_buf *out, const cv_plan *p);

#endif
