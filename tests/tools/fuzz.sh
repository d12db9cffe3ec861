#!/bin/sh
# fuzz.sh - ./build.sh fuzz PARSER SECONDS: random input for one parser, under sanitizers.
#
# Makes the corpus and runs the target that build.sh has built.  With clang's libFuzzer the search
# is guided by coverage; without, tests/fuzz_main.c mutates the corpus blindly.  Crashing inputs
# stay in $BUILD/fuzz.
set -u
BUILD=${BUILD:-build}
name=${1:-} seconds=${2:-60} seed=${3:-1}
if [ -z "$name" ] || [ ! -f "tests/fuzz_$name.c" ]; then
    echo "usage: ./build.sh fuzz PARSER [SECONDS [SEED]], PARSER one of:"
    ls tests/fuzz_*.c | sed -e 's/.*fuzz_//' -e 's/\.c$//' -e '/^main$/d' -e 's/^/  /'
    exit 2
fi
out=$BUILD/fuzz/$name
mkdir -p "$out/corpus" || exit 1

# Seeds: small files of the kind, from the tree.
models=tests/data/models
case $name in
json | config) seeds="$models/*/config.json $models/*/tokenizer_config.json " ;;
tokenizer) seeds="$models/*/tokenizer.json" ;;
safetensors) # a whole file of a few bytes; mutating a large body would find nothing
    header='{"__metadata__":{"a":"b"},"x":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]}}'
    printf '\130\0\0\0\0\0\0\0%s      12345678' "$header" >"$out/corpus/basic"
    seeds= ;;
gguf) # keys, one tensor of four values; the rest is found by mutation
    {
        printf 'GGUF\3\0\0\0\1\0\0\0\0\0\0\0\4\0\0\0\0\0\0\0'
        printf '\24\0\0\0\0\0\0\0general.architecture\10\0\0\0\5\0\0\0\0\0\0\0llama'
        printf '\21\0\0\0\0\0\0\0llama.block_count\4\0\0\0\1\0\0\0'
        printf '\24\0\0\0\0\0\0\0tokenizer.ggml.model\10\0\0\0\4\0\0\0\0\0\0\0gpt2'
        printf '\25\0\0\0\0\0\0\0tokenizer.ggml.tokens\11\0\0\0\10\0\0\0\2\0\0\0\0\0\0\0'
        printf '\1\0\0\0\0\0\0\0a\1\0\0\0\0\0\0\0b'
        printf '\21\0\0\0\0\0\0\0token_embd.weight\2\0\0\0\2\0\0\0\0\0\0\0'
        printf '\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'
        head -c 64 /dev/zero
    } >"$out/corpus/basic"
    for f in "${VQ_SHARED:-../shared}"/data/robustness/gguf-malformed/*.gguf; do
        [ -f "$f" ] && cp -f "$f" "$out/corpus/"
    done
    seeds= ;;
container)
    for m in tiny-r1-qwen tiny-r1-qwen3; do
        [ -x "$BUILD/vaquita" ] && "$BUILD/vaquita" convert $models/$m -o "$out/corpus/$m.vaq" \
            --force -q
    done
    seeds= ;;
*) seeds= ;;
esac
for f in $seeds; do
    # Headers and structure are what is parsed; bodies only make inputs slow.
    [ -f "$f" ] && head -c 262144 "$f" >"$out/corpus/$(echo "$f" | tr / _)"
done
if [ "$name" = messages ]; then
    printf '%s' '[{"role":"system","content":"s"},{"role":"user","content":"a\u4f60"},{"role":
"assistant","content":null,"tool_calls":[{"type":"function","function":{"name":"f","arguments":
"{\"x\":1}"}}]},{"role":"tool","content":"r"}]' >"$out/corpus/basic"
    printf '%s' '{"messages":[{"role":"user","content":"x"}],"add_generation_prompt":false}' \
        >"$out/corpus/object"
fi
[ -n "$(ls "$out/corpus")" ] || printf '{}' >"$out/corpus/empty"

if [ -f "$out/libfuzzer" ]; then
    echo "libFuzzer, $seconds s"
    "$out/target" -max_total_time="$seconds" -seed="$seed" -timeout=20 -rss_limit_mb=4096 \
        -artifact_prefix="$out/" "$out/corpus" 2>"$out/log"
    rc=$?
    tail -n 3 "$out/log"
    [ $rc = 0 ] || { tail -n 60 "$out/log"; ls "$out"/crash-* "$out"/timeout-* 2>/dev/null; }
    exit $rc
fi
"$out/target" "$seconds" "$seed" "$out/last" "$out"/corpus/*
