/* t_dsv3.c - DeepSeek-V3 checkpoints into containers: FP8 with its scales, heads taken apart,
 * experts side by side, MTP layers kept, shared, dropped; and the table of R1 itself, all holes. */
#define _GNU_SOURCE 1

#include "convert/hfconfig.h"
#include "convert/plan.h"
#include "core/base/json.h"
#include "tests/conv.h"

#include <math.h>

/* ---- config ---- */

/* The published config.json (models.md 1.2), without what says nothing about the computation. */
static const char r1_config[] =
    "{\"architectures\":[\"DeepseekV3ForCausalLM\"],\"attention_bias\":false,\"bos_token_id\":0,"
    "\"eos_token_id\":1,\"ep_size\":1,\"first_k_dense_replace\":3,\"hidden_act\":\"silu\","
    "\"hidden_size\":7168,\"intermediate_size\":18432,\"kv_lora_rank\":512,"
    "\"max_position_embeddings\":163840,\"model_type\":\"deepseek_v3\","
    "\"moe_intermediate_size\":2048,\"moe_layer_freq\":1,\"n_group\":8,\"n_routed_experts\":256,"
    "\"n_shared_experts\":1,\"norm_topk_prob\":true,\"num_attention_heads\":128,"
    "\"num_experts_per_tok\":8,\"num_hidden_layers\":61,\"num_key_value_heads\":128,"
    "\"num_nextn_predict_layers\":1,\"q_lora_rank\":1536,\"qk_nope_head_dim\":128,"
    "\"qk_rope_head_dim\":64,\"quantization_config\":{\"activation_scheme\":\"dynamic\","
    "\"fmt\":\"e4m3\",\"quant_method\":\"fp8\",\"weight_block_size\":[128,128]},"
    "\"rms_norm_eps\":1e-06,\"rope_scaling\":{\"beta_fast\":32,\"beta_slow\":1,\"factor\":40,"
    "\"mscale\":1.0,\"mscale_all_dim\":1.0,\"original_max_position_embeddings\":4096,"
    "\"type\":\"yarn\"},\"rope_theta\":10000,\"routed_scaling_factor\":2.5,"
    "\"scoring_func\":\"sigmoid\",\"tie_word_embeddings\":false,\"topk_group\":4,"
    "\"topk_method\":\"noaux_tc\",\"torch_dtype\":\"bfloat16\",\"v_head_dim\":128,"
    "\"vocab_size\":129280}";

/* R1's config with `extra` members: a key given twice counts with its last value. */
static vq_status read_config(cv_config *c, const char *extra, vq_err *e)
{
    char text[3000];
    vq_json j;
    snprintf(text, sizeof text, "%.*s%s%s}", (int)strlen(r1_config) - 1, r1_config,
             *extra ? "," : "", extra);
    *e = (vq_err){ 0 };
    vq_status st = vq_json_parse(&j, text, strlen(text), "config.json", e);
    if (!st) st = cv_config_read(c, &j, "config.json", false, e);
    vq_json_clear(&j);
    return st;
}

static void test_config(void)
{
    cv_config k;
    vq_err e;
    const vaq_config *c = &k.c;
    T_OK(!read_config(&k, "", &e), "%s", e.msg);
    T_OK(c->arch == VAQ_DEEPSEEK3 && c->flags == (VAQ_F_ROPE_PAIRS | VAQ_F_NORM_TOPK), "%x",
         c->flags);
    T_OK(c->n_layer == 61 && c->hidden == 7168 && c->n_mtp == 1 && c->inter == 18432, "layers");
    T_OK(c->n_head == 128 && c->n_head_kv == 1 && c->head_dim == 192 && c->v_dim == 128, "heads");
    T_OK(c->q_lora == 1536 && c->kv_lora == 512 && c->nope_dim == 128 && c->rope_dim == 64, "MLA");
    T_OK(c->n_expert == 256 && c->n_expert_used == 8 && c->n_expert_shared == 1, "experts");
    T_OK(c->n_group == 8 && c->n_group_used == 4 && c->n_dense_layer == 3, "groups");
    T_OK(c->moe_inter == 2048 && c->routed_scale == 2.5f && c->eps == 1e-6f, "routing");
    T_OK(c->n_vocab == 129280 && c->ctx == 163840 && c->bos == 0 && c->eos == 1, "vocabulary");
    T_OK(k.yarn && c->rope_mult == 1 && fabsf(c->attn_scale - 0.1352337789f) < 1e-8f, "YaRN: %.9g",
         (double)c->attn_scale);
    T_OK(k.rope[0] == 1 && fabs(k.rope[10] / 0.05623413251903491 - 1) < 4e-16 &&
             fabs(k.rope[23] / 3.33380358040831e-05 - 1) < 4e-16, "%a %a", k.rope[10], k.rope[23]);

    /* what may be absent */
    T_OK(!read_config(&k, "\"q_lora_rank\":null,\"n_group\":null,\"topk_group\":null,"
                          "\"num_nextn_predict_layers\":null,\"scoring_func\":null,"
                          "\"topk_method\":null,\"norm_topk_prob\":false,"
                          "\"quantization_config\":null,\"n_shared_experts\":null", &e),
         "%s", e.msg);
    T_OK(c->q_lora == 0 && c->n_group == 1 && c->n_group_used == 1 && c->n_mtp == 0, "defaults");
    T_OK(c->flags == VAQ_F_ROPE_PAIRS && c->n_expert_shared == 0, "flags, no shared expert");
    T_OK(!read_config(&k, "\"n_group\":0,\"topk_group\":0,\"rope_interleave\":false", &e) &&
             c->n_group == 1 && !(c->flags & VAQ_F_ROPE_PAIRS), "%s", e.msg);
    T_OK(!read_config(&k, "\"rope_scaling\":null", &e) &&
             c->attn_scale == (float)(1 / sqrt(192.0)) && !k.yarn, "no scaling: %s", e.msg);
    T_OK(!read_config(&k, "\"rope_scaling\":{\"type\":\"yarn\",\"factor\":40,\"mscale\":0.707,"
                          "\"mscale_all_dim\":1.0}", &e) &&
             fabs(c->rope_mult - (0.0707 * log(40) + 1) / (0.1 * log(40) + 1)) < 1e-15,
         "mscale over mscale_all_dim: %s, %.17g", e.msg, c->rope_mult);
}

