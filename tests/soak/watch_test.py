#!/usr/bin/env python3
"""Whether a leak is told from noise, on made samples and on a process that leaks."""
import random
import subprocess
import sys
import time
import unittest

from watch import Watched, sample, slope


def made(rss_of):
    one = Watched("made", 1)
    chance = random.Random(7)
    one.points = [(10 * i, {"rss": int(rss_of(10 * i) + chance.uniform(-400, 400)), "fds": 9, "threads": 3}) for i in range(200)]
    return one.verdict()[1]


class Verdicts(unittest.TestCase):
    def test_a_slope_is_least_squares(self):
        rise, error = slope([(x, 3 * x + 1) for x in range(10)])
        self.assertAlmostEqual(rise, 3)
        self.assertAlmostEqual(error, 0)

    def test_noise_is_no_leak(self):
        self.assertEqual(made(lambda work: 40_000), [])

    def test_what_fills_at_the_start_is_no_leak(self):
        self.assertEqual(made(lambda work: 40_000 + min(work, 600) * 40), [])

    def test_eight_kilobytes_each_are_a_leak(self):
        self.assertTrue(any("resident memory grew" in wrong for wrong in made(lambda work: 40_000 + 8 * work)))

    def test_too_few_samples_are_no_verdict(self):
        one = Watched("made", 1)
        one.points = [(i, {"rss": 1, "fds": 1, "threads": 1}) for i in range(2)]
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
