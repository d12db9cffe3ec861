/* panel_avx512vnni.c - matrix times many tokens on AVX-512 VNNI.
 *
 * Two row groups by 8 tiles are unpacked once (u8 codes, widened sub-scales: exact, 25 KB) and
 * stay in L1 while the activations of all tokens stream past in blocks; f waits in y between K
 * blocks.  K blocks are the outer loop, so the slice of activations (512 B per token) stays in L2
 * for all row groups of the call.
 *
 * What limits the loop: every operation on zmm registers goes through the same two ports (Golden
 * Cove; on Zen 5 the multiplications do), so all that counts is how few there are beside the 16 dot
 * products of a tile.  Sub-scales are applied in float, exactly, and without converting: a sum that
 * also starts at the bits of 1.5 * 2^23 is, read as a float, 1.5 * 2^23 + sum, and
 *   fma(1.5 * 2^23 + sum, s, -1.5 * 2^23 * s) = sum * s   while |sum| < 2^22, |sum * s| < 2^24.
 *   N4, L6: |sum| <= 16 * 32 * 127 = 65024; two products add to at most 16,516,096 < 2^24, so pairs
 *     are exact, and the one addition of two pairs rounds their true sum once, as the conversion of
 *     an int32 z would.  16 of 24 operations are dot products: 67 % is the most there is.
 *   N4s, P6, P5: |sum| <= 130048, one product so and one whose fma rounds.  16 of 20: 80 %.
 *   L8, N5: too large for that: vpmulld, two operations.  16 of 29: 55 %.
 * So there are three loops, and a type is one of them and a way to unpack.
 *
 * Pairs come here with few tokens too: their unpacking is most of the work, so the way through L1
 * costs little.  Then row groups are the outer loop and the matrix is read strictly forward.
 *
 * Tried and slower: two sub-block sums packed as int16 for one vpdpwssd (the packing takes back
 * what the product saves); vpdpwssd on single sums of N4, right while 32 * sum of |a| < 2^15 (22
 * operations, but codes of normal inputs pass that in one block of 4 tokens in four, and the branch
 * and the search for them took it back: 165 GMAC/s for 220 without them); 2 groups x 6 tokens and
 * 3 x 4 for N4 (no registers left). */
#include "quant/x86/panel_avx512vnni.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && \
    defined(__AVX512DQ__) && defined(__AVX512VNNI__)

#include <assert.h>

#include "quant/x86/tile_avx512vnni.h"

enum {
    PANEL_R = 2,     /* row groups */
    PANEL_T = 8,     /* tiles: 25 KB unpacked */
    PANEL_M = 6,     /* most tokens of a block */
    PANEL_MAX = 256  /* tokens of one pass: their activations (130 KB) and y stay in L2 */
};

typedef struct panel {
    uint8_t code[PANEL_T][PANEL_R][16 * 64]; /* biased, line = chunk */
    float scale[PANEL_T][PANEL_R][4][16];    /* int32 for L8 and N5 */
    float back[PANEL_T][PANEL_R][4][16];     /* -1.5 * 2^23 * scale; not for these */
    int32_t start[PANEL_T * PANEL_MAX * 4];  /* (8, m, 4 or 2): of the accumulators */
} panel;
static_assert(sizeof(panel) <= Q_TMP, "the panel must fit the scratch of a gemm");

/* Where one call writes and reads; rows: which rows of the two groups exist. */
typedef struct block {
    float *y;               /* token 0 of the block, row 0 of the pair of groups */
    size_t ldy;
    const float *row_scale[PANEL_R];
    __mmask16 rows[PANEL_R];
    bool first, last;       /* K block of the row */
    bool cold;              /* first use of these activations */
    const int8_t *q;        /* tile 0 of the K block, token 0 */
    const float *d;
    size_t stride;          /* tokens in a tile of the activations */
    const int32_t *start;   /* as q, in the panel */
    size_t ld_start;        /* from tile to tile */
    const uint8_t *ask, *ask_end; /* weights of the next group: see ask_next */
    size_t gap;             /* from there to those of the one behind it */
} block;

enum { MAGIC_BITS = 0x4B400000 }; /* of 1.5 * 2^23 */

