#!/usr/bin/env python3
"""Every command of pitcrew that asks a cluster, typed against a running `pitcrew run --serve`.

    live_test.py PROGRAMS [--keep DIR]    DIR gets what the commands printed, one file each
"""
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "dashboards"))
from live import JOB, TRAIN  # noqa: E402

PROGRAMS = pathlib.Path(sys.argv[1]).resolve()
KEEP = pathlib.Path(sys.argv[3]) if len(sys.argv) > 3 else None
failures, checks = [], 0


def expect(good, what):
    global checks
    checks += 1
    if not good:
        failures.append(what)
        print("FAILED " + what)


class Typed:
    def __init__(self, arguments, code, out, err):
        self.line, self.code, self.out, self.err = "pitcrew " + " ".join(arguments), code, out, err


def main():
    with tempfile.TemporaryDirectory(prefix="pitcrew-cli-") as name:
        folder = pathlib.Path(name)
        (folder / "text").mkdir()
        (folder / "text/words.txt").write_text("gang epoch rank slot spare lease\n" * 4000)
        (folder / "train.yaml").write_text(TRAIN.replace("steps: 700", "steps: 100000"))
        (folder / "job.yaml").write_text(JOB % folder)
        log = open(folder / "run.log", "w")
        run = subprocess.Popen([PROGRAMS / "pitcrew", "run", folder / "job.yaml", "--serve", "--json", "--dir", folder / "dir",
                                "--chaos", "kill-rank@60"], stdout=log, stderr=log, cwd=folder)
        try:
            type_everything(folder, run)
        finally:
            run.send_signal(signal.SIGINT)
            try:
                expect(run.wait(timeout=120) == 0, "the run saved and stopped")
            except subprocess.TimeoutExpired:
                run.kill()
                run.wait()
                expect(False, "the run did not stop")
    print(f"{checks} checks, {len(failures)} failed")
    sys.exit(1 if failures else 0)


