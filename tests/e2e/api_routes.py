"""Every route of a real daemon with a real job, by curl: submission, faults, actions, history, logs, and clients that
hold connections."""
import json
import re
import socket
import time
import urllib.parse

from service import corpus, service, tiny_job


def refused(it, path):
    """Faults of all kinds, none of which leaves a job behind."""
    job = tiny_job(path)
    job["train"]["steps"] = 0
    job["sparsity"]["n"] = 9
    job["colour"] = "red"
    status, headers, body = it.curl("POST", "/v1/jobs", job)
    problem = json.loads(body)
    assert status == 422 and headers["content-type"] == "application/problem+json"
    assert {"/train/steps", "/sparsity/n", "/colour"} <= {e["field"] for e in problem["errors"]}, problem
    assert problem["code"] == "invalid_job" and problem["status"] == 422
    for outside in ("/etc/passwd", "../state/token", "nothing.txt"):
        problem = it.json("POST", "/v1/jobs", tiny_job(outside), want=(422,))
        assert [e["field"] for e in problem["errors"]] == ["/data/train/0"], problem
    assert it.json("POST", "/v1/jobs", "not an object", want=(400, 422))
    assert it.curl("GET", "/v1/jobs", token=False)[0] == 401
    assert it.curl("GET", "/v1/jobs", headers=("Host: evil.example",))[0] == 403
    assert it.curl("POST", "/v1/jobs", tiny_job(path), headers=("Origin: http://evil.example",))[0] == 403
    assert it.json("GET", "/v1/jobs")["jobs"] == []


def dry_run(it, path):
    answer = it.json("POST", "/v1/jobs?dry_run=1", tiny_job(path))
    assert answer["estimate"]["density"] == 0.25 and answer["spec"]["sparsity"]["m"] == 4
    assert it.json("GET", "/v1/jobs")["jobs"] == []


def idempotent(it, path):
    """The same key gives one job, over a restart of the daemon too."""
    key = ("Idempotency-Key: sweep-7",)
    status, first, _ = it.curl("POST", "/v1/jobs", tiny_job(path), headers=key)
    assert status == 201 and "idempotency-replayed" not in first
    it.stop()
    it.start()
    status, second, _ = it.curl("POST", "/v1/jobs", tiny_job(path), headers=key)
    assert status == 201 and second["idempotency-replayed"] == "true"
    assert second["location"] == first["location"]
    assert it.curl("POST", "/v1/jobs", tiny_job(path, steps=61), headers=key)[0] == 422
    assert len(it.json("GET", "/v1/jobs")["jobs"]) == 1
    return first["location"].rsplit("/", 1)[1]


def history(it, job):
    row = it.wait(job, ("succeeded",))
    progress = row["progress"]
    assert progress["step"] == progress["steps"] == 60 and row["attempt"] == 1 and row["spec"]["name"] == "tiny"
    events = it.events(job)
    steps = [e for e in events if e["type"] == "step"]
    series = it.json("GET", f"/v1/jobs/{job}/series?keys=loss,lr,eval_loss")
    assert series["step"] == [e["step"] for e in steps] and series["loss"] == [e["loss"] for e in steps]
    assert series["eval_loss"] == [e["loss"] for e in events if e["type"] == "eval"]
    few = it.json("GET", f"/v1/jobs/{job}/series?points=10")
    assert len(few["step"]) <= 10 and min(few["loss"]) == min(series["loss"]) and max(few["loss"]) == max(series["loss"])
    topology = it.json("GET", f"/v1/jobs/{job}/topology")["refreshes"]
    written = [e for e in events if e["type"] == "refresh"]
    assert [r["step"] for r in topology] == [e["step"] for e in written] and topology
    assert topology[0]["layers"] == written[0]["layers"]
    name = "model.layers.1.mlp.up_proj"
    one = it.json("GET", f"/v1/jobs/{job}/topology?layer={name}&from=20")["refreshes"]
    assert one and all([layer["name"] for layer in r["layers"]] == [name] and r["step"] >= 20 for r in one)
    rows = it.json("GET", f"/v1/jobs/{job}/checkpoints")["checkpoints"]
    assert [r["step"] for r in rows][-1] == 60 and all(r["bytes"] > 0 for r in rows)


