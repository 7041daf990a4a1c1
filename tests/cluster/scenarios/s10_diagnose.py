"""Broken situations of every kind: `pitcrew diagnose` names the cause of each first, and its last line leads on."""

import json
import shutil
import signal
import subprocess
from datetime import datetime, timezone

from harness import foreign
from harness.config import ROOT
from harness.process import until
from harness.scenario import scenario
from harness.situations import Group, bare, name_all, training
from harness.world import SYSTEM

from scenarios.s8_agent import Agents

starting = Group()


# Pods that can't start: each has a job of its own, all at once.


@starting.situation("the image's tag is not in its registry", "ImageNotFound", "does not exist in its registry")
def image_missing(world, name):
    return bare(world, name, image=f"{world.cluster.registry}/team/none:v9").apply()


@starting.situation("the registry can't be reached", "RegistryUnreachable", seconds=90)
def registry_unreachable(world, name):
    return bare(world, name, image=f"{world.cluster.registry.rpartition(':')[0]}:5999/team/none:v9").apply()


@starting.situation("the image's name is none", "ImageNameInvalid")
def image_name_invalid(world, name):
    return bare(world, name, image="Team/Model:v9").apply()


@starting.situation("the image must be on the node, and isn't", "ImageNotOnNode", "imagePullPolicy: Never")
def image_never_pulled(world, name):
    return bare(world, name, image=f"{world.cluster.registry}/team/none:v9", container={"imagePullPolicy": "Never"}).apply()


@starting.situation("the image runs as root, which the template forbids", "RunsAsRoot", "runAsUser")
def image_runs_as_root(world, name):
    secure = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    return bare(world, name, image=debian(world), command=["/bin/sh", "-c", "sleep 600"], pod={"securityContext": secure}).apply()


@starting.situation("a Secret of the environment is missing", "ConfigMissing", 'secret "comet" not found')
def secret_missing(world, name):
    key = {"secretKeyRef": {"name": "comet", "key": "token"}}
    return bare(world, name, container={"env": [{"name": "TOKEN", "valueFrom": key}]}).apply()


@starting.situation("a Secret lacks the key that the environment names", "ConfigMissing", "couldn't find key token")
def secret_without_the_key(world, name):
    world.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mlflow", "namespace": world.namespace}, "stringData": {"password": "x"}})
    key = {"secretKeyRef": {"name": "mlflow", "key": "token"}}
    return bare(world, name, container={"env": [{"name": "TOKEN", "valueFrom": key}]}).apply()


@starting.situation("a ConfigMap that a volume shows is missing", "VolumeSourceMissing", 'configmap "recipe" not found')
def config_volume_missing(world, name):
    volume = {"name": "recipe", "configMap": {"name": "recipe"}}
    return bare(world, name, container={"volumeMounts": [{"name": "recipe", "mountPath": "/recipe"}]}, pod={"volumes": [volume]}).apply()


def with_claim(world, name, claim):
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": claim}}
    return bare(world, name, container={"volumeMounts": [{"name": "data", "mountPath": "/data"}]}, pod={"volumes": [volume]}).apply()


@starting.situation("a claim does not exist", "ClaimMissing", "The PersistentVolumeClaim fsx does not exist")
def claim_missing(world, name):
    return with_claim(world, name, "fsx")


@starting.situation("a claim's storage class does not exist", "ClaimNotBound", 'storageclass.storage.k8s.io "fsx-lustre" not found')
def claim_not_bound(world, name):
    spec = {"accessModes": ["ReadWriteMany"], "storageClassName": "fsx-lustre", "resources": {"requests": {"storage": "1Gi"}}}
    world.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "unbound", "namespace": world.namespace}, "spec": spec})
    return with_claim(world, name, "unbound")


@starting.situation("a volume can't be mounted", "VolumeNotMounted", "not a directory", seconds=90)
def volume_not_mounted(world, name):
    world.share_folder("gone", world.shared / "never-made")
    return with_claim(world, name, "gone")


