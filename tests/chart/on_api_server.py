#!/usr/bin/env python3
"""What on_api_server.sh runs: KUBECONFIG leads to an API server without controllers; kubectl and helm are on PATH."""

import json
import re
import shutil
import sys
import time

sys.dont_write_bytecode = True

from shared import ACCOUNT, CASES, CHART, NAMESPACE, ROOT, WORK, case, good, kubectl, refused, run  # noqa: E402


def job(name="demo", **spec):
    return json.dumps(
        {
            "apiVersion": "pitcrew.dev/v1alpha1",
            "kind": "TrainingJob",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "replicas": 2,
                "template": {
                    "spec": {
                        "tolerations": [{"key": "gpu", "operator": "Exists"}],
                        "containers": [
                            {
                                "name": "train",
                                "image": "example/train",
                                "command": ["train"],
                                "volumeMounts": [{"name": "shared", "mountPath": "/checkpoints"}],
                            }
                        ],
                        "volumes": [{"name": "shared", "persistentVolumeClaim": {"claimName": "shared"}}],
                    }
                },
                "checkpoint": {"path": "/checkpoints/demo", "every": {"steps": 100}},
                **spec,
            },
        }
    )


def older_chart():
    """The chart as an earlier version might have been: its TrainingJob knows no goodput, and a value is not there yet."""
    folder = WORK / "older"
    shutil.copytree(CHART, folder)
    file = folder / "files/crds/trainingjob.yaml"
    text, count = re.subn(r"    - name: Goodput\n(      .*\n)+", "", file.read_text())
    assert count == 1, "there is no column Goodput"
    file.write_text(text)
    values = folder / "values.yaml"
    text, count = re.subn(r"\n  architecture: amd64\n", "\n", values.read_text())
    assert count == 1, "there is no value image.architecture"
    values.write_text(text)
    return folder


def columns():
    return kubectl("get", "crd", "trainingjobs.pitcrew.dev", "-o", "jsonpath={.spec.versions[0].additionalPrinterColumns[*].name}").split()


@case
def helm_installs_and_upgrades():
    values = ("--namespace", NAMESPACE, "--set", "image.registry=registry.example.com/pitcrew")
    good("helm", "install", "pitcrew", str(older_chart()), *values, "--create-namespace")
    kubectl("wait", "--for=condition=Established", "crd/trainingjobs.pitcrew.dev", "--timeout=60s")
    assert "Goodput" not in columns() and "Phase" in columns()
    nodes = ("-n", NAMESPACE, "get", "deployment", "pitcrew-operator", "-o", "jsonpath={.spec.template.spec.nodeSelector}")
    assert "amd64" not in kubectl(*nodes)
    good("helm", "upgrade", "pitcrew", str(CHART), "--namespace", NAMESPACE, "--reset-then-reuse-values")
    assert "Goodput" in columns(), "the definition was not upgraded with the chart"
    assert "amd64" in kubectl(*nodes), "a new value's default is not taken"
    good("helm", "upgrade", "pitcrew", str(CHART), *values, "--set", "operator.replicas=3")
    replicas = ("-n", NAMESPACE, "get", "deployment", "pitcrew-operator", "-o", "jsonpath={.spec.replicas}")
    assert kubectl(*replicas) == "3"
    good("helm", "rollback", "pitcrew", "2", "--namespace", NAMESPACE)
    assert kubectl(*replicas) == "2"
    service = json.loads(kubectl("-n", NAMESPACE, "get", "service", "pitcrew-channel", "-o", "json"))
    assert "selector" not in service["spec"], service
    # kubectl's discovery has to know the new resource.
    for _ in range(100):
        if run("kubectl", "get", "trainingjobs")[0] == 0:
            return
        time.sleep(0.1)
    raise AssertionError("trainingjobs are not served")


@case
def the_definition_has_no_complaints():
    crd = json.loads(kubectl("get", "crd", "trainingjobs.pitcrew.dev", "-o", "json"))
    for condition in crd["status"]["conditions"]:
        wanted = "True" if condition["type"] in ("Established", "NamesAccepted") else "False"
        assert condition["status"] == wanted, condition
    kubectl("apply", "--server-side", "--dry-run=server", "--force-conflicts", "-f", str(ROOT / "crds" / "trainingjob.yaml"))


