/* quant.h - number formats of weights, activations and caches, and the contract of every kernel.
 *
 * This header is the whole of layer 0 seen from above: the types, their geometry in memory (which
 * is their geometry on disk), encode and decode, and one table of kernels (q_kern) per CPU level.
 * Every kernel gives the bits that ref.c gives (arith 1): integer sums are exact, and every float
 * operation below is written in its order.  No kernel allocates, locks, logs or starts threads.
 *
 * T16, the layout of every matrix (rows = outputs, k = inputs):
 *   matrix = ceil(rows/16) row groups; missing rows are zero (codes, sub-scales and row scale)
 *   group  = [16 x f32 row scale: 64 B] [tile] [tile] ...      float types have no row scale line
 *   tile   = 16 rows x 64 k (N4s, P6, P5: 128 k) = [sub-scale line(s)] [planes]
 *   lane   = a 64 B line holds 16 lanes of 32 bits; lane r = row r, byte i = k 4*chunk + i
 * k is padded to a multiple of 64 (or 128) with s = 0.  All of it is read strictly forward.
 *
 *   type  sub-scale line (int8)           planes of a tile                         tile bytes
 *   L8    s[4][16], one per 16 k          16 lines, line c = chunk c, signed       1088
 *   L6    s[4][16]                        4-bit plane: 8 lines, line 4b+L: low
 *                                         nibble chunk 8b+L, high 8b+L+4; then
 *                                         2-bit plane: 4 lines, line 2b+L: bits
 *                                         2p..2p+1 = chunk 8b+L+2p; code - 32       832
 *   N5    s[4][16]                        4-bit plane, 8 lines as above; then 1-bit
 *                                         plane: 2 lines, line b: bit p = chunk
 *                                         8b+p, bit 4 of the code; grid of 32       704
 *   N4    s[4][16]                        4-bit plane, 8 lines as above, grid       576
 *   N4s   s[4][16], one per 32 k          4-bit plane of 128 k, 16 lines, grid     1088
 *   P6    s[4][16], one per 32 k          per 64 k: 4-bit plane, 4 lines, line L:
 *                                         low nibble pairs of k 8L.., high k 32+8L..;
 *                                         then 2-bit plane, 2 lines, line L: bits
 *                                         2p..2p+1 = pairs of k 8(L+2p)..           832
 *   P5    s[4][16], one per 32 k          as P6, but a 1-bit plane of 1 line: bit p
 *                                         = pairs of k 8p..                         704
 *   F32   -                               64 lines, line k = 16 rows x f32         4096
 *   F16/BF16 -                            32 lines, line j = 16 rows x (k 2j, 2j+1) 2048
 *   (b = 0, 1: the 32-k block of the tile; b = 0..3 in N4s)
 *   P6, P5: a code is a point (x, y) of 64 or 32, the g of two neighbours k, k + 1.  A byte of a
 *   line stands for one pair of k 8j..8j+7 and one row: byte 16q + 8h + 2r + i has row 4q + r and
 *   k 8j + 4h + 2i.  So when the looked up x and y of 16 bytes are interleaved, the low half of
 *   the result is lanes 4q..4q+3 of chunk 2j and the high half those of chunk 2j+1.
 *   value = row_scale * (float)(s * g): the product s * g is an exact integer, one rounding.
 *   L8 codes and all sub-scales lie in -127..127. */
#ifndef QUANT_QUANT_H
#define QUANT_QUANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* On-disk ids (FORMAT.md): never renumbered. */
typedef enum q_type {
    Q_F32 = 0, Q_F16 = 1, Q_BF16 = 2,
    Q_L8 = 8, Q_L6 = 9, Q_N5 = 10, Q_N4 = 11, Q_N4S = 12, Q_N3 = 13, Q_P6 = 14, Q_P5 = 15
    /* N3: reserved, no kernels */
} q_type;

enum {
    Q_ROWS = 16,        /* rows of a group */
    Q_TILE = 64,        /* k covered by one z and one activation scale */
    Q_A8_MAX = 127,     /* activations stop at +-127, never -128: maddubs adds two u8*s8 products in
                         * 16 bits, and with |w| <= 128 the worst pair is 2*128*127 = 32512 */
    Q_PIECE = 256,      /* positions of an attention piece and of a KV block */
    Q_TMP = 512 * 1024, /* bytes of scratch, 64-aligned, that a gemm may use per thread */
    Q_ALIGN = 64
};

