/* t_bits.c - the promise of exact.md: one text, to the last bit, however it is computed.
 *
 * For every model and type two hashes are kept in tests/data/golden/bits.txt:
 *   all   SHA-256 of the logits of every position of two prompts
 *   text  SHA-256 of the logits and ids of a greedy and a sampled continuation of these prompts
 * and every way of computing must give them: each CPU level, 1 to 3 threads, prompts in steps of 1,
 * 7 and 512 rows, alone or in one pass with two other sequences, with drafts, some right and some
 * wrong, drafted by the engine or appended and cut away again.  The DeepSeek model from BF16 (a
 * large fixture) goes through experts mapped and in caches of 1, 3 and all of them, each without
 * drafts, with those of n-grams and of its own head.
 *
 *   VQ_FULL=1    every combination (an hour); otherwise each level meets a varying choice of them
 *   VQ_ONLY=NAME one model
 *   VQ_QUICK=1   part of the models, each at the best level and one more: for emulators
 *   VQ_REMAKE=1  prints the lines of bits.txt as the best level computes them, instead of comparing
 */
#include "core/engine/private.h"
#include "tests/drafts.h"
#include "tests/made.h"
#include "tests/temp.h"
#include "tests/test.h"

enum { GEN = 20, N_MOST = 1100, N_VOCAB_MOST = 1024, OTHERS = 2, MAX_DRAFT = 5 };

typedef struct way {
    const char *cpu;
    int threads, chunk;
    bool beside, drafts;    /* drafts: injected, right and wrong ones */
    vq_draft draft;         /* the engine's own */
    int experts;            /* in memory, others are read as they are wanted; 0: all, mapped */
} way;

typedef struct hashes { char all[65], text[65]; } hashes;

typedef struct subject {
    const char *name;       /* first word of its line in bits.txt */
    uint64_t largest;       /* bytes of an expert; 0: not to be read from disk, no own drafts */
    const char *type, *kv;  /* second and third word */
    const char *path;       /* container, or NULL: the made model */
    int made_type;
    vq_kv_type kv_type;
    int len[2];             /* of the two prompts */
} subject;

static bool full, quick, remake;
static int drafted[4];      /* ids by the engine's own drafts, by vq_draft */

/* ---- one way of computing ---- */

static void hex(char out[65], vq_sha256 *s)
{
    uint8_t d[32];
    vq_sha256_end(s, d);
    vq_hex32(out, d);
}

static vq_status add_row(void *ctx, size_t pos, const float *logits, vq_err *e)
{
    (void)pos;
    (void)e;
    void **c = ctx;
    vq_sha256_add(c[0], logits, *(size_t *)c[1] * sizeof *logits);
    return VQ_OK;
}

static void prompt(int32_t *v, int n, int n_ids, uint64_t seed)
{
    for (int i = 0; i < n; i++) v[i] = (int32_t)(made_rnd(&seed) % (uint32_t)n_ids);
}

/* A subject's prompt; where n-grams are to be found it is made of few ids and repeats itself. */
static void prompt_of(const subject *u, int which, int32_t *v, int n_ids)
{
    prompt(v, u->len[which], u->largest ? 12 : n_ids, 40 + (uint64_t)which);
}

static vq_status hash_all(vq_engine *eng, const subject *u, const way *w, char out[65], vq_err *e)
{
    static int32_t v[N_MOST];
    const vq_info *in = vq_engine_info(eng);
    size_t vocab = (size_t)in->vocab;
    vq_sha256 h;
    vq_sha256_init(&h, NULL);
    void *ctx[] = { &h, &vocab };
    vq_status st = VQ_OK;
    for (int i = 0; !st && i < 2; i++) {
        vq_session *s;
        prompt_of(u, i, v, in->n_ids);
        st = vq_session_open(&s, eng, NULL, e);
        if (!st)
            st = vq_session_logits_all(s, v, (size_t)u->len[i], w->chunk, false, add_row, ctx, e);
        vq_session_close(s);
    }
    hex(out, &h);
    return st;
}

