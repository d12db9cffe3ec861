#!/usr/bin/env python3
"""Judges `vaquita tokenize` against Hugging Face tokenizers, id by id.

usage: judge_tokenizers.py [--mb 10] [--seed 1] [--only NAME] [VAQUITA]

Makes at least --mb million bytes of mixed text (English and code from the Python library, words of
the vocabularies put together at random, Chinese, random code points that Unicode 14 assigns, marks
that combine, blanks, contractions, numbers, control tokens), the same for the same seed, in chunks
of about 100 kB.  For each tokenizer (the four that rebuild_tokenizers.py of the shared data writes,
SmolLM2's when its package is there, the tiny models') it converts a small checkpoint with that
tokenizer and compares the ids of every chunk with those of the package `tokenizers`.
Environment: VQ_SHARED (../shared), VAQUITA (build/vaquita).  Needs: pip install tokenizers
"""
import argparse
import glob
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import unicodedata

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
CHUNK = 100000
SPACES = [*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F,
          0x205F, 0x3000]
CONTROLS = [*range(0x20), 0x7F, 0x200B, 0x200D, 0xFE0F, 0xFEFF, 0xFFFD, 0x1F469, 0x1F3FD,
            *range(0x21, 0x7F)]
NORMAL = [      # beside marks: jamo, letters that decompose, singletons
    [*range(0x1100, 0x1113), *range(0x1161, 0x1176), *range(0x11A8, 0x11C3), 0xAC00, 0xB098],
    [*range(0x41, 0x7B), *range(0xC0, 0x250), *range(0x1E00, 0x2000)],
    [*range(0xF900, 0xFA6E), 0x212A, 0x2126]]
CUTS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'Ll", "'RE", "'\u017f", "'\u017ft",
        "\u2019s", "'", "''s", "'l", "'\u212a", "'v\u00e9", "'r\u0435"]
MARKS = ["<think>", "</think>", "<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>",
         "<\uff5cend\u2581of\u2581sentence\uff5c>", "<\uff5cbegin\u2581of\u2581sentence\uff5c>",
         "<\uff5ctool\u2581calls\u2581begin\uff5c>", "<|im_start|>", "<|im_end|>", "<|endoftext|>",
         "<|EOT|>", "<tool_call>", "<thin", "<|im_", "<\uff5c", "k>"]


def assigned():
    """Code points with a meaning in Unicode 14: newer ones may be news to the other side."""
    ucd = unicodedata if unicodedata.unidata_version.startswith("14.") else unicodedata.ucd_3_2_0
    return [c for c in range(0x110000) if ucd.category(chr(c)) not in ("Cn", "Cs", "Co")]


