#!/bin/sh
# arm_count.sh - instructions and modelled cycles of AArch64 kernels, on any machine.
#
#   bench/arm_count.sh                            the table of bench/ARM.md
#   bench/arm_count.sh kernel LEVEL TYPE ROWS K TOKENS
#   bench/arm_count.sh encode LEVEL TYPE K        16 rows of a matrix to codes
#   bench/arm_count.sh attend LEVEL OP DIMS QUERIES  attn_qk8, attn_pv8, attn_qkl8 of 256 positions
#   bench/arm_count.sh program WORK COMMAND...    any static AArch64 program that calls, around what
#                                                 is to be counted, functions of its own named
#                                                 count_begin and count_end; WORK: what to divide by
#
# Instructions are counted, not estimated: qemu-user runs the program one instruction at a time and
# writes down each address (-d exec; works without plugin support).  The 5000 in the middle, which
# are inner loops with branches taken as they were, go through llvm-mca for each model: a core with
# every load in the first level of cache and every branch predicted.  Their cycles per instruction
# stand for the whole call.  Prints the instructions per 1000 units of work, and the work per cycle
# of each model.
#
# Needs aarch64-linux-gnu-gcc (or CC), its objdump, qemu-aarch64-static, llvm-mca 22 (older ones lack
# models; without it only instructions are counted).  Environment: CC, MCA, QEMU, CORES.
set -u
cd "$(dirname "$0")/.." || exit 1
CC=${CC:-aarch64-linux-gnu-gcc}
QEMU=${QEMU:-qemu-aarch64-static}
OBJDUMP=${OBJDUMP:-aarch64-linux-gnu-objdump}
CORES=${CORES:-neoverse-n1 cortex-a72 cortex-a510 neoverse-n2 apple-m1}
BUILD=${BUILD:-build}/count
export LC_ALL=C

die() { echo "arm_count.sh: $*" >&2; exit 1; }
for need in "$CC" "$QEMU" "$OBJDUMP"; do
    command -v ${need%% *} >/dev/null || die "no $need; it is needed"
done
if [ -z "${MCA:-}" ]; then
    for m in llvm-mca-22 llvm-mca; do
        if command -v $m >/dev/null; then MCA=$m; break; fi
    done
fi
one=-singlestep # the name of the option until qemu 8.1
$QEMU -h 2>&1 | grep -q one-insn-per-tb && one=-one-insn-per-tb
mkdir -p "$BUILD" || exit 1

