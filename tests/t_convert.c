/* t_convert.c - checkpoints into containers: the same bytes for any number of threads and on every
 * machine, every way a folder can hold the same model, and every way it can be wrong.
 *
 * Goldens are SHA-256 of the body, and of config and rope table; metadata carry the version of the
 * program and are left out.  A hash changes only with the encoder (enc), the recipe or the layout;
 * then VQ_REMAKE=1 prints the new lines. */
#define _GNU_SOURCE 1

#include "convert/convert.h"

#include "convert/plan.h"
#include "core/base/json.h"
#include "core/file/file.h"
#include "tests/conv.h"
#include "tests/temp.h"
#include "tests/test.h"

#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- goldens ---- */

static bool quick; /* VQ_QUICK: an emulator or a sanitizer takes its time */

static const struct { const char *model; int type; const char *hash; } goldens[] = {
#include "tests/data/golden/convert.inc"
};

static void test_goldens(void)
{
    for (size_t i = 0; i < sizeof goldens / sizeof goldens[0]; i++) {
        char dir[256], hex[65];
        uint8_t root[32] = { 0 };
        int n = 0;
        snprintf(dir, sizeof dir, "tests/data/models/%s", goldens[i].model);
        const q_typeinfo *t = q_type_info(goldens[i].type);
        const char *type = t ? t->name : "auto";
        /* All thread counts on a dense model and one with experts. */
        const bool few = quick || (strcmp(goldens[i].model, "tiny-r1-qwen") != 0 &&
                                   strcmp(goldens[i].model, "tiny-r1-fp8") != 0);
        for (int threads = few ? 3 : 1; threads <= 3; threads++) {
            cv_report r;
            vq_err e;
            const cv_opts o = { .src = dir, .type = goldens[i].type, .threads = threads };
            T_OK(!convert(&o, &r, &e), "%s", e.msg);
            T_OK(r.bytes == vq_file_size(out) && r.n_tensor > 0 && r.params > 0, "report");
            if (!n++) memcpy(root, r.root, 32);
            T_OK(!memcmp(root, r.root, 32), "%s %s: %d threads, other bytes", dir, type, threads);
            cv_report_clear(&r);
        }
        hash_container(hex, out);
        T_OK(!strcmp(hex, goldens[i].hash), "%s %s: %s", dir, type, hex);
        if (getenv("VQ_REMAKE")) {
            printf("    { \"%s\", %d,\n      \"%s\" },\n", goldens[i].model, goldens[i].type, hex);
        }
    }
}

/* ---- content ---- */

static const vaq_tensor *tensor(const vq_file *f, vaq_role role, int layer)
{
    const vaq_tensor *t = vq_file_find(f, role, layer, -1);
    T_OK(t != NULL, "role %d", role);
    return t;
}

/* Row `row` of the container's matrix is row `from` of the checkpoint's tensor; -1: zeros. */
static void same_row(const vq_file *f, const vaq_tensor *t, uint32_t row, const ck_tensor *c,
                     int from)
{
    float v[64];
    const int k = (int)t->cols;
    const uint8_t *group = (const uint8_t *)vq_file_data(f, t) +
                           row / 16 * q_group_bytes(t->type, k);
    q_decode_row(t->type, v, group, (int)(row % 16), k);
    bool same = true;
    for (int i = 0; i < k; i++) same &= v[i] == (from < 0 ? 0 : c->v[from * k + i]);
    T_OK(same, "%s: row %u", c->name, row);
}

