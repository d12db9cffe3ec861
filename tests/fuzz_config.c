/* fuzz_config.c - any bytes as config.json and generation_config.json: refused, or a config whose
 * numbers are in range. */
#include "convert/hfconfig.h"
#include "core/file/check.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    vq_json j;
    vq_err e;
    cv_config c;
    if (vq_json_parse(&j, (const char *)p, n, "fuzz", &e)) return 0;
    for (int hf = 0; hf < 2; hf++) {
        if (cv_config_read(&c, &j, "fuzz", hf, &e)) continue;
        if (c.c.rope_dim > 2 * CV_ROPE_MAX || c.c.head_dim * c.c.n_head > 1 << 20) abort();
        cv_generation_read(&c.c, &j, "fuzz", &e);
        /* Numbers too small or large for f32 are left to this check, as in a conversion. */
        vq_check_config(&c.c, c.rope, c.c.rope_dim / 2 * sizeof(double), "fuzz", &e);
    }
    vq_json_clear(&j);
    return 0;
}
