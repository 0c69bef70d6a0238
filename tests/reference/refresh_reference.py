#!/usr/bin/env python3
"""A slow second implementation of the refresh, row and block layout, with its own Philox: writes tests/golden/refresh_masks.txt.

Nothing here shares code or data structures with engine/sparse: masks are dense 0/1 arrays, products are dense integer
products, the projection tries every legal pattern with exact integers. Run it without arguments to write the file anew; `--check` compares instead.

The weights before refresh r are not trained but drawn: at dense position i of matrix t, with B bits,
    ((word(INIT_WEIGHT, t, r, i) >> (32 - B)) - 2^(B-1)) / 2^(B-1),
which float holds exactly. Few bits give equal and zero magnitudes. test_refresh_golden.c draws the same.
"""
import functools
import itertools
import math
import os
import sys

import numpy as np

GOLDEN = "tests/golden/refresh_masks.txt"
INIT_WEIGHT, INIT_MASK, REMOVAL, REGROWTH, MPR = 1, 2, 3, 4, 5
MASK32 = (1 << 32) - 1


def philox4x32(counter, key, rounds=10):
    """Philox4x32 on Python integers (Salmon et al. 2011)."""
    c, k = list(counter), list(key)
    for _ in range(rounds):
        left, right = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(right >> 32) ^ c[1] ^ k[0], right & MASK32, (left >> 32) ^ c[3] ^ k[1], left & MASK32]
        k = [(k[0] + 0x9E3779B9) & MASK32, (k[1] + 0xBB67AE85) & MASK32]
    return c


def word(seed, purpose, stream, rnd, index):
    block = index // 4
    counter = (block & MASK32, block >> 32, stream | purpose << 24, rnd)
    return philox4x32(counter, (seed & MASK32, seed >> 32))[index % 4]


def uniform(*where):
    return (word(*where) + 0.5) / 2.0**32


@functools.lru_cache(maxsize=None)
def legal_patterns(n, m):
    """Column tuples in the order of their bit masks: place = code."""
    tuples = itertools.combinations(range(m), n)
    return sorted(tuples, key=lambda cols: sum(1 << c for c in cols))


@functools.lru_cache(maxsize=None)
def legal_blocks(n):
    """4x4 arrays with n ones in every row and column, in the order of their bit masks (bit 4 row + column)."""
    blocks = []
    for ones in itertools.combinations(range(16), 4 * n):
        block = np.zeros(16, dtype=np.int64)
        block[list(ones)] = 1
        block = block.reshape(4, 4)
        if (block.sum(axis=0) == n).all() and (block.sum(axis=1) == n).all():
            blocks.append((sum(1 << i for i in ones), block))
    blocks.sort(key=lambda b: b[0])
    return [block for _, block in blocks]


assert [len(legal_blocks(n)) for n in (1, 2, 3)] == [24, 90, 24]


def below(seed, t, index, count):
    attempt = 0
    while True:
        product = word(seed, INIT_MASK, t, attempt, index) * count
        if product & MASK32 >= (1 << 32) % count:
            return product >> 32
        attempt += 1


