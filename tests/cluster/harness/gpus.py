"""GPUs of real nodes, played: each node has a libnvidia-ml.so.1 of the tests and a kernel log of its own, in a folder of its
memory that the agent's pod sees."""

import json
import shutil
import time
from pathlib import Path

from .config import ROOT, Failed
from .world import PROGRAMS

STATE = "/run/pitcrew-agent"  # on the node; in the agent's container it is what the chart makes of agent.statePath
INSIDE = "/var/lib/pitcrew"
LIBRARY = PROGRAMS.parent / "lib/fake-nvml/libnvidia-ml.so.1"
CAPTURE = ROOT / "agent/probe/nvml/captures/p5.yaml"
# How the capture's GPUs are named in the kernel log.
BUSES = [83, 100, 117, 134, 151, 168, 185, 202]

# The machine has no EFA devices, and a fault must come and go within a scenario.
POLICY = {"rules": [
    {"name": "efa-missing", "match": {"kind": "efa.count"}, "severity": "Info", "message": "played nodes have none"},
    {"name": "xid-79", "match": {"kind": "xid", "codes": [79]}, "severity": "Fault", "certain": True, "action": "Replace",
     "clears": {"when": "AfterTime", "after": "20s"}, "message": "The GPU has fallen off the bus"},
    {"name": "gpu-missing", "match": {"kind": "gpu.count", "all": [{"value": "count", "belowValue": "expected"}]}, "severity": "Fault",
     "scope": "Node", "action": "Reboot", "clears": {"when": "AfterTime", "after": "10s"}, "message": "The node has fewer GPUs than its instance type"},
]}


def values():
    """What helm is told, so that agents run on nodes with played GPUs."""
    config = {"kernelLog": f"{INSIDE}/kernel.log", "nvml": f"{INSIDE}/nvml/libnvidia-ml.so.1", "instanceType": "p5.48xlarge", "policyEvery": "10s"}
    return {"agent": {"enabled": True, "statePath": STATE, "hostPaths": [], "config": config, "policy": POLICY["rules"]}}


class Gpus:
    """Of one node."""

    def __init__(self, node):
        self.node = node

    @property
    def folder(self):
        return Path(f"/proc/{self.node.machine.init()}/root{STATE}")

    def plug(self):
        if not LIBRARY.exists():
            raise Failed(f"{LIBRARY} is not built: cmake --build … --target pitcrew_fake_nvml")
        # What an agent of an earlier scenario has kept goes: some faults clear by nothing but a reboot.
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "nvml").mkdir(parents=True)
        shutil.copy(LIBRARY, self.folder / "nvml")
        shutil.copy(CAPTURE, self.folder / "nvml/capture.yaml")
        self.faults({})
        (self.folder / "kernel.log").touch()

    def faults(self, faults):
        """What the library says from now on; agent/probe/nvml/fake says how."""
        new = self.folder / "nvml/new"
        new.write_text(json.dumps(faults))
        new.rename(self.folder / "nvml/faults.yaml")

    def kernel_says(self, text):
        """A line of the kernel's log. Returns the time of the writing."""
        stamp = time.clock_gettime(time.CLOCK_BOOTTIME)
        with open(self.folder / "kernel.log", "a") as file:
            file.write(f"<4>[{stamp:12.6f}] {text}\n")
        return time.monotonic()

    def xid(self, code, gpu=5, words="pid='<unknown>', name=<unknown>"):
        return self.kernel_says(f"NVRM: Xid (PCI:0000:{BUSES[gpu]:02x}:00): {code}, {words}")
