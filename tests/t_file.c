/* t_file.c - containers: written, read back, and every way of breaking one.
 *
 * The container under test is 56 KiB: one layer, every kind of tensor.  Damage is of two sorts:
 * bytes changed by accident (each one, and each truncation: a hash must catch it), and bytes
 * changed on purpose with all hashes made anew (`reseal`: the proof of the content must). */
#define _GNU_SOURCE 1

#include "core/base/mem.h"
#include "core/base/pool.h"
#include "core/file/check.h"
#include "core/file/file.h"
#include "tests/image.h"
#include "tests/test.h"

#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[256];           /* scratch folder */

/* ---- a small model ---- */

enum { N_TENSOR = 13, N_ROPE = 16 };

typedef struct model {
    vaq_config config;
    double rope[N_ROPE];
    vaq_tensor tensor[N_TENSOR];
    vq_buf meta;
    uint8_t tokenizer[37];
} model;

static uint8_t body_byte(size_t tensor, uint64_t at)
{
    return (uint8_t)((at + 31 * tensor) % 251); /* prime: a swapped block shows */
}

static void add_tensor(model *m, int *n, vaq_role role, int layer, int type, uint32_t rows,
                       uint32_t cols)
{
    m->tensor[(*n)++] = (vaq_tensor){
        .role = (uint16_t)role, .layer = (uint16_t)(layer < 0 ? 0xffff : layer), .expert = -1,
        .type = (uint16_t)type, .rows = rows, .cols = cols, .params = (uint64_t)rows * cols,
        .layout = rows == 1 ? 0 : role == VAQ_GATE_UP ? 2 : 1
    };
}

static void make_model(model *m)
{
    int n = 0;
    memset(m, 0, sizeof *m);
    m->config = (vaq_config){
        .arch = VAQ_QWEN2, .flags = VAQ_F_TIED | VAQ_F_QKV_BIAS, .n_layer = 1, .hidden = 64,
        .n_head = 2, .n_head_kv = 1, .head_dim = 32, .v_dim = 32, .inter = 24, .n_vocab = 20,
        .n_ids = 19, .ctx = 100, .eps = 1e-6f, .attn_scale = 0.17677669f, .rope_dim = 2 * N_ROPE,
        .template_id = VAQ_TPL_DISTILL, .rope_mult = 1, .bos = 18, .eos = -1, .temperature = 0.6f,
        .top_p = 0.95f
    };
    for (int i = 0; i < N_ROPE; i++) m->rope[i] = pow(10000, -i / (double)N_ROPE);
    /* Kernel order, which is not the order of the table. */
    add_tensor(m, &n, VAQ_EMBED, -1, Q_L8, 20, 64);
    add_tensor(m, &n, VAQ_NORM_ATTN, 0, Q_F32, 1, 64);
    add_tensor(m, &n, VAQ_Q, 0, Q_N4, 64, 64);
    add_tensor(m, &n, VAQ_Q_BIAS, 0, Q_F32, 1, 64);
    add_tensor(m, &n, VAQ_K, 0, Q_N4S, 32, 64);
    add_tensor(m, &n, VAQ_K_BIAS, 0, Q_F32, 1, 32);
    add_tensor(m, &n, VAQ_V, 0, Q_L6, 32, 64);
    add_tensor(m, &n, VAQ_V_BIAS, 0, Q_F32, 1, 32);
    add_tensor(m, &n, VAQ_O, 0, Q_N4, 64, 64);
    add_tensor(m, &n, VAQ_NORM_FFN, 0, Q_F32, 1, 64);
    add_tensor(m, &n, VAQ_GATE_UP, 0, Q_N4, 64, 64);
    add_tensor(m, &n, VAQ_DOWN, 0, Q_N4, 64, 24);
    add_tensor(m, &n, VAQ_NORM_OUT, -1, Q_F32, 1, 64);
    vq_meta_add_text(&m->meta, "name", "a small \xe6\xa8\xa1\xe5\x9e\x8b", 14);
    vq_meta_add_u64(&m->meta, "count", 12345678901234567u);
    vq_meta_add_f64(&m->meta, "quality.kl", 0.125);
    vq_meta_add_text(&m->meta, "empty", "", 0);
    for (size_t i = 0; i < sizeof m->tokenizer; i++) m->tokenizer[i] = (uint8_t)(7 * i);
}

static vq_writer_spec spec_of(model *m, const char *path)
{
    return (vq_writer_spec){ .path = path, .config = &m->config, .rope = m->rope, .kern = &kern,
                             .tensor = m->tensor, .n_tensor = N_TENSOR, .tokenizer = m->tokenizer,
                             .tokenizer_size = sizeof m->tokenizer, .meta = m->meta.p,
                             .meta_size = m->meta.n };
}

/* The body in pieces of `step` bytes. */
static vq_status put_body(vq_writer *w, const model *m, size_t step, vq_err *e)
{
    uint8_t buf[4096];
    vq_status s = VQ_OK;
    for (size_t i = 0; !s && i < N_TENSOR; i++) {
        for (uint64_t at = 0; !s && at < m->tensor[i].size;) {
            uint64_t n = m->tensor[i].size - at;
            if (n > step) n = step;
            for (uint64_t k = 0; k < n; k++) buf[k] = body_byte(i, at + k);
            s = vq_writer_put(w, i, at, buf, (size_t)n, e);
            at += n;
        }
        vq_writer_rmse(w, i, (float)i / 64);
    }
    return s;
}

