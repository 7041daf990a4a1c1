#!/usr/bin/env python3
"""One model on one GPU beside its peers: gpu_case.py PITCREW-TRAIN CASE [--steps N] [--results FILE] [--limit 480].

Measures pitcrew-train, then llm.c (124m and 1558m) and PyTorch, each in a process of its own, prints medians and ratios, and keeps them
as JSON with when, where and of which commit. Stopped, or out of time, it goes on where it was when it is run again. Without a
GPU it says so and ends with 77. --plan prints what would be run, and the kernels' limits, and needs no GPU."""

import argparse
import json
import os
import pathlib
import random
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time

import kernels
import llmc
from cases import CASES, PEAK, REQUIRED, flops_per_token, ours_config
from results import Results, provenance

ROOT = pathlib.Path(__file__).parents[3]
HERE = pathlib.Path(__file__).parent


def write_tokens(path, case, sequences=None, seed=1):
    """Random tokens in llm.c's format: zeros would make products faster than they are."""
    rng = random.Random(seed)
    count = (sequences or CASES[case]["batch"]) * CASES[case]["context"] + 1
    wide = CASES[case]["vocab"] > 65536
    header = [20240801, 7, count] if wide else [20240520, 1, count]
    with open(path, "wb") as file:
        file.write(struct.pack("<256i", *(header + [0] * (256 - len(header)))))
        file.write(struct.pack(f"<{count}{'I' if wide else 'H'}", *(rng.randrange(CASES[case]["vocabUsed"]) for _ in range(count))))


