#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/philox.h"
#include <math.h>

/* The known answers that the authors publish with Random123 1.14 (kat_vectors). */
static void philox_gives_the_published_answers(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } rows[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint32_t out[4];
        philox_raw(rows[i].counter, rows[i].key, out);
        assert_memory_equal(out, rows[i].out, sizeof out);
    }
}

static void philox_counter_holds_index_stream_purpose_and_round(void **state)
{
    (void)state;
    const struct philox key = {.seed = 0x299f31d0a4093822, /* low word first */
                               .purpose = 0x13,
                               .stream = 0x198a2e,
                               .round = 0x03707344};
    static const uint32_t expected[4] = {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1};
    uint32_t out[4];
    philox_block(&key, 0x85a308d3243f6a88, out);
    assert_memory_equal(out, expected, sizeof out);
}

static void philox_u32_is_a_word_of_its_block(void **state)
{
    (void)state;
    const struct philox key = {.seed = 7, .purpose = PHILOX_REMOVAL, .stream = 3, .round = 9};
    for (uint64_t index = 0; index < 64; index++) {
        uint32_t block[4];
        philox_block(&key, index / 4, block);
        assert_int_equal(philox_u32(&key, index), block[index % 4]);
    }
}

static void philox_uniform_fill_equals_single_draws_at_any_offset(void **state)
{
    (void)state;
    const struct philox key = {.seed = 1, .purpose = PHILOX_REGROWTH, .stream = 2, .round = 3};
    for (uint64_t first = 0; first < 9; first++)
        for (size_t count = 0; count < 11; count++) {
            double out[12];
            out[count] = -1;
            philox_uniform_fill(&key, first, count, out);
            for (size_t i = 0; i < count; i++)
                assert_true(out[i] == philox_uniform(&key, first + i));
            assert_true(out[count] < 0);
        }
}

static void philox_uniform_is_open_and_flat(void **state)
{
    (void)state;
    enum { DRAWS = 100000, BINS = 100 };
    /* chi-square with 99 degrees of freedom: 148.2 is exceeded with probability 0.001. */
    static const double limit = 148.23;
    size_t bins[BINS] = {0};
    const struct philox key = {.seed = 11, .purpose = PHILOX_REMOVAL};
    for (uint64_t i = 0; i < DRAWS; i++) {
        double u = philox_uniform(&key, i);
        assert_true(u > 0 && u < 1);
        bins[(size_t)(u * BINS)]++;
    }
    double chi = 0;
    for (size_t i = 0; i < BINS; i++) {
        double d = (double)bins[i] - DRAWS / BINS;
        chi += d * d / (DRAWS / BINS);
    }
    assert_true(chi < limit);
}

static void philox_normal_has_the_moments_of_a_normal(void **state)
{
    (void)state;
    enum { DRAWS = 100000 };
    const struct philox key = {.seed = 5, .purpose = PHILOX_INIT_WEIGHT, .stream = 8};
    double sum[5] = {0}, cross = 0;
    for (uint64_t i = 0; i < DRAWS; i++) {
        double x = philox_normal(&key, i), power = 1;
        for (int k = 0; k < 5; k++, power *= x)
            sum[k] += power;
        if (i % 2 == 0)
            cross += x * philox_normal(&key, i + 1);
    }
    /* Four standard errors of each moment's mean: var(x^k) = 1, 2, 15, 96. */
    const double root = sqrt((double)DRAWS);
    assert_true(fabs(sum[1] / DRAWS) < 4 / root);
    assert_true(fabs(sum[2] / DRAWS - 1) < 4 * sqrt(2.0) / root);
    assert_true(fabs(sum[3] / DRAWS) < 4 * sqrt(15.0) / root);
    assert_true(fabs(sum[4] / DRAWS - 3) < 4 * sqrt(96.0) / root);
    assert_true(fabs(cross / (DRAWS / 2)) < 4 * sqrt(2.0) / root);
}

static void philox_streams_differ(void **state)
{
    (void)state;
    const struct philox base = {.seed = 1, .purpose = 1, .stream = 1, .round = 1};
    struct philox keys[5] = {base, base, base, base, base};
    keys[1].seed = (uint64_t)1 << 32;
    keys[2].purpose = 2;
    keys[3].stream = 2;
    keys[4].round = 2;
    for (size_t a = 0; a < 5; a++)
        for (size_t b = 0; b < a; b++)
            for (uint64_t i = 0; i < 8; i++)
                assert_int_not_equal(philox_u32(&keys[a], i), philox_u32(&keys[b], i));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_published_answers),
        cmocka_unit_test(philox_counter_holds_index_stream_purpose_and_round),
        cmocka_unit_test(philox_u32_is_a_word_of_its_block),
        cmocka_unit_test(philox_uniform_fill_equals_single_draws_at_any_offset),
        cmocka_unit_test(philox_uniform_is_open_and_flat),
        cmocka_unit_test(philox_normal_has_the_moments_of_a_normal),
        cmocka_unit_test(philox_streams_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
