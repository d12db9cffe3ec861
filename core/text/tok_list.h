/* tok_list.h - what a tokenizer is made of, as files list it: the inverse of vq_tok_compile. */
#ifndef CORE_TEXT_TOK_LIST_H
#define CORE_TEXT_TOK_LIST_H

#include "core/text/tok_build.h"
#include "core/text/tok.h"

typedef struct vq_tok_list {
    vq_tok_family family;
    const uint8_t *kind;    /* (vq_tok_count) VAQ_TOK_*, as long as the section */
    vq_ids merge;           /* (2 n) left and right ids, the first merges first */
} vq_tok_list;

/* sec: the section that t was opened from.  VQ_ENOMEM. */
vq_status vq_tok_list_make(vq_tok_list *out, const vq_tok *t, const void *sec, vq_err *e);
void vq_tok_list_clear(vq_tok_list *l);

/* Appends an id's spelling: plain tokens in the byte alphabet, added ones their text. */
void vq_tok_spell(vq_buf *out, const vq_tok *t, const vq_tok_list *l, int32_t id);

#endif
