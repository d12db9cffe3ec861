/* plan_cmd.c - `vaquita plan`: what fits where, before converting or downloading.
 *
 * The arithmetic is convert/sizes.h's; here are the sources, the machine and the tables. */
#include "bench/bench.h"
#include "convert/sizes.h"
#include "core/app/app.h"
#include "core/base/os.h"
#include "core/file/file.h"
#include "core/file/shapes.h"

#include <string.h>

typedef struct plan_opts {
    uint64_t ram;           /* 0: the available memory */
    int64_t ctx;            /* 0: 4096, and 32768 beside it */
    double mem_gbs, disk_gbs; /* 0: measured; 2 */
    int device;             /* index of devices, -1: this machine */
} plan_opts;

static const args_opt options[] = {
    { ARGS_SIZE, "--ram", "SIZE", offsetof(plan_opts, ram), 1 << 20, 1e15, NULL,
      "memory for model and cache (what is available)" },
    { ARGS_INT, "--ctx", "N", offsetof(plan_opts, ctx), 1, 1 << 24, NULL,
      "positions (4096, and 32768 beside it)" },
    { ARGS_REAL, "--mem-gbs", "X", offsetof(plan_opts, mem_gbs), 0.01, 1e5, NULL,
      "memory read, GB/s (measured here)" },
    { ARGS_REAL, "--disk-gbs", "X", offsetof(plan_opts, disk_gbs), 0.001, 1e4, NULL,
      "disk read, GB/s (2)" },
    { ARGS_CHOICE, "--device", "NAME", offsetof(plan_opts, device), 0, 0,
      "pi4|pi5|phone|zen4|zen5|lunarlake|m4",
      "its --mem-gbs: pi4 pi5 phone zen4 zen5 lunarlake m4" },
    { .kind = ARGS_END },
};

/* GB/s that all cores together reach, not the sheet's: kernels.md 11, from published runs of
 * llama.cpp and ik_llama.cpp; the middle where a range is given. */
static const double device_gbs[] = { 3.9, 12.4, 50, 63, 84, 95, 100 };

/* In the order of size, auto last. */
static const int types[] = { Q_P5, Q_P6, Q_N4S, Q_N4, Q_N5, Q_L6, Q_L8, Q_BF16, -1 };
enum { MAX_TYPES = sizeof types / sizeof types[0], MAX_CTX = 2 };

typedef struct row {
    const char *type;
    cv_sizes s;
} row;

typedef struct plan {
    vaq_config c;
    char note[256];
    row row[MAX_TYPES];
    int n_row;
    uint32_t ctx[MAX_CTX];
    int n_ctx;
    cv_machine m;
    bool ram_given, measured, disk_given;
} plan;

static const char *const fit_names[] = { "no", "streams", "yes" };

/* ---- the source ---- */

static bool ends_in(const char *s, const char *end)
{
    const size_t n = strlen(s), k = strlen(end);
    return n >= k && !strcmp(s + n - k, end);
}

static vq_status add_container(plan *p, const app *a, const char *path, vq_err *e)
{
    vq_file *f;
    q_kern kern;
    q_kern_make(&kern, a->cpu);
    const vq_status st = vq_file_open(&f, path, &kern, e);
    if (st) return st;
    p->c = *f->config;
    row *r = &p->row[p->n_row++];
    r->type = "file";
    cv_sizes_of_table(&r->s, &p->c, f->tensor, f->n_tensor);
    r->s.file = f->header->file_size;
    vq_file_close(f);
    return VQ_OK;
}

static vq_status add_rows(plan *p, const app *a, const char *src, vq_err *e)
{
    double rope[VAQ_MAX_HEAD_DIM / 2];
    if (ends_in(src, ".vaq")) return add_container(p, a, src, e);
    cv_sizes nearest = { 0 };
    if (vq_is_dir(src) || ends_in(src, ".safetensors") || ends_in(src, ".gguf")) {
        const vq_status st = cv_source_config(&p->c, &nearest, p->note, src, e);
        if (st) return st;
    } else if (!vq_shape_config(&p->c, rope, src)) {
        return vq_fail(e, VQ_EUSAGE, "'%s' is no folder, no .vaq, .gguf or .safetensors and none "
                       "of the names: " VQ_SHAPE_NAMES, src);
    }
    for (int i = 0; i < MAX_TYPES; i++) {
        const q_typeinfo *t = types[i] < 0 ? NULL : q_type_info(types[i]);
        if (types[i] >= 0 && (!t || !t->known)) continue;
        row *r = &p->row[p->n_row++];
        r->type = t ? t->name : "auto";
        if (!t && nearest.params) r->s = nearest;
        else cv_sizes_of_config(&r->s, &p->c, types[i]);
    }
    return VQ_OK;
}

