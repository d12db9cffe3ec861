/* tok_build.h - compiles a tokenizer into the container's tokenizer section.
 *
 * Readers of files (tok_json.c here, GGUF in convert/) list words and merges as they find them;
 * vq_tok_compile checks the whole and makes the section. */
#ifndef CORE_TEXT_TOK_BUILD_H
#define CORE_TEXT_TOK_BUILD_H

#include "core/base/json.h"
#include "core/text/tok_format.h"

typedef struct vq_tok_family {
    vaq_splitter splitter;
    bool nfc, ignore_merges;
} vq_tok_family;

typedef struct vq_tok_word {
    vq_str s;           /* plain: spelled in the byte alphabet; added: its text; borrowed */
    int32_t id;
    uint8_t kind;       /* VAQ_TOK_PLAIN, _ADDED, _ADDED_NORM */
} vq_tok_word;

typedef struct vq_tok_merge { vq_str a, b; } vq_tok_merge; /* both in the byte alphabet; borrowed */
bool vq_tok_halves(vq_str s, vq_tok_merge *m);              /* "a b", as files spell it */

typedef struct vq_tok_source {
    vq_tok_family family;
    vq_tok_word *word;  /* (n_word), owned, in any order */
    size_t n_word;
    vq_tok_merge *merge; /* (n_merge), owned, the first merges first */
    size_t n_merge;
    int32_t bos, eos;   /* ids of words, or -1 */
} vq_tok_source;
void vq_tok_source_clear(vq_tok_source *s);

typedef struct vq_tok_built {
    vq_buf section;     /* bytes for VAQ_SEC_TOKENIZER */
    int32_t n_ids;      /* ids in use: highest id + 1 */
    int32_t bos, eos;   /* of the source */
    char splitter[24];  /* "deepseek" "qwen" "llama3" "smollm": for info */
} vq_tok_built;

/* VQ_EFORMAT when words or merges contradict each other; the message names the word and proposes
 * --no-tokenizer. */
vq_status vq_tok_compile(vq_tok_built *out, const vq_tok_source *src, const char *name, vq_err *e);

/* tj: tokenizer.json.  cfg: tokenizer_config.json, may be NULL (bos/eos then -1).  VQ_EFORMAT also
 * when it is not a byte-level BPE of a family we know: the message names the part (model type,
 * normalizer, pre-tokenizer). */
vq_status vq_tok_build(vq_tok_built *out, const vq_json *tj, const vq_json *cfg, const char *name,
                       vq_err *e);
void vq_tok_built_clear(vq_tok_built *b);

#endif
