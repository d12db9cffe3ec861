/* t_gguf_r1.c - GGUF in, DeepSeek-R1's architecture: one model written in each of the layouts there
 * are of its latent attention, whole and in parts, in every type that encodes, must give one
 * container; what old files do not say; files that are wrong in one way.
 *
 * Weights are what their type holds exactly, so the file in F32 with the same values is the
 * reference.  Its own container is that of the checkpoint: t_export.c goes there and back. */
#define _GNU_SOURCE 1

#include "convert/blocks.h"
#include "convert/checkpoint.h"
#include "convert/export.h"
#include "convert/gguf_model.h"
#include "tests/gguf.h"
#include "tests/test.h"

#include "tests/conv.h"

#include <math.h>

/* Rows of every matrix are whole blocks of 256 but k_up's, as in R1. */
enum {
    VOCAB = 24, HIDDEN = 256, LAYERS = 2, HEADS = 3, NOPE = 32, ROPE = 8, V = 32, KV = 256,
    Q = 256, INTER = 256, MOE = 256, EXPERTS = 4, SHARED = 1, KV_B = HEADS * (NOPE + V)
};

/* attn_k_b and attn_v_b; attn_kv_b; that and, as flat matrices, those two. */
typedef enum layout { NEW, OLD, IK } layout;

typedef struct file {
    layout layout;
    uint32_t type;          /* id of the matrices; 0: F32 */
    uint32_t values;        /* id of the type whose values they have */
    uint32_t type_kv_b;     /* IK: of kv_b, which has no values of its own in IK's other two */
    bool mtp, mtp_copies;   /* a draft layer; with embedding and head */
    const char *without;    /* a tensor or key that is left out */
    const char *wrong;      /* a tensor with this shape */
    uint64_t ne[3];
    const char *key;        /* a key with this value instead, or this text */
    uint32_t value;
    const char *text;
    float log;              /* yarn_log_multiplier; 0: as R1's */
    int part, parts;        /* tensor i goes to part i % parts; 0: one file */
} file;

static char made[300], made_part[3][320];
static char said[600];

static void note(void *ctx, const char *line)
{
    (void)ctx;
    const size_t n = strlen(said);
    snprintf(said + n, sizeof said - n, "%s\n", line);
}

/* ---- values ---- */

enum { MAX_N = EXPERTS * 256 * 256 };

/* Those of a tensor follow from its name, and are what its bytes in this type say. */
static void values_of(float *v, uint8_t *bytes, const char *name, uint32_t type, size_t n)
{
    const cv_dtype d = cv_gtype_find(type)->dtype;
    uint32_t r = 2463534242u;
    for (const char *s = name; *s; s++) r = (r ^ (uint8_t)*s) * 16777619u;
    for (size_t i = 0; i < n; i++) {
        r ^= r << 13;
        r ^= r >> 17;
        r ^= r << 5;
        v[i] = (float)((int)(r % 255) - 127) / 128.0f * (float)(1 + i / 256 % 3);
    }
    T_OK(n <= MAX_N && cv_encode(bytes, d, v, n), "%s", name);
    cv_decode(v, d, bytes, n);
}

typedef struct writer {
    gg g;
    const file *f;
    int n;                  /* tensors so far, of all parts */
} writer;

static bool left_out(const writer *w, const char *name)
{
    return w->f->without && !strcmp(w->f->without, name);
}

static size_t count(int stack, int rows, int cols)
{
    return (size_t)(stack ? stack : 1) * (size_t)(rows ? rows : 1) * (size_t)cols;
}

/* stack 0: one, rows 0: a vector. */
static void put_bytes(writer *w, const char *name, uint32_t type, int stack, int rows, int cols,
                      const void *bytes)
{
    const file *f = w->f;
    const cv_dtype d = cv_gtype_find(type)->dtype;
    uint64_t ne[3] = { (uint64_t)cols, (uint64_t)rows, (uint64_t)stack };
    size_t size = cv_row_bytes(d, count(stack, rows, cols));
    const int at = w->n++;
    if (left_out(w, name) || (f->parts && at % f->parts != f->part)) return;
    if (f->wrong && !strcmp(f->wrong, name)) {
        memcpy(ne, f->ne, sizeof ne);
        size = cv_row_bytes(d, (size_t)(ne[0] * (ne[1] ? ne[1] : 1) * (ne[2] ? ne[2] : 1)));
    }
    gg_tensor_ne(&w->g, name, type, ne, bytes, size);
}

