"""What was measured so far, in one JSON file: a run that is stopped goes on where it was."""

import json
import pathlib
import platform
import subprocess
import time


def provenance(root):
    def said(*command):
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
        except (OSError, subprocess.TimeoutExpired):
            return ""

    return dict(time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), commit=said("git", "-C", str(root), "rev-parse", "HEAD"),
                changed=bool(said("git", "-C", str(root), "status", "--porcelain", "--untracked-files=no")),
                gpu=said("nvidia-smi", "--query-gpu=name,driver_version,clocks.max.sm", "--format=csv,noheader"),
                machine=platform.platform())


class Results:
    """`side` is "ours", "llm.c -r 0 -ge 2", "PyTorch ...": each measured once, kept with when and of what."""

    def __init__(self, path, case, where):
        self.path = pathlib.Path(path)
        self.data = dict(case=case, sides={})
        if self.path.exists():
            kept = json.loads(self.path.read_text())
            # Other code is another measurement.
            if kept.get("case") == case and kept.get("provenance", {}).get("commit") == where["commit"] and not where["changed"]:
                self.data = kept
        self.data["provenance"] = where

    def measure(self, side, work, seconds_left):
        """work() -> dict with "rate" in tokens a second, or with "why" it was not run. Kept as soon as it is there."""
        kept = self.data["sides"].get(side)
        if kept and "rate" in kept:
            return kept
        if seconds_left <= 0:
            return dict(why="the time is over; run it again to go on")
        try:
            result = work()
        except subprocess.TimeoutExpired:
            result = dict(why="it did not end in time")
        except (OSError, subprocess.CalledProcessError) as error:
            result = dict(why=str(error))
        self.data["sides"][side] = dict(result, measured=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
        self.write()
        return self.data["sides"][side]

    def write(self):
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.data, indent=1) + "\n")
        part.replace(self.path)

    def best(self, peer):
        """The fastest of a peer's variants: (side, rate), or None."""
        rates = [(result["rate"], side) for side, result in self.data["sides"].items()
                 if side.startswith(peer) and "rate" in result]
        return (max(rates)[1], max(rates)[0]) if rates else None

    def ratios(self, required):
        """{peer: {ratio, against, required, goal, met}} of what was measured."""
        ours = self.data["sides"].get("ours", {}).get("rate")
        out = {}
        for peer in ("llm.c", "PyTorch"):
            best = self.best(peer)
            if ours is None or best is None:
                continue
            need = required.get((self.data["case"], peer))
            out[peer] = dict(ratio=ours / best[1], against=best[0])
            if need:
                out[peer].update(required=need[0], goal=need[1], met=ours / best[1] >= need[0])
        return out
