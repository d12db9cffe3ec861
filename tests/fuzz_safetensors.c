/* fuzz_safetensors.c - any bytes as a .safetensors file: refused, or every tensor can be read. */
#include "convert/safetensors.h"

#include "core/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static char path[64];

static void forget(void)
{
    unlink(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    if (!path[0]) {
        snprintf(path, sizeof path, "/tmp/vq_fuzz_%ld.safetensors", (long)getpid());
        atexit(forget);
    }
    FILE *f = fopen(path, "wb");
    if (!f) abort();
    if (fwrite(p, 1, n, f) != n) abort();
    fclose(f);
    cv_st s;
    vq_err e;
    if (cv_st_open(&s, path, NULL, &e)) return 0;
    for (size_t i = 0; i < s.n_tensor; i++) {
        const cv_tensor *t = &s.tensor[i];
        void *bytes = vq_malloc((size_t)t->size + 1);
        float *v = vq_malloc((size_t)t->n * sizeof *v + 1);
        /* Accepted means: the bytes are there, and as many as the shape says. */
        if (!bytes || cv_st_read(t, 0, bytes, (size_t)t->size, &e)) abort();
        if (t->dtype != CV_OTHER && v) cv_decode(v, t->dtype, bytes, (size_t)t->n);
        vq_free(bytes);
        vq_free(v);
    }
    cv_st_close(&s);
    return 0;
}
