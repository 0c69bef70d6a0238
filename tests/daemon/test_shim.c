#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/shim.h"
#include "proto/base/clock.h"
#include "proto/base/fsx.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

/* The folder plays a job folder: hebb-shim runs /bin/sh scripts in it. */
struct fixture {
    char dir[64], attempt[96], shim[FSX_PATH_MAX];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    strcpy(f->dir, "/tmp/hebb-shim-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->attempt, sizeof f->attempt, "%s/attempt-1", f->dir);
    snprintf(f->shim, sizeof f->shim, "%s/bin/hebb-shim", HEBB_BINARY_DIR);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    fsx_remove_tree(f->dir, NULL);
    free(f);
    return 0;
}

/* option: a further one with its value. */
static pid_t start_with(struct fixture *f, const char *ranks, const char *option,
                        const char *value, const char *script)
{
    pid_t pid = fork();
    if (pid == 0) {
        setenv("SECRET_OF_THE_DAEMON", "1", 1);
        execl(f->shim, f->shim, "--folder", f->dir, "--attempt", "1", "--ranks", ranks, option,
              value, "--", "/bin/sh", "-c", script, (char *)NULL);
        _exit(127);
    }
    assert_true(pid > 0);
    return pid;
}

static pid_t start(struct fixture *f, const char *ranks, const char *grace, const char *script)
{
    return start_with(f, ranks, "--grace", grace, script);
}

static struct shim_exit finish(struct fixture *f, pid_t pid)
{
    int status;
    struct shim_exit end;
    struct err err;
    while (waitpid(pid, &status, 0) < 0)
        assert_int_equal(errno, EINTR);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    if (shim_exit_read(&end, f->attempt, &err) != 0)
        fail_msg("%s", err.text);
    return end;
}

static struct shim_exit run(struct fixture *f, const char *ranks, const char *script)
{
    return finish(f, start(f, ranks, "60", script));
}

static char *log_text(struct fixture *f, struct buf *text)
{
    char path[FSX_PATH_MAX];
    buf_init(text, 1 << 20);
    assert_int_equal(fsx_path(path, NULL, "%s/log.txt", f->attempt), 0);
    assert_int_equal(fsx_read(text, path, NULL), 0);
    return text->data;
}

static void wait_for(const char *format, const char *name)
{
    char path[FSX_PATH_MAX];
    assert_int_equal(fsx_path(path, NULL, "%s/%s", format, name), 0);
    for (int i = 0; i < 500 && !fsx_exists(path); i++)
        usleep(10 * 1000);
    assert_true(fsx_exists(path));
}

static void exit_code_becomes_exit_json(void **state)
{
    struct fixture *f = *state;
    struct shim_exit end = run(f, "1", "echo to stdout; echo to stderr >&2; exit 3");
    assert_int_equal(end.code, 3);
    assert_int_equal(end.signal, 0);
    assert_int_equal(end.rank, 0);
    assert_string_equal(end.reason, "exit code 3");
    struct buf text;
    assert_string_equal(log_text(f, &text), "to stdout\nto stderr\n");
    buf_release(&text);
}

static void codes_0_and_75_have_their_own_reasons(void **state)
{
    struct fixture *f = *state;
    struct shim_exit end = run(f, "1", "exit 0");
    assert_int_equal(end.code, 0);
    assert_int_equal(end.rank, -1);
    assert_string_equal(end.reason, "done");
    end = run(f, "1", "exit 75");
    assert_int_equal(end.code, 75);
    assert_string_equal(end.reason, "stopped");
}

static void signal_becomes_exit_json(void **state)
{
    struct fixture *f = *state;
    struct shim_exit end = run(f, "1", "kill -SEGV $$");
    assert_int_equal(end.code, 128 + SIGSEGV);
    assert_int_equal(end.signal, SIGSEGV);
    assert_int_equal(end.rank, 0);
    assert_string_equal(end.reason, "rank 0 was killed by signal 11");
}

static void words_of_mpirun_name_the_rank_that_was_killed(void **state)
{
    struct fixture *f = *state;
    struct shim_exit end = run(f, "2",
                               "echo 'mpirun noticed that process rank 1 with PID 0 on node vm "
                               "exited on signal 9 (Killed).'; exit 137");
    assert_int_equal(end.code, 137);
    assert_int_equal(end.signal, 9);
    assert_int_equal(end.rank, 1);
    assert_string_equal(end.reason, "rank 1 was killed by signal 9");
}

static void first_error_file_gives_rank_and_reason(void **state)
{
    struct fixture *f = *state;
    struct shim_exit end =
        run(f, "2",
            "cd attempt-1; w() { echo "
            "\"{\\\"code\\\":3,\\\"rank\\\":$1,\\\"error\\\":\\\"invalid\\\",\\\"message\\\":"
            "\\\"rank $1 says\\\"}\" >error-$1.json; };"
            "w 3; w 0; echo '{broken' >error-1.json; touch -d '2001-01-01' error-1.json "
            "error-3.json; exit 3");
    assert_int_equal(end.code, 3);
    assert_int_equal(end.rank, 3); /* the earlier one that can be read, not the lowest rank */
    assert_string_equal(end.reason, "rank 3 says");
}

static void environment_is_made_from_nothing(void **state)
{
    struct fixture *f = *state;
    struct buf text;
    assert_int_equal(run(f, "1", "env; pwd; ls -l /proc/self/fd/0").code, 0);
    log_text(f, &text);
    assert_null(strstr(text.data, "SECRET_OF_THE_DAEMON"));
    assert_non_null(strstr(text.data, "PATH=/usr/local/bin:/usr/bin:/bin\n"));
    char expected[256];
    snprintf(expected, sizeof expected, "TMPDIR=%s/tmp\n", f->attempt);
    assert_non_null(strstr(text.data, expected));
    snprintf(expected, sizeof expected, "HEBB_ATTEMPT=%s\n", f->attempt);
    assert_non_null(strstr(text.data, expected));
    snprintf(expected, sizeof expected, "\n%s\n", f->dir); /* the working folder */
    assert_non_null(strstr(text.data, expected));
    assert_non_null(strstr(text.data, "/dev/null"));
    buf_release(&text);
}

static void lock_is_held_exactly_as_long_as_the_attempt_lives(void **state)
{
    struct fixture *f = *state;
    char lock[128];
    bool held;
    pid_t pid = start(f, "1", "60", "touch ready; while [ ! -e go ]; do sleep 0.02; done");
    wait_for(f->dir, "ready");
    snprintf(lock, sizeof lock, "%s/lock", f->attempt);
    assert_int_equal(fsx_lock_held(&held, lock, NULL), 0);
    assert_true(held);
    struct process_identity shim;
    bool lives;
    assert_int_equal(shim_identity_read(&shim, f->attempt, NULL), 0);
    assert_int_equal(shim.pid, pid);
    assert_int_equal(process_signal(&shim, 0, &lives, NULL), 0);
    assert_true(lives);
    shim.start_ticks++; /* another process that was given the number */
    assert_int_equal(process_signal(&shim, SIGKILL, &lives, NULL), 0);
    assert_false(lives);
    char go[128];
    snprintf(go, sizeof go, "%s/go", f->dir);
    assert_int_equal(fsx_publish(go, "", 0, 0600, NULL), 0);
    finish(f, pid);
    assert_int_equal(fsx_lock_held(&held, lock, NULL), 0);
    assert_false(held);
}

static void second_shim_of_the_same_attempt_is_refused(void **state)
{
    struct fixture *f = *state;
    pid_t pid = start(f, "1", "60", "touch ready; while [ ! -e go ]; do sleep 0.02; done"),
          second;
    int status;
    wait_for(f->dir, "ready");
    second = fork();
    if (second == 0) {
        fclose(stderr);
        execl(f->shim, f->shim, "--folder", f->dir, "--attempt", "1", "--", "/bin/touch",
              "second", (char *)NULL);
        _exit(127);
    }
    assert_int_equal(waitpid(second, &status, 0), second);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != 127);
    char path[128];
    snprintf(path, sizeof path, "%s/second", f->dir);
    assert_false(fsx_exists(path));
    snprintf(path, sizeof path, "%s/go", f->dir);
    assert_int_equal(fsx_publish(path, "", 0, 0600, NULL), 0);
    assert_int_equal(finish(f, pid).code, 0);
}

