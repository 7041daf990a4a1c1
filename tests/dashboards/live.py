#!/usr/bin/env python3
"""A real Prometheus scrapes the real operator and launchers while `pitcrew run` trains a job through injected faults; then
every query of every dashboard, variable and annotation is run, and must return data. With --keep DIR the answers stay there
for scripts/dashboards render. Exit code 77, with the reason, where there is no Prometheus."""
import argparse
import ctypes
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/dashboards"))
import agent_pages  # noqa: E402

SCRAPE = 1  # seconds
TRAIN = """
model: {kind: llama, layers: 2, width: 96, heads: 2, mlp: 256, vocab: 256, context: 96}
batch: {sequences: 8, micro: 2}
steps: 700
seed: 3
optimizer: {learningRate: 3e-3, weightDecay: 0.1, clip: 1.0}
schedule: {warmup: 10, decayTo: 0.1}
data: {text: {paths: [text]}}
threads: 1
peakTflops: 0.1
log: {every: 50}
"""
PORT = random.randint(20000, 30000)  # of the launchers: two runs on one machine share their pods' addresses
JOB = """
apiVersion: pitcrew.dev/v1alpha1
kind: TrainingJob
metadata: {name: watched}
spec:
  replicas: 2
  spares: 1
  template:
    spec:
      containers:
        - name: train
          command: [pitcrew-train, %s/train.yaml]
          ports: [{name: pitcrew-metrics, containerPort: PORT}]
          volumeMounts: [{name: shared, mountPath: /checkpoints}]
      volumes: [{name: shared, persistentVolumeClaim: {claimName: shared}}]
  checkpoint: {path: /checkpoints/watched, every: {steps: 50}, memory: {every: {steps: 10}, copies: 1}}
""".replace("PORT", str(PORT))
CHAOS = "kill-rank@100,kill-launcher@220,kill-node@340,hang@460"
FAULTS = 4
AT_LEAST = 60  # seconds: rates need some
# What only a fault or a rare event makes: empty is right where it hasn't happened.
MAY_BE_EMPTY = {"held out"}


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def get(url, token=None, limit=10):
    unchecked = ssl.create_default_context()
    unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    with urllib.request.urlopen(request, timeout=limit, context=unchecked) as answer:
        return json.load(answer)


def wait_for(what, condition, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.2)
    raise SystemExit(f"{what} did not happen within {seconds} s")


LIBC = ctypes.CDLL(None)


def with_this_process():
    """A child ends with the test, however that ends."""
    LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class World:
    """The run, its Prometheus and the agents' pages; everything ends with it."""

    def __init__(self, folder, programs, long, chaos=CHAOS):
        self.folder, self.programs, self.long, self.chaos = folder, programs, long, chaos
        self.processes = []

    def start(self, name, command, **more):
        log = open(self.folder / f"{name}.log", "w")
        self.processes.append(subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=with_this_process, **more))
        return self.processes[-1]

    def train(self):
        text = self.folder / "text"
        text.mkdir()
        words = random.Random(1)
        (text / "words.txt").write_text(" ".join(words.choice(["gang", "epoch", "rank", "slot", "spare"]) for _ in range(20000)))
        (self.folder / "train.yaml").write_text(TRAIN.replace("steps: 700", f"steps: {self.long}"))
        (self.folder / "job.yaml").write_text(JOB % self.folder)
        self.run = self.start("run", [self.programs / "pitcrew", "run", self.folder / "job.yaml", "--nodes", "4", "--serve", "--json",
                                      "--dir", self.folder / "dir", *(["--chaos", self.chaos] if self.chaos else [])], cwd=self.folder)
        here = self.folder / "dir"
        wait_for("the API's opening", lambda: (here / "metrics-address").exists() or self.run.poll() is not None, 60)
        if self.run.poll() is not None:
            raise SystemExit("pitcrew run ended: " + (self.folder / "run.log").read_text()[-2000:])
        config = (here / "kubeconfig").read_text()
        self.api = config.split('server: "')[1].split('"')[0]
        self.token = config.split("token: ")[1].split("}")[0]
        self.operator = (here / "metrics-address").read_text().strip()

    def scrape(self):
        self.pods = {}
        self.agents = agent_pages.serve(self.programs / "dashboards_agent_page", ["n0", "n1", "n2", "n3"], self.pods)
        self.port = free_port()
        self.targets()
        (self.folder / "prometheus.yml").write_text(json.dumps({
            "global": {"scrape_interval": f"{SCRAPE}s", "scrape_timeout": f"{SCRAPE}s"},
            "scrape_configs": [{"job_name": "pitcrew", "honor_labels": True,
                                "file_sd_configs": [{"files": [str(self.folder / "targets.json")], "refresh_interval": "1s"}],
                                # As the chart's PodMonitors do: `job` is the TrainingJob's name, not the scrape's.
                                "relabel_configs": [{"source_labels": ["training_job"], "target_label": "job"},
                                                    {"regex": "training_job", "action": "labeldrop"}]}]}))
        self.start("prometheus", [shutil.which("prometheus"), f"--config.file={self.folder}/prometheus.yml",
                                  f"--storage.tsdb.path={self.folder}/tsdb", f"--web.listen-address=127.0.0.1:{self.port}"])
        wait_for("Prometheus' start", self.ready, 60)

    def ready(self):
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=2).status == 200
        except OSError:
            return False

    def targets(self):
        """What service discovery does in a cluster: pods come and go."""
        targets = [{"targets": [self.operator], "labels": {"training_job": "", "pod": "pitcrew-operator-0"}}]
        for node, address in self.agents.items():
            targets.append({"targets": [address], "labels": {"training_job": "", "node": node}})
        try:
            pods = get(f"{self.api}/api/v1/namespaces/default/pods", self.token)["items"]
        except OSError:
            return
        for pod in pods:
            address = pod.get("status", {}).get("podIP")
            if address and pod["status"].get("phase") == "Running":
                targets.append({"targets": [f"{address}:{PORT}"],
                                "labels": {"training_job": pod["metadata"]["labels"].get("pitcrew.dev/job", ""), "namespace": "default",
                                           "pod": pod["metadata"]["name"], "node": pod["spec"].get("nodeName", "")}})
            if address and pod["metadata"].get("labels", {}).get("pitcrew.dev/job"):
                self.pods[pod["spec"].get("nodeName", "")] = pod["metadata"]["name"]
        file = self.folder / "targets.new"
        file.write_text(json.dumps(targets))
        file.rename(self.folder / "targets.json")

    def query(self, kind, expression, **parameters):
        parameters["query"] = expression
        try:
            return get(f"http://127.0.0.1:{self.port}/api/v1/{kind}?" + urllib.parse.urlencode(parameters))["data"]["result"]
        except urllib.error.HTTPError as error:
            return error.read().decode()

    def end(self):
        for process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM if process is not getattr(self, "run", None) else signal.SIGKILL)
        for process in self.processes:
            process.wait(timeout=60)


