/* os_posix.c - the operating system, as far as vaquita needs it, for Linux and other POSIX systems.
 *
 * Three things here are shaped by what can go wrong.  A mapped file can lose pages under us: a
 * SIGBUS handler walks a fixed table of maps that is read and written with atomics only, because a
 * handler may run at any instant and may not lock.  A write can run out of space: that is "does not
 * fit" (VQ_ENOFIT), not a failure.  A process can be killed: the one file in the making is removed
 * by a handler that uses nothing but async-signal-safe calls.
 * The signal handlers' state is the only mutable global state of the program. */
#if !defined(_WIN32)
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#define _FILE_OFFSET_BITS 64

#include "core/base/os.h"

#include "core/base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#ifndef O_CLOEXEC
#define O_CLOEXEC 0
#endif
#ifndef MAP_ANONYMOUS
#define MAP_ANONYMOUS MAP_ANON
#endif

static size_t page_size(void)
{
    long n = sysconf(_SC_PAGESIZE);
    return n > 0 ? (size_t)n : 4096;
}

/* Paths of our own making: never longer than the path they come from plus a few characters. */
static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash) return vq_strndup(".", 1);
    return slash == path ? vq_strndup("/", 1) : vq_strndup(path, (size_t)(slash - path));
}

/* ------------------------------------------------------------------ maps and their guard ------ */

enum { MAX_MAPS = 256 }; /* R1 has 163 shards; maps beyond the table work, unguarded */

/* base is 0 in a free slot and 1 in one that is being filled: no address of a map. */
typedef struct guard {
    atomic_uintptr_t base;
    atomic_uintptr_t len; /* bytes, whole pages */
    atomic_bool hurt;
} guard;

static guard guards[MAX_MAPS];
static atomic_uintptr_t guard_page; /* page size; 0 until the handler is installed */
static atomic_int guard_state;      /* 0 no handler, 1 being installed, 2 installed */
static struct sigaction guard_old;

static void on_sigbus(int sig, siginfo_t *info, void *uc)
{
    int keep = errno;
    uintptr_t at = (uintptr_t)info->si_addr;
    uintptr_t page = atomic_load(&guard_page);
    for (int i = 0; i < MAX_MAPS; i++) {
        uintptr_t base = atomic_load(&guards[i].base);
        if (base < 2 || at < base || at - base >= atomic_load(&guards[i].len)) continue;
        /* mmap is a bare system call on every system we know, hence safe here. */
        void *p = mmap((void *)(at & ~(page - 1)), page, PROT_READ,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        if (p == MAP_FAILED) break;
        atomic_store(&guards[i].hurt, true);
        errno = keep;
        return;
    }
    errno = keep;
    if (guard_old.sa_flags & SA_SIGINFO) {
        guard_old.sa_sigaction(sig, info, uc);
    } else if (guard_old.sa_handler != SIG_DFL && guard_old.sa_handler != SIG_IGN) {
        guard_old.sa_handler(sig);
    } else {
        signal(sig, SIG_DFL); /* the access is repeated on return, and is then fatal */
    }
}

static void guard_install(void)
{
    int none = 0;
    if (!atomic_compare_exchange_strong(&guard_state, &none, 1)) return;
    atomic_store(&guard_page, page_size());
    struct sigaction sa;
    memset(&sa, 0, sizeof sa);
    sa.sa_sigaction = on_sigbus;
    sa.sa_flags = SA_SIGINFO | SA_RESTART | SA_NODEFER;
    sigemptyset(&sa.sa_mask);
    sigaction(SIGBUS, NULL, &guard_old); /* before ours can run */
    sigaction(SIGBUS, &sa, NULL);
    atomic_store(&guard_state, 2);
}

static int guard_add(const void *p, size_t len)
{
    guard_install();
    size_t page = page_size();
    for (int i = 0; i < MAX_MAPS; i++) {
        uintptr_t none = 0;
        if (!atomic_compare_exchange_strong(&guards[i].base, &none, 1)) continue;
        atomic_store(&guards[i].hurt, false);
        atomic_store(&guards[i].len, (len + page - 1) & ~(page - 1));
        atomic_store(&guards[i].base, (uintptr_t)p);
        return i;
    }
    return -1;
}

vq_status vq_map_open(vq_map *m, const char *path, vq_err *e)
{
    *m = (vq_map){ .slot = -1 };
    vq_fd f;
    uint64_t size;
    vq_status s = vq_fd_open_read(&f, path, &size, e);
    if (s) return s;
    if (size > PTRDIFF_MAX) {
        vq_fd_close(&f);
        return vq_fail(e, VQ_ENOFIT, "%s: too large for the address space of this machine", path);
    }
    if (size) {
        void *p = mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, f.fd, 0);
        int err = errno;
        if (p == MAP_FAILED) {
            vq_fd_close(&f);
            return vq_fail_errno(e, err, "%s: cannot be mapped", path);
        }
        m->p = p;
        m->size = size;
        m->slot = guard_add(p, (size_t)size);
    }
    vq_fd_close(&f); /* the map keeps the file */
    return VQ_OK;
}

