/* sizes.c - sizes and expected speed before a byte is converted (sizes.h).
 *
 * The walk is the one that check.c makes over the roles of a config, so what is summed here is what
 * a complete container holds. */
#include "convert/sizes.h"

#include "convert/gguf_model.h"
#include "convert/hfconfig.h"
#include "convert/plan.h"
#include "core/file/check.h"

#include <stdio.h>
#include <string.h>

static uint64_t whole_pages(uint64_t n)
{
    return (n + VAQ_PAGE - 1) / VAQ_PAGE * VAQ_PAGE;
}

/* `times` tensors like t: the experts of a layer are alike. */
static void add(cv_sizes *s, const vaq_config *c, const vaq_tensor *t, uint64_t times)
{
    const uint64_t stored = times * whole_pages(t->size);
    const bool routed = t->role == VAQ_EXPERT_GATE_UP || t->role == VAQ_EXPERT_DOWN;
    s->body += stored;
    s->params += times * t->params;
    if (t->layer != VAQ_NO_LAYER && t->layer >= c->n_layer) {
        s->mtp += stored;
    } else if (routed) {
        s->experts += stored;
        s->token_experts += times * t->size * c->n_expert_used / c->n_expert;
    } else if (t->role == VAQ_EMBED && !(c->flags & VAQ_F_TIED)) {
        s->token += t->size / t->rows;
    } else {
        s->token += t->size;
    }
}

/* Header, directory and the sections but tokenizer and metadata. */
static uint64_t front_bytes(const vaq_config *c, uint64_t body, uint64_t n_tensor)
{
    const uint64_t chunks = (body + VAQ_CHUNK - 1) / VAQ_CHUNK;
    return sizeof(vaq_header) + VAQ_SEC_TOKENIZER * sizeof(vaq_section) + sizeof(vaq_config) +
           c->rope_dim / 2 * sizeof(double) + n_tensor * sizeof(vaq_tensor) + chunks * 32;
}

static void finish(cv_sizes *s, const vaq_config *c, uint64_t n_tensor)
{
    const uint64_t block = c->kv_lora
        ? q_lat_bytes((int)c->kv_lora, (int)c->rope_dim)
        : c->n_head_kv * (uint64_t)(q_kv_k_bytes(Q_KV_8, (int)c->head_dim) +
                                    q_kv_v_bytes(Q_KV_8, (int)c->v_dim));
    s->kv = c->n_layer * block / Q_PIECE;
    s->file = s->body + whole_pages(front_bytes(c, s->body, n_tensor));
}

void cv_sizes_of_config(cv_sizes *s, const vaq_config *c, int type)
{
    uint64_t n = 0;
    const vq_role_row *r;
    memset(s, 0, sizeof *s);
    for (int i = 0; (r = vq_role_at(i)) != NULL; i++) {
        uint32_t layer, end;
        if (!vq_role_used(r, c)) continue;
        const uint64_t times = r->scope == VAQ_EXPERT ? c->n_expert : 1;
        const uint32_t rows = vq_role_rows(r, c), cols = vq_dim_of(c, r->cols);
        vq_role_layers(r, c, &layer, &end);
        for (; layer < end; layer++) {
            vaq_tensor t = { .role = r->role, .layer = (uint16_t)layer, .rows = rows, .cols = cols,
                             .params = cols };
            if (r->layout == VAQ_VECTOR) {
                t.size = sizeof(float) * (uint64_t)cols;
            } else {
                const int halves = r->layout == VAQ_T16_PAIR ? 2 : 1;
                t.size = q_matrix_bytes(cv_recipe_type(type, c, r->role, layer), rows, (int)cols);
                t.params *= (uint64_t)halves * vq_dim_of(c, r->rows);
            }
            add(s, c, &t, times);
            n += times;
        }
    }
    finish(s, c, n);
}

void cv_sizes_of_table(cv_sizes *s, const vaq_config *c, const vaq_tensor *t, uint32_t n)
{
    memset(s, 0, sizeof *s);
    for (uint32_t i = 0; i < n; i++) add(s, c, &t[i], 1);
    finish(s, c, n);
}

