"""A job's life: suspended, deleted, made again, waiting for its place."""

from harness.config import Failed
from harness.process import until
from harness.scenario import scenario


@scenario(quick=True)
def a_suspended_job_saves_frees_its_pods_and_resumes(world):
    job = world.job("suspended", steps=400).apply()
    job.wait_step(60)
    job.patch(lifecycle={"suspend": True})
    job.wait_phase("Suspended")
    until("the suspended job's pods to be gone", lambda: not job.pods(), 60)
    at = job.last()["step"]
    job.mark()
    job.patch(lifecycle={"suspend": False})
    job.wait_phase("Running", "Succeeded")
    line = job.wait_step(at + 1)
    world.check(line["step"] >= at, f"it resumed at step {line['step']}, below {at}")
    job.wait_succeeded()
    world.same_losses(job)


@scenario(quick=True)
def a_deleted_job_leaves_no_object_and_its_name_can_be_used_again(world):
    before = world.objects()
    job = world.job("again", steps=400).apply()
    job.wait_step(40)
    first = job.uid()
    job.delete()
    until("everything of the job to be gone", lambda: world.objects() == before, 90, 0.5)
    # The folder belongs to the first job: its successor of the same name takes over what is there.
    job.apply()
    world.check(job.uid() != first, "the new job has the old one's UID")
    job.wait_succeeded()
    world.same_losses(job)


@scenario()
def a_second_job_waits_whole_and_starts_when_there_is_room(world):
    one = world.job("first", steps=400).apply()
    one.wait_step(20)
    two = world.job("second", steps=100).apply()
    two.wait_phase("Pending")
    until("the reason why the second job waits", lambda: any(c["type"] == "Admitted" and c["status"] == "False" and c.get("message")
                                                            for c in two.status().get("conditions", [])), 30)
    world.check(not two.pods(), f"the waiting job has pods: {two.pod_names()}")
    one.wait_step(one.last()["step"] + 20)
    world.check(not two.pods(), "half a gang was created")
    one.delete()
    two.wait_succeeded()
    world.same_losses(two)


@scenario()
def provision_makes_pods_first_and_nodes_come_late(world):
    late = world.cluster.node("node-3")
    world.cluster.kubectl("cordon", late.name)
    job = world.job("provision", steps=200, capacity="Provision").apply()
    until("three pods", lambda: len(job.pods()) == 3, 60)
    try:
        until("a training step", lambda: job.last()["step"] > 0, 20)
        raise Failed("half a gang trains")
    except Failed as error:
        if "gave up" not in str(error):
            raise
    pending = [pod for pod in job.pods() if not pod["spec"].get("nodeName")]
    world.check(len(pending) == 1, f"{len(pending)} pods wait for a node")
    world.cluster.kubectl("uncordon", late.name)
    job.wait_succeeded()
    world.same_losses(job)


@scenario()
def draining_a_jobs_node_ends_by_itself(world):
    job = world.job("drained", steps=800, spec={"lifecycle": {"warnBefore": "30s"}}).apply()
    job.wait_step(60)
    node = job.node_of_slot(1)
    world.cluster.kubectl("drain", node.name, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=170s", seconds=180)
    world.check(all(pod["spec"]["nodeName"] != node.name for pod in job.pods()), "a pod of the job is still on the drained node")
    job.wait_succeeded()
    world.same_losses(job)
