/* t_draft.c - drafts change the time and nothing else: guessed right, wrong, at random, not finite,
 * beyond every end, and the two that decide: the n-gram drafter and the pace.
 *
 *   VQ_QUICK=1   fewer temperatures, ends and cuts: an emulator is some hundred times slower here,
 * where most of a pass is threads waiting for each other */
#include "core/engine/engine.h"
#include "tests/drafts.h"
#include "tests/made.h"
#include "tests/temp.h"
#include "tests/test.h"

#include <pthread.h>
#include <stdatomic.h>

enum { VOCAB = 150, IDS = 140, CTX = 600, MAX_DRAFT = 6, PROMPT = 40, GEN = 120 };

static const made_spec spec = { .arch = VAQ_QWEN2, .n_layer = 3, .hidden = 80, .n_head = 6,
                                .n_head_kv = 2, .head_dim = 24, .inter = 100, .n_vocab = VOCAB,
                                .n_ids = IDS, .ctx = CTX, .flags = VAQ_F_QKV_BIAS, .type = Q_N4,
                                .bad_token = 145, .seed = 5 };

static bool quick;

static vq_engine *open_made(made *m, const vq_engine_opts *o)
{
    vq_engine *eng = NULL;
    vq_err e = { 0 };
    if (made_open(m, &spec)) exit(1);
    vq_file *f = m->file;
    m->file = NULL;
    T_OK(!vq_engine_open_file(&eng, f, o, &e), "%s", e.msg);
    if (!eng) exit(1);
    return eng;
}

static vq_engine *open_usual(made *m, int sessions)
{
    const vq_engine_opts o = { .threads = 2, .max_sessions = sessions, .max_rows = 64,
                               .max_draft = MAX_DRAFT, .kv = VQ_KV_INT8 };
    return open_made(m, &o);
}

/* A prompt that repeats itself, so that n-grams find something. */
static void prompt(int32_t *v, int n)
{
    for (int i = 0; i < n; i++) v[i] = (i % 7 * 19 + i / 21) % IDS;
}

/* A session with the prompt queued.  right < 0: drafts by o->draft. */
static vq_session *start(vq_engine *eng, const vq_session_opts *o, const int32_t *told, size_t n,
                         int right)
{
    vq_session *s = NULL;
    vq_err e = { 0 };
    int32_t v[PROMPT];
    prompt(v, PROMPT);
    T_OK(!vq_session_open(&s, eng, o, &e) && !vq_session_add(s, v, PROMPT, &e), "%s", e.msg);
    if (!s) exit(1);
    if (right >= 0) vq_session_use_drafter(s, oracle_new(told, n, VOCAB, right, 77));
    return s;
}

/* The ids of a plain run, prompt included. */
static size_t plain(vq_engine *eng, vq_session_opts o, int32_t *out, size_t most)
{
    vq_err e = { 0 };
    int32_t id;
    o.draft = VQ_DRAFT_OFF;
    vq_session *s = start(eng, &o, NULL, 0, -1);
    while (vq_session_len(s) < most && !vq_session_finished(s) && !vq_session_next(s, &id, &e)) {}
    const size_t n = vq_session_len(s);
    memcpy(out, vq_session_ids(s), n * sizeof *out);
    vq_session_close(s);
    return n;
}

/* ---- one text ---- */

