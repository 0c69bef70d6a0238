/* The guard by itself: its limit against a slow reference, its counts, and one verdict of all
 * ranks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/guard.h"
#include "engine/philox.h"
#include "tests/engine/comms.h"
#include <math.h>
#include <stdlib.h>

static const struct guard_config CONFIG = {
    .window = 9, .factor = 4, .rise = 0.25, .skips = 2, .rollbacks = 1};

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double slow_median(const double *values, size_t count)
{
    double sorted[GUARD_WINDOW_MAX];
    memcpy(sorted, values, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, ascending);
    return (sorted[(count - 1) / 2] + sorted[count / 2]) / 2;
}

/* From all losses ever accepted. */
static double slow_limit(const double *all, size_t count, const struct guard_config *config)
{
    double distances[GUARD_WINDOW_MAX];
    size_t used = count < config->window ? count : config->window;
    const double *last = all + count - used;
    if (used == 0 || 2 * used < config->window)
        return (double)INFINITY;
    const double middle = slow_median(last, used);
    for (size_t i = 0; i < used; i++)
        distances[i] = fabs(last[i] - middle);
    return middle + fmax(config->factor * 1.4826 * slow_median(distances, used), config->rise);
}

static void the_limit_is_that_of_a_slow_reference(void **state)
{
    (void)state;
    static const size_t windows[] = {0, 1, 2, 3, 8, 31, 128, GUARD_WINDOW_MAX};
    for (size_t w = 0; w < sizeof windows / sizeof *windows; w++) {
        enum { STEPS = 1200 };
        static double all[STEPS];
        size_t accepted = 0, rejected = 0;
        struct guard guard = {0};
        struct guard_config config = CONFIG;
        const struct philox key = {.seed = w, .purpose = PHILOX_GENERATE};
        config.window = windows[w];
        for (size_t i = 0; i < STEPS; i++) {
            /* levels with ties, noise, a spike at times */
            double loss = 3 - 0.001 * (double)i + 0.05 * floor(4 * philox_normal(&key, i));
            loss += i % 97 == 96 ? 5 : 0;
            const double limit = guard_limit(&guard, &config);
            const double right =
                config.window ? slow_limit(all, accepted, &config) : (double)INFINITY;
            if (isinf(right) ? !isinf(limit) : fabs(limit - right) > 1e-12)
                fail_msg("window %zu, step %zu: %g, not %g", windows[w], i, limit, right);
            if (guard_judge(&guard, &config, loss, 1) == GUARD_ACCEPTED) {
                guard_accept(&guard, &config, loss);
                all[accepted++] = loss;
            } else {
                assert_true(loss > right);
                guard_reject(&guard);
                rejected++;
            }
        }
        assert_int_equal(guard.skipped, rejected);
        assert_true(windows[w] == 0 ? rejected == 0 : rejected > 0);
    }
}

static void a_rejected_loss_stays_out_of_the_window(void **state)
{
    (void)state;
    struct guard guard = {0};
    for (int i = 0; i < 9; i++)
        guard_accept(&guard, &CONFIG, 2);
    const double limit = guard_limit(&guard, &CONFIG);
    assert_true(limit == 2.25);
    assert_int_equal(guard_judge(&guard, &CONFIG, 2.25, 1), GUARD_ACCEPTED);
    assert_int_equal(guard_judge(&guard, &CONFIG, 2.26, 1), GUARD_SPIKE);
    for (int i = 0; i < 100; i++)
        guard_reject(&guard);
    assert_true(guard_limit(&guard, &CONFIG) == limit);
    assert_int_equal(guard_judge(&guard, &CONFIG, 0.1, 1),
                     GUARD_ACCEPTED); /* downwards is fine */
    guard_forget(&guard);
    assert_int_equal(guard_judge(&guard, &CONFIG, 100, 1), GUARD_ACCEPTED);
    assert_int_equal(guard.skipped, 100);
}

static void numbers_that_are_not_finite_are_known_by_their_bits(void **state)
{
    (void)state;
    const struct guard guard = {0};
    const double bad[] = {(double)NAN, -(double)NAN, (double)INFINITY, -(double)INFINITY};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(guard_judge(&guard, &CONFIG, bad[i], 1), GUARD_NONFINITE);
        assert_int_equal(guard_judge(&guard, &CONFIG, 1, bad[i]), GUARD_NONFINITE);
    }
    assert_int_equal(guard_judge(&guard, &CONFIG, 1.7e308, 5e-324), GUARD_ACCEPTED);
}

