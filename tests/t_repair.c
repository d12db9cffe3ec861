/* t_repair.c - containers damaged byte by byte, mended from their checkpoint and from a copy.
 *
 * What counts is the file afterwards: every byte as it was, or, where the source is not that of the
 * file, every byte as it was left.  VQ_FLIPS=1: every byte of the small one (else one in 97). */
#define _GNU_SOURCE 1
#include "tests/conv.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

static q_kern kern;
static char copy[300], other[300];
static vq_buf whole;            /* the file as it was written */

static bool intact(void)
{
    vq_buf b = { 0 };
    const bool same = !vq_file_read(out, 1 << 30, &b, NULL) && b.n == whole.n &&
                      !memcmp(b.p, whole.p, b.n);
    vq_buf_clear(&b);
    return same;
}

static void put_file(const char *path, const void *p, size_t n)
{
    vq_unlink(path);
    T_OK(!vq_file_write_atomic(path, p, n, NULL), "%s", path);
}

/* As the verb does it: VQ_OK when the file is whole afterwards.  *found: it was seen to be bad. */
static vq_status mend(const char *from, bool *found, vq_err *e)
{
    const cv_repair r = { .path = out, .src = from, .kern = &kern, .threads = 2 };
    vq_file *f = NULL;
    vq_verify v = { 0 };
    uint64_t len;
    *e = (vq_err){ 0 };
    vq_status s = vq_file_open(&f, out, &kern, e);
    *found = s == VQ_EFORMAT;
    if (*found) {
        s = cv_repair_front(&r, &len, e);
        if (!s) s = vq_file_open(&f, out, &kern, e);
    }
    if (!s) s = vq_file_verify(f, &kern, NULL, NULL, NULL, &v, e);
    *found |= s == VQ_EFORMAT;
    if (s == VQ_EFORMAT && f) s = cv_repair_body(&r, f, &v, e);
    for (size_t i = 0; !s && i < v.n_bad; i++) T_OK(v.bad[i].mended, "chunk %zu", i);
    vq_verify_clear(&v);
    vq_file_close(f);
    return s;
}

static const char *card;        /* text of the card; NULL: none */

static void set_whole(int type)
{
    vq_err e;
    cv_report r;
    ck_empty(out_dir);
    T_OK(!convert(&(cv_opts){ .type = type, .threads = 2, .card = card }, &r, &e), "%s", e.msg);
    cv_report_clear(&r);
    vq_buf_reset(&whole);
    T_OK(!vq_file_read(out, 1 << 30, &whole, NULL), "read");
    put_file(copy, whole.p, whole.n);
}

static void test_flips(size_t stride)
{
    vq_buf b = { 0 };
    size_t missed = 0, failed = 0, n = 0;
    vq_buf_add(&b, whole.p, whole.n);
    for (size_t at = 0; at < whole.n; at += stride, n++) {
        vq_err e;
        bool found;
        b.p[at] = (char)(b.p[at] ^ (1 << at % 8));
        put_file(out, b.p, b.n);
        const vq_status s = mend(n % 2 ? src : copy, &found, &e);
        missed += !found;
        if (s || !intact()) {
            if (failed++ < 5) T_OK(false, "byte %zu: %d %s", at, (int)s, e.msg);
        }
        b.p[at] = whole.p[at];
    }
    T_OK(!missed && !failed && n > 100, "%zu flips: %zu not found, %zu not mended", n, missed,
         failed);
    vq_buf_clear(&b);
}

/* More than a bit: chunks of zeros, a cut, bytes behind the end, most of the front gone. */
static void test_worse(const char *from)
{
    const vaq_header *h = (const vaq_header *)(const void *)whole.p;
    static const char *const what[] = { "front and body", "cut", "longer", "root and directory",
                                        "all hashes" };
    for (int i = 0; i < 5; i++) {
        vq_buf b = { 0 };
        vq_err e;
        bool found;
        vq_buf_add(&b, whole.p, whole.n);
        if (i == 0) memset(b.p + 300, 0x55, 20), memset(b.p + h->body_off + b.n / 3, 0, b.n / 4);
        if (i == 1) b.n = (size_t)h->body_off + 50000;
        if (i == 2) vq_buf_add(&b, "trailing", 8);
        if (i == 3) memset(b.p + 48, 0, 32), memset(b.p + 300, 0, 60);
        if (i == 4) memset(b.p, 0, 256 + 384);
        put_file(out, b.p, b.n);
        const vq_status s = mend(from, &found, &e);
        T_OK(!s && found && intact(), "%s, from %s: %d %s", what[i], from, (int)s, e.msg);
        T_OK(files_in(out_dir) == 1, "nothing beside it");
        vq_buf_clear(&b);
    }
}

