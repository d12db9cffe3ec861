/* t_encode.c - enc 1: quality, the same bytes everywhere, and what a group does with odd input.
 *
 * The golden hashes pin every byte of the encoder: they are one value for all compilers, CPUs and
 * (under an emulator) architectures.  A better search is a new number, enc 2, and new hashes. */
#include "quant/quant.h"
#include "quant/scalar.h"
#include "tests/test.h"

static q_kern kern; /* the level under test */
static uint64_t state;

static uint32_t next(void)
{
    state += 0x9e3779b97f4a7c15u;
    uint64_t z = (state ^ state >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ z >> 31) >> 32);
}

static double uniform(void) { return (next() + 0.5) * 0x1p-32; }
static float gauss(void)
{
    const double r = sqrt(-2.0 * log(uniform()));
    return (float)(r * cos(6.283185307179586 * uniform()));
}

/* Bell-shaped by integers: exact, so the same on every machine. */
static float bell(void)
{
    uint32_t s = 0;
    for (int i = 0; i < 4; i++) s += next() >> 12;
    return (float)((int32_t)s - (1 << 21)) * 0x1p-25f;
}

static const int codes[] = { Q_L8, Q_L6, Q_N5, Q_N4, Q_N4S, Q_P6, Q_P5 };
static const int types[] = { Q_F32, Q_F16, Q_BF16, Q_L8, Q_L6, Q_N5, Q_N4, Q_N4S, Q_P6, Q_P5 };
enum { N_CODES = 7, N_TYPES = 10 };

static void *aligned(size_t n)
{
    void *p = aligned_alloc(64, (n + 63) / 64 * 64);
    if (!p) exit(1);
    return p;
}

static void quality(void)
{
    enum { K = 1536, ROWS = 64 };
    static const double bar[N_CODES] = { 46.0, 35.4, 29.7, 23.8, 22.5, 16.6, 13.6 };
    float *w = aligned(ROWS * K * sizeof *w), *v = aligned(K * sizeof *v);
    state = 1;
    for (int i = 0; i < ROWS * K; i++) w[i] = gauss();
    for (int t = 0; t < N_CODES; t++) {
        const size_t bytes = q_group_bytes(codes[t], K);
        void *out = aligned(bytes);
        double e = 0, s = 0, e_out = 0;
        for (int r = 0; r < ROWS; r += 16) {
            double err2[2];
            T_OK(!q_encode_group(&kern, codes[t], out, w + r * K, K, 16, K, NULL, err2), "encodes");
            e += err2[0];
            s += err2[1];
            for (int i = 0; i < 16; i++) {
                q_decode_row(codes[t], v, out, i, K);
                for (int k = 0; k < K; k++) {
                    const double d = (double)w[(r + i) * K + k] - (double)v[k];
                    e_out += d * d;
                }
            }
        }
        const double db = 10.0 * log10(s / e);
        printf("%s: %.2f dB\n", q_type_info(codes[t])->name, db);
        T_OK(db >= bar[t], "%s: %.2f dB, wanted %.1f", q_type_info(codes[t])->name, db, bar[t]);
        T_OK(fabs(e - e_out) <= 1e-9 * e, "%s: err2 is the error of what was written",
             q_type_info(codes[t])->name);
        free(out);
    }
    free(w);
    free(v);
}

/* Importance moves error away from the columns that matter. */
static void importance(void)
{
    enum { K = 512 };
    static float w[16 * K], imp[K], v[K];
    static uint8_t out[16384];
    state = 2;
    for (int i = 0; i < 16 * K; i++) w[i] = gauss();
    for (int k = 0; k < K; k++) imp[k] = k % 8 ? 0.01f : 1.0f;
    for (int t = 0; t < N_CODES; t++) {
        double err[2][2] = { { 0 } }; /* [with importance][column matters] */
        for (int with = 0; with < 2; with++) {
            q_encode_group(&kern, codes[t], out, w, K, 16, K, with ? imp : NULL, NULL);
            for (int r = 0; r < 16; r++) {
                q_decode_row(codes[t], v, out, r, K);
                for (int k = 0; k < K; k++) {
                    const double d = (double)w[r * K + k] - (double)v[k];
                    err[with][k % 8 == 0] += d * d;
                }
            }
        }
        T_OK(err[1][1] < 0.9 * err[0][1], "%s: important columns: error %g, without %g",
             q_type_info(codes[t])->name, err[1][1], err[0][1]);

        static float zero[K];
        static uint8_t plain[16384];
        q_encode_group(&kern, codes[t], plain, w, K, 16, K, NULL, NULL);
        q_encode_group(&kern, codes[t], out, w, K, 16, K, zero, NULL);
        T_OK(!memcmp(plain, out, q_group_bytes(codes[t], K)),
             "%s: columns of no importance at all count alike", q_type_info(codes[t])->name);
    }
}

