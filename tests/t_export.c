/* t_export.c - GGUF out: what is exported and imported again is the container it came from; block
 * encoders; tokenizers listed and compiled again; names, shapes and values of R1's own tensors.
 *
 * Hashes are SHA-256 of what the encoders make of the values of test_blocks: the same on every
 * machine.  VQ_REMAKE=1 prints them. */
#define _GNU_SOURCE 1

#include "convert/blocks.h"
#include "convert/checkpoint.h"
#include "convert/export.h"
#include "core/file/check.h"
#include "core/text/tok_list.h"
#include "tests/test.h"
#include "tests/tokenizers.h"

#include "tests/conv.h"

#include <math.h>

static char gguf[300], back[300];

static vq_status export_as(int type, int threads, cv_export_report *r, vq_err *e)
{
    const cv_export_opts o = { .src = out, .out = gguf, .type = type, .threads = threads,
                               .force = true };
    *e = (vq_err){ 0 };
    return cv_export(&o, r, e);
}

static void hash_hex(char hex[65], const void *p, size_t n)
{
    vq_sha256 s;
    uint8_t h[32];
    vq_sha256_init(&s, NULL);
    vq_sha256_add(&s, p, n);
    vq_sha256_end(&s, h);
    vq_hex32(hex, h);
}

/* ---- blocks ---- */

static double error_of(cv_dtype d, const float *x, size_t n, uint8_t *bytes)
{
    float y[1024];
    double e = 0, all = 0;
    T_OK(cv_encode(bytes, d, x, n), "type %d", d);
    cv_decode(y, d, bytes, n);
    for (size_t i = 0; i < n; i++) {
        e += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
        all += (double)x[i] * (double)x[i];
    }
    return sqrt(e / all);
}

static void test_blocks(void)
{
    static const struct { cv_dtype type; double bound; const char *hash; } cases[] = {
        { CV_F32, 0,
          "10c2c0926fd6efc61dc074b2bdeee5044541919587cce68ed6ec9887064b140e" },
        { CV_F16, 0.0003,
          "03e7980b0543d60768a28317328993eaed7709b230c339becaa850c54add0ef7" },
        { CV_BF16, 0.0022,
          "aad900a01192beb0ba2f606f52eb46a6a69a15d0fe3a8a37cabffe55fbc55c47" },
        { CV_Q8_0, 0.0055,
          "deb56d20c33809da02fb77374a0b1933983c27dd1753741ea27f9383852456b9" },
        { CV_Q6_K, 0.0175,
          "b875d60b0a837a2c79090569b4617edfc86bbeec5f5d311e471f0de73449de38" },
        { CV_IQ4_NL, 0.075,
          "b9d9f3f8fe0876791c6fb8994f113243be045f5491fcce114ceca1dd22e9dd0b" },
        { CV_Q4_0, 0.085,
          "7ad6a60cb06fdfaf2b30a2418bf8f6d3bd6fd8ca92d420d6cf73d35c90f0f458" },
    };
    enum { N = 1024 };
    float x[N], y[N];
    uint8_t bytes[4 * N];
    uint32_t r = 1;
    for (int i = 0; i < N; i++) { /* sums of four: bell-shaped, scales that differ by the block */
        int sum = 0;
        for (int k = 0; k < 4; k++) {
            r = r * 1664525u + 1013904223u;
            sum += (int)(r >> 20) - 2048;
        }
        x[i] = (float)sum * 0x1p-16f * (float)(1 + i / 32 % 5);
    }
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        const cv_dtype d = cases[c].type;
        const char *name = cv_gtype_of(d)->name;
        const size_t block = cv_dtype_block(d);
        char hex[65];
        T_OK(cv_encodes(d), "%s", name);
        const double e = error_of(d, x, N, bytes);
        T_OK(e <= cases[c].bound, "%s: error %.5f", name, e);
        hash_hex(hex, bytes, cv_row_bytes(d, N));
        T_OK(!strcmp(hex, cases[c].hash), "%s: %s", name, hex);
        if (getenv("VQ_REMAKE")) printf("%s %.5f\n          \"%s\" },\n", name, e, hex);
        /* What the type holds exactly stays: the values just written, decoded. */
        cv_decode(y, d, bytes, N);
        T_OK(error_of(d, y, N, bytes) <= cases[c].bound / 4, "%s: again %.5f", name,
             error_of(d, y, N, bytes));
        /* Zeros are zeros; one weight among zeros keeps its size; extremes. */
        float z[N] = { 0 }, back1[N];
        T_OK(cv_encode(bytes, d, z, N), "%s: zeros", name);
        cv_decode(back1, d, bytes, N);
        T_OK(!memcmp(back1, z, sizeof z), "%s: zeros", name);
        for (int sign = -1; sign < 2; sign += 2) {
            z[5] = (float)sign * 0.37f;
            T_OK(cv_encode(bytes, d, z, block > 5 ? block : 32), "%s: one", name);
            cv_decode(back1, d, bytes, block > 5 ? block : 32);
            T_OK(fabsf(back1[5] - z[5]) < 0.01f * 0.37f, "%s: %g", name, (double)back1[5]);
        }
        z[5] = 1e30f; /* within the range of F32 and BF16 only */
        T_OK(cv_encode(bytes, d, z, N) == (d == CV_F32 || d == CV_BF16), "%s: 1e30", name);
        z[5] = 1e-30f; /* lost, not harmful */
        T_OK(cv_encode(bytes, d, z, N), "%s: 1e-30", name);
        cv_decode(back1, d, bytes, N);
        T_OK(fabsf(back1[5]) <= 1.1e-30f && back1[6] == 0, "%s: 1e-30: %g", name,
             (double)back1[5]);
    }
    T_OK(!cv_encodes(CV_Q4_K) && !cv_encodes(CV_OTHER) && !cv_encodes(CV_F8_E4M3), "others");
}

