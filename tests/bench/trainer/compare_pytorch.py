#!/usr/bin/env python3
"""Full training steps (forward, backward, AdamW) of Pitcrew, PyTorch eager and torch.compile, in turns in one run, FP32.

    compare_pytorch.py build/release/bin/pitcrew-trainer-bench [--rounds 9] [--steps 2] [--threads 2] [--skip-compile] [--json FILE]

Prints each side's median tokens per second and the ratios. Only the ratios mean something on a shared machine; on a busy one
take the ratio of processor seconds with --threads 1, since waiting for a thread that does not run is no part of the work."""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "goldens"))
from reference_model import Model, optimizer_of  # noqa: E402

MODEL = dict(kind="llama", layers=6, width=256, heads=8, kvHeads=8, mlp=704, vocab=256, context=256, ropeTheta=10000,
             tieEmbeddings=False, normEps=1e-5)


class Pitcrew:
    def __init__(self, program, arguments, config):
        command = [program, str(arguments.threads), str(arguments.sequences), str(arguments.tokens), json.dumps(config)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def steps(self, count):
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        return tuple(float(word) for word in self.process.stdout.readline().split())


class PyTorch:
    def __init__(self, arguments, config, compiled):
        torch.manual_seed(1)
        self.model = Model(config)
        for parameter in self.model.parameters():
            if parameter.dim() >= 2:
                torch.nn.init.normal_(parameter, std=0.02)
        self.optimizer = optimizer_of(self.model, 1e-3, 0.1, fused=True)
        self.tokens = torch.randint(config["vocab"], (arguments.sequences, arguments.tokens + 1))
        self.forward = torch.compile(self.model) if compiled else self.model
        self.predictions = arguments.sequences * arguments.tokens

    def steps(self, count):
        start, processor = time.perf_counter(), time.process_time()
        for _ in range(count):
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.forward(self.tokens) / self.predictions
            loss.backward()
            self.optimizer.step()
        return time.perf_counter() - start, time.process_time() - processor, loss.item()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--skip-compile", action="store_true")
    parser.add_argument("--model", type=json.loads, default=MODEL, help="as JSON")
    parser.add_argument("--json", help="write the figures to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    sides = {"pitcrew": Pitcrew(arguments.program, arguments, arguments.model),
             "eager": PyTorch(arguments, arguments.model, compiled=False)}
    if not arguments.skip_compile:
        sides["compile"] = PyTorch(arguments, arguments.model, compiled=True)
    for side in sides.values():
        side.steps(2)
    tokens = arguments.steps * arguments.sequences * arguments.tokens
    rates, processor = {name: [] for name in sides}, {name: [] for name in sides}
    for _ in range(arguments.rounds):
        for name, side in sides.items():
            seconds, processor_seconds, _ = side.steps(arguments.steps)
            rates[name].append(tokens / seconds)
            processor[name].append(processor_seconds / arguments.steps)
    median = {name: statistics.median(values) for name, values in rates.items()}
    ratios, processor_ratios = {}, {}
    for name, values in rates.items():
        _, _, loss = sides[name].steps(1)
        print(f"{name:8} {median[name]:8.0f} tokens/s   range {min(values):.0f} to {max(values):.0f}   "
              f"{statistics.median(processor[name]):.3f} processor seconds a step   loss {loss:.4f}")
        if name != "pitcrew":
            ratios[name] = statistics.median(ours / theirs for ours, theirs in zip(rates["pitcrew"], values))
            processor_ratios[name] = statistics.median(
                theirs / ours for ours, theirs in zip(processor["pitcrew"], processor[name]))
            print(f"pitcrew / {name}: {ratios[name]:.2f} in tokens/s, {processor_ratios[name]:.2f} in tokens per processor second")
    print(f"(medians of {arguments.rounds} rounds in turns, torch {torch.__version__}, {arguments.threads} threads)")
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(dict(median=median, rates=rates, ratios=ratios, processorRatios=processor_ratios), indent=1) + "\n")


if __name__ == "__main__":
    main()