/* The session between two others whose queued ids share its passes. */
typedef struct company {
    vq_session *s[1 + OTHERS]; /* other, ours, other */
    uint64_t seed;
    int n;
} company;

static vq_status compute(vq_engine *eng, company *c, int chunk, vq_err *e)
{
    vq_session *ours = c->s[c->n == 1 ? 0 : 1];
    const uint32_t ctx = vq_engine_info(eng)->ctx;
    const size_t most = ctx < 700 ? ctx : 700;
    vq_status st = VQ_OK;
    while (!st && !vq_session_logits(ours)) {
        size_t left;
        for (int i = 0; c->n > 1 && i <= OTHERS; i += 2) {
            int32_t v[3];
            const int more = 1 + (int)(made_rnd(&c->seed) % 3);
            prompt(v, more, vq_engine_info(eng)->n_ids, c->seed);
            if (vq_session_len(c->s[i]) + 3 > most) vq_session_truncate(c->s[i], most / 2, NULL);
            st = vq_session_add(c->s[i], v, (size_t)more, e);
            if (st) return st;
        }
        /* Room for what the first one queued, so that ours gets about `chunk` rows of the pass. */
        st = vq_step(eng, c->s, c->n, chunk + (c->n > 1 ? 3 : 0), &left, e);
    }
    return st;
}

/* Drafts behind the last id: computed in the same pass as it and cut away, then drawn as usual. */
static vq_status with_drafts(vq_engine *eng, company *c, vq_session *s, int k, const int32_t *known,
                             int n_known, vq_err *e)
{
    int32_t v[3];
    const size_t len = vq_session_len(s);
    size_t left;
    prompt(v, 3, vq_engine_info(eng)->n_ids, (uint64_t)k);
    if (k % 2 && n_known >= 3) memcpy(v, known, sizeof v); /* right ones */
    vq_status st = vq_session_add(s, v, 3, e);
    if (!st) st = vq_step(eng, c->s, c->n, 0, &left, e);
    return st ? st : vq_session_truncate(s, len, e);
}

static vq_status continue_text(vq_engine *eng, const subject *u, const way *w, int which,
                               int32_t *gen, vq_sha256 *h, vq_err *e)
{
    static int32_t v[N_MOST], told[N_MOST + GEN]; /* told: what this text will be */
    const vq_info *in = vq_engine_info(eng);
    vq_session_opts ours = { .sampling = { .temperature = which ? 0.8 : 0,
                                                 .top_p = 0.95,
                                                 .seed = 0x1234567890abcdefull,
                                                 .stream = 3 },
                                   .ignore_eos = true };
    company c = { .seed = 7, .n = w->beside ? 1 + OTHERS : 1 };
    vq_session *s = NULL;
    vq_status st = VQ_OK;
    for (int i = 0; !st && i < c.n; i++) {
        ours.draft = i == (c.n == 1 ? 0 : 1) ? w->draft : VQ_DRAFT_OFF;
        st = vq_session_open(&c.s[i], eng, &ours, e);
    }
    if (!st) {
        s = c.s[c.n == 1 ? 0 : 1];
        prompt_of(u, which, v, in->n_ids);
        st = vq_session_add(s, v, (size_t)u->len[which], e);
        memcpy(told, v, (size_t)u->len[which] * sizeof *told);
        memcpy(told + u->len[which], gen, GEN * sizeof *told);
        const size_t n = (size_t)u->len[which] + GEN;
        if (w->drafts)
            vq_session_use_drafter(s, oracle_new(told, n, in->n_ids, 80, (uint64_t)w->threads));
    }
    for (int k = 0; !st && k < GEN; k++) {
        int32_t id;
        if (w->drafts && k % 8 == 3) st = with_drafts(eng, &c, s, k, gen + k, GEN - k, e);
        else st = compute(eng, &c, (w->drafts || w->draft) && k > 0 ? 64 : w->chunk, e);
        if (!st) st = vq_session_sample(s, &id, e);
        if (st) break;
        vq_sha256_add(h, vq_session_logits(s), (size_t)in->vocab * sizeof(float));
        vq_sha256_add(h, &id, sizeof id);
        gen[k] = id;
        st = vq_session_add(s, &id, 1, e);
    }
    if (!st && w->drafts) {
        const vq_draft_stats d = vq_session_draft_stats(s);
        T_OK(d.accepted > 0 && d.accepted < d.drafted, "%d of %d drafts accepted", (int)d.accepted,
             (int)d.drafted);
    }
    drafted[w->draft] += s ? (int)vq_session_draft_stats(s).drafted : 0;
    for (int i = 0; i < c.n; i++) vq_session_close(c.s[i]);
    return st;
}

