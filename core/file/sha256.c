/* sha256.c - SHA-256 (FIPS 180-4) of a stream; the compression function is a kernel (quant.h). */
#include "core/file/file.h"

#include <string.h>

void vq_sha256_init(vq_sha256 *s, const q_kern *kern)
{
    static const uint32_t h0[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };
    q_kern ref;
    memcpy(s->h, h0, sizeof h0);
    s->n = 0;
    if (!kern) {
        q_kern_make(&ref, "ref"); /* every build has it */
        kern = &ref;
    }
    s->blocks = kern->sha256;
}

void vq_sha256_add(vq_sha256 *s, const void *data, size_t n)
{
    const uint8_t *p = data;
    size_t held = (size_t)(s->n % 64);
    s->n += n;
    if (held) {
        size_t fill = 64 - held < n ? 64 - held : n;
        memcpy(s->buf + held, p, fill);
        p += fill;
        n -= fill;
        if (held + fill < 64) return;
        s->blocks(s->h, s->buf, 1);
    }
    if (n >= 64) s->blocks(s->h, p, n / 64);
    if (n % 64) memcpy(s->buf, p + n / 64 * 64, n % 64);
}

void vq_sha256_end(vq_sha256 *s, uint8_t out[32])
{
    static const uint8_t pad[64] = { 0x80 };
    uint64_t bits = s->n * 8;
    uint8_t length[8];
    for (int i = 0; i < 8; i++) length[i] = (uint8_t)(bits >> (56 - 8 * i));
    vq_sha256_add(s, pad, 1 + (size_t)(119 - s->n % 64) % 64); /* 8 bytes are left in the block */
    vq_sha256_add(s, length, 8);
    for (int i = 0; i < 32; i++) out[i] = (uint8_t)(s->h[i / 4] >> (24 - 8 * (i % 4)));
}
