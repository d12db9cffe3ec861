/* convert.c - a checkpoint into a container, from the folder to the report.
 *
 * In the order in which things can go wrong cheaply: files, config, tokenizer, template, the plan
 * of all tensors, room on the disk; only then the first weight is read.  A dry run stops there.
 * An unfinished container of an earlier run is gone on with when it is to become the same one; that
 * the weights are still the same is taken for granted while sizes and times of the files are, and
 * else proved by reading again what went into it. */
#include "convert/convert.h"

#include "convert/card.h"
#include "convert/budget.h"
#include "convert/gguf_model.h"
#include "convert/quality.h"
#include "convert/repair.h"
#include "core/base/mem.h"
#include "core/file/check.h"
#include "core/text/chat.h"
#include "core/text/tok_build.h"
#include "core/text/unicode.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef struct job {
    const cv_opts *o;
    q_kern kern;
    cv_ckpt ckpt;
    cv_config config;
    vq_tok_built tok;
    bool has_tok;
    const char *assumed;    /* of the config, not in the source; NULL: nothing */
    cv_rules *rules;        /* NULL: none */
    cv_plan plan;
    vq_engine *source;      /* the checkpoint as it is, for calibration and card; NULL: neither */
    cv_calib *calib;        /* NULL: none */
    cv_quality quality;     /* the text of the card, if there is one */
    double *cost;           /* (plan.n) of a budget; NULL: none */
    vq_buf tries;           /* name of the file that keeps them while there is no container */
    vq_buf meta, recipe, chat_template;
    size_t late;            /* bytes at the end of meta that are measured at the end */
    vq_buf chosen;          /* the types that a budget bought, as rules */
    double start;           /* seconds, vq_now */
    vq_err *e;
} job;

static void notice(const job *b, const char *fmt, ...) VQ_PRINTF(2, 3);
static void notice(const job *b, const char *fmt, ...)
{
    char line[300];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    if (b->o->notice) b->o->notice(b->o->ctx, line);
}

static vq_status no_memory(const job *b)
{
    return vq_fail(b->e, VQ_ENOMEM, "%s: out of memory", b->o->src);
}

static bool ends_with(const char *s, const char *end)
{
    const size_t n = strlen(s), k = strlen(end);
    return n >= k && !strcmp(s + n - k, end);
}

static vq_status check_opts(job *b)
{
    const cv_opts *o = b->o;
    const q_typeinfo *t = o->type < 0 ? NULL : q_type_info(o->type);
    if (o->type >= 0 && (!t || !t->known)) {
        return vq_fail(b->e, VQ_EUSAGE, "type %s: this build cannot encode it", t ? t->name : "?");
    }
    if ((o->size || o->bpw > 0) && (o->type >= 0 || o->rules.p || (o->size && o->bpw > 0))) {
        return vq_fail(b->e, VQ_EUSAGE, "a budget chooses all types: --size or --bpw, and neither "
                       "--type nor --recipe beside it");
    }
    if (!q_kern_make(&b->kern, o->cpu)) {
        return vq_fail(b->e, VQ_EUSAGE, "%s: no such CPU level here", o->cpu);
    }
    if (!o->out) {
        return o->dry_run ? VQ_OK : vq_fail(b->e, VQ_EUSAGE, "no output file is named");
    }
    /* --force must not replace a checkpoint by its own conversion. */
    static const char *const ours_not[] = { ".safetensors", ".json", ".gguf", ".bin" };
    for (size_t i = 0; i < sizeof ours_not / sizeof ours_not[0]; i++) {
        if (ends_with(o->out, ours_not[i])) {
            return vq_fail(b->e, VQ_EUSAGE, "%s: a container is called something.vaq, this name "
                           "belongs to a checkpoint",
                           o->out);
        }
    }
    return VQ_OK;
}

/* ---- config, tokenizer, template ---- */

static vq_status read_config(job *b)
{
    cv_json gen;
    const cv_json *config = &b->ckpt.config;
    vq_status st =
        cv_config_read(&b->config, &config->j, config->path, b->o->yarn_hf, b->e);
    const cv_tensor *freqs = cv_ckpt_find(&b->ckpt, "rope_freqs.weight");
    if (!st && b->ckpt.is_gguf && freqs) st = cv_gguf_rope(&b->config, freqs, b->e);
    if (st) return st;
    st = cv_ckpt_json(&b->ckpt, "generation_config.json", &gen, b->e);
    if (!st && gen.there) st = cv_generation_read(&b->config.c, &gen.j, gen.path, b->e);
    cv_json_clear(&gen);
    b->assumed = cv_gguf_assumed(&b->ckpt.gguf);
    if (!st && b->assumed) notice(b, "%s: %s", b->o->src, b->assumed);
    return st;
}