typedef struct q_typeinfo {
    const char *name;   /* "n4" */
    int id;             /* q_type */
    int tile_k;         /* k per tile on disk: 64 or 128 */
    int tile_bytes;
    int head_bytes;     /* row scale line: 64, or 0 for float types */
    bool is_float;      /* activations stay f32 */
    bool known;         /* false: id reserved, no code */
} q_typeinfo;

const q_typeinfo *q_type_info(int id);              /* NULL for an id never assigned */
const q_typeinfo *q_type_by_name(const char *name); /* NULL when unknown; finds reserved ones too */
int q_pad_k(int type, int k);                       /* k rounded up to whole tiles */
size_t q_group_bytes(int type, int k);              /* bytes of one row group */
uint64_t q_matrix_bytes(int type, uint64_t rows, int k); /* UINT64_MAX: more than 64 bits can say */

extern const int8_t q_grid_n4[16]; /* of N4 and N4s */
extern const int8_t q_grid_n5[32];
extern const int8_t q_points_p6[2][64], q_points_p5[2][32]; /* x of all points, then y */

/* ------------------------------------------------------------------------------------------
 * Encoding (enc 1): the same bytes on every machine and for every number of threads.
 * Encodes 16 rows at a time.  src: (nrows, k) row-major f32, row stride ld, 1 <= nrows <= 16;
 * imp: (k) importance of each column, >= 0, or NULL for 1.  out: one row group, q_group_bytes().
 * t: any table, all give the same bytes.  Returns 0, or 1 + the index row * k + col of the first
 * non-finite weight; for F16 and BF16 a weight too large for the type counts as such.  err2, if not
 * NULL, receives {sum of (w - q)^2, sum of w^2} over the rows, in double, row by row. */
typedef struct q_kern q_kern;
uint64_t q_encode_group(const q_kern *t, int type, void *out, const float *src, size_t ld,
                        int nrows, int k, const float *imp, double err2[2]);

/* Encoding with calibration (enc 2, feedback.c): H = sum of x x' over inputs x of a matrix, in
 * blocks along the diagonal, decides which errors matter and lets codes make up for each other.
 * Same bytes on every machine for the same H. */
typedef struct q_moments {
    int k, block;       /* columns; of a block: a multiple of 128, the last may have fewer */
    float *h;           /* (k, block) row i: H[i][j] for the columns j of i's block, of which those
                         * with j >= i count; after q_moments_factor above the diagonal U */
    float *d;           /* (k) of q_moments_factor */
} q_moments;
/* Makes h = U D U' of block b (0 .. ceil(k / block) - 1), once; tmp: q_moments_tmp bytes. */
void q_moments_factor(q_moments *m, int b, void *tmp);
size_t q_moments_tmp(int block);
/* Inputs of k columns each may lie one behind the other in m->k: moments of the i-th. */
static inline q_moments q_moments_part(const q_moments *m, int k, int i)
{
    const size_t at = (size_t)i * (size_t)k;
    return (q_moments){ k, m->block, m->h + at * (size_t)m->block, m->d ? m->d + at : NULL };
}
/* As q_encode_group; float types do not care for m, pairs take the diagonal of H for importances.
 * tmp: q_feedback_tmp bytes, 64-aligned. */
uint64_t q_encode_feedback(const q_kern *t, int type, void *out, const float *src, size_t ld,
                           int nrows, int k, const q_moments *m, double err2[2], void *tmp);
size_t q_feedback_tmp(int type, int k);

/* Value of one row of a group, k floats. */
void q_decode_row(int type, float *out, const void *group, int row, int k);

float q_f16_to_f32(uint16_t h);
uint16_t q_f32_to_f16(float f);   /* round to nearest even */
static inline float q_bf16_to_f32(uint16_t h)
{
    union { uint32_t u; float f; } v = { (uint32_t)h << 16 };
    return v.f;
}
uint16_t q_f32_to_bf16(float f);  /* round to nearest even, by integers */
float q_f8e4m3_to_f32(uint8_t b); /* OCP E4M3 "fn": no infinity, NaN = 0x7f, 0xff */

