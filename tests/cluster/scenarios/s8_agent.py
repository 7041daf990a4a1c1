"""Bad GPUs on real nodes: seen within a second, kept from pods, and taken back when they are good again."""

import os
import signal
import time
from datetime import datetime, timezone
from pathlib import Path

from harness import pods
from harness.gpus import BUSES, Gpus, values
from harness.process import say, until
from harness.scenario import scenario
from harness.world import SYSTEM

HYPERPOD = "sagemaker.amazonaws.com/node-health-status"


class Agents:
    """The DaemonSet on all nodes of a scenario, each with eight played GPUs; gone afterwards, and their nodes as before."""

    def __init__(self, world, kernel_log=None):
        """kernel_log: another than the played one of each node."""
        self.world = world
        self.values = values()
        if kernel_log:
            self.values["agent"]["config"]["kernelLog"] = kernel_log

    def __enter__(self):
        world = self.world
        self.gpus = {node.name: Gpus(node) for node in world.cluster.nodes()}
        for gpus in self.gpus.values():
            gpus.plug()
        world.cluster.kubectl("label", "nodes", "--all", "--overwrite", "pitcrew.dev/gpus=8")
        world.upgrade(world.cluster, values=self.values)
        world.cluster.kubectl("rollout", "status", "daemonset", "-n", SYSTEM, "--timeout=120s", seconds=130)
        until("the agents' first words", lambda: all(condition(world, name)["status"] == "True" for name in self.gpus), 60, 0.2)
        return self

    def __exit__(self, *_):
        world = self.world
        world.upgrade(world.cluster)
        world.cluster.kubectl("label", "nodes", "--all", "pitcrew.dev/gpus-", "pitcrew.dev/unhealthy-", "pitcrew.dev/hold-", f"{HYPERPOD}-")
        world.cluster.kubectl("annotate", "nodes", "--all", "pitcrew.dev/cordoned-")
        for name in self.gpus:
            world.cluster.kubectl("taint", "nodes", name, "pitcrew.dev/unhealthy-", check=False)
            world.cluster.kubectl("uncordon", name)
        world.cluster.kubectl("delete", "nodehealths,cordonbudgets", "--all")


def condition(world, node):
    found = [c for c in world.node(node)["status"].get("conditions", []) if c["type"] == "PitcrewHealthy"]
    return found[0] if found else {"status": "", "reason": "", "message": ""}


def cordoned(world, node):
    return world.node(node)["spec"].get("unschedulable", False)


def tainted(world, node):
    return any(taint["key"] == "pitcrew.dev/unhealthy" for taint in world.node(node)["spec"].get("taints", []))


def events(world, node, reason):
    listed = world.cluster.control.object("/apis/events.k8s.io/v1/events") or {"items": []}
    return [e for e in listed["items"] if e["regarding"]["name"] == node and e["reason"] == reason]


def verdicts(world, node):
    return world.node_healths().get(node, {}).get("status", {}).get("verdicts", [])


@scenario(seconds=900)
def a_gpu_off_the_bus_cordons_its_node_and_the_spare_trains_on(world):
    with Agents(world) as agents:
        job = world.job("xid-79", steps=2000).apply()
        job.wait_step(60)
        node = job.node_of_slot(1).name
        begin = job.mark()
        written = agents.gpus[node].xid(79, words="pid='<unknown>', name=<unknown>, GPU has fallen off the bus.")
        until("the cordon", lambda: cordoned(world, node) and tainted(world, node), 30, 0.02)
        world.measure("XID 79: from the kernel's line to the cordon", time.monotonic() - written, 2)
        seconds, _ = job.wait_next_step(begin)
        world.measure("XID 79: from the kernel's line to the next step on the spare", seconds, 15)
        world.check(job.node_of_slot(1).name != node, f"slot 1 is still on {node}")
        said = condition(world, node)
        world.check((said["status"], said["reason"]) == ("False", "Xid79"), f"the condition is {said}")
        rules = until("the verdict", lambda: [verdict["rule"] for verdict in verdicts(world, node)], 10, 0.1)
        world.check(rules == ["xid-79"], f"the verdicts are {rules}")
        say(f"  {said['reason']}: {said['message']}")
        # The rule clears it after a while; what the agent did is taken back by it.
        until("the node to be good again", lambda: not cordoned(world, node) and not tainted(world, node), 120, 0.5)
        world.check(condition(world, node)["status"] == "True", f"the condition is {condition(world, node)}")
        job.wait_succeeded()
        world.same_losses(job)
        world.check(len(job.recoveries()) == 1, f"the recoveries were {job.recoveries()}")


