/* lineedit.c - the line editor of chat (lineedit.h).
 *
 * State is the text, the cursor as a byte offset, and where on the screen the last drawing left the
 * cursor; every drawing starts by going back to the row of the prompt, so a line may take any
 * number of rows.  Invariants: the cursor stands on the start of a character, and lines wrap where
 * we say, never where the terminal does (a row that is full is ended explicitly). */
#include "core/app/lineedit.h"

#include "core/base/mem.h"

#include <string.h>

enum key_state { PLAIN, ESC, CSI, SS3 };

struct lineedit {
    vq_buf text;
    size_t at;              /* cursor, bytes */
    const char *prompt;
    int columns;
    int row;                /* of the cursor, counted from the prompt's row */
    enum key_state state;
    char seq[16];           /* parameters of an escape sequence */
    int n_seq;
    bool paste;             /* between the marks of bracketed paste */
    bool was_cr;            /* in a paste: the last byte was \r */
    bool wipe;              /* the next drawing starts on an empty screen */
    char part[4];           /* bytes of a character that is not complete */
    int n_part;
    vq_buf killed;          /* for Ctrl-Y */
    char *line[LE_HISTORY]; /* (n_line) owned */
    int n_line;
    int shown;              /* history entry in the line; n_line: the new text */
    vq_buf fresh;           /* the new text while an entry is shown */
};

lineedit *le_new(void)
{
    lineedit *le = vq_calloc(1, sizeof *le);
    if (le) le->columns = 80;
    return le;
}

void le_free(lineedit *le)
{
    if (!le) return;
    vq_buf_clear(&le->text);
    vq_buf_clear(&le->killed);
    vq_buf_clear(&le->fresh);
    for (int i = 0; i < le->n_line; i++) vq_free(le->line[i]);
    vq_free(le);
}

vq_str le_text(const lineedit *le) { return (vq_str){ le->text.p ? le->text.p : "", le->text.n }; }
bool le_pending(const lineedit *le) { return le->state != PLAIN; }
void le_pause(lineedit *le) { le->state = PLAIN; }
void le_resize(lineedit *le, int columns) { le->columns = columns > 1 ? columns : 2; }

/* ---- characters ---- */

/* Sorted ranges.  Zero: combining marks, joiners, variation selectors, bidi controls of the scripts
 * a terminal is likely to show.  Wide: Unicode East_Asian_Width W and F, emoji included. */