static const made_spec wide = { .arch = VAQ_QWEN2,
                                .n_layer = 2,
                                .hidden = 256,
                                .n_head = 4,
                                .n_head_kv = 2,
                                .head_dim = 128,
                                .inter = 320,
                                .n_vocab = 300,
                                .n_ids = 290,
                                .ctx = 2048,
                                .flags = VAQ_F_QKV_BIAS,
                                .k_bias = 900,
                                .seed = 17 };

/* gen: the ids of an earlier way (right drafts), replaced by this one's. */
static bool compute_hashes(const subject *u, const way *w, bool all, bool text, int32_t gen[2][GEN],
                           hashes *out)
{
    const vq_engine_opts o = {
        .cpu = w->cpu, .threads = w->threads, .ctx = 0, .max_sessions = 1 + OTHERS,
        .max_draft = MAX_DRAFT, .kv = u->kv_type, .experts_ram = (uint64_t)w->experts * u->largest
    };
    vq_engine *eng = NULL;
    vq_err e = { 0 };
    made m = { 0 };
    vq_status st;
    if (u->path) {
        st = vq_engine_open(&eng, u->path, &o, &e);
    } else {
        made_spec spec = wide;
        spec.type = u->made_type;
        if (made_open(&m, &spec)) return false;
        st = vq_engine_open_file(&eng, m.file, &o, &e);
        m.file = NULL;
    }
    out->all[0] = out->text[0] = 0;
    if (!st && all) st = hash_all(eng, u, w, out->all, &e);
    if (!st && text) {
        vq_sha256 h;
        vq_sha256_init(&h, NULL);
        for (int i = 0; !st && i < 2; i++) st = continue_text(eng, u, w, i, gen[i], &h, &e);
        hex(out->text, &h);
    }
    vq_engine_close(eng);
    made_close(&m);
    T_OK(!st, "%s %s: %s", u->name, u->type, e.msg);
    return !st;
}

/* ---- the matrix ---- */

static char *goldens; /* the file */

static bool find_golden(const subject *u, hashes *out)
{
    char key[80];
    const int n = snprintf(key, sizeof key, "\n%s %s %s ", u->name, u->type, u->kv);
    const char *p = goldens ? strstr(goldens, key) : NULL;
    return p && sscanf(p + n, "%64[0-9a-f] %64[0-9a-f]", out->all, out->text) == 2;
}

static void check_way(const subject *u, const way *w, const hashes *want, int32_t gen[2][GEN],
                      bool all, bool text)
{
    hashes got;
    int32_t drafts[2][GEN];
    memcpy(drafts, gen, sizeof drafts);
    if (!compute_hashes(u, w, all, text, drafts, &got)) return;
    if (all)
        T_OK(!strcmp(got.all, want->all), "%s %s %s: all with %s, %d threads, chunks of %d: %s",
             u->name, u->type, u->kv, w->cpu, w->threads, w->chunk, got.all);
    if (text)
        T_OK(!strcmp(got.text, want->text),
             "%s %s %s: text with %s, %d threads, chunks of %d%s%s, draft %d, %d experts: %s",
             u->name, u->type, u->kv, w->cpu, w->threads, w->chunk, w->beside ? ", beside two" : "",
             w->drafts ? ", with drafts" : "", (int)w->draft, w->experts, got.text);
}

/* {mapped, 1, 3, all} x {no drafts, n-grams, the model's own head}: a way for each, what else there
 * is varies with the turn; or those 3 of the 12 that are the turn's. */
