#!/usr/bin/env python3
"""Operator and agents on the real API server under churn: thousands of job lifecycles, faults that come and go; tokens, the
API server's and the agents' certificates and their authority, the channel's root and its certificates are rotated meanwhile, and
the API server is started again. Fails where memory, descriptors, threads or logs grow, where something is kept of jobs that are
gone, and where a rotation has not happened.

    control.py BIN [--minutes 60] [--lifecycles 20000] [--report FILE]

BIN holds pitcrew-operator, pitcrew-agent and pitcrew-swarm; what comes first ends it. Exit code 77, with the reason, where
there is no API server."""
import argparse
import hashlib
import json
import os
import re
import socket
import ssl
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/cluster"), str(ROOT / "tests/bench/operator"), str(Path(__file__).parent)]

from harness.config import Failed, NotRun  # noqa: E402
from harness.pki import Pki  # noqa: E402
from harness.process import until  # noqa: E402
from api import Api  # noqa: E402
from lab import Lab  # noqa: E402
from pitcrew_side import ACCOUNT, JOBS, NAMESPACE, SYSTEM, Pitcrew, manifest  # noqa: E402
from swarm import Swarm  # noqa: E402
from watch import Month, Watched, page, tell  # noqa: E402

NODES = 12
AGENTS = 2
AT_ONCE = 12  # jobs
PODS = 2  # of each
POLL = 0.2  # seconds between looks at all jobs
LOOK = 2  # seconds between samples
# All of these are years in an hour; a kubelet renews a token once in 48 minutes, for instance.
TOKEN_EVERY = 60
CERTIFICATES_EVERY = 60
ROTATE_EVERY = 300
AUTHORITY_EVERY = 60  # a step: the next one is believed beside the last; it signs; the last is no longer believed
RESTART_EVERY = 600  # of the API server, as an upgrade does: nobody keeps a connection that was made under an earlier authority
EVENTS_LIVE = "3m"  # for an hour, as by default, they would be most of what the API server keeps
FAULT_EVERY = 5
CLEARS = "1s"
OTHER_LINES = 600  # XIDs that are no faults, at first: what an agent remembers of its log is full then
OPERATOR_MONTH = Month(work=30_000, megabytes=32)  # a thousand jobs a day
AGENT_MONTH = Month(work=3_000, megabytes=8)  # a hundred faults a day, on one node
STUCK = 180  # seconds that a job may take to its next state, on a busy machine
OPERATOR_LOG = 24_000  # bytes of log for a lifecycle, at most
AGENT_LOG = 4_000  # for a fault
OUTER_NAME = "api.soak.invalid"  # by which operators and agents call the API server
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
        """seen: the job's row, or None. True: its life is over."""
        phase = (seen or {}).get("Phase", "")
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


class SoakLab(Lab):
    """Operators and agents know the API server by a name of its own, with certificates of an authority of its own, which also signs
    the agents'. It is replaced on the way; the cluster's is not, since Kubernetes' controllers read theirs once."""

    def prepare(self):
        self.outer = Pki(Path(self.state) / "outer")
        self.outer.create()
        self.believed = Path(self.outer.path("believed.crt"))  # by operators and agents
        self._clients = Path(self.outer.path("clients.crt"))  # by the API server
        self._generations = [Path(self.outer.path("ca.crt")).read_text()]
        self._next = None
        self.authorities = 1  # so far
        self._believe()
        self.new_server_certificate()
        self.control.apiserver_flags = [f"--tls-sni-cert-key={self.outer.path('server.crt')},{self.outer.path('server.key')}:{OUTER_NAME}",
                                        f"--client-ca-file={self._clients}", f"--event-ttl={EVENTS_LIVE}"]

    def new_server_certificate(self):
        self.outer.issue("server", "/CN=kube-apiserver", "serverAuth", [f"DNS:{OUTER_NAME}"])

    def step_authority(self, agents):
        """One of the three steps in which a cluster's authority is replaced (Kubernetes' documentation, "Manual Rotation of CA
        Certificates")."""
        if len(self._generations) == 1:
            self._next = Pki(Path(self.state) / f"outer-{self.authorities}")
            self._next.create()
            self._generations.append(Path(self._next.path("ca.crt")).read_text())
            self._believe()
        elif self._next:
            for file in ("ca.crt", "ca.key"):
                put(Path(self.outer.path(file)), Path(self._next.path(file)).read_text())
            self._next = None
            self.new_server_certificate()
            for agent in agents:
                agent.new_certificate()
        else:
            self._generations.pop(0)
            self._believe()
            self.authorities += 1

    def cluster(self):
        """Of a kubeconfig: where the API server is, and by what it is believed."""
        return {"server": f"https://127.0.0.1:{self.control.ports.api}", "tls-server-name": OUTER_NAME,
                "certificate-authority": str(self.believed)}

    def server_certificate(self):
        """What those who believe in the authority of now are shown; an error where it is of none of theirs."""
        context = ssl.create_default_context(cafile=self.believed)
        with socket.create_connection(("127.0.0.1", self.control.ports.api), timeout=10) as plain:
            with context.wrap_socket(plain, server_hostname=OUTER_NAME) as connection:
                return ssl.DER_cert_to_PEM_cert(connection.getpeercert(binary_form=True))

    def restart_apiserver(self):
        self.control.stop_program("kube-apiserver")
        self.control.start_apiserver()
        self.api = Api(self.control)

    def _believe(self):
        put(self.believed, "".join(self._generations))
        put(self._clients, "".join([Path(self.control.pki.path("ca.crt")).read_text(), *self._generations]))


