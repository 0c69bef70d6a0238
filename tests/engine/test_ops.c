/* Every op of the device "cpu", with every instruction set of this machine, against the
 * reference: odd shapes, several N:M, and the same bits for 1, 2 and 3 threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs those first */
#include <cmocka.h>

#include "engine/cpu/cpu.h"
#include "tests/engine/ops_cases.h"

/* Largest difference over the largest reference value of an output. The longest sums here have
 * some 500 fp32 terms, taken in another order: about sqrt(500) * 2^-24 = 1.3e-6; ten times
 * that. */
static const double SUM_TOLERANCE = 2e-5;
/* The exponential kernel's error bound, as its comment states it; 1.01 was measured. */
static const double EXP_ULP = 1.1;

/* ---- the devices ---- */

static struct device *device_open(const char *name, struct pool *pool)
{
    static const struct device_limits limits = {
        .rows = 300, .dim_max = 300, .vocab = 300, .context = 192, .heads = 4, .head_dim = 66,
        .nm_values = (size_t)300 * 300};
    struct device *dev = NULL;
    assert_int_equal(device_create(&dev, name, pool, NULL), 0);
    assert_int_equal(device_reserve(dev, &limits, NULL), 0);
    return dev;
}

static void compare(const struct results *want, const struct results *got, const char *isa)
{
    assert_int_equal(want->count, got->count);
    for (size_t i = 0; i < want->count; i++) {
        assert_int_equal(want->length[i], got->length[i]);
        double top = 1e-30, worst = 0;
        size_t at = 0;
        for (size_t j = 0; j < want->length[i]; j++) {
            double difference = fabs((double)want->data[i][j] - (double)got->data[i][j]);
            top = fmax(top, fabs((double)want->data[i][j]));
            if (isnan(difference))
                difference = INFINITY;
            if (difference > worst) {
                worst = difference;
                at = j;
            }
        }
        if (!(worst <= SUM_TOLERANCE * top))
            fail_msg("%s, %s: element %zu of %zu is %.9g, the reference has %.9g (scale %g)",
                     isa, want->name[i], at, want->length[i], (double)got->data[i][at],
                     (double)want->data[i][at], top);
    }
}

static void every_op_agrees_with_the_reference(void **state)
{
    (void)state;
    struct case_list list = cases_create();
    struct device *ref = device_open("ref", NULL), *cpu = device_open("cpu", NULL);
    for (size_t i = 0; i < list.count; i++) {
        struct results want = {.count = 0};
        list.items[i].run(ref, &list.items[i].shape, &want);
        for (const struct cpu_kernels *const *set = cpu_kernel_sets(); *set; set++) {
            if (!cpu_kernels_supported(*set))
                continue;
            struct results got = {.count = 0};
            cpu_device_use(cpu, *set);
            list.items[i].run(cpu, &list.items[i].shape, &got);
            compare(&want, &got, (*set)->isa);
            results_release(&got);
        }
        results_release(&want);
    }
    device_destroy(ref);
    device_destroy(cpu);
    free(list.items);
}

static void compare_bits(const struct results *want, const struct results *got,
                         unsigned threads)
{
    assert_int_equal(want->count, got->count);
    for (size_t j = 0; j < want->count; j++)
        if (memcmp(want->data[j], got->data[j], want->length[j] * sizeof(real)) != 0)
            fail_msg("%s with %u threads has other bits than with one", want->name[j], threads);
}

static void bits_do_not_depend_on_the_number_of_threads(void **state)
{
    (void)state;
    struct case_list list = cases_create();
    struct device *one = device_open("cpu", NULL), *many[2];
    struct pool *pools[2];
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(pool_create(&pools[i], i + 2, NULL), 0);
        many[i] = device_open("cpu", pools[i]);
    }
    for (size_t i = 0; i < list.count; i++) {
        const struct shape *shape = &list.items[i].shape;
        if (shape->rows > 0 && shape->rows <= CPU_PANEL)
            continue; /* one panel: little to share out */
        struct results want = {.count = 0};
        list.items[i].run(one, shape, &want);
        for (unsigned k = 0; k < 2; k++) {
            struct results got = {.count = 0};
            list.items[i].run(many[k], shape, &got);
            compare_bits(&want, &got, k + 2);
            results_release(&got);
        }
        results_release(&want);
    }
    for (unsigned i = 0; i < 2; i++) {
        device_destroy(many[i]);
        pool_destroy(pools[i]);
    }
    device_destroy(one);
    free(list.items);
}

