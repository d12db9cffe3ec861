/* t_safetensors.c - the safetensors reader: verdicts equal to the reference implementation's,
 * hostile headers, every truncation and every changed byte of a header. */
#include "convert/safetensors.h"

#include "core/base/json.h"
#include "core/base/mem.h"
#include "tests/temp.h"
#include "tests/test.h"

/* A file of this header text and `data` bytes 0, 1, 2, ... */
static void put_file(const char *path, const char *header, size_t n, size_t data)
{
    vq_buf b = { 0 };
    for (int i = 0; i < 8; i++) vq_buf_char(&b, (char)(uint64_t)((uint64_t)n >> 8 * i));
    vq_buf_add(&b, header, n);
    for (size_t i = 0; i < data; i++) vq_buf_char(&b, (char)i);
    T_OK(!vq_file_write_atomic(path, b.p, b.n, NULL), "%s", path);
    vq_buf_clear(&b);
}

static vq_status open_text(const char *header, size_t data, vq_err *e)
{
    char path[256];
    cv_st s;
    temp_name(path, ".safetensors");
    put_file(path, header, strlen(header), data);
    const vq_status st = cv_st_open(&s, path, NULL, e);
    if (!st) cv_st_close(&s);
    vq_unlink(path);
    return st;
}

static void test_verdicts(void)
{
    static const struct { const char *header; size_t data; const char *says; } cases[] = {
        /* accepted */
        { "{}", 0, NULL },
        { "  {\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}   ", 4, NULL },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[0,0]}}", 0, NULL },
        { "{\"a\":{\"dtype\":\"F4\",\"shape\":[4],\"data_offsets\":[0,2]}}", 2, NULL },
        { "{\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]},"
          "\"a\":{\"dtype\":\"BOOL\",\"shape\":[1],\"data_offsets\":[0,1],\"more\":[1,{}]}}",
          3, NULL },
        { "{\"__metadata__\":null}", 0, NULL },
        { "{\"__metadata__\":{\"\\ud83d\\ude00\":\"\\\\ud83d\"}}", 0, NULL },
        { "{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,2]}}", 2,
          NULL },
        /* refused */
        { "", 0, "JSON" },
        { "[]", 0, "not an object" },
        { "{\"a\":1}", 0, "not described by an object" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 5,
          "behind its last" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 3, "cut short" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "hole" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, "rising" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "sizes" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", 4, "sizes" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[-0],\"data_offsets\":[0,0]}}", 0, "sizes" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,5]}}", 4, "rising" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "rising" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[]}}", 4, "rising" },
        { "{\"a\":{\"dtype\":\"F33\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "unknown" },
        { "{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}", 2, "agree" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,4]}}", 4,
          "64 bits" },
        { "{\"a\":{\"dtype\":\"F64\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]}}", 0,
          "agree" },
        { "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
          "twice" },
        { "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
          "\"\\u0061\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}", 2, "twice" },
        { "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
          "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}", 3, "shares" },
        { "{\"__metadata__\":{\"a\":1}}", 0, "not a string" },
        { "{\"__metadata__\":{\"a\":\"1\"},\"__metadata__\":{}}", 0, "twice" },
        { "{\"\\ud800\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "half" },
        { "{\"\\ud800x\\udc00\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
          "half" },
        { "{\"\\udc00\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "half" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        vq_err e = { 0 };
        const vq_status st = open_text(cases[i].header, cases[i].data, &e);
        if (!cases[i].says) {
            T_OK(st == VQ_OK, "%s: %s", cases[i].header, e.msg);
        } else {
            T_OK(st == VQ_EFORMAT && strstr(e.msg, cases[i].says), "%s: %d %s", cases[i].header, st,
                 e.msg);
        }
    }
}

/* The collection beside the tree, a line of JSON per file; accept: true, false, null (either). */
static void test_manifest(void)
{
    char path[600], dir[512];
    snprintf(dir, sizeof dir, "%s/data/robustness/safetensors-malformed", t_shared());
    snprintf(path, sizeof path, "%s/manifest.jsonl", dir);
    vq_buf text = { 0 };
    if (!vq_is_regular(path) || vq_file_read(path, 1 << 20, &text, NULL)) {
        T_SKIP("safetensors-malformed: %s is not there", path);
        return;
    }
    int n = 0;
    for (char *line = text.p; line && *line;) {
        char *end = strchr(line, '\n');
        const size_t len = end ? (size_t)(end - line) : strlen(line);
        vq_json j;
        vq_err e = { 0 };
        cv_st s;
        T_OK(!vq_json_parse(&j, line, len, "manifest", &e), "%s", e.msg);
        const vq_str file = vq_json_str(&j, vq_json_get(&j, 0, "file"));
        const uint32_t accept = vq_json_get(&j, 0, "accept");
        snprintf(path, sizeof path, "%s/%.*s", dir, (int)file.n, file.p);
        const vq_status st = cv_st_open(&s, path, NULL, &e);
        if (!st) cv_st_close(&s);
        bool want;
        if (vq_json_bool(&j, accept, &want)) {
            T_OK(want ? st == VQ_OK : st == VQ_EFORMAT, "%s: %d %s", path, st, e.msg);
            n++;
        }
        vq_json_clear(&j);
        line = end ? end + 1 : NULL;
    }
    T_OK(n >= 38, "%d files of the manifest", n);
    vq_buf_clear(&text);
}

static const char good[] =
    "{\"__metadata__\":{\"format\":\"pt\",\"\\u00e9\":\"x\"},"
    "\"model.a\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[0,12]},"
    "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[12,20]}}";