static void put(writer *w, const char *name, int stack, int rows, int cols)
{
    static float v[MAX_N];
    static uint8_t bytes[4 * MAX_N];
    const bool blocks = rows && cols % 256 == 0 && !strstr(name, "gate_inp");
    const uint32_t values = blocks ? w->f->values : 0, type = blocks ? w->f->type : 0;
    values_of(v, bytes, name, values, count(stack, rows, cols));
    T_OK(!type || type == values, "%s: no bytes of this type", name);
    put_bytes(w, name, type, stack, rows, cols, type ? (void *)bytes : (void *)v);
}

/* kv_b and what it is cut into: head h has NOPE rows of k, which k_b has as columns, and V of v. */
static void put_latent(writer *w, int layer)
{
    enum { N_K = HEADS * KV * NOPE, N_V = HEADS * V * KV };
    static float kv[KV_B * KV], k[N_K];
    static uint8_t bytes[sizeof kv], v_bytes[N_V * sizeof(float)];
    static const uint8_t zeros[sizeof kv]; /* also all weights of a block are zero then */
    char name[3][64];
    const file *f = w->f;
    const bool flat = f->layout == IK, coarse = f->type_kv_b;
    const size_t row = cv_row_bytes(cv_gtype_find(f->type)->dtype, KV);
    for (int i = 0; i < 3; i++) {
        static const char *const own[] = { "kv_b", "k_b", "v_b" };
        snprintf(name[i], sizeof name[i], "blk.%d.attn_%s.weight", layer, own[i]);
    }
    values_of(kv, bytes, name[0], f->values, KV_B * KV);
    const uint8_t *kv_bytes = f->type ? bytes : (const uint8_t *)kv;
    for (int h = 0; h < HEADS; h++) {
        const float *from = kv + h * (NOPE + V) * KV;
        for (int i = 0; i < KV; i++) {
            for (int c = 0; c < NOPE; c++) k[(h * KV + i) * NOPE + c] = from[c * KV + i];
        }
        memcpy(v_bytes + (size_t)(h * V) * row, kv_bytes + (size_t)(h * (NOPE + V) + NOPE) * row,
               V * row);
    }
    /* Where there are three, those that are not wanted are zeros, in a coarser type. */
    if (f->layout != NEW && coarse) put_bytes(w, name[0], f->type_kv_b, 0, KV_B, KV, zeros);
    else if (f->layout != NEW) put_bytes(w, name[0], f->type, 0, KV_B, KV, kv_bytes);
    if (f->layout == OLD) return;
    const uint32_t k_type = flat && !coarse ? 20 : 0, v_type = flat && !coarse ? 20 : f->type;
    put_bytes(w, name[1], k_type, flat ? 0 : HEADS, flat ? HEADS * KV : KV, NOPE,
              k_type ? zeros : (const uint8_t *)k);
    put_bytes(w, name[2], v_type, flat ? 0 : HEADS, flat ? HEADS * V : V, KV,
              flat && !coarse ? zeros : v_bytes);
}