/* ---- there and back ---- */

static vq_file *open_ok(const char *path)
{
    vq_file *f;
    vq_err e = { 0 };
    T_OK(!vq_file_open(&f, path, NULL, &e), "%s", e.msg);
    return f;
}

static bool import_f32(vq_err *e)
{
    cv_report r = { 0 };
    const cv_opts o = { .src = gguf, .out = back, .type = Q_F32, .force = true };
    *e = (vq_err){ 0 };
    const vq_status st = cv_convert(&o, &r, e);
    cv_report_clear(&r);
    T_OK(!st, "%s", e->msg);
    return !st;
}

/* The largest difference of two containers' weights, as a share of the weight. */
static double compare(const char *what, double rope)
{
    vq_file *a = open_ok(out), *b = open_ok(back);
    double worst = 0;
    if (a && b) {
        T_OK(!memcmp(a->config, b->config, sizeof *a->config), "%s: config", what);
        for (uint32_t i = 0; i < a->config->rope_dim / 2; i++) {
            T_OK(fabs(a->rope[i] / b->rope[i] - 1) <= rope, "%s: rope %u", what, i);
        }
        T_OK(a->tokenizer_size == b->tokenizer_size &&
             (!a->tokenizer || !memcmp(a->tokenizer, b->tokenizer, a->tokenizer_size)),
             "%s: tokenizer", what);
        T_OK(a->n_tensor == b->n_tensor, "%s: tensors", what);
        for (uint32_t i = 0; i < a->n_tensor; i++) {
            const float *x = vq_file_data(a, &a->tensor[i]), *y = vq_file_data(b, &b->tensor[i]);
            T_OK(a->tensor[i].size == b->tensor[i].size, "%s: tensor %u", what, i);
            for (uint64_t k = 0; k < a->tensor[i].size / sizeof *x; k++) {
                const double d = fabs((double)x[k] - (double)y[k]);
                /* below, half-precision numbers are all 2^-24 apart */
                if (d > worst * fabs((double)x[k]) && fabs((double)x[k]) > 0x1p-14) {
                    worst = d / fabs((double)x[k]);
                }
            }
        }
    }
    vq_file_close(a);
    vq_file_close(b);
    return worst;
}

