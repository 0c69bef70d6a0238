/* Runs with faults in them: batches that give no number or a spike, bits that flip. What is
 * left out and rolled back depends on the data alone, so that a resumed run ends with the same
 * bits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/checkpoint.h"
#include "proto/base/fsx.h"
#include "tests/engine/training.h"
#include <math.h>
#include <stdio.h>

enum { POISON = '~', EVERY = 8 };

/* ---- data in which some windows have a poisoned token ---- */

/* The sentences, with a '~' in one of `poison` (0: none), then `noise` bytes without a pattern.
 */
static void write_poisoned(char path[PATH_SIZE], int poison, size_t noise)
{
    strcpy(path, "/tmp/test_guard_XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    for (int i = 0; i < 60; i++) {
        char line[sizeof TEXT];
        strcpy(line, TEXT);
        if (poison > 0 && i % poison == 5)
            line[i % 40] = POISON;
        assert_int_equal(write(fd, line, sizeof TEXT - 1), sizeof TEXT - 1);
    }
    for (size_t i = 0; i < noise; i++) {
        const uint8_t byte = (uint8_t)(128 + i * i * 7919 % 127);
        assert_int_equal(write(fd, &byte, 1), 1);
    }
    close(fd);
}

static void poisoned_setup(struct world *world, const struct trainer_config *config, int size,
                           int poison, size_t noise)
{
    struct comms_rank comms[COMMS_MAX];
    world->size = size;
    comms_init(&world->comms, comms, size);
    write_poisoned(world->path, poison, noise);
    for (int r = 0; r < size; r++) {
        world->ranks[r].comm = comms[r];
        open_rank(&world->ranks[r], world->path, "text", 0.2, config, "cpu", 1);
        struct model *model = world->ranks[r].trainer->model;
        const struct param *embed = model_param(model, "model.embed_tokens.weight");
        if (poison > 0)
            model->weights[embed->offset + POISON * embed->cols] = (real)NAN;
    }
    unlink(world->path);
}

static bool batch_is_poisoned(const struct rank *rank, uint64_t batch)
{
    const struct trainer_config *config = &rank->trainer->config;
    int32_t inputs[16], targets[16];
    bool found = false;
    for (size_t i = 0; i < config->batch; i++) {
        assert_int_equal(dataset_window(rank->data, SPLIT_TRAIN, batch * config->batch + i,
                                        inputs, targets, NULL),
                         0);
        for (size_t k = 0; k < 16; k++)
            found = found || inputs[k] == POISON;
    }
    return found;
}

/* ---- a run as a worker makes it ---- */

struct course {
    struct rank *rank;
    const char *folder; /* of checkpoints; NULL: none */
    size_t calls;       /* of trainer_step at most */
    size_t rejected, rolled_back, gave_up;
};

static void course_reject(struct course *course, const struct step_result *result)
{
    struct trainer *trainer = course->rank->trainer;
    struct err err = {0};
    bool found;
    course->rejected++;
    switch (guard_next(&trainer->guard, &trainer->config.guard, result->verdict)) {
    case GUARD_GO_ON:
        return;
    case GUARD_ROLL_BACK:
        course->rolled_back++;
        if (checkpoint_roll_back(trainer, course->folder, EVERY, &found, NULL, &err) != 0)
            fail_msg("%s", err.text);
        if (!found) {
            const struct guard before = trainer->guard;
            const size_t from = trainer->step;
            trainer_restart(trainer);
            struct param *embed = model_param(trainer->model, "model.embed_tokens.weight");
            trainer->model->weights[embed->offset + POISON * embed->cols] = (real)NAN;
            guard_forget(&trainer->guard);
            guard_rolled_back(&trainer->guard, &before, from, 0);
        }
        return;
    case GUARD_ACCEPT:
        guard_forget(&trainer->guard);
        return;
    case GUARD_GIVE_UP:
        course->gave_up++;
    }
}

static void *course_run(void *context)
{
    struct course *course = context;
    struct trainer *trainer = course->rank->trainer;
    struct err err = {0};
    uint64_t bytes;
    for (size_t i = 0; i < course->calls && trainer->step < trainer->config.steps; i++) {
        struct step_result result;
        if (trainer_step(trainer, NULL, &result, &err) != 0)
            fail_msg("%s", err.text);
        if (result.verdict != GUARD_ACCEPTED) {
            course_reject(course, &result);
            if (course->gave_up > 0)
                break;
        } else if (course->folder && trainer->step % EVERY == 0 &&
                   checkpoint_save(trainer, course->folder, &bytes, &err) != 0) {
            fail_msg("%s", err.text);
        }
    }
    return NULL;
}

