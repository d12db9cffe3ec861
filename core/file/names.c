/* names.c - the tables of the container: roles with their shapes, names of models and templates.
 *
 * A new model is rows here and ranges in check.c; reader, writer and messages follow.  Roles are
 * never renumbered, so a row is only ever added.  Only names of experts lack their beginning,
 * "mlp.experts.N.". */
#include "core/file/check.h"
#include "core/file/file.h"
#include "quant/quant.h"

#include <stdio.h>

enum { /* sets of models: grouped-query attention, latent attention with experts */
    GQA = 1u << VAQ_QWEN2 | 1u << VAQ_LLAMA | 1u << VAQ_QWEN3,
    MLA = 1u << VAQ_DEEPSEEK3,
    ALL = GQA | MLA
};

static const vq_role_row roles[] = {
    /* rising by role: role, layout, scope, models, needs, unless, rows, columns, name */
    { VAQ_EMBED, VAQ_T16, VAQ_ONCE, ALL, 0, 0, VAQ_D_VOCAB, VAQ_D_HIDDEN, "embed_tokens.weight" },
    { VAQ_HEAD, VAQ_T16, VAQ_ONCE, ALL, 0, VAQ_F_TIED, VAQ_D_VOCAB, VAQ_D_HIDDEN,
      "lm_head.weight" },
    { VAQ_NORM_OUT, VAQ_VECTOR, VAQ_ONCE, ALL, 0, 0, VAQ_D_ONE, VAQ_D_HIDDEN, "norm.weight" },
    { VAQ_NORM_ATTN, VAQ_VECTOR, VAQ_LAYER, ALL, 0, 0, VAQ_D_ONE, VAQ_D_HIDDEN,
      "input_layernorm.weight" },
    { VAQ_NORM_FFN, VAQ_VECTOR, VAQ_LAYER, ALL, 0, 0, VAQ_D_ONE, VAQ_D_HIDDEN,
      "post_attention_layernorm.weight" },
    { VAQ_Q, VAQ_T16, VAQ_LAYER, ALL, 0, VAQ_IF_Q_LORA, VAQ_D_Q, VAQ_D_HIDDEN,
      "self_attn.q_proj.weight" },
    { VAQ_K, VAQ_T16, VAQ_LAYER, GQA, 0, 0, VAQ_D_K, VAQ_D_HIDDEN, "self_attn.k_proj.weight" },
    { VAQ_V, VAQ_T16, VAQ_LAYER, GQA, 0, 0, VAQ_D_V, VAQ_D_HIDDEN, "self_attn.v_proj.weight" },
    { VAQ_O, VAQ_T16, VAQ_LAYER, ALL, 0, 0, VAQ_D_HIDDEN, VAQ_D_O, "self_attn.o_proj.weight" },
    { VAQ_Q_BIAS, VAQ_VECTOR, VAQ_LAYER, GQA, VAQ_F_QKV_BIAS, 0, VAQ_D_ONE, VAQ_D_Q,
      "self_attn.q_proj.bias" },
    { VAQ_K_BIAS, VAQ_VECTOR, VAQ_LAYER, GQA, VAQ_F_QKV_BIAS, 0, VAQ_D_ONE, VAQ_D_K,
      "self_attn.k_proj.bias" },
    { VAQ_V_BIAS, VAQ_VECTOR, VAQ_LAYER, GQA, VAQ_F_QKV_BIAS, 0, VAQ_D_ONE, VAQ_D_V,
      "self_attn.v_proj.bias" },
    { VAQ_Q_NORM, VAQ_VECTOR, VAQ_LAYER, GQA, VAQ_F_QK_NORM, 0, VAQ_D_ONE, VAQ_D_HEAD_DIM,
      "self_attn.q_norm.weight" },
    { VAQ_K_NORM, VAQ_VECTOR, VAQ_LAYER, GQA, VAQ_F_QK_NORM, 0, VAQ_D_ONE, VAQ_D_HEAD_DIM,
      "self_attn.k_norm.weight" },
    { VAQ_GATE_UP, VAQ_T16_PAIR, VAQ_DENSE, ALL, 0, 0, VAQ_D_INTER, VAQ_D_HIDDEN,
      "mlp.gate_up_proj.weight" },
    { VAQ_DOWN, VAQ_T16, VAQ_DENSE, ALL, 0, 0, VAQ_D_HIDDEN, VAQ_D_INTER, "mlp.down_proj.weight" },
    { VAQ_Q_A, VAQ_T16, VAQ_LAYER, MLA, VAQ_IF_Q_LORA, 0, VAQ_D_Q_LORA, VAQ_D_HIDDEN,
      "self_attn.q_a_proj.weight" },
    { VAQ_Q_A_NORM, VAQ_VECTOR, VAQ_LAYER, MLA, VAQ_IF_Q_LORA, 0, VAQ_D_ONE, VAQ_D_Q_LORA,
      "self_attn.q_a_layernorm.weight" },
    { VAQ_Q_B, VAQ_T16, VAQ_LAYER, MLA, VAQ_IF_Q_LORA, 0, VAQ_D_Q, VAQ_D_Q_LORA,
      "self_attn.q_b_proj.weight" },
    { VAQ_KV_A, VAQ_T16, VAQ_LAYER, MLA, 0, 0, VAQ_D_KV_A, VAQ_D_HIDDEN,
      "self_attn.kv_a_proj_with_mqa.weight" },
    { VAQ_KV_A_NORM, VAQ_VECTOR, VAQ_LAYER, MLA, 0, 0, VAQ_D_ONE, VAQ_D_KV_LORA,
      "self_attn.kv_a_layernorm.weight" },
    { VAQ_K_UP, VAQ_T16, VAQ_LAYER, MLA, 0, 0, VAQ_D_K_UP, VAQ_D_NOPE,
      "self_attn.k_up_proj.weight" },
    { VAQ_V_UP, VAQ_T16, VAQ_LAYER, MLA, 0, 0, VAQ_D_O, VAQ_D_KV_LORA,
      "self_attn.v_up_proj.weight" },
    { VAQ_ROUTER, VAQ_T16, VAQ_MOE, MLA, 0, 0, VAQ_D_EXPERTS, VAQ_D_HIDDEN, "mlp.gate.weight" },
    { VAQ_ROUTER_BIAS, VAQ_VECTOR, VAQ_MOE, MLA, 0, 0, VAQ_D_ONE, VAQ_D_EXPERTS,
      "mlp.gate.e_score_correction_bias" },
    { VAQ_SHARED_GATE_UP, VAQ_T16_PAIR, VAQ_MOE, MLA, VAQ_IF_SHARED, 0, VAQ_D_SHARED, VAQ_D_HIDDEN,
      "mlp.shared_experts.gate_up_proj.weight" },
    { VAQ_SHARED_DOWN, VAQ_T16, VAQ_MOE, MLA, VAQ_IF_SHARED, 0, VAQ_D_HIDDEN, VAQ_D_SHARED,
      "mlp.shared_experts.down_proj.weight" },
    { VAQ_EXPERT_GATE_UP, VAQ_T16_PAIR, VAQ_EXPERT, MLA, 0, 0, VAQ_D_MOE, VAQ_D_HIDDEN,
      "gate_up_proj.weight" },
    { VAQ_EXPERT_DOWN, VAQ_T16, VAQ_EXPERT, MLA, 0, 0, VAQ_D_HIDDEN, VAQ_D_MOE,
      "down_proj.weight" },
    { VAQ_MTP_EMBED, VAQ_T16, VAQ_MTP, MLA, 0, VAQ_F_MTP_EMBED, VAQ_D_VOCAB, VAQ_D_HIDDEN,
      "embed_tokens.weight" },
    { VAQ_MTP_HEAD, VAQ_T16, VAQ_MTP, MLA, 0, VAQ_F_MTP_HEAD, VAQ_D_VOCAB, VAQ_D_HIDDEN,
      "shared_head.head.weight" },
    { VAQ_MTP_ENORM, VAQ_VECTOR, VAQ_MTP, MLA, 0, 0, VAQ_D_ONE, VAQ_D_HIDDEN, "enorm.weight" },
    { VAQ_MTP_HNORM, VAQ_VECTOR, VAQ_MTP, MLA, 0, 0, VAQ_D_ONE, VAQ_D_HIDDEN, "hnorm.weight" },
    { VAQ_MTP_EH, VAQ_T16, VAQ_MTP, MLA, 0, 0, VAQ_D_HIDDEN, VAQ_D_EH, "eh_proj.weight" },
    { VAQ_MTP_NORM, VAQ_VECTOR, VAQ_MTP, MLA, 0, 0, VAQ_D_ONE, VAQ_D_HIDDEN,
      "shared_head.norm.weight" },
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
    uint32_t is = c->flags;
    if (c->q_lora) is |= VAQ_IF_Q_LORA;
    if (c->n_expert_shared) is |= VAQ_IF_SHARED;
    return c->arch < 32 && (r->archs >> c->arch & 1) && (is & r->need) == r->need &&
           !(is & r->unless);
}

