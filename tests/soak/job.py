#!/usr/bin/env python3
"""One job that recovers again and again and saves hundreds of checkpoints, under `pitcrew run` with real launchers and real
trainers. Fails where it doesn't end well, where a checkpoint is damaged, where files or processes stay, or where memory,
descriptors or threads of operator and launchers grow.

    job.py BIN [--recoveries 100] [--checkpoints 500] [--limit 3600]

BIN holds pitcrew, pitcrew-launcher and pitcrew-train."""
import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from watch import Month, Watched, tell  # noqa: E402

SAVE_EVERY = 4  # steps
KEEP = 3
STEPS_BETWEEN = 150  # failures: `pitcrew run` looks twice a second whether one is due, and a step may take 10 ms
# A step here is a hundredth of a second, and a failure comes every second or two: what is kept is of recoveries, not of steps.
# A thousand of them, as many as in these steps, are more than any job's month.
RUN_MONTH = Month(work=1000 * STEPS_BETWEEN, megabytes=256)  # twice what the first ten failures, when all is filled, make of it
LAUNCHER_MONTH = Month(work=1000 * STEPS_BETWEEN, megabytes=32)
LAUNCHER_EVERY = 25  # of so many failures one is a launcher's, the others are ranks'
TRAIN = """
model: {{kind: llama, layers: 2, width: 64, heads: 2, mlp: 192, vocab: 256, context: 64}}
batch: {{sequences: 8, micro: 2}}
steps: {steps}
seed: 3
optimizer: {{learningRate: 3e-3, weightDecay: 0.1, clip: 1.0}}
schedule: {{warmup: 10, decayTo: 0.1}}
data: {{text: {{paths: [text]}}}}
threads: 1
log: {{every: 1000}}
"""
JOB = """
apiVersion: pitcrew.dev/v1alpha1
kind: TrainingJob
metadata: {{name: soak}}
spec:
  replicas: 2
  recovery:
    limit: {{restarts: 1000, window: 6h}}
    inPlace: {{limit: 1000, window: 1h}}
    avoidNodes: {{afterFailures: 1000, limit: 1}}
  template:
    spec:
      containers:
        - name: train
          command: [pitcrew-train, {folder}/train.yaml]
          volumeMounts: [{{name: shared, mountPath: /checkpoints}}]
      volumes: [{{name: shared, persistentVolumeClaim: {{claimName: shared}}}}]
  checkpoint: {{path: /checkpoints/soak, every: {{steps: {every}}}, keep: {keep}, memory: {{every: {{steps: 2}}, copies: 1}}}}
"""


def processes_below(pid):
    """{pid: name} of all that descend from a process."""
    found, todo = {}, [pid]
    while todo:
        one = todo.pop()
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                below = [int(child) for child in task.read_text().split()]
            except OSError:
                continue
            for child in below:
                try:
                    found[child] = Path(f"/proc/{child}/comm").read_text().strip()
                except OSError:
                    continue
                todo.append(child)
    return found


def prepare(folder, recoveries, checkpoints):
    steps = max(checkpoints * SAVE_EVERY, recoveries * STEPS_BETWEEN) + 20
    (folder / "text").mkdir()
    words = random.Random(1)
    (folder / "text/words.txt").write_text(" ".join(words.choice(["gang", "epoch", "rank", "slot", "spare"]) for _ in range(5000)))
    (folder / "train.yaml").write_text(TRAIN.format(steps=steps))
    (folder / "job.yaml").write_text(JOB.format(folder=folder, every=SAVE_EVERY, keep=KEEP))
    first, gap = 10, (steps - 20) // recoveries
    chaos = [f"kill-{'launcher' if number % LAUNCHER_EVERY == LAUNCHER_EVERY - 1 else 'rank'}@{first + number * gap}"
             for number in range(recoveries)]
    return steps, ",".join(chaos)


class Run:
    def __init__(self, programs, folder, chaos):
        self.folder, self.dir = folder, folder / "dir"
        self.output = open(folder / "run.log", "w")
        self.process = subprocess.Popen([programs / "pitcrew", "run", folder / "job.yaml", "--nodes", "2", "--json", "--dir", self.dir,
                                         "--chaos", chaos, "--report", folder / "report.json"],
                                        cwd=folder, stdout=self.output, stderr=self.output)
        self.launchers = {}  # pid: Watched
        self.below = {}

    def steps(self):
        """How far it is, from the survivors' history's last line."""
        try:
            with open(self.dir / "steps.jsonl", "rb") as file:
                file.seek(0, 2)
                file.seek(max(0, file.tell() - 4096))
                lines = file.read().decode(errors="replace").splitlines()
            return json.loads(lines[-1])["step"] if lines else 0
        except (OSError, ValueError, KeyError, IndexError):
            return 0

    def look(self, work):
        self.below = processes_below(self.process.pid)
        for pid, name in self.below.items():
            if name.startswith("pitcrew-launch"):
                self.launchers.setdefault(pid, Watched(f"launcher {pid}", pid, month=LAUNCHER_MONTH)).look(work)

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.output.close()


