/* slope: a static mask, and a lora branch that is trained in the last share of the steps only.
 */
#include "tests/engine/adapter_run.h"

#include "engine/model_private.h"

static struct trainer_config slope_config(double share)
{
    struct trainer_config config = adapter_config("slope", 1, 4, ADAPTER_LORA);
    config.method.branch_share = share;
    config.weight_decay = 0.1;
    config.grad_clip = 0.5; /* below the norms of these runs */
    return config;
}

/* Where the branches' entries begin in the slabs. */
static size_t branch_at(const struct model *model)
{
    return model->params[model_base_count(&model->shape)].offset;
}

static void the_branch_works_in_the_last_share_of_the_steps(void **state)
{
    (void)state;
    static const struct {
        size_t steps;
        double share;
        size_t resting; /* floor(steps (1 - share)) */
    } cases[] = {{1000, 0.01, 990}, {100, 0.07, 93},     {100, 0.01, 99}, {99, 0.01, 98},
                 {40, 0.25, 30},    {40, 1, 0},          {1, 0.01, 0},    {3, 0.5, 1},
                 {10, 0.3, 7},      {10000, 1e-4, 9999}, {7, 1e-4, 6}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct trainer_config config = slope_config(cases[i].share);
        config.steps = cases[i].steps;
        for (size_t step = 1; step <= cases[i].steps; step++)
            assert_int_equal(trainer_branch_step(&config, step),
                             step > cases[i].resting ? step - cases[i].resting : 0);
    }
    struct trainer_config other = adapter_config("static", 1, 4, ADAPTER_LORA);
    assert_int_equal(trainer_branch_step(&other, 1), 1);
    assert_int_equal(trainer_branch_step(&other, 17), 17);
}

/* One step of both; what the results say must be the same bits. */
static void step_both(struct run *slope, struct run *plain)
{
    struct step_result a, b;
    struct err err = {0};
    if (trainer_step(slope->trainer, NULL, &a, &err) != 0 ||
        trainer_step(plain->trainer, NULL, &b, &err) != 0)
        fail_msg("%s", err.text);
    assert_true(a.loss == b.loss && a.grad_norm == b.grad_norm);
    assert_true(a.grad_norm > slope->trainer->config.grad_clip);
}

static double evaluate(struct run *run)
{
    double loss = 0;
    size_t tokens = 0;
    struct err err = {0};
    if (trainer_evaluate(run->trainer, 0, &loss, &tokens, &err) != 0)
        fail_msg("%s", err.text);
    return loss;
}

static void until_then_the_run_is_that_of_static_bit_for_bit(void **state)
{
    (void)state;
    static const char *const optimizers[] = {"adamw", "muon", "tans"};
    enum { RESTING = 30 };
    for (size_t i = 0; i < 3; i++) {
        struct run slope, plain;
        struct trainer_config config = slope_config(0.25);
        config.optimizer = optimizers[i];
        config.optim = (struct optim_options){
            .adam_lr_ratio = 1, .adam_eps = 1e-8, .momentum = 0.95, .gamma_ns = 0.5, .ramp = 8};
        config.shape.layout = i == 0 ? NM_LAYOUT_BLOCK : NM_LAYOUT_ROW;
        config.lr = 0.002;
        run_open(&slope, &config, 2);
        config.method.name = "static";
        config.shape.adapter = (struct adapter_shape){0};
        run_open(&plain, &config, 1);
        struct model *model = slope.trainer->model, *other = plain.trainer->model;
        const size_t base = branch_at(model), branch = model->count - base;
        assert_int_equal(base, other->count);
        real *start = malloc(branch * sizeof *start), *none = calloc(branch, sizeof *none);
        assert_true(start && none);
        memcpy(start, model->weights + base, branch * sizeof *start);
        for (size_t step = 1; step <= RESTING; step++) {
            step_both(&slope, &plain);
            assert_memory_equal(model->weights, other->weights, base * sizeof(real));
            assert_memory_equal(model->weights + base, start, branch * sizeof(real));
        }
        assert_memory_equal(model->moment1, other->moment1, base * sizeof(real));
        assert_memory_equal(model->moment2, other->moment2, base * sizeof(real));
        assert_memory_equal(model->moment1 + base, none, branch * sizeof(real));
        assert_memory_equal(model->moment2 + base, none, branch * sizeof(real));
        assert_true(evaluate(&slope) == evaluate(&plain));
        /* B's first update: Adam's, whose size is lr where it is counted from 1. */
        run_until(&slope, RESTING + 1);
        const struct param *b = model_adapter_param(model, 1, LAYER_UP, ADAPTER_BT);
        const double lr = trainer_lr(&slope.trainer->config, RESTING + 1);
        double largest = 0;
        for (size_t k = 0; k < b->count; k++) {
            double size = (double)model->weights[b->offset + k];
            largest = size * size > largest ? size * size : largest;
        }
        assert_true(largest > 0.98 * lr * lr && largest < 1.0001 * lr * lr);
        run_until(&slope, config.steps);
        run_until(&plain, config.steps);
        assert_memory_not_equal(model->weights + base, start, branch * sizeof(real));
        assert_memory_not_equal(model->weights, other->weights, base * sizeof(real));
        assert_memory_equal(model->codes, other->codes, model->code_count * sizeof(uint16_t));
        assert_true(evaluate(&slope) != evaluate(&plain));
        free(start);
        free(none);
        run_close(&slope);
        run_close(&plain);
    }
}

