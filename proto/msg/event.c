#include "proto/msg/event.h"

#include "proto/base/clock.h"
#include "proto/base/fsx.h"
#include "proto/base/mem.h"
#include "proto/json/json.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { EVENT_CHUNK = 16 * 1024 };

struct event_log {
    int fd;
    uint64_t next;     /* seq of the next line */
    uint64_t size;     /* bytes of whole lines */
    struct buf fields; /* the object's text, then the line; kept between appends */
    struct buf line;
    bool (*wait)(void *context, const struct err *why); /* NULL: a full disk is a failure */
    void *wait_context;
};

/* --- opening --- */

/* *start gets the offset after the last newline before end; 0 if there is none. */
static int line_start(int fd, uint64_t end, uint64_t *start, struct err *err)
{
    char chunk[EVENT_CHUNK];
    while (end > 0) {
        size_t len = end < sizeof(chunk) ? (size_t)end : sizeof(chunk);
        int rc = fsx_read_at(fd, chunk, len, end - len, err);
        if (rc) {
            return rc;
        }
        const char *newline = memrchr(chunk, '\n', len);
        if (newline) {
            *start = end - len + (uint64_t)(newline - chunk) + 1;
            return 0;
        }
        end -= len;
    }
    *start = 0;
    return 0;
}

/* seq of the whole line [start, end - 1), whose newline is at end - 1. */
static int line_seq(int fd, uint64_t start, uint64_t end, uint64_t *seq, struct err *err)
{
    size_t len = (size_t)(end - start) - 1;
    if (end - start > EVENT_LINE_MAX) {
        return err_set(err, ERR_CORRUPT, "the last event is longer than %d bytes",
                       EVENT_LINE_MAX);
    }
    char *line = mem_zeroed(len + 1, 1);
    if (!line) {
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    }
    struct event event;
    int rc = fsx_read_at(fd, line, len, start, err);
    if (!rc && !(rc = event_parse(&event, line, len, err))) {
        *seq = event.seq;
        event_release(&event);
    }
    free(line);
    return rc;
}

/* Cuts a torn last line off and learns the next seq. */
static int log_resume(struct event_log *log, struct err *err)
{
    struct stat info;
    if (fstat(log->fd, &info) != 0) {
        return err_set(err, ERR_IO, "stat: %s", strerror(errno));
    }
    uint64_t start, seq = 0;
    int rc = line_start(log->fd, (uint64_t)info.st_size, &log->size, err);
    if (rc) {
        return rc;
    }
    if (log->size < (uint64_t)info.st_size && ftruncate(log->fd, (off_t)log->size) != 0) {
        return err_set(err, ERR_IO, "cut the torn last line: %s", strerror(errno));
    }
    if (log->size > 0) {
        rc = line_start(log->fd, log->size - 1, &start, err);
        if (!rc) {
            rc = line_seq(log->fd, start, log->size, &seq, err);
        }
    }
    log->next = seq + 1;
    return rc;
}

int event_log_open(struct event_log **out, const char *path, struct err *err)
{
    struct event_log *log = mem_zeroed(1, sizeof(*log));
    *out = NULL;
    if (!log) {
        return err_set(err, ERR_NO_MEMORY, "open %s: out of memory", path);
    }
    buf_init(&log->fields, EVENT_LINE_MAX);
    buf_init(&log->line, EVENT_LINE_MAX);
    log->fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    int rc = log->fd < 0
                 ? err_set(err, err_of_errno(errno), "open %s: %s", path, strerror(errno))
                 : 0;
    if (!rc) {
        rc = log_resume(log, err);
        if (rc) {
            err_wrap(err, rc, "%s", path);
        }
    }
    if (rc) {
        event_log_close(log);
        return rc;
    }
    *out = log;
    return 0;
}

void event_log_close(struct event_log *log)
{
    if (!log) {
        return;
    }
    if (log->fd >= 0) {
        close(log->fd);
    }
    buf_release(&log->fields);
    buf_release(&log->line);
    free(log);
}

/* --- appending --- */

static int log_write(struct event_log *log, struct err *err)
{
    /* One write(2) as a rule; a short one is followed by another, which says why it was short. */
    int rc = fsx_write_all(log->fd, log->line.data, log->line.len, err);
    if (rc == 0) {
        log->size += log->line.len;
        log->next++;
        return 0;
    }
    err_wrap(err, rc, "append an event");
    if (ftruncate(log->fd, (off_t)log->size) != 0) { /* no part of a line stays */
        err_wrap(err, rc, "cut the part of a line off: %s", strerror(errno));
    }
    return rc;
}

void event_log_on_full(struct event_log *log,
                       bool (*wait)(void *context, const struct err *why), void *context)
{
    log->wait = wait;
    log->wait_context = context;
}

int event_log_append(struct event_log *log, cJSON *object, struct err *err)
{
    char stamp[CLOCK_STAMP_MAX];
    int rc = 0;
    const char *type = json_string(object, "type");
    if (!type || *type == '\0') {
        rc = err_set(err, ERR_INTERNAL, "append an event: it has no type");
        goto out;
    }
    buf_clear(&log->fields);
    buf_clear(&log->line);
    json_print(object, &log->fields);
    if (!log->fields.failed) {
        buf_printf(&log->line, "{\"seq\":%" PRIu64 ",\"time\":\"%s\",", log->next,
                   clock_stamp(stamp, clock_wall_ms()));
        buf_add(&log->line, log->fields.data + 1, log->fields.len - 1); /* without its brace */
        buf_puts(&log->line, "\n");
    }
    if (log->fields.failed || log->line.failed) {
        rc = err_set(err, ERR_LIMIT, "append an event: %s takes more than %d bytes", type,
                     EVENT_LINE_MAX);
        goto out;
    }
    do {
        rc = log_write(log, err);
    } while (rc == ERR_NO_SPACE && log->wait && log->wait(log->wait_context, err));
out:
    cJSON_Delete(object);
    return rc;
}

void event_add_number(cJSON *object, const char *key, double value)
{
    if (isfinite(value)) {
        cJSON_AddNumberToObject(object, key, value);
        return;
    }
    cJSON_AddNullToObject(object, key);
    if (!cJSON_GetObjectItemCaseSensitive(object, "nonfinite")) {
        cJSON_AddStringToObject(object, "nonfinite",
                                isnan(value) ? "nan" : (value > 0 ? "inf" : "-inf"));
    }
}

/* --- reading --- */

int event_parse(struct event *event, const char *line, size_t len, struct err *err)
{
    *event = (struct event){0};
    cJSON *json;
    int rc = json_parse(&json, line, len, err);
    if (rc) {
        return err_wrap(err, rc == ERR_NO_MEMORY ? rc : ERR_CORRUPT, "event");
    }
    int64_t seq = 0;
    const char *type = json_string(json, "type");
    if (!json_int(&seq, json, "seq") || seq < 1) {
        rc = err_set(err, ERR_CORRUPT, "event: \"seq\" is not a whole number from 1");
    } else if (!type || *type == '\0') {
        rc = err_set(err, ERR_CORRUPT, "event %" PRId64 ": no \"type\"", seq);
    } else if (!json_string(json, "time")) {
        rc = err_set(err, ERR_CORRUPT, "event %" PRId64 ": no \"time\"", seq);
    }
    if (rc) {
        cJSON_Delete(json);
        return rc;
    }
    *event = (struct event){.seq = (uint64_t)seq, .type = type, .json = json};
    return 0;
}

void event_release(struct event *event)
{
    cJSON_Delete(event->json);
    *event = (struct event){0};
}
