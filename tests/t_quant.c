/* t_quant.c - layer 0 without the kernels: layout, conversions, exp, rope, tables of types and
 * levels.
 *
 * Layout tests write the byte i of a group as i mod 251 (a prime, so no two lines look alike) and
 * compare with positions spelled out from the table in quant.h, not with quant/t16.h. */
#include "quant/quant.h"
#include "quant/scalar.h"
#include "tests/test.h"

static uint8_t pattern(size_t i) { return (uint8_t)(i % 251); }

/* ---- layout ---- */

/* The same of the pairs of P6 and P5: 4 + 2 or 4 + 1 lines for 64 k. */
static int spelled_pair(int type, const uint8_t *tile, int row, int k)
{
    const uint8_t *planes = tile + 64 + k / 64 * 64 * (type == Q_P6 ? 6 : 5);
    const int run = k % 64 / 8, in_line = row / 4 * 16 + k / 4 % 2 * 8 + row % 4 * 2 + k / 2 % 2;
    const uint8_t nibbles = planes[64 * (run % 4) + in_line];
    const int low = run < 4 ? nibbles & 15 : nibbles >> 4;
    if (type == Q_P5) return q_points_p5[k % 2][low + 16 * (planes[256 + in_line] >> run & 1)];
    const uint8_t pairs = planes[256 + 64 * (run % 2) + in_line];
    return q_points_p6[k % 2][low + 16 * (pairs >> run / 2 * 2 & 3)];
}

/* Grid value of (row, k) in a tile of a quantised type, by the words of quant.h. */
static int spelled(int type, const uint8_t *tile, int row, int k)
{
    if (type == Q_P6 || type == Q_P5) return spelled_pair(type, tile, row, k);
    const int chunk = k / 4, byte = k % 4; /* lane = row: bytes 4 * row .. of a line */
    const uint8_t *planes = tile + 64;
    if (type == Q_L8) return (int8_t)planes[64 * chunk + 4 * row + byte];
    const int b = chunk / 8, c = chunk % 8; /* block of 32 k, chunk in it */
    const uint8_t nibbles = planes[64 * (4 * b + (c < 4 ? c : c - 4)) + 4 * row + byte];
    const int low = c < 4 ? nibbles & 15 : nibbles >> 4;
    if (type == Q_N5) return q_grid_n5[low + 16 * (planes[512 + 64 * b + 4 * row + byte] >> c & 1)];
    if (type != Q_L6) return q_grid_n4[low];
    const int line = c & 1, p = c / 2; /* chunk = line + 2p */
    const uint8_t pairs = planes[512 + 64 * (2 * b + line) + 4 * row + byte];
    return low + 16 * (pairs >> 2 * p & 3) - 32;
}

static void layout_codes(void)
{
    static const int types[] = { Q_L8, Q_L6, Q_N5, Q_N4, Q_N4S, Q_P6, Q_P5 };
    enum { K = 384 };
    static _Alignas(64) uint8_t group[16384];
    static float want[K], got[K], y[16];
    static uint8_t mem[1 << 16];
    q_kern ref;
    q_kern_make(&ref, "ref");
    for (int t = 0; t < 7; t++) {
        const q_typeinfo *info = q_type_info(types[t]);
        const size_t n = q_group_bytes(types[t], K);
        for (size_t i = 0; i < n; i++) group[i] = pattern(i);
        for (size_t i = 64; i < n; i++)
            if (group[i] == 0x80) group[i] = 0x7f; /* -128 is no code and no sub-scale */
        for (int r = 0; r < 16; r++) { /* the scale line, finite and telling */
            const float s = 0x1p-10f * (float)(1 + r);
            memcpy(group + 4 * r, &s, 4);
        }
        int bad = 0;
        for (int r = 0; r < 16; r++) {
            q_decode_row(types[t], got, group, r, K);
            for (int k = 0; k < K; k++) {
                const uint8_t *tile = group + 64 + (size_t)(k / info->tile_k * info->tile_bytes);
                const int j = k % info->tile_k, per = info->tile_k / 4;
                const int s = (int8_t)tile[16 * (j / per) + r];
                want[k] = 0x1p-10f * (float)(1 + r) * (float)(s * spelled(types[t], tile, r, j));
            }
            bad += memcmp(want, got, sizeof want) != 0;
        }
        T_OK(bad == 0, "%s: %d rows decode to something else", info->name, bad);

        /* A product with one activation is one column. */
        q_acts x;
        T_OK(q_acts_bytes(1, K) <= sizeof mem - 64, "room");
        q_acts_init(&x, mem + (64 - (uintptr_t)mem % 64) % 64, 1, K);
        bad = 0;
        for (int k = 0; k < K; k += 7) {
            for (int i = 0; i < x.kt; i++) x.d[i] = 1.0f;
            memset(x.q, 0, (size_t)x.kt * 64);
            x.q[k] = 1;
            q_gemm_for(&ref, types[t]).a8(y, 16, group, 16, &x, 0, 1, NULL);
            for (int r = 0; r < 16; r++) {
                q_decode_row(types[t], got, group, r, K);
                bad += y[r] != got[k];
            }
        }
        T_OK(bad == 0, "%s: %d products with one activation are not the weight", info->name, bad);
    }
}

