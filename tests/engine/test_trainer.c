/* Training steps on real data files: the way down, PyTorch's curve, and what must not matter.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/engine/golden.h"
#include "tests/engine/training.h"

/* Sums in another order: losses agree to rounding, which the steps before the first refresh
 * amplify little. */
static const double REGROUPED = 1e-5;

/* ---- the way down ---- */

static void loss_falls_on_repetitive_text(void **state)
{
    (void)state;
    static const struct {
        const char *method;
        unsigned n, m;
    } CASES[] = {
        {"dense", 1, 1}, {"static", 1, 4}, {"set", 2, 4}, {"rigl", 2, 4}, {"chts24", 1, 4}};
    for (size_t d = 0; d < DEVICE_COUNT; d++) {
        /* The reference is slow: it takes the last method only. */
        for (size_t c = d == 0 ? 4 : 0; c < sizeof CASES / sizeof CASES[0]; c++) {
            struct world world;
            struct trainer_config config = config_of(CASES[c].method, CASES[c].n, CASES[c].m);
            config.batch = 4;
            setup(&world, &config, 1, DEVICES[d], 1);
            double first = step_loss(&world.ranks[0]), last = first;
            while (only(&world)->step < config.steps)
                last = step_loss(&world.ranks[0]);
            assert_true(first > 5 &&
                        first < 7); /* log(257) = 5.5, and a little for the start */
            assert_true(last < 0.6 * first);
            assert_int_equal(only(&world)->tokens,
                             config.steps * config.batch * config.context);
            teardown(&world);
        }
    }
}

/* Mean loss of `chosen` of the validation windows, evenly spread, one by one. */
static double mean_loss(struct rank *rank, size_t chosen)
{
    int32_t inputs[16], targets[16];
    real losses[16];
    double sum = 0;
    size_t windows = dataset_windows(rank->data, SPLIT_VALIDATION);
    for (size_t i = 0; i < chosen; i++) {
        size_t window = (size_t)floor((double)(i * windows) / (double)chosen);
        assert_int_equal(
            dataset_window(rank->data, SPLIT_VALIDATION, window, inputs, targets, NULL), 0);
        model_loss(rank->trainer->model, inputs, targets, losses, 1, 16);
        for (size_t k = 0; k < 16; k++)
            sum += (double)losses[k];
    }
    return sum / (double)(16 * chosen);
}

static void evaluation_takes_every_window_once_or_an_even_choice(void **state)
{
    (void)state;
    struct world world;
    struct trainer_config config = config_of("static", 2, 4);
    config.micro_batch = 8;
    size_t tokens = 0;
    double loss = 0;
    setup(&world, &config, 1, "cpu", 1);
    size_t windows = dataset_windows(world.ranks[0].data, SPLIT_VALIDATION);
    assert_true(windows > 16); /* several passes; of 10 windows the last pass is not full */
    assert_int_equal(trainer_evaluate(only(&world), 0, &loss, &tokens, NULL), 0);
    assert_true(fabs(loss - mean_loss(&world.ranks[0], windows)) < REGROUPED);
    assert_int_equal(trainer_evaluate(only(&world), 10, &loss, &tokens, NULL), 0);
    assert_true(fabs(loss - mean_loss(&world.ranks[0], 10)) < REGROUPED);
    teardown(&world);
}

static void evaluation_falls_with_training_and_counts_its_tokens(void **state)
{
    (void)state;
    struct world world;
    struct trainer_config config = config_of("chts24", 2, 4);
    size_t tokens = 0, some = 0;
    double before = 0, after = 0, again = 0;
    setup(&world, &config, 1, "cpu", 1);
    struct trainer *trainer = only(&world);
    assert_int_equal(trainer_evaluate(trainer, 0, &before, &tokens, NULL), 0);
    assert_int_equal(tokens,
                     dataset_windows(world.ranks[0].data, SPLIT_VALIDATION) * config.context);
    while (trainer->step < config.steps)
        step_loss(&world.ranks[0]);
    assert_int_equal(trainer_evaluate(trainer, 0, &after, &tokens, NULL), 0);
    assert_true(after < 0.6 * before);
    assert_int_equal(trainer_evaluate(trainer, 3, &again, &some, NULL), 0);
    assert_int_equal(some, 3 * config.context);
    assert_int_equal(trainer_evaluate(trainer, 1 << 30, &again, &some, NULL), 0);
    assert_true(again == after && some == tokens);
    teardown(&world);
}

/* ---- what must not matter ---- */

