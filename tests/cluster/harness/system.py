"""What this machine can do, and what it must not keep."""

import os
import shutil
import subprocess
from pathlib import Path

from .config import NotRun

TOOLS = {"runc": "runc", "nft": "nftables", "conntrack": "conntrack", "ip": "iproute2", "unshare": "util-linux", "openssl": "openssl",
         "mount": "mount", "sysctl": "procps", "g++": "g++"}


def hierarchies():
    """The cgroup folders that pods are put into: those of version 1, or the one of version 2."""
    top = Path("/sys/fs/cgroup")
    if (top / "cgroup.controllers").exists():
        return [top]
    if not top.exists():
        return []
    return [f for f in top.iterdir() if f.is_dir() and not f.is_symlink() and f.name != "unified" and (f / "cgroup.procs").exists()]


def all_hierarchies():
    """With the one that a machine with version 1 may have beside: runtimes leave groups in it too."""
    unified = Path("/sys/fs/cgroup/unified")
    return hierarchies() + ([unified] if (unified / "cgroup.procs").exists() else [])


def require_nodes():
    """Raises NotRun where kubelets can't run here, with the reason."""
    if os.geteuid() != 0:
        raise NotRun("real nodes need root (namespaces, mounts, control groups)")
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    absent = sorted({package for tool, package in TOOLS.items() if not shutil.which(tool, path=path)})
    if not Path("/usr/lib/cni/bridge").exists():
        absent.append("containernetworking-plugins")
    if absent:
        raise NotRun(f"these packages are missing: {' '.join(absent)} (scripts/setup --cluster installs them)")
    if not hierarchies():
        raise NotRun("there are no control groups in /sys/fs/cgroup")
    if len(hierarchies()) > 1 and not all((Path("/sys/fs/cgroup") / name).is_dir() for name in ("cpu", "memory", "pids")):
        raise NotRun("control groups of version 1 lack one of cpu, memory and pids")
    if len(hierarchies()) == 1:
        root = hierarchies()[0]
        for controller in ("cpu", "memory", "pids"):
            _write(root / "cgroup.subtree_control", f"+{controller}")
        lacking = {"cpu", "memory", "pids"} - set((root / "cgroup.subtree_control").read_text().split())
        if lacking:
            raise NotRun(f"control groups below {root} can't have the controllers {' '.join(sorted(lacking))}")
    for what, words in {
        "namespaces": ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--mount-proc", "true"],
        "mounts of overlay file systems": ["unshare", "--mount", "sh", "-c",
                                           "mount -t tmpfs tmpfs /mnt && mkdir /mnt/l /mnt/u /mnt/w /mnt/m && "
                                           "mount -t overlay -o lowerdir=/mnt/l,upperdir=/mnt/u,workdir=/mnt/w overlay /mnt/m"],
        "virtual wires": ["unshare", "--net", "ip", "link", "add", "probe0", "type", "veth", "peer", "name", "probe1"],
        "bridges": ["unshare", "--net", "ip", "link", "add", "probe0", "type", "bridge"],
        "nftables": ["unshare", "--net", "nft", "add", "table", "ip", "probe"],
    }.items():
        done = subprocess.run(words, capture_output=True, text=True, env=dict(os.environ, PATH=path))
        if done.returncode != 0:
            raise NotRun(f"this machine allows no {what}: {done.stderr.strip()}")


def make_cgroup(path):
    """Makes a control group that can hold a kubelet's: with version 2 every controller is handed down on the way to it, with
    version 1 the processors and memory nodes are."""
    for root in hierarchies():
        group = root
        for name in path.strip("/").split("/"):
            for controller in _controllers(group):
                _write(group / "cgroup.subtree_control", f"+{controller}")
            group = group / name
            group.mkdir(exist_ok=True)
            for file in ("cpuset.cpus", "cpuset.mems") if root.name == "cpuset" else ():
                if not (group / file).read_text().strip():
                    (group / file).write_text((group.parent / file).read_text())


def _controllers(group):
    file = group / "cgroup.controllers"
    return file.read_text().split() if file.exists() else []


def _write(file, text):
    try:
        file.write_text(text)
    except OSError:
        pass  # one that can't be handed down is missed by the kubelet, which names it


def remove_cgroup(path):
    """Removes a control group and those below it where no process is in them. True when nothing is left."""
    left = False
    for root in all_hierarchies():
        top = root / path.lstrip("/")
        if not top.exists():
            continue
        for group in sorted((g for g in top.rglob("*") if g.is_dir()), reverse=True) + [top]:
            try:
                group.rmdir()
            except OSError:
                left = True
    return not left
