#!/bin/sh
# t_cpu.sh - the program runs on x86 CPUs older than the one it is built on: emulated ones name the
# levels they have and give the bits of this machine.  Newer instructions must not even be touched
# while the tables are made.
. "$(dirname "$0")/shell.sh"
emulator=qemu-x86_64-static
why() { skip_all "older x86 CPUs: $*"; }
if [ -n "${VQ_RUN:-}" ] || [ "$(uname -m)" != x86_64 ]; then why "not a program for x86-64"; fi
command -v $emulator >/dev/null 2>&1 || why "no $emulator"
[ -z "${VQ_SANITIZE:-}" ] || why "the emulator cannot run sanitizers"
equal() { # what, expected, found
    if [ "$2" = "$3" ]; then ok; else bad "$1: expected \"$2\", found \"$3\""; fi
}
hash() { "$@" logits "$dir/tiny.vaq" -p 'Compute 646 + 683.' | sed 's/.*sha256 //'; }

"$VAQUITA" convert tests/data/models/tiny-r1-qwen -o "$dir/tiny.vaq" --type n4 -q || exit 1 # ends without a result: failed
native=$(hash "$VAQUITA")
for cpu in Nehalem:ref Haswell:ref,avx2; do
    run="$emulator -cpu ${cpu%:*}"
    levels=$($run "$VAQUITA" info 2>/dev/null | sed -n 's/^levels *//p' | tr -d ' ')
    equal "levels of a ${cpu%:*}" "${cpu#*:}" "$levels"
    equal "bits on a ${cpu%:*}" "$native" "$(hash $run "$VAQUITA" 2>/dev/null)"
done
result
