/* Whole training steps with muon and tans: the way down, PyTorch's curve, threads, resuming. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/checkpoint.h"
#include "engine/philox.h"
#include "engine/sparse/refresher.h"
#include "proto/base/buf.h"
#include "proto/base/fsx.h"
#include "tests/engine/golden.h"
#include "tests/engine/training.h"

#define CURVE_PATH HEBB_SOURCE_DIR "/tests/golden/tans_curve.safetensors"

static struct trainer_config optim_config(const char *optimizer, const char *method, unsigned n,
                                          unsigned m)
{
    struct trainer_config config = config_of(method, n, m);
    config.optimizer = optimizer;
    config.eps = strcmp(optimizer, "tans") == 0 ? 1e-5 : 1e-8;
    config.weight_decay = 0;
    config.optim = (struct optim_options){
        .adam_lr_ratio = 1, .adam_eps = 1e-8, .momentum = 0.95, .gamma_ns = 0.5, .ramp = 8};
    return config;
}

static void loss_falls_with_every_optimizer_dense_and_sparse(void **state)
{
    (void)state;
    static const char *const METHODS[] = {"dense", "chts24"};
    static const char *const OPTIMIZERS[] = {"muon", "tans"};
    for (size_t i = 0; i < 4; i++) {
        struct world world;
        struct trainer_config config =
            optim_config(OPTIMIZERS[i / 2], METHODS[i % 2], 1, i % 2 ? 4 : 1);
        config.batch = 4;
        setup(&world, &config, 1, "cpu", 1);
        double first = step_loss(&world.ranks[0]), last = first;
        while (only(&world)->step < config.steps)
            last = step_loss(&world.ranks[0]);
        if (!(last < 0.6 * first))
            fail_msg("%s, %s: from %g to %g", config.optimizer, METHODS[i % 2], first, last);
        teardown(&world);
    }
}

/* ---- PyTorch's curve ---- */

/* Fifty steps in single precision against double. */
static const double CURVE_TOLERANCE = 1e-3;

static struct trainer_config curve_config(const struct st_file *golden,
                                          const struct st_file *curve)
{
    return (struct trainer_config){.shape = golden_shape(golden, 1, 4),
                                   .method = {.name = "static"},
                                   .steps = golden_size(curve, "steps"),
                                   .warmup = golden_size(curve, "warmup"),
                                   .batch = 4,
                                   .micro_batch = 2,
                                   .context = golden_size(golden, "context"),
                                   .optimizer = "tans",
                                   .lr = golden_number(curve, "lr"),
                                   .min_lr_ratio = golden_number(curve, "min_lr_ratio"),
                                   .beta1 = golden_number(curve, "beta1"),
                                   .beta2 = golden_number(curve, "beta2"),
                                   .eps = golden_number(curve, "eps"),
                                   .weight_decay = golden_number(curve, "weight_decay"),
                                   .grad_clip = golden_number(curve, "grad_clip"),
                                   .optim = {.adam_lr_ratio = 1,
                                             .adam_eps = golden_number(curve, "adam_eps"),
                                             .gamma_ns = golden_number(curve, "gamma_ns"),
                                             .ramp = golden_size(curve, "ramp"),
                                             .rms = RMS_POST_MASK}};
}

/* The masks that PyTorch drew after this step, by way of the refresh's repair. */
static void take_masks(struct refresher *refresher, const struct st_file *curve, size_t step)
{
    for (size_t k = 0; k < refresher->target_count; k++) {
        struct nm *w = refresher->targets[k].param->nm;
        const size_t groups = w->dout * nm_groups(w);
        char prefix[32];
        size_t bytes = 0;
        snprintf(prefix, sizeof prefix, "place.%zu.", step);
        uint8_t *places = golden_data(curve, &bytes, prefix, refresher->targets[k].param->name);
        assert_int_equal(bytes, groups);
        struct refresh_job job = {.refresher = refresher,
                                  .scratch = &refresher->scratch,
                                  .config = &refresher->config,
                                  .w = w,
                                  .target = k,
                                  .refresh = 1};
        memcpy(job.scratch->codes_before, w->codes, groups * sizeof *w->codes);
        for (size_t i = 0; i < groups; i++)
            w->codes[i] = w->patterns->code_of[1U << places[i]];
        repair_run(&job);
        refresher->model->dev->ops->nm_repack(refresher->model->dev, w);
        free(places);
    }
}

