/* Attempts as batch jobs of Slurm.
 *
 * What an attempt is doing is asked in this order: exit.json; the last squeue; accounting; and
 * where nothing tells, after a grace time in which neither the shim gave a sign of life nor
 * exit.json came, it is lost. While Slurm cannot be reached nothing is concluded from silence.
 */
#include "daemon/slurm_internal.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What the files and the last squeue say of an attempt at this moment. */
struct look {
    struct slurm_attempt *attempt;
    const struct launch *launch;
    const struct slurm_job *job; /* NULL: not listed */
    bool wanted, begun;          /* launch, shim.json are there */
    bool known; /* the last squeue is late enough to believe that it is not listed */
    int64_t now;
};

static bool has(const struct slurm_attempt *attempt, const char *name)
{
    char path[FSX_PATH_MAX];
    return fsx_path(path, NULL, "%s/%s", attempt->folder, name) == 0 && fsx_exists(path);
}

/* From here on the batch job, should it still come, does nothing. */
static int withdraw(const struct slurm_attempt *attempt, struct err *err)
{
    char path[FSX_PATH_MAX];
    int code = fsx_path(path, err, "%s/launch", attempt->folder);
    if (code == 0 && unlink(path) != 0 && errno != ENOENT)
        code = err_set(err, ERR_IO, "remove %s: %s", path, strerror(errno));
    return code == 0 ? fsx_sync(attempt->folder, err) : code;
}

static int no_slurm(struct err *err)
{
    return err_set(err, ERR_CONFLICT, "this daemon was started without Slurm (hebbd --slurm)");
}

static void __attribute__((format(printf, 4, 5)))
ends(struct launch_status *out, enum launch_state state, int code, const char *format, ...)
{
    va_list args;
    out->state = state;
    out->end = (struct shim_exit){.code = code, .rank = -1};
    va_start(args, format);
    vsnprintf(out->end.reason, sizeof out->end.reason, format, args);
    va_end(args);
}

/* --- start --- */

static int slurm_start(const struct launch *launch, struct err *err)
{
    struct slurm_attempt *attempt;
    if (launch->slurm == NULL)
        return no_slurm(err);
    int code = slurm_attempt_get(launch->slurm, launch, &attempt, err);
    if (code != 0 || has(attempt, "launch") || has(attempt, "shim.json") ||
        has(attempt, "exit.json"))
        return code;
    code = fsx_mkdirs(attempt->folder, 0700, err);
    return code == 0 ? slurm_launch_write(launch->slurm, launch, err) : code;
}

/* --- status --- */

/* The words for a job that waits or runs, "" if there is nothing to say. */
static void say_waiting(const struct look *look, struct launch_status *out)
{
    const struct slurm_attempt *attempt = look->attempt;
    const struct slurm_job *job = look->job;
    if (!slurm_reached(attempt->slurm)) {
        snprintf(out->reason, sizeof out->reason, "%.500s", attempt->slurm->trouble);
        return;
    }
    if (job == NULL || job->phase == SLURM_ENDED) {
        if (attempt->trouble[0] != '\0')
            snprintf(out->reason, sizeof out->reason, "Slurm has not taken it yet: %.400s",
                     attempt->trouble);
        return;
    }
    const char *never = slurm_never(job->reason);
    if (job->phase == SLURM_WAITS && never != NULL)
        snprintf(out->reason, sizeof out->reason, "Slurm job %" PRId64 " cannot start: %s (%s)",
                 job->number, never, job->reason);
    else if (job->phase == SLURM_WAITS)
        snprintf(out->reason, sizeof out->reason, "Slurm job %" PRId64 " waits: %s",
                 job->number, job->reason);
}

/* exit.json is there. Slurm is given time to say that the job is over, so that the next attempt
 * does not meet it and a cancellation from elsewhere can be told. */
static void after_exit(struct look *look, struct launch_status *out)
{
    struct slurm_attempt *attempt = look->attempt;
    const struct slurm_job *job = look->job;
    if (attempt->exit_ms == 0) {
        attempt->exit_ms = attempt->mark_ms = look->now;
        look->known = false;
        slurm_ask(attempt->slurm);
    }
    bool over = look->known && (job == NULL || job->phase == SLURM_ENDED);
    out->busy = !over && look->now - attempt->exit_ms < 1000 * SLURM_SETTLE_S;
    if (out->busy) {
        out->state = LAUNCH_RUNNING;
        return;
    }
    out->state = LAUNCH_EXITED;
    bool foreign = over && job != NULL && strcmp(job->state, "CANCELLED") == 0 &&
                   !attempt->cancelled && !look->launch->stopping;
    if (out->end.code != EXIT_DONE && foreign)
        ends(out, LAUNCH_EXITED, EXIT_USAGE, "cancelled in Slurm, not through hebb");
    else if (out->end.code == EXIT_STOPPED && !look->launch->stopping)
        ends(out, LAUNCH_EXITED, EXIT_STOPPED, LAUNCH_TIME_IS_UP);
}

