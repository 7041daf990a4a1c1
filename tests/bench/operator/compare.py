#!/usr/bin/env python3
"""Pitcrew's operator beside JobSet's on a real control plane with simulated nodes: times, requests, processors, memory.

Nothing but this machine is used: no root, no containers. Times on a busy machine say little; ratios say more."""

import argparse
import datetime
import json
import os
import platform
import signal
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "cluster")]

import jobset_side  # noqa: E402
import report  # noqa: E402
from harness import gobuild  # noqa: E402
from harness.config import Failed, NotRun  # noqa: E402
from harness.process import say  # noqa: E402
from lab import Lab  # noqa: E402
from pitcrew_side import Pitcrew  # noqa: E402
from rounds import JobSetTurn, PitcrewTurn  # noqa: E402


def parse():
    parser = argparse.ArgumentParser(prog="scripts/bench operator", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=Path, default=Path("build/release/bin"), help="where pitcrew-operator and pitcrew-swarm are")
    parser.add_argument("--jobset", metavar="DIR", help="a checkout of JobSet (default: the pinned version, as a Go module)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side (default 3)")
    parser.add_argument("--pods", type=int, default=512)
    parser.add_argument("--nodes", type=int, default=600)
    parser.add_argument("--only", choices=["pitcrew", "jobset"], help="one side alone")
    parser.add_argument("--report", type=Path, help="write everything that was measured here, as JSON")
    parser.add_argument("--logs", type=Path, help="keep the logs of all programs in this folder")
    return parser.parse_args()


def machine():
    model = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    return {"cpus": os.cpu_count(), "model": model, "kernel": platform.release(), "load": [round(one, 2) for one in os.getloadavg()]}


def measure(arguments, result):
    """Fills `result` as it goes, so that what was measured before a failure is not lost."""
    built = None if arguments.only == "pitcrew" else jobset_side.build(arguments.jobset)
    result.update({"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "pods": arguments.pods, "nodes": arguments.nodes,
                   "kubernetes": gobuild.KUBERNETES, "machine": machine()})
    programs = arguments.programs.resolve()
    with Lab(arguments.nodes, arguments.logs) as lab:
        turns = []
        if arguments.only != "jobset":
            turns.append((Pitcrew(lab, programs, arguments.pods), PitcrewTurn))
        if arguments.only != "pitcrew":
            turns.append((jobset_side.JobSet(lab, built, jobset_side.version(arguments.jobset), arguments.pods), JobSetTurn))
        for side, _ in turns:
            side.install()
            result[side.name] = {"version": side.version, "rounds": []}
        for number in range(1, arguments.rounds + 1):
            for side, turn in turns if number % 2 else reversed(turns):
                say(f"round {number} of {arguments.rounds}: {side.name} {side.version}")
                result[side.name]["rounds"].append(turn(lab, side, programs / "pitcrew-swarm").run())
        result["load at the end"] = machine()["load"]
        result["summary"] = report.summary({side.name: (side, result[side.name]["rounds"]) for side, _ in turns})


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    arguments = parse()
    result = {}
    try:
        measure(arguments, result)
    except NotRun as reason:
        print(f"not run: {reason}", file=sys.stderr)
        return 77
    except Failed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        if arguments.report and result:
            arguments.report.write_text(json.dumps(result, indent=1))
    print(f"\n{arguments.pods} pods on {arguments.nodes} simulated nodes, Kubernetes {result['kubernetes']}; medians of {arguments.rounds} rounds; "
          + ", ".join(f"{name} {result[name]['version']}" for name in ("Pitcrew", "JobSet") if name in result)
          + f"; {result['machine']['cpus']} processors, load {result['machine']['load'][0]} before and {result['load at the end'][0]} after")
    report.show(result["summary"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
