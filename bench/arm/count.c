/* count.c - calls one matrix product of one level, for bench/arm_count.sh to count.
 *
 * Usage: count LEVEL TYPE ROWS K TOKENS.  What lies between count_begin and count_end is counted:
 * one whole call, with all it unpacks, packs and stores.  Not part of the program. */
#include "quant/quant.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void count_begin(void);
void count_end(void);
__attribute__((noinline)) void count_begin(void) { __asm__ volatile("" ::: "memory"); }
__attribute__((noinline)) void count_end(void) { __asm__ volatile("nop" ::: "memory"); }

static void *memory(size_t n)
{
    void *p = aligned_alloc(64, (n + 63) / 64 * 64);
    if (!p) exit(1);
    memset(p, 1, n); /* no kernel looks at values */
    return p;
}

int main(int argc, char **argv)
{
    q_kern t;
    if (argc != 6) {
        fprintf(stderr, "usage: count LEVEL TYPE ROWS K TOKENS\n");
        return 2;
    }
    const q_typeinfo *type = q_type_by_name(argv[2]);
    if (!q_kern_make(&t, argv[1]) || !type || !q_gemm_for(&t, type->id).a8) {
        fprintf(stderr, "count: no level %s or no integer type %s\n", argv[1], argv[2]);
        return 1;
    }
    const int rows = atoi(argv[3]), k = atoi(argv[4]), tokens = atoi(argv[5]);
    void *w = memory((size_t)q_matrix_bytes(type->id, (uint64_t)rows, k)), *tmp = memory(Q_TMP);
    float *y = memory((size_t)rows * (size_t)tokens * sizeof *y);
    q_acts x;
    q_acts_init(&x, memory(q_acts_bytes(tokens, k)), tokens, k);
    q_gemm_a8_fn *gemm = q_gemm_for(&t, type->id).a8;
    count_begin();
    gemm(y, (size_t)rows, w, rows, &x, 0, tokens, tmp);
    count_end();
    return 0;
}
