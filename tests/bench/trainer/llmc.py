"""llm.c, built from its public source: train_gpt2cu in BF16, with cuDNN's attention where its headers are."""

import os
import pathlib
import re
import statistics
import subprocess

SOURCE = "https://github.com/karpathy/llm.c"
COMMIT = "f1e2ace"
# -r recomputes GELU in the backward pass, -ge fuses it into the product: the fastest of these is its figure.
VARIANTS = [dict(r=r, ge=ge) for r in (0, 1) for ge in (0, 2)]


def build_commands(folder, cudnn_frontend=None):
    make = ["make", "-C", str(folder), "train_gpt2cu", "NO_MULTI_GPU=1", "NO_USE_MPI=1", "PRECISION=BF16"]
    if cudnn_frontend:
        make += ["USE_CUDNN=1", f"CUDNN_FRONTEND_PATH={cudnn_frontend}"]
    return [["git", "clone", "--quiet", SOURCE, str(folder)], ["git", "-C", str(folder), "checkout", "--quiet", COMMIT], make]


def build(cache, cuda_home, cudnn_frontend=None, cudnn_home=None):
    """The program, and whether it has cuDNN. Made once."""
    folder = pathlib.Path(cache) / f"llm.c-{COMMIT}"
    stamp = folder / ("with-cudnn" if cudnn_frontend else "without-cudnn")
    if not stamp.exists():
        environment = dict(os.environ)
        homes = [home for home in (cuda_home, cudnn_home) if home]
        environment["PATH"] = os.pathsep.join([f"{cuda_home}/bin", environment.get("PATH", "")])
        environment["CPATH"] = os.pathsep.join(f"{home}/include" for home in homes)
        environment["LIBRARY_PATH"] = os.pathsep.join(f"{home}/lib" for home in homes)
        commands = build_commands(folder, cudnn_frontend)
        for command in commands[2:] if folder.exists() else commands:
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        stamp.touch()
    return folder / "train_gpt2cu", bool(cudnn_frontend)


def command(program, case, tokens, steps, variant, output, model=None, learning_rate=1e-4):
    return [str(program), "-i", str(tokens), "-j", str(tokens), "-o", str(output), "-e", str(model or case["llmc"]),
            "-b", str(case["micro"]), "-t", str(case["context"]), "-d", str(case["batch"] * case["context"]),
            "-x", str(steps), "-v", "0", "-s", "0", "-h", "0", "-n", "0", "-l", str(learning_rate), "-u", "0", "-q", "1.0",
            "-c", "0.1", "-z", "0", "-r", str(variant["r"]), "-ge", str(variant["ge"])]


STEP = re.compile(r"step\s+(\d+)/\d+ \| loss\s+([0-9.]+).*?\|\s*([0-9.]+) ms \|")


def read_steps(text):
    """[(step, loss, milliseconds)] of its output."""
    return [(int(step), float(loss), float(ms)) for step, loss, ms in STEP.findall(text)]


def rate(text, tokens_per_step):
    """Median tokens a second, the first third left out."""
    steps = read_steps(text)
    return statistics.median(tokens_per_step / ms * 1000 for _, _, ms in steps[len(steps) // 3:])