/* Every id by next, and every row of logits by step and sample. */
static void one_text(void)
{
    static const double temps[] = { 0, 0.7, 20 };
    static const int rights[] = { 100, 0, 80, -1, -2 }; /* -1: n-gram, -2: auto */
    static float want[GEN][VOCAB];
    made m;
    vq_engine *eng = open_usual(&m, 2);
    vq_err e = { 0 };
    for (int t = quick; t < (quick ? 2 : 3); t++) {
        vq_session_opts o = { .sampling = { .temperature = temps[t], .top_p = 0.95, .seed = 3 },
                              .ignore_eos = true };
        int32_t told[PROMPT + GEN];
        const size_t n = plain(eng, o, told, PROMPT + GEN);
        for (int r = 0; r < 5; r++) {
            o.draft = rights[r] == -1 ? VQ_DRAFT_NGRAM : rights[r] == -2 ? VQ_DRAFT_AUTO : 0;
            vq_session *s = start(eng, &o, told, n, rights[r]);
            int32_t id;
            size_t same = PROMPT, left;
            while (same < n && !vq_session_next(s, &id, &e) && id == told[same]) same++;
            T_OK(same == n, "T %g, way %d: ids differ at %zu of %zu %s", temps[t], rights[r], same,
                 n, e.msg);
            const vq_draft_stats st = vq_session_draft_stats(s);
            T_OK(st.accepted <= st.drafted && st.verifications <= st.drafted
                     && st.accepted + st.verifications <= GEN,
                 "%d of %d in %d", (int)st.accepted, (int)st.drafted, (int)st.verifications);
            if (rights[r] == 100) /* a pass yields all it can */
                T_OK(st.accepted >= GEN * MAX_DRAFT / (MAX_DRAFT + 1) - MAX_DRAFT
                         && st.verifications <= GEN / (MAX_DRAFT + 1) + 1,
                     "%d of %d in %d", (int)st.accepted, (int)st.drafted, (int)st.verifications);
            if (rights[r] == 0) T_OK(st.accepted < GEN / 4, "%d by chance", (int)st.accepted);
            vq_session_close(s);

            s = start(eng, &o, told, n, rights[r]);
            int wrong = 0;
            for (int k = 0; k < GEN; k++) {
                do T_OK(!vq_step(eng, &s, 1, 0, &left, &e), "%s", e.msg);
                while (left);
                const float *row = vq_session_logits(s);
                if (r == 0) memcpy(want[k], row, sizeof want[k]);
                else wrong += memcmp(want[k], row, sizeof want[k]) != 0;
                T_OK(!vq_session_sample(s, &id, &e) && id == told[PROMPT + k], "%s", e.msg);
                T_OK(!vq_session_add(s, &id, 1, &e) && !vq_session_logits(s), "%s", e.msg);
            }
            T_OK(!wrong, "T %g, way %d: %d rows of logits differ", temps[t], rights[r], wrong);
            vq_session_close(s);
        }
        /* The rows just compared were those of right drafts; now against none. */
        o.draft = VQ_DRAFT_OFF;
        vq_session *s = start(eng, &o, NULL, 0, -1);
        int wrong = 0;
        size_t left;
        for (int k = 0; k < GEN; k++) {
            while (!vq_session_logits(s) && !vq_step(eng, &s, 1, 0, &left, &e)) {}
            wrong += memcmp(want[k], vq_session_logits(s), sizeof want[k]) != 0;
            vq_session_add(s, &told[PROMPT + k], 1, &e);
        }
        T_OK(!wrong, "T %g: %d rows of logits differ from plain ones", temps[t], wrong);
        vq_session_close(s);
    }
    vq_engine_close(eng);
    made_close(&m);
}

/* ---- ends ---- */

static void same_end(vq_engine *eng, const vq_session_opts *o, const int32_t *told, size_t n_told,
                     const char *what)
{
    int32_t want[CTX], id = -1;
    vq_err e = { 0 };
    const size_t n = plain(eng, *o, want, CTX);
    for (int right = 100; right >= 0; right -= 50) {
        vq_session *s = start(eng, o, told, n_told, right);
        while (!vq_session_finished(s) && !vq_session_next(s, &id, &e)) {}
        T_OK(vq_session_len(s) == n && !memcmp(want, vq_session_ids(s), n * sizeof *want)
                 && vq_session_finished(s),
             "%s, %d right: %zu ids instead of %zu %s", what, right, vq_session_len(s), n, e.msg);
        T_OK(vq_session_next(s, &id, &e) == VQ_EUSAGE, "%s: finished", what);
        if (n < CTX) { /* the next turn of a chat */
            T_OK(!vq_session_add(s, told, 1, &e) && !vq_session_finished(s)
                     && !vq_session_next(s, &id, &e) && vq_session_len(s) == n + 2,
                 "%s: goes on: %s", what, e.msg);
        }
        vq_session_close(s);
    }
}

