"""Every Nth fallible call fails, one to a run, in hebb-worker (open, train, checkpoint, export), hebb-shim (start, wait,
clean up) and hebbd (submit, start, ingest, finish). No program may crash, hang, leave something wrong or say that
all is well when it is not; and the next run, undisturbed, must end with the bytes of the reference."""
import collections
import concurrent.futures
import contextlib
import http.client
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import tempfile
import time

import processes

HANG_SECONDS = 20
TWO_AT_ONCE = 2
SHARES = {"hebb-worker": 0.6, "hebb-shim": 0.15, "hebbd": 0.25}
EXIT_CODES = (0, 1, 75)             # a fault that may pass never gives "a retry won't help"
SAME = ("checkpoints", "model", "topology")
JOB = {"name": "faults", "model": {"hidden": 32, "intermediate": 32, "layers": 1, "heads": 2, "context": 16},
       "sparsity": {"method": "chts24", "n": 1, "m": 4, "refresh_interval": 2},
       "train": {"steps": 4, "warmup": 1, "batch": 2, "eval_every": 2, "eval_sequences": 2, "checkpoint_every": 2},
       "resources": {"device": "cpu", "ranks": 1, "threads": 1}, "restart": {"max": 3, "backoff_s": 0.01}}


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes()
            for part in SAME for p in sorted((folder / part).rglob("*")) if p.is_file()}


def same(folder, wanted):
    """Every file is as in the reference and none is missing; but a checkpoint on the way may be, which is a warning."""
    got, last = files(folder), f"checkpoints/step-{JOB['train']['steps']:08}/"
    optional = {name for name in wanted if name.startswith("checkpoints/") and not name.startswith(last)}
    return all(wanted.get(name) == data for name, data in got.items()) and wanted.keys() - optional <= got.keys()


