#!/usr/bin/env python3
"""Operator and agents on the real API server under churn: thousands of job lifecycles, faults that come and go, tokens and
the channel's root rotated meanwhile. Fails where memory, descriptors, threads or logs grow.

    control.py BIN [--minutes 60] [--lifecycles 20000] [--report FILE]

BIN holds pitcrew-operator, pitcrew-agent and pitcrew-swarm; what comes first ends it. Exit code 77, with the reason, where
there is no API server."""
import argparse
import json
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/cluster"), str(ROOT / "tests/bench/operator"), str(Path(__file__).parent)]

from harness.config import Failed, NotRun  # noqa: E402
from harness.process import until  # noqa: E402
from lab import Lab  # noqa: E402
from pitcrew_side import ACCOUNT, JOBS, NAMESPACE, SYSTEM, Pitcrew, manifest  # noqa: E402
from swarm import Swarm  # noqa: E402
from watch import Watched, tell  # noqa: E402

NODES = 12
AGENTS = 2
AT_ONCE = 8  # jobs
PODS = 2  # of each
LOOK = 1  # seconds between samples
TOKEN_EVERY = 60
ROTATE_EVERY = 300
FAULT_EVERY = 10
CLEARS = "4s"
STUCK = 180  # seconds that a job may take to its next state, on a busy machine
OPERATOR_LOG = 24_000  # bytes of log for a lifecycle, at most
AGENT_LOG = 4_000  # for a fault
# What is done to a job once it runs; each is one way through a life.
LIVES = ["delete", "suspend", "crash", "fail"]


class Job:
    """One life: created, running, what its number says, deleted, gone."""

    def __init__(self, number):
        self.name = f"soak-{number}"
        self.plan = LIVES[number % len(LIVES)]
        self.state = "new"
        self.since = time.monotonic()

    def to(self, state):
        self.state, self.since = state, time.monotonic()

    def step(self, world, seen):
        """seen: the job's object, or None. True: its life is over."""
        phase = (seen or {}).get("status", {}).get("phase", "")
        if self.state == "new":
            job = manifest(PODS)
            job["metadata"]["name"] = self.name
            container = job["spec"]["template"]["spec"]["containers"][0]
            container["resources"] = {"requests": {"cpu": "1"}}
            world.lab.api.create(JOBS, job)
            self.to("starting")
        elif self.state == "starting" and phase == "Running":
            if self.plan == "suspend":
                world.lab.api.patch(f"{JOBS}/{self.name}", {"spec": {"lifecycle": {"suspend": True}}})
                return self.to("suspending")
            if self.plan in ("crash", "fail"):
                world.swarm.tell("crash" if self.plan == "crash" else "fail 1", "crashed" if self.plan == "crash" else "failed")
            self.delete(world)
        elif self.state == "suspending" and phase == "Suspended":
            world.lab.api.patch(f"{JOBS}/{self.name}", {"spec": {"lifecycle": {"suspend": False}}})
            self.to("resuming")
        elif self.state == "resuming" and phase == "Running":
            self.delete(world)
        elif self.state == "deleting" and seen is None:
            return True
        if time.monotonic() - self.since > STUCK:
            raise Failed(f"{self.name} is {self.state} for {STUCK} s: {json.dumps(seen)[:2000]}")
        return False

    def delete(self, world):
        # Crashed or failed: whoever else was hit recovers, this one goes as it is.
        world.lab.api.delete(f"{JOBS}/{self.name}")
        self.to("deleting")


