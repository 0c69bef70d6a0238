"""What is sent to harm: malformed HTTP, texts that are almost JSON, jobs made to escape or to overflow. Every one gets a 4xx (or a
closed connection, for what is not HTTP), nothing is started, and the daemon answers as before."""
import itertools
import json
import socket
import urllib.parse

from service import corpus, service, tiny_job


def raw(address, data):
    """The status of the answer to these bytes, 0 if the connection was closed without one."""
    with socket.create_connection(address, timeout=15) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while b"\r\n" not in answer:
                piece = connection.recv(65536)
                if not piece:
                    break
                answer += piece
        except (ConnectionResetError, BrokenPipeError):
            return 0
    return int(answer.split()[1]) if answer.startswith(b"HTTP/1.") else 0


def malformed(it):
    """Over 200 requests of which none may succeed."""
    head = f"Host: localhost\r\nAuthorization: Bearer {it.token}\r\nConnection: close\r\n".encode()
    url = urllib.parse.urlsplit(it.url)
    texts = []
    for line in (b"Host: localhost", b"Content-Length: 3\r\nContent-Length: 4", b"Content-Length: 3\r\nContent-Length: 3",
                 b"Content-Length: 3\r\nTransfer-Encoding: chunked", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
                 b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked, identity", b"Content-Length: -1", b"Content-Length: +3",
                 b"Content-Length: 0x3", b"Content-Length: 3 3", b"Content-Length: 99999999999999999999", b"Content-Length: ",
                 b"Authorization: Bearer x", b"X: a\x00b", b"X: a\x01b", b"X: a\x7fb", b"X\x00: a", b"X Y: a", b"(X): a",
                 b"X: a\nY: b", b"Host: evil.example"):
        for method, path, body in ((b"GET", b"/v1/jobs", b""), (b"POST", b"/v1/jobs", b"{}\n"), (b"POST", b"/v1/jobs/cancel", b"{}\n"),
                                   (b"PATCH", b"/v1/jobs/0000000000000001", b"{}\n"), (b"DELETE", b"/v1/tokens/x", b"")):
            texts.append(method + b" " + path + b" HTTP/1.1\r\n" + head + line + b"\r\n\r\n" + body)
    for path in (b"/v1/jobs%00", b"/v1/jobs%", b"/v1/jobs%0", b"/v1/jobs%zz", b"/v1/jobs%0a", b"/v1/jobs\x00x", b"/v1/jobs?limit=%00",
                 b"/v1/jobs?limit=%", b"/v1/jobs?limit=0", b"/v1/jobs?limit=-1", b"/v1/jobs?limit=1&limit=1", b"/v1/jobs?x=1", b"/v1/jobs/",
                 b"//v1/jobs", b"/v1//jobs", b"/v1/jobs/..", b"/v1/../etc/passwd", b"/%2e%2e/%2e%2e/etc/passwd", b"http://evil.example/v1/jobs",
                 b"*", b"v1/jobs", b"/" + b"a" * 3000, b"/v1/jobs?name=" + b"a" * 3000, b"/v1/jobs?name=" + b"a" * 300, b"/v1/jobs/zz",
                 b"/v1/jobs/0000000000000001%2fcancel", b"/v1/jobs?after=9223372036854775808", b"/v1/jobs?name=%ff",
                 b"/v1/jobs/0000000000000000", b"/v1/jobs/0000000000000000/log", b"/v1/jobs/0000000000000000/events"):
        for version in (b"HTTP/1.1", b"HTTP/1.0"):
            texts.append(b"GET " + path + b" " + version + b"\r\n" + head + b"\r\n")
    for start in (b"GET /v1/jobs HTTP/2.0", b"GET /v1/jobs HTTP/3", b"GET /v1/jobs HTTP/11", b"GET /v1/jobs HTTP/1.1.1", b"GET /v1/jobs HTTP/0.9", b"GET /v1/jobs http/1.1", b"GET /v1/jobs FTP/1.1", b"GET /v1/jobs HTTP/1.1x",
                  b"GET /v1/jobs", b"GET", b"", b"\x00", b"\x16\x03\x01\x02\x00", b"G\x00T / HTTP/1.1",
                  b"PRI * HTTP/2.0", b"PUT /v1/jobs HTTP/1.1", b"TRACE /v1/jobs HTTP/1.1", b"CONNECT localhost:22 HTTP/1.1", b"OPTIONS * HTTP/1.1",
                  b"get /v1/jobs HTTP/1.1", b"A" * 5000 + b" / HTTP/1.1"):
        texts.append(start + b"\r\n" + head + b"\r\n")
    for body in (b"zz\r\n{}\r\n0\r\n\r\n", b"2\r\n{}x\r\n0\r\n\r\n", b"ffffffffffffffffff\r\n{}\r\n", b"-1\r\n{}\r\n", b"2\n{}\n0\n\n", b"2\r\n{}"):
        texts.append(b"POST /v1/jobs HTTP/1.1\r\n" + head + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    texts.append(b"GET /v1/jobs HTTP/1.1\r\n" + head + b"".join(b"X-%d: y\r\n" % i for i in range(100)) + b"\r\n")
    texts.append(b"GET /v1/jobs HTTP/1.1\r\n" + head + b"X: " + b"y" * 60000 + b"\r\n\r\n")
    texts.append(b"GET /v1/jobs HTTP/1.1\r\nAuthorization: Bearer x\r\n\r\n")
    assert len(texts) >= 200, len(texts)
    statuses, taken = {}, []
    for text in texts:
        status = raw((url.hostname, url.port), text)
        # GET with a Content-Length of 3 and no body is not whole: closed without an answer
        if not (status == 0 or 400 <= status < 500 or status in (501, 505)):
            taken.append((status, text[:120]))
        statuses[status] = statuses.get(status, 0) + 1
    assert not taken, taken
    return len(texts), statuses


VALID = ["{}", " {} ", "\t{\n}\r\n", "[]", "[1]", "[1,2]", "1", "-0", "0.5", "1e5", "1E-5", "-1.5e+3", "\"\"", "\"a\"", "\"\\u00e9\"", "\"\\ud83d\\ude00\"",
         "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"é😀\"", "true", "false", "null", "[[[[[]]]]]", "{\"a\":{\"b\":[null]}}", "{\"\":1}", "[\"\u2028\"]", "1e-400",
         "123456789012345678901234567890"]
INVALID = ["", " ", "{", "}", "[", "]", "[1,]", "[,1]", "[1 2]", "{,}", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", "{'a':1}", "{\"a\":1 \"b\":2}", "{1:1}",
           "01", "-01", "+1", ".5", "5.", "1e", "1e+", "--1", "1.2.3", "0x10", "1e999", "-1e999", "NaN", "Infinity", "-Infinity", "nan", "True", "nul", "truee",
           "\"", "\"a", "\"\\x\"", "\"\\u12\"", "\"\\u12G4\"", "\"\\ud800\"", "\"\\udc00\\ud800\"", "\"\\u0000\"", "\"a\nb\"", "\"a\tb\"", "\"\x01\"", "'a'",
           "[1]x", "{} {}", "{}{}", "1 2", "//c\n{}", "/*c*/{}", "[1]//c", "\ufeff{}", "{\"a\":1,\"a\":2}", "{\"a\":1,\"\\u0061\":2}", "[" * 17 + "]" * 17,
           "[" * 5000, "{\"a\":" * 17 + "1" + "}" * 17, "[1,\n2,\n}", "\x0c{}", "\xa0{}", "{\"a\":\"b\"", "[\"a\",\"b]", "1_000", "1,000", "$", "\\u0031", "[\"\\",
           "tru", "-", "- 1", "[-]", "{\"a\"::1}", "{\"a\":1:2}", "[1;2]", "<x/>"]
BYTES = [b"\"\xff\"", b"\"\xc0\x80\"", b"\"\xed\xa0\x80\"", b"\"\xf4\x90\x80\x80\"", b"\"\xe2\x82\"", b"{}\x00", b"\x00{}", b"\xff\xfe{\x00}\x00", b"\"\xf8\x88\x80\x80\x80\""]


def almost_json(it):
    """A PATCH with these bodies: 400 with a line and column for what is no JSON, something else for what is."""
    url = urllib.parse.urlsplit(it.url)
    path = "/v1/jobs/0000000000000000"

    def send(body):
        with socket.create_connection((url.hostname, url.port), timeout=15) as connection:
            connection.sendall(f"PATCH {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {it.token}\r\nConnection: close\r\n"
                               f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
        return int(answer.split()[1]), json.loads(answer.partition(b"\r\n\r\n")[2])

    for text in VALID:
        status, problem = send(text.encode())
        assert problem["code"] != "invalid_json", (text, problem)
    for text in [t.encode() for t in INVALID] + BYTES:
        status, problem = send(text)
        assert status == 400 and problem["code"] == "invalid_json", (text, status, problem)
        assert "line " in problem["detail"] and " column " in problem["detail"] or "duplicate" in problem["detail"], (text, problem)
    return len(VALID), len(INVALID) + len(BYTES)


EVIL_PATHS = ["/etc/passwd", "../../etc/passwd", "..", "./..", "/", "//etc/passwd", "/proc/self/environ", "/dev/zero", "/dev/stdin", "~/.ssh/id_rsa", "$(id)", "`id`",
              "; id", "| id", "&& id", "a\nb", "-rf", "--app", "file:///etc/passwd", "http://evil.example/", "%2e%2e/x", "..\\x", "link", "link/passwd",
              "corpus.txt/..", "corpus.txt/../../state/token", "*/../*", "[", "{a,b}", "**/*", "*" * 200, "x" * 4095, "x" * 4096, "a/" * 2000, "\u202e", "nul\x00"]
EVIL_NUMBERS = [0, -1, 0.5, 1e308, 1e18, 9007199254740993, -9007199254740993, 2**31, 2**32, 2**63, 2**64, "1", "", None, True, [], {}, [1], "NaN"]
EVIL_WORDS = ["", "x" * 129, "x" * 5000, "a\x1b[31m", "a\nb", "../x", "$(reboot)", "\u0000", 7, None, [], {}, True, "-x", "--oversubscribe", "cuda; id", "LOCAL", "local "]


def hostile_jobs(it, path):
    """Over 500 jobs of which none may be taken."""
    good, jobs = tiny_job(path), []

    def put(section, key, value):
        job = json.loads(json.dumps(good))
        (job if section is None else job.setdefault(section, {}))[key] = value
        jobs.append(job)

    for value in EVIL_PATHS:
        for section, key in (("data", "train"), ("data", "validation"), ("model", "init_from")):
            put(section, key, [value])
    for section, key in (("model", "hidden"), ("model", "intermediate"), ("model", "layers"), ("model", "heads"), ("model", "vocab"), ("model", "context"),
                         ("sparsity", "n"), ("sparsity", "m"), ("sparsity", "refresh_interval"), ("train", "steps"), ("train", "batch"),
                         ("resources", "ranks"), ("resources", "threads")):
        for value in EVIL_NUMBERS:
            put(section, key, value)
    for section, key in (("sparsity", "method"), ("sparsity", "layout"), ("optimizer", "name"), ("adapter", "name"), ("data", "tokenizer"), ("data", "format"),
                         ("resources", "launcher"), ("resources", "device"), ("train", "seed"), ("model", "preset")):
        for value in EVIL_WORDS:
            put(section, key, value)
    for key in ("__proto__", "spec", "argv", "env", "LD_PRELOAD", "launcher", "command", "Name", "name ", "", "data.train", "a/b", "$schema"):
        for value in (1, "x", {"a": 1}, None):
            put(None, key, value)
    put("model", "hidden", 65536), jobs[-1]["model"].update(layers=512, intermediate=262144, vocab=16777216)
    put("resources", "ranks", 64)
    assert len(jobs) >= 500, len(jobs)
    accepted = []
    for job in jobs:
        status, _, body = post(it, json.dumps(job).encode())
        if 200 <= status < 300:
            accepted.append(job)
        else:
            assert 400 <= status < 500, (status, job, body[:300])
            assert json.loads(body)["detail"], body
    assert not accepted, (len(accepted), accepted[:3])
    return len(jobs)


def post(it, body):
    url = urllib.parse.urlsplit(it.url)
    with socket.create_connection((url.hostname, url.port), timeout=15) as connection:
        connection.sendall(f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {it.token}\r\nConnection: close\r\n"
                           f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return int(answer.split()[1]), None, answer.partition(b"\r\n\r\n")[2]


with service() as hebb:
    text = corpus(hebb, lines=100)
    (hebb.data / "link").symlink_to("/etc")
    print("malformed requests", malformed(hebb))
    print("texts (valid, invalid)", almost_json(hebb))
    print("hostile jobs", hostile_jobs(hebb, text))
    assert hebb.json("GET", "/v1/jobs")["jobs"] == [] and hebb.json("GET", "/readyz")["ready"] is True
print("nothing came through")
