/* tokenizers.h - tokenizers for tests: the tiny ones in tests/data/models, and the full ones
 * that rebuild_tokenizers.py of the shared data writes (needs python3; once per build folder). */
#ifndef TESTS_TOKENIZERS_H
#define TESTS_TOKENIZERS_H

#include "core/base/json.h"
#include "core/base/os.h"
#include "core/text/tok.h"
#include "core/text/tok_build.h"
#include "tests/test.h"

/* The marks of the R1 family, with U+FF5C and U+2581 spelled out. */
#define T_MARK(words) "<\xef\xbd\x9c" words "\xef\xbd\x9c>"
#define T_LOW "\xe2\x96\x81"
#define T_BOS T_MARK("begin" T_LOW "of" T_LOW "sentence")
#define T_EOS T_MARK("end" T_LOW "of" T_LOW "sentence")
#define T_USER T_MARK("User")
#define T_ASSISTANT T_MARK("Assistant")

/* JSON with ' for ", so that cases can be read.  Only n - 1 bytes fit. */
static inline const char *t_quotes(char *out, size_t n, const char *s)
{
    snprintf(out, n, "%s", s);
    for (char *p = out; *p; p++) {
        if (*p == '\'') *p = '"';
    }
    return out;
}

typedef struct t_file {
    vq_buf text;
    vq_json j;
} t_file;

static inline bool t_json(t_file *f, const char *path)
{
    vq_err e;
    *f = (t_file){ 0 };
    if (vq_file_read(path, 1u << 30, &f->text, &e) ||
        vq_json_parse(&f->j, f->text.p, f->text.n, path, &e)) {
        printf("%s\n", e.msg);
        vq_buf_clear(&f->text);
        return false;
    }
    return true;
}

static inline void t_json_clear(t_file *f)
{
    vq_json_clear(&f->j);
    vq_buf_clear(&f->text);
}

typedef struct t_tokenizer {
    vq_tok_built built;
    vq_tok *tok; /* NULL: not to be had */
} t_tokenizer;

/* cfg: the text of a tokenizer_config.json. */
static inline bool t_tokenizer_load(t_tokenizer *t, const char *path, const char *cfg, size_t n_cfg)
{
    t_file tj;
    vq_json cj = { 0 };
    vq_err e = { 0 };
    *t = (t_tokenizer){ 0 };
    if (!t_json(&tj, path)) return false;
    vq_status s = vq_json_parse(&cj, cfg, n_cfg, "tokenizer_config.json", &e);
    if (!s) s = vq_tok_build(&t->built, &tj.j, &cj, path, &e);
    if (!s) s = vq_tok_open(&t->tok, t->built.section.p, t->built.section.n, path, &e);
    T_OK(!s, "%s", e.msg);
    vq_json_clear(&cj);
    t_json_clear(&tj);
    return !s;
}

/* One of the tiny models' in tests/data/models. */
static inline bool t_tokenizer_tiny(t_tokenizer *t, const char *model)
{
    char path[256];
    vq_buf cfg = { 0 };
    vq_err e = { 0 };
    snprintf(path, sizeof path, "tests/data/models/%s/tokenizer_config.json", model);
    bool ok = vq_file_read(path, 1 << 20, &cfg, &e) == VQ_OK;
    T_OK(ok, "%s", e.msg);
    snprintf(path, sizeof path, "tests/data/models/%s/tokenizer.json", model);
    ok = ok && t_tokenizer_load(t, path, cfg.p, cfg.n);
    vq_buf_clear(&cfg);
    return ok;
}

static inline void t_tokenizer_clear(t_tokenizer *t)
{
    vq_tok_close(t->tok);
    vq_tok_built_clear(&t->built);
    t->tok = NULL;
}

enum { T_R1, T_QWEN, T_LLAMA, T_QWEN3, T_FULL };
static const char *const t_full_names[T_FULL] = { "DeepSeek-R1", "DeepSeek-R1-Distill-Qwen",
                                                  "DeepSeek-R1-Distill-Llama",
                                                  "DeepSeek-R1-0528-Qwen3-8B" };

/* Loads the four full tokenizers; false after a T_SKIP. */
static inline bool t_tokenizers_full(t_tokenizer t[T_FULL], const char *argv0)
{
    char dir[300], path[700], cmd[2600];
    const char *prog = getenv("VAQUITA");
    if (!prog || !*prog) prog = argv0;
    const char *slash = strrchr(prog, '/');
    snprintf(dir, sizeof dir, "%.*s/tokenizers", slash ? (int)(slash - prog) : 1,
             slash ? prog : ".");
    snprintf(path, sizeof path, "%s/data/tokenizers/rebuild_tokenizers.py", t_shared());
    if (!vq_file_exists(path)) {
        T_SKIP("full tokenizers: %s is not there", path);
        return false;
    }
    if (!vq_is_dir(dir)) {
        snprintf(cmd, sizeof cmd,
                 "rm -rf '%s.new' && mkdir -p '%s.new' && "
                 "python3 '%s' '%s.new' >/dev/null && mv '%s.new' '%s'",
                 dir, dir, path, dir, dir, dir);
        if (system(cmd) != 0) {
            T_SKIP("full tokenizers: python3 could not make them");
            return false;
        }
    }
    static const char cfg[] =
        "{\"bos_token\":{\"content\":\"" T_BOS "\"},\"eos_token\":\"" T_EOS "\"}";
    for (int i = 0; i < T_FULL; i++) {
        snprintf(path, sizeof path, "%s/%s.tokenizer.json", dir, t_full_names[i]);
        if (!t_tokenizer_load(&t[i], path, cfg, sizeof cfg - 1)) return false;
    }
    return true;
}

static inline vq_ids t_encode(const vq_tok *t, const char *s, size_t n, bool special)
{
    vq_ids ids = { 0 };
    vq_err e = { 0 };
    T_OK(vq_tok_encode(t, s, n, special, &ids, &e) == VQ_OK, "%s", e.msg);
    return ids;
}

/* Are ids those of the JSON array v? */
static inline bool t_same_ids(const vq_ids *ids, const vq_json *j, uint32_t v)
{
    size_t n = 0;
    for (uint32_t k = vq_json_first(j, v); k; k = vq_json_next(j, v, k), n++) {
        int64_t x;
        if (n >= ids->n || !vq_json_i64(j, k, &x) || ids->v[n] != x) return false;
    }
    return n == ids->n;
}

static inline vq_buf t_decode(const vq_tok *t, const int32_t *id, size_t n)
{
    vq_buf out = { 0 };
    vq_detok d = { 0 };
    for (size_t i = 0; i < n; i++) vq_detok_put(t, &d, id[i], &out);
    vq_detok_end(&d, &out);
    return out;
}

#endif
