"""Faults of data, numbers and disks: batches that give no number are left out and rolled back over, the same again after
kills; a damaged checkpoint falls back to the one before; a disk that takes no checkpoint leaves the last good one."""
import json
import math
import pathlib
import random
import struct
import subprocess
import time

from training import (BINARIES, assert_same, corpus, events, folder, kill_all, report, start, tiny_job, train,
                      wait_unlocked)

POISON = ord("~")
STEPS = 120


def run_until(process, out, step):
    while process.poll() is None:
        seen = events(out, "step")
        if seen and seen[-1]["step"] >= step:
            return True
        time.sleep(0.005)
    return False


def poison_embedding(model):
    """NaN in the row of one token: every batch with that token as an input gives no number."""
    path = model / "model.safetensors"
    data = bytearray(path.read_bytes())
    length = struct.unpack_from("<Q", data)[0]
    entry = json.loads(data[8:8 + length])["model.embed_tokens.weight"]
    at = 8 + length + entry["data_offsets"][0] + POISON * entry["shape"][1] * 4
    struct.pack_into("<f", data, at, math.nan)
    path.write_bytes(data)


def poisoned_corpus(path, every):
    corpus(path)
    lines = path.read_text().splitlines(True)
    for i in range(every // 2, len(lines), every):
        lines[i] = "~" + lines[i]
    path.write_text("".join(lines))
    return path


def check_steps(out, steps):
    seen = events(out)
    assert [e["seq"] for e in seen] == list(range(1, len(seen) + 1)), "seq has holes"
    last = {e["step"]: e for e in seen if e["type"] == "step"}
    assert sorted(last) == list(range(1, steps + 1)), "steps are missing"
    assert all(e["loss"] is not None for e in last.values())
    assert seen[-1]["type"] == "done"


def same_result(a, b, what):
    for part in ("checkpoints", "model", "topology"):
        assert_same(a / part, b / part, f"{what}: {part}")


def skips_and_rollbacks(base):
    # A model to start from, with one bad row, and text with that byte in some windows.
    job = tiny_job(corpus(base / "clean.txt"), steps=2, train={"warmup": 0})
    job["sparsity"] = {"method": "dense"}
    train(job, base / "first")
    poison_embedding(base / "first" / "model")
    text = poisoned_corpus(base / "some-poison.txt", 130)
    job = tiny_job(text, steps=STEPS, model={"init_from": [str(base / "first" / "model")]},
                   data={"validation": [str(base / "clean.txt")]}, train={"eval_every": 20, "checkpoint_every": 10, "keep": 4},
                   guard={"skips": 0, "rollbacks": 1000})
    train(job, base / "poisoned")
    check_steps(base / "poisoned", STEPS)
    skips, rollbacks = events(base / "poisoned", "skip"), events(base / "poisoned", "rollback")
    assert skips and rollbacks, (len(skips), len(rollbacks))
    assert all(e["reason"] == "nonfinite" and e["nonfinite"] == "nan" for e in skips)
    assert all(e["step"] < e["from"] or e["from"] == 0 for e in rollbacks)
    assert [e["rollbacks"] for e in rollbacks] == list(range(1, len(rollbacks) + 1))
    state = json.loads((base / "poisoned" / f"checkpoints/step-{STEPS:08}/train.json").read_text())["guard"]
    assert state["rollbacks"] == len(rollbacks) and state["skipped"] >= len(skips)

    # Killed at random moments and resumed, on other threads: the same skips, the same bits.
    choose = random.Random(3)
    for kill in range(5):
        process = start(job, base / "killed", "--threads", str(1 + kill % 2))
        seen = events(base / "killed", "step")
        run_until(process, base / "killed", (seen[-1]["step"] if seen else 0) // 10 * 10 + choose.randint(4, 25))
        time.sleep(choose.random() * 0.02)
        kill_all(process)
        wait_unlocked(base / "killed")
    train(job, base / "killed")
    check_steps(base / "killed", STEPS)
    same_result(base / "poisoned", base / "killed", "killed with roll backs")

    # The best checkpoint stays beside the last ones.
    kept = {int(p.name[5:]) for p in (base / "poisoned/checkpoints").glob("step-*")}
    losses = {e["step"]: e["loss"] for e in events(base / "poisoned", "eval") if e["step"] % 10 == 0}
    assert {STEPS - 30, STEPS - 20, STEPS - 10, STEPS} <= kept, kept
    assert min(losses, key=losses.get) in kept, (losses, kept)

    # Nothing but poison: bounded, and a clear end.
    job = tiny_job(poisoned_corpus(base / "all-poison.txt", 1), steps=9, model=job["model"], data={"validation": [str(base / "clean.txt")]},
                   train={"warmup": 0}, guard={"skips": 2, "rollbacks": 2})
    train(job, base / "hopeless", want=2)
    assert len(events(base / "hopeless", "skip")) == 9 and len(events(base / "hopeless", "rollback")) == 2
    assert "loss is nan at step 1" in report(base / "hopeless")
    return len(skips), len(rollbacks)


def damaged_checkpoint(base, text):
    job = tiny_job(text, steps=60)
    train(job, base / "whole")
    process = start(job, base / "damaged")
    assert run_until(process, base / "damaged", 45), report(base / "damaged")
    kill_all(process)
    wait_unlocked(base / "damaged")
    newest = max((base / "damaged/checkpoints").glob("step-*"))
    data = bytearray((newest / "state.safetensors").read_bytes())
    data[-100] ^= 1
    (newest / "state.safetensors").write_bytes(data)
    train(job, base / "damaged")
    warnings = [e for e in events(base / "damaged", "warning") if e["code"] == "checkpoint_skipped"]
    assert len(warnings) == 1 and newest.name in warnings[0]["detail"], warnings
    assert events(base / "damaged", "start")[-1]["step"] == int(newest.name[5:]) - 20
    same_result(base / "whole", base / "damaged", "fallen back")


def no_room_for_checkpoints(base, text):
    """A limit on the size of files stands for a disk that fills while a checkpoint is written."""
    job = tiny_job(text, steps=60)
    process = start(job, base / "full")
    assert run_until(process, base / "full", 25), report(base / "full")
    kill_all(process)
    wait_unlocked(base / "full")
    before = sorted(p.name for p in (base / "full/checkpoints").glob("step-*"))
    assert before, report(base / "full")
    file = base / "full.json"
    code = subprocess.run(["prlimit", "--fsize=250000", BINARIES / "hebb", "train", file, "--out", base / "full"],
                          capture_output=True, timeout=100).returncode
    assert code == 1, report(base / "full")
    failed = [e for e in events(base / "full", "warning") if e["code"] == "checkpoint_failed"]
    assert failed and "File too large" in failed[0]["detail"], failed
    assert events(base / "full", "step")[-1]["step"] == 60  # it went on as far as it could
    assert sorted(p.name for p in (base / "full/checkpoints").glob("step-*")) == before
    assert not list((base / "full/checkpoints").glob(".step-*")), "a part of a checkpoint stayed"
    train(job, base / "full")
    assert events(base / "full", "start")[-1]["step"] == int(before[-1][5:])
    same_result(base / "whole", base / "full", "full")


def main():
    with folder() as name:
        base = pathlib.Path(name)
        counts = skips_and_rollbacks(base)
        text = corpus(base / "corpus.txt")
        damaged_checkpoint(base, text)
        no_room_for_checkpoints(base, text)
    print("faults: ok (%d batches left out, %d roll backs)" % counts)


if __name__ == "__main__":
    main()
