/* describe.c - what `info` says about a checkpoint: its shape, its bytes, whether it converts.
 *
 * Also for checkpoints that do not convert (a lone shard, other models): numbers come
 * from config.json as it stands, and "convertible" with "problem" says what cv_convert would. */
#include "convert/card.h"
#include "convert/convert.h"
#include "convert/gguf_model.h"
#include "convert/hfconfig.h"
#include "convert/plan.h"
#include "core/text/chat.h"

#include <stdio.h>
#include <string.h>

typedef struct totals {
    uint64_t tensors, params, bytes;
} totals;

/* Numbers that are no weights of their own. */
static bool is_scale(const cv_tensor *t)
{
    static const char end[] = "_scale_inv";
    const size_t n = sizeof end - 1;
    return t->name.n > n && !memcmp(t->name.p + t->name.n - n, end, n);
}

static void put_types(vq_jw *w, const cv_st *file, size_t n, totals *all)
{
    vq_jw_open(w, "types", '{');
    /* Some twenty dtypes exist: each is summed up where it is met first. */
    const char *seen[32];
    size_t n_seen = 0;
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < file[i].n_tensor; k++) {
            const char *name = file[i].tensor[k].dtype_name;
            size_t s = 0;
            while (s < n_seen && strcmp(seen[s], name) != 0) s++;
            if (s == n_seen && n_seen < 32) seen[n_seen++] = name;
        }
    }
    for (size_t s = 0; s < n_seen; s++) {
        totals t = { 0 };
        for (size_t i = 0; i < n; i++) {
            for (size_t k = 0; k < file[i].n_tensor; k++) {
                const cv_tensor *x = &file[i].tensor[k];
                if (strcmp(x->dtype_name, seen[s]) != 0) continue;
                t.tensors++;
                if (!is_scale(x)) t.params += x->n;
                t.bytes += x->size;
            }
        }
        vq_jw_open(w, seen[s], '{');
        vq_jw_u64(w, "tensors", t.tensors);
        vq_jw_u64(w, "params", t.params);
        vq_jw_u64(w, "bytes", t.bytes);
        vq_jw_close(w, '}');
        all->tensors += t.tensors;
        all->params += t.params;
        all->bytes += t.bytes;
    }
    vq_jw_close(w, '}');
}

static void put_files(vq_jw *w, const cv_st *file, size_t n)
{
    totals all = { 0 };
    put_types(w, file, n, &all);
    vq_jw_u64(w, "files", n);
    vq_jw_u64(w, "tensors", all.tensors);
    vq_jw_u64(w, "params", all.params);
    vq_jw_u64(w, "bytes", all.bytes);
    vq_jw_f64(w, "bpw", all.params ? 8.0 * (double)all.bytes / (double)all.params : 0);
}

/* A number of the config under the name that info uses. */
static void put_number(vq_jw *w, const char *key, const vq_json *j, const char *name)
{
    int64_t v;
    if (vq_json_i64(j, vq_json_get(j, 0, name), &v)) vq_jw_i64(w, key, v);
    else vq_jw_cstr(w, key, NULL);
}

static void put_config(vq_jw *w, const cv_ckpt *c)
{
    const vq_json *j = &c->config.j;
    const vq_str arch = vq_json_str(j, vq_json_get(j, 0, "model_type"));
    if (arch.p) vq_jw_str(w, "arch", arch.p, arch.n);
    else vq_jw_cstr(w, "arch", NULL);
    vq_jw_cstr(w, "name", c->name);
    put_number(w, "layers", j, "num_hidden_layers");
    put_number(w, "hidden", j, "hidden_size");
    put_number(w, "heads", j, "num_attention_heads");
    put_number(w, "kv_heads", j, "num_key_value_heads");
    put_number(w, "vocab", j, "vocab_size");
    put_number(w, "ctx", j, "max_position_embeddings");
    vq_jw_cstr(w, "assumed", cv_gguf_assumed(&c->gguf));
}

static vq_status put_template(vq_jw *w, const cv_ckpt *c, vq_err *e)
{
    cv_json cfg;
    vq_buf text = { 0 };
    vq_status st = cv_ckpt_json(c, "tokenizer_config.json", &cfg, e);
    if (!st) st = cv_chat_template(c, &cfg, &text, e);
    if (!st) {
        const int id = text.n ? vq_chat_recognise((vq_str){ text.p, text.n }) : 0;
        vq_jw_cstr(w, "template", text.n && !id ? "unknown" : vq_template_name((uint32_t)id));
        const bool tokens = cv_gguf_find(&c->gguf, "tokenizer.ggml.tokens") != NULL;
        vq_jw_bool(w, "tokenizer", c->is_gguf ? tokens : cv_ckpt_has(c, "tokenizer.json"));
    }
    vq_buf_clear(&text);
    cv_json_clear(&cfg);
    return st;
}

