/* From jobs/ID/events.jsonl to series.db: whole lines only, the offset in the same transaction
 * as the lines. */
#include "daemon/jobs_internal.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "proto/msg/event.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct ingest {
    struct jobs *jobs;
    const char *id;
    uint64_t offset; /* of the next line */
    uint64_t seq;    /* of the last line */
    bool added;
    struct err *err;
};

static int pass_over(struct ingest *ingest, const char *reason)
{
    struct job_progress progress;
    int code = store_event_bad(ingest->jobs->store, ingest->id, ingest->err);
    if (code == 0)
        code = store_progress(ingest->jobs->store, ingest->id, &progress, ingest->err);
    if (code == 0 && progress.bad_lines <= INGEST_BAD_LINES_LOGGED)
        log_warn("job %s: events.jsonl at byte %llu: %s; the line is passed over", ingest->id,
                 (unsigned long long)ingest->offset, reason);
    return code;
}

/* What the store cannot take ends the turn; a line that is no event is counted and passed over.
 */
static int take_line(struct ingest *ingest, const char *line, size_t len)
{
    struct event event;
    struct err why;
    int code = event_parse(&event, line, len, &why);
    if (code == ERR_NO_MEMORY) /* says nothing about the line: it is read again */
        return err_set(ingest->err, code, "%s", why.text);
    if (code != 0)
        return pass_over(ingest, why.text);
    if (ingest->seq != 0 && event.seq > ingest->seq + 1)
        log_warn("job %s: events %llu to %llu are missing", ingest->id,
                 (unsigned long long)ingest->seq + 1, (unsigned long long)event.seq - 1);
    code = store_event_add(ingest->jobs->store, ingest->id, &event, line, len, ingest->err);
    if (event.seq > ingest->seq) {
        ingest->seq = event.seq;
        ingest->added = true;
    }
    event_release(&event);
    return code;
}

/* Takes the lines of the buffer; *used gets the bytes that need not be read again. */
static int take_lines(struct ingest *ingest, const char *data, size_t len, size_t *used)
{
    size_t at = 0;
    int code = 0;
    while (code == 0 && at < len && at < INGEST_TURN_BYTES) {
        const char *newline = memchr(data + at, '\n', len - at);
        if (newline == NULL)
            break;
        size_t line = (size_t)(newline - data) - at;
        code = take_line(ingest, data + at, line);
        at += line + 1;
        ingest->offset += line + 1;
    }
    if (code == 0 && at == 0 && len == EVENT_LINE_MAX) {
        code = pass_over(ingest, "a line that is too long");
        at = len;
        ingest->offset += len;
    }
    *used = at;
    return code;
}

static int open_events(struct jobs *jobs, const char *id, int *fd, uint64_t *size,
                       struct err *err)
{
    char path[FSX_PATH_MAX];
    struct stat info;
    int code = jobs_file(jobs, id, "events.jsonl", path, err);
    if (code != 0)
        return code;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (*fd < 0)
        return errno == ENOENT || errno == ENOTDIR
                   ? 0
                   : err_set(err, ERR_IO, "open %s: %s", path, strerror(errno));
    if (fstat(*fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        close(*fd);
        return err_set(err, ERR_IO, "%s is not a readable file", path);
    }
    *size = (uint64_t)info.st_size;
    return 0;
}

static int read_some(struct ingest *ingest, int fd, ssize_t *got)
{
    struct jobs *jobs = ingest->jobs;
    if (jobs->ingest_buffer == NULL && (jobs->ingest_buffer = malloc(EVENT_LINE_MAX)) == NULL)
        return err_set(ingest->err, ERR_NO_MEMORY, "events: out of memory");
    do
        *got = pread(fd, jobs->ingest_buffer, EVENT_LINE_MAX, (off_t)ingest->offset);
    while (*got < 0 && errno == EINTR);
    if (*got >= 0)
        return 0;
    *got = 0;
    jobs->unreadable = true;
    return err_set(ingest->err, ERR_IO, "read events.jsonl of job %s: %s", ingest->id,
                   strerror(errno));
}

/* Reads on from ingest->offset; *caught_up: nothing but a line that is still being written is
 * left. */
static int take_more(struct ingest *ingest, int fd, uint64_t size, bool *caught_up)
{
    ssize_t got = 0;
    size_t used = 0;
    uint64_t start = ingest->offset;
    if (start >= size)
        return 0;
    int code = read_some(ingest, fd, &got);
    if (code != 0)
        return code;
    const char *data = ingest->jobs->ingest_buffer;
    code = take_lines(ingest, data, (size_t)got, &used);
    *caught_up =
        start + (uint64_t)got >= size && memchr(data + used, '\n', (size_t)got - used) == NULL;
    return code;
}

int jobs_ingest(struct jobs *jobs, const char *id, bool *caught_up, struct err *err)
{
    struct ingest ingest = {.jobs = jobs, .id = id, .err = err};
    uint64_t size = 0, stored;
    int fd = -1;
    *caught_up = true;
    int code = open_events(jobs, id, &fd, &size, err);
    jobs->unreadable = code != 0;
    if (code != 0 || fd < 0)
        return code;
    code = store_event_offset(jobs->store, id, &stored, &ingest.seq, err);
    ingest.offset = stored;
    if (code == 0 && size < stored) {
        log_warn("job %s: events.jsonl is shorter than what was read of it; it is read again",
                 id);
        ingest.offset = 0;
    }
    if (code == 0)
        code = take_more(&ingest, fd, size, caught_up);
    if (code == 0 && ingest.offset != stored)
        code = store_event_offset_set(jobs->store, id, ingest.offset, err);
    close(fd);
    if (ingest.added && code == 0)
        jobs_notify(jobs, id);
    return code;
}

int jobs_rebuild(struct jobs *jobs, struct err *err)
{
    int64_t until = clock_monotonic_ms() + JOBS_REBUILD_SLICE_MS;
    int code = 0;
    while (code == 0 && clock_monotonic_ms() < until) {
        struct job_rows rows = {.count = 0};
        struct job_filter filter = {.after = jobs->rebuild_after, .limit = 1};
        code = store_jobs_list(jobs->store, &filter, job_rows_add, &rows, err);
        if (code == 0 && rows.count == 0) {
            code = store_rebuild_done(jobs->store, err);
            jobs->rebuilding = code != 0;
            job_rows_release(&rows);
            return code;
        }
        bool caught_up = true;
        if (code == 0)
            code = jobs_ingest(jobs, rows.items[0].id, &caught_up, err);
        bool given_up =
            code != 0 && jobs->unreadable && ++jobs->rebuild_failures >= JOBS_REBUILD_TRIES;
        if (given_up) {
            log_error("job %s: its history is not built again: %s", rows.items[0].id,
                      err != NULL ? err->text : "");
            code = 0;
        }
        if (code == 0 && (caught_up || given_up)) {
            jobs->rebuild_after = rows.items[0].row;
            jobs->rebuild_failures = 0;
        }
        job_rows_release(&rows);
    }
    return code;
}
