"""`pitcrew` on a real cluster: each command is run and read as a person would."""

import json
import subprocess
import time

from harness.config import ROOT
from harness.process import say
from harness.scenario import scenario
from harness.situations import ask, environment
from harness.world import PROGRAMS

from scenarios.s8_agent import Agents

FOLDER = ROOT / "build" / "cluster" / "commands"


class Reader:
    """Runs commands, keeps what they print, and checks that it says what a person looks for."""

    def __init__(self, world):
        self.world = world
        self.wrong = []
        FOLDER.mkdir(parents=True, exist_ok=True)

    def run(self, *words, code=0, says=()):
        begin = time.monotonic()
        got, text = ask(self.world, *words)
        self.judge(" ".join(map(str, words)), got, code, text, says, time.monotonic() - begin)
        return text

    def judge(self, name, got, code, text, says, seconds):
        (FOLDER / (name.replace("/", "_").replace(" ", "-") + ".txt")).write_text(f"$ pitcrew {name}\n{text}\n(exit code {got})\n")
        missing = [part for part in says if part not in text]
        if got != code or missing:
            self.wrong.append(f"'{name}' ended with {got}, lacks {missing}: {text[-300:]}")
        say(f"  {'✗' if got != code or missing else '✓'} pitcrew {name} ({seconds:.1f} s)")

    def follow(self, *words, seconds, says):
        """A command that goes on until Ctrl-C, which comes after some seconds."""
        begin = time.monotonic()
        child = subprocess.Popen([str(PROGRAMS / "pitcrew"), *words, "-n", self.world.namespace], text=True, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, env=environment(self.world))
        try:
            text = child.communicate(timeout=seconds)[0]
        except subprocess.TimeoutExpired:
            child.send_signal(2)
            text = child.communicate(timeout=10)[0]
        self.judge(" ".join(words), child.returncode, 0, text, says, time.monotonic() - begin)
        return text


@scenario(seconds=900)
def every_command_says_what_a_person_looks_for(world):
    with Agents(world) as agents:
        spare_node = sorted(agents.gpus)[-1]
        world.cluster.kubectl("cordon", spare_node)
        metrics = {"ports": [{"name": "pitcrew-metrics", "containerPort": 9401}]}
        resources = {"requests": {"cpu": world.share, "memory": "64Mi"}, "limits": {"memory": "512Mi"}}
        job = world.job("read", steps=100000, spares=0, container={"resources": resources, **metrics}).apply()
        job.wait_step(60)
        world.cluster.kubectl("uncordon", spare_node)
        node = job.node_of_slot(1).name
        pod = job.pod_of_slot(1)["metadata"]["name"]
        reader = Reader(world)

        reader.run("status", says=("read", "Running"))
        reader.run("status", "-A", says=(world.namespace,))
        reader.run("status", "read", says=("Running", "tokens/s", "100,000"))
        reader.run("status", "read", "-o", "wide", says=(pod,))
        reader.run("timeline", "read", says=("epoch 1",))
        reader.run("diagnose", "read", says=("Nothing is wrong: it trains.",))
        reader.run("logs", "read", "--tail", "20", says=("step",))
        reader.run("logs", "read", "--rank", "0", "--tail", "5", says=("step",))
        reader.run("logs", "read", "--launcher", "--tail", "50", says=("a new epoch",))
        first = reader.follow("logs", "read", "-f", "--tail", "1", seconds=12, says=("step",))
        world.check(len(first.splitlines()) > 2, f"logs -f did not follow: {first}")
        reader.follow("top", "read", seconds=8, says=("RANK", "computing"))
        reader.run("stacks", "read", says=("rank 0", "rank 1"))
        reader.run("checkpoint", "now", "read", says=("step",))
        reader.run("checkpoint", "ls", "read", "--image", world.images["trainer"], says=("step-",))
        reader.run("checkpoint", "verify", "read", "--image", world.images["trainer"], says=("step-",))
        reader.run("nodes", says=tuple(agents.gpus))
        reader.run("nodes", node, says=(node,))
        reader.run("check", "node", node, code=1, says=("read",))
        reader.run("check", "node", spare_node, "--timeout", "4m", says=("passed  disk",))
        reader.run("wait", "read", "--for", "Running")
        document = json.loads(reader.run("status", "read", "-o", "json"))
        world.check(document["phase"] == "Running", f"status -o json says {document}")
        reader.run("status", "nobody", code=4, says=("nobody",))
        completed = subprocess.run([str(PROGRAMS / "pitcrew"), "complete", "--", "status", "-n", world.namespace, "re"], capture_output=True, text=True,
                                   env=environment(world)).stdout
        world.check("read" in completed.split(), f"the shell is offered {completed.split()}")
        job.delete()
    world.check(not reader.wrong, "; ".join(reader.wrong))
