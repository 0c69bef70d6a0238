/* Trainers on real data files: one or several ranks in one process, small models. */
#ifndef HEBB_TESTS_ENGINE_TRAINING_H
#define HEBB_TESTS_ENGINE_TRAINING_H

#include "engine/optim/optim.h"
#include "engine/trainer.h"
#include "tests/engine/comms.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const DEVICES[] = {"ref", "cpu"};
enum { DEVICE_COUNT = sizeof DEVICES / sizeof DEVICES[0], PATH_SIZE = 64 };

/* ---- a rank: everything that one process would have ---- */

struct rank {
    struct comms_rank comm;
    struct pool *pool;
    struct device *dev;
    struct dataset *data;
    struct trainer *trainer;
};

struct world {
    char path[PATH_SIZE];
    struct comms_world comms;
    struct rank ranks[COMMS_MAX];
    int size;
};

static const char TEXT[] = "the quick brown fox jumps over the lazy dog; ";

/* A file of the same sentence over and over: soon learned by heart. */
static inline void write_text(char path[PATH_SIZE])
{
    strcpy(path, "/tmp/test_trainer_XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    for (int i = 0; i < 60; i++)
        assert_int_equal(write(fd, TEXT, sizeof TEXT - 1), sizeof TEXT - 1);
    close(fd);
}

static inline struct trainer_config config_of(const char *method, unsigned n, unsigned m)
{
    return (struct trainer_config){
        .shape = {.hidden = 32,
                  .intermediate = 48,
                  .layers = 2,
                  .heads = 4,
                  .kv_heads = 2,
                  .vocab = DATA_BYTES_VOCAB,
                  .context = 16,
                  .rope_theta = 10000,
                  .norm_eps = 1e-6,
                  .n = n,
                  .m = m},
        .method = {.name = method,
                   .seed = 1,
                   .steps = 40,
                   .interval = 8,
                   .until = 0.75,
                   .zeta = 0.2,
                   .soft = true,
                   .temperature_start = 1,
                   .temperature_end = 9},
        .steps = 40,
        .warmup = 4,
        .batch = 8,
        .micro_batch = 4,
        .context = 16,
        .seed = 1,
        .lr = 0.01,
        .min_lr_ratio = 0.1,
        .beta1 = 0.9,
        .beta2 = 0.999,
        .eps = 1e-8,
        .weight_decay = 0.01,
        .grad_clip = 1,
    };
}

static inline void open_rank(struct rank *rank, const char *path, const char *format,
                             double held_out, const struct trainer_config *config,
                             const char *device, unsigned threads)
{
    struct err err = {0};
    const struct dataset_config data = {.train = &path,
                                        .train_count = 1,
                                        .validation_fraction = held_out,
                                        .format = format,
                                        .context = config->context,
                                        .vocab = config->shape.vocab,
                                        .seed = config->seed};
    assert_int_equal(pool_create(&rank->pool, threads, NULL), 0);
    assert_int_equal(device_create(&rank->dev, device, rank->pool, NULL), 0);
    if (dataset_open(&rank->data, &data, rank->comm.comm.rank, rank->comm.comm.size, &err) != 0)
        fail_msg("%s", err.text);
    if (trainer_create(&rank->trainer, config, rank->dev, &rank->comm.comm, rank->data, &err) !=
        0)
        fail_msg("%s", err.text);
}

static inline void close_rank(struct rank *rank)
{
    trainer_destroy(rank->trainer);
    dataset_close(rank->data);
    device_destroy(rank->dev);
    pool_destroy(rank->pool);
}

static inline void setup(struct world *world, const struct trainer_config *config, int size,
                         const char *device, unsigned threads)
{
    struct comms_rank comms[COMMS_MAX];
    world->size = size;
    comms_init(&world->comms, comms, size);
    write_text(world->path);
    for (int r = 0; r < size; r++) {
        world->ranks[r].comm = comms[r];
        open_rank(&world->ranks[r], world->path, "text", 0.2, config, device, threads);
    }
    unlink(world->path); /* the data set keeps it mapped */
}

static inline void teardown(struct world *world)
{
    for (int r = 0; r < world->size; r++)
        close_rank(&world->ranks[r]);
    comms_release(&world->comms);
}

static inline double step_loss(struct rank *rank)
{
    struct step_result result;
    struct err err = {0};
    if (trainer_step(rank->trainer, NULL, &result, &err) != 0)
        fail_msg("%s", err.text);
    return result.loss;
}

static inline struct trainer *only(struct world *world) { return world->ranks[0].trainer; }

static inline void expect_equal_models(const struct model *a, const struct model *b)
{
    assert_memory_equal(a->weights, b->weights, a->count * sizeof(real));
    assert_memory_equal(a->moment1, b->moment1, a->count * sizeof(real));
    assert_memory_equal(a->moment2, b->moment2, a->count * sizeof(real));
    if (a->codes)
        assert_memory_equal(a->codes, b->codes, a->code_count * sizeof *a->codes);
}

static inline void write_tokens(char path[PATH_SIZE], const int32_t *tokens, size_t count)
{
    strcpy(path, "/tmp/test_trainer_XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    for (size_t i = 0; i < count; i++) {
        uint16_t token = (uint16_t)tokens[i];
        assert_int_equal(write(fd, &token, sizeof token), sizeof token);
    }
    close(fd);
}

#endif
