/* Webhooks and their outbox. Rows of deliveries are made by state.db's triggers. */
#include "daemon/store_db.h"
#include "proto/base/clock.h"

int store_webhook_add(struct store *store, const struct webhook_row *row, struct err *err)
{
    struct query query;
    int changes = 0;
    int code = query_write(&query, store, &store->state,
                           "INSERT OR IGNORE INTO webhooks VALUES(?,?,?,?,?)", err);
    if (code != 0)
        return code;
    query_text(&query, row->name);
    query_text(&query, row->url);
    query_text(&query, row->secret);
    query_text(&query, row->states);
    query_int(&query, clock_wall_ms());
    code = query_run(&query, &changes, err);
    if (code == 0 && changes == 0)
        code = err_set(err, ERR_CONFLICT, "there is a webhook '%s' already", row->name);
    return code;
}

int store_webhook_remove(struct store *store, const char *name, struct err *err)
{
    struct query query;
    int changes = 0;
    int code =
        query_write(&query, store, &store->state, "DELETE FROM webhooks WHERE name=?", err);
    if (code != 0)
        return code;
    query_text(&query, name);
    code = query_run(&query, &changes, err);
    if (code == 0 && changes == 0)
        code = err_set(err, ERR_NOT_FOUND, "there is no webhook '%s'", name);
    return code;
}

int store_webhooks(struct store *store,
                   int (*each)(void *context, const struct webhook_row *row), void *context,
                   struct err *err)
{
    struct query query;
    bool row;
    int code = query_read(
        &query, store, &store->state,
        "SELECT name, url, states, created_ms,"
        " (SELECT count(*) FROM deliveries WHERE webhook = webhooks.name),"
        " coalesce((SELECT trouble FROM deliveries WHERE webhook = webhooks.name ORDER BY seq LIMIT 1),"
        " '') FROM webhooks ORDER BY name",
        err);
    while (code == 0 && (code = query_next(&query, &row, err)) == 0 && row) {
        struct webhook_row webhook = {.created_ms = column_int(&query, 3),
                                      .pending = column_int(&query, 4)};
        column_copy(&query, 0, webhook.name, sizeof webhook.name);
        column_copy(&query, 1, webhook.url, sizeof webhook.url);
        column_copy(&query, 2, webhook.states, sizeof webhook.states);
        column_copy(&query, 5, webhook.trouble, sizeof webhook.trouble);
        code = each(context, &webhook);
    }
    query_end(&query);
    return code;
}

#define DELIVERY_COLUMNS                                                                       \
    "d.seq, d.webhook, w.url, w.secret, d.job, d.name, d.was, d.state, d.reason, d.attempt,"   \
    " d.time_ms, d.tries FROM deliveries d JOIN webhooks w ON w.name = d.webhook"

static void read_delivery(const struct query *query, struct delivery_row *out)
{
    *out = (struct delivery_row){.seq = column_int(query, 0),
                                 .attempt = column_int(query, 9),
                                 .time_ms = column_int(query, 10),
                                 .tries = column_int(query, 11)};
    column_copy(query, 1, out->webhook, sizeof out->webhook);
    column_copy(query, 2, out->url, sizeof out->url);
    column_copy(query, 3, out->secret, sizeof out->secret);
    column_copy(query, 4, out->job, sizeof out->job);
    column_copy(query, 5, out->name, sizeof out->name);
    column_copy(query, 6, out->was, sizeof out->was);
    column_copy(query, 7, out->state, sizeof out->state);
    column_copy(query, 8, out->reason, sizeof out->reason);
}

/* Per webhook in order: the oldest only, so that a receiver sees states as they came. */
int store_deliveries_due(struct store *store, int64_t now_ms, size_t limit,
                         int (*each)(void *context, const struct delivery_row *row),
                         void *context, struct err *err)
{
    struct query query;
    bool row;
    int code = query_read(&query, store, &store->state,
                          "SELECT " DELIVERY_COLUMNS
                          " WHERE d.seq IN (SELECT min(seq) FROM deliveries GROUP BY webhook)"
                          " AND d.next_ms <= ? ORDER BY d.seq LIMIT ?",
                          err);
    if (code != 0)
        return code;
    query_int(&query, now_ms);
    query_int(&query, (int64_t)limit);
    while ((code = query_next(&query, &row, err)) == 0 && row) {
        struct delivery_row delivery;
        read_delivery(&query, &delivery);
        if ((code = each(context, &delivery)) != 0)
            break;
    }
    query_end(&query);
    return code;
}

int store_delivery(struct store *store, int64_t seq, struct delivery_row *out, bool *found,
                   struct err *err)
{
    struct query query;
    *found = false;
    int code = query_read(&query, store, &store->state,
                          "SELECT " DELIVERY_COLUMNS " WHERE d.seq = ?", err);
    if (code != 0)
        return code;
    query_int(&query, seq);
    code = query_next(&query, found, err);
    if (code == 0 && *found) {
        read_delivery(&query, out);
        query_end(&query);
    }
    return code;
}

int store_delivery_done(struct store *store, int64_t seq, struct err *err)
{
    struct query query;
    int code =
        query_write(&query, store, &store->state, "DELETE FROM deliveries WHERE seq=?", err);
    if (code != 0)
        return code;
    query_int(&query, seq);
    return query_run(&query, NULL, err);
}

int store_delivery_later(struct store *store, int64_t seq, int64_t next_ms, const char *trouble,
                         struct err *err)
{
    struct query query;
    int code = query_write(&query, store, &store->state,
                           "UPDATE deliveries SET tries=tries+1, next_ms=?, trouble=? "
                           "WHERE seq=?",
                           err);
    if (code != 0)
        return code;
    query_int(&query, next_ms);
    query_text(&query, trouble);
    query_int(&query, seq);
    return query_run(&query, NULL, err);
}
