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
import oci  # noqa: E402

LIMITS = {"operator": 40e6, "agent": 40e6, "launcher": 10e6}  # bytes, compressed
# Facts that a document without them would be wrong: what each program can't do without.
NEEDS = {"operator": {"libssl3", "libc6", "libcpprest2.10", "nlohmann-json3-dev"}, "launcher": {"libssl-dev", "nlohmann-json3-dev"}, "agent": {"libssl3", "libc6"}}


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


def check_dockerfile(image, configuration):
    stage = re.search(rf"^FROM scratch AS {image}\n((?:(?!FROM).*\n)*)", (ROOT / "Dockerfile").read_text(), re.M)[1]
    assert re.search(r"^USER (\S+)", stage, re.M)[1] == configuration["User"], image
    entry = re.search(r"^ENTRYPOINT (.*)", stage, re.M)
    assert json.loads(entry[1]) == configuration["Entrypoint"], image


def main():
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
            assert configuration["Labels"]["org.opencontainers.image.revision"]
        print(f"{len(NEEDS)} images packed twice: the same bytes; sizes, SPDX documents and Dockerfile agree")


if __name__ == "__main__":
    main()
