"""What one wants to see after a failure, in one folder."""

import shutil
from pathlib import Path

from .process import say

_OBJECTS = "pods,nodes,services,endpointslices,leases,persistentvolumeclaims,poddisruptionbudgets,configmaps,deployments"


def dump(cluster, folder):
    """Objects, events, descriptions, the logs of all containers with their former lives, and of the cluster's own
    programs. Whatever can't be had is left out: this runs when something is broken."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _keep(cluster, folder / "objects.yaml", "get", _OBJECTS, "-A", "-o", "yaml")
    _keep(cluster, folder / "jobs.yaml", "get", "trainingjobs.pitcrew.dev", "-A", "-o", "yaml")
    _keep(cluster, folder / "overview.txt", "get", "pods,nodes", "-A", "-o", "wide")
    _keep(cluster, folder / "events.txt", "get", "events", "-A", "--sort-by=.metadata.creationTimestamp", "-o", "wide")
    _keep(cluster, folder / "describe.txt", "describe", "pods", "-A")
    for pod in (cluster.control.object("/api/v1/pods") or {}).get("items", []):
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        if not any(node.name == pod["spec"].get("nodeName") and node.machine.is_on() for node in cluster.nodes()):
            continue  # its kubelet would be waited for in vain
        for container in pod["spec"].get("initContainers", []) + pod["spec"]["containers"]:
            words = ["logs", "-n", namespace, name, "-c", container["name"], "--timestamps"]
            _keep(cluster, folder / f"{namespace}.{name}.{container['name']}.log", *words)
            _keep(cluster, folder / f"{namespace}.{name}.{container['name']}.before.log", *words, "--previous")
    shutil.copytree(cluster.daemons.logs, folder / "daemons", dirs_exist_ok=True)
    say(f"what there is to know is in {folder}")


def _keep(cluster, file, *words):
    try:
        done = cluster.kubectl(*words, "--request-timeout=10s", check=False, seconds=20)
    except Exception as error:  # noqa: BLE001: whatever it is, the rest is still worth having
        file.write_text(f"{error}\n")
        return
    if done.stdout:
        file.write_text(done.stdout)
