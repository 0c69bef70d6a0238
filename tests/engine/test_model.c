/* The model's shape, memory, start and passes; gradients are in test_model_f64.c and
 * test_model_golden.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/model.h"
#include "engine/model_private.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 3, CONTEXT = 7, ROWS = BATCH * CONTEXT, VOCAB = 19 };

static const struct model_shape SHAPE = {.hidden = 16,
                                         .intermediate = 24,
                                         .layers = 2,
                                         .heads = 4,
                                         .kv_heads = 2,
                                         .vocab = VOCAB,
                                         .context = CONTEXT,
                                         .rope_theta = 10000,
                                         .norm_eps = 1e-6,
                                         .n = 1,
                                         .m = 4};

static const char *const DEVICES[] = {"ref", "cpu"};
enum { DEVICE_COUNT = sizeof DEVICES / sizeof DEVICES[0] };

struct fixture {
    struct pool *pool;
    struct device *dev;
    struct model *model;
    int32_t tokens[ROWS], targets[ROWS];
    real loss[ROWS];
};

static void setup(struct fixture *f, const char *device, struct model_shape shape,
                  bool training, unsigned threads)
{
    assert_int_equal(pool_create(&f->pool, threads, NULL), 0);
    assert_int_equal(device_create(&f->dev, device, f->pool, NULL), 0);
    assert_int_equal(model_create(&f->model, f->dev, &shape, BATCH, CONTEXT, training, NULL),
                     0);
    for (size_t i = 0; i < ROWS; i++) {
        f->tokens[i] = (int32_t)(i * i % VOCAB);
        f->targets[i] = (int32_t)(i * 5 % VOCAB);
    }
}

static void teardown(struct fixture *f)
{
    model_destroy(f->model);
    device_destroy(f->dev);
    pool_destroy(f->pool);
}

static void check_sizes(const char *device, struct model_shape shape, bool training)
{
    struct fixture f;
    struct model_bytes bytes;
    setup(&f, device, shape, training, 2);
    const struct model *model = f.model;
    model_sizes(&bytes, device, 2, &shape, BATCH, CONTEXT, training);
    assert_int_equal(bytes.weights, model->count * sizeof(real));
    assert_int_equal(bytes.codes, model->code_count * sizeof(uint16_t));
    assert_int_equal(bytes.packs, model->private_data->pack_bytes);
    assert_int_equal(bytes.gradients, training ? model->count * sizeof(real) : 0);
    assert_int_equal(bytes.optimizer, training ? 2 * model->count * sizeof(real) : 0);
    assert_int_equal(bytes.activations, model->private_data->activation_count * sizeof(real));
    assert_int_equal(bytes.scratch, f.dev->scratch_bytes);
    teardown(&f);
}

static void sizes_are_what_the_model_takes(void **state)
{
    (void)state;
    for (size_t i = 0; i < DEVICE_COUNT; i++) {
        struct model_shape shape = SHAPE;
        check_sizes(DEVICES[i], shape, true);
        check_sizes(DEVICES[i], shape, false);
        shape.n = shape.m = 1;
        shape.tie_embeddings = true;
        check_sizes(DEVICES[i], shape, true);
    }
}

static void weights_shrink_with_density(void **state)
{
    (void)state;
    struct model_shape shape = SHAPE;
    struct model_bytes dense, half, quarter;
    shape.n = shape.m = 1;
    model_sizes(&dense, "ref", 1, &shape, BATCH, CONTEXT, true);
    shape.n = 2, shape.m = 4;
    model_sizes(&half, "ref", 1, &shape, BATCH, CONTEXT, true);
    shape.n = 1;
    model_sizes(&quarter, "ref", 1, &shape, BATCH, CONTEXT, true);
    /* Targets of the shape: 2 x (16 x 16 x 2 + 8 x 16 x 2 + 3 x 24 x 16) = 3840 entries. */
    assert_int_equal(dense.weights - half.weights, 1920 * sizeof(real));
    assert_int_equal(dense.gradients - quarter.gradients, 2880 * sizeof(real));
    assert_int_equal(dense.optimizer - quarter.optimizer, 2 * 2880 * sizeof(real));
    assert_int_equal(quarter.codes, 960 * sizeof(uint16_t));
}

