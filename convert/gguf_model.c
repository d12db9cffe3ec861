/* gguf_model.c - translates what a GGUF file says about its model.
 *
 * The keys become the text of a config.json and go through the reader of those, so that there is
 * one place that knows which features and sizes are ours.  The vocabulary goes to the compiler of
 * tokenizers as it stands. */
#include "convert/gguf_model.h"

#include "core/base/json.h"
#include "core/base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- names ---- */

typedef enum kind {
    MODEL, LAYER,           /* of either; ".weight" or ".bias" follows */
    WHOLE                   /* of a layer, and all of its name */
} kind;

static const struct { const char *checkpoint, *gguf; kind kind; } names[] = {
    { "embed_tokens", "token_embd", MODEL },
    { "norm", "output_norm", MODEL },
    { "lm_head", "output", MODEL },
    { "input_layernorm", "attn_norm", LAYER },
    { "post_attention_layernorm", "ffn_norm", LAYER },
    { "self_attn.q_proj", "attn_q", LAYER },
    { "self_attn.k_proj", "attn_k", LAYER },
    { "self_attn.v_proj", "attn_v", LAYER },
    { "self_attn.o_proj", "attn_output", LAYER },
    { "self_attn.q_norm", "attn_q_norm", LAYER },
    { "self_attn.k_norm", "attn_k_norm", LAYER },
    { "mlp.gate_proj", "ffn_gate", LAYER },
    { "mlp.up_proj", "ffn_up", LAYER },
    { "mlp.down_proj", "ffn_down", LAYER },
    /* deepseek2's: newer files have two of what checkpoints keep in one, all have the experts of a
     * layer together. */
    { "self_attn.q_a_proj", "attn_q_a", LAYER },
    { "self_attn.q_a_layernorm", "attn_q_a_norm", LAYER },
    { "self_attn.q_b_proj", "attn_q_b", LAYER },
    { "self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa", LAYER },
    { "self_attn.kv_a_layernorm", "attn_kv_a_norm", LAYER },
    { "self_attn.kv_b_proj", "attn_kv_b", LAYER },
    { "self_attn.k_up_proj", "attn_k_b", LAYER },
    { "self_attn.v_up_proj", "attn_v_b", LAYER },
    { "mlp.gate", "ffn_gate_inp", LAYER },
    { "mlp.shared_experts.gate_proj", "ffn_gate_shexp", LAYER },
    { "mlp.shared_experts.up_proj", "ffn_up_shexp", LAYER },
    { "mlp.shared_experts.down_proj", "ffn_down_shexp", LAYER },
    { "mlp.experts.gate_proj", "ffn_gate_exps", LAYER },
    { "mlp.experts.up_proj", "ffn_up_exps", LAYER },
    { "mlp.experts.down_proj", "ffn_down_exps", LAYER },
    { "mlp.gate.e_score_correction_bias", "exp_probs_b.bias", WHOLE },
    /* Layers that only draft. */
    { "eh_proj", "nextn.eh_proj", LAYER },
    { "embed_tokens", "nextn.embed_tokens", LAYER },
    { "enorm", "nextn.enorm", LAYER },
    { "hnorm", "nextn.hnorm", LAYER },
    { "shared_head.head", "nextn.shared_head_head", LAYER },
    { "shared_head.norm", "nextn.shared_head_norm", LAYER },
};
enum { N_NAMES = sizeof names / sizeof names[0] };

static bool starts(vq_str s, const char *start)
{
    const size_t n = strlen(start);
    return s.n >= n && !memcmp(s.p, start, n);
}

static vq_str behind(vq_str s, size_t n) { return (vq_str){ s.p + n, s.n - n }; }

