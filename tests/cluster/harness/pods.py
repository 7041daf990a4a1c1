"""Processes of pods, as this machine sees them, and what can be done to them."""

import os
import signal
from pathlib import Path

from .process import Failed


def processes(pod_uid, needle=""):
    """Process ids of a pod's processes whose command line contains the words; the pause container's apart."""
    marks = (f"pod{pod_uid}", f"pod{pod_uid.replace('-', '_')}")
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            group = (entry / "cgroup").read_text()
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if any(mark in group for mark in marks) and words and words != "/pause" and needle in words:
            found.append(int(entry.name))
    return sorted(found)


def send(pod_uid, needle, number=signal.SIGKILL):
    """Sends a signal to all of a pod's processes whose command line contains the words, in one go."""
    pids = processes(pod_uid, needle)
    if not pids:
        raise Failed(f"pod {pod_uid} has no process '{needle}'")
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
    return pids
