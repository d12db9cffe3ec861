/* t_engine.c - the public interface against golden logits and against itself.
 *
 * Goldens (data/models, ../shared/models): float32 or float64 reference implementations on the
 * stored values; F32 containers must agree within 1e-4 of the largest logit.  Everything else
 * compares one way of computing with another, bit for bit. */
#include "core/base/json.h"
#include "core/engine/engine.h"
#include "tests/made.h"
#include "tests/temp.h"
#include "tests/test.h"

#include <math.h>

/* ---- goldens ---- */

typedef struct id_list { int32_t v[2048]; size_t n; } id_list;

static void get_ids(const vq_json *j, uint32_t arr, id_list *out)
{
    out->n = 0;
    for (uint32_t v = vq_json_first(j, arr); v && out->n < 2048; v = vq_json_next(j, arr, v)) {
        int64_t id = -1;
        vq_json_i64(j, v, &id);
        out->v[out->n++] = (int32_t)id;
    }
}

/* Largest difference to an array of numbers, as a share of its largest magnitude. */
static double distance(const vq_json *j, uint32_t arr, const float *x, size_t n)
{
    double worst = 0, top = 0;
    size_t i = 0;
    for (uint32_t v = vq_json_first(j, arr); v && i < n; v = vq_json_next(j, arr, v), i++) {
        double want = 0;
        vq_json_f64(j, v, &want);
        if (fabs(want) > top) top = fabs(want);
        if (fabs(want - (double)x[i]) > worst) worst = fabs(want - (double)x[i]);
        if (!(x[i] == x[i])) worst = INFINITY;
    }
    return i == n && top > 0 ? worst / top : INFINITY;
}

typedef struct rows { float *v; size_t vocab, n, cap; } rows;

static vq_status keep_row(void *ctx, size_t pos, const float *logits, vq_err *e)
{
    rows *r = ctx;
    (void)pos;
    (void)e;
    if (r->n < r->cap) memcpy(r->v + r->n * r->vocab, logits, r->vocab * sizeof *logits);
    r->n++;
    return VQ_OK;
}

/* Greedy ids behind a prompt equal want[0..n). */
static void greedy(vq_engine *eng, const char *name, const id_list *prompt, const int32_t *want,
                   size_t n)
{
    const vq_session_opts so = { .ignore_eos = true };
    vq_session *s;
    vq_err e = { 0 };
    size_t same = 0;
    if (vq_session_open(&s, eng, &so, &e) || vq_session_add(s, prompt->v, prompt->n, &e)) {
        T_OK(false, "%s: %s", name, e.msg);
        return;
    }
    for (int32_t id; same < n && !vq_session_next(s, &id, &e) && id == want[same];) same++;
    T_OK(same == n, "%s: greedy differs at %zu of %zu %s", name, same, n, e.msg);
    vq_session_close(s);
}

static void one_case(vq_engine *eng, const char *name, const vq_json *j, uint32_t c)
{
    const size_t vocab = (size_t)vq_engine_info(eng)->vocab;
    uint32_t p = vq_json_get(j, c, "prompt_ids");
    const bool trained = p != 0;
    if (!p) p = vq_json_get(j, c, "ids");
    uint32_t g = vq_json_get(j, c, "greedy_ids");
    if (!g) g = vq_json_get(j, c, "greedy");
    double margin = 0;
    vq_json_f64(j, vq_json_get(j, c, "min_margin"), &margin);
    static id_list prompt, want;
    get_ids(j, p, &prompt);
    get_ids(j, g, &want);

    vq_session *s;
    vq_err e = { 0 };
    rows r = { .vocab = vocab, .cap = prompt.n };
    r.v = malloc(prompt.n * vocab * sizeof *r.v);
    T_OK(vq_session_open(&s, eng, NULL, &e) == VQ_OK, "%s", e.msg);
    T_OK(vq_session_logits_all(s, prompt.v, prompt.n, 0, false, keep_row, &r, &e) == VQ_OK
             && r.n == prompt.n,
         "%s: %s", name, e.msg);
    const float *last = r.v + (prompt.n - 1) * vocab;
    double worst = 0;
    const uint32_t one = vq_json_get(j, c, "logits_last"), all = vq_json_get(j, c, "logits");
    if (vq_json_is(j, one, VQ_JARR)) worst = distance(j, one, last, vocab);
    size_t i = 0;
    for (uint32_t v = all ? vq_json_first(j, all) : 0; v; v = vq_json_next(j, all, v), i++) {
        const double d = i < prompt.n ? distance(j, v, r.v + i * vocab, vocab) : INFINITY;
        worst = d > worst ? d : worst;
    }
    T_OK(worst <= 1e-4, "%s: %g of the largest logit off", name, worst);
    T_OK(vq_session_logits(s) && !memcmp(vq_session_logits(s), last, vocab * sizeof *last),
         "%s: kept logits", name);
    vq_session_close(s);
    free(r.v);
    const size_t from = trained ? 0 : prompt.n; /* the other goldens include the prompt */
    if (margin > 1e-3 && want.n > from) greedy(eng, name, &prompt, want.v + from, want.n - from);
}