def watch(run, steps, limit):
    """Samples until the run ends; returns what was seen of the process of operator and kubelets, and the seconds."""
    whole = Watched("pitcrew run", run.process.pid, month=RUN_MONTH)
    begin = time.monotonic()
    while run.process.poll() is None:
        if time.monotonic() - begin > limit:
            raise SystemExit(f"it is at step {run.steps()} of {steps} after {limit} s: {(run.folder / 'run.log').read_text()[-1500:]}")
        work = run.steps()
        whole.look(work)
        run.look(work)
        time.sleep(0.3)
    return whole, time.monotonic() - begin


def judge(run, whole, recoveries, checkpoints):
    wrong = []
    if run.process.returncode != 0:
        wrong.append(f"it ended with {run.process.returncode}: {(run.folder / 'run.log').read_text()[-1500:]}")
        return wrong, []
    report = json.loads((run.folder / "report.json").read_text())
    if len(report["recoveries"]) < recoveries * 0.9:
        wrong.append(f"{len(report['recoveries'])} recoveries of {recoveries}")
    slow = sorted(one.get("secondsToTraining") or 0 for one in report["recoveries"])
    saved = sum(log.read_text(errors="replace").count("saved durable checkpoint of step") for log in (run.dir / "logs").glob("*/rank-0.log"))
    if saved < checkpoints * 0.9:
        wrong.append(f"{saved} checkpoints of {checkpoints}")
    folder = run.dir / "volumes/shared/soak"
    whole_ones = sorted(path.parent.name for path in folder.glob("step-*/manifest.json"))
    left = [path.name for path in folder.iterdir() if path.name.startswith("step-") and not (path / "manifest.json").exists()]
    # What a killed writer left is removed by the next epoch; the last one has left nothing.
    if len(whole_ones) > KEEP + 1 or left:
        wrong.append(f"checkpoints that stay: {whole_ones}, without a manifest: {left}")
    said = [json.loads(line) for log in (run.dir / "logs").glob("*/train.log")
            for line in log.read_text(errors="replace").splitlines() if line.startswith("{") and '"pitcrew-launcher"' in line]
    nameless = [line for line in said if not {"namespace", "pod", "jobUID"} <= line.keys()]
    if not said or nameless:
        wrong.append(f"of {len(said)} lines of launchers these don't say whose they are: {nameless[:2]}")
    claims = len(list((folder / "claims").glob("*"))) if (folder / "claims").exists() else 0
    print(f"{report['steps']} steps, {report['epochs']} epochs, {len(report['recoveries'])} recoveries (to training again: median "
          f"{slow[len(slow) // 2] if slow else 0:.2f} s, worst {slow[-1] if slow else 0:.2f} s), {saved} durable checkpoints saved, "
          f"{len(whole_ones)} kept, {claims} files of claims", flush=True)
    verdicts = []
    for one in [whole, *run.launchers.values()]:
        if one is whole or len(one.points) >= 20:
            verdicts.append((one.name, *one.verdict()))
    return wrong, verdicts


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("programs", type=Path)
    parser.add_argument("--recoveries", type=int, default=100)
    parser.add_argument("--checkpoints", type=int, default=500)
    parser.add_argument("--limit", type=float, default=3600)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pitcrew-soak-") as name:
        folder = Path(name)
        steps, chaos = prepare(folder, arguments.recoveries, arguments.checkpoints)
        run = Run(arguments.programs.resolve(), folder, chaos)
        try:
            whole, seconds = watch(run, steps, arguments.limit)
        finally:
            run.end()
        wrong, verdicts = judge(run, whole, arguments.recoveries, arguments.checkpoints)
        stay = {pid: name for pid, name in run.below.items() if Path(f"/proc/{pid}/exe").exists()}
        if stay:
            wrong.append(f"processes that stay: {stay}")
        bad = tell([*verdicts, ("the job", {"seconds": round(seconds)}, wrong)])
    print("nothing grows" if not bad else f"{bad} things are wrong")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
