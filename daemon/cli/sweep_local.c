/* A sweep's runs one after the other, each by `hebb train` in a folder of its own. `hebb train`
 * knows a folder that is done and one to go on with, so that a sweep called again resumes. */
#include "daemon/cli/cli.h"
#include "daemon/cli/sweep.h"
#include "proto/base/fsx.h"
#include "proto/base/mem.h"
#include "proto/json/json.h"
#include "proto/msg/spec.h"
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LOCAL_POLL_MS = 50, LOCAL_STEM_MAX = 160, START_FAILED = 127 };

static volatile sig_atomic_t interrupts; /* stop requests so far */

static void on_interrupt(int signal)
{
    (void)signal;
    interrupts++;
}

int sweep_local_check(struct sweep_plan *plan)
{
    for (size_t i = 0; i < plan->arm_count; i++) { /* the first seed's runs come first */
        struct job_spec spec;
        struct estimate estimate;
        struct buf text;
        struct err err = {0};
        cJSON *tree = NULL;
        buf_init(&text, CLIENT_BODY_MAX);
        int rc = spec_parse(&spec, plan->runs[i].body, strlen(plan->runs[i].body), NULL, &err);
        if (!rc) {
            estimate_job(&spec, &estimate);
            estimate_print(&spec, &estimate, &text);
            spec_release(&spec);
            rc = text.failed ? err_set(&err, ERR_NO_MEMORY, "no memory for an estimate")
                             : json_parse(&tree, text.data, text.len, &err);
        }
        if (!rc) {
            sweep_price(&plan->arms[plan->runs[i].arm], tree);
        }
        cJSON_Delete(tree);
        buf_release(&text);
        if (rc) {
            return client_fail(&err);
        }
    }
    return EXIT_DONE;
}

/* --- folders --- */

/* A file name from arm and seed: what is no letter, digit, '.', '=', '-' becomes '_'. */
static void stem_of(const struct sweep_plan *plan, const struct sweep_run *run,
                    char out[LOCAL_STEM_MAX])
{
    snprintf(out, LOCAL_STEM_MAX, "%.100s-seed-%.24s", plan->arms[run->arm].name, run->seed);
    for (char *c = out; *c; c++) {
        if (!isalnum((unsigned char)*c) && !strchr(".=-", *c)) {
            *c = '_';
        }
    }
    if (out[0] == '.') {
        out[0] = '_';
    }
}

/* The run's folder and job file; a name that an earlier run has too gets the key's first
 * digits. */
static int place_run(const struct sweep_plan *plan, size_t index, const char *folder,
                     char out[FSX_PATH_MAX], char file[FSX_PATH_MAX], struct err *err)
{
    char stem[LOCAL_STEM_MAX], other[LOCAL_STEM_MAX];
    const struct sweep_run *run = &plan->runs[index];
    bool taken = false;
    stem_of(plan, run, stem);
    for (size_t i = 0; i < index && !taken; i++) {
        stem_of(plan, &plan->runs[i], other);
        taken = strcmp(stem, other) == 0;
    }
    const char *digest = strrchr(run->key, '-') + 1;
    int rc =
        fsx_path(out, err, "%s/%s%s%.8s", folder, stem, taken ? "-" : "", taken ? digest : "");
    return rc ? rc : fsx_path(file, err, "%s.json", out);
}

/* --- hebb train --- */

static _Noreturn void become_train(const char *file, const char *folder)
{
    char self[FSX_PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    setpgid(0, 0); /* the terminal's ctrl-C is ours to pass on */
    if (len > 0 && null >= 0 && dup2(null, STDIN_FILENO) >= 0 &&
        dup2(null, STDOUT_FILENO) >= 0) {
        self[len] = '\0';
        execl(self, "hebb", "train", file, "--out", folder, (char *)NULL);
    }
    fprintf(stderr, "hebb: start hebb train: %s\n", strerror(errno));
    _exit(START_FAILED);
}

/* Runs hebb train to its end; its exit code, 128 + signal if one ended it, -1: did not start.
 */
static int train(const char *file, const char *folder)
{
    int status = 0, passed = 0;
    pid_t self = getpid(), pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM); /* without us: save and leave */
        if (getppid() != self) {
            _exit(START_FAILED);
        }
        become_train(file, folder);
    }
    if (pid < 0) {
        fprintf(stderr, "hebb: fork: %s\n", strerror(errno));
        return -1;
    }
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (interrupts > passed) {
            kill(pid, SIGINT);
            passed++;
        }
        nanosleep(&(struct timespec){.tv_nsec = LOCAL_POLL_MS * 1000000L}, NULL);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Runs one run and takes its record in. EXIT_STOPPED: on request. */
static int do_run(struct sweep_plan *plan, size_t index, const char *folder)
{
    struct sweep_run *run = &plan->runs[index];
    char place[FSX_PATH_MAX], file[FSX_PATH_MAX], name[FORMAT_LINE_MAX], reason[64];
    struct err err = {0};
    int rc = place_run(plan, index, folder, place, file, &err);
    if (!rc) {
        rc = fsx_publish(file, run->body, strlen(run->body), 0644, &err);
    }
    if (rc) {
        return client_fail(&err);
    }
    fprintf(stderr, "[%zu/%zu] %s\n", index + 1, plan->run_count,
            sweep_run_name(plan, run, name));
    int code = train(file, place);
    if (code == EXIT_STOPPED || interrupts > 0) {
        return EXIT_STOPPED;
    }
    snprintf(reason, sizeof(reason), "hebb train ended with code %d", code);
    if (!(run->id = mem_strdup(place))) {
        fprintf(stderr, "hebb: out of memory\n");
        return EXIT_FAILED;
    }
    snprintf(run->state, sizeof(run->state), "%s", code == EXIT_DONE ? "succeeded" : "failed");
    char spec[FSX_PATH_MAX];
    bool made = !fsx_path(spec, &err, "%s/spec.json", place) && fsx_exists(spec);
    summary_init(&run->record.summary);
    if (made && record_from_folder(&run->record, place) != EXIT_DONE) {
        return EXIT_FAILED;
    }
    run->recorded = true;
    snprintf(run->record.state, sizeof(run->record.state), "%s", run->state);
    snprintf(run->record.reason, sizeof(run->record.reason), "%s",
             code == EXIT_DONE ? "" : reason);
    return EXIT_DONE;
}

int sweep_local_run(struct sweep_plan *plan, const char *folder)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = SA_RESTART};
    struct err err = {0};
    int code = EXIT_DONE;
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        sigaction(signals[i], &action, NULL);
    }
    if (fsx_mkdirs(folder, 0755, &err)) {
        return client_fail(&err);
    }
    for (size_t i = 0; i < plan->run_count && code == EXIT_DONE; i++) {
        code = interrupts > 0 ? EXIT_STOPPED : do_run(plan, i, folder);
    }
    if (code == EXIT_STOPPED) {
        fprintf(stderr, "stopped; the same command goes on from here\n");
    }
    return code;
}
