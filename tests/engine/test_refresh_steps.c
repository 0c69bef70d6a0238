/* The steps of a refresh one by one: removal, scores, projection. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/sparse/score_kernel.h"
#include "refresh_fixture.h"
#include <math.h>

static size_t shapes_one_row[1][2] = {{1, 16}};
static size_t shapes_medium[1][2] = {{50, 72}};
static size_t shapes_crossing[1][2] = {{37, 135}};

/* chi-square quantile 0.999 by degrees of freedom: one failure in a thousand at random; the
 * seeds are fixed. */
static double chi_limit(size_t degrees)
{
    static const double table[] = {0, 10.83, 13.82, 16.27, 18.47, 20.52, 22.46, 24.32};
    assert_true(degrees > 0 && degrees < sizeof table / sizeof table[0]);
    return table[degrees];
}

static struct refresh_job job_of(struct refresher *refresher, size_t refresh, size_t remove)
{
    return (struct refresh_job){.refresher = refresher,
                                .scratch = &refresher->scratch,
                                .config = &refresher->config,
                                .w = refresher->targets[0].param->nm,
                                .refresh = (uint32_t)refresh,
                                .temperature = refresher->config.temperature_end,
                                .remove = remove};
}

static void create(struct fixture *f, struct refresher **refresher, unsigned n, unsigned m,
                   size_t (*shapes)[2], const struct method_config *config)
{
    struct err err;
    fixture_init(f, n, m, shapes, 1, 1, 3);
    fixture_draw(f, 3, 0, 24);
    assert_int_equal(refresher_create(refresher, config, &f->model, &err), 0);
}

/* Probability that the links left after removal are `kept`, when they are drawn one by one
 * without replacement with probability proportional to share. */
static double keep_probability(const double *share, unsigned kept, unsigned drawn,
                               unsigned count)
{
    if (drawn == kept)
        return 1;
    double rest = 0, probability = 0;
    for (unsigned i = 0; i < count; i++)
        rest += drawn >> i & 1 ? 0 : share[i];
    for (unsigned i = 0; i < count; i++)
        if ((kept & ~drawn) >> i & 1)
            probability +=
                share[i] / rest * keep_probability(share, kept, drawn | 1U << i, count);
    return probability;
}

static void soft_removal_keeps_links_with_probability_of_their_power(void **state)
{
    (void)state;
    enum { DRAWS = 30000, LINKS = 4, REMOVE = 2 };
    static const double temperatures[] = {1, 3, 9};
    static const real weights[LINKS] = {(real)0.5, (real)-1.0, (real)0.8, (real)-0.9};
    for (size_t k = 0; k < sizeof temperatures / sizeof temperatures[0]; k++) {
        const struct method_config config = {.name = "chts24",
                                             .seed = 12,
                                             .steps = 100,
                                             .interval = 1,
                                             .until = 1,
                                             .zeta = 0.5,
                                             .soft = true,
                                             .temperature_start = 1,
                                             .temperature_end = temperatures[k],
                                             .score = SCORE_RANDOM};
        struct fixture f;
        struct refresher *refresher;
        create(&f, &refresher, 1, 4, shapes_one_row, &config);
        memcpy(f.nms[0].values, weights, sizeof weights);
        size_t seen[1 << LINKS] = {0};
        for (size_t refresh = 1; refresh <= DRAWS; refresh++) {
            struct refresh_job job = job_of(refresher, refresh, REMOVE);
            removal_run(&job);
            unsigned kept = 0;
            for (unsigned g = 0; g < LINKS; g++)
                kept |= job.scratch->survivors[g] ? 1U << g : 0;
            seen[kept]++;
        }
        double share[LINKS], chi = 0;
        size_t classes = 0;
        for (unsigned i = 0; i < LINKS; i++)
            share[i] = pow(fabs((double)weights[i]), temperatures[k]);
        for (unsigned kept = 0; kept < 1U << LINKS; kept++) {
            if (__builtin_popcount(kept) != LINKS - REMOVE) {
                assert_int_equal(seen[kept], 0);
                continue;
            }
            const double mean = DRAWS * keep_probability(share, kept, 0, LINKS);
            assert_true(mean > 5); /* or chi-square would not be one */
            chi += ((double)seen[kept] - mean) * ((double)seen[kept] - mean) / mean;
            classes++;
        }
        assert_true(chi < chi_limit(classes - 1));
        refresher_destroy(refresher);
        fixture_release(&f);
    }
}

