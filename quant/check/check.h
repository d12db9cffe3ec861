/* check.h - every kernel this CPU has, against ref.c, bit for bit. */
#ifndef QUANT_CHECK_CHECK_H
#define QUANT_CHECK_CHECK_H

#include "quant/quant.h"

typedef struct q_check_opts {
    const char *op;        /* substring of an op name, or NULL for all */
    const char *level;     /* one level, or NULL for all that work here */
    uint64_t seed;         /* printed with every failure */
    bool bench;            /* also time each kernel, on one core, beside its limits (roof.h) */
    void (*say)(void *ctx, const char *line);  /* one line per op and level */
    void *ctx;
} q_check_opts;

/* Returns the number of failed cases; *n_cases = compared. -1: bad op or level
 * name; -2: no memory for the cases. */
int q_check(const q_check_opts *o, int *n_cases);

#endif
