#!/bin/sh
# build.sh - builds, tests and checks vaquita.  Needs POSIX sh and a C11 compiler, nothing else.
#
#   ./build.sh                 build/vaquita
#   ./build.sh demo            from here to an answered question, told step by step
#   ./build.sh test [names]    every test, or those whose names start so
#   ./build.sh check [op]      every kernel this CPU has against the reference, bit for bit
#   ./build.sh bench [args]    this machine's limits and, with a model or --shape, its speed
#   ./build.sh asan | tsan     the same under sanitizers, in build/asan and build/tsan
#   ./build.sh fuzz PARSER S   random input for one parser for S seconds (no name: lists them)
#   ./build.sh lint            the rules of the tree that a compiler does not check
#   ./build.sh cross [names]   AArch64 build, checks and the same under qemu-user
#   ./build.sh plain           the one-line build without this script's flags, in build/plain
#   ./build.sh clean
#
# Environment: CC (cc), CFLAGS, LDFLAGS (added last), BUILD (build), JOBS (CPUs), DEBUG=1 (symbols,
# not stripped), WERROR=1, VQ_RUN (what to start programs with: an emulator), VQ_SHARED (folder of
# large fixtures some tests want), VQ_TEST_SECONDS (a test that takes longer has failed: 1200).
#
# A file's name says which instructions it may use: NAME_avx2.c is compiled with -mavx2 ... if the
# compiler can, and is an empty stub otherwise; which levels run is decided at start by the CPU.
set -u
cd "$(dirname "$0")" || exit 1

CC=${CC:-cc}
BUILD=${BUILD:-build}
JOBS=${JOBS:-$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)}
RUN=${VQ_RUN:-}
ISAS="avx2 avxvnni avx512vnni avx512vbmi amx shani dotprod i8mm armsha2" # suffixes of files with own flags
export LC_ALL=C

say() { printf '%s\n' "$*" >&2; }
die() { say "build.sh: $*"; exit 1; }