def type_everything(folder, run):
    kubeconfig = folder / "dir/kubeconfig"

    def pitcrew(*arguments, program="pitcrew", config=True, columns="100", limit=180):
        command = [PROGRAMS / program, *arguments] + (["--kubeconfig", str(kubeconfig)] if config else [])
        environment = {**os.environ, "COLUMNS": columns}
        ran = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=environment)
        typed = Typed(arguments, ran.returncode, ran.stdout, ran.stderr)
        if KEEP:
            KEEP.mkdir(parents=True, exist_ok=True)
            (KEEP / ("-".join(a.strip("-").replace("/", "_") for a in arguments) + f"-{columns}.txt")).write_text(
                f"$ {typed.line}\n{typed.out}{typed.err}")
        return typed

    def good(*arguments, has=(), code=0, **more):
        typed = pitcrew(*arguments, **more)
        expect(typed.code == code, f"{typed.line}: exit code {typed.code}, not {code}: {typed.out[-600:]}{typed.err[-600:]}")
        for text in has:
            expect(text in typed.out + typed.err, f"{typed.line}: no '{text}' in: {typed.out[-1200:]}{typed.err[-600:]}")
        return typed

    def until(condition, what, limit=150):
        end = time.monotonic() + limit
        while time.monotonic() < end:
            if run.poll() is not None:
                raise SystemExit("pitcrew run ended: " + (folder / "run.log").read_text()[-1500:])
            if condition():
                return
            time.sleep(0.3)
        raise SystemExit(f"{what} did not happen: " + pitcrew("status", "watched").out)

    until(kubeconfig.exists, "the API's opening")

    def document():
        typed = pitcrew("status", "watched", "-o", "json")
        return json.loads(typed.out) if typed.code == 0 else {}

    def settled():
        now = document()
        recovered = now.get("recoveries") and now["recoveries"][0].get("firstStep")
        return now.get("phase") == "Running" and recovered and now.get("checkpoint", {}).get("durable")

    until(settled, "the recovery and a checkpoint")

    good("status", "watched", has=["Running", "step", "RankCrash of rank 0", "InPlace", "durable step"])
    good("status", "watched", "-o", "wide", has=["SLOT", "ADDRESS"])
    good("status", "watched", "-o", "yaml", has=["phase: Running"])
    good("status", has=["NAME", "watched"])
    good("status", "-A", has=["NAMESPACE"])
    good("timeline", "watched", has=["created", "RankCrash of rank 0", "training again after"])
    expect(any(one["what"] == "recovery" for one in json.loads(pitcrew("timeline", "watched", "-o", "json").out)), "timeline as data")
    good("diagnose", "watched", has=["operator", "Nothing is wrong: it trains."])
    expect(json.loads(pitcrew("diagnose", "watched", "-o", "json").out)["findings"] == [], "diagnose as data")
    good("logs", "watched", "--tail", "20", has=["rank 0"])
    # The rest may speak of rank 1, who is slow or was lost, but is nothing that rank 1 says.
    first, second = (good("logs", "watched", "--rank", rank, "--tail", "50").out.splitlines() for rank in ("0", "1"))
    expect(first and not set(first) & set(second), "logs of one rank")
    good("stacks", "watched", has=["rank 0", "rank 1"])
    good("checkpoint", "now", "watched", has=["watched:"])
    good("checkpoint", "ls", "watched", has=["CHECKPOINT", "complete"])
    good("checkpoint", "verify", "watched", has=["every byte read", "intact"])
    here = folder / "dir/volumes/shared/watched"
    good("checkpoint", "ls", str(here), has=["complete"], config=False)
    newest = sorted(here.glob("step-*/*.safetensors"))[0]
    broken = folder / "broken"
    subprocess.run(["cp", "-r", here, broken], check=True)
    target = broken / newest.relative_to(here)
    data = bytearray(target.read_bytes())
    data[-5] ^= 1
    target.write_bytes(data)
    good("checkpoint", "verify", str(broken), "--name", target.parent.name, code=1, has=["digest"], config=False)
    good("nodes", has=["n0", "Ready", "nodes usable"])
    good("nodes", "n0", has=["n0: Ready"])
    # Every command with -o gives data that names what its text does, and the same as YAML.
    for arguments, of in ((("status", "watched"), "watched"), (("timeline", "watched"), "RankCrash"), (("diagnose", "watched"), "operator"),
                          (("nodes",), "n0"), (("nodes", "n0"), "n0"), (("checkpoint", "ls", "watched"), "step-"),
                          (("checkpoint", "verify", "watched"), "step-")):
        data = good(*arguments, "-o", "json", has=[of])
        try:
            document = json.loads(data.out)
        except ValueError:
            document = None
        expect(document, f"{data.line}: no JSON")
        expect(of in good(*arguments, "-o", "yaml").out, f"{data.line}: not the same as YAML")
    good("nodes", "-o", "wide", has=["n0"])
    good("nodes", "n99", code=4)
    good("top", "watched", "--once", has=["RANK", "DATA WAIT", "n0"])
    good("check", "node", "n0", code=4, has=["NodeHealth"])
    good("status", "absent", code=4, has=["there is no TrainingJob 'absent'"])
    good("status", "watched", "-o", "xml", code=2)
    good("status", "--kubeconfig", "/nowhere", code=2, config=False)
    away = folder / "away"
    away.write_text(re.sub('server: "[^"]*"', 'server: "https://127.0.0.1:1"', kubeconfig.read_text()))
    good("status", "--kubeconfig", str(away), code=3, config=False)
    good("completion", "bash", has=["complete -o default"], config=False)
    expect("status" in good("complete", "--", "st", config=False).out.split(), "completion of a command")
    expect("pitcrew" in good("--version", program="kubectl-pitcrew", config=False).out, "as kubectl's plugin")
    expect(good("st", program="kubectl_complete-pitcrew", config=False).out == "stacks\nstatus\n:4\n", "completions for kubectl")
    for columns in ("80", "120"):
        for arguments in (("status", "watched"), ("timeline", "watched"), ("diagnose", "watched"), ("nodes",), ("top", "watched", "--once")):
            typed = pitcrew(*arguments, columns=columns)
            for line in typed.out.splitlines():
                expect(len(line) <= int(columns) or "--kubeconfig" in line, f"{typed.line}: wider than {columns}: {line}")


main()
