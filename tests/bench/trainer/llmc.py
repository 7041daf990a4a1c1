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


# What its Makefile links with, by the names that it uses; wheels and drivers have files with a version's number only.
LINKED = {"libcublas.so": "libcublas.so.*", "libcublasLt.so": "libcublasLt.so.*", "libcudnn.so": "libcudnn.so.*",
          "libnvidia-ml.so": "libnvidia-ml.so.*"}
SYSTEM = [pathlib.Path("/usr/lib/x86_64-linux-gnu"), pathlib.Path("/usr/lib64"), pathlib.Path("/usr/lib")]


class Toolkit:
    """Where the compiler, headers and libraries are: of CUDA, of cuDNN (a folder of wheels, or none), and other headers."""

    def __init__(self, cuda_home, cudnn=None, headers=None):
        self.cuda = pathlib.Path(cuda_home)
        self.cudnn = pathlib.Path(cudnn) if cudnn and (pathlib.Path(cudnn) / "include/cudnn_frontend.h").exists() else None
        wheels = [self.cudnn] if self.cudnn else []
        wheels += [pathlib.Path(headers)] if headers else []
        inside = [wheel / "nvidia" / name for wheel in wheels for name in ("cudnn", "cu13")]
        self.includes = [self.cuda / "include"] + [folder / "include" for folder in inside]
        self.libraries = [self.cuda / "lib", self.cuda / "lib64"] + [folder / "lib" for folder in inside]

    def environment(self):
        environment = dict(os.environ)
        environment["PATH"] = os.pathsep.join([str(self.cuda / "bin"), environment.get("PATH", "")])
        environment["CPATH"] = os.pathsep.join(map(str, self.includes))
        environment["LD_LIBRARY_PATH"] = os.pathsep.join([*map(str, self.libraries), environment.get("LD_LIBRARY_PATH", "")])
        return environment

    def link(self, folder):
        """Links by the names that the linker looks for."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, pattern in LINKED.items():
            if name == "libcudnn.so" and not self.cudnn:
                continue
            found = [path for place in self.libraries + SYSTEM for path in sorted(place.glob(pattern))]
            if not found:
                raise OSError(f"llm.c is linked with {name}, and there is no {pattern} in {', '.join(map(str, self.libraries))}")
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(found[0].resolve())


def build_commands(folder, source=SOURCE, cudnn=False, architecture="90"):
    # Its own question for the architecture is answered by nothing (a make variable where a shell was meant), and nvcc's default
    # would be translated when the program starts.
    make = ["make", "-C", str(folder), "train_gpt2cu", "NO_MULTI_GPU=1", "NO_USE_MPI=1", "PRECISION=BF16",
            f"GPU_COMPUTE_CAPABILITY={architecture}"]
    if cudnn:
        # The Makefile goes on only where one of two folders exists, whatever CUDNN_FRONTEND_PATH says: build() links this one.
        make += ["USE_CUDNN=1", "CUDNN_FRONTEND_PATH=cudnn-frontend/include"]
    return [["git", "clone", "--quiet", str(source), str(folder)], ["git", "-C", str(folder), "checkout", "--quiet", COMMIT], make]


def architecture():
    """Of the GPU that is here: "90"."""
    said = subprocess.run(["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"], capture_output=True, text=True, check=True)
    return said.stdout.split()[0].replace(".", "")


def build(cache, toolkit, source=SOURCE, sm=None):
    """The program, and whether it has cuDNN. Made once for each kind."""
    with_cudnn = toolkit.cudnn is not None
    folder = pathlib.Path(cache) / f"llm.c-{COMMIT}-{'with' if with_cudnn else 'without'}-cudnn"
    program, stamp = folder / "train_gpt2cu", folder / "built"
    if not stamp.exists():
        environment = toolkit.environment()
        links = pathlib.Path(cache) / "llm.c-links"
        toolkit.link(links)
        environment["LIBRARY_PATH"] = os.pathsep.join(map(str, [links, *toolkit.libraries]))
        clone, checkout, make = build_commands(folder, source, with_cudnn, sm or architecture())
        if not (folder / "Makefile").exists():
            subprocess.run(clone, check=True, capture_output=True)
        subprocess.run(checkout, check=True, capture_output=True)
        if with_cudnn:
            (folder / "cudnn-frontend").unlink(missing_ok=True)
            (folder / "cudnn-frontend").symlink_to(toolkit.cudnn)
        told = subprocess.run(make, env=environment, capture_output=True, text=True)
        if told.returncode != 0:
            raise OSError("llm.c was not built: " + " ".join((told.stderr.strip() or told.stdout.strip()).splitlines()[-3:]))
        stamp.touch()
    return program, with_cudnn


def add_arguments(parser):
    parser.add_argument("--cudnn", help="a folder of wheels (scripts/setup --cuda makes it); without it llm.c has no cuDNN")
    parser.add_argument("--headers", help="a folder of wheels with NVTX and the profiler's header, where the toolkit has none")
    parser.add_argument("--llmc-source", default=SOURCE, help="a clone of it, where its public place can't be reached")


def command(program, case, tokens, steps, variant, output, model=None, learning_rate=1e-4):
    # -v 0 would be a division by zero (step % val_loss_every): it evaluates one batch before and after, outside what it times.
    return [str(program), "-i", str(tokens), "-j", str(tokens), "-o", str(output), "-e", str(model or case["llmc"]),
            "-b", str(case["micro"]), "-t", str(case["context"]), "-d", str(case["batch"] * case["context"]),
            "-x", str(steps), "-v", str(1000 * steps), "-m", "1", "-s", "0", "-h", "0", "-n", "0", "-l", str(learning_rate), "-u", "0", "-q", "1.0",
            "-c", "0.1", "-z", "0", "-r", str(variant["r"]), "-ge", str(variant["ge"])]


STEP = re.compile(r"step\s+(\d+)/\d+ \| loss\s+([0-9.]+).*?\|\s*([0-9.]+) ms \|")


def read_steps(text):
    """[(step, loss, milliseconds)] of its output."""
    return [(int(step), float(loss), float(ms)) for step, loss, ms in STEP.findall(text)]


def rate(text, tokens_per_step):
    """Median tokens a second, the first third left out."""
    steps = read_steps(text)
    return statistics.median(tokens_per_step / ms * 1000 for _, _, ms in steps[len(steps) // 3:])
