/* temp.h - a checkpoint folder as a container with a name of its own, for one test. */
#ifndef TESTS_TEMP_H
#define TESTS_TEMP_H

#include "convert/convert.h"
#include "core/base/os.h"

#include <stdio.h>
#include <stdlib.h>

static inline void temp_name(char path[256], const char *ext)
{
    const char *dir = getenv("TMPDIR");
    snprintf(path, 256, "%s/vq_test_%016llx%s", dir && *dir ? dir : "/tmp",
             (unsigned long long)vq_random64(), ext);
}

/* 0 and the name of a new container, to be removed with vq_unlink. */
static inline int temp_convert(char path[256], const char *dir, int type, bool yarn_hf,
                               bool no_tokenizer)
{
    vq_err e = { 0 };
    cv_report r = { 0 };
    temp_name(path, ".vaq");
    const cv_opts o = { .src = dir, .out = path, .type = type, .threads = 2, .yarn_hf = yarn_hf,
                        .no_tokenizer = no_tokenizer };
    const vq_status s = cv_convert(&o, &r, &e);
    cv_report_clear(&r);
    if (s) printf("%s: %s\n", dir, e.msg);
    return s != VQ_OK;
}

#endif