static bool make_as(const char *from, int type, bool drop)
{
    cv_report r;
    vq_err e;
    /* Without the layers that only draft, which are not written. */
    const vq_status st = convert(&(cv_opts){ .src = from, .type = type, .threads = 2,
                                             .drop_mtp = drop }, &r, &e);
    T_OK(!st, "%s", e.msg);
    cv_report_clear(&r);
    return !st;
}

static bool make(const char *from, int type) { return make_as(from, type, false); }

static void round_trip(const char *from, double rope)
{
    cv_export_report r;
    vq_err e;
    char hex[2][65];
    if (!make_as(from, Q_F32, true)) return;
    for (int i = 0; i < 2; i++) {
        vq_buf bytes = { 0 };
        T_OK(!export_as(CV_F32, 1 + 2 * i, &r, &e), "%s", e.msg);
        T_OK(r.bytes == vq_file_size(gguf) && r.n_tensor > 5, "report");
        T_OK(!vq_file_read(gguf, 1 << 30, &bytes, &e), "%s", e.msg);
        hash_hex(hex[i], bytes.p, bytes.n);
        vq_buf_clear(&bytes);
        cv_export_report_clear(&r);
    }
    T_OK(!strcmp(hex[0], hex[1]), "%s: 3 threads, other bytes", from);
    if (import_f32(&e)) T_OK(compare(from, rope) == 0, "%s: weights", from);
    T_OK(!export_as(CV_F16, 2, &r, &e), "%s", e.msg);
    cv_export_report_clear(&r);
    if (import_f32(&e)) {
        const double worst = compare(from, rope);
        T_OK(worst <= 0x1p-11, "%s: as F16: %g", from, worst);
    }
}

static void test_round_trips(void)
{
    round_trip("tests/data/models/tiny-r1-qwen", 0);
    round_trip("tests/data/models/tiny-r1-qwen3", 0);
    round_trip("tests/data/models/tiny-r1-llama", 0x1p-24); /* divisors are floats */
    /* No tokenizer, a head of its own or not, YaRN with a magnitude. */
    ck k;
    ck_make(&k);
    ck_empty(src);
    T_OK(!ck_write(&k, src), "write");
    round_trip(src, 0);
    ck_find(&k, "lm_head.weight")->file = -1;
    char *end = k.config + strlen(k.config) - 1;
    strcpy(end, ",\"tie_word_embeddings\":true,\"rope_scaling\":{\"rope_type\":\"yarn\","
           "\"factor\":4,\"attn_factor\":0.75,\"original_max_position_embeddings\":100}}");
    T_OK(!ck_write(&k, src), "write");
    round_trip(src, 0);
    ck_free(&k);
    /* Latent attention, experts, YaRN with a scale on the scores; groups, of which one model has
     * some and the other none. */
    round_trip("tests/data/models/tiny-r1-fp8", 0);
    for (int groups = 0; groups < 2; groups++) {
        ck_dsv3(&k);
        if (!groups) *strstr(k.config, "2,\"topk_group\":1") = '1';
        ck_empty(src);
        T_OK(!ck_write(&k, src), "write");
        round_trip(src, 0);
        ck_free(&k);
    }
}

/* ---- types ---- */

static void test_types(void)
{
    static const struct { int type; cv_dtype near; } cases[] = {
        { Q_F32, CV_F32 }, { Q_F16, CV_F16 }, { Q_BF16, CV_BF16 }, { Q_L8, CV_Q8_0 },
        { Q_L6, CV_Q6_K }, { Q_N5, CV_Q6_K }, { Q_N4, CV_IQ4_NL }, { Q_N4S, CV_IQ4_NL },
    };
    cv_export_report r;
    vq_err e;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (!make("tests/data/models/tiny-r1-qwen", cases[i].type)) continue;
        T_OK(!export_as(-1, 2, &r, &e), "%s", e.msg);
        for (size_t k = 0; k < r.n_tensor; k++) {
            const cv_export_tensor *t = &r.tensor[k];
            cv_dtype want = t->ne[1] == 1 ? CV_F32 : cases[i].near;
            if (want == CV_Q6_K && t->ne[0] % 256) want = CV_Q8_0;
            T_OK(t->type == want, "%s: %s", t->name, cv_gtype_of(t->type)->name);
            T_OK(t->rel_rmse <= (want == CV_IQ4_NL ? 0.07f : 0.006f), "%s: error %g", t->name,
                 (double)t->rel_rmse);
        }
        T_OK(r.pairs[cases[i].type], "the report says what became of the type");
        cv_export_report_clear(&r);
        import_f32(&e);
    }
    ck k; /* rows of 24 are no blocks at all */
    ck_make(&k);
    ck_empty(src);
    T_OK(!ck_write(&k, src) && make(src, Q_N4), "write");
    T_OK(!export_as(CV_Q4_0, 1, &r, &e), "%s", e.msg);
    for (size_t i = 0; i < r.n_tensor; i++) {
        const cv_export_tensor *t = &r.tensor[i];
        const bool down = strstr(t->name, "ffn_down");
        T_OK(t->type == (t->ne[1] == 1 ? CV_F32 : down ? CV_F16 : CV_Q4_0), "%s", t->name);
    }
    cv_export_report_clear(&r);
    ck_free(&k);
}

