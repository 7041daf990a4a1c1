"""Pitcrew's progress page and launcher socket, for training programs in Python. One file, nothing but the standard library.

    import pitcrew_progress as pitcrew

    signal.signal(signal.SIGTERM, signal.SIG_IGN)    # stop_requested() says the same, between two steps
    progress = pitcrew.Progress()                    # does nothing outside Pitcrew
    progress.phase(pitcrew.RESTORING)
    ...
    progress.phase(pitcrew.TRAINING)
    for step in range(start, total):
        loss = train_one_step()
        progress.step_done(step + 1, samples=(step + 1) * batch, loss=loss)
        if progress.save_requested():
            pitcrew.Launcher().saved(step + 1, save(), request=progress.serve_save())
        if progress.stop_requested():
            save()
            sys.exit(0)

docs/training-programs.md describes the layout and the protocol.
"""

import json
import mmap
import os
import socket
import struct
import time

# Phases. Each has a limit of its own; only TRAINING has a learned one.
STARTING, RESTORING, FIRST_STEP, TRAINING, EVALUATING, SAVING, LOST_PEER, DONE = range(8)

# Where a resumed checkpoint came from.
NONE, OWN_MEMORY, PEER_MEMORY, FILE_SYSTEM, OBJECT_STORAGE = range(5)

_MAGIC = 0x3145474150574350
_LAYOUT_VERSION = 1
_HEADER_BYTES = 128
_LINE_BYTES = 64
_GAUGE_BYTES = 32
_GAUGES = 16
_IN_COLLECTIVE = 1
_NO_STEP = 2**64 - 1

# Offsets in the header.
_SAVE_REQUESTED, _STOP_REQUESTED = 32, 40
_TOTAL_STEPS, _TOKENS_PER_SAMPLE = 48, 56
_DURABLE_STEP, _MEMORY_STEP, _RESUMED_STEP, _RESUMED_SOURCE = 64, 72, 80, 88

# Offsets in a line.
_UPDATES, _STEP, _SAMPLES, _PHASE, _FLAGS, _LOSS, _COLLECTIVE, _GPU_COUNTER, _TIME = 0, 8, 16, 24, 26, 32, 40, 48, 56


