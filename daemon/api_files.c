/* Files of a job: attempts, checkpoints and the exported model, whole or by range. */
#include "daemon/api.h"
#include "daemon/beneath.h"
#include "daemon/jobs.h"
#include "daemon/problem.h"
#include "proto/base/fsx.h"
#include "proto/json/json.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILES_MAX = 1000, DIGITS_MAX = 18 };

/* --- attempts --- */

static int attempt_item(void *context, const struct attempt_row *row)
{
    cJSON *item = cJSON_CreateObject();
    cJSON_AddItemToArray(context, item);
    cJSON_AddNumberToObject(item, "attempt", (double)row->attempt);
    api_add_stamp(item, "started", row->started_ms);
    api_add_stamp(item, "finished", row->finished_ms);
    static const char *const names[] = {"code", "signal", "rank"};
    const int values[] = {row->end.code, row->end.signal, row->end.rank};
    for (size_t i = 0; i < 3; i++)
        if (row->finished_ms)
            cJSON_AddNumberToObject(item, names[i], values[i]);
        else
            cJSON_AddNullToObject(item, names[i]);
    cJSON_AddStringToObject(item, "reason", row->end.reason);
    return 0;
}

void api_attempts(struct api_request *request, struct api_answer *answer)
{
    struct err err = {0};
    struct job_row job;
    int rc = store_job_get(request->daemon->store, request->id, &job, &err);
    cJSON *object = cJSON_CreateObject();
    if (!rc)
        rc = store_attempts(request->daemon->store, request->id, attempt_item,
                            cJSON_AddArrayToObject(object, "attempts"), &err);
    if (!rc) {
        api_answer_json(answer, 200, object);
        return;
    }
    cJSON_Delete(object);
    problem_set_err(answer, rc, &err);
}

/* --- folders --- */

/* Letters, digits, dot, dash, underline, not starting with a dot. */
static bool name_good(const char *name)
{
    size_t len = strlen(name);
    return len > 0 && name[0] != '.' &&
           strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") ==
               len;
}

/* "checkpoints/step-00000500" from the path's {step}. False: no number. */
static bool step_folder(const char *text, char out[64])
{
    size_t len = strlen(text);
    if (len == 0 || len > DIGITS_MAX || strspn(text, "0123456789") != len)
        return false;
    snprintf(out, 64, "checkpoints/step-%08lld", atoll(text));
    return true;
}

static int file_item(cJSON *files, int dir, const char *name)
{
    struct stat info;
    if (!name_good(name) || fstatat(dir, name, &info, AT_SYMLINK_NOFOLLOW) ||
        !S_ISREG(info.st_mode))
        return 0;
    cJSON *item = cJSON_CreateObject();
    cJSON_AddItemToArray(files, item);
    cJSON_AddStringToObject(item, "name", name);
    cJSON_AddNumberToObject(item, "bytes", (double)info.st_size);
    return 1;
}

/* An unfinished checkpoint has no manifest, an unfinished model no config.json: neither is
 * there for the API. */
static void list_folder(struct api_request *request, struct api_answer *answer,
                        const char *folder, const char *last)
{
    char root[FSX_PATH_MAX], path[FSX_PATH_MAX];
    struct err err = {0};
    struct job_row job;
    int fd = -1, mark = -1;
    int64_t size;
    int rc = store_job_get(request->daemon->store, request->id, &job, &err);
    if (!rc)
        rc = jobs_path(request->daemon->jobs, request->id, root, sizeof(root), &err);
    if (!rc)
        rc = fsx_path(path, &err, "%s/%s", folder, last);
    if (!rc)
        rc = beneath_open_file(&mark, &size, root, path, &err);
    if (!rc)
        rc = beneath_open(&fd, root, folder, &err);
    DIR *stream = rc ? NULL : fdopendir(fd);
    if (!rc && !stream)
        rc = err_set(&err, ERR_IO, "read folder %s: %s", folder, strerror(errno));
    if (mark >= 0)
        close(mark);
    if (rc) {
        if (fd >= 0)
            close(fd);
        problem_set_err(answer, rc, &err);
        return;
    }
    cJSON *object = cJSON_CreateObject(), *files = cJSON_AddArrayToObject(object, "files");
    int count = 0;
    for (struct dirent *entry; count < FILES_MAX && (entry = readdir(stream)) != NULL;)
        count += file_item(files, dirfd(stream), entry->d_name);
    closedir(stream);
    api_answer_json(answer, 200, object);
}

void api_checkpoint_files(struct api_request *request, struct api_answer *answer)
{
    char folder[64];
    if (step_folder(request->segments.text[1], folder))
        list_folder(request, answer, folder, "manifest.json");
    else
        problem_set(answer, PROBLEM_NOT_FOUND, "\"%s\" is no step", request->segments.text[1]);
}

