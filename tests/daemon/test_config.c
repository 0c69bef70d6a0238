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
    if (config_parse(&config, 5, argv, NULL, &err) != 0)
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
    if (config_parse(&config, 9, argv, NULL, &err) != 0)
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
        {"--cores", "0", "--cores: '0' must be a number from 1"},
        {"--cores", "2x", "--cores: '2x'"},
        {"--gpus", "99999999999999999999", "--gpus: '9999"},
        {"--log-level", "loud", "--log-level: 'loud' must be debug"},
        {"--data-root", "/nonexistent", "--data-root: '/nonexistent': No such file"},
        {"--data-root", "/etc/passwd", "'/etc/passwd' is not a folder"},
        {"--listen", "", "--listen: needs ADDR:PORT"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char option[64], value[64], *argv[] = {program, option, value};
        struct config config;
        struct err err;
        snprintf(option, sizeof option, "%s", cases[i].option);
        snprintf(value, sizeof value, "%s", cases[i].value);
        assert_int_equal(config_parse(&config, 3, argv, NULL, &err) < 0, 1);
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
    assert_int_equal(config_parse(&config, 2, argv, NULL, NULL), 0);
    assert_true(config.mode == CONFIG_HELP);
    buf_init(&text, 1 << 16);
    config_help(&text);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        assert_non_null(strstr(text.data, names[i]));
    buf_release(&text);
}

static void write_file(const char *dir, const char *text, char path[128])
{
    snprintf(path, 128, "%s/hebbd.json", dir);
    assert_int_equal(fsx_publish(path, text, strlen(text), 0600, NULL), 0);
}