static void golden(const char *dir, const char *file, bool yarn_hf, bool tokenizer, bool in_tree)
{
    char path[256], src[512], name[600];
    snprintf(src, sizeof src, "%s/%s", in_tree ? "tests/data/models" : t_shared(), dir);
    snprintf(name, sizeof name, "%s/%s", src, file);
    if (!vq_file_exists(name)) {
        T_SKIP("%s is not there", name);
        return;
    }
    vq_buf b = { 0 };
    vq_json j;
    vq_err e = { 0 };
    vq_engine *eng;
    const bool read = vq_file_read(name, 1 << 30, &b, &e) == VQ_OK
                      && vq_json_parse(&j, b.p, b.n, name, &e) == VQ_OK;
    T_OK(read, "%s", e.msg);
    const bool converted = read && !temp_convert(path, src, Q_F32, yarn_hf, !tokenizer);
    T_OK(converted, "%s does not convert", src);
    if (!converted) return;
    const vq_engine_opts o = { .threads = 2 };
    if (vq_engine_open(&eng, path, &o, &e)) {
        T_OK(false, "%s", e.msg);
        vq_unlink(path);
        return;
    }
    T_OK(vq_engine_info(eng)->kv == VQ_KV_F32, "float matrices keep a float cache");
    const uint32_t list = vq_json_type(&j, 0) == VQ_JARR ? 0 : vq_json_get(&j, 0, "cases");
    int n = 0;
    for (uint32_t c = vq_json_first(&j, list); c; c = vq_json_next(&j, list, c), n++)
        one_case(eng, dir, &j, c);
    T_OK(n > 0, "%s has no cases", name);
    vq_engine_close(eng);
    vq_unlink(path);
    vq_json_clear(&j);
    vq_buf_clear(&b);
}

/* ---- made models: one way of computing against another ---- */

enum { VOCAB = 150, IDS = 140 };

static const made_spec shapes[] = {
    /* nothing a multiple of anything; q/k norm; tied */
    { .arch = VAQ_QWEN3,
      .n_layer = 2,
      .hidden = 80,
      .n_head = 6,
      .n_head_kv = 2,
      .head_dim = 24,
      .inter = 100,
      .n_vocab = VOCAB,
      .n_ids = IDS,
      .ctx = 1024,
      .flags = VAQ_F_QK_NORM | VAQ_F_TIED,
      .seed = 1 },
    /* heads smaller than a row group; v of another type */
    { .arch = VAQ_LLAMA,
      .n_layer = 2,
      .hidden = 64,
      .n_head = 8,
      .n_head_kv = 4,
      .head_dim = 8,
      .inter = 172,
      .n_vocab = VOCAB,
      .n_ids = IDS,
      .ctx = 1024,
      .v_type = Q_BF16,
      .seed = 2 },
    /* heads wider than one scale of V; neighbours rotated; large key biases */
    { .arch = VAQ_QWEN2,
      .n_layer = 2,
      .hidden = 192,
      .n_head = 2,
      .n_head_kv = 1,
      .head_dim = 160,
      .inter = 64,
      .n_vocab = VOCAB,
      .n_ids = IDS,
      .ctx = 1024,
      .flags = VAQ_F_QKV_BIAS | VAQ_F_ROPE_PAIRS,
      .k_bias = 900,
      .v_type = Q_L6,
      .seed = 3 },
};

static int32_t some_id(uint64_t *seed) { return (int32_t)(made_rnd(seed) % IDS); }

