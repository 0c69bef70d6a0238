#!/usr/bin/env python3
"""Makes tests/golden/methods.safetensors: training with latent weights, with RigL and with SLoPe, in PyTorch and double precision.

The model is that of make_golden_model.py and its weights are those of tests/golden/model.safetensors; what a method does is
written here once more, dense and slowly: masks by trying every legal pattern, gradients by autograd, AdamW by its formula.
Run it from the repository's root only to make the file again:

    python3 tests/reference/make_golden_methods.py

For every case NAME: NAME.loss, NAME.grad_norm (steps) in F64; NAME.mask.PARAM (uint8) after the last step; NAME.final.PARAM (F32):
the weights that a product sees then, of the targets of the first block; for cast also NAME.scale.PARAM; for slope NAME.start.PART (all targets)
and NAME.final.PART, PART = PARAM with lora_A.weight or lora_BT.weight (B transposed) at its end.
Metadata: cases = names; NAME = method n m layout penalty zeta interval share; branch_rank, branch_alpha.
"""
import functools
import itertools
import math
import sys

import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, "tests/reference")
import make_golden_model as base  # noqa: E402

GOLDEN = "tests/golden/methods.safetensors"
STEPS, WARMUP, LR, FLOOR, DECAY, CLIP = 25, 5, 3e-3, 0.1, 0.1, 1.4
B1, B2, EPS, MASK_EVERY, UNTIL = 0.9, 0.999, 1e-8, 10, 0.75
RANK, ALPHA = 3, 6.0


def learning_rate(step):
    if step <= WARMUP:
        return LR * step / WARMUP
    progress = (step - WARMUP) / (STEPS - WARMUP)
    return LR * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * progress)))


@functools.lru_cache(maxsize=None)
def legal_tiles(n, m, layout):
    """All legal masks of a group (1, m) or a 4x4 block, ascending as bit masks, as rows of a tensor."""
    size = m if layout == "row" else 16
    ones = n if layout == "row" else 4 * n
    tiles = []
    for place in itertools.combinations(range(size), ones):
        tile = torch.zeros(size, dtype=torch.float64)
        tile[list(place)] = 1
        square = tile.view(4, 4) if layout == "block" else None
        if square is None or ((square.sum(0) == n).all() and (square.sum(1) == n).all()):
            tiles.append((sum(1 << i for i in place), tile))
    return torch.stack([tile for _, tile in sorted(tiles, key=lambda t: t[0])])


