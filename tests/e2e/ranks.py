"""Faults of ranks: a killed and a stopped rank end their attempts, and the job resumes by itself to the bytes of the job that was
left alone; bits that flip in one rank's memory are found and mended while it runs."""
import json
import os
import pathlib
import signal
import struct
import time

from service import corpus, service, tiny_job
from training import assert_same

STEPS = 400
HUNG_FOUND_S = 30
RESUMED_S = 60


def workers(state, job):
    """{rank: pid} of the job's living workers."""
    found = {}
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "comm").read_text().strip() != "hebb-worker":
                continue
            variables = dict(v.split(b"=", 1) for v in (entry / "environ").read_bytes().split(b"\0") if b"=" in v)
        except OSError:
            continue
        if str(state / "jobs" / job).encode() in variables.get(b"HEBB_ATTEMPT", b""):
            found[int(variables[b"OMPI_COMM_WORLD_RANK"])] = int(entry.name)
    return found


def wait_step(it, job, attempt, step):
    end = time.monotonic() + RESUMED_S
    while time.monotonic() < end:
        started = False
        for event in it.events(job) if (it.state / "jobs" / job / "events.jsonl").exists() else []:
            started = started or (event["type"] == "start" and event["attempt"] == attempt)
            if started and event["type"] == "step" and event["step"] >= step:
                return
        time.sleep(0.02)
    raise AssertionError(f"attempt {attempt} did not reach step {step}: " + it.report(job, it.json("GET", f"/v1/jobs/{job}")))


def killed_and_stopped(it, spec):
    left_alone = it.json("POST", "/v1/jobs", {**spec, "name": "alone"})["id"]
    it.wait(left_alone, ("succeeded",))
    job = it.json("POST", "/v1/jobs", spec)["id"]
    wait_step(it, job, 1, 45)
    os.kill(workers(it.state, job)[1], signal.SIGKILL)
    wait_step(it, job, 2, 90)
    os.kill(workers(it.state, job)[0], signal.SIGSTOP)
    stopped = time.monotonic()
    exit_file = it.state / "jobs" / job / "attempt-2/exit.json"
    while not exit_file.exists():
        assert time.monotonic() < stopped + HUNG_FOUND_S, "the stopped rank was not found: " + it.report(job, {})
        time.sleep(0.1)
    found_s = time.monotonic() - stopped
    end = json.loads(exit_file.read_text())
    assert end["code"] == 1 and end["rank"] == 0 and "rank 0 hung" in end["reason"], end
    wait_step(it, job, 3, 90)
    it.wait(job, ("succeeded",))
    jobs = it.state / "jobs"
    for part in ("checkpoints", "model", "topology"):
        assert_same(jobs / left_alone / part, jobs / job / part, part)
    return found_s


def tensor(path, name):
    data = path.read_bytes()
    length = struct.unpack_from("<Q", data)[0]
    begin, end = json.loads(data[8:8 + length])[name]["data_offsets"]
    return data[8 + length + begin:8 + length + end]


def flip_in_memory(pid, content):
    """Flips a bit of the second number wherever the process has this content in writable memory of its own."""
    flipped = 0
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        for line in maps:
            span, access = line.split()[:2]
            if not access.startswith("rw-p"):
                continue
            begin, end = (int(x, 16) for x in span.split("-"))
            memory.seek(begin)
            try:
                held = memory.read(end - begin)
            except OSError:
                continue
            at = held.find(content)
            if at >= 0:
                memory.seek(begin + at + 5)
                memory.write(bytes([held[at + 5] ^ 0x10]))
                flipped += 1
    return flipped


def flipped_bits(it, spec):
    """With a learning rate of 0 the weights stay: after the repair they are those of before. Of two ranks nobody knows which is
    right, and rank 0 is believed: its bit is found and spread, which the event says."""
    name = "model.layers.1.mlp.down_proj.weight.values"
    spec = {**spec, "name": "flip", "sparsity": {"method": "static", "n": 1, "m": 4}, "optimizer": {"lr": 0},
            "guard": {"compare_every": 5}, "train": {**spec["train"], "steps": 4000, "checkpoint_every": 20, "eval_every": 0}}
    job = it.json("POST", "/v1/jobs", spec)["id"]
    wait_step(it, job, 1, 41)
    checkpoints = it.state / "jobs" / job / "checkpoints"
    weights = tensor(checkpoints / "step-00000020/model.safetensors", name)
    for rank in (1, 0):
        before = len([e for e in it.events(job) if e["type"] == "state_repair"])
        assert flip_in_memory(workers(it.state, job)[rank], weights[:64]) > 0, "the weights were not found in memory"
        end = time.monotonic() + 30
        while len([e for e in it.events(job) if e["type"] == "state_repair"]) == before:
            assert time.monotonic() < end, "the flipped bit was not found"
            time.sleep(0.05)
        if rank == 1:
            after = [e for e in it.events(job) if e["type"] == "state_repair"][-1]["step"] // 20 * 20 + 20
            wait_step(it, job, 1, after + 1)
            assert tensor(checkpoints / f"step-{after:08}/model.safetensors", name) == weights, "not mended"
    repairs = [e for e in it.events(job) if e["type"] == "state_repair"]
    assert all(e["parameters"] == 1 and e["first"] == name[:-7] and e["rank"] == 0 for e in repairs), repairs
    it.json("POST", f"/v1/jobs/{job}/cancel")
    it.wait(job, ("cancelled",))
    return len(repairs)


def main():
    with service() as it:
        spec = tiny_job(corpus(it), steps=STEPS, checkpoint_every=20, keep=100)
        spec["restart"] = {"max": 5, "backoff_s": 0}
        repairs = flipped_bits(it, spec)
        found_s = killed_and_stopped(it, spec)
    print(f"ranks: ok (stopped rank ended after {found_s:.0f} s, {repairs} flipped bits found)")


if __name__ == "__main__":
    main()