static void test_content(void)
{
    ck k;
    ck_make(&k);
    ck_empty(src);
    T_OK(!ck_write(&k, src), "write");
    cv_report r;
    vq_err e;
    T_OK(!convert(&(cv_opts){ .type = Q_F32 }, &r, &e), "%s", e.msg);
    cv_report_clear(&r);
    vq_file *f;
    T_OK(!vq_file_open(&f, out, NULL, &e), "%s", e.msg);
    if (!f) return;
    const vaq_tensor *t = tensor(f, VAQ_EMBED, -1);
    for (uint32_t i = 0; i < CK_VOCAB; i++) {
        same_row(f, t, i, ck_find(&k, "model.embed_tokens.weight"), (int)i);
    }
    for (int l = 0; l < CK_LAYERS; l++) {
        char gate[64], up[64], down[64], bias[64];
        snprintf(gate, sizeof gate, "model.layers.%d.mlp.gate_proj.weight", l);
        snprintf(up, sizeof up, "model.layers.%d.mlp.up_proj.weight", l);
        snprintf(down, sizeof down, "model.layers.%d.mlp.down_proj.weight", l);
        snprintf(bias, sizeof bias, "model.layers.%d.self_attn.k_proj.bias", l);
        t = tensor(f, VAQ_GATE_UP, l);
        T_OK(t->rows == 64 && t->params == 2 * CK_INTER * CK_HIDDEN, "two halves of 32 rows");
        for (uint32_t i = 0; i < 64; i++) { /* groups: gate 0, up 0, gate 1, up 1 */
            const int from = (int)(i / 32 * 16 + i % 16);
            same_row(f, t, i, ck_find(&k, i / 16 % 2 ? up : gate), from < CK_INTER ? from : -1);
        }
        t = tensor(f, VAQ_DOWN, l);
        for (uint32_t i = 0; i < CK_HIDDEN; i++) same_row(f, t, i, ck_find(&k, down), (int)i);
        t = tensor(f, VAQ_K_BIAS, l);
        T_OK(!memcmp(vq_file_data(f, t), ck_find(&k, bias)->v, 16 * sizeof(float)), "bias");
    }
    T_OK(f->config->n_ids == CK_VOCAB && f->config->bos == 1 && f->config->eos == 2, "ids");
    T_OK(vq_str_eq(vq_file_meta(f, "name"), "src"), "name");
    T_OK(vq_str_eq(vq_file_meta(f, "source"), "src"), "source");
    T_OK(vq_str_has(vq_file_meta(f, "recipe"), "f32 for all matrices"), "recipe");
    T_OK(vq_file_meta(f, "source_sha256").n == 64 && !vq_file_meta(f, "licence").p, "meta");
    vq_file_close(f);
    ck_free(&k);
}

/* ---- the same model in other clothes ---- */

static bool head_is_tied(void)
{
    vq_file *f;
    vq_err e = { 0 };
    if (vq_file_open(&f, out, NULL, &e)) return false;
    const bool tied = f->config->flags & VAQ_F_TIED;
    T_OK(tied == !vq_file_find(f, VAQ_HEAD, -1, -1), "flag and tensor agree");
    vq_file_close(f);
    return tied;
}

static void tie_flag(ck *k, bool tied)
{
    char *end = strrchr(k->config, '}');
    snprintf(end, 64, ",\"tie_word_embeddings\":%s}", tied ? "true" : "false");
}

static void test_variants(void)
{
    char want[65], got[65], path[512];
    ck k;
    ck_make(&k);
    hash_of(want, &k, NULL, Q_N4);

    /* the same place by other words */
    snprintf(path, sizeof path, "%s/", src);
    hash_of(got, NULL, path, Q_N4);
    T_OK(!strcmp(want, got), "a slash behind");
    snprintf(path, sizeof path, "%s/model.safetensors", src);
    hash_of(got, NULL, path, Q_N4);
    T_OK(!strcmp(want, got), "the file itself");
    snprintf(path, sizeof path, "%s/../src/.", src);
    hash_of(got, NULL, path, Q_N4);
    T_OK(!strcmp(want, got), "dots");
    vq_file *f = NULL;
    T_OK(!vq_file_open(&f, out, NULL, NULL) && vq_str_eq(vq_file_meta(f, "name"), "src"),
         "the folder's name, dots or not");
    vq_file_close(f);

    /* shards, in any cut */
    k.n_files = 3;
    for (int i = 0; i < k.n; i++) k.t[i].file = i % 3;
    hash_of(got, &k, NULL, Q_N4);
    T_OK(!strcmp(want, got), "three shards");
    k.n_files = 1;
    for (int i = 0; i < k.n; i++) k.t[i].file = 0;

    /* without the prefix, with a buffer of old versions */
    for (int i = 0; i < k.n; i++) {
        char *s = k.t[i].name;
        if (!strncmp(s, "model.", 6)) memmove(s, s + 6, strlen(s + 6) + 1);
    }
    ck_add(&k, "layers.0.self_attn.rotary_emb.inv_freq", 0, 8);
    hash_of(got, &k, NULL, Q_N4);
    T_OK(!strcmp(want, got), "names without model.");

    /* other dtypes with the same values, mixed even within gate and up */
    static const char *const dtypes[] = { "F32", "F16", "BF16" };
    for (int i = 0; i < k.n; i++) k.t[i].dtype = dtypes[i % 3];
    hash_of(got, &k, NULL, Q_N4);
    T_OK(!strcmp(want, got), "F32, F16 and BF16 mixed");
    ck_free(&k);
}