class Agent:
    """A real agent on a node that nobody runs: its machine is made of files, its kernel log is a pipe."""

    def __init__(self, lab, programs, number, certain=True, clears=CLEARS):
        self.node = f"sim-{NODES - number}"
        self.folder = Path(lab.state) / f"host-{self.node}"
        self.faults = 0
        files = {"proc/sys/kernel/random/boot_id": "boot-1", "proc/stat": f"cpu 1 2 3\nbtime {int(time.time()) - 600}",
                 "proc/meminfo": "MemTotal: 1000 kB\nMemAvailable: 900 kB", "faults.yaml": "{}"}
        policy = [{"name": "efa-missing", "match": {"kind": "efa.count"}, "severity": "Info", "message": "played nodes have none"},
                  {"name": "xid-79", "match": {"kind": "xid", "codes": [79]}, "severity": "Fault", "certain": certain, "action": "Replace",
                   "clears": {"when": "AfterTime", "after": clears}, "message": "The GPU has fallen off the bus"}]
        files["agent.yaml"] = json.dumps({
            "host": str(self.folder), "state": f"{self.folder}/state", "kernelLog": f"{self.folder}/kernel.log",
            "nvml": str(programs.parent / "lib/fake-nvml/libnvidia-ml.so.1"), "instanceType": "p5.48xlarge", "metricsPort": 0,
            "healthPort": 0, "policy": policy})
        for name, text in files.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text(text)
        os.mkfifo(self.folder / "kernel.log")
        self.log = os.open(self.folder / "kernel.log", os.O_RDWR)
        self.daemon = f"agent-{self.node}"
        self.pid = lab.daemons.start(self.daemon, [programs / "pitcrew-agent", "--config", self.folder / "agent.yaml", "--kubeconfig",
                                                   lab.control.kubeconfig],
                                     dict(os.environ, NODE_NAME=self.node, POD_NAMESPACE=SYSTEM,
                                          PITCREW_NVML_CAPTURE=str(ROOT / "agent/probe/nvml/captures/p5.yaml"),
                                          PITCREW_NVML_FAULTS=str(self.folder / "faults.yaml")))

    def fault(self):
        self.faults += 1
        line = f"<3>[{600 + time.monotonic():.6f}] NVRM: Xid (PCI:0000:53:00): 79, pid=1, name=x, GPU has fallen off the bus.\n"
        os.write(self.log, line.encode())

    def cordoned(self, lab):
        return lab.api.get(f"/api/v1/nodes/{self.node}")["spec"].get("unschedulable", False)


class World:
    def __init__(self, lab, side, programs):
        self.lab, self.side, self.programs = lab, side, programs
        self.jobs, self.made, self.lived = [], 0, 0
        self.tokens = self.roots = 0

    def rotate_token(self):
        """As the kubelet does: a new token in the same file; the operator reads it again."""
        token = self.lab.api.create(f"/api/v1/namespaces/{SYSTEM}/serviceaccounts/{ACCOUNT}/token",
                                    {"spec": {"expirationSeconds": 600}})["status"]["token"]
        file = Path(self.lab.state) / "token"
        (new := file.with_suffix(".new")).write_text(token)
        new.rename(file)
        self.tokens += 1

    def token_from_file(self):
        self.rotate_token()
        file = Path(self.side._kubeconfig)
        config = json.loads(file.read_text())
        config["users"] = [{"name": "admin", "user": {"tokenFile": str(Path(self.lab.state) / "token")}}]
        file.write_text(json.dumps(config))

    def rotate_root(self):
        self.roots += 1
        self.lab.api.patch(f"/api/v1/namespaces/{SYSTEM}/secrets/pitcrew-channel",
                           {"metadata": {"annotations": {"pitcrew.dev/request-rotate": f"soak-{self.roots}"}}})

    def churn(self, more):
        """One look at all jobs, and a step of each; more: new ones are made."""
        seen = {item["metadata"]["name"]: item for item in self.lab.api.get(JOBS)["items"]}
        while more and len(self.jobs) < AT_ONCE:
            self.jobs.append(Job(self.made))
            self.made += 1
        over = [job for job in self.jobs if job.step(self, seen.get(job.name))]
        self.jobs = [job for job in self.jobs if job not in over]
        self.lived += len(over)


class Every:
    def __init__(self, seconds, act):
        self.seconds, self.act, self.last = seconds, act, time.monotonic()

    def look(self):
        if time.monotonic() - self.last >= self.seconds:
            self.last = time.monotonic()
            self.act()


