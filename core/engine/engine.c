/* engine.c - opens a model: file, kernels, plan, memory, threads, tokenizer, in that order.
 *
 * Everything a run will need is allocated here or when a session opens; computing and drawing
 * allocate nothing, so an engine that opened can finish whatever fits its context. */
#include "core/base/mem.h"
#include "core/engine/private.h"

#include <stdio.h>
#include <string.h>

enum { ROWS_DEFAULT = 512, ROWS_MOST = 1 << 16, THREADS_MOST = 1024 };

static q_kv cache_type(const vq_engine_opts *o, const vq_model *m)
{
    switch (o->kv) {
    case VQ_KV_INT8: return Q_KV_8;
    case VQ_KV_BF16: return Q_KV_BF16;
    case VQ_KV_F32: return Q_KV_F32;
    default: return m->all_float ? Q_KV_F32 : Q_KV_8;
    }
}

static vq_status choose_kernels(q_kern *k, const char *cpu, vq_err *e)
{
    const char *wrong = q_selftest();
    if (wrong) return vq_fail(e, VQ_EFAIL, "this build does not compute as it must: %s", wrong);
    if (q_kern_make(k, cpu)) return VQ_OK;
    const char *names[8];
    const int n = q_cpu_levels(names);
    vq_buf have = { 0 };
    for (int i = 0; i < n; i++) vq_buf_printf(&have, "%s%s", i ? ", " : "", names[i]);
    const vq_status s = vq_fail(e, VQ_EUSAGE, "no kernels '%s' in this build or CPU; there are: %s",
                                cpu, have.p ? have.p : "none");
    vq_buf_clear(&have);
    return s;
}

static vq_status open_tokenizer(vq_engine *eng, vq_err *e)
{
    const vq_file *f = eng->file;
    if (!f->tokenizer) return VQ_OK;
    return vq_tok_open(&eng->tok, f->tokenizer, f->tokenizer_size, f->path, e);
}

static int32_t mark_id(const vq_engine *eng, const char *s)
{
    return eng->tok ? vq_tok_added(eng->tok, s, strlen(s)) : -1;
}

/* DeepSeek's advice: the answer starts with the thoughts.  Templates before February 2025 leave
 * that to the model, which sometimes skips them; the 0528 models need no forcing and ChatML is not
 * theirs. */
static bool forces_think(uint32_t template_id)
{
    return template_id == VAQ_TPL_R1_2501 || template_id == VAQ_TPL_R1_2502
           || template_id == VAQ_TPL_DISTILL || template_id == VAQ_TPL_DISTILL_2501;
}

static vq_chat_opts chat_opts(const vq_engine *eng, const vq_render_opts *o)
{
    const uint32_t id = eng->model.cfg->template_id;
    return (vq_chat_opts){ .template_id = (int)id, .add_generation = !(o && o->no_generation),
                           .force_think = forces_think(id) && !(o && o->no_force_think) };
}

static vq_status fill_info(vq_engine *eng, vq_err *e)
{
    const vq_file *f = eng->file;
    const vaq_config *c = f->config;
    const vq_str name = vq_file_meta(f, "name");
    if (name.p && !(eng->name = vq_strndup(name.p, name.n)))
        return vq_fail(e, VQ_ENOMEM, "%s: out of memory", f->path);
    const vq_kv_type kv[] = {
        [Q_KV_F32] = VQ_KV_F32, [Q_KV_BF16] = VQ_KV_BF16, [Q_KV_8] = VQ_KV_INT8
    };
    vq_info *i = &eng->info;
    *i = (vq_info){
        .path = f->path,
        .arch = vq_arch_name(c->arch),
        .name = eng->name,
        .template_name = vq_template_name(c->template_id),
        .cpu = eng->kern.level,
        .threads = eng->plan.threads,
        .params = eng->model.params,
        .bytes = f->header->file_size,
        .layers = eng->model.n_layer,
        .hidden = eng->model.hidden,
        .heads = eng->model.n_head,
        .kv_heads = (int)c->n_head_kv,
        .vocab = eng->model.n_vocab,
        .n_ids = eng->model.n_ids,
        .ctx_model = c->ctx,
        .ctx = eng->plan.ctx,
        .max_rows = (uint32_t)eng->plan.max_rows,
        .kv = kv[eng->plan.kv_type],
        .has_tokenizer = eng->tok != NULL,
        .has_template = eng->tok && c->template_id != VAQ_TPL_NONE,
        .bos = c->bos,
        .eos = c->eos,
        .think = mark_id(eng, "<think>"),
        .end_think = mark_id(eng, "</think>"),
        .temperature = c->temperature,
        .top_p = c->top_p,
        .kv_bytes = eng->plan.kv_bytes,
        .scratch_bytes = eng->plan.scratch_bytes + eng->plan.session_bytes,
        .arith = (int)f->header->arith,
    };
    vq_hex32(i->sha256, f->header->root);
    i->opens_think = vq_engine_render_opens_think(eng, NULL);
    return VQ_OK;
}

