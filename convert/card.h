/* card.h - what a checkpoint says about itself beside its weights. */
#ifndef CONVERT_CARD_H
#define CONVERT_CARD_H

#include "convert/checkpoint.h"

/* The chat template as text: chat_template.jinja, else tokenizer_config.json's.  May be empty.
 * cfg: tokenizer_config.json, not there or not. */
vq_status cv_chat_template(const cv_ckpt *c, const cv_json *cfg, vq_buf *out, vq_err *e);

/* Metadata records (file.h) as vaq.h lists them: name, licence, source and so on. */
void cv_card(vq_buf *meta, const cv_ckpt *c, const char *name, const char *recipe,
             uint32_t template_id);

#endif
