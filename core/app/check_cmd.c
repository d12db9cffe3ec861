/* check_cmd.c - `vaquita check`: every kernel of this CPU against the reference, bit for bit. */
#include "core/app/app.h"
#include "core/base/os.h"
#include "quant/check/check.h"

#include <stdio.h>
#include <string.h>

typedef struct check_opts {
    args_u64 seed;
    bool bench;
} check_opts;

static const args_opt options[] = {
    { ARGS_U64, "--seed", "N", offsetof(check_opts, seed), 0, 0, NULL,
      "of the random cases (random, printed)" },
    { ARGS_FLAG, "--bench", NULL, offsetof(check_opts, bench), 0, 0, NULL,
      "also time every kernel" },
    { .kind = ARGS_END },
};

typedef struct talk {
    app *a;
    vq_jw w;                /* of --json: inside `rates` */
} talk;

/* The figures of a line "op level ...  3.1 GB/s (66 % of read)  12.0 GMAC/s ..." as elements. */
static void add_rates(vq_jw *w, const char *line)
{
    char op[40], level[20], unit[8];
    double rate;
    if (sscanf(line, "%39s %19s", op, level) != 2) return;
    while ((line = strstr(line, "  ")) != NULL) {
        line += strspn(line, " ");
        if (sscanf(line, "%lf %7[GMAC/Bs]", &rate, unit) != 2) continue;
        vq_jw_open(w, NULL, '{');
        vq_jw_cstr(w, "op", op);
        vq_jw_cstr(w, "cpu", level);
        vq_jw_f64(w, "rate", rate);
        vq_jw_cstr(w, "unit", unit);
        vq_jw_close(w, '}');
    }
}

static void say(void *ctx, const char *line)
{
    talk *t = ctx;
    if (t->a->json) add_rates(&t->w, line);
    if (t->a->json || t->a->quiet) return;
    app_puts(t->a, line);
    app_puts(t->a, "\n");
    app_flush(t->a);
}

static vq_status check(app *a, const void *opts, char **arg, int n_arg, vq_err *e)
{
    const check_opts *o = opts;
    const uint64_t seed = o->seed.set ? o->seed.v : vq_random64() >> 11;
    vq_buf b = { 0 };
    talk t = { a, { .b = &b } };
    if (a->json) vq_jw_open(&t.w, NULL, '{');
    if (a->json && o->bench) vq_jw_open(&t.w, "rates", '[');
    const q_check_opts c = {
        .op = n_arg ? arg[0] : NULL,
        .level = a->cpu_asked,
        .seed = seed,
        .bench = o->bench,
        .say = say,
        .ctx = &t,
    };
    int cases = 0;
    const int failed = q_check(&c, &cases);
    vq_status st = VQ_OK;
    if (failed == -2) st = vq_fail(e, VQ_ENOMEM, "out of memory for the cases");
    else if (failed < 0)
        st = vq_fail(e, VQ_EUSAGE, "no operation is called '%s'", n_arg ? arg[0] : "");
    else if (a->json) {
        if (o->bench) vq_jw_close(&t.w, ']');
        vq_jw_bool(&t.w, "ok", failed == 0);
        vq_jw_i64(&t.w, "cases", cases);
        vq_jw_i64(&t.w, "failed", failed);
        vq_jw_u64(&t.w, "seed", seed);
        vq_jw_cstr(&t.w, "cpu", a->level);
        vq_jw_close(&t.w, '}');
        st = app_put_json(a, &b, e);
    } else if (!cases) {
        app_puts(a, "nothing compared: there is only the reference\n");
    } else {
        char line[100];
        snprintf(line, sizeof line, "%d cases, %d failed, seed %llu\n", cases, failed,
                 (unsigned long long)seed);
        app_puts(a, line);
    }
    vq_buf_clear(&b);
    if (st) return st;
    if (failed) return vq_fail(e, VQ_EFAIL, "%d kernel cases differ from the reference", failed);
    return VQ_OK;
}

static const check_opts defaults = { 0 };

const app_verb app_verb_check = {
    "check", "[OP]", "every kernel of this CPU against the reference, bit for bit",
    "OP: part of a name, such as gemm_n4.  --cpu LEVEL: only that level.\n"
    "Example:\n"
    "  vaquita check gemm --bench\n",
    options, &defaults, sizeof defaults, 0, 1, check,
};