static void test_tied(void)
{
    char tied[65], got[65];
    ck k;
    ck_make(&k);
    ck_tensor *head = ck_find(&k, "lm_head.weight");
    ck_tensor *embed = ck_find(&k, "model.embed_tokens.weight");
    const size_t bytes = CK_VOCAB * CK_HIDDEN * sizeof(float);

    tie_flag(&k, true);
    hash_of(got, &k, NULL, -1);
    T_OK(!head_is_tied(), "the flag, but a head of its own: kept");
    memcpy(head->v, embed->v, bytes);
    hash_of(tied, &k, NULL, -1);
    T_OK(head_is_tied(), "the flag and an equal head");
    head->file = -1;
    hash_of(got, &k, NULL, -1);
    T_OK(head_is_tied() && !strcmp(tied, got), "the flag and no head");
    head->file = 0;
    embed->file = -1;
    hash_of(got, &k, NULL, -1);
    T_OK(head_is_tied() && !strcmp(tied, got), "the flag and only the head");

    tie_flag(&k, false);
    snprintf(k.meta, sizeof k.meta, "\"model.embed_tokens.weight\":\"lm_head.weight\"");
    hash_of(got, &k, NULL, -1);
    T_OK(head_is_tied() && !strcmp(tied, got), "the embedding is an alias of the head");
    head->file = -1;
    embed->file = 0;
    snprintf(k.meta, sizeof k.meta, "\"lm_head.weight\":\"model.embed_tokens.weight\"");
    hash_of(got, &k, NULL, -1);
    T_OK(head_is_tied() && !strcmp(tied, got), "the head is an alias of the embedding");
    head->file = 0;
    k.meta[0] = 0;
    hash_of(got, &k, NULL, -1);
    T_OK(!head_is_tied() && strcmp(tied, got) != 0, "no flag: two tensors, equal or not");
    ck_free(&k);
}

static void test_recipe(void)
{
    const vaq_config c = { .n_layer = 28 };
    int six = 0;
    for (uint32_t l = 0; l < 28; l++) {
        six += cv_recipe_type(-1, &c, VAQ_V, l) == Q_L6;
        T_OK(cv_recipe_type(-1, &c, VAQ_V, l) == cv_recipe_type(-1, &c, VAQ_DOWN, l), "down");
        T_OK(cv_recipe_type(-1, &c, VAQ_V, l) == cv_recipe_type(-1, &c, VAQ_O, l), "o");
        T_OK(cv_recipe_type(-1, &c, VAQ_Q, l) == Q_N4, "q");
        T_OK(cv_recipe_type(-1, &c, VAQ_GATE_UP, l) == Q_N4, "gate, up");
    }
    T_OK(six == 8, "four layers at each end: %d", six);
    T_OK(cv_recipe_type(-1, &c, VAQ_HEAD, 0xffff) == Q_L6, "head");
    T_OK(cv_recipe_type(-1, &c, VAQ_EMBED, 0xffff) == Q_L8, "embedding");
    T_OK(cv_recipe_type(Q_N4S, &c, VAQ_HEAD, 0xffff) == Q_N4S, "a named type is for all");
    const vaq_config one = { .n_layer = 1 };
    T_OK(cv_recipe_type(-1, &one, VAQ_O, 0) == Q_L6, "one layer is first and last");
}

/* ---- refusals ---- */