/* ---- the exponential ---- */

static void check_exponential(const struct cpu_kernels *kernels)
{
    enum { COUNT = 1024 };
    float x[COUNT], y[COUNT];
    double worst = 0;
    for (double from = -87.3; from < 88.7; from += 0.5) {
        for (size_t i = 0; i < COUNT; i++)
            x[i] = (float)fmin(from + 0.5 * (double)i / COUNT, 88.7);
        kernels->exponential(y, x, COUNT);
        for (size_t i = 0; i < COUNT; i++) {
            double want = exp((double)x[i]);
            double ulp = (double)nextafterf((float)want, INFINITY) - (double)(float)want;
            worst = fmax(worst, fabs((double)y[i] - want) / ulp);
        }
    }
    if (!(worst <= EXP_ULP))
        fail_msg("%s: exponential is %.3f ulp off", kernels->isa, worst);
    const float ends[8] = {-INFINITY, -200.0f, -104.5f, 0.0f, 89.5f, 1e30f, INFINITY, NAN};
    kernels->exponential(y, ends, 8);
    for (size_t i = 0; i < 3; i++)
        assert_true(y[i] >= 0.0f && y[i] <= 0.0f);
    assert_true(y[3] >= 1.0f && y[3] <= 1.0f);
    for (size_t i = 4; i < 7; i++)
        assert_true(isinf(y[i]) && y[i] > 0.0f);
    assert_true(isnan(y[7]));
}

static void exponential_stays_within_its_bound(void **state)
{
    (void)state;
    for (const struct cpu_kernels *const *set = cpu_kernel_sets(); *set; set++)
        if (cpu_kernels_supported(*set))
            check_exponential(*set);
}

/* ---- values that are known without a reference ---- */

static void the_first_step_of_adamw_is_the_learning_rate(void **state)
{
    (void)state;
    static const char *const names[] = {"ref", "cpu"};
    for (size_t i = 0; i < 2; i++) {
        struct device *dev = device_open(names[i], NULL);
        real w[3] = {1, 2, 3}, m[3] = {0}, v[3] = {0}, g[3] = {4, -5, REAL(0.25)};
        struct adamw_args args = {.lr = REAL(0.5),
                                  .beta1 = REAL(0.9),
                                  .beta2 = REAL(0.999),
                                  .eps = 0,
                                  .weight_decay = REAL(0.2),
                                  .correction1 = 1 - REAL(0.9),
                                  .correction2 = 1 - REAL(0.999),
                                  .grad_scale = 2};
        dev->ops->adamw(dev, w, m, v, g, 3, &args);
        /* (1 - lr wd) w - lr sign(g) */
        assert_true(fabs((double)w[0] - 0.4) < 1e-5);
        assert_true(fabs((double)w[1] - 2.3) < 1e-5);
        assert_true(fabs((double)w[2] - 2.2) < 1e-5);
        device_destroy(dev);
    }
}

static void swiglu_survives_extreme_gates(void **state)
{
    (void)state;
    static const char *const names[] = {"ref", "cpu"};
    for (size_t i = 0; i < 2; i++) {
        struct device *dev = device_open(names[i], NULL);
        enum { ROWS = 4 };
        real host[ROWS] = {-1000, -90, 90, 1000}, ones[ROWS] = {1, 1, 1, 1}, out[ROWS];
        real *gate = act_poisoned(dev, ROWS, 1), *up = act_poisoned(dev, ROWS, 1);
        real *result = act_poisoned(dev, ROWS, 1);
        dev->ops->act_load(dev, gate, host, ROWS, 1);
        dev->ops->act_load(dev, up, ones, ROWS, 1);
        dev->ops->swiglu_forward(dev, result, gate, up, ROWS, 1);
        dev->ops->act_store(dev, out, result, ROWS, 1);
        assert_true(fabs((double)out[0]) < 1e-30 && fabs((double)out[1]) < 1e-30);
        assert_true(fabs((double)out[2] - 90) < 1e-4 && fabs((double)out[3] - 1000) < 1e-3);
        device_free(dev, gate);
        device_free(dev, up);
        device_free(dev, result);
        device_destroy(dev);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_op_agrees_with_the_reference),
        cmocka_unit_test(bits_do_not_depend_on_the_number_of_threads),
        cmocka_unit_test(exponential_stays_within_its_bound),
        cmocka_unit_test(the_first_step_of_adamw_is_the_learning_rate),
        cmocka_unit_test(swiglu_survives_extreme_gates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
