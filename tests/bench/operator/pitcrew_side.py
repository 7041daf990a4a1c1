"""Pitcrew's half: two operators outside of pods, by the chart's CRDs and rights, and a TrainingJob."""

import json
import os
import urllib.request
from pathlib import Path

from harness.config import ROOT
from harness.process import quiet, until
from harness.standalone import free_ports

SYSTEM = "pitcrew-system"
NAMESPACE = "bench-pitcrew"
ACCOUNT = "pitcrew-operator"
JOBS = f"/apis/pitcrew.dev/v1alpha1/namespaces/{NAMESPACE}/trainingjobs"
JOB = "gang"
REPLICAS = 2
# Of documentation (RFC 5737): the swarm leads the Service's connections to this machine, as a node's proxy would.
ADVERTISED = "192.0.2.{}"


class Pitcrew:
    name = "Pitcrew"
    namespace = NAMESPACE
    counted = ("pitcrew",)

    def __init__(self, lab, programs, pods):
        self.lab = lab
        self.program = programs / "pitcrew-operator"
        self.pods = pods
        self.version = quiet(self.program, "--version").partition(" ")[2].strip()
        self._ports = []
        self.more = {}  # of the operators' configuration

    def install(self):
        lab = self.lab
        for namespace in (SYSTEM, NAMESPACE):
            lab.namespace(namespace)
        chart = lab.tool("helm", "template", "pitcrew", ROOT / "charts" / "pitcrew", "--namespace", SYSTEM, "--set", "image.registry=bench.invalid",
                         *(word for part in ("crds", "operator-rbac", "operator-service") for word in ("--show-only", f"templates/{part}.yaml")))
        lab.kubectl("apply", "--server-side", "-f", "-", text=chart)
        lab.crd("trainingjobs.pitcrew.dev")
        self._kubeconfig = lab.service_account(SYSTEM, ACCOUNT)
        lab.count_requests_of("pitcrew", SYSTEM, ACCOUNT, "workload-low")

    def daemons(self):
        return [f"pitcrew-operator-{number}" for number in range(1, REPLICAS + 1)]

    def controller(self):
        """The daemon that leads."""
        return self._holder()

    def start(self):
        self._ports = []
        for number, name in enumerate(self.daemons(), 1):
            channel, metrics, health = free_ports(3)
            config = {"launcherImage": "bench.invalid/launcher", "channelPort": channel, "metricsPort": metrics, "healthPort": health,
                      "advertiseAddress": ADVERTISED.format(number), "logFormat": "plain", **self.more}
            file = Path(self.lab.state) / f"{name}.yaml"
            file.write_text(json.dumps(config))
            self.lab.daemons.start(name, [self.program, "--config", file, "--kubeconfig", self._kubeconfig, "--namespace", SYSTEM],
                                   dict(os.environ, POD_NAME=name))
            self._ports.append((health, metrics, channel))
            self.lab.daemons.ready(name, f"{name}", lambda port=health: _answers(port), 60)
        until("a leader", self._holder, 60)
        until("the channel's EndpointSlice", lambda: self.lab.api.get(
            f"/apis/discovery.k8s.io/v1/namespaces/{SYSTEM}/endpointslices/pitcrew-channel-ipv4"), 60)

    def stop(self):
        for name in self.daemons():
            self.lab.daemons.stop(name)

    def metrics(self, name):
        """A daemon's own figures, as Prometheus reads them."""
        with urllib.request.urlopen(f"http://{self.metrics_address(name)}/metrics", timeout=10) as answer:
            return answer.read().decode()

    def metrics_address(self, name):
        return f"127.0.0.1:{self._ports[self.daemons().index(name)][1]}"

    def channel_port(self, name):
        return self._ports[self.daemons().index(name)][2]

    def create(self):
        self.lab.api.create(JOBS, manifest(self.pods))

    def suspend(self, whether):
        self.lab.api.patch(f"{JOBS}/{JOB}", {"spec": {"lifecycle": {"suspend": whether}}})

    def suspended(self):
        return self.phase() == "Suspended"

    def delete(self):
        self.lab.api.delete(f"{JOBS}/{JOB}")
        until("the end of the TrainingJob", lambda: self.lab.api.get(f"{JOBS}/{JOB}") is None, 60)

    def status(self):
        return (self.lab.api.get(f"{JOBS}/{JOB}") or {}).get("status", {})

    def phase(self):
        return self.status().get("phase", "")

    def recoveries(self):
        """The job's own books: rung and cause of each recovery, newest first."""
        return [{key: one.get(key) for key in ("rung", "cause", "happened", "detected", "decided", "ready", "firstStep")}
                for one in self.status().get("recoveries", [])]

    def _holder(self):
        lease = self.lab.api.get(f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/pitcrew-operator")
        holder = lease["spec"].get("holderIdentity", "") if lease else ""
        return holder if holder in self.daemons() else ""


def manifest(pods):
    train = {"name": "train", "image": "bench.invalid/train", "command": ["train"],
             "resources": {"requests": {"cpu": "8", "memory": "64Gi"}, "limits": {"nvidia.com/gpu": "8"}}}
    return {"apiVersion": "pitcrew.dev/v1alpha1", "kind": "TrainingJob", "metadata": {"name": JOB},
            "spec": {"replicas": pods, "template": {"spec": {"containers": [train]}}}}


def _answers(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False