static void put_layer(writer *w, int l)
{
    static const struct { const char *name; int stack, rows, cols; } all[] = {
        { "attn_norm.weight", 0, 0, HIDDEN }, { "ffn_norm.weight", 0, 0, HIDDEN },
        { "attn_q_a.weight", 0, Q, HIDDEN }, { "attn_q_a_norm.weight", 0, 0, Q },
        { "attn_q_b.weight", 0, HEADS * (NOPE + ROPE), Q },
        { "attn_kv_a_mqa.weight", 0, KV + ROPE, HIDDEN }, { "attn_kv_a_norm.weight", 0, 0, KV },
        { "attn_output.weight", 0, HIDDEN, HEADS * V },
    }, dense[] = {
        { "ffn_gate.weight", 0, INTER, HIDDEN }, { "ffn_up.weight", 0, INTER, HIDDEN },
        { "ffn_down.weight", 0, HIDDEN, INTER },
    }, moe[] = {
        { "ffn_gate_inp.weight", 0, EXPERTS, HIDDEN }, { "exp_probs_b.bias", 0, 0, EXPERTS },
        { "ffn_gate_exps.weight", EXPERTS, MOE, HIDDEN },
        { "ffn_up_exps.weight", EXPERTS, MOE, HIDDEN },
        { "ffn_down_exps.weight", EXPERTS, HIDDEN, MOE },
        { "ffn_gate_shexp.weight", 0, SHARED * MOE, HIDDEN },
        { "ffn_up_shexp.weight", 0, SHARED * MOE, HIDDEN },
        { "ffn_down_shexp.weight", 0, HIDDEN, SHARED * MOE },
    }, mtp[] = {
        { "nextn.eh_proj.weight", 0, HIDDEN, 2 * HIDDEN }, { "nextn.enorm.weight", 0, 0, HIDDEN },
        { "nextn.hnorm.weight", 0, 0, HIDDEN }, { "nextn.shared_head_norm.weight", 0, 0, HIDDEN },
    };
    char name[64];
#define EACH(list) for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) { \
        snprintf(name, sizeof name, "blk.%d.%s", l, list[i].name); \
        put(w, name, list[i].stack, list[i].rows, list[i].cols); \
    }
    EACH(all)
    put_latent(w, l);
    if (l == 0) EACH(dense)
    if (l > 0) EACH(moe)
    if (l < LAYERS) return;
    EACH(mtp)
#undef EACH
    if (!w->f->mtp_copies) return;
    static float v[VOCAB * HIDDEN];
    static uint8_t bytes[sizeof v];
    values_of(v, bytes, "token_embd.weight", 0, VOCAB * HIDDEN);
    snprintf(name, sizeof name, "blk.%d.nextn.embed_tokens.weight", l);
    put_bytes(w, name, 0, 0, VOCAB, HIDDEN, v);
    snprintf(name, sizeof name, "blk.%d.nextn.shared_head_head.weight", l);
    put(w, name, 0, VOCAB, HIDDEN);
}

/* ---- keys ---- */

static void put_int(writer *w, const char *name, uint32_t v)
{
    const file *f = w->f;
    char key[80];
    snprintf(key, sizeof key, "deepseek2.%s", name);
    if (left_out(w, name)) return;
    if (f->key && !strcmp(f->key, name) && f->text) gg_key_str(&w->g, key, f->text);
    else gg_key_int(&w->g, key, f->key && !strcmp(f->key, name) ? f->value : v);
}

static void put_keys(writer *w)
{
    const file *f = w->f;
    const bool latent = f->layout == NEW;
    gg_key_str(&w->g, "general.architecture", "deepseek2");
    put_int(w, "block_count", LAYERS + f->mtp);
    if (f->mtp) put_int(w, "nextn_predict_layers", 1);
    put_int(w, "context_length", 512);
    put_int(w, "vocab_size", VOCAB);
    put_int(w, "embedding_length", HIDDEN);
    put_int(w, "feed_forward_length", INTER);
    put_int(w, "attention.head_count", HEADS);
    put_int(w, "attention.head_count_kv", latent ? 1 : HEADS);
    put_int(w, "attention.key_length", latent ? KV + ROPE : NOPE + ROPE);
    put_int(w, "attention.value_length", latent ? KV : V);
    if (latent) {
        put_int(w, "attention.key_length_mla", NOPE + ROPE);
        put_int(w, "attention.value_length_mla", V);
    }
    put_int(w, "attention.q_lora_rank", Q);
    put_int(w, "attention.kv_lora_rank", KV);
    put_int(w, "rope.dimension_count", ROPE);
    put_int(w, "leading_dense_block_count", 1);
    put_int(w, "expert_count", EXPERTS);
    put_int(w, "expert_used_count", 2);
    put_int(w, "expert_shared_count", SHARED);
    put_int(w, "expert_feed_forward_length", MOE);
    put_int(w, "expert_gating_func", 2);
    put_int(w, "expert_group_count", 2);
    put_int(w, "expert_group_used_count", 1);
    gg_key_real(&w->g, "deepseek2.expert_weights_scale", 2.5f);
    gg_key_bool(&w->g, "deepseek2.expert_weights_norm", true);
    gg_key_real(&w->g, "deepseek2.attention.layer_norm_rms_epsilon", 1e-6f);
    gg_key_real(&w->g, "deepseek2.rope.freq_base", 10000);
    gg_key_str(&w->g, "deepseek2.rope.scaling.type", "yarn");
    gg_key_real(&w->g, "deepseek2.rope.scaling.factor", 40);
    put_int(w, "rope.scaling.original_context_length", 64);
    if (left_out(w, "log")) return;
    gg_key_real(&w->g, "deepseek2.rope.scaling.yarn_log_multiplier", f->log ? f->log : 0.1f);
}

