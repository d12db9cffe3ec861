/* t_tok.c - tokenizers: golden ids, both kinds of merge tables against a plain model of BPE, long
 * runs, damaged inputs, streams of ids back into text. */
#include "core/base/mem.h"
#include "core/text/tok_format.h"
#include "tests/tokenizers.h"

static const char *const tiny[] = { "tiny-r1-qwen", "tiny-r1-llama", "tiny-r1-qwen3" };

/* ---- golden ids ---- */

/* Prompts and answers of the tiny models, tokenized by Hugging Face. */
static void tiny_goldens(void)
{
    for (size_t m = 0; m < 3; m++) {
        t_tokenizer t;
        t_file g;
        char path[256];
        snprintf(path, sizeof path, "tests/data/models/%s/golden.json", tiny[m]);
        if (!t_tokenizer_tiny(&t, tiny[m]) || !t_json(&g, path)) {
            T_OK(false, "%s", path);
            continue;
        }
        T_OK(t.built.bos == 0 && t.built.eos == 1, "%s: bos %d eos %d", tiny[m], t.built.bos,
             t.built.eos);
        T_OK(vq_tok_eos(t.tok) == 1 && vq_tok_count(t.tok) == t.built.n_ids, "%s", tiny[m]);
        uint32_t cases = vq_json_get(&g.j, 0, "cases");
        for (uint32_t c = vq_json_first(&g.j, cases); c; c = vq_json_next(&g.j, cases, c)) {
            static const char *const keys[2][2] = { { "prompt", "prompt_ids" },
                                                    { "greedy_text", "greedy_ids" } };
            for (int k = 0; k < 2; k++) {
                vq_str s = vq_json_str(&g.j, vq_json_get(&g.j, c, keys[k][0]));
                vq_ids ids = t_encode(t.tok, s.p, s.n, true);
                vq_buf back = t_decode(t.tok, ids.v, ids.n);
                T_OK(k == 1 || t_same_ids(&ids, &g.j, vq_json_get(&g.j, c, keys[k][1])), "%s: %.*s",
                     tiny[m], (int)s.n, s.p);
                T_OK(back.n == s.n && memcmp(back.p, s.p, s.n) == 0, "%s: %.*s -> %s", tiny[m],
                     (int)s.n, s.p, back.p);
                vq_buf_clear(&back);
                vq_ids_clear(&ids);
            }
        }
        t_json_clear(&g);
        t_tokenizer_clear(&t);
    }
}

static void fixture_cases(t_tokenizer t[T_FULL])
{
    char path[600];
    t_file f;
    snprintf(path, sizeof path, "%s/data/tokenizers/fixtures/tokenizer_cases.json", t_shared());
    if (!t_json(&f, path)) {
        T_OK(false, "%s", path);
        return;
    }
    for (uint32_t c = vq_json_first(&f.j, 0); c; c = vq_json_next(&f.j, 0, c)) {
        vq_str s = vq_json_str(&f.j, vq_json_get(&f.j, c, "text"));
        for (int i = 0; i < T_FULL; i++) {
            uint32_t want = vq_json_get(&f.j, vq_json_get(&f.j, c, "ids"), t_full_names[i]);
            if (!want) continue;
            vq_ids ids = t_encode(t[i].tok, s.p, s.n, true);
            T_OK(t_same_ids(&ids, &f.j, want), "%s: %.*s", t_full_names[i], (int)s.n, s.p);
            vq_ids_clear(&ids);
        }
    }
    t_json_clear(&f);
}

