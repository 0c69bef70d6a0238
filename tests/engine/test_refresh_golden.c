/* Masks of a slow independent NumPy implementation (tests/reference/refresh_reference.py), bit
 * for bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "refresh_fixture.h"

static const char golden[] = HEBB_SOURCE_DIR "/tests/golden/refresh_masks.txt";

struct golden_case {
    struct method_config config;
    unsigned n, m, bits;
    size_t shapes[FIXTURE_MATRICES_MAX][2];
    size_t count, refreshes;
    enum nm_layout layout;
    char method[32], name[96];
};

static void assert_codes(FILE *file, const struct nm *w)
{
    for (size_t i = 0; i < w->dout * nm_groups(w); i++) {
        unsigned code;
        assert_int_equal(fscanf(file, "%u", &code), 1);
        assert_int_equal(w->codes[i], code);
    }
}

static enum removal_rule removal_of(const char *name)
{
    assert_true(strcmp(name, "ri") == 0 || strcmp(name, "magnitude") == 0);
    return strcmp(name, "ri") == 0 ? REMOVAL_RI : REMOVAL_MAGNITUDE;
}

static enum score_rule score_of(const char *name)
{
    if (strcmp(name, "ch2-l3n") == 0)
        return SCORE_CH2_L3N;
    if (strcmp(name, "ch3-l3n") == 0)
        return SCORE_CH3_L3N;
    assert_string_equal(name, "random");
    return SCORE_RANDOM;
}

/* False at the end of the file. Shapes are read ahead, the position is left at the first
 * matrix. */
static bool read_case(FILE *file, struct golden_case *c)
{
    char removal[16], score[16], layout[16];
    unsigned soft;
    memset(c, 0, sizeof *c);
    if (fscanf(file, " case %95[^\n]", c->name) != 1)
        return false;
    assert_int_equal(
        fscanf(file, "%31s %lu %u %u %zu %zu %lf %lf %15s %u %lf %lf %15s %u %zu %zu %lf %15s",
               c->method, &c->config.seed, &c->n, &c->m, &c->config.steps, &c->config.interval,
               &c->config.until, &c->config.zeta, removal, &soft, &c->config.temperature_start,
               &c->config.temperature_end, score, &c->bits, &c->count, &c->refreshes,
               &c->config.mpr, layout),
        18);
    assert_true(strcmp(layout, "row") == 0 || strcmp(layout, "block") == 0);
    c->layout = strcmp(layout, "block") == 0 ? NM_LAYOUT_BLOCK : NM_LAYOUT_ROW;
    c->config.name = c->method;
    c->config.removal = removal_of(removal);
    c->config.score = score_of(score);
    c->config.soft = soft != 0;
    assert_true(c->count <= FIXTURE_MATRICES_MAX);
    long place = ftell(file);
    for (size_t t = 0; t < c->count; t++) {
        assert_int_equal(fscanf(file, " matrix %zu %zu", &c->shapes[t][0], &c->shapes[t][1]),
                         2);
        for (size_t i = 0; i < c->shapes[t][0] * c->shapes[t][1] / c->m; i++)
            assert_int_equal(fscanf(file, "%*u"), 0);
    }
    assert_int_equal(fseek(file, place, SEEK_SET), 0);
    return true;
}

struct check {
    FILE *file;
    struct fixture *f;
    const struct golden_case *c;
    size_t round;
};

static void assert_values(const struct check *check, size_t target, const struct nm *w,
                          const uint16_t *before)
{
    for (size_t i = 0; i < nm_count(w); i++) {
        const size_t position = fixture_position(w, i);
        const bool old = fixture_active(w, before, position);
        const real drawn = fixture_weight(check->c->config.seed, target, check->round,
                                          check->c->bits, position);
        assert_true(w->values[i] == (old ? drawn : 0));
    }
}

static int assert_matrix(void *context, size_t target, const struct nm *w,
                         const uint16_t *before, const struct refresh_stats *stats,
                         struct err *err)
{
    (void)err;
    struct check *check = context;
    size_t round, t, removed, changed, flipped, explored, dead;
    assert_int_equal(fscanf(check->file, " refresh %zu %zu %zu %zu %zu %zu %zu", &round, &t,
                            &removed, &changed, &flipped, &explored, &dead),
                     7);
    assert_int_equal(round, check->round);
    assert_int_equal(t, target);
    assert_codes(check->file, w);
    assert_values(check, target, w, before);
    assert_int_equal(stats->removed, removed);
    assert_int_equal(stats->changed_groups, changed);
    assert_true(stats->flip_rate == (double)flipped / (double)nm_count(w));
    assert_true(stats->explored == (double)explored / ((double)w->dout * (double)w->din));
    assert_int_equal(stats->dead_columns, dead);
    return 0;
}

static size_t run_case(FILE *file, struct golden_case *c, unsigned threads)
{
    struct fixture f;
    struct refresher *refresher;
    struct err err;
    size_t matrices = 0;
    fixture_init_layout(&f, c->n, c->m, c->layout, c->shapes, c->count, threads,
                        c->config.seed);
    for (size_t t = 0; t < c->count; t++) {
        assert_int_equal(fscanf(file, " matrix %*u %*u"), 0);
        assert_codes(file, &f.nms[t]);
    }
    assert_int_equal(refresher_create(&refresher, &c->config, &f.model, &err), 0);
    for (size_t round = 1; round <= c->refreshes; round++) {
        struct check check = {.file = file, .f = &f, .c = c, .round = round};
        const struct refresh_observer observer = {.context = &check, .matrix = assert_matrix};
        assert_true(refresher_due(refresher, round * c->config.interval));
        fixture_draw(&f, c->config.seed, round, c->bits);
        assert_int_equal(
            refresher_run(refresher, round * c->config.interval, round, &observer, &err), 0);
        matrices += c->count;
    }
    refresher_destroy(refresher);
    fixture_release(&f);
    return matrices;
}

static void run_all(unsigned threads)
{
    struct golden_case c;
    size_t cases = 0, matrices = 0;
    FILE *file = fopen(golden, "r");
    assert_non_null(file);
    while (read_case(file, &c)) {
        matrices += run_case(file, &c, threads);
        cases++;
    }
    assert_int_equal(fgetc(file), EOF);
    fclose(file);
    assert_int_equal(cases, 19);
    assert_int_equal(matrices, 160);
}

static void refresh_masks_equal_the_reference(void **state)
{
    (void)state;
    run_all(1);
}

static void refresh_masks_equal_the_reference_with_three_threads(void **state)
{
    (void)state;
    run_all(3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refresh_masks_equal_the_reference),
        cmocka_unit_test(refresh_masks_equal_the_reference_with_three_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
