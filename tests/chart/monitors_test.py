#!/usr/bin/env python3
"""The chart's PodMonitors in a real Prometheus: whose a series is. The Prometheus operator isn't here: what it makes of a PodMonitor is
made here as it does (promcfg.go, generatePodMonitorConfig), from what the chart renders (golden/everything.yaml). Pods are discovered
from a file with the labels that discovery gives them. Exit code 77 where there is no Prometheus or no PyYAML."""
import http.server
import json
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

try:
    import yaml
except ImportError:
    print("not run: no PyYAML (scripts/setup installs python3-yaml)")
    sys.exit(77)

GOLDEN = pathlib.Path(__file__).with_name("golden") / "everything.yaml"
COMMON = {"app.kubernetes.io/name": "pitcrew", "app.kubernetes.io/instance": "pitcrew"}
OF_THE_JOB = 'namespace="team-a",job="llama"'

# (namespace, pod, labels, container, port's name, what its /metrics says)
PODS = [
    ("pitcrew-system", "pitcrew-operator-0", {**COMMON, "app.kubernetes.io/component": "operator"}, "operator", "metrics",
     f"of_a_job{{{OF_THE_JOB}}} 1\nof_the_operator 1\n"),
    ("pitcrew-system", "pitcrew-agent-x", {**COMMON, "app.kubernetes.io/component": "agent"}, "agent", "metrics",
     f'gpu{{gpu="0",pod="llama-0b1c2-1",container="train",{OF_THE_JOB}}} 1\ngpu{{gpu="1"}} 1\n'),
    ("team-a", "llama-0b1c2-1", {"pitcrew.dev/job": "llama"}, "train", "pitcrew-metrics", 'rank{rank="3"} 1\n'),
    ("team-a", "bert-0", {"app": "bert"}, "train", "pitcrew-metrics", "stranger 1\n"),
]
WANTED = {
    "of_a_job": [{"namespace": "team-a", "job": "llama", "pod": "pitcrew-operator-0"}],
    "of_the_operator": [{"pod": "pitcrew-operator-0"}],
    "gpu": [{"gpu": "0", "namespace": "team-a", "pod": "llama-0b1c2-1", "container": "train", "job": "llama", "node": "node-1"},
            {"gpu": "1", "node": "node-1"}],
    "rank": [{"rank": "3", "namespace": "team-a", "pod": "llama-0b1c2-1", "job": "llama", "node": "node-1"}],
    "stranger": [],
}


def sanitized(label):
    return re.sub(r"[^a-zA-Z0-9_]", "_", label)


def snake(key):
    return re.sub(r"[A-Z]", lambda letter: "_" + letter[0].lower(), key)


def known(what, keys):
    """A key that isn't handled here must not go by unseen."""
    assert not what.keys() - keys, f"tests/chart/monitors_test.py doesn't know {what.keys() - keys}"
    return what


def relabelings(monitor, endpoint):
    spec, metadata = known(monitor["spec"], {"namespaceSelector", "selector", "jobLabel", "podMetricsEndpoints"}), monitor["metadata"]
    known(endpoint, {"port", "interval", "honorLabels", "relabelings"})
    selector = known(spec["selector"], {"matchLabels", "matchExpressions"})
    steps = [{"action": "drop", "source_labels": ["__meta_kubernetes_pod_phase"], "regex": "(Failed|Succeeded)"}]
    for key, value in selector.get("matchLabels", {}).items():
        labels = [f"__meta_kubernetes_pod_label_{sanitized(key)}", f"__meta_kubernetes_pod_labelpresent_{sanitized(key)}"]
        steps.append({"action": "keep", "source_labels": labels, "regex": f"({re.escape(value)});true"})
    for one in selector.get("matchExpressions", []):
        assert one["operator"] == "Exists", one
        steps.append({"action": "keep", "source_labels": [f"__meta_kubernetes_pod_labelpresent_{sanitized(one['key'])}"], "regex": "true"})
    steps.append({"action": "keep", "source_labels": ["__meta_kubernetes_pod_container_port_name"], "regex": endpoint["port"]})
    for label, source in (("namespace", "namespace"), ("container", "pod_container_name"), ("pod", "pod_name")):
        steps.append({"source_labels": [f"__meta_kubernetes_{source}"], "target_label": label})
    steps.append({"target_label": "job", "replacement": f"{metadata['namespace']}/{metadata['name']}"})
    if "jobLabel" in spec:
        label = f"__meta_kubernetes_pod_label_{sanitized(spec['jobLabel'])}"
        steps.append({"source_labels": [label], "target_label": "job", "regex": "(.+)", "replacement": "${1}"})
    steps.append({"target_label": "endpoint", "replacement": endpoint["port"]})
    return steps + [{snake(key): value for key, value in step.items()} for step in endpoint.get("relabelings", [])]


