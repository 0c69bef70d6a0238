"""Runs `hebb train` in a temporary folder, as a user or a sweep would."""
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

BINARIES = pathlib.Path(os.environ.get("HEBB_BIN") or sys.argv[1])
ATTEMPT_SECONDS = 100


def folder():
    return tempfile.TemporaryDirectory(prefix="hebb-test-", ignore_cleanup_errors=True)


def corpus(path, lines=3000):
    """A small text with some variety."""
    prose = "The quick brown fox jumps over the lazy dog; a sparse net learns which links it needs.\n"
    path.write_text("".join(f"{i}: {prose[i % 40:]}{prose}" for i in range(lines)))
    return path


def tiny_job(text, steps=60, **sections):
    """Two layers, 1:4, refreshes at every tenth step, checkpoints at every twentieth."""
    job = {"name": "tiny", "model": {"hidden": 64, "intermediate": 176, "layers": 2, "heads": 4, "context": 64},
           "data": {"train": [str(text)]}, "sparsity": {"method": "chts24", "n": 1, "m": 4, "refresh_interval": 10},
           "optimizer": {"lr": 0.003},
           "train": {"steps": steps, "warmup": 5, "batch": 8, "eval_every": 20, "eval_sequences": 16,
                     "checkpoint_every": 20, "keep": 100}}
    for name, fields in sections.items():
        job[name] = {**job.get(name, {}), **fields}
    return job


def start(job, out, *options):
    """`hebb train` as a process; its messages go to out.txt beside the job folder."""
    file = out.parent / (out.name + ".json")
    file.write_text(json.dumps(job))
    with open(out.parent / (out.name + ".txt"), "ab") as log:
        return subprocess.Popen([BINARIES / "hebb", "train", file, "--out", out, *options], stdin=subprocess.DEVNULL,
                                stdout=log, stderr=log, start_new_session=True)


def report(out):
    logs = [out.parent / (out.name + ".txt"), *sorted(out.glob("attempt-*/log.txt"))]
    return "".join(f"\n--- {log}\n{log.read_text()[-3000:]}" for log in logs if log.exists())


def train(job, out, *options, want=0):
    code = start(job, out, *options).wait(timeout=ATTEMPT_SECONDS)
    assert code == want, f"hebb train ended with {code}, not {want}: {report(out)}"


def events(out, kind=None):
    file = out / "events.jsonl"
    lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
    return [e for e in map(json.loads, lines) if kind in (None, e["type"])]


def descendants(pid):
    children = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)
        except OSError:
            continue
        children.setdefault(int(fields[1].split()[1]), []).append(int(stat.parent.name))
    found, front = [], [pid]
    while front:
        front = [c for p in front for c in children.get(p, [])]
        found += front
    return found


def kill_all(process):
    """kill -9 of hebb train and of everything below it, at once."""
    for pid in [process.pid, *descendants(process.pid)]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.wait()


def wait_unlocked(out, seconds=10):
    """Until no process of the newest attempt is left (its lock is free)."""
    import fcntl
    lock = max(out.glob("attempt-*/lock"), key=lambda p: int(p.parent.name.split("-")[1]), default=None)
    end = time.monotonic() + seconds
    while lock and time.monotonic() < end:
        with open(lock, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                time.sleep(0.02)
    assert not lock, f"{lock} is still held"


def files(folder_):
    """Every file below with its bytes."""
    return {str(p.relative_to(folder_)): p.read_bytes() for p in sorted(folder_.rglob("*")) if p.is_file()}


def assert_same(a, b, what):
    left, right = files(a), files(b)
    assert left.keys() == right.keys(), f"{what}: {sorted(left.keys() ^ right.keys())}"
    different = [name for name in left if left[name] != right[name]]
    assert left and not different, f"{what}: {different}"
