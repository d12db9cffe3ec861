/* t_check.c - the kernel checks as a test, so that the sanitizers see every kernel, too. */
#include "quant/check/check.h"
#include "tests/test.h"

static void say(void *ctx, const char *line)
{
    (void)ctx;
    if (!strstr(line, " equal")) printf("%s\n", line);
}

/* The lines of a benchmark: each level but the reference gives both rates and shares of limits. */
typedef struct seen { int levels, full; } seen;

static void count(void *ctx, const char *line)
{
    seen *s = ctx;
    if (!strstr(line, " equal")) return;
    s->levels++;
    const char *read = strstr(line, " GB/s ("), *int8 = strstr(line, " GMAC/s (");
    if (read && int8 && strstr(read, "% of read)") && strstr(int8, "% of int8)")) s->full++;
}

int main(void)
{
    const char *names[8];
    const int levels = q_cpu_levels(names);
    int n = 0;
    const q_check_opts all = { .seed = 1, .say = say };
    const int bad = q_check(&all, &n);
    T_OK(bad == 0, "%d of %d cases differ from the reference", bad, n);
    T_OK(n > 0 || levels == 1, "no case was compared");
    if (levels == 1)
        T_SKIP("no kernels for this CPU in this build: nothing to compare with the reference");

    seen rates = { 0 };
    const q_check_opts timed = { .op = "gemm_n4s", .seed = 1, .bench = true, .say = count,
                                 .ctx = &rates };
    T_OK(q_check(&timed, &n) == 0, "%d cases beside a benchmark differ", n);
    T_OK(rates.levels > 0 && rates.full == rates.levels,
         "%d of %d levels give both rates and their shares", rates.full, rates.levels);

    const q_check_opts op = { .op = "no such op", .seed = 1 },
                       level = { .level = "no such level", .seed = 1 };
    T_OK(q_check(&op, &n) == -1, "an unknown op is an error");
    T_OK(q_check(&level, &n) == -1, "an unknown level is an error");
    return t_done("t_check");
}
