/* types.c - the table of number formats and the sizes that follow from it.
 *
 * Sizes are asked for with numbers from files, so nothing here wraps: what does not fit in 64 bits
 * is UINT64_MAX, which no file holds. */
#include "quant/quant.h"

#include <string.h>

/* Optimum of the 6-bit range on Gaussian and t8 blocks (kernels.md 1.4): -32..31 lets two maddubs
 * add up in 16 bits. */
const int8_t q_grid_n4[16] = { -32, -27, -21, -16, -12, -9, -6, -3, 0, 3, 6, 9, 13, 17, 22, 28 };

/* The same in a 7-bit range, where one maddubs fits 16 bits (2 * 127 * 127 = 32258) but not two. */
const int8_t q_grid_n5[32] = { -64, -59, -54, -49, -45, -41, -37, -33, -29, -25, -21,
                               -17, -13, -10, -6,  -3,  1,   5,   8,   12,  16,  20,
                               24,  27,  31,  35,  39,  43,  48,  52,  58,  63 };

/* Points learned once on pairs from Gaussian and t8 blocks (kernels.md 1.3), by rising x.  Within
 * -31..31, so all bounds of the 6-bit grid hold; neither set is symmetric, so that the sign of the
 * sub-scale is worth something. */
const int8_t q_points_p6[2][64] = {
    { -30, -26, -25, -25, -24, -20, -18, -17, -17, -17, -14, -12, -12, -12, -12, -11, -11, -8, -8,
      -8, -7, -7, -7, -6, -5, -5, -4, -3, -3, -3, -2, -1, -1, -1, -1, 0, 1, 1, 1, 1, 3, 3, 4, 4,
      5, 6, 7, 7, 8, 8, 9, 9, 9, 9, 11, 15, 15, 15, 16, 18, 19, 23, 24, 30 },
    { 7, -6, -17, 18, 2, -25, 5, -10, -3, 11, 17, -21, -5, 2, 8, -11, 26, -6, -2, 2, -15, 10, 16,
      6, -31, -10, -4, -19, -1, 3, 12, -12, -8, 7, 26, 17, -24, -4, -1, 3, -15, 11, -8, 6, 1, -3,
      -29, 17, -19, -11, -6, 5, 10, 25, 0, -13, -6, 6, 16, 0, -24, -9, 9, 0 },
};

const int8_t q_points_p5[2][32] = {
    { -27, -26, -19, -17, -14, -14, -13, -11, -10, -6, -5, -5, -5, -3, -1, 0, 1, 2, 3, 3, 5, 7, 7,
      8, 9, 11, 13, 15, 18, 19, 24, 31 },
    { -6, 15, 3, -23, -12, 12, -4, 24, 4, 11, -19, -10, -2, 5, 19, -6, 1, 9, -29, -14, -2, 5, 29,
      -9, 16, -1, 9, -20, -8, 3, 15, -3 },
};

static const q_typeinfo types[] = {
    /* name  id      tile_k bytes head float known */
    { "f32", Q_F32, 64, 4096, 0, true, true },
    { "f16", Q_F16, 64, 2048, 0, true, true },
    { "bf16", Q_BF16, 64, 2048, 0, true, true },
    { "l8", Q_L8, 64, 64 + 1024, 64, false, true },
    { "l6", Q_L6, 64, 64 + 512 + 256, 64, false, true },
    { "n5", Q_N5, 64, 64 + 512 + 128, 64, false, true },
    { "n4", Q_N4, 64, 64 + 512, 64, false, true },
    { "n4s", Q_N4S, 128, 64 + 1024, 64, false, true },
    { "n3", Q_N3, 0, 0, 0, false, false },
    { "p6", Q_P6, 128, 64 + 512 + 256, 64, false, true },
    { "p5", Q_P5, 128, 64 + 512 + 128, 64, false, true },
};
enum { N_TYPES = sizeof types / sizeof types[0] };

const q_typeinfo *q_type_info(int id)
{
    for (int i = 0; i < N_TYPES; i++)
        if (types[i].id == id) return &types[i];
    return NULL;
}

const q_typeinfo *q_type_by_name(const char *name)
{
    for (int i = 0; name && i < N_TYPES; i++)
        if (!strcmp(types[i].name, name)) return &types[i];
    return NULL;
}

static size_t tiles(const q_typeinfo *t, int k)
{
    return k > 0 ? ((size_t)k - 1) / (size_t)t->tile_k + 1 : 0;
}

int q_pad_k(int type, int k)
{
    const q_typeinfo *t = q_type_info(type);
    return t && t->known ? (int)(tiles(t, k) * (size_t)t->tile_k) : k;
}

size_t q_group_bytes(int type, int k)
{
    const q_typeinfo *t = q_type_info(type);
    return t && t->known ? (size_t)t->head_bytes + tiles(t, k) * (size_t)t->tile_bytes : 0;
}

uint64_t q_matrix_bytes(int type, uint64_t rows, int k)
{
    const uint64_t group = q_group_bytes(type, k), groups = rows / Q_ROWS + (rows % Q_ROWS != 0);
    if (group && groups > UINT64_MAX / group) return UINT64_MAX;
    return groups * group;
}

/* ---- activations ---- */

/* Some types consume 128 k at a time, so memory always holds an even number of tiles; the spare one
 * is zero and belongs to no input. */
static size_t padded_tiles(int k) { return k > 0 ? (((size_t)k - 1) / (2 * Q_TILE) + 1) * 2 : 0; }

static size_t up64(size_t n) { return (n + 63) / 64 * 64; }

size_t q_acts_bytes(int M, int k)
{
    const size_t cells = padded_tiles(k) * (size_t)M;
    return cells * Q_TILE + up64(cells * sizeof(float)) + up64(cells * 4 * sizeof(int32_t));
}

void q_acts_init(q_acts *a, void *mem, int M, int k)
{
    const size_t cells = padded_tiles(k) * (size_t)M;
    char *p = mem;
    a->q = (int8_t *)p;
    a->d = (float *)(void *)(p + cells * Q_TILE);
    a->nsum = (int32_t *)(void *)(p + cells * Q_TILE + up64(cells * sizeof(float)));
    a->u = NULL;
    a->M = M;
    a->kt = k > 0 ? (k - 1) / Q_TILE + 1 : 0;
    if (a->kt % 2) {
        const size_t at = (size_t)a->kt * (size_t)M;
        memset(a->q + at * Q_TILE, 0, (size_t)M * Q_TILE);
        memset(a->d + at, 0, (size_t)M * sizeof *a->d);
        memset(a->nsum + 4 * at, 0, (size_t)M * 4 * sizeof *a->nsum);
    }
}

/* Of whole blocks of 4 tokens. */
size_t q_order_bytes(int M, int k) { return padded_tiles(k) * (((size_t)M + 3) / 4 * 4) * Q_TILE; }

/* ---- the KV block ---- */

size_t q_kv_k_bytes(q_kv t, int hd)
{
    const int type = t == Q_KV_8 ? Q_L8 : t == Q_KV_BF16 ? Q_BF16 : Q_F32;
    return Q_PIECE / Q_ROWS * q_group_bytes(type, hd);
}

size_t q_kv_v_bytes(q_kv t, int hd)
{
    const size_t hdp = ((size_t)hd + 15) / 16 * 16, blocks = ((size_t)hd + 127) / 128;
    if (t == Q_KV_8) return Q_PIECE * (blocks * sizeof(float) + hdp);
    return Q_PIECE * hdp * (t == Q_KV_BF16 ? 2 : 4);
}
