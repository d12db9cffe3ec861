/* t_base.c - errors, buffers, numbers, UTF-8, heap and the operating system shim. */
#define _GNU_SOURCE 1

#include "core/base/mem.h"
#include "core/base/os.h"
#include "tests/test.h"

#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[256]; /* scratch folder */

static const char *in_dir(const char *name)
{
    static char path[4][300];
    static int next;
    next = (next + 1) % 4;
    snprintf(path[next], sizeof path[0], "%s/%s", dir, name);
    return path[next];
}

static void test_err(void)
{
    vq_err e;
    T_OK(vq_fail(NULL, VQ_EFORMAT, "x") == VQ_EFORMAT, "without a place for the message");
    T_OK(vq_fail(&e, VQ_ENOFIT, "%s: %d", "a", 5) == VQ_ENOFIT && e.code == VQ_ENOFIT, "code");
    T_OK(strcmp(e.msg, "a: 5") == 0, "%s", e.msg);
    vq_fail(&e, VQ_EFAIL, "%s", "a\x1b[31m\n\t\x7f\xc2\x9b\xff\xe4\xbd\xa0z");
    T_OK(strcmp(e.msg, "a?[31m???\?\?\?\xe4\xbd\xa0z") == 0, "%s", e.msg);
    char longer[3000];
    memset(longer, 'x', sizeof longer);
    for (size_t i = 900; i + 3 < sizeof longer; i += 3) memcpy(longer + i, "\xe4\xbd\xa0", 3);
    longer[2999] = 0;
    vq_fail(&e, VQ_EFAIL, "%s", longer);
    T_OK(strlen(e.msg) == sizeof e.msg - 1, "cut to size");
    for (size_t i = 0, n = strlen(e.msg); i < n;) { /* and still UTF-8 */
        uint32_t cp;
        int len = vq_utf8_get(e.msg + i, n - i, &cp);
        T_OK(len > 0, "UTF-8 at %zu", i);
        i += (size_t)(len ? len : 1);
    }
    vq_fail_errno(&e, 2, "%s", "file");
    T_OK(strncmp(e.msg, "file: ", 6) == 0 && e.code == VQ_EFAIL, "%s", e.msg);
    static const int exits[] = { 0, 1, 2, 3, 4, 4, 130 };
    for (int s = VQ_OK; s <= VQ_EINTR; s++) T_OK(vq_status_exit((vq_status)s) == exits[s], "%d", s);
}

static void test_buf(void)
{
    vq_buf b = { 0 };
    vq_buf_add(&b, "", 0);
    T_OK(b.p && b.n == 0 && b.p[0] == 0, "empty, but a string");
    vq_buf_str(&b, "ab");
    vq_buf_char(&b, 'c');
    vq_buf_printf(&b, "%d-%s", 42, "x");
    T_OK(strcmp(b.p, "abc42-x") == 0 && b.n == 7, "%s", b.p);
    for (int i = 0; i < 10000; i++) vq_buf_printf(&b, "%d,", i);
    T_OK(b.n == strlen(b.p) && b.n == 7 + 48890, "%zu", b.n);
    vq_buf_reset(&b);
    T_OK(b.n == 0 && b.p[0] == 0, "reset");
    vq_buf_json(&b, "\x80\xe4\xbd" "a\xed\xa0\x80", 7);
#define FFFD "\xef\xbf\xbd"
    T_OK(strcmp(b.p, "\"" FFFD FFFD "a" FFFD FFFD FFFD "\"") == 0, "%s", b.p);
    vq_buf_clear(&b);
    T_OK(!b.p, "cleared");
    if (vq_mem_fail_at(1)) {
        vq_buf_str(&b, "x");
        T_OK(b.oom, "out of memory is kept");
        vq_buf_str(&b, "y");
        T_OK(b.oom && b.n == 0, "and stays");
        vq_buf_clear(&b);
    }
}

static void test_strings(void)
{
    vq_str s = { "a\0b", 3 };
    vq_str a = vq_str_c("a"), b = vq_str_c("b"), ab = vq_str_c("ab"), none = vq_str_c(NULL);
    T_OK(!vq_str_eq(s, "a") && vq_str_eq(ab, "ab") && !vq_str_eq(ab, "abc"), "eq");
    T_OK(!none.p && !vq_str_eq(none, "") && vq_str_eq(vq_str_c(""), ""), "absent");
    T_OK(vq_str_has(vq_str_c("hello"), "ell") && vq_str_has(vq_str_c("hello"), ""), "has");
    T_OK(!vq_str_has(vq_str_c("hello"), "hellos") && !vq_str_has(none, "x"), "has not");
    T_OK(vq_str_cmp(a, b) < 0 && vq_str_cmp(b, a) > 0 && !vq_str_cmp(a, a), "cmp");
    T_OK(vq_str_cmp(a, ab) < 0 && vq_str_cmp(vq_str_c("\x7f"), vq_str_c("\x80")) < 0, "cmp");
}