static void hex(char out[65], const uint8_t *p, size_t n)
{
    q_kern k;
    uint32_t h[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };
    uint8_t last[128] = { 0 };
    const size_t rest = n % 64, blocks = rest < 56 ? 1 : 2;
    q_kern_make(&k, "ref");
    k.sha256(h, p, n / 64);
    memcpy(last, p + n - rest, rest);
    last[rest] = 0x80;
    for (int i = 0; i < 8; i++)
        last[blocks * 64 - 1 - (size_t)i] = (uint8_t)((uint64_t)n * 8 >> 8 * i);
    k.sha256(h, last, blocks);
    for (int i = 0; i < 8; i++) snprintf(out + 8 * i, 9, "%08x", (unsigned)h[i]);
}

/* 37 rows of 1000: a last group of 5 rows, a k that ends inside a sub-block, rows of very different
 * sizes, blocks of zeros, an outlier per row. */
enum { GK = 1000, GROWS = 37 };

static void golden_matrix(float *w, float *imp, float largest)
{
    state = 3;
    for (int r = 0; r < GROWS; r++) {
        const float unit = r == 5   ? 0.0f
                           : r == 6 ? 0x1p-140f
                           : r == 7 ? largest
                                    : (float)(1 + r % 4);
        for (int k = 0; k < GK; k++)
            w[r * GK + k] = r % 3 == 0 && k / 16 % 7 == 2 ? 0.0f : bell() * unit;
        w[r * GK + (int)(next() % GK)] *= 9.0f;
    }
    for (int k = 0; k < GK; k++) imp[k] = (float)(1 + next() % 1000) * 0x1p-8f;
}

static void goldens(void)
{
    static const char *const want[N_TYPES] = {
        "d285bbd515897d685ed2e71cdeea7a086583ffdd69ba823a93fa8f8bc354a418",
        "99512f50e5eb14e67049ccfdd4e22edaaebcd275f20837abbcac2ca36caf7244",
        "5d7f8313a126b2c932d73c89ab7d3d200e6a4d74b4948b0695f164e07f9d5e82",
        "49e48d86e2408e9fe98ef1a7bc058f92230ee77b6757b40f733920811ad2397a",
        "79a6105ad9b252370578f7fee4fa794edd83392f8c2f0f178080458228515f2a",
        "0b4de359abf2916be1408bc30185612262668b20ff659b854b05d0c4d5e43b08",
        "2cea34b032ff1e8b171fcb85035aa97e38eefd0da3784a533f5d0b610e7d285b",
        "b3bcde622c638bee23cfc4cff970934bc5ff930061de53a85a40e1cecbba6c18",
        "18947b0eab29674ff6b9bfb9877f073933bbec0cc5d7b42e8a7032bc043a6ff0",
        "f9f5800b32975557b03cdcf48614c230184eb22d7c8224e8b4608c2416a0f714",
    };
    float *w = aligned(GROWS * GK * sizeof *w), imp[GK];
    for (int t = 0; t < N_TYPES; t++) {
        golden_matrix(w, imp, types[t] == Q_F16 ? 0x1p+12f : 0x1p+120f);
        const size_t bytes = q_group_bytes(types[t], GK);
        uint8_t *out = aligned(6 * bytes);
        memset(out, 0xa5, 6 * bytes);
        int bad = 0;
        for (int i = 0; i < 6; i++) { /* three groups, then the same with importance */
            const int r = i % 3 * 16, n = GROWS - r < 16 ? GROWS - r : 16;
            bad += q_encode_group(&kern, types[t], out + (size_t)i * bytes, w + r * GK, GK, n, GK,
                                  i < 3 ? NULL : imp, NULL) != 0;
        }
        T_OK(!bad, "%s: encodes", q_type_info(types[t])->name);
        char got[65];
        hex(got, out, 6 * bytes);
        T_OK(!strcmp(got, want[t]), "%s: %s, wanted %s", q_type_info(types[t])->name, got, want[t]);
        free(out);
    }
    free(w);
}

/* Do all bytes belong to row 0?  It has lane 0 of every line, but the first of 16 bytes in a line
 * of sub-scales, and bytes 0, 1, 8 and 9 of lines of pairs. */
static int only_row0(int type, const uint8_t *group, int k)
{
    const q_typeinfo *info = q_type_info(type);
    const size_t n = q_group_bytes(type, k), head = (size_t)info->head_bytes;
    for (size_t i = 0; i < n; i++) {
        const int scales = head && i >= head && (i - head) % (size_t)info->tile_bytes < 64;
        const int pairs = i >= head && (type == Q_P6 || type == Q_P5);
        const int mine = scales ? i % 16 == 0 : pairs ? i % 64 < 10 && i % 8 < 2 : i % 64 < 4;
        if (!mine && group[i]) return 0;
    }
    return 1;
}

