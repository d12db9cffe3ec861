/* t_gguf.c - GGUF in: verdicts on damaged files, every block type against the reference's values,
 * and models that must give the containers of the checkpoints they were made from.
 *
 * The hashes of decoded blocks were made by gguf-py (dequantize) of llama.cpp's tree on the bytes
 * that test_blocks makes; they are SHA-256 of the floats. */
#define _GNU_SOURCE 1

#include "convert/checkpoint.h"
#include "convert/convert.h"
#include "convert/gguf_model.h"
#include "convert/plan.h"
#include "core/base/json.h"
#include "core/file/file.h"
#include "core/vaquita.h"
#include "tests/ckpt.h"
#include "tests/gguf.h"
#include "tests/test.h"

#include <sys/stat.h>
#include <unistd.h>

static char scratch[200], src[240], path[300], out[2][300];

static vq_status open_bytes(const void *p, size_t n, vq_err *e)
{
    cv_gguf g;
    cv_st s;
    T_OK(!vq_file_write_atomic(path, p, n, NULL), "%s", path);
    const vq_status st = cv_gguf_open(&g, &s, path, NULL, e);
    if (st) return st;
    for (size_t i = 0; i < s.n_tensor; i++) {
        const cv_tensor *t = &s.tensor[i];
        T_OK(t->off <= n && t->size <= n - t->off, "%.*s lies outside", (int)t->name.n, t->name.p);
    }
    cv_gguf_close(&g);
    cv_st_close(&s);
    return VQ_OK;
}

/* ---- verdicts ---- */

#define HEAD "GGUF 4:3 "
#define ARCH "s:general.architecture 4:8 s:llama "
#define ALIGN(n) "s:general.alignment 4:4 4:" n " "
#define ONE HEAD "8:1 8:2 " ARCH ALIGN("32")            /* one tensor follows */
#define KEY HEAD "8:0 8:1 "                             /* one key follows */
#define T0 "s:t0 4:2 8:8 8:4 4:0 8:0 a:32 i:128"        /* F32, 8 x 4 */

