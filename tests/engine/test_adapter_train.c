/* Adapters in training: the way down, decay, and checkpoints. */
#include "tests/engine/adapter_run.h"

#include "engine/model_private.h"
#include <math.h>

static double part_norm(const struct model *model, const char *suffix)
{
    double sum = 0;
    for (size_t i = 0; i < model->param_count; i++) {
        const struct param *param = &model->params[i];
        for (size_t k = 0; strstr(param->name, suffix) && k < param->count; k++)
            sum += pow((double)model->weights[param->offset + k], 2);
    }
    return sum;
}

static void loss_falls_and_every_part_learns(void **state)
{
    (void)state;
    static const struct {
        const char *method;
        unsigned n, m;
        enum adapter_kind kind;
    } cases[] = {{"dense", 1, 1, ADAPTER_LORA},
                 {"dense", 1, 1, ADAPTER_COMOLORA},
                 {"chts24", 1, 4, ADAPTER_LORA},
                 {"chts24", 1, 4, ADAPTER_COMOLORA},
                 {"set", 2, 4, ADAPTER_COMOLORA}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct run run;
        struct trainer_config config =
            adapter_config(cases[i].method, cases[i].n, cases[i].m, cases[i].kind);
        run_open(&run, &config, 1);
        double first = run_until(&run, 1), last = run_until(&run, config.steps);
        assert_true(first > 5 && first < 7); /* log(257) = 5.5 */
        assert_true(last < 0.6 * first);
        assert_true(part_norm(run.trainer->model, "lora_BT") > 0);
        if (cases[i].kind == ADAPTER_COMOLORA) {
            assert_true(part_norm(run.trainer->model, "como.W2") > 0);
            assert_true(part_norm(run.trainer->model, "como.b1") > 0);
            assert_true(part_norm(run.trainer->model, "como.b2") > 0);
        }
        run_close(&run);
    }
}

/* Everything but the branches is put back after each step: what is learned is theirs. */
static void branches_alone_lower_the_loss(void **state)
{
    (void)state;
    struct run run;
    struct trainer_config config = adapter_config("static", 1, 4, ADAPTER_COMOLORA);
    config.warmup = 0;
    run_open(&run, &config, 1);
    struct model *model = run.trainer->model;
    size_t base = model->params[model_base_count(&model->shape)].offset;
    const struct param *head = model_head(model); /* its logits are too small to say much */
    for (size_t k = 0; k < head->count; k++)
        model->weights[head->offset + k] *= REAL(20.0);
    real *kept = malloc(base * sizeof *kept);
    assert_non_null(kept);
    memcpy(kept, model->weights, base * sizeof *kept);
    double first = run_until(&run, 1), last = 0;
    for (size_t step = 2; step <= config.steps; step++) {
        memcpy(model->weights, kept, base * sizeof *kept);
        last = run_until(&run, step);
    }
    assert_true(last < 0.85 * first);
    free(kept);
    run_close(&run);
}

static void threads_do_not_change_a_bit(void **state)
{
    (void)state;
    struct run one, three;
    struct trainer_config config = adapter_config("chts24", 1, 4, ADAPTER_COMOLORA);
    config.micro_batch = 4; /* a panel of 64 tokens */
    run_open(&one, &config, 1);
    run_open(&three, &config, 3);
    run_until(&one, 10); /* past the first refresh */
    run_until(&three, 10);
    assert_same_state(one.trainer, three.trainer);
    run_close(&one);
    run_close(&three);
}

/* Biases have no weight decay, and nothing of a branch is a target. */
static void branches_are_no_targets_and_biases_do_not_decay(void **state)
{
    (void)state;
    const struct model_shape shape = adapter_config("dense", 1, 1, ADAPTER_COMOLORA).shape;
    struct device *dev = NULL;
    struct model *model = NULL;
    assert_int_equal(device_create(&dev, "ref", NULL, NULL), 0);
    assert_int_equal(model_create(&model, dev, &shape, 1, 4, false, NULL), 0);
    for (enum adapter_part part = ADAPTER_A; part < ADAPTER_PARTS; part++) {
        const struct param *param = model_adapter_param(model, 1, LAYER_DOWN, part);
        bool bias = part == ADAPTER_B1 || part == ADAPTER_B2;
        assert_true(param->adapter && !param->target && !param->nm);
        assert_int_equal(param->decay, !bias);
    }
    assert_string_equal(model_adapter_param(model, 1, LAYER_DOWN, ADAPTER_B2)->name,
                        "model.layers.1.mlp.down_proj.como.b2");
    assert_string_equal(model_adapter_param(model, 0, LAYER_Q, ADAPTER_A)->name,
                        "model.layers.0.self_attn.q_proj.lora_A.weight");
    model_destroy(model);
    device_destroy(dev);
}