@starting.situation("the command is not in the image", "CommandMissing", "no-such-program")
def command_missing(world, name):
    return bare(world, name, command=["no-such-program", "--fast"]).apply()


def with_init(world, name, text, image=None, **options):
    """A job whose init container `fetch` runs a shell script before everything else."""
    secure = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    fetch = {"name": "fetch", "image": image or debian(world), "command": ["/bin/sh", "-c", text], "securityContext": secure}
    return bare(world, name, pod={"initContainers": [fetch]}, **options).apply()


@starting.situation("an init container fails again and again", "InitContainerFails", "it said: vocab.json: no such bucket")
def init_container_fails(world, name):
    return with_init(world, name, "echo 'vocab.json: no such bucket'; exit 2")


@starting.situation("an init container takes long, and everything waits for it", "InitContainerRuns", "it said: copied 12 of 400 GB", seconds=120)
def init_container_runs(world, name):
    return with_init(world, name, "echo 'copied 12 of 400 GB'; sleep 600")


@starting.situation("an init container's image does not exist", "ImageNotFound", "of init container fetch does not exist")
def init_container_image(world, name):
    return with_init(world, name, "true", image=f"{world.cluster.registry}/team/fetch:v9")


@starting.situation("the service account does not exist", "ServiceAccountMissing")
def service_account_missing(world, name):
    return bare(world, name, pod={"serviceAccountName": "nobody"}).apply()


@starting.situation("the priority class does not exist", "PriorityClassMissing")
def priority_class_missing(world, name):
    return bare(world, name, spec={"placement": {"priorityClassName": "urgent"}}).apply()


@starting.situation("Pod Security 'restricted' refuses the template", "PodSecurity", "allowPrivilegeEscalation")
def pod_security(world, name):
    return bare(world, name, container={"securityContext": {"allowPrivilegeEscalation": True}}).apply()


@starting.situation("no node has the labels of nodeSelector", "SelectorMatchesNoNode", "nodeSelector accelerator=h200: no node has it")
def selector_matches_nothing(world, name):
    return bare(world, name, pod={"nodeSelector": {"accelerator": "h200"}}).apply()


@starting.situation("no node has a GPU", "ResourceNotOffered", "No node offers nvidia.com/gpu")
def too_few_gpus(world, name):
    return bare(world, name, requests={"nvidia.com/gpu": "8"}).apply()


@starting.situation("no node has so much memory", "PodTooLarge", "memory, the largest node has")
def too_little_memory(world, name):
    return bare(world, name, requests={"memory": "4Ti"}).apply()


@starting.situation("no node has so many processors", "PodTooLarge", "400 cpu, the largest node has")
def too_few_processors(world, name):
    return bare(world, name, requests={"cpu": "400"}).apply()


@starting.situation("the job is suspended", "Suspended")
def suspended(world, name):
    return bare(world, name, spec={"lifecycle": {"suspend": True}}).apply()


@scenario(seconds=600)
def diagnose_says_why_pods_do_not_start(world):
    name_all(world, starting, together=True)


@scenario(quick=True, seconds=240)
def diagnose_names_three_causes(world):
    quick = ("image-missing", "too-few-gpus", "claim-missing")
    name_all(world, [one for one in starting if one.name in quick], together=True)


def debian(world):
    return world.push_image(world.cluster, "debian-12", lambda path: foreign.debian(12, path))


# Programs that fail: what they leave behind is real, exit codes, last lines, the kernel's and the file system's answers.

failing = Group()

# The one of them that is nothing without the machine to itself: beside a dozen jobs on its node rank 0 is slow as well, and is named.
alone = Group()


def script(world, name, text, python=False, **options):
    """A job that runs a shell script, or a Python program."""
    return bare(world, name, image=with_python(world) if python else debian(world),
                command=["python3", "-c", text] if python else ["/bin/sh", "-c", text], **options).apply()


@failing.situation("the trainer's configuration is wrong (exit code 64)", "ProgramAtFault", "data: is missing")
def bad_configuration(world, name):
    job = training(world, name)
    (job.folder / "train.yaml").write_text('{"steps": 10}')
    return job.apply()


