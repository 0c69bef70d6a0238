#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/daemon/jobs_fixture.h"

static void submitted_job_runs_and_succeeds_with_all_its_events(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX], path[FSX_PATH_MAX];
    fixture_submit(f, id, "steps=30", "");
    fixture_run(f, until_final, id);
    struct job_row job = fixture_job(f, id);
    assert_string_equal(job_state_name(job.state), "succeeded");
    assert_int_equal(job.attempt, 1);
    assert_int_equal(job.failures, 0);
    struct fixture_events events = fixture_check_events(f, id);
    assert_int_equal(events.count, 32); /* start, 30 steps, done */
    struct job_progress progress;
    assert_int_equal(store_progress(f->daemon.store, id, &progress, NULL), 0);
    assert_int_equal(progress.step, 30);
    assert_true(progress.done);
    /* spec.json names the data by its absolute path. */
    struct buf text;
    buf_init(&text, 1 << 16);
    assert_int_equal(fsx_path(path, NULL, "%s/jobs/%s/spec.json", f->dir, id), 0);
    assert_int_equal(fsx_read(&text, path, NULL), 0);
    snprintf(path, sizeof path, "[\"%s/corpus.txt\"]", f->data);
    assert_non_null(strstr(text.data, path));
    buf_release(&text);
    /* Nothing of the attempt is left but its records. */
    assert_int_equal(fsx_path(path, NULL, "%s/jobs/%s/attempt-1/tmp", f->dir, id), 0);
    assert_false(fsx_exists(path));
    assert_int_equal(fsx_path(path, NULL, "/dev/shm/hebb-%s-1", id), 0);
    assert_false(fsx_exists(path));
}

static void failure_is_retried_until_restart_max(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX];
    fixture_submit(f, id, "steps=2,exit=1", "\"restart\":{\"max\":2,\"backoff_s\":0.01}");
    fixture_run(f, until_final, id);
    struct job_row job = fixture_job(f, id);
    assert_string_equal(job_state_name(job.state), "failed");
    assert_string_equal(job.reason, "attempt 3: the fake failed");
    assert_int_equal(job.attempt, 3);
    assert_int_equal(job.failures, 3);
    assert_int_equal(fixture_check_events(f, id).starts, 3);
}

static void retry_after_one_failure_succeeds(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX];
    fixture_submit(f, id, "steps=2,kill=9,once", "\"restart\":{\"max\":1,\"backoff_s\":0.01}");
    fixture_run(f, until_final, id);
    struct job_row job = fixture_job(f, id);
    assert_string_equal(job_state_name(job.state), "succeeded");
    assert_int_equal(job.attempt, 2);
    assert_int_equal(job.failures, 1);
}

static void codes_that_no_retry_can_help_fail_at_once(void **state)
{
    struct fixture *f = *state;
    static const char *const names[] = {"steps=1,exit=2", "steps=1,exit=3", "steps=1,exit=5"};
    for (size_t i = 0; i < 3; i++) {
        char id[STORE_ID_MAX];
        fixture_submit(f, id, names[i], "\"restart\":{\"max\":5,\"backoff_s\":0.01}");
        fixture_run(f, until_final, id);
        struct job_row job = fixture_job(f, id);
        assert_string_equal(job_state_name(job.state), "failed");
        assert_int_equal(job.attempt, 1);
    }
}

static void code_0_without_a_done_event_is_a_failure(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX];
    fixture_submit(f, id, "steps=2,silent", "\"restart\":{\"max\":0}");
    fixture_run(f, until_final, id);
    struct job_row job = fixture_job(f, id);
    assert_string_equal(job_state_name(job.state), "failed");
    assert_non_null(strstr(job.reason, "no done event"));
}

static void stop_from_outside_queues_the_job_again_and_counts_no_failure(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX];
    fixture_submit(f, id, "steps=3,exit=75,once", "\"restart\":{\"max\":0}");
    fixture_run(f, until_final, id);
    struct job_row job = fixture_job(f, id);
    assert_string_equal(job_state_name(job.state), "succeeded");
    assert_int_equal(job.attempt, 2);
    assert_int_equal(job.failures, 0);
}

