#!/bin/sh
# t_cpu.sh - the program runs on x86 CPUs older than the one it is built on: emulated ones name the
# levels they have and give the bits of this machine.  Newer instructions must not even be touched
# while the tables are made.
set -u
cd "$(dirname "$0")/.." || exit 1
VAQUITA=${VAQUITA:-$PWD/build/vaquita}
emulator=qemu-x86_64-static
skip() {
    echo "skipped: older x86 CPUs: $*"
    echo "t_cpu: 0 passed, 0 failed, 1 skipped"
    exit 0
}
if [ -n "${VQ_RUN:-}" ] || [ "$(uname -m)" != x86_64 ]; then skip "not a program for x86-64"; fi
command -v $emulator >/dev/null 2>&1 || skip "no $emulator"
[ -z "${VQ_SANITIZE:-}" ] || skip "the emulator cannot run sanitizers"
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
passed=0 failed=0
same() { # what, expected, found
    if [ "$2" = "$3" ]; then passed=$((passed + 1)); return; fi
    failed=$((failed + 1))
    printf 't_cpu.sh: failed: %s: expected "%s", found "%s"\n' "$1" "$2" "$3"
}
hash() { "$@" logits "$dir/tiny.vaq" -p 'Compute 646 + 683.' | sed 's/.*sha256 //'; }

"$VAQUITA" convert tests/data/models/tiny-r1-qwen -o "$dir/tiny.vaq" --type n4 -q || exit 1 # ends without a result: failed
native=$(hash "$VAQUITA")
for cpu in Nehalem:ref Haswell:ref,avx2; do
    run="$emulator -cpu ${cpu%:*}"
    levels=$($run "$VAQUITA" info 2>/dev/null | sed -n 's/^levels *//p' | tr -d ' ')
    same "levels of a ${cpu%:*}" "${cpu#*:}" "$levels"
    same "bits on a ${cpu%:*}" "$native" "$(hash $run "$VAQUITA" 2>/dev/null)"
done
echo "t_cpu: $passed passed, $failed failed, 0 skipped"
[ $failed = 0 ]