static void ends(void)
{
    made m;
    vq_engine *eng = open_usual(&m, 2);
    vq_session_opts o = { .sampling = { .temperature = 20, .top_p = 1, .seed = 3 },
                          .ignore_eos = true };
    static int32_t told[CTX];
    const size_t n = plain(eng, o, told, CTX);
    T_OK(n == CTX, "%zu", n);
    same_end(eng, &o, told, n, "context full");
    for (uint32_t k = 1; k <= 2 * MAX_DRAFT + 3; k += quick ? MAX_DRAFT : 1) {
        o.max_new = k;
        same_end(eng, &o, told, n, "max_new");
    }
    o.max_new = 0;
    o.ignore_eos = false;
    int32_t v[CTX];
    int stopped = 0;
    for (uint64_t seed = 1; seed < (quick ? 3 : 8); seed++) { /* told beyond EOS */
        o.sampling.seed = seed;
        o.ignore_eos = true;
        plain(eng, o, told, CTX);
        o.ignore_eos = false;
        stopped += plain(eng, o, v, CTX) < CTX;
        same_end(eng, &o, told, n, "EOS");
    }
    T_OK(stopped >= (quick ? 1 : 3), "only %d runs met EOS", stopped);
    vq_engine_close(eng);
    made_close(&m);
}

/* ---- what callers do while drafts wait ---- */

static void meddling(void)
{
    made m;
    vq_engine *eng = open_usual(&m, 4);
    vq_err e = { 0 };
    const vq_session_opts o = { .sampling = { .temperature = 20, .top_p = 1, .seed = 9 },
                                .ignore_eos = true };
    static int32_t told[CTX];
    const size_t n = plain(eng, o, told, CTX);
    int32_t id;
    int wrong = 0;
    /* Around the end of a block the drafts have one of their own. */
    for (size_t at = 249; at < 262; at += quick ? 6 : 1)
        for (int k = 0; k < MAX_DRAFT; k += quick ? 3 : 1) {
            vq_session *s, *f, *g = NULL;
            T_OK(!vq_session_open(&s, eng, &o, &e) && !vq_session_add(s, told, at, &e), "%s",
                 e.msg);
            vq_session_use_drafter(s, oracle_new(told, n, VOCAB, 100, 1));
            for (int i = 0; i <= 1 + k; i++) { /* 1: drafts of the first pass wait from here on */
                T_OK(!vq_session_next(s, &id, &e), "%s", e.msg);
                wrong += id != told[at + (size_t)i];
            }
            const size_t len = vq_session_len(s);
            T_OK(!vq_session_fork(&f, s, &o, &e) && !vq_session_fork(&g, s, &o, &e), "%s", e.msg);
            vq_session_use_drafter(g, oracle_new(told, n, VOCAB, 100, 1));
            /* f is cut and goes the same way again; g gets another id; s goes on. */
            T_OK(!vq_session_truncate(f, len - 2, &e), "%s", e.msg);
            const int32_t other = (told[len] + 1) % IDS;
            T_OK(!vq_session_add(g, &other, 1, &e) && !vq_session_next(g, &id, &e), "%s", e.msg);
            for (size_t i = len - 2; i < len + 12; i++) {
                T_OK(!vq_session_next(f, &id, &e), "%s", e.msg);
                wrong += id != told[i];
                if (i < len) continue;
                T_OK(!vq_session_next(s, &id, &e), "%s", e.msg);
                wrong += id != told[i];
            }
            /* Cut into what was drafted, a foreign id, back again. */
            T_OK(!vq_session_truncate(s, len + 3, &e) && !vq_session_add(s, &other, 1, &e)
                     && !vq_session_next(s, &id, &e) && !vq_session_truncate(s, len + 3, &e)
                     && !vq_session_next(s, &id, &e),
                 "%s", e.msg);
            wrong += id != told[len + 3];
            /* Another id than the drafted one, queued already, is cut away and replaced. */
            T_OK(!vq_session_truncate(s, len + 3, &e) && !vq_session_add(s, &told[len + 3], 1, &e)
                     && !vq_session_next(s, &id, &e),
                 "%s", e.msg);
            wrong += id != told[len + 4];
            vq_session_close(s);
            vq_session_close(f);
            vq_session_close(g);
        }
    T_OK(!wrong, "%d ids differ", wrong);

    /* All logits of a stretch, and padding, while drafts wait. */
    vq_session *s = start(eng, &o, told, n, 100);
    for (int i = 0; i < 2; i++) T_OK(!vq_session_next(s, &id, &e), "%s", e.msg);
    size_t left;
    T_OK(!vq_step(eng, &s, 1, 0, &left, &e), "%s", e.msg);
    T_OK(!vq_session_pad(s, 300, &e) && !vq_session_next(s, &id, &e), "%s", e.msg);
    vq_session_close(s);
    vq_engine_close(eng);
    made_close(&m);
}