static void parameters_have_hugging_face_names_in_file_order(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, "ref", SHAPE, false, 1);
    static const char *const NAMES[] = {
        "model.embed_tokens.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.self_attn.k_proj.weight",
        "model.layers.0.self_attn.v_proj.weight",
        "model.layers.0.self_attn.o_proj.weight",
        "model.layers.0.mlp.gate_proj.weight",
        "model.layers.0.mlp.up_proj.weight",
        "model.layers.0.mlp.down_proj.weight",
        "model.layers.0.input_layernorm.weight",
        "model.layers.0.post_attention_layernorm.weight",
        "model.layers.1.self_attn.q_proj.weight",
    };
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++)
        assert_string_equal(f.model->params[i].name, NAMES[i]);
    assert_string_equal(f.model->params[f.model->param_count - 2].name, "model.norm.weight");
    assert_string_equal(f.model->params[f.model->param_count - 1].name, "lm_head.weight");
    struct param *k = model_param(f.model, "model.layers.1.self_attn.k_proj.weight");
    assert_int_equal(k->rows, 8);
    assert_int_equal(k->cols, 16);
    assert_int_equal(k->count, 32);
    assert_true(k->target && k->decay && k->nm);
    struct param *norm = model_param(f.model, "model.norm.weight");
    assert_false(norm->target || norm->decay);
    assert_null(model_param(f.model, "model.layers.2.self_attn.k_proj.weight"));
    teardown(&f);
}

static void ranges_in_the_slabs_do_not_overlap(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, "ref", SHAPE, true, 1);
    size_t end = 0;
    for (size_t i = 0; i < f.model->param_count; i++) {
        const struct param *param = &f.model->params[i];
        assert_true(param->offset >= end);
        end = param->offset + param->count;
        if (param->nm)
            assert_ptr_equal(param->nm->values, f.model->weights + param->offset);
    }
    assert_true(end <= f.model->count);
    teardown(&f);
}

static void expect_fault(struct model_shape shape, const char *field)
{
    struct err err = {0};
    assert_int_equal(model_shape_check(&shape, &err), ERR_INVALID);
    if (!strstr(err.text, field))
        fail_msg("\"%s\" does not name %s", err.text, field);
}

static void wrong_shapes_are_refused_by_name(void **state)
{
    (void)state;
    struct model_shape shape = SHAPE;
    assert_int_equal(model_shape_check(&shape, NULL), 0);
    shape.hidden = 0, expect_fault(shape, "model.hidden is 0"), shape = SHAPE;
    shape.hidden = 18, expect_fault(shape, "model.hidden is 18"), shape = SHAPE;
    shape.heads = 16, expect_fault(shape, "model.heads is 16"), shape = SHAPE;
    shape.kv_heads = 3, expect_fault(shape, "model.kv_heads is 3"), shape = SHAPE;
    shape.intermediate = 26, expect_fault(shape, "model.intermediate is 26"), shape = SHAPE;
    shape.layers = SIZE_MAX, expect_fault(shape, "model.layers"), shape = SHAPE;
    shape.vocab = (size_t)1 << 40, expect_fault(shape, "model.vocab"), shape = SHAPE;
    shape.n = 5, expect_fault(shape, "sparsity.n is 5"), shape = SHAPE;
    shape.n = 0, expect_fault(shape, "sparsity.n is 0"), shape = SHAPE;
    shape.m = 32, expect_fault(shape, "sparsity.m is 32"), shape = SHAPE;
    shape.norm_eps = NAN, expect_fault(shape, "model.norm_eps"), shape = SHAPE;
    shape.rope_theta = -1, expect_fault(shape, "model.rope_theta");
}

static void a_pass_longer_than_the_model_is_refused(void **state)
{
    (void)state;
    struct model *model = NULL;
    struct device *dev;
    struct err err = {0};
    assert_int_equal(device_create(&dev, "ref", NULL, NULL), 0);
    assert_int_equal(model_create(&model, dev, &SHAPE, 1, CONTEXT + 1, false, &err),
                     ERR_INVALID);
    assert_int_equal(model_create(&model, dev, &SHAPE, 0, CONTEXT, false, &err), ERR_INVALID);
    /* More rows than memory can hold. */
    assert_int_equal(model_create(&model, dev, &SHAPE, SIZE_MAX / 2, CONTEXT, false, &err),
                     ERR_NO_MEMORY);
    assert_null(model);
    device_destroy(dev);
}

