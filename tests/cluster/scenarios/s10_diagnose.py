"""Broken situations of every kind: `pitcrew diagnose` names the cause of each first, and its last line leads on."""

from harness import foreign
from harness.scenario import scenario
from harness.situations import Group, bare, name_all

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