def scrape_configs(monitors, targets):
    for monitor in monitors:
        selected = known(monitor["spec"]["namespaceSelector"], {"any", "matchNames"})
        here = [t for t in targets if selected.get("any") or t["labels"]["__meta_kubernetes_namespace"] in selected["matchNames"]]
        for number, endpoint in enumerate(monitor["spec"]["podMetricsEndpoints"]):
            yield {"job_name": f"podMonitor/{monitor['metadata']['namespace']}/{monitor['metadata']['name']}/{number}",
                   "honor_labels": endpoint.get("honorLabels", False), "scrape_interval": "1s", "scrape_timeout": "1s",
                   "static_configs": here, "relabel_configs": relabelings(monitor, endpoint)}


def serve(text):
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"127.0.0.1:{server.server_port}"


def target(namespace, pod, labels, container, port, text):
    meta = {"__meta_kubernetes_namespace": namespace, "__meta_kubernetes_pod_name": pod, "__meta_kubernetes_pod_phase": "Running",
            "__meta_kubernetes_pod_node_name": "node-1", "__meta_kubernetes_pod_container_name": container,
            "__meta_kubernetes_pod_container_port_name": port}
    for key, value in labels.items():
        meta[f"__meta_kubernetes_pod_label_{sanitized(key)}"] = value
        meta[f"__meta_kubernetes_pod_labelpresent_{sanitized(key)}"] = "true"
    return {"targets": [serve(text)], "labels": meta}


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def series(port, name):
    query = urllib.parse.urlencode({"query": name})
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{query}", timeout=5) as answer:
        found = [one["metric"] for one in json.load(answer)["data"]["result"]]
    return sorted(({key: value for key, value in one.items() if key not in ("__name__", "instance")} for one in found), key=str)


def main():
    prometheus = shutil.which("prometheus")
    if prometheus is None:
        print("not run: no prometheus (scripts/setup installs it)")
        return 77
    monitors = [one for one in yaml.safe_load_all(GOLDEN.read_text()) if one and one["kind"] == "PodMonitor"]
    assert len(monitors) == 3, [one["metadata"]["name"] for one in monitors]
    with tempfile.TemporaryDirectory(prefix="pitcrew-monitors-") as folder:
        config, port = pathlib.Path(folder) / "prometheus.yml", free_port()
        config.write_text(json.dumps({"scrape_configs": list(scrape_configs(monitors, [target(*pod) for pod in PODS]))}))
        with open(f"{folder}/log", "w") as log:
            process = subprocess.Popen([prometheus, f"--config.file={config}", f"--storage.tsdb.path={folder}/data",
                                        f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
        wanted = {name: sorted(all_of, key=str) for name, all_of in WANTED.items()}
        try:
            found, end = None, time.monotonic() + 60
            while found != wanted and time.monotonic() < end and process.poll() is None:
                time.sleep(0.3)
                try:
                    found = {name: series(port, name) for name in wanted}
                except OSError:
                    continue
        finally:
            process.terminate()
            process.wait(20)
        said = pathlib.Path(f"{folder}/log").read_text()[-1500:] if found is None else ""
    for name in wanted:
        if found is None or found[name] != wanted[name]:
            print(f"FAILED {name}:\n  found  {found and found[name]}\n  wanted {wanted[name]}\n{said}")
    print("series of the operator, agents and launchers are whose they should be" if found == wanted else "the monitors are wrong")
    return 0 if found == wanted else 1


if __name__ == "__main__":
    sys.exit(main())
