"""Events over HTTP from a real job: a stream that is cut and goes on, long polls, a daemon that is killed under
the client. Nothing may be lost or come twice."""
import http.client
import json
import signal
import time
import urllib.parse

from service import corpus, service, tiny_job


class Stream:
    """One server-sent event stream; iterates over (id, type, data)."""

    def __init__(self, it, job, last_id=None):
        self.connection = http.client.HTTPConnection(urllib.parse.urlsplit(it.url).netloc, timeout=30)
        headers = {"Authorization": f"Bearer {it.token}", "Accept": "text/event-stream"}
        if last_id is not None:
            headers["Last-Event-ID"] = str(last_id)
        self.connection.request("GET", f"/v1/jobs/{job}/events", headers=headers)
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200, self.answer.read()
        assert self.answer.getheader("Content-Type") == "text/event-stream"

    def __iter__(self):
        fields = {}
        for line in self.answer:
            line = line.decode().rstrip("\n")
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif fields:
                if "data" in fields:
                    seq = int(fields["id"]) if "id" in fields else None
                    yield seq, fields["event"], json.loads(fields["data"])
                fields = {}

    def close(self):
        self.connection.close()


def check(seen, it, job):
    written = it.events(job)
    assert [e["seq"] for e in seen] == list(range(1, len(written) + 1)), [e["seq"] for e in seen]
    assert seen == written


def cut_stream(it, path):
    """Reads 15 events at a time, each time on a new connection."""
    job = it.json("POST", "/v1/jobs", tiny_job(path, steps=80))["id"]
    seen, states, rounds = [], [], 0
    while not states or states[-1] not in ("succeeded", "failed"):
        stream = Stream(it, job, seen[-1]["seq"] if seen else None)
        rounds += 1
        for count, (seq, kind, data) in enumerate(stream):
            if kind == "state":
                assert seq is None and data["id"] == job
                states.append(data["state"])
            else:
                assert seq == data["seq"] and kind == data["type"]
                seen.append(data)
            if count == 15:
                break
        stream.close()
        assert rounds < 100
    assert states[-1] == "succeeded" and "running" in states, states
    check(seen, it, job)
    # A stream of a finished job tells everything and ends by itself.
    again = list(Stream(it, job))
    assert [data for _, kind, data in again if kind != "state"] == seen
    assert again[-1][1] == "state" and again[-1][2]["state"] == "succeeded"


def long_polls(it, path):
    job = it.json("POST", "/v1/jobs", tiny_job(path, steps=80))["id"]
    seen, since, state = [], 0, ""
    while state != "succeeded" or len(seen) < since:
        answer = it.json("GET", f"/v1/jobs/{job}/events?since={since}&wait=5&limit=20")
        assert answer["events"] or answer["last_seq"] == since
        seen += answer["events"]
        since, state = answer["last_seq"], answer["state"]
        assert state not in ("failed", "cancelled")
        if state == "succeeded" and not answer["events"]:
            break
    check(seen, it, job)


def wait_is_kept(it, path):
    """A poll for what does not come answers when its time is over, however much else happens."""
    job = it.json("POST", "/v1/jobs", tiny_job(path, steps=3000))["id"]
    it.wait(job, ("running",))
    start = time.monotonic()
    answer = it.json("GET", f"/v1/jobs/{job}/events?since=1000000&wait=1")
    assert answer["events"] == [] and answer["state"] == "running"
    assert 0.9 < time.monotonic() - start < 5
    it.json("POST", f"/v1/jobs/{job}/cancel")
    it.wait(job, ("cancelled",))


def killed_daemon(it, path):
    """kill -9 of hebbd under a stream: the job goes on, the next daemon tells the rest."""
    job = it.json("POST", "/v1/jobs", tiny_job(path, steps=500, checkpoint_every=200))["id"]
    seen = []
    for _, kind, data in Stream(it, job):
        if kind != "state":
            seen.append(data)
        if len(seen) == 30:
            break
    it.stop(signal.SIGKILL)
    it.start()
    for _, kind, data in Stream(it, job, seen[-1]["seq"]):
        if kind != "state":
            seen.append(data)
    assert it.json("GET", f"/v1/jobs/{job}")["state"] == "succeeded"
    assert [e["attempt"] for e in seen if e["type"] == "start"] == [1]
    check(seen, it, job)


with service() as hebb:
    text = corpus(hebb)
    cut_stream(hebb, text)
    long_polls(hebb, text)
    wait_is_kept(hebb, text)
    killed_daemon(hebb, text)
print("no event lost or doubled")
