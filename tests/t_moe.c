/* t_moe.c - the container of a model with latents, experts and MTP layers: what its config and its
 * table must satisfy, and how fast a table of the largest kind opens. */
#include "core/file/check.h"
#include "tests/image.h"

#include <math.h>

/* A DeepSeek-V3 of n_layer layers with n_expert experts; its table, one entry per tensor, in the
 * order of the table. */
static vaq_tensor *make_moe(vaq_config *c, uint32_t n_layer, uint32_t n_expert, uint32_t *n)
{
    *c = (vaq_config){
        .arch = VAQ_DEEPSEEK3, .flags = VAQ_F_ROPE_PAIRS | VAQ_F_NORM_TOPK | VAQ_F_MTP_HEAD,
        .n_layer = n_layer, .hidden = 32, .n_head = 2, .n_head_kv = 1, .head_dim = 20, .v_dim = 16,
        .inter = 24, .n_vocab = 20, .n_ids = 20, .ctx = 100, .eps = 1e-6f, .attn_scale = 0.2f,
        .rope_dim = 8, .rope_mult = 1, .bos = 0, .eos = 1,
        .q_lora = 24, .kv_lora = 48, .nope_dim = 12, .n_expert = n_expert, .n_expert_used = 2,
        .n_expert_shared = 1, .n_group = 2, .n_group_used = 1, .n_dense_layer = 1, .moe_inter = 8,
        .routed_scale = 2.5f, .n_mtp = 1, .temperature = 0.6f, .top_p = 0.95f
    };
    vaq_tensor *t = vq_calloc((size_t)(n_layer + 1) * (2 * n_expert + 24), sizeof *t);
    const vq_role_row *r;
    *n = 0;
    for (int i = 0; t && (r = vq_role_at(i)) != NULL; i++) {
        uint32_t layer, end;
        const int32_t experts = r->scope == VAQ_EXPERT ? (int32_t)n_expert : 0;
        if (!vq_role_used(r, c)) continue;
        vq_role_layers(r, c, &layer, &end);
        for (; layer < end; layer++) {
            for (int32_t x = experts ? 0 : -1; x < experts; x++) {
                t[(*n)++] = (vaq_tensor){
                    .role = r->role, .layer = (uint16_t)layer, .expert = x, .layout = r->layout,
                    .rows = vq_role_rows(r, c), .cols = vq_dim_of(c, r->cols),
                    .type = r->layout && r->role != VAQ_ROUTER ? Q_N4 : Q_F32
                };
            }
        }
    }
    return t;
}

/* The container of such a table, its body all zeros; free with vq_pages_free. */
static image moe_image(uint32_t n_layer, uint32_t n_expert)
{
    static const double rope[4] = { 1, 0.5, 0.25, 0.125 };
    vaq_config c;
    uint32_t n;
    vq_buf front = { 0 };
    vq_err e = { 0 };
    uint64_t size = 0;
    vaq_tensor *t = make_moe(&c, n_layer, n_expert, &n);
    const vq_writer_spec spec = { .path = "moe", .config = &c, .rope = rope, .tensor = t,
                                  .n_tensor = n, .kern = &kern };
    T_OK(!vq_front_make(&front, &size, &spec, &e), "%s", e.msg);
    image im = { front.n ? vq_pages_alloc((size_t)size) : NULL, (size_t)size };
    if (im.p) memcpy(im.p, front.p, front.n);
    vq_buf_clear(&front);
    vq_free(t);
    return im;
}

static vaq_tensor *entry(image im, vaq_role role, int layer, int expert)
{
    const vaq_tensor want = { .role = (uint16_t)role, .layer = (uint16_t)layer, .expert = expert };
    vaq_tensor *t = table(im);
    while (vq_tensor_cmp(t, &want) != 0) t++;
    return t;
}