class Texts:
    def __init__(self, seed, vocabularies):
        self.r = random.Random(seed)
        self.points = assigned()
        self.marks = [c for c in self.points if unicodedata.combining(chr(c))]
        self.han = [c for c in self.points if 0x4E00 <= c <= 0x9FFF]
        self.words = sorted({w for v in vocabularies for w in v})
        self.chinese = [w for w in self.words if all("\u3000" <= c <= "\u9fff" for c in w)]
        self.prose = self.read_library()

    @staticmethod
    def read_library():
        """The Python library: English in its comments, code around it; and our own sources."""
        names = sorted(glob.glob(os.path.join(os.path.dirname(os.__file__), "*.py")))
        names += sorted(glob.glob(os.path.join(ROOT, "core", "*", "*.c")))
        out = []
        for n in names:
            try:
                with open(n, encoding="utf-8", newline="") as f:
                    out.append(f.read())
            except (UnicodeDecodeError, OSError):
                pass
        return "\n".join(out)

    def fragment(self):
        r = self.r
        kind = r.randrange(14)
        n = int(2 ** r.uniform(0, 8))
        if kind < 3:
            at = r.randrange(len(self.prose))
            return self.prose[at:at + 40 * n]
        if kind == 3:
            return "".join(r.choice(self.words) for _ in range(n))
        if kind == 4:
            return "".join(r.choice(self.chinese or ["\u4e2d"]) for _ in range(n))
        if kind == 5:
            return "".join(chr(r.choice(self.han)) for _ in range(n))
        if kind == 6:
            return "".join(chr(r.choice(self.points)) for _ in range(n))
        if kind == 7:   # a run of neighbours: one script
            at = r.randrange(len(self.points) - 60)
            return "".join(chr(self.points[at + r.randrange(60)]) for _ in range(n))
        if kind == 8:
            return "".join(chr(r.choice(r.choice([self.marks] + NORMAL))) for _ in range(n))
        if kind == 9:
            if r.randrange(2):
                return "".join(chr(r.choice(SPACES)) for _ in range(r.randrange(1, 12)))
            return r.choice([" ", "\n", "\r\n", "\t", "\r"]) * r.randrange(1, 40)
        if kind == 10:
            before, after = ["I", "we", "don", "\u4f60", " x", "9", "."], ["", " ", "x", "\n", "9"]
            return r.choice(before) + r.choice(CUTS) + r.choice(after)
        if kind == 11:
            s = "".join(r.choice("0123456789") for _ in range(r.randrange(1, 20)))
            return s + r.choice(["", ".", ",", " ", "\u0663", "\u00bd"])
        if kind == 12:
            return r.choice(MARKS)
        return "".join(chr(r.choice(CONTROLS)) for _ in range(n))

    def chunk(self):
        out, size = [], 0
        while size < CHUNK:
            s = self.fragment()
            out.append(s)
            size += len(s.encode("utf-8", "surrogatepass"))
        return "".join(out)