static void course_all(struct world *world, struct course *courses, const char *folder,
                       size_t calls)
{
    pthread_t threads[COMMS_MAX];
    for (int r = 0; r < world->size; r++) {
        courses[r] =
            (struct course){.rank = &world->ranks[r], .folder = folder, .calls = calls};
        assert_int_equal(pthread_create(&threads[r], NULL, course_run, &courses[r]), 0);
    }
    for (int r = 0; r < world->size; r++)
        pthread_join(threads[r], NULL);
}

static struct trainer_config guarded(size_t skips, size_t rollbacks)
{
    struct trainer_config config = config_of("chts24", 1, 4);
    config.weight_decay = 0; /* NaN stays in its row */
    config.guard = (struct guard_config){
        .window = 16, .factor = 10, .rise = 3, .skips = skips, .rollbacks = rollbacks};
    return config;
}

/* ---- batches left out ---- */

static void poisoned_batches_are_left_out_and_no_others(void **state)
{
    (void)state;
    struct world guarded_run, oracle;
    struct course course[COMMS_MAX];
    const struct trainer_config config = guarded(1000, 0);
    poisoned_setup(&guarded_run, &config, 1, 13, 0);
    course_all(&guarded_run, course, NULL, SIZE_MAX);
    assert_int_equal(only(&guarded_run)->step, config.steps);
    assert_true(course[0].rejected > 2);
    assert_int_equal(only(&guarded_run)->guard.skipped, course[0].rejected);
    assert_int_equal(only(&guarded_run)->tokens, config.steps * config.batch * config.context);

    /* The oracle reads the batches beforehand and has no guard to ask. */
    struct trainer_config blind = config;
    blind.guard = (struct guard_config){0};
    poisoned_setup(&oracle, &blind, 1, 13, 0);
    struct trainer *trainer = only(&oracle);
    while (trainer->step < config.steps) {
        if (batch_is_poisoned(&oracle.ranks[0], trainer->step + trainer->guard.skipped))
            trainer->guard.skipped++;
        else
            step_loss(&oracle.ranks[0]);
    }
    assert_int_equal(trainer->guard.skipped, course[0].rejected);
    expect_equal_models(only(&guarded_run)->model, trainer->model);
    teardown(&guarded_run);
    teardown(&oracle);
}

static void a_rejected_batch_changes_nothing_but_the_guard(void **state)
{
    (void)state;
    struct world world;
    struct step_result result;
    const struct trainer_config config = guarded(1000, 0);
    poisoned_setup(&world, &config, 1, 13, 0);
    struct trainer *trainer = only(&world);
    const size_t bytes = trainer->model->count * sizeof(real);
    real *weights = malloc(bytes), *moments = malloc(bytes);
    assert_true(weights && moments);
    do {
        memcpy(weights, trainer->model->weights, bytes);
        memcpy(moments, trainer->model->moment2, bytes);
        assert_int_equal(trainer_step(trainer, NULL, &result, NULL), 0);
    } while (result.verdict == GUARD_ACCEPTED);
    assert_int_equal(result.verdict, GUARD_NONFINITE);
    assert_int_equal(result.step, trainer->step + 1);
    assert_int_equal(result.batch, trainer->step);
    assert_int_equal(trainer->guard.skipped, 1);
    assert_memory_equal(weights, trainer->model->weights, bytes);
    assert_memory_equal(moments, trainer->model->moment2, bytes);
    assert_int_equal(trainer->tokens, trainer->step * config.batch * config.context);
    free(weights);
    free(moments);
    teardown(&world);
}

/* ---- roll backs, and runs that are resumed ---- */

static void *resume_one(void *context)
{
    struct course *course = context;
    bool found;
    struct err err = {0};
    if (checkpoint_resume(course->rank->trainer, course->folder, &found, NULL, &err) != 0)
        fail_msg("%s", err.text);
    return NULL;
}