static void write_part(const file *f, const char *name)
{
    writer w = { .f = f };
    vq_buf b = { 0 };
    if (!f->part) put_keys(&w);
    if (f->parts) {
        gg_key_int(&w.g, "split.no", (uint32_t)f->part);
        gg_key_int(&w.g, "split.count", (uint32_t)f->parts);
    }
    put(&w, "token_embd.weight", 0, VOCAB, HIDDEN);
    put(&w, "output_norm.weight", 0, 0, HIDDEN);
    put(&w, "output.weight", 0, VOCAB, HIDDEN);
    for (int l = 0; l < LAYERS + f->mtp; l++) put_layer(&w, l);
    gg_file(&b, &w.g);
    T_OK(!b.oom && !vq_file_write_atomic(name, b.p, b.n, NULL), "%s", name);
    vq_buf_clear(&b);
}

static void write_file(const file *f) { write_part(f, made); }

/* ---- containers ---- */

static vq_status import(const char *from, int type, vq_err *e)
{
    cv_report r;
    said[0] = 0;
    const vq_status st = convert(&(cv_opts){ .src = from, .type = type, .threads = 2,
                                             .notice = note }, &r, e);
    cv_report_clear(&r);
    return st;
}

/* The hash of config, rope and weights; "" and a failure when it does not convert. */
static void hash_file(char hex[65], const file *f, int type)
{
    vq_err e;
    hex[0] = 0;
    write_file(f);
    const vq_status st = import(made, type, &e);
    T_OK(!st, "layout %d, type %u: %s", f->layout, f->type, e.msg);
    if (!st) hash_container(hex, out);
}

static void test_layouts(void)
{
    static const uint32_t types[] = { 0, 1, 2, 8, 14, 20 }; /* F32 F16 Q4_0 Q8_0 Q6_K IQ4_NL */
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        char want[65], hex[65];
        const uint32_t t = types[i];
        hash_file(want, &(file){ .values = t }, Q_F32);
        const file cases[] = {
            { .layout = NEW, .type = t }, { .layout = OLD }, { .layout = OLD, .type = t },
            { .layout = IK, .type = t },                        /* kv_b is the finer */
            { .layout = IK, .type = t, .type_kv_b = 20 },       /* the other two are */
        };
        for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
            file f = cases[k];
            f.values = t;
            if (f.layout == IK && cv_row_bytes(cv_gtype_find(t)->dtype, 256) <= 144) continue;
            hash_file(hex, &f, Q_F32);
            T_OK(!strcmp(hex, want), "type %u, case %zu: another container", t, k);
        }
    }
}

