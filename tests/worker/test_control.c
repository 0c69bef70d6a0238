/* The control file: words, their pace, and the answer that loses no word. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "worker/control.h"
#include <stdlib.h>
#include <string.h>

static char folder[64];

static void write_word(const char *word)
{
    char path[FSX_PATH_MAX];
    assert_int_equal(fsx_path(path, NULL, "%s/control", folder), 0);
    assert_int_equal(fsx_publish(path, word, strlen(word), 0644, NULL), 0);
}

static void assert_file_says(const char *word)
{
    char path[FSX_PATH_MAX];
    struct buf text;
    buf_init(&text, 64);
    assert_int_equal(fsx_path(path, NULL, "%s/control", folder), 0);
    assert_int_equal(fsx_read(&text, path, NULL), 0);
    assert_string_equal(text.data, word);
    buf_release(&text);
}

static int setup(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/test_control_XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return fsx_remove_tree(folder, NULL);
}

static void each_word_is_understood_and_anything_else_means_run(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum control_word word;
    } cases[] = {
        {"run\n", CONTROL_RUN},
        {"checkpoint", CONTROL_CHECKPOINT},
        {"checkpoint\n", CONTROL_CHECKPOINT},
        {"stop\r\n", CONTROL_STOP},
        {"STOP", CONTROL_RUN},
        {"", CONTROL_RUN},
        {"stopped", CONTROL_RUN},
    };
    struct control control;
    assert_int_equal(control_init(&control, folder, NULL), 0);
    assert_int_equal(control_poll(&control, 0), CONTROL_RUN); /* no file */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_word(cases[i].text);
        assert_int_equal(control_poll(&control, 1000 * (int64_t)(i + 1)), cases[i].word);
    }
}

static void the_file_is_read_at_most_every_poll_interval(void **state)
{
    (void)state;
    struct control control;
    assert_int_equal(control_init(&control, folder, NULL), 0);
    assert_int_equal(control_poll(&control, 5000), CONTROL_RUN);
    write_word("stop");
    assert_int_equal(control_poll(&control, 5000 + CONTROL_POLL_MS - 1), CONTROL_RUN);
    assert_int_equal(control_poll(&control, 5000 + CONTROL_POLL_MS), CONTROL_STOP);
}

static void an_answered_checkpoint_becomes_run(void **state)
{
    (void)state;
    struct control control;
    struct err err = {0};
    assert_int_equal(control_init(&control, folder, NULL), 0);
    write_word("checkpoint");
    assert_int_equal(control_poll(&control, 1000), CONTROL_CHECKPOINT);
    assert_int_equal(control_answer(&control, &err), 0);
    assert_file_says("run\n");
    assert_int_equal(control_poll(&control, 2000), CONTROL_RUN);
}

static void a_stop_written_during_the_checkpoint_is_obeyed(void **state)
{
    (void)state;
    struct control control;
    struct err err = {0};
    assert_int_equal(control_init(&control, folder, NULL), 0);
    write_word("checkpoint");
    assert_int_equal(control_poll(&control, 1000), CONTROL_CHECKPOINT);
    write_word("stop");
    assert_int_equal(control_answer(&control, &err), 0);
    assert_int_equal(control_poll(&control, 1001),
                     CONTROL_STOP); /* at once, not at the next look */
}

static void an_answer_to_a_removed_file_is_fine(void **state)
{
    (void)state;
    struct control control;
    struct err err = {0};
    assert_int_equal(control_init(&control, folder, NULL), 0);
    assert_int_equal(control_answer(&control, &err), 0);
    assert_int_equal(control_poll(&control, 1000), CONTROL_RUN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_word_is_understood_and_anything_else_means_run,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(the_file_is_read_at_most_every_poll_interval, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(an_answered_checkpoint_becomes_run, setup, teardown),
        cmocka_unit_test_setup_teardown(a_stop_written_during_the_checkpoint_is_obeyed, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(an_answer_to_a_removed_file_is_fine, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
