/* hebb train: a job folder without the daemon. The attempt runs under hebb-shim as it does
 * under the daemon, so that locks, logs, killed ranks and exit.json are the same. */
#include "proto/base/clock.h"
#include "worker/tools/options.h"
#include "worker/tools/tools.h"
#include "worker/tools/train_job.h"
#include "worker/tools/train_watch.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    POLL_MS = 100,
    ARGUMENTS_MAX = 40,
    NUMBER_MAX = 24,
    START_FAILED = 127,
    RANKS_MAX = 4096,
    THREADS_MAX = 256
};

static volatile sig_atomic_t interrupts; /* stop requests so far */

static void on_interrupt(int signal)
{
    (void)signal;
    interrupts++;
}

struct train_programs {
    char shim[FSX_PATH_MAX], worker[FSX_PATH_MAX];
};

/* Beside this very program, unless --worker names one. */
static int programs_find(struct train_programs *out, const char *worker, struct err *err)
{
    char self[FSX_PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length < 0) {
        return err_set(err, ERR_IO, "read /proc/self/exe: %s", strerror(errno));
    }
    self[length] = '\0';
    *strrchr(self, '/') = '\0';
    int rc = fsx_path(out->shim, err, "%s/hebb-shim", self);
    if (rc == 0 && !worker) {
        rc = fsx_path(out->worker, err, "%s/hebb-worker", self);
    } else if (rc == 0 && !realpath(worker, out->worker)) {
        rc = err_set(err, ERR_NOT_FOUND, "--worker %s: %s", worker, strerror(errno));
    }
    const char *const needed[] = {out->shim, out->worker};
    for (size_t i = 0; rc == 0 && i < 2; i++) {
        if (access(needed[i], X_OK) != 0) {
            rc = err_set(err, ERR_UNSUPPORTED, "%s: %s", needed[i], strerror(errno));
        }
    }
    return rc;
}

/* The shim with mpirun for several ranks, or with the worker itself for one. */
static _Noreturn void become_shim(const struct train_programs *programs,
                                  const struct train_job *job, int lock_fd)
{
    char attempt[NUMBER_MAX], ranks[NUMBER_MAX], threads[NUMBER_MAX], lock[NUMBER_MAX];
    const char *arguments[ARGUMENTS_MAX] = {
        programs->shim, "--folder", job->folder, "--attempt", attempt,
        "--ranks",      ranks,      "--lock-fd", lock,        "--"};
    const char *const mpirun[] = {"mpirun",          "-np",   ranks, "--bind-to", "none",
                                  "--oversubscribe", "--mca", "plm", "isolated"};
    const char *const worker[] = {programs->worker, "--job",     job->folder, "--attempt",
                                  attempt,          "--threads", threads};
    size_t count = 10;
    snprintf(attempt, sizeof attempt, "%u", job->attempt);
    snprintf(ranks, sizeof ranks, "%" PRId64, job->spec.resources.ranks);
    snprintf(threads, sizeof threads, "%" PRId64, job->spec.resources.threads);
    snprintf(lock, sizeof lock, "%d", lock_fd);
    for (size_t i = 0; job->spec.resources.ranks > 1 && i < sizeof mpirun / sizeof *mpirun;
         i++) {
        arguments[count++] = mpirun[i];
    }
    for (size_t i = 0; i < sizeof worker / sizeof *worker; i++) {
        arguments[count++] = worker[i];
    }
    setsid(); /* the terminal's signals are ours: the shim gets them by name */
    signal(SIGPIPE, SIG_DFL);
    fcntl(lock_fd, F_SETFD, 0);
    /* execv takes char *const * for history's sake and changes nothing */
    execv(programs->shim, (char *const *)(uintptr_t)arguments);
    fprintf(stderr, "hebb: start %s: %s\n", programs->shim, strerror(errno));
    _exit(START_FAILED);
}

static int shim_start(pid_t *out, const struct train_programs *programs,
                      const struct train_job *job, int lock_fd, struct err *err)
{
    pid_t self = getpid(), pid = fork();
    if (pid < 0) {
        return err_set(err, ERR_IO, "fork: %s", strerror(errno));
    }
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM); /* without us: save and leave */
        if (getppid() != self) {
            _exit(START_FAILED);
        }
        become_shim(programs, job, lock_fd);
    }
    *out = pid;
    return 0;
}

