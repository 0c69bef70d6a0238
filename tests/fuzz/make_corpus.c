/* Writes the seeds of the binary formats with hebb's own writers: make_corpus FOLDER
 * (tests/fuzz/corpus). The text seeds are written by hand. Run it when a format changes: cmake
 * --build BUILD --target make_corpus. */
#include "engine/checkpoint.h"
#include "proto/base/fsx.h"
#include "proto/format/safetensors.h"
#include "proto/format/shard.h"
#include "proto/format/topology.h"
#include "tests/engine/comms.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char path[FSX_PATH_MAX];

static const char *in(const char *folder, const char *name)
{
    struct err err;
    if (fsx_path(path, &err, "%s/%s", folder, name)) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    return path;
}

static void must(int rc, const struct err *err)
{
    if (!rc)
        return;
    fprintf(stderr, "%s\n", err->text);
    exit(1);
}

static void make_safetensors(const char *folder)
{
    static const struct st_tensor tensors[] = {
        {.name = "model.layers.0.mlp.up_proj.values",
         .type = ST_F32,
         .rank = 2,
         .shape = {2, 2}},
        {.name = "model.layers.0.mlp.up_proj.codes",
         .type = ST_U16,
         .rank = 2,
         .shape = {2, 1}},
        {.name = "empty", .type = ST_I64, .rank = 1, .shape = {0}},
        {.name = "scalar", .type = ST_BF16},
    };
    static const char *const metadata[] = {"step", "100", NULL};
    static const char data[22] = "0123456789abcdefghijk";
    struct st_writer *writer;
    struct err err;
    must(st_writer_open(&writer, in(folder, "safetensors/four"), tensors, 4, metadata, &err),
         &err);
    must(st_writer_data(writer, data, sizeof(data), &err), &err);
    must(st_writer_finish(writer, &err), &err);
    must(st_writer_open(&writer, in(folder, "safetensors/none"), NULL, 0, NULL, &err), &err);
    must(st_writer_finish(writer, &err), &err);
}

static void make_shards(const char *folder)
{
    static const uint32_t tokens[4] = {72, 105, 256, 33};
    static const int32_t gpt2[258] = {20240520, 1, 4, [256] = 0x00020001, [257] = 0x00040003};
    static const int32_t llama3[258] = {20240801, 7, 2, [256] = 128000, [257] = 9};
    struct shard_writer *writer;
    struct err err;
    for (unsigned bytes = 2; bytes <= 4; bytes += 2) {
        must(shard_writer_open(&writer, in(folder, bytes == 2 ? "shard/hebb2" : "shard/hebb4"),
                               bytes, 257, "bytes", &err),
             &err);
        must(shard_writer_add(writer, tokens, 4, true, &err), &err);
        must(shard_writer_finish(writer, &err), &err);
    }
    must(fsx_publish(in(folder, "shard/llmc2"), gpt2, sizeof(gpt2), 0644, &err), &err);
    must(fsx_publish(in(folder, "shard/llmc4"), llama3, sizeof(llama3), 0644, &err), &err);
    must(fsx_publish(in(folder, "shard/raw"), tokens, sizeof(tokens), 0644, &err), &err);
}

static void make_topology(const char *folder)
{
    static const uint16_t start[6] = {0, 1, 2, 3, 2, 1}, changed[2] = {5, 0};
    static const uint32_t groups[2] = {1, 4};
    struct topology_matrix matrices[2] = {
        {.name = "model.layers.0.self_attn.q_proj",
         .dout = 3,
         .din = 8,
         .n = 1,
         .m = 4,
         .hash = 1,
         .count = 6,
         .codes = start},
        {.name = "w",
         .dout = 3,
         .din = 8,
         .n = 2,
         .m = 4,
         .hash = 2,
         .count = 6,
         .codes = start},
    };
    struct err err;
    char scratch[FSX_PATH_MAX];
    must(fsx_path(scratch, &err, "%s/topology", folder), &err);
    must(topology_write(scratch, 0, 0, matrices, 2, &err), &err);
    matrices[1].count = 2;
    matrices[1].groups = groups;
    matrices[1].codes = changed;
    must(topology_write(scratch, 1, 100, matrices + 1, 1, &err), &err);
}

/* from's bytes after one that names their kind (fuzz_checkpoint.c). */
static void copy_marked(const char *from, char kind, const char *to)
{
    struct buf body;
    struct err err;
    buf_init(&body, 1 << 20);
    buf_add(&body, &kind, 1);
    struct buf read;
    buf_init(&read, 1 << 20);
    must(fsx_read(&read, from, &err), &err);
    buf_add(&body, read.data, read.len);
    must(fsx_publish(to, body.data, body.len, 0644, &err), &err);
    buf_release(&read);
    buf_release(&body);
}

/* The shape is that of fuzz_checkpoint.c's model. */
static void make_checkpoint(const char *folder)
{
    const struct trainer_config config = {
        .shape = {.hidden = 8,
                  .intermediate = 8,
                  .layers = 1,
                  .heads = 2,
                  .kv_heads = 1,
                  .vocab = 5,
                  .context = 4,
                  .rope_theta = 10000,
                  .norm_eps = 1e-6,
                  .n = 1,
                  .m = 4},
        .method = {.name = "chts24", .steps = 9, .interval = 2, .until = 0.75, .zeta = 0.1},
        .steps = 9,
        .batch = 1,
        .micro_batch = 1,
        .context = 4,
        .lr = 0.1,
        .eps = 1e-8,
        .guard = {.window = 4, .factor = 10, .rise = 0.5}};
    struct comms_world world;
    struct comms_rank rank;
    struct device *dev;
    struct trainer *trainer;
    struct err err = {0};
    uint64_t bytes;
    char scratch[] = "/tmp/make_corpus_XXXXXX", from[FSX_PATH_MAX];
    comms_init(&world, &rank, 1);
    must(mkdtemp(scratch) ? 0 : err_set(&err, ERR_IO, "mkdtemp"), &err);
    must(device_create(&dev, "ref", NULL, &err), &err);
    must(trainer_create(&trainer, &config, dev, &rank.comm, NULL, &err), &err);
    trainer->guard.skipped = 3;
    for (int i = 0; i < 6; i++)
        guard_accept(&trainer->guard, &config.guard, 2.5 - i / 8.0);
    must(checkpoint_save(trainer, scratch, &bytes, &err), &err);
    must(fsx_path(from, &err, "%s/step-00000000/train.json", scratch), &err);
    copy_marked(from, 'T', in(folder, "checkpoint/train"));
    must(fsx_path(from, &err, "%s/step-00000000/model.safetensors", scratch), &err);
    copy_marked(from, 'M', in(folder, "checkpoint/model"));
    trainer_destroy(trainer);
    device_destroy(dev);
    comms_release(&world);
    must(fsx_remove_tree(scratch, &err), &err);
}

int main(int argc, char **argv)
{
    static const char *const parts[] = {"safetensors", "shard", "topology", "checkpoint"};
    struct err err;
    if (argc != 2) {
        fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return 2;
    }
    for (size_t i = 0; i < 4; i++)
        must(fsx_mkdirs(in(argv[1], parts[i]), 0755, &err), &err);
    make_safetensors(argv[1]);
    make_shards(argv[1]);
    make_topology(argv[1]);
    make_checkpoint(argv[1]);
    return 0;
}
