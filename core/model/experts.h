/* experts.h - routed experts that do not fit memory: a cache of whole experts over the file.
 *
 * A slot holds gate, up and down of one expert as they lie side by side in the container.  Between
 * barriers one thread says which experts the layer wants (begin), all threads wait for each as its
 * turn comes, and the slots are free again after end.  What is computed from a slot are the bits
 * that the mapped file would have given. */
#ifndef CORE_MODEL_EXPERTS_H
#define CORE_MODEL_EXPERTS_H

#include "core/base/fetch.h"
#include "core/model/model.h"

typedef struct vq_experts vq_experts;

/* Bytes of all routed experts, and of the largest one: what a cache may and must hold. */
uint64_t vq_experts_bytes(const vq_model *m, uint64_t *largest);

/* budget: bytes of slots, at least the largest expert (VQ_ENOFIT).  The rest of the model's file is
 * locked in memory where the system allows it. */
vq_status vq_experts_new(vq_experts **out, const vq_model *m, uint64_t budget, vq_err *e);
void vq_experts_free(vq_experts *x);
int vq_experts_slots(const vq_experts *x);

/* The layer is about to compute expert[from..n) (ascending): has as many of them read as fit and
 * returns the first that does not, or n; they stay until end.  One thread. */
int vq_experts_begin(vq_experts *x, int layer, const int *expert, int from, int n);
void vq_experts_end(vq_experts *x);
/* Memory of an expert named in begin: gate and up, then down at *down.  Waits for it.  NULL: it
 * could not be read.  Any thread. */
const uint8_t *vq_experts_wait(vq_experts *x, int layer, int expert, const uint8_t **down);
/* These may be wanted soon: read when nothing else is to be read.  One thread, as begin. */
void vq_experts_guess(vq_experts *x, int layer, const int32_t *expert, int n);
vq_status vq_experts_error(vq_experts *x, vq_err *e);
/* The first thread of a pass waited so long for experts. */
void vq_experts_stalled(vq_experts *x, double seconds);

typedef struct vq_experts_stats {
    int slots;
    uint64_t bytes;         /* of all slots */
    uint64_t hits, misses;  /* wanted experts that were there, or on the way; and not */
    uint64_t guessed, right;/* experts read on a guess; of them wanted before they were evicted */
    uint64_t read_bytes;
    double read_s, stall_s; /* inside reads, all threads; first thread waiting for them */
    bool direct;            /* reads go past the page cache */
} vq_experts_stats;
vq_experts_stats vq_experts_get_stats(const vq_experts *x);

#endif
