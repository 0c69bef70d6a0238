#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/nm.h"
#include <stdlib.h>
#include <string.h>

static struct pattern_table *table_of(unsigned n, unsigned m)
{
    struct pattern_table *table;
    struct err err;
    assert_int_equal(pattern_table_create(&table, n, m, &err), 0);
    return table;
}

static void pattern_table_lists_every_legal_mask_once_in_order(void **state)
{
    (void)state;
    for (unsigned m = 2; m <= NM_M_MAX; m++)
        for (unsigned n = 1; n < m; n++) {
            struct pattern_table *table = table_of(n, m);
            size_t legal = 0;
            for (unsigned mask = 0; mask < 1U << m; mask++) {
                unsigned bits = 0;
                for (unsigned j = 0; j < m; j++)
                    bits += mask >> j & 1;
                if (bits != n) {
                    assert_int_equal(table->code_of[mask], 0xffff);
                    continue;
                }
                assert_int_equal(table->mask[legal], mask);
                assert_int_equal(table->code_of[mask], legal);
                unsigned seen = 0;
                for (unsigned k = 0; k < n; k++) {
                    const unsigned column = table->column[legal * n + k];
                    assert_true(k == 0 || column > table->column[legal * n + k - 1]);
                    seen |= 1U << column;
                }
                assert_int_equal(seen, mask);
                legal++;
            }
            assert_int_equal(table->count, legal);
            assert_true(legal <= NM_PATTERNS_MAX);
            pattern_table_destroy(table);
        }
}

static void pattern_counts_are_those_of_the_paper(void **state)
{
    (void)state;
    static const struct {
        unsigned n, m;
        size_t count;
    } rows[] = {{1, 4, 4}, {2, 4, 6}, {1, 2, 2}, {8, 16, 12870}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct pattern_table *table = table_of(rows[i].n, rows[i].m);
        assert_int_equal(table->count, rows[i].count);
        pattern_table_destroy(table);
    }
}

