/* fuzz_safetensors.c - any bytes as a .safetensors file: opened or refused; what opens can be read.
 *
 * The reader works on files (they are larger than memory), so the input goes through one. */
#include "convert/safetensors.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static char path[512];

static void remove_file(void) { remove(path); }

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    if (!path[0]) {
        const char *dir = getenv("TMPDIR");
        snprintf(path, sizeof path, "%s/vaquita-fuzz-%016llx", dir && *dir ? dir : "/tmp",
                 (unsigned long long)vq_random64());
        atexit(remove_file);
    }
    FILE *f = fopen(path, "wb");
    if (!f) return 0;
    fwrite(p, 1, n, f);
    fclose(f);

    cv_st s;
    vq_err e;
    if (cv_st_open(&s, path, NULL, &e)) return 0;
    for (size_t i = 0; i < s.n_tensor; i++) {
        const cv_tensor *t = &s.tensor[i];
        uint8_t b[8];
        if (t->off > n || t->size > n - t->off) abort(); /* an open file has proved its offsets */
        const size_t k = t->size < sizeof b ? (size_t)t->size : sizeof b;
        float x[8];
        if (cv_st_read(t, t->size - k, b, k, &e)) abort();
        if (t->dtype != CV_OTHER) cv_decode(x, t->dtype, b, k / cv_row_bytes(t->dtype, 1));
    }
    cv_st_close(&s);
    return 0;
}
