/* fuzz_main.c - a mutation driver for the fuzz targets where the compiler has no libFuzzer.
 *
 * usage: fuzz_NAME SECONDS SEED LAST CORPUS_FILE...
 * Each input is written to the file LAST before it runs, so what crashed is what lies there; the
 * same seed makes the same inputs.  With SECONDS 0 the corpus itself runs once. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

enum { MAX = 4 << 20, FILES = 256 };

static uint64_t state;

static uint64_t next(void) /* xorshift64* */
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * UINT64_C(2685821657736338717);
}

static size_t below(size_t n) { return n ? (size_t)(next() % n) : 0; }

typedef struct input {
    uint8_t *p;
    size_t n;
} input;

static input file[FILES];
static int n_file;

static int load(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f || n_file == FILES) return -1;
    uint8_t *p = malloc(MAX);
    if (!p) exit(1);
    file[n_file++] = (input){ p, fread(p, 1, MAX, f) };
    return fclose(f);
}

/* One change: flip, set to an extreme, insert, delete, copy within, splice from another file. */
static void mutate(input *x)
{
    static const uint8_t extreme[] = { 0,   1,   0x7f, 0x80, 0xff, '"', '\\',
                                       '{', '}', '[',  ']',  ',',  '0' };
    const size_t at = below(x->n), len = 1 + below(1 + below(64));
    switch (below(7)) {
    case 0:
        if (x->n) x->p[at] ^= (uint8_t)(1u << below(8));
        break;
    case 1:
        if (x->n) x->p[at] = extreme[below(sizeof extreme)];
        break;
    case 2:
        if (x->n + len > MAX) break;
        memmove(x->p + at + len, x->p + at, x->n - at);
        for (size_t i = 0; i < len; i++) x->p[at + i] = (uint8_t)next();
        x->n += len;
        break;
    case 3:
        if (len > x->n - at) break;
        memmove(x->p + at, x->p + at + len, x->n - at - len);
        x->n -= len;
        break;
    case 4: {
        const size_t from = below(x->n);
        if (at + len <= x->n && from + len <= x->n) memmove(x->p + at, x->p + from, len);
        break;
    }
    case 5: {
        const input *o = &file[below((size_t)n_file)];
        const size_t from = below(o->n);
        if (at + len <= x->n && from + len <= o->n) memcpy(x->p + at, o->p + from, len);
        break;
    }
    default:
        if (below(8) == 0) x->n = at; /* cut */
        break;
    }
}

static void run(const char *last, const uint8_t *p, size_t n)
{
    FILE *f = fopen(last, "wb");
    if (f) {
        fwrite(p, 1, n, f);
        fclose(f);
    }
    uint8_t *exact = malloc(n ? n : 1); /* a sanitizer sees the first byte read too far */
    if (!exact) exit(1);
    memcpy(exact, p, n);
    LLVMFuzzerTestOneInput(exact, n);
    free(exact);
}

int main(int argc, char **argv)
{
    if (argc < 5) {
        fprintf(stderr, "usage: %s SECONDS SEED LAST CORPUS_FILE...\n", argv[0]);
        return 2;
    }
    const double seconds = atof(argv[1]);
    state = strtoull(argv[2], NULL, 10) * 2 + 1;
    for (int i = 4; i < argc; i++) {
        if (load(argv[i])) fprintf(stderr, "%s: cannot be read\n", argv[i]);
    }
    if (n_file == 0) return 2;
    for (int i = 0; i < n_file; i++) run(argv[3], file[i].p, file[i].n);
    uint8_t *buf = malloc(MAX);
    if (!buf) return 1;
    unsigned long runs = 0;
    const time_t start = time(NULL);
    while (difftime(time(NULL), start) < seconds) {
        const input *seed = &file[below((size_t)n_file)];
        input x = { buf, seed->n };
        memcpy(buf, seed->p, seed->n);
        for (size_t k = 1 + below(8); k > 0; k--) mutate(&x);
        run(argv[3], x.p, x.n);
        runs++;
    }
    printf("%s: %d corpus files, %lu mutations, seed %s: no crash\n", argv[0], n_file, runs,
           argv[2]);
    free(buf);
    for (int i = 0; i < n_file; i++) free(file[i].p);
    remove(argv[3]);
    return 0;
}
