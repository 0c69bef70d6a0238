#!/usr/bin/env python3
"""A slow second implementation of the optimizers in float64: writes tests/golden/optim.safetensors.

Written from the formulas (TANS: preprint 202605.0851, 3.2, App. C, H.5; Muon: Jordan et al. 2024 with the scale of
Liu et al. 2025; AdamW: Loshchilov & Hutter 2019) on dense arrays with 0/1 masks; shares nothing with engine/optim. Run
without arguments from the repository's root to write the file anew, with --check to compare (needs safetensors).

The model is the smallest LLaMA with every kind of matrix: square, wide, tall. Nothing is trained: with word() the
Philox word of (seed, purpose 77, stream, round, index), i an entry's dense position in parameter t (in file order),
    unit(stream, round, i) = word / 2^31 - 1, rounded down to 24 bits (exact in float);
    weight   = unit(t, 0, i) / 4, or 1 for norms;
    gradient = (unit(100 + t, 0, i) / 2 + unit(200 + t, step, i)) / 64;
    code of group k after change c (0: at the start) = (word(300 + t, c, k) mod 2^16) mod patterns where
    (word >> 16) mod 3 == 0 or c == 0, else unchanged.
After every `every`-th step but the last the masks change: kept links keep value and state, new ones start with weight
0 and, by `repair`, state 0 (changed), that of the link they replace (none), or the whole matrix's state becomes 0 (all).
tests/engine/optim_golden.h repeats it with the engine.
"""
import functools
import sys

import numpy as np
from refresh_reference import MASK32, legal_patterns, philox4x32

GOLDEN = "tests/golden/optim.safetensors"
PURPOSE, SEED = 77, 3
HIDDEN, WIDE, KV, VOCAB = 16, 24, 8, 6
PARAMETERS = [  # name, dout, din, target
    ("embed", VOCAB, HIDDEN, False), ("q", HIDDEN, HIDDEN, True), ("k", KV, HIDDEN, True), ("v", KV, HIDDEN, True),
    ("o", HIDDEN, HIDDEN, True), ("gate", WIDE, HIDDEN, True), ("up", WIDE, HIDDEN, True), ("down", HIDDEN, WIDE, True),
    ("input_norm", 1, HIDDEN, False), ("post_norm", 1, HIDDEN, False), ("norm", 1, HIDDEN, False),
    ("head", VOCAB, HIDDEN, False)]

BASE = {"n": 1, "m": 4, "steps": 45, "every": 12, "repair": "changed", "lr": 0.02, "beta1": 0.9, "beta2": 0.99,
        "eps": 1e-5, "weight_decay": 0.1, "grad_scale": 0.7, "adam_lr_ratio": 0.5, "adam_eps": 1e-8, "momentum": 0.95,
        "scale": "rms", "gamma_ns": 0.5, "ramp": 8, "rms": "post-mask", "age_correction": 0}
CASES = [
    {"name": "tans14", "optimizer": "tans"},
    {"name": "tans24", "optimizer": "tans", "n": 2, "rms": "pre-mask", "age_correction": 1, "beta2": 0.999},
    {"name": "tans12", "optimizer": "tans", "n": 1, "m": 2, "rms": "none", "repair": "none", "ramp": 0, "gamma_ns": 0.8,
     "age_correction": 1},
    {"name": "tans38", "optimizer": "tans", "n": 3, "m": 8, "repair": "all", "ramp": 20, "age_correction": 1},
    {"name": "tansdense", "optimizer": "tans", "n": 1, "m": 1},
    {"name": "muondense", "optimizer": "muon", "n": 1, "m": 1, "eps": 1e-8},
    {"name": "muon24", "optimizer": "muon", "n": 2, "scale": "spectral", "eps": 1e-8},
]
TANS_STEPS = [(4.0848, -6.8946, 2.9270), (3.9505, -6.3029, 2.6377), (3.7418, -5.5913, 2.3037),
              (2.8769, -3.1427, 1.2046), (2.8366, -3.0525, 1.2012)]