static void resume_all(struct world *world, const char *folder)
{
    struct course courses[COMMS_MAX];
    pthread_t threads[COMMS_MAX];
    for (int r = 0; r < world->size; r++) {
        courses[r] = (struct course){.rank = &world->ranks[r], .folder = folder};
        assert_int_equal(pthread_create(&threads[r], NULL, resume_one, &courses[r]), 0);
    }
    for (int r = 0; r < world->size; r++)
        pthread_join(threads[r], NULL);
}

static void compare_with_interrupted(const struct trainer_config *config, int size, int poison,
                                     const size_t *calls, size_t attempts)
{
    char whole[] = "/tmp/test_guard_XXXXXX", parts[] = "/tmp/test_guard_XXXXXX";
    struct world first;
    struct course course[COMMS_MAX];
    assert_true(mkdtemp(whole) && mkdtemp(parts));
    poisoned_setup(&first, config, size, poison, 0);
    course_all(&first, course, whole, SIZE_MAX);
    assert_true(course[0].rejected > 0 && course[0].rolled_back > 0);
    assert_int_equal(course[0].gave_up, 0);
    assert_int_equal(only(&first)->guard.rollbacks, course[0].rolled_back);
    for (size_t i = 0; i < attempts; i++) {
        struct world next;
        poisoned_setup(&next, config, size, poison, 0);
        resume_all(&next, parts);
        course_all(&next, course, parts, i + 1 < attempts ? calls[i] : SIZE_MAX);
        if (i + 1 == attempts) {
            assert_int_equal(only(&next)->step, config->steps);
            assert_int_equal(only(&next)->guard.skipped, only(&first)->guard.skipped);
            assert_int_equal(only(&next)->guard.rollbacks, only(&first)->guard.rollbacks);
            for (int r = 0; r < size; r++)
                expect_equal_models(only(&first)->model, next.ranks[r].trainer->model);
        }
        teardown(&next);
    }
    teardown(&first);
    assert_int_equal(fsx_remove_tree(whole, NULL), 0);
    assert_int_equal(fsx_remove_tree(parts, NULL), 0);
}

static void a_run_with_roll_backs_resumes_to_the_same_bits(void **state)
{
    (void)state;
    static const size_t calls[] = {11, 9, 13, 10};
    struct trainer_config config = guarded(0, 1000);
    compare_with_interrupted(&config, 1, 30, calls, 5);
    config = guarded(1, 1000);
    config.batch = 16; /* more poisoned ones in a row */
    compare_with_interrupted(&config, 1, 13, calls, 5);
}

static void two_ranks_with_roll_backs_resume_to_the_same_bits(void **state)
{
    (void)state;
    static const size_t calls[] = {19, 14};
    const struct trainer_config config = guarded(0, 1000);
    compare_with_interrupted(&config, 2, 30, calls, 3);
}

static void a_run_that_stays_broken_gives_up_after_its_roll_backs(void **state)
{
    (void)state;
    char folder[] = "/tmp/test_guard_XXXXXX";
    struct world world;
    struct course course[COMMS_MAX];
    const struct trainer_config config = guarded(2, 2);
    assert_non_null(mkdtemp(folder));
    poisoned_setup(&world, &config, 2, 13, 0);
    for (int r = 0; r < 2; r++) { /* every input is poisoned, from the very start */
        struct model *model = world.ranks[r].trainer->model;
        model->weights[model_param(model, "model.norm.weight")->offset] = (real)INFINITY;
    }
    course_all(&world, course, folder, 3);
    assert_int_equal(course[0].rolled_back, 1); /* to the start, which mends it */
    assert_int_equal(only(&world)->step, 0);
    assert_int_equal(only(&world)->guard.skipped, 3);
    for (int round = 0; round < 2; round++) {
        for (int r = 0; r < 2; r++) {
            struct model *model = world.ranks[r].trainer->model;
            model->weights[model_param(model, "model.norm.weight")->offset] = (real)INFINITY;
        }
        course_all(&world, course, folder, 3);
    }
    for (int r = 0; r < 2; r++) {
        assert_int_equal(course[r].gave_up, 1);
        assert_int_equal(world.ranks[r].trainer->guard.rollbacks, 2);
    }
    teardown(&world);
    assert_int_equal(fsx_remove_tree(folder, NULL), 0);
}

/* ---- spikes ---- */

