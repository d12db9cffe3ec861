/* hfconfig.c - reads config.json, and refuses what we would compute differently.
 *
 * A config is a list of features, most of them silent: a key that is not understood usually means
 * a model that answers, a little wrong.  So every key that changes the computation of these four
 * architectures is either honoured or refused with its value; keys that do not (dropout, dtype,
 * initialisation, caching) are left alone.  Traps on the way, each met in real files (models.md 6):
 *   head_dim        absent in Qwen2 and Llama 8B: hidden / heads; where given it need not be that
 *   rope_scaling    spelt rope_type or type; missing one spelling drops the scaling silently
 *   attn_factor     0528-Qwen3-8B's name for YaRN's magnitude, which transformers ignores
 *   sliding_window  set in Qwen configs that do not use it: use_sliding_window decides
 *   attention_bias  Qwen2 has q, k, v biases whatever this key says
 *   bos_token_id    wrong in the Qwen distills: generation_config.json, then the tokenizer, decide
 *   mscale_all_dim  DeepSeek's scale on the scores: not the one on cos and sin, where it cancels
 *   n_group         null or absent in some: one group
 * Errors are sticky: the reader below remembers the first and hands out zeros from then on. */
#include "convert/hfconfig.h"

#include "convert/gguf_model.h"
#include "convert/part.h"
#include "convert/ropetab.h"
#include "quant/quant.h"

#include <math.h>
#include <string.h>

typedef struct reader {
    const vq_json *j;
    uint32_t obj;           /* the object in hand */
    const char *in;         /* its name with a dot, "" for the root */
    const char *path;
    vq_err *e;
    vq_status st;           /* the first error */
} reader;

/* ---- values and refusals ---- */

/* A member that is not null; 0 when there is none. */
static uint32_t get(const reader *r, const char *key)
{
    const uint32_t v = vq_json_get(r->j, r->obj, key);
    return v && vq_json_type(r->j, v) != VQ_JNULL ? v : 0;
}

static void value_text(char out[64], const vq_json *j, uint32_t v)
{
    const vq_str s = j->node[v].s;
    const int n = s.n > 50 ? 50 : (int)s.n;
    switch (vq_json_type(j, v)) {
    case VQ_JNULL: strcpy(out, "null"); break;
    case VQ_JFALSE: strcpy(out, "false"); break;
    case VQ_JTRUE: strcpy(out, "true"); break;
    case VQ_JARR: strcpy(out, "a list"); break;
    case VQ_JOBJ: strcpy(out, "an object"); break;
    case VQ_JNUM:
    case VQ_JSTR: {
        const char *quote = vq_json_type(j, v) == VQ_JSTR ? "\"" : "";
        vq_buf b = { 0 };
        vq_buf_printf(&b, "%s%.*s%s", quote, n, s.p, quote);
        strcpy(out, b.p && !b.oom ? b.p : "?");
        vq_buf_clear(&b);
    }
    }
}

static bool of_gguf(const reader *r)
{
    const char *dot = strrchr(r->path, '.');
    return dot && !strcmp(dot, ".gguf");
}

static void refuse(reader *r, const char *key, uint32_t v, const char *why)
{
    char text[64] = "missing";
    if (r->st) return;
    if (v) value_text(text, r->j, v);
    const char *theirs = of_gguf(r) && !*r->in ? cv_gguf_key(key) : NULL;
    r->st = vq_fail(r->e, VQ_EFORMAT, "%s: %s%s%s%s%s is %s: %s", r->path, r->in, key,
                    theirs ? " (its key " : "", theirs ? theirs : "", theirs ? ")" : "", text, why);
}

static uint32_t opt_int(reader *r, const char *key, uint32_t lo, uint32_t hi, uint32_t absent)
{
    const uint32_t v = get(r, key);
    int64_t i;
    if (!v) return absent;
    if (vq_json_i64(r->j, v, &i) && i >= lo && i <= hi) return (uint32_t)i;
    char why[80];
    vq_buf b = { 0 };
    vq_buf_printf(&b, "a number from %u to %u is needed", lo, hi);
    strcpy(why, b.p && !b.oom ? b.p : "out of range");
    vq_buf_clear(&b);
    refuse(r, key, v, why);
    return lo;
}

