#include "daemon/store_db.h"
#include "proto/base/clock.h"
#include <stdio.h>
#include <string.h>

static const char *const state_names[JOB_STATES] = {
    [JOB_QUEUED] = "queued",         [JOB_STARTING] = "starting",
    [JOB_RUNNING] = "running",       [JOB_PAUSING] = "pausing",
    [JOB_PAUSED] = "paused",         [JOB_RETRY_WAIT] = "retry_wait",
    [JOB_CANCELLING] = "cancelling", [JOB_SUCCEEDED] = "succeeded",
    [JOB_FAILED] = "failed",         [JOB_CANCELLED] = "cancelled",
};

#define JOB_COLUMNS                                                                            \
    "row,id,name,state,reason,priority,cores,gpus,attempt,failures,created_ms,updated_ms,"     \
    "started_ms,finished_ms,"                                                                  \
    "retry_at_ms,version"

const char *job_state_name(enum job_state state) { return state_names[state]; }

bool job_state_parse(enum job_state *out, const char *name)
{
    for (int i = 0; i < JOB_STATES; i++)
        if (strcmp(state_names[i], name) == 0) {
            *out = (enum job_state)i;
            return true;
        }
    return false;
}

bool job_state_final(enum job_state state)
{
    return state == JOB_SUCCEEDED || state == JOB_FAILED || state == JOB_CANCELLED;
}

static int read_row(const struct query *query, struct job_row *out, struct err *err)
{
    memset(out, 0, sizeof *out);
    out->row = column_int(query, 0);
    column_copy(query, 1, out->id, sizeof out->id);
    column_copy(query, 2, out->name, sizeof out->name);
    if (!job_state_parse(&out->state, column_text(query, 3)) &&
        sqlite3_errcode(query->db->handle) == SQLITE_NOMEM)
        return err_set(err, ERR_NO_MEMORY, "state.db: out of memory");
    if (!job_state_parse(&out->state, column_text(query, 3)))
        return err_set(err, ERR_CORRUPT, "state.db: job %s has the unknown state '%s'", out->id,
                       column_text(query, 3));
    column_copy(query, 4, out->reason, sizeof out->reason);
    int64_t *const numbers[] = {&out->priority,    &out->cores,      &out->gpus,
                                &out->attempt,     &out->failures,   &out->created_ms,
                                &out->updated_ms,  &out->started_ms, &out->finished_ms,
                                &out->retry_at_ms, &out->version};
    for (int i = 0; i < (int)(sizeof numbers / sizeof numbers[0]); i++)
        *numbers[i] = column_int(query, 5 + i);
    return 0;
}

/* *existing: a job was submitted under this key with this body; a conflict when the body
 * differs. */
static int find_key(struct store *store, const char *key, const char *body_hash,
                    struct job_row *job, bool *existing, struct err *err)
{
    struct query query;
    bool row;
    char id[STORE_ID_MAX], known[128];
    int code = query_read(&query, store, &store->state,
                          "SELECT job, body_hash FROM idempotency WHERE key=?", err);
    if (code != 0)
        return code;
    query_text(&query, key);
    code = query_next(&query, &row, err);
    if (code != 0 || !row)
        return code;
    column_copy(&query, 0, id, sizeof id);
    column_copy(&query, 1, known, sizeof known);
    query_end(&query);
    if (strcmp(known, body_hash) != 0)
        return err_set(err, ERR_CONFLICT,
                       "idempotency key '%s' was used for another body, job %s", key, id);
    *existing = true;
    return store_job_get(store, id, job, err);
}

static int insert_key(struct store *store, const char *key, const char *body_hash,
                      const struct job_row *job, struct err *err)
{
    struct query query;
    int code = query_write(&query, store, &store->state,
                           "INSERT INTO idempotency VALUES(?,?,?,?)", err);
    if (code != 0)
        return code;
    query_text(&query, key);
    query_text(&query, body_hash);
    query_text(&query, job->id);
    query_int(&query, job->created_ms);
    return query_run(&query, NULL, err);
}

