"""One turn of each side: what is done to a gang, and what is read off the clock and the meters meanwhile."""

import time

from lab import memory_of
from swarm import Swarm

from harness.process import say, until

PATIENCE = 300  # seconds, of a very busy machine
FAIL_ONE = "fail 1"


class Meter:
    """What happens between its making and read(): requests, and seconds of processors, per daemon."""

    def __init__(self, lab):
        self._lab = lab
        self._requests = lab.requests()
        self._cpu = lab.cpu()

    def read(self, side):
        requests, cpu = self._lab.requests(), self._lab.cpu()
        return {
            "requests": sum(requests.get(name, 0) - self._requests.get(name, 0) for name in side.counted),
            "cpu": {name: round(seconds - self._cpu.get(name, 0), 2) for name, seconds in cpu.items()},
        }


class Turn:
    """A side's turn: each step adds its times in seconds, and what it cost, to `results`."""

    def __init__(self, lab, side, swarm_program):
        self.lab = lab
        self.side = side
        self.results = {}
        self._program = swarm_program

    def run(self):
        self.side.start()
        try:
            with Swarm(self._program, self.lab, self.side.namespace) as swarm:
                self._act(swarm)
                self.results["memory"] = {name: self.lab.memory(name) for name in self.side.daemons()}
                self.results["swarm memory"] = memory_of(swarm.pid)
        finally:
            self.side.stop()
        return self.results

    def _step(self, name, act):
        """act() returns {what: seconds}."""
        meter = Meter(self.lab)
        times = act()
        time.sleep(0.5)  # what is still under way belongs to it
        self.results[name] = {"seconds": times, **meter.read(self.side)}
        say(f"{self.side.name}: {name}: " + ", ".join(f"{what} {seconds:.2f} s" for what, seconds in times.items()))

    def _gone(self, swarm):
        begin = time.time()
        self.side.delete()
        return {"gone": swarm.wait("the end of all pods", lambda c: c["pods"] == 0, PATIENCE) - begin}

    def _suspended_and_resumed(self, swarm):
        pods = self.side.pods
        before = swarm.last["seen"]
        begin = time.time()
        self.side.suspend(True)
        stopped = swarm.wait("a suspended gang", lambda c: c["pods"] == 0, PATIENCE)
        until("the status to say so", self.side.suspended, PATIENCE, 0.02)
        resumed = time.time()
        self.side.suspend(False)
        running = swarm.wait("the new pods", lambda c: c["running"] == pods and c["seen"] >= before + pods, PATIENCE)
        times = {"stopped": stopped - begin, "pods run": running - begin, "resumed to pods run": running - resumed}
        return times | self._training(swarm, begin, None)

    def _training(self, swarm, begin, epoch):
        return {}


class PitcrewTurn(Turn):
    def _act(self, swarm):
        self._step("created", lambda: self._created(swarm))
        self._step("one replaced", lambda: self._replaced(swarm))
        self._step("gang restarted", lambda: self._crashed(swarm))
        self._step("suspended and resumed", lambda: self._suspended_and_resumed(swarm))
        self.results["recoveries"] = self.side.recoveries()
        rungs = sorted(one["rung"] for one in self.results["recoveries"])
        if rungs != ["InPlace", "Recreated"]:
            say(f"warning: recoveries of this round were {', '.join(rungs)}; the machine is too busy for its launchers, and the times say nothing")
        self._step("deleted", lambda: self._gone(swarm))

    def _created(self, swarm):
        pods = self.side.pods
        begin = time.time()
        self.side.create()
        running = swarm.wait("all pods to run", lambda c: c["running"] == pods, PATIENCE)
        return {"pods run": running - begin} | self._training(swarm, begin, 0)

    def _replaced(self, swarm):
        before = dict(swarm.last)
        begin = swarm.tell(FAIL_ONE, "failed")["begin"]
        running = swarm.wait("the new pod", lambda c: c["running"] == self.side.pods and c["seen"] > before["seen"], PATIENCE)
        return {"pods run": running - begin} | self._training(swarm, begin, before["epoch"])

    def _crashed(self, swarm):
        epoch = swarm.last["epoch"]
        begin = swarm.tell("crash", "crashed")["begin"]
        return self._training(swarm, begin, epoch)

    def _training(self, swarm, begin, epoch):
        """Every rank trains, in a newer epoch than that."""
        epoch = swarm.last["epoch"] - 1 if epoch is None else epoch
        trains = swarm.wait("all to train", lambda c: c["training"] == self.side.pods and c["epoch"] > epoch, PATIENCE)
        until("the status to say Running", lambda: self.side.phase() == "Running", PATIENCE, 0.05)
        return {"all train": trains - begin}


class JobSetTurn(Turn):
    def _act(self, swarm):
        self._step("created", lambda: self._created(swarm, 0))
        self._step("gang restarted", lambda: self._restarted(swarm))
        self._step("suspended and resumed", lambda: self._suspended_and_resumed(swarm))
        self.results["restarts"] = self.side.restarts()
        self._step("deleted", lambda: self._gone(swarm))
        # A second one whose Job replaces pods by itself.
        self._created(swarm, self.side.pods)
        self._step("one replaced", lambda: self._replaced(swarm))
        self._gone(swarm)

    def _created(self, swarm, backoff_limit):
        begin = time.time()
        self.side.create(backoff_limit)
        return {"pods run": swarm.wait("all pods to run", lambda c: c["running"] == self.side.pods, PATIENCE) - begin}

    def _replaced(self, swarm):
        before = swarm.last["seen"]
        begin = swarm.tell(FAIL_ONE, "failed")["begin"]
        return {"pods run": swarm.wait("the new pod", lambda c: c["running"] == self.side.pods and c["seen"] > before, PATIENCE) - begin}

    def _restarted(self, swarm):
        pods, before = self.side.pods, swarm.last["seen"]
        begin = swarm.tell(FAIL_ONE, "failed")["begin"]
        return {"pods run": swarm.wait("the new gang", lambda c: c["running"] == pods and c["seen"] >= before + pods, PATIENCE) - begin}