void vq_map_close(vq_map *m)
{
    if (m->slot >= 0) atomic_store(&guards[m->slot].base, 0);
    if (m->p) munmap((void *)(uintptr_t)m->p, (size_t)m->size);
    *m = (vq_map){ .slot = -1 };
}

bool vq_map_hurt(const vq_map *m)
{
    return m->slot >= 0 && atomic_load(&guards[m->slot].hurt);
}

/* The pages that [off, off + len) touches, cut to the map. */
static void map_advise(const vq_map *m, uint64_t off, uint64_t len, int advice)
{
    if (off >= m->size) return;
    if (len > m->size - off) len = m->size - off;
    uint64_t start = off & ~(uint64_t)(page_size() - 1);
    if (len) madvise((void *)(uintptr_t)(m->p + start), (size_t)(off + len - start), advice);
}

void vq_map_advise_willneed(const vq_map *m, uint64_t off, uint64_t len)
{
    map_advise(m, off, len, MADV_WILLNEED);
}

void vq_map_lock(const vq_map *m, uint64_t off, uint64_t len)
{
    if (off > m->size || len > m->size - off) return;
    mlock(m->p + off, (size_t)len); /* whole pages around it; refused beyond RLIMIT_MEMLOCK */
}

/* On a shared map of a file this only unmaps: a page asked for again comes back from the cache. */
void vq_map_drop(const vq_map *m, uint64_t off, uint64_t len)
{
    map_advise(m, off, len, MADV_DONTNEED);
}

/* ------------------------------------------------------------------ files --------------------- */

#ifdef VQ_DEBUG
int (*vq_io_hook)(vq_io what, int fd, size_t *n, uint64_t off);
#define HOOK(what, fd, n, off) (vq_io_hook ? vq_io_hook(what, fd, n, off) : 0)
#else
#define HOOK(what, fd, n, off) ((void)(n), 0)
#endif

vq_status vq_fd_open_read(vq_fd *f, const char *path, uint64_t *size, vq_err *e)
{
    struct stat st;
    /* Without O_NONBLOCK a pipe by this name would keep us waiting for its writer. */
    f->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (f->fd < 0) return vq_fail_errno(e, errno, "%s: cannot be opened", path);
    if (fstat(f->fd, &st) != 0) {
        int err = errno;
        vq_fd_close(f);
        return vq_fail_errno(e, err, "%s", path);
    }
    if (!S_ISREG(st.st_mode)) {
        vq_fd_close(f);
        return vq_fail(e, VQ_EFAIL, "%s: is %s; a file is needed here", path,
                       S_ISDIR(st.st_mode) ? "a folder" : "not a regular file");
    }
    *size = (uint64_t)st.st_size;
    return VQ_OK;
}

