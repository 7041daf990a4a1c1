"""Processes that the harness starts: each in a session of its own, its output in a file, ended by its process id."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from .config import Failed

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def say(text):
    print(f"cluster: {text}", file=sys.stderr, flush=True)


def until(what, check, seconds, period=0.1):
    """Waits until check() is true and returns its value. `what` completes "gave up waiting for …"."""
    end = time.monotonic() + seconds
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() >= end:
            raise Failed(f"gave up waiting for {what} after {seconds:.0f} s")
        time.sleep(period)


def quiet(*words, check=True, text=None):
    """Runs a command to its end and returns its output; a failure carries what it said."""
    done = subprocess.run([str(word) for word in words], input=text, capture_output=True, text=True)
    if check and done.returncode != 0:
        raise Failed(f"'{' '.join(map(str, words))}' failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _started(pid):
    """When a process began, in ticks since boot: with the process id this names a process for good. None: it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def _comm(pid):
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def children(pid):
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _kill(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


class Daemons:
    """The daemons of one cluster. What runs is in files, so that another run of the harness can end it.

    bound: they end with this process, however it ends.
    """

    def __init__(self, state, bound=False):
        self.pids = Path(state) / "pid"
        self.logs = Path(state) / "log"
        self.bound = bound
        self._children = {}

    def start(self, name, words, environment=None):
        self.pids.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        with open(self.logs / f"{name}.log", "ab") as log:
            child = subprocess.Popen(
                [str(word) for word in words], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                start_new_session=True, env=environment, preexec_fn=self._bind if self.bound else None,
            )
        self._children[name] = child
        (self.pids / name).write_text(json.dumps({"pid": child.pid, "started": _started(child.pid)}))
        return child.pid

    def pid(self, name):
        """The process id, or None where it does not run."""
        if name in self._children:
            self._children[name].poll()
        try:
            entry = json.loads((self.pids / name).read_text())
        except (OSError, ValueError):
            return None
        return entry["pid"] if entry["started"] and _started(entry["pid"]) == entry["started"] else None

    def program(self, name):
        """The process id of the program itself where nsenter or unshare stands before it."""
        pid = self.pid(name)
        while pid is not None and _comm(pid) in ("nsenter", "unshare"):
            below = children(pid)
            if not below:
                return pid
            pid = below[0]
        return pid

    def names(self):
        return sorted(file.name for file in self.pids.glob("*")) if self.pids.exists() else []

    def send(self, name, number):
        pid = self.pid(name)
        if pid is None:
            raise Failed(f"{name} does not run; its last words: {self.tail(name, 3)}")
        os.kill(self.program(name), number)

    def stop(self, name, number=signal.SIGTERM, seconds=10):
        """Ends it by a signal, and by SIGKILL where that isn't enough; quiet where it does not run."""
        for one, patience in ((number, seconds), (signal.SIGKILL, 10)):
            program = self.program(name)
            if program is None:
                break
            _kill(program, one)
            _kill(program, signal.SIGCONT)
            try:
                until(f"the end of {name}", lambda: self.pid(name) is None, patience, 0.02)
            except Failed:
                if one == signal.SIGKILL:
                    raise
        # Its first thread may be gone before the others, which still hold its ports.
        if name in self._children:
            self._children.pop(name).wait(10)
        (self.pids / name).unlink(missing_ok=True)

    def tail(self, name, lines=20):
        try:
            return "\n".join((self.logs / f"{name}.log").read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""

    def ready(self, name, what, check, seconds):
        """Waits as until(), and ends at once with its last words where the daemon has ended."""

        def alive():
            if self.pid(name) is None:
                raise Failed(f"{name} ended while starting:\n{self.tail(name)}")
            return check()

        return until(f"{what} ({self.logs / name}.log)", alive, seconds)

    @staticmethod
    def _bind():
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
