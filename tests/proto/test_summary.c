/* A run's events as one row. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/json/json.h"
#include "proto/msg/summary.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static void add(struct summary *summary, const char *format, ...)
{
    char text[1024];
    va_list args;
    cJSON *event;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    assert_int_equal(json_parse(&event, text, strlen(text), NULL), 0);
    assert_int_equal(summary_add(summary, event, NULL), 0);
    cJSON_Delete(event);
}

static void add_start(struct summary *summary, int step)
{
    add(summary,
        "{\"type\":\"start\",\"attempt\":1,\"step\":%d,\"steps\":6,\"parameters\":400,"
        "\"active_parameters\":100,\"adapter_parameters\":7,\"density\":0.25,\"tokens_per_"
        "step\":10}",
        step);
}

static void add_step(struct summary *summary, int step, double ms)
{
    add(summary,
        "{\"type\":\"step\",\"step\":%d,\"tokens\":%d,\"loss\":3,\"step_ms\":%.17g,"
        "\"tokens_per_s\":%.17g}",
        step, step * 10, ms, 10000 / ms);
}

static void add_eval(struct summary *summary, int step, const char *loss)
{
    add(summary, "{\"type\":\"eval\",\"step\":%d,\"split\":\"validation\",\"loss\":%s}", step,
        loss);
}

static void add_refresh(struct summary *summary, int step, double ms, double a, double b)
{
    add(summary,
        "{\"type\":\"refresh\",\"step\":%d,\"ms\":%g,\"layers\":[{\"flip_rate\":%g},"
        "{\"flip_rate\":%g}]}",
        step, ms, a, b);
}

static void near(double a, double b) { assert_true(fabs(a - b) < 1e-12); }

static void steps_evaluations_and_refreshes_become_one_row(void **state)
{
    (void)state;
    struct summary s;
    summary_init(&s);
    add_start(&s, 0);
    for (int i = 1; i <= 4; i++) {
        add_step(&s, i, 10 * i);
    }
    add_eval(&s, 2, "2.5");
    add_refresh(&s, 2, 4, 0.1, 0.3);
    add_eval(&s, 4, "2.75");
    add_refresh(&s, 4, 6, 0, 0.1);
    add(&s, "{\"type\":\"eval\",\"step\":4,\"split\":\"train\",\"loss\":1}");
    add(&s, "{\"type\":\"warning\",\"code\":\"prune_failed\",\"detail\":\"x\"}");
    assert_int_equal(summary_finish(&s, NULL), 0);
    near(s.final_loss, 2.75);
    near(s.best_loss, 2.5);
    assert_int_equal(s.best_step, 2);
    near(s.tokens_per_s, (10000.0 / 20 + 10000.0 / 30) / 2);
    near(s.refresh_share, 10.0 / 100);
    near(s.flip_rate, (0.2 + 0.05) / 2);
    assert_int_equal(s.refreshes, 2);
    near(s.tokens, 40);
    assert_true(s.step == 4 && s.steps == 6 && s.active_parameters == 100 &&
                s.adapter_parameters == 7 && !s.done);
    add(&s, "{\"type\":\"done\",\"step\":4}");
    assert_true(s.done);
    summary_release(&s);
}

static void what_is_done_again_counts_once(void **state)
{
    (void)state;
    struct summary s;
    summary_init(&s);
    add_start(&s, 0);
    for (int i = 1; i <= 5; i++) {
        add_step(&s, i, 1000);
    }
    add_eval(&s, 2, "2.5");
    add_eval(&s, 4, "0.5");
    add_refresh(&s, 2, 1, 0.5, 0.5);
    add_refresh(&s, 4, 900, 0.9, 0.9);
    add_start(&s, 2); /* from the checkpoint of step 2 */
    add_eval(&s, 2, "2.25");
    for (int i = 3; i <= 6; i++) {
        add_step(&s, i, 500);
    }
    add_refresh(&s, 4, 2, 0.1, 0.1);
    assert_int_equal(summary_finish(&s, NULL), 0);
    assert_true(s.step_count == 6 && s.attempts == 2 && s.refreshes == 2 && s.step == 6);
    near(s.refresh_share, 3.0 / 4000);
    near(s.flip_rate, 0.3);
    near(s.final_loss, 2.25);
    near(s.best_loss, 2.25);
    near(s.tokens_per_s, 20);
    summary_release(&s);
}

static void what_was_rolled_back_does_not_count(void **state)
{
    (void)state;
    struct summary s;
    summary_init(&s);
    add_start(&s, 0);
    for (int i = 1; i <= 4; i++) {
        add_step(&s, i, 10);
    }
    add_eval(&s, 4, "1.5");
    add(&s, "{\"type\":\"rollback\",\"step\":2,\"from\":4,\"tokens\":20}");
    assert_int_equal(s.step, 2);
    assert_int_equal(s.step_count, 2);
    assert_int_equal(s.attempts, 1);
    add_step(&s, 3, 10);
    add_eval(&s, 3, "2.5");
    assert_int_equal(summary_finish(&s, NULL), 0);
    near(s.final_loss, 2.5);
    near(s.best_loss, 2.5);
    near(s.tokens, 30);
    summary_release(&s);
}

static void losses_that_are_not_finite_are_not_known(void **state)
{
    (void)state;
    struct summary s;
    summary_init(&s);
    assert_int_equal(summary_finish(&s, NULL), 0);
    assert_true(isnan(s.final_loss) && isnan(s.best_loss) && isnan(s.tokens_per_s) &&
                isnan(s.refresh_share));
    add_start(&s, 0);
    add_eval(&s, 2, "2.5");
    add_eval(&s, 4, "null");
    assert_int_equal(summary_finish(&s, NULL), 0);
    assert_true(isnan(s.final_loss));
    near(s.best_loss, 2.5);
    summary_release(&s);
}

static void spread_is_that_of_a_sample(void **state)
{
    (void)state;
    const double values[] = {2, 4, 4, 4, 5, 5, 7, 9}, broken[] = {1, NAN};
    struct spread all = spread_of(values, 8), one = spread_of(values, 1);
    near(all.mean, 5);
    near(all.deviation, sqrt(32.0 / 7));
    near(one.mean, 2);
    assert_true(isnan(one.deviation) && isnan(spread_of(values, 0).mean));
    assert_true(isnan(spread_of(broken, 2).mean) && isnan(spread_of(broken, 2).deviation));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_evaluations_and_refreshes_become_one_row),
        cmocka_unit_test(what_is_done_again_counts_once),
        cmocka_unit_test(what_was_rolled_back_does_not_count),
        cmocka_unit_test(losses_that_are_not_finite_are_not_known),
        cmocka_unit_test(spread_is_that_of_a_sample),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
