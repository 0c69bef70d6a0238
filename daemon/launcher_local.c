/* Attempts on this machine: hebb-shim with mpirun, or with the worker itself when there is one
 * rank.
 *
 * The daemon takes the attempt's lock before it forks and the shim inherits it: there is no
 * moment at which an attempt lives and its lock is free, so a daemon that died between the fork
 * and its commit can be told from one that died before. */
#include "daemon/launcher.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    ARGUMENTS_MAX = 40,
    ARGUMENT_TEXT_MAX = 32,
    LOCK_FD = 3,
    REPORT_FD = 4,
    START_FAILED = 127
};

static int attempt_path(char out[FSX_PATH_MAX], const struct launch *launch, const char *name,
                        struct err *err)
{
    return fsx_path(out, err, "%s/attempt-%" PRId64 "/%s", launch->folder, launch->attempt,
                    name);
}

/* The child's side: descriptors 0 to 2, the lock as 3, and nothing else. Reports errno when it
 * fails. */
static _Noreturn void become_shim(char *const *arguments, int lock, int report)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGXFSZ, SIG_DFL);
    setsid(); /* the daemon's terminal and group are not ours */
    int lock_copy = fcntl(lock, F_DUPFD, 10), report_copy = fcntl(report, F_DUPFD, 10);
    int null = open("/dev/null", O_RDONLY);
    bool ready = lock_copy >= 0 && report_copy >= 0 && null >= 0 &&
                 dup2(null, STDIN_FILENO) >= 0 && dup2(lock_copy, LOCK_FD) >= 0 &&
                 dup3(report_copy, REPORT_FD, O_CLOEXEC) >= 0 &&
                 close_range(REPORT_FD + 1, ~0u, 0) == 0;
    if (ready)
        execv(arguments[0], arguments);
    int reason = errno;
    if (write(ready ? REPORT_FD : report_copy, &reason, sizeof reason) < 0)
        _exit(START_FAILED);
    _exit(START_FAILED);
}

static int spawn(char *const *arguments, int lock, struct err *err)
{
    int report[2], reason;
    if (pipe2(report, O_CLOEXEC) != 0)
        return err_set(err, ERR_IO, "pipe: %s", strerror(errno));
    pid_t pid = fork();
    if (pid == 0)
        become_shim(arguments, lock, report[1]);
    reason = errno;
    close(report[1]);
    int code = 0;
    if (pid < 0)
        code = err_set(err, ERR_IO, "fork: %s", strerror(reason));
    else if (read(report[0], &reason, sizeof reason) == (ssize_t)sizeof reason) {
        waitpid(pid, NULL, 0);
        code = err_set(err, reason == ENOENT ? ERR_UNSUPPORTED : ERR_IO, "start %s: %s",
                       arguments[0], strerror(reason));
    }
    close(report[0]);
    return code;
}

static int start_shim(const struct launch *launch, int lock, struct err *err)
{
    char attempt[ARGUMENT_TEXT_MAX], ranks[ARGUMENT_TEXT_MAX], lock_fd[ARGUMENT_TEXT_MAX],
        grace[ARGUMENT_TEXT_MAX], hung[ARGUMENT_TEXT_MAX];
    snprintf(attempt, sizeof attempt, "%" PRId64, launch->attempt);
    snprintf(ranks, sizeof ranks, "%" PRId64, launch->ranks);
    snprintf(lock_fd, sizeof lock_fd, "%d", (int)LOCK_FD);
    snprintf(grace, sizeof grace, "%d",
             launch->stop_grace_s > 0 ? launch->stop_grace_s : SHIM_GRACE_S);
    snprintf(hung, sizeof hung, "%d", launch->hung_s > 0 ? launch->hung_s : SHIM_HUNG_S);
    const char *arguments[ARGUMENTS_MAX] = {
        launch->shim_path, "--folder", launch->folder, "--attempt", attempt,  "--ranks", ranks,
        "--lock-fd",       lock_fd,    "--grace",      grace,       "--hung", hung,      "--"};
    size_t count = 14;
    if (launch->ranks > 1) {
        const char *const mpirun[] = {
            "mpirun", "-np", ranks,       "--bind-to", "none", "--oversubscribe",
            "--mca",  "plm", "isolated",  "--mca",     "pml",  "ob1",
            "--mca",  "btl", "self,vader"};
        for (size_t i = 0; i < sizeof mpirun / sizeof mpirun[0]; i++)
            arguments[count++] = mpirun[i];
    }
    const char *const worker[] = {launch->worker_path, "--job", launch->folder, "--attempt",
                                  attempt};
    for (size_t i = 0; i < sizeof worker / sizeof worker[0]; i++)
        arguments[count++] = worker[i];
    /* execv takes char *const * for history's sake and changes nothing */
    return spawn((char *const *)(uintptr_t)arguments, lock, err);
}