static uint32_t want_int(reader *r, const char *key, uint32_t lo, uint32_t hi)
{
    if (!get(r, key)) {
        refuse(r, key, 0, of_gguf(r) ? "a model needs it"
                                     : "a model needs it; is this its own config.json?");
    }
    return opt_int(r, key, lo, hi, lo);
}

/* A positive number; `absent` when there is none. */
static double opt_num(reader *r, const char *key, double absent)
{
    const uint32_t v = get(r, key);
    double d;
    if (!v) return absent;
    if (vq_json_f64(r->j, v, &d) && d > 0) return d;
    refuse(r, key, v, "a positive number is needed");
    return 1;
}

static double want_num(reader *r, const char *key)
{
    if (!get(r, key)) refuse(r, key, 0, "this kind of scaling needs it");
    return opt_num(r, key, 1);
}

static bool opt_bool(reader *r, const char *key, bool absent)
{
    const uint32_t v = get(r, key);
    bool b = absent;
    if (v && !vq_json_bool(r->j, v, &b)) refuse(r, key, v, "true or false is needed");
    return b;
}

static void only(reader *r, const char *key, bool value)
{
    if (opt_bool(r, key, value) != value) refuse(r, key, get(r, key), "not supported");
}

static bool text_is(const reader *r, uint32_t v, const char *s)
{
    return vq_str_eq(vq_json_str(r->j, v), s);
}

/* ---- architecture ---- */

static const struct {
    const char *type, *class;
    vaq_arch arch;
} archs[] = {
    { "qwen2", "Qwen2ForCausalLM", VAQ_QWEN2 },
    { "llama", "LlamaForCausalLM", VAQ_LLAMA },
    { "qwen3", "Qwen3ForCausalLM", VAQ_QWEN3 },
    { "deepseek_v3", "DeepseekV3ForCausalLM", VAQ_DEEPSEEK3 },
};
enum { N_ARCHS = sizeof archs / sizeof archs[0] };

static void read_arch(reader *r, vaq_config *c)
{
    const uint32_t type = get(r, "model_type"), list = get(r, "architectures");
    const uint32_t class = list ? vq_json_first(r->j, list) : 0;
    for (int i = 0; i < N_ARCHS; i++) {
        if (type ? text_is(r, type, archs[i].type) : text_is(r, class, archs[i].class)) {
            if (class && !text_is(r, class, archs[i].class)) {
                refuse(r, "architectures", class, "only models that write text are supported");
            }
            c->arch = archs[i].arch;
            return;
        }
    }
    refuse(r, "model_type", type, "only qwen2, llama, qwen3 and deepseek_v3 are supported");
}

/* A key that may be absent but has one value only. */
static void only_text(reader *r, const char *key, const char *value)
{
    const uint32_t v = get(r, key);
    char why[64];
    if (!v || text_is(r, v, value)) return;
    strcat(strcat(strcpy(why, "only "), value), " is supported");
    refuse(r, key, v, why);
}

/* FP8 as DeepSeek publishes it: plan.c finds the scales.  Other quantisations are of no use here:
 * what they left out is gone. */
static void read_quantization(reader *r)
{
    const uint32_t v = get(r, "quantization_config");
    if (!v) return;
    reader in = *r;
    in.obj = v;
    in.in = "quantization_config.";
    const uint32_t method = get(&in, "quant_method");
    if (!vq_json_is(r->j, v, VQ_JOBJ) || !text_is(r, method, "fp8")) {
        refuse(&in, "quant_method", method, "only fp8 checkpoints and those that were never "
               "quantised convert; take the original one");
        r->st = in.st;
        return;
    }
    only_text(&in, "fmt", "e4m3");
    const uint32_t size = get(&in, "weight_block_size");
    int64_t n = 0;
    for (uint32_t k = size ? vq_json_first(r->j, size) : 0; k; k = vq_json_next(r->j, size, k)) {
        int64_t d;
        if (!vq_json_i64(r->j, k, &d) || d != CV_BLOCK) n = 2;
        n++;
    }
    if (n != 2) {
        refuse(&in, "weight_block_size", size, "only blocks of 128 x 128 are supported");
    }
    r->st = in.st;
}