/* ------------------------------------------------------------------------------------------
 * Activations.  A matrix input of M tokens, k padded to kt tiles of 64, in tile-major order so that
 * a block of tokens of one tile is contiguous: constant displacements for every ISA, ready to be an
 * AMX A tile.  Process-private, never on disk.  kt is also the number of 64-k tiles of the matrix:
 * its groups are q_group_bytes(type, 64 * kt) apart.  When kt is odd there is memory for one tile
 * more, zeroed by q_acts_init and written by nobody: types with tiles of 128 k may multiply it.
 *   nsum is minus the sum of each 16 codes: u8-weight ISAs start their accumulators from it
 *   (shifted by the format's offset).  All tables write all planes, so tables may be mixed.
 *   u is a second copy of q as one table's products of many tokens read it (q_order_fn): where it
 *   is NULL each call makes a copy of what it needs, so a matrix cut into jobs makes it often. */
typedef struct q_acts {
    int8_t *q;      /* (kt, M, 64), 64-aligned */
    float *d;       /* (kt, M) */
    int32_t *nsum;  /* (kt, M, 4) */
    uint8_t *u;     /* q_order_bytes, 64-aligned, or NULL, as q_acts_init leaves it */
    int M;          /* tokens: the stride */
    int kt;         /* ceil(k / 64) */
} q_acts;

size_t q_acts_bytes(int M, int k);                    /* memory for q_acts_init */
void q_acts_init(q_acts *a, void *mem, int M, int k); /* mem 64-aligned; kt tiles undefined */

/* Bits above 0x7f7fffff mark a non-finite f32; functions below return nonzero when they met one. */

/* One A64 quantisation: tiles t0 .. t0+nt-1 of token m of *a from x[0..n), zero-padded to nt*64
 * (n <= nt * 64).
 * Per tile: m = max abs; m < 2^-100 -> d = 0, q = 0; else inv = 127 / m, q = rne(x * inv),
 * d = m / 127. */
typedef int q_quant_a64_fn(q_acts *a, int m, int t0, int nt, const float *x, int n);

/* Copies tiles t0 .. t0+nt-1 of tokens m0 .. m0+m-1 from x->q to x->u; products of tokens want all
 * tiles of theirs there.  Pays when the input of a matrix has Q_ORDER tokens or more. */
enum { Q_ORDER = 12 };
typedef void q_order_fn(const q_acts *x, int m0, int m, int t0, int nt);
size_t q_order_bytes(int M, int k);

/* Two-byte quantisation of one query head: token 2m of *a gets hi with d = 254 * d, token 2m+1 gets
 * lo with d.  Per 64: m as above, < 2^-100 -> 0; inv = 32384 / m, q = rne(x * inv), d = m / 32384;
 * hi = (q + 32639) / 254 - 128, lo = q - 254 * hi.  Fills all a->kt tiles, zero-padded. */
typedef int q_quant_a16_fn(q_acts *a, int m, const float *x, int n);

/* ------------------------------------------------------------------------------------------
 * Matrices.  y[j * ldy + r] = <row r of W, token m0 + j of x>, 0 <= r < n, 0 <= j < m.
 * w: ceil(n/16) consecutive row groups, 64-aligned; any n >= 1 (the store of the last group is
 * clipped); y overlaps nothing; reads nothing past the last tile.  tmp: Q_TMP bytes, 64-aligned.
 * Bits: z[t] exact int32, f = fma(d[t], (float)z[t], f), t ascending from f = 0; y = row_scale * f.
 * |z| <= 4*16*127*127*127 = 131,096,512 (L8), less for all others. */
typedef void q_gemm_a8_fn(float *y, size_t ldy, const void *w, int n, const q_acts *x, int m0,
                          int m, void *tmp);
typedef q_gemm_a8_fn q_gemm_l8_fn, q_gemm_l6_fn, q_gemm_n5_fn, q_gemm_n4_fn, q_gemm_n4s_fn;
typedef q_gemm_a8_fn q_gemm_p6_fn, q_gemm_p5_fn;

/* Float weights: f = fma(w[k], x[k], f), k ascending from 0, y = f + 0.0f.
 * k: padded to 64; x: (m, k), row stride ldx floats, padding written as zeros, 64-aligned rows. */
typedef void q_gemm_f_fn(float *y, size_t ldy, const void *w, int n, int k, const float *x,
                         size_t ldx, int m, void *tmp);
