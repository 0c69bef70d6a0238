/* One attempt of a job: its start, what is seen of it, its end. */
#include "daemon/jobs_internal.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "proto/base/mem.h"
#include "proto/json/json.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- what the ticks keep in memory --- */

/* Reads the few fields that are needed, so that a job accepted by an older hebbd can always be
 * looked after. */
static int read_run(struct jobs *jobs, const char *id, struct job_run *run, struct err *err)
{
    struct buf text;
    cJSON *spec = NULL;
    buf_init(&text, 4 * SPEC_BODY_MAX);
    int code = store_job_spec(jobs->store, id, &text, err);
    if (code == 0 && (code = json_parse(&spec, text.data, text.len, err)) != 0)
        err_wrap(err, code, "the stored spec is damaged");
    buf_release(&text);
    if (code != 0)
        return code;
    const cJSON *resources = json_object(spec, "resources"),
                *restart = json_object(spec, "restart");
    const char *launcher = resources != NULL ? json_string(resources, "launcher") : NULL;
    memset(run, 0, sizeof *run);
    snprintf(run->id, sizeof run->id, "%s", id);
    if (launcher == NULL || restart == NULL || !json_int(&run->ranks, resources, "ranks") ||
        !json_int(&run->restart_max, restart, "max") ||
        !json_real(&run->backoff_s, restart, "backoff_s"))
        code = err_set(err, ERR_CORRUPT, "the stored spec lacks /resources or /restart");
    else if ((run->launcher = launcher_find(launcher)) == NULL)
        code = err_set(err, ERR_UNSUPPORTED, "'%s' is not a launcher of this daemon", launcher);
    cJSON_Delete(spec);
    return code;
}

int jobs_run_get(struct jobs *jobs, const char *id, struct job_run **out, struct err *err)
{
    for (size_t i = 0; i < jobs->run_count; i++)
        if (strcmp(jobs->runs[i].id, id) == 0) {
            *out = &jobs->runs[i];
            return 0;
        }
    if (jobs->run_count == jobs->run_cap) {
        size_t cap = jobs->run_cap != 0 ? 2 * jobs->run_cap : 8;
        struct job_run *grown = reallocarray(jobs->runs, cap, sizeof *grown);
        if (grown == NULL)
            return err_set(err, ERR_NO_MEMORY, "jobs: out of memory");
        jobs->runs = grown;
        jobs->run_cap = cap;
    }
    int code = read_run(jobs, id, &jobs->runs[jobs->run_count], err);
    if (code == 0)
        *out = &jobs->runs[jobs->run_count++];
    return code;
}

void jobs_run_drop(struct jobs *jobs, const char *id)
{
    for (size_t i = 0; i < jobs->run_count; i++)
        if (strcmp(jobs->runs[i].id, id) == 0) {
            jobs->runs[i] = jobs->runs[--jobs->run_count];
            return;
        }
}

void jobs_launch_init(const struct jobs *jobs, const struct job_run *run, const char *folder,
                      int64_t attempt, struct launch *out)
{
    *out = (struct launch){.folder = folder,
                           .attempt = attempt,
                           .ranks = run->ranks,
                           .shim_path = jobs->daemon->config.shim_path,
                           .worker_path = jobs->daemon->config.worker_path,
                           .stop_grace_s = jobs->daemon->config.stop_grace_s,
                           .hung_s = jobs->daemon->config.hung_s,
                           .slurm = jobs->slurm};
}

/* --- the end --- */

static double backoff_s(const struct job_run *run, int64_t failures)
{
    double wait = run->backoff_s * exp2((double)(failures > 32 ? 32 : failures - 1));
    return wait < JOBS_BACKOFF_MAX_S ? wait : JOBS_BACKOFF_MAX_S;
}

static enum job_event judge(const struct job_progress *progress, const struct job_row *job,
                            struct shim_exit *end)
{
    switch (end->code) {
    case EXIT_DONE:
        if (progress->done && progress->attempt == job->attempt)
            return EVENT_DONE;
        snprintf(end->reason, sizeof end->reason,
                 "the worker left with code 0 but wrote no done event");
        return EVENT_FAILED;
    case EXIT_STOPPED:
        return EVENT_STOPPED;
    case EXIT_USAGE:
    case EXIT_DATA:
    case EXIT_UNSUPPORTED:
        return EVENT_FATAL;
    default:
        return EVENT_FAILED;
    }
}

