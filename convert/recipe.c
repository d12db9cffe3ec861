/* recipe.c - how many bits each matrix gets.
 *
 * auto follows the measurements collected in kernels.md 9: half of the loss of a uniform 4-bit
 * model comes from a few per cent of its bytes.  Values, and what is added to the residual stream
 * (o, down), in the layers nearest to the text at both ends get 6 bits, the head 6, the embedding 8
 * (one row per token: its size costs no time).  A tied embedding is also the head and keeps 8.
 *
 * With experts, 97 of 100 bytes are theirs and everything else is cheap: attention gets 8 bits,
 * dense and shared FFNs 6.  Of the experts down is one type better than gate and up, and so are
 * both in the first layers that have experts.  MTP layers are layers like others.
 * A named type is for all matrices, so that comparisons compare one thing.  Vectors and the router,
 * whose choices are all or nothing, are F32.
 *
 * A matrix that comes quantised (GGUF) has lost already; auto then takes what keeps its values, by
 * the relative error that re-encoding adds (SmolLM2-135M, mean over its matrices):
 *            Q4_0   Q4_1   Q5_0   Q5_1   IQ4_NL   Q8_0
 *       n4   .049   .058   .057   .058   .029     .058
 *       l6   .004   .015   .005   .014   .015     .015
 *       l8   .003   .004   .003   .004   .003     .003
 * The source's own error is some .02 with 6 bits, .07 with 4, .15 to .25 with 3 and 2.  So uniform
 * 4-bit types need l6 (n4 would lose as much again), IQ4's values lie where n4 has its own, and
 * below 4 bits n4 is fine enough. */
#include "convert/plan.h"

#include <assert.h>

enum { EARLY = 3 }; /* layers with experts that get a better type */

/* Layers at each end that count as near: an eighth, at least one. */
static uint32_t near_layers(const vaq_config *c)
{
    return (c->n_layer + 7) / 8;
}

/* The type of experts, `up` steps (at most 2) above P6 in the order of size. */
static int expert_type(int up)
{
    static const int order[] = { Q_P6, Q_N4S, Q_N4 };
    return order[up];
}

static int type_with_experts(const vaq_config *c, uint32_t role, uint32_t layer)
{
    const int early = layer < c->n_dense_layer + EARLY;
    switch (role) {
    case VAQ_EXPERT_GATE_UP: return expert_type(early);
    case VAQ_EXPERT_DOWN: return expert_type(early + 1);
    case VAQ_GATE_UP:
    case VAQ_DOWN:
    case VAQ_SHARED_GATE_UP:
    case VAQ_SHARED_DOWN:
    case VAQ_HEAD:
    case VAQ_MTP_HEAD: return Q_L6;
    default: return Q_L8; /* attention, embeddings, eh */
    }
}

int cv_recipe_type(int type, const vaq_config *c, uint32_t role, uint32_t layer)
{
    if (role == VAQ_ROUTER) return Q_F32;
    if (type >= 0) return type;
    if (c->n_expert) return type_with_experts(c, role, layer);
    const uint32_t near = near_layers(c);
    switch (role) {
    case VAQ_EMBED: return Q_L8;
    case VAQ_HEAD: return Q_L6;
    case VAQ_V:
    case VAQ_O:
    case VAQ_DOWN: return layer < near || layer >= c->n_layer - near ? Q_L6 : Q_N4;
    default: return Q_N4;
    }
}

static const char *type_name(int type)
{
    const q_typeinfo *t = q_type_info(type);
    assert(t);
    return t->name;
}

int cv_nearest_type(cv_dtype d)
{
    switch (d) {
    case CV_Q2_K:
    case CV_Q3_K:
    case CV_IQ4_NL:
    case CV_IQ4_XS: return Q_N4;
    case CV_Q4_0:
    case CV_Q4_1:
    case CV_Q4_K:
    case CV_MXFP4:
    case CV_Q5_0:
    case CV_Q5_1:
    case CV_Q5_K:
    case CV_Q6_K: return Q_L6;
    case CV_Q8_0: return Q_L8;
    default: return -1;
    }
}

/* "n4 for iq4_nl, l6 for q4_0 q6_k" of the quantised types in a source. */
static void nearest_text(vq_buf *out, uint32_t dtypes)
{
    static const int types[] = { Q_N4, Q_L6, Q_L8 };
    const char *comma = "";
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        bool any = false;
        for (int d = 0; d < CV_OTHER; d++) {
            if (!(dtypes >> d & 1) || cv_nearest_type((cv_dtype)d) != types[i]) continue;
            if (!any) vq_buf_printf(out, "%s%s for", comma, type_name(types[i]));
            any = true;
            vq_buf_printf(out, " %s", cv_gtype_of((cv_dtype)d)->name);
        }
        if (any) comma = ", ";
    }
}

void cv_recipe_text(vq_buf *out, int type, const vaq_config *c, uint32_t dtypes)
{
    const uint32_t near = near_layers(c);
    if (type >= 0) {
        vq_buf_printf(out, "%s for all matrices", type_name(type));
    } else if (dtypes) {
        vq_buf_str(out, "auto, nearest to the types of the source: ");
        nearest_text(out, dtypes);
    } else if (c->n_expert) {
        vq_buf_printf(out, "auto: experts gate, up %s, down %s, in the first %d layers that have "
                      "some %s, %s; attention, embedding l8; dense and shared ffn, head l6",
                      type_name(expert_type(0)), type_name(expert_type(1)), EARLY,
                      type_name(expert_type(1)), type_name(expert_type(2)));
    } else {
        vq_buf_printf(out, "auto: n4; embedding l8; %sv, o, down of the first and last %u layers "
                      "l6",
                      c->flags & VAQ_F_TIED ? "" : "head l6; ", near);
    }
    vq_buf_printf(out, "; %s f32; enc %d", c->n_expert ? "router, vectors" : "vectors", VAQ_ENC);
    if (c->n_mtp) vq_buf_str(out, "; with mtp");
}
