/* fuzz_json.c - any bytes as JSON: parsed or refused, and every node can be walked. */
#include "core/base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    vq_json j;
    vq_err e;
    if (vq_json_parse(&j, (const char *)p, n, "fuzz", &e)) return 0;
    size_t bytes = 0;
    for (uint32_t i = 0; i < j.n; i++) {
        int64_t k;
        double x;
        bytes += vq_json_str(&j, i).n;
        vq_json_i64(&j, i, &k);
        vq_json_f64(&j, i, &x);
        vq_json_get(&j, i, "a");
        for (uint32_t v = vq_json_first(&j, i); v; v = vq_json_next(&j, i, v)) bytes++;
    }
    vq_json_clear(&j);
    return bytes == SIZE_MAX;
}
