/* The registry of methods, the schedule of refreshes, and the refresher's life. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/base/mem.h"
#include "refresh_fixture.h"
#include <malloc.h>
#include <math.h>

static void registry_has_the_methods_of_the_job_spec(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        bool sparse, refreshes;
    } rows[] = {{"dense", false, false}, {"static", true, false}, {"slope", true, false},
                {"set", true, true},     {"rigl", true, true},    {"chts24", true, true},
                {"chtsnm", true, true},  {"retrain", true, true}, {"ste", true, false},
                {"srste", true, false},  {"cast", true, false}};
    size_t count;
    const struct method *table = method_table(&count);
    assert_int_equal(count, sizeof rows / sizeof rows[0]);
    for (size_t i = 0; i < count; i++) {
        const struct method *method = method_find(rows[i].name);
        assert_ptr_equal(method, &table[i]);
        assert_int_equal(method->sparse, rows[i].sparse);
        assert_int_equal(method->refreshes, rows[i].refreshes);
    }
    assert_null(method_find("chts"));
    assert_null(method_find(""));
}

static void set_fixes_hard_magnitude_removal_and_random_scores(void **state)
{
    (void)state;
    struct method_config config = {
        .name = "set", .removal = REMOVAL_RI, .soft = true, .score = SCORE_CH2_L3N};
    assert_ptr_equal(method_settle(&config), method_find("set"));
    assert_int_equal(config.removal, REMOVAL_MAGNITUDE);
    assert_int_equal(config.score, SCORE_RANDOM);
    assert_false(config.soft);
    config = (struct method_config){
        .name = "chts24", .removal = REMOVAL_RI, .soft = true, .score = SCORE_CH3_L3N};
    method_settle(&config);
    assert_int_equal(config.removal, REMOVAL_RI);
    assert_int_equal(config.score, SCORE_CH3_L3N);
    assert_true(config.soft);
}

static void only_chtsnm_keeps_motif_pattern_revisitation(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        double mpr;
    } rows[] = {{"set", 0}, {"rigl", 0}, {"chts24", 0}, {"chtsnm", 0.75}, {"retrain", 0.75}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct method_config config = {.name = rows[i].name, .mpr = 0.75};
        method_settle(&config);
        assert_true(config.mpr == rows[i].mpr);
    }
}

static size_t one_matrix[1][2] = {{8, 16}};

static void create(struct fixture *f, struct refresher **refresher,
                   const struct method_config *config)
{
    struct err err;
    fixture_init(f, 1, 4, one_matrix, 1, 1, 1);
    assert_int_equal(refresher_create(refresher, config, &f->model, &err), 0);
}

static void refresh_is_due_at_the_interval_until_t_end_and_not_after_the_last_step(void **state)
{
    (void)state;
    static const struct {
        size_t steps, interval;
        double until, zeta;
        size_t first, last, count;
    } rows[] = {
        {1000, 100, 0.75, 0.1, 100, 700, 7}, {1000, 100, 1.0, 0.1, 100, 900, 9},
        {10, 1, 0.5, 0.1, 1, 5, 5},          {10, 3, 0.9, 0.1, 3, 9, 3},
        {100, 100, 1.0, 0.1, 0, 0, 0},       {100, 10, 0.75, 0.0, 0, 0, 0},
        {100, 10, 0.0, 0.1, 0, 0, 0},        {100, 0, 0.75, 0.1, 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct method_config config = {.name = "set",
                                             .steps = rows[i].steps,
                                             .interval = rows[i].interval,
                                             .until = rows[i].until,
                                             .zeta = rows[i].zeta};
        struct fixture f;
        struct refresher *refresher;
        create(&f, &refresher, &config);
        size_t first = 0, last = 0, count = 0;
        for (size_t step = 0; step <= 2 * rows[i].steps; step++)
            if (refresher_due(refresher, step)) {
                first = count++ ? first : step;
                last = step;
            }
        assert_int_equal(first, rows[i].first);
        assert_int_equal(last, rows[i].last);
        assert_int_equal(count, rows[i].count);
        refresher_destroy(refresher);
        fixture_release(&f);
    }
}

static void zeta_falls_as_a_cosine_and_temperature_rises_as_a_line(void **state)
{
    (void)state;
    static const double tolerance = 1e-15; /* a few roundings of numbers below 10 */
    const struct method_config config = {.name = "chts24",
                                         .steps = 400,
                                         .interval = 1,
                                         .until = 0.75,
                                         .zeta = 0.1,
                                         .temperature_start = 1,
                                         .temperature_end = 9};
    struct fixture f;
    struct refresher *refresher;
    create(&f, &refresher, &config);
    assert_true(fabs(refresher_zeta(refresher, 0) - 0.1) < tolerance);
    assert_true(fabs(refresher_zeta(refresher, 100) - 0.075) < tolerance);
    assert_true(fabs(refresher_zeta(refresher, 150) - 0.05) < tolerance);
    assert_true(fabs(refresher_zeta(refresher, 200) - 0.025) < tolerance);
    assert_true(refresher_zeta(refresher, 300) == 0 && refresher_zeta(refresher, 350) == 0);
    assert_true(refresher_temperature(refresher, 0) == 1);
    assert_true(refresher_temperature(refresher, 75) == 3);
    assert_true(refresher_temperature(refresher, 150) == 5);
    assert_true(refresher_temperature(refresher, 300) == 9 &&
                refresher_temperature(refresher, 400) == 9);
    refresher_destroy(refresher);
    fixture_release(&f);
}

