/* The optimizers in double precision: against the reference to rounding, and identities that
 * hold exactly. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/optim/newton_schulz.h"
#include "proto/base/mem.h"
#include "tests/engine/optim_golden.h"
#include "tests/engine/singular.h"

/* 45 steps of float64 in another order of sums; Newton-Schulz multiplies the smallest singular
 * values, and their rounding, by some 500. */
static const double GOLDEN_TOLERANCE = 1e-11;

static void every_case_equals_the_reference_to_rounding(void **state)
{
    (void)state;
    struct st_file *file;
    assert_int_equal(st_open(&file, OPTIM_GOLDEN, NULL), 0);
    for (size_t i = 0; i < OPTIM_CASE_COUNT; i++)
        optim_check_case(file, OPTIM_CASES[i], "ref", GOLDEN_TOLERANCE);
    st_close(file);
}

static void expect_equal(const real *a, const real *b, size_t count)
{
    for (size_t i = 0; i < count; i++)
        assert_true(a[i] >= b[i] && a[i] <= b[i]); /* -0 equals 0 */
}

/* One step of preconditioned Nesterov momentum, TANS's base, written out. */
static void base_step(const struct optim_args *args, double scale, real *w, real *p, real *v,
                      const real *grads, size_t count)
{
    const double b1 = args->beta1, b2 = args->beta2;
    for (size_t i = 0; i < count; i++) {
        double g = args->grad_scale * grads[i];
        v[i] = b2 * v[i] + (1 - b2) * g * g;
        g = g / (sqrt(v[i]) + args->eps);
        p[i] = b1 * p[i] + (1 - b1) * g;
        const double u = (1 - b1) * g + b1 * p[i];
        w[i] = (1 - args->lr * args->weight_decay) * w[i] - args->lr * scale * u;
    }
}

static void tans_without_orthogonal_part_is_its_base_exactly(void **state)
{
    (void)state;
    struct st_file *file;
    struct optim_run run;
    assert_int_equal(st_open(&file, OPTIM_GOLDEN, NULL), 0);
    optim_run_create(&run, file, "tans14", "ref", NULL);
    run.optim->options.gamma_ns = 0;
    struct model *model = run.model;
    const size_t bytes = model->count * sizeof(real);
    real *w = malloc(bytes), *p = calloc(1, bytes), *v = calloc(1, bytes);
    assert_true(w && p && v);
    memcpy(w, model->weights, bytes);
    for (size_t step = 1; step < run.every; step++) {
        optim_run_step(&run, step);
        for (size_t t = 0; t < model->param_count; t++) {
            const struct param *param = &model->params[t];
            const size_t at = param->offset;
            if (!param->target)
                continue;
            base_step(&run.args, sqrt((double)param->rows / (double)param->cols), w + at,
                      p + at, v + at, model->grads + at, param->count);
            expect_equal(w + at, model->weights + at, param->count);
            expect_equal(p + at, model->moment1 + at, param->count);
            expect_equal(v + at, model->moment2 + at, param->count);
        }
    }
    free(w);
    free(p);
    free(v);
    optim_run_destroy(&run);
    st_close(file);
}

/* ---- masks ---- */

struct pair {
    struct device *dev;
    struct model *models[2];
    struct optim *optims[2];
};

static void pair_create(struct pair *pair, unsigned n0, unsigned m0, unsigned n1, unsigned m1,
                        const struct optim_options *options)
{
    const unsigned shapes[2][2] = {{n0, m0}, {n1, m1}};
    assert_int_equal(device_create(&pair->dev, "ref", NULL, NULL), 0);
    for (int k = 0; k < 2; k++) {
        const struct model_shape shape = {.hidden = 16,
                                          .intermediate = 24,
                                          .layers = 1,
                                          .heads = 2,
                                          .kv_heads = 1,
                                          .vocab = 6,
                                          .context = 4,
                                          .rope_theta = 10000,
                                          .norm_eps = 1e-6,
                                          .n = shapes[k][0],
                                          .m = shapes[k][1]};
        assert_int_equal(model_create(&pair->models[k], pair->dev, &shape, 1, 4, true, NULL),
                         0);
        assert_int_equal(
            optim_create(&pair->optims[k], "tans", 0.9, 0.99, options, pair->models[k], NULL),
            0);
        optim_draw_weights(pair->models[k]);
    }
}

