/* t_lineedit.c - the line editor, typed at without a terminal.
 *
 * What is drawn is checked by a small terminal that understands just the sequences the editor uses;
 * its cursor must stand where the text says, and its screen must show the text. */
#include "core/app/lineedit.h"
#include "tests/test.h"

enum { ROWS = 12, COLS = 20 };

typedef struct screen {
    char cell[ROWS][COLS][8]; /* UTF-8 that starts there; "": blank or second half */
    int row, col;
    bool overflow; /* something was drawn behind the last column */
} screen;

static void erase_below(screen *s)
{
    for (int r = s->row; r < ROWS; r++) {
        for (int c = r == s->row ? s->col : 0; c < COLS; c++) s->cell[r][c][0] = 0;
    }
}

static void put(screen *s, const char *p, size_t n)
{
    for (size_t i = 0; i < n;) {
        if (p[i] == '\r') { s->col = 0; i++; continue; }
        if (p[i] == '\n') { s->row++; i++; continue; }
        if (p[i] == '\033') {
            int arg = 0;
            for (i += 2; i < n && p[i] >= '0' && p[i] <= '9'; i++) arg = arg * 10 + p[i] - '0';
            if (p[i] == 'A') s->row -= arg;
            if (p[i] == 'C') s->col += arg;
            if (p[i] == 'J' && arg == 0) erase_below(s);
            if (p[i] == 'J' && arg == 2) memset(s->cell, 0, sizeof s->cell);
            if (p[i] == 'H') s->row = s->col = 0;
            i++;
            continue;
        }
        uint32_t cp;
        const int len = vq_utf8_get(p + i, n - i, &cp), w = le_width(cp);
        if (s->row < 0 || s->row >= ROWS || s->col + w > COLS) {
            s->overflow = true;
            return;
        }
        char *cell = s->cell[s->row][w ? s->col : s->col - 1];
        if (w) cell[0] = 0;
        if (strlen(cell) + (size_t)len < 8) strncat(cell, p + i, (size_t)len);
        s->col += w;
        i += (size_t)len;
    }
}

static lineedit *le;
static screen scr;

static void draw(void)
{
    vq_buf b = { 0 };
    le_draw(le, &b);
    put(&scr, b.p, b.n);
    vq_buf_clear(&b);
}

static void begin(void)
{
    memset(&scr, 0, sizeof scr);
    le_begin(le, "> ", COLS);
    draw();
}

static le_event keys(const char *s)
{
    le_event ev = LE_MORE;
    for (; *s && ev == LE_MORE; s++) {
        ev = le_feed(le, (unsigned char)*s);
        if (!le_pending(le)) draw();
    }
    return ev;
}

static bool text_is(const char *want) { return vq_str_eq(le_text(le), want); }

#define LEFT "\033[D"
#define RIGHT "\033[C"
#define UP "\033[A"
#define DOWN "\033[B"
#define HOME "\033[H"

