/* mem.h - the only way to the heap, so that tests can make the Nth allocation fail and debug
 * builds can prove that the token loop never allocates. */
#ifndef CORE_BASE_MEM_H
#define CORE_BASE_MEM_H

#include <stddef.h>
#include <stdint.h>

/* NULL when out of memory or n is absurd; n = 0 gives a unique pointer */
void *vq_malloc(size_t n);
void *vq_calloc(size_t n, size_t size);        /* zeroed; checks n * size */
void *vq_realloc(void *p, size_t n);
void vq_free(void *p);                         /* takes NULL */
/* Zeroed; align a power of two; free with vq_aligned_free */
void *vq_aligned(size_t align, size_t n);
void vq_aligned_free(void *p);
char *vq_strndup(const char *s, size_t n);     /* adds the terminator */

/* Between enter and leave this thread must not allocate: debug builds (VQ_DEBUG) abort and name
 * the caller, release builds do nothing.  Nests. */
void vq_noalloc_enter(void);
void vq_noalloc_leave(void);

/* Fault injection for tests: the nth allocation from now (1 = the next) fails, 0 = never.  Only in
 * builds with VQ_DEBUG: there it returns 1 + how many of the last call's nth were not reached,
 * elsewhere it does nothing and returns 0. */
int vq_mem_fail_at(long nth);

/* Grows *v (elements of `size` bytes, capacity *cap) to hold at least `need`; 0 on success, -1 when
 * out of memory (*v is then unchanged). */
int vq_grow(void *v, size_t *cap, size_t need, size_t size);

#endif