static void test_numbers(void)
{
    int64_t i = 0;
    uint64_t u = 0;
    double d = 0;
    T_OK(vq_parse_i64("-9223372036854775808", &i) && i == INT64_MIN, "lowest");
    T_OK(vq_parse_i64("9223372036854775807", &i) && i == INT64_MAX, "highest");
    T_OK(!vq_parse_i64("9223372036854775808", &i), "above");
    T_OK(!vq_parse_i64("-9223372036854775809", &i), "below");
    T_OK(vq_parse_u64("18446744073709551615", &u) && u == UINT64_MAX, "highest");
    static const char *const no_int[] = { "", "-", "+1", " 1", "1 ", "1x", "0x1", "1.0", "--1",
                                          "18446744073709551616" };
    for (size_t k = 0; k < sizeof no_int / sizeof no_int[0]; k++) {
        T_OK(!vq_parse_i64(no_int[k], &i) && !vq_parse_u64(no_int[k], &u), "'%s'", no_int[k]);
    }
    static const struct { const char *s; double v; } f64[] = {
        { "0.6", 0.6 }, { "1", 1 }, { "-2.5e-3", -0.0025 }, { ".5", 0.5 }, { "5.", 5 },
        { "1E+2", 100 }, { "0.1000000000000000055511151231257827", 0.1 }, { "4.9e-324", 0x1p-1074 }
    };
    for (size_t k = 0; k < sizeof f64 / sizeof f64[0]; k++) {
        T_OK(vq_parse_f64(f64[k].s, &d) && d == f64[k].v, "%s: %a", f64[k].s, d);
    }
    static const char *const no_f64[] = { "", ".", "-", "e5", "1e", "1e+", "nan", "inf", "0x1p3",
                                          "1,5", " 1", "1 ", "1e999", "-1e999", "1.2.3",
                                          "infinity" };
    for (size_t k = 0; k < sizeof no_f64 / sizeof no_f64[0]; k++) {
        T_OK(!vq_parse_f64(no_f64[k], &d), "'%s'", no_f64[k]);
    }
    T_OK(vq_parse_size("5G", &u) && u == 5ull << 30, "G");
    T_OK(vq_parse_size("512M", &u) && u == 512u << 20, "M");
    T_OK(vq_parse_size("4096", &u) && u == 4096, "plain");
    T_OK(vq_parse_size("1k", &u) && u == 1024 && vq_parse_size("16777215T", &u), "k, T");
    T_OK(vq_parse_size("1.5G", &u) && u == 3u << 29 && vq_parse_size("0.25k", &u) && u == 256
         && vq_parse_size("16777215.999T", &u), "parts");
    T_OK(!vq_parse_size("1.5", &u) && !vq_parse_size("1.G", &u), "not parts");
    T_OK(!vq_parse_size("16777216T", &u) && !vq_parse_size("G", &u) && !vq_parse_size("5GB", &u) &&
         !vq_parse_size("-1", &u) && !vq_parse_size("", &u), "not sizes");
    vq_ids ids = { 0 };
    T_OK(vq_parse_ids(" 1, 2 ,3\t4 2147483647 ", &ids) && ids.n == 5 && ids.v[3] == 4, "ids");
    static const char *const no_ids[] = { "", ",", "1,", "1,,2", "-1", "2147483648", "1x", "1;2" };
    for (size_t k = 0; k < sizeof no_ids / sizeof no_ids[0]; k++) {
        T_OK(!vq_parse_ids(no_ids[k], &ids), "'%s'", no_ids[k]);
    }
    vq_ids_clear(&ids);
    static const struct { uint64_t n; const char *s; } sizes[] = {
        { 0, "0 B" }, { 999, "999 B" }, { 1000, "1.0 kB" }, { 999949, "999.9 kB" },
        { 999950, "1.0 MB" }, { 3554176000u, "3.6 GB" }, { UINT64_MAX, "18.4 EB" }
    };
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        char out[16];
        vq_fmt_size(out, sizes[k].n);
        T_OK(strcmp(out, sizes[k].s) == 0, "%s, not %s", out, sizes[k].s);
    }
}

