/* tok_recognise.h - recognises the families of tokenizer.json that we reproduce. */
#ifndef CORE_TEXT_TOK_RECOGNISE_H
#define CORE_TEXT_TOK_RECOGNISE_H

#include "core/text/tok_build.h"

/* VQ_EFORMAT naming the first foreign part and proposing --no-tokenizer. */
vq_status vq_tok_recognise(vq_tok_family *f, const vq_json *j, const char *name, vq_err *e);
const char *vq_tok_splitter_name(vaq_splitter s);

#endif
