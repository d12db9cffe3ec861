/* main.c - the table of verbs; the only place that prints errors and exits.
 *
 * Exit codes are a promise: 0 done, 1 failed, 2 wrong usage, 3 an input file is damaged or not
 * ours, 4 does not fit, 130 interrupted.  An error is one line on stderr.  A reader of stdout that
 * goes away (`vaquita ... | head`) is no error: the program ends quietly with 0. */
#include "core/app/app.h"
#include "core/app/term.h"
#include "core/base/os.h"
#include "quant/quant.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const app_verb *const verbs[] = {
    &app_verb_convert,  &app_verb_run,        &app_verb_chat,   &app_verb_info,  &app_verb_verify,
    &app_verb_tokenize, &app_verb_detokenize, &app_verb_logits, &app_verb_check, &app_verb_bench,
    &app_verb_perplexity, &app_verb_kl, &app_verb_plan, &app_verb_export,
};
enum { N_VERBS = sizeof verbs / sizeof *verbs };

static const args_opt common[] = {
    { ARGS_INT, "--threads", "N", offsetof(app, threads), 1, 1024, NULL,
      "threads (the performance cores)" },
    { ARGS_TEXT, "--cpu", "LEVEL", offsetof(app, cpu), 0, 0, NULL,
      "kernel level, as in 'vaquita info' (VQ_CPU; empty: best)" },
    { ARGS_FLAG, "--json", NULL, offsetof(app, json), 0, 0, NULL,
      "one JSON object on stdout, nothing else" },
    { ARGS_FLAG, "-q", NULL, offsetof(app, quiet), 0, 0, NULL, "no notes and no progress" },
    { ARGS_FLAG, "--help", NULL, offsetof(app, help), 0, 0, NULL, "this" },
    { ARGS_FLAG, "--version", NULL, offsetof(app, version), 0, 0, NULL, "of the program" },
    { .kind = ARGS_END },
};

static const app_verb *find_verb(const char *name)
{
    for (int i = 0; i < N_VERBS; i++) {
        if (!strcmp(verbs[i]->name, name)) return verbs[i];
    }
    return NULL;
}

static vq_status unknown_verb(const char *name, vq_err *e)
{
    const char *names[N_VERBS + 2];
    for (int i = 0; i < N_VERBS; i++) names[i] = verbs[i]->name;
    names[N_VERBS] = "help";
    names[N_VERBS + 1] = NULL;
    const char *like = args_nearest(name, names);
    return vq_fail(e, VQ_EUSAGE, "no verb is called '%s'%s%s%s", name,
                   like ? "; did you mean '" : "", like ? like : "", like ? "'?" : "");
}

static vq_status print_help(app *a, const app_verb *v, vq_err *e)
{
    vq_buf b = { 0 };
    if (v) {
        vq_buf_printf(&b, "vaquita %s %s - %s\n", v->name, v->args, v->what);
        args_help(&b, v->opt);
        args_help(&b, common);
        vq_buf_str(&b, v->more);
    } else {
        vq_buf_str(&b, "vaquita " VQ_VERSION
                       " - DeepSeek-R1 distills, quantized, on the machine you have\n\n"
                       "usage: vaquita VERB [options] [arguments]\n\n");
        for (int i = 0; i < N_VERBS; i++)
            vq_buf_printf(&b, "  %-11s %s\n", verbs[i]->name, verbs[i]->what);
        vq_buf_str(&b, "\n'vaquita help VERB' tells more.  Two commands to an answer:\n"
                       "  vaquita convert DeepSeek-R1-Distill-Qwen-1.5B -o r1.vaq\n"
                       "  vaquita run r1.vaq -p 'How many primes are below 30?'\n");
    }
    vq_status st = VQ_OK;
    if (b.oom) st = vq_fail(e, VQ_ENOMEM, "out of memory");
    else app_put(a, b.p, b.n);
    vq_buf_clear(&b);
    return st;
}

static vq_status print_version(app *a)
{
    app_puts(a, "vaquita " VQ_VERSION "\n");
    return VQ_OK;
}

