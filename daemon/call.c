#include "daemon/call.h"
#include "proto/base/buf.h"
#include "proto/base/clock.h"
#include "proto/base/fsx.h"
#include "proto/base/mem.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { KEPT_FD = 3, TIMER_MS = 250, READ_BYTES = 16 * 1024 };

struct running {
    pid_t pid; /* 0: the place is free */
    int out, errors;
    struct buf output;
    char stderr_text[CALL_ERRORS_MAX + 1];
    size_t stderr_len;
    int64_t deadline_ms; /* monotonic */
    bool timed_out;
    void (*done)(void *context, const struct call_answer *answer);
    void *context;
    struct calls *calls;
};

struct calls {
    struct loop *loop;
    int timer; /* 0 while nothing runs */
    struct running running[CALLS_MAX];
};

int calls_create(struct calls **out, struct loop *loop, struct err *err)
{
    *out = mem_zeroed(1, sizeof **out);
    if (*out == NULL)
        return err_set(err, ERR_NO_MEMORY, "calls: out of memory");
    (*out)->loop = loop;
    return 0;
}

static void release(struct running *running)
{
    struct loop *loop = running->calls->loop;
    loop_remove_fd(loop, running->out);
    loop_remove_fd(loop, running->errors);
    close(running->out);
    close(running->errors);
    buf_release(&running->output);
    running->pid = 0;
}

void calls_destroy(struct calls *calls)
{
    if (calls == NULL)
        return;
    for (size_t i = 0; i < CALLS_MAX; i++)
        if (calls->running[i].pid != 0)
            release(&calls->running[i]);
    if (calls->timer != 0)
        loop_remove_timer(calls->loop, calls->timer);
    free(calls);
}

/* False at the end of the stream. */
static bool drain(struct running *running, int fd)
{
    char text[READ_BYTES];
    ssize_t got;
    while ((got = read(fd, text, sizeof text)) > 0) {
        size_t room = CALL_ERRORS_MAX - running->stderr_len, len = (size_t)got;
        if (fd == running->out)
            buf_add(&running->output, text, len);
        else {
            len = len < room ? len : room;
            memcpy(running->stderr_text + running->stderr_len, text, len);
            running->stderr_len += len;
        }
    }
    return got < 0 && (errno == EAGAIN || errno == EINTR);
}

static void on_output(void *context, int fd)
{
    struct running *running = context;
    if (!drain(running, fd)) /* its end is seen when it is reaped */
        loop_remove_fd(running->calls->loop, fd);
    if (running->output.failed)
        kill(-running->pid, SIGKILL);
}

static void on_timer(void *context)
{
    struct calls *calls = context;
    int64_t now = clock_monotonic_ms();
    bool any = false;
    for (size_t i = 0; i < CALLS_MAX; i++) {
        struct running *running = &calls->running[i];
        any |= running->pid != 0;
        if (running->pid != 0 && now >= running->deadline_ms) {
            running->timed_out = true;
            running->deadline_ms = now + 1000; /* in case it forks meanwhile */
            kill(-running->pid, SIGKILL);
        }
    }
    if (!any) {
        loop_remove_timer(calls->loop, calls->timer);
        calls->timer = 0;
    }
}

static int make_pipes(int pipes[3][2], struct err *err)
{
    for (int i = 0; i < 3; i++)
        if (pipe2(pipes[i], O_CLOEXEC) != 0) {
            int reason = errno;
            while (i-- > 0) {
                close(pipes[i][0]);
                close(pipes[i][1]);
            }
            return err_set(err, ERR_IO, "pipe: %s", strerror(reason));
        }
    return 0;
}

/* The program in a session of its own, with the three pipes, keep_fd as 3, and nothing else. */
static int spawn(const struct call *call, int pipes[3][2], pid_t *pid, struct err *err)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none, usual;
    sigemptyset(&none);
    sigemptyset(&usual);
    sigaddset(&usual, SIGPIPE);
    sigaddset(&usual, SIGXFSZ);
    if (posix_spawn_file_actions_init(&files) != 0)
        return err_set(err, ERR_NO_MEMORY, "start %s: out of memory", call->argv[0]);
    if (posix_spawnattr_init(&attributes) != 0) {
        posix_spawn_file_actions_destroy(&files);
        return err_set(err, ERR_NO_MEMORY, "start %s: out of memory", call->argv[0]);
    }
    int reason = posix_spawnattr_setflags(
        &attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &usual);
    const int ends[] = {pipes[0][0], pipes[1][1], pipes[2][1], call->keep_fd};
    int count = call->keep_fd >= 0 ? 4 : 3;
    for (int i = 0; reason == 0 && i < count; i++)
        reason = posix_spawn_file_actions_adddup2(&files, ends[i], i);
    if (reason == 0)
        reason = posix_spawn_file_actions_addclosefrom_np(&files, count);
    if (reason == 0) /* it takes char *const * for history's sake and changes nothing */
        reason = posix_spawn(pid, call->argv[0], &files, &attributes,
                             (char *const *)(uintptr_t)call->argv,
                             (char *const *)(uintptr_t)call->environment);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
    if (reason == 0)
        return 0;
    return err_set(err, reason == ENOENT ? ERR_NOT_FOUND : ERR_IO, "start %s: %s",
                   call->argv[0], strerror(reason));
}

