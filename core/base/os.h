/* os.h - everything vaquita wants from an operating system; implemented in os_posix.c and
 * os_machine.c (and one day os_win.c).  No other file of core/ or convert/ includes an OS
 * header. */
#ifndef CORE_BASE_OS_H
#define CORE_BASE_OS_H

#include "core/base/err.h"
#include "core/base/str.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- whole files, mapped read-only and shared ---- */
typedef struct vq_map {
    const uint8_t *p; /* NULL when size is 0 */
    uint64_t size;
    int slot;         /* registry slot for the truncation guard, -1 = none */
} vq_map;

/* Maps a regular file.  A page that vanishes later (the file was cut, the disk failed) does not
 * kill the process: a SIGBUS handler, installed with the first map, replaces it by zeros and marks
 * the map, and whoever computes with it asks vq_map_hurt() before trusting the result.  Faults
 * outside our maps go to the handler that was there before. */
vq_status vq_map_open(vq_map *m, const char *path, vq_err *e);
void vq_map_close(vq_map *m);
bool vq_map_hurt(const vq_map *m);                              /* a page of it could not be read */
void vq_map_advise_willneed(const vq_map *m, uint64_t off, uint64_t len);
/* Kept in memory from now on, if we are allowed to */
void vq_map_lock(const vq_map *m, uint64_t off, uint64_t len);
/* We will not read this range again (keeps RSS low) */
void vq_map_drop(const vq_map *m, uint64_t off, uint64_t len);

/* ---- files ---- */
typedef struct vq_fd { int fd; } vq_fd;
vq_status vq_fd_open_read(vq_fd *f, const char *path, uint64_t *size, vq_err *e);
/* O_EXCL: fails when it exists */
vq_status vq_fd_create(vq_fd *f, const char *path, vq_err *e);
/* For reading and writing, as it is; `create`: made empty when it is not there.  Follows links;
 * anything but a regular file is refused. */
vq_status vq_fd_open_write(vq_fd *f, const char *path, bool create, vq_err *e);
/* Taken for this process alone, until the file is closed or the process ends, however it ends.
 * false: another has it.  Where a file system knows no locks everybody gets them. */
bool vq_fd_lock(vq_fd f);
bool vq_fd_named(vq_fd f, const char *path);    /* is it the file that has this name now? */
typedef struct vq_stamp { uint64_t size; int64_t time; /* of the last change, ns */ } vq_stamp;
vq_stamp vq_fd_stamp(vq_fd f);                  /* zeros when nothing is known */
/* All n bytes or an error */
vq_status vq_fd_pread(vq_fd f, void *p, size_t n, uint64_t off, const char *path, vq_err *e);
vq_status vq_fd_pwrite(vq_fd f, const void *p, size_t n, uint64_t off, const char *path, vq_err *e);
vq_status vq_fd_sync(vq_fd f, const char *path, vq_err *e);
/* Also extends, with a hole */
vq_status vq_fd_truncate(vq_fd f, uint64_t size, const char *path, vq_err *e);
void vq_fd_start_write(vq_fd f, uint64_t off, uint64_t len);  /* hint: write these bytes out now */
/* Hint: not needed in the page cache */
void vq_fd_drop(vq_fd f, uint64_t off, uint64_t len);
/* Hint: will be read soon, start now */
void vq_fd_want(vq_fd f, uint64_t off, uint64_t len);
void vq_fd_close(vq_fd *f);                                   /* takes fd -1 */

