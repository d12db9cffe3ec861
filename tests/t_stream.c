/* t_stream.c - experts read from the file as they are wanted: the bits of mapped ones with a cache
 * of any size, with drafts, beside others, for calibration; statistics; files that are cut or
 * cannot be read. */
#include "convert/calib.h"
#include "core/base/fetch.h"
#include "core/base/mem.h"
#include "core/engine/private.h"
#include "tests/temp.h"
#include "tests/test.h"

#define FOLDER "tests/data/models/tiny-r1-fp8"

enum { PROMPT = 70, NEW = 24 };

static vq_engine *engine(const char *path, uint64_t experts_ram, int threads)
{
    const vq_engine_opts o = { .threads = threads, .ctx = 512, .max_draft = 4, .max_sessions = 2,
                               .experts_ram = experts_ram };
    vq_engine *eng = NULL;
    vq_err e = { 0 };
    T_OK(vq_engine_open(&eng, path, &o, &e) == VQ_OK, "%s", e.msg);
    return eng;
}

/* Ids and logits of a prompt and what follows; a second session goes along.  The prompt ends in a
 * question, "Which number is the largest: 79, 50, 49?", whose numbers the thoughts take up, so that
 * there are n-grams to draft.  Returns the ids drafted. */
static uint64_t text(vq_engine *eng, vq_draft draft, bool beside, uint8_t out[32])
{
    static const int32_t question[] = { 0, 699, 394, 392, 277, 366, 437, 28, 223, 25, 27, 14,
                                        223, 23, 18, 14, 223, 22, 27, 33, 700, 701, 201 };
    enum { Q = sizeof question / sizeof question[0] };
    const vq_session_opts o = { .sampling = { .temperature = 0.8, .top_p = 0.95, .seed = 5 },
                                .draft = draft, .ignore_eos = true };
    vq_session *s = NULL, *t = NULL;
    vq_err e = { 0 };
    vq_sha256 h;
    int32_t ids[PROMPT], id;
    vq_sha256_init(&h, NULL);
    for (int i = 0; i < PROMPT; i++)
        ids[i] = i < PROMPT - Q ? (37 * i * i + 11) % 699 : question[i - (PROMPT - Q)];
    T_OK(!vq_session_open(&s, eng, &o, &e) && !vq_session_open(&t, eng, NULL, &e), "%s", e.msg);
    T_OK(!vq_session_add(s, ids, PROMPT, &e) && !vq_session_add(t, ids, 9, &e), "%s", e.msg);
    for (int k = 0; k < NEW; k++) {
        size_t left = 1;
        vq_session *both[2] = { s, t };
        while (left && !e.code) vq_step(eng, both, beside ? 2 : 1, beside ? 11 : 0, &left, &e);
        T_OK(!vq_session_sample(s, &id, &e), "%s", e.msg);
        vq_sha256_add(&h, vq_session_logits(s), (size_t)eng->model.n_vocab * sizeof(float));
        vq_sha256_add(&h, &id, sizeof id);
        T_OK(!vq_session_add(s, &id, 1, &e) && !vq_session_add(t, &id, 1, &e), "%s", e.msg);
    }
    vq_sha256_end(&h, out);
    const uint64_t drafted = vq_session_draft_stats(s).drafted;
    vq_session_close(s);
    vq_session_close(t);
    return drafted;
}

