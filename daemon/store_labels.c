/* What may change of a submitted job: labels and priority. */
#include "daemon/store_db.h"
#include "proto/base/clock.h"

int store_labels(struct store *store, const char *id,
                 int (*each)(void *context, const char *label), void *context, struct err *err)
{
    struct query query;
    bool row;
    int code = query_read(&query, store, &store->state,
                          "SELECT label FROM labels WHERE job=? ORDER BY label", err);
    if (code != 0)
        return code;
    query_text(&query, id);
    while ((code = query_next(&query, &row, err)) == 0 && row)
        if ((code = each(context, column_text(&query, 0))) != 0)
            break;
    query_end(&query);
    return code;
}

/* Also moves the row's version on, which a change in another table does not. */
static int touch(struct store *store, const char *id, struct err *err)
{
    struct query query;
    int changes = 0;
    int code = query_write(&query, store, &store->state,
                           "UPDATE jobs SET updated_ms=? WHERE id=?", err);
    if (code != 0)
        return code;
    query_int(&query, clock_wall_ms());
    query_text(&query, id);
    code = query_run(&query, &changes, err);
    return code == 0 && changes == 0 ? err_set(err, ERR_NOT_FOUND, "there is no job '%s'", id)
                                     : code;
}

int store_labels_set(struct store *store, const char *id, const struct str_list *labels,
                     struct err *err)
{
    struct query query;
    int code = touch(store, id, err);
    if (code == 0)
        code = query_write(&query, store, &store->state, "DELETE FROM labels WHERE job=?", err);
    if (code != 0)
        return code;
    query_text(&query, id);
    code = query_run(&query, NULL, err);
    for (size_t i = 0; code == 0 && i < labels->count; i++) {
        code = query_write(&query, store, &store->state,
                           "INSERT OR IGNORE INTO labels VALUES(?,?)", err);
        if (code != 0)
            return code;
        query_text(&query, id);
        query_text(&query, labels->items[i]);
        code = query_run(&query, NULL, err);
    }
    return code;
}

int store_job_set_priority(struct store *store, const char *id, int64_t priority,
                           struct err *err)
{
    struct query query;
    int code = touch(store, id, err);
    if (code == 0)
        code = query_write(&query, store, &store->state,
                           "UPDATE jobs SET priority=? WHERE id=?", err);
    if (code != 0)
        return code;
    query_int(&query, priority);
    query_text(&query, id);
    return query_run(&query, NULL, err);
}
