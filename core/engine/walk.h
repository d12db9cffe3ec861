/* walk.h - a text that goes through a model layer by layer: what calibration needs of an engine.
 *
 * All positions of the text are held between two layers, so a layer's weights are touched once,
 * what is known of its inputs is known when the layer is done, and then it may be forgotten.
 * Chunks are sequences of their own.  The engine must be of float matrices, its max_rows and ctx at
 * least the length of a chunk; a walk is its only user. */
#ifndef CORE_ENGINE_WALK_H
#define CORE_ENGINE_WALK_H

#include "core/vaquita.h"
#include "quant/quant.h"

typedef struct vq_walk vq_walk;

/* The inputs that matrices read, as in core/model/forward.h; the head is layer n_layer and reads
 * VQ_WALK_ATTN. */
enum {
    VQ_WALK_ATTN, VQ_WALK_Q_B, VQ_WALK_K_UP, VQ_WALK_V_UP, VQ_WALK_O, VQ_WALK_FFN, VQ_WALK_DOWN,
    VQ_WALK_EXPERTS, VQ_WALK_INPUTS
};

/* ids: (n_chunk, len), copied. */
vq_status vq_walk_open(vq_walk **out, vq_engine *eng, const int32_t *ids, size_t n_chunk,
                       size_t len, vq_err *e);
void vq_walk_close(vq_walk *w);
/* The text through the next layer; behind the last comes the head's input.  m[i], if not NULL, gets
 * the sums over input i added to its h. */
vq_status vq_walk_step(vq_walk *w, q_moments *const m[VQ_WALK_INPUTS], vq_err *e);
/* Of the layer that the latest step was through, if it summed over VQ_WALK_EXPERTS: the ids that an
 * expert got, and the sums over these alone added to what it reads: `in` of gate and up, `down`. */
size_t vq_walk_routed(const vq_walk *w, int expert);
void vq_walk_expert(vq_walk *w, int expert, q_moments *in, q_moments *down);

/* The text from where it is to the logits of each chunk's second half, without the last position;
 * it stays where it is.  row(ctx, i, logits): i counts over all chunks. */
typedef void vq_walk_fn(void *ctx, size_t i, const float *logits);
vq_status vq_walk_logits(vq_walk *w, vq_walk_fn *row, void *ctx, vq_err *e);
size_t vq_walk_rows(const vq_walk *w); /* how many */

/* A matrix of the model (expert: of those that experts have); rows 0: it has none. */
typedef struct vq_walk_matrix {
    const void *groups;     /* T16 */
    int type, rows, cols;
    bool lent;              /* not the file's own */
} vq_walk_matrix;
vq_walk_matrix vq_walk_get(const vq_walk *w, int role, int layer, int expert);
/* Other values for it, of a float type; borrowed until it is set again.  With what vq_walk_get gave
 * it is as it was. */
void vq_walk_set(vq_walk *w, int role, int layer, int expert, const vq_walk_matrix *m);

#endif