Q_INLINE void unpack_scales(const int type, float scale[4][16], float back[4][16],
                            const int8_t *s8)
{
    const int lines = halves_of(type) == 2 ? 2 : 4;
    Q_UNROLL
    for (int s = 0; s < lines; s++) {
        const __m512i i = _mm512_cvtepi8_epi32(_mm_load_si128((const __m128i *)(s8 + 16 * s)));
        const __m512 e = _mm512_cvtepi32_ps(i);
        if (!float_scales(type)) {
            _mm512_store_si512(scale[s], i);
        } else {
            _mm512_store_ps(scale[s], e);
            _mm512_store_ps(back[s], _mm512_mul_ps(e, _mm512_set1_ps(-12582912.0f)));
        }
    }
}

/* nt tiles of group r from its tile at w. */
Q_INLINE void unpack_group(const int type, panel *p, int r, const uint8_t *w, int nt)
{
    const luts g = luts_of(type);
    for (int t = 0; t < nt; t++) {
        const int odd = t % halves_of(type); /* second 64 k of the tile */
        const uint8_t *tile = w + tile_at(type, t), *planes = tile + 64 + plane_bytes(type) * odd;
        const int chunks = has_pairs(type) ? 0 : 16;
        Q_UNROLL
        for (int c = 0; c < chunks; c++)
            _mm512_store_si512(p->code[t][r] + 64 * c, chunk_u8(type, planes, c / 4, c % 4, &g));
        unpack_scales(type, p->scale[t][r], p->back[t][r], (const int8_t *)tile + 32 * odd);
    }
}

static void __attribute__((noinline)) unpack(int type, q_points_avx512 *points, panel *p, int r,
                                             const uint8_t *w, int nt)
{
    if (has_pairs(type)) points(type, p->code[0][r], sizeof p->code[0], w, nt);
    switch (type) {
    case Q_L8: unpack_group(Q_L8, p, r, w, nt); break;
    case Q_L6: unpack_group(Q_L6, p, r, w, nt); break;
    case Q_N5: unpack_group(Q_N5, p, r, w, nt); break;
    case Q_N4: unpack_group(Q_N4, p, r, w, nt); break;
    case Q_N4S: unpack_group(Q_N4S, p, r, w, nt); break;
    case Q_P6: unpack_group(Q_P6, p, r, w, nt); break;
    default: unpack_group(Q_P5, p, r, w, nt); break;
    }
}

/* ---- points without vpermb: tables of 16, the later ones as differences ---- */

/* x is the first table, x[i] the bits in which table i differs from the one before. */
typedef struct point_luts { __m512i x[4], y[4]; } point_luts;

/* One coordinate of the points `at`, 0..63.  vpshufb gives 0 where bit 7 is set: where an index
 * lies before its table. */
Q_INLINE __m512i look_up(const int type, const __m512i *t, const __m512i at[4])
{
    const __m512i a = _mm512_shuffle_epi8(t[0], at[0]), b = _mm512_shuffle_epi8(t[1], at[1]);
    if (type == Q_P5) return _mm512_xor_si512(a, b);
    const __m512i c = _mm512_shuffle_epi8(t[2], at[2]), d = _mm512_shuffle_epi8(t[3], at[3]);
    return _mm512_xor_si512(_mm512_ternarylogic_epi32(a, b, c, 0x96), d);
}

Q_INLINE void points_of(const int type, uint8_t *code, size_t step, const uint8_t *w, int nt)
{
    const int n = type == Q_P6 ? 64 : 32;
    const int8_t *table = type == Q_P6 ? q_points_p6[0] : q_points_p5[0];
    point_luts g;
    Q_UNROLL
    for (int i = 0; i < n / 16; i++) {
        g.x[i] = lut(table + 16 * i, 32);
        g.y[i] = lut(table + n + 16 * i, 32);
    }
    Q_UNROLL
    for (int i = n / 16 - 1; i > 0; i--) {
        g.x[i] = _mm512_xor_si512(g.x[i], g.x[i - 1]);
        g.y[i] = _mm512_xor_si512(g.y[i], g.y[i - 1]);
    }
    for (int t = 0; t < nt; t++, code += step) {
        const uint8_t *planes = w + tile_at(type, t) + 64 + plane_bytes(type) * (t & 1);
        ask_tile(type, planes);
        Q_UNROLL
        for (int j = 0; j < 8; j++) {
            __m512i at[4];
            at[0] = _mm512_and_si512(point_index(type, planes, j), _mm512_set1_epi8((char)(n - 1)));
            Q_UNROLL
            for (int i = 1; i < n / 16; i++)
                at[i] = _mm512_sub_epi8(at[0], _mm512_set1_epi8((char)(16 * i)));
            store_points(code, j, look_up(type, g.x, at), look_up(type, g.y, at));
        }
    }
}

