/* t_hfconfig.c - config.json into numbers: the real configs of the family, the traps, refusals; and
 * the rope tables against the reference arrays. */
#include "convert/hfconfig.h"

#include "convert/ropetab.h"
#include "core/base/os.h"
#include "tests/test.h"

#include <math.h>

static vq_status read_text(cv_config *out, const char *text, bool yarn_hf, vq_err *e)
{
    vq_json j;
    vq_status st = vq_json_parse(&j, text, strlen(text), "config.json", e);
    if (!st) st = cv_config_read(out, &j, "config.json", yarn_hf, e);
    vq_json_clear(&j);
    return st;
}

/* A whole config with `extra` members: a key given twice counts with its last value. */
static vq_status read_with(cv_config *out, const char *extra, bool yarn_hf, vq_err *e)
{
    char text[2000];
    snprintf(text, sizeof text,
             "{\"model_type\":\"qwen2\",\"hidden_size\":1536,\"num_hidden_layers\":28,"
             "\"num_attention_heads\":12,\"num_key_value_heads\":2,\"intermediate_size\":8960,"
             "\"vocab_size\":151936,\"max_position_embeddings\":131072,\"rms_norm_eps\":1e-6,"
             "\"hidden_act\":\"silu\",\"rope_theta\":10000,\"tie_word_embeddings\":false%s%s}",
             *extra ? "," : "", extra);
    return read_text(out, text, yarn_hf, e);
}

static void test_defaults(void)
{
    cv_config c;
    vq_err e = { 0 };
    T_OK(!read_with(&c, "", false, &e), "%s", e.msg);
    T_OK(c.c.arch == VAQ_QWEN2 && c.c.flags == VAQ_F_QKV_BIAS, "arch, flags");
    T_OK(c.c.head_dim == 128 && c.c.v_dim == 128 && c.c.rope_dim == 128, "head_dim derived");
    T_OK(c.c.n_ids == 151936 && c.c.bos == -1 && c.c.eos == -1 && c.c.template_id == 0, "ids");
    T_OK(c.c.rope_mult == 1 && c.c.eps == 1e-6f && c.c.attn_scale == 0x1.6a09e6p-4f, "constants");
    T_OK(c.rope[0] == 1 && c.rope[63] == 0x1.e459c57e28a47p-14, "rope %a", c.rope[63]);
    T_OK(c.c.temperature == 0.6f && c.c.top_p == 0.95f, "advice");

    T_OK(!read_with(&c, "\"head_dim\":64,\"num_key_value_heads\":null,\"bos_token_id\":151643,"
                        "\"eos_token_id\":[7,8],\"attention_bias\":false,\"sliding_window\":4096,"
                        "\"use_sliding_window\":false,\"max_window_layers\":21,"
                        "\"rope_scaling\":null,\"tie_word_embeddings\":true,"
                        "\"layer_types\":[\"full_attention\"]", false, &e), "%s", e.msg);
    T_OK(c.c.head_dim == 64 && c.c.n_head_kv == 12, "given head_dim, absent kv heads");
    T_OK(c.c.flags == (VAQ_F_QKV_BIAS | VAQ_F_TIED), "qwen2 has its biases anyway");
    T_OK(c.c.bos == 151643 && c.c.eos == 7, "ids %d %d", c.c.bos, c.c.eos);

    T_OK(!read_with(&c, "\"model_type\":null,\"architectures\":[\"Qwen3ForCausalLM\"]", false, &e),
         "%s", e.msg);
    T_OK(c.c.arch == VAQ_QWEN3 && c.c.head_dim == 128 && c.c.flags == VAQ_F_QK_NORM, "qwen3");
    T_OK(!read_with(&c, "\"eos_token_id\":151936", false, &e) && c.c.eos == -1, "id out of range");
    T_OK(!read_with(&c, "\"rope_theta\":null,\"rope_parameters\":{\"rope_type\":\"default\","
                        "\"rope_theta\":1000000.0}", false, &e), "%s", e.msg);
    T_OK(fabs(c.rope[1] - 0.8058421877614819) < 1e-15, "theta in rope_parameters");
}