typedef struct range { uint32_t lo, hi; } range;
static const range zero[] = {
    { 0x0300, 0x036f },   { 0x0483, 0x0489 }, { 0x0591, 0x05bd }, { 0x05bf, 0x05bf },
    { 0x05c1, 0x05c2 },   { 0x05c4, 0x05c5 }, { 0x0610, 0x061a }, { 0x064b, 0x065f },
    { 0x0670, 0x0670 },   { 0x06d6, 0x06dc }, { 0x06df, 0x06e4 }, { 0x06e7, 0x06e8 },
    { 0x06ea, 0x06ed },   { 0x093c, 0x093c }, { 0x0941, 0x0948 }, { 0x094d, 0x094d },
    { 0x0e31, 0x0e31 },   { 0x0e34, 0x0e3a }, { 0x0e47, 0x0e4e }, { 0x135d, 0x135f },
    { 0x1ab0, 0x1ace },   { 0x1dc0, 0x1dff }, { 0x200b, 0x200f }, { 0x202a, 0x202e },
    { 0x2060, 0x2064 },   { 0x20d0, 0x20f0 }, { 0x302a, 0x302d }, { 0x3099, 0x309a },
    { 0xfe00, 0xfe0f },   { 0xfe20, 0xfe2f }, { 0xfeff, 0xfeff }, { 0x1f3fb, 0x1f3ff },
    { 0xe0001, 0xe01ef },
};
static const range wide[] = {
    { 0x1100, 0x115f },   { 0x231a, 0x231b },   { 0x2329, 0x232a },   { 0x23e9, 0x23ec },
    { 0x23f0, 0x23f0 },   { 0x23f3, 0x23f3 },   { 0x25fd, 0x25fe },   { 0x2614, 0x2615 },
    { 0x2648, 0x2653 },   { 0x267f, 0x267f },   { 0x2693, 0x2693 },   { 0x26a1, 0x26a1 },
    { 0x26aa, 0x26ab },   { 0x26bd, 0x26be },   { 0x26c4, 0x26c5 },   { 0x26ce, 0x26ce },
    { 0x26d4, 0x26d4 },   { 0x26ea, 0x26ea },   { 0x26f2, 0x26f3 },   { 0x26f5, 0x26f5 },
    { 0x26fa, 0x26fa },   { 0x26fd, 0x26fd },   { 0x2705, 0x2705 },   { 0x270a, 0x270b },
    { 0x2728, 0x2728 },   { 0x274c, 0x274c },   { 0x274e, 0x274e },   { 0x2753, 0x2755 },
    { 0x2757, 0x2757 },   { 0x2795, 0x2797 },   { 0x27b0, 0x27b0 },   { 0x27bf, 0x27bf },
    { 0x2b1b, 0x2b1c },   { 0x2b50, 0x2b50 },   { 0x2b55, 0x2b55 },   { 0x2e80, 0x3029 },
    { 0x302e, 0x303e },   { 0x3041, 0x3098 },   { 0x309b, 0x33ff },   { 0x3400, 0x4dbf },
    { 0x4e00, 0xa4c6 },   { 0xa960, 0xa97c },   { 0xac00, 0xd7a3 },   { 0xf900, 0xfaff },
    { 0xfe10, 0xfe19 },   { 0xfe30, 0xfe6b },   { 0xff01, 0xff60 },   { 0xffe0, 0xffe6 },
    { 0x16fe0, 0x18cd5 }, { 0x1aff0, 0x1b2fb }, { 0x1f004, 0x1f004 }, { 0x1f0cf, 0x1f0cf },
    { 0x1f18e, 0x1f18e }, { 0x1f191, 0x1f19a }, { 0x1f200, 0x1f320 }, { 0x1f32d, 0x1f335 },
    { 0x1f337, 0x1f37c }, { 0x1f37e, 0x1f393 }, { 0x1f3a0, 0x1f3ca }, { 0x1f3cf, 0x1f3d3 },
    { 0x1f3e0, 0x1f3f0 }, { 0x1f3f4, 0x1f3f4 }, { 0x1f3f8, 0x1f43e }, { 0x1f440, 0x1f440 },
    { 0x1f442, 0x1f4fc }, { 0x1f4ff, 0x1f53d }, { 0x1f54b, 0x1f54e }, { 0x1f550, 0x1f567 },
    { 0x1f57a, 0x1f57a }, { 0x1f595, 0x1f596 }, { 0x1f5a4, 0x1f5a4 }, { 0x1f5fb, 0x1f64f },
    { 0x1f680, 0x1f6c5 }, { 0x1f6cc, 0x1f6cc }, { 0x1f6d0, 0x1f6d2 }, { 0x1f6d5, 0x1f6d7 },
    { 0x1f6dc, 0x1f6df }, { 0x1f6eb, 0x1f6ec }, { 0x1f6f4, 0x1f6fc }, { 0x1f7e0, 0x1f7eb },
    { 0x1f7f0, 0x1f7f0 }, { 0x1f90c, 0x1f93a }, { 0x1f93c, 0x1f945 }, { 0x1f947, 0x1f9ff },
    { 0x1fa70, 0x1faff }, { 0x20000, 0x3fffd },
};

static bool among(const range *r, size_t n, uint32_t cp)
{
    while (n > 0) {
        const size_t half = n / 2;
        if (cp > r[half].hi) {
            r += half + 1;
            n -= half + 1;
        } else if (cp < r[half].lo) {
            n = half;
        } else {
            return true;
        }
    }
    return false;
}

int le_width(uint32_t cp)
{
    if (cp < 0x300) return 1;
    if (among(zero, sizeof zero / sizeof *zero, cp)) return 0;
    return among(wide, sizeof wide / sizeof *wide, cp) ? 2 : 1;
}

/* The character at byte `at`: its bytes and columns.  Only whole characters are ever inserted. */
static size_t char_at(const vq_buf *t, size_t at, int *columns)
{
    uint32_t cp;
    const int len = vq_utf8_get(t->p + at, t->n - at, &cp);
    if (len == 0) {
        *columns = 1;
        return 1;
    }
    *columns = le_width(cp);
    return (size_t)len;
}

/* The next place for the cursor: behind a character and all that combines with it. */
static size_t right_of(const vq_buf *t, size_t at)
{
    int w;
    if (at < t->n) at += char_at(t, at, &w);
    while (at < t->n) {
        const size_t len = char_at(t, at, &w);
        if (w > 0) break;
        at += len;
    }
    return at;
}

