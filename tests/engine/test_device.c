/* The device table and the scratch that a device reserves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs those first */
#include <cmocka.h>

#include "engine/ops.h"
#include <string.h>

static const struct device_limits limits = {
    .rows = 512, .dim_max = 256, .vocab = 1000, .context = 256, .heads = 4, .head_dim = 32,
    .nm_values = 1000};

static void unknown_devices_are_refused_by_name(void **state)
{
    (void)state;
    struct device *dev = NULL;
    struct err err;
    assert_int_equal(device_create(&dev, "tpu", NULL, &err), ERR_UNSUPPORTED);
    assert_null(dev);
    assert_int_equal(strncmp(err.text, "/resources/device is \"tpu\": this build has ref, cpu", 51), 0);
}

static void every_device_has_every_op(void **state)
{
    (void)state;
    static const char *const names[] = {"ref", "cpu"};
    for (size_t i = 0; i < 2; i++) {
        struct device *dev = NULL;
        assert_int_equal(device_create(&dev, names[i], NULL, NULL), 0);
        assert_string_equal(dev->ops->name, names[i]);
        void (*row[sizeof(struct ops) / sizeof(void (*)(void))])(void);
        memcpy(row, dev->ops, sizeof row);
        for (size_t j = 0; j < sizeof row / sizeof row[0]; j++)
            assert_non_null(row[j]);
        device_destroy(dev);
    }
    device_destroy(NULL);
}

static void reserve_takes_what_the_estimate_says(void **state)
{
    (void)state;
    static const char *const names[] = {"ref", "cpu"};
    for (size_t i = 0; i < 2; i++) {
        struct pool *pool = NULL;
        struct device *dev = NULL;
        assert_int_equal(pool_create(&pool, 2, NULL), 0);
        assert_int_equal(device_create(&dev, names[i], pool, NULL), 0);
        assert_int_equal(device_reserve(dev, &limits, NULL), 0);
        assert_int_equal(dev->scratch_bytes, device_scratch_bytes(names[i], &limits, 2));
        void *kept = dev->scratch;
        struct device_limits smaller = limits, larger = limits;
        smaller.vocab = 10;
        assert_int_equal(device_reserve(dev, &smaller, NULL), 0);
        assert_ptr_equal(dev->scratch, kept); /* never shrinks */
        larger.vocab = 4000;
        assert_int_equal(device_reserve(dev, &larger, NULL), 0);
        assert_int_equal(dev->scratch_bytes, device_scratch_bytes(names[i], &larger, 2));
        device_destroy(dev);
        pool_destroy(pool);
    }
}

static void sizes_that_overflow_are_an_error(void **state)
{
    (void)state;
    static const char *const names[] = {"ref", "cpu"};
    struct device_limits huge = limits, wide = limits;
    huge.vocab = SIZE_MAX / 2;
    wide.nm_values = SIZE_MAX / 2;
    assert_int_equal(device_scratch_bytes("cpu", &wide, 1), SIZE_MAX);
    for (size_t i = 0; i < 2; i++) {
        struct device *dev = NULL;
        struct err err;
        assert_int_equal(device_create(&dev, names[i], NULL, NULL), 0);
        assert_int_equal(device_reserve(dev, &huge, &err), ERR_NO_MEMORY);
        assert_int_equal(device_scratch_bytes(names[i], &huge, 1), SIZE_MAX);
        device_destroy(dev);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_devices_are_refused_by_name),
        cmocka_unit_test(every_device_has_every_op),
        cmocka_unit_test(reserve_takes_what_the_estimate_says),
        cmocka_unit_test(sizes_that_overflow_are_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