static void batches_of_noise_are_spikes(void **state)
{
    (void)state;
    struct world world;
    struct step_result result;
    struct trainer_config config = guarded(1000, 0);
    size_t spikes = 0, wrong = 0, missed = 0;
    config.batch = config.micro_batch = 1;
    config.steps = config.method.steps = 300;
    config.guard.window = 32;
    poisoned_setup(&world, &config, 1, 0, 200); /* 12 windows of about 180 */
    struct trainer *trainer = only(&world);
    while (trainer->step < config.steps) {
        int32_t inputs[16], targets[16];
        assert_int_equal(dataset_window(world.ranks[0].data, SPLIT_TRAIN,
                                        trainer->step + trainer->guard.skipped, inputs, targets,
                                        NULL),
                         0);
        size_t noise = 0;
        for (size_t k = 0; k < 16; k++)
            noise += targets[k] >= 128;
        assert_int_equal(trainer_step(trainer, NULL, &result, NULL), 0);
        if (result.verdict == GUARD_SPIKE) {
            spikes++;
            wrong += noise == 0;
            assert_true(result.loss > result.limit && isfinite(result.limit));
        } else {
            assert_int_equal(result.verdict, GUARD_ACCEPTED);
            missed += isfinite(result.limit) && noise == 16;
        }
    }
    if (spikes < 5 || missed > spikes)
        fail_msg("%zu spikes found, %zu missed", spikes, missed);
    assert_int_equal(wrong, 0);
    assert_int_equal(trainer->guard.skipped, spikes);
    teardown(&world);
}

/* ---- damaged memory ---- */

struct stepper {
    struct rank *rank;
    size_t steps;
    struct step_result last;
    size_t repaired; /* by comparisons of the state */
    int root;
};

static void *stepper_run(void *context)
{
    struct stepper *stepper = context;
    for (size_t i = 0; i < stepper->steps; i++) {
        if (trainer_step(stepper->rank->trainer, NULL, &stepper->last, NULL) != 0)
            return NULL;
        stepper->repaired += stepper->last.state.repaired;
        if (stepper->last.state.repaired)
            stepper->root = stepper->last.state.root;
    }
    return NULL;
}

static void step_all(struct world *world, struct stepper *steppers, size_t steps)
{
    pthread_t threads[COMMS_MAX];
    for (int r = 0; r < world->size; r++) {
        steppers[r] = (struct stepper){.rank = &world->ranks[r], .steps = steps, .root = -1};
        assert_int_equal(pthread_create(&threads[r], NULL, stepper_run, &steppers[r]), 0);
    }
    for (int r = 0; r < world->size; r++)
        pthread_join(threads[r], NULL);
}

static void a_number_lost_on_one_rank_is_mended_from_the_other(void **state)
{
    (void)state;
    for (int bad = 0; bad < 2; bad++) {
        struct world world;
        struct stepper steppers[COMMS_MAX];
        const struct trainer_config config = guarded(3, 0);
        setup(&world, &config, 2, "cpu", 1);
        step_all(&world, steppers, 2);
        struct model *model = world.ranks[bad].trainer->model;
        model->weights[model_param(model, "model.norm.weight")->offset] = (real)NAN;
        step_all(&world, steppers, 1);
        for (int r = 0; r < 2; r++) {
            assert_int_equal(steppers[r].last.verdict, GUARD_NONFINITE);
            assert_int_equal(steppers[r].repaired, 1);
            assert_int_equal(steppers[r].root, 1 - bad);
            assert_int_equal(world.ranks[r].trainer->step, 2);
        }
        expect_equal_models(world.ranks[0].trainer->model, world.ranks[1].trainer->model);
        step_all(&world, steppers, 5);
        assert_int_equal(steppers[0].last.verdict, GUARD_ACCEPTED);
        assert_int_equal(steppers[0].last.step, 7);
        teardown(&world);
    }
}

