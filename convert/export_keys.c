/* export_keys.c - what a GGUF file says about its model: configuration, rope, tokenizer.
 *
 * A container keeps the rope table, GGUF the numbers it is made from.  These are found again and
 * count only if they make the same table: theta by the two slowest pairs, which every scaling slows
 * alike; for llama what a scaling did as a divisor for each pair, for the others YaRN by its
 * factor, which the slowest pair shows, and the old context, which is guessed and tried. */
#include "convert/export.h"

#include "convert/gguf_model.h"
#include "convert/ropetab.h"
#include "core/base/mem.h"
#include "core/text/chat.h"
#include "core/text/tok_list.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct keys {
    vq_buf *out;
    uint64_t n;
    const vq_file *f;
    const char *arch;
    vq_err *e;
} keys;

/* ---- values ---- */

static void le(vq_buf *b, uint64_t v, int n)
{
    for (int i = 0; i < n; i++) vq_buf_char(b, (char)(v >> 8 * i & 255));
}

static void put_string(vq_buf *b, const char *p, size_t n)
{
    le(b, n, 8);
    vq_buf_add(b, p, n);
}

/* ".name" is the architecture's own. */
static void put_key(keys *k, const char *name, cv_gtype type)
{
    char full[80];
    snprintf(full, sizeof full, "%s%s", name[0] == '.' ? k->arch : "", name);
    put_string(k->out, full, strlen(full));
    le(k->out, type, 4);
    k->n++;
}

static void put_u32(keys *k, const char *name, uint32_t v)
{
    put_key(k, name, CV_GU32);
    le(k->out, v, 4);
}

static void put_f32(keys *k, const char *name, double v)
{
    const float f = (float)v;
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    put_key(k, name, CV_GF32);
    le(k->out, u, 4);
}

static void put_bool(keys *k, const char *name, bool v)
{
    put_key(k, name, CV_GBOOL);
    le(k->out, v, 1);
}

static void put_text(keys *k, const char *name, vq_str s)
{
    if (!s.n) return;
    put_key(k, name, CV_GSTR);
    put_string(k->out, s.p, s.n);
}

static void put_array(keys *k, const char *name, cv_gtype type, uint64_t n)
{
    put_key(k, name, CV_GARR);
    le(k->out, type, 4);
    le(k->out, n, 8);
}

/* ---- rope ---- */

/* As a GGUF file keeps it. */
static double theta_of(const vq_file *f)
{
    const uint32_t n = f->config->rope_dim / 2;
    if (n < 2 || !(f->rope[n - 2] > f->rope[n - 1] && f->rope[n - 1] > 0)) return 10000;
    return (double)(float)cv_pow(f->rope[n - 2] / f->rope[n - 1], n);
}

/* Tables that differ by no more than theta's rounding to float. */
static bool same_table(const vq_file *f, const cv_rope *r)
{
    double table[VAQ_MAX_HEAD_DIM / 2];
    const uint32_t n = f->config->rope_dim / 2;
    if (!(r->theta > 1)) return false;
    cv_rope_table(table, r, (int)(2 * n));
    for (uint32_t i = 0; i < n; i++) {
        if (!(fabs(table[i] - f->rope[i]) <= 1e-6 * f->rope[i])) return false;
    }
    return true;
}

static bool is_plain(const vq_file *f)
{
    const cv_rope plain = { .kind = CV_ROPE_PLAIN, .theta = theta_of(f) };
    return f->config->rope_mult == 1 && same_table(f, &plain);
}

bool cv_export_freqs(float *out, const vq_file *f)
{
    const vaq_config *c = f->config;
    double table[VAQ_MAX_HEAD_DIM / 2];
    const cv_rope plain = { .kind = CV_ROPE_PLAIN, .theta = theta_of(f) };
    if (c->arch != VAQ_LLAMA || c->rope_mult != 1 || !(plain.theta > 1) || is_plain(f)) {
        return false;
    }
    cv_rope_table(table, &plain, (int)c->rope_dim);
    for (uint32_t i = 0; i < c->rope_dim / 2; i++) out[i] = (float)(table[i] / f->rope[i]);
    return true;
}

