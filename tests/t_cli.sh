#!/bin/sh
# t_cli.sh - the program as a user meets it: exit codes, messages, files left behind, JSON.
#
# Whatever a machine lacks is skipped by name.
. "$(dirname "$0")/shell.sh"
models=tests/data/models
small=
cleanup() {
    [ -z "$small" ] || umount "$small" 2>/dev/null
    rm -rf "$dir"
}
trap cleanup EXIT
has() { command -v "$1" >/dev/null 2>&1; }

# expect CODE TEXT ARGUMENT...: exit code, and TEXT in stderr; errors are one line, with no result.
expect() {
    code=$1 text=$2
    shift 2
    $V "$@" >"$dir/out" 2>"$dir/err" </dev/null
    rc=$?
    if [ $rc != "$code" ]; then bad "vaquita $*: exit $rc, expected $code"; return; fi
    if [ -n "$text" ] && ! grep -qF -e "$text" "$dir/err"; then bad "vaquita $*: no '$text' on stderr"; return; fi
    if [ "$code" != 0 ]; then
        if [ "$(wc -l <"$dir/err")" != 1 ]; then bad "vaquita $*: not one line"; return; fi
        if [ -s "$dir/out" ]; then bad "vaquita $*: failed, but wrote to stdout"; return; fi
    fi
    ok
}
none() { # no file of that pattern: nothing half-written is left
    set -- "$1" $2
    if [ $# = 2 ] && [ ! -e "$2" ]; then ok; else bad "$1: left behind: $*"; fi
}

# ---- usage ----
expect 2 "which verb"
expect 0 "" help help
expect 0 "" run -h
expect 2 "an empty name" run "" -p x
expect 2 "an empty name" verify ""
expect 2 "no output" convert $models/tiny-r1-qwen -o ""
expect 2 "not to stdout" convert $models/tiny-r1-qwen -o -
expect 2 "goes with --shape" bench --type n4
expect 2 "goes with --shape" bench --save x.vaq
expect 2 "1 to 61 layers" bench --shape r1:70
expect 4 "NAME:LAYERS" bench --shape r1 --type f32
expect 2 "goes with MODEL" bench --csv x.csv
expect 2 "did you mean 'run'" rum
expect 2 "vaquita help" download
expect 2 "did you mean '--temp'" run x.vaq --tmp 1
expect 2 "too few arguments" run
expect 2 "too few arguments" detokenize x.vaq
expect 2 "too many" verify a b
expect 2 "too many" run a.vaq b.vaq -p x
expect 2 "--threads takes" run x.vaq -p x --threads 0
expect 2 "--threads takes" run x.vaq -p x --threads many
expect 2 "--threads takes" run x.vaq -p x --threads 99999
expect 2 "it has: ref" run x.vaq -p x --cpu pentium
expect 2 "--temp takes" run x.vaq -p x --temp nan
expect 2 "-n takes" run x.vaq -p x -n -1
expect 2 "--top-p takes" run x.vaq -p x --top-p -1
expect 2 "--think is one of" run x.vaq -p x --think loudly
expect 2 "unknown option" run x.vaq -p x --budget 5
expect 2 "--draft is one of" run x.vaq -p x --draft maybe
expect 2 "one place" run x.vaq -p x -f y
expect 2 "one place" logits x.vaq
expect 2 "chat has no --json" chat x.vaq --json
expect 2 "-o OUT.vaq" convert $models/tiny-r1-qwen
expect 2 "--type is one of" convert $models/tiny-r1-qwen -o "$dir/x.vaq" --type q4_0
VQ_CPU=pentium
export VQ_CPU
expect 2 "it has: ref" info
unset VQ_CPU

for v in "" convert run chat info verify tokenize detokenize logits check bench perplexity kl plan export; do
    $V help $v >"$dir/out" 2>&1 || bad "help $v: exit $?"
    check "help $v fits a screen" "$(wc -l <"$dir/out")" -le 24
    check "help $v: 80 columns" "$(awk 'length($0) > 80' "$dir/out" | wc -l)" = 0
done
$V --version | grep -q '^vaquita [0-9]' && ok || bad "--version"
$V run --help | grep -q -- --temp && ok || bad "run --help"
$V run --version | grep -q '^vaquita [0-9]' && ok || bad "run --version"

# ---- convert ----
expect 1 "" convert "$dir/nothing-here" -o "$dir/x.vaq"
q=$dir/qwen.vaq
expect 0 "" convert $models/tiny-r1-qwen -o "$q" -q
cp "$q" "$dir/copy.vaq"
$V convert $models/tiny-r1-llama -o "$q" >"$dir/out" 2>"$dir/err"
rc=$?
check "an existing file is not overwritten" $rc -ne 0
grep -q -- --force "$dir/err" && ok || bad "--force is not mentioned"
same "the existing file stays" "$q" "$dir/copy.vaq"
expect 0 "" convert $models/tiny-r1-qwen -o "$q" --force -q --threads 1
same "the same bytes with one thread" "$q" "$dir/copy.vaq"
expect 0 "" convert $models/tiny-r1-qwen -o "$dir/ref.vaq" -q --cpu ref --threads 3
same "the same bytes at --cpu ref" "$dir/ref.vaq" "$dir/copy.vaq"
expect 0 "" convert $models/tiny-r1-qwen --dry-run
expect 0 "" convert $models/tiny-r1-qwen -o "$dir/dry.vaq" --dry-run
none "--dry-run writes nothing" "$dir/dry.vaq*"
expect 0 "" convert $models/tiny-r1-qwen --dry-run
cp "$dir/out" "$dir/recipe"
expect 0 "" convert $models/tiny-r1-qwen -o "$dir/dry.vaq" -q --type f32 --recipe "$dir/recipe"
expect 0 "" info "$dir/dry.vaq"
grep -q "v,o,down" "$dir/out" && ok || bad "info: no rules"
rm "$dir/dry.vaq"
printf '* l8\nq l9\n' >"$dir/recipe"
expect 2 "recipe:2: 'l9'" convert $models/tiny-r1-qwen -o "$dir/dry.vaq" --recipe "$dir/recipe"
expect 1 "none.txt" convert $models/tiny-r1-qwen --dry-run --recipe "$dir/none.txt"
# ---- export ----
expect 0 "" export "$q" -o "$dir/x.gguf"
grep -q "n4 as IQ4_NL" "$dir/out" && ok || bad "export does not say what became of n4"
expect 1 --force export "$q" -o "$dir/x.gguf"
expect 0 "" export "$q" -o "$dir/x.gguf" --type f16 --force --json
grep -q '"name":"token_embd.weight","type":"F16"' "$dir/out" && ok || bad "export --json"
expect 0 "" convert "$dir/x.gguf" -o "$dir/x.vaq" -q
rm "$dir/x.vaq"
expect 2 "-o OUT.gguf" export "$q"
expect 2 ".gguf" export "$q" -o "$dir/x.vaq"
expect 2 "q5_k" export "$q" -o "$dir/y.gguf" --type q5_k
expect 3 "x.gguf" export "$dir/x.gguf" -o "$dir/y.gguf"
expect 3 "a folder" export $models/tiny-r1-qwen -o "$dir/y.gguf"
none "refused exports leave nothing" "$dir/y.gguf*"
rm "$dir/x.gguf"
# R1's kind there and back; without the groups of its experts, as files of early 2025 are.
expect 0 "" convert $models/tiny-r1-fp8 -o "$dir/there.vaq" -q --type f32 --mtp drop
expect 0 "" export "$dir/there.vaq" -o "$dir/x.gguf" --type f32
expect 0 "" convert "$dir/x.gguf" -o "$dir/back.vaq" -q --type f32
expect 3 "a container already" convert "$dir/back.vaq" -o "$dir/x.vaq"
for f in there back; do
    expect 0 "" logits "$dir/$f.vaq" --ids 3,7,21,340
    mv "$dir/out" "$dir/$f.out"
done
same "logits there and back" "$dir/there.out" "$dir/back.out"
LC_ALL=C sed 's/expert_group/expert_Group/g' "$dir/x.gguf" >"$dir/y.gguf"
expect 0 "expert groups not in the source: one" convert "$dir/y.gguf" -o "$dir/y.vaq" --type n4
for f in y.gguf y.vaq; do
    expect 0 "" info "$dir/$f"
    grep -q "expert groups not in the source" "$dir/out" && ok || bad "info $f: no word of groups"
done
expect 0 "" plan "$dir/y.gguf" --mem-gbs 10
grep -q "expert groups not in the source" "$dir/out" && ok || bad "plan: no word of groups"
rm "$dir/there.vaq" "$dir/back.vaq" "$dir/y.vaq" "$dir/x.gguf" "$dir/y.gguf"
expect 0 "" convert $models/tiny-r1-llama -o "$dir/llama.vaq" -q
expect 0 "" convert $models/tiny-r1-qwen3 -o "$dir/qwen3.vaq" -q
expect 0 "" convert $models/tiny-r1-qwen -o "$dir/ids.vaq" -q --no-tokenizer --type f32
expect 0 "" convert $models/tiny-r1-qwen/model.safetensors -o "$dir/one.vaq" -q

hf() { # a folder like tiny-r1-qwen, to be broken
    rm -rf "$dir/hf"
    mkdir "$dir/hf"
    cp $models/tiny-r1-qwen/* "$dir/hf/"
    chmod u+w "$dir/hf"/*
}
hf
printf 'version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 1951224\n' 7 \
    >"$dir/hf/model.safetensors"
expect 3 "LFS" convert "$dir/hf" -o "$dir/x.vaq"
hf
mv "$dir/hf/model.safetensors" "$dir/hf/pytorch_model.bin"
$V convert "$dir/hf" -o "$dir/x.vaq" >"$dir/out" 2>"$dir/err"
rc=$?
check "a pytorch .bin folder is refused" $rc -eq 3 -o $rc -eq 1
grep -q safetensors "$dir/err" && ok || bad "a pytorch folder: safetensors is not mentioned"
hf
rm "$dir/hf/config.json"
expect 1 "config.json" convert "$dir/hf" -o "$dir/x.vaq"
hf
head -c 100000 $models/tiny-r1-qwen/model.safetensors >"$dir/hf/model.safetensors"
expect 3 "model.safetensors" convert "$dir/hf" -o "$dir/x.vaq"
hf
echo '{' >"$dir/hf/config.json"
expect 3 "config.json" convert "$dir/hf" -o "$dir/x.vaq"
hf
sed 's/"num_hidden_layers": *[0-9]*/"num_hidden_layers": 5/' $models/tiny-r1-qwen/config.json \
    >"$dir/hf/config.json"
expect 3 "" convert "$dir/hf" -o "$dir/x.vaq"
hf
echo '{"model": {"type": "Unigram"}}' >"$dir/hf/tokenizer.json"
expect 3 "--no-tokenizer" convert "$dir/hf" -o "$dir/x.vaq"
expect 0 "" convert "$dir/hf" -o "$dir/x2.vaq" --no-tokenizer -q
expect 1 "" convert $models/tiny-r1-qwen -o "$dir/no/such/folder/x.vaq"
none "failures leave no file" "$dir/x.vaq*"
none "nothing temporary is left" "$dir/*.tmp*"

mkdir "$dir/small"
if [ "$(id -u)" = 0 ] && mount -t tmpfs -o size=300k tmpfs "$dir/small" 2>/dev/null; then
    small=$dir/small
    expect 4 "" convert $models/tiny-r1-qwen -o "$small/x.vaq"
    none "a full disk: nothing is left" "$small/*"
    umount "$small" && small=
else
    skip "full disk: needs root and tmpfs"
fi
(ulimit -f 100 && exec $V convert $models/tiny-r1-qwen -o "$dir/x.vaq") >"$dir/out" 2>"$dir/err"
check "a limit of file sizes" $? = 4
none "a limit of file sizes: nothing is left" "$dir/x.vaq*"

# ---- containers ----
expect 1 "nothing.vaq" run "$dir/nothing.vaq" -p x
for v in "run -p x" "chat" "tokenize x" "logits -p x" verify; do
    set -- $v
    verb=$1
    shift
    expect 3 "convert" "$verb" $models/tiny-r1-qwen "$@"
done
expect 3 "" run $models/tiny-r1-qwen/model.safetensors -p x
expect 3 "" info $models/tiny-r1-qwen/tokenizer.json
: >"$dir/empty.vaq"
expect 3 "empty.vaq" verify "$dir/empty.vaq"
expect 1 "/dev/null" verify /dev/null
head -c 100000 "$q" >"$dir/cut.vaq"
expect 3 "cut.vaq" run "$dir/cut.vaq" -p x
expect 3 "cut.vaq" verify "$dir/cut.vaq"
cp "$q" "$dir/new.vaq"
printf '\002' | dd of="$dir/new.vaq" bs=1 seek=8 conv=notrunc 2>/dev/null
expect 3 "newer" run "$dir/new.vaq" -p x
cp "$q" "$dir/flip.vaq"
size=$(wc -c <"$q")
printf '\125\252' | dd of="$dir/flip.vaq" bs=1 seek=$((size - 5000)) conv=notrunc 2>/dev/null
expect 0 "" verify "$q"
$V verify "$q" --json | grep -q "\"bytes\":$size," && ok || bad "verify counts every byte"
$V verify "$dir/flip.vaq" >"$dir/out" 2>"$dir/err"
check "verify of a flipped byte" $? = 3
grep -q '^bad: bytes [0-9]* to [0-9]*, ' "$dir/out" && ok || bad "verify does not name the damage"
expect 1 "another model" verify "$dir/flip.vaq" --repair "$dir/llama.vaq"
expect 1 "is not the checkpoint" verify "$dir/flip.vaq" --repair $models/tiny-r1-llama
for from in "$q" $models/tiny-r1-qwen; do
    cp "$dir/flip.vaq" "$dir/mend.vaq"
    printf 'x' | dd of="$dir/mend.vaq" bs=1 seek=1000 conv=notrunc 2>/dev/null
    expect 0 "" verify "$dir/mend.vaq" --repair "$from"
    check "front and body were mended" "$(grep -c '^repaired: ' "$dir/out")" = 2
    same "verify --repair $from" "$q" "$dir/mend.vaq"
    expect 0 "" verify "$dir/mend.vaq" --repair "$from"
done
cp "$dir/flip.vaq" "$dir/mend.vaq"

# ---- run ----
question='Compute 646 + 683.'
run_text() { $V run "$q" -p "$question" --temp 0 "$@" 2>"$dir/err"; }
run_text >"$dir/show" && ok || bad "run"
run_text --think hide >"$dir/hide"
run_text --think only >"$dir/only"
grep -q 'boxed{1329}' "$dir/show" && ok || bad "the answer is wrong: $(cat "$dir/show")"
grep -q 'boxed{1329}' "$dir/hide" && ok || bad "--think hide lacks the answer"
grep -q boxed "$dir/only" && bad "--think only shows the answer" || ok
{ cat "$dir/only"; echo; cat "$dir/hide"; } >"$dir/joined"
same "show is the thoughts, a blank line, the answer" "$dir/show" "$dir/joined"
grep -q "$(printf '\033')" "$dir/show" && bad "escape codes in a pipe" || ok
check "a pipe's stderr is empty" ! -s "$dir/err"
printf '%s\n' "$question" | $V run "$q" --temp 0 --think hide >"$dir/stdin"
same "the prompt from stdin" "$dir/hide" "$dir/stdin"
printf '%s\r\n' "$question" >"$dir/prompt"
$V run "$q" -f "$dir/prompt" --temp 0 --think hide >"$dir/file"
same "the prompt from a file" "$dir/hide" "$dir/file"

expect 2 "empty" run "$q" -p ''
expect 2 "empty" run "$q" -f /dev/null
expect 2 "empty" run "$q"
expect 1 "nothing.txt" run "$q" -f "$dir/nothing.txt"
expect 2 "ids" run "$q" --prompt-ids 1,x
expect 2 "ids" run "$q" --prompt-ids ''
$V run "$q" --prompt-ids 99999999 >"$dir/out" 2>"$dir/err"
check "an id outside the vocabulary" $? = 2
$V run "$q" --prompt-ids -1 >"$dir/out" 2>"$dir/err"
check "a negative id" $? = 2
expect 4 "a larger --ctx (up to 4096)" run "$q" -p "$question" --ctx 8
head -c 20000 /dev/zero | tr '\0' x >"$dir/prompt"
expect 4 "shorten the prompt" run "$q" -f "$dir/prompt"
expect 4 "" run "$q" -p "$question" --ctx 1G
$V run "$q" -p "$question" --temp 0 -n 5 --ids >"$dir/out" 2>"$dir/err"
check "-n 5 --ids prints five ids" "$(wc -w <"$dir/out")" = 5
$V run "$dir/ids.vaq" --prompt-ids "$($V tokenize "$q" --chat "$question")" --temp 0 -n 5 \
    >"$dir/out2" 2>"$dir/err"
check "ids without a tokenizer" "$(wc -w <"$dir/out2")" = 5
expect 2 "tokenizer" run "$dir/ids.vaq" -p x
expect 2 "tokenizer" detokenize "$dir/ids.vaq" 1

# The same bits whatever computes them.
levels=$($V info | sed -n 's/^levels *//p' | tr -d ,)
$V logits "$q" -p "$question $question $question" >"$dir/logits" 2>"$dir/err" || bad "logits"
grep -Eq '^positions [0-9]+ vocab [0-9]+ sha256 [0-9a-f]{64}$' "$dir/logits" && ok ||
    bad "logits line"
$V run "$q" -p "$question" --temp 1.5 --seed 7 --ids >"$dir/ids"
for l in $levels; do
    for t in 1 3; do
        $V logits "$q" -p "$question $question $question" --cpu $l --threads $t --chunk $t \
            >"$dir/out"
        same "logits at $l with $t threads" "$dir/logits" "$dir/out"
    done
    $V run "$q" -p "$question" --temp 1.5 --seed 7 --ids --cpu $l >"$dir/out"
    same "sampled ids at $l" "$dir/ids" "$dir/out"
done
$V logits "$q" --ids 0,1,2 -o "$dir/rows" >"$dir/out"
vocab=$(sed 's/.*vocab \([0-9]*\) .*/\1/' "$dir/out")
check "rows of f32" "$(wc -c <"$dir/rows")" = $((3 * 4 * vocab))
$V logits "$q" --ids 0,1,2 -o - 2>"$dir/err" >"$dir/rows2"
same "rows on stdout" "$dir/rows" "$dir/rows2"
$V logits "$q" --ids 0,1,2 --last -o "$dir/rows2" >/dev/null
tail -c "$(wc -c <"$dir/rows2")" "$dir/rows" >"$dir/out"
same "the last row" "$dir/out" "$dir/rows2"
expect 2 "" logits "$q" --ids 99999999
expect 1 "rows" logits "$q" --ids 0 -o "$dir/no/rows"
cp "$q" "$dir/kept.vaq"
expect 2 "the model itself" logits "$dir/kept.vaq" --ids 0 -o "$dir/kept.vaq"
ln -s kept.vaq "$dir/link.vaq"
expect 2 "the model itself" logits "$dir/link.vaq" --ids 0 -o "$dir/kept.vaq"
expect 2 "the model itself" logits "$dir/kept.vaq" --ids 0 -o "$dir/link.vaq"
same "a model is not overwritten by its logits" "$q" "$dir/kept.vaq"
cp "$dir/rows" "$dir/rows2"
$V logits "$q" --ids 0,99999999 -o "$dir/rows2" >"$dir/out" 2>"$dir/err"
same "logits that fail leave an earlier file" "$dir/rows" "$dir/rows2"
$V logits "$q" --ids 5,6,7 -o "$dir/rows2" >"$dir/out" 2>"$dir/err"
cmp -s "$dir/rows" "$dir/rows2" && bad "logits replace an earlier file" || ok
none "nothing temporary is left of logits" "$dir/rows*.tmp*"

# ---- tokens ----
printf 'caf\303\251 \344\275\240\345\245\275\n\n  123 <think>' >"$dir/text"
$V tokenize "$q" -f "$dir/text" >"$dir/out" || bad "tokenize"
$V detokenize "$q" $(cat "$dir/out") >"$dir/back"
same "tokenize and back" "$dir/text" "$dir/back"
$V detokenize "$q" - <"$dir/out" >"$dir/back"
same "ids from stdin" "$dir/text" "$dir/back"
a=$($V tokenize "$q" '<think>' | wc -w) b=$($V tokenize "$q" --special '<think>' | wc -w)
check "marks in a text do not act, with --special they do" "$a" -gt 1 -a "$b" = 1
expect 2 "no token" detokenize "$q" 99999999
expect 2 "detokenize takes" detokenize "$q" one
check "an empty text has no ids" "$($V tokenize "$q" '')" = ""
echo '[{"role":"user","content":"hi"}]' >"$dir/m.json"
check "--messages and --chat agree" \
    "$($V tokenize "$q" --messages "$dir/m.json")" = "$($V tokenize "$q" --chat hi)"
echo '[{"role":"nobody","content":"hi"}]' >"$dir/m.json"
$V tokenize "$q" --messages "$dir/m.json" >"$dir/out" 2>"$dir/err"
check "an unknown role" $? -ne 0

# ---- chat, line by line ----
printf '%s\n\n   \n/think hide\n%s\n/nonsense\n/clear\n%s' "$question" "$question" "$question" |
    $V chat "$q" --temp 0 >"$dir/out" 2>"$dir/err"
check "chat from a pipe" $? = 0
check "three answers" "$(grep -c 'boxed{1329}' "$dir/out")" = 3
check "a blank line is no question" "$(grep -c boxed "$dir/out")" = 3
grep -q "$(printf '\033')" "$dir/out" && bad "escape codes in a pipe of chat" || ok
grep -q nonsense "$dir/err" && ok || bad "an unknown command is not told"
printf '/exit\n%s\n' "$question" | $V chat "$q" >"$dir/out" 2>"$dir/err"
grep -q boxed "$dir/out" && bad "/exit does not leave" || ok
printf '%s\n%s\n' "$question" "$question" | $V chat "$q" --temp 0 --ctx 40 >"$dir/out" 2>"$dir/err"
check "chat goes on when the context is full" $? = 0

# ---- pipes, disks, memory ----
{
    sleep 1
    $V run "$q" -p "$question"
    echo $? >"$dir/rc"
} 2>"$dir/err" | :
sleep 2
for i in 1 2 3 4 5 6 7 8 9 10; do [ -s "$dir/rc" ] || sleep 1; done
check "a reader that is gone is no error" "$(cat "$dir/rc" 2>/dev/null)" = 0
check "and nothing is said" ! -s "$dir/err"
if [ -c /dev/full ]; then
    $V info >/dev/full 2>"$dir/err"
    check "a full stdout is an error" $? = 4
    grep -q 'standard output' "$dir/err" && ok || bad "a full stdout is not named"
    $V logits "$q" --ids 0,1 -o /dev/full >"$dir/out" 2>"$dir/err"
    check "a full output file is an error" $? = 4
    check "a device is not removed" -c /dev/full
else
    skip "full stdout: no /dev/full"
fi
if [ -z "${VQ_SANITIZE:-}${VQ_RUN:-}" ]; then
    for kb in 3000 6000 9000 12000; do
        (ulimit -v $kb && $V run "$q" -p x) >"$dir/out" 2>"$dir/err"
        rc=$?
        [ $rc = 127 ] || [ $rc = 126 ] && continue # not even the loader
        check "no memory ($kb kB)" $rc = 4
        check "no memory ($kb kB): one line" "$(wc -l <"$dir/err")" = 1
    done
    (ulimit -v 20000 && $V check) >"$dir/out" 2>"$dir/err"
    check "check without memory" $? = 4
else
    skip "no memory: sanitizers and emulators reserve address space"
fi
$V run "$q" -p x <&- >"$dir/out" 2>"$dir/err"
check "a closed stdin" $? = 0
$V info >&- 2>"$dir/err"
check "a closed stdout" $? = 1

# ---- what needs a larger model: zeros, 30 M of them, in a sparse file ----
if has python3; then
    python3 tests/tools/zero_checkpoint.py "$dir/big" && ok || bad "zero_checkpoint.py"
    timeout=
    if has timeout && timeout --preserve-status 5 true 2>/dev/null; then timeout=1; fi
    # Ctrl-C as soon as the unfinished file is there; the reference encoder is in no hurry.
    python3 tests/tools/interrupt.py "$dir/big.vaq.unfinished" $V convert "$dir/big" \
        -o "$dir/big.vaq" --no-tokenizer --threads 1 --cpu ref --type l6 >"$dir/out" 2>"$dir/err"
    check "an interrupted convert" $? = 130
    check "what it did is kept" -e "$dir/big.vaq.unfinished" -a -e "$dir/big.vaq.journal"
    grep -q 'the same command goes on' "$dir/err" && ok || bad "and how to go on is told"
    expect 1 "is not finished" info "$dir/big.vaq"
    expect 1 "another recipe" convert "$dir/big" -o "$dir/big.vaq" --no-tokenizer --type l8
    expect 0 "resuming: " convert "$dir/big" -o "$dir/big.vaq" --no-tokenizer --type l6
    none "a finished one leaves nothing beside it" "$dir/big.vaq.*"
    expect 0 "" convert "$dir/big" -o "$dir/whole.vaq" --no-tokenizer --type l6 -q
    same "the bytes are those of an undisturbed one" "$dir/big.vaq" "$dir/whole.vaq"
    rm -f "$dir/big.vaq" "$dir/whole.vaq"
    expect 0 "" convert "$dir/big" -o "$dir/big.vaq" --no-tokenizer -q --type f32
    if [ -n "$timeout" ]; then
        timeout --preserve-status -s INT 2 $V run "$dir/big.vaq" --prompt-ids 1 --temp 0 --cpu ref \
            --threads 1 >"$dir/out" 2>"$dir/err"
        check "an interrupted run" $? = 130
        check "what was there is shown" "$(wc -w <"$dir/out")" -ge 1
    fi
    $V run "$dir/big.vaq" --prompt-ids 1 --temp 0 --cpu ref --threads 1 >"$dir/out" 2>"$dir/err" &
    pid=$!
    sleep 1
    : >"$dir/big.vaq"
    wait $pid
    rc=$?
    check "a file cut while mapped is no crash (exit $rc)" $rc = 3 -o $rc = 1
    check "and is told in one line" "$(wc -l <"$dir/err")" = 1

    # ---- JSON ----
    json() { # fields, then the command
        fields=$1
        shift
        $V "$@" --json >"$dir/out" 2>"$dir/err"
        rc=$?
        if python3 tests/tools/json_fields.py "$fields" <"$dir/out" >>"$dir/err" 2>&1; then ok
        else bad "vaquita $* --json (exit $rc): $(head -c 200 "$dir/out")"; fi
    }
    json "version compiler levels[] features[] kernels{} cpu" info
    json "arch name params layers hidden heads kv_heads vocab ctx bpw bytes arith types{} template \
        source{} quality{} cpu" info "$q"
    json "arch params layers hidden heads kv_heads vocab cpu" info $models/tiny-r1-qwen
    json "bytes bpw seconds read_mbs peak_rss source_bytes resumed_bytes tensors[name,type,rows,cols,rel_rmse] sha256 cpu" \
        convert $models/tiny-r1-qwen -o "$q" --force
    json "ok=true bad[] cpu" verify "$q"
    json "ok=false bad[offset,length,tensor] cpu" verify "$dir/flip.vaq"
    json "ok=false bad[]" verify "$dir/cut.vaq"
    json "ok=true bad[offset,length,tensor,repaired] repaired_bytes" verify "$dir/mend.vaq" \
        --repair "$q"
    json "ids[] pieces[] cpu" tokenize "$q" hello
    json "text cpu" detokenize "$q" 5 6
    json "positions=2 vocab sha256 cpu" logits "$q" --ids 5,6
    json "reasoning content ids[] seed finish_reason=stop usage{prompt,thinking,answer,cached} \
        timing{prefill_tps,decode_tps,load_ms} \
        draft{mode,drafted,accepted,verifications,tokens_per_verification} cpu" \
        run "$q" -p "$question" --temp 0
    json "seed=123 finish_reason=length ids[]" run "$q" -p "$question" --seed 123 -n 3
    json "ok=true cases failed=0 seed cpu" check quant_a64
    if [ -n "$timeout" ] && [ -z "${VQ_RUN:-}" ]; then
        python3 tests/tools/pty_chat.py $V chat "$q" --temp 0 >"$dir/pty" 2>&1 && ok ||
            bad "chat on a terminal: $(tail -n 5 "$dir/pty")"
    else
        skip "chat on a terminal: under an emulator"
    fi
else
    skip "interrupts, truncation, JSON, terminal: no python3"
fi

result