static void layout_floats(void)
{
    enum { K = 70, KP = 128 };
    static float w[16 * K], v[K];
    static _Alignas(64) uint8_t out[16 * KP * 4];
    q_kern kern;
    q_kern_make(&kern, NULL);
    for (int i = 0; i < 16 * K; i++) w[i] = (float)(i % 251);
    for (int type = Q_F32; type <= Q_BF16; type++) {
        const size_t size = type == Q_F32 ? 4 : 2, n = q_group_bytes(type, K);
        int bad = q_encode_group(&kern, type, out, w, K, 16, K, NULL, NULL) != 0;
        T_OK(n == 16 * KP * size, "%s: %d bytes", q_type_info(type)->name, (int)n);
        for (int r = 0; r < 16; r++) {
            for (int k = 0; k < KP; k++) {
                const float f = k < K ? w[r * K + k] : 0.0f;
                uint32_t got = 0, want = q_bits(f);
                /* line k of 16 floats, or line k/2 of 16 pairs */
                const uint8_t *p = size == 4 ? out + 64 * k + 4 * r
                                             : out + 64 * (k / 2) + 4 * r + 2 * (k % 2);
                memcpy(&got, p, size);
                if (type == Q_BF16) want >>= 16;
                if (type == Q_F16) want = q_f32_to_f16(f);
                bad += got != want;
            }
            q_decode_row(type, v, out, r, K);
            bad += memcmp(v, w + r * K, sizeof v) != 0;
        }
        T_OK(bad == 0, "%s: %d values are elsewhere", q_type_info(type)->name, bad);
    }
}

/* Encoding what a code can say exactly gives it back. */
static void round_trip(void)
{
    enum { K = 256 };
    static const int types[] = { Q_L8, Q_L6, Q_N5, Q_N4, Q_N4S, Q_P6, Q_P5 };
    static float w[16 * K], v[K];
    static _Alignas(64) uint8_t out[8192];
    q_kern kern;
    q_kern_make(&kern, NULL);
    uint32_t z = 12345;
    for (int t = 0; t < 7; t++) {
        int point = 0;
        for (int i = 0; i < 16 * K; i++) {
            z = z * 1664525u + 1013904223u;
            const int c = (int)(z >> 24),
                      first = i % 16 == 0; /* the end of the grid occurs in each block */
            /* Pairs: (30, 0) of P6 and (31, -3) of P5 have the largest x. */
            if (i % 2 == 0) point = types[t] == Q_P6 ? (first ? 63 : c % 64) : first ? 31 : c % 32;
            const int g = types[t] == Q_P6 ? q_points_p6[i % 2][point]
                          : types[t] == Q_P5 ? q_points_p5[i % 2][point]
                          : types[t] == Q_L8   ? (first ? 127 : c % 255 - 127)
                          : types[t] == Q_L6 ? (first ? -32 : c % 64 - 32)
                          : types[t] == Q_N5 ? q_grid_n5[first ? 0 : c % 32]
                                             : q_grid_n4[first ? 0 : c % 16];
            w[i] = (float)g * 0x1p-6f;
        }
        int bad = 0;
        q_encode_group(&kern, types[t], out, w, K, 16, K, NULL, NULL);
        for (int r = 0; r < 16; r++) {
            q_decode_row(types[t], v, out, r, K);
            for (int k = 0; k < K; k++) bad += fabsf(v[k] - w[r * K + k]) > 0x1p-20f;
        }
        T_OK(bad == 0, "%s: %d values on the grid came back changed", q_type_info(types[t])->name,
             bad);
    }
}

