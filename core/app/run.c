/* run.c - `vaquita run`: one prompt, one answer.
 *
 * The prompt comes from exactly one place.  Text goes through the model's chat template unless
 * --raw, and can then never act as a control token; the template decides whether the answer starts
 * inside the thoughts. */
#include "core/app/gen.h"
#include "core/app/term.h"
#include "core/base/os.h"

#include <stdio.h>
#include <string.h>

typedef struct run_opts {
    const char *prompt, *file, *prompt_ids;
    bool raw, ids;
    gen_opts gen;
} run_opts;

static const args_opt options[] = {
    { ARGS_TEXT, "-p", "TEXT", offsetof(run_opts, prompt), 0, 0, NULL, "the prompt" },
    { ARGS_TEXT, "-f", "FILE", offsetof(run_opts, file), 0, 0, NULL,
      "the prompt from a file; - or nothing: stdin" },
    { ARGS_TEXT, "--prompt-ids", "IDS", offsetof(run_opts, prompt_ids), 0, 0, NULL,
      "the prompt as token ids 1,2,3: no template, no tokenizer" },
    { ARGS_FLAG, "--raw", NULL, offsetof(run_opts, raw), 0, 0, NULL,
      "no template, no BOS: the prompt as it is; marks in it act" },
    { ARGS_FLAG, "--ids", NULL, offsetof(run_opts, ids), 0, 0, NULL,
      "print token ids instead of text" },
    GEN_OPTIONS(run_opts, gen),
    { .kind = ARGS_END },
};

static vq_status prompt_text(const run_opts *o, vq_buf *out, vq_err *e)
{
    if (o->prompt) {
        vq_buf_str(out, o->prompt);
    } else {
        if (!o->file && vq_isatty(0)) {
            return vq_fail(e, VQ_EUSAGE, "no prompt: give -p TEXT, -f FILE, or pipe one in");
        }
        const vq_status st = app_read(o->file ? o->file : "-", out, e);
        if (st) return st;
        /* The newline that ends a text file is not part of the question. */
        if (!o->raw && out->n && out->p[out->n - 1] == '\n') {
            out->n -= out->n > 1 && out->p[out->n - 2] == '\r' ? 2 : 1;
            out->p[out->n] = 0;
        }
    }
    if (out->oom) return vq_fail(e, VQ_ENOMEM, "out of memory for the prompt");
    if (out->n == 0) return vq_fail(e, VQ_EUSAGE, "the prompt is empty");
    return VQ_OK;
}

static vq_status prompt_ids(const run_opts *o, const vq_engine *eng, const vq_buf *text,
                            vq_ids *ids, vq_err *e)
{
    if (o->prompt_ids) return app_parse_ids(o->prompt_ids, "--prompt-ids", ids, e);
    if (o->raw) return vq_engine_tokenize(eng, text->p, text->n, true, ids, e);
    vq_message m[2];
    size_t n = 0;
    if (o->gen.system)
        m[n++] = (vq_message){ .role = VQ_SYSTEM, .content = vq_str_c(o->gen.system) };
    m[n++] = (vq_message){ .role = VQ_USER, .content = { text->p, text->n } };
    const vq_render_opts r = { .no_force_think = true };
    return vq_engine_render(eng, m, n, &r, ids, NULL, e);
}

static double per_second(size_t n, double s) { return s > 0 ? (double)n / s : 0; }

typedef struct figures {
    size_t prompt;
    double load_s;
    uint64_t seed;
    int draft;              /* index into GEN_DRAFT */
    vq_draft_stats drafts;
    bool interrupted;
} figures;

/* Ids per pass that computed drafts, its own draw counted; 0 where there was none. */
static double yield_of(const vq_draft_stats *d)
{
    const double passes = (double)d->verifications;
    return passes > 0 ? (passes + (double)d->accepted) / passes : 0;
}