static vq_engine *open_made(made *m, const made_spec *spec, int type, const vq_engine_opts *o)
{
    made_spec s = *spec;
    vq_engine *eng = NULL;
    vq_err e = { 0 };
    s.type = type;
    if (type == Q_F32 && s.v_type == Q_L6) s.v_type = 0;
    if (made_open(m, &s)) return NULL;
    vq_file *f = m->file;
    m->file = NULL;
    T_OK(vq_engine_open_file(&eng, f, o, &e) == VQ_OK, "%s", e.msg);
    return eng;
}

/* All logits of n ids in pieces of `chunk`. */
static void all_rows(vq_engine *eng, const int32_t *v, size_t n, int chunk, rows *r)
{
    vq_session *s;
    vq_err e = { 0 };
    r->vocab = VOCAB;
    r->cap = n;
    r->n = 0;
    r->v = malloc(n * VOCAB * sizeof *r->v);
    T_OK(!vq_session_open(&s, eng, NULL, &e)
             && !vq_session_logits_all(s, v, n, chunk, false, keep_row, r, &e),
         "%s", e.msg);
    vq_session_close(s);
}

static bool same_rows(const rows *a, const rows *b)
{
    return a->n == b->n && !memcmp(a->v, b->v, a->n * a->vocab * sizeof *a->v);
}

/* Every type and cache, every level, several threads and chunks: one result. */
static void ways(void)
{
    static const int types[] = { Q_F32, Q_F16, Q_BF16, Q_L8, Q_L6,
                                  Q_N5,  Q_N4,  Q_N4S,  Q_P6, Q_P5 };
    static const vq_kv_type kvs[] = { VQ_KV_INT8, VQ_KV_BF16, VQ_KV_F32 };
    static const struct {
        int threads, chunk;
    } how[] = { { 3, 7 }, { 1, 512 }, { 2, 1 }, { 2, 130 } };
    enum { N = 300 };
    const char *levels[8];
    const int n_level = q_cpu_levels(levels);
    int32_t v[N];
    uint64_t seed = 11;
    int turn = 0;
    for (int i = 0; i < N; i++) v[i] = some_id(&seed);
    for (size_t sh = 0; sh < sizeof shapes / sizeof shapes[0]; sh++)
        for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
            const vq_kv_type kv = kvs[(sh + t) % 3];
            made m;
            rows want, got;
            vq_engine_opts o = { .threads = 2, .kv = kv, .cpu = levels[n_level - 1] };
            vq_engine *eng = open_made(&m, &shapes[sh], types[t], &o);
            if (!eng) continue;
            all_rows(eng, v, N, 0, &want);
            vq_engine_close(eng);
            made_close(&m);
            for (int l = 0; l < n_level; l++, turn++) {
                o.cpu = levels[l];
                o.threads = how[turn % 4].threads;
                eng = open_made(&m, &shapes[sh], types[t], &o);
                if (!eng) continue;
                all_rows(eng, v, N, how[turn % 4].chunk, &got);
                T_OK(same_rows(&want, &got),
                     "shape %zu %s kv %d: %s, %d threads, chunks of %d differ", sh,
                     q_type_info(types[t])->name, kv, levels[l], o.threads, how[turn % 4].chunk);
                free(got.v);
                vq_engine_close(eng);
                made_close(&m);
            }
            free(want.v);
        }
}

/* The int8 cache and quantised weights stay near the float ones. */
static void near(void)
{
    enum { N = 60 };
    int32_t v[N];
    uint64_t seed = 12;
    for (int i = 0; i < N; i++) v[i] = some_id(&seed);
    for (size_t sh = 0; sh < sizeof shapes / sizeof shapes[0]; sh++) {
        made m;
        rows a, b;
        vq_engine_opts o = { .threads = 1, .kv = VQ_KV_F32 };
        vq_engine *eng = open_made(&m, &shapes[sh], Q_F32, &o);
        all_rows(eng, v, N, 0, &a);
        vq_engine_close(eng);
        made_close(&m);
        o.kv = VQ_KV_INT8;
        eng = open_made(&m, &shapes[sh], Q_L8, &o);
        all_rows(eng, v, N, 0, &b);
        vq_engine_close(eng);
        made_close(&m);
        double err = 0, all = 0;
        for (size_t i = 0; i < N * (size_t)VOCAB; i++) {
            err += ((double)a.v[i] - (double)b.v[i]) * ((double)a.v[i] - (double)b.v[i]);
            all += (double)a.v[i] * (double)a.v[i];
        }
        T_OK(err <= 1e-3 * all, "shape %zu: L8 with int8 cache is %g off", sh, sqrt(err / all));
        free(a.v);
        free(b.v);
    }
}