static bool find_yarn(const vq_file *f, cv_rope *r)
{
    const vaq_config *c = f->config;
    double table[VAQ_MAX_HEAD_DIM / 2];
    const uint32_t last = c->rope_dim / 2 - 1;
    *r = (cv_rope){ .kind = CV_ROPE_PLAIN, .theta = theta_of(f), .beta_fast = 32, .beta_slow = 1 };
    if (!(r->theta > 1)) return false;
    cv_rope_table(table, r, (int)c->rope_dim);
    r->kind = CV_ROPE_YARN;
    r->factor = (double)(float)(table[last] / f->rope[last]);
    if (!(r->factor > 1)) return false;
    r->orig = floor(c->ctx / r->factor + 0.5);
    if (r->orig >= 1 && same_table(f, r)) return true;
    for (r->orig = 1; r->orig <= 1 << 22; r->orig *= 2) {
        if (same_table(f, r)) return true;
    }
    return false;
}

/* A tenth of mscale_all_dim, which made the magnitude mm: a short number, if one did. */
static double log_multiplier(const vaq_config *c, double mm, double factor)
{
    const double tenth = (mm - 1) / cv_ln(factor), all = floor(1e7 * tenth + 0.5) / 1e6;
    const double m = cv_yarn_magnitude(factor, all);
    return (float)(1 / sqrt((double)c->head_dim) * m * m) == c->attn_scale ? 0.1 * all : tenth;
}

static vq_status put_rope(keys *k)
{
    const vaq_config *c = k->f->config;
    float freqs[VAQ_MAX_HEAD_DIM / 2];
    cv_rope r;
    double mm = 1;
    put_f32(k, ".rope.freq_base", theta_of(k->f));
    put_u32(k, ".rope.dimension_count", c->rope_dim);
    const bool simple = is_plain(k->f) || cv_export_freqs(freqs, k->f);
    if (!simple) {
        if (!find_yarn(k->f, &r)) {
            return vq_fail(k->e, VQ_EFORMAT, "%s: GGUF has no keys for the scaling of its "
                           "positions", k->f->path);
        }
        const double plain = cv_yarn_magnitude(r.factor, 1);
        put_key(k, ".rope.scaling.type", CV_GSTR);
        put_string(k->out, "yarn", 4);
        put_f32(k, ".rope.scaling.factor", r.factor);
        put_u32(k, ".rope.scaling.original_context_length", (uint32_t)r.orig);
        if (c->arch == VAQ_DEEPSEEK3) { /* magnitude of the scores, not of cos and sin */
            mm = sqrt((double)c->attn_scale * sqrt((double)c->head_dim));
            put_f32(k, ".rope.scaling.yarn_log_multiplier", log_multiplier(c, mm, r.factor));
        } else if (fabs(c->rope_mult - plain) > 1e-6) {
            put_f32(k, ".rope.scaling.attn_factor", c->rope_mult / plain);
        }
    }
    const double scale = mm * mm / sqrt((double)c->head_dim);
    if (fabs((double)c->attn_scale - scale) <= 1e-6 * scale &&
        (c->arch != VAQ_DEEPSEEK3 || c->rope_mult == 1)) {
        return VQ_OK;
    }
    return vq_fail(k->e, VQ_EFORMAT, "%s: GGUF has no keys for the scale of its attention, %g",
                   k->f->path, (double)c->attn_scale);
}

/* ---- configuration ---- */