def put(file, text):
    """Whole or not at all, as a kubelet does it."""
    (new := file.with_name(file.name + ".new")).write_text(text)
    new.rename(file)


class Agent:
    """A real agent on a node that nobody runs: its machine is made of files, its kernel log is a pipe."""

    def __init__(self, lab, programs, number, certain=True, clears=CLEARS):
        self.node = f"sim-{NODES - number}"
        self.folder = Path(lab.state) / f"host-{self.node}"
        self.faults = 0
        files = {"proc/sys/kernel/random/boot_id": "boot-1", "proc/stat": f"cpu 1 2 3\nbtime {int(time.time()) - 600}",
                 "proc/meminfo": "MemTotal: 1000 kB\nMemAvailable: 900 kB", "faults.yaml": "{}"}
        policy = [{"name": "efa-missing", "match": {"kind": "efa.count"}, "severity": "Info", "message": "played nodes have none"},
                  # Of its own it asks for another GPU after five of them within a day, until a person says otherwise.
                  {"name": "fatal-xid-repeated", "match": {"kind": "fault", "all": [{"value": "from", "is": ["xid"]}]},
                   "severity": "Info", "message": "played faults come again and again"},
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
        self.pki = lab.outer
        self.new_certificate()
        self.pid = lab.daemons.start(self.daemon, [programs / "pitcrew-agent", "--config", self.folder / "agent.yaml", "--kubeconfig",
                                                   self.kubeconfig(lab)],
                                     dict(os.environ, NODE_NAME=self.node, POD_NAMESPACE=SYSTEM,
                                          PITCREW_NVML_CAPTURE=str(ROOT / "agent/probe/nvml/captures/p5.yaml"),
                                          PITCREW_NVML_FAULTS=str(self.folder / "faults.yaml")))

    def new_certificate(self):
        """Of a client, in the same files: it is read again."""
        self.pki.issue(self.daemon, "/O=system:masters/CN=admin", "clientAuth")

    def kubeconfig(self, lab):
        config = json.loads(Path(lab.control.kubeconfig).read_text())
        config["clusters"][0]["cluster"] = lab.cluster()
        config["users"] = [{"name": "admin", "user": {"client-certificate": self.pki.path(f"{self.daemon}.crt"),
                                                      "client-key": self.pki.path(f"{self.daemon}.key")}}]
        file = self.folder / "kubeconfig"
        file.write_text(json.dumps(config))
        return file

    def metrics(self, lab):
        """Where it listens, as it says itself."""
        said = re.search(r'"metrics":"([^"]+)"|metrics=(\S+)', (lab.daemons.logs / f"{self.daemon}.log").read_text())
        address = said[1] or said[2]
        return f"127.0.0.1:{address.rpartition(':')[2]}"

    def line(self, text):
        os.write(self.log, f"<3>[{600 + time.monotonic():.6f}] NVRM: {text}\n".encode())

    def fill(self):
        for number in range(OTHER_LINES):
            self.line(f"Xid (PCI:0000:53:00): 43, pid={number}, name=x, Ch {number:08x}")
            time.sleep(0.001)

    def fault(self):
        self.faults += 1
        self.line("Xid (PCI:0000:53:00): 79, pid=1, name=x, GPU has fallen off the bus.")

    def cordoned(self, lab):
        return lab.api.get(f"/api/v1/nodes/{self.node}")["spec"].get("unschedulable", False)


class World:
    def __init__(self, lab, side, programs):
        self.lab, self.side, self.programs = lab, side, programs
        self.jobs, self.made, self.lived, self.polled = [], 0, 0, 0.0
        self.tokens = self.refused = self.asked = self.restarts = 0
        self.old_tokens = []  # (when, the Secret that it is bound to)
        self.roots, self.channel, self.server = set(), set(), set()  # digests that were seen

    def rotate_token(self):
        """As the kubelet does: a new token in the same file. The operator reads it again within ten seconds; the one before
        is refused half a minute later, for the Secret that it is bound to is gone."""
        secrets = f"/api/v1/namespaces/{SYSTEM}/secrets"
        name = f"soak-token-{self.tokens}"
        made = self.lab.api.create(secrets, {"metadata": {"name": name}})
        bound = {"kind": "Secret", "apiVersion": "v1", "name": name, "uid": made["metadata"]["uid"]}
        token = self.lab.api.create(f"/api/v1/namespaces/{SYSTEM}/serviceaccounts/{ACCOUNT}/token",
                                    {"spec": {"expirationSeconds": 600, "boundObjectRef": bound}})["status"]["token"]
        put(Path(self.lab.state) / "token", token)
        self.tokens += 1
        self.old_tokens.append((time.monotonic(), name))

    def refuse_old_tokens(self):
        while len(self.old_tokens) > 1 and time.monotonic() - self.old_tokens[1][0] > 30:
            self.lab.api.delete(f"/api/v1/namespaces/{SYSTEM}/secrets/{self.old_tokens.pop(0)[1]}")
            self.refused += 1

    def rotate_certificates(self, agents):
        """The API server's own and the agents', of the authority of now, in the same files."""
        self.lab.new_server_certificate()
        for agent in agents:
            agent.new_certificate()

    def look_at_certificates(self):
        """Counts what others see of the rotations."""
        def digest(data):
            return hashlib.sha256(data.encode()).hexdigest()

        secret = self.lab.api.get(f"/api/v1/namespaces/{SYSTEM}/secrets/pitcrew-channel")
        self.roots.add(digest(secret["data"]["ca.crt"]))
        shown = [(self.lab.server_certificate, self.server)]
        if leader := self.side.controller():
            port = self.side.channel_port(leader)
            shown.append((lambda: ssl.get_server_certificate(("127.0.0.1", port), timeout=10), self.channel))
        for certificate, seen in shown:
            try:
                seen.add(digest(certificate()))
            except OSError:
                pass  # between two leaders, or of a busy machine: it is looked at again

    def token_from_file(self):
        self.rotate_token()
        file = Path(self.side._kubeconfig)
        config = json.loads(file.read_text())
        config["clusters"][0]["cluster"] = self.lab.cluster()
        config["users"] = [{"name": "admin", "user": {"tokenFile": str(Path(self.lab.state) / "token")}}]
        file.write_text(json.dumps(config))

    def rotate_root(self):
        self.asked += 1
        self.lab.api.patch(f"/api/v1/namespaces/{SYSTEM}/secrets/pitcrew-channel",
                           {"metadata": {"annotations": {"pitcrew.dev/request-rotate": f"soak-{self.asked}"}}})

    def restart(self):
        self.lab.restart_apiserver()
        self.restarts += 1

    def writes(self):
        """Of all that is in etcd, since its beginning: its revision."""
        return int(self.lab.api.get("/api/v1/namespaces?limit=1")["metadata"]["resourceVersion"])

    def kept(self):
        """What operators keep of jobs: 0 where there are none."""
        found = [re.search(r"^pitcrew_kept_entries (\S+)$", page(self.side.metrics_address(name)), re.M) for name in self.side.daemons()]
        return sum(float(one[1]) if one else 1 for one in found)

    def churn(self, more):
        """One look at all jobs, and a step of each; more: new ones are made."""
        time.sleep(max(0.0, self.polled + POLL - time.monotonic()))
        self.polled = time.monotonic()
        seen = self.lab.api.table(JOBS)
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
              Every(TOKEN_EVERY, world.rotate_token), Every(ROTATE_EVERY, world.rotate_root), Every(5, world.refuse_old_tokens),
              Every(CERTIFICATES_EVERY, lambda: world.rotate_certificates([agent for _, agent in agents])),
              Every(AUTHORITY_EVERY, lambda: world.lab.step_authority([agent for _, agent in agents])), Every(RESTART_EVERY, world.restart),
              Every(10, world.look_at_certificates), Every(FAULT_EVERY, lambda: [agent.fault() for _, agent in agents]),
              Every(60, lambda: print(f"{world.lived} lifecycles, {sum(agent.faults for _, agent in agents)} faults", flush=True))]
    world.rotate_root()
    world.look_at_certificates()
    wrong = []
    try:
        while time.monotonic() < end and world.lived < lifecycles or world.jobs:
            world.churn(time.monotonic() < end and world.lived < lifecycles)
            for timer in timers:
                timer.look()
    except Failed as why:
        wrong.append(f"after {world.lived} lifecycles: {why}")
    for what, there in [("pods", lambda: world.lab.api.get(f"/api/v1/namespaces/{NAMESPACE}/pods")["items"]),
                        ("cordons", lambda: any(agent.cordoned(world.lab) for _, agent in agents))]:
        try:
            until(f"the end of all {what}", lambda there=there: not there(), STUCK, 1)
        except Failed as why:
            wrong.append(str(why))  # what was measured is told all the same
    return wrong


