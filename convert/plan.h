/* plan.h - what goes into the container: every tensor in file order, its type, and where it comes
 * from in the checkpoint. */
#ifndef CONVERT_PLAN_H
#define CONVERT_PLAN_H

#include "convert/checkpoint.h"

typedef struct cv_source { const cv_tensor *part[2]; } cv_source; /* [1]: the up of gate and up */

typedef struct cv_plan {
    vaq_tensor *tensor;     /* (n) in the order of the file */
    cv_source *src;         /* (n) */
    size_t n;
    uint64_t read_bytes;    /* of the checkpoint that will be read */
    uint64_t params;        /* weights */
} cv_plan;

/* names.c: the checkpoint's canonical names of a container's tensor; 1 or 2. */
int cv_source_names(const vaq_tensor *t, char name[2][96]);
/* A tensor of some checkpoints that no computation needs. */
bool cv_ignorable(vq_str canonical);

/* recipe.c: the type of a matrix; type -1 is auto. */
int cv_recipe_type(int type, const vaq_config *c, uint32_t role, uint32_t layer);
void cv_recipe_text(vq_buf *out, int type, const vaq_config *c);

/* plan.c: finds all tensors, checks names, shapes and dtypes; decides whether head and embedding
 * are one (VAQ_F_TIED in *c, as the checkpoint has it). */
vq_status cv_plan_make(cv_plan *p, const cv_ckpt *ckpt, vaq_config *c, int type, vq_err *e);
void cv_plan_clear(cv_plan *p);

#endif