/* A file that cannot be made: most often its folder is mistyped. */
static vq_status not_made(vq_err *e, int err, const char *path, const char *what)
{
    if (err != ENOENT && err != ENOTDIR) return vq_fail_errno(e, err, "%s: %s", path, what);
    return vq_fail(e, VQ_EFAIL, "%s: %s: its folder does not exist; make it or choose another",
                   path, what);
}

vq_status vq_fd_create(vq_fd *f, const char *path, vq_err *e)
{
    f->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (f->fd < 0) return not_made(e, errno, path, "cannot be created");
    return VQ_OK;
}

vq_status vq_fd_open_write(vq_fd *f, const char *path, bool create, vq_err *e)
{
    struct stat st;
    f->fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | (create ? O_CREAT : 0), 0666);
    if (f->fd < 0 && create) return not_made(e, errno, path, "cannot be created");
    if (f->fd < 0) return vq_fail_errno(e, errno, "%s: cannot be opened for writing", path);
    if (fstat(f->fd, &st) == 0 && S_ISREG(st.st_mode)) return VQ_OK;
    vq_fd_close(f);
    return vq_fail(e, VQ_EFAIL, "%s: exists and is not a regular file", path);
}

bool vq_fd_lock(vq_fd f)
{
    while (flock(f.fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EINTR) return errno != EWOULDBLOCK;
    }
    return true;
}