/* The place's buffers and descriptors. The pipes' other ends are closed by the caller. */
static int watch(struct running *running, const struct call *call, pid_t pid, int out,
                 int errors, struct err *err)
{
    struct calls *calls = running->calls;
    running->pid = pid;
    running->out = out;
    running->errors = errors;
    buf_init(&running->output, CALL_OUTPUT_MAX);
    running->deadline_ms = clock_monotonic_ms() + call->timeout_ms;
    running->done = call->done;
    running->context = call->context;
    fcntl(out, F_SETFL, O_NONBLOCK);
    fcntl(errors, F_SETFL, O_NONBLOCK);
    int code = loop_add_fd(calls->loop, out, on_output, running, err);
    if (code == 0)
        code = loop_add_fd(calls->loop, errors, on_output, running, err);
    if (code != 0) {
        kill(-pid, SIGKILL);
        release(running);
    } else if (calls->timer == 0)
        calls->timer = loop_add_timer(calls->loop, TIMER_MS, on_timer, calls);
    return code;
}

static bool above_kept(int fd, int *moved)
{
    *moved = fd > KEPT_FD ? fd : fcntl(fd, F_DUPFD_CLOEXEC, KEPT_FD + 1);
    if (*moved != fd)
        close(fd);
    return *moved >= 0;
}

int calls_start(struct calls *calls, const struct call *call, struct err *err)
{
    struct running *running = NULL;
    int pipes[3][2];
    pid_t pid = 0;
    size_t input = call->input != NULL ? strlen(call->input) : 0;
    for (size_t i = 0; i < CALLS_MAX; i++)
        if (calls->running[i].pid == 0)
            running = &calls->running[i];
    if (running == NULL || input > CALL_INPUT_MAX)
        return err_set(err, ERR_LIMIT, "start %s: %s", call->argv[0],
                       running == NULL ? "too many programs run" : "its input is too long");
    *running = (struct running){.calls = calls};
    int code = make_pipes(pipes, err);
    if (code != 0)
        return code;
    /* What becomes 0 to 3 in the child must not be overwritten before it is copied. */
    bool apart = true;
    for (int i = 0; i < 6; i++)
        apart &= above_kept(pipes[i / 2][i % 2], &pipes[i / 2][i % 2]);
    if (!apart)
        code = err_set(err, ERR_IO, "start %s: %s", call->argv[0], strerror(errno));
    if (code == 0)
        code = spawn(call, pipes, &pid, err);
    if (code == 0 && input > 0 && write(pipes[0][1], call->input, input) != (ssize_t)input)
        code = err_set(err, ERR_IO, "write to %s: %s", call->argv[0], strerror(errno));
    close(pipes[0][0]);
    close(pipes[0][1]);
    close(pipes[1][1]);
    close(pipes[2][1]);
    if (code == 0)
        return watch(running, call, pid, pipes[1][0], pipes[2][0], err);
    if (pid > 0)
        kill(-pid, SIGKILL);
    close(pipes[1][0]);
    close(pipes[2][0]);
    return code;
}

/* What to say of a call that failed. */
static void say(char out[ERR_TEXT_MAX], struct running *running, int status)
{
    running->stderr_text[running->stderr_len] = '\0';
    size_t line = strcspn(running->stderr_text, "\r\n");
    if (running->timed_out)
        snprintf(out, ERR_TEXT_MAX, "no answer in time");
    else if (running->output.failed)
        snprintf(out, ERR_TEXT_MAX, "its answer is longer than %d bytes", (int)CALL_OUTPUT_MAX);
    else if (line > 0)
        snprintf(out, ERR_TEXT_MAX, "%.*s", (int)(line < 400 ? line : 400),
                 running->stderr_text);
    else if (WIFSIGNALED(status))
        snprintf(out, ERR_TEXT_MAX, "killed by signal %d", WTERMSIG(status));
    else
        snprintf(out, ERR_TEXT_MAX, "exit code %d", WEXITSTATUS(status));
}

void calls_reaped(struct calls *calls, pid_t pid, int status)
{
    struct running *running = NULL;
    for (size_t i = 0; i < CALLS_MAX; i++)
        if (calls->running[i].pid == pid)
            running = &calls->running[i];
    if (running == NULL || pid <= 0)
        return;
    drain(running, running->out);
    drain(running, running->errors);
    struct call_answer answer = {.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1};
    if (running->timed_out || running->output.failed)
        answer.code = -1;
    answer.out = running->output.data != NULL ? running->output.data : "";
    answer.out_len = running->output.len;
    if (answer.code != 0)
        say(answer.trouble, running, status);
    char errors[CALL_ERRORS_MAX + 1];
    running->stderr_text[running->stderr_len] = '\0';
    memcpy(errors, running->stderr_text, running->stderr_len + 1);
    answer.errors = errors;
    void (*done)(void *context, const struct call_answer *answer) = running->done;
    void *context = running->context;
    struct buf output = running->output; /* done may start the next call in this place */
    buf_init(&running->output, 0);
    release(running);
    done(context, &answer);
    buf_release(&output);
}
