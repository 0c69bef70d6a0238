/* Reading events files that are torn, damaged, doubled, cut, or lost from the database. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/jobs_internal.h"
#include "tests/daemon/jobs_fixture.h"
#include <fcntl.h>

static void events_path(struct fixture *f, const char *id, char path[FSX_PATH_MAX])
{
    assert_int_equal(fsx_path(path, NULL, "%s/jobs/%s/events.jsonl", f->dir, id), 0);
}

static void append(struct fixture *f, const char *id, const char *text)
{
    char path[FSX_PATH_MAX];
    events_path(f, id, path);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    assert_true(fd >= 0);
    assert_int_equal(fsx_write_all(fd, text, strlen(text), NULL), 0);
    close(fd);
}

static void step_line(char line[256], int seq)
{
    snprintf(line, 256,
             "{\"seq\":%d,\"time\":\"2026-11-23T01:02:03.456Z\",\"type\":\"step\",\"step\":%d,"
             "\"tokens\":8,\"loss\":2}\n",
             seq, seq);
}

static void append_step(struct fixture *f, const char *id, int seq)
{
    char line[256];
    step_line(line, seq);
    append(f, id, line);
}

/* A job that never runs (the loop is not run), so that only the test writes its events. */
static void submit_idle(struct fixture *f, char id[STORE_ID_MAX])
{
    fixture_submit(f, id, "steps=1", "");
}

static bool ingest(struct fixture *f, const char *id)
{
    bool caught_up;
    struct err err;
    if (jobs_ingest(f->daemon.jobs, id, &caught_up, &err) != 0)
        fail_msg("%s", err.text);
    assert_true(fixture_commit(f));
    return caught_up;
}

static struct job_progress progress_of(struct fixture *f, const char *id)
{
    struct job_progress progress;
    assert_int_equal(store_progress(f->daemon.store, id, &progress, NULL), 0);
    return progress;
}

static uint64_t count_of(struct fixture *f, const char *id)
{
    struct fixture_events events = {.count = 0};
    assert_int_equal(
        store_events_since(f->daemon.store, id, 0, 1 << 20, fixture_count, &events, NULL), 0);
    return events.count;
}

static void half_a_line_waits_for_its_end(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX], line[256];
    submit_idle(f, id);
    assert_true(ingest(f, id)); /* no file yet */
    append_step(f, id, 1);
    step_line(line, 2);
    char *rest = line + 40;
    char first[41];
    snprintf(first, sizeof first, "%.40s", line);
    append(f, id, first);
    assert_true(ingest(f, id));
    assert_int_equal(count_of(f, id), 1);
    append(f, id, rest);
    assert_true(ingest(f, id));
    assert_int_equal(count_of(f, id), 2);
    assert_int_equal(progress_of(f, id).bad_lines, 0);
}

static void line_that_is_no_event_is_counted_and_passed_over(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX];
    submit_idle(f, id);
    append_step(f, id, 1);
    append(f, id, "{\"seq\":2,\"type\":\n\n[1]\n{\"seq\":\"3\",\"type\":\"step\"}\n");
    append_step(f, id, 4);
    assert_true(ingest(f, id));
    assert_int_equal(count_of(f, id), 2);
    assert_int_equal(progress_of(f, id).bad_lines, 4);
    assert_int_equal(progress_of(f, id).step, 4);
}

static void lines_written_twice_are_stored_once(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX];
    submit_idle(f, id);
    for (int i = 1; i <= 3; i++)
        append_step(f, id, i);
    for (int i = 2; i <= 4; i++)
        append_step(f, id, i);
    assert_true(ingest(f, id));
    assert_int_equal(count_of(f, id), 4);
}

static void turn_that_was_rolled_back_is_read_again(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX];
    bool caught_up;
    submit_idle(f, id);
    append_step(f, id, 1);
    assert_int_equal(jobs_ingest(f->daemon.jobs, id, &caught_up, NULL), 0);
    fixture_stop(f); /* without a commit */
    fixture_start(f);
    assert_int_equal(count_of(f, id), 0);
    assert_true(ingest(f, id));
    assert_int_equal(count_of(f, id), 1);
}