static vq_status write_model(model *m, const char *path, bool force, size_t step, uint8_t root[32],
                             vq_err *e)
{
    vq_writer_spec spec = spec_of(m, path);
    spec.force = force;
    vq_writer *w;
    uint64_t bytes = 0;
    vq_mark mark;
    vq_status s = vq_writer_begin(&w, &spec, e);
    if (s) return s;
    s = put_body(w, m, step, e);
    if (!s) {
        vq_writer_mark(w, &mark);
        s = vq_writer_end(w, &mark, root, &bytes, e);
    }
    if (s) vq_writer_abort(w, false);
    if (!s) T_OK(bytes == vq_file_size(path), "bytes");
    return s;
}

static void scratch(char out[300], const char *name)
{
    snprintf(out, 300, "%s/%s", dir, name);
}

static size_t names_in_dir(void)
{
    char **names;
    size_t n;
    if (vq_dir_list(dir, &names, &n, NULL)) return 999;
    for (size_t i = 0; i < n; i++) vq_free(names[i]);
    vq_free(names);
    return n;
}

/* ---- the file as bytes ---- */

static image image_read(const char *path)
{
    vq_buf b = { 0 };
    vq_err e;
    T_OK(vq_file_read(path, 1 << 20, &b, &e) == VQ_OK, "%s", e.msg);
    image im = { vq_aligned(64, b.n), b.n };
    memcpy(im.p, b.p, b.n);
    vq_buf_clear(&b);
    return im;
}

static vq_status verify(image im)
{
    vq_file *f;
    vq_verify v;
    vq_status s = vq_file_open_mem(&f, im.p, im.n, "mem.vaq", &kern, NULL);
    if (s) return s;
    s = vq_file_verify(f, &kern, NULL, NULL, NULL, &v, NULL);
    vq_verify_clear(&v);
    vq_file_close(f);
    return s;
}

/* ---- round trip ---- */

static bool count_progress(void *ctx, uint64_t done, uint64_t total)
{
    int *calls = ctx;
    T_OK(done <= total, "progress");
    return ++*calls < 0;
}

static bool stop_at_once(void *ctx, uint64_t done, uint64_t total)
{
    (void)ctx, (void)done, (void)total;
    return true;
}

static void test_round_trip(model *m, const char *path)
{
    vq_err e = { 0 };
    uint8_t root[32];
    T_OK(write_model(m, path, false, 4096, root, &e) == VQ_OK, "%s", e.msg);
    T_OK(names_in_dir() == 1, "only the result is left");

    vq_file *f;
    T_OK(vq_file_open(&f, path, &kern, &e) == VQ_OK, "%s", e.msg);
    if (!f) return;
    T_OK(memcmp(f->header->root, root, 32) == 0, "root");
    T_OK(f->map.size <= 65536, "small: %llu", (unsigned long long)f->map.size);
    T_OK(memcmp(f->config, &m->config, sizeof m->config) == 0, "config");
    T_OK(memcmp(f->rope, m->rope, sizeof m->rope) == 0, "rope");
    T_OK(f->tokenizer_size == sizeof m->tokenizer &&
         memcmp(f->tokenizer, m->tokenizer, sizeof m->tokenizer) == 0, "tokenizer");
    T_OK(f->n_tensor == N_TENSOR, "count");
    for (size_t i = 0; i < N_TENSOR; i++) {
        const vaq_tensor *want = &m->tensor[i];
        const vaq_tensor *t = vq_file_find(f, (vaq_role)want->role,
                                           want->layer == 0xffff ? -1 : want->layer, -1);
        T_OK(t && t->size == want->size && t->off == want->off && t->rel_rmse == (float)i / 64,
             "tensor %zu", i);
        if (!t) continue;
        const uint8_t *p = vq_file_data(f, t);
        size_t wrong = 0;
        for (uint64_t k = 0; k < t->size; k++) wrong += p[k] != body_byte(i, k);
        T_OK(wrong == 0 && (uintptr_t)p % 64 == 0, "bytes of tensor %zu", i);
    }
    T_OK(!vq_file_find(f, VAQ_HEAD, -1, -1), "tied: no head");
    T_OK(!vq_file_find(f, VAQ_Q, 1, -1) && !vq_file_find(f, VAQ_Q, 0, 0), "absent ones");
    T_OK(vq_str_eq(vq_file_meta(f, "name"), "a small \xe6\xa8\xa1\xe5\x9e\x8b"), "name");
    T_OK(vq_str_eq(vq_file_meta(f, "empty"), ""), "empty text");
    T_OK(!vq_file_meta(f, "nothing").p && !vq_file_meta(f, "count").p, "no such text");
    vq_meta mt;
    size_t pos = 0, n = 0;
    while (vq_file_meta_next(f, &pos, &mt)) {
        n++;
        if (vq_str_eq(mt.key, "count")) T_OK(mt.type == 2 && mt.u64 == 12345678901234567u, "u64");
        if (vq_str_eq(mt.key, "quality.kl")) T_OK(mt.type == 3 && mt.f64 == 0.125, "f64");
    }
    T_OK(n == 4, "records");
    char name[96];
    vq_tensor_name(name, vq_file_find(f, VAQ_GATE_UP, 0, -1));
    T_OK(!strcmp(name, "model.layers.0.mlp.gate_up_proj.weight"), "%s", name);

    for (int threads = 0; threads <= 3; threads++) {
        vq_pool *pool = NULL;
        vq_verify v;
        int calls = 0;
        if (threads) T_OK(vq_pool_new(&pool, threads, NULL) == VQ_OK, "pool");
        T_OK(vq_file_verify(f, &kern, pool, count_progress, &calls, &v, &e) == VQ_OK, "%s", e.msg);
        T_OK(v.bytes == f->header->file_size && v.n_bad == 0 && calls > 0, "verified");
        vq_verify_clear(&v);
        if (!pool) {
            T_OK(vq_file_verify(f, &kern, NULL, stop_at_once, NULL, &v, &e) == VQ_EINTR, "stopped");
            vq_verify_clear(&v);
        }
        vq_pool_free(pool);
    }
    vq_file_close(f);
    vq_file_close(NULL);
}

