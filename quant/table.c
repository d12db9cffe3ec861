/* table.c - one table of kernels per CPU level.
 *
 * A level is a name, the CPU bit it needs and its fillers.  Its table is the reference overwritten
 * by every level up to it that was built and that this CPU has, so a filler replaces only what it
 * does better and nobody above ever asks about CPUs. */
#include "quant/table.h"

#include <string.h>

typedef bool filler(q_kern *t);

static const struct level {
    const char *name;
    uint32_t bit;
    filler *fill[5];
} levels[] = { /* rising within each architecture */
    { "avx2", Q_CPU_AVX2,
      { q_fill_gemm_avx2, q_fill_attn_avx2, q_fill_vec_avx2, q_fill_enc_avx2 } },
    { "avxvnni", Q_CPU_AVXVNNI, { q_fill_gemm_avxvnni, q_fill_attn_avxvnni } },
    { "avx512vnni", Q_CPU_AVX512VNNI,
      { q_fill_gemm_avx512vnni, q_fill_attn_avx512vnni, q_fill_vec_avx512vnni,
        q_fill_enc_avx512vnni } },
    { "avx512vbmi", Q_CPU_AVX512VBMI, { q_fill_gemm_avx512vbmi } },
    { "amx", Q_CPU_AMX, { q_fill_gemm_amx, q_fill_attn_amx } },
    { "neon", Q_CPU_NEON,
      { q_fill_vec_neon, q_fill_gemmf_neon, q_fill_gemm_neon, q_fill_attn_neon,
        q_fill_enc_neon } },
    { "dotprod", Q_CPU_DOTPROD, { q_fill_gemm_dotprod, q_fill_attn_dotprod } },
    { "i8mm", Q_CPU_I8MM, { q_fill_gemm_i8mm, q_fill_attn_i8mm } },
};
enum { N_LEVELS = sizeof levels / sizeof levels[0] };

/* Instructions beside the levels: every level but ref uses them when the CPU has them. */
static const struct level extras[] = {
    { "shani", Q_CPU_SHANI, { q_fill_sha_shani } },
    { "armsha2", Q_CPU_ARMSHA2, { q_fill_sha_armsha2 } },
};
enum { N_EXTRAS = sizeof extras / sizeof extras[0] };

/* True if this build has any kernel of the level.  Only for a level that this CPU has: a filler is
 * compiled with its level's flags, and compilers do store pointers with its widest registers. */
static bool fill(q_kern *t, const struct level *l)
{
    bool any = false;
    for (int i = 0; i < 5 && l->fill[i]; i++) any |= l->fill[i](t);
    return any;
}

uint32_t q_cpu_usable(void)
{
    const uint32_t have = q_cpu_detect();
    q_kern scratch;
    uint32_t r = 0;
    for (int i = 0; i < N_LEVELS; i++)
        if (have & levels[i].bit && fill(&scratch, &levels[i])) r |= levels[i].bit;
    for (int i = 0; i < N_EXTRAS; i++)
        if (have & extras[i].bit && fill(&scratch, &extras[i])) r |= extras[i].bit;
    return r;
}

int q_cpu_levels(const char *names[8])
{
    const uint32_t have = q_cpu_usable();
    int n = 0;
    names[n++] = "ref";
    for (int i = 0; i < N_LEVELS; i++)
        if (have & levels[i].bit) names[n++] = levels[i].name;
    return n;
}

static void make(q_kern *t, const char *level)
{
    const uint32_t have = q_cpu_detect();
    memset(t, 0, sizeof *t);
    q_fill_ref(t);
    t->level = level;
    if (!strcmp(level, "ref")) return;
    for (int i = 0; i < N_LEVELS; i++) {
        if (have & levels[i].bit && fill(t, &levels[i])) t->cpu |= levels[i].bit;
        if (!strcmp(levels[i].name, level)) break;
    }
    for (int i = 0; i < N_EXTRAS; i++)
        if (have & extras[i].bit && fill(t, &extras[i])) t->cpu |= extras[i].bit;
}

bool q_kern_make(q_kern *t, const char *level)
{
    const char *names[8];
    const int n = q_cpu_levels(names);
    int at = n - 1;
    const bool named = level && *level && strcmp(level, "auto") != 0;
    if (named)
        for (at = 0; at < n && strcmp(names[at], level) != 0;) at++;
    if (at == n) return false;

    make(t, names[at]);
    if (!named && t->cpu & Q_CPU_I8MM) { /* a core may have smmla and do sdot faster */
        q_kern base;
        make(&base, names[at - 1]);
        const float gain = q_probe_gain(&base, t);
        if (gain > 0 && gain < 1) *t = base;
        t->smmla = gain;
    }
    return true;
}

q_gemm q_gemm_for(const q_kern *t, int type)
{
    switch (type) {
    case Q_F32: return (q_gemm){ .f = t->gemm_f32 };
    case Q_F16: return (q_gemm){ .f = t->gemm_f16 };
    case Q_BF16: return (q_gemm){ .f = t->gemm_bf16 };
    case Q_L8: return (q_gemm){ .a8 = t->gemm_l8 };
    case Q_L6: return (q_gemm){ .a8 = t->gemm_l6 };
    case Q_N5: return (q_gemm){ .a8 = t->gemm_n5 };
    case Q_N4: return (q_gemm){ .a8 = t->gemm_n4 };
    case Q_N4S: return (q_gemm){ .a8 = t->gemm_n4s };
    case Q_P6: return (q_gemm){ .a8 = t->gemm_p6 };
    case Q_P5: return (q_gemm){ .a8 = t->gemm_p5 };
    default: return (q_gemm){ NULL, NULL };
    }
}
