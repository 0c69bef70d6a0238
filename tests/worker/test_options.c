/* The command line of the tools. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/base/command.h"
#include "worker/tools/options.h"
#include <string.h>

enum { ARGUMENTS = 16 };

struct parsed {
    bool flag;
    uint64_t count;
    double number;
    const char *text;
    struct option_list list, rest;
    int code;
};

/* Parses the words after the command's name; the last one is NULL. */
static struct parsed parse(const char *const *words)
{
    static struct parsed p;
    static char copies[ARGUMENTS][64];
    char *argv[ARGUMENTS + 1] = {strcpy(copies[0], "tool")};
    int argc = 1;
    for (; words[argc - 1]; argc++)
        argv[argc] = strcpy(copies[argc], words[argc - 1]);
    p = (struct parsed){.count = 7, .number = 0.5};
    const struct option_row rows[] = {
        {"flag", OPTION_FLAG, &p.flag, 0, 0},      {"count", OPTION_COUNT, &p.count, 1, 0x1p64},
        {"number", OPTION_REAL, &p.number, -1, 1}, {"text", OPTION_TEXT, &p.text, 0, 0},
        {"list", OPTION_LIST, &p.list, 0, 0},      {0},
    };
    p.code = options_parse(argc, argv, rows, &p.rest);
    return p;
}

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void options_and_arguments_may_mix(void **state)
{
    (void)state;
    struct parsed p = parse(WORDS("a", "--count", "12", "b", "--flag", "--text=x y", "--list",
                                  "1", "--list=2", "c", "--number", "-0.25", "--", "--flag"));
    assert_int_equal(p.code, EXIT_DONE);
    assert_true(p.flag && p.count == 12 && p.number == -0.25);
    assert_string_equal(p.text, "x y");
    assert_int_equal(p.list.count, 2);
    assert_string_equal(p.list.items[1], "2");
    assert_int_equal(p.rest.count, 4);
    assert_string_equal(p.rest.items[2], "c");
    assert_string_equal(p.rest.items[3], "--flag");
}

static void what_is_not_given_keeps_its_default(void **state)
{
    (void)state;
    struct parsed p = parse(WORDS("x"));
    assert_true(p.code == EXIT_DONE && !p.flag && p.count == 7 && p.number == 0.5 && !p.text);
}

static void a_large_seed_is_exact(void **state)
{
    (void)state;
    struct parsed p = parse(WORDS("--count", "18446744073709551615"));
    assert_int_equal(p.code, EXIT_DONE);
    assert_true(p.count == UINT64_MAX);
}

static void wrong_numbers_and_names_are_usage_errors(void **state)
{
    (void)state;
    static const char *const wrong[][2] = {
        {"--count", "0"},    {"--count", "-1"},
        {"--count", "1.5"},  {"--count", "1e3"},
        {"--count", " 1"},   {"--count", "12x"},
        {"--count", ""},     {"--count", "18446744073709551616"},
        {"--number", "1.1"}, {"--number", "nan"},
        {"--number", "inf"}, {"--number", "1e999"},
        {"--nothing", "1"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (parse(WORDS(wrong[i][0], wrong[i][1])).code != EXIT_USAGE)
            fail_msg("%s %s was taken", wrong[i][0], wrong[i][1]);
    assert_int_equal(parse(WORDS("--count")).code, EXIT_USAGE);
}

static void every_command_of_the_table_is_complete(void **state)
{
    (void)state;
    size_t count = 0;
    for (const struct command *c = tools_commands; c->name; c++, count++) {
        assert_non_null(c->run);
        assert_true(c->usage && c->summary && strlen(c->summary) > 10);
    }
    assert_int_equal(count, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_and_arguments_may_mix),
        cmocka_unit_test(what_is_not_given_keeps_its_default),
        cmocka_unit_test(a_large_seed_is_exact),
        cmocka_unit_test(wrong_numbers_and_names_are_usage_errors),
        cmocka_unit_test(every_command_of_the_table_is_complete),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
