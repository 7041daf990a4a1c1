"""A decoder trained by PyTorch FSDP2, with sharded checkpoints by torch.distributed.checkpoint (DCP).

    torchrun --nproc-per-node 2 train.py --folder RUN --steps 100 --model tiny        # CPUs do, over gloo
    python train.py …                                                                 # in a TrainingJob: one process per rank

Knows torchrun's variables alone. With pitcrew_progress.py beside it (or on PYTHONPATH) it also says how far it is, saves when it is
asked to, and stops between two steps; without, the same program runs under anything.

A checkpoint is whole or not at all: all ranks write step-N.new, rank 0 renames it, then `latest` names it.
"""

import argparse
import faulthandler
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.nn.functional as F
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

try:
    import pitcrew_progress as pitcrew
except ImportError:
    pitcrew = None

# vocabulary, width, layers, heads, heads of keys and values, MLP, context
MODELS = {"tiny": (256, 64, 2, 4, 2, 128, 64), "llama-8b": (128256, 4096, 32, 32, 8, 14336, 8192)}


def rope(x, base=500000.0):
    """Rotary positions. x: batch × heads × time × width of a head."""
    half = x.shape[-1] // 2
    angles = torch.outer(torch.arange(x.shape[-2], device=x.device).float(), base ** (-torch.arange(half, device=x.device).float() / half))
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Block(nn.Module):
    def __init__(self, width, heads, kv_heads, mlp):
        super().__init__()
        self.heads, self.kv_heads, self.head = heads, kv_heads, width // heads
        self.norm1, self.norm2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.qkv = nn.Linear(width, (heads + 2 * kv_heads) * self.head, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate, self.up, self.down = (nn.Linear(a, b, bias=False) for a, b in ((width, mlp), (width, mlp), (mlp, width)))

    def forward(self, x):
        batch, length, width = x.shape
        parts = self.qkv(self.norm1(x)).split([self.heads * self.head, self.kv_heads * self.head, self.kv_heads * self.head], -1)
        q, k, v = (part.view(batch, length, -1, self.head).transpose(1, 2) for part in parts)
        attended = F.scaled_dot_product_attention(rope(q), rope(k), v, is_causal=True, enable_gqa=self.heads != self.kv_heads)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, width))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Decoder(nn.Module):
    def __init__(self, vocabulary, width, layers, heads, kv_heads, mlp, context):
        super().__init__()
        self.context = context
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(Block(width, heads, kv_heads, mlp) for _ in range(layers))
        self.norm, self.head = nn.RMSNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def batch_of(step, rank, world, size, model, vocabulary, device):
    """Sequences that depend on the step alone, so that a run that was broken off learns the same as any other. Put your data
    loader here; it must be able to begin at a step."""
    generator = torch.Generator().manual_seed(step * world + rank)
    start = torch.randint(vocabulary, (size, 1), generator=generator)
    stride = torch.randint(1, 4, (size, 1), generator=generator)
    return ((start + stride * torch.arange(model.context + 1)) % vocabulary).to(device)


def save(folder, step, model, optimizer, keep):
    """By all ranks. Returns the checkpoint's path."""
    weights, state = get_state_dict(model, optimizer)
    fresh, path = folder / f"step-{step}.new", folder / f"step-{step}"
    if dist.get_rank() == 0:
        shutil.rmtree(fresh, ignore_errors=True)
    dist.barrier()
    dcp.save({"model": weights, "optimizer": state, "step": torch.tensor(step)}, checkpoint_id=fresh)
    if dist.get_rank() == 0:
        shutil.rmtree(path, ignore_errors=True)
        fresh.rename(path)
        (folder / "latest.new").write_text(path.name)
        (folder / "latest.new").rename(folder / "latest")
        steps = sorted((int(old.name[5:]) for old in folder.glob("step-*") if old.name[5:].isdigit()), reverse=True)
        for old in steps[keep:]:
            shutil.rmtree(folder / f"step-{old}", ignore_errors=True)
    dist.barrier()
    return path