/* llama.cpp's pairs: texts between separators, and a line of ids each. */
static void fixture_pairs(const vq_tok *t, const char *name)
{
    static const char sep[] = "\n__ggml_vocab_test__\n";
    char path[600];
    vq_buf in = { 0 }, out = { 0 };
    vq_err e = { 0 };
    snprintf(path, sizeof path, "%s/data/tokenizers/fixtures/ggml-vocab-%s.gguf.inp", t_shared(),
             name);
    vq_status s = vq_file_read(path, 1 << 20, &in, &e);
    snprintf(path, sizeof path, "%s/data/tokenizers/fixtures/ggml-vocab-%s.gguf.out", t_shared(),
             name);
    if (!s) s = vq_file_read(path, 1 << 20, &out, &e);
    T_OK(!s, "%s", e.msg);
    char *line = s ? NULL : out.p;
    for (char *p = in.p, *end; line && (end = strstr(p, sep)) != NULL; p = end + sizeof sep - 1) {
        char *nl = strchr(line, '\n');
        if (nl) *nl = 0;
        vq_ids want = { 0 }, got = t_encode(t, p, (size_t)(end - p), true);
        T_OK(!*line || vq_parse_ids(line, &want), "%s", line);
        T_OK(want.n == got.n && (!got.n || memcmp(want.v, got.v, got.n * sizeof *got.v) == 0),
             "%s: %.*s", name, (int)(end - p), p);
        vq_ids_clear(&want);
        vq_ids_clear(&got);
        line = nl ? nl + 1 : NULL;
    }
    vq_buf_clear(&in);
    vq_buf_clear(&out);
}

/* 8191 ids of WikiText behind a BOS: their text must encode to them again. */
static void fixture_wikitext(const vq_tok *t)
{
    char path[600];
    vq_buf in = { 0 };
    vq_err e = { 0 };
    vq_ids want = { 0 };
    snprintf(path, sizeof path, "%s/data/tokenizers/fixtures/wikitext_chunk.deepseek-v3.ids.txt",
             t_shared());
    T_OK(vq_file_read(path, 1 << 20, &in, &e) == VQ_OK, "%s", e.msg);
    T_OK(in.p && vq_parse_ids(in.p, &want) && want.n == 8192 && want.v[0] == 0, "%zu ids", want.n);
    vq_buf text = t_decode(t, want.v, want.n);
    vq_ids got = t_encode(t, text.p, text.n, true);
    size_t same = 0;
    while (same < got.n && same < want.n && got.v[same] == want.v[same]) same++;
    T_OK(same == want.n && got.n == want.n, "%zu of %zu ids equal", same, want.n);
    vq_ids_clear(&got);
    vq_ids_clear(&want);
    vq_buf_clear(&text);
    vq_buf_clear(&in);
}

/* ---- text that must not act, text that is not text ---- */

static void marks_stay_text(const vq_tok *t, const char *name)
{
    static const char *const marks[] = { T_USER, "<think>", T_EOS, "a" T_ASSISTANT "b" };
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        size_t n = strlen(marks[i]);
        vq_ids plain = t_encode(t, marks[i], n, false), special = t_encode(t, marks[i], n, true);
        bool has = false, acts = false;
        for (size_t k = 0; k < plain.n; k++) has |= vq_tok_is_added(t, plain.v[k]);
        for (size_t k = 0; k < special.n; k++) acts |= vq_tok_is_added(t, special.v[k]);
        T_OK(!has && acts, "%s: %s", name, marks[i]);
        vq_buf back = t_decode(t, plain.v, plain.n);
        T_OK(back.p && strcmp(back.p, marks[i]) == 0, "%s: %s", name, marks[i]);
        vq_buf_clear(&back);
        vq_ids_clear(&plain);
        vq_ids_clear(&special);
    }
}

static void broken_utf8(const vq_tok *t)
{
    static const char bad[] = "a\xff\xe4\xb8" "b\xf0\x9f\x98\xc3\xa9\x80";
    static const char fixed[] = "a\xef\xbf\xbd\xef\xbf\xbd" "b\xef\xbf\xbd\xc3\xa9\xef\xbf\xbd";
    vq_ids a = t_encode(t, bad, sizeof bad - 1, true),
           b = t_encode(t, fixed, sizeof fixed - 1, true);
    T_OK(a.n == b.n && memcmp(a.v, b.v, a.n * sizeof *a.v) == 0, "%zu %zu", a.n, b.n);
    vq_ids_clear(&a);
    vq_ids_clear(&b);
    a = t_encode(t, NULL, 0, true);
    T_OK(a.n == 0, "empty text");
    vq_ids_clear(&a);
}

