#include "daemon/jobs.h"
#include "daemon/jobs_internal.h"
#include "daemon/loop.h"
#include "daemon/slurm.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "proto/base/mem.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

enum { POLL_MS_DEFAULT = 200 };

/* --- helpers of the module --- */

int job_rows_add(void *context, const struct job_row *job)
{
    struct job_rows *rows = context;
    if (rows->count == rows->cap) {
        size_t cap = rows->cap != 0 ? 2 * rows->cap : 8;
        struct job_row *grown = reallocarray(rows->items, cap, sizeof *grown);
        if (grown == NULL)
            return ERR_NO_MEMORY;
        rows->items = grown;
        rows->cap = cap;
    }
    rows->items[rows->count++] = *job;
    return 0;
}

void job_rows_release(struct job_rows *rows)
{
    free(rows->items);
    *rows = (struct job_rows){.count = 0};
}

void jobs_notify(struct jobs *jobs, const char *id)
{
    if (jobs->listener != NULL)
        jobs->listener(jobs->listener_context, id);
}

int jobs_move(struct jobs *jobs, struct job_row *job, enum job_event event, const char *reason,
              struct err *err)
{
    enum job_state next;
    if (!job_state_next(job->state, event, &next))
        return err_set(err, ERR_CONFLICT, "job is %s", job_state_name(job->state));
    if (next == job->state)
        return 0;
    int code = store_job_set_state(jobs->store, job->id, next, reason, err);
    if (code != 0)
        return code;
    log_info("job %s: %s -> %s%s%s", job->id, job_state_name(job->state), job_state_name(next),
             reason[0] != '\0' ? ": " : "", reason);
    job->state = next;
    snprintf(job->reason, sizeof job->reason, "%s", reason);
    jobs_notify(jobs, job->id);
    return 0;
}

void jobs_complain(struct jobs *jobs, const char *id, const struct err *why)
{
    int64_t now = clock_monotonic_ms();
    if (strcmp(jobs->complaint.text, why->text) == 0 &&
        now < jobs->complaint_at_ms + 1000 * JOBS_COMPLAINT_S)
        return;
    log_error("job %s: %s", id, why->text);
    jobs->complaint = *why;
    jobs->complaint_at_ms = now;
}

void jobs_end_processes(struct jobs *jobs, const char *id, int64_t attempt)
{
    char folder[FSX_PATH_MAX] = "";
    struct launch launch = {.folder = folder, .attempt = attempt, .ranks = 1};
    struct err err;
    if (attempt > 0 && jobs_path(jobs, id, folder, sizeof folder, NULL) == 0 &&
        launcher_local.signal(&launch, LAUNCH_KILL, &err) != 0 && err.code != ERR_NOT_FOUND)
        log_warn("job %s: %s", id, err.text);
    launch.slurm = jobs->slurm;
    if (attempt > 0 && jobs->slurm != NULL && launch.folder[0] != '\0')
        launcher_slurm.signal(&launch, LAUNCH_KILL, NULL); /* if it has a job there */
}

void jobs_fail_record(struct jobs *jobs, struct job_row *job, const struct err *why)
{
    static const enum intent_kind kinds[] = {INTENT_START, INTENT_PAUSE, INTENT_CANCEL,
                                             INTENT_CHECKPOINT};
    struct err err;
    log_error("job %s: %s", job->id, why->text);
    int code = store_job_set_state(jobs->store, job->id, JOB_FAILED, why->text, &err);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0] && code == 0; i++)
        code = store_intent_remove(jobs->store, job->id, kinds[i], &err);
    if (code != 0)
        log_error("job %s: %s", job->id, err.text);
    jobs_end_processes(jobs, job->id, job->attempt);
    jobs_run_drop(jobs, job->id);
    jobs_notify(jobs, job->id);
}

int jobs_path(const struct jobs *jobs, const char *id, char *out, size_t size, struct err *err)
{
    int len = snprintf(out, size, "%s/jobs/%s", jobs->daemon->config.state_dir, id);
    if (len < 0 || (size_t)len >= size)
        return err_set(err, ERR_LIMIT, "the path of job %s does not fit %zu bytes", id, size);
    return 0;
}