/* Slurm's last word of a job that is over. */
static const char *last_state(const struct look *look)
{
    if (look->job != NULL && look->job->phase == SLURM_ENDED)
        return look->job->state;
    return look->attempt->accounted[0] != '\0' ? look->attempt->accounted : NULL;
}

/* The shim touches the lock every second; the file system's clock is not compared with ours. */
static bool shim_moves(struct slurm_attempt *attempt)
{
    char path[FSX_PATH_MAX];
    struct stat info;
    int64_t beat = 0;
    if (fsx_path(path, NULL, "%s/lock", attempt->folder) == 0 && stat(path, &info) == 0)
        beat = (int64_t)info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec;
    bool moved = beat != attempt->beat;
    attempt->beat = beat;
    return moved;
}

/* Listed as over, or not listed any more. True in *out->busy while its end may still show. */
static void when_gone(struct look *look, struct launch_status *out)
{
    struct slurm_attempt *attempt = look->attempt;
    int64_t squeue = attempt->slurm->began_ms;
    if (look->job == NULL && attempt->number > 0 && !attempt->calling &&
        look->now - attempt->accounted_ms > SLURM_AGAIN_MS)
        slurm_account(attempt);
    if (attempt->absent_ms == 0 || shim_moves(attempt))
        attempt->absent_ms = squeue;
    const char *state = last_state(look);
    bool cancelled = state != NULL && strcmp(state, "CANCELLED") == 0;
    if (!look->begun && cancelled && withdraw(attempt, NULL) == 0) {
        bool ours = attempt->cancelled || look->launch->stopping;
        ends(out, LAUNCH_EXITED, ours ? EXIT_STOPPED : EXIT_USAGE,
             ours ? "withdrawn from Slurm's queue" : "cancelled in Slurm, not through hebb");
        return;
    }
    out->state = LAUNCH_RUNNING;
    out->busy = true;
    if (squeue - attempt->absent_ms < 1000 * (int64_t)attempt->slurm->config->grace_s)
        return;
    out->busy = false;
    if (state != NULL && look->begun)
        ends(out, LAUNCH_LOST, EXIT_FAILED, "lost: Slurm job %" PRId64 " ended as %s",
             look->job != NULL ? look->job->number : attempt->number, state);
    else if (look->begun)
        ends(out, LAUNCH_LOST, EXIT_FAILED,
             "lost: Slurm does not know job %" PRId64 " any more", attempt->number);
    else if (state != NULL)
        ends(out, LAUNCH_LOST, EXIT_FAILED,
             "Slurm job %" PRId64 " ended as %s before the attempt had begun; slurm.txt of the "
             "attempt may say why",
             look->job != NULL ? look->job->number : attempt->number, state);
    else { /* never begun, forgotten: as if it had not been submitted */
        log_warn("attempt %s: Slurm has forgotten job %" PRId64, attempt->key, attempt->number);
        attempt->number = attempt->absent_ms = attempt->submit_ms = 0;
        out->busy = true;
    }
}

static void before_job(struct look *look, struct launch_status *out)
{
    struct slurm_attempt *attempt = look->attempt;
    struct err err = {.text = ""};
    out->state = LAUNCH_RUNNING;
    out->busy = true;
    if (attempt->refused) {
        out->busy = false;
        withdraw(attempt, NULL);
        ends(out, LAUNCH_EXITED, EXIT_USAGE, "Slurm refuses the job: %.*s",
             SHIM_MESSAGE_MAX - 32, attempt->trouble);
    } else if (look->launch->stopping && withdraw(attempt, NULL) == 0) {
        out->busy = false;
        ends(out, LAUNCH_EXITED, EXIT_STOPPED, "withdrawn before it was submitted");
    } else if (attempt->submit_ms == 0 || look->now - attempt->submit_ms > SLURM_AGAIN_MS) {
        int code = slurm_submit(attempt, look->launch, &err);
        bool final = code == ERR_INVALID || code == ERR_CORRUPT || code == ERR_UNSUPPORTED;
        if (code == 0)
            return;
        snprintf(attempt->trouble, sizeof attempt->trouble, "%s", err.text);
        attempt->refused = final; /* ERR_CONFLICT: an sbatch of an earlier daemon still runs */
    }
}

