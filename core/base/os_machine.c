/* os_machine.c - which CPUs and how much memory this process may use (os.h).
 *
 * Linux tells affinity (which a cpuset narrows too) by a call and the rest in files: quotas in
 * control groups of version 1 or 2, speeds and siblings under /sys.  They are looked up below a
 * root folder, "" on a real machine, so that tests can describe machines nobody has on the desk. */
#if !defined(_WIN32)
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE 1
#endif

#include "core/base/os.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__APPLE__)
#include <pthread/qos.h>
#include <sys/sysctl.h>
#endif

enum { PATH_CAP = 4600 };

/* A small text file of the kernel; false when it is not there. */
static bool slurp(const char *path, char *buf, size_t cap)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    size_t n = 0;
    for (ssize_t got; n + 1 < cap && (got = read(fd, buf + n, cap - 1 - n)) > 0;) n += (size_t)got;
    close(fd);
    buf[n] = 0;
    return n > 0;
}

/* The number behind `key` at the start of a line: "MemAvailable:   123 kB" -> 123. */
static bool field(const char *text, const char *key, uint64_t *out)
{
    size_t n = strlen(key);
    for (const char *p = text; p; p = strchr(p, '\n')) {
        if (*p == '\n') p++;
        if (strncmp(p, key, n) != 0) continue;
        char *end;
        *out = strtoull(p + n, &end, 10);
        return end != p + n;
    }
    return false;
}

/* ---- control groups ---- */

typedef void see_fn(const char *folder, void *ctx);

/* The folder `base` + `group` and each of its parents down to base: a limit may stand on any
 * level. */
static void each_parent(const char *base, const char *group, see_fn *see, void *ctx)
{
    char path[PATH_CAP];
    size_t least = strlen(base), g = strcspn(group, "\n");
    if (least + g >= sizeof path) return;
    memcpy(path, base, least);
    memcpy(path + least, group, g);
    path[least + g] = 0;
    for (size_t n = least + g; n >= least; n--) {
        if (n > least && path[n] != '/' && path[n] != 0) continue;
        path[n] = 0;
        see(path, ctx);
        if (n == 0) break;
    }
}

/* Does the comma-separated list of controllers between two colons name this one? */
static bool names(const char *list, const char *controller)
{
    size_t n = strlen(controller);
    for (const char *p = list; *p && *p != ':'; p += *p == ',') {
        size_t len = strcspn(p, ",:\n");
        if (len == n && memcmp(p, controller, n) == 0) return true;
        p += len;
        if (*p != ',') break;
    }
    return false;
}

/* Calls see() with the folders of the group that limits `controller` ("cpu", "memory"): those of
 * version 2, and those of version 1 as /proc/self/cgroup names them.  Inside a container that path
 * is the host's and not there; the controller's own folder then is the container's. */
static void each_cgroup(const char *root, const char *controller, see_fn *see, void *ctx)
{
    char text[4096], path[PATH_CAP], base[PATH_CAP];
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    if (!slurp(path, text, sizeof text)) text[0] = 0;
    snprintf(path, sizeof path, "%s/sys/fs/cgroup", root);
    snprintf(base, sizeof base, "%s/sys/fs/cgroup/%s", root, controller);
    bool seen = false;
    for (const char *p = text; *p;) {
        const char *list = strchr(p, ':'), *end = strchr(p, '\n');
        const char *group = list ? strchr(list + 1, ':') : NULL;
        if (group && (!end || group < end)) {
            if (list[1] == ':') {
                each_parent(path, group + 1, see, ctx);
            } else if (names(list + 1, controller)) {
                each_parent(base, group + 1, see, ctx);
                seen = true;
            }
        }
        if (!end) break;
        p = end + 1;
    }
    if (!seen) see(base, ctx);
}

static bool cgroup_value(const char *folder, const char *file, uint64_t *out)
{
    char path[PATH_CAP + 64], text[128];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    if (!slurp(path, text, sizeof text)) return false;
    char *end;
    *out = strtoull(text, &end, 10);
    return end != text && text[0] != '-'; /* "max" and -1 are no limit */
}

/* ---- CPUs ---- */

static void see_quota(const char *folder, void *ctx)
{
    int *cpus = ctx;
    char path[PATH_CAP + 64], text[128];
    unsigned long long quota = 0, period = 0;
    uint64_t q, per;
    snprintf(path, sizeof path, "%s/cpu.max", folder);
    if (slurp(path, text, sizeof text)) {
        if (sscanf(text, "%llu %llu", &quota, &period) != 2) return;
    } else if (cgroup_value(folder, "cpu.cfs_quota_us", &q) &&
               cgroup_value(folder, "cpu.cfs_period_us", &per)) {
        quota = q;
        period = per;
    }
    if (!quota || !period) return;
    unsigned long long n = (quota + period - 1) / period;
    if (n < (unsigned long long)*cpus) *cpus = (int)n;
}

/* The CPUs that affinity lets us run on: their numbers in cpu[], the count as result. */
static int allowed_cpus(int cpu[VQ_CPUS])
{
    int n = 0;
#ifdef __linux__
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        for (int i = 0; i < VQ_CPUS && i < CPU_SETSIZE; i++) {
            if (CPU_ISSET((size_t)i, &set)) cpu[n++] = i;
        }
    }
#endif
    if (n == 0) {
        long all = sysconf(_SC_NPROCESSORS_ONLN);
        for (n = 0; n < all && n < VQ_CPUS; n++) cpu[n] = n;
    }
    return n;
}

