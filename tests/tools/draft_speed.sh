#!/bin/sh
# draft_speed.sh MODEL PROMPT_FILE... - decode speed with --draft auto (or $DRAFT) against off.
#
# Greedy answers of at most $TOKENS (200) ids to each prompt, $REPS (5) pairs off/auto interleaved,
# so that both see the same machine; prints per prompt the median speeds, the median of the ratios
# of the pairs and how the drafts did.  Fails if the ids differ.  VAQUITA: the program.
# --temp 0 unless $TEMP.
set -u
export LC_ALL=C
V=${VAQUITA:-build/vaquita}
[ $# -ge 2 ] || { sed -n 2,8p "$0" >&2; exit 2; }
model=$1
shift
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT

once() { # mode, prompt: leaves $dir/MODE.ids and $dir/MODE.draft, prints ids per second
    $V run "$model" -f "$2" --temp "${TEMP:-0}" --seed 1 -n "${TOKENS:-200}" --draft "$1" --json \
        >"$dir/json" || exit 1
    sed 's/.*"ids": *\[\([^]]*\)\].*/\1/' "$dir/json" >"$dir/$1.ids"
    sed 's/.*"draft": *{\([^}]*\)}.*/\1/' "$dir/json" >"$dir/$1.draft"
    sed 's/.*"decode_tps": *\([0-9.e+]*\).*/\1/' "$dir/json"
}
median() { sort -g | awk '{ v[NR] = $1 } END { print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 }'; }

on=${DRAFT:-auto}
for prompt; do
    : >"$dir/pairs"
    i=0
    while [ $i -lt "${REPS:-5}" ]; do
        if [ $((i % 2)) = 0 ]; then a=$(once off "$prompt"); b=$(once "$on" "$prompt")
        else b=$(once "$on" "$prompt"); a=$(once off "$prompt"); fi
        cmp -s "$dir/off.ids" "$dir/$on.ids" || { echo "$prompt: the ids differ" >&2; exit 1; }
        echo "$a $b" >>"$dir/pairs"
        i=$((i + 1))
    done
    printf '%s: %d ids, off %.1f/s, %s %.1f/s, ratio %.3f; %s\n' "$(basename "$prompt")" \
        "$(tr ',' '\n' <"$dir/off.ids" | grep -c .)" "$(awk '{ print $1 }' "$dir/pairs" | median)" \
        "$on" "$(awk '{ print $2 }' "$dir/pairs" | median)" \
        "$(awk '{ print $2 / $1 }' "$dir/pairs" | median)" "$(cat "$dir/$on.draft")"
done