static int by_magnitude(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void hard_removal_drops_the_smallest_and_of_equal_ones_the_first(void **state)
{
    (void)state;
    const struct method_config config = {
        .name = "set", .seed = 1, .steps = 100, .interval = 1, .until = 1, .zeta = 0.5};
    struct fixture f;
    struct refresher *refresher;
    create(&f, &refresher, 2, 4, shapes_medium, &config);
    for (unsigned bits = 2; bits <= 24; bits += 11)
        for (size_t remove = 1; remove <= nm_count(&f.nms[0]); remove += 97) {
            const struct nm *w = &f.nms[0];
            fixture_draw(&f, remove, 0, bits);
            struct refresh_job job = job_of(refresher, 1, remove);
            removal_run(&job);
            double *sorted = malloc(nm_count(w) * sizeof *sorted);
            assert_non_null(sorted);
            for (size_t i = 0; i < nm_count(w); i++)
                sorted[i] = fabs((double)w->values[i]);
            qsort(sorted, nm_count(w), sizeof *sorted, by_magnitude);
            const double last = sorted[remove - 1];
            size_t ties = remove;
            for (size_t i = 0; i < nm_count(w); i++)
                ties -= sorted[i] < last;
            for (size_t i = 0; i < nm_count(w); i++) {
                const double a = fabs((double)w->values[i]);
                const bool dropped = a < last || (a == last && ties > 0);
                ties -= dropped && a == last;
                const bool left =
                    job.scratch->survivors[i / w->n] >> fixture_position(w, i) % w->m & 1;
                assert_int_equal(left, !dropped);
            }
            assert_int_equal(ties, 0);
            free(sorted);
        }
    refresher_destroy(refresher);
    fixture_release(&f);
}

static void links_of_weight_zero_go_first_in_soft_removal(void **state)
{
    (void)state;
    const struct method_config config = {.name = "chts24",
                                         .seed = 1,
                                         .steps = 100,
                                         .interval = 1,
                                         .until = 1,
                                         .zeta = 0.5,
                                         .soft = true,
                                         .temperature_start = 1,
                                         .temperature_end = 1};
    struct fixture f;
    struct refresher *refresher;
    create(&f, &refresher, 2, 4, shapes_medium, &config);
    struct nm *w = &f.nms[0];
    size_t zeros = 0;
    for (size_t i = 0; i < nm_count(w); i++) {
        w->values[i] = i % 7 == 2 ? 0 : (real)1e-30;
        zeros += i % 7 == 2;
    }
    struct refresh_job job = job_of(refresher, 1, zeros);
    removal_run(&job);
    for (size_t i = 0; i < nm_count(w); i++) {
        const bool left = job.scratch->survivors[i / w->n] >> fixture_position(w, i) % w->m & 1;
        assert_int_equal(left, i % 7 != 2);
    }
    refresher_destroy(refresher);
    fixture_release(&f);
}

static void links_that_are_not_a_number_count_as_the_largest(void **state)
{
    (void)state;
    for (unsigned soft = 0; soft < 2; soft++) {
        const struct method_config config = {.name = "chts24",
                                             .steps = 100,
                                             .interval = 1,
                                             .until = 1,
                                             .zeta = 0.5,
                                             .soft = soft != 0,
                                             .temperature_start = 1,
                                             .temperature_end = 1};
        struct fixture f;
        struct refresher *refresher;
        create(&f, &refresher, 2, 4, shapes_medium, &config);
        struct nm *w = &f.nms[0];
        for (size_t i = 0; i < nm_count(w); i++)
            w->values[i] = i % 2 ? (real)NAN : 1;
        struct refresh_job job = job_of(refresher, 1, nm_count(w) / 3);
        removal_run(&job);
        for (size_t i = 1; i < nm_count(w); i += 2)
            assert_true(job.scratch->survivors[i / w->n] >> fixture_position(w, i) % w->m & 1);
        refresher_destroy(refresher);
        fixture_release(&f);
    }
}

/* The scores as the formula reads, in double, no grid: (dout, din). */
static void plain_side(double *scores, const uint8_t *a, size_t rows, size_t cols,
                       size_t row_step, size_t col_step, bool ch2)
{
    for (size_t o = 0; o < rows; o++)
        for (size_t z = 0; z < rows; z++) {
            double common = 0, degree = 0;
            for (size_t j = 0; j < cols; j++) {
                common += a[o * row_step + j * col_step] * a[z * row_step + j * col_step];
                degree += a[z * row_step + j * col_step];
            }
            if (common == 0)
                continue;
            const double r = (ch2 ? common + 1 : 1) / fmax(degree - common, 1);
            for (size_t j = 0; j < cols; j++)
                scores[o * row_step + j * col_step] += r * a[z * row_step + j * col_step];
        }
}

static void ch_scores_equal_the_formula(void **state)
{
    (void)state;
    /* A score is a sum of at most dout + din numbers, each rounded to a multiple of 2^-39: a
     * score of a (37, 135) matrix of 2:5 is below 2^13. */
    static const double tolerance = (37 + 135) * 0x1p-40;
    for (unsigned ch2 = 0; ch2 < 2; ch2++) {
        const struct method_config config = {.name = "chts24",
                                             .steps = 100,
                                             .interval = 1,
                                             .until = 1,
                                             .zeta = 0.5,
                                             .score = ch2 ? SCORE_CH2_L3N : SCORE_CH3_L3N};
        struct fixture f;
        struct refresher *refresher;
        create(&f, &refresher, 2, 5, shapes_crossing, &config);
        const struct nm *w = &f.nms[0];
        const size_t positions = w->dout * w->din;
        struct refresh_job job = job_of(refresher, 1, nm_count(w) / 3);
        removal_run(&job);
        score_run(&job);
        const double *scores = job.scratch->cells;
        uint8_t *a = calloc(positions, 1);
        double *expected = calloc(positions, sizeof *expected);
        assert_true(a && expected);
        for (size_t i = 0; i < positions; i++)
            a[i] = job.scratch->survivors[i / w->m] >> i % w->m & 1;
        plain_side(expected, a, w->dout, w->din, w->din, 1, ch2);
        plain_side(expected, a, w->din, w->dout, 1, w->din, ch2);
        double largest = 0;
        for (size_t i = 0; i < positions; i++) {
            assert_true(fabs(scores[i] - expected[i]) <= tolerance);
            largest = fmax(largest, expected[i]);
        }
        assert_true(largest > 1);
        free(a);
        free(expected);
        refresher_destroy(refresher);
        fixture_release(&f);
    }
}

static void soft_scores_are_hard_scores_times_uniform_numbers(void **state)
{
    (void)state;
    struct method_config config = {.name = "chts24",
                                   .seed = 8,
                                   .steps = 100,
                                   .interval = 1,
                                   .until = 1,
                                   .zeta = 0.5,
                                   .temperature_start = 1,
                                   .temperature_end = 1};
    struct fixture f;
    struct refresher *refresher;
    create(&f, &refresher, 2, 4, shapes_medium, &config);
    const struct nm *w = &f.nms[0];
    const size_t positions = w->dout * w->din;
    struct refresh_job job = job_of(refresher, 7, nm_count(w) / 3);
    removal_run(&job);
    score_run(&job);
    double *hard = malloc(positions * sizeof *hard);
    assert_non_null(hard);
    memcpy(hard, job.scratch->cells, positions * sizeof *hard);
    refresher->config.soft = true;
    score_run(&job);
    const double *soft = job.scratch->cells;
    const struct philox stream = {
        .seed = 8, .purpose = PHILOX_REGROWTH, .stream = 0, .round = 7};
    size_t refreshed = 0;
    for (size_t i = 0; i < positions; i++) {
        if (job.scratch->survivors[i / w->m] == w->patterns->mask[w->codes[i / w->m]])
            continue;
        assert_true(soft[i] == hard[i] * philox_uniform(&stream, i));
        refreshed++;
    }
    assert_true(refreshed > 0);
    free(hard);
    refresher_destroy(refresher);
    fixture_release(&f);
}

static void kernels_of_this_processor_equal_the_plain_ones(void **state)
{
    (void)state;
    enum { WORDS = 5, BITS = WORDS * 64, STRIDE = 2 * SCORE_LANES };
    const struct score_kernels *best = score_kernels_best(), *plain = &score_kernels_plain;
    const struct philox stream = {.seed = 4, .purpose = PHILOX_GENERATE};
    static double panel[BITS * STRIDE];
    uint64_t a[WORDS], b[WORDS];
    for (size_t i = 0; i < BITS * (size_t)STRIDE; i++)
        panel[i] = (double)(philox_u32(&stream, i) >> 8) * 0x1p-10;
    for (uint64_t number = 0; number < 200; number++) {
        double sum[SCORE_LANES], other[SCORE_LANES];
        uint32_t common = 0;
        for (size_t i = 0; i < WORDS; i++) {
            a[i] = (uint64_t)philox_u32(&stream, 1000000 + number * 32 + 4 * i) << 32 |
                   philox_u32(&stream, 1000001 + number * 32 + 4 * i);
            b[i] = number % 5 == 0
                       ? 0
                       : a[i] ^ (uint64_t)philox_u32(&stream, 1000002 + number * 32 + 4 * i)
                                    << 16;
        }
        for (size_t z = 0; z < BITS; z++)
            common += (uint32_t)((a[z / 64] & b[z / 64]) >> z % 64 & 1);
        assert_int_equal(plain->common(a, b, WORDS), common);
        assert_int_equal(best->common(a, b, WORDS), common);
        plain->gather(sum, panel + SCORE_LANES, STRIDE, b, WORDS);
        best->gather(other, panel + SCORE_LANES, STRIDE, b, WORDS);
        assert_memory_equal(sum, other, sizeof sum);
        for (size_t l = 0; l < SCORE_LANES; l++) {
            double expected = 0;
            for (size_t z = 0; z < BITS; z++)
                if (b[z / 64] >> z % 64 & 1)
                    expected += panel[z * STRIDE + SCORE_LANES + l];
            assert_true(sum[l] == expected);
        }
    }
}

/* Scores are small whole numbers: every sum is exact and equal sums are common. */
static void projection_is_the_best_legal_pattern_of_all(void **state)
{
    (void)state;
    struct philox stream = {.seed = 6, .purpose = PHILOX_GENERATE};
    size_t ties = 0;
    for (unsigned m = 2; m <= NM_M_MAX; m++)
        for (unsigned n = 1; n < m; n++) {
            struct pattern_table *table;
            struct err err;
            assert_int_equal(pattern_table_create(&table, n, m, &err), 0);
            for (unsigned repeat = 0; repeat < 30; repeat++) {
                double score[NM_M_MAX];
                for (unsigned c = 0; c < m; c++)
                    score[c] = philox_u32(&stream, stream.round++) % (repeat % 2 ? 4 : 1000);
                const unsigned old =
                    table->mask[philox_u32(&stream, stream.round++) % table->count];
                const unsigned survivors = old & philox_u32(&stream, stream.round++);
                double most = -1, second = -1;
                size_t best = 0, other = 0, equal = 0;
                for (size_t p = 0; p < table->count; p++) {
                    double sum = 0;
                    for (unsigned k = 0; k < n; k++) {
                        const unsigned c = table->column[p * n + k];
                        sum += score[c] +
                               (survivors >> c & 1 ? 100000 : 0); /* the boost: above any sum */
                    }
                    equal = sum > most ? 0 : equal + (sum == most);
                    if (sum > most) {
                        most = sum;
                        best = p;
                    }
                }
                ties += equal > 0;
                for (size_t p = 0; p < table->count; p++) {
                    double sum = 0;
                    for (unsigned k = 0; k < n; k++) {
                        const unsigned c = table->column[p * n + k];
                        sum += score[c] + (survivors >> c & 1 ? 100000 : 0);
                    }
                    if (p != best && sum > second) {
                        second = sum;
                        other = p;
                    }
                }
                if (__builtin_popcount(survivors) < (int)n) {
                    const uint16_t barred = table->mask[best], elsewhere = table->mask[other];
                    assert_int_equal(
                        project_group_barred(score, (uint16_t)survivors, barred, n, m),
                        elsewhere);
                    assert_int_equal(
                        project_group_barred(score, (uint16_t)survivors, elsewhere, n, m),
                        barred);
                }
                assert_int_equal(project_group(score, (uint16_t)survivors, n, m),
                                 table->mask[best]);
            }
            pattern_table_destroy(table);
        }
    assert_true(ties > 500);
}

static void random_regrowth_is_uniform_over_the_vacant_columns(void **state)
{
    (void)state;
    enum { REFRESHES = 60 };
    const struct method_config config = {
        .name = "set", .seed = 1, .steps = 100, .interval = 1, .until = 1, .zeta = 1};
    struct fixture f;
    struct refresher *refresher;
    create(&f, &refresher, 1, 4, shapes_medium, &config);
    size_t bins[4] = {0}, total = 0;
    for (size_t refresh = 1; refresh <= REFRESHES; refresh++) {
        struct nm *w = &f.nms[0];
        struct refresh_job job = job_of(refresher, refresh, nm_count(w));
        removal_run(&job);
        score_run(&job);
        project_run(&job);
        for (size_t i = 0; i < w->dout * nm_groups(w); i++, total++)
            bins[w->codes[i]]++;
    }
    double chi = 0;
    for (size_t p = 0; p < 4; p++)
        chi += pow((double)bins[p] - (double)total / 4, 2) / ((double)total / 4);
    assert_true(chi < chi_limit(3));
    refresher_destroy(refresher);
    fixture_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(soft_removal_keeps_links_with_probability_of_their_power),
        cmocka_unit_test(hard_removal_drops_the_smallest_and_of_equal_ones_the_first),
        cmocka_unit_test(links_of_weight_zero_go_first_in_soft_removal),
        cmocka_unit_test(links_that_are_not_a_number_count_as_the_largest),
        cmocka_unit_test(ch_scores_equal_the_formula),
        cmocka_unit_test(soft_scores_are_hard_scores_times_uniform_numbers),
        cmocka_unit_test(kernels_of_this_processor_equal_the_plain_ones),
        cmocka_unit_test(projection_is_the_best_legal_pattern_of_all),
        cmocka_unit_test(random_regrowth_is_uniform_over_the_vacant_columns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
