#!/usr/bin/env python3
"""Whether a leak is told from noise, on made samples and on a process that leaks."""
import math
import random
import subprocess
import sys
import time
import unittest

from watch import Month, Watched, sample, slope, trend


MONTH = Month(work=30_000, megabytes=32)  # 1.09 kB each


def made(anon_of, count=600, noise=400, month=MONTH):
    """What is said of a process whose own resident kB are a function of the work done, with noise that wanders: each
    sample's is near that of the one before, as that of jobs that live for many samples."""
    one = Watched("made", 1, month=month)
    chance = random.Random(7)
    wander = 0.0
    for i in range(count):
        wander = 0.9 * wander + chance.uniform(-noise, noise) / 2
        one.points.append((10 * i, {"anon": anon_of(10 * i) + wander, "fds": 9, "threads": 3}))
    return " ".join(one.verdict()[1])


class Verdicts(unittest.TestCase):
    def test_a_slope_is_least_squares(self):
        rise, error = slope([(x, 3 * x + 1) for x in range(10)])
        self.assertAlmostEqual(rise, 3)
        self.assertAlmostEqual(error, 0)

    def test_the_interval_holds_the_slope_that_there_is(self):
        """Of noise that wanders, too: nineteen times of twenty, and here at least nine of ten."""
        held = 0
        for seed in range(200):
            chance, wander, points = random.Random(seed), 0.0, []
            for x in range(600):
                wander = 0.9 * wander + chance.gauss(0, 1)
                points.append((x, 0.01 * x + wander))
            rise, wide = trend(points)
            held += abs(rise - 0.01) <= wide
        self.assertGreater(held, 180)

    def test_noise_is_no_leak(self):
        self.assertEqual(made(lambda work: 40_000), "")

    def test_what_fills_at_the_start_is_no_leak(self):
        self.assertEqual(made(lambda work: 40_000 + min(work, 2500) * 4), "")

    def test_what_fills_ever_slower_is_no_leak(self):
        self.assertEqual(made(lambda work: 40_000 - 8000 * math.exp(-work / 600)), "")

    def test_what_shrinks_is_no_leak(self):
        self.assertEqual(made(lambda work: 40_000 - 2 * work), "")

    def test_three_kilobytes_each_are_a_leak(self):
        self.assertIn("anon grows", made(lambda work: 40_000 + 3 * work))

    def test_a_leak_that_a_busy_month_would_not_show_is_allowed(self):
        self.assertEqual(made(lambda work: 40_000 + 0.2 * work, noise=100), "")

    def test_what_the_noise_hides_is_not_called_bounded(self):
        self.assertIn("not shown to be bounded", made(lambda work: 40_000 + 0.9 * work, noise=6000))

    def test_a_short_run_judges_no_slope(self):
        self.assertEqual(made(lambda work: 40_000 + 50 * work, count=150), "")

    def test_the_heap_is_judged_by_itself(self):
        """A leak below what the allocator keeps for later isn't seen in what is resident."""
        one = Watched("made", 1, month=MONTH)
        one.points = [(10 * i, {"anon": 90_000, "heap": 20_000 + 30 * i, "fds": 9, "threads": 3}) for i in range(600)]
        self.assertIn("heap grows", " ".join(one.verdict()[1]))

    def test_too_few_samples_are_no_verdict(self):
        one = Watched("made", 1)
        one.points = [(i, {"anon": 1, "fds": 1, "threads": 1}) for i in range(2)]
        self.assertIn("too few", one.verdict()[1][0])

    def test_descriptors_and_threads_that_stay_are_found(self):
        leaks = "import sys, threading, time; sys.stdin.readline(); f = [open('/dev/null') for _ in range(9)];" \
                "[threading.Thread(target=time.sleep, args=(60,), daemon=True).start() for _ in range(3)];" \
                "print('done', flush=True); sys.stdin.readline()"
        child = subprocess.Popen([sys.executable, "-c", leaks], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            one = Watched("leaks", child.pid)
            while sample(child.pid)["threads"] < 1:
                time.sleep(0.01)
            one.rest()
            child.stdin.write("go\n")
            child.stdin.flush()
            child.stdout.readline()
            for work in range(30):
                one.look(work)
            wrong = " ".join(one.verdict()[1])
            self.assertIn("fds at rest", wrong)
            self.assertIn("threads at rest", wrong)
        finally:
            child.communicate("end\n", timeout=30)


if __name__ == "__main__":
    unittest.main()
