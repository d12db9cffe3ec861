/* args.c - the option parser of args.h.
 *
 * It owns the wording of every usage error, so all verbs refuse bad input alike.  Invariant: on
 * VQ_OK every field named by a table holds its default or a value inside the row's limits. */
#include "core/app/args.h"

#include <stdio.h>
#include <string.h>

int args_choice(const char *choices, const char *word)
{
    const size_t n = strlen(word);
    int i = 0;
    for (const char *p = choices; *p; i++) {
        const size_t len = strcspn(p, "|");
        if (len == n && !memcmp(p, word, n)) return i;
        p += len;
        if (*p == '|') p++;
    }
    return -1;
}

/* Edits (insert, delete, replace, swap of neighbours) that make a into b, for short words; words
 * too long to be a slip of the finger are as far as can be. */
static int distance(const char *a, const char *b)
{
    enum { MAX = 32 };
    const size_t n = strlen(a), m = strlen(b);
    if (n > MAX || m > MAX) return MAX;
    int d[MAX + 1][MAX + 1];
    for (size_t i = 0; i <= n; i++) d[i][0] = (int)i;
    for (size_t j = 0; j <= m; j++) d[0][j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        for (size_t j = 1; j <= m; j++) {
            int best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            if (d[i - 1][j] + 1 < best) best = d[i - 1][j] + 1;
            if (d[i][j - 1] + 1 < best) best = d[i][j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                d[i - 2][j - 2] + 1 < best) {
                best = d[i - 2][j - 2] + 1;
            }
            d[i][j] = best;
        }
    }
    return d[n][m];
}

/* Near: a third of the letters may be wrong, or the word is the beginning of the known one. */
static bool near(const char *word, const char *known, int *dist)
{
    const char *w = word + strspn(word, "-"), *k = known + strspn(known, "-");
    const size_t len = strlen(w);
    *dist = distance(w, k);
    if (len >= 3 && !strncmp(w, k, len)) return true;
    return *dist <= (int)(strlen(k) + 1) / 3 && *dist < (int)len;
}

const char *args_nearest(const char *word, const char *const *words)
{
    const char *best = NULL;
    int at = 0;
    for (; *words; words++) {
        int d;
        if (near(word, *words, &d) && (!best || d < at)) {
            best = *words;
            at = d;
        }
    }
    return best;
}

/* The row called `name` (its first n bytes), in the verb's table or the common one. */
static const args_opt *find(const args_spec *s, const char *name, size_t n, void **to)
{
    for (int t = 0; t < 2; t++) {
        const args_opt *o = t ? s->common : s->opt;
        *to = t ? s->common_to : s->to;
        for (; o && o->kind != ARGS_END; o++) {
            if (strlen(o->name) == n && !memcmp(o->name, name, n)) return o;
        }
    }
    return NULL;
}

static vq_status unknown(const args_spec *s, const char *name, vq_err *e)
{
    const char *words[64];
    int n = 0;
    for (int t = 0; t < 2; t++) {
        for (const args_opt *o = t ? s->common : s->opt; o && o->kind != ARGS_END && n < 63; o++) {
            words[n++] = o->name;
        }
    }
    words[n] = NULL;
    const char *like = args_nearest(name, words);
    return vq_fail(e, VQ_EUSAGE, "unknown option '%s'%s%s%s", name, like ? "; did you mean '" : "",
                   like ? like : "", like ? "'?" : "");
}

static vq_status bad_number(const args_opt *o, const char *v, vq_err *e)
{
    if (o->max >= 9e15) {
        return vq_fail(e, VQ_EUSAGE, "%s takes a number from %.15g up, not '%s'", o->name, o->min,
                       v);
    }
    return vq_fail(e, VQ_EUSAGE, "%s takes a number from %.15g to %.15g, not '%s'", o->name, o->min,
                   o->max, v);
}

static vq_status set(const args_opt *o, void *to, const char *v, vq_err *e)
{
    void *field = (char *)to + o->at;
    switch (o->kind) {
    case ARGS_FLAG:
        *(bool *)field = true;
        return VQ_OK;
    case ARGS_TEXT:
        *(const char **)field = v;
        return VQ_OK;
    case ARGS_INT: {
        int64_t n;
        if (!vq_parse_i64(v, &n) || (double)n < o->min || (double)n > o->max) {
            return bad_number(o, v, e);
        }
        *(int64_t *)field = n;
        return VQ_OK;
    }
    case ARGS_U64: {
        uint64_t n;
        if (!vq_parse_u64(v, &n)) {
            return vq_fail(e, VQ_EUSAGE,
                           "%s takes a whole number from 0 to 18446744073709551615, not '%s'",
                           o->name, v);
        }
        *(args_u64 *)field = (args_u64){ n, true };
        return VQ_OK;
    }
    case ARGS_REAL: {
        double x;
        if (!vq_parse_f64(v, &x) || !(x >= o->min && x <= o->max)) return bad_number(o, v, e);
        *(double *)field = x;
        return VQ_OK;
    }
    case ARGS_SIZE: {
        uint64_t n;
        if (!vq_parse_size(v, &n) || (double)n < o->min || (double)n > o->max) {
            return vq_fail(e, VQ_EUSAGE,
                           "%s takes a number from %.0f to %.0f, or one with K, M or G, not '%s'",
                           o->name, o->min, o->max, v);
        }
        *(uint64_t *)field = n;
        return VQ_OK;
    }
    case ARGS_CHOICE: {
        const int i = args_choice(o->choices, v);
        if (i < 0) {
            return vq_fail(e, VQ_EUSAGE, "%s is one of %s, not '%s'", o->name, o->choices, v);
        }
        *(int *)field = i;
        return VQ_OK;
    }
    case ARGS_END: break;
    }
    return vq_fail(e, VQ_EFAIL, "%s: option of no kind", o->name);
}

vq_status args_parse(const args_spec *s, int argc, char **argv, int *n_left, vq_err *e)
{
    int left = 0;
    bool open = true; /* options are still looked for: no "--" yet */
    for (int i = 0; i < argc; i++) {
        char *a = argv[i];
        if (!open || a[0] != '-' || !a[1]) { /* "-" alone is stdin or stdout */
            argv[left++] = a;
            continue;
        }
        if (!strcmp(a, "--")) {
            open = false;
            continue;
        }
        /* Only long options take "=value": "-n=5" would read as if the value were "=5". */
        const char *eq = a[1] == '-' ? strchr(a, '=') : NULL;
        const size_t len = eq ? (size_t)(eq - a) : strlen(a);
        void *to;
        const args_opt *o = !strcmp(a, "-h") ? find(s, "--help", 6, &to) : find(s, a, len, &to);
        if (!o) return unknown(s, a, e);
        const char *v = NULL;
        if (o->kind == ARGS_FLAG) {
            if (eq) return vq_fail(e, VQ_EUSAGE, "%s takes no value", o->name);
        } else if (eq) {
            v = eq + 1;
        } else {
            if (i + 1 >= argc)
                return vq_fail(e, VQ_EUSAGE, "%s needs a value: %s", o->name, o->value);
            v = argv[++i];
        }
        const vq_status st = set(o, to, v, e);
        if (st) return st;
    }
    *n_left = left;
    return VQ_OK;
}

void args_help(vq_buf *out, const args_opt *opt)
{
    for (const args_opt *o = opt; o && o->kind != ARGS_END; o++) {
        char left[40];
        snprintf(left, sizeof left, "%s%s%s", o->name, o->value ? " " : "",
                 o->value ? o->value : "");
        vq_buf_printf(out, "  %-19s %s\n", left, o->what);
    }
}
