/* The launcher slurm against commands that this test wrote: a queue in a file, whose sbatch
 * runs the batch script on this machine with the fake worker. The real Slurm is met in
 * tests/e2e/slurm.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/slurm_script.h"
#include "tests/daemon/jobs_fixture.h"
#include <signal.h>

/* A line of `queue` is a job; `mode-COMMAND` holds what goes wrong with a command. */
static const char squeue_text[] =
    "#!/bin/bash\n"
    "cd \"${0%/*}\"; echo >>asked\n"
    "[[ -e mode-squeue ]] && { echo 'slurm_load_jobs error: Unable "
    "to contact slurm controller (connect failure)' >&2; exit 1; }\n"
    "cat queue 2>/dev/null; exit 0\n";
static const char sbatch_text[] =
    "#!/bin/bash\n"
    "cd \"${0%/*}\"; mode=$(cat mode-sbatch 2>/dev/null); script=$(cat)\n"
    "printf '%s\\n' \"$@\" >>arguments; echo >>submitted\n"
    "for a; do case $a in --comment=*) key=${a#*=} ;; --chdir=*) at=${a#*=} ;; esac; done\n"
    "[[ $mode == refuse ]] && { echo 'sbatch: error: Batch job submission failed: Invalid qos "
    "specification' >&2; exit 1; }\n"
    "[[ $mode == slow ]] && sleep 1.5\n"
    "n=$((100 + $(wc -l <submitted)))\n"
    "change() { flock lock sed -i \"s/^$n|[A-Z]*|[A-Za-z]*|/$n|$1|$2|/\" queue; }\n"
    "[[ $mode == forget ]] || flock lock sh -c \"echo '$n|PENDING|Resources|$key' >>queue\"\n"
    "run() { change RUNNING None; (cd \"$at\" && bash -c \"$script\" >>slurm.txt 2>&1)\n"
    "        sleep 0.1; change COMPLETED None; }\n"
    "case $mode in forget|pending) ;; *) run </dev/null >/dev/null 2>&1 3>&- & ;; esac\n"
    "[[ $mode == silent ]] && { echo 'sbatch: error: Batch job submission failed: Socket timed "
    "out on send/recv operation' >&2; exit 1; }\n"
    "echo $n\n";
static const char scancel_text[] =
    "#!/bin/bash\n"
    "cd \"${0%/*}\"; echo \"$@\" >>cancelled; n=${@: -1}\n"
    "flock lock sed -i \"s/^$n|PENDING|[A-Za-z]*|/$n|CANCELLED|None|/\" queue\n";
static const char sacct_text[] =
    "#!/bin/bash\ncd \"${0%/*}\"; cat accounts 2>/dev/null || exit 1\n";

static char slurm_dir[128];

static void put(const char *name, const char *text, mode_t mode)
{
    char path[FSX_PATH_MAX];
    assert_int_equal(fsx_path(path, NULL, "%s/%s", slurm_dir, name), 0);
    if (text == NULL)
        unlink(path);
    else
        assert_int_equal(fsx_publish(path, text, strlen(text), mode, NULL), 0);
}

static int lines_of(const char *name)
{
    char path[FSX_PATH_MAX];
    struct buf text;
    int lines = 0;
    buf_init(&text, 1 << 20);
    assert_int_equal(fsx_path(path, NULL, "%s/%s", slurm_dir, name), 0);
    if (fsx_read(&text, path, NULL) == 0)
        for (size_t i = 0; i < text.len; i++)
            lines += text.data[i] == '\n';
    buf_release(&text);
    return lines;
}

static bool file_has(const char *name, const char *words)
{
    char path[FSX_PATH_MAX];
    struct buf text;
    buf_init(&text, 1 << 20);
    bool found = fsx_path(path, NULL, "%s/%s", slurm_dir, name) == 0 &&
                 fsx_read(&text, path, NULL) == 0 && strstr(text.data, words) != NULL;
    buf_release(&text);
    return found;
}

static int setup(void **state)
{
    sigset_t set;
    fixture_setup(state);
    struct fixture *f = *state;
    fixture_stop(f);
    snprintf(slurm_dir, sizeof slurm_dir, "%s/slurm", f->dir);
    assert_int_equal(mkdir(slurm_dir, 0700), 0);
    put("squeue", squeue_text, 0700);
    put("sbatch", sbatch_text, 0700);
    put("scancel", scancel_text, 0700);
    put("sacct", sacct_text, 0700);
    f->daemon.config.slurm = (struct slurm_config){
        .commands = slurm_dir, .poll_ms = 100, .grace_s = 1, .warning_s = 10};
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    fixture_start(f);
    return 0;
}