int jobs_file(const struct jobs *jobs, const char *id, const char *name, char out[FSX_PATH_MAX],
              struct err *err)
{
    return fsx_path(out, err, "%s/jobs/%s/%s", jobs->daemon->config.state_dir, id, name);
}

int jobs_control_write(struct jobs *jobs, const char *id, const char *word, struct err *err)
{
    char path[FSX_PATH_MAX], line[32];
    int code = jobs_file(jobs, id, "control", path, err);
    int len = snprintf(line, sizeof line, "%s\n", word);
    return code == 0 ? fsx_publish(path, line, (size_t)len, 0600, err) : code;
}

/* --- life --- */

int jobs_ready(struct jobs *jobs, struct err *why)
{
    struct statvfs disk;
    const char *state = jobs->daemon->config.state_dir;
    if (!store_writable(jobs->store))
        return err_set(why, ERR_NO_SPACE, "the disk of %s is full or failing", state);
    if (statvfs(state, &disk) != 0)
        return err_set(why, ERR_IO, "%s: %s", state, strerror(errno));
    uint64_t free_mib = (uint64_t)disk.f_bavail * disk.f_frsize >> 20;
    if (free_mib < JOBS_DISK_FREE_MIN)
        return err_set(why, ERR_NO_SPACE,
                       "the disk of %s has %llu MiB left; with less than %d nothing is begun",
                       state, (unsigned long long)free_mib, (int)JOBS_DISK_FREE_MIN);
    return 0;
}

static int poll_launched(struct jobs *jobs, struct err *err)
{
    struct job_rows rows = {.count = 0};
    int code = store_jobs_launched(jobs->store, job_rows_add, &rows, err);
    for (size_t i = 0; code == 0 && i < rows.count; i++) {
        struct err why;
        bool pending = false;
        int failed = jobs_start_pending(jobs, rows.items[i].id, &pending, &why);
        if (failed == 0 && !pending)
            failed = jobs_attempt_poll(jobs, &rows.items[i], &why);
        if (failed == ERR_CORRUPT || failed == ERR_UNSUPPORTED)
            jobs_fail_record(jobs, &rows.items[i], &why);
        else if (failed != 0)
            jobs_complain(jobs, rows.items[i].id, &why);
    }
    job_rows_release(&rows);
    return code;
}

static void tick(void *context)
{
    struct jobs *jobs = context;
    struct err err;
    int code = 0;
    if (!store_writable(
            jobs->store)) /* what cannot be written down is not done; running jobs go on */
        return;
    bool room = jobs_ready(jobs, &err) == 0; /* running jobs are looked after all the same */
    if (!store_pending(jobs->store))         /* else some intents are not committed yet */
        code = jobs_act_on_intents(jobs, room, &err);
    if (code == 0)
        code = poll_launched(jobs, &err);
    if (code == 0)
        code = jobs_requeue_due(jobs, &err);
    if (code == 0 && room)
        code = jobs_schedule(jobs, &err);
    if (code == 0 && jobs->rebuilding)
        code = jobs_rebuild(jobs, &err);
    if (code != 0)
        jobs_complain(jobs, "queue", &err);
}

int jobs_create(struct jobs **out, struct daemon *daemon, struct err *err)
{
    char path[FSX_PATH_MAX];
    struct jobs *jobs = mem_zeroed(1, sizeof *jobs);
    if (jobs == NULL)
        return err_set(err, ERR_NO_MEMORY, "jobs: out of memory");
    jobs->daemon = daemon;
    jobs->store = daemon->store;
    int code = fsx_path(path, err, "%s/jobs", daemon->config.state_dir);
    if (code == 0)
        code = fsx_mkdirs(path, 0700, err);
    if (code == 0)
        code = store_rebuild_pending(jobs->store, &jobs->rebuilding, err);
    if (code == 0 && daemon->config.slurm.commands != NULL)
        code = slurm_create(&jobs->slurm, &daemon->config.slurm, daemon->loop, err);
    if (code != 0) {
        jobs_destroy(jobs);
        return code;
    }
    jobs_adopt(jobs);
    int poll_ms = daemon->config.poll_ms > 0 ? daemon->config.poll_ms : POLL_MS_DEFAULT;
    jobs->timer = loop_add_timer(daemon->loop, poll_ms, tick, jobs);
    *out = jobs;
    return 0;
}