/* Features of these architectures that we do not compute. */
static void refuse_features(reader *r, const vaq_config *c)
{
    only_text(r, "hidden_act", "silu");
    if (c->arch != VAQ_QWEN2) only(r, "attention_bias", false);
    only(r, "mlp_bias", false);
    only(r, "use_sliding_window", false);
    only(r, "use_mrope", false);
    const uint32_t partial = get(r, "partial_rotary_factor");
    if (partial && opt_num(r, "partial_rotary_factor", 1) != 1) {
        refuse(r, "partial_rotary_factor", partial, "only 1 is supported");
    }
    if (!r->st) read_quantization(r);
    const uint32_t layers = get(r, "layer_types");
    for (uint32_t k = layers ? vq_json_first(r->j, layers) : 0; k;
         k = vq_json_next(r->j, layers, k)) {
        if (!text_is(r, k, "full_attention")) {
            refuse(r, "layer_types", k, "only full_attention is supported");
        }
    }
}

/* ---- rope ---- */

/* Every key of a scaling is known, or it is another scaling than we think. */
static void known_keys(reader *r, const char *const *keys)
{
    for (uint32_t k = vq_json_first(r->j, r->obj); k; k = vq_json_next(r->j, r->obj, k + 1)) {
        const char *const *known = keys;
        while (*known && !text_is(r, k, *known)) known++;
        if (*known || vq_json_type(r->j, k + 1) == VQ_JNULL) continue;
        char key[64];
        const vq_str s = vq_json_str(r->j, k);
        const size_t n = s.n < sizeof key - 1 ? s.n : sizeof key - 1;
        memcpy(key, s.p, n);
        key[n] = 0;
        refuse(r, key, k + 1, "unknown for this kind of scaling");
    }
}

static void read_llama3(reader *r, cv_rope *rope)
{
    static const char *const keys[] = { "rope_type", "type", "rope_theta", "factor",
                                        "low_freq_factor", "high_freq_factor",
                                        "original_max_position_embeddings", NULL };
    known_keys(r, keys);
    rope->kind = CV_ROPE_LLAMA3;
    rope->low_freq = want_num(r, "low_freq_factor");
    rope->high_freq = want_num(r, "high_freq_factor");
    if (!r->st && rope->high_freq <= rope->low_freq) {
        refuse(r, "high_freq_factor", get(r, "high_freq_factor"),
               "must be larger than low_freq_factor");
    }
    rope->orig = want_num(r, "original_max_position_embeddings");
}

/* The multiplier on cos and sin.  attention_factor is transformers' own key and final; attn_factor
 * is a factor on the default, so that 0528-Qwen3-8B (0.878...) comes out at 1. */
static double yarn_magnitude(reader *r, double factor, bool hf)
{
    double m = cv_yarn_magnitude(factor, opt_num(r, "mscale", 1));
    if (get(r, "mscale_all_dim")) {
        m /= cv_yarn_magnitude(factor, opt_num(r, "mscale_all_dim", 1));
    }
    m = opt_num(r, "attention_factor", m);
    if (get(r, "attn_factor") && !hf) m *= opt_num(r, "attn_factor", 1);
    return m;
}