static void sigterm_reaches_the_program_as_sigusr1(void **state)
{
    struct fixture *f = *state;
    pid_t pid =
        start(f, "1", "60", "trap 'exit 75' USR1; touch ready; while :; do sleep 0.02; done");
    wait_for(f->dir, "ready");
    kill(pid, SIGTERM);
    struct shim_exit end = finish(f, pid);
    assert_int_equal(end.code, 75);
    assert_string_equal(end.reason, "stopped");
}

static void second_sigterm_kills(void **state)
{
    struct fixture *f = *state;
    pid_t pid =
        start(f, "1", "60", "trap '' USR1 TERM; touch ready; while :; do sleep 0.02; done");
    wait_for(f->dir, "ready");
    kill(pid, SIGTERM);
    usleep(200 * 1000);
    kill(pid, SIGTERM);
    struct shim_exit end = finish(f, pid);
    assert_int_equal(end.signal, SIGKILL);
    assert_string_equal(end.reason, "killed on request");
}

static void program_that_does_not_stop_in_time_is_killed(void **state)
{
    struct fixture *f = *state;
    pid_t pid =
        start(f, "1", "1", "trap '' USR1 TERM; touch ready; while :; do sleep 0.02; done");
    wait_for(f->dir, "ready");
    int64_t before = clock_monotonic_ms();
    kill(pid, SIGTERM);
    struct shim_exit end = finish(f, pid);
    assert_int_equal(end.signal, SIGKILL);
    assert_string_equal(end.reason, "killed: it did not stop in time");
    assert_true(clock_monotonic_ms() - before >= 900);
}