bool vq_fd_named(vq_fd f, const char *path)
{
    struct stat a, b;
    return fstat(f.fd, &a) == 0 && stat(path, &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

vq_stamp vq_fd_stamp(vq_fd f)
{
    struct stat st;
    if (fstat(f.fd, &st) != 0) return (vq_stamp){ 0 };
#ifdef __APPLE__
    const struct timespec t = st.st_mtimespec;
#else
    const struct timespec t = st.st_mtim;
#endif
    return (vq_stamp){ (uint64_t)st.st_size, (int64_t)t.tv_sec * 1000000000 + t.tv_nsec };
}

/* A failed write: a full disk or an exhausted quota is "does not fit". */
static vq_status write_failed(vq_err *e, int err, const char *path)
{
    if (err != ENOSPC && err != EDQUOT && err != EFBIG) {
        return vq_fail_errno(e, err, "%s: cannot be written", path);
    }
    return vq_fail(e, VQ_ENOFIT, "%s: %s; free some space or choose another place", path,
                   err == ENOSPC ? "the disk is full"
                   : err == EDQUOT ? "the disk quota is used up"
                                   : "the file is larger than is allowed here");
}

enum { IO_MAX = 1 << 30 }; /* Linux moves at most 2 GiB - 4 KiB per call */

vq_status vq_fd_pread(vq_fd f, void *p, size_t n, uint64_t off, const char *path, vq_err *e)
{
    uint8_t *to = p;
    while (n) {
        size_t take = n < IO_MAX ? n : IO_MAX;
        const int failed = HOOK(VQ_IO_READ, f.fd, &take, off);
        ssize_t got = failed ? -1 : pread(f.fd, to, take, (off_t)off);
        if (failed) errno = failed;
        if (got < 0 && errno == EINTR) continue;
        unsigned long long at = off;
        if (got < 0) return vq_fail_errno(e, errno, "%s: cannot be read at byte %llu", path, at);
        if (got == 0) {
            return vq_fail(e, VQ_EFORMAT, "%s: ends at byte %llu, %zu too early", path, at, n);
        }
        to += got;
        off += (uint64_t)got;
        n -= (size_t)got;
    }
    return VQ_OK;
}

vq_status vq_fd_pwrite(vq_fd f, const void *p, size_t n, uint64_t off, const char *path, vq_err *e)
{
    const uint8_t *from = p;
    while (n) {
        size_t take = n < IO_MAX ? n : IO_MAX;
        const int failed = HOOK(VQ_IO_WRITE, f.fd, &take, off);
        ssize_t put = failed ? -1 : pwrite(f.fd, from, take, (off_t)off);
        if (failed) errno = failed;
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) return write_failed(e, put < 0 ? errno : ENOSPC, path);
        from += put;
        off += (uint64_t)put;
        n -= (size_t)put;
    }
    return VQ_OK;
}

vq_status vq_fd_sync(vq_fd f, const char *path, vq_err *e)
{
    size_t none = 0;
    const int failed = HOOK(VQ_IO_SYNC, f.fd, &none, 0);
    if (failed) return write_failed(e, failed, path);
    while (fsync(f.fd) != 0) {
        if (errno == EINTR) continue;
        if (errno == EINVAL || errno == EROFS) return VQ_OK; /* file systems that cannot sync */
        return write_failed(e, errno, path);
    }
    return VQ_OK;
}

vq_status vq_fd_truncate(vq_fd f, uint64_t size, const char *path, vq_err *e)
{
    size_t none = 0;
    const int failed = HOOK(VQ_IO_CUT, f.fd, &none, size);
    if (failed) return write_failed(e, failed, path);
    while (ftruncate(f.fd, (off_t)size) != 0) {
        if (errno != EINTR) return write_failed(e, errno, path);
    }
    return VQ_OK;
}

void vq_fd_start_write(vq_fd f, uint64_t off, uint64_t len)
{
#ifdef __linux__
    sync_file_range(f.fd, (off_t)off, (off_t)len, SYNC_FILE_RANGE_WRITE);
#else
    (void)f, (void)off, (void)len;
#endif
}

void vq_fd_drop(vq_fd f, uint64_t off, uint64_t len)
{
#ifdef POSIX_FADV_DONTNEED
    posix_fadvise(f.fd, (off_t)off, (off_t)len, POSIX_FADV_DONTNEED);
#else
    (void)f, (void)off, (void)len;
#endif
}

void vq_fd_want(vq_fd f, uint64_t off, uint64_t len)
{
#ifdef POSIX_FADV_WILLNEED
    posix_fadvise(f.fd, (off_t)off, (off_t)len, POSIX_FADV_WILLNEED);
#else
    (void)f, (void)off, (void)len;
#endif
}

void vq_fd_close(vq_fd *f)
{
    if (f->fd >= 0) close(f->fd);
    f->fd = -1;
}

vq_status vq_file_read(const char *path, uint64_t max, vq_buf *out, vq_err *e)
{
    bool is_stdin = strcmp(path, "-") == 0;
    const char *name = is_stdin ? "stdin" : path;
    char chunk[16384];
    int fd = is_stdin ? 0 : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return vq_fail_errno(e, errno, "%s: cannot be opened", name);
    vq_status s = VQ_OK;
    uint64_t total = 0;
    while (!s) {
        ssize_t got = read(fd, chunk, sizeof chunk);
        if (got == 0) break;
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            s = vq_fail_errno(e, errno, "%s: cannot be read", name);
        } else if (total += (uint64_t)got, total > max) {
            s = vq_fail(e, VQ_EFAIL, "%s: larger than %llu bytes", name, (unsigned long long)max);
        } else {
            vq_buf_add(out, chunk, (size_t)got);
            if (out->oom) s = vq_fail(e, VQ_ENOMEM, "%s: out of memory", name);
        }
    }
    if (!s && !total) vq_buf_add(out, "", 0); /* so that .p is a string for empty files too */
    if (!is_stdin) close(fd);
    return s;
}

vq_status vq_file_write_atomic(const char *path, const void *p, size_t n, vq_err *e)
{
    vq_buf tmp = { 0 };
    vq_buf_printf(&tmp, "%s.tmp-%08x", path, (unsigned)vq_random64());
    if (tmp.oom) {
        vq_buf_clear(&tmp);
        return vq_fail(e, VQ_ENOMEM, "%s: out of memory", path);
    }
    vq_fd f;
    vq_status s = vq_fd_create(&f, tmp.p, e);
    if (!s) {
        s = vq_fd_pwrite(f, p, n, 0, path, e);
        if (!s) s = vq_fd_sync(f, path, e);
        vq_fd_close(&f);
        if (!s) s = vq_rename(tmp.p, path, e);
        if (s) vq_unlink(tmp.p);
    }
    vq_buf_clear(&tmp);
    return s;
}