static void editing(void)
{
    static const struct {
        const char *keys, *text;
    } cases[] = {
        { "hello", "hello" },
        { "hllo" LEFT LEFT LEFT "e", "hello" },
        { "hello\177\177p", "help" },
        { "ab\001x", "xab" },
        { "ab\001x\005y", "xaby" },
        { "ab" HOME "x\033[Fy", "xaby" },
        { "ab\033[1~x\033[4~y\033OHz", "zxaby" },
        { "one two\027\027three", "three" },
        { "one two\025x", "x" },
        { "one two\001\013x", "x" },
        { "one two\027\001\031 ", "two one " },
        { "abc\001\033[3~", "bc" },
        { "abc\001\004", "bc" },
        { "abc" LEFT LEFT LEFT LEFT LEFT "x", "xabc" },
        { "abc" RIGHT "x", "abcx" },
        { "one two\033b\033bx", "xone two" },
        { "one two\033[1;5D\033[1;5Dx\033[1;5Cy", "xoney two" },
        { "one two\033\177", "one " },
        { "ab\024", "ba" },
        { "\xe4\xbd\xa0\xe5\xa5\xbd" LEFT "x", "\xe4\xbd\xa0x\xe5\xa5\xbd" },
        { "\xe4\xbd\xa0\xe5\xa5\xbd\177", "\xe4\xbd\xa0" },
        { "e\xcc\x81x" LEFT LEFT "y", "ye\xcc\x81x" }, /* an accent moves with its letter */
        { "ae\xcc\x81\177", "a" },
        { "\xf0\x9f\x98\x80z" LEFT "\177", "z" },
        { "a\xff\xc3x", "ax" },              /* what is no UTF-8 is dropped */
        { "a\xc2\x9bz", "az" },              /* so are C1 controls */
        { "a\tb", "a b" },
        { "a\033[200~b\tc\r\nd\001\033[201~e", "ab\tc\nde" },
        { "a\033\rb", "a\nb" },
        { "one\033\rtwo" UP "x", "onex\ntwo" },
        { "one\033\rtwo" UP DOWN "x", "one\ntwox" },
        { "a\033[99;99;99;99;99;99;99~b", "ab" }, /* an unknown key, however long */
        { "a\033[5~b", "ab" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        begin();
        T_OK(keys(cases[i].keys) == LE_MORE, "case %zu", i);
        T_OK(text_is(cases[i].text), "case %zu: '%.*s'", i, (int)le_text(le).n, le_text(le).p);
        T_OK(!scr.overflow, "case %zu: drawn outside", i);
    }
}

static void events(void)
{
    begin();
    T_OK(keys("\004") == LE_EOF, "Ctrl-D on an empty line");
    T_OK(keys("\003") == LE_INTERRUPT, "Ctrl-C");
    T_OK(keys("\032") == LE_SUSPEND, "Ctrl-Z");
    T_OK(keys("abc\r") == LE_LINE && text_is("abc"), "Enter");
    begin();
    T_OK(text_is(""), "the next line is empty");
    keys("x\033");
    T_OK(le_pending(le), "inside a sequence");
    le_pause(le);
    keys("b");
    T_OK(text_is("xb"), "a lone Escape is no prefix");
}

static void drawing(void)
{
    /* 2 columns of prompt; 18 fill the row, the 19th starts the next. */
    begin();
    keys("abcdefghijklmnopqr");
    T_OK(scr.row == 1 && scr.col == 0, "cursor behind a full row: %d, %d", scr.row, scr.col);
    keys("s");
    T_OK(scr.row == 1 && scr.col == 1 && !strcmp(scr.cell[1][0], "s"), "wrapped");
    keys(LEFT LEFT);
    T_OK(scr.row == 0 && scr.col == 19, "back over the edge: %d, %d", scr.row, scr.col);
    keys("\001");
    T_OK(scr.row == 0 && scr.col == 2, "home");
    keys("\013");
    T_OK(!scr.cell[1][0][0] && !scr.cell[0][2][0] && scr.cell[0][0][0] == '>', "erased");

    /* A wide character never straddles the edge. */
    begin();
    keys("abcdefghijklmnopq\xe4\xbd\xa0");
    T_OK(scr.row == 1 && scr.col == 2, "wide at the edge: %d, %d", scr.row, scr.col);
    T_OK(!strcmp(scr.cell[1][0], "\xe4\xbd\xa0"), "drawn in the next row");
    keys(LEFT);
    T_OK(scr.row == 1 && scr.col == 0, "cursor on it: %d, %d", scr.row, scr.col);
    T_OK(!scr.overflow, "inside the screen");

    begin();
    keys("e\xcc\x81" "b" LEFT LEFT);
    T_OK(scr.col == 2 && !strcmp(scr.cell[0][2], "e\xcc\x81"), "combining: column %d", scr.col);

    begin();
    keys("a\033\rbc" UP);
    T_OK(scr.row == 0 && scr.col == 3, "up in a text of two lines: %d, %d", scr.row, scr.col);
    keys("\014");
    T_OK(scr.row == 0 && !strcmp(scr.cell[1][1], "c"), "Ctrl-L draws it again");

    vq_buf b = { 0 };
    le_finish(le, &b);
    put(&scr, b.p, b.n);
    vq_buf_clear(&b);
    T_OK(scr.row == 2 && scr.col == 0, "finished below the text");
}

static void history(void)
{
    T_OK(le_history_add(le, "first", 5) && le_history_add(le, "sec\nond", 7), "added");
    T_OK(!le_history_add(le, "sec\nond", 7) && !le_history_add(le, "", 0), "repeats and blanks");
    begin();
    keys("new" UP);
    T_OK(text_is("sec\nond"), "the last");
    keys(UP);   /* inside the entry first */
    keys(UP);
    T_OK(text_is("first"), "the one before");
    keys(UP);
    T_OK(text_is("first"), "no further");
    keys(DOWN DOWN DOWN DOWN);
    T_OK(text_is("new"), "back at what was typed");

    vq_buf file = { 0 };
    le_history_escape(&file, vq_str_c("a\\n\nb"));
    T_OK(!strcmp(file.p, "a\\\\n\\nb\n"), "%s", file.p);
    vq_buf_str(&file, "evil\033[2J\nlast");
    lineedit *other = le_new(), *keep = le;
    le_history_load(other, file.p, file.n);
    le = other;
    begin();
    keys(UP);
    T_OK(text_is("evil[2J"), "no control characters from a file");
    keys(UP);
    T_OK(text_is("a\\n\nb"), "the escaped one");
    le = keep;
    le_free(other);
    vq_buf_clear(&file);

    for (int i = 0; i < LE_HISTORY + 10; i++) {
        char s[16];
        le_history_add(le, s, (size_t)snprintf(s, sizeof s, "n%d", i));
    }
    begin();
    for (int i = 0; i < LE_HISTORY + 20; i++) keys(UP);
    T_OK(text_is("n10"), "the oldest fall out: %.*s", (int)le_text(le).n, le_text(le).p);
}

int main(void)
{
    le = le_new();
    if (!le) return 1;
    editing();
    events();
    drawing();
    history();
    T_OK(le_width('a') == 1 && le_width(0x4f60) == 2 && le_width(0x301) == 0, "widths");
    le_free(le);
    return t_done("t_lineedit");
}
