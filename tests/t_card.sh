#!/bin/sh
# t_card.sh - the quality card through the command line: the same bytes for any threads and CPU
# level, the figures `kl` prints, what `info` shows of it, refusals.
. "$(dirname "$0")/shell.sh"
[ -z "${VQ_SANITIZE:-}" ] ||
    skip_all "conversions that run the model: minutes with sanitizers (t_resume and t_feedback do some)"
field() { sed -n "s/.*\"$1\":\"*\([^,\"}]*\).*/\1/p" "$2"; }
make() { # name, source, options
    name=$1 from=$2
    shift 2
    $V convert "$from" -o "$dir/$name.vaq" --json "$@" >"$dir/$name.json" 2>"$dir/err" ||
        bad "convert $*: $(cat "$dir/err")"
}
# The card says what kl says, to the last digit.
agrees() { # name, reference, text, chunks
    $V info "$dir/$1.vaq" --json >"$dir/info"
    $V kl "$dir/$2.vaq" "$dir/$1.vaq" -f "$3" --limit "$4" --json >"$dir/kl" 2>"$dir/err"
    for k in kl:kl_mean kl_p99:kl_p99 top1:top1 tokens:tokens ctx:ctx text_sha256:text_sha256; do
        a=$(sed 's/.*"quality"//' "$dir/info" >"$dir/q"; field "${k%:*}" "$dir/q")
        b=$(field "${k#*:}" "$dir/kl")
        [ -n "$a" ] && [ "$a" = "$b" ] && ok || bad "$1: ${k%:*} is $a, of kl $b $(cat "$dir/err")"
    done
    grep -q "\"chunks\":$4[,}]" "$dir/info" && ok || bad "$1: not $4 chunks"
}

m=tests/data/models/tiny-r1-qwen
sed -n 's/.*"question": *"\([^"]*\)".*/\1/p' tests/data/questions.jsonl >"$dir/all"
head -n 60 "$dir/all" >"$dir/calib"
tail -n 60 "$dir/all" | head -c 4000 >"$dir/other.txt"
make f32 $m --type f32
for t in 1 2 3; do make card$t $m --type n4s --card "$dir/other.txt" --threads $t; done
make ref $m --type n4s --card "$dir/other.txt" --cpu ref --threads 2
for t in card2 card3 ref; do
    if cmp -s "$dir/card1.vaq" "$dir/$t.vaq"; then ok; else bad "$t has other bytes than card1"; fi
done
ids=$($V tokenize "$dir/f32.vaq" -f "$dir/other.txt" --json | sed 's/.*"ids":\[\([^]]*\).*/\1/' |
    tr ',' '\n' | wc -l)
agrees card1 f32 "$dir/other.txt" $(((ids + 1) / 512))
make plain $m --type n4s
[ "$(field kl "$dir/card1.json")" = "$(field kl "$dir/q")" ] && ok || bad "convert --json: no kl"
$V verify "$dir/card1.vaq" >"$dir/out" 2>"$dir/err" && ok || bad "verify: $(cat "$dir/err")"
$V info "$dir/card1.vaq" >"$dir/label"
for text in '^quality *kl from its source 0\.0' '^quality *same first token [0-9.]* %$' \
    '^quality *measured on [0-9]* tokens of other.txt (. chunks of 512, ids sha256 ' \
    '^worst *n4s model.*: relative error 0\.0' '^types *n4s: .*bpw 4\.' '^source *source_sha256'; do
    grep -q "$text" "$dir/label" && ok || bad "the label lacks $text"
done
[ "$(grep -c '^worst' "$dir/label")" = 5 ] && ok || bad "not the five worst"
# The errors of all matrices are those that convert told of.
errors() { tr '{' '\n' <"$1" | sed -n 's/.*"name":"\([^"]*\)".*"rel_rmse":\([0-9.e-]*\).*/\1 \2/p'; }
errors "$dir/info" | sort >"$dir/e1"
errors "$dir/card1.json" | grep -v ' 0$' | sort >"$dir/e2"
[ "$(wc -l <"$dir/e1")" -gt 20 ] && cmp -s "$dir/e1" "$dir/e2" && ok || bad "errors of tensors"
$V info "$dir/plain.vaq" | grep -q '^quality *not measured; convert with --card TEXT' && ok ||
    bad "no card, and not said"

# Beside a calibration and a budget; a GGUF model as the source.
make both $m --bpw 5 --calib "$dir/calib" --card "$dir/other.txt"
agrees both f32 "$dir/other.txt" $(((ids + 1) / 512))
$V export "$dir/f32.vaq" -o "$dir/m.gguf" >"$dir/out" 2>"$dir/err" || bad "export: $(cat "$dir/err")"
make g32 "$dir/m.gguf" --type f32
make gguf "$dir/m.gguf" --type n4s --card "$dir/other.txt"
agrees gguf g32 "$dir/other.txt" $(((ids + 1) / 512))
# Experts and latents: DeepSeek-V3's FP8, with what calibration knows of it.
if [ -z "${VQ_RUN:-}" ]; then
    r1=tests/data/models/tiny-r1-fp8
    make r32 $r1 --type f32
    make r1 $r1 --type l6 --calib "$dir/calib" --card "$dir/other.txt"
    agrees r1 r32 "$dir/other.txt" $(($(field tokens "$dir/r1.json") / 255))
fi
# A long text: of it the first 16 chunks.
cat "$dir/all" "$dir/all" "$dir/all" "$dir/all" "$dir/all" "$dir/all" >"$dir/long"
make long $m --type n4 --card "$dir/long"
agrees long f32 "$dir/long" 16
ls "$dir" | grep -q -e 'source$' -e unfinished -e journal && bad "something was left behind" || ok

fails 2 "are wanted for a card" convert $m -o "$dir/x.vaq" --card /dev/null
fails 1 "nowhere" convert $m -o "$dir/x.vaq" --card "$dir/nowhere"
fails 2 "no --card" convert $m -o "$dir/x.vaq" --no-tokenizer --card "$dir/other.txt"
fails 1 "exists" convert $m -o "$dir/f32.vaq" --card "$dir/other.txt"
[ -e "$dir/x.vaq" ] && bad "a refused conversion left a file" || ok
$V convert $m --dry-run --card "$dir/other.txt" >"$dir/out" 2>"$dir/err" && ok ||
    bad "dry run: $(cat "$dir/err")"
result