/* A megabyte of one thing: pieces as long as the text, in time that a test can afford. */
static void long_runs(const vq_tok *t, const char *name)
{
    static const char *const units[] = { "a", " ", "\n", " \n", "7", "!", "\xe4\xb8\xad", "ab",
                                         "\x01", "<", "'s", "\xcc\x81\xcc\xa3" };
    enum { N = 1 << 20 };
    char *s = vq_malloc(N);
    for (size_t u = 0; s && u < sizeof units / sizeof *units; u++) {
        size_t len = strlen(units[u]), n = N / len * len;
        for (size_t i = 0; i < n; i += len) memcpy(s + i, units[u], len);
        vq_ids ids = t_encode(t, s, n, true);
        vq_buf back = t_decode(t, ids.v, ids.n);
        bool moved = (unsigned char)units[u][0] == 0xcc; /* NFC reorders these marks */
        T_OK(back.n == n && (moved || memcmp(back.p, s, n) == 0), "%s: unit %zu", name, u);
        vq_buf_clear(&back);
        vq_ids_clear(&ids);
    }
    vq_free(s);
}

/* Added tokens of both kinds: in the text as it is, and in what is left of it after NFC. */
static void normalized_marks(void)
{
    char text[1000];
    vq_json j = { 0 };
    vq_err e = { 0 };
    vq_tok_built b;
    vq_tok *t = NULL;
    t_quotes(text, sizeof text,
             "{'normalizer':{'type':'NFC'},'pre_tokenizer':{'type':'Sequence','pretokenizers':["
             "{'type':'Digits','individual_digits':true},"
             "{'type':'ByteLevel','add_prefix_space':false}]},"
             "'model':{'type':'BPE','merges':[],"
             "'vocab':{'e':0,'x':1,'\xc3\x8c':2,'\xc4\xa3':3,'<':4}},"
             "'added_tokens':[{'id':5,'content':'<e'},"
             "{'id':6,'content':'x\xc3\xa9','normalized':true},"
             "{'id':7,'content':'x\xc3\xa9x\xc3\xa9','normalized':true}]}");
    vq_status s = vq_json_parse(&j, text, strlen(text), "case", &e);
    if (!s) s = vq_tok_build(&b, &j, NULL, "case", &e);
    if (!s) s = vq_tok_open(&t, b.section.p, b.section.n, "case", &e);
    T_OK(!s, "%s", e.msg);
    if (s) return;
    static const struct { const char *in; int32_t ids[6]; size_t n; } cases[] = {
        { "x\xc3\xa9", { 6 }, 1 },
        { "xe\xcc\x81", { 6 }, 1 },                     /* only NFC makes it */
        { "xe\xcc\x81x\xc3\xa9x", { 7, 1 }, 2 },        /* the longest */
        { "<e\xcc\x81", { 5, 2, 3 }, 3 },               /* cut first, so the mark stays alone */
        { "<x\xc3\xa9", { 4, 6 }, 2 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        vq_ids ids = t_encode(t, cases[i].in, strlen(cases[i].in), true);
        T_OK(ids.n == cases[i].n && memcmp(ids.v, cases[i].ids, ids.n * sizeof *ids.v) == 0,
             "case %zu: %zu ids, first %d", i, ids.n, ids.n ? (int)ids.v[0] : -1);
        vq_ids_clear(&ids);
    }
    vq_tok_close(t);
    vq_tok_built_clear(&b);
    vq_json_clear(&j);
}

/* ---- merges: against a plain model ---- */

/* A small random tokenizer: 256 byte tokens with their value as id, then the results of merges. */
typedef struct model {
    char tok[64][16];       /* spelled results, ASCII only */
    int n;
    int pair[64][2];        /* merges in order: indices, < 0: ~byte */
    int result[64];
    int n_merge;
} model;

static unsigned long long rng = 1;
static unsigned rnd(unsigned n)
{
    rng = rng * 6364136223846793005ULL + 1442695040888963407ULL;
    return (unsigned)(rng >> 33) % n;
}

static const char *spell(const model *m, int k, char one[2])
{
    if (k >= 0) return m->tok[k];
    one[0] = (char)~k;
    one[1] = 0;
    return one;
}

static int result_of(const model *m, const char *s)
{
    for (int i = 0; i < m->n; i++) {
        if (strcmp(m->tok[i], s) == 0) return i;
    }
    return -1;
}

/* Random merges over three letters.  several: a result may be made in more than one way, so that
 * ranks and ids can disagree. */
static void random_model(model *m, bool several)
{
    *m = (model){ 0 };
    while (m->n_merge < 24) {
        char a[2], b[2], s[40];
        int x = m->n && rnd(2) ? (int)rnd((unsigned)m->n) : ~(int)('a' + rnd(3));
        int y = m->n && rnd(2) ? (int)rnd((unsigned)m->n) : ~(int)('a' + rnd(3));
        snprintf(s, sizeof s, "%s%s", spell(m, x, a), spell(m, y, b));
        int r = result_of(m, s);
        if (strlen(s) > 12 || (r >= 0 && !several)) continue;
        bool again = false;
        for (int i = 0; i < m->n_merge; i++) again |= m->pair[i][0] == x && m->pair[i][1] == y;
        if (again) continue;
        if (r < 0) strcpy(m->tok[r = m->n++], s);
        m->pair[m->n_merge][0] = x;
        m->pair[m->n_merge][1] = y;
        m->result[m->n_merge++] = r;
    }
}

static void spell_byte(int c, vq_buf *out)
{
    char u[4];
    uint32_t cp = (uint32_t)c;
    if (c < 33) cp = 256 + cp;
    else if (c >= 127 && c <= 160) cp = 256 + 33 + cp - 127;
    else if (c == 173) cp = 256 + 67;
    vq_buf_add(out, u, (size_t)vq_utf8_put(u, cp));
}

static void write_model(const model *m, bool arrays, vq_buf *out)
{
    vq_jw w = { .b = out };
    vq_buf s = { 0 };
    char a[2], b[2];
    vq_jw_open(&w, NULL, '{');
    vq_jw_open(&w, "pre_tokenizer", '{');
    vq_jw_cstr(&w, "type", "Sequence");
    vq_jw_open(&w, "pretokenizers", '[');
    vq_jw_open(&w, NULL, '{');
    vq_jw_cstr(&w, "type", "Digits");
    vq_jw_bool(&w, "individual_digits", true);
    vq_jw_close(&w, '}');
    vq_jw_open(&w, NULL, '{');
    vq_jw_cstr(&w, "type", "ByteLevel");
    vq_jw_bool(&w, "add_prefix_space", false);
    vq_jw_close(&w, '}');
    vq_jw_close(&w, ']');
    vq_jw_close(&w, '}');
    vq_jw_open(&w, "model", '{');
    vq_jw_open(&w, "vocab", '{');
    for (int c = 0; c < 256; c++) {
        vq_buf_reset(&s);
        spell_byte(c, &s);
        vq_jw_i64(&w, s.p, c);
    }
    for (int i = 0; i < m->n; i++) vq_jw_i64(&w, m->tok[i], 256 + i);
    vq_jw_close(&w, '}');
    vq_jw_open(&w, "merges", '[');
    for (int i = 0; i < m->n_merge; i++) {
        const char *x = spell(m, m->pair[i][0], a), *y = spell(m, m->pair[i][1], b);
        if (arrays) {
            vq_jw_open(&w, NULL, '[');
            vq_jw_cstr(&w, NULL, x);
            vq_jw_cstr(&w, NULL, y);
            vq_jw_close(&w, ']');
        } else {
            vq_buf_reset(&s);
            vq_buf_printf(&s, "%s %s", x, y);
            vq_jw_cstr(&w, NULL, s.p);
        }
    }
    vq_jw_close(&w, ']');
    vq_jw_close(&w, '}');
    vq_jw_close(&w, '}');
    vq_buf_clear(&s);
}

/* Merge the first pair of lowest rank, until none: the definition. */
static size_t model_bpe(const model *m, const char *s, size_t n, int32_t *id)
{
    int v[64];
    for (size_t i = 0; i < n; i++) v[i] = ~(int)s[i];
    for (;;) {
        int best = -1;
        size_t at = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            for (int k = 0; k < m->n_merge; k++) {
                if (m->pair[k][0] == v[i] && m->pair[k][1] == v[i + 1] && (best < 0 || k < best))
                    best = k, at = i;
            }
        }
        if (best < 0) break;
        v[at] = m->result[best];
        n--;
        for (size_t i = at + 1; i < n; i++) v[i] = v[i + 1];
    }
    for (size_t i = 0; i < n; i++) id[i] = v[i] < 0 ? ~v[i] : 256 + v[i];
    return n;
}

