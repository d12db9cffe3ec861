/* t_cpus.c - how many threads, on which CPUs, machines get that nobody has on the desk: trees of
 * files like those of Linux, made in a scratch folder. */
#define _GNU_SOURCE 1

#include "core/base/mem.h"
#include "core/base/os.h"
#include "core/base/pool.h"
#include "tests/test.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __linux__
#include <sched.h>
#endif

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

static vq_fast fast(int from, int to)
{
    int cpu[CPUS], n = 0;
    vq_fast f;
    for (int i = from; i < to; i++) cpu[n++] = i;
    vq_cpu_fast_at(&f, root, cpu, n);
    T_OK(f.part == (f.cpu[0] != (1u << to) - (1u << from)), "%d-%d: part %d", from, to, f.part);
    return f;
}

static void is(const char *what, vq_fast got, int threads, unsigned cpu)
{
    T_OK(got.threads == threads, "%s: %d threads, expected %d", what, got.threads, threads);
    T_OK(got.cores >= threads, "%s: %d threads, %d cores", what, threads, got.cores);
    const uint64_t want[VQ_CPUS / 64] = { cpu };
    T_OK(memcmp(got.cpu, want, sizeof want) == 0, "%s: CPUs %#llx, expected %#x", what,
         (unsigned long long)got.cpu[0], cpu);
}

static void test_speeds(void)
{
    machine();
    is("nothing known", fast(0, 6), 6, 0x3f);

    machine();
    cpus(0, 4, "cpu_capacity", "250\n");
    cpus(4, 7, "cpu_capacity", "870\n");
    cpus(7, 8, "cpu_capacity", "1024\n");
    is("1+3+4", fast(0, 8), 4, 0xf0);
    is("1+3+4, the small ones only", fast(0, 4), 4, 0x0f);
    is("1+3+4, small ones and one big", fast(0, 5), 1, 0x10);

    machine();
    cpus(0, 4, "cpufreq/cpuinfo_max_freq", "1400000\n");
    cpus(4, 8, "cpufreq/cpuinfo_max_freq", "2400000\n");
    is("4+4", fast(0, 8), 4, 0xf0);

    machine();
    cpus(0, 6, "cpufreq/cpuinfo_max_freq", "1800000\n");
    cpus(6, 8, "cpufreq/cpuinfo_max_freq", "2200000\n");
    is("2+6 at frequencies near each other", fast(0, 8), 8, 0xff);
    cpus(0, 6, "cpu_capacity", "430\n");
    is("capacity of some only: frequencies decide", fast(0, 8), 8, 0xff);
    cpus(6, 8, "cpu_capacity", "1024\n");
    is("2+6", fast(0, 8), 2, 0xc0);

    machine();
    cpus(0, 4, "cpu_capacity", "614\n");
    cpus(4, 5, "cpu_capacity", "615\n");
    cpus(5, 6, "cpu_capacity", "1024\n");
    is("0.6 of the best is where slow ends", fast(0, 6), 2, 0x30);
}

static void test_siblings(void)
{
    static const char *const apart[] = { "0,4\n", "1,5\n", "2,6\n", "3,7\n" };
    static const char *const beside[] = { "0-1\n", "2-3\n", "4-5\n", "6-7\n" };
    machine();
    for (int i = 0; i < 8; i++)
        cpus(i, i + 1, "topology/thread_siblings_list", apart[i % 4]);
    is("4c8t", fast(0, 8), 4, 0xff);
    is("4c8t, second threads only", fast(4, 8), 4, 0xf0);
    is("4c8t, one core whole and two halves", fast(2, 7), 4, 0x7c);

    machine();
    for (int i = 0; i < 8; i++)
        cpus(i, i + 1, "topology/thread_siblings_list", beside[i / 2]);
    is("4c8t, siblings beside each other", fast(0, 8), 4, 0xff);

    cpus(0, 4, "cpu_capacity", "1024\n");
    cpus(4, 8, "cpu_capacity", "400\n");
    is("two cores of two threads, small ones beside", fast(0, 8), 2, 0x0f);
    is("of these one thread each and a small one", fast(1, 5), 2, 0x0e);
}

static void test_quotas(void)
{
    machine();
    put("0::/a/b\n", "proc/self/cgroup");
    put("max 100000\n", "sys/fs/cgroup/a/b/cpu.max");
    is("version 2 without a limit", fast(0, 8), 8, 0xff);
    put("250000 100000\n", "sys/fs/cgroup/a/cpu.max");
    is("version 2, limited one level up", fast(0, 8), 3, 0xff);
    put("100000 100000\n", "sys/fs/cgroup/a/b/cpu.max");
    is("version 2, the tightest counts", fast(0, 8), 1, 0xff);

    machine();
    put("3:cpu,cpuacct:/jobs/7\n2:memory:/x\n0::/\n", "proc/self/cgroup");
    put("-1\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us");
    put("100000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us");
    is("version 1 without a limit", fast(0, 8), 8, 0xff);
    put("200000\n", "sys/fs/cgroup/cpu/jobs/7/cpu.cfs_quota_us");
    put("100000\n", "sys/fs/cgroup/cpu/jobs/7/cpu.cfs_period_us");
    is("version 1, the process's own group", fast(0, 8), 2, 0xff);

    machine();
    put("4:cpuset:/docker/99\n3:cpuacct,cpu:/docker/99\n", "proc/self/cgroup");
    put("50000\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us");
    put("100000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us");
    is("version 1 inside a container, half a CPU", fast(0, 8), 1, 0xff);

    machine();
    put("garbage\n:::\n0::\n9", "proc/self/cgroup");
    put("word\n", "sys/fs/cgroup/cpu.max");
    is("files that make no sense", fast(0, 8), 8, 0xff);

    machine();
    cpus(0, 4, "cpu_capacity", "300\n");
    cpus(4, 8, "cpu_capacity", "1024\n");
    put("0::/\n", "proc/self/cgroup");
    put("200000 100000\n", "sys/fs/cgroup/cpu.max");
    is("4+4, a quota of two", fast(0, 8), 2, 0xf0);
    T_OK(fast(0, 8).cores == 4, "two threads have four cores to choose from");
    put("600000 100000\n", "sys/fs/cgroup/cpu.max");
    is("4+4, a quota of six", fast(0, 8), 4, 0xf0);
}

