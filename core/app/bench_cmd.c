/* bench_cmd.c - `vaquita bench`: this machine's limits and the model beside them (bench/). */
#include "bench/bench.h"
#include "core/app/app.h"

#include <stdio.h>
#include <string.h>

typedef struct bench_opts {
    const char *shape, *type, *prompt, *depth, *batch, *save, *csv;
    int64_t gen, reps;
    bool compare;
} bench_opts;

static const args_opt options[] = {
    { ARGS_TEXT, "--shape", "NAME", offsetof(bench_opts, shape), 0, 0, NULL,
      "random weights of a shape: qwen-1.5b, llama-8b, r1:5 ..." },
    { ARGS_TEXT, "--type", "TYPE", offsetof(bench_opts, type), 0, 0, NULL,
      "type of the shape's matrices (n4)" },
    { ARGS_TEXT, "-p", "LIST", offsetof(bench_opts, prompt), 0, 0, NULL,
      "prompt lengths, e.g. 32,512 (512)" },
    { ARGS_INT, "-n", "N", offsetof(bench_opts, gen), 1, 1e6, NULL,
      "tokens decoded per repetition (128)" },
    { ARGS_TEXT, "--depth", "LIST", offsetof(bench_opts, depth), 0, 0, NULL,
      "positions already in the cache (0)" },
    { ARGS_TEXT, "--batch", "LIST", offsetof(bench_opts, batch), 0, 0, NULL,
      "sequences decoded together (1)" },
    { ARGS_INT, "--reps", "N", offsetof(bench_opts, reps), 1, BN_REPS_MAX, NULL,
      "repetitions; medians are shown (9)" },
    { ARGS_TEXT, "--csv", "FILE", offsetof(bench_opts, csv), 0, 0, NULL,
      "add the rows to this file; -: rows alone, to stdout" },
    { ARGS_TEXT, "--save", "FILE", offsetof(bench_opts, save), 0, 0, NULL,
      "write the shape's random weights as a container" },
    { ARGS_FLAG, "--compare", NULL, offsetof(bench_opts, compare), 0, 0, NULL,
      "two files of --json side by side: --compare A B" },
    { .kind = ARGS_END },
};

static void say(void *ctx, const char *line) { app_note(ctx, "%s", line); }

/* The first option given that says what to measure of a model. */
static const char *wants_model(const bench_opts *o)
{
    return o->prompt ? "-p"
         : o->gen    ? "-n"
         : o->depth  ? "--depth"
         : o->batch  ? "--batch"
         : o->reps   ? "--reps"
         : o->csv    ? "--csv"
                     : NULL;
}

static vq_status bench(app *a, const void *opts, char **arg, int n_arg, vq_err *e)
{
    const bench_opts *o = opts;
    vq_buf out = { 0 };
    vq_status st;
    if (!o->shape && (o->save || o->type))
        return vq_fail(e, VQ_EUSAGE, "%s goes with --shape", o->save ? "--save" : "--type");
    if (o->compare) {
        const char *more = o->shape ? "--shape" : wants_model(o);
        if (more) return vq_fail(e, VQ_EUSAGE, "--compare measures nothing, %s has no place", more);
        if (n_arg != 2) return vq_fail(e, VQ_EUSAGE, "--compare takes two files: A.json B.json");
        st = bn_compare(arg[0], arg[1], a->json, &out, e);
    } else {
        if (n_arg > 1) return vq_fail(e, VQ_EUSAGE, "one MODEL at a time");
        if (n_arg && o->shape) return vq_fail(e, VQ_EUSAGE, "either MODEL or --shape");
        if (wants_model(o) && !o->shape && !n_arg)
            return vq_fail(e, VQ_EUSAGE, "%s goes with MODEL or --shape", wants_model(o));
        if (o->csv && !strcmp(o->csv, "-") && a->json)
            return vq_fail(e, VQ_EUSAGE, "--json and --csv - both want stdout; name a file");
        const bn_opts b = {
            .model = n_arg ? arg[0] : NULL, .shape = o->shape, .type = o->type, .cpu = a->cpu,
            .threads = (int)a->threads, .prompt = o->prompt, .gen = (int)o->gen, .depth = o->depth,
            .batch = o->batch, .reps = (int)o->reps, .save = o->save, .csv = o->csv,
            .json = a->json,
            .say = a->tty_err && !a->quiet ? say : NULL, .ctx = a,
        };
        st = n_arg ? app_model_path(arg[0], e) : VQ_OK;
        if (!st) st = bn_run(&b, &out, e);
    }
    /* Also when st is an error: rows that could not be added are no reason to lose the results. */
    if (!out.oom && out.n) app_put(a, out.p, out.n);
    vq_buf_clear(&out);
    return st;
}

static const bench_opts defaults = { 0 };

const app_verb app_verb_bench = {
    "bench", "[MODEL]", "this machine's limits, prefill and decode against them",
    "Example:\n"
    "  vaquita bench --shape qwen-1.5b -p 128,512\n",
    options, &defaults, sizeof defaults, 0, 2, bench,
};