static void judge_experts(const subject *u, const hashes *want, int32_t gen[2][GEN],
                          const char *cpu, int turn, bool every)
{
    static const int chunks[] = { 512, 7, 64 }, experts[] = { 0, 1, 3, 1000 };
    for (int k = 0; k < (every ? 12 : 3); k++) {
        const int i = k + turn;
        const way w = { cpu, 1 + i % 3, chunks[i / 3 % 3], i % 2, false, (vq_draft)(k % 3),
                        experts[(k % 3 + k / 3 + turn) % 4] };
        check_way(u, &w, want, gen, every && !w.draft, true);
    }
}

static void judge(const subject *u, int turn)
{
    static const int chunks[] = { 1, 7, 512 };
    const char *levels[8];
    const int n = q_cpu_levels(levels);
    int32_t gen[2][GEN];
    hashes want, have;
    const way plain = { .cpu = levels[n - 1], .threads = 2, .chunk = 512 };
    if (!compute_hashes(u, &plain, !quick || remake, true, gen, &have)) return;
    if (remake) {
        printf("%s %s %s %s %s\n", u->name, u->type, u->kv, have.all, have.text);
        return;
    }
    if (!find_golden(u, &want)) {
        T_OK(false, "%s %s %s: no line in tests/data/golden/bits.txt", u->name, u->type, u->kv);
        return;
    }
    if (!quick)
        T_OK(!strcmp(have.all, want.all), "%s %s %s: all logits: %s", u->name, u->type, u->kv,
             have.all);
    T_OK(!strcmp(have.text, want.text), "%s %s %s: text: %s", u->name, u->type, u->kv, have.text);
    if (quick) {
        /* Not always the best: an emulated CPU has levels that no machine at hand runs. */
        const way w = { .cpu = levels[n > 1 ? 1 + turn / 3 % (n - 1) : 0], .threads = 3, .chunk = 7,
                        .beside = true, .drafts = true };
        check_way(u, &w, &want, gen, false, true);
        return;
    }
    if (u->largest) {
        for (int l = full ? 0 : n - 1; l < n; l++)
            for (int i = 0; i < (full && l > 0 ? 3 : 1); i++)
                judge_experts(u, &want, gen, levels[l], turn + i, full && l > 0);
        return;
    }
    for (int l = 0; l < n; l++) {
        if (full) {
            for (int i = 0; i < 36; i++) {
                const way w = { .cpu = levels[l], .threads = 1 + i % 3, .chunk = chunks[i / 3 % 3],
                                .beside = i / 9 % 2, .drafts = i / 18 };
                check_way(u, &w, &want, gen, i < 9, true);
            }
            continue;
        }
        /* Every level: all logits one way, text another; the ways differ from subject to subject.
         */
        const int i = turn + 5 * l;
        way a = { .cpu = levels[l], .threads = 1 + i % 3, .chunk = chunks[(i / 3 + l) % 3] };
        way b = { .cpu = levels[l], .threads = 1 + (i + 1) % 3, .chunk = chunks[i % 3],
                  .beside = i % 2 == 0, .drafts = i % 3 != 1 };
        if (l == 0) { /* ref is some 50 times slower: fewer of the slow ways */
            if (a.chunk == 1) a.chunk = 512;
            if (b.chunk == 1) b.chunk = 512;
        }
        check_way(u, &a, &want, gen, l > 0 || turn % 8 == 0, false);
        check_way(u, &b, &want, gen, false, l > 0 || turn % 4 == 2);
    }
}

static uint64_t largest_expert(const char *path)
{
    const vq_engine_opts o = { .threads = 1, .ctx = 64 };
    vq_engine *eng = NULL;
    vq_err e = { 0 };
    uint64_t bytes = 0;
    T_OK(!vq_engine_open(&eng, path, &o, &e), "%s", e.msg);
    if (eng) vq_experts_bytes(&eng->model, &bytes);
    vq_engine_close(eng);
    return bytes;
}