int store_job_insert(struct store *store, struct job_row *job, const char *spec,
                     const char *idem_key, const char *body_hash, bool *existing,
                     struct err *err)
{
    *existing = false;
    if (idem_key != NULL) {
        int code = find_key(store, idem_key, body_hash, job, existing, err);
        if (code != 0 || *existing)
            return code;
    }
    if (job->created_ms == 0)
        job->created_ms = clock_wall_ms();
    job->updated_ms = job->created_ms;
    struct query query;
    int code = query_write(
        &query, store, &store->state,
        "INSERT INTO "
        "jobs(id,name,state,reason,priority,cores,gpus,attempt,failures,created_ms,updated_ms,"
        "started_ms,finished_ms,retry_at_ms,spec) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
        err);
    if (code != 0)
        return code;
    query_text(&query, job->id);
    query_text(&query, job->name);
    query_text(&query, job_state_name(job->state));
    query_text(&query, job->reason);
    const int64_t numbers[] = {
        job->priority,   job->cores,      job->gpus,       job->attempt,     job->failures,
        job->created_ms, job->updated_ms, job->started_ms, job->finished_ms, job->retry_at_ms};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        query_int(&query, numbers[i]);
    query_text(&query, spec);
    code = query_run(&query, NULL, err);
    if (code != 0)
        return code;
    job->row = sqlite3_last_insert_rowid(store->state.handle);
    if (idem_key != NULL && (code = insert_key(store, idem_key, body_hash, job, err)) != 0)
        return code;
    return store_audit(store, job->id, "submit", job->name, err);
}

int store_job_get(struct store *store, const char *id, struct job_row *out, struct err *err)
{
    struct query query;
    bool row;
    int code = query_read(&query, store, &store->state,
                          "SELECT " JOB_COLUMNS " FROM jobs WHERE id=?", err);
    if (code != 0)
        return code;
    query_text(&query, id);
    code = query_next(&query, &row, err);
    if (code != 0)
        return code;
    if (!row)
        return err_set(err, ERR_NOT_FOUND, "there is no job '%s'", id);
    code = read_row(&query, out, err);
    query_end(&query);
    return code;
}

int store_job_spec(struct store *store, const char *id, struct buf *out, struct err *err)
{
    struct query query;
    bool row;
    int code =
        query_read(&query, store, &store->state, "SELECT spec FROM jobs WHERE id=?", err);
    if (code != 0)
        return code;
    query_text(&query, id);
    code = query_next(&query, &row, err);
    if (code != 0)
        return code;
    if (!row)
        return err_set(err, ERR_NOT_FOUND, "there is no job '%s'", id);
    buf_puts(out, column_text(&query, 0));
    query_end(&query);
    return out->failed ? err_set(err, ERR_LIMIT, "spec of job %s does not fit its buffer", id)
                       : 0;
}

int store_job_set_state(struct store *store, const char *id, enum job_state state,
                        const char *reason, struct err *err)
{
    struct job_row job;
    int code = store_job_get(store, id, &job, err);
    if (code != 0)
        return code;
    if (job_state_final(job.state))
        return err_set(err, ERR_CONFLICT, "job is %s", job_state_name(job.state));
    struct query query;
    code = query_write(&query, store, &store->state,
                       "UPDATE jobs SET state=?, reason=?, updated_ms=?, started_ms=?, "
                       "finished_ms=? WHERE id=?",
                       err);
    if (code != 0)
        return code;
    int64_t now = clock_wall_ms();
    query_text(&query, job_state_name(state));
    query_text(&query, reason);
    query_int(&query, now);
    query_int(&query, state == JOB_STARTING && job.started_ms == 0 ? now : job.started_ms);
    query_int(&query, job_state_final(state) ? now : 0);
    query_text(&query, id);
    code = query_run(&query, NULL, err);
    if (code != 0)
        return code;
    char detail[STORE_TEXT_MAX + 64];
    snprintf(detail, sizeof detail, "%s -> %s%s%s", job_state_name(job.state),
             job_state_name(state), reason[0] != '\0' ? ": " : "", reason);
    return store_audit(store, id, "state", detail, err);
}

int store_job_set_reason(struct store *store, const char *id, const char *reason,
                         struct err *err)
{
    struct query query;
    int code = query_write(&query, store, &store->state,
                           "UPDATE jobs SET reason=?, updated_ms=? WHERE id=?", err);
    if (code != 0)
        return code;
    query_text(&query, reason);
    query_int(&query, clock_wall_ms());
    query_text(&query, id);
    return query_run(&query, NULL, err);
}