static size_t left_of(const vq_buf *t, size_t at)
{
    while (at > 0) {
        do at--;
        while (at > 0 && ((unsigned char)t->p[at] & 0xc0) == 0x80);
        int w;
        char_at(t, at, &w);
        if (w > 0) break;
    }
    return at;
}

static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\n'; }

static size_t word_left(const vq_buf *t, size_t at)
{
    while (at > 0 && is_blank(t->p[at - 1])) at--;
    while (at > 0 && !is_blank(t->p[at - 1])) at--;
    return at;
}

static size_t word_right(const vq_buf *t, size_t at)
{
    while (at < t->n && is_blank(t->p[at])) at++;
    while (at < t->n && !is_blank(t->p[at])) at++;
    return at;
}

/* Bounds of the typed line around the cursor (a paste may have made several). */
static size_t row_start(const lineedit *le)
{
    size_t i = le->at;
    while (i > 0 && le->text.p[i - 1] != '\n') i--;
    return i;
}

static size_t row_end(const lineedit *le)
{
    size_t i = le->at;
    while (i < le->text.n && le->text.p[i] != '\n') i++;
    return i;
}

/* ---- changing the text ---- */

static void insert(lineedit *le, const char *p, size_t n)
{
    vq_buf *t = &le->text;
    const size_t old = t->n;
    vq_buf_add(t, p, n);
    if (t->n != old + n) { /* out of memory: the line stays as it was */
        t->oom = false;
        return;
    }
    memmove(t->p + le->at + n, t->p + le->at, old - le->at);
    memcpy(t->p + le->at, p, n);
    le->at += n;
}

static void erase(lineedit *le, size_t from, size_t to, bool keep)
{
    vq_buf *t = &le->text;
    if (from >= to) return;
    if (keep) {
        vq_buf_reset(&le->killed);
        vq_buf_add(&le->killed, t->p + from, to - from);
    }
    memmove(t->p + from, t->p + to, t->n - to);
    t->n -= to - from;
    t->p[t->n] = 0;
    le->at = from;
}

static void replace(lineedit *le, const char *p, size_t n)
{
    vq_buf_reset(&le->text);
    vq_buf_add(&le->text, p, n);
    le->at = le->text.n;
}

static void history_move(lineedit *le, int step)
{
    const int to = le->shown + step;
    if (to < 0 || to > le->n_line) return;
    if (le->shown == le->n_line) {
        vq_buf_reset(&le->fresh);
        vq_buf_add(&le->fresh, le->text.p, le->text.n);
    }
    le->shown = to;
    if (to == le->n_line) replace(le, le->fresh.p ? le->fresh.p : "", le->fresh.n);
    else replace(le, le->line[to], strlen(le->line[to]));
}

/* Up and down move inside a text of several lines before they move in the history. */
static void vertical(lineedit *le, int step)
{
    const size_t start = row_start(le), end = row_end(le), col = le->at - start;
    if (step < 0 ? start == 0 : end == le->text.n) {
        history_move(le, step);
        return;
    }
    le->at = step < 0 ? start - 1 : end + 1;
    const size_t s = row_start(le), e = row_end(le);
    le->at = s;
    while (le->at < e && le->at - s < col) le->at = right_of(&le->text, le->at);
}

static void swap(lineedit *le) /* Ctrl-T: the two characters around the cursor */
{
    vq_buf *t = &le->text;
    if (le->at == t->n && le->at > 0) le->at = left_of(t, le->at);
    const size_t a = left_of(t, le->at), b = le->at, c = right_of(t, b);
    char tmp[64];
    if (a == b || c == b || c - b > sizeof tmp) return;
    memcpy(tmp, t->p + b, c - b);
    memmove(t->p + a + (c - b), t->p + a, b - a);
    memcpy(t->p + a, tmp, c - b);
    le->at = c;
}

/* ---- keys ---- */