/* "<from>N.<own>.weight" or "<own>.weight" with the other word for own; ".bias" likewise. */
static bool translate(vq_buf *out, vq_str s, bool to_gguf)
{
    const char *from = to_gguf ? "layers." : "blk.", *to = to_gguf ? "blk." : "layers.";
    const bool layer = starts(s, from);
    size_t digits = 0;
    if (layer) {
        s = behind(s, strlen(from));
        while (digits < s.n && s.p[digits] >= '0' && s.p[digits] <= '9') digits++;
        if (!digits || digits > 5 || digits == s.n || s.p[digits] != '.') return false;
    }
    const vq_str number = { s.p, digits };
    if (layer) s = behind(s, digits + 1);
    size_t end = s.n;
    while (end && s.p[end - 1] != '.') end--;
    const vq_str tail = behind(s, end);
    if (!end) return false;
    const bool known = vq_str_eq(tail, "weight") || vq_str_eq(tail, "bias");
    const vq_str own = { s.p, end - 1 };
    for (int i = 0; i < N_NAMES; i++) {
        const char *a = to_gguf ? names[i].checkpoint : names[i].gguf;
        const char *b = to_gguf ? names[i].gguf : names[i].checkpoint;
        const bool whole = names[i].kind == WHOLE;
        if ((names[i].kind != MODEL) != layer || !(whole || known)) continue;
        if (!vq_str_eq(whole ? s : own, a)) continue;
        if (layer) vq_buf_printf(out, "%s%.*s.", to, (int)number.n, number.p);
        vq_buf_str(out, b);
        if (!whole) vq_buf_printf(out, ".%.*s", (int)tail.n, tail.p);
        return true;
    }
    return false;
}

bool cv_gguf_name(vq_buf *out, vq_str checkpoint)
{
    if (starts(checkpoint, "model.")) checkpoint = behind(checkpoint, 6);
    return translate(out, checkpoint, true);
}

bool cv_checkpoint_name(vq_buf *out, vq_str gguf)
{
    return translate(out, gguf, false);
}

/* A key of the file's own architecture, such as ".block_count". */
static const cv_gkey *own_key(const cv_gguf *g, const char *name)
{
    const vq_str arch = cv_gkey_str(cv_gguf_find(g, "general.architecture"));
    char key[128];
    if (!arch.p || arch.n > 64 || memchr(arch.p, 0, arch.n)) return NULL;
    memcpy(key, arch.p, arch.n);
    strcpy(key + arch.n, name);
    const cv_gkey *k = cv_gguf_find(g, key);
    return k && !k->array ? k : NULL;
}

/* llama's rotary code turns neighbours, so its files have rows i and i + d/2 of each q and k head
 * side by side.  Those of the other architectures are as in checkpoints. */
static void note_pairs(cv_tensor *t, const cv_gguf *g)
{
    static const char q[] = ".self_attn.q_proj.weight", k[] = ".self_attn.k_proj.weight";
    uint64_t heads = 0;
    const vq_str arch = cv_gkey_str(cv_gguf_find(g, "general.architecture"));
    if (!vq_str_eq(arch, "llama") || t->n_dim != 2) return;
    const vq_str end = t->name.n > strlen(q) ? behind(t->name, t->name.n - strlen(q)) : t->name;
    cv_gkey_u64(own_key(g, ".attention.head_count"), 0, &heads);
    if (vq_str_eq(end, k)) cv_gkey_u64(own_key(g, ".attention.head_count_kv"), 0, &heads);
    else if (!vq_str_eq(end, q)) return;
    /* A shape that does not fit is refused by the plan. */
    const uint64_t rows = heads && t->dim[0] % heads == 0 ? t->dim[0] / heads : 0;
    if (rows % 2 == 0 && rows <= UINT32_MAX) t->pair_rows = (uint32_t)rows;
}

