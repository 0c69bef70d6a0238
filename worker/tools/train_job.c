#include "worker/tools/train_job.h"

#include "proto/json/json.h"
#include "worker/tools/tool_spec.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { EXIT_BYTES_MAX = 16 * 1024 };

/* The saved spec must be this one but for its resources and what follows from them. */
static int spec_compare(const struct train_job *job, const char *path, struct err *err)
{
    struct job_spec saved, now = job->spec;
    struct buf text, old, new;
    spec_init(&saved);
    buf_init(&text, SPEC_BODY_MAX);
    buf_init(&old, SPEC_BODY_MAX);
    buf_init(&new, SPEC_BODY_MAX);
    int rc = fsx_read(&text, path, err);
    if (rc == 0) {
        rc = spec_parse(&saved, text.data, text.len, NULL, err);
        rc = rc == 0 ? 0 : err_wrap(err, rc, "%s", path);
    }
    if (rc == 0) {
        now.resources = saved.resources;
        now.train.micro_batch = saved.train.micro_batch;
        spec_print(&saved, &old);
        spec_print(&now, &new);
        if (old.failed || new.failed) {
            rc = err_set(err, ERR_NO_MEMORY, "no memory to compare the job with %s", path);
        } else if (strcmp(old.data, new.data) != 0) {
            rc = err_set(err, ERR_CONFLICT,
                         "%s is of another job; a job never changes: give another --out", path);
        }
    }
    buf_release(&text);
    buf_release(&old);
    buf_release(&new);
    spec_release(&saved);
    return rc;
}

static int spec_store(const struct train_job *job, const char *path, struct err *err)
{
    struct buf text;
    buf_init(&text, SPEC_BODY_MAX);
    spec_print(&job->spec, &text);
    buf_puts(&text, "\n");
    int rc = text.failed
                 ? err_set(err, ERR_LIMIT, "the job is longer than %d bytes", SPEC_BODY_MAX)
                 : fsx_publish(path, text.data, text.len, 0644, err);
    buf_release(&text);
    return rc;
}

/* The newest attempt's number, 0 without one; *foreign if the folder holds anything else. */
static int folder_scan(const char *folder, unsigned *attempt, bool *foreign, struct err *err)
{
    *attempt = 0;
    *foreign = false;
    DIR *dir = opendir(folder);
    if (!dir) {
        return err_set(err, ERR_IO, "open %s: %s", folder, strerror(errno));
    }
    const struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        unsigned number;
        int end = 0;
        if (sscanf(entry->d_name, "attempt-%u%n", &number, &end) == 1 &&
            entry->d_name[end] == '\0') {
            *attempt = number > *attempt ? number : *attempt;
        } else if (strcmp(entry->d_name, "train.lock") != 0 && entry->d_name[0] != '.') {
            *foreign = true;
        }
    }
    closedir(dir);
    return 0;
}

/* Finds the attempt to run; ERR_CONFLICT while the newest one lives. */
static int attempt_choose(struct train_job *job, unsigned newest, struct err *err)
{
    char path[FSX_PATH_MAX], reason[ERR_TEXT_MAX];
    bool held = false;
    int code;
    job->attempt = newest + 1;
    if (newest == 0) {
        return 0;
    }
    int rc = fsx_path(path, err, "%s/attempt-%u/lock", job->folder, newest);
    if (rc == 0) {
        rc = fsx_lock_held(&held, path, err);
    }
    if (rc == 0 && held) {
        rc = err_set(err, ERR_CONFLICT, "%s: attempt %u is running", job->folder, newest);
    }
    job->done = rc == 0 &&
                train_job_end(job, newest, &code, reason, sizeof reason, NULL) == 0 &&
                code == EXIT_DONE;
    return rc;
}

/* The newest attempt of the folder; ERR_CONFLICT if it holds something and is no job folder.
 * *made: it has a spec.json, whose path spec gets. */
