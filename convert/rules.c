/* rules.c - reads and writes recipes.
 *
 *   rule = what [layers] type        what   = * | role,role,... | pattern.of.a.name
 *                                    layers = 0-3,7
 *
 * The last rule that means a matrix decides, so a recipe reads from the general to the special.
 * Vectors and the router are F32 whatever a recipe says: no rule means them. */
#include "convert/rules.h"

#include "core/base/mem.h"
#include "core/file/check.h"
#include "core/file/file.h"
#include "quant/quant.h"

#include <assert.h>
#include <string.h>

/* Bit i of a rule's roles is row i. */
static const struct { uint16_t role; const char *name; } roles[] = {
    { VAQ_EMBED, "embed" }, { VAQ_HEAD, "head" },
    { VAQ_Q, "q" }, { VAQ_K, "k" }, { VAQ_V, "v" }, { VAQ_O, "o" },
    { VAQ_GATE_UP, "gate_up" }, { VAQ_DOWN, "down" },
    { VAQ_Q_A, "q_a" }, { VAQ_Q_B, "q_b" }, { VAQ_KV_A, "kv_a" },
    { VAQ_K_UP, "k_up" }, { VAQ_V_UP, "v_up" },
    { VAQ_SHARED_GATE_UP, "shared_gate_up" }, { VAQ_SHARED_DOWN, "shared_down" },
    { VAQ_EXPERT_GATE_UP, "expert_gate_up" }, { VAQ_EXPERT_DOWN, "expert_down" },
    { VAQ_MTP_EMBED, "mtp_embed" }, { VAQ_MTP_HEAD, "mtp_head" }, { VAQ_MTP_EH, "mtp_eh" },
};
enum { N_ROLES = sizeof roles / sizeof roles[0], WORDS = VAQ_MAX_LAYERS / 32, MAX_NAME = 95,
       MAX_TEXT = 1000000 };

typedef struct layers { uint32_t bit[WORDS]; } layers;

typedef struct rule {
    int line;
    int type;               /* q_type; -1: auto */
    uint32_t roles;         /* 0: by name */
    char name[MAX_NAME + 1];
    bool some_layers;       /* only those of `at` */
    layers at;
    bool used;
} rule;

struct cv_rules {
    rule *rule;             /* (n) in the order of the file */
    size_t n;
};

static bool has_layer(const layers *l, uint32_t i)
{
    return i < VAQ_MAX_LAYERS && (l->bit[i / 32] >> i % 32 & 1);
}

static void add_layer(layers *l, uint32_t i) { l->bit[i / 32] |= 1u << i % 32; }

static int role_index(uint32_t role)
{
    for (int i = 0; i < N_ROLES; i++) {
        if (roles[i].role == role) return i;
    }
    return -1;
}

/* ---- reading ---- */

typedef struct reader {
    const char *name;
    int line;
    vq_err *e;
} reader;

/* The next word of a line; absent at its end. */
static vq_str next_word(vq_str *line)
{
    static const char blanks[] = " \t\r";
    while (line->n && strchr(blanks, line->p[0])) line->p++, line->n--;
    vq_str w = { line->n ? line->p : NULL, 0 };
    while (w.n < line->n && !strchr(blanks, line->p[w.n])) w.n++;
    line->p += w.n;
    line->n -= w.n;
    return w;
}

static vq_status wrong(const reader *r, vq_str word, const char *what)
{
    return vq_fail(r->e, VQ_EUSAGE, "%s:%d: '%.*s' %s", r->name, r->line,
                   word.n > 60 ? 60 : (int)word.n, word.p ? word.p : "", what);
}

/* The part before the comma; moves *s behind it. */
static vq_str next_item(vq_str *s)
{
    const char *comma = memchr(s->p, ',', s->n);
    const vq_str item = { s->p, comma ? (size_t)(comma - s->p) : s->n };
    const size_t step = item.n + (comma ? 1 : 0);
    s->p += step;
    s->n -= step;
    return item;
}

static vq_status no_role(const reader *r, vq_str word)
{
    char text[300] = "is no kind of matrix; there are *, a name with a dot, and";
    for (int i = 0; i < N_ROLES; i++) strcat(strcat(text, " "), roles[i].name);
    return wrong(r, word, text);
}

static vq_status read_what(const reader *r, rule *to, vq_str w)
{
    if (vq_str_eq(w, "*")) {
        to->roles = (1u << N_ROLES) - 1;
        return VQ_OK;
    }
    if (memchr(w.p, '.', w.n) || memchr(w.p, '*', w.n)) {
        if (w.n > MAX_NAME) return wrong(r, w, "is longer than any tensor's name");
        memcpy(to->name, w.p, w.n);
        return VQ_OK;
    }
    for (vq_str rest = w; rest.n || !to->roles;) {
        const vq_str item = next_item(&rest);
        int i = 0;
        while (i < N_ROLES && !vq_str_eq(item, roles[i].name)) i++;
        if (i == N_ROLES) return no_role(r, item);
        to->roles |= 1u << i;
    }
    return VQ_OK;
}

