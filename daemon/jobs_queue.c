/* The queue: intents that were committed are acted on, waiting retries come back, free slots
 * are given out.
 *
 * Order: priority, then first in first out. The head of the queue waits for its slots and
 * nothing overtakes it, so that no job starves behind smaller ones; but for those that take no
 * slots here (Slurm's). */
#include "daemon/jobs_internal.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "proto/base/mem.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct intent {
    char id[STORE_ID_MAX];
    enum intent_kind kind;
    int64_t attempt;
};

struct intents {
    struct intent *items;
    size_t count, cap;
};

static int add_intent(void *context, const char *id, enum intent_kind kind, int64_t attempt)
{
    struct intents *intents = context;
    if (intents->count == intents->cap) {
        size_t cap = intents->cap != 0 ? 2 * intents->cap : 8;
        struct intent *grown = reallocarray(intents->items, cap, sizeof *grown);
        if (grown == NULL)
            return ERR_NO_MEMORY;
        intents->items = grown;
        intents->cap = cap;
    }
    struct intent *intent = &intents->items[intents->count++];
    snprintf(intent->id, sizeof intent->id, "%s", id);
    intent->kind = kind;
    intent->attempt = attempt;
    return 0;
}

static int act_start(struct jobs *jobs, const struct intent *intent, struct job_row *job,
                     struct err *err)
{
    if (job->state == JOB_STARTING)
        return jobs_attempt_start(jobs, job, intent->attempt, err);
    bool stopping = job->state == JOB_PAUSING || job->state == JOB_CANCELLING, begun = false;
    int code = 0;
    if (stopping)
        code = jobs_attempt_adopt(jobs, job, intent->attempt, &begun, err);
    if (code == 0)
        code = store_intent_remove(jobs->store, intent->id, INTENT_START, err);
    /* Asked to stop before it was started: there is nothing to stop. */
    if (code == 0 && stopping && !begun)
        code = jobs_move(
            jobs, job, EVENT_STOPPED,
            job->state == JOB_PAUSING ? "paused on request" : "cancelled on request", err);
    return code;
}

static int act(struct jobs *jobs, const struct intent *intent, struct job_row *job,
               struct err *err)
{
    if (intent->kind == INTENT_START)
        return act_start(jobs, intent, job, err);
    bool stopping = job->state == JOB_PAUSING || job->state == JOB_CANCELLING;
    bool running = job->state == JOB_STARTING || job->state == JOB_RUNNING;
    const char *word = NULL;
    if (stopping)
        word = "stop"; /* also for a checkpoint that was asked for before: stopping saves */
    else if (running && intent->kind == INTENT_CHECKPOINT)
        word = "checkpoint";
    int code = word != NULL ? jobs_control_write(jobs, intent->id, word, err) : 0;
    return code == 0 ? store_intent_remove(jobs->store, intent->id, intent->kind, err) : code;
}

int jobs_act_on_intents(struct jobs *jobs, bool room, struct err *err)
{
    struct intents intents = {.count = 0};
    int code = store_intents(jobs->store, add_intent, &intents, err);
    for (size_t i = 0; code == 0 && i < intents.count; i++) {
        struct job_row job;
        struct err why;
        int failed = store_job_get(jobs->store, intents.items[i].id, &job, &why);
        if (failed == 0 &&
            (room || intents.items[i].kind != INTENT_START || job.state != JOB_STARTING))
            failed = act(jobs, &intents.items[i], &job, &why);
        if (failed == ERR_CORRUPT || failed == ERR_UNSUPPORTED || failed == ERR_INVALID)
            jobs_fail_record(jobs, &job, &why);
        else if (failed != 0)
            jobs_complain(jobs, intents.items[i].id, &why);
    }
    free(intents.items);
    return code;
}

struct wanted {
    const char *id;
    bool found;
};

static int match_start(void *context, const char *id, enum intent_kind kind, int64_t attempt)
{
    struct wanted *wanted = context;
    (void)attempt;
    wanted->found |= kind == INTENT_START && strcmp(id, wanted->id) == 0;
    return 0;
}

int jobs_start_pending(struct jobs *jobs, const char *id, bool *pending, struct err *err)
{
    struct wanted wanted = {.id = id};
    int code = store_intents(jobs->store, match_start, &wanted, err);
    *pending = wanted.found;
    return code;
}

int jobs_requeue_due(struct jobs *jobs, struct err *err)
{
    struct job_rows rows = {.count = 0};
    int code = store_jobs_due(jobs->store, clock_wall_ms(), JOBS_BACKOFF_MAX_S * 1000,
                              job_rows_add, &rows, err);
    for (size_t i = 0; code == 0 && i < rows.count; i++)
        code = jobs_move(jobs, &rows.items[i], EVENT_DUE, "", err);
    job_rows_release(&rows);
    return code;
}

int jobs_schedule(struct jobs *jobs, struct err *err)
{
    const struct daemon_config *config = &jobs->daemon->config;
    while (!jobs->daemon->draining) {
        int64_t cores, gpus;
        struct job_row job;
        bool found;
        int code = store_jobs_head(jobs->store, &job, &found, err);
        if (code != 0 || !found)
            return code;
        if (job.cores > config->cores || job.gpus > config->gpus) {
            /* Accepted by a daemon with more slots: it must not hold up the others. */
            char reason[STORE_TEXT_MAX];
            snprintf(reason, sizeof reason,
                     "it takes %lld cores and %lld GPUs; the daemon has %d and %d",
                     (long long)job.cores, (long long)job.gpus, config->cores, config->gpus);
            if ((code = jobs_move(jobs, &job, EVENT_PAUSE, reason, err)) != 0)
                return code;
            continue;
        }
        if ((code = store_jobs_slots(jobs->store, &cores, &gpus, err)) != 0)
            return code;
        if (cores + job.cores > config->cores || gpus + job.gpus > config->gpus) {
            code = store_jobs_slotless(jobs->store, &job, &found, err);
            if (code != 0 || !found)
                return code;
        }
        code = jobs_move(jobs, &job, EVENT_SCHEDULE, "", err);
        if (code == 0)
            code = store_intent_put(jobs->store, job.id, INTENT_START, job.attempt + 1, err);
        if (code != 0)
            return code;
    }
    return 0;
}
