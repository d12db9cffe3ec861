/* quality.h - the quality card: how far a container is from its source, on a stated text.
 *
 * The first chunks of the text go through both, scored as by `vaquita kl` (core/engine/score.h), so
 * that verb prints the same figures.  What is known beforehand (which text, how much of it) and
 * what is measured at the end (the figures) are metadata records, "quality.*", the last ones of a
 * container and always of the same size. */
#ifndef CONVERT_QUALITY_H
#define CONVERT_QUALITY_H

#include "core/engine/score.h"
#include "core/file/file.h"

typedef struct cv_quality {
    vq_score_text text;
    char name[256];         /* of its file, without the path */
} cv_quality;

/* tokenizer: n bytes of a container's section.  ctx: of the model.  VQ_EUSAGE: too short. */
vq_status cv_quality_read(cv_quality *q, const char *path, const void *tokenizer, size_t n,
                          int32_t bos, uint32_t ctx, vq_err *e);
void cv_quality_clear(cv_quality *q);

/* The container at `path` against its source; nothing else may use that engine meanwhile.
 * progress counts tokens, true: stop. */
typedef struct cv_quality_run {
    vq_engine *source;      /* room for one more session of text.ctx */
    const char *path, *cpu;
    int threads;
    bool (*progress)(void *ctx, uint64_t done, uint64_t total);
    void *ctx;
} cv_quality_run;
vq_status cv_quality_measure(const cv_quality *q, const cv_quality_run *run, vq_score_sum *out,
                             vq_err *e);

/* The records of the text, and behind them those of the figures (NULL: not known yet). */
void cv_quality_add_text(vq_buf *meta, const cv_quality *q);
void cv_quality_add_figures(vq_buf *meta, const vq_score_sum *sum);
/* All of these records, as they stand at the end of such metadata; absent: no card. */
vq_str cv_quality_find(const vq_file *f);

#endif
