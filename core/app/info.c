/* info.c - `vaquita info`: what is in a file, or what this build can do.
 *
 * Everything is gathered as one JSON object; the text for people is that object printed line by
 * line, so the two cannot tell different things. */
#include "convert/convert.h"
#include "core/app/app.h"
#include "core/base/os.h"
#include "core/file/check.h"
#include "core/file/file.h"
#include "core/vaquita.h"

#include <stdio.h>
#include <string.h>

static const args_opt options[] = { { .kind = ARGS_END } };

/* ---- a container ---- */

static void put_str(vq_jw *w, const char *key, vq_str s)
{
    if (s.p) vq_jw_str(w, key, s.p, s.n);
    else vq_jw_cstr(w, key, NULL);
}

static void put_types(vq_jw *w, const vq_file *f)
{
    vq_jw_open(w, "types", '{');
    for (int id = 0; id < 256; id++) {
        uint64_t n = 0, bytes = 0, params = 0;
        for (uint32_t i = 0; i < f->n_tensor; i++) {
            if (f->tensor[i].type != id) continue;
            n++;
            bytes += f->tensor[i].size;
            params += f->tensor[i].params;
        }
        const q_typeinfo *t = q_type_info(id);
        if (!n || !t) continue;
        vq_jw_open(w, t->name, '{');
        vq_jw_u64(w, "tensors", n);
        vq_jw_u64(w, "params", params);
        vq_jw_u64(w, "bytes", bytes);
        vq_jw_f64(w, "bpw", params ? 8.0 * (double)bytes / (double)params : 0);
        vq_jw_close(w, '}');
    }
    vq_jw_close(w, '}');
}

static void put_quality(vq_jw *w, const vq_file *f)
{
    static const char prefix[] = "quality.";
    vq_jw_open(w, "quality", '{');
    vq_meta m;
    for (size_t pos = 0; vq_file_meta_next(f, &pos, &m);) {
        char key[64];
        const size_t n = sizeof prefix - 1;
        const bool ours = m.key.n > n && m.key.n - n < sizeof key && !memcmp(m.key.p, prefix, n);
        if (!ours) continue;
        memcpy(key, m.key.p + n, m.key.n - n);
        key[m.key.n - n] = 0;
        if (m.type == VAQ_META_F64) vq_jw_f64(w, key, m.f64);
        else if (m.type == VAQ_META_U64) vq_jw_u64(w, key, m.u64);
        else put_str(w, key, m.text);
    }
    vq_jw_close(w, '}');
}

/* How far the weights of each matrix are from the checkpoint's: what encoding lost. */
static void put_errors(vq_jw *w, const vq_file *f)
{
    vq_jw_open(w, "tensors", '[');
    for (uint32_t i = 0; i < f->n_tensor; i++) {
        const vaq_tensor *t = &f->tensor[i];
        const q_typeinfo *type = q_type_info(t->type);
        char name[96];
        if (t->layout == VAQ_VECTOR) continue;
        vq_tensor_name(name, t);
        vq_jw_open(w, NULL, '{');
        vq_jw_cstr(w, "name", name);
        vq_jw_cstr(w, "type", type ? type->name : NULL);
        vq_jw_f64(w, "rel_rmse", (double)t->rel_rmse);
        vq_jw_close(w, '}');
    }
    vq_jw_close(w, ']');
}

static void put_container(vq_jw *w, const vq_file *f)
{
    const vaq_config *c = f->config;
    uint64_t params = 0, bits = 0;
    for (uint32_t i = 0; i < f->n_tensor; i++) {
        params += f->tensor[i].params;
        bits += 8 * f->tensor[i].size;
    }
    vq_jw_cstr(w, "arch", vq_arch_name(c->arch));
    put_str(w, "name", vq_file_meta(f, "name"));
    vq_jw_u64(w, "params", params);
    vq_jw_u64(w, "layers", c->n_layer);
    vq_jw_u64(w, "hidden", c->hidden);
    vq_jw_u64(w, "heads", c->n_head);
    vq_jw_u64(w, "kv_heads", c->n_head_kv);
    vq_jw_u64(w, "head_dim", c->head_dim);
    if (c->n_expert) {
        vq_jw_u64(w, "experts", c->n_expert);
        vq_jw_u64(w, "experts_used", c->n_expert_used);
        vq_jw_u64(w, "mtp_layers", c->n_mtp);
    }
    vq_jw_u64(w, "vocab", c->n_vocab);
    vq_jw_u64(w, "ctx", c->ctx);
    vq_jw_f64(w, "bpw", params ? (double)bits / (double)params : 0);
    vq_jw_u64(w, "bytes", f->header->file_size);
    vq_jw_u64(w, "arith", f->header->arith);
    vq_jw_u64(w, "version", f->header->version);
    put_types(w, f);
    vq_jw_cstr(w, "template", vq_template_name(c->template_id));
    vq_jw_bool(w, "tokenizer", f->tokenizer != NULL);
    vq_jw_open(w, "source", '{');
    static const char *const keys[] = {
        "source", "source_sha256", "distill_of", "licence", "recipe", "rules", "tool",
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const vq_str s = vq_file_meta(f, keys[i]);
        if (s.p) put_str(w, keys[i], s);
    }
    vq_jw_close(w, '}');
    put_errors(w, f);
    put_quality(w, f);
    char hex[65];
    vq_hex32(hex, f->header->root);
    vq_jw_cstr(w, "sha256", hex);
}