static void test_config_refusals(void)
{
    static const struct { const char *extra, *says; } cases[] = {
        { "\"scoring_func\":\"softmax\"", "scoring_func is \"softmax\"" },
        { "\"topk_method\":\"group_limited_greedy\"", "topk_method is" },
        { "\"moe_layer_freq\":2", "moe_layer_freq is 2" },
        { "\"hidden_act\":\"gelu\"", "hidden_act is \"gelu\"" },
        { "\"attention_bias\":true", "attention_bias is true" },
        { "\"kv_lora_rank\":null", "kv_lora_rank is missing" },
        { "\"kv_lora_rank\":500", "kv_lora_rank is 500: must be a multiple of 16" },
        { "\"v_head_dim\":72", "v_head_dim is 72: must be a multiple of 16" },
        { "\"qk_rope_head_dim\":63", "qk_rope_head_dim is 63" },
        { "\"num_key_value_heads\":8", "num_key_value_heads is 8" },
        { "\"n_routed_experts\":null", "n_routed_experts is missing" },
        { "\"n_routed_experts\":100000", "n_routed_experts is 100000" },
        { "\"num_experts_per_tok\":257", "num_experts_per_tok is 257" },
        { "\"topk_group\":9", "topk_group is 9" },
        { "\"n_group\":7", "n_group is 7" },
        { "\"n_group\":256", "n_group is 256" },
        { "\"n_group\":64,\"topk_group\":1", "num_experts_per_tok is 8" },
        { "\"first_k_dense_replace\":62", "first_k_dense_replace is 62" },
        { "\"routed_scaling_factor\":-1", "routed_scaling_factor is -1" },
        { "\"num_nextn_predict_layers\":99", "num_nextn_predict_layers is 99" },
        { "\"quantization_config\":{\"quant_method\":\"gptq\"}",
          "quantization_config.quant_method is \"gptq\"" },
        { "\"quantization_config\":{\"quant_method\":\"fp8\",\"fmt\":\"e5m2\"}",
          "quantization_config.fmt is \"e5m2\"" },
        { "\"quantization_config\":{\"quant_method\":\"fp8\"}",
          "quantization_config.weight_block_size is missing" },
        { "\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":[128,64]}",
          "quantization_config.weight_block_size is a list" },
        { "\"quantization_config\":7", "quantization_config" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cv_config c;
        vq_err e;
        const vq_status st = read_config(&c, cases[i].extra, &e);
        T_OK(st == VQ_EFORMAT && strstr(e.msg, cases[i].says), "%s: %d %s", cases[i].extra, st,
             e.msg);
    }
}

/* ---- values ---- */

/* The weight at (r, c) as the checkpoint says it: with its scale if it has one. */
static float weight(ck *k, const ck_tensor *t, int r, int c)
{
    char name[96];
    snprintf(name, sizeof name, "%s_scale_inv", t->name);
    const ck_tensor *s = ck_find(k, name);
    const float v = t->v[r * t->cols + c];
    return s ? v * s->v[r / 128 * s->cols + c / 128] : v;
}

static float stored(const vq_file *f, const vaq_tensor *t, uint32_t row, uint32_t col)
{
    float v[512];
    const int k = (int)t->cols;
    if (t->layout == 0) return ((const float *)vq_file_data(f, t))[col];
    const uint8_t *group = (const uint8_t *)vq_file_data(f, t) +
                           row / 16 * q_group_bytes(t->type, k);
    q_decode_row(t->type, v, group, (int)(row % 16), k);
    return v[col];
}

