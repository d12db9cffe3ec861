/* args.h - options of a verb: one table says what is accepted, parses it, and prints the help.
 *
 * A table row names the option, how its value is read and where in the verb's option struct it
 * goes.  Values are checked completely here (a number is all of the argument, finite, in range), so
 * a verb never sees a value it would have to refuse.  Options may stand before or behind arguments,
 * as `--opt value` or `--opt=value`; `--` ends them; the last of several wins. */
#ifndef CORE_APP_ARGS_H
#define CORE_APP_ARGS_H

#include "core/base/err.h"
#include "core/base/str.h"

#include <stdbool.h>
#include <stddef.h>

typedef enum args_kind {
    ARGS_END,       /* last row of a table */
    ARGS_FLAG,      /* bool: no value */
    ARGS_TEXT,      /* const char *: any text */
    ARGS_INT,       /* int64_t in [min, max] */
    ARGS_U64,       /* args_u64: any, and whether it was given */
    ARGS_REAL,      /* double in [min, max] */
    ARGS_SIZE,      /* uint64_t in [min, max], with K M G T */
    ARGS_CHOICE     /* int: index into the words of `choices` */
} args_kind;

typedef struct args_u64 {
    uint64_t v;
    bool set;
} args_u64;

typedef struct args_opt {
    args_kind kind;
    const char *name;       /* "--temp" or "-n" */
    const char *value;      /* "N": how help shows the value; NULL for flags */
    size_t at;              /* offset of the field in the option struct */
    double min, max;        /* of ARGS_INT, ARGS_REAL, ARGS_SIZE */
    const char *choices;    /* "show|hide|only" */
    const char *what;       /* one line of help */
} args_opt;

typedef struct args_spec {
    const char *verb;           /* for messages */
    const args_opt *opt;        /* the verb's own; may be NULL */
    void *to;                   /* its option struct, holding the defaults */
    const args_opt *common;     /* options of every verb */
    void *common_to;
} args_spec;

/* Parses argv[0..argc): options into the structs, the rest moved to the front of argv in order,
 * *n_left of them.  VQ_EUSAGE with one line that names the option and the nearest known one. */
vq_status args_parse(const args_spec *s, int argc, char **argv, int *n_left, vq_err *e);

/* Index of `word` among "a|b|c", -1 when it is none of them. */
int args_choice(const char *choices, const char *word);

/* The entry of words (NULL-terminated) most like `word`; NULL when none is near. */
const char *args_nearest(const char *word, const char *const *words);

/* Appends the help lines of a table, aligned. */
void args_help(vq_buf *out, const args_opt *opt);

#endif
