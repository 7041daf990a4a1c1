"""Builds the cluster's programs from Go modules, once for each version, into the cache.

A module is built as a dependency of an empty one, so nothing but the Go module proxy is asked. Each program ends up at
CACHE/cluster/<component>-<version>/<program>, written under another name first, so that what exists is whole.
"""

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from .config import CACHE, KUBERNETES, PINS, ROOT, Failed, NotRun

BIN = CACHE / "cluster"
GO_NEEDED = (1, 26, 0)  # the `go` line of Kubernetes 1.36


@dataclass(frozen=True)
class Component:
    name: str
    version: str
    module: str
    programs: dict  # name of the program → its package
    by_name: bool = False  # no cluster needs it: built where somebody asks for it by name
    manifest: Path = None  # of an OpenTelemetry collector, with its go.sum beside it: the module is the builder's, which writes the program

    def folder(self):
        return BIN / f"{self.name}-{self.version}"

    def missing(self):
        return [program for program in self.programs if not (self.folder() / program).exists()]


def kubernetes(version=KUBERNETES):
    names = ("kube-apiserver", "kubectl", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
    return Component("kubernetes", version, "k8s.io/kubernetes", {n: f"k8s.io/kubernetes/cmd/{n}" for n in names})


def collector():
    """An OpenTelemetry collector: built anew where its manifest changes, not its version alone."""
    manifest = ROOT / "tests" / "chart" / "collector" / "builder.yaml"
    key = hashlib.sha256(manifest.read_bytes() + manifest.with_name("go.sum").read_bytes()).hexdigest()[:12]
    module = "go.opentelemetry.io/collector/cmd/builder"
    return Component("otelcol", f"{PINS['COLLECTOR']}-{key}", module, {"otelcol": "."}, by_name=True, manifest=manifest)


COMPONENTS = {
    c.name: c
    for c in (
        Component("etcd", PINS["ETCD"], "go.etcd.io/etcd/server/v3", {"etcd": "go.etcd.io/etcd/server/v3"}),
        # Restores a backup.
        Component("etcdutl", PINS["ETCD"], "go.etcd.io/etcd/etcdutl/v3", {"etcdutl": "go.etcd.io/etcd/etcdutl/v3"}, by_name=True),
        kubernetes(),
        Component(
            "containerd",
            PINS["CONTAINERD"],
            "github.com/containerd/containerd/v2",
            {n: f"github.com/containerd/containerd/v2/cmd/{n}" for n in ("containerd", "containerd-shim-runc-v2", "ctr")},
        ),
        Component("coredns", PINS["COREDNS"], "github.com/coredns/coredns", {"coredns": "github.com/coredns/coredns"}),
        Component("helm", PINS["HELM"], "helm.sh/helm/v4", {"helm": "helm.sh/helm/v4/cmd/helm"}),
        Component(
            "crane",
            PINS["CRANE"],
            "github.com/google/go-containerregistry",
            {"crane": "github.com/google/go-containerregistry/cmd/crane"},
        ),
        # An S3 server, for tests/contract/storage.
        Component(
            "versitygw",
            PINS["VERSITYGW"],
            "github.com/versity/versitygw",
            {"versitygw": "github.com/versity/versitygw/cmd/versitygw"},
            by_name=True,
        ),
        Component("kwok", PINS["KWOK"], "sigs.k8s.io/kwok", {"kwok": "sigs.k8s.io/kwok/cmd/kwok"}),
        # What tests/chart looks at manifests with.
        Component(
            "kubeconform",
            PINS["KUBECONFORM"],
            "github.com/yannh/kubeconform",
            {"kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform"},
            by_name=True,
        ),
        Component(
            "helm-unittest",
            PINS["HELMUNITTEST"],
            "github.com/helm-unittest/helm-unittest",
            {"helm-unittest": "github.com/helm-unittest/helm-unittest/cmd/helm-unittest"},
            by_name=True,
        ),
        collector(),
    )
}


def program(name):
    """The path of a program; it must have been built."""
    for component in COMPONENTS.values():
        if name in component.programs:
            path = component.folder() / name
            if not path.exists():
                raise Failed(f"{name} is not built: run tests/cluster/cluster build")
            return str(path)
    raise KeyError(name)


def missing(names=None):
    return [p for c in COMPONENTS.values() for p in c.missing() if (not c.by_name if names is None else p in names)]


def build(names=None):
    """Builds what is missing of the named programs, or of all. One build at a time on a machine."""
    if not missing(names):
        return
    BIN.mkdir(parents=True, exist_ok=True)
    with open(BIN / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("waiting for another build of the same programs")
            fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = missing(names)
        if not wanted:
            return
        environment = go_environment()
        _say(f"building {len(wanted)} programs from Go modules, once (about 10 minutes on 2 cores): {' '.join(wanted)}")
        for component in COMPONENTS.values():
            _build_component(component, [p for p in component.missing() if p in wanted], environment)
        if not missing():
            # Sources and compiled packages are 6 GB, and needed again only when a version changes.
            shutil.rmtree(CACHE / "go", ignore_errors=True)


def _say(text):
    print(f"cluster: {text}", file=sys.stderr, flush=True)


def go_environment():
    """Go's environment: a Go that is new enough, and caches that `scripts/clean` can find."""
    environment = dict(os.environ)
    environment.update(
        GOMODCACHE=str(CACHE / "go" / "mod"),
        GOCACHE=str(CACHE / "go" / "build"),
        GOFLAGS="-buildvcs=false -modcacherw -mod=mod",
        GOTOOLCHAIN="local",
        CGO_ENABLED="0",
        GO111MODULE="on",
    )
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin:/usr/lib/go/bin")
    if not go:
        raise NotRun("there is no Go; scripts/setup --cluster installs Debian's, which fetches the one that is needed")
    words = subprocess.run([go, "version"], capture_output=True, text=True, check=True, env=environment).stdout
    found = re.search(r"go(\d+)\.(\d+)(?:\.(\d+))?", words)
    if tuple(int(part or 0) for part in found.groups()) < GO_NEEDED:
        go = _toolchain(go, environment)
        environment["GOROOT"] = str(Path(go).parents[1])
    environment["PATH"] = f"{Path(go).parent}:{environment['PATH']}"
    return environment


def _toolchain(old_go, environment):
    """The Go of scripts/versions as a module. Modules carry no execute bits, so they are set here."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    module = f"golang.org/toolchain@v0.0.1-go{PINS['GO']}.linux-{machine}"
    _say(f"fetching {module}")
    # An old Go takes no -mod=mod outside of a module, and looks up toolchains in no checksum database.
    older = dict(environment, GOFLAGS="-modcacherw", GONOSUMDB="golang.org/toolchain")
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run([old_go, "mod", "download", "-json", module], cwd=empty, env=older, capture_output=True, text=True)
    if done.returncode != 0:
        raise NotRun(f"{module} can't be fetched: {done.stderr.strip() or done.stdout.strip()}")
    root = Path(json.loads(done.stdout)["Dir"])
    for folder in (root / "bin", root / "pkg" / "tool"):
        for file in folder.rglob("*"):
            if file.is_file():
                file.chmod(0o755)
    return str(root / "bin" / "go")


def _replacements(component, environment):
    """Kubernetes keeps its libraries in modules of their own, at v0.x for every v1.x; its go.mod points to folders.
    helm-unittest builds only with the fork that its go.mod names. Go ignores either in a dependency's go.mod."""
    if component.name not in ("kubernetes", "helm-unittest"):
        return ""
    done = subprocess.run(
        ["go", "mod", "download", "-json", f"{component.module}@{component.version}"],
        cwd="/", env=environment, capture_output=True, text=True,
    )
    if done.returncode != 0:
        raise NotRun(f"{component.module} can't be fetched: {done.stderr.strip() or done.stdout.strip()}")
    text = Path(json.loads(done.stdout)["GoMod"]).read_text()
    if component.name == "helm-unittest":
        return "".join(f"{line}\n" for line in re.findall(r"^replace \S+ \S+ => [^.\s]\S* v\S+$", text, re.MULTILINE))
    libraries = re.findall(r"^\s*(k8s\.io/[a-z0-9-]+) => \./staging", text, re.MULTILINE)
    version = re.sub(r"^v1\.", "v0.", component.version)
    return "".join(f"replace {library} => {library} {version}\n" for library in libraries)


def _require(component, version, source, environment):
    (Path(source) / "go.mod").write_text(
        "module pitcrew/tests/cluster\n\n"
        f"go {PINS['GO']}\n\n"
        f"require {component.module} {version}\n{_replacements(component, environment)}"
    )


def _generate_collector(component, source, environment):
    """What the collector's builder makes of the manifest: main.go, components.go and go.mod; the sums are ours."""
    version = PINS["COLLECTOR"]
    if f"\n  version: {version[1:]}\n" not in component.manifest.read_text():
        raise Failed(f"{component.manifest.relative_to(ROOT)} is not of {version}, which scripts/versions names")
    with tempfile.TemporaryDirectory(prefix="pitcrew-go-") as folder:
        _require(component, version, folder, environment)
        builder = f"{folder}/ocb"
        _quiet(["nice", "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", builder, component.module], folder, environment)
        _quiet([builder, "--skip-compilation", "--skip-get-modules", "--config", str(component.manifest)], source, environment)
    shutil.copy(component.manifest.with_name("go.sum"), source)
    _leave_out_discoveries(source, environment)


def _leave_out_discoveries(source, environment):
    """Prometheus registers the discovery of every cloud, with that cloud's SDK: a third of what would be compiled. What the
    build tag remove_all_sd does in later versions is done here on a copy: Kubernetes' alone is left."""
    prometheus = "github.com/prometheus/prometheus"
    folder = json.loads(_quiet(["go", "mod", "download", "-json", prometheus], source, environment))["Dir"]
    copy = Path(source) / "prometheus"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("*_test.go", "testdata", "static"))
    (copy / "discovery/install/install.go").write_text(f'package install\n\nimport _ "{prometheus}/discovery/kubernetes"\n')
    with open(Path(source) / "go.mod", "a") as file:
        file.write(f"\nreplace {prometheus} => ./prometheus\n")


def _quiet(command, place, environment):
    """Its output."""
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise _why(f"{' '.join(command)} failed", done.stderr + done.stdout)
    return done.stdout


def _why(what, said):
    """A machine that Go modules don't reach can't build; anything else is a failure."""
    unreachable = re.search(r"dial tcp|no such host|connection refused|i/o timeout|proxyconnect|reading https?://\S+: 4\d\d ", said)
    return NotRun(f"Go modules can't be fetched: {unreachable.group()}") if unreachable else Failed(f"{what}:\n{said[-4000:]}")


def _build_component(component, programs, environment):
    if not programs:
        return
    component.folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pitcrew-go-") as source:
        if component.manifest:
            _generate_collector(component, source, environment)
        else:
            _require(component, component.version, source, environment)
        for name in programs:
            begin = time.monotonic()
            whole = component.folder() / name
            part = component.folder() / f".{name}.part"
            flags = "-s -w"
            if component.name == "kubernetes":
                flags += f" -X k8s.io/component-base/version.gitVersion={component.version}"
            done = subprocess.run(
                ["nice", "go", "build", "-trimpath", "-ldflags", flags, "-o", str(part), component.programs[name]],
                cwd=source, env=environment, capture_output=True, text=True,
            )
            if done.returncode != 0:
                raise _why(f"building {name} {component.version} failed", done.stderr)
            part.rename(whole)
            _say(f"built {name} {component.version} in {time.monotonic() - begin:.0f} s")
        if component.name == "kwok":
            _keep_kwok_stages(component, source, environment)


def _keep_kwok_stages(component, source, environment):
    """What kwok plays for a node and a pod. Its default would complete the pods of a Job at once, so that part is left out."""
    listed = subprocess.run(
        ["go", "list", "-m", "-f", "{{.Dir}}", component.module],
        cwd=source, env=environment, capture_output=True, text=True, check=True,
    )
    stages = Path(listed.stdout.strip()) / "kustomize" / "stage"
    files = [stages / "node/fast/node-initialize.yaml", *sorted((stages / "node/heartbeat-with-lease").glob("*heartbeat*.yaml"))]
    files += [stages / "pod/fast/pod-ready.yaml", stages / "pod/fast/pod-delete.yaml"]
    (component.folder() / "stages.yaml").write_text("\n---\n".join(file.read_text() for file in files))