/* ---- R1's own ---- */

static const cv_tensor *find(const cv_st *s, const char *name)
{
    for (size_t i = 0; i < s->n_tensor; i++) {
        if (vq_str_eq(s->tensor[i].name, name)) return &s->tensor[i];
    }
    T_OK(false, "no tensor %s", name);
    return NULL;
}

/* Row `row` of a GGUF tensor is row `from` of the container's, in half `half` of a pair. */
static void same_row(const vq_file *f, const cv_tensor *t, uint64_t row, vaq_role role, int expert,
                     uint32_t from, int half)
{
    float x[512], y[512];
    const vaq_tensor *v = vq_file_find(f, role, 1, expert);
    if (!t || !v) return;
    const int k = (int)v->cols;
    uint32_t group = from / 16;
    if (half >= 0) group = 2 * group + (uint32_t)half;
    q_decode_row(v->type, x, (const uint8_t *)vq_file_data(f, v) +
                 group * q_group_bytes(v->type, k), (int)(from % 16), k);
    T_OK(k <= 512 && !cv_st_read(t, row * (uint64_t)k * 4, y, (size_t)k * 4, NULL), "read");
    T_OK(!memcmp(x, y, (size_t)k * 4), "%.*s: row %llu", (int)t->name.n, t->name.p,
         (unsigned long long)row);
}