/* The file is written over while it is open: sizes and offsets stay those that were proved. */
static void test_overwritten(image im)
{
    for (int how = 0; how < 3; how++) {
        vq_file *f;
        vq_err e = { 0 };
        vq_verify v;
        uint8_t *p = vq_aligned(64, im.n);
        if (!p) return;
        memcpy(p, im.p, im.n);
        if (vq_file_open_mem(&f, p, im.n, "mem", &kern, &e)) {
            T_OK(false, "%s", e.msg);
            vq_aligned_free(p);
            return;
        }
        const vaq_header header = *f->header;
        const vaq_config config = *f->config;
        const double fastest = f->rope[0];
        memset(p, how == 0 ? 0 : how == 1 ? 0xff : 0x5a, im.n);
        T_OK(!memcmp(&header, f->header, sizeof header), "header");
        T_OK(!memcmp(&config, f->config, sizeof config) && f->rope[0] == fastest, "config, rope");
        const vq_status st = vq_file_verify(f, &kern, NULL, NULL, NULL, &v, &e);
        T_OK(st == VQ_EFORMAT && v.n_bad == f->n_chunk, "verify: %d", st);
        vq_verify_clear(&v);
        vq_file_close(f);
        vq_aligned_free(p);
    }
}

/* Same input, same bytes: whatever the cuts, and with the reference hash. */
static void test_same_bytes(model *m, const char *path)
{
    char other[300];
    uint8_t root[32];
    vq_err e = { 0 };
    scratch(other, "b.vaq");
    T_OK(write_model(m, other, false, 100, root, &e) == VQ_OK, "%s", e.msg);
    T_OK(write_model(m, other, false, 100, root, &e) == VQ_EFAIL, "exists");
    T_OK(strstr(e.msg, "--force"), "%s", e.msg);
    T_OK(write_model(m, other, true, 777, root, &e) == VQ_OK, "%s", e.msg);
    image a = image_read(path), b = image_read(other);
    T_OK(a.n == b.n && memcmp(a.p, b.p, a.n) == 0, "bytes differ");
    vq_file *f;
    T_OK(vq_file_open_mem(&f, a.p, a.n, "mem", NULL, &e) == VQ_OK, "%s", e.msg);
    vq_file_close(f);
    vq_aligned_free(a.p);
    vq_aligned_free(b.p);
    vq_unlink(other);
}

/* The front alone is the front of the file, but for the chunk hashes and what follows from them. */
static void test_front(model *m, image im)
{
    vq_writer_spec spec = spec_of(m, "memory");
    vq_buf front = { 0 };
    vq_err e = { 0 };
    uint64_t size;
    T_OK(vq_front_make(&front, &size, &spec, &e) == VQ_OK, "%s", e.msg);
    T_OK(size == im.n && front.n == header(im)->body_off, "sizes");
    image made = { vq_aligned(64, (size_t)size), (size_t)size };
    memcpy(made.p, front.p, front.n);
    T_OK(try_open(made, &e) == VQ_OK, "%s", e.msg);
    T_OK(verify(made) == VQ_EFORMAT, "nobody hashed the weights");
    vq_aligned_free(made.p);
    vq_buf_clear(&front);
}

/* ---- damage by accident ---- */

static void test_truncations(image im)
{
    size_t opened = 0, other = 0;
    for (size_t n = 0; n < im.n; n++) {
        /* An own allocation of this size: sanitizers see a read behind it. */
        uint8_t *p = aligned_alloc(64, (n + 63) / 64 * 64 + 64), *end = p + (n + 63) / 64 * 64;
        memcpy(p, im.p, n);
        memset(p + n, 0xa5, (size_t)(end + 64 - (p + n)));
        image cut = { p, n };
        vq_err e = { 0 };
        vq_status s = try_open(cut, &e);
        opened += s == VQ_OK;
        other += s != VQ_EFORMAT || !e.msg[0];
        free(p);
    }
    T_OK(opened == 0 && other == 0, "%zu truncations opened, %zu other verdicts", opened, other);
}