static void test_verdicts(void)
{
    static const struct { const char *file, *says; } cases[] = {
        /* accepted */
        { HEAD "8:0 8:0", NULL },
        { "GGUF 4:2 8:0 8:0", NULL },
        { HEAD "8:1 8:1 " ARCH T0, NULL },
        { ONE T0, NULL },
        { ONE T0 " i:32", NULL },
        { HEAD "8:1 8:1 " ALIGN("8") "s:t0 4:1 8:4 4:0 8:0 a:8 i:16", NULL },
        { HEAD "8:2 8:2 " ARCH ALIGN("32") "s:q8 4:2 8:64 8:2 4:8 8:0 s:q4 4:2 8:32 8:1 4:2 8:160 "
          "a:32 z:160 z:18", NULL },
        { HEAD "8:1 8:0 s:t0 4:1 8:256 4:16 8:0 a:32 z:66", NULL }, /* IQ2_XXS: sized, not read */
        { KEY "s:x 4:9 4:8 8:2 s:a s:bc", NULL },
        { KEY "s:x 4:9 4:4 8:0", NULL },
        /* refused */
        { "GGUF", "cut short" },
        { "GGUG 4:3 8:0 8:0", "not a GGUF" },
        { "GGUF 4:0 8:0 8:0", "no longer" },
        { "GGUF 4:1 8:0 8:0", "no longer" },
        { "GGUF 4:4 8:0 8:0", "newer" },
        { "GGUF 4:50331648 8:0 8:0", "big-endian" },
        { "vers ion z:9", "not a GGUF" },
        { HEAD "8:0 8:-1 z:64", "keys" },
        { HEAD "8:0 8:1000000000 z:64", "keys" },
        { HEAD "8:4294967296 8:0", "tensors" },
        { KEY "8:2147483648 z:32", "key of" },
        { KEY "8:0 z:32", "key of" },
        { KEY "8:70000 z:70000 4:4 4:0", "key of" },
        { KEY "s:x 4:-1 z:32", "unknown type" },
        { KEY "s:x 4:13 z:32", "unknown type" },
        { KEY "s:x 4:7 1:2", "truth" },
        { KEY "s:x 4:8 8:1048576 z:32", "cut short" },
        { KEY "s:x 4:8 8:-1 z:32", "cut short" },
        { KEY "s:x 4:9 4:10 8:2305843009213693952 z:8", "64 bits" },
        { KEY "s:x 4:9 4:10 8:2305843009213693951 z:8", "cut short" },
        { KEY "s:x 4:9 4:0 8:1000000000 z:8", "cut short" },
        { KEY "s:x 4:9 4:8 8:1000000000 z:8", "cut short" },
        { KEY "s:x 4:9 4:9 8:1 4:9 8:1 4:0 8:0", "array of arrays" },
        { HEAD "8:0 8:2 s:x 4:4 4:1 s:x 4:4 4:2", "twice" },
        { HEAD "8:1 8:2 " ARCH ALIGN("0") T0, "alignment" },
        { HEAD "8:1 8:2 " ARCH ALIGN("13") T0, "alignment" },
        { HEAD "8:1 8:2 " ARCH ALIGN("2147483648") T0, "alignment" },
        { HEAD "8:1 8:2 " ARCH "s:general.alignment 4:10 8:32 " T0, "alignment" },
        { ONE "8:64 z:64 4:2 8:8 8:4 4:0 8:0 a:32 i:128", "tensor name" },
        { ONE "s:t0 4:5 8:1 8:1 8:1 8:1 8:1 4:0 8:0 a:32 i:4", "dimensions" },
        { ONE "s:t0 4:0 4:0 8:0 a:32 i:4", "dimensions" },
        { ONE "s:t0 4:2 8:0 8:4 4:0 8:0 a:32 i:128", "dimension of 0" },
        { ONE "s:t0 4:2 8:4398046511104 8:4398046511104 4:0 8:0 a:32 i:128", "too large" },
        { ONE "s:t0 4:1 8:1152921504606846976 4:0 8:0 a:32 i:128", "too large" },
        { ONE "s:t0 4:1 8:72057594037927936 4:0 8:0 a:32 i:128", "cut short" },
        { ONE "s:t0 4:2 8:8 8:4 4:1000 8:0 a:32 i:128", "unknown type" },
        { ONE "s:t0 4:2 8:32 8:4 4:4 8:0 a:32 i:128", "unknown type" }, /* Q4_2, removed */
        { ONE "s:t0 4:2 8:33 8:4 4:2 8:0 a:32 i:128", "blocks" },
        { ONE "s:t0 4:2 8:8 8:4 4:0 8:-1 a:32 i:128", "aligned" },
        { ONE "s:t0 4:2 8:8 8:4 4:0 8:-32 a:32 i:128", "does not begin" },
        { ONE "s:t0 4:2 8:8 8:4 4:0 8:32 a:32 i:160", "does not begin" },
        { ONE "s:t0 4:2 8:8 8:4 4:0 8:0 a:32", "cut short" },
        { ONE "s:t0 4:2 8:8 8:4 4:0 8:0 a:32 i:127", "cut short" },
        { HEAD "8:2 8:1 " ARCH "s:a 4:1 8:8 4:0 8:0 s:a 4:1 8:8 4:0 8:32 a:32 i:64", "twice" },
        { HEAD "8:2 8:1 " ARCH "s:a 4:1 8:8 4:0 8:0 s:b 4:1 8:8 4:0 8:0 a:32 i:64",
          "does not begin" },
        /* keys of the wrong kind or range */
        { HEAD "8:0 8:2 " ARCH "s:llama.attention.head_count 4:4 4:0", "head_count" },
        { HEAD "8:0 8:2 " ARCH "s:llama.rope.freq_base 4:8 s:x", "freq_base" },
        { KEY "s:general.architecture 4:4 4:1", "architecture" },
        { HEAD "8:0 8:2 s:tokenizer.ggml.tokens 4:9 4:8 8:2 s:a s:b "
          "s:tokenizer.ggml.bos_token_id 4:4 4:2", "bos_token_id" },
        { HEAD "8:0 8:2 s:tokenizer.ggml.tokens 4:9 4:8 8:2 s:a s:b "
          "s:tokenizer.ggml.eos_token_id 4:5 4:-2", "eos_token_id" },
        { HEAD "8:0 8:2 s:tokenizer.ggml.tokens 4:9 4:8 8:2 s:a s:b "
          "s:tokenizer.ggml.scores 4:9 4:0 8:2 1:0 1:0", "scores" },
        { HEAD "8:0 8:2 s:tokenizer.ggml.tokens 4:9 4:8 8:2 s:a s:b "
          "s:tokenizer.ggml.token_type 4:9 4:5 8:1 4:1", "token_type" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        vq_buf b = { 0 };
        vq_err e = { 0 };
        gg_words(&b, cases[i].file);
        const vq_status st = open_bytes(b.p, b.n, &e);
        if (cases[i].says) {
            T_OK(st == VQ_EFORMAT && strstr(e.msg, cases[i].says), "%s: wanted \"%s\": %d %s",
                 cases[i].file, cases[i].says, st, e.msg);
        } else {
            T_OK(st == VQ_OK, "%s: %s", cases[i].file, e.msg);
        }
        vq_buf_clear(&b);
    }
}

/* 2000 arrays in each other: nothing may recurse. */
static void test_nesting(void)
{
    vq_buf b = { 0 };
    vq_err e = { 0 };
    gg_words(&b, KEY "s:x 4:9");
    for (int i = 0; i < 2000; i++) gg_words(&b, "4:9 8:1");
    gg_words(&b, "4:0 8:0");
    T_OK(open_bytes(b.p, b.n, &e) == VQ_EFORMAT, "nested");
    vq_buf_clear(&b);
}

/* The collection beside the tree, a line of JSON per file; accept: true, false, null (either). */
static void test_manifest(void)
{
    char name[600], dir[512];
    snprintf(dir, sizeof dir, "%s/data/robustness/gguf-malformed", t_shared());
    snprintf(name, sizeof name, "%s/manifest.jsonl", dir);
    vq_buf text = { 0 };
    if (!vq_is_regular(name) || vq_file_read(name, 1 << 20, &text, NULL)) {
        T_SKIP("gguf-malformed: %s is not there", name);
        return;
    }
    int n = 0;
    for (char *line = text.p; line && *line;) {
        char *end = strchr(line, '\n');
        const size_t len = end ? (size_t)(end - line) : strlen(line);
        vq_json j;
        vq_err e = { 0 };
        cv_gguf g;
        cv_st s;
        T_OK(!vq_json_parse(&j, line, len, "manifest", &e), "%s", e.msg);
        const vq_str file = vq_json_str(&j, vq_json_get(&j, 0, "file"));
        const uint32_t accept = vq_json_get(&j, 0, "accept");
        snprintf(name, sizeof name, "%s/%.*s", dir, (int)file.n, file.p);
        const vq_status st = cv_gguf_open(&g, &s, name, NULL, &e);
        if (!st) {
            cv_gguf_close(&g);
            cv_st_close(&s);
        }
        bool want;
        if (vq_json_bool(&j, accept, &want)) {
            T_OK(want ? st == VQ_OK : st == VQ_EFORMAT, "%s: %d %s", name, st, e.msg);
        } else {
            T_OK(st == VQ_OK || st == VQ_EFORMAT, "%s: %d %s", name, st, e.msg);
        }
        vq_json_clear(&j);
        n++;
        line = end ? end + 1 : NULL;
    }
    T_OK(n > 30, "only %d files", n);
    vq_buf_clear(&text);
}

/* ---- values ---- */

static void test_blocks(void)
{
    static const struct { const char *name; int high[2]; const char *hash; } cases[] = {
#include "tests/data/golden/gguf_blocks.inc"
    };
    enum { BLOCKS = 64 };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        const cv_gtype_info *t = NULL;
        for (uint64_t id = 0; id < 64 && !t; id++) {
            t = cv_gtype_find(id);
            if (t && strcmp(t->name, cases[c].name) != 0) t = NULL;
        }
        T_OK(t && cv_gtype_of(t->dtype) == t && cv_dtype_block(t->dtype) == t->block, "%s",
             cases[c].name);
        if (!t) continue;
        static uint8_t bytes[1 + BLOCKS * 256];
        static float v[BLOCKS * 256];
        uint8_t *b = bytes + 1; /* no alignment is promised */
        uint32_t r = 2463534242u;
        for (int i = 0; i < BLOCKS * t->bytes; i++) {
            r ^= r << 13;
            r ^= r >> 17;
            r ^= r << 5;
            const int at = i % t->bytes;
            b[i] = (uint8_t)(r >> 24);
            /* f16 scales are finite, the power of two is one */
            if (at == cases[c].high[0] || at == cases[c].high[1]) b[i] &= 0xbf;
            if (t->dtype == CV_MXFP4 && at == 0) b[i] %= 255;
        }
        const size_t n = BLOCKS * (size_t)t->block;
        T_OK(cv_row_bytes(t->dtype, n) == (size_t)BLOCKS * t->bytes, "%s: bytes", t->name);
        cv_decode(v, t->dtype, b, n);
        vq_sha256 s;
        uint8_t h[32];
        char hex[65];
        vq_sha256_init(&s, NULL);
        vq_sha256_add(&s, v, n * sizeof *v);
        vq_sha256_end(&s, h);
        vq_hex32(hex, h);
        T_OK(!strcmp(hex, cases[c].hash), "%s: %s", t->name, hex);
    }
    float nan;
    const uint8_t e255[17] = { 255 };
    float v[32];
    cv_decode(v, CV_MXFP4, e255, 32);
    nan = v[0];
    T_OK(nan != nan, "an exponent of 255 is not a number");
}

