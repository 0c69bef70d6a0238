/* Who did what, and the settings that outlive a restart. */
#include "daemon/store_db.h"
#include "proto/base/clock.h"
#include <stdio.h>

void store_act_as(struct store *store, const char *actor)
{
    snprintf(store->actor, sizeof store->actor, "%s", actor);
}

int store_audit(struct store *store, const char *id, const char *action, const char *detail,
                struct err *err)
{
    struct query query;
    int code = query_write(&query, store, &store->state,
                           "INSERT INTO audit(time_ms,job,action,detail,actor) "
                           "VALUES(?,?,?,?,?)",
                           err);
    if (code != 0)
        return code;
    query_int(&query, clock_wall_ms());
    query_text(&query, id);
    query_text(&query, action);
    query_text(&query, detail);
    query_text(&query, store->actor[0] != '\0' ? store->actor : "daemon");
    return query_run(&query, NULL, err);
}

int store_audit_list(struct store *store, const struct audit_filter *filter,
                     int (*each)(void *context, const struct audit_row *row), void *context,
                     struct err *err)
{
    struct query query;
    bool row;
    int code = query_read(
        &query, store, &store->state,
        "SELECT seq, time_ms, job, actor, action, detail FROM audit WHERE (?1 = 0 OR seq < ?1)"
        " AND (?2 IS NULL OR job = ?2) AND (?3 IS NULL OR actor = ?3)"
        " AND (?4 IS NULL OR action = ?4) ORDER BY seq DESC LIMIT ?5",
        err);
    if (code != 0)
        return code;
    query_int(&query, filter->after);
    query_text(&query, filter->job);
    query_text(&query, filter->actor);
    query_text(&query, filter->action);
    query_int(&query, (int64_t)filter->limit);
    while ((code = query_next(&query, &row, err)) == 0 && row) {
        struct audit_row audit = {.seq = column_int(&query, 0),
                                  .time_ms = column_int(&query, 1)};
        column_copy(&query, 2, audit.job, sizeof audit.job);
        column_copy(&query, 3, audit.actor, sizeof audit.actor);
        column_copy(&query, 4, audit.action, sizeof audit.action);
        column_copy(&query, 5, audit.detail, sizeof audit.detail);
        if ((code = each(context, &audit)) != 0)
            break;
    }
    query_end(&query);
    return code;
}

int store_setting(struct store *store, const char *key, int64_t *value, struct err *err)
{
    struct query query;
    bool row = false;
    *value = 0;
    int code =
        query_read(&query, store, &store->state, "SELECT value FROM settings WHERE key=?", err);
    if (code != 0)
        return code;
    query_text(&query, key);
    code = query_next(&query, &row, err);
    if (code == 0 && row)
        *value = column_int(&query, 0);
    query_end(&query);
    return code;
}

int store_setting_set(struct store *store, const char *key, int64_t value, struct err *err)
{
    struct query query;
    int code = query_write(&query, store, &store->state,
                           "INSERT OR REPLACE INTO settings VALUES(?,?)", err);
    if (code != 0)
        return code;
    query_text(&query, key);
    query_int(&query, value);
    return query_run(&query, NULL, err);
}