static void removed_links_are_rounded_half_up(void **state)
{
    (void)state;
    assert_int_equal(refresher_removed(0.1, 1024), 102);
    assert_int_equal(refresher_removed(0.25, 10), 3);
    assert_int_equal(refresher_removed(0.25, 9), 2);
    assert_int_equal(refresher_removed(0, 1000), 0);
    assert_int_equal(refresher_removed(1, 7), 7);
    assert_int_equal(refresher_removed(0.01, 10), 0);
}

static void refresher_is_refused_where_nothing_can_be_refreshed(void **state)
{
    (void)state;
    struct fixture f;
    struct refresher *refresher;
    struct err err;
    fixture_init(&f, 1, 4, one_matrix, 1, 1, 1);
    struct method_config config = {.name = "static"};
    assert_int_equal(refresher_create(&refresher, &config, &f.model, &err), ERR_INVALID);
    assert_string_equal(err.text, "method static: never refreshes its masks");
    assert_null(refresher);
    config.name = "magic";
    assert_int_equal(refresher_create(&refresher, &config, &f.model, &err), ERR_INVALID);
    assert_string_equal(err.text, "method magic: unknown");
    config.name = "set";
    f.model.param_count = 1; /* the embedding alone */
    assert_int_equal(refresher_create(&refresher, &config, &f.model, &err), ERR_INVALID);
    assert_string_equal(err.text, "method set: the model has no N:M matrix");
    refresher_destroy(NULL);
    fixture_release(&f);
}

static size_t layer_shapes[MODEL_TARGETS_PER_LAYER][2] = {
    {24, 24}, {12, 24}, {12, 24}, {24, 24}, {40, 24}, {40, 24}, {24, 40}};

static void refresher_bytes_are_what_is_allocated(void **state)
{
    (void)state;
    const struct model_shape shape = {.hidden = 24,
                                      .intermediate = 40,
                                      .layers = 1,
                                      .heads = 4,
                                      .kv_heads = 2,
                                      .vocab = 10,
                                      .context = 8,
                                      .n = 2,
                                      .m = 4};
    static const char *const names[] = {"set", "chts24", "rigl"};
    for (size_t k = 0; k < 6; k++) {
        const struct method_config config = {.name = names[k % 3],
                                             .steps = 10,
                                             .interval = 1,
                                             .until = 1,
                                             .zeta = 0.5,
                                             .removal = k < 3 ? REMOVAL_MAGNITUDE : REMOVAL_RI};
        const size_t bytes = refresher_bytes(&shape, &config);
        struct fixture f;
        struct refresher *refresher;
        struct err err;
        fixture_init(&f, 2, 4, layer_shapes, MODEL_TARGETS_PER_LAYER, 1, 1);
        assert_int_equal(refresher_create(&refresher, &config, &f.model, &err), 0);
        /* mem_aligned puts one MEM_ALIGN before what it returns and rounds up by at most one
         * more. */
        const size_t allocated = malloc_usable_size((char *)refresher - MEM_ALIGN);
        assert_true(allocated >= bytes + MEM_ALIGN && allocated <= bytes + 3 * MEM_ALIGN);
        refresher_destroy(refresher);
        fixture_release(&f);
    }
    const struct method_config fixed = {.name = "static"};
    assert_int_equal(refresher_bytes(&shape, &fixed), 0);
}

static size_t up(size_t bytes) { return (bytes + 63) / 64 * 64; }

/* The formula of engine/method.h, which proto/msg/estimate.c follows. */
static void refresher_bytes_follow_the_documented_formula(void **state)
{
    (void)state;
    const struct model_shape shape = {.hidden = 512,
                                      .intermediate = 1376,
                                      .layers = 8,
                                      .heads = 8,
                                      .kv_heads = 4,
                                      .vocab = 257,
                                      .context = 256,
                                      .n = 1,
                                      .m = 4};
    const size_t wide = (size_t)512 * 1376, targets = 56;
    const size_t layer = (size_t)2 * 512 * 512 + (size_t)2 * 256 * 512 + 3 * wide;
    const size_t common = up(sizeof(struct refresher)) +
                          up(targets * sizeof(struct refresh_target)) + up(8 * layer / 8) +
                          up(wide * 8) + 2 * up(wide / 4 * 2) + up(344 * 2) + up(43 * 24);
    const size_t ch =
        2 * up((size_t)512 * 22 * 8) + up((size_t)1376 * 4) + up((size_t)1376 * 64 * 8);
    struct method_config config = {.name = "set"};
    assert_int_equal(refresher_bytes(&shape, &config), common);
    config.name = "chts24";
    assert_int_equal(refresher_bytes(&shape, &config), common + ch);
    config.removal = REMOVAL_RI;
    assert_int_equal(refresher_bytes(&shape, &config), common + ch + 2 * up((size_t)1376 * 8));
    config.name = "rigl"; /* one dense gradient of one matrix */
    assert_int_equal(refresher_bytes(&shape, &config), common + up(wide * sizeof(real)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(registry_has_the_methods_of_the_job_spec),
        cmocka_unit_test(only_chtsnm_keeps_motif_pattern_revisitation),
        cmocka_unit_test(set_fixes_hard_magnitude_removal_and_random_scores),
        cmocka_unit_test(
            refresh_is_due_at_the_interval_until_t_end_and_not_after_the_last_step),
        cmocka_unit_test(zeta_falls_as_a_cosine_and_temperature_rises_as_a_line),
        cmocka_unit_test(removed_links_are_rounded_half_up),
        cmocka_unit_test(refresher_is_refused_where_nothing_can_be_refreshed),
        cmocka_unit_test(refresher_bytes_are_what_is_allocated),
        cmocka_unit_test(refresher_bytes_follow_the_documented_formula),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