static void init_depends_on_the_seed_only(void **state)
{
    (void)state;
    struct fixture a, b;
    setup(&a, "ref", SHAPE, false, 1);
    setup(&b, "ref", SHAPE, false, 3);
    model_init(a.model, 11);
    model_init(b.model, 11);
    assert_memory_equal(a.model->weights, b.model->weights, a.model->count * sizeof(real));
    assert_memory_equal(a.model->codes, b.model->codes, a.model->code_count * sizeof(uint16_t));
    model_init(b.model, 12);
    assert_memory_not_equal(a.model->codes, b.model->codes,
                            a.model->code_count * sizeof(uint16_t));
    teardown(&a);
    teardown(&b);
}

static double deviation(const struct model *model, const char *name)
{
    const struct param *param = model_param(model, name);
    double sum = 0;
    for (size_t k = 0; k < param->count; k++) {
        double w = (double)model->weights[param->offset + k];
        sum += w * w;
    }
    return sqrt(sum / (double)param->count);
}

static void init_scales_with_the_active_fan_in(void **state)
{
    (void)state;
    struct fixture f;
    struct model_shape shape = SHAPE;
    shape.hidden = 256, shape.intermediate = 512, shape.vocab = 300;
    setup(&f, "ref", shape, false, 2);
    model_init(f.model, 1);
    /* Thousands of entries: the sample deviation is within 3 % of its expectation. */
    const double slack = 0.03;
    double q = 1 / sqrt(256 / 4.0), down = 1 / sqrt(512 / 4.0) / sqrt(2 * 2.0);
    double got = deviation(f.model, "model.layers.1.self_attn.q_proj.weight");
    assert_true(fabs(got - q) < slack * q);
    got = deviation(f.model, "model.layers.0.mlp.down_proj.weight");
    assert_true(fabs(got - down) < slack * down);
    got = deviation(f.model, "lm_head.weight");
    assert_true(fabs(got - 0.02) < slack * 0.02);
    assert_true(deviation(f.model, "model.norm.weight") == 1.0);
    size_t seen[4] = {0};
    for (size_t i = 0; i < f.model->code_count; i++)
        seen[f.model->codes[i]]++; /* codes of 1:4 are 0..3 */
    for (size_t p = 0; p < 4; p++)
        assert_true(fabs((double)seen[p] / (double)f.model->code_count - 0.25) < 0.01);
    teardown(&f);
}

/* The pass that keeps activations and the one that does not are the same computation. */
static void inference_and_training_passes_have_the_same_losses(void **state)
{
    (void)state;
    for (size_t i = 0; i < DEVICE_COUNT; i++) {
        struct fixture train, infer;
        setup(&train, DEVICES[i], SHAPE, true, 1);
        setup(&infer, DEVICES[i], SHAPE, false, 1);
        model_init(train.model, 4);
        model_init(infer.model, 4);
        real loss[ROWS];
        model_forward_backward(train.model, train.tokens, train.targets, train.loss, REAL(1.0),
                               BATCH, CONTEXT);
        model_loss(train.model, train.tokens, train.targets, loss, BATCH, CONTEXT);
        assert_memory_equal(train.loss, loss, sizeof loss);
        model_loss(infer.model, train.tokens, train.targets, loss, BATCH, CONTEXT);
        assert_memory_equal(train.loss, loss, sizeof loss);
        teardown(&train);
        teardown(&infer);
    }
}

static void losses_follow_from_the_logits(void **state)
{
    (void)state;
    const double tolerance = 1e-5; /* single precision around log(19) */
    for (size_t d = 0; d < DEVICE_COUNT; d++) {
        struct fixture f;
        real logits[ROWS][VOCAB];
        setup(&f, DEVICES[d], SHAPE, false, 1);
        model_init(f.model, 2);
        f.targets[5] = -1;
        model_loss(f.model, f.tokens, f.targets, f.loss, BATCH, CONTEXT);
        assert_true(f.loss[5] == REAL(0.0));
        model_logits(f.model, f.tokens, &logits[0][0], BATCH, CONTEXT, 0, ROWS);
        for (size_t r = 0; r < ROWS; r++) {
            double sum = 0;
            for (size_t v = 0; v < VOCAB; v++)
                sum += exp((double)logits[r][v]);
            if (f.targets[r] >= 0)
                assert_true(fabs(log(sum) - (double)logits[r][f.targets[r]] -
                                 (double)f.loss[r]) < tolerance);
        }
        real last[VOCAB];
        model_logits(f.model, f.tokens, last, BATCH, CONTEXT, ROWS - 1, 1);
        for (size_t v = 0; v < VOCAB; v++)
            assert_true(fabs((double)(last[v] - logits[ROWS - 1][v])) < tolerance);
        teardown(&f);
    }
}

