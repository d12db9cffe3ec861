/* tok_build.h - compiles a tokenizer.json into the container's tokenizer section. */
#ifndef CORE_TEXT_TOK_BUILD_H
#define CORE_TEXT_TOK_BUILD_H

#include "core/base/json.h"

typedef struct vq_tok_built {
    vq_buf section;     /* bytes for VAQ_SEC_TOKENIZER */
    int32_t n_ids;      /* ids in use: highest id + 1 */
    int32_t bos, eos;   /* from the tokenizer config; -1 none */
    char splitter[24];  /* "deepseek" "qwen" "llama3" "smollm": for info */
} vq_tok_built;

/* tj: tokenizer.json.  cfg: tokenizer_config.json, may be NULL (bos/eos then -1).  VQ_EFORMAT when
 * it is not a byte-level BPE of a family we know: the message names the part (model type,
 * normalizer, pre-tokenizer) and proposes --no-tokenizer. */
vq_status vq_tok_build(vq_tok_built *out, const vq_json *tj, const vq_json *cfg, const char *name,
                       vq_err *e);
void vq_tok_built_clear(vq_tok_built *b);

#endif
