"""A job with CoMoLoRA from the dry run's share to the exported folder; threads do not change a byte."""
import json
import pathlib

from service import service
from tools import hebb, tensors
from training import corpus, events, folder, tiny_job, train

ADAPTER = {"name": "comolora", "rank": 5, "hidden": 3}
DIMS = [(64, 64)] * 4 + [(176, 64)] * 2 + [(64, 176)]  # dout, din of a layer's targets


def parameters():
    rank, hidden = ADAPTER["rank"], ADAPTER["hidden"]
    return 2 * sum(rank * (din + dout) + hidden * din + hidden + rank * hidden + rank for dout, din in DIMS)


def slope_and_widen():
    """Real runs of static, slope and a widened static: the same losses until the branch works; the budget of the branch."""
    with folder() as name:
        base = pathlib.Path(name)
        job = tiny_job(corpus(base / "corpus.txt"))
        job["sparsity"] = {"method": "static", "n": 2, "m": 4}
        slope = {**job, "sparsity": {**job["sparsity"], "method": "slope", "branch_share": 0.25}}
        wide = {**job, "model": {**job["model"], "widen": "lora"}}
        losses, starts = {}, {}
        for kind, what in (("static", job), ("slope", slope), ("wide", wide)):
            train(what, base / kind)
            losses[kind] = [(e["step"], e["loss"]) for e in events(base / kind, "step")]
            starts[kind] = events(base / kind, "start")[0]
        assert max(step for step, _ in losses["slope"]) == 60
        same = [a == b for a, b in zip(losses["static"], losses["slope"])]
        # Step 46 is the first that trains B, and 47 the first whose loss sees it.
        assert same == [step <= 46 for step, _ in losses["slope"]] and not all(same) and any(same), same
        budget = starts["slope"]["adapter_parameters"]
        more = starts["wide"]["active_parameters"] - starts["static"]["active_parameters"]
        assert starts["wide"]["adapter_parameters"] == 0 and budget <= more < budget + 3 * 64 * 2 * 2, (budget, more)
        config = json.loads((base / "wide" / "model" / "config.json").read_text())
        assert config["intermediate_size"] == 176 + 4 * more // (3 * 64 * 2 * 2), config
        hebb("eval", base / "wide" / "model", "--data", base / "corpus.txt", "--json")


def main():
    with service() as daemon:
        job = tiny_job(corpus(daemon.data / "corpus.txt"), adapter=ADAPTER)
        said = daemon.json("POST", "/v1/jobs?dry_run=1", job)["estimate"]
        plain = daemon.json("POST", "/v1/jobs?dry_run=1", {**job, "adapter": {"name": "none"}})["estimate"]
        assert said["adapter_parameters"] == parameters() and plain["adapter_parameters"] == 0, said
        assert said["adapter_share"] == parameters() / plain["parameters"] and plain["adapter_share"] == 0, said
        assert said["parameters"] - plain["parameters"] == parameters()
        assert said["active_parameters"] - plain["active_parameters"] == parameters()
        for line in ("weights", "optimizer", "activations"):
            assert said["memory_per_rank_bytes"][line] > plain["memory_per_rank_bytes"][line], line

    with folder() as name:
        base = pathlib.Path(name)
        job = tiny_job(corpus(base / "corpus.txt"), adapter=ADAPTER)
        out, again = base / "job", base / "again"
        train(job, out)
        start = events(out, "start")[0]
        assert all(start[k] == said[k] for k in ("parameters", "active_parameters", "adapter_parameters")), start
        losses = [e["loss"] for e in events(out, "step")]
        assert losses[-1] < 0.8 * losses[0], losses

        # Other threads, the same bytes.
        train({**job, "resources": {"threads": 2}}, again)
        for file in ("model.safetensors", "state.safetensors"):
            a, b = (o / "checkpoints" / "step-00000060" / file for o in (out, again))
            assert a.read_bytes() == b.read_bytes(), file

        # The branches are in a file of their own, and every reader of ours adds them.
        whole, branches = (tensors(out / "model" / f) for f in ("model.safetensors", "adapter.safetensors"))
        assert not any("lora" in n or "como" in n for n in whole) and len(branches) == 2 * 7 * 6
        assert branches["model.layers.1.mlp.down_proj.lora_B.weight"][1] == [64, 5]
        assert json.loads((out / "model" / "hebb.json").read_text())["adapter"]["hidden"] == 3
        held = base / "held.txt"
        held.write_text((base / "corpus.txt").read_text()[:8000])
        checkpoint = out / "checkpoints" / "step-00000060"
        answers = [json.loads(hebb("eval", p, "--data", held, "--json"))["loss"] for p in (checkpoint, out / "model")]
        assert answers[0] == answers[1], answers
        prompt = ("--prompt", "The quick", "--tokens", 40, "--seed", 3)
        assert hebb("generate", checkpoint, *prompt) == hebb("generate", out / "model", *prompt)
        hebb("export", checkpoint, "--out", base / "exported")
        for file in (out / "model").iterdir():
            assert file.read_bytes() == (base / "exported" / file.name).read_bytes(), file.name
        (out / "model" / "adapter.safetensors").unlink()
        hebb("eval", out / "model", "--data", held, want=3)
    slope_and_widen()
    print("adapter: ok")


if __name__ == "__main__":
    main()