driver() { # one call of an op, or of the encoder; what it unpacks, packs and stores is counted too
    cat <<'EOF'
#include "quant/quant.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void count_begin(void);
void count_end(void);
__attribute__((noinline)) void count_begin(void) { __asm__ volatile("" ::: "memory"); }
__attribute__((noinline)) void count_end(void) { __asm__ volatile("nop" ::: "memory"); }

static void *memory(size_t n)
{
    void *p = aligned_alloc(64, (n + 63) / 64 * 64);
    if (!p) exit(1);
    memset(p, 1, n); /* no kernel looks at values */
    return p;
}

static int encode(const q_kern *t, int type, int k)
{
    float *w = memory((size_t)Q_ROWS * (size_t)k * sizeof *w);
    void *out = memory(q_group_bytes(type, k));
    double err2[2];
    uint32_t seed = 1;
    for (int i = 0; i < Q_ROWS * k; i++) { /* near to a normal distribution, as weights are */
        w[i] = 0;
        for (int j = 0; j < 6; j++) w[i] += (float)((seed = seed * 1664525 + 1013904223) >> 8);
        w[i] -= 6 * 0x1p23f;
    }
    count_begin();
    q_encode_group(t, type, out, w, (size_t)k, Q_ROWS, k, NULL, err2);
    count_end();
    return 0;
}

static int attend(const q_kern *t, const char *op, int dims, int m)
{
    enum { LORA = 512 };
    int nvis[64];
    q_acts q;
    void *k = memory(q_lat_bytes(1024, 1024) + q_kv_k_bytes(Q_KV_8, dims));
    float *s = memory((size_t)m * Q_PIECE * sizeof *s), *o = memory((size_t)(m * dims) * sizeof *o);
    if (m < 1 || m > 64) return 2;
    for (int j = 0; j < m; j++) nvis[j] = Q_PIECE;
    q_acts_init(&q, memory(q_acts_bytes(2 * m, dims)), 2 * m, dims);
    for (int j = 0; j < m * Q_PIECE; j++) s[j] = 0.5f;
    count_begin();
    if (!strcmp(op, "attn_qk8")) t->attn_qk8(s, Q_PIECE, k, 16, &q, 0, m, 1.0f);
    else if (!strcmp(op, "attn_qkl8"))
        t->attn_qkl8(s, Q_PIECE, k, LORA, dims - LORA, 16, &q, 0, m, 1.0f);
    else t->attn_pv8(o, (size_t)dims, k, dims, s, Q_PIECE, nvis, m);
    count_end();
    return 0;
}

int main(int argc, char **argv)
{
    q_kern t;
    if (argc < 4 || argc > 6) {
        fprintf(stderr, "usage: count LEVEL (TYPE ROWS K TOKENS | TYPE K | OP DIMS QUERIES)\n");
        return 2;
    }
    if (argc == 5 && q_kern_make(&t, argv[1]))
        return attend(&t, argv[2], atoi(argv[3]), atoi(argv[4]));
    const q_typeinfo *type = q_type_by_name(argv[2]);
    if (!q_kern_make(&t, argv[1]) || !type || !q_gemm_for(&t, type->id).a8) {
        fprintf(stderr, "count: no level %s or no integer type %s\n", argv[1], argv[2]);
        return 1;
    }
    if (argc == 4) return encode(&t, type->id, atoi(argv[3]));
    const int rows = atoi(argv[3]), k = atoi(argv[4]), tokens = atoi(argv[5]);
    void *w = memory((size_t)q_matrix_bytes(type->id, (uint64_t)rows, k)), *tmp = memory(Q_TMP);
    float *y = memory((size_t)rows * (size_t)tokens * sizeof *y);
    q_acts x;
    q_acts_init(&x, memory(q_acts_bytes(tokens, k)), tokens, k);
    q_gemm_a8_fn *gemm = q_gemm_for(&t, type->id).a8;
    count_begin();
    gemm(y, (size_t)rows, w, rows, &x, 0, tokens, tmp);
    count_end();
    return 0;
}
EOF
}

