"""Time and bytes of a step's kernels against their limits: what they must move and compute, and, where Nsight Systems is
there (nsys), what they took."""

import csv
import io
import re

from cases import CASES, GEMM, MEMORY, parameters

# Kernels by their names, for what a profile says. First match wins.
GROUPS = [
    ("attention", r"attention|flash|fmha|sdpa|cudnn_generated"),
    ("products", r"gemm|cutlass|cublas|nvjet|matmul|sm90_xmma"),
    ("optimizer", r"adamw|update_masters|publish"),
    ("head and loss", r"cross_entropy|classifier|softmax"),
    ("norms", r"norm"),
    ("activation", r"gelu|swiglu"),
    ("rope", r"rope|rotary"),
    ("embedding", r"embed"),
    ("sums and digests", r"square_sum|column_sum|digest|reduce|summarize|add"),
]


def limits(case):
    """{group: (flops, bytes)} of one step: forward, backward and update, without recomputing. BF16 activations and weights,
    float gradients; each tensor is read and written once by each kernel that needs it."""
    c, p = CASES[case], parameters(case)
    rows = c["batch"] * c["context"]
    layers, width, mlp = c["layers"], c["width"], c["mlp"]
    gated = c["kind"] == "llama"
    weights = layers * (p["qkv"] + p["out"] + p["up"] + p["down"]) + p["head"]
    passes = c["batch"] // c["micro"]
    lanes = passes // c.get("passes", 1)
    # Weights are read forward and backward; a gradient is written, and read before where it is added to.
    weight_bytes = passes * (2 + 2 + 4) + (passes - lanes) * 4
    head = width // c["heads"]
    qkv_width = (c["heads"] + 2 * c["kvHeads"]) * head
    up_width = mlp * (2 if gated else 1)
    inputs = 2 * width + width + mlp  # of the four products of a layer
    outputs = qkv_width + width + up_width + width
    state = 16 if c.get("masters") == "remainder" else 22  # masters, moments, weights, gradient: read; most written
    return {
        "products": (6 * weights * rows, weights * weight_bytes + 3 * 2 * rows * layers * (inputs + outputs)),
        "attention": (6 * layers * width * c["context"] * rows, 2 * rows * layers * (3 * qkv_width + 3 * width)),
        # Residual in and out, normalized out; backward reads it, the gradient twice, and writes one.
        "norms": (0, 2 * rows * width * (2 * layers) * (4 + 4)),
        "activation": (0, 2 * rows * layers * (up_width + mlp + 2 * up_width + mlp)),
        "head and loss": (0, 2 * rows * c["vocab"] * 3),
        "optimizer": (0, weights * (state + 14)),
        "sums and digests": (0, weights * 4 + (lanes - 1) * weights * 12),
    }


def table(case, measured=None):
    """Rows {group, seconds, flops, bytes, limit, share}: `limit` is the longer of computing at cuBLASLt's best rate and
    moving the bytes at a copy's; `share` how near the kernels come. `measured`: {group: seconds}, or None."""
    rows = []
    for group, (flops, moved) in limits(case).items():
        limit = max(flops / GEMM, moved / MEMORY)
        seconds = (measured or {}).get(group)
        rows.append(dict(group=group, flops=flops, bytes=moved, limit=limit, seconds=seconds,
                         share=limit / seconds if seconds else None))
    for group, seconds in (measured or {}).items():
        if group not in limits(case):
            rows.append(dict(group=group, flops=0, bytes=0, limit=0, seconds=seconds, share=None))
    return rows


def read_profile(text, steps):
    """{group: seconds a step} of `nsys stats --report cuda_gpu_kern_sum --format csv`."""
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if "Total Time (ns)" in line), None)
    if start is None:
        raise ValueError("no kernel summary in what nsys said")
    seconds = {}
    for row in csv.DictReader(io.StringIO("\n".join(lines[start:]))):
        if not row.get("Name"):
            continue
        group = next((name for name, pattern in GROUPS if re.search(pattern, row["Name"], re.IGNORECASE)), "other")
        seconds[group] = seconds.get(group, 0) + float(row["Total Time (ns)"]) / 1e9 / steps
    return seconds


def text(rows):
    out = [f"{'kernels':18} {'limit':>9} {'measured':>9} {'near it':>8} {'bytes':>9} {'flops':>10}"]
    for row in rows:
        measured = f"{1000 * row['seconds']:6.1f} ms" if row["seconds"] else "not meas."
        share = f"{100 * row['share']:6.0f} %" if row["share"] else ""
        out.append(f"{row['group']:18} {1000 * row['limit']:6.1f} ms {measured:>9} {share:>8} {row['bytes'] / 1e9:6.1f} GB {row['flops'] / 1e12:7.1f} T")
    return "\n".join(out)
