/* split.h - cuts text into the pieces that byte pair encoding works on. */
#ifndef CORE_TEXT_SPLIT_H
#define CORE_TEXT_SPLIT_H

#include "core/base/str.h"
#include "core/text/tok_format.h"

/* A walk over one text.  Every byte is in exactly one piece, in order. */
typedef struct vq_split {
    vaq_splitter kind;
    const char *p, *end;
    const char *cut;    /* DEEPSEEK: end of what the first two expressions left together */
    const char *held;   /* DEEPSEEK: a match already found at p ends here; NULL: none */
} vq_split;

/* s must be valid UTF-8 and stay alive. */
void vq_split_init(vq_split *w, vaq_splitter kind, const char *s, size_t n);
bool vq_split_next(vq_split *w, vq_str *piece);

#endif
