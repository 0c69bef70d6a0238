/* What a daemon that died leaves behind, and what the next one makes of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/daemon/jobs_fixture.h"

#include "daemon/shim.h"
#include "daemon/store_db.h"
#include <errno.h>
#include <sys/ptrace.h>

static void commit_turn(void *context) { fixture_commit(context); }

/* A second process runs the daemon and is killed with SIGKILL after about ms. */
static void run_and_kill(struct fixture *f, int ms)
{
    fixture_stop(f);
    pid_t child = fork();
    if (child == 0) {
        fixture_start(f);
        loop_set_after_turn(f->daemon.loop, commit_turn, f);
        loop_run(f->daemon.loop, NULL);
        _exit(1);
    }
    usleep((useconds_t)ms * 1000);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    fixture_start(f);
}

static pid_t shim_pid(struct fixture *f, const char *id, int attempt)
{
    char path[FSX_PATH_MAX];
    struct process_identity shim = {.pid = 0};
    assert_int_equal(fsx_path(path, NULL, "%s/jobs/%s/attempt-%d", f->dir, id, attempt), 0);
    assert_int_equal(shim_identity_read(&shim, path, NULL), 0);
    return shim.pid;
}

static void job_survives_kill_9_of_the_daemon_and_no_event_is_lost_or_doubled(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX];
    fixture_submit(f, id, "steps=400,ms=3", "");
    for (int i = 0; i < 4; i++) {
        run_and_kill(f, 150 + 70 * i);
        assert_int_equal(fixture_job(f, id).attempt, 1);
    }
    fixture_run(f, until_final, id);
    struct job_row job = fixture_job(f, id);
    assert_string_equal(job_state_name(job.state), "succeeded");
    assert_int_equal(job.attempt, 1); /* the same attempt all along */
    assert_int_equal(job.failures, 0);
    assert_int_equal(fixture_check_events(f, id).count, 402);
}

static void job_that_ended_while_no_daemon_ran_is_taken_over(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX];
    fixture_submit(f, id, "steps=20,ms=5", "");
    fixture_run(f, until_running, id);
    pid_t shim = shim_pid(f, id, 1);
    fixture_stop(f);
    while (waitpid(shim, NULL, 0) < 0 && errno == EINTR)
        ;
    fixture_start(f);
    fixture_run(f, until_final, id);
    assert_string_equal(job_state_name(fixture_job(f, id).state), "succeeded");
    assert_int_equal(fixture_check_events(f, id).count, 22);
}

/* The decision to start was committed, then the daemon died, before or after the fork. */
static void start_that_was_decided_is_carried_out_once(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX];
    fixture_submit(f, id, "steps=50,ms=5", "");
    assert_int_equal(store_job_set_state(f->daemon.store, id, JOB_STARTING, "", NULL), 0);
    assert_int_equal(store_intent_put(f->daemon.store, id, INTENT_START, 1, NULL), 0);
    assert_true(fixture_commit(f));
    fixture_stop(f);
    fixture_start(f);
    fixture_run(f, until_running, id);
    pid_t shim = shim_pid(f, id, 1);
    /* As if the commit after the fork had been lost. */
    struct job_row job = fixture_job(f, id);
    job.attempt = 0;
    assert_int_equal(store_job_update(f->daemon.store, &job, NULL), 0);
    assert_int_equal(store_job_set_state(f->daemon.store, id, JOB_STARTING, "", NULL), 0);
    assert_int_equal(store_intent_put(f->daemon.store, id, INTENT_START, 1, NULL), 0);
    assert_true(fixture_commit(f));
    fixture_stop(f);
    fixture_start(f);
    fixture_run(f, until_final, id);
    assert_int_equal(shim_pid(f, id, 1), shim);
    assert_string_equal(job_state_name(fixture_job(f, id).state), "succeeded");
    assert_int_equal(fixture_check_events(f, id).starts, 1);
}

static bool marked_process_lives(const char *mark)
{
    /* Signal 0 is not offered for marks: look for the fake worker's environment instead. */
    char command[FSX_PATH_MAX + 64];
    snprintf(command, sizeof command, "grep -lsz -F -x '%s' /proc/[0-9]*/environ | grep -q .",
             mark);
    return system(command) == 0;
}