static void stops_from_outside_without_end_are_a_failure(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX];
    fixture_submit(f, id, "steps=1,exit=75", "\"restart\":{\"max\":0}");
    fixture_run(f, until_final, id);
    struct job_row job = fixture_job(f, id);
    assert_string_equal(job_state_name(job.state), "failed");
    assert_string_equal(job.reason, "attempt 11: stopped from outside 11 times in a row");
    assert_int_equal(job.attempt, 11);
    assert_int_equal(job.failures, 1);
}

static void paused_job_goes_on_from_its_checkpoint(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX];
    fixture_submit(f, id, "steps=150,ms=3", "");
    fixture_run(f, until_running, id);
    fixture_act(f, id, ACTION_PAUSE);
    assert_string_equal(job_state_name(fixture_job(f, id).state), "pausing");
    fixture_run(f, until_paused, id);
    assert_string_equal(fixture_job(f, id).reason, "paused on request");
    assert_int_equal(fixture_job(f, id).failures, 0);
    fixture_act(f, id, ACTION_PAUSE); /* asking again is fine */
    fixture_act(f, id, ACTION_RESUME);
    fixture_run(f, until_final, id);
    struct job_row job = fixture_job(f, id);
    assert_string_equal(job_state_name(job.state), "succeeded");
    assert_int_equal(job.attempt, 2);
    struct fixture_events events = fixture_check_events(f, id);
    assert_int_equal(events.count,
                     2 + 1 + 150 + 1); /* starts, checkpoint, every step once, done */
}

static bool until_checkpoint(struct fixture *f, const char *id)
{
    struct fixture_events events = {.count = 0};
    store_events_since(f->daemon.store, id, 0, 1 << 20, fixture_count, &events, NULL);
    return events.checkpoints > 0;
}

static void checkpoint_on_request_does_not_stop_the_job(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX];
    fixture_submit(f, id, "steps=60,ms=5", "");
    fixture_run(f, until_running, id);
    fixture_act(f, id, ACTION_CHECKPOINT);
    fixture_run(f, until_checkpoint, id);
    fixture_run(f, until_final, id);
    assert_string_equal(job_state_name(fixture_job(f, id).state), "succeeded");
    assert_int_equal(fixture_job(f, id).attempt, 1);
    assert_int_equal(fixture_check_events(f, id).checkpoints, 1);
}

static void running_job_is_cancelled_through_control(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX];
    struct job_row job;
    struct err err;
    fixture_submit(f, id, "steps=100000,ms=5", "");
    fixture_run(f, until_running, id);
    fixture_act(f, id, ACTION_CANCEL);
    assert_int_equal(jobs_act(f->daemon.jobs, id, ACTION_PAUSE, &job, &err), ERR_CONFLICT);
    assert_string_equal(err.text, "job is cancelling");
    fixture_run(f, until_final, id);
    assert_string_equal(job_state_name(fixture_job(f, id).state), "cancelled");
    fixture_act(f, id, ACTION_CANCEL);
    assert_int_equal(jobs_act(f->daemon.jobs, id, ACTION_RESUME, &job, &err), ERR_CONFLICT);
    assert_string_equal(err.text, "job is cancelled");
}

static void queued_job_is_cancelled_at_once(void **state)
{
    struct fixture *f = *state;
    char first[STORE_ID_MAX], second[STORE_ID_MAX];
    fixture_submit(f, first, "steps=100000,ms=5", "\"resources\":{\"ranks\":1,\"threads\":2}");
    fixture_run(f, until_running, first);
    fixture_submit(f, second, "steps=1", "");
    fixture_act(f, second, ACTION_CANCEL);
    assert_string_equal(job_state_name(fixture_job(f, second).state), "cancelled");
    assert_int_equal(fixture_job(f, second).attempt, 0);
    fixture_act(f, first, ACTION_CANCEL);
    fixture_run(f, until_final, first);
}

static bool until_stuck_is_noticed(struct fixture *f, const char *id)
{
    char path[FSX_PATH_MAX];
    struct buf text;
    buf_init(&text, 64);
    bool stop = fsx_path(path, NULL, "%s/jobs/%s/control", f->dir, id) == 0 &&
                fsx_read(&text, path, NULL) == 0 && strncmp(text.data, "stop", 4) == 0;
    buf_release(&text);
    return stop;
}

/* A rank that took a checkpoint at the wrong moment writes `run` over `stop`: the daemon must
 * say it again. */
