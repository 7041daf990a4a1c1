"""Packs one of Pitcrew's programs with the shared libraries that it needs. Called by scripts/images."""

import argparse
import os
import re
import subprocess
import tempfile
from pathlib import Path

import gpu_libraries
import oci
import sbom

ROOT = Path(__file__).resolve().parents[1]
NONROOT = 65532
TITLES = {"operator": "Pitcrew's operator", "launcher": "Pitcrew's launcher, copied into training containers",
          "agent": "Pitcrew's node agent", "trainer": "Pitcrew's trainer", "check": "Pitcrew's deep check of a node",
          "cli": "pitcrew, the command"}
# What every dynamically linked image has in common, in a layer of its own so that registries and nodes keep it once.
COMMON = re.compile(r"/(ld-linux|libc\.so|libm\.so|libgcc_s|libstdc\+\+|libdl\.|libpthread\.|librt\.)")


def output(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True, cwd=ROOT, env=dict(os.environ, TZ="UTC")).stdout.strip()


def stripped(program):
    """The program without what only a linker or a debugger reads; function names stay for stack traces in crashes. The build ID
    goes too: it is made of the debugger's part as well, which names the folder of the build."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "program"
        subprocess.run(["strip", "--strip-debug", "--remove-section=.note.gnu.build-id", "-o", copy, program], check=True)
        return copy.read_bytes()


def libraries(program):
    """The paths of all shared libraries but NVIDIA's, the dynamic linker included; none for a static program."""
    done = subprocess.run(["ldd", program], capture_output=True, text=True)
    if "not a dynamic executable" in done.stdout + done.stderr or "statically linked" in done.stdout:
        return []
    lost = [name for name in re.findall(r"(\S+) => not found", done.stdout) if not gpu_libraries.is_one(name)]
    if lost or done.returncode != 0:
        raise SystemExit(f"error: {program} needs {' '.join(lost) or done.stderr.strip()}, which is not here")
    return sorted(set(re.findall(r"(/\S+) \(0x", done.stdout)))


def plugins(kind, program, cuda):
    """What the program loads by itself: for s3:// paths, from ../lib, where it was built; for GPUs, from `cuda`."""
    s3 = program.parent.parent / "lib" / "libpitcrew_s3.so"
    found = [s3] if kind in ("trainer", "cli") and s3.exists() else []
    if cuda:
        found.append(cuda / {"trainer": "libpitcrew_cuda.so", "check": "libpitcrew_check_cuda.so"}[kind])
    return found


def all_libraries(kind, program, cuda, wheels):
    inside = (file for wheel in wheels for file in wheel.files)
    found = {path for each in (program, *plugins(kind, program, cuda), *inside) for path in libraries(each)}
    return sorted(path for path in found if not gpu_libraries.is_one(path))


def complain_of_missing(files):
    """Ends where a file of an image needs a library that no file of it is."""
    there = {Path(file).name for file in files}
    for file in files:
        said = output("readelf", "--dynamic", "--wide", str(file))
        lost = set(re.findall(r"\(NEEDED\).*\[(.*)\]", said)) - there
        if lost:
            raise SystemExit(f"error: {Path(file).name} needs {', '.join(sorted(lost))}, which the image would not have")


def people():
    """Users, names, certificates and a place for temporary files: what programs look for in any image."""
    layer = oci.Layer()
    layer.file("/etc/passwd", f"root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:{NONROOT}:{NONROOT}:nonroot:/home/nonroot:/sbin/nologin\n".encode())
    layer.file("/etc/group", f"root:x:0:\nnonroot:x:{NONROOT}:\n".encode())
    layer.file("/etc/nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files dns\n")
    layer.file("/etc/os-release", "/etc/os-release")
    layer.file("/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/certs/ca-certificates.crt")
    layer.folder("/tmp", 0o1777)
    layer.folder("/home/nonroot", 0o750, NONROOT)
    for folder in ("lib", "lib64", "bin", "sbin"):
        layer.folder(f"/usr/{folder}")
        layer.link(f"/{folder}", f"usr/{folder}")
    return layer