static void test_flips(image im)
{
    const size_t body = header(im)->body_off;
    size_t missed = 0, other = 0, closed = 0;
    for (size_t i = 0; i < body; i++) {
        for (int bit = 0; bit < 8; bit++) {
            im.p[i] ^= (uint8_t)(1 << bit);
            vq_status s = try_open(im, NULL);
            missed += s == VQ_OK;
            other += s != VQ_EFORMAT;
            im.p[i] ^= (uint8_t)(1 << bit);
        }
    }
    T_OK(missed == 0 && other == 0, "front: %zu flips opened, %zu other verdicts", missed, other);

    /* Without SHA instructions (qemu, sanitizers on old CPUs) every 13th byte. */
    const size_t step = kern.cpu & (Q_CPU_SHANI | Q_CPU_ARMSHA2) ? 1 : 13;
    missed = 0;
    for (size_t i = body; i < im.n; i += step) {
        im.p[i] ^= (uint8_t)(1 << i % 8);
        closed += try_open(im, NULL) != VQ_OK;
        missed += verify(im) != VQ_EFORMAT;
        im.p[i] ^= (uint8_t)(1 << i % 8);
    }
    T_OK(missed == 0 && closed == 0, "body: %zu flips unseen, %zu did not open", missed, closed);
    T_OK(verify(im) == VQ_OK, "the original is whole again");
    if (step > 1) T_SKIP("flips of the body: only every %zuth byte, no SHA instructions", step);
}

/* What verify reports: place and tensor. */
static void test_bad_list(image im)
{
    vq_file *f;
    vq_verify v;
    vq_err e;
    const vaq_tensor *t = table(im); /* the embedding: first in the table and in the body */
    im.p[t->off + 5] ^= 1;
    T_OK(vq_file_open_mem(&f, im.p, im.n, "mem", &kern, &e) == VQ_OK, "opens");
    T_OK(vq_file_verify(f, &kern, NULL, NULL, NULL, &v, &e) == VQ_EFORMAT, "verify");
    T_OK(v.n_bad == 1 && v.bad[0].off == header(im)->body_off && v.bad[0].tensor == &f->tensor[0],
         "one bad chunk");
    T_OK(strstr(e.msg, "embed_tokens"), "%s", e.msg);
    vq_verify_clear(&v);
    vq_file_close(f);
    im.p[t->off + 5] ^= 1;
}

/* ---- damage on purpose ---- */

static void test_header_proofs(image im)
{
    REFUSED(im, "update vaquita", header(im_)->version = 2);
    REFUSED(im, "format version", header(im_)->version = 0);
    REFUSED(im, "update vaquita", header(im_)->arith = 2);
    REFUSED(im, "convert", header(im_)->arith = 0);
    REFUSED(im, "its header says", header(im_)->file_size++);
    REFUSED(im, "body", header(im_)->body_off += 64);
    REFUSED(im, "body", header(im_)->body_off = 0);
    REFUSED(im, "body", header(im_)->body_off = (uint64_t)1 << 63);
    REFUSED(im, "body", header(im_)->body_size -= 4096);
    REFUSED(im, "zero", header(im_)->pad[175] = 1);
    REFUSED(im, "sections", header(im_)->n_sections = 65);
}

/* A section loses its last n bytes; they become padding. */
static void shorten(image im, uint32_t id, size_t n)
{
    vaq_section *s = section(im, id);
    s->size -= n;
    memset(im.p + s->off + s->size, 0, n);
}

static void test_section_proofs(image im)
{
    REFUSED(im, "twice", section(im_, VAQ_SEC_TOKENIZER)->id = VAQ_SEC_META);
    REFUSED(im, "update vaquita", section(im_, VAQ_SEC_TOKENIZER)->id = 7);
    REFUSED(im, "no metadata section", section(im_, VAQ_SEC_META)->id = 0x80000001u);
    REFUSED(im, "zero", section(im_, VAQ_SEC_META)->pad = 1);
    REFUSED(im, "zero", section(im_, VAQ_SEC_META)->pad2 = 1);
    REFUSED(im, "place", section(im_, VAQ_SEC_TOKENIZER)->off += 8);
    REFUSED(im, "place", section(im_, VAQ_SEC_TOKENIZER)->off = (uint64_t)-64);
    REFUSED(im, "place", section(im_, VAQ_SEC_TOKENIZER)->size = (uint64_t)-1);
    REFUSED(im, "overlap", section(im_, VAQ_SEC_TOKENIZER)->off = 256);
    REFUSED(im, "overlap", section(im_, VAQ_SEC_TOKENIZER)->off = section(im_, VAQ_SEC_META)->off);
    REFUSED(im, "padding", section(im_, VAQ_SEC_TOKENIZER)->size--);
    REFUSED(im, "padding", im_.p[header(im_)->body_off - 1] = 1);
    REFUSED(im, "config", shorten(im_, VAQ_SEC_CONFIG, 8));
    REFUSED(im, "rope", shorten(im_, VAQ_SEC_ROPE, 8));
    REFUSED(im, "table", shorten(im_, VAQ_SEC_TENSORS, 8));
    REFUSED(im, "MiB", shorten(im_, VAQ_SEC_CHUNKS, 32));
    REFUSED(im, "metadata", im_.p[section(im_, VAQ_SEC_META)->off] = 0);
    REFUSED(im, "metadata", im_.p[section(im_, VAQ_SEC_META)->off + 3] = 0x80);
    REFUSED(im, "metadata", im_.p[section(im_, VAQ_SEC_META)->off + 15] = 0x80);
    REFUSED(im, "metadata", im_.p[section(im_, VAQ_SEC_META)->off + 16] = 0xff);
    REFUSED(im, "update", im_.p[section(im_, VAQ_SEC_META)->off + 4] = 4);

    image c = image_copy(im); /* a section to be skipped: bit 31 */
    vq_err e = { 0 };
    section(c, VAQ_SEC_TOKENIZER)->id = 0x80000007u;
    reseal(c);
    vq_file *f;
    T_OK(vq_file_open_mem(&f, c.p, c.n, "mem", &kern, &e) == VQ_OK && !f->tokenizer, "%s", e.msg);
    vq_file_close(f);
    vq_aligned_free(c.p);
}