static void stop_that_was_overwritten_is_said_again(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX], path[FSX_PATH_MAX];
    fixture_submit(f, id, "steps=100,ms=10,deaf", "");
    fixture_run(f, until_running, id);
    fixture_act(f, id, ACTION_CANCEL);
    fixture_run(f, until_stuck_is_noticed, id);
    assert_int_equal(fsx_path(path, NULL, "%s/jobs/%s/control", f->dir, id), 0);
    assert_int_equal(fsx_publish(path, "run\n", 4, 0600, NULL), 0);
    fixture_run(f, until_stuck_is_noticed, id);
    fixture_run(f, until_final,
                id); /* deaf: it ends by itself, done before the cancellation took effect */
    assert_string_equal(job_state_name(fixture_job(f, id).state), "succeeded");
}

static void higher_priority_goes_first_and_nothing_overtakes_the_head(void **state)
{
    struct fixture *f = *state;
    char running[STORE_ID_MAX], big[STORE_ID_MAX], small[STORE_ID_MAX], urgent[STORE_ID_MAX];
    fixture_submit(f, running, "steps=40,ms=10", "");
    fixture_run(f, until_running, running);
    fixture_submit(f, big, "steps=1", "\"resources\":{\"ranks\":1,\"threads\":2}");
    fixture_submit(f, small, "steps=1", "");
    fixture_submit(f, urgent, "steps=1", "\"priority\":7");
    fixture_run(f, until_final, urgent);
    /* One core is free and `small` would fit it, but `big` is before it. */
    assert_string_equal(job_state_name(fixture_job(f, running).state), "running");
    assert_string_equal(job_state_name(fixture_job(f, big).state), "queued");
    assert_string_equal(job_state_name(fixture_job(f, small).state), "queued");
    fixture_run(f, until_final, small);
    struct job_row big_row = fixture_job(f, big), small_row = fixture_job(f, small);
    assert_string_equal(job_state_name(big_row.state), "succeeded");
    assert_true(big_row.started_ms >= fixture_job(f, running).finished_ms);
    assert_true(small_row.started_ms >= big_row.started_ms);
}

static void job_that_needs_more_than_there_is_does_not_hold_up_the_queue(void **state)
{
    struct fixture *f = *state;
    char big[STORE_ID_MAX], small[STORE_ID_MAX];
    f->daemon.config.cores = 4; /* it was accepted when there were four */
    fixture_submit(f, big, "steps=1", "\"resources\":{\"ranks\":1,\"threads\":4}");
    fixture_submit(f, small, "steps=1", "");
    f->daemon.config.cores = 2;
    fixture_run(f, until_final, small);
    assert_string_equal(job_state_name(fixture_job(f, small).state), "succeeded");
    assert_string_equal(job_state_name(fixture_job(f, big).state), "paused");
    assert_string_equal(fixture_job(f, big).reason,
                        "it takes 4 cores and 0 GPUs; the daemon has 2 and 0");
}

static bool has_fault(const struct spec_faults *faults, const char *field, const char *part)
{
    for (size_t i = 0; i < faults->count; i++)
        if (strcmp(faults->items[i].field, field) == 0 &&
            strstr(faults->items[i].reason, part) != NULL)
            return true;
    return false;
}

static void admission_reports_every_fault_with_its_field(void **state)
{
    struct fixture *f = *state;
    struct job_spec spec;
    struct err err;
    static struct spec_faults faults;
    char link[128], text[1024];
    snprintf(link, sizeof link, "%s/escape", f->data);
    assert_int_equal(symlink("/etc/passwd", link), 0);
    snprintf(text, sizeof text,
             "{\"data\":{\"train\":[\"corpus.txt\",\"/etc/"
             "hostname\",\"missing.txt\",\"escape\",\"../token\",\"*.txt\",\"%s\"]},"
             "\"model\":{\"init_from\":[\"/etc\"]},"
             "\"resources\":{\"ranks\":2,\"threads\":2},\"train\":{\"batch\":2}}",
             f->data);
    if (spec_parse(&spec, text, strlen(text), NULL, &err) != 0)
        fail_msg("%s", err.text);
    snprintf(link, sizeof link, "%s/token", f->dir);
    assert_int_equal(fsx_publish(link, "secret", 6, 0600, NULL), 0);
    faults.count = 0;
    jobs_admit(f->daemon.jobs, &spec, &faults);
    spec_release(&spec);
    assert_true(has_fault(&faults, "/resources/ranks", "take 4 cores; the daemon has 2"));
    assert_true(has_fault(&faults, "/data/train/1", "not under a data root"));
    assert_true(has_fault(&faults, "/data/train/2", "matches no file"));
    assert_true(has_fault(&faults, "/data/train/3", "through a link"));
    assert_true(has_fault(&faults, "/data/train/4", "'..' is not taken"));
    assert_true(has_fault(&faults, "/model/init_from/0", "not under a data root"));
    assert_int_equal(faults.count, 6);
}

