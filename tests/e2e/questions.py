"""hebb eval on questions, against a plain LLaMA in NumPy (double precision, no batching) on the exported model."""
import json
import math
import pathlib
import subprocess

import numpy as np

from training import BINARIES, corpus, folder, tiny_job, train

SEPARATOR = 256
TOLERANCE = 1e-4  # of a likelihood per token: single precision through two layers


def hebb(*words, want=0):
    done = subprocess.run([BINARIES / "hebb", *map(str, words)], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=100)
    assert done.returncode == want, f"{words}: {done.returncode} {done.stdout} {done.stderr}"
    return done


class Llama:
    """config.json and model.safetensors of a folder; logits of a list of tokens."""

    def __init__(self, path):
        self.config = json.loads((path / "config.json").read_text())
        raw = (path / "model.safetensors").read_bytes()
        size = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8:8 + size])
        header.pop("__metadata__")
        self.w = {name: np.frombuffer(raw[8 + size:][slice(*t["data_offsets"])], "<f4").astype(float).reshape(t["shape"])
                  for name, t in header.items()}

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.config["rms_norm_eps"]) * self.w[name]

    def rotate(self, x):
        """x: (tokens, heads, head_dim), split-half convention."""
        half = x.shape[-1] // 2
        angle = np.arange(len(x))[:, None] / self.config["rope_theta"] ** (np.arange(half) / half)
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    def logits(self, tokens):
        c, w = self.config, self.w
        heads, count = c["num_attention_heads"], len(tokens)
        x = w["model.embed_tokens.weight"][tokens]
        hidden_future = np.triu(np.full((count, count), -np.inf), 1)
        for i in range(c["num_hidden_layers"]):
            p = f"model.layers.{i}."
            y = self.norm(x, p + "input_layernorm.weight")
            q, k, v = ((y @ w[f"{p}self_attn.{n}_proj.weight"].T).reshape(count, heads, -1) for n in "qkv")
            q, k = self.rotate(q), self.rotate(k)
            scores = np.einsum("ihd,jhd->hij", q, k) / math.sqrt(q.shape[-1]) + hidden_future
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            out = np.einsum("hij,jhd->ihd", scores / scores.sum(-1, keepdims=True), v).reshape(count, -1)
            x = x + out @ w[p + "self_attn.o_proj.weight"].T
            y = self.norm(x, p + "post_attention_layernorm.weight")
            gate = y @ w[p + "mlp.gate_proj.weight"].T
            x = x + (gate / (1 + np.exp(-gate)) * (y @ w[p + "mlp.up_proj.weight"].T)) @ w[p + "mlp.down_proj.weight"].T
        return self.norm(x, "model.norm.weight") @ w["lm_head.weight"].T

    def score(self, context, text):
        """(ln p(text | context), tokens, greedy) with the context cut at the left to the model's."""
        tokens, answer = [SEPARATOR, *context.encode()], list(text.encode())
        whole = (tokens + answer)[-self.config["max_position_embeddings"] - 1:]
        rows = self.logits(whole[:-1])[-len(answer):]
        logs = rows - rows.max(-1, keepdims=True)
        logs = logs - np.log(np.exp(logs).sum(-1, keepdims=True))
        return (sum(logs[i, t] for i, t in enumerate(answer)), len(answer),
                all(rows[i].argmax() == t for i, t in enumerate(answer)))


def lines(path, items):
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


def choices(model, job, base):
    prose = "The quick brown fox jumps over the lazy dog; a sparse net learns which links it needs."
    words = prose.split()
    items = [{"context": " ".join(words[:i]), "choices": [" ".join(words[i:i + 1 + i % 3]), words[(i * 5 + 2) % 16][:2], "q", "a dog"],
              "answer": i % 5 // 4}
             for i in range(1, 16)]
    items += [{"context": prose * 3, "choices": ["The", " \u00e9\u00e9\u00e9"], "answer": 1}]
    file = lines(base / "choices.jsonl", items)
    right = right_norm = cut = 0
    for item in items:
        texts = [c if c[0] == " " else " " + c for c in item["choices"]]
        scores = [model.score(item["context"], t) for t in texts]
        sums, means = [s[0] for s in scores], [s[0] / s[1] for s in scores]
        for values in (sorted(sums), sorted(means)):
            assert values[-1] - values[-2] > 10 * TOLERANCE, "choose other questions: a tie"
        right += int(np.argmax(sums)) == item["answer"]
        right_norm += int(np.argmax(means)) == item["answer"]
        cut += len(item["context"].encode()) + max(s[1] for s in scores) > 64
    ours = json.loads(hebb("eval", job, "--choices", file, "--json").stdout)
    assert ours["questions"] == 16 and ours["truncated"] == cut > 0, ours
    assert math.isclose(ours["accuracy"], right / 16) and math.isclose(ours["accuracy_norm"], right_norm / 16), \
        (ours, right, right_norm)
    assert 0 < right < 16 and right != right_norm, f"choose other questions: {right}, {right_norm}"
    assert math.isclose(ours["chance"], (15 / 4 + 1 / 2) / 16), ours
    assert hebb("eval", job, "--choices", file, "--threads", 2, "--json").stdout == json.dumps(
        ours, separators=(",", ":")) + "\n"


def last_word(model, job, base):
    prose = "brown fox jumps over the lazy dog; a sparse net learns which links it needs.\n7: The quick brown fox"
    words = prose.split(" ")
    items = [{"context": " ".join(words[:i]), "answer": words[i]} for i in range(3, len(words))]
    items += [{"text": prose + "  jumps \n"}]
    pairs = [(i["context"], " " + i["answer"]) for i in items[:-1]] + [(prose, "  jumps")]
    scores = [model.score(*pair) for pair in pairs]
    ours = json.loads(hebb("eval", job, "--last-word", lines(base / "words.jsonl", items), "--json").stdout)
    greedy = sum(s[2] for s in scores)
    assert 0 < greedy < len(items), f"choose other words: {greedy} of {len(items)}"
    assert math.isclose(ours["accuracy"], greedy / len(items)), (ours, greedy)
    total, tokens = sum(s[0] for s in scores), sum(s[1] for s in scores)
    assert ours["tokens"] == tokens and abs(math.log(ours["token_perplexity"]) + total / tokens) < TOLERANCE, (ours, total)
    assert math.isclose(math.log(ours["word_perplexity"]), -total / len(items), rel_tol=TOLERANCE), ours
    assert "perplexity" in hebb("eval", job, "--last-word", base / "words.jsonl").stdout


def faults(job, base):
    file = lines(base / "faulty.jsonl", [{"context": "a", "choices": ["b", "c"], "answer": 2}, {"context": 1, "choices": []}])
    message = hebb("eval", job, "--choices", file, want=3).stderr
    assert f"{file} line 1: /answer: must be an index from 0 to 1, got 2\n" in message, message
    assert f"{file} line 2: /context: must be a string" in message and "line 2: /choices: must have 2" in message, message
    long = lines(base / "long.jsonl", [{"context": "a", "answer": "b" * 64}])
    message = hebb("eval", job, "--last-word", long, want=3).stderr
    assert "line 1: the last word: 65 tokens to score" in message, message
    hebb("eval", job, "--last-word", long, "--choices", file, want=2)
    hebb("eval", job, "--last-word", base / "none", want=3)


def main():
    with folder() as name:
        base = pathlib.Path(name)
        job = base / "job"
        train(tiny_job(corpus(base / "corpus.txt"), steps=300), job)
        model = Llama(job / "model")
        choices(model, job, base)
        last_word(model, job, base)
        faults(job, base)
    print("questions: ok")


main()