static void read_yarn(reader *r, cv_rope *rope, const vaq_config *c)
{
    static const char *const keys[] = { "rope_type", "type", "rope_theta", "factor",
                                        "original_max_position_embeddings", "attn_factor",
                                        "attention_factor", "beta_fast", "beta_slow", "mscale",
                                        "mscale_all_dim", "truncate", NULL };
    known_keys(r, keys);
    only(r, "truncate", true); /* false: a ramp between pairs that are no whole numbers */
    rope->kind = CV_ROPE_YARN;
    rope->beta_fast = opt_num(r, "beta_fast", 32);
    rope->beta_slow = opt_num(r, "beta_slow", 1);
    if (!r->st && rope->beta_fast <= rope->beta_slow) {
        refuse(r, "beta_fast", get(r, "beta_fast"), "must be larger than beta_slow");
    }
    rope->orig = opt_num(r, "original_max_position_embeddings", c->ctx);
}

/* On q.k, rounded once (exact.md 2). */
static float attn_scale(uint32_t head_dim, double mm)
{
    return (float)(1 / sqrt((double)head_dim) * mm * mm);
}

static void read_scaling(reader *r, cv_config *out, cv_rope *rope, bool yarn_hf)
{
    const uint32_t a = get(r, "rope_type"), b = get(r, "type");
    const uint32_t type = a ? a : b;
    if (a && b && vq_str_cmp(vq_json_str(r->j, a), vq_json_str(r->j, b)) != 0) {
        refuse(r, "type", b, "contradicts rope_type");
    }
    rope->theta = opt_num(r, "rope_theta", rope->theta);
    if (text_is(r, type, "default")) return;
    if (text_is(r, type, "llama3")) {
        read_llama3(r, rope);
    } else if (text_is(r, type, "yarn")) {
        read_yarn(r, rope, &out->c);
        out->yarn = true;
    } else {
        refuse(r, a || !b ? "rope_type" : "type", type, "only llama3 and yarn are supported");
        return;
    }
    rope->factor = want_num(r, "factor");
    if (rope->factor < 1) refuse(r, "factor", get(r, "factor"), "must be at least 1");
    if (rope->orig < 1) {
        refuse(r, "original_max_position_embeddings", get(r, "original_max_position_embeddings"),
               "must be at least 1");
    }
    if (out->yarn) out->c.rope_mult = yarn_magnitude(r, rope->factor, yarn_hf);
    if (out->yarn && out->c.arch == VAQ_DEEPSEEK3 && get(r, "mscale_all_dim")) {
        const double mm = cv_yarn_magnitude(rope->factor, opt_num(r, "mscale_all_dim", 1));
        out->c.attn_scale = attn_scale(out->c.head_dim, mm);
    }
}

/* rope_scaling beside rope_theta, or (transformers 5) both in rope_parameters. */
static void read_rope(reader *r, cv_config *out, bool yarn_hf)
{
    vaq_config *c = &out->c;
    cv_rope rope = { .kind = CV_ROPE_PLAIN, .theta = opt_num(r, "rope_theta", 10000) };
    static const char *const keys[] = { "rope_scaling", "rope_parameters" };
    for (int i = 0; i < 2 && !r->st; i++) {
        const uint32_t v = get(r, keys[i]);
        if (!v) continue;
        if (!vq_json_is(r->j, v, VQ_JOBJ)) {
            refuse(r, keys[i], v, "an object is needed");
            return;
        }
        reader inner = *r;
        inner.obj = v;
        inner.in = i ? "rope_parameters." : "rope_scaling.";
        read_scaling(&inner, out, &rope, yarn_hf);
        r->st = inner.st;
        break;
    }
    if (rope.theta <= 1) refuse(r, "rope_theta", get(r, "rope_theta"), "must be larger than 1");
    if (!r->st) cv_rope_table(out->rope, &rope, (int)c->rope_dim);
}

/* ---- ids ---- */

/* An id, or the first of a list (Llama ends at any of three).  -1: none in the vocabulary. */
static int32_t read_id(const reader *r, const char *key, const vaq_config *c)
{
    uint32_t v = get(r, key);
    int64_t id;
    if (vq_json_is(r->j, v, VQ_JARR)) v = vq_json_first(r->j, v);
    if (!v || !vq_json_i64(r->j, v, &id) || id < 0 || id >= c->n_vocab) return -1;
    return (int32_t)id;
}

/* ---- the whole ---- */