@case
def kubectl_applies_gets_and_explains():
    kubectl("apply", "-f", "-", "--dry-run=server", text=job())
    kubectl("apply", "-f", "-", "--dry-run=client", text=job())
    assert "created" in kubectl("apply", "-f", "-", text=job())
    assert "unchanged" in kubectl("apply", "-f", "-", text=job())
    assert "serverside-applied" in kubectl("apply", "--server-side", "-f", "-", text=job("by-the-server"))
    assert "serverside-applied" in kubectl("apply", "--server-side", "-f", "-", text=job("by-the-server", spares=1))
    table = kubectl("get", "tj")
    head = table.splitlines()[0].split()
    assert head == ["NAME", "PHASE", "STEP", "LOSS", "READY", "RESTARTS", "GOODPUT", "AGE"], table
    assert "trainingjob.pitcrew.dev/demo" in kubectl("get", "all"), "not in the category all"
    for path, words in {
        "trainingjob": "go on by themselves after a failure",
        "tj.spec.recovery.waitInPlace": "How long healthy replicas wait",
        "tj.spec.checkpoint.memory": "copies on other",
        "tj.spec.template.spec.containers": "the one that trains needs",
        "tj.status.recoveries.rung": "What was done",
    }.items():
        explained = " ".join(kubectl("explain", path).split())
        assert words in explained, explained


@case
def a_job_is_stored_with_its_defaults():
    spec = json.loads(kubectl("get", "tj", "demo", "-o", "json"))["spec"]
    assert spec["recovery"]["limit"] == {"restarts": 20, "window": "6h"}, spec
    assert spec["processesPerReplica"] == "auto" and spec["spares"] == 0 and spec["checkpoint"]["keep"] == 3, spec
    assert spec["template"]["spec"]["tolerations"] == [{"key": "gpu", "operator": "Exists"}], "the template is not kept"