static void file_that_became_shorter_is_read_again_without_doubles(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX], path[FSX_PATH_MAX], line[256];
    submit_idle(f, id);
    for (int i = 1; i <= 5; i++)
        append_step(f, id, i);
    assert_true(ingest(f, id));
    step_line(line, 1);
    events_path(f, id, path);
    assert_int_equal(truncate(path, (off_t)strlen(line) * 2), 0);
    assert_true(ingest(f, id));
    assert_int_equal(count_of(f, id), 5);
    for (int i = 6; i <= 9; i++)
        append_step(f, id, i);
    assert_true(ingest(f, id));
    assert_int_equal(count_of(f, id), 9);
}

static void long_backlog_is_read_in_turns(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX], path[FSX_PATH_MAX], line[256];
    struct buf text;
    submit_idle(f, id);
    buf_init(&text, 1 << 24);
    int lines = 0;
    for (; text.len < 2 * INGEST_TURN_BYTES + 1000; lines++) {
        step_line(line, lines + 1);
        buf_puts(&text, line);
    }
    events_path(f, id, path);
    assert_int_equal(fsx_publish(path, text.data, text.len, 0600, NULL), 0);
    buf_release(&text);
    int turns = 1;
    while (!ingest(f, id))
        turns++;
    assert_int_equal(turns, 3);
    assert_int_equal(count_of(f, id), lines);
}

static void line_without_end_is_passed_over_at_its_limit(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX];
    submit_idle(f, id);
    char *endless = malloc(EVENT_LINE_MAX + 10);
    memset(endless, 'x', EVENT_LINE_MAX + 9);
    endless[EVENT_LINE_MAX + 9] = '\0';
    append(f, id, endless);
    free(endless);
    append(f, id, "\n");
    append_step(f, id, 1);
    while (!ingest(f, id))
        ;
    assert_int_equal(count_of(f, id), 1);
    assert_int_equal(progress_of(f, id).bad_lines, 2); /* the block and its tail */
}

static bool until_rebuilt(struct fixture *f, const char *id)
{
    (void)id;
    bool pending = true;
    return store_rebuild_pending(f->daemon.store, &pending, NULL) == 0 && !pending;
}

static void lost_series_is_built_again_from_the_events_files(void **state)
{
    struct fixture *f = *state;
    char first[STORE_ID_MAX], second[STORE_ID_MAX], path[128];
    fixture_submit(f, first, "steps=20", "");
    fixture_submit(f, second, "steps=10,exit=2", "");
    fixture_run(f, until_final, first);
    fixture_run(f, until_final, second);
    fixture_stop(f);
    static const char *const names[] = {"series.db", "series.db-wal", "series.db-shm"};
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", f->dir, names[i]);
        unlink(path);
    }
    fixture_start(f);
    assert_int_equal(count_of(f, first), 0);
    fixture_run(f, until_rebuilt, NULL);
    assert_int_equal(fixture_check_events(f, first).count, 22);
    assert_int_equal(fixture_check_events(f, second).count, 11);
    assert_true(progress_of(f, first).done);
    assert_string_equal(job_state_name(fixture_job(f, first).state), "succeeded");
}

int main(int argc, char **argv)
{
    int fake = fake_worker_main(argc, argv);
    if (fake >= 0)
        return fake;
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(half_a_line_waits_for_its_end),
        TEST(line_that_is_no_event_is_counted_and_passed_over),
        TEST(lines_written_twice_are_stored_once),
        TEST(turn_that_was_rolled_back_is_read_again),
        TEST(file_that_became_shorter_is_read_again_without_doubles),
        TEST(long_backlog_is_read_in_turns),
        TEST(line_without_end_is_passed_over_at_its_limit),
        TEST(lost_series_is_built_again_from_the_events_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