static void points_avx512vnni(int type, uint8_t *code, size_t step, const uint8_t *w, int nt)
{
    if (type == Q_P6) points_of(Q_P6, code, step, w, nt);
    else points_of(Q_P5, code, step, w, nt);
}

/* Starting values of nt tiles of m tokens from tile t0, token m0. */
static void make_start(int type, panel *p, const q_acts *x, int t0, int nt, int m0, int m)
{
    const __m128i shift = _mm_cvtsi32_si128(bias_shift(type));
    const int bits = float_scales(type) ? MAGIC_BITS : 0;
    const __m512i magic = _mm512_set1_epi32(bits);
    /* Of the two sums of a tile that sub-scales of 32 k have, only the first. */
    const __m512i first = _mm512_maskz_set1_epi64(0x55, bits);
    const bool wide = halves_of(type) == 2;
    int32_t *out = p->start;
    for (int t = t0; t < t0 + nt; t++) {
        const int32_t *nsum = x->nsum + 4 * ((size_t)t * (size_t)x->M + (size_t)m0);
        for (int i = 0; i < 4 * m; i += 16) {
            const __mmask16 some = v16_first(4 * m - i < 16 ? 4 * m - i : 16);
            const __m512i v = _mm512_sll_epi32(_mm512_maskz_loadu_epi32(some, nsum + i), shift);
            if (wide) { /* neighbours added */
                const __mmask8 half = (__mmask8)v16_first(2 * m - i / 2 < 8 ? 2 * m - i / 2 : 8);
                __m512i two = _mm512_add_epi32(v, _mm512_srli_epi64(v, 32));
                two = _mm512_add_epi32(two, first);
                _mm256_mask_storeu_epi32(out + i / 2, half, _mm512_cvtepi64_epi32(two));
            } else {
                _mm512_mask_storeu_epi32(out + i, some, _mm512_add_epi32(v, magic));
            }
        }
        out += (wide ? 2 : 4) * (size_t)m;
    }
}

Q_INLINE __m512i broadcast4(const void *p)
{
    int32_t a;
    __builtin_memcpy(&a, p, sizeof a);
    return _mm512_set1_epi32(a);
}

/* acc += chunks c0 .. c0+n-1 of both groups times M tokens. */
Q_INLINE void dot(const int M, const int c0, const int n, __m512i acc[PANEL_R][PANEL_M],
                  const uint8_t code[PANEL_R][16 * 64], const int8_t *q)
{
    Q_UNROLL
    for (int c = c0; c < c0 + n; c++) {
        const __m512i w0 = _mm512_load_si512(code[0] + 64 * c);
        const __m512i w1 = _mm512_load_si512(code[1] + 64 * c);
        Q_UNROLL
        for (int m = 0; m < M; m++) {
            const __m512i a = broadcast4(q + 64 * m + 4 * c);
            acc[0][m] = _mm512_dpbusd_epi32(acc[0][m], w0, a);
            acc[1][m] = _mm512_dpbusd_epi32(acc[1][m], w1, a);
        }
    }
}

Q_INLINE void load_f(const int M, __m512 f[PANEL_R][PANEL_M], const block *b)
{
    Q_UNROLL
    for (int r = 0; r < PANEL_R; r++) {
        const float *at = b->y + 16 * r;
        Q_UNROLL
        for (int m = 0; m < M; m++)
            f[r][m] = b->first ? _mm512_setzero_ps()
                               : _mm512_maskz_loadu_ps(b->rows[r], at + (size_t)m * b->ldy);
    }
}

