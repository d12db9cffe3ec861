/* drafts.h - a drafter for tests: it is told what will come and says it, or something else. */
#ifndef TESTS_DRAFTS_H
#define TESTS_DRAFTS_H

#include "core/base/mem.h"
#include "core/engine/draft.h"

#include <stdlib.h>

typedef struct oracle {
    vq_drafter base;
    const int32_t *ids;     /* (n) what ids[0..n) of the sequence will be; borrowed */
    size_t n;
    int n_vocab;
    int right;              /* of 100 guesses this many are as told, the others at random */
    uint64_t seed;
} oracle;

static inline uint32_t oracle_rnd(oracle *o)
{
    o->seed = o->seed * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(o->seed >> 33);
}

static inline int oracle_propose(vq_drafter *d, const int32_t *ids, size_t n, vq_guess *out,
                                 int most)
{
    oracle *o = (oracle *)d;
    (void)ids;
    for (int i = 0; i < most; i++) {
        const bool told = n + (size_t)i < o->n && (int)(oracle_rnd(o) % 100) < o->right;
        out[i] = (vq_guess){ told ? o->ids[n + (size_t)i]
                                  : (int32_t)(oracle_rnd(o) % (uint32_t)o->n_vocab), 0 };
    }
    return most;
}

static inline void oracle_free(vq_drafter *d) { vq_free(d); }

/* Owned by the session it is given to. */
static inline vq_drafter *oracle_new(const int32_t *ids, size_t n, int n_vocab, int right,
                                     uint64_t seed)
{
    oracle *o = vq_calloc(1, sizeof *o);
    if (!o) abort();
    const vq_drafter base = { .propose = oracle_propose, .close = oracle_free };
    *o = (oracle){ base, ids, n, n_vocab, right, seed };
    return &o->base;
}

#endif
