"""GPT-2 and Llama in PyTorch, with Pitcrew's parameter names and layouts: the reference for goldens and benchmarks."""

import torch
import torch.nn.functional as F
from torch import nn


class Norm(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.eps = config["normEps"]
        self.weight = nn.Parameter(torch.ones(config["width"]))
        self.bias = nn.Parameter(torch.zeros(config["width"])) if config["kind"] == "gpt2" else None

    def forward(self, x):
        if self.bias is not None:
            return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)
        return F.rms_norm(x, x.shape[-1:], self.weight, self.eps)


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads, self.kv_heads = config["heads"], config["kvHeads"]
        width = config["width"]
        self.head_width = width // self.heads
        bias = config["kind"] == "gpt2"
        self.qkv = nn.Linear(width, (self.heads + 2 * self.kv_heads) * self.head_width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)

    def forward(self, x, rope):
        batch, length, width = x.shape
        qkv = self.qkv(x).view(batch, length, self.heads + 2 * self.kv_heads, self.head_width).transpose(1, 2)
        q, k, v = qkv.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        if rope is not None:
            q, k = rotate(q, *rope), rotate(k, *rope)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.heads != self.kv_heads)
        return self.out(y.transpose(1, 2).reshape(batch, length, width))


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


class Mlp(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gpt2 = config["kind"] == "gpt2"
        self.up = nn.Linear(config["width"], config["mlp"] * (1 if self.gpt2 else 2), bias=self.gpt2)
        self.down = nn.Linear(config["mlp"], config["width"], bias=self.gpt2)

    def forward(self, x):
        if self.gpt2:
            return self.down(F.gelu(self.up(x), approximate="tanh"))
        gate, up = self.up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.norm1, self.attn = Norm(config), Attention(config)
        self.norm2, self.mlp = Norm(config), Mlp(config)

    def forward(self, x, rope):
        x = x + self.attn(self.norm1(x), rope)
        return x + self.mlp(self.norm2(x))


class Model(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config["vocab"], config["width"])
        self.position = nn.Embedding(config["context"], config["width"]) if config["kind"] == "gpt2" else None
        self.layers = nn.ModuleList(Block(config) for _ in range(config["layers"]))
        self.norm = Norm(config)
        self.head = None if config["tieEmbeddings"] else nn.Linear(config["width"], config["vocab"], bias=False)
        if self.position is None:
            half = config["width"] // config["heads"] // 2
            frequencies = config["ropeTheta"] ** (-torch.arange(half, dtype=torch.float64) / half)
            angles = torch.outer(torch.arange(config["context"], dtype=torch.float64), frequencies)
            self.register_buffer("cos", angles.cos().float(), persistent=False)
            self.register_buffer("sin", angles.sin().float(), persistent=False)

    def forward(self, tokens):
        """The sum of the token losses of tokens [batch, length + 1]."""
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        length = inputs.shape[1]
        x = self.embed(inputs)
        rope = None
        if self.position is not None:
            x = x + self.position.weight[:length]
        else:
            rope = (self.cos[:length], self.sin[:length])
        for layer in self.layers:
            x = layer(x, rope)
        weight = self.embed.weight if self.head is None else self.head.weight
        logits = F.linear(self.norm(x), weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")


def optimizer_of(model, learning_rate, weight_decay, fused=False):
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.95), eps=1e-8, fused=fused)