static void threads_do_not_change_a_bit(void **state)
{
    (void)state;
    for (size_t d = 0; d < DEVICE_COUNT; d++) {
        struct world one, three;
        struct trainer_config config = config_of("chts24", 1, 4);
        setup(&one, &config, 1, DEVICES[d], 1);
        setup(&three, &config, 1, DEVICES[d], 3);
        for (int i = 0; i < 10; i++) /* past the first refresh */
            assert_true(step_loss(&one.ranks[0]) == step_loss(&three.ranks[0]));
        assert_int_equal(only(&one)->refresh, 1);
        expect_equal_models(only(&one)->model, only(&three)->model);
        teardown(&one);
        teardown(&three);
    }
}

static void micro_batches_do_not_change_the_loss(void **state)
{
    (void)state;
    for (size_t d = 0; d < DEVICE_COUNT; d++) {
        struct world whole, parts;
        struct trainer_config config = config_of("static", 1, 4);
        config.micro_batch = 8;
        setup(&whole, &config, 1, DEVICES[d], 1);
        config.micro_batch = 2;
        setup(&parts, &config, 1, DEVICES[d], 1);
        for (int i = 0; i < 8; i++) {
            double a = step_loss(&whole.ranks[0]), b = step_loss(&parts.ranks[0]);
            assert_true(fabs(a - b) < REGROUPED * a);
        }
        teardown(&whole);
        teardown(&parts);
    }
}

struct thread {
    struct rank *rank;
    int steps;
    double losses[40], eval_loss;
    size_t repaired, refreshes, eval_tokens;
    int code; /* of the last call */
    struct err err;
};

static void *run_rank(void *context)
{
    struct thread *thread = context;
    for (int i = 0; i < thread->steps; i++) {
        struct step_result result;
        thread->code = trainer_step(thread->rank->trainer, NULL, &result, &thread->err);
        if (thread->code != 0)
            return NULL;
        thread->losses[i] = result.loss;
        thread->repaired += result.masks.repaired;
        thread->refreshes += result.refreshed;
    }
    thread->code = trainer_evaluate(thread->rank->trainer, 5, &thread->eval_loss,
                                    &thread->eval_tokens, &thread->err);
    return NULL;
}

static void run_ranks(struct world *world, struct thread *threads, int steps)
{
    pthread_t ids[COMMS_MAX];
    for (int r = 0; r < world->size; r++) {
        threads[r] = (struct thread){.rank = &world->ranks[r], .steps = steps};
        assert_int_equal(pthread_create(&ids[r], NULL, run_rank, &threads[r]), 0);
    }
    for (int r = 0; r < world->size; r++)
        pthread_join(ids[r], NULL);
}

static void two_ranks_agree_with_each_other_and_with_one(void **state)
{
    (void)state;
    enum { STEPS = 12 };
    struct world one, two;
    struct thread alone[COMMS_MAX], threads[COMMS_MAX];
    struct trainer_config config = config_of("chts24", 1, 4);
    setup(&one, &config, 1, "cpu", 1);
    setup(&two, &config, 2, "cpu", 1);
    run_ranks(&one, alone, STEPS);
    run_ranks(&two, threads, STEPS);
    for (int r = 0; r < 2; r++) {
        assert_int_equal(threads[r].code, 0);
        assert_int_equal(threads[r].refreshes, 1);
        assert_int_equal(threads[r].repaired, 0);
        assert_int_equal(threads[r].eval_tokens, 5 * config.context);
    }
    assert_memory_equal(threads[0].losses, threads[1].losses, STEPS * sizeof(double));
    expect_equal_models(two.ranks[0].trainer->model, two.ranks[1].trainer->model);
    for (int i = 0; i < 8; i++)
        assert_true(fabs(alone[0].losses[i] - threads[0].losses[i]) <
                    REGROUPED * alone[0].losses[i]);
    assert_true(threads[0].eval_loss == threads[1].eval_loss);
    teardown(&one);
    teardown(&two);
}

