#!/usr/bin/env python3
"""Loss curves from the same initial weights on the same byte tokens, three seeds each: ours, llm.c's and PyTorch's have to be
within one another's spread. curve.py PITCREW-TRAIN [--steps 300] [--seeds 3] [--results FILE] [--tiny]

The weights are GPT-2 124M's shape, drawn once, rounded to BF16, and written for each side in its own format (a folder of
`transformers` for ours). A seed is another place in the bytes to begin at; ours also takes its own order from it. --tiny does it with
a small model on the CPU, ours beside PyTorch."""

import argparse
import json
import os
import pathlib
import statistics
import struct
import subprocess
import sys
import tempfile
import time

import llmc
from cases import CASES, model_of
from results import provenance

ROOT = pathlib.Path(__file__).parents[3]
HERE = pathlib.Path(__file__).parent
TINY = dict(kind="gpt2", layers=2, width=64, heads=4, kvHeads=4, mlp=256, vocab=256, vocabUsed=256, context=64, batch=16, micro=16)


def write_bytes(path, text, start):
    """The bytes of `text` from `start` on and round to it, as llm.c's 16-bit tokens."""
    data = text[start:] + text[:start]
    with open(path, "wb") as file:
        file.write(struct.pack("<256i", *([20240520, 1, len(data)] + [0] * 253)))
        file.write(struct.pack(f"<{len(data)}H", *data))


def ends_of(curves, last):
    """The mean of the last steps of each seed's curve."""
    return [statistics.mean(curve[-last:]) for curve in curves]


def compare(sides, last):
    """sides: {name: [a curve for each seed]}. Two sides agree where the distance of their means is at most the wider of their
    spreads (largest minus smallest seed). {(a, b): {distance, spread, within}}."""
    out = {}
    names = sorted(sides)
    for i, a in enumerate(names):
        for b in names[i + 1:]:
            ends = ends_of(sides[a], last), ends_of(sides[b], last)
            spread = max(max(end) - min(end) for end in ends)
            distance = abs(statistics.mean(ends[0]) - statistics.mean(ends[1]))
            out[f"{a} and {b}"] = dict(distance=distance, spread=spread, within=distance <= spread)
    return out


def initial_weights(case, folder, seed=1):
    """Draws them, and writes reference.pt (PyTorch), hf/ (ours) and, for 124m's shape, model.bin (llm.c)."""
    import torch
    sys.path.insert(0, str(HERE.parents[1] / "goldens"))
    from reference_model import Model
    torch.manual_seed(seed)
    shape = {k: v for k, v in case.items() if k in model_of("124m")}
    model = Model(dict(shape, normEps=1e-5, ropeTheta=10000, tieEmbeddings=True))
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            if parameter.dim() >= 2:
                torch.nn.init.normal_(parameter, std=0.02)
            parameter.copy_(parameter.bfloat16().float())
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    torch.save(state, folder / "reference.pt")
    write_hugging_face(case, state, folder / "hf")
    write_llmc(case, state, folder / "model.bin")


# Our reference's names within a block, `transformers`' GPT-2's, and whether that stores it transposed (Conv1D).
BLOCK = [("norm1.weight", "ln_1.weight", False), ("norm1.bias", "ln_1.bias", False), ("attn.qkv.weight", "attn.c_attn.weight", True),
         ("attn.qkv.bias", "attn.c_attn.bias", False), ("attn.out.weight", "attn.c_proj.weight", True),
         ("attn.out.bias", "attn.c_proj.bias", False), ("norm2.weight", "ln_2.weight", False), ("norm2.bias", "ln_2.bias", False),
         ("mlp.up.weight", "mlp.c_fc.weight", True), ("mlp.up.bias", "mlp.c_fc.bias", False), ("mlp.down.weight", "mlp.c_proj.weight", True),
         ("mlp.down.bias", "mlp.c_proj.bias", False)]


def block_tensor(state, layer, name):
    return state[f"layers.{layer}.{name}"]


def top_tensors(state):
    return state["embed.weight"], state["position.weight"], state["norm.weight"], state["norm.bias"]


def write_hugging_face(case, state, folder):
    folder.mkdir()
    wte, wpe, norm, norm_bias = top_tensors(state)
    tensors = {"transformer.wte.weight": wte[:case["vocabUsed"]], "transformer.wpe.weight": wpe,
               "transformer.ln_f.weight": norm, "transformer.ln_f.bias": norm_bias}
    for layer in range(case["layers"]):
        for ours, theirs, transposed in BLOCK:
            tensor = block_tensor(state, layer, ours)
            tensors[f"transformer.h.{layer}.{theirs}"] = tensor.t() if transposed else tensor
    header, at, bodies = {}, 0, []
    for name, tensor in tensors.items():
        body = tensor.contiguous().float().numpy().tobytes()
        header[name] = dict(dtype="F32", shape=list(tensor.shape), data_offsets=[at, at + len(body)])
        at += len(body)
        bodies.append(body)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"".join(bodies))
    (folder / "config.json").write_text(json.dumps(dict(
        model_type="gpt2", architectures=["GPT2LMHeadModel"], n_layer=case["layers"], n_embd=case["width"], n_head=case["heads"],
        n_inner=case["mlp"], vocab_size=case["vocabUsed"], n_positions=case["context"], n_ctx=case["context"],
        activation_function="gelu_new", layer_norm_epsilon=1e-5, tie_word_embeddings=True)))


