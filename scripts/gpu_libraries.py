"""NVIDIA's libraries in the images for GPUs: taken from Python wheels of one CUDA version, so that they match. The driver's own
(libcuda, libnvidia-ml) are not among them: the node's container toolkit mounts those of the node's driver."""

import re
from dataclasses import dataclass
from pathlib import Path

import oci

# Where the loader looks without being told.
FOLDER = "/usr/lib/x86_64-linux-gnu"
# By wheel: the libraries that are taken, and in which images. What is not named here is a compiler's or a developer's.
WANTED = {
    "nvidia-cublas": (r"libcublasLt\.so\.\d+$", ("trainer", "check")),
    "nvidia-nccl-cu13": (r"libnccl\.so\.2$", ("trainer", "check")),
    # Attention: what its graphs load, and the compiler of their kernels. cuDNN's other libraries are of other operations.
    "nvidia-cudnn-cu13": (r"libcudnn(_graph|_engines_precompiled|_engines_runtime_compiled|_heuristic)?\.so\.9$", ("trainer",)),
    "nvidia-cuda-nvrtc": (r"libnvrtc(-builtins)?\.so\.[0-9.]+$", ("trainer",)),
}
# EFA's installer puts libfabric and aws-ofi-nccl there; an image made from ours copies them to these places, or a pod mounts
# the node's (docs/install-eks.md). Folders that are not there cost nothing. The rest asks the container toolkit for GPUs.
ENVIRONMENT = {
    "LD_LIBRARY_PATH": "/opt/amazon/ofi-nccl/lib:/opt/amazon/efa/lib:/opt/aws-ofi-nccl/lib",
    "NVIDIA_VISIBLE_DEVICES": "all",
    "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
}


@dataclass(frozen=True)
class Wheel:
    name: str
    version: str
    licences: tuple
    files: tuple


def is_one(path):
    return any(re.match(pattern, Path(path).name) for pattern, _ in WANTED.values())


def _wheel(info, pattern):
    told = dict(re.findall(r"^(Name|Version): (.*)$", (info / "METADATA").read_text(), re.M))
    names = [line.split(",")[0] for line in (info / "RECORD").read_text().splitlines()]
    files = tuple(sorted(info.parent / name for name in names if re.search(rf"/{pattern}", name)))
    licences = tuple(sorted(path for path in info.rglob("*") if re.match(r"licen[sc]e", path.name, re.I) and path.is_file()))
    return Wheel(told["Name"], told["Version"], licences, files)


def needed(kind, folder):
    """The wheels whose libraries an image carries. Where one was not installed, that is said."""
    found = []
    for name, (pattern, kinds) in WANTED.items():
        if kind not in kinds:
            continue
        infos = sorted(folder.glob(name.replace("-", "_") + "-*.dist-info"))
        if not infos:
            raise SystemExit(f"error: {name} is not in {folder}: scripts/setup --cuda-runtime installs it")
        found.append(_wheel(infos[-1], pattern))
    return found


def layer(wheel):
    """A layer for each wheel, so that registries and nodes keep it once for many of our versions."""
    made = oci.Layer()
    for file in wheel.files:
        made.file(f"{FOLDER}/{file.name}", file, 0o755)
    for licence in wheel.licences:
        made.file(f"/usr/share/doc/{wheel.name}/{licence.name}", licence)
    return made


def fact(wheel):
    return {"name": wheel.name, "version": wheel.version, "supplier": "NVIDIA"}


def told(wheels):
    return ", ".join(f"{wheel.name} {wheel.version}" for wheel in wheels)
