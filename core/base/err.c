/* err.c - formats error messages.
 *
 * Messages quote names and bytes of files we did not write and end up on terminals, so what leaves
 * here is one line of valid UTF-8 without control characters, whatever went in. */
#include "core/base/err.h"

#include "core/base/str.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Replaces, in place, what must not reach a terminal: C0, DEL, C1 (U+0080..U+009F, which 8-bit
 * terminals obey like ESC [) and anything that is not UTF-8, the code point cut by a full buffer
 * included. */
static void sanitize(char *s)
{
    size_t n = strlen(s);
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int len = vq_utf8_get(s + i, n - i, &cp);
        if (len == 0 || cp < 0x20 || (cp >= 0x7f && cp < 0xa0)) {
            memset(s + i, '?', (size_t)(len ? len : 1));
        }
        i += (size_t)(len ? len : 1);
    }
}

vq_status vq_fail(vq_err *e, vq_status code, const char *fmt, ...)
{
    if (e) {
        va_list ap;
        va_start(ap, fmt);
        e->code = code;
        if (vsnprintf(e->msg, sizeof e->msg, fmt, ap) < 0) e->msg[0] = 0;
        va_end(ap);
        sanitize(e->msg);
    }
    return code;
}

vq_status vq_fail_errno(vq_err *e, int errnum, const char *fmt, ...)
{
    vq_status code = VQ_EFAIL;
    if (errnum == ENOSPC || errnum == EFBIG) code = VQ_ENOFIT;
    if (errnum == ENOMEM) code = VQ_ENOMEM;
    if (e) {
        va_list ap;
        va_start(ap, fmt);
        e->code = code;
        int n = vsnprintf(e->msg, sizeof e->msg, fmt, ap);
        va_end(ap);
        if (n < 0) n = 0;
        if ((size_t)n < sizeof e->msg) {
            snprintf(e->msg + n, sizeof e->msg - (size_t)n, ": %s", strerror(errnum));
        }
        sanitize(e->msg);
    }
    return code;
}

int vq_status_exit(vq_status s)
{
    switch (s) {
    case VQ_OK: return 0;
    case VQ_EFAIL: return 1;
    case VQ_EUSAGE: return 2;
    case VQ_EFORMAT: return 3;
    case VQ_ENOFIT: return 4;
    case VQ_ENOMEM: return 4;
    case VQ_EINTR: return 130;
    }
    return 1;
}
