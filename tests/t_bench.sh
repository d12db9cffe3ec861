#!/bin/sh
# t_bench.sh - `vaquita bench` and `check` around their measurements: what is refused and when, rows
# of --csv, --compare, JSON.
#
# Speeds are never judged.  Runs are as short as they can be, with a model of four layers.
. "$(dirname "$0")/shell.sh"
q=$dir/q.vaq
c=$dir/rows.csv
header=level,threads,model,type,what,tokens,batch,reps,tps,share,limit,unit
$V convert tests/data/models/tiny-r1-qwen -o "$q" -q || bad "convert"
quick() { $V bench "$@" --threads 1 -p 8 -n 2 --reps 1 >"$dir/out" 2>"$dir/err" </dev/null; }
says() { # what, a line or its beginning, in the output of the last command
    if grep -qF -e "$2" "$dir/out"; then ok; else bad "$1: no '$2' in: $(head -c 99 "$dir/out")"; fi
}
early() { # like fails; and nothing was measured or made: no results on stdout
    fails "$@"
    check "bench: refused before measuring" ! -s "$dir/out"
}

# ---- what is refused ----
for o in "-p 8" "-n 2" "--depth 8" "--batch 1" "--reps 1" "--csv $c"; do
    early 2 "${o% *} goes with MODEL" bench $o
done
early 2 "from 1 to 1000" bench "$q" --reps 1001
early 2 "--batch: 4097 is out of range (1 to 4096)" bench "$q" --batch 1,4097
early 2 "--batch: 0 is out of range" bench "$q" --batch 0
early 2 "--depth: 1048577 is out of range (0 to 1048576)" bench "$q" --depth 1048577
for l in "" , 8,x 8x -1 +8 8,,8 1.5 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17; do
    early 2 "-p: expected up to 16 numbers" bench "$q" -p "$l"
done
for n in " 1" +1 "" 0 x 1x 29; do
    early 2 "1 to 28 layers" bench --shape "qwen-1.5b:$n"
done
early 4 "take a smaller --depth, -n, -p or --batch" bench "$q" --depth 4096
grep -q -e --ctx "$dir/err" && bad "bench speaks of --ctx, which it lacks" || ok
early 2 "it has: ref" bench --cpu ""
early 2 "not to stdout" bench --shape qwen-1.5b:1 --save -
echo kept >"$dir/there.vaq"
early 1 "remove it or" bench --shape qwen-1.5b:1 --save "$dir/there.vaq"
early 1 "folder does not exist" bench --shape qwen-1.5b:1 --save "$dir/no/x.vaq"
check "--save leaves what is there" "$(cat "$dir/there.vaq")" = kept

# ---- rows of --csv ----
early 1 "folder does not exist" bench "$q" --csv "$dir/no/rows.csv"
early 1 "$dir: " bench "$q" --csv "$dir"
echo "a,b" >"$c"
early 3 "expected the header line" bench "$q" --csv "$c"
echo "${header}s" >"$c"
early 3 "expected the header line" bench "$q" --csv "$c"
check "a foreign file stays as it is" "$(cat "$c")" = "${header}s"
early 2 "both want stdout" bench "$q" --csv - --json
rm "$c"
early 2 "--batch" bench "$q" --csv "$c" --batch 0
early 1 "nothing.vaq" bench "$dir/nothing.vaq" --csv "$c"
check "a run that fails leaves no file of rows" ! -e "$c"
quick "$q" --csv "$c" || bad "--csv"
says "--csv prints the table too" "decode @0"
check "a header and two rows" "$(wc -l <"$c")" = 3 -a "$(head -n 1 "$c")" = "$header"
awk -F, 'NR > 1 && (NF != 12 || $9 <= 0 || $10 <= 0) { exit 1 }' "$c" && ok || bad "$(cat "$c")"
cp "$c" "$dir/first"
quick "$q" --csv "$c"
head -n 3 "$c" | cmp -s - "$dir/first" && ok || bad "--csv changed earlier rows"
check "rows are added, the header is not" "$(wc -l <"$c")" = 5 -a "$(grep -c level "$c")" = 1
printf '%s\nlast' "$header" >"$c"
ln -s rows.csv "$dir/link.csv"
quick "$q" --csv "$dir/link.csv"
check "a last line without its end gets one" "$(sed -n 2p "$c")" = last -a "$(wc -l <"$c")" = 4
check "a link is followed" -L "$dir/link.csv"
printf %s "$header" >"$c"
quick "$q" --csv "$c"
check "so does a header" "$(head -n 1 "$c")" = "$header" -a "$(wc -l <"$c")" = 3
cp "$q" "$dir/a, \"b\".vaq"
quick "$dir/a, \"b\".vaq" --csv -
check "--csv - prints rows alone" "$(head -n 1 "$dir/out")" = $header -a "$(wc -l <"$dir/out")" = 3
says "names are quoted" "1,\"$dir/a, \"\"b\"\".vaq\",,prefill,8,1,1,"
if [ -z "${VQ_SANITIZE:-}${VQ_RUN:-}" ]; then
    { echo $header; head -c 1000 /dev/zero | tr '\0' '\n'; } >"$c"
    cp "$c" "$dir/first"
    (ulimit -f 2; trap '' XFSZ; quick "$q" --csv "$c")
    check "rows that do not fit are an error" $? = 4
    says "whose results are shown all the same" "decode @0"
    same "and the file is as it was" "$c" "$dir/first"
