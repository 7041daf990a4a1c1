"""Images that are none of ours: other C libraries, other Debians, with a training program that knows nothing of Pitcrew."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from .config import CACHE, ROOT, Failed, NotRun
from .process import quiet, say

sys.path.insert(0, str(ROOT / "scripts"))
import oci  # noqa: E402

CODENAMES = {11: "bullseye", 12: "bookworm"}
# What a shell script needs; the rest of a minimal system is left out of the image.
PACKAGES = ("base-files", "base-passwd", "coreutils", "dash", "debianutils", "libc6", "libselinux1", "libacl1", "libattr1", "libgmp10",
            "libpcre2-8-0", "libcrypt1", "libgcc-s1")
# The programs run for a minute: longer than the launcher waits for a word on the progress page.
SCRIPT = r"""
i=0
while [ $i -lt 120 ]; do i=$((i+1)); echo "rank $RANK of $WORLD_SIZE step $i"; sleep 0.5; done
"""
# What `import torch` needs beside: Python whole, as Debian packs it.
PYTHON_PACKAGES = ("python3", "python3-minimal", "python3.11", "python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libexpat1",
                   "zlib1g", "libssl3", "libffi8", "libbz2-1.0", "liblzma5", "libuuid1", "libsqlite3-0", "libdb5.3", "libncursesw6", "libtinfo6",
                   "libreadline8", "libstdc++6", "media-types", "netbase")
_MUSL_PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(void) {
  for (int i = 1; i <= 120; ++i) {
    printf("rank %s of %s step %d\n", getenv("RANK"), getenv("WORLD_SIZE"), i);
    fflush(stdout);
    usleep(500000);
  }
  return 0;
}
"""


def _mirror():
    """Where this machine gets its own packages from."""
    sources = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for source in sources:
        found = re.search(r"^(?:deb\s+(?:\[[^]]*\]\s*)?|URIs:\s*)(\S+)", source.read_text(), re.M) if source.is_file() else None
        if found:
            return found[1]
    raise NotRun("this machine's package sources name no mirror")


def debian(release, path, python=False):
    """A Debian by debootstrap, with or without its Python, kept in the cache as an image archive."""
    name = f"debian-{release}{'-python' if python else ''}"
    kept = CACHE / "cluster" / f"{name}.tar"
    if not kept.exists():
        with tempfile.TemporaryDirectory(prefix="pitcrew-debian-") as folder:
            say(f"installing Debian {release} by debootstrap, once")
            words = ["debootstrap", "--variant=minbase", "--merged-usr", *(["--include=python3,netbase"] if python else []), CODENAMES[release], folder, _mirror()]
            done = subprocess.run(words, capture_output=True, text=True)
            if done.returncode != 0:
                raise NotRun(f"debootstrap of Debian {release}: {done.stdout[-400:]}")
            packages = PACKAGES + (PYTHON_PACKAGES if python else ())
            oci.write(oci.Image([_packages(Path(folder), packages)], user="0:0"), f"pitcrew.test/debian:{name}", kept)
    path.write_bytes(kept.read_bytes())


def musl(path):
    """A program that is linked to musl dynamically, with musl's loader and nothing else: no shell, no glibc."""
    loader = Path("/lib/ld-musl-x86_64.so.1")
    if not loader.exists():
        raise Failed("there is no musl; scripts/setup installs it")
    layer = oci.Layer()
    with tempfile.TemporaryDirectory() as folder:
        quiet("musl-gcc", "-x", "c", "-O1", "-o", f"{folder}/train", "-", text=_MUSL_PROGRAM)
        layer.file("/usr/bin/train", f"{folder}/train", 0o755)
    layer.file("/lib/ld-musl-x86_64.so.1", loader, 0o755)
    layer.folder("/tmp", 0o1777)
    oci.write(oci.Image([layer], user="0:0"), "pitcrew.test/musl:1", path)


def _packages(root, packages):
    """The files of some packages of an installed system."""
    layer = oci.Layer()
    for link in ("bin", "sbin", "lib", "lib64"):
        layer.link(f"/{link}", f"usr/{link}")
    for package in packages:
        for listing in [*root.glob(f"var/lib/dpkg/info/{package}.list"), *root.glob(f"var/lib/dpkg/info/{package}:*.list")]:
            for name in listing.read_text().splitlines():
                source = root / name.lstrip("/")
                inside = "/" + str((source.parent.resolve() / source.name).relative_to(root.resolve()))
                if inside in layer or inside.startswith("/usr/share/"):
                    continue
                if source.is_symlink():
                    layer.link(inside, str(source.readlink()))
                elif source.is_file():
                    layer.file(inside, source, source.stat().st_mode & 0o755)
    layer.link("/usr/bin/sh", "dash")
    layer.file("/etc/passwd", root / "etc/passwd")
    layer.file("/etc/group", root / "etc/group")
    layer.folder("/tmp", 0o1777)
    return layer
