/* check.c - runs the cases of every op under every table and compares with the reference (qc.h).
 *
 * The list of checks is made from ops.def, so an op without one does not link.  Everything random
 * comes from (seed, op, number of the case): a failure is repeated by its op and seed alone. */
#include "quant/check/check.h"

#include "quant/check/qc.h"
#include "quant/roof.h"
#include "quant/scalar.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#if defined(__SANITIZE_ADDRESS__)
#define QC_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define QC_ASAN 1
#endif
#endif
#if defined(QC_ASAN)
#include <sanitizer/asan_interface.h>
#endif

enum {
    ARENA = 64 << 20,    /* bytes of all buffers of a case; the largest is a bench of f32 weights */
    GUARD = 64,          /* bytes of noise before and behind every output */
    POISON = 64,         /* at least so many bytes behind every buffer belong to nobody */
    MANY_BYTES = 1 << 18 /* of a call: from there on reading may be what limits it */
};
static const double BENCH_SECONDS = 0.04; /* of each rate and limit, the best of which counts */

static const struct {
    const char *name;
    void (*run)(qc *c);
    size_t slot; /* where q_kern has the op */
} checks[] = {
#define Q_OP(name) { #name, qc_##name, offsetof(q_kern, name) },
#include "quant/ops.def"
#undef Q_OP
};
enum { N_CHECKS = sizeof checks / sizeof checks[0] };

/* ---- numbers ---- */

