#!/usr/bin/env python3
"""What needs no cluster: dashboards are not stale, every metric that a dashboard or an alert uses is described, every alert has
a runbook and a test, and promtool's tests of the alerts pass. Exit code 77 where there is no promtool."""
import json
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
RULES = ROOT / "charts/pitcrew/alerts/pitcrew.yaml"
# The process's own, by prometheus-cpp's side.
NOT_OURS = {"process_resident_memory_bytes", "process_cpu_seconds_total"}
METRIC = re.compile(r"\b(?:pitcrew|DCGM|workqueue|rest_client|controller_runtime|leader_election|process)_[A-Za-z0-9_]+")
failures = []


def expect(good, what):
    if not good:
        failures.append(what)


def described():
    """Names that docs/metrics.md and docs/agent-metrics.md have a row for."""
    names = set()
    for page in ("docs/metrics.md", "docs/agent-metrics.md"):
        names.update(re.findall(r"^\| `([A-Za-z0-9_]+)`", (ROOT / page).read_text(), re.M))
    return names


def base(name):
    return re.sub(r"_(bucket|sum|count)$", "", name)


def used():
    found = {}
    for file in (ROOT / "charts/pitcrew/dashboards").glob("*.json"):
        for name in METRIC.findall(file.read_text()):
            found.setdefault(name, file.name)
    for line in RULES.read_text().splitlines():
        if not re.match(r"\s*(summary|description|runbook_url|- alert|#|name)", line):
            for name in METRIC.findall(line):
                found.setdefault(name, RULES.name)
    return found


stale = subprocess.run([sys.executable, ROOT / "charts/dashboards/generate.py", "--check"], capture_output=True, text=True)
expect(stale.returncode == 0, stale.stderr)

known = described()
for name, where in used().items():
    expect(name in known or base(name) in known or name in NOT_OURS, f"{where} uses {name}, which nothing describes")

for file in (ROOT / "charts/pitcrew/dashboards").glob("*.json"):
    dashboard = json.loads(file.read_text())
    expect(dashboard["templating"]["list"][0]["type"] == "datasource", f"{file.name}: no variable for the data source")
    ids = [panel["id"] for panel in dashboard["panels"]]
    expect(len(ids) == len(set(ids)), f"{file.name}: two panels with one id")
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            continue
        place = panel["gridPos"]
        expect(place["x"] + place["w"] <= 24, f"{file.name}: {panel['title']} sticks out")
        expect(panel["fieldConfig"]["defaults"]["unit"], f"{file.name}: {panel['title']} has no unit")
        expect(panel["fieldConfig"]["defaults"]["thresholds"]["steps"], f"{file.name}: {panel['title']} has no thresholds")
        for target in panel["targets"]:
            expect(target["datasource"]["uid"] == "${datasource}", f"{file.name}: {panel['title']}: a fixed data source")
            several = len(panel["targets"]) > 1 or re.search(r"\bby \(|namespace=", target["expr"])
            expect(target["legendFormat"] != "__auto" or panel["type"] != "timeseries" or not several,
                   f"{file.name}: {panel['title']} has no legend")

alerts = re.findall(r"- alert: (\w+)", RULES.read_text())
tests = (ROOT / "tests/dashboards/alerts_test.yaml").read_text()
for alert in alerts:
    expect((ROOT / f"docs/runbooks/{alert}.md").exists(), f"{alert} has no runbook")
    blocks = re.findall(rf"alertname: {alert}\b(.*?)(?=eval_time|\Z)", tests, re.S)
    quiet = sum("exp_alerts: []" in block for block in blocks)
    fires = sum("exp_alerts: []" not in block for block in blocks)
    expect(fires >= 1 and quiet >= 2, f"{alert}: a test must show that it fires, does not fire, and resolves")
expect(len(alerts) == len(set(alerts)) and len(alerts) >= 9, "alerts are missing, or twice there")

if not shutil.which("promtool"):
    print("no promtool here: install Debian's package prometheus")
    sys.exit(77 if not failures else 1)
for command in (["check", "rules", RULES], ["test", "rules", ROOT / "tests/dashboards/alerts_test.yaml"]):
    ran = subprocess.run(["promtool", *command], capture_output=True, text=True)
    expect(ran.returncode == 0, ran.stdout + ran.stderr)

print(f"{len(used())} metrics used, {len(alerts)} alerts")
for one in failures:
    print("FAILED " + one)
sys.exit(1 if failures else 0)