def median_rate(rates):
    """The first third is warming up."""
    return statistics.median(rates[len(rates) // 3:])


RATE = re.compile(r"([0-9.]+) k tokens/s")


def run_ours(program, case, steps, folder, limit, attention="auto"):
    config = dict(ours_config(case, steps, folder / "tokens.bin"), attention=attention)
    (folder / "run.yaml").write_text(json.dumps(config))
    run = subprocess.run([program, folder / "run.yaml"], capture_output=True, text=True, timeout=limit)
    if run.returncode != 0:
        return dict(why=run.stderr.strip().splitlines()[-1] if run.stderr.strip() else f"exit code {run.returncode}")
    engine = re.search(r"^attention by (.*)$", run.stdout, re.M)
    return dict(rate=1000 * median_rate([float(x) for x in RATE.findall(run.stdout)]), recompute=CASES[case]["recompute"],
                attention=engine.group(1) if engine else "own kernels",
                masters=CASES[case].get("masters", "float"))


def run_llmc(case, steps, variant, folder, limit, options):
    toolkit = llmc.Toolkit(options.cuda_home, options.cudnn, options.headers)
    program, cudnn = llmc.build(options.cache, toolkit, options.llmc_source)
    command = llmc.command(program, CASES[case], folder / "tokens.bin", steps, variant, folder)
    run = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=toolkit.environment())
    if run.returncode != 0 or not llmc.read_steps(run.stdout):
        return dict(why=" ".join((run.stderr.strip() or run.stdout.strip()).splitlines()[-2:]) or f"exit code {run.returncode}")
    return dict(rate=llmc.rate(run.stdout, CASES[case]["batch"] * CASES[case]["context"]), commit=llmc.COMMIT, cudnn=cudnn)


def run_pytorch(case, steps, recipe, limit, options):
    command = [options.python, HERE / "pytorch_peer.py", case, "--steps", str(steps), "--recipe", recipe]
    run = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    if run.returncode != 0:
        return dict(why=run.stderr.strip().splitlines()[-1] if run.stderr.strip() else f"exit code {run.returncode}")
    told = json.loads(run.stdout.splitlines()[-1])
    return dict(rate=median_rate(told["rates"]), what=told["what"])


def profile(program, case, folder, limit):
    """{group: seconds}, or None where there is no nsys."""
    if shutil.which("nsys") is None:
        return None
    steps = 6
    config = ours_config(case, steps, folder / "tokens.bin")
    (folder / "profile.yaml").write_text(json.dumps(config))
    report = folder / "profile"
    subprocess.run(["nsys", "profile", "--force-overwrite=true", "-o", report, program, folder / "profile.yaml"],
                   capture_output=True, timeout=limit, check=True)
    told = subprocess.run(["nsys", "stats", "--report", "cuda_gpu_kern_sum", "--format", "csv", f"{report}.nsys-rep"],
                          capture_output=True, text=True, timeout=limit, check=True)
    return kernels.read_profile(told.stdout, steps)


def sides(case):
    """What is measured, in this order: (name, how)."""
    out = [("ours", ("ours", "auto")), ("ours, own attention", ("ours", "own"))]
    if "llmc" in CASES[case]:
        out += [(f"llm.c -r {v['r']} -ge {v['ge']}", ("llm.c", v)) for v in llmc.VARIANTS]
    recipe = "fits" if "masters" in CASES[case] else "autocast"
    return out + [(f"PyTorch compile, {recipe}", ("PyTorch", recipe))]


def report(results, case):
    for side, result in results.data["sides"].items():
        if "rate" in result:
            share = result["rate"] * flops_per_token(case) / PEAK
            how = f"; attention by {result['attention']}" if "attention" in result else ""
            print(f"{side:28} {result['rate'] / 1000:9.1f} k tokens/s  {100 * share:5.1f} % of {PEAK / 1e12:.1f} TFLOP/s (causal){how}")
        else:
            print(f"{side:28} not run: {result['why']}")
    for peer, found in results.ratios(REQUIRED).items():
        wanted = f"  required {found['required']:.2f}, goal {found['goal']:.2f}: {'met' if found['met'] else 'NOT MET'}" if "required" in found else ""
        print(f"ours / {peer:21} {found['ratio']:9.3f}  (against {found['against']}){wanted}")


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--limit", type=float, default=480, help="seconds, for all of it")
    parser.add_argument("--results", type=pathlib.Path, help="default: trainer-CASE.json in the cache")
    parser.add_argument("--cache", type=pathlib.Path, default=pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "pitcrew/bench")
    parser.add_argument("--cuda-home", default=os.environ.get("CUDA_HOME", "/usr/local/cuda"))
    llmc.add_arguments(parser)
    parser.add_argument("--python", default=sys.executable, help="one that has torch")
    parser.add_argument("--plan", action="store_true", help="print what would be run, and end")
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse(arguments)
    case = options.case
    if options.plan:
        for name, _ in sides(case):
            print(name)
        print(json.dumps(ours_config(case, options.steps, "tokens.bin")))
        print(kernels.text(kernels.table(case)))
        return 0
    if shutil.which("nvidia-smi") is None:
        print("not run: this machine has no GPU (no nvidia-smi)")
        return 77
    options.cache.mkdir(parents=True, exist_ok=True)
    results = Results(options.results or options.cache / f"trainer-{case}.json", case, provenance(ROOT))
    until = time.monotonic() + options.limit
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_tokens(folder / "tokens.bin", case)
        for side, (kind, how) in sides(case):
            left = until - time.monotonic()
            work = {"ours": lambda: run_ours(options.program, case, options.steps, folder, left, how),
                    "llm.c": lambda: run_llmc(case, options.steps, how, folder, left, options),
                    "PyTorch": lambda: run_pytorch(case, options.steps, how, left, options)}[kind]
            results.measure(side, work, left)
        if "kernels" not in results.data and until - time.monotonic() > 60:
            try:
                measured = profile(options.program, case, folder, until - time.monotonic())
                results.data["kernels"] = kernels.table(case, measured)
                results.write()
            except (subprocess.SubprocessError, ValueError) as error:
                print(f"kernels not profiled: {error}")
    report(results, case)
    print(kernels.text(results.data.get("kernels") or kernels.table(case)))
    print(f"kept in {results.path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
