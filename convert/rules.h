/* rules.h - recipes in text: which matrix gets which type, one rule to a line (RECIPE.md).
 *
 * Rules are read before the checkpoint is, so that a mistake costs nothing; what a rule means for a
 * model shows when the plan asks for the type of each matrix.  cv_rules_write says any choice of
 * types in this syntax, whoever made it: read back, it makes the same choice. */
#ifndef CONVERT_RULES_H
#define CONVERT_RULES_H

#include "core/base/err.h"
#include "core/base/str.h"
#include "core/file/vaq.h"

typedef struct cv_rules cv_rules;

/* text: n bytes; name: of the file, for messages.  VQ_EUSAGE: file, line, what is wrong with it. */
vq_status cv_rules_read(cv_rules **out, const char *text, size_t n, const char *name, vq_err *e);
void cv_rules_free(cv_rules *r);

/* The type of a matrix (its role, layer, expert count): of the last rule that means it; `other`
 * when none does, or when that rule says auto. */
int cv_rules_type(cv_rules *r, const vaq_tensor *t, int other);
/* A line whose rule has meant no matrix so far, at or after *line; false: there is none. */
bool cv_rules_idle(const cv_rules *r, int *line);

/* Appends a recipe that gives each of these n tensors the type it has. */
void cv_rules_write(vq_buf *out, const vaq_tensor *t, size_t n);

#endif
