/* split.c - the splitting regular expressions of the tokenizers we know, as hand-written matchers.
 *
 *   A1  \p{N}{1,3}
 *   A2  [U+4E00-U+9FA5 U+3040-U+309F U+30A0-U+30FF]+
 *   A3  [!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|
 *        ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
 *   Q   (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|
 *       \s*[\r\n]+|\s+(?!\S)|\s+
 *   L   as Q with \p{N}{1,3} for \p{N}
 *   G   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 *
 * DeepSeek applies A1, then A2 to what A1 left, then A3 to what A2 left; Qwen Q; Llama 3 L; SmolLM
 * takes every number code point out first, then applies G.  An expression sees only its stretch:
 * (?!\S) holds at the end of one.  Text that no alternative matches stays together as a piece.
 *
 * The first alternative that matches wins, not the longest, and repetition is greedy but gives back
 * what the rest needs.  Here only \s* and \s+ ever give back, so a function per alternative that
 * returns the end of its match, or NULL, has the exact meaning.  All of them together look at every
 * byte a bounded number of times: a failed alternative has seen at most the blanks that the next
 * one takes. */
#include "core/text/split.h"

#include "core/text/unicode.h"

/* The code point at p and its class; returns the place behind it, NULL (and nothing) at the end. */
static inline const char *get(const char *p, const char *end, uint32_t *cp, vq_uclass *c)
{
    if (p == end) {
        *cp = 0;
        *c = VQ_U_OTHER;
        return NULL;
    }
    p += vq_u_get(p, cp);
    *c = vq_u_class(*cp);
    return p;
}

static bool is_newline(uint32_t cp) { return cp == '\r' || cp == '\n'; }

static const char *skip_newlines(const char *p, const char *end)
{
    while (p < end && is_newline((unsigned char)*p)) p++;
    return p;
}

/* X+ for a set of classes given as bits. */
static const char *skip_classes(const char *p, const char *end, unsigned set)
{
    uint32_t cp;
    vq_uclass c;
    for (const char *q; (q = get(p, end, &cp, &c)) != NULL && set >> c & 1; p = q) {}
    return p;
}

enum {
    LETTERS = 1 << VQ_U_L,
    LETTERS_MARKS = 1 << VQ_U_L | 1 << VQ_U_M,
    NUMBERS = 1 << VQ_U_N,
    SIGNS = 1 << VQ_U_P | 1 << VQ_U_S,
    NEITHER = 1 << VQ_U_OTHER | 1 << VQ_U_M | 1 << VQ_U_P | 1 << VQ_U_S /* [^\s\p{L}\p{N}] */
};

/* 's|'t|'re|'ve|'m|'ll|'d.  Without case, U+017F (long s) folds to s: two bytes. */
static const char *contraction(const char *p, const char *end, bool any_case)
{
    if (end - p < 2 || *p != '\'') return NULL;
    char fold = any_case ? 0x20 : 0;
    char a = (char)(p[1] | fold);
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return p + 2;
    if (end - p < 3) return NULL;
    if (any_case && (unsigned char)p[1] == 0xc5 && (unsigned char)p[2] == 0xbf) return p + 3;
    char b = (char)(p[2] | fold);
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return p + 3;
    return NULL;
}

/* \p{N}{1,max} */
static const char *numbers(const char *p, const char *end, int max)
{
    uint32_t cp;
    vq_uclass c;
    const char *q = p;
    for (const char *r; max > 0 && (r = get(q, end, &cp, &c)) != NULL && c == VQ_U_N; max--) q = r;
    return q > p ? q : NULL;
}

/* \s*[\r\n]+|\s+(?!\S)|\s+ : with a newline among the blanks, up to the last of those; else all
 * blanks at the end of a stretch, all but the last before something else, a lone one anyway. */
static const char *blanks(const char *p, const char *end, bool newlines)
{
    uint32_t cp;
    vq_uclass c;
    const char *q = p, *last = p, *newline = NULL;
    for (const char *r; (r = get(q, end, &cp, &c)) != NULL && c == VQ_U_SPACE; q = r) {
        last = q;
        if (is_newline(cp)) newline = r;
    }
    if (q == p) return NULL;
    if (newlines && newline) return newline;
    return q == end || last == p ? q : last;
}

/* One match of Q (digits = 1) or L (3).  Some alternative takes any code point: never NULL. */
static const char *match_qwen(const char *p, const char *end, int digits)
{
    const char *m = contraction(p, end, true);
    if (m) return m;

    uint32_t cp;
    vq_uclass c, c2;
    const char *q = get(p, end, &cp, &c);
    if (c == VQ_U_L) return skip_classes(q, end, LETTERS);
    if (c == VQ_U_N) return numbers(p, end, digits);

    uint32_t cp2;
    const char *r = get(q, end, &cp2, &c2);
    if (!is_newline(cp) && r && c2 == VQ_U_L) return skip_classes(r, end, LETTERS);

    const char *signs = cp == ' ' ? q : p;
    m = skip_classes(signs, end, NEITHER);
    if (m > signs) return skip_newlines(m, end);
    return blanks(p, end, true);
}

