#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/process.h"
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t sleeper(const char *mark)
{
    int ready[2];
    char byte;
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        char *const environment[] = {(char *)(uintptr_t)mark, NULL};
        if (dup2(ready[1], STDOUT_FILENO) >= 0)
            execle("/bin/sh", "sh", "-c", "echo; exec sleep 600", (char *)NULL, environment);
        _exit(127);
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1); /* the exec is done */
    close(ready[0]);
    return pid;
}

static bool is_gone(pid_t pid)
{
    for (int i = 0; i < 100; i++) {
        if (waitpid(pid, NULL, WNOHANG) == pid)
            return true;
        usleep(10 * 1000);
    }
    return false;
}

static void signal_reaches_the_very_process(void **state)
{
    (void)state;
    struct process_identity identity;
    bool sent;
    pid_t pid = sleeper("A=1");
    assert_int_equal(process_identify(&identity, pid, NULL), 0);
    assert_int_equal(process_signal(&identity, SIGKILL, &sent, NULL), 0);
    assert_true(sent);
    assert_true(is_gone(pid));
    assert_int_equal(process_signal(&identity, SIGKILL, &sent, NULL), 0);
    assert_false(sent);
}

static void signal_spares_another_process_with_the_same_number(void **state)
{
    (void)state;
    struct process_identity identity, other;
    bool sent;
    pid_t pid = sleeper("A=1");
    assert_int_equal(process_identify(&identity, pid, NULL), 0);
    other = identity;
    other.start_ticks++; /* the number was given away */
    assert_int_equal(process_signal(&other, SIGKILL, &sent, NULL), 0);
    assert_false(sent);
    other = identity;
    other.boot_id[0] = other.boot_id[0] == 'x' ? 'y' : 'x'; /* the machine was restarted */
    assert_int_equal(process_signal(&other, SIGKILL, &sent, NULL), 0);
    assert_false(sent);
    assert_int_equal(process_signal(&identity, 0, &sent, NULL), 0);
    assert_true(sent);
    kill(pid, SIGKILL);
    assert_true(is_gone(pid));
}

static void signal_refuses_numbers_that_cannot_be_ours(void **state)
{
    (void)state;
    struct process_identity identity = {.pid = 1};
    bool sent;
    assert_int_equal(process_signal(&identity, 0, &sent, NULL), ERR_INVALID);
    identity.pid = -1;
    assert_int_equal(process_signal(&identity, 0, &sent, NULL), ERR_INVALID);
}

static void mark_must_be_the_whole_entry(void **state)
{
    (void)state;
    pid_t marked = sleeper("HEBB_TEST_MARK=/job/attempt-1"),
          longer = sleeper("HEBB_TEST_MARK=/job/attempt-12");
    assert_int_equal(process_kill_marked("HEBB_TEST_MARK=/job/attempt-1"), 1);
    assert_true(is_gone(marked));
    assert_int_equal(process_kill_marked("HEBB_TEST_MARK=/job/attempt-1"), 0);
    assert_int_equal(waitpid(longer, NULL, WNOHANG), 0);
    kill(longer, SIGKILL);
    assert_true(is_gone(longer));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(signal_reaches_the_very_process),
        cmocka_unit_test(signal_spares_another_process_with_the_same_number),
        cmocka_unit_test(signal_refuses_numbers_that_cannot_be_ours),
        cmocka_unit_test(mark_must_be_the_whole_entry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
