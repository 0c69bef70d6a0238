"""The memory that a job takes is the memory that the dry run says, dense, 2:4 and 1:4, and falls with the density."""
import pathlib

from service import service
from training import corpus, events, report, tiny_job, train

TOLERANCE = 0.10  # of the total; heap and libraries differ between machines
MODEL = {"hidden": 512, "intermediate": 1376, "layers": 4, "heads": 8, "context": 64}
KINDS = {"dense": {"method": "dense"}, "2:4": {"n": 2, "m": 4}, "1:4": {"n": 1, "m": 4}}
LINES = ("weights", "topology", "gradients", "optimizer", "activations", "scratch", "runtime")


def job_of(text, sparsity):
    job = tiny_job(text, steps=3, model=MODEL, train={"batch": 2, "eval_sequences": 2, "eval_every": 0,
                                                     "checkpoint_every": 0, "warmup": 1})
    job["sparsity"] = {"method": "chts24", **sparsity}
    if sparsity.get("method") != "dense":
        job["sparsity"]["refresh_interval"] = 1
    return job


def main():
    totals = []
    with service() as hebb:
        text = corpus(hebb.data / "corpus.txt")
        for kind, sparsity in KINDS.items():
            job = job_of(text, sparsity)
            answer = hebb.json("POST", "/v1/jobs?dry_run=1", job)["estimate"]
            parts, total = answer["memory_per_rank_bytes"], answer["memory_per_rank_bytes"]["total"]
            out = hebb.folder / f"job-{len(totals)}"
            train(job, out)
            peak = events(out, "done")[-1]["peak_rss_bytes"]
            print(f"{kind}: said {total / 2**20:.1f} MiB, took {peak / 2**20:.1f} MiB ("
                  + ", ".join(f"{name} {parts[name] / 2**20:.1f}" for name in LINES) + ")")
            assert abs(peak - total) <= TOLERANCE * total, f"{kind}: {peak} against {total} {report(out)}"
            totals.append(peak)
        dense, half, quarter = totals
        assert quarter < half < dense, totals
    print("memory: ok")


if __name__ == "__main__":
    main()