int store_job_update(struct store *store, const struct job_row *job, struct err *err)
{
    struct query query;
    int code = query_write(&query, store, &store->state,
                           "UPDATE jobs SET attempt=?, failures=?, retry_at_ms=?, "
                           "updated_ms=?, started_ms=? WHERE id=?",
                           err);
    if (code != 0)
        return code;
    query_int(&query, job->attempt);
    query_int(&query, job->failures);
    query_int(&query, job->retry_at_ms);
    query_int(&query, clock_wall_ms());
    query_int(&query, job->started_ms);
    query_text(&query, job->id);
    return query_run(&query, NULL, err);
}

/* Steps through rows of JOB_COLUMNS. A row that cannot be read is passed over: one bad record
 * must not hide the others. */
static int each_row(struct query *query, int (*each)(void *context, const struct job_row *job),
                    void *context, struct err *err)
{
    bool row;
    int code;
    while ((code = query_next(query, &row, err)) == 0 && row) {
        struct job_row job;
        if (read_row(query, &job, NULL) == 0 && (code = each(context, &job)) != 0)
            break;
    }
    query_end(query);
    return code;
}

int store_jobs_list(struct store *store, const struct job_filter *filter,
                    int (*each)(void *context, const struct job_row *job), void *context,
                    struct err *err)
{
    struct query query;
    /* instr() compares bytes, so that a name with % or _ means itself. */
    int code = query_read(
        &query, store, &store->state,
        "SELECT " JOB_COLUMNS
        " FROM jobs WHERE (?1 = 0 OR row < ?1) AND (?2 IS NULL OR instr(name, ?2) > 0)"
        " AND (?3 IS NULL OR instr(?3, ' ' || state || ' ') > 0)"
        " AND (?4 = 0 OR ?4 = (SELECT count(*) FROM labels WHERE job = id AND"
        " instr(?5, ',' || label || ',') > 0)) ORDER BY row DESC LIMIT ?6",
        err);
    if (code != 0)
        return code;
    char states[256] = " ";
    for (int i = 0; i < JOB_STATES; i++)
        if (filter->states & (1u << i)) {
            strcat(states, state_names[i]);
            strcat(states, " ");
        }
    query_int(&query, filter->after);
    query_text(&query, filter->name);
    query_text(&query, filter->states != 0 ? states : NULL);
    query_int(&query, (int64_t)filter->label_count);
    query_text(&query, filter->labels);
    query_int(&query, (int64_t)filter->limit);
    return each_row(&query, each, context, err);
}

int store_jobs_active(struct store *store,
                      int (*each)(void *context, const struct job_row *job), void *context,
                      struct err *err)
{
    struct query query;
    int code = query_read(
        &query, store, &store->state,
        "SELECT " JOB_COLUMNS
        " FROM jobs WHERE state IN ('queued','starting','running','pausing','paused',"
        "'retry_wait','cancelling') ORDER BY priority DESC, row",
        err);
    return code == 0 ? each_row(&query, each, context, err) : code;
}

int store_jobs_launched(struct store *store,
                        int (*each)(void *context, const struct job_row *job), void *context,
                        struct err *err)
{
    struct query query;
    int code =
        query_read(&query, store, &store->state,
                   "SELECT " JOB_COLUMNS
                   " FROM jobs WHERE state IN ('starting','running','pausing','cancelling')"
                   " ORDER BY row",
                   err);
    return code == 0 ? each_row(&query, each, context, err) : code;
}

int store_jobs_due(struct store *store, int64_t now_ms, int64_t wait_max_ms,
                   int (*each)(void *context, const struct job_row *job), void *context,
                   struct err *err)
{
    struct query query;
    int code = query_read(&query, store, &store->state,
                          "SELECT " JOB_COLUMNS " FROM jobs WHERE state = 'retry_wait' AND "
                          "retry_at_ms NOT BETWEEN ? + 1 AND ? ORDER BY row",
                          err);
    if (code != 0)
        return code;
    query_int(&query, now_ms);
    query_int(&query, now_ms + wait_max_ms);
    return each_row(&query, each, context, err);
}

