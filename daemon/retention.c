#include "daemon/retention.h"
#include "daemon/jobs.h"
#include "daemon/loop.h"
#include "daemon/store.h"
#include "proto/base/clock.h"
#include "proto/base/fsx.h"
#include "proto/base/log.h"
#include "proto/base/mem.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TICK_MS = 1000, IDLE_MS = 60000, PIECE_ROWS = 5000 };
#define DAY_MS INT64_C(86400000)

struct retention {
    struct daemon *daemon;
    int timer;
    int64_t next_ms; /* monotonic */
};

static int take_id(void *context, const char *id)
{
    snprintf(context, STORE_ID_MAX, "%s", id);
    return 0;
}

static int remove_file(const char *path, struct err *err)
{
    if (unlink(path) == 0 || errno == ENOENT)
        return 0;
    return err_set(err, ERR_IO, "remove %s: %s", path, strerror(errno));
}

static int remove_logs(struct daemon *daemon, const char *id, struct err *err)
{
    struct job_row job;
    char folder[FSX_PATH_MAX], path[FSX_PATH_MAX];
    int code = store_job_get(daemon->store, id, &job, err);
    if (code == 0)
        code = jobs_path(daemon->jobs, id, folder, sizeof folder, err);
    for (int64_t attempt = 1; code == 0 && attempt <= job.attempt; attempt++) {
        code = fsx_path(path, err, "%s/attempt-%lld/log.txt", folder, (long long)attempt);
        if (code == 0)
            code = remove_file(path, err);
    }
    if (code == 0)
        code = store_job_pruned(daemon->store, id, true, err);
    return code == 0 ? store_audit(daemon->store, id, "logs_removed", "retention", err) : code;
}

/* The events file goes last: as long as it is there, a lost series.db can be built again. */
static int remove_history(struct daemon *daemon, const char *id, struct err *err)
{
    char folder[FSX_PATH_MAX], path[FSX_PATH_MAX];
    bool more = false;
    int code = store_history_remove(daemon->store, id, PIECE_ROWS, &more, err);
    if (code != 0 || more)
        return code;
    code = jobs_path(daemon->jobs, id, folder, sizeof folder, err);
    if (code == 0)
        code = fsx_path(path, err, "%s/events.jsonl", folder);
    if (code == 0)
        code = remove_file(path, err);
    if (code == 0)
        code = store_job_pruned(daemon->store, id, false, err);
    return code == 0 ? store_audit(daemon->store, id, "history_removed", "retention", err)
                     : code;
}

int retention_step(struct daemon *daemon, int64_t now_ms, bool *busy, struct err *err)
{
    const struct daemon_config *config = &daemon->config;
    char id[STORE_ID_MAX] = "";
    int code = 0;
    *busy = false;
    if (config->log_days > 0)
        code = store_jobs_expired(daemon->store, true, now_ms - config->log_days * DAY_MS, 1,
                                  take_id, id, err);
    if (code == 0 && id[0] != '\0') {
        *busy = true;
        return remove_logs(daemon, id, err);
    }
    if (code == 0 && config->history_days > 0)
        code = store_jobs_expired(daemon->store, false, now_ms - config->history_days * DAY_MS,
                                  1, take_id, id, err);
    if (code == 0 && id[0] != '\0') {
        *busy = true;
        return remove_history(daemon, id, err);
    }
    if (code == 0 && config->key_days > 0)
        code = store_keys_remove(daemon->store, now_ms - config->key_days * DAY_MS, err);
    return code;
}

static void tick(void *context)
{
    struct retention *retention = context;
    int64_t now_ms = clock_monotonic_ms();
    struct err err;
    bool busy = false;
    if (now_ms < retention->next_ms || !store_writable(retention->daemon->store))
        return;
    if (retention_step(retention->daemon, clock_wall_ms(), &busy, &err) != 0) {
        log_error("retention: %s", err.text);
        busy = false;
    }
    retention->next_ms = now_ms + (busy ? 0 : IDLE_MS);
}

int retention_create(struct retention **out, struct daemon *daemon, struct err *err)
{
    struct retention *retention = mem_zeroed(1, sizeof *retention);
    if (retention == NULL)
        return err_set(err, ERR_NO_MEMORY, "retention: out of memory");
    retention->daemon = daemon;
    retention->timer = loop_add_timer(daemon->loop, TICK_MS, tick, retention);
    *out = retention;
    return 0;
}

void retention_destroy(struct retention *retention)
{
    if (retention == NULL)
        return;
    loop_remove_timer(retention->daemon->loop, retention->timer);
    free(retention);
}
