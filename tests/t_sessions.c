/* t_sessions.c - sessions driven at random: opened, forked, lengthened, cut, stopped in the middle
 * of a pass and computed together, with drafts of every kind or none, on models of odd shapes.
 *
 * Whatever happened to a session, its logits must be those of a sequence of the same ids computed
 * alone by the reference kernels on one thread.  The seed of a failing trial is printed. */
#include "core/engine/engine.h"
#include "tests/drafts.h"
#include "tests/made.h"
#include "tests/test.h"

#include <stdlib.h>

enum { SLOTS = 4, STEPS = 250, CHECKS = 8, LONGEST = 520, CTX = 600 };

static uint64_t seed, accepted;

static uint32_t below(uint32_t n) { return made_rnd(&seed) % n; }

static made_spec some_model(void)
{
    static const struct { uint32_t n_head, n_kv, head_dim; } heads[] = {
        { 7, 1, 8 }, { 6, 2, 48 }, { 3, 3, 20 }, { 8, 1, 64 }, { 2, 1, 136 }, { 1, 1, 256 },
        { 65, 1, 4 }, { 4, 2, 128 }
    };
    static const int types[] = { Q_F32, Q_F16, Q_BF16, Q_L8, Q_L6,
                                  Q_N5,  Q_N4,  Q_N4S,  Q_P6, Q_P5 };
    const uint32_t h = below(sizeof heads / sizeof heads[0]);
    made_spec s = { .arch = VAQ_QWEN2 + below(3),
                    .n_layer = 1 + below(3),
                    .hidden = 1 + below(200),
                    .n_head = heads[h].n_head,
                    .n_head_kv = heads[h].n_kv,
                    .head_dim = heads[h].head_dim,
                    .inter = 1 + below(200),
                    .n_vocab = 2 + below(90),
                    .ctx = CTX,
                    .type = types[below(10)],
                    .v_type = below(2) ? types[below(10)] : 0,
                    .seed = seed };
    s.n_ids = 1 + below(s.n_vocab);
    s.flags = (below(2) ? VAQ_F_TIED : 0) | (below(2) ? VAQ_F_ROPE_PAIRS : 0);
    if (s.arch == VAQ_QWEN2) s.flags |= VAQ_F_QKV_BIAS;
    if (s.arch == VAQ_QWEN3) s.flags |= VAQ_F_QK_NORM;
    if (s.arch == VAQ_QWEN2 && below(2)) s.k_bias = 900;
    return s;
}

static vq_engine *open_model(made *m, const made_spec *s, const vq_engine_opts *o)
{
    vq_engine *eng = NULL;
    vq_err e = { 0 };
    if (made_open(m, s)) return NULL;
    vq_file *f = m->file;
    m->file = NULL;
    T_OK(!vq_engine_open_file(&eng, f, o, &e), "%s", e.msg);
    return eng;
}

static vq_status keep(void *ctx, size_t pos, const float *logits, vq_err *e)
{
    (void)pos;
    (void)e;
    void **c = ctx;
    memcpy(c[0], logits, *(size_t *)c[1]);
    return VQ_OK;
}

static bool as_alone(vq_engine *ref, const vq_session *s, float *want)
{
    size_t bytes = (size_t)vq_engine_info(ref)->vocab * sizeof *want;
    void *ctx[] = { want, &bytes };
    vq_session *r;
    vq_err e = { 0 };
    vq_status st = vq_session_open(&r, ref, NULL, &e);
    if (!st)
        st = vq_session_logits_all(r, vq_session_ids(s), vq_session_len(s), 0, true, keep, ctx, &e);
    T_OK(!st, "%s", e.msg);
    vq_session_close(r);
    return !st && !memcmp(want, vq_session_logits(s), bytes);
}

/* The stop comes from the session's own progress callback: the next pass finds it at once. */
static bool stop_soon(void *ctx, size_t done, size_t total)
{
    (void)total;
    if (done > 40) vq_engine_stop(ctx);
    return false;
}

/* Most ids of most sessions are those of one list: so drafters that know it are often right. */
static int32_t usual[CTX];

static vq_status begin_drafting(vq_session **s, vq_session *from, vq_engine *eng, int max_draft,
                                uint32_t vocab, vq_err *e)
{
    const vq_session_opts o = { .draft = max_draft && below(2) ? VQ_DRAFT_NGRAM
                                         : max_draft && below(2) ? VQ_DRAFT_AUTO : VQ_DRAFT_OFF };
    const vq_status st = from ? vq_session_fork(s, from, &o, e) : vq_session_open(s, eng, &o, e);
    if (!st && !o.draft && below(4))
        vq_session_use_drafter(*s, oracle_new(usual, CTX, (int)vocab, 30 + (int)below(71), seed));
    return st;
}

static vq_status lengthen(vq_session *s, uint32_t vocab, vq_err *e)
{
    int32_t v[300];
    const uint32_t n = below(4) ? 1 + below(5) : 1 + below(300);
    if (vq_session_len(s) + n > LONGEST) return VQ_OK;
    const bool as_usual = below(3);
    for (uint32_t i = 0; i < n; i++)
        v[i] = as_usual ? usual[vq_session_len(s) + i] : (int32_t)below(vocab);
    return vq_session_add(s, v, n, e);
}