static void test_moe_proofs(void)
{
    image im = moe_image(3, 4);
    vq_err e = { 0 };
    if (!im.p) return;
    T_OK(try_open(im, &e) == VQ_OK, "%s", e.msg);
    REFUSED(im, "n_head_kv is 2", config(im_)->n_head_kv = 2);
    REFUSED(im, "head_dim", config(im_)->head_dim = 32);
    REFUSED(im, "multiple of 16", config(im_)->kv_lora = 40);
    REFUSED(im, "multiple of 16", config(im_)->v_dim = 24);
    REFUSED(im, "kv_lora is 8192", config(im_)->kv_lora = 8192);
    REFUSED(im, "n_expert is 0", config(im_)->n_expert = 0);
    REFUSED(im, "n_expert is 4097", config(im_)->n_expert = 4097);
    REFUSED(im, "n_group", config(im_)->n_group = 3);
    REFUSED(im, "router", config(im_)->n_group = 4);
    REFUSED(im, "router", config(im_)->n_group_used = 3);
    REFUSED(im, "router", config(im_)->n_expert_used = 3);
    REFUSED(im, "dense", config(im_)->n_dense_layer = 4);
    REFUSED(im, "MTP", config(im_)->n_layer = VAQ_MAX_LAYERS);
    REFUSED(im, "n_mtp is 17", config(im_)->n_mtp = 17);
    REFUSED(im, "MTP flags", config(im_)->n_mtp = 0);
    REFUSED(im, "shared", config(im_)->moe_inter = 1 << 20, config(im_)->n_expert_shared = 2);
    REFUSED(im, "moe_inter", config(im_)->moe_inter = 0);
    REFUSED(im, "routed_scale", config(im_)->routed_scale = 0);
    REFUSED(im, "routed_scale", config(im_)->routed_scale = NAN);
    REFUSED(im, "flags", config(im_)->flags |= VAQ_F_QK_NORM);
    REFUSED(im, "flags", config(im_)->flags |= VAQ_F_QKV_BIAS);
    REFUSED(im, "does not belong", config(im_)->q_lora = 0);
    REFUSED(im, "does not belong", config(im_)->n_expert_shared = 0);
    REFUSED(im, "does not belong", config(im_)->flags |= VAQ_F_MTP_EMBED);
    REFUSED(im, "shared_head.head.weight: is missing",
            config(im_)->flags &= ~(uint32_t)VAQ_F_MTP_HEAD);
    REFUSED(im, "is 40 x 32, the config asks for 24 x 32", entry(im_, VAQ_Q_A, 0, -1)->rows = 40);
    REFUSED(im, "router of another type", entry(im_, VAQ_ROUTER, 2, -1)->type = Q_BF16);
    REFUSED(im, "experts.3.down_proj.weight: belongs to a layer",
            entry(im_, VAQ_EXPERT_DOWN, 1, 3)->layer = 0);
    REFUSED(im, "belongs to an expert", entry(im_, VAQ_EXPERT_DOWN, 3, 3)->expert = 4);
    REFUSED(im, "belongs to an expert", entry(im_, VAQ_EXPERT_DOWN, 1, 0)->expert = -1);
    REFUSED(im, "belongs to an expert", entry(im_, VAQ_O, 1, -1)->expert = 0);
    REFUSED(im, "belongs to a layer", entry(im_, VAQ_MTP_EH, 3, -1)->layer = 2);
    REFUSED(im, "belongs to a layer", entry(im_, VAQ_GATE_UP, 0, -1)->layer = 1);
    REFUSED(im, "belongs to a layer", entry(im_, VAQ_O, 3, -1)->layer = 4);
    REFUSED(im, "order",
            swap(entry(im_, VAQ_EXPERT_DOWN, 1, 1), entry(im_, VAQ_EXPERT_DOWN, 1, 2)));
    vq_pages_free(im.p, im.n);
}

/* 106,000 tensors, three times those of R1. */
static void test_many_experts(void)
{
    image im = moe_image(13, VAQ_MAX_EXPERTS);
    vq_file *f;
    vq_err e = { 0 };
    if (!im.p) return;
    const double start = vq_now();
    T_OK(!vq_file_open_mem(&f, im.p, im.n, "moe.vaq", &kern, &e), "%s", e.msg);
    if (f) {
        const vaq_tensor *t = vq_file_find(f, VAQ_EXPERT_DOWN, 13, VAQ_MAX_EXPERTS - 1);
        printf("%u tensors opened in %.2f ms (%s)\n", f->n_tensor,
               (vq_now() - start) * 1e3, kern.level);
        T_OK(f->n_tensor > 100000 && t && t->expert == VAQ_MAX_EXPERTS - 1, "the last expert");
        T_OK(!vq_file_find(f, VAQ_EXPERT_DOWN, 0, 0), "the first layer has none");
    }
    vq_file_close(f);
    vq_pages_free(im.p, im.n);
}

int main(void)
{
    T_OK(q_kern_make(&kern, NULL), "set-up");
    test_moe_proofs();
    test_many_experts();
    return t_done("t_moe");
}