static void killed_shim_is_a_lost_attempt_and_its_processes_are_ended(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX], mark[FSX_PATH_MAX], path[FSX_PATH_MAX];
    fixture_submit(f, id, "steps=100000,ms=5,orphan", "\"restart\":{\"max\":0}");
    fixture_run(f, until_running, id);
    assert_int_equal(fsx_path(mark, NULL, "HEBB_ATTEMPT=%s/jobs/%s/attempt-1", f->dir, id), 0);
    assert_true(marked_process_lives(mark));
    kill(shim_pid(f, id, 1), SIGKILL);
    fixture_run(f, until_final, id);
    struct job_row job = fixture_job(f, id);
    assert_string_equal(job_state_name(job.state), "failed");
    assert_string_equal(job.reason,
                        "attempt 1: lost: the shim ended without writing exit.json");
    for (int i = 0; i < 100 && marked_process_lives(mark); i++)
        usleep(10 * 1000);
    assert_false(marked_process_lives(mark));
    assert_int_equal(fsx_path(path, NULL, "%s/jobs/%s/attempt-1/tmp", f->dir, id), 0);
    assert_false(fsx_exists(path));
    assert_int_equal(fsx_path(path, NULL, "/dev/shm/hebb-%s-1", id), 0);
    assert_false(fsx_exists(path));
}

static void restarted_machine_is_a_failure_that_is_retried(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX], path[FSX_PATH_MAX];
    static const char other[] = "{\"pid\":1234567,\"boot_id\":\"another-boot\",\"started\":"
                                "\"2026-01-01T00:00:00.000Z\",\"start_ticks\":1}\n";
    fixture_submit(f, id, "steps=5", "\"restart\":{\"max\":1,\"backoff_s\":0.01}");
    assert_int_equal(fsx_path(path, NULL, "%s/jobs/%s/attempt-1", f->dir, id), 0);
    assert_int_equal(fsx_mkdirs(path, 0700, NULL), 0);
    assert_int_equal(fsx_path(path, NULL, "%s/jobs/%s/attempt-1/shim.json", f->dir, id), 0);
    assert_int_equal(fsx_publish(path, other, sizeof other - 1, 0600, NULL), 0);
    struct job_row job = fixture_job(f, id);
    job.attempt = 1;
    assert_int_equal(store_job_update(f->daemon.store, &job, NULL), 0);
    assert_int_equal(store_attempt_begin(f->daemon.store, id, 1, NULL), 0);
    assert_int_equal(store_job_set_state(f->daemon.store, id, JOB_RUNNING, "", NULL), 0);
    assert_true(fixture_commit(f));
    fixture_stop(f);
    fixture_start(f);
    fixture_run(f, until_final, id);
    job = fixture_job(f, id);
    assert_string_equal(job_state_name(job.state), "succeeded");
    assert_int_equal(job.attempt, 2);
    assert_int_equal(job.failures, 1);
}

static void folder_that_is_gone_fails_that_job_alone(void **state)
{
    struct fixture *f = *state;
    char gone[STORE_ID_MAX], other[STORE_ID_MAX], path[FSX_PATH_MAX];
    fixture_submit(f, gone, "steps=5", "\"restart\":{\"max\":0}");
    assert_int_equal(store_job_set_state(f->daemon.store, gone, JOB_RUNNING, "", NULL), 0);
    fixture_submit(f, other, "steps=5", "");
    assert_int_equal(jobs_path(f->daemon.jobs, gone, path, sizeof path, NULL), 0);
    assert_int_equal(fsx_remove_tree(path, NULL), 0);
    fixture_stop(f);
    fixture_start(f);
    fixture_run(f, until_final, gone);
    assert_string_equal(job_state_name(fixture_job(f, gone).state), "failed");
    assert_string_equal(fixture_job(f, gone).reason,
                        "attempt 0: lost: the job's folder is gone");
    fixture_run(f, until_final, other);
    assert_string_equal(job_state_name(fixture_job(f, other).state), "succeeded");
}

static void damaged_record_fails_that_job_alone_and_does_not_stop_the_start(void **state)
{
    struct fixture *f = *state;
    char good[STORE_ID_MAX];
    struct job_row bad = {.id = "00000000000000ff",
                          .name = "bad",
                          .state = JOB_QUEUED,
                          .cores = 1},
                   launched = bad;
    bool existing;
    log_setup("test", LOG_LEVEL_ERROR + 1); /* two errors are logged, as they should be */
    strcpy(launched.id, "00000000000000fe");
    assert_int_equal(
        store_job_insert(f->daemon.store, &bad, "{\"resources\":", NULL, NULL, &existing, NULL),
        0);
    assert_int_equal(
        store_job_insert(f->daemon.store, &launched, "{}", NULL, NULL, &existing, NULL), 0);
    assert_int_equal(store_job_set_state(f->daemon.store, launched.id, JOB_RUNNING, "", NULL),
                     0);
    fixture_submit(f, good, "steps=5", "");
    fixture_stop(f);
    fixture_start(f);
    fixture_run(f, until_final, bad.id);
    fixture_run(f, until_final, launched.id);
    fixture_run(f, until_final, good);
    assert_string_equal(job_state_name(fixture_job(f, bad.id).state), "failed");
    assert_non_null(strstr(fixture_job(f, bad.id).reason, "the stored spec is damaged"));
    assert_string_equal(job_state_name(fixture_job(f, launched.id).state), "failed");
    assert_string_equal(job_state_name(fixture_job(f, good).state), "succeeded");
}

