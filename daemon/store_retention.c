/* Removing what is old, in pieces, so that no turn of the loop takes long. */
#include "daemon/store_db.h"
#include "proto/base/clock.h"

int store_jobs_expired(struct store *store, bool logs, int64_t end_ms, size_t limit,
                       int (*each)(void *context, const char *id), void *context,
                       struct err *err)
{
    struct query query;
    bool row;
    int code = query_read(&query, store, &store->state,
                          logs ? "SELECT id FROM jobs WHERE state IN ('succeeded','failed',"
                                 "'cancelled') AND finished_ms > 0 AND finished_ms < ? AND"
                                 " logs_pruned_ms = 0 ORDER BY row LIMIT ?"
                               : "SELECT id FROM jobs WHERE state IN ('succeeded','failed',"
                                 "'cancelled') AND finished_ms > 0 AND finished_ms < ? AND"
                                 " history_pruned_ms = 0 ORDER BY row LIMIT ?",
                          err);
    if (code != 0)
        return code;
    query_int(&query, end_ms);
    query_int(&query, (int64_t)limit);
    while ((code = query_next(&query, &row, err)) == 0 && row)
        if ((code = each(context, column_text(&query, 0))) != 0)
            break;
    query_end(&query);
    return code;
}

int store_job_pruned(struct store *store, const char *id, bool logs, struct err *err)
{
    struct query query;
    int code = query_write(&query, store, &store->state,
                           logs ? "UPDATE jobs SET logs_pruned_ms=? WHERE id=?"
                                : "UPDATE jobs SET history_pruned_ms=? WHERE id=?",
                           err);
    if (code != 0)
        return code;
    query_int(&query, clock_wall_ms());
    query_text(&query, id);
    return query_run(&query, NULL, err);
}

/* One statement a table: the first `limit` rows by key. */
static const char *const removals[] = {
    "DELETE FROM events WHERE stream=?1 AND seq IN"
    " (SELECT seq FROM events WHERE stream=?1 ORDER BY seq LIMIT ?2)",
    "DELETE FROM steps WHERE stream=?1 AND step IN"
    " (SELECT step FROM steps WHERE stream=?1 ORDER BY step LIMIT ?2)",
    "DELETE FROM evals WHERE stream=?1 AND (split, step) IN"
    " (SELECT split, step FROM evals WHERE stream=?1 ORDER BY split, step LIMIT ?2)",
    "DELETE FROM refreshes WHERE stream=?1 AND refresh IN"
    " (SELECT refresh FROM refreshes WHERE stream=?1 ORDER BY refresh LIMIT max(1, ?2 / 100))",
};

int store_history_remove(struct store *store, const char *id, size_t limit, bool *more,
                         struct err *err)
{
    int64_t stream;
    *more = false;
    int code = store_stream(store, id, false, &stream, err);
    if (code != 0 || stream == 0)
        return code;
    for (size_t i = 0; i < sizeof removals / sizeof removals[0]; i++) {
        struct query query;
        int changes = 0;
        code = query_write(&query, store, &store->series, removals[i], err);
        if (code != 0)
            return code;
        query_int(&query, stream);
        query_int(&query, (int64_t)limit);
        code = query_run(&query, &changes, err);
        if (code != 0)
            return code;
        if (changes > 0) {
            *more = true; /* the next call tells whether that was all */
            return 0;
        }
    }
    return 0;
}

int store_keys_remove(struct store *store, int64_t before_ms, struct err *err)
{
    struct query query;
    int code = query_write(&query, store, &store->state,
                           "DELETE FROM idempotency WHERE created_ms < ?", err);
    if (code != 0)
        return code;
    query_int(&query, before_ms);
    return query_run(&query, NULL, err);
}