# Every file of the program; listed once, so that what is linked is what was compiled.
SOURCES=$(for f in quant/*.c quant/*/*.c core/*/*.c convert/*.c bench/*.c; do
    if [ -f "$f" ]; then printf '%s\n' "$f"; fi
done)

# ---- what this compiler can do, asked once per compiler and set of flags ----

try() { # flags: does a file that uses nothing compile with them, silently?
    $CC $CFLAGS_USER -Werror "$@" -c -o "$BUILD/probe/t.o" "$BUILD/probe/t.c" >/dev/null 2>&1
}
try_link() {
    $CC $CFLAGS_USER "$@" -o "$BUILD/probe/t" "$BUILD/probe/t.c" $LDFLAGS_USER >/dev/null 2>&1
}
first_of() { # prints the flags if the compiler takes them
    if try "$@"; then printf ' %s' "$*"; fi
}

probe() { # sets CPU, BASE, STRICT, SMALL, LINK, DEPS and ISA_* ; cached in $BUILD/probe/flags
    CFLAGS_USER=${CFLAGS:-} LDFLAGS_USER=${LDFLAGS:-}
    key="$CC|$CFLAGS_USER|$LDFLAGS_USER|${DEBUG:-}|${WERROR:-}"
    key="$key|$($CC --version 2>/dev/null | head -n 1)"
    mkdir -p "$BUILD/probe" "$BUILD/obj" || exit 1
    if [ -f "$BUILD/probe/flags" ] && [ "$(head -n 1 "$BUILD/probe/flags")" = "# $key" ] &&
        [ ! build.sh -nt "$BUILD/probe/done" ]; then
        . "$BUILD/probe/flags"
        return
    fi
    printf 'int main(void) { return 0; }\n' >"$BUILD/probe/t.c"
    $CC $CFLAGS_USER -c -o "$BUILD/probe/t.o" "$BUILD/probe/t.c" ||
        die "the compiler '$CC' does not work; set CC to a C11 compiler"
    try -std=c11 || die "'$CC' does not take -std=c11"

    CPU=other
    for c in x86_64 aarch64; do
        printf '#ifndef __%s__\n#error no\n#endif\nint x;\n' $c >"$BUILD/probe/c.c"
        if $CC $CFLAGS_USER -c -o "$BUILD/probe/c.o" "$BUILD/probe/c.c" >/dev/null 2>&1; then
            CPU=$c
        fi
    done
    BASE="-std=c11 -I. -O2"
    if try -ffp-contract=off; then BASE="$BASE -ffp-contract=off"
    else say "note: '$CC' lacks -ffp-contract=off; the self-test at start tells if that matters"; fi
    BASE="$BASE$(first_of -pthread)$(first_of -ffunction-sections -fdata-sections)"
    BASE="$BASE$(first_of -Wall -Wextra -Wshadow)"
    # Nothing unwinds the stack of a program in C but a debugger: its tables are a tenth of the size.
    if [ -n "${DEBUG:-}" ]; then BASE="$BASE -g"
    else BASE="$BASE$(first_of -fno-asynchronous-unwind-tables -fno-unwind-tables)"; fi
    [ -z "${WERROR:-}" ] || BASE="$BASE -Werror"
    STRICT=$(first_of -Wconversion)
    SMALL=$(first_of -Os)
    DEPS=; if try -MMD -MP -MF "$BUILD/probe/t.d"; then DEPS=1; fi
    LINK=
    if try_link -pthread; then LINK="$LINK -pthread"; fi
    if try_link -Wl,--gc-sections; then LINK="$LINK -Wl,--gc-sections"
    elif try_link -Wl,-dead_strip; then LINK="$LINK -Wl,-dead_strip"; fi
    if [ -z "${DEBUG:-}" ] && try_link -s; then LINK="$LINK -s"; fi
    # Suffix of a file -> flags.
    ISA_missing=
    for i in $ISAS; do eval "ISA_$i="; done
    case $CPU in
    x86_64)
        isa avx2 immintrin.h -mavx2 -mfma -mf16c
        isa avxvnni immintrin.h -mavx2 -mfma -mf16c -mavxvnni
        isa avx512vnni immintrin.h -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512vl \
            -mavx512dq -mavx512vnni
        isa avx512vbmi immintrin.h -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512vl \
            -mavx512dq -mavx512vnni -mavx512vbmi
        isa amx immintrin.h -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512vl -mavx512dq \
            -mavx512vnni -mamx-tile -mamx-int8
        isa shani immintrin.h -msha -msse4.1 ;;
    aarch64)
        isa dotprod arm_neon.h -march=armv8.2-a+dotprod
        isa i8mm arm_neon.h -march=armv8.2-a+dotprod+i8mm
        isa armsha2 arm_neon.h -march=armv8-a+crypto ;;
    esac
    {
        printf '# %s\n' "$key"
        for v in CPU BASE STRICT SMALL DEPS LINK ISA_missing $(printf 'ISA_%s ' $ISAS); do
            eval "printf \"%s='%s'\\n\" $v \"\$$v\""
        done
    } >"$BUILD/probe/new"
    # Objects depend on the flags: the file changes only when they do.
    cmp -s "$BUILD/probe/new" "$BUILD/probe/flags" || cp "$BUILD/probe/new" "$BUILD/probe/flags"
    : >"$BUILD/probe/done"
    [ -z "$ISA_missing" ] || say "note: '$CC' cannot compile for$ISA_missing: stubs instead"
}
isa() { # name, header, flags
    name=$1 header=$2
    shift 2
    printf '#include <%s>\nint main(void) { return 0; }\n' "$header" >"$BUILD/probe/t.c"
    if try "$@"; then eval "ISA_$name='$*'"; else ISA_missing="$ISA_missing $name"; fi
    printf 'int main(void) { return 0; }\n' >"$BUILD/probe/t.c"
}

flags_of() { # file -> flags beyond BASE
    f=${1%.c}
    case $1 in quant/*|core/file/*) extra=$STRICT ;; *) extra= ;; esac
    # What nobody waits for is made small.
    case $1 in
    convert/blocks.c|convert/dtype.c|convert/part.c|convert/safetensors.c) ;; # weights pass here
    core/text/bpe.c|core/text/nfc.c|core/text/split.c|core/base/pool.c) ;; # texts, barriers
    core/*|convert/*|bench/*|quant/check/*) extra="$extra $SMALL" ;;
    esac
    # Kernels see no bytes of strangers, and sanitizers take minutes to compile them.
    case ${fuzzing:-}$1 in 1quant/*) extra="$extra -fno-sanitize=all" ;; esac
    case $1 in quant/*_*)
        s=${f##*_}
        case " $ISAS " in *" $s "*) eval "extra=\"\$extra \$ISA_$s\"" ;; esac ;;
    esac
    printf '%s' "$extra"
}

# ---- compiling what changed ----

stale() { # source, object: is the object missing or older than anything it was made of?
    [ -f "$2" ] && [ -f "$2.ok" ] || return 0
    if [ -n "$DEPS" ] && [ -f "$2.d" ]; then
        used=$(sed -e 's/^[^:]*://' -e 's/\\$//' "$2.d")
        # A header that is gone makes find complain, and so the object stale.
        [ -n "$(find $used "$BUILD/probe/flags" -newer "$2.ok" 2>&1)" ]
    else
        [ -n "$(find quant core convert bench tests -name "*.[hd]*" -newer "$2.ok")" ] ||
            [ -n "$(find "$1" -newer "$2.ok")" ]
    fi
}

compile() { # source, object.  The stamp is from before the compiler read the first byte.
    : >"$2.t"
    deps=; [ -z "$DEPS" ] || deps="-MMD -MP -MF $2.d"
    if $CC $BASE $(flags_of "$1") $CFLAGS_USER $deps -c -o "$2" "$1"; then mv "$2.t" "$2.ok"; else
        rm -f "$2" "$2.t" "$2.ok"
        return 1
    fi
}

compile_all() { # sources on stdin; JOBS workers, each claims the next file by making a folder
    list=; n=0
    while read -r f; do
        o=$BUILD/obj/${f%.c}.o
        if stale "$f" "$o"; then
            mkdir -p "${o%/*}"
            list="$list $f"; n=$((n + 1))
        fi
    done
    [ $n -gt 0 ] || return 0
    say "$CC: $n file$([ $n = 1 ] || echo s) ($BUILD)"
    claim=$BUILD/claim.$$
    mkdir "$claim" || return 1
    w=0; pids=
    while [ $w -lt "$JOBS" ] && [ $w -lt $n ]; do
        (
            bad=0; i=0
            for f in $list; do
                i=$((i + 1))
                mkdir "$claim/$i" 2>/dev/null || continue
                compile "$f" "$BUILD/obj/${f%.c}.o" || bad=1
            done
            exit $bad
        ) &
        pids="$pids $!"
        w=$((w + 1))
    done
    bad=0
    for p in $pids; do wait "$p" || bad=1; done
    rm -rf "$claim"
    return $bad
}

objects() { # of the program; with -t: without main, for tests
    for f in $SOURCES; do
        [ "${1:-}" = -t ] && [ "$f" = core/app/main.c ] && continue
        printf ' %s' "$BUILD/obj/${f%.c}.o"
    done
}

link() { # output, objects...: only when something is newer
    out=$1
    shift
    if [ -f "$out" ] && [ -z "$(find "$@" -newer "$out")" ]; then return 0; fi
    $CC $CFLAGS_USER $LINK -o "$out.new" "$@" $LDFLAGS_USER -lm && mv "$out.new" "$out"
}

build() {
    probe
    printf '%s\n' "$SOURCES" | compile_all || die "the build failed"
    link "$BUILD/vaquita" $(objects) || die "linking failed"
}

# ---- tests ----

wanted() { # a test's file: among $names, or are all?
    [ -n "$names" ] || return 0
    for n in $names; do
        case $1 in tests/t_"$n"*) return 0 ;; esac
    done
    return 1
}

# Runs everything under tests/ against this build.  The C tests link the program's objects compiled
# with VQ_DEBUG (allocation guards, fault injection); the shell tests drive the program itself.
tests() { # [prefixes of names]
    names=$*
    build
    vaquita=$BUILD/vaquita
    case $vaquita in /*) ;; *) vaquita=$PWD/$vaquita ;; esac
    (
        [ -n "${one:-}" ] || BUILD=$BUILD/debug CFLAGS="${CFLAGS:-} -DVQ_DEBUG" DEBUG=1
        probe
        { printf '%s\n' "$SOURCES"; ls tests/t_*.c 2>/dev/null; } | compile_all || exit 1
        for t in tests/t_*.c; do
            wanted "$t" || continue
            link "$BUILD/$(basename "${t%.c}")" "$BUILD/obj/${t%.c}.o" $(objects -t) || exit 1
        done
    ) || die "the build of the tests failed"
    bin=$BUILD/debug; [ -z "${one:-}" ] || bin=$BUILD
    limit=
    if timeout --foreground 9 true 2>/dev/null; then
        limit="timeout --foreground ${VQ_TEST_SECONDS:-1200}"
    fi
    passed=0 failed=0 skipped=0
    for t in tests/t_*.c tests/t_*.sh; do
        wanted "$t" || continue
        name=$(basename "$t"); name=${name%.*}
        log=$BUILD/$name.log began=$(date +%s)
        case $t in
        *.c) VAQUITA=$vaquita $limit $RUN "$bin/$name" >"$log" 2>&1 ;;
        *) VAQUITA=$vaquita VQ_RUN=$RUN $limit sh "$t" >"$log" 2>&1 ;;
        esac
        rc=$?
        set -- $(sed -n 's/^.*: \([0-9]*\) passed, \([0-9]*\) failed, \([0-9]*\) skipped$/\1 \2 \3/p' \
            "$log" | tail -n 1)
        if [ $# = 3 ]; then
            passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
            if [ $rc != 0 ] && [ "$2" = 0 ]; then # a sanitizer, or a crash at exit
                failed=$((failed + 1))
                echo "$name: exit $rc" >>"$log"
            fi
        else
            failed=$((failed + 1))
            echo "$name: ended without a result, exit $rc" >>"$log"
        fi
        took=$(($(date +%s) - began))
        if [ $rc = 0 ]; then grep -E '^skipped|passed, ' "$log"; else tail -n 60 "$log"; fi |
            sed "\$s/\$/ ($took s)/"
    done
    [ $((passed + failed + skipped)) -gt 0 ] || die "no test of that name"
    echo "all: $passed passed, $failed failed, $skipped skipped"
    [ $failed = 0 ]
}

sanitized() { # folder, sanitizer flags
    dir=$1
    shift
    printf 'int main(void) { return 0; }\n' >"/tmp/vq_san_$$.c"
    if ! $CC "$@" -o "/tmp/vq_san_$$" "/tmp/vq_san_$$.c" 2>/dev/null || ! "/tmp/vq_san_$$"; then
        rm -f "/tmp/vq_san_$$.c" "/tmp/vq_san_$$"
        echo "skipped: '$CC' cannot build or run with $1"
        return 0
    fi
    rm -f "/tmp/vq_san_$$.c" "/tmp/vq_san_$$"
    BUILD=$BUILD/$dir CFLAGS="${CFLAGS:-} -O1 -g -fno-omit-frame-pointer -DVQ_DEBUG $*"
    DEBUG=1 VQ_SANITIZE=$dir one=1
    export VQ_SANITIZE
    tests $only
}

fuzz_target() ( # parser: $BUILD/fuzz/PARSER/target, with libFuzzer where the compiler has it
    out=$BUILD/fuzz/$1 main=
    mkdir -p "$out" || exit 1
    printf 'int LLVMFuzzerTestOneInput(const char *p, unsigned long n);\n%s\n' \
        'int LLVMFuzzerTestOneInput(const char *p, unsigned long n) { return !p && n; }' >"$out/t.c"
    san="-fsanitize=address,undefined -fno-sanitize-recover=all"
    if ${FUZZ_CC:-clang} -fsanitize=fuzzer $san -o "$out/t" "$out/t.c" 2>/dev/null; then
        CC=${FUZZ_CC:-clang} LDFLAGS="${LDFLAGS:-} -fsanitize=fuzzer"
        : >"$out/libfuzzer"
        cover=-fsanitize=fuzzer-no-link
    else
        rm -f "$out/libfuzzer"
        main=tests/fuzz_main.c cover=
        $CC $san -o "$out/t" "$out/t.c" "$main" 2>/dev/null || san=
    fi
    rm -f "$out/t" "$out/t.c"
    BUILD=$BUILD/fuzz DEBUG=1 CFLAGS="${CFLAGS:-} -O1 -DVQ_DEBUG"
    probe
    BASE="$BASE $cover $san" LINK="$LINK $san" fuzzing=1
    { printf '%s\n' "$SOURCES"; ls "tests/fuzz_$1.c" $main; } | compile_all || exit 1
    link "$out/target" "$BUILD/obj/tests/fuzz_$1.o" ${main:+"$BUILD/obj/tests/fuzz_main.o"} $(objects -t)
)

# ---- words ----

cmd=${1:-build}
[ $# -gt 0 ] && shift
case $cmd in
build)
    build
    say "$BUILD/vaquita: $(wc -c <"$BUILD/vaquita" | tr -d ' ') bytes" ;;
test) tests "$@" ;;
check)
    build
    $RUN "$BUILD/vaquita" check "$@" ;;
bench)
    build
    $RUN "$BUILD/vaquita" bench "$@" ;;
demo)
    build
    VAQUITA=$BUILD/vaquita VQ_RUN=$RUN sh tests/tools/demo.sh ;;
asan)
    only=$*
    ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:abort_on_error=0:allocator_may_return_null=1}
    UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1:halt_on_error=1}
    export ASAN_OPTIONS UBSAN_OPTIONS
    sanitized asan -fsanitize=address,undefined -fno-sanitize-recover=all ;;
tsan)
    only=$*
    TSAN_OPTIONS=${TSAN_OPTIONS:-halt_on_error=1}
    export TSAN_OPTIONS
    sanitized tsan -fsanitize=thread ;;
fuzz)
    if [ $# = 0 ] || [ ! -f "tests/fuzz_$1.c" ]; then exec sh tests/tools/fuzz.sh; fi
    build # some seeds are files it makes
    fuzz_target "$1" || die "the build of the fuzz target failed"
    BUILD=$BUILD sh tests/tools/fuzz.sh "$@" ;;
lint) sh tests/tools/lint.sh ;;
cross)
    CC=aarch64-linux-gnu-gcc RUN=qemu-aarch64-static
    for need in $CC $RUN; do
        command -v $need >/dev/null || { echo "skipped: no $need"; exit 0; }
    done
    LDFLAGS="${LDFLAGS:-} -static" BUILD=$BUILD/aarch64 VQ_QUICK=${VQ_QUICK:-1}
    export VQ_QUICK # an emulator is some twenty times slower: tests with many cases take fewer
    build
    $RUN "$BUILD/vaquita" check || exit 1
    tests "$@" ;;
plain)
    mkdir -p "$BUILD/plain" || exit 1
    $CC -std=c11 -O2 -ffp-contract=off -I. -pthread quant/*.c quant/*/*.c core/*/*.c convert/*.c \
        bench/*.c -lm -o "$BUILD/plain/vaquita" && say "$BUILD/plain/vaquita" ;;
clean) rm -rf "$BUILD" ;;
*)
    sed -n '2,/^set -u/s/^# \{0,1\}//p' build.sh
    [ "$cmd" = help ] ;;
esac