static void check_curve(const struct st_file *golden, const struct st_file *curve,
                        const char *device)
{
    struct comms_world comms;
    struct rank rank;
    char path[PATH_SIZE];
    size_t bytes = 0, every = golden_size(curve, "every");
    int32_t *tokens = golden_data(golden, &bytes, "", "curve.tokens");
    float *losses = golden_data(curve, &bytes, "", "loss");
    struct trainer_config config = curve_config(golden, curve);
    const struct method_config method = {.name = "set",
                                         .steps = config.steps,
                                         .interval = every,
                                         .until = 1,
                                         .zeta = 0.1,
                                         .temperature_start = 1,
                                         .temperature_end = 1,
                                         .score = SCORE_RANDOM};
    struct refresher *refresher = NULL;
    write_tokens(path, tokens, 4 * config.context + 1);
    comms_init(&comms, &rank.comm, 1);
    open_rank(&rank, path, "raw-uint16", 0, &config, device, 1);
    unlink(path);
    golden_load(rank.trainer->model, golden);
    assert_int_equal(refresher_create(&refresher, &method, rank.trainer->model, NULL), 0);
    for (size_t step = 1; step <= config.steps; step++) {
        double loss = step_loss(&rank), want;
        memcpy(&want, (const char *)losses + (step - 1) * sizeof want, sizeof want);
        if (!(fabs(loss - want) <= CURVE_TOLERANCE * want))
            fail_msg("%s: loss %.7f at step %zu, PyTorch %.7f", device, loss, step, want);
        if (step % every == 0 && step < config.steps)
            take_masks(refresher, curve, step);
    }
    refresher_destroy(refresher);
    close_rank(&rank);
    comms_release(&comms);
    free(tokens);
    free(losses);
}

static void fifty_steps_of_tans_with_a_mask_schedule_follow_pytorch(void **state)
{
    (void)state;
    struct st_file *golden, *curve;
    assert_int_equal(st_open(&golden, GOLDEN_PATH, NULL), 0);
    assert_int_equal(st_open(&curve, CURVE_PATH, NULL), 0);
    for (size_t d = 0; d < DEVICE_COUNT; d++)
        check_curve(golden, curve, DEVICES[d]);
    st_close(golden);
    st_close(curve);
}

/* ---- what must not matter ---- */

static void expect_equal_ages(const struct model *a, const struct model *b)
{
    assert_int_equal(a->refresh_age != NULL, b->refresh_age != NULL);
    assert_int_equal(a->ages != NULL, b->ages != NULL);
    if (a->refresh_age)
        assert_memory_equal(a->refresh_age, b->refresh_age,
                            a->param_count * sizeof *a->refresh_age);
    if (a->ages)
        assert_memory_equal(a->ages, b->ages, a->count * sizeof *a->ages);
}

/* Wide enough that every product has several tasks. */
static void threads_do_not_change_a_bit(void **state)
{
    (void)state;
    static const char *const OPTIMIZERS[] = {"muon", "tans"};
    for (size_t i = 0; i < 2; i++) {
        struct world one, three;
        struct trainer_config config = optim_config(OPTIMIZERS[i], "chts24", 2, 4);
        config.shape.hidden = 160;
        config.shape.intermediate = 304;
        config.shape.layers = 1;
        config.batch = 2;
        config.micro_batch = 2;
        config.method.interval = 3;
        config.optim.ramp = 2;
        config.optim.age_correction = true;
        setup(&one, &config, 1, "cpu", 1);
        setup(&three, &config, 1, "cpu", 3);
        for (int step = 0; step < 6; step++)
            assert_true(step_loss(&one.ranks[0]) == step_loss(&three.ranks[0]));
        assert_int_equal(only(&one)->refresh, 2);
        expect_equal_models(only(&one)->model, only(&three)->model);
        expect_equal_ages(only(&one)->model, only(&three)->model);
        teardown(&one);
        teardown(&three);
    }
}

