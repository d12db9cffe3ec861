/* term.h - the terminal and the signals of a command line program, POSIX.
 *
 * Interrupts: Ctrl-C ends the process at once with 130, the terminal put back and a half-written
 * file removed.  A verb that can stop by itself says so (term_polite, term_watch): then the first
 * Ctrl-C asks it to, and only the second ends the process. */
#ifndef CORE_APP_TERM_H
#define CORE_APP_TERM_H

#include "core/vaquita.h"

/* Before anything else: fills missing standard descriptors (so no file of ours becomes "stdout"),
 * ignores SIGPIPE and SIGXFSZ (writes then fail with EPIPE, EFBIG), catches SIGINT. */
void term_init(void);

void term_polite(bool on);          /* the verb asks term_interrupted() often enough */
void term_watch(vq_engine *eng);    /* polite, and Ctrl-C stops this engine; NULL: no longer */
bool term_interrupted(void);
void term_clear_interrupt(void);
/* The screen shows an attribute: dying and stopping (Ctrl-Z) take it back first. */
void term_styled(bool on);

int term_columns(void);             /* of stdout, 80 when unknown */

/* Keys one by one, unechoed, and bracketed paste.  false: stdin is no terminal that can do that. */
bool term_raw_enter(void);
void term_raw_leave(void);
/* Bytes of stdin: -1 error or end, 0 nothing came within `ms` (< 0: wait forever), else the count.
 * Returns 0 early when the window size changed. */
int term_read(void *p, int n, int ms);
void term_write(const void *p, size_t n); /* straight to the terminal behind stdout */
void term_suspend(void);            /* Ctrl-Z: leaves raw mode, stops, comes back in raw mode */

/* Appends to a file only its owner can read; failures are silent: it is for histories. */
void term_append_private(const char *path, const void *p, size_t n);

#endif