/* The tokenizer is compiled: do its ids fit the model's? */
static vq_status take_tokenizer(job *b, const char *path)
{
    vaq_config *c = &b->config.c;
    b->has_tok = true;
    if ((uint32_t)b->tok.n_ids > c->n_vocab) {
        return vq_fail(b->e, VQ_EFORMAT, "%s: has ids up to %d, the embedding only %u rows: it "
                       "belongs to another model (--no-tokenizer converts for ids only)",
                       path, b->tok.n_ids - 1, c->n_vocab);
    }
    c->n_ids = (uint32_t)b->tok.n_ids; /* rows above are untrained: never sampled */
    if (b->tok.bos >= 0) c->bos = b->tok.bos;
    if (b->tok.eos >= 0) c->eos = b->tok.eos;
    return VQ_OK;
}

static vq_status read_template(job *b, const cv_json *cfg)
{
    vq_buf *text = &b->chat_template;
    const vq_status st = cv_chat_template(&b->ckpt, cfg, text, b->e);
    if (!st && text->n) {
        const int id = vq_chat_recognise((vq_str){ text->p, text->n });
        b->config.c.template_id = (uint32_t)id;
        if (!id) notice(b, "%s: its chat template is not one we know: raw prompts only", b->o->src);
    } else if (!st) {
        notice(b, "%s: has no chat template: raw prompts only", b->o->src);
    }
    return st;
}

static vq_status read_gguf_text(job *b)
{
    const cv_gguf *g = &b->ckpt.gguf;
    const cv_json none = { 0 };
    if (!cv_gguf_find(g, "tokenizer.ggml.tokens")) {
        notice(b, "%s: has no tokenizer: ids only (run --prompt-ids)", b->o->src);
        return VQ_OK;
    }
    vq_status st = cv_gguf_tokenizer(&b->tok, g, b->o->src, b->e);
    if (!st) st = take_tokenizer(b, b->o->src);
    return st ? st : read_template(b, &none);
}

static vq_status read_text(job *b)
{
    static const char *const foreign[] = { "tokenizer.model", "vocab.json" };
    if (b->o->no_tokenizer) return VQ_OK;
    if (b->ckpt.is_gguf) return read_gguf_text(b);
    if (!cv_ckpt_has(&b->ckpt, "tokenizer.json")) {
        for (int i = 0; i < 2; i++) {
            if (!cv_ckpt_has(&b->ckpt, foreign[i])) continue;
            return vq_fail(b->e, VQ_EFORMAT, "%s: has %s but no tokenizer.json; download or make "
                           "that (save_pretrained of the fast tokenizer), or convert for ids only "
                           "with --no-tokenizer",
                           b->o->src, foreign[i]);
        }
        notice(b, "%s: has no tokenizer.json: ids only (run --prompt-ids)", b->o->src);
        return VQ_OK;
    }
    cv_json tj = { 0 }, cfg = { 0 };
    vq_status st = cv_ckpt_json(&b->ckpt, "tokenizer.json", &tj, b->e);
    if (!st) st = cv_ckpt_json(&b->ckpt, "tokenizer_config.json", &cfg, b->e);
    if (!st) st = vq_tok_build(&b->tok, &tj.j, cfg.there ? &cfg.j : NULL, tj.path, b->e);
    if (!st) st = take_tokenizer(b, tj.path);
    if (!st) st = read_template(b, &cfg);
    vq_rss_anon(); /* a large tokenizer.json may be where our memory peaks */
    cv_json_clear(&tj);
    cv_json_clear(&cfg);
    return st;
}

static vq_status read_card(job *b)
{
    const cv_opts *o = b->o;
    if (!o->card) return VQ_OK;
    if (!b->has_tok) {
        return vq_fail(b->e, VQ_EUSAGE, "%s: has no tokenizer, so no --card with a text", o->src);
    }
    return cv_quality_read(&b->quality, o->card, b->tok.section.p, b->tok.section.n,
                           b->config.c.bos, b->config.c.ctx, b->e);
}

