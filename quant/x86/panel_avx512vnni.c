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
 *   N4s: |sum| <= 130048, one product so and one whose fma rounds.  16 of 20: 80 %.
 *   L8, N5: too large for that: vpmulld, two operations.  16 of 29: 55 %.
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
} block;

enum { MAGIC_BITS = 0x4B400000 }; /* of 1.5 * 2^23 */

Q_INLINE void unpack_scales(const int type, float scale[4][16], float back[4][16],
                            const int8_t *s8)
{
    const int lines = type == Q_N4S ? 2 : 4;
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

Q_INLINE void unpack_group(const int type, panel *p, int r, const uint8_t *w, int nt)
{
    const luts g = luts_of(type);
    const bool wide = type == Q_N4S;
    for (int t = 0; t < nt; t++) {
        const int half = wide ? t & 1 : 0;
        const int8_t *s8 = (const int8_t *)w + 32 * half;
        const uint8_t *planes = w + 64 + 512 * half;
        Q_UNROLL
        for (int c = 0; c < 16; c++)
            _mm512_store_si512(p->code[t][r] + 64 * c, chunk_u8(type, planes, c / 4, c % 4, &g));
        unpack_scales(type, p->scale[t][r], p->back[t][r], s8);
        if (!wide || half) w += 64 + (size_t)plane_bytes(type) * (wide ? 2 : 1);
    }
}

/* Starting values of nt tiles of m tokens from tile t0, token m0. */
Q_INLINE void make_start(const int type, panel *p, const q_acts *x, int t0, int nt, int m0, int m)
{
    const unsigned shift = (unsigned)bias_shift(type);
    const __m512i magic = _mm512_set1_epi32(MAGIC_BITS);
    /* Of the two sums of a tile that N4s has, only the first. */
    const __m512i first = _mm512_maskz_set1_epi64(0x55, MAGIC_BITS);
    int32_t *out = p->start;
    for (int t = t0; t < t0 + nt; t++) {
        const int32_t *nsum = x->nsum + 4 * ((size_t)t * (size_t)x->M + (size_t)m0);
        for (int i = 0; i < 4 * m; i += 16) {
            const __mmask16 some = v16_first(4 * m - i < 16 ? 4 * m - i : 16);
            __m512i v = _mm512_slli_epi32(_mm512_maskz_loadu_epi32(some, nsum + i), shift);
            if (type == Q_N4S) { /* neighbours added */
                const __mmask8 half = (__mmask8)v16_first(2 * m - i / 2 < 8 ? 2 * m - i / 2 : 8);
                __m512i two = _mm512_add_epi32(v, _mm512_srli_epi64(v, 32));
                two = _mm512_add_epi32(two, first);
                _mm256_mask_storeu_epi32(out + i / 2, half, _mm512_cvtepi64_epi32(two));
            } else {
                if (float_scales(type)) v = _mm512_add_epi32(v, magic);
                _mm512_mask_storeu_epi32(out + i, some, v);
            }
        }
        out += (type == Q_N4S ? 2 : 4) * (size_t)m;
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
    __m512 f[PANEL_R][PANEL_M];
    load_f(M, f, b);
    for (int t = 0; t < nt; t++) {
        __m512i z[PANEL_R][PANEL_M], acc[PANEL_R][PANEL_M];
        if (b->cold) prefetch_next(M, q);
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
    __m512 f[PANEL_R][PANEL_M];
    load_f(M, f, b);
    for (int t = 0; t < nt; t++) {
        __m512 z[2][PANEL_R][PANEL_M];
        __m512i acc[PANEL_R][PANEL_M];
        if (b->cold) prefetch_next(M, q);
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

/* N4s: sub-blocks of 32 k. */
Q_INLINE void block_32(const int M, const panel *p, int nt, const block *b)
{
    const int8_t *q = b->q;
    const int32_t *start = b->start;
    const float *d = b->d;
    __m512 f[PANEL_R][PANEL_M];
    load_f(M, f, b);
    for (int t = 0; t < nt; t++) {
        __m512 z[PANEL_R][PANEL_M];
        __m512i acc[PANEL_R][PANEL_M];
        if (b->cold) prefetch_next(M, q);
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

/* Tokens of the next block when `left` are to do: fours and threes, for N4s sixes, fives and fours,
 * so that any number from PANEL_MIN on comes out even. */
Q_INLINE int next_block(const int type, int left)
{
    if (type != Q_N4S) return left % 4 ? 3 : 4;
    const int over = left % 6;
    return over == 0 ? 6 : over % 2 ? 5 : 4;
}

Q_INLINE void run_block(const int type, const int M, const panel *p, int nt, const block *b)
{
    if (!float_scales(type)) block_int(M, p, nt, b);
    else if (type == Q_N4S) block_32(M, p, nt, b);
    else block_16(M, p, nt, b);
}

/* All tokens past the unpacked panel; b is at the first. */
Q_INLINE void tokens(const int type, const panel *p, int nt, block b, int m)
{
    const size_t of = type == Q_N4S ? 2 : 4;
    for (int left = m; left > 0;) {
        const int M = next_block(type, left);
        if (type == Q_N4S) {
            if (M == 6) run_block(type, 6, p, nt, &b);
            else if (M == 5) run_block(type, 5, p, nt, &b);
            else run_block(type, 4, p, nt, &b);
        } else {
            if (M == 4) run_block(type, 4, p, nt, &b);
            else run_block(type, 3, p, nt, &b);
        }
        left -= M;
        b.y += (size_t)M * b.ldy;
        b.q += Q_TILE * (size_t)M;
        b.d += M;
        b.start += of * (size_t)M;
    }
}

/* At most PANEL_MAX tokens. */
Q_INLINE void pass(const int type, float *y, size_t ldy, const uint8_t *w, int n, const q_acts *x,
                   int m0, int m, panel *p)
{
    const size_t bytes = q_group_bytes(type, Q_TILE * x->kt);
    const int ng = (n + 15) / 16;
    const int kt = type == Q_N4S ? (x->kt + 1) / 2 * 2 : x->kt;
    for (int t0 = 0; t0 < kt; t0 += PANEL_T) {
        const int nt = kt - t0 < PANEL_T ? kt - t0 : PANEL_T;
        const size_t at = (size_t)t0 * (size_t)x->M + (size_t)m0;
        block b = { .ldy = ldy, .first = t0 == 0, .last = t0 + nt == kt, .q = x->q + Q_TILE * at,
                    .d = x->d + at, .stride = (size_t)x->M, .start = p->start,
                    .ld_start = (type == Q_N4S ? 2 : 4) * (size_t)m };
        make_start(type, p, x, t0, nt, m0, m);
        for (int g = 0; g < ng; g += PANEL_R) {
            for (int r = 0; r < PANEL_R; r++) {
                const bool there = g + r < ng; /* an odd last group is paired with itself, unseen */
                const int gr = there ? g + r : g, rows = n - 16 * gr;
                const uint8_t *wg = w + bytes * (size_t)gr;
                b.row_scale[r] = (const float *)wg;
                b.rows[r] = !there ? 0 : rows >= 16 ? (__mmask16)0xffff : v16_first(rows);
                unpack_group(type, p, r, wg + 64 + tile_at(type, t0), nt);
            }
            b.y = y + 16 * g;
            b.cold = g == 0;
            tokens(type, p, nt, b, m);
        }
    }
}

Q_INLINE void panel_a8(const int type, float *y, size_t ldy, const void *w, int n, const q_acts *x,
                       int m0, int m, void *tmp)
{
    const int passes = (m + PANEL_MAX - 1) / PANEL_MAX; /* equal ones: none below PANEL_MIN */
    for (int i = 0, j = 0; i < passes; i++) {
        const int end = (int)((long long)m * (i + 1) / passes);
        pass(type, y + (size_t)j * ldy, ldy, w, n, x, m0 + j, end - j, tmp);
        j = end;
    }
}

void q_panel_avx512vnni(int type, float *y, size_t ldy, const void *w, int n, const q_acts *x,
                        int m0, int m, void *tmp)
{
    switch (type) {
    case Q_L8: panel_a8(Q_L8, y, ldy, w, n, x, m0, m, tmp); break;
    case Q_L6: panel_a8(Q_L6, y, ldy, w, n, x, m0, m, tmp); break;
    case Q_N5: panel_a8(Q_N5, y, ldy, w, n, x, m0, m, tmp); break;
    case Q_N4: panel_a8(Q_N4, y, ldy, w, n, x, m0, m, tmp); break;
    default: panel_a8(Q_N4S, y, ldy, w, n, x, m0, m, tmp); break;
    }
}

#else
typedef int panel_needs_avx512vnni; /* ISO C wants something in every file */
#endif