/* Digits of a layer's number off *s. */
static bool read_number(vq_str *s, uint32_t *out)
{
    const size_t before = s->n;
    *out = 0;
    while (s->n && s->p[0] >= '0' && s->p[0] <= '9' && *out < VAQ_MAX_LAYERS) {
        *out = 10 * *out + (uint32_t)(s->p[0] - '0');
        s->p++;
        s->n--;
    }
    return s->n < before && *out < VAQ_MAX_LAYERS;
}

static vq_status read_layers(const reader *r, rule *to, vq_str w)
{
    to->some_layers = true;
    for (vq_str rest = w;;) {
        vq_str item = next_item(&rest);
        uint32_t first, last;
        bool ok = read_number(&item, &first);
        last = first;
        if (ok && item.n && item.p[0] == '-') {
            item.p++;
            item.n--;
            ok = read_number(&item, &last) && last >= first;
        }
        if (!ok || item.n) {
            return wrong(r, w, "are no layers: write them like 0-3,7, counting from 0");
        }
        for (uint32_t i = first; i <= last; i++) add_layer(&to->at, i);
        if (!rest.n) return VQ_OK;
    }
}

static vq_status read_type(const reader *r, rule *to, vq_str w)
{
    char name[8] = "";
    to->type = -1;
    if (w.n < sizeof name) memcpy(name, w.p, w.n);
    const q_typeinfo *t = q_type_by_name(name);
    if (t && t->known) to->type = t->id;
    else if (strcmp(name, "auto") != 0) return wrong(r, w, "is no type; see --type");
    return VQ_OK;
}

static vq_status read_rule(const reader *r, rule *to, vq_str line)
{
    vq_str w[4];
    int n = 0;
    while (n < 4 && (w[n] = next_word(&line)).p) n++;
    if (n < 2) return wrong(r, w[0], "stands alone; a rule is: what [layers] type");
    if (n > 3) return wrong(r, w[3], "is a word too many; a rule is: what [layers] type");
    *to = (rule){ .line = r->line };
    vq_status st = read_what(r, to, w[0]);
    if (!st && n == 3) st = read_layers(r, to, w[1]);
    return st ? st : read_type(r, to, w[n - 1]);
}

/* It becomes metadata as it is. */
static bool is_text(const char *p, size_t n)
{
    uint32_t cp;
    int len = 1;
    for (size_t i = 0; i < n && len; i += (size_t)len) {
        len = p[i] ? vq_utf8_get(p + i, n - i, &cp) : 0;
    }
    return len;
}

vq_status cv_rules_read(cv_rules **out, const char *text, size_t n, const char *name, vq_err *e)
{
    reader r = { .name = name, .e = e };
    vq_str left = { text, n };
    size_t cap = 0;
    vq_status st = VQ_OK;
    *out = NULL;
    if (n > MAX_TEXT || !is_text(text, n)) {
        return vq_fail(e, VQ_EUSAGE, "%s: is not a text of less than 1 MB in UTF-8", name);
    }
    cv_rules *rules = vq_calloc(1, sizeof *rules);
    if (!rules) return vq_fail(e, VQ_ENOMEM, "%s: out of memory", name);
    while (left.n && !st) {
        const char *end = memchr(left.p, '\n', left.n);
        vq_str line = { left.p, end ? (size_t)(end - left.p) : left.n };
        left.p += line.n + (end ? 1 : 0);
        left.n -= line.n + (end ? 1 : 0);
        r.line++;
        const char *comment = memchr(line.p, '#', line.n);
        if (comment) line.n = (size_t)(comment - line.p);
        vq_str look = line;
        if (!next_word(&look).p) continue;
        if (vq_grow(&rules->rule, &cap, rules->n + 1, sizeof *rules->rule)) {
            st = vq_fail(e, VQ_ENOMEM, "%s: out of memory", name);
        } else {
            st = read_rule(&r, &rules->rule[rules->n++], line);
        }
    }
    if (st) cv_rules_free(rules);
    else *out = rules;
    return st;
}

void cv_rules_free(cv_rules *r)
{
    if (r) vq_free(r->rule);
    vq_free(r);
}

/* ---- meaning ---- */

/* * is any run of characters. */
static bool matches(const char *pattern, const char *s)
{
    const char *star = NULL, *retry = s;
    while (*s) {
        if (*pattern == '*') {
            star = pattern++;
            retry = s;
        } else if (*pattern == *s) {
            pattern++;
            s++;
        } else if (star) {
            pattern = star + 1;
            s = ++retry;
        } else {
            return false;
        }
    }
    while (*pattern == '*') pattern++;
    return !*pattern;
}

int cv_rules_type(cv_rules *r, const vaq_tensor *t, int other)
{
    const int role = role_index(t->role);
    char name[96];
    vq_tensor_name(name, t);
    for (size_t i = r->n; i-- && role >= 0;) {
        rule *k = &r->rule[i];
        if (k->roles ? !(k->roles >> role & 1) : !matches(k->name, name)) continue;
        if (k->some_layers && !has_layer(&k->at, t->layer)) continue;
        k->used = true;
        return k->type < 0 ? other : k->type;
    }
    return other;
}