static bool lives(struct fixture *f, const char *name)
{
    char path[128];
    struct buf text;
    snprintf(path, sizeof path, "%s/%s", f->dir, name);
    buf_init(&text, 64);
    assert_int_equal(fsx_read(&text, path, NULL), 0);
    pid_t pid = (pid_t)strtol(text.data, NULL, 10);
    buf_release(&text);
    assert_true(pid > 1);
    return kill(pid, 0) == 0;
}

static void grandchildren_of_other_sessions_are_ended_with_the_attempt(void **state)
{
    struct fixture *f = *state;
    struct shim_exit end = run(f, "1",
                               "setsid sh -c 'trap \"\" TERM HUP; echo $$ >a; sleep 600' & "
                               "(setsid sleep 600 & echo $! >b) &"
                               " while [ ! -s a ] || [ ! -s b ]; do sleep 0.02; done; exit 0");
    assert_int_equal(end.code, 0);
    assert_false(lives(f, "a"));
    assert_false(lives(f, "b"));
}

static void killed_shim_takes_its_program_along(void **state)
{
    struct fixture *f = *state;
    pid_t pid = start(f, "1", "60", "echo $$ >a; touch ready; while :; do sleep 0.02; done");
    wait_for(f->dir, "ready");
    assert_true(lives(f, "a"));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    for (int i = 0; i < 200 && lives(f, "a"); i++)
        usleep(10 * 1000);
    assert_false(lives(f, "a"));
    struct shim_exit end;
    assert_int_equal(shim_exit_read(&end, f->attempt, NULL), ERR_NOT_FOUND);
    struct shim_paths paths; /* what the daemon does for a lost attempt */
    assert_int_equal(shim_paths(&paths, f->dir, 1, NULL), 0);
    assert_true(fsx_exists(paths.tmp) && fsx_exists(paths.shm));
    assert_int_equal(shim_clean(&paths, NULL), 0);
    assert_false(fsx_exists(paths.tmp) || fsx_exists(paths.shm));
}

