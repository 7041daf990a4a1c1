"""Processes of pods, as this machine sees them, and what can be done to them."""

import os
import signal
from pathlib import Path

from .process import Failed


def processes(pod_uid, program=""):
    """Process ids of a pod's processes of that program, or of all but the pause container's."""
    marks = (f"pod{pod_uid}", f"pod{pod_uid.replace('-', '_')}")
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            group = (entry / "cgroup").read_text()
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        name = Path(words[0]).name
        if any(mark in group for mark in marks) and name and name != "pause" and program in ("", name):
            found.append(int(entry.name))
    return sorted(found)


def inner_pid(pid):
    """The process's number in the namespace of the machine that its pod is on: the second of /proc's NSpid."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[2])


def send(pod_uid, program, number=signal.SIGKILL):
    """Sends a signal to all of a pod's processes of that program, or to all but the pause container's, in one go."""
    pids = processes(pod_uid, program)
    if not pids:
        raise Failed(f"pod {pod_uid} has no process '{program}'")
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
    return pids