vq_status cv_gguf_rename(cv_st *s, const cv_gguf *g, vq_err *e)
{
    vq_buf text = { 0 };
    for (size_t i = 0; i < s->n_tensor; i++) {
        cv_tensor *t = &s->tensor[i];
        const size_t start = text.n;
        /* Offsets first: the text moves while it grows. */
        if (!cv_checkpoint_name(&text, t->name)) vq_buf_add(&text, t->name.p, t->name.n);
        t->name = (vq_str){ (char *)(uintptr_t)start, text.n - start };
    }
    if (text.oom) {
        vq_buf_clear(&text);
        return vq_fail(e, VQ_ENOMEM, "%s: out of memory", s->path);
    }
    s->names = text.p;
    for (size_t i = 0; i < s->n_tensor; i++) {
        s->tensor[i].name.p = s->names + (uintptr_t)s->tensor[i].name.p;
        note_pairs(&s->tensor[i], g);
    }
    return VQ_OK;
}

/* ---- config ---- */

static const cv_tensor *find(const cv_st *file, size_t n_file, const char *name)
{
    for (size_t i = 0; i < n_file; i++) {
        for (size_t k = 0; k < file[i].n_tensor; k++) {
            if (vq_str_eq(file[i].tensor[k].name, name)) return &file[i].tensor[k];
        }
    }
    return NULL;
}

/* A value of another kind is told as what it is not: the reader refuses it by its name. */
static void put_int(vq_jw *w, const char *key, const cv_gkey *k)
{
    uint64_t v;
    if (cv_gkey_u64(k, 0, &v)) vq_jw_u64(w, key, v);
    else if (k) vq_jw_cstr(w, key, "no whole number");
}

static void put_real(vq_jw *w, const char *key, const cv_gkey *k)
{
    double v;
    if (cv_gkey_f64(k, 0, &v)) vq_jw_f64(w, key, v);
    else if (k) vq_jw_cstr(w, key, "no number");
}

/* Of a file that says nothing else. */
static double real_of(const cv_gkey *k, double absent)
{
    double v = absent;
    cv_gkey_f64(k, 0, &v);
    return v;
}

static uint64_t int_of(const cv_gkey *k, uint64_t absent)
{
    uint64_t v = absent;
    cv_gkey_u64(k, 0, &v);
    return v;
}

/* Numbers that mean the same in both. */
typedef enum who {
    ALL, HEADS, LATENT, GROUPS, /* models: all, with heads of k and v, like R1, that has groups */
    TOLD                    /* put by another function */
} who;

static const struct { const char *key, *name; who who; } numbers[] = {
    { ".embedding_length", "hidden_size", ALL },
    { ".feed_forward_length", "intermediate_size", ALL },
    { ".attention.head_count", "num_attention_heads", ALL },
    { ".context_length", "max_position_embeddings", ALL },
    { ".attention.head_count_kv", "num_key_value_heads", HEADS },
    { ".attention.key_length", "head_dim", HEADS },
    { ".attention.q_lora_rank", "q_lora_rank", LATENT },
    { ".attention.kv_lora_rank", "kv_lora_rank", LATENT },
    { ".rope.dimension_count", "qk_rope_head_dim", LATENT },
    { ".leading_dense_block_count", "first_k_dense_replace", LATENT },
    { ".expert_count", "n_routed_experts", LATENT },
    { ".expert_used_count", "num_experts_per_tok", LATENT },
    { ".expert_shared_count", "n_shared_experts", LATENT },
    { ".expert_feed_forward_length", "moe_intermediate_size", LATENT },
    { ".expert_group_count", "n_group", GROUPS },
    { ".expert_group_used_count", "topk_group", GROUPS },
    { ".block_count", "num_hidden_layers", TOLD },
    { ".nextn_predict_layers", "num_nextn_predict_layers", TOLD },
    { ".attention.key_length less .rope.dimension_count", "qk_nope_head_dim", TOLD },
    { ".attention.value_length", "v_head_dim", TOLD },
    { ".expert_gating_func", "scoring_func", TOLD },
    { ".expert_weights_scale", "routed_scaling_factor", TOLD },
    { ".attention.layer_norm_rms_epsilon", "rms_norm_eps", TOLD },
};
enum { N_NUMBERS = sizeof numbers / sizeof numbers[0] };

