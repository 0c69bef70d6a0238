#!/usr/bin/env python3
"""Makes tests/golden/model.safetensors: a small LLaMA in plain PyTorch, in double precision.

An independent reading of the published architecture (RMSNorm before each half, rotary positions in the
split-half convention, grouped key/value heads, SwiGLU), with gradients by autograd. Everything is computed
in float64 from weights that are exact in float32, and stored as float32. Run it only to make the file again:

    python3 tests/reference/make_golden_model.py tests/golden/model.safetensors

Content: the weights under their Hugging Face names; tokens, targets (2, 16) with -1 where there is no target;
mask.NAME (1:4, uint8); then, for prefix dense and nm14: PREFIX.losses, PREFIX.logits, PREFIX.grad.NAME of the mean
loss over all 32 places (those without target count as 0). A masked matrix's gradient holds its active entries
only, in row-major order. curve.tokens (65), curve.loss and curve.grad_norm (20): AdamW steps of the masked model
on the four windows of 16 inputs of those tokens.
"""
import math
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

HIDDEN, INTERMEDIATE, LAYERS, HEADS, KV_HEADS, VOCAB, CONTEXT = 32, 48, 2, 4, 2, 40, 16
ROPE_THETA, NORM_EPS = 10000.0, 1e-6
BATCH = 2
HEAD_DIM = HIDDEN // HEADS
STEPS, WARMUP, LR, MIN_LR_RATIO, WEIGHT_DECAY, CLIP = 20, 5, 3e-3, 0.1, 0.1, 1.4
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def make_weights():
    kv = KV_HEADS * HEAD_DIM
    shapes = {"model.embed_tokens.weight": (VOCAB, HIDDEN)}
    for i in range(LAYERS):
        p = f"model.layers.{i}."
        shapes |= {
            p + "self_attn.q_proj.weight": (HIDDEN, HIDDEN),
            p + "self_attn.k_proj.weight": (kv, HIDDEN),
            p + "self_attn.v_proj.weight": (kv, HIDDEN),
            p + "self_attn.o_proj.weight": (HIDDEN, HIDDEN),
            p + "mlp.gate_proj.weight": (INTERMEDIATE, HIDDEN),
            p + "mlp.up_proj.weight": (INTERMEDIATE, HIDDEN),
            p + "mlp.down_proj.weight": (HIDDEN, INTERMEDIATE),
            p + "input_layernorm.weight": (HIDDEN,),
            p + "post_attention_layernorm.weight": (HIDDEN,),
        }
    shapes |= {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCAB, HIDDEN)}
    weights = {}
    for name, shape in shapes.items():
        w = torch.randn(shape, dtype=torch.float64)
        w = 1 + 0.2 * w if len(shape) == 1 else w * (1.5 / math.sqrt(shape[-1]))
        weights[name] = w.float()
    return weights