Q_INLINE void store_f(const int M, __m512 f[PANEL_R][PANEL_M], const block *b)
{
    Q_UNROLL
    for (int r = 0; r < PANEL_R; r++) {
        const __m512 scale = b->last ? _mm512_load_ps(b->row_scale[r]) : _mm512_set1_ps(1.0f);
        Q_UNROLL
        for (int m = 0; m < M; m++)
            _mm512_mask_storeu_ps(b->y + (size_t)m * b->ldy + 16 * r, b->rows[r],
                                  _mm512_mul_ps(scale, f[r][m]));
    }
}

/* f += d * z for one group and token, z as float. */
Q_INLINE __m512 add_tile(__m512 f, __m512 z, const float *d)
{
    return _mm512_fmadd_ps(_mm512_set1_ps(*d), z, f);
}

/* Accumulators of sub-block s of `of`, for M tokens. */
Q_INLINE void begin(const int M, const int s, const int of, __m512i acc[PANEL_R][PANEL_M],
                    const int32_t *start)
{
    Q_UNROLL
    for (int m = 0; m < M; m++) acc[0][m] = acc[1][m] = _mm512_set1_epi32(start[of * m + s]);
}

/* The same tile of the next block of tokens: too many streams for the hardware to follow. */
Q_INLINE void prefetch_next(const int M, const int8_t *q)
{
    Q_UNROLL
    for (int m = 0; m < M; m++) _mm_prefetch((const char *)(q + 64 * (M + m)), _MM_HINT_T0);
}

/* L8, N5: int32 throughout. */
Q_INLINE void block_int(const int M, const panel *p, int nt, const block *b)
{
    const int8_t *q = b->q;
    const int32_t *start = b->start;
    const float *d = b->d;
    const uint8_t *ask = b->ask;
    __m512 f[PANEL_R][PANEL_M];
    load_f(M, f, b);
    for (int t = 0; t < nt; t++) {
        __m512i z[PANEL_R][PANEL_M], acc[PANEL_R][PANEL_M];
        if (b->cold) prefetch_next(M, q);
        ask = ask_next(ask, b->ask_end, b->gap);
        Q_UNROLL
        for (int s = 0; s < 4; s++) {
            begin(M, s, 4, acc, start);
            dot(M, 4 * s, 4, acc, p->code[t], q);
            Q_UNROLL
            for (int r = 0; r < PANEL_R; r++) {
                const __m512i e = _mm512_load_si512(p->scale[t][r][s]);
                Q_UNROLL
                for (int m = 0; m < M; m++) {
                    const __m512i v = _mm512_mullo_epi32(acc[r][m], e);
                    z[r][m] = s ? _mm512_add_epi32(z[r][m], v) : v;
                    __asm__("" : "+v"(z[r][m])); /* keep the order: gcc would sum in a tree */
                }
            }
        }
        Q_UNROLL
        for (int m = 0; m < M; m++) {
            Q_UNROLL
            for (int r = 0; r < PANEL_R; r++)
                f[r][m] = add_tile(f[r][m], _mm512_cvtepi32_ps(z[r][m]), d + m);
        }
        q += 64 * b->stride;
        start += b->ld_start;
        d += b->stride;
    }
    store_f(M, f, b);
}

/* N4, L6: sub-blocks of 16 k, two exact pairs. */
Q_INLINE void block_16(const int M, const panel *p, int nt, const block *b)
{
    const int8_t *q = b->q;
    const int32_t *start = b->start;
    const float *d = b->d;
    const uint8_t *ask = b->ask;
    __m512 f[PANEL_R][PANEL_M];
    load_f(M, f, b);
    for (int t = 0; t < nt; t++) {
        __m512 z[2][PANEL_R][PANEL_M];
        __m512i acc[PANEL_R][PANEL_M];
        if (b->cold) prefetch_next(M, q);
        ask = ask_next(ask, b->ask_end, b->gap);
        Q_UNROLL
        for (int s = 0; s < 4; s++) {
            begin(M, s, 4, acc, start);
            dot(M, 4 * s, 4, acc, p->code[t], q);
            Q_UNROLL
            for (int r = 0; r < PANEL_R; r++) {
                const __m512 e = _mm512_load_ps(p->scale[t][r][s]);
                const __m512 back = _mm512_load_ps(p->back[t][r][s]);
                Q_UNROLL
                for (int m = 0; m < M; m++) {
                    const __m512 x = _mm512_fmadd_ps(_mm512_castsi512_ps(acc[r][m]), e, back);
                    __m512 *pair = &z[s / 2][r][m];
                    *pair = s % 2 ? _mm512_add_ps(*pair, x) : x;
                    __asm__("" : "+v"(*pair)); /* keep the order: fewer registers are live */
                }
            }
        }
        Q_UNROLL
        for (int m = 0; m < M; m++) {
            Q_UNROLL
            for (int r = 0; r < PANEL_R; r++)
                f[r][m] = add_tile(f[r][m], _mm512_add_ps(z[0][r][m], z[1][r][m]), d + m);
        }
        q += 64 * b->stride;
        start += b->ld_start;
        d += b->stride;
    }
    store_f(M, f, b);
}

