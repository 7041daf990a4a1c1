"""etcd, kube-apiserver and, for a cluster that does something, controller-manager and scheduler."""

import http.client
import json
import shutil
import signal
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path

from .gobuild import program
from .pki import Pki
from .process import quiet

SERVICES = "10.96.0.0/16"
SERVICE_ADDRESS = "10.96.0.1"  # of `kubernetes` in `default`


@dataclass
class Ports:
    api: int = 6443
    etcd: int = 2379
    etcd_peer: int = 2380


class ControlPlane:
    """The control plane of one cluster, at one address.

    machine: where its programs run; without one, here. address: as its own network calls it; outside: the address at which
    this machine reaches the API server.
    """

    def __init__(self, state, daemons, address="127.0.0.1", outside=None, ports=None, machine=None):
        self.state = Path(state)
        self.daemons = daemons
        self.address = address
        self.outside = outside or address
        self.ports = ports or Ports()
        self.machine = machine
        self.pki = Pki(self.state / "pki")
        self.kubeconfig = str(self.state / "admin.kubeconfig")
        self.apiserver_flags = []  # more of them; of two the later one counts

    def create(self):
        self.state.mkdir(parents=True, exist_ok=True)
        self.pki.create()
        names = ["DNS:localhost", "DNS:kubernetes.default.svc", "DNS:kubernetes.default.svc.cluster.local", "IP:127.0.0.1",
                 f"IP:{SERVICE_ADDRESS}"]
        names += [f"IP:{address}" for address in {self.address, self.outside} - {"127.0.0.1"}]
        self.pki.issue("apiserver", "/CN=kube-apiserver", "serverAuth", names)
        self.pki.issue("admin", "/O=system:masters/CN=admin", "clientAuth")
        self.pki.kubeconfig(self.kubeconfig, f"https://{self.outside}:{self.ports.api}", "admin")
        for user in ("kube-controller-manager", "kube-scheduler", "kube-proxy", "coredns"):
            group = {"kube-proxy": "/O=system:node-proxier", "coredns": "/O=system:masters"}.get(user, "")
            self.pki.issue(user, f"{group}/CN=system:{user}", "clientAuth")
            self.pki.kubeconfig(self.inner_kubeconfig(user), self.inner_url(), user)

    def inner_url(self):
        return f"https://{self.address}:{self.ports.api}"

    def inner_kubeconfig(self, user):
        """The kubeconfig of a program that runs in the cluster's own network."""
        return self.state / f"{user}.kubeconfig"

    def start(self, all_programs=True, manager=()):
        """manager: more flags for the controller-manager."""
        self.start_etcd()
        self.start_apiserver(alone=not all_programs)
        if all_programs:
            self.start_controllers(manager)

    def start_etcd(self):
        client = f"http://127.0.0.1:{self.ports.etcd}"
        peer = f"http://127.0.0.1:{self.ports.etcd_peer}"
        self._start("etcd", [
            program("etcd"), "--data-dir", self.state / "etcd", "--unsafe-no-fsync", "--quota-backend-bytes", 8 << 30,
            "--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer,
            "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}", "--log-level", "warn",
        ])

    def back_up_etcd(self, file):
        """A snapshot as `etcdctl snapshot save` takes it, by etcd's HTTP gateway."""
        ask = ("import base64, json, sys, urllib.request\n"
               f"answer = urllib.request.urlopen(urllib.request.Request('http://127.0.0.1:{self.ports.etcd}/v3/maintenance/snapshot', b'{{}}'), timeout=60)\n"
               "with open(sys.argv[1], 'wb') as out:\n"
               "    for line in answer: out.write(base64.b64decode(json.loads(line)['result'].get('blob', '')))")
        words = [sys.executable, "-c", ask, file]
        quiet(*(self.machine.inside(words) if self.machine else words))

    def restore_etcd(self, file):
        """What a person does: API server and etcd stop, the backup becomes etcd's data, both start. Revisions are bumped and
        marked as compacted (etcd's documentation, "Restoring with revision bump"), so that no cache above takes the past for
        the present. Nothing else is started again."""
        for name in ("kube-apiserver", "etcd"):
            self.stop_program(name)
        peer = f"http://127.0.0.1:{self.ports.etcd_peer}"
        shutil.rmtree(self.state / "etcd")
        quiet(program("etcdutl"), "snapshot", "restore", file, "--data-dir", self.state / "etcd", "--initial-cluster", f"default={peer}",
              "--initial-advertise-peer-urls", peer, "--bump-revision", 1_000_000_000, "--mark-compacted")
        self.start_etcd()
        self.start_apiserver()

    def start_apiserver(self, wait=True, alone=False):
        pki = self.pki
        # Without controllers nobody makes service accounts or says that a node is ready: pods and nodes go without.
        admission = ["--disable-admission-plugins=ServiceAccount,TaintNodesByCondition"] if alone else []
        self._start("kube-apiserver", [
            program("kube-apiserver"), f"--etcd-servers=http://127.0.0.1:{self.ports.etcd}", f"--secure-port={self.ports.api}",
            "--bind-address=0.0.0.0" if self.address != "127.0.0.1" else "--bind-address=127.0.0.1",
            f"--advertise-address={self.address if self.address != '127.0.0.1' else '192.0.2.1'}",
            f"--tls-cert-file={pki.path('apiserver.crt')}", f"--tls-private-key-file={pki.path('apiserver.key')}",
            f"--client-ca-file={pki.path('ca.crt')}", *(f"--service-account-key-file={key}" for key in pki.token_keys()),
            f"--service-account-signing-key-file={pki.token_keys()[-1]}", "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-cluster-ip-range={SERVICES}", "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
            f"--kubelet-client-certificate={pki.path('admin.crt')}", f"--kubelet-client-key={pki.path('admin.key')}",
            "--kubelet-preferred-address-types=InternalIP", "--allow-privileged=true", "--profiling=false", *admission,
            *self.apiserver_flags,
        ])
        if wait:
            self.daemons.ready(self.daemon("kube-apiserver"), "the API server", self.answers, 120)

    def start_controllers(self, manager=()):
        # Nobody asks for their own ports, which several control planes on one machine would have to share out.
        quick = ["--leader-elect=false", "--secure-port=0", "--kube-api-qps=1000", "--kube-api-burst=1000"]
        self._start("kube-controller-manager", [
            program("kube-controller-manager"), f"--kubeconfig={self.inner_kubeconfig('kube-controller-manager')}",
            f"--service-account-private-key-file={self.pki.token_keys()[-1]}", f"--root-ca-file={self.pki.path('ca.crt')}",
            "--use-service-account-credentials=true", *quick, *manager,
        ])
        self._start("kube-scheduler", [
            program("kube-scheduler"), f"--kubeconfig={self.inner_kubeconfig('kube-scheduler')}", *quick,
        ])

    def stop(self):
        for name in ("kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd"):
            self.stop_program(name)

    def stop_program(self, name):
        self.daemons.stop(self.daemon(name), signal.SIGKILL)

    def daemon(self, name):
        """What a program of the control plane is called among the daemons."""
        return f"{name}@{self.machine.name}" if self.machine else name

    def answers(self):
        """True when the API server says that it is ready."""
        return self.get("/readyz") == b"ok"

    def get(self, path):
        """The body of a GET as admin, or None; for what kubectl would be too slow."""
        context = ssl.create_default_context(cafile=self.pki.path("ca.crt"))
        context.load_cert_chain(self.pki.path("admin.crt"), self.pki.path("admin.key"))
        connection = http.client.HTTPSConnection(self.outside, self.ports.api, timeout=5, context=context)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            return body if answer.status == 200 else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def object(self, path):
        """A decoded object or list, or None."""
        body = self.get(path)
        return json.loads(body) if body else None

    def _start(self, name, words):
        self.daemons.start(self.daemon(name), self.machine.inside(words) if self.machine else words)
