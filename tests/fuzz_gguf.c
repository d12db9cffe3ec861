/* fuzz_gguf.c - any bytes as a .gguf file: opened or refused; what opens can be described, and its
 * tensors and vocabulary can be read.
 *
 * The reader works on files (they are larger than memory), so the input goes through one. */
#include "convert/checkpoint.h"
#include "convert/convert.h"
#include "convert/gguf_model.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static char path[512];

static void remove_file(void) { remove(path); }

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    if (!path[0]) {
        const char *dir = getenv("TMPDIR");
        snprintf(path, sizeof path, "%s/vaquita-fuzz-%016llx.gguf", dir && *dir ? dir : "/tmp",
                 (unsigned long long)vq_random64());
        atexit(remove_file);
    }
    FILE *f = fopen(path, "wb");
    if (!f) return 0;
    fwrite(p, 1, n, f);
    fclose(f);

    cv_ckpt c;
    vq_err e;
    vq_tok_built tok;
    vq_buf json = { 0 };
    if (cv_ckpt_open(&c, path, &e)) return 0;
    for (size_t i = 0; i < c.n_tensor; i++) {
        const cv_tensor *t = &c.tensor[i];
        const size_t block = cv_dtype_block(t->dtype), size = cv_row_bytes(t->dtype, block);
        uint8_t b[CV_BLOCK_MAX];
        float x[CV_BLOCK_MAX];
        if (t->off > n || t->size > n - t->off) abort(); /* an open file has proved its offsets */
        if (t->dtype == CV_OTHER) continue;
        if (t->size < size || cv_st_read(t, t->size - size, b, size, &e)) abort();
        cv_decode(x, t->dtype, b, block);
    }
    if (!cv_gguf_tokenizer(&tok, &c.gguf, path, &e)) vq_tok_built_clear(&tok);
    cv_describe(path, &json, &e);
    vq_buf_clear(&json);
    cv_ckpt_close(&c);
    return 0;
}