static void test_refusals(void)
{
    static const struct { const char *extra, *says; } cases[] = {
        { "\"model_type\":\"deepseek_v3\",\"num_key_value_heads\":12", "kv_lora_rank is missing" },
        { "\"model_type\":\"gemma2\"", "model_type is \"gemma2\"" },
        { "\"architectures\":[\"Qwen2ForSequenceClassification\"]", "architectures" },
        { "\"hidden_act\":\"gelu\"", "hidden_act is \"gelu\"" },
        { "\"use_sliding_window\":true", "use_sliding_window is true" },
        { "\"mlp_bias\":true", "mlp_bias" },
        { "\"model_type\":\"llama\",\"attention_bias\":true", "attention_bias" },
        { "\"use_mrope\":true", "use_mrope" },
        { "\"partial_rotary_factor\":0.5", "partial_rotary_factor is 0.5" },
        { "\"quantization_config\":{\"quant_method\":\"fp8\"}", "quantization_config" },
        { "\"layer_types\":[\"full_attention\",\"sliding_attention\"]", "sliding_attention" },
        { "\"hidden_size\":null", "hidden_size is missing" },
        { "\"hidden_size\":\"1536\"", "hidden_size is \"1536\"" },
        { "\"hidden_size\":1536.0", "hidden_size is 1536.0" },
        { "\"hidden_size\":-1", "hidden_size is -1" },
        { "\"hidden_size\":9999999999999", "hidden_size" },
        { "\"num_hidden_layers\":0", "num_hidden_layers" },
        { "\"num_hidden_layers\":100000", "num_hidden_layers" },
        { "\"num_attention_heads\":7,\"num_key_value_heads\":7", "num_attention_heads is 7" },
        { "\"num_key_value_heads\":5", "num_key_value_heads is 5" },
        { "\"head_dim\":33", "head_dim" },
        { "\"head_dim\":4096", "head_dim" },
        { "\"rms_norm_eps\":0", "rms_norm_eps" },
        { "\"rope_theta\":1", "rope_theta" },
        { "\"tie_word_embeddings\":1", "tie_word_embeddings is 1" },
        { "\"rope_scaling\":4", "rope_scaling is 4" },
        { "\"rope_scaling\":{}", "rope_type is missing" },
        { "\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}", "type is \"linear\"" },
        { "\"rope_scaling\":{\"rope_type\":\"longrope\"}", "longrope" },
        { "\"rope_scaling\":{\"rope_type\":\"yarn\",\"type\":\"llama3\",\"factor\":2}",
          "contradicts" },
        { "\"rope_scaling\":{\"rope_type\":\"yarn\"}", "factor is missing" },
        { "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":0.5}", "factor is 0.5" },
        { "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4,\"finetuned\":true}",
          "rope_scaling.finetuned is true" },
        { "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4,\"truncate\":false}", "truncate" },
        { "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4,\"beta_fast\":1}", "beta_fast" },
        { "\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,"
          "\"high_freq_factor\":4}", "original_max_position_embeddings is missing" },
        { "\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,"
          "\"high_freq_factor\":4,\"original_max_position_embeddings\":8192}", "high_freq_factor" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cv_config c;
        vq_err e = { 0 };
        const vq_status st = read_with(&c, cases[i].extra, false, &e);
        T_OK(st == VQ_EFORMAT && strstr(e.msg, cases[i].says), "%s: %d %s", cases[i].extra, st,
             e.msg);
    }
    cv_config c;
    vq_err e = { 0 };
    T_OK(read_text(&c, "[]", false, &e) == VQ_EFORMAT, "a list");
    T_OK(read_text(&c, "{}", false, &e) == VQ_EFORMAT, "nothing");
}

static void test_generation(void)
{
    static const struct { const char *text; vq_status st; } cases[] = {
        { "{\"temperature\":0.7,\"top_p\":0.8,\"bos_token_id\":3,\"eos_token_id\":[4,5]}", VQ_OK },
        { "{\"temperature\":-1}", VQ_EFORMAT },
        { "{\"top_p\":1e999}", VQ_EFORMAT },
        { "{\"temperature\":\"hot\"}", VQ_EFORMAT },
        { "{}", VQ_OK },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        vaq_config c = { .n_vocab = 10, .bos = 1, .eos = 2, .temperature = 0.6f, .top_p = 0.95f };
        vq_json j;
        vq_err e = { 0 };
        T_OK(!vq_json_parse(&j, cases[i].text, strlen(cases[i].text), "g", &e), "%s", e.msg);
        const vq_status st = cv_generation_read(&c, &j, "generation_config.json", &e);
        T_OK(st == cases[i].st, "%s: %d %s", cases[i].text, st, e.msg);
        if (i == 0) {
            T_OK(c.temperature == 0.7f && c.top_p == 0.8f && c.bos == 3 && c.eos == 4, "taken");
        }
        if (i == 4) T_OK(c.temperature == 0.6f && c.bos == 1 && c.eos == 2, "left alone");
        vq_json_clear(&j);
    }
}

/* ---- rope ---- */

/* Correctly rounded results (60-digit arithmetic); equal on every machine. */
static void test_ln_pow(void)
{
    static const struct { double x, ln; } lns[] = {
        { 1, 0 }, { 2, 0x1.62e42fefa39efp-1 }, { 10000, 0x1.26bb1bbb55516p+3 },
        { 1e6, 0x1.ba18a998fffap+3 }, { 500000, 0x1.a3ea669a05c01p+3 },
        { 40, 0x1.d82d33b32720dp+1 }, { 0.5, -0x1.62e42fefa39efp-1 }
    };
    for (size_t i = 0; i < sizeof lns / sizeof lns[0]; i++) {
        T_OK(cv_ln(lns[i].x) == lns[i].ln, "ln %g = %a", lns[i].x, cv_ln(lns[i].x));
    }
    T_OK(cv_pow(10000, -0.5) == 0.01 && cv_pow(2, 0.5) == 0x1.6a09e667f3bcdp+0, "roots");
    T_OK(cv_pow(10000, 0) == 1 && cv_pow(10, 3) == 1000 && cv_pow(4, -1.5) == 0.125, "exact");
    T_OK(cv_yarn_magnitude(1, 1) == 1 && cv_yarn_magnitude(0.5, 3) == 1, "no scaling");
}

static const char qwen3_yarn[] =
    "\"model_type\":\"qwen3\",\"hidden_size\":4096,\"num_attention_heads\":32,\"head_dim\":128,"
    "\"num_key_value_heads\":8,\"rope_theta\":1000000,\"rope_scaling\":{\"rope_type\":\"yarn\","
    "\"factor\":4.0,\"original_max_position_embeddings\":32768,\"attn_factor\":0.8782488562869419}";

static void test_yarn(void)
{
    cv_config file, hf;
    vq_err e = { 0 };
    T_OK(!read_with(&file, qwen3_yarn, false, &e) && file.yarn, "%s", e.msg);
    T_OK(!read_with(&hf, qwen3_yarn, true, &e), "%s", e.msg);
    T_OK(file.c.rope_mult == 1, "0528-Qwen3-8B means 1: %a", file.c.rope_mult);
    T_OK(hf.c.rope_mult == 0x1.237d37fe5d298p+0, "transformers: %a", hf.c.rope_mult);
    T_OK(!memcmp(file.rope, hf.rope, sizeof file.rope), "the same frequencies");
    T_OK(file.c.attn_scale == 0x1.6a09e6p-4f, "whole scale: no magnitude on it");
    T_OK(file.rope[1] == cv_pow(1e6, -1.0 / 64) && file.rope[63] == cv_pow(1e6, -63.0 / 64) / 4,
         "fast pairs stay, slow ones are slowed");
    T_OK(!read_with(&hf, "\"rope_scaling\":{\"type\":\"yarn\",\"factor\":40,\"mscale\":1.0,"
                         "\"mscale_all_dim\":1.0,\"original_max_position_embeddings\":4096}", false,
                    &e) && hf.c.rope_mult == 1, "mscale over mscale_all_dim: %s", e.msg);
    T_OK(!read_with(&hf, "\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,"
                         "\"attention_factor\":1.5}", false, &e) && hf.c.rope_mult == 1.5,
         "attention_factor is final: %s", e.msg);
}

static void compare_rope(const vq_json *ref, const char *model, const cv_config *c)
{
    const uint32_t list = vq_json_get(ref, vq_json_get(ref, 0, model), "inv_freq");
    double worst = 0;
    uint32_t i = 0;
    for (uint32_t k = list ? vq_json_first(ref, list) : 0; k; k = vq_json_next(ref, list, k), i++) {
        double want = 0;
        vq_json_f64(ref, k, &want);
        const double err = fabs(c->rope[i] - want) / want;
        if (!(err <= worst)) worst = err;
    }
    T_OK(i == c->c.rope_dim / 2, "%s: %u frequencies", model, i);
    T_OK(worst < 1e-15, "%s: relative error %g", model, worst);
    printf("rope %s: %u frequencies, largest relative error %.2g\n", model, i, worst);
}

static bool read_file(vq_json *j, vq_buf *text, const char *path)
{
    vq_err e = { 0 };
    *text = (vq_buf){ 0 };
    const bool ok = !vq_file_read(path, 1 << 20, text, &e) &&
                    !vq_json_parse(j, text->p, text->n, path, &e);
    T_OK(ok, "%s", e.msg);
    return ok;
}

/* Published configs, with the values of models.md 1.1. */
static void test_real_configs(void)
{
    static const struct {
        const char *name;
        const char *rope;       /* key of the reference */
        uint32_t arch, n_layer, hidden, n_head, n_head_kv, inter, n_vocab;
        float eps;
    } models[] = {
        { "DeepSeek-R1-Distill-Qwen-1.5B", "DeepSeek-R1-Distill-Qwen-1.5B/7B",
          VAQ_QWEN2, 28, 1536, 12, 2, 8960, 151936, 1e-6f },
        { "DeepSeek-R1-Distill-Qwen-7B", "DeepSeek-R1-Distill-Qwen-1.5B/7B",
          VAQ_QWEN2, 28, 3584, 28, 4, 18944, 152064, 1e-6f },
        { "DeepSeek-R1-Distill-Qwen-14B", "DeepSeek-R1-Distill-Qwen-14B/32B",
          VAQ_QWEN2, 48, 5120, 40, 8, 13824, 152064, 1e-5f },
        { "DeepSeek-R1-Distill-Qwen-32B", "DeepSeek-R1-Distill-Qwen-14B/32B",
          VAQ_QWEN2, 64, 5120, 40, 8, 27648, 152064, 1e-5f },
        { "DeepSeek-R1-Distill-Llama-8B", "DeepSeek-R1-Distill-Llama",
          VAQ_LLAMA, 32, 4096, 32, 8, 14336, 128256, 1e-5f },
        { "DeepSeek-R1-Distill-Llama-70B", "DeepSeek-R1-Distill-Llama",
          VAQ_LLAMA, 80, 8192, 64, 8, 28672, 128256, 1e-5f },
        { "DeepSeek-R1-0528-Qwen3-8B", "DeepSeek-R1-0528-Qwen3-8B",
          VAQ_QWEN3, 36, 4096, 32, 8, 12288, 151936, 1e-6f },
    };
    char path[600];
    vq_json ref, j;
    vq_buf ref_text, text;
    snprintf(path, sizeof path, "%s/data/models/rope_reference.json", t_shared());
    if (!vq_is_regular(path)) {
        T_SKIP("configs and rope reference: %s is not there", path);
        return;
    }
    if (!read_file(&ref, &ref_text, path)) return;
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        cv_config c;
        vq_err e = { 0 };
        snprintf(path, sizeof path, "%s/data/models/configs/%s.json", t_shared(), models[i].name);
        if (!read_file(&j, &text, path)) continue;
        T_OK(!cv_config_read(&c, &j, path, false, &e), "%s", e.msg);
        T_OK(c.c.arch == models[i].arch && c.c.n_layer == models[i].n_layer &&
                 c.c.hidden == models[i].hidden && c.c.n_head == models[i].n_head &&
                 c.c.n_head_kv == models[i].n_head_kv && c.c.inter == models[i].inter &&
                 c.c.n_vocab == models[i].n_vocab && c.c.eps == models[i].eps &&
                 c.c.head_dim == 128 && c.c.ctx == 131072 && !(c.c.flags & VAQ_F_TIED),
             "%s", models[i].name);
        compare_rope(&ref, models[i].rope, &c);
        vq_json_clear(&j);
        vq_buf_clear(&text);
    }
    vq_json_clear(&ref);
    vq_buf_clear(&ref_text);
}

int main(void)
{
    test_defaults();
    test_refusals();
    test_generation();
    test_ln_pow();
    test_yarn();
    test_real_configs();
    return t_done("t_hfconfig");
}
