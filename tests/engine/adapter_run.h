/* Training runs of a small model with an adapter on a text that is soon learned by heart. */
#ifndef TESTS_ENGINE_ADAPTER_RUN_H
#define TESTS_ENGINE_ADAPTER_RUN_H

#include "tests/engine/checkpoint_fixture.h"

#include "engine/data.h"
#include <unistd.h>

/* A sentence over and over: soon learned by heart. */
static const char adapter_text[] = "the quick brown fox jumps over the lazy dog; ";

struct run {
    struct comms_world world;
    struct comms_rank rank;
    struct pool *pool;
    struct device *dev;
    struct dataset *data;
    struct trainer *trainer;
};

static inline struct trainer_config adapter_config(const char *method, unsigned n, unsigned m,
                                                   enum adapter_kind kind)
{
    struct trainer_config config = fixture_config(method, n, m);
    config.shape.vocab = DATA_BYTES_VOCAB;
    config.shape.context = config.context = 16;
    config.shape.adapter = (struct adapter_shape){.kind = kind,
                                                  .rank = 3,
                                                  .hidden = kind == ADAPTER_COMOLORA ? 2 : 0,
                                                  .gamma = kind == ADAPTER_COMOLORA ? 0.5 : 0,
                                                  .alpha = 3};
    config.batch = 4;
    config.micro_batch = 2;
    config.lr = 0.01;
    return config;
}

static inline void run_open(struct run *run, const struct trainer_config *config,
                            unsigned threads)
{
    struct err err = {0};
    char path[] = "/tmp/test_adapter_XXXXXX";
    const char *paths[] = {path};
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    for (int i = 0; i < 60; i++)
        assert_int_equal(write(fd, adapter_text, sizeof adapter_text - 1),
                         sizeof adapter_text - 1);
    close(fd);
    const struct dataset_config data = {.train = paths,
                                        .train_count = 1,
                                        .validation_fraction = 0.1,
                                        .format = "text",
                                        .context = config->context,
                                        .vocab = config->shape.vocab,
                                        .seed = config->seed};
    comms_init(&run->world, &run->rank, 1);
    assert_int_equal(pool_create(&run->pool, threads, NULL), 0);
    assert_int_equal(device_create(&run->dev, "cpu", run->pool, NULL), 0);
    assert_int_equal(dataset_open(&run->data, &data, 0, 1, &err), 0);
    if (trainer_create(&run->trainer, config, run->dev, &run->rank.comm, run->data, &err) != 0)
        fail_msg("%s", err.text);
    unlink(path); /* the data set keeps it open */
}

static inline void run_close(struct run *run)
{
    trainer_destroy(run->trainer);
    dataset_close(run->data);
    device_destroy(run->dev);
    pool_destroy(run->pool);
    comms_release(&run->world);
}

/* Steps up to `step`; returns the last loss. */
static inline double run_until(struct run *run, size_t step)
{
    struct step_result result = {0};
    struct err err = {0};
    while (run->trainer->step < step)
        if (trainer_step(run->trainer, NULL, &result, &err) != 0)
            fail_msg("%s", err.text);
    return result.loss;
}

#endif