/* ---- the container ---- */

static vq_status make_plan(job *b)
{
    vaq_config *c = &b->config.c;
    const cv_plan_opts o = { .type = b->o->type, .rules = b->rules, .drop_mtp = b->o->drop_mtp };
    const vq_status st = cv_plan_make(&b->plan, &b->ckpt, c, &o, b->e);
    if (st) return st;
    for (int line = 1; b->rules && cv_rules_idle(b->rules, &line); line++) {
        notice(b, "%s:%d: means no matrix of this model", b->o->rules_name, line);
    }
    if (b->plan.mtp_lacks[0]) {
        notice(b, "%s: its MTP layer lacks %s: left out, so it will not draft", b->o->src,
               b->plan.mtp_lacks);
    }
    return VQ_OK;
}

static vq_status make_meta(job *b)
{
    vq_buf_clear(&b->meta); /* a budget makes it for each choice of types */
    vq_buf_clear(&b->recipe);
    vq_buf_clear(&b->chosen);
    const vaq_config *c = &b->config.c;
    const cv_opts *o = b->o;
    if (b->cost) {
        cv_rules_write(&b->chosen, b->plan.tensor, b->plan.n);
        if (b->chosen.oom) return no_memory(b);
        vq_buf_printf(&b->recipe, "budget %s: ", o->calib ? "by tries" : "by roles");
        cv_budget_text(&b->recipe, &b->plan);
        vq_buf_printf(&b->recipe, "; %s f32; enc %d", c->n_expert ? "router, vectors" : "vectors",
                      VAQ_ENC);
    } else {
        if (b->rules) vq_buf_str(&b->recipe, "rules; else ");
        cv_recipe_text(&b->recipe, o->type, c, b->plan.quantised);
    }
    if (b->calib) {
        vq_buf_printf(&b->recipe, ", 2 by %zu tokens of text %.12s", cv_calib_tokens(b->calib),
                      cv_calib_hash(b->calib));
    }
    if (b->config.yarn) {
        vq_buf_printf(&b->recipe, "; yarn attn %s", o->yarn_hf ? "hf" : "file");
    }
    if (b->assumed) vq_buf_printf(&b->recipe, "; %s", b->assumed);
    if (b->recipe.oom) return no_memory(b);
    cv_card(&b->meta, &b->ckpt, o->name, b->recipe.p, c->template_id);
    if (b->chat_template.n && vq_utf8_valid(b->chat_template.p, b->chat_template.n)) {
        vq_meta_add_text(&b->meta, "chat_template", b->chat_template.p, b->chat_template.n);
    }
    if (b->cost) vq_meta_add_text(&b->meta, "rules", b->chosen.p, b->chosen.n);
    if (b->rules) vq_meta_add_text(&b->meta, "rules", b->o->rules.p, b->o->rules.n);
    if (b->calib) vq_meta_add_text(&b->meta, "calib", cv_calib_hash(b->calib), 64);
    if (o->card) cv_quality_add_text(&b->meta, &b->quality);
    const size_t known = b->meta.n;
    if (o->card) cv_quality_add_figures(&b->meta, NULL);
    b->late = b->meta.n - known;
    if (o->quality.n) vq_buf_add(&b->meta, o->quality.p, o->quality.n);
    return b->meta.oom ? no_memory(b) : VQ_OK;
}

/* ---- the source as a model, calibration and budget ---- */

/* The float type that loses nothing of the checkpoint's matrices, or what F32 would not keep. */
static int float_type(const cv_plan *p)
{
    int type = -1;
    for (size_t i = 0; i < p->n; i++) {
        if (p->tensor[i].layout == VAQ_VECTOR || p->tensor[i].role == VAQ_ROUTER) continue;
        const cv_dtype d = p->src[i].part[0].t->dtype;
        const int own = d == CV_BF16 ? Q_BF16 : d == CV_F16 ? Q_F16 : Q_F32;
        type = type < 0 || type == own ? own : Q_F32;
    }
    return type < 0 ? Q_F32 : type;
}

static void stage(const job *b, const char *what, const char *unit)
{
    if (b->o->stage) b->o->stage(b->o->ctx, what, unit);
}

static int threads_of(const cv_opts *o)
{
    return o->threads > 0 ? o->threads : vq_cpu_fast_count();
}