void api_model_files(struct api_request *request, struct api_answer *answer)
{
    list_folder(request, answer, "model", "config.json");
}

/* --- one file --- */

/* RFC 9110, 14.2: one range of bytes; more than one, or another unit, is answered whole. False
 * (with answer filled): outside the file. */
static bool read_range(const char *range, uint64_t size, struct api_answer *answer)
{
    char *end;
    answer->offset = 0;
    answer->length = size;
    answer->status = 200;
    if (!range || strncmp(range, "bytes=", 6) != 0 || strchr(range, ','))
        return true;
    const char *text = range + 6;
    uint64_t first, last = size ? size - 1 : 0;
    if (*text == '-' && text[1] >= '0' && text[1] <= '9') {
        uint64_t back = strtoull(text + 1, &end, 10);
        first = back >= size ? 0 : size - back;
        if (back == 0)
            first = size; /* nothing: not satisfiable */
    } else if (*text >= '0' && *text <= '9') {
        first = strtoull(text, &end, 10);
        if (*end++ != '-')
            return true;
        if (*end) {
            uint64_t wanted = *end >= '0' && *end <= '9' ? strtoull(end, &end, 10) : 0;
            if (wanted < first && *end == '\0')
                return true; /* malformed: ignored */
            last = wanted < last ? wanted : last;
        }
    } else {
        return true;
    }
    if (*end)
        return true;
    if (first >= size) {
        problem_set(answer, PROBLEM_RANGE, "the file has %llu bytes", (unsigned long long)size);
        api_answer_header(answer, "Content-Range", "bytes */%llu", (unsigned long long)size);
        return false;
    }
    answer->status = 206;
    answer->offset = first;
    answer->length = last - first + 1;
    return true;
}

static void send_file(struct api_request *request, struct api_answer *answer,
                      const char *folder, const char *name)
{
    char root[FSX_PATH_MAX], path[FSX_PATH_MAX], tag[64];
    struct err err = {0};
    struct job_row job;
    struct stat info;
    int fd = -1;
    int64_t size = 0;
    int rc = name_good(name) ? 0 : err_set(&err, ERR_NOT_FOUND, "there is no such file");
    if (!rc)
        rc = store_job_get(request->daemon->store, request->id, &job, &err);
    if (!rc)
        rc = jobs_path(request->daemon->jobs, request->id, root, sizeof(root), &err);
    if (!rc)
        rc = fsx_path(path, &err, "%s/%s", folder, name);
    if (!rc)
        rc = beneath_open_file(&fd, &size, root, path, &err);
    if (!rc && fstat(fd, &info))
        rc = err_set(&err, ERR_IO, "%s: %s", path, strerror(errno));
    if (rc) {
        if (fd >= 0)
            close(fd);
        problem_set_err(answer, rc == ERR_INVALID ? ERR_NOT_FOUND : rc, &err);
        return;
    }
    snprintf(tag, sizeof(tag), "\"%llx-%llx-%llx\"", (unsigned long long)info.st_ino,
             (unsigned long long)size,
             (unsigned long long)info.st_mtim.tv_sec * 1000000000ull +
                 (unsigned long long)info.st_mtim.tv_nsec);
    bool stale = request->if_range && strcmp(request->if_range, tag) != 0;
    if (request->if_none_match && strstr(request->if_none_match, tag)) {
        close(fd);
        answer->status = 304;
        api_answer_header(answer, "ETag", "%s", tag);
        return;
    }
    if (!read_range(stale ? NULL : request->range, (uint64_t)size, answer)) {
        close(fd);
        return;
    }
    answer->type = "application/octet-stream";
    answer->next = API_FILE;
    answer->fd = fd;
    api_answer_header(answer, "Accept-Ranges", "bytes");
    api_answer_header(answer, "ETag", "%s", tag);
    api_answer_header(answer, "Content-Disposition", "attachment; filename=\"%s\"", name);
    if (answer->status == 206)
        api_answer_header(answer, "Content-Range", "bytes %llu-%llu/%llu",
                          (unsigned long long)answer->offset,
                          (unsigned long long)(answer->offset + answer->length - 1),
                          (unsigned long long)size);
}

void api_checkpoint_file(struct api_request *request, struct api_answer *answer)
{
    char folder[64];
    if (step_folder(request->segments.text[1], folder))
        send_file(request, answer, folder, request->segments.text[2]);
    else
        problem_set(answer, PROBLEM_NOT_FOUND, "\"%s\" is no step", request->segments.text[1]);
}

void api_model_file(struct api_request *request, struct api_answer *answer)
{
    send_file(request, answer, "model", request->segments.text[1]);
}