static void put_experts(keys *k)
{
    const vaq_config *c = k->f->config;
    put_u32(k, ".leading_dense_block_count", c->n_dense_layer);
    put_u32(k, ".attention.q_lora_rank", c->q_lora);
    put_u32(k, ".attention.kv_lora_rank", c->kv_lora);
    put_u32(k, ".attention.key_length", c->kv_lora + c->rope_dim);
    put_u32(k, ".attention.value_length", c->kv_lora);
    put_u32(k, ".attention.key_length_mla", c->head_dim);
    put_u32(k, ".attention.value_length_mla", c->v_dim);
    put_u32(k, ".expert_count", c->n_expert);
    put_u32(k, ".expert_used_count", c->n_expert_used);
    put_u32(k, ".expert_shared_count", c->n_expert_shared);
    put_u32(k, ".expert_feed_forward_length", c->moe_inter);
    put_f32(k, ".expert_weights_scale", (double)c->routed_scale);
    put_bool(k, ".expert_weights_norm", c->flags & VAQ_F_NORM_TOPK);
    put_u32(k, ".expert_gating_func", 2); /* sigmoid */
    /* Also when there are none: a reader would have to guess. */
    const bool some = c->n_group_used < c->n_group;
    put_u32(k, ".expert_group_count", some ? c->n_group : 1);
    put_u32(k, ".expert_group_used_count", some ? c->n_group_used : 1);
}

static vq_status put_config(keys *k, cv_dtype most)
{
    /* general.file_type by cv_dtype */
    static const struct { cv_dtype type; uint32_t file_type; } file_types[] = {
        { CV_F32, 0 }, { CV_F16, 1 }, { CV_Q4_0, 2 }, { CV_Q8_0, 7 }, { CV_Q6_K, 18 },
        { CV_IQ4_NL, 25 }, { CV_BF16, 32 },
    };
    const vaq_config *c = k->f->config;
    put_text(k, "general.architecture", vq_str_c(k->arch));
    put_text(k, "general.type", vq_str_c("model"));
    put_text(k, "general.name", vq_file_meta(k->f, "name"));
    put_text(k, "general.license", vq_file_meta(k->f, "licence"));
    for (size_t i = 0; i < sizeof file_types / sizeof file_types[0]; i++) {
        if (file_types[i].type == most) put_u32(k, "general.file_type", file_types[i].file_type);
    }
    put_u32(k, "general.quantization_version", 2);
    put_u32(k, ".block_count", c->n_layer);
    put_u32(k, ".context_length", c->ctx);
    put_u32(k, ".embedding_length", c->hidden);
    put_u32(k, ".feed_forward_length", c->inter);
    put_u32(k, ".vocab_size", c->n_vocab);
    put_u32(k, ".attention.head_count", c->n_head);
    put_u32(k, ".attention.head_count_kv", c->n_head_kv);
    put_f32(k, ".attention.layer_norm_rms_epsilon", (double)c->eps);
    if (c->n_expert) {
        put_experts(k);
    } else {
        put_u32(k, ".attention.key_length", c->head_dim);
        put_u32(k, ".attention.value_length", c->v_dim);
    }
    return put_rope(k);
}

/* ---- tokenizer ---- */

/* Marks of the conversation are not printed by llama.cpp, thoughts and tool calls are: both are
 * told by how their names look, as its own converter does. */
static bool is_control(const vaq_config *c, int32_t id, vq_str s)
{
    static const char *const ends[][2] = {
        { "<|", "|>" }, { "<\xef\xbd\x9c", "\xef\xbd\x9c>" }, { "<pad>", "" }, { "<mask>", "" }
    };
    if (id == c->bos || id == c->eos) return true;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        const size_t a = strlen(ends[i][0]), z = strlen(ends[i][1]);
        if (s.n >= a + z && !memcmp(s.p, ends[i][0], a) &&
            !memcmp(s.p + s.n - z, ends[i][1], z)) {
            return true;
        }
    }
    return false;
}

