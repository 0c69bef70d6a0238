#!/usr/bin/env python3
"""Makes tests/golden/tans_curve.safetensors: 50 steps of TANS in plain PyTorch, in double precision, with masks that change.

The model, its first weights and masks (1:4), and its windows are those of tests/golden/model.safetensors
(make_golden_model.py); gradients come from autograd. The optimizer is written from preprint 202605.0851, 3.2 and App. C, on
dense matrices with masks. After steps 10, 20, 30 and 40 a third of the groups draw a new place; new links start with
weight, P and V zero, and the matrix's refresh age starts anew. Run it only to make the file again:

    python3 tests/reference/make_golden_tans.py tests/golden/tans_curve.safetensors

Content: loss, grad_norm (50); place.STEP.NAME (dout, din / 4, uint8): the column of every group's link after that step.
"""
import math
import sys

import torch
import torch.nn.functional as F
from make_golden_model import CONTEXT, TARGETS, forward, masked, token_losses
from safetensors import safe_open
from safetensors.torch import save_file

MODEL = "tests/golden/model.safetensors"
STEPS, WARMUP, LR, MIN_LR_RATIO, WEIGHT_DECAY, CLIP, EVERY = 50, 5, 5e-3, 0.1, 0.05, 1.4, 10
BETA1, BETA2, EPS, ADAM_EPS, GAMMA, RAMP = 0.9, 0.999, 1e-5, 1e-8, 0.5, 8
NEWTON_SCHULZ = ((4.0848, -6.8946, 2.9270), (3.9505, -6.3029, 2.6377), (3.7418, -5.5913, 2.3037),
                 (2.8769, -3.1427, 1.2046), (2.8366, -3.0525, 1.2012))


class Tans:
    def __init__(self, weight, mask):
        self.mask, self.p, self.v, self.age = mask, torch.zeros_like(weight), torch.zeros_like(weight), 0

    def update(self, weight, grad, lr):
        g = grad * self.mask
        self.v = BETA2 * self.v + (1 - BETA2) * g * g
        g = g / (self.v.sqrt() + EPS)
        self.p = BETA1 * self.p + (1 - BETA1) * g
        u = (1 - BETA1) * g + BETA1 * self.p
        x = u / (u.norm() + EPS)
        x = x.T if u.shape[0] > u.shape[1] else x
        for a, b, c in NEWTON_SCHULZ:
            s = x @ x.T
            x = a * x + (b * s + c * s @ s) @ x
        x = x.T if u.shape[0] > u.shape[1] else x
        o = x * self.mask
        active = self.mask.sum()
        o = o * (u.square().sum() / active).sqrt() / ((o.square().sum() / active).sqrt() + EPS)
        gamma = GAMMA * min(1.0, self.age / RAMP)
        scale = math.sqrt(u.shape[0] / u.shape[1])
        self.age += 1
        return (1 - lr * WEIGHT_DECAY) * weight - lr * scale * (u + gamma * (o - u))

    def change(self, weight, mask):
        """Returns the weight under the new mask; kept links keep weight and state."""
        kept = self.mask * mask
        self.mask, self.p, self.v, self.age = mask, self.p * kept, self.v * kept, 0
        return weight * kept


class Adam:
    def __init__(self, weight):
        self.p, self.v, self.steps = torch.zeros_like(weight), torch.zeros_like(weight), 0

    def update(self, weight, grad, lr):
        self.steps += 1
        self.p = BETA1 * self.p + (1 - BETA1) * grad
        self.v = BETA2 * self.v + (1 - BETA2) * grad * grad
        m, v = self.p / (1 - BETA1**self.steps), self.v / (1 - BETA2**self.steps)
        decay = WEIGHT_DECAY if weight.dim() == 2 else 0
        return (1 - lr * decay) * weight - lr * m / (v.sqrt() + ADAM_EPS)


def learning_rate(step):
    if step <= WARMUP:
        return LR * step / WARMUP
    progress = (step - WARMUP) / (STEPS - WARMUP)
    return LR * (MIN_LR_RATIO + (1 - MIN_LR_RATIO) * 0.5 * (1 + math.cos(math.pi * progress)))


def redraw(mask):
    rows, cols = mask.shape
    place = mask.reshape(rows, cols // 4, 4).argmax(-1)
    drawn = torch.randint(4, place.shape)
    place = torch.where(torch.rand(place.shape) < 1 / 3, drawn, place)
    return place, F.one_hot(place, 4).reshape(rows, cols).double()


def main():
    torch.manual_seed(11)
    torch.set_num_threads(1)
    with safe_open(MODEL, "pt") as file:
        names = [k for k in file.keys() if k.startswith("model.") or k == "lm_head.weight"]
        weights = {k: file.get_tensor(k).double() for k in names}
        masks = {k: file.get_tensor("mask." + k).double() for k in names if k.split(".")[-2] in TARGETS}
        stream = file.get_tensor("curve.tokens").long()
    weights = masked(weights, masks)
    states = {k: Tans(w, masks[k]) if k in masks else Adam(w) for k, w in weights.items()}
    windows, targets = stream[:-1].view(-1, CONTEXT), stream[1:].view(-1, CONTEXT)
    losses, norms, out = [], [], {}
    for step in range(1, STEPS + 1):
        leaves = {k: w.clone().requires_grad_() for k, w in weights.items()}
        current = {k: s.mask for k, s in states.items() if k in masks}
        loss = token_losses(forward(masked(leaves, current), windows), targets).mean()
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(leaves.values(), CLIP))
        losses.append(loss.detach())
        for k, w in weights.items():
            weights[k] = states[k].update(w, leaves[k].grad, learning_rate(step))
        if step % EVERY == 0 and step < STEPS:
            for k in masks:
                place, mask = redraw(states[k].mask)
                weights[k] = states[k].change(weights[k], mask)
                out[f"place.{step}.{k}"] = place.to(torch.uint8)
    out |= {"loss": torch.stack(losses), "grad_norm": torch.stack(norms)}
    settings = {"steps": STEPS, "warmup": WARMUP, "lr": LR, "min_lr_ratio": MIN_LR_RATIO, "weight_decay": WEIGHT_DECAY,
                "grad_clip": CLIP, "every": EVERY, "beta1": BETA1, "beta2": BETA2, "eps": EPS, "adam_eps": ADAM_EPS,
                "gamma_ns": GAMMA, "ramp": RAMP, "torch": torch.__version__}
    save_file({k: v.contiguous() for k, v in out.items()}, sys.argv[1], metadata={k: str(v) for k, v in settings.items()})
    print("loss", [f"{x:.4f}" for x in losses])


if __name__ == "__main__":
    main()
