/* names.c - the names Hugging Face checkpoints give to what the container knows by role.
 *
 * The container's own table already spells a role the way checkpoints do; only gate and up are two
 * tensors there and one here.  Names are canonical: without "model." in front. */
#include "convert/plan.h"

#include "core/file/check.h"

#include <stdio.h>
#include <string.h>

int cv_source_names(const vaq_tensor *t, char name[2][96])
{
    static const char *const pair[2] = { "mlp.gate_proj.weight", "mlp.up_proj.weight" };
    const vq_role_row *r = vq_role_find(t->role);
    const int n = t->role == VAQ_GATE_UP ? 2 : 1;
    for (int i = 0; i < n; i++) {
        const char *own = n == 2 ? pair[i] : r->name;
        if (r->per_layer) snprintf(name[i], 96, "layers.%u.%s", (unsigned)t->layer, own);
        else snprintf(name[i], 96, "%s", own);
    }
    return n;
}

bool cv_ignorable(vq_str canonical)
{
    /* A buffer that old versions of transformers saved; it follows from the config. */
    static const char end[] = "rotary_emb.inv_freq";
    const size_t n = sizeof end - 1;
    return canonical.n >= n && !memcmp(canonical.p + canonical.n - n, end, n);
}