/* V int8: scales first, then by 64 positions, 16 dims, lines of 16 dims x 4 positions. */
static void layout_v8(void)
{
    enum { HD = 144 }; /* two scale blocks, nine groups of dims */
    static uint8_t blk[2 * 256 * 4 + 256 * HD];
    static float x[HD];
    q_kern ref;
    q_kern_make(&ref, "ref");
    T_OK(q_kv_v_bytes(Q_KV_8, HD) == sizeof blk, "size of a V block");
    T_OK(q_kv_k_bytes(Q_KV_8, 80) == 16 * (64 + 2 * 1088), "size of a K block");
    int bad = 0;
    for (int p = 0; p < 256; p++) {
        for (int i = 0; i < HD; i++) x[i] = (float)((p * HD + i) % 251 - 125);
        x[3] = 127.0f; /* scale 1 in both blocks */
        x[130] = -127.0f;
        bad += ref.put_v8(blk, p, x, HD);
    }
    for (int p = 0; p < 256; p++) {
        for (int b = 0; b < 2; b++) {
            float d;
            memcpy(&d, blk + 4 * (256 * b + p), 4);
            bad += d != 1.0f;
        }
        for (int i = 0; i < HD; i++) {
            const int want = i == 3 ? 127 : i == 130 ? -127 : (p * HD + i) % 251 - 125;
            const uint8_t *tile = blk + 2 * 256 * 4 + (p / 64) * 64 * HD;
            const int8_t got =
                (int8_t)tile[(i / 16) * 1024 + (p % 64 / 4) * 64 + (i % 16) * 4 + p % 4];
            bad += got != want;
        }
    }
    T_OK(bad == 0, "V block: %d values are elsewhere", bad);
}

/* ---- conversions ---- */

static void conversions(void)
{
    int bad = 0;
    for (uint32_t h = 0; h < 0x10000; h++) {
        const uint32_t e = h >> 10 & 31, m = h & 1023;
        const float f = q_f16_to_f32((uint16_t)h);
        const double sign = h & 0x8000 ? -1.0 : 1.0;
        if (e == 31) {
            bad += m ? f == f : (double)f != sign * INFINITY;
            continue;
        }
        bad += (double)f !=
               sign * (e ? ldexp(1024 + (double)m, (int)e - 25) : ldexp((double)m, -24));
        bad += q_f32_to_f16(f) != h;
        /* Halfway to the next: to even; a hair to either side: to the nearer. */
        const float up = e == 30 && m == 1023 ? 65536.0f * (float)sign
                                              : q_f16_to_f32((uint16_t)(h + 1));
        const float mid = f + (up - f) * 0.5f;
        bad += q_f32_to_f16(mid) != (h & 1 ? h + 1 : h);
        bad += q_f32_to_f16(q_float(q_bits(mid) - 1)) != h;
        bad += q_f32_to_f16(q_float(q_bits(mid) + 1)) != h + 1;
    }
    T_OK(bad == 0, "f16: %d wrong", bad);
    T_OK(q_f32_to_f16(1e30f) == 0x7c00 && q_f32_to_f16(-1e30f) == 0xfc00, "f16: overflow is inf");
    T_OK(q_f32_to_f16(q_float(0x7fc00000)) > 0x7c00, "f16: NaN stays NaN");
    T_OK(q_f32_to_f16(0x1p-25f) == 0 && q_f32_to_f16(0x1.000002p-25f) == 1,
         "f16: around half the smallest");

    bad = 0;
    for (uint32_t h = 0; h < 0x10000; h++) {
        const uint32_t u = h << 16;
        if ((u & 0x7fffffff) > 0x7f800000) continue;
        bad += q_f32_to_bf16(q_float(u)) != h;
        bad += q_bits(q_bf16_to_f32((uint16_t)h)) != u;
        if ((h & 0x7fff) >= 0x7f80) continue;
        bad += q_f32_to_bf16(q_float(u | 0x7fff)) != h;
        bad += q_f32_to_bf16(q_float(u | 0x8000)) != (h & 1 ? h + 1 : h);
        bad += q_f32_to_bf16(q_float(u | 0x8001)) != h + 1;
    }
    T_OK(bad == 0, "bf16: %d wrong", bad);
    T_OK(q_f32_to_bf16(q_float(0x7f800001)) > 0x7f80, "bf16: NaN stays NaN");

    bad = 0;
    for (int b = 0; b < 256; b++) {
        const int e = b >> 3 & 15, m = b & 7;
        const float f = q_f8e4m3_to_f32((uint8_t)b);
        if ((b & 127) == 127) bad += f == f;
        else bad += (double)f != (b & 128 ? -1.0 : 1.0) * (e ? ldexp(8 + m, e - 10) : ldexp(m, -9));
    }
    T_OK(bad == 0 && q_f8e4m3_to_f32(0x7e) == 448.0f, "f8 e4m3: %d wrong", bad);
}

/* ---- exp, rope ---- */

