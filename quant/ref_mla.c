/* ref_mla.c - the cache of latents (MLA) in plain C (quant.h, exact.md 4).
 *
 * All heads of a layer read one latent, so the block is written once and serves both products.  It
 * lies as the scores want it: positions are the lanes, 4 dims a line.  The second product wants
 * dims as lanes and 4 positions a line; lat_v8 turns a block into that form, once for all the heads
 * of a job, and from there on it is attn_pv8's. */
#include "quant/ref.h"

#include "quant/scalar.h"
#include "quant/t16.h"

static int blocks_of(int n) { return (n + 127) / 128; }
static int tiles_of(int n) { return (n + Q_TILE - 1) / Q_TILE; }

size_t q_lat_codes(int lora, int rope)
{
    return (size_t)(blocks_of(lora) + blocks_of(rope)) * Q_PIECE * sizeof(float);
}

size_t q_lat_bytes(int lora, int rope)
{
    return q_lat_codes(lora, rope) + (size_t)(tiles_of(lora) + tiles_of(rope)) * Q_TILE * Q_PIECE;
}

/* A128 of x[0..n) into codes of one position, zero-padded to whole tiles; lane: of its group. */
static int put_part(float *d, uint8_t *codes, int lane, const float *x, int n)
{
    for (int b = 0; b < n; b += 128, d += Q_PIECE) {
        const int len = n - b < 128 ? n - b : 128;
        const uint32_t bits = q_max_bits(x + b, len);
        if (bits > Q_BITS_FINITE) return 1;
        const float max = q_float(bits);
        const bool zero = max < Q_TINY;
        const float inv = zero ? 0.0f : 127.0f / max;
        *d = zero ? 0.0f : max / 127.0f;
        for (int i = b; i < b + len; i++)
            codes[q_byte_at(i, lane)] = (uint8_t)(zero ? 0 : q_rnei(x[i] * inv));
    }
    for (int i = n; i < tiles_of(n) * Q_TILE; i++) codes[q_byte_at(i, lane)] = 0;
    return 0;
}

static int put_lat8_ref(void *blk, int p, const float *x, int lora, int rope)
{
    float *d = (float *)blk + p;
    const size_t tile = Q_ROWS * Q_TILE, nl = (size_t)tiles_of(lora), nr = (size_t)tiles_of(rope);
    uint8_t *codes = (uint8_t *)blk + q_lat_codes(lora, rope)
                   + (size_t)(p / Q_ROWS) * (nl + nr) * tile;
    return put_part(d, codes, p % Q_ROWS, x, lora)
         | put_part(d + (size_t)blocks_of(lora) * Q_PIECE, codes + nl * tile, p % Q_ROWS,
                    x + nl * Q_TILE, rope);
}

static void attn_qkl8_ref(float *s, size_t lds, const void *blk, int lora, int rope, int ng,
                          const q_acts *q2, int m0, int m, float scale)
{
    const float *dc = blk;
    const int nl = tiles_of(lora);
    const uint8_t *codes = (const uint8_t *)blk + q_lat_codes(lora, rope);
    for (int g = 0; g < ng; g++) {
        for (int j = 0; j < m; j++) {
            float f[Q_ROWS] = { 0 };
            for (int t = 0; t < q2->kt; t++) {
                const uint8_t *tile = codes + (size_t)(g * q2->kt + t) * Q_ROWS * Q_TILE;
                const size_t at = (size_t)t * (size_t)q2->M + 2 * (size_t)(m0 + j);
                const int8_t *hi = q2->q + at * Q_TILE, *lo = hi + Q_TILE;
                const int block = t < nl ? t / 2 : blocks_of(lora) + (t - nl) / 2;
                for (int r = 0; r < Q_ROWS; r++) {
                    int32_t z = 0;
                    for (int k = 0; k < Q_TILE; k++)
                        z += (254 * hi[k] + lo[k]) * (int8_t)tile[q_byte_at(k, r)];
                    const float d = q2->d[at + 1] * dc[block * Q_PIECE + Q_ROWS * g + r];
                    f[r] = fmaf(d, (float)z, f[r]);
                }
            }
            for (int r = 0; r < Q_ROWS; r++)
                s[(size_t)j * lds + (size_t)(Q_ROWS * g + r)] = f[r] * scale;
        }
    }
}

static void lat_v8_ref(void *vblk, const void *blk, int lora, int rope, int n)
{
    const size_t nb = (size_t)blocks_of(lora) * Q_PIECE * sizeof(float);
    const int kt = tiles_of(lora) + tiles_of(rope), dims = (lora + 15) / 16;
    const uint8_t *from = (const uint8_t *)blk + q_lat_codes(lora, rope);
    uint8_t *to = (uint8_t *)vblk + nb;
    memcpy(vblk, blk, nb);
    for (int p = 0; p < (n + 63) / 64 * 64; p++) {
        const uint8_t *row = from + (size_t)(p / Q_ROWS * kt) * Q_ROWS * Q_TILE;
        uint8_t *tile = to + (size_t)(p / 64 * dims) * 1024;
        for (int i = 0; i < 16 * dims; i++)
            tile[i / 16 * 1024 + p % 64 / 4 * 64 + i % 16 * 4 + p % 4] =
                row[q_byte_at(i, p % Q_ROWS)];
    }
}

void q_ref_mla(q_kern *t)
{
    t->put_lat8 = put_lat8_ref;
    t->attn_qkl8 = attn_qkl8_ref;
    t->lat_v8 = lat_v8_ref;
}
