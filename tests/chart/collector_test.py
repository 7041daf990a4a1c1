#!/usr/bin/env python3
"""examples/telemetry/collector.yaml: its parts fit together, its scrapes are what Prometheus takes, its metrics exist; and what it
scrapes arrives in a real Prometheus by remote write, the way into Amazon Managed Prometheus, with the labels that dashboards
expect. For machines without Go: a Prometheus with the same scrapes stands in for the collector, which collector.sh builds. Exit code 77
where there is no Prometheus or no PyYAML."""
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

import monitors_test as monitors

try:
    import yaml
except ImportError:
    print("not run: no PyYAML (scripts/setup installs python3-yaml)")
    sys.exit(77)

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILE = ROOT / "examples/telemetry/collector.yaml"
BUILDER = pathlib.Path(__file__).with_name("collector") / "builder.yaml"
# The collector's receiver gives each series a job: what is about no TrainingJob has the scrape's.
WANTED = {
    "of_a_job": [{"namespace": "team-a", "job": "llama", "pod": "pitcrew-operator-0"}],
    "of_the_operator": [{"job": "pitcrew-operator", "pod": "pitcrew-operator-0"}],
    "gpu": [{"gpu": "0", "namespace": "team-a", "pod": "llama-0b1c2-1", "container": "train", "job": "llama", "node": "node-1"},
            {"gpu": "1", "job": "pitcrew-agent", "node": "node-1"}],
    "rank": [{"rank": "3", "namespace": "team-a", "pod": "llama-0b1c2-1", "job": "llama", "node": "node-1"}],
    "stranger": [],
}


def built():
    """The components of the collector that collector.sh builds, by kind: a module is named awsemfexporter, its component awsemf."""
    manifest = yaml.safe_load(BUILDER.read_text())
    kinds = ("extensions", "receivers", "processors", "exporters")
    return {kind: {re.search(rf"/(\w+){kind[:-1]} v", one["gomod"]).group(1) for one in manifest[kind]} for kind in kinds}


def fits(config):
    """Every component is built, defined, and used, and no other is built."""
    used = {kind: set() for kind in built()}
    used["extensions"] |= set(config["service"]["extensions"])
    for pipeline in config["service"]["pipelines"].values():
        for kind in ("receivers", "processors", "exporters"):
            used[kind] |= set(pipeline[kind])
    for kind, known in built().items():
        assert set(config[kind]) == used[kind] == known, f"{kind}: {set(config[kind])} defined, {used[kind]} used, {known} in {BUILDER.name}"
    for exporter in config["exporters"].values():
        auth = exporter.get("auth", {}).get("authenticator")
        assert auth is None or auth in config["extensions"], f"there is no extension {auth}"


def metrics_exist(config):
    """Every selector finds a metric of the reference pages."""
    names = set()
    for page in ("metrics.md", "agent-metrics.md"):
        names |= set(re.findall(r"^\| `([a-zA-Z_:][a-zA-Z0-9_:]*)`", (ROOT / "docs" / page).read_text(), re.M))
    assert len(names) > 50, names
    for declaration in config["exporters"]["awsemf"]["metric_declarations"]:
        for selector in declaration["metric_name_selectors"]:
            found = [name for name in names if re.search(selector.replace("$$", "$"), name)]
            assert found, f"no metric is chosen by {selector}"


def ready(port):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=2).status == 200
    except OSError:
        return False


def wait(what, condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {seconds} s"
        time.sleep(0.3)


def main():
    prometheus, promtool = shutil.which("prometheus"), shutil.which("promtool")
    if prometheus is None or promtool is None:
        print("not run: no prometheus (scripts/setup installs it)")
        return 77
    config = yaml.safe_load(FILE.read_text())
    fits(config)
    metrics_exist(config)
    scrapes = json.loads(json.dumps(config["receivers"]["prometheus"]["config"]).replace("$$", "$"))
    assert not scrapes.keys() & {"remote_write", "rule_files", "alerting"}, "the collector's receiver refuses these"
    with tempfile.TemporaryDirectory(prefix="pitcrew-collector-") as name:
        folder = pathlib.Path(name)
        targets = [monitors.target(*pod) for pod in monitors.PODS]
        for scrape in scrapes["scrape_configs"]:
            assert scrape.pop("kubernetes_sd_configs") == [{"role": "pod"}]
            scrape["static_configs"] = targets
        scrapes["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s"}
        near, far = monitors.free_port(), monitors.free_port()
        scrapes["remote_write"] = [{"url": f"http://127.0.0.1:{far}/api/v1/write", "queue_config": {"batch_send_deadline": "500ms"}}]
        (folder / "collector.yml").write_text(json.dumps(scrapes))
        checked = subprocess.run([promtool, "check", "config", "--syntax-only", folder / "collector.yml"], capture_output=True, text=True, timeout=60)
        assert checked.returncode == 0, checked.stderr
        (folder / "workspace.yml").write_text("{}")
        processes = []
        try:
            for what, port, more in (("workspace", far, ["--web.enable-remote-write-receiver"]), ("collector", near, [])):
                log = open(folder / f"{what}.log", "w")
                processes.append(subprocess.Popen([prometheus, f"--config.file={folder}/{what}.yml", f"--storage.tsdb.path={folder}/{what}",
                                                   f"--web.listen-address=127.0.0.1:{port}", *more], stdout=log, stderr=log))
                wait(f"the start of the {what}", lambda port=port: ready(port))
            wanted = {name: sorted(all_of, key=str) for name, all_of in WANTED.items()}
            found = {}

            def arrived():
                found.update({name: monitors.series(far, name) for name in wanted})
                return found == wanted

            try:
                wait("the arrival of all series", arrived)
            except AssertionError:
                print(json.dumps({"found": found, "wanted": wanted}, indent=1))
                raise
        finally:
            # The sender first: it delivers what it has, for as long as a minute where nobody takes it.
            for process in reversed(processes):
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
    print("the collector's parts fit together; what it scrapes arrives by remote write with the labels that dashboards expect")
    return 0


if __name__ == "__main__":
    sys.exit(main())