static const vaq_tensor *tensor(const vq_file *f, vaq_role role, int layer, int expert)
{
    const vaq_tensor *t = vq_file_find(f, role, layer, expert);
    T_OK(t != NULL, "role %d of layer %d, expert %d", role, layer, expert);
    return t;
}

/* Row by row what the checkpoint's tensor is; a vector is one row. */
static void same(const vq_file *f, ck *k, vaq_role role, int layer, const char *name)
{
    const ck_tensor *c = ck_find(k, name);
    const vaq_tensor *t = tensor(f, role, layer, -1);
    size_t wrong = 0;
    T_OK(c && t && t->rows == (uint32_t)(c->rows ? c->rows : 1) && t->cols == (uint32_t)c->cols,
         "%s", name);
    for (uint32_t r = 0; t && r < t->rows; r++) {
        for (uint32_t i = 0; i < t->cols; i++) {
            wrong += stored(f, t, r, i) != weight(k, c, (int)r, (int)i);
        }
    }
    T_OK(!wrong, "%s: %zu weights differ", name, wrong);
}

/* Groups of gate and up in turns, both padded to whole groups; then down. */
static void same_ffn(const vq_file *f, ck *k, vaq_role pair, vaq_role down, int layer, int expert,
                     const char *start)
{
    char name[3][96];
    static const char *const part[] = { "gate", "up", "down" };
    const ck_tensor *c[3];
    for (int i = 0; i < 3; i++) {
        snprintf(name[i], sizeof name[i], "model.layers.%d.mlp.%s%s_proj.weight", layer, start,
                 part[i]);
        c[i] = ck_find(k, name[i]);
        T_OK(c[i] != NULL, "%s", name[i]);
    }
    const vaq_tensor *t = tensor(f, pair, layer, expert), *d = tensor(f, down, layer, expert);
    if (!t || !d) return;
    size_t wrong = 0;
    T_OK(t->rows == 2 * (uint32_t)(c[0]->rows + 15) / 32 * 32 || t->rows % 32 == 0, "padded");
    T_OK(t->params == 2u * (unsigned)c[0]->rows * CK_DS_HIDDEN, "%s: weights", name[0]);
    for (uint32_t r = 0; r < t->rows; r++) {
        const int from = (int)(r / 32 * 16 + r % 16);
        const ck_tensor *half = c[r / 16 % 2];
        for (uint32_t i = 0; i < t->cols; i++) {
            const float want = from < half->rows ? weight(k, half, from, (int)i) : 0;
            wrong += stored(f, t, r, i) != want;
        }
    }
    for (uint32_t r = 0; r < d->rows; r++) {
        for (uint32_t i = 0; i < d->cols; i++) {
            wrong += stored(f, d, r, i) != weight(k, c[2], (int)r, (int)i);
        }
    }
    T_OK(!wrong, "%s: %zu weights differ", name[0], wrong);
}

/* Every head of kv_b_proj in two: the k rows turned, the v rows as they are. */
static void same_heads(const vq_file *f, ck *k, int layer)
{
    enum { ROWS = CK_DS_NOPE + CK_DS_V };
    char name[96];
    snprintf(name, sizeof name, "model.layers.%d.self_attn.kv_b_proj.weight", layer);
    const ck_tensor *c = ck_find(k, name);
    const vaq_tensor *ku = tensor(f, VAQ_K_UP, layer, -1), *vu = tensor(f, VAQ_V_UP, layer, -1);
    if (!c || !ku || !vu) return;
    T_OK(ku->rows == CK_DS_HEADS * CK_DS_KV && ku->cols == CK_DS_NOPE, "k_up");
    T_OK(vu->rows == CK_DS_HEADS * CK_DS_V && vu->cols == CK_DS_KV, "v_up");
    size_t wrong = 0;
    for (int h = 0; h < CK_DS_HEADS; h++) {
        for (int j = 0; j < CK_DS_KV; j++) {
            for (int i = 0; i < CK_DS_NOPE; i++) {
                wrong += stored(f, ku, (uint32_t)(h * CK_DS_KV + j), (uint32_t)i) !=
                         weight(k, c, h * ROWS + i, j);
            }
            for (int d = 0; d < CK_DS_V; d++) {
                wrong += stored(f, vu, (uint32_t)(h * CK_DS_V + d), (uint32_t)j) !=
                         weight(k, c, h * ROWS + CK_DS_NOPE + d, j);
            }
        }
    }
    T_OK(!wrong, "layer %d: %zu weights of kv_b differ", layer, wrong);
}