void jobs_destroy(struct jobs *jobs)
{
    if (jobs == NULL)
        return;
    if (jobs->timer != 0)
        loop_remove_timer(jobs->daemon->loop, jobs->timer);
    slurm_destroy(jobs->slurm);
    free(jobs->runs);
    free(jobs->made);
    free(jobs->ingest_buffer);
    free(jobs);
}

void jobs_set_listener(struct jobs *jobs, void (*fn)(void *context, const char *id),
                       void *context)
{
    jobs->listener = fn;
    jobs->listener_context = context;
}

void jobs_reap(struct jobs *jobs)
{
    /* The shims tell by lock and exit.json how they ended; here they only leave the process
     * table. */
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        if (jobs->slurm != NULL)
            slurm_reaped(jobs->slurm, pid, status);
}

void jobs_after_commit(struct jobs *jobs, bool commit_ok)
{
    for (size_t i = 0; i < jobs->made_count && !commit_ok; i++) {
        char path[FSX_PATH_MAX];
        struct err err;
        int code = jobs_path(jobs, jobs->made[i], path, sizeof path, &err);
        if (code == 0)
            code = fsx_remove_tree(path, &err);
        if (code != 0)
            log_warn("%s", err.text);
    }
    jobs->made_count = 0;
    if (!commit_ok) /* what is kept of running jobs may be ahead of the rows */
        jobs->run_count = 0;
}

void jobs_slots(const struct jobs *jobs, int *cores_used, int *cores, int *gpus_used, int *gpus)
{
    int64_t used_cores = 0, used_gpus = 0;
    if (store_jobs_slots(jobs->store, &used_cores, &used_gpus, NULL) != 0)
        log_error("jobs: the slots in use cannot be counted");
    *cores_used = (int)used_cores;
    *gpus_used = (int)used_gpus;
    *cores = jobs->daemon->config.cores;
    *gpus = jobs->daemon->config.gpus;
}

/* --- requests --- */

static int make_id(char id[STORE_ID_MAX], struct err *err)
{
    unsigned char bytes[(STORE_ID_MAX - 1) / 2];
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        return err_set(err, ERR_IO, "getrandom: %s", strerror(errno));
    for (size_t i = 0; i < sizeof bytes; i++)
        snprintf(id + 2 * i, 3, "%02x", bytes[i]);
    return 0;
}

static int remember_made(struct jobs *jobs, const char *id, struct err *err)
{
    if (jobs->made_count == jobs->made_cap) {
        size_t cap = jobs->made_cap != 0 ? 2 * jobs->made_cap : 8;
        char(*grown)[STORE_ID_MAX] = reallocarray(jobs->made, cap, sizeof *grown);
        if (grown == NULL)
            return err_set(err, ERR_NO_MEMORY, "jobs: out of memory");
        jobs->made = grown;
        jobs->made_cap = cap;
    }
    memcpy(jobs->made[jobs->made_count++], id, STORE_ID_MAX);
    return 0;
}

/* The job folder with its spec.json. On failure nothing is left of it. */
static int make_folder(struct jobs *jobs, const char *id, const struct buf *spec,
                       struct err *err)
{
    char folder[FSX_PATH_MAX], path[FSX_PATH_MAX];
    int code = remember_made(jobs, id, err);
    if (code == 0)
        code = jobs_path(jobs, id, folder, sizeof folder, err);
    if (code == 0)
        code = fsx_path(path, err, "%s/spec.json", folder);
    if (code != 0)
        return code;
    if (mkdir(folder, 0700) != 0)
        return err_set(err, ERR_IO, "create folder %s: %s", folder, strerror(errno));
    code = fsx_publish(path, spec->data, spec->len, 0600, err);
    if (code == 0) {
        char *slash = strrchr(folder, '/');
        *slash = '\0';
        code = fsx_sync(folder, err);
        *slash = '/';
    }
    if (code != 0)
        fsx_remove_tree(folder, NULL);
    return code;
}