static int folder_check(const struct train_job *job, char spec[FSX_PATH_MAX], bool *made,
                        unsigned *newest, struct err *err)
{
    bool foreign = false;
    int rc = folder_scan(job->folder, newest, &foreign, err);
    if (rc == 0) {
        rc = fsx_path(spec, err, "%s/spec.json", job->folder);
    }
    *made = rc == 0 && fsx_exists(spec);
    if (rc == 0 && foreign && !*made) {
        rc = err_set(err, ERR_CONFLICT, "%s is not empty and no job folder", job->folder);
    }
    return rc;
}

static int folder_open(struct train_job *job, const char *folder, struct err *err)
{
    char lock[FSX_PATH_MAX], spec[FSX_PATH_MAX];
    unsigned newest = 0;
    bool made = false;
    int rc = fsx_mkdirs(folder, 0755, err);
    if (rc == 0 && !realpath(folder, job->folder)) {
        rc = err_set(err, ERR_IO, "%s: %s", folder, strerror(errno));
    }
    if (rc == 0) { /* before the lock, which would leave a file in somebody's folder */
        rc = folder_check(job, spec, &made, &newest, err);
    }
    if (rc == 0) {
        rc = fsx_path(lock, err, "%s/train.lock", job->folder);
    }
    if (rc == 0 && fsx_lock(&job->lock_fd, lock, err) != 0) {
        rc = err_wrap(err, err->code, "another hebb train works in %s", job->folder);
    }
    if (rc == 0) {
        rc = folder_check(job, spec, &made, &newest, err);
    }
    if (rc == 0) {
        rc = made ? spec_compare(job, spec, err) : spec_store(job, spec, err);
    }
    return rc == 0 ? attempt_choose(job, newest, err) : rc;
}

int train_job_open(struct train_job *job, const char *path, const char *folder, uint64_t ranks,
                   uint64_t threads, struct err *err)
{
    *job = (struct train_job){.lock_fd = -1};
    spec_init(&job->spec);
    int rc = tool_spec_load(&job->spec, path, ranks, threads, err);
    if (rc == 0) {
        rc = folder_open(job, folder, err);
    }
    if (rc != 0) {
        train_job_close(job);
    }
    return rc;
}

void train_job_close(struct train_job *job)
{
    spec_release(&job->spec);
    if (job->lock_fd >= 0) {
        close(job->lock_fd);
    }
    job->lock_fd = -1;
}

int train_job_begin(const struct train_job *job, int *lock_fd, struct err *err)
{
    char path[FSX_PATH_MAX];
    int rc = fsx_path(path, err, "%s/attempt-%u", job->folder, job->attempt);
    if (rc == 0) {
        rc = fsx_mkdirs(path, 0755, err);
    }
    if (rc == 0) {
        rc = fsx_path(path, err, "%s/control", job->folder);
    }
    if (rc == 0) {
        rc = fsx_publish(path, "run\n", 4, 0644, err);
    }
    if (rc == 0) {
        rc = fsx_path(path, err, "%s/attempt-%u/lock", job->folder, job->attempt);
    }
    return rc == 0 ? fsx_lock(lock_fd, path, err) : rc;
}

int train_job_end(const struct train_job *job, unsigned attempt, int *code, char *reason,
                  size_t reason_max, struct err *err)
{
    char path[FSX_PATH_MAX];
    cJSON *root = NULL;
    int64_t number = 0;
    int rc = fsx_path(path, err, "%s/attempt-%u/exit.json", job->folder, attempt);
    if (rc == 0) {
        rc = json_read(&root, path, EXIT_BYTES_MAX, err);
    }
    if (rc == 0 && (!json_int(&number, root, "code") || !json_string(root, "reason"))) {
        rc = err_set(err, ERR_CORRUPT, "%s: code or reason is missing", path);
    }
    if (rc == 0) {
        *code = (int)number;
        snprintf(reason, reason_max, "%s", json_string(root, "reason"));
    }
    cJSON_Delete(root);
    return rc;
}
