"""Resuming is exact: a job killed with SIGKILL at random moments, or stopped in between, ends with the bytes of the job
that was left alone, whatever the number of threads; other worlds agree in loss."""
import pathlib
import random
import signal
import time

from training import (assert_same, corpus, events, folder, kill_all, report, start, tiny_job, train, wait_unlocked)

KILLS = 4
STEPS = 160
RANKS_TOLERANCE = 1e-4  # sums over ranks are added in another order; refreshes may amplify it


def same_result(a, b, what):
    for part in ("checkpoints", "model", "topology"):
        assert_same(a / part, b / part, f"{what}: {part}")


def run_until(process, out, step):
    """Waits until the events show this step; False if the job ended first."""
    while process.poll() is None:
        seen = events(out, "step")
        if seen and seen[-1]["step"] >= step:
            return True
        time.sleep(0.005)
    return False


def killed_run(job, out, seed, *options):
    """Kills the whole job KILLS times at random steps, then lets it end. Returns the kills that hit: nobody wrote how
    these attempts ended."""
    choose = random.Random(seed)
    for _ in range(KILLS):
        process = start(job, out, *options)
        steps = events(out, "step")
        done = steps[-1]["step"] if steps else 0
        run_until(process, out, done // 20 * 20 + choose.randint(3, 28))
        time.sleep(choose.random() * 0.02)
        kill_all(process)
        wait_unlocked(out)
    train(job, out, *options)
    attempts = list(out.glob("attempt-*"))
    return len(attempts) - len(list(out.glob("attempt-*/exit.json")))


def check_events(out, steps):
    seen = events(out)
    assert [e["seq"] for e in seen] == list(range(1, len(seen) + 1)), "seq has holes"
    last = {e["step"]: e for e in seen if e["type"] == "step"}
    assert sorted(last) == list(range(1, steps + 1)), "steps are missing"
    assert seen[-1]["type"] == "done"
    return last


def main():
    with folder() as name:
        base = pathlib.Path(name)
        text = corpus(base / "corpus.txt")
        job = tiny_job(text, steps=STEPS)
        train(job, base / "whole")
        whole = check_events(base / "whole", STEPS)
        assert whole[STEPS]["loss"] < 0.7 * whole[1]["loss"], whole[STEPS]

        train(job, base / "threads", "--threads", "2")
        same_result(base / "whole", base / "threads", "two threads")

        hits = killed_run(job, base / "killed", 1)
        assert hits >= 2, f"only {hits} kills hit a running job"
        check_events(base / "killed", STEPS)
        same_result(base / "whole", base / "killed", "killed")

        # The same across ranks, threads changing on the way.
        train(job, base / "ranks", "--ranks", "2")
        ranks = check_events(base / "ranks", STEPS)
        worst = max(abs(ranks[s]["loss"] - whole[s]["loss"]) for s in range(1, 51))
        assert worst < RANKS_TOLERANCE, f"one and two ranks differ in loss by {worst}"
        process = start(job, base / "ranks-killed", "--ranks", "2", "--threads", "2")
        assert run_until(process, base / "ranks-killed", 25), report(base / "ranks-killed")
        kill_all(process)
        wait_unlocked(base / "ranks-killed")
        train(job, base / "ranks-killed", "--ranks", "2")
        check_events(base / "ranks-killed", STEPS)
        same_result(base / "ranks", base / "ranks-killed", "two ranks killed")

        # ctrl-C saves and leaves; the next call goes on from that very step.
        process = start(job, base / "stopped")
        assert run_until(process, base / "stopped", 5), report(base / "stopped")
        train(job, base / "stopped", want=1)  # not two at once
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 75, report(base / "stopped")
        left_at = events(base / "stopped", "checkpoint")[-1]["step"]
        train(job, base / "stopped")
        assert events(base / "stopped", "start")[1]["step"] == left_at
        last = f"checkpoints/step-{STEPS:08}"
        assert_same(base / "whole" / last, base / "stopped" / last, "stopped")

        # Done is done; another job does not take the folder.
        before = len(events(base / "whole"))
        train(job, base / "whole")
        assert len(events(base / "whole")) == before
        train(tiny_job(text, steps=STEPS + 1), base / "whole", want=1)
        mine = base / "mine"
        mine.mkdir()
        (mine / "thesis.txt").write_text("do not touch")
        train(job, mine, want=1)
        assert [p.name for p in mine.iterdir()] == ["thesis.txt"]
    print(f"resume: ok ({hits} kills)")


if __name__ == "__main__":
    main()