static void same_layer(const vq_file *f, ck *k, int l)
{
    static const struct { vaq_role role; const char *name; } all[] = {
        { VAQ_NORM_ATTN, "input_layernorm.weight" },
        { VAQ_NORM_FFN, "post_attention_layernorm.weight" },
        { VAQ_Q_A, "self_attn.q_a_proj.weight" },
        { VAQ_Q_A_NORM, "self_attn.q_a_layernorm.weight" },
        { VAQ_Q_B, "self_attn.q_b_proj.weight" },
        { VAQ_KV_A, "self_attn.kv_a_proj_with_mqa.weight" },
        { VAQ_KV_A_NORM, "self_attn.kv_a_layernorm.weight" },
        { VAQ_O, "self_attn.o_proj.weight" }, { VAQ_ROUTER, "mlp.gate.weight" },
        { VAQ_ROUTER_BIAS, "mlp.gate.e_score_correction_bias" },
    };
    char name[96];
    for (int i = 0; i < (l ? 10 : 8); i++) {
        snprintf(name, sizeof name, "model.layers.%d.%s", l, all[i].name);
        same(f, k, all[i].role, l, name);
    }
    same_heads(f, k, l);
    if (!l) {
        same_ffn(f, k, VAQ_GATE_UP, VAQ_DOWN, l, -1, "");
        return;
    }
    same_ffn(f, k, VAQ_SHARED_GATE_UP, VAQ_SHARED_DOWN, l, -1, "shared_experts.");
    for (int x = 0; x < CK_DS_EXPERTS; x++) {
        char start[32];
        snprintf(start, sizeof start, "experts.%d.", x);
        same_ffn(f, k, VAQ_EXPERT_GATE_UP, VAQ_EXPERT_DOWN, l, x, start);
    }
}

static uint64_t end_of(const vaq_tensor *t)
{
    return (t->off + t->size + VAQ_PAGE - 1) / VAQ_PAGE * VAQ_PAGE;
}

/* The experts of a layer: one piece of the file, an expert one piece of that. */
static void check_order(const vq_file *f)
{
    const vaq_config *c = f->config;
    for (uint32_t l = c->n_dense_layer; l < c->n_layer + c->n_mtp; l++) {
        uint64_t at = 0;
        uint32_t right = 0;
        for (uint32_t x = 0; x < c->n_expert; x++) {
            const vaq_tensor *g = vq_file_find(f, VAQ_EXPERT_GATE_UP, (int)l, (int)x);
            const vaq_tensor *d = vq_file_find(f, VAQ_EXPERT_DOWN, (int)l, (int)x);
            if (!g || !d) break;
            right += (!x || g->off == at) && d->off == end_of(g);
            at = end_of(d);
        }
        T_OK(right == c->n_expert, "layer %u: %u experts in place", l, right);
    }
}

static vq_file *converted(const ck *k, const cv_opts *o)
{
    cv_report r;
    vq_err e;
    vq_file *f = NULL;
    ck_empty(src);
    T_OK(!ck_write(k, src), "write");
    T_OK(!convert(o, &r, &e), "%s", e.msg);
    cv_report_clear(&r);
    T_OK(!vq_file_open(&f, out, NULL, &e), "%s", e.msg);
    return f;
}

static void test_content(void)
{
    ck k;
    ck_dsv3(&k);
    k.n_files = 2;
    for (int i = 0; i < k.n; i++) k.t[i].file = strstr(k.t[i].name, "_scale_inv") != NULL;
    vq_file *f = converted(&k, &(cv_opts){ .type = Q_F32, .threads = 2 });
    if (!f) return;
    for (int l = 0; l <= CK_DS_LAYERS; l++) same_layer(f, &k, l);
    same(f, &k, VAQ_EMBED, -1, "model.embed_tokens.weight");
    same(f, &k, VAQ_HEAD, -1, "lm_head.weight");
    same(f, &k, VAQ_NORM_OUT, -1, "model.norm.weight");
    same(f, &k, VAQ_MTP_EMBED, 2, "model.layers.2.embed_tokens.weight");
    same(f, &k, VAQ_MTP_HEAD, 2, "model.layers.2.shared_head.head.weight");
    same(f, &k, VAQ_MTP_ENORM, 2, "model.layers.2.enorm.weight");
    same(f, &k, VAQ_MTP_HNORM, 2, "model.layers.2.hnorm.weight");
    same(f, &k, VAQ_MTP_EH, 2, "model.layers.2.eh_proj.weight");
    same(f, &k, VAQ_MTP_NORM, 2, "model.layers.2.shared_head.norm.weight");
    check_order(f);
    uint64_t params = 0, want = 0;
    for (uint32_t i = 0; i < f->n_tensor; i++) params += f->tensor[i].params;
    for (int i = 0; i < k.n; i++) {
        const ck_tensor *t = &k.t[i];
        if (!t->file) want += (uint64_t)(t->rows ? t->rows : 1) * (unsigned)t->cols;
    }
    T_OK(params == want, "every weight once: %llu of %llu", (unsigned long long)params,
         (unsigned long long)want);
    char name[96];
    vq_tensor_name(name, vq_file_find(f, VAQ_EXPERT_DOWN, 1, 3));
    T_OK(!strcmp(name, "model.layers.1.mlp.experts.3.down_proj.weight"), "%s", name);
    vq_file_close(f);
    ck_free(&k);
}

