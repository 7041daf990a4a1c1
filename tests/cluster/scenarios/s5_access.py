"""Who may speak for a job, while keys change under it."""

import json
import signal
import time
from pathlib import Path

from harness.process import say, until
from harness.scenario import scenario
from harness.world import SYSTEM


def intruder(world, name, victim, owner=None):
    """A pod that runs the launcher with everything a job's pod has, and says it were the victim's."""
    model = victim.pod_of_slot(1)
    spec = {key: model["spec"][key] for key in ("securityContext", "volumes", "initContainers", "containers")}
    spec["volumes"] = [v for v in spec["volumes"] if not v["name"].startswith("kube-api-access")]
    for container in spec["initContainers"] + spec["containers"]:
        container["volumeMounts"] = [m for m in container.get("volumeMounts", []) if not m["name"].startswith("kube-api-access")]
        container.pop("resources", None)
    metadata = {"name": name, "namespace": world.namespace, "labels": {"intruder": "yes"},
                "annotations": {"pitcrew.dev/channel": model["metadata"]["annotations"]["pitcrew.dev/channel"]}}
    if owner:
        metadata["ownerReferences"] = [owner]
    world.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**spec, "restartPolicy": "Never"}})
    until(f"pod {name} to run", lambda: world.pod(name)["status"].get("phase") == "Running", 60)


@scenario()
def launchers_that_are_not_of_the_job_are_refused(world):
    job = world.job("victim", steps=600).apply()
    job.wait_step(20)
    slots = job.status()["slots"]
    intruder(world, "jobless", job)
    other = world.job("other", steps=10, replicas=2, spares=0)
    other.manifest["spec"]["lifecycle"] = {"suspend": True}
    other.apply()
    owner = {"apiVersion": "pitcrew.dev/v1alpha1", "kind": "TrainingJob", "name": "other", "uid": other.uid(), "controller": True}
    intruder(world, "other-0", job, owner)
    for name in ("jobless", "other-0"):
        until(f"the refusal of {name}", lambda name=name: "does not belong to the job" in world.log(name) or
              "does not exist" in world.log(name), 60)
        say(f"  {name}: {next(line for line in world.log(name).splitlines() if 'does not' in line)[:200]}")
    world.check(job.status()["slots"] == slots, "the slots changed")
    world.kubectl("delete", "pods", "-l", "intruder=yes", "--now")
    job.wait_succeeded()
    world.same_losses(job)
    world.check(not job.recoveries(), f"training was disturbed: {job.recoveries()}")


@scenario(seconds=1200)
def the_channels_root_is_rotated_under_a_running_job(world):
    """Three steps, each an overlap after the one before; then a leader whose certificate the new root signed."""
    world.upgrade(world.cluster, "operator.config.channelCa.overlap=2m")
    try:
        job = world.job("rotated", steps=60000).apply()  # longer than the rotation takes; deleted then
        job.wait_step(20)
        before = roots_of(job)[0]
        world.cluster.kubectl("annotate", "secret", "-n", SYSTEM, "pitcrew-channel", f"pitcrew.dev/request-rotate=test-{int(time.time())}")
        until("the second root beside the first", lambda: len(roots_of(job)) > 1, 120, 1)
        until("the new root alone", lambda: roots_of(job) and before not in roots_of(job) and len(roots_of(job)) == 1, 420, 2)
        world.check(not job.recoveries(), f"training was disturbed: {job.recoveries()}")
        leader = world.leader()
        world.cluster.kubectl("delete", "pod", "-n", SYSTEM, leader["metadata"]["name"])
        world.wait_other_leader(leader)
        until("all launchers to be back", lambda: job.status().get("replicas", {}).get("ready") == 2, 60)
        job.delete()
    finally:
        world.upgrade(world.cluster)


@scenario(seconds=900)
def tokens_are_rotated_under_a_running_job(world):
    """Another key signs the tokens and the old ones are believed no more: launchers and operators go on with new ones."""
    job = world.job("tokens", steps=6000).apply()
    job.wait_step(20)
    pods = [job.pod_of_slot(slot) for slot in (0, 1)]
    before = [token_of(world, pod) for pod in pods]
    world.cluster.rotate_token_key(begin=True)
    # A kubelet that starts has no tokens and asks for new ones: what it does by itself when four fifths of a token's life are over.
    for node in world.cluster.nodes():
        node.stop_kubelet()
        node.start_kubelet()
    until("new tokens in the running containers", lambda: all(token_of(world, pod) not in ("", old) for pod, old in zip(pods, before)), 240, 2)
    until("new tokens in the operators", lambda: all(pod["status"].get("phase") == "Running" for pod in world.operators()), 60, 1)
    world.cluster.rotate_token_key(begin=False)
    leader = world.leader()
    world.send(leader, "pitcrew-operator", signal.SIGKILL)
    world.lease_changed(leader)
    until("all launchers to be back with the new tokens", lambda: job.status().get("replicas", {}).get("ready") == 2, 90)
    begin = job.mark()
    world.send(job.pod_of_slot(1), "pitcrew-train", signal.SIGKILL)
    seconds, _ = job.wait_next_step(begin)
    say(f"  a rank killed after the rotation: {seconds:.1f} s to the next step")
    recoveries = [recovery["cause"] for recovery in job.recoveries()]
    world.check(recoveries == ["RankCrash"], f"training was disturbed: {job.recoveries()}")
    job.delete()


def token_of(world, pod):
    """The launcher's token, as its container sees it now; empty where it can't be read."""
    mounts = next(c for c in pod["spec"]["containers"] if c["name"] == "train")["volumeMounts"]
    path = next(m["mountPath"] for m in mounts if m["name"] == "pitcrew-token")
    launcher = world.processes(pod, "pitcrew-launcher")[0]
    try:
        return Path(f"/proc/{launcher}/root{path}/token").read_text()
    except OSError:
        return ""


def roots_of(job):
    """The certificates that a pod of the job is told to believe."""
    pods = job.pods()
    return json.loads(pods[0]["metadata"]["annotations"]["pitcrew.dev/channel"])["caBundle"].split("-----END CERTIFICATE-----")[:-1] if pods else []
