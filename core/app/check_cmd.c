/* check_cmd.c - `vaquita check`: every kernel of this CPU against the reference, bit for bit. */
#include "core/app/app.h"
#include "core/base/os.h"
#include "quant/check/check.h"

#include <stdio.h>

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

static void say(void *ctx, const char *line)
{
    app *a = ctx;
    if (a->json || a->quiet) return;
    app_puts(a, line);
    app_puts(a, "\n");
    app_flush(a);
}

static vq_status check(app *a, const void *opts, char **arg, int n_arg, vq_err *e)
{
    const check_opts *o = opts;
    const uint64_t seed = o->seed.set ? o->seed.v : vq_random64() >> 11;
    const q_check_opts c = {
        .op = n_arg ? arg[0] : NULL,
        .level = a->cpu_asked,
        .seed = seed,
        .bench = o->bench,
        .say = say,
        .ctx = a,
    };
    int cases = 0;
    const int failed = q_check(&c, &cases);
    if (failed == -2) return vq_fail(e, VQ_ENOMEM, "out of memory for the cases");
    if (failed < 0)
        return vq_fail(e, VQ_EUSAGE, "no operation is called '%s'", n_arg ? arg[0] : "");
    if (a->json) {
        vq_buf b = { 0 };
        vq_jw w = { .b = &b };
        vq_jw_open(&w, NULL, '{');
        vq_jw_bool(&w, "ok", failed == 0);
        vq_jw_i64(&w, "cases", cases);
        vq_jw_i64(&w, "failed", failed);
        vq_jw_u64(&w, "seed", seed);
        vq_jw_cstr(&w, "cpu", a->level);
        vq_jw_close(&w, '}');
        const vq_status st = app_put_json(a, &b, e);
        vq_buf_clear(&b);
        if (st) return st;
    } else {
        char line[100];
        snprintf(line, sizeof line, "%d cases, %d failed, seed %llu\n", cases, failed,
                 (unsigned long long)seed);
        app_puts(a, line);
    }
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
