"""A plain PyTorch DDP program, as one would write it for torchrun: it knows nothing of Pitcrew. Its own checkpoint is one file.

    torchrun --nproc-per-node 2 train.py --folder RUN --steps 200

Learns a sine from points that depend on the step alone, so that a run that was broken off and resumed ends where any other does.
"""

import argparse
import os
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def save(path, model, optimizer, step):
    """Whole or not at all: a reader never sees half a file."""
    fresh = path.with_suffix(".new")
    with open(fresh, "wb") as file:
        torch.save({"model": model.module.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True, help="of the checkpoint and the losses")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--every", type=int, default=20, help="steps between two checkpoints")
    parser.add_argument("--pause", type=float, default=0, help="seconds added to a step, for a model this small")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(1)
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if torch.cuda.is_available() else torch.device("cpu")
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    model = DistributedDataParallel(nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1)).to(device))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    path, first = arguments.folder / "checkpoint.pt", 0
    if path.exists():
        state = torch.load(path, map_location=device, weights_only=True)
        model.module.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    if rank == 0:
        print(f"rank 0 of {world} begins at step {first}", flush=True)

    for step in range(first, arguments.steps):
        points = torch.rand(64, 1, generator=torch.Generator().manual_seed(step * world + rank)).to(device) * 6
        loss = nn.functional.mse_loss(model(points), torch.sin(points))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total = loss.detach().clone()
        dist.all_reduce(total)
        if rank == 0:
            with open(arguments.folder / "losses.txt", "a") as file:
                file.write(f"{step + 1} {(total / world).item().hex()}\n")
            if (step + 1) % arguments.every == 0 or step + 1 == arguments.steps:
                save(path, model, optimizer, step + 1)
        if step % 20 == 0:
            print(f"rank {rank}: step {step + 1}", flush=True)
        time.sleep(arguments.pause)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