bool vq_file_exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

bool vq_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

char *vq_full_path(const char *path)
{
    char full[PATH_MAX];
    return realpath(path, full) ? vq_strndup(full, strlen(full)) : NULL;
}

bool vq_is_regular(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

uint64_t vq_file_size(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && st.st_size > 0 ? (uint64_t)st.st_size : 0;
}

/* A rename survives a power cut only once the folder is on disk too.  What stands at `to` is
 * replaced when it is a file (or a dangling link), never when it is a device or a pipe. */
vq_status vq_rename(const char *from, const char *to, vq_err *e)
{
    struct stat st;
    if (stat(to, &st) == 0 && !S_ISREG(st.st_mode)) {
        return vq_fail(e, VQ_EFAIL, "%s: exists and is not a regular file", to);
    }
    size_t none = 0;
    const int failed = HOOK(VQ_IO_NAME, -1, &none, 0);
    if (failed) return vq_fail_errno(e, failed, "%s: cannot be put in place", to);
    if (rename(from, to) != 0) return vq_fail_errno(e, errno, "%s: cannot be put in place", to);
    vq_folder_sync(to);
    return VQ_OK;
}

void vq_folder_sync(const char *path)
{
    char *folder = folder_of(path);
    int fd = folder ? open(folder, O_RDONLY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        fsync(fd); /* best effort: some file systems refuse it on folders */
        close(fd);
    }
    vq_free(folder);
}

/* What we remove is what we made: root's `-o /dev/full` must not cost the machine its device. */
void vq_unlink(const char *path)
{
    struct stat st;
    size_t none = 0;
    if (HOOK(VQ_IO_NAME, -1, &none, 0)) return;
    if (lstat(path, &st) == 0 && (S_ISREG(st.st_mode) || S_ISLNK(st.st_mode))) unlink(path);
}

bool vq_disk_free(const char *path_in_folder, uint64_t *bytes)
{
    struct statvfs v;
    char *folder = folder_of(path_in_folder);
    bool ok = folder && statvfs(folder, &v) == 0;
    if (ok) *bytes = (uint64_t)v.f_bavail * (v.f_frsize ? v.f_frsize : v.f_bsize);
    vq_free(folder);
    return ok;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

vq_status vq_dir_list(const char *path, char ***names, size_t *n, vq_err *e)
{
    char **v = NULL;
    size_t count = 0, cap = 0;
    vq_status s = VQ_OK;
    *names = NULL;
    *n = 0;
    DIR *d = opendir(path);
    if (!d) return vq_fail_errno(e, errno, "%s: cannot be listed", path);
    for (struct dirent *de; !s && (de = readdir(d)) != NULL;) {
        struct stat st; /* follows links: Hugging Face caches are folders of links */
        if (fstatat(dirfd(d), de->d_name, &st, 0) != 0 || !S_ISREG(st.st_mode)) continue;
        char *name = vq_strndup(de->d_name, strlen(de->d_name));
        if (!name || vq_grow(&v, &cap, count + 1, sizeof *v)) {
            vq_free(name);
            s = vq_fail(e, VQ_ENOMEM, "%s: out of memory", path);
        } else {
            v[count++] = name;
        }
    }
    closedir(d);
    if (s) {
        while (count) vq_free(v[--count]);
        vq_free(v);
        return s;
    }
    if (count) qsort(v, count, sizeof *v, by_name);
    *names = v;
    *n = count;
    return VQ_OK;
}

/* ------------------------------------------------------------------ being killed -------------- */

static const int kill_signals[] = { SIGINT, SIGTERM, SIGHUP };
enum { N_KILL = sizeof kill_signals / sizeof kill_signals[0] };

static char doomed[4096];                  /* the path, written only while doomed_set is false */
static atomic_bool doomed_set;
static struct sigaction kill_old[N_KILL];
static bool kill_taken[N_KILL];

void vq_cleanup_now(void)
{
    if (atomic_exchange(&doomed_set, false)) unlink(doomed);
}

static void on_kill(int sig)
{
    vq_cleanup_now();
    signal(sig, SIG_DFL);
    raise(sig); /* delivered on return: the parent sees a death by this signal */
}

void vq_cleanup_on_signal(const char *path)
{
    vq_cleanup_cancel();
    size_t n = strlen(path);
    if (n >= sizeof doomed) return;
    memcpy(doomed, path, n + 1);
    atomic_store(&doomed_set, true);
    struct sigaction sa;
    memset(&sa, 0, sizeof sa);
    sa.sa_handler = on_kill;
    sigemptyset(&sa.sa_mask);
    for (int i = 0; i < N_KILL; i++) {
        /* A signal that is ignored (nohup) or already handled does not kill us: leave it alone. */
        sigaction(kill_signals[i], NULL, &kill_old[i]);
        kill_taken[i] = !(kill_old[i].sa_flags & SA_SIGINFO) && kill_old[i].sa_handler == SIG_DFL;
        if (kill_taken[i]) sigaction(kill_signals[i], &sa, NULL);
    }
}

void vq_cleanup_cancel(void)
{
    atomic_store(&doomed_set, false);
    for (int i = 0; i < N_KILL; i++) {
        if (kill_taken[i]) sigaction(kill_signals[i], &kill_old[i], NULL);
        kill_taken[i] = false;
    }
}

/* ------------------------------------------------------------------ machine ------------------- */

double vq_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

uint64_t vq_random64(void)
{
    uint64_t v;
    int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    ssize_t got = fd >= 0 ? read(fd, &v, sizeof v) : -1;
    if (fd >= 0) close(fd);
    if (got == (ssize_t)sizeof v) return v;
    /* No device (a bare chroot): seeds and temporary names only need to differ between runs. */
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    v = (uint64_t)t.tv_sec * 1000000007u + (uint64_t)t.tv_nsec;
    v ^= (uint64_t)getpid() << 32;
    v = (v ^ v >> 30) * 0xbf58476d1ce4e5b9u;
    v = (v ^ v >> 27) * 0x94d049bb133111ebu;
    return v ^ v >> 31;
}

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

static uint64_t status_kb(const char *key)
{
    char text[8192];
    uint64_t kb;
    return slurp("/proc/self/status", text, sizeof text) && field(text, key, &kb) ? kb * 1024 : 0;
}

static atomic_ullong peak_anon; /* largest vq_rss_anon so far */

uint64_t vq_rss_anon(void)
{
    unsigned long long now = status_kb("RssAnon:"), peak = atomic_load(&peak_anon);
    while (now > peak && !atomic_compare_exchange_weak(&peak_anon, &peak, now)) {}
    return now;
}

uint64_t vq_rss_file(void)
{
    return status_kb("RssFile:");
}

uint64_t vq_peak_rss_anon(void)
{
    if (vq_rss_anon()) return atomic_load(&peak_anon);
    struct rusage u;
    if (getrusage(RUSAGE_SELF, &u) != 0) return 0;
#ifdef __APPLE__
    return (uint64_t)u.ru_maxrss; /* bytes there, kilobytes elsewhere */
#else
    return (uint64_t)u.ru_maxrss * 1024;
#endif
}

void *vq_pages_alloc(size_t n)
{
    if (n == 0 || n > PTRDIFF_MAX) return NULL;
    void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
#ifdef MADV_HUGEPAGE
    madvise(p, n, MADV_HUGEPAGE); /* attention walks the cache: fewer TLB misses, fewer faults */
#endif
    return p;
}

void vq_pages_free(void *p, size_t n)
{
    if (p) munmap(p, n);
}

/* ------------------------------------------------------------------ terminal ------------------ */

bool vq_isatty(int fd)
{
    return isatty(fd) == 1;
}

int vq_term_width(void)
{
    struct winsize ws;
    return ioctl(2, TIOCGWINSZ, &ws) == 0 && ws.ws_col > 0 ? ws.ws_col : 80;
}

#endif