static void put_numbers(vq_jw *w, const cv_gguf *g, who of)
{
    for (int i = 0; i < N_NUMBERS; i++) {
        if (numbers[i].who == of) put_int(w, numbers[i].name, own_key(g, numbers[i].key));
    }
}

const char *cv_gguf_key(const char *name)
{
    for (int i = 0; i < N_NUMBERS; i++) {
        if (!strcmp(numbers[i].name, name)) return numbers[i].key;
    }
    return NULL;
}

static bool is_mla(const cv_gguf *g)
{
    return vq_str_eq(cv_gkey_str(cv_gguf_find(g, "general.architecture")), "deepseek2");
}

/* The file has a tenth of mscale_all_dim as a float: what was meant is a short number.  mscale is
 * not there: who made the file took both for equal, as they are in all models of this kind. */
static void put_yarn_of_mla(vq_jw *w, const cv_gguf *g)
{
    const double tenth = real_of(own_key(g, ".rope.scaling.yarn_log_multiplier"), 0);
    double all = floor(1e7 * tenth + 0.5) / 1e6;
    if ((float)(0.1 * all) != (float)tenth) all = 10 * tenth;
    if (all != 0) {
        vq_jw_f64(w, "mscale", all);
        vq_jw_f64(w, "mscale_all_dim", all);
    } else {
        vq_jw_f64(w, "attention_factor", 1);
    }
}

static void put_rope(vq_jw *w, const cv_gguf *g)
{
    const bool mla = is_mla(g);
    uint64_t turned, dim;
    put_real(w, "rope_theta", own_key(g, ".rope.freq_base"));
    if (!mla && cv_gkey_u64(own_key(g, ".rope.dimension_count"), 0, &turned) &&
        cv_gkey_u64(own_key(g, ".attention.key_length"), 0, &dim) && turned != dim && dim) {
        vq_jw_f64(w, "partial_rotary_factor", (double)turned / (double)dim);
    }
    const cv_gkey *factor = own_key(g, ".rope.scaling.factor");
    vq_str type = cv_gkey_str(own_key(g, ".rope.scaling.type"));
    double f;
    if (!factor) factor = own_key(g, ".rope.scale_linear"); /* its name in old files */
    if (!type.p && cv_gkey_f64(factor, 0, &f) && f != 0 && f != 1) type = vq_str_c("linear");
    if (!type.p || vq_str_eq(type, "none")) return;
    /* Two names for the same: a factor on YaRN's own magnitude, as 0528-Qwen3-8B's attn_factor. */
    const cv_gkey *attn = own_key(g, ".rope.scaling.attn_factor");
    if (!attn) attn = own_key(g, ".rope.scaling.yarn_attn_factor");
    vq_jw_open(w, "rope_scaling", '{');
    vq_jw_str(w, "rope_type", type.p, type.n);
    put_real(w, "factor", factor);
    put_int(w, "original_max_position_embeddings",
            own_key(g, ".rope.scaling.original_context_length"));
    if (!mla) put_real(w, "attn_factor", attn);
    else if (real_of(attn, 1) != 1) put_real(w, "attn_factor (of a deepseek2 model)", attn);
    if (mla) put_yarn_of_mla(w, g);
    put_real(w, "beta_fast", own_key(g, ".rope.scaling.yarn_beta_fast"));
    put_real(w, "beta_slow", own_key(g, ".rope.scaling.yarn_beta_slow"));
    vq_jw_close(w, '}');
}

/* Those that only draft are layers too. */
static void put_layers(vq_jw *w, const cv_gguf *g)
{
    const cv_gkey *k = own_key(g, ".block_count");
    const uint64_t all = int_of(k, 0), mtp = int_of(own_key(g, ".nextn_predict_layers"), 0);
    if (!mtp) {
        put_int(w, "num_hidden_layers", k);
        return;
    }
    vq_jw_u64(w, "num_hidden_layers", mtp < all ? all - mtp : 0);
    vq_jw_u64(w, "num_nextn_predict_layers", mtp);
}

