/* recipe.c - how many bits each matrix gets.
 *
 * auto follows the measurements collected in kernels.md 9: half of the loss of a uniform 4-bit
 * model comes from a few per cent of its bytes.  Values, and what is added to the residual stream
 * (o, down), in the layers nearest to the text at both ends get 6 bits, the head 6, the embedding 8
 * (one row per token: its size costs no time).  A tied embedding is also the head and keeps 8.
 * A named type is for all matrices, so that comparisons compare one thing.  Vectors are F32. */
#include "convert/plan.h"

#include <assert.h>

/* Layers at each end that count as near: an eighth, at least one. */
static uint32_t near_layers(const vaq_config *c)
{
    return (c->n_layer + 7) / 8;
}

int cv_recipe_type(int type, const vaq_config *c, uint32_t role, uint32_t layer)
{
    if (type >= 0) return type;
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

void cv_recipe_text(vq_buf *out, int type, const vaq_config *c)
{
    const uint32_t near = near_layers(c);
    if (type >= 0) {
        const q_typeinfo *t = q_type_info(type);
        assert(t);
        vq_buf_printf(out, "%s for all matrices", t->name);
    } else {
        vq_buf_printf(out, "auto: n4; embedding l8; %sv, o, down of the first and last %u layers "
                      "l6",
                      c->flags & VAQ_F_TIED ? "" : "head l6; ", near);
    }
    vq_buf_printf(out, "; vectors f32; enc %d", VAQ_ENC);
}
