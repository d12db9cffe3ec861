/* names.c - the tables of the container: roles with their shapes, names of models and templates.
 *
 * A new model is rows here and ranges in check.c; reader, writer and messages follow.  Roles are
 * never renumbered, so a row is only ever added. */
#include "core/file/check.h"
#include "core/file/file.h"

#include <stdio.h>

enum {
    DENSE = 1u << VAQ_QWEN2 | 1u << VAQ_LLAMA | 1u << VAQ_QWEN3
};

static const vq_role_row roles[] = {
    /* rising by role: role, layout, per layer, models, needs, unless, rows, columns, name */
    { VAQ_EMBED, VAQ_T16, false, DENSE, 0, 0, VAQ_D_VOCAB, VAQ_D_HIDDEN, "embed_tokens.weight" },
    { VAQ_HEAD, VAQ_T16, false, DENSE, 0, VAQ_F_TIED, VAQ_D_VOCAB, VAQ_D_HIDDEN, "lm_head.weight" },
    { VAQ_NORM_OUT, VAQ_VECTOR, false, DENSE, 0, 0, VAQ_D_ONE, VAQ_D_HIDDEN, "norm.weight" },
    { VAQ_NORM_ATTN, VAQ_VECTOR, true, DENSE, 0, 0, VAQ_D_ONE, VAQ_D_HIDDEN,
      "input_layernorm.weight" },
    { VAQ_NORM_FFN, VAQ_VECTOR, true, DENSE, 0, 0, VAQ_D_ONE, VAQ_D_HIDDEN,
      "post_attention_layernorm.weight" },
    { VAQ_Q, VAQ_T16, true, DENSE, 0, 0, VAQ_D_Q, VAQ_D_HIDDEN, "self_attn.q_proj.weight" },
    { VAQ_K, VAQ_T16, true, DENSE, 0, 0, VAQ_D_K, VAQ_D_HIDDEN, "self_attn.k_proj.weight" },
    { VAQ_V, VAQ_T16, true, DENSE, 0, 0, VAQ_D_V, VAQ_D_HIDDEN, "self_attn.v_proj.weight" },
    { VAQ_O, VAQ_T16, true, DENSE, 0, 0, VAQ_D_HIDDEN, VAQ_D_O, "self_attn.o_proj.weight" },
    { VAQ_Q_BIAS, VAQ_VECTOR, true, DENSE, VAQ_F_QKV_BIAS, 0, VAQ_D_ONE, VAQ_D_Q,
      "self_attn.q_proj.bias" },
    { VAQ_K_BIAS, VAQ_VECTOR, true, DENSE, VAQ_F_QKV_BIAS, 0, VAQ_D_ONE, VAQ_D_K,
      "self_attn.k_proj.bias" },
    { VAQ_V_BIAS, VAQ_VECTOR, true, DENSE, VAQ_F_QKV_BIAS, 0, VAQ_D_ONE, VAQ_D_V,
      "self_attn.v_proj.bias" },
    { VAQ_Q_NORM, VAQ_VECTOR, true, DENSE, VAQ_F_QK_NORM, 0, VAQ_D_ONE, VAQ_D_HEAD_DIM,
      "self_attn.q_norm.weight" },
    { VAQ_K_NORM, VAQ_VECTOR, true, DENSE, VAQ_F_QK_NORM, 0, VAQ_D_ONE, VAQ_D_HEAD_DIM,
      "self_attn.k_norm.weight" },
    { VAQ_GATE_UP, VAQ_T16_PAIR, true, DENSE, 0, 0, VAQ_D_GATE_UP, VAQ_D_HIDDEN,
      "mlp.gate_up_proj.weight" },
    { VAQ_DOWN, VAQ_T16, true, DENSE, 0, 0, VAQ_D_HIDDEN, VAQ_D_INTER, "mlp.down_proj.weight" },
};
enum { N_ROLES = sizeof roles / sizeof roles[0] };

const vq_role_row *vq_role_at(int i)
{
    return i < N_ROLES ? &roles[i] : NULL;
}

const vq_role_row *vq_role_find(uint32_t role)
{
    for (int i = 0; i < N_ROLES; i++) {
        if (roles[i].role == role) return &roles[i];
    }
    return NULL;
}

bool vq_role_used(const vq_role_row *r, const vaq_config *c)
{
    return c->arch < 32 && (r->archs >> c->arch & 1) && (c->flags & r->need) == r->need &&
           !(c->flags & r->unless);
}

void vq_tensor_name(char out[96], const vaq_tensor *t)
{
    const vq_role_row *r = vq_role_find(t->role);
    char role[16];
    snprintf(role, sizeof role, "role-%u", (unsigned)t->role);
    const char *name = r ? r->name : role;
    if (t->layer == VAQ_NO_LAYER) {
        snprintf(out, 96, "%s%s", t->role == VAQ_HEAD ? "" : "model.", name);
    } else if (t->expert < 0) {
        snprintf(out, 96, "model.layers.%u.%s", (unsigned)t->layer, name);
    } else {
        snprintf(out, 96, "model.layers.%u.mlp.experts.%d.%s", (unsigned)t->layer, t->expert, name);
    }
}

const char *vq_arch_name(uint32_t arch)
{
    switch (arch) {
    case VAQ_QWEN2: return "qwen2";
    case VAQ_LLAMA: return "llama";
    case VAQ_QWEN3: return "qwen3";
    case VAQ_DEEPSEEK3: return "deepseek_v3";
    default: return "unknown";
    }
}

const char *vq_template_name(uint32_t template_id)
{
    switch (template_id) {
    case VAQ_TPL_NONE: return "none";
    case VAQ_TPL_R1_2501: return "r1-2501";
    case VAQ_TPL_R1_2502: return "r1-2502";
    case VAQ_TPL_DISTILL: return "distill";
    case VAQ_TPL_R1_0528: return "r1-0528";
    case VAQ_TPL_CHATML: return "chatml";
    case VAQ_TPL_SMOLLM: return "smollm";
    case VAQ_TPL_DISTILL_2501: return "distill-2501";
    default: return "unknown";
    }
}
