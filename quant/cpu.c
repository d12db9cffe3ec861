/* cpu.c - which instruction sets this CPU has and the operating system lets us use.
 *
 * A bit here is necessary, not sufficient: the kernels must also have been built (table.c).  Bits
 * bundle what the files of one suffix are compiled with, see build.sh. */
#include "quant/quant.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

#include <cpuid.h>

#if defined(__linux__)
#include <sys/syscall.h>

extern long syscall(long number, ...); /* unistd.h hides it from plain C11 */

/* Linux gives the 8 KB of AMX state to processes that ask before the first use.  Asking again is
 * harmless; all threads are meant, also those that run already. */
static bool amx_allowed(void)
{
    enum { REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18 };
    return syscall(SYS_arch_prctl, (long)REQ_XCOMP_PERM, (long)XTILEDATA) == 0;
}
#else
static bool amx_allowed(void) { return false; } /* each system asks in its own way, or not at all */
#endif

/* Which register files the OS saves: without it AVX state is lost at the next switch. */
static uint64_t xgetbv0(void)
{
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

static bool has(uint32_t reg, uint32_t bits) { return (reg & bits) == bits; }

uint32_t q_cpu_detect(void)
{
    uint32_t a, b, c, d, b7 = 0, c7 = 0, d7 = 0, a71 = 0, r = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
    const uint32_t c1 = c;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        const uint32_t leaves = a;
        b7 = b;
        c7 = c;
        d7 = d;
        if (leaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) a71 = a;
    }
    if (has(b7, 1u << 29) && has(c1, 1u << 9 | 1u << 19)) r |= Q_CPU_SHANI; /* SHA, SSSE3, SSE4.1 */
    if (!has(c1, 1u << 27)) return r;                                       /* OSXSAVE */
    const uint64_t os = xgetbv0();
    if ((os & 0x06) != 0x06) return r;                                      /* xmm, ymm */
    if (!has(b7, 1u << 5)) return r;                                        /* AVX2 */
    if (!has(c1, 1u << 12 | 1u << 29 | 1u << 28)) return r;                 /* FMA F16C AVX */
    r |= Q_CPU_AVX2;
    if (has(a71, 1u << 4)) r |= Q_CPU_AVXVNNI;
    if ((os & 0xe6) == 0xe6 && has(c7, 1u << 11) &&                         /* opmask, zmm; VNNI */
        has(b7, 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31))                 /* F DQ BW VL */
        r |= Q_CPU_AVX512VNNI;
    if (r & Q_CPU_AVX512VNNI && has(c7, 1u << 1)) r |= Q_CPU_AVX512VBMI;
    if (r & Q_CPU_AVX512VBMI && has(d7, 1u << 24 | 1u << 25) && (os >> 17 & 3) == 3 /* TILE INT8 */
        && amx_allowed())
        r |= Q_CPU_AMX;
    return r;
}

#elif defined(__aarch64__) && defined(__linux__)

#include <sys/auxv.h>

uint32_t q_cpu_detect(void)
{
    /* Numbers of the kernel's ABI; older headers lack the later ones. */
    const unsigned long sha2 = 1ul << 6, asimddp = 1ul << 20, i8mm = 1ul << 13;
    const unsigned long cap = getauxval(16 /* AT_HWCAP */), cap2 = getauxval(26 /* AT_HWCAP2 */);
    uint32_t r = Q_CPU_NEON;
    if (cap & sha2) r |= Q_CPU_ARMSHA2;
    if (cap & asimddp) r |= Q_CPU_DOTPROD;
    if (cap & asimddp && cap2 & i8mm) r |= Q_CPU_I8MM;
    return r;
}

#elif defined(__aarch64__) && defined(__APPLE__)

#include <sys/sysctl.h>

static bool feature(const char *name)
{
    int v = 0;
    size_t n = sizeof v;
    return sysctlbyname(name, &v, &n, NULL, 0) == 0 && v;
}

uint32_t q_cpu_detect(void)
{
    uint32_t r = Q_CPU_NEON | Q_CPU_ARMSHA2; /* every Apple core of this architecture has both */
    if (feature("hw.optional.arm.FEAT_DotProd")) r |= Q_CPU_DOTPROD;
    if (r & Q_CPU_DOTPROD && feature("hw.optional.arm.FEAT_I8MM")) r |= Q_CPU_I8MM;
    return r;
}

#elif defined(__aarch64__)

uint32_t q_cpu_detect(void) { return Q_CPU_NEON; }

#else

uint32_t q_cpu_detect(void) { return 0; }

#endif
