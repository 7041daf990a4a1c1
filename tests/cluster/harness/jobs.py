"""A TrainingJob as a scenario sees it: applied by kubectl, watched in its status and in the files that it writes."""

import json
import time

from .process import Failed, until

TRAIN = {
    "model": {"kind": "llama", "layers": 2, "width": 96, "heads": 2, "mlp": 256, "vocab": 256, "context": 96},
    "batch": {"sequences": 8, "micro": 2},
    "seed": 3,
    "optimizer": {"learningRate": 3e-3, "weightDecay": 0.1, "clip": 1.0},
    "schedule": {"warmup": 10, "decayTo": 0.1},
    "data": {"text": {"paths": ["/shared/text"]}},
    "threads": 1,
    "log": {"every": 50},
}
UNFINISHED = ("", "Pending", "Starting", "Running", "Recovering", "Suspended")


def manifest(world, name, steps, replicas=2, spares=1, image=None, command=None, memory_every=10, durable_every=50, capacity=None,
             container=None, pod=None, spec=None):
    """A job that trains the small model on the folder that all nodes share. A pod asks for more than half of a machine's
    processors, so that no two of one job share a node."""
    folder = world.shared / name
    folder.mkdir(mode=0o777, exist_ok=True)
    folder.chmod(0o777)
    (folder / "train.yaml").write_text(json.dumps({**TRAIN, "steps": steps}))
    secure = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    train = {
        "name": "train",
        "image": image or world.images["trainer"],
        "command": command or ["pitcrew-train", f"/shared/{name}/train.yaml"],
        "securityContext": secure,
        "resources": {"requests": {"cpu": world.share, "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
        "volumeMounts": [{"name": "shared", "mountPath": "/shared"}],
        **(container or {}),
    }
    template = {
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "runAsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": 10,
        "containers": [train],
        "volumes": [{"name": "shared", "persistentVolumeClaim": {"claimName": "shared"}}],
        **(pod or {}),
    }
    checkpoint = {"path": f"/shared/{name}/checkpoints", "every": {"steps": durable_every}}
    if memory_every:
        checkpoint["memory"] = {"every": {"steps": memory_every}, "copies": 1, "size": "64Mi"}
    parts = {
        "replicas": replicas, "spares": spares, "template": {"spec": template}, "checkpoint": checkpoint,
        **({"placement": {"capacity": {"mode": capacity}}} if capacity else {}),
        **(spec or {}),
    }
    return {
        "apiVersion": "pitcrew.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name, "namespace": world.namespace},
        "spec": {key: value for key, value in parts.items() if value is not None},
    }


class Job:
    """One job of a scenario. Its folder on this machine is the one its pods see as /shared/<name>."""

    def __init__(self, world, name, steps=400, **options):
        self.world = world
        self.name = name
        self.manifest = manifest(world, name, steps, **options)
        self.total_steps = steps
        self.folder = world.shared / name
        self._epoch, self.marked_step = 0, 0
        self.log = self.folder / "checkpoints" / "steps.jsonl"

    def apply(self):
        self.world.kubectl("apply", "-f", "-", text=json.dumps(self.manifest))
        return self

    def patch(self, **spec):
        self.world.kubectl("patch", "trainingjob", self.name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def delete(self, wait=True):
        self.world.kubectl("delete", "trainingjob", self.name, f"--wait={str(wait).lower()}", "--timeout=100s")

    def object(self):
        return self.world.cluster.control.object(f"/apis/pitcrew.dev/v1alpha1/namespaces/{self.world.namespace}/trainingjobs/{self.name}")

    def status(self):
        return (self.object() or {}).get("status", {})

    def uid(self):
        return self.object()["metadata"]["uid"]

    def phase(self):
        return self.status().get("phase", "")

    def wait_phase(self, *phases, seconds=180):
        """Waits for one of the phases. A job that ended in another way ends the wait."""

        def reached():
            phase = self.phase()
            if phase in phases:
                return phase
            if phase not in UNFINISHED:
                raise Failed(f"job {self.name} is {phase}, not {' or '.join(phases)}: {self.story()}")
            return None

        try:
            return until(f"job {self.name} to be {' or '.join(phases)}", reached, seconds, 0.2)
        except Failed as error:
            raise Failed(f"{error}; it is {self.phase() or 'without a phase'}: {self.story()}") from None

    def wait_succeeded(self, seconds=300):
        self.wait_phase("Succeeded", seconds=seconds)
        last = max(self.losses(), default=0)
        if last != self.total_steps:
            raise Failed(f"job {self.name} succeeded at step {last} of {self.total_steps}")

    # What it wrote.

    def lines(self):
        """The step log's lines that are whole: {step, loss, bits, epoch, samples}, evaluations left out."""
        try:
            text = self.log.read_text()
        except OSError:
            return []
        lines = [json.loads(line) for line in text.split("\n")[:-1] if line.endswith("}")]
        return [line for line in lines if "kind" not in line]

    def losses(self):
        """Step → the loss's bits."""
        return {line["step"]: line["bits"] for line in self.lines()}

    def last(self):
        lines = self.lines()
        return lines[-1] if lines else {"step": 0, "epoch": 0}

    def wait_step(self, step, seconds=180):
        def reached():
            if self.phase() == "Failed":
                raise Failed(f"job {self.name} failed: {self.story()}")
            last = self.last()
            return last if last["step"] >= step else None

        try:
            return until(f"step {step} of job {self.name}", reached, seconds, 0.05)
        except Failed as error:
            raise Failed(f"{error}; it is at step {self.last()['step']}, {self.phase()}: {self.story()}") from None

    def wait_next_step(self, since, seconds=120):
        """After a failure at the time that mark() returned: waits for a step of a later epoch. Returns the seconds that it
        took and the line."""
        before = self._epoch

        def reached():
            last = self.last()
            return last if last["epoch"] > before and last["step"] > 0 else None

        try:
            line = until(f"the next step of job {self.name}", reached, seconds, 0.02)
        except Failed as error:
            raise Failed(f"{error}; its last is {self.last()}; {self.phase()}: {self.story()}") from None
        return time.monotonic() - since, line

    def mark(self):
        """Remembers the epoch, for wait_next_step(). Returns the time."""
        last = self.last()
        self._epoch, self.marked_step = last["epoch"], last["step"]
        return time.monotonic()

    # Who does it.

    def pods(self):
        return self.world.pods(f"pitcrew.dev/job={self.name}")

    def pod_names(self):
        return sorted(pod["metadata"]["name"] for pod in self.pods())

    def container_restarts(self):
        return {pod["metadata"]["name"]: sum(c["restartCount"] for c in pod["status"].get("containerStatuses", [])) for pod in self.pods()}

    def last_end(self, pod):
        """Why the pod's training container ended, or ended the last time; empty where it never did."""
        now = self.world.cluster.control.object(f"/api/v1/namespaces/{self.world.namespace}/pods/{pod['metadata']['name']}")
        for container in (now or {}).get("status", {}).get("containerStatuses", []):
            for state in (container.get("lastState", {}), container.get("state", {})):
                if "terminated" in state:
                    return state["terminated"].get("reason", "")
        return ""

    def output(self, slot):
        """What the training container of a slot has said."""
        return self.world.log(self.pod_of_slot(slot)["metadata"]["name"])

    def pod_of_slot(self, slot):
        """The pod that holds a slot now, as an object."""
        entry = next((e for e in self.status().get("slots", []) if e["slot"] == slot), None)
        if entry is None:
            raise Failed(f"job {self.name} has no slot {slot}: {self.story()}")
        name = f"{self.name}-{self.uid()[:5]}-{entry['serial']}"
        return self.world.cluster.control.object(f"/api/v1/namespaces/{self.world.namespace}/pods/{name}")

    def node_of_slot(self, slot):
        return self.world.cluster.node(self.pod_of_slot(slot)["spec"]["nodeName"])

    def recoveries(self):
        """Newest first."""
        return self.status().get("recoveries", [])

    def story(self):
        """Why it is as it is, in one line."""
        status = self.status()
        conditions = "; ".join(f"{c['type']}={c['status']} {c.get('reason', '')} {c.get('message', '')}".strip() for c in status.get("conditions", []))
        recoveries = "; ".join(f"{r.get('cause')} {r.get('rung')} on {r.get('node', '?')}" for r in status.get("recoveries", []))
        return f"[{conditions}] [{recoveries}]"
