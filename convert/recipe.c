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
 * whose choices are all or nothing, are F32. */
#include "convert/plan.h"

#include <assert.h>

enum { EARLY = 3 }; /* layers with experts that get a better type */

/* Layers at each end that count as near: an eighth, at least one. */
static uint32_t near_layers(const vaq_config *c)
{
    return (c->n_layer + 7) / 8;
}

static bool known(int type)
{
    const q_typeinfo *t = q_type_info(type);
    return t && t->known;
}

/* The type of experts, `up` steps above the plain one in the order of size. */
static int expert_type(int up)
{
    static const int order[] = { Q_P5, Q_P6, Q_N4S, Q_N4, Q_N5, Q_L6, Q_L8 };
    enum { N = sizeof order / sizeof order[0] };
    const int plain = known(Q_P6) ? Q_P6 : Q_N4;
    int at = 0;
    while (order[at] != plain) at++;
    for (int i = at + 1; i < N && up; i++) {
        if (!known(order[i])) continue;
        at = i;
        up--;
    }
    return order[at];
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

void cv_recipe_text(vq_buf *out, int type, const vaq_config *c)
{
    const uint32_t near = near_layers(c);
    if (type >= 0) {
        vq_buf_printf(out, "%s for all matrices", type_name(type));
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