def make_mask(weight):
    """One active entry of every four along a row."""
    rows, cols = weight.shape
    place = torch.randint(4, (rows, cols // 4))
    return F.one_hot(place, 4).reshape(rows, cols).to(torch.uint8)


def rms_norm(x, w):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + NORM_EPS) * w


def rotate(x):
    """x: (B, heads, T, D). The pair (i, i + D/2) turns by t * theta^(-2i/D)."""
    t = torch.arange(x.shape[-2], dtype=torch.float64)
    frequency = ROPE_THETA ** (-torch.arange(0, HEAD_DIM, 2, dtype=torch.float64) / HEAD_DIM)
    angle = torch.outer(t, frequency)
    a, b = x[..., : HEAD_DIM // 2], x[..., HEAD_DIM // 2 :]
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


def linear(w, name, x):
    return x @ w[name].T


def forward(w, tokens, linear=linear):
    """linear: the product with a target matrix, for make_golden_adapter.py."""
    batch, length = tokens.shape
    x = w["model.embed_tokens.weight"][tokens]
    future = torch.ones(length, length, dtype=torch.bool).triu(1)

    def heads(y, count):
        return y.view(batch, length, count, HEAD_DIM).transpose(1, 2)

    for i in range(LAYERS):
        p = f"model.layers.{i}."
        y = rms_norm(x, w[p + "input_layernorm.weight"])
        q = rotate(heads(linear(w, p + "self_attn.q_proj.weight", y), HEADS))
        k = rotate(heads(linear(w, p + "self_attn.k_proj.weight", y), KV_HEADS))
        v = heads(linear(w, p + "self_attn.v_proj.weight", y), KV_HEADS)
        k = k.repeat_interleave(HEADS // KV_HEADS, dim=1)
        v = v.repeat_interleave(HEADS // KV_HEADS, dim=1)
        scores = (q @ k.transpose(-1, -2)) / math.sqrt(HEAD_DIM)
        att = scores.masked_fill(future, -math.inf).softmax(-1) @ v
        att = att.transpose(1, 2).reshape(batch, length, HIDDEN)
        x = x + linear(w, p + "self_attn.o_proj.weight", att)
        y = rms_norm(x, w[p + "post_attention_layernorm.weight"])
        gate = F.silu(linear(w, p + "mlp.gate_proj.weight", y))
        x = x + linear(w, p + "mlp.down_proj.weight", gate * linear(w, p + "mlp.up_proj.weight", y))
    return rms_norm(x, w["model.norm.weight"]) @ w["lm_head.weight"].T


def token_losses(logits, targets):
    """0 where the target is negative."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="none")


def masked(parameters, masks):
    return {k: v * masks[k] if k in masks else v for k, v in parameters.items()}


def leaves(weights, masks):
    """Double parameters with gradients; entries outside the mask are zero."""
    return {k: v.requires_grad_() for k, v in masked({k: w.double() for k, w in weights.items()}, masks).items()}


def compressed(tensor, mask):
    if mask is None:
        return tensor
    return tensor[mask.bool()].reshape(tensor.shape[0], -1)


def gradients(weights, masks, tokens, targets, prefix):
    parameters = leaves(weights, masks)
    logits = forward(masked(parameters, masks), tokens)
    losses = token_losses(logits, targets)
    losses.mean().backward()
    out = {prefix + ".losses": losses.detach(), prefix + ".logits": logits.detach().flatten(0, 1)}
    for name, p in parameters.items():
        out[f"{prefix}.grad.{name}"] = compressed(p.grad, masks.get(name))
    return out


def learning_rate(step):
    if step <= WARMUP:
        return LR * step / WARMUP
    progress = (step - WARMUP) / (STEPS - WARMUP)
    return LR * (MIN_LR_RATIO + (1 - MIN_LR_RATIO) * 0.5 * (1 + math.cos(math.pi * progress)))


def curve(weights, masks, stream):
    windows, targets = stream[:-1].view(-1, CONTEXT), stream[1:].view(-1, CONTEXT)
    parameters = leaves(weights, masks)
    groups = [
        {"params": [p for p in parameters.values() if p.dim() == 2], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in parameters.values() if p.dim() == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.999), eps=1e-8)
    losses, norms = [], []
    for step in range(1, STEPS + 1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        optimizer.zero_grad()
        loss = token_losses(forward(masked(parameters, masks), windows), targets).mean()
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(parameters.values(), CLIP))
        optimizer.step()
        losses.append(loss.detach())
    return {"curve.loss": torch.stack(losses), "curve.grad_norm": torch.stack(norms)}


def main():
    torch.manual_seed(7)
    torch.set_num_threads(1)
    weights = make_weights()
    masks = {k: make_mask(v) for k, v in weights.items() if k.split(".")[-2] in TARGETS}
    tokens = torch.randint(VOCAB, (BATCH, CONTEXT))
    targets = torch.randint(VOCAB, (BATCH, CONTEXT))
    targets[0, 3] = targets[1, 15] = -1
    stream = torch.randint(VOCAB, (4 * CONTEXT + 1,))

    out = dict(weights)
    out |= {"mask." + k: v for k, v in masks.items()}
    out |= {"tokens": tokens.int(), "targets": targets.int(), "curve.tokens": stream.int()}
    out |= gradients(weights, {}, tokens, targets, "dense")
    out |= gradients(weights, masks, tokens, targets, "nm14")
    out |= curve(weights, masks, stream)
    out = {k: v.float() if v.dtype == torch.float64 else v for k, v in out.items()}
    shape = {
        "hidden": HIDDEN, "intermediate": INTERMEDIATE, "layers": LAYERS, "heads": HEADS, "kv_heads": KV_HEADS,
        "vocab": VOCAB, "context": CONTEXT, "batch": BATCH, "rope_theta": ROPE_THETA, "norm_eps": NORM_EPS,
        "steps": STEPS, "warmup": WARMUP, "lr": LR, "min_lr_ratio": MIN_LR_RATIO, "weight_decay": WEIGHT_DECAY,
        "grad_clip": CLIP, "torch": torch.__version__,
    }
    save_file({k: v.contiguous() for k, v in out.items()}, sys.argv[1],
              metadata={k: str(v) for k, v in shape.items()})
    print("dense loss", out["dense.losses"].mean(), "1:4 loss", out["nm14.losses"].mean())
    print("curve", out["curve.loss"], out["curve.grad_norm"])


if __name__ == "__main__":
    main()