static void log_keeps_its_beginning_and_its_end(void **state)
{
    struct fixture *f = *state;
    struct buf text;
    pid_t pid =
        start_with(f, "1", "--log-bytes", "4096",
                   "echo first; i=0; while [ $i -lt 4000 ]; do echo \"$i: a line of the "
                   "middle that is not worth much\"; i=$((i + 1)); done; echo last");
    assert_int_equal(finish(f, pid).code, 0);
    char *log = log_text(f, &text);
    assert_true(text.len > 4096 + SHIM_LOG_TAIL && text.len < 4096 + SHIM_LOG_TAIL + 200);
    assert_int_equal(strncmp(log, "first\n0: a line", 15), 0);
    assert_non_null(strstr(log, "[hebb-shim: the log is full; "));
    assert_string_equal(log + text.len - 5, "last\n");
    buf_release(&text);
}

static void log_that_fits_is_kept_whole(void **state)
{
    struct fixture *f = *state;
    struct buf text;
    pid_t pid =
        start_with(f, "1", "--log-bytes", "4096",
                   "i=0; while [ $i -lt 1000 ]; do echo \"line $i\"; i=$((i + 1)); done");
    assert_int_equal(finish(f, pid).code, 0);
    const char *log = log_text(f, &text);
    char line[32];
    for (int i = 0; i < 1000; i++) {
        snprintf(line, sizeof line, "line %d\n", i);
        assert_int_equal(strncmp(log, line, strlen(line)), 0);
        log += strlen(line);
    }
    assert_string_equal(log, "");
    buf_release(&text);
}

static void rank_without_a_heartbeat_is_named_and_ends_the_attempt(void **state)
{
    struct fixture *f = *state;
    pid_t pid = start_with(f, "2", "--hung", "1",
                           "echo '{\"progress\": 1}' >attempt-1/heartbeat-1; n=0; while :; do "
                           "n=$((n + 1)); echo \"{\\\"progress\\\": $n}\" "
                           ">attempt-1/heartbeat-0; sleep 0.1; done");
    struct shim_exit end = finish(f, pid);
    assert_int_equal(end.code, 1);
    assert_int_equal(end.rank, 1);
    assert_string_equal(end.reason, "rank 1 hung: no heartbeat for 1 s");
}

static void ranks_with_heartbeats_are_left_alone(void **state)
{
    struct fixture *f = *state;
    pid_t pid = start_with(f, "2", "--hung", "2",
                           "for n in 1 2 3 4 5 6 7 8 9; do for r in 0 1; do echo "
                           "\"{\\\"progress\\\": $n}\" >attempt-1/heartbeat-$r; done; "
                           "sleep 0.4; done; rm attempt-1/heartbeat-*; sleep 3; exit 75");
    assert_int_equal(finish(f, pid).code, 75);
}

static void attempt_without_progress_is_ended(void **state)
{
    struct fixture *f = *state;
    pid_t pid = start_with(f, "1", "--stalled", "2",
                           "while :; do echo '{\"progress\": 7}' >attempt-1/heartbeat-0; "
                           "sleep 0.1; done");
    struct shim_exit end = finish(f, pid);
    assert_int_equal(end.code, SIGKILL + 128);
    assert_string_equal(end.reason, "stalled: no rank made progress for 2 s");
}

static void mpirun_that_was_stopped_is_woken(void **state)
{
    struct fixture *f = *state;
    struct buf text;
    assert_int_equal(run(f, "2", "kill -STOP $$; exit 75").code, 75);
    assert_non_null(strstr(log_text(f, &text), "mpirun was stopped by signal 19; it is woken"));
    buf_release(&text);
}

