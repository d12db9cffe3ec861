/* t_resume.c - conversions that are stopped in every way, and gone on with.
 *
 * A child converts with a hook before each of its reads, writes, syncs, cuts and changes of names;
 * the Nth does harm: the process is killed there, or killed in the middle of a write, or the power
 * fails (what no sync made durable is undone, in part), or the step fails with EIO or ENOSPC.  N
 * goes through all steps.  After each the final name holds nothing or the right file, and the same
 * conversion once more gives the same bytes and leaves nothing beside them.
 * VQ_KILLS=100: every step of both checkpoints, and so many kills at random times (else 12). */
#define _GNU_SOURCE 1
#include "tests/conv.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

static uint8_t right[32];       /* root of the undisturbed conversion */
static cv_opts base;
static q_kern kern;

static vq_status once(uint64_t *resumed, vq_err *e)
{
    cv_report r;
    *e = (vq_err){ 0 };
    const vq_status st = cv_convert(&base, &r, e);
    if (resumed) *resumed = r.resumed;
    cv_report_clear(&r);
    return st;
}

/* The root of the container at `out`; false: it is not one, or not whole. */
static bool root_of(uint8_t root[32])
{
    vq_file *f;
    vq_verify v;
    if (vq_file_open(&f, out, &kern, NULL)) return false;
    const bool ok = !vq_file_verify(f, &kern, NULL, NULL, NULL, &v, NULL);
    memcpy(root, f->header->root, 32);
    vq_verify_clear(&v);
    vq_file_close(f);
    return ok;
}

static bool is_right(void)
{
    uint8_t root[32];
    return root_of(root) && !memcmp(root, right, 32);
}

static bool beside(const char *ext)
{
    char path[300];
    snprintf(path, sizeof path, "%s%s", out, ext);
    return vq_file_exists(path);
}

/* ---- the hook ---- */

typedef enum harm { KILL, TORN, POWER, FAIL_EIO, FAIL_FULL, STAY_FULL, SHORT, SHRINK, N_HARM } harm;
static const char *const harm_names[N_HARM] = { "kill",      "torn write", "power cut",
                                                "EIO",       "full disk",  "disk stays full",
                                                "short I/O", "source shrinks" };

typedef struct lost { /* a write that no sync has made durable */
    int fd;
    uint64_t off, size;         /* size: of the file before */
    size_t n;
    char *old;
} lost;

static pthread_mutex_t hook_lock = PTHREAD_MUTEX_INITIALIZER;
static harm hook_harm;
static long hook_at, hook_step;
static bool hook_dying;
static unsigned hook_seed;
static lost *hook_lost;
static size_t hook_n, hook_cap;
static int hook_pipe;           /* told when harm was done */

static void note_write(int fd, size_t n, uint64_t off)
{
    struct stat st;
    if (vq_grow(&hook_lost, &hook_cap, hook_n + 1, sizeof *hook_lost) || fstat(fd, &st)) _exit(99);
    lost *l = &hook_lost[hook_n++];
    *l = (lost){ .fd = fd, .off = off, .size = (uint64_t)st.st_size, .n = n };
    l->old = vq_malloc(n);
    memset(l->old, 0, n);
    if (pread(fd, l->old, n, (off_t)off) < 0) _exit(99);
}

static void drop_writes(int fd)
{
    size_t k = 0;
    for (size_t i = 0; i < hook_n; i++) {
        if (hook_lost[i].fd == fd) vq_free(hook_lost[i].old);
        else hook_lost[k++] = hook_lost[i];
    }
    hook_n = k;
}

/* Each write since the last sync of its file reached the disk, or did not, or half of it did. */
static void cut_power(void)
{
    for (size_t i = hook_n; i--;) {
        const lost *l = &hook_lost[i];
        const int luck = rand_r(&hook_seed) % 4;
        const size_t from = luck == 1 ? l->n / 2 : 0;
        if (luck == 0) continue;
        if (pwrite(l->fd, l->old + from, l->n - from, (off_t)(l->off + from)) < 0) _exit(99);
        if (luck == 3 && ftruncate(l->fd, (off_t)l->size)) _exit(99);
    }
}

