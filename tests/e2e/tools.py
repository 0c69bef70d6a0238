"""The commands that use the engine, on what one small job leaves behind."""
import json
import math
import pathlib
import struct
import subprocess

from training import BINARIES, corpus, events, folder, tiny_job, train


def hebb(*words, want=0):
    done = subprocess.run([BINARIES / "hebb", *map(str, words)], stdin=subprocess.DEVNULL, capture_output=True, timeout=100)
    assert done.returncode == want, f"{words}: {done.returncode} {done.stdout} {done.stderr}"
    return done.stdout


def tensors(path):
    """name -> (dtype, shape, bytes) by the format's own rules."""
    raw = path.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8:8 + size])
    header.pop("__metadata__", None)
    data = raw[8 + size:]
    return {n: (t["dtype"], t["shape"], data[slice(*t["data_offsets"])]) for n, t in header.items()}


def main():
    with folder() as name:
        base = pathlib.Path(name)
        text = corpus(base / "corpus.txt")
        job = base / "job"
        train(tiny_job(text), job)
        checkpoint = job / "checkpoints" / "step-00000060"

        # eval: the job's model, its last checkpoint and the exported model say the same.
        held = base / "held.txt"
        held.write_text(text.read_text()[:20000])
        answers = [json.loads(hebb("eval", p, "--data", held, "--json")) for p in (job, checkpoint, job / "model")]
        assert len({a["loss"] for a in answers}) == 1, answers
        assert answers[0]["tokens"] == 20000 // 64 * 64 and math.isclose(
            answers[0]["perplexity"], math.exp(answers[0]["loss"])), answers
        assert abs(answers[0]["loss"] - events(job, "eval")[-1]["loss"]) < 0.3

        # data: the same tokens as a shard give the same loss.
        assert b"20001 tokens of 1 documents in 1 shard" in hebb("data", "prepare", held, "--out", base / "held.bin")
        info = hebb("data", "info", base / "held.bin").decode()
        assert "tokens 20001\n" in info and "checksum ok" in info, info
        told = json.loads(hebb("data", "info", base / "held.bin", "--json"))
        assert (told["tokens"], told["vocab"], told["largest_token"], told["checksum_ok"]) == (20001, 257, 256, True), told
        shard = json.loads(hebb("eval", job, "--data", base / "held.bin", "--json"))
        assert shard["loss"] == answers[0]["loss"], shard
        many = base / "many"
        many.mkdir()
        for i in range(5):
            (many / f"{i}.txt").write_text("x" * 1000)
        hebb("data", "prepare", many, "--out", base / "cut.bin", "--shard-tokens", 1500)
        assert sorted(p.name for p in base.glob("cut*")) == [f"cut-0000{i}.bin" for i in range(3)]

        # export: the checkpoint's model is the job's, byte for byte.
        hebb("export", checkpoint, "--out", base / "exported")
        for file in (job / "model").iterdir():
            assert file.read_bytes() == (base / "exported" / file.name).read_bytes(), file.name
        hebb("export", checkpoint, "--out", base / "exported", want=1)

        # inspect: masks of the checkpoint and zeros of the model agree, and with a reader of our own.
        ours = json.loads(hebb("inspect", checkpoint, "--json"))
        dense = json.loads(hebb("inspect", job, "--json"))
        bare = json.loads(hebb("inspect", job / "model" / "model.safetensors", "--n", 1, "--m", 4, "--json"))
        assert ours["legal"] and dense["legal"] and bare["legal"]
        assert ours["density"] == dense["density"] == bare["density"] == 0.25
        assert ours["matrices"] == dense["matrices"] == bare["matrices"] and len(ours["matrices"]) == 14
        weights = tensors(job / "model" / "model.safetensors")
        for matrix in ours["matrices"]:
            dtype, shape, data = weights[matrix["name"]]
            assert dtype == "F32" and shape == [matrix["rows"], matrix["cols"]]
            values = struct.unpack(f"<{len(data) // 4}f", data)
            groups = [values[i:i + 4] for i in range(0, len(values), 4)]
            assert all(sum(v != 0 for v in g) == 1 for g in groups), matrix["name"]
            assert matrix["patterns"] == [sum(g[j] != 0 for g in groups) for j in range(4)]
        assert json.loads(hebb("inspect", job / "model" / "model.safetensors", "--n", 2, "--m", 8, "--json"))["legal"]
        assert not json.loads(hebb("inspect", job / "model" / "model.safetensors", "--n", 1, "--m", 8, "--json",
                                   want=3))["legal"]

        # generate: the same seed gives the same text, past the context too.
        first = hebb("generate", job, "--prompt", "The quick", "--tokens", 90, "--seed", 3)
        assert first.startswith(b"The quick") and first == hebb("generate", checkpoint, "--prompt", "The quick",
                                                                "--tokens", 90, "--seed", 3)
        assert first != hebb("generate", job, "--prompt", "The quick", "--tokens", 90, "--seed", 4)
        assert first == hebb("generate", job, "--prompt", "The quick", "--tokens", 90, "--seed", 3, "--threads", 1)
        cold = hebb("generate", job, "--prompt", "The quick", "--tokens", 30, "--temperature", 0)
        for narrow in (("--top-k", 1), ("--top-p", 0), ("--min-p", 1)):
            assert cold == hebb("generate", job, "--prompt", "The quick", "--tokens", 30, *narrow, "--seed", 9)
        # Texts side by side are those alone; a stop text is left out; a full context ends or slides.
        long = ("--tokens", 90, "--ignore-end", "--json")
        many = json.loads(hebb("generate", job, "--prompt", "The quick", "--prompt", "A", "--samples", 2, *long))
        texts = many["texts"]
        assert [t["prompt"] for t in texts] == ["The quick", "The quick", "A", "A"]
        assert all(len(t["tokens"]) == 90 and t["finish"] == "length" for t in texts)
        assert texts[0]["tokens"] != texts[1]["tokens"] and many["new_tokens"] == 360 and many["prompt_tokens"] == 12
        alone = json.loads(hebb("generate", job, "--prompt", "The quick", *long))["texts"][0]
        assert alone == texts[0]
        whole = bytes(t for t in alone["tokens"] if t < 256)
        at = next(i for i in range(10, 90) if all(32 < b < 127 for b in whole[i:i + 2]))
        stop = whole[at:at + 2].decode()
        cut = json.loads(hebb("generate", job, "--prompt", "The quick", *long, "--stop", "\u00ff", "--stop", stop))["texts"][0]
        assert cut["finish"] == "stop" and stop not in cut["text"]
        assert cut["tokens"] == alone["tokens"][:len(cut["tokens"])] and 2 <= len(cut["tokens"]) <= at + 2
        full = json.loads(hebb("generate", job, "--prompt", "The quick", *long, "--when-full", "stop"))["texts"][0]
        context = json.loads((job / "spec.json").read_text())["model"]["context"]
        assert full["finish"] == "full" and len(full["tokens"]) == context - 9 and full["tokens"] == alone["tokens"][:context - 9]
        hebb("generate", job, "--when-full", "burst", want=2)
        hebb("generate", job, "--prompt", "a", "--samples", 65, want=2)
        hebb("generate", job, "--prompt-file", base / "none", want=1)

        # bench: every product once, dense against itself is 1.
        bench = json.loads(hebb("bench", job / "spec.json", "--tokens", 128, "--json"))
        rows = bench["products"]
        assert len(rows) == 27 and {r["product"] for r in rows} == {"forward", "dx", "dw"}
        assert all(r["ratio_to_dense"] == 1 for r in rows if r["m"] == 1)
        assert bench["peak_gflops"] > 0 and bench["step"]["tokens_per_s"] > 0
        assert {"product", "tokens", "din", "dout", "n", "m", "layout", "effective_gflops", "peak_share",
                "ratio_to_dense"} <= set(rows[0]) and {r["layout"] for r in rows} == {"row", "dense"}
        assert set(bench["machine"]) >= {"cpu", "cores", "threads", "device", "stream_gb_s"}
        share, roofline = bench["step"]["share"], bench["step"]["roofline"]
        assert abs(sum(share.values()) - 1) < 1e-6 and set(share) == set(roofline) | {"rest"}
        assert {"nm_forward", "nm_backward_x", "nm_backward_w", "head_loss", "attention_backward", "adamw"} <= set(share)
        assert all(r["bound_by"] in ("compute", "memory") and r["bound_share"] > 0
                   for op, r in roofline.items() if op != "nm_repack")
        speech = bench["generate"]
        assert speech["tokens_per_s"] == speech["models"][0]["tokens_per_s"] > 0
        assert [(r["n"], r["m"]) for r in speech["models"]] == [(1, 4), (1, 1), (2, 4)]
        assert speech["models"][0]["weight_bytes"] < speech["models"][2]["weight_bytes"] < speech["models"][1]["weight_bytes"]
        only = json.loads(hebb("bench", job / "spec.json", "--part", "step", "--json"))
        assert only["products"] == [] and set(only["step"]["share"]) == set(share)
        hebb("bench", "--part", "step", want=2)
        hebb("bench", "--part", "all of it", want=2)

        # Wrong use.
        hebb("generate", base, want=3)
        hebb("eval", job, "--data", base / "none", want=3)
        hebb("eval", job, want=2)
        hebb("inspect", job, "--n", 1, want=2)
    print("tools: ok")


if __name__ == "__main__":
    main()
