#!/usr/bin/env python3
"""The breaker on the real API server: seven real agents see the same fault in the same moment, and the CordonBudget lets three
nodes be cordoned. A fault that is certain asks nobody.

    breaker.py BIN

BIN holds pitcrew-agent. Exit code 77, with the reason, where there is no API server."""
import argparse
import sys
import time
from pathlib import Path

from control import ROOT, SYSTEM, Agent, SoakLab
from harness.config import Failed, NotRun
from harness.process import until

AGENTS = 7
ALLOWED = 3  # the budget's maxNodes; without a DaemonSet nobody counts the agents, and it alone decides
STAYS = "1h"
PATIENCE = 60
LOOKS_ON = 35  # seconds: a refused agent asks again after 30


def condition(lab, agent):
    conditions = lab.api.get(f"/api/v1/nodes/{agent.node}")["status"]["conditions"]
    return next((one["status"] for one in conditions if one["type"] == "PitcrewHealthy"), "")


def cordoned(lab, agents):
    return [agent.node for agent in agents if agent.cordoned(lab)]


def tainted(lab, agents):
    found = []
    for agent in agents:
        taints = lab.api.get(f"/api/v1/nodes/{agent.node}")["spec"].get("taints", [])
        found += [agent.node for taint in taints if taint["key"] == "pitcrew.dev/unhealthy"]
    return found


def trip(programs):
    with SoakLab(12) as lab:
        lab.namespace(SYSTEM)
        chart = lab.tool("helm", "template", "pitcrew", ROOT / "charts" / "pitcrew", "--namespace", SYSTEM, "--set", "image.registry=r.invalid",
                         "--show-only", "templates/crds.yaml")
        lab.kubectl("apply", "--server-side", "-f", "-", text=chart)
        for kind in ("nodehealths", "cordonbudgets", "healthpolicies"):
            lab.crd(f"{kind}.pitcrew.dev")
        agents = [Agent(lab, programs, number, certain=False, clears=STAYS) for number in range(AGENTS)]
        sure = Agent(lab, programs, AGENTS, certain=True, clears=STAYS)
        until("the agents' first word", lambda: all(condition(lab, one) == "True" for one in [*agents, sure]), PATIENCE, 0.5)
        for agent in agents:
            agent.fault()
        until("all nodes to say that they are unhealthy", lambda: all(condition(lab, one) == "False" for one in agents), PATIENCE, 0.5)
        until("the cordons that the budget allows", lambda: len(cordoned(lab, agents)) >= ALLOWED, PATIENCE, 0.5)
        end = time.monotonic() + LOOKS_ON
        while time.monotonic() < end:
            nodes = cordoned(lab, agents)
            if len(nodes) != ALLOWED or sorted(tainted(lab, agents)) != sorted(nodes):
                raise Failed(f"cordoned are {nodes}, tainted {tainted(lab, agents)}; allowed are {ALLOWED} nodes")
            time.sleep(1)
        budget = lab.api.get("/apis/pitcrew.dev/v1alpha1/cordonbudgets/default")["status"]["cordons"]
        if sorted(budget) != sorted(nodes):
            raise Failed(f"the budget names {sorted(budget)}, cordoned are {nodes}")
        sure.fault()
        until("the cordon of a certain fault", lambda: sure.cordoned(lab), PATIENCE, 0.2)
        print(f"{AGENTS} nodes with a fault: {len(nodes)} cordoned, {AGENTS - len(nodes)} refused for {LOOKS_ON} s; a certain fault is cordoned beyond")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("programs", type=Path)
    try:
        trip(parser.parse_args().programs.resolve())
    except NotRun as why:
        print(f"not run: {why}")
        sys.exit(77)
    except Failed as why:
        print(f"FAILED: {why}")
        sys.exit(1)


if __name__ == "__main__":
    main()
