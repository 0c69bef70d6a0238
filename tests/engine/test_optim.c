/* The optimizers in float: against the reference, Newton-Schulz on random matrices, memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/optim/newton_schulz.h"
#include "tests/engine/ops_fixture.h"
#include "tests/engine/optim_golden.h"
#include "tests/engine/singular.h"

/* 45 steps in float. Newton-Schulz multiplies the smallest singular values, and their rounding,
 * by some 500; the step is a fiftieth of the weights. */
static const double GOLDEN_TOLERANCE = 1e-5;

static void every_case_agrees_with_the_reference(void **state)
{
    (void)state;
    struct st_file *file;
    assert_int_equal(st_open(&file, OPTIM_GOLDEN, NULL), 0);
    for (size_t i = 0; i < OPTIM_CASE_COUNT; i++) {
        optim_check_case(file, OPTIM_CASES[i], "ref", GOLDEN_TOLERANCE);
        optim_check_case(file, OPTIM_CASES[i], "cpu", GOLDEN_TOLERANCE);
    }
    st_close(file);
}

/* ---- Newton-Schulz ---- */

/* From this share of the Frobenius norm on, the published coefficients of TANS bring a singular
 * value into [0.9, 1.1]; a smaller one ends between 0 and 1.146. */
static const double REACHED = 0.0056;
/* Where a singular value is small, its rounding is multiplied by up to 492, the product of the
 * five first coefficients. */
static const double SLACK = 2e-3;

enum { SIDE_MAX = 64 };

struct reach {
    size_t values, small, outside; /* outside [0.9, 1.1], all of them small */
    double least, most;            /* of those that are not small */
};

static struct matrix_scratch scratch_create(size_t side)
{
    return (struct matrix_scratch){.x = mem_aligned(side * side, sizeof(real)),
                                   .y = mem_aligned(side * side, sizeof(real)),
                                   .a = mem_aligned(side * side, sizeof(real)),
                                   .b = mem_aligned(side * side, sizeof(real))};
}

static void scratch_release(struct matrix_scratch *scratch)
{
    mem_aligned_free(scratch->x);
    mem_aligned_free(scratch->y);
    mem_aligned_free(scratch->a);
    mem_aligned_free(scratch->b);
}

/* The normal entries of a random matrix, of which a share is kept. */
static real *random_matrix(size_t dout, size_t din, double density, uint32_t stream)
{
    const struct philox key = {.seed = 9, .purpose = FIXTURE_PURPOSE, .stream = stream};
    real *out = fixture_normal(dout * din, stream);
    for (size_t i = 0; i < dout * din; i++)
        if (philox_uniform(&key, i) > density)
            out[i] = 0;
    return out;
}

static void check_matrix(struct device *dev, const struct matrix_scratch *scratch, size_t dout,
                         size_t din, double density, uint32_t stream, struct reach *reach)
{
    const struct param param = {.rows = dout, .cols = din, .count = dout * din};
    const size_t count = dout < din ? dout : din;
    double before[SIDE_MAX], after[SIDE_MAX];
    real *values = random_matrix(dout, din, density, stream);
    const double norm = sqrt(dev->ops->sum_squares(dev, values, dout * din));
    singular_values(before, values, dout, din);
    const real *o =
        orthogonal_entries(dev, scratch, newton_schulz_tans, &param, values, norm, 1e-5, NULL);
    singular_values(after, o, dout, din);
    size_t small = 0, outside = 0;
    for (size_t i = 0; i < count; i++) {
        small += before[i] <= REACHED * norm; /* all of a matrix of zeros */
        outside += !(after[i] >= 0.9 - SLACK && after[i] <= 1.1 + SLACK);
        assert_true(after[i] <= 1.146 + SLACK);
    }
    if (outside > small)
        fail_msg("(%zu, %zu) number %u: %zu singular values outside [0.9, 1.1], %zu were small",
                 dout, din, stream, outside, small);
    reach->values += count;
    reach->small += small;
    reach->outside += outside;
    for (size_t i = 0; i < count && small == 0; i++) {
        reach->least = fmin(reach->least, after[i]);
        reach->most = fmax(reach->most, after[i]);
    }
    mem_aligned_free(values);
}

static void newton_schulz_brings_singular_values_near_one(void **state)
{
    (void)state;
    enum { MATRICES = 1200 };
    struct device *dev = NULL;
    struct matrix_scratch scratch = scratch_create(SIDE_MAX);
    struct reach square = {.least = 9}, oblong = {.least = 9};
    assert_int_equal(device_create(&dev, "cpu", NULL, NULL), 0);
    const struct philox key = {.seed = 1, .purpose = FIXTURE_PURPOSE};
    for (uint32_t i = 0; i < MATRICES; i++) {
        const size_t limit = i % 100 == 0 ? SIDE_MAX : 20;
        size_t dout = 1 + philox_u32(&key, 2 * i) % limit,
               din = 1 + philox_u32(&key, 2 * i + 1) % limit;
        if (i % 10 == 0)
            dout = din;
        const double density = i % 3 == 0 ? 1 : i % 3 == 1 ? 0.5 : 0.25;
        const int wide = 2 * dout <= din || 2 * din <= dout;
        check_matrix(dev, &scratch, dout, din, density, i + 1, wide ? &oblong : &square);
    }
    print_message("of %zu singular values of nearly square matrices %zu are outside, of %zu of "
                  "oblong ones %zu\n",
                  square.values, square.outside, oblong.values, oblong.outside);
    /* Nearly square matrices have small singular values, and zero rows when sparse. */
    assert_true(square.outside < square.values / 8);
    assert_true(oblong.outside < oblong.values / 20 && oblong.least > 0.9 && oblong.most < 1.1);
    scratch_release(&scratch);
    device_destroy(dev);
}