/* The level asked for must work here: a substitute would make a comparison lie. */
static vq_status choose_level(app *a, vq_err *e)
{
    q_kern k;
    const bool none = a->cpu && !*a->cpu; /* a script's empty variable: no level of that name */
    if (!a->cpu) a->cpu = getenv("VQ_CPU");
    if (a->cpu && ((!*a->cpu && !none) || !strcmp(a->cpu, "auto"))) a->cpu = NULL;
    a->cpu_asked = a->cpu;
    if (!none && q_kern_make(&k, a->cpu)) {
        a->cpu = a->level = k.level; /* by name from here on: what was timed is not timed again */
        a->smmla = k.smmla;
        return VQ_OK;
    }
    const char *names[8];
    char list[100] = "";
    const int n = q_cpu_levels(names);
    for (int i = 0; i < n; i++) {
        const size_t len = strlen(list);
        snprintf(list + len, sizeof list - len, "%s%s", i ? ", " : "", names[i]);
    }
    return vq_fail(e, VQ_EUSAGE, "this CPU or build has no level '%s'; it has: %s", a->cpu, list);
}

static vq_status run_verb(app *a, const app_verb *v, int argc, char **argv, vq_err *e)
{
    union { uint64_t align; char bytes[APP_OPTS_MAX]; } opts = { 0 };
    int n;
    if (v->size) memcpy(opts.bytes, v->defaults, v->size);
    const args_spec spec = { v->name, v->opt, opts.bytes, common, a };
    vq_status st = args_parse(&spec, argc, argv, &n, e);
    if (st) return st;
    if (a->help) return print_help(a, v, e);
    if (a->version) return print_version(a);
    if (n < v->min_args)
        return vq_fail(e, VQ_EUSAGE, "too few arguments: vaquita %s %s", v->name, v->args);
    if (n > 0 && !*argv[0])
        return vq_fail(e, VQ_EUSAGE, "an empty name: vaquita %s %s", v->name, v->args);
    if (v->max_args >= 0 && n > v->max_args) {
        return vq_fail(e, VQ_EUSAGE, "one argument too many: '%s'", argv[v->max_args]);
    }
    st = choose_level(a, e);
    if (st) return st;
    const char *wrong = q_selftest();
    if (wrong && v != &app_verb_info) {
        return vq_fail(e, VQ_EFAIL, "this build computes wrongly: %s; compile with "
                       "-ffp-contract=off and without -ffast-math", wrong);
    }
    return v->run(a, opts.bytes, argv, n, e);
}

static vq_status dispatch(app *a, int argc, char **argv, const app_verb **v, vq_err *e)
{
    if (argc < 2) return vq_fail(e, VQ_EUSAGE, "which verb?");
    const char *word = argv[1];
    if (!strcmp(word, "--version")) return print_version(a);
    if (!strcmp(word, "help") || !strcmp(word, "--help") || !strcmp(word, "-h")) {
        if (argc > 2 && strcmp(argv[2], "help") != 0 && !(*v = find_verb(argv[2])))
            return unknown_verb(argv[2], e);
        return print_help(a, *v, e);
    }
    *v = find_verb(word);
    return *v ? run_verb(a, *v, argc - 2, argv + 2, e) : unknown_verb(word, e);
}

int main(int argc, char **argv)
{
    term_init();
    app a = { .tty_out = vq_isatty(1), .tty_err = vq_isatty(2) };
    const app_verb *v = NULL;
    vq_err e = { 0 };
    vq_status st = dispatch(&a, argc, argv, &v, &e);
    app_flush(&a);
    if (!st && a.out_errno && a.out_errno != EPIPE) {
        st = vq_fail_errno(&e, a.out_errno, "standard output");
    }
    if (st) {
        fprintf(stderr, "vaquita%s%s: %s", v ? " " : "", v ? v->name : "", e.msg);
        if (st == VQ_EUSAGE)
            fprintf(stderr, " (see: vaquita help%s%s)", v ? " " : "", v ? v->name : "");
        fputc('\n', stderr);
    }
    return vq_status_exit(st);
}