/* ---- beside others ---- */

static void beside(void)
{
    enum { S = 4, STEPS = 60 };
    static const int rights[S] = { 100, 60, -1, -2 };
    made m;
    const vq_engine_opts eo = { .threads = 3, .max_sessions = S, .max_rows = 11, .max_draft = 5 };
    vq_engine *eng = open_made(&m, &eo);
    vq_err e = { 0 };
    static int32_t told[S][CTX];
    vq_session *s[S];
    size_t n[S];
    for (int i = 0; i < S; i++) {
        const vq_session_opts o = { .sampling = { .temperature = i, .top_p = 1, .stream = 2 },
                                    .ignore_eos = true,
                                    .draft = rights[i] == -1 ? VQ_DRAFT_NGRAM : 0 };
        n[i] = plain(eng, o, told[i], PROMPT + STEPS);
    }
    for (int i = 0; i < S; i++) {
        const vq_session_opts o = { .sampling = { .temperature = i, .top_p = 1, .stream = 2 },
                                    .ignore_eos = true,
                                    .draft = rights[i] == -1 ? VQ_DRAFT_NGRAM : 0 };
        s[i] = start(eng, &o, told[i], n[i], rights[i]);
    }
    int wrong = 0;
    for (int k = 0; k < STEPS * S; k++) {
        size_t left;
        T_OK(!vq_step(eng, s, S, k % 3 ? 0 : 1 + k % 7, &left, &e), "%s", e.msg);
        for (int i = 0; i < S; i++) {
            int32_t id;
            if (!vq_session_logits(s[i]) || vq_session_len(s[i]) == n[i]) continue;
            T_OK(!vq_session_sample(s[i], &id, &e), "%s", e.msg);
            wrong += id != told[i][vq_session_len(s[i])];
            T_OK(!vq_session_add(s[i], &id, 1, &e), "%s", e.msg);
        }
    }
    for (int i = 0; i < S; i++)
        T_OK(vq_session_len(s[i]) == n[i], "session %d came to %zu", i, vq_session_len(s[i]));
    T_OK(!wrong, "%d ids differ beside others", wrong);
    T_OK(vq_session_draft_stats(s[0]).accepted > STEPS / 2, "drafted beside others");
    vq_engine_close(eng);
    made_close(&m);
}

/* ---- not finite ---- */

typedef struct poison { vq_drafter base; int at; const int32_t *told; } poison;

static int propose_poison(vq_drafter *d, const int32_t *ids, size_t n, vq_guess *out, int most)
{
    const poison *p = (poison *)d;
    (void)ids;
    for (int i = 0; i < most; i++)
        out[i].id = i == p->at ? spec.bad_token : p->told[n + (size_t)i];
    return most;
}

static void not_finite(void)
{
    made m;
    vq_engine *eng = open_usual(&m, 2);
    vq_err e = { 0 };
    const vq_session_opts o = { .sampling = { .temperature = 20, .top_p = 1, .seed = 4 },
                                .ignore_eos = true };
    static int32_t told[CTX];
    plain(eng, o, told, PROMPT + GEN + 20);
    for (int at = 0; at < MAX_DRAFT; at++) {
        vq_session *s = start(eng, &o, NULL, 0, -1);
        poison *p = vq_calloc(1, sizeof *p);
        *p = (poison){ { .propose = propose_poison, .close = oracle_free }, at, told };
        vq_session_use_drafter(s, &p->base);
        int32_t id;
        int same = 0;
        while (same < GEN && !vq_session_next(s, &id, &e) && id == told[PROMPT + same]) same++;
        T_OK(same == GEN, "bad draft %d: %d ids alike %s", at, same, e.msg);
        const vq_draft_stats st = vq_session_draft_stats(s);
        T_OK(st.accepted <= st.verifications * (uint64_t)at
                 && st.accepted + (uint64_t)at >= (st.verifications - 1) * (uint64_t)at,
             "bad draft %d: %d accepted in %d", at, (int)st.accepted, (int)st.verifications);
        /* The same id in earnest ends the sequence. */
        T_OK(!vq_session_add(s, &(int32_t){ spec.bad_token }, 1, &e)
                 && vq_session_next(s, &id, &e) == VQ_EFAIL && strstr(e.msg, "not finite"),
             "%s", e.msg);
        vq_session_close(s);
    }
    vq_engine_close(eng);
    made_close(&m);
}