static void put_drafts(vq_jw *w, const figures *f)
{
    static const char *const mode[] = { "off", "ngram", "mtp", "auto" }; /* GEN_DRAFT */
    vq_jw_open(w, "draft", '{');
    vq_jw_cstr(w, "mode", mode[f->draft]);
    vq_jw_u64(w, "drafted", f->drafts.drafted);
    vq_jw_u64(w, "accepted", f->drafts.accepted);
    vq_jw_u64(w, "verifications", f->drafts.verifications);
    vq_jw_f64(w, "tokens_per_verification", yield_of(&f->drafts));
    vq_jw_close(w, '}');
}

static void put_experts(vq_jw *w, const vq_expert_stats *x)
{
    if (!x->slots) return;
    const double wanted = (double)(x->hits + x->misses);
    vq_jw_open(w, "experts", '{');
    vq_jw_u64(w, "slots", (uint64_t)x->slots);
    vq_jw_u64(w, "bytes", x->bytes);
    vq_jw_u64(w, "hits", x->hits);
    vq_jw_u64(w, "misses", x->misses);
    vq_jw_f64(w, "hit_rate", wanted > 0 ? (double)x->hits / wanted : 0);
    vq_jw_u64(w, "guessed", x->guessed);
    vq_jw_u64(w, "guessed_right", x->right);
    vq_jw_u64(w, "read_bytes", x->read_bytes);
    vq_jw_f64(w, "read_s", x->read_s);
    vq_jw_f64(w, "stall_s", x->stall_s);
    vq_jw_bool(w, "direct", x->direct);
    vq_jw_close(w, '}');
}

static vq_status print_json(app *a, const gen_result *r, const figures *f, const vq_engine *eng,
                            vq_err *e)
{
    const vq_info *info = vq_engine_info(eng);
    const vq_expert_stats experts = vq_engine_experts(eng);
    vq_buf b = { 0 };
    vq_jw w = { .b = &b };
    const size_t later = r->ids.n > 1 ? r->ids.n - 1 : 0;
    vq_jw_open(&w, NULL, '{');
    vq_jw_str(&w, "reasoning", r->reasoning.p ? r->reasoning.p : "", r->reasoning.n);
    vq_jw_str(&w, "content", r->content.p ? r->content.p : "", r->content.n);
    vq_jw_open(&w, "ids", '[');
    for (size_t i = 0; i < r->ids.n; i++) vq_jw_i64(&w, NULL, r->ids.v[i]);
    vq_jw_close(&w, ']');
    vq_jw_u64(&w, "seed", f->seed);
    vq_jw_cstr(&w, "finish_reason", f->interrupted ? "interrupted" : r->length ? "length" : "stop");
    vq_jw_open(&w, "usage", '{');
    vq_jw_u64(&w, "prompt", f->prompt);
    vq_jw_u64(&w, "thinking", r->thinking);
    vq_jw_u64(&w, "answer", r->answer);
    vq_jw_u64(&w, "cached", 0);
    vq_jw_close(&w, '}');
    vq_jw_open(&w, "timing", '{');
    vq_jw_f64(&w, "prefill_tps", per_second(f->prompt, r->prefill_s));
    vq_jw_f64(&w, "decode_tps", per_second(later, r->decode_s));
    vq_jw_f64(&w, "load_ms", f->load_s * 1e3);
    vq_jw_close(&w, '}');
    put_drafts(&w, f);
    put_experts(&w, &experts);
    vq_jw_u64(&w, "ctx", info->ctx);
    vq_jw_i64(&w, "threads", info->threads);
    vq_jw_cstr(&w, "cpu", info->cpu);
    vq_jw_close(&w, '}');
    const vq_status st = app_put_json(a, &b, e);
    vq_buf_clear(&b);
    return st;
}