/* Latent attention.  Files of today say how it is computed, with one head that is the latent, and
 * beside it (_mla) how the heads are; older ones only that. */
static void put_mla(vq_jw *w, const cv_gguf *g)
{
    const cv_gkey *k = own_key(g, ".attention.key_length_mla");
    const cv_gkey *v = own_key(g, ".attention.value_length_mla");
    const cv_gkey *rope = own_key(g, ".rope.dimension_count");
    const cv_gkey *kv = own_key(g, ".attention.head_count_kv");
    if (!k) k = own_key(g, ".attention.key_length");
    if (k) vq_jw_i64(w, "qk_nope_head_dim", (int64_t)(int_of(k, 0) - int_of(rope, 0)));
    put_int(w, "v_head_dim", v ? v : own_key(g, ".attention.value_length"));
    if (int_of(kv, 0) == 1) kv = own_key(g, ".attention.head_count");
    put_int(w, "num_key_value_heads", kv);
}

/* Files of early 2025 do not say which groups R1's experts are in: llama.cpp of that time did
 * without them. */
static bool groups_of_r1(const cv_gguf *g)
{
    return int_of(own_key(g, ".expert_count"), 0) == 256 &&
           int_of(own_key(g, ".expert_used_count"), 0) == 8;
}

const char *cv_gguf_assumed(const cv_gguf *g)
{
    if (!is_mla(g) || own_key(g, ".expert_group_count")) return NULL;
    return groups_of_r1(g) ? "expert groups not in the source: R1's own taken, the best 4 of 8"
                           : "expert groups not in the source: one group taken";
}

static void put_experts(vq_jw *w, const cv_gguf *g)
{
    const cv_gkey *scale = own_key(g, ".expert_weights_scale");
    bool norm = false;
    if (!cv_gguf_assumed(g)) {
        put_numbers(w, g, GROUPS);
    } else if (groups_of_r1(g)) {
        vq_jw_u64(w, "n_group", 8);
        vq_jw_u64(w, "topk_group", 4);
    }
    if (real_of(scale, 1) != 0) put_real(w, "routed_scaling_factor", scale); /* 0: none */
    cv_gkey_bool(own_key(g, ".expert_weights_norm"), &norm);
    vq_jw_bool(w, "norm_topk_prob", norm);
    /* Absent: before there was sigmoid. */
    const uint64_t func = int_of(own_key(g, ".expert_gating_func"), 1);
    vq_jw_cstr(w, "scoring_func", func == 2 ? "sigmoid" : func == 1 ? "softmax" : "unknown");
}

vq_status cv_gguf_config(vq_buf *json, const cv_gguf *g, const cv_st *file, size_t n_file,
                         vq_err *e)
{
    const bool mla = is_mla(g);
    const vq_str arch = mla ? vq_str_c("deepseek_v3")
                            : cv_gkey_str(cv_gguf_find(g, "general.architecture"));
    const cv_tensor *embed = find(file, n_file, "embed_tokens.weight");
    const cv_tensor *head = find(file, n_file, "lm_head.weight");
    vq_jw w = { .b = json };
    vq_jw_open(&w, NULL, '{');
    if (arch.p) vq_jw_str(&w, "model_type", arch.p, arch.n);
    put_numbers(&w, g, ALL);
    put_layers(&w, g);
    if (mla) {
        put_numbers(&w, g, LATENT);
        put_mla(&w, g);
        put_experts(&w, g);
    } else {
        put_numbers(&w, g, HEADS);
    }
    put_real(&w, "rms_norm_eps", own_key(g, ".attention.layer_norm_rms_epsilon"));
    if (embed && embed->n_dim == 2) vq_jw_u64(&w, "vocab_size", embed->dim[0]);
    else put_int(&w, "vocab_size", own_key(g, ".vocab_size"));
    vq_jw_bool(&w, "tie_word_embeddings", embed && !head);
    put_int(&w, "bos_token_id", cv_gguf_find(g, "tokenizer.ggml.bos_token_id"));
    put_int(&w, "eos_token_id", cv_gguf_find(g, "tokenizer.ggml.eos_token_id"));
    put_rope(&w, g);
    vq_jw_close(&w, '}');
    return json->oom ? vq_fail(e, VQ_ENOMEM, "out of memory for a config") : VQ_OK;
}

