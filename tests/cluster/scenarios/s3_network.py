"""Wires are cut while everything at their ends lives on."""

import json
import time

from harness.process import say, until
from harness.scenario import scenario


@scenario()
def a_node_cut_off_from_the_operator_alone_trains_on(world):
    """While the step advances nobody is judged by silence."""
    job = world.job("no-channel", steps=1000).apply()
    job.wait_step(40)
    operators = {pod["spec"]["nodeName"]: pod["status"]["podIP"] for pod in world.operators()}
    slot = next((s for s in (0, 1) if job.node_of_slot(s).name not in operators), 1)
    node = job.node_of_slot(slot)
    remote = [address for name, address in operators.items() if name != node.name]
    world.cluster.switch.block(node, remote)
    begin, first = time.monotonic(), job.last()["step"]
    try:
        until("a minute without the channel", lambda: time.monotonic() - begin > 60, 61, 1)
        say(f"  {job.last()['step'] - first} steps without the channel")
    finally:
        world.cluster.switch.unblock(node)
    job.wait_succeeded()
    world.same_losses(job)
    world.check(not job.recoveries(), f"training was disturbed: {job.recoveries()}")


@scenario()
def a_partitioned_nodes_zombies_commit_nothing(world):
    """The node is cut off from everything but the shared folder, so that its ranks could do harm there."""
    job = world.job("zombie", steps=600, durable_every=20).apply()
    job.wait_step(60)
    node = job.node_of_slot(0)
    zombie = job.pod_of_slot(0)
    begin = job.mark()
    world.cluster.switch.pull(node)
    seconds, line = job.wait_next_step(begin)
    world.measure("partition of a node: to the next step", seconds, 40)
    # Its programs live on and see the folder; what they do there must not matter.
    world.check(world.processes(zombie, "pitcrew-launcher"), "the partitioned node's launcher is gone; that is no partition")
    job.wait_step(line["step"] + 60)
    world.cluster.switch.push(node)
    job.wait_succeeded()
    world.same_losses(job)
    claims = sorted((job.folder / "checkpoints" / "claims").glob("*.json"))
    newest = max(int(claim.stem) for claim in claims)
    committed = {json.loads(file.read_text()).get("claim", newest) if file.exists() else newest
                 for file in (job.folder / "checkpoints").glob("step-*/manifest.json")}
    say(f"  claims {len(claims)}, checkpoints left by the claims {sorted(committed)}")
    epochs = [line["epoch"] for line in job.lines()]
    world.check(epochs == sorted(epochs), "an older epoch wrote after a newer one")