static void exponential(void)
{
    double worst = 0;
    float at = 0;
    for (uint32_t i = 0; i < 1500000; i++) {
        const float x = -87.0f + (float)i * (175.7f / 1500000);
        if (x > 88.7f) break;
        const double want = exp((double)x);
        const double ulp = ldexp(1.0, ilogb(want) - 23), err = fabs((double)q_exp(x) - want) / ulp;
        if (err > worst) {
            worst = err;
            at = x;
        }
    }
    printf("exp: at most %.3f ulp\n", worst);
    T_OK(worst < 0.92, "exp is off by %.3f ulp at %a", worst, (double)at);
    T_OK(q_exp(0.0f) == 1.0f && q_exp(-0.0f) == 1.0f, "exp(0)");
    T_OK(q_exp(-87.0f) > 0.0f && q_exp(-0x1.5c0002p+6f) == 0.0f, "the lower end");
    T_OK(q_exp(88.7f) < INFINITY && q_exp(0x1.62cccep+6f) == INFINITY, "the upper end");
    T_OK(q_exp(-INFINITY) == 0.0f && q_exp(INFINITY) == INFINITY, "exp of infinities");
}

static void rope(void)
{
    /* cos and sin of the double pos * f, computed with 60 digits and rounded once; f from
     * rope_reference.json.  355, 22 and 103993 are nearly multiples of pi. */
    static const struct { int64_t pos; double f; float c, s; } table[] = {
        { 163839, 0x1.3f8b743d8c22cp-5, 0x1.4f72dep-1f, 0x1.82ce1ap-1f }, /* R1, pair 11 */
        { 163839, 0x1.0000000000000p+0, 0x1.d4589ep-3f, -0x1.f26eaap-1f }, /* R1, pair 0 */
        { 163839, 0x1.bf749e693a056p-19, 0x1.b58124p-1f, 0x1.09f556p-1f }, /* R1, pair 31 */
        { 1, 0x1.7ff2224115d9ap-1, 0x1.76a96p-1f, 0x1.5cf59cp-1f }, /* R1, pair 1 */
        { 4096, 0x1.e5a84719edcd2p-3, -0x1.b11a3ap-1f, -0x1.111178p-1f }, /* R1, pair 5 */
        { 131071, 0x1.0000000000000p+0, -0x1.a2cebcp-1f, -0x1.268614p-1f }, /* Qwen, pair 0 */
        { 32768, 0x1.bb5fad00ab22cp-1, 0x1.f9ddbap-2f, 0x1.bd296p-1f }, /* Qwen, pair 1 */
        { 777, 0x1.ccab8602d2697p-5, 0x1.eadba4p-1f, -0x1.2338aap-2f }, /* Qwen, pair 20 */
        { 131071, 0x1.e459c57e28a47p-14, -0x1.ae776cp-1f, 0x1.153478p-1f }, /* Qwen, pair 63 */
        { 355, 0x1.0000000000000p+0, -0x1p+0f, -0x1.f9bd04p-16f }, /* Qwen, pair 0 */
        { 22, 0x1.0000000000000p+0, -0x1.fffadep-1f, -0x1.220a2ap-7f }, /* Qwen, pair 0 */
        { 0, 0x1.0000000000000p+0, 0x1p+0f, 0.0f }, /* Qwen, pair 0 */
        { 103993, 0x1.0000000000000p+0, 0x1p+0f, -0x1.40efep-16f }, /* Llama, pair 0 */
        { 99999, 0x1.e788c2ed352b4p-3, -0x1.156976p-2f, -0x1.ecda84p-1f }, /* Llama, pair 7 */
        { 131071, 0x1.1f91ef20d667dp-15, -0x1.bd37b4p-3f, -0x1.f3c15ap-1f }, /* Llama, pair 40 */
        { 131071, 0x1.4985fec80a8cbp-22, 0x1.ff95fap-1f, 0x1.496e9ap-5f }, /* Llama, pair 63 */
    };
    enum { N = sizeof table / sizeof table[0] };
    for (int i = 0; i < N; i++) {
        float c, s;
        q_rope_angles(&c, &s, &table[i].f, 1.0, 1, table[i].pos);
        T_OK(c == table[i].c && s == table[i].s,
             "pos %d, f %a: cos %a, wanted %a; sin %a, wanted %a", (int)table[i].pos, table[i].f,
             (double)c, (double)table[i].c, (double)s, (double)table[i].s);
        float c2, s2;
        q_rope_angles(&c2, &s2, &table[i].f, 2.0, 1, table[i].pos);
        T_OK(c2 == 2.0f * c && s2 == 2.0f * s, "the multiplier");
    }
    /* Everywhere: c and s of one angle are on the circle. */
    double worst = 0;
    for (int64_t pos = 0; pos < 200000; pos += 77) {
        const double f = 0.7071067811865476;
        float c, s;
        q_rope_angles(&c, &s, &f, 1.0, 1, pos);
        const double err = fabs((double)c * c + (double)s * s - 1.0);
        worst = err > worst ? err : worst;
    }
    T_OK(worst < 0x1p-23, "c^2 + s^2 = 1 within %g", worst);
}

