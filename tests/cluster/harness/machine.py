"""A machine: a set of namespaces with a process 1, its wire to the cluster's switch, and its power switch.

When process 1 dies the kernel ends every process in it and unmounts what they mounted, so a power-cut is one signal,
and nothing of a machine can be left over but its cgroups.
"""

import signal
import sys
from pathlib import Path

from . import system
from .process import quiet, until

INIT = Path(__file__).with_name("machine_init.py")


class Machine:
    def __init__(self, name, state, daemons):
        self.name = name
        self.state = Path(state)
        self.daemons = daemons

    def power_on(self):
        self.state.mkdir(parents=True, exist_ok=True)
        log = self.daemons.logs / f"{self.name}.log"
        log.unlink(missing_ok=True)
        self.daemons.start(self.name, [
            "unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc",
            sys.executable, INIT, self.name,
        ])
        self.daemons.ready(self.name, f"the start of {self.name}", lambda: "booted" in self.daemons.tail(self.name), 20)

    def power_off(self):
        """At once: no program in it gets to say anything."""
        self.daemons.stop(self.name, signal.SIGKILL)
        until(f"the end of {self.name}'s programs", lambda: not self._members(), 20, 0.02)
        until(f"the removal of {self.name}'s control groups", lambda: system.remove_cgroup(self.cgroup()), 20)

    def is_on(self):
        return self.daemons.pid(self.name) is not None

    def init(self):
        """Process 1, as this machine sees it."""
        return self.daemons.program(self.name)

    def inside(self, words, only_network=False):
        """A command that runs in this machine."""
        which = ["--net"] if only_network else ["--net", "--mount", "--pid", "--uts", "--ipc"]
        return ["nsenter", "--target", self.init(), *which, "--", *words]

    def do(self, *words, check=True, text=None, only_network=False):
        return quiet(*self.inside(words, only_network), check=check, text=text)

    def start(self, name, words, environment=None):
        """A daemon of this machine; its name among the daemons is NAME@MACHINE."""
        self.daemons.start(f"{name}@{self.name}", self.inside(words), environment)

    def cgroup(self):
        """The control group that all pods of this machine are below, in every hierarchy."""
        return f"/{self.state.parent.name}/{self.name}"

    def make_cgroups(self):
        system.make_cgroup(self.cgroup())

    def _members(self):
        """Processes that are still in one of this machine's control groups."""
        members = []
        for root in system.all_hierarchies():
            top = root / self.cgroup().lstrip("/")
            for file in [top / "cgroup.procs", *top.rglob("cgroup.procs")] if top.exists() else []:
                try:
                    members += file.read_text().split()
                except OSError:
                    continue
        return members