static void merge_tables(void)
{
    int by_id = 0, by_pair = 0;
    for (int round = 0; round < 200; round++) {
        model m;
        vq_buf text = { 0 };
        vq_json j = { 0 };
        vq_err e = { 0 };
        vq_tok_built built;
        vq_tok *t = NULL;
        random_model(&m, round % 2);
        write_model(&m, round % 3 == 0, &text);
        vq_status s = vq_json_parse(&j, text.p, text.n, "model", &e);
        if (!s) s = vq_tok_build(&built, &j, NULL, "model", &e);
        if (!s) s = vq_tok_open(&t, built.section.p, built.section.n, "model", &e);
        T_OK(!s, "%s", e.msg);
        if (s) break;
        const vaq_tok_header *h = (const vaq_tok_header *)built.section.p;
        if (h->flags & VAQ_TOK_PAIRS) by_pair++;
        else by_id++;
        for (int k = 0; k < 100; k++) {
            char in[48];
            int32_t want[48];
            size_t n = 1 + rnd(40);
            for (size_t i = 0; i < n; i++) in[i] = (char)('a' + rnd(3));
            size_t n_want = model_bpe(&m, in, n, want);
            vq_ids got = t_encode(t, in, n, false);
            T_OK(got.n == n_want && memcmp(got.v, want, n_want * sizeof *want) == 0,
                 "round %d: %.*s", round, (int)n, in);
            vq_ids_clear(&got);
        }
        vq_tok_close(t);
        vq_tok_built_clear(&built);
        vq_json_clear(&j);
        vq_buf_clear(&text);
    }
    T_OK(by_id > 5 && by_pair > 5, "%d tokenizers by id, %d by pair", by_id, by_pair);
}