class Faults:
    def __init__(self, options, base):
        self.options, self.base = options, base
        self.preload = options.preload or options.bin.parent / "tests/libhebb_faults.so"
        assert self.preload.exists(), f"{self.preload} is not there"
        self.bin = options.bin.resolve()
        self.counts = collections.Counter()
        self.problems = []
        self.began = time.monotonic()
        self.data = base / "data"
        self.data.mkdir()
        (self.data / "corpus.txt").write_text("The quick brown fox jumps over the lazy dog. " * 40)

    def environment(self, program, log, at=None):
        env = {"PATH": os.environ["PATH"], "LD_PRELOAD": str(self.preload), "HEBB_FAULT_PROGRAM": program,
               "HEBB_FAULT_LOG": str(log), "OPENBLAS_NUM_THREADS": "1", "HOME": str(self.base)}
        return env if at is None else {**env, "HEBB_FAULT_AT": str(at)}

    def problem(self, program, at, log, text):
        call = log.read_text().split()[0] if log.exists() and log.read_text() else "nothing"
        self.problems.append(f"{program}, call {at} ({call}): {text}")

    def command(self, command, env, cwd=None):
        """(exit code, or 'hang'; what it said)"""
        process = subprocess.Popen(command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, start_new_session=True)
        try:
            out = process.communicate(timeout=HANG_SECONDS)[0]
            return process.returncode, out.decode(errors="replace")
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return "hang", process.communicate()[0].decode(errors="replace")

    # --- hebb-worker ---

    def job_folder(self, name):
        folder = self.base / name
        folder.mkdir()
        (folder / "spec.json").write_text(json.dumps({**JOB, "data": {"train": [str(self.data)]}}))
        return folder

    def worker(self, folder, env, attempt=1):
        return self.command([self.bin / "hebb-worker", "--job", folder, "--attempt", str(attempt)], env)

    def try_worker(self, at):
        log = self.base / f"worker-{at}.log"
        folder = self.job_folder(f"worker-{at}")
        code, said = self.worker(folder, self.environment("hebb-worker", log, at))
        if not log.exists():
            self.counts["not_reached"] += 1     # threads: not every run makes the same calls
        elif code == 0 and not same(folder, self.reference):
            self.problem("hebb-worker", at, log, "said done with other bytes")
        elif code not in EXIT_CODES:
            self.problem("hebb-worker", at, log, f"ended with {code}: {said[-300:]}")
        elif code != 0 and not said.strip():
            self.problem("hebb-worker", at, log, "failed without a word")
        else:
            again, said = self.worker(folder, {"PATH": os.environ["PATH"]}, 2)
            if again != 0 or not same(folder, self.reference):
                self.problem("hebb-worker", at, log, f"the next run ended with {again} or other bytes: {said[-300:]}")
        self.counts[f"worker_exit_{code}"] += 1
        shutil.rmtree(folder)
        log.unlink(missing_ok=True)

    def count_worker(self):
        folder, log = self.job_folder("worker"), self.base / "worker.log"
        code, said = self.worker(folder, self.environment("hebb-worker", log))
        assert code == 0, said
        self.reference = files(folder)
        assert len(self.reference) > 8, self.reference.keys()
        return int(log.read_text().split()[-1])

    # --- hebb-shim ---

    def shim(self, folder, env, attempt=1):
        return self.command([self.bin / "hebb-shim", "--folder", folder, "--attempt", str(attempt), "--", "/bin/sh", "-c",
                             "echo one; (setsid sleep 30 &) ; exit 1"], env)

    def try_shim(self, at):
        log = self.base / f"shim-{at}.log"
        folder = self.base / f"shim-{at}"
        folder.mkdir()
        code, said = self.shim(folder, self.environment("hebb-shim", log, at))
        verdict = folder / "attempt-1/exit.json"
        if not log.exists():
            self.counts["not_reached"] += 1     # how often it polls is up to chance
        elif code != 0 and (not isinstance(code, int) or code < 0):
            self.problem("hebb-shim", at, log, f"ended with {code}: {said[-300:]}")
        elif code == 0 and json.loads(verdict.read_text())["code"] == 0:
            self.problem("hebb-shim", at, log, "said that all was well")
        else:
            again, said = self.shim(folder, {"PATH": os.environ["PATH"]}, 2)
            end = folder / "attempt-2/exit.json"
            if again != 0 or json.loads(end.read_text())["code"] != 1:
                self.problem("hebb-shim", at, log, f"the next attempt ended with {again}: {said[-300:]}")
        left = [pid for pid, _, attempt in processes.marked(folder) if code == 0 or attempt.endswith("-2")]
        if left:
            self.problem("hebb-shim", at, log, f"left {len(left)} processes")
        for pid, _, _ in processes.marked(folder):
            processes.kill(pid)
        self.counts[f"shim_exit_{code}"] += 1
        for path in pathlib.Path("/dev/shm").glob("hebb-*"):
            if path.stat().st_uid == os.getuid() and path.name in self.shm_names(folder):
                shutil.rmtree(path, ignore_errors=True)
        shutil.rmtree(folder)
        log.unlink(missing_ok=True)

    @staticmethod
    def shm_names(folder):
        value = 0xcbf29ce484222325
        for byte in str(folder).encode():
            value = (value ^ byte) * 0x100000001b3 % 2**64
        return {f"hebb-{value:016x}-{attempt}" for attempt in (1, 2)}

    def count_shim(self):
        folder, log = self.base / "shim", self.base / "shim.log"
        folder.mkdir()
        code, said = self.shim(folder, self.environment("hebb-shim", log))
        assert code == 0, said
        return int(log.read_text().split()[-1])

    # --- hebbd ---

    def start(self, state, env):
        port = state / "port"
        port.unlink(missing_ok=True)
        log = open(state / "hebbd.log", "ab")
        process = subprocess.Popen([self.bin / "hebbd", "--state", state, "--listen", "127.0.0.1:0", "--port-file", port,
                                    "--data-root", self.data, "--poll-ms", "10", "--cores", "1"], env=env,
                                   stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()
        end = time.monotonic() + HANG_SECONDS
        while process.poll() is None and time.monotonic() < end:
            if port.exists() and port.read_text().strip():
                return process, int(port.read_text())
            time.sleep(0.01)
        return process, None

    def call(self, state, port, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with contextlib.closing(connection):
            token = (state / "token").read_text().strip()
            connection.request(method, path, None if body is None else json.dumps(body),
                               {"Authorization": f"Bearer {token}", "Content-Type": "application/json",
                                **({"Idempotency-Key": "one"} if body else {})})
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None

    def follow(self, state, port, job=None, seconds=HANG_SECONDS):
        """Submits, or goes on with job, until it is final; (id or None, last row). Faults may break any call."""
        end, row = time.monotonic() + seconds, None
        while time.monotonic() < end:
            try:
                if job is None:
                    status, answer = self.call(state, port, "POST", "/v1/jobs", {**JOB, "data": {"train": ["corpus.txt"]}})
                    job = answer["id"] if status in (200, 201) else None
                else:
                    status, answer = self.call(state, port, "GET", f"/v1/jobs/{job}")
                    row = answer if status == 200 else row
                    if row and row["state"] in ("succeeded", "failed", "cancelled"):
                        break
            except (OSError, http.client.HTTPException, ValueError):
                pass
            if row is None or row["state"] != "running":
                time.sleep(0.01)
            else:
                time.sleep(0.03)
        return job, row

    def end(self, process):
        process.terminate()
        try:
            return process.wait(HANG_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return "hang"

    def try_daemon(self, at):
        log = self.base / f"hebbd-{at}.log"
        state = self.base / f"hebbd-{at}"
        state.mkdir()
        process, port = self.start(state, self.environment("hebbd", log, at))
        job = row = None
        self.counts["hebbd_not_started"] += port is None
        if port is not None:
            job, row = self.follow(state, port, seconds=6)
        code = self.end(process) if process.poll() is None else process.returncode
        if isinstance(code, str) or code < 0:
            self.problem("hebbd", at, log, f"ended with {code}: {(state / 'hebbd.log').read_text()[-300:]}")
        if row and row["state"] == "succeeded" and not same(state / "jobs" / job, self.reference):
            self.problem("hebbd", at, log, "succeeded with other bytes")
        if row and row["state"] == "failed":
            self.problem("hebbd", at, log, f"the job failed: {row['reason']}")
        self.after(at, log, state, job)
        self.counts[f"hebbd_exit_{code}"] += 1
        self.counts["not_reached"] += not log.exists()
        for pid, _, _ in processes.listing(state):
            processes.kill(pid)
        shutil.rmtree(state)
        log.unlink(missing_ok=True)

    def after(self, at, log, state, job):
        """The next daemon, undisturbed, knows every job that was acknowledged and ends it."""
        process, port = self.start(state, {"PATH": os.environ["PATH"], "HOME": str(self.base)})
        if port is None:
            self.problem("hebbd", at, log, f"does not start again: {(state / 'hebbd.log').read_text()[-300:]}")
            return
        again, row = self.follow(state, port, job)
        count = len(self.call(state, port, "GET", "/v1/jobs?limit=10")[1]["jobs"])
        if row is None or row["state"] != "succeeded" or not same(state / "jobs" / again, self.reference):
            self.problem("hebbd", at, log, f"after it the job is {row and (row['state'], row['reason'])}")
            self.end(process)
            return
        if count != 1 or (job is not None and again != job):
            self.problem("hebbd", at, log, f"{count} jobs instead of one")
        stored = self.call(state, port, "GET", f"/v1/jobs/{again}/events?since=0&limit=1000")[1]["events"]
        written = (state / "jobs" / again / "events.jsonl").read_text().splitlines()
        if [e["seq"] for e in stored] != [json.loads(line)["seq"] for line in written]:
            self.problem("hebbd", at, log, f"{len(written)} events in the file, {len(stored)} in the store")
        if self.end(process) != 0:
            self.problem("hebbd", at, log, "the next daemon did not end in order")

    def count_daemon(self):
        state, log = self.base / "hebbd", self.base / "hebbd.count"
        state.mkdir()
        process, port = self.start(state, self.environment("hebbd", log))
        job, row = self.follow(state, port)
        assert row["state"] == "succeeded", row
        assert files(state / "jobs" / job) == self.reference
        assert self.end(process) == 0
        return int(log.read_text().split()[-1])

    # --- all ---

    def run(self):
        chosen = random.Random(self.options.seed)
        plan = []
        for program, attempt, count in (("hebb-worker", self.try_worker, self.count_worker),
                                        ("hebb-shim", self.try_shim, self.count_shim),
                                        ("hebbd", self.try_daemon, self.count_daemon)):
            calls = count()
            self.counts[f"{program}_calls"] = calls
            wanted = min(calls, round(self.options.faults * SHARES[program]))
            plan += [(attempt, at) for at in sorted(chosen.sample(range(1, calls + 1), wanted))]
        chosen.shuffle(plan)            # so that a run that is cut short has tried all three
        with concurrent.futures.ThreadPoolExecutor(TWO_AT_ONCE) as pool:
            list(pool.map(self.one, plan))

    def one(self, item):
        attempt, at = item
        if time.monotonic() - self.began < self.options.seconds:
            try:
                attempt(at)
            except (OSError, http.client.HTTPException, ValueError, LookupError, AssertionError) as failure:
                self.problems.append(f"{attempt.__name__}, call {at}: {failure!r}")
            self.counts["tried"] += 1


def run(options):
    with contextlib.ExitStack() as stack:
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
        base = options.keep or pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hebb-faults-")))
        faults = Faults(options, base.resolve())
        faults.run()
        faults.counts["injections"] = faults.counts["tried"] - faults.counts["not_reached"]
        return {**dict(sorted(faults.counts.items())), "seconds": round(time.monotonic() - faults.began, 1),
                "problems": faults.problems}
