"""The launcher runs in any image. The trainer's own has no shell, is read-only and not root's, under Pod Security "restricted"."""

import signal

from harness import foreign
from harness.process import until
from harness.scenario import scenario


def any_program(world, name, image, command):
    """A job of a program that knows nothing of Pitcrew: its ranks are started, restarted when one is killed, and end it."""
    job = world.job(name, image=image, command=command, spares=0, memory_every=0, spec={"checkpoint": None}).apply()
    job.wait_phase("Running")
    until("output of both ranks", lambda: all("step 3" in job.output(slot) for slot in (0, 1)), 60)
    world.check("rank 1 of 2" in job.output(1), f"rank 1 said: {job.output(1)[-300:]}")
    restarts = job.container_restarts()
    pid = world.ranks(job.pod_of_slot(1))[0]
    world.kill(pid, signal.SIGKILL)
    until("the recovery", lambda: job.recoveries(), 60)
    world.check(job.recoveries()[0]["rung"] == "InPlace", f"the recovery was {job.recoveries()[0]}")
    job.wait_phase("Succeeded", seconds=180)
    world.check(job.container_restarts() == restarts, "a container restarted")


@scenario()
def a_program_on_musl_without_a_shell(world):
    any_program(world, "musl", world.push_image(world.cluster, "musl", foreign.musl), ["/usr/bin/train"])


@scenario(seconds=1200)
def a_script_on_debian_11(world):
    image = world.push_image(world.cluster, "debian-11", lambda path: foreign.debian(11, path))
    any_program(world, "debian-11", image, ["/bin/sh", "-c", foreign.SCRIPT])


@scenario(seconds=1200)
def a_script_on_debian_12(world):
    image = world.push_image(world.cluster, "debian-12", lambda path: foreign.debian(12, path))
    any_program(world, "debian-12", image, ["/bin/sh", "-c", foreign.SCRIPT])