typedef q_gemm_f_fn q_gemm_f32_fn, q_gemm_f16_fn, q_gemm_bf16_fn;

/* ------------------------------------------------------------------------------------------
 * Passes of the encoder over one row group of a code type (q_encode_group runs them; encode.h has
 * q_enc, ref_encode.c the order of every operation: lanes are rows, sums run over k ascending).
 * tiles: those of the group; each pass reads in it what the one before left. */
typedef struct q_enc q_enc;
/* Largest magnitude of each row as bits (above 0x7f7fffff: not finite), 0 for rows >= nrows. */
typedef void q_enc_max_fn(uint32_t max_bits[16], const float *src, size_t ld, int nrows, int k);
/* The best real sigma of each sub-block, left in the planes; top[r] = largest |sigma|. */
typedef void q_enc_fit_fn(const q_enc *in, uint8_t *tiles, float top[16]);
/* Sub-scales for row scales (of normalised weights); num / den fits the row scale to the codes. */
typedef void q_enc_round_fn(const q_enc *in, uint8_t *tiles, const float scale[16], double num[16],
                            double den[16]);
/* Codes for the final row scales, stored as in the group's head; per row the sums of (w - q)^2 and
 * of w^2. */
typedef void q_enc_pack_fn(const q_enc *in, uint8_t *tiles, const float scale[16],
                           const float stored[16], double err[16], double sum[16]);

/* ------------------------------------------------------------------------------------------
 * The KV block of one (layer, kv head): 256 positions, K part then V part, each 64-aligned.
 *   K int8 (Q_KV_8): 16 row groups of 16 positions in T16 L8 order, k = head dim padded to 64.
 *   K f32 / bf16   : 16 row groups in T16 F32 / BF16 order, k = head dim padded to 64.
 *   V int8         : [nb x 256 f32 dv], nb = ceil(hd/128); then 4 tiles of 64 positions, each
 *                    hdp/16 groups of 16 lines: line c = 16 dims x positions 4c..4c+3.
 *   V f32 / bf16   : 256 rows of hdp values, position-major.
 * hdp = hd up to a multiple of 16; padding of K and V is written as zeros.  hd <= 1024. */
typedef enum q_kv { Q_KV_F32 = 0, Q_KV_BF16 = 1, Q_KV_8 = 2 } q_kv;

size_t q_kv_k_bytes(q_kv t, int hd);
size_t q_kv_v_bytes(q_kv t, int hd);

/* Append position p (0..255) of one head.  Return nonzero when x is not finite (the block is then
 * unspecified at p).  K int8 = "L8 row" of exact.md 2: zero-padded to 64, M = max abs;
 * M < 2^-100 -> all 0; rs = M / 16129, inv = 127 / M; per 16: t = max abs * inv, n = rne(t),
 * s = min(n + (n < t), 127); s = 0 -> q = 0, else q = clamp(rne(x / (rs * (float)s)), -127, 127).
 * V int8 = A128 over the dims. */
typedef int q_kv_put_fn(void *blk, int p, const float *x, int hd);
typedef q_kv_put_fn q_put_k8_fn, q_put_v8_fn, q_put_kf32_fn, q_put_vf32_fn;
typedef q_kv_put_fn q_put_kbf16_fn, q_put_vbf16_fn;

/* Scores of m queries against the first 16*ng positions of a K block: s[j * lds + t].
 * q2: made by quant_a16; query j uses tokens 2*(m0+j), 2*(m0+j)+1.  Per tile:
 * f = fma(d_lo, (float)z_lo, fma(d_hi, (float)z_hi, f)); score = (row_scale * f) * scale.
 * Positions never written give unspecified scores (masked later). */
typedef void q_attn_qk8_fn(float *s, size_t lds, const void *kblk, int ng, const q_acts *q2, int m0,
                           int m, float scale);

/* One query's piece in place: s[0..nvis) scores -> e[t] = exp(s[t] - m), zeros up to n (a multiple
 * of 64, nvis >= 1).  *m = max, *l = 16-lane sum of e. */
typedef void q_attn_soft_fn(float *s, int nvis, int n, float *m, float *l);

