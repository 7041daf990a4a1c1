"""What is measured in: etcd, API server, controller-manager, scheduler and kwok on this machine, without root and on free ports."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from api import Api
from harness import gobuild, simulated
from harness.config import Failed
from harness.control_plane import ControlPlane, Ports
from harness.process import Daemons, say, until
from harness.standalone import free_ports

PROGRAMS = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kwok", "helm"]
STAGES = Path(__file__).with_name("stages.yaml")
TICKS = os.sysconf("SC_CLK_TCK")


class Lab:
    """A context: everything in it ends with it."""

    def __init__(self, nodes, keep=None):
        gobuild.build(PROGRAMS)
        self.nodes = nodes
        self.keep = Path(keep) if keep else None  # where logs go at the end
        self.state = Path(tempfile.mkdtemp(prefix="pitcrew-bench-"))
        self.daemons = Daemons(self.state, bound=True)
        self.control = ControlPlane(self.state, self.daemons, ports=Ports(*free_ports(3)))
        self.api = None

    def __enter__(self):
        try:
            self.control.create()
            self.prepare()
            # kwok renews a node's lease too seldom for the default of 50 s, and no node fails here.
            self.control.start(manager=["--node-monitor-grace-period=1h"])
            self.api = Api(self.control)
            self._make_nodes()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for name in reversed(self.daemons.names()):
            self.daemons.stop(name)
        if self.keep:
            shutil.copytree(self.daemons.logs, self.keep, dirs_exist_ok=True)
        shutil.rmtree(self.state, ignore_errors=True)

    def prepare(self):
        """Before the API server starts, when its certificates are there: for labs that change something of it."""

    def _make_nodes(self):
        simulated.start_kwok(self.daemons, self.control.kubeconfig, STAGES)
        for node in simulated.nodes(self.nodes):
            self.api.create("/api/v1/nodes", node)
        until("the simulated nodes", self._nodes_are_ready, 120, 0.5)
        say(f"{self.nodes} simulated nodes are Ready (Kubernetes {gobuild.KUBERNETES})")

    def _nodes_are_ready(self):
        """Ready, and without the taint that new nodes carry."""
        items = self.api.get("/api/v1/nodes")["items"]
        ready = [n for n in items if any(c["type"] == "Ready" and c["status"] == "True" for c in n["status"].get("conditions", []))
                 and not n["spec"].get("taints")]
        return len(ready) == self.nodes

    def kubectl(self, *words, text=None):
        return self.tool("kubectl", *words, text=text)

    def tool(self, name, *words, text=None):
        environment = dict(os.environ, KUBECONFIG=self.control.kubeconfig, HOME=str(self.state))
        done = subprocess.run([gobuild.program(name), *map(str, words)], input=text, capture_output=True, text=True, timeout=120,
                              env=environment)
        if done.returncode != 0:
            raise Failed(f"'{name} {' '.join(map(str, words))}' failed: {done.stderr.strip()}")
        return done.stdout

    def namespace(self, name):
        if not self.api.get(f"/api/v1/namespaces/{name}"):
            self.api.create("/api/v1/namespaces", {"metadata": {"name": name}})
        until(f"the service account of namespace {name}", lambda: self.api.get(f"/api/v1/namespaces/{name}/serviceaccounts/default"), 60)

    def crd(self, name):
        """Waits until the API server serves a CustomResourceDefinition."""
        def served():
            found = self.api.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}") or {}
            return any(c["type"] == "Established" and c["status"] == "True" for c in found.get("status", {}).get("conditions") or [])

        until(f"the type {name}", served, 60)

    def service_account(self, ns, name, cluster_admin=False):
        """A kubeconfig for a service account: what a controller in a pod has, so that the API server treats it as one."""
        path = f"/api/v1/namespaces/{ns}/serviceaccounts"
        if not self.api.get(f"{path}/{name}"):
            self.api.create(path, {"metadata": {"name": name}})
        if cluster_admin:
            self.api.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", {
                "metadata": {"name": f"bench-{name}"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
                "subjects": [{"kind": "ServiceAccount", "namespace": ns, "name": name}]})
        token = self.api.create(f"{path}/{name}/token", {"spec": {"expirationSeconds": 86400}})["status"]["token"]
        config = json.loads(Path(self.control.kubeconfig).read_text())
        config["users"] = [{"name": "admin", "user": {"token": token}}]
        file = self.state / f"{name}.kubeconfig"
        file.write_text(json.dumps(config))
        file.chmod(0o600)
        return file

    # What it costs.

    def count_requests_of(self, name, ns, account, level):
        """From now on the API server counts this service account's requests apart. level: the priority level that they have anyway."""
        self.api.create("/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas", {
            "metadata": {"name": f"bench-{name}"},
            "spec": {"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": 500,
                     "distinguisherMethod": {"type": "ByUser"},
                     "rules": [{"subjects": [{"kind": "ServiceAccount", "serviceAccount": {"namespace": ns, "name": account}}],
                                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": True,
                                                   "namespaces": ["*"]}]}]}})

    def requests(self):
        """Requests so far, by the names of count_requests_of()."""
        counts = {}
        text = self.api.call("GET", "/metrics")
        for line in text.splitlines():
            if line.startswith("apiserver_flowcontrol_dispatched_requests_total{"):
                schema = re.search(r'flow_schema="bench-([^"]+)"', line)
                if schema:
                    counts[schema[1]] = counts.get(schema[1], 0) + int(float(line.rsplit(" ", 1)[1]))
        return counts

    def cpu(self):
        """Seconds of processor time so far, by daemon."""
        seconds = {}
        for name in self.daemons.names():
            pid = self.daemons.pid(name)
            if pid:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                seconds[name] = (int(fields[11]) + int(fields[12])) / TICKS
        return seconds

    def memory(self, name):
        """(now, at most) resident MB of a daemon."""
        pid = self.daemons.pid(name)
        return memory_of(pid) if pid else (0, 0)


def memory_of(pid):
    """(now, at most) resident MB of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return tuple(int(re.search(rf"{key}:\s+(\d+)", status)[1]) / 1024 for key in ("VmRSS", "VmHWM"))