static void test_bad_tensors(void)
{
    ck k;
    ck_make(&k);
    ck_tensor *up = ck_find(&k, "model.layers.1.mlp.up_proj.weight");
    ck_tensor *bias = ck_find(&k, "model.layers.0.self_attn.q_proj.bias");
    ck_tensor *embed = ck_find(&k, "model.embed_tokens.weight");
    const float keep = up->v[0];

    up->file = -1;
    refused(&k, VQ_EFORMAT, "tensor model.layers.1.mlp.up_proj.weight is missing");
    up->file = 0;
    embed->file = -1;
    refused(&k, VQ_EFORMAT, "model.embed_tokens.weight is missing");
    embed->file = 0;
    up->rows--;
    refused(&k, VQ_EFORMAT, "up_proj.weight is 23 x 32, config.json asks for 24 x 32");
    up->rows++;
    up->v[5 * CK_HIDDEN + 7] = NAN;
    refused(&k, VQ_EFORMAT, "up_proj.weight: the weight at row 5, column 7 is not a number");
    up->v[5 * CK_HIDDEN + 7] = 0;
    up->v[17 * CK_HIDDEN] = -INFINITY;
    refused(&k, VQ_EFORMAT, "up_proj.weight: the weight at row 17, column 0 is infinite");
    up->v[17 * CK_HIDDEN] = 1e6f;
    refused_as(&k, &(cv_opts){ .type = Q_F16 }, VQ_EFORMAT, "too large for this type");
    up->v[17 * CK_HIDDEN] = keep;
    bias->v[3] = NAN;
    refused(&k, VQ_EFORMAT, "q_proj.bias: the weight at row 0, column 3 is not a number");
    bias->v[3] = 0;
    up->dtype = "F8_E4M3";
    refused(&k, VQ_EFORMAT, "model.layers.1.mlp.up_proj.weight_scale_inv, are in no file");
    up->dtype = "I32";
    refused(&k, VQ_EFORMAT, "up_proj.weight is I32");
    up->dtype = "BF16";
    ck_add(&k, "model.layers.0.self_attn.o_proj.bias", 0, CK_HIDDEN);
    refused(&k, VQ_EFORMAT, "o_proj.bias belongs to nothing");
    snprintf(k.t[k.n - 1].name, 64, "model.layers.2.input_layernorm.weight");
    refused(&k, VQ_EFORMAT, "layers.2.input_layernorm.weight belongs to nothing");
    snprintf(k.t[k.n - 1].name, 64, "norm.weight");
    refused(&k, VQ_EFORMAT, "only one of them can be meant");
    ck_free(&k);
}

static void test_bad_folders(void)
{
    static const char lfs[] = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n";
    char path[512];
    ck k;
    ck_make(&k);

    /* no checkpoint, or one in another form */
    ck_empty(src);
    refused(NULL, VQ_EFAIL, "has no model.safetensors");
    ck_put_text(src, "pytorch_model-00001-of-00002.bin", "x");
    refused(NULL, VQ_EFORMAT, "PyTorch");
    ck_empty(src);
    ck_put_text(src, "model.gguf", "GGUF");
    refused(NULL, VQ_EFORMAT, "GGUF");
    snprintf(path, sizeof path, "%s/model.gguf", src);
    refused_as(NULL, &(cv_opts){ .src = path, .type = Q_N4 }, VQ_EFORMAT, "cut short");
    refused_as(NULL, &(cv_opts){ .src = "/nowhere/x", .type = Q_N4 }, VQ_EFAIL, "no such");
    refused_as(NULL, &(cv_opts){ .src = "/dev/null", .type = Q_N4 }, VQ_EFORMAT, "neither");
    ck_empty(src);
    ck_put_text(src, "model-00001-of-00002.safetensors", "x");
    ck_put_text(src, "model-00002-of-00002.safetensors", "x");
    refused(NULL, VQ_EFAIL, "model.safetensors.index.json");

    /* one file */
    ck_empty(src);
    ck_write(&k, src);
    snprintf(path, sizeof path, "%s/config.json", src);
    vq_unlink(path);
    refused(NULL, VQ_EFAIL, "config.json is missing");
    ck_put_text(src, "config.json", lfs);
    refused(NULL, VQ_EFORMAT, "git lfs pull");
    ck_put_text(src, "config.json", "[1]");
    refused(NULL, VQ_EFORMAT, "not a JSON object");
    ck_write(&k, src);
    snprintf(path, sizeof path, "%s/model.safetensors", src);
    T_OK(!truncate(path, (off_t)vq_file_size(path) - 1), "truncate");
    refused(NULL, VQ_EFORMAT, "cut short");
    ck_put_text(src, "model.safetensors", lfs);
    refused(NULL, VQ_EFORMAT, "git lfs pull");

    /* shards */
    k.n_files = 2;
    for (int i = 0; i < k.n; i++) k.t[i].file = i % 2;
    ck_empty(src);
    ck_write(&k, src);
    snprintf(path, sizeof path, "%s/model-00002-of-00002.safetensors", src);
    refused_as(NULL, &(cv_opts){ .src = path, .type = Q_N4 }, VQ_EFORMAT, "one of several shards");
    T_OK(!truncate(path, 100), "truncate");
    refused(NULL, VQ_EFORMAT, "cut short");
    ck_put_text(src, "model-00002-of-00002.safetensors", lfs);
    refused(NULL, VQ_EFORMAT, "git lfs pull");
    vq_unlink(path);
    refused(NULL, VQ_EFAIL, "model-00002-of-00002.safetensors is missing");
    static const struct { const char *text, *says; } indexes[] = {
        { "{}", "has no weight_map" },
        { "{\"weight_map\":{}}", "has no weight_map" },
        { "{\"weight_map\":{\"a\":\"../config.json\"}}", "no file name" },
        { "{\"weight_map\":{\"a\":\"\"}}", "no file name" },
        { "{\"weight_map\":{\"a\":7}}", "no file name" },
        { "{\"weight_map\":", "JSON" },
        { "{\"weight_map\":{\"a\":\"model-00001-of-00002.safetensors\"}}", "tensor a should be" },
    };
    for (size_t i = 0; i < sizeof indexes / sizeof indexes[0]; i++) {
        ck_put_text(src, "model.safetensors.index.json", indexes[i].text);
        refused(NULL, VQ_EFORMAT, indexes[i].says);
    }
    ck_free(&k);
}

