/* ckpt.h - small checkpoint folders made up by tests: right ones, and wrong in one chosen way.
 *
 * The model is a Qwen2 of two layers whose intermediate size (24) is no multiple of 16.  Weights
 * are multiples of 1/128 below 1, so BF16, F16 and F32 hold the same values. */
#ifndef TESTS_CKPT_H
#define TESTS_CKPT_H

#include "core/base/mem.h"
#include "core/base/os.h"
#include "core/base/str.h"
#include "quant/quant.h"

#include <stdio.h>
#include <string.h>

enum { CK_VOCAB = 20, CK_HIDDEN = 32, CK_INTER = 24, CK_LAYERS = 2, CK_MAX = 40 };

typedef struct ck_tensor {
    char name[64];
    const char *dtype;      /* "BF16" "F16" "F32" "F8_E4M3" "I32" */
    int rows, cols;         /* rows 0: a vector */
    float *v;
    int file;               /* shard 0..; -1: left out */
} ck_tensor;

typedef struct ck {
    ck_tensor t[CK_MAX];
    int n;
    int n_files;            /* more than one: shards with an index */
    char config[1024];
    char meta[256];         /* members of __metadata__ */
} ck;

static void ck_add(ck *k, const char *name, int rows, int cols)
{
    ck_tensor *t = &k->t[k->n++];
    const size_t n = (size_t)(rows ? rows : 1) * (size_t)cols;
    *t = (ck_tensor){ .dtype = "BF16", .rows = rows, .cols = cols };
    snprintf(t->name, sizeof t->name, "%s", name);
    t->v = vq_malloc(n * sizeof *t->v);
    uint32_t r = 2463534242u + 7919u * (uint32_t)k->n;
    for (size_t i = 0; i < n; i++) {
        r ^= r << 13;
        r ^= r >> 17;
        r ^= r << 5;
        t->v[i] = (float)((int)(r % 255) - 127) / 128.0f;
    }
}

static void ck_make(ck *k)
{
    char name[64];
    memset(k, 0, sizeof *k);
    k->n_files = 1;
    snprintf(k->config, sizeof k->config,
             "{\"model_type\":\"qwen2\",\"architectures\":[\"Qwen2ForCausalLM\"],"
             "\"hidden_size\":%d,\"num_hidden_layers\":%d,\"num_attention_heads\":2,"
             "\"num_key_value_heads\":1,\"intermediate_size\":%d,\"vocab_size\":%d,"
             "\"max_position_embeddings\":512,\"rms_norm_eps\":1e-6,\"bos_token_id\":1,"
             "\"eos_token_id\":2}", CK_HIDDEN, CK_LAYERS, CK_INTER, CK_VOCAB);
    ck_add(k, "lm_head.weight", CK_VOCAB, CK_HIDDEN);
    ck_add(k, "model.embed_tokens.weight", CK_VOCAB, CK_HIDDEN);
    static const struct { const char *name; int rows, cols; } layer[] = {
        { "input_layernorm.weight", 0, CK_HIDDEN }, { "mlp.down_proj.weight", CK_HIDDEN, CK_INTER },
        { "mlp.gate_proj.weight", CK_INTER, CK_HIDDEN },
        { "mlp.up_proj.weight", CK_INTER, CK_HIDDEN },
        { "post_attention_layernorm.weight", 0, CK_HIDDEN },
        { "self_attn.k_proj.bias", 0, 16 }, { "self_attn.k_proj.weight", 16, CK_HIDDEN },
        { "self_attn.o_proj.weight", CK_HIDDEN, 32 }, { "self_attn.q_proj.bias", 0, 32 },
        { "self_attn.q_proj.weight", 32, CK_HIDDEN }, { "self_attn.v_proj.bias", 0, 16 },
        { "self_attn.v_proj.weight", 16, CK_HIDDEN },
    };
    for (int l = 0; l < CK_LAYERS; l++) {
        for (size_t i = 0; i < sizeof layer / sizeof layer[0]; i++) {
            snprintf(name, sizeof name, "model.layers.%d.%s", l, layer[i].name);
            ck_add(k, name, layer[i].rows, layer[i].cols);
        }
    }
    ck_add(k, "model.norm.weight", 0, CK_HIDDEN);
}

