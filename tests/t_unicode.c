/* t_unicode.c - classes of code points, repair of UTF-8, and normalization. */
#include "core/base/mem.h"
#include "core/text/unicode.h"
#include "tests/test.h"

static void classes(void)
{
    static const struct { uint32_t cp; vq_uclass c;
    } cases[] = {
        { 0, VQ_U_OTHER },       { '\t', VQ_U_SPACE },    { 0x1c, VQ_U_OTHER },
        { ' ', VQ_U_SPACE },     { '!', VQ_U_P },         { '$', VQ_U_S },
        { '0', VQ_U_N },         { 'A', VQ_U_L },         { '_', VQ_U_P },
        { '`', VQ_U_S },         { 0x7f, VQ_U_OTHER },    { 0x85, VQ_U_SPACE },
        { 0xa0, VQ_U_SPACE },    { 0xaa, VQ_U_L },        { 0xad, VQ_U_OTHER },
        { 0xb2, VQ_U_N },        { 0x2bb, VQ_U_L },       { 0x300, VQ_U_M },
        { 0x663, VQ_U_N },       { 0x1680, VQ_U_SPACE },  { 0x180e, VQ_U_OTHER },
        { 0x200b, VQ_U_OTHER },  { 0x200d, VQ_U_OTHER },  { 0x2028, VQ_U_SPACE },
        { 0x202f, VQ_U_SPACE },  { 0x2160, VQ_U_N },      { 0x3000, VQ_U_SPACE },
        { 0x3007, VQ_U_N },      { 0x4e2d, VQ_U_L },      { 0xac00, VQ_U_L },
        { 0xd800, VQ_U_OTHER },  { 0xe000, VQ_U_OTHER },  { 0xfe0f, VQ_U_M },
        { 0xfeff, VQ_U_OTHER },  { 0xfffd, VQ_U_S },      { 0x1f600, VQ_U_S },
        { 0x1e4f0, VQ_U_N },     { 0x323af, VQ_U_L },     { 0x323b0, VQ_U_OTHER },
        { 0x32400, VQ_U_OTHER }, { 0xe0001, VQ_U_OTHER }, { 0xe0100, VQ_U_M },
        { 0xe01ef, VQ_U_M },     { 0xe01f0, VQ_U_OTHER }, { 0x10ffff, VQ_U_OTHER },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        vq_uclass c = vq_u_class(cases[i].cp);
        T_OK(c == cases[i].c, "U+%04lX: %d", (unsigned long)cases[i].cp, (int)c);
    }
    /* Sums of DerivedGeneralCategory-15.0.0.txt (L M N P S) and PropList.txt (White_Space). */
    static const long want[7] = { 0, 136104, 2450, 1831, 842, 7770, 25 };
    long count[7] = { 0 };
    for (uint32_t cp = 0; cp <= 0x10ffff; cp++) count[vq_u_class(cp)]++;
    for (int c = 1; c < 7; c++) T_OK(count[c] == want[c], "class %d: %ld", c, count[c]);
}