static void job_whose_record_is_damaged_while_it_runs_leaves_no_process(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX], mark[FSX_PATH_MAX];
    log_setup("test", LOG_LEVEL_ERROR + 1);
    fixture_submit(f, id, "steps=100000,ms=5", "");
    fixture_run(f, until_running, id);
    assert_int_equal(fsx_path(mark, NULL, "HEBB_ATTEMPT=%s/jobs/%s/attempt-1", f->dir, id), 0);
    assert_true(marked_process_lives(mark));
    assert_int_equal(store_db_exec(&f->daemon.store->state, "UPDATE jobs SET spec='{}'", NULL),
                     0);
    fixture_stop(f);
    fixture_start(f);
    fixture_run(f, until_final, id);
    assert_string_equal(job_state_name(fixture_job(f, id).state), "failed");
    for (int i = 0; i < 200 && marked_process_lives(mark); i++)
        usleep(10 * 1000);
    assert_false(marked_process_lives(mark));
}

static void pause_asked_for_before_the_start_leaves_nothing_running(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX];
    fixture_submit(f, id, "steps=5", "");
    assert_int_equal(store_job_set_state(f->daemon.store, id, JOB_STARTING, "", NULL), 0);
    assert_int_equal(store_intent_put(f->daemon.store, id, INTENT_START, 1, NULL), 0);
    fixture_act(f, id, ACTION_PAUSE);
    fixture_stop(f);
    fixture_start(f);
    fixture_run(f, until_paused, id);
    assert_int_equal(fixture_job(f, id).attempt, 0);
    fixture_act(f, id, ACTION_RESUME);
    fixture_run(f, until_final, id);
    assert_int_equal(fixture_job(f, id).attempt, 1);
}

static void stop_is_still_wanted_after_a_restart_of_the_daemon(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX];
    fixture_submit(f, id, "steps=100000,ms=5", "");
    fixture_run(f, until_running, id);
    fixture_act(f, id, ACTION_CANCEL); /* committed, and the daemon dies before it acts */
    fixture_stop(f);
    fixture_start(f);
    fixture_run(f, until_final, id);
    assert_string_equal(job_state_name(fixture_job(f, id).state), "cancelled");
}

/* The fork was made, the commit after it was lost, and then the user cancels. */
static void cancel_reaches_an_attempt_whose_start_was_not_written_down(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX], mark[FSX_PATH_MAX];
    fixture_submit(f, id, "steps=100000,ms=5", "");
    fixture_run(f, until_running, id);
    assert_int_equal(fsx_path(mark, NULL, "HEBB_ATTEMPT=%s/jobs/%s/attempt-1", f->dir, id), 0);
    struct job_row job = fixture_job(f, id);
    job.attempt = 0;
    assert_int_equal(store_job_update(f->daemon.store, &job, NULL), 0);
    assert_int_equal(store_job_set_state(f->daemon.store, id, JOB_STARTING, "", NULL), 0);
    assert_int_equal(store_intent_put(f->daemon.store, id, INTENT_START, 1, NULL), 0);
    assert_true(fixture_commit(f));
    fixture_stop(f);
    fixture_start(f);
    fixture_act(f, id, ACTION_CANCEL);
    fixture_run(f, until_final, id);
    assert_string_equal(job_state_name(fixture_job(f, id).state), "cancelled");
    assert_int_equal(fixture_job(f, id).attempt, 1);
    for (int i = 0; i < 100 && marked_process_lives(mark); i++)
        usleep(10 * 1000);
    assert_false(marked_process_lives(mark));
}

static void stopped_shim_is_woken_and_nothing_is_lost(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX];
    f->daemon.config.shim_silent_s = 2;
    fixture_submit(f, id, "steps=20,ms=5", "");
    fixture_run(f, until_running, id);
    kill(shim_pid(f, id, 1), SIGSTOP);
    fixture_run(f, until_final, id);
    assert_string_equal(job_state_name(fixture_job(f, id).state), "succeeded");
    assert_int_equal(fixture_job(f, id).attempt, 1);
}

