/* conv.h - conversions in a scratch folder: src/ is the checkpoint, out/m.vaq the container.
 * Wants _GNU_SOURCE. */
#ifndef TESTS_CONV_H
#define TESTS_CONV_H

#include "convert/convert.h"
#include "core/file/file.h"
#include "tests/ckpt.h"
#include "tests/test.h"

#include <sys/stat.h>
#include <unistd.h>

static char scratch[200];       /* holds src/ and out/ */
static char src[240], out_dir[240], out[256];

static inline vq_status convert(const cv_opts *extra, cv_report *r, vq_err *e)
{
    cv_opts o = *extra;
    if (!o.src) o.src = src;
    if (!o.out) o.out = out;
    o.force = true;
    *e = (vq_err){ 0 };
    return cv_convert(&o, r, e);
}

static inline size_t files_in(const char *dir)
{
    char **names;
    size_t n;
    if (vq_dir_list(dir, &names, &n, NULL)) return 999;
    for (size_t i = 0; i < n; i++) vq_free(names[i]);
    vq_free(names);
    return n;
}

/* SHA-256 of config, rope table and body of a container. */
static inline void hash_container(char hex[65], const char *path)
{
    vq_file *f;
    vq_err e = { 0 };
    vq_sha256 s;
    uint8_t h[32];
    hex[0] = 0;
    T_OK(!vq_file_open(&f, path, NULL, &e), "%s", e.msg);
    if (!f) return;
    vq_sha256_init(&s, NULL);
    vq_sha256_add(&s, f->config, sizeof *f->config);
    vq_sha256_add(&s, f->rope, f->config->rope_dim / 2 * sizeof(double));
    vq_sha256_add(&s, f->map.p + f->header->body_off, (size_t)f->header->body_size);
    vq_sha256_end(&s, h);
    vq_hex32(hex, h);
    vq_file_close(f);
}

/* The body's hash of a checkpoint, "" and a failure when it does not convert. */
static inline void hash_of(char hex[65], const ck *k, const char *path, int type)
{
    cv_report r;
    vq_err e;
    if (k) {
        ck_empty(src);
        T_OK(!ck_write(k, src), "write");
    }
    hex[0] = 0;
    const vq_status st = convert(&(cv_opts){ .src = path, .type = type }, &r, &e);
    T_OK(!st, "%s", e.msg);
    cv_report_clear(&r);
    if (!st) hash_container(hex, out);
}

/* Writes k (NULL: leaves the folder as it is), converts, expects a failure that says so and leaves
 * so many files. */
static inline void stopped_as(const ck *k, const cv_opts *o, vq_status want, const char *says,
                              size_t left)
{
    cv_report r;
    vq_err e;
    if (k) {
        ck_empty(src);
        T_OK(!ck_write(k, src), "write");
    }
    ck_empty(out_dir);
    const vq_status st = convert(o, &r, &e);
    T_OK(st == want && strstr(e.msg, says), "wanted %d \"%s\": %d %s", want, says, st, e.msg);
    T_OK(files_in(out_dir) == left, "%s: left %zu files behind", says, files_in(out_dir));
    T_OK(!r.tensor && !r.n_tensor, "no report");
    cv_report_clear(&r);
}

static inline void refused_as(const ck *k, const cv_opts *o, vq_status want, const char *says)
{
    stopped_as(k, o, want, says, 0);
}

static inline void refused(const ck *k, vq_status want, const char *says)
{
    refused_as(k, &(cv_opts){ .type = Q_N4, .threads = 2 }, want, says);
}

/* A model with a tokenizer as the checkpoint, of a context of 64, and a text for its card. */
static inline void put_model(char card[300])
{
    static const char *const files[] = { "config.json", "model.safetensors", "tokenizer.json",
                                         "tokenizer_config.json" };
    const char *text = "Tom has three apples and Ann has five. They put them in one basket and eat "
                       "two on the way home. How many apples are left? There were eight, so six.";
    ck_empty(src);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[300], *ctx;
        vq_buf b = { 0 };
        snprintf(path, sizeof path, "tests/data/models/tiny-r1-qwen/%s", files[i]);
        T_OK(!vq_file_read(path, 1 << 30, &b, NULL), "%s", path);
        vq_buf_char(&b, 0);
        if (i == 0 && (ctx = strstr(b.p, ": 4096"))) memcpy(ctx, ":   64", 6);
        T_OK(!ck_put(src, files[i], b.p, b.n - 1), "%s", files[i]);
        vq_buf_clear(&b);
    }
    snprintf(card, 300, "%s/card.txt", scratch);
    T_OK(!ck_put_text(scratch, "card.txt", text), "%s", card);
}

static inline void conv_begin(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(scratch, sizeof scratch, "%s/vq_convert_XXXXXX", tmp && *tmp ? tmp : "/tmp");
    T_OK(mkdtemp(scratch) != NULL, "scratch folder");
    snprintf(src, sizeof src, "%s/src", scratch);
    snprintf(out_dir, sizeof out_dir, "%s/out", scratch);
    snprintf(out, sizeof out, "%s/m.vaq", out_dir);
    T_OK(!mkdir(src, 0700) && !mkdir(out_dir, 0700), "folders");
}

static inline void conv_end(void)
{
    ck_empty(src);
    ck_empty(out_dir);
    rmdir(src);
    rmdir(out_dir);
    rmdir(scratch);
}

#endif