uint64_t cv_memory(const cv_sizes *s, uint32_t n)
{
    const uint64_t blocks = ((uint64_t)n + Q_PIECE - 1) / Q_PIECE;
    return s->file + blocks * Q_PIECE * s->kv;
}

cv_fit cv_expect(double *tps, const cv_sizes *s, const cv_machine *m, uint32_t ctx)
{
    const uint64_t memory = cv_memory(s, ctx), cache = memory - s->file, three = m->ram / 4 * 3;
    const uint64_t routed = s->token_experts;
    const double bytes = (double)(s->token + routed) + (double)cache / 2;
    double from_disk = 0;
    *tps = 0;
    if (memory > m->ram && s->experts) {
        const uint64_t rest = memory - s->experts - s->mtp;
        if (rest > three) return CV_FIT_NO;
        const double held = (double)(three - rest) / (double)s->experts;
        from_disk = held < 1 ? (double)routed * (1 - held) : 0;
    } else if (memory > m->ram) {
        const uint64_t excess = memory - m->ram;
        if (cache > three) return CV_FIT_NO;
        from_disk = (double)(excess < s->token ? excess : s->token);
    }
    const double t_mem = bytes / (m->mem_gbs * 1e9), t_disk = from_disk / (m->disk_gbs * 1e9);
    *tps = 1 / (t_mem > t_disk ? t_mem : t_disk);
    return memory > m->ram ? CV_FIT_STREAMS : CV_FIT_YES;
}

/* ---- where the config comes from ---- */

/* What cannot be seen without weights is taken as the published models have it. */
static vq_status config_alone(vaq_config *c, const char *dir, vq_err *e)
{
    cv_ckpt folder = { .dir = (char *)dir };
    cv_json j;
    cv_config config = { 0 };
    vq_status st = cv_ckpt_json(&folder, "config.json", &j, e);
    if (st) return st;
    if (!j.there) {
        st = vq_fail(e, VQ_EFAIL, "%s: config.json is missing; download it into this folder", dir);
    }
    if (!st) st = cv_config_read(&config, &j.j, j.path, false, e);
    if (!st) {
        *c = config.c;
        if (c->n_mtp) c->flags |= VAQ_F_MTP_EMBED | VAQ_F_MTP_HEAD;
    }
    cv_json_clear(&j);
    return st;
}

/* Of tensors that have no place yet. */
static void sizes_of_plan(cv_sizes *s, const vaq_config *c, const cv_plan *p)
{
    for (size_t i = 0; i < p->n; i++) {
        vaq_tensor *t = &p->tensor[i];
        t->size = t->layout == VAQ_VECTOR ? sizeof(float) * (uint64_t)t->cols
                                          : q_matrix_bytes(t->type, t->rows, (int)t->cols);
    }
    cv_sizes_of_table(s, c, p->tensor, (uint32_t)p->n);
}

vq_status cv_source_config(vaq_config *c, cv_sizes *nearest, char note[256], const char *path,
                           vq_err *e)
{
    cv_ckpt ckpt;
    cv_config config;
    cv_plan plan = { 0 };
    const cv_plan_opts o = { .type = -1, .quick = true };
    note[0] = 0;
    *nearest = (cv_sizes){ 0 };
    vq_status st = cv_ckpt_open(&ckpt, path, e);
    if (!st) {
        st = cv_config_read(&config, &ckpt.config.j, ckpt.config.path, false, e);
        if (!st) st = cv_plan_make(&plan, &ckpt, &config.c, &o, e);
        if (!st) *c = config.c;
        if (!st && ckpt.is_gguf) {
            sizes_of_plan(nearest, c, &plan);
            const char *assumed = cv_gguf_assumed(&ckpt.gguf);
            snprintf(note, 256, "auto: near to the types it has already%s%s", assumed ? "; " : "",
                     assumed ? assumed : "");
        }
        cv_plan_clear(&plan);
        cv_ckpt_close(&ckpt);
    }
    if (!st || !vq_is_dir(path)) return st;
    vq_err why = *e;
    st = config_alone(c, path, e);
    if (!st) snprintf(note, 256, "from config.json alone: %.200s", why.msg);
    return st;
}