static void same_bits(const char *path, const char *type)
{
    uint8_t want[32], got[32];
    uint64_t largest, drafted[3] = { 0 };
    vq_engine *eng = engine(path, 0, 2);
    if (!eng) return;
    T_OK(vq_engine_experts(eng).slots == 0, "a file that fits is mapped");
    const uint64_t all = vq_experts_bytes(&eng->model, &largest);
    text(eng, VQ_DRAFT_OFF, false, want);
    vq_engine_close(eng);
    const int slots[] = { 1, 3, 7, 30, 1000 };
    static const vq_draft drafts[] = { VQ_DRAFT_OFF, VQ_DRAFT_NGRAM, VQ_DRAFT_MTP };
    for (int i = 0; i < 15; i++) {
        const int n = slots[i / 3];
        eng = engine(path, (uint64_t)n * largest, 1 + i % 3);
        if (!eng) return;
        drafted[i % 3] += text(eng, drafts[i % 3], i % 2, got);
        T_OK(!memcmp(got, want, 32), "%s: %d slots, draft %d%s", type, n, i % 3,
             i % 2 ? ", beside another" : "");
        const vq_expert_stats s = vq_engine_experts(eng);
        T_OK(s.slots == n || (uint64_t)s.slots * largest <= all, "%d slots", s.slots);
        T_OK(s.misses > 0 && s.read_bytes > 0 && s.right <= s.guessed, "statistics");
        if (n == 1000) T_OK(s.hits > s.misses, "all in memory: %d hits", (int)s.hits);
        text(eng, VQ_DRAFT_OFF, false, got); /* a warm cache */
        T_OK(!memcmp(got, want, 32), "%s: %d slots, again", type, n);
        vq_engine_close(eng);
    }
    T_OK(!drafted[0] && drafted[1] && drafted[2], "%s: %d, %d and %d ids drafted", type,
         (int)drafted[0], (int)drafted[1], (int)drafted[2]);
    vq_err e = { 0 };
    const vq_engine_opts o = { .experts_ram = largest - 1 };
    T_OK(vq_engine_open(&eng, path, &o, &e) == VQ_ENOFIT && strstr(e.msg, "one of them"), "%s",
         e.msg);
}

/* The end of the file is cut off: experts of the last layer are not there any more. */
static void cut_file(const char *path)
{
    uint64_t largest, size = vq_file_size(path);
    vq_engine *eng = engine(path, 1 << 20, 2);
    if (!eng) return;
    vq_experts_bytes(&eng->model, &largest);
    vq_fd f;
    vq_err e = { 0 };
    int32_t ids[40];
    size_t left = 1;
    vq_session *s = NULL;
    for (int i = 0; i < 40; i++) ids[i] = 3 + 7 * i % 600;
    uint64_t off = 0;
    for (uint32_t i = 0; i < eng->file->n_tensor; i++) { /* somewhere among the last experts */
        const vaq_tensor *t = &eng->file->tensor[i];
        const bool last = t->layer + 1u == eng->model.cfg->n_layer;
        if (t->role == VAQ_EXPERT_DOWN && last && t->expert == 0) off = t->off;
    }
    T_OK(off > 0 && off < size, "offset");
    T_OK(!vq_session_open(&s, eng, NULL, &e), "%s", e.msg);
    T_OK(!vq_session_add(s, ids, 40, &e), "%s", e.msg);
    FILE *h = fopen(path, "r+b"); /* the descriptor of os.h reads only */
    T_OK(h != NULL, "open");
    if (h) {
        f.fd = fileno(h);
        T_OK(!vq_fd_truncate(f, off, path, &e), "%s", e.msg);
        fclose(h);
    }
    const vq_status st = vq_step(eng, &s, 1, 0, &left, &e);
    T_OK(st == VQ_EFORMAT && strstr(e.msg, "cut"), "%d: %s", (int)st, e.msg);
    T_OK(vq_session_len(s) == 40 && !vq_session_logits(s), "nothing was computed");
    vq_engine_close(eng);
}

static void fetches(const char *path)
{
    enum { N = 40 };
    static vq_read r[N];
    vq_fetch *f = NULL;
    vq_err e = { 0 };
    uint8_t *mem = vq_aligned(VQ_FETCH_ALIGN, (size_t)N * VQ_FETCH_ALIGN);
    T_OK(mem && !vq_fetch_new(&f, path, 3, &e), "%s", e.msg);
    if (!f) return;
    vq_buf want = { 0 };
    T_OK(!vq_file_read(path, 1u << 30, &want, &e), "%s", e.msg);
    for (int i = 0; i < N; i++) {
        r[i].off = (uint64_t)(i * 7 % N) * VQ_FETCH_ALIGN;
        r[i].len = VQ_FETCH_ALIGN;
        r[i].to = mem + (size_t)i * VQ_FETCH_ALIGN;
        vq_fetch_put(f, &r[i], i % 3 == 0);
    }
    int taken = 0;
    for (int i = N - 1; i > N - 6; i--) taken += vq_fetch_cancel(f, &r[i]);
    for (int i = 0; i < N; i++) {
        if (atomic_load(&r[i].state) == VQ_FETCH_IDLE) {
            taken--;
            continue;
        }
        vq_fetch_hurry(f, &r[i]);
        T_OK(vq_fetch_wait(f, &r[i]) && !memcmp(r[i].to, want.p + r[i].off, VQ_FETCH_ALIGN),
             "read %d", i);
    }
    T_OK(taken == 0, "cancelled reads stay idle");
    T_OK(vq_fetch_get_stats(f).reads > 0, "statistics");
    r[0].off = (uint64_t)1 << 40; /* behind the end */
    vq_fetch_put(f, &r[0], true);
    T_OK(!vq_fetch_wait(f, &r[0]) && vq_fetch_error(f, &e) == VQ_EFORMAT, "%s", e.msg);
    vq_fetch_free(f);
    vq_buf_clear(&want);
    vq_aligned_free(mem);
    T_OK(vq_fetch_new(&f, "/nonexistent/file", 1, &e) == VQ_EFAIL && !f, "%s", e.msg);
}