/* The same values in F32 give the same bytes, as whatever type: nothing is rounded on the way. */
static void test_same_as_f32(void)
{
    char eight[2][65], full[65];
    ck k;
    ck_dsv3(&k);
    hash_of(eight[0], &k, NULL, Q_N4);
    hash_of(eight[1], NULL, NULL, Q_L8);
    for (int i = 0; i < k.n; i++) {
        ck_tensor *t = &k.t[i];
        if (strcmp(t->dtype, "F8_E4M3")) continue;
        for (int r = 0; r < t->rows; r++) {
            for (int c = 0; c < t->cols; c++) t->v[r * t->cols + c] = weight(&k, t, r, c);
        }
        t->dtype = "F32";
        k.t[i + 1].file = -1;
    }
    char *end = strstr(k.config, ",\"quantization_config\"");
    strcpy(end, "}");
    hash_of(full, &k, NULL, Q_N4);
    T_OK(!strcmp(eight[0], full), "n4");
    hash_of(full, NULL, NULL, Q_L8);
    T_OK(!strcmp(eight[1], full), "l8");
    ck_free(&k);
}

/* ---- types ---- */

static void test_recipe(void)
{
    static const int order[] = { Q_P5, Q_P6, Q_N4S, Q_N4, Q_N5, Q_L6, Q_L8 };
    const vaq_config c = { .arch = VAQ_DEEPSEEK3, .n_layer = 61, .n_expert = 256,
                           .n_dense_layer = 3, .n_mtp = 1 };
    int rank[64] = { 0 }; /* place in the order of size */
    for (int i = 0; i < 7; i++) rank[order[i]] = i;
    const int base = cv_recipe_type(-1, &c, VAQ_EXPERT_GATE_UP, 6);
    T_OK(base == Q_P6, "gate, up: %d", base);
    for (uint32_t l = 3; l < 62; l++) {
        const int gu = cv_recipe_type(-1, &c, VAQ_EXPERT_GATE_UP, l);
        const int down = cv_recipe_type(-1, &c, VAQ_EXPERT_DOWN, l);
        T_OK(rank[gu] == rank[base] + (l < 6), "layer %u: gate, up", l);
        T_OK(rank[down] == rank[gu] + 1, "layer %u: down one step up", l);
    }
    static const struct { vaq_role role; int type; } fixed[] = {
        { VAQ_Q_A, Q_L8 }, { VAQ_Q_B, Q_L8 }, { VAQ_KV_A, Q_L8 }, { VAQ_K_UP, Q_L8 },
        { VAQ_V_UP, Q_L8 }, { VAQ_O, Q_L8 }, { VAQ_GATE_UP, Q_L6 }, { VAQ_DOWN, Q_L6 },
        { VAQ_SHARED_GATE_UP, Q_L6 }, { VAQ_SHARED_DOWN, Q_L6 }, { VAQ_EMBED, Q_L8 },
        { VAQ_HEAD, Q_L6 }, { VAQ_ROUTER, Q_F32 }, { VAQ_MTP_EH, Q_L8 }, { VAQ_MTP_EMBED, Q_L8 },
        { VAQ_MTP_HEAD, Q_L6 },
    };
    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++) {
        T_OK(cv_recipe_type(-1, &c, fixed[i].role, 10) == fixed[i].type, "role %d", fixed[i].role);
    }
    T_OK(cv_recipe_type(Q_N4, &c, VAQ_ROUTER, 10) == Q_F32, "the router is never anything else");
    T_OK(cv_recipe_type(Q_N4, &c, VAQ_K_UP, 10) == Q_N4, "a named type is for all others");
}

/* ---- the MTP layer ---- */

static char said[300];

static void hear(void *ctx, const char *line)
{
    (void)ctx;
    if (strstr(line, "MTP")) snprintf(said, sizeof said, "%s", line);
}

static void expect_mtp(const ck *k, bool drop, uint32_t n_mtp, uint32_t flags, const char *says)
{
    said[0] = 0;
    vq_file *f = converted(k, &(cv_opts){ .type = Q_L8, .drop_mtp = drop, .notice = hear });
    if (!f) return;
    const uint32_t both = VAQ_F_MTP_EMBED | VAQ_F_MTP_HEAD;
    T_OK(f->config->n_mtp == n_mtp && (f->config->flags & both) == flags, "%u layers, flags %x",
         f->config->n_mtp, f->config->flags);
    T_OK(!vq_file_find(f, VAQ_MTP_EMBED, 2, -1) == (!n_mtp || (flags & VAQ_F_MTP_EMBED)), "embed");
    T_OK(!vq_file_find(f, VAQ_MTP_HEAD, 2, -1) == (!n_mtp || (flags & VAQ_F_MTP_HEAD)), "head");
    T_OK(!vq_file_find(f, VAQ_O, 2, -1) == !n_mtp, "its block");
    T_OK(*says ? strstr(said, says) != NULL : !*said, "said: %s", said);
    vq_file_close(f);
}