build() { # the driver with the kernels, each file with its flags as in build.sh
    driver >"$BUILD/count.new"
    cmp -s "$BUILD/count.new" "$BUILD/count.c" || cp "$BUILD/count.new" "$BUILD/count.c"
    objects=
    for f in quant/*.c quant/arm/*.c quant/x86/*.c "$BUILD/count.c"; do
        case $f in
        *_dotprod.c) isa=-march=armv8.2-a+dotprod ;;
        *_i8mm.c) isa=-march=armv8.2-a+dotprod+i8mm ;;
        *_armsha2.c) isa=-march=armv8-a+crypto ;;
        *) isa= ;;
        esac
        o=$BUILD/$(echo "${f%.c}" | tr / _).o
        objects="$objects $o"
        [ -f "$o" ] && [ -z "$(find quant -newer "$o" -name '*.[hd]*')" ] &&
            [ -z "$(find "$f" -newer "$o")" ] && continue
        $CC -std=c11 -I. -O2 -ffp-contract=off $isa -c -o "$o" "$f" || die "cannot compile $f"
    done
    $CC -static -o "$BUILD/count" $objects -lm || die "cannot link the driver"
}

# Prints "instructions cycles cycles ...", a column for each core.
trace() { # command...
    $OBJDUMP -d --no-show-raw-insn "$1" >"$BUILD/text" || die "cannot disassemble $1"
    $QEMU $one -d nochain,exec -D "$BUILD/trace" "$@" >/dev/null || die "$* failed"
    # Addresses become text; targets of branches are left out, what the model sees is one line of
    # instructions.
    awk -v text="$BUILD/text" '
        BEGIN {
            while ((getline line <text) > 0) {
                if (line !~ /^ *[0-9a-f]+:\t/) continue
                at = line; sub(/^ */, "", at); sub(/:.*/, "", at)
                sub(/^[^\t]*\t/, "", line)
                sub(/ *\/\/.*/, "", line)
                sub(/ *<.*/, "", line)
                split(line, f, "\t")
                if (f[1] ~ /^(b|bl|b\..*)$/) line = f[1] == "bl" ? "b\t#8" : f[1] "\t#8"
                else if (f[1] ~ /^(cbz|cbnz|tbz|tbnz)$/) sub(/, *[0-9a-f]+$/, ", #8", line)
                else if (f[1] ~ /^(adr|adrp)$/) sub(/, *[0-9a-f]+$/, ", #0", line)
                else if (f[1] ~ /^(ret|br|blr)$/) line = "b\t#8"
                of[at] = line
            }
        }
        $NF == "count_end" { exit }
        $NF == "count_begin" { on = 1; next }
        on { split($4, a, "/"); at = a[2]; sub(/^0+/, "", at); print of[at] }
    ' "$BUILD/trace" >"$BUILD/line.s"
    rm -f "$BUILD/trace"
    n=$(wc -l <"$BUILD/line.s")
    [ "$n" -gt 0 ] || die "$1: nothing between count_begin and count_end"
    printf '%s' "$n"
    part=5000
    [ "$n" -gt $part ] || part=$n
    tail -n +$(((n - part) / 2 + 1)) "$BUILD/line.s" | head -n "$part" >"$BUILD/part.s"
    for core in $CORES; do
        [ -n "${MCA:-}" ] || break
        c=$($MCA -mtriple=aarch64 -mcpu="$core" -mattr=+dotprod,+i8mm,+fullfp16,+sve2 -iterations=1 \
            -instruction-info=0 -resource-pressure=0 "$BUILD/part.s" 2>"$BUILD/mca.err" |
            sed -n 's/^Total Cycles: *//p')
        printf ' %s' $((${c:-0} * (n / 100) / part * 100))
    done
    echo
}

report() { # name, work, command...
    name=$1 work=$2
    shift 2
    trace "$@" | awk -v name="$name" -v work="$work" '{
        printf "%-34s %7.0f", name, 1000 * $1 / work
        for (i = 2; i <= NF; i++) printf " %11s", ($i > 0 ? sprintf(work > 0.1 * $i ? "%.2f" : "%.4f", work / $i) : "-")
        print ""
    }'
}

kernel() { # level type rows k tokens
    report "$1 $2 $3x$4, $5 token$([ "$5" = 1 ] || echo s)" $(($3 * $4 * $5)) \
        "$BUILD/count" "$@"
}

encode() { # level type k
    report "$1 $2 encoder, 16x$3" $((16 * $3)) "$BUILD/count" "$@"
}

attend() { # level op dims queries
    report "$1 $2 of $3, $4 queries" $((256 * $3 * $4)) "$BUILD/count" "$@"
}

header() {
    printf '%-34s %7s' "" "instr"
    for core in $CORES; do printf ' %11s' "$core"; done
    echo
}

case ${1:-all} in
all)
    build
    header
    for tokens in 1 4 64; do
        for level in neon dotprod i8mm; do
            for type in l8 l6 n5 n4 n4s; do kernel $level $type 64 1024 $tokens; done
        done
    done ;;
kernel)
    shift
    [ $# = 5 ] || die "kernel LEVEL TYPE ROWS K TOKENS"
    build
    header
    kernel "$@" ;;
encode)
    shift
    [ $# = 3 ] || die "encode LEVEL TYPE K"
    build
    header
    encode "$@" ;;
attend)
    shift
    [ $# = 4 ] || die "attend LEVEL OP DIMS QUERIES"
    build
    header
    attend "$@" ;;
program)
    shift
    [ $# -ge 2 ] || die "program WORK COMMAND..."
    work=$1
    shift
    header
    report "$(basename "$1")" "$work" "$@" ;;
*) sed -n '2,/^set -u/s/^# \{0,1\}//p' "$0" ;;
esac