static void test_values(void)
{
    vq_buf b = { 0 };
    vq_err e = { 0 };
    cv_gguf g;
    cv_st s;
    uint64_t u;
    double d;
    bool f;
    gg_words(&b, HEAD "8:0 8:9 s:u8 4:0 1:200 s:i8 4:1 1:-3 s:i16 4:3 2:-300 s:u64 4:10 8:-1 "
             "s:f32 4:6 4:1069547520 s:f64 4:12 8:-4616189618054758400 s:yes 4:7 1:1 s:t 4:8 s:abc "
             "s:list 4:9 4:5 8:2 4:7 4:-8");
    T_OK(!vq_file_write_atomic(path, b.p, b.n, NULL), "write");
    T_OK(!cv_gguf_open(&g, &s, path, NULL, &e), "%s", e.msg);
    T_OK(cv_gkey_u64(cv_gguf_find(&g, "u8"), 0, &u) && u == 200, "u8");
    T_OK(!cv_gkey_u64(cv_gguf_find(&g, "i8"), 0, &u), "a negative number is no u64");
    T_OK(cv_gkey_f64(cv_gguf_find(&g, "i8"), 0, &d) && d == -3, "i8");
    T_OK(cv_gkey_f64(cv_gguf_find(&g, "i16"), 0, &d) && d == -300, "i16");
    T_OK(cv_gkey_u64(cv_gguf_find(&g, "u64"), 0, &u) && u == UINT64_MAX, "u64");
    T_OK(cv_gkey_f64(cv_gguf_find(&g, "u64"), 0, &d) && d == 18446744073709551616.0, "u64");
    T_OK(cv_gkey_f64(cv_gguf_find(&g, "f32"), 0, &d) && d == 1.5, "f32");
    T_OK(cv_gkey_f64(cv_gguf_find(&g, "f64"), 0, &d) && d == -1, "f64");
    T_OK(!cv_gkey_u64(cv_gguf_find(&g, "f32"), 0, &u), "a float is no u64");
    T_OK(cv_gkey_bool(cv_gguf_find(&g, "yes"), &f) && f, "bool");
    T_OK(!cv_gkey_bool(cv_gguf_find(&g, "u8"), &f), "a number is no bool");
    T_OK(vq_str_eq(cv_gkey_str(cv_gguf_find(&g, "t")), "abc"), "text");
    T_OK(!cv_gkey_str(cv_gguf_find(&g, "u8")).p && !cv_gguf_find(&g, "none"), "no text, no key");
    T_OK(cv_gkey_u64(cv_gguf_find(&g, "list"), 0, &u) && u == 7, "list");
    T_OK(cv_gkey_f64(cv_gguf_find(&g, "list"), 1, &d) && d == -8, "list");
    T_OK(!cv_gkey_u64(cv_gguf_find(&g, "list"), 2, &u), "beyond the list");
    cv_gguf_close(&g);
    cv_st_close(&s);
    vq_buf_clear(&b);
}