static void a_loss_does_not_see_the_future_or_its_neighbours(void **state)
{
    (void)state;
    for (size_t d = 0; d < DEVICE_COUNT; d++) {
        struct fixture f;
        real before[ROWS];
        setup(&f, DEVICES[d], SHAPE, false, 1);
        model_init(f.model, 2);
        model_loss(f.model, f.tokens, f.targets, before, BATCH, CONTEXT);
        f.tokens[CONTEXT + 4] =
            (f.tokens[CONTEXT + 4] + 1) % VOCAB; /* second sequence, place 4 */
        model_loss(f.model, f.tokens, f.targets, f.loss, BATCH, CONTEXT);
        for (size_t r = 0; r < ROWS; r++) {
            bool later = r / CONTEXT == 1 && r % CONTEXT >= 4;
            assert_int_equal(memcmp(&before[r], &f.loss[r], sizeof(real)) != 0, later);
        }
        teardown(&f);
    }
}

static void a_smaller_pass_gives_its_sequences_the_same_loss(void **state)
{
    (void)state;
    const double tolerance = 1e-5;
    for (size_t d = 0; d < DEVICE_COUNT; d++) {
        struct fixture f;
        real part[ROWS];
        setup(&f, DEVICES[d], SHAPE, true, 1);
        model_init(f.model, 2);
        model_loss(f.model, f.tokens, f.targets, f.loss, BATCH, CONTEXT);
        model_loss(f.model, f.tokens, f.targets, part, 1, CONTEXT);
        for (size_t r = 0; r < CONTEXT; r++)
            assert_true(fabs((double)(part[r] - f.loss[r])) < tolerance);
        model_loss(f.model, f.tokens, f.targets, part, 1, 3);
        for (size_t r = 0; r < 3; r++)
            assert_true(fabs((double)(part[r] - f.loss[r])) < tolerance);
        teardown(&f);
    }
}

static void gradients_have_the_same_bits_for_every_number_of_threads(void **state)
{
    (void)state;
    for (size_t d = 0; d < DEVICE_COUNT; d++) {
        struct fixture a, b;
        setup(&a, DEVICES[d], SHAPE, true, 1);
        setup(&b, DEVICES[d], SHAPE, true, 3);
        model_init(a.model, 6);
        model_init(b.model, 6);
        model_forward_backward(a.model, a.tokens, a.targets, a.loss, REAL(0.5), BATCH, CONTEXT);
        model_forward_backward(b.model, b.tokens, b.targets, b.loss, REAL(0.5), BATCH, CONTEXT);
        assert_memory_equal(a.loss, b.loss, sizeof a.loss);
        assert_memory_equal(a.model->grads, b.model->grads, a.model->count * sizeof(real));
        teardown(&a);
        teardown(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_what_the_model_takes),
        cmocka_unit_test(weights_shrink_with_density),
        cmocka_unit_test(parameters_have_hugging_face_names_in_file_order),
        cmocka_unit_test(ranges_in_the_slabs_do_not_overlap),
        cmocka_unit_test(wrong_shapes_are_refused_by_name),
        cmocka_unit_test(a_pass_longer_than_the_model_is_refused),
        cmocka_unit_test(init_depends_on_the_seed_only),
        cmocka_unit_test(init_scales_with_the_active_fan_in),
        cmocka_unit_test(inference_and_training_passes_have_the_same_losses),
        cmocka_unit_test(losses_follow_from_the_logits),
        cmocka_unit_test(a_loss_does_not_see_the_future_or_its_neighbours),
        cmocka_unit_test(a_smaller_pass_gives_its_sequences_the_same_loss),
        cmocka_unit_test(gradients_have_the_same_bits_for_every_number_of_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
