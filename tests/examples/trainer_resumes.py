#!/usr/bin/env python3
"""examples/huggingface-trainer/train.py on two CPU ranks with a tiny random model: killed between two checkpoints, then asked to
stop, then ended, it has learned what an undisturbed run has, bit for bit. Its progress page says how far it is.

    tests/examples/trainer_resumes.py TRANSFORMERS     a Python environment with torch and transformers; `scripts/test pytorch` makes one
"""

import json
import math
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples"))

import pitcrew_progress as pitcrew  # noqa: E402

PROGRAM = ROOT / "examples/huggingface-trainer/train.py"
STEPS, SAVE_EVERY, RANKS = 60, 20, 2
LOG_EVERY = 10  # as train.py has it

MODEL = """
import sys
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
folder, words = sys.argv[1], sys.argv[2:]
tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(["<unk>", "<end>", *words])}, unk_token="<unk>"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>").save_pretrained(folder)
torch.manual_seed(1)
LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
                             num_key_value_heads=2, max_position_embeddings=64, attention_dropout=0.1)).save_pretrained(folder)
"""


class Page:
    """A progress page, as a launcher makes one, and what ranks have written on it."""

    def __init__(self, path):
        self.path = path
        page = bytearray(pitcrew._HEADER_BYTES + RANKS * (pitcrew._LINE_BYTES + pitcrew._GAUGES * pitcrew._GAUGE_BYTES))
        struct.pack_into("<QII", page, 0, pitcrew._MAGIC, pitcrew._LAYOUT_VERSION, RANKS)
        struct.pack_into("<Q", page, pitcrew._RESUMED_STEP, pitcrew._NO_STEP)
        path.write_bytes(page)

    def header(self, offset):
        return struct.unpack_from("<Q", self.path.read_bytes(), offset)[0]

    def line(self, rank, offset, layout="<Q"):
        return struct.unpack_from(layout, self.path.read_bytes(), pitcrew._HEADER_BYTES + rank * pitcrew._LINE_BYTES + offset)[0]

    def step(self):
        return self.line(0, pitcrew._STEP)

    def ask_to_stop(self):
        with open(self.path, "r+b") as page:
            page.seek(pitcrew._STOP_REQUESTED)
            page.write(struct.pack("<Q", 1))


class Run:
    """One start of the program by torchrun."""

    def __init__(self, python, folder, out, page):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.out, self.page = out, page
        words = ["-m", "torch.distributed.run", "--nproc-per-node", RANKS, "--master-port", port, PROGRAM, "--model", folder / "model",
                 "--data", folder / "text.txt", "--folder", out, "--steps", STEPS, "--save-every", SAVE_EVERY, "--context", 32]
        environment = dict(os.environ, PYTHONPATH=str(ROOT / "examples"), PYTHONWARNINGS="ignore", HF_HUB_OFFLINE="1", HF_HOME=str(folder / "cache"),
                           OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="", PITCREW_PROGRESS=str(page.path))
        self.process = subprocess.Popen([python, *map(str, words)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                        start_new_session=True)

    def reach(self, step, seconds=600):
        end = time.monotonic() + seconds
        while self.page.step() < step:
            if self.process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise AssertionError(f"it never came to step {step}: {self.process.communicate()[0][-3000:]}")
            time.sleep(0.001)

    def kill(self):
        """All ranks: torchrun starts each in a session of its own."""
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if str(self.out).encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                    os.kill(int(entry.name), signal.SIGKILL)
            except OSError:
                continue

    def finish(self, seconds=600):
        try:
            said, _ = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        assert self.process.returncode == 0, f"exit code {self.process.returncode}: {said[-3000:]}"


def learned(out):
    """The weights' bytes after the last step, and the losses that were logged on the way."""
    last = out / f"checkpoint-{STEPS}"
    logged = json.loads((last / "trainer_state.json").read_text())["log_history"]
    return (last / "model.safetensors").read_bytes(), [(line["step"], line["loss"]) for line in logged if "loss" in line]


def prepare(python, folder):
    words = [f"w{number}" for number in range(60)]
    choice = random.Random(3)
    (folder / "text.txt").write_text("".join(" ".join(choice.choices(words, k=choice.randint(8, 30))) + "\n" for _ in range(700)))
    subprocess.run([python, "-c", MODEL, folder / "model", *words], check=True, env=dict(os.environ, HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES=""))


def main():
    python = f"{sys.argv[1]}/bin/python"
    with tempfile.TemporaryDirectory(prefix="pitcrew-trainer-") as name:
        folder = Path(name)
        prepare(python, folder)
        whole, broken = folder / "whole", folder / "broken"
        page = Page(folder / "page-1")
        Run(python, folder, whole, page).finish()
        assert [page.line(rank, pitcrew._STEP) for rank in range(RANKS)] == [STEPS] * RANKS, "the page is not at the last step"
        assert page.line(0, pitcrew._PHASE, "<H") == pitcrew.DONE and page.header(pitcrew._TOTAL_STEPS) == STEPS
        assert page.header(pitcrew._DURABLE_STEP) == STEPS and math.isfinite(page.line(0, pitcrew._LOSS, "<d"))
        assert page.header(pitcrew._RESUMED_STEP) == pitcrew._NO_STEP

        killed = Run(python, folder, broken, Page(folder / "page-2"))
        killed.reach(SAVE_EVERY + 3)
        killed.kill()
        killed.process.communicate()
        # What a kill in the middle of a save leaves behind: it must not be taken.
        half = broken / f"checkpoint-{STEPS - 1}"
        shutil.copytree(broken / f"checkpoint-{SAVE_EVERY}", half)
        (half / "trainer_state.json").write_text("{")

        page = Page(folder / "page-3")
        stopped = Run(python, folder, broken, page)
        stopped.reach(SAVE_EVERY + 5)
        page.ask_to_stop()
        stopped.finish()
        resumed, at = page.header(pitcrew._RESUMED_STEP), page.step()
        assert resumed in range(SAVE_EVERY, STEPS, SAVE_EVERY), f"it resumed from step {resumed}"
        assert SAVE_EVERY + 5 <= at < STEPS and (broken / f"checkpoint-{at}").exists(), f"told to stop, it ended at step {at} without a checkpoint of it"

        page = Page(folder / "page-4")
        Run(python, folder, broken, page).finish()
        assert page.header(pitcrew._RESUMED_STEP) == at, f"it resumed from step {page.header(pitcrew._RESUMED_STEP)}, not from {at}"
        weights, losses = learned(whole)
        assert learned(broken)[0] == weights, "the weights differ from an undisturbed run's"
        # A logged loss is the mean of the steps since the log before, or since the resume.
        means = [(step, loss) for step, loss in learned(broken)[1] if not step - LOG_EVERY < at < step]
        assert set(means) <= set(losses) and len(means) >= len(losses) - 1, f"the losses {means} are not the undisturbed run's {losses}"
        print(f"{STEPS} steps, killed, resumed from step {resumed}, stopped at step {at}, resumed: the weights are the undisturbed run's")


if __name__ == "__main__":
    main()
