/* Every op of the devices "cuda" and "cuda-fp32" against the reference, on the cases of every other device. Built twice:
 * for a GPU, where it skips without one, and for the emulator, which runs the same kernels on the CPU. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs those first */
#include <cmocka.h>

#include "tests/cuda/cuda_fixture.h"
#include "tests/engine/ops_cases.h"

/* Norm of the difference over the norm of the reference, or that of standard normal numbers together with it. fp32: sums in another order, as in tests/engine/test_ops.c. bf16: operands
 * and results are rounded to 8 bits, 2^-9 each at most; gradients go through several of them. */
static const double FP32_TOLERANCE = 2e-5, BF16_TOLERANCE = 2e-2;

static struct device *device_open(const char *name)
{
    static const struct device_limits limits = {
        .rows = 300, .dim_max = 300, .vocab = 300, .context = 192, .heads = 4, .head_dim = 66};
    struct device *dev = NULL;
    struct err err;
    if (device_create(&dev, name, NULL, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(device_reserve(dev, &limits, NULL), 0);
    return dev;
}

static void compare(const struct results *want, const struct results *got, const char *device,
                    double tolerance)
{
    assert_int_equal(want->count, got->count);
    for (size_t i = 0; i < want->count; i++) {
        double norm = (double)want->length[i], difference = 0; /* all is made of standard normal numbers */
        assert_int_equal(want->length[i], got->length[i]);
        for (size_t j = 0; j < want->length[i]; j++) {
            const double a = (double)want->data[i][j], b = (double)got->data[i][j];
            norm += a * a;
            difference += (a - b) * (a - b);
        }
        if (!(difference <= tolerance * tolerance * norm))
            fail_msg("%s, %s (%zu): off by %.3g of the reference's norm %.3g, %.3g allowed", device,
                     want->name[i], want->length[i], sqrt(difference / norm), sqrt(norm),
                     tolerance);
    }
}

/* Heads that tensor cores take: whole and broken tiles, one and several, shared key heads. */
static void add_tensor_core_cases(struct case_list *list)
{
    static const struct attention_shape shapes[] = {
        {.batch = 1, .context = 1, .heads = 1, .kv_heads = 1, .head_dim = 64},
        {.batch = 2, .context = 70, .heads = 4, .kv_heads = 2, .head_dim = 64},
        {.batch = 1, .context = 128, .heads = 2, .kv_heads = 1, .head_dim = 64},
        {.batch = 1, .context = 130, .heads = 1, .kv_heads = 1, .head_dim = 128},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct shape s = {.attention = shapes[i]};
        case_add(list, (struct op_case){run_attention, s});
    }
}

/* Row counts around the CPU's panels say nothing more here. */
static bool left_out(const struct op_case *item)
{
    return item->shape.rows >= 63 && item->shape.rows <= 65;
}

static void check_device(const char *name, double tolerance)
{
    struct case_list list = cases_create();
    add_tensor_core_cases(&list);
    struct device *ref = device_open("ref"), *dev = device_open(name);
    struct err err;
    for (size_t i = 0; i < list.count; i++) {
        struct results want = {.count = 0}, got = {.count = 0};
        if (left_out(&list.items[i]))
            continue;
        list.items[i].run(ref, &list.items[i].shape, &want);
        list.items[i].run(dev, &list.items[i].shape, &got);
        if (device_check(dev, &err) != 0)
            fail_msg("%s", err.text);
        compare(&want, &got, name, tolerance);
        results_release(&want);
        results_release(&got);
    }
    device_destroy(ref);
    device_destroy(dev);
    free(list.items);
}

static void every_op_in_fp32_agrees_with_the_reference(void **state)
{
    (void)state;
    check_device("cuda-fp32", FP32_TOLERANCE);
}

static void every_op_in_bf16_is_near_the_reference(void **state)
{
    (void)state;
    check_device("cuda", BF16_TOLERANCE);
}

/* Twice the same bits: no op adds up in an order that chance decides. */
static void two_runs_give_the_same_bits(void **state)
{
    (void)state;
    struct case_list list = cases_create();
    struct device *dev = device_open("cuda");
    for (size_t i = 0; i < list.count; i += 16) {
        struct results first = {.count = 0}, second = {.count = 0};
        list.items[i].run(dev, &list.items[i].shape, &first);
        list.items[i].run(dev, &list.items[i].shape, &second);
        for (size_t j = 0; j < first.count; j++)
            assert_memory_equal(first.data[j], second.data[j], first.length[j] * sizeof(real));
        results_release(&first);
        results_release(&second);
    }
    device_destroy(dev);
    free(list.items);
}

static void memory_goes_to_the_device_and_back(void **state)
{
    (void)state;
    enum { COUNT = 1000 };
    struct device *dev = device_open("cuda");
    real *memory = device_alloc(dev, COUNT, sizeof *memory);
    assert_non_null(memory);
    assert_false(device_shares_memory(dev));
    for (size_t i = 0; i < COUNT; i++)
        memory[i] = (real)i;
    device_push(dev, memory, COUNT * sizeof *memory);
    memset(memory, 0xff, COUNT * sizeof *memory);
    device_pull(dev, memory + 10, 10 * sizeof *memory);
    assert_true(isnan(memory[9]) && isnan(memory[20]));
    for (size_t i = 10; i < 20; i++)
        assert_true(memory[i] >= (real)i && memory[i] <= (real)i);
    device_zero(dev, memory, 10 * sizeof *memory);
    device_pull(dev, memory, COUNT * sizeof *memory);
    for (size_t i = 0; i < COUNT; i++)
        assert_true(memory[i] >= (real)(i < 10 ? 0 : i) && memory[i] <= (real)(i < 10 ? 0 : i));
    assert_null(device_alloc(dev, SIZE_MAX / 2, sizeof *memory));
    device_free(dev, memory);
    device_free(dev, NULL);
    device_destroy(dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_goes_to_the_device_and_back),
        cmocka_unit_test(every_op_in_fp32_agrees_with_the_reference),
        cmocka_unit_test(every_op_in_bf16_is_near_the_reference),
        cmocka_unit_test(two_runs_give_the_same_bits),
    };
    cuda_skip_without_device();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
