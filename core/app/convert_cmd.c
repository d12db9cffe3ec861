/* convert_cmd.c - `vaquita convert`: a checkpoint into a container; the work is convert/'s. */
#include "convert/convert.h"
#include "core/app/app.h"
#include "core/app/term.h"
#include "quant/quant.h"

#include <stdio.h>
#include <string.h>

typedef struct convert_opts {
    const char *out, *recipe, *calib, *card;
    uint64_t size;
    double bpw;
    int type, yarn, mtp;
    bool no_tokenizer, dry_run, force;
} convert_opts;

/* As the choices of --type are ordered; the first is auto. */
static const int types[] = { -1, Q_F32, Q_BF16, Q_F16, Q_L8, Q_L6, Q_N5, Q_N4, Q_N4S,
                             Q_P6, Q_P5 };

static const args_opt options[] = {
    { ARGS_TEXT, "-o", "OUT.vaq", offsetof(convert_opts, out), 0, 0, NULL,
      "the container to make" },
    { ARGS_CHOICE, "--type", "TYPE", offsetof(convert_opts, type), 0, 0,
      "auto|f32|bf16|f16|l8|l6|n5|n4|n4s|p6|p5",
      "of matrices: f32 bf16 f16 l8 l6 n5 n4 n4s p6 p5 auto" },
    { ARGS_TEXT, "--recipe", "FILE", offsetof(convert_opts, recipe), 0, 0, NULL,
      "lines as `v,o,down 0-3,27 l6`: types, the last fit decides" },
    { ARGS_SIZE, "--size", "SIZE", offsetof(convert_opts, size), 1, 1e15, NULL,
      "choose types so that the file is no larger (1.0G)" },
    { ARGS_REAL, "--bpw", "X", offsetof(convert_opts, bpw), 1, 32, NULL,
      "choose types for so many bits per weight (4.3)" },
    { ARGS_TEXT, "--calib", "TEXT", offsetof(convert_opts, calib), 0, 0, NULL,
      "a text like those it will see: better codes and choices" },
    { ARGS_TEXT, "--card", "TEXT", offsetof(convert_opts, card), 0, 0, NULL,
      "another text, to measure what was lost: `info` prints it" },
    { ARGS_CHOICE, "--yarn-attn", "HOW", offsetof(convert_opts, yarn), 0, 0, "file|hf",
      "attn_factor of a YaRN config: honour (file) or ignore (hf)" },
    { ARGS_CHOICE, "--mtp", "HOW", offsetof(convert_opts, mtp), 0, 0, "keep|drop",
      "R1's drafting layer: keep it, or save 2% of the bytes" },
    { ARGS_FLAG, "--no-tokenizer", NULL, offsetof(convert_opts, no_tokenizer), 0, 0, NULL,
      "leave the tokenizer out: ids only" },
    { ARGS_FLAG, "--dry-run", NULL, offsetof(convert_opts, dry_run), 0, 0, NULL,
      "check everything, make no output, print the recipe" },
    { ARGS_FLAG, "--force", NULL, offsetof(convert_opts, force), 0, 0, NULL,
      "overwrite a file; start over where going on is refused" },
    { .kind = ARGS_END },
};

static vq_status print_json(app *a, const cv_report *r, const char *hex, vq_err *e)
{
    vq_buf b = { 0 };
    vq_jw w = { .b = &b };
    vq_jw_open(&w, NULL, '{');
    vq_jw_u64(&w, "bytes", r->bytes);
    vq_jw_u64(&w, "params", r->params);
    vq_jw_f64(&w, "bpw", r->bpw);
    vq_jw_f64(&w, "seconds", r->seconds);
    vq_jw_f64(&w, "read_mbs", r->read_mbs);
    vq_jw_u64(&w, "peak_rss", r->peak_rss);
    vq_jw_u64(&w, "source_bytes", r->source);
    vq_jw_u64(&w, "resumed_bytes", r->resumed);
    vq_jw_open(&w, "tensors", '[');
    for (size_t i = 0; i < r->n_tensor; i++) {
        const cv_tensor_report *t = &r->tensor[i];
        const q_typeinfo *type = q_type_info(t->type);
        vq_jw_open(&w, NULL, '{');
        vq_jw_cstr(&w, "name", t->name);
        vq_jw_cstr(&w, "type", type ? type->name : NULL);
        vq_jw_u64(&w, "rows", t->rows);
        vq_jw_u64(&w, "cols", t->cols);
        vq_jw_f64(&w, "rel_rmse", (double)t->rel_rmse);
        if (t->kl > 0) vq_jw_f64(&w, "kl", t->kl);
        vq_jw_close(&w, '}');
    }
    vq_jw_close(&w, ']');
    vq_jw_cstr(&w, "rules", r->rules);
    if (r->quality.n) {
        vq_jw_open(&w, "quality", '{');
        vq_jw_f64(&w, "kl", r->quality.mean);
        vq_jw_f64(&w, "kl_p99", r->quality.p99);
        vq_jw_f64(&w, "top1", r->quality.top1);
        vq_jw_u64(&w, "tokens", r->quality.n);
        vq_jw_close(&w, '}');
    }
    vq_jw_cstr(&w, "sha256", hex);
    vq_jw_cstr(&w, "cpu", a->level);
    vq_jw_close(&w, '}');
    const vq_status st = app_put_json(a, &b, e);
    vq_buf_clear(&b);
    return st;
}

