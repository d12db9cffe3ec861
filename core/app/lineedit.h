/* lineedit.h - a line being typed: bytes from the keyboard in, bytes for the screen out.
 *
 * Nothing here touches a terminal: the caller reads keys (raw mode) and writes what comes out, so
 * tests can type.  Text is UTF-8; the cursor moves over whole characters with what combines with
 * them, and wide characters take two columns.  A paste may contain newlines; Enter sends. */
#ifndef CORE_APP_LINEEDIT_H
#define CORE_APP_LINEEDIT_H

#include "core/base/str.h"

typedef struct lineedit lineedit;

typedef enum le_event {
    LE_MORE,        /* go on feeding */
    LE_LINE,        /* Enter: le_text is the line; le_begin starts the next one */
    LE_EOF,         /* Ctrl-D on an empty line */
    LE_INTERRUPT,   /* Ctrl-C */
    LE_SUSPEND      /* Ctrl-Z */
} le_event;

lineedit *le_new(void);                     /* NULL: out of memory */
void le_free(lineedit *le);

/* Starts an empty line behind `prompt` (plain text, borrowed) on a screen of so many columns. */
void le_begin(lineedit *le, const char *prompt, int columns);
/* One byte from the keyboard; le_draw then shows what changed, once for any number of bytes. */
le_event le_feed(lineedit *le, unsigned char byte);
/* No byte came for a while: a lone Escape is a key of its own, not the start of a sequence. */
void le_pause(lineedit *le);
bool le_pending(const lineedit *le);        /* inside an escape sequence */
void le_draw(lineedit *le, vq_buf *screen);
void le_finish(lineedit *le, vq_buf *screen); /* draws it once more; the cursor goes below */
void le_resize(lineedit *le, int columns);
vq_str le_text(const lineedit *le);

/* History, oldest first; repeated neighbours and empty lines are dropped, the oldest fall out. */
enum { LE_HISTORY = 500 };
bool le_history_add(lineedit *le, const char *p, size_t n); /* false: not added */
/* The form of a history file: one entry a line, newline and backslash escaped. */
void le_history_escape(vq_buf *out, vq_str line);
void le_history_load(lineedit *le, const char *file, size_t n);

/* Columns of a code point: 0 combining and invisible, 2 East Asian wide and emoji, else 1. */
int le_width(uint32_t cp);

#endif