def logs(it, job):
    whole = (it.state / "jobs" / job / "attempt-1" / "log.txt").read_bytes()
    text, offset = b"", 0
    while True:
        status, headers, piece = it.curl("GET", f"/v1/jobs/{job}/log?offset={offset}&limit=100")
        assert status == 200 and len(piece) <= 100
        offset = int(headers["x-next-offset"])
        if not piece:
            break
        text += piece
    assert text == whole and whole and offset == len(whole)


def actions(it, path):
    """checkpoint, pause, resume, cancel: 202, then the state; 409 where the state does not allow it."""
    job = it.json("POST", "/v1/jobs", tiny_job(path, steps=100000, eval_every=0, checkpoint_every=0))["id"]
    it.wait(job, ("running",))
    assert it.curl("POST", f"/v1/jobs/{job}/checkpoint")[0] == 202
    for _ in range(200):
        rows = it.json("GET", f"/v1/jobs/{job}/checkpoints")["checkpoints"]
        if rows:
            break
        time.sleep(0.05)
    assert rows, "no checkpoint came"
    assert it.curl("POST", f"/v1/jobs/{job}/pause")[0] == 202
    paused = it.wait(job, ("paused",))["progress"]["step"]
    assert it.curl("POST", f"/v1/jobs/{job}/checkpoint")[0] == 409
    assert it.curl("POST", f"/v1/jobs/{job}/resume")[0] == 202
    assert it.wait(job, ("running",))["attempt"] == 2
    starts = []
    for _ in range(200):
        starts = [e for e in it.events(job) if e["type"] == "start"]
        if len(starts) == 2:
            break
        time.sleep(0.05)
    assert starts[1]["step"] >= rows[0]["step"] and starts[1]["step"] >= paused - 1, (starts, paused)
    assert it.curl("POST", f"/v1/jobs/{job}/cancel")[0] == 202
    it.wait(job, ("cancelled",))
    assert it.curl("POST", f"/v1/jobs/{job}/resume")[0] == 409
    assert [j["id"] for j in it.json("GET", "/v1/jobs?state=cancelled")["jobs"]] == [job]


def about(it):
    document = it.json("GET", "/v1/openapi.json")
    assert document["openapi"] == "3.1.0" and document["components"]["schemas"]["JobSpec"] == it.json("GET", "/v1/spec")
    assert it.curl("GET", "/healthz", token=False)[0] == 200
    assert it.json("GET", "/readyz")["ready"] is True
    text = it.curl("GET", "/metrics")[2].decode()
    assert re.search(r'^hebb_jobs\{state="succeeded"\} 1$', text, re.M), text
    status, headers, page = it.curl("GET", "/", token=False)
    assert status == 200 and b"<title>hebb</title>" in page and "default-src 'none'" in headers["content-security-policy"]
    assert it.curl("GET", "/../state/token", token=False)[0] == 404


def held_connections(it):
    """More connections than there may be, all of them silent or slow: closed at the deadline, and the service goes on."""
    it.stop()
    it.start("--connections", "256")
    host, port = urllib.parse.urlsplit(it.url).netloc.split(":")
    crowd = []
    for i in range(300):
        connection = socket.create_connection((host, int(port)), timeout=5)
        if i % 2:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        crowd.append(connection)
    start = time.monotonic()
    assert it.curl("GET", "/healthz")[0] == 200
    assert time.monotonic() - start < 20
    for connection in crowd:
        connection.close()
    closed = re.search(r"^hebb_http_timeouts_total (\d+)$", it.curl("GET", "/metrics")[2].decode(), re.M)
    assert int(closed.group(1)) >= 45, closed


with service() as hebb:
    text = corpus(hebb)
    refused(hebb, text)
    dry_run(hebb, text)
    first = idempotent(hebb, text)
    history(hebb, first)
    logs(hebb, first)
    actions(hebb, text)
    about(hebb)
    held_connections(hebb)
print("every route answers")