/* ---- names ---- */

static void test_names(void)
{
    static const struct { const char *checkpoint, *gguf; } cases[] = {
        { "model.embed_tokens.weight", "token_embd.weight" },
        { "model.norm.weight", "output_norm.weight" },
        { "lm_head.weight", "output.weight" },
        { "model.layers.0.self_attn.q_proj.bias", "blk.0.attn_q.bias" },
        { "model.layers.79.self_attn.o_proj.weight", "blk.79.attn_output.weight" },
        { "model.layers.7.post_attention_layernorm.weight", "blk.7.ffn_norm.weight" },
        { "model.layers.7.mlp.down_proj.weight", "blk.7.ffn_down.weight" },
    };
    static const char *const none[] = {
        "", "weight", ".weight", "attn_q.weight", "blk..attn_q.weight", "blk.1.attn_q",
        "blk.1.attn_q.scale", "blk.1", "blk.1.", "blk.123456.attn_q.weight", "token_embd",
        "blk.1.token_embd.weight", "rope_freqs.weight",
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        vq_buf a = { 0 }, b = { 0 };
        const vq_str own = cv_canonical(vq_str_c(cases[i].checkpoint));
        T_OK(cv_gguf_name(&a, vq_str_c(cases[i].checkpoint)) && !strcmp(a.p, cases[i].gguf), "%s",
             cases[i].checkpoint);
        T_OK(cv_checkpoint_name(&b, vq_str_c(cases[i].gguf)) && !strcmp(b.p, own.p), "%s",
             cases[i].gguf);
        vq_buf_clear(&a);
        vq_buf_clear(&b);
    }
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        vq_buf a = { 0 };
        T_OK(!cv_checkpoint_name(&a, vq_str_c(none[i])), "%s", none[i]);
        vq_buf_clear(&a);
    }
}

/* ---- models ---- */

/* Tensors of k as llama.cpp's converter writes them: matrices in `type` (0 F32, 1 F16), vectors
 * F32; of a llama model rows of q and k in pairs.  Tensor i goes to part i % parts. */
static void put_tensors(gg *g, const ck *k, bool llama, uint32_t type, int part, int parts)
{
    for (int i = 0; i < k->n; i++) {
        const ck_tensor *t = &k->t[i];
        vq_buf name = { 0 }, data = { 0 };
        if (t->file || i % parts != part) continue;
        T_OK(cv_gguf_name(&name, vq_str_c(t->name)), "%s", t->name);
        const int head = CK_HIDDEN / 2;
        const bool pairs = llama && (strstr(t->name, "q_proj.w") || strstr(t->name, "k_proj.w"));
        for (int r = 0; r < (t->rows ? t->rows : 1); r++) {
            const int in = r % head;
            const int from = pairs ? r - in + (in % 2 ? head / 2 : 0) + in / 2 : r;
            for (int c = 0; c < t->cols; c++) {
                const float v = t->v[from * t->cols + c];
                const uint16_t h = q_f32_to_f16(v);
                if (type && t->rows) vq_buf_add(&data, &h, 2);
                else vq_buf_add(&data, &v, 4);
            }
        }
        gg_tensor(g, name.p, t->rows ? type : 0, t->rows, t->cols, data.p, data.n);
        vq_buf_clear(&name);
        vq_buf_clear(&data);
    }
}