static int next_is(vq_session *s, int32_t *out, vq_err *e)
{
    return vq_session_next(s, out, e) == VQ_OK;
}

static void forks_and_cuts(void)
{
    enum { N = 300, MORE = 20 };
    made m;
    vq_err e = { 0 };
    const vq_engine_opts o = { .threads = 2, .max_sessions = 3, .ctx = 600, .kv = VQ_KV_INT8 };
    vq_engine *eng = open_made(&m, &shapes[0], Q_N4, &o);
    const vq_session_opts so = { .sampling = { .temperature = 30, .top_p = 1, .seed = 9 },
                                 .ignore_eos = true };
    vq_session *a, *b, *c;
    int32_t v[N], first[MORE], id;
    uint64_t seed = 13;
    for (int i = 0; i < N; i++) v[i] = some_id(&seed);
    T_OK(!vq_session_open(&a, eng, &so, &e) && !vq_session_add(a, v, N, &e), "%s", e.msg);
    for (int i = 0; i < MORE; i++) T_OK(next_is(a, &first[i], &e), "%s", e.msg);

    /* A fork of the same prefix draws the same ids; another stream draws others; neither disturbs.
     */
    T_OK(!vq_session_fork(&b, a, &so, &e), "%s", e.msg);
    T_OK(!vq_session_truncate(b, N, &e), "%s", e.msg);
    vq_session_opts other = so;
    other.sampling.stream = 1;
    T_OK(!vq_session_fork(&c, b, &other, &e), "%s", e.msg);
    int same_b = 0, same_c = 0;
    for (int i = 0; i < MORE; i++) {
        T_OK(next_is(b, &id, &e), "%s", e.msg);
        same_b += id == first[i];
        T_OK(next_is(c, &id, &e), "%s", e.msg);
        same_c += id == first[i];
    }
    T_OK(same_b == MORE, "the fork drew %d of %d alike", same_b, MORE);
    T_OK(same_c < MORE, "another stream draws other ids");
    T_OK(vq_session_len(a) == N + MORE && !memcmp(vq_session_ids(a) + N, first, sizeof first),
         "untouched");
    T_OK(vq_session_fork(&b, a, &so, &e) == VQ_ENOFIT, "a fourth session does not fit");

    /* Wrong ids appended, computed and cut away leave no trace. */
    T_OK(!vq_session_truncate(a, N, &e), "%s", e.msg);
    for (int i = 0; i < MORE; i++) {
        int32_t wrong[3] = { some_id(&seed), some_id(&seed), some_id(&seed) };
        size_t left;
        T_OK(!vq_session_add(a, wrong, 3, &e) && !vq_step(eng, &a, 1, 0, &left, &e) && !left, "%s",
             e.msg);
        T_OK(!vq_session_truncate(a, vq_session_len(a) - 3, &e), "%s", e.msg);
        T_OK(vq_session_logits(a) == NULL, "no stale logits");
        T_OK(next_is(a, &id, &e) && id == first[i], "draw %d after wrong ids: %d, %d before", i,
             (int)id, (int)first[i]);
    }
    vq_session_close(b);
    vq_session_close(c);
    vq_engine_close(eng); /* closes a */
    made_close(&m);
}

