"""The models that are measured, written down so that whoever compares knows with what."""

# Layers, width, heads, key heads, MLP, vocabulary (and how much of it is used); `batch` sequences of `context` tokens a
# step, `micro` at once. `masters`: what AdamW updates.
CASES = {
    "124m": dict(kind="gpt2", layers=12, width=768, heads=12, kvHeads=12, mlp=3072, vocab=50304, vocabUsed=50257,
                 context=1024, batch=64, micro=64, recompute=[], llmc="d12"),
    "1558m": dict(kind="gpt2", layers=48, width=1600, heads=25, kvHeads=25, mlp=6400, vocab=50304, vocabUsed=50257,
                  context=1024, batch=16, micro=16, recompute=["norms", "activation"], llmc="d48"),
    "1240m": dict(kind="llama", layers=16, width=2048, heads=32, kvHeads=8, mlp=8192, vocab=128256, vocabUsed=128256,
                  context=2048, batch=8, micro=8, recompute=["norms", "activation"], tieEmbeddings=True, ropeTheta=500000),
    # Llama 3.1 8B's shape. 16 bytes a parameter: BF16 weights and 16-bit remainders are the masters. One lane in eight passes of
    # one sequence with blocks recomputed: eight lanes would keep four gradients of 32 GB for the tree they are added in.
    "8b": dict(kind="llama", layers=32, width=4096, heads=32, kvHeads=8, mlp=14336, vocab=128256, vocabUsed=128256,
               context=2048, batch=8, micro=1, passes=8, recompute=["block"], tieEmbeddings=False, ropeTheta=500000,
               masters="remainder"),
}
NOT_THE_MODELS = ("batch", "micro", "passes", "recompute", "llmc", "masters")
PEAK = 989.4e12  # dense BF16 of H100 and H200 SXM (NVIDIA H100 datasheet)
GEMM = 785e12  # what cuBLASLt was seen to reach on one H200 (issue 6, earlier figures)
MEMORY = 4.3e12  # bytes a second, read and written, of a device copy on one H200 (same)
# What must come out, and what is hoped for: ours divided by the peer's.
REQUIRED = {("1558m", "llm.c"): (1.03, 1.08), ("1240m", "PyTorch"): (1.05, 1.10)}


def model_of(case):
    return {key: value for key, value in CASES[case].items() if key not in NOT_THE_MODELS}


def parameters(case):
    """Elements of each layer's products, and of the head; norms and biases are left out (below 0.1 %)."""
    c = CASES[case]
    head = c["width"] // c["heads"]
    qkv = (c["heads"] + 2 * c["kvHeads"]) * head * c["width"]
    up = (2 if c["kind"] == "llama" else 1) * c["mlp"] * c["width"]
    return dict(qkv=qkv, out=c["width"] ** 2, up=up, down=c["mlp"] * c["width"], head=c["width"] * c["vocab"])


def flops_per_token(case):
    """6 per parameter of a product, and causal attention: 6 x layers x width x tokens."""
    c, p = CASES[case], parameters(case)
    return 6 * (c["layers"] * (p["qkv"] + p["out"] + p["up"] + p["down"]) + p["head"]) + 6 * c["layers"] * c["width"] * c["context"]


def ours_config(case, steps, tokens, seed=1, every=1):
    """What pitcrew-train is given, as YAML (which JSON is)."""
    c = CASES[case]
    config = dict(model=model_of(case), batch=dict(sequences=c["batch"], micro=c["micro"], tokens=c["context"]), steps=steps,
                  seed=seed, optimizer=dict(learningRate=1e-4), data=dict(bin=dict(paths=[str(tokens)])), device="cuda",
                  recompute=c["recompute"], log=dict(every=every))
    if "passes" in c:
        config["batch"]["passes"] = c["passes"]
    if "masters" in c:
        config["optimizer"]["master"] = c["masters"]
    return config
