"""The chart as people use it: `helm test`, upgrade, rollback and uninstall, beside a job that trains."""

import json
import time

from harness.cluster import REGISTRY_PORT
from harness.config import NotRun
from harness.gobuild import program
from harness.process import quiet, say, until
from harness.scenario import scenario
from harness.world import RELEASE, SYSTEM

from scenarios.s8_agent import Agents, cordoned, tainted


def operators(world):
    return {pod["metadata"]["name"] for pod in world.pods("app.kubernetes.io/component=operator", SYSTEM) if not pod["metadata"].get("deletionTimestamp")}


def started(job):
    """Pod → its UID and how often its containers began: what an undisturbed job keeps."""
    return {pod["metadata"]["name"]: (pod["metadata"]["uid"], [c["restartCount"] for c in pod["status"].get("containerStatuses", [])]) for pod in job.pods()}


def undisturbed(world, job, before, epoch, what):
    world.check(started(job) == before, f"{what}: the job's pods changed: {before} → {started(job)}")
    status = job.status()
    world.check(status["epoch"]["number"] == epoch, f"{what}: the job is in epoch {status['epoch']['number']}, not {epoch}")
    world.check(not status.get("recoveries"), f"{what}: {status.get('recoveries')}")
    job.wait_step(job.last()["step"] + 10)
    say(f"  {what}: the job is at step {job.last()['step']}, still in epoch {epoch}")


@scenario(seconds=900)
def helm_test_trains_a_tiny_job(world):
    if "cli" not in world.images:
        raise NotRun("pitcrew is not built beside the other programs")
    said = world.cluster.helm("test", RELEASE, "--namespace", SYSTEM, "--logs", "--timeout", "300s", seconds=330)
    world.check("pitcrew-test: Succeeded" in said, f"helm test said: {said}")
    until("the test's job to be gone", lambda: "pitcrew-test" not in world.cluster.kubectl("get", "tj", "-n", SYSTEM), 60)


@scenario(seconds=1200)
def upgrade_and_rollback_do_not_disturb_a_running_job(world):
    job = world.job("steady", steps=3000).apply()
    job.wait_step(40)
    before, epoch = started(job), job.status()["epoch"]["number"]
    launcher = {c["image"] for pod in job.pods() for c in pod["spec"]["initContainers"]}

    first = operators(world)
    # Another configuration and another name for the launcher's image: new operators, which this job's launchers outlive.
    address, _, tag = world.images["launcher"].partition("/")[2].rpartition(":")
    quiet(program("crane"), "tag", "--insecure", f"{world.cluster.wire.inside}:{REGISTRY_PORT}/{address}:{tag}", "again")
    world.upgrade(world.cluster, "operator.config.logLevel=debug", "launcher.image.tag=again")
    until("new operators", lambda: len(operators(world)) == 2 and not operators(world) & first, 120)
    undisturbed(world, job, before, epoch, "after the upgrade")

    revision = json.loads(world.cluster.helm("history", RELEASE, "--namespace", SYSTEM, "-o", "json"))[-1]["revision"]
    second = operators(world)
    world.cluster.helm("rollback", RELEASE, str(revision - 1), "--namespace", SYSTEM, "--wait", "--timeout", "150s", seconds=180)
    until("the old operators' like", lambda: len(operators(world)) == 2 and not operators(world) & second, 120)
    undisturbed(world, job, before, epoch, "after the rollback")
    world.check({c["image"] for pod in job.pods() for c in pod["spec"]["initContainers"]} == launcher, "the job has another launcher image")
    job.delete()


@scenario(seconds=1200)
def uninstall_takes_back_what_agents_did_and_lets_jobs_train_on(world):
    with Agents(world) as agents:
        job = world.job("goes-on", steps=1500, spares=0).apply()
        job.wait_step(40)
        before = started(job)
        busy = {pod["spec"]["nodeName"] for pod in job.pods()}
        bad = next(name for name in agents.gpus if name not in busy)
        agents.gpus[bad].xid(79, words="pid='<unknown>', name=<unknown>, GPU has fallen off the bus.")
        until("the cordon", lambda: cordoned(world, bad) and tainted(world, bad), 30, 0.1)
        begin = time.monotonic()
        done = world.cluster.helm("uninstall", RELEASE, "--namespace", SYSTEM, "--timeout", "280s", check=False, seconds=300)
        said = done.stdout + done.stderr  # what the hook says goes to the latter
        world.measure("helm uninstall, with its hook", time.monotonic() - begin, 280)
        try:
            world.check(done.returncode == 0, f"helm uninstall failed: {said}")
            world.check("kubectl delete crd trainingjobs.pitcrew.dev" in said, f"helm uninstall doesn't say how to remove the definitions: {said}")
            for name in agents.gpus:
                node = world.node(name)
                world.check(not tainted(world, name) and not cordoned(world, name), f"{name} is still tainted or cordoned")
                world.check("pitcrew.dev/unhealthy" not in node["metadata"]["labels"], f"{name} still has the label")
                world.check(all(c["type"] != "PitcrewHealthy" for c in node["status"]["conditions"]), f"{name} still has the condition")
            world.check(world.node_healths(), "NodeHealth is gone")
            world.check(started(job) == before, "the job's pods changed")
            at = job.last()["step"]
            job.wait_step(at + 20)
            say(f"  without an operator the job trains on: step {at} → {job.last()['step']}")
        finally:
            world.upgrade(world.cluster)
        job.wait_succeeded()
        world.same_losses(job)