def add_library(layer, path, packages):
    """A library at its path in a merged /usr, with its package's licence and its entry for those who scan images."""
    name = re.sub(r"^/(lib|lib64)/", r"/usr/\1/", path)
    layer.file(name, Path(path).resolve(), 0o755)
    owner = subprocess.run(["dpkg-query", "-S", str(Path(path).resolve())], capture_output=True, text=True)
    if owner.returncode != 0:  # dpkg knows files of a merged /usr by either name
        owner = subprocess.run(["dpkg-query", "-S", re.sub(r"^/usr/lib", "/lib", str(Path(path).resolve()))], capture_output=True, text=True)
    package = owner.stdout.split(":")[0]
    if not package or package in packages:
        return
    packages.add(package)
    licence = Path(f"/usr/share/doc/{package}/copyright")
    if licence.exists():
        layer.file(str(licence), licence)
    layer.file(f"/var/lib/dpkg/status.d/{package}", output("dpkg-query", "-s", package).encode() + b"\n")


def image_of(kind, program, cuda, wheels):
    own = oci.Layer()
    if kind == "launcher":
        # The operator's init container runs /pitcrew-launcher copy PATH; nothing else is ever started from this image.
        if libraries(program):
            raise SystemExit(f"error: {program} is not linked statically; it would not run in other images")
        own.file("/pitcrew-launcher", stripped(program), 0o755)
        return oci.Image([own], entrypoint=["/pitcrew-launcher"])
    own.file(f"/usr/bin/{program.name}", stripped(program), 0o755)
    common, others, packages = people(), oci.Layer(), set()
    for plugin in plugins(kind, program, cuda):
        own.file(f"/usr/lib/{plugin.name}", stripped(plugin), 0o755)
    for path in all_libraries(kind, program, cuda, wheels):
        add_library(common if COMMON.search(path) else others, path, packages)
    inside = [file for wheel in wheels for file in wheel.files]
    complain_of_missing([program, *plugins(kind, program, cuda), *all_libraries(kind, program, cuda, wheels), *inside])
    # The trainer's manifests name the command, so it has no entry point of its own.
    image = oci.Image([common, others, *(gpu_libraries.layer(wheel) for wheel in wheels), own],
                      entrypoint=[] if kind == "trainer" else [f"/usr/bin/{program.name}"])
    if cuda:
        image.environment.update(gpu_libraries.ENVIRONMENT)
    if kind == "agent":
        # The chart says the same: syslog(2) wants root's user with one capability, which other users lose at exec.
        image.user = "0:0"
    return image


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=TITLES)
    parser.add_argument("program", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cuda", type=Path, help="the folder of the libraries for GPUs; of trainer and check")
    parser.add_argument("--wheels", type=Path, help="where NVIDIA's libraries were unpacked")
    parser.add_argument("--compression", choices=("gzip", "zstd"), default="gzip")
    arguments = parser.parse_args()
    if not arguments.program.exists():
        raise SystemExit(f"error: {arguments.program} is not there: leave --programs away, so that it is built")
    wheels = gpu_libraries.needed(arguments.kind, arguments.wheels) if arguments.cuda else []
    image = image_of(arguments.kind, arguments.program, arguments.cuda, wheels)
    if arguments.kind != "launcher":
        # Where people() puts the roots; OpenSSL would look where Debian's own package has them.
        image.environment["SSL_CERT_FILE"] = "/etc/ssl/certs/ca-certificates.crt"
    commit = output("git", "rev-parse", "HEAD")
    changed = output("git", "status", "--porcelain", "--untracked-files=no")
    image.created = output("git", "show", "-s", "--format=%cd", "--date=format-local:%Y-%m-%dT%H:%M:%SZ", "HEAD")
    image.labels = {
        "org.opencontainers.image.title": TITLES[arguments.kind] + (", with " + gpu_libraries.told(wheels) if wheels else ""),
        "org.opencontainers.image.version": (ROOT / "VERSION").read_text().strip(),
        "org.opencontainers.image.revision": commit + ("-changed" if changed else ""),
        "org.opencontainers.image.licenses": "Apache-2.0",
    }
    digest = oci.write(image, arguments.name, arguments.out, arguments.compression)
    shared = sbom.packages_of(str(Path(path).resolve()) for path in all_libraries(arguments.kind, arguments.program, arguments.cuda, wheels))
    compiled = sbom.compiled_in(arguments.program.resolve().parents[1], arguments.program.name)
    labels = image.labels
    sbom.write(arguments.out.with_suffix(".spdx.json"), sbom.document(
        arguments.kind, arguments.program, labels["org.opencontainers.image.version"], labels["org.opencontainers.image.revision"], image.created,
        shared, compiled, digest, [gpu_libraries.fact(wheel) for wheel in wheels]))
    print(f"{arguments.out} {arguments.out.stat().st_size / 1e6:.1f} MB {digest}")


if __name__ == "__main__":
    main()
