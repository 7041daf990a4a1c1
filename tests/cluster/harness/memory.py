"""Makes the kernel run out of memory in a container's control group, as a program that asks for too much would."""

import subprocess
from pathlib import Path

from .config import Failed
from .process import until

_PIECE_MIB = 6  # below what the launcher holds, so that the kernel chooses its ranks first, then it


def fill_container(pid):
    """Puts small processes into the memory group of the container whose process 1 this is, up to twice what its limit
    holds, until the kernel has killed it. They end with it, so that its successor finds room."""
    group = _memory_group(pid)
    limit = next(file for file in (group / "memory.max", group / "memory.limit_in_bytes") if file.exists())
    count = 2 * int(limit.read_text()) // (_PIECE_MIB << 20)
    # tail keeps the end of what it reads, and ends when its input does.
    join = f"echo 0 > {group}/cgroup.procs && exec tail -c {_PIECE_MIB}M"
    fillers = []
    try:
        for _ in range(count):
            source = subprocess.Popen(["sh", "-c", f"head -c {_PIECE_MIB}M /dev/zero; exec sleep 120"], stdout=subprocess.PIPE)
            fillers.append(source)
            fillers.append(subprocess.Popen(["sh", "-c", join], stdin=source.stdout, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            source.stdout.close()
            if not Path(f"/proc/{pid}").exists():
                break
        until("the kernel to kill a container that is out of memory", lambda: not Path(f"/proc/{pid}").exists(), 60, 0.01)
    finally:
        for filler in fillers:
            filler.kill()
        for filler in fillers:
            filler.wait()


def _memory_group(pid):
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return Path("/sys/fs/cgroup/memory") / path.lstrip("/")
        if number == "0" and (Path("/sys/fs/cgroup") / path.lstrip("/") / "memory.max").exists():
            return Path("/sys/fs/cgroup") / path.lstrip("/")
    raise Failed(f"process {pid} is in no memory group")