/* Several sequences in one pass, of different lengths and depths, equal each alone. */
static void batches(void)
{
    enum { S = 5, STEPS = 40 };
    made m;
    vq_err e = { 0 };
    const vq_engine_opts o = { .threads = 3, .max_sessions = S, .max_rows = 64, .kv = VQ_KV_INT8 };
    vq_engine *eng = open_made(&m, &shapes[0], Q_L8, &o);
    vq_session *s[S];
    static float alone[S][STEPS][VOCAB];
    static const int start[S] = { 1, 280, 33, 255, 700 };
    for (int mode = 0; mode < 2; mode++) {
        uint64_t seed[S];
        int wrong = 0;
        for (int i = 0; i < S; i++) {
            seed[i] = 100 + (uint64_t)i;
            T_OK(!vq_session_open(&s[i], eng, NULL, &e), "%s", e.msg);
            for (int p = 0; p < start[i]; p++) {
                const int32_t id = some_id(&seed[i]);
                T_OK(!vq_session_add(s[i], &id, 1, &e), "%s", e.msg);
            }
        }
        for (int k = 0; k < STEPS; k++) {
            size_t left = 1;
            if (mode == 1)
                while (left && !vq_step(eng, s, S, 0, &left, &e)) {}
            for (int i = 0; i < S; i++) {
                while (mode == 0 && !vq_session_logits(s[i])
                       && !vq_step(eng, &s[i], 1, 17, &left, &e)) {}
                if (mode == 0) memcpy(alone[i][k], vq_session_logits(s[i]), sizeof alone[i][k]);
                else wrong += memcmp(alone[i][k], vq_session_logits(s[i]), sizeof alone[i][k]) != 0;
                const int more =
                    1 + (k + i) % 3; /* one to three rows of a sequence in the next pass */
                for (int x = 0; x < more; x++) {
                    const int32_t id = some_id(&seed[i]);
                    vq_session_add(s[i], &id, 1, &e);
                }
            }
        }
        T_OK(!wrong, "%d of %d logits differ beside others", wrong, S * STEPS);
        for (int i = 0; i < S; i++) vq_session_close(s[i]);
    }
    vq_engine_close(eng);
    made_close(&m);
}

static void not_finite(int type, vq_kv_type kv)
{
    made m;
    vq_err e = { 0 };
    made_spec spec = shapes[0];
    spec.bad_token = 77;
    const vq_engine_opts o = { .threads = 2, .max_sessions = 3, .kv = kv };
    vq_engine *eng = open_made(&m, &spec, type, &o);
    vq_session *s[3], *t;
    const int32_t good[] = { 1, 2, 3, 4 }, bad[] = { 5, 6, 77, 7 };
    float want[VOCAB];
    size_t left;
    T_OK(!vq_session_open(&t, eng, NULL, &e) && !vq_session_add(t, good, 4, &e)
             && !vq_step(eng, &t, 1, 0, &left, &e),
         "%s", e.msg);
    memcpy(want, vq_session_logits(t), sizeof want);
    vq_session_close(t);
    for (int i = 0; i < 3; i++) {
        T_OK(!vq_session_open(&s[i], eng, NULL, &e), "%s", e.msg);
        T_OK(!vq_session_add(s[i], i == 1 ? bad : good, 4, &e), "%s", e.msg);
    }
    T_OK(vq_step(eng, s, 3, 0, &left, &e) == VQ_EFAIL, "a bad row must be told");
    T_OK(strstr(e.msg, "not finite") && strstr(e.msg, "layer 0") && strstr(e.msg, "position 2"),
         "%s", e.msg);
    T_OK(left == 0, "%zu left", left);
    for (int i = 0; i < 3; i += 2)
        T_OK(vq_session_logits(s[i]) && !memcmp(vq_session_logits(s[i]), want, sizeof want),
             "session %d disturbed", i);
    int32_t id;
    T_OK(vq_session_next(s[1], &id, &e) == VQ_EFAIL, "it stays ended");
    T_OK(vq_session_check(s[1], &e) == VQ_EFAIL && !vq_session_check(s[0], &e), "who was ended");
    T_OK(vq_session_next(s[0], &id, &e) == VQ_OK, "%s", e.msg);
    vq_engine_close(eng);
    made_close(&m);
}

/* A query that is not a number is told by every level and with every cache: behind it stands exp,
 * which may turn a NaN of odd payload into a number again. */
