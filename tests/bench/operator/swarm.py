"""pitcrew-swarm as the driver has it: a process that counts pods and launchers, and fails them when told to."""

import json
import queue
import subprocess
import threading
import time

from harness.config import Failed


class Swarm:
    """A context. Times are the swarm's, in seconds of the wall clock."""

    def __init__(self, program, lab, namespace):
        self._words = [str(program), "--kubeconfig", lab.control.kubeconfig, "--namespace", namespace]
        self._log = open(lab.daemons.logs / f"swarm-{namespace}.log", "ab")
        self._lines = queue.Queue()
        self.last = {}

    def __enter__(self):
        self._process = subprocess.Popen(self._words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True)
        threading.Thread(target=self._read, daemon=True).start()
        self._next(30)
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    @property
    def pid(self):
        return self._process.pid

    def wait(self, what, check, seconds):
        """The time of the first census that the check is true of, from the newest that is known on."""
        end = time.monotonic() + seconds
        while not (self.last and check(self.last)):
            left = end - time.monotonic()
            if left <= 0:
                raise Failed(f"gave up waiting for {what} after {seconds} s; counted last: {json.dumps(self.last)}")
            self._next(left)
        return self.last["time"]

    def tell(self, command, answer):
        """Sends a command and returns its answer, the event of that name."""
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        end = time.monotonic() + 30
        while True:
            event = self._next(end - time.monotonic())
            if event and event["event"] in (answer, "error"):
                if event["event"] == "error":
                    raise Failed(f"pitcrew-swarm: {event['message']}")
                return event
            if time.monotonic() > end:
                raise Failed(f"pitcrew-swarm did not answer '{command}'")

    def _read(self):
        for line in self._process.stdout:
            self._lines.put(json.loads(line))
        self._lines.put(None)

    def _next(self, seconds):
        try:
            event = self._lines.get(timeout=max(0.01, seconds))
        except queue.Empty:
            return None
        if event is None:
            raise Failed(f"pitcrew-swarm has ended with {self._process.wait()}; see {self._log.name}")
        if event["event"] == "census":
            self.last = event
        return event
