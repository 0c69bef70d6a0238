"""hebb against PyTorch on this machine's CPU: training steps, generation, peak memory. One table.

    python3 tests/bench/rivals.py --hebb build/release/bin/hebb --torch-python VENV/bin/python

VENV is any environment with PyTorch in it (pip install torch); nothing of hebb needs it. The rivals take turns:
every round asks each for one measurement, and medians over the rounds are printed, so that a busy machine
disturbs all alike. llama-60m's blocks; hebb dense, 2:4 and 1:4; PyTorch eager and compiled.
"""
import argparse
import json
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
CONTEXT, GENERATED, STEPS = 256, 200, 3
KINDS = {"hebb dense": None, "hebb 2:4": (2, 4), "hebb 1:4": (1, 4)}
MODEL = {"hidden": 512, "intermediate": 1376, "layers": 8, "heads": 8, "context": CONTEXT}


class Torch:
    """A PyTorch process that waits for orders."""

    def __init__(self, args, mode, batch):
        self.process = subprocess.Popen(
            [args.torch_python, str(HERE / "rival_torch.py"), "--mode", mode, "--batch", str(batch), "--vocab",
             str(args.vocab), "--threads", str(args.threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.version = json.loads(self.process.stdout.readline())["torch"]

    def ask(self, order):
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def write_data(folder, vocab):
    """Random tokens, as PyTorch gets them: text of bytes, or numbers of 16 bits."""
    draw = random.Random(1)
    path = folder / "tokens.bin"
    if vocab == 257:
        path.write_bytes(draw.randbytes(1 << 20))
    else:
        path.write_bytes(b"".join(draw.randrange(vocab).to_bytes(2, "little") for _ in range(1 << 19)))
    return path


def job_of(args, data, kind, batch, optimizer):
    sparsity = {"method": "dense"}
    if kind:
        sparsity = {"method": "chtsnm" if optimizer == "tans" else "chts24", "n": kind[0], "m": kind[1]}
    bytes_only = args.vocab == 257
    return {
        "name": "rivals",
        "model": {**MODEL, "vocab": args.vocab},
        "data": {"train": [str(data)], **({"tokenizer": "bytes", "format": "text"} if bytes_only
                                         else {"tokenizer": "none", "format": "raw-uint16"})},
        "sparsity": sparsity,
        "optimizer": {"name": optimizer, "lr": 0.001, "grad_clip": 1.0},
        "train": {"steps": 1000, "warmup": 10, "batch": batch, "seed": "1"},
        "resources": {"ranks": 1, "threads": args.threads},
    }


def bench(args, job, part):
    out = subprocess.run([args.hebb, "bench", str(job), "--part", part, "--threads", str(args.threads), "--json"],
                         check=True, capture_output=True, text=True)
    return json.loads(out.stdout)


def memory_of(args, job, folder):
    """Peak resident memory of the worker over three steps, as its last event says."""
    spec = json.loads(job.read_text())
    spec["train"].update(steps=3, warmup=1, eval_every=0, checkpoint_every=0)
    short = folder / f"short-{job.name}"
    short.write_text(json.dumps(spec))
    out = subprocess.run([args.hebb, "train", str(short), "--out", str(folder / f"run-{job.stem}"), "--json"],
                         check=True, capture_output=True, text=True)
    events = [json.loads(line) for line in out.stdout.splitlines()]
    return next(event["peak_rss_bytes"] for event in reversed(events) if "peak_rss_bytes" in event)


def add(rates, name, rate, what):
    rates[name].append(rate)
    print(f"{name}, {what}: {rate:.1f} tokens/s", file=sys.stderr, flush=True)


def measure_batch(args, folder, data, batch):
    jobs = {}
    for name, kind in KINDS.items():
        for optimizer in args.optimizers:
            label = name if optimizer == "adamw" else f"{name} {optimizer}"
            jobs[label] = folder / f"{label.replace(' ', '-').replace(':', '')}-{batch}.json"
            jobs[label].write_text(json.dumps(job_of(args, data, kind, batch, optimizer)))
    rivals = {f"PyTorch {mode}": Torch(args, mode, batch) for mode in args.modes}
    for rival in rivals.values():
        rival.ask("train 2")
    memory = {name: rival.ask("memory")["bytes"] for name, rival in rivals.items()}
    if not args.skip_memory:
        memory.update({name: memory_of(args, job, folder) for name, job in jobs.items()})
    rates = {name: [] for name in [*rivals, *jobs]}
    words = {name: [] for name in rates}
    for _ in range(args.rounds):
        for name, rival in rivals.items():
            seconds = statistics.median(rival.ask(f"train {STEPS}")["seconds"])
            add(rates, name, batch * CONTEXT / seconds, "training")
        for name, job in jobs.items():
            add(rates, name, bench(args, job, "step")["step"]["tokens_per_s"], "training")
    if args.generate and batch == args.batch[0]:
        for rival in rivals.values():
            rival.ask("generate 20")
        for _ in range(args.rounds):
            for name, rival in rivals.items():
                add(words, name, rival.ask(f"generate {GENERATED}")["tokens_per_s"], "generation")
            for name, job in jobs.items():
                add(words, name, bench(args, job, "generate")["generate"]["tokens_per_s"], "generation")
    for rival in rivals.values():
        rival.close()
    return {name: {"train_tokens_per_s": rates[name], "peak_bytes": memory.get(name), "generate_tokens_per_s": words[name]}
            for name in rates}


def print_table(batch, results):
    dense = statistics.median(results["hebb dense"]["train_tokens_per_s"])
    torch = max((statistics.median(r["train_tokens_per_s"]) for n, r in results.items() if n.startswith("PyTorch")),
                default=None)
    print(f"\nbatch {batch} x {CONTEXT} tokens\n")
    print("| | training, tokens/s | lowest, highest | / hebb dense | / best PyTorch | peak memory | generation, tokens/s |")
    print("|---|---|---|---|---|---|---|")
    for name, result in results.items():
        rates = result["train_tokens_per_s"]
        rate = statistics.median(rates)
        words = result["generate_tokens_per_s"]
        print(f"| {name} | {rate:.0f} | {min(rates):.0f}, {max(rates):.0f} | {rate / dense:.2f}x | "
              + (f"{rate / torch:.2f}x" if torch else "") + " | "
              + (f"{result['peak_bytes'] / 2**20:.0f} MiB" if result["peak_bytes"] else "") + " | "
              + (f"{statistics.median(words):.0f}" if words else "") + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hebb", default="build/release/bin/hebb")
    parser.add_argument("--torch-python", default=sys.executable, help="a Python with PyTorch")
    parser.add_argument("--modes", nargs="*", default=["eager", "compile"], help="of PyTorch")
    parser.add_argument("--optimizers", nargs="+", default=["adamw"], help="of hebb; adamw among them")
    parser.add_argument("--batch", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--vocab", type=int, default=257)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--generate", action="store_true", help="also generation, beside the first batch")
    parser.add_argument("--skip-memory", action="store_true", help="no training jobs for their peak memory")
    parser.add_argument("--json", help="all numbers into this file")
    args = parser.parse_args()
    everything = {}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        data = write_data(folder, args.vocab)
        for batch in args.batch:
            everything[batch] = measure_batch(args, folder, data, batch)
            print_table(batch, everything[batch])
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(everything, indent=1))


if __name__ == "__main__":
    main()
