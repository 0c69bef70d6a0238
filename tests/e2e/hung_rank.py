"""A rank that is stopped (SIGSTOP) is noticed by its heartbeat and the job goes on from its last checkpoint; a stopped mpirun is
woken, a stopped shim too; a rank that is killed is a resume. The bytes at the end are those of a run left alone."""
import signal
import sys
import pathlib
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "soak"))
import processes
from service import corpus, service, tiny_job

STEPS = 100


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for part in ("checkpoints", "model", "topology")
            for p in sorted((folder / part).rglob("*")) if p.is_file()}


def start(hebb, path):
    job = tiny_job(path, steps=STEPS, checkpoint_every=5, eval_every=0)
    job["restart"] = {"max": 3, "backoff_s": 0.1}
    return hebb.json("POST", "/v1/jobs", job)["id"]


def wait_step(hebb, job, step):
    end = time.monotonic() + 60
    while hebb.json("GET", f"/v1/jobs/{job}")["progress"]["step"] < step:
        assert time.monotonic() < end, "too slow"
        time.sleep(0.02)


def strike(hebb, job, program, how):
    found = sorted(pid for pid, name, attempt in processes.listing(hebb.state) if name == program and job in attempt)
    assert found, f"no {program}"
    assert processes.kill(found[-1], how)


def check(hebb, job, wanted, attempts, reason):
    row = hebb.wait(job)
    assert row["state"] == "succeeded" and row["attempt"] == attempts, hebb.report(job, row)
    assert files(hebb.state / "jobs" / job) == wanted, "other bytes"
    if reason:
        text = (hebb.state / "jobs" / job / "attempt-1/exit.json").read_text()
        assert reason in text, text
        starts = [e["step"] for e in hebb.events(job) if e["type"] == "start"]
        assert starts[0] == 0 and starts[1] > 0, starts


def main():
    with service("--hung", "3", "--shim-silent", "3") as hebb:
        path = corpus(hebb, lines=400)
        job = start(hebb, path)
        assert hebb.wait(job)["state"] == "succeeded"
        wanted = files(hebb.state / "jobs" / job)
        for program, how, attempts, reason in (("rank", signal.SIGSTOP, 2, "rank 1 hung: no heartbeat for 3 s"),
                                               ("rank", signal.SIGKILL, 2, "rank 1 was killed by signal 9"),
                                               ("mpirun", signal.SIGSTOP, 1, None),
                                               ("shim", signal.SIGSTOP, 1, None)):
            job = start(hebb, path)
            wait_step(hebb, job, 10)
            strike(hebb, job, program, how)
            check(hebb, job, wanted, attempts, reason)
        assert not processes.listing(hebb.state)
    print("hung_rank: ok")


if __name__ == "__main__":
    main()