/* ---- the machine ---- */

static vq_status set_contexts(plan *p, const plan_opts *o, vq_err *e)
{
    if (o->ctx > (int64_t)p->c.ctx) {
        return vq_fail(e, VQ_EUSAGE, "--ctx %lld: the model is made for %u positions",
                       (long long)o->ctx, p->c.ctx);
    }
    p->ctx[p->n_ctx++] = o->ctx ? (uint32_t)o->ctx : p->c.ctx < 4096 ? p->c.ctx : 4096;
    if (!o->ctx && p->c.ctx >= 32768) p->ctx[p->n_ctx++] = 32768;
    return VQ_OK;
}

static vq_status set_machine(plan *p, const app *a, const plan_opts *o, vq_err *e)
{
    p->ram_given = o->ram;
    p->disk_given = o->disk_gbs > 0;
    p->m.ram = o->ram ? o->ram : vq_mem_available();
    p->m.disk_gbs = o->disk_gbs > 0 ? o->disk_gbs : 2;
    p->m.mem_gbs = o->mem_gbs > 0 ? o->mem_gbs : o->device >= 0 ? device_gbs[o->device] : 0;
    if (p->m.mem_gbs > 0) return VQ_OK;
    p->measured = true;
    return bn_read_speed(&p->m.mem_gbs, (int)a->threads, a->cpu, e);
}

/* ---- machines by the memory they are sold with ---- */

static const uint32_t sold_gib[] = { 64, 128, 192, 256, 384, 512 };
enum { N_SOLD = sizeof sold_gib / sizeof sold_gib[0], SYSTEM_GIB = 4 };

/* The largest type that stays in memory, else the one that streams fastest; NULL: none runs. */
static const row *best_for(const plan *p, uint32_t gib, cv_fit *fit, double *tps)
{
    const row *best = NULL;
    const cv_machine m = { .ram = (uint64_t)(gib - SYSTEM_GIB) << 30, .mem_gbs = p->m.mem_gbs,
                           .disk_gbs = p->m.disk_gbs };
    *fit = CV_FIT_NO;
    *tps = 0;
    for (int i = 0; i < p->n_row; i++) {
        const row *r = &p->row[i];
        double t;
        const cv_fit f = cv_expect(&t, &r->s, &m, p->ctx[0]);
        const bool better = f != *fit ? f > *fit
                          : f == CV_FIT_YES ? r->s.file > best->s.file : t > *tps;
        if (!better) continue;
        best = r;
        *fit = f;
        *tps = t;
    }
    return best;
}

static bool sold_wanted(const plan *p)
{
    return p->c.n_expert && !p->ram_given;
}

/* ---- output ---- */

static void write_json(vq_buf *out, const plan *p, const app *a, const char *src)
{
    vq_jw w = { .b = out };
    cv_fit fit;
    double tps;
    vq_jw_open(&w, NULL, '{');
    vq_jw_cstr(&w, "model", src);
    vq_jw_u64(&w, "params", p->row[0].s.params);
    vq_jw_u64(&w, "ram", p->m.ram);
    vq_jw_f64(&w, "mem_gbs", p->m.mem_gbs);
    vq_jw_f64(&w, "disk_gbs", p->m.disk_gbs);
    if (p->note[0]) vq_jw_cstr(&w, "note", p->note);
    vq_jw_open(&w, "rows", '[');
    for (int i = 0; i < p->n_row; i++) {
        for (int k = 0; k < p->n_ctx; k++) {
            const row *r = &p->row[i];
            fit = cv_expect(&tps, &r->s, &p->m, p->ctx[k]);
            vq_jw_open(&w, NULL, '{');
            vq_jw_cstr(&w, "type", r->type);
            vq_jw_u64(&w, "file_bytes", r->s.file);
            vq_jw_u64(&w, "body_bytes", r->s.body);
            vq_jw_u64(&w, "ram_bytes", cv_memory(&r->s, p->ctx[k]));
            vq_jw_u64(&w, "token_bytes", r->s.token + r->s.token_experts);
            vq_jw_u64(&w, "ctx", p->ctx[k]);
            vq_jw_f64(&w, "expected_tps", tps);
            vq_jw_cstr(&w, "fits", fit_names[fit]);
            vq_jw_close(&w, '}');
        }
    }
    vq_jw_close(&w, ']');
    if (sold_wanted(p)) {
        vq_jw_open(&w, "machines", '[');
        for (int i = 0; i < N_SOLD; i++) {
            const row *r = best_for(p, sold_gib[i], &fit, &tps);
            vq_jw_open(&w, NULL, '{');
            vq_jw_u64(&w, "ram_bytes", (uint64_t)sold_gib[i] << 30);
            vq_jw_cstr(&w, "type", r ? r->type : NULL);
            vq_jw_f64(&w, "expected_tps", tps);
            vq_jw_cstr(&w, "fits", fit_names[fit]);
            vq_jw_close(&w, '}');
        }
        vq_jw_close(&w, ']');
    }
    vq_jw_cstr(&w, "cpu", a->level);
    vq_jw_close(&w, '}');
}