/* Everything in the container is what the file says, seen from the other side: R1's own names. */
static void test_config(void)
{
    char hex[65];
    hash_file(hex, &(file){ .layout = OLD }, Q_F32);
    vq_file *f;
    vq_err e = { 0 };
    T_OK(!vq_file_open(&f, out, NULL, &e), "%s", e.msg);
    if (!f) return;
    const vaq_config *c = f->config;
    T_OK(c->arch == VAQ_DEEPSEEK3 && c->n_layer == LAYERS && c->n_dense_layer == 1 && !c->n_mtp &&
         c->n_head == HEADS && c->n_head_kv == 1 && c->nope_dim == NOPE && c->rope_dim == ROPE &&
         c->head_dim == NOPE + ROPE && c->v_dim == V && c->kv_lora == KV && c->q_lora == Q &&
         c->n_expert == EXPERTS && c->n_expert_used == 2 && c->n_expert_shared == SHARED &&
         c->moe_inter == MOE && c->n_group == 2 && c->n_group_used == 1 && c->routed_scale == 2.5f,
         "config");
    T_OK(c->flags == (VAQ_F_ROPE_PAIRS | VAQ_F_NORM_TOPK), "flags %x", c->flags);
    const double mm = 0.1 * log(40) + 1;
    const double scale = mm * mm / sqrt(NOPE + ROPE);
    T_OK(c->rope_mult == 1 && fabs((double)c->attn_scale / scale - 1) < 1e-7, "scale %g",
         (double)c->attn_scale);
    T_OK(fabs(f->rope[3] * 40 / pow(10000, -0.75) - 1) < 1e-12, "the slowest pair is slowed");
    /* An expert's rows are its own. */
    static float exps[MAX_N], row[HIDDEN];
    static uint8_t bytes[4 * MAX_N];
    values_of(exps, bytes, "blk.1.ffn_up_exps.weight", 0, EXPERTS * MOE * HIDDEN);
    for (int x = 0; x < EXPERTS; x++) {
        const vaq_tensor *t = vq_file_find(f, VAQ_EXPERT_GATE_UP, 1, x);
        const uint8_t *data = t ? vq_file_data(f, t) : NULL;
        for (int r = 0; t && r < MOE; r += 37) {
            q_decode_row(t->type, row, data + (size_t)(2 * (r / 16) + 1) *
                         q_group_bytes(t->type, HIDDEN), r % 16, HIDDEN);
            T_OK(!memcmp(row, exps + (x * MOE + r) * HIDDEN, sizeof row), "expert %d row %d", x, r);
        }
    }
    vq_file_close(f);
}

static void test_parts(void)
{
    char want[65], hex[65];
    vq_err e;
    hash_file(want, &(file){ .values = 8, .type = 8 }, -1);
    for (int i = 0; i < 3; i++) {
        snprintf(made_part[i], sizeof made_part[i], "%s/x-0000%d-of-00003.gguf", scratch, i + 1);
        write_part(&(file){ .values = 8, .type = 8, .part = i, .parts = 3 }, made_part[i]);
    }
    T_OK(!import(made_part[2], -1, &e), "%s", e.msg);
    hash_container(hex, out);
    T_OK(!strcmp(hex, want), "three parts give another container");
    vq_unlink(made_part[1]);
    T_OK(import(made_part[0], -1, &e) == VQ_EFAIL && strstr(e.msg, "00002-of-00003"), "%s", e.msg);
    vq_unlink(made_part[0]);
    vq_unlink(made_part[2]);
}

/* A draft layer, with and without the copies of embedding and head that equal the main ones. */
static void test_mtp(void)
{
    vq_err e;
    for (int copies = 0; copies < 2; copies++) {
        vq_file *f;
        write_file(&(file){ .mtp = true, .mtp_copies = copies });
        T_OK(!import(made, Q_F32, &e), "%s", e.msg);
        T_OK(!vq_file_open(&f, out, NULL, &e), "%s", e.msg);
        if (!f) continue;
        T_OK(f->config->n_layer == LAYERS && f->config->n_mtp == 1, "layers");
        T_OK(f->config->flags & VAQ_F_MTP_EMBED, "the embedding is the main one");
        T_OK((f->config->flags & VAQ_F_MTP_HEAD) == (copies ? 0 : VAQ_F_MTP_HEAD),
             "the head is the main one where it has none of its own");
        T_OK(vq_file_find(f, VAQ_MTP_EH, LAYERS, -1) != NULL, "eh_proj");
        T_OK(vq_file_find(f, VAQ_EXPERT_DOWN, LAYERS, EXPERTS - 1) != NULL, "its experts");
        vq_file_close(f);
    }
    write_file(&(file){ .mtp = true, .without = "blk.2.nextn.hnorm.weight" });
    T_OK(!import(made, Q_F32, &e), "%s", e.msg);
    T_OK(strstr(said, "hnorm") && strstr(said, "left out"), "said: %s", said);
}

