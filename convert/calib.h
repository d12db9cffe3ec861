/* calib.h - what a text tells of a model's weights: which errors matter, and how much.
 *
 * The checkpoint, converted without loss into a container beside the output, runs in our engine,
 * layer by layer (core/engine/walk.h).  Of one layer at a time the moments of all inputs are held,
 * for the encoder (enc 2).  A try tells by how much the predictions change when one matrix alone is
 * quantised: what a budget is spent by. */
#ifndef CONVERT_CALIB_H
#define CONVERT_CALIB_H

#include "core/base/err.h"
#include "core/file/vaq.h"
#include "core/vaquita.h"
#include "quant/quant.h"

typedef struct cv_calib cv_calib;

enum { CV_CALIB_CTX = 256 };    /* ids of a sequence */

typedef struct cv_calib_opts {
    vq_engine *engine;      /* of float matrices with a tokenizer, ctx and max_rows at least
                             * CV_CALIB_CTX, two sessions free; the caller's */
    const vaq_config *config; /* its model */
    const char *text;       /* file */
    const char *cpu;
    int threads;            /* > 0 */
} cv_calib_opts;

vq_status cv_calib_open(cv_calib **out, const cv_calib_opts *o, vq_err *e);
void cv_calib_close(cv_calib *c);
size_t cv_calib_tokens(const cv_calib *c);  /* of the text that are used */
const char *cv_calib_hash(const cv_calib *c); /* of their ids, hex */

/* Are the inputs of this tensor watched?  All matrices but embeddings, routers and MTP layers. */
bool cv_calib_knows(const cv_calib *c, const vaq_tensor *t);
/* Are the moments of its layer, and of its expert, the ones at hand? */
bool cv_calib_holds(const cv_calib *c, const vaq_tensor *t);
/* Its moments, factored; they last until those of another layer are asked for, those of an expert
 * until such as are not held.  Layers must come in rising order; the first one starts anew.
 * An expert's are of the tokens that it got, and a little of all that experts got. */
vq_status cv_calib_moments(cv_calib *c, const vaq_tensor *t, const q_moments **out, vq_err *e);
/* Of t's moments those that its row group reads: heads have their own (k_up, v_up). */
q_moments cv_calib_part(const q_moments *m, const vaq_tensor *t, uint32_t group);
/* Of the layers asked for since the first: experts (all), and those that got no token. */
size_t cv_calib_idle(const cv_calib *c, size_t *all);

/* The mean KL divergence of the predictions when this tensor alone has such a type, over a part of
 * the text; in the order of layers, as above.  An expert's: all of its layer together, of which
 * some are tried.  -1: nobody can tell. */
vq_status cv_calib_try(cv_calib *c, const vaq_tensor *t, int type, double *kl, vq_err *e);

#endif