static void test_mtp(void)
{
    ck k;
    ck_dsv3(&k);
    ck_tensor *embed = ck_find(&k, "model.layers.2.embed_tokens.weight");
    ck_tensor *head = ck_find(&k, "model.layers.2.shared_head.head.weight");
    const size_t bytes = CK_VOCAB * CK_DS_HIDDEN * sizeof(float);
    expect_mtp(&k, false, 1, 0, "");
    memcpy(embed->v, ck_find(&k, "model.embed_tokens.weight")->v, bytes);
    expect_mtp(&k, false, 1, VAQ_F_MTP_EMBED, "");
    memcpy(head->v, ck_find(&k, "lm_head.weight")->v, bytes);
    expect_mtp(&k, false, 1, VAQ_F_MTP_EMBED | VAQ_F_MTP_HEAD, "");
    head->v[7] += 0.5f;
    expect_mtp(&k, false, 1, VAQ_F_MTP_EMBED, "");
    expect_mtp(&k, true, 0, 0, "");
    head->file = -1;
    expect_mtp(&k, false, 0, 0, "lacks layers.2.shared_head.head.weight");
    head->file = 0;
    for (int i = 0; i < k.n; i++) {
        if (!strncmp(k.t[i].name, "model.layers.2.", 15)) k.t[i].file = -1;
    }
    expect_mtp(&k, false, 0, 0, "lacks layers.2.");
    ck_add(&k, "model.layers.3.enorm.weight", 0, CK_DS_HIDDEN);
    refused(&k, VQ_EFORMAT, "layers.3.enorm.weight belongs to nothing");
    ck_free(&k);
}

/* ---- refusals ---- */

static void test_bad_scales(void)
{
    ck k;
    ck_dsv3(&k);
    ck_tensor *s = ck_find(&k, "model.layers.1.mlp.experts.2.up_proj.weight_scale_inv");
    ck_tensor *w = ck_find(&k, "model.layers.1.mlp.experts.2.up_proj.weight");
    ck_tensor *norm = ck_find(&k, "model.norm.weight");
    s->file = -1;
    refused(&k, VQ_EFORMAT, "model.layers.1.mlp.experts.2.up_proj.weight_scale_inv, are in no");
    s->file = 0;
    s->cols = 1;
    refused(&k, VQ_EFORMAT, "weight_scale_inv is 1 x 1, one scale per 128 x 128 weights is 1 x 2");
    s->cols = 2;
    s->dtype = "BF16";
    refused(&k, VQ_EFORMAT, "weight_scale_inv is BF16; scales of FP8 weights must be F32");
    s->dtype = "F32";
    w->dtype = "BF16"; /* so the scales are nobody's: the weights would be wrong without them */
    refused(&k, VQ_EFORMAT, "experts.2.up_proj.weight_scale_inv belongs to nothing");
    w->dtype = "F8_E4M3";
    norm->dtype = "F8_E4M3";
    refused(&k, VQ_EFORMAT, "model.norm.weight is F8_E4M3");
    norm->dtype = "BF16";
    s->v[1] = INFINITY;
    refused(&k, VQ_EFORMAT, "experts.2.up_proj.weight: the weight at row 0, column 128");
    ck_free(&k);
}

/* A byte that is no number is found where it stands in the checkpoint. */
static void test_nan_bytes(void)
{
    static const struct { const char *name; int row, col; } at[] = {
        { "model.layers.0.self_attn.q_a_proj.weight", 135, 143 },
        { "model.layers.0.self_attn.kv_a_proj_with_mqa.weight", 130, 1 },
        { "model.layers.1.mlp.experts.3.up_proj.weight", 17, 130 },
        { "model.layers.2.mlp.shared_experts.down_proj.weight", 129, 5 },
        { "model.layers.1.self_attn.kv_b_proj.weight", 112, 129 },  /* k of the last head */
        { "model.layers.1.self_attn.kv_b_proj.weight", 56 + 23, 0 }, /* k's last row */
        { "model.layers.1.self_attn.kv_b_proj.weight", 56 + 24, 143 }, /* v's first */
        { "model.layers.1.self_attn.kv_b_proj.weight", 167, 16 },   /* v's last */
    };
    for (size_t i = 0; i < sizeof at / sizeof at[0]; i++) {
        char says[128];
        ck k;
        ck_dsv3(&k);
        ck_tensor *t = ck_find(&k, at[i].name);
        t->v[at[i].row * t->cols + at[i].col] = NAN;
        snprintf(says, sizeof says, "%s: the weight at row %d, column %d is not a number",
                 at[i].name, at[i].row, at[i].col);
        refused(&k, VQ_EFORMAT, says);
        ck_free(&k);
    }
}

/* ---- R1's table ---- */

enum { SHARDS = 5 };

typedef struct shard {
    vq_buf head;
    uint64_t bytes;         /* of its tensors: a hole in the file */
} shard;

typedef struct r1 {
    shard s[SHARDS];
    vq_buf index;
    int n;
} r1;