enum {
    MAX_DIM = 1 << 20, MAX_HEADS = 1024, MAX_LATENT = 4096, MAX_VOCAB = 1 << 24, MAX_CTX = 1 << 24
};

static void read_heads(reader *r, vaq_config *c)
{
    c->n_head = want_int(r, "num_attention_heads", 1, MAX_HEADS);
    c->n_head_kv = opt_int(r, "num_key_value_heads", 1, MAX_HEADS, c->n_head);
    if (!r->st && c->n_head % c->n_head_kv) {
        refuse(r, "num_key_value_heads", get(r, "num_key_value_heads"),
               "must divide num_attention_heads");
    }
    if (r->st) return;
    const bool derived = !get(r, "head_dim");
    if (derived && c->arch == VAQ_QWEN3) {
        c->head_dim = 128; /* the default of that class, whatever hidden_size is */
    } else if (derived && c->hidden % c->n_head) {
        refuse(r, "num_attention_heads", get(r, "num_attention_heads"),
               "does not divide hidden_size, and there is no head_dim");
    } else {
        c->head_dim = opt_int(r, "head_dim", 2, 2 * CV_ROPE_MAX, c->hidden / c->n_head);
    }
    if (!r->st && (c->head_dim % 2 || c->head_dim < 2 || c->head_dim > 2 * CV_ROPE_MAX)) {
        refuse(r, "head_dim", get(r, "head_dim"), "must be even, 2 to 1024");
    }
    c->v_dim = c->rope_dim = c->head_dim;
}

/* Latent attention: one latent for all heads, whose k and v are made of it. */
static void read_mla(reader *r, vaq_config *c)
{
    c->n_head = want_int(r, "num_attention_heads", 1, MAX_HEADS);
    const uint32_t kv = opt_int(r, "num_key_value_heads", 1, MAX_HEADS, c->n_head);
    if (!r->st && kv != c->n_head) {
        refuse(r, "num_key_value_heads", get(r, "num_key_value_heads"),
               "must be num_attention_heads");
    }
    c->n_head_kv = 1;
    c->q_lora = opt_int(r, "q_lora_rank", 1, MAX_DIM, 0);
    c->kv_lora = want_int(r, "kv_lora_rank", 1, MAX_LATENT);
    c->nope_dim = want_int(r, "qk_nope_head_dim", 1, CV_ROPE_MAX);
    c->rope_dim = want_int(r, "qk_rope_head_dim", 2, CV_ROPE_MAX);
    c->v_dim = want_int(r, "v_head_dim", 1, 2 * CV_ROPE_MAX);
    c->head_dim = c->nope_dim + c->rope_dim;
    if (!r->st && c->rope_dim % 2) {
        refuse(r, "qk_rope_head_dim", get(r, "qk_rope_head_dim"), "must be even");
    }
    if (!r->st && c->kv_lora % Q_ROWS) {
        refuse(r, "kv_lora_rank", get(r, "kv_lora_rank"), "must be a multiple of 16");
    }
    if (!r->st && c->v_dim % Q_ROWS) {
        refuse(r, "v_head_dim", get(r, "v_head_dim"), "must be a multiple of 16");
    }
    if (opt_bool(r, "rope_interleave", true)) c->flags |= VAQ_F_ROPE_PAIRS;
}

