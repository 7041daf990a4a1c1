#!/usr/bin/env python3
"""Writes tests/goldens/hugging_face: tiny random models of each kind that can be imported, as `transformers` saves them,
with the logits and the greedy continuation that it computes in float32. Needs hugging_face_requirements.txt (README.md)."""

import json
import pathlib

import torch
from safetensors.torch import save_file
from transformers import (GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM,
                          Qwen3Config, Qwen3ForCausalLM)

SHAPE = dict(hidden_size=32, intermediate_size=56, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             vocab_size=67, max_position_embeddings=128)
MODELS = {
    "gpt2": (GPT2LMHeadModel, GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=48, vocab_size=67,
                                         resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)),
    "llama3": (LlamaForCausalLM, LlamaConfig(**SHAPE, rope_theta=500.0, tie_word_embeddings=False, rms_norm_eps=1e-5,
                                             rope_scaling=dict(rope_type="llama3", factor=4.0, low_freq_factor=1.0,
                                                               high_freq_factor=4.0,
                                                               original_max_position_embeddings=32))),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SHAPE, rope_theta=1000.0, tie_word_embeddings=True, rms_norm_eps=1e-6)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SHAPE, head_dim=16, rope_theta=1000.0, tie_word_embeddings=False,
                                            rms_norm_eps=1e-6)),
}
PROMPT, GREEDY = 40, 6


def main():
    root = pathlib.Path(__file__).parent / "hugging_face"
    for seed, (name, (kind, config)) in enumerate(MODELS.items()):
        torch.manual_seed(seed)
        config._attn_implementation = "eager"
        model = kind(config).float().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                # Away from gains of 1 and biases of 0, where mistakes hide; large enough for distinct logits.
                parameter.add_(torch.randn_like(parameter) * 0.15)
        folder = root / name
        model.save_pretrained(folder, safe_serialization=True)
        (folder / "generation_config.json").unlink(missing_ok=True)
        tokens = torch.randint(config.vocab_size, (1, PROMPT))
        with torch.no_grad():
            logits = model(tokens).logits[0]
            after = tokens.clone()
            for _ in range(GREEDY):
                after = torch.cat([after, model(after).logits[:, -1].argmax(-1, keepdim=True)], dim=1)
        save_file({"tokens": after[0].to(torch.int32), "logits": logits.contiguous()}, folder / "expected.safetensors",
                  {"prompt": str(PROMPT)})
        print(name, json.loads((folder / "config.json").read_text())["architectures"], sum(p.numel() for p in model.parameters()))


main()
