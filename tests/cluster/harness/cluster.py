"""One cluster: a control plane's machine, nodes, and the wires between them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from . import gobuild, simulated, system
from .config import ROOT, STATE, Failed
from .control_plane import ControlPlane
from .gobuild import program
from .machine import Machine
from .node import PAUSE, Node
from .process import Daemons, quiet, say, until
from .switch import BRIDGE_ADDRESS, HostWire, Switch

sys.path.insert(0, str(ROOT / "scripts"))
import oci  # noqa: E402

REGISTRY_PORT = 5000
_PAUSE_SOURCE = """
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void quit(int) { _exit(0); }
static void reap(int) { while (waitpid(-1, 0, WNOHANG) > 0); }
int main() { signal(SIGINT, quit); signal(SIGTERM, quit); signal(SIGCHLD, reap); for (;;) pause(); }
"""


class Cluster:
    DNS = "10.96.0.10"

    def __init__(self, state=STATE):
        self.state = Path(state)
        self.daemons = Daemons(self.state)
        self.host = Machine("control", self.state / "control", self.daemons)  # where the control plane runs
        self.switch = Switch(self.host)
        self.registry = f"{BRIDGE_ADDRESS}:{REGISTRY_PORT}"  # as the nodes call it
        self._facts = self.state / "cluster.json"
        self.wire = HostWire(self.host, self._fact("wire", HostWire.BLOCKS[0][:-3] + "/30"))
        self.control = self._control()

    # Coming and going.

    def up(self, nodes=3, simulated=0):
        system.require_nodes()
        gobuild.build()
        if self.is_up():
            raise Failed(f"a cluster is up in {self.state}: end it with tests/cluster/cluster down")
        self.down()  # what a run that was killed may have left
        try:
            self._start(nodes, simulated)
        except BaseException:
            self.down()
            raise

    def _start(self, nodes, simulated_nodes):
        self.state.mkdir(parents=True)
        self._remember(wire=HostWire.free_network(), nodes=nodes, simulated=simulated_nodes)
        self.wire = HostWire(self.host, self._fact("wire", HostWire.BLOCKS[0][:-3] + "/30"))
        self.control = self._control()
        (self.state / "shared").mkdir()
        (self.state / "shared").chmod(0o777)
        self.host.power_on()
        self.switch.create()
        self.wire.create()
        self.control.create()
        self.control.start()
        self.host.start("registry", [program("crane"), "registry", "serve", f"--address=0.0.0.0:{REGISTRY_PORT}"])
        say(f"the control plane is up ({gobuild.KUBERNETES})")
        for node in self.nodes():
            node.boot()
        self._name_service()
        if simulated_nodes:
            self._simulated_nodes(simulated_nodes)
        until("the default service account", lambda: self.control.object("/api/v1/namespaces/default/serviceaccounts/default"), 60)
        for node in self.nodes():
            node.wait_ready()
        say(f"{nodes} nodes are Ready" + (f", and {simulated_nodes} simulated ones" if simulated_nodes else ""))

    def down(self):
        if not self.state.exists():
            return
        for node in self.nodes():
            node.cut_power(pull_wire=False)
        self.daemons.stop("kwok", signal.SIGKILL)
        self.wire.remove()
        self.host.power_off()
        for name in self.daemons.names():
            self.daemons.stop(name, signal.SIGKILL)
        system.remove_cgroup(f"/{self.state.name}")
        shutil.rmtree(self.state)

    def is_up(self):
        return self.host.is_on()

    def nodes(self):
        return [Node(number, self) for number in range(1, self._fact("nodes", 0) + 1)]

    def node(self, name):
        for node in self.nodes():
            if node.name == name:
                return node
        raise Failed(f"there is no node {name}; there are {' '.join(n.name for n in self.nodes())}")

    # Talking to it.

    def environment(self):
        return dict(os.environ, KUBECONFIG=self.control.kubeconfig, PATH=f"{self.program_path()}:{os.environ['PATH']}",
                    HELM_CACHE_HOME=str(self.state / "helm"), HELM_CONFIG_HOME=str(self.state / "helm"), HELM_DATA_HOME=str(self.state / "helm"))

    def kubectl(self, *words, text=None, check=True, seconds=120):
        return self._tool([program("kubectl"), *words], text, check, seconds)

    def helm(self, *words, check=True, seconds=180):
        return self._tool([program("helm"), *words], None, check, seconds)

    def program_path(self):
        return ":".join(str(c.folder()) for c in gobuild.COMPONENTS.values())

    def push(self, archive, name):
        """Puts an OCI archive into the cluster's registry. Returns the name that the nodes know it by."""
        with tempfile.TemporaryDirectory() as layout:
            quiet("tar", "-xf", archive, "-C", layout)
            quiet(program("crane"), "push", "--insecure", layout, f"{self.wire.inside}:{REGISTRY_PORT}/{name}")
        return f"{self.registry}/{name}"

    def pause_image(self):
        path = self.state / "pause.tar"
        if not path.exists():
            with tempfile.TemporaryDirectory() as folder:
                quiet("g++", "-x", "c++", "-O1", "-static", "-o", f"{folder}/pause", "-", text=_PAUSE_SOURCE)
                layer = oci.Layer()
                layer.file("/pause", f"{folder}/pause", 0o755)
                oci.write(oci.Image([layer], entrypoint=["/pause"]), PAUSE, path)
        return path

    # What else can go wrong; nodes and wires have their own.

    def restart_etcd(self):
        self.control.stop_program("etcd")
        self.control.start_etcd()

    def stop_apiserver(self):
        self.control.stop_program("kube-apiserver")

    def start_apiserver(self):
        self.control.start_apiserver()

    def rotate_token_key(self, begin):
        """begin: from now on another key signs tokens, and both are believed. Then, without: the old one is believed no more."""
        (self.control.pki.add_token_key if begin else self.control.pki.keep_newest_token_key)()
        self.stop_apiserver()
        self.start_apiserver()

    # Inside.

    def _control(self):
        return ControlPlane(self.state, self.daemons, address=BRIDGE_ADDRESS, outside=self.wire.inside, machine=self.host)

    def _tool(self, words, text, check, seconds):
        try:
            done = subprocess.run([str(word) for word in words], input=text, capture_output=True, text=True, timeout=seconds, env=self.environment())
        except subprocess.TimeoutExpired as error:
            raise Failed(f"'{' '.join(map(str, words[1:]))}' took more than {seconds} s") from error
        if check and done.returncode != 0:
            raise Failed(f"'{Path(words[0]).name} {' '.join(map(str, words[1:]))}' failed: {done.stderr.strip()}")
        return done.stdout if check else done

    def _name_service(self):
        """CoreDNS beside the control plane, behind the service address that pods are told."""
        corefile = self.state / "Corefile"
        corefile.write_text(f"""
.:53 {{
  bind {BRIDGE_ADDRESS}
  errors
  kubernetes cluster.local in-addr.arpa ip6.arpa {{
    kubeconfig {self.state}/coredns.kubeconfig
    ttl 1
  }}
}}
""")
        self.host.start("coredns", [program("coredns"), "-conf", corefile])
        ports = [{"name": "dns", "protocol": "UDP", "port": 53}, {"name": "dns-tcp", "protocol": "TCP", "port": 53}]
        service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "kube-dns", "namespace": "kube-system"},
                   "spec": {"clusterIP": self.DNS, "ports": ports}}
        behind = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                  "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {"kubernetes.io/service-name": "kube-dns"}},
                  "addressType": "IPv4", "ports": ports, "endpoints": [{"addresses": [BRIDGE_ADDRESS]}]}
        self.kubectl("apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": [service, behind]}))

    def _simulated_nodes(self, count):
        simulated.start_kwok(self.daemons, self.control.kubeconfig)
        self.kubectl("create", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": simulated.nodes(count)}))

    def _fact(self, name, default):
        try:
            return json.loads(self._facts.read_text()).get(name, default)
        except OSError:
            return default

    def _remember(self, **facts):
        self._facts.write_text(json.dumps(facts))
