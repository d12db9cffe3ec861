/* plan.h - what goes into the container: every tensor in file order, its type, and where it comes
 * from in the checkpoint. */
#ifndef CONVERT_PLAN_H
#define CONVERT_PLAN_H

#include "convert/checkpoint.h"
#include "convert/part.h"
#include "convert/rules.h"

typedef struct cv_source {
    cv_part part[2];        /* [1]: the up of gate and up */
    int n;                  /* 1 or 2 */
} cv_source;

typedef struct cv_plan_opts {
    int type;               /* q_type of all matrices; -1: auto */
    cv_rules *rules;        /* NULL: none; say otherwise for some */
    bool drop_mtp;          /* leave the MTP layers out */
    bool quick;             /* reads no weights: takes the MTP layers' copies of embedding and head
                             * for equal to the main ones */
} cv_plan_opts;

typedef struct cv_plan {
    vaq_tensor *tensor;     /* (n) in the order of the file */
    cv_source *src;         /* (n) */
    size_t n;
    uint64_t read_bytes;    /* of the checkpoint that will be read */
    uint64_t params;        /* weights */
    uint32_t quantised;     /* bit 1 << cv_dtype: types of matrices that came quantised */
    char mtp_lacks[96];     /* a tensor of the MTP layers that is not there: they were left out */
} cv_plan;

/* names.c: the checkpoint's canonical names of a container's tensor; 1 or 2. */
int cv_source_names(const vaq_tensor *t, char name[2][96]);
/* "layers.5.mlp.experts.3.up_proj.weight" without the number of the expert: GGUF has all in one. */
void cv_drop_expert(char *name);
/* A tensor of some checkpoints that no computation needs. */
bool cv_ignorable(vq_str canonical);

/* recipe.c: the type of a matrix; type -1 is auto.  The router is always f32. */
int cv_recipe_type(int type, const vaq_config *c, uint32_t role, uint32_t layer);
/* What auto takes for a matrix that is quantised already; -1: it is not. */
int cv_nearest_type(cv_dtype d);
/* dtypes: cv_plan.quantised */
void cv_recipe_text(vq_buf *out, int type, const vaq_config *c, uint32_t dtypes);

/* plan.c: finds all tensors, checks names, shapes and dtypes; decides whether head and embedding
 * are one (VAQ_F_TIED in *c, as the checkpoint has it), which MTP layers there are (n_mtp) and
 * whether they share both (VAQ_F_MTP_*). */
vq_status cv_plan_make(cv_plan *p, const cv_ckpt *ckpt, vaq_config *c, const cv_plan_opts *o,
                       vq_err *e);
void cv_plan_clear(cv_plan *p);

#endif