static void query_not_a_number(void)
{
    static const uint32_t nan = 0x7fc00001;
    static const vq_kv_type kv[] = { VQ_KV_INT8, VQ_KV_BF16, VQ_KV_F32 };
    const char *level[8];
    const int n = q_cpu_levels(level);
    for (int i = 0; i < 3 * n; i++) {
        made m;
        vq_err e = { 0 };
        made_spec spec = shapes[2];
        vq_engine *eng;
        vq_session *s;
        const vq_engine_opts o = { .cpu = level[i / 3], .threads = 1, .kv = kv[i % 3] };
        spec.type = Q_N4;
        if (made_open(&m, &spec)) return;
        const vaq_tensor *t = vq_file_find(m.file, VAQ_Q_BIAS, 1, -1);
        memcpy((uint8_t *)m.mem + t->off, &nan, sizeof nan);
        vq_file *f = m.file;
        m.file = NULL;
        const int32_t v[] = { 1, 2, 3 };
        int32_t id;
        T_OK(!vq_engine_open_file(&eng, f, &o, &e) && !vq_session_open(&s, eng, NULL, &e)
                 && !vq_session_add(s, v, 3, &e),
             "%s", e.msg);
        T_OK(vq_session_next(s, &id, &e) == VQ_EFAIL && strstr(e.msg, "layer 1, queries"),
             "%s, cache %d: %s", level[i / 3], i % 3, e.msg);
        vq_engine_close(eng);
        made_close(&m);
    }
}

static bool stop_at(void *ctx, size_t done, size_t total)
{
    (void)total;
    return done >= *(size_t *)ctx;
}

static void limits(void)
{
    made m;
    vq_err e = { 0 };
    const vq_engine_opts o = { .threads = 2, .ctx = 20, .max_rows = 4 };
    vq_engine *eng = open_made(&m, &shapes[1], Q_N4, &o);
    const vq_info *in = vq_engine_info(eng);
    T_OK(in->ctx == 20 && in->max_rows == 4 && in->vocab == VOCAB && in->n_ids == IDS
             && in->kv == VQ_KV_INT8,
         "info: ctx %u", in->ctx);
    T_OK(!in->has_tokenizer && !in->has_template && in->think == -1, "no tokenizer");
    vq_session *s, *t;
    int32_t v[32] = { 0 }, id;
    vq_ids ids = { 0 };
    T_OK(vq_engine_tokenize(eng, "a", 1, false, &ids, &e) == VQ_EUSAGE,
         "tokenize without tokenizer");
    T_OK(!vq_session_open(&s, eng, NULL, &e), "%s", e.msg);
    T_OK(vq_session_open(&t, eng, NULL, &e) == VQ_ENOFIT && !t, "a second session");
    T_OK(vq_session_next(s, &id, &e) == VQ_EUSAGE, "nothing to go on from");
    T_OK(vq_session_add(s, v, 21, &e) == VQ_ENOFIT && strstr(e.msg, "--ctx"), "%s", e.msg);
    v[3] = VOCAB;
    T_OK(vq_session_add(s, v, 4, &e) == VQ_EUSAGE && vq_session_len(s) == 0, "id out of range");
    v[3] = -1;
    T_OK(vq_session_add(s, v, 4, &e) == VQ_EUSAGE, "negative id");
    v[3] = 0;

    /* Interrupted between passes and inside one: the ids stay, going on gives the same. */
    T_OK(!vq_session_add(s, v, 17, &e), "%s", e.msg);
    size_t at = 8;
    vq_session_on_prefill(s, stop_at, &at);
    T_OK(vq_session_next(s, &id, &e) == VQ_EINTR && vq_session_len(s) == 17,
         "interrupted by the callback");
    vq_session_on_prefill(s, NULL, NULL);
    vq_engine_stop(eng);
    T_OK(vq_session_next(s, &id, &e) == VQ_EINTR && vq_session_len(s) == 17, "stopped");
    vq_engine_resume(eng);
    T_OK(vq_session_next(s, &id, &e) == VQ_OK && vq_session_len(s) == 18, "%s", e.msg);

    /* Cut back, the last id is computed again for its logits: stopped there, nothing is queued. */
    int32_t again;
    T_OK(!vq_session_truncate(s, 17, &e) && !vq_session_add(s, &id, 1, &e), "%s", e.msg);
    T_OK(!vq_session_next(s, &again, &e) && !vq_session_truncate(s, 17, &e), "%s", e.msg);
    vq_engine_stop(eng);
    T_OK(vq_session_sample(s, &again, &e) == VQ_EINTR, "stopped while drawing");
    vq_engine_resume(eng);
    T_OK(!vq_session_sample(s, &again, &e) && again == id, "%s", e.msg);
    T_OK(!vq_session_add(s, &id, 1, &e), "%s", e.msg);

    /* A full context ends with length; then next is a mistake; more ids do not fit. */
    int n = 1;
    while (!vq_session_finished(s)) n += vq_session_next(s, &id, &e) == VQ_OK;
    T_OK(n <= 3 && vq_session_len(s) <= 20, "%d drawn", n);
    T_OK(vq_session_next(s, &id, &e) == VQ_EUSAGE, "finished");
    T_OK(vq_session_truncate(s, 21, &e) == VQ_EUSAGE, "cut to more");
    T_OK(!vq_session_truncate(s, 0, &e) && !vq_session_finished(s) && !vq_session_logits(s), "%s",
         e.msg);
    T_OK(!vq_session_add(s, v, 20, &e) && vq_session_next(s, &id, &e) == VQ_ENOFIT,
         "a prompt that fills the context");
    vq_session_close(s);

    const vq_session_opts two = { .max_new = 2, .ignore_eos = true };
    T_OK(!vq_session_open(&s, eng, &two, &e) && !vq_session_add(s, v, 3, &e), "%s", e.msg);
    T_OK(!vq_session_next(s, &id, &e) && !vq_session_finished(s), "one");
    T_OK(!vq_session_next(s, &id, &e) && vq_session_finished(s) == VQ_FINISH_LENGTH, "two");
    T_OK(!vq_session_add(s, v, 1, &e) && !vq_session_finished(s), "more ids open it again");
    vq_session_close(s);
    const vq_session_opts bad = { .sampling = { .temperature = -1 } };
    T_OK(vq_session_open(&s, eng, &bad, &e) == VQ_EUSAGE, "bad temperature");
    vq_engine_close(eng);
    made_close(&m);

    const vq_engine_opts none = { .cpu = "nosuch" }, wide = { .threads = 5000 };
    T_OK(!made_open(&m, &shapes[1]), "made");
    T_OK(vq_engine_open_file(&eng, m.file, &none, &e) == VQ_EUSAGE && !eng && strstr(e.msg, "ref"),
         "%s", e.msg);
    m.file = NULL;
    made_close(&m);
    T_OK(!made_open(&m, &shapes[1]), "made");
    T_OK(vq_engine_open_file(&eng, m.file, &wide, &e) == VQ_EUSAGE, "%s", e.msg);
    m.file = NULL;
    made_close(&m);
}

