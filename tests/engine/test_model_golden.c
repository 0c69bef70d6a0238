/* Loss, logits and every gradient of a two-layer model against PyTorch's, on every device. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/engine/golden.h"

/* The golden numbers were computed in double; single precision over sums of at most 64 terms
 * and two layers errs by some 1e-6 of a tensor's norm. The error of a tensor is |ours - golden|
 * / |golden|, as norms. */
static const double TOLERANCE = 1e-5;

static const char *const DEVICES[] = {"ref", "cpu"};

struct fixture {
    struct st_file *file;
    struct device *dev;
    struct model *model;
    int32_t *tokens, *targets;
    size_t batch, context;
};

static void setup(struct fixture *f, const char *device, unsigned n, unsigned m)
{
    size_t bytes = 0;
    assert_int_equal(st_open(&f->file, GOLDEN_PATH, NULL), 0);
    struct model_shape shape = golden_shape(f->file, n, m);
    f->batch = golden_size(f->file, "batch");
    f->context = shape.context;
    f->tokens = golden_data(f->file, &bytes, "", "tokens");
    f->targets = golden_data(f->file, &bytes, "", "targets");
    assert_int_equal(device_create(&f->dev, device, NULL, NULL), 0);
    assert_int_equal(model_create(&f->model, f->dev, &shape, f->batch, f->context, true, NULL),
                     0);
    golden_load(f->model, f->file);
}

static void teardown(struct fixture *f)
{
    model_destroy(f->model);
    device_destroy(f->dev);
    free(f->tokens);
    free(f->targets);
    st_close(f->file);
}

static void compare(const struct fixture *f, const char *prefix, const char *name,
                    const real *actual, size_t count)
{
    size_t bytes = 0;
    float *expected = golden_data(f->file, &bytes, prefix, name);
    assert_int_equal(bytes, count * sizeof *expected);
    double error = golden_error(actual, expected, count);
    if (!(error <= TOLERANCE))
        fail_msg("%s: %s%s: relative error %g", f->dev->ops->name, prefix, name, error);
    free(expected);
}

static void check(const char *device, unsigned n, unsigned m, const char *prefix)
{
    struct fixture f;
    setup(&f, device, n, m);
    size_t rows = f.batch * f.context, vocab = f.model->shape.vocab;
    real *loss = calloc(rows, sizeof *loss), *logits = calloc(rows * vocab, sizeof *logits);
    char gradients[32], losses[32], outputs[32];
    snprintf(gradients, sizeof gradients, "%s.grad.", prefix);
    snprintf(losses, sizeof losses, "%s.losses", prefix);
    snprintf(outputs, sizeof outputs, "%s.logits", prefix);

    model_loss(f.model, f.tokens, f.targets, loss, f.batch, f.context);
    compare(&f, "", losses, loss, rows);
    model_logits(f.model, f.tokens, logits, f.batch, f.context, 0, rows);
    compare(&f, "", outputs, logits, rows * vocab);
    memset(loss, 0, rows * sizeof *loss);
    model_forward_backward(f.model, f.tokens, f.targets, loss, REAL(1.0) / (real)rows, f.batch,
                           f.context);
    compare(&f, "", losses, loss, rows);
    for (size_t i = 0; i < f.model->param_count; i++) {
        const struct param *param = &f.model->params[i];
        compare(&f, gradients, param->name, f.model->grads + param->offset, param->count);
    }
    free(loss);
    free(logits);
    teardown(&f);
}

static void dense_model_agrees_with_pytorch(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof DEVICES / sizeof DEVICES[0]; i++)
        check(DEVICES[i], 1, 1, "dense");
}

static void one_of_four_model_agrees_with_pytorch(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof DEVICES / sizeof DEVICES[0]; i++)
        check(DEVICES[i], 1, 4, "nm14");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dense_model_agrees_with_pytorch),
        cmocka_unit_test(one_of_four_model_agrees_with_pytorch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