static void a_share_of_one_is_static_with_an_adapter(void **state)
{
    (void)state;
    struct run slope, plain;
    struct trainer_config config = slope_config(1);
    run_open(&slope, &config, 1);
    config.method.name = "static";
    run_open(&plain, &config, 1);
    run_until(&slope, config.steps);
    run_until(&plain, config.steps);
    assert_same_state(slope.trainer, plain.trainer);
    run_close(&slope);
    run_close(&plain);
}

/* Saved while the branch rests, after its last step of rest, and while it works. */
static void a_resumed_run_has_the_same_bytes(void **state)
{
    (void)state;
    static const size_t saved[] = {10, 30, 34};
    for (size_t i = 0; i < 3; i++) {
        struct run whole, second;
        char folder[] = "/tmp/test_slope_XXXXXX";
        uint64_t bytes = 0;
        bool found = false;
        struct err err = {0};
        struct trainer_config config = slope_config(0.25);
        assert_non_null(mkdtemp(folder));
        run_open(&whole, &config, 1);
        run_open(&second, &config, 2);
        run_until(&whole, saved[i]);
        assert_int_equal(checkpoint_save(whole.trainer, folder, &bytes, &err), 0);
        const double loss = evaluate(&whole);
        run_until(&whole, config.steps);
        if (checkpoint_resume(second.trainer, folder, &found, NULL, &err) != 0)
            fail_msg("%s", err.text);
        assert_true(found && second.trainer->step == saved[i]);
        assert_true(evaluate(&second) == loss); /* before any step */
        run_until(&second, config.steps);
        assert_same_state(whole.trainer, second.trainer);
        run_close(&second);
        config.method.branch_share = 0.5;
        run_open(&second, &config, 1);
        assert_int_equal(checkpoint_resume(second.trainer, folder, &found, NULL, &err),
                         ERR_INVALID);
        assert_non_null(strstr(err.text, "method.branch_share was 0.25"));
        run_close(&second);
        run_close(&whole);
        assert_int_equal(fsx_remove_tree(folder, NULL), 0);
    }
}

static void another_adapter_or_no_share_is_refused(void **state)
{
    (void)state;
    static const struct {
        enum adapter_kind kind;
        double share;
        const char *text;
    } cases[] = {{ADAPTER_NONE, 0.1, "adapter.name is \"none\""},
                 {ADAPTER_COMOLORA, 0.1, "adapter.name is \"comolora\""},
                 {ADAPTER_LORA, 0, "sparsity.branch_share is 0"},
                 {ADAPTER_LORA, 1.5, "sparsity.branch_share is 1.5"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct trainer_config config = adapter_config("slope", 1, 4, cases[i].kind);
        struct device *dev = NULL;
        struct comms_world world;
        struct comms_rank rank;
        struct trainer *trainer = NULL;
        struct err err = {0};
        if (cases[i].kind == ADAPTER_NONE)
            config.shape.adapter = (struct adapter_shape){0};
        config.method.branch_share = cases[i].share;
        comms_init(&world, &rank, 1);
        assert_int_equal(device_create(&dev, "ref", NULL, NULL), 0);
        assert_int_equal(trainer_create(&trainer, &config, dev, &rank.comm, NULL, &err),
                         ERR_INVALID);
        assert_non_null(strstr(err.text, cases[i].text));
        device_destroy(dev);
        comms_release(&world);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_branch_works_in_the_last_share_of_the_steps),
        cmocka_unit_test(until_then_the_run_is_that_of_static_bit_for_bit),
        cmocka_unit_test(a_share_of_one_is_static_with_an_adapter),
        cmocka_unit_test(a_resumed_run_has_the_same_bytes),
        cmocka_unit_test(another_adapter_or_no_share_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
