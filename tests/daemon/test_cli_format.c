/* Text for people: sizes, counts, times, tables, the progress bar. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/cli/format.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void numbers_have_three_digits_and_a_unit(void **state)
{
    (void)state;
    static const struct {
        char *(*format)(char out[FORMAT_TEXT_MAX], double value);
        double value;
        const char *text;
    } cases[] = {
        {format_bytes, 0, "0 B"},
        {format_bytes, 1023, "1023 B"},
        {format_bytes, 1024, "1.0 KiB"},
        {format_bytes, 1536, "1.5 KiB"},
        {format_bytes, 1048575, "1.0 MiB"},
        {format_bytes, 150.0 * 1024 * 1024, "150 MiB"},
        {format_bytes, -1, "-"},
        {format_bytes, NAN, "-"},
        {format_count, 812, "812"},
        {format_count, 999, "999"},
        {format_count, 1000, "1.0k"},
        {format_count, 61300000, "61.3M"},
        {format_count, 999999, "1.0M"},
        {format_count, 1e25, "10000000E"},
        {format_count, INFINITY, "-"},
        {format_duration, 0, "0s"},
        {format_duration, 59.4, "59s"},
        {format_duration, 59.6, "1m 00s"},
        {format_duration, 62, "1m 02s"},
        {format_duration, 7500, "2h 05m"},
        {format_duration, 100000, "1d 03h"},
        {format_duration, 1e12, "-"},
        {format_duration, -1, "-"},
        {format_loss, 3.40714, "3.4071"},
        {format_loss, -1, "-"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char text[FORMAT_TEXT_MAX];
        assert_string_equal(cases[i].format(text, cases[i].value), cases[i].text);
    }
}

static void table_columns_line_up_with_utf8_inside(void **state)
{
    (void)state;
    static const char *const rows[][3] = {
        {"ID", "N", "X"}, {"a", "12", "long"}, {"\xc3\xa9\xc3\xa9\xc3\xa9", "1", ""}};
    struct table table;
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    assert_non_null(out);
    table_init(&table, 3, 2);
    for (size_t i = 0; i < COUNT(rows); i++) {
        table_row(&table, rows[i]);
    }
    assert_true(table_print(&table, out));
    fclose(out);
    assert_string_equal(text, "ID    N  X\n"
                              "a    12  long\n"
                              "\xc3\xa9\xc3\xa9\xc3\xa9   1  \n");
    free(text);
    table_release(&table);
}

static void progress_leaves_out_what_is_not_known(void **state)
{
    (void)state;
    char line[FORMAT_LINE_MAX];
    struct progress progress = {
        .step = 120, .steps = 300, .loss = 3.40714, .tokens_per_s = 45100, .eta_s = 62};
    progress_text(&progress, line);
    assert_string_equal(line, "step 120/300  loss 3.4071  45.1k tokens/s  ETA 1m 02s");
    progress = (struct progress){.step = 5, .loss = -1, .tokens_per_s = -1, .eta_s = -1};
    progress_text(&progress, line);
    assert_string_equal(line, "step 5");
}

static void progress_bar_never_passes_the_width(void **state)
{
    (void)state;
    char line[FORMAT_LINE_MAX];
    for (int64_t step = 0; step <= 310; step += 31) { /* past the end too */
        struct progress progress = {
            .step = step, .steps = 300, .loss = 3.4, .tokens_per_s = 45100, .eta_s = 62};
        for (size_t width = 0; width < 200; width++) {
            progress_bar(&progress, width, line);
            if (strlen(line) > width) {
                fail_msg("%zu columns in a width of %zu: %s", strlen(line), width, line);
            }
        }
        assert_int_equal(line[0], '[');
    }
    struct progress half = {.step = 1, .steps = 2, .loss = -1, .tokens_per_s = -1, .eta_s = -1};
    progress_bar(&half, 34, line);
    assert_string_equal(line, "[=======>       ]  50 %  step 1/2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_have_three_digits_and_a_unit),
        cmocka_unit_test(table_columns_line_up_with_utf8_inside),
        cmocka_unit_test(progress_leaves_out_what_is_not_known),
        cmocka_unit_test(progress_bar_never_passes_the_width),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
