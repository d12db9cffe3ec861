/* shapes.h - the published models by name, as configs: for plans and benchmarks without a file. */
#ifndef CORE_FILE_SHAPES_H
#define CORE_FILE_SHAPES_H

#include "core/file/vaq.h"

#include <stdbool.h>

#define VQ_SHAPE_NAMES "qwen-1.5b qwen-7b qwen-14b qwen-32b llama-8b llama-70b qwen3-8b r1"

/* Fills the config and its rope table (room for VAQ_MAX_HEAD_DIM / 2 entries; rope scaling is left
 * out, it changes neither size nor speed).  name: one of VQ_SHAPE_NAMES or what the model is called
 * on Hugging Face, capitals or not (DeepSeek-R1-Distill-Qwen-7B).  false: neither. */
bool vq_shape_config(vaq_config *c, double *rope, const char *name);

#endif