MUON_STEPS = [(3.4445, -4.7750, 2.0315)] * 5


@functools.cache  # the cases share their draws
def block(stream, rnd, index):
    return philox4x32((index & MASK32, index >> 32, stream | PURPOSE << 24, rnd), (SEED & MASK32, SEED >> 32))


def draw(stream, rnd, index):
    return block(stream, rnd, index // 4)[index % 4]


def unit(stream, rnd, shape):
    flat = [(draw(stream, rnd, i) >> 8) / 2.0**23 - 1 for i in range(shape[0] * shape[1])]
    return np.array(flat).reshape(shape)


def next_codes(c, t, change, codes, groups):
    patterns = len(legal_patterns(c["n"], c["m"]))
    out = []
    for k in range(groups):
        w = draw(300 + t, change, k)
        out.append((w & 0xFFFF) % patterns if change == 0 or (w >> 16) % 3 == 0 else codes[k])
    return out


def mask_of(c, codes, shape):
    patterns, mask = legal_patterns(c["n"], c["m"]), np.zeros(shape[0] * shape[1])
    for k, code in enumerate(codes):
        for column in patterns[code]:
            mask[k * c["m"] + column] = 1
    return mask.reshape(shape)


def newton_schulz(x, steps):
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    for a, b, c in steps:
        s = x @ x.T
        x = a * x + (b * s + c * (s @ s)) @ x
    return x.T if tall else x


def adamw(c, p, g, step, decay):
    lr = c["lr"] * c["adam_lr_ratio"]
    eps = c["adam_eps"] if c["optimizer"] == "tans" else c["eps"]
    p["P"] = c["beta1"] * p["P"] + (1 - c["beta1"]) * g
    p["V"] = c["beta2"] * p["V"] + (1 - c["beta2"]) * g**2
    update = (p["P"] / (1 - c["beta1"] ** step)) / (np.sqrt(p["V"] / (1 - c["beta2"] ** step)) + eps)
    p["W"] = (1 - lr * decay) * p["W"] - lr * update


def muon(c, p, g):
    dout, din = p["W"].shape
    p["P"] = c["momentum"] * p["P"] + (1 - c["momentum"]) * g
    u = (1 - c["momentum"]) * g + c["momentum"] * p["P"]
    o = newton_schulz(u / (np.linalg.norm(u) + 1e-7), MUON_STEPS) * p["mask"]
    scale = 0.2 * max(dout, din) ** 0.5 if c["scale"] == "rms" else max(1, dout / din) ** 0.5
    p["W"] = (1 - c["lr"] * c["weight_decay"]) * p["W"] - c["lr"] * scale * o


def tans(c, p, g):
    dout, din = p["W"].shape
    active = p["mask"] == 1
    p["age"] = np.where(active, p["age"] + 1, 0)
    p["V"] = np.where(active, c["beta2"] * p["V"] + (1 - c["beta2"]) * g**2, 0)
    v = p["V"]
    if c["age_correction"]:
        v = v / np.where(active, 1 - c["beta2"] ** p["age"], 1)
    q = g / (np.sqrt(v) + c["eps"])
    p["P"] = c["beta1"] * p["P"] + (1 - c["beta1"]) * q
    u = (1 - c["beta1"]) * q + c["beta1"] * p["P"]
    if c["age_correction"]:
        u = u / np.where(active, 1 - c["beta1"] ** (p["age"] + 1), 1)
    x = newton_schulz(u / (np.linalg.norm(u) + c["eps"]), TANS_STEPS)
    o = x * p["mask"]
    rms_u = np.sqrt((u[active] ** 2).mean())
    if c["rms"] == "post-mask":
        o = o * rms_u / (np.sqrt((o[active] ** 2).mean()) + c["eps"])
    elif c["rms"] == "pre-mask":
        o = o * rms_u / (np.sqrt((x**2).mean()) + c["eps"])
    gamma = c["gamma_ns"] * (min(1, p["tau"] / c["ramp"]) if c["ramp"] else 1)
    p["W"] = (1 - c["lr"] * c["weight_decay"]) * p["W"] - c["lr"] * (dout / din) ** 0.5 * (u + gamma * (o - u))
    p["tau"] += 1


def change_mask(c, p, t, change):
    """Group by group: the k-th new column takes the place of the k-th lost one."""
    old = p["mask"]
    p["codes"] = next_codes(c, t, change, p["codes"], old.size // c["m"])
    p["mask"] = mask_of(c, p["codes"], old.shape)
    for state in ("W", "P", "V", "age"):
        before, after = p[state].ravel(), np.zeros(old.size)
        for first in range(0, old.size, c["m"]):
            places = range(first, first + c["m"])
            lost = [i for i in places if old.ravel()[i] and not p["mask"].ravel()[i]]
            for i in places:
                if p["mask"].ravel()[i] and old.ravel()[i]:
                    after[i] = before[i]
                elif p["mask"].ravel()[i]:
                    replaced = lost.pop(0)
                    after[i] = before[replaced] if c["repair"] == "none" and state != "W" else 0
        p[state] = after.reshape(old.shape)
        if c["repair"] == "all" and state != "W":
            p[state] = np.zeros(old.shape)
    p["tau"] = 0


def start(c):
    out = []
    for t, (name, dout, din, target) in enumerate(PARAMETERS):
        shape = (dout, din)
        p = {"name": name, "target": target, "tau": 0, "mask": np.ones(shape), "lean": unit(100 + t, 0, shape) / 2}
        p |= {state: np.zeros(shape) for state in ("P", "V", "age")}
        if target and c["n"] < c["m"]:
            p["codes"] = next_codes(c, t, 0, None, dout * din // c["m"])
            p["mask"] = mask_of(c, p["codes"], shape)
        p["W"] = np.ones(shape) if dout == 1 else unit(t, 0, shape) / 4 * p["mask"]
        out.append(p)
    return out


def run_case(c):
    model = start(c)
    for step in range(1, c["steps"] + 1):
        for t, p in enumerate(model):
            g = (p["lean"] + unit(200 + t, step, p["W"].shape)) / 64 * c["grad_scale"] * p["mask"]
            if not p["target"]:
                adamw(c, p, g, step, c["weight_decay"] if p["W"].shape[0] > 1 else 0)
            elif c["optimizer"] == "muon":
                muon(c, p, g)
            else:
                tans(c, p, g)
        if c["n"] < c["m"] and step % c["every"] == 0 and step < c["steps"]:
            for t, p in enumerate(model):
                if p["target"]:
                    change_mask(c, p, t, step // c["every"])
    out = {}
    for t, p in enumerate(model):
        for state in ("W", "P", "V"):
            out[f"{c['name']}.{t}.{state}"] = p[state][p["mask"] == 1]
        if c["optimizer"] == "tans" and p["target"]:
            out[f"{c['name']}.{t}.age"] = p["age"][p["mask"] == 1].astype(np.int32)
            out[f"{c['name']}.{t}.tau"] = np.array([p["tau"]], dtype=np.int32)
    return out


def main():
    from safetensors.numpy import load_file, save_file
    tensors, metadata = {}, {}
    for overrides in CASES:
        c = BASE | overrides
        tensors |= run_case(c)
        metadata |= {f"{c['name']}.{key}": str(value) for key, value in c.items()}
    if sys.argv[1:] == ["--check"]:
        old = load_file(GOLDEN)
        same = old.keys() == tensors.keys() and all(np.allclose(old[k], tensors[k], rtol=1e-12, atol=0) for k in old)
        sys.exit(0 if same else f"{GOLDEN} differs")
    save_file(tensors, GOLDEN, metadata=metadata)


if __name__ == "__main__":
    main()
