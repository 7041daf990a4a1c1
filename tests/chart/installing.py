"""Cases about what comes with the chart beside operator and agents: the uninstall hook, `helm test`, optional objects, and
the examples. Real programs of ours, with the rights that the chart gives them."""

import json
import os
import subprocess
import sys
from pathlib import Path

from agents import condition, make_node, taint
from shared import CHART, NAMESPACE, ROOT, WORK, case, good, kubeconfig_of, kubectl

PROGRAMS = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "release" / "bin"
REGISTRY = "image.registry=registry.example.com/pitcrew"


def hooks(kind):
    """The release's hooks of a kind, as `helm uninstall` and `helm test` would create them."""
    documents = good("helm", "get", "hooks", "pitcrew", "--namespace", NAMESPACE).split("\n---\n")
    return [text for text in documents if f"helm.sh/hook: {kind}\n" in text]


def program(name, *words, code=0):
    done = subprocess.run([str(PROGRAMS / name), *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == code, f"{name} {' '.join(words)}: exit code {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def patch(node, body, manager, *flags):
    kubectl("patch", "node", node, "--type=merge", f"--field-manager={manager}", *flags, "-p", json.dumps(body))


def mark(node):
    """What an agent has written after a fault."""
    patch(node, {"metadata": {"labels": {"pitcrew.dev/unhealthy": "xid-79"},
                              "annotations": {"pitcrew.dev/cordoned": "2026-03-01T02:14:07.250Z xid-79"}},
                 "spec": {"unschedulable": True, "taints": [taint("example.com/reserved"), taint("pitcrew.dev/unhealthy")]}}, "pitcrew-agent")
    conditions = {"status": {"conditions": [condition("Ready", "True"), condition("PitcrewHealthy")]}}
    patch(node, conditions, "pitcrew-agent", "--subresource=status")


def left_on(node):
    """What of ours is on a node, and whether it is cordoned."""
    found = json.loads(kubectl("get", "node", node, "-o", "json"))
    meta, spec = found["metadata"], found["spec"]
    names = [*meta["labels"], *meta["annotations"], *(t["key"] for t in spec.get("taints", [])), *(c["type"] for c in found["status"]["conditions"])]
    return {name for name in names if "itcrew" in name}, spec.get("unschedulable", False)


@case
def the_uninstall_hook_takes_back_what_is_still_ours():
    for name in ("gone-bad", "also-cordoned", "held"):
        make_node(name, f"i-{name}")
        mark(name)
    make_node("well", "i-well")
    patch("well", {"status": {"conditions": [condition("Ready", "True"), condition("PitcrewHealthy", "True")]}}, "pitcrew-agent", "--subresource=status")
    # Somebody makes the cordon theirs, and somebody holds a node as it is.
    kubectl("uncordon", "also-cordoned")
    kubectl("cordon", "also-cordoned")
    patch("held", {"metadata": {"annotations": {"pitcrew.dev/hold": "true"}}}, "kubectl")

    rendered = hooks("pre-delete")
    job = next(text for text in rendered if "kind: Job\n" in text)
    for text in rendered:
        kubectl("apply", *(["--dry-run=server"] if text is job else []), "-f", "-", text=text)
    words = json.loads(kubectl("create", "--dry-run=client", "-o", "json", "-f", "-", text=job))["spec"]["template"]["spec"]["containers"][0]["args"]
    said = program("pitcrew-agent", *words, "--kubeconfig", kubeconfig_of("pitcrew-uninstall"))

    assert left_on("gone-bad") == (set(), False), left_on("gone-bad")
    assert left_on("well") == (set(), False), left_on("well")
    assert left_on("also-cordoned") == (set(), True), left_on("also-cordoned")
    everything = {"pitcrew.dev/unhealthy", "pitcrew.dev/cordoned", "pitcrew.dev/hold", "PitcrewHealthy"}
    assert left_on("held") == (everything, True), left_on("held")
    taints = json.loads(kubectl("get", "node", "gone-bad", "-o", "json"))["spec"]["taints"]
    assert [t["key"] for t in taints] == ["example.com/reserved"], taints
    for words in ("also-cordoned: stays cordoned", "held: left as it is"):
        assert words in said, said
    assert "kubectl delete crd trainingjobs.pitcrew.dev" in said.splitlines()[-1], said
    daemon_sets = kubectl("-n", NAMESPACE, "get", "daemonsets", "-o", "name")
    assert "pitcrew-agent" not in daemon_sets, "agents still run and would mark nodes again"
    again = program("pitcrew-agent", "--take-back", "--kubeconfig", kubeconfig_of("pitcrew-uninstall"))
    assert again.startswith("0 of "), again
    for name in ("gone-bad", "also-cordoned", "held", "well"):
        kubectl("delete", "node", name)


@case
def the_uninstall_hooks_account_may_do_nothing_else():
    account = f"--as=system:serviceaccount:{NAMESPACE}:pitcrew-uninstall"
    for verb, what in (("delete", "nodes"), ("create", "pods"), ("get", "secrets"), ("delete", "trainingjobs.pitcrew.dev"), ("delete", "daemonsets/other")):
        done = subprocess.run(["kubectl", "auth", "can-i", verb, what, "-n", NAMESPACE, account], capture_output=True, text=True)
        assert done.stdout.strip() == "no", f"{verb} {what}: {done.stdout}"


@case
def what_helm_test_makes_is_admitted_and_waited_for():
    kubectl("delete", "trainingjob", "pitcrew-test", "-n", NAMESPACE, "--ignore-not-found")
    rendered = hooks("test")
    assert len(rendered) == 6, len(rendered)
    for text in rendered:
        # The pod would wait for a scheduler.
        kubectl("apply", *(["--dry-run=server"] if "kind: Pod\n" in text else []), "-f", "-", text=text)
    config = kubeconfig_of("pitcrew-test")
    wait = ("wait", "pitcrew-test", "--namespace", NAMESPACE, "--kubeconfig", config)
    said = program("pitcrew", *wait, "--timeout", "2s", code=5)
    assert "diagnose pitcrew-test" in said, said
    with subprocess.Popen([str(PROGRAMS / "pitcrew"), *wait], stdout=subprocess.PIPE, text=True) as waiting:
        for phase in ("Starting", "Running", "Succeeded"):
            kubectl("-n", NAMESPACE, "patch", "tj", "pitcrew-test", "--subresource=status", "--type=merge", "-p", json.dumps({"status": {"phase": phase}}))
            line = waiting.stdout.readline()
            while "Pending" in line:
                line = waiting.stdout.readline()
            assert line == f"pitcrew-test: {phase}\n", line
        assert waiting.wait(30) == 0
    assert "ended as Succeeded" in program("pitcrew", *wait, "--for", "Running", code=1)
    kubectl("-n", NAMESPACE, "delete", "tj", "pitcrew-test")


@case
def everything_optional_is_admitted():
    values = str(ROOT / "tests/chart/values/everything.yaml")
    rendered = good("helm", "template", "pitcrew-two", str(CHART), "--namespace", "optional", "--values", values, "--set", "monitors.enabled=false,alerts.enabled=false")
    for namespace in ("optional", "team-a", "team-b", "monitoring"):
        subprocess.run(["kubectl", "create", "namespace", namespace], capture_output=True)
    said = kubectl("apply", "--dry-run=server", "-f", "-", text=rendered)
    for kind in ("flowschema", "priorityclass", "networkpolicy", "poddisruptionbudget", "trainingjob"):
        assert kind in said, f"no {kind} in: {said}"


@case
def kubectl_finds_pitcrew_as_a_plugin():
    path = {**os.environ, "PATH": f"{PROGRAMS}:{os.environ['PATH']}"}
    for words in (("status", "-A"), ("nodes",)):
        done = subprocess.run(["kubectl", "pitcrew", *words], capture_output=True, text=True, timeout=60, env=path)
        assert done.returncode == 0, f"kubectl pitcrew {' '.join(words)}: exit code {done.returncode}: {done.stdout}{done.stderr}"
    listed = subprocess.run(["kubectl", "plugin", "list"], capture_output=True, text=True, timeout=60, env=path).stdout
    assert str(PROGRAMS / "kubectl-pitcrew") in listed, listed
    asked = subprocess.run(["kubectl", "__complete", "pitcrew", "sta"], capture_output=True, text=True, timeout=60, env=path)
    assert {"stacks", "status"} <= set(asked.stdout.split()), f"{asked.stdout}{asked.stderr}"


@case
def every_example_and_manifest_of_a_page_is_admitted_and_valid():
    files = [file for file in sorted((ROOT / "examples").rglob("*.yaml")) if "\nkind: TrainingJob" in file.read_text()]
    assert len(files) >= 6, files
    shown = WORK / "shown"
    shown.mkdir()
    good("python3", str(ROOT / "tests/house/docs.py"), "--manifests", str(shown))
    files += sorted(shown.iterdir())
    kubectl("create", "namespace", "shown")
    for file in files:
        kubectl("create", "--dry-run=server", "--validate=strict", "--namespace", "shown", "-f", str(file))
        program("pitcrew", "validate", str(file))
    print(f"  {len(files)} examples and manifests of pages")
