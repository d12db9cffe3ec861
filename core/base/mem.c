/* mem.c - the heap, with the two things a test wants from it.
 *
 * Release builds are thin wrappers that refuse absurd sizes.  Builds with VQ_DEBUG count every
 * allocation: the one chosen by vq_mem_fail_at fails, and one made between vq_noalloc_enter and
 * vq_noalloc_leave aborts with the address of its caller.  Freeing is always allowed. */
#include "core/base/mem.h"

#include <stdlib.h>
#include <string.h>

#ifdef VQ_DEBUG
#include <stdatomic.h>
#include <stdio.h>

static _Thread_local int noalloc; /* nesting depth of this thread */
static atomic_long fail_at;       /* allocations until the one that fails; 0 = none will */

static int denied(size_t n, const void *caller)
{
    if (noalloc) {
        fprintf(stderr, "vaquita: %zu bytes allocated where it is forbidden, from %p\n", n, caller);
        abort();
    }
    long left = atomic_load(&fail_at);
    while (left > 0) {
        if (atomic_compare_exchange_weak(&fail_at, &left, left - 1)) return left == 1;
    }
    return 0;
}

#if defined(__GNUC__)
#define DENIED(n) denied((n), __builtin_return_address(0))
#else
#define DENIED(n) denied((n), NULL)
#endif

void vq_noalloc_enter(void) { noalloc++; }
void vq_noalloc_leave(void) { noalloc--; }

int vq_mem_fail_at(long nth)
{
    const long left = atomic_exchange(&fail_at, nth);
    return left < 1000000 ? 1 + (int)left : 1000000;
}

#else
#define DENIED(n) 0

void vq_noalloc_enter(void) {}
void vq_noalloc_leave(void) {}

int vq_mem_fail_at(long nth)
{
    (void)nth;
    return 0;
}
#endif

void *vq_malloc(size_t n)
{
    if (n > PTRDIFF_MAX || DENIED(n)) return NULL;
    return malloc(n ? n : 1);
}

void *vq_calloc(size_t n, size_t size)
{
    if (size && n > PTRDIFF_MAX / size) return NULL;
    if (DENIED(n * size)) return NULL;
    return n && size ? calloc(n, size) : calloc(1, 1);
}

void *vq_realloc(void *p, size_t n)
{
    if (n > PTRDIFF_MAX || DENIED(n)) return NULL;
    return realloc(p, n ? n : 1);
}

void vq_free(void *p)
{
    free(p);
}

/* aligned_alloc wants a size that is a multiple of the alignment. */
void *vq_aligned(size_t align, size_t n)
{
    if (n > PTRDIFF_MAX - align || DENIED(n)) return NULL;
    size_t size = (n + align - 1) & ~(align - 1);
    if (!size) size = align;
    void *p = aligned_alloc(align, size);
    if (p) memset(p, 0, size);
    return p;
}

void vq_aligned_free(void *p)
{
    free(p);
}

char *vq_strndup(const char *s, size_t n)
{
    if (n >= PTRDIFF_MAX || DENIED(n + 1)) return NULL;
    char *d = malloc(n + 1);
    if (!d) return NULL;
    if (n) memcpy(d, s, n);
    d[n] = 0;
    return d;
}

/* v is a T ** passed as void *: the pointer is read and written through memcpy, so that no object
 * is accessed as a type it does not have. */
int vq_grow(void *v, size_t *cap, size_t need, size_t size)
{
    if (need <= *cap) return 0;
    size_t max = PTRDIFF_MAX / size;
    if (need > max) return -1;
    size_t want = *cap < max / 2 ? *cap + *cap / 2 + 16 : max;
    if (want < need) want = need;
    if (want > max) want = max;
    if (DENIED(want * size)) return -1;

    void *p;
    memcpy(&p, v, sizeof p);
    p = realloc(p, want * size);
    if (!p) return -1;
    memcpy(v, &p, sizeof p);
    *cap = want;
    return 0;
}