static void test_tokenizers(void)
{
    static const char tiny[] = "tests/data/models/tiny-r1-qwen";
    static const char lfs[] = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n";
    char path[512];
    ck k;
    vq_buf text = { 0 };
    ck_make(&k);
    snprintf(path, sizeof path, "%s/tokenizer.json", tiny);
    T_OK(!vq_file_read(path, 1 << 24, &text, NULL), "%s", path);

    ck_empty(src);
    ck_write(&k, src);
    ck_put(src, "tokenizer.json", text.p, text.n); /* 720 ids, the model has 20 */
    refused(NULL, VQ_EFORMAT, "belongs to another model");
    ck_put_text(src, "tokenizer.json", "{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}");
    refused(NULL, VQ_EFORMAT, "--no-tokenizer");
    cv_report r;
    vq_err e;
    T_OK(!convert(&(cv_opts){ .type = Q_N4, .no_tokenizer = true }, &r, &e), "%s", e.msg);
    cv_report_clear(&r);
    ck_put_text(src, "tokenizer.json", lfs);
    refused(NULL, VQ_EFORMAT, "git lfs pull");
    snprintf(path, sizeof path, "%s/tokenizer.json", src);
    vq_unlink(path);
    ck_put_text(src, "tokenizer.model", "x");
    refused(NULL, VQ_EFORMAT, "tokenizer.model but no tokenizer.json");
    vq_buf_clear(&text);
    ck_free(&k);
}

static void test_options(void)
{
    ck k;
    char path[512];
    vq_err e;
    cv_report r;
    ck_make(&k);
    refused_as(&k, &(cv_opts){ .type = Q_N3 }, VQ_EUSAGE, "n3");
    refused_as(NULL, &(cv_opts){ .type = 99 }, VQ_EUSAGE, "type");
    refused_as(NULL, &(cv_opts){ .type = Q_N4, .cpu = "pdp11" }, VQ_EUSAGE, "pdp11");
    snprintf(path, sizeof path, "%s/model.safetensors", src);
    refused_as(NULL, &(cv_opts){ .type = Q_N4, .out = path }, VQ_EUSAGE, "belongs to a checkpoint");
    refused_as(NULL, &(cv_opts){ .type = Q_N4, .out = "/nowhere/x.vaq" }, VQ_EFAIL,
               "folder does not exist");

    const cv_opts no_force = { .src = src, .out = out, .type = Q_N4 };
    T_OK(!cv_convert(&no_force, &r, &e), "%s", e.msg);
    cv_report_clear(&r);
    T_OK(cv_convert(&no_force, &r, &e) == VQ_EFAIL && strstr(e.msg, "--force"), "%s", e.msg);
    const uint64_t bytes = vq_file_size(out);
    ck_empty(out_dir);
    T_OK(!convert(&(cv_opts){ .type = Q_N4, .dry_run = true }, &r, &e), "%s", e.msg);
    T_OK(r.bytes == bytes && r.n_tensor > 20 && files_in(out_dir) == 0, "a dry run");
    cv_report_clear(&r);
    ck_free(&k);
}

typedef struct watch {
    uint64_t last, total;
    int calls, stop_at, notices;
} watch;