/* ---- this build ---- */

#if defined(__clang__)
#define COMPILER "clang " __clang_version__
#elif defined(__GNUC__)
#define COMPILER "gcc " __VERSION__
#else
#define COMPILER "unknown"
#endif

static void put_features(vq_jw *w)
{
    static const struct { uint32_t bit; const char *name; } all[] = {
        { Q_CPU_AVX2, "avx2" }, { Q_CPU_AVXVNNI, "avxvnni" }, { Q_CPU_AVX512VNNI, "avx512vnni" },
        { Q_CPU_AVX512VBMI, "avx512vbmi" }, { Q_CPU_AMX, "amx" }, { Q_CPU_SHANI, "shani" },
        { Q_CPU_NEON, "neon" }, { Q_CPU_DOTPROD, "dotprod" },
        { Q_CPU_I8MM, "i8mm" }, { Q_CPU_ARMSHA2, "armsha2" },
    };
    const uint32_t has = q_cpu_detect();
    vq_jw_open(w, "features", '[');
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (has & all[i].bit) vq_jw_cstr(w, NULL, all[i].name);
    }
    vq_jw_close(w, ']');
}

/* For every operation the level its kernel comes from: the lowest with the same one. */
static void put_kernels(vq_jw *w, const q_kern *used)
{
    const char *names[8];
    q_kern level[8];
    const int n = q_cpu_levels(names);
    for (int i = 0; i < n; i++) q_kern_make(&level[i], names[i]);
    vq_jw_open(w, "kernels", '{');
    const char *from;
#define Q_OP(op) \
    from = "ref"; \
    for (int i = n - 1; i >= 0; i--) { \
        if (level[i].op == used->op) from = names[i]; \
    } \
    vq_jw_cstr(w, #op, from);
#include "quant/ops.def"
#undef Q_OP
    vq_jw_close(w, '}');
}

static void put_build(vq_jw *w, const char *cpu, float smmla)
{
    q_kern used;
    const char *names[8];
    const int n = q_cpu_levels(names);
    q_kern_make(&used, cpu);
    vq_jw_cstr(w, "version", VQ_VERSION);
    vq_jw_cstr(w, "compiler", COMPILER);
    vq_jw_open(w, "levels", '[');
    for (int i = 0; i < n; i++) vq_jw_cstr(w, NULL, names[i]);
    vq_jw_close(w, ']');
    put_features(w);
    vq_jw_i64(w, "threads", vq_cpu_fast_count());
    vq_jw_i64(w, "cpus", vq_cpu_count());
    vq_jw_u64(w, "memory", vq_mem_available());
    vq_jw_u64(w, "arith", VAQ_ARITH);
    const char *wrong = q_selftest();
    vq_jw_cstr(w, "selftest", wrong ? wrong : "ok");
    if (smmla > 0) {
        char line[80];
        snprintf(line, sizeof line, "%.2f x sdot, timed at start: %s", (double)smmla,
                 smmla < 1 ? "not used" : "used");
        vq_jw_cstr(w, "smmla", line);
    }
    put_kernels(w, &used);
}

/* ---- the object as text ---- */

static void put_value(vq_buf *out, const vq_json *j, uint32_t v)
{
    const vq_str s = j->node[v].s;
    switch (vq_json_type(j, v)) {
    case VQ_JNULL: vq_buf_str(out, "none"); break;
    case VQ_JTRUE: vq_buf_str(out, "yes"); break;
    case VQ_JFALSE: vq_buf_str(out, "no"); break;
    case VQ_JARR:
    case VQ_JOBJ: {
        const bool object = vq_json_type(j, v) == VQ_JOBJ;
        const char *sep = "";
        for (uint32_t k = vq_json_first(j, v); k; k = vq_json_next(j, v, k)) {
            vq_buf_str(out, sep);
            if (object) {
                put_value(out, j, k);
                vq_buf_char(out, ' ');
                k = vq_json_next(j, v, k);
            }
            put_value(out, j, k);
            sep = ", ";
        }
        break;
    }
    case VQ_JNUM: {
        double x;
        if (memchr(s.p, '.', s.n) && vq_json_f64(j, v, &x)) vq_buf_printf(out, "%.4g", x);
        else vq_buf_add(out, s.p, s.n);
        break;
    }
    case VQ_JSTR:
        for (size_t i = 0; i < s.n; i++) { /* names come from files: no control characters */
            if (s.p[i] == '\n') { /* of a recipe; indented it passes for nothing else */
                if (i + 1 < s.n) vq_buf_str(out, "\n            ");
                continue;
            }
            vq_buf_char(out, (unsigned char)s.p[i] < 32 || s.p[i] == 127 ? '?' : s.p[i]);
        }
        break;
    }
}

/* Kernels all of one level are many words for one: groups "level: op op op". */
static void put_grouped(vq_buf *out, const vq_json *j, uint32_t v)
{
    const char *names[8];
    const int n = q_cpu_levels(names);
    for (int i = 0; i < n; i++) {
        size_t start = out->n;
        bool any = false;
        for (uint32_t k = vq_json_first(j, v); k; k = vq_json_next(j, v, k)) {
            const vq_str op = vq_json_str(j, k);
            k = vq_json_next(j, v, k);
            if (!vq_str_eq(vq_json_str(j, k), names[i])) continue;
            if (!any) vq_buf_printf(out, "kernels     %s:", names[i]);
            any = true;
            if (out->n - start + op.n >= 79) {
                vq_buf_str(out, "\n           ");
                start = out->n - 11;
            }
            vq_buf_char(out, ' ');
            vq_buf_add(out, op.p, op.n);
        }
        if (any) vq_buf_char(out, '\n');
    }
}

/* Of all matrices those that lost most: "worst  n4s model.layers...: relative error 0.0741". */
static void put_worst(vq_buf *out, const vq_json *j, uint32_t v)
{
    enum { WORST = 5 };
    struct { double err; uint32_t at; } worst[WORST + 1] = { 0 };
    for (uint32_t k = vq_json_first(j, v); k; k = vq_json_next(j, v, k)) {
        double x = 0;
        int i = WORST;
        vq_json_f64(j, vq_json_get(j, k, "rel_rmse"), &x);
        for (; i && x > worst[i - 1].err; i--) worst[i] = worst[i - 1];
        worst[i].err = x;
        worst[i].at = k;
    }
    for (int i = 0; i < WORST && worst[i].err > 0; i++) {
        const vq_str type = vq_json_str(j, vq_json_get(j, worst[i].at, "type"));
        const vq_str name = vq_json_str(j, vq_json_get(j, worst[i].at, "name"));
        vq_buf_printf(out, "worst       %.*s %.*s: relative error %.4f\n", (int)type.n, type.p,
                      (int)name.n, name.p, worst[i].err);
    }
}

/* The label.  false: there are other figures, of another writer. */
static bool put_card(vq_buf *out, const vq_json *j, uint32_t v)
{
    double kl, p99, top1, tokens;
    const vq_str sha = vq_json_str(j, vq_json_get(j, v, "text_sha256"));
    const uint32_t text = vq_json_get(j, v, "text"), ctx = vq_json_get(j, v, "ctx");
    const uint32_t chunks = vq_json_get(j, v, "chunks");
    if (!vq_json_first(j, v)) {
        vq_buf_str(out, "quality     not measured; convert with --card TEXT\n");
        return true;
    }
    if (!vq_json_f64(j, vq_json_get(j, v, "kl"), &kl) || sha.n < 12 ||
        !vq_json_f64(j, vq_json_get(j, v, "kl_p99"), &p99) ||
        !vq_json_f64(j, vq_json_get(j, v, "top1"), &top1) ||
        !vq_json_f64(j, vq_json_get(j, v, "tokens"), &tokens) || !text || !ctx || !chunks) {
        return false;
    }
    vq_buf_printf(out, "quality     kl from its source %.6f nats per token, p99 %.6f\n"
                  "quality     same first token %.2f %%\n"
                  "quality     measured on %.0f tokens of ", kl, p99, 100 * top1, tokens);
    put_value(out, j, text);
    vq_buf_str(out, " (");
    put_value(out, j, chunks);
    vq_buf_str(out, " chunks of ");
    put_value(out, j, ctx);
    vq_buf_printf(out, ", ids sha256 %.12s)\n", sha.p);
    return true;
}

static vq_status print_text(app *a, const vq_buf *json, vq_err *e)
{
    vq_json j;
    vq_buf out = { 0 };
    vq_status st = vq_json_parse(&j, json->p, json->n, "info", e);
    if (st) return st;
    for (uint32_t k = vq_json_first(&j, 0); k; k = vq_json_next(&j, 0, k)) {
        const vq_str key = vq_json_str(&j, k);
        k = vq_json_next(&j, 0, k);
        const bool object = vq_json_type(&j, k) == VQ_JOBJ;
        if (vq_str_eq(key, "tensors") && vq_json_type(&j, k) == VQ_JARR) {
            put_worst(&out, &j, k);
            continue;
        }
        if (vq_str_eq(key, "quality") && object && put_card(&out, &j, k)) continue;
        if (vq_json_type(&j, k) == VQ_JNULL || (object && !vq_json_first(&j, k))) continue;
        if (vq_str_eq(key, "kernels") && object) {
            put_grouped(&out, &j, k);
            continue;
        }
        if (!object) {
            vq_buf_printf(&out, "%-11.*s ", (int)key.n, key.p);
            put_value(&out, &j, k);
            int64_t bytes;
            if ((vq_str_eq(key, "bytes") || vq_str_eq(key, "memory")) &&
                vq_json_i64(&j, k, &bytes) && bytes > 0) {
                char size[16];
                vq_fmt_size(size, (uint64_t)bytes);
                vq_buf_printf(&out, " (%s)", size);
            }
            vq_buf_char(&out, '\n');
            continue;
        }
        for (uint32_t m = vq_json_first(&j, k); m; m = vq_json_next(&j, k, m)) {
            vq_buf_printf(&out, "%-11.*s ", (int)key.n, key.p);
            put_value(&out, &j, m);
            m = vq_json_next(&j, k, m);
            vq_buf_str(&out, ": ");
            put_value(&out, &j, m);
            vq_buf_char(&out, '\n');
        }
    }
    if (out.oom) st = vq_fail(e, VQ_ENOMEM, "out of memory for the output");
    else app_put(a, out.p ? out.p : "", out.n);
    vq_buf_clear(&out);
    vq_json_clear(&j);
    return st;
}

/* ---- the verb ---- */

static bool is_checkpoint(const char *path)
{
    const char *dot = strrchr(path, '.');
    return vq_is_dir(path) || (dot && (!strcmp(dot, ".safetensors") || !strcmp(dot, ".gguf")));
}

static vq_status gather(const app *a, const char *path, vq_buf *json, vq_err *e)
{
    if (path && is_checkpoint(path)) {
        const vq_status st = cv_describe(path, json, e);
        if (st) return st;
        json->p[--json->n] = 0; /* its object is whole; the level is a fact of this run */
        vq_buf_printf(json, ",\"cpu\":\"%s\"}", a->level);
        return json->oom ? vq_fail(e, VQ_ENOMEM, "out of memory for the output") : VQ_OK;
    }
    vq_jw w = { .b = json };
    vq_file *f = NULL;
    if (path) {
        q_kern kern;
        q_kern_make(&kern, a->cpu);
        const vq_status st = vq_file_open(&f, path, &kern, e);
        if (st) return st;
    }
    vq_jw_open(&w, NULL, '{');
    if (f) put_container(&w, f);
    else put_build(&w, a->cpu, a->smmla);
    vq_jw_cstr(&w, "cpu", a->level);
    vq_jw_close(&w, '}');
    vq_file_close(f);
    return json->oom ? vq_fail(e, VQ_ENOMEM, "out of memory for the output") : VQ_OK;
}

static vq_status info(app *a, const void *opts, char **arg, int n_arg, vq_err *e)
{
    (void)opts;
    vq_buf json = { 0 };
    vq_status st = gather(a, n_arg ? arg[0] : NULL, &json, e);
    if (!st) st = a->json ? app_put_json(a, &json, e) : print_text(a, &json, e);
    vq_buf_clear(&json);
    return st;
}

const app_verb app_verb_info = {
    "info", "[FILE]", "what is in a .vaq, .gguf, .safetensors or folder of them",
    "Without FILE: this build and this CPU; the first lines of any report.\n"
    "Example:\n"
    "  vaquita info model.vaq\n",
    options, NULL, 0, 0, 1, info,
};