#ifdef __linux__
enum { LAST = VQ_CPUS - 1 }; /* in a mask the kernel overlooks a CPU that is not there */

static cpu_set_t mask_of(int cpu)
{
    cpu_set_t s;
    CPU_ZERO(&s);
    CPU_SET((size_t)cpu, &s);
    return s;
}

static void read_masks(void *ctx, int t)
{
    cpu_set_t *mask = ctx;
    if (sched_getaffinity(0, sizeof *mask, &mask[t]) != 0) CPU_ZERO(&mask[t]);
}

/* A pool's workers have the mask wanted, the caller keeps its own. */
static void masks(const char *what, const vq_fast *f, int n, const cpu_set_t *own,
                  const cpu_set_t *want)
{
    cpu_set_t mask[4];
    vq_pool *p;
    T_OK(vq_pool_new_on(&p, n, f, NULL) == VQ_OK, "%s: %d threads", what, n);
    if (!p) return;
    vq_pool_run(p, read_masks, mask);
    T_OK(CPU_EQUAL(&mask[0], own), "%s: the caller's", what);
    for (int t = 1; t < n; t++) T_OK(CPU_EQUAL(&mask[t], want), "%s: thread %d's", what, t);
    vq_pool_free(p);
}

static void test_masks(void)
{
    cpu_set_t own;
    int cpu[3], n = 0;
    T_OK(sched_getaffinity(0, sizeof own, &own) == 0, "no mask of this thread");
    for (int i = 0; i < LAST && n < 2; i++) {
        if (CPU_ISSET((size_t)i, &own)) cpu[n++] = i;
    }
    if (n < 2 || CPU_ISSET(LAST, &own)) {
        T_SKIP("masks of threads: this wants more than one CPU");
        return;
    }
    const cpu_set_t first = mask_of(cpu[0]);
    vq_fast f;

    /* Fast are the first and one that is not there: two threads have a core each. */
    cpu[2] = LAST;
    machine();
    cpus(cpu[0], cpu[0] + 1, "cpu_capacity", "1024\n");
    cpus(cpu[1], cpu[1] + 1, "cpu_capacity", "250\n");
    cpus(LAST, LAST + 1, "cpu_capacity", "1024\n");
    vq_cpu_fast_at(&f, root, cpu, 3);
    T_OK(f.threads == 2 && f.part && f.cpu[LAST / 64] >> LAST % 64 == 1, "%d threads", f.threads);
    masks("a core for each", &f, 2, &own, &first);
    masks("more threads than fast cores", &f, 3, &own, &own);

    cpus(LAST, LAST + 1, "cpu_capacity", "250\n");
    vq_cpu_fast_at(&f, root, cpu, 3);
    T_OK(f.threads == 1 && f.part, "%d threads", f.threads);
    masks("one fast core", &f, 2, &own, &own);

    /* All of two are fast: no mask, though the one here is larger than they. */
    cpu[1] = LAST;
    cpus(LAST, LAST + 1, "cpu_capacity", "1024\n");
    vq_cpu_fast_at(&f, root, cpu, 2);
    T_OK(f.threads == 2 && !f.part, "%d threads", f.threads);
    masks("all are fast", &f, 2, &own, &own);

    memset(&f, 0, sizeof f);
    f.threads = f.cores = 2;
    f.part = true;
    f.cpu[LAST / 64] = (uint64_t)1 << LAST % 64;
    masks("a set that the system refuses", &f, 2, &own, &own);

    /* The machine's own set is within the mask of who asks. */
    T_OK(sched_setaffinity(0, sizeof first, &first) == 0, "one CPU");
    vq_cpu_fast(&f);
    T_OK(sched_setaffinity(0, sizeof own, &own) == 0, "as it was");
    T_OK(f.threads == 1 && f.cores == 1 && !f.part, "%d threads on one CPU", f.threads);
    uint64_t want[VQ_CPUS / 64] = { 0 };
    want[cpu[0] / 64] = (uint64_t)1 << cpu[0] % 64;
    T_OK(memcmp(f.cpu, want, sizeof want) == 0, "not CPU %d", cpu[0]);
}
#else
static void test_masks(void)
{
    T_SKIP("masks of threads: nothing to ask for them");
}
#endif

int main(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(top, sizeof top, "%s/vaquita_t_cpus_XXXXXX", tmp && *tmp ? tmp : "/tmp");
    T_OK(mkdtemp(top), "set-up");
    test_speeds();
    test_siblings();
    test_quotas();
    test_masks();
    while (n_made) {
        char *p = made[--n_made];
        if (p) remove(p);
        vq_free(p);
    }
    T_OK(rmdir(top) == 0, "nothing left behind");
    return t_done("t_cpus");
}
