#!/usr/bin/env python3
"""examples/pytorch-fsdp/train.py on two CPU ranks: killed between two checkpoints and started again, it learns what an
undisturbed run does, bit for bit.

    tests/examples/fsdp_resumes.py TORCH     TORCH is a Python environment with torch; `scripts/test pytorch` makes one
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "examples/pytorch-fsdp/train.py"
STEPS = 60


def start(torch, folder, pause=0.0):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port, PROGRAM, "--folder", folder, "--steps", STEPS, "--pause", pause]
    environment = dict(os.environ, PYTHONPATH=str(ROOT / "examples"), PYTHONWARNINGS="ignore")
    return subprocess.Popen([f"{torch}/bin/python", *map(str, words)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            start_new_session=True)


def kill(folder):
    """All ranks: torchrun starts each in a session of its own."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)
        except OSError:
            continue


def finish(process, seconds=300):
    said, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, f"exit code {process.returncode}: {said[-2000:]}"
    return said


def losses(folder):
    """Step → the loss's bits. A step that was done twice must have come out the same."""
    found = {}
    for line in (folder / "losses.txt").read_text().splitlines():
        step, bits = line.split()
        assert found.setdefault(int(step), bits) == bits, f"step {step} came out as {found[int(step)]} and as {bits}"
    return found


def main():
    torch = sys.argv[1]
    with tempfile.TemporaryDirectory(prefix="pitcrew-fsdp-") as folder:
        whole, broken = Path(folder) / "whole", Path(folder) / "broken"
        finish(start(torch, whole))
        process = start(torch, broken, pause=0.2)
        end = time.monotonic() + 300
        while not (broken / "losses.txt").exists() or max(losses(broken), default=0) < 27:
            assert process.poll() is None and time.monotonic() < end, "it never came to step 27"
            time.sleep(0.02)
        kill(broken)
        process.communicate()
        said = finish(start(torch, broken))
        assert "begin at step 20" in said or "begin at step 40" in said, said
        assert losses(broken) == losses(whole), "the losses differ from an undisturbed run's"
        assert set(losses(whole)) == set(range(1, STEPS + 1))
        print(f"{STEPS} steps, killed and resumed: every loss is the undisturbed run's")


if __name__ == "__main__":
    main()
