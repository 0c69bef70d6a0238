"""Does transformers' LlamaForCausalLM compute what hebb computes? By hand, not part of ctest: needs torch and transformers.

    check_transformers.py BIN_FOLDER

Trains two tiny models (1:4 with grouped key/value heads, untied; dense, tied, another RoPE base), loads each model/ with
transformers and compares the mean loss over all windows of a text with `hebb eval`, and every greedy token with
`hebb generate --temperature 0` for as long as the two likeliest tokens are apart. Then saves the model in bf16, cut into
several files, as transformers does, and lets hebb read that."""
import json
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

import torch
import transformers
from training import BINARIES, corpus, folder, tiny_job, train

LOSS_TOLERANCE = 2e-6  # fp32 sums in another order, mean over tens of thousands of tokens
TIE = 1e-4             # of logits: below, rounding may choose either token
SEPARATOR = 256


def hebb(*words):
    return subprocess.run([BINARIES / "hebb", *map(str, words)], check=True, capture_output=True).stdout


def loss_of(model, text, context):
    tokens = [*text.read_bytes(), SEPARATOR]
    count = (len(tokens) - 1) // context
    inputs = torch.tensor(tokens[:count * context]).view(count, context)
    targets = torch.tensor(tokens[1:count * context + 1]).view(count, context)
    with torch.no_grad():
        logits = torch.cat([model(part).logits for part in inputs.split(64)])
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).double(), targets.flatten()).item()


def check_greedy(model, out, prompt, count):
    answer = hebb("generate", out, "--prompt", prompt, "--tokens", count, "--temperature", 0)
    tokens, agreed = [SEPARATOR, *prompt.encode()], 0
    for byte in answer[len(prompt):len(prompt) + count]:
        with torch.no_grad():
            logits = model(torch.tensor([tokens])).logits[0, -1]
        best = logits.topk(2)
        if best.values[0] - best.values[1] < TIE or best.indices[0] == SEPARATOR:
            break
        assert best.indices[0].item() == byte, f"token {agreed}: {best.indices[0].item()}, hebb has {byte}"
        tokens.append(byte)
        agreed += 1
    return agreed


def main():
    kinds = {
        "1:4, grouped heads": tiny_job("", model={"kv_heads": 2}),
        "dense, tied": tiny_job("", model={"tie_embeddings": True, "rope_theta": 500.0, "norm_eps": 1e-5},
                                sparsity={"method": "dense"}),
    }
    kinds["dense, tied"]["sparsity"] = {"method": "dense"}
    with folder() as name:
        base = pathlib.Path(name)
        text = corpus(base / "corpus.txt")
        held = base / "held.txt"
        held.write_text(text.read_text()[:60000])
        for number, (kind, job) in enumerate(kinds.items()):
            job["data"]["train"] = [str(text)]
            out = base / f"job-{number}"
            train(job, out)
            model = transformers.AutoModelForCausalLM.from_pretrained(out / "model", attn_implementation="eager").eval()
            assert type(model).__name__ == "LlamaForCausalLM" and model.dtype == torch.float32, (type(model), model.dtype)
            ours = json.loads(hebb("eval", out, "--data", held, "--json"))["loss"]
            theirs = loss_of(model, held, 64)
            agreed = check_greedy(model, out, "The quick", 50)
            print(f"{kind}: loss {ours:.7f}, transformers {transformers.__version__} {theirs:.7f}; "
                  f"{agreed} greedy tokens agree")
            assert abs(ours - theirs) < LOSS_TOLERANCE, abs(ours - theirs)
            assert agreed >= 5, agreed

            saved = base / f"saved-{number}"
            model.to(torch.bfloat16).save_pretrained(saved, max_shard_size="100KB")
            assert len(list(saved.glob("*.safetensors"))) > 1, list(saved.iterdir())
            ours = json.loads(hebb("eval", saved, "--data", held, "--json"))["loss"]
            model = transformers.AutoModelForCausalLM.from_pretrained(saved, dtype=torch.float32,
                                                                      attn_implementation="eager").eval()
            theirs = loss_of(model, held, 64)
            print(f"{kind}, saved by transformers in bf16: loss {ours:.7f}, transformers {theirs:.7f}")
            assert abs(ours - theirs) < LOSS_TOLERANCE, abs(ours - theirs)


if __name__ == "__main__":
    main()