/* Would it convert?  The same steps up to the plan; the tokenizer, which takes longest, is left to
 * the conversion. */
static void put_verdict(vq_jw *w, const cv_ckpt *c)
{
    cv_config config;
    cv_plan plan = { 0 };
    vq_err why = { 0 };
    vq_status st = cv_config_read(&config, &c->config.j, c->config.path, false, &why);
    const cv_plan_opts o = { .type = -1, .quick = true };
    if (!st) st = cv_plan_make(&plan, c, &config.c, &o, &why);
    cv_plan_clear(&plan);
    vq_jw_bool(w, "convertible", st == VQ_OK);
    if (st) vq_jw_cstr(w, "problem", why.msg);
}

static void put_source(vq_jw *w, const cv_ckpt *c)
{
    char hex[65];
    vq_hex32(hex, c->sha256);
    vq_jw_open(w, "source", '{');
    vq_jw_cstr(w, "source", c->name);
    vq_jw_cstr(w, "source_sha256", hex);
    vq_jw_close(w, '}');
}

static void copy_key(char out[64], vq_str key)
{
    const size_t n = key.n < 63 ? key.n : 63;
    memcpy(out, key.p, n);
    out[n] = 0;
}

/* The keys of a GGUF file; of arrays how long they are. */
static void put_keys(vq_jw *w, const cv_gguf *g)
{
    vq_jw_open(w, "metadata", '{');
    for (size_t i = 0; i < g->n_key; i++) {
        const cv_gkey *k = &g->key[i];
        const vq_str text = cv_gkey_str(k);
        char key[64], length[40];
        uint64_t u;
        double d;
        bool b;
        copy_key(key, k->key);
        if (k->array) {
            snprintf(length, sizeof length, "%llu values", (unsigned long long)k->n);
            vq_jw_cstr(w, key, length);
        } else if (text.p) {
            vq_jw_str(w, key, text.p, text.n < 200 ? text.n : 200);
        } else if (cv_gkey_bool(k, &b)) {
            vq_jw_bool(w, key, b);
        } else if (cv_gkey_u64(k, 0, &u)) {
            vq_jw_u64(w, key, u);
        } else if (cv_gkey_f64(k, 0, &d)) {
            vq_jw_f64(w, key, d);
        }
    }
    vq_jw_close(w, '}');
}

static vq_status describe_checkpoint(vq_jw *w, const char *path, vq_err *e)
{
    cv_ckpt c;
    vq_status st = cv_ckpt_open(&c, path, e);
    if (st) return st;
    put_config(w, &c);
    put_files(w, c.shard, c.n_shard);
    st = put_template(w, &c, e);
    if (!st) {
        put_verdict(w, &c);
        put_source(w, &c);
        if (c.is_gguf) put_keys(w, &c.gguf);
    }
    cv_ckpt_close(&c);
    return st;
}

/* A file without a config beside it is only a list of tensors. */
static vq_status describe_file(vq_jw *w, const char *path, vq_err *e)
{
    cv_st s;
    const vq_status st = cv_st_open(&s, path, NULL, e);
    if (st) return st;
    put_files(w, &s, 1);
    vq_jw_open(w, "metadata", '{');
    for (size_t i = 0; i < s.n_meta; i++) {
        char key[64];
        copy_key(key, s.meta[i].key);
        vq_jw_str(w, key, s.meta[i].value.p, s.meta[i].value.n);
    }
    vq_jw_close(w, '}');
    cv_st_close(&s);
    return VQ_OK;
}

static bool has_config(const char *path)
{
    vq_buf b = { 0 };
    const char *slash = strrchr(path, '/');
    if (slash) vq_buf_add(&b, path, (size_t)(slash + 1 - path));
    vq_buf_str(&b, "config.json");
    const bool has = !b.oom && vq_is_regular(b.p);
    vq_buf_clear(&b);
    return has;
}

vq_status cv_describe(const char *path, vq_buf *json, vq_err *e)
{
    vq_jw w = { .b = json };
    vq_jw_open(&w, NULL, '{');
    const char *dot = strrchr(path, '.');
    const bool whole = vq_is_dir(path) || has_config(path) || (dot && !strcmp(dot, ".gguf"));
    const vq_status st = whole ? describe_checkpoint(&w, path, e) : describe_file(&w, path, e);
    vq_jw_close(&w, '}');
    if (!st && json->oom) return vq_fail(e, VQ_ENOMEM, "%s: out of memory", path);
    return st;
}
