/* t_args.c - the option parser: values are checked completely, refusals name the option. */
#include "core/app/args.h"
#include "tests/test.h"

#include <math.h>

typedef struct opts {
    bool flag;
    const char *text;
    int64_t n;
    args_u64 seed;
    double x;
    uint64_t size;
    int choice;
} opts;

typedef struct common {
    int64_t threads;
} common;

static const args_opt table[] = {
    { ARGS_FLAG, "--flag", NULL, offsetof(opts, flag), 0, 0, NULL, "a flag" },
    { ARGS_TEXT, "-p", "TEXT", offsetof(opts, text), 0, 0, NULL, "a text" },
    { ARGS_INT, "-n", "N", offsetof(opts, n), 1, 100, NULL, "a number" },
    { ARGS_U64, "--seed", "N", offsetof(opts, seed), 0, 0, NULL, "a seed" },
    { ARGS_REAL, "--temp", "X", offsetof(opts, x), 0, 1e30, NULL, "a real" },
    { ARGS_SIZE, "--ctx", "N", offsetof(opts, size), 1, 4294967295.0, NULL, "a size" },
    { ARGS_CHOICE, "--think", "MODE", offsetof(opts, choice), 0, 0, "show|hide|only", "a choice" },
    { .kind = ARGS_END },
};
static const args_opt shared[] = {
    { ARGS_INT, "--threads", "N", offsetof(common, threads), 1, 1024, NULL, "threads" },
    { .kind = ARGS_END },
};

static opts o;
static common c;
static vq_err err;

/* Parses the words (NULL-terminated) into o and c; arg receives what is left. */
static vq_status parse(const char *const *words, char **arg, int *n_arg)
{
    const args_spec spec = { "test", table, &o, shared, &c };
    int n = 0;
    for (; words[n]; n++) arg[n] = (char *)(uintptr_t)words[n];
    o = (opts){ 0 };
    c = (common){ 0 };
    err = (vq_err){ 0 };
    return args_parse(&spec, n, arg, n_arg, &err);
}

static void good(void)
{
    char *arg[16];
    int n;
    static const char *const a[] = { "model", "-p", "-n", "--temp=0.5", "-n", "7", "--flag",
                                     "--seed", "18446744073709551615", "--", "--flag2", "-", NULL };
    T_OK(!parse(a, arg, &n), "%s", err.msg);
    T_OK(n == 3 && !strcmp(arg[0], "model") && !strcmp(arg[1], "--flag2") && !strcmp(arg[2], "-"),
         "%d arguments left", n);
    T_OK(o.text && !strcmp(o.text, "-n"), "a text may look like an option");
    T_OK(o.x == 0.5 && o.n == 7 && o.flag, "values");
    T_OK(o.seed.set && o.seed.v == UINT64_MAX, "seed");

    static const char *const b[] = { "--ctx", "32K", "-n", "1", "-n", "2", "--think=only",
                                     "--threads", "3", NULL };
    T_OK(!parse(b, arg, &n), "%s", err.msg);
    T_OK(o.size == 32768 && o.n == 2 && o.choice == 2 && c.threads == 3, "sizes, the last wins");

    static const char *const none[] = { NULL };
    T_OK(!parse(none, arg, &n) && n == 0 && !o.seed.set, "nothing");
}

static void bad(void)
{
    static const struct {
        const char *word[3];
        const char *says; /* part of the message */
    } cases[] = {
        { { "--tmp", "1" }, "'--temp'" },         { { "--thread", "1" }, "'--threads'" },
        { { "--zzzzzzz" }, "unknown option" },    { { "-x" }, "unknown option '-x'" },
        { { "-n5" }, "unknown option" },          { { "-n" }, "-n needs a value" },
        { { "--temp" }, "--temp needs a value" }, { { "--flag=1" }, "--flag takes no value" },
        { { "-n", "0" }, "from 1 to 100" },       { { "-n", "101" }, "from 1 to 100" },
        { { "-n", "-1" }, "not '-1'" },           { { "-n", "1.5" }, "-n takes" },
        { { "-n", "" }, "-n takes" },             { { "-n", "1 " }, "-n takes" },
        { { "-n", "99999999999999999999" }, "-n takes" },
        { { "--temp", "nan" }, "--temp takes" },  { { "--temp", "inf" }, "--temp takes" },
        { { "--temp", "-0.1" }, "--temp takes" }, { { "--temp", "1e999" }, "--temp takes" },
        { { "--temp", "0,5" }, "--temp takes" },  { { "--temp=" }, "--temp takes" },
        { { "--seed", "-1" }, "--seed takes" },
        { { "--seed", "18446744073709551616" }, "--seed" },
        { { "--ctx", "0" }, "--ctx takes" },      { { "--ctx", "5X" }, "--ctx takes" },
        { { "--ctx", "99999999999G" }, "--ctx" }, { { "--think", "loud" }, "show|hide|only" },
        { { "--think", "" }, "show|hide|only" },  { { "--threads", "1025" }, "from 1 to 1024" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *words[4] = { cases[i].word[0], cases[i].word[1], cases[i].word[2], NULL };
        char *arg[16];
        int n;
        T_OK(parse(words, arg, &n) == VQ_EUSAGE, "%s", words[0]);
        T_OK(strstr(err.msg, cases[i].says), "'%s' says: %s", words[0], err.msg);
    }
}

static void nearest(void)
{
    static const char *const verbs[] = { "convert", "run", "chat", "verify", "tokenize", NULL };
    static const struct {
        const char *typed, *meant;
    } cases[] = {
        { "covnert", "convert" }, { "conv", "convert" }, { "tokenise", "tokenize" },
        { "rum", "run" },         { "verfy", "verify" }, { "download", NULL },
        { "x", NULL },            { "", NULL },
        { "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", NULL },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *got = args_nearest(cases[i].typed, verbs), *want = cases[i].meant;
        T_OK(got == want || (got && want && !strcmp(got, want)), "%s -> %s", cases[i].typed,
             got ? got : "nothing");
    }
    T_OK(args_choice("8|bf16|f32", "bf16") == 1, "a choice");
    T_OK(args_choice("8|bf16|f32", "bf") == -1, "the beginning of a choice is none");
}

int main(void)
{
    good();
    bad();
    nearest();
    return t_done("t_args");
}
