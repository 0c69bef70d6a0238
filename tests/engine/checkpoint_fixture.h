/* A small trained state without data: a trainer whose slabs are filled with known numbers. */
#ifndef TESTS_ENGINE_CHECKPOINT_FIXTURE_H
#define TESTS_ENGINE_CHECKPOINT_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/checkpoint.h"
#include "engine/philox.h"
#include "proto/base/fsx.h"
#include "tests/engine/comms.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fixture {
    struct comms_world world;
    struct comms_rank rank;
    struct device *dev;
    struct trainer *trainer;
    char folder[64]; /* removed by fixture_release */
};

static inline struct trainer_config fixture_config(const char *method, unsigned n, unsigned m)
{
    return (struct trainer_config){
        .shape = {.hidden = 16,
                  .intermediate = 24,
                  .layers = 2,
                  .heads = 4,
                  .kv_heads = 2,
                  .vocab = 33,
                  .context = 8,
                  .rope_theta = 10000,
                  .norm_eps = 1e-6,
                  .n = n,
                  .m = m},
        .method = {.name = method,
                   .seed = 7,
                   .steps = 40,
                   .interval = 8,
                   .until = 0.75,
                   .zeta = 0.1,
                   .soft = true,
                   .temperature_start = 1,
                   .temperature_end = 9},
        .steps = 40,
        .warmup = 4,
        .batch = 2,
        .micro_batch = 1,
        .context = 8,
        .seed = UINT64_MAX, /* more digits than a double holds */
        .lr = 1e-3,
        .min_lr_ratio = 0.1,
        .beta1 = 0.9,
        .beta2 = 0.999,
        .eps = 1e-8,
        .grad_clip = 1,
        .guard = {.window = 5, .factor = 10, .rise = 0.5, .skips = 3, .rollbacks = 2},
    };
}

static inline void fixture_open(struct fixture *f, const struct trainer_config *config)
{
    struct err err = {0};
    comms_init(&f->world, &f->rank, 1);
    strcpy(f->folder, "/tmp/test_checkpoint_XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    assert_int_equal(device_create(&f->dev, "ref", NULL, &err), 0);
    if (trainer_create(&f->trainer, config, f->dev, &f->rank.comm, NULL, &err) != 0)
        fail_msg("%s", err.text);
}

/* Fills moments, position and explored maps with numbers that depend on salt. */
static inline void fixture_fill(struct fixture *f, uint64_t salt)
{
    struct model *model = f->trainer->model;
    const struct philox key = {.seed = salt, .purpose = PHILOX_GENERATE};
    for (size_t i = 0; i < model->count; i++) {
        model->weights[i] = (real)philox_normal(&key, i);
        model->moment1[i] = (real)philox_normal(&key, model->count + i);
        model->moment2[i] = (real)philox_uniform(&key, 2 * model->count + i);
    }
    for (size_t i = 0; i < model->code_count; i++)
        model->codes[i] = (uint16_t)(philox_u32(&key, i) % model->patterns->count);
    if (f->trainer->refresher) {
        size_t bytes;
        uint8_t *explored = refresher_explored(f->trainer->refresher, &bytes);
        for (size_t i = 0; i < bytes; i++)
            explored[i] = (uint8_t)philox_u32(&key, 3 * i);
    }
    model_repack(model);
    f->trainer->guard = (struct guard){.skipped = salt + 3, .streak = 1, .rollbacks = 2};
    for (uint64_t i = 0; i < 4 + salt; i++) /* not full for salt 0 only */
        guard_accept(&f->trainer->guard, &f->trainer->config.guard, philox_uniform(&key, i));
    f->trainer->guard.streak = 1;
    f->trainer->step = 8 + salt;
    f->trainer->refresh = 1;
    f->trainer->tokens = (8 + salt) * 16;
}

static inline void fixture_release(struct fixture *f)
{
    trainer_destroy(f->trainer);
    device_destroy(f->dev);
    comms_release(&f->world);
    assert_int_equal(fsx_remove_tree(f->folder, NULL), 0);
}

static inline void assert_same_state(const struct trainer *a, const struct trainer *b)
{
    size_t count = a->model->count, bytes_a = 0, bytes_b = 0;
    assert_int_equal(count, b->model->count);
    assert_memory_equal(a->model->weights, b->model->weights, count * sizeof(real));
    assert_memory_equal(a->model->moment1, b->model->moment1, count * sizeof(real));
    assert_memory_equal(a->model->moment2, b->model->moment2, count * sizeof(real));
    if (a->model->code_count > 0)
        assert_memory_equal(a->model->codes, b->model->codes,
                            a->model->code_count * sizeof(uint16_t));
    if (a->refresher) {
        const uint8_t *left = refresher_explored(a->refresher, &bytes_a);
        const uint8_t *right = refresher_explored(b->refresher, &bytes_b);
        assert_int_equal(bytes_a, bytes_b);
        assert_memory_equal(left, right, bytes_a);
    }
    const struct guard *left = &a->guard, *right = &b->guard;
    const size_t window = a->config.guard.window;
    assert_int_equal(left->skipped, right->skipped);
    assert_int_equal(left->streak, right->streak);
    assert_int_equal(left->rollbacks, right->rollbacks);
    assert_int_equal(left->count, right->count);
    for (size_t i = 1; i <= left->count; i++) /* the newest first */
        assert_true(left->losses[(left->next + window - i) % window] ==
                    right->losses[(right->next + window - i) % window]);
    assert_int_equal(a->step, b->step);
    assert_int_equal(a->refresh, b->refresh);
    assert_int_equal(a->tokens, b->tokens);
}

/* The path of a file of the fixture's folder, in a static buffer. */
static inline const char *fixture_path(const struct fixture *f, const char *name)
{
    static char path[FSX_PATH_MAX];
    assert_int_equal(fsx_path(path, NULL, "%s/%s", f->folder, name), 0);
    return path;
}

/* A file's bytes with one changed by `flip` at `offset` from the start, or from the end if
 * negative. */
static inline void fixture_damage(const char *path, long offset, int flip)
{
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, offset, offset < 0 ? SEEK_END : SEEK_SET), 0);
    int byte = fgetc(file);
    assert_int_equal(fseek(file, -1, SEEK_CUR), 0);
    fputc(byte ^ flip, file);
    fclose(file);
}

#endif
