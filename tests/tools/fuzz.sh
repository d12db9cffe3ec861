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
gguf) # keys, one tensor of four values; a small model like R1; the rest is found by mutation
    le() { # BYTES NUMBER
        i=$1 v=$2
        while [ "$i" -gt 0 ]; do
            printf "\\$(printf %o $((v % 256)))"
            v=$((v / 256)) i=$((i - 1))
        done
    }
    text() { le 8 ${#1} && printf %s "$1"; }
    infos=$out/infos off=0
    tensor() { # NAME COLUMNS [ROWS [MATRICES]]: F32
        text "$1" && le 4 $(($# - 1)) && n=4 && shift
        for ne in "$@"; do le 8 "$ne" && n=$((n * ne)); done
        le 4 0 && le 8 $off && off=$(((off + n + 31) / 32 * 32))
    }
    {
        for t in token_embd output; do tensor $t.weight 16 16; done
        tensor output_norm.weight 16
        for t in attn_norm ffn_norm attn_q_a_norm attn_kv_a_norm; do tensor blk.0.$t.weight 16; done
        for t in attn_q_a attn_output ffn_gate_shexp ffn_up_shexp ffn_down_shexp; do
            tensor blk.0.$t.weight 16 16
        done
        for t in attn_q_b attn_kv_a_mqa; do tensor blk.0.$t.weight 16 18; done
        tensor blk.0.ffn_gate_inp.weight 16 2
        tensor blk.0.exp_probs_b.bias 2
        for t in ffn_gate_exps ffn_up_exps ffn_down_exps; do tensor blk.0.$t.weight 16 16 2; done
        for t in attn_k_b attn_v_b; do tensor blk.0.$t.weight 16 16 1; done
    } >"$infos"
    {
        printf GGUF && le 4 3 && le 8 21 && le 8 20
        text general.architecture && le 4 8 && text deepseek2
        while read -r key value; do
            text "deepseek2.$key" && le 4 4 && le 4 "$value"
        done <<EOF
block_count 1
context_length 64
embedding_length 16
feed_forward_length 16
attention.head_count 1
attention.head_count_kv 1
attention.key_length 18
attention.value_length 16
attention.key_length_mla 18
attention.value_length_mla 16
attention.q_lora_rank 16
attention.kv_lora_rank 16
rope.dimension_count 2
leading_dense_block_count 0
expert_count 2
expert_used_count 1
expert_shared_count 1
expert_feed_forward_length 16
expert_gating_func 2
EOF
        cat "$infos"
        head -c 20000 /dev/zero
    } >"$out/corpus/r1"
    rm -f "$infos"
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