vq_status cv_gguf_rope(cv_config *c, const cv_tensor *freqs, vq_err *e)
{
    float f[CV_ROPE_MAX];
    const uint32_t n = c->c.rope_dim / 2;
    if (freqs->dtype != CV_F32 || freqs->n_dim != 1 || freqs->n != n) {
        return vq_fail(e, VQ_EFORMAT, "%s: rope_freqs.weight is not %u values of F32, one for each "
                       "pair that is turned",
                       freqs->file->path, n);
    }
    const vq_status st = cv_st_read(freqs, 0, f, n * sizeof *f, e);
    for (uint32_t i = 0; i < n && !st; i++) {
        if (!(f[i] > 0.5f && f[i] <= 1e6f)) { /* 1 and more, give or take a rounding */
            return vq_fail(e, VQ_EFORMAT, "%s: rope_freqs.weight: value %u is %g; a divisor of at "
                           "least 1 is needed",
                           freqs->file->path, i, (double)f[i]);
        }
        c->rope[i] /= (double)f[i];
    }
    return st;
}

/* ---- tokenizer ---- */

/* By the name of the splitter; what else the family does follows from it. */
static const struct { const char *pre; vq_tok_family family; } families[] = {
    { "deepseek-v3", { VAQ_SPLIT_DEEPSEEK, false, false } },
    { "deepseek-r1-qwen", { VAQ_SPLIT_QWEN, true, false } },
    { "qwen2", { VAQ_SPLIT_QWEN, true, false } },
    { "llama-bpe", { VAQ_SPLIT_LLAMA3, false, true } },
    { "llama3", { VAQ_SPLIT_LLAMA3, false, true } },
    { "llama-v3", { VAQ_SPLIT_LLAMA3, false, true } },
    { "smollm", { VAQ_SPLIT_SMOLLM, false, false } },
};
enum { N_FAMILIES = sizeof families / sizeof families[0] };

static bool family_of(vq_str pre, vq_tok_family *f)
{
    for (int i = 0; i < N_FAMILIES; i++) {
        if (!vq_str_eq(pre, families[i].pre)) continue;
        *f = families[i].family;
        return true;
    }
    return false;
}

const char *cv_gguf_pre(const vq_tok_family *f)
{
    for (int i = 0; i < N_FAMILIES; i++) {
        const vq_tok_family *g = &families[i].family;
        /* Who reads these files does not normalize, whatever the family. */
        if (g->splitter == f->splitter && g->ignore_merges == f->ignore_merges) {
            return families[i].pre;
        }
    }
    return NULL;
}

static vq_status foreign(const char *path, const char *part, vq_str what, vq_err *e)
{
    return vq_fail(e, VQ_EFORMAT, "%s: its %s is \"%.*s\"; only byte-level BPE of the DeepSeek, "
                   "Qwen, Llama 3 and SmolLM families is supported (--no-tokenizer converts for "
                   "ids only)",
                   path, part, what.n > 60 ? 60 : (int)what.n, what.p ? what.p : "");
}

/* What fills a vocabulary up to the rows of the embedding. */
static bool is_padding(vq_str s, int32_t id)
{
    char name[32];
    snprintf(name, sizeof name, "[PAD%d]", (int)id);
    return vq_str_eq(s, name);
}