/* Keys of the model of ckpt.h. */
static void put_keys(gg *g, const char *arch)
{
    static const struct { const char *key; uint32_t v; } ints[] = {
        { "block_count", CK_LAYERS }, { "embedding_length", CK_HIDDEN },
        { "feed_forward_length", CK_INTER }, { "attention.head_count", 2 },
        { "attention.head_count_kv", 1 }, { "context_length", 512 },
    };
    char key[80];
    gg_key_str(g, "general.architecture", arch);
    for (size_t i = 0; i < sizeof ints / sizeof ints[0]; i++) {
        snprintf(key, sizeof key, "%s.%s", arch, ints[i].key);
        gg_key_int(g, key, ints[i].v);
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", arch);
    gg_key_real(g, key, 1e-6f);
    gg_key_int(g, "tokenizer.ggml.bos_token_id", 1);
    gg_key_int(g, "tokenizer.ggml.eos_token_id", 2);
}

static vq_status convert(const char *from, int which, int type, vq_err *e)
{
    cv_report r = { 0 };
    *e = (vq_err){ 0 };
    const cv_opts o = { .src = from, .out = out[which], .type = type, .threads = 2, .force = true };
    const vq_status st = cv_convert(&o, &r, e);
    cv_report_clear(&r);
    return st;
}

static vq_file *open_out(int which)
{
    vq_file *f;
    vq_err e = { 0 };
    T_OK(!vq_file_open(&f, out[which], NULL, &e), "%s", e.msg);
    return f;
}

/* Everything but metadata and hashes. */
static void same_containers(const char *what)
{
    vq_file *a = open_out(0), *b = open_out(1);
    if (a && b) {
        T_OK(!memcmp(a->config, b->config, sizeof *a->config), "%s: config", what);
        T_OK(!memcmp(a->rope, b->rope, a->config->rope_dim / 2 * sizeof *a->rope), "%s: rope",
             what);
        T_OK(a->tokenizer_size == b->tokenizer_size &&
             (!a->tokenizer || !memcmp(a->tokenizer, b->tokenizer, a->tokenizer_size)),
             "%s: tokenizer", what);
        T_OK(a->header->body_size == b->header->body_size &&
             !memcmp(a->map.p + a->header->body_off, b->map.p + b->header->body_off,
                     (size_t)a->header->body_size), "%s: weights", what);
    }
    vq_file_close(a);
    vq_file_close(b);
}

static void put_file_as(gg *g, const char *name)
{
    vq_buf b = { 0 };
    gg_file(&b, g);
    T_OK(!b.oom && !vq_file_write_atomic(name, b.p, b.n, NULL), "%s", name);
    vq_buf_clear(&b);
}

static void put_file(gg *g) { put_file_as(g, path); }

static void make_llama(ck *k)
{
    ck_make(k);
    for (int i = 0; i < k->n; i++) {
        if (strstr(k->t[i].name, ".bias")) k->t[i].file = -1;
    }
    snprintf(k->config, sizeof k->config,
             "{\"model_type\":\"llama\",\"hidden_size\":%d,\"num_hidden_layers\":%d,"
             "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"intermediate_size\":%d,"
             "\"vocab_size\":%d,\"max_position_embeddings\":512,\"rms_norm_eps\":1e-6,"
             "\"bos_token_id\":1,\"eos_token_id\":2}", CK_HIDDEN, CK_LAYERS, CK_INTER, CK_VOCAB);
}

static void test_models(void)
{
    for (int llama = 0; llama < 2; llama++) {
        ck k;
        vq_err e;
        gg g = { .n_key = 0 };
        if (llama) make_llama(&k);
        else ck_make(&k);
        ck_empty(src);
        T_OK(!ck_write(&k, src), "write");
        T_OK(!convert(src, 0, Q_F32, &e), "%s", e.msg);
        for (uint32_t type = 0; type < 2; type++) {
            put_keys(&g, llama ? "llama" : "qwen2");
            put_tensors(&g, &k, llama, type, 0, 1);
            put_file(&g);
            T_OK(!convert(path, 1, Q_F32, &e), "%s", e.msg);
            same_containers(llama ? "llama" : "qwen2");
        }
        /* A head that is left out is the embedding. */
        ck_find(&k, "lm_head.weight")->file = -1;
        char *tie = strstr(k.config, "\"bos_token_id\"");
        memmove(tie + 27, tie, strlen(tie) + 1);
        memcpy(tie, "\"tie_word_embeddings\":true,", 27);
        T_OK(!ck_write(&k, src) && !convert(src, 0, Q_F32, &e), "%s", e.msg);
        put_keys(&g, llama ? "llama" : "qwen2");
        put_tensors(&g, &k, llama, 0, 0, 1);
        put_file(&g);
        T_OK(!convert(path, 1, Q_F32, &e), "%s", e.msg);
        same_containers("tied");
        ck_free(&k);
    }
}

static void test_split(void)
{
    ck k;
    vq_err e;
    char part[3][320];
    ck_make(&k);
    ck_empty(src);
    T_OK(!ck_write(&k, src) && !convert(src, 0, Q_L8, &e), "%s", e.msg);
    for (int i = 0; i < 3; i++) {
        gg g = { .n_key = 0 };
        snprintf(part[i], sizeof part[i], "%s/x-0000%d-of-00003.gguf", src, i + 1);
        if (i == 0) put_keys(&g, "qwen2");
        gg_key_int(&g, "split.no", (uint32_t)i);
        gg_key_int(&g, "split.count", 3);
        put_tensors(&g, &k, false, 0, i, 3);
        put_file_as(&g, part[i]);
    }
    for (int i = 0; i < 3; i++) {
        T_OK(!convert(part[i], 1, Q_L8, &e), "%s", e.msg);
        same_containers("split");
    }
    vq_file *f = open_out(1);
    T_OK(f && vq_str_eq(vq_file_meta(f, "name"), "x"), "the name is without the number");
    vq_file_close(f);
    /* The second part in the place of the third; and none there. */
    T_OK(!vq_rename(part[1], part[2], &e), "%s", e.msg);
    T_OK(convert(part[0], 1, Q_L8, &e) == VQ_EFAIL && strstr(e.msg, "00002-of"), "%s", e.msg);
    T_OK(!ck_put(src, "x-00002-of-00003.gguf", "GGUF\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24),
         "write");
    T_OK(convert(part[0], 1, Q_L8, &e) == VQ_EFORMAT && strstr(e.msg, "part 1 of 1"), "%s", e.msg);
    ck_free(&k);
}

/* One row per type: what auto makes of it, and that a file in it converts at all. */
static void test_nearest(void)
{
    static const struct { const char *type; int near; } cases[] = {
        { "F32", -1 }, { "F16", -1 }, { "BF16", -1 }, { "Q2_K", Q_N4 }, { "Q3_K", Q_N4 },
        { "Q4_0", Q_L6 }, { "Q4_1", Q_L6 }, { "Q4_K", Q_L6 }, { "Q5_0", Q_L6 }, { "Q5_1", Q_L6 },
        { "Q5_K", Q_L6 }, { "Q6_K", Q_L6 }, { "IQ4_NL", Q_N4 }, { "IQ4_XS", Q_N4 },
        { "MXFP4", Q_L6 }, { "Q8_0", Q_L8 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (int d = 0; d < CV_OTHER; d++) {
            const cv_gtype_info *t = cv_gtype_of((cv_dtype)d);
            if (!t || strcmp(t->name, cases[i].type) != 0) continue;
            T_OK(cv_nearest_type((cv_dtype)d) == cases[i].near, "%s", t->name);
        }
    }
    /* A model whose gate is Q4_0 and whose up is Q8_0: the finer asks. */
    ck k;
    vq_err e;
    gg g = { .n_key = 0 };
    ck_make(&k);
    put_keys(&g, "qwen2");
    for (int i = 0; i < k.n; i++) {
        const ck_tensor *t = &k.t[i];
        vq_buf name = { 0 };
        static uint8_t zeros[4 * CK_HIDDEN * CK_HIDDEN];
        const uint32_t id = !t->rows || strstr(t->name, "down") ? 0 :
                            strstr(t->name, "gate") ? 2 : strstr(t->name, "up") ? 8 : 20;
        const cv_gtype_info *type = cv_gtype_find(id);
        const size_t n = (size_t)(t->rows ? t->rows : 1) * (size_t)t->cols;
        cv_gguf_name(&name, vq_str_c(t->name));
        gg_tensor(&g, name.p, id, t->rows, t->cols, zeros, cv_row_bytes(type->dtype, n));
        vq_buf_clear(&name);
    }
    put_file(&g);
    T_OK(!convert(path, 1, -1, &e), "%s", e.msg);
    vq_file *f = open_out(1);
    const vaq_tensor *pair = f ? vq_file_find(f, VAQ_GATE_UP, 0, -1) : NULL;
    const vaq_tensor *q = f ? vq_file_find(f, VAQ_Q, 0, -1) : NULL;
    const vaq_tensor *down = f ? vq_file_find(f, VAQ_DOWN, 0, -1) : NULL;
    T_OK(pair && pair->type == Q_L8 && q && q->type == Q_N4 && down && down->type == Q_L6, "types");
    const vq_str recipe = f ? vq_file_meta(f, "recipe") : (vq_str){ NULL, 0 };
    T_OK(vq_str_has(recipe, "n4 for IQ4_NL, l6 for Q4_0, l8 for Q8_0"), "%.*s", (int)recipe.n,
         recipe.p);
    vq_file_close(f);
    ck_free(&k);
}

/* ---- rope ---- */

static void config_of(gg *g, cv_config *c, vq_status want, const char *says)
{
    cv_ckpt k;
    vq_err e = { 0 };
    put_file(g);
    *c = (cv_config){ 0 };
    T_OK(!cv_ckpt_open(&k, path, &e), "%s", e.msg);
    vq_status st = cv_config_read(c, &k.config.j, k.config.path, false, &e);
    const cv_tensor *f = cv_ckpt_find(&k, "rope_freqs.weight");
    if (!st && f) st = cv_gguf_rope(c, f, &e);
    T_OK(st == want && (!says || strstr(e.msg, says)), "wanted %s: %s", says ? says : "ok", e.msg);
    cv_ckpt_close(&k);
}

static void test_rope(void)
{
    static const float divisors[8] = { 1, 1, 1, 1.5f, 2, 4, 8, 8 };
    static const uint8_t zeros[4 * CK_VOCAB * CK_HIDDEN];
    cv_config plain, c;
    gg g = { .n_key = 0 };
#define START() (put_keys(&g, "llama"), \
                 gg_tensor(&g, "token_embd.weight", 0, CK_VOCAB, CK_HIDDEN, zeros, sizeof zeros))
    START();
    config_of(&g, &plain, VQ_OK, NULL);
    START();
    gg_tensor(&g, "rope_freqs.weight", 0, 0, 8, divisors, sizeof divisors);
    config_of(&g, &c, VQ_OK, NULL);
    for (int i = 0; i < 8; i++) {
        T_OK(c.rope[i] == plain.rope[i] / (double)divisors[i], "divisor %d", i);
    }
    START();
    gg_tensor(&g, "rope_freqs.weight", 0, 0, 7, divisors, 7 * sizeof *divisors);
    config_of(&g, &c, VQ_EFORMAT, "rope_freqs.weight");
    START();
    gg_tensor(&g, "rope_freqs.weight", 0, 0, 8, zeros, sizeof divisors);
    config_of(&g, &c, VQ_EFORMAT, "at least 1");
    START();
    gg_key_str(&g, "llama.rope.scaling.type", "yarn");
    gg_key_real(&g, "llama.rope.scaling.factor", 4);
    gg_key_int(&g, "llama.rope.scaling.original_context_length", 128);
    gg_key_real(&g, "llama.rope.scaling.attn_factor", 0.5f);
    config_of(&g, &c, VQ_OK, NULL);
    T_OK(c.yarn && c.c.rope_mult > 0.569 && c.c.rope_mult < 0.57, "yarn: %g", c.c.rope_mult);
    T_OK(c.rope[7] == plain.rope[7] / 4 && c.rope[0] == plain.rope[0], "yarn: frequencies");
    START();
    gg_key_real(&g, "llama.rope.scaling.factor", 4); /* without a type: linear, says llama.cpp */
    config_of(&g, &c, VQ_EFORMAT, "linear");
    START();
    gg_key_str(&g, "llama.rope.scaling.type", "longrope");
    config_of(&g, &c, VQ_EFORMAT, "longrope");
    put_keys(&g, "llama");
    gg_key_int(&g, "llama.attention.key_length", 16);
    gg_key_int(&g, "llama.rope.dimension_count", 8);
    gg_tensor(&g, "token_embd.weight", 0, CK_VOCAB, CK_HIDDEN, zeros, sizeof zeros);
    config_of(&g, &c, VQ_EFORMAT, "partial_rotary_factor");
#undef START
}

/* ---- tokenizer and template ---- */

static const char *const words[] = {
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "b", "\xc4\xa0", "ab", "\xc4\xa0" "a",
    "[PAD8]", "[PAD9]",
};
static const int32_t word_types[] = { 3, 3, 3, 1, 1, 1, 1, 1, 5, 4 };
static const char *const merges[] = { "a b", "\xc4\xa0 a" };
static const char tmpl[] = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n'"
                           " + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}";

static void test_text(void)
{
    ck k;
    vq_err e;
    gg g = { .n_key = 0 };
    ck_make(&k);
    ck_empty(src);
    T_OK(!ck_write(&k, src) && !ck_put_text(src, "tokenizer.json",
        "{\"added_tokens\":[{\"id\":0,\"content\":\"<|endoftext|>\"},"
        "{\"id\":1,\"content\":\"<|im_start|>\"},{\"id\":2,\"content\":\"<|im_end|>\"}],"
        "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\","
        "\"individual_digits\":true},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
        "\"use_regex\":true}]},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":3,\"b\":4,"
        "\"\\u0120\":5,\"ab\":6,\"\\u0120a\":7},\"merges\":[\"a b\",\"\\u0120 a\"]}}"), "write");
    vq_buf cfg = { 0 };
    vq_buf_str(&cfg, "{\"bos_token\":\"<|im_start|>\",\"eos_token\":\"<|im_end|>\","
               "\"chat_template\":");
    vq_buf_json(&cfg, tmpl, sizeof tmpl - 1);
    vq_buf_char(&cfg, '}');
    T_OK(!ck_put_text(src, "tokenizer_config.json", cfg.p), "write");
    vq_buf_clear(&cfg);
    T_OK(!convert(src, 0, Q_F32, &e), "%s", e.msg);

    for (int bad = 0; bad < 5; bad++) {
        const char *w[10];
        memcpy(w, words, sizeof w);
        if (bad == 3) w[3] = "\xff";
        put_keys(&g, "qwen2");
        gg_key_str(&g, "tokenizer.ggml.model", bad == 1 ? "llama" : "gpt2");
        gg_key_str(&g, "tokenizer.ggml.pre", bad == 2 ? "default" : "smollm");
        gg_key_strs(&g, "tokenizer.ggml.tokens", w, 10);
        gg_key_ints(&g, "tokenizer.ggml.token_type", word_types, 10);
        gg_key_strs(&g, "tokenizer.ggml.merges", bad == 4 ? words : merges, 2);
        gg_key_str(&g, "tokenizer.chat_template", tmpl);
        gg_key_str(&g, "general.license", "mit");
        put_tensors(&g, &k, false, 0, 0, 1);
        put_file(&g);
        static const char *const says[] = { "", "\"llama\"", "\"default\"", "UTF-8", "not a pair" };
        const vq_status st = convert(path, 1, Q_F32, &e);
        T_OK(st == (bad ? VQ_EFORMAT : VQ_OK) && strstr(e.msg, says[bad]), "%d: %s", bad, e.msg);
        T_OK(!bad || strstr(e.msg, "--no-tokenizer"), "%d: says the way out: %s", bad, e.msg);
        if (bad) continue;
        same_containers("with tokenizer");
        vq_file *f = open_out(1);
        T_OK(f && f->config->n_ids == 8 && f->config->template_id == VAQ_TPL_CHATML, "text");
        T_OK(f && vq_str_eq(vq_file_meta(f, "licence"), "mit"), "licence");
        vq_file_close(f);
    }
    ck_free(&k);
}

/* ---- models that are refused ---- */

static void test_refused(void)
{
    static const uint8_t zeros[1 << 14]; /* more than the largest tensor has */
    ck k;
    vq_err e;
    gg g = { .n_key = 0 };
    ck_make(&k);
    put_keys(&g, "gemma2");
    put_file(&g);
    T_OK(convert(path, 1, Q_F32, &e) == VQ_EFORMAT && strstr(e.msg, "gemma2"), "%s", e.msg);
    put_keys(&g, "qwen2");
    put_tensors(&g, &k, false, 0, 0, 1);
    gg_tensor(&g, "blk.0.attn_sinks.weight", 0, 0, 8, zeros, 32);
    put_file(&g);
    T_OK(convert(path, 1, Q_F32, &e) == VQ_EFORMAT && strstr(e.msg, "attn_sinks"), "%s", e.msg);
    put_keys(&g, "qwen2");
    put_tensors(&g, &k, false, 0, 0, 2); /* every other one */
    put_file(&g);
    T_OK(convert(path, 1, Q_F32, &e) == VQ_EFORMAT && strstr(e.msg, "missing"), "%s", e.msg);
    put_keys(&g, "qwen2");
    for (int i = 0; i < k.n; i++) {
        vq_buf name = { 0 };
        const ck_tensor *t = &k.t[i];
        const bool odd = strstr(t->name, "embed") != NULL;
        cv_gguf_name(&name, vq_str_c(t->name));
        gg_tensor(&g, name.p, odd ? 26 : 0, t->rows, t->cols, zeros,
                  4 * (size_t)(t->rows ? t->rows : 1) * (size_t)t->cols);
        vq_buf_clear(&name);
    }
    put_file(&g);
    T_OK(convert(path, 1, Q_F32, &e) == VQ_EFORMAT && strstr(e.msg, "I32"), "%s", e.msg);
    ck_free(&k);
}

/* ---- every cut and every changed byte of a header ---- */

static void test_damage(void)
{
    ck k;
    gg g = { .n_key = 0 };
    vq_buf all = { 0 };
    ck_make(&k);
    put_keys(&g, "qwen2");
    gg_key_str(&g, "tokenizer.ggml.model", "gpt2");
    gg_key_str(&g, "tokenizer.ggml.pre", "smollm");
    gg_key_strs(&g, "tokenizer.ggml.tokens", words, 10);
    gg_key_ints(&g, "tokenizer.ggml.token_type", word_types, 10);
    gg_key_strs(&g, "tokenizer.ggml.merges", merges, 2);
    const size_t head = 24 + g.key.n;
    put_tensors(&g, &k, false, 0, 0, 1);
    gg_file(&all, &g);
    const size_t step = getenv("VQ_QUICK") ? 7 : 1;
    for (size_t n = 0; n < head + 100; n += step) {
        vq_err e = { 0 };
        const vq_status st = open_bytes(all.p, n, &e);
        T_OK(st == VQ_EFORMAT, "cut at %zu: %d", n, st);
    }
    char *copy = vq_malloc(all.n);
    for (size_t i = 0; i < head + 100; i += step) {
        vq_err e = { 0 };
        cv_report r = { 0 };
        memcpy(copy, all.p, all.n);
        copy[i] = (char)(copy[i] ^ (1 << i % 8));
        T_OK(!vq_file_write_atomic(path, copy, all.n, NULL), "write");
        const cv_opts o = { .src = path, .type = Q_N4, .dry_run = true };
        const vq_status st = cv_convert(&o, &r, &e);
        T_OK(st == VQ_OK || st == VQ_EFORMAT, "byte %zu: %d %s", i, st, e.msg);
        cv_report_clear(&r);
    }
    vq_free(copy);
    vq_buf_clear(&all);
    ck_free(&k);
}

int main(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(scratch, sizeof scratch, "%s/vq_gguf_XXXXXX", tmp && *tmp ? tmp : "/tmp");
    T_OK(mkdtemp(scratch) != NULL, "scratch folder");
    snprintf(src, sizeof src, "%s/src", scratch);
    snprintf(path, sizeof path, "%s/m.gguf", scratch);
    for (int i = 0; i < 2; i++) snprintf(out[i], sizeof out[i], "%s/%d.vaq", scratch, i);
    T_OK(!mkdir(src, 0700), "folder");
    test_verdicts();
    test_nesting();
    test_manifest();
    test_blocks();
    test_values();
    test_names();
    test_models();
    test_split();
    test_nearest();
    test_rope();
    test_text();
    test_refused();
    test_damage();
    ck_empty(src);
    ck_empty(scratch);
    rmdir(src);
    rmdir(scratch);
    return t_done("t_gguf");
}