/* The words that a user reads as the job's reason in its new state. */
static void say(char out[STORE_TEXT_MAX], enum job_state next, enum job_event event,
                const struct job_row *job, const struct shim_exit *end, double wait_s)
{
    bool failed = event == EVENT_FATAL || event == EVENT_FAILED || event == EVENT_EXHAUSTED;
    out[0] = '\0';
    if (next == JOB_RETRY_WAIT)
        snprintf(out, STORE_TEXT_MAX,
                 "attempt %" PRId64 " failed: %s; the next one starts in %.0f s", job->attempt,
                 end->reason, wait_s);
    else if (next == JOB_FAILED)
        snprintf(out, STORE_TEXT_MAX, "attempt %" PRId64 ": %s", job->attempt, end->reason);
    else if (next == JOB_PAUSED || next == JOB_CANCELLED)
        snprintf(out, STORE_TEXT_MAX, "%s on request%s%s",
                 next == JOB_PAUSED ? "paused" : "cancelled",
                 failed ? "; the attempt ended with: " : "", failed ? end->reason : "");
    else if (next == JOB_QUEUED)
        snprintf(out, STORE_TEXT_MAX, "attempt %" PRId64 " was %s; its checkpoint is on disk",
                 job->attempt, end->reason);
}

static const char stopped_from_outside[] = "stopped from outside";

static int count_stops(void *context, const struct attempt_row *attempt)
{
    int *stops = context;
    bool outside = attempt->end.code == EXIT_STOPPED &&
                   strcmp(attempt->end.reason, stopped_from_outside) == 0;
    if (attempt->finished_ms != 0) /* the one that is being judged is not written down yet */
        *stops = outside ? *stops + 1 : 0;
    return 0;
}

/* Code 75 that nobody here asked for (a user's signal, a machine that goes down): the job is
 * queued again, but not for ever. */
static int judge_stop(struct jobs *jobs, const struct job_row *job, enum job_event *event,
                      struct shim_exit *end, struct err *err)
{
    int stops = 0;
    if (strcmp(end->reason, LAUNCH_TIME_IS_UP) == 0 || *event != EVENT_STOPPED ||
        job->state == JOB_PAUSING || job->state == JOB_CANCELLING)
        return 0;
    int code = store_attempts(jobs->store, job->id, count_stops, &stops, err);
    if (stops >= JOBS_STOPS_MAX) {
        *event = EVENT_FAILED;
        snprintf(end->reason, sizeof end->reason, "stopped from outside %d times in a row",
                 stops + 1);
    } else
        snprintf(end->reason, sizeof end->reason, "%s", stopped_from_outside);
    return code;
}

/* Writes down how the attempt ended and moves the job on. The events have all been read. */
static int finish(struct jobs *jobs, struct job_row *job, const struct job_run *run,
                  struct shim_exit *end, struct err *err)
{
    struct job_progress progress;
    char reason[STORE_TEXT_MAX];
    int code = store_progress(jobs->store, job->id, &progress, err);
    if (code != 0)
        return code;
    enum job_event event = judge(&progress, job, end);
    code = judge_stop(jobs, job, &event, end, err);
    if (code != 0)
        return code;
    double wait_s = 0;
    if (event == EVENT_FAILED) {
        job->failures++;
        if (job->failures > run->restart_max)
            event = EVENT_EXHAUSTED;
        else
            wait_s = backoff_s(run, job->failures);
    }
    enum job_state next;
    if (!job_state_next(job->state, event, &next))
        return err_set(err, ERR_INTERNAL, "job %s is %s and its attempt %s", job->id,
                       job_state_name(job->state), job_event_name(event));
    job->retry_at_ms = next == JOB_RETRY_WAIT ? clock_wall_ms() + (int64_t)(wait_s * 1000) : 0;
    struct attempt_exit row = {.code = end->code, .signal = end->signal, .rank = end->rank};
    snprintf(row.reason, sizeof row.reason, "%s", end->reason);
    say(reason, next, event, job, end, wait_s);
    code = store_attempt_end(jobs->store, job->id, job->attempt, &row, err);
    if (code == 0)
        code = store_job_update(jobs->store, job, err);
    if (code == 0)
        code = jobs_move(jobs, job, event, reason, err);
    if (code == 0)
        jobs_run_drop(jobs, job->id);
    return code;
}

/* --- the start --- */

/* True in *busy if the attempt before this one lives, whatever the rows say: two attempts must
 * never share a folder. */
static int earlier_busy(const struct launch *launch, const struct launcher *launcher,
                        bool *busy, struct err *err)
{
    struct launch earlier = *launch;
    struct launch_status status = {.busy = false};
    int code = 0;
    if (--earlier.attempt > 0)
        code = launcher->status(&earlier, &status, err);
    *busy = status.busy;
    return code;
}

static int record_start(struct jobs *jobs, struct job_row *job, int64_t attempt,
                        struct err *err)
{
    job->attempt = attempt;
    if (job->started_ms == 0)
        job->started_ms = clock_wall_ms();
    int code = store_attempt_begin(jobs->store, job->id, attempt, err);
    return code == 0 ? store_job_update(jobs->store, job, err) : code;
}