def checkpoint(folder, tokenizer, n_ids):
    """A Qwen2 of one layer that is just large enough to be converted."""
    h, inter = 64, 64
    cfg = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": h,
           "intermediate_size": inter, "num_hidden_layers": 1, "num_attention_heads": 2,
           "num_key_value_heads": 1, "vocab_size": n_ids, "rms_norm_eps": 1e-6,
           "rope_theta": 10000.0, "max_position_embeddings": 4096, "tie_word_embeddings": True,
           "hidden_act": "silu", "torch_dtype": "bfloat16"}
    layer = {"input_layernorm.weight": (h,), "post_attention_layernorm.weight": (h,),
             "self_attn.q_proj.weight": (h, h), "self_attn.q_proj.bias": (h,),
             "self_attn.k_proj.weight": (32, h), "self_attn.k_proj.bias": (32,),
             "self_attn.v_proj.weight": (32, h), "self_attn.v_proj.bias": (32,),
             "self_attn.o_proj.weight": (h, h), "mlp.gate_proj.weight": (inter, h),
             "mlp.up_proj.weight": (inter, h), "mlp.down_proj.weight": (h, inter)}
    shapes = {"model.embed_tokens.weight": (n_ids, h), "model.norm.weight": (h,)}
    shapes.update(("model.layers.0." + k, v) for k, v in layer.items())
    head, at = {}, 0
    for name, shape in shapes.items():
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        head[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(folder, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        f.write(bytes((0x80, 0x3C)) * (at // 2))     # 1/64 everywhere
    for name, doc in (("config.json", cfg), ("tokenizer_config.json", {})):
        with open(os.path.join(folder, name), "w", encoding="ascii") as f:
            json.dump(doc, f)
    os.symlink(os.path.abspath(tokenizer), os.path.join(folder, "tokenizer.json"))


def run(*cmd):
    return subprocess.run(cmd, capture_output=True, text=True)


def gather(work, shared):
    """name -> tokenizer.json; prints what cannot be had."""
    found, skipped = {}, 0
    rebuild = os.path.join(shared, "data", "tokenizers", "rebuild_tokenizers.py")
    tiny = os.path.join(ROOT, "tests", "data", "models", "*", "tokenizer.json")
    if os.path.exists(rebuild):
        subprocess.run([sys.executable, rebuild, work], check=True, stdout=subprocess.DEVNULL)
        for f in sorted(glob.glob(os.path.join(work, "*.tokenizer.json"))):
            found[os.path.basename(f)[:-len(".tokenizer.json")]] = f
    else:
        print("skipped: full tokenizers: %s is not there" % rebuild)
        skipped += 1
    smol, tool = os.path.join(work, "smollm2"), os.path.join(shared, "tools", "smollm2_hf.py")
    done = os.path.exists(tool) and run(sys.executable, tool, smol)
    if done and done.returncode == 0:
        found["SmolLM2"] = os.path.join(smol, "tokenizer.json")
        os.remove(os.path.join(smol, "model.safetensors"))
    else:
        why = (done.stderr.strip().splitlines() or ["?"])[-1] if done else tool + " is not there"
        print("skipped: SmolLM2: %s" % why)
        skipped += 1
    for f in sorted(glob.glob(tiny)):
        found[os.path.basename(os.path.dirname(f))] = f
    return found, skipped


def where(text, enc, ids):
    """The text around the first difference."""
    i = 0
    while i < min(len(enc.ids), len(ids)) and enc.ids[i] == ids[i]:
        i += 1
    a, b = enc.offsets[i] if i < len(enc.offsets) else (len(text), len(text))
    return "id %d: want %s, got %s, text %s" % (i, enc.ids[i:i + 6], ids[i:i + 6],
                                                ascii(text[max(0, a - 12):b + 12]))


def judge(exe, model, tok, f):
    """None when all ids of the file are equal, else what is not; and how many ids there are."""
    with open(f, encoding="utf-8", newline="") as t:
        text = t.read()
    enc = tok.encode(text, add_special_tokens=False)
    got = run(exe, "tokenize", model, "-f", f, "--special")
    if got.returncode:
        return got.stderr.strip(), 0
    ids = [int(x) for x in got.stdout.replace(",", " ").split()]
    return (None if ids == enc.ids else where(text, enc, ids)), len(ids)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("vaquita", nargs="?",
                    default=os.environ.get("VAQUITA") or os.path.join(ROOT, "build", "vaquita"))
    ap.add_argument("--mb", type=float, default=10)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--only")
    a = ap.parse_args()
    try:
        import tokenizers
    except ImportError:
        print("skipped: the Python package tokenizers is not installed")
        print("judge_tokenizers: 0 passed, 0 failed, 1 skipped")
        return 0
    passed = failed = 0
    with tempfile.TemporaryDirectory() as work:
        shared = os.environ.get("VQ_SHARED") or os.path.join(ROOT, "..", "shared")
        found, skipped = gather(work, shared)
        hf = {n: tokenizers.Tokenizer.from_file(f) for n, f in found.items()
              if not a.only or a.only in n}
        texts = Texts(a.seed, [[t.decode([i], skip_special_tokens=False)
                                for i in range(t.get_vocab_size())] for t in hf.values()])
        files = []
        while sum(os.path.getsize(f) for f in files) < a.mb * 1e6:
            files.append(os.path.join(work, "%04d.txt" % len(files)))
            with open(files[-1], "wb") as f:
                f.write(texts.chunk().encode("utf-8"))
        total = sum(os.path.getsize(f) for f in files)
        for name, tok in hf.items():
            folder, model = os.path.join(work, "c-" + name), os.path.join(work, name + ".vaq")
            os.mkdir(folder)
            checkpoint(folder, found[name], max(tok.get_vocab().values()) + 1)
            done = run(a.vaquita, "convert", folder, "-o", model)
            if done.returncode:
                print("%s: convert: %s" % (name, done.stderr.strip()))
                failed += 1
                continue
            bad = n_ids = 0
            for f in files:
                wrong, n = judge(a.vaquita, model, tok, f)
                n_ids += n
                bad += wrong is not None
                if wrong and bad <= 5:
                    print("%s, %s: %s" % (name, os.path.basename(f), wrong))
            failed += bad
            passed += len(files) - bad
            print("%s: %d of %d chunks equal, %d bytes, %d ids" %
                  (name, len(files) - bad, len(files), total, n_ids), flush=True)
    print("judge_tokenizers: %d passed, %d failed, %d skipped" % (passed, failed, skipped))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
