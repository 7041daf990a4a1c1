"""What processes hold over time: memory, descriptors, threads, log; and whether it grows.

Memory is what the program holds of its allocator where it tells that (process_heap_used_bytes), and what is resident of its
own (RssAnon): what is resident of its file grows for hours, as code is run for the first time, and is nobody's leak.
The question is not whether a slope is zero, which no measurement shows, but whether it is small enough: what a month of a
stated load would add, at 95 % confidence, is below a stated bound."""

import os
import re
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

WARM = 1 / 2  # of the samples are the start: caches and histories fill, allocators settle
BLOCKS = 20  # of samples; their means are what a line is laid through, since samples are not independent of one another
STUDENT = 2.101  # 97.5 % of Student's t with 18 degrees of freedom: of a line through 20 blocks
FOR_A_SLOPE = 200  # samples; fewer can't tell a leak from filling
SPARE_DESCRIPTORS = 4
SPARE_THREADS = 1
HEAP = re.compile(r"^process_heap_used_bytes (\S+)$", re.M)


@dataclass(frozen=True)
class Month:
    """What growth is measured by: work that a busy month brings, and what it may add."""
    work: int
    megabytes: float


def sample(pid):
    """{rss: kB, anon: kB, fds, threads}, or None where the process is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        names = (("rss", "VmRSS"), ("anon", "RssAnon"), ("threads", "Threads"))
        found = {key: int(re.search(rf"^{name}:\s+(\d+)", status, re.M)[1]) for key, name in names}
        found["fds"] = len(os.listdir(f"/proc/{pid}/fd"))
        return found
    except (OSError, TypeError):
        return None


def page(address):
    """A /metrics page as text, "" where nobody answers."""
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
            return answer.read().decode()
    except OSError:
        return ""


def heap(address):
    """kB that the program holds of its allocator, or None."""
    found = HEAP.search(page(address))
    return float(found[1]) / 1024 if found else None


def slope(points):
    """Least squares over (x, y): (slope, its standard error)."""
    count = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    if count < 3 or spread == 0:
        return 0.0, float("inf")
    rise = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    rest = sum((y - mean_y - rise * (x - mean_x)) ** 2 for x, y in points)
    return rise, (rest / (count - 2) / spread) ** 0.5


def trend(points):
    """(x, y) in the order of time → (slope, half the width of its 95 % interval), through the means of BLOCKS blocks."""
    size = len(points) / BLOCKS
    blocks = [points[round(size * i):round(size * (i + 1))] for i in range(BLOCKS)]
    means = [(sum(x for x, _ in block) / len(block), sum(y for _, y in block) / len(block)) for block in blocks if block]
    rise, error = slope(means)
    return rise, STUDENT * error


class Watched:
    """One process. x is the work done when it was sampled: lifecycles, faults, recoveries. metrics: the address of its
    /metrics, where there is one. month: by which growth is judged; without it memory is told only."""

    def __init__(self, name, pid, log=None, metrics=None, month=None):
        self.name, self.pid, self.log = name, pid, Path(log) if log else None
        self.metrics, self.month = metrics, month
        self.points = []
        self.idle = None  # before the work
        self.begin_log = self.log_size()
        self.begin = time.monotonic()

    def log_size(self):
        return self.log.stat().st_size if self.log and self.log.exists() else 0

    def rest(self):
        """Called before the work begins."""
        self.idle = sample(self.pid)
        self.begin_log = self.log_size()

    def look(self, work):
        found = sample(self.pid)
        if found:
            held = heap(self.metrics) if self.metrics else None
            if held is not None:
                found["heap"] = held
            self.points.append((work, found))
        return found

    def memory(self, kind, warm, figures):
        """Judges one series; returns what is wrong."""
        series = [(work, found[kind]) for work, found in warm if kind in found]
        if len(series) < 3:
            return []
        rise, wide = trend(series)
        figures[f"{kind} MB"] = f"{self.points[0][1].get(kind, series[0][1]) / 1024:.1f} -> {series[-1][1] / 1024:.1f}"
        figures[f"{kind} kB per 1000"] = f"{rise * 1000:.1f} +- {wide * 1000:.1f}"
        if not self.month:
            return []
        monthly, most = rise * self.month.work / 1024, (rise + wide) * self.month.work / 1024
        figures[f"{kind} MB a month"] = f"{monthly:.1f}, at most {most:.1f}"
        if len(self.points) < FOR_A_SLOPE or most <= self.month.megabytes:
            return []
        least = (rise - wide) * self.month.work / 1024
        load = f"{self.month.work} in a month would add {least:.0f} to {most:.0f} MB, allowed are {self.month.megabytes:.0f}"
        if least > self.month.megabytes:
            return [f"{self.name}: {kind} grows: {load}"]
        return [f"{self.name}: {kind} is not shown to be bounded; a longer run tells: {load}"]

    def verdict(self, log_bytes_per_work=None):
        """(figures as a dictionary, what is wrong as a list). At the end, when it rests again."""
        warm = self.points[int(len(self.points) * WARM):]
        if len(warm) < 3:
            return {"samples": len(self.points)}, [f"{self.name}: {len(self.points)} samples are too few to judge"]
        last = warm[-1][0]
        now = sample(self.pid)
        figures = {"of": last, "samples": len(self.points), "rss MB": round(warm[-1][1].get("rss", 0) / 1024, 1)}
        wrong = self.memory("heap", warm, figures) + self.memory("anon", warm, figures)
        if now and self.idle:
            for what, spare in (("fds", SPARE_DESCRIPTORS), ("threads", SPARE_THREADS)):
                figures[what] = f"{self.idle[what]} -> {now[what]}"
                if now[what] > self.idle[what] + spare:
                    wrong.append(f"{self.name}: {what} at rest were {self.idle[what]} before and are {now[what]} after")
        elif self.idle:
            wrong.append(f"{self.name}: it has ended")
        if self.log and last:
            each = (self.log_size() - self.begin_log) / last
            figures["log bytes each"] = round(each)
            if log_bytes_per_work and each > log_bytes_per_work:
                wrong.append(f"{self.name}: it logs {each:.0f} bytes each, allowed are {log_bytes_per_work}")
        return figures, wrong


def tell(verdicts):
    """Prints [(name, figures, wrong)]; returns how many are wrong."""
    for name, figures, _ in verdicts:
        print(f"{name:24} " + ", ".join(f"{key} {value}" for key, value in figures.items()), flush=True)
    complaints = [complaint for _, _, wrong in verdicts for complaint in wrong]
    for complaint in complaints:
        print("WRONG: " + complaint, flush=True)
    return len(complaints)