/* ---- interrupts ---- */

static vq_engine *stoppable;
static atomic_int stopper_ends;
static atomic_int in_a_row;     /* stops without an id between them */

static void *stopper(void *arg)
{
    uint64_t seed = 1;
    (void)arg;
    while (!atomic_load(&stopper_ends)) {
        for (volatile uint32_t i = made_rnd(&seed) % 40000; i; i--) {}
        /* Then a pass must end, however slow the machine. */
        if (atomic_load(&in_a_row) < 3) vq_engine_stop(stoppable);
    }
    return NULL;
}

static void interrupts(void)
{
    made m;
    vq_engine *eng = open_usual(&m, 2);
    vq_err e = { 0 };
    const vq_session_opts o = { .sampling = { .temperature = 20, .top_p = 1, .seed = 6 },
                                .ignore_eos = true };
    static int32_t told[CTX];
    const size_t n = plain(eng, o, told, PROMPT + GEN);
    vq_session *s = start(eng, &o, told, n, 100);
    int32_t id;
    /* A stop is obeyed also where the next ids wait and nothing would have to be computed. */
    for (size_t at = PROMPT; at < n; at++) {
        vq_engine_stop(eng);
        T_OK(vq_session_next(s, &id, &e) == VQ_EINTR && vq_session_len(s) == at, "stopped at %zu",
             at);
        vq_engine_resume(eng);
        T_OK(!vq_session_next(s, &id, &e) && id == told[at], "%zu: %s", at, e.msg);
    }
    vq_session_close(s);
    /* At any moment: layers of draft rows are written or not. */
    pthread_t t;
    stoppable = eng;
    T_OK(!pthread_create(&t, NULL, stopper, NULL), "thread");
    int wrong = 0;
    for (int right = 100; right >= 50; right -= 25) {
        s = start(eng, &o, told, n, right);
        for (size_t at = PROMPT; at < n;) {
            const vq_status st = vq_session_next(s, &id, &e);
            wrong += st ? st != VQ_EINTR || vq_session_len(s) != at : id != told[at];
            at += !st;
            atomic_store(&in_a_row, st ? atomic_load(&in_a_row) + 1 : 0);
            if (st) vq_engine_resume(eng);
        }
        vq_session_close(s);
    }
    atomic_store(&stopper_ends, 1);
    pthread_join(t, NULL);
    T_OK(!wrong, "%d differ after interrupts", wrong);
    vq_engine_close(eng);
    made_close(&m);
}

/* ---- refusals, memory ---- */

static void refusals(void)
{
    made m;
    vq_err e = { 0 };
    vq_session *s;
    const vq_engine_opts none = { .threads = 1 };
    vq_engine *eng = open_made(&m, &none);
    const vq_session_opts ngram = { .draft = VQ_DRAFT_NGRAM }, mtp = { .draft = VQ_DRAFT_MTP };
    const uint64_t without = vq_engine_info(eng)->scratch_bytes;
    T_OK(vq_session_open(&s, eng, &ngram, &e) == VQ_EUSAGE && strstr(e.msg, "max_draft"), "%s",
         e.msg);
    vq_engine_close(eng);
    made_close(&m);
    eng = open_usual(&m, 1);
    T_OK(vq_session_open(&s, eng, &mtp, &e) == VQ_EUSAGE && strstr(e.msg, "MTP"), "%s", e.msg);
    T_OK(!vq_session_open(&s, eng, &ngram, &e), "the slot is free again: %s", e.msg);
    vq_engine_close(eng);
    made_close(&m);
    const vq_engine_opts one = { .threads = 1, .max_draft = 1, .max_rows = 512 };
    eng = open_made(&m, &one);
    T_OK(vq_engine_info(eng)->scratch_bytes >= without + 4 * (VOCAB + CTX), "drafts are planned");
    vq_engine_close(eng);
    made_close(&m);
    if (made_open(&m, &spec)) return;
    const vq_engine_opts many = { .max_draft = VQ_DRAFT_MOST + 1 };
    T_OK(vq_engine_open_file(&eng, m.file, &many, &e) == VQ_EUSAGE && strstr(e.msg, "drafts"), "%s",
         e.msg);
    m.file = NULL;
    made_close(&m);
    if (!vq_mem_fail_at(0)) {
        T_SKIP("failing allocations need a build with VQ_DEBUG");
        return;
    }
    int failures = 0, wrong = 0;
    eng = open_usual(&m, 1);
    for (long nth = 1; nth < 20; nth++) {
        vq_mem_fail_at(nth);
        const vq_status st = vq_session_open(&s, eng, &ngram, &e);
        vq_mem_fail_at(0);
        failures += st != VQ_OK;
        wrong += st && st != VQ_ENOMEM;
        vq_session_close(s);
        if (!st) break;
    }
    T_OK(failures >= 4 && !wrong, "%d failed, %d not as out of memory", failures, wrong);
    vq_engine_close(eng);
    made_close(&m);
}

