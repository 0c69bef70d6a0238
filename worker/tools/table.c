#include "proto/base/command.h"
#include "worker/tools/tools.h"

#include <stddef.h>

const struct command tools_commands[] = {
    {"train", "JOB.json --out FOLDER [--ranks N] [--threads N] [--json]",
     "train a job in a folder, without the daemon; called again, it resumes", tool_train,
     "usage: hebb train JOB.json --out FOLDER [--ranks N] [--threads N] [--json] [--worker "
     "PROGRAM]\n"
     "\n"
     "Makes the job folder (docs/formats.md) and runs the job in it. Called again with the "
     "same job it goes on from the\n"
     "newest checkpoint. Relative data paths of the job count from the working folder. ctrl-C: "
     "save a checkpoint and leave\n"
     "with code 75; twice: kill. Progress goes to stderr, a summary to stdout.\n"
     "\n"
     "  --out FOLDER      the job folder\n"
     "  --ranks N         MPI ranks, instead of the job's\n"
     "  --threads N       threads per rank, instead of the job's; results do not depend on "
     "them\n"
     "  --json            the events, one JSON object a line, on stdout instead of the "
     "progress\n"
     "  --worker PROGRAM  hebb-worker; otherwise the one beside hebb\n"},
    {"data", "prepare INPUT... --out FILE.bin | info FILE",
     "make token shards, or look into one", tool_data,
     "usage: hebb data prepare INPUT... --out FILE.bin [--tokenizer bytes] [--shard-tokens N]\n"
     "       hebb data info FILE [--format auto|hebb|llmc|raw-uint16|raw-uint32]\n"
     "\n"
     "prepare: INPUT is a text file, a folder or a glob; each file is one document. With "
     "--shard-tokens the shards are\n"
     "FILE-00000.bin and so on, each ended by the document that brings it to N tokens.\n"
     "info: what a shard holds; a hebb shard's checksum is verified.\n"},
    {"eval", "PATH --data PATH... [--format F] [--context N] [--threads N] [--json]",
     "loss and perplexity of a model on data", tool_eval, NULL},
    {"generate",
     "PATH [--prompt TEXT] [--tokens N] [--temperature T] [--top-k K] [--seed S] [--threads N]",
     "text from a job's model, a checkpoint or a model folder", tool_generate, NULL},
    {"export", "PATH --out FOLDER",
     "the model folder (config.json, model.safetensors) of a checkpoint", tool_export, NULL},
    {"inspect", "PATH [--n N --m M] [--json]",
     "shapes, density, pattern counts and N:M legality of a checkpoint, a model or any "
     "safetensors",
     tool_inspect, NULL},
    {"bench", "[JOB.json] [--tokens T] [--threads N] [--json]",
     "speed of each product, and of a job's step", tool_bench, NULL},
    {0},
};