static void test_utf8(void)
{
    size_t wrong = 0;
    for (uint32_t cp = 0; cp < 0x110000; cp++) {
        char s[4];
        uint32_t back = 0;
        if (cp >= 0xd800 && cp < 0xe000) continue;
        int n = vq_utf8_put(s, cp);
        wrong += vq_utf8_get(s, (size_t)n, &back) != n || back != cp;
        for (int cut = 1; cut < n; cut++) { /* a start of it is ill-formed, and can be completed */
            bool incomplete;
            wrong += vq_utf8_get(s, (size_t)cut, &back) != 0;
            wrong += vq_utf8_bad(s, (size_t)cut, &incomplete) != cut || !incomplete;
        }
    }
    T_OK(wrong == 0, "%zu code points", wrong);
    /* Unicode 15, table 3-8 and its kin: the lengths of the ill-formed parts. */
    static const struct { const char *s; size_t n; int bad; bool incomplete; } cases[] = {
        { "\x80", 1, 1, false }, { "\xc0\x80", 2, 1, false }, { "\xc1", 1, 1, false },
        { "\xe0\x80\x80", 3, 1, false }, { "\xed\xa0\x80", 3, 1, false }, { "\xf5", 1, 1, false },
        { "\xf4\x90\x80\x80", 4, 1, false }, { "\xe1\x80" "a", 3, 2, false },
        { "\xf1\x80\x80" "a", 4, 3, false }, { "\xf0\x9d\x84", 3, 3, true },
        { "\xff", 1, 1, false }, { "\xc2" "a", 2, 1, false }
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint32_t cp;
        bool incomplete;
        T_OK(vq_utf8_get(cases[i].s, cases[i].n, &cp) == 0, "case %zu", i);
        int n = vq_utf8_bad(cases[i].s, cases[i].n, &incomplete);
        T_OK(n == cases[i].bad, "case %zu: %d", i, n);
        T_OK(incomplete == cases[i].incomplete, "case %zu: %d", i, incomplete);
    }
}

static void test_mem(void)
{
    volatile size_t huge = SIZE_MAX / 2 + 2;
    T_OK(!vq_malloc(huge) && !vq_calloc(huge, 2) && !vq_calloc(huge / 2, 4), "absurd sizes");
    T_OK(!vq_realloc(NULL, huge) && !vq_aligned(64, huge), "absurd sizes");
    void *p = vq_malloc(0), *q = vq_malloc(0), *z = vq_calloc(0, 4);
    T_OK(p && q && z && p != q, "nothing, but unique");
    vq_free(p), vq_free(q), vq_free(z), vq_free(NULL);
    for (size_t align = 16; align <= 4096; align *= 4) {
        unsigned char *a = vq_aligned(align, align + 1);
        T_OK(a && (uintptr_t)a % align == 0 && a[0] == 0 && a[align] == 0, "%zu", align);
        vq_aligned_free(a);
    }
    int *v = NULL;
    size_t cap = 0;
    T_OK(vq_grow(&v, &cap, 1, sizeof *v) == 0 && v && cap >= 1, "grows");
    int *kept = v;
    T_OK(vq_grow(&v, &cap, SIZE_MAX / 2, sizeof *v) == -1 && v == kept, "too much");
    vq_free(v);
    char *s = vq_strndup("abc", 2);
    T_OK(s && !strcmp(s, "ab"), "strndup");
    vq_free(s);
    if (!vq_mem_fail_at(3)) {
        T_SKIP("failing and forbidden allocations: need a build with VQ_DEBUG");
        return;
    }
    p = vq_malloc(1), q = vq_calloc(1, 1), z = vq_malloc(1);
    T_OK(p && q && !z, "the third fails");
    T_OK((z = vq_malloc(1)) != NULL, "the fourth does not");
    vq_free(p), vq_free(q), vq_free(z);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        close(2);
        vq_noalloc_enter();
        vq_noalloc_enter();
        vq_noalloc_leave();
        signal(SIGABRT, SIG_DFL);
        vq_free(vq_malloc(1));
        _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    T_OK(!WIFEXITED(status) || WEXITSTATUS(status), "forbidden allocations end a debug build");
    vq_noalloc_enter();
    vq_noalloc_leave();
    vq_free(vq_malloc(1));
}