static void write_text(vq_buf *out, const plan *p, const char *src)
{
    char size[16];
    cv_fit fit;
    double tps;
    vq_fmt_size(size, p->m.ram);
    const double millions = (double)p->row[0].s.params / 1e6;
    const bool large = millions >= 1000;
    vq_buf_printf(out, "%s: %.2f %c weights\n", src, large ? millions / 1000 : millions,
                  large ? 'G' : 'M');
    if (p->note[0]) vq_buf_printf(out, "%s\n", p->note);
    vq_buf_printf(out, "memory %s (%s), %.1f GB/s (%s); disk %.1f GB/s (%s)\n\n", size,
                  p->ram_given ? "given" : "available here", p->m.mem_gbs,
                  p->measured ? "measured" : "given", p->m.disk_gbs,
                  p->disk_given ? "given" : "assumed");
    vq_buf_printf(out, "%-5s %9s", "type", "file");
    for (int k = 0; k < p->n_ctx; k++) {
        vq_buf_printf(out, "  | ctx %-5u fits     tok/s", p->ctx[k]);
    }
    vq_buf_char(out, '\n');
    for (int i = 0; i < p->n_row; i++) {
        const row *r = &p->row[i];
        vq_fmt_size(size, r->s.file);
        vq_buf_printf(out, "%-5s %9s", r->type, size);
        for (int k = 0; k < p->n_ctx; k++) {
            fit = cv_expect(&tps, &r->s, &p->m, p->ctx[k]);
            vq_fmt_size(size, cv_memory(&r->s, p->ctx[k]));
            vq_buf_printf(out, "  | %9s %-7s %6.*f", size, fit_names[fit], tps < 10 ? 2 : 1, tps);
        }
        vq_buf_char(out, '\n');
    }
    if (!sold_wanted(p)) return;
    vq_buf_printf(out, "\nmachines by memory, %d GB of it left to the system, ctx %u:\n",
                  SYSTEM_GIB, p->ctx[0]);
    for (int i = 0; i < N_SOLD; i++) {
        const row *r = best_for(p, sold_gib[i], &fit, &tps);
        vq_buf_printf(out, "%4u GB  %-5s %-18s %6.*f tok/s\n", sold_gib[i], r ? r->type : "-",
                      fit == CV_FIT_YES       ? "in memory"
                      : fit == CV_FIT_STREAMS ? "experts from disk"
                                              : "does not run",
                      tps < 10 ? 2 : 1, tps);
    }
}

static vq_status run_plan(app *a, const void *opts, char **arg, int n_arg, vq_err *e)
{
    const plan_opts *o = opts;
    plan p = { 0 };
    vq_buf out = { 0 };
    (void)n_arg;
    vq_status st = add_rows(&p, a, arg[0], e);
    if (!st) st = set_contexts(&p, o, e);
    if (!st) st = set_machine(&p, a, o, e);
    if (st) return st;
    if (a->json) write_json(&out, &p, a, arg[0]);
    else write_text(&out, &p, arg[0]);
    if (out.oom) st = vq_fail(e, VQ_ENOMEM, "out of memory for the output");
    else if (a->json) st = app_put_json(a, &out, e);
    else app_put(a, out.p, out.n);
    vq_buf_clear(&out);
    return st;
}

static const plan_opts defaults = { .device = -1 };

const app_verb app_verb_plan = {
    "plan", "SRC", "what fits where, before converting or downloading",
    "SRC: a Hugging Face folder (config.json is enough), a .gguf, a .vaq, or a name:\n"
    "as published, DeepSeek-R1-Distill-Qwen-7B, or one of\n"
    VQ_SHAPE_NAMES ".\n"
    "Memory is weights and int8 cache.  Speed is the limit that memory and disk set.\n"
    "What is larger than memory streams: experts through a cache, else the excess.\n"
    "Example:\n"
    "  vaquita plan r1 --device zen5 --disk-gbs 6\n",
    options, &defaults, sizeof defaults, 1, 1, run_plan,
};