static void skips_and_roll_backs_are_bounded(void **state)
{
    (void)state;
    struct guard guard = {.skipped = 5};
    guard_reject(&guard);
    guard_reject(&guard);
    assert_int_equal(guard_next(&guard, &CONFIG, GUARD_NONFINITE), GUARD_GO_ON);
    guard_reject(&guard);
    assert_int_equal(guard_next(&guard, &CONFIG, GUARD_NONFINITE), GUARD_ROLL_BACK);
    /* From step 30 back to 20, whose checkpoint had left out 4: 30 + 8 batches were drawn. */
    struct guard then = {.skipped = 4, .streak = 1};
    guard_rolled_back(&then, &guard, 30, 20);
    assert_int_equal(20 + then.skipped, 30 + guard.skipped);
    assert_int_equal(then.rollbacks, 1);
    assert_int_equal(then.streak, 0);
    for (int i = 0; i < 3; i++)
        guard_reject(&then);
    assert_int_equal(guard_next(&then, &CONFIG, GUARD_NONFINITE), GUARD_GIVE_UP);
    assert_int_equal(guard_next(&then, &CONFIG, GUARD_DISAGREE), GUARD_GIVE_UP);
    assert_int_equal(guard_next(&then, &CONFIG, GUARD_SPIKE), GUARD_ACCEPT);
    guard_accept(&then, &CONFIG, 1);
    assert_int_equal(then.streak, 0);
    const struct guard_config none = {0};
    struct guard first = {0};
    guard_reject(&first);
    assert_int_equal(guard_next(&first, &none, GUARD_NONFINITE), GUARD_GIVE_UP);
}

struct voter {
    struct comms_rank *rank;
    double loss, norm;
    enum guard_verdict verdict;
    int rc;
};

static void *vote(void *context)
{
    struct voter *voter = context;
    voter->rc =
        guard_agree(&voter->rank->comm, voter->loss, voter->norm, &voter->verdict, NULL);
    return NULL;
}

static void all_ranks_get_one_verdict(void **state)
{
    (void)state;
    const double nan = (double)NAN, near = nextafter(1, 2);
    const struct {
        double loss[3], norm[3];
        enum guard_verdict verdict;
    } cases[] = {
        {{1, 1, 1}, {2, 2, 2}, GUARD_ACCEPTED},
        {{1, 1, near}, {2, 2, 2}, GUARD_DISAGREE},
        {{1, 1, 1}, {near, 1, 1}, GUARD_DISAGREE},
        {{-1, 1, 1}, {2, 2, 2}, GUARD_DISAGREE},
        {{0.0, -0.0, 0.0}, {2, 2, 2}, GUARD_DISAGREE},
        {{nan, nan, nan}, {2, 2, 2}, GUARD_NONFINITE},
        {{1, nan, 1}, {2, 2, 2}, GUARD_NONFINITE},
        {{1, 1, 1}, {2, 2, (double)INFINITY}, GUARD_NONFINITE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct comms_world world;
        struct comms_rank ranks[COMMS_MAX];
        struct voter voters[3];
        pthread_t threads[3];
        comms_init(&world, ranks, 3);
        for (int r = 0; r < 3; r++) {
            voters[r] = (struct voter){
                .rank = &ranks[r], .loss = cases[i].loss[r], .norm = cases[i].norm[r]};
            assert_int_equal(pthread_create(&threads[r], NULL, vote, &voters[r]), 0);
        }
        for (int r = 0; r < 3; r++) {
            pthread_join(threads[r], NULL);
            assert_int_equal(voters[r].rc, 0);
            assert_int_equal(voters[r].verdict, cases[i].verdict);
        }
        comms_release(&world);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_limit_is_that_of_a_slow_reference),
        cmocka_unit_test(a_rejected_loss_stays_out_of_the_window),
        cmocka_unit_test(numbers_that_are_not_finite_are_known_by_their_bits),
        cmocka_unit_test(skips_and_roll_backs_are_bounded),
        cmocka_unit_test(all_ranks_get_one_verdict),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
