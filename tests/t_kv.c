/* t_kv.c - block tables: sharing, copy on write, giving back; and the plan that sizes the pool. */
#include "core/model/kv.h"
#include "core/model/forward.h"
#include "tests/made.h"
#include "tests/test.h"

static const made_spec small = { .arch = VAQ_QWEN2,
                                 .n_layer = 2,
                                 .hidden = 64,
                                 .n_head = 2,
                                 .n_head_kv = 1,
                                 .head_dim = 32,
                                 .inter = 64,
                                 .n_vocab = 64,
                                 .n_ids = 60,
                                 .ctx = 4096,
                                 .flags = VAQ_F_QKV_BIAS,
                                 .type = Q_L8,
                                 .k_bias = 900,
                                 .seed = 1 };

static int held(const vq_kv *kv)
{
    int n = 0;
    for (int i = 0; i < kv->n_block; i++) n += kv->ref[i] != 0;
    return n;
}

static void layout(const vq_model *m)
{
    vq_kv kv;
    T_OK(vq_kv_layout(&kv, m, Q_KV_8, NULL) == VQ_OK, "layout");
    /* A key bias beyond 64 keeps the keys of that layer, and only them, out of int8. */
    T_OK(kv.layer[0].k == Q_KV_BF16 && kv.layer[0].v == Q_KV_8, "layer 0: %d %d", kv.layer[0].k,
         kv.layer[0].v);
    T_OK(kv.layer[1].k == Q_KV_8 && kv.layer[1].v == Q_KV_8, "layer 1: %d %d", kv.layer[1].k,
         kv.layer[1].v);
    T_OK(kv.layer[1].off == kv.layer[0].head_bytes, "layer 1 at %zu", kv.layer[1].off);
    T_OK(kv.block_bytes % 64 == 0, "%zu", kv.block_bytes);
    T_OK(vq_kv_position_bytes(&kv) == kv.block_bytes / 256, "bytes per position");
    vq_kv_clear(&kv);
    T_OK(vq_kv_layout(&kv, m, Q_KV_F32, NULL) == VQ_OK && kv.layer[0].k == Q_KV_F32, "f32");
    vq_kv_clear(&kv);
}

static void tables(const vq_model *m)
{
    vq_kv kv;
    vq_seq a, b, c;
    T_OK(vq_kv_layout(&kv, m, Q_KV_8, NULL) == VQ_OK && vq_kv_alloc(&kv, 12, NULL) == VQ_OK,
         "alloc");
    T_OK(!vq_seq_init(&a, 1024, NULL) && !vq_seq_init(&b, 1000, NULL)
             && !vq_seq_init(&c, 1024, NULL),
         "init");
    T_OK(a.cap == 4 && b.cap == 4, "capacity %d %d", a.cap, b.cap);

    T_OK(vq_seq_reserve(&kv, &a, 0, 1) && a.n == 1, "one block");
    T_OK(vq_seq_reserve(&kv, &a, 1, 256) && a.n == 1, "still one");
    T_OK(vq_seq_reserve(&kv, &a, 256, 600) && a.n == 3 && held(&kv) == 3, "three");
    for (int i = 0; i < 3; i++)
        memset(kv.mem + (size_t)a.block[i] * kv.block_bytes, 10 + i, kv.block_bytes);

    /* A sharer of 600 positions that appends copies the partly filled block and no other. */
    vq_seq_share(&kv, &b, &a, 600);
    T_OK(b.n == 3 && held(&kv) == 3, "shared");
    T_OK(vq_seq_reserve(&kv, &b, 600, 601) && held(&kv) == 4, "copied one");
    T_OK(b.block[0] == a.block[0] && b.block[1] == a.block[1] && b.block[2] != a.block[2],
         "the last one");
    T_OK(kv.mem[(size_t)b.block[2] * kv.block_bytes + 77] == 12, "with its content");
    T_OK(kv.ref[a.block[2]] == 1, "the first owner is alone again");

    /* Cut into the middle of a shared block: writing there copies it too. */
    vq_seq_share(&kv, &c, &a, 512);
    T_OK(c.n == 2 && kv.ref[a.block[0]] == 3, "three share block 0");
    vq_seq_truncate(&kv, &c, 100);
    T_OK(c.n == 1 && kv.ref[a.block[1]] == 2, "given back");
    T_OK(vq_seq_reserve(&kv, &c, 100, 300) && c.n == 2 && c.block[0] != a.block[0], "copied");
    T_OK(kv.mem[(size_t)c.block[0] * kv.block_bytes] == 10, "with its content");
    memset(kv.mem + (size_t)c.block[0] * kv.block_bytes, 99, kv.block_bytes);
    T_OK(kv.mem[(size_t)a.block[0] * kv.block_bytes] == 10, "the original is untouched");

    /* The first owner writing into a shared block is a sharer like any other. */
    vq_seq_truncate(&kv, &a, 256);
    const int32_t old = a.block[0];
    T_OK(vq_seq_reserve(&kv, &a, 200, 256) && a.block[0] != old && b.block[0] == old,
         "owner copies");

    vq_seq_clear(&kv, &a);
    vq_seq_clear(&kv, &b);
    vq_seq_clear(&kv, &c);
    T_OK(held(&kv) == 0 && kv.n_spare == 12, "all free: %d", kv.n_spare);
    vq_kv_clear(&kv);
}