static void put_tokens(keys *k, const vq_tok *t, const vq_tok_list *l)
{
    const vaq_config *c = k->f->config;
    const uint32_t n = c->n_vocab, used = (uint32_t)vq_tok_count(t);
    put_array(k, "tokenizer.ggml.tokens", CV_GSTR, n);
    for (uint32_t id = 0; id < n && !k->out->oom; id++) {
        const size_t at = k->out->n;
        le(k->out, 0, 8);
        if (id < used && l->kind[id]) vq_tok_spell(k->out, t, l, (int32_t)id);
        else vq_buf_printf(k->out, "[PAD%u]", id);
        if (k->out->oom) return;
        const uint64_t len = k->out->n - at - 8;
        for (int i = 0; i < 8; i++) k->out->p[at + (size_t)i] = (char)(len >> 8 * i & 255);
    }
    put_array(k, "tokenizer.ggml.token_type", CV_GI32, n);
    for (uint32_t id = 0; id < n; id++) {
        uint32_t type = CV_GTOK_UNUSED;
        if (id < used && l->kind[id]) {
            const vq_str s = vq_tok_bytes(t, (int32_t)id);
            type = l->kind[id] & VAQ_TOK_PLAIN ? CV_GTOK_NORMAL :
                   is_control(c, (int32_t)id, s) ? CV_GTOK_CONTROL : CV_GTOK_USER_DEFINED;
        }
        le(k->out, type, 4);
    }
}

static void put_merges(keys *k, const vq_tok *t, const vq_tok_list *l)
{
    vq_buf s = { 0 };
    put_array(k, "tokenizer.ggml.merges", CV_GSTR, l->merge.n / 2);
    for (size_t i = 0; i + 1 < l->merge.n; i += 2) {
        vq_buf_reset(&s);
        vq_tok_spell(&s, t, l, l->merge.v[i]);
        vq_buf_char(&s, ' ');
        vq_tok_spell(&s, t, l, l->merge.v[i + 1]);
        put_string(k->out, s.p ? s.p : "", s.n);
        k->out->oom |= s.oom;
    }
    vq_buf_clear(&s);
}

static vq_status put_tokenizer(keys *k)
{
    const vq_file *f = k->f;
    const vaq_config *c = f->config;
    vq_tok *t;
    vq_tok_list l;
    if (c->bos >= 0) put_u32(k, "tokenizer.ggml.bos_token_id", (uint32_t)c->bos);
    if (c->eos >= 0) put_u32(k, "tokenizer.ggml.eos_token_id", (uint32_t)c->eos);
    if (!f->tokenizer) {
        put_text(k, "tokenizer.ggml.model", vq_str_c("none"));
        return VQ_OK;
    }
    vq_status st = vq_tok_open(&t, f->tokenizer, f->tokenizer_size, f->path, k->e);
    if (st) return st;
    st = vq_tok_list_make(&l, t, f->tokenizer, k->e);
    const char *pre = st ? NULL : cv_gguf_pre(&l.family);
    if (!st && !pre) {
        st = vq_fail(k->e, VQ_EFORMAT, "%s: GGUF has no name for the way its tokenizer splits text",
                     f->path);
    }
    if (!st) {
        put_text(k, "tokenizer.ggml.model", vq_str_c("gpt2"));
        put_text(k, "tokenizer.ggml.pre", vq_str_c(pre));
        put_tokens(k, t, &l);
        put_merges(k, t, &l);
        /* Conversations of the R1 family begin with it, ChatML's do not. */
        put_bool(k, "tokenizer.ggml.add_bos_token",
                 c->bos >= 0 && c->template_id != VAQ_TPL_CHATML &&
                 c->template_id != VAQ_TPL_SMOLLM);
        put_text(k, "tokenizer.chat_template", vq_file_meta(f, "chat_template"));
    }
    vq_tok_list_clear(&l);
    vq_tok_close(t);
    return st;
}

vq_status cv_export_keys(vq_buf *out, uint64_t *n_key, const vq_file *f, cv_dtype most, vq_err *e)
{
    const bool mla = f->config->arch == VAQ_DEEPSEEK3;
    keys k = { .out = out, .f = f, .arch = mla ? "deepseek2" : vq_arch_name(f->config->arch),
               .e = e };
    vq_status st = put_config(&k, most);
    if (!st) st = put_tokenizer(&k);
    if (!st && out->oom) st = vq_fail(e, VQ_ENOMEM, "%s: out of memory for the keys", f->path);
    *n_key = k.n;
    return st;
}