static void test_deepseek(void)
{
    static const struct { const char *name; int dims; uint64_t rows; } shapes[] = {
        { "token_embd.weight", 2, 0 }, { "output.weight", 2, 0 }, { "output_norm.weight", 1, 0 },
        { "blk.0.ffn_gate.weight", 2, 0 }, { "blk.0.ffn_down.weight", 2, 0 },
        { "blk.1.attn_norm.weight", 1, 0 }, { "blk.1.attn_q_a.weight", 2, 0 },
        { "blk.1.attn_q_a_norm.weight", 1, 0 }, { "blk.1.attn_q_b.weight", 2, 0 },
        { "blk.1.attn_kv_a_mqa.weight", 2, 0 }, { "blk.1.attn_kv_a_norm.weight", 1, 0 },
        { "blk.1.attn_k_b.weight", 3, 3 }, { "blk.1.attn_v_b.weight", 3, 3 },
        { "blk.1.attn_output.weight", 2, 0 }, { "blk.1.ffn_norm.weight", 1, 0 },
        { "blk.1.ffn_gate_inp.weight", 2, 4 }, { "blk.1.exp_probs_b.bias", 1, 0 },
        { "blk.1.ffn_gate_shexp.weight", 2, 24 }, { "blk.1.ffn_up_shexp.weight", 2, 24 },
        { "blk.1.ffn_down_shexp.weight", 2, 0 }, { "blk.1.ffn_gate_exps.weight", 3, 4 },
        { "blk.1.ffn_up_exps.weight", 3, 4 }, { "blk.1.ffn_down_exps.weight", 3, 4 },
    };
    ck k;
    cv_export_report r;
    vq_err e;
    cv_gguf g;
    cv_st s;
    uint64_t u;
    ck_dsv3(&k);
    ck_empty(src);
    T_OK(!ck_write(&k, src) && make(src, Q_L8), "write");
    T_OK(!export_as(CV_F32, 2, &r, &e), "%s", e.msg);
    cv_export_report_clear(&r);
    T_OK(!cv_gguf_open(&g, &s, gguf, NULL, &e), "%s", e.msg);
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        const cv_tensor *t = find(&s, shapes[i].name);
        if (!t) continue;
        T_OK(t->n_dim == shapes[i].dims && (!shapes[i].rows || t->dim[0] == shapes[i].rows),
             "%s: %d dimensions, %llu", shapes[i].name, t->n_dim, (unsigned long long)t->dim[0]);
    }
    T_OK(s.n_tensor == 3 + 2 * 9 + 2 + 3 + 8, "%zu tensors: no MTP layer", s.n_tensor);
    vq_file *f = open_ok(out);
    if (f) {
        const uint32_t kv = f->config->kv_lora;
        for (uint32_t i = 0; i < 3 * kv; i += 17) {
            same_row(f, find(&s, "blk.1.attn_k_b.weight"), i, VAQ_K_UP, -1, i, -1);
        }
        for (uint32_t i = 0; i < 96; i += 7) {
            same_row(f, find(&s, "blk.1.attn_v_b.weight"), i, VAQ_V_UP, -1, i, -1);
        }
        for (int x = 0; x < 4; x++) {
            for (uint32_t i = 0; i < CK_DS_MOE; i += 5) {
                const uint64_t row = (uint64_t)x * CK_DS_MOE + i;
                same_row(f, find(&s, "blk.1.ffn_gate_exps.weight"), row, VAQ_EXPERT_GATE_UP, x, i,
                         0);
                same_row(f, find(&s, "blk.1.ffn_up_exps.weight"), row, VAQ_EXPERT_GATE_UP, x, i, 1);
            }
            same_row(f, find(&s, "blk.1.ffn_down_exps.weight"), (uint64_t)x * CK_DS_HIDDEN + 3,
                     VAQ_EXPERT_DOWN, x, 3, -1);
        }
        vq_file_close(f);
    }
    static const struct { const char *key; uint64_t v; } ints[] = {
        { "deepseek2.block_count", 2 }, { "deepseek2.attention.head_count", 3 },
        { "deepseek2.attention.head_count_kv", 1 }, { "deepseek2.attention.key_length", 152 },
        { "deepseek2.attention.value_length", 144 }, { "deepseek2.attention.key_length_mla", 32 },
        { "deepseek2.attention.value_length_mla", 32 }, { "deepseek2.expert_count", 4 },
        { "deepseek2.expert_group_count", 2 }, { "deepseek2.expert_group_used_count", 1 },
        { "deepseek2.expert_used_count", 2 }, { "deepseek2.expert_gating_func", 2 },
        { "deepseek2.leading_dense_block_count", 1 }, { "deepseek2.rope.dimension_count", 8 },
    };
    for (size_t i = 0; i < sizeof ints / sizeof ints[0]; i++) {
        T_OK(cv_gkey_u64(cv_gguf_find(&g, ints[i].key), 0, &u) && u == ints[i].v, "%s: %llu",
             ints[i].key, (unsigned long long)u);
    }
    cv_gguf_close(&g);
    cv_st_close(&s);
    ck_free(&k);
    /* With YaRN and everything in 8 bits; k_up's rows of 32 are no blocks of 256. */
    T_OK(make("tests/data/models/tiny-r1-fp8", -1) && !export_as(-1, 2, &r, &e), "%s", e.msg);
    cv_export_report_clear(&r);
    T_OK(!cv_gguf_open(&g, &s, gguf, NULL, &e), "%s", e.msg);
    double d = 0;
    T_OK(cv_gkey_f64(cv_gguf_find(&g, "deepseek2.rope.scaling.yarn_log_multiplier"), 0, &d) &&
         fabs(d - 0.1) < 1e-7, "%g", d);
    T_OK(cv_gkey_f64(cv_gguf_find(&g, "deepseek2.rope.scaling.factor"), 0, &d) && d == 40, "%g", d);
    T_OK(cv_gkey_f64(cv_gguf_find(&g, "deepseek2.rope.freq_base"), 0, &d) && d == 10000, "%g", d);
    T_OK(cv_gkey_u64(cv_gguf_find(&g, "deepseek2.rope.scaling.original_context_length"), 0, &u) &&
         u == 256, "%llu", (unsigned long long)u);
    cv_gguf_close(&g);
    cv_st_close(&s);
}

