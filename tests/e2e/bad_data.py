"""Wrong data ends a job with code 3 and a sentence that names the file, before step 1, on one rank and on two."""
import json
import pathlib
import struct

from training import corpus, events, folder, report, start, tiny_job

MAGIC_LLMC_16 = 20240520


def main():
    with folder() as name:
        base = pathlib.Path(name)
        text = corpus(base / "corpus.txt")
        (base / "empty.txt").write_bytes(b"")
        (base / "short.txt").write_bytes(b"too short")
        llmc = struct.pack("<256i", MAGIC_LLMC_16, 1, 9000, *([0] * 253))
        (base / "truncated.bin").write_bytes(llmc + b"\0" * 100)
        (base / "foreign.bin").write_bytes(llmc + struct.pack("<9000H", *([5] * 8999 + [40000])))
        (base / "unknown.bin").write_bytes(b"\x07" * 20000)
        shards = {"tokenizer": "none", "validation_fraction": 0.1}
        cases = [("missing.txt", "missing.txt", {}, {}), ("empty.txt", "empty.txt", {}, {}),
                 ("short.txt", "one window of context 64 needs 65", {}, {}),
                 ("truncated.bin", "truncated.bin", shards, {"vocab": 300}),
                 ("foreign.bin", "foreign.bin", shards, {"vocab": 300}),
                 ("unknown.bin", "unknown.bin", shards, {"vocab": 300}), ("corpus.txt", "has no shard's magic", shards, {"vocab": 300}), ("nothing/*.txt", "nothing/*.txt", {}, {})]
        for number, (file, words, data, model) in enumerate(cases):
            for ranks in (1, 2) if number % 3 == 1 else (1,):
                out = base / f"job-{number}-{ranks}"
                job = tiny_job(text, data={"train": [str(base / file)], **data}, model=model)
                code = start(job, out, "--ranks", str(ranks)).wait(timeout=60)
                assert code == 3, f"{file}, {ranks} ranks: code {code} {report(out)}"
                assert not events(out), f"{file}: {events(out)}"
                end = json.loads((out / "attempt-1" / "exit.json").read_text())
                assert end["code"] == 3 and words in end["reason"], end
        bad = dict(tiny_job(text), extra=1)
        assert start(bad, base / "unknown-key").wait(timeout=60) == 2
        assert start(tiny_job(text, resources={"device": "cuda"}), base / "cuda").wait(timeout=60) == 5, report(base / "cuda")
    print("bad_data: ok")


if __name__ == "__main__":
    main()
