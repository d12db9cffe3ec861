#!/bin/sh
# t_calib.sh - calibration and budgets through the command line: the same bytes for any threads and
# CPU level, sizes that are kept, predictions that get better, refusals.
. "$(dirname "$0")/shell.sh"
[ -z "${VQ_SANITIZE:-}" ] ||
    skip_all "conversions that run the model: minutes with sanitizers (t_resume and t_feedback do some)"
field() { sed -n "s/.*\"$1\":\([0-9.e+-]*\).*/\1/p" "$2"; }

m=tests/data/models/tiny-r1-qwen
sed -n 's/.*"question": *"\([^"]*\)".*/\1/p' tests/data/questions.jsonl >"$dir/all"
head -n 60 "$dir/all" >"$dir/calib"
tail -n 40 "$dir/all" >"$dir/other"
make() { # name, options
    name=$1
    shift
    $V convert $m -o "$dir/$name.vaq" -q "$@" >"$dir/$name.json" 2>"$dir/err" ||
        bad "convert $*: $(cat "$dir/err")"
}
make f32 --type f32
make n4s --type n4s
for t in 1 2 3; do make fed$t --type n4s --calib "$dir/calib" --threads $t; done
make ref --type n4s --calib "$dir/calib" --cpu ref --threads 2
for t in fed2 fed3 ref; do
    if cmp -s "$dir/fed1.vaq" "$dir/$t.vaq"; then ok; else bad "$t has other bytes than fed1"; fi
done
cmp -s "$dir/fed1.vaq" "$dir/n4s.vaq" && bad "calibration changed nothing" || ok
ls "$dir" | grep -q source && bad "a container was left behind" || ok
$V info "$dir/fed1.vaq" | grep -q 'recipe.*enc 1, 2 by [0-9]* tokens' && ok || bad "info lacks enc 2"

kl() { # container, source
    $V kl "$dir/${2:-f32}.vaq" "$dir/$1.vaq" -f "$dir/other" --ctx 64 --json |
        sed 's/.*"kl_mean":\([^,]*\),.*/\1/'
}
a=$(kl n4s) b=$(kl fed1)
printf 'n4s: kl %s, with calibration %s\n' "$a" "$b"
awk "BEGIN { exit !($b < 0.8 * $a) }" && ok || bad "calibration: kl $b after $a"

# Budgets are kept, and beat the uniform type of that size.
make cheap --bpw 5 --json
awk "BEGIN { exit !($(field bpw "$dir/cheap.json") <= 5) }" && ok || bad "--bpw 5 by roles"
make fit --bpw 5 --calib "$dir/calib" --json
awk "BEGIN { exit !($(field bpw "$dir/fit.json") <= 5) }" && ok || bad "--bpw 5 with calibration"
# Killed while it tries, it goes on with what was tried, to the same bytes.  Tries of another text
# or damaged ones do not count.
$V convert $m -o "$dir/killed.vaq" -q --bpw 5 --calib "$dir/calib" >"$dir/out" 2>"$dir/err" &
pid=$!
for i in $(seq 3000); do
    [ ! -e "$dir/killed.vaq.tries" ] || break
    sleep .02
done
kill -9 $pid
wait $pid 2>"$dir/out"
cp "$dir/killed.vaq.tries" "$dir/other.vaq.tries" && ok || bad "nothing was kept"
cp "$dir/killed.vaq.tries" "$dir/hurt.vaq.tries"
printf 'x' | dd of="$dir/hurt.vaq.tries" bs=1 seek=5 conv=notrunc 2>"$dir/err"
for t in killed other hurt; do
    text=calib
    [ $t = other ] && text=other
    $V convert $m -o "$dir/$t.vaq" --bpw 5 --calib "$dir/$text" >"$dir/out" 2>"$dir/err" ||
        bad "$t: $(cat "$dir/err")"
    cat "$dir/out" "$dir/err" | grep -q 'resuming: [1-9][0-9]* of [0-9]* matrices' && went=on ||
        went=anew
    check "$t: $went" $went = "$([ $t = killed ] && echo on || echo anew)"
    check "$t: its tries are gone" ! -e "$dir/$t.vaq.tries"
done
for t in killed hurt; do
    cmp -s "$dir/$t.vaq" "$dir/fit.vaq" && ok || bad "$t has other bytes than an undisturbed one"
done
size=$(wc -c <"$dir/fed1.vaq")
make size --size "$size" --calib "$dir/calib"
[ "$(wc -c <"$dir/size.vaq")" -le "$size" ] && ok || bad "--size $size"
c=$(kl size)
printf 'types chosen for the size of n4s: kl %s\n' "$c"
awk "BEGIN { exit !($c <= $b) }" && ok || bad "budget: kl $c, uniform $b"
# What was chosen is a recipe that makes it again.
$V convert $m --dry-run --size "$size" --calib "$dir/calib" >"$dir/recipe" 2>"$dir/err" &&
    grep -q '^# n.* kl 0' "$dir/recipe" && ok || bad "dry run: $(cat "$dir/err")"
