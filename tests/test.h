/* test.h - the whole test framework.  Each tests/t_NAME.c is a program: checks, then t_done().
 *
 * A failed check prints where and why and goes on.  T_SKIP says what was not tested and why: a
 * skipped test never looks green.  Shared checkpoints and fixtures too large for the tree are found
 * through VQ_SHARED (default ../shared); tests that need them skip without. */
#ifndef TESTS_TEST_H
#define TESTS_TEST_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int t_passed, t_failed, t_skipped;

#define T_OK(cond, ...) \
    do { \
        if (cond) { \
            t_passed++; \
        } else { \
            t_failed++; \
            printf("%s:%d: failed: %s: ", __FILE__, __LINE__, #cond); \
            printf(__VA_ARGS__); \
            putchar('\n'); \
            fflush(stdout); \
        } \
    } while (0)
#define T_SKIP(...) \
    do { t_skipped++; printf("skipped: "); printf(__VA_ARGS__); putchar('\n'); } while (0)

static inline const char *t_shared(void)
{
    const char *s = getenv("VQ_SHARED");
    return s && *s ? s : "../shared";
}

static inline int t_done(const char *name)
{
    printf("%s: %d passed, %d failed, %d skipped\n", name, t_passed, t_failed, t_skipped);
    return t_failed ? 1 : 0;
}

#endif