def settled(world):
    """Every fault has come and is over, and a stretch was trained after the last."""
    events = []
    for line in (world.folder / "run.log").read_text().splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    faults = [one for one in events if one.get("event") == "chaos"]
    steps = [one.get("step", 0) for one in events if one.get("event") == "progress" and one.get("phase") == "Running"]
    return len(faults) >= FAULTS and bool(steps) and steps[-1] > faults[-1].get("step", 0) + 60


def fill_in(expression, world_range):
    return expression.replace("$namespace", "default").replace("$job", "watched").replace("$__range", world_range).replace(
        "$__interval", "15s")


def panels_of(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def ask_everything(world, began, now):
    whole = f"{int(now - began)}s"
    answers, empty, asked = {}, [], 0
    for file in sorted((ROOT / "charts/pitcrew/dashboards").glob("*.json")):
        dashboard = json.loads(file.read_text())
        answers[file.stem] = {}
        for panel in panels_of(dashboard):
            for target in panel["targets"]:
                expression = fill_in(target["expr"], whole)
                if target["range"]:
                    result = world.query("query_range", expression, start=began, end=now, step=2)
                else:
                    result = world.query("query", expression, time=now)
                asked += 1
                answers[file.stem][f"{panel['id']}/{target['refId']}"] = result
                # Data means: a number, and not NaN throughout.
                values = [v for one in result if isinstance(one, dict) for v in ([one["value"]] if "value" in one else one["values"])]
                if not any(value[1] != "NaN" for value in values) and target["legendFormat"] not in MAY_BE_EMPTY:
                    empty.append(f"{file.stem}: {panel['title']}: {expression}" + (f"\n    {result}" if isinstance(result, str) else ""))
        for one in dashboard["annotations"]["list"]:
            asked += 1
            answers[file.stem]["annotations"] = world.query("query", fill_in(one["expr"], whole), time=now)
            if len(answers[file.stem]["annotations"]) < 3:
                empty.append(f"{file.stem}: annotation {one['name']}: {answers[file.stem]['annotations']}")
        for one in dashboard["templating"]["list"]:
            if one["type"] == "query":
                asked += 1
                selector, label = one["definition"][len("label_values("):-1].rsplit(",", 1)
                result = world.query("query", fill_in(selector, whole), time=now)
                if not any(label.strip() in series["metric"] for series in result):
                    empty.append(f"{file.stem}: variable {one['name']}: {result}")
    return answers, empty, asked


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--programs", default=str(ROOT / "build/release/bin"))
    parser.add_argument("--keep", help="write answers.json here")
    parser.add_argument("--steps", type=int, default=100000, help="of the job, at most")
    options = parser.parse_args()
    if not shutil.which("prometheus"):
        print("no Prometheus here: install Debian's package prometheus")
        sys.exit(77)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pitcrew-dashboards-"))
    world = World(folder, pathlib.Path(options.programs).resolve(), options.steps)
    failed = True
    try:
        world.train()
        began = time.time()
        world.scrape()

        def on():
            world.targets()
            if world.run.poll() is not None:
                raise SystemExit("pitcrew run ended too early: " + (folder / "run.log").read_text()[-1500:])
            return time.time() - began > AT_LEAST and settled(world)

        wait_for("the end of all faults", on, 300)
        now = time.time()
        answers, empty, asked = ask_everything(world, began, now)
        if options.keep:
            keep = pathlib.Path(options.keep)
            keep.mkdir(parents=True, exist_ok=True)
            (keep / "answers.json").write_text(json.dumps({"began": began, "now": now, "answers": answers}))
        print(f"{asked} queries, {len(empty)} without data, over {now - began:.0f} s and {FAULTS} faults")
        for one in empty:
            print("no data: " + one)
        failed = bool(empty)
    finally:
        world.end()
        if failed and os.environ.get("PITCREW_KEEP"):
            print(f"everything is in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
