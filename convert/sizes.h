/* sizes.h - how large a model becomes in a type, and how fast that would decode: pure arithmetic on
 * a config or a table of tensors, for `plan`. */
#ifndef CONVERT_SIZES_H
#define CONVERT_SIZES_H

#include "core/base/err.h"
#include "core/file/vaq.h"

#include <stddef.h>

typedef struct cv_sizes {
    uint64_t params;        /* weights, without padding */
    uint64_t body;          /* bytes of all tensors as they lie in the file: exact */
    uint64_t file;          /* with the front, but for tokenizer and metadata */
    uint64_t experts;       /* of body: routed experts of the main layers, which can be streamed */
    uint64_t mtp;           /* of body: MTP layers, which plain decoding does not touch */
    uint64_t token;         /* bytes read per token without routed experts and cache */
    uint64_t token_experts; /* bytes of the routed experts of one token */
    uint64_t kv;            /* bytes of one position in the int8 cache */
} cv_sizes;

/* Every matrix in `type`; -1: the auto recipe. */
void cv_sizes_of_config(cv_sizes *s, const vaq_config *c, int type);
/* A container's own table. */
void cv_sizes_of_table(cv_sizes *s, const vaq_config *c, const vaq_tensor *t, uint32_t n);
/* Weights and the cache of n positions. */
uint64_t cv_memory(const cv_sizes *s, uint32_t n);

typedef enum cv_fit { CV_FIT_NO, CV_FIT_STREAMS, CV_FIT_YES } cv_fit;

typedef struct cv_machine {
    uint64_t ram;           /* bytes for model and cache */
    double mem_gbs;         /* memory read, 10^9 bytes per second */
    double disk_gbs;        /* disk read */
} cv_machine;

/* Tokens per second with half of a context of ctx positions filled, when memory or disk is the
 * limit; kernels reach some nine tenths of it.  0 with CV_FIT_NO.
 * What is larger than memory streams.  Of a dense model the excess comes from disk for every token.
 * With experts a cache of what 3/4 of the memory leaves beside everything else answers its share of
 * the requests, and the rest is read; real routing has favourites and does better. */
cv_fit cv_expect(double *tps, const cv_sizes *s, const cv_machine *m, uint32_t ctx);

/* The config of a checkpoint, a folder, a .safetensors in one or a .gguf.  config.json alone is
 * enough: where the weights are not all there, note says why they were not looked at (else it is
 * "").  nearest: what auto makes of a .gguf, whose types it keeps near to; params 0: no .gguf. */
vq_status cv_source_config(vaq_config *c, cv_sizes *nearest, char note[256], const char *path,
                           vq_err *e);

#endif
