"""A full disk stops a run for as long as it is full, and no longer: nothing is lost, nothing is half written. The job folder lies
on a file system of a few MiB of its own, in a mount namespace."""
import os
import pathlib
import subprocess
import sys
import time

from training import assert_same, corpus, events, folder, report, start, tiny_job, train

INSIDE = "HEBB_TEST_NAMESPACE"


def enter():
    """Starts this program again where it may mount; ends with 77 (skipped) where that is not allowed."""
    for how in (["--mount"], ["--user", "--map-root-user", "--mount"]):
        if subprocess.run(["unshare", *how, "true"], stderr=subprocess.DEVNULL).returncode == 0:
            os.environ[INSIDE] = "1"
            os.execvp("unshare", ["unshare", *how, sys.executable, *sys.argv])
    print("skipped: mount namespaces are not allowed here")
    sys.exit(77)


def fill(path):
    """Takes all room that is left."""
    with open(path, "wb", buffering=0) as file:
        block = b"x" * 65536
        while block:
            try:
                file.write(block)
            except OSError:
                block = block[:len(block) // 2]


def main():
    if INSIDE not in os.environ:
        enter()
    with folder() as name:
        base = pathlib.Path(name)
        disk = base / "disk"
        disk.mkdir()
        job = tiny_job(corpus(base / "corpus.txt"), steps=200, train={"keep": 2, "keep_best": 0, "eval_every": 0})
        train(job, base / "whole")
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8M", "none", disk], check=True)
        try:
            process = start(job, disk / "job")
            while not events(disk / "job", "checkpoint"):
                assert process.poll() is None, report(disk / "job")
                time.sleep(0.01)
            fill(disk / "filler")
            end = time.monotonic() + 60
            while "waiting for space" not in report(disk / "job"):
                assert process.poll() is None and time.monotonic() < end, report(disk / "job")
                time.sleep(0.05)
            at = events(disk / "job", "step")[-1]["step"]
            time.sleep(2.5)
            assert process.poll() is None and events(disk / "job", "step")[-1]["step"] == at < 200
            (disk / "filler").unlink()
            assert process.wait(timeout=100) == 0, report(disk / "job")
            assert [e["step"] for e in events(disk / "job", "step")] == list(range(1, 201))
            assert len(list((disk / "job").glob("attempt-*"))) == 1
            last = "checkpoints/step-00000200"
            assert_same(base / "whole" / last, disk / "job" / last, "after a full disk")
            assert_same(base / "whole/model", disk / "job/model", "after a full disk")
        finally:
            subprocess.run(["umount", "-l", disk], check=True)
    print(f"disk_full: ok (full at step {at})")


if __name__ == "__main__":
    main()