@scenario(seconds=600)
def a_contained_error_restarts_the_job_and_a_remapped_row_does_nothing(world):
    with Agents(world) as agents:
        job = world.job("xid-94", steps=2000).apply()
        job.wait_step(60)
        node = job.node_of_slot(1).name
        agents.gpus[node].xid(63, words="Row Remapper: New row marked for remapping, reset gpu to activate.")
        job.wait_step(job.last()["step"] + 60)
        world.check(not job.recoveries(), f"XID 63 disturbed training: {job.recoveries()}")
        world.check(condition(world, node)["status"] == "True" and not cordoned(world, node), "XID 63 made the node unhealthy")
        begin = job.mark()
        agents.gpus[node].xid(94, words="pid=4711, name=pitcrew-train, Contained: SM (0x1).")
        seconds, _ = job.wait_next_step(begin)
        say(f"  XID 94: {seconds:.1f} s to the next step")
        world.check(job.node_of_slot(1).name == node and not cordoned(world, node), "XID 94 moved the job or cordoned the node")
        world.check(len(job.recoveries()) == 1, f"the recoveries were {job.recoveries()}")
        job.delete()


def holders_of(path):
    """The processes named pitcrew-agent that have a file open."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "comm").read_text().strip() == "pitcrew-agent" and path in (os.readlink(fd) for fd in (process / "fd").iterdir()):
                found.append(process.name)
        except OSError:
            continue  # it has ended meanwhile
    return found


@scenario(seconds=600)
def the_machines_own_kernel_log_is_read_from_an_unprivileged_pod(world):
    with Agents(world, kernel_log="syslog") as agents:
        # docs/design/0013: it rings by /proc/kmsg, which needs CAP_SYSLOG and no device.
        nodes = len(agents.gpus)
        ringing = holders_of("/proc/kmsg")
        world.check(len(ringing) == nodes, f"{len(ringing)} of {nodes} agents hold /proc/kmsg open: the others ask for the log's size")
        begin = time.monotonic()
        with open("/dev/kmsg", "w") as log:
            log.write(f"NVRM: Xid (PCI:0000:{BUSES[5]:02x}:00): 94, pid=4711, name=played, Contained: SM (0x1).\n")
        # All nodes of this machine share its kernel.
        until("the verdict on all nodes", lambda: all(verdicts(world, name) for name in agents.gpus), 30, 0.05)
        world.measure("a line of the machine's kernel log: to the verdict in NodeHealth on all nodes", time.monotonic() - begin, 5)
        rules = {verdict["rule"] for name in agents.gpus for verdict in verdicts(world, name)}
        world.check(rules == {"xid-94"}, f"the verdicts are {rules}")


@scenario(seconds=600)
def a_missing_gpu_takes_a_token_and_a_persons_cordon_stays(world):
    with Agents(world) as agents:
        names = sorted(agents.gpus)
        world.cluster.kubectl("cordon", names[1])
        for name in names[:2]:
            agents.gpus[name].faults({"missing": [7]})
        until("the quarantine of both", lambda: all(tainted(world, name) and cordoned(world, name) for name in names[:2]), 120, 0.2)
        budget = world.cluster.control.object("/apis/pitcrew.dev/v1alpha1/cordonbudgets/default")
        world.check(names[0] in str(budget), f"no token was taken: {budget}")
        for name in names[:2]:
            agents.gpus[name].faults({})
        until("the quarantine's end", lambda: not any(tainted(world, name) for name in names[:2]), 180, 0.5)
        until("the agent's cordon to be undone", lambda: not cordoned(world, names[0]), 30, 0.2)
        world.check(cordoned(world, names[1]), "a person's cordon was undone")


@scenario(seconds=600)
def an_agent_killed_in_the_middle_of_a_verdict_comes_to_the_same_result_once(world):
    with Agents(world) as agents:
        node = sorted(agents.gpus)[0]
        agents.gpus[node].xid(79, words="GPU has fallen off the bus.")
        for _ in range(2):
            pod = world.agents()[node]
            # The kubelet waits longer before each restart.
            until("the agent to run", lambda pod=pod: world.processes(pod, "pitcrew-agent"), 60, 0.05)
            world.send(pod, "pitcrew-agent", signal.SIGKILL)
        until("the cordon", lambda: cordoned(world, node) and tainted(world, node), 60, 0.1)
        found = until("the verdict", lambda: verdicts(world, node), 60, 0.2)
        world.check(len(found) == 1 and found[0].get("count", 1) == 1, f"the verdicts are {found}")


@scenario(seconds=900)
def with_the_api_away_nothing_is_cordoned_and_afterwards_it_is(world):
    with Agents(world) as agents:
        node = sorted(agents.gpus)[0]
        world.cluster.stop_apiserver()
        try:
            # One that nothing but a reboot clears, however long the API server takes to come back.
            agents.gpus[node].xid(95, words="pid=4711, name=python3, Uncontained: FBHUB.")
            time.sleep(10)
        finally:
            back = datetime.now(timezone.utc).isoformat()
            world.cluster.start_apiserver()
        until("the cordon", lambda: cordoned(world, node) and tainted(world, node), 60, 0.2)
        when = world.node(node)["metadata"]["annotations"]["pitcrew.dev/cordoned"].split()[0]
        world.check(when[:19] >= back[:19], f"it was cordoned at {when}, the API server came back at {back}")
        until("the verdict, once", lambda: len(verdicts(world, node)) == 1, 30, 0.2)


@scenario(seconds=600)
def a_gpu_in_use_is_known_to_be_the_jobs(world):
    with Agents(world) as agents:
        job = world.job("whose", steps=100000).apply()
        job.wait_step(20)
        pod = job.pod_of_slot(1)
        node = pod["spec"]["nodeName"]
        rank = pods.inner_pid(world.ranks(pod)[0])
        agents.gpus[node].faults({"set": {"3": {"processes": 1, "first_pid": rank}}})
        whose = f'pod="{pod["metadata"]["name"]}",namespace="{world.namespace}",container="train",job="{job.name}"'

        def lines():
            page = world.page(world.agents()[node], 9400, "/metrics")
            return [line for line in page.splitlines() if line.startswith("DCGM_FI_DEV_GPU_TEMP{") and whose in line]

        found = until(f"a GPU with {whose}", lines, 60, 1)
        world.check(len(found) == 1 and 'gpu="3"' in found[0], f"of the job are: {found}")
        agents.gpus[node].faults({})
        until("the GPU to be nobody's again", lambda: not lines(), 60, 1)
        job.delete()


@scenario(seconds=900)
def hyperpods_word_about_a_node_is_heeded(world):
    with Agents(world):
        job = world.job("hyperpod", steps=100000).apply()
        job.wait_step(60)
        node = job.node_of_slot(1).name
        world.cluster.kubectl("label", "node", node, "--overwrite", f"{HYPERPOD}=Schedulable")
        job.wait_step(job.last()["step"] + 60)
        world.check(not job.recoveries(), f"'Schedulable' disturbed training: {job.recoveries()}")
        begin = job.mark()
        world.cluster.kubectl("label", "node", node, "--overwrite", f"{HYPERPOD}=UnschedulablePendingReplacement")
        seconds, line = job.wait_next_step(begin)
        world.measure("HyperPod is going to replace a node: from the label to the next step elsewhere", seconds, 30)
        world.check(line["step"] > job.marked_step, f"steps were lost: {job.marked_step} was done, {line['step']} is the next")
        world.check(job.node_of_slot(1).name != node, f"slot 1 is still on {node}")
        until("the quarantine", lambda: tainted(world, node) and cordoned(world, node), 60, 0.2)
        rules = until("the verdict", lambda: [(verdict["rule"], verdict["action"]) for verdict in verdicts(world, node)], 10, 0.2)
        world.check(rules == [("hyperpod-pending-replacement", "Replace")], f"the verdicts are {rules}")
        until("no pod of the job to be there", lambda: all(pod["spec"].get("nodeName") != node for pod in job.pods()), 60, 0.5)
        world.check(job.recoveries()[0]["cause"] == "Planned", f"the recovery was {job.recoveries()[0]}")
        # HyperPod has done its work.
        world.cluster.kubectl("label", "node", node, "--overwrite", f"{HYPERPOD}=Schedulable")
        until("the quarantine's end", lambda: not tainted(world, node) and not cordoned(world, node), 180, 0.5)
        until("a spare on the node", lambda: any(pod["spec"].get("nodeName") == node for pod in job.pods()), 60, 0.5)
        world.check(len(job.recoveries()) == 1, f"the recoveries were {job.recoveries()}")
        job.delete()


def checks(world, node):
    return world.node_healths().get(node, {}).get("status", {}).get("checks", [])


@scenario(seconds=900)
def deep_checks_run_in_pods_and_what_they_can_not_tell_condemns_nobody(world):
    with Agents(world) as agents:
        node = sorted(agents.gpus)[0]
        # Asked for by a person, on a node without GPUs: its disk is checked.
        world.cluster.kubectl("annotate", "nodehealth", world.node_healths()[node]["metadata"]["name"], "pitcrew.dev/request-check=c-1")
        found = until("the check's result", lambda: checks(world, node), 180, 0.5)
        world.check([(c["id"], c["test"], c["outcome"]) for c in found] == [("c-1", "disk", "Passed")], f"the results are {found}")
        # Due after a fault, on a node with GPUs: their driver isn't there, so nothing is known of them.
        world.cluster.kubectl("patch", "node", node, "--subresource=status", "--type=merge", "-p", '{"status": {"capacity": {"nvidia.com/gpu": "8"}}}')
        try:
            agents.gpus[node].xid(79, words="GPU has fallen off the bus.")
            until("the cordon", lambda: cordoned(world, node), 30, 0.1)
            until("the node to be good again", lambda: not cordoned(world, node) and not tainted(world, node), 120, 0.5)
            found = until("the result of the check that is due", lambda: [c for c in checks(world, node) if c["id"].startswith("after-fault-")], 180, 0.5)
            outcomes = {c["test"]: c["outcome"] for c in found}
            world.check(outcomes == {"gpu": "Unknown", "disk": "Passed"}, f"the results are {found}")
            time.sleep(30)  # the agent reads its NodeHealth every ten seconds here
            world.check(not cordoned(world, node) and condition(world, node)["status"] == "True", f"it is {condition(world, node)}")
            until("the check's pod to be gone", lambda: not world.pods("app.kubernetes.io/component=check", SYSTEM), 60, 0.5)
        finally:
            patch = '[{"op": "remove", "path": "/status/capacity/nvidia.com~1gpu"}]'
            world.cluster.kubectl("patch", "node", node, "--subresource=status", "--type=json", "-p", patch)