/* Passes stop requests on until the shim has ended; shows the progress meanwhile. */
static int shim_wait(pid_t shim, struct train_watch *watch, struct err *err)
{
    int status = 0, passed = 0, rc = 0;
    for (;;) {
        pid_t ended = waitpid(shim, &status, WNOHANG);
        rc = rc == 0 ? train_watch_poll(watch, err) : rc;
        if (ended == shim) {
            break;
        }
        if (interrupts > passed) {
            fprintf(stderr, "\n%s\n",
                    passed == 0 ? "hebb: saving a checkpoint, then leaving; once more to kill"
                                : "hebb: killing");
            kill(shim, SIGTERM);
            passed = interrupts;
        }
        nanosleep(&(struct timespec){.tv_nsec = POLL_MS * 1000000L}, NULL);
    }
    if (rc == 0 && (!WIFEXITED(status) || WEXITSTATUS(status) != EXIT_DONE)) {
        rc = err_set(err, ERR_INTERNAL, "hebb-shim ended with %s %d",
                     WIFEXITED(status) ? "code" : "signal",
                     WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
    }
    return rc;
}

static void catch_interrupts(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        sigaction(signals[i], &action, NULL);
    }
}

static int attempt_run(const struct train_job *job, const struct train_programs *programs,
                       bool json, int *code, struct err *err)
{
    char events[FSX_PATH_MAX], reason[ERR_TEXT_MAX] = "";
    struct train_watch watch;
    pid_t shim = -1;
    int lock_fd = -1;
    int rc = fsx_path(events, err, "%s/events.jsonl", job->folder);
    if (rc == 0) {
        rc = train_job_begin(job, &lock_fd, err);
    }
    if (rc != 0) {
        return rc;
    }
    train_watch_init(&watch, events, json);
    catch_interrupts();
    rc = shim_start(&shim, programs, job, lock_fd, err);
    close(lock_fd);
    if (rc == 0) {
        rc = shim_wait(shim, &watch, err);
    }
    if (rc == 0) {
        rc = train_job_end(job, job->attempt, code, reason, sizeof reason, err);
    }
    if (rc == 0 && (*code == EXIT_DONE || *code == EXIT_STOPPED)) {
        train_watch_summary(&watch, job->folder);
    } else if (rc == 0) {
        fprintf(stderr, "hebb: attempt %u failed: %s (%s/attempt-%u/log.txt)\n", job->attempt,
                reason, job->folder, job->attempt);
    }
    train_watch_release(&watch);
    return rc;
}

int tool_train(int argc, char **argv)
{
    const char *out = NULL, *worker = NULL;
    uint64_t ranks = 0, threads = 0;
    bool json = false;
    struct option_list rest;
    const struct option_row options[] = {
        {"out", OPTION_TEXT, &out, 0, 0},
        {"ranks", OPTION_COUNT, &ranks, 1, RANKS_MAX},
        {"threads", OPTION_COUNT, &threads, 1, THREADS_MAX},
        {"worker", OPTION_TEXT, &worker, 0, 0},
        {"json", OPTION_FLAG, &json, 0, 0},
        {0},
    };
    int code = options_parse(argc, argv, options, &rest);
    if (code != EXIT_DONE) {
        return code;
    }
    if (rest.count != 1 || !out) {
        return tool_usage(argv[0], "one job file and --out FOLDER are needed");
    }
    struct err err = {0};
    struct train_programs programs;
    struct train_job job;
    int rc = programs_find(&programs, worker, &err);
    if (rc == 0) {
        rc = train_job_open(&job, rest.items[0], out, ranks, threads, &err);
    }
    if (rc != 0) {
        return tool_fail(&err);
    }
    if (job.done) {
        fprintf(stderr, "hebb: %s is done\n", job.folder);
    } else {
        rc = attempt_run(&job, &programs, json, &code, &err);
    }
    train_job_close(&job);
    if (rc != 0) {
        return tool_fail(&err);
    }
    /* A worker's code that is none of ours (a signal: 137) is a failure that a retry may cure.
     */
    return code >= EXIT_DONE && code <= EXIT_UNSUPPORTED ? code
           : code == EXIT_STOPPED                        ? code
                                                         : EXIT_FAILED;
}