int main(void)
{
    static const struct { const char *name, *src; bool tokenizer, shared; int len[2]; } models[] = {
        { "tiny-r1-qwen", "tests/data/models/tiny-r1-qwen", true, false, { 600, 1100 } },
        { "tiny-r1-llama", "tests/data/models/tiny-r1-llama", true, false, { 600, 1100 } },
        { "tiny-r1-qwen3", "tests/data/models/tiny-r1-qwen3", true, false, { 600, 1100 } },
        { "tiny-r1-fp8", "tests/data/models/tiny-r1-fp8", true, false, { 600, 1100 } },
        { "stories260K", "models/stories260K-hf", false, true, { 480, 300 } },
        { "tiny-r1", "models/tiny-r1", true, true, { 600, 1100 } },
    };
    /* The first four for every model; the others add no code above quant/: N5 for the first, pairs
     * for those whose recipe has them.  The last model is there for experts on disk. */
    static const int types[] = { Q_F32, Q_L8, Q_N4, Q_N4S, Q_N5, Q_P6, Q_P5 };
    static const struct {
        const char *name;
        vq_kv_type t;
    } kvs[] = { { "kv8", VQ_KV_INT8 }, { "kvbf16", VQ_KV_BF16 }, { "kvf32", VQ_KV_F32 } };
    const char *v, *only = getenv("VQ_ONLY");
    full = (v = getenv("VQ_FULL")) && *v;
    quick = ((v = getenv("VQ_QUICK")) && *v) || ((v = getenv("VQ_SANITIZE")) && *v);
    remake = (v = getenv("VQ_REMAKE")) && *v;
    vq_buf b = { 0 };
    if (vq_file_read("tests/data/golden/bits.txt", 1 << 20, &b, NULL) == VQ_OK) goldens = b.p;

    int turn = 0;
    for (size_t m = 0; m < sizeof models / sizeof models[0]; m++) {
        char src[512], path[256];
        snprintf(src, sizeof src, "%s%s%s", models[m].shared ? t_shared() : "",
                 models[m].shared ? "/" : "", models[m].src);
        if (!vq_is_dir(src)) {
            T_SKIP("%s is not there", src);
            continue;
        }
        for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
            const bool experts = m == 5;
            if (t >= 4 && m != (types[t] == Q_N5 ? 0 : 3) && !(experts && types[t] != Q_N5))
                continue;
            if (experts && (types[t] == Q_F32 || types[t] == Q_N4S)) continue;
            if (only && *only && strcmp(only, models[m].name)) continue;
            turn++;
            /* Of the slowest model one is enough: the type of most of its bytes. */
            if (quick && !remake && (experts || (m + t) % 3 || (m == 3 && types[t] != Q_P5)))
                continue;
            if (temp_convert(path, src, types[t], false, !models[m].tokenizer)) {
                T_OK(false, "%s does not convert", src);
                continue;
            }
            const subject u = { models[m].name,
                                experts ? largest_expert(path) : 0,
                                q_type_info(types[t])->name,
                                types[t] == Q_F32 ? "kvf32" : "kv8",
                                path,
                                0,
                                VQ_KV_AUTO,
                                { models[m].len[0], models[m].len[1] } };
            judge(&u, turn);
            vq_unlink(path);
        }
    }
    /* Heads of 128 and key biases of 900 in the first layer, as Qwen2.5 has them. */
    for (int k = 0; k < 3; k++, turn++) {
        const subject u = { "made-qwen2", 0, "n4", kvs[k].name, NULL, Q_N4, kvs[k].t,
                            { 600, 1100 } };
        if ((!quick || k == 0) && !(only && *only)) judge(&u, turn);
    }
    /* Drafts that were asked for and never made would prove nothing. */
    if (drafted[VQ_DRAFT_NGRAM] + drafted[VQ_DRAFT_MTP])
        T_OK(drafted[VQ_DRAFT_NGRAM] > 0 && drafted[VQ_DRAFT_MTP] > 0, "%d n-gram, %d head drafts",
             drafted[VQ_DRAFT_NGRAM], drafted[VQ_DRAFT_MTP]);
    vq_buf_clear(&b);
    return t_done("t_bits");
}
