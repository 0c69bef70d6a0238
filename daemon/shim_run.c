#include "daemon/shim.h"
#include "daemon/shim_log.h"
#include "daemon/shim_watch.h"
#include "proto/base/clock.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ENVIRONMENT_ENTRIES_MAX = 24, REAP_PAUSE_MS = 10, START_FAILED = 127 };

struct shim {
    const struct shim_options *options;
    struct shim_paths paths;
    int lock_fd, signal_fd;
    struct shim_log log;
    struct shim_watch watch;
    char *environment[ENVIRONMENT_ENTRIES_MAX + 1];
    size_t environment_count;
    pid_t program;
    int64_t kill_at_ms;            /* monotonic; 0: nobody asked for the end */
    char killed[SHIM_MESSAGE_MAX]; /* why the program was killed, "" if it was not */
    int killed_rank;               /* the rank that was the reason, -1: none */
    int64_t look_ms;               /* monotonic; when to look at the heartbeats again */
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

/* Folders, lock and identity. Leaves stdout and stderr in log.txt. */
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

static _Noreturn void become_program(struct shim *shim, int report, int output, pid_t parent)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGXFSZ, SIG_DFL);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    bool ready = dup2(output, STDOUT_FILENO) >= 0 && dup2(output, STDERR_FILENO) >= 0;
    if (ready && getppid() == parent && chdir(shim->options->folder) == 0)
        execvpe(shim->options->program[0], shim->options->program, shim->environment);
    int reason = errno;
    if (write(report, &reason, sizeof reason) < 0)
        _exit(START_FAILED);
    _exit(START_FAILED);
}

static int start_program(struct shim *shim, struct err *err)
{
    int report[2], output;
    int code = shim_log_init(&shim->log, STDERR_FILENO, shim->options->log_head, SHIM_LOG_TAIL,
                             &output, err);
    if (code != 0)
        return code;
    if (pipe2(report, O_CLOEXEC) != 0) {
        close(output);
        return err_set(err, ERR_IO, "pipe: %s", strerror(errno));
    }
    pid_t self = getpid();
    shim->program = fork();
    if (shim->program == 0)
        become_program(shim, report[1], output, self);
    int reason = errno;
    close(report[1]);
    close(output);
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
    if (shim->killed[0] == '\0')
        snprintf(shim->killed, sizeof shim->killed, "%s", why);
    kill(shim->program, SIGKILL);
    process_kill_descendants(getpid());
}

static void on_signal(struct shim *shim, uint32_t signal)
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

/* Every second: a sign of life, and a look at those of the ranks. */
static void look(struct shim *shim, int64_t now)
{
    char reason[SHIM_MESSAGE_MAX];
    int rank;
    shim->look_ms = now + SHIM_LOOK_MS;
    futimens(shim->lock_fd, NULL);
    if (!shim_watch_look(&shim->watch, shim->paths.attempt, &rank, reason, sizeof reason))
        return;
    if (shim->killed[0] == '\0') {
        shim->killed_rank = rank;
        fprintf(stderr, "hebb-shim: %s; the attempt is killed\n", reason);
    }
    kill_all(shim, reason);
}

/* Waits for a signal, output or the next look, and does what is due. */
static void turn(struct shim *shim)
{
    struct pollfd polls[] = {{.fd = shim->signal_fd, .events = POLLIN},
                             {.fd = shim->log.pipe, .events = POLLIN}}; /* -1 is passed over */
    struct signalfd_siginfo info;
    int64_t now = clock_monotonic_ms(), wait = shim->look_ms - now;
    if (shim->kill_at_ms != 0 && shim->kill_at_ms - now < wait)
        wait = shim->kill_at_ms - now;
    poll(polls, 2, wait > 0 ? (int)wait : 0);
    while (read(shim->signal_fd, &info, sizeof info) == (ssize_t)sizeof info)
        on_signal(shim, info.ssi_signo);
    shim_log_take(&shim->log);
    now = clock_monotonic_ms();
    if (shim->kill_at_ms != 0 && now >= shim->kill_at_ms) {
        kill_all(shim, "killed: it did not stop in time");
        shim->kill_at_ms = now + 1000; /* in case something new was forked meanwhile */
    }
    if (now >= shim->look_ms)
        look(shim, now);
}

