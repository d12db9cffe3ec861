/* t_cpus.c - how many threads machines get that nobody has on the desk: trees of files like those
 * of Linux, made in a scratch folder. */
#define _GNU_SOURCE 1

#include "core/base/mem.h"
#include "core/base/os.h"
#include "tests/test.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CPUS = 16, MADE = 400 };

static char top[200], root[230];
static char *made[MADE]; /* what was made, in order */
static int n_made, n_machine;

static void remember(const char *path)
{
    T_OK(n_made < MADE, "room for %s", path);
    if (n_made < MADE) made[n_made++] = vq_full_path(path);
}

/* A file with its folders; `name` is below the root of the latest machine. */
static void put(const char *text, const char *name, ...) VQ_PRINTF(2, 3);
static void put(const char *text, const char *name, ...)
{
    char path[600];
    int n = snprintf(path, sizeof path, "%s/", root);
    const int base = n;
    va_list ap;
    va_start(ap, name);
    n += vsnprintf(path + n, sizeof path - (size_t)n, name, ap);
    va_end(ap);
    for (int i = base; i < n; i++) {
        if (path[i] != '/') continue;
        path[i] = 0;
        if (mkdir(path, 0700) == 0) remember(path);
        path[i] = '/';
    }
    FILE *f = fopen(path, "w");
    T_OK(f && fputs(text, f) >= 0 && fclose(f) == 0, "%s", path);
    remember(path);
}

static void machine(void)
{
    snprintf(root, sizeof root, "%s/%d", top, n_machine++);
    T_OK(mkdir(root, 0700) == 0, "%s", root);
    remember(root);
}

/* CPUs from..to-1 have this value in `file`. */
static void cpus(int from, int to, const char *file, const char *value)
{
    for (int i = from; i < to; i++) put(value, "sys/devices/system/cpu/cpu%d/%s", i, file);
}

static int fast(int from, int to)
{
    int cpu[CPUS], n = 0;
    for (int i = from; i < to; i++) cpu[n++] = i;
    return vq_cpu_fast_count_at(root, cpu, n);
}

static void is(const char *what, int got, int want)
{
    T_OK(got == want, "%s: %d threads, expected %d", what, got, want);
}

static void test_speeds(void)
{
    machine();
    is("nothing known", fast(0, 6), 6);

    machine();
    cpus(0, 4, "cpu_capacity", "250\n");
    cpus(4, 7, "cpu_capacity", "870\n");
    cpus(7, 8, "cpu_capacity", "1024\n");
    is("1+3+4", fast(0, 8), 4);
    is("1+3+4, the small ones only", fast(0, 4), 4);
    is("1+3+4, small ones and one big", fast(0, 5), 1);

    machine();
    cpus(0, 4, "cpufreq/cpuinfo_max_freq", "1400000\n");
    cpus(4, 8, "cpufreq/cpuinfo_max_freq", "2400000\n");
    is("4+4", fast(0, 8), 4);

    machine();
    cpus(0, 6, "cpufreq/cpuinfo_max_freq", "1800000\n");
    cpus(6, 8, "cpufreq/cpuinfo_max_freq", "2200000\n");
    is("2+6 at frequencies near each other", fast(0, 8), 8);
    cpus(0, 6, "cpu_capacity", "430\n");
    is("capacity of some only: frequencies decide", fast(0, 8), 8);
    cpus(6, 8, "cpu_capacity", "1024\n");
    is("2+6", fast(0, 8), 2);

    machine();
    cpus(0, 4, "cpu_capacity", "614\n");
    cpus(4, 5, "cpu_capacity", "615\n");
    cpus(5, 6, "cpu_capacity", "1024\n");
    is("0.6 of the best is where slow ends", fast(0, 6), 2);
}

static void test_siblings(void)
{
    static const char *const apart[] = { "0,4\n", "1,5\n", "2,6\n", "3,7\n" };
    static const char *const beside[] = { "0-1\n", "2-3\n", "4-5\n", "6-7\n" };
    machine();
    for (int i = 0; i < 8; i++)
        cpus(i, i + 1, "topology/thread_siblings_list", apart[i % 4]);
    is("4c8t", fast(0, 8), 4);
    is("4c8t, second threads only", fast(4, 8), 4);
    is("4c8t, one core whole and two halves", fast(2, 7), 4);

    machine();
    for (int i = 0; i < 8; i++)
        cpus(i, i + 1, "topology/thread_siblings_list", beside[i / 2]);
    is("4c8t, siblings beside each other", fast(0, 8), 4);
}

static void test_quotas(void)
{
    machine();
    put("0::/a/b\n", "proc/self/cgroup");
    put("max 100000\n", "sys/fs/cgroup/a/b/cpu.max");
    is("version 2 without a limit", fast(0, 8), 8);
    put("250000 100000\n", "sys/fs/cgroup/a/cpu.max");
    is("version 2, limited one level up", fast(0, 8), 3);
    put("100000 100000\n", "sys/fs/cgroup/a/b/cpu.max");
    is("version 2, the tightest counts", fast(0, 8), 1);

    machine();
    put("3:cpu,cpuacct:/jobs/7\n2:memory:/x\n0::/\n", "proc/self/cgroup");
    put("-1\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us");
    put("100000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us");
    is("version 1 without a limit", fast(0, 8), 8);
    put("200000\n", "sys/fs/cgroup/cpu/jobs/7/cpu.cfs_quota_us");
    put("100000\n", "sys/fs/cgroup/cpu/jobs/7/cpu.cfs_period_us");
    is("version 1, the process's own group", fast(0, 8), 2);

    machine();
    put("4:cpuset:/docker/99\n3:cpuacct,cpu:/docker/99\n", "proc/self/cgroup");
    put("50000\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us");
    put("100000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us");
    is("version 1 inside a container, half a CPU", fast(0, 8), 1);

    machine();
    put("garbage\n:::\n0::\n9", "proc/self/cgroup");
    put("word\n", "sys/fs/cgroup/cpu.max");
    is("files that make no sense", fast(0, 8), 8);
}

int main(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(top, sizeof top, "%s/vaquita_t_cpus_XXXXXX", tmp && *tmp ? tmp : "/tmp");
    T_OK(mkdtemp(top), "set-up");
    test_speeds();
    test_siblings();
    test_quotas();
    while (n_made) {
        char *p = made[--n_made];
        if (p) remove(p);
        vq_free(p);
    }
    T_OK(rmdir(top) == 0, "nothing left behind");
    return t_done("t_cpus");
}
