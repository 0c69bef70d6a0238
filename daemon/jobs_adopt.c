/* Adoption: at start, what an earlier daemon left is looked at and said. Nothing here can stop
 * the start: a job whose record or folder is no good is logged, and its next poll fails that
 * job alone. */
#include "daemon/jobs_internal.h"
#include "proto/base/log.h"
#include <dirent.h>
#include <inttypes.h>
#include <string.h>

static void adopt_one(struct jobs *jobs, struct job_row *job)
{
    static const char *const words[] = {[LAUNCH_RUNNING] = "runs",
                                        [LAUNCH_EXITED] = "has ended meanwhile",
                                        [LAUNCH_LOST] = "is lost"};
    char folder[FSX_PATH_MAX];
    struct job_run *run;
    struct launch launch;
    struct launch_status status;
    struct err err;
    bool pending = false;
    int code = jobs_start_pending(jobs, job->id, &pending, &err);
    if (code == 0)
        code = jobs_run_get(jobs, job->id, &run, &err);
    if (code == 0)
        code = jobs_path(jobs, job->id, folder, sizeof folder, &err);
    if (code == 0 && pending) {
        log_info("job %s: its start was decided and is carried out now", job->id);
        return;
    }
    if (code == 0) {
        jobs_launch_init(jobs, run, folder, job->attempt, &launch);
        code = run->launcher->status(&launch, &status, &err);
    }
    if (code == 0)
        log_info("job %s adopted: %s, attempt %" PRId64 " %s", job->id,
                 job_state_name(job->state), job->attempt, words[status.state]);
    else if (code == ERR_CORRUPT || code == ERR_UNSUPPORTED || code == ERR_INVALID)
        jobs_fail_record(jobs, job, &err);
    else
        log_error("job %s: %s", job->id, err.text);
}

/* True if nothing but the spec is in the folder: no attempt was ever begun. */
static bool only_spec(const char *path)
{
    const struct dirent *item;
    DIR *folder = opendir(path);
    bool only = folder != NULL;
    while (only && (item = readdir(folder)) != NULL)
        only = item->d_name[0] == '.' || strcmp(item->d_name, "spec.json") == 0 ||
               strcmp(item->d_name, "spec.json.tmp") == 0;
    if (folder != NULL)
        closedir(folder);
    return only;
}

/* A folder without a row: a submit that was never acknowledged, which is removed, or work that
 * an older state.db does not know, which is left alone. */
static void meet_stranger(const char *jobs_folder, const char *name, size_t *strangers)
{
    char path[FSX_PATH_MAX];
    struct err err;
    if (fsx_path(path, NULL, "%s/%s", jobs_folder, name) != 0)
        return;
    if (!only_spec(path)) {
        ++*strangers;
        return;
    }
    if (fsx_remove_tree(path, &err) != 0)
        log_warn("%s", err.text);
    else
        log_info("%s removed: its submit was never acknowledged", path);
}

static void meet_strangers(struct jobs *jobs)
{
    char path[FSX_PATH_MAX];
    struct job_row job;
    const struct dirent *item;
    size_t strangers = 0;
    if (fsx_path(path, NULL, "%s/jobs", jobs->daemon->config.state_dir) != 0)
        return;
    DIR *folder = opendir(path);
    while (folder != NULL && (item = readdir(folder)) != NULL)
        if (item->d_name[0] != '.' &&
            store_job_get(jobs->store, item->d_name, &job, NULL) == ERR_NOT_FOUND)
            meet_stranger(path, item->d_name, &strangers);
    if (folder != NULL)
        closedir(folder);
    if (strangers > 0)
        log_warn("%s holds %zu folders that belong to no job", path, strangers);
}

static int quarantined(void *context, const char *id, int64_t attempt)
{
    struct jobs *jobs = context;
    log_error("job %s: its record is damaged; it is failed", id);
    jobs_end_processes(jobs, id, attempt);
    return 0;
}

void jobs_adopt(struct jobs *jobs)
{
    struct job_rows rows = {.count = 0};
    struct err err;
    if (store_jobs_quarantine(jobs->store, quarantined, jobs, &err) != 0)
        log_error("adoption: %s", err.text);
    if (store_jobs_launched(jobs->store, job_rows_add, &rows, &err) != 0)
        log_error("adoption: %s", err.text);
    for (size_t i = 0; i < rows.count; i++)
        adopt_one(jobs, &rows.items[i]);
    job_rows_release(&rows);
    meet_strangers(jobs);
}
