/* names.c - the names Hugging Face checkpoints give to what the container knows by role.
 *
 * The container's own table spells a role the way checkpoints do, except where one of its tensors
 * is two of theirs (gate and up) or two of its are one (k_up and v_up).  Names are canonical:
 * without "model." in front. */
#include "convert/checkpoint.h"
#include "convert/plan.h"

#include "core/file/check.h"

#include <stdio.h>
#include <string.h>

int cv_source_names(const vaq_tensor *t, char name[2][96])
{
    static const struct { const char *ours, *theirs[2]; } other[] = {
        { "gate_up_proj.", { "gate_proj.", "up_proj." } },
        { "k_up_proj.", { "kv_b_proj.", NULL } },
        { "v_up_proj.", { "kv_b_proj.", NULL } },
    };
    char full[96];
    vq_tensor_name(full, t);
    const char *own = cv_canonical(vq_str_c(full)).p;
    for (size_t i = 0; i < sizeof other / sizeof other[0]; i++) {
        const char *at = strstr(own, other[i].ours);
        int n = 0;
        for (; at && n < 2 && other[i].theirs[n]; n++) {
            snprintf(name[n], 96, "%.*s%s%s", (int)(at - own), own, other[i].theirs[n],
                     at + strlen(other[i].ours));
        }
        if (at) return n;
    }
    snprintf(name[0], 96, "%s", own);
    return 1;
}

void cv_drop_expert(char *name)
{
    static const char before[] = ".experts.";
    char *at = strstr(name, before);
    if (!at) return;
    at += sizeof before - 1;
    const char *end = strchr(at, '.');
    if (end) memmove(at, end + 1, strlen(end + 1) + 1);
}

bool cv_ignorable(vq_str canonical)
{
    if (vq_str_eq(canonical, "rope_freqs.weight")) return true; /* GGUF's: read with the config */
    /* A buffer that old versions of transformers saved; it follows from the config. */
    static const char end[] = "rotary_emb.inv_freq";
    const size_t n = sizeof end - 1;
    return canonical.n >= n && !memcmp(canonical.p + canonical.n - n, end, n);
}
