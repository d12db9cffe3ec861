/* digest.c - SHA-256 for verbs that know nothing of files and kernels (app.h).
 *
 * It runs on the reference kernel: what is hashed here (rows of logits) is small beside the work
 * that made it. */
#include "core/app/app.h"

#include "core/base/mem.h"
#include "core/file/file.h"

struct app_sha256 {
    vq_sha256 s;
};

app_sha256 *app_sha256_new(void)
{
    app_sha256 *s = vq_malloc(sizeof *s);
    if (s) vq_sha256_init(&s->s, NULL);
    return s;
}

void app_sha256_add(app_sha256 *s, const void *p, size_t n) { vq_sha256_add(&s->s, p, n); }

void app_sha256_end(app_sha256 *s, char hex[65])
{
    uint8_t h[32];
    if (!s) return;
    vq_sha256_end(&s->s, h);
    vq_free(s);
    if (hex) vq_hex32(hex, h);
}