else
    skip "full file: sanitizers and emulators write more than the limit"
fi

# ---- --compare ----
result_of() { # file, cpu, threads, int8_gmacs, tps of prefill 32, rows of decode
    echo "{\"cpu\":\"$2\",\"model\":\"m\",\"threads\":$3," \
        "\"roofline\":{\"read_gbs\":10,\"int8_gmacs\":$4}," \
        "\"prefill\":[{\"tokens\":32,\"tps\":$5,\"share\":0.5}],\"decode\":[$6]}" >"$dir/$1"
}
d0='{"depth":0,"batch":1,"tps":20,"share":0.8}' d9='{"depth":9,"batch":1,"tps":10,"share":0.4}'
d8='{"depth":0,"batch":8,"tps":60,"share":0.4}'
result_of a.json avx2 2 100 50 "$d0,$d9"
result_of b.json ref 2 100 75 "$d8,$d0"
$V bench --compare "$dir/a.json" "$dir/a.json" >"$dir/out" 2>"$dir/err" && ok || bad "--compare A A"
grep -q "not the same\|only" "$dir/out" && bad "a result differs from itself" || ok
check "eight lines of ratio 1" "$(grep -c ' 1\.000$' "$dir/out")" = 8
$V bench --compare "$dir/a.json" "$dir/b.json" >"$dir/out" 2>"$dir/err" && ok || bad "--compare A B"
says "another level" "not the same cpu: A 'avx2', B 'ref'"
check "the rest is the same" "$(grep -c "not the same" "$dir/out")" = 1
grep -Eq '^prefill 32 tokens/s +50 +75 +1\.500$' "$dir/out" && ok || bad "ratio: $(cat "$dir/out")"
check "rows of one side" "$(grep -c '^decode @9 x 1 .* only A$' "$dir/out")" = 2 \
    -a "$(grep -c '^decode @0 x 8 .* only B$' "$dir/out")" = 2
$V bench --compare "$dir/a.json" "$dir/b.json" --json >"$dir/out" 2>"$dir/err"
says "JSON: what differs" '"differs":[{"field":"cpu","a":"avx2","b":"ref"}]'
says "JSON: a row" '{"what":"prefill 32 share","a":0.5,"b":0.5,"ratio":1}'
says "JSON: a row of one side" '{"what":"decode @9 x 1 tokens/s","a":10,"b":null,"ratio":null}'
says "JSON: a row of the other" '{"what":"decode @0 x 8 share","a":null,"b":0.4,"ratio":null}'
for v in -1 0 null 1e999 '"9"' '[]'; do
    result_of c.json avx2 2 100 "$v" "$d0"
    early 3 "c.json: prefill[0].tps: expected" bench --compare "$dir/a.json" "$dir/c.json"
    result_of c.json avx2 2 "$v" 50 "$d0"
    early 3 "c.json: roofline.int8_gmacs: " bench --compare "$dir/c.json" "$dir/a.json"
done
result_of c.json avx2 2 100 50 "$d0,{\"depth\":-1,\"batch\":1,\"tps\":1,\"share\":1}"
early 3 "decode[1].depth: " bench --compare "$dir/a.json" "$dir/c.json"
result_of c.json avx2 2 100 50 7
early 3 "decode[0].depth: " bench --compare "$dir/a.json" "$dir/c.json"
echo '{}' >"$dir/c.json"
early 3 "other JSON" bench --compare "$dir/a.json" "$dir/c.json"
early 2 "--reps has no place" bench --compare "$dir/a.json" "$dir/b.json" --reps 1
early 2 "takes two files" bench --compare "$dir/a.json"

# ---- check ----
$V check --cpu ref add >"$dir/out" 2>"$dir/err" && ok || bad "check --cpu ref: every level works"
says "check --cpu ref" "nothing compared"
VQ_CPU=
export VQ_CPU
$V check add >"$dir/out" 2>"$dir/err" && ok || bad "an empty VQ_CPU is none"
unset VQ_CPU
$V check --cpu ref --bench rmsnorm >"$dir/out" 2>"$dir/err" && ok || bad "the reference is timed"
says "check --cpu ref --bench" "nothing compared"

# ---- JSON ----
if command -v python3 >/dev/null 2>&1; then
    json() { # fields of what the last command printed
        python3 tests/tools/json_fields.py "$1" <"$dir/out" >"$dir/err" 2>&1 && ok ||
            bad "JSON: $(head -c 300 "$dir/out")"
    }
    quick "$q" --json --depth 3 --batch 2
    json "version cpu model threads=1 reps=1 n=2 weight_bytes roofline{read_gbs,int8_gmacs} \
        prefill[tokens,tps,share,limit] decode[depth,batch,tps,gbs,share,limit] load_ms private_mb"
    cp "$dir/out" "$dir/c.json"
    $V bench --compare "$dir/c.json" "$dir/c.json" --json >"$dir/out" 2>"$dir/err"
    json "a b differs[] rows[what,a,b,ratio]"
    $V check --json --bench rmsnorm >"$dir/out" 2>"$dir/err"
    json "rates[op,cpu,rate,unit] ok=true cases failed=0 seed cpu"
else
    skip "JSON: no python3"
fi

result