@failing.situation("the data are not there (exit code 65)", "ProgramAtFault", "no text files are left")
def bad_data(world, name):
    job = training(world, name)
    train = json.loads((job.folder / "train.yaml").read_text())
    (job.folder / "empty").mkdir()
    (job.folder / "train.yaml").write_text(json.dumps({**train, "data": {"text": {"paths": [f"/shared/{name}/empty"]}}}))
    return job.apply()


@failing.situation("the program ends again and again", "FailsOften", "tensor of shape", seconds=120)
def crashes(world, name):
    return script(world, name, "sleep 2; echo 'fatal: tensor of shape 7, 9'; exit 3")


@failing.situation("restarted too often", "RestartLimitReached", "2 × RankCrash", seconds=120)
def restart_limit(world, name):
    return script(world, name, "sleep 1; exit 3", spec={"recovery": {"limit": {"restarts": 1, "window": "1h"}}})


@failing.situation("a Python module is missing", "ModuleMissing", "No module named 'flash_attn'")
def module_missing(world, name):
    return script(world, name, "import flash_attn", python=True)


@failing.situation("a Python exception, on every node alike", "ProgramAtFault", "ValueError: bad shape")
def python_exception(world, name):
    return script(world, name, "raise ValueError('bad shape')", python=True)


@failing.situation("a file is missing", "FileMissing", "/data/vocab.json")
def file_missing(world, name):
    return script(world, name, "open('/data/vocab.json')", python=True)


@failing.situation("more memory than the container's limit", "OutOfMemory", seconds=90)
def out_of_memory(world, name):
    return script(world, name, "import time\ntime.sleep(1)\nx = bytearray(2 << 30)\ntime.sleep(600)", python=True)


@failing.situation("the checkpoint folder may not be written", "PermissionDenied", "/shared/")
def not_writable(world, name):
    job = training(world, name)
    (job.folder / "locked").mkdir(mode=0o555)
    job.manifest["spec"]["checkpoint"]["path"] = f"/shared/{name}/locked/checkpoints"
    return job.apply()


@failing.situation("the checkpoint volume is mounted read-only", "ReadOnly", "/shared/")
def read_only(world, name):
    return training(world, name, container={"volumeMounts": [{"name": "shared", "mountPath": "/shared", "readOnly": True}]}).apply()


@failing.situation("the checkpoint disk is full", "SaveFails", "No space left on device", seconds=180)
def disk_full(world, name):
    disk = world.shared / "disk"
    disk.mkdir()
    world.share_folder("disk", disk)
    for node in world.cluster.nodes():
        node.machine.do("mount", "-t", "tmpfs", "-o", "size=300k,mode=777", "tmpfs", disk)
    job = training(world, name, durable_every=5, container={"volumeMounts": [{"name": "shared", "mountPath": "/shared"}, {"name": "disk", "mountPath": "/disk"}]})
    job.manifest["spec"]["template"]["spec"]["volumes"].append({"name": "disk", "persistentVolumeClaim": {"claimName": "disk"}})
    job.manifest["spec"]["checkpoint"]["path"] = "/disk/checkpoints"
    yield job.apply()
    job.delete()
    for node in world.cluster.nodes():
        node.machine.do("umount", "--lazy", disk)


@failing.situation("another living job holds the checkpoint folder", "CheckpointClaimed", "holder", seconds=120)
def claimed(world, name):
    holder = training(world, "holder").apply()
    holder.wait_step(5)
    job = training(world, name)
    job.manifest["spec"]["checkpoint"]["path"] = holder.manifest["spec"]["checkpoint"]["path"]
    yield job.apply()
    holder.delete(wait=False)


@failing.situation("the loss is not a number", "NotANumber", "look at samples", seconds=120)
def not_a_number(world, name):
    job = training(world, name)
    train = json.loads((job.folder / "train.yaml").read_text())
    (job.folder / "train.yaml").write_text(json.dumps({**train, "optimizer": {"learningRate": 1e30}, "schedule": {"warmup": 0}}))
    return job.apply()