static void test_config_proofs(image im)
{
    REFUSED(im, "kv_lora is 0", config(im_)->arch = VAQ_DEEPSEEK3);
    REFUSED(im, "update vaquita", config(im_)->arch = 77);
    REFUSED(im, "update vaquita", config(im_)->template_id = 99);
    REFUSED(im, "n_layer", config(im_)->n_layer = 0);
    REFUSED(im, "n_layer", config(im_)->n_layer = VAQ_MAX_LAYERS + 1);
    REFUSED(im, "hidden", config(im_)->hidden = 0xffffffff);
    REFUSED(im, "n_head_kv", config(im_)->n_head_kv = 0);
    REFUSED(im, "multiple", config(im_)->n_head = 3, config(im_)->n_head_kv = 2);
    REFUSED(im, "v_dim", config(im_)->v_dim = 16);
    REFUSED(im, "n_vocab", config(im_)->n_vocab = 0);
    REFUSED(im, "ids", config(im_)->n_ids = 21);
    REFUSED(im, "ctx", config(im_)->ctx = 0x80000000);
    REFUSED(im, "rope", config(im_)->rope_dim = 31);
    REFUSED(im, "rope", config(im_)->rope_dim = 34);
    REFUSED(im, "rope", config(im_)->rope_dim = 16);
    REFUSED(im, "rope", ((double *)(void *)(im_.p + section(im_, VAQ_SEC_ROPE)->off))[3] = NAN);
    REFUSED(im, "rope", ((double *)(void *)(im_.p + section(im_, VAQ_SEC_ROPE)->off))[0] = 1e9);
    REFUSED(im, "eps", config(im_)->eps = 0);
    REFUSED(im, "eps", config(im_)->eps = NAN);
    REFUSED(im, "eps", config(im_)->attn_scale = INFINITY);
    REFUSED(im, "eps", config(im_)->rope_mult = -1);
    REFUSED(im, "top_p", config(im_)->top_p = NAN);
    REFUSED(im, "temperature", config(im_)->temperature = -1);
    REFUSED(im, "bos", config(im_)->bos = 20);
    REFUSED(im, "eos", config(im_)->eos = -2);
    REFUSED(im, "flags", config(im_)->flags |= 1u << 20);
    REFUSED(im, "n_expert", config(im_)->n_expert = 4);
    REFUSED(im, "zero", config(im_)->pad[25] = 1);
    REFUSED(im, "lm_head.weight: is missing", config(im_)->flags &= ~(uint32_t)VAQ_F_TIED);
    REFUSED(im, "q_norm.weight: is missing", config(im_)->flags |= VAQ_F_QK_NORM);
    REFUSED(im, "does not belong", config(im_)->flags &= ~(uint32_t)VAQ_F_QKV_BIAS);
    REFUSED(im, "layers.1.", config(im_)->n_layer = 2);
}

