/* ckpt.h - small checkpoint folders made up by tests: right ones, and wrong in one chosen way.
 *
 * The model is a Qwen2 of two layers whose intermediate size (24) is no multiple of 16.  Weights
 * are multiples of 1/128 below 1, so BF16, F16 and F32 hold the same values.
 * ck_dsv3 is DeepSeek-V3 in small: one dense layer, one with experts, an MTP layer. */
#ifndef TESTS_CKPT_H
#define TESTS_CKPT_H

#include "core/base/mem.h"
#include "core/base/os.h"
#include "core/base/str.h"
#include "quant/quant.h"

#include <stdio.h>
#include <string.h>

enum { CK_VOCAB = 20, CK_HIDDEN = 32, CK_INTER = 24, CK_LAYERS = 2, CK_MAX = 200 };

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
    char config[1600];
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

static inline void ck_make(ck *k)
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

/* Shapes of DeepSeek-V3, none round: 3 heads of 24 + 8, values 32 wide, latents of 144. */
enum {
    CK_DS_HIDDEN = 144, CK_DS_HEADS = 3, CK_DS_NOPE = 24, CK_DS_ROPE = 8, CK_DS_V = 32,
    CK_DS_KV = 144, CK_DS_Q = 136, CK_DS_INTER = 40, CK_DS_MOE = 24, CK_DS_EXPERTS = 4,
    CK_DS_LAYERS = 2
};

/* A matrix in FP8 with its scales, of which no two are equal; scales come after the weights. */
static void ck_add_fp8(ck *k, const char *name, int rows, int cols)
{
    char scale[96];
    ck_add(k, name, rows, cols);
    ck_tensor *t = &k->t[k->n - 1];
    t->dtype = "F8_E4M3";
    for (int i = 0; i < rows * cols; i++) {
        const int b = (int)(t->v[i] * 128) & 0xff;
        t->v[i] = q_f8e4m3_to_f32((uint8_t)((b & 0x7f) == 0x7f ? b - 1 : b));
    }
    snprintf(scale, sizeof scale, "%s_scale_inv", name);
    ck_add(k, scale, (rows + 127) / 128, (cols + 127) / 128);
    t = &k->t[k->n - 1];
    t->dtype = "F32";
    for (int i = 0; i < t->rows * t->cols; i++) t->v[i] = 0.001f * (float)(k->n + 7 * i);
}

static void ck_dsv3_ffn(ck *k, const char *start, int inter)
{
    char name[96];
    snprintf(name, sizeof name, "%sgate_proj.weight", start);
    ck_add_fp8(k, name, inter, CK_DS_HIDDEN);
    snprintf(name, sizeof name, "%sup_proj.weight", start);
    ck_add_fp8(k, name, inter, CK_DS_HIDDEN);
    snprintf(name, sizeof name, "%sdown_proj.weight", start);
    ck_add_fp8(k, name, CK_DS_HIDDEN, inter);
}

static void ck_dsv3_layer(ck *k, int l)
{
    enum { H = CK_DS_HIDDEN, HEADS = CK_DS_HEADS };
    static const struct { const char *name; int rows, cols; bool fp8; } all[] = {
        { "input_layernorm.weight", 0, H, false },
        { "post_attention_layernorm.weight", 0, H, false },
        { "self_attn.q_a_proj.weight", CK_DS_Q, H, true },
        { "self_attn.q_a_layernorm.weight", 0, CK_DS_Q, false },
        { "self_attn.q_b_proj.weight", HEADS * (CK_DS_NOPE + CK_DS_ROPE), CK_DS_Q, true },
        { "self_attn.kv_a_proj_with_mqa.weight", CK_DS_KV + CK_DS_ROPE, H, true },
        { "self_attn.kv_a_layernorm.weight", 0, CK_DS_KV, false },
        { "self_attn.kv_b_proj.weight", HEADS * (CK_DS_NOPE + CK_DS_V), CK_DS_KV, true },
        { "self_attn.o_proj.weight", H, HEADS * CK_DS_V, true },
    }, moe[] = {
        { "mlp.gate.weight", CK_DS_EXPERTS, H, false },
        { "mlp.gate.e_score_correction_bias", 0, CK_DS_EXPERTS, false },
    }, mtp[] = {
        { "embed_tokens.weight", CK_VOCAB, H, false },
        { "shared_head.head.weight", CK_VOCAB, H, false }, { "enorm.weight", 0, H, false },
        { "hnorm.weight", 0, H, false }, { "eh_proj.weight", H, 2 * H, false },
        { "shared_head.norm.weight", 0, H, false },
    };
    char name[96];
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        snprintf(name, sizeof name, "model.layers.%d.%s", l, all[i].name);
        if (all[i].fp8) ck_add_fp8(k, name, all[i].rows, all[i].cols);
        else ck_add(k, name, all[i].rows, all[i].cols);
    }
    snprintf(name, sizeof name, "model.layers.%d.mlp.", l);
    if (l == 0) {
        ck_dsv3_ffn(k, name, CK_DS_INTER);
        return;
    }
    for (size_t i = 0; i < sizeof moe / sizeof moe[0]; i++) {
        snprintf(name, sizeof name, "model.layers.%d.%s", l, moe[i].name);
        ck_add(k, name, moe[i].rows, moe[i].cols);
    }
    snprintf(name, sizeof name, "model.layers.%d.mlp.shared_experts.", l);
    ck_dsv3_ffn(k, name, CK_DS_MOE);
    for (int x = 0; x < CK_DS_EXPERTS; x++) {
        snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%d.", l, x);
        ck_dsv3_ffn(k, name, CK_DS_MOE);
    }
    for (size_t i = 0; l == CK_DS_LAYERS && i < sizeof mtp / sizeof mtp[0]; i++) {
        snprintf(name, sizeof name, "model.layers.%d.%s", l, mtp[i].name);
        ck_add(k, name, mtp[i].rows, mtp[i].cols);
    }
}

