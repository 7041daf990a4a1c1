"""The control plane fails, and training goes on; nothing acts twice."""

import signal
import time

from harness import gobuild
from harness.process import say, until
from harness.scenario import scenario


def training(world, name, steps=600, **options):
    job = world.job(name, steps=steps, **options).apply()
    job.wait_step(40)
    return job


def undisturbed(world, job):
    """The job ends as if nothing had been: one epoch, no recovery, the same pods, the same losses."""
    job.wait_succeeded()
    world.same_losses(job)
    world.check(not job.recoveries(), f"training was disturbed: {job.recoveries()}")
    epochs = {line["epoch"] for line in job.lines()}
    world.check(len(epochs) == 1, f"there were the epochs {sorted(epochs)}")


@scenario(quick=True)
def a_killed_leader_disturbs_no_training(world):
    job = training(world, "leader-killed")
    pods, leader = job.pod_names(), world.leader()
    begin = time.monotonic()
    world.send(leader, "pitcrew-operator", signal.SIGKILL)
    holder = world.lease_changed(leader)
    world.measure("leader killed: to a leader that renews", holder - begin, 12)
    world.check(job.pod_names() == pods, f"pods were {pods}, are {job.pod_names()}")
    undisturbed(world, job)


@scenario()
def a_stopped_leader_that_continues_acts_no_more(world):
    """The old leader is stopped for longer than its lease lasts, then goes on with all it had in mind."""
    job = training(world, "leader-stopped", steps=800)
    leader = world.leader()
    world.send(leader, "pitcrew-operator", signal.SIGSTOP)
    try:
        world.wait_other_leader(leader)
        begin = job.mark()
        world.send(job.pod_of_slot(1), "pitcrew-train", signal.SIGKILL)
    finally:
        world.send(leader, "pitcrew-operator", signal.SIGCONT)
    seconds, _ = job.wait_next_step(begin)
    say(f"  a rank killed under the new leader: {seconds:.1f} s to the next step")
    job.wait_succeeded()
    world.same_losses(job)
    world.check([r["rung"] for r in job.recoveries()] == ["InPlace"], f"the recoveries were {job.recoveries()}")
    epochs = [line["epoch"] for line in job.lines()]
    world.check(epochs == sorted(epochs), "an older epoch wrote after a newer one")


@scenario()
def the_api_server_is_away_for_a_minute(world):
    job = training(world, "api-away", steps=1200)
    pods = job.pod_names()
    world.cluster.stop_apiserver()
    begin, first = time.monotonic(), job.last()["step"]
    try:
        until("a minute without the API server", lambda: time.monotonic() - begin > 60, 61, 1)
        steps = job.last()["step"] - first
        say(f"  {steps} steps without the API server")
        world.check(steps > 0, "training stood still while the API server was away")
    finally:
        world.cluster.start_apiserver()
    undisturbed(world, job)
    world.check(job.pod_names() == pods, f"pods were {pods}, are {job.pod_names()}")


@scenario()
def etcd_restarts(world):
    job = training(world, "etcd")
    for _ in range(3):
        world.cluster.restart_etcd()
        job.wait_step(job.last()["step"] + 30)
    undisturbed(world, job)


@scenario()
def kubelets_restart(world):
    job = training(world, "kubelets")
    for node in world.cluster.nodes():
        node.stop_kubelet()
    job.wait_step(job.last()["step"] + 50)
    for node in world.cluster.nodes():
        node.start_kubelet()
    for node in world.cluster.nodes():
        node.wait_ready()
    undisturbed(world, job)
    world.check(not any(job.container_restarts().values()), f"containers restarted: {job.container_restarts()}")


@scenario()
def an_operator_whose_calls_go_by_cpprestsdk_recovers_alike(world):
    world.upgrade(world.cluster, "operator.config.apiCalls=cpprestsdk")
    try:
        job = training(world, "cpprestsdk")
        begin = job.mark()
        world.send(job.pod_of_slot(1), "pitcrew-train", signal.SIGKILL)
        seconds, _ = job.wait_next_step(begin)
        world.measure("rank killed, calls by cpprestsdk: to the next step", seconds, 10)
        job.wait_succeeded()
        world.same_losses(job)
        job.delete()
        until("the job's objects to be gone", lambda: not [o for o in world.objects() if "cpprestsdk" in o], 60)
    finally:
        world.upgrade(world.cluster)


@scenario(seconds=900)
def etcd_is_restored_from_a_backup_under_a_running_job(world):
    """The cluster forgets two epochs, a term and a job; launchers and the folder do not."""
    gobuild.build(["etcdutl"])
    job = training(world, "restored", steps=1500)
    backup = world.cluster.state / "etcd.backup"
    world.cluster.control.back_up_etcd(backup)
    early = job.status()["epoch"]

    for program in ("pitcrew-train", ""):
        begin = job.mark()
        world.send(job.pod_of_slot(1), program, signal.SIGKILL)
        job.wait_next_step(begin)
    leader = world.leader()
    world.send(leader, "pitcrew-operator", signal.SIGKILL)
    world.lease_changed(leader)
    begin = job.mark()
    world.send(job.pod_of_slot(0), "pitcrew-train", signal.SIGKILL)
    job.wait_next_step(begin)
    # A job that the backup knows nothing of.
    late = world.job("late", steps=100000, replicas=1, spares=0, container={"resources": {"requests": {"cpu": "20m"}}}).apply()
    late.wait_step(5)
    until("the third recovery", lambda: len(job.recoveries()) == 3, 60)
    seen, pods = job.status()["epoch"], {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in job.pods()}
    say(f"  the backup has epoch {early['number']} of term {early['term']}, the launchers have seen {seen['number']} of term {seen['term']}")
    world.check((seen["term"], seen["number"]) > (early["term"], early["number"]), "nothing has happened since the backup")

    before = job.last()
    job.mark()
    begin = time.monotonic()
    world.cluster.control.restore_etcd(backup)
    say(f"  etcd is restored after {time.monotonic() - begin:.0f} s; the job is at step {job.last()['step']}, it was at {before['step']}")

    def above():
        epoch = job.status().get("epoch", {})
        return epoch if (epoch.get("term", 0), epoch.get("number", 0)) > (seen["term"], seen["number"]) else None

    epoch = until(f"an epoch above {seen['number']} in the status", above, 120, 0.2)
    world.measure("etcd restored: to an epoch above what launchers have seen", time.monotonic() - begin, 90)
    say(f"  the job goes on in epoch {epoch['number']} of term {epoch['term']}")
    job.wait_phase("Running", "Succeeded")
    now = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in job.pods()}
    world.check(now == pods, f"pods were {pods}, are {now}")
    until("the pods of the job that the backup didn't know to end", lambda: not world.pods("pitcrew.dev/job=late"), 60)
    job.wait_succeeded(seconds=400)
    world.same_losses(job)
    numbers = [line["epoch"] for line in job.lines()]
    world.check(numbers == sorted(numbers), "an older epoch wrote after a newer one")
    progress = job.status()["progress"]
    world.check(progress["step"] == job.total_steps, f"the status says {progress}")