static vq_status answer(app *a, const run_opts *o, vq_engine *eng, const vq_ids *ids, double load_s,
                        vq_err *e)
{
    const vq_info *info = vq_engine_info(eng);
    vq_session *s = NULL;
    gen_result r = { 0 };
    /* 53 bits: readers that hold JSON numbers as doubles keep the seed whole. */
    const vq_session_opts so = {
        .sampling = gen_sampling(&o->gen, info, vq_random64() >> 11), .max_new = (uint32_t)o->gen.n,
        .draft = (vq_draft)o->gen.draft,
    };
    const gen_show show = { .think = (gen_think)o->gen.think,
                            .ids = o->ids || !info->has_tokenizer,
                            .silent = a->json };

    vq_status st = vq_session_open(&s, eng, &so, e);
    if (!st) st = vq_session_add(s, ids->v, ids->n, e);
    if (!st) {
        st = gen_answer(a, eng, s, gen_in_think(info, ids->v, ids->n), (size_t)o->gen.n, &show, &r,
                        e);
        const figures f = { ids->n, load_s, so.sampling.seed, o->gen.draft,
                            vq_session_draft_stats(s), st == VQ_EINTR };
        if (a->json && (!st || st == VQ_EINTR)) {
            vq_err ignored;
            const vq_status put = print_json(a, &r, &f, eng, st ? &ignored : e);
            if (!st) st = put;
        } else if (!st && a->tty_err && !a->out_errno) {
            app_note(a,
                     "%s[%zu prompt tokens at %.0f/s, %zu generated at %.1f/s, %s, context %u, "
                     "seed %llu]%s",
                     a->tty_out ? "\033[2m" : "", ids->n, per_second(ids->n, r.prefill_s), r.ids.n,
                     per_second(r.ids.n > 1 ? r.ids.n - 1 : 0, r.decode_s),
                     r.length ? "cut off" : "complete", info->ctx,
                     (unsigned long long)so.sampling.seed, a->tty_out ? "\033[0m" : "");
            const vq_expert_stats x = vq_engine_experts(eng);
            if (x.slots)
                app_note(a, "%s[experts: %d in memory, %.0f%% of those wanted were there, %.1f GB "
                            "read, %.1f s of waiting]%s", a->tty_out ? "\033[2m" : "", x.slots,
                         100.0 * (double)x.hits / (double)(x.hits + x.misses),
                         (double)x.read_bytes / 1e9, x.stall_s, a->tty_out ? "\033[0m" : "");
        }
    }
    gen_clear(&r);
    vq_session_close(s);
    return st;
}

static vq_status run(app *a, const void *opts, char **arg, int n_arg, vq_err *e)
{
    const run_opts *o = opts;
    (void)n_arg;
    if (!!o->prompt + !!o->file + !!o->prompt_ids > 1) {
        return vq_fail(e, VQ_EUSAGE, "the prompt comes from one place: -p, -f or --prompt-ids");
    }
    if (o->gen.system && (o->raw || o->prompt_ids)) {
        return vq_fail(e, VQ_EUSAGE,
                       "--system needs the chat template, which --raw and --prompt-ids leave out");
    }
    vq_buf text = { 0 };
    vq_ids ids = { 0 };
    vq_engine *eng = NULL;
    vq_status st = o->prompt_ids ? VQ_OK : prompt_text(o, &text, e);
    const double start = vq_now();
    if (!st) st = gen_open_drafting(a, &eng, arg[0], &o->gen, e);
    const double load_s = vq_now() - start;
    if (!st) st = prompt_ids(o, eng, &text, &ids, e);
    if (!st && ids.n == 0) st = vq_fail(e, VQ_EUSAGE, "the prompt is empty");
    if (!st) st = answer(a, o, eng, &ids, load_s, e);
    term_watch(NULL);
    vq_engine_close(eng);
    vq_ids_clear(&ids);
    vq_buf_clear(&text);
    return st;
}

static const run_opts defaults = { .gen = { GEN_DEFAULTS } };

const app_verb app_verb_run = {
    "run", "MODEL [-p TEXT]", "one answer to one prompt",
    "Example:\n"
    "  vaquita run model.vaq -p 'How many primes are below 30?'\n",
    options, &defaults, sizeof defaults, 1, 1, run,
};