static void r1_add(r1 *x, const char *name, const char *dtype, int size, uint32_t rows,
                   uint32_t cols)
{
    shard *s = &x->s[x->n % SHARDS];
    const uint64_t n = (uint64_t)(rows ? rows : 1) * cols * (unsigned)size;
    const char *prefix = strcmp(name, "lm_head.weight") ? "model." : "";
    vq_buf_printf(&s->head, "%c\"%s%s\":{\"dtype\":\"%s\",\"shape\":[",
                  s->head.n ? ',' : '{', prefix, name, dtype);
    if (rows) vq_buf_printf(&s->head, "%u,", rows);
    vq_buf_printf(&s->head, "%u],\"data_offsets\":[%llu,%llu]}", cols,
                  (unsigned long long)s->bytes, (unsigned long long)(s->bytes + n));
    vq_buf_printf(&x->index, "%s\"%s%s\":\"model-%d.safetensors\"",
                  x->n ? "," : "{\"weight_map\":{", prefix, name, x->n % SHARDS);
    s->bytes += n;
    x->n++;
}

static void r1_bf16(r1 *x, int layer, const char *name, uint32_t rows, uint32_t cols)
{
    char full[96];
    snprintf(full, sizeof full, "layers.%d.%s", layer, name);
    r1_add(x, layer < 0 ? name : full, "BF16", 2, rows, cols);
}

static void r1_fp8(r1 *x, int layer, const char *name, uint32_t rows, uint32_t cols)
{
    char full[96];
    snprintf(full, sizeof full, "layers.%d.%s.weight", layer, name);
    r1_add(x, full, "F8_E4M3", 1, rows, cols);
    snprintf(full, sizeof full, "layers.%d.%s.weight_scale_inv", layer, name);
    r1_add(x, full, "F32", 4, (rows + 127) / 128, (cols + 127) / 128);
}

static void r1_ffn(r1 *x, int layer, const char *start, uint32_t inter)
{
    char name[96];
    snprintf(name, sizeof name, "%sgate_proj", start);
    r1_fp8(x, layer, name, inter, 7168);
    snprintf(name, sizeof name, "%sup_proj", start);
    r1_fp8(x, layer, name, inter, 7168);
    snprintf(name, sizeof name, "%sdown_proj", start);
    r1_fp8(x, layer, name, 7168, inter);
}

static void r1_layer(r1 *x, int l)
{
    char name[96];
    r1_bf16(x, l, "input_layernorm.weight", 0, 7168);
    r1_bf16(x, l, "post_attention_layernorm.weight", 0, 7168);
    r1_fp8(x, l, "self_attn.q_a_proj", 1536, 7168);
    r1_bf16(x, l, "self_attn.q_a_layernorm.weight", 0, 1536);
    r1_fp8(x, l, "self_attn.q_b_proj", 24576, 1536);
    r1_fp8(x, l, "self_attn.kv_a_proj_with_mqa", 576, 7168);
    r1_bf16(x, l, "self_attn.kv_a_layernorm.weight", 0, 512);
    r1_fp8(x, l, "self_attn.kv_b_proj", 32768, 512);
    r1_fp8(x, l, "self_attn.o_proj", 7168, 16384);
    if (l < 3) {
        r1_ffn(x, l, "mlp.", 18432);
        return;
    }
    r1_bf16(x, l, "mlp.gate.weight", 256, 7168);
    snprintf(name, sizeof name, "layers.%d.mlp.gate.e_score_correction_bias", l);
    r1_add(x, name, "F32", 4, 0, 256);
    r1_ffn(x, l, "mlp.shared_experts.", 2048);
    for (int e = 0; e < 256; e++) {
        snprintf(name, sizeof name, "mlp.experts.%d.", e);
        r1_ffn(x, l, name, 2048);
    }
    if (l < 61) return;
    r1_bf16(x, l, "embed_tokens.weight", 129280, 7168);
    r1_bf16(x, l, "shared_head.head.weight", 129280, 7168);
    r1_bf16(x, l, "enorm.weight", 0, 7168);
    r1_bf16(x, l, "hnorm.weight", 0, 7168);
    r1_bf16(x, l, "shared_head.norm.weight", 0, 7168);
    r1_bf16(x, l, "eh_proj.weight", 7168, 14336);
}

/* A file that begins with these bytes and is a hole from there on; false: the disk has no such. */
static bool put_sparse(const char *dir, const char *file, const vq_buf *start, uint64_t size)
{
    char path[512];
    if (ck_put(dir, file, start->p, start->n)) return false;
    snprintf(path, sizeof path, "%s/%s", dir, file);
    return !truncate(path, (off_t)size);
}