/* Distinct blocks are never more than the entries of all tables: the pool cannot run dry. */
static void never_dry(const vq_model *m)
{
    enum { N = 5, CTX = 700, CAP = 3 };
    vq_kv kv;
    vq_seq s[N];
    uint32_t len[N] = { 0 };
    uint64_t seed = 3;
    T_OK(vq_kv_layout(&kv, m, Q_KV_8, NULL) == VQ_OK && vq_kv_alloc(&kv, N * CAP, NULL) == VQ_OK,
         "alloc");
    for (int i = 0; i < N; i++) T_OK(vq_seq_init(&s[i], CTX, NULL) == VQ_OK, "init");
    int failed = 0, wrong = 0;
    for (int step = 0; step < 3000; step++) {
        const uint32_t i = made_rnd(&seed) % N, j = made_rnd(&seed) % N;
        switch (made_rnd(&seed) % 3) {
        case 0: {
            const uint32_t to = len[i] + made_rnd(&seed) % (CTX - len[i] + 1);
            if (to > len[i]) failed += !vq_seq_reserve(&kv, &s[i], len[i], to);
            for (uint32_t p = len[i]; p < to; p++) wrong += kv.ref[s[i].block[p / 256]] != 1;
            len[i] = to;
            break;
        }
        case 1:
            len[i] = made_rnd(&seed) % (len[i] + 1);
            vq_seq_truncate(&kv, &s[i], len[i]);
            break;
        default:
            if (i == j) break;
            vq_seq_truncate(&kv, &s[i], 0);
            len[i] = made_rnd(&seed) % (len[j] + 1);
            vq_seq_share(&kv, &s[i], &s[j], len[i]);
        }
    }
    T_OK(!failed, "%d times the pool was empty", failed);
    T_OK(!wrong, "%d positions writable though shared", wrong);
    for (int i = 0; i < N; i++) vq_seq_clear(&kv, &s[i]);
    T_OK(kv.n_spare == N * CAP, "%d blocks lost", N * CAP - kv.n_spare);
    vq_kv_clear(&kv);
}

static void plans(const vq_model *m)
{
    vq_plan p;
    vq_err e;
    vq_plan_want w = {
        .threads = 2, .max_rows = 512, .max_sessions = 1, .kv_type = Q_KV_8, .available = 1ull << 40
    };
    T_OK(vq_plan_make(&p, m, &w, &e) == VQ_OK && p.ctx == 4096, "the model's limit: %u", p.ctx);
    T_OK(p.n_block == 16 && p.max_rows == 512, "%d blocks", p.n_block);
    w.ctx = 4097;
    T_OK(vq_plan_make(&p, m, &w, &e) == VQ_ENOFIT && strstr(e.msg, "--ctx 4096"), "%s", e.msg);
    w.ctx = 100;
    T_OK(vq_plan_make(&p, m, &w, &e) == VQ_OK && p.n_block == 1 && p.max_rows == 100, "%d rows",
         p.max_rows);
    w.ctx = 4096;
    w.kv_type = Q_KV_F32;
    T_OK(vq_plan_make(&p, m, &w, &e) == VQ_OK, "f32");
    const uint64_t all = p.kv_bytes + p.scratch_bytes + p.session_bytes;
    w.available = all - 1;
    T_OK(vq_plan_make(&p, m, &w, &e) == VQ_ENOFIT, "one byte short");
    T_OK(strstr(e.msg, "--kv 8") && strstr(e.msg, "--ctx "), "the ways out: %s", e.msg);
    w.available = all;
    T_OK(vq_plan_make(&p, m, &w, &e) == VQ_OK, "exactly enough");
    w.ctx = 0;
    T_OK(vq_plan_make(&p, m, &w, &e) == VQ_OK && p.ctx > 0 && p.ctx < 4096 && p.ctx % 256 == 0,
         "3/4 of the memory: %u", p.ctx);
    w.available = 1000;
    T_OK(vq_plan_make(&p, m, &w, &e) == VQ_ENOFIT, "nothing fits");
}

int main(void)
{
    q_kern k;
    made mm;
    vq_model m;
    if (!q_kern_make(&k, "ref") || made_open(&mm, &small)) return 1;
    vq_err e = { 0 };
    T_OK(vq_model_bind(&m, mm.file, &k, &e) == VQ_OK, "%s", e.msg);
    layout(&m);
    tables(&m);
    never_dry(&m);
    plans(&m);
    vq_model_clear(&m);
    made_close(&mm);
    return t_done("t_kv");
}