@failing.situation("a rank hangs", "Hanging", "wait for rank 1", seconds=150)
def hangs(world, name):
    job = training(world, name, replicas=2, spec={"monitoring": {"progress": {"stallAfter": "10m"}}}).apply()
    job.wait_step(30)
    world.kill(world.ranks(job.pod_of_slot(1))[0], signal.SIGSTOP)
    return job


@failing.situation("it hangs again and again, at another step each time", "HangsOften", "× Hang within the last hour", seconds=240)
def hangs_again(world, name):
    # At the same step again a launcher would give it more time than before: it could be a step that takes long.
    program = f"""
import os, sys, time
sys.path.insert(0, '/shared')
import pitcrew_progress
with open('/shared/{name}/starts', 'a') as file:
    file.write('.')
progress = pitcrew_progress.Progress()
progress.totals(100000)
progress.phase(pitcrew_progress.TRAINING)
for step in range(20 + 7 * os.path.getsize('/shared/{name}/starts')):
    time.sleep(0.1)
    progress.step_done(step + 1, loss=1.0)
time.sleep(3600)   # a lock that nobody lets go of
"""
    spec = {"monitoring": {"progress": {"stallAfter": "10s"}}, "recovery": {"inPlace": {"limit": 10, "window": "1h"}}}
    return on_the_page(world, name, program, spec=spec)


@alone.situation("a rank is slower than the others", "Straggler", "rank 1", seconds=150)
def straggler(world, name):
    job = training(world, name, replicas=2).apply()
    job.wait_step(30)
    rank = world.ranks(job.pod_of_slot(1))[0]
    # Half of the time it does not run, as on a machine that is shared or throttled.
    hold = subprocess.Popen(["sh", "-c", f"while kill -STOP {rank}; do sleep 0.02; kill -CONT {rank}; sleep 0.02; done"], stderr=subprocess.DEVNULL)
    try:
        yield job
    finally:
        hold.kill()
        hold.wait()
        world.kill(rank, signal.SIGCONT)


@failing.situation("its time to start is over", "StartDeadlineExceeded", "ImagePull", seconds=90)
def start_deadline(world, name):
    # Long enough for the launcher's own image, which nodes pull first.
    return bare(world, name, image=f"{world.cluster.registry}/team/none:v9", spec={"lifecycle": {"startDeadline": "30s"}}).apply()


@failing.situation("its time is over", "DeadlineExceeded", seconds=150)
def deadline(world, name):
    return training(world, name, spec={"lifecycle": {"activeDeadline": "1m", "warnBefore": "50s"}}).apply()


def on_the_page(world, name, program, **options):
    """A Python program that uses the progress page."""
    shutil.copy(ROOT / "examples/pitcrew_progress.py", world.shared)
    return training(world, name, image=with_python(world), command=["python3", "-c", program], **options).apply()


@failing.situation("ranks wait for data", "DataWait", seconds=120)
def data_wait(world, name):
    program = """
import sys, time
sys.path.insert(0, '/shared')
import pitcrew_progress
progress = pitcrew_progress.Progress()
progress.totals(100000)
progress.phase(pitcrew_progress.TRAINING)
for step in range(100000):
    begin = time.monotonic()
    time.sleep(0.2)   # a loader without prefetch
    progress.gauge('data_wait_seconds', time.monotonic() - begin)
    time.sleep(0.1)
    progress.step_done(step + 1, loss=1.0)
"""
    return on_the_page(world, name, program)


@scenario(seconds=900)
def diagnose_says_why_programs_fail(world):
    name_all(world, failing, together=True)
    name_all(world, alone, together=False)


def with_python(world):
    return world.push_image(world.cluster, "debian-12-python", lambda path: foreign.debian(12, path, python=True))


# What is wrong around the job: namespace, nodes, the operator, other jobs. One after the other, for they change the cluster.

around = Group()