static void ck_free(ck *k)
{
    for (int i = 0; i < k->n; i++) vq_free(k->t[i].v);
    k->n = 0;
}

static ck_tensor *ck_find(ck *k, const char *name)
{
    for (int i = 0; i < k->n; i++) {
        if (!strcmp(k->t[i].name, name)) return &k->t[i];
    }
    return NULL;
}

static void ck_data(vq_buf *b, const ck_tensor *t)
{
    const size_t n = (size_t)(t->rows ? t->rows : 1) * (size_t)t->cols;
    const bool bf16 = !strcmp(t->dtype, "BF16"), f16 = !strcmp(t->dtype, "F16");
    for (size_t i = 0; i < n; i++) {
        const uint16_t h = bf16 ? q_f32_to_bf16(t->v[i]) : q_f32_to_f16(t->v[i]);
        if (bf16 || f16) vq_buf_add(b, &h, 2);
        else if (!strcmp(t->dtype, "F8_E4M3")) vq_buf_char(b, 0x38);
        else vq_buf_add(b, &t->v[i], 4);
    }
}

/* dir/file with these bytes; 0 on success. */
static int ck_put(const char *dir, const char *file, const void *p, size_t n)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    return vq_file_write_atomic(path, p, n, NULL) != VQ_OK;
}

static int ck_put_text(const char *dir, const char *file, const char *text)
{
    return ck_put(dir, file, text, strlen(text));
}

static void ck_shard_name(char out[64], const ck *k, int file)
{
    if (k->n_files == 1) snprintf(out, 64, "model.safetensors");
    else snprintf(out, 64, "model-%05d-of-%05d.safetensors", file + 1, k->n_files);
}

/* Writes the folder's config, tensors and index; 0 on success. */
static int ck_write(const ck *k, const char *dir)
{
    vq_buf index = { 0 };
    int bad = ck_put_text(dir, "config.json", k->config);
    vq_buf_str(&index, "{\"metadata\":{},\"weight_map\":{");
    const char *comma = "";
    for (int f = 0; f < k->n_files; f++) {
        vq_buf head = { 0 }, data = { 0 }, all = { 0 };
        char name[64];
        ck_shard_name(name, k, f);
        vq_buf_printf(&head, "{\"__metadata__\":{%s}", k->meta);
        for (int i = 0; i < k->n; i++) {
            const ck_tensor *t = &k->t[i];
            if (t->file != f) continue;
            const size_t at = data.n;
            ck_data(&data, t);
            vq_buf_printf(&head, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", t->name, t->dtype);
            if (t->rows) vq_buf_printf(&head, "%d,", t->rows);
            vq_buf_printf(&head, "%d],\"data_offsets\":[%zu,%zu]}", t->cols, at, data.n);
            vq_buf_printf(&index, "%s\"%s\":\"%s\"", comma, t->name, name);
            comma = ",";
        }
        vq_buf_char(&head, '}');
        const uint64_t len = head.n;
        vq_buf_add(&all, &len, 8);
        vq_buf_add(&all, head.p, head.n);
        if (data.n) vq_buf_add(&all, data.p, data.n);
        bad |= ck_put(dir, name, all.p, all.n);
        vq_buf_clear(&head);
        vq_buf_clear(&data);
        vq_buf_clear(&all);
    }
    vq_buf_str(&index, "}}");
    if (k->n_files > 1) bad |= ck_put(dir, "model.safetensors.index.json", index.p, index.n);
    vq_buf_clear(&index);
    return bad;
}

/* Removes every file of a folder. */
static void ck_empty(const char *dir)
{
    char **names, path[512];
    size_t n;
    if (vq_dir_list(dir, &names, &n, NULL)) return;
    for (size_t i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        vq_unlink(path);
        vq_free(names[i]);
    }
    vq_free(names);
}

#endif