static void test_reading(void)
{
    char path[256];
    cv_st s;
    vq_err e = { 0 };
    uint8_t got[8], hash[32], again[32];
    vq_sha256 sha;
    temp_name(path, ".safetensors");
    put_file(path, good, sizeof good - 1, 20);
    vq_sha256_init(&sha, NULL);
    T_OK(cv_st_open(&s, path, &sha, &e) == VQ_OK, "%s", e.msg);
    vq_sha256_end(&sha, hash);
    T_OK(s.n_tensor == 2 && vq_str_eq(s.tensor[0].name, "model.a"), "order of the file");
    T_OK(s.tensor[0].n == 6 && s.tensor[0].n_dim == 2 && s.tensor[0].dim[1] == 3, "shape");
    T_OK(s.tensor[1].dtype == CV_F32 && !strcmp(s.tensor[0].dtype_name, "BF16"), "dtype");
    T_OK(s.n_meta == 2 && vq_str_eq(s.meta[1].key, "\xc3\xa9"), "metadata");
    T_OK(!cv_st_read(&s.tensor[1], 2, got, 4, &e) && got[0] == 14 && got[3] == 17, "bytes");
    cv_st_close(&s);

    vq_buf text = { 0 }; /* the hash is of length and header, not of the data */
    T_OK(!vq_file_read(path, 1 << 20, &text, &e), "%s", e.msg);
    vq_sha256_init(&sha, NULL);
    vq_sha256_add(&sha, text.p, text.n - 20);
    vq_sha256_end(&sha, again);
    T_OK(!memcmp(hash, again, 32), "hash of the header");
    vq_buf_clear(&text);
    vq_unlink(path);

    T_OK(cv_st_open(&s, path, NULL, &e) == VQ_EFAIL, "not there: %s", e.msg);
    cv_st_close(&s); /* what a failed open leaves can be closed */
    T_OK(cv_st_open(&s, "/tmp", NULL, &e) == VQ_EFAIL && strstr(e.msg, "folder"), "%s", e.msg);
    static const char pointer[] = "version https://git-lfs.github.com/spec/v1\noid sha256:00\n";
    T_OK(!vq_file_write_atomic(path, pointer, sizeof pointer - 1, &e), "%s", e.msg);
    T_OK(cv_st_open(&s, path, NULL, &e) == VQ_EFORMAT && strstr(e.msg, "git lfs pull"), "%s",
         e.msg);
    vq_unlink(path);
}

static void test_decode(void)
{
    static const uint8_t bf16[] = { 0x80, 0x3f, 0x00, 0xc0 }, f16[] = { 0x00, 0x3c, 0x01, 0x00 };
    static const uint8_t f8[] = { 0x38, 0xfe };
    float v[2];
    cv_decode(v, CV_BF16, bf16, 2);
    T_OK(v[0] == 1 && v[1] == -2, "bf16 %g %g", (double)v[0], (double)v[1]);
    cv_decode(v, CV_F16, f16, 2);
    T_OK(v[0] == 1 && v[1] == 0x1p-24f, "f16 %g %g", (double)v[0], (double)v[1]);
    cv_decode(v, CV_F8_E4M3, f8, 2);
    T_OK(v[0] == 1 && v[1] == -448, "f8 %g %g", (double)v[0], (double)v[1]);
    const float w[2] = { 0.1f, -3 };
    cv_decode(v, CV_F32, w, 2);
    T_OK(!memcmp(v, w, sizeof v), "f32");
}

/* Whatever happens to a file, opening it ends with a verdict. */
static void test_damage(void)
{
    char path[256];
    vq_buf whole = { 0 };
    temp_name(path, ".safetensors");
    put_file(path, good, sizeof good - 1, 20);
    T_OK(!vq_file_read(path, 1 << 20, &whole, NULL), "%s", path);
    vq_unlink(path);
    int accepted = 0;
    for (size_t i = 0; i < whole.n; i++) {
        vq_err e = { 0 };
        cv_st s;
        vq_file_write_atomic(path, whole.p, i, NULL);
        T_OK(cv_st_open(&s, path, NULL, &e) == VQ_EFORMAT && e.msg[0], "cut at %zu", i);
        whole.p[i] = (char)(whole.p[i] ^ (i % 2 ? 1 : 0x10));
        vq_file_write_atomic(path, whole.p, whole.n, NULL);
        const vq_status st = cv_st_open(&s, path, NULL, &e);
        T_OK(st == VQ_OK || st == VQ_EFORMAT, "byte %zu: %d", i, st);
        if (!st) {
            cv_st_close(&s);
            accepted++; /* letters of names, the data */
        }
        whole.p[i] = (char)(whole.p[i] ^ (i % 2 ? 1 : 0x10));
    }
    T_OK(accepted >= 20, "%d accepted", accepted);
    vq_unlink(path);
    vq_buf_clear(&whole);
}

static void test_no_memory(void)
{
    if (!vq_mem_fail_at(0)) {
        T_SKIP("failing allocations: needs a build with VQ_DEBUG");
        return;
    }
    char path[256];
    temp_name(path, ".safetensors");
    put_file(path, good, sizeof good - 1, 20);
    vq_status st = VQ_ENOMEM;
    for (long n = 1; st && n < 100; n++) {
        cv_st s;
        vq_mem_fail_at(n);
        st = cv_st_open(&s, path, NULL, NULL);
        vq_mem_fail_at(0);
        T_OK(st == VQ_OK || st == VQ_ENOMEM, "allocation %ld: %d", n, st);
        if (!st) cv_st_close(&s);
    }
    T_OK(st == VQ_OK, "opens in the end");
    vq_unlink(path);
}

int main(void)
{
    test_verdicts();
    test_manifest();
    test_reading();
    test_decode();
    test_damage();
    test_no_memory();
    return t_done("t_safetensors");
}