/* In a thread, where cmocka must not jump: NULL if the step was made. */
static void *train_once(void *context)
{
    struct rank *rank = context;
    struct step_result result;
    return trainer_step(rank->trainer, NULL, &result, NULL) == 0 ? NULL : context;
}

static void two_ranks_agree_on_every_bit(void **state)
{
    (void)state;
    struct world world;
    struct trainer_config config = optim_config("tans", "chts24", 1, 4);
    config.optim.age_correction = true;
    setup(&world, &config, 2, "cpu", 1);
    pthread_t other;
    struct model *models[2] = {world.ranks[0].trainer->model, world.ranks[1].trainer->model};
    for (int step = 0; step < 10; step++) {
        void *failed = NULL;
        assert_int_equal(pthread_create(&other, NULL, train_once, &world.ranks[1]), 0);
        assert_null(train_once(&world.ranks[0]));
        assert_int_equal(pthread_join(other, &failed), 0);
        assert_null(failed);
    }
    assert_int_equal(world.ranks[0].trainer->step, 10);
    assert_int_equal(world.ranks[0].trainer->refresh, 1);
    expect_equal_models(models[0], models[1]);
    expect_equal_ages(models[0], models[1]);
    teardown(&world);
}

/* Same files, byte by byte. */
static void expect_equal_files(const char *left, const char *right, const char *name)
{
    struct buf texts[2];
    for (int i = 0; i < 2; i++) {
        char path[FSX_PATH_MAX];
        buf_init(&texts[i], 1 << 24);
        assert_int_equal(fsx_path(path, NULL, "%s/step-00000020/%s", i ? right : left, name),
                         0);
        assert_int_equal(fsx_read(&texts[i], path, NULL), 0);
    }
    assert_int_equal(texts[0].len, texts[1].len);
    assert_memory_equal(texts[0].data, texts[1].data, texts[0].len);
    buf_release(&texts[0]);
    buf_release(&texts[1]);
}

static void train_to(struct world *world, size_t step)
{
    while (only(world)->step < step)
        step_loss(&world->ranks[0]);
}

static void a_resumed_run_writes_the_same_bytes(const char *optimizer, bool age_correction)
{
    static const char *const FILES[] = {"model.safetensors", "state.safetensors", "train.json"};
    char left[] = "/tmp/test_optim_XXXXXX", right[] = "/tmp/test_optim_XXXXXX";
    uint64_t bytes;
    bool found = false;
    struct err err = {0};
    struct trainer_config config = optim_config(optimizer, "chts24", 1, 4);
    config.optim.age_correction = age_correction;
    struct world whole, parts;
    assert_non_null(mkdtemp(left));
    assert_non_null(mkdtemp(right));
    setup(&whole, &config, 1, "cpu", 1);
    train_to(&whole, 20);
    assert_int_equal(checkpoint_save(only(&whole), left, &bytes, NULL), 0);
    setup(&parts, &config, 1, "cpu", 1);
    train_to(&parts, 11); /* three steps after a refresh: inside the ramp */
    assert_int_equal(checkpoint_save(only(&parts), right, &bytes, NULL), 0);
    teardown(&parts);
    setup(&parts, &config, 1, "cpu", 2);
    if (checkpoint_resume(only(&parts), right, &found, NULL, &err) != 0)
        fail_msg("%s", err.text);
    assert_true(found && only(&parts)->step == 11);
    train_to(&parts, 20);
    assert_int_equal(checkpoint_save(only(&parts), right, &bytes, NULL), 0);
    expect_equal_models(only(&whole)->model, only(&parts)->model);
    expect_equal_ages(only(&whole)->model, only(&parts)->model);
    for (size_t i = 0; i < sizeof FILES / sizeof FILES[0]; i++)
        expect_equal_files(left, right, FILES[i]);
    teardown(&whole);
    teardown(&parts);
    assert_int_equal(fsx_remove_tree(left, NULL), 0);
    assert_int_equal(fsx_remove_tree(right, NULL), 0);
}