/* The dense gradients of a refresh are summed over the ranks: all masks are the same. */
static void gradient_refreshes_agree_over_ranks_and_threads(void **state)
{
    (void)state;
    enum { STEPS = 20 };
    struct world two, again;
    struct thread threads[COMMS_MAX], others[COMMS_MAX];
    struct trainer_config config = config_of("rigl", 1, 4);
    setup(&two, &config, 2, "cpu", 1);
    setup(&again, &config, 2, "cpu", 3);
    run_ranks(&two, threads, STEPS);
    run_ranks(&again, others, STEPS);
    for (int r = 0; r < 2; r++) {
        assert_int_equal(threads[r].code, 0);
        assert_int_equal(threads[r].refreshes, 2);
        assert_int_equal(threads[r].repaired, 0);
        expect_equal_models(two.ranks[0].trainer->model, again.ranks[r].trainer->model);
    }
    expect_equal_models(two.ranks[0].trainer->model, two.ranks[1].trainer->model);
    teardown(&two);
    teardown(&again);
}

/* More gradients than one collective carries. */
static void every_gradient_of_a_large_model_is_summed(void **state)
{
    (void)state;
    struct world world;
    struct thread threads[COMMS_MAX];
    struct trainer_config config = config_of("dense", 1, 1);
    config.shape.hidden = 256;
    config.shape.intermediate = 1024;
    config.batch = 2;
    config.micro_batch = 1;
    config.context = 8;
    setup(&world, &config, 2, "cpu", 1);
    const struct model *model = world.ranks[0].trainer->model;
    assert_true(model->count * sizeof(real) > 8 << 20); /* two buckets of 4 MiB and a rest */
    run_ranks(&world, threads, 2);
    assert_int_equal(threads[0].code, 0);
    expect_equal_models(model, world.ranks[1].trainer->model);
    teardown(&world);
}

static void a_mask_that_differs_is_repaired_at_the_refresh(void **state)
{
    (void)state;
    struct world world;
    struct thread threads[COMMS_MAX];
    struct trainer_config config = config_of("chts24", 1, 4);
    setup(&world, &config, 2, "cpu", 1);
    struct model *model = world.ranks[1].trainer->model;
    model->codes[0] = (uint16_t)((model->codes[0] + 1) % 4);
    model_repack(model);
    run_ranks(&world, threads, 8);
    assert_int_equal(threads[0].code, 0);
    assert_true(threads[0].repaired >= 1);
    assert_int_equal(threads[0].repaired, threads[1].repaired);
    assert_memory_equal(model->codes, world.ranks[0].trainer->model->codes,
                        model->code_count * sizeof *model->codes);
    teardown(&world);
}

/* ---- PyTorch's curve ---- */

/* Losses of 20 steps of Adam in single precision against double: rounding of 1e-7 a step,
 * amplified by Adam where a gradient is near zero. */
static const double CURVE_TOLERANCE = 1e-4;

static struct trainer_config golden_config(const struct st_file *file)
{
    return (struct trainer_config){.shape = golden_shape(file, 1, 4),
                                   .method = {.name = "static"},
                                   .steps = golden_size(file, "steps"),
                                   .warmup = golden_size(file, "warmup"),
                                   .batch = 4,
                                   .micro_batch = 2,
                                   .context = golden_size(file, "context"),
                                   .optimizer = "adamw",
                                   .lr = golden_number(file, "lr"),
                                   .min_lr_ratio = golden_number(file, "min_lr_ratio"),
                                   .beta1 = 0.9,
                                   .beta2 = 0.999,
                                   .eps = 1e-8,
                                   .weight_decay = golden_number(file, "weight_decay"),
                                   .grad_clip = golden_number(file, "grad_clip")};
}

static void check_curve(const struct st_file *file, const char *device)
{
    struct comms_world comms;
    struct rank rank;
    char path[PATH_SIZE];
    size_t bytes = 0;
    int32_t *tokens = golden_data(file, &bytes, "", "curve.tokens");
    float *losses = golden_data(file, &bytes, "", "curve.loss");
    float *norms = golden_data(file, &bytes, "", "curve.grad_norm");
    struct trainer_config config = golden_config(file);
    assert_int_equal(bytes, config.steps * sizeof *norms);
    /* Four windows and a batch of four: every step sees them all, in whatever order. */
    write_tokens(path, tokens, 4 * config.context + 1);
    comms_init(&comms, &rank.comm, 1);
    open_rank(&rank, path, "raw-uint16", 0, &config, device, 1);
    unlink(path);
    assert_int_equal(dataset_windows(rank.data, SPLIT_TRAIN), 4);
    golden_load(rank.trainer->model, file);
    for (size_t i = 0; i < config.steps; i++) {
        struct step_result result;
        assert_int_equal(trainer_step(rank.trainer, NULL, &result, NULL), 0);
        if (fabs(result.loss - (double)losses[i]) > CURVE_TOLERANCE * (double)losses[i])
            fail_msg("%s: loss %.7f at step %zu, PyTorch %.7f", device, result.loss, i + 1,
                     (double)losses[i]);
        if (fabs(result.grad_norm - (double)norms[i]) > CURVE_TOLERANCE * (double)norms[i])
            fail_msg("%s: gradient norm %.7f at step %zu, PyTorch %.7f", device,
                     result.grad_norm, i + 1, (double)norms[i]);
    }
    close_rank(&rank);
    comms_release(&comms);
    free(tokens);
    free(losses);
    free(norms);
}