static void pattern_table_refuses_what_is_no_pattern(void **state)
{
    (void)state;
    static const unsigned rows[][2] = {{0, 4}, {4, 4}, {5, 4}, {1, 1}, {0, 0}, {1, 17}, {1, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct pattern_table *table = (void *)&table;
        struct err err = {0};
        assert_int_equal(pattern_table_create(&table, rows[i][0], rows[i][1], &err),
                         ERR_INVALID);
        assert_null(table);
        assert_non_null(strstr(err.text, "1 <= N < M <= 16"));
    }
    pattern_table_destroy(NULL);
}

enum { ROWS = 3, COLS = 8, N = 2, M = 4, GROUPS = ROWS * COLS / M };

static void dense_form_and_mask_hold_the_values_at_their_columns(void **state)
{
    (void)state;
    struct pattern_table *table = table_of(N, M); /* masks 0011 0101 0110 1001 1010 1100 */
    uint16_t codes[GROUPS] = {0, 1, 2, 3, 4, 5};
    real values[GROUPS * N];
    for (size_t i = 0; i < GROUPS * N; i++)
        values[i] = (real)(i + 1);
    const struct nm w = {.dout = ROWS,
                         .din = COLS,
                         .n = N,
                         .m = M,
                         .patterns = table,
                         .values = values,
                         .codes = codes};
    static const real expected[ROWS * COLS] = {1, 2, 0, 0, 3, 0, 4, 0,  0, 5, 6,  0,
                                               7, 0, 0, 8, 0, 9, 0, 10, 0, 0, 11, 12};
    real dense[ROWS * COLS];
    uint8_t mask[ROWS * COLS];
    memset(dense, 0x55, sizeof dense);
    memset(mask, 0x55, sizeof mask);
    nm_to_dense(&w, dense);
    nm_to_mask(&w, mask);
    for (size_t i = 0; i < (size_t)ROWS * COLS; i++) {
        assert_true(dense[i] == expected[i]);
        assert_int_equal(mask[i], expected[i] != 0);
    }
    assert_int_equal(nm_groups(&w), 2);
    assert_int_equal(nm_row_values(&w), 4);
    assert_int_equal(nm_count(&w), 12);
    pattern_table_destroy(table);
}

static void check_names_the_first_code_that_is_no_pattern(void **state)
{
    (void)state;
    struct pattern_table *table = table_of(N, M);
    uint16_t codes[GROUPS] = {0, 1, 2, 3, 4, 5};
    const struct nm w = {
        .dout = ROWS, .din = COLS, .n = N, .m = M, .patterns = table, .codes = codes};
    struct err err;
    assert_int_equal(nm_check(&w, &err), 0);
    codes[3] = 6;
    codes[5] = 0xffff;
    assert_int_equal(nm_check(&w, &err), ERR_CORRUPT);
    assert_string_equal(err.text, "row 1 group 1: code 6 is not below 6, the 2:4 patterns");
    pattern_table_destroy(table);
}

static void hash_differs_with_any_code_and_with_the_shape(void **state)
{
    (void)state;
    struct pattern_table *table = table_of(N, M);
    uint16_t codes[GROUPS] = {0, 1, 2, 3, 4, 5};
    struct nm w = {
        .dout = ROWS, .din = COLS, .n = N, .m = M, .patterns = table, .codes = codes};
    const uint64_t hash = nm_mask_hash(&w);
    for (size_t i = 0; i < GROUPS; i++) {
        codes[i] ^= 1;
        assert_true(nm_mask_hash(&w) != hash);
        codes[i] ^= 1;
    }
    assert_true(nm_mask_hash(&w) == hash);
    w.dout = COLS / M;
    w.din = (size_t)ROWS * M;
    assert_true(nm_mask_hash(&w) != hash);
    pattern_table_destroy(table);
}

/* chi-square above the 0.999 quantile (one in a thousand at random; the seeds are fixed, so it
 * never wavers). */
static void initial_masks_are_uniform_over_the_patterns(void **state)
{
    (void)state;
    static const struct {
        unsigned n, m;
        double limit; /* degrees of freedom: patterns - 1 */
    } rows[] = {{1, 4, 16.27}, {2, 4, 20.52}, {1, 3, 13.82}, {3, 6, 43.82}};
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        struct pattern_table *table = table_of(rows[r].n, rows[r].m);
        const size_t groups = (size_t)100 * 100;
        uint16_t *codes = calloc(groups, sizeof *codes);
        assert_non_null(codes);
        struct nm w = {.dout = 100,
                       .din = (size_t)100 * rows[r].m,
                       .n = rows[r].n,
                       .m = rows[r].m,
                       .patterns = table,
                       .codes = codes};
        nm_init_mask(&w, 42, 3);
        size_t bins[32] = {0};
        for (size_t i = 0; i < groups; i++) {
            assert_true(codes[i] < table->count);
            bins[codes[i]]++;
        }
        const double mean = (double)groups / (double)table->count;
        double chi = 0;
        for (size_t p = 0; p < table->count; p++)
            chi += ((double)bins[p] - mean) * ((double)bins[p] - mean) / mean;
        assert_true(chi < rows[r].limit);
        free(codes);
        pattern_table_destroy(table);
    }
}

static void initial_masks_depend_on_seed_and_matrix_only(void **state)
{
    (void)state;
    struct pattern_table *table = table_of(N, M);
    uint16_t a[256], b[256];
    struct nm w = {.dout = 16, .din = 64, .n = N, .m = M, .patterns = table, .codes = a};
    nm_init_mask(&w, 1, 0);
    w.codes = b;
    nm_init_mask(&w, 1, 0);
    assert_memory_equal(a, b, sizeof a);
    nm_init_mask(&w, 1, 1);
    assert_memory_not_equal(a, b, sizeof a);
    nm_init_mask(&w, 2, 0);
    assert_memory_not_equal(a, b, sizeof a);
    pattern_table_destroy(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pattern_table_lists_every_legal_mask_once_in_order),
        cmocka_unit_test(pattern_counts_are_those_of_the_paper),
        cmocka_unit_test(pattern_table_refuses_what_is_no_pattern),
        cmocka_unit_test(dense_form_and_mask_hold_the_values_at_their_columns),
        cmocka_unit_test(check_names_the_first_code_that_is_no_pattern),
        cmocka_unit_test(hash_differs_with_any_code_and_with_the_shape),
        cmocka_unit_test(initial_masks_are_uniform_over_the_patterns),
        cmocka_unit_test(initial_masks_depend_on_seed_and_matrix_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