/* ---- tables ---- */

static void types(void)
{
    static const int known[] = { Q_F32, Q_F16, Q_BF16, Q_L8, Q_L6, Q_N5, Q_N4, Q_N4S, Q_P6, Q_P5 };
    static const double bits[] = { 32, 16, 16, 8.5, 6.5, 5.5, 4.5, 4.25, 3.25, 2.75 };
    for (int i = 0; i < 10; i++) {
        const q_typeinfo *t = q_type_info(known[i]);
        T_OK(t && t->known && q_type_by_name(t->name) == t, "type %d", known[i]);
        T_OK(t->tile_bytes * 8 == bits[i] * 16 * t->tile_k, "%s: bits per weight", t->name);
        T_OK(q_group_bytes(known[i], 1) == (size_t)(t->head_bytes + t->tile_bytes), "%s: one tile",
             t->name);
        T_OK(q_pad_k(known[i], 65) == 128 && q_pad_k(known[i], 129) == 128 + t->tile_k,
             "%s: padding", t->name);
        T_OK(q_matrix_bytes(known[i], 17, 64) == 2 * q_group_bytes(known[i], 64), "%s: two groups",
             t->name);
        T_OK(q_matrix_bytes(known[i], UINT64_MAX, INT32_MAX) == UINT64_MAX, "%s: sizes do not wrap",
             t->name);
    }
    const q_typeinfo *n3 = q_type_info(Q_N3);
    T_OK(n3 && !n3->known && q_group_bytes(Q_N3, 64) == 0, "a reserved type");
    T_OK(!q_type_info(3) && !q_type_info(-1) && !q_type_by_name("q4_0"),
         "ids and names never assigned");
}

static void levels(void)
{
    const char *names[8];
    const int n = q_cpu_levels(names);
    T_OK(n >= 1 && !strcmp(names[0], "ref"), "ref is a level");
    for (int i = 0; i < n; i++) {
        q_kern t;
        T_OK(q_kern_make(&t, names[i]) && !strcmp(t.level, names[i]), "level %s", names[i]);
#define Q_OP(name) T_OK(t.name != NULL, "%s has no " #name, names[i]);
#include "quant/ops.def"
#undef Q_OP
        T_OK((t.cpu & ~q_cpu_usable()) == 0, "%s uses what is not there",
             names[i]);
        T_OK((t.cpu == 0) == (i == 0), "features of %s", names[i]);
        T_OK(t.smmla == 0, "%s was asked for by name and timed", names[i]);

        /* FIPS 180-4: "abc" */
        uint32_t h[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                          0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };
        const uint8_t abc[64] = { 'a', 'b', 'c', 0x80, [63] = 24 };
        t.sha256(h, abc, 1);
        T_OK(h[0] == 0xba7816bf && h[7] == 0xf20015ad, "%s: SHA-256", names[i]);
    }
    q_kern a, b;
    T_OK(q_kern_make(&a, NULL), "a level");
    if (strcmp(names[n - 1], "i8mm") != 0)
        T_OK(a.smmla == 0 && !strcmp(a.level, names[n - 1]), "the best level");
    else /* timed: either may win */
        T_OK(a.smmla > 0 && !strcmp(a.level, names[n - (a.smmla < 1 ? 2 : 1)]), "%s at %g", a.level,
             (double)a.smmla);
    T_OK(q_kern_make(&b, "auto") && q_kern_make(&b, ""), "auto");
    T_OK(!q_kern_make(&b, "sse9"), "a level of no CPU");
    T_OK(!q_gemm_for(&a, Q_N3).a8 && !q_gemm_for(&a, Q_N3).f, "no product for a reserved type");
    T_OK(q_gemm_for(&a, Q_N4).a8 && q_gemm_for(&a, Q_F32).f, "products");
}

int main(void)
{
    const char *wrong = q_selftest();
    T_OK(!wrong, "%s", wrong);
    layout_codes();
    layout_floats();
    layout_v8();
    round_trip();
    conversions();
    exponential();
    rope();
    types();
    levels();
    return t_done("t_quant");
}