static const char *match_gpt2(const char *p, const char *end)
{
    const char *m = contraction(p, end, false);
    if (m) return m;

    static const unsigned sets[] = { LETTERS, NUMBERS, NEITHER };
    const char *body = *p == ' ' ? p + 1 : p;
    for (int i = 0; i < 3; i++) {
        m = skip_classes(body, end, sets[i]);
        if (m > body) return m;
    }
    return blanks(p, end, false);
}

static bool is_ascii_letter(char c) { return (c | 0x20) >= 'a' && (c | 0x20) <= 'z'; }
static bool is_ascii_sign(char c) /* the 32 of A3: all of ASCII's punctuation and symbols */
{
    return c > ' ' && c < 0x7f && !is_ascii_letter(c) && !(c >= '0' && c <= '9');
}

/* One match of A3, NULL when no alternative matches at p (a lone control character, say). */
static const char *match_a3(const char *p, const char *end)
{
    if (end - p >= 2 && is_ascii_sign(*p) && is_ascii_letter(p[1])) {
        for (p += 2; p < end && is_ascii_letter(*p); p++) {}
        return p;
    }
    uint32_t cp, cp2;
    vq_uclass c, c2;
    const char *q = get(p, end, &cp, &c);
    if (LETTERS_MARKS >> c & 1) return skip_classes(q, end, LETTERS_MARKS);
    if (!is_newline(cp) && !(SIGNS >> c & 1)) {
        const char *r = get(q, end, &cp2, &c2);
        if (r && LETTERS_MARKS >> c2 & 1) return skip_classes(r, end, LETTERS_MARKS);
    }
    const char *signs = cp == ' ' ? q : p;
    const char *m = skip_classes(signs, end, SIGNS);
    if (m > signs) return skip_newlines(m, end);
    return blanks(p, end, true);
}

static bool in_a2(uint32_t cp)
{
    return (cp >= 0x4e00 && cp <= 0x9fa5) || (cp >= 0x3040 && cp <= 0x30ff);
}

static bool next_deepseek(vq_split *w, vq_str *piece)
{
    const char *p = w->p;
    uint32_t cp;
    vq_uclass c;
    if (p == w->cut) { /* a new stretch: a match of A1 or A2, or what lies before the next one */
        const char *q = get(p, w->end, &cp, &c);
        const char *m = NULL;
        if (c == VQ_U_N) {
            m = numbers(p, w->end, 3);
        } else if (in_a2(cp)) {
            for (m = q; (q = get(m, w->end, &cp, &c)) != NULL && in_a2(cp); m = q) {}
        }
        if (m) {
            *piece = (vq_str){ p, (size_t)(m - p) };
            w->p = w->cut = m;
            return true;
        }
        do {
            w->cut = q;
            q = get(w->cut, w->end, &cp, &c);
        } while (q && c != VQ_U_N && !in_a2(cp));
    }
    const char *m = w->held;
    w->held = NULL;
    if (!m) {
        const char *q = p; /* text before the next match is a piece too */
        while (q < w->cut && (m = match_a3(q, w->cut)) == NULL) q += vq_u_get(q, &cp);
        if (q > p) {
            w->held = m;
            m = q;
        }
    }
    *piece = (vq_str){ p, (size_t)(m - p) };
    w->p = m;
    return true;
}

void vq_split_init(vq_split *w, vaq_splitter kind, const char *s, size_t n)
{
    *w = (vq_split){ .kind = kind, .p = s, .end = s + n, .cut = s };
}

bool vq_split_next(vq_split *w, vq_str *piece)
{
    if (w->p == w->end) return false;
    const char *m = NULL;
    switch (w->kind) {
    case VAQ_SPLIT_DEEPSEEK: return next_deepseek(w, piece);
    case VAQ_SPLIT_QWEN: m = match_qwen(w->p, w->end, 1); break;
    case VAQ_SPLIT_LLAMA3: m = match_qwen(w->p, w->end, 3); break;
    case VAQ_SPLIT_SMOLLM:
        if (w->p == w->cut) { /* a number, or all that lies before the next one */
            uint32_t cp;
            vq_uclass c;
            const char *q = get(w->p, w->end, &cp, &c);
            w->cut = q;
            if (c == VQ_U_N) {
                m = q;
                break;
            }
            w->cut = skip_classes(q, w->end, ~(unsigned)NUMBERS);
        }
        m = match_gpt2(w->p, w->cut);
        break;
    }
    *piece = (vq_str){ w->p, (size_t)(m - w->p) };
    w->p = m;
    return true;
}
