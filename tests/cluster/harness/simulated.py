"""Nodes that nobody runs: kwok plays their kubelets, with 8 GPUs each and pods that run until something ends them."""

from pathlib import Path

from .gobuild import program

LABEL = "pitcrew.test/simulated"
SIZE = {"cpu": "192", "memory": "2000Gi", "pods": "110", "nvidia.com/gpu": "8", "vpc.amazonaws.com/efa": "32"}


def nodes(count):
    """The objects of nodes sim-1, sim-2, …"""
    names = [f"sim-{number}" for number in range(1, count + 1)]
    return [{"apiVersion": "v1", "kind": "Node", "status": {"allocatable": SIZE, "capacity": SIZE},
             "metadata": {"name": name, "labels": {LABEL: "true", "kubernetes.io/hostname": name},
                          "annotations": {"kwok.x-k8s.io/node": "fake"}}} for name in names]


def start_kwok(daemons, kubeconfig, *more_stages):
    """kwok as a daemon of that name. more_stages: files with stages beside its own.

    It renews leases after a quarter of their duration; a node is NotReady after 50 s without.
    """
    stages = [Path(program("kwok")).with_name("stages.yaml"), *more_stages]
    daemons.start("kwok", [program("kwok"), "--kubeconfig", kubeconfig, *(f"--config={file}" for file in stages),
                           "--node-lease-duration-seconds=100", f"--manage-nodes-with-label-selector={LABEL}=true"])