/* A row's bytes depend on nothing but the row: any split of rows among threads gives the same file.
 */
static void rows_alone(void)
{
    enum { K = 200 };
    float w[16 * K], a[K], b[K];
    static uint8_t all[16384], one[16384];
    state = 4;
    for (int i = 0; i < 16 * K; i++) w[i] = bell() * (float)(1 + i / K * 100);
    for (int t = 0; t < N_TYPES; t++) {
        int same = 1, rest = 1;
        q_encode_group(&kern, types[t], all, w, K, 16, K, NULL, NULL);
        for (int r = 0; r < 16; r++) {
            q_encode_group(&kern, types[t], one, w + r * K, K, 1, K, NULL, NULL);
            q_decode_row(types[t], a, all, r, K);
            q_decode_row(types[t], b, one, 0, K);
            same &= !memcmp(a, b, sizeof a);
            rest &= only_row0(types[t], one, K);
        }
        T_OK(same, "%s: rows alone and together", q_type_info(types[t])->name);
        T_OK(rest, "%s: missing rows are zero", q_type_info(types[t])->name);
    }
}

static void odd_input(void)
{
    enum { K = 130 };
    static float w[3 * K], v[K];
    static uint8_t out[65536];
    for (int t = 0; t < N_TYPES; t++) {
        const char *name = q_type_info(types[t])->name;
        const size_t bytes = q_group_bytes(types[t], K);
        memset(w, 0, sizeof w);
        memset(out, 0xff, sizeof out);
        double err2[2];
        T_OK(!q_encode_group(&kern, types[t], out, w, K, 3, K, NULL, err2), "%s: zeros", name);
        size_t used = 0;
        for (size_t i = 0; i < bytes; i++) used += out[i] != 0;
        T_OK(used == 0 && err2[0] == 0.0 && err2[1] == 0.0, "%s: zeros are all zero bytes", name);
        T_OK(out[bytes] == 0xff, "%s: nothing behind the group", name);

        static const uint32_t bad[] = { 0x7f800000, 0xff800000, 0x7fc00000, 0xff812345 };
        for (int i = 0; i < 4; i++) {
            w[1 * K + 77] = q_float(bad[i]);
            w[2 * K + 3] = q_float(bad[i]);
            T_OK(q_encode_group(&kern, types[t], out, w, K, 3, K, NULL, NULL) == 1 + 1 * K + 77,
                 "%s: %08x is found", name, (unsigned)bad[i]);
        }
        memset(w, 0, sizeof w);
        w[1 * K + 77] = 0x1p+100f;
        const uint64_t ret = q_encode_group(&kern, types[t], out, w, K, 3, K, NULL, NULL);
        T_OK(ret == (types[t] == Q_F16 ? 1 + 1 * K + 77 : 0), "%s: a weight beyond f16", name);

        /* The largest and the smallest numbers come back finite, and roughly themselves: of points
         * that suit -1/2 and 1 the far ones have a y of 24, whose scale for the largest float would
         * be infinite times 31. */
        const float near = types[t] == Q_P6 || types[t] == Q_P5 ? 0.25f : 0.2f;
        static const float sizes[] = { 0x1.fffffep+127f, 0x1p-126f, 0x1p-140f };
        for (int i = 0; i < 3; i++) {
            if (q_type_info(types[t])->is_float) continue;
            for (int k = 0; k < 3 * K; k++) w[k] = k % 2 ? sizes[i] : -0.5f * sizes[i];
            T_OK(!q_encode_group(&kern, types[t], out, w, K, 3, K, NULL, NULL), "%s: %g", name,
                 (double)sizes[i]);
            int far = 0;
            for (int r = 0; r < 3; r++) {
                q_decode_row(types[t], v, out, r, K);
                for (int k = 0; k < K; k++) far += !(fabsf(v[k] - w[r * K + k]) <= near * sizes[i]);
            }
            T_OK(far == 0, "%s: %d of %d values far from %g", name, far, 3 * K, (double)sizes[i]);
        }
        memset(w, 0, sizeof w);
    }
}

int main(void)
{
    const char *levels[8];
    const int n = q_cpu_levels(levels);
    q_enc_fit_fn *seen = NULL;
    for (int i = 0; i < n; i++) {
        T_OK(q_kern_make(&kern, levels[i]), "level %s", levels[i]);
        if (kern.enc_fit == seen) continue; /* inherited from the level below */
        seen = kern.enc_fit;
        printf("%s\n", levels[i]);
        quality();
        importance();
        goldens();
        rows_alone();
        odd_input();
    }
    return t_done("t_encode");
}
