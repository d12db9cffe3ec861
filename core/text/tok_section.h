/* tok_section.h - what tok.c and tok_build.c share: the places of a section's parts, and the merge
 * engine of an opened one.  Not for other folders. */
#ifndef CORE_TEXT_TOK_SECTION_H
#define CORE_TEXT_TOK_SECTION_H

#include "core/text/bpe.h"
#include "core/text/tok.h"

enum { /* in the order of tok_format.h */
    VQ_TOK_BYTE_ID,
    VQ_TOK_START,
    VQ_TOK_SLOT,
    VQ_TOK_PAIR,
    VQ_TOK_ADDED_IDS,
    VQ_TOK_KIND,
    VQ_TOK_TEXT,
    VQ_TOK_PARTS
};
typedef struct vq_tok_parts {
    uint64_t off[VQ_TOK_PARTS]; /* from the section's start, multiples of 8 */
    uint64_t total;             /* bytes of the section */
} vq_tok_parts;

/* From the counts in *h, which the caller has checked against the limits; false: beyond 4 GiB. */
bool vq_tok_layout(const vaq_tok_header *h, vq_tok_parts *out);

const vq_bpe *vq_tok_bpe(const vq_tok *t);

#endif