/* Unused ids have no word; those at the end are no ids at all. */
static void read_words(vq_tok_source *src, const cv_gkey *tokens, const cv_gkey *types)
{
    vq_str s;
    int32_t id = 0;
    for (size_t at = 0; cv_gkey_next(tokens, &at, &s); id++) {
        uint64_t type = CV_GTOK_NORMAL;
        cv_gkey_u64(types, (uint64_t)id, &type);
        if (type == CV_GTOK_UNUSED || is_padding(s, id)) continue;
        const bool added = type == CV_GTOK_CONTROL || type == CV_GTOK_USER_DEFINED ||
                           type == CV_GTOK_UNKNOWN;
        src->word[src->n_word++] =
            (vq_tok_word){ s, id, added ? VAQ_TOK_ADDED : VAQ_TOK_PLAIN };
    }
}

/* The token of a key, where it is a word: marks are added tokens. */
static int32_t mark_of(const vq_tok_source *src, const cv_gguf *g, const char *key)
{
    uint64_t id;
    if (!cv_gkey_u64(cv_gguf_find(g, key), 0, &id)) return -1;
    for (size_t i = 0; i < src->n_word; i++) {
        const vq_tok_word *w = &src->word[i];
        if ((uint64_t)w->id == id && w->kind != VAQ_TOK_PLAIN) return w->id;
    }
    return -1;
}

static vq_status read_source(vq_tok_source *src, const cv_gguf *g, const char *path, vq_err *e)
{
    const cv_gkey *tokens = cv_gguf_find(g, "tokenizer.ggml.tokens");
    const cv_gkey *merges = cv_gguf_find(g, "tokenizer.ggml.merges");
    const vq_str model = cv_gkey_str(cv_gguf_find(g, "tokenizer.ggml.model"));
    const vq_str pre = cv_gkey_str(cv_gguf_find(g, "tokenizer.ggml.pre"));
    if (!vq_str_eq(model, "gpt2")) return foreign(path, "tokenizer.ggml.model", model, e);
    if (!family_of(pre, &src->family)) return foreign(path, "tokenizer.ggml.pre", pre, e);
    if (!tokens || !merges || tokens->n > VAQ_TOK_MAX_IDS) {
        return vq_fail(e, VQ_EFORMAT, "%s: tokenizer.ggml.tokens or .merges is missing or too "
                       "long (--no-tokenizer converts for ids only)",
                       path);
    }
    src->word = vq_calloc((size_t)tokens->n + 1, sizeof *src->word);
    src->merge = vq_calloc((size_t)merges->n + 1, sizeof *src->merge);
    if (!src->word || !src->merge) return vq_fail(e, VQ_ENOMEM, "%s: out of memory", path);
    read_words(src, tokens, cv_gguf_find(g, "tokenizer.ggml.token_type"));
    vq_str s;
    for (size_t at = 0; cv_gkey_next(merges, &at, &s);) {
        if (vq_tok_halves(s, &src->merge[src->n_merge++])) continue;
        return vq_fail(e, VQ_EFORMAT, "%s: tokenizer.ggml.merges has \"%.*s\", which is not a pair "
                       "(--no-tokenizer converts for ids only)",
                       path, s.n > 60 ? 60 : (int)s.n, s.p);
    }
    src->bos = mark_of(src, g, "tokenizer.ggml.bos_token_id");
    src->eos = mark_of(src, g, "tokenizer.ggml.eos_token_id");
    return VQ_OK;
}

vq_status cv_gguf_tokenizer(vq_tok_built *out, const cv_gguf *g, const char *path, vq_err *e)
{
    vq_tok_source src = { .bos = -1, .eos = -1 };
    *out = (vq_tok_built){ .bos = -1, .eos = -1 };
    vq_status st = read_source(&src, g, path, e);
    if (!st) st = vq_tok_compile(out, &src, path, e);
    vq_tok_source_clear(&src);
    return st;
}
