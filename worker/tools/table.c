#include "proto/base/command.h"
#include "worker/tools/tools.h"

#include <stddef.h>

const struct command tools_commands[] = {
    {"train", "JOB.json --out FOLDER [--ranks N] [--threads N] [--json] [--worker PROGRAM]",
     "train a job in a folder, without the daemon; called again, it resumes", tool_train,
     "Makes the job folder (docs/formats.md) and runs the job in it. Called again with the "
     "same\n"
     "job it goes on from the newest checkpoint. Relative data paths of the job count from "
     "the\n"
     "working folder. ctrl-C: save a checkpoint and leave with code 75; twice: kill. Progress\n"
     "goes to stderr, a summary to stdout.\n"
     "\n"
     "  --out FOLDER      the job folder\n"
     "  --ranks N         MPI ranks, instead of the job's\n"
     "  --threads N       threads per rank, instead of the job's; results do not depend on "
     "them\n"
     "  --json            the events, one JSON object a line, on stdout instead of the "
     "progress\n"
     "  --worker PROGRAM  hebb-worker; otherwise the one beside hebb\n"},
    {"data",
     "prepare INPUT... --out FILE.bin [--shard-tokens N] | info FILE [--format F] [--json]",
     "make token shards, or look into one", tool_data,
     "prepare: INPUT is a text file, a folder or a glob; each file is one document of bytes.\n"
     "With --shard-tokens the shards are FILE-00000.bin and so on, each ended by the document\n"
     "that brings it to N tokens. --tokenizer: bytes, the only one.\n"
     "info: what a shard holds; a hebb shard's checksum is verified. --format: auto, hebb,\n"
     "llmc, raw-uint16 or raw-uint32.\n"},
    {"eval",
     "PATH (--data PATH... | --choices FILE | --last-word FILE) [--delimiter TEXT] [--format "
     "F] "
     "[--context N] [--threads N] [--json]",
     "loss and perplexity of a model on data; its answers to questions", tool_eval,
     "PATH is a job folder, a checkpoint or a model folder; docs/evaluation.md has the files.\n"
     "\n"
     "  --data PATH...    perplexity: windows of --context tokens (the model's own without "
     "it)\n"
     "                    that do not overlap, all of them. --format: auto, text, hebb, llmc,\n"
     "                    raw-uint16 or raw-uint32\n"
     "  --choices FILE    multiple choice: a line {\"context\": TEXT, \"choices\": [TEXT, "
     "...],\n"
     "                    \"answer\": INDEX} each; the likeliest choice is taken\n"
     "  --last-word FILE  a line {\"context\": TEXT, \"answer\": WORD} or {\"text\": TEXT} "
     "each\n"
     "  --delimiter TEXT  between context and choice; otherwise one space where neither has "
     "any\n"},
    {"generate",
     "PATH [--prompt TEXT]... [--prompt-file FILE] [--tokens N] [--samples N] [--temperature "
     "T] "
     "[--top-k K] [--top-p P] [--min-p P] [--repeat-penalty R] [--seed S] [--stop TEXT]... "
     "[--ignore-end] [--when-full slide|stop] [--threads N] [--json]",
     "text from a job's model, a checkpoint or a model folder", tool_generate,
     "One text goes to stdout as it comes, several at the end; the speed goes to stderr.\n"
     "\n"
     "  --prompt TEXT       may come again: one text each; --prompt-file -: standard input\n"
     "  --samples N         texts a prompt, with other random numbers\n"
     "  --tokens N          new tokens of a text at most; 200\n"
     "  --temperature T     0 takes the likeliest token each time; 1\n"
     "  --top-k --top-p --min-p   leave out unlikely tokens; all stay by default\n"
     "  --repeat-penalty R  against tokens among the last 64; 1: off\n"
     "  --stop TEXT         the text ends before it; may come again\n"
     "  --ignore-end        go on behind the end of a document\n"
     "  --when-full WHAT    slide: a full context loses its older half; stop: the text ends\n"
     "\n"
     "Needs the byte tokenizer. docs/generation.md has the rest.\n"},
    {"export", "PATH --out FOLDER",
     "the model folder (config.json, model.safetensors) of a checkpoint", tool_export, NULL},
    {"inspect", "PATH [--n N --m M] [--block] [--json]",
     "shapes, density, pattern counts and N:M legality of a checkpoint, a model or any "
     "safetensors",
     tool_inspect,
     "Exit code 3 if a group has more than N links. In a dense file a link is a weight that "
     "is\n"
     "not zero; without --n and --m such a file's density is shown only.\n"},
    {"bench", "[JOB.json] [--part PART] [--tokens T] [--threads N] [--json]",
     "speed of each product, and of a job's step", tool_bench,
     "products: forward, dX and dW at llama-60m's shapes, dense, 2:4 and 1:4, medians of\n"
     "repeats that take turns. Effective GF/s count the multiplications of a dense product;\n"
     "the share of the peak counts those that were done.\n"
     "step: with a job, tokens/s of its step on one rank, the time of each op, and of a\n"
     "refresh. Bound by: which takes longer at the machine's measured peaks, the op's\n"
     "operations or its bytes (every operand once); of bound: the share of the op's time that\n"
     "this explains, above 100% where data stay in a cache.\n"
     "generate: with a job, tokens/s of generation by its model, a dense, a 2:4 and a 1:4 "
     "one.\n"
     "\n"
     "  --part PART       all, products or step\n"},
    {0},
};
