#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/config.h"
#include "proto/base/fsx.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int setup(void **state)
{
    char *dir = malloc(64);
    strcpy(dir, "/tmp/hebb-config-XXXXXX");
    assert_non_null(mkdtemp(dir));
    *state = dir;
    return 0;
}

static int teardown(void **state)
{
    fsx_remove_tree(*state, NULL);
    free(*state);
    return 0;
}

static char program[] = "hebbd";

static void what_is_left_open_is_filled_in(void **state)
{
    char path[128], *argv[] = {program, (char[]){"--state"}, path,
                               (char[]){"--worker=/bin/true"}, (char[]){"--shim=/bin/true"}};
    struct config config;
    struct err err;
    struct stat info;
    snprintf(path, sizeof path, "%s/a/b", (char *)*state);
    if (config_parse(&config, 5, argv, &err) != 0)
        fail_msg("%s", err.text);
    assert_string_equal(config.daemon.state_dir, path);
    assert_string_equal(config.daemon.listen, "127.0.0.1:7077");
    assert_true(config.daemon.cores >= 1);
    assert_int_equal(config.daemon.poll_ms, 200);
    assert_int_equal(config.daemon.data_root_count, 1);
    strcat(path, "/data");
    assert_string_equal(config.daemon.data_roots[0], path);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
    config_release(&config);
}

static void data_roots_are_canonical_and_may_be_several(void **state)
{
    char link[128], *argv[] = {program,
                               (char[]){"--state"},
                               *state,
                               (char[]){"--data-root"},
                               link,
                               (char[]){"--data-root"},
                               (char[]){"/usr/../usr/share"},
                               (char[]){"--worker=/bin/true"},
                               (char[]){"--shim=/bin/true"}};
    struct config config;
    struct err err;
    snprintf(link, sizeof link, "%s/link", (char *)*state);
    assert_int_equal(symlink("/usr", link), 0);
    if (config_parse(&config, 9, argv, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(config.daemon.data_root_count, 2);
    assert_string_equal(config.daemon.data_roots[0], "/usr");
    assert_string_equal(config.daemon.data_roots[1], "/usr/share");
    config_release(&config);
}

static void wrong_options_are_named_with_their_value(void **state)
{
    static const struct {
        const char *option, *value, *words;
    } cases[] = {
        {"--core", "2", "unknown option '--core'"},
        {"--corestwo", "2", "unknown option '--corestwo'"},
        {"--cores", "0", "--cores '0' must be a number from 1"},
        {"--cores", "2x", "--cores '2x'"},
        {"--gpus", "99999999999999999999", "--gpus '9999"},
        {"--log-level", "loud", "--log-level 'loud' must be debug"},
        {"--data-root", "/nonexistent", "data root '/nonexistent': No such file"},
        {"--data-root", "/etc/passwd", "'/etc/passwd' is not a folder"},
        {"--listen", "", "--listen needs ADDR:PORT"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char option[64], value[64], *argv[] = {program, option, value};
        struct config config;
        struct err err;
        snprintf(option, sizeof option, "%s", cases[i].option);
        snprintf(value, sizeof value, "%s", cases[i].value);
        assert_int_equal(config_parse(&config, 3, argv, &err) < 0, 1);
        if (strstr(err.text, cases[i].words) == NULL)
            fail_msg("'%s' does not say '%s'", err.text, cases[i].words);
    }
}

static void help_names_every_option(void **state)
{
    static const char *const names[] = {"--state",  "--listen",    "--data-root",
                                        "--worker", "--shim",      "--web",
                                        "--cores",  "--log-level", "--port-file"};
    char *argv[] = {program, (char[]){"--help"}};
    struct config config;
    struct buf text;
    (void)state;
    assert_int_equal(config_parse(&config, 2, argv, NULL), 0);
    assert_true(config.help);
    buf_init(&text, 1 << 16);
    config_help(&text);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        assert_non_null(strstr(text.data, names[i]));
    buf_release(&text);
}

static void token_is_made_once_and_only_for_its_owner(void **state)
{
    char first[65], second[65], path[128];
    struct stat info;
    snprintf(path, sizeof path, "%s/token", (char *)*state);
    assert_int_equal(config_token(first, *state, NULL), 0);
    assert_int_equal(strlen(first), 64);
    assert_int_equal(strspn(first, "0123456789abcdef"), 64);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_int_equal(config_token(second, *state, NULL), 0);
    assert_string_equal(first, second);
    unlink(path);
    assert_int_equal(config_token(second, *state, NULL), 0);
    assert_string_not_equal(first, second);
    /* A short one would be easy to guess. */
    assert_int_equal(fsx_publish(path, "abc\n", 4, 0600, NULL), 0);
    assert_int_equal(config_token(second, *state, NULL), ERR_CORRUPT);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(what_is_left_open_is_filled_in),
        TEST(data_roots_are_canonical_and_may_be_several),
        TEST(wrong_options_are_named_with_their_value),
        TEST(help_names_every_option),
        TEST(token_is_made_once_and_only_for_its_owner),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