static bool r1_write(uint64_t *bytes)
{
    r1 x = { .n = 0 };
    bool ok = true;
    r1_bf16(&x, -1, "embed_tokens.weight", 129280, 7168);
    r1_bf16(&x, -1, "norm.weight", 0, 7168);
    for (int l = 0; l <= 61; l++) r1_layer(&x, l);
    r1_bf16(&x, -1, "lm_head.weight", 129280, 7168);
    T_OK(x.n == 91991, "%d tensors", x.n);
    vq_buf_str(&x.index, "}}");
    ck_empty(src);
    *bytes = 0;
    for (int i = 0; i < SHARDS; i++) {
        vq_buf start = { 0 };
        char file[64];
        shard *s = &x.s[i];
        vq_buf_char(&s->head, '}');
        const uint64_t len = s->head.n;
        vq_buf_add(&start, &len, 8);
        vq_buf_add(&start, s->head.p, s->head.n);
        snprintf(file, sizeof file, "model-%d.safetensors", i);
        ok = ok && !start.oom && put_sparse(src, file, &start, start.n + s->bytes);
        *bytes += s->bytes;
        vq_buf_clear(&start);
        vq_buf_clear(&s->head);
    }
    ok = ok && !ck_put(src, "model.safetensors.index.json", x.index.p, x.index.n) &&
         !ck_put_text(src, "config.json", r1_config);
    vq_buf_clear(&x.index);
    return ok;
}

/* Bytes of the tensors outside of the MTP layer. */
static uint64_t main_bytes(const vq_file *f)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < f->n_tensor; i++) {
        const vaq_tensor *t = &f->tensor[i];
        if (t->layer < 61 || t->layer == 0xffff) n += t->size;
    }
    return n;
}

/* gb: models.md 2, main model at the bits of the type alone; row scales add some thousandths. */
static void r1_container(const cv_ckpt *ckpt, int type, double gb)
{
    cv_config c;
    cv_plan p;
    q_kern kern;
    vq_err e = { 0 };
    vq_buf front = { 0 };
    uint64_t size;
    vq_file *f;
    T_OK(!cv_config_read(&c, &ckpt->config.j, "config.json", false, &e), "%s", e.msg);
    T_OK(!cv_plan_make(&p, ckpt, &c.c, &(cv_plan_opts){ .type = type, .quick = true }, &e), "%s",
         e.msg);
    /* 684,489,845,504 without MTP's copies of embedding and head */
    T_OK(p.params == 671026419200u + 11610068224u && !p.mtp_lacks[0], "%llu weights",
         (unsigned long long)p.params);
    T_OK(p.read_bytes == 688574839360u - 4 * 41540496u - 2 * 2 * 129280 * 7168ull, "bytes read");
    T_OK(p.n == 31077, "%zu tensors", p.n);
    q_kern_make(&kern, NULL);
    const vq_writer_spec spec = { .path = out, .config = &c.c, .rope = c.rope, .tensor = p.tensor,
                                  .n_tensor = p.n, .kern = &kern };
    T_OK(!vq_front_make(&front, &size, &spec, &e), "%s", e.msg);
    cv_plan_clear(&p);
    if (front.n && put_sparse(out_dir, "m.vaq", &front, size)) {
        const double start = vq_now();
        T_OK(!vq_file_open(&f, out, &kern, &e), "%s", e.msg);
        const double ms = (vq_now() - start) * 1e3;
        if (f) {
            const double is = (double)main_bytes(f) / 1e9;
            printf("R1 as %s: %.1f GB (%.1f with MTP), %u tensors, opened in %.1f ms\n",
                   type < 0 ? "auto" : q_type_info(type)->name, is, (double)size / 1e9,
                   f->n_tensor, ms);
            T_OK(gb == 0 || (is >= gb && is < 1.005 * gb), "%.2f, not %.2f GB", is, gb);
            check_order(f);
        }
        vq_file_close(f);
    } else {
        T_SKIP("R1's table as a file: no room for a hole of %llu bytes", (unsigned long long)size);
    }
    vq_buf_clear(&front);
}

static void test_r1(void)
{
    cv_ckpt ckpt;
    uint64_t bytes;
    vq_err e = { 0 };
    if (getenv("VQ_QUICK")) {
        T_SKIP("R1's table: too slow under an emulator");
        return;
    }
    if (!r1_write(&bytes)) {
        T_SKIP("R1's table: this disk has no holes of that size");
        return;
    }
    T_OK(bytes == 688574839360u, "%llu bytes", (unsigned long long)bytes);
    const double start = vq_now();
    T_OK(!cv_ckpt_open(&ckpt, src, &e), "%s", e.msg);
    printf("R1's headers: %zu tensors opened in %.0f ms\n", ckpt.n_tensor,
           (vq_now() - start) * 1e3);
    if (ckpt.n_tensor == 91991) {
        r1_container(&ckpt, Q_N4, 671.0264192 * 4.5 / 8);
        r1_container(&ckpt, Q_L8, 671.0264192 * 8.5 / 8);
        r1_container(&ckpt, -1, 0);
    }
    cv_ckpt_close(&ckpt);
}

int main(void)
{
    conv_begin();
    test_config();
    test_config_refusals();
    test_content();
    test_same_as_f32();
    test_recipe();
    test_mtp();
    test_bad_scales();
    test_nan_bytes();
    test_r1();
    conv_end();
    return t_done("t_dsv3");
}
