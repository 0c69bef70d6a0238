/* Events: numbering over attempts, torn lines, and what the reader refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/base/fsx.h"
#include "proto/json/json.h"
#include "proto/msg/event.h"
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static int make_file(void **state)
{
    char *path = strdup("/tmp/hebb-events-XXXXXX");
    int fd = path ? mkstemp(path) : -1;
    *state = path;
    return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
    int rc = unlink(*state);
    free(*state);
    return rc;
}

static cJSON *step_event(int64_t step, double loss)
{
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "type", "step");
    cJSON_AddNumberToObject(object, "step", (double)step);
    event_add_number(object, "loss", loss);
    return object;
}

static void append_steps(const char *path, int64_t first, int64_t count)
{
    struct event_log *log;
    struct err err = {0};
    assert_int_equal(event_log_open(&log, path, &err), 0);
    for (int64_t i = 0; i < count; i++) {
        assert_int_equal(event_log_append(log, step_event(first + i, 4.25), &err), 0);
    }
    event_log_close(log);
}

/* Every line parses and its seq is 1, 2, ... Returns their number. */
static uint64_t check_lines(const char *path)
{
    struct buf text;
    uint64_t count = 0;
    buf_init(&text, 1 << 24);
    assert_int_equal(fsx_read(&text, path, NULL), 0);
    for (char *line = text.data, *end; *line; line = end + 1) {
        struct event event;
        struct err err = {0};
        end = strchr(line, '\n');
        assert_non_null(end);
        if (event_parse(&event, line, (size_t)(end - line), &err) != 0) {
            fail_msg("line %d: %s", (int)count + 1, err.text);
        }
        assert_true(event.seq == ++count);
        event_release(&event);
    }
    buf_release(&text);
    return count;
}

static void line_starts_with_seq_time_and_type(void **state)
{
    struct buf text;
    buf_init(&text, 4096);
    append_steps(*state, 100, 1);
    assert_int_equal(fsx_read(&text, *state, NULL), 0);
    assert_memory_equal(text.data, "{\"seq\":1,\"time\":\"", 17);
    assert_string_equal(text.data + 17 + 24,
                        "\",\"type\":\"step\",\"step\":100,\"loss\":4.25}\n");
    buf_release(&text);
}

static void numbering_goes_on_over_attempts(void **state)
{
    append_steps(*state, 1, 3);
    append_steps(*state, 2, 2);
    append_steps(*state, 4, 0);
    append_steps(*state, 4, 1);
    assert_int_equal(check_lines(*state), 6);
}

static void torn_last_line_is_cut_at_every_length(void **state)
{
    struct buf whole, text;
    buf_init(&whole, 4096);
    buf_init(&text, 4096);
    append_steps(*state, 1, 2);
    assert_int_equal(fsx_read(&whole, *state, NULL), 0);
    size_t first = (size_t)(strchr(whole.data, '\n') - whole.data) + 1;
    for (size_t len = 0; len < whole.len; len++) {
        assert_int_equal(fsx_publish(*state, whole.data, len, 0600, NULL), 0);
        append_steps(*state, 9, 1);
        assert_int_equal(check_lines(*state), len < first ? 1 : 2);
        buf_clear(&text);
        assert_int_equal(fsx_read(&text, *state, NULL), 0);
        assert_non_null(strstr(text.data, "\"step\":9,"));
        assert_null(strstr(text.data, "\"step\":2,"));
    }
    buf_release(&whole);
    buf_release(&text);
}

static void numbering_goes_on_after_a_long_line(void **state)
{
    struct event_log *log;
    struct err err = {0};
    append_steps(*state, 1, 1);
    assert_int_equal(event_log_open(&log, *state, &err), 0);
    cJSON *object = step_event(2, 1.0), *layers = cJSON_AddArrayToObject(object, "layers");
    for (int i = 0; i < 20000; i++) {
        cJSON_AddItemToArray(layers, cJSON_CreateNumber(i));
    }
    assert_int_equal(event_log_append(log, object, &err), 0);
    event_log_close(log);
    append_steps(*state, 3, 1);
    assert_int_equal(check_lines(*state), 3);
}

