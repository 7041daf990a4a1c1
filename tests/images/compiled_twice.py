#!/usr/bin/env python3
"""Compiles programs twice as scripts/images does, in two folders of other names and depths and nothing from a cache, and compares
what images are made of: each byte.

    tests/images/compiled_twice.py [PROGRAM…]     pitcrew-check where none is named: it takes few minutes
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import pack_image  # noqa: E402


def copy_of_the_tree(folder):
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def compiled(folder, programs):
    """{program: SHA-256 of what goes into its image}"""
    copy_of_the_tree(folder)
    # ccache gives the compiler names relative to the tree's folder (scripts/lib.sh); an empty one holds nothing yet.
    environment = dict(os.environ, CCACHE_BASEDIR=str(folder), CCACHE_NOHASHDIR="1", CCACHE_DIR=str(folder / "build/ccache"))
    for words in (["cmake", "--preset", "release", "-DPITCREW_TESTS=OFF"],
                  ["cmake", "--build", folder / "build/release", "-j", str(os.cpu_count()), "--target", *programs]):
        done = subprocess.run([str(word) for word in words], cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"error: {words}: {(done.stdout + done.stderr)[-4000:]}")
    found = {}
    for program in programs:
        data = pack_image.stripped(folder / "build/release/bin" / program)
        if str(folder).encode() in data:
            raise SystemExit(f"{program} holds the name of the folder that it was built in")
        found[program] = hashlib.sha256(data).hexdigest()
    return found


def main():
    programs = sys.argv[1:] or ["pitcrew-check"]
    if not shutil.which("ccache"):
        raise SystemExit("error: there is no ccache; scripts/setup installs it")
    with tempfile.TemporaryDirectory(prefix="pitcrew-once-") as one, tempfile.TemporaryDirectory(prefix="pitcrew-twice-") as two:
        first = compiled(Path(one), programs)
        second = compiled(Path(two) / "deeper/below", programs)
    wrong = [program for program in programs if first[program] != second[program]]
    for program in programs:
        print(f"{program:18} {first[program][:16]} {second[program][:16]} {'DIFFERENT' if program in wrong else 'the same'}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