static void pair_destroy(struct pair *pair)
{
    for (int k = 0; k < 2; k++) {
        optim_destroy(pair->optims[k]);
        model_destroy(pair->models[k]);
    }
    device_destroy(pair->dev);
}

static const struct optim_args PAIR_ARGS = {
    .lr = 0.02, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-5, .grad_scale = 1};

static void a_mask_without_zeros_is_the_dense_optimizer(void **state)
{
    (void)state;
    const struct optim_options options = {
        .adam_lr_ratio = 1, .adam_eps = 1e-8, .gamma_ns = 0.5, .ramp = 8};
    struct pair pair;
    pair_create(&pair, 4, 4, 1, 1, &options);
    assert_int_equal(pair.models[0]->count, pair.models[1]->count);
    for (size_t step = 1; step <= 15; step++) {
        struct optim_args args = PAIR_ARGS;
        args.step = step;
        for (int k = 0; k < 2; k++) {
            optim_draw_gradients(pair.models[k], step);
            pair.optims[k]->optimizer->step(pair.optims[k], pair.models[k], &args, NULL);
        }
    }
    expect_equal(pair.models[0]->weights, pair.models[1]->weights, pair.models[0]->count);
    pair_destroy(&pair);
}

/* Dense form of a target's stored entries. */
static void spread(real *out, const struct param *param, const real *stored)
{
    struct nm w = *param->nm;
    w.values = (real *)(uintptr_t)stored;
    nm_to_dense(&w, out);
}

/* Where the orthogonal part is not scaled to the active entries, a sparse matrix is a dense one
 * whose weights and gradients are zero outside the mask: what is stored sees the same update.
 */
static void a_sparse_step_is_the_dense_one_seen_through_the_mask(void **state)
{
    (void)state;
    enum { STEPS = 12 };
    static const double ROUNDING = 1e-12; /* the norm's sum has other partial sums */
    const struct optim_options options = {
        .adam_lr_ratio = 1, .adam_eps = 1e-8, .gamma_ns = 0.7, .ramp = 3, .rms = RMS_NONE};
    struct pair pair;
    pair_create(&pair, 2, 4, 1, 1, &options);
    struct model *sparse = pair.models[0], *dense = pair.models[1];
    for (size_t t = 0; t < sparse->param_count; t++)
        if (sparse->params[t].nm)
            spread(dense->weights + dense->params[t].offset, &sparse->params[t],
                   sparse->weights + sparse->params[t].offset);
    for (size_t step = 1; step <= STEPS; step++) {
        struct optim_args args = PAIR_ARGS;
        args.step = step;
        optim_draw_gradients(sparse, step);
        optim_draw_gradients(dense, step);
        for (size_t t = 0; t < sparse->param_count; t++)
            if (sparse->params[t].nm)
                spread(dense->grads + dense->params[t].offset, &sparse->params[t],
                       sparse->grads + sparse->params[t].offset);
        for (int k = 0; k < 2; k++)
            pair.optims[k]->optimizer->step(pair.optims[k], pair.models[k], &args, NULL);
        /* The dense update reaches the zeros; the mask takes it away again. */
        for (size_t t = 0; t < sparse->param_count; t++) {
            const struct param *param = &sparse->params[t];
            for (size_t i = 0; i < param->count; i++) {
                const double have = sparse->weights[param->offset + i];
                const double want =
                    dense->weights[dense->params[t].offset + optim_position(param, i)];
                assert_true(fabs(have - want) <= ROUNDING);
            }
        }
    }
    pair_destroy(&pair);
}

/* ---- Newton-Schulz ---- */