/* Sources of another content: refused, and not a byte is touched; or the right bytes, where what is
 * left of the file itself was enough. */
static void test_refused(ck *k)
{
    const vaq_header *h = (const vaq_header *)(const void *)whole.p;
    ck_tensor *t = ck_find(k, "model.embed_tokens.weight");
    int refusals = 0;
    vq_buf b = { 0 };
    vq_buf_add(&b, whole.p, whole.n);
    for (int round = 0; round < 3; round++) { /* other weights, another config, other types */
        if (round == 0) for (int i = 0; i < 200; i++) t->v[i] = -t->v[i] + 0.25f;
        if (round == 1) memcpy(strstr(k->config, "\":512"), "\":256", 5);
        T_OK(!ck_write(k, src), "write");
        cv_report r;
        vq_err e;
        const cv_opts o = { .type = round == 2 ? Q_L8 : Q_N4, .threads = 2, .out = other };
        T_OK(!convert(&o, &r, &e), "%s", e.msg);
        cv_report_clear(&r);
        for (int i = 0; i < 4; i++) {
            bool found;
            const size_t at = i & 1 ? 50 : (size_t)h->body_off + 1000; /* the root, a weight */
            if (round == 2 && i >= 2) break; /* types do not show in the checkpoint */
            b.p[at] ^= 0x40;
            put_file(out, b.p, b.n);
            const vq_status s = mend(i < 2 ? other : src, &found, &e);
            vq_buf now = { 0 };
            refusals += s == VQ_EFAIL;
            T_OK(s == VQ_EFAIL ? *e.msg != 0 : !s && intact(), "%d, %d: %d %s", round, i, (int)s,
                 e.msg);
            T_OK(!s || (!vq_file_read(out, 1 << 30, &now, NULL) && now.n == b.n &&
                 !memcmp(now.p, b.p, b.n)), "%d, %d: it was changed", round, i);
            vq_buf_clear(&now);
            b.p[at] = whole.p[at];
        }
        if (round == 0) for (int i = 0; i < 200; i++) t->v[i] = -(t->v[i] - 0.25f);
        if (round == 1) memcpy(strstr(k->config, "\":256"), "\":512", 5);
    }
    T_OK(refusals >= 9, "%d refusals", refusals);
    T_OK(!ck_write(k, src), "write");
    vq_unlink(other);
    vq_buf_clear(&b);
}

/* ---- killed at every step of a repair ---- */

static long hook_at, hook_step;

static int hook(vq_io what, int fd, size_t *n, uint64_t off)
{
    (void)fd, (void)off;
    if (++hook_step < hook_at) return 0;
    if (what == VQ_IO_WRITE && hook_step == hook_at && *n > 1) { /* half of it first */
        *n /= 2;
        return 0;
    }
    kill(getpid(), SIGKILL);
    return EIO;
}

static void test_killed(const char *from)
{
    bool ended = false;
    long at = 1;
    for (; !ended && at < 1000; at++) {
        vq_buf b = { 0 };
        vq_err e;
        bool found;
        vq_buf_add(&b, whole.p, whole.n);
        b.p[400] ^= 1;
        b.p[b.n - 5000] ^= 1;
        put_file(out, b.p, b.n);
        vq_buf_clear(&b);
        fflush(stdout);
        const pid_t pid = fork();
        int status = 0;
        if (pid == 0) {
            hook_at = at;
            vq_io_hook = hook;
            _exit(mend(from, &found, &e) != VQ_OK);
        }
        waitpid(pid, &status, 0);
        ended = !WIFSIGNALED(status);
        if (ended) T_OK(WEXITSTATUS(status) == 0 && intact(), "mended in one go");
        const vq_status s = mend(from, &found, &e);
        T_OK(!s && intact() && (found || at > 3), "killed at step %ld of it: %s", at, e.msg);
    }
    T_OK(ended && at > 3, "%ld steps", at);
}