static int teardown(void **state) { return fixture_teardown(state); }

#define RESOURCES "\"resources\":{\"launcher\":\"slurm\"}"

static void submit(struct fixture *f, char id[STORE_ID_MAX], const char *name, const char *more)
{
    char text[512];
    snprintf(text, sizeof text, RESOURCES "%s%s", more[0] != '\0' ? "," : "", more);
    fixture_submit(f, id, name, text);
}

static void expect(struct fixture *f, const char *id, const char *state)
{
    fixture_run(f, until_final, id);
    if (strcmp(job_state_name(fixture_job(f, id).state), state) != 0)
        fail_msg("%s: %s", job_state_name(fixture_job(f, id).state), fixture_job(f, id).reason);
}

static const char *wanted_reason;

static bool until_reason(struct fixture *f, const char *id)
{
    return strstr(fixture_job(f, id).reason, wanted_reason) != NULL;
}

static void job_runs_as_one_batch_job(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX], words[64];
    submit(f, id, "steps=20,ms=5",
           "\"slurm\":{\"partition\":\"long\",\"time_limit_minutes\":7}");
    assert_int_equal(fixture_job(f, id).cores, 0);
    expect(f, id, "succeeded");
    assert_int_equal(lines_of("submitted"), 1);
    assert_int_equal(fixture_check_events(f, id).starts, 1);
    snprintf(words, sizeof words, "--comment=hebb:%s.1\n", id);
    assert_true(file_has("arguments", words));
    assert_true(file_has("arguments", "--partition=long\n"));
    assert_true(file_has("arguments", "--time=7\n"));
    assert_false(file_has("arguments", "steps=20")); /* nothing that the user named */
}

static void job_that_was_taken_without_an_answer_is_not_submitted_twice(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX];
    put("mode-sbatch", "silent", 0600);
    submit(f, id, "steps=20,ms=5", "");
    expect(f, id, "succeeded");
    assert_int_equal(lines_of("submitted"), 1);
}

static bool until_submitted(struct fixture *f, const char *id)
{
    (void)f;
    (void)id;
    return lines_of("submitted") == 1;
}

static void daemon_that_dies_while_sbatch_runs_does_not_submit_twice(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX];
    put("mode-sbatch", "slow", 0600);
    submit(f, id, "steps=20,ms=5", "");
    fixture_run(f, until_submitted, id);
    fixture_stop(f); /* sbatch goes on, and is not in the queue yet */
    fixture_start(f);
    expect(f, id, "succeeded");
    assert_int_equal(lines_of("submitted"), 1);
    assert_int_equal(fixture_job(f, id).attempt, 1);
}

static void refusal_fails_the_job_with_slurms_words(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX];
    put("mode-sbatch", "refuse", 0600);
    submit(f, id, "steps=20", "\"slurm\":{\"qos\":\"none\"}");
    expect(f, id, "failed");
    assert_non_null(strstr(fixture_job(f, id).reason, "Slurm refuses the job: "));
    assert_non_null(strstr(fixture_job(f, id).reason, "Invalid qos"));
    assert_int_equal(lines_of("submitted"), 1);
}

static void unreachable_is_not_failed(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX];
    submit(f, id, "steps=300,ms=5", "\"restart\":{\"max\":0}");
    fixture_run(f, until_running, id);
    put("mode-squeue", "", 0600);
    wanted_reason = "Slurm does not answer since";
    fixture_run(f, until_reason, id);
    assert_string_equal(job_state_name(fixture_job(f, id).state), "running");
    put("mode-squeue", NULL, 0);
    expect(f, id, "succeeded");
    assert_int_equal(fixture_job(f, id).attempt, 1);
}

static void job_in_the_queue_is_withdrawn_when_it_is_cancelled(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX];
    put("mode-sbatch", "pending", 0600);
    submit(f, id, "steps=20", "");
    wanted_reason = "Slurm job 101 waits: Resources";
    fixture_run(f, until_reason, id);
    fixture_act(f, id, ACTION_CANCEL);
    fixture_run(f, until_final, id);
    assert_string_equal(job_state_name(fixture_job(f, id).state), "cancelled");
    assert_true(file_has("cancelled", "--state=PENDING 101"));
}