static void lock_shows_that_the_shim_lives(void **state)
{
    struct fixture *f = *state;
    char lock[128];
    struct stat first, then;
    pid_t pid = start(f, "1", "60", "touch ready; sleep 600");
    wait_for(f->dir, "ready");
    snprintf(lock, sizeof lock, "%s/lock", f->attempt);
    assert_int_equal(stat(lock, &first), 0);
    for (int i = 0; i < 1000; i++) {
        usleep(10 * 1000);
        assert_int_equal(stat(lock, &then), 0);
        if (memcmp(&then.st_mtim, &first.st_mtim, sizeof then.st_mtim) != 0)
            break;
    }
    assert_memory_not_equal(&then.st_mtim, &first.st_mtim, sizeof then.st_mtim);
    kill(pid, SIGQUIT);
    assert_string_equal(finish(f, pid).reason, "killed on request");
}

static void program_that_does_not_exist_is_code_5_with_its_name(void **state)
{
    struct fixture *f = *state;
    pid_t pid = fork();
    if (pid == 0) {
        execl(f->shim, f->shim, "--folder", f->dir, "--attempt", "1", "--", "no-such-mpirun",
              (char *)NULL);
        _exit(127);
    }
    struct shim_exit end = finish(f, pid);
    assert_int_equal(end.code, 5);
    assert_string_equal(end.reason, "start no-such-mpirun: No such file or directory");
}

static void damaged_exit_json_is_an_error_and_not_an_answer(void **state)
{
    struct fixture *f = *state;
    static const char *const texts[] = {
        "",
        "{",
        "{\"code\":0}",
        "{\"code\":\"0\",\"signal\":0,\"rank\":-1,\"reason\":\"done\"}",
        "{\"code\":256,\"signal\":0,\"rank\":-1,\"reason\":\"done\"}",
        "{\"code\":0,\"signal\":0,\"rank\":-2,\"reason\":\"done\"}"};
    char path[128];
    struct shim_exit end;
    assert_int_equal(fsx_mkdirs(f->attempt, 0700, NULL), 0);
    snprintf(path, sizeof path, "%s/exit.json", f->attempt);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        assert_int_equal(fsx_publish(path, texts[i], strlen(texts[i]), 0600, NULL), 0);
        int code = shim_exit_read(&end, f->attempt, NULL);
        assert_true(code != 0 && code != ERR_NOT_FOUND);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(exit_code_becomes_exit_json),
        TEST(codes_0_and_75_have_their_own_reasons),
        TEST(signal_becomes_exit_json),
        TEST(words_of_mpirun_name_the_rank_that_was_killed),
        TEST(first_error_file_gives_rank_and_reason),
        TEST(environment_is_made_from_nothing),
        TEST(lock_is_held_exactly_as_long_as_the_attempt_lives),
        TEST(second_shim_of_the_same_attempt_is_refused),
        TEST(sigterm_reaches_the_program_as_sigusr1),
        TEST(second_sigterm_kills),
        TEST(program_that_does_not_stop_in_time_is_killed),
        TEST(grandchildren_of_other_sessions_are_ended_with_the_attempt),
        TEST(killed_shim_takes_its_program_along),
        TEST(log_keeps_its_beginning_and_its_end),
        TEST(log_that_fits_is_kept_whole),
        TEST(rank_without_a_heartbeat_is_named_and_ends_the_attempt),
        TEST(ranks_with_heartbeats_are_left_alone),
        TEST(attempt_without_progress_is_ended),
        TEST(mpirun_that_was_stopped_is_woken),
        TEST(lock_shows_that_the_shim_lives),
        TEST(program_that_does_not_exist_is_code_5_with_its_name),
        TEST(damaged_exit_json_is_an_error_and_not_an_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
