"""etcd and kube-apiserver alone, for tests that need no node: no root, random ports, nothing left behind."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from . import gobuild
from .control_plane import ControlPlane, Ports
from .process import Daemons, say


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


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