/* N4s, P6, P5: sub-blocks of 32 k. */
Q_INLINE void block_32(const int M, const panel *p, int nt, const block *b)
{
    const int8_t *q = b->q;
    const int32_t *start = b->start;
    const float *d = b->d;
    const uint8_t *ask = b->ask;
    __m512 f[PANEL_R][PANEL_M];
    load_f(M, f, b);
    for (int t = 0; t < nt; t++) {
        __m512 z[PANEL_R][PANEL_M];
        __m512i acc[PANEL_R][PANEL_M];
        if (b->cold) prefetch_next(M, q);
        ask = ask_next(ask, b->ask_end, b->gap);
        Q_UNROLL
        for (int s = 0; s < 2; s++) {
            begin(M, s, 2, acc, start);
            dot(M, 8 * s, 8, acc, p->code[t], q);
            Q_UNROLL
            for (int r = 0; r < PANEL_R; r++) {
                const __m512 e = _mm512_load_ps(p->scale[t][r][s]);
                const __m512 back = _mm512_load_ps(p->back[t][r][0]);
                Q_UNROLL
                for (int m = 0; m < M; m++) {
                    const __m512i a = acc[r][m];
                    z[r][m] = s ? _mm512_fmadd_ps(_mm512_cvtepi32_ps(a), e, z[r][m])
                                : _mm512_fmadd_ps(_mm512_castsi512_ps(a), e, back);
                    __asm__("" : "+v"(z[r][m]));
                }
            }
        }
        Q_UNROLL
        for (int m = 0; m < M; m++) {
            Q_UNROLL
            for (int r = 0; r < PANEL_R; r++) f[r][m] = add_tile(f[r][m], z[r][m], d + m);
        }
        q += 64 * b->stride;
        start += b->ld_start;
        d += b->stride;
    }
    store_f(M, f, b);
}

/* Tokens of the next block when `left` are to do: fours and threes; with sub-scales of 32 k sixes,
 * fives and fours, and the last in one.  Any number comes out even from PANEL_MIN on, or from 1. */
Q_INLINE int next_block(const int kind, int left)
{
    if (kind != Q_N4S) return left % 4 ? 3 : 4;
    if (left <= 6) return left;
    const int over = left % 6;
    return over == 0 ? 6 : over % 2 ? 5 : 4;
}

Q_INLINE void run_block(const int kind, const int M, const panel *p, int nt, const block *b)
{
    if (kind == Q_N5) block_int(M, p, nt, b);
    else if (kind == Q_N4S) block_32(M, p, nt, b);
    else block_16(M, p, nt, b);
}

/* All tokens past the unpacked panel; b is at the first.  kind: the type whose
 * products these are, N5, N4 or N4s. */
Q_INLINE void tokens(const int kind, const panel *p, int nt, block b, int m)
{
    const size_t of = kind == Q_N4S ? 2 : 4;
    for (int left = m; left > 0;) {
        const int M = next_block(kind, left);
        switch (kind == Q_N4S || M == 3 ? M : 4) {
        case 1: if (kind == Q_N4S) run_block(kind, 1, p, nt, &b); break;
        case 2: if (kind == Q_N4S) run_block(kind, 2, p, nt, &b); break;
        case 3: run_block(kind, 3, p, nt, &b); break;
        case 4: run_block(kind, 4, p, nt, &b); break;
        case 5: if (kind == Q_N4S) run_block(kind, 5, p, nt, &b); break;
        default: if (kind == Q_N4S) run_block(kind, 6, p, nt, &b); break;
        }
        left -= M;
        b.y += (size_t)M * b.ldy;
        b.q += Q_TILE * (size_t)M;
        b.d += M;
        b.start += of * (size_t)M;
        b.ask = asked(b.ask, b.ask_end, nt);
    }
}

