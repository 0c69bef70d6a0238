/* The order of windows is a permutation, and the validation split is even, disjoint and
 * complete. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/data_order.h"
#include <stdlib.h>
#include <string.h>

enum { SIZE_MAX_TRIED = 5000 };

static void the_order_is_a_permutation_for_every_size(void **state)
{
    (void)state;
    static unsigned char seen[SIZE_MAX_TRIED];
    static const uint64_t sizes[] = {1,  2,  3,  4,   5,   6,   7,    8,    9,    15,   16,  17,
                                     31, 33, 63, 100, 127, 255, 1000, 1023, 1024, 1025, 4097};
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        for (uint64_t epoch = 0; epoch < 3; epoch++) {
            memset(seen, 0, sizeof(seen));
            for (uint64_t i = 0; i < sizes[s]; i++) {
                uint64_t place = data_permute(42, 0, epoch, i, sizes[s]);
                assert_true(place < sizes[s]);
                assert_int_equal(seen[place]++, 0);
            }
        }
    }
}

/* Positions whose place differs between two permutations of `size`. */
static uint64_t differences(uint64_t seed_a, uint32_t stream_a, uint64_t epoch_a,
                            uint64_t seed_b, uint32_t stream_b, uint64_t epoch_b, uint64_t size)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < size; i++)
        count += data_permute(seed_a, stream_a, epoch_a, i, size) !=
                 data_permute(seed_b, stream_b, epoch_b, i, size);
    return count;
}

static void epochs_seeds_and_streams_have_orders_of_their_own(void **state)
{
    (void)state;
    assert_int_equal(differences(1, 0, 0, 1, 0, 0, 1000), 0);
    /* two random permutations agree in one place on average */
    assert_true(differences(1, 0, 0, 1, 0, 1, 1000) > 980);
    assert_true(differences(1, 0, 0, 2, 0, 0, 1000) > 980);
    assert_true(differences(1, 0, 0, UINT64_C(1) << 32 | 1, 0, 0, 1000) > 980);
    assert_true(differences(1, 0, 0, 1, 1, 0, 1000) > 980);
    assert_true(differences(1, 0, 0, 1, 0, DATA_EPOCHS_MAX - 1, 1000) > 980);
}

static void the_order_is_spread_over_the_whole_range(void **state)
{
    (void)state;
    enum { SIZE = 4096, DRAWN = 1024, PARTS = 8, EXPECTED = DRAWN / PARTS };
    unsigned parts[PARTS] = {0}, rising = 0;
    uint64_t before = 0;
    for (uint64_t i = 0; i < DRAWN; i++) {
        uint64_t place = data_permute(7, 0, 3, i, SIZE);
        parts[place / (SIZE / PARTS)]++;
        rising += place > before;
        before = place;
    }
    for (size_t p = 0; p < PARTS; p++) /* sd 9.2 of drawing without replacement: 5 sd */
        assert_in_range(parts[p], EXPECTED - 46, EXPECTED + 46);
    assert_in_range(rising, DRAWN / 2 - 80, DRAWN / 2 + 80); /* sd sqrt(n / 12) = 9.2 */
}

static void large_sizes_stay_in_range(void **state)
{
    (void)state;
    const uint64_t size = (UINT64_C(1) << 53) - 1;
    uint64_t first = data_permute(3, 0, 0, 0, size),
             last = data_permute(3, 0, 0, size - 1, size);
    assert_true(first < size && last < size && first != last);
    assert_true(data_permute(3, 0, 0, 1, size) != first + 1);
}

static void check_holdout(uint64_t windows, double fraction)
{
    unsigned char *owner = calloc(windows, 1);
    struct data_holdout holdout;
    assert_non_null(owner);
    assert_true(data_holdout_init(&holdout, windows, fraction));
    const uint64_t train = data_holdout_count(&holdout, SPLIT_TRAIN);
    const uint64_t held = data_holdout_count(&holdout, SPLIT_VALIDATION);
    assert_int_equal(train + held, windows);
    assert_true(train > 0);
    assert_int_equal(held > 0, fraction > 0);
    for (int split = SPLIT_TRAIN; split <= SPLIT_VALIDATION; split++) {
        uint64_t before = 0, count = data_holdout_count(&holdout, (enum dataset_split)split);
        for (uint64_t i = 0; i < count; i++) {
            uint64_t w = data_holdout_window(&holdout, (enum dataset_split)split, i);
            assert_true(w < windows && (i == 0 || w > before)); /* in file order */
            assert_int_equal(owner[w]++, 0);                    /* disjoint, and so complete */
            before = w;
        }
    }
    free(owner);
}

static void splits_are_disjoint_and_complete(void **state)
{
    (void)state;
    static const double fractions[] = {0, 1e-9, 0.01, 0.05, 0.1, 1.0 / 3, 0.49, 0.5};
    for (uint64_t windows = 2; windows < 400; windows += windows < 80 ? 1 : 13) {
        for (size_t f = 0; f < sizeof(fractions) / sizeof(fractions[0]); f++)
            check_holdout(windows, fractions[f]);
    }
    check_holdout(4999, 0.05);
}

static void blocks_of_sixteen_are_held_out_evenly(void **state)
{
    (void)state;
    struct data_holdout holdout;
    assert_true(data_holdout_init(&holdout, 1600, 0.05)); /* 100 blocks: 19, 39, 59, 79, 99 */
    assert_int_equal(data_holdout_count(&holdout, SPLIT_VALIDATION), 80);
    for (uint64_t i = 0; i < 80; i++)
        assert_int_equal(data_holdout_window(&holdout, SPLIT_VALIDATION, i),
                         (20 * (i / 16) + 19) * 16 + i % 16);
    assert_true(data_holdout_init(&holdout, 1590, 0.05)); /* the last block has 6 windows */
    assert_int_equal(data_holdout_count(&holdout, SPLIT_VALIDATION), 70);
    assert_int_equal(data_holdout_window(&holdout, SPLIT_VALIDATION, 69), 1589);
}

static void few_windows_still_give_a_validation_split(void **state)
{
    (void)state;
    struct data_holdout holdout;
    assert_false(data_holdout_init(&holdout, 1, 0.05));
    assert_false(data_holdout_init(&holdout, 0, 0.05));
    assert_true(data_holdout_init(&holdout, 1, 0));
    assert_true(data_holdout_init(&holdout, 100, 0.05)); /* blocks of 4: one of 25 */
    assert_int_equal(holdout.block, 4);
    assert_int_equal(data_holdout_count(&holdout, SPLIT_VALIDATION), 4);
    assert_true(data_holdout_init(&holdout, 5, 0.05)); /* 5 * 0.05 < 1: the last window */
    assert_int_equal(data_holdout_count(&holdout, SPLIT_VALIDATION), 1);
    assert_int_equal(data_holdout_window(&holdout, SPLIT_VALIDATION, 0), 4);
    assert_true(data_holdout_init(&holdout, 49, 1e-12)); /* 49 * (1.0 / 49) is below 1 */
    assert_int_equal(data_holdout_window(&holdout, SPLIT_VALIDATION, 0), 48);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_order_is_a_permutation_for_every_size),
        cmocka_unit_test(epochs_seeds_and_streams_have_orders_of_their_own),
        cmocka_unit_test(the_order_is_spread_over_the_whole_range),
        cmocka_unit_test(large_sizes_stay_in_range),
        cmocka_unit_test(splits_are_disjoint_and_complete),
        cmocka_unit_test(blocks_of_sixteen_are_held_out_evenly),
        cmocka_unit_test(few_windows_still_give_a_validation_split),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