def load(folder, model, optimizer):
    """The step that the newest checkpoint was taken after; 0: there is none."""
    latest = folder / "latest"
    if not latest.exists():
        return 0
    weights, state = get_state_dict(model, optimizer)
    values = {"model": weights, "optimizer": state, "step": torch.tensor(0)}
    dcp.load(values, checkpoint_id=folder / latest.read_text().strip())
    set_state_dict(model, optimizer, model_state_dict=values["model"], optim_state_dict=values["optimizer"])
    return int(values["step"])


class Report:
    """What is said to Pitcrew; nothing elsewhere."""

    def __init__(self):
        self.page = pitcrew.Progress() if pitcrew else None
        self.launcher = pitcrew.Launcher() if self.page and dist.get_rank() == 0 else None
        if self.page:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the page says the same, between two steps

    def phase(self, name):
        if self.page:
            self.page.phase(getattr(pitcrew, name))

    def done(self, step, samples, loss):
        if self.page:
            self.page.step_done(step, samples=samples, loss=loss)

    def wishes(self, device):
        """(save, stop) as all ranks agree on: the page's words reach ranks at different moments."""
        mine = [bool(self.page and self.page.save_requested()), bool(self.page and self.page.stop_requested())]
        asked = torch.tensor(mine, dtype=torch.int32, device=device)
        dist.all_reduce(asked, dist.ReduceOp.MAX)
        return bool(asked[0]), bool(asked[1])

    def saved(self, step, path):
        if self.page and dist.get_rank() == 0:
            self.page.durable(step)
            self.launcher.saved(step, str(path), request=self.page.serve_save())
        elif self.page:
            self.page.serve_save()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True, help="of checkpoints and losses, on storage that all nodes share")
    parser.add_argument("--model", choices=MODELS, default="tiny")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--every", type=int, default=20, help="steps between two checkpoints")
    parser.add_argument("--keep", type=int, default=2)
    parser.add_argument("--batch", type=int, default=4, help="sequences of a rank and step")
    parser.add_argument("--pause", type=float, default=0, help="seconds added to a step, for a model this small")
    arguments = parser.parse_args()
    faulthandler.register(signal.SIGUSR2, all_threads=True)  # stacks, when the launcher asks

    gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)
    dist.init_process_group("nccl" if gpu else "gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    report = Report()

    torch.manual_seed(1)
    with torch.device(device):
        model = Decoder(*MODELS[arguments.model])
    precision = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32) if gpu else MixedPrecisionPolicy()
    mesh = dist.device_mesh.init_device_mesh(device.type, (world,))
    for block in model.blocks:
        fully_shard(block, mesh=mesh, mp_policy=precision)
    fully_shard(model, mesh=mesh, mp_policy=precision)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4 if arguments.model != "tiny" else 1e-2)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    report.phase("RESTORING")
    first = load(arguments.folder, model, optimizer)
    if rank == 0:
        print(f"{world} ranks begin at step {first}", flush=True)
        if report.page:
            report.page.totals(arguments.steps, model.context)
            report.page.resumed(first or None, pitcrew.FILE_SYSTEM if first else pitcrew.NONE)

    vocabulary = MODELS[arguments.model][0]
    for step in range(first, arguments.steps):
        report.phase("FIRST_STEP" if step == first else "TRAINING")
        tokens = batch_of(step, rank, world, arguments.batch, model, vocabulary, device)
        loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1).float(), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        mean = loss.detach().clone()
        dist.all_reduce(mean)
        mean = (mean / world).item()
        report.done(step + 1, (step + 1) * world * arguments.batch, mean)
        if rank == 0:
            with open(arguments.folder / "losses.txt", "a") as file:
                file.write(f"{step + 1} {mean.hex()}\n")
            if (step + 1) % 10 == 0:
                print(f"step {step + 1} loss {mean:.4f}", flush=True)
        wanted, stop = report.wishes(device)
        if wanted or stop or (step + 1) % arguments.every == 0 or step + 1 == arguments.steps:
            report.phase("SAVING")
            report.saved(step + 1, save(arguments.folder, step + 1, model, optimizer, arguments.keep))
        if stop:
            sys.exit(0)
        time.sleep(arguments.pause)
    report.phase("DONE")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
