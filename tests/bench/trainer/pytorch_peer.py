#!/usr/bin/env python3
"""One case in PyTorch, in a process of its own: pytorch_peer.py CASE [--steps N] [--recipe autocast|fits] [--device cuda|cpu]
[--tokens FILE] [--weights FILE]. Prints one line of JSON: tokens a second by step, losses, and what was run."""

import argparse
import json
import pathlib
import sys
import time

import torch

from cases import CASES, model_of

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "goldens"))
from reference_model import Model, optimizer_of  # noqa: E402

# What is compared with. `autocast`: float weights, BF16 products, fused AdamW, the whole model compiled. `fits`: weights, gradients
# and moments in BF16 (10 bytes a parameter), blocks recomputed: what fits an 8B on one GPU, with less precision than ours.
RECIPES = {
    "autocast": dict(weights="float32", products="bfloat16 (autocast)", moments="float32", recompute="none"),
    "fits": dict(weights="bfloat16", products="bfloat16", moments="bfloat16", recompute="blocks"),
}


def token_batches(path, sequences, length, device):
    """Batches of a token file of llm.c's, one after another, from its start again at its end."""
    header = torch.frombuffer(bytearray(path.read_bytes()[:1024]), dtype=torch.int32)
    kind = torch.int32 if header[0] == 20240801 else torch.uint16
    tokens = torch.frombuffer(bytearray(path.read_bytes()[1024:]), dtype=kind).to(torch.int64)
    at, width = 0, sequences * length
    while True:
        if at + width + 1 > len(tokens):
            at = 0
        piece = tokens[at:at + width + 1]
        yield torch.stack([piece[i * length:(i + 1) * length + 1] for i in range(sequences)]).to(device)
        at += width


def recomputed(model):
    from torch.utils.checkpoint import checkpoint
    for block in model.layers:
        forward = block.forward
        block.forward = lambda *a, f=forward: checkpoint(f, *a, use_reentrant=False)


def train(config, case, options):
    device = options.device
    torch.manual_seed(options.seed)
    torch.backends.cuda.matmul.allow_tf32 = True
    model = Model(config)
    if options.weights:
        model.load_state_dict(torch.load(options.weights))
    else:
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                torch.nn.init.normal_(parameter, std=0.02)
    fits = options.recipe == "fits"
    model = model.to(device, torch.bfloat16 if fits else torch.float32)
    if fits:
        recomputed(model)
    optimizer = optimizer_of(model, options.learning_rate, options.weight_decay, fused=True)
    step_model = torch.compile(model, mode=options.mode) if options.mode != "eager" else model
    micro, lanes = case["micro"], case["batch"] // case["micro"]
    if options.tokens:
        batches = token_batches(options.tokens, case["batch"], case["context"], device)
    else:
        fixed = torch.randint(case["vocabUsed"], (case["batch"], case["context"] + 1), device=device)
        batches = iter(lambda: fixed, None)
    count = case["batch"] * case["context"]
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    rates, losses = [], []
    for _ in range(options.steps):
        tokens = next(batches)
        wait()
        begin = time.perf_counter()
        total = 0.0
        for lane in range(lanes):
            with torch.autocast(device, dtype=torch.bfloat16, enabled=not fits and device == "cuda"):
                loss = step_model(tokens[lane * micro:(lane + 1) * micro]) / count
            loss.backward()
            total = total + loss.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(total))
        wait()
        rates.append(count / (time.perf_counter() - begin))
    return rates, losses


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--recipe", choices=RECIPES, default="autocast")
    parser.add_argument("--mode", default="default", help="torch.compile's; eager: not compiled")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tokens", type=pathlib.Path)
    parser.add_argument("--weights", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--model", type=json.loads, help="another one, as JSON, in place of CASE's")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("PyTorch sees no GPU", file=sys.stderr)
        sys.exit(77)
    case = options.model or CASES[options.case]
    shape = {k: v for k, v in case.items() if k in model_of("124m") or k in ("tieEmbeddings", "ropeTheta", "normEps")}
    config = dict(dict(normEps=1e-5, ropeTheta=10000, tieEmbeddings=case["kind"] == "gpt2"), **shape)
    rates, losses = train(config, case, options)
    what = dict(RECIPES[options.recipe], torch=torch.__version__, mode=options.mode,
                attention="scaled_dot_product_attention: PyTorch's choice of flash, cuDNN or memory-efficient")
    print(json.dumps(dict(rates=rates, losses=losses, what=what)))


if __name__ == "__main__":
    main()
