/* shapes.c - the table behind shapes.h; values as in the models' config.json (models.md 1). */
#include "core/file/shapes.h"

#include <math.h>
#include <string.h>

typedef struct shape {
    const char *name;
    uint32_t arch, n_layer, hidden, n_head, n_head_kv, inter, n_vocab, ctx;
    uint32_t flags;
    float eps;
    double theta;
} shape;

enum { R1_FLAGS = VAQ_F_ROPE_PAIRS | VAQ_F_NORM_TOPK | VAQ_F_MTP_EMBED | VAQ_F_MTP_HEAD };

static const shape shapes[] = {
    { "qwen-1.5b", VAQ_QWEN2, 28, 1536, 12, 2, 8960, 151936, 131072, VAQ_F_QKV_BIAS, 1e-6f, 1e4 },
    { "qwen-7b", VAQ_QWEN2, 28, 3584, 28, 4, 18944, 152064, 131072, VAQ_F_QKV_BIAS, 1e-6f, 1e4 },
    { "qwen-14b", VAQ_QWEN2, 48, 5120, 40, 8, 13824, 152064, 131072, VAQ_F_QKV_BIAS, 1e-5f, 1e6 },
    { "qwen-32b", VAQ_QWEN2, 64, 5120, 40, 8, 27648, 152064, 131072, VAQ_F_QKV_BIAS, 1e-5f, 1e6 },
    { "llama-8b", VAQ_LLAMA, 32, 4096, 32, 8, 14336, 128256, 131072, 0, 1e-5f, 5e5 },
    { "llama-70b", VAQ_LLAMA, 80, 8192, 64, 8, 28672, 128256, 131072, 0, 1e-5f, 5e5 },
    { "qwen3-8b", VAQ_QWEN3, 36, 4096, 32, 8, 12288, 151936, 131072, VAQ_F_QK_NORM, 1e-6f, 1e6 },
    { "r1", VAQ_DEEPSEEK3, 61, 7168, 128, 1, 18432, 129280, 163840, R1_FLAGS, 1e-6f, 1e4 },
};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0], HEAD_DIM = 128 };

/* What DeepSeek-R1 has beside a dense model's numbers. */
static void add_r1(vaq_config *c)
{
    c->rope_dim = 64;
    c->nope_dim = HEAD_DIM;
    c->head_dim = c->nope_dim + c->rope_dim;
    c->q_lora = 1536;
    c->kv_lora = 512;
    c->n_expert = 256;
    c->n_expert_used = 8;
    c->n_expert_shared = 1;
    c->n_group = 8;
    c->n_group_used = 4;
    c->n_dense_layer = 3;
    c->moe_inter = 2048;
    c->routed_scale = 2.5f;
    c->n_mtp = 1;
}

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c; }

/* What is behind `start` in s, capitals or not; NULL: s does not start so. */
static const char *behind(const char *s, const char *start)
{
    for (; *start; s++, start++)
        if (lower(*s) != *start) return NULL;
    return s;
}

/* By a name of the table, or the one under which the model is published. */
static const shape *shape_of(const char *name)
{
    static const char *const starts[] = { "deepseek-ai/", "deepseek-", "r1-distill-", "r1-0528-" };
    for (int i = 0; i < 4; i++) {
        const char *rest = behind(name, starts[i]);
        if (rest) name = rest;
    }
    const char *end = behind(name, "r1-zero");
    if (!end) end = behind(name, "r1-0528");
    if (end && !*end) name = "r1";
    for (int i = 0; i < N_SHAPES; i++) {
        end = behind(name, shapes[i].name);
        if (end && !*end) return &shapes[i];
    }
    return NULL;
}

bool vq_shape_config(vaq_config *c, double *rope, const char *name)
{
    const shape *s = shape_of(name);
    if (!s) return false;
    memset(c, 0, sizeof *c);
    c->arch = s->arch;
    c->flags = s->flags;
    c->n_layer = s->n_layer;
    c->hidden = s->hidden;
    c->n_head = s->n_head;
    c->n_head_kv = s->n_head_kv;
    c->head_dim = c->v_dim = c->rope_dim = HEAD_DIM;
    c->inter = s->inter;
    c->n_vocab = c->n_ids = s->n_vocab;
    c->ctx = s->ctx;
    c->eps = s->eps;
    c->rope_mult = 1;
    c->bos = c->eos = -1;
    c->temperature = 0.6f;
    c->top_p = 0.95f;
    if (s->arch == VAQ_DEEPSEEK3) add_r1(c);
    c->attn_scale = (float)(1 / sqrt((double)c->head_dim));
    for (uint32_t i = 0; i < c->rope_dim / 2; i++) {
        rope[i] = pow(s->theta, -2.0 * i / c->rope_dim);
    }
    return true;
}
