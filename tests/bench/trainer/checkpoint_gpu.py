#!/usr/bin/env python3
"""What checkpoints cost on one GPU: checkpoint_gpu.py PITCREW-TRAIN [--case 1240m] [--saves 20] [--memory /dev/shm] [--results FILE]

Trains the case twice, without saves and with one into memory every 20 steps; prints the worst pause of a save, what of the throughput was
lost, and how long a new process takes from its start to its first step from there. Beside it PyTorch's distributed checkpoint (DCP
async_save and load) of a state of the same size."""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

from cases import CASES, ours_config
from gpu_case import write_tokens
from results import provenance

ROOT = pathlib.Path(__file__).parents[3]
EVERY = 20

PEER = """
import json, sys, time, torch, torch.distributed as dist, torch.distributed.checkpoint as dcp
gigabytes, folder = float(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=0, world_size=1)
state = {str(i): torch.randn(int(gigabytes * 1e9 / 4 / 32), device="cuda") for i in range(32)}
stalls = []
for i in range(3):
    torch.cuda.synchronize()
    begin = time.perf_counter()
    future = dcp.async_save(state, checkpoint_id=f"{folder}/{i}")
    stalls.append(time.perf_counter() - begin)
    future.result()
begin = time.perf_counter()
dcp.load(state, checkpoint_id=f"{folder}/2")
torch.cuda.synchronize()
print(json.dumps(dict(stalls=stalls, load=time.perf_counter() - begin, torch=torch.__version__)))
"""


def parameters_of(output):
    found = re.search(r"(\d+) parameters", output)
    return int(found.group(1)) if found else None


def judge(plain, saving, first_step):
    """plain, saving: lines of steps.jsonl; the first third is warming up. Stalls are told by the step that follows a save."""
    rate = lambda lines: statistics.median(line["tokensPerSecond"] for line in lines)  # noqa: E731
    mean = lambda lines: len(lines) / sum(line["seconds"] for line in lines)  # noqa: E731
    late_plain, late_saving = plain[len(plain) // 3:], saving[len(saving) // 3:]
    stalls = [line["stall"] for line in saving if line["stall"] > 0]
    return dict(saves=sum(1 for line in saving if line["step"] % EVERY == 0), worst_stall=max(stalls, default=0.0),
                loss=1 - mean(late_saving) / mean(late_plain), rate=rate(late_plain), rate_saving=rate(late_saving),
                restore_to_first_step=first_step)


def run(program, config, folder, name, memory=None, until_step=None):
    """The lines of steps.jsonl, the output, and the seconds until the first new step was told."""
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(config))
    environment = dict(os.environ)
    if memory:
        environment["PITCREW_MEMORY"] = str(memory)
    begin, first, output = time.monotonic(), None, []
    with subprocess.Popen([program, path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment) as process:
        for line in process.stdout:
            output.append(line)
            if first is None and line.startswith("step "):
                first = time.monotonic() - begin
                if until_step:
                    process.kill()
    if process.returncode != 0 and not until_step:
        raise RuntimeError("".join(output[-3:]).strip())
    log = pathlib.Path(config["checkpoint"]["path"]) / "steps.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()], "".join(output), first


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--case", choices=CASES, default="1240m")
    parser.add_argument("--saves", type=int, default=20)
    parser.add_argument("--memory", type=pathlib.Path, default=pathlib.Path("/dev/shm"))
    parser.add_argument("--results", type=pathlib.Path, default=pathlib.Path("trainer-checkpoint.json"))
    parser.add_argument("--python", default=sys.executable)
    options = parser.parse_args(arguments)
    where = provenance(ROOT)
    if not where["gpu"]:
        print("not run: this machine has no GPU (no nvidia-smi)")
        return 77
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory(dir=options.memory) as memory:
        folder = pathlib.Path(name)
        write_tokens(folder / "tokens.bin", options.case)
        steps = EVERY * (options.saves + 1)
        config = ours_config(options.case, steps, folder / "tokens.bin")
        plain, output, _ = run(options.program, dict(config, steps=60, checkpoint=dict(path=str(folder / "plain"))), folder, "plain")
        config["checkpoint"] = dict(path=str(folder / "saving"), memory=dict(every=dict(steps=EVERY)))
        saving, _, _ = run(options.program, config, folder, "saving", memory)
        _, _, first = run(options.program, dict(config, steps=steps + 10), folder, "restore", memory, until_step=steps + 1)
        told = judge(plain, saving, first)
        count = parameters_of(output)
        peer = subprocess.run([options.python, "-c", PEER, str(12 * count / 1e9), name], capture_output=True, text=True)
        told["peer"] = json.loads(peer.stdout.splitlines()[-1]) if peer.returncode == 0 else dict(why=peer.stderr.strip()[-200:])
    print(f"worst pause of {told['saves']} saves   {1000 * told['worst_stall']:8.1f} ms  (at most 50 ms)")
    print(f"throughput lost            {100 * told['loss']:8.2f} %   (below 3 %)")
    print(f"restore to the first step  {told['restore_to_first_step']:8.2f} s   (at most 5 s)")
    if "stalls" in told["peer"]:
        print(f"PyTorch DCP: async_save stalls {max(told['peer']['stalls']):.2f} s, load alone {told['peer']['load']:.2f} s")
    else:
        print(f"PyTorch DCP not run: {told['peer']['why']}")
    options.results.write_text(json.dumps(dict(told, provenance=where), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
