/* export_cmd.c - `vaquita export`: a container into a GGUF file; the work is convert/'s. */
#include "convert/export.h"
#include "core/app/app.h"
#include "core/app/term.h"
#include "quant/quant.h"

#include <stdio.h>
#include <string.h>

typedef struct export_opts {
    const char *out;
    int type;               /* index of types; -1: not given */
    bool force;
} export_opts;

static const cv_dtype types[] = { CV_F32, CV_F16, CV_Q8_0, CV_Q6_K, CV_Q4_0, CV_IQ4_NL };

static const args_opt options[] = {
    { ARGS_TEXT, "-o", "OUT.gguf", offsetof(export_opts, out), 0, 0, NULL, "the file to make" },
    { ARGS_CHOICE, "--type", "TYPE", offsetof(export_opts, type), 0, 0,
      "f32|f16|q8_0|q6_k|q4_0|iq4_nl",
      "of all matrices: f32 f16 q8_0 q6_k q4_0 iq4_nl" },
    { ARGS_FLAG, "--force", NULL, offsetof(export_opts, force), 0, 0, NULL,
      "overwrite an existing file" },
    { .kind = ARGS_END },
};

static vq_status print_json(app *a, const cv_export_report *r, vq_err *e)
{
    vq_buf b = { 0 };
    vq_jw w = { .b = &b };
    vq_jw_open(&w, NULL, '{');
    vq_jw_u64(&w, "bytes", r->bytes);
    vq_jw_u64(&w, "params", r->params);
    vq_jw_f64(&w, "bpw", 8.0 * (double)r->bytes / (double)r->params);
    vq_jw_f64(&w, "seconds", r->seconds);
    vq_jw_u64(&w, "peak_rss", r->peak_rss);
    vq_jw_open(&w, "tensors", '[');
    for (size_t i = 0; i < r->n_tensor; i++) {
        const cv_export_tensor *t = &r->tensor[i];
        vq_jw_open(&w, NULL, '{');
        vq_jw_cstr(&w, "name", t->name);
        vq_jw_cstr(&w, "type", cv_gtype_of(t->type)->name);
        vq_jw_u64(&w, "rows", t->ne[1] * t->ne[2]);
        vq_jw_u64(&w, "cols", t->ne[0]);
        vq_jw_f64(&w, "rel_rmse", (double)t->rel_rmse);
        vq_jw_close(&w, '}');
    }
    vq_jw_close(&w, ']');
    vq_jw_cstr(&w, "cpu", a->level);
    vq_jw_close(&w, '}');
    const vq_status st = app_put_json(a, &b, e);
    vq_buf_clear(&b);
    return st;
}

static vq_status print_text(app *a, const export_opts *o, const cv_export_report *r, vq_err *e)
{
    char size[16];
    const cv_export_tensor *worst = NULL;
    const char *comma = "types: ";
    vq_buf b = { 0 };
    vq_fmt_size(size, r->bytes);
    vq_buf_printf(&b, "%s: %s, %.2f bits per weight, %.1f s\n", o->out, size,
                  8.0 * (double)r->bytes / (double)r->params, r->seconds);
    for (int from = 0; from < 32; from++) {
        for (int to = 0; to < CV_OTHER; to++) {
            if (!(r->pairs[from] >> to & 1)) continue;
            vq_buf_printf(&b, "%s%s as %s", comma, q_type_info(from)->name,
                          cv_gtype_of((cv_dtype)to)->name);
            comma = ", ";
        }
    }
    vq_buf_str(&b, "; all that is no matrix as F32\n");
    for (size_t i = 0; i < r->n_tensor; i++) {
        if (!worst || r->tensor[i].rel_rmse > worst->rel_rmse) worst = &r->tensor[i];
    }
    if (worst && worst->rel_rmse > 0) {
        vq_buf_printf(&b, "largest relative error of a tensor: %.4f (%s)\n",
                      (double)worst->rel_rmse, worst->name);
    }
    if (!b.oom) app_put(a, b.p, b.n);
    const bool oom = b.oom;
    vq_buf_clear(&b);
    return oom ? vq_fail(e, VQ_ENOMEM, "out of memory for the output") : VQ_OK;
}

static vq_status export(app *a, const void *opts, char **arg, int n_arg, vq_err *e)
{
    const export_opts *o = opts;
    (void)n_arg;
    if (!o->out || !*o->out) return vq_fail(e, VQ_EUSAGE, "no output: give -o OUT.gguf");
    vq_status st = app_model_path(arg[0], e);
    if (st) return st;
    app_progress p;
    app_progress_begin(&p, a, "export", NULL, 0.3);
    const cv_export_opts x = {
        .src = arg[0],
        .out = o->out,
        .type = o->type < 0 ? -1 : (int)types[o->type],
        .cpu = a->cpu,
        .threads = (int)a->threads,
        .force = o->force,
        .progress = app_progress_step,
        .notice = app_progress_note,
        .ctx = &p,
    };
    cv_export_report r = { 0 };
    term_polite(true);
    st = cv_export(&x, &r, e);
    term_polite(false);
    app_progress_end(&p);
    if (!st && a->json) st = print_json(a, &r, e);
    else if (!st && !a->quiet) st = print_text(a, o, &r, e);
    cv_export_report_clear(&r);
    return st;
}

static const export_opts defaults = { .type = -1 };

const app_verb app_verb_export = {
    "export", "MODEL.vaq -o OUT.gguf", "a container as a GGUF file for llama.cpp",
    "With tokenizer and chat template.  Without --type each matrix gets the nearest\n"
    "to its own type: l8 Q8_0, l6 and n5 Q6_K, all below IQ4_NL; rows that are no\n"
    "whole blocks of a type Q8_0 or F16.  What is no matrix is F32.\n"
    "Example:\n"
    "  vaquita export model.vaq -o model.gguf --type q8_0\n",
    options, &defaults, sizeof defaults, 1, 1, export,
};