/* ---- what old files do not say ---- */

/* The config of a file that has these keys: nothing is converted. */
static void config_of(const file *f, cv_config *c, const char **assumed)
{
    cv_ckpt k;
    vq_err e = { 0 };
    write_file(f);
    *c = (cv_config){ 0 };
    T_OK(!cv_ckpt_open(&k, made, &e), "%s", e.msg);
    T_OK(!cv_config_read(c, &k.config.j, k.config.path, false, &e), "%s", e.msg);
    *assumed = cv_gguf_assumed(&k.gguf);
    cv_ckpt_close(&k);
}

static void test_groups(void)
{
    vq_err e;
    cv_config c;
    const char *assumed;
    config_of(&(file){ .without = "log" }, &c, &assumed);
    T_OK(c.c.rope_mult == 1 && c.c.attn_scale == (float)(1 / sqrt(NOPE + ROPE)), "YaRN alone");
    config_of(&(file){ .log = 0.0707f }, &c, &assumed); /* DeepSeek-V2's mscale_all_dim is .707 */
    const double mm = 0.0707 * log(40) + 1;
    T_OK(c.c.attn_scale == (float)(1 / sqrt(NOPE + ROPE) * mm * mm), "a short number");
    config_of(&(file){ .layout = OLD }, &c, &assumed);
    T_OK(!assumed && c.c.n_group == 2 && c.c.n_group_used == 1, "as the file says");
    config_of(&(file){ .layout = OLD, .without = "expert_group_count" }, &c, &assumed);
    T_OK(assumed && strstr(assumed, "one group") && c.c.n_group == 1 && c.c.n_group_used == 1,
         "one group");
    /* It is said, also by the container. */
    T_OK(!import(made, Q_N4, &e) && strstr(said, assumed), "%s: %s", e.msg, said);
    vq_file *f;
    T_OK(!vq_file_open(&f, out, NULL, &e), "%s", e.msg);
    T_OK(f && vq_str_has(vq_file_meta(f, "recipe"), assumed), "recipe");
    vq_file_close(f);
    vq_buf json = { 0 };
    T_OK(!cv_describe(made, &json, &e) && strstr(json.p, assumed) &&
         strstr(json.p, "\"convertible\":true"), "%s: %s", e.msg, json.p);
    vq_buf_clear(&json);
}

/* R1's counts; the rest is no R1, and no matter. */
static void test_groups_of_r1(void)
{
    static const uint32_t counts[][3] = { { 256, 8, 8 }, { 256, 6, 1 }, { 64, 8, 1 } };
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        gg g = { .n_key = 0 };
        cv_gguf k;
        cv_st s;
        vq_err e = { 0 };
        vq_buf b = { 0 }, json = { 0 };
        vq_json j;
        int64_t group = 1, used = 1;
        gg_key_str(&g, "general.architecture", "deepseek2");
        gg_key_int(&g, "deepseek2.expert_count", counts[i][0]);
        gg_key_int(&g, "deepseek2.expert_used_count", counts[i][1]);
        gg_file(&b, &g);
        T_OK(!vq_file_write_atomic(made, b.p, b.n, NULL), "write");
        T_OK(!cv_gguf_open(&k, &s, made, NULL, &e), "%s", e.msg);
        T_OK(!cv_gguf_config(&json, &k, &s, 1, &e), "%s", e.msg);
        T_OK(!vq_json_parse(&j, json.p, json.n, "config", &e), "%s", e.msg);
        vq_json_i64(&j, vq_json_get(&j, 0, "n_group"), &group);
        vq_json_i64(&j, vq_json_get(&j, 0, "topk_group"), &used);
        T_OK(group == counts[i][2] && used == (group == 8 ? 4 : 1), "%u experts: %d, %d",
             counts[i][0], (int)group, (int)used);
        T_OK(cv_gguf_assumed(&k) && !strstr(cv_gguf_assumed(&k), "R1") == (group == 1), "said");
        vq_json_clear(&j);
        vq_buf_clear(&b);
        vq_buf_clear(&json);
        cv_gguf_close(&k);
        cv_st_close(&s);
    }
}

