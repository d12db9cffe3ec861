#!/bin/sh
# t_plan.sh - `plan`: its sizes are those of the files convert makes, R1's those of the published
# model, and nothing is refused without a word.  Bandwidths are given, so nothing is measured.
. "$(dirname "$0")/shell.sh"
models=tests/data/models

plan() { $V plan "$@" --mem-gbs 10 --json >"$dir/json" 2>"$dir/err" || bad "plan $*: exit $?"; }
# field TYPE KEY [CTX]: of the first such row of the last plan
field() {
    tr '{' '\n' <"$dir/json" | grep "\"type\":\"$1\"" | grep "\"ctx\":${3:-}" | head -n 1 |
        sed 's/.*"'"$2"'":"\{0,1\}\([^",}]*\).*/\1/'
}
near() { # what, value, low, high
    awk -v v="$2" -v l="$3" -v h="$4" 'BEGIN { exit !(v >= l && v <= h) }' && ok ||
        bad "$1: $2 is not in $3 to $4"
}
u64_at() { od -An -tu8 -j "$2" -N 8 "$1" | tr -d ' '; }

# ---- as converted: the body to the byte, the file but for its metadata ----
for m in tiny-r1-qwen tiny-r1-qwen3 tiny-r1-fp8; do
    types="n4 auto"
    [ -z "${VQ_QUICK:-}" ] && [ $m = tiny-r1-qwen ] && types="p5 p6 n4s n4 n5 l6 l8 bf16 auto"
    mkdir -p "$dir/config"
    cp $models/$m/config.json "$dir/config"
    for t in $types; do
        f=$dir/$m-$t.vaq
        $V convert $models/$m -o "$f" --type $t --no-tokenizer -q || bad "convert $m $t"
        plan $models/$m
        body=$(u64_at "$f" 32) size=$(u64_at "$f" 16)
        check "$m $t: bytes of tensors" "$(field $t body_bytes)" = "$body"
        near "$m $t: bytes of the file" "$(field $t file_bytes)" $((size - 8192)) "$size"
        before=$(field $t token_bytes)
        plan "$dir/config"
        check "$m $t: config.json is enough" "$(field $t body_bytes)" = "$body"
        grep -q "config.json alone" "$dir/json" && ok || bad "$m: no word that weights are missing"
        plan "$f"
        check "$m $t: the container's own size" "$(field file file_bytes)" = "$size"
        check "$m $t: bytes per token" "$(field file token_bytes)" = "$before"
    done
done

# ---- a GGUF file: the same model, auto as near to its types as convert makes it ----
$V convert $models/tiny-r1-qwen -o "$dir/g.vaq" --type l8 --no-tokenizer -q || bad "convert l8"
$V export "$dir/g.vaq" -o "$dir/g.gguf" -q || bad "export"
$V convert "$dir/g.gguf" -o "$dir/near.vaq" -q || bad "convert a GGUF file"
plan "$dir/g.gguf"
check "gguf auto" "$(field auto body_bytes)" = "$(u64_at "$dir/near.vaq" 32)"
check "gguf auto is l8" "$(field auto body_bytes)" = "$(field l8 body_bytes)"
check "gguf n4" "$(field n4 body_bytes)" = "$(u64_at "$dir/tiny-r1-qwen-n4.vaq" 32)"

# ---- the published models: parameters to the last, sizes of 4.5 and 8.5 bits ----
for row in qwen-1.5b:1777088000 qwen-7b:7615616512 qwen-14b:14770033664 qwen-32b:32763876352 \
    llama-8b:8030261248 llama-70b:70553706496 qwen3-8b:8190735360 r1:682636487424; do
    plan ${row%:*}
    grep -q "\"params\":${row#*:}," "$dir/json" && ok ||
        bad "${row%:*}: $(sed 's/.*"params":\([0-9]*\).*/\1/' "$dir/json") weights, not ${row#*:}"
done
plan r1 --ram 500G
near "r1 n4: GB of the file, MTP layer included" "$(field n4 file_bytes)" 377000000000 386000000000
near "r1 l8: GB of the file" "$(field l8 file_bytes)" 713000000000 735000000000
near "r1 n4: GB per token" "$(field n4 token_bytes)" 20600000000 21100000000
check "r1 n4 in 500G" "$(field n4 fits)" = yes
check "r1 l8 in 500G" "$(field l8 fits)" = streams
near "r1: bytes of a position" "$((($(field n4 ram_bytes 4096) - $(field n4 file_bytes)) / 4096))" \
    35136 45000
grep -q '"machines"' "$dir/json" && bad "machines, though --ram was given" || ok
plan r1 --disk-gbs 5
check "r1: six machines" "$(grep -o '"ram_bytes":[0-9]*,"type":"[a-z0-9]*"' "$dir/json" |
    wc -l)" = 6
plan r1 --ram 8G
check "r1 n4 in 8G" "$(field n4 fits)" = no
plan qwen-1.5b --ram 64G --ctx 4096
near "1.5b n4: tokens/s at 10 GB/s" "$(field n4 expected_tps)" 10.5 11.6
near "1.5b n4: bytes per token" "$(field n4 token_bytes)" 860000000 880000000
plan llama-70b --ram 16G --disk-gbs 1
check "70b n4 in 16G" "$(field n4 fits 4096)" = streams
near "70b n4 from a disk of 1 GB/s" "$(field n4 expected_tps)" 0.03 0.06

# ---- text, defaults, refusals ----
$V plan r1 --device m4 >"$dir/out" 2>&1 && ok || bad "plan r1 --device m4"
grep -q "512 GB" "$dir/out" && ok || bad "no table of machines"
check "80 columns" "$(awk 'length($0) > 80' "$dir/out" | wc -l)" = 0
echo nonsense >"$dir/bad.gguf"
refused() { # CODE TEXT ARGUMENT...
    code=$1 text=$2
    shift 2
    $V plan "$@" >"$dir/out" 2>"$dir/err"
    check "plan $*: exit code" $? = "$code"
    grep -qF -e "$text" "$dir/err" && ok || bad "plan $*: no '$text' on stderr"
    check "plan $*: no result" ! -s "$dir/out"
}
same_plan() { # what the model is called where it is published, our name
    $V plan "$1" --ram 8G --mem-gbs 10 --json 2>&1 | sed 's/"model":"[^"]*"//' >"$dir/a"
    $V plan "$2" --ram 8G --mem-gbs 10 --json 2>&1 | sed 's/"model":"[^"]*"//' >"$dir/b"
    same "plan $1" "$dir/a" "$dir/b"
}
same_plan DeepSeek-R1-Distill-Qwen-7B qwen-7b
same_plan deepseek-ai/DeepSeek-R1-Distill-Llama-70B llama-70b
same_plan DeepSeek-R1-0528-Qwen3-8B qwen3-8b
for name in DeepSeek-R1 deepseek-ai/DeepSeek-R1-Zero DeepSeek-R1-0528; do same_plan $name r1; done
refused 2 "none of the names" DeepSeek-R1-Distill-Qwen-8B
refused 2 "none of the names" DeepSeek-R1-Distill-
refused 2 "qwen-1.5b qwen-7b" gpt-9
refused 2 "131072 positions" qwen-7b --ctx 200000
refused 1 "x.gguf" x.gguf
refused 3 "GGUF" "$dir/bad.gguf"
refused 2 "none of the names" tests/t_plan.sh
refused 2 "device" r1 --device pi9
refused 1 "none.vaq" "$dir/none.vaq"
refused 1 "config.json" "$dir"

result