static void a_resumed_run_equals_the_uninterrupted_one(void **state)
{
    (void)state;
    a_resumed_run_writes_the_same_bytes("tans", false);
    a_resumed_run_writes_the_same_bytes("tans", true);
    a_resumed_run_writes_the_same_bytes("muon", false);
}

static void a_checkpoint_with_other_options_is_refused(void **state)
{
    (void)state;
    char folder[] = "/tmp/test_optim_XXXXXX";
    uint64_t bytes;
    bool found = false;
    struct err err = {0};
    struct trainer_config config = optim_config("tans", "chts24", 1, 4);
    struct world world;
    assert_non_null(mkdtemp(folder));
    setup(&world, &config, 1, "cpu", 1);
    assert_int_equal(checkpoint_save(only(&world), folder, &bytes, NULL), 0);
    teardown(&world);
    config.optim.rms = RMS_NONE;
    setup(&world, &config, 1, "cpu", 1);
    assert_int_equal(checkpoint_resume(only(&world), folder, &found, NULL, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "run.rms was \"post-mask\""));
    teardown(&world);
    assert_int_equal(fsx_remove_tree(folder, NULL), 0);
}

/* ---- matrices shared by the ranks ---- */

enum { SHARED_STEPS = 4 };

/* Steps of the optimizer alone, with gradients that depend on the step only. */
static void *run_updates(void *context)
{
    struct rank *rank = context;
    struct trainer *trainer = rank->trainer;
    struct model *model = trainer->model;
    for (size_t step = 1; step <= SHARED_STEPS; step++) {
        const struct philox key = {
            .seed = step, .purpose = PHILOX_GENERATE, .stream = (uint32_t)step};
        const struct optim_args args = {.lr = 0.01,
                                        .beta1 = 0.9,
                                        .beta2 = 0.999,
                                        .eps = 1e-5,
                                        .weight_decay = 0.1,
                                        .grad_scale = 0.5,
                                        .step = step,
                                        .comm = &rank->comm.comm};
        for (size_t i = 0; i < model->count; i++)
            model->grads[i] = (real)philox_normal(&key, i);
        if (trainer->optim->optimizer->step(trainer->optim, model, &args, NULL) != 0)
            return context;
    }
    return NULL;
}

static void matrices_shared_by_ranks_have_the_bits_of_one_rank(void **state)
{
    (void)state;
    static const char *const OPTIMIZERS[] = {"muon", "tans"};
    enum { SIZE = 3 };
    for (size_t i = 0; i < 4; i++) {
        struct world one, all;
        pthread_t ids[SIZE];
        void *failed = NULL;
        const struct trainer_config config =
            optim_config(OPTIMIZERS[i / 2], i % 2 ? "static" : "dense", 1, i % 2 ? 4 : 1);
        struct trainer_config shared = config;
        shared.batch = 12;
        setup(&one, &config, 1, "cpu", 1);
        setup(&all, &shared, SIZE, "cpu", 2);
        assert_null(run_updates(&one.ranks[0]));
        for (int r = 0; r < SIZE; r++)
            assert_int_equal(pthread_create(&ids[r], NULL, run_updates, &all.ranks[r]), 0);
        for (int r = 0; r < SIZE; r++) {
            pthread_join(ids[r], &failed);
            assert_null(failed);
            expect_equal_models(only(&one)->model, all.ranks[r].trainer->model);
        }
        teardown(&one);
        teardown(&all);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loss_falls_with_every_optimizer_dense_and_sparse),
        cmocka_unit_test(fifty_steps_of_tans_with_a_mask_schedule_follow_pytorch),
        cmocka_unit_test(threads_do_not_change_a_bit),
        cmocka_unit_test(two_ranks_agree_on_every_bit),
        cmocka_unit_test(matrices_shared_by_ranks_have_the_bits_of_one_rank),
        cmocka_unit_test(a_resumed_run_equals_the_uninterrupted_one),
        cmocka_unit_test(a_checkpoint_with_other_options_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