static inline void ck_dsv3(ck *k)
{
    memset(k, 0, sizeof *k);
    k->n_files = 1;
    snprintf(k->config, sizeof k->config,
             "{\"model_type\":\"deepseek_v3\",\"hidden_size\":%d,\"num_hidden_layers\":%d,"
             "\"num_attention_heads\":%d,\"num_key_value_heads\":%d,\"q_lora_rank\":%d,"
             "\"kv_lora_rank\":%d,\"qk_nope_head_dim\":%d,\"qk_rope_head_dim\":%d,"
             "\"v_head_dim\":%d,\"intermediate_size\":%d,\"moe_intermediate_size\":%d,"
             "\"n_routed_experts\":%d,\"n_shared_experts\":1,\"num_experts_per_tok\":2,"
             "\"n_group\":2,\"topk_group\":1,\"topk_method\":\"noaux_tc\","
             "\"scoring_func\":\"sigmoid\",\"norm_topk_prob\":true,"
             "\"routed_scaling_factor\":2.5,\"first_k_dense_replace\":1,\"moe_layer_freq\":1,"
             "\"num_nextn_predict_layers\":1,\"vocab_size\":%d,"
             "\"max_position_embeddings\":512,\"quantization_config\":{\"quant_method\":\"fp8\","
             "\"fmt\":\"e4m3\",\"weight_block_size\":[128,128]}}",
             CK_DS_HIDDEN, CK_DS_LAYERS, CK_DS_HEADS, CK_DS_HEADS, CK_DS_Q, CK_DS_KV, CK_DS_NOPE,
             CK_DS_ROPE, CK_DS_V, CK_DS_INTER, CK_DS_MOE, CK_DS_EXPERTS, CK_VOCAB);
    ck_add(k, "model.embed_tokens.weight", CK_VOCAB, CK_DS_HIDDEN);
    ck_add(k, "lm_head.weight", CK_VOCAB, CK_DS_HIDDEN);
    ck_add(k, "model.norm.weight", 0, CK_DS_HIDDEN);
    for (int l = 0; l <= CK_DS_LAYERS; l++) ck_dsv3_layer(k, l);
}

static inline void ck_free(ck *k)
{
    for (int i = 0; i < k->n; i++) vq_free(k->t[i].v);
    k->n = 0;
}

static inline ck_tensor *ck_find(ck *k, const char *name)
{
    for (int i = 0; i < k->n; i++) {
        if (!strcmp(k->t[i].name, name)) return &k->t[i];
    }
    return NULL;
}

/* ck_make with an embedding and a head of F32, of which a band fills a chunk as BF16. */
static inline void ck_large(ck *k)
{
    static const char *const names[] = { "model.embed_tokens.weight", "lm_head.weight" };
    enum { ROWS = 28000 }; /* three and a half bands */
    ck_make(k);
    char *at = strstr(k->config, "\"vocab_size\":20");
    char rest[800];
    snprintf(rest, sizeof rest, "%s", at + strlen("\"vocab_size\":20"));
    snprintf(at, sizeof k->config - (size_t)(at - k->config), "\"vocab_size\":%d%s", ROWS, rest);
    for (int i = 0; i < 2; i++) {
        ck_tensor *t = ck_find(k, names[i]);
        t->dtype = "F32";
        t->rows = ROWS;
        t->v = vq_realloc(t->v, (size_t)ROWS * CK_HIDDEN * sizeof *t->v);
        for (int j = 0; j < ROWS * CK_HIDDEN; j++) {
            t->v[j] = (float)((j * 7 + i) % 255 - 127) / 128;
        }
    }
}

/* The byte of a value that has one. */
static char ck_fp8(float v)
{
    int b = 0;
    while (b < 0x7f && q_f8e4m3_to_f32((uint8_t)b) != (v < 0 ? -v : v)) b++;
    return (char)(v < 0 ? b | 0x80 : b); /* none: NaN */
}

static void ck_data(vq_buf *b, const ck_tensor *t)
{
    const size_t n = (size_t)(t->rows ? t->rows : 1) * (size_t)t->cols;
    const bool bf16 = !strcmp(t->dtype, "BF16"), f16 = !strcmp(t->dtype, "F16");
    for (size_t i = 0; i < n; i++) {
        const uint16_t h = bf16 ? q_f32_to_bf16(t->v[i]) : q_f32_to_f16(t->v[i]);
        if (bf16 || f16) vq_buf_add(b, &h, 2);
        else if (!strcmp(t->dtype, "F8_E4M3")) vq_buf_char(b, ck_fp8(t->v[i]));
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

static inline int ck_put_text(const char *dir, const char *file, const char *text)
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