static double polynomial(const double coefficients[][3], double s)
{
    for (size_t k = 0; k < NEWTON_SCHULZ_STEPS; k++)
        s = coefficients[k][0] * s + coefficients[k][1] * s * s * s +
            coefficients[k][2] * pow(s, 5);
    return s;
}

/* What the header says of the two sets of coefficients. */
static void coefficients_reach_what_the_header_says(void **state)
{
    (void)state;
    double least = 9, most = 0, muon_least = 9, muon_most = 0;
    for (double s = 0.0056; s <= 1; s += 1e-5) {
        least = fmin(least, polynomial(newton_schulz_tans, s));
        most = fmax(most, polynomial(newton_schulz_tans, s));
        muon_least = fmin(muon_least, polynomial(newton_schulz_muon, s));
    }
    for (double s = 1e-5; s <= 1; s += 1e-5) {
        assert_true(polynomial(newton_schulz_tans, s) < 1.146);
        muon_most = fmax(muon_most, polynomial(newton_schulz_muon, s));
    }
    assert_true(least > 0.977 && most < 1.1);
    assert_true(polynomial(newton_schulz_tans, 0.0022) > 0.9);
    assert_true(polynomial(newton_schulz_tans, 0.0021) < 0.9);
    assert_true(muon_least > 0.68 && muon_least < 0.69 && muon_most > 1.2 && muon_most < 1.203);
}

static void singular_values_follow_the_polynomial(void **state)
{
    (void)state;
    enum { MATRICES = 200, SIDE = 24 };
    static const double ROUNDING = 1e-10;
    struct device *dev = NULL;
    struct matrix_scratch scratch = {.x = mem_aligned(SIDE * SIDE, sizeof(real)),
                                     .y = mem_aligned(SIDE * SIDE, sizeof(real)),
                                     .a = mem_aligned(SIDE * SIDE, sizeof(real)),
                                     .b = mem_aligned(SIDE * SIDE, sizeof(real))};
    const struct philox key = {.seed = 4, .purpose = 77};
    assert_int_equal(device_create(&dev, "ref", NULL, NULL), 0);
    for (uint32_t i = 0; i < MATRICES; i++) {
        const double(*coefficients)[3] = i % 2 ? newton_schulz_tans : newton_schulz_muon;
        const struct philox entries = {.seed = i, .purpose = 77, .stream = 5};
        const size_t dout = 1 + philox_u32(&key, 2 * i) % SIDE,
                     din = 1 + philox_u32(&key, 2 * i + 1) % SIDE;
        const size_t count = dout < din ? dout : din;
        const struct param param = {.rows = dout, .cols = din, .count = dout * din};
        double before[SIDE], after[SIDE], want[SIDE];
        real values[SIDE * SIDE];
        for (size_t k = 0; k < dout * din; k++)
            values[k] = philox_normal(&entries, k);
        const double norm = sqrt(dev->ops->sum_squares(dev, values, dout * din));
        singular_values(before, values, dout, din);
        singular_values(
            after,
            orthogonal_entries(dev, &scratch, coefficients, &param, values, norm, 0, NULL),
            dout, din);
        for (size_t k = 0; k < count; k++)
            want[k] = polynomial(coefficients, before[k] / norm);
        qsort(want, count, sizeof *want, singular_order);
        for (size_t k = 0; k < count; k++)
            assert_true(fabs(want[k] - after[k]) < ROUNDING);
    }
    mem_aligned_free(scratch.x);
    mem_aligned_free(scratch.y);
    mem_aligned_free(scratch.a);
    mem_aligned_free(scratch.b);
    device_destroy(dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_case_equals_the_reference_to_rounding),
        cmocka_unit_test(tans_without_orthogonal_part_is_its_base_exactly),
        cmocka_unit_test(a_mask_without_zeros_is_the_dense_optimizer),
        cmocka_unit_test(a_sparse_step_is_the_dense_one_seen_through_the_mask),
        cmocka_unit_test(coefficients_reach_what_the_header_says),
        cmocka_unit_test(singular_values_follow_the_polynomial),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