@around.situation("the namespace's quota is used up", "QuotaExceeded", "the ResourceQuota small leaves 30m")
def quota(world, name):
    world.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small", "namespace": world.namespace},
                 "spec": {"hard": {"requests.cpu": "30m", "requests.memory": "1Gi", "limits.memory": "2Gi"}}})
    until("the quota to be counted", lambda: "requests.cpu" in world.kubectl("get", "resourcequota", "small", "-o", "jsonpath={.status.hard}"), 30)
    yield bare(world, name, replicas=2).apply()
    world.kubectl("delete", "resourcequota", "small")


def limits(world, most):
    world.apply({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "tiny", "namespace": world.namespace},
                 "spec": {"limits": [{"type": "Container", "max": most}]}})


@around.situation("the namespace's LimitRange refuses the pods", "LimitRange", "maximum memory usage per Container is 100Mi")
def limit_range(world, name):
    limits(world, {"memory": "100Mi"})
    yield bare(world, name).apply()
    world.kubectl("delete", "limitrange", "tiny")


@around.situation("a LimitRange sets a limit below what the template asks for", "RequestAboveLimit", "must be less than or equal to cpu limit of 10m")
def limit_that_nobody_wrote(world, name):
    limits(world, {"cpu": "10m"})
    yield bare(world, name).apply()
    world.kubectl("delete", "limitrange", "tiny")