static le_event control_key(lineedit *le, unsigned char c)
{
    vq_buf *t = &le->text;
    switch (c) {
    case 1: le->at = row_start(le); break;                              /* Ctrl-A */
    case 2: le->at = left_of(t, le->at); break;                         /* Ctrl-B */
    case 3: return LE_INTERRUPT;
    case 4:                                                             /* Ctrl-D */
        if (t->n == 0) return LE_EOF;
        erase(le, le->at, right_of(t, le->at), false);
        break;
    case 5: le->at = row_end(le); break;                                /* Ctrl-E */
    case 6: le->at = right_of(t, le->at); break;                        /* Ctrl-F */
    case 8: case 127: erase(le, left_of(t, le->at), le->at, false); break;
    case 10: case 13: return LE_LINE;
    case 11: erase(le, le->at, row_end(le), true); break;               /* Ctrl-K */
    case 12: le->wipe = true; break;                                    /* Ctrl-L */
    case 14: vertical(le, 1); break;                                    /* Ctrl-N */
    case 16: vertical(le, -1); break;                                   /* Ctrl-P */
    case 20: swap(le); break;
    case 21: erase(le, row_start(le), le->at, true); break;             /* Ctrl-U */
    case 23: erase(le, word_left(t, le->at), le->at, true); break;      /* Ctrl-W */
    case 25: insert(le, le->killed.p ? le->killed.p : "", le->killed.n); break; /* Ctrl-Y */
    case 26: return LE_SUSPEND;
    default: break;
    }
    return LE_MORE;
}

/* The sequence ESC [ seq c. */
static void csi_key(lineedit *le, unsigned char c)
{
    vq_buf *t = &le->text;
    const bool by_word = strchr(le->seq, ';') != NULL; /* with Ctrl, Alt or Shift */
    switch (c) {
    case 'A': vertical(le, -1); return;
    case 'B': vertical(le, 1); return;
    case 'C': le->at = by_word ? word_right(t, le->at) : right_of(t, le->at); return;
    case 'D': le->at = by_word ? word_left(t, le->at) : left_of(t, le->at); return;
    case 'H': le->at = row_start(le); return;
    case 'F': le->at = row_end(le); return;
    case '~': break;
    default: return;
    }
    if (!strcmp(le->seq, "1") || !strcmp(le->seq, "7")) le->at = row_start(le);
    if (!strcmp(le->seq, "4") || !strcmp(le->seq, "8")) le->at = row_end(le);
    if (!strcmp(le->seq, "3")) erase(le, le->at, right_of(t, le->at), false);
    if (!strcmp(le->seq, "200")) le->paste = true;
    if (!strcmp(le->seq, "201")) le->paste = false;
    le->was_cr = false;
}

static void escape_key(lineedit *le, unsigned char c)
{
    vq_buf *t = &le->text;
    if (le->state == ESC) {
        le->state = PLAIN;
        le->n_seq = 0;
        le->seq[0] = 0;
        switch (c) {
        case '[': le->state = CSI; break;
        case 'O': le->state = SS3; break;
        case 'b': le->at = word_left(t, le->at); break;
        case 'f': le->at = word_right(t, le->at); break;
        case 'd': erase(le, le->at, word_right(t, le->at), true); break;
        case 127: erase(le, word_left(t, le->at), le->at, true); break;
        case '\r': case '\n': insert(le, "\n", 1); break; /* Alt-Enter: a new line in the text */
        default: break;
        }
        return;
    }
    if (le->state == CSI && c >= 0x20 && c < 0x40) { /* a parameter; too many are an unknown key */
        if (le->n_seq < (int)sizeof le->seq - 1) {
            le->seq[le->n_seq++] = (char)c;
            le->seq[le->n_seq] = 0;
        }
        return;
    }
    le->state = PLAIN;
    csi_key(le, c);
}

/* A byte of text: inserted when its character is complete; what is no UTF-8 is dropped. */
static void text_byte(lineedit *le, unsigned char c)
{
    uint32_t cp;
    bool incomplete = false;
    if (c < 0x80) le->n_part = 0;
    le->part[le->n_part++] = (char)c;
    const int len = vq_utf8_get(le->part, (size_t)le->n_part, &cp);
    if (len == le->n_part) {
        /* C1 controls would act on the terminal when drawn. */
        if (cp < 0x80 || cp > 0x9f) insert(le, le->part, (size_t)len);
        le->n_part = 0;
        return;
    }
    vq_utf8_bad(le->part, (size_t)le->n_part, &incomplete);
    if (!incomplete || le->n_part == 4) le->n_part = 0;
}

static void pasted(lineedit *le, unsigned char c)
{
    const bool after_cr = le->was_cr;
    le->was_cr = c == '\r';
    if (c == '\r' || (c == '\n' && !after_cr)) insert(le, "\n", 1);
    else if (c == '\t') insert(le, "\t", 1);
    else if (c >= 32 && c != 127) text_byte(le, c);
}