/* Waits for the program's end and reaps whatever else ends meanwhile. A stopped mpirun would
 * never end, and it has no heartbeat: it is woken. */
static int supervise(struct shim *shim)
{
    int status;
    for (;;) {
        pid_t pid = waitpid(-1, &status, WNOHANG | WUNTRACED);
        if (pid == shim->program && !WIFSTOPPED(status))
            return status;
        if (pid == shim->program && shim->options->ranks > 1) {
            fprintf(stderr, "hebb-shim: mpirun was stopped by signal %d; it is woken\n",
                    WSTOPSIG(status));
            kill(pid, SIGCONT);
        }
        if (pid <= 0)
            turn(shim);
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

/* While the disk is full nobody else could be told either: waits, unless it is killed. */
static int write_exit(struct shim *shim, const struct shim_exit *end, struct err *err)
{
    int code;
    while ((code = shim_exit_write(shim->paths.attempt, end, err)) == ERR_NO_SPACE) {
        struct signalfd_siginfo info;
        struct pollfd polls = {.fd = shim->signal_fd, .events = POLLIN};
        futimens(shim->lock_fd, NULL);
        poll(&polls, 1, SHIM_LOOK_MS);
        while (read(shim->signal_fd, &info, sizeof info) == (ssize_t)sizeof info)
            if (info.ssi_signo == SIGQUIT)
                return code;
    }
    return code;
}

static int watch_signals(struct shim *shim, struct err *err)
{
    static const int watched[] = {SIGTERM, SIGINT, SIGQUIT, SIGCHLD,
                                  SIGHUP /* ignored: the daemon's terminal is not ours */};
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof watched / sizeof watched[0]; i++)
        sigaddset(&set, watched[i]);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGXFSZ, SIG_IGN);
    shim->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return shim->signal_fd >= 0 ? 0 : err_set(err, ERR_IO, "signalfd: %s", strerror(errno));
}

/* From the program's start to its end; what could not be begun is an end too. */
static void run_program(struct shim *shim, struct shim_exit *end)
{
    struct err err;
    bool shm = mkdir(shim->paths.shm, 0700) == 0;
    if (!shm)
        fprintf(stderr, "hebb-shim: no shared memory folder %s: %s\n", shim->paths.shm,
                strerror(errno));
    int code = make_environment(shim, shm, &err);
    if (code == 0)
        code = start_program(shim, &err);
    if (code == 0) {
        int status = supervise(shim);
        end_leftovers();
        shim_log_finish(&shim->log);
        shim_exit_judge(end, shim->paths.attempt, status, shim->options->ranks,
                        shim->killed[0] != '\0' ? shim->killed : NULL);
        if (shim->killed_rank >= 0 && strcmp(end->reason, shim->killed) == 0) {
            end->rank = shim->killed_rank;
            end->code = EXIT_FAILED;
        }
    } else {
        *end = (struct shim_exit){.code = err_exit_code(code), .rank = -1};
        snprintf(end->reason, sizeof end->reason, "%.*s", SHIM_MESSAGE_MAX - 1, err.text);
    }
    if (shim_clean(&shim->paths, &err) != 0)
        fprintf(stderr, "hebb-shim: %s\n", err.text);
}

int shim_run(const struct shim_options *options, struct err *err)
{
    struct shim shim = {.options = options,
                        .lock_fd = -1,
                        .signal_fd = -1,
                        .log = {.pipe = -1},
                        .killed_rank = -1};
    struct shim_exit end;
    setsid(); /* fails for the leader of a group, which is as good */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    int code = watch_signals(&shim, err);
    if (code == 0)
        code = prepare(&shim, err);
    if (code == 0)
        code = shim_watch_init(&shim.watch, options->ranks, options->hung_s, options->stalled_s,
                               err);
    if (code != 0)
        return code;
    run_program(&shim, &end);
    for (size_t i = 0; i < shim.environment_count; i++)
        free(shim.environment[i]);
    shim_watch_release(&shim.watch);
    return write_exit(&shim, &end, err);
}