static void damaged_last_line_is_refused(void **state)
{
    static const char text[] = "{\"seq\":1,\"time\":\"t\",\"type\":\"x\"}\nrubbish\n";
    struct event_log *log;
    struct err err = {0};
    assert_int_equal(fsx_publish(*state, text, sizeof(text) - 1, 0600, NULL), 0);
    assert_int_equal(event_log_open(&log, *state, &err), ERR_CORRUPT);
    assert_null(log);
    assert_non_null(strstr(err.text, *state));
}

static void failed_append_leaves_no_part_of_a_line(void **state)
{
    struct event_log *log;
    struct err err = {0};
    struct buf text;
    struct rlimit old, small;
    buf_init(&text, 4096);
    append_steps(*state, 1, 2);
    assert_int_equal(fsx_read(&text, *state, NULL), 0);
    assert_int_equal(event_log_open(&log, *state, &err), 0);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = text.len + 20; /* room for a part of the next line */
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_int_equal(event_log_append(log, step_event(3, 1.0), &err), ERR_IO);
    assert_int_equal(event_log_append(log, step_event(3, 1.0), &err), ERR_IO);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(check_lines(*state), 2);
    assert_int_equal(event_log_append(log, step_event(3, 1.0), &err), 0);
    event_log_close(log);
    assert_int_equal(check_lines(*state), 3);
    buf_release(&text);
}

static void event_without_a_type_is_refused_and_freed(void **state)
{
    struct event_log *log;
    assert_int_equal(event_log_open(&log, *state, NULL), 0);
    assert_int_equal(event_log_append(log, cJSON_CreateObject(), NULL), ERR_INTERNAL);
    event_log_close(log);
    assert_int_equal(check_lines(*state), 0);
}

static void number_that_is_not_finite_is_null_and_named(void **state)
{
    (void)state;
    static const struct {
        double value;
        const char *text;
    } cases[] = {{2.5, "{\"x\":2.5}"},
                 {NAN, "{\"x\":null,\"nonfinite\":\"nan\"}"},
                 {INFINITY, "{\"x\":null,\"nonfinite\":\"inf\"}"},
                 {-INFINITY, "{\"x\":null,\"nonfinite\":\"-inf\"}"}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct buf out;
        buf_init(&out, 100);
        cJSON *object = cJSON_CreateObject();
        event_add_number(object, "x", cases[i].value);
        json_print(object, &out);
        assert_string_equal(out.data, cases[i].text);
        cJSON_Delete(object);
        buf_release(&out);
    }
}

static void reader_refuses_what_is_not_an_event(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "",
        "x",
        "[]",
        "{}",
        "{\"seq\":0,\"time\":\"t\",\"type\":\"x\"}",
        "{\"seq\":1.5,\"time\":\"t\",\"type\":\"x\"}",
        "{\"seq\":\"1\",\"time\":\"t\",\"type\":\"x\"}",
        "{\"seq\":1,\"time\":\"t\"}",
        "{\"seq\":1,\"type\":\"x\"}",
        "{\"seq\":1,\"time\":\"t\",\"type\":\"\"}",
        "{\"seq\":1,\"seq\":2,\"time\":\"t\",\"type\":\"x\"}",
        "{\"seq\":1,\"time\":\"t\",\"type\":\"x\"",
    };
    for (size_t i = 0; i < COUNT(lines); i++) {
        struct event event;
        struct err err = {0};
        assert_int_equal(event_parse(&event, lines[i], strlen(lines[i]), &err), ERR_CORRUPT);
        assert_null(event.json);
        assert_memory_equal(err.text, "event", 5);
    }
}

#define FILE_TEST(test) cmocka_unit_test_setup_teardown(test, make_file, remove_file)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FILE_TEST(line_starts_with_seq_time_and_type),
        FILE_TEST(numbering_goes_on_over_attempts),
        FILE_TEST(torn_last_line_is_cut_at_every_length),
        FILE_TEST(numbering_goes_on_after_a_long_line),
        FILE_TEST(damaged_last_line_is_refused),
        FILE_TEST(failed_append_leaves_no_part_of_a_line),
        FILE_TEST(event_without_a_type_is_refused_and_freed),
        cmocka_unit_test(number_that_is_not_finite_is_null_and_named),
        cmocka_unit_test(reader_refuses_what_is_not_an_event),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