/* o[j * ldo + dim], 0 <= dim < hd, from 0 over the piece: per 128 dims b and per 64 positions
 * u[t] = e[t] * dv[t][b] (t >= nvis[j]: 0), two bytes over the 64 positions, z = sum of q * code
 * (int32 exact, |z| <= 263,217,152), o = fma(d, (float)z, o), tiles ascending.  e: (m, lde), zeros
 * from nvis[j] up to a multiple of 64.  Tiles wholly past nvis[j] may be skipped (they add +0).
 * Returns nonzero if some u is not finite. */
typedef int q_attn_pv8_fn(float *o, size_t ldo, const void *vblk, int hd, const float *e,
                          size_t lde, const int *nvis, int m);
/* The same for V rows of f32 / bf16: o[dim] = fma(e[t], V[t][dim], o[dim]), t < nvis[j] ascending;
 * always 0, what is not finite shows in o. */
typedef q_attn_pv8_fn q_attn_pvf32_fn, q_attn_pvbf16_fn;

/* Merge piece (m2, l2, o2) into (m, l, o), pieces ascending, the first taken as is by the caller:
 * M' = max(M, m2); a = exp(M - M'), b = exp(m2 - M'); l = fma(l, a, l2 * b);
 * o = fma(o, a, o2 * b). */
typedef void q_attn_merge_fn(float *o, float *m, float *l, const float *o2, float m2, float l2,
                             int hd);
/* y = o / l + 0.0f */
typedef void q_attn_out_fn(float *y, const float *o, float l, int hd);

/* ------------------------------------------------------------------------------------------
 * Latents (MLA, absorbed): the block of one layer, 256 positions that all heads read.  Per position
 * a latent of `lora` dims, then `rope` rotated dims; one int8 copy serves both products.
 *   [ceil(lora/128) x 256 f32 dc] [ceil(rope/128) x 256 f32 dc], then 16 groups of 16 positions:
 *   the tiles of the latent, then those of the rotated dims, both padded to whole tiles of 64;
 *   a tile has 16 lines, line c = 16 positions x dims 4c..4c+3.  64-aligned.
 * With f32 and bf16 caches K = (latent, rotated) and V = latent by the functions above.
 * lora, rope <= 1024. */
size_t q_lat_codes(int lora, int rope); /* bytes of the scales in front of the codes */
size_t q_lat_bytes(int lora, int rope);

/* Append position p: A128 of x[0..lora) and of the rope dims that follow lora padded to 64.
 * Nonzero: not finite. */
typedef int q_put_lat8_fn(void *blk, int p, const float *x, int lora, int rope);
/* Scores as attn_qk8 gives them.  q2: two-byte queries over lora padded to 64, then rope.
 * Per tile: z = sum of (254 hi + lo) * code exact, |z| <= 263,217,152; g = d_lo * dc[its block],
 * f = fma(g, (float)z, f); score = f * scale. */
typedef void q_attn_qkl8_fn(float *s, size_t lds, const void *blk, int lora, int rope, int ng,
                            const q_acts *q2, int m0, int m, float scale);
/* The latents of positions 0..n-1 (n up to 64 more are written too) as an int8 V block of `lora`
 * dims (q_kv_v_bytes): the second product is attn_pv8's. */
typedef void q_lat_v8_fn(void *vblk, const void *blk, int lora, int rope, int n);

/* ------------------------------------------------------------------------------------------
 * Vectors.  n is a multiple of nothing; pointers need no alignment; y may be x where said. */
/* s = 16 lanes of fma(x,x,s); r = 1 / sqrt(s / n + eps); y = (x * r) * w.  y may be x.
 * Nonzero: s not finite. */
typedef int q_rmsnorm_fn(float *y, const float *x, const float *w, int n, float eps);
typedef void q_add_fn(float *y, const float *x, int n);            /* y += x */
typedef void q_axpy_fn(float *y, float a, const float *x, int n);  /* y = fma(a, x, y) */
/* gu: blocks of 16 gate, 16 up, ... (what a gemm over interleaved row groups writes); n outputs:
 * y[i] = silu(g) * u, silu(x) = x / (1 + exp(-x)). */
typedef void q_swiglu_fn(float *y, const float *gu, int n);
/* Rotates n heads of hd dims with stride ld; c, s: (hd/2).  Pairs (i, i + hd/2), or neighbours:
 * (fma(a, c, -(b * s)), fma(b, c, a * s)) */