/* Memory and threads for a bound model. */
static vq_status set_up(vq_engine *eng, const vq_engine_opts *o, vq_err *e)
{
    const vq_plan_want want = {
        .threads = o->threads > 0 ? o->threads : vq_cpu_fast_count(),
        .max_rows = o->max_rows > 0 ? o->max_rows : ROWS_DEFAULT,
        .max_sessions = o->max_sessions > 0 ? o->max_sessions : 1,
        .max_draft = o->max_draft > 0 ? o->max_draft : 0,
        .mtp = o->max_draft > 0 && eng->model.n_mtp > 0,
        .order = eng->kern.order != NULL,
        .expert_bytes = eng->model.cfg->n_expert ? o->experts_ram : 0,
        .ctx = o->ctx, .kv_type = cache_type(o, &eng->model), .available = vq_mem_available(),
        .shorter = o->shorter,
    };
    if (want.threads > THREADS_MOST || want.max_rows > ROWS_MOST
        || want.max_sessions > VQ_SESSIONS_MOST || want.max_draft > VQ_DRAFT_MOST)
        return vq_fail(e, VQ_EUSAGE, "at most %d threads, %d rows, %d sessions and %d drafts",
                       THREADS_MOST, ROWS_MOST, VQ_SESSIONS_MOST, VQ_DRAFT_MOST);
    vq_status s = vq_plan_make(&eng->plan, &eng->model, &want, e);
    if (!s) s = vq_kv_layout(&eng->kv, &eng->model, want.kv_type, e);
    if (!s) s = vq_kv_alloc(&eng->kv, eng->plan.n_block, e);
    if (!s) s = vq_pool_new(&eng->pool, want.threads, e);
    if (!s)
        s = vq_fw_new(&eng->fw, &eng->model, &eng->kern, eng->pool, &eng->kv, &eng->plan,
                      &eng->stop, e);
    if (!s) s = vq_sampler_init(&eng->sampler, eng->model.n_ids, e);
    if (s) return s;
    const size_t sessions = (size_t)want.max_sessions;
    eng->row = vq_calloc((size_t)eng->plan.max_rows, sizeof *eng->row);
    eng->slot = vq_calloc(sessions, sizeof *eng->slot);
    eng->logits = vq_aligned(64, sessions * (size_t)(1 + want.max_draft)
                                     * (size_t)eng->model.n_vocab * sizeof(float));
    if (!eng->row || !eng->slot || !eng->logits)
        return vq_fail(e, VQ_ENOMEM, "%s: out of memory", eng->file->path);
    return VQ_OK;
}

vq_status vq_engine_open_file(vq_engine **out, vq_file *f, const vq_engine_opts *o, vq_err *e)
{
    static const vq_engine_opts defaults;
    *out = NULL;
    if (!o) o = &defaults;
    vq_engine *eng = vq_calloc(1, sizeof *eng);
    if (!eng) {
        vq_file_close(f);
        return vq_fail(e, VQ_ENOMEM, "out of memory");
    }
    eng->file = f;
    vq_status s = choose_kernels(&eng->kern, o->cpu, e);
    if (!s) s = vq_model_bind(&eng->model, f, &eng->kern, e);
    if (!s) s = set_up(eng, o, e);
    if (!s) s = open_tokenizer(eng, e);
    if (!s) s = fill_info(eng, e);
    if (s) {
        vq_engine_close(eng);
        return s;
    }
    if (!eng->plan.expert_bytes) /* else what is wanted was asked for */
        vq_map_advise_willneed(&f->map, f->header->body_off, f->header->body_size);
    *out = eng;
    return VQ_OK;
}

