"""The hebb command against a real daemon: what a user types, prints and exit codes."""
import json
import os
import signal
import subprocess
import time

from service import corpus, service, tiny_job


class Cli:
    def __init__(self, hebb):
        self.hebb = hebb
        self.program = hebb.binaries / "hebb"
        self.environment = {"PATH": os.environ["PATH"], "HEBB_URL": hebb.url, "HEBB_STATE": str(hebb.state)}

    def start(self, *words, **options):
        return subprocess.Popen([self.program, *words], env=self.environment, text=True, stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)

    def run(self, *words, code=0, stdin="", **environment):
        """(stdout, stderr) of a command that must end with code."""
        done = subprocess.run([self.program, *words], env={**self.environment, **environment}, text=True,
                              input=stdin, capture_output=True, timeout=120)
        assert done.returncode == code, f"hebb {words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout, done.stderr


def usage(cli):
    assert cli.run("--version")[0].startswith("hebb ")
    listing = cli.run("help")[0]
    for name in ("submit", "watch", "train", "inspect"):
        assert f"\n  {name} " in listing, listing
    assert cli.run("watch", "--help")[0] == cli.run("help", "watch")[0]
    assert "did you mean submit?" in cli.run("sumbit", code=2)[1]
    cli.run(code=2)
    schema = json.loads(cli.run("spec", "--json")[0])
    assert schema == cli.hebb.json("GET", "/v1/spec")
    cli.run("jobs", "--url", "http://127.0.0.1:1", code=4)
    assert "$HEBB_TOKEN" in cli.run("jobs", code=2, HEBB_STATE="/nowhere", HOME="/nowhere")[1]


def faults(cli, path):
    wrong = tiny_job(path, steps=0, setps=1)
    wrong["data"]["train"] = ["/etc/passwd"]
    message = cli.run("submit", "-", code=2, stdin=json.dumps(wrong))[1]
    assert "/train/steps: must be from 1" in message and "did you mean /train/steps?" in message, message
    assert "line 1 column 2" in cli.run("submit", "-", code=2, stdin="{]")[1]
    assert cli.run("jobs")[1] == "no jobs\n"


def whole_run(cli, file):
    dry = json.loads(cli.run("submit", "--dry-run", "--json", file)[0])
    assert dry["estimate"]["density"] == 0.25, dry
    assert "nothing was started" in cli.run("submit", "--dry-run", file)[0]
    lines = cli.run("submit", "--watch", file)[0].splitlines()
    assert lines[-1] == "succeeded" and any(line.startswith("step 60/60  loss ") for line in lines), lines
    job = json.loads(cli.run("jobs", "--json", "--state", "succeeded")[0])["jobs"][0]["id"]
    events = [json.loads(line) for line in cli.run("watch", "--json", job)[0].splitlines()]
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1)) and events[-1]["type"] == "done"
    shown = cli.run("show", job[:6])[0]
    assert "60/60" in shown and "refresh_interval=10" in shown, shown
    assert json.loads(cli.run("show", "--json", job)[0])["id"] == job
    log = cli.hebb.state / "jobs" / job / "attempt-1" / "log.txt"
    assert cli.run("logs", job)[0] == log.read_text() == cli.run("logs", "-f", job)[0]
    cli.run("cancel", job, code=1)


def control(cli, file):
    job = cli.run("submit", "--idempotency-key", "k", file)[0].strip()
    assert cli.run("submit", "--idempotency-key", "k", file)[0].strip() == job
    cli.hebb.wait(job, ("running",))
    watcher = cli.start("watch", job)
    assert watcher.stdout.readline() == "running\n"
    time.sleep(0.2)
    watcher.send_signal(signal.SIGINT)
    message = watcher.communicate(timeout=20)[1]
    assert watcher.returncode == 130 and "detached; the job goes on" in message, message
    assert "is saved" in cli.run("checkpoint", "--wait", job)[1]
    assert "is paused" in cli.run("pause", "--wait", job)[1]
    assert cli.hebb.json("GET", f"/v1/jobs/{job}")["state"] == "paused"
    assert "is running" in cli.run("resume", "--wait", job)[1]
    follower = cli.start("logs", "-f", "--attempt", "2", job)
    assert "is cancelled" in cli.run("cancel", "--wait", job)[1]
    assert "attempt 2" in follower.communicate(timeout=20)[0] and follower.returncode == 0
    cli.run("watch", job, code=1)


def main():
    with service() as hebb:
        cli = Cli(hebb)
        path = corpus(hebb)
        file = hebb.folder / "job.json"
        usage(cli)
        faults(cli, path)
        file.write_text(json.dumps(tiny_job(path)))
        whole_run(cli, file)
        file.write_text(json.dumps(tiny_job(path, steps=100000)))
        control(cli, file)
    print("cli: ok")


main()
