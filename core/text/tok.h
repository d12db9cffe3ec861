/* tok.h - byte-level BPE tokenizers: ids of a text, bytes of an id, text of a stream of ids.
 *
 * A tokenizer is a view of the container's tokenizer section (FORMAT.md), used in place: opening
 * checks every offset once, builds nothing and copies nothing.  tok_build.h makes the section. */
#ifndef CORE_TEXT_TOK_H
#define CORE_TEXT_TOK_H

#include "core/base/err.h"
#include "core/base/str.h"

typedef struct vq_tok vq_tok;

/* sec: n bytes, 8-aligned, alive as long as *out.  VQ_EFORMAT with the offset and reason. */
vq_status vq_tok_open(vq_tok **out, const void *sec, size_t n, const char *name, vq_err *e);
void vq_tok_close(vq_tok *t);

int32_t vq_tok_count(const vq_tok *t);          /* ids 0 .. count-1 exist */
int32_t vq_tok_bos(const vq_tok *t);            /* -1: none */
int32_t vq_tok_eos(const vq_tok *t);
/* Bytes of an id (added tokens: their text).  absent (p NULL) for ids out of range or unused. */
vq_str vq_tok_bytes(const vq_tok *t, int32_t id);
bool vq_tok_is_added(const vq_tok *t, int32_t id);
/* Id of an added token by its exact text, -1 when there is none. */
int32_t vq_tok_added(const vq_tok *t, const char *s, size_t n);

/* Appends the ids of text.  special = false: marks like <think> in the text stay plain text (user
 * text can never produce an added token); true: added tokens are found, leftmost then longest.
 * No BOS is added.  Invalid UTF-8 is replaced by U+FFFD as a decoder would, so any bytes do.  Time
 * is n log n, whatever the text.  VQ_ENOMEM; VQ_ENOFIT from 1 GiB on.  On failure *out is as
 * before. */
vq_status vq_tok_encode(const vq_tok *t, const char *s, size_t n, bool special, vq_ids *out,
                        vq_err *e);

/* Detokenising stream: holds back bytes that may still become a code point.  {0} is a fresh one. */
typedef struct vq_detok {
    char held[4];
    int n_held;
} vq_detok;
/* Appends what is now certain as valid UTF-8: invalid bytes become U+FFFD, one per maximal subpart.
 */
void vq_detok_put(const vq_tok *t, vq_detok *d, int32_t id, vq_buf *out);
void vq_detok_end(vq_detok *d, vq_buf *out);    /* flushes the rest as U+FFFD */

#endif
