"""The administrator's side of a real daemon: configuration file and SIGHUP, Unix socket, tokens, webhooks that outlive a
restart, backup while jobs run, downloads, and what public tools say of the OpenAPI document and the metrics."""
import base64
import hashlib
import hmac
import http.server
import json
import os
import signal
import socket
import sqlite3
import subprocess
import threading
import time

import openapi_spec_validator
from prometheus_client.parser import text_string_to_metric_families
from service import corpus, service, tiny_job


class Receiver:
    """Takes webhooks; answers 500 to the first `bad` of them."""

    def __init__(self, bad=0, port=0):
        self.got, self.bad, outer = [], bad, self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                good = outer.bad <= 0
                outer.bad -= 1
                if good:
                    outer.got.append((dict(self.headers), body))
                self.send_response(200 if good else 500)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def wait(self, count, seconds=30):
        end = time.monotonic() + seconds
        while time.monotonic() < end and len(self.got) < count:
            time.sleep(0.05)
        assert len(self.got) >= count, [body for _, body in self.got]


def hebb(it, *arguments, url=None, code=0):
    done = subprocess.run([it.binaries / "hebb", *arguments], capture_output=True, text=True, timeout=60,
                          env={"PATH": os.environ["PATH"], "HEBB_STATE": str(it.state), "HEBB_URL": url or it.url})
    assert done.returncode == code, done
    return done.stdout


def options(it, **more):
    """Writes hebbd.json and says how to start with it."""
    path = it.folder / "hebbd.json"
    path.write_text(json.dumps({"webhook_private": True, "socket": str(it.folder / "hebbd.sock"), **more}))
    return "--config", str(path)


def reload(it):
    """SIGHUP takes over a good file, keeps the old values on a bad one, and never stops the daemon."""
    assert it.json("GET", "/readyz")["slots"]["cores"] == 2
    options(it, cores=3, webhook_urls=["http://127.0.0.1:1/"])
    it.process.send_signal(signal.SIGHUP)
    for _ in range(100):
        if it.json("GET", "/readyz")["slots"]["cores"] == 3:
            break
        time.sleep(0.05)
    assert it.json("GET", "/readyz")["slots"]["cores"] == 3
    options(it, cores=-1)
    it.process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert it.json("GET", "/readyz")["slots"]["cores"] == 3
    check = subprocess.run([it.binaries / "hebbd", "--check-config", "--state", it.state, *options(it, cores=-1, core=1)],
                           capture_output=True, text=True)
    assert check.returncode == 2 and "/cores" in check.stderr and "/core:" in check.stderr, check
    check = subprocess.run([it.binaries / "hebbd", "--check-config", "--state", it.state, *options(it, cores=2)],
                           capture_output=True, text=True)
    assert check.returncode == 0, check


def unix_socket(it):
    path = it.folder / "hebbd.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    answer = subprocess.run(["curl", "-sS", "--unix-socket", path, "http://localhost/v1/audit"], capture_output=True,
                            check=True).stdout
    assert "events" in json.loads(answer)
    assert hebb(it, "token", "list", url=f"unix:{path}") == ""
    refused = subprocess.run(["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket", path,
                              "http://evil.example/v1/jobs"], capture_output=True, check=True).stdout
    assert refused == b"403", refused


def tokens(it):
    token = hebb(it, "token", "add", "ci", "--role", "read").strip()
    assert len(token) == 64 and token not in hebb(it, "token", "list")
    header = (f"Authorization: Bearer {token}",)
    assert it.curl("GET", "/v1/jobs", token=False, headers=header)[0] == 200
    assert it.curl("POST", "/v1/jobs", {}, token=False, headers=header)[0] == 403
    it.stop()
    it.start(*options(it, cores=2))
    assert it.curl("GET", "/v1/jobs", token=False, headers=header)[0] == 200
    hebb(it, "token", "revoke", "ci")
    assert it.curl("GET", "/v1/jobs", token=False, headers=header)[0] == 401
    hebb(it, "token", "add", "bad name", code=2)


