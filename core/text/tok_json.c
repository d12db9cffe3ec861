/* tok_json.c - reads tokenizer.json into the words and merges that tok_build.c compiles. */
#include "core/text/tok_build.h"

#include "core/base/mem.h"
#include "core/text/tok_recognise.h"

#include <string.h>

typedef struct reader {
    const vq_json *j;
    const char *name;
    vq_err *e;
    vq_tok_source src;
} reader;

static vq_status no_memory(const reader *r)
{
    return vq_fail(r->e, VQ_ENOMEM, "%s: out of memory", r->name);
}

static int shown(vq_str s) { return s.n > 60 ? 60 : (int)s.n; }

static vq_status bad(const reader *r, const char *what, vq_str s)
{
    return vq_fail(
        r->e, VQ_EFORMAT,
        "%s: the tokenizer is damaged: %s: \"%.*s\" (--no-tokenizer converts for ids only)",
        r->name, what, shown(s), s.p ? s.p : "");
}

/* -1 for what cannot be an id; the compiler refuses it. */
static int32_t id_of(const vq_json *j, uint32_t v)
{
    int64_t x;
    return vq_json_i64(j, v, &x) && x >= 0 && x < VAQ_TOK_MAX_IDS ? (int32_t)x : -1;
}

static void read_vocab(reader *r, uint32_t vocab)
{
    const vq_json *j = r->j;
    for (uint32_t k = vq_json_first(j, vocab), v; k; k = vq_json_next(j, vocab, v)) {
        v = vq_json_next(j, vocab, k);
        r->src.word[r->src.n_word++] =
            (vq_tok_word){ vq_json_str(j, k), id_of(j, v), VAQ_TOK_PLAIN };
    }
}

static vq_status read_added(reader *r, uint32_t list)
{
    static const char *const unknown[] = { "lstrip", "rstrip", "single_word" };
    const vq_json *j = r->j;
    for (uint32_t k = list ? vq_json_first(j, list) : 0; k; k = vq_json_next(j, list, k)) {
        const vq_str s = vq_json_str(j, vq_json_get(j, k, "content"));
        if (!s.p) return bad(r, "an added token without content", s);
        for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
            bool set;
            if (vq_json_bool(j, vq_json_get(j, k, unknown[i]), &set) && set) {
                return vq_fail(
                    r->e, VQ_EFORMAT,
                    "%s: the added token \"%.*s\" has %s set, which vaquita does not know "
                    "(--no-tokenizer converts for ids only)",
                    r->name, shown(s), s.p, unknown[i]);
            }
        }
        bool normalized = false;
        vq_json_bool(j, vq_json_get(j, k, "normalized"), &normalized);
        r->src.word[r->src.n_word++] =
            (vq_tok_word){ s, id_of(j, vq_json_get(j, k, "id")),
                           normalized ? VAQ_TOK_ADDED_NORM : VAQ_TOK_ADDED };
    }
    return VQ_OK;
}

/* The two halves of a merge: "a b", or ["a", "b"]. */
static bool halves(const vq_json *j, uint32_t v, vq_tok_merge *m)
{
    if (vq_json_is(j, v, VQ_JARR)) {
        uint32_t a = vq_json_first(j, v), b = a ? vq_json_next(j, v, a) : 0;
        if (!b || vq_json_next(j, v, b)) return false;
        *m = (vq_tok_merge){ vq_json_str(j, a), vq_json_str(j, b) };
        return m->a.p && m->b.p;
    }
    return vq_tok_halves(vq_json_str(j, v), m);
}

static vq_status read_merges(reader *r, uint32_t list)
{
    const vq_json *j = r->j;
    for (uint32_t k = vq_json_first(j, list); k; k = vq_json_next(j, list, k)) {
        if (!halves(j, k, &r->src.merge[r->src.n_merge++]))
            return bad(r, "a merge that is not a pair", vq_json_str(j, k));
    }
    return VQ_OK;
}

/* The added token that a key of tokenizer_config.json names: a string or an object with content. */
static int32_t named(const reader *r, const vq_json *cfg, const char *key)
{
    uint32_t v = cfg ? vq_json_get(cfg, 0, key) : 0;
    if (!v) return -1;
    vq_str s = vq_json_is(cfg, v, VQ_JSTR) ? vq_json_str(cfg, v)
                                           : vq_json_str(cfg, vq_json_get(cfg, v, "content"));
    for (size_t i = 0; s.n && i < r->src.n_word; i++) {
        const vq_tok_word *w = &r->src.word[i];
        if (w->kind != VAQ_TOK_PLAIN && vq_str_cmp(w->s, s) == 0) return w->id;
    }
    return -1;
}

static vq_status read(reader *r, const vq_json *cfg)
{
    const vq_json *j = r->j;
    vq_status s = vq_tok_recognise(&r->src.family, j, r->name, r->e);
    if (s) return s;
    uint32_t model = vq_json_get(j, 0, "model"); /* recognised: it has vocabulary and merges */
    uint32_t vocab = vq_json_get(j, model, "vocab"), merges = vq_json_get(j, model, "merges");
    uint32_t added = vq_json_get(j, 0, "added_tokens"); /* 0: none */
    if (vq_json_is(j, added, VQ_JNULL)) added = 0;
    if (added && !vq_json_is(j, added, VQ_JARR))
        return bad(r, "added tokens that are no list", (vq_str){ NULL, 0 });
    const size_t n_added = added ? j->node[added].count : 0;
    r->src.word = vq_calloc(j->node[vocab].count + n_added + 1, sizeof *r->src.word);
    r->src.merge = vq_calloc((size_t)j->node[merges].count + 1, sizeof *r->src.merge);
    if (!r->src.word || !r->src.merge) return no_memory(r);
    read_vocab(r, vocab);
    s = read_added(r, added);
    if (!s) s = read_merges(r, merges);
    r->src.bos = named(r, cfg, "bos_token");
    r->src.eos = named(r, cfg, "eos_token");
    return s;
}

vq_status vq_tok_build(vq_tok_built *out, const vq_json *tj, const vq_json *cfg, const char *name,
                       vq_err *e)
{
    *out = (vq_tok_built){ .bos = -1, .eos = -1 };
    reader r = { .j = tj, .name = name, .e = e };
    vq_status s = read(&r, cfg);
    if (!s) s = vq_tok_compile(out, &r.src, name, e);
    vq_tok_source_clear(&r.src);
    return s;
}