/* Said before anything is computed.  A file with a journal may be our own, with only the last step
 * missing: the writer knows. */
static vq_status check_name(const job *b)
{
    const cv_opts *o = b->o;
    return !o->out || vq_writer_begun(o->out) ? VQ_OK : vq_check_name(o->out, o->force, b->e);
}

/* The checkpoint as a container that the engine runs, beside the output: what calibration and card
 * share.  It is made again by each run that is gone on with. */
static vq_status open_source(job *b)
{
    const cv_opts *o = b->o;
    if (!o->calib && (!o->card || o->dry_run)) return VQ_OK;
    if (!b->has_tok) {
        return vq_fail(b->e, VQ_EUSAGE, "%s: has no tokenizer, so no --calib with a text", o->src);
    }
    vq_buf name = { 0 };
    vq_buf_printf(&name, "%s.source", o->out ? o->out : o->src);
    vq_status st = name.oom ? no_memory(b) : check_name(b);
    if (!st) {
        const cv_opts plain = { .src = o->src, .out = name.p, .type = float_type(&b->plan),
                                .cpu = o->cpu, .threads = o->threads, .yarn_hf = o->yarn_hf,
                                .drop_mtp = true, .force = true, .step = o->step,
                                .progress = o->progress, .ctx = o->ctx };
        cv_report r;
        stage(b, "source", NULL);
        st = cv_convert(&plain, &r, b->e);
        cv_report_clear(&r);
    }
    if (!st) {
        const size_t card = b->quality.text.ctx, calib = o->calib ? CV_CALIB_CTX : 0;
        const vq_engine_opts eo = { .cpu = o->cpu, .threads = threads_of(o), .max_sessions = 2,
                                    .ctx = (uint32_t)(card > calib ? card : calib),
                                    .max_rows = CV_CALIB_CTX, .kv = VQ_KV_F32 };
        st = vq_engine_open(&b->source, name.p, &eo, b->e);
        vq_unlink(name.p); /* it is mapped */
    }
    vq_buf_clear(&name);
    return st;
}

static vq_status open_calib(job *b)
{
    const cv_opts *o = b->o;
    const cv_calib_opts co = { .engine = b->source, .config = &b->config.c, .text = o->calib,
                               .cpu = o->cpu, .threads = threads_of(o) };
    return o->calib ? cv_calib_open(&b->calib, &co, b->e) : VQ_OK;
}

static vq_writer_spec spec_of(job *b)
{
    const vq_buf *tok = &b->tok.section;
    vq_writer_spec spec = {
        .path = b->o->out ? b->o->out : b->o->src, .force = b->o->force, .config = &b->config.c,
        .rope = b->config.rope, .tensor = b->plan.tensor, .n_tensor = b->plan.n,
        .tokenizer = b->has_tok ? tok->p : NULL, .tokenizer_size = b->has_tok ? tok->n : 0,
        .meta = b->meta.p, .meta_size = b->meta.n, .late = b->late, .kern = &b->kern,
        .progress = b->o->progress, .ctx = b->o->ctx
    };
    cv_ckpt_stamp(&b->ckpt, spec.stamp);
    return spec;
}

/* What the file has so far came from weights that are the same now?  If not, --force forgets it. */
static vq_status prove_source(job *b, const cv_run *run, vq_err *e)
{
    bool same = true;
    if (!run->from.pos || !vq_writer_touched(run->writer)) return VQ_OK;
    notice(b, "%s: its files were touched since: reading again what was done", b->o->src);
    const vq_status st = cv_pipeline_same(run, &same, e);
    if (st || same) return st;
    if (b->o->force) return vq_writer_restart(run->writer, e);
    return vq_fail(e, VQ_EFAIL, "%s: its weights have changed since %s.unfinished was begun; start "
                   "over with --force",
                   b->o->src, b->o->out);
}

/* The source may not change under our hands either. */
static vq_status check_untouched(const job *b, const uint8_t stamp[32])
{
    uint8_t now[32];
    cv_ckpt_stamp(&b->ckpt, now);
    return !memcmp(now, stamp, sizeof now)
               ? VQ_OK
               : vq_fail(b->e, VQ_EFAIL, "%s: its files were changed while they were read",
                         b->o->src);
}