@around.situation("somebody's admission webhook is down", "WebhookRefuses", "sidecars.example.com")
def webhook(world, name):
    world.apply({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration", "metadata": {"name": "sidecars"},
                 "webhooks": [{"name": "sidecars.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail",
                               "clientConfig": {"service": {"namespace": world.namespace, "name": "sidecars", "path": "/"}},
                               "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": world.namespace}},
                               "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]}]})
    yield bare(world, name).apply()
    world.cluster.kubectl("delete", "mutatingwebhookconfiguration", "sidecars")


@around.situation("nodes carry a taint", "TaintsNotTolerated")
def taints(world, name):
    world.cluster.kubectl("taint", "nodes", "--all", "nvidia.com/gpu=present:NoSchedule")
    yield bare(world, name).apply()
    world.cluster.kubectl("taint", "nodes", "--all", "nvidia.com/gpu:NoSchedule-")


@around.situation("nodes are cordoned", "NodesOutOfUse", "cordoned: node-1")
def cordoned(world, name):
    world.cluster.kubectl("cordon", "node-1", "node-2", "node-3")
    yield bare(world, name).apply()
    world.cluster.kubectl("uncordon", "node-1", "node-2", "node-3")


@around.situation("another job holds the room", "NoRoom", "first (3 pods, Running)", seconds=90)
def waits_for_another_job(world, name):
    first = world.job("first", steps=100000).apply()
    first.wait_step(5)
    yield world.job(name, steps=100000).apply()
    first.delete()


@around.situation("the gang is not complete in time", "GangTimeout", "train waits: CreateContainerConfigError", seconds=120)
def gang_timeout(world, name):
    key = {"secretKeyRef": {"name": "comet", "key": "token"}}
    return bare(world, name, container={"env": [{"name": "TOKEN", "valueFrom": key}]}, spec={"placement": {"gangTimeout": "20s"}}).apply()


@around.situation("the gang is not complete in time, for an init container fails", "GangTimeout", "init container fetch failed with exit code 2", seconds=120)
def gang_timeout_in_init(world, name):
    return with_init(world, name, "sleep 1; exit 2", spec={"placement": {"gangTimeout": "20s"}})


def leaving(world, name, taint):
    """The job has no other place to go to, so it trains on where it is until lifecycle.warnBefore is over."""
    job = world.job(name, steps=100000, replicas=3, spares=0).apply()
    job.wait_step(5)
    node = job.node_of_slot(1).name
    world.cluster.kubectl("taint", "node", node, f"{taint}:NoSchedule")
    yield job
    world.cluster.kubectl("taint", "node", node, f"{taint}:NoSchedule-")


@around.situation("Karpenter takes a node of the job away", "NodeLeaving", "taint karpenter.sh/disrupted")
def karpenter_drains(world, name):
    yield from leaving(world, name, "karpenter.sh/disrupted")


@around.situation("a spot node of the job got its notice", "NodeLeaving", "taint aws-node-termination-handler/spot-itn")
def spot_notice(world, name):
    yield from leaving(world, name, "aws-node-termination-handler/spot-itn")


@around.situation("a node loses power, and no other has room", "NodeNotReady", "its kubelet has gone silent", seconds=180)
def node_not_ready(world, name):
    job = world.job(name, steps=100000, replicas=3, spares=0).apply()
    job.wait_step(5)
    leader = world.leader()["spec"]["nodeName"]
    node = next(node for node in world.cluster.nodes() if node.name != leader)
    node.cut_power()
    yield job
    world.heal()


@around.situation("launchers can't reach the operator", "LauncherNotConnected", "NetworkPolicy", seconds=150)
def launchers_cut_off(world, name):
    operators = {pod["spec"]["nodeName"]: pod["status"]["podIP"] for pod in world.operators()}
    node = next(node for node in world.cluster.nodes() if node.name not in operators)
    world.cluster.switch.block(node, list(operators.values()))
    yield bare(world, name, pod={"nodeSelector": {"kubernetes.io/hostname": node.name}}, image=debian(world), command=["/bin/sh", "-c", "sleep 600"]).apply()
    world.cluster.switch.unblock(node)


@around.situation("no operator runs", "NoLeader", "No operator leads", seconds=90)
def operator_down(world, name):
    world.cluster.kubectl("scale", "deployment", "-n", SYSTEM, "--all", "--replicas=0")
    until("the operators to be gone", lambda: not world.operators(), 60)
    yield bare(world, name).apply()
    world.cluster.kubectl("scale", "deployment", "-n", SYSTEM, "--all", "--replicas=2")
    world.cluster.kubectl("rollout", "status", "deployment", "--namespace", SYSTEM, "--timeout=150s", seconds=180)


@around.situation("the operator watches another namespace", "NotLookedAfter", "watchNamespace", seconds=120)
def not_looked_after(world, name):
    world.upgrade(world.cluster, "operator.watchNamespace=default")
    yield bare(world, name).apply()
    world.upgrade(world.cluster)


@scenario(seconds=1500)
def diagnose_says_what_is_wrong_around_a_job(world):
    name_all(world, around, together=False)


# Bad hardware, as the agents see it.

hardware = Group()


@hardware.situation("a GPU falls off the bus, and there is no spare", "NodeFault", "xid-79", seconds=90)
def gpu_off_the_bus(world, name):
    job = world.job(name, steps=100000, replicas=3, spares=0).apply()
    job.wait_step(10)
    world.with_agents.gpus[job.node_of_slot(1).name].xid(79, words="GPU has fallen off the bus.")
    yield job


@hardware.situation("nodes were cordoned lately, and the breaker keeps one more in use", "BreakerOpen", "CordonBudget", seconds=150)
def breaker_open(world, name):
    # Three that were cordoned elsewhere, as their agents would have written them; the first agent that needs the budget makes it.
    budget = {"apiVersion": "pitcrew.dev/v1alpha1", "kind": "CordonBudget", "metadata": {"name": "default"}}
    world.apply({**budget, "spec": {"maxNodes": 3, "maxFraction": 0.2, "window": "5m"}})
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    cordons = {f"gone-{number}": {"nodeUID": f"uid-{number}", "time": now, "fault": "gpu-missing", "certain": False} for number in range(3)}
    world.cluster.kubectl("patch", "cordonbudget", "default", "--subresource=status", "--type=merge", "-p", json.dumps({"status": {"cordons": cordons}}))
    job = world.job(name, steps=100000, replicas=3, spares=0).apply()
    job.wait_step(10)
    gpus = world.with_agents.gpus[job.node_of_slot(1).name]
    gpus.faults({"missing": [7]})
    yield job
    gpus.faults({})


@scenario(seconds=900)
def diagnose_says_which_hardware_is_bad(world):
    with Agents(world) as world.with_agents:
        name_all(world, hardware, together=False)
