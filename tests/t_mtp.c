/* t_mtp.c - the draft head: its guesses against those of the reference implementation, position by
 * position, and texts drafted with it, which must be those of plain decoding whatever is done to
 * their sessions in between. */
#include "core/base/json.h"
#include "core/base/mem.h"
#include "core/engine/private.h"
#include "tests/temp.h"
#include "tests/test.h"

#include <math.h>

#define FOLDER "tests/data/models/tiny-r1-fp8"

enum { MOST = 512, NEW = 60, CASES = 3 };

typedef struct golden { int32_t ids[MOST], top1[MOST]; int n, n_prompt, n_top1; } golden;

static int numbers(const vq_json *j, uint32_t obj, const char *key, int32_t *out, int most)
{
    const uint32_t a = vq_json_get(j, obj, key);
    int n = 0;
    for (uint32_t v = vq_json_first(j, a); v && n < most; v = vq_json_next(j, a, v)) {
        int64_t x = -1;
        vq_json_i64(j, v, &x);
        out[n++] = (int32_t)x;
    }
    return n;
}

static int read_goldens(golden *g, float *first, int n_vocab)
{
    vq_buf b = { 0 };
    vq_json j = { 0 };
    vq_err e = { 0 };
    int n = 0;
    if (!vq_file_read(FOLDER "/golden.json", 1 << 20, &b, &e)
        && !vq_json_parse(&j, b.p, b.n, "golden.json", &e)) {
        const uint32_t cases = vq_json_get(&j, 0, "cases");
        for (uint32_t c = vq_json_first(&j, cases); c && n < CASES; n++) {
            g[n].n_prompt = numbers(&j, c, "prompt_ids", g[n].ids, MOST);
            g[n].n = g[n].n_prompt;
            g[n].n += numbers(&j, c, "greedy_ids", g[n].ids + g[n].n, MOST - g[n].n);
            g[n].n_top1 = numbers(&j, c, "mtp_top1", g[n].top1, MOST);
            const uint32_t l = n ? 0 : vq_json_get(&j, c, "mtp_logits_first");
            uint32_t v = vq_json_first(&j, l);
            for (int i = 0; l && i < n_vocab; i++, v = vq_json_next(&j, l, v)) {
                double x = NAN;
                vq_json_f64(&j, v, &x);
                first[i] = (float)x;
            }
            c = vq_json_next(&j, cases, c);
        }
    }
    T_OK(n == CASES, "%s", e.msg);
    vq_json_clear(&j);
    vq_buf_clear(&b);
    return n;
}

static vq_engine *engine(const char *path, int threads, int sessions)
{
    const vq_engine_opts o = { .threads = threads, .ctx = 1024, .max_draft = 5,
                               .max_sessions = sessions };
    vq_engine *eng = NULL;
    vq_err e = { 0 };
    T_OK(vq_engine_open(&eng, path, &o, &e) == VQ_OK, "%s", e.msg);
    return eng;
}

/* ---- against the reference ---- */

static void one_case(vq_engine *eng, const golden *g, const float *first)
{
    const int vocab = eng->model.n_vocab;
    vq_seq seq;
    vq_err e = { 0 };
    vq_row *row = vq_calloc((size_t)g->n, sizeof *row);
    vq_mtp_row *mtp = vq_calloc((size_t)g->n, sizeof *mtp);
    float *logits = vq_calloc((size_t)g->n * (size_t)vocab, sizeof *logits);
    T_OK(row && mtp && logits && !vq_seq_init(&seq, 1024, &e), "memory");
    T_OK(vq_seq_reserve(&eng->kv, &seq, 0, (uint32_t)g->n), "cache");
    for (int i = 0; i < g->n; i++)
        row[i] = (vq_row){ .seq = &seq, .pos = (uint32_t)i, .token = g->ids[i] };
    T_OK(vq_fw_run(eng->fw, row, g->n, &e) == VQ_OK, "%s", e.msg);
    for (int i = 0; i + 1 < g->n; i++)
        mtp[i] = (vq_mtp_row){ .seq = &seq, .pos = (uint32_t)i, .token = g->ids[i + 1],
                               .state = vq_fw_state(eng->fw, i),
                               .logits = logits + (size_t)i * (size_t)vocab };
    T_OK(vq_fw_mtp(eng->fw, mtp, g->n - 1, &e) == VQ_OK, "%s", e.msg);
    T_OK(g->n_top1 == g->n - 1, "%d guesses for %d ids", g->n_top1, g->n);
    for (int i = 0; i < g->n_top1; i++) {
        const int top = eng->kern.argmax(mtp[i].logits, vocab);
        T_OK(top == g->top1[i], "position %d: %d, wanted %d", i, top, (int)g->top1[i]);
    }
    double diff = 0, most = 0;
    for (int i = 0; first && i < vocab; i++) {
        const double d = fabs((double)(logits[i] - first[i])), l = fabs((double)first[i]);
        if (!(d <= diff)) diff = d;
        if (l > most) most = l;
    }
    T_OK(diff <= 1e-4 * most || !first, "logits differ by %g of %g", diff, most);
    vq_seq_clear(&eng->kv, &seq);
    vq_free(row);
    vq_free(mtp);
    vq_free(logits);
}