static int with_quota(const char *root, int n)
{
    each_cgroup(root, "cpu", see_quota, &n);
    return n > 0 ? n : 1;
}

int vq_cpu_count(void)
{
    int cpu[VQ_CPUS];
    return with_quota("", allowed_cpus(cpu));
}

static uint64_t cpu_value(const char *root, int cpu, const char *file)
{
    char path[PATH_CAP], text[64];
    snprintf(path, sizeof path, "%s/sys/devices/system/cpu/cpu%d/%s", root, cpu, file);
    return slurp(path, text, sizeof text) ? strtoull(text, NULL, 10) : 0;
}

/* Is an earlier CPU of the list on the same core?  Lists look like "0,4" or "0-1". */
static bool is_sibling(const char *root, const int *cpu, int i)
{
    static const char form[] = "%s/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list";
    char path[PATH_CAP], text[256];
    snprintf(path, sizeof path, form, root, cpu[i]);
    if (!slurp(path, text, sizeof text)) return false;
    for (char *p = text; *p >= '0' && *p <= '9';) {
        long lo = strtol(p, &p, 10), hi = lo;
        if (*p == '-') hi = strtol(p + 1, &p, 10);
        for (int k = 0; k < i; k++) {
            if (cpu[k] >= lo && cpu[k] <= hi) return true;
        }
        if (*p == ',') p++;
    }
    return false;
}

void vq_cpu_fast_at(vq_fast *f, const char *root, const int *cpu, int n)
{
    uint64_t speed[VQ_CPUS], best = 0;
    memset(f, 0, sizeof *f);
    if (n > VQ_CPUS) n = VQ_CPUS;
    /* One scale for all: capacities where every CPU has one, else top frequencies. */
    static const char *const scale[] = { "cpu_capacity", "cpufreq/cpuinfo_max_freq" };
    for (int s = 0; s < 2; s++) {
        bool all = true;
        best = 0;
        for (int i = 0; i < n; i++) {
            speed[i] = cpu_value(root, cpu[i], scale[s]);
            if (speed[i] > best) best = speed[i];
            all = all && speed[i];
        }
        if (all) break;
    }
    for (int i = 0; i < n; i++) {
        if (speed[i] && speed[i] * 10 < best * 6) {
            f->part = true;
            continue;
        }
        f->cpu[cpu[i] / 64] |= (uint64_t)1 << cpu[i] % 64;
        f->cores += !is_sibling(root, cpu, i);
    }
    f->threads = with_quota(root, f->cores);
}

/* A step of a token ends when its slowest thread ends: cores much slower than the best, and second
 * threads of a core, add waiting rather than work. */
void vq_cpu_fast(vq_fast *f)
{
    int cpu[VQ_CPUS];
    const int n = allowed_cpus(cpu);
    vq_cpu_fast_at(f, "", cpu, n);
#ifdef __APPLE__
    int fast = 0;
    size_t size = sizeof fast;
    if (sysctlbyname("hw.perflevel0.physicalcpu", &fast, &size, NULL, 0) == 0 && fast > 0) {
        f->threads = f->cores = fast;
        f->part = fast < n;
    }
#endif
}

int vq_cpu_fast_count(void)
{
    vq_fast f;
    vq_cpu_fast(&f);
    return f.threads;
}

void vq_thread_keep(const vq_fast *f)
{
#if defined(__linux__)
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int i = 0; i < VQ_CPUS && i < CPU_SETSIZE; i++) {
        if (f->cpu[i / 64] >> i % 64 & 1) CPU_SET((size_t)i, &set);
    }
    sched_setaffinity(0, sizeof set, &set);
#else
    (void)f;
#endif
#if defined(__APPLE__)
    pthread_set_qos_class_self_np(QOS_CLASS_USER_INITIATED, 0);
#endif
}

/* ---- memory ---- */

/* The page cache of a group can be taken back, so it counts as free. */
static void see_memory(const char *folder, void *ctx)
{
    uint64_t *avail = ctx, max, used, part, cache = 0;
    char path[PATH_CAP + 64], text[8192];
    bool v2 = cgroup_value(folder, "memory.max", &max) &&
              cgroup_value(folder, "memory.current", &used);
    if (!v2 && !(cgroup_value(folder, "memory.limit_in_bytes", &max) &&
                 cgroup_value(folder, "memory.usage_in_bytes", &used))) {
        return;
    }
    snprintf(path, sizeof path, "%s/memory.stat", folder);
    if (slurp(path, text, sizeof text)) {
        if (field(text, v2 ? "inactive_file " : "total_inactive_file ", &part)) cache += part;
        if (field(text, v2 ? "active_file " : "total_active_file ", &part)) cache += part;
    }
    used = used > cache ? used - cache : 0;
    uint64_t left = max > used ? max - used : 0;
    if (left < *avail) *avail = left;
}

uint64_t vq_mem_available(void)
{
    char text[8192];
    uint64_t avail;
    if (slurp("/proc/meminfo", text, sizeof text) && field(text, "MemAvailable:", &avail)) {
        avail *= 1024;
    } else {
        long pages = sysconf(_SC_PHYS_PAGES); /* all of it: better than no answer */
        avail = pages > 0 ? (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
    }
    each_cgroup("", "memory", see_memory, &avail);
    return avail;
}

#endif