static int next_queued(struct store *store, const char *sql, struct job_row *out, bool *found,
                       struct err *err)
{
    struct query query;
    *found = false;
    int code = query_read(&query, store, &store->state, sql, err);
    if (code == 0)
        code = query_next(&query, found, err);
    if (code == 0 && *found) {
        code = read_row(&query, out, err);
        query_end(&query);
    }
    return code;
}

int store_jobs_head(struct store *store, struct job_row *out, bool *found, struct err *err)
{
    return next_queued(store,
                       "SELECT " JOB_COLUMNS
                       " FROM jobs WHERE state = 'queued' ORDER BY priority DESC, row LIMIT 1",
                       out, found, err);
}

int store_jobs_slotless(struct store *store, struct job_row *out, bool *found, struct err *err)
{
    return next_queued(store,
                       "SELECT " JOB_COLUMNS
                       " FROM jobs WHERE state = 'queued' AND cores = 0 AND gpus = 0"
                       " ORDER BY priority DESC, row LIMIT 1",
                       out, found, err);
}

static int quarantine_one(struct store *store, const char *id, const char *was, struct err *err)
{
    char reason[STORE_TEXT_MAX];
    int64_t now = clock_wall_ms();
    struct query query;
    int code = query_write(
        &query, store, &store->state,
        "UPDATE jobs SET state='failed', reason=?, cores=max(cores,0), "
        "gpus=max(gpus,0), attempt=max(attempt,0), failures=max(failures,0), updated_ms=?, "
        "finished_ms=? WHERE id=?",
        err);
    if (code != 0)
        return code;
    snprintf(reason, sizeof reason, "its record in state.db was damaged (state '%.64s')", was);
    query_text(&query, reason);
    query_int(&query, now);
    query_int(&query, now);
    query_text(&query, id);
    code = query_run(&query, NULL, err);
    return code == 0 ? store_audit(store, id, "quarantine", reason, err) : code;
}

int store_jobs_quarantine(struct store *store,
                          int (*each)(void *context, const char *id, int64_t attempt),
                          void *context, struct err *err)
{
    for (;;) {
        struct query query;
        bool row;
        char id[STORE_ID_MAX], was[128];
        int code = query_read(
            &query, store, &store->state,
            "SELECT id, state, attempt FROM jobs WHERE state NOT IN ('queued','starting',"
            "'running','pausing','paused','retry_wait','cancelling','succeeded','failed',"
            "'cancelled') OR min(cores, gpus, attempt, failures) < 0 LIMIT 1",
            err);
        if (code == 0)
            code = query_next(&query, &row, err);
        if (code != 0 || !row)
            return code;
        int64_t attempt = column_int(&query, 2);
        column_copy(&query, 0, id, sizeof id);
        column_copy(&query, 1, was, sizeof was);
        query_end(&query);
        code = quarantine_one(store, id, was, err);
        if (code == 0)
            code = each(context, id, attempt);
        if (code != 0)
            return code;
    }
}

int store_jobs_slots(struct store *store, int64_t *cores, int64_t *gpus, struct err *err)
{
    struct query query;
    bool row = false;
    *cores = *gpus = 0;
    int code = query_read(&query, store, &store->state,
                          "SELECT total(cores), total(gpus) FROM jobs WHERE state IN "
                          "('starting','running','pausing',"
                          "'cancelling')",
                          err);
    if (code == 0)
        code = query_next(&query, &row, err);
    if (code == 0 && row) {
        *cores = column_int(&query, 0);
        *gpus = column_int(&query, 1);
        query_end(&query);
    }
    return code;
}

int store_jobs_count(struct store *store, int64_t counts[JOB_STATES], struct err *err)
{
    memset(counts, 0, sizeof counts[0] * JOB_STATES);
    struct query query;
    bool row;
    int code = query_read(&query, store, &store->state,
                          "SELECT state, count(*) FROM jobs GROUP BY state", err);
    while (code == 0 && (code = query_next(&query, &row, err)) == 0 && row) {
        enum job_state state;
        if (job_state_parse(&state, column_text(&query, 0)))
            counts[state] = column_int(&query, 1);
    }
    return code;
}
