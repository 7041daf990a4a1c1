"""Broken situations on a real cluster, and what `pitcrew diagnose` must say of each."""

import json
import subprocess
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Callable

from .config import ROOT, Failed
from .process import say
from .world import PROGRAMS, World

FOLDER = ROOT / "build" / "cluster" / "diagnosed"
ONLY = None  # parts of names: `run --situation`


@dataclass(frozen=True)
class Situation:
    """One thing that is wrong with a job.

    name: of its job. words: what is wrong, for the table. cause: the id of the finding that must come first. says: a part of
    what a person reads. seconds: how long the cluster may take to show it and `diagnose` to name it. make: a function
    (world, name) that breaks something and returns the job; or a generator that yields it, and mends what it broke.
    """

    name: str
    words: str
    cause: str
    says: str
    seconds: int
    make: Callable


class Group(list):
    """Situations that one scenario makes."""

    def situation(self, words, cause, says="", seconds=60):
        def keep(make):
            self.append(Situation(make.__name__.replace("_", "-"), words, cause, says, seconds, make))
            return make

        return keep


def bare(world, name, image=None, command=None, container=None, pod=None, spec=None, requests=None, **options):
    """A job of one small pod without volumes and checkpoints. container and pod are laid over what manifest() makes."""
    options = {"replicas": 1, "spares": 0, "memory_every": 0, **options}
    resources = {"requests": {"cpu": "20m", "memory": "32Mi", **(requests or {})}, "limits": {"memory": "512Mi"}}
    for resource, amount in (requests or {}).items():
        if "/" in resource or resource == "memory":
            resources["limits"][resource] = amount
    return world.job(name, steps=options.pop("steps", 100000), image=image, command=command, spec={"checkpoint": None, **(spec or {})},
                     container={"resources": resources, "volumeMounts": [], **(container or {})}, pod={"volumes": [], **(pod or {})}, **options)


def training(world, name, container=None, resources=None, **options):
    """A job that trains on the shared folder, one rank, with room for others beside it."""
    resources = resources or {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}}
    options = {"replicas": 1, "spares": 0, "steps": 100000, **options}
    return world.job(name, container={"resources": resources, **(container or {})}, **options)


@contextmanager
def broken(world, situation):
    """Makes a situation, gives its job, and ends it."""
    made = situation.make(world, situation.name)
    generator = made if hasattr(made, "__next__") else None
    job = next(generator) if generator else made
    try:
        yield job
    finally:
        for _ in generator or ():
            pass
        # Whoever waits for finalizers or grace periods is waited for by world.close().
        world.kubectl("delete", "trainingjob", job.name, "--ignore-not-found", "--wait=false")


def environment(world):
    """What a person's shell has: kubectl and pitcrew on the PATH, and the kubeconfig."""
    shell = world.cluster.environment()
    return {**shell, "PATH": f"{PROGRAMS}:{shell['PATH']}", "COLUMNS": "120"}


def ask(world, *words, seconds=300):
    """Runs `pitcrew`. Returns its exit code and what it said, with its errors after it."""
    done = subprocess.run([str(PROGRAMS / "pitcrew"), *map(str, words), "-n", world.namespace], capture_output=True, text=True, timeout=seconds,
                          env=environment(world))
    return done.returncode, done.stdout + done.stderr


def follow(world, command):
    """Runs the command that a report ends with, as the person who reads it would. Returns what is wrong with it, or None."""
    try:
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, env=environment(world), stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return "it did not end within a minute"
    if done.returncode != 0:
        return f"it ended with {done.returncode}: {done.stderr.strip()[-300:]}"
    return None if done.stdout.strip() else "it printed nothing"


def read(world, job):
    """What `diagnose` says of a job, as data; None while there is no job or no answer from the cluster."""
    code, text = ask(world, "diagnose", job.name, "-o", "json")
    if code in (3, 4):
        return None
    if code not in (0, 1):
        raise Failed(f"pitcrew diagnose {job.name} ended with {code}: {text[-1000:]}")
    return json.loads(text)


class Watch:
    """One situation from its making until `diagnose` names its cause, or its time is over."""

    def __init__(self, world, situation, job):
        self.world, self.situation, self.job = world, situation, job
        self.since = time.monotonic()
        self.said, self.first, self.row = [], None, None

    def look(self):
        """Asks once. Returns the row of the table when there is nothing more to wait for."""
        found = (read(self.world, self.job) or {}).get("findings", [])
        self.first = found[0] if found else {"id": "nothing"}
        if self.said[-1:] != [self.first["id"]]:
            self.said.append(self.first["id"])
        seconds = time.monotonic() - self.since
        if self.first["id"] == self.situation.cause and self.situation.says in " ".join((text := self.text()).split()):
            return self.close(seconds, text, None)
        if seconds < self.situation.seconds:
            return None
        wrong = f"diagnose says {' → '.join(self.said)}, not {self.situation.cause}"
        if self.first["id"] == self.situation.cause:
            wrong = f"diagnose does not say '{self.situation.says}'"
        return self.close(seconds, self.text(), wrong)

    def text(self):
        return ask(self.world, "diagnose", self.job.name)[1]

    def close(self, seconds, text, wrong):
        one = self.situation
        FOLDER.mkdir(parents=True, exist_ok=True)
        (FOLDER / f"{one.name}.txt").write_text(f"# {one.words}\n# it said first: {' → '.join(self.said)}\n\n{text}")
        if not wrong and (reason := follow(self.world, self.first["command"])):
            wrong = f"the next command '{self.first['command']}' leads nowhere: {reason}"
        say(f"  {'✗' if wrong else '✓'} {one.words}: {wrong or self.first['title']} ({seconds:.0f} s)")
        return {"situation": one, "seconds": seconds, "wrong": wrong}


def name_all(world, situations, together):
    """Each of them made, judged, and mended; together: all at once. Fails with the list of those that were not named."""
    rows = []
    situations = [one for one in situations if not ONLY or any(part in one.name for part in ONLY)]
    for batch in [situations] if together else [[one] for one in situations]:
        with ExitStack() as stack:
            waiting = [Watch(world, one, stack.enter_context(broken(world, one))) for one in batch]
            while waiting:
                for watch in list(waiting):
                    if row := watch.look():
                        rows.append(row)
                        waiting.remove(watch)
                time.sleep(0.5)
    World.diagnosed.extend(rows)
    wrong = [f"{row['situation'].words}: {row['wrong']}" for row in rows if row["wrong"]]
    if wrong:
        raise Failed(f"{len(wrong)} of {len(rows)} situations are not named as they should be ({FOLDER} has the texts): " + "; ".join(wrong))


def table(rows):
    """Situation → cause → seconds, as lines for people."""
    for row in rows:
        yield f"{row['seconds']:6.1f} s  {'✗' if row['wrong'] else '✓'} {row['situation'].cause:24s} {row['situation'].words}"