def write_llmc(case, state, path):
    """llm.c's model file in BF16: magic 20240326, version 5, then tensors kind by kind, layers within each."""
    import torch
    wte, wpe, norm, norm_bias = top_tensors(state)
    kinds = ["norm1.weight", "norm1.bias", "attn.qkv.weight", "attn.qkv.bias", "attn.out.weight", "attn.out.bias",
             "norm2.weight", "norm2.bias", "mlp.up.weight", "mlp.up.bias", "mlp.down.weight", "mlp.down.bias"]
    header = [20240326, 5, case["context"], case["vocabUsed"], case["layers"], case["heads"], case["width"], case["vocab"]]
    with open(path, "wb") as file:
        file.write(struct.pack("<256i", *(header + [0] * (256 - len(header)))))
        tensors = [wte, wpe] + [block_tensor(state, layer, kind) for kind in kinds for layer in range(case["layers"])] + [norm, norm_bias]
        for tensor in tensors:
            file.write(tensor.contiguous().bfloat16().view(torch.int16).numpy().tobytes())


def ours(program, case, folder, seed, options, device):
    config = dict(model={k: v for k, v in case.items() if k in model_of("124m")}, steps=options.steps, seed=seed,
                  batch=dict(sequences=case["batch"], micro=case["micro"], tokens=case["context"]), init={"from": str(folder / "hf")},
                  optimizer=dict(learningRate=options.learning_rate, weightDecay=0.1, clip=1.0), schedule=dict(decayTo=1.0),
                  data=dict(bin=dict(paths=[str(folder / f"bytes-{seed}.bin")])), device=device, log=dict(every=1),
                  checkpoint=dict(path=str(folder / f"ours-{seed}")))
    if device == "cpu":
        config["threads"] = options.threads
    (folder / "curve.yaml").write_text(json.dumps(config))
    run = subprocess.run([program, folder / "curve.yaml"], capture_output=True, text=True, timeout=options.limit)
    if run.returncode != 0:
        raise RuntimeError(run.stderr.strip() or f"exit code {run.returncode}")
    return [json.loads(line)["loss"] for line in (folder / f"ours-{seed}/steps.jsonl").read_text().splitlines()]


def pytorch(case, folder, seed, options, device):
    run = subprocess.run([options.python, HERE / "pytorch_peer.py", "124m", "--model", json.dumps(case), "--steps", str(options.steps),
                          "--device", device, "--mode", "eager" if device == "cpu" else "default", "--tokens", folder / f"bytes-{seed}.bin",
                          "--weights", folder / "reference.pt", "--learning-rate", str(options.learning_rate)],
                         capture_output=True, text=True, timeout=options.limit, check=True)
    return json.loads(run.stdout.splitlines()[-1])["losses"]


def llm_c(case, folder, seed, options):
    toolkit = llmc.Toolkit(options.cuda_home, options.cudnn, options.headers)
    program, _ = llmc.build(options.cache, toolkit, options.llmc_source)
    command = llmc.command(program, case, folder / f"bytes-{seed}.bin", options.steps, dict(r=0, ge=0), folder / "llmc", folder / "model.bin",
                           options.learning_rate)
    run = subprocess.run(command, capture_output=True, text=True, timeout=options.limit, check=True, env=toolkit.environment())
    return [loss for _, loss, _ in llmc.read_steps(run.stdout)]


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--last", type=int, default=50, help="steps whose mean is compared")
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--text", type=pathlib.Path, help="a file of bytes; default: this house's own sources")
    parser.add_argument("--results", type=pathlib.Path, default=pathlib.Path("trainer-curve.json"))
    parser.add_argument("--limit", type=float, default=480, help="seconds")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--cache", type=pathlib.Path, default=pathlib.Path.home() / ".cache/pitcrew/bench")
    parser.add_argument("--cuda-home", default=os.environ.get("CUDA_HOME", "/usr/local/cuda"))
    llmc.add_arguments(parser)
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse(arguments)
    case = TINY if options.tiny else dict(CASES["124m"], batch=16, micro=16)
    device = "cpu" if options.tiny else "cuda"
    where = provenance(ROOT)
    if device == "cuda" and not where["gpu"]:
        print("not run: this machine has no GPU; --tiny compares a small model on the CPU")
        return 77
    kept = json.loads(options.results.read_text()) if options.results.exists() else {}
    if kept.get("what") != [options.steps, options.tiny, where["commit"]]:
        kept = dict(what=[options.steps, options.tiny, where["commit"]], curves={})
    text = options.text.read_bytes() if options.text else b"".join(sorted(p.read_bytes() for p in (ROOT / "trainer").rglob("*.cpp")))
    until = time.monotonic() + options.limit
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        initial_weights(case, folder)
        works = {"ours": lambda s: ours(options.program, case, folder, s, options, device),
                 "PyTorch": lambda s: pytorch(case, folder, s, options, device)}
        if not options.tiny:
            works["llm.c"] = lambda s: llm_c(case, folder, s, options)
        for seed in range(1, options.seeds + 1):
            write_bytes(folder / f"bytes-{seed}.bin", text, (seed - 1) * len(text) // options.seeds)
            for side, work in works.items():
                curves = kept["curves"].setdefault(side, {})
                if str(seed) in curves:
                    continue
                if time.monotonic() > until:
                    print("the time is over; run it again to go on")
                    return 75
                curves[str(seed)] = work(seed)
                options.results.write_text(json.dumps(dict(kept, provenance=where)) + "\n")
    sides = {side: list(curves.values()) for side, curves in kept["curves"].items()}
    for side, curves in sides.items():
        print(f"{side:8} ends at " + ", ".join(f"{end:.4f}" for end in ends_of(curves, options.last)))
    agreed = compare(sides, options.last)
    for pair, found in agreed.items():
        print(f"{pair}: {found['distance']:.4f} apart, spread {found['spread']:.4f}: {'within' if found['within'] else 'NOT WITHIN'}")
    return 0 if all(found["within"] for found in agreed.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