static void a_file_is_read_and_the_command_line_goes_before_it(void **state)
{
    char path[128], *argv[] = {program,
                               (char[]){"--state"},
                               *state,
                               (char[]){"--config"},
                               path,
                               (char[]){"--cores=3"},
                               (char[]){"--data-root=/usr"},
                               (char[]){"--worker=/bin/true"},
                               (char[]){"--shim=/bin/true"}};
    struct config config;
    struct err err;
    write_file(
        *state,
        "{\"cores\": 5, \"gpus\": 2, \"data_roots\": [\"/etc\", \"/tmp\"], \"log_level\": "
        "\"warn\", \"local_token\": false, \"hosts\": [\"hebb.example\"]}",
        path);
    if (config_parse(&config, 9, argv, NULL, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(config.daemon.cores, 3);
    assert_int_equal(config.daemon.gpus, 2);
    assert_int_equal(config.log_level, LOG_LEVEL_WARN);
    assert_false(config.daemon.local_token);
    assert_int_equal(config.daemon.data_root_count, 1);
    assert_string_equal(config.daemon.data_roots[0], "/usr");
    assert_int_equal(config.daemon.host_count, 1);
    assert_string_equal(config.daemon.hosts[0], "hebb.example");
    assert_string_equal(config.file, path);
    config_release(&config);
}

static void all_faults_of_a_file_are_named_at_once(void **state)
{
    char path[128], *argv[] = {program,
                               (char[]){"--check-config"},
                               (char[]){"--worker=/bin/true"},
                               (char[]){"--shim=/bin/true"},
                               (char[]){"--config"},
                               path,
                               (char[]){"--gpus=-1"}};
    static struct spec_faults faults;
    struct config config;
    struct err err;
    write_file(*state,
               "{\"cores\": 0, \"gpu\": 1, \"listen\": \"\", \"data_roots\": \"/etc\", "
               "\"local_token\": 1, \"web\": \"/nonexistent\", \"log_level\": \"loud\", "
               "\"hosts\": [1], \"poll_ms\": 1.5}",
               path);
    assert_int_equal(config_parse(&config, 7, argv, &faults, &err), ERR_INVALID);
    static const char *const fields[] = {"/cores",       "/gpu",  "/listen",    "/data_roots",
                                         "/local_token", "/web",  "/log_level", "/hosts",
                                         "/poll_ms",     "--gpus"};
    assert_int_equal(faults.count, 10);
    for (size_t i = 0; i < 10; i++)
        assert_string_equal(faults.items[i].field, fields[i]);
    assert_non_null(strstr(faults.items[1].reason, "did you mean /gpus?"));
    static const char *const broken[] = {"{\"cores\": 1, \"cores\": 2}", "{\"cores\": 01}",
                                         "[]", "{} x", "{\"cores\": 1,}"};
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        write_file(*state, broken[i], path);
        assert_int_equal(config_parse(&config, 6, argv, &faults, &err), ERR_INVALID);
        assert_non_null(strstr(err.text, "hebbd.json"));
    }
    argv[5] = (char[]){"/nonexistent.json"};
    assert_int_equal(config_parse(&config, 6, argv, &faults, &err), ERR_INVALID);
}

static void a_reload_takes_over_what_is_live_and_only_that(void **state)
{
    char path[128], *argv[] = {program,
                               (char[]){"--state"},
                               *state,
                               (char[]){"--config"},
                               path,
                               (char[]){"--worker=/bin/true"},
                               (char[]){"--shim=/bin/true"}};
    struct config config;
    struct err err;
    write_file(*state, "{\"cores\": 2, \"listen\": \"127.0.0.1:1\", \"hosts\": [\"a\"]}", path);
    assert_int_equal(config_parse(&config, 7, argv, NULL, &err), 0);
    write_file(*state, "{\"cores\": 4, \"listen\": \"127.0.0.1:2\", \"hosts\": [\"b\", \"c\"]}",
               path);
    assert_int_equal(config_reload(&config, 7, argv, NULL, &err), 0);
    assert_int_equal(config.daemon.cores, 4);
    assert_int_equal(config.daemon.host_count, 2);
    assert_string_equal(config.daemon.hosts[1], "c");
    assert_string_equal(config.daemon.listen, "127.0.0.1:1");
    write_file(*state, "{\"cores\": 0, \"hosts\": []}", path);
    assert_int_equal(config_reload(&config, 7, argv, NULL, &err), ERR_INVALID);
    assert_int_equal(config.daemon.cores, 4);
    assert_int_equal(config.daemon.host_count, 2);
    config_release(&config);
}

static void what_is_printed_is_a_file_that_says_the_same(void **state)
{
    char path[128], *argv[] = {program,
                               (char[]){"--state"},
                               *state,
                               (char[]){"--worker=/bin/true"},
                               (char[]){"--shim=/bin/true"},
                               (char[]){"--host=x.example"}};
    char *second[] = {program, (char[]){"--config"}, path};
    struct config config;
    struct buf first, again;
    struct err err;
    buf_init(&first, 1 << 16);
    buf_init(&again, 1 << 16);
    assert_int_equal(config_parse(&config, 6, argv, NULL, &err), 0);
    config_print(&config, &first);
    config_release(&config);
    write_file(*state, first.data, path);
    if (config_parse(&config, 3, second, NULL, &err) != 0)
        fail_msg("%s in %s", err.text, first.data);
    config_print(&config, &again);
    config_release(&config);
    assert_string_equal(first.data, again.data);
    buf_release(&first);
    buf_release(&again);
}

static void the_reference_is_what_the_table_says(void **state)
{
    (void)state;
    struct buf docs, printed;
    buf_init(&docs, 1 << 20);
    buf_init(&printed, 1 << 20);
    assert_int_equal(fsx_read(&docs, HEBB_SOURCE_DIR "/docs/configuration.md", NULL), 0);
    config_describe(&printed);
    assert_string_equal(docs.data, printed.data);
    buf_release(&docs);
    buf_release(&printed);
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
        TEST(a_file_is_read_and_the_command_line_goes_before_it),
        TEST(all_faults_of_a_file_are_named_at_once),
        TEST(a_reload_takes_over_what_is_live_and_only_that),
        TEST(what_is_printed_is_a_file_that_says_the_same),
        TEST(the_reference_is_what_the_table_says),
        TEST(token_is_made_once_and_only_for_its_owner),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
