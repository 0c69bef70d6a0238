"""Starts a real hebbd in a temporary folder and talks to it with curl, as a user would."""
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
FINAL = ("succeeded", "failed", "cancelled")
PROSE = "The quick brown fox jumps over the lazy dog; a sparse net learns which links it needs.\n"


class Service:
    def __init__(self, binaries, folder):
        self.binaries = pathlib.Path(binaries)
        self.folder = pathlib.Path(folder)
        self.state = self.folder / "state"
        self.data = self.folder / "data"
        self.data.mkdir(parents=True, exist_ok=True)
        self.process = None

    def start(self, *options):
        port_file = self.folder / "port"
        port_file.unlink(missing_ok=True)
        with open(self.folder / "hebbd.log", "ab") as log:
            self.process = subprocess.Popen(
                [self.binaries / "hebbd", "--state", self.state, "--listen", "127.0.0.1:0", "--port-file", port_file,
                 "--data-root", self.data, "--web", self.binaries.parent / "web", *options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        for _ in range(200):
            if port_file.exists() and port_file.read_text().strip():
                break
            assert self.process.poll() is None, (self.folder / "hebbd.log").read_text()
            time.sleep(0.05)
        self.url = f"http://127.0.0.1:{int(port_file.read_text())}"
        self.token = (self.state / "token").read_text().strip()

    def stop(self, how=signal.SIGTERM):
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(timeout=20)

    def curl(self, method, path, body=None, headers=(), token=True):
        """(status, headers, body) of one request made by curl."""
        command = ["curl", "--silent", "--show-error", "--max-time", "40", "-X", method, "-D", "-", self.url + path]
        if token:
            command += ["-H", f"Authorization: Bearer {self.token}"]
        for header in headers:
            command += ["-H", header]
        if body is not None:
            command += ["-H", "Content-Type: application/json", "--data-binary", "@-"]
        answer = subprocess.run(command, input=None if body is None else json.dumps(body).encode(),
                                capture_output=True, check=True).stdout
        while True:
            head, _, answer = answer.partition(b"\r\n\r\n")
            lines = head.decode().split("\r\n")
            status = int(lines[0].split()[1])
            if status != 100:
                break
        fields = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
        return status, fields, answer

    def json(self, method, path, body=None, want=(200, 201, 202)):
        status, _, answer = self.curl(method, path, body)
        assert status in want, f"{method} {path}: {status} {answer.decode()}"
        return json.loads(answer)

    def wait(self, job, states=FINAL, seconds=120):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            row = self.json("GET", f"/v1/jobs/{job}")
            if row["state"] in states:
                return row
            assert row["state"] not in FINAL, self.report(job, row)
            time.sleep(0.1)
        raise AssertionError("too slow: " + self.report(job, row))

    def report(self, job, row):
        logs = sorted(self.state.glob(f"jobs/{job}/attempt-*/log.txt"))
        return json.dumps(row, indent=1) + "".join(f"\n--- {log}\n{log.read_text()[-3000:]}" for log in logs)

    def events(self, job):
        text = (self.state / "jobs" / job / "events.jsonl").read_text()
        return [json.loads(line) for line in text[:text.rfind("\n") + 1].splitlines()]  # the last may be on its way


@contextlib.contextmanager
def service(*options):
    """A started Service in a folder that is removed afterwards; jobs that still run are cancelled."""
    binaries = pathlib.Path(os.environ.get("HEBB_BIN") or sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="hebb-test-", ignore_cleanup_errors=True) as folder:
        it = Service(binaries, folder)
        it.start(*options)
        try:
            yield it
        finally:
            if it.process.poll() is None:
                for job in it.json("GET", "/v1/jobs?limit=100")["jobs"]:
                    if job["state"] not in FINAL:
                        it.curl("POST", f"/v1/jobs/{job['id']}/cancel")
                        it.wait(job["id"])
                it.stop()


def corpus(service_, lines=4000):
    """A small text with some variety, under the data root."""
    path = service_.data / "corpus.txt"
    path.write_text("".join(f"{i}: {PROSE[i % 40:]}{PROSE}" for i in range(lines)))
    return path


def tiny_job(path, **train):
    return {"name": "tiny", "model": {"hidden": 64, "intermediate": 176, "layers": 2, "heads": 4, "context": 64},
            "data": {"train": [str(path)]}, "sparsity": {"method": "chts24", "n": 1, "m": 4, "refresh_interval": 10},
            "optimizer": {"lr": 0.003},
            "train": {"steps": 60, "warmup": 5, "batch": 8, "eval_every": 20, "eval_sequences": 16,
                      "checkpoint_every": 20, **train},
            "resources": {"device": "cpu", "ranks": 2, "threads": 1}}
