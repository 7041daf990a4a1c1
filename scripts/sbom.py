"""What is in an image, as SPDX 2.3 (JSON): our program, Debian's shared libraries beside it, and the Debian development packages
whose headers were compiled into it. Facts come from dpkg and from the build's own record of what it read; the same files give
the same bytes."""

import hashlib
import json
import re
import subprocess
from pathlib import Path

# What a compiler brings along: the C library's and the compiler's headers are in every program, their code is in the shared
# libraries, which are listed by themselves.
TOOLCHAIN = re.compile(r"^(libc6-dev|linux-libc-dev|libstdc\+\+-\d+-dev|libgcc-\d+-dev|gcc-|g\+\+-|cpp-|clang-|libclang)")


def packages_of(files):
    """Debian packages that own these files, by dpkg. Files of a merged /usr are known by either name."""
    files = sorted(set(files))
    found = set()
    for begin in range(0, len(files), 500):
        part = files[begin : begin + 500]
        done = subprocess.run(["dpkg-query", "-S", *part, *(re.sub(r"^/usr/lib", "/lib", file) for file in part if file.startswith("/usr/lib"))],
                              capture_output=True, text=True)
        for line in done.stdout.splitlines():
            owner, _, _ = line.rpartition(": ")
            found.update(name.strip() for name in owner.split(", ") if not name.startswith("diversion"))
    return found


def facts(packages):
    """[{name, version, architecture, source, homepage}] of installed packages, by dpkg."""
    if not packages:
        return []
    form = "${Package}\t${Version}\t${Architecture}\t${source:Package}\t${source:Version}\t${Homepage}\n"
    said = subprocess.run(["dpkg-query", "-W", "-f", form, *sorted(packages)], capture_output=True, text=True, check=True).stdout
    keys = ("name", "version", "architecture", "source", "source_version", "homepage")
    return sorted((dict(zip(keys, line.split("\t"))) for line in said.splitlines()), key=lambda fact: (fact["name"], fact["architecture"]))


def compiled_in(build, target):
    """Packages whose headers were read for the objects of a target, by ninja's record; None where there is no build folder."""
    if not (build / "build.ninja").exists():
        return None
    inputs = subprocess.run(["ninja", "-C", build, "-t", "inputs", target], capture_output=True, text=True)
    if inputs.returncode != 0:
        return None
    objects = {line for line in inputs.stdout.splitlines() if line.endswith(".o")}
    headers, wanted = set(), False
    for line in subprocess.run(["ninja", "-C", build, "-t", "deps"], capture_output=True, text=True, check=True).stdout.splitlines():
        if line.startswith("    "):
            if wanted and line.strip().startswith("/usr/"):
                headers.add(line.strip())
        else:
            wanted = line.split(":")[0] in objects
    return {name for name in packages_of(headers) if not TOOLCHAIN.match(name)}


def _package(fact, relation):
    name, version, architecture = fact["name"], fact["version"], fact["architecture"]
    identity = "SPDXRef-" + re.sub(r"[^A-Za-z0-9.-]", "-", f"{relation}-{name}-{architecture}")
    purl = f"pkg:deb/debian/{name.replace('+', '%2B')}@{version.replace('+', '%2B')}?arch={architecture}"
    return {
        "SPDXID": identity,
        "name": name,
        "versionInfo": version,
        "supplier": "Organization: Debian",
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "sourceInfo": f"built from Debian's source package {fact['source']} {fact['source_version']}",
        **({"homepage": fact["homepage"]} if fact["homepage"] else {}),
        "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl}],
    }


def _wheel(fact):
    return {
        "SPDXID": "SPDXRef-wheel-" + re.sub(r"[^A-Za-z0-9.-]", "-", fact["name"]),
        "name": fact["name"],
        "versionInfo": fact["version"],
        "supplier": f"Organization: {fact['supplier']}",
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl",
                          "referenceLocator": f"pkg:pypi/{fact['name']}@{fact['version']}"}],
    }


def document(image, program, version, commit, created, shared, compiled, digest, wheels=()):
    """The SPDX document of one image. `shared`: packages of its shared libraries; `compiled`: of headers and static libraries, or
    None where the build's record is not there, which is then said; `wheels`: [{name, version, supplier}] of Python wheels whose
    libraries are in the image."""
    own = {
        "SPDXID": "SPDXRef-program",
        "name": program.name,
        "versionInfo": version,
        "supplier": "Organization: Pitcrew",
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "checksums": [{"algorithm": "SHA256", "checksumValue": hashlib.sha256(program.read_bytes()).hexdigest()}],
        "licenseConcluded": "Apache-2.0",
        "licenseDeclared": "Apache-2.0",
        "copyrightText": "NOASSERTION",
        "sourceInfo": f"commit {commit}, before stripping",
        **({} if compiled is not None else {"comment": "what was compiled in is not known: the program was built elsewhere"}),
    }
    whole = dict(own, SPDXID="SPDXRef-image", name=f"pitcrew/{image}", checksums=[{"algorithm": "SHA256", "checksumValue": digest.removeprefix("sha256:")}],
                 sourceInfo=f"commit {commit}; the checksum is the image manifest's digest")
    whole.pop("comment", None)
    beside = [_package(fact, "shared") for fact in facts(shared)] + [_wheel(fact) for fact in wheels]
    inside = [_package(fact, "compiled") for fact in facts(compiled or ())]
    relations = [("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-image"), ("SPDXRef-image", "CONTAINS", "SPDXRef-program")]
    relations += [("SPDXRef-image", "CONTAINS", package["SPDXID"]) for package in beside]
    relations += [("SPDXRef-program", "DYNAMIC_LINK", package["SPDXID"]) for package in beside]
    relations += [(package["SPDXID"], "BUILD_DEPENDENCY_OF", "SPDXRef-program") for package in inside]
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"pitcrew-{image}-{version}",
        "documentNamespace": f"https://pitcrew.dev/spdx/{image}/{digest.removeprefix('sha256:')}",
        "creationInfo": {"created": created, "creators": ["Tool: scripts/images"]},
        "packages": [whole, own, *beside, *inside],
        "relationships": [{"spdxElementId": a, "relationshipType": kind, "relatedSpdxElement": b} for a, kind, b in relations],
    }


def write(path, spdx):
    Path(path).write_text(json.dumps(spdx, indent=1, sort_keys=True) + "\n")
