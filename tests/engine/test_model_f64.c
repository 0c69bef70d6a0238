/* The whole model's gradients against finite differences, in double precision on the reference
 * device. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/model.h"
#include "engine/philox.h"
#include <math.h>
#include <string.h>

enum { BATCH = 2, CONTEXT = 5, ROWS = BATCH * CONTEXT, VOCAB = 11, SAMPLES = 24 };

/* Five-point differences: truncation is of order h^4, rounding 1e-16 / h; both are far below
 * the tolerance. The error of a parameter is |differences - gradient| / |gradient| over its
 * sampled entries, as norms. */
static const double STEP = 3e-4;
static const double TOLERANCE = 1e-6;

/* Tokens of either sequence repeat, so that embedding rows gather from several places. */
static const int32_t TOKENS[ROWS] = {1, 4, 1, 10, 0, 7, 7, 2, 4, 9};
static const int32_t TARGETS[ROWS] = {4, 1, -1, 0, 5, 7, 2, 4, 9, -1};

struct fixture {
    struct device *dev;
    struct model *model;
};

static double uniform(uint64_t index)
{
    struct philox key = {.seed = 5, .purpose = PHILOX_GENERATE};
    return philox_uniform(&key, index);
}

/* Weights large enough that every nonlinearity bends. */
static void stir(struct model *model)
{
    uint64_t draw = 0;
    for (size_t i = 0; i < model->param_count; i++) {
        const struct param *param = &model->params[i];
        for (size_t k = 0; k < param->count; k++) {
            real *w = &model->weights[param->offset + k];
            if (param->adapter)
                *w = (uniform(draw++) - 0.5) / 2;
            else if (!param->decay)
                *w = 0.5 + uniform(draw++);
            else if (!param->target)
                *w *= 20;
        }
    }
}

static void setup(struct fixture *f, struct model_shape shape)
{
    assert_int_equal(device_create(&f->dev, "ref", NULL, NULL), 0);
    assert_int_equal(model_create(&f->model, f->dev, &shape, BATCH, CONTEXT, true, NULL), 0);
    model_init(f->model, 3);
    stir(f->model);
}

static void teardown(struct fixture *f)
{
    model_destroy(f->model);
    device_destroy(f->dev);
}

static double total_loss(struct model *model, double scale)
{
    real loss[ROWS];
    double sum = 0;
    model_loss(model, TOKENS, TARGETS, loss, BATCH, CONTEXT);
    for (size_t r = 0; r < ROWS; r++)
        sum += scale * loss[r];
    return sum;
}

static double difference(struct model *model, real *w, double scale)
{
    double at = *w, f[4];
    const double places[4] = {-2, -1, 1, 2};
    for (size_t i = 0; i < 4; i++) {
        *w = at + places[i] * STEP;
        f[i] = total_loss(model, scale);
    }
    *w = at;
    return (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * STEP);
}

static void check_param(struct model *model, const struct param *param, double scale)
{
    double error = 0, norm = 0;
    size_t samples = param->count < SAMPLES ? param->count : SAMPLES;
    for (size_t s = 0; s < samples; s++) {
        size_t k = param->offset + s * param->count / samples;
        double slope = difference(model, &model->weights[k], scale), grad = model->grads[k];
        error += (slope - grad) * (slope - grad);
        norm += grad * grad;
    }
    assert_true(norm > 0);
    if (sqrt(error) > TOLERANCE * sqrt(norm))
        fail_msg("%s: relative error %g of a gradient of norm %g", param->name,
                 sqrt(error / norm), sqrt(norm));
}

static void check_model(struct model_shape shape)
{
    struct fixture f;
    real loss[ROWS];
    const double scale = 0.125;
    setup(&f, shape);
    /* Twice: gradients add up over passes. */
    model_forward_backward(f.model, TOKENS, TARGETS, loss, scale / 2, BATCH, CONTEXT);
    model_forward_backward(f.model, TOKENS, TARGETS, loss, scale / 2, BATCH, CONTEXT);
    for (size_t i = 0; i < f.model->param_count; i++)
        check_param(f.model, &f.model->params[i], scale);
    teardown(&f);
}

static struct model_shape shape_of(unsigned n, unsigned m, size_t kv_heads, bool tie)
{
    return (struct model_shape){.hidden = 16,
                                .intermediate = 24,
                                .layers = 2,
                                .heads = 4,
                                .kv_heads = kv_heads,
                                .vocab = VOCAB,
                                .context = CONTEXT,
                                .rope_theta = 100,
                                .norm_eps = 1e-5,
                                .tie_embeddings = tie,
                                .n = n,
                                .m = m};
}

static void dense_gradients_match_finite_differences(void **state)
{
    (void)state;
    check_model(shape_of(1, 1, 4, false));
}

static void one_of_four_gradients_match_finite_differences(void **state)
{
    (void)state;
    check_model(shape_of(1, 4, 4, false));
}

static void two_of_four_gradients_with_grouped_heads_match_finite_differences(void **state)
{
    (void)state;
    check_model(shape_of(2, 4, 2, false));
}

static void tied_head_and_one_key_head_match_finite_differences(void **state)
{
    (void)state;
    check_model(shape_of(1, 4, 1, true));
    check_model(shape_of(1, 1, 1, true));
}

static void three_of_eight_gradients_match_finite_differences(void **state)
{
    (void)state;
    check_model(shape_of(3, 8, 2, true));
}

static struct model_shape shape_with(struct model_shape shape, enum adapter_kind kind,
                                     size_t rank, size_t hidden)
{
    shape.adapter = (struct adapter_shape){.kind = kind,
                                           .rank = rank,
                                           .hidden = hidden,
                                           .gamma = hidden > 0 ? 0.7 : 0,
                                           .alpha = 3};
    return shape;
}

static void lora_gradients_match_finite_differences(void **state)
{
    (void)state;
    check_model(shape_with(shape_of(1, 1, 4, false), ADAPTER_LORA, 3, 0));
    check_model(shape_with(shape_of(1, 4, 2, true), ADAPTER_LORA, 1, 0));
}

static void comolora_gradients_match_finite_differences(void **state)
{
    (void)state;
    check_model(shape_with(shape_of(1, 1, 1, true), ADAPTER_COMOLORA, 2, 3));
    check_model(shape_with(shape_of(1, 4, 4, false), ADAPTER_COMOLORA, 3, 2));
    check_model(shape_with(shape_of(2, 4, 2, false), ADAPTER_COMOLORA, 1, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dense_gradients_match_finite_differences),
        cmocka_unit_test(one_of_four_gradients_match_finite_differences),
        cmocka_unit_test(two_of_four_gradients_with_grouped_heads_match_finite_differences),
        cmocka_unit_test(tied_head_and_one_key_head_match_finite_differences),
        cmocka_unit_test(three_of_eight_gradients_match_finite_differences),
        cmocka_unit_test(lora_gradients_match_finite_differences),
        cmocka_unit_test(comolora_gradients_match_finite_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
