"""Is docs/formats.md enough to use a model with an adapter? By hand, not part of ctest: needs torch and safetensors.

    check_adapter.py BIN_FOLDER

Trains tiny models with lora and comolora (1:4 and dense), reads model.safetensors and adapter.safetensors with the formula
of docs/formats.md (make_golden_model.py's LLaMA, in double), and compares the mean loss over a text with `hebb eval`.
Without the branch the loss must be another."""
import json
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

import torch
from safetensors.torch import load_file

import make_golden_model as llama
from training import BINARIES, corpus, folder, tiny_job, train

LOSS_TOLERANCE = 2e-6  # fp32 sums against double, mean over thousands of tokens
SEPARATOR = 256


def branch(adapter):
    scale, gamma = adapter["alpha"] / adapter["rank"], adapter["gamma"]

    def linear(w, name, x):
        stem = name.removesuffix("weight")
        z = x @ w[stem + "lora_A.weight"].T
        if adapter["name"] == "comolora":
            hidden = torch.nn.functional.silu(x @ w[stem + "como.W1"].T + w[stem + "como.b1"])
            z = z * (1 + gamma * torch.tanh(hidden @ w[stem + "como.W2"].T + w[stem + "como.b2"]))
        return x @ w[name].T + scale * (z @ w[stem + "lora_B.weight"].T)

    return linear


def loss_of(weights, config, linear, text):
    context = config["max_position_embeddings"]
    llama.HIDDEN, llama.LAYERS = config["hidden_size"], config["num_hidden_layers"]
    llama.HEADS, llama.KV_HEADS = config["num_attention_heads"], config["num_key_value_heads"]
    llama.HEAD_DIM, llama.NORM_EPS = llama.HIDDEN // llama.HEADS, config["rms_norm_eps"]
    llama.ROPE_THETA = config["rope_theta"]
    tokens = [*text.read_bytes(), SEPARATOR]
    count = (len(tokens) - 1) // context
    inputs = torch.tensor(tokens[:count * context]).view(count, context)
    targets = torch.tensor(tokens[1:count * context + 1]).view(count, context)
    with torch.no_grad():
        losses = [llama.token_losses(llama.forward(weights, a, linear), b).sum()
                  for a, b in zip(inputs.split(64), targets.split(64))]
    return (sum(losses) / targets.numel()).item()


def main():
    with folder() as name:
        base = pathlib.Path(name)
        text = corpus(base / "corpus.txt")
        held = base / "held.txt"
        held.write_text(text.read_text()[:8000])
        for kind, sections in {
            "lora, 1:4": {"adapter": {"name": "lora", "rank": 5, "alpha": 10}, "model": {"kv_heads": 2}},
            "comolora, 1:4": {"adapter": {"name": "comolora"}},
            "comolora, 2:4": {"adapter": {"name": "comolora", "rank": 3, "hidden": 4, "gamma": 0.9, "alpha": 2},
                              "sparsity": {"n": 2}},
        }.items():
            out = base / kind.replace(":", "").replace(", ", "-")
            train(tiny_job(str(text), **sections), out)
            hebb = json.loads((out / "model" / "hebb.json").read_text())
            config = json.loads((out / "model" / "config.json").read_text())
            weights = load_file(out / "model" / "model.safetensors")
            weights |= load_file(out / "model" / hebb["adapter"]["file"])
            weights = {k: v.double() for k, v in weights.items()}
            theirs = loss_of(weights, config, branch(hebb["adapter"]), held)
            alone = loss_of(weights, config, llama.linear, held)
            answer = subprocess.run([BINARIES / "hebb", "eval", out / "model", "--data", held, "--json"], check=True,
                                    capture_output=True).stdout
            ours = json.loads(answer)["loss"]
            print(f"{kind}: hebb {ours:.7f}, PyTorch {theirs:.7f}, without the branch {alone:.7f}")
            assert abs(ours - theirs) < LOSS_TOLERANCE and abs(alone - theirs) > 100 * LOSS_TOLERANCE
    print("adapter: ok")


if __name__ == "__main__":
    main()