static void print_text(app *a, const convert_opts *o, const cv_report *r)
{
    char line[400], size[16], peak[16];
    float worst = 0;
    const char *name = "";
    for (size_t i = 0; i < r->n_tensor; i++) {
        if (r->tensor[i].rel_rmse <= worst) continue;
        worst = r->tensor[i].rel_rmse;
        name = r->tensor[i].name;
    }
    vq_fmt_size(size, r->bytes);
    vq_fmt_size(peak, r->peak_rss);
    if (o->dry_run) { /* all of it a recipe that makes the same choice again */
        snprintf(line, sizeof line, "# dry run: %s (not written), %.2f bits per weight\n", size,
                 r->bpw);
        app_puts(a, line);
        for (size_t i = 0; i < r->n_tensor; i++) { /* what a budget expects */
            const cv_tensor_report *t = &r->tensor[i];
            const q_typeinfo *type = q_type_info(t->type);
            if (!(t->kl > 0) || !type) continue;
            snprintf(line, sizeof line, "# %-4s kl %.6f %s\n", type->name, t->kl, t->name);
            app_puts(a, line);
        }
        app_puts(a, r->rules);
        return;
    }
    snprintf(line, sizeof line, "%s: %s, %.2f bits per weight, %.1f s, %.0f MB/s, %s of memory\n",
             o->out, size, r->bpw, r->seconds, r->read_mbs, peak);
    app_puts(a, line);
    if (worst > 0) {
        snprintf(line, sizeof line, "largest relative error of a tensor: %.4f (%s)\n",
                 (double)worst, name);
        app_puts(a, line);
    }
    if (r->quality.n) {
        snprintf(line, sizeof line, "kl from its source: mean %.6f, p99 %.6f; same first token "
                 "%.2f %%; %zu tokens of %.200s\n", r->quality.mean, r->quality.p99,
                 100 * r->quality.top1, r->quality.n, o->card);
        app_puts(a, line);
    }
}

static vq_status convert(app *a, const void *opts, char **arg, int n_arg, vq_err *e)
{
    const convert_opts *o = opts;
    (void)n_arg;
    if (o->out ? !*o->out : !o->dry_run) {
        return vq_fail(e, VQ_EUSAGE, "no output: give -o OUT.vaq (or --dry-run)");
    }
    if (o->out && !strcmp(o->out, "-")) {
        return vq_fail(e, VQ_EUSAGE, "a container is not written in order, so not to stdout: "
                       "give -o OUT.vaq");
    }
    vq_buf rules = { 0 };
    vq_status st = o->recipe ? app_read(o->recipe, &rules, e) : VQ_OK;
    if (st) return st;
    app_progress p;
    app_progress_begin(&p, a, "convert", NULL, 0.3);
    const cv_opts c = {
        .src = arg[0],
        .out = o->out,
        .type = types[o->type],
        .rules = { o->recipe ? rules.p ? rules.p : "" : NULL, rules.n },
        .rules_name = o->recipe,
        .cpu = a->cpu,
        .threads = (int)a->threads,
        .yarn_hf = o->yarn == 1,
        .no_tokenizer = o->no_tokenizer,
        .drop_mtp = o->mtp == 1,
        .force = o->force,
        .calib = o->calib,
        .card = o->card,
        .size = o->size,
        .bpw = o->bpw,
        .dry_run = o->dry_run,
        .progress = app_progress_step,
        .stage = app_progress_stage,
        .notice = app_progress_note,
        .ctx = &p,
    };
    cv_report r = { 0 };
    term_polite(true);
    st = cv_convert(&c, &r, e);
    term_polite(false);
    app_progress_end(&p);
    if (!st && a->json) {
        char hex[65];
        vq_hex32(hex, r.root);
        st = print_json(a, &r, hex, e);
    } else if (!st && !a->quiet) {
        print_text(a, o, &r);
    }
    cv_report_clear(&r);
    vq_buf_clear(&rules);
    return st;
}

static const convert_opts defaults = { 0 };

const app_verb app_verb_convert = {
    "convert", "SRC -o OUT.vaq", "a checkpoint or a GGUF model into a container",
    "SRC: a Hugging Face folder, a .safetensors beside its config.json, or a .gguf.\n"
    "auto: N4, more for head, embedding and outer layers; R1: P6 N4s N4, L6, L8.\n"
    "Stopped in any way, it goes on when called again the same, to the same bytes.\n"
    "Example:\n"
    "  vaquita convert DeepSeek-R1-Distill-Qwen-1.5B -o r1-1.5b.vaq\n",
    options, &defaults, sizeof defaults, 1, 1, convert,
};