static void test_tensor_proofs(image im)
{
    enum { EMB = 0, OUT = 1, Q = 4 }; /* entries of the sorted table */
    T_OK(table(im)[Q].role == VAQ_Q && table(im)[OUT].role == VAQ_NORM_OUT, "the table is sorted");
    REFUSED(im, "role 99", table(im_)[12].role = 99);
    REFUSED(im, "(n3)", table(im_)[Q].type = Q_N3);
    REFUSED(im, "type 77", table(im_)[Q].type = 77);
    REFUSED(im, "f32", table(im_)[OUT].type = Q_BF16);
    REFUSED(im, "layout", table(im_)[Q].layout = 2);
    REFUSED(im, "64 x 64", table(im_)[Q].rows = 0);
    REFUSED(im, "64 x 64", table(im_)[Q].cols = 0xffffffff);
    REFUSED(im, "bytes", table(im_)[Q].size--);
    REFUSED(im, "bytes", table(im_)[Q].type = Q_L8);
    REFUSED(im, "aligned", table(im_)[Q].off += 64);
    REFUSED(im, "outside", table(im_)[Q].off = 0);
    REFUSED(im, "outside", table(im_)[Q].off = header(im_)->file_size);
    REFUSED(im, "outside", table(im_)[Q].off = (uint64_t)0 - 4096);
    REFUSED(im, "overlaps", table(im_)[Q].off = table(im_)[EMB].off);
    REFUSED(im, "layer", table(im_)[Q].layer = 1);
    REFUSED(im, "layer", table(im_)[Q].layer = 0xffff);
    REFUSED(im, "layer", table(im_)[EMB].layer = 0);
    REFUSED(im, "expert", table(im_)[Q].expert = 0);
    REFUSED(im, "weights", table(im_)[Q].params = (uint64_t)-1);
    REFUSED(im, "number", table(im_)[Q].rel_rmse = NAN);
    REFUSED(im, "zero", table(im_)[Q].pad[1] = 1);
    REFUSED(im, "order", table(im_)[EMB] = table(im_)[OUT]);
    REFUSED(im, "order", swap(&table(im_)[EMB], &table(im_)[OUT]));
    REFUSED(im, "is missing",             shorten(im_, VAQ_SEC_TENSORS, 64));
}

/* Every 4 bytes of the front, set to values that break arithmetic, all hashes right: whatever opens
 * must be safe to use. */
static void test_hostile_words(image im)
{
    static const uint32_t values[] = { 0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 0x7fc00000, 4096 };
    size_t opened = 0;
    for (size_t i = 0; i + 4 <= header(im)->body_off; i += 4) {
        for (size_t k = 0; k < sizeof values / sizeof values[0]; k++) {
            image c = image_copy(im);
            memcpy(c.p + i, &values[k], 4);
            reseal(c);
            vq_err e;
            opened += try_open(c, &e) == VQ_OK;
            vq_aligned_free(c.p);
        }
    }
    T_OK(opened > 0, "names, tokenizer bytes and hints may change (%u)", walked);
}

static void test_foreign(void)
{
    static const struct { const char *text, *part; } cases[] = {
        { "", "empty" },
        { "version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull" },
        { "GGUF\3\0\0\0", "GGUF" },
        { "\x89VAQ\n\x1a\n....", "text mode" },
        { "\x89VAQ\r\n\x1a", "cut" },
        { "PK\3\4", "not a .vaq" },
        { "hello", "not a .vaq" }
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t *p = vq_aligned(64, 64);
        vq_err e = { 0 };
        memcpy(p, cases[i].text, strlen(cases[i].text));
        image im = { p, strlen(cases[i].text) };
        T_OK(try_open(im, &e) == VQ_EFORMAT && strstr(e.msg, cases[i].part), "%zu: %s", i, e.msg);
        vq_aligned_free(p);
    }
    vq_file *f;
    vq_err e = { 0 };
    T_OK(vq_file_open(&f, "/nowhere/x.vaq", &kern, &e) == VQ_EFAIL && !f, "%s", e.msg);
    T_OK(vq_file_open(&f, dir, &kern, &e) == VQ_EFAIL && strstr(e.msg, "folder"), "%s", e.msg);
}

/* ---- a large table ---- */

