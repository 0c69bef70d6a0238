/* Programs that the daemon calls: nothing of them blocks, and nothing of the daemon gets
 * through. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/call.h"
#include "proto/base/clock.h"
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

struct fixture {
    struct loop *loop;
    struct calls *calls;
    int signals, answers, ticks;
    struct call_answer answer;
    char out[4096];
};

static void on_child(void *context, int fd)
{
    struct fixture *f = context;
    struct signalfd_siginfo info;
    int status;
    pid_t pid;
    while (read(fd, &info, sizeof info) > 0)
        ;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        calls_reaped(f->calls, pid, status);
}

static void on_tick(void *context) { ((struct fixture *)context)->ticks++; }

static void on_answer(void *context, const struct call_answer *answer)
{
    struct fixture *f = context;
    f->answer = *answer;
    snprintf(f->out, sizeof f->out, "%s", answer->out);
    f->answers++;
    loop_stop(f->loop);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    f->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    assert_int_equal(loop_create(&f->loop, NULL), 0);
    assert_int_equal(calls_create(&f->calls, f->loop, NULL), 0);
    assert_int_equal(loop_add_fd(f->loop, f->signals, on_child, f, NULL), 0);
    loop_add_timer(f->loop, 10, on_tick, f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    calls_destroy(f->calls);
    loop_destroy(f->loop);
    close(f->signals);
    free(f);
    return 0;
}

static void run(struct fixture *f, const char *script, const char *input, int keep_fd,
                int64_t timeout_ms)
{
    static const char *const environment[] = {"ONLY=this", NULL};
    const char *const argv[] = {"/bin/sh", "-c", script, NULL};
    struct call call = {.argv = argv,
                        .environment = environment,
                        .input = input,
                        .keep_fd = keep_fd,
                        .timeout_ms = timeout_ms,
                        .done = on_answer,
                        .context = f};
    assert_int_equal(calls_start(f->calls, &call, NULL), 0);
    assert_int_equal(f->answers, 0); /* never from inside */
    assert_int_equal(loop_run(f->loop, NULL), 0);
    assert_int_equal(f->answers, 1);
}

static void answer_holds_code_output_and_the_first_line_of_errors(void **state)
{
    struct fixture *f = *state;
    run(f, "cat; echo one >&2; echo two >&2; exit 3", "to stdin\n", -1, 10000);
    assert_int_equal(f->answer.code, 3);
    assert_string_equal(f->out, "to stdin\n");
    assert_string_equal(f->answer.trouble, "one");
}

static void environment_and_descriptors_are_made_from_nothing(void **state)
{
    struct fixture *f = *state;
    setenv("SECRET", "x", 1);
    int open_by_chance = open("/dev/null", O_RDONLY);
    run(f, "/usr/bin/env; for fd in /proc/self/fd/*; do echo \"${fd##*/}\"; done", NULL, -1,
        10000);
    close(open_by_chance);
    assert_null(strstr(f->out, "SECRET"));
    assert_non_null(strstr(f->out, "ONLY=this"));
    assert_non_null(strstr(f->out, "\n0\n1\n2\n"));
    assert_null(strstr(f->out, "\n4\n"));
    assert_null(strstr(f->out, "\n5\n"));
}

static void descriptor_that_is_kept_is_the_third(void **state)
{
    struct fixture *f = *state;
    char path[] = "/tmp/hebb-call-XXXXXX";
    int fd = mkstemp(path);
    assert_int_equal(write(fd, "kept", 4), 4);
    lseek(fd, 0, SEEK_SET);
    run(f, "cat <&3", NULL, fd, 10000);
    assert_string_equal(f->out, "kept");
    close(fd);
    unlink(path);
}

static void program_that_hangs_is_ended_while_the_loop_turns(void **state)
{
    struct fixture *f = *state;
    int64_t began = clock_monotonic_ms();
    run(f, "sleep 60 & sleep 60; echo no", NULL, -1, 300);
    assert_int_equal(f->answer.code, -1);
    assert_string_equal(f->answer.trouble, "no answer in time");
    assert_true(clock_monotonic_ms() - began < 30000);
    assert_true(f->ticks >= 3); /* others were served meanwhile */
}

static void output_without_end_is_ended(void **state)
{
    struct fixture *f = *state;
    run(f, "while :; do echo 0123456789012345678901234567890123456789; done | cat", NULL, -1,
        60000);
    assert_int_equal(f->answer.code, -1);
    assert_non_null(strstr(f->answer.trouble, "longer than"));
}

static void program_that_is_not_there_is_an_error(void **state)
{
    struct fixture *f = *state;
    const char *const argv[] = {"/nowhere/squeue", NULL}, *const none[] = {NULL};
    struct call call = {.argv = argv, .environment = none, .keep_fd = -1, .done = on_answer};
    struct err err;
    assert_int_equal(calls_start(f->calls, &call, &err), ERR_NOT_FOUND);
    assert_string_equal(err.text, "start /nowhere/squeue: No such file or directory");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(answer_holds_code_output_and_the_first_line_of_errors),
        TEST(environment_and_descriptors_are_made_from_nothing),
        TEST(descriptor_that_is_kept_is_the_third),
        TEST(program_that_hangs_is_ended_while_the_loop_turns),
        TEST(output_without_end_is_ended),
        TEST(program_that_is_not_there_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