@case
def status_is_written_apart_and_shown():
    status = json.loads(subprocess_json_of_full())["status"]
    kubectl("patch", "tj", "demo", "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
    stored = json.loads(kubectl("get", "tj", "demo", "-o", "json"))
    assert stored["status"] == status, "status lost something: " + json.dumps(stored["status"])
    row = kubectl("get", "tj", "demo").splitlines()[1].split()
    assert row[:7] == ["demo", "Recovering", "1210", "2.25", "7", "3", "0.9"], row
    kubectl("patch", "tj", "demo", "--type=merge", "-p", '{"status": {"phase": "Failed"}}')
    assert kubectl("get", "tj", "demo", "-o", "jsonpath={.status.phase}") == "Recovering", "spec's writers can write status"


def subprocess_json_of_full():
    text = (ROOT / "crds" / "generate" / "testdata" / "full.yaml").read_text()
    return kubectl("create", "--dry-run=client", "-o", "json", "-f", "-", text=text)


@case
def wrong_manifests_are_refused_with_the_paths_and_remedies_of_pitcrew_validate():
    folder = ROOT / "lib" / "api" / "testdata" / "wrong"
    files = sorted(folder.glob("*.yaml"))
    assert len(files) > 30
    kubectl("create", "namespace", "team-a")
    whole = 0
    for file in files:
        if file.name == "key_twice.yaml":
            # kubectl reads YAML by itself and passes the last of two on; the server refuses two where it sees them.
            twice = job().replace('"replicas": 2', '"replicas": 2, "replicas": 3')
            address = "/apis/pitcrew.dev/v1alpha1/namespaces/default/trainingjobs?dryRun=All&fieldValidation=Strict"
            refused("kubectl", "create", "--raw", address, "-f", "-", text=twice, saying=['duplicate field "spec.replicas"'])
            continue
        code, output = run("kubectl", "create", "--dry-run=server", "--namespace", "team-a", "-f", str(file))
        assert code != 0, f"{file.name}: accepted"
        problems = [re.match(r"# \d+: (?:([\w.\[\]]+): )?(.*)", line).groups() for line in file.read_text().splitlines() if line.startswith("# ")]
        # In front of a number, or in brackets, lib/api shows a value; the API server shows it by itself.
        said = [(path or "", re.sub(r"^-?\d+ | \([0-9a-z.]+\)", "", words)) for path, words in problems]
        unbracketed = re.sub(r" \([0-9a-z.]+\)", "", output)
        if all(path in output and words in unbracketed for path, words in said):
            whole += 1
            continue
        # A server stops at the first kind of problem: what can't be read, unknown fields, types; then only the path is its.
        assert any(path and path in output for path, _ in said) or file.name in CLIENT, f"{file.name}: {output}"
        assert re.search(CANT_SAY_MORE, output), f"{file.name}: {output}"
    print(f"  {len(files)} wrong manifests refused, {whole} with every path and remedy")


# What kubectl refuses before it asks, or the server before it knows whose rules count.
CLIENT = {"not_yaml.yaml", "wrong_api_version.yaml", "wrong_kind.yaml", "name_missing.yaml"}
CANT_SAY_MORE = (
    r"unknown field|must be of type|converting YAML|no matches for kind|resource name may not be empty|"
    r"error parsing regexp|Required value: name or generateName|already defined at"
)


@case
def what_is_immutable_stays():
    kubectl("apply", "-f", "-", text=job("fixed"))
    other = json.loads(job("fixed"))
    other["spec"]["template"]["spec"]["containers"][0]["image"] = "example/other"
    refused("kubectl", "apply", "-f", "-", text=json.dumps(other), saying=["spec.template: Forbidden: can't be changed; delete the job"])
    swapped = json.loads(job("fixed"))
    swapped["spec"]["template"]["spec"]["hostAliases"] = swapped["spec"]["template"]["spec"].pop("tolerations")
    refused("kubectl", "replace", "-f", "-", text=json.dumps(swapped), saying=["spec.template: Forbidden"])
    refused("kubectl", "apply", "-f", "-", text=job("fixed", replicas=4), saying=["spec.replicas: Forbidden", "lifecycle.suspend: true first"])
    kubectl("apply", "-f", "-", text=job("fixed", lifecycle={"suspend": True}))
    kubectl("apply", "-f", "-", text=job("fixed", replicas=4, lifecycle={"suspend": True}))
    kubectl("apply", "-f", "-", text=job("fixed", replicas=4, lifecycle={"suspend": False}))


@case
def unknown_fields_are_refused_or_warned_of_as_kubectl_asks():
    text = job("strict", replicsa=3)
    refused("kubectl", "apply", "--validate=strict", "-f", "-", text=text, saying=['unknown field "spec.replicsa"'])
    refused("kubectl", "apply", "--server-side", "-f", "-", text=text, saying=["spec.replicsa"])
    assert "unknown field" in kubectl("apply", "--validate=warn", "--dry-run=server", "-f", "-", text=text)


@case
def the_operators_pod_is_allowed_under_pod_security_restricted():
    kubectl("create", "namespace", "restricted")
    kubectl("label", "namespace", "restricted", "pod-security.kubernetes.io/enforce=restricted")
    kubectl("-n", "restricted", "create", "serviceaccount", "pitcrew-operator")
    template = json.loads(kubectl("-n", NAMESPACE, "get", "deployment", "pitcrew-operator", "-o", "json"))["spec"]["template"]
    template["spec"]["priorityClassName"] = "system-cluster-critical"
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "operator", "namespace": "restricted"}, "spec": template["spec"]}
    kubectl("create", "--dry-run=server", "-f", "-", text=json.dumps(pod))
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    refused("kubectl", "create", "--dry-run=server", "-f", "-", text=json.dumps(pod), saying=["violates PodSecurity"])


