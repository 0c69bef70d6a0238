#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/loop.h"
#include "proto/base/clock.h"
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct trace {
    struct loop *loop;
    char text[256];
    int reads, beats, turns, other_fd, timer;
    int64_t wait_ms;
};

static void on_beat(void *context)
{
    struct trace *trace = context;
    strcat(trace->text, "t");
    if (++trace->beats == 3)
        loop_stop(trace->loop);
}

static void on_read(void *context, int fd)
{
    struct trace *trace = context;
    char byte;
    assert_int_equal(read(fd, &byte, 1), 1);
    trace->reads++;
    strcat(trace->text, "r");
}

static void on_turn(void *context)
{
    struct trace *trace = context;
    trace->turns++;
    strcat(trace->text, ".");
}

static struct trace make(void)
{
    struct trace trace = {.wait_ms = -1};
    assert_int_equal(loop_create(&trace.loop, NULL), 0);
    return trace;
}

static void descriptors_are_read_until_they_are_empty_and_turns_end_with_the_hook(void **state)
{
    (void)state;
    struct trace trace = make();
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], "abc", 3), 3);
    assert_int_equal(loop_add_fd(trace.loop, ends[0], on_read, &trace, NULL), 0);
    loop_set_after_turn(trace.loop, on_turn, &trace);
    loop_add_timer(trace.loop, 5, on_beat, &trace);
    assert_int_equal(loop_run(trace.loop, NULL), 0);
    assert_int_equal(trace.reads, 3);
    assert_int_equal(trace.beats, 3);
    assert_true(strncmp(trace.text, "r.r.r.", 6) == 0); /* one byte, one turn */
    assert_true(trace.text[strlen(trace.text) - 1] == '.');
    close(ends[0]);
    close(ends[1]);
    loop_destroy(trace.loop);
}

static void on_read_slowly(void *context, int fd)
{
    on_read(context, fd);
    usleep(20 * 1000); /* the timer falls due meanwhile */
}

static void due_timers_run_before_descriptors(void **state)
{
    (void)state;
    struct trace trace = make();
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], "abcdef", 6), 6);
    assert_int_equal(loop_add_fd(trace.loop, ends[0], on_read_slowly, &trace, NULL), 0);
    loop_add_timer(trace.loop, 5, on_beat, &trace);
    assert_int_equal(loop_run(trace.loop, NULL), 0);
    assert_true(strncmp(trace.text, "rtrtrt", 6) == 0);
    close(ends[0]);
    close(ends[1]);
    loop_destroy(trace.loop);
}

static void on_read_remove_other(void *context, int fd)
{
    struct trace *trace = context;
    on_read(context, fd);
    loop_remove_fd(trace->loop, trace->other_fd);
    loop_stop(trace->loop);
}

static void descriptor_removed_by_a_callback_is_not_called_in_the_same_turn(void **state)
{
    (void)state;
    struct trace trace = make();
    int first[2], second[2];
    assert_int_equal(pipe(first), 0);
    assert_int_equal(pipe(second), 0);
    assert_int_equal(write(first[1], "a", 1), 1);
    assert_int_equal(write(second[1], "b", 1), 1);
    trace.other_fd = second[0];
    assert_int_equal(loop_add_fd(trace.loop, first[0], on_read_remove_other, &trace, NULL), 0);
    assert_int_equal(loop_add_fd(trace.loop, second[0], on_read, &trace, NULL), 0);
    assert_int_equal(loop_run(trace.loop, NULL), 0);
    assert_int_equal(trace.reads, 1);
    for (int i = 0; i < 2; i++) {
        close(first[i]);
        close(second[i]);
    }
    loop_destroy(trace.loop);
}

static void on_beat_once(void *context)
{
    struct trace *trace = context;
    trace->turns++;
    loop_remove_timer(trace->loop, trace->timer);
}

static void timer_removed_by_itself_does_not_come_again(void **state)
{
    (void)state;
    struct trace trace = make();
    trace.timer = loop_add_timer(trace.loop, 2, on_beat_once, &trace);
    loop_add_timer(trace.loop, 10, on_beat, &trace);
    assert_int_equal(loop_run(trace.loop, NULL), 0);
    assert_int_equal(trace.turns, 1);
    assert_int_equal(trace.beats, 3);
    loop_destroy(trace.loop);
}

static int64_t before_wait(void *context)
{
    struct trace *trace = context;
    if (++trace->reads == 5)
        loop_stop(trace->loop);
    return trace->wait_ms;
}

static void before_wait_shortens_the_sleep(void **state)
{
    (void)state;
    struct trace trace = make();
    trace.wait_ms = 3;
    loop_add_timer(trace.loop, 60 * 1000, on_beat, &trace);
    loop_set_before_wait(trace.loop, before_wait, &trace);
    int64_t start = clock_monotonic_ms();
    assert_int_equal(loop_run(trace.loop, NULL), 0);
    int64_t took = clock_monotonic_ms() - start;
    assert_true(took >= 10 && took < 5000);
    assert_int_equal(trace.beats, 0);
    loop_destroy(trace.loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(descriptors_are_read_until_they_are_empty_and_turns_end_with_the_hook),
        cmocka_unit_test(due_timers_run_before_descriptors),
        cmocka_unit_test(descriptor_removed_by_a_callback_is_not_called_in_the_same_turn),
        cmocka_unit_test(timer_removed_by_itself_does_not_come_again),
        cmocka_unit_test(before_wait_shortens_the_sleep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
