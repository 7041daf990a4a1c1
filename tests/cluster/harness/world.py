"""What a scenario gets: a cluster with Pitcrew installed by helm, a namespace of its own, and the means to break things."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from . import pods
from .config import ROOT, Failed
from .jobs import TRAIN, Job
from .process import children, quiet, say, until

PROGRAMS = Path(os.environ.get("PITCREW_PROGRAMS") or ROOT / "build" / "release" / "bin")
SYSTEM = "pitcrew-system"
RELEASE = "pitcrew"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/pitcrew-operator"


class World:
    """One for each scenario. Class data is what all scenarios of a run share."""

    images = {}
    measured = []  # (what, seconds, limit) of the whole run, in order
    diagnosed = []  # rows of harness/situations.py
    _references = {}

    def __init__(self, cluster, name):
        self.cluster = cluster
        self.namespace = name.replace("_", "-")[:40].strip("-")
        self.shared = cluster.state / "shared" / self.namespace
        self.claims = []
        # More than half of a node's processors, so that two pods of a job never share a node.
        self.share = f"{int((os.cpu_count() or 1) * 1000 * 0.55)}m"

    # Once for all scenarios.

    @classmethod
    def install(cls, cluster):
        """Images into the cluster's registry, and the chart as a user installs it."""
        with tempfile.TemporaryDirectory() as folder:
            say("building images")
            quiet(ROOT / "scripts" / "images", "--programs", PROGRAMS, "--out", folder)
            # Of `cli` only `helm test` has need, of `check` only deep checks.
            names = ("operator", "launcher", "agent", "trainer", "cli", "check")
            for name in (name for name in names if Path(f"{folder}/{name}.tar").exists()):
                # A tag of its own for each content: nodes keep what they have under a name.
                tag = hashlib.sha256(Path(f"{folder}/{name}.tar").read_bytes()).hexdigest()[:12]
                cls.images[name] = cluster.push(f"{folder}/{name}.tar", f"pitcrew/{name}:{tag}")
        # What is learned, copied once: all jobs of a run must see the same bytes, whoever edits a page meanwhile.
        shutil.rmtree(cluster.state / "text", ignore_errors=True)
        shutil.copytree(ROOT / "docs", cluster.state / "text", ignore=shutil.ignore_patterns("design"))
        cls.upgrade(cluster)
        say("the operator is installed")

    @classmethod
    def push_image(cls, cluster, name, build):
        """An image of the tests' own, made once for a run: build(path) writes its archive."""
        if name not in cls.images:
            path = cluster.state / f"{name}.tar"
            build(path)
            cls.images[name] = cluster.push(path, f"tests/{name}:1")
        return cls.images[name]

    @classmethod
    def upgrade(cls, cluster, *settings, values=None):
        """The chart with these settings over its defaults, and no others."""
        keys = {"operator": "operator", "launcher": "launcher", "agent": "agent", "trainer": "test.trainer", "cli": "test", "check": "operator.check"}
        tags = (f"{key}.image.tag={cls.images[name].rpartition(':')[2]}" for name, key in keys.items() if name in cls.images)
        file = cluster.state / "values.json"
        file.write_text(json.dumps(values or {"agent": {"enabled": False}}))
        words = [word for setting in (f"image.registry={cluster.registry}/pitcrew", *tags, *settings) for word in ("--set-string", setting)]
        cluster.helm("upgrade", "--install", RELEASE, ROOT / "charts" / "pitcrew", "--namespace", SYSTEM, "--create-namespace", "--values", file,
                     *words, "--wait", "--timeout", "150s")

    # For each scenario.

    def open(self):
        """The namespace, under Pod Security "restricted", and the folder that all nodes share, as a claim in it."""
        shutil.rmtree(self.shared, ignore_errors=True)
        self.shared.mkdir(mode=0o777, parents=True)
        self.shared.chmod(0o777)
        shutil.copytree(self.cluster.state / "text", self.shared / "text", dirs_exist_ok=True)
        levels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
        volume = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"], "storageClassName": "",
                  "hostPath": {"path": str(self.shared), "type": "Directory"}, "persistentVolumeReclaimPolicy": "Retain",
                  "claimRef": {"namespace": self.namespace, "name": "shared"}}
        claim = {"accessModes": ["ReadWriteMany"], "storageClassName": "", "volumeName": self.namespace,
                 "resources": {"requests": {"storage": "1Gi"}}}
        self.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace, "labels": levels}},
            {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": self.namespace}, "spec": volume},
            {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "shared", "namespace": self.namespace}, "spec": claim},
        )
        until("the default service account", lambda: self.cluster.control.object(f"/api/v1/namespaces/{self.namespace}/serviceaccounts/default"), 30)

    def close(self):
        """Everything whole again, and the scenario's objects gone: jobs first, as their owner would delete them."""
        self.heal()
        self.kubectl("delete", "trainingjobs.pitcrew.dev", "--all", "--timeout=90s")
        until(f"the pods of {self.namespace} to be gone", lambda: not self.pods(), 90)
        self.cluster.kubectl("delete", "namespace", self.namespace, "--timeout=90s")
        volumes = [self.namespace, *(f"{self.namespace}-{claim}" for claim in self.claims)]
        self.cluster.kubectl("delete", "persistentvolume", *volumes, "--timeout=30s")

    def heal(self):
        if not self.cluster.control.answers():
            self.cluster.start_apiserver()
        for node in self.cluster.nodes():
            if not node.machine.is_on():
                node.boot()
            self.cluster.switch.push(node)
            self.cluster.switch.unblock(node)
            if node.machine.is_on() and not node.kubelet_runs():
                node.start_kubelet()
        for node in self.cluster.nodes():
            node.wait_ready(180)
            self.cluster.kubectl("uncordon", node.name)
        self.cluster.kubectl("rollout", "status", "deployment", "--namespace", SYSTEM, "--timeout=150s", seconds=180)

    # Talking.

    def kubectl(self, *words, **options):
        return self.cluster.kubectl("--namespace", self.namespace, *words, **options)

    def apply(self, *objects):
        self.cluster.kubectl("apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def pods(self, selector="", namespace=None):
        query = f"?labelSelector={selector}" if selector else ""
        listed = self.cluster.control.object(f"/api/v1/namespaces/{namespace or self.namespace}/pods{query}")
        if listed is None:
            raise Failed(f"the pods of {namespace or self.namespace} can't be listed: the API server doesn't answer")
        return listed["items"]

    def pod(self, name):
        return self.cluster.control.object(f"/api/v1/namespaces/{self.namespace}/pods/{name}") or {"status": {}}

    def log(self, pod, container="train"):
        """What a container has said; empty where it can't be had."""
        return self.kubectl("logs", pod, "-c", container, check=False).stdout

    def share_folder(self, name, folder):
        """A folder of this machine as a claim that all pods of the namespace may read."""
        volume = {"capacity": {"storage": "10Gi"}, "accessModes": ["ReadOnlyMany"], "storageClassName": "",
                  "hostPath": {"path": str(folder), "type": "Directory"}, "persistentVolumeReclaimPolicy": "Retain",
                  "claimRef": {"namespace": self.namespace, "name": name}}
        claim = {"accessModes": ["ReadOnlyMany"], "storageClassName": "", "volumeName": f"{self.namespace}-{name}",
                 "resources": {"requests": {"storage": "10Gi"}}}
        self.apply({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": f"{self.namespace}-{name}"}, "spec": volume},
                   {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": self.namespace}, "spec": claim})
        self.claims.append(name)

    def job(self, name, **options):
        return Job(self, name, **options)

    # Training without Kubernetes: what any run must give, bit for bit.

    def reference(self, steps):
        if steps not in self._references:
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "train.yaml").write_text(json.dumps({**TRAIN, "steps": steps, "data": {"text": {"paths": [str(self.shared / "text")]}}}))
                words = [PROGRAMS / "pitcrew-train", f"{folder}/train.yaml", "--set", f"checkpoint.path={folder}/checkpoints"]
                done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
                if done.returncode != 0:
                    raise Failed(f"training without Kubernetes failed: {done.stderr[-800:] or done.stdout[-800:]}")
                lines = (json.loads(line) for line in (Path(folder) / "checkpoints/steps.jsonl").read_text().splitlines())
                self._references[steps] = {line["step"]: line["bits"] for line in lines if "kind" not in line}
        return self._references[steps]

    def same_losses(self, job):
        expected, found = self.reference(job.total_steps), job.losses()
        if found != expected:
            wrong = sorted(step for step in expected.keys() | found.keys() if expected.get(step) != found.get(step))
            raise Failed(f"the losses of job {job.name} differ from an undisturbed run's in {len(wrong)} of {len(expected)} steps, first {wrong[:5]}")

    def measure(self, what, seconds, limit):
        """Prints a time, keeps it for the run's table, and fails above the limit."""
        say(f"{what}: {seconds:.1f} s (limit {limit} s)")
        self.measured.append((what, seconds, limit))
        if seconds > limit:
            raise Failed(f"{what} took {seconds:.1f} s, the limit is {limit} s")

    def check(self, holds, what):
        if not holds:
            raise Failed(what)

    # The agents.

    def agents(self):
        """Node → its agent's pod."""
        return {pod["spec"]["nodeName"]: pod for pod in self.pods("app.kubernetes.io/component=agent", SYSTEM)}

    def node(self, name):
        return self.cluster.control.object(f"/api/v1/nodes/{name}") or {"metadata": {}, "spec": {}, "status": {}}

    def node_healths(self):
        """Node → its NodeHealth."""
        listed = self.cluster.control.object("/apis/pitcrew.dev/v1alpha1/nodehealths") or {"items": []}
        return {item["spec"]["nodeName"]: item for item in listed["items"]}

    def page(self, pod, port, path):
        """What a pod answers to GET, asked from its node."""
        node = self.cluster.node(pod["spec"]["nodeName"])
        ask = "import sys, urllib.request; sys.stdout.write(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())"
        return node.machine.do(sys.executable, "-c", ask, f"http://{pod['status']['podIP']}:{port}{path}", only_network=True)

    # The operator.

    def operators(self):
        return [pod for pod in self.pods(namespace=SYSTEM) if "operator" in pod["metadata"]["name"]]

    def leader(self):
        """The leader's pod."""

        def found():
            lease = self.cluster.control.object(LEASE)
            holder = lease["spec"].get("holderIdentity", "") if lease else ""
            return next((pod for pod in self.operators() if pod["metadata"]["name"] == holder), None)

        return until("an operator that leads", found, 60)

    def wait_other_leader(self, than, seconds=60):
        name = than["metadata"]["name"]

        def found():
            lease = self.cluster.control.object(LEASE)
            holder = lease["spec"].get("holderIdentity", "") if lease else ""
            return holder and holder != name

        until(f"another leader than {name}", found, seconds)

    def lease_changed(self, than, seconds=60):
        """Waits until somebody else renews the lease, or the same pod's next life does. Returns the time (time.monotonic())."""
        before = self.cluster.control.object(LEASE)["spec"]
        name = than["metadata"]["name"]

        def changed():
            lease = self.cluster.control.object(LEASE)
            now = lease["spec"] if lease else before
            later = now.get("renewTime") != before.get("renewTime") and now.get("leaseTransitions", 0) != before.get("leaseTransitions", 0)
            return time.monotonic() if later else None

        return until(f"a renewal of the lease after {name}'s end", changed, seconds, 0.05)

    def objects(self):
        """Names of everything in the namespace that a job could leave behind."""
        kinds = "pods,services,endpointslices,configmaps,secrets,poddisruptionbudgets,serviceaccounts,roles,rolebindings,trainingjobs"
        return sorted(self.kubectl("get", kinds, "-o", "name").split())

    # Breaking.

    @staticmethod
    def processes(pod, program=""):
        return pods.processes(pod["metadata"]["uid"], program)

    @staticmethod
    def ranks(pod):
        """The children of the pod's launcher, as process ids of this machine."""
        return [child for launcher in pods.processes(pod["metadata"]["uid"], "pitcrew-launcher") for child in children(launcher)]

    @staticmethod
    def kill(pid, number):
        os.kill(pid, number)

    @staticmethod
    def send(pod, program, number):
        return pods.send(pod["metadata"]["uid"], program, number)