def webhooks(it, path):
    """Signed, in order, retried, and none lost over a kill of the daemon while the receiver is away."""
    receiver = Receiver(bad=2)
    port = receiver.port
    it.stop()
    it.start(*options(it, cores=2, webhook_urls=[f"http://127.0.0.1:{port}/hooks/"]))
    for url in ("http://127.0.0.1:1/hooks/x", f"http://127.0.0.1:{port}/other", f"https://127.0.0.1:{port}/hooks/",
                f"http://127.0.0.1:{port}/hooks/../x", f"http://a@127.0.0.1:{port}/hooks/", "file:///etc/passwd", "x"):
        problem = it.json("POST", "/v1/webhooks", {"name": "w", "url": url}, want=(422,))
        assert [e["field"] for e in problem["errors"]] == ["/url"], problem
    made = it.json("POST", "/v1/webhooks", {"name": "ci", "url": f"http://127.0.0.1:{port}/hooks/ci",
                                            "states": ["queued", "running", "succeeded"]})
    secret = base64.b64decode(made["secret"].removeprefix("whsec_"))
    job = it.json("POST", "/v1/jobs", tiny_job(path, steps=20))["id"]
    it.wait(job, ("succeeded",))
    receiver.wait(3)
    for headers, body in receiver.got:
        text = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        want = base64.b64encode(hmac.new(secret, text, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == "v1," + want
    states = [json.loads(body)["data"]["state"] for _, body in receiver.got]
    assert states == ["queued", "running", "succeeded"], states
    assert json.loads(receiver.got[0][1])["data"]["job"] == job
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 3
    receiver.close()
    second = it.json("POST", "/v1/jobs", tiny_job(path, steps=5))["id"]
    it.wait(second, ("succeeded",))
    it.stop(signal.SIGKILL)
    receiver = Receiver(port=port)
    it.start(*options(it, cores=2, webhook_urls=[f"http://127.0.0.1:{port}/hooks/"]))
    receiver.wait(3)
    assert [json.loads(b)["data"]["state"] for _, b in receiver.got] == ["queued", "running", "succeeded"]
    assert {json.loads(b)["data"]["job"] for _, b in receiver.got} == {second}
    for _ in range(200):  # the answer must come back before the row goes
        listed = it.json("GET", "/v1/webhooks")["webhooks"]
        if listed[0]["pending"] == 0:
            break
        time.sleep(0.05)
    assert listed[0]["pending"] == 0 and "secret" not in listed[0], listed
    # without webhook_private the same address is refused at the moment of connecting
    it.stop()
    it.start(*options(it, cores=2, webhook_private=False, webhook_urls=[f"http://localhost:{port}/"]))
    it.json("DELETE", "/v1/webhooks/ci")
    it.json("POST", "/v1/webhooks", {"name": "inside", "url": f"http://localhost:{port}/"})
    got = len(receiver.got)
    it.json("POST", f"/v1/jobs/{it.json('POST', '/v1/jobs', tiny_job(path, steps=100000))['id']}/cancel")
    for _ in range(200):
        listed = it.json("GET", "/v1/webhooks")["webhooks"]
        if listed[0]["trouble"]:
            break
        time.sleep(0.05)
    assert "private" in listed[0]["trouble"] and len(receiver.got) == got, listed
    it.json("DELETE", "/v1/webhooks/inside")
    receiver.close()
    return job


def backup(it, path):
    """While a job writes; the copy holds it and is whole."""
    job = it.json("POST", "/v1/jobs", tiny_job(path, steps=100000, eval_every=0, checkpoint_every=0))["id"]
    it.wait(job, ("running",))
    folder = it.folder / "backup"
    hebb(it, "backup", str(folder), "--state", str(it.state))
    hebb(it, "backup", str(folder), "--state", str(it.state), code=1)
    with sqlite3.connect(folder / "state.db") as copy:
        assert copy.execute("SELECT count(*) FROM jobs WHERE id=?", (job,)).fetchone() == (1,)
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with sqlite3.connect(folder / "series.db") as copy:
        assert copy.execute("SELECT count(*) FROM events").fetchone()[0] > 0
    assert it.curl("POST", f"/v1/jobs/{job}/cancel")[0] == 202
    it.wait(job, ("cancelled",))
    it.stop()
    for name in ("state.db", "series.db"):
        for suffix in ("-wal", "-shm"):
            (it.state / (name + suffix)).unlink(missing_ok=True)
        (it.state / name).write_bytes((folder / name).read_bytes())
    it.start(*options(it, cores=2))
    it.wait(job, ("cancelled", "failed", "retry_wait", "running", "queued"))
    it.curl("POST", f"/v1/jobs/{job}/cancel")
    it.wait(job, ("cancelled", "failed"))


def downloads(it, job):
    folder = it.state / "jobs" / job
    steps = it.json("GET", f"/v1/jobs/{job}/checkpoints")["checkpoints"]
    files = it.json("GET", f"/v1/jobs/{job}/checkpoints/{steps[-1]['step']}")["files"]
    assert {"manifest.json"} < {f["name"] for f in files}
    for file in files:
        path = f"/v1/jobs/{job}/checkpoints/{steps[-1]['step']}/{file['name']}"
        whole = (folder / steps[-1]["path"] / file["name"]).read_bytes()
        assert len(whole) == file["bytes"] and it.curl("GET", path)[2] == whole
        middle = it.curl("GET", path, headers=("Range: bytes=1-9",))
        assert middle[0] == 206 and middle[2] == whole[1:10]
    for file in it.json("GET", f"/v1/jobs/{job}/model")["files"]:
        assert it.curl("GET", f"/v1/jobs/{job}/model/{file['name']}")[2] == (folder / "model" / file["name"]).read_bytes()
    attempts = it.json("GET", f"/v1/jobs/{job}/attempts")["attempts"]
    assert [a["attempt"] for a in attempts] == [1] and attempts[0]["code"] == 0, attempts


def public_tools(it):
    openapi_spec_validator.validate(it.json("GET", "/v1/openapi.json"))
    families = list(text_string_to_metric_families(it.curl("GET", "/metrics")[2].decode()))
    names = {f.name for f in families}
    assert {"hebb_jobs", "hebb_slots", "hebb_http_requests", "hebb_webhook_deliveries"} <= names, names
    assert all(f.documentation and f.type in ("gauge", "counter") for f in families)
    assert len(families) == len(names)


def drained(it, path):
    """A drain starts nothing, over a restart too; what runs goes on."""
    assert it.json("POST", "/v1/drain", {"draining": True})["draining"] is True
    job = it.json("POST", "/v1/jobs", tiny_job(path, steps=5))["id"]
    it.stop()
    it.start(*options(it, cores=2))
    assert it.curl("GET", "/readyz")[0] == 503
    time.sleep(1)
    assert it.json("GET", f"/v1/jobs/{job}")["state"] == "queued"
    it.json("POST", "/v1/drain", {"draining": False})
    it.wait(job, ("succeeded",))


def stale_socket(it):
    """A socket file that a killed daemon left is replaced."""
    it.stop(signal.SIGKILL)
    path = it.folder / "hebbd.sock"
    assert path.is_socket()
    it.start(*options(it, cores=2))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
    it.stop()
    assert not path.exists()
    it.start(*options(it, cores=2))


with service() as daemon:
    daemon.stop()
    daemon.start(*options(daemon, cores=2))
    text = corpus(daemon, lines=1000)
    unix_socket(daemon)
    tokens(daemon)
    reload(daemon)
    first = webhooks(daemon, text)
    downloads(daemon, first)
    public_tools(daemon)
    drained(daemon, text)
    stale_socket(daemon)
    backup(daemon, text)
print("the administrator's side holds")