typedef void q_rope_fn(float *x, size_t ld, int n, int hd, const float *c, const float *s);
typedef q_rope_fn q_rope_half_fn, q_rope_pair_fn;
/* Highest value, lowest index on ties; n >= 1. */
typedef int q_argmax_fn(const float *x, int n);
/* p[i] = exp((x[i] - max) / T), returns the 16-lane sum. */
typedef float q_softmax_fn(float *p, const float *x, int n, float max, float T);
/* The i with lo <= x[i] < hi, ascending, into at[0..n); returns how many. */
typedef int q_band_fn(int32_t *at, const float *x, int n, float lo, float hi);
typedef int q_nonfinite_fn(const float *x, int n);                 /* nonzero if any */
/* SHA-256 compression of nblk 64-byte blocks into h[8]. */
typedef void q_sha256_fn(uint32_t h[8], const uint8_t *p, size_t nblk);

/* The experts of one token (exact.md 3).  logits, bias: (n); s = sigmoid(logit), b = s + bias;
 * the n_group_used groups with the largest sum of their two best b, then the k largest b in them,
 * ties to the lower index.  idx[0..k) ascending, w[i] = s / (sum of s + 1e-20) * scale, without the
 * division when norm is false.  n is a multiple of n_group; k <= n / n_group * n_group_used.
 * n <= Q_MAX_EXPERTS.  Nonzero: a score is not finite.  The same scalar code on every CPU. */
enum { Q_MAX_EXPERTS = 4096 };
int q_route(int32_t *idx, float *w, const float *logits, const float *bias, int n, int n_group,
            int n_group_used, int k, bool norm, float scale);

/* cos and sin of one position, n pairs: c[i] = (float)(cos(pos * f[i]) * mult), by the double
 * routine of exact.md 2.  Scalar, once per position; the same code for every CPU. */
void q_rope_angles(float *c, float *s, const double *f, double mult, int n, int64_t pos);

/* ------------------------------------------------------------------------------------------
 * CPU levels and the table. */
typedef enum q_cpu_bits {
    Q_CPU_AVX2 = 1 << 0,        /* AVX2 + FMA + F16C */
    Q_CPU_AVXVNNI = 1 << 1,
    Q_CPU_AVX512VNNI = 1 << 2,  /* F, BW, VL, DQ, VNNI */
    Q_CPU_SHANI = 1 << 3,
    Q_CPU_AMX = 1 << 4,         /* AMX-TILE, AMX-INT8, and all of AVX512VBMI */
    Q_CPU_AVX512VBMI = 1 << 5,  /* VBMI, and all of AVX512VNNI */
    Q_CPU_NEON = 1 << 8,
    Q_CPU_DOTPROD = 1 << 9,
    Q_CPU_I8MM = 1 << 10,
    Q_CPU_ARMSHA2 = 1 << 11
} q_cpu_bits;

struct q_kern { /* one complete table; plain data, copyable */
    uint32_t cpu;       /* features this table may use */
    const char *level;  /* "ref", "avx2", ... */
    q_order_fn *order;  /* NULL: no product of this table reads u.  Private to it: not mixed */
    float smmla;        /* speed of i8mm over dotprod as measured by q_kern_make, 0: not measured */
#define Q_OP(name) q_##name##_fn *name;
#include "quant/ops.def"
#undef Q_OP
};

uint32_t q_cpu_detect(void);                 /* features of this CPU that the OS lets us use */
uint32_t q_cpu_usable(void);                 /* those of them this build has kernels for */
/* Levels usable here, lowest first: names[0] is "ref".  Returns the count (<= 8). */
int q_cpu_levels(const char *names[8]);
/* Fills *t for a level by name; NULL or "" or "auto" = the highest usable.  false: this CPU or
 * build lacks it.  Where the highest is i8mm, auto takes a millisecond to time it against dotprod
 * and stays with that if smmla is the slower (Apple, Oryon); by name nothing is timed. */
bool q_kern_make(q_kern *t, const char *level);

/* 0 when this build computes as arith 1 demands (no contraction, correct fmaf, no FTZ/DAZ), else a
 * text naming what is wrong.  Call once at start-up. */
const char *q_selftest(void);

/* The weight gemm of a type: exactly one of the two is set. */
typedef struct q_gemm { q_gemm_a8_fn *a8; q_gemm_f_fn *f; } q_gemm;
q_gemm q_gemm_for(const q_kern *t, int type);

#endif