def initial_mask(seed, t, dout, din, n, m, layout):
    mask = np.zeros((dout, din), dtype=np.int64)
    if layout == "block":
        blocks = legal_blocks(n)
        for index in range(dout // 4 * (din // 4)):
            o, first = index // (din // 4) * 4, index % (din // 4) * 4
            mask[o:o + 4, first:first + 4] = blocks[below(seed, t, index, len(blocks))]
        return mask
    patterns = legal_patterns(n, m)
    for group in range(dout * din // m):
        o, first = divmod(group * m, din)
        mask[o, [first + c for c in patterns[below(seed, t, group, len(patterns))]]] = 1
    return mask


def drawn_weights(seed, t, rnd, dout, din, bits):
    half = 1 << (bits - 1)
    w = np.zeros((dout, din))
    for o in range(dout):
        for j in range(din):
            w[o, j] = ((word(seed, INIT_WEIGHT, t, rnd, o * din + j) >> (32 - bits)) - half) / half
    return w


def log_or_minus_infinity(x):
    return math.log(x) if x > 0 else -math.inf


def survivors_of(case, t, rnd, step, weights, mask):
    """Step 1 and 2: the mask without the zeta(t) fraction of links of smallest perturbed magnitude."""
    end = case["until"] * case["steps"]
    zeta = case["zeta"] / 2 * (1 + math.cos(math.pi * step / end)) if step < end else 0.0
    temperature = case["t0"] + (case["t1"] - case["t0"]) * (step / end) if step < end else case["t1"]
    links = [(int(o), int(j)) for o, j in zip(*np.nonzero(mask))]  # row-major
    magnitude = np.abs(weights) * mask
    rows = [0.0] * mask.shape[0]
    cols = [0.0] * mask.shape[1]
    for o, j in links:  # plain left-to-right sums
        rows[o] += magnitude[o, j]
        cols[j] += magnitude[o, j]
    keys = []
    for o, j in links:
        a = float(magnitude[o, j])
        if case["removal"] == "ri":
            a = (a / rows[o] if rows[o] > 0 else 0.0) + (a / cols[j] if cols[j] > 0 else 0.0)
        if case["soft"]:
            u = uniform(case["seed"], REMOVAL, t, rnd, o * mask.shape[1] + j)
            a = log_or_minus_infinity(a) - math.log(-math.log(u)) / temperature
        keys.append(a)
    drop = min(len(links), math.floor(zeta * len(links) + 0.5))
    order = sorted(range(len(links)), key=lambda i: (keys[i], i))
    left = mask.copy()
    for i in order[:drop]:
        left[links[i]] = 0
    return left, drop


def side_units(a, f, ch2):
    """R A in units of 2^-f, as integers."""
    p = a @ a.T
    b = (p != 0).astype(np.int64)
    degree = a.sum(axis=1)
    e = (degree[None, :] - p) * b
    numerator = p + b if ch2 else b
    ratio = numerator.astype(np.float64) / np.maximum(e, 1).astype(np.float64)
    r = np.rint(ratio * 2.0**f).astype(np.int64) * b
    return r @ a


def scores_of(case, t, rnd, left):
    dout, din = left.shape
    n, m = case["n"], case["m"]
    chance = [[uniform(case["seed"], REGROWTH, t, rnd, o * din + j) for j in range(din)] for o in range(dout)]
    if case["score"] == "random":
        return np.array(chance)
    bound = dout * (din // m * n + 1) + din * (dout + 1)
    f = 52 - bound.bit_length()
    ch2 = case["score"] == "ch2-l3n"
    units = side_units(left, f, ch2) + side_units(left.T.copy(), f, ch2).T
    assert 0 <= units.min() and units.max() < 1 << 52
    scores = units.astype(np.float64) / 2.0**f
    return scores * np.array(chance) if case["soft"] else scores


def exact_integer(x):
    numerator, denominator = float(x).as_integer_ratio()
    assert (1 << 200) % denominator == 0
    return numerator * ((1 << 200) // denominator)


def projected_blocks(case, left, before, scores):
    """The literal rule: most survivors, then the largest sum of scores (exact), then the lowest index."""
    blocks = legal_blocks(case["n"])
    after = before.copy()
    for o in range(0, left.shape[0], 4):
        for first in range(0, left.shape[1], 4):
            place = (slice(o, o + 4), slice(first, first + 4))
            if (left[place] == before[place]).all():
                continue
            exact = [[exact_integer(x) for x in row] for row in scores[place]]
            rank = []
            for block in blocks:
                total = sum(exact[r][c] for r in range(4) for c in range(4) if block[r, c] and not left[place][r, c])
                rank.append((int((block * left[place]).sum()), total))
            after[place] = blocks[rank.index(max(rank))]
            assert (after[place] >= left[place]).all()
    return after


def projected(case, t, rnd, left, before, scores):
    """Step 4, 5 and 6 by trying every pattern: survivors are worth more than all scores together, in exact integers."""
    n, m = case["n"], case["m"]
    patterns = legal_patterns(n, m)
    after = before.copy()
    for o in range(left.shape[0]):
        for first in range(0, left.shape[1], m):
            group = slice(first, first + m)
            if (left[o, group] == before[o, group]).all():
                continue
            exact = []
            for c in range(first, first + m):
                exact.append(exact_integer(scores[o, c]))
            boost = sum(exact) + 1
            worth = [exact[c] + boost * int(left[o, first + c]) for c in range(m)]
            candidates = patterns
            if uniform(case["seed"], MPR, t, rnd, (o * left.shape[1] + first) // m) < case["mpr"]:
                old = tuple(c for c in range(m) if before[o, first + c])
                candidates = [cols for cols in patterns if cols != old]
            sums = [sum(worth[c] for c in cols) for cols in candidates]
            best = candidates[sums.index(max(sums))]  # the first of equal ones
            after[o, group] = 0
            after[o, [first + c for c in best]] = 1
    return after


def codes_of(mask, n, m):
    code = {cols: i for i, cols in enumerate(legal_patterns(n, m))}
    flat = mask.reshape(-1, m)
    return [code[tuple(int(c) for c in np.nonzero(g)[0])] for g in flat]


def case(name, method, n, m, shapes, score, removal="magnitude", soft=True, bits=24, zeta=0.3, seed=1, refreshes=4,
         mpr=0.0, layout="row"):
    return dict(layout=layout, name=name, method=method, n=n, m=m, shapes=shapes, score=score, removal=removal, soft=soft, bits=bits,
                zeta=zeta, seed=seed, refreshes=refreshes, mpr=mpr, steps=100, interval=15, until=0.75, t0=1.0, t1=9.0)


CASES = [
    case("1:4 soft ch2", "chts24", 1, 4, [(16, 16), (40, 24), (24, 40), (72, 136), (136, 72)], "ch2-l3n"),
    case("2:4 soft ch3", "chts24", 2, 4, [(16, 16), (8, 64), (64, 8), (33, 68)], "ch3-l3n", seed=2**63 + 5),
    case("3:8 hard ch2 with ties", "chts24", 3, 8, [(24, 24), (9, 80)], "ch2-l3n", soft=False, bits=3),
    case("1:2 soft ri ch2", "chts24", 1, 2, [(20, 20), (34, 10)], "ch2-l3n", removal="ri", seed=77),
    case("2:3 soft ri ch3, groups across words", "chts24", 2, 3, [(30, 99), (70, 66)], "ch3-l3n", removal="ri"),
    case("1:4 hard ri ch3 with ties", "chts24", 1, 4, [(32, 32), (12, 40)], "ch3-l3n", removal="ri", soft=False, bits=3),
    case("2:4 set with ties", "set", 2, 4, [(16, 32), (40, 24)], "random", soft=False, bits=4),
    case("7:16 soft random", "chts24", 7, 16, [(10, 32)], "random", refreshes=2),
    case("7:16 soft ch2", "chts24", 7, 16, [(10, 48)], "ch2-l3n", refreshes=2),
    case("1:4 everything dropped", "chts24", 1, 4, [(12, 16)], "ch2-l3n", zeta=1.0),
    case("1:4 one row, one group", "chts24", 1, 4, [(1, 4), (1, 64), (65, 4)], "ch2-l3n", zeta=0.9),
    case("1:4 soft ch2 with revisitation", "chtsnm", 1, 4, [(40, 24), (16, 68)], "ch2-l3n", mpr=0.5, seed=12),
    case("2:4 hard ch3 with ties, always another pattern", "chtsnm", 2, 4, [(30, 32), (9, 64)], "ch3-l3n", soft=False,
         bits=3, mpr=1.0),
    case("5:8 random with revisitation", "chtsnm", 5, 8, [(20, 40)], "random", soft=False, mpr=0.75, zeta=0.6),
    case("1:4 block, soft ch2", "chtsnm", 1, 4, [(16, 16), (40, 24), (24, 68)], "ch2-l3n", layout="block", zeta=0.6, seed=5),
    case("2:4 block, soft ch3", "chts24", 2, 4, [(16, 16), (36, 72), (4, 64), (64, 4)], "ch3-l3n", layout="block", zeta=0.7),
    case("2:4 block, hard ri ch2 with ties", "chts24", 2, 4, [(40, 24), (12, 32)], "ch2-l3n", removal="ri", soft=False,
         bits=3, layout="block", zeta=0.8, seed=31),
    case("2:4 block, everything dropped, hard", "chts24", 2, 4, [(12, 16)], "ch3-l3n", soft=False, layout="block", zeta=1.0),
    case("3:4 block, set", "set", 3, 4, [(16, 32)], "random", soft=False, layout="block", zeta=0.5, bits=4),
]


def run_case(c, out):
    out.append(f"case {c['name']}")
    out.append(f"{c['method']} {c['seed']} {c['n']} {c['m']} {c['steps']} {c['interval']} {c['until']} {c['zeta']} "
               f"{c['removal']} {int(c['soft'])} {c['t0']} {c['t1']} {c['score']} {c['bits']} "
               f"{len(c['shapes'])} {c['refreshes']} {c['mpr']} {c['layout']}")
    masks, seen = [], []
    for t, (dout, din) in enumerate(c["shapes"]):
        masks.append(initial_mask(c["seed"], t, dout, din, c["n"], c["m"], c["layout"]))
        seen.append(masks[-1].copy())
        out.append(f"matrix {dout} {din}")
        out.append(" ".join(map(str, codes_of(masks[-1], c["n"], c["m"]))))
    for rnd in range(1, c["refreshes"] + 1):
        step = rnd * c["interval"]
        for t, (dout, din) in enumerate(c["shapes"]):
            before = masks[t]
            weights = drawn_weights(c["seed"], t, rnd, dout, din, c["bits"])
            left, removed = survivors_of(c, t, rnd, step, weights, before)
            scores = scores_of(c, t, rnd, left)
            if c["layout"] == "block":
                after = projected_blocks(c, left, before, scores)
            else:
                after = projected(c, t, rnd, left, before, scores)
            assert (after.reshape(-1, c["m"]).sum(axis=1) == c["n"]).all() and (after >= left).all()
            seen[t] |= after
            changed = int((after != before).reshape(-1, c["m"]).any(axis=1).sum())
            flipped = int((after > before).sum())
            dead = int((after.sum(axis=0) == 0).sum())
            masks[t] = after
            out.append(f"refresh {rnd} {t} {removed} {changed} {flipped} {int(seen[t].sum())} {dead}")
            out.append(" ".join(map(str, codes_of(after, c["n"], c["m"]))))


def main():
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
    assert philox4x32((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0)) == [
        0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]
    out = []
    for c in CASES:
        run_case(c, out)
    text = "\n".join(out) + "\n"
    if sys.argv[1:] == ["--check"]:
        sys.exit(0 if open(GOLDEN, encoding="ascii").read() == text else f"{GOLDEN} differs")
    with open(GOLDEN, "w", encoding="ascii") as f:
        f.write(text)


if __name__ == "__main__":
    main()