static int local_start(const struct launch *launch, struct err *err)
{
    char path[FSX_PATH_MAX];
    int lock = -1;
    int code = attempt_path(path, launch, "", err);
    if (code == 0)
        code = fsx_mkdirs(path, 0700, err);
    if (code == 0)
        code = attempt_path(path, launch, "lock", err);
    if (code == 0)
        code = fsx_lock(&lock, path, err);
    if (code == ERR_CONFLICT) /* it was started before a crash and lives */
        return 0;
    if (code == 0)
        code = attempt_path(path, launch, "shim.json", err);
    if (code == 0 && fsx_exists(path)) { /* it was started before a crash and has ended */
        close(lock);
        return 0;
    }
    if (code == 0)
        code = start_shim(launch, lock, err);
    if (lock >= 0)
        close(lock);
    return code;
}

static void say_lost(const struct launch *launch, const char *path, struct shim_exit *end)
{
    struct process_identity shim;
    char boot_id[PROCESS_BOOT_ID_MAX];
    const char *reason = "lost: the shim ended without writing exit.json";
    if (!fsx_exists(launch->folder))
        reason = "lost: the job's folder is gone";
    else if (shim_identity_read(&shim, path, NULL) != 0)
        reason = "lost: the shim ended before it had begun";
    else if (process_boot_id(boot_id, NULL) == 0 && strcmp(boot_id, shim.boot_id) != 0)
        reason = "lost: the machine was restarted";
    *end = (struct shim_exit){.code = EXIT_FAILED, .rank = -1};
    snprintf(end->reason, sizeof end->reason, "%s", reason);
}

/* The lock without its shim: a process that outlived a killed shim still holds it. */
static bool shim_is_gone(const char *path)
{
    struct process_identity shim;
    bool lives;
    return shim_identity_read(&shim, path, NULL) == 0 &&
           process_signal(&shim, 0, &lives, NULL) == 0 && !lives;
}

/* The shim sets the times of its lock every second. */
static int64_t beat_of(const char *lock)
{
    struct stat info;
    return stat(lock, &info) == 0
               ? (int64_t)info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec
               : 0;
}

static int local_status(const struct launch *launch, struct launch_status *out, struct err *err)
{
    struct shim_paths paths;
    char lock[FSX_PATH_MAX];
    bool held;
    struct err why;
    memset(out, 0, sizeof *out);
    int code = shim_paths(&paths, launch->folder, launch->attempt, err);
    if (code == 0)
        code = attempt_path(lock, launch, "lock", err);
    if (code == 0)
        code = fsx_lock_held(&held, lock, err);
    if (code != 0)
        return code;
    out->busy = held;
    if (held && !shim_is_gone(paths.attempt)) {
        out->state = LAUNCH_RUNNING;
        out->beat = beat_of(lock);
        return 0;
    }
    out->state = LAUNCH_EXITED;
    code = shim_exit_read(&out->end, paths.attempt, &why);
    if (code == 0)
        return 0;
    out->state = LAUNCH_LOST;
    say_lost(launch, paths.attempt, &out->end);
    if (code != ERR_NOT_FOUND)
        snprintf(out->end.reason, sizeof out->end.reason, "lost: %.*s", SHIM_MESSAGE_MAX - 16,
                 why.text);
    return 0;
}

static int local_signal(const struct launch *launch, enum launch_signal signal, struct err *err)
{
    static const int signals[] = {[LAUNCH_STOP] = SIGTERM,
                                  [LAUNCH_KILL] = SIGQUIT,
                                  [LAUNCH_WAKE] = SIGCONT,
                                  [LAUNCH_END] = SIGKILL};
    struct shim_paths paths;
    struct process_identity shim;
    bool sent;
    int code = shim_paths(&paths, launch->folder, launch->attempt, err);
    if (code == 0)
        code = shim_identity_read(&shim, paths.attempt, err);
    if (code == 0)
        code = process_signal(&shim, signals[signal], &sent, err);
    if (code == 0 && (signal == LAUNCH_KILL || signal == LAUNCH_END))
        process_kill_marked(paths.mark);
    if (code == 0 && signal == LAUNCH_KILL) /* a stopped shim could not clean up */
        code = process_signal(&shim, SIGCONT, &sent, err);
    return code;
}

static int local_clean(const struct launch *launch, struct err *err)
{
    struct shim_paths paths;
    int code = shim_paths(&paths, launch->folder, launch->attempt, err);
    if (code != 0)
        return code;
    if (process_kill_marked(paths.mark) > 0)
        return err_set(err, ERR_CONFLICT, "processes of attempt %" PRId64 " were still there",
                       launch->attempt);
    return shim_clean(&paths, err);
}

const struct launcher launcher_local = {
    .name = "local",
    .start = local_start,
    .status = local_status,
    .signal = local_signal,
    .clean = local_clean,
};