bool cv_rules_idle(const cv_rules *r, int *line)
{
    for (size_t i = 0; i < r->n; i++) {
        if (r->rule[i].used || r->rule[i].line < *line) continue;
        *line = r->rule[i].line;
        return true;
    }
    return false;
}

/* ---- writing ---- */

enum { N_TYPES = 16 };

typedef struct line {       /* roles that are alike: in these layers (none: in all) this type */
    uint32_t roles;
    layers at;
    int type;
} line;

static void put_layers(vq_buf *out, const layers *l)
{
    const char *comma = "";
    for (uint32_t i = 0; i < VAQ_MAX_LAYERS; i++) {
        if (!has_layer(l, i)) continue;
        const uint32_t first = i;
        while (has_layer(l, i + 1)) i++;
        vq_buf_printf(out, i > first ? "%s%u-%u" : "%s%u", comma, first, i);
        comma = ",";
    }
}

/* One at least. */
static void blanks_to(vq_buf *out, size_t n)
{
    do {
        vq_buf_char(out, ' ');
    } while (out->n < n && !out->oom);
}

static void put_line(vq_buf *out, const line *k)
{
    const char *comma = "";
    const size_t start = out->n;
    const bool all = k->roles == (1u << N_ROLES) - 1;
    if (all) vq_buf_char(out, '*');
    for (int i = 0; i < N_ROLES && !all; i++) {
        if (!(k->roles >> i & 1)) continue;
        vq_buf_printf(out, "%s%s", comma, roles[i].name);
        comma = ",";
    }
    blanks_to(out, start + 16);
    put_layers(out, &k->at);
    blanks_to(out, start + 32);
    vq_buf_printf(out, "%s\n", q_type_info(k->type)->name);
}

/* Notes that a role has this type in these layers: with others, if some have the same. */
static void note(line *list, int *n, int role, const layers *at, int type)
{
    int i = 0;
    while (i < *n && (list[i].type != type || memcmp(&list[i].at, at, sizeof *at) != 0)) i++;
    if (i == *n) list[(*n)++] = (line){ .at = *at, .type = type };
    list[i].roles |= 1u << role;
}

static int most(const uint64_t count[N_TYPES])
{
    int best = 0;
    for (int i = 1; i < N_TYPES; i++) {
        if (count[i] > count[best]) best = i;
    }
    return best;
}

/* Experts of one layer may differ: the first stands for the layer, others are named one by one. */
static void write_role(vq_buf *odd, line *list, int *n_list, const vaq_tensor *t, size_t n,
                       int role, int base)
{
    static const layers all;
    layers at[N_TYPES] = { 0 };
    uint64_t count[N_TYPES] = { 0 };
    uint8_t first[VAQ_MAX_LAYERS];
    bool once = false;
    memset(first, N_TYPES, sizeof first);
    for (size_t i = 0; i < n; i++) {
        if (t[i].role != roles[role].role) continue;
        once = t[i].layer == VAQ_NO_LAYER;
        assert(t[i].type < N_TYPES);
        int type = t[i].type;
        if (!once) {
            uint8_t *of_layer = &first[t[i].layer];
            if (*of_layer == N_TYPES) *of_layer = (uint8_t)type;
            type = *of_layer;
            add_layer(&at[type], t[i].layer);
        }
        count[type]++;
        if (type == t[i].type) continue;
        char name[96];
        vq_tensor_name(name, &t[i]);
        vq_buf_printf(odd, "%s %s\n", name, q_type_info(t[i].type)->name);
    }
    const int own = most(count);
    if (!count[own]) return;
    if (own != base) note(list, n_list, role, &all, own);
    for (int k = 0; k < N_TYPES && !once; k++) {
        if (k != own && count[k]) note(list, n_list, role, &at[k], k);
    }
}

void cv_rules_write(vq_buf *out, const vaq_tensor *t, size_t n)
{
    static const layers all;
    uint64_t weights[N_TYPES] = { 0 };
    line list[N_ROLES * N_TYPES];
    vq_buf odd = { 0 };
    int n_list = 0;
    for (size_t i = 0; i < n; i++) {
        if (role_index(t[i].role) >= 0) weights[t[i].type] += t[i].params;
    }
    const line base = { (1u << N_ROLES) - 1, all, most(weights) };
    put_line(out, &base);
    for (int r = 0; r < N_ROLES; r++) write_role(&odd, list, &n_list, t, n, r, base.type);
    for (int some = 0; some < 2; some++) {
        for (int i = 0; i < n_list; i++) {
            if (!some == !memcmp(&list[i].at, &all, sizeof all)) put_line(out, &list[i]);
        }
    }
    if (odd.n) vq_buf_add(out, odd.p, odd.n);
    out->oom |= odd.oom;
    vq_buf_clear(&odd);
}
