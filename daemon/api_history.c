/* What a job did: series, topology, checkpoints, logs. */
#include "daemon/api.h"
#include "daemon/jobs.h"
#include "daemon/problem.h"
#include "proto/base/fsx.h"
#include "proto/json/json.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SERIES_KEYS_MAX = 16, SERIES_KEYS_TEXT_MAX = 257 };

/* Answers the problem and returns false if there is no such job. */
static bool job_known(struct api_request *request, struct api_answer *answer,
                      struct job_row *job)
{
    struct err err = {0};
    int rc = store_job_get(request->daemon->store, request->id, job, &err);
    if (rc)
        problem_set_err(answer, rc, &err);
    return rc == 0;
}

void api_series(struct api_request *request, struct api_answer *answer)
{
    struct job_row job;
    if (!job_known(request, answer, &job))
        return;
    char text[SERIES_KEYS_TEXT_MAX];
    const char *keys[SERIES_KEYS_MAX];
    size_t count = 0;
    snprintf(text, sizeof(text), "%s", api_text(request, "keys"));
    char *save = NULL;
    for (char *key = strtok_r(text, ",", &save); key; key = strtok_r(NULL, ",", &save)) {
        if (count == SERIES_KEYS_MAX) {
            problem_set(answer, PROBLEM_INVALID_QUERY, "keys has more than %d columns",
                        SERIES_KEYS_MAX);
            return;
        }
        keys[count++] = key;
    }
    if (count == 0) {
        problem_set(answer, PROBLEM_INVALID_QUERY, "keys names no column");
        return;
    }
    struct err err = {0};
    int rc = store_series(request->daemon->store, request->id, keys, count,
                          api_int(request, "from"), api_int(request, "to"),
                          (size_t)api_int(request, "points"), &answer->body, &err);
    answer->status = 200;
    if (rc == ERR_INVALID)
        problem_set(answer, PROBLEM_INVALID_QUERY, "%s", err.text);
    else if (rc)
        problem_set_err(answer, rc, &err);
}

void api_topology(struct api_request *request, struct api_answer *answer)
{
    struct job_row job;
    if (!job_known(request, answer, &job))
        return;
    struct err err = {0};
    answer->status = 200;
    int rc =
        store_topology(request->daemon->store, request->id, api_text(request, "layer"),
                       api_int(request, "from"), api_int(request, "to"), &answer->body, &err);
    if (rc)
        problem_set_err(answer, rc, &err);
}

/* Drops the checkpoints that the worker has removed since (train.keep): the store knows when
 * each was published, the job's folder which are still there. */
static int keep_published(struct api_request *request, struct buf *body, struct err *err)
{
    char folder[FSX_PATH_MAX], path[FSX_PATH_MAX];
    int rc = jobs_path(request->daemon->jobs, request->id, folder, sizeof(folder), err);
    cJSON *json = NULL;
    if (!rc)
        rc = json_parse(&json, body->data, body->len, err);
    if (rc)
        return rc;
    cJSON *list = cJSON_GetObjectItemCaseSensitive(json, "checkpoints");
    for (cJSON *next, *item = list ? list->child : NULL; item; item = next) {
        next = item->next;
        const char *name = json_string(item, "path");
        rc = fsx_path(path, err, "%s/%s/manifest.json", folder, name ? name : "");
        if (rc || !fsx_exists(path))
            cJSON_Delete(cJSON_DetachItemViaPointer(list, item));
    }
    buf_clear(body);
    json_print(json, body);
    cJSON_Delete(json);
    return body->failed ? err_set(err, ERR_NO_MEMORY, "checkpoints: out of memory") : 0;
}

void api_checkpoints(struct api_request *request, struct api_answer *answer)
{
    struct job_row job;
    if (!job_known(request, answer, &job))
        return;
    struct err err = {0};
    answer->status = 200;
    int rc = store_checkpoints(request->daemon->store, request->id, &answer->body, &err);
    if (!rc)
        rc = keep_published(request, &answer->body, &err);
    if (rc)
        problem_set_err(answer, rc, &err);
}

/* --- logs --- */

/* Opens the attempt's log, regular files only, and gets its size. ERR_NOT_FOUND without one. */
static int log_open(struct api_request *request, int64_t attempt, int *fd, int64_t *size,
                    struct err *err)
{
    char folder[FSX_PATH_MAX], path[FSX_PATH_MAX];
    int rc = jobs_path(request->daemon->jobs, request->id, folder, sizeof(folder), err);
    if (!rc)
        rc = fsx_path(path, err, "%s/attempt-%lld/log.txt", folder, (long long)attempt);
    if (rc)
        return rc;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (*fd < 0)
        return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO,
                       "log of attempt %lld of job %s: %s", (long long)attempt, request->id,
                       strerror(errno));
    struct stat stat;
    if (fstat(*fd, &stat) || !S_ISREG(stat.st_mode)) {
        close(*fd);
        return err_set(err, ERR_IO, "%s is not a regular file", path);
    }
    *size = stat.st_size;
    return 0;
}

/* Appends the bytes [offset, offset + limit) that are there; *offset moves behind them. */
static int log_piece(int fd, int64_t size, int64_t *offset, int64_t limit, struct buf *out,
                     struct err *err)
{
    if (*offset < 0)
        *offset = size + *offset < 0 ? 0 : size + *offset;
    char chunk[16384];
    while (limit > 0) {
        size_t want = limit < (int64_t)sizeof(chunk) ? (size_t)limit : sizeof(chunk);
        ssize_t got = pread(fd, chunk, want, *offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_set(err, ERR_IO, "read log: %s", strerror(errno));
        if (got == 0)
            break;
        buf_add(out, chunk, (size_t)got);
        *offset += got;
        limit -= got;
    }
    return 0;
}

void api_log(struct api_request *request, struct api_answer *answer)
{
    struct job_row job;
    if (!job_known(request, answer, &job))
        return;
    int64_t attempt = api_given(request, "attempt") ? api_int(request, "attempt") : job.attempt;
    int64_t offset = api_int(request, "offset"), size = 0;
    if (attempt > job.attempt) {
        problem_set(answer, PROBLEM_NOT_FOUND, "job %s has %lld attempts, no attempt %lld",
                    job.id, (long long)job.attempt, (long long)attempt);
        return;
    }
    struct err err = {0};
    int fd = -1;
    int rc = attempt == 0 ? ERR_NOT_FOUND : log_open(request, attempt, &fd, &size, &err);
    if (rc && rc != ERR_NOT_FOUND) {
        problem_set_err(answer, rc, &err);
        return;
    }
    /* Not started, or just starting: an empty log that may be asked for again. */
    answer->status = 200;
    answer->type = request->route->good.type;
    if (fd >= 0) {
        rc = log_piece(fd, size, &offset, api_int(request, "limit"), &answer->body, &err);
        close(fd);
        if (rc) {
            problem_set_err(answer, rc, &err);
            return;
        }
    }
    api_answer_header(answer, "X-Next-Offset", "%lld", (long long)(offset < 0 ? 0 : offset));
    api_answer_header(answer, "X-Log-Bytes", "%lld", (long long)size);
    api_answer_header(answer, "X-Attempt", "%lld", (long long)attempt);
}
