/* fuzz_container.c - any bytes as a container: opened or refused; what opens can be followed. */
#include "core/base/mem.h"
#include "core/file/file.h"
#include "core/text/tok.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    vq_err e;
    vq_file *f;
    uint8_t *copy = vq_aligned(64, n ? n : 1);
    if (!copy) return 0;
    memcpy(copy, p, n);
    if (!vq_file_open_mem(&f, copy, n, "fuzz", NULL, &e)) {
        unsigned sum = 0;
        vq_meta m;
        char name[96];
        for (uint32_t i = 0; i < f->n_tensor; i++) {
            const uint8_t *t = vq_file_data(f, &f->tensor[i]);
            vq_tensor_name(name, &f->tensor[i]);
            if (f->tensor[i].size) sum += t[0] + t[f->tensor[i].size - 1];
        }
        for (size_t pos = 0; vq_file_meta_next(f, &pos, &m);) sum += (unsigned)m.key.n;
        vq_tok *tok;
        if (f->tokenizer && !vq_tok_open(&tok, f->tokenizer, f->tokenizer_size, "fuzz", &e)) {
            vq_ids ids = { 0 };
            vq_tok_encode(tok, "a b\xe4\xbd\xa0 12", 9, true, &ids, &e);
            for (size_t i = 0; i < ids.n; i++) sum += (unsigned)vq_tok_bytes(tok, ids.v[i]).n;
            vq_ids_clear(&ids);
            vq_tok_close(tok);
        }
        vq_file_close(f);
        if (sum == 0xffffffff) return 1;
    }
    vq_aligned_free(copy);
    return 0;
}
