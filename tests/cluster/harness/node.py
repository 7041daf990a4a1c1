"""A real node: a machine with containerd, kubelet and kube-proxy."""

import json
import shutil
import signal

from .gobuild import program
from .machine import Machine
from .process import Failed, until

CNI_PLUGINS = "/usr/lib/cni"
PAUSE = "pitcrew.test/pause:1"


class Node:
    """Number n of the cluster is node-<n>, at 10.90.0.<10+n>, with the pods 10.244.<n>.0/24."""

    def __init__(self, number, cluster):
        self.number = number
        self.name = f"node-{number}"
        self.address = f"10.90.0.{10 + number}"
        self.pods = f"10.244.{number}.0/24"
        self.cluster = cluster
        self.machine = Machine(self.name, cluster.state / self.name, cluster.daemons)
        self.disk = self.machine.state / "disk"

    def boot(self):
        """Powers on and starts its daemons; what was on its disk is still there. Does not wait until it is Ready."""
        self.machine.power_on()
        self.machine.make_cgroups()
        self.cluster.switch.plug(self)
        self._configure()
        self._start_containerd()
        self.start_kubelet()
        self.machine.start("kube-proxy", [program("kube-proxy"), "--config", self._file("kube-proxy.yaml")])

    def cut_power(self, pull_wire=True):
        """The wire goes first, so that no packet tells anybody: a power-cut, not a shutdown."""
        if pull_wire:
            self.cluster.switch.pull(self)
        self.machine.power_off()
        for name in (f"{part}@{self.name}" for part in ("kubelet", "kube-proxy", "containerd")):
            self.cluster.daemons.stop(name, signal.SIGKILL)
        self.cluster.switch.unplug(self)

    def erase_disk(self):
        shutil.rmtree(self.disk, ignore_errors=True)

    def start_kubelet(self):
        self.machine.start("kubelet", [
            program("kubelet"), "--config", self._file("kubelet.yaml"), "--kubeconfig", self._file("kubelet.kubeconfig"),
            "--hostname-override", self.name, "--node-ip", self.address, "--root-dir", self.disk / "kubelet",
        ])

    def stop_kubelet(self):
        self.cluster.daemons.stop(f"kubelet@{self.name}", signal.SIGKILL)

    def kubelet_runs(self):
        return self.cluster.daemons.pid(f"kubelet@{self.name}") is not None

    def is_ready(self):
        node = self.cluster.control.object(f"/api/v1/nodes/{self.name}")
        conditions = node["status"].get("conditions", []) if node else []
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def ctr(self, *words):
        return self.machine.do(program("ctr"), "--address", "/run/containerd/containerd.sock", "--namespace", "k8s.io", *words)

    def load(self, archive):
        self.ctr("images", "import", "--no-unpack=false", archive)


    def _file(self, name):
        return self.machine.state / name

    def _configure(self):
        pki = self.cluster.control.pki
        for folder in ("cni", "disk/kubelet", "disk/containerd", "disk/pods", "certs.d"):
            self._file(folder).mkdir(parents=True, exist_ok=True)
        if not self._file("kubelet.kubeconfig").exists():
            pki.issue(self.name, f"/O=system:nodes/CN=system:node:{self.name}", "clientAuth")
            pki.kubeconfig(self._file("kubelet.kubeconfig"), self.cluster.control.inner_url(), self.name)
        self._file("cni/10-bridge.conflist").write_text(json.dumps(self._network()))
        self._file("resolv.conf").write_text("")
        self._registry()
        self._file("containerd.toml").write_text(self._containerd())
        self._file("kubelet.yaml").write_text(json.dumps(self._kubelet()))
        self._file("kube-proxy.yaml").write_text(json.dumps(self._proxy()))

    def _network(self):
        bridge = {
            "type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False, "hairpinMode": True,
            "ipam": {"type": "host-local", "dataDir": "/run/cni-ipam", "ranges": [[{"subnet": self.pods}]],
                     "routes": [{"dst": "0.0.0.0/0"}]},
        }
        ports = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": False}
        return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, ports]}

    def _registry(self):
        """The cluster's registry speaks plain HTTP."""
        folder = self._file("certs.d") / self.cluster.registry
        folder.mkdir(exist_ok=True)
        (folder / "hosts.toml").write_text(f'server = "http://{self.cluster.registry}"\n')

    def _containerd(self):
        # restrict_oom_score_adj: a sandboxed machine may lack the capability to lower oom_score_adj.
        return f"""version = 3
root = "{self.disk}/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["{CNI_PLUGINS}"]
  conf_dir = "{self._file('cni')}"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{PAUSE}"
[plugins.'io.containerd.cri.v1.images'.registry]
  config_path = "{self._file('certs.d')}"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
    BinaryName = "{shutil.which('runc', path='/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin')}"
"""

    def _start_containerd(self):
        path = f"{self.cluster.program_path()}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        self.machine.start("containerd", ["env", f"PATH={path}", program("containerd"), "--config", self._file("containerd.toml")])

        def answers():
            try:
                self.ctr("version")
                return True
            except Failed:
                return False

        self.cluster.daemons.ready(f"containerd@{self.name}", f"containerd of {self.name}", answers, 60)
        if PAUSE not in self.ctr("images", "list", "-q"):
            self.load(self.cluster.pause_image())

    def _kubelet(self):
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self.address,
            "healthzPort": 0,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": False},
                "x509": {"clientCAFile": self.cluster.control.pki.path("ca.crt")},
            },
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self.machine.cgroup(),
            "failSwapOn": False,
            "failCgroupV1": False,
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "podLogsDir": str(self.disk / "pods"),
            "resolvConf": str(self._file("resolv.conf")),
            "clusterDNS": [self.cluster.DNS],
            "clusterDomain": "cluster.local",
            "registerNode": True,
            "imageGCHighThresholdPercent": 100,
            "imageMinimumGCAge": "24h",
            "evictionHard": {"memory.available": "100Mi"},
            "maxPods": 60,
        }

    def _proxy(self):
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "hostnameOverride": self.name,
            "clusterCIDR": "10.244.0.0/16",
            "clientConnection": {"kubeconfig": str(self.cluster.control.inner_kubeconfig("kube-proxy"))},
            "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            "healthzBindAddress": "",
            "metricsBindAddress": "",
        }

    def wait_ready(self, seconds=120):
        until(f"{self.name} to be Ready", self.is_ready, seconds)