/* ---- checkpoints ---- */

static void a_resumed_run_has_the_same_bytes(void **state)
{
    (void)state;
    static const enum adapter_kind kinds[] = {ADAPTER_LORA, ADAPTER_COMOLORA};
    for (size_t i = 0; i < 2; i++) {
        struct run whole, second;
        char folder[] = "/tmp/test_adapter_XXXXXX";
        uint64_t bytes = 0;
        bool found = false;
        struct err err = {0};
        struct trainer_config config = adapter_config("chts24", 1, 4, kinds[i]);
        assert_non_null(mkdtemp(folder));
        run_open(&whole, &config, 1);
        run_open(&second, &config, 2);
        run_until(&whole, 10);
        assert_int_equal(checkpoint_save(whole.trainer, folder, &bytes, &err), 0);
        run_until(&whole, 20);
        if (checkpoint_resume(second.trainer, folder, &found, NULL, &err) != 0)
            fail_msg("%s", err.text);
        assert_true(found && second.trainer->step == 10);
        run_until(&second, 20);
        assert_same_state(whole.trainer, second.trainer);
        run_close(&whole);
        run_close(&second);
        assert_int_equal(fsx_remove_tree(folder, NULL), 0);
    }
}

static void a_checkpoint_carries_its_adapter(void **state)
{
    (void)state;
    struct run run, other;
    char folder[] = "/tmp/test_adapter_XXXXXX", *path = NULL;
    uint64_t bytes = 0;
    bool found = false;
    struct err err = {0};
    struct checkpoint_info info;
    struct model *model = NULL;
    struct trainer_config config = adapter_config("static", 2, 4, ADAPTER_COMOLORA);
    assert_non_null(mkdtemp(folder));
    run_open(&run, &config, 1);
    run_until(&run, 5);
    assert_int_equal(checkpoint_save(run.trainer, folder, &bytes, NULL), 0);
    assert_int_equal(checkpoint_newest(&path, folder, NULL), 0);
    assert_int_equal(checkpoint_describe(&info, path, NULL), 0);
    assert_int_equal(info.shape.adapter.kind, ADAPTER_COMOLORA);
    assert_int_equal(info.shape.adapter.rank, 3);
    assert_int_equal(info.shape.adapter.hidden, 2);
    assert_true(info.shape.adapter.gamma == 0.5 && info.shape.adapter.alpha == 3);
    assert_int_equal(checkpoint_load_model(&model, run.dev, path, 2, 0, NULL), 0);
    assert_memory_equal(model->weights, run.trainer->model->weights,
                        model->count * sizeof *model->weights);
    /* The same logits as the trainer's model, and not those of the base alone. */
    const int32_t tokens[16] = {116, 104, 101, 32, 113, 117, 105, 99};
    real a[DATA_BYTES_VOCAB], b[DATA_BYTES_VOCAB];
    model_logits(model, tokens, a, 1, 16, 15, 1);
    model_logits(run.trainer->model, tokens, b, 1, 16, 15, 1);
    assert_memory_equal(a, b, sizeof a);
    size_t base = model->params[model_base_count(&model->shape)].offset;
    memset(model->weights + base, 0, (model->count - base) * sizeof *model->weights);
    model_logits(model, tokens, b, 1, 16, 15, 1);
    assert_memory_not_equal(a, b, sizeof a);

    config.shape.adapter.gamma = 0.25; /* another run's */
    run_open(&other, &config, 1);
    assert_int_equal(checkpoint_resume(other.trainer, folder, &found, NULL, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "shape.adapter_gamma was 0.5"));
    free(path);
    model_destroy(model);
    run_close(&other);
    run_close(&run);
    assert_int_equal(fsx_remove_tree(folder, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loss_falls_and_every_part_learns),
        cmocka_unit_test(branches_alone_lower_the_loss),
        cmocka_unit_test(threads_do_not_change_a_bit),
        cmocka_unit_test(branches_are_no_targets_and_biases_do_not_decay),
        cmocka_unit_test(a_resumed_run_has_the_same_bytes),
        cmocka_unit_test(a_checkpoint_carries_its_adapter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