/* L8, N5 */
static void tokens_int(const panel *p, int nt, block b, int m) { tokens(Q_N5, p, nt, b, m); }
/* N4, L6 */
static void tokens_16(const panel *p, int nt, block b, int m) { tokens(Q_N4, p, nt, b, m); }
/* N4s, P6, P5 */
static void tokens_32(const panel *p, int nt, block b, int m) { tokens(Q_N4S, p, nt, b, m); }

/* At most PANEL_MAX tokens and ng row groups from g0 on. */
static void pass(int type, q_points_avx512 *points, float *y, size_t ldy, const uint8_t *w, int n,
                 const q_acts *x, int m0, int m, panel *p, int g0, int ng)
{
    const size_t bytes = q_group_bytes(type, Q_TILE * x->kt);
    const bool wide = halves_of(type) == 2;
    const int kt = tiles_of(type, x), end = g0 + ng;
    for (int t0 = 0; t0 < kt; t0 += PANEL_T) {
        const int nt = kt - t0 < PANEL_T ? kt - t0 : PANEL_T;
        const size_t at = (size_t)t0 * (size_t)x->M + (size_t)m0;
        block b = { .ldy = ldy, .first = t0 == 0, .last = t0 + nt == kt, .q = x->q + Q_TILE * at,
                    .d = x->d + at, .stride = (size_t)x->M, .start = p->start,
                    .ld_start = (wide ? 2 : 4) * (size_t)m, .gap = bytes };
        make_start(type, p, x, t0, nt, m0, m);
        for (int g = g0; g < end; g += PANEL_R) {
            for (int r = 0; r < PANEL_R; r++) {
                const bool there = g + r < end; /* an odd last group is twice there, unseen */
                const int gr = there ? g + r : g, rows = n - 16 * gr;
                const uint8_t *wg = w + bytes * (size_t)gr;
                b.row_scale[r] = (const float *)wg;
                b.rows[r] = !there ? 0 : rows >= 16 ? (__mmask16)0xffff : v16_first(rows);
                unpack(type, points, p, r, wg + 64 + tile_at(type, t0), nt);
            }
            b.ask = w + bytes * (size_t)(g + PANEL_R) + 64 + tile_at(type, t0);
            b.ask_end = b.ask + (has_pairs(type) ? 0 : tile_at(type, nt)); /* these asked */
            b.y = y + 16 * g;
            b.cold = g == 0;
            if (!float_scales(type)) tokens_int(p, nt, b, m);
            else if (wide) tokens_32(p, nt, b, m);
            else tokens_16(p, nt, b, m);
        }
    }
}

void q_pairs_avx512vnni(int type, q_points_avx512 *points, float *y, size_t ldy, const void *w,
                        int n, const q_acts *x, int m0, int m, void *tmp)
{
    const int passes = (m + PANEL_MAX - 1) / PANEL_MAX; /* equal ones: none below PANEL_MIN */
    const int ng = (n + 15) / 16, step = m < PANEL_MIN ? PANEL_R : ng;
    for (int i = 0, j = 0; i < passes; i++) {
        const int end = (int)((long long)m * (i + 1) / passes);
        for (int g = 0; g < ng; g += step)
            pass(type, points, y + (size_t)j * ldy, ldy, w, n, x, m0 + j, end - j, tmp, g,
                 ng - g < step ? ng - g : step);
        j = end;
    }
}

void q_panel_avx512vnni(int type, float *y, size_t ldy, const void *w, int n, const q_acts *x,
                        int m0, int m, void *tmp)
{
    q_pairs_avx512vnni(type, points_avx512vnni, y, ldy, w, n, x, m0, m, tmp);
}

#else
typedef int panel_needs_avx512vnni; /* ISO C wants something in every file */
#endif