/* ---- drafted texts ---- */

static vq_session *session(vq_engine *eng, vq_draft draft, double temp, const golden *g)
{
    const vq_session_opts o = { .sampling = { .temperature = temp, .top_p = 0.95, .seed = 11 },
                                .draft = draft, .ignore_eos = true };
    vq_session *s = NULL;
    vq_err e = { 0 };
    T_OK(vq_session_open(&s, eng, &o, &e) == VQ_OK, "%s", e.msg);
    T_OK(vq_session_add(s, g->ids, (size_t)g->n_prompt, &e) == VQ_OK, "%s", e.msg);
    return s;
}

static void next(vq_session *s, int n)
{
    vq_err e = { 0 };
    int32_t id;
    for (int i = 0; i < n; i++) T_OK(vq_session_next(s, &id, &e) == VQ_OK, "%s", e.msg);
}

/* The same life for both: what is drawn, cut away, added and drawn again. */
static void live(vq_session *s, const golden *g)
{
    vq_err e = { 0 };
    next(s, NEW);
    T_OK(!vq_session_truncate(s, (size_t)g->n_prompt + 7, &e), "%s", e.msg);
    next(s, NEW / 2);
    T_OK(!vq_session_truncate(s, vq_session_len(s) - 1, &e), "%s", e.msg);
    T_OK(!vq_session_add(s, g->ids, 12, &e), "%s", e.msg); /* as another turn of a chat */
    next(s, NEW / 2);
    T_OK(!vq_session_add(s, g->ids, 3, &e), "%s", e.msg);
    next(s, NEW / 2);
}

static void same_text(const vq_session *a, const vq_session *b, const char *what)
{
    const size_t n = vq_session_len(a);
    T_OK(vq_session_len(b) == n && !memcmp(vq_session_ids(a), vq_session_ids(b),
                                           n * sizeof(int32_t)), "%s", what);
}

static void texts(const char *path, const golden *g)
{
    double yield = 0, passes = 0;
    for (int i = 0; i < 2 * CASES; i++) {
        vq_engine *eng = engine(path, 1 + i % 3, 3);
        if (!eng) return;
        const double temp = i % 2 ? 0.6 : 0;
        vq_session *plain = session(eng, VQ_DRAFT_OFF, temp, &g[i / 2]);
        vq_session *drafted = session(eng, i % 4 == 3 ? VQ_DRAFT_AUTO : VQ_DRAFT_MTP, temp,
                                      &g[i / 2]);
        next(plain, g[i / 2].n - g[i / 2].n_prompt);
        next(drafted, g[i / 2].n - g[i / 2].n_prompt);
        same_text(plain, drafted, "an answer");
        const vq_draft_stats d = vq_session_draft_stats(drafted);
        if (i % 4 != 3) {
            yield += (double)(d.verifications + d.accepted);
            passes += (double)d.verifications;
        }
        live(plain, &g[i / 2]);
        live(drafted, &g[i / 2]);
        same_text(plain, drafted, "a long life");
        /* A fork shares blocks with rows of the head in them; both go on, neither disturbs. */
        const vq_session_opts o = { .draft = VQ_DRAFT_MTP, .ignore_eos = true };
        vq_session *fork = NULL;
        T_OK(!vq_session_fork(&fork, drafted, &o, NULL), "fork");
        next(fork, 20);
        next(plain, 20);
        next(drafted, 20);
        same_text(plain, drafted, "beside a fork");
        vq_engine_close(eng);
    }
    T_OK(yield >= 1.5 * passes, "%g ids in %g passes", yield, passes);
    printf("t_mtp: %.2f ids per verification\n", passes > 0 ? yield / passes : 0.0);
}

int main(void)
{
    static golden g[CASES];
    static float first[4096];
    char path[256];
    if (temp_convert(path, FOLDER, Q_F32, false, false)) return 1;
    vq_engine *eng = engine(path, 2, 1);
    if (eng && eng->model.n_vocab <= 4096 && read_goldens(g, first, eng->model.n_vocab) == CASES)
        for (int i = 0; i < CASES; i++) one_case(eng, &g[i], i ? NULL : first);
    vq_engine_close(eng);
    vq_unlink(path);
    if (temp_convert(path, FOLDER, Q_N4, false, false)) return 1;
    if (g[0].n) texts(path, g);
    vq_unlink(path);
    return t_done("t_mtp");
}
