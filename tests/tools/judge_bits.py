#!/usr/bin/env python3
"""The bits of a real model: SmolLM2-135M as N4, 300 ids, once per CPU level, against a golden.

usage: judge_bits.py VAQUITA SMOLLM2_FOLDER [--on "qemu-aarch64-static OTHER_VAQUITA"] [--remake]

The folder is the one tests/tools/judge_golden.py wants.  VAQUITA converts it; every level it has,
and every level of the program given with --on (another build, an emulator), must print the hash of
all logits and the sampled ids of tests/data/golden/smollm2.txt.  The reference level takes some
seconds, an emulator a minute per level.  Standard library only.
"""
import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "..", "data", "golden", "smollm2.txt")
IDS = ",".join(str((7919 * i + 11) % 49152) for i in range(300))


def run(*cmd):
    r = subprocess.run(cmd, capture_output=True, text=True)
    if r.returncode:
        raise SystemExit(f"{' '.join(cmd)[:200]}: {r.stderr.strip()}")
    return r.stdout


def bits(program, model, level):
    """One line: the hash of 300 rows of logits, then 20 ids drawn behind them."""
    logits = run(*program, "logits", model, "--ids", IDS, "--cpu", level)
    ids = run(*program, "run", model, "--prompt-ids", IDS, "--temp", "0.8", "--seed", "3",
              "-n", "20", "--ids", "-q", "--cpu", level)
    return logits.split()[-1] + " " + ids.strip().replace("\n", " ")


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("vaquita")
    ap.add_argument("smollm2")
    ap.add_argument("--on", action="append", default=[])
    ap.add_argument("--remake", action="store_true")
    a = ap.parse_args()
    with open(GOLDEN, encoding="ascii") as f:
        want = [line.strip() for line in f if line.strip() and line[0] != "#"][0]
    passed = failed = 0
    with tempfile.TemporaryDirectory() as work:
        model = os.path.join(work, "smollm2.vaq")
        run(a.vaquita, "convert", a.smollm2, "-o", model, "--type", "n4", "-q")
        if a.remake:
            print(bits([a.vaquita], model, "ref"))
            return 0
        for program in [[a.vaquita]] + [shlex.split(p) for p in a.on]:
            levels = json.loads(run(*program, "info", "--json"))["levels"]
            for level in levels:
                if program[0] != a.vaquita and level == "ref":
                    continue        # plain C, already run here; far too slow under an emulator
                got = bits(program, model, level)
                passed, failed = passed + (got == want), failed + (got != want)
                print(("ok      " if got == want else "FAILED  ") + level
                      + ("" if got == want else f": {got}"), flush=True)
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
