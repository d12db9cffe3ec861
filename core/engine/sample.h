/* sample.h - drawing an id from logits, exactly as exact.md 5 says. */
#ifndef CORE_ENGINE_SAMPLE_H
#define CORE_ENGINE_SAMPLE_H

#include "core/vaquita.h"
#include "quant/quant.h"

typedef struct vq_cand { uint32_t bits; int32_t id; } vq_cand; /* bits of a positive f32 */

typedef struct vq_sampler { /* buffers for n_ids ids, shared by all sessions of an engine */
    int n_ids;
    float *p;               /* (n_ids) */
    vq_cand *cand, *spare;  /* (n_ids) */
    int32_t *at;            /* (n_ids) ids of a band */
} vq_sampler;

vq_status vq_sampler_init(vq_sampler *s, int n_ids, vq_err *e);
void vq_sampler_clear(vq_sampler *s);

/* The id at `position` of a sequence.  logits: (n_ids) finite.  A pure function of its arguments;
 * allocates nothing. */
int32_t vq_sample(vq_sampler *s, const q_kern *k, const float *logits, const vq_sampling *o,
                  uint32_t position);

/* VQ_EUSAGE naming the parameter that is not finite or negative. */
vq_status vq_sampling_check(const vq_sampling *o, vq_err *e);

/* Philox4x32-10 (Salmon et al., SC11). */
void vq_philox(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2]);

#endif