/* "-" is stdin; larger than max: VQ_EFAIL */
vq_status vq_file_read(const char *path, uint64_t max, vq_buf *out, vq_err *e);
vq_status vq_file_write_atomic(const char *path, const void *p, size_t n, vq_err *e);
bool vq_file_exists(const char *path);
bool vq_is_dir(const char *path);
/* From the root, links and dots resolved; vq_free; NULL: not there */
char *vq_full_path(const char *path);
bool vq_is_regular(const char *path);                         /* a file, or a link to one */
uint64_t vq_file_size(const char *path);                      /* 0: not there */
vq_status vq_rename(const char *from, const char *to, vq_err *e); /* and syncs the folder */
void vq_unlink(const char *path);                             /* files and links only, no devices */
void vq_folder_sync(const char *path);        /* names made and removed beside `path` are durable */
bool vq_disk_free(const char *path_in_folder, uint64_t *bytes);   /* for unprivileged users */
/* Removes `path` if the process is killed by SIGINT/SIGTERM/SIGHUP before vq_cleanup_cancel. */
void vq_cleanup_on_signal(const char *path);
void vq_cleanup_cancel(void);
/* Removes it now: for a signal handler of the caller's that is about to _exit */
void vq_cleanup_now(void);
/* Regular names in a folder, sorted bytewise; free each and the array with vq_free. */
vq_status vq_dir_list(const char *path, char ***names, size_t *n, vq_err *e);

#ifdef VQ_DEBUG
/* Tests put themselves before every step that a crash or a bad disk can come between.  An errno
 * makes the step fail, 0 lets it happen; reads and writes may be shortened through *n. */
typedef enum vq_io { VQ_IO_READ, VQ_IO_WRITE, VQ_IO_SYNC, VQ_IO_CUT, VQ_IO_NAME } vq_io;
extern int (*vq_io_hook)(vq_io what, int fd, size_t *n, uint64_t off);
#endif

/* ---- machine ---- */
double vq_now(void);                                   /* seconds, monotonic */
uint64_t vq_random64(void);                            /* from the OS, for default seeds */
/* CPUs this process may use: affinity and cgroup quota */
int vq_cpu_count(void);
/* The performance cores among them: capacity or top frequency >= 0.6 of the best.  How many threads
 * they are worth, and which CPUs they are: all of a core's, since the scheduler keeps two threads
 * off one core by itself and knows which of its CPUs is free. */
enum { VQ_CPUS = 1024 };        /* numbers are below; CPUs with larger ones are left out */
typedef struct vq_fast {
    int threads;                /* one per core, fewer if a cgroup's quota is: the default, >= 1 */
    int cores;                  /* >= threads */
    bool part;                  /* this process may use slower CPUs as well */
    uint64_t cpu[VQ_CPUS / 64]; /* CPU i is bit i % 64 of word i / 64 */
} vq_fast;
void vq_cpu_fast(vq_fast *f);
int vq_cpu_fast_count(void);                           /* its threads */
/* The same for the machine that the files below `root` describe, of whose CPUs the n numbers (below
 * VQ_CPUS) may be used: for tests */
void vq_cpu_fast_at(vq_fast *f, const char *root, const int *cpu, int n);
/* The calling thread runs on these CPUs alone from now on, on whichever the scheduler likes.  A
 * system that refuses leaves it as it is.  macOS lets nobody choose CPUs: there the thread gets the
 * class of work that a user waits for, which performance cores take first. */
void vq_thread_keep(const vq_fast *f);
/* Bytes we may use: MemAvailable and cgroup limit */
uint64_t vq_mem_available(void);
/* The largest vq_rss_anon() so far (ask it often), else peak RSS */
uint64_t vq_peak_rss_anon(void);
uint64_t vq_rss_anon(void);                            /* private anonymous bytes now */
uint64_t vq_rss_file(void);

/* Anonymous zeroed memory in whole (huge, where possible) pages, for KV and scratch: reserved now,
 * given by the system on first touch, so a large context costs nothing until it is used. */
void *vq_pages_alloc(size_t n);
void vq_pages_free(void *p, size_t n);

/* ---- terminal ---- */
bool vq_isatty(int fd);                                /* 0, 1, 2 */
int vq_term_width(void);                               /* columns of stderr, 80 when unknown */

#endif