/* The choice of experts; what is absent is what that class of transformers does. */
static void read_experts(reader *r, vaq_config *c)
{
    only_text(r, "scoring_func", "sigmoid");
    only_text(r, "topk_method", "noaux_tc");
    opt_int(r, "moe_layer_freq", 1, 1, 1);
    c->n_expert = want_int(r, "n_routed_experts", 1, VAQ_MAX_EXPERTS);
    c->n_expert_used = want_int(r, "num_experts_per_tok", 1, c->n_expert);
    c->n_expert_shared = opt_int(r, "n_shared_experts", 0, VAQ_MAX_EXPERTS, 0);
    c->n_group = opt_int(r, "n_group", 0, c->n_expert, 1);
    if (!c->n_group) c->n_group = 1;
    c->n_group_used = opt_int(r, "topk_group", 0, c->n_group, c->n_group);
    if (!c->n_group_used) c->n_group_used = c->n_group;
    c->n_dense_layer = want_int(r, "first_k_dense_replace", 0, c->n_layer);
    c->moe_inter = want_int(r, "moe_intermediate_size", 1, MAX_DIM);
    c->routed_scale = (float)opt_num(r, "routed_scaling_factor", 1);
    c->n_mtp = opt_int(r, "num_nextn_predict_layers", 0, VAQ_MAX_MTP, 0);
    if (opt_bool(r, "norm_topk_prob", true)) c->flags |= VAQ_F_NORM_TOPK;
    if (r->st) return;
    const uint32_t of_group = c->n_expert / c->n_group;
    if (c->n_expert % c->n_group || (c->n_group > 1 && of_group < 2)) {
        refuse(r, "n_group", get(r, "n_group"),
               "must cut n_routed_experts into equal groups of two at least");
    } else if (c->n_expert_used > c->n_group_used * of_group) {
        refuse(r, "num_experts_per_tok", get(r, "num_experts_per_tok"),
               "more than the groups that topk_group leaves have");
    }
}

vq_status cv_config_read(cv_config *out, const vq_json *j, const char *path, bool yarn_hf,
                         vq_err *e)
{
    *out = (cv_config){ 0 };
    vaq_config *c = &out->c;
    reader r = { .j = j, .in = "", .path = path, .e = e };
    read_arch(&r, c);
    refuse_features(&r, c);
    c->n_layer = want_int(&r, "num_hidden_layers", 1, VAQ_MAX_LAYERS);
    c->hidden = want_int(&r, "hidden_size", 1, MAX_DIM);
    c->inter = want_int(&r, "intermediate_size", 1, MAX_DIM);
    c->n_vocab = want_int(&r, "vocab_size", 1, MAX_VOCAB);
    c->ctx = want_int(&r, "max_position_embeddings", 1, MAX_CTX);
    c->eps = (float)opt_num(&r, "rms_norm_eps", 1e-6);
    if (c->arch == VAQ_DEEPSEEK3) {
        read_mla(&r, c);
        read_experts(&r, c);
    } else {
        read_heads(&r, c);
    }
    if (opt_bool(&r, "tie_word_embeddings", false)) c->flags |= VAQ_F_TIED;
    if (c->arch == VAQ_QWEN2) c->flags |= VAQ_F_QKV_BIAS;
    if (c->arch == VAQ_QWEN3) c->flags |= VAQ_F_QK_NORM;
    c->rope_mult = 1;
    c->attn_scale = attn_scale(c->head_dim, 1);
    if (!r.st) read_rope(&r, out, yarn_hf);
    if (r.st) return r.st;
    c->n_ids = c->n_vocab;
    c->bos = read_id(&r, "bos_token_id", c);
    c->eos = read_id(&r, "eos_token_id", c);
    c->temperature = 0.6f; /* DeepSeek's advice, for checkpoints without their own */
    c->top_p = 0.95f;
    return VQ_OK;
}

/* A number >= 0; false is no number at all. */
static void read_advice(reader *r, const char *key, float *out)
{
    const uint32_t v = get(r, key);
    double d;
    if (!v) return;
    if (vq_json_f64(r->j, v, &d) && d >= 0 && isfinite((float)d)) *out = (float)d;
    else refuse(r, key, v, "a number from 0 up is needed");
}

vq_status cv_generation_read(vaq_config *c, const vq_json *j, const char *path, vq_err *e)
{
    reader r = { .j = j, .in = "", .path = path, .e = e };
    read_advice(&r, "temperature", &c->temperature);
    read_advice(&r, "top_p", &c->top_p);
    const int32_t bos = read_id(&r, "bos_token_id", c), eos = read_id(&r, "eos_token_id", c);
    if (bos >= 0) c->bos = bos;
    if (eos >= 0) c->eos = eos;
    return r.st;
}