def to_tiles(w, m, layout):
    if layout == "row":
        return w.reshape(-1, m)
    return w.reshape(w.shape[0] // 4, 4, w.shape[1] // 4, 4).transpose(1, 2).reshape(-1, 16)


def from_tiles(t, shape, layout):
    if layout == "row":
        return t.reshape(shape)
    return t.reshape(shape[0] // 4, shape[1] // 4, 4, 4).transpose(1, 2).reshape(shape)


def best_mask(score, n, m, layout):
    """The legal mask with the largest sum of score in every tile; the first of equal ones."""
    tiles = legal_tiles(n, m, layout)
    sums = to_tiles(score, m, layout) @ tiles.T
    return from_tiles(tiles[sums.argmax(1)], score.shape, layout)


def grown(left, gradient, n, m, layout):
    """The legal mask that holds all of left and has the largest sum of |gradient| elsewhere."""
    boost = gradient.abs().sum() + 1
    return best_mask(left * boost + (1 - left) * gradient.abs(), n, m, layout)


class Adam:
    def __init__(self, w, decay):
        self.m, self.v, self.decay = torch.zeros_like(w), torch.zeros_like(w), decay

    def step(self, w, g, t, lr):
        self.m = B1 * self.m + (1 - B1) * g
        self.v = B2 * self.v + (1 - B2) * g * g
        update = self.m / (1 - B1**t) / ((self.v / (1 - B2**t)).sqrt() + EPS)
        return (1 - lr * self.decay) * w - lr * update


def spread(scale, shape, m):
    """Every scale over the two groups of a row that it stands for."""
    return scale.repeat_interleave(2 * m, dim=1)[:, : shape[1]]


def part(name, end):
    return name.removesuffix("weight") + end


def linear(w, name, x):
    """The product with a target, and its branch where there is one."""
    y = x @ w[name].T
    if part(name, "lora_A.weight") in w:
        y = y + ALPHA / RANK * (x @ w[part(name, "lora_A.weight")].T @ w[part(name, "lora_BT.weight")])
    return y


def make_branches(weights, names):
    generator = torch.Generator().manual_seed(5)
    out = {}
    for k in names:
        dout, din = weights[k].shape
        a = torch.randn(RANK, din, dtype=torch.float64, generator=generator) / math.sqrt(din)
        out[part(k, "lora_A.weight")] = a.float()
        out[part(k, "lora_BT.weight")] = torch.zeros(RANK, dout)
    return out


def loss_and_gradients(effective, windows, targets):
    leaves = {k: v.clone().requires_grad_() for k, v in effective.items()}
    loss = base.token_losses(base.forward(leaves, windows, linear), targets).mean()
    loss.backward()
    return loss.item(), {k: v.grad for k, v in leaves.items()}


def refresh_rigl(case, step, w, state, masks, windows, targets):
    _, gradient = loss_and_gradients(w, windows, targets)
    for k, mask in masks.items():
        end = UNTIL * STEPS
        zeta = case["zeta"] / 2 * (1 + math.cos(math.pi * step / end)) if step < end else 0.0
        links = mask.flatten().nonzero().flatten()
        drop = min(len(links), math.floor(zeta * len(links) + 0.5))
        order = links[torch.sort(w[k].flatten()[links].abs(), stable=True).indices]
        left = mask.flatten().clone()
        left[order[:drop]] = 0
        left = left.view_as(mask)
        after = grown(left, gradient[k], case["n"], case["m"], case["layout"])
        kept = mask * after
        masks[k] = after
        w[k] = w[k] * kept
        state[k].m, state[k].v = state[k].m * kept, state[k].v * kept


def run(case, weights, stream):
    windows, targets = stream[:-1].view(-1, base.CONTEXT), stream[1:].view(-1, base.CONTEXT)
    method, n, m, layout = case["method"], case["n"], case["m"], case["layout"]
    w = {k: v.double() for k, v in weights.items()}
    names = [k for k in w if k.split(".")[-2] in base.TARGETS]
    state = {k: Adam(v, DECAY if v.dim() == 2 else 0.0) for k, v in w.items()}
    masks = {k: best_mask(w[k].abs(), n, m, layout) for k in names}
    branch, branch_state, branch_steps = {}, {}, 0
    if method == "slope":
        start = make_branches(w, names)
        branch = {k: v.double() for k, v in start.items()}
        branch_state = {k: Adam(v, DECAY) for k, v in branch.items()}
    if method in ("rigl", "slope"):
        w |= {k: w[k] * masks[k] for k in names}
    scales, scale_state = {}, {}
    if method == "cast":
        scales = {k: torch.ones(w[k].shape[0], math.ceil(w[k].shape[1] // m / 2), dtype=torch.float64) for k in names}
        scale_state = {k: Adam(s, 0.0) for k, s in scales.items()}

    def effective():
        if method == "cast":
            return w | {k: w[k] * spread(scales[k], w[k].shape, m) for k in names}
        return w | {k: w[k] * masks[k] for k in names}

    losses, norms = [], []
    for step in range(1, STEPS + 1):
        lr = learning_rate(step)
        if method in ("ste", "srste"):
            masks = {k: best_mask(w[k].abs(), n, m, layout) for k in names}
        working = method == "slope" and step > math.floor(STEPS * (1 - case["share"]))
        loss, g = loss_and_gradients(effective() | (branch if working else {}), windows, targets)
        branch_steps += working
        scale_g = {}
        for k in names:
            if method == "srste":
                g[k] = g[k] + case["penalty"] * (1 - masks[k]) * w[k]
            elif method in ("rigl", "slope"):
                g[k] = g[k] * masks[k]
            elif method == "cast":
                product = torch.nn.functional.pad(w[k] * g[k], (0, scales[k].shape[1] * 2 * m - w[k].shape[1]))
                scale_g[k] = product.view(w[k].shape[0], -1, 2 * m).sum(2)
                g[k] = g[k] * spread(scales[k], w[k].shape, m)
        norm = math.sqrt(sum((x * x).sum().item() for x in [*g.values(), *scale_g.values()]))
        clip = CLIP / (norm + 1e-6) if norm > CLIP - 1e-6 else 1.0
        for k in w:
            w[k] = state[k].step(w[k], g[k] * clip, step, lr)
        for k in branch if working else ():
            branch[k] = branch_state[k].step(branch[k], g[k] * clip, branch_steps, lr)
        for k in scales:
            scales[k] = scale_state[k].step(scales[k], scale_g[k] * clip, step, lr)
        if method == "cast":
            for k in names:
                fall = lr * case["penalty"] / ((state[k].v / (1 - B2**step)).sqrt() + EPS)
                w[k] = torch.where(masks[k] == 1, w[k], w[k].sign() * (w[k].abs() - fall).clamp(min=0))
                if step % MASK_EVERY == 0 or step == STEPS:
                    masks[k] = best_mask(w[k].abs(), n, m, layout)
                if step == STEPS:
                    w[k] = w[k] * masks[k]
        if method == "rigl" and step % case["interval"] == 0 and step <= UNTIL * STEPS and step < STEPS:
            refresh_rigl(case, step, w, state, masks, windows, targets)
        losses.append(loss)
        norms.append(norm)
    if method in ("ste", "srste"):
        masks = {k: best_mask(w[k].abs(), n, m, layout) for k in names}
    name, out = case["name"], {}
    out[name + ".loss"] = torch.tensor(losses, dtype=torch.float64)
    out[name + ".grad_norm"] = torch.tensor(norms, dtype=torch.float64)
    final = effective()
    for k in names:
        out[f"{name}.mask.{k}"] = masks[k].to(torch.uint8)
        if ".layers.0." in k:
            out[f"{name}.final.{k}"] = final[k].float()
            if method == "cast":
                out[f"{name}.scale.{k}"] = scales[k].float()
    for k in branch:
        out[f"{name}.start.{k}"] = start[k]
        if ".layers.0." in k:
            out[f"{name}.final.{k}"] = branch[k].float()
    print(f"{name}: {losses[0]:.4f} -> {losses[-1]:.4f}")
    return out


def case(name, method, n, m, layout="row", penalty=0.0, zeta=0.0, interval=0, share=0.0):
    return dict(name=name, method=method, n=n, m=m, layout=layout, penalty=penalty, zeta=zeta, interval=interval, share=share)


# Penalties far above the defaults, so that 25 steps show them.
CASES = [
    case("ste24", "ste", 2, 4),
    case("ste14block", "ste", 1, 4, "block"),
    case("srste38", "srste", 3, 8, penalty=0.01),
    case("srste24block", "srste", 2, 4, "block", penalty=0.02),
    case("cast14", "cast", 1, 4, penalty=0.01),
    case("cast24block", "cast", 2, 4, "block", penalty=0.02),
    case("cast116", "cast", 1, 16, penalty=0.01),
    case("rigl14", "rigl", 1, 4, zeta=0.5, interval=4),
    case("rigl24", "rigl", 2, 4, zeta=0.3, interval=6),
    case("rigl24block", "rigl", 2, 4, "block", zeta=0.8, interval=3),
    case("slope14", "slope", 1, 4, share=0.4),
    case("slope24block", "slope", 2, 4, "block", share=0.1),
]


def main():
    torch.set_num_threads(1)
    golden = load_file("tests/golden/model.safetensors")
    stream = golden["curve.tokens"].long()
    weights = {k: golden[k] for k in base.make_weights()}
    out, meta = {}, {"steps": STEPS, "warmup": WARMUP, "lr": LR, "min_lr_ratio": FLOOR, "weight_decay": DECAY, "grad_clip": CLIP,
                     "until": UNTIL, "branch_rank": RANK, "branch_alpha": ALPHA, "cases": " ".join(c["name"] for c in CASES), "torch": torch.__version__}
    for c in CASES:
        out |= run(c, weights, stream)
        meta[c["name"]] = " ".join(str(c[k]) for k in ("method", "n", "m", "layout", "penalty", "zeta", "interval", "share"))
    save_file({k: v.contiguous() for k, v in out.items()}, GOLDEN, metadata={k: str(v) for k, v in meta.items()})


if __name__ == "__main__":
    main()
