/* The choice between ways of an N:M product, and what the device says of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs those first */
#include <cmocka.h>

#include "engine/cuda/choice.h"
#include "tests/cuda/cuda_fixture.h"
#include "tests/engine/ops_fixture.h"
#include <math.h>
#include <string.h>

/* cuSPARSELt over cuBLASLt as published for an H100, square shapes of 512 to 4096. */
static void sparse_is_taken_only_where_it_wins_and_agrees(void **state)
{
    (void)state;
    static const struct {
        double ratio;
        bool sparse;
    } recorded[] = {{0.60, false}, {0.75, false}, {0.97, false}, {1.02, false}, {1.18, true}, {1.53, true}};
    for (size_t i = 0; i < sizeof recorded / sizeof recorded[0]; i++) {
        assert_int_equal(choice_make(1e-3, 1e-3 / recorded[i].ratio, 1e-3), recorded[i].sparse);
        assert_false(choice_make(1e-3, 1e-3 / recorded[i].ratio, 0.5)); /* another result */
        assert_false(choice_make(1e-3, 1e-3 / recorded[i].ratio, (double)NAN));
    }
}

static void every_shape_is_chosen_once(void **state)
{
    (void)state;
    enum { ROWS = 64, DIN = 64, DOUT = 32, TEXT = 512 };
    struct device *dev = NULL;
    char text[TEXT];
    assert_int_equal(device_create(&dev, "cuda", NULL, NULL), 0);
    assert_true(device_choice(dev, 0, text, sizeof text)); /* the device itself */
    assert_non_null(strstr(text, "multiprocessors"));
    assert_false(device_choice(dev, 1, text, sizeof text));
    struct nm w = fixture_nm(dev, DOUT, DIN, 2, 4, 1);
    real *x = device_alloc(dev, dev->ops->act_size(ROWS, DIN), sizeof *x);
    real *y = device_alloc(dev, dev->ops->act_size(ROWS, DOUT), sizeof *y);
    real *host = fixture_normal((size_t)ROWS * DIN, 2);
    dev->ops->act_load(dev, x, host, ROWS, DIN);
    dev->ops->nm_forward(dev, y, x, &w, ROWS);
    dev->ops->nm_forward(dev, y, x, &w, ROWS);
    assert_int_equal(device_check(dev, NULL), 0);
    const bool chosen = device_choice(dev, 1, text, sizeof text);
    assert_true(!chosen || strstr(text, "forward 32 x 64, 64 tokens, 2:4") != NULL);
    assert_false(device_choice(dev, 2, text, sizeof text));
    mem_aligned_free(host);
    device_free(dev, x);
    device_free(dev, y);
    fixture_nm_free(dev, &w);
    device_destroy(dev);
}

/* The CPU has nothing to say. */
static void other_devices_choose_nothing(void **state)
{
    (void)state;
    char text[8];
    struct device *dev = NULL;
    assert_int_equal(device_create(&dev, "cpu", NULL, NULL), 0);
    assert_false(device_choice(dev, 0, text, sizeof text));
    assert_true(device_shares_memory(dev));
    assert_ptr_equal(device_address(dev, text), text);
    assert_null(device_queue(dev));
    device_destroy(dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sparse_is_taken_only_where_it_wins_and_agrees),
        cmocka_unit_test(every_shape_is_chosen_once),
        cmocka_unit_test(other_devices_choose_nothing),
    };
    cuda_skip_without_device();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
