#!/usr/bin/env python3
"""Trains one model on random tokens with pitcrew-train on a GPU, and with PyTorch where it is installed, and prints tokens
per second and the share of the GPU's peak: gpu_case.py PITCREW-TRAIN CASE [--steps N]"""

import argparse
import json
import pathlib
import random
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import time

# Layers, width, heads, key heads, MLP, vocabulary (and how much of it is used): written down so that whoever compares
# knows with what. All with T tokens and B sequences per step.
CASES = {
    "124m": dict(kind="gpt2", layers=12, width=768, heads=12, kvHeads=12, mlp=3072, vocab=50304, vocabUsed=50257,
                 context=1024, batch=64, micro=64, recompute=[]),
    "1558m": dict(kind="gpt2", layers=48, width=1600, heads=25, kvHeads=25, mlp=6400, vocab=50304, vocabUsed=50257,
                  context=1024, batch=16, micro=16, recompute=["norms", "activation"]),
    "1240m": dict(kind="llama", layers=16, width=2048, heads=32, kvHeads=8, mlp=8192, vocab=128256, vocabUsed=128256,
                  context=2048, batch=8, micro=8, recompute=["norms", "activation"], tieEmbeddings=True, ropeTheta=500000),
}
PEAK = 989.4e12  # dense BF16 of H100 and H200 SXM (NVIDIA H100 datasheet)


def flops_per_token(c):
    """6 per parameter of a product, and causal attention: 6 x layers x width x tokens."""
    head = c["width"] // c["heads"]
    qkv = (c["heads"] + 2 * c["kvHeads"]) * head
    mlp = (3 if c["kind"] == "llama" else 2) * c["mlp"] * c["width"]
    layer = qkv * c["width"] + c["width"] ** 2 + mlp
    return 6 * (c["layers"] * layer + c["width"] * c["vocab"]) + 6 * c["layers"] * c["width"] * c["context"]


def model_of(c):
    return {k: v for k, v in c.items() if k not in ("batch", "micro", "recompute")}


def ours(program, case, steps, folder):
    c = CASES[case]
    rng = random.Random(1)
    count = c["batch"] * (c["context"] + 1) * 4
    wide = c["vocab"] > 65536
    header = [20240801, 7, count] if wide else [20240520, 1, count]
    with open(folder / "tokens.bin", "wb") as file:
        file.write(struct.pack("<256i", *(header + [0] * (256 - len(header)))))
        file.write(struct.pack(f"<{count}{'I' if wide else 'H'}", *(rng.randrange(c["vocabUsed"]) for _ in range(count))))
    config = dict(model=model_of(c), batch=dict(sequences=c["batch"], micro=c["micro"], tokens=c["context"]), steps=steps,
                  optimizer=dict(learningRate=1e-4), data=dict(bin=dict(paths=["tokens.bin"])), device="cuda",
                  recompute=c["recompute"], log=dict(every=1))
    (folder / "run.yaml").write_text(json.dumps(config))
    run = subprocess.run([program, folder / "run.yaml"], capture_output=True, text=True, timeout=480)
    if run.returncode != 0:
        print(f"not run: {run.stderr.strip().splitlines()[-1] if run.stderr.strip() else run.returncode}")
        sys.exit(77)
    rates = [float(x) * 1000 for x in re.findall(r"([0-9.]+) k tokens/s", run.stdout)][steps // 3:]
    return rates


def pytorch(case, steps):
    import torch
    sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "goldens"))
    from reference_model import Model, optimizer_of
    c = CASES[case]
    torch.manual_seed(1)
    model = Model(dict(model_of(c), normEps=1e-5, ropeTheta=c.get("ropeTheta", 10000),
                       tieEmbeddings=c.get("tieEmbeddings", c["kind"] == "gpt2"))).cuda()
    optimizer = optimizer_of(model, 1e-4, 0.1, fused=True)
    step_model = torch.compile(model)
    tokens = torch.randint(c["vocabUsed"], (c["batch"], c["context"] + 1), device="cuda")
    rates = []
    for step in range(steps):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = step_model(tokens) / tokens[:, 1:].numel()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        if step >= steps // 3:
            rates.append(tokens[:, 1:].numel() / (time.perf_counter() - begin))
    return rates


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--steps", type=int, default=30)
    options = parser.parse_args()

    def line(name, rates):
        rate = statistics.median(rates)
        share = rate * flops_per_token(CASES[options.case]) / PEAK
        print(f"{name:28} {rate / 1000:9.1f} k tokens/s  {100 * share:5.1f} % of {PEAK / 1e12:.1f} TFLOP/s (causal)")
        return rate

    with tempfile.TemporaryDirectory() as folder:
        mine = line("pitcrew-train " + options.case, ours(options.program, options.case, options.steps, pathlib.Path(folder)))
    try:
        import torch  # noqa: F401
    except ImportError:
        print("PyTorch                      not run: torch is not installed for this python3")
        return
    peer = line(f"PyTorch {torch.__version__} compile", pytorch(options.case, options.steps))
    print(f"ratio                        {mine / peer:9.3f}")


main()
