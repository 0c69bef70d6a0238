#include "daemon/shim.h"
#include "proto/base/clock.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ENVIRONMENT_ENTRIES_MAX = 24, REAP_PAUSE_MS = 10, START_FAILED = 127 };

struct shim {
    const struct shim_options *options;
    struct shim_paths paths;
    int lock_fd;
    char *environment[ENVIRONMENT_ENTRIES_MAX + 1];
    size_t environment_count;
    pid_t program;
    int64_t kill_at_ms; /* monotonic; 0: nobody asked for the end */
    const char *killed; /* why the program was killed, NULL if it was not */
};

static int set(struct shim *shim, struct err *err, const char *name, const char *value)
{
    char *entry;
    if (shim->environment_count == ENVIRONMENT_ENTRIES_MAX ||
        asprintf(&entry, "%s%s", name, value) < 0)
        return err_set(err, ERR_NO_MEMORY, "environment: no room for %s", name);
    shim->environment[shim->environment_count++] = entry;
    return 0;
}

/* The program's whole environment: nothing of the daemon's gets through. */
static int make_environment(struct shim *shim, bool shm, struct err *err)
{
    const struct {
        const char *name, *value;
    } entries[] = {
        {"PATH=", "/usr/local/bin:/usr/bin:/bin"},
        {"LANG=", "C.UTF-8"},
        {"HOME=", shim->paths.tmp},
        {"TMPDIR=", shim->paths.tmp},
        {"OPENBLAS_NUM_THREADS=", "1"}, /* threads come from the engine's own pool */
        {"OMP_NUM_THREADS=", "1"},
        {"OMPI_MCA_orte_tmpdir_base=", shim->paths.tmp},
        {"OMPI_MCA_btl_vader_single_copy_mechanism=",
         "none"}, /* process_vm_readv is often forbidden in containers */
        {shim->paths.mark, ""},
    };
    int code = 0;
    for (size_t i = 0; code == 0 && i < sizeof entries / sizeof entries[0]; i++)
        code = set(shim, err, entries[i].name, entries[i].value);
    if (code == 0 && shm)
        code = set(shim, err, "OMPI_MCA_btl_vader_backing_directory=", shim->paths.shm);
    if (code == 0 && geteuid() == 0) {
        code = set(shim, err, "OMPI_ALLOW_RUN_AS_ROOT=", "1");
        if (code == 0)
            code = set(shim, err, "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=", "1");
    }
    return code;
}

/* What earlier attempts left whose shim was killed; the launcher starts one after the other. */
static void clean_earlier(const struct shim_options *options)
{
    for (int64_t attempt = 1; attempt < options->attempt; attempt++) {
        struct shim_paths paths;
        if (shim_paths(&paths, options->folder, attempt, NULL) == 0)
            shim_clean(&paths, NULL);
    }
}

/* Folders, output, lock and identity. Leaves stdout and stderr in log.txt. */
static int prepare(struct shim *shim, struct err *err)
{
    const struct shim_options *options = shim->options;
    char path[FSX_PATH_MAX];
    umask(077);
    int code = shim_paths(&shim->paths, options->folder, options->attempt, err);
    if (code == 0)
        code = fsx_mkdirs(shim->paths.attempt, 0700, err);
    shim->lock_fd = options->lock_fd;
    if (code == 0 && shim->lock_fd < 0) {
        code = fsx_path(path, err, "%s/lock", shim->paths.attempt);
        if (code == 0)
            code = fsx_lock(&shim->lock_fd, path, err);
    }
    if (code != 0)
        return code;
    fcntl(shim->lock_fd, F_SETFD, 0); /* the program inherits the lock */
    if ((code = fsx_path(path, err, "%s/log.txt", shim->paths.attempt)) != 0)
        return code;
    int log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (log < 0)
        return err_set(err, ERR_IO, "open %s: %s", path, strerror(errno));
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(log, STDOUT_FILENO) < 0 ||
        dup2(log, STDERR_FILENO) < 0)
        code = err_set(err, ERR_IO, "redirect the output: %s", strerror(errno));
    if (null > STDERR_FILENO)
        close(null);
    if (log > STDERR_FILENO)
        close(log);
    clean_earlier(options);
    if (code == 0 && (code = shim_clean(&shim->paths, err)) == 0)
        code = fsx_mkdirs(shim->paths.tmp, 0700, err);
    if (code == 0)
        code = shim_identity_write(shim->paths.attempt, err);
    return code;
}

static _Noreturn void become_program(struct shim *shim, int report, pid_t parent)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() == parent && chdir(shim->options->folder) == 0)
        execvpe(shim->options->program[0], shim->options->program, shim->environment);
    int reason = errno;
    if (write(report, &reason, sizeof reason) < 0)
        _exit(START_FAILED);
    _exit(START_FAILED);
}