/* ---- n-grams ---- */

static int agrees(const int32_t *v, size_t a, size_t n)
{
    int l = 0;
    while ((size_t)l < a && l < 64 && v[a - 1 - (size_t)l] == v[n - 1 - (size_t)l]) l++;
    return l;
}

static void ngrams(void)
{
    enum { N = 2000 };
    static int32_t v[N];
    vq_drafter *d;
    vq_err e = { 0 };
    vq_guess g[8];
    uint64_t seed = 1;
    T_OK(!vq_ngram_new(&d, N, &e), "%s", e.msg);
    size_t n = 0;
    int wrong = 0, found = 0, missed = 0, asked = 0;
    for (int k = 0; k < 20000; k++) {
        const uint32_t what = made_rnd(&seed) % 100;
        if (what < 2 || n == N) { /* a cut */
            n = made_rnd(&seed) % (uint32_t)(n + 1);
            d->cut(d, v, n);
        }
        if (what < 30 && n > 60 && n < N - 30) { /* something said before */
            const size_t from = made_rnd(&seed) % (uint32_t)(n - 30);
            for (int i = 0; i < 12; i++) v[n++] = v[from + (size_t)i];
        } else {
            v[n++] = (int32_t)(made_rnd(&seed) % 12);
        }
        if (what % 3 == 0) continue; /* not asked after every id */
        const int most = 1 + k % 8, got = d->propose(d, v, n, g, most);
        size_t best = 0, latest = 0;
        for (size_t a = 2; a < n; a++)
            if (agrees(v, a, n) >= 2) latest = a;
        asked += latest != 0;
        missed += latest && !got;
        if (!got) continue;
        found++;
        /* Some place agrees, no worse than the latest one, and went on just so. */
        for (size_t a = 2; a < n && !best; a++) {
            int i = 0;
            while (i < got && (a + (size_t)i < n ? v[a + (size_t)i] : g[a + (size_t)i - n].id)
                                  == g[i].id)
                i++;
            if (i == got && agrees(v, a, n) >= 2 && agrees(v, a, n) >= agrees(v, latest, n))
                best = a;
        }
        wrong += got > most || !best;
    }
    d->close(d);
    T_OK(!wrong && found > 1000, "%d of %d proposals are no continuation", wrong, found);
    /* 12 ids make 144 pairs under 2048 hashes: some share a list, of which 32 are looked at. */
    T_OK(missed * 50 < asked, "%d of %d overlooked", missed, asked);
}

/* ---- the pace, by a clock of our own ---- */

/* Seconds of a text of n ids in which guesses of rank r come true with chance right[r]; a pass of m
 * rows takes cost(m).  drift: chances change to those of right2 half way. */
