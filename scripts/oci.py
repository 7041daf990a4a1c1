"""Writes container images as OCI archives (image-spec 1.1) with nothing but Python: the same files give the same bytes.

    python3 scripts/oci.py ARCHIVE FOLDER     unpacks an archive's layers into a folder, for the Dockerfile
"""

import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class Layer:
    """Files of one layer, at absolute paths. Folders above a file come by themselves, owned by root, mode 755."""

    def __init__(self):
        self._entries = {}

    def file(self, path, source, mode=0o644):
        """source: bytes, or the path of a file whose content is taken (symbolic links are followed)."""
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        self._add(path, tarfile.REGTYPE, mode, data=data)

    def folder(self, path, mode=0o755, owner=0):
        self._add(path, tarfile.DIRTYPE, mode, owner=owner)

    def link(self, path, target):
        self._add(path, tarfile.SYMTYPE, 0o777, target=target)

    def tree(self, root):
        """Everything below a folder, as it is: modes, owners and symbolic links. No devices or sockets."""
        root = Path(root)
        for at, folders, files in os.walk(root):
            for name in sorted(folders + files):
                path = Path(at) / name
                status, inside = path.lstat(), "/" + str(path.relative_to(root))
                if path.is_symlink():
                    self._add(inside, tarfile.SYMTYPE, 0o777, target=os.readlink(path))
                elif path.is_dir():
                    self._add(inside, tarfile.DIRTYPE, status.st_mode & 0o7777, owner=status.st_uid)
                elif path.is_file():
                    self._add(inside, tarfile.REGTYPE, status.st_mode & 0o7777, data=path.read_bytes(), owner=status.st_uid)

    def __contains__(self, path):
        return path.strip("/") in self._entries

    def empty(self):
        return not self._entries

    def tar(self):
        """The uncompressed layer: sorted, without times."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name in sorted(self._entries):
                info, data = self._entries[name]
                tar.addfile(info, io.BytesIO(data))
        return buffer.getvalue()

    def _add(self, path, kind, mode, data=b"", target="", owner=0):
        name = path.strip("/")
        parent = Path(name).parent
        if str(parent) != "." and str(parent) not in self._entries:
            self.folder(str(parent))
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.size, info.linkname = kind, mode, len(data), target
        info.uid = info.gid = owner
        self._entries[name] = (info, data)


@dataclass
class Image:
    layers: list
    user: str = "65532:65532"
    entrypoint: list = field(default_factory=list)
    environment: dict = field(default_factory=lambda: {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"})
    labels: dict = field(default_factory=dict)
    folder: str = "/"
    created: str = "1970-01-01T00:00:00Z"
    architecture: str = ARCHITECTURES[os.uname().machine]


def _compress(data, compression):
    if compression == "zstd":
        done = subprocess.run(["zstd", "--quiet", "-19", "--stdout"], input=data, capture_output=True, check=True)
        return done.stdout, "application/vnd.oci.image.layer.v1.tar+zstd"
    return gzip.compress(data, 9, mtime=0), "application/vnd.oci.image.layer.v1.tar+gzip"


def write(image, name, path, compression="gzip"):
    """Writes one image to an OCI archive. name: the full reference, with a tag. Returns the manifest's digest."""
    blobs = {}

    def keep(data, media_type):
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    tars = [layer.tar() for layer in image.layers if not layer.empty()]
    layers = [keep(*_compress(tar, compression)) for tar in tars]
    runtime = {
        "User": image.user,
        "Env": [f"{key}={value}" for key, value in sorted(image.environment.items())],
        "Entrypoint": image.entrypoint,
        "WorkingDir": image.folder,
        "Labels": image.labels,
    }
    config = {
        "created": image.created,
        "architecture": image.architecture,
        "os": "linux",
        "config": {key: value for key, value in runtime.items() if value},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(tar).hexdigest() for tar in tars]},
        "history": [{"created": image.created, "created_by": "scripts/images"} for _ in tars],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": keep(_json(config), "application/vnd.oci.image.config.v1+json"),
        "layers": layers,
        "annotations": {key: value for key, value in image.labels.items() if key.startswith("org.opencontainers.image.")},
    }
    entry = keep(_json(manifest), manifest["mediaType"])
    entry["platform"] = {"architecture": image.architecture, "os": "linux"}
    # The first name is the specification's, the second is what containerd calls the image after an import.
    entry["annotations"] = {"org.opencontainers.image.ref.name": name.rpartition(":")[2], "io.containerd.image.name": name}
    files = {"oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
             "index.json": _json({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]})}
    files.update({f"blobs/sha256/{digest}": data for digest, data in blobs.items()})
    archive = Layer()
    for file, data in files.items():
        archive.file(file, data)
    part = Path(f"{path}.part")
    part.write_bytes(archive.tar())
    part.rename(path)
    return entry["digest"]


def _json(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def read(path):
    """(configuration, [uncompressed layer]) of an archive that write() has made with gzip."""
    with tarfile.open(path) as archive:

        def blob(digest):
            return archive.extractfile(f"blobs/{digest.replace(':', '/')}").read()

        index = json.load(archive.extractfile("index.json"))
        manifest = json.loads(blob(index["manifests"][0]["digest"]))
        return json.loads(blob(manifest["config"]["digest"])), [gzip.decompress(blob(layer["digest"])) for layer in manifest["layers"]]


def unpack(path, folder):
    for layer in read(path)[1]:
        with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
            tar.extractall(folder)


if __name__ == "__main__":
    unpack(sys.argv[1], sys.argv[2])
