"""JobSet's half: its controller, built from its public source, with its webhooks, outside of a pod; and a JobSet."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import urllib.request
from pathlib import Path

from harness import gobuild
from harness.config import PINS, Failed, NotRun
from harness.process import say, until
from harness.standalone import free_ports

MODULE = "sigs.k8s.io/jobset"
SYSTEM = "jobset-system"
NAMESPACE = "bench-jobset"
ACCOUNT = "jobset-controller-manager"
DAEMON = "jobset-controller"
JOBSETS = f"/apis/jobset.x-k8s.io/v1alpha2/namespaces/{NAMESPACE}/jobsets"
JOB = "gang"


def build(folder=None):
    """The controller and its manifests, below the cache: of a checkout, or of the pinned version as a Go module. Returns their folder."""
    if folder:
        source = Path(folder).resolve()
        if not (source / "main.go").exists():
            raise Failed(f"{source} is no checkout of JobSet: it has no main.go")
        return _build(source, gobuild.BIN / f"jobset-{hashlib.sha256(str(source).encode()).hexdigest()[:12]}", gobuild.go_environment(), False)
    kept = gobuild.BIN / f"jobset-{PINS['JOBSET']}"
    if (kept / "jobset").exists():
        return kept
    environment = gobuild.go_environment()
    done = subprocess.run(["go", "mod", "download", "-json", f"{MODULE}@{PINS['JOBSET']}"], cwd="/", env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise NotRun(f"{MODULE} can't be fetched: {done.stderr.strip() or done.stdout.strip()}")
    return _build(Path(json.loads(done.stdout)["Dir"]), kept, environment, True)


def _build(source, kept, environment, once):
    say(f"building JobSet from {source}" + (", once (some minutes)" if once else ""))
    kept.mkdir(parents=True, exist_ok=True)
    part = kept / ".jobset.part"
    done = subprocess.run(["nice", "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", str(part), "."], cwd=source,
                          env=dict(environment, GOFLAGS="-buildvcs=false -modcacherw"), capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed(f"building JobSet in {source} failed:\n{done.stderr[-4000:]}")
    shutil.rmtree(kept / "config", ignore_errors=True)
    shutil.copytree(source / "config", kept / "config")
    part.rename(kept / "jobset")
    return kept


def version(folder):
    """What was measured: the module's version, or a checkout's commit."""
    if not folder:
        return PINS["JOBSET"]
    done = subprocess.run(["git", "-C", folder, "describe", "--always", "--dirty", "--tags"], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


class JobSet:
    name = "JobSet"
    namespace = NAMESPACE
    counted = ("jobset", "job-controller")

    def __init__(self, lab, built, which, pods):
        self.lab = lab
        self.built = built
        self.version = which
        self.pods = pods

    def install(self):
        lab = self.lab
        for namespace in (SYSTEM, NAMESPACE):
            lab.namespace(namespace)
        lab.kubectl("apply", "--server-side", "-f", self.built / "config" / "components" / "crd" / "bases")
        lab.crd("jobsets.jobset.x-k8s.io")
        self._kubeconfig = lab.service_account(SYSTEM, ACCOUNT, cluster_admin=True)
        self._webhook, self._health = free_ports(2)
        self._certificate()
        self._webhooks()
        # The levels are those that the API server's own rules give to these accounts.
        lab.count_requests_of("jobset", SYSTEM, ACCOUNT, "workload-low")
        lab.count_requests_of("job-controller", "kube-system", "job-controller", "workload-high")

    def daemons(self):
        return [DAEMON]

    def controller(self):
        return DAEMON

    def start(self):
        # What its deployment sets, but for addresses and certificates; in a pod, leader election finds the namespace by itself.
        config = {"apiVersion": "config.jobset.x-k8s.io/v1alpha1", "kind": "Configuration",
                  "leaderElection": {"leaderElect": True, "resourceNamespace": SYSTEM},
                  "internalCertManagement": {"enable": False},
                  "webhook": {"host": "127.0.0.1", "port": self._webhook, "certDir": str(self._certificates)},
                  "metrics": {"bindAddress": "0"}, "health": {"healthProbeBindAddress": f"127.0.0.1:{self._health}"}}
        file = Path(self.lab.state) / "jobset.yaml"
        file.write_text(json.dumps(config))
        self.lab.daemons.start(DAEMON, [self.built / "jobset", "--config", file, "--zap-log-level=info"],
                               dict(os.environ, KUBECONFIG=str(self._kubeconfig)))
        self.lab.daemons.ready(DAEMON, "JobSet's controller", self._ready, 60)
        until("JobSet's leader", self._leads, 60)

    def stop(self):
        self.lab.daemons.stop(DAEMON)
        # It doesn't give its lease back; the next start need not wait for that to run out.
        self.lab.api.call("DELETE", f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases", {})

    def create(self, backoff_limit=0):
        self.lab.api.create(JOBSETS, manifest(self.pods, backoff_limit))

    def suspend(self, whether):
        self.lab.api.patch(f"{JOBSETS}/{JOB}", {"spec": {"suspend": whether}})

    def suspended(self):
        status = (self.lab.api.get(f"{JOBSETS}/{JOB}") or {}).get("status", {})
        return any(c["type"] == "Suspended" and c["status"] == "True" for c in status.get("conditions", []))

    def delete(self):
        self.lab.api.delete(f"{JOBSETS}/{JOB}", "Foreground")
        until("the end of the JobSet", lambda: self.lab.api.get(f"{JOBSETS}/{JOB}") is None, 120)

    def restarts(self):
        return (self.lab.api.get(f"{JOBSETS}/{JOB}") or {}).get("status", {}).get("restarts", 0)

    def _ready(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._health}/readyz", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def _leads(self):
        leases = self.lab.api.get(f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases")
        return any(lease["spec"].get("holderIdentity") for lease in leases["items"])

    def _certificate(self):
        pki = self.lab.control.pki
        pki.issue("jobset-webhook", "/CN=jobset-webhook", "serverAuth", ["IP:127.0.0.1"])
        self._certificates = Path(self.lab.state) / "jobset-certificates"
        self._certificates.mkdir()
        for suffix, name in (("crt", "tls.crt"), ("key", "tls.key")):
            shutil.copy(pki.path(f"jobset-webhook.{suffix}"), self._certificates / name)

    def _webhooks(self):
        """JobSet's own configurations, with its address in place of its Service."""
        bundle = base64.b64encode(Path(self.lab.control.pki.path("ca.crt")).read_bytes()).decode()
        rendered = self.lab.kubectl("kustomize", self.built / "config" / "components" / "webhook")
        for document in rendered.split("\n---\n"):
            if "WebhookConfiguration" not in document:
                continue
            one = json.loads(self.lab.kubectl("create", "--dry-run=client", "--output=json", "--filename=-", text=document))
            for webhook in one["webhooks"]:
                service = webhook["clientConfig"].pop("service")
                webhook["clientConfig"] = {"url": f"https://127.0.0.1:{self._webhook}{service['path']}", "caBundle": bundle}
            self.lab.kubectl("apply", "--filename=-", text=json.dumps(one))


def manifest(pods, backoff_limit):
    """One Job of all pods, as Kubeflow's trainer makes them: the shape with the fewest objects.

    backoff_limit: pods that the Job replaces by itself before it fails, and with it, by the failure policy's default, the JobSet
    restarts whole.
    """
    train = {"name": "train", "image": "bench.invalid/train", "command": ["train"],
             "resources": {"requests": {"cpu": "8", "memory": "64Gi"}, "limits": {"nvidia.com/gpu": "8"}}}
    job = {"parallelism": pods, "completions": pods, "completionMode": "Indexed", "backoffLimit": backoff_limit,
           "template": {"spec": {"restartPolicy": "Never", "containers": [train]}}}
    return {"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "metadata": {"name": JOB},
            "spec": {"failurePolicy": {"maxRestarts": 1000}, "replicatedJobs": [{"name": "workers", "replicas": 1, "template": {"spec": job}}]}}