void vq_role_layers(const vq_role_row *r, const vaq_config *c, uint32_t *first, uint32_t *end)
{
    const uint32_t dense = c->n_expert ? c->n_dense_layer : c->n_layer;
    *first = 0;
    *end = c->n_layer + c->n_mtp;
    switch (r->scope) {
    case VAQ_ONCE:
        *first = VAQ_NO_LAYER;
        *end = VAQ_NO_LAYER + 1;
        break;
    case VAQ_LAYER: break;
    case VAQ_DENSE: *end = dense; break;
    case VAQ_MOE:
    case VAQ_EXPERT: *first = dense; break;
    case VAQ_MTP: *first = c->n_layer; break;
    }
}

uint32_t vq_dim_of(const vaq_config *c, vaq_dim d)
{
    switch (d) {
    case VAQ_D_ONE: return 1;
    case VAQ_D_HIDDEN: return c->hidden;
    case VAQ_D_VOCAB: return c->n_vocab;
    case VAQ_D_INTER: return c->inter;
    case VAQ_D_HEAD_DIM: return c->head_dim;
    case VAQ_D_Q: return c->n_head * c->head_dim;
    case VAQ_D_K: return c->n_head_kv * c->head_dim;
    case VAQ_D_V: return c->n_head_kv * c->v_dim;
    case VAQ_D_O: return c->n_head * c->v_dim;
    case VAQ_D_Q_LORA: return c->q_lora;
    case VAQ_D_KV_LORA: return c->kv_lora;
    case VAQ_D_NOPE: return c->nope_dim;
    case VAQ_D_KV_A: return c->kv_lora + c->rope_dim;
    case VAQ_D_K_UP: return c->n_head * c->kv_lora;
    case VAQ_D_EXPERTS: return c->n_expert;
    case VAQ_D_MOE: return c->moe_inter;
    case VAQ_D_SHARED: return c->n_expert_shared * c->moe_inter;
    case VAQ_D_EH: return 2 * c->hidden;
    }
    return 0;
}

uint32_t vq_role_rows(const vq_role_row *r, const vaq_config *c)
{
    const uint32_t n = vq_dim_of(c, r->rows);
    return r->layout == VAQ_T16_PAIR ? 2 * ((n + Q_ROWS - 1) / Q_ROWS * Q_ROWS) : n;
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