/* ---- tokenizers ---- */

/* Compiling what is listed gives the section again. */
static void relist(const t_tokenizer *t, const char *name)
{
    vq_tok_list l;
    vq_tok_built again;
    vq_err e = { 0 };
    if (!t->tok) return;
    T_OK(!vq_tok_list_make(&l, t->tok, t->built.section.p, &e), "%s", e.msg);
    const size_t n = (size_t)vq_tok_count(t->tok), n_merge = l.merge.n / 2;
    vq_tok_source s = { .family = l.family, .bos = vq_tok_bos(t->tok), .eos = vq_tok_eos(t->tok) };
    vq_buf text = { 0 };
    size_t *at = vq_calloc(n + 1, sizeof *at);
    for (size_t id = 0; id < n; id++) {
        at[id] = text.n;
        if (l.kind[id]) vq_tok_spell(&text, t->tok, &l, (int32_t)id);
    }
    at[n] = text.n;
    s.word = vq_calloc(n, sizeof *s.word);
    s.merge = vq_calloc(n_merge + 1, sizeof *s.merge);
#define SPELLED(id) ((vq_str){ text.p + at[id], at[(id) + 1] - at[id] })
    for (size_t id = 0; id < n; id++) {
        const uint8_t kind = l.kind[id] & (uint8_t)~VAQ_TOK_WHOLE;
        if (kind) s.word[s.n_word++] = (vq_tok_word){ SPELLED(id), (int32_t)id, kind };
    }
    for (size_t i = 0; i < n_merge; i++) {
        s.merge[s.n_merge++] = (vq_tok_merge){ SPELLED(l.merge.v[2 * i]),
                                               SPELLED(l.merge.v[2 * i + 1]) };
    }
#undef SPELLED
    T_OK(!vq_tok_compile(&again, &s, name, &e), "%s", e.msg);
    T_OK(n_merge > 0 && again.section.n == t->built.section.n &&
         !memcmp(again.section.p, t->built.section.p, again.section.n), "%s: another section",
         name);
    vq_tok_built_clear(&again);
    vq_tok_source_clear(&s);
    vq_buf_clear(&text);
    vq_free(at);
    vq_tok_list_clear(&l);
}

static void test_tokenizers(const char *argv0)
{
    static const char *const tiny[] = { "tiny-r1-qwen", "tiny-r1-llama", "tiny-r1-qwen3" };
    for (size_t i = 0; i < sizeof tiny / sizeof tiny[0]; i++) {
        t_tokenizer t;
        if (!t_tokenizer_tiny(&t, tiny[i])) continue;
        relist(&t, tiny[i]);
        t_tokenizer_clear(&t);
    }
    t_tokenizer full[T_FULL];
    if (!t_tokenizers_full(full, argv0)) return;
    for (int i = 0; i < T_FULL; i++) {
        relist(&full[i], t_full_names[i]);
        t_tokenizer_clear(&full[i]);
    }
}

/* ---- refusals ---- */

static bool stop(void *ctx, uint64_t done, uint64_t total)
{
    (void)ctx;
    return done > total / 2;
}

static void refused_to(const cv_export_opts *o, vq_status want, const char *says)
{
    cv_export_report r;
    vq_err e = { 0 };
    cv_export_opts x = *o;
    if (!x.src) x.src = out;
    if (!x.out) x.out = gguf;
    const size_t files = files_in(scratch);
    const vq_status st = cv_export(&x, &r, &e);
    T_OK(st == want && strstr(e.msg, says), "wanted %d \"%s\": %d %s", want, says, st, e.msg);
    T_OK(files_in(scratch) == files, "%s: left something behind", says);
    T_OK(!r.tensor, "no report");
    cv_export_report_clear(&r);
}