static void cancellation_by_somebody_else_is_no_failure_to_retry(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX], line[128];
    put("mode-sbatch", "pending", 0600);
    submit(f, id, "steps=20", "");
    wanted_reason = "waits";
    fixture_run(f, until_reason, id);
    snprintf(line, sizeof line, "101|CANCELLED|None|hebb:%s.1\n", id);
    put("queue", line, 0600);
    expect(f, id, "failed");
    assert_non_null(strstr(fixture_job(f, id).reason, "cancelled in Slurm, not through hebb"));
}

static bool until_submitted_again(struct fixture *f, const char *id)
{
    (void)f;
    (void)id;
    return lines_of("submitted") == 2;
}

static void job_that_slurm_forgot_before_it_began_is_submitted_again(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX];
    put("mode-sbatch", "forget", 0600);
    submit(f, id, "steps=20", "\"restart\":{\"max\":0}");
    fixture_run(f, until_submitted, id);
    put("mode-sbatch", NULL, 0);
    fixture_run(f, until_submitted_again, id);
    expect(f, id, "succeeded");
    assert_int_equal(fixture_job(f, id).attempt, 1);
    assert_int_equal(fixture_job(f, id).failures, 0);
}

static void batch_job_that_dies_without_a_word_is_lost_after_the_grace_time(void **state)
{
    struct fixture *f = *state;
    char id[STORE_ID_MAX], path[FSX_PATH_MAX], line[128];
    struct process_identity shim;
    submit(f, id, "steps=100000,ms=5", "\"restart\":{\"max\":0}");
    fixture_run(f, until_running, id);
    snprintf(line, sizeof line, "101|hebb-%s|NODE_FAIL\n", id);
    put("accounts", line, 0600);
    assert_int_equal(fsx_path(path, NULL, "%s/jobs/%s/attempt-1", f->dir, id), 0);
    assert_int_equal(shim_identity_read(&shim, path, NULL), 0);
    kill(shim.pid, SIGKILL);
    usleep(400 * 1000); /* for the fake sbatch to write COMPLETED */
    put("queue", "", 0600);
    expect(f, id, "failed");
    assert_string_equal(fixture_job(f, id).reason,
                        "attempt 1: lost: Slurm job 101 ended as NODE_FAIL");
}

static void batch_job_of_an_attempt_that_was_given_up_does_nothing(void **state)
{
    struct fixture *f = *state;
    char script[FSX_PATH_MAX + 256], folder[FSX_PATH_MAX];
    assert_int_equal(fsx_path(folder, NULL, "%s/attempt-1", f->dir), 0);
    assert_int_equal(mkdir(folder, 0700), 0);
    put("script", "", 0600);
    snprintf(script, sizeof script,
             "cd %s/attempt-1 && printf '/bin/echo\\nran\\n' >launch && touch shim.json && "
             "bash <%s/real-script 2>&1 | grep -q 'nothing to do' && rm shim.json launch && "
             "bash <%s/real-script 2>&1 | grep -q 'nothing to do' && "
             "printf '/bin/echo\\na b  $HOME\\n' >launch && "
             "test \"$(bash <%s/real-script)\" = 'a b  $HOME'",
             f->dir, slurm_dir, slurm_dir, slurm_dir);
    put("real-script", slurm_script, 0600);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    assert_int_equal(system(script), 0);
}

int main(int argc, char **argv)
{
    int fake = fake_worker_main(argc, argv);
    if (fake >= 0)
        return fake;
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(job_runs_as_one_batch_job),
        TEST(job_that_was_taken_without_an_answer_is_not_submitted_twice),
        TEST(daemon_that_dies_while_sbatch_runs_does_not_submit_twice),
        TEST(refusal_fails_the_job_with_slurms_words),
        TEST(unreachable_is_not_failed),
        TEST(job_in_the_queue_is_withdrawn_when_it_is_cancelled),
        TEST(cancellation_by_somebody_else_is_no_failure_to_retry),
        TEST(job_that_slurm_forgot_before_it_began_is_submitted_again),
        TEST(batch_job_that_dies_without_a_word_is_lost_after_the_grace_time),
        TEST(batch_job_of_an_attempt_that_was_given_up_does_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
