"""A disk that fills up in the middle of a job: not ready, with a reason; the job waits and goes on; nothing is corrupt, and no
restart is needed. On a small tmpfs of its own."""
import json
import os
import pathlib
import sqlite3
import subprocess
import sys
import tempfile
import time

from service import Service, corpus, tiny_job

DISK_MIB = 64
CHUNK = 1 << 16
STEPS = 120


def fill(path):
    """Takes every byte that is left."""
    with open(path, "wb", buffering=0) as ballast:
        size = CHUNK
        while size > 0:
            try:
                if ballast.write(b"x" * size) < size:
                    size = 0
            except OSError:
                size //= 2


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for part in ("checkpoints", "model", "topology")
            for p in sorted((folder / part).rglob("*")) if p.is_file()}


def job_of(path):
    job = tiny_job(path, steps=STEPS, checkpoint_every=20, eval_every=0, keep=2)
    job["restart"] = {"max": 0}     # an attempt that fails is the end
    return job


def step_of(hebb, job):
    return hebb.json("GET", f"/v1/jobs/{job}")["progress"]["step"]


def check_full(hebb, job):
    """The disk is full now."""
    end = time.monotonic() + 30
    while True:
        status, _, body = hebb.curl("GET", "/readyz")
        if status == 503:
            break
        assert time.monotonic() < end, (status, body)
        time.sleep(0.1)
    problem = json.loads(body)
    assert problem["code"] == "read_only" and "disk" in problem["detail"], problem
    assert hebb.curl("GET", "/healthz", token=False)[0] == 200
    status, _, body = hebb.curl("POST", "/v1/jobs", job_of(hebb.data / "corpus.txt"))
    assert status == 503 and json.loads(body)["code"] == "read_only", (status, body)
    assert hebb.json("GET", f"/v1/jobs/{job}")["state"] == "running"


def run(binaries, folder):
    hebb = Service(binaries, folder)
    hebb.start("--poll-ms", "50")
    try:
        path = corpus(hebb, lines=400)
        job = hebb.json("POST", "/v1/jobs", job_of(path))["id"]
        row = hebb.wait(job)
        assert row["state"] == "succeeded", hebb.report(job, row)
        wanted = files(hebb.state / "jobs" / job)

        job = hebb.json("POST", "/v1/jobs", job_of(path))["id"]
        end = time.monotonic() + 60
        while step_of(hebb, job) < 10 and time.monotonic() < end:
            time.sleep(0.02)
        fill(hebb.folder / "ballast")
        check_full(hebb, job)
        time.sleep(3)                # several tries of everybody
        fill(hebb.folder / "ballast2")
        check_full(hebb, job)
        (hebb.folder / "ballast").unlink()
        (hebb.folder / "ballast2").unlink()
        row = hebb.wait(job)
        assert row["state"] == "succeeded" and row["attempt"] == 1, hebb.report(job, row)
        assert files(hebb.state / "jobs" / job) == wanted, "other bytes"
        events = hebb.events(job)
        assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
        assert {e["step"] for e in events if e["type"] == "step"} == set(range(1, STEPS + 1))
        series = hebb.json("GET", f"/v1/jobs/{job}/series?keys=loss&points=1000")
        assert series["step"] == list(range(1, STEPS + 1)), len(series["step"])
        assert hebb.curl("GET", "/readyz")[0] == 200
        log = (hebb.state / "jobs" / job / "attempt-1/log.txt").read_text()
        assert "waiting for space" in log, log[-2000:]
    finally:
        hebb.stop()
    for name in ("state.db", "series.db"):
        verdict = sqlite3.connect(hebb.state / name).execute("PRAGMA integrity_check").fetchone()
        assert verdict == ("ok",), verdict


def main():
    if os.environ.get("HEBB_DISK_FULL_SERVICE") is None:
        # A mount of our own needs root, or a name space in which we are it.
        map_root = [] if os.geteuid() == 0 else ["--map-root-user"]
        if subprocess.run(["unshare", "--mount", *map_root, "true"], stderr=subprocess.DEVNULL).returncode != 0:
            print("skipped: mount namespaces are not allowed here")
            sys.exit(77)
        command = ["unshare", "--mount", *map_root, sys.executable, __file__, *sys.argv[1:]]
        sys.exit(subprocess.run(command, env={**os.environ, "HEBB_DISK_FULL_SERVICE": "1"}).returncode)
    binaries = pathlib.Path(os.environ.get("HEBB_BIN") or sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory(prefix="hebb-test-") as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "hebb-test", folder], check=True)
        try:
            run(binaries, folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)
    print("disk_full_service: ok")


if __name__ == "__main__":
    main()
