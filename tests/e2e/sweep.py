"""hebb sweep and hebb compare against a real daemon and in folders: interrupted, resumed, the table against the events."""
import csv
import io
import json
import math
import os
import signal
import statistics
import subprocess
import time

from service import corpus, service, tiny_job

METHODS, SEEDS, TOLERANCE = ("static", "set"), ("1", "2"), 1e-9


class Cli:
    def __init__(self, hebb):
        self.program = hebb.binaries / "hebb"
        self.environment = {"PATH": os.environ["PATH"], "HEBB_URL": hebb.url, "HEBB_STATE": str(hebb.state)}

    def start(self, *words):
        return subprocess.Popen([self.program, *map(str, words)], env=self.environment, text=True,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run(self, *words, code=0):
        process = self.start(*words)
        out, messages = process.communicate(timeout=150)
        assert process.returncode == code, f"hebb {words}: {process.returncode}\n{out}\n{messages}"
        return out, messages


def sweep_of(path, name, steps=40, methods=METHODS, seeds=SEEDS, **more):
    base = tiny_job(path, steps=steps)
    base["resources"]["ranks"] = 1
    del base["sparsity"]["refresh_interval"]
    base.pop("name")
    return {"name": name, "base": base, "grid": {"/sparsity/method": list(methods)}, "seeds": list(seeds), **more}


def jobs_of(hebb, name):
    return [j for j in hebb.json("GET", "/v1/jobs?limit=500")["jobs"] if j["name"].startswith(name + "/")]


def expected(events):
    """A run's numbers by another way than ours: the last line of each step counts."""
    steps = {e["step"]: e for e in events if e["type"] == "step"}
    evals = {e["step"]: e["loss"] for e in events if e["type"] == "eval"}
    refreshes = {e["step"]: e for e in events if e["type"] == "refresh"}
    return {"final_loss": evals[max(evals)], "best_loss": min(evals.values()),
            "tokens_per_s": statistics.median(e["tokens_per_s"] for e in steps.values()),
            "refresh_share": sum(e["ms"] for e in refreshes.values()) / sum(e["step_ms"] for e in steps.values()),
            "flip_rate": statistics.mean(statistics.mean(m["flip_rate"] for m in e["layers"])
                                         for e in refreshes.values()) if refreshes else None,
            "step": max(steps), "tokens": steps[max(steps)]["tokens"]}


def same(ours, want, what):
    for key, value in want.items():
        equal = ours[key] == value or math.isclose(ours[key], value, rel_tol=TOLERANCE)
        assert equal, f"{what}: {key} is {ours[key]}, not {value}"


def check_arm(hebb, arm, method, runs):
    rows = [expected(hebb.events(r["id"])) for r in runs]
    for run, row in zip(runs, rows):
        same(run, row, f"{method} seed {run['seed']}")
        assert run["state"] == "succeeded" and run["method"] == method, run
    losses = [row["final_loss"] for row in rows]
    assert losses[0] != losses[1]
    same(arm["loss"], {"mean": statistics.mean(losses), "sd": statistics.stdev(losses)}, method)
    perplexities = [math.exp(x) for x in losses]
    same(arm["perplexity"], {"mean": statistics.mean(perplexities), "sd": statistics.stdev(perplexities)}, method)
    same(arm["best_loss"], {"mean": statistics.mean(row["best_loss"] for row in rows)}, method)
    same(arm, {"tokens_per_s": statistics.mean(row["tokens_per_s"] for row in rows)}, method)
    job = hebb.json("GET", f"/v1/jobs/{runs[0]['id']}")
    dry = hebb.json("POST", "/v1/jobs?dry_run=1", job["spec"])["estimate"]
    same(arm, {"parameters": dry["active_parameters"], "flops_per_token": dry["flops_per_token"], "runs": 2,
               "flops_share": dry["flops_per_token"] / dry["flops_per_token_dense"], "succeeded": 2,
               "train_flops": dry["flops_per_token"] * dry["tokens"]}, method)
    return losses


def resumed(hebb, cli, path):
    """Interrupted in the middle, called again: every job once, and the numbers of the events."""
    file = hebb.folder / "sweep.json"
    file.write_text(json.dumps(sweep_of(path, "two", steps=150)))
    listing = cli.run("sweep", file, "--dry-run")[0]
    assert "method=static" in listing and "2 arms, 2 seeds, 4 runs" in listing and not jobs_of(hebb, "two"), listing
    process = cli.start("sweep", file)
    assert "4 runs are submitted" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    messages = process.communicate(timeout=30)[1]
    assert process.returncode == 130 and "The same command goes on" in messages, messages
    ids = {j["id"] for j in jobs_of(hebb, "two")}
    assert len(ids) == 4
    out, messages = cli.run("sweep", file, "--csv", hebb.folder / "t.csv", "--json", hebb.folder / "t.json")
    assert {j["id"] for j in jobs_of(hebb, "two")} == ids
    assert "[4/4] method=" in messages, messages
    whole = json.loads((hebb.folder / "t.json").read_text())
    lines = out.splitlines()
    table = {row["arm"]: row for row in csv.DictReader(io.StringIO((hebb.folder / "t.csv").read_text()))}
    assert [a["arm"] for a in whole["arms"]] == ["method=static", "method=set"] == list(table)
    assert {r["id"] for r in whole["runs"]} == ids
    for arm, method, line in zip(whole["arms"], METHODS, lines[1:]):
        runs = [r for r in whole["runs"] if r["arm"] == arm["arm"]]
        assert [r["seed"] for r in runs] == ["1", "2"]
        losses = check_arm(hebb, arm, method, runs)
        assert f"{statistics.mean(losses):.4f} +- {statistics.stdev(losses):.4f}" in line and " 2/2 " in line, out
        same({k: float(v) for k, v in table[arm["arm"]].items() if k not in ("arm", "tuned")},
             {"loss_mean": arm["loss"]["mean"], "loss_sd": arm["loss"]["sd"], "parameters": arm["parameters"],
              "train_flops": arm["train_flops"], "perplexity_sd": arm["perplexity"]["sd"]}, "csv")
    assert cli.run("sweep", file)[0] == out  # all done: the same table at once
    changed = sweep_of(path, "two", steps=150)
    changed["base"]["optimizer"]["lr"] = 0.001
    file.write_text(json.dumps(changed))
    assert "give the changed sweep another name" in cli.run("sweep", file, code=2)[1]
    assert {j["id"] for j in jobs_of(hebb, "two")} == ids
    return whole["runs"]


def compared(hebb, cli, runs):
    """A job by its id and by its folder: the same row; the specs' differences."""
    a, b = runs[0]["id"], runs[3]["id"]
    answer = json.loads(cli.run("compare", a, hebb.state / "jobs" / b, "--json")[0])
    for row, run in zip(answer["jobs"], (runs[0], runs[3])):
        same(row, {k: v for k, v in run.items() if k not in ("id", "arm", "seed", "reason")}, "compare")
    differences = {d["field"]: d["values"] for d in answer["differences"]}
    assert differences["/sparsity/method"] == ["static", "set"] and differences["/train/seed"] == ["1", "2"], differences
    assert differences["/sparsity/zeta"] == [None, 0.1] and "/train/steps" not in differences, differences
    text = cli.run("compare", a, b)[0]
    assert "validation loss" in text and f"{runs[3]['final_loss']:.4f}" in text and "/sparsity/method" in text, text
    rows = list(csv.DictReader(io.StringIO(cli.run("compare", "--csv", a, b)[0])))
    assert float(rows[1]["final_loss"]) == runs[3]["final_loss"] and rows[0]["flip_rate"] == "", rows
    cli.run("compare", "0" * 16, code=2)
    cli.run("compare", hebb.folder, code=3)


def failed(hebb, cli, path):
    """An arm fails: it is named, the table is there, and --retry runs it again."""
    bad = hebb.data / "bad.txt"
    bad.write_bytes(b"\0" * 5000)
    file = hebb.folder / "failing.json"
    sweep = sweep_of(path, "failing", seeds=["7"], methods=["static"],
                     arms=[{"name": "good", "set": {}}, {"name": "bad, \"data\"", "set": {"/data/train": [str(bad)]}}])
    file.write_text(json.dumps(sweep))
    out, messages = cli.run("sweep", file, "--csv", hebb.folder / "f.csv", code=1)
    assert "hebb: bad, \"data\", method=static, seed 7: failed" in messages, messages
    rows = list(csv.DictReader(io.StringIO((hebb.folder / "f.csv").read_text())))
    assert [r["succeeded"] for r in rows] == ["1", "0"] and rows[1]["loss_mean"] == "" and rows[0]["loss_sd"] == "", rows
    assert rows[1]["arm"] == "bad, \"data\", method=static" and " 0/1 " in out.splitlines()[2], out
    bad.write_text(path.read_text())
    cli.run("sweep", file, code=1)
    for _ in range(2):
        assert " 1/1 " in cli.run("sweep", file, "--retry")[0].splitlines()[2]
        assert len(jobs_of(hebb, "failing")) == 3


def faulty(hebb, cli, path):
    """Every fault of every job at once, and nothing is started."""
    file = hebb.folder / "faulty.json"
    before = len(hebb.json("GET", "/v1/jobs?limit=500")["jobs"])
    sweep = sweep_of(path, "faulty", methods=["static", "sett"])
    sweep["base"]["train"]["steps"] = 0
    file.write_text(json.dumps(sweep))
    messages = cli.run("sweep", file, code=2)[1]
    assert "method=static, seed 1: /train/steps: must be" in messages and "(and in 3 more)" in messages, messages
    assert "method=sett, seed 1: /sparsity/method: must be one of" in messages, messages
    sweep = sweep_of(path, "faulty")
    sweep["base"]["data"]["train"] = ["/etc/passwd"]  # only the daemon knows its data roots
    file.write_text(json.dumps(sweep))
    messages = cli.run("sweep", file, code=2)[1]
    assert "/data/train" in messages and "nothing was started" in messages, messages
    assert len(hebb.json("GET", "/v1/jobs?limit=500")["jobs"]) == before
    cli.run("sweep", file, "--url", "http://127.0.0.1:1", code=4)


def tuned(hebb, cli, path):
    """Each arm goes on with the learning rate that was best for it in runs of another seed."""
    file, rates = hebb.folder / "tuned.json", [0.0001, 0.003, 0.01]
    sweep = sweep_of(path, "tuned", methods=["static"], seeds=["1"],
                     tune={"grid": {"/optimizer/lr": rates}, "seed": "9", "set": {"/train/steps": 20}})
    file.write_text(json.dumps(sweep))
    assert "4 runs with those that tune" in cli.run("sweep", file, "--dry-run")[0]
    out, messages = cli.run("sweep", file, "--json", hebb.folder / "tuned-table.json")
    whole = json.loads((hebb.folder / "tuned-table.json").read_text())
    assert [r["steps"] for r in whole["tuning"]] == [20] * 3 and len(whole["runs"]) == 1, whole
    losses = [expected(hebb.events(r["id"]))["final_loss"] for r in whole["tuning"]]
    best = rates[losses.index(min(losses))]
    assert best != rates[0] and whole["arms"][0]["tuned"] == {"/optimizer/lr": best}, (losses, whole)
    spec = hebb.json("GET", f"/v1/jobs/{whole['runs'][0]['id']}")["spec"]
    assert spec["optimizer"]["lr"] == best and spec["train"]["steps"] == 40, spec
    assert f"tuned to lr={best}" in messages and out.splitlines()[1].endswith(f"lr={best}"), (out, messages)
    assert cli.run("sweep", file)[0] == out and len(jobs_of(hebb, "tuned")) == 4


def local(hebb, cli, path):
    """Without the daemon: ctrl-C saves and leaves, the same command goes on."""
    file, folder = hebb.folder / "local.json", hebb.folder / "local"
    sweep = sweep_of(path, "local", steps=400, seeds=["1"])
    file.write_text(json.dumps(sweep))
    words = ("sweep", file, "--local", folder, "--json", hebb.folder / "l.json")
    process = cli.start(*words)
    first = folder / "method=static-seed-1"
    for _ in range(400):
        if (first / "events.jsonl").exists() and '"type":"step"' in (first / "events.jsonl").read_text():
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    messages = process.communicate(timeout=60)[1]
    assert process.returncode == 75 and "stopped; the same command goes on" in messages, messages
    cli.run(*words)
    whole = json.loads((hebb.folder / "l.json").read_text())
    assert [r["id"] for r in whole["runs"]] == [str(first), str(folder / "method=set-seed-1")], whole
    for run in whole["runs"]:
        text = (hebb.folder / run["id"] / "events.jsonl").read_text()
        same(run, expected([json.loads(line) for line in text.splitlines()]), run["id"])
    assert (first / "attempt-2").exists() and whole["arms"][0]["loss"]["sd"] is None


def main():
    with service() as hebb:
        cli = Cli(hebb)
        path = corpus(hebb)
        runs = resumed(hebb, cli, path)
        compared(hebb, cli, runs)
        failed(hebb, cli, path)
        faulty(hebb, cli, path)
        tuned(hebb, cli, path)
        local(hebb, cli, path)
    print("sweep: ok")


main()
