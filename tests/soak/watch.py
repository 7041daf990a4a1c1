"""What processes hold over time: memory, descriptors, threads, log; and whether it grows."""

import os
import re
import time
from pathlib import Path

WARM = 1 / 3  # of the samples are the start: caches fill, allocators settle
LEAST_KB = 768  # growth below it is noise of an allocator
LEAST_SHARE = 0.03  # of the process's own size
FOR_A_SLOPE = 100  # samples after the start; fewer can't tell a leak from filling
SPARE_DESCRIPTORS = 4
SPARE_THREADS = 1


def sample(pid):
    """{rss: kB, fds, threads}, or None where the process is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        found = {key: int(re.search(rf"^{name}:\s+(\d+)", status, re.M)[1]) for key, name in (("rss", "VmRSS"), ("threads", "Threads"))}
        found["fds"] = len(os.listdir(f"/proc/{pid}/fd"))
        return found
    except (OSError, TypeError):
        return None


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


class Watched:
    """One process. x is the work done when it was sampled: lifecycles, faults, recoveries."""

    def __init__(self, name, pid, log=None):
        self.name, self.pid, self.log = name, pid, Path(log) if log else None
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
            self.points.append((work, found))
        return found

    def verdict(self, log_bytes_per_work=None):
        """(figures as a dictionary, what is wrong as a list). At the end, when it rests again."""
        warm = self.points[int(len(self.points) * WARM):]
        if len(warm) < 3:
            return {"samples": len(self.points)}, [f"{self.name}: {len(self.points)} samples are too few to judge"]
        first, last = warm[0][0], warm[-1][0]
        rise, error = slope([(work, found["rss"]) for work, found in warm])
        span = last - first
        size = warm[-1][1]["rss"]
        now = sample(self.pid)
        figures = {"rss MB": round(size / 1024, 1), "at the start MB": round(self.points[0][1]["rss"] / 1024, 1),
                   "kB per 1000": round(rise * 1000, 1), "+-": round(error * 1000, 1), "over": span, "samples": len(warm)}
        wrong = []
        if len(warm) >= FOR_A_SLOPE and (rise - 3 * error) * span > max(LEAST_KB, LEAST_SHARE * size):
            wrong.append(f"{self.name}: resident memory grew by {rise * span:.0f} kB over {span} (noise: {3 * error * span:.0f} kB)")
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
