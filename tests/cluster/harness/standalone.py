"""etcd and kube-apiserver alone, for tests that need no node: no root, random ports, nothing left behind."""

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from . import gobuild
from .config import Failed
from .control_plane import ControlPlane, Ports
from .process import Daemons, say


# Below those that connections are given: a client that tries again while its server is away could be given the server's own.
PORTS = range(20000, 32000)


def free_ports(count):
    found = []
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as one:
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise Failed(f"there are no {count} free ports from {PORTS.start} to {PORTS.stop - 1}")


def run(command):
    """Runs the command with KUBECONFIG set and returns its exit code; without one, says where the kubeconfig is and stays
    until SIGINT or SIGTERM. The servers end with this process, however it ends."""
    gobuild.build(["etcd", "kube-apiserver", "kubectl"])
    state = Path(tempfile.mkdtemp(prefix="pitcrew-apiserver-"))
    daemons = Daemons(state, bound=True)
    control = ControlPlane(state, daemons, ports=Ports(*free_ports(3)))
    try:
        control.create()
        control.start(all_programs=False)
        if command:
            path = f"{Path(gobuild.program('kubectl')).parent}:{os.environ['PATH']}"
            return subprocess.call(command, env=dict(os.environ, KUBECONFIG=control.kubeconfig, PATH=path))
        print(control.kubeconfig, flush=True)
        say("the API server is ready; Ctrl-C ends it")
        while True:
            signal.pause()
    finally:
        control.stop()
        shutil.rmtree(state, ignore_errors=True)