static int submit(struct jobs *jobs, struct job_row *job, const struct buf *spec,
                  const char *idem_key, const char *body_hash, bool *existing, struct err *err)
{
    char folder[FSX_PATH_MAX], id[STORE_ID_MAX];
    memcpy(id, job->id, sizeof id);
    int code = make_folder(jobs, id, spec, err);
    if (code != 0)
        return code;
    code = store_job_insert(jobs->store, job, spec->data, idem_key, body_hash, existing, err);
    if ((code != 0 || *existing) && jobs_path(jobs, id, folder, sizeof folder, NULL) == 0)
        fsx_remove_tree(folder, NULL);
    return code;
}

int jobs_submit(struct jobs *jobs, const struct job_spec *spec, const char *idem_key,
                const char *body_hash, struct job_row *out, bool *existing, struct err *err)
{
    struct job_spec resolved;
    struct buf text;
    *existing = false;
    memset(out, 0, sizeof *out);
    int code = jobs_ready(jobs, err);
    if (code == 0)
        code = make_id(out->id, err);
    if (code == 0)
        code = jobs_resolve(jobs, spec, &resolved, err);
    if (code != 0)
        return code;
    snprintf(out->name, sizeof out->name, "%s", resolved.name);
    out->state = JOB_QUEUED;
    out->priority = resolved.priority;
    jobs_slots_needed(&resolved, &out->cores, &out->gpus);
    buf_init(&text, 4 * SPEC_BODY_MAX);
    spec_print(&resolved, &text);
    spec_release(&resolved);
    buf_puts(&text, "\n");
    if (text.failed)
        code = err_set(err, ERR_LIMIT, "the job is longer than %zu bytes", text.max);
    else
        code = submit(jobs, out, &text, idem_key, body_hash, existing, err);
    buf_release(&text);
    if (code == 0 && !*existing) {
        log_info("job %s (%s) submitted", out->id, out->name);
        jobs_notify(jobs, out->id);
    }
    return code;
}

static const struct {
    enum job_event event;
    const char *name;
} actions[] = {
    [ACTION_CANCEL] = {EVENT_CANCEL, "cancel"},
    [ACTION_PAUSE] = {EVENT_PAUSE, "pause"},
    [ACTION_RESUME] = {EVENT_RESUME, "resume"},
    [ACTION_CHECKPOINT] = {EVENT_CHECKPOINT, "checkpoint"},
};

int jobs_act(struct jobs *jobs, const char *id, enum job_action action, struct job_row *out,
             struct err *err)
{
    struct job_row job;
    int code = store_job_get(jobs->store, id, &job, err);
    if (code != 0)
        return code;
    enum job_state before = job.state, next;
    if (!job_state_next(job.state, actions[action].event, &next))
        return err_set(err, ERR_CONFLICT, "job is %s", job_state_name(job.state));
    const char *reason = next == JOB_PAUSED      ? "paused on request"
                         : next == JOB_CANCELLED ? "cancelled on request"
                                                 : "";
    code = jobs_move(jobs, &job, actions[action].event, reason, err);
    if (code == 0 && job.state != before && job.state == JOB_PAUSING)
        code = store_intent_put(jobs->store, id, INTENT_PAUSE, job.attempt, err);
    if (code == 0 && job.state != before && job.state == JOB_CANCELLING)
        code = store_intent_put(jobs->store, id, INTENT_CANCEL, job.attempt, err);
    if (code == 0 && action == ACTION_CHECKPOINT) {
        code = store_intent_put(jobs->store, id, INTENT_CHECKPOINT, job.attempt, err);
        if (code == 0)
            code = store_audit(jobs->store, id, "checkpoint", "asked for", err);
    }
    return code == 0 ? store_job_get(jobs->store, id, out, err) : code;
}
