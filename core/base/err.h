/* err.h - how every function of vaquita says that something went wrong.
 *
 * A function that can fail returns a vq_status (VQ_OK is 0) and, when the caller passes a vq_err,
 * leaves one line there: which file, what was expected, what was found, what to do about it.
 * Nothing below main prints or exits.  Bugs are asserted; bytes we did not write never are. */
#ifndef CORE_BASE_ERR_H
#define CORE_BASE_ERR_H

#ifdef __cplusplus
extern "C" {
#endif

typedef enum vq_status {
    VQ_OK = 0,
    VQ_EFAIL,   /* the operation failed (an I/O error, a file that is not there)      exit 1 */
    VQ_EUSAGE,  /* the caller asked for something that makes no sense                 exit 2 */
    VQ_EFORMAT, /* an input file is damaged or not of a kind we know                  exit 3 */
    VQ_ENOFIT,  /* it does not fit: memory, disk or context                           exit 4 */
    VQ_ENOMEM,  /* an allocation failed                                               exit 4 */
    VQ_EINTR    /* interrupted by the user                                            exit 130 */
} vq_status;

typedef struct vq_err {
    vq_status code;
    char msg[1000]; /* one line, UTF-8, no trailing newline, always terminated */
} vq_err;

#if defined(__GNUC__)
#define VQ_PRINTF(f, a) __attribute__((format(printf, f, a)))
#else
#define VQ_PRINTF(f, a)
#endif

/* Fills *e (which may be NULL) and returns `code`, so that callers write `return vq_fail(...)`.
 * Control characters in the result are replaced by '?': messages carry names from files. */
vq_status vq_fail(vq_err *e, vq_status code, const char *fmt, ...) VQ_PRINTF(3, 4);

/* Like vq_fail, with ": strerror(errnum)" appended; VQ_ENOFIT when a disk is full, VQ_ENOMEM when
 * memory ran out, else VQ_EFAIL. */
vq_status vq_fail_errno(vq_err *e, int errnum, const char *fmt, ...) VQ_PRINTF(3, 4);

/* The process exit code that cli.md promises for a status. */
int vq_status_exit(vq_status s);

#ifdef __cplusplus
}
#endif
#endif