static uint64_t mix(uint64_t z) /* splitmix64 */
{
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

uint64_t qc_rand(qc *c) { return mix(c->rng += 0x9e3779b97f4a7c15u); }

int qc_below(qc *c, int n) { return (int)((qc_rand(c) >> 32) * (uint64_t)n >> 32); }

float qc_float(qc *c, int lo, int hi)
{
    const uint32_t r = (uint32_t)(qc_rand(c) >> 32);
    const uint32_t e = (uint32_t)(127 + lo + qc_below(c, hi - lo + 1));
    return q_float((r & 0x80000000u) | e << 23 | (r & 0x7fffffu));
}

/* ---- memory ---- */

static void poison(void *p, size_t n, bool on)
{
#if defined(QC_ASAN)
    if (on) __asan_poison_memory_region(p, n);
    else __asan_unpoison_memory_region(p, n);
#else
    (void)p; (void)n; (void)on;
#endif
}

void *qc_mem(qc *c, size_t n)
{
    const size_t next = (c->used + n + POISON + 63) / 64 * 64;
    assert(next <= ARENA);
    uint8_t *p = c->mem + c->used;
    poison(p, n, false);
    memset(p, 0xff, n); /* NaN in every float type: a value that was forgotten shows */
    c->used = next;
    return p;
}

/* Bytes read past the end of a buffer must not matter; where no sanitizer sees the read, they are
 * NaN for this case and noise for the next. */
static void reset(qc *c)
{
    poison(c->mem, c->used, false);
    memset(c->mem, c->n_case & 1 ? 0xff : 0x5b, c->used);
    c->used = 0;
    c->n_out = 0;
    poison(c->mem, ARENA, true);
}

void *qc_out(qc *c, size_t n)
{
    assert(c->n_out < QC_OUTS);
    qc_outbuf *o = &c->out[c->n_out++];
    o->n = n + 2 * GUARD;
    o->p = qc_mem(c, o->n);
    o->start = qc_mem(c, o->n);
    o->want = qc_mem(c, o->n);
    for (size_t i = 0; i < o->n; i++) o->p[i] = (uint8_t)(i % 251 + 3);
    return o->p + GUARD;
}

void *qc_tmp(qc *c) { return qc_mem(c, Q_TMP); }

float *qc_floats(qc *c, int n, int fill)
{
    float *x = (float *)qc_mem(c, ((size_t)n + 1) * sizeof *x) + 1;
    qc_fill(c, x, n, fill);
    return x;
}

/* ---- fills ---- */

const char *const qc_fill_name[QC_FILLS] = { "normal", "wide", "equal", "zero",
                                             "hot",    "tiny", "huge",  "ties" };
const char *const qc_wfill_name[QC_W_FILLS] = { "random", "low", "high",     "ends",
                                                "zero",   "hot", "denormal", "large" };
const char *const qc_afill_name[QC_A_FILLS] = { "random", "+127", "-127", "ends", "zero", "hot" };

void qc_fill(qc *c, float *x, int n, int fill)
{
    const float level = qc_float(c, -3, 3);
    for (int i = 0; i < n; i++) {
        float v = 0.0f;
        switch (fill) {
        case QC_NORMAL:
            v = (float)(qc_below(c, 2001) + qc_below(c, 2001) - 2000) * 0x1.4p-9f;
            break;
        case QC_WIDE: v = qc_float(c, -40, 20); break;
        case QC_EQUAL: v = level; break;
        case QC_TINY:
            v = qc_below(c, 4) ? qc_float(c, -104, -98) : qc_float(c, -126, -120) * 0x1p-10f;
            break;
        case QC_HUGE: v = qc_float(c, 30, 50); break;
        case QC_TIES: v = (float)(qc_below(c, 255) - 127) + (i % 5 ? 0.5f : 0.0f); break;
        default: break;
        }
        x[i] = v;
    }
    if (n > 0 && fill == QC_HOT) x[qc_below(c, n)] = level;
    /* 127 in every block makes the scale 1 and the halves exact ties. */
    for (int i = 0; fill == QC_TIES && i < n; i++)
        if (i % 16 == 5) x[i] = 127.0f;
        else if (x[i] > 126.5f) x[i] = 126.5f;
}

static uint8_t code8(qc *c, int fill)
{
    switch (fill) {
    case QC_W_LOW: return (uint8_t)-127;
    case QC_W_HIGH: return 127;
    case QC_W_ENDS: return (uint8_t)(qc_below(c, 2) ? 127 : -127);
    case QC_W_ZERO: case QC_W_HOT: return 0;
    default: return (uint8_t)(qc_below(c, 255) - 127);
    }
}

/* Bytes of planes of unsigned codes: the grids begin with code 0 and end with all ones. */
static uint8_t code_bits(qc *c, int fill, uint8_t zero)
{
    switch (fill) {
    case QC_W_LOW: return 0;
    case QC_W_HIGH: return 0xff;
    case QC_W_ENDS: return (uint8_t)((qc_below(c, 2) ? 0xf0 : 0) | (qc_below(c, 2) ? 0x0f : 0));
    case QC_W_ZERO: return 0;
    case QC_W_HOT: return zero;
    default: return (uint8_t)qc_rand(c);
    }
}

static float row_scale(qc *c, int fill)
{
    switch (fill) {
    case QC_W_ZERO: return 0.0f;
    case QC_W_DENORMAL: return q_float((uint32_t)qc_below(c, 1 << 23));
    case QC_W_LARGE: return qc_float(c, 50, 60);
    default: { const float v = qc_float(c, -12, -6); return v < 0 ? -v : v; }
    }
}

static void float_weights(qc *c, int type, uint8_t *p, size_t n, int fill)
{
    const size_t size = type == Q_F32 ? 4 : 2;
    const size_t hot = (size_t)qc_below(c, (int)(n / size));
    for (size_t i = 0; i < n / size; i++) {
        float v;
        switch (fill) {
        case QC_W_LOW: v = -1.75f; break;
        case QC_W_HIGH: v = 1.75f; break;
        case QC_W_ENDS: v = qc_below(c, 2) ? 1.99f : -1.99f; break;
        case QC_W_ZERO: v = 0.0f; break;
        case QC_W_HOT: v = i == hot ? 1.5f : 0.0f; break;
        case QC_W_DENORMAL: v = qc_float(c, -24, -14); break; /* denormal as F16, see below */
        case QC_W_LARGE: v = qc_float(c, 8, 14); break;
        default: v = qc_float(c, -8, 1); break;
        }
        if (fill == QC_W_DENORMAL && type != Q_F16) v *= 0x1p-112f;
        if (type == Q_F32) { memcpy(p + 4 * i, &v, 4); continue; }
        const uint16_t h = type == Q_F16 ? q_f32_to_f16(v) : q_f32_to_bf16(v);
        memcpy(p + 2 * i, &h, 2);
    }
}

/* positive: sub-scales as in K rows, 0..127. */
void qc_weights(qc *c, int type, void *w, int rows, int k, int fill, bool positive)
{
    const q_typeinfo *info = q_type_info(type);
    const size_t bytes = q_group_bytes(type, k);
    uint8_t *p = w;
    for (int g = 0; g < (rows + 15) / 16; g++, p += bytes) {
        if (info->is_float) {
            float_weights(c, type, p, bytes, fill);
            continue;
        }
        for (int r = 0; r < Q_ROWS; r++) {
            const float s = row_scale(c, fill);
            memcpy(p + 4 * r, &s, 4);
        }
        for (size_t at = 64; at < bytes; at += (size_t)info->tile_bytes) {
            uint8_t *tile = p + at;
            for (int i = 0; i < 64; i++) {
                const int s = (int8_t)code8(c, fill == QC_W_HOT ? QC_W_RANDOM : fill);
                tile[i] = (uint8_t)(positive && s < 0 ? -s : s);
            }
            for (int i = 64; i < info->tile_bytes; i++) {
                /* Zero is code 8 of N4; code 32 of L6: low plane 0, high plane 2.  Others have
                 * none. */
                const uint8_t zero = type != Q_L6 ? 0x88 : i < 64 + 512 ? 0 : 0xaa;
                tile[i] = type == Q_L8 ? code8(c, fill) : code_bits(c, fill, zero);
            }
        }
        if (fill == QC_W_HOT) p[64 + 64 + qc_below(c, (int)bytes - 128)] ^= 0x31;
    }
}

void qc_acts(qc *c, q_acts *a, int M, int k, int fill)
{
    q_acts_init(a, qc_mem(c, q_acts_bytes(M, k)), M, k);
    const size_t n = (size_t)a->kt * (size_t)M;
    for (size_t i = 0; i < n * Q_TILE; i++) {
        int q = 0;
        switch (fill) {
        case QC_A_RANDOM: q = qc_below(c, 255) - 127; break;
        case QC_A_PLUS: q = 127; break;
        case QC_A_MINUS: q = -127; break;
        case QC_A_ENDS: q = qc_below(c, 2) ? 127 : -127; break;
        default: break;
        }
        a->q[i] = (int8_t)q;
    }
    if (fill == QC_A_HOT) a->q[(size_t)qc_below(c, (int)n * Q_TILE)] = 127;
    for (size_t i = 0; i < n; i++) {
        const float d = qc_float(c, -8, -2);
        a->d[i] = fill == QC_A_ZERO ? 0.0f : d < 0 ? -d : d;
        for (int s = 0; s < 4; s++) {
            int32_t sum = 0;
            for (int j = 0; j < 16; j++) sum -= a->q[i * Q_TILE + (size_t)(16 * s + j)];
            a->nsum[4 * i + (size_t)s] = sum;
        }
    }
}

/* ---- cases ---- */

static uint64_t hash(const char *s)
{
    uint64_t h = 1469598103934665603u;
    for (; *s; s++) h = (h ^ (uint8_t)*s) * 1099511628211u;
    return h;
}

void qc_case(qc *c, const char *fmt, ...)
{
    reset(c);
    c->timing = false;
    c->rng = mix(c->seed ^ hash(c->op)) + (uint64_t)c->n_case++;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(c->what, sizeof c->what, fmt, ap);
    va_end(ap);
}

bool qc_bench(qc *c, int rate, double bytes, double macs)
{
    if (!c->bench) return false;
    c->timing = true;
    c->rate = rate;
    c->bytes = bytes;
    c->macs = macs;
    c->int8 = false;
    return true;
}

static double now(void)
{
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void start(qc *c)
{
    c->best = 1e30;
    c->spent = 0;
    c->round = 0;
    c->batch = 1;
    c->t0 = c->timing ? now() : 0;
}

const q_kern *qc_begin(qc *c)
{
    for (int i = 0; i < c->n_out; i++) memcpy(c->out[i].start, c->out[i].p, c->out[i].n);
    c->at = 0;
    start(c);
    return &c->level[0].kern;
}

static void failed(qc *c, qc_level *l, int out, size_t byte)
{
    if (l->failed++ >= 3 || !c->say) return;
    const qc_outbuf *o = &c->out[out];
    char line[400];
    uint32_t got = 0, want = 0;
    const size_t word = byte & ~(size_t)3, left = o->n - word < 4 ? o->n - word : 4;
    memcpy(&got, o->p + word, left);
    memcpy(&want, o->want + word, left);
    const char *where = byte < GUARD || byte >= o->n - GUARD ? " (outside the output)" : "";
    int n = snprintf(line, sizeof line, "%s %s: %s: output %d, byte %ld%s: ", c->op, l->kern.level,
                     c->what, out, (long)byte - GUARD, where);
    snprintf(line + n, sizeof line - (size_t)n, "%08x (%g), ref %08x (%g); seed %llu",
             (unsigned)got, (double)q_float(got), (unsigned)want, (double)q_float(want),
             (unsigned long long)c->seed);
    c->say(c->ctx, line);
}

static void compare(qc *c, qc_level *l)
{
    l->cases++;
    for (int i = 0; i < c->n_out; i++) {
        const qc_outbuf *o = &c->out[i];
        if (!memcmp(o->p, o->want, o->n)) continue;
        size_t at = 0;
        while (o->p[at] == o->want[at]) at++;
        failed(c, l, i, at);
        return;
    }
}

/* Another round of the same table while there is time?  Rounds are timed in batches long enough for
 * any clock (1 ms); the best batch counts. */
static bool again(qc *c)
{
    if (++c->round < c->batch) return true;
    const double t = now() - c->t0;
    c->spent += t;
    if (t < 1e-3 && c->spent < 0.5) {
        c->batch *= 2;
    } else if (t / c->batch < c->best) {
        c->best = t / c->batch;
    }
    c->round = 0;
    c->t0 = now();
    return c->best > 1e29 || c->spent < BENCH_SECONDS;
}

/* GB/s of the level's reading loop over as many bytes as the kernel's, again and again as there, so
 * from the same cache or memory; 0: no memory for them. */
static double read_limit(const qc *c, const q_roof *r)
{
    const size_t n = (size_t)c->bytes / 512 * 512;
    uint8_t *mem = malloc(n + 64);
    if (!mem) return 0;
    memset(mem, 1, n + 64);
    double best = 1e30, spent = 0;
    while (spent < BENCH_SECONDS) {
        const double t = now();
        (void)r->read(mem + (64 - (uintptr_t)mem % 64) % 64, n);
        const double s = now() - t;
        spent += s;
        if (s > 0 && s < best) best = s;
    }
    free(mem);
    return 1e-9 * (double)n / best;
}

static double int8_limit(const q_roof *r)
{
    uint32_t sink = 1;
    double best = 0, spent = 0;
    while (spent < BENCH_SECONDS) {
        const double t = now();
        const double macs = (double)r->int8(20000, &sink), s = now() - t;
        spent += s;
        if (s > 0 && macs / s > best) best = macs / s;
    }
    return 1e-9 * best;
}

/* The limits right behind the kernel they belong to: those of shared machines wander. */
static void measure_limits(const qc *c, qc_level *l)
{
    if (l == &c->level[0]) return; /* the reference strives for none */
    q_roof r;
    q_roof_make(&r, l->kern.level);
    if (c->bytes >= MANY_BYTES) l->read[c->rate] = read_limit(c, &r);
    if (c->int8 && c->macs > 0) l->int8[c->rate] = int8_limit(&r);
}

const q_kern *qc_next(qc *c)
{
    qc_level *l = &c->level[c->at];
    if (c->timing) {
        if (again(c)) return &l->kern;
        l->gb[c->rate] = 1e-9 * c->bytes / c->best;
        l->gmac[c->rate] = 1e-9 * c->macs / c->best;
        measure_limits(c, l);
    } else if (c->at == 0) {
        for (int i = 0; i < c->n_out; i++) memcpy(c->out[i].want, c->out[i].p, c->out[i].n);
    } else {
        compare(c, l);
    }
    while (++c->at < c->n_level)
        if (c->level[c->at].run) break;
    if (c->at >= c->n_level) return NULL;
    for (int i = 0; i < c->n_out; i++) memcpy(c->out[i].p, c->out[i].start, c->out[i].n);
    start(c);
    return &c->level[c->at].kern;
}

/* ---- the run ---- */

static int put_rate(char *to, size_t room, double rate, const char *unit, double limit,
                    const char *of)
{
    if (rate <= 0) return 0;
    if (limit <= 0) return snprintf(to, room, "  %.1f %s", rate, unit);
    return snprintf(to, room, "  %.1f %s (%.0f %% of %s)", rate, unit, 100 * rate / limit, of);
}

static void report(qc *c, const qc_level *l)
{
    if (!c->say) return;
    char line[250];
    int n = snprintf(line, sizeof line, "%-12s %-11s ", c->op, l->kern.level);
    if (l == &c->level[0]) n += snprintf(line + n, sizeof line - (size_t)n, "reference");
    else if (l->failed)
        n += snprintf(line + n, sizeof line - (size_t)n, "%d of %d FAILED", l->failed, l->cases);
    else n += snprintf(line + n, sizeof line - (size_t)n, "%d equal", l->cases);
    for (int i = 0; i < QC_RATES; i++) {
        n += put_rate(line + n, sizeof line - (size_t)n, l->gb[i], "GB/s", l->read[i], "read");
        n += put_rate(line + n, sizeof line - (size_t)n, l->gmac[i], "GMAC/s", l->int8[i], "int8");
    }
    c->say(c->ctx, line);
}

static bool same_kernel(const qc_level *a, const qc_level *b, size_t slot)
{
    return !memcmp((const char *)&a->kern + slot, (const char *)&b->kern + slot,
                   sizeof(void (*)(void)));
}

static bool open_levels(qc *c, const char *only)
{
    const char *names[8];
    const int n = q_cpu_levels(names);
    q_kern_make(&c->level[c->n_level++].kern, "ref");
    bool found = !only;
    for (int i = 0; i < n; i++) {
        if (only && strcmp(only, names[i]) != 0) continue;
        found = true;
        if (i > 0 && q_kern_make(&c->level[c->n_level].kern, names[i])) c->n_level++;
    }
    return found;
}

static void run_op(qc *c, int i)
{
    c->op = checks[i].name;
    c->n_case = 0;
    for (int a = 0; a < c->n_level; a++) {
        qc_level *l = &c->level[a];
        l->cases = l->failed = 0;
        l->run = true; /* a kernel inherited from a lower level has been checked there */
        for (int b = 0; b < a; b++)
            if (same_kernel(l, &c->level[b], checks[i].slot)) l->run = false;
        for (int r = 0; r < QC_RATES; r++) l->gb[r] = l->gmac[r] = l->read[r] = l->int8[r] = 0;
    }
    checks[i].run(c);
    for (int a = 0; a < c->n_level; a++)
        if (c->level[a].run && (a > 0 || c->bench)) report(c, &c->level[a]);
}

int q_check(const q_check_opts *o, int *n_cases)
{
    int bad = 0, found = 0;
    *n_cases = 0;
    qc *c = calloc(1, sizeof *c);
    uint8_t *mem = malloc(ARENA + 64);
    const bool room = c && mem;
    if (room && open_levels(c, o->level)) {
        c->mem = mem + (64 - (uintptr_t)mem % 64) % 64;
        c->seed = o->seed;
        c->bench = o->bench;
        c->say = o->say;
        c->ctx = o->ctx;
        for (int i = 0; i < N_CHECKS; i++) {
            if (o->op && !strstr(checks[i].name, o->op)) continue;
            found++;
            run_op(c, i);
            for (int a = 1; a < c->n_level; a++) {
                bad += c->level[a].failed;
                *n_cases += c->level[a].cases;
            }
        }
        poison(c->mem, ARENA, false);
    }
    free(mem);
    free(c);
    return !room ? -2 : found ? bad : -1;
}
