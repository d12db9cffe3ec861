#!/usr/bin/env python3
"""How many of the tiny R1s' questions are answered right, type against type.

usage: judge_questions.py VAQUITA MODEL_FOLDER QUESTIONS.jsonl [--types f32,n4,n4s] [--limit 100] [--seeds 1-5] [--temp 0.6]

Converts the checkpoint to each type and asks every question with every seed; an answer is graded by
its last \\boxed{}.  A quantised type may be right at most 2 % (of all answers) less often than the
first type.  Standard library only.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile


def boxed(text):
    found = re.findall(r"\\boxed\{([^{}]*)\}", text)
    return found[-1].strip() if found else None


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("vaquita")
    ap.add_argument("model")
    ap.add_argument("questions")
    ap.add_argument("--types", default="f32,n4,n4s")
    ap.add_argument("--limit", type=int, default=100)
    ap.add_argument("--seeds", default="1-5")
    ap.add_argument("--temp", default="0.6")
    a = ap.parse_args()
    lo, _, hi = a.seeds.partition("-")
    seeds = range(int(lo), int(hi or lo) + 1)
    with open(a.questions) as f:
        questions = [json.loads(line) for line in f if line.strip()][:a.limit]
    tmp = tempfile.mkdtemp(prefix="vaquita-questions-")
    first, failed = None, 0
    for t in a.types.split(","):
        vaq = os.path.join(tmp, t + ".vaq")
        subprocess.run([a.vaquita, "convert", a.model, "-o", vaq, "--type", t, "-q"], check=True, capture_output=True)
        right = total = 0
        for q in questions:
            for seed in seeds:
                r = subprocess.run([a.vaquita, "run", vaq, "-p", q["question"], "--temp", a.temp, "--seed", str(seed),
                                    "-n", "512", "--threads", "1", "--json"], capture_output=True)
                if r.returncode:
                    raise SystemExit(r.stderr.decode())
                right += boxed(json.loads(r.stdout)["content"]) == str(q["answer"])
                total += 1
        os.unlink(vaq)
        share = right / total
        first = share if first is None else first
        ok = share >= first - 0.02
        failed += not ok
        print(f"{os.path.basename(os.path.normpath(a.model))} {t}: {right} of {total} right ({100 * share:.1f} %)"
              f"{'' if ok else '  FAILED: more than 2 % below the first type'}", flush=True)
    print(f"{len(a.types.split(',')) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
