/* Intents, and the attempts that the intents to start led to. */
#include "daemon/store_db.h"
#include "proto/base/clock.h"
#include <assert.h>
#include <string.h>

static const char *const kind_names[] = {
    [INTENT_START] = "start",
    [INTENT_PAUSE] = "pause",
    [INTENT_CANCEL] = "cancel",
    [INTENT_CHECKPOINT] = "checkpoint",
};
enum { KINDS = sizeof kind_names / sizeof kind_names[0] };

int store_intent_put(struct store *store, const char *id, enum intent_kind kind,
                     int64_t attempt, struct err *err)
{
    struct query query;
    int code = query_write(&query, store, &store->state,
                           "INSERT INTO intents VALUES(?,?,?,?) ON CONFLICT(job,kind) DO "
                           "UPDATE SET attempt=excluded.attempt",
                           err);
    if (code != 0)
        return code;
    query_text(&query, id);
    query_text(&query, kind_names[kind]);
    query_int(&query, attempt);
    query_int(&query, clock_wall_ms());
    return query_run(&query, NULL, err);
}

int store_intent_remove(struct store *store, const char *id, enum intent_kind kind,
                        struct err *err)
{
    struct query query;
    int code = query_write(&query, store, &store->state,
                           "DELETE FROM intents WHERE job=? AND kind=?", err);
    if (code != 0)
        return code;
    query_text(&query, id);
    query_text(&query, kind_names[kind]);
    return query_run(&query, NULL, err);
}

int store_intents(struct store *store,
                  int (*each)(void *context, const char *id, enum intent_kind kind,
                              int64_t attempt),
                  void *context, struct err *err)
{
    struct query query;
    bool row;
    int code =
        query_read(&query, store, &store->state,
                   "SELECT job, kind, attempt FROM intents ORDER BY created_ms, job", err);
    if (code != 0)
        return code;
    while ((code = query_next(&query, &row, err)) == 0 && row) {
        for (int kind = 0; kind < KINDS && code == 0; kind++)
            if (strcmp(kind_names[kind], column_text(&query, 1)) == 0)
                code = each(context, column_text(&query, 0), (enum intent_kind)kind,
                            column_int(&query, 2));
        if (code != 0)
            break;
    }
    query_end(&query);
    return code;
}

int store_attempt_begin(struct store *store, const char *id, int64_t attempt, struct err *err)
{
    struct query query;
    int code = query_write(
        &query, store, &store->state,
        "INSERT OR IGNORE INTO attempts(job,attempt,started_ms) VALUES(?,?,?)", err);
    if (code != 0)
        return code;
    query_text(&query, id);
    query_int(&query, attempt);
    query_int(&query, clock_wall_ms());
    return query_run(&query, NULL, err);
}

int store_attempt_end(struct store *store, const char *id, int64_t attempt,
                      const struct attempt_exit *end, struct err *err)
{
    struct query query;
    int code = query_write(&query, store, &store->state,
                           "UPDATE attempts SET finished_ms=?, code=?, signal=?, rank=?, "
                           "reason=? WHERE job=? AND attempt=?"
                           " AND finished_ms IS NULL",
                           err);
    if (code != 0)
        return code;
    query_int(&query, clock_wall_ms());
    query_int(&query, end->code);
    query_int(&query, end->signal);
    query_int(&query, end->rank);
    query_text(&query, end->reason);
    query_text(&query, id);
    query_int(&query, attempt);
    return query_run(&query, NULL, err);
}

int store_attempts(struct store *store, const char *id,
                   int (*each)(void *context, const struct attempt_row *attempt), void *context,
                   struct err *err)
{
    struct query query;
    bool row;
    int code = query_read(&query, store, &store->state,
                          "SELECT attempt, started_ms, finished_ms, code, signal, rank, reason "
                          "FROM attempts WHERE job=?"
                          " ORDER BY attempt",
                          err);
    if (code != 0)
        return code;
    query_text(&query, id);
    while ((code = query_next(&query, &row, err)) == 0 && row) {
        struct attempt_row attempt = {.attempt = column_int(&query, 0),
                                      .started_ms = column_int(&query, 1),
                                      .finished_ms = column_int(&query, 2),
                                      .end = {.code = (int)column_int(&query, 3),
                                              .signal = (int)column_int(&query, 4),
                                              .rank = (int)column_int(&query, 5)}};
        column_copy(&query, 6, attempt.end.reason, sizeof attempt.end.reason);
        if ((code = each(context, &attempt)) != 0)
            break;
    }
    query_end(&query);
    return code;
}
