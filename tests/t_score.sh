#!/bin/sh
# t_score.sh - perplexity and kl: figures recomputed from raw logits, resuming, refusals.
. "$(dirname "$0")/shell.sh"

m=tests/data/models/tiny-r1-qwen
for t in f32 n4; do $V convert $m -o "$dir/$t.vaq" --type $t -q >/dev/null || exit 1; done
sed -n '1,12s/.*"question": *"\([^"]*\)".*/\1/p' tests/data/questions.jsonl >"$dir/text"
opts="-f $dir/text --ctx 32"

# The same figures at any time, for any number of threads, cut off and resumed.
$V perplexity "$dir/n4.vaq" $opts >"$dir/ppl" 2>"$dir/err" && grep -q '^perplexity' "$dir/ppl" &&
    ok || bad "perplexity: $(cat "$dir/err")"
$V perplexity "$dir/n4.vaq" $opts --threads 1 --out "$dir/run" >"$dir/ppl1" && same "one thread" \
    "$dir/ppl" "$dir/ppl1"
head -c 300 "$dir/run" >"$dir/cut"
$V perplexity "$dir/n4.vaq" $opts --out "$dir/cut" >"$dir/ppl2" && same "resumed" "$dir/ppl" \
    "$dir/ppl2"
same "the lines of a resumed run" "$dir/run" "$dir/cut"
fails 2 "belongs to another run" perplexity "$dir/f32.vaq" $opts --out "$dir/run"
# Files that no run wrote stay as they are, those without a newline, too.
for text in 'my only notes' '{"perplexity":"of something else"}' '['; do
    printf '%s' "$text" >"$dir/notes"
    printf '%s' "$text" >"$dir/notes2"
    fails 2 "belongs to another run" perplexity "$dir/n4.vaq" $opts --out "$dir/notes"
    same "a foreign file" "$dir/notes" "$dir/notes2"
done
head -c 20 "$dir/run" >"$dir/cut"
$V perplexity "$dir/n4.vaq" $opts --out "$dir/cut" >"$dir/ppl2" && same "cut in its first line" \
    "$dir/run" "$dir/cut"
fails 1 "not a regular file" perplexity "$dir/n4.vaq" $opts --out /dev/null
$V kl "$dir/f32.vaq" "$dir/n4.vaq" $opts --out "$dir/klrun" >"$dir/kl" && ok || bad "kl"
head -c 2000 "$dir/klrun" >"$dir/klcut"
$V kl "$dir/f32.vaq" "$dir/n4.vaq" $opts --out "$dir/klcut" >"$dir/kl2" && same "kl resumed" \
    "$dir/kl" "$dir/kl2"
$V kl "$dir/f32.vaq" "$dir/f32.vaq" $opts | grep -q \
    '^kl mean 0.000000, p99 0.000000, max 0.0000; same first token 100.00 %' && ok ||
    bad "a model differs from itself"
fails 2 "less than one chunk" perplexity "$dir/n4.vaq" -f "$dir/text" --ctx 4096
fails 2 "which text" perplexity "$dir/n4.vaq"
fails 2 "not a list of token ids" perplexity "$dir/n4.vaq" $opts --ids
fails 1 "nowhere" perplexity "$dir/n4.vaq" -f "$dir/nowhere"
$V convert $m -o "$dir/ids.vaq" --type n4 --no-tokenizer -q >/dev/null
fails 2 "only models of one vocabulary compare" kl "$dir/ids.vaq" "$dir/n4.vaq" $opts

# From raw logits, by another program.
if command -v python3 >/dev/null 2>&1; then
    ids=$(cat "$dir/text" | $V tokenize "$dir/n4.vaq" -f - | tr ' ' ',')
    bos=$(sed -n 's/.*"bos_token_id": *\([0-9]*\).*/\1/p' $m/generation_config.json)
    for t in f32 n4; do
        $V perplexity "$dir/$t.vaq" $opts --limit 1 --json >"$dir/$t.json"
        head=$(printf '%s,%s' "$bos" "$ids" | cut -d, -f1-32)
        $V logits "$dir/$t.vaq" --ids "$head" -o "$dir/$t.rows" >/dev/null
    done
    $V kl "$dir/f32.vaq" "$dir/n4.vaq" $opts --limit 1 --json >"$dir/kl.json"
    python3 - "$dir" "$head" <<'PY' && ok || bad "figures recomputed from logits"
import array, json, math, sys
d, ids = sys.argv[1], [int(x) for x in sys.argv[2].split(",")]
def rows(t):
    a = array.array("f", open(f"{d}/{t}.rows", "rb").read())
    n = len(a) // 32
    return [a[i * n:(i + 1) * n] for i in range(32)]
def logp(r):
    m = max(r)
    s = m + math.log(sum(math.exp(x - m) for x in r))
    return [x - s for x in r]
lp = {t: [logp(r) for r in rows(t)] for t in ("f32", "n4")}
at = range(16, 31)
for t in lp:
    nll = -sum(lp[t][i][ids[i + 1]] for i in at) / 15
    j = json.load(open(f"{d}/{t}.json"))
    assert abs(j["nll"] - nll) < 1e-5 * nll and abs(j["ppl"] / math.exp(nll) - 1) < 1e-5, (j, nll)
    assert j["tokens"] == 15 and j["chunks"] == 1, j
kl = [sum(math.exp(p) * (p - q) for p, q in zip(lp["f32"][i], lp["n4"][i])) for i in at]
top = [max(range(len(r)), key=r.__getitem__) for t in ("f32", "n4") for r in (lp[t][i] for i in at)]
j = json.load(open(f"{d}/kl.json"))
assert abs(j["kl_mean"] - sum(kl) / 15) < 1e-6 and abs(j["kl_max"] - max(kl)) < 1e-6, (j, kl)
assert abs(j["top1"] - sum(a == b for a, b in zip(top, top[15:])) / 15) < 1e-9, j
PY
else
    skip "figures recomputed from logits: no python3"
fi
result
