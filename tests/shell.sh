# shell.sh - what the tests of the command line share; a test reads it with
# . "$(dirname "$0")/shell.sh".
#
# Sets VAQUITA (the program; ./build.sh test says which), V (the same behind VQ_RUN, an emulator),
# test (its name) and dir (a folder that is gone in the end), and goes to the root of the tree.
set -u
test=${0##*/} test=${test%.sh}
cd "$(dirname "$0")/.." || exit 1
VAQUITA=${VAQUITA:-$PWD/build/vaquita}
V="${VQ_RUN:+$VQ_RUN }$VAQUITA"
passed=0 failed=0 skipped=0

result() { # the last line of a test
    echo "$test: $passed passed, $failed failed, $skipped skipped"
    [ $failed = 0 ]
}
ok() { passed=$((passed + 1)); }
bad() {
    failed=$((failed + 1))
    printf '%s: failed: %s\n' "$test" "$*"
    [ ! -s "$dir/err" ] || sed 's/^/  stderr: /' "$dir/err" | head -n 5
}
skip() {
    skipped=$((skipped + 1))
    printf 'skipped: %s\n' "$*"
}
skip_all() { # why
    skip "$@"
    result
    exit 0
}
check() { # what, then a test(1) expression
    what=$1
    shift
    if [ "$@" ]; then ok; else bad "$what ($*)"; fi
}
same() { # what, two files
    if cmp -s "$2" "$3"; then ok; else bad "$1: $(head -n 1 "$2") / $(head -n 1 "$3")"; fi
}
fails() { # exit code, text on stderr, arguments
    code=$1 text=$2
    shift 2
    $V "$@" >"$dir/out" 2>"$dir/err" </dev/null
    rc=$?
    if [ $rc = "$code" ] && grep -qF -e "$text" "$dir/err"; then ok
    else bad "vaquita $*: exit $rc, expected $code and '$text'"; fi
}

dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