/* Listed, and not over. */
static void while_listed(struct look *look, int64_t more, struct launch_status *out)
{
    static const char *const pending[] = {"--state=PENDING", NULL};
    struct slurm_attempt *attempt = look->attempt;
    bool again = look->now - attempt->cancel_ms > SLURM_AGAIN_MS || attempt->cancel_ms == 0;
    out->state = LAUNCH_RUNNING;
    out->busy = true;
    attempt->absent_ms = 0;
    attempt->trouble[0] = '\0';
    if (attempt->number != look->job->number) {
        attempt->number = look->job->number;
        slurm_number_write(attempt, NULL);
    }
    if (more != 0 && again) {
        log_warn("attempt %s is in Slurm twice; job %" PRId64 " is cancelled", attempt->key,
                 more);
        slurm_cancel(attempt, more, pending);
    } else if (look->launch->stopping && look->job->phase == SLURM_WAITS && again) {
        attempt->cancelled = true;
        slurm_cancel(attempt, attempt->number, pending);
    }
}

static int slurm_status(const struct launch *launch, struct launch_status *out, struct err *err)
{
    struct look look = {.launch = launch, .now = clock_monotonic_ms()};
    struct err why;
    int64_t more;
    memset(out, 0, sizeof *out);
    if (launch->slurm == NULL)
        return no_slurm(err);
    int code = slurm_attempt_get(launch->slurm, launch, &look.attempt, err);
    if (code != 0)
        return code;
    struct slurm_attempt *attempt = look.attempt;
    look.job = slurm_job_of(launch->slurm, attempt->key, &more);
    look.wanted = has(attempt, "launch");
    look.begun = has(attempt, "shim.json");
    look.known = launch->slurm->began_ms > attempt->mark_ms;
    bool over = look.job == NULL || look.job->phase == SLURM_ENDED;
    int ended = shim_exit_read(&out->end, attempt->folder, &why);
    if (ended == 0)
        after_exit(&look, out);
    else if (!look.wanted && !look.begun) {
        out->busy = fsx_exists(attempt->folder) && !(look.known && over);
        ends(out, LAUNCH_LOST, EXIT_FAILED, "lost: the attempt was not submitted to Slurm");
    } else if (!over)
        while_listed(&look, more, out);
    else if (look.known && (look.job != NULL || look.begun || attempt->number > 0))
        when_gone(&look, out);
    else if (look.known && !attempt->calling)
        before_job(&look, out);
    else
        out->busy = true; /* LAUNCH_RUNNING: nothing is known yet */
    if (out->state == LAUNCH_RUNNING)
        say_waiting(&look, out);
    return 0;
}

/* --- the end --- */

static int slurm_signal(const struct launch *launch, enum launch_signal signal, struct err *err)
{
    static const char *const shim[] = {"--batch", "--signal=TERM", NULL};
    struct slurm_attempt *attempt;
    if (launch->slurm == NULL)
        return no_slurm(err);
    int code = slurm_attempt_get(launch->slurm, launch, &attempt, err);
    if (code != 0 || signal == LAUNCH_WAKE)
        return code;
    if (attempt->number == 0)
        return err_set(err, ERR_CONFLICT, "attempt %s has no job in Slurm", attempt->key);
    attempt->cancelled = true;
    slurm_cancel(attempt, attempt->number, signal == LAUNCH_STOP ? shim : NULL);
    return 0;
}

static int slurm_clean(const struct launch *launch, struct err *err)
{
    struct slurm_attempt *attempt;
    struct shim_paths paths;
    if (launch->slurm == NULL)
        return no_slurm(err);
    int code = slurm_attempt_get(launch->slurm, launch, &attempt, err);
    if (code == 0)
        code = shim_paths(&paths, launch->folder, launch->attempt, err);
    if (code != 0 || !fsx_exists(attempt->folder))
        return code;
    code = withdraw(attempt, err);
    return code == 0 ? fsx_remove_tree(paths.tmp, err) : code;
}

const struct launcher launcher_slurm = {
    .name = "slurm",
    .start = slurm_start,
    .status = slurm_status,
    .signal = slurm_signal,
    .clean = slurm_clean,
};