static void test_refusals(void)
{
    ck k;
    vq_buf bytes = { 0 };
    vq_err e = { 0 };
    ck_make(&k);
    ck_tensor *o = ck_find(&k, "model.layers.1.self_attn.o_proj.weight");
    o->dtype = "F32";
    o->v[5 * 32 + 7] = 1e5f; /* row 5 */
    ck_empty(src);
    T_OK(!ck_write(&k, src) && make(src, Q_F32), "write");
    vq_unlink(gguf);
    refused_to(&(cv_export_opts){ .type = CV_F16 }, VQ_EFAIL, "blk.1.attn_output.weight: a weight "
               "in row 5 is too large for F16");
    refused_to(&(cv_export_opts){ .type = -1, .out = "x.vaq" }, VQ_EUSAGE, ".gguf");
    refused_to(&(cv_export_opts){ .type = -1, .src = "tests/t_export.c" }, VQ_EFORMAT, "t_export");
    refused_to(&(cv_export_opts){ .type = -1, .cpu = "z80" }, VQ_EUSAGE, "z80");
    refused_to(&(cv_export_opts){ .type = -1, .progress = stop }, VQ_EINTR, "nothing was kept");
    T_OK(!ck_put(scratch, "m.gguf", "mine", 4), "write");
    refused_to(&(cv_export_opts){ .type = -1 }, VQ_EFAIL, "--force");
    T_OK(vq_file_size(gguf) == 4, "what was there stays");
    refused_to(&(cv_export_opts){ .type = CV_F16, .force = true }, VQ_EFAIL, "too large");
    T_OK(vq_file_size(gguf) == 4, "what was there stays until the new file is whole");
    /* Cut within the last tensor. */
    T_OK(!vq_file_read(out, 1 << 30, &bytes, &e) && !ck_put(scratch, "cut.vaq", bytes.p,
                                                            bytes.n - 5000), "%s", e.msg);
    char cut[300];
    snprintf(cut, sizeof cut, "%s/cut.vaq", scratch);
    refused_to(&(cv_export_opts){ .type = -1, .src = cut, .force = true }, VQ_EFORMAT, "cut.vaq");
    vq_buf_clear(&bytes);
    ck_free(&k);
    /* R1's shape without what GGUF takes for granted. */
    ck_dsv3(&k);
    char *at = strstr(k.config, "\"moe_layer_freq\"");
    memmove(at + 24, at, strlen(at) + 1);
    memcpy(at, "\"rope_interleave\":false,", 24);
    ck_empty(src);
    T_OK(!ck_write(&k, src) && make(src, Q_N4), "write");
    refused_to(&(cv_export_opts){ .type = -1, .force = true }, VQ_EFORMAT, "not neighbours");
    ck_free(&k);
}

static void test_no_memory(void)
{
    if (!vq_mem_fail_at(0)) {
        T_SKIP("failing allocations: needs a build with VQ_DEBUG");
        return;
    }
    if (!make("tests/data/models/tiny-r1-qwen", Q_N4)) return;
    vq_status st = VQ_ENOMEM;
    long n = 1;
    for (; st && n < 20000; n += n < 100 ? 1 : 13) {
        cv_export_report r;
        vq_err e = { 0 };
        const size_t files = files_in(scratch);
        vq_mem_fail_at(n);
        st = export_as(-1, 2, &r, &e);
        vq_mem_fail_at(0);
        T_OK(st == VQ_OK || st == VQ_ENOMEM, "allocation %ld: %d %s", n, st, e.msg);
        if (st) T_OK(files_in(scratch) == files, "allocation %ld: left something", n);
        cv_export_report_clear(&r);
    }
    T_OK(st == VQ_OK, "exports in the end (%ld)", n);
}

int main(int argc, char **argv)
{
    (void)argc;
    conv_begin();
    snprintf(gguf, sizeof gguf, "%s/m.gguf", scratch);
    snprintf(back, sizeof back, "%s/back.vaq", scratch);
    test_blocks();
    test_round_trips();
    test_types();
    test_deepseek();
    test_tokenizers(argv[0]);
    test_refusals();
    test_no_memory();
    vq_unlink(gguf);
    vq_unlink(back);
    ck_empty(scratch);
    conv_end();
    return t_done("t_export");
}