/* Calibration: what is known of an expert, and what it costs to quantise all of a layer and then a
 * matrix behind them, is the same when they do not fit. */
static void calibration(const char *path)
{
    enum { TOKENS = 300, LAYER = 2, EXPERT = 5 };
    char text[300];
    double kl[2][2];
    uint8_t sum[2][32];
    vq_err e = { 0 };
    snprintf(text, sizeof text, "%s.txt", path);
    FILE *f = fopen(text, "wb");
    for (int i = 0; f && i < TOKENS; i++) fprintf(f, "%d+", 13 * i * i % 97);
    T_OK(f && !fclose(f), "a text");
    for (int i = 0; i < 2; i++) { /* mapped; three experts of 184 KB */
        const vq_engine_opts o = { .threads = 2, .ctx = CV_CALIB_CTX, .max_sessions = 2,
                                   .max_rows = CV_CALIB_CTX, .kv = VQ_KV_F32,
                                   .experts_ram = i ? 600000 : 0 };
        vq_engine *eng = NULL;
        cv_calib *c = NULL;
        const q_moments *m = NULL;
        T_OK(!vq_engine_open(&eng, path, &o, &e), "%s", e.msg);
        if (!eng) return;
        const cv_calib_opts co = { .engine = eng, .config = eng->file->config, .text = text,
                                   .threads = 2 };
        T_OK((vq_fw_experts(eng->fw) != NULL) == (i == 1), "a cache or none");
        T_OK(!cv_calib_open(&c, &co, &e), "%s", e.msg);
        if (!c) return;
        vaq_tensor t = *vq_file_find(eng->file, VAQ_EXPERT_DOWN, LAYER, EXPERT);
        t.type = Q_N4;
        T_OK(!cv_calib_moments(c, &t, &m, &e) && m && m->k == (int)t.cols, "%s", e.msg);
        vq_sha256 h;
        vq_sha256_init(&h, NULL);
        if (m) vq_sha256_add(&h, m->d, t.cols * sizeof *m->d);
        vq_sha256_end(&h, sum[i]);
        T_OK(!cv_calib_try(c, &t, Q_N4, &kl[i][0], &e), "%s", e.msg);
        t = *vq_file_find(eng->file, VAQ_O, LAYER + 1, -1);
        T_OK(!cv_calib_try(c, &t, Q_N4, &kl[i][1], &e), "%s", e.msg);
        cv_calib_close(c);
        vq_engine_close(eng);
    }
    T_OK(!memcmp(sum[0], sum[1], 32), "the same moments");
    T_OK(kl[0][0] > 0 && kl[0][1] > 0 && !memcmp(kl[0], kl[1], sizeof kl[0]),
         "the same costs: %g %g, %g %g", kl[0][0], kl[0][1], kl[1][0], kl[1][1]);
    vq_unlink(text);
}

int main(void)
{
    static const struct { int type; const char *name; } types[] = {
        { Q_L8, "l8" }, { Q_N4, "n4" }, { Q_P6, "p6" }, { Q_P5, "p5" }
    };
    const char *quick = getenv("VQ_QUICK");
    char path[256];
    for (int i = 0; i < (quick && *quick ? 1 : 4); i++) {
        if (temp_convert(path, FOLDER, types[i].type, false, false)) return 1;
        same_bits(path, types[i].name);
        if (i == 0) fetches(path);
        cut_file(path);
        vq_unlink(path);
    }
    if (temp_convert(path, FOLDER, Q_F32, false, false)) return 1;
    calibration(path);
    vq_unlink(path);
    return t_done("t_stream");
}
