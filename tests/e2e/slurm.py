"""slurm.py BINARIES [KILLS]: jobs on a real Slurm cluster of two nodes (slurm_cluster.py): as an unprivileged user, to the same loss as on the daemon's
machine, once and only once however often controller, nodes and daemon are killed, on beyond time limits, and cancelled. KILLS: so many further SIGKILLs at random (not in ./check)."""
import json
import os
import pathlib
import pwd
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from service import FINAL, Service, corpus, tiny_job
from slurm_cluster import cluster, until

STEPS = 40
LOSS_TOLERANCE = 1e-4


class SlurmService(Service):
    """hebbd as the user nobody, with copies of the programs that it may read."""

    def __init__(self, binaries, folder, slurm):
        programs = pathlib.Path(folder) / "programs" / "bin"
        shutil.copytree(binaries, programs)
        shutil.copytree(pathlib.Path(binaries).parent / "web", programs.parent / "web")
        super().__init__(programs, folder)
        self.slurm = slurm
        self.user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        for path in (self.folder, self.data):
            path.chmod(0o755)
        if self.user:
            self.state.mkdir()
            os.chown(self.state, self.user.pw_uid, self.user.pw_gid)

    def start(self):
        port_file = self.folder / "state" / "port"
        port_file.unlink(missing_ok=True)
        become = {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []} if self.user else {}
        with open(self.folder / "hebbd.log", "ab") as log:
            self.process = subprocess.Popen(
                [self.binaries / "hebbd", "--state", self.state, "--listen", "127.0.0.1:0", "--port-file", port_file,
                 "--data-root", self.data, "--web", self.binaries.parent / "web", "--slurm", "/usr/bin",
                 "--slurm-allow", "--nice=*", "--slurm-poll-ms", "500", "--slurm-grace", "5", "--slurm-warning", "55"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.slurm.environment, **become)
        until(lambda: port_file.exists() or self.process.poll() is not None, 15, "hebbd starts")
        assert self.process.poll() is None, (self.folder / "hebbd.log").read_text()
        self.url = f"http://127.0.0.1:{int(port_file.read_text())}"
        self.token = (self.state / "token").read_text().strip()

    def submit(self, job, **slurm):
        job = json.loads(json.dumps(job))
        if slurm:
            job["resources"]["launcher"] = "slurm"
            job["slurm"] = slurm
        return self.json("POST", "/v1/jobs", job)["id"]

    def row(self, job):
        return self.json("GET", f"/v1/jobs/{job}")

    def folder_of(self, job):
        return self.state / "jobs" / job

    def attempts(self, job):
        return sorted(path.name for path in self.folder_of(job).glob("attempt-*"))

    def step(self, job):
        try:
            return max([e["step"] for e in self.events(job) if e["type"] == "step"], default=0)
        except (FileNotFoundError, json.JSONDecodeError):
            return 0

    def last_losses(self, job):
        return {e["step"]: e["loss"] for e in self.events(job) if e["type"] == "step"}

    def reason(self, job, words, seconds=20):
        until(lambda: words in self.row(job)["reason"], seconds, f"reason '{words}', not '{self.row(job)['reason']}'")


def check_once(service, job, forgetful=False):
    """One batch job an attempt, and no event lost or doubled. A controller that is killed may forget what it took."""
    keys = [comment for _, _, _, _, comment in service.slurm.jobs() if comment.startswith(f"hebb:{job}.")]
    attempts = {f"hebb:{job}.{name.removeprefix('attempt-')}" for name in service.attempts(job)}
    assert len(keys) == len(set(keys)) and (set(keys) == attempts or forgetful and set(keys) < attempts), keys
    events = service.events(job)  # once: the job may go on meanwhile
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
    starts = [e["attempt"] for e in events if e["type"] == "start"]
    assert len(starts) == len(set(starts)), starts


def refused(service, job):
    """What cannot be is said at once, field by field, or with Slurm's own words."""
    body = {**job, "resources": {**job["resources"], "launcher": "slurm"},
            "slurm": {"nodes": 3, "partition": "--wrap", "options": ["--comment=x", "--mem=1G", "nice"]}}
    status, _, answer = service.curl("POST", "/v1/jobs", body)
    assert status == 422, answer
    fields = {fault["field"] for fault in json.loads(answer)["errors"]}
    assert {"/slurm/nodes", "/slurm/partition", "/slurm/options/2"} <= fields, fields
    body["slurm"] = {"nodes": 2, "options": ["--comment=x", "--mem=1G", "--wra=id", "--nice=5"]}
    errors = json.loads(service.curl("POST", "/v1/jobs", body)[2])["errors"]
    assert {fault["field"] for fault in errors} == {f"/slurm/options/{i}" for i in range(3)}, errors
    gone = service.submit(job, partition="nowhere")
    row = service.wait(gone, ("failed",))
    assert "Slurm refuses the job" in row["reason"] and "nowhere" in row["reason"], row
    assert row["attempt"] == 1, row


def same_loss(service, job):
    """Criterion: 2 nodes x 1 rank end with the loss of the local launcher."""
    ids = [service.submit(job), service.submit(job, nodes=2, options=["--nice=5"])]
    for name in ids:
        service.wait(name, ("succeeded",))
    losses = [service.last_losses(name) for name in ids]
    assert sorted(losses[0]) == sorted(losses[1]) == list(range(1, STEPS + 1))
    worst = max(abs(losses[0][s] - losses[1][s]) for s in losses[0])
    assert worst < LOSS_TOLERANCE, f"losses differ by {worst}"
    check_once(service, ids[1])
    if service.user:
        owner = (service.folder_of(ids[1]) / "events.jsonl").stat().st_uid
        assert owner == service.user.pw_uid, owner
    return worst


def never_starts(service, job):
    """A reason that cannot clear is the job's reason, and cancelling withdraws it from the queue."""
    job_id = service.submit(job, nodes=2, partition="small")
    service.reason(job_id, "cannot start")
    assert "(Partition" in service.row(job_id)["reason"], service.row(job_id)
    assert service.row(job_id)["state"] == "starting"
    service.json("POST", f"/v1/jobs/{job_id}/cancel")
    service.wait(job_id, ("cancelled",), 20)
    assert [j[2] for j in service.slurm.jobs() if job_id in j[4]] == ["CANCELLED"]
    assert not (service.folder_of(job_id) / "attempt-1" / "shim.json").exists()


def cancelled(service, job):
    """While it runs: by hebb, and by somebody else."""
    ours, theirs = service.submit(job, nodes=1), service.submit(job, nodes=1)
    until(lambda: service.step(ours) > 2 and service.step(theirs) > 2, 40, "both run")
    service.json("POST", f"/v1/jobs/{ours}/cancel")
    number = json.loads((service.folder_of(theirs) / "attempt-1" / "slurm.json").read_text())["job"]
    service.slurm.ask("scancel", str(number))
    service.wait(ours, ("cancelled",), 30)
    row = service.wait(theirs, ("failed",), 30)
    assert row["reason"].endswith("cancelled in Slurm, not through hebb"), row


def killed(service, job):
    """kill -9 at bad moments: nothing lost, nothing twice, and unreachable is not failed."""
    slurm = service.slurm
    slurm.kill("slurmctld")
    job_id = service.submit(job, nodes=2)
    service.reason(job_id, "Slurm does not answer")
    assert service.row(job_id)["state"] == "starting"
    assert time.monotonic() and service.curl("GET", "/healthz")[0] == 200
    service.stop(signal.SIGKILL)  # before sbatch could be called, or while it tries
    slurm.start("slurmctld")
    service.start()
    until(lambda: service.step(job_id) > 2, 60, "it runs")
    slurm.kill("slurmctld")  # while it runs: its state stays
    service.reason(job_id, "Slurm does not answer")
    assert service.row(job_id)["state"] == "running"
    slurm.kill("n1")  # slurmd dies and comes back; its step goes on
    service.stop(signal.SIGKILL)
    slurm.start("n1")
    slurm.start("slurmctld")
    service.start()
    row = service.wait(job_id, ("succeeded",), 60)
    assert row["attempt"] == 1 and row["failures"] == 0, row
    check_once(service, job_id)
    return job_id


def killed_batch(service, job):
    """The whole batch job dies without a word, with the daemon down: lost, and retried from its checkpoint."""
    job_id = service.submit(job, nodes=2)
    until(lambda: service.step(job_id) > 22, 60, "it has a checkpoint")
    service.stop(signal.SIGKILL)
    shim = json.loads((service.folder_of(job_id) / "attempt-1" / "shim.json").read_text())["pid"]
    os.kill(shim, signal.SIGKILL)
    service.start()
    row = service.wait(job_id, ("succeeded",), 60)
    assert row["attempt"] == 2 and row["failures"] == 1, row
    start = [e for e in service.events(job_id) if e["type"] == "start"][1]
    assert start["step"] >= 20, start
    check_once(service, job_id)


def limited(service, job_id):
    """Its time limit came near, it saved, and its next attempt goes on from that very step."""
    until(lambda: len(service.attempts(job_id)) == 2, 90, "its next attempt")
    saved = [e["step"] for e in service.events(job_id) if e["type"] == "checkpoint"][-1]
    until(lambda: service.step(job_id) > saved + 5, 40, "it goes on")
    until(lambda: service.row(job_id)["state"] == "running", 20, "squeue has told")  # its events come first
    row = service.row(job_id)
    assert row["attempt"] == 2 and row["failures"] == 0 and row["state"] == "running", row
    assert json.loads((service.folder_of(job_id) / "attempt-1" / "exit.json").read_text())["code"] == 75
    steps = [e["step"] for e in service.events(job_id) if e["type"] == "step"]
    assert steps == list(range(1, len(steps) + 1)), "a step is missing or was done twice"
    check_once(service, job_id)
    service.json("POST", f"/v1/jobs/{job_id}/cancel")
    service.wait(job_id, ("cancelled",), 30)


def storm(service, job, kills, seed):
    """SIGKILL for random parts at random moments, jobs submitted meanwhile: none lost, none twice."""
    choose, slurm = random.Random(seed), service.slurm
    ids, counts = [], {}
    for i in range(kills):
        if i % 5 == 0:
            ids.append(service.submit(job, nodes=choose.choice((1, 2))))
        time.sleep(choose.uniform(0, 3))
        part = choose.choice(("slurmctld", "n1", "n2", "hebbd", "rank", "shim"))
        counts[part] = counts.get(part, 0) + 1
        if part == "hebbd":
            service.stop(signal.SIGKILL)
            service.start()
        elif part in ("rank", "shim"):
            found = processes(service, f"hebb-{'worker' if part == 'rank' else 'shim'}")
            if found:
                os.kill(choose.choice(found), signal.SIGKILL)
        else:
            slurm.kill(part)
            time.sleep(choose.uniform(0, 2))
            slurm.start(part)
    for name in ids:
        service.wait(name, ("succeeded",), 600)
        check_once(service, name, forgetful=True)
        last = {e["step"] for e in service.events(name) if e["type"] == "step"}
        assert last == set(range(1, job["train"]["steps"] + 1)), "steps are missing"
    until(lambda: not processes(service, "hebb-worker") and not processes(service, "hebb-shim"), 20, "all processes end")
    print(f"storm: {kills} kills {counts}, {len(ids)} jobs, {sum(len(service.attempts(i)) for i in ids)} attempts", flush=True)


def processes(service, name):
    """Those of this cluster's jobs."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if (path / "comm").read_text().strip() == name and str(service.state) in (path / "cmdline").read_text():
                found.append(int(path.name))
        except OSError:
            pass
    return found


def main():
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hebb-slurm-", ignore_cleanup_errors=True) as folder:
        base = pathlib.Path(folder)
        base.chmod(0o755)
        (base / "cluster").mkdir()
        (base / "hebb").mkdir()
        with cluster(base / "cluster") as slurm:
            service = SlurmService(sys.argv[1], base / "hebb", slurm)
            service.start()
            try:
                path = corpus(service)
                job = tiny_job(path, steps=STEPS, checkpoint_every=0)
                job["resources"]["ranks"] = 2
                time_limit = service.submit(tiny_job(path, steps=1000000, checkpoint_every=0), nodes=1, time_limit_minutes=1)
                refused(service, job)
                print(f"refused {time.monotonic() - began:.0f} s", flush=True)
                worst = same_loss(service, job)
                print(f"same loss, {worst:.2g} {time.monotonic() - began:.0f} s", flush=True)
                never_starts(service, job)
                print(f"never starts {time.monotonic() - began:.0f} s", flush=True)
                long = tiny_job(path, steps=200, batch=16, checkpoint_every=20)
                cancelled(service, long)
                print(f"cancelled {time.monotonic() - began:.0f} s", flush=True)
                limited(service, time_limit)
                print(f"time limit {time.monotonic() - began:.0f} s", flush=True)
                killed(service, long)
                print(f"killed {time.monotonic() - began:.0f} s", flush=True)
                killed_batch(service, long)
                print(f"killed batch {time.monotonic() - began:.0f} s", flush=True)
                if len(sys.argv) > 2:
                    long["restart"] = {"max": 100, "backoff_s": 1}
                    storm(service, long, int(sys.argv[2]), 1)
            except BaseException:
                print((service.folder / "hebbd.log").read_text()[-6000:], file=sys.stderr)
                print((slurm.base / "log" / "slurmctld.log").read_text()[-3000:], file=sys.stderr)
                for log in service.state.glob("jobs/*/attempt-*/*.txt"):
                    print(f"--- {log}\n{log.read_text()[-1500:]}", file=sys.stderr)
                raise
            finally:
                service.stop()
    print(f"slurm: ok ({time.monotonic() - began:.0f} s)")


if __name__ == "__main__":
    main()
