"""Cases about the node agent's rights: what roles and admission policies together let an agent do, tried with tokens that
are bound to pods on nodes, as kubelets hand them to agents."""

import base64
import json
import ssl
import time
import urllib.error
import urllib.request

from shared import CHART, NAMESPACE, ROOT, case, good, kubectl

TOKENS = {}


def taint(key, effect="NoSchedule"):
    return {"key": key, "effect": effect}


def condition(kind, status="False"):
    return {"type": kind, "status": status, "reason": "Test", "message": "test", "lastTransitionTime": "2026-03-01T00:00:00Z"}


def make_node(name, instance):
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"team": "a"}, "annotations": {"example.com/a": "b"}},
        "spec": {"providerID": f"aws:///us-east-2b/{instance}", "taints": [taint("example.com/reserved")]},
    }
    kubectl("create", "-f", "-", text=json.dumps(node))
    status = {"status": {"conditions": [condition("Ready", "True")], "capacity": {"cpu": "4"}}}
    kubectl("patch", "node", name, "--subresource=status", "--type=merge", "-p", json.dumps(status))


def uid(kind, name, *place):
    return kubectl("get", kind, name, *place, "-o", "jsonpath={.metadata.uid}")


def token_of(node):
    """A token of the agent's account, bound to a pod on the node."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"agent-{node}", "namespace": NAMESPACE},
        "spec": {
            "serviceAccountName": "pitcrew-agent",
            "automountServiceAccountToken": False,
            "nodeName": node,
            "containers": [{"name": "agent", "image": "example/agent"}],
        },
    }
    kubectl("create", "-f", "-", text=json.dumps(pod))
    place = ("-n", NAMESPACE)
    bound = ("--bound-object-kind=Pod", f"--bound-object-name=agent-{node}", f"--bound-object-uid={uid('pod', 'agent-' + node, *place)}")
    return kubectl(*place, "create", "token", "pitcrew-agent", *bound).strip()


def server():
    """(address, what it is trusted by) of the API server."""
    cluster = json.loads(good("kubectl", "config", "view", "--raw", "-o", "json"))["clusters"][0]["cluster"]
    authority = cluster.get("certificate-authority")
    data = base64.b64decode(cluster.get("certificate-authority-data", "")).decode()
    return cluster["server"], ssl.create_default_context(cafile=authority, cadata=data or None)


PATHS = {
    "node": "/api/v1/nodes",
    "nodehealth": "/apis/pitcrew.dev/v1alpha1/nodehealths",
    "cordonbudget": "/apis/pitcrew.dev/v1alpha1/cordonbudgets",
    "event": "/apis/events.k8s.io/v1/namespaces/default/events",
    "secret": f"/api/v1/namespaces/{NAMESPACE}/secrets",
    "pod": "/api/v1/pods",
    "whoami": "/apis/authentication.k8s.io/v1/selfsubjectreviews",
}


class Request:
    """What an agent asks for, without a client's own questions before."""

    def __init__(self, who, method, what, body=None, subresource="", content="application/json"):
        kind, _, name = what.partition("/")
        self.who, self.method, self.body, self.content = who, method, body, content
        self.path = PATHS[kind] + (f"/{name}" if name else "") + (f"/{subresource}" if subresource else "")

    def __str__(self):
        return f"{self.method} {self.path} by the agent of {self.who}: {json.dumps(self.body)}"

    def send(self):
        address, trust = server()
        headers = {"Authorization": f"Bearer {TOKENS[self.who]}", "Content-Type": self.content}
        data = None if self.body is None else json.dumps(self.body).encode()
        request = urllib.request.Request(address + self.path, data, headers, method=self.method)
        try:
            with urllib.request.urlopen(request, context=trust, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


def patch(who, what, body, subresource="", query="?fieldManager=pitcrew-agent"):
    return Request(who, "PATCH", what, body, subresource + query if subresource else "", "application/merge-patch+json")


def create(who, what, body):
    return Request(who, "POST", what, body)


def allowed(request):
    code, text = request.send()
    assert code < 300, f"{request}: {code}: {text}"
    return json.loads(text)


def denied(request, saying):
    code, text = request.send()
    assert code in (403, 422) and "ValidatingAdmissionPolicy" in text and saying in text, f"{request}: nothing says '{saying}' in: {code}: {text}"


def forbidden(request):
    code, text = request.send()
    assert code == 403 and "ValidatingAdmissionPolicy" not in text, f"{request}: {code}: {text}"


def health(name, node, node_uid, instance, **metadata):
    return {
        "apiVersion": "pitcrew.dev/v1alpha1",
        "kind": "NodeHealth",
        "metadata": {"name": name, **metadata},
        "spec": {"providerID": f"aws:///us-east-2b/{instance}", "nodeName": node, "nodeUID": node_uid},
    }


@case
def agents_have_tokens_that_name_their_nodes():
    for kind in ("nodehealths", "healthpolicies", "cordonbudgets"):
        kubectl("wait", "--for=condition=Established", f"crd/{kind}.pitcrew.dev", "--timeout=60s")
    for node, instance in (("node-a", "i-0a"), ("node-b", "i-0b")):
        make_node(node, instance)
        TOKENS[node] = token_of(node)
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    who = allowed(create("node-a", "whoami", review))["status"]["userInfo"]
    assert who["username"] == f"system:serviceaccount:{NAMESPACE}:pitcrew-agent", who
    assert who["extra"]["authentication.kubernetes.io/node-name"] == ["node-a"], who
    assert who["extra"]["authentication.kubernetes.io/node-uid"] == [uid("node", "node-a")], who
    TOKENS["unbound"] = kubectl("-n", NAMESPACE, "create", "token", "pitcrew-agent").strip()
    # Policies take effect some time after they were made.
    for _ in range(200):
        code, output = patch("node-b", "node/node-a", {"spec": {"unschedulable": False}}).send()
        if code >= 300 and "ValidatingAdmissionPolicy" in output:
            return
        time.sleep(0.1)
    raise AssertionError(f"the policy does not take effect: {output}")


@case
def an_agent_changes_its_own_node():
    mine = {
        "metadata": {"labels": {"pitcrew.dev/unhealthy": "xid-79"}, "annotations": {"pitcrew.dev/cordoned": "2026-03-01T00:00:00Z xid-79"}},
        "spec": {"unschedulable": True, "taints": [taint("example.com/reserved"), taint("pitcrew.dev/unhealthy")]},
    }
    allowed(patch("node-a", "node/node-a", mine))
    applied = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-a"}, "status": {"conditions": [condition("PitcrewHealthy")]}}
    apply = "status?fieldManager=pitcrew-agent&force=true"
    allowed(Request("node-a", "PATCH", "node/node-a", applied, apply, "application/apply-patch+yaml"))
    applied["status"]["conditions"][0]["status"] = "True"
    allowed(Request("node-a", "PATCH", "node/node-a", applied, apply, "application/apply-patch+yaml"))
    node = json.loads(kubectl("get", "node", "node-a", "-o", "json"))
    assert {one["type"]: one["status"] for one in node["status"]["conditions"]} == {"Ready": "True", "PitcrewHealthy": "True"}, node["status"]
    back = {
        "metadata": {"labels": {"pitcrew.dev/unhealthy": None}, "annotations": {"pitcrew.dev/cordoned": None}},
        "spec": {"unschedulable": None, "taints": [taint("example.com/reserved")]},
    }
    allowed(patch("node-a", "node/node-a", back))


@case
def an_agent_changes_nothing_else_of_its_node():
    for body, words in (
        ({"metadata": {"labels": {"team": "b"}}}, "labels"),
        ({"metadata": {"labels": {"team": None}}}, "labels"),
        ({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}}, "labels"),
        ({"metadata": {"annotations": {"example.com/a": "c"}}}, "annotations"),
        ({"metadata": {"annotations": {"pitcrew.dev/hold": None, "example.com/a": None}}}, "annotations"),
        ({"metadata": {"finalizers": ["example.com/f"]}}, "metadata"),
        ({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "node-b", "uid": "u"}]}}, "metadata"),
        ({"spec": {"podCIDR": "10.0.0.0/24"}}, "spec"),
        ({"spec": {"taints": []}}, "taints"),
        ({"spec": {"taints": [taint("example.com/reserved"), taint("example.com/other")]}}, "taints"),
        ({"spec": {"taints": [taint("example.com/reserved"), taint("pitcrew.dev/unhealthy", "NoExecute")]}}, "taints"),
    ):
        denied(patch("node-a", "node/node-a", body), saying=f"of a Node's {words} an agent may")
    for body, words in (
        ({"status": {"capacity": {"nvidia.com/gpu": "8"}}}, "status"),
        ({"status": {"conditions": [condition("Ready", "False")]}}, "conditions"),
        ({"status": {"conditions": [condition("Ready", "True"), condition("AcceleratedHardwareReady")]}}, "conditions"),
        ({"metadata": {"labels": {"team": "b"}}}, "labels"),
    ):
        denied(patch("node-a", "node/node-a", body, "status"), saying=f"of a Node's {words} an agent may")
    forbidden(Request("node-a", "DELETE", "node/node-a"))
    forbidden(create("node-a", "node", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-c"}}))


@case
def an_agent_does_not_touch_another_node():
    for who in ("node-b", "unbound"):
        for body, subresource in (
            ({"spec": {"unschedulable": True}}, ""),
            ({"metadata": {"labels": {"pitcrew.dev/unhealthy": "x"}}}, ""),
            ({"status": {"conditions": [condition("Ready", "True"), condition("PitcrewHealthy")]}}, "status"),
        ):
            denied(patch(who, "node/node-a", body, subresource), saying="an agent may change its own Node only")
    # A node of the same name is another one.
    kubectl("delete", "node", "node-b")
    make_node("node-b", "i-0b2")
    denied(patch("node-b", "node/node-b", {"spec": {"unschedulable": True}}), saying="an agent may change its own Node only")


@case
def an_agent_writes_the_node_health_of_its_instance():
    a = uid("node", "node-a")
    denied(create("node-a", "nodehealth", health("i-0a", "node-b", uid("node", "node-b"), "i-0a")), saying="of its own node only")
    denied(create("node-a", "nodehealth", health("i-0b2", "node-a", a, "i-0b2")), saying="has its Node's providerID")
    denied(create("node-a", "nodehealth", health("i-0a", "node-a", uid("node", "node-b"), "i-0a")), saying="of its own node only")
    denied(create("node-a", "nodehealth", health("i-0a", "node-a", a, "i-0a", annotations={"pitcrew.dev/request-check": "1"})), saying="no labels, annotations")
    denied(create("node-a", "nodehealth", health("i-0a", "node-a", a, "i-0a", finalizers=["example.com/f"])), saying="no labels, annotations")
    denied(create("unbound", "nodehealth", health("i-0a", "node-a", a, "i-0a")), saying="of its own node only")
    allowed(create("node-a", "nodehealth", health("i-0a", "node-a", a, "i-0a")))
    allowed(patch("node-a", "nodehealth/i-0a", {"status": {"healthy": False, "needs": "Replace", "message": "gone"}}, "status"))
    row = kubectl("get", "nh", "i-0a").splitlines()[1].split()
    assert row[:5] == ["i-0a", "node-a", "false", "Replace", "gone"], row


@case
def an_agent_leaves_checks_and_other_nodes_health_alone():
    check = {"status": {"checks": [{"id": "1", "test": "memory", "outcome": "Passed", "time": "2026-03-01T00:00:00Z"}]}}
    denied(patch("node-a", "nodehealth/i-0a", check, "status"), saying="status.checks is the operator's")
    kubectl("patch", "nh", "i-0a", "--subresource=status", "--type=merge", "-p", json.dumps(check))
    denied(patch("node-a", "nodehealth/i-0a", {"status": {"checks": None}}, "status"), saying="status.checks is the operator's")
    allowed(patch("node-a", "nodehealth/i-0a", {"status": {"message": "gone for good"}}, "status"))
    denied(patch("node-a", "nodehealth/i-0a", {"metadata": {"annotations": {"pitcrew.dev/request-check": "1"}}}), saying="no labels, annotations")
    denied(patch("node-a", "nodehealth/i-0a", {"spec": {"nodeName": "node-b"}}), saying="of its own node only")
    denied(patch("node-a", "nodehealth/i-0a", {"spec": {"providerID": "i-0a"}}), saying="stays with its instance")
    kubectl("create", "-f", "-", text=json.dumps(health("i-0b2", "node-b", uid("node", "node-b"), "i-0b2")))
    for body, subresource in (({"status": {"healthy": True}}, "status"), ({"spec": {"nodeName": "node-a", "nodeUID": uid("node", "node-a")}}, "")):
        denied(patch("node-a", "nodehealth/i-0b2", body, subresource), saying="own node only" if subresource else "stays with its instance")
    forbidden(Request("node-a", "DELETE", "nodehealth/i-0a"))


@case
def an_instance_that_comes_back_with_another_node_object_keeps_its_node_health():
    old = uid("node", "node-a")
    kubectl("delete", "node", "node-a")
    kubectl("-n", NAMESPACE, "delete", "pod", "agent-node-a", "--force", "--grace-period=0")
    make_node("node-a", "i-0a")
    TOKENS["node-a-before"], TOKENS["node-a"] = TOKENS["node-a"], token_of("node-a")
    new = uid("node", "node-a")
    assert new != old
    allowed(patch("node-a", "nodehealth/i-0a", {"spec": {"nodeUID": new}}))
    allowed(patch("node-a", "nodehealth/i-0a", {"status": {"healthy": True}}, "status"))
    code, text = patch("node-a-before", "nodehealth/i-0a", {"status": {"healthy": False}}, "status").send()
    assert code in (401, 403, 422), f"the old node's token still writes: {code}: {text}"


def entry(node_uid, time="2026-03-01T00:00:00Z"):
    return {"nodeUID": node_uid, "time": time, "fault": "xid-79", "certain": True}


@case
def an_agent_writes_its_own_entry_of_the_budget():
    def budget(name="default", **spec):
        spec = {"maxNodes": 3, "maxFraction": 0.2, "window": "5m", **spec}
        return {"apiVersion": "pitcrew.dev/v1alpha1", "kind": "CordonBudget", "metadata": {"name": name}, "spec": spec}

    denied(create("node-a", "cordonbudget", budget(maxNodes=1000)), saying="with the chart's values only")
    denied(create("node-a", "cordonbudget", budget("other")), saying="with the chart's values only")
    allowed(create("node-a", "cordonbudget", budget()))
    a, b = uid("node", "node-a"), uid("node", "node-b")
    mine = "cordonbudget/default"
    allowed(patch("node-a", mine, {"status": {"cordons": {"node-a": entry(a)}}}, "status"))
    kubectl("patch", "cb", "default", "--subresource=status", "--type=merge", "-p", json.dumps({"status": {"cordons": {"node-b": entry(b)}}}))
    for cordons in ({"node-b": None}, {"node-b": entry(b, "2026-03-02T00:00:00Z")}, {"node-c": entry("c")}, {"node-a": entry(a), "node-b": None}):
        denied(patch("node-a", mine, {"status": {"cordons": cordons}}, "status"), saying="the entry of its own node only")
    denied(patch("node-a", mine, {"status": None}, "status"), saying="the entry of its own node only")
    denied(patch("node-a", mine, {"status": {"cordons": {"node-a": entry(b)}}}, "status"), saying="the UID of the agent's own Node")
    denied(patch("unbound", mine, {"status": {"cordons": {"": entry("")}}}, "status"), saying="doesn't say which node")
    allowed(patch("node-a", mine, {"status": {"cordons": {"node-a": None}}}, "status"))
    forbidden(patch("node-a", mine, {"spec": {"maxNodes": 1000}}))
    forbidden(Request("node-a", "DELETE", "cordonbudget/default"))


@case
def an_agents_events_are_about_its_node():
    def event(name, about):
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": "default"},
            "eventTime": "2026-03-01T00:00:00.000000Z",
            "reportingController": "pitcrew.dev/agent",
            "reportingInstance": "agent",
            "action": "Cordon",
            "reason": "Cordoned",
            "type": "Warning",
            "regarding": {"kind": "Node", "name": about, "apiVersion": "v1"},
            "note": "test",
        }

    allowed(create("node-a", "event", event("a", "node-a")))
    denied(create("node-a", "event", event("b", "node-b")), saying="about its own node")
    forbidden(Request("node-a", "GET", "secret"))
    forbidden(Request("node-a", "GET", "pod"))


@case
def the_built_in_policy_and_a_clusters_are_taken():
    kubectl("apply", "--server-side", "-f", str(ROOT / "agent" / "judge" / "builtin_policy.yaml"))
    rules = kubectl("get", "hp", "built-in", "-o", "jsonpath={.spec.rules[*].name}").split()
    assert len(rules) > 50, rules
    kubectl("delete", "hp", "built-in")
    for kind, words in {"hp.spec.rules.certain": "Cordons at once", "nh.status.needs": "strongest action", "cb.spec.maxFraction": "where that is more"}.items():
        explained = " ".join(kubectl("explain", kind).split())
        assert words in explained, explained


# What comes with each repair mode, and with that alone.
REPAIR_RIGHTS = {
    "condition": {("patch", "nodes/status"), ("get", "nodes")},
    "nodeclaim": {("delete", "nodeclaims.karpenter.sh"), ("list", "nodeclaims.karpenter.sh")},
    "label": {("patch", "nodes")},
    "webhook": set(),
    "none": set(),
}


@case
def rights_to_repair_come_with_the_mode_that_is_chosen():
    every = set().union(*REPAIR_RIGHTS.values())
    for mode, wanted in REPAIR_RIGHTS.items():
        values = ("--set", "image.registry=registry.example.com/pitcrew", "--set", f"operator.repair.mode={mode}")
        good("helm", "upgrade", "pitcrew", str(CHART), "--namespace", NAMESPACE, *values, "--set", "operator.repair.webhook=https://example.com/")
        rules = json.loads(kubectl("get", "clusterrole", "pitcrew-operator", "-o", "json"))["rules"]
        held = set()
        for verb, resource in every:
            name, _, group = resource.partition(".")
            held |= {(verb, resource) for rule in rules if group in rule["apiGroups"] and name in rule["resources"] and verb in rule["verbs"]}
        assert held == wanted, f"mode {mode}: {held}"
