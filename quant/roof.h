/* roof.h - the two limits of a core, measured by loops that do nothing else.
 *
 * A speed means something only beside its limit: how many bytes a core can read from memory and how
 * many int8 multiply-adds it can do with everything in registers.  One pair of loops per CPU level,
 * written with that level's widest instructions, so that no kernel of the level can beat them. */
#ifndef QUANT_ROOF_H
#define QUANT_ROOF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct q_roof {
    /* Reads n bytes at p (both multiples of 512) once, forward; the return value only keeps the
     * reads alive. */
    uint32_t (*read)(const void *p, size_t n);
    /* Does `rounds` rounds of int8 dot products in registers; *sink keeps them alive.  Returns the
     * multiply-adds done. */
    uint64_t (*int8)(uint64_t rounds, uint32_t *sink);
} q_roof;

/* The loops of a level of q_cpu_levels (levels without own loops use the next lower one's). */
void q_roof_make(q_roof *r, const char *level);

bool q_roof_avx2(q_roof *r);
bool q_roof_avxvnni(q_roof *r);
bool q_roof_avx512vnni(q_roof *r);
bool q_roof_amx(q_roof *r);
bool q_roof_neon(q_roof *r);
bool q_roof_dotprod(q_roof *r);
bool q_roof_i8mm(q_roof *r);

#endif