static void test_files(void)
{
    vq_err e = { 0 };
    vq_buf b = { 0 };
    vq_fd f;
    char data[20000], back[20000];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (char)(i % 251);

    T_OK(vq_file_write_atomic(in_dir("b"), data, sizeof data, &e) == VQ_OK, "%s", e.msg);
    T_OK(vq_file_write_atomic(in_dir("b"), data, sizeof data, &e) == VQ_OK, "again: %s", e.msg);
    T_OK(vq_file_size(in_dir("b")) == sizeof data && vq_file_size(in_dir("no")) == 0, "size");
    T_OK(vq_file_read(in_dir("b"), sizeof data, &b, &e) == VQ_OK && b.n == sizeof data &&
         !memcmp(b.p, data, b.n), "%s", e.msg);
    vq_buf_reset(&b);
    T_OK(vq_file_read(in_dir("b"), sizeof data - 1, &b, &e) == VQ_EFAIL, "larger than asked");
    T_OK(vq_file_read(in_dir("no"), 10, &b, &e) == VQ_EFAIL && strstr(e.msg, "/no"), "%s", e.msg);
    T_OK(vq_file_read(dir, 10, &b, &e) == VQ_EFAIL, "%s", e.msg);
    vq_buf_clear(&b);

    T_OK(vq_fd_create(&f, in_dir("b"), &e) == VQ_EFAIL, "never over an existing file");
    T_OK(vq_fd_create(&f, in_dir("a"), &e) == VQ_OK, "%s", e.msg);
    T_OK(vq_fd_truncate(f, 5000, "a", &e) == VQ_OK, "%s", e.msg);
    T_OK(vq_fd_pwrite(f, data, 5000, 15000, "a", &e) == VQ_OK, "%s", e.msg);
    vq_fd_start_write(f, 0, 20000);
    T_OK(vq_fd_sync(f, "a", &e) == VQ_OK, "%s", e.msg);
    vq_fd_drop(f, 0, 20000);
    T_OK(vq_fd_pread(f, back, 5000, 15000, "a", &e) == VQ_OK, "%s", e.msg);
    T_OK(memcmp(back, data, 5000) == 0, "what was written");
    T_OK(vq_fd_pread(f, back, 5001, 15000, "a", &e) == VQ_EFORMAT, "behind the end: %s", e.msg);
    vq_fd_close(&f);
    vq_fd_close(&f);
    uint64_t size;
    T_OK(vq_fd_open_read(&f, in_dir("a"), &size, &e) == VQ_OK && size == 20000, "%s", e.msg);
    vq_fd_close(&f);
    T_OK(vq_fd_open_read(&f, dir, &size, &e) == VQ_EFAIL, "%s", e.msg);
    T_OK(mkfifo(in_dir("pipe"), 0600) == 0, "pipe");
    T_OK(vq_fd_open_read(&f, in_dir("pipe"), &size, &e) == VQ_EFAIL, "a pipe does not hold us up");
    T_OK(vq_rename(in_dir("a"), in_dir("pipe"), &e) == VQ_EFAIL, "a pipe is not replaced");
    T_OK(symlink("b", in_dir("link")) == 0 && symlink("nowhere", in_dir("dangling")) == 0, "links");

    char **names;
    size_t n;
    T_OK(vq_dir_list(dir, &names, &n, &e) == VQ_OK && n == 3, "%zu names", n);
    static const char *const sorted[] = { "a", "b", "link" };
    for (size_t i = 0; i < n && i < 3; i++) T_OK(!strcmp(names[i], sorted[i]), "%s", names[i]);
    for (size_t i = 0; i < n; i++) vq_free(names[i]);
    vq_free(names);
    T_OK(vq_dir_list(in_dir("no"), &names, &n, &e) == VQ_EFAIL, "%s", e.msg);
    T_OK(vq_is_dir(dir) && !vq_is_dir(in_dir("b")), "folders");
    T_OK(vq_is_regular(in_dir("link")) && !vq_is_regular(dir), "files");
    T_OK(!vq_is_regular(in_dir("dangling")) && vq_file_exists(in_dir("dangling")), "dangling link");
    T_OK(vq_disk_free(in_dir("x"), &size) && size > 0, "disk");
    static const char *const made[] = { "a", "b", "pipe", "link", "dangling" };
    vq_unlink(in_dir("pipe"));
    T_OK(vq_file_exists(in_dir("pipe")), "only files and links are removed");
    unlink(in_dir("pipe"));
    for (size_t i = 0; i < 5; i++) vq_unlink(in_dir(made[i]));

    if (access("/dev/full", W_OK) == 0) { /* a device that is always full */
        f.fd = open("/dev/full", O_WRONLY);
        T_OK(vq_fd_pwrite(f, data, 10, 0, "device", &e) == VQ_ENOFIT, "%s", e.msg);
        T_OK(strstr(e.msg, "full"), "%s", e.msg);
        vq_fd_close(&f);
    } else {
        T_SKIP("writing to a full device: no /dev/full");
    }
}

