"""The whole path with curl alone: submit, follow, fetch, and a reader that is not ours on the result."""
import json

import numpy
import safetensors

from service import corpus, service, tiny_job

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def check_model(folder, layers):
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"] and config["num_hidden_layers"] == layers, config
    with safetensors.safe_open(folder / "model.safetensors", "numpy") as model:
        names = list(model.keys())
        targets = [n for n in names if any(f".{t}.weight" in n for t in TARGETS)]
        assert len(targets) == 7 * layers, names
        for name in targets:
            active = (model.get_tensor(name) != 0).reshape(model.get_slice(name).get_shape()[0], -1, 4)
            counts = active.sum(axis=2)
            assert counts.max() == 1 and counts.min() == 1, f"{name}: {numpy.unique(counts, return_counts=True)}"


def main():
    with service() as hebb:
        path = corpus(hebb)
        dry = hebb.json("POST", "/v1/jobs?dry_run=1", tiny_job(path))
        assert dry["estimate"]["active_parameters"] < dry["estimate"]["parameters"], dry
        assert hebb.json("GET", "/v1/jobs")["jobs"] == []

        status, headers, body = hebb.curl("POST", "/v1/jobs", tiny_job(path))
        assert status == 201, body
        job = json.loads(body)["id"]
        assert headers["location"] == f"/v1/jobs/{job}", headers
        row = hebb.wait(job)
        assert row["state"] == "succeeded", hebb.report(job, row)

        series = hebb.json("GET", f"/v1/jobs/{job}/series?keys=loss,eval_loss&points=500")
        assert series["step"] == list(range(1, 61)), series["step"]
        assert series["loss"][-1] < 0.6 * series["loss"][0], series["loss"]
        assert series["eval_step"] == [20, 40, 60], series

        topology = hebb.json("GET", f"/v1/jobs/{job}/topology")["refreshes"]
        assert [r["step"] for r in topology] == [10, 20, 30, 40], [r["step"] for r in topology]
        assert all(len(r["layers"]) == 14 for r in topology)
        assert all(m["density"] == 0.25 for r in topology for m in r["layers"])

        events = hebb.events(job)
        assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
        assert events[0]["type"] == "start" and events[-1]["type"] == "done"
        stored = hebb.json("GET", f"/v1/jobs/{job}/events?since=0&limit=1000")["events"]
        assert [e["seq"] for e in stored] == [e["seq"] for e in events]

        checkpoints = hebb.json("GET", f"/v1/jobs/{job}/checkpoints")["checkpoints"]
        assert [c["step"] for c in checkpoints][-1] == 60, checkpoints
        check_model(hebb.state / "jobs" / job / "model", layers=2)
    print("whole: ok")


main()