static int start_program(struct shim *shim, struct err *err)
{
    int report[2];
    if (pipe2(report, O_CLOEXEC) != 0)
        return err_set(err, ERR_IO, "pipe: %s", strerror(errno));
    pid_t self = getpid();
    shim->program = fork();
    if (shim->program == 0)
        become_program(shim, report[1], self);
    int reason = errno;
    close(report[1]);
    int code = 0;
    if (shim->program < 0)
        code = err_set(err, ERR_IO, "fork: %s", strerror(reason));
    else if (read(report[0], &reason, sizeof reason) == (ssize_t)sizeof reason) {
        waitpid(shim->program, NULL, 0);
        shim->program = 0;
        code = err_set(err, reason == ENOENT ? ERR_UNSUPPORTED : ERR_IO, "start %s: %s",
                       shim->options->program[0], strerror(reason));
    }
    close(report[0]);
    return code;
}

static void kill_all(struct shim *shim, const char *why)
{
    if (shim->killed == NULL)
        shim->killed = why;
    kill(shim->program, SIGKILL);
    process_kill_descendants(getpid());
}

static void on_signal(struct shim *shim, int signal)
{
    bool stop = signal == SIGTERM || signal == SIGINT;
    if (!stop && signal != SIGQUIT)
        return;
    if (stop && shim->kill_at_ms == 0) {
        shim->kill_at_ms = clock_monotonic_ms() + (int64_t)shim->options->grace_s * 1000;
        kill(shim->program, SIGUSR1);
    } else
        kill_all(shim, "killed on request");
}

/* Waits for the program's end and reaps whatever else ends meanwhile. */
static int supervise(struct shim *shim, const sigset_t *watched)
{
    int status;
    for (;;) {
        pid_t pid = waitpid(-1, &status, WNOHANG);
        if (pid == shim->program)
            return status;
        if (pid > 0)
            continue;
        struct timespec wait = {.tv_sec = 3600}, *limit = &wait;
        if (shim->kill_at_ms != 0) {
            int64_t left = shim->kill_at_ms - clock_monotonic_ms();
            if (left <= 0) {
                kill_all(shim, "killed: it did not stop in time");
                left = 1000; /* in case something new was forked meanwhile */
            }
            wait = (struct timespec){.tv_sec = left / 1000, .tv_nsec = left % 1000 * 1000000};
        }
        int signal = sigtimedwait(watched, NULL, limit);
        if (signal > 0)
            on_signal(shim, signal);
    }
}

/* As the subreaper we are the parent of every orphan of the attempt: no child left means
 * nothing is left. */
static void end_leftovers(void)
{
    int64_t deadline = clock_monotonic_ms() + SHIM_REAP_S * 1000;
    for (;;) {
        pid_t pid = waitpid(-1, NULL, WNOHANG);
        if (pid > 0)
            continue;
        if (pid < 0 && errno == ECHILD)
            return;
        if (clock_monotonic_ms() > deadline) {
            fprintf(stderr, "hebb-shim: a process of this attempt does not die\n");
            return;
        }
        process_kill_descendants(getpid());
        nanosleep(&(struct timespec){.tv_nsec = REAP_PAUSE_MS * 1000000L}, NULL);
    }
}

int shim_run(const struct shim_options *options, struct err *err)
{
    struct shim shim = {.options = options, .lock_fd = -1};
    struct shim_exit end;
    sigset_t watched;
    sigemptyset(&watched);
    sigaddset(&watched, SIGTERM);
    sigaddset(&watched, SIGINT);
    sigaddset(&watched, SIGHUP); /* ignored: the daemon's terminal is not ours */
    sigaddset(&watched, SIGQUIT);
    sigaddset(&watched, SIGCHLD);
    sigprocmask(SIG_BLOCK, &watched, NULL);
    setsid(); /* fails for the leader of a group, which is as good */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    int code = prepare(&shim, err);
    if (code != 0)
        return code;
    bool shm = mkdir(shim.paths.shm, 0700) == 0;
    if (!shm)
        fprintf(stderr, "hebb-shim: no shared memory folder %s: %s\n", shim.paths.shm,
                strerror(errno));
    struct err start_err;
    code = make_environment(&shim, shm, &start_err);
    if (code == 0)
        code = start_program(&shim, &start_err);
    if (code == 0) {
        int status = supervise(&shim, &watched);
        end_leftovers();
        shim_exit_judge(&end, shim.paths.attempt, status, options->ranks, shim.killed);
    } else {
        end = (struct shim_exit){.code = err_exit_code(code), .rank = -1};
        snprintf(end.reason, sizeof end.reason, "%.*s", SHIM_MESSAGE_MAX - 1, start_err.text);
    }
    if (shim_clean(&shim.paths, &start_err) != 0)
        fprintf(stderr, "hebb-shim: %s\n", start_err.text);
    for (size_t i = 0; i < shim.environment_count; i++)
        free(shim.environment[i]);
    return shim_exit_write(shim.paths.attempt, &end, err);
}