/* Every allocation of opening fails once: an error each time, nothing leaks, nothing crashes. */
static void out_of_memory(void)
{
    const vq_engine_opts o = { .threads = 2, .max_sessions = 2 };
    if (!vq_mem_fail_at(0)) {
        T_SKIP("failing allocations need a build with VQ_DEBUG");
        return;
    }
    int failures = 0, wrong = 0;
    for (long nth = 1, done = 0; !done && nth < 200; nth++) {
        made m;
        vq_err e = { 0 };
        vq_engine *eng;
        vq_session *s = NULL, *t = NULL;
        made_spec spec = shapes[0];
        spec.type = Q_L8;
        if (made_open(&m, &spec)) return;
        vq_file *f = m.file;
        m.file = NULL;
        const int32_t v[] = { 1, 2, 3 };
        vq_mem_fail_at(nth);
        vq_status st = vq_engine_open_file(&eng, f, &o, &e);
        if (!st) st = vq_session_open(&s, eng, NULL, &e);
        if (!st) st = vq_session_add(s, v, 3, &e);
        if (!st) st = vq_session_fork(&t, s, NULL, &e);
        vq_mem_fail_at(0);
        done = st == VQ_OK;
        failures += !done;
        wrong += !done && (st != VQ_ENOMEM || !e.msg[0]);
        vq_engine_close(eng);
        made_close(&m);
    }
    T_OK(failures > 10 && !wrong, "%d failed, %d of them not as out of memory", failures, wrong);
}

/* ---- text ---- */

static void put_all(const vq_engine *eng, bool in_think, const int32_t *v, size_t n, vq_buf part[2])
{
    vq_stream *st;
    vq_buf out = { 0 };
    vq_err e;
    T_OK(vq_stream_open(&st, eng, in_think, &e) == VQ_OK, "open");
    for (size_t i = 0; i <= n; i++) {
        vq_buf_reset(&out);
        const vq_part p = i < n ? vq_stream_put(st, v[i], &out) : vq_stream_end(st, &out);
        vq_buf_add(&part[p], out.p, out.n);
    }
    vq_buf_clear(&out);
    vq_stream_close(st);
}