/* Whether what was done is kept, and how to go on: behind what went wrong. */
static void tell_kept(const job *b, uint64_t kept)
{
    char done[16], all[16], why[sizeof b->e->msg];
    if (!b->e) return;
    vq_fmt_size(done, kept);
    vq_fmt_size(all, b->plan.read_bytes);
    memcpy(why, b->e->msg, sizeof why);
    vq_fail(b->e, b->e->code, "%.700s; %s of %s are kept: the same command goes on from there", why,
            done, all);
}

/* The tensors are written: measures what came of them, and puts it into the front. */
static vq_status measure(job *b, vq_writer *w, const vq_mark *at, cv_report *r)
{
    const cv_opts *o = b->o;
    vq_buf figures = { 0 };
    const char *part = NULL; /* stays so: finished by an earlier run */
    if (!o->card) return VQ_OK;
    cv_calib_close(b->calib);
    b->calib = NULL;
    stage(b, "card", "tokens");
    vq_status st = vq_writer_whole(w, at, &part, b->e);
    if (!st && part) {
        const cv_quality_run run = { .source = b->source, .path = part, .cpu = o->cpu,
                                     .threads = threads_of(o), .progress = o->progress,
                                     .ctx = o->ctx };
        st = cv_quality_measure(&b->quality, &run, &r->quality, b->e);
        if (!st) cv_quality_add_figures(&figures, &r->quality);
        if (figures.oom) st = no_memory(b);
        if (!st) vq_writer_late(w, figures.p);
    }
    vq_buf_clear(&figures);
    return st;
}

/* What the text did not reach. */
static void tell_unseen(const job *b)
{
    size_t all;
    if (!b->calib) return;
    const size_t idle = cv_calib_idle(b->calib, &all);
    if (idle) {
        notice(b, "%s: %zu of %zu experts got no token of it: encoded by what all of their layer "
               "got", b->o->calib, idle, all);
    }
    if (b->config.c.n_mtp) {
        notice(b, "%s: the text does not run through its MTP layer: encoded without", b->o->src);
    }
}

static vq_status write_container(job *b, cv_report *r, float *rel_rmse)
{
    const cv_opts *o = b->o;
    const vq_writer_spec spec = spec_of(b);
    vq_writer *w;
    vq_status st = vq_writer_begin(&w, &spec, b->e);
    if (st) return st;
    cv_run run = { .plan = &b->plan, .writer = w, .kern = &b->kern, .step = o->step,
                   .threads = threads_of(o),
                   .progress = o->progress, .ctx = o->ctx, .rel_rmse = rel_rmse,
                   .calib = b->calib };
    run.from = *vq_writer_found(w);
    st = prove_source(b, &run, b->e);
    if (st) { /* undecided, or refused: all stays as it is */
        vq_writer_abort(w, true);
        return st;
    }
    run.from = *vq_writer_found(w);
    r->resumed = run.from.source;
    for (uint32_t i = 0; i < run.from.n_rmse; i++) rel_rmse[i] = b->plan.tensor[i].rel_rmse;
    if (run.from.pos) {
        char done[16], all[16];
        vq_fmt_size(done, run.from.source);
        vq_fmt_size(all, b->plan.read_bytes);
        notice(b, "resuming: %s of %s done", done, all);
    }
    stage(b, "convert", NULL);
    st = cv_pipeline(&run, b->e);
    if (!st) tell_unseen(b);
    if (!st) st = check_untouched(b, spec.stamp);
    if (!st) st = measure(b, w, &run.at, r);
    if (!st) st = vq_writer_end(w, &run.at, r->root, &r->bytes, b->e);
    if (st) {
        const uint64_t kept = vq_writer_abort(w, !run.hopeless);
        if (kept) tell_kept(b, kept);
    }
    return st;
}

/* Measures what matrices cost; goes on where a run of the same checkpoint and text, with this or
 * another budget, has left its tries beside the output. */
