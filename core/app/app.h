/* app.h - what the verbs share: the common options, stdout and stderr, progress.
 *
 * A verb is a row of the table in main.c: its options, its arguments, one function.  It returns a
 * status and leaves the reason in *e; only main.c prints that and exits.  Results go to stdout
 * through app_put, everything else to stderr through app_note. */
#ifndef CORE_APP_APP_H
#define CORE_APP_APP_H

#include "core/app/args.h"
#include "core/base/err.h"
#include "core/base/json.h"
#include "core/base/str.h"

typedef struct app {
    /* options of every verb */
    int64_t threads;        /* 0: the performance cores */
    const char *cpu;        /* the level in use, by name; main has proved that it works here */
    const char *cpu_asked;  /* the level asked for, NULL: left open */
    float smmla;            /* q_kern's: how i8mm compared with dotprod, 0: not timed */
    bool json, quiet, help, version;
    /* surroundings */
    const char *level;      /* the level in use: for JSON */
    bool tty_out, tty_err;  /* stdout, stderr are terminals */
    /* stdout: the first error; EPIPE (the reader has gone) ends the program quietly */
    int out_errno;
} app;

typedef struct app_verb {
    const char *name;
    const char *args;       /* "MODEL [-p TEXT]": for the usage line */
    const char *what;       /* one line for the list of verbs */
    const char *more; /* further help: what to know, an example; lines of at most 80 columns */
    const args_opt *opt;
    const void *defaults;   /* the option struct before parsing */
    size_t size;            /* its bytes, <= APP_OPTS_MAX */
    int min_args, max_args; /* max < 0: any number */
    vq_status (*run)(app *a, const void *opts, char **arg, int n_arg, vq_err *e);
} app_verb;
enum { APP_OPTS_MAX = 256 };

extern const app_verb app_verb_convert, app_verb_info, app_verb_verify, app_verb_tokenize,
    app_verb_detokenize, app_verb_logits, app_verb_run, app_verb_chat, app_verb_check,
    app_verb_bench, app_verb_perplexity, app_verb_kl, app_verb_plan, app_verb_export;

/* ---- stdout ----
 * Both return false once stdout has failed; the verb then stops and returns VQ_OK, and main tells
 * what happened (nothing at all when the reader just went away). */
bool app_put(app *a, const void *p, size_t n);
bool app_puts(app *a, const char *s);
bool app_flush(app *a);
/* Prints the finished JSON object and a newline. */
vq_status app_put_json(app *a, const vq_buf *b, vq_err *e);

/* ---- stderr: one line, unless -q ---- */
void app_note(const app *a, const char *fmt, ...) VQ_PRINTF(2, 3);

/* ---- progress on a terminal: one line that is drawn over itself, ten times a second ---- */
typedef struct app_progress {
    const app *a;
    const char *what;       /* "convert" */
    const char *unit;       /* NULL: bytes; else "tokens" */
    double start, last;     /* seconds, vq_now */
    uint64_t from, at, total; /* units: done at the start, done now, in all */
    double delay;           /* nothing is drawn before so many seconds have passed */
    bool drawn;
} app_progress;
void app_progress_begin(app_progress *p, const app *a, const char *what, const char *unit,
                        double delay);
/* A progress callback for all layers, ctx being the app_progress; true = the user wants to stop. */
bool app_progress_step(void *ctx, uint64_t done, uint64_t total);
/* A callback: another kind of work begins.  ctx: as of app_progress_step. */
void app_progress_stage(void *ctx, const char *what, const char *unit);
void app_progress_end(app_progress *p);   /* wipes the line */
/* A callback for notices: one stands above the progress line, which is drawn anew below.  ctx: as
 * of app_progress_step. */
void app_progress_note(void *ctx, const char *line);

/* ---- input ---- */
/* "-" or a file, whole; refuses more than 1 GiB. */
vq_status app_read(const char *path, vq_buf *out, vq_err *e);
/* A model must be one file: says what to do with a checkpoint folder. */
vq_status app_model_path(const char *path, vq_err *e);
/* "1,2,3" for option or argument `what`. */
vq_status app_parse_ids(const char *s, const char *what, vq_ids *out, vq_err *e);

/* ---- small things of other layers, so that verbs on models need core/vaquita.h only ---- */
typedef struct app_sha256 app_sha256;
app_sha256 *app_sha256_new(void);                       /* NULL: out of memory */
void app_sha256_add(app_sha256 *s, const void *p, size_t n);
void app_sha256_end(app_sha256 *s, char hex[65]);       /* frees s; hex may be NULL */

typedef struct app_messages {
    vq_message *m;          /* (n) */
    size_t n;
    bool add_generation;
    void *own_;
} app_messages;
/* A conversation from JSON; the strings live in *out. */
vq_status app_messages_parse(app_messages *out, const char *p, size_t n, const char *what,
                             vq_err *e);
void app_messages_clear(app_messages *m);

#endif