static void text(void)
{
    char path[256];
    vq_err e = { 0 };
    vq_engine *eng;
    if (temp_convert(path, "tests/data/models/tiny-r1-qwen", Q_N4, false, false)) {
        T_OK(false, "tiny-r1-qwen does not convert");
        return;
    }
    const vq_engine_opts o = { .threads = 1 };
    if (vq_engine_open(&eng, path, &o, &e)) {
        T_OK(false, "%s", e.msg);
        return;
    }
    const vq_info *in = vq_engine_info(eng);
    T_OK(in->has_tokenizer && in->has_template && in->think >= 0 && in->end_think >= 0
             && in->opens_think,
         "info");
    const vq_message q = { .role = VQ_USER, .content = vq_str_c("What is 2 + 3?") };
    vq_ids ids = { 0 };
    T_OK(vq_engine_render(eng, &q, 1, NULL, &ids, NULL, &e) == VQ_OK, "%s", e.msg);
    vq_session *s;
    T_OK(!vq_session_open(&s, eng, NULL, &e) && !vq_session_add(s, ids.v, ids.n, &e), "%s", e.msg);
    vq_ids made_ids = { 0 };
    for (int32_t id; made_ids.n < 400 && !vq_session_finished(s) && !vq_session_next(s, &id, &e);)
        vq_ids_add(&made_ids, id);
    T_OK(vq_session_finished(s) == VQ_FINISH_STOP, "answers: %s", e.msg);
    vq_buf part[2] = { { 0 }, { 0 } };
    put_all(eng, true, made_ids.v, made_ids.n, part);
    T_OK(part[0].n && part[1].n && part[0].p[0] != '\n' && part[1].p[0] != '\n',
         "two parts without newlines before");
    T_OK(part[1].p && strstr(part[1].p, "\\boxed{5}"), "2 + 3: %s",
         part[1].p ? part[1].p : "nothing");
    T_OK(part[0].p && !strstr(part[0].p, "think>") && !strstr(part[1].p, "think>"),
         "marks are not printed");

    /* Without the opening mark in the prompt the answer comes first; marks switch. */
    vq_buf two[2] = { { 0 }, { 0 } };
    int32_t v[8] = { ids.v[2], in->think, ids.v[3], in->end_think, ids.v[4], in->eos };
    put_all(eng, false, v, 6, two);
    T_OK(two[0].n == vq_engine_piece(eng, ids.v[3]).n
             && two[1].n >= vq_engine_piece(eng, ids.v[2]).n,
         "%zu %zu", two[0].n, two[1].n);
    for (int i = 0; i < 2; i++) {
        vq_buf_clear(&part[i]);
        vq_buf_clear(&two[i]);
    }

    /* The file is cut under the engine: an error, not a crash. */
    T_OK(!vq_session_truncate(s, 0, &e) && !vq_session_add(s, ids.v, ids.n, &e), "%s", e.msg);
    FILE *f = fopen(path, "wb");
    if (f) fclose(f);
    int32_t id;
    T_OK(vq_session_next(s, &id, &e) == VQ_EFORMAT, "cut file: %s", e.msg);
    vq_engine_close(eng);
    vq_unlink(path);
    vq_ids_clear(&ids);
    vq_ids_clear(&made_ids);
}

int main(void)
{
    const char *quick = getenv("VQ_QUICK");
    limits();
    forks_and_cuts();
    batches();
    not_finite(Q_F32, VQ_KV_AUTO);
    not_finite(Q_F32, VQ_KV_INT8);
    query_not_a_number();
    out_of_memory();
    near();
    text();
    golden("tiny-r1-qwen", "golden.json", false, true, true);
    golden("tiny-r1-llama", "golden.json", false, true, true);
    golden("tiny-r1-qwen3", "golden.json", false, true, true);
    golden("models/stories260K-hf", "golden.json", false, false, false);
    golden("models/synth-qwen2-bf16", "golden.json", false, false, false);
    golden("models/synth-llama3rope-bf16", "golden.json", false, false, false);
    golden("models/synth-qwen3-bf16", "golden.json", true, false, false);
    golden("models/synth-qwen3-bf16", "golden_attn_factor.json", false, false, false);
    if (quick && *quick) T_SKIP("all types, levels and shapes: VQ_QUICK is set");
    else ways();
    return t_done("t_engine");
}
