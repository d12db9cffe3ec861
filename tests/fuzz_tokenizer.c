/* fuzz_tokenizer.c - any bytes as tokenizer.json: compiled or refused; what compiles opens. */
#include "core/text/tok.h"
#include "core/text/tok_build.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    vq_json j;
    vq_err e;
    vq_tok_built b;
    if (vq_json_parse(&j, (const char *)p, n, "fuzz", &e)) return 0;
    if (!vq_tok_build(&b, &j, NULL, "fuzz", &e)) {
        vq_tok *t;
        vq_ids ids = { 0 };
        if (vq_tok_open(&t, b.section.p, b.section.n, "fuzz", &e)) abort(); /* our own bytes */
        vq_tok_encode(t, "Hello 123 \xe4\xbd\xa0\xe5\xa5\xbd\n\n  x", 20, true, &ids, &e);
        vq_ids_clear(&ids);
        vq_tok_close(t);
        vq_tok_built_clear(&b);
    }
    vq_json_clear(&j);
    return 0;
}