le_event le_feed(lineedit *le, unsigned char c)
{
    if (le->state != PLAIN) escape_key(le, c);
    else if (c == 27) le->state = ESC;
    else if (le->paste) pasted(le, c);
    else if (c == '\t') insert(le, " ", 1);
    else if (c < 32 || c == 127) return control_key(le, c);
    else text_byte(le, c);
    return LE_MORE;
}

/* ---- drawing ---- */

typedef struct place { int row, col; } place;

/* Moves p over one character of w columns on a screen of `columns`, saying where a row ends. */
static bool advance(place *p, int w, int columns)
{
    bool wrapped = false;
    if (p->col + w > columns) {
        p->row++;
        p->col = 0;
        wrapped = true;
    }
    p->col += w;
    return wrapped;
}

void le_draw(lineedit *le, vq_buf *out)
{
    place p = { 0, 0 }, cursor;
    if (le->wipe) vq_buf_str(out, "\033[H\033[2J");
    else if (le->row > 0) vq_buf_printf(out, "\033[%dA", le->row);
    le->wipe = false;
    vq_buf_str(out, "\r\033[J");
    vq_buf_str(out, le->prompt);
    for (const char *s = le->prompt; *s; s++) {
        if (((unsigned char)*s & 0xc0) != 0x80) advance(&p, 1, le->columns);
    }
    cursor = p;
    for (size_t i = 0; i < le->text.n;) {
        int w;
        const size_t len = char_at(&le->text, i, &w);
        if (le->text.p[i] == '\n') {
            if (i == le->at) cursor = p;
            vq_buf_str(out, "\r\n");
            p.row++;
            p.col = 0;
        } else {
            const bool tab = le->text.p[i] == '\t'; /* one blank: stops would need the column */
            if (advance(&p, w, le->columns)) vq_buf_str(out, "\r\n");
            if (i == le->at) cursor = (place){ p.row, p.col - w };
            vq_buf_add(out, tab ? " " : le->text.p + i, len);
        }
        i += len;
    }
    if (le->at == le->text.n) {
        if (p.col == le->columns) { /* the cursor stands on the next row */
            vq_buf_str(out, "\r\n");
            p.row++;
            p.col = 0;
        }
        cursor = p;
    }
    if (p.row > cursor.row) vq_buf_printf(out, "\033[%dA", p.row - cursor.row);
    vq_buf_char(out, '\r');
    if (cursor.col > 0) vq_buf_printf(out, "\033[%dC", cursor.col);
    le->row = cursor.row;
}

void le_finish(lineedit *le, vq_buf *screen)
{
    le->at = le->text.n;
    le_draw(le, screen);
    vq_buf_str(screen, "\r\n");
}

void le_begin(lineedit *le, const char *prompt, int columns)
{
    vq_buf_reset(&le->text);
    le->at = 0;
    le->prompt = prompt;
    le_resize(le, columns);
    le->row = 0;
    le->state = PLAIN;
    le->paste = false;
    le->n_part = 0;
    le->shown = le->n_line;
}

/* ---- history ---- */

bool le_history_add(lineedit *le, const char *p, size_t n)
{
    if (n == 0 || memchr(p, 0, n)) return false;
    const char *last = le->n_line ? le->line[le->n_line - 1] : "";
    if (strlen(last) == n && !memcmp(last, p, n)) return false;
    char *s = vq_strndup(p, n);
    if (!s) return false;
    if (le->n_line == LE_HISTORY) {
        vq_free(le->line[0]);
        memmove(le->line, le->line + 1, (LE_HISTORY - 1) * sizeof *le->line);
        le->n_line--;
    }
    le->line[le->n_line++] = s;
    return true;
}

void le_history_escape(vq_buf *out, vq_str line)
{
    for (size_t i = 0; i < line.n; i++) {
        if (line.p[i] == '\n') vq_buf_str(out, "\\n");
        else if (line.p[i] == '\\') vq_buf_str(out, "\\\\");
        else vq_buf_char(out, line.p[i]);
    }
    vq_buf_char(out, '\n');
}

void le_history_load(lineedit *le, const char *p, size_t n)
{
    vq_buf line = { 0 };
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '\n') {
            le_history_add(le, line.p ? line.p : "", line.n);
            vq_buf_reset(&line);
        } else if (p[i] == '\\' && i + 1 < n) {
            i++;
            vq_buf_char(&line, p[i] == 'n' ? '\n' : p[i]);
        } else if ((unsigned char)p[i] >= 32 && p[i] != 127) {
            vq_buf_char(&line, p[i]); /* a file edited by others must not steer the terminal */
        }
    }
    vq_buf_clear(&line);
}