static void a_flipped_bit_is_mended_at_the_next_comparison(void **state)
{
    (void)state;
    struct world world;
    struct stepper steppers[COMMS_MAX];
    struct trainer_config config = guarded(3, 0);
    config.compare_every = 4;
    config.batch = 9;
    config.micro_batch = 1;
    setup(&world, &config, 3, "cpu", 1);
    step_all(&world, steppers, 5);
    assert_int_equal(steppers[0].repaired, 0);
    struct model *model = world.ranks[2].trainer->model;
    struct param *param = model_param(model, "model.layers.1.mlp.down_proj.weight");
    ((uint8_t *)(model->weights + param->offset + 9))[1] ^= 16;
    param->nm->codes[3] = (uint16_t)((param->nm->codes[3] + 1) % 4);
    step_all(&world, steppers, 2);
    assert_int_equal(steppers[0].repaired, 0);
    step_all(&world, steppers, 1); /* step 8 */
    for (int r = 0; r < 3; r++) {
        assert_true(steppers[r].last.masks.repaired + steppers[r].repaired > 0);
        expect_equal_models(world.ranks[0].trainer->model, world.ranks[r].trainer->model);
    }
    step_all(&world, steppers, 4);
    assert_int_equal(steppers[0].repaired, 0);
    teardown(&world);
}

/* A sum of gradients whose result is damaged on rank 1. */
static atomic_bool damage_now;

static int damaged_sum(struct comm *comm, real *data, size_t count, struct err *err)
{
    int rc = comms_sum_real(comm, data, count, err);
    if (comm->rank == 1 && atomic_exchange(&damage_now, false))
        data[count / 2] += 1;
    return rc;
}

static void ranks_that_disagree_leave_the_batch_out(void **state)
{
    (void)state;
    struct comm_ops ops = COMMS_OPS;
    struct world world;
    struct stepper steppers[COMMS_MAX];
    const struct trainer_config config = guarded(3, 0);
    ops.sum_real = damaged_sum;
    setup(&world, &config, 2, "cpu", 1);
    for (int r = 0; r < 2; r++)
        world.ranks[r].trainer->comm->ops = &ops;
    step_all(&world, steppers, 3);
    atomic_store(&damage_now, true);
    step_all(&world, steppers, 1);
    for (int r = 0; r < 2; r++) {
        assert_int_equal(steppers[r].last.verdict, GUARD_DISAGREE);
        assert_int_equal(world.ranks[r].trainer->step, 3);
        assert_int_equal(world.ranks[r].trainer->guard.skipped, 1);
        assert_int_equal(steppers[r].repaired, 0); /* no update was made */
    }
    expect_equal_models(world.ranks[0].trainer->model, world.ranks[1].trainer->model);
    step_all(&world, steppers, 1);
    assert_int_equal(steppers[1].last.verdict, GUARD_ACCEPTED);
    teardown(&world);
}

static void a_restart_is_the_state_of_the_start(void **state)
{
    (void)state;
    struct world world, fresh;
    struct trainer_config config = guarded(3, 0);
    config.optimizer = "tans";
    config.eps = 1e-5;
    config.optim = (struct optim_options){.adam_lr_ratio = 1,
                                          .adam_eps = 1e-8,
                                          .gamma_ns = 0.5,
                                          .ramp = 8,
                                          .age_correction = true};
    setup(&world, &config, 1, "cpu", 1);
    setup(&fresh, &config, 1, "cpu", 1);
    for (int i = 0; i < 18; i++)
        step_loss(&world.ranks[0]);
    trainer_restart(only(&world));
    only(&world)->guard = (struct guard){0};
    for (int i = 0; i < 18; i++)
        assert_true(step_loss(&world.ranks[0]) == step_loss(&fresh.ranks[0]));
    expect_equal_models(only(&world)->model, only(&fresh)->model);
    teardown(&world);
    teardown(&fresh);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(poisoned_batches_are_left_out_and_no_others),
        cmocka_unit_test(a_rejected_batch_changes_nothing_but_the_guard),
        cmocka_unit_test(a_run_with_roll_backs_resumes_to_the_same_bits),
        cmocka_unit_test(two_ranks_with_roll_backs_resume_to_the_same_bits),
        cmocka_unit_test(a_run_that_stays_broken_gives_up_after_its_roll_backs),
        cmocka_unit_test(batches_of_noise_are_spikes),
        cmocka_unit_test(a_number_lost_on_one_rank_is_mended_from_the_other),
        cmocka_unit_test(a_flipped_bit_is_mended_at_the_next_comparison),
        cmocka_unit_test(ranks_that_disagree_leave_the_batch_out),
        cmocka_unit_test(a_restart_is_the_state_of_the_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