/* ---- wrong in one way ---- */

static void test_refused(void)
{
    static const struct { file f; const char *says; } cases[] = {
        { { .without = "blk.1.attn_k_b.weight" }, "blk.1.attn_k_b.weight is missing" },
        { { .without = "blk.0.attn_v_b.weight" }, "blk.0.attn_v_b.weight is missing" },
        { { .layout = OLD, .without = "blk.0.attn_kv_b.weight" }, "blk.0.attn_k_b.weight is" },
        { { .without = "blk.1.ffn_up_exps.weight" }, "blk.1.ffn_up_exps.weight is missing" },
        { { .without = "blk.1.exp_probs_b.bias" }, "blk.1.exp_probs_b.bias is missing" },
        { { .without = "token_embd.weight" }, "token_embd.weight is missing" },
        { { .wrong = "blk.1.attn_k_b.weight", .ne = { KV, NOPE, HEADS } },
          "attn_k_b.weight is ne [256, 32, 3], its keys ask for ne [32, 256, 3]" },
        { { .wrong = "blk.1.attn_k_b.weight", .ne = { NOPE, HEADS, KV } }, "ne [32, 3, 256]" },
        { { .wrong = "blk.1.attn_v_b.weight", .ne = { V, KV, HEADS } }, "ne [32, 256, 3]" },
        { { .wrong = "blk.1.attn_v_b.weight", .ne = { KV, V, HEADS - 1 } }, "ne [256, 32, 2]" },
        { { .wrong = "blk.1.ffn_gate_exps.weight", .ne = { HIDDEN, MOE, EXPERTS - 1 } },
          "ffn_gate_exps.weight is ne [256, 256, 3], its keys ask for ne [256, 256, 4]" },
        { { .wrong = "blk.1.ffn_down_exps.weight", .ne = { HIDDEN * MOE * EXPERTS } },
          "is ne [262144], its" },
        { { .wrong = "blk.1.ffn_down_exps.weight", .ne = { EXPERTS, MOE, HIDDEN } }, "ne [4, 256" },
        { { .wrong = "blk.0.attn_norm.weight", .ne = { HIDDEN / 2, 2 } }, "ne [128, 2]" },
        { { .layout = OLD, .wrong = "blk.0.attn_kv_b.weight", .ne = { KV, KV_B / HEADS, HEADS } },
          "attn_kv_b.weight is ne [256, 64, 3]" },
        { { .key = "expert_count", .value = 5, .without = "expert_group_count" },
          "its keys ask for ne [256, 5]" },
        { { .key = "expert_count", .value = 3 }, ".expert_group_count) is 2: must cut" },
        { { .key = "expert_count", .text = "four" },
          "n_routed_experts (its key .expert_count) is \"no whole number\"" },
        { { .key = "expert_used_count", .value = 5 }, "(its key .expert_used_count) is 5" },
        { { .key = "expert_group_count", .value = 3 },
          "n_group (its key .expert_group_count) is 3" },
        { { .key = "expert_group_used_count", .text = "one" },
          "(its key .expert_group_used_count) is \"no" },
        { { .key = "expert_gating_func", .value = 1 }, "is \"softmax\": only sigmoid" },
        { { .without = "expert_gating_func" }, ".expert_gating_func) is \"softmax\"" },
        { { .without = "attention.kv_lora_rank" }, "(its key .attention.kv_lora_rank) is missing" },
        { { .without = "attention.q_lora_rank" }, "blk.0.attn_q.weight is missing" },
        { { .without = "rope.dimension_count" }, ".rope.dimension_count) is missing" },
        { { .without = "leading_dense_block_count" }, "_block_count) is missing" },
        { { .key = "leading_dense_block_count", .value = 0 }, "blk.0.ffn_gate_inp" },
        { { .key = "leading_dense_block_count", .value = 9 }, "leading_dense_block_count) is 9" },
        { { .key = "rope.dimension_count", .value = NOPE + ROPE },
          "less .rope.dimension_count) is 0" },
        { { .key = "rope.dimension_count", .value = 4000 }, "rope.dimension_count) is -3960" },
        { { .key = "attention.head_count_kv", .value = 2 }, "head_count_kv) is 2" },
        { { .key = "attention.head_count", .value = HEADS + 1 }, "ask for" },
        { { .key = "attention.key_length_mla", .value = NOPE }, "ask for" },
        { { .layout = OLD, .key = "attention.value_length", .value = 48 }, "ask for" },
        { { .key = "attention.kv_lora_rank", .value = 250 }, "kv_lora_rank) is 250" },
        { { .key = "block_count", .value = 1 }, "belongs to nothing" },
        { { .key = "block_count", .value = 3 }, "blk.2" },
        { { .log = -0.1f }, "mscale is -1" },
        { { .log = NAN }, "yarn_log_multiplier\": its value" },
        { { .mtp = true, .key = "nextn_predict_layers", .value = 3 }, "block_count) is 0" },
        { { .mtp = true, .key = "nextn_predict_layers", .value = 2 }, "blk.1.nextn.eh_proj" },
    };
    vq_err e;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_file(&cases[i].f);
        ck_empty(out_dir);
        const vq_status st = import(made, Q_N4, &e);
        T_OK(st == VQ_EFORMAT && strstr(e.msg, cases[i].says) && strstr(e.msg, "m.gguf"),
             "%zu: wanted \"%s\": %d %s", i, cases[i].says, st, e.msg);
        T_OK(files_in(out_dir) == 0, "%zu: left something behind", i);
    }
}

