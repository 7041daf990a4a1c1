#!/usr/bin/env python3
"""What collector.sh runs: the real OpenTelemetry collector with examples/telemetry/collector.yaml, and beside it a file that says
where AWS, the API server and the logs are here. KUBECONFIG leads to an API server without controllers, in which the pods of
`pitcrew run` are mirrored for the collector to discover; metrics and logs are the operator's, launchers' and agents' own."""

import datetime
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request

import yaml

sys.dont_write_bytecode = True

from shared import ROOT, kubeconfig_of, kubectl  # noqa: E402

sys.path.insert(0, str(ROOT / "tests/dashboards"))
import agent_pages  # noqa: E402
import aws  # noqa: E402
import live  # noqa: E402
import monitors_test as monitors  # noqa: E402

PROGRAMS, OTELCOL = pathlib.Path(sys.argv[1]), sys.argv[2]
EXAMPLE = ROOT / "examples/telemetry/collector.yaml"
PAGE = (ROOT / "docs/telemetry.md").read_text()
NODE = "n0"
RIGHTS = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]  # docs/telemetry.md
ENVIRONMENT = {**os.environ, "REGION": aws.REGION, "WORKSPACE": "ws-test", "CLUSTER": "test", "AWS_ACCESS_KEY_ID": aws.KEY,
               "AWS_SECRET_ACCESS_KEY": aws.SECRET, "AWS_EC2_METADATA_DISABLED": "true", "TZ": "Asia/Tokyo"}
