"""The rungs of the recovery ladder: each failure costs what it must, and no more."""

import random
import signal
import time

from harness.memory import fill_container
from harness.process import say
from harness.scenario import scenario


@scenario(quick=True)
def a_job_of_two_replicas_and_a_spare_finishes(world):
    job = world.job("plain", steps=200).apply()
    job.wait_phase("Running", "Succeeded")
    nodes = {pod["spec"].get("nodeName") for pod in job.pods()}
    world.check(len(nodes) == 3, f"three pods share the nodes {nodes}")
    job.wait_succeeded()
    world.same_losses(job)
    world.check(not job.recoveries(), f"nothing failed, and yet {job.recoveries()}")


def power_cut(world, name, choose, limit=15):
    """Cuts the power of the node that choose(job) names, at a random step; the spare must have taken over."""
    job = world.job(name, steps=400).apply()
    job.wait_step(random.randrange(30, 120))
    node = choose(job)
    begin = job.mark()
    node.cut_power()
    seconds, line = job.wait_next_step(begin)
    say(f"  cut at step {job.marked_step}, next is step {line['step']} of epoch {line['epoch']}")
    world.measure(f"{name}: from a node's power-cut to the next step", seconds, limit)
    job.wait_succeeded()
    world.same_losses(job)
    recovery = job.recoveries()[0]
    world.check(recovery["rung"] == "SpareTaken", f"the recovery was {recovery}")
    world.check(recovery["node"] == node.name, f"the recovery blames {recovery.get('node')}, not {node.name}")
    return job


@scenario(quick=True, seconds=900)
def a_node_loses_power_and_the_spare_takes_over(world):
    """Three runs: of each slot's node, and of a random one's. No leader is on it."""
    for run, slot in enumerate((1, 0, random.randrange(2)), 1):
        def away_from_the_leader(job, slot=slot):
            nodes = [job.node_of_slot(s) for s in (slot, 1 - slot)]
            leader = world.leader()["spec"]["nodeName"]
            return nodes[0] if nodes[0].name != leader else nodes[1]

        power_cut(world, f"cut-{run}", away_from_the_leader)
        world.heal()


@scenario(seconds=600)
def a_node_loses_power_with_the_operators_leader_on_it(world):
    def with_the_leader(job):
        leader = world.leader()["spec"]["nodeName"]
        on_it = [s for s in (0, 1) if job.node_of_slot(s).name == leader]
        if on_it:
            return job.node_of_slot(on_it[0])
        # The leader is beside the spare: let the other operator lead, or this one from another node.
        old = world.leader()
        world.cluster.kubectl("delete", "pod", "-n", "pitcrew-system", old["metadata"]["name"], "--wait=false")
        world.wait_other_leader(old)
        return with_the_leader(job)

    power_cut(world, "cut-leader", with_the_leader, limit=30)


@scenario(quick=True)
def a_killed_rank_restarts_in_its_container(world):
    job = world.job("rank", steps=400).apply()
    job.wait_step(60)
    pods, restarts = job.pod_names(), job.container_restarts()
    begin = job.mark()
    world.send(job.pod_of_slot(1), "pitcrew-train", signal.SIGKILL)
    seconds, _ = job.wait_next_step(begin)
    world.measure("rank killed: to the next step", seconds, 10)
    job.wait_succeeded()
    world.same_losses(job)
    world.check(job.recoveries()[0]["rung"] == "InPlace", f"the recovery was {job.recoveries()[0]}")
    world.check(job.pod_names() == pods, f"pods were {pods}, are {job.pod_names()}")
    world.check(job.container_restarts() == restarts, "a container restarted")


@scenario(quick=True)
def a_launcher_killed_with_its_ranks_adopts_its_memory_checkpoint(world):
    job = world.job("launcher", steps=400, durable_every=1000).apply()
    job.wait_step(60)
    pods = job.pod_names()
    begin = job.mark()
    world.send(job.pod_of_slot(1), "", signal.SIGKILL)
    seconds, line = job.wait_next_step(begin)
    world.measure("launcher and ranks killed: to the next step", seconds, 25)
    world.check(line["step"] > 1, f"training began anew, at step {line['step']}: no memory checkpoint was adopted")
    job.wait_succeeded()
    world.same_losses(job)
    world.check(job.recoveries()[0]["rung"] == "Relaunched", f"the recovery was {job.recoveries()[0]}")
    world.check(job.pod_names() == pods, f"pods were {pods}, are {job.pod_names()}")


@scenario()
def a_container_out_of_memory_restarts_and_adopts_its_memory_checkpoint(world):
    job = world.job("oom", steps=400, durable_every=1000).apply()
    job.wait_step(60)
    pods = job.pod_names()
    pod = job.pod_of_slot(1)
    job.mark()
    fill_container(world.processes(pod, "pitcrew-launcher")[0])
    seconds, line = job.wait_next_step(time.monotonic())
    world.measure("container out of memory: to the next step", seconds, 25)
    world.check(job.last_end(pod) == "OOMKilled", f"the container ended as {job.last_end(pod)}")
    world.check(line["step"] > 1, f"training began anew, at step {line['step']}: no memory checkpoint was adopted")
    job.wait_succeeded()
    world.same_losses(job)
    world.check(job.pod_names() == pods, f"pods were {pods}, are {job.pod_names()}")


@scenario()
def a_deleted_pod_is_replaced_without_counting(world):
    job = world.job("deleted", steps=400).apply()
    job.wait_step(60)
    job.mark()
    world.kubectl("delete", "pod", job.pod_of_slot(1)["metadata"]["name"], "--wait=false")
    job.wait_succeeded()
    world.same_losses(job)
    world.check(job.recoveries()[0]["cause"] == "Planned", f"the recovery was {job.recoveries()[0]}")