/* Held by a debugger, which SIGCONT does not change: as one that hangs in the kernel. */
static void shim_that_cannot_be_woken_is_killed_and_the_job_goes_on(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX];
    log_setup("test", LOG_LEVEL_ERROR + 1);
    f->daemon.config.shim_silent_s = 2;
    fixture_submit(f, id, "steps=50,ms=5", "\"restart\":{\"max\":1,\"backoff_s\":0.01}");
    fixture_run(f, until_running, id);
    pid_t shim = shim_pid(f, id, 1);
    assert_int_equal(ptrace(PTRACE_SEIZE, shim, NULL, NULL), 0);
    assert_int_equal(ptrace(PTRACE_INTERRUPT, shim, NULL, NULL), 0);
    fixture_run(f, until_final, id);
    assert_string_equal(job_state_name(fixture_job(f, id).state), "succeeded");
    assert_int_equal(fixture_job(f, id).attempt, 2);
}

static void damaged_rows_are_failed_and_shown(void **state)
{
    struct fixture *f = *state;
    char bad[STORE_ID_MAX], worse[STORE_ID_MAX], good[STORE_ID_MAX];
    log_setup("test", LOG_LEVEL_ERROR + 1);
    fixture_submit(f, bad, "steps=5", "");
    fixture_submit(f, worse, "steps=5", "");
    fixture_submit(f, good, "steps=5", "");
    char sql[256];
    snprintf(sql, sizeof sql,
             "UPDATE jobs SET state='dancing' WHERE id='%s'; UPDATE jobs SET cores=-5 WHERE "
             "id='%s'",
             bad, worse);
    assert_int_equal(store_db_exec(&f->daemon.store->state, sql, NULL), 0);
    fixture_stop(f);
    fixture_start(f);
    fixture_run(f, until_final, good);
    assert_string_equal(job_state_name(fixture_job(f, good).state), "succeeded");
    assert_string_equal(job_state_name(fixture_job(f, bad).state), "failed");
    assert_string_equal(fixture_job(f, bad).reason,
                        "its record in state.db was damaged (state 'dancing')");
    assert_string_equal(job_state_name(fixture_job(f, worse).state), "failed");
    assert_true(fixture_job(f, bad).finished_ms > 0);
}

static void folders_of_submits_that_were_never_acknowledged_go(void **state)
{
    struct fixture *f = *state;
    char path[FSX_PATH_MAX];
    static const char *const kept = "aaaaaaaaaaaaaaaa", *const gone = "bbbbbbbbbbbbbbbb";
    for (int i = 0; i < 2; i++) {
        assert_int_equal(fsx_path(path, NULL, "%s/jobs/%s%s", f->dir, i == 0 ? kept : gone,
                                  i == 0 ? "/attempt-1" : ""),
                         0);
        assert_int_equal(fsx_mkdirs(path, 0700, NULL), 0);
        assert_int_equal(
            fsx_path(path, NULL, "%s/jobs/%s/spec.json", f->dir, i == 0 ? kept : gone), 0);
        assert_int_equal(fsx_publish(path, "{}", 2, 0600, NULL), 0);
    }
    fixture_stop(f);
    fixture_start(f);
    assert_int_equal(fsx_path(path, NULL, "%s/jobs/%s", f->dir, gone), 0);
    assert_false(fsx_exists(path));
    assert_int_equal(fsx_path(path, NULL, "%s/jobs/%s", f->dir, kept), 0);
    assert_true(fsx_exists(path));
}

int main(int argc, char **argv)
{
    int fake = fake_worker_main(argc, argv);
    if (fake >= 0)
        return fake;
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(job_survives_kill_9_of_the_daemon_and_no_event_is_lost_or_doubled),
        TEST(job_that_ended_while_no_daemon_ran_is_taken_over),
        TEST(start_that_was_decided_is_carried_out_once),
        TEST(killed_shim_is_a_lost_attempt_and_its_processes_are_ended),
        TEST(restarted_machine_is_a_failure_that_is_retried),
        TEST(folder_that_is_gone_fails_that_job_alone),
        TEST(damaged_record_fails_that_job_alone_and_does_not_stop_the_start),
        TEST(job_whose_record_is_damaged_while_it_runs_leaves_no_process),
        TEST(pause_asked_for_before_the_start_leaves_nothing_running),
        TEST(stop_is_still_wanted_after_a_restart_of_the_daemon),
        TEST(cancel_reaches_an_attempt_whose_start_was_not_written_down),
        TEST(stopped_shim_is_woken_and_nothing_is_lost),
        TEST(shim_that_cannot_be_woken_is_killed_and_the_job_goes_on),
        TEST(damaged_rows_are_failed_and_shown),
        TEST(folders_of_submits_that_were_never_acknowledged_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