/* ---- maps ---- */

static sigjmp_buf jump;
static void on_bus(int sig)
{
    (void)sig;
    siglongjmp(jump, 1);
}

static void test_maps(void)
{
    enum { N = 5 * 4096 + 100 };
    static char data[N];
    vq_map m, empty;
    vq_err e = { 0 };
    memset(data, 7, N);

    /* Before our first map: a handler that was there; it must get the faults that are not ours. */
    struct sigaction sa = { .sa_handler = on_bus };
    sigaction(SIGBUS, &sa, NULL);

    T_OK(vq_file_write_atomic(in_dir("m"), data, N, &e) == VQ_OK, "%s", e.msg);
    T_OK(vq_map_open(&m, in_dir("m"), &e) == VQ_OK && m.size == N && m.p[N - 1] == 7, "%s", e.msg);
    vq_map_advise_willneed(&m, 1000, 1 << 30);
    vq_map_drop(&m, 4096, 8192);
    vq_map_drop(&m, 1 << 30, 1);
    T_OK(m.p[5000] == 7 && !vq_map_hurt(&m), "dropped pages come back");
    vq_map again;
    T_OK(vq_map_open(&again, in_dir("m"), &e) == VQ_OK, "twice");
    T_OK(truncate(in_dir("m"), 4096) == 0, "cut");
    volatile const uint8_t *p = m.p;
    T_OK(p[0] == 7 && !vq_map_hurt(&m), "the rest is still there");
    T_OK(p[8192] == 0 && p[N - 1] == 0 && vq_map_hurt(&m), "what is gone reads as zero");
    T_OK(!vq_map_hurt(&again), "a map is hurt when somebody looks");
    vq_map_close(&m);
    vq_map_close(&again);
    vq_map_close(&again);

    int fd = open(in_dir("m"), O_RDWR);
    volatile uint8_t *foreign = mmap(NULL, 8192, PROT_READ, MAP_SHARED, fd, 0);
    volatile bool caught = false; /* read behind a siglongjmp */
    if (sigsetjmp(jump, 1)) caught = true;
    else (void)foreign[4096];
    T_OK(caught, "a fault outside of our maps goes to the old handler");
    munmap((void *)(uintptr_t)foreign, 8192);
    close(fd);

    T_OK(truncate(in_dir("m"), 0) == 0, "empty");
    T_OK(vq_map_open(&empty, in_dir("m"), &e) == VQ_OK && !empty.p && !empty.size, "empty file");
    vq_map_close(&empty);
    vq_unlink(in_dir("m"));
    T_OK(vq_map_open(&m, in_dir("m"), &e) == VQ_EFAIL, "%s", e.msg);
    T_OK(vq_map_open(&m, dir, &e) == VQ_EFAIL, "%s", e.msg);
}

static void test_machine(void)
{
    double t = vq_now();
    T_OK(vq_now() >= t, "time goes on");
    T_OK(vq_random64() != vq_random64(), "random");
    int all = vq_cpu_count(), fast = vq_cpu_fast_count();
    T_OK(fast >= 1 && all >= fast, "%d CPUs, %d fast", all, fast);
    T_OK(vq_mem_available() > 1 << 20, "memory");
    enum { N = 8 << 20 };
    uint64_t before = vq_rss_anon();
    uint8_t *p = vq_pages_alloc(N);
    T_OK(p && p[0] == 0 && p[N - 1] == 0, "pages");
    memset(p, 1, N);
    uint64_t with = vq_rss_anon();
    vq_pages_free(p, N);
    if (with) T_OK(with >= before + N / 2 && vq_peak_rss_anon() >= with, "counted");
    else T_OK(vq_peak_rss_anon() > 0, "peak");
    T_OK(!vq_pages_alloc(0) && !vq_pages_alloc(SIZE_MAX), "absurd sizes");
    T_OK(vq_term_width() > 0, "width");
}

int main(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/vaquita_t_base_XXXXXX", tmp && *tmp ? tmp : "/tmp");
    T_OK(mkdtemp(dir), "set-up");
    test_err();
    test_buf();
    test_strings();
    test_numbers();
    test_utf8();
    test_mem();
    test_files();
    test_maps();
    test_machine();
    rmdir(dir);
    return t_done("t_base");
}