static vq_status cut(vq_session *s, vq_err *e)
{
    const size_t n = vq_session_len(s);
    const size_t to = below(3) == 0 && n > 260 ? 254 + below(5) /* around the end of a block */
                      : below(2)               ? n * (90 + below(11)) / 100
                                               : below((uint32_t)n + 1);
    return vq_session_truncate(s, to, e);
}

/* Draws and takes the id back: a stop in between must leave the session as it was. */
static vq_status draw(vq_engine *eng, vq_session *s, vq_err *e)
{
    const size_t n = vq_session_len(s);
    int32_t id;
    if (!n) return VQ_OK;
    vq_session_on_prefill(s, stop_soon, eng);
    vq_status st = vq_session_next(s, &id, e);
    T_OK(!st || (st == VQ_EINTR && vq_session_len(s) == n), "%s", e->msg);
    vq_session_on_prefill(s, NULL, NULL);
    vq_engine_resume(eng);
    if (!st && vq_session_len(s) == n + 1) st = vq_session_truncate(s, n, e);
    return st == VQ_EINTR ? VQ_OK : st;
}

static vq_status compute(vq_engine *eng, vq_session **all, vq_session **some, int *n, vq_err *e)
{
    const uint32_t first = below(SLOTS);
    size_t left = 1;
    vq_status st = VQ_OK;
    *n = 0;
    for (uint32_t i = 0; i < SLOTS; i++)
        if (all[(first + i) % SLOTS] && below(4)) some[(*n)++] = all[(first + i) % SLOTS];
    for (uint32_t k = 1 + below(80); !st && k && left; k--)
        st = vq_step(eng, some, *n, (int)(below(3) * below(40)), &left, e);
    return st;
}

static void trial(uint64_t number)
{
    static const int rows[] = { 1, 2, 5, 17, 24, 25, 130, 512 };
    const char *level[8];
    const uint32_t n_level = (uint32_t)q_cpu_levels(level);
    made m, alone;
    vq_err e = { 0 };
    seed = number;
    made_spec spec = some_model();
    if (number % 6 == 5) spec.inter += 1000; /* jobs of several tiles when a pass has few rows */
    const vq_kv_type kv = (vq_kv_type)below(4);
    const vq_engine_opts o = { .cpu = level[below(n_level)], .threads = 1 + (int)below(3),
                               .max_sessions = SLOTS, .max_rows = rows[below(8)],
                               .max_draft = (int)(below(4) * below(4)), .kv = kv };
    const vq_engine_opts plain = { .cpu = "ref", .threads = 1, .max_rows = 64, .kv = kv };
    vq_engine *eng = open_model(&m, &spec, &o), *ref = open_model(&alone, &spec, &plain);
    float *want = calloc(spec.n_vocab, sizeof *want);
    vq_session *s[SLOTS] = { NULL }, *some[SLOTS];
    int checked = 0, wrong = 0;
    for (int i = 0; i < CTX; i++) /* 9 ids that come again are what n-grams look for */
        usual[i] = i % 40 < 9 ? (int32_t)(i % 40 % spec.n_vocab) : (int32_t)below(spec.n_vocab);
    vq_status st = eng && ref && want ? VQ_OK : VQ_EFAIL;
    for (int k = 0; !st && k < STEPS && checked < CHECKS; k++) {
        const uint32_t i = below(SLOTS), j = below(SLOTS);
        const uint32_t what = below(8);
        int n = 0;
        if (!s[i]) {
            st = begin_drafting(&s[i], below(3) ? s[j] : NULL, eng, o.max_draft, spec.n_vocab, &e);
        } else if (what == 0 && below(3) == 0) {
            vq_session_close(s[i]);
            s[i] = NULL;
        } else if (what <= 3) {
            st = lengthen(s[i], spec.n_vocab, &e);
        } else if (what == 4) {
            st = cut(s[i], &e);
        } else if (what == 5) {
            st = draw(eng, s[i], &e);
        } else {
            st = compute(eng, s, some, &n, &e);
        }
        for (int c = 0; c < n; c++) {
            accepted += vq_session_draft_stats(some[c]).accepted;
        }
        for (int c = 0; !st && c < n && checked < CHECKS; c++) {
            if (!vq_session_logits(some[c]) || below(3)) continue;
            wrong += !as_alone(ref, some[c], want);
            checked++;
        }
    }
    T_OK(!st, "trial %d: %s", (int)number, e.msg);
    T_OK(checked && !wrong, "trial %d: %d of %d differ: %s, %d threads, %d rows, cache %d",
         (int)number, wrong, checked, o.cpu, o.threads, o.max_rows, (int)kv);
    if (below(2)) vq_session_close(s[below(SLOTS)]); /* the engine closes what is left */
    vq_engine_close(eng);
    vq_engine_close(ref);
    made_close(&m);
    made_close(&alone);
    free(want);
}

int main(void)
{
    const char *quick = getenv("VQ_QUICK");
    const uint64_t n = quick && *quick ? 3 : 12;
    for (uint64_t i = 1; i <= n; i++) trial(i);
    T_OK(accepted > 0, "no draft was right");
    return t_done("t_sessions");
}
