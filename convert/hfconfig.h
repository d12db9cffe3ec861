/* hfconfig.h - config.json and generation_config.json as the container's config. */
#ifndef CONVERT_HFCONFIG_H
#define CONVERT_HFCONFIG_H

#include "core/base/json.h"
#include "core/file/vaq.h"

enum { CV_ROPE_MAX = 512 }; /* entries of a rope table: head_dim <= 1024 */

typedef struct cv_config {
    vaq_config c;           /* n_ids = n_vocab, no template; VAQ_F_TIED as the file asks */
    double rope[CV_ROPE_MAX];
    bool yarn;              /* rope_scaling is YaRN: --yarn-attn may matter */
} cv_config;

/* j: config.json; path: its name in messages.  yarn_hf ignores rope_scaling.attn_factor, as
 * transformers does.  VQ_EFORMAT names the key and its value. */
vq_status cv_config_read(cv_config *out, const vq_json *j, const char *path, bool yarn_hf,
                         vq_err *e);

/* Advice and ids of generation_config.json (which knows better than config.json). */
vq_status cv_generation_read(vaq_config *c, const vq_json *j, const char *path, vq_err *e);

#endif
