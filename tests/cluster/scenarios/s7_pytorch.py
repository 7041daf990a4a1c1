"""Somebody else's program: PyTorch as torchrun starts it, without a word about Pitcrew. `scripts/test pytorch` runs it."""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from harness import foreign
from harness.config import ROOT, Failed, NotRun
from harness.process import say, until
from harness.scenario import scenario

EXAMPLES = ROOT / "examples"
DDP = [EXAMPLES / "pytorch-ddp/train.py"]
FSDP = [EXAMPLES / "pytorch-fsdp/train.py", EXAMPLES / "pitcrew_progress.py"]


def undisturbed(environment, program, steps):
    """The losses of a run by torchrun on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        words = [f"{environment}/bin/python", "-m", "torch.distributed.run", "--nproc-per-node", "2", program, "--folder", folder, "--steps", steps]
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
        if done.returncode != 0:
            raise Failed(f"torchrun failed: {done.stderr[-800:]}")
        return losses(Path(folder))


def losses(folder):
    """Step → the loss's bits. A step that was done twice must have come out the same."""
    found = {}
    for line in (folder / "losses.txt").read_text().splitlines():
        step, bits = line.split()
        if found.setdefault(int(step), bits) != bits:
            raise Failed(f"step {step} came out as {found[int(step)]} and as {bits}")
    return found


def killed_and_resumed(world, name, files, steps, pause, first):
    """A program of PyTorch's on two nodes and a spare: a rank is killed, then a node, and the losses are those of torchrun."""
    environment = os.environ.get("PITCREW_TORCH", "")
    if not Path(environment, "bin/python").exists():
        raise NotRun("PITCREW_TORCH names no environment with torch; scripts/test pytorch makes one")
    packages = next(Path(environment).glob("lib/python3*/site-packages"))
    image = world.push_image(world.cluster, "debian-12-python", lambda path: foreign.debian(12, path, python=True))
    world.share_folder("torch", packages)
    run = f"/shared/{name}"
    job = world.job(name, image=image, memory_every=0, spec={"checkpoint": None},
                    command=["python3", f"{run}/train.py", "--folder", run, "--steps", str(steps), "--pause", str(pause)])
    pod = job.manifest["spec"]["template"]["spec"]
    pod["volumes"].append({"name": "torch", "persistentVolumeClaim": {"claimName": "torch", "readOnly": True}})
    train = pod["containers"][0]
    train["volumeMounts"].append({"name": "torch", "mountPath": "/torch", "readOnly": True})
    train["env"] = [{"name": "PYTHONPATH", "value": "/torch"}, {"name": "HOME", "value": run}, {"name": "TMPDIR", "value": run},
                    {"name": "PYTHONDONTWRITEBYTECODE", "value": "1"}]
    train["resources"] = {"requests": {"cpu": world.share, "memory": "256Mi"}, "limits": {"memory": "3Gi"}}
    for file in files:
        shutil.copy(file, job.folder)
    job.apply()

    def step():
        try:
            return max(losses(job.folder), default=0)
        except OSError:
            return 0

    until(f"step {first}", lambda: step() >= first, 300, 0.5)
    world.kill(world.ranks(job.pod_of_slot(1))[0], signal.SIGKILL)
    recovered(job, 1, "InPlace", step)
    node = job.node_of_slot(1)
    node.cut_power()
    recovered(job, 2, "SpareTaken", step)
    job.wait_phase("Succeeded", seconds=600)
    world.check(losses(job.folder) == undisturbed(environment, files[0], steps), "the losses differ from an undisturbed run's")


@scenario(seconds=1500, by_name=True)
def a_plain_pytorch_program_survives_a_killed_rank_and_a_lost_node(world):
    killed_and_resumed(world, "ddp", DDP, steps=300, pause=0.3, first=60)


@scenario(seconds=1500, by_name=True)
def a_pytorch_fsdp_program_with_dcp_survives_a_killed_rank_and_a_lost_node(world):
    killed_and_resumed(world, "fsdp", FSDP, steps=300, pause=0.3, first=50)


def recovered(job, count, rung, step):
    recoveries = until(f"recovery {count}", lambda: len(job.recoveries()) >= count and job.recoveries(), 120, 0.5)
    if recoveries[0]["rung"] != rung:
        raise Failed(f"the recovery was {recoveries[0]}, not {rung}")
    # It goes back to its own checkpoint, and on beyond where it was.
    before = step()
    until(f"steps beyond {before}", lambda: step() > before + 10, 180, 0.5)
    say(f"  {recoveries[0]['cause']}: {rung}, resumed by the program itself, now at step {step()}")