static void die(void)
{
    if (hook_harm == POWER) cut_power();
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static int hook(vq_io what, int fd, size_t *n, uint64_t off)
{
    int err = 0;
    pthread_mutex_lock(&hook_lock);
    const bool now = ++hook_step == hook_at;
    if (hook_dying) die();
    if (now && write(hook_pipe, "x", 1) != 1) _exit(99);
    if (now && (hook_harm == KILL || hook_harm == POWER)) die();
    if (now && hook_harm == TORN) {
        hook_dying = true;
        if (what == VQ_IO_WRITE) *n = *n > 1 ? *n / 2 : 1;
        else die();
    }
    if (now && hook_harm == FAIL_EIO) err = EIO;
    const bool writes = what == VQ_IO_WRITE || what == VQ_IO_SYNC || what == VQ_IO_CUT;
    if (hook_harm == FAIL_FULL && now && writes) err = ENOSPC;
    if (hook_harm == STAY_FULL && hook_step >= hook_at && writes) err = ENOSPC;
    if (hook_harm == SHORT && *n > 1) *n = (*n + 1) / 2;
    if (hook_harm == SHRINK && now) {
        char path[300];
        snprintf(path, sizeof path, "%s/model.safetensors", src);
        if (truncate(path, 3000)) _exit(99);
    }
    if (hook_harm == POWER) {
        if (what == VQ_IO_WRITE) note_write(fd, *n, off);
        if (what == VQ_IO_SYNC || what == VQ_IO_CUT) drop_writes(fd);
    }
    pthread_mutex_unlock(&hook_lock);
    return err;
}

/* Converts in a child with harm at step `at`.  *reached: there was such a step.  Returns the
 * status of the conversion, -1 when the child was killed. */
static int harmed(harm h, long at, bool *reached)
{
    int p[2], status = 0;
    char c;
    if (pipe(p)) return -2;
    fflush(stdout);
    const pid_t pid = fork();
    if (pid == 0) {
        vq_err e;
        close(p[0]);
        hook_harm = h;
        hook_at = at;
        hook_step = 0;
        hook_seed = (unsigned)at;
        hook_pipe = p[1];
        vq_io_hook = hook;
        const vq_status st = once(NULL, &e);
        if (st && !*e.msg) _exit(98);
        _exit((int)st);
    }
    close(p[1]);
    *reached = read(p[0], &c, 1) == 1;
    close(p[0]);
    waitpid(pid, &status, 0);
    return WIFSIGNALED(status) ? -1 : WEXITSTATUS(status);
}

static void put_source(const ck *k)
{
    ck_empty(src);
    T_OK(!ck_write(k, src), "write");
}

/* The undisturbed conversion; then an empty folder. */
static void set_right(const ck *k)
{
    vq_err e;
    put_source(k);
    ck_empty(out_dir);
    T_OK(!once(NULL, &e) && root_of(right) && files_in(out_dir) == 1, "%s", e.msg);
    ck_empty(out_dir);
}

static void test_steps(const ck *k, harm h, long from, long stride)
{
    bool reached = true;
    long n = 0, resumed = 0, bad = 0;
    for (long at = from; reached && at < 20000; at += stride, n++) {
        vq_err e;
        uint64_t done = 0;
        const int st = harmed(h, at, &reached);
        const bool there = vq_file_exists(out);
        const bool killed = reached && (h == KILL || h == TORN || h == POWER);
        bool ok = (!there || is_right()) && (killed ? st == -1 : st >= 0 && st < 98);
        if (h == SHRINK && reached) put_source(k); /* other times, the same bytes */
        if (!killed && st == VQ_OK) { /* a journal that could not be removed is found next time */
            ok &= there && (h == FAIL_EIO || !beside(".journal")) && !beside(".unfinished");
        }
        if (st == VQ_OK) {
            if (h == SHORT) reached = false; /* all of them at once */
            base.force = true; /* it is there already: once more */
        } else if (h == FAIL_FULL || h == STAY_FULL) {
            ok &= st == VQ_ENOFIT;
        }
        const vq_status again = once(&done, &e);
        base.force = false;
        ok &= !again && is_right() && files_in(out_dir) == 1;
        resumed += done > 0;
        if (!ok) {
            bad++;
            T_OK(false, "%s at step %ld: exit %d, then %d %s, %zu files", harm_names[h], at, st,
                 (int)again, e.msg, files_in(out_dir));
        }
        ck_empty(out_dir);
        if (bad > 3) return;
    }
    printf("%s: %ld cases, %ld gone on with\n", harm_names[h], n, resumed);
    T_OK(!reached && n > (h != SHORT), "%s: %ld steps", harm_names[h], n);
    T_OK(h == SHORT || resumed > 0, "%s: went on after %ld of %ld", harm_names[h], resumed, n);
}

/* ---- by hand ---- */

/* Stops the conversion at a step where something was committed; false: there is none. */
static bool stop_midway(harm h)
{
    bool reached = true;
    for (long at = 60; reached && at < 2000; at += 5) {
        ck_empty(out_dir);
        harmed(h, at, &reached);
        char path[300];
        snprintf(path, sizeof path, "%s.unfinished", out);
        if (!vq_file_exists(out) && vq_file_size(path) > 3 * VAQ_CHUNK) return true;
    }
    T_OK(false, "no such step");
    return false;
}

static void flip(const char *ext, uint64_t at)
{
    char path[300], c = 0;
    snprintf(path, sizeof path, "%s%s", out, ext);
    const int fd = open(path, O_RDWR);
    T_OK(fd >= 0 && pread(fd, &c, 1, (off_t)at) == 1, "%s", path);
    c ^= 0x10;
    T_OK(pwrite(fd, &c, 1, (off_t)at) == 1 && !close(fd), "%s", path);
}

static void test_refusals(ck *k)
{
    vq_err e;
    uint64_t done, root_done;
    uint8_t root[32];
    if (!stop_midway(KILL)) return;

    const int type = base.type;
    base.type = Q_F32;
    T_OK(once(NULL, &e) == VQ_EFAIL && strstr(e.msg, "another recipe") && strstr(e.msg, "--force"),
         "%s", e.msg);
    base.type = type;
    base.name = "else";
    T_OK(once(NULL, &e) == VQ_EFAIL && strstr(e.msg, "another name"), "%s", e.msg);
    base.name = NULL;
    T_OK(beside(".journal") && beside(".unfinished"), "refusals cost nothing");

    /* Touched, but the same: read again and gone on with.  Another weight: refused. */
    put_source(k);
    T_OK(!once(&done, &e) && done && is_right(), "%s", e.msg);
    if (!stop_midway(KILL)) return;
    ck_tensor *t = ck_find(k, "model.embed_tokens.weight"); /* it is done first */
    t->v[3] += 0.5f;
    put_source(k);
    T_OK(once(NULL, &e) == VQ_EFAIL && strstr(e.msg, "weights have changed"), "%s", e.msg);
    T_OK(beside(".journal") && !vq_file_exists(out), "nothing was done");
    base.force = true;
    T_OK(!once(&done, &e) && !done && root_of(root) && memcmp(root, right, 32), "%s", e.msg);
    base.force = false;
    t->v[3] -= 0.5f;
    put_source(k);

    /* Another config, another layout: --force starts over. */
    if (!stop_midway(KILL)) return;
    base.type = Q_F32;
    base.force = true;
    T_OK(!once(&done, &e) && !done && files_in(out_dir) == 1, "%s", e.msg);
    base.type = type;
    base.force = false;

    /* A name that was taken meanwhile. */
    if (!stop_midway(KILL)) return;
    T_OK(!ck_put(out_dir, "m.vaq", "mine", 4), "write");
    T_OK(once(NULL, &e) == VQ_EFAIL && strstr(e.msg, "exists"), "%s", e.msg);
    base.force = true;
    T_OK(!once(&root_done, &e) && root_done && is_right(), "%s", e.msg);
    base.force = false;
}

/* What was durable and is not, or not what it was. */
static void test_damaged(void)
{
    vq_err e;
    uint64_t done;
    char path[300];
    snprintf(path, sizeof path, "%s.unfinished", out);
    if (!stop_midway(KILL)) return;
    const uint64_t size = vq_file_size(path);
    for (int i = 0; i < 6; i++) {
        if (!stop_midway(KILL)) return;
        if (i < 4) flip(".unfinished", size * (uint64_t)(i + 1) / 5);
        else T_OK(!truncate(path, i == 4 ? (off_t)(size / 2) : 0), "cut");
        T_OK(!once(&done, &e) && is_right() && files_in(out_dir) == 1, "%d: %s", i, e.msg);
        T_OK(done || i == 0 || i == 5, "%d: nothing of it was used", i);
    }
    /* A journal: its head, an entry, all of it, the unfinished file gone. */
    if (!stop_midway(KILL)) return;
    flip(".journal", 600);
    T_OK(!once(&done, &e) && is_right(), "an entry: %s", e.msg);
    for (int i = 0; i < 2; i++) {
        if (!stop_midway(KILL)) return;
        flip(".journal", 20);
        snprintf(path, sizeof path, "%s.journal", out);
        if (i) vq_unlink(path);
        T_OK(once(NULL, &e) == VQ_EFAIL && strstr(e.msg, "journal is lost"), "%s", e.msg);
        T_OK(!strstr(e.msg, "convert as then"), "advice that cannot help: %s", e.msg);
        T_OK(beside(".unfinished") && beside(".journal") == !i, "it stays as it was");
        base.force = true;
        T_OK(!once(&done, &e) && !done && is_right() && files_in(out_dir) == 1, "%s", e.msg);
        base.force = false;
    }
    if (!stop_midway(KILL)) return;
    snprintf(path, sizeof path, "%s.unfinished", out);
    vq_unlink(path);
    T_OK(!once(&done, &e) && !done && is_right(), "no unfinished file: %s", e.msg);
}

static void test_two_at_once(void)
{
    int p[2];
    char c = 0;
    vq_err e;
    ck_empty(out_dir);
    T_OK(!pipe(p), "pipe");
    fflush(stdout);
    const pid_t pid = fork();
    if (pid == 0) { /* stands still in the middle: the parent never answers */
        hook_harm = SHORT;
        hook_at = 80;
        hook_step = 0;
        hook_pipe = p[1];
        vq_io_hook = hook;
        base.step = 1;
        base.progress = NULL;
        once(NULL, &e);
        _exit(0);
    }
    T_OK(read(p[0], &c, 1) == 1, "it is at work");
    kill(pid, SIGSTOP);
    if (!vq_file_exists(out)) {
        T_OK(once(NULL, &e) == VQ_EFAIL && strstr(e.msg, "another process"), "%s", e.msg);
        T_OK(beside(".journal") && beside(".unfinished"), "and not harmed");
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    T_OK(!once(NULL, &e) && is_right() && files_in(out_dir) == 1, "its lock died with it: %s",
         e.msg);
    close(p[0]);
    close(p[1]);
}

static bool stop_at_half(void *ctx, uint64_t done, uint64_t total)
{
    (void)ctx;
    return done > total / 2;
}

static void test_interrupted(void)
{
    vq_err e;
    uint64_t done;
    ck_empty(out_dir);
    base.progress = stop_at_half;
    base.step = 0; /* nothing was due yet: what stops it commits */
    T_OK(once(NULL, &e) == VQ_EINTR && strstr(e.msg, "are kept"), "%s", e.msg);
    T_OK(beside(".unfinished") && beside(".journal") && !vq_file_exists(out), "kept");
    base.progress = NULL;
    T_OK(!once(&done, &e) && done && is_right() && files_in(out_dir) == 1, "%s", e.msg);
}

/* Kills at random times, each conversion going on from the last until one gets through. */
static void test_random_kills(void)
{
    const char *s = getenv("VQ_KILLS");
    const int kills = s && atoi(s) > 0 ? atoi(s) : 12;
    unsigned seed = 12345;
    vq_err e;
    base.step = 1 << 16;
    ck_empty(out_dir);
    double start = vq_now();
    T_OK(!once(NULL, &e), "%s", e.msg);
    const double whole = vq_now() - start;
    ck_empty(out_dir);
    int killed = 0, bad = 0, finished = 0, went_on = 0;
    for (int tries = 0; killed < kills && tries < 50 * kills; tries++) {
        fflush(stdout);
        const pid_t pid = fork();
        if (pid == 0) {
            uint64_t done;
            const vq_status st = once(&done, &e);
            _exit(st ? 50 + (int)st : done ? 1 : 0);
        }
        const double wait = 1.2 * whole * (double)rand_r(&seed) / RAND_MAX;
        const struct timespec t = { (time_t)wait, (long)((wait - (double)(time_t)wait) * 1e9) };
        int status;
        nanosleep(&t, NULL);
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        if (WIFSIGNALED(status)) {
            killed++;
            if (vq_file_exists(out)) bad += !is_right();
        } else {
            finished++;
            went_on += WEXITSTATUS(status) == 1;
            bad += WEXITSTATUS(status) >= 50 || !is_right() || files_in(out_dir) != 1;
            ck_empty(out_dir);
        }
    }
    T_OK(!bad && killed == kills, "%d kills, %d wrong", killed, bad);
    T_OK(!once(NULL, &e) || vq_file_exists(out), "%s", e.msg);
    T_OK(is_right(), "after %d kills", killed);
    printf("%.3f s: %d kills at random times, %d conversions finished between them, %d of them "
           "had gone on\n", whole, killed, finished, went_on);
}

/* With a card: the source is made twice, and the finished container waits for figures.  The last
 * steps, where those come, one by one. */
static void test_card(long stride)
{
    char text[300];
    vq_err e;
    put_model(text);
    base.card = text;
    base.step = 1 << 16;
    ck_empty(out_dir);
    T_OK(!once(NULL, &e) && root_of(right) && files_in(out_dir) == 1, "%s", e.msg);
    ck_empty(out_dir);
    long low = 1, high = 20000; /* steps that are reached; that are not */
    while (high - low > 1) {
        const long mid = (low + high) / 2;
        bool reached = false;
        harmed(KILL, mid, &reached);
        if (reached) low = mid;
        else high = mid;
        ck_empty(out_dir);
    }
    static const harm harms[] = { KILL, POWER, FAIL_FULL, FAIL_EIO };
    for (size_t i = 0; i < sizeof harms / sizeof *harms; i++) {
        test_steps(NULL, harms[i], 1 + (long)i, stride);
        test_steps(NULL, harms[i], low - 15, 1);
    }
    /* Another text is another container. */
    for (long at = low - 2; at > 1; at -= 1 + at / 20) { /* how many there are depends on time */
        bool reached;
        ck_empty(out_dir);
        harmed(KILL, at, &reached);
        if (beside(".journal")) break;
    }
    T_OK(beside(".unfinished") && beside(".journal"), "killed near the end");
    base.card = NULL;
    T_OK(once(NULL, &e) == VQ_EFAIL && strstr(e.msg, "another text for its card"), "%s", e.msg);
    base.card = text;
    T_OK(!once(NULL, &e) && is_right() && files_in(out_dir) == 1, "%s", e.msg);
    ck_empty(out_dir);
    base.card = NULL;
    vq_unlink(text);
}

int main(void)
{
    const char *tmp = getenv("TMPDIR");
    const bool on_disk = access("/dev/shm", W_OK) != 0; /* a real one: fewer cases */
    T_OK(q_kern_make(&kern, NULL), "kernels");
    if (!tmp && !on_disk) setenv("TMPDIR", "/dev/shm", 1); /* thousands of syncs */
    conv_begin();
    const bool quick = on_disk || (getenv("VQ_QUICK") && *getenv("VQ_QUICK"));
    const bool all = getenv("VQ_KILLS") != NULL;
    base = (cv_opts){ .src = src, .out = out, .type = Q_N4, .threads = 2, .step = 1 };
    ck small, large;
    ck_make(&small);
    ck_large(&large);
    set_right(&small);
    for (int h = 0; h < N_HARM; h++) test_steps(&small, (harm)h, 1, all ? 1 : quick ? 11 : 3);
    base.type = Q_BF16;
    set_right(&large);
    for (int h = 0; h < N_HARM; h++) test_steps(&large, (harm)h, 1, all ? 1 : quick ? 67 : 29);
    test_refusals(&large);
    test_damaged();
    test_two_at_once();
    test_interrupted();
    test_random_kills();
    base.type = Q_N4;
    test_card(all ? 1 : quick ? 97 : 31);
    ck_free(&small);
    ck_free(&large);
    conv_end();
    return t_done("t_resume");
}