OURS = {"sample": re.compile(r'^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$'), "label": re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')}


def the_file_is_accepted_as_it_is(folder):
    """By each component's own schema; and a key that none has is refused."""
    good_one = subprocess.run([OTELCOL, "validate", f"--config={EXAMPLE}"], env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert good_one.returncode == 0, good_one.stderr
    for section, component in (("exporters", "awsemf"), ("receivers", "filelog"), ("processors", "filter"), ("extensions", "sigv4auth")):
        config = yaml.safe_load(EXAMPLE.read_text())
        config[section][component]["no_such_key"] = 1
        (folder / "wrong.yaml").write_text(json.dumps(config))
        wrong = subprocess.run([OTELCOL, "validate", f"--config={folder}/wrong.yaml"], env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
        assert wrong.returncode != 0 and "no_such_key" in wrong.stderr, f"{component} takes a key that it doesn't have: {wrong.stderr}"


def pod(name, namespace, labels, container, port, address, phase="Running"):
    """A pod as discovery sees it: (its manifest, its status)"""
    host, number = address.rsplit(":", 1)
    spec = {"nodeName": NODE, "containers": [{"name": container, "image": "none", "ports": [{"name": port, "containerPort": int(number)}]}]}
    return ({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": labels}, "spec": spec},
            {"status": {"phase": phase, "podIP": host, "podIPs": [{"ip": host}]}})


def apply(manifest, status):
    kubectl("apply", "-f", "-", text=json.dumps(manifest))
    kubectl("-n", manifest["metadata"]["namespace"], "patch", "pod", manifest["metadata"]["name"], "--subresource=status", "--type=merge",
            "-p", json.dumps(status))


def running_launchers(world):
    pods = live.get(f"{world.api}/api/v1/namespaces/default/pods", world.token)["items"]
    return [one for one in pods if one.get("status", {}).get("podIP") and one["status"].get("phase") == "Running"]


def comparable(labels):
    """Sorted; a histogram's bound as a number, which has several spellings."""
    return tuple(sorted((key, float(value) if key == "le" else value) for key, value in labels.items()))


class Cluster:
    """The pods that the collector finds, and the pages behind them. An address's page is what /metrics says."""

    def __init__(self, world):
        launchers = live.wait_for("the start of three launchers", lambda: len(found := running_launchers(world)) == 3 and found, 120)
        users = {NODE: launchers[0]["metadata"]["name"]}
        agent = agent_pages.serve(PROGRAMS / "dashboards_agent_page", [NODE], users)[NODE]
        common, system = monitors.COMMON, "pitcrew-system"
        self.targets = {"operator": (world.operator, {"pod": "pitcrew-operator-0"}), "agent": (agent, {"node": NODE})}
        for namespace in (system, "telemetry"):
            kubectl("create", "namespace", namespace)
        operator = {**common, "app.kubernetes.io/component": "operator"}
        apply(*pod("pitcrew-operator-0", system, operator, "operator", "metrics", world.operator))
        apply(*pod("pitcrew-operator-old", system, operator, "operator", "metrics", world.operator, "Failed"))
        apply(*pod("pitcrew-agent-x", system, {**common, "app.kubernetes.io/component": "agent"}, "agent", "metrics", agent))
        apply(*pod("bert-0", "default", {"app": "bert"}, "train", "pitcrew-metrics", monitors.serve("stranger 1\n")))
        for one in launchers:
            name, address = one["metadata"]["name"], f"{one['status']['podIP']}:{live.PORT}"
            apply(*pod(name, "default", one["metadata"]["labels"], "train", "pitcrew-metrics", address))
            self.targets[name] = (address, {"namespace": "default", "pod": name, "node": NODE, "job": "watched"})
        kubectl("-n", "telemetry", "create", "serviceaccount", "otel")
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "otel"}, "rules": RIGHTS}
        kubectl("apply", "-f", "-", text=json.dumps(role))
        kubectl("create", "clusterrolebinding", "otel", "--clusterrole=otel", "--serviceaccount=telemetry:otel")
        self.kubeconfig = kubeconfig_of("otel", "telemetry")

    def series(self, target):
        """{(name, labels)} that a target shows now, with the labels that docs/telemetry.md says they arrive with."""
        address, own = self.targets[target]
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        found = set()
        for line in lines:
            sample = OURS["sample"].match(line)
            if sample and not line.startswith("#"):
                labels = {key: value for key, value in OURS["label"].findall(sample.group(2) or "") if value}
                labels = {"job": f"pitcrew-{target}", **own, **labels}
                found.add((sample.group(1), comparable(labels)))
        return found


def around(cluster, cloud, folder):
    """What is another one here than in a cluster on AWS. Everything else is the example's."""
    config = yaml.safe_load(EXAMPLE.read_text())["receivers"]["prometheus"]["config"]
    for scrape in config["scrape_configs"]:
        for discovery in scrape["kubernetes_sd_configs"]:
            discovery["kubeconfig_file"] = cluster.kubeconfig
    quick = {"global": {"scrape_interval": "2s", "scrape_timeout": "2s"}, "scrape_configs": config["scrape_configs"]}
    return {"receivers": {"prometheus": {"config": quick}, "filelog": {"include": [f"{folder}/pods/*/*/*.log"], "start_at": "beginning"}},
            "exporters": {"prometheusremotewrite": {"endpoint": f"{cloud.address}/workspaces/${{env:WORKSPACE}}/api/v1/remote_write"},
                          "awsemf": {"endpoint": cloud.address}, "awscloudwatchlogs": {"endpoint": cloud.address}},
            "service": {"telemetry": {"metrics": {"level": "none"}, "logs": {"encoding": "json"}}}}


def arrived(port):
    """{(name, labels)} of what is in the workspace; `instance` is the target's address."""
    query = urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/series?match[]=%7B__name__%3D~%22.%2B%22%7D", timeout=20)
    with query as answer:
        found = json.load(answer)["data"]
    return {(one["__name__"], comparable({k: v for k, v in one.items() if k not in ("__name__", "instance")})) for one in found}


def all_series_arrive_with_their_labels(cluster, port):
    """Each series that a target shows comes by remote write under its own name, with its own labels and the scrape's."""
    missing = {}

    def none_missing():
        here = arrived(port)
        for target in cluster.targets:
            missing[target] = sorted(cluster.series(target) - here)
        return not any(missing.values())

    try:
        live.wait_for("the arrival of all series", none_missing, 120)
    except SystemExit:
        for target, lost in missing.items():
            print(f"{target}: {len(lost)} missing, as {lost[:4]}")
        near = {name for one in missing.values() for name, _ in one[:4]}
        print("\n".join(f"there is {one}" for one in sorted(arrived(port)) if one[0] in near or one[0].removesuffix("_total") in near)[:4000])
        raise
    here = arrived(port)
    shown = {name for target in cluster.targets for name, _ in cluster.series(target)}
    foreign = {name for name, _ in here} - shown - {"up"} - {name for name, _ in here if name.startswith("scrape_")}
    assert not foreign, f"nobody shows {foreign}"
    pods = {dict(labels).get("pod") for _, labels in here}
    assert "pitcrew-operator-old" not in pods and "stranger" not in {name for name, _ in here}, pods
    replicas = [one["value"][1] for one in live.get(f"http://127.0.0.1:{port}/api/v1/query?query=pitcrew_job_replicas")["data"]["result"]]
    assert replicas == ["2"], replicas
    return len(here)


def alarms_metrics_arrive_in_cloudwatch(cluster, cloud):
    """EMF documents name the namespace, the dimensions and the metrics that the page names, and nothing else comes."""
    of_job, of_node = re.compile(r"pitcrew_job_(?!info$|seconds$|recovery_time_seconds$)"), re.compile(r"pitcrew_node_|pitcrew_gpu_missing$")
    wanted = {("job", "namespace"): {name for name, _ in cluster.series("operator") if of_job.match(name)},
              ("node",): {name for name, _ in cluster.series("agent") if of_node.match(name)}}
    assert len(wanted[("job", "namespace")]) > 10 and len(wanted[("node",)]) > 20, wanted
    found = {}

    def all_came():
        found.clear()
        for _, _, message in cloud.events("/pitcrew/test/metrics"):
            document = json.loads(message)
            assert "_aws" in document, f"a log line that no metric comes from: {message[:400]}"
            for one in document["_aws"]["CloudWatchMetrics"]:
                assert one["Namespace"] == "Pitcrew", one
                for dimensions in one["Dimensions"]:
                    known = {"namespace": "default", "job": "watched", "node": NODE}
                    assert all(document.get(key) == known[key] for key in dimensions), document
                    names = {metric["Name"] for metric in one["Metrics"]}
                    assert all(isinstance(document[name], (int, float)) for name in names), document
                    found.setdefault(tuple(sorted(dimensions)), set()).update(names)
        return found == wanted

    try:
        live.wait_for("the arrival of the alarms' metrics", all_came, 60)
    except SystemExit:
        for dimensions in {*found, *wanted}:
            print(f"{dimensions}: missing {wanted.get(dimensions, set()) - found.get(dimensions, set())}, "
                  f"not wanted {found.get(dimensions, set()) - wanted.get(dimensions, set())}")
        raise
    return sum(len(names) for names in wanted.values())


def now():
    """As containerd stamps a line."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


JSON_LINE = re.compile(r'(?:\[rank \d+\] )?(\{"time":.*\})')


def parsed(line):
    return json.loads(JSON_LINE.fullmatch(line).group(1))


class Logs:
    """What kubelets would have below /var/log/pods: lines that programs really wrote, and what else is there."""

    PLAIN = "  #3 0x00005581e2 in main"  # of a backtrace

    def __init__(self, world, folder):
        written = world.folder / "dir" / "logs"
        self.launcher = live.wait_for("a line of the trainer", lambda: self.of_a_trainer(world, written), 60)
        self.lines = {}
        for name, namespace, container, file in (("pitcrew-operator-0", "pitcrew-system", "operator", written / "operator.log"),
                                                 (self.launcher, "default", "train", written / self.launcher / "train.log")):
            lines = [line for line in file.read_text(errors="replace").splitlines() if JSON_LINE.fullmatch(line)]
            self.lines[name] = (namespace, container, lines)
            place = folder / "pods" / f"{namespace}_{name}_0f1e2d3c-0000-4000-8000-000000000001" / container
            place.mkdir(parents=True)
            (place / "0.log").write_text("".join(self.records(lines)))

    def of_a_trainer(self, world, written):
        """The name of a launcher that has passed on a line of pitcrew-train, which rank 0 alone writes."""
        names = [one["metadata"]["name"] for one in running_launchers(world)]
        return next((name for name in names if '"program":"pitcrew-train"' in (written / name / "train.log").read_text(errors="replace")), None)

    def programs(self):
        return {parsed(line).get("program", "the operator") for _, _, lines in self.lines.values() for line in lines}

    def records(self, lines):
        """containerd's: a stamp, the stream, F for a whole line and P for a part, which here ends in a space."""
        cut = next(line for line in lines if " " in line)
        yield f"{now()} stderr P {cut[:cut.index(' ') + 1]}\n"
        yield f"{now()} stderr F {cut[cut.index(' ') + 1:]}\n"
        for line in (line for line in lines if line is not cut):
            yield f"{now()} stderr F {line}\n"
        yield f"{now()} stdout F {self.PLAIN}\n"


def logs_arrive_as_fields(logs, cloud):
    """A line's message is the event's body, its other fields are attributes; its time and level are the event's, and the pod the path's."""
    total = sum(len(lines) + 1 for _, _, lines in logs.lines.values())
    live.wait_for("the arrival of all lines", lambda: len(cloud.events("/pitcrew/test/logs")) >= total, 60)
    events = [(stream, stamp, json.loads(message)) for stream, stamp, message in cloud.events("/pitcrew/test/logs")]
    assert len(events) == total and {stream for stream, _, _ in events} == {"pitcrew"}, f"{len(events)} of {total}"
    for name, (namespace, container, lines) in logs.lines.items():
        mine = [one for one in events if one[2]["resource"]["k8s.pod.name"] == name]
        for _, _, event in mine:
            resource = event["resource"]
            assert (resource["k8s.namespace.name"], resource["k8s.container.name"]) == (namespace, container), resource
        plain = [event for _, _, event in mine if event["body"] == logs.PLAIN]
        assert len(plain) == 1 and "severity_text" not in plain[0], plain
        came = sorted(json.dumps({"message": event["body"], "stamp": stamp, "severity": event["severity_text"],
                                  **{k: v for k, v in event["attributes"].items() if not k.startswith("log")}}, sort_keys=True)
                      for _, stamp, event in mine if event["body"] != logs.PLAIN)
        wanted = []
        for line in map(parsed, lines):
            time = datetime.datetime.fromisoformat(line["time"].replace("Z", "+00:00"))
            wanted.append(json.dumps({**line, "stamp": round(time.timestamp() * 1000), "severity": line["level"]}, sort_keys=True))
        other = [(one, line) for one, line in zip(came, sorted(wanted)) if one != line]
        assert len(came) == len(wanted) and not other, f"{name}: {len(came)} of {len(wanted)}; came and wanted: {other[:2]}"
    return total


def workspace(world):
    """The Prometheus behind the workspace of Amazon Managed Prometheus."""
    world.port = live.free_port()
    (world.folder / "workspace.yml").write_text("{}")
    world.start("workspace", [shutil.which("prometheus"), f"--config.file={world.folder}/workspace.yml",
                              f"--storage.tsdb.path={world.folder}/tsdb", f"--web.listen-address=127.0.0.1:{world.port}",
                              "--web.enable-remote-write-receiver"])
    live.wait_for("the workspace's start", world.ready, 60)
    return world.port


def asked_for_no_more_than_documented(cloud):
    assert not cloud.refusals, cloud.refusals
    row = re.search(r"^\| IAM, CloudWatch \|(.*)\|$", PAGE, re.M).group(1)
    granted = set(re.findall(r"logs:\w+", row))
    assert cloud.actions == granted, f"asked for {cloud.actions}, docs/telemetry.md grants {granted}"


def told_no_errors(log):
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    loud = [line for line in lines if line["level"] not in ("info", "debug", "warn")]
    assert lines and not loud, loud[:3]


def main():
    live.LIBC.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: with the API server's script
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pitcrew-collector-"))
    live.TRAIN = live.TRAIN.replace("log: {every: 50}", "log: {every: 20, format: json}")
    world, cloud, failed = live.World(folder, PROGRAMS, 1000000, chaos=""), None, True
    try:
        the_file_is_accepted_as_it_is(folder)
        world.train()
        cluster = Cluster(world)
        cloud = aws.Aws(f"127.0.0.1:{workspace(world)}")
        logs = Logs(world, folder)
        (folder / "here.yaml").write_text(json.dumps(around(cluster, cloud, folder)))
        collector = world.start("collector", [OTELCOL, f"--config={EXAMPLE}", f"--config={folder}/here.yaml"], env=ENVIRONMENT)
        live.wait_for("the first write", lambda: cloud.writes or cloud.refusals or collector.poll() is not None, 120)
        assert collector.poll() is None, "the collector ended: " + (folder / "collector.log").read_text()[-3000:]
        series = all_series_arrive_with_their_labels(cluster, world.port)
        metrics = alarms_metrics_arrive_in_cloudwatch(cluster, cloud)
        lines = logs_arrive_as_fields(logs, cloud)
        collector.terminate()
        assert collector.wait(60) == 0, (folder / "collector.log").read_text()[-2000:]
        asked_for_no_more_than_documented(cloud)
        told_no_errors(folder / "collector.log")
        assert logs.programs() == {"the operator", "pitcrew-launcher", "pitcrew-train"}, logs.programs()
        print(f"{series} series by remote write, {metrics} metrics in CloudWatch, {lines} log lines of {', '.join(sorted(logs.programs()))}; "
              f"{cloud.writes} writes, all signatures right")
        failed = False
    finally:
        world.end()
        if cloud:
            cloud.close()
        if failed and os.environ.get("PITCREW_KEEP"):
            print(f"everything is in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
