/* roof_amx.c - limit loop of AMX int8 (roof.h); reading is AVX-512's. */
#include "quant/roof.h"

#if defined(__AMX_TILE__) && defined(__AMX_INT8__)

#include <immintrin.h>

/* Four results from two tiles each of A and B: 16 tokens x 16 rows x 64 k per instruction, and the
 * four chains hide its latency. */
static uint64_t int8_amx(uint64_t rounds, uint32_t *sink)
{
    struct { /* what LDTILECFG reads */
        uint8_t palette, start_row, zero[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } c = { .palette = 1 };
    int32_t out[16 * 16];
    uint8_t in[16 * 64];
    for (int i = 0; i < 8; i++) c.bytes[i] = 64, c.rows[i] = 16;
    for (int i = 0; i < 16 * 64; i++) in[i] = (uint8_t)(*sink + (uint32_t)i);
    __asm__ volatile("" ::"r"(&c), "r"(in) : "memory"); /* gcc thinks that less of c is read */
    _tile_loadconfig(&c);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, in, 64);
    _tile_loadd(5, in, 32);
    _tile_loadd(6, in, 16);
    _tile_loadd(7, in, 48);
    for (uint64_t r = 0; r < rounds; r++) {
        _tile_dpbssd(0, 4, 6);
        _tile_dpbssd(1, 4, 7);
        _tile_dpbssd(2, 5, 6);
        _tile_dpbssd(3, 5, 7);
    }
    for (int i = 0; i < 16 * 16; i++) out[i] = 0;
    _tile_stored(0, out, 64);
    *sink ^= (uint32_t)out[0];
    _tile_stored(1, out, 64);
    *sink ^= (uint32_t)out[1];
    _tile_stored(2, out, 64);
    *sink ^= (uint32_t)out[2];
    _tile_stored(3, out, 64);
    *sink ^= (uint32_t)out[3];
    _tile_release();
    return rounds * 4 * 16 * 16 * 64;
}

bool q_roof_amx(q_roof *r)
{
    r->int8 = int8_amx;
    return true;
}

#else
bool q_roof_amx(q_roof *r)
{
    (void)r;
    return false;
}
#endif