static double pace_run(vq_draft mode, int n, const float *right, const float *right2,
                       double (*cost)(int, uint64_t *), uint64_t seed)
{
    vq_pace p;
    double total = 0;
    int ahead = 0;
    bool good[VQ_DRAFT_MOST];
    int n_good = 0;
    vq_pace_init(&p, mode);
    for (int i = 0; i < n; i++) {
        const float *r = i < n / 2 ? right : right2;
        if (!ahead) {
            const int rank0 = (int)(made_rnd(&seed) % VQ_DRAFT_CLASSES);
            vq_pace_forget(&p);
            n_good = p.n = 8;
            for (int j = 0; j < n_good; j++) {
                p.guess[j] = (vq_guess){ 1, rank0 + j < 7 ? rank0 + j : 7 };
                good[j] = (double)made_rnd(&seed) * 0x1p-31 < (double)r[p.guess[j].rank];
            }
            const int k = vq_pace_choose(&p);
            const double t = cost(1 + k, &seed);
            total += t;
            vq_pace_pass(&p, 1 + k, t);
            int a = 0;
            while (a < k && good[a]) a++;
            ahead = a + 1;
            for (int j = 0; j < ahead; j++) vq_pace_meet(&p, j < n_good && good[j] ? 1 : 0);
        }
        ahead--;
    }
    return total;
}

static double flat(int m, uint64_t *s) { (void)s; return 1 + 0.05 * (m - 1); }
static double steep(int m, uint64_t *s) { (void)s; return m == 1 ? 1 : 1.3 + 0.3 * m; }
static double noisy(int m, uint64_t *s)
{
    const double t = m == 1 ? 1 : 1.2 + 0.1 * m;
    return made_rnd(s) % 50 == 0 ? 30 * t : t * (0.9 + 0.2 * (double)made_rnd(s) * 0x1p-31);
}
static double useless(int m, uint64_t *s) { (void)s; return m; }

static void paces(void)
{
    static const float never[8] = { 0 };
    static const float always[8] = { 1, 1, 1, 1, 1, 1, 1, 1 };
    static const float half[8] = { .5f, .5f, .5f, .5f, .5f, .5f, .5f, .5f };
    static const float some[8] = { .2f, .3f, .4f, .5f, .7f, .8f, .9f, .95f };
    static double (*const costs[])(int, uint64_t *) = { flat, steep, noisy, useless };
    static const float *const rights[] = { never, always, half, some };
    for (int c = 0; c < 4; c++)
        for (int a = 0; a < 4; a++)
            for (int b = 0; b < 4; b++)
                for (int n = 100; n <= 1600; n *= 4) {
                    double on = 0, off = 0;
                    for (uint64_t seed = 1; seed <= 8; seed++) {
                        on += pace_run(VQ_DRAFT_AUTO, n, rights[a], rights[b], costs[c], seed);
                        uint64_t s2 = seed;
                        for (int i = 0; i < n; i++) off += costs[c](1, &s2);
                    }
                    /* Of noise with spikes of 30 passes the plain run has its own share. */
                    T_OK(off >= (c == 2 ? 0.9 : 0.97) * on, "cost %d, chances %d %d, %d ids: %.3f",
                         c, a, b, n, off / on);
                    if (c == 0 && a == 1 && b == 1)
                        T_OK(off >= 4 * on, "all right, %d ids: %.3f", n, off / on);
                    if (c == 1 && a == 1 && b == 1)
                        T_OK(off >= (n < 1600 ? 1.5 : 1.9) * on, "all right, steep, %d ids: %.3f",
                             n, off / on);
                }
    /* A drafter that is far behind is not tried; one that keeps up is, with a single guess. */
    vq_pace p;
    vq_pace_init(&p, VQ_DRAFT_AUTO);
    T_OK(vq_pace_afford(&p, 4, 0) == 0, "before plain passes were timed");
    for (int i = 0; i < 4; i++) vq_pace_pass(&p, 1, 1);
    T_OK(vq_pace_afford(&p, 4, 0) == 1 && vq_pace_afford(&p, 4, 2) == 0, "%d and %d guesses",
         vq_pace_afford(&p, 4, 0), vq_pace_afford(&p, 4, 2));
    T_OK(vq_pace_upkeep(&p) > 0 && vq_pace_upkeep(&p) <= 0.03f, "%g", (double)vq_pace_upkeep(&p));
    double on = 0;
    for (uint64_t seed = 1; seed <= 8; seed++)
        on += pace_run(VQ_DRAFT_NGRAM, 400, never, never, flat, seed);
    T_OK(on < 8 * 400 * 1.4, "without a clock drafts that never come true get short: %.3f",
         on / (8 * 400));
}

int main(void)
{
    const char *v = getenv("VQ_QUICK");
    quick = v && *v;
    refusals();
    one_text();
    ends();
    meddling();
    beside();
    not_finite();
    interrupts();
    ngrams();
    paces();
    return t_done("t_draft");
}