def judge_rotations(world, minutes):
    """What has to have happened in so many minutes, and what was seen."""
    print(f"rotated: {world.tokens} tokens, {world.refused} of them refused since; {len(world.server)} certificates of the API server, "
          f"{world.lab.authorities - 1} times its authority; the API server started again {world.restarts} times; "
          f"{len(world.roots)} roots of the channel, {world.asked} asked for; {len(world.channel)} certificates of the leader's channel", flush=True)
    # A root is asked for, believed for two minutes, and signs; three steps take five minutes or six. The API server looks
    # at its files once a minute.
    least = {"tokens": (world.refused, minutes / 2 - 2), "certificates of the API server": (len(world.server), minutes / 4 - 1),
             "authorities of the API server": (world.lab.authorities, minutes / 4 - 1), "starts of the API server": (world.restarts + 1, minutes / 15),
             "roots": (len(world.roots), minutes / 8), "certificates of the channel": (len(world.channel), minutes / 8)}
    return [f"{seen} {what} in {minutes:.0f} minutes" for what, (seen, needed) in least.items() if seen < needed]


def soak(programs, minutes, lifecycles, report):
    with SoakLab(NODES, keep=report.with_suffix(".logs") if report else None) as lab:
        side = Pitcrew(lab, programs, PODS)
        side.install()
        world = World(lab, side, programs)
        world.token_from_file()
        side.more = {"channelCa": {"overlap": "2m", "certificateLifetime": "10m", "rootLifetime": "1h"}}
        begin = time.monotonic()
        side.start()
        with Swarm(programs / "pitcrew-swarm", lab, NAMESPACE) as swarm:
            world.swarm = swarm
            agents = [Agent(lab, programs, number) for number in range(AGENTS)]
            until("the agents' first word", lambda: all(
                any(c["type"] == "PitcrewHealthy" for c in lab.api.get(f"/api/v1/nodes/{agent.node}")["status"]["conditions"])
                for agent in agents), 60, 0.5)
            # Once through, before "at rest" is measured: connections and caches of a first job are no leak.
            for agent in agents:
                agent.fill()
            while world.lived < AT_ONCE:
                world.churn(world.made < AT_ONCE)
            time.sleep(3)
            operators = [Watched(name, lab.daemons.pid(name), lab.daemons.logs / f"{name}.log", side.metrics_address(name), OPERATOR_MONTH)
                         for name in side.daemons()]
            watched_agents = [(Watched(agent.daemon, agent.pid, lab.daemons.logs / f"{agent.daemon}.log", agent.metrics(lab), AGENT_MONTH),
                               agent) for agent in agents]
            thin = Watched("swarm", swarm.pid)
            for one in [*operators, thin, *(one for one, _ in watched_agents)]:
                one.rest()
            first, writes, start = world.lived, world.writes(), time.monotonic()
            wrong = live(world, operators, watched_agents, thin, minutes, lifecycles)
            took = (time.monotonic() - start) / 60
            lived, writes = world.lived - first, world.writes() - writes
            time.sleep(5)
            print(f"{lived} lifecycles of {PODS} pods in {took:.1f} minutes, {lived / took:.0f} a minute; {writes} writes to etcd, "
                  f"{writes / lived:.0f} each; {sum(agent.faults for agent in agents)} faults", flush=True)
            wrong += judge_rotations(world, (time.monotonic() - begin) / 60)
            # The last pods' events may still be on their way.
            try:
                until("operators to forget the last jobs", lambda: world.kept() == 0, 60, 1)
            except Failed:
                wrong.append(f"operators keep {world.kept():.0f} entries of jobs that are gone")
            verdicts = [(one.name, *one.verdict(OPERATOR_LOG)) for one in operators]
            verdicts += [(one.name, *one.verdict(AGENT_LOG)) for one, _ in watched_agents]
            # The swarm is no part of the product; its growth would only hide that of others.
            thin_figures, _ = thin.verdict()
            bad = tell([*verdicts, (thin.name, thin_figures, []), ("the world", {"kept of jobs": world.kept()}, wrong)])
            if report:
                points = {one.name: [[work, found["anon"], found.get("heap")] for work, found in one.points]
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
    # The control plane isn't what is measured: a third less of its time goes into collecting garbage.
    os.environ.setdefault("GOGC", "400")
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