make again --recipe "$dir/recipe" --calib "$dir/calib"
$V info "$dir/again.vaq" | grep '^types' >"$dir/types2"
$V info "$dir/size.vaq" | grep '^types' >"$dir/types1"
cmp -s "$dir/types1" "$dir/types2" && ok || bad "the recipe of a budget makes other types"

# Without the text a range cannot be made again, and that is said.
cp "$dir/fed1.vaq" "$dir/hurt.vaq"
printf 'x' | dd of="$dir/hurt.vaq" bs=1 seek=$(($(wc -c <"$dir/hurt.vaq") - 5000)) conv=notrunc 2>"$dir/err"
fails 1 "calibration text" verify "$dir/hurt.vaq" --repair $m
$V verify "$dir/hurt.vaq" --repair "$dir/fed1.vaq" >"$dir/out" 2>"$dir/err" &&
    cmp -s "$dir/hurt.vaq" "$dir/fed1.vaq" && ok || bad "repair from a copy: $(cat "$dir/err")"
fails 2 "the budget leaves" convert $m -o "$dir/x.vaq" --bpw 2
fails 2 "a budget chooses all types" convert $m -o "$dir/x.vaq" --bpw 5 --type n4
fails 2 "a budget chooses all types" convert $m -o "$dir/x.vaq" --bpw 5 --size 1M
fails 2 "are wanted" convert $m -o "$dir/x.vaq" --type n4 --calib /dev/null
fails 1 "nowhere" convert $m -o "$dir/x.vaq" --type n4 --calib "$dir/nowhere"
fails 2 "no tokenizer" convert $m -o "$dir/x.vaq" --no-tokenizer --calib "$dir/calib"
[ -e "$dir/x.vaq" ] && bad "a refused conversion left a file" || ok

# Latents, heads and experts: every matrix but those of the MTP layer.
if [ -n "${VQ_RUN:-}" ]; then
    skip "DeepSeek-V3 with calibration: minutes under an emulator"
    result
    exit
fi
m=tests/data/models/tiny-r1-fp8
yes 7 | head -c 600 | tr -d '\n' >"$dir/sevens" # one chunk, for which few experts are chosen
make moe32 --type f32
for t in 1 3; do make few$t --type l6 --calib "$dir/sevens" --threads $t; done
make fewref --type l6 --calib "$dir/sevens" --cpu ref --threads 2
for t in few3 fewref; do same "experts: $t has other bytes than few1" "$dir/few1.vaq" "$dir/$t.vaq"; done
$V convert $m -o "$dir/x.vaq" --type l6 --calib "$dir/sevens" >"$dir/out" 2>"$dir/err" || bad "notices"
grep -q ' [1-9][0-9]* of 48 experts got no token' "$dir/err" && ok || bad "idle experts are not told"
grep -q 'MTP layer: encoded without' "$dir/err" && ok || bad "the MTP layer is not told"
# Which matrices the text changes.
errors() {
    tr '{' '\n' <"$1" | sed -n 's/.*"name":"\([^"]*\)".*"rel_rmse":\([0-9.e-]*\).*/\1 \2/p' | sort
}
make plain --type n4 --json
make fed --type n4 --calib "$dir/calib" --json
errors "$dir/plain.json" >"$dir/e1"
errors "$dir/fed.json" >"$dir/e2"
comm -12 "$dir/e1" "$dir/e2" | grep -v -e ' 0$' -e '^model\.layers\.4\.' >"$dir/e"
[ "$(cat "$dir/e")" = "$(grep '^model.embed' "$dir/e1")" ] && ok || bad "as without: $(cat "$dir/e")"
comm -13 "$dir/e1" "$dir/e2" | grep -q '^model\.layers\.4\.' && bad "the MTP layer has changed" || ok
a=$(kl plain moe32) b=$(kl fed moe32)
make best --size "$(wc -c <"$dir/fed.vaq")" --calib "$dir/calib" --json
c=$(kl best moe32)
printf 'experts, n4: kl %s, with calibration %s, types chosen %s\n' "$a" "$b" "$c"
awk "BEGIN { exit !($b < 0.7 * $a && $c < 0.7 * $b) }" && ok || bad "experts: kl $a, $b, $c"
[ "$(wc -c <"$dir/best.vaq")" -le "$(wc -c <"$dir/fed.vaq")" ] && ok || bad "--size: experts"
# Experts of a layer have one type: no rule names one.
tr '{' '\n' <"$dir/best.json" | grep '"rules"' >"$dir/out"
grep -q 'expert_down' "$dir/out" && ! grep -q 'experts\.' "$dir/out" && ok || bad "types of experts"
# Interrupted among the experts, the same command ends with the same bytes.
$V convert $m -o "$dir/part.vaq" --type n4 --calib "$dir/calib" -q >"$dir/out" 2>"$dir/err" &
while kill -0 $! 2>/dev/null && [ ! -s "$dir/part.vaq.unfinished" ]; do sleep 0.1; done
sleep 0.7
kill -INT $! 2>/dev/null
wait $!
[ -e "$dir/part.vaq.unfinished" ] || [ -e "$dir/part.vaq" ] && ok || bad "interrupted: nothing is kept"
make part --type n4 --calib "$dir/calib" --force
same "resumed: other bytes" "$dir/fed.vaq" "$dir/part.vaq"
result