static vq_status try_matrices(job *b, double *cost)
{
    const cv_opts *o = b->o;
    const uint64_t n = b->plan.n;
    cv_tries t = { .calib = b->calib, .kern = &b->kern, .progress = o->progress, .ctx = o->ctx };
    uint8_t stamp[32];
    vq_sha256 s;
    if (!o->dry_run) vq_buf_printf(&b->tries, "%s.tries", o->out);
    if (b->tries.oom) return no_memory(b);
    t.path = b->tries.p;
    cv_ckpt_stamp(&b->ckpt, stamp);
    vq_sha256_init(&s, &b->kern);
    vq_sha256_add(&s, VQ_VERSION, sizeof VQ_VERSION);
    vq_sha256_add(&s, b->ckpt.sha256, sizeof b->ckpt.sha256);
    vq_sha256_add(&s, stamp, sizeof stamp);
    vq_sha256_add(&s, &b->config.c, sizeof b->config.c);
    vq_sha256_add(&s, b->config.rope, b->config.c.rope_dim / 2 * sizeof *b->config.rope);
    vq_sha256_add(&s, cv_calib_hash(b->calib), 64);
    vq_sha256_add(&s, &n, sizeof n);
    vq_sha256_end(&s, t.key);
    cv_tries_recall(&t, cost, b->plan.n);
    if (t.done) notice(b, "resuming: %zu of %zu matrices are tried", t.done, b->plan.n);
    stage(b, "tries", "matrices");
    return cv_budget_costs(cost, &b->plan, &b->config.c, &t, b->e);
}

/* The types that a budget buys; the front and what alignment costs are paid first. */
static vq_status spend_budget(job *b)
{
    const cv_opts *o = b->o;
    if (!o->size && !(o->bpw > 0)) return VQ_OK;
    double *cost = b->cost = vq_calloc(b->plan.n, sizeof *cost);
    if (!cost) return no_memory(b);
    uint64_t size = o->size, limit = o->bpw > 0 ? (uint64_t)(o->bpw * (double)b->plan.params / 8)
                                               : o->size;
    /* First a guess: what does not fit is said before anything is measured. */
    vq_status st = cv_budget_costs(cost, &b->plan, &b->config.c, NULL, b->e);
    if (!st) st = cv_budget_spend(&b->plan, cost, limit, b->e);
    if (!st && b->calib) st = try_matrices(b, cost);
    for (int i = 0; !st && i < 8; i++) { /* what the front takes depends on the types but little */
        uint64_t file = 0;
        vq_buf front = { 0 };
        st = cv_budget_spend(&b->plan, cost, limit, b->e);
        if (!st) st = make_meta(b);
        const vq_writer_spec spec = spec_of(b);
        if (!st) st = vq_front_make(&front, &file, &spec, b->e);
        vq_buf_clear(&front);
        if (st || !size || file <= size) break;
        limit -= file - size < limit ? file - size : limit;
    }
    return st;
}

/* All checks of the writer and the size, without a file. */
static vq_status dry_run(job *b, cv_report *r)
{
    vq_buf front = { 0 };
    const vq_writer_spec spec = spec_of(b);
    const vq_status st = vq_front_make(&front, &r->bytes, &spec, b->e);
    if (b->o->front && !st) *b->o->front = front;
    else vq_buf_clear(&front);
    return st;
}

static vq_status make_container(job *b, cv_report *r)
{
    const cv_plan *p = &b->plan;
    float *rel_rmse = vq_calloc(p->n, sizeof *rel_rmse);
    r->tensor = vq_calloc(p->n, sizeof *r->tensor);
    if (!rel_rmse || !r->tensor) {
        vq_free(rel_rmse);
        return no_memory(b);
    }
    /* All that can fail comes before a file gets its name. */
    vq_buf rules = { 0 };
    cv_rules_write(&rules, p->tensor, p->n);
    r->rules = rules.p;
    const vq_status st = rules.oom       ? no_memory(b)
                         : b->o->dry_run ? dry_run(b, r)
                                         : write_container(b, r, rel_rmse);
    uint64_t bytes = 0;
    for (size_t i = 0; !st && i < p->n; i++) {
        const vaq_tensor *t = &p->tensor[i];
        cv_tensor_report *o = &r->tensor[r->n_tensor++];
        vq_tensor_name(o->name, t);
        o->type = t->type;
        o->rows = t->rows;
        o->cols = t->cols;
        o->rel_rmse = rel_rmse[i];
        o->kl = b->cost ? b->cost[i] * cv_budget_left(t->type) : 0;
        bytes += t->size;
    }
    vq_free(rel_rmse);
    r->params = p->params;
    r->bpw = p->params ? 8.0 * (double)bytes / (double)p->params : 0;
    return st;
}