/* ---- damaged inputs ---- */

/* Cases are written with ' for ". */
#define BYTES "{'type':'ByteLevel','add_prefix_space':false}"
#define PRE "'pre_tokenizer':{'type':'Sequence','pretokenizers':[" \
            "{'type':'Digits','individual_digits':true}," BYTES "]},"
#define MODEL(vocab, merges) "'model':{'type':'BPE','vocab':{" vocab "},'merges':[" merges "]}"
#define GOOD(vocab, merges) "{" PRE MODEL(vocab, merges) "}"
#define ADDED(list) "{" PRE MODEL("'a':0", "") ",'added_tokens':[" list "]}"

static void foreign_and_hostile(void)
{
    static const struct { const char *json, *says; } cases[] = {
        { GOOD("'a':0,'b':1,'ab':2", "'a b'"), NULL },
        { GOOD("'a':0,'b':1,'ab':2", "['a','b']"), NULL },
        { ADDED("{'id':3,'content':'<x>'}"), NULL },
        { "{" PRE MODEL("'a':0,'<\xef\xbd\x9c>':1", "") ",'added_tokens':["
          "{'id':1,'content':'<\xef\xbd\x9c>'}]}", NULL },
        { "[]", "top level" },
        { "{}", "model" },
        { "{'model':{'type':'Unigram','vocab':[]}}", "Unigram" },
        { "{'model':{'type':'BPE','byte_fallback':true,'vocab':{},'merges':[]}}", "byte_fallback" },
        { "{'model':{'type':'BPE','unk_token':'<unk>','vocab':{},'merges':[]}}", "unk_token" },
        { "{" MODEL("'a':0", "") "}", "pre-tokenizer" },
        { "{'pre_tokenizer':{'type':'Metaspace'}," MODEL("'a':0", "") "}", "Metaspace" },
        { "{'pre_tokenizer':{'type':'Sequence','pretokenizers':[{'type':'Split','pattern':"
          "{'Regex':'x+'}}]}," MODEL("'a':0", "") "}", "x+" },
        { "{'normalizer':{'type':'NFKC'}," PRE MODEL("'a':0", "") "}", "NFKC" },
        { "{'normalizer':{'type':'Sequence'}," PRE MODEL("'a':0", "") "}", "normalizer" },
        { "{'decoder':{'type':'WordPiece'}," PRE MODEL("'a':0", "") "}", "WordPiece" },
        { GOOD("'a':-1", ""), "id is not" },
        { GOOD("'a':99999999999", ""), "id is not" },
        { GOOD("'a':4194304", ""), "id is not" },
        { GOOD("'a':1.5", ""), "id is not" },
        { GOOD("'a':'0'", ""), "id is not" },
        { GOOD("", ""), "empty" },
        { GOOD("'':0", ""), "without text" },
        { GOOD("'a':0,'b':0", ""), "another entry" },
        { GOOD("'a':0,'a':1", ""), "twice" },
        { GOOD("'\xe4\xb8\xad':0", ""), "alphabet" },
        { GOOD("'a':0", "'a b'"), "not in the vocabulary" },
        { GOOD("'a':0,'b':1", "'a b'"), "result" },
        { GOOD("'a':0,'b':1", "'ab'"), "not a pair" },
        { GOOD("'a':0,'b':1", "'a '"), "nothing" },
        { GOOD("'a':0,'b':1", "['a']"), "not a pair" },
        { GOOD("'a':0,'b':1", "['a','b','a']"), "not a pair" },
        { GOOD("'a':0,'b':1", "[1,2]"), "not a pair" },
        { GOOD("'a':0,'b':1", "7"), "not a pair" },
        { ADDED("{'id':0,'content':'x'}"), "added token has too" },
        { ADDED("{'id':-5,'content':'x'}"), "id is not" },
        { ADDED("{'content':'x'}"), "id is not" },
        { ADDED("{'id':1}"), "without content" },
        { ADDED("7"), "without content" },
        { ADDED("{'id':1,'content':'x'},{'id':2,'content':'x'}"), "two ids" },
        { ADDED("{'id':1,'content':'x'},{'id':1,'content':'y'}"), "one id" },
        { ADDED("{'id':1,'content':'x','lstrip':true}"), "lstrip" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[1000];
        vq_json j = { 0 };
        vq_err e = { 0 };
        vq_tok_built b;
        t_quotes(text, sizeof text, cases[i].json);
        T_OK(vq_json_parse(&j, text, strlen(text), "case", &e) == VQ_OK, "%zu: %s", i, e.msg);
        vq_status s = vq_tok_build(&b, &j, NULL, "case", &e);
        bool named =
            cases[i].says && strstr(e.msg, cases[i].says) && strstr(e.msg, "--no-tokenizer");
        T_OK(cases[i].says ? s == VQ_EFORMAT && named : s == VQ_OK, "%zu: %s", i, e.msg);
        vq_tok_built_clear(&b);
        vq_json_clear(&j);
    }
}

/* Whatever is in the section: it opens or is refused, and what opens can be used. */
static void use(const void *sec, size_t n)
{
    static const char text[] =
        "<think>\nCompute 834 + 481. \xe4\xb8\xad\xe6\x96\x87 \xff 'll   x</think>";
    vq_tok *t;
    vq_err e;
    if (vq_tok_open(&t, sec, n, "damaged", &e)) {
        T_OK(e.code == VQ_EFORMAT, "%s", e.msg);
        return;
    }
    vq_ids ids = t_encode(t, text, sizeof text - 1, true);
    vq_buf back = t_decode(t, ids.v, ids.n);
    T_OK(back.n < 10 * sizeof text * 1000, "%zu", back.n);
    vq_tok_added(t, "<think>", 7);
    vq_buf_clear(&back);
    vq_ids_clear(&ids);
    vq_tok_close(t);
}

static void damaged_sections(void)
{
    t_tokenizer t;
    if (!t_tokenizer_tiny(&t, "tiny-r1-qwen")) return;
    size_t n = t.built.section.n;
    char *copy = vq_malloc(n);
    for (size_t i = 0; copy && i < n; i++) { /* every byte, one bit of it or all */
        memcpy(copy, t.built.section.p, n);
        copy[i] = (char)(copy[i] ^ (i % 3 == 0 ? 0xff : 1 << i % 8));
        use(copy, n);
    }
    for (size_t i = 0; copy && i < n; i += i < 200 ? 1 : 97) {
        char *cut = vq_malloc(i); /* exactly: a sanitizer sees any read behind them */
        memcpy(cut, t.built.section.p, i);
        use(cut, i);
        vq_free(cut);
    }
    vq_free(copy);
    t_tokenizer_clear(&t);
}

/* The file is cut (zeros) or written over while its tokenizer is in use: look-ups end, inside. */
static void overwritten_sections(void)
{
    static const char text[] = "<think>\nCompute 834 + 481. \xe4\xb8\xad ?</think> the end";
    static const char *const name[] = { "tiny-r1-qwen", "tiny-r1-llama" }; /* with listed merges */
    for (size_t m = 0; m < 2; m++) {
        t_tokenizer t;
        if (!t_tokenizer_tiny(&t, name[m])) return;
        const size_t n = t.built.section.n;
        uint8_t *sec = vq_malloc(n);
        for (uint64_t how = 0; sec && how < 40; how++) {
            vq_tok *own;
            vq_err e;
            memcpy(sec, t.built.section.p, n);
            if (vq_tok_open(&own, sec, n, "live", &e)) {
                T_OK(false, "%s", e.msg);
                break;
            }
            const size_t from = how < 20 ? 0 : n / 20 * (how - 20); /* all of it, or the rest */
            uint64_t x = how * 0x9e3779b97f4a7c15 + 1;
            for (size_t i = from; i < n; i++) {
                x = x * 6364136223846793005u + 1442695040888963407u;
                sec[i] = how % 4 == 0 ? 0 : how % 4 == 1 ? 0xff : (uint8_t)(x >> 60 | x >> 56 << 4);
                if (how % 4 == 3 && i % 4) sec[i] = 0; /* small numbers */
            }
            vq_ids ids = t_encode(own, text, sizeof text - 1, true);
            for (int32_t id = -1; id < vq_tok_count(own); id++) {
                if (!vq_ids_add(&ids, id)) break;
            }
            vq_buf back = t_decode(own, ids.v, ids.n);
            vq_tok_added(own, "<think>", 7);
            T_OK(ids.n > 0, "%s %d", name[m], (int)how);
            vq_buf_clear(&back);
            vq_ids_clear(&ids);
            vq_tok_close(own);
        }
        vq_free(sec);
        t_tokenizer_clear(&t);
    }
}

/* Random damage to a real tokenizer.json that still parses. */
static void damaged_json(void)
{
    vq_buf in = { 0 };
    vq_err e;
    T_OK(vq_file_read("tests/data/models/tiny-r1-llama/tokenizer.json", 1 << 24, &in, &e) == VQ_OK,
         "%s", e.msg);
    char *copy = vq_malloc(in.n + 1);
    for (int round = 0; copy && in.n && round < 300; round++) {
        vq_json j = { 0 };
        vq_tok_built b;
        memcpy(copy, in.p, in.n);
        for (unsigned k = 1 + rnd(4); k > 0; k--) {
            size_t a = rnd((unsigned)in.n), c = rnd((unsigned)in.n);
            if (copy[a] >= '0' && copy[a] <= '9') copy[a] = (char)('0' + rnd(10));
            else copy[a] = copy[c];
        }
        if (vq_json_parse(&j, copy, in.n, "damaged", &e)) continue;
        if (vq_tok_build(&b, &j, NULL, "damaged", &e) == VQ_OK) use(b.section.p, b.section.n);
        else T_OK(e.code == VQ_EFORMAT, "%s", e.msg);
        vq_tok_built_clear(&b);
        vq_json_clear(&j);
    }
    vq_free(copy);
    vq_buf_clear(&in);
}

static void no_memory(void)
{
    static const char text[] = "e\xcc\x81<think>\nCompute 834 + 481. \xff";
    t_file f;
    if (vq_mem_fail_at(0) == 0) return; /* not a build with fault injection */
    if (!t_json(&f, "tests/data/models/tiny-r1-qwen/tokenizer.json")) return;
    vq_status s = VQ_ENOMEM;
    for (long nth = 1; s == VQ_ENOMEM && nth < 10000; nth++) {
        vq_tok_built b;
        vq_tok *t = NULL;
        vq_ids ids = { 0 };
        vq_err e = { 0 };
        vq_mem_fail_at(nth);
        s = vq_tok_build(&b, &f.j, NULL, "x", &e);
        if (!s) s = vq_tok_open(&t, b.section.p, b.section.n, "x", &e);
        if (!s) s = vq_tok_encode(t, text, sizeof text - 1, true, &ids, &e);
        vq_mem_fail_at(0);
        T_OK(s == VQ_OK || s == VQ_ENOMEM, "allocation %ld: %s", nth, e.msg);
        vq_ids_clear(&ids);
        vq_tok_close(t);
        vq_tok_built_clear(&b);
    }
    t_json_clear(&f);
}

/* ---- streams ---- */

static void streams(const vq_tok *t)
{
    static const char text[] = "\xf0\x9f\x98\x80\xe4\xb8\xad\xc3\xa9x";
    vq_buf out = { 0 };
    vq_detok d = { 0 };
    /* Byte by byte: nothing is shown before it is whole. */
    for (size_t i = 0; i < sizeof text - 1; i++) {
        int32_t id = -1;
        for (int32_t k = 0; k < vq_tok_count(t) && id < 0; k++) {
            vq_str s = vq_tok_bytes(t, k);
            if (s.n == 1 && s.p[0] == text[i] && !vq_tok_is_added(t, k)) id = k;
        }
        vq_detok_put(t, &d, id, &out);
        static const size_t shown[] = { 0, 0, 0, 4, 4, 4, 7, 7, 9, 10 };
        T_OK(out.n == shown[i] && memcmp(out.p ? out.p : "", text, out.n) == 0,
             "byte %zu: %zu shown", i, out.n);
    }
    /* A cut code point before a mark, before another start, and at the end. */
    int32_t half = -1, mark = vq_tok_added(t, "<think>", 7);
    for (int32_t k = 0; k < vq_tok_count(t) && half < 0; k++) {
        vq_str s = vq_tok_bytes(t, k);
        if (s.n == 1 && (unsigned char)s.p[0] == 0xe4) half = k;
    }
    vq_buf_reset(&out);
    vq_detok_put(t, &d, half, &out);
    vq_detok_put(t, &d, mark, &out);
    vq_detok_put(t, &d, half, &out);
    vq_detok_put(t, &d, half, &out);
    vq_detok_put(t, &d, -1, &out);
    vq_detok_put(t, &d, vq_tok_count(t), &out);
    vq_detok_end(&d, &out);
    vq_detok_end(&d, &out);
    T_OK(out.p && strcmp(out.p, "\xef\xbf\xbd<think>\xef\xbf\xbd\xef\xbf\xbd") == 0, "%s", out.p);
    vq_buf_clear(&out);
}

int main(int argc, char **argv)
{
    (void)argc;
    tiny_goldens();
    normalized_marks();
    merge_tables();
    foreign_and_hostile();
    damaged_sections();
    overwritten_sections();
    damaged_json();
    no_memory();
    for (size_t m = 0; m < 3; m++) {
        t_tokenizer t;
        if (!t_tokenizer_tiny(&t, tiny[m])) continue;
        marks_stay_text(t.tok, tiny[m]);
        broken_utf8(t.tok);
        streams(t.tok);
        if (m == 0) long_runs(t.tok, tiny[m]);
        t_tokenizer_clear(&t);
    }
    t_tokenizer full[T_FULL] = { 0 };
    if (t_tokenizers_full(full, argv[0])) {
        fixture_cases(full);
        fixture_pairs(full[T_LLAMA].tok, "llama-bpe");
        fixture_pairs(full[T_QWEN].tok, "qwen2");
        fixture_pairs(full[T_QWEN].tok, "deepseek-r1-qwen");
        fixture_wikitext(full[T_R1].tok);
        for (int i = 0; i < T_FULL; i++) {
            const vaq_tok_header *h = (const vaq_tok_header *)full[i].built.section.p;
            T_OK(!(h->flags & VAQ_TOK_PAIRS), "%s: the ranks of its merges are ids",
                 t_full_names[i]);
            marks_stay_text(full[i].tok, t_full_names[i]);
            if (i != T_QWEN3) long_runs(full[i].tok, t_full_names[i]);
        }
    }
    for (int i = 0; i < T_FULL; i++) t_tokenizer_clear(&full[i]);
    return t_done("t_tok");
}
