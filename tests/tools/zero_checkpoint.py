#!/usr/bin/env python3
"""A Qwen2 checkpoint of zeros in a sparse file: large enough to be interrupted, free to make.

usage: zero_checkpoint.py FOLDER
"""
import json
import os
import struct
import sys

H, LAYERS, INTER, VOCAB, HEADS, KV, HD = 512, 6, 2048, 16000, 8, 2, 64


def main():
    out = sys.argv[1]
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, "config.json"), "w") as f:
        json.dump({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": H,
                   "num_hidden_layers": LAYERS, "intermediate_size": INTER, "vocab_size": VOCAB,
                   "num_attention_heads": HEADS, "num_key_value_heads": KV, "rms_norm_eps": 1e-6,
                   "rope_theta": 10000.0, "max_position_embeddings": 8192, "hidden_act": "silu",
                   "tie_word_embeddings": True, "torch_dtype": "float32"}, f)
    shapes = {"model.embed_tokens.weight": [VOCAB, H], "model.norm.weight": [H]}
    for i in range(LAYERS):
        p = f"model.layers.{i}."
        shapes[p + "input_layernorm.weight"] = [H]
        shapes[p + "post_attention_layernorm.weight"] = [H]
        for name, rows in (("q", HEADS * HD), ("k", KV * HD), ("v", KV * HD)):
            shapes[f"{p}self_attn.{name}_proj.weight"] = [rows, H]
            shapes[f"{p}self_attn.{name}_proj.bias"] = [rows]
        shapes[p + "self_attn.o_proj.weight"] = [H, HEADS * HD]
        shapes[p + "mlp.gate_proj.weight"] = [INTER, H]
        shapes[p + "mlp.up_proj.weight"] = [INTER, H]
        shapes[p + "mlp.down_proj.weight"] = [H, INTER]
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 4
        for d in shape:
            size *= d
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(out, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        f.truncate(8 + len(text) + at)


if __name__ == "__main__":
    main()