class Progress:
    """This rank's line of the progress page. Without PITCREW_PROGRESS every method does nothing. One thread at a time."""

    def __init__(self, path=None, local_rank=None):
        self._page = None
        self._served = 0
        path = path or os.environ.get("PITCREW_PROGRESS")
        if not path:
            return
        rank = int(os.environ.get("LOCAL_RANK", "0")) if local_rank is None else local_rank
        with open(path, "r+b") as file:
            page = mmap.mmap(file.fileno(), 0)
        magic, version, ranks = struct.unpack_from("<QII", page, 0)
        if magic != _MAGIC or version != _LAYOUT_VERSION:
            raise RuntimeError(f"progress page {path} has another layout; use the helper of this launcher's version")
        if rank >= ranks:
            raise RuntimeError(f"progress page {path} has no line for local rank {rank}")
        self._page = page
        self._line = _HEADER_BYTES + rank * _LINE_BYTES
        self._gauges = _HEADER_BYTES + ranks * _LINE_BYTES + rank * _GAUGES * _GAUGE_BYTES
        self._names = {}
        self.phase(STARTING)

    def __bool__(self):
        return self._page is not None

    def _put(self, layout, offset, value):
        struct.pack_into(layout, self._page, offset, value)

    def _get(self, offset):
        return struct.unpack_from("<Q", self._page, offset)[0]

    def _touch(self):
        self._put("<Q", self._line + _TIME, time.monotonic_ns())
        self._put("<Q", self._line + _UPDATES, self._get(self._line + _UPDATES) + 1)

    def phase(self, phase):
        """Says what the rank is doing now."""
        if self._page:
            self._put("<H", self._line + _PHASE, phase)
            self._touch()

    def step_done(self, step, samples=0, loss=float("nan")):
        """`step` optimizer steps are done, and the whole job has consumed `samples`."""
        if self._page:
            self._put("<Q", self._line + _STEP, step)
            self._put("<Q", self._line + _SAMPLES, samples)
            self._put("<d", self._line + _LOSS, loss)
            self._touch()

    def beat(self):
        """Shows that the rank is alive inside a long restore, evaluation or save."""
        if self._page:
            self._touch()

    def enter_collective(self, sequence):
        """About to wait for other ranks; `sequence` counts the collectives of the program, alike on all ranks."""
        if self._page:
            self._put("<Q", self._line + _COLLECTIVE, sequence)
            self._put("<H", self._line + _FLAGS, _IN_COLLECTIVE)
            self._touch()

    def leave_collective(self):
        if self._page:
            self._put("<H", self._line + _FLAGS, 0)
            self._touch()

    def gauge(self, name, value):
        """A number of the program's own, shown on /metrics: at most 16 names of at most 24 bytes."""
        if not self._page:
            return
        key = name.encode()[:24]
        if key not in self._names:
            if len(self._names) == _GAUGES:
                return
            self._names[key] = self._gauges + len(self._names) * _GAUGE_BYTES
            self._put("<d", self._names[key] + 24, value)
            self._put("24s", self._names[key], key)
        self._put("<d", self._names[key] + 24, value)

    # For rank 0 of the job alone.

    def totals(self, steps, tokens_per_sample=0):
        if self._page:
            self._put("<Q", _TOTAL_STEPS, steps)
            self._put("<Q", _TOKENS_PER_SAMPLE, tokens_per_sample)

    def resumed(self, step=None, source=NONE):
        """What this epoch started from; None: from the beginning."""
        if self._page:
            self._put("<I", _RESUMED_SOURCE, source)
            self._put("<Q", _RESUMED_STEP, _NO_STEP if step is None else step)

    def durable(self, step):
        """The newest complete durable checkpoint."""
        if self._page:
            self._put("<Q", _DURABLE_STEP, step)

    # What the launcher asks for.

    def save_requested(self):
        """Whether a save was asked for that serve_save() has not been called for."""
        return bool(self._page) and self._get(_SAVE_REQUESTED) > self._served

    def serve_save(self):
        """Call when the save begins; its result is what Launcher.saved() takes as `request`."""
        if self._page:
            self._served = self._get(_SAVE_REQUESTED)
        return self._served

    def stop_requested(self):
        """Save, then exit with 0."""
        return bool(self._page) and self._get(_STOP_REQUESTED) > 0


class Launcher:
    """Requests to this pod's launcher over PITCREW_LAUNCHER. Without it every request does nothing and returns None."""

    def __init__(self, path=None):
        path = path or os.environ.get("PITCREW_LAUNCHER")
        self._id = 0
        self._file = None
        if path:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.connect(path)
            self._file = connection.makefile("rwb")

    def ask(self, op, **fields):
        if self._file is None:
            return None
        self._id += 1
        self._file.write(json.dumps({"id": self._id, "op": op, **fields}).encode() + b"\n")
        self._file.flush()
        line = self._file.readline()
        if not line:
            raise RuntimeError("the launcher closed the connection")
        answer = json.loads(line)
        if not answer.get("ok"):
            error = answer.get("error", {})
            raise RuntimeError(f"launcher: {error.get('code')}: {error.get('message')}")
        return answer

    def saved(self, step, path, size=0, request=0):
        """A durable checkpoint is complete. For rank 0."""
        return self.ask("saved", step=step, path=path, bytes=size, request=request)

    def evidence(self, rank, kind, message, peer=None, step=None, digest=None):
        """Something that the operator should know: lost-peer, nonfinite, spike, replay, digest, storage. Step and digest: of a
        step that gave the same bits twice, or that is past."""
        fields = {"rank": rank, "kind": kind, "message": message}
        for name, value in ("peer", peer), ("step", step), ("digest", digest):
            if value is not None:
                fields[name] = value
        return self.ask("evidence", **fields)

    def push(self, checkpoint, files):
        return self.ask("push", checkpoint=checkpoint, files=files)

    def list(self):
        answer = self.ask("list")
        return answer and answer["held"]

    def fetch(self, slot, path, ranges, into):
        """The ranges [(offset, length), …] of a peer's file; returns the file that holds them."""
        if self.ask("fetch", slot=slot, path=path, ranges=ranges, into=into) is None:
            return None
        return os.path.join(os.environ["PITCREW_MEMORY"], "fetch", into)

    def counted(self, checkpoint, step):
        return self.ask("counted", checkpoint=checkpoint, step=step)

    def drop(self, checkpoint):
        return self.ask("drop", checkpoint=checkpoint)