static void submit_under_a_known_key_makes_no_second_folder(void **state)
{
    struct fixture *f = *state;
    struct job_spec spec;
    struct job_row first, second;
    char path[FSX_PATH_MAX];
    bool existing;
    fixture_spec(&spec, "steps=1", "");
    assert_int_equal(jobs_submit(f->daemon.jobs, &spec, "key", "hash", &first, &existing, NULL),
                     0);
    assert_false(existing);
    assert_int_equal(
        jobs_submit(f->daemon.jobs, &spec, "key", "hash", &second, &existing, NULL), 0);
    assert_true(existing);
    assert_string_equal(first.id, second.id);
    assert_int_equal(
        jobs_submit(f->daemon.jobs, &spec, "key", "other", &second, &existing, NULL),
        ERR_CONFLICT);
    spec_release(&spec);
    assert_true(fixture_commit(f));
    assert_int_equal(fsx_path(path, NULL, "%s/jobs", f->dir), 0);
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_nlink, 3); /* ".", "..", one folder */
    fixture_run(f, until_final, first.id);
}

static void failed_commit_takes_the_folder_back(void **state)
{
    struct fixture *f = *state;
    struct job_spec spec;
    struct job_row row;
    char path[FSX_PATH_MAX];
    bool existing;
    fixture_spec(&spec, "steps=1", "");
    assert_int_equal(jobs_submit(f->daemon.jobs, &spec, NULL, NULL, &row, &existing, NULL), 0);
    spec_release(&spec);
    assert_int_equal(jobs_path(f->daemon.jobs, row.id, path, sizeof path, NULL), 0);
    assert_true(fsx_exists(path));
    jobs_after_commit(f->daemon.jobs, false);
    assert_false(fsx_exists(path));
}

static void worker_that_cannot_be_started_fails_with_its_path(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX], missing[] = "/nonexistent/hebb-worker";
    f->daemon.config.worker_path = missing;
    fixture_submit(f, id, "steps=1", "");
    fixture_run(f, until_final, id);
    struct job_row job = fixture_job(f, id);
    assert_string_equal(job_state_name(job.state), "failed");
    assert_non_null(strstr(job.reason, "/nonexistent/hebb-worker: No such file"));
    f->daemon.config.shim_path = missing;
    fixture_submit(f, id, "steps=1", "");
    fixture_run(f, until_final, id);
    assert_string_equal(job_state_name(fixture_job(f, id).state), "failed");
}

int main(int argc, char **argv)
{
    int fake = fake_worker_main(argc, argv);
    if (fake >= 0)
        return fake;
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(submitted_job_runs_and_succeeds_with_all_its_events),
        TEST(failure_is_retried_until_restart_max),
        TEST(retry_after_one_failure_succeeds),
        TEST(codes_that_no_retry_can_help_fail_at_once),
        TEST(code_0_without_a_done_event_is_a_failure),
        TEST(stop_from_outside_queues_the_job_again_and_counts_no_failure),
        TEST(stops_from_outside_without_end_are_a_failure),
        TEST(paused_job_goes_on_from_its_checkpoint),
        TEST(checkpoint_on_request_does_not_stop_the_job),
        TEST(running_job_is_cancelled_through_control),
        TEST(queued_job_is_cancelled_at_once),
        TEST(stop_that_was_overwritten_is_said_again),
        TEST(higher_priority_goes_first_and_nothing_overtakes_the_head),
        TEST(job_that_needs_more_than_there_is_does_not_hold_up_the_queue),
        TEST(admission_reports_every_fault_with_its_field),
        TEST(submit_under_a_known_key_makes_no_second_folder),
        TEST(failed_commit_takes_the_folder_back),
        TEST(worker_that_cannot_be_started_fails_with_its_path),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