/* Full matrices with one side twice the other, as gate, up and down are: all values get there.
 */
static void oblong_dense_matrices_are_fully_orthogonalised(void **state)
{
    (void)state;
    struct device *dev = NULL;
    struct matrix_scratch scratch = scratch_create(SIDE_MAX);
    struct reach reach = {.least = 9};
    assert_int_equal(device_create(&dev, "cpu", NULL, NULL), 0);
    for (uint32_t i = 0; i < 60; i++) {
        const size_t small = 2 + i % 30;
        check_matrix(dev, &scratch, i % 2 ? 2 * small : small, i % 2 ? small : 2 * small, 1,
                     5000 + i, &reach);
    }
    assert_int_equal(reach.small, 0);
    assert_true(reach.least > 0.9 && reach.most < 1.1);
    scratch_release(&scratch);
    device_destroy(dev);
}

/* ---- schedule and memory ---- */

static void gamma_rises_over_the_ramp_and_stays(void **state)
{
    (void)state;
    const struct optim_options ramp = {.gamma_ns = 0.5, .ramp = 8}, none = {.gamma_ns = 0.3};
    assert_true(tans_gamma(&ramp, 0) == 0);
    assert_true(tans_gamma(&ramp, 2) == 0.125);
    assert_true(tans_gamma(&ramp, 8) == 0.5);
    assert_true(tans_gamma(&ramp, 1000) == 0.5);
    assert_true(tans_gamma(&none, 0) == 0.3);
}

static struct model_shape shape_of(size_t layers, unsigned n, unsigned m)
{
    return (struct model_shape){.hidden = 64,
                                .intermediate = 96,
                                .layers = layers,
                                .heads = 4,
                                .kv_heads = 2,
                                .vocab = 50,
                                .context = 8,
                                .rope_theta = 10000,
                                .norm_eps = 1e-6,
                                .n = n,
                                .m = m};
}

static void the_scratch_is_that_of_one_matrix_for_any_number_of_layers(void **state)
{
    (void)state;
    const struct optim_options options = {.age_correction = true}, plain = {0};
    const struct model_shape one = shape_of(1, 1, 4), many = shape_of(9, 1, 4);
    /* x, y (96, 64), a, b (64, 64), u a quarter of (96, 64) */
    const size_t scratch = (2 * 96 * 64 + 2 * 64 * 64 + 96 * 64 / 4) * sizeof(real);
    assert_int_equal(optim_bytes("adamw", &plain, &many), 0);
    assert_int_equal(optim_bytes("muon", &options, &one), scratch);
    assert_int_equal(optim_bytes("muon", &options, &many), scratch);
    /* the refresh ages of 9 * 9 + 3 parameters, rounded up to 64 bytes */
    assert_int_equal(optim_bytes("tans", &plain, &many), scratch + 384);
    assert_true(optim_bytes("tans", &options, &many) >
                scratch + 384 + 2 * 65536 * sizeof(real));
}

static void create(struct model **model, struct optim **optim, struct device *dev,
                   const char *name, const struct optim_options *options)
{
    const struct model_shape shape = shape_of(1, 1, 4);
    assert_int_equal(model_create(model, dev, &shape, 1, 8, true, NULL), 0);
    assert_int_equal(optim_create(optim, name, 0.9, 0.999, options, *model, NULL), 0);
    model_init(*model, 1);
}

static void a_gradient_of_zero_changes_no_target(void **state)
{
    (void)state;
    const struct optim_options options = {
        .adam_lr_ratio = 1, .adam_eps = 1e-8, .momentum = 0.95, .gamma_ns = 0.5};
    static const char *const NAMES[] = {"muon", "tans"};
    for (size_t i = 0; i < 2; i++) {
        struct device *dev;
        struct model *model;
        struct optim *optim;
        assert_int_equal(device_create(&dev, "cpu", NULL, NULL), 0);
        create(&model, &optim, dev, NAMES[i], &options);
        real *before = malloc(model->count * sizeof *before);
        assert_non_null(before);
        memcpy(before, model->weights, model->count * sizeof *before);
        const struct optim_args args = {
            .lr = 0.1, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-5, .grad_scale = 1, .step = 1};
        optim->optimizer->step(optim, model, &args, NULL);
        for (size_t k = 0; k < model->count; k++)
            assert_true(before[k] >= model->weights[k] && before[k] <= model->weights[k]);
        free(before);
        optim_destroy(optim);
        model_destroy(model);
        device_destroy(dev);
    }
}

static void optimizers_are_found_by_name(void **state)
{
    (void)state;
    size_t count = 0;
    const struct optimizer *const *table = optimizer_table(&count);
    assert_int_equal(count, 3);
    for (size_t i = 0; i < count; i++)
        assert_ptr_equal(optimizer_find(table[i]->name), table[i]);
    assert_ptr_equal(optimizer_find("adamw"), &optimizer_adamw);
    assert_ptr_equal(optimizer_find("muon"), &optimizer_muon);
    assert_ptr_equal(optimizer_find("tans"), &optimizer_tans);
    assert_null(optimizer_find("adam"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_case_agrees_with_the_reference),
        cmocka_unit_test(newton_schulz_brings_singular_values_near_one),
        cmocka_unit_test(oblong_dense_matrices_are_fully_orthogonalised),
        cmocka_unit_test(gamma_rises_over_the_ramp_and_stays),
        cmocka_unit_test(the_scratch_is_that_of_one_matrix_for_any_number_of_layers),
        cmocka_unit_test(a_gradient_of_zero_changes_no_target),
        cmocka_unit_test(optimizers_are_found_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