static bool step(void *ctx, uint64_t done, uint64_t total)
{
    watch *w = ctx;
    T_OK(done >= w->last && done <= total, "progress rises");
    w->last = done;
    w->total = total;
    return ++w->calls == w->stop_at;
}

static void count_notice(void *ctx, const char *line)
{
    ((watch *)ctx)->notices += strstr(line, "ids only") != NULL;
}

static void test_progress(void)
{
    ck k;
    watch w = { 0 };
    cv_report r;
    vq_err e;
    ck_make(&k);
    ck_empty(src);
    ck_write(&k, src);
    cv_opts o = { .type = -1, .threads = 2, .progress = step, .notice = count_notice, .ctx = &w };
    T_OK(!convert(&o, &r, &e), "%s", e.msg);
    T_OK(w.last == w.total && w.calls > 20 && w.notices == 1, "%d calls, %d notices", w.calls,
         w.notices);
    uint64_t sum = 0;
    for (int i = 0; i < k.n; i++) {
        sum += 2 * (uint64_t)(k.t[i].rows ? k.t[i].rows : 1) * (uint64_t)k.t[i].cols;
    }
    T_OK(w.total == sum && r.params == sum / 2, "bytes read, weights");
    cv_report_clear(&r);
    const int calls = w.calls;
    for (int at = 1; at <= calls; at += 5) {
        w = (watch){ .stop_at = at };
        stopped_as(NULL, &o, VQ_EINTR, "the same command goes on", 2);
        T_OK(w.calls == at, "stops at once");
    }
    ck_free(&k);
}

/* Several bands per tensor, rows that fill no group, more encoders than bands. */
static void test_bands(void)
{
    enum { ROWS = 70001, COLS = 32 };
    ck k;
    uint8_t root[32] = { 0 };
    ck_make(&k);
    char *vocab = strstr(k.config, "\"vocab_size\":20");
    memmove(vocab + 18, vocab + 15, strlen(vocab + 15) + 1);
    memcpy(vocab, "\"vocab_size\":70001", 18);
    for (int i = 0; i < 2; i++) {
        ck_tensor *t = &k.t[i];
        vq_free(t->v);
        t->rows = ROWS;
        t->v = vq_malloc(ROWS * COLS * sizeof *t->v);
        for (int j = 0; j < ROWS * COLS; j++) t->v[j] = (float)(j % 251 - 125 + i) / 128.0f;
    }
    ck_empty(src);
    ck_write(&k, src);
    for (int threads = 1; threads <= 7; threads += 3) {
        cv_report r;
        vq_err e;
        T_OK(!convert(&(cv_opts){ .type = Q_L8, .threads = threads }, &r, &e), "%s", e.msg);
        if (threads == 1) memcpy(root, r.root, 32);
        T_OK(!memcmp(root, r.root, 32), "%d threads", threads);
        cv_report_clear(&r);
    }
    k.t[0].v[(ROWS - 1) * COLS + 3] = NAN;
    refused(&k, VQ_EFORMAT, "lm_head.weight: the weight at row 70000, column 3");
    ck_free(&k);
}

/* A file larger than allowed stands for a disk that fills up half way. */
static void test_full_disk(void)
{
    struct rlimit old, small;
    ck k;
    ck_make(&k);
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = 60000; /* the front and some tensors */
    signal(SIGXFSZ, SIG_IGN);
    ck_empty(src);
    ck_write(&k, src);
    setrlimit(RLIMIT_FSIZE, &small);
    stopped_as(NULL, &(cv_opts){ .type = Q_F32, .threads = 2 }, VQ_ENOFIT, "larger than", 2);
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, SIG_DFL);
    ck_free(&k);
}

static void test_card(void)
{
    ck k;
    cv_report r;
    vq_err e;
    vq_file *f;
    ck_make(&k);
    ck_empty(src);
    ck_write(&k, src);
    ck_put_text(src, "README.md", "---\nlanguage: en\nlicense: \"mit\"\n---\nlicense: none\n");
    T_OK(!convert(&(cv_opts){ .type = Q_N4, .name = "renamed" }, &r, &e), "%s", e.msg);
    cv_report_clear(&r);
    T_OK(!vq_file_open(&f, out, NULL, &e), "%s", e.msg);
    T_OK(vq_str_eq(vq_file_meta(f, "licence"), "mit"), "licence of the card");
    T_OK(vq_str_eq(vq_file_meta(f, "name"), "renamed"), "name");
    T_OK(!vq_file_meta(f, "distill_of").p, "nothing is guessed");
    vq_file_close(f);
    ck_put_text(src, "README.md", "# license: gpl\n");
    ck_put_text(src, "LICENSE", "\n   Apache License   \n Version 2.0\n");
    T_OK(!convert(&(cv_opts){ .type = Q_N4 }, &r, &e), "%s", e.msg);
    cv_report_clear(&r);
    T_OK(!vq_file_open(&f, out, NULL, &e), "%s", e.msg);
    T_OK(vq_str_eq(vq_file_meta(f, "licence"), "Apache License"), "title of the licence");
    vq_file_close(f);
    ck_free(&k);
}