def live(world, operators, agents, swarm, minutes, lifecycles):
    end = time.monotonic() + 60 * minutes
    watched = [(one, lambda: world.lived) for one in operators + [swarm]]
    watched += [(one, lambda agent=agent: agent.faults) for one, agent in agents]
    timers = [Every(LOOK, lambda: [one.look(work()) for one, work in watched]),
              Every(TOKEN_EVERY, world.rotate_token), Every(ROTATE_EVERY, world.rotate_root),
              Every(FAULT_EVERY, lambda: [agent.fault() for _, agent in agents]),
              Every(60, lambda: print(f"{world.lived} lifecycles, {sum(agent.faults for _, agent in agents)} faults", flush=True))]
    world.rotate_root()
    while time.monotonic() < end and world.lived < lifecycles:
        world.churn(True)
        for timer in timers:
            timer.look()
        time.sleep(0.05)
    while world.jobs:
        world.churn(False)
        for timer in timers:
            timer.look()
        time.sleep(0.05)
    until("the end of all pods", lambda: not world.lab.api.get(f"/api/v1/namespaces/{NAMESPACE}/pods")["items"], STUCK)
    until("the last fault's end", lambda: not any(agent.cordoned(world.lab) for _, agent in agents), STUCK, 1)


def soak(programs, minutes, lifecycles, report):
    with Lab(NODES, keep=report.with_suffix(".logs") if report else None) as lab:
        side = Pitcrew(lab, programs, PODS)
        side.install()
        world = World(lab, side, programs)
        world.token_from_file()
        side.more = {"channelCa": {"overlap": "2m", "certificateLifetime": "10m", "rootLifetime": "1h"}}
        side.start()
        with Swarm(programs / "pitcrew-swarm", lab, NAMESPACE) as swarm:
            world.swarm = swarm
            agents = [Agent(lab, programs, number) for number in range(AGENTS)]
            until("the agents' first word", lambda: all(
                any(c["type"] == "PitcrewHealthy" for c in lab.api.get(f"/api/v1/nodes/{agent.node}")["status"]["conditions"])
                for agent in agents), 60, 0.5)
            # Once through, before "at rest" is measured: connections and caches of a first job are no leak.
            while world.lived < AT_ONCE:
                world.churn(world.made < AT_ONCE)
                time.sleep(0.05)
            time.sleep(3)
            operators = [Watched(name, lab.daemons.pid(name), lab.daemons.logs / f"{name}.log") for name in side.daemons()]
            watched_agents = [(Watched(agent.daemon, agent.pid, lab.daemons.logs / f"{agent.daemon}.log"), agent) for agent in agents]
            thin = Watched("swarm", swarm.pid)
            for one in [*operators, thin, *(one for one, _ in watched_agents)]:
                one.rest()
            live(world, operators, watched_agents, thin, minutes, lifecycles)
            time.sleep(5)
            print(f"{world.lived} lifecycles of {PODS} pods, {sum(agent.faults for agent in agents)} faults, {world.tokens} tokens, "
                  f"{world.roots} roots asked for", flush=True)
            verdicts = [(one.name, *one.verdict(OPERATOR_LOG)) for one in operators]
            verdicts += [(one.name, *one.verdict(AGENT_LOG)) for one, _ in watched_agents]
            # The swarm is no part of the product; its growth would only hide that of others.
            thin_figures, _ = thin.verdict()
            bad = tell([*verdicts, (thin.name, thin_figures, [])])
            if report:
                points = {one.name: [[work, found["rss"]] for work, found in one.points]
                          for one in [*operators, *(one for one, _ in watched_agents)]}
                report.write_text(json.dumps({"lifecycles": world.lived, "verdicts": verdicts, "points": points}))
        side.stop()
        return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("programs", type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--lifecycles", type=int, default=20000)
    parser.add_argument("--report", type=Path)
    arguments = parser.parse_args()
    try:
        bad = soak(arguments.programs.resolve(), arguments.minutes, arguments.lifecycles, arguments.report)
    except NotRun as why:
        print(f"not run: {why}")
        sys.exit(77)
    except Failed as why:
        print(f"FAILED: {why}")
        sys.exit(1)
    print("nothing grows" if not bad else f"{bad} things grow")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