vq_status vq_engine_open(vq_engine **out, const char *path, const vq_engine_opts *o, vq_err *e)
{
    q_kern k;
    vq_file *f;
    *out = NULL;
    vq_status s = choose_kernels(&k, o ? o->cpu : NULL, e);
    if (!s) s = vq_file_open(&f, path, &k, e);
    return s ? s : vq_engine_open_file(out, f, o, e);
}

void vq_engine_close(vq_engine *eng)
{
    if (!eng) return;
    for (int i = 0; eng->slot && i < eng->plan.max_sessions; i++) vq_session_close(eng->slot[i]);
    vq_tok_close(eng->tok);
    vq_fw_free(eng->fw);
    vq_pool_free(eng->pool);
    vq_kv_clear(&eng->kv);
    vq_sampler_clear(&eng->sampler);
    vq_model_clear(&eng->model);
    vq_free(eng->row);
    vq_free(eng->slot);
    vq_aligned_free(eng->logits);
    vq_free(eng->name);
    vq_file_close(eng->file);
    vq_free(eng);
}

const vq_info *vq_engine_info(const vq_engine *eng) { return &eng->info; }
uint64_t vq_engine_kv_bytes(const vq_engine *eng) { return vq_kv_position_bytes(&eng->kv); }

vq_expert_stats vq_engine_experts(const vq_engine *eng)
{
    const vq_experts *x = vq_fw_experts(eng->fw);
    if (!x) return (vq_expert_stats){ 0 };
    const vq_experts_stats s = vq_experts_get_stats(x);
    return (vq_expert_stats){ .slots = s.slots, .bytes = s.bytes, .hits = s.hits,
                              .misses = s.misses, .guessed = s.guessed, .right = s.right,
                              .read_bytes = s.read_bytes, .read_s = s.read_s,
                              .stall_s = s.stall_s, .direct = s.direct };
}

/* Relaxed stores to a lock-free int: allowed in a signal handler. */
void vq_engine_stop(vq_engine *eng) { atomic_store_explicit(&eng->stop, 1, memory_order_relaxed); }
void vq_engine_resume(vq_engine *eng)
{
    atomic_store_explicit(&eng->stop, 0, memory_order_relaxed);
}

/* ---- text ---- */

vq_status vq_engine_tokenize(const vq_engine *eng, const char *s, size_t n, bool special,
                             vq_ids *out, vq_err *e)
{
    if (!eng->tok)
        return vq_fail(e, VQ_EUSAGE, "%s: has no tokenizer; give the prompt as ids",
                       eng->file->path);
    return vq_tok_encode(eng->tok, s, n, special, out, e);
}

vq_str vq_engine_piece(const vq_engine *eng, int32_t id)
{
    return eng->tok ? vq_tok_bytes(eng->tok, id) : (vq_str){ NULL, 0 };
}

vq_status vq_engine_render(const vq_engine *eng, const vq_message *m, size_t n,
                           const vq_render_opts *o, vq_ids *ids, vq_buf *text, vq_err *e)
{
    if (!eng->info.has_template)
        return vq_fail(e, VQ_EUSAGE, "%s: has no %s; give the prompt as %s", eng->file->path,
                       eng->tok ? "chat template" : "tokenizer",
                       eng->tok ? "raw text (--raw)" : "ids");
    const vq_chat_opts c = chat_opts(eng, o);
    return vq_chat_render(eng->tok, &c, m, n, ids, text, e);
}

bool vq_engine_render_opens_think(const vq_engine *eng, const vq_render_opts *o)
{
    const vq_chat_opts c = chat_opts(eng, o);
    return eng->tok && c.template_id != VAQ_TPL_NONE && vq_chat_opens_think(&c);
}