/* The largest that dense models allow: 1024 layers, every role.  Only the front is real memory. */
static void test_large_table(void)
{
    enum { LAYERS = VAQ_MAX_LAYERS, PER = 13, N = LAYERS * PER + 3 };
    model m;
    make_model(&m);
    m.config.n_layer = LAYERS;
    m.config.flags = VAQ_F_QKV_BIAS | VAQ_F_QK_NORM;
    static const struct { int role; uint32_t rows, cols; int type; } rows[] = {
        { VAQ_EMBED, 20, 64, Q_L8 }, { VAQ_HEAD, 20, 64, Q_L6 }, { VAQ_NORM_OUT, 1, 64, Q_F32 },
        { VAQ_NORM_ATTN, 1, 64, Q_F32 }, { VAQ_NORM_FFN, 1, 64, Q_F32 }, { VAQ_Q, 64, 64, Q_N4 },
        { VAQ_K, 32, 64, Q_N4 }, { VAQ_V, 32, 64, Q_N4 }, { VAQ_O, 64, 64, Q_N4 },
        { VAQ_Q_BIAS, 1, 64, Q_F32 }, { VAQ_K_BIAS, 1, 32, Q_F32 }, { VAQ_V_BIAS, 1, 32, Q_F32 },
        { VAQ_Q_NORM, 1, 32, Q_F32 }, { VAQ_K_NORM, 1, 32, Q_F32 }, { VAQ_GATE_UP, 64, 64, Q_N4 },
        { VAQ_DOWN, 64, 24, Q_N4 }
    };
    const uint64_t tab = 256 + 5 * 64 + 256 + 128, chunks = tab + (uint64_t)N * 64;
    uint64_t body = 0;
    const uint64_t n_chunk_max = (uint64_t)N * 2 * 4096 / VAQ_CHUNK + 1;
    const uint64_t body_off = (chunks + n_chunk_max * 32 + 4095) / 4096 * 4096;
    size_t total = (size_t)(body_off + (uint64_t)N * 8192);
    uint8_t *p = vq_pages_alloc(total);
    vaq_tensor *t = (vaq_tensor *)(void *)(p + tab);
    size_t n = 0;
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        for (int l = 0; l < (r < 3 ? 1 : LAYERS); l++, n++) {
            int k = 0;
            model one;
            add_tensor(&one, &k, (vaq_role)rows[r].role, r < 3 ? -1 : l, rows[r].type, rows[r].rows,
                       rows[r].cols);
            t[n] = one.tensor[0];
            t[n].size = t[n].cols * sizeof(float);
            if (t[n].layout) t[n].size = q_matrix_bytes(t[n].type, t[n].rows, (int)t[n].cols);
        }
    }
    T_OK(n == N, "entries");
    for (int l = 0; l < LAYERS; l++) { /* on disk layer by layer, as the engine reads */
        for (size_t i = 0; i < n; i++) {
            if (i < 3 ? l == 0 : ((i - 3) % LAYERS == (size_t)l)) {
                t[i].off = body_off + body;
                body += (t[i].size + 4095) / 4096 * 4096;
            }
        }
    }
    vaq_header *h = (vaq_header *)(void *)p;
    *h = (vaq_header){ .version = 1, .arith = 1, .file_size = body_off + body, .body_off = body_off,
                       .body_size = body, .n_sections = 5 };
    memcpy(h->magic, VAQ_MAGIC, 8);
    vaq_section *s = (vaq_section *)(void *)(p + 256);
    s[0] = (vaq_section){ .id = VAQ_SEC_CONFIG, .off = 256 + 5 * 64, .size = sizeof(vaq_config) };
    s[1] = (vaq_section){ .id = VAQ_SEC_ROPE, .off = 256 + 5 * 64 + 256, .size = N_ROPE * 8 };
    s[2] = (vaq_section){ .id = VAQ_SEC_TENSORS, .off = tab, .size = (uint64_t)N * 64 };
    s[3] = (vaq_section){ .id = VAQ_SEC_CHUNKS, .off = chunks };
    s[3].size = (body + VAQ_CHUNK - 1) / VAQ_CHUNK * 32;
    s[4] = (vaq_section){ .id = VAQ_SEC_META, .off = (chunks + s[3].size + 63) / 64 * 64 };
    memcpy(p + s[0].off, &m.config, sizeof m.config);
    memcpy(p + s[1].off, m.rope, sizeof m.rope);
    reseal((image){ p, (size_t)h->file_size });

    vq_file *f;
    vq_err e = { 0 };
    double start = vq_now();
    vq_status st = vq_file_open_mem(&f, p, (size_t)h->file_size, "large.vaq", &kern, &e);
    double ms = (vq_now() - start) * 1e3;
    T_OK(st == VQ_OK, "%s", e.msg);
    if (!st) {
        size_t found = 0;
        for (size_t i = 0; i < n; i++) {
            int layer = t[i].layer == 0xffff ? -1 : t[i].layer;
            found += vq_file_find(f, (vaq_role)t[i].role, layer, -1) == &f->tensor[i];
        }
        T_OK(found == n, "found %zu of %zu", found, n);
        printf("t_file: %zu tensors opened in %.2f ms (%s)\n", n, ms, kern.level);
    }
    vq_file_close(f);
    vq_pages_free(p, total);
    vq_buf_clear(&m.meta);
}

/* ---- the system against us ---- */

static void test_cut_while_mapped(model *m)
{
    char path[300];
    uint8_t root[32];
    vq_file *f;
    vq_verify v;
    vq_err e = { 0 };
    scratch(path, "cut.vaq");
    T_OK(write_model(m, path, false, 4096, root, &e) == VQ_OK, "%s", e.msg);
    T_OK(vq_file_open(&f, path, &kern, &e) == VQ_OK, "%s", e.msg);
    T_OK(truncate(path, 8192) == 0, "truncate");
    T_OK(!vq_map_hurt(&f->map), "not yet seen");
    T_OK(vq_file_verify(f, &kern, NULL, NULL, NULL, &v, &e) == VQ_EFORMAT, "verify");
    T_OK(vq_map_hurt(&f->map), "seen");
    vq_verify_clear(&v);
    vq_file_close(f);
    vq_unlink(path);
}