ALLOWED = [
    ("list", "trainingjobs", "team-a"),
    ("watch", "trainingjobs", "team-a"),
    ("delete", "trainingjobs", "team-a"),
    ("update", "trainingjobs/status", "team-a"),
    ("update", "trainingjobs/finalizers", "team-a"),
    ("create", "pods", "team-a"),
    ("patch", "pods", "team-a"),
    ("delete", "pods", "team-a"),
    ("watch", "nodes", None),
    ("watch", "resourcequotas", "team-a"),
    ("create", "poddisruptionbudgets.policy", "team-a"),
    ("create", "events.events.k8s.io", "team-a"),
    ("create", "tokenreviews.authentication.k8s.io", None),
    ("create", "leases.coordination.k8s.io", NAMESPACE),
    ("update", "leases.coordination.k8s.io/pitcrew-operator", NAMESPACE),
    ("get", "secrets/pitcrew-epoch", NAMESPACE),
    ("update", "secrets/pitcrew-channel", NAMESPACE),
    ("get", "services/pitcrew-channel", NAMESPACE),
    ("watch", "nodehealths.pitcrew.dev", None),
    ("patch", "nodehealths.pitcrew.dev/status", None),
    ("create", "pods", NAMESPACE),
    ("update", "endpointslices.discovery.k8s.io/pitcrew-channel-ipv4", NAMESPACE),
]
FORBIDDEN = [
    ("get", "secrets/pitcrew-epoch", "team-a"),
    ("list", "secrets", NAMESPACE),
    ("get", "secrets/somebody-elses", NAMESPACE),
    ("create", "secrets", "team-a"),
    ("update", "trainingjobs", "team-a"),
    ("create", "trainingjobs", "team-a"),
    ("update", "nodes", None),
    ("patch", "nodes", None),
    ("patch", "nodes/status", None),
    ("patch", "nodehealths.pitcrew.dev", None),
    ("delete", "nodeclaims.karpenter.sh", None),
    ("create", "pods/exec", "team-a"),
    ("delete", "poddisruptionbudgets.policy", "team-a"),
    ("update", "services/pitcrew-channel", NAMESPACE),
    ("update", "leases.coordination.k8s.io/pitcrew-operator", "team-a"),
    ("get", "configmaps", NAMESPACE),
    ("create", "deployments.apps", NAMESPACE),
]


def can(verb, resource, namespace):
    place = ("-n", namespace) if namespace else ()
    whole, _, below = resource.partition("/")
    if below in ("status", "finalizers", "exec"):
        resource, place = whole, (*place, f"--subresource={below}")
    return run("kubectl", "auth", "can-i", verb, resource, f"--as={ACCOUNT}", *place)[0] == 0


@case
def the_operator_may_do_its_work_and_nothing_more():
    for wanted, questions in ((True, ALLOWED), (False, FORBIDDEN)):
        for verb, resource, namespace in questions:
            assert can(verb, resource, namespace) == wanted, f"{verb} {resource} in {namespace}: wanted {wanted}"
    print(f"  {len(ALLOWED)} rights held, {len(FORBIDDEN)} not")


import agents  # noqa: E402, F401  its cases come here
import installing  # noqa: E402, F401  and its


@case
def uninstalling_leaves_definitions_and_jobs():
    # Its pre-delete hook is a Job, which nothing runs here; installing.py has run what is in it.
    said = good("helm", "uninstall", "pitcrew", "--namespace", NAMESPACE, "--no-hooks")
    assert "trainingjobs.pitcrew.dev" in said, f"Helm doesn't say what it keeps: {said}"
    assert run("kubectl", "-n", NAMESPACE, "get", "deployment", "pitcrew-operator")[0] != 0
    kubectl("get", "tj", "demo")


def main():
    failures = 0
    for function in CASES:
        begin = time.monotonic()
        try:
            function()
            print(f"ok      {function.__name__} ({time.monotonic() - begin:.1f} s)", flush=True)
        except AssertionError as e:
            failures += 1
            print(f"FAILED  {function.__name__}: {e}", flush=True)
    version = json.loads(kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"]
    print(f"Kubernetes {version}: {len(CASES) - failures} passed, {failures} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