static void repair(void)
{
    static const struct { const char *in, *out; } cases[] = {
        { "", "" },
        { "plain", "plain" },
        { "\xff", "\xef\xbf\xbd" },
        { "a\x80\x80z", "a\xef\xbf\xbd\xef\xbf\xbdz" },
        { "\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd" },             /* overlong */
        { "\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" }, /* surrogate */
        { "\xe4\xb8", "\xef\xbf\xbd" },                         /* cut: one subpart */
        { "\xf0\x9f\x98", "\xef\xbf\xbd" },
        { "\xf0\x9f\x98\xe4\xb8\xad", "\xef\xbf\xbd\xe4\xb8\xad" },
        { "\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" },
        { "\x61\xf1\x80\x80\xe1\x80\xc2\x62\x80\x63\x80\xbf\x64", /* Unicode 15, table 3-8 */
          "a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" "b\xef\xbf\xbd" "c\xef\xbf\xbd\xef\xbf\xbd" "d" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        vq_buf b = { 0 };
        size_t n = strlen(cases[i].in);
        vq_utf8_clean(cases[i].in, n, &b);
        T_OK(strcmp(b.p ? b.p : "", cases[i].out) == 0, "case %zu: %s", i, b.p);
        T_OK(vq_utf8_valid(cases[i].in, n) == (strcmp(cases[i].in, cases[i].out) == 0), "case %zu",
             i);
        T_OK(!b.p || vq_utf8_valid(b.p, b.n), "case %zu", i);
        vq_buf_clear(&b);
    }
}

static void put(vq_buf *b, const uint32_t *cp)
{
    for (; *cp; cp++) {
        char u[4];
        vq_buf_add(b, u, (size_t)vq_utf8_put(u, *cp));
    }
}

/* Lines of NormalizationTest.txt and corners of the algorithm. */
static void nfc(void)
{
    static const struct { uint32_t in[12], out[12]; } cases[] = {
        { { 'a' }, { 'a' } },
        { { 'e', 0x301 }, { 0xe9 } },
        { { 0xe9 }, { 0xe9 } },
        { { 'x', 'e', 0x301, 'y' }, { 'x', 0xe9, 'y' } },
        { { 0x1e0a, 0x323 }, { 0x1e0c, 0x307 } },
        { { 0x1e0b, 0x323 }, { 0x1e0d, 0x307 } },
        { { 0x1e14, 0x304 }, { 0x1e14, 0x304 } },
        { { 0xea, 0x323 }, { 0x1ec7 } },
        { { 'a', 0x315, 0x300, 0x5ae, 0x300, 'b' }, { 0xe0, 0x5ae, 0x300, 0x315, 'b' } },
        { { 0x301, 'e' }, { 0x301, 'e' } },
        { { 0x344 }, { 0x308, 0x301 } },            /* a non-starter that decomposes */
        { { 0x212b }, { 0xc5 } },                   /* singletons */
        { { 0x2126 }, { 0x3a9 } },
        { { 0x37e }, { ';' } },
        { { 0xf900 }, { 0x8c48 } },
        { { 0x2f800 }, { 0x4e3d } },
        { { 0x958 }, { 0x915, 0x93c } },            /* composition exclusions */
        { { 0x2adc }, { 0x2add, 0x338 } },
        { { 0xfb1d }, { 0x5d9, 0x5b4 } },
        { { 0x1f82 }, { 0x1f82 } },                 /* three levels deep */
        { { 0x3b1, 0x313, 0x300, 0x345 }, { 0x1f82 } },
        { { 0x1100, 0x1161 }, { 0xac00 } },         /* Hangul */
        { { 0x1100, 0x1161, 0x11a8 }, { 0xac01 } },
        { { 0xac00, 0x11a8 }, { 0xac01 } },
        { { 0xac01, 0x11a8 }, { 0xac01, 0x11a8 } },
        { { 0xac00, 0x11a7 }, { 0xac00, 0x11a7 } },
        { { 0x1100, 0x300, 0x1161 }, { 0x1100, 0x300, 0x1161 } },
        { { 0x9c7, 0x334, 0x9be }, { 0x9c7, 0x334, 0x9be } },
        { { 0x9c7, 0x9be }, { 0x9cb } },            /* composes with a starter */
        { { 0x11099, 0x110ba }, { 0x1109a } },
        { { 0x1d15e }, { 0x1d157, 0x1d165 } },
        { { 'a', 0x327, 0x301, 'c', 0x327 }, { 0xe1, 0x327, 0xe7 } },
        { { 'x', 0x301, 0x8d3 }, { 'x', 0x301, 0x8d3 } }, /* U+08D3 came after Unicode 9.0 */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        vq_buf in = { 0 }, want = { 0 }, got = { 0 }, again = { 0 };
        put(&in, cases[i].in);
        put(&want, cases[i].out);
        T_OK(vq_nfc(in.p, in.n, &got) && got.n == want.n && memcmp(got.p, want.p, got.n) == 0,
             "case %zu: %s", i, got.p);
        T_OK(got.p && vq_nfc(got.p, got.n, &again) && strcmp(got.p, again.p) == 0, "case %zu twice",
             i);
        bool changed = in.n != want.n || memcmp(in.p, want.p, in.n) != 0;
        T_OK(!changed || vq_nfc_needed(in.p, in.n), "case %zu: needed", i);
        vq_buf_clear(&in);
        vq_buf_clear(&want);
        vq_buf_clear(&got);
        vq_buf_clear(&again);
    }
    T_OK(!vq_nfc_needed("plain \xc3\xa9 \xe4\xb8\xad \xea\xb0\x80", 15), "text in NFC");
}

/* Every syllable, from its parts; long runs of marks come out sorted and stable. */
static void runs(void)
{
    long wrong = 0;
    for (uint32_t s = 0; s < 11172; s++) {
        uint32_t parts[] = { 0x1100 + s / 588, 0x1161 + s / 28 % 21, s % 28 ? 0x11a7 + s % 28 : 0,
                             0 };
        uint32_t whole[] = { 0xac00 + s, 0 };
        vq_buf in = { 0 }, want = { 0 }, got = { 0 };
        put(&in, parts);
        put(&want, whole);
        wrong += !vq_nfc(in.p, in.n, &got) || strcmp(got.p, want.p) != 0;
        vq_buf_clear(&in);
        vq_buf_clear(&want);
        vq_buf_clear(&got);
    }
    T_OK(wrong == 0, "%ld syllables", wrong);

    enum { N = 200000 };
    vq_buf in = { 0 }, want = { 0 }, got = { 0 };
    vq_buf_char(&in, 'q');
    vq_buf_char(&want, 'q');
    for (int i = 0; i < N; i++) vq_buf_str(&in, i % 2 ? "\xcc\x81" : "\xcc\xa3");    /* 230, 220 */
    for (int i = 0; i < N; i++) vq_buf_str(&want, i < N / 2 ? "\xcc\xa3" : "\xcc\x81");
    T_OK(vq_nfc(in.p, in.n, &got) && got.n == want.n && memcmp(got.p, want.p, got.n) == 0, "%zu",
         got.n);
    vq_buf_clear(&in);
    vq_buf_clear(&want);
    vq_buf_clear(&got);
}

int main(void)
{
    classes();
    repair();
    nfc();
    runs();
    return t_done("t_unicode");
}
