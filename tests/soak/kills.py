"""Kill -9 at random moments of the daemon, a shim, mpirun, a rank, or all of a job, while jobs are submitted, trained and
cancelled. Nothing may be lost, doubled or left over, and the weights must be those of an undisturbed run."""
import collections
import contextlib
import http.client
import json
import pathlib
import random
import signal
import sqlite3
import tempfile
import threading
import time
import uuid

import processes
from service import FINAL, Service, corpus, tiny_job

KINDS = ("daemon", "shim", "mpirun", "rank", "all")
AT_ONCE = 4             # jobs that are not final while kills are left
STEPS = 60
END_SECONDS = 120       # for the jobs to end after the last kill
LEFT_SECONDS = 10       # after the end nothing of a job may be left
SAME = ("checkpoints", "model", "topology")


def job_of(path, ranks):
    job = tiny_job(path, steps=STEPS, checkpoint_every=10, eval_every=0, eval_sequences=1, keep=100)
    job["resources"]["ranks"] = ranks
    job["restart"] = {"max": 1000, "backoff_s": 0.02}
    return job


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes()
            for part in SAME for p in sorted((folder / part).rglob("*")) if p.is_file()}


class Soak:
    def __init__(self, options, folder):
        self.random = random.Random(options.seed)
        self.options = options
        self.hebb = Service(options.bin, folder)
        self.hits = collections.Counter()
        self.jobs = {}              # id -> ranks
        self.keys = {}              # idempotency key -> (id or None, ranks)
        self.cancelled = set()
        self.problems = []
        self.began = time.monotonic()
        self.start()
        self.text = corpus(self.hebb, lines=400)

    def start(self):
        self.hebb.start("--cores", str(2 * AT_ONCE), "--poll-ms", "20", "--log-level", "warn")

    def call(self, method, path, body=None, headers=()):
        """(status, object); raises OSError or HTTPException when the daemon is gone."""
        connection = http.client.HTTPConnection(self.hebb.url[7:], timeout=20)
        try:
            connection.request(method, path, None if body is None else json.dumps(body),
                               {"Authorization": f"Bearer {self.hebb.token}", "Content-Type": "application/json",
                                **dict(headers)})
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None
        finally:
            connection.close()

    def get(self, path):
        status, answer = self.call("GET", path)
        assert status == 200, (path, status, answer)
        return answer

    # --- submitting: a key is tried until it is acknowledged ---

    def submit(self, key=None):
        if key is None:
            key = str(uuid.UUID(int=self.random.getrandbits(128)))
            self.keys[key] = (None, self.random.choice((1, 2)))
        ranks = self.keys[key][1]
        try:
            status, answer = self.call("POST", "/v1/jobs", job_of(self.text, ranks), [("Idempotency-Key", key)])
        except (OSError, http.client.HTTPException):
            return
        assert status in (200, 201), (status, answer)
        self.keys[key] = (answer["id"], ranks)
        self.jobs[answer["id"]] = ranks

    def resubmit(self):
        for key, (job, _) in list(self.keys.items()):
            if job is None:
                self.submit(key)

    def states(self):
        rows, after = [], ""
        while True:
            page = self.get(f"/v1/jobs?limit=100{after}")
            rows += page["jobs"]
            if not page.get("next_after"):
                return {row["id"]: row for row in rows}
            after = f"&after={page['next_after']}"

    # --- killing ---

    def kill_daemon(self, also=()):
        """In the middle of a submit, as chance has it."""
        thread = threading.Thread(target=self.submit)
        thread.start()
        time.sleep(self.random.random() * 0.02)
        for pid in also:
            processes.kill(pid)
        self.hebb.process.send_signal(signal.SIGKILL)
        self.hebb.process.wait()
        thread.join()
        time.sleep(self.random.choice((0, 0, 0.3)))
        self.start()
        self.resubmit()

    def kill_one(self, kind):
        if kind == "daemon":
            self.kill_daemon()
            self.hits[kind] += 1
            return
        found = processes.listing(self.hebb.state)
        if kind == "all":
            attempts = sorted({attempt for _, _, attempt in found})
            attempt = self.random.choice(attempts) if attempts else None
            pids = [pid for pid, _, a in found if a == attempt]
            if pids:
                self.kill_daemon(pids)
                self.hits[kind] += 1
            return
        pids = [pid for pid, program, _ in found if program == kind]
        if pids and processes.kill(self.random.choice(pids)):
            self.hits[kind] += 1

    def look_for_doubles(self, before):
        """Two attempts of one job must never live at once. A killed one may take a moment to be gone."""
        now = {}
        for pid, _, attempt in processes.listing(self.hebb.state):
            job, _, name = attempt.rpartition("/")
            now.setdefault(job, {}).setdefault(name, set()).add(pid)
        doubled = {job: names for job, names in now.items() if len(names) > 1}
        for job, names in doubled.items():
            if job in before and names.keys() == before[job].keys():
                self.problems.append(f"{job}: attempts at once: {names}")
        return doubled

    def out_of_time(self):
        return time.monotonic() - self.began > self.options.seconds

    def disturb(self):
        doubled = {}
        number = 0
        while sum(self.hits.values()) < self.options.kills and not self.out_of_time():
            number += 1
            states = self.states()
            while sum(row["state"] not in FINAL for row in states.values()) < AT_ONCE:
                self.submit()
                states = self.states()
            if number % 13 == 0:
                self.cancel(states)
            time.sleep(self.random.random() * 0.5)
            self.kill_one(KINDS[number % len(KINDS)])
            doubled = self.look_for_doubles(doubled)

    def cancel(self, states):
        alive = sorted(job for job, row in states.items() if row["state"] not in FINAL)
        job = self.random.choice(alive)
        status, answer = self.call("POST", f"/v1/jobs/{job}/cancel")
        if status == 202:
            self.cancelled.add(job)
        elif status != 409:
            self.problems.append(f"cancel of {job}: {status} {answer}")

    # --- judging ---

    def settle(self):
        end = time.monotonic() + END_SECONDS
        while True:
            left = [row for row in self.states().values() if row["state"] not in FINAL]
            if not left:
                return
            if time.monotonic() > end:
                self.problems += [f"job {row['id']} is stuck: {row['state']} {row['reason']}" for row in left]
                return
            time.sleep(0.1)

    def reference(self):
        """The files of a run of each world that nobody disturbed."""
        wanted = {}
        for ranks in (1, 2):
            _, answer = self.call("POST", "/v1/jobs", job_of(self.text, ranks))
            row = self.hebb.wait(answer["id"])
            assert row["state"] == "succeeded" and row["attempt"] == 1, row
            wanted[ranks] = files(self.hebb.state / "jobs" / answer["id"])
            assert len(wanted[ranks]) > 20
            self.references = getattr(self, "references", set()) | {answer["id"]}
        return wanted

    def judge_jobs(self, wanted):
        states = self.states()
        known = set(self.jobs) | self.references
        counts = collections.Counter()
        for job in known - set(states):
            counts["lost"] += 1
            self.problems.append(f"job {job} was acknowledged and is lost")
        for job in set(states) - known:
            counts["doubled"] += 1
            self.problems.append(f"job {job} was never acknowledged")
        if len({job for job, _ in self.keys.values()}) != len(self.keys):
            self.problems.append("a key has two jobs, or two keys one")
        for job, ranks in self.jobs.items():
            state = states.get(job, {"state": "lost", "reason": ""})["state"]
            counts[state] += 1
            if state not in ("succeeded", "cancelled") or (state == "cancelled" and job not in self.cancelled):
                self.problems.append(f"job {job} is {state}: {states.get(job, {}).get('reason')}")
            if state == "succeeded" and files(self.hebb.state / "jobs" / job) != wanted[ranks]:
                counts["different"] += 1
                self.problems.append(f"job {job} with {ranks} ranks ended with other bytes")
            if state == "succeeded":
                self.judge_events(job)
        counts["attempts"] = sum(states[job]["attempt"] for job in self.jobs if job in states)
        return counts

    def judge_events(self, job):
        events = self.hebb.events(job)
        if [e["seq"] for e in events] != list(range(1, len(events) + 1)):
            self.problems.append(f"job {job}: seq has holes")
        steps = {e["step"] for e in events if e["type"] == "step"}
        dones = [e for e in events if e["type"] == "done"]
        if steps != set(range(1, STEPS + 1)) or not dones or events[-1] is not dones[-1]:
            self.problems.append(f"job {job}: {len(steps)} steps, {len(dones)} done events")
        stored, since = 0, 0
        while True:
            page = self.get(f"/v1/jobs/{job}/events?since={since}&limit=1000")["events"]
            if not page:
                break
            stored, since = stored + len(page), page[-1]["seq"]
        if stored != len(events):
            self.problems.append(f"job {job}: {len(events)} events in the file, {stored} in the store")

    def judge_stores(self):
        """Run when the daemon has stopped."""
        for name in ("state.db", "series.db"):
            with contextlib.closing(sqlite3.connect(self.hebb.state / name)) as db:
                verdict = db.execute("PRAGMA integrity_check").fetchone()[0]
                if verdict != "ok":
                    self.problems.append(f"{name}: {verdict}")
                if name == "state.db":
                    self.judge_audit(db)

    def judge_audit(self, db):
        finals = collections.Counter()
        for job, detail in db.execute("SELECT job, detail FROM audit WHERE action = 'state'"):
            finals[job] += any(f"-> {state}" in detail for state in FINAL)
        wrong = {job: count for job, count in finals.items() if count > 1}
        if wrong:
            self.problems.append(f"final states written more than once: {wrong}")
        intents = db.execute("SELECT count(*) FROM intents").fetchone()[0]
        if intents:
            self.problems.append(f"{intents} intents are left")

    def judge_leftovers(self, before):
        end = time.monotonic() + LEFT_SECONDS
        while True:
            left = processes.listing(self.hebb.state)
            names = processes.shared_files() - before
            files_left = [n for n in names if "/hebb-" not in n or n.split("-")[1] in self.jobs]
            files_left += [str(p) for p in self.hebb.state.glob("jobs/*/attempt-*/tmp")]
            if not left and not files_left or time.monotonic() > end:
                break
            time.sleep(0.2)
        self.problems += [f"left: {item}" for item in (*left, *files_left)]
        return len(left), len(files_left)


def run(options):
    with contextlib.ExitStack() as stack:
        folder = options.keep or stack.enter_context(tempfile.TemporaryDirectory(prefix="hebb-soak-"))
        before = processes.shared_files()
        soak = Soak(options, pathlib.Path(folder))
        try:
            wanted = soak.reference()
            soak.disturb()
            soak.settle()
            left, files_left = soak.judge_leftovers(before)
            counts = soak.judge_jobs(wanted)
        finally:
            soak.hebb.stop()
            for pid, _, _ in processes.listing(soak.hebb.state):
                processes.kill(pid)
        soak.judge_stores()
        hits = sum(soak.hits.values())
        if hits < options.kills and not soak.out_of_time():
            soak.problems.append(f"{hits} of {options.kills} kills hit a living process")
        return {"kills": hits, **{f"kills_{k}": soak.hits[k] for k in KINDS}, "jobs": len(soak.jobs),
                "succeeded": counts["succeeded"], "cancelled": counts["cancelled"], "attempts": counts["attempts"],
                "lost": counts["lost"], "doubled": counts["doubled"], "different": counts["different"],
                "processes_left": left, "files_left": files_left, "seed": options.seed,
                "seconds": round(time.monotonic() - soak.began, 1), "problems": soak.problems}