int jobs_attempt_adopt(struct jobs *jobs, struct job_row *job, int64_t attempt, bool *begun,
                       struct err *err)
{
    char folder[FSX_PATH_MAX];
    struct job_run *run;
    struct launch launch;
    struct launch_status status;
    *begun = false;
    int code = jobs_run_get(jobs, job->id, &run, err);
    if (code == 0)
        code = jobs_path(jobs, job->id, folder, sizeof folder, err);
    if (code != 0)
        return code;
    jobs_launch_init(jobs, run, folder, attempt, &launch);
    code = run->launcher->status(&launch, &status, err);
    if (code != 0 || (status.state == LAUNCH_LOST && !status.busy))
        return code;
    *begun = true;
    return record_start(jobs, job, attempt, err);
}

int jobs_attempt_start(struct jobs *jobs, struct job_row *job, int64_t attempt, struct err *err)
{
    char folder[FSX_PATH_MAX];
    struct job_run *run;
    struct launch launch;
    struct err why;
    bool busy = false;
    int code = jobs_run_get(jobs, job->id, &run, err);
    if (code == 0)
        code = jobs_path(jobs, job->id, folder, sizeof folder, err);
    if (code != 0)
        return code;
    jobs_launch_init(jobs, run, folder, attempt, &launch);
    code = earlier_busy(&launch, run->launcher, &busy, err);
    if (code != 0 || busy) {
        log_debug("job %s: attempt %" PRId64 " waits for the end of the one before", job->id,
                  attempt);
        return code;
    }
    int launched = jobs_control_write(jobs, job->id, "run", &why);
    if (launched == 0)
        launched = run->launcher->start(&launch, &why);
    if (launched == ERR_NO_SPACE || launched == ERR_CONFLICT)
        /* not the job's fault: the intent stays */
        return err_set(err, launched, "%s", why.text);
    code = record_start(jobs, job, attempt, err);
    if (code == 0)
        code = store_intent_remove(jobs->store, job->id, INTENT_START, err);
    if (code == 0 && launched != 0) {
        struct shim_exit end = {.code = err_exit_code(launched), .rank = -1};
        snprintf(end.reason, sizeof end.reason, "%.*s", SHIM_MESSAGE_MAX - 1, why.text);
        return finish(jobs, job, run, &end, err);
    }
    if (code == 0)
        log_info("job %s: attempt %" PRId64 " started", job->id, attempt);
    return code;
}

/* --- while it runs --- */

static int64_t or_default(int seconds, int usual) { return seconds > 0 ? seconds : usual; }

/* Keeps `stop` in the control file (a rank that took a checkpoint may have written `run` over
 * it) and presses harder when the job does not stop. */
static int press(struct jobs *jobs, const struct job_row *job, struct job_run *run,
                 const struct launch *launch, struct err *err)
{
    char path[FSX_PATH_MAX];
    struct buf word;
    const struct daemon_config *config = &jobs->daemon->config;
    int64_t now = clock_monotonic_ms();
    if (run->stopping != job->state) {
        run->stopping = job->state;
        run->stage = 0;
        run->next_ms =
            now + 1000 * (job->state == JOB_CANCELLING
                              ? or_default(config->cancel_grace_s, JOBS_CANCEL_GRACE_S)
                              : or_default(config->pause_grace_s, JOBS_PAUSE_GRACE_S));
    }
    buf_init(&word, 64);
    int code = jobs_file(jobs, job->id, "control", path, err);
    if (code == 0 && (fsx_read(&word, path, NULL) != 0 || strncmp(word.data, "stop", 4) != 0))
        code = jobs_control_write(jobs, job->id, "stop", err);
    buf_release(&word);
    if (code != 0 || now < run->next_ms)
        return code;
    enum launch_signal signal = run->stage == 0 ? LAUNCH_STOP : LAUNCH_KILL;
    log_warn("job %s does not stop; %s", job->id,
             signal == LAUNCH_STOP ? "its shim is asked" : "it is killed");
    run->stage++;
    run->next_ms =
        now + 1000 * (or_default(config->stop_grace_s, SHIM_GRACE_S) + JOBS_KILL_AFTER_S);
    struct err why;
    if (run->launcher->signal(launch, signal, &why) != 0)
        log_warn("job %s: %s", job->id, why.text);
    return 0;
}