/* The plan's tensors as f has them: types, places. */
static vq_status plan_as(job *b, const vq_file *f)
{
    cv_plan *p = &b->plan;
    bool same = p->n == f->n_tensor;
    for (size_t i = 0; same && i < p->n; i++) {
        vaq_tensor *t = &p->tensor[i];
        const vaq_tensor *w = vq_file_find(f, t->role, t->layer, t->expert);
        same = w && w->rows == t->rows && w->cols == t->cols && w->layout == t->layout &&
               (!i || w->off > t[-1].off);
        if (same) *t = *w;
    }
    return same ? VQ_OK
                : vq_fail(b->e, VQ_EFAIL, "%s: this version would lay it out otherwise; repair it "
                          "with the one it was made by, or from another .vaq",
                          f->path);
}

vq_status cv_remake(const cv_opts *o, const vq_file *f, const cv_range *range, size_t n,
                    cv_put_fn *put, void *to, vq_err *e)
{
    job b = { .o = o, .e = e };
    char hex[65];
    if (vq_file_meta(f, "calib").p) {
        return vq_fail(e, VQ_EFAIL, "%s: was made with a calibration text, without which no range "
                       "is made again: repair it from a copy, or convert again",
                       f->path);
    }
    vq_status st = cv_ckpt_open(&b.ckpt, o->src, e);
    vq_hex32(hex, b.ckpt.sha256);
    if (!st && !vq_str_eq(vq_file_meta(f, "source_sha256"), hex)) {
        const vq_str from = vq_file_meta(f, "source");
        st = vq_fail(e, VQ_EFAIL, "%s: is not the checkpoint %s was made from (%.*s: other headers "
                     "or another config)",
                     o->src, f->path, from.n > 100 ? 100 : (int)from.n, from.n ? from.p : "?");
    }
    if (!st) st = read_config(&b);
    const cv_plan_opts po = { .type = -1, .drop_mtp = !f->config->n_mtp };
    if (!st) st = cv_plan_make(&b.plan, &b.ckpt, &b.config.c, &po, e);
    if (!st) st = plan_as(&b, f);
    if (!st && !q_kern_make(&b.kern, o->cpu)) st = vq_fail(e, VQ_EUSAGE, "no such CPU level");
    if (!st) {
        cv_run run = { .plan = &b.plan, .put = put, .to = to, .range = range, .n_range = n,
                       .kern = &b.kern, .progress = o->progress, .ctx = o->ctx,
                       .threads = threads_of(o) };
        st = cv_pipeline(&run, e);
    }
    cv_plan_clear(&b.plan);
    cv_ckpt_close(&b.ckpt);
    return st;
}

vq_status cv_convert(const cv_opts *o, cv_report *report, vq_err *e)
{
    job b = { .o = o, .start = vq_now(), .e = e };
    *report = (cv_report){ 0 };
    vq_status st = check_opts(&b);
    if (!st && o->rules.p) st = cv_rules_read(&b.rules, o->rules.p, o->rules.n, o->rules_name, e);
    if (!st) st = cv_ckpt_open(&b.ckpt, o->src, e);
    if (!st) st = read_config(&b);
    if (!st) st = read_text(&b);
    if (!st) st = make_plan(&b);
    if (!st) st = read_card(&b);
    if (!st) st = open_source(&b);
    if (!st) st = open_calib(&b);
    if (!st) st = spend_budget(&b);
    if (!st) st = make_meta(&b);
    if (!st) st = make_container(&b, report);
    if (!st && b.tries.p) vq_unlink(b.tries.p);
    report->seconds = vq_now() - b.start;
    report->source = b.plan.read_bytes;
    const double read = (double)(report->source - report->resumed);
    report->read_mbs = st || o->dry_run ? 0 : read / report->seconds / 1e6;
    report->peak_rss = vq_peak_rss_anon();
    cv_calib_close(b.calib);
    vq_engine_close(b.source);
    cv_quality_clear(&b.quality);
    vq_free(b.cost);
    vq_buf_clear(&b.tries);
    cv_plan_clear(&b.plan);
    cv_rules_free(b.rules);
    vq_tok_built_clear(&b.tok);
    vq_buf_clear(&b.meta);
    vq_buf_clear(&b.recipe);
    vq_buf_clear(&b.chat_template);
    vq_buf_clear(&b.chosen);
    cv_ckpt_close(&b.ckpt);
    if (st) cv_report_clear(report);
    return st;
}

void cv_report_clear(cv_report *r)
{
    vq_free(r->tensor);
    vq_free(r->rules);
    *r = (cv_report){ 0 };
}
