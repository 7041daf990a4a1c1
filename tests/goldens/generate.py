#!/usr/bin/env python3
"""Writes the goldens: for each small model its weights, a batch, and PyTorch's loss, gradients and weights after three
AdamW steps with clipping, all in float32. Needs torch 2.8 (see README.md): python3 tests/goldens/generate.py"""

import json
import pathlib
import struct

import torch

from reference_model import Model, optimizer_of

MODELS = {
    "gpt2": dict(kind="gpt2", layers=2, width=36, heads=3, kvHeads=3, mlp=50, vocab=37, context=21, ropeTheta=10000,
                 tieEmbeddings=True, normEps=1e-5),
    "llama": dict(kind="llama", layers=3, width=40, heads=4, kvHeads=2, mlp=52, vocab=41, context=83, ropeTheta=500000,
                  tieEmbeddings=False, normEps=1e-5),
}
BATCH = {"gpt2": (3, 19), "llama": (2, 83)}
STEPS, LEARNING_RATE, WEIGHT_DECAY, MAX_NORM = 3, 1e-2, 0.1, 0.5


def write_safetensors(path, tensors, metadata):
    header, data = {"__metadata__": metadata}, b""
    for name, tensor in tensors.items():
        raw = tensor.detach().contiguous().numpy().tobytes()
        dtype = {torch.float32: "F32", torch.int32: "I32"}[tensor.dtype]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def generate(name, config):
    torch.manual_seed(20)
    model = Model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    sequences, length = BATCH[name]
    tokens = torch.randint(config["vocab"], (sequences, length + 1), dtype=torch.int32)
    out = {"tokens": tokens}
    for key, value in model.named_parameters():
        out["weight:" + key] = value.detach().clone()
    loss = model(tokens.long())
    loss.backward()
    for key, value in model.named_parameters():
        out["gradient:" + key] = value.grad.clone()

    optimizer = optimizer_of(model, LEARNING_RATE, WEIGHT_DECAY)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        mean = model(tokens.long()) / (sequences * length)
        mean.backward()
        losses.append(mean.item())
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        optimizer.step()
    for key, value in model.named_parameters():
        out["trained:" + key] = value.detach().clone()
    metadata = dict(config=json.dumps(config), loss=repr(loss.item()), losses=json.dumps(losses), torch=torch.__version__,
                    steps=str(STEPS), learningRate=str(LEARNING_RATE), weightDecay=str(WEIGHT_DECAY), maxNorm=str(MAX_NORM))
    path = pathlib.Path(__file__).parent / f"{name}.safetensors"
    write_safetensors(path, out, metadata)
    print(f"{path.name}: {path.stat().st_size} bytes, loss {loss.item():.6f}, then {losses}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, config in MODELS.items():
        generate(name, config)