/* The card's records need no text when they are whole, or root or directory are; figures that were
 * hit come from a copy alone. */
static void test_card(void)
{
    static const char *const keys[] = { "quality.kl", "quality.top1", "quality.tokens" };
    vq_buf b = { 0 };
    vq_err e;
    bool found;
    const vaq_header *h = (const vaq_header *)(const void *)whole.p;
    vq_buf_add(&b, whole.p, whole.n);
    size_t meta = 0;
    while (memcmp(whole.p + meta, "source_sha256", 13) != 0) meta++;
    const vaq_section *dir = (const vaq_section *)(const void *)(h + 1);
    size_t rmse = 0;
    for (uint32_t i = 0; i < h->n_sections; i++) {
        if (dir[i].id != VAQ_SEC_TENSORS) continue;
        rmse = (size_t)dir[i].off + offsetof(vaq_tensor, rel_rmse);
    }
    const size_t mendable[] = { 10, 50, 260, 330, 340, 400, meta + 20, rmse + 1,
                                (size_t)h->body_off + 5000, whole.n - 9000 };
    for (size_t i = 0; i < sizeof mendable / sizeof *mendable; i++) {
        b.p[mendable[i]] ^= 4;
        put_file(out, b.p, b.n);
        const vq_status s = mend(src, &found, &e);
        T_OK(!s && found && intact(), "byte %zu: %d %s", mendable[i], (int)s, e.msg);
        b.p[mendable[i]] ^= 4;
    }
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        size_t at = 0;
        while (memcmp(whole.p + at, keys[i], strlen(keys[i])) != 0) at++;
        b.p[at + strlen(keys[i]) + 1] ^= 4; /* of the value */
        put_file(out, b.p, b.n);
        const vq_status s = mend(src, &found, &e);
        T_OK(s == VQ_EFAIL && strstr(e.msg, "card cannot be trusted"), "%s: %d %s", keys[i], (int)s,
             e.msg);
        T_OK(files_in(out_dir) == 1, "nothing beside it");
        T_OK(!mend(copy, &found, &e) && found && intact(), "%s from a copy: %s", keys[i], e.msg);
        b.p[at + strlen(keys[i]) + 1] ^= 4;
    }
    vq_buf_clear(&b);
}

int main(void)
{
    const char *tmp = getenv("TMPDIR");
    if (!tmp && !access("/dev/shm", W_OK)) setenv("TMPDIR", "/dev/shm", 1);
    T_OK(q_kern_make(&kern, NULL), "kernels");
    conv_begin();
    snprintf(copy, sizeof copy, "%s/copy.vaq", scratch);
    snprintf(other, sizeof other, "%s/other.vaq", scratch);
    const bool quick = getenv("VQ_QUICK") && *getenv("VQ_QUICK");
    ck k;
    ck_make(&k);
    T_OK(!ck_write(&k, src), "write");
    set_whole(Q_N4);
    const char *stride = getenv("VQ_FLIPS");
    test_flips(stride && atoi(stride) > 0 ? (size_t)atoi(stride) : quick ? 311 : 97);
    test_worse(copy);
    test_worse(src);
    test_killed(copy);
    test_killed(src);
    test_refused(&k);
    ck_free(&k);
    ck_large(&k); /* several chunks, some of them pieces of three tensors */
    T_OK(!ck_write(&k, src), "write");
    set_whole(Q_BF16);
    test_flips(quick ? 65537 : 33333);
    test_worse(copy);
    test_worse(src);
    ck_free(&k);
    char text[300];
    put_model(text);
    card = text;
    set_whole(Q_N4);
    test_card();
    vq_unlink(text);
    vq_buf_clear(&whole);
    vq_unlink(copy);
    conv_end();
    return t_done("t_repair");
}
