#!/usr/bin/env python3
"""What scripts/images writes: the same bytes whenever and wherever, small enough, with an SPDX document that names what is in it,
and what the Dockerfile says.

    tests/images/images_test.py BIN     BIN holds the programs
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

sys.dont_write_bytecode = True
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import gpu_libraries  # noqa: E402
import oci  # noqa: E402

LIMITS = {"operator": 40e6, "agent": 40e6, "check": 40e6, "launcher": 10e6}  # bytes, compressed
PROGRAMS = {"operator": "pitcrew-operator", "agent": "pitcrew-agent", "check": "pitcrew-check", "launcher": "pitcrew-launcher"}
# Facts that a document without them would be wrong: what each program can't do without.
NEEDS = {"operator": {"libssl3", "libc6", "libcpprest2.10", "nlohmann-json3-dev"}, "launcher": {"libssl-dev", "nlohmann-json3-dev"}, "agent": {"libssl3", "libc6"},
         "check": {"libc6"}}


def pack(bin_folder, folder, umask, **environment):
    old = os.umask(umask)
    try:
        words = [ROOT / "scripts/images", "--programs", bin_folder, "--out", folder, *NEEDS]
        subprocess.run([str(word) for word in words], check=True, capture_output=True, env=dict(os.environ, **environment))
    finally:
        os.umask(old)


def digests(folder):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(Path(folder).iterdir())}


def check_document(image, archive, document):
    assert document["spdxVersion"] == "SPDX-2.3" and document["documentNamespace"].startswith("https://")
    identities = [package["SPDXID"] for package in document["packages"]]
    assert len(set(identities)) == len(identities), "an identity stands twice"
    for relation in document["relationships"]:
        assert {relation["spdxElementId"], relation["relatedSpdxElement"]} <= {"SPDXRef-DOCUMENT", *identities}, relation
    names = {package["name"] for package in document["packages"]}
    assert NEEDS[image] <= names, f"{image}: not named: {NEEDS[image] - names}"
    assert all(package.get("versionInfo") for package in document["packages"])
    # Every Debian package that the image itself carries is in the document, and no other as part of the image.
    inside = set()
    for layer in oci.read(archive)[1]:
        with tarfile.open(fileobj=BytesIO(layer)) as tar:
            inside |= {name.rpartition("/")[2] for name in tar.getnames() if name.startswith("var/lib/dpkg/status.d/")}
    contained = {r["relatedSpdxElement"] for r in document["relationships"] if r["relationshipType"] == "CONTAINS"}
    named = {package["name"] for package in document["packages"] if package["SPDXID"] in contained and package["SPDXID"].startswith("SPDXRef-shared")}
    assert named == inside, f"{image}: {named ^ inside}"


def check_contents(image, archive):
    """The program, and nothing else that could be started: no shell, no package manager."""
    programs = set()
    for layer in oci.read(archive)[1]:
        with tarfile.open(fileobj=BytesIO(layer)) as tar:
            programs |= {f"/{entry.name.strip('/')}" for entry in tar if entry.isfile() and entry.mode & 0o111 and ".so" not in entry.name}
    wanted = f"/{PROGRAMS[image]}" if image == "launcher" else f"/usr/bin/{PROGRAMS[image]}"
    assert programs == {wanted}, f"{image}: {programs}"


def check_version(image, labels, program):
    """In the image and in the program: the version, and a commit."""
    version = (ROOT / "VERSION").read_text().strip()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    assert labels["org.opencontainers.image.version"] == version, labels
    assert labels["org.opencontainers.image.revision"].removesuffix("-changed") == commit, labels
    said = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout
    assert re.search(rf"\b{re.escape(version)} \(commit [0-9a-f]{{7,}}", said), f"{image}: {said}"


def check_dockerfile(image, configuration):
    stage = re.search(rf"^FROM scratch AS {image}\n((?:(?!FROM).*\n)*)", (ROOT / "Dockerfile").read_text(), re.M)[1]
    assert re.search(r"^USER (\S+)", stage, re.M)[1] == configuration["User"], image
    entry = re.search(r"^ENTRYPOINT (.*)", stage, re.M)
    assert json.loads(entry[1]) == configuration["Entrypoint"], image


def check_dockerfile_for_gpus():
    text = (ROOT / "Dockerfile").read_text()
    for image in ("trainer", "check"):
        stage = re.search(rf"^FROM scratch AS {image}-gpu\n((?:(?!FROM).*\n)*)", text, re.M)[1]
        plain = re.search(rf"^FROM scratch AS {image}\n((?:(?!FROM).*\n)*)", text, re.M)[1]
        assert dict(re.findall(r'(\w+)="([^"]*)"', stage)) == gpu_libraries.ENVIRONMENT, image
        for word in ("USER", "ENTRYPOINT"):
            assert re.findall(rf"^{word} .*", stage, re.M) == re.findall(rf"^{word} .*", plain, re.M), image


def check_wheels():
    """What is taken of a wheel: the libraries, the licences, the version; a wheel that is not there is named with the remedy."""
    with tempfile.TemporaryDirectory() as folder:
        info = Path(folder) / "nvidia_nccl_cu13-2.28.9.dist-info"
        (info / "licenses").mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: nvidia-nccl-cu13\nVersion: 2.28.9\n")
        (info / "licenses/License.txt").write_text("words")
        library = Path(folder) / "nvidia/nccl/lib/libnccl.so.2"
        library.parent.mkdir(parents=True)
        library.write_bytes(b"elf")
        (info / "RECORD").write_text("nvidia/nccl/lib/libnccl.so.2,sha256=x,3\nnvidia/nccl/include/nccl.h,sha256=y,4\n")
        wheel = gpu_libraries._wheel(info, gpu_libraries.WANTED["nvidia-nccl-cu13"][0])
        assert gpu_libraries.is_one("/x/libcudnn_graph.so.9") and not gpu_libraries.is_one("/x/libcudnn_adv.so.9")
        assert gpu_libraries.is_one("/x/libnvrtc-builtins.so.13.0") and not gpu_libraries.is_one("/x/libnvrtc.alt.so.13")
        assert (wheel.version, [file.name for file in wheel.files]) == ("2.28.9", ["libnccl.so.2"]), wheel
        layer = gpu_libraries.layer(wheel)
        assert "/usr/lib/x86_64-linux-gnu/libnccl.so.2" in layer and "/usr/share/doc/nvidia-nccl-cu13/License.txt" in layer
        try:
            gpu_libraries.needed("trainer", Path(folder))
            raise AssertionError("a wheel that is missing was not missed")
        except SystemExit as lost:
            assert "nvidia-cublas" in str(lost) and "scripts/setup --cuda-runtime" in str(lost), lost


def main():
    check_wheels()
    check_dockerfile_for_gpus()
    bin_folder = sys.argv[1]
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        pack(bin_folder, one, 0o022, TZ="UTC", LC_ALL="C", PYTHONHASHSEED="1")
        pack(bin_folder, two, 0o077, TZ="Pacific/Auckland", LC_ALL="C.UTF-8", PYTHONHASHSEED="2")
        assert digests(one) == digests(two), f"not the same bytes: {digests(one)} {digests(two)}"
        for image in NEEDS:
            archive = Path(one) / f"{image}.tar"
            size = archive.stat().st_size
            assert size < LIMITS[image], f"{image}: {size} bytes"
            check_document(image, archive, json.loads((Path(one) / f"{image}.spdx.json").read_text()))
            configuration = oci.read(archive)[0]["config"]
            check_dockerfile(image, configuration)
            check_contents(image, archive)
            check_version(image, configuration["Labels"], Path(bin_folder) / PROGRAMS[image])
        print(f"{len(NEEDS)} images packed twice: the same bytes; sizes, SPDX documents and Dockerfile agree")


if __name__ == "__main__":
    main()