/* A weight that is none is found where it is in the file: row and column of the experts' tensor. */
static void test_bad_weight(void)
{
    vq_buf b = { 0 };
    vq_err e;
    cv_gguf g;
    cv_st s;
    const float nan = NAN;
    write_file(&(file){ .type = 0 });
    T_OK(!cv_gguf_open(&g, &s, made, NULL, &e), "%s", e.msg);
    uint64_t at = 0;
    for (size_t i = 0; i < s.n_tensor; i++) {
        const cv_tensor *t = &s.tensor[i];
        if (vq_str_eq(t->name, "blk.1.ffn_up_exps.weight")) at = t->off;
    }
    cv_gguf_close(&g);
    cv_st_close(&s);
    T_OK(!vq_file_read(made, 1 << 30, &b, &e), "%s", e.msg);
    memcpy(b.p + at + ((2 * MOE + 21) * HIDDEN + 7) * sizeof nan, &nan, sizeof nan);
    T_OK(!vq_file_write_atomic(made, b.p, b.n, NULL), "write");
    vq_buf_clear(&b);
    T_OK(import(made, Q_N4, &e) == VQ_EFORMAT &&
         strstr(e.msg, "blk.1.ffn_up_exps.weight: the weight at row 533, column 7"), "%s", e.msg);
}

/* Without memory it is that which is said, not that something is wrong with the file. */
static void test_no_memory(void)
{
    if (!vq_mem_fail_at(0)) {
        T_SKIP("failing allocations: needs a build with VQ_DEBUG");
        return;
    }
    vq_status st = VQ_ENOMEM;
    long n = 1;
    write_file(&(file){ .mtp = true });
    for (; st && n < 5000; n++) {
        cv_report r = { 0 };
        vq_err e = { 0 };
        const cv_opts o = { .src = made, .type = Q_N4, .dry_run = true, .threads = 1 };
        vq_mem_fail_at(n);
        st = cv_convert(&o, &r, &e);
        vq_mem_fail_at(0);
        T_OK(st == VQ_OK || st == VQ_ENOMEM, "allocation %ld: %d %s", n, st, e.msg);
        cv_report_clear(&r);
    }
    T_OK(st == VQ_OK && n > 20, "converts in the end (%ld)", n);
}

int main(void)
{
    conv_begin();
    snprintf(made, sizeof made, "%s/m.gguf", scratch);
    test_layouts();
    test_config();
    test_parts();
    test_mtp();
    test_groups();
    test_groups_of_r1();
    test_refused();
    test_bad_weight();
    test_no_memory();
    vq_unlink(made);
    conv_end();
    return t_done("t_gguf_r1");
}
