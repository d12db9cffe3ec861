#!/bin/sh
# demo.sh - from a checkpoint folder to an answered question.  Run by ./build.sh demo.
set -u
cd "$(dirname "$0")/../.." || exit 1
program=${VAQUITA:-build/vaquita}
case $program in /*) ;; *) program=$PWD/$program ;; esac
vaquita="${VQ_RUN:+$VQ_RUN }$program"
checkpoint=$PWD/tests/data/models/tiny-r1-qwen
dir=$(mktemp -d) || exit 1
trap 'cd /; rm -rf "$dir"' EXIT
cd "$dir" || exit 1
question='Lily has 6 eggs and gets 58 more. How many eggs does Lily have now?'
right=64

step() { printf '\n== %s\n' "$*"; }
show() { # a command, as a user would type it, then done
    printf '$ vaquita %s\n' "$1"
    shift
    $vaquita "$@"
}

step "1. This machine: the compiler, the CPU, the kernels chosen for it"
$vaquita info | sed -n '/^version\|^compiler\|^levels\|^threads\|^cpu /p' || exit 1

step "2. A checkpoint as Hugging Face stores it (trained for this project, 2 MB) into one file"
show "convert tests/data/models/tiny-r1-qwen -o demo.vaq" \
    convert "$checkpoint" -o demo.vaq || exit 1
show "verify demo.vaq" verify demo.vaq || exit 1

step "3. A question.  It thinks first (dimmed on a terminal), digit by digit, then answers"
show "run demo.vaq -p '$question'" run demo.vaq -p "$question" --seed 1 || exit 1

step "4. Is it right?  Only the answer this time, the likeliest one, from a pipe"
answer=$($vaquita run demo.vaq -p "$question" --temp 0 --think hide) || exit 1
printf '%s\n' "$answer"
case $answer in
*"boxed{$right}"*) printf '\nRight: 6 + 58 = %s.\n' "$right" ;;
*)
    printf '\nWRONG: 6 + 58 = %s.  Please report this with what vaquita info prints.\n' "$right"
    exit 1 ;;
esac
cat <<'END'

Next: a real model.  Download a DeepSeek-R1-Distill folder from Hugging Face, then
  build/vaquita convert DeepSeek-R1-Distill-Qwen-1.5B -o r1.vaq
  build/vaquita chat r1.vaq
END
