#!/usr/bin/env python3
"""Makes tests/golden/adapter.safetensors: the model of make_golden_model.py with a low-rank branch beside every
target matrix, in plain PyTorch, in double precision, with gradients by autograd.

    y = W x + (alpha / r) B (m * (A x)),   m = 1 + gamma tanh(W2 silu(W1 x + b1) + b2)     (lora: m = 1)

Base weights, masks, tokens and targets are those of tests/golden/model.safetensors. Run it only to make the
file again:

    python3 tests/reference/make_golden_adapter.py tests/golden/model.safetensors tests/golden/adapter.safetensors

Content: the branches' weights as NAME.lora_A.weight (r, din), NAME.lora_B.weight (dout, r), NAME.como.W1 (h, din),
.b1 (h), .W2 (r, h), .b2 (r), with NAME the matrix's name without ".weight"; then, for prefix dense.lora (without
mask) and nm14.comolora (with): PREFIX.losses, PREFIX.logits, PREFIX.grad.NAME of the mean loss over all 32 places.
A masked matrix's gradient holds its active entries only, in row-major order.
"""
import math
import sys

import torch
from safetensors.torch import load_file, save_file

import make_golden_model as base

RANK, HIDDEN, GAMMA, ALPHA = 3, 2, 0.5, 6.0
GATE = ("como.W1", "como.b1", "como.W2", "como.b2")


def stem(name):
    return name.removesuffix("weight")


def make_branch(name, weight):
    dout, din = weight.shape
    s = stem(name)
    shapes = {
        s + "lora_A.weight": (RANK, din), s + "lora_B.weight": (dout, RANK), s + "como.W1": (HIDDEN, din),
        s + "como.b1": (HIDDEN,), s + "como.W2": (RANK, HIDDEN), s + "como.b2": (RANK,),
    }
    return {
        k: (torch.randn(v, dtype=torch.float64) * (0.5 if len(v) == 1 else 0.7 / math.sqrt(v[-1]))).float()
        for k, v in shapes.items()
    }


def linear(w, name, x):
    s = stem(name)
    z = x @ w[s + "lora_A.weight"].T
    if s + "como.W1" in w:
        hidden = torch.nn.functional.silu(x @ w[s + "como.W1"].T + w[s + "como.b1"])
        z = z * (1 + GAMMA * torch.tanh(hidden @ w[s + "como.W2"].T + w[s + "como.b2"]))
    return x @ w[name].T + ALPHA / RANK * (z @ w[s + "lora_B.weight"].T)


def gradients(weights, masks, tokens, targets, prefix):
    parameters = base.leaves(weights, masks)
    logits = base.forward(base.masked(parameters, masks), tokens, linear)
    losses = base.token_losses(logits, targets)
    losses.mean().backward()
    out = {prefix + ".losses": losses.detach(), prefix + ".logits": logits.detach().flatten(0, 1)}
    for name, p in parameters.items():
        out[f"{prefix}.grad.{name}"] = base.compressed(p.grad, masks.get(name))
    print(prefix, "loss", losses.mean().item())
    return out


def main():
    torch.manual_seed(11)
    torch.set_num_threads(1)
    golden = load_file(sys.argv[1])
    masks = {k.removeprefix("mask."): v for k, v in golden.items() if k.startswith("mask.")}
    weights = {k: v for k, v in golden.items() if k.startswith("model.") or k.startswith("lm_head.")}
    tokens, targets = golden["tokens"].long(), golden["targets"].long()
    branches = {}
    for name in masks:
        branches |= make_branch(name, weights[name])
    lora = {k: v for k, v in branches.items() if not k.endswith(GATE)}
    out = dict(branches)
    out |= gradients(weights | lora, {}, tokens, targets, "dense.lora")
    out |= gradients(weights | branches, masks, tokens, targets, "nm14.comolora")
    out = {k: v.float().contiguous() for k, v in out.items()}
    shape = {"rank": RANK, "hidden": HIDDEN, "gamma": GAMMA, "alpha": ALPHA, "torch": torch.__version__}
    save_file(out, sys.argv[2], metadata={k: str(v) for k, v in shape.items()})


if __name__ == "__main__":
    main()