static void describe(const char *path, vq_status want, const char *key, const char *value)
{
    vq_buf b = { 0 };
    vq_json j;
    vq_err e = { 0 };
    const vq_status st = cv_describe(path, &b, &e);
    T_OK(st == want, "%s: %d %s", path, st, e.msg);
    if (!st) {
        T_OK(!vq_json_parse(&j, b.p, b.n, "describe", &e), "%s", e.msg);
        const uint32_t v = vq_json_get(&j, 0, key);
        bool yes = false;
        vq_json_bool(&j, v, &yes);
        const vq_str s = yes ? vq_str_c("true") : j.node[v].s;
        T_OK(vq_str_eq(s, value), "%s: %s is %.*s", path, key, (int)s.n, s.p);
        vq_json_clear(&j);
    }
    vq_buf_clear(&b);
}

static void test_describe(void)
{
    static const char tiny[] = "tests/data/models/tiny-r1-qwen3";
    char path[600];
    describe(tiny, VQ_OK, "arch", "qwen3");
    describe(tiny, VQ_OK, "layers", "3");
    describe(tiny, VQ_OK, "template", "r1-0528");
    describe(tiny, VQ_OK, "convertible", "true");
    snprintf(path, sizeof path, "%s/model.safetensors", tiny);
    describe(path, VQ_OK, "arch", "qwen3");
    describe("/nowhere", VQ_EFAIL, "", "");
    ck k;
    ck_make(&k);
    ck_empty(src);
    ck_write(&k, src);
    snprintf(path, sizeof path, "%s/config.json", src);
    vq_unlink(path);
    describe(src, VQ_EFAIL, "", "");
    snprintf(path, sizeof path, "%s/model.safetensors", src);
    describe(path, VQ_OK, "tensors", "27"); /* a lone file is a list of tensors */
    ck_put_text(src, "config.json", "{\"model_type\":\"deepseek_v3\"}");
    describe(src, VQ_OK, "arch", "deepseek_v3");
    ck_free(&k);
}

static void test_no_memory(void)
{
    if (!vq_mem_fail_at(0)) {
        T_SKIP("failing allocations: needs a build with VQ_DEBUG");
        return;
    }
    vq_status st = VQ_ENOMEM;
    long n = 1;
    ck_empty(out_dir);
    /* Every allocation there is; some may fail and nothing is lost. */
    for (bool met = true; met && n < 100000; n += quick ? 17 : 1) {
        cv_report r;
        vq_err e;
        vq_mem_fail_at(n);
        st = convert(&(cv_opts){ .src = "tests/data/models/tiny-r1-qwen", .type = Q_F32,
                                 .threads = 2 }, &r, &e);
        met = vq_mem_fail_at(0) == 1;
        T_OK(st == VQ_OK || st == VQ_ENOMEM, "allocation %ld: %d %s", n, st, e.msg);
        /* Nothing, or what the next run goes on with: that depends on which thread came first. */
        const size_t left = files_in(out_dir);
        if (st) T_OK(!vq_file_exists(out) && (left == 0 || left == 2), "%ld: left %zu", n, left);
        cv_report_clear(&r);
        ck_empty(out_dir);
    }
    T_OK(st == VQ_OK && n > 150, "converts in the end (%ld)", n);
}

int main(void)
{
    const char *v = getenv("VQ_QUICK");
    quick = v && *v;
    conv_begin();
    test_goldens();
    test_content();
    test_variants();
    test_tied();
    test_recipe();
    test_bad_tensors();
    test_bad_folders();
    test_tokenizers();
    test_options();
    test_progress();
    test_bands();
    test_full_disk();
    test_card();
    test_describe();
    test_no_memory();
    conv_end();
    return t_done("t_convert");
}