/* A shim that shows no sign of life is stopped or hangs: its job would never end. */
static void watch_shim(const struct jobs *jobs, const struct job_row *job, struct job_run *run,
                       const struct launch *launch, int64_t beat)
{
    int64_t now = clock_monotonic_ms(), since = now - run->looked_ms;
    bool first = run->looked_ms == 0;
    struct err why;
    run->looked_ms = now;
    if (beat == 0 || first || beat != run->beat) {
        run->beat = beat;
        run->silent_ms = 0;
        run->woken = false;
        return;
    }
    run->silent_ms += since < 1000 ? since : 1000;
    if (run->silent_ms <
        1000 * or_default(jobs->daemon->config.shim_silent_s, JOBS_SHIM_SILENT_S))
        return;
    log_warn("job %s: its shim shows no sign of life; it is %s", job->id,
             run->woken ? "killed" : "woken");
    if (run->launcher->signal(launch, run->woken ? LAUNCH_END : LAUNCH_WAKE, &why) != 0)
        log_warn("job %s: %s", job->id, why.text);
    run->woken = !run->woken;
    run->silent_ms = 0;
}

/* True while what a lost attempt left is still dying: its files are not removed under it, and
 * the job does not go on. */
static bool still_dying(const struct job_row *job, struct job_run *run,
                        const struct launch *launch)
{
    int64_t now = clock_monotonic_ms();
    struct err why;
    if (run->lost_ms == 0)
        run->lost_ms = now;
    int code = run->launcher->clean(launch, &why);
    if (code == ERR_CONFLICT && now - run->lost_ms < 1000 * JOBS_LOST_WAIT_S)
        return true;
    if (code != 0)
        log_warn("job %s: %s", job->id, why.text);
    return false;
}

static int ended(struct jobs *jobs, struct job_row *job, struct job_run *run,
                 const struct launch *launch, struct launch_status *status, struct err *err)
{
    if (status->state == LAUNCH_LOST && still_dying(job, run, launch))
        return 0;
    log_info("job %s: attempt %" PRId64 " ended with code %d: %s", job->id, job->attempt,
             status->end.code, status->end.reason);
    return finish(jobs, job, run, &status->end, err);
}

/* What the launcher has to say of an attempt that waits or cannot be asked is the job's reason.
 */
static int keep_reason(struct jobs *jobs, struct job_row *job, const char *reason,
                       struct err *err)
{
    char cut[STORE_TEXT_MAX];
    snprintf(cut, sizeof cut, "%s", reason);
    if (strcmp(cut, job->reason) == 0)
        return 0;
    int code = store_job_set_reason(jobs->store, job->id, cut, err);
    if (code != 0)
        return code;
    if (cut[0] != '\0')
        log_info("job %s: %s", job->id, cut);
    memcpy(job->reason, cut, sizeof cut);
    jobs_notify(jobs, job->id);
    return 0;
}

/* A file that cannot be read is tried again for a while; then the job goes on without the rest.
 */
static int ingest(struct jobs *jobs, struct job_run *run, bool *caught_up, struct err *err)
{
    int64_t now = clock_monotonic_ms();
    int code = jobs_ingest(jobs, run->id, caught_up, err);
    if (!jobs->unreadable) {
        run->unreadable_ms = 0;
        return code;
    }
    if (run->unreadable_ms == 0)
        run->unreadable_ms = now;
    return now - run->unreadable_ms < 1000 * JOBS_UNREADABLE_S ? code : 0;
}

int jobs_attempt_poll(struct jobs *jobs, struct job_row *job, struct err *err)
{
    char folder[FSX_PATH_MAX];
    struct job_run *run;
    struct launch launch;
    struct launch_status status;
    struct job_progress progress;
    bool caught_up;
    int code = jobs_run_get(jobs, job->id, &run, err);
    if (code == 0)
        code = jobs_path(jobs, job->id, folder, sizeof folder, err);
    if (code != 0)
        return code;
    jobs_launch_init(jobs, run, folder, job->attempt, &launch);
    launch.stopping = job->state == JOB_PAUSING || job->state == JOB_CANCELLING;
    /* Status before events: what it wrote before it ended is then there to be read. */
    code = run->launcher->status(&launch, &status, err);
    if (code == 0)
        code = ingest(jobs, run, &caught_up, err);
    if (code != 0)
        return code;
    if (status.state != LAUNCH_RUNNING)
        return caught_up ? ended(jobs, job, run, &launch, &status, err) : 0;
    watch_shim(jobs, job, run, &launch, status.beat);
    code = keep_reason(jobs, job, status.reason, err);
    if (code != 0)
        return code;
    if (job->state == JOB_STARTING) {
        code = store_progress(jobs->store, job->id, &progress, err);
        if (code == 0 && progress.attempt == job->attempt)
            code = jobs_move(jobs, job, EVENT_BEGIN, "", err);
    } else if (job->state == JOB_PAUSING || job->state == JOB_CANCELLING)
        code = press(jobs, job, run, &launch, err);
    return code;
}