static void test_writer_fails(model *m)
{
    char path[300];
    uint8_t root[32];
    vq_err e = { 0 };
    T_OK(write_model(m, "/nowhere/x.vaq", false, 4096, root, &e) == VQ_EFAIL, "%s", e.msg);
    T_OK(write_model(m, dir, true, 4096, root, &e) == VQ_EFAIL, "%s", e.msg);
    T_OK(write_model(m, "/dev/null", true, 4096, root, &e) == VQ_EFAIL, "%s", e.msg);

    scratch(path, "w.vaq");
    model bad = *m;
    bad.config.n_head_kv = 0;
    T_OK(write_model(&bad, path, false, 4096, root, &e) == VQ_EFORMAT, "%s", e.msg);
    bad = *m;
    bad.tensor[2].rows = 48;
    T_OK(write_model(&bad, path, false, 4096, root, &e) == VQ_EFORMAT, "%s", e.msg);

    /* A file larger than allowed stands for a full disk: the same path through the code. */
    struct rlimit old, small;
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = 20000;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    T_OK(write_model(m, path, false, 4096, root, &e) == VQ_ENOFIT, "%s", e.msg);
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, SIG_DFL);

    vq_writer_spec spec = spec_of(m, path);
    vq_writer *w;
    T_OK(vq_writer_begin(&w, &spec, &e) == VQ_OK, "%s", e.msg);
    T_OK(names_in_dir() == 3, "the unfinished file and its journal are there");
    vq_writer *other;
    T_OK(vq_writer_begin(&other, &spec, &e) == VQ_EFAIL && strstr(e.msg, "another process"), "%s",
         e.msg);
    T_OK(names_in_dir() == 3, "and stay");
    vq_writer_abort(w, true); /* nothing was committed */
    T_OK(!vq_writer_abort(NULL, true), "none");
    T_OK(names_in_dir() == 1 && !vq_file_exists(path), "no traces of failures");
}

/* Every allocation fails once, while opening and while writing. */
static void test_no_memory(model *m, const char *path)
{
    if (!vq_mem_fail_at(0)) {
        T_SKIP("failing allocations: needs a build with VQ_DEBUG");
        return;
    }
    char out[300];
    scratch(out, "m.vaq");
    vq_status s = VQ_ENOMEM;
    for (long n = 1; s && n < 100; n++) {
        vq_file *f = NULL;
        vq_verify v = { 0 };
        vq_mem_fail_at(n);
        s = vq_file_open(&f, path, &kern, NULL);
        if (!s) s = vq_file_verify(f, &kern, NULL, NULL, NULL, &v, NULL);
        vq_mem_fail_at(0);
        T_OK(s == VQ_OK || s == VQ_ENOMEM, "open %ld: %d", n, s);
        vq_verify_clear(&v);
        vq_file_close(f);
    }
    T_OK(s == VQ_OK, "opens in the end");
    s = VQ_ENOMEM;
    for (long n = 1; s && n < 100; n++) {
        uint8_t root[32];
        vq_mem_fail_at(n);
        s = write_model(m, out, false, 4096, root, NULL);
        vq_mem_fail_at(0);
        T_OK(s == VQ_OK || s == VQ_ENOMEM, "write %ld: %d", n, s);
        T_OK(names_in_dir() == (s ? 1u : 2u), "no traces");
    }
    T_OK(s == VQ_OK, "written in the end");
    vq_unlink(out);
}

static void test_sha(void)
{
    static const struct { const char *text; uint32_t first; } known[] = {
        { "", 0xe3b0c442 }, { "abc", 0xba7816bf },
        { "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 0x248d6a61 }
    };
    for (size_t i = 0; i < 3; i++) {
        vq_sha256 s;
        uint8_t h[32];
        vq_sha256_init(&s, NULL);
        vq_sha256_add(&s, known[i].text, strlen(known[i].text));
        vq_sha256_end(&s, h);
        uint32_t first = (uint32_t)h[0] << 24 | (uint32_t)h[1] << 16 | (uint32_t)h[2] << 8 | h[3];
        T_OK(first == known[i].first, "%s: %08x", known[i].text, first);
    }
    uint8_t data[300], one[32], cut[32];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)(i % 251);
    for (size_t n = 0; n <= sizeof data; n++) { /* any length, in two pieces, both kernels */
        vq_sha256 a, b;
        vq_sha256_init(&a, NULL);
        vq_sha256_add(&a, data, n);
        vq_sha256_end(&a, one);
        vq_sha256_init(&b, &kern);
        vq_sha256_add(&b, data, n / 3);
        vq_sha256_add(&b, data + n / 3, n - n / 3);
        vq_sha256_end(&b, cut);
        T_OK(memcmp(one, cut, 32) == 0, "length %zu", n);
    }
}

int main(void)
{
    char path[300];
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/vaquita_t_file_XXXXXX", tmp && *tmp ? tmp : "/tmp");
    T_OK(q_kern_make(&kern, NULL) && mkdtemp(dir), "set-up");
    scratch(path, "a.vaq");
    model m;
    make_model(&m);
    test_sha();
    test_round_trip(&m, path);
    test_same_bytes(&m, path);
    image im = image_read(path);
    if (im.n) {
        test_front(&m, im);
        test_truncations(im);
        test_flips(im);
        test_bad_list(im);
        test_overwritten(im);
        test_header_proofs(im);
        test_section_proofs(im);
        test_config_proofs(im);
        test_tensor_proofs(im);
        test_hostile_words(im);
    }
    test_foreign();
    test_large_table();
    test_cut_while_mapped(&m);
    test_writer_fails(&m);
    test_no_memory(&m, path);
    vq_aligned_free(im.p);
    vq_buf_clear(&m.meta);
    vq_unlink(path);
    rmdir(dir);
    return t_done("t_file");
}
