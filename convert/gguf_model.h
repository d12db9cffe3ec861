/* gguf_model.h - a GGUF model in the terms of a Hugging Face checkpoint: config.json, tensor names,
 * tokenizer.  What follows (plan, pipeline, card) does not know the difference. */
#ifndef CONVERT_GGUF_MODEL_H
#define CONVERT_GGUF_MODEL_H

#include "convert/gguf.h"
#include "convert/hfconfig.h"
#include "core/text/tok_build.h"

/* "blk.3.attn_q.weight" for "model.layers.3.self_attn.q_proj.weight" (the "model." may be missing)
 * and back, without it; false: no such name. */
bool cv_gguf_name(vq_buf *out, vq_str checkpoint);
bool cv_checkpoint_name(vq_buf *out, vq_str gguf);

/* What `tokenizer.ggml.pre` calls a family; NULL: it has no name there. */
const char *cv_gguf_pre(const vq_tok_family *f);

enum { CV_GTOK_NORMAL = 1, CV_GTOK_UNKNOWN, CV_GTOK_CONTROL, CV_GTOK_USER_DEFINED,
       CV_GTOK_UNUSED }; /* tokenizer.ggml.token_type */

/* Gives tensors the names of checkpoints, where they have one, and notes which rows llama's files
 * keep as pairs. */
vq_status cv_gguf_rename(cv_st *s, const cv_gguf *g, vq_err *e);

/* The config.json such a model would have; what the file does not say is left out.  file: all
 * tensors. */
vq_status cv_gguf_config(vq_buf *json, const cv_gguf *g, const cv_st *file, size_t n_file,
                         vq_err *e);

/* The key behind a number of that config, without its architecture; NULL: of none. */
const char *cv_gguf_key(const char *name);
/* What was added to that because the file does not say it, for people; NULL: nothing. */
const char *cv_gguf_assumed(const cv_gguf *g);

/* Divides the rope table by the tensor rope_freqs.weight (Llama 3's scaling, written out). */
vq_status cv_gguf_rope(cv_config *c, const cv_tensor *freqs, vq_err *e);

/* VQ_EFORMAT also for vocabularies that are not byte-level BPE of a family we know. */
vq_status cv_gguf_tokenizer(vq_tok_built *out, const cv_gguf *g, const char *path, vq_err *e);

#endif