static void twenty_steps_follow_pytorch(void **state)
{
    (void)state;
    struct st_file *file;
    assert_int_equal(st_open(&file, GOLDEN_PATH, NULL), 0);
    for (size_t d = 0; d < DEVICE_COUNT; d++)
        check_curve(file, DEVICES[d]);
    st_close(file);
}

/* ---- schedule and faults ---- */

static void learning_rate_warms_up_and_ends_at_its_floor(void **state)
{
    (void)state;
    const struct trainer_config config = {
        .lr = 2, .min_lr_ratio = 0.1, .warmup = 10, .steps = 110};
    assert_true(trainer_lr(&config, 1) == 0.2);
    assert_true(trainer_lr(&config, 10) == 2);
    assert_true(fabs(trainer_lr(&config, 60) - 1.1) < 1e-12); /* half way of the cosine */
    assert_true(fabs(trainer_lr(&config, 110) - 0.2) < 1e-12);
    for (size_t step = 11; step < 110; step++)
        assert_true(trainer_lr(&config, step) > trainer_lr(&config, step + 1));
    const struct trainer_config warm = {.lr = 1, .min_lr_ratio = 0.5, .warmup = 4, .steps = 4};
    assert_true(trainer_lr(&warm, 4) == 1);
}

static void expect_refused(struct trainer_config config, int ranks, const char *text)
{
    struct trainer *trainer = NULL;
    struct device *dev;
    struct err err = {0};
    struct comms_world comms;
    struct comms_rank comm[COMMS_MAX];
    comms_init(&comms, comm, ranks);
    assert_int_equal(device_create(&dev, "ref", NULL, NULL), 0);
    assert_int_equal(trainer_create(&trainer, &config, dev, &comm[0].comm, NULL, &err),
                     ERR_INVALID);
    assert_null(trainer);
    if (!strstr(err.text, text))
        fail_msg("\"%s\" does not say \"%s\"", err.text, text);
    device_destroy(dev);
    comms_release(&comms);
}

static void wrong_configurations_are_refused_by_name(void **state)
{
    (void)state;
    const struct trainer_config good = config_of("chts24", 1, 4);
    struct trainer_config config = good;
    config.batch = 7, expect_refused(config, 2, "train.batch is 7"), config = good;
    config.micro_batch = 3, expect_refused(config, 1, "train.micro_batch is 3"), config = good;
    config.micro_batch = 8, expect_refused(config, 2, "train.micro_batch is 8"), config = good;
    config.context = 17, expect_refused(config, 1, "train.context is 17"), config = good;
    config.steps = 0, expect_refused(config, 1, "train.steps is 0"), config = good;
    config.method.name = "magic", expect_refused(config, 1, "\"magic\""), config = good;
    config.method.name = "dense", expect_refused(config, 1, "1:4"), config = good;
    config.shape.m = 1, expect_refused(config, 1, "1:1"), config = good;
    config.optimizer = "sgd", expect_refused(config, 1, "\"sgd\""), config = good;
    config.shape.heads = 5, expect_refused(config, 1, "model.hidden is 32");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loss_falls_on_repetitive_text),
        cmocka_unit_test(evaluation_takes_every_window_once_or_an_even_choice),
        cmocka_unit_test(evaluation_falls_with_training_and_counts_its_tokens),
        cmocka_unit_test(threads_do_not_change_a_bit),
        cmocka_unit_test(micro_batches_do_not_change_the_loss),
        cmocka_unit_test(two_ranks_agree_with_each_other_and_with_one),
        cmocka_unit_test(gradient_refreshes_agree_over_ranks_and_threads),
        cmocka_unit_test(every_gradient_of_a_large_model_is_summed),
        cmocka_unit_test(a_mask_that_differs_is_repaired_at_the_refresh),
        cmocka_unit_test(twenty_steps_follow_pytorch),
        cmocka_unit_test(learning_rate_warms_up_and_ends_at_its_floor),
        cmocka_unit_test(wrong_configurations_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
